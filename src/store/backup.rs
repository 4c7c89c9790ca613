//! Copies of the whole store: by order of a person (`otrelay backup`, `otrelay restore`), and by itself before an
//! upgrade. A copy is one SQLite file without a WAL, written under a temporary name, synced, then renamed: a file with
//! the final name is always whole. It is made beside a running agent, too.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use crate::model::Timestamp;
use crate::model::alert::hex;
use crate::store::catalog::{AnyRow, TABLES, read};
use crate::store::disk::files::{self, Aside, failed, is_there, seal, sync_dir, with};
use crate::store::disk::lock::StateLock;
use crate::store::repair;
use crate::store::repair::integrity;
use crate::store::repair::swap::{self, Swap};
use crate::store::schema::{self, Says};
use crate::store::upgrade::copy;
use crate::store::{DATABASE, OpenError, Settings};

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Its schema.
    pub schema: i64,
}

/// A copy that was put in the store's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it is.
    pub copy: Copy,
    /// Where the database is kept that was there before.
    pub kept_as: Option<PathBuf>,
}

/// Why a backup or a restore did not happen. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target is there already.
    #[error("{} exists; nothing was written (--force replaces it)", .0.display())]
    Exists(PathBuf),
    /// The file to restore is not a store, or a damaged one.
    #[error("{} cannot be restored: {why}", path.display())]
    Unfit {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The store or the copy.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<rusqlite::Error> for CopyError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Open(e.into())
    }
}

/// Copies the store of a state directory to `file`, also while an agent runs on it. Blocking.
///
/// # Errors
/// [`CopyError`]; an existing file is replaced only with `force`, and only by a whole copy.
pub fn backup(dir: &Path, file: &Path, force: bool) -> Result<Copy, CopyError> {
    if is_there(file) && !force {
        return Err(CopyError::Exists(file.to_owned()));
    }
    let conn = schema::open_beside(&dir.join(DATABASE))?;
    let schema = conn.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let temporary = with(file, ".tmp");
    let written = copy(&conn, &temporary).and_then(|()| digest(&temporary));
    let (bytes, sha256) = written.inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
    std::fs::rename(&temporary, file).map_err(failed(file))?;
    sync_dir(parent(file))?;
    Ok(Copy { bytes, sha256, schema })
}

fn digest(path: &Path) -> Result<(u64, String), OpenError> {
    let mut file = File::open(path).map_err(failed(path))?;
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        let n = file.read(&mut buffer).map_err(failed(path))?;
        if n == 0 {
            return Ok((bytes, hex(hash.finish().as_ref())));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

fn parent(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts a copy in the place of the store. What was there is kept beside. Nothing may run on the directory. What was
/// waiting in the copy may have been sent since, so it is doubtful: looked up before it is sent. Blocking.
///
/// # Errors
/// [`CopyError`], [`OpenError::Locked`] while an agent runs, [`OpenError::Newer`].
pub fn restore(settings: &Settings, file: &Path, now: Timestamp) -> Result<Restored, CopyError> {
    files::make_dir(&settings.dir)?;
    let mut lock = StateLock::take(&settings.dir)?;
    repair::go_on(settings, now)?;
    let new = Swap::new_path(&settings.dir);
    let version = fit(file)?;
    let conn = schema::open_beside(file)?;
    let made = copy(&conn, &new).map_err(CopyError::from).and_then(|()| doubt(&new)).and_then(|()| {
        seal(&new)?;
        Ok(digest(file)?)
    });
    drop(conn);
    let (bytes, sha256) = made.inspect_err(|_| drop(swap::clear(&settings.dir)))?;
    let path = settings.dir.join(DATABASE);
    let had = files::SIDES.iter().any(|side| is_there(&with(&path, side)));
    let mut kept_as = None;
    if had {
        let swap = Swap::begin(&settings.dir, Aside::BeforeRestore, "", now)?;
        kept_as = Some(swap.kept());
        repair::finish(swap, settings, now)?;
    } else {
        std::fs::rename(&new, &path).map_err(failed(&new))?;
        sync_dir(&settings.dir)?;
    }
    lock.clean();
    Ok(Restored { copy: Copy { bytes, sha256, schema: version }, kept_as })
}

/// Checks that a file is a whole store that this version knows. Gives its schema.
fn fit(file: &Path) -> Result<i64, CopyError> {
    let unfit = |why: String| CopyError::Unfit { path: file.to_owned(), why };
    match std::fs::metadata(file) {
        Ok(m) if m.is_file() && m.len() > 0 => {}
        Ok(_) => return Err(unfit("it is not a file, or an empty one".to_owned())),
        Err(e) => return Err(unfit(e.to_string())),
    }
    let version = match schema::probe(file) {
        Ok(Says::Ours(0)) => return Err(unfit("there is nothing in it".to_owned())),
        Ok(Says::Ours(version)) => version,
        Ok(Says::Damaged(why)) => return Err(unfit(why)),
        Err(OpenError::Sqlite(e)) => return Err(unfit(e.to_string())),
        Err(e) => return Err(e.into()),
    };
    let conn = schema::open_beside(file)?;
    // No deadline: a person waits, and wants to know.
    if let Some(why) = integrity::complaint(&conn, Instant::now() + Duration::from_hours(24)) {
        return Err(unfit(why));
    }
    for table in TABLES.iter().filter(|table| table.checksum.is_some()) {
        let Ok(mut select) = conn
            .prepare(&format!("SELECT rowid AS number, * FROM {}", table.name))
            .or_else(|_| conn.prepare(&format!("SELECT 0 AS number, * FROM {}", table.name)))
        else {
            continue;
        };
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let (columns, values) = read(row)?;
            let row = AnyRow { columns: &columns, values: &values };
            if !table.is_sound(row) {
                let id = row.int("number").unwrap_or_default();
                return Err(unfit(format!("the checksum of {} {id} does not match", table.name)));
            }
        }
    }
    Ok(version)
}

/// All that waits in a copy may have been sent after it was made.
fn doubt(path: &Path) -> Result<(), CopyError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    conn.execute_batch("UPDATE delivery SET doubtful = 1 WHERE state IN ('pending', 'claimed')")?;
    conn.close().map_err(|(_, e)| e)?;
    Ok(())
}
