//! Files beside the database: which there are, what they are called, how one is renamed so that a power cut cannot
//! undo it. Damaged databases, copies from before an upgrade or a restore are *kept*: they count within
//! `[buffer] max_size` and go, oldest first, when there are too many or when they take room that the buffer needs.
//! Nothing here opens a database.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::model::Timestamp;
use crate::store::disk::owner;
use crate::store::{DATABASE, OpenError, Settings};

/// What SQLite keeps beside a database.
pub(in crate::store) const SIDES: [&str; 3] = ["", "-wal", "-shm"];
/// Most kept files of one kind.
const KEPT: usize = 3;
/// A copy from before an upgrade is of no use any more after this.
const UPGRADE_KEPT: Duration = Duration::from_hours(24 * 30);

/// Names of kept files begin so, after the database's own name.
pub(in crate::store) const CORRUPT: &str = ".corrupt-";
const BEFORE_RESTORE: &str = ".before-restore-";
const OLDER: &str = ".v";

/// Why a database is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Aside {
    /// It is damaged.
    Corrupt,
    /// Another one takes its place, by order of a person.
    BeforeRestore,
}

/// A kept file with what belongs to it.
#[derive(Clone, Debug)]
pub(in crate::store) struct Kept {
    pub(in crate::store) path: PathBuf,
    pub(in crate::store) bytes: u64,
    modified_at: Timestamp,
}

/// `path` with more at the end of its name.
pub(in crate::store) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(in crate::store) fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// Whether a name in the state directory is one of otrelay's own.
pub(in crate::store) fn is_ours(name: &str) -> bool {
    ["lock", "probe", super::ballast::NAME].contains(&name)
        || [DATABASE, "login-", "otrelay."].iter().any(|begin| name.starts_with(begin))
}

/// Whether something with this name is there, whatever it is.
pub(in crate::store) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether nothing has this name; an error where that cannot be told, as on a disk that has gone.
pub(in crate::store) fn is_absent(path: &Path) -> Result<bool, OpenError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(true),
        Err(e) => Err(failed(path)(e)),
    }
}

/// Has a file read from the disk from now on, and not as the page cache has it. After a write that failed, that has pages
/// which are not on the disk, as good as written; ext4 also takes their blocks for written ones, and what is written there
/// later does not last. Not there where a file system does not let go of them: what follows is done all the same.
pub(in crate::store) fn forget_cached(path: &Path) -> Result<(), OpenError> {
    let file = match open_ours(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(path)(e)),
    };
    // Only clean pages are let go of. An error here may be the old one, told once more; the next sync tells of a new one.
    let _ = file.sync_data();
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    Ok(())
}

/// Writes a file again as it is read, in its place, and syncs it. After a write or a sync that failed, what can be read
/// may be in the page cache alone, and counts there as written: it would go with the power.
pub(in crate::store) fn write_again(path: &Path) -> Result<(), OpenError> {
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(path)(e)),
    };
    let (mut block, mut at) = (vec![0; 64 * 1024], 0);
    // What cannot be read is SQLite's to judge.
    while let Ok(len @ 1..) = file.read_at(&mut block, at) {
        file.write_all_at(&block[..len], at).map_err(failed(path))?;
        at += len as u64;
    }
    file.sync_data().map_err(failed(path))
}

/// Makes the names in a directory durable.
pub(in crate::store) fn sync_dir(dir: &Path) -> Result<(), OpenError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(failed(dir))
}

/// How a file is opened whose name is ours: a link with that name is not followed, and a pipe is not waited for.
pub(in crate::store) const OURS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Opens a file whose name is ours, to read.
pub(in crate::store) fn open_ours(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OURS.bits().cast_signed()).open(path)
}

/// Makes a file that must not be there yet, for the owner only.
pub(in crate::store) fn create_ours(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OURS.bits().cast_signed())
        .open(path)
}

/// Makes the content of a file durable, for the owner only.
pub(in crate::store) fn seal(path: &Path) -> Result<(), OpenError> {
    let sealed = |file: File| {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.sync_all()
    };
    open_ours(path).and_then(sealed).map_err(failed(path))
}

/// A name of its own for what is set aside: `queue.db.corrupt-20261121T115507Z`.
pub(in crate::store) fn name_aside(dir: &Path, why: Aside, now: Timestamp) -> String {
    let word = match why {
        Aside::Corrupt => CORRUPT,
        Aside::BeforeRestore => BEFORE_RESTORE,
    };
    let stamp = now.servicenow().replace(['-', ':'], "").replace(' ', "T");
    let first = format!("{DATABASE}{word}{stamp}Z");
    let free = |name: &String| SIDES.iter().all(|side| !is_there(&dir.join(format!("{name}{side}"))));
    // Two within a second, or a clock that stands still.
    let more = (2..10_000).map(|n| format!("{first}-{n}"));
    std::iter::once(first.clone()).chain(more).find(free).unwrap_or(first)
}

/// The copy from before the upgrade of a schema.
pub(in crate::store) fn name_older(version: i64) -> String {
    format!("{DATABASE}{OLDER}{version}")
}

/// What is kept, oldest first.
pub(in crate::store) fn kept(dir: &Path) -> Vec<Kept> {
    let mut all: Vec<Kept> = names(dir)
        .into_iter()
        .filter(|name| is_kept(name) && !name.ends_with("-wal") && !name.ends_with("-shm"))
        .map(|name| {
            let path = dir.join(name);
            let bytes = SIDES.iter().map(|side| size(&with(&path, side))).sum();
            Kept { modified_at: modified_at(&path), bytes, path }
        })
        .collect();
    all.sort_by(|a, b| (a.modified_at, &a.path).cmp(&(b.modified_at, &b.path)));
    all
}

fn is_kept(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(DATABASE) else { return false };
    let is_older = |rest: &str| {
        rest.strip_prefix(OLDER).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    rest.starts_with(CORRUPT) || rest.starts_with(BEFORE_RESTORE) || is_older(rest)
}

pub(in crate::store) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn size(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |m| m.len())
}

fn modified_at(path: &Path) -> Timestamp {
    let at = fs::symlink_metadata(path).and_then(|m| m.modified());
    let since = at.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    Timestamp::EPOCH.after(since.unwrap_or_default())
}

/// Removes a kept file with what belongs to it, and says so.
pub(in crate::store) fn remove(kept: &Kept, why: &str) -> bool {
    let mut gone = false;
    // Sides first: a database without its WAL could be taken for a whole one.
    for side in SIDES.iter().rev() {
        let path = with(&kept.path, side);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone |= side.is_empty() && removed.is_ok();
    }
    if gone {
        tracing::warn!(file = %kept.path.display(), bytes = kept.bytes, "a kept database was deleted: {why}");
    }
    gone
}

/// Deletes what is kept beyond the bounds: more than a few of a kind, an upgrade long ago, or more than `room` bytes
/// in all. The newest goes last. Gives how many went.
pub(in crate::store) fn bound(dir: &Path, room: u64, now: Timestamp) -> u64 {
    let mut gone = 0;
    let mut left = kept(dir);
    let kind = |k: &Kept, word: &str| name_of(k).strip_prefix(DATABASE).is_some_and(|r| r.starts_with(word));
    for (word, keep) in [(CORRUPT, KEPT), (BEFORE_RESTORE, KEPT), (OLDER, KEPT)] {
        let of: Vec<Kept> = left.iter().filter(|k| kind(k, word)).cloned().collect();
        for k in of.iter().take(of.len().saturating_sub(keep)) {
            gone += u64::from(remove(k, "there are newer ones"));
        }
    }
    for k in left.iter().filter(|k| kind(k, OLDER) && k.modified_at < now.before(UPGRADE_KEPT)) {
        gone += u64::from(remove(k, "the upgrade is more than 30 days ago"));
    }
    left = kept(dir);
    let mut bytes: u64 = left.iter().map(|k| k.bytes).sum();
    for k in &left {
        if bytes <= room {
            break;
        }
        gone += u64::from(remove(k, "the buffer needs its room ([buffer] max_size)"));
        bytes = bytes.saturating_sub(k.bytes);
    }
    gone
}

/// Deletes what is kept, oldest first, as long as `is_short`: a disk without space keeps alerts out. Gives how many went.
pub(in crate::store) fn give_up(dir: &Path, is_short: impl Fn() -> bool) -> u64 {
    let left = if is_short() { kept(dir) } else { Vec::new() };
    let gone = left
        .iter()
        .take_while(|_| is_short())
        .map(|k| remove(k, "the disk is full, and alerts need its room"));
    gone.map(u64::from).sum()
}

fn name_of(kept: &Kept) -> &str {
    kept.path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

/// The state directory, for the owner only.
pub(in crate::store) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    // On a file system that has shut down nothing is said to be there, and nothing can be made either.
    if is_absent(dir)? {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    }
    if !fs::metadata(dir).map_err(io)?.is_dir() {
        return Err(io(io::Error::from(io::ErrorKind::NotADirectory)));
    }
    owner::may_write(dir).map_err(io)?;
    write_in_place(dir);
    Ok(())
}

/// On btrfs, has the files that are made here from now on written in their place. There a page that is written again needs
/// a new block, and SQLite writes its index through mapped memory: where the disk is full, that would end by SIGBUS. The
/// rows have checksums of their own. Elsewhere, and where it may not be set, nothing is done.
fn write_in_place(dir: &Path) {
    /// `BTRFS_SUPER_MAGIC` of linux/magic.h.
    const BTRFS: u64 = 0x9123_683e;
    let Ok(dir) = File::open(dir) else { return };
    if rustix::fs::fstatfs(&dir).is_ok_and(|fs| fs.f_type as u64 == BTRFS)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&dir)
    {
        let _ = rustix::fs::ioctl_setflags(&dir, flags | rustix::fs::IFlags::NOCOW);
    }
}

/// Database, WAL and index hold alert bodies, which can hold secrets: 0600 whatever the umask.
pub(in crate::store) fn restrict(path: &Path) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = Path::new(&name);
        let Ok(there) = fs::symlink_metadata(file) else { continue };
        if there.is_file() {
            // By its path, and never opened: this process may have the database open, and closing any descriptor of a file
            // gives up every POSIX lock that the process has on it, SQLite's among them. The next program then takes the
            // index for left behind and cuts it off below the mapping of this one (SIGBUS).
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).map_err(failed(file))?;
        }
    }
    Ok(())
}

/// Kept files count within `[buffer] max_size`: what the database has grown to is not theirs any more.
pub(in crate::store) fn bound_kept(settings: &Settings, now: Timestamp) {
    let limit = settings.max_size.saturating_sub(room_of(&settings.dir.join(DATABASE)));
    bound(&settings.dir, limit, now);
}

/// Bytes of a database with what belongs to it.
pub(in crate::store) fn room_of(path: &Path) -> u64 {
    SIDES.iter().filter_map(|side| fs::metadata(with(path, side)).ok()).map(|m| m.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept_bytes(dir: &Path) -> u64 {
        kept(dir).iter().map(|k| k.bytes).sum()
    }

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn write(dir: &Path, name: &str, bytes: usize) {
        fs::write(dir.join(name), vec![7; bytes]).unwrap();
    }

    #[test]
    fn names_are_told_apart() {
        let kept = ["queue.db.corrupt-20261121T115507Z", "queue.db.before-restore-x", "queue.db.v1"];
        assert!(kept.iter().all(|name| is_kept(name)));
        assert!(
            !["queue.db", "queue.db-wal", "queue.db.new", "queue.db.v", "queue.db.v1x", "lock"]
                .iter()
                .any(|name| is_kept(name))
        );
    }

    #[test]
    fn a_name_is_never_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let first = name_aside(dir.path(), Aside::Corrupt, NOW);
        assert_eq!(first, "queue.db.corrupt-20261118T110640Z");
        write(dir.path(), &format!("{first}-wal"), 1);
        assert_eq!(name_aside(dir.path(), Aside::Corrupt, NOW), format!("{first}-2"));
    }

    #[test]
    fn a_few_are_kept_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..5 {
            write(dir.path(), &format!("queue.db.corrupt-{n}"), 10);
            write(dir.path(), &format!("queue.db.corrupt-{n}-wal"), 5);
        }
        write(dir.path(), "queue.db.v1", 100);
        write(dir.path(), "queue.db", 1_000);
        assert_eq!(kept_bytes(dir.path()), 5 * 15 + 100);
        let now = modified_at(&dir.path().join("queue.db"));
        assert_eq!(bound(dir.path(), 1_000, now), 2);
        let mut names = names(dir.path());
        names.sort();
        assert_eq!(names.len(), 3 * 2 + 2, "{names:?}");
        assert!(names.contains(&"queue.db.corrupt-4-wal".to_owned()), "{names:?}");
        assert_eq!(bound(dir.path(), 1_000, now.after(UPGRADE_KEPT).after(UPGRADE_KEPT)), 1, "the upgrade's");
        assert_eq!(bound(dir.path(), 20, now), 2);
        assert_eq!(kept_bytes(dir.path()), 15);
    }

    #[test]
    fn as_many_as_a_full_disk_needs_are_given_up_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            write(dir.path(), &format!("queue.db.corrupt-{n}"), 10);
            write(dir.path(), &format!("queue.db.corrupt-{n}-wal"), 5);
        }
        write(dir.path(), "queue.db", 1_000);
        assert_eq!(give_up(dir.path(), || false), 0);
        assert_eq!(give_up(dir.path(), || kept_bytes(dir.path()) > 20), 2);
        let mut names = names(dir.path());
        names.sort();
        assert_eq!(names, ["queue.db", "queue.db.corrupt-2", "queue.db.corrupt-2-wal"]);
        assert_eq!(give_up(dir.path(), || true), 1);
        assert_eq!(kept_bytes(dir.path()), 0);
    }
}
