//! What `otrelay init` puts on disk: each file as a whole, under its own name only when it is complete and synced.
//!
//! Order: secrets, drop-in, config. A power cut between two of them leaves a config that was there before, and secrets
//! that nothing uses yet; the same command then goes on, because what is there already with the same text is no obstacle.
//! A file that is replaced by `--force` stays beside under a name of its own, and is never gone in between.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::model::SecretString;
use crate::model::secret::ExposeSecret as _;

/// Largest file of ours that is compared, in bytes.
const SAME_MAX: u64 = 1 << 20;

pub(super) struct Planned {
    pub(super) path: PathBuf,
    pub(super) text: SecretString,
    pub(super) mode: u32,
    /// User and group, where they are not those of who runs this.
    pub(super) owner: Option<(u32, u32)>,
    /// Mode of its directory, where that has to be made.
    pub(super) dir_mode: u32,
}

/// What is in the place of a planned file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    /// The same text, or one that may be replaced.
    Free,
    Other,
}

impl Planned {
    /// What is there now; `replaceable` is the text of a file that nobody has touched.
    pub(super) fn there(&self, replaceable: Option<&str>) -> io::Result<There> {
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(There::Nothing),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(SAME_MAX).read_to_end(&mut bytes)?;
        let is = |text: &str| bytes == text.as_bytes();
        Ok(if is(self.text.expose_secret()) || replaceable.is_some_and(is) {
            There::Free
        } else {
            There::Other
        })
    }

    /// Whether its directory is one that nobody else can change: or could be made.
    pub(super) fn check_directory(&self) -> io::Result<()> {
        let Some(dir) = self.path.parent() else { return Err(io::Error::other("it has no directory")) };
        match dir.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e),
            Ok(metadata) if !metadata.is_dir() => {
                Err(io::Error::other(format!("{} is no directory", dir.display())))
            }
            Ok(metadata) => {
                let own = rustix::process::geteuid().as_raw();
                let foreign = metadata.uid() != own && metadata.uid() != 0;
                // The sticky bit keeps others from what is not theirs, as in /tmp.
                let open = metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0;
                if foreign || open {
                    let (shown, mode) = (dir.display(), metadata.mode() & 0o7777);
                    let words = format!(
                        "others may change {shown} (user {}, mode {mode:04o}); chown root {shown} && chmod go-w {shown}",
                        metadata.uid()
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
                }
                Ok(())
            }
        }
    }

    /// Writes it; what was there stays beside as `keep`.
    pub(super) fn write(&self, keep: Option<&Path>) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("/"));
        self.make(dir)?;
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{:08x}", fastrand::u32(..)));
        let fresh = dir.join(name);
        let result = self.fill(&fresh).and_then(|()| {
            if let Some(keep) = keep {
                std::fs::hard_link(&self.path, keep)?;
            }
            std::fs::rename(&fresh, &self.path)
        });
        if result.is_err() {
            // It is ours: it did not exist before.
            let _ = std::fs::remove_file(&fresh);
        }
        result?;
        File::open(dir)?.sync_all()
    }

    fn fill(&self, fresh: &Path) -> io::Result<()> {
        let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).custom_flags(nofollow).open(fresh)?;
        file.write_all(self.text.expose_secret().as_bytes())?;
        if let Some((user, group)) = self.owner {
            fchown(&file, Some(user), Some(group))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        file.sync_all()
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(self.dir_mode).create(dir)?;
        let own = File::open(dir)?;
        if let Some((_, group)) = self.owner {
            fchown(&own, None, Some(group))?;
        }
        match dir.parent() {
            Some(above) => File::open(above)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(path: PathBuf, text: &str) -> Planned {
        Planned { path, text: text.to_owned().into(), mode: 0o600, owner: None, dir_mode: 0o750 }
    }

    #[test]
    fn a_file_is_written_as_a_whole_and_the_old_one_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = planned(path.clone(), "one");
        assert_eq!(first.there(None).unwrap(), There::Nothing);
        first.write(None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(first.there(None).unwrap(), There::Free);
        let second = planned(path.clone(), "two");
        assert_eq!(
            (second.there(None).unwrap(), second.there(Some("one")).unwrap()),
            (There::Other, There::Free)
        );
        let keep = dir.path().join("a/b.before");
        second.write(Some(&keep)).unwrap();
        assert_eq!(std::fs::read_to_string(&keep).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 2);
        // The name of what is kept is taken: nothing changes.
        assert!(planned(path.clone(), "three").write(Some(&keep)).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 2);
    }

    #[test]
    fn links_pipes_and_directories_of_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(planned(link, "x").there(None).is_err());
        assert!(planned(dir.path().join("."), "x").there(None).is_err());
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = planned(open.join("f"), "x").check_directory().unwrap_err().to_string();
        assert!(error.contains("others may change") && error.contains("0777"), "{error}");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
        planned(open.join("f"), "x").check_directory().unwrap();
        planned(dir.path().join("none/f"), "x").check_directory().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(planned(file.join("f"), "x").check_directory().is_err());
    }
}
