//! Whose the state directory is. It has to belong to the user that works in it: who owns it, or may write into it, can put
//! another file under any name. A command of root's becomes its owner first (`cli/owner.rs`); that none forgets it is seen
//! to here.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Root's user id.
const ROOT: u32 = 0;

/// Refuses a directory that somebody else prepared, or may write into.
pub(in crate::store) fn may_write(dir: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(dir)?;
    judge(&meta, rustix::process::geteuid().as_raw())
}

/// Refuses root in a directory of somebody else: SQLite writes beside what it only reads.
pub(in crate::store) fn may_read(dir: &Path) -> io::Result<()> {
    match std::fs::metadata(dir) {
        Ok(meta) if rustix::process::geteuid().is_root() => is_own(&meta, ROOT),
        // Whether it can be read shows when it is.
        _ => Ok(()),
    }
}

fn judge(meta: &Metadata, own: u32) -> io::Result<()> {
    is_own(meta, own)?;
    if meta.mode() & 0o002 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "everybody may write into it, and could exchange what is kept there; chmod 0700",
        ));
    }
    Ok(())
}

fn is_own(meta: &Metadata, own: u32) -> io::Result<()> {
    if meta.uid() == own {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "it belongs to user {}, and otrelay runs as user {own}: somebody else could exchange what is kept there; \
             chown it, or run otrelay as its owner",
            meta.uid()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_somebody_else_made_or_may_write_into_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let with = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::metadata(dir.path()).unwrap()
        };
        let meta = with(0o750);
        assert!(judge(&meta, meta.uid()).is_ok());
        let refused = judge(&meta, meta.uid() + 1).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("belongs to user {}, and otrelay runs as", meta.uid())),
            "{refused}"
        );
        assert!(judge(&with(0o1777), meta.uid()).unwrap_err().to_string().contains("everybody may write"));
    }

    #[test]
    fn a_squatted_state_directory_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = crate::store::disk::files::make_dir(dir.path()).unwrap_err();
        assert!(
            matches!(&refused, crate::store::OpenError::Io { path, .. } if path == dir.path()),
            "{refused}"
        );
        assert!(may_read(dir.path()).is_ok(), "it is this user's own");
    }
}
