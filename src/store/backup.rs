//! Copies of the whole store: by order of a person (`otrelay backup`), and by itself before an upgrade. A copy is one
//! SQLite file without a WAL, written under a temporary name that nobody had, synced, then renamed: a file with the final
//! name is always whole. It is made beside a running agent, too. `restore.rs` takes one in again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
    put(file, force, schema, |temporary| vacuum(&conn, temporary))
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

/// Puts it where it is to be. Blocking.
///
/// # Errors
/// [`CopyError`], as of [`backup`].
pub fn keep(mut export: Export, dir: &Path, file: &Path, force: bool) -> Result<Copy, CopyError> {
    may_be_written(dir, file, force)?;
    put(file, force, export.schema, |temporary| {
        let mut write =
            || std::io::copy(&mut export.file, &mut OpenOptions::new().write(true).open(temporary)?);
        write().map(drop).map_err(failed(temporary))
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
    Ok(())
}

/// A new file under a name that nobody has, for the owner only; gone again where nothing becomes of it.
fn temporary(dir: &Path) -> Result<tempfile::NamedTempFile, OpenError> {
    tempfile::Builder::new().prefix("otrelay-copy-").tempfile_in(dir).map_err(failed(dir))
}

/// Writes beside `file`, then renames. What is there is replaced as a whole, or not at all.
fn put(
    file: &Path,
    force: bool,
    schema: i64,
    write: impl FnOnce(&Path) -> Result<(), OpenError>,
) -> Result<Copy, CopyError> {
    let dir = parent(file);
    let mut temporary = temporary(dir).map_err(|e| about(file, e))?;
    write(temporary.path())?;
    temporary.as_file().sync_all().map_err(failed(file))?;
    let (bytes, sha256) = digest(temporary.as_file_mut()).map_err(failed(file))?;
    let kept = if force { temporary.persist(file) } else { temporary.persist_noclobber(file) };
    kept.map_err(|e| match e.error.kind() {
        std::io::ErrorKind::AlreadyExists => CopyError::Exists(file.to_owned()),
        _ => failed(file)(e.error).into(),
    })?;
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

fn parent(file: &Path) -> &Path {
    file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
