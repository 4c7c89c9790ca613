//! Opening the database whatever state it is in. A power cut, a failing card, a person with a hex editor: the agent
//! starts within seconds, with what can still be read, and says what is missing.
//!
//! A file that is damaged is set aside by rename (`swap.rs` says what a power cut leaves of that) and a new one is made
//! of what can be read of it (`rebuild.rs`). A file of a newer version is refused and stays as it is, its WAL too. The
//! structure is checked only after an unclean stop, and only where that is quick: rows carry their own checksums.

pub(super) mod integrity;
pub(super) mod rebuild;
mod salvage;
pub(super) mod swap;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::Instant;

use crate::model::Timestamp;
use crate::model::codes::Code;
use crate::store::disk::files::{self, Aside, is_there, with};
use crate::store::disk::lock::Before;
use crate::store::repair::swap::Swap;
use crate::store::schema::{self, Says};
use crate::store::session::Session;
use crate::store::upgrade;
use crate::store::{DATABASE, OpenError, Settings, StoreError, is_of_the_schema};

/// Larger databases are not checked at start.
const CHECKED_BYTES: u64 = 256 << 20;
/// Time for the check. What it has not found by then shows when the rows are read.
const CHECK: Duration = Duration::from_secs(3);
/// Time for reading a damaged database. With the check it keeps the start within ten seconds.
const SALVAGE: Duration = Duration::from_secs(5);

/// Why it could not be opened.
enum Trouble {
    /// The file is damaged.
    Damage(String),
    /// Anything else.
    Other(OpenError),
}

impl From<OpenError> for Trouble {
    fn from(e: OpenError) -> Self {
        match damage(&e) {
            Some(cause) => Self::Damage(cause),
            None => Self::Other(e),
        }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(e: rusqlite::Error) -> Self {
        OpenError::from(e).into()
    }
}

/// What an error says about the file, if it is the file's fault.
fn damage(e: &OpenError) -> Option<String> {
    let sqlite = match e {
        OpenError::Sqlite(e) => e,
        OpenError::Migration(e) => match e.as_ref() {
            // That a step does not fit may be the step's fault: the file stays as the older version left it.
            rusqlite_migration::Error::RusqliteError { err, .. } if !is_of_the_schema(err) => err,
            _ => return None,
        },
        _ => return None,
    };
    match StoreError::of(sqlite) {
        StoreError::Damaged(text) => Some(text),
        _ => None,
    }
}

/// An open database, and what had to be done for it.
pub(in crate::store) struct Opened {
    pub(in crate::store) session: Session,
    /// It was damaged and is made anew.
    pub(in crate::store) repaired: bool,
    /// The cursors were given up with that: the sources' files are read again.
    pub(in crate::store) rewound: bool,
}

/// Opens the database of a locked state directory; repairs it first where that is needed.
pub(in crate::store) fn open(
    settings: &Settings,
    now: Timestamp,
    before: &Before,
) -> Result<Opened, OpenError> {
    let mut rewound = go_on(settings, now)?;
    if *before != Before::Clean {
        // All that is not yet in the database file is in the log, and what a checkpoint took over without its sync as well.
        let path = settings.dir.join(DATABASE);
        files::forget_cached(&path)?;
        files::forget_cached(&with(&path, "-wal"))?;
        files::write_again(&with(&path, "-wal"))?;
    }
    let (mut before, mut repaired, mut last) = (before.clone(), false, String::new());
    if let Before::Damaged { cause, again } = &before {
        if *again || !integrity::may_be_a_read(cause) {
            rewound |= repair(settings, now, cause)?;
            (before, repaired) = (Before::Clean, true);
        } else {
            tracing::warn!("the last run met damage: the database is looked at: {cause}");
        }
    }
    let mut doubt = true;
    for _ in 0..3 {
        match try_open(settings, now, &before) {
            Ok(session) => return Ok(Opened { session, repaired, rewound }),
            Err(Trouble::Other(e)) => return Err(e),
            Err(Trouble::Damage(cause)) if std::mem::take(&mut doubt) && integrity::may_be_a_read(&cause) => {
                tracing::warn!("the database is looked at once more: {cause}");
            }
            Err(Trouble::Damage(cause)) => {
                last.clone_from(&cause);
                rewound |= repair(settings, now, &cause)?;
                (before, repaired) = (Before::Clean, true);
            }
        }
    }
    Err(OpenError::Repair(StoreError::Damaged(last)))
}

fn try_open(settings: &Settings, now: Timestamp, before: &Before) -> Result<Session, Trouble> {
    let path = settings.dir.join(DATABASE);
    if let Some(cause) = by_sight(&path, before) {
        return Err(Trouble::Damage(cause));
    }
    let mut version = 0;
    if is_there(&path) {
        match schema::probe(&path)? {
            Says::Damaged(cause) => return Err(Trouble::Damage(cause)),
            Says::Ours(0) if was_used(before) => {
                return Err(Trouble::Damage("there is nothing in its file".to_owned()));
            }
            Says::Ours(found) => version = found,
        }
        if schema::has_strange_wal(&path) {
            return Err(Trouble::Damage("its WAL is of another database".to_owned()));
        }
        if *before != Before::Clean
            && let Some(cause) = check(&path, version)?
        {
            return Err(Trouble::Damage(cause));
        }
    }
    if (1..schema::version()).contains(&version) {
        upgrade::before_upgrade(settings, version, now)?;
    }
    let conn = schema::open_writer(&path, settings.max_size)?;
    files::bound_kept(settings, now);
    forget_issues(&conn, &settings.dir)?;
    Ok(Session::new(conn, schema::pages(settings.max_size))?)
}

/// What can be seen without opening it.
fn by_sight(path: &Path, before: &Before) -> Option<String> {
    // A link is none either: what it leads to may be anybody's.
    let is_file = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    for side in files::SIDES {
        let path = with(path, side);
        if is_there(&path) && !is_file(&path) {
            return Some(format!("{} is not a file", path.display()));
        }
    }
    let has_wal = size(&with(path, "-wal")) > 0;
    if !is_there(path) {
        return has_wal.then(|| "its file is gone, only the WAL is there".to_owned());
    }
    (size(path) == 0 && (has_wal || was_used(before))).then(|| "its file is empty".to_owned())
}

/// Whether a database was there: without one, an empty file is a first start that was cut short.
fn was_used(before: &Before) -> bool {
    !matches!(before, Before::Unknown)
}

/// The structure, after an unclean stop.
fn check(path: &Path, version: i64) -> Result<Option<String>, Trouble> {
    if files::room_of(path) > CHECKED_BYTES {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(path, flags)?;
        schema::keep_wal(&conn)?;
        schema::set(&conn, "query_only", 1)?;
        schema::set(&conn, "cell_size_check", 1)?;
        Ok(conn)
    };
    if version == schema::version()
        && let Some(cause) = integrity::misshapen(&open()?)?
    {
        return Ok(Some(cause));
    }
    // Each time with nothing in the cache.
    let mut first = Some(open()?);
    Ok(integrity::twice(|| {
        let conn = first.take().map_or_else(&open, Ok);
        conn.map_or_else(|e| Some(e.to_string()), |conn| integrity::complaint(&conn, Instant::now() + CHECK))
    }))
}

/// Goes on with what the last process could not finish. Gives whether the cursors were given up with it.
pub(in crate::store) fn go_on(settings: &Settings, now: Timestamp) -> Result<bool, OpenError> {
    match Swap::pending(&settings.dir) {
        Some(swap) => finish(swap, settings, now),
        None => swap::clear(&settings.dir).map(|()| false),
    }
}

fn repair(settings: &Settings, now: Timestamp, cause: &str) -> Result<bool, OpenError> {
    tracing::error!("the database is damaged and is made anew: {cause}");
    finish(Swap::begin(&settings.dir, Aside::Corrupt, cause, now)?, settings, now)
}

/// Takes an exchange to its end. Gives whether the cursors were given up with it.
pub(in crate::store) fn finish(swap: Swap, settings: &Settings, now: Timestamp) -> Result<bool, OpenError> {
    let dir = &settings.dir;
    let mut rewound = false;
    if !swap.is_done() {
        swap.set_aside()?;
        if swap.why == Aside::Corrupt {
            rewound = rebuild_from(&swap, settings, now)?;
        }
        swap.put_in()?;
    }
    swap.end()?;
    tracing::info!(dir = %dir.display(), "the database is in its place");
    Ok(rewound)
}

fn rebuild_from(swap: &Swap, settings: &Settings, now: Timestamp) -> Result<bool, OpenError> {
    let (kept, new) = (swap.kept(), Swap::new_path(&settings.dir));
    let damage = rebuild::Damage { at: now, kept: &kept, kept_as: &swap.kept_as, cause: &swap.cause };
    let make = |time: Duration| {
        swap::clear_new(&settings.dir)?;
        rebuild::make_anew(&new, &damage, Instant::now() + time)
    };
    let healed = make(SALVAGE).or_else(|e| {
        if !is_full(&e) {
            return Err(e);
        }
        // What is kept of older damage is worth less than what is in this one.
        for older in files::kept(&settings.dir).iter().filter(|k| k.path != kept) {
            files::remove(older, "the disk is full, and a damaged database has to be salvaged");
        }
        make(SALVAGE).or_else(|e| if is_full(&e) { make(Duration::ZERO) } else { Err(e) })
    })?;
    tracing::error!(kept = %kept.display(), "{}{}", healed.text(), Code::behind("store-repaired"));
    Ok(healed.rewound)
}

fn is_full(e: &OpenError) -> bool {
    matches!(e, OpenError::Sqlite(e) if e.sqlite_error_code() == Some(ErrorCode::DiskFull))
}

/// Takes away what is said about kept files that are not there any more.
fn forget_issues(conn: &Connection, dir: &Path) -> rusqlite::Result<()> {
    let mut select = conn.prepare("SELECT subject FROM health_issue WHERE code = ?1")?;
    let subjects: Vec<String> = select.query_map([rebuild::CODE], |r| r.get(0))?.collect::<Result<_, _>>()?;
    for subject in subjects {
        if !is_there(&dir.join(&subject)) {
            conn.execute(
                "DELETE FROM health_issue WHERE code = ?1 AND subject = ?2",
                [rebuild::CODE, &subject],
            )?;
        }
    }
    Ok(())
}
