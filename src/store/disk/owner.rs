//! Whose the files of the state directory are. Root may work on the store of the service's user (`otrelay run --once`,
//! `queue drop`, a restore), and what it makes there would shut the service out at its next start: an unreadable lock is
//! the end of it. So what root made is handed to the owner of the directory, when it is opened and when it is let go.
//!
//! The directory belongs to somebody with fewer rights, who may put anything there: only plain files of root with a
//! single name are handed over, looked at through the descriptor that is changed. SQLite gives its own side files the
//! owner of the database.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;

/// Root's user id.
const ROOT: u32 = 0;

/// Hands over what root made in `dir`. Nothing to do for anybody else, or where the directory is root's own. What cannot
/// be handed over stays as it is: the service says so when it cannot use it.
pub(in crate::store) fn hand_over(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Ok(owner) = std::fs::metadata(dir) else { return };
    if owner.uid() == ROOT {
        return;
    }
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if let Ok(file) = open(&entry.path())
            && file.metadata().is_ok_and(|m| m.is_file() && m.uid() == ROOT && m.nlink() == 1)
        {
            let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
        }
    }
}

/// Without following a link, and without waiting for the other end of a pipe.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};
    use std::path::PathBuf;

    use super::*;

    const SERVICE: u32 = 54_321;

    fn uid(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().uid()
    }

    fn file(path: PathBuf) -> PathBuf {
        std::fs::write(&path, "x").unwrap();
        path
    }

    /// Only root can give files away; anybody else sees that nothing changes.
    #[test]
    fn what_root_made_goes_to_the_owner_of_the_directory_and_nothing_else_does() {
        let elsewhere = tempfile::tempdir().unwrap();
        let own = uid(elsewhere.path());
        let heir =
            if chown(elsewhere.path(), Some(own), None).is_ok() && own == ROOT { SERVICE } else { own };
        let dir = elsewhere.path().join("state");
        std::fs::create_dir(&dir).unwrap();
        let made = file(dir.join("queue.db"));
        let outside = file(elsewhere.path().join("shadow"));
        let link = dir.join("link");
        symlink(&outside, &link).unwrap();
        let second = file(elsewhere.path().join("second"));
        std::fs::hard_link(&second, dir.join("second")).unwrap();
        if heir == SERVICE {
            chown(&dir, Some(SERVICE), Some(SERVICE)).unwrap();
        }
        hand_over(&dir);
        assert_eq!(uid(&made), heir);
        assert_eq!([uid(&outside), uid(&link), uid(&second)], [own; 3]);
    }

    #[test]
    fn a_store_that_root_opened_can_be_opened_by_the_service() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        std::fs::create_dir(&path).unwrap();
        let heir = if chown(&path, Some(SERVICE), Some(SERVICE)).is_ok() { SERVICE } else { uid(&path) };
        let lock = crate::store::disk::lock::StateLock::take(&path).unwrap();
        file(path.join("made later"));
        drop(lock);
        assert_eq!([uid(&path.join("lock")), uid(&path.join("made later"))], [heir; 2]);
    }
}
