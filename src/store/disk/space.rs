//! Room: what of `[buffer] max_size` belongs to whom, and how much the file system still has.
//!
//! `max_size` is for the whole state directory. The database gets what the write-ahead log (WAL), the ballast and some
//! slack leave of it ([`Budget`]). Before each batch the writer looks once at the file system ([`Space::before`]): below
//! two WAL limits the intake stops, while claims and settles go on; the files of the sensor are the buffer then. When
//! others took even the rest, the ballast is given up (`ballast.rs`), so that checkpoint and settles work again: a full
//! disk with a full WAL would otherwise be a trap, as even a delete needs room first. All of it ends by itself when
//! space returns, with some distance between stop and start, so that it does not flutter.
//!
//! An idle store looks at nothing.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;
use rustix::io::Errno;

use crate::model::HealthIssue;
use crate::store::disk::ballast::Ballast;
use crate::store::disk::files;
use crate::store::health::{Conditions, Kind};
use crate::store::{DATABASE, StoreError};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
/// The smallest that can be shared out: `max_size` is at least 8 MiB, but a file system may be smaller.
const SMALLEST: u64 = 2 * MIB;
/// Written to find out whether a directory can be written: more than one block, less than any limit here.
const PROBE: [u8; 16 * 1024] = [0x5a; 16 * 1024];
/// Pages of WAL that a commit checkpoints, at most: 1 000 x 4 KiB bounds what a damaged WAL can cut off.
const CHECKPOINT_MAX: u64 = 1_000;
/// Milliseconds that emptying an overgrown WAL waits for readers.
const CHECKPOINT_WAIT: u32 = 200;

/// How `max_size` is shared out, in bytes where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Budget {
    /// What of the WAL stays allocated after a checkpoint.
    pub(in crate::store) wal: u64,
    /// Highest that the WAL may stand: what is kept and the largest transaction.
    pub(in crate::store) wal_peak: u64,
    /// Pages of WAL after which a commit checkpoints.
    pub(in crate::store) checkpoint_pages: u64,
    /// Size of the ballast.
    pub(in crate::store) ballast: u64,
    /// Pages that the database may have.
    pub(in crate::store) pages: i64,
    /// Bodies of alerts in one transaction.
    pub(in crate::store) part: u64,
}

impl Budget {
    /// Shares out `max_size`, which is at least [`SMALLEST`].
    pub(in crate::store) fn of(max_size: u64) -> Self {
        let max_size = max_size.max(SMALLEST);
        let wal = (max_size / 8).clamp(MIB / 4, 8 * MIB);
        let ballast = wal + (wal / 4).min(MIB);
        // A run of the index touches pages all over its table, and that grows with the database.
        let wal_peak = wal + (max_size / 32).max(wal / 4);
        let slack = wal / 4;
        Self {
            wal,
            wal_peak,
            checkpoint_pages: (wal / 2 / PAGE).min(CHECKPOINT_MAX),
            ballast,
            pages: ((max_size - wal_peak - ballast - slack) / PAGE) as i64,
            part: wal / 2,
        }
    }

    /// Free bytes below which nothing more is taken in.
    fn low(&self) -> u64 {
        2 * self.wal
    }

    /// Free bytes above which it is taken in again.
    fn enough(&self) -> u64 {
        self.low() + self.wal / 4
    }
}

/// What trying to write into a directory came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Probe {
    /// It works.
    Writable,
    /// No space, or the quota is used up.
    NoSpace,
    /// Mounted read-only.
    ReadOnly,
    /// Something else: rights, a dying disk.
    Failed,
}

impl Probe {
    /// Writes a few blocks and takes them away again. Blocking.
    pub(in crate::store) fn of(dir: &Path) -> Self {
        let path = dir.join("probe");
        // Left behind by a power cut.
        let _ = std::fs::remove_file(&path);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| file.write_all_at(&PROBE, 0).and_then(|()| file.sync_data()));
        let removed = std::fs::remove_file(&path);
        match written.and(removed) {
            Ok(()) => Self::Writable,
            Err(e) => Self::from(&e),
        }
    }
}

impl From<&std::io::Error> for Probe {
    fn from(e: &std::io::Error) -> Self {
        match Errno::from_io_error(e) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace,
            Some(Errno::ROFS) => Self::ReadOnly,
            _ => Self::Failed,
        }
    }
}

/// The watch over the room of a state directory. Lives where the session lives, on the writer's thread.
pub(in crate::store) struct Space {
    dir: PathBuf,
    pub(in crate::store) budget: Budget,
    ballast: Ballast,
    conditions: Arc<Conditions>,
    /// A write found no space though the file system has some: a quota. Only a write can tell when it is over.
    quota: bool,
}

impl Space {
    /// A watch over this directory, before the database is opened. Where the disk is tight the ballast goes at once:
    /// opening needs room for the WAL's index.
    pub(in crate::store) fn new(dir: &Path, budget: Budget, conditions: Arc<Conditions>) -> Self {
        let mut ballast = Ballast::find(dir, budget.ballast);
        if free(dir).is_some_and(|free| free < MIB / 4) {
            ballast.release();
        }
        Self { dir: dir.to_owned(), budget, ballast, conditions, quota: false }
    }

    /// Gives the ballast up. False when there was none.
    pub(in crate::store) fn release(&mut self) -> bool {
        self.ballast.release()
    }

    /// Looks at the file system and at the WAL before a batch.
    pub(in crate::store) fn before(&mut self, conn: &Connection) {
        let short = self.short_of_space(conn).map(|condition| (Kind::Disk, condition));
        let case = short.or_else(|| self.overgrown(conn));
        for kind in [Kind::Disk, Kind::Log] {
            match &case {
                Some((now, condition)) if *now == kind => self.conditions.begin(kind, condition.clone()),
                _ => self.conditions.end(kind),
            }
        }
    }

    /// After the answers of a batch have left: makes the ballast where it is missing and there is space for it.
    pub(in crate::store) fn after(&mut self) {
        if self.ballast.is_there() || self.conditions.is(Kind::Disk) {
            return;
        }
        if free(&self.dir).is_some_and(|free| free >= self.budget.ballast + self.budget.enough()) {
            self.ballast.make();
        }
    }

    /// What an error of the store really is. A full disk is told from a full buffer, and both from a disk that
    /// failed; for a full disk the ballast is given up.
    pub(in crate::store) fn judge(&mut self, e: StoreError) -> StoreError {
        let probe = match &e {
            StoreError::Full(_) if free(&self.dir).is_some_and(|free| free < self.budget.wal) => {
                Probe::NoSpace
            }
            StoreError::Full(_) => Probe::of(&self.dir),
            // After a failed sync nobody knows what is on the disk, whatever was the reason.
            StoreError::Disk(text) if !text.contains(crate::store::NOT_SYNCED) => Probe::of(&self.dir),
            _ => return e,
        };
        match (probe, e) {
            (Probe::NoSpace, StoreError::Full(text) | StoreError::Disk(text)) => {
                self.release();
                self.quota = free(&self.dir).is_none_or(|free| free >= self.budget.wal);
                self.conditions.begin(Kind::Disk, self.full());
                StoreError::DiskFull(text)
            }
            (Probe::ReadOnly, StoreError::Full(text) | StoreError::Disk(text)) => StoreError::ReadOnly(text),
            (_, e) => e,
        }
    }

    fn short_of_space(&mut self, conn: &Connection) -> Option<HealthIssue> {
        if self.conditions.is(Kind::Disk) {
            // What was forgotten gives its blocks back with the checkpoint; where that fails there is no space.
            let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
        self.quota = self.quota && Probe::of(&self.dir) == Probe::NoSpace;
        if self.quota {
            return Some(self.full());
        }
        // Where nobody can say how much is free (some network file systems), the error of a write has to do.
        let mut free = free(&self.dir)?;
        let stopped = self.conditions.is(Kind::Disk);
        let limit = if stopped { self.budget.enough() } else { self.budget.low() };
        let needed = limit + if self.ballast.is_there() { 0 } else { self.budget.ballast };
        if free < needed {
            // What is kept of damage, an upgrade or a restore is worth less than alerts.
            files::give_up(&self.dir, || self::free(&self.dir).is_some_and(|free| free < needed));
            free = self::free(&self.dir)?;
        }
        (free < needed).then(|| self.full())
    }

    fn full(&self) -> HealthIssue {
        if self.quota {
            return HealthIssue {
                code: Kind::Disk.code(),
                subject: String::new(),
                text: format!(
                    "nothing can be written to {}, though the disk has space: a quota is used up; no alerts are taken \
                     in, they wait in the sensor's files",
                    self.dir.display()
                ),
                remedy: "raise the quota (quota, repquota, xfs_quota) or make space; it goes on by itself"
                    .to_owned(),
            };
        }
        let megabytes = |bytes: u64| bytes.div_ceil(MIB);
        let needed = self.budget.enough() + if self.ballast.is_there() { 0 } else { self.budget.ballast };
        HealthIssue {
            code: Kind::Disk.code(),
            subject: String::new(),
            text: format!(
                "the disk is full: {} MiB free at {}, {} MiB needed; no alerts are taken in, they wait in the \
                 sensor's files; what is stored is still delivered",
                free(&self.dir).map_or(0, |free| free / MIB),
                self.dir.display(),
                megabytes(needed)
            ),
            remedy: format!("{}; it goes on by itself", remedy(&self.dir)),
        }
    }

    /// The WAL stands higher than it may: its checkpoint failed for want of space, or somebody reads for long.
    fn overgrown(&mut self, conn: &Connection) -> Option<(Kind, HealthIssue)> {
        let stands = || std::fs::metadata(self.dir.join(format!("{DATABASE}-wal"))).map_or(0, |m| m.len());
        let kept = self.ballast.is_there() || !self.conditions.is(Kind::Disk);
        let limit = if kept { self.budget.wal_peak } else { self.budget.wal };
        if stands() <= limit {
            return None;
        }
        // A failure shows in the size.
        let _ = conn.busy_timeout(std::time::Duration::from_millis(CHECKPOINT_WAIT.into()));
        let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        let _ = conn.busy_timeout(std::time::Duration::from_secs(5));
        match emptied {
            Ok(false) => None,
            Ok(true) => Some((
                Kind::Log,
                HealthIssue {
                    code: Kind::Log.code(),
                    subject: String::new(),
                    text: format!(
                        "another program reads {} for long: its write-ahead log cannot be emptied and stands at {} \
                     MiB; no alerts are taken in, they wait in the sensor's files",
                        self.dir.join(DATABASE).display(),
                        stands() / MIB
                    ),
                    remedy: "end that program (fuser, lsof); it goes on by itself".to_owned(),
                },
            )),
            Err(_) => {
                self.release();
                Some((Kind::Disk, self.full()))
            }
        }
    }
}

/// `max_size`, or the size of the file system that the directory is on where that is smaller.
pub(in crate::store) fn within(dir: &Path, max_size: u64) -> u64 {
    let whole = rustix::fs::statvfs(dir).map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize));
    // Zero: it does not say.
    if whole == 0 { max_size } else { max_size.min(whole) }
}

/// What to do about a file system without room.
pub(in crate::store) fn remedy(dir: &Path) -> &'static str {
    let has_inodes = |fs: &rustix::fs::StatVfs| fs.f_files == 0 || fs.f_favail > 0;
    if rustix::fs::statvfs(dir).is_ok_and(|fs| !has_inodes(&fs)) {
        "remove files on that file system: no inode is left (df -i)"
    } else {
        "make space on that file system (df, df -i, du)"
    }
}

/// Free bytes for this user; `None` when the file system does not say.
pub(in crate::store) fn free(dir: &Path) -> Option<u64> {
    let fs = rustix::fs::statvfs(dir).ok()?;
    (fs.f_blocks > 0).then(|| fs.f_bavail.saturating_mul(fs.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_shared_out_whole() {
        for mib in [2, 4, 8, 9, 16, 20, 33, 64, 100, 256, 1024, 100_000] {
            let (b, max) = (Budget::of(mib * MIB), mib * MIB);
            let sum = b.pages as u64 * PAGE + b.wal_peak + b.ballast;
            assert!(sum <= max && sum + b.wal / 2 > max, "{mib}: {b:?}");
            assert!(b.ballast > b.wal && b.wal_peak > b.wal, "{mib}: {b:?}");
            assert!(b.pages as u64 * PAGE > max / 2, "{mib}: the database has most of it: {b:?}");
            assert!(
                b.checkpoint_pages * PAGE + b.part <= b.wal,
                "{mib}: a commit fits above a checkpoint: {b:?}"
            );
        }
        assert_eq!(Budget::of(0), Budget::of(SMALLEST));
        assert_eq!(Budget::of(256 * MIB).ballast, 9 * MIB);
    }

    #[test]
    fn a_directory_is_tried_by_writing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Probe::of(dir.path()), Probe::Writable);
        std::fs::write(dir.path().join("probe"), "left behind").unwrap();
        assert_eq!(Probe::of(dir.path()), Probe::Writable);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(Probe::of(&dir.path().join("absent")), Probe::Failed);
        let of = |errno: Errno| Probe::from(&std::io::Error::from(errno));
        assert_eq!(
            [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO].map(of),
            [Probe::NoSpace, Probe::NoSpace, Probe::ReadOnly, Probe::Failed]
        );
    }

    #[test]
    fn where_space_is_short_what_is_kept_goes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("queue.db.corrupt-20261121T115507Z");
        std::fs::write(&kept, "damaged").unwrap();
        let conn = Connection::open(dir.path().join(DATABASE)).unwrap();
        let conditions = Arc::new(Conditions::default());
        let enough = Budget { ballast: 0, ..Budget::of(8 * MIB) };
        Space::new(dir.path(), enough, Arc::clone(&conditions)).before(&conn);
        assert!(kept.exists(), "there is space");
        let more_than_any_disk = Budget { wal: 1 << 60, ..enough };
        Space::new(dir.path(), more_than_any_disk, Arc::clone(&conditions)).before(&conn);
        assert!(!kept.exists());
        assert!(conditions.is(Kind::Disk));
    }

    #[test]
    fn a_full_disk_is_told_from_a_full_buffer_and_a_failed_sync() {
        let dir = tempfile::tempdir().unwrap();
        let conditions = Arc::new(Conditions::default());
        let mut space = Space::new(dir.path(), Budget::of(8 * MIB), Arc::clone(&conditions));
        let full = space.judge(StoreError::Full("x".to_owned()));
        assert!(matches!(full, StoreError::Full(_)), "there is space, so it is the buffer: {full:?}");
        let failed = space.judge(StoreError::Disk("x".to_owned()));
        assert!(matches!(failed, StoreError::Disk(_)), "{failed:?}");
        assert!(conditions.all().is_empty());
    }
}
