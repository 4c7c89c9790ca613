//! Copies of the whole store: by order of a person (`otrelay backup`), and by itself before an upgrade. A copy is one
//! SQLite file without a WAL, written under a temporary name that nobody had, synced, then renamed: a file with the final
//! name is always whole. It is made beside a running agent, too. `restore.rs` takes one in again.

use std::fs::{File, Metadata};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::model::alert::hex;
use crate::store::disk::files::{self, failed, is_there, sync_dir};
use crate::store::schema;
use crate::store::upgrade::vacuum;
use crate::store::{DATABASE, OpenError};

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

/// Why a backup or a restore did not happen. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The target is there already.
    #[error("{} exists; nothing was written (--force replaces it)", .0.display())]
    Exists(PathBuf),
    /// The target is a file of the store itself.
    #[error("{} is a file of otrelay's own; nothing was written: name another place", .0.display())]
    Ours(PathBuf),
    /// Others could put another file in its place.
    #[error("others may write beside {} and exchange it: no copy was kept, name another place", .0.display())]
    Exchangeable(PathBuf),
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
    may_be_written(dir, file, force)?;
    let conn = schema::open_beside(&dir.join(DATABASE))?;
    let schema = conn.pragma_query_value(None, "user_version", |r| r.get(0))?;
    put(file, force, schema, |temporary| vacuum(&conn, temporary.path()))
}

/// A copy in the state directory that has no name any more, for somebody who may not read what is there.
#[derive(Debug)]
pub struct Export {
    file: File,
    schema: i64,
}

/// Makes one. Blocking.
///
/// # Errors
/// [`CopyError`].
pub fn export(dir: &Path) -> Result<Export, CopyError> {
    let conn = schema::open_beside(&dir.join(DATABASE))?;
    let schema = conn.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let temporary = temporary(dir)?;
    vacuum(&conn, temporary.path())?;
    let file = files::open_ours(temporary.path()).map_err(failed(temporary.path()))?;
    Ok(Export { file, schema })
}

/// Puts it where it is to be. Root does so as the owner of that place, who may put any link under any name there
/// (`cli/owner.rs`). Blocking.
///
/// # Errors
/// [`CopyError`], as of [`backup`].
pub fn keep(mut export: Export, dir: &Path, file: &Path, force: bool) -> Result<Copy, CopyError> {
    may_be_written(dir, file, force)?;
    put(file, force, export.schema, |temporary| {
        // Through the descriptor: what stands under its name may be another one's by now.
        std::io::copy(&mut export.file, temporary.as_file_mut()).map(drop).map_err(failed(file))
    })
}

/// What is in the state directory under a name of ours is no place for a copy, and an existing file only with `force`.
fn may_be_written(dir: &Path, file: &Path, force: bool) -> Result<(), CopyError> {
    let place = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()));
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if files::is_ours(&name) && place(parent(file)).is_some_and(|is| place(dir) == Some(is)) {
        return Err(CopyError::Ours(file.to_owned()));
    }
    if is_there(file) && !force {
        return Err(CopyError::Exists(file.to_owned()));
    }
    // In a directory with the sticky bit each may exchange only what is their own.
    let mode = std::fs::metadata(parent(file)).map_or(0, |meta| meta.mode());
    if mode & 0o1002 == 0o0002 {
        return Err(CopyError::Exchangeable(file.to_owned()));
    }
    Ok(())
}

/// A new file under a name that nobody has, for the owner only; gone again where nothing becomes of it.
fn temporary(dir: &Path) -> Result<NamedTempFile, OpenError> {
    tempfile::Builder::new().prefix("otrelay-copy-").tempfile_in(dir).map_err(failed(dir))
}

/// Writes beside `file`, then renames. What is there is replaced as a whole, or not at all.
fn put(
    file: &Path,
    force: bool,
    schema: i64,
    write: impl FnOnce(&mut NamedTempFile) -> Result<(), OpenError>,
) -> Result<Copy, CopyError> {
    let dir = parent(file);
    let mut temporary = temporary(dir).map_err(|e| about(file, e))?;
    write(&mut temporary)?;
    temporary.as_file().sync_all().map_err(failed(file))?;
    let (bytes, sha256) = digest(temporary.as_file_mut()).map_err(failed(file))?;
    let kept = if force { temporary.persist(file) } else { temporary.persist_noclobber(file) };
    let kept = kept.map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => CopyError::Exists(file.to_owned()),
        _ => failed(file)(e.error).into(),
    })?;
    let number = |meta: std::io::Result<Metadata>| meta.map(|m| (m.dev(), m.ino())).map_err(failed(file));
    if number(kept.metadata())? != number(std::fs::symlink_metadata(file))? {
        return Err(CopyError::Exchangeable(file.to_owned()));
    }
    sync_dir(dir)?;
    Ok(Copy { bytes, sha256, schema })
}

/// The error about the file that was asked for, not about the one beside it.
fn about(file: &Path, e: OpenError) -> OpenError {
    match e {
        OpenError::Io { source, .. } => OpenError::Io { path: file.to_owned(), source },
        e => e,
    }
}

/// Size and SHA-256 of all of a file.
pub(super) fn digest(file: &mut File) -> std::io::Result<(u64, String)> {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    file.rewind()?;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((bytes, hex(hash.finish().as_ref())));
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
}

/// The directory that a copy is put into.
pub fn parent(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Who may write into the directory puts a link under the temporary name, as soon as it is there.
    #[test]
    fn what_is_put_in_the_place_of_the_temporary_is_not_written_to() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (victim, target) = (elsewhere.path().join("victim"), dir.path().join("b.db"));
        std::fs::write(&victim, "root's own").unwrap();
        let put = put(&target, false, 1, |temporary| {
            std::fs::rename(temporary.path(), dir.path().join("gone")).unwrap();
            symlink(&victim, temporary.path()).unwrap();
            temporary.as_file_mut().write_all(b"the copy").map_err(failed(&target))
        });
        assert!(matches!(put, Err(CopyError::Exchangeable(_))), "{put:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"root's own");
        assert_eq!(std::fs::read(dir.path().join("gone")).unwrap(), b"the copy");
    }

    #[test]
    fn where_everybody_may_exchange_it_is_no_place_for_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let with = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            may_be_written(Path::new("/nowhere"), &dir.path().join("b.db"), false)
        };
        assert!(with(0o755).is_ok() && with(0o1777).is_ok());
        assert!(matches!(with(0o777), Err(CopyError::Exchangeable(_))));
    }
}
