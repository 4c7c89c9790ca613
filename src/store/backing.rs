//! What the writer stands on: the database on disk, or one in memory for as long as the state directory cannot be
//! written (`fallback.rs`); and the watch over its room (`disk/space.rs`).
//!
//! An error of a transaction passes through [`Backing::judge`] before anybody is answered. What can pass by itself (a
//! full disk, a read-only mount) becomes an error that callers wait on with the same operation in hand; nothing is
//! acknowledged that is not stored in one of the two.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::HealthIssue;
use crate::store::disk::files::{make_dir, restrict};
use crate::store::disk::lock::{Before, StateLock};
use crate::store::disk::space::{self, Budget, Probe, Space};
use crate::store::fallback;
use crate::store::handle::{Operation, Shared};
use crate::store::health::Kind;
use crate::store::op::claim::Recover;
use crate::store::repair::{self, Opened};
use crate::store::session::Session;
use crate::store::{DATABASE, OpenError, Settings, StoreError};

/// Between two looks whether the state directory can be written again.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// As long as this an answer may come for something that was sent before memory took over, and that is not in it.
const STAY: Duration = Duration::from_secs(90);
/// How often opening is tried again.
const TRIES: u32 = 2;
/// What was in flight is looked up after the other side's index has had time (`relay::DOUBT_WAIT`).
const DOUBT: Duration = Duration::from_secs(6);

/// An open store.
pub(super) struct Backing {
    pub(super) session: Session,
    space: Space,
    lock: Option<StateLock>,
    /// Since when everything is in memory, and how.
    in_fallback: Option<InFallback>,
    /// The database was made anew on the way home, and its cursors were given up.
    rewound: bool,
    shared: Arc<Shared>,
}

struct InFallback {
    since: Instant,
    looked: Instant,
    whole: bool,
}

impl InFallback {
    fn look_at(&self) -> Instant {
        let next = self.looked + LOOK;
        if self.whole { next } else { next.max(self.since + STAY) }
    }
}

/// The disk's part of a [`Backing`].
struct OnDisk {
    session: Session,
    space: Space,
    lock: StateLock,
    rewound: bool,
}

impl Backing {
    /// Opens the state directory for writing: makes it, locks it, opens and migrates the database; in memory when the
    /// directory cannot be written. Blocking.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do.
    pub(super) fn open(shared: Arc<Shared>) -> Result<Self, OpenError> {
        match patiently(&shared) {
            // Sources begin by what is in the file, whatever was done to it.
            Ok(OnDisk { session, space, lock, rewound: _ }) => {
                Ok(Self { session, space, lock: Some(lock), in_fallback: None, rewound: false, shared })
            }
            Err((e, why)) => {
                let why = why.ok_or(e)?;
                let lock = StateLock::take_unwritten(&shared.settings.dir)?;
                let (session, in_fallback) = in_memory(&shared, why)?;
                let space = space_of(&shared);
                Ok(Self { session, space, lock, in_fallback: Some(in_fallback), rewound: false, shared })
            }
        }
    }

    /// Before a batch.
    ///
    /// # Errors
    /// The process has to start again: what the sources go by is not what is in the file any more.
    pub(super) fn before(&mut self) -> Result<(), StoreError> {
        if self.in_fallback.is_some() {
            self.look_home();
        }
        if self.rewound {
            return Err(StoreError::Disk(
                "the database was damaged when it could be written again and is made anew; the sources have to begin anew"
                    .to_owned(),
            ));
        }
        if self.in_fallback.is_none() {
            self.space.before(&self.session.conn);
        }
        Ok(())
    }

    /// After the answers of a batch have left.
    pub(super) fn after(&mut self, outcome: &Result<(), StoreError>) {
        match outcome {
            Err(StoreError::ReadOnly(_)) if self.in_fallback.is_none() => self.fall_back(),
            _ if self.in_fallback.is_none() => self.space.after(),
            _ => {}
        }
    }

    /// What an error really is; see [`Space::judge`].
    pub(super) fn judge(&mut self, e: StoreError) -> StoreError {
        if self.in_fallback.is_some() { e } else { self.space.judge(e) }
    }

    /// When somebody should look whether the directory can be written again; `None` while it can.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.in_fallback.as_ref().map(InFallback::look_at)
    }

    /// Closes it: leaves a small WAL behind and tells the query planner what it learnt; neither is needed for safety.
    pub(super) fn close(mut self) {
        if self.in_fallback.is_some() {
            // What is in memory goes home if it can.
            self.go_home();
        }
        let _ = self.session.conn.execute_batch("PRAGMA optimize");
        drop(self.session);
        if let Some(mut lock) = self.lock.filter(|_| self.in_fallback.is_none()) {
            lock.clean();
        }
    }

    /// Notes damage for the next start, which repairs it.
    pub(super) fn note(&mut self, e: &StoreError) {
        if let (StoreError::Damaged(cause), Some(lock), None) = (e, &mut self.lock, &self.in_fallback) {
            lock.damaged(cause);
        }
    }

    /// Closes it without writing anything back.
    pub(super) fn abandon(self) {
        self.session.abandon();
    }

    /// The directory became read-only under an open database: memory takes over.
    fn fall_back(&mut self) {
        match in_memory(&self.shared, Probe::ReadOnly) {
            Ok((session, in_fallback)) => {
                // Closing the old one fails on a read-only file system; what it had committed is in its WAL.
                self.session = session;
                self.in_fallback = Some(in_fallback);
            }
            // Tried again with the next operation, which meets the same error.
            Err(e) => tracing::error!("the state directory is read-only, and memory cannot take over: {e}"),
        }
    }

    fn look_home(&mut self) {
        let Some(in_fallback) = &mut self.in_fallback else { return };
        if in_fallback.look_at() <= Instant::now() {
            in_fallback.looked = Instant::now();
            self.go_home();
        }
    }

    /// Back to the disk, with all that came in meanwhile; stays in memory when that cannot be.
    fn go_home(&mut self) {
        let dir = &self.shared.settings.dir;
        let sending = fallback::is_sending(&self.session.conn).unwrap_or(true);
        if sending || (dir.exists() && Probe::of(dir) != Probe::Writable) {
            return;
        }
        let Ok(mut disk) = on_disk(&self.shared, self.lock.take()) else { return };
        let now = self.shared.clock.now();
        // Where the cursors were given up, those of memory would step over what was lost.
        let with_cursors = !disk.rewound;
        let brought = fallback::bring_home(&self.session.conn, &mut disk.session, now, with_cursors)
            .and_then(|brought| {
                let recover = Recover { now, due_at: now.after(DOUBT) };
                disk.session.transaction(|tx| recover.run(tx))?;
                Ok(brought)
            });
        self.lock = Some(disk.lock);
        match brought {
            Ok(alerts) => {
                tracing::info!(alerts, "what was kept in memory meanwhile is stored");
                self.session = disk.session;
                self.space = disk.space;
                self.in_fallback = None;
                self.rewound = disk.rewound;
                self.shared.set_memory(None);
                self.shared.conditions.end(Kind::Memory);
            }
            Err(e) => tracing::warn!("what is kept in memory could not be stored yet: {e}"),
        }
    }
}

/// Tries again where an error was one of the moment: a file that others wrote and removed on a full disk. The directory is
/// tried once for each error, so that a disk that is full for three writes is not full to one look and writable to the next.
fn patiently(shared: &Shared) -> Result<OnDisk, (OpenError, Option<Probe>)> {
    let mut tries = 0;
    loop {
        match on_disk(shared, None) {
            Ok(disk) => return Ok(disk),
            Err(e) => match why(&e, &shared.settings.dir) {
                None if tries < TRIES && may_pass(&e) => tries += 1,
                why => return Err((e, why)),
            },
        }
    }
}

/// Whether an error of opening may be gone at once, on a directory that can be written.
fn may_pass(e: &OpenError) -> bool {
    match e {
        OpenError::Sqlite(e) => {
            matches!(StoreError::of(e), StoreError::Full(_) | StoreError::Disk(_))
                && !crate::store::is_failed_sync(e)
        }
        // Its step was taken back whole.
        OpenError::Migration(_) => true,
        _ => false,
    }
}

fn on_disk(shared: &Shared, lock: Option<StateLock>) -> Result<OnDisk, OpenError> {
    let dir = &shared.settings.dir;
    make_dir(dir)?;
    let mut space = space_of(shared);
    let mut lock = match lock {
        Some(lock) => lock,
        None => StateLock::take(dir)?,
    };
    let Opened { session, repaired, rewound } = match session(shared, &lock.before) {
        // Opening needs room for the WAL's index; the ballast is for such a moment.
        Err(e) if why(&e, dir) == Some(Probe::NoSpace) && space.release() => session(shared, &lock.before)?,
        other => other?,
    };
    lock.opened(repaired);
    Ok(OnDisk { session, space, lock, rewound })
}

fn space_of(shared: &Shared) -> Space {
    let settings = &shared.settings;
    let budget = Budget::of(space::within(&settings.dir, settings.max_size));
    Space::new(&settings.dir, budget, Arc::clone(&shared.conditions))
}

fn session(shared: &Shared, before: &Before) -> Result<Opened, OpenError> {
    let settings = effective(shared);
    let opened = repair::open(&settings, shared.clock.now(), before)?;
    restrict(&settings.dir.join(DATABASE))?;
    Ok(Opened { session: opened.session.tell(&shared.conditions), ..opened })
}

/// The settings, with a `max_size` that is not more than the file system has.
fn effective(shared: &Shared) -> Settings {
    let settings = &shared.settings;
    Settings { max_size: space::within(&settings.dir, settings.max_size), ..settings.clone() }
}

fn in_memory(shared: &Shared, why: Probe) -> Result<(Session, InFallback), OpenError> {
    let settings = &shared.settings;
    let pages = fallback::pages(&Budget::of(settings.max_size));
    let name = fallback::new_name();
    let fallback::Opened { conn, whole } = fallback::open(&settings.dir.join(DATABASE), &name, pages)?;
    let session = Session::new(conn, pages)?.tell(&shared.conditions);
    shared.set_memory(Some(name));
    let dir = settings.dir.display();
    let (state, remedy) = match why {
        Probe::NoSpace => ("on a full disk", space::remedy(&settings.dir)),
        _ => ("read-only", "see why (dmesg, journalctl -k), then mount it for writing (mount -o remount,rw)"),
    };
    shared.conditions.begin(
        Kind::Memory,
        HealthIssue {
            code: Kind::Memory.code(),
subject: String::new(),
text: format!(
                "the state directory {dir} is {state}: alerts are kept in memory only, at most {} MiB of them, and \
                 that is gone at a restart{}",
                pages * 4 / 1024,
                if whole { "" } else { "; what was stored before is delivered when it can be written" }
            ),
            remedy: format!("{remedy}; it goes on by itself within {} s", LOOK.as_secs()),
        },
    );
    let now = Instant::now();
    Ok((session, InFallback { since: now, looked: now, whole }))
}

/// Why the directory cannot be written, where that is all that is wrong.
fn why(e: &OpenError, dir: &Path) -> Option<Probe> {
    let probe = match e {
        OpenError::Io { source, .. } => Probe::from(source),
        OpenError::Locked { .. }
        | OpenError::Newer { .. }
        | OpenError::Absent(_)
        | OpenError::OldSqlite(_) => {
            return None;
        }
        _ => Probe::of(dir),
    };
    matches!(probe, Probe::NoSpace | Probe::ReadOnly).then_some(probe)
}
