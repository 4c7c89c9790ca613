//! Where a file that is no longer under its name went: renamed beside it, or copied before it was truncated.
//!
//! Everything here looks at a bounded number of names of one directory, and only after something was missed. A file is
//! known again by its inode and its first bytes, a copy by its first bytes alone. What this does not do: remember.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::file::{self, Followed, Head, Id};
use super::packing::Packing;
use super::watch::unreadable;
use crate::model::FileCursor;
use crate::model::cursor::HEAD_LEN;
use crate::model::text::one_line;
use crate::source::Own;

/// Most entries of a directory that are looked at to find a file that was moved.
const ENTRIES_MAX: usize = 10_000;
/// Most files that are opened to find the copy of a truncated one.
const COPIES_MAX: usize = 64;
/// Shortest beginning by which a copy is known.
pub(super) const COPY_HEAD_MIN: u32 = 64;

/// A place that was read up to, in a file that is no longer there under its identity.
pub(super) struct Orphan {
    pub(super) cursor: FileCursor,
    /// How long the file was when it was last seen; `None` when that was before this process.
    pub(super) size: Option<u64>,
    /// What to say when its rest is not found; `None` when there is no rest.
    pub(super) fate: Option<&'static str>,
    /// Whether nothing else has its device and inode now.
    pub(super) gone: bool,
}

impl Orphan {
    /// How long a copy must be to hold all that is missed, as far as that is known.
    pub(super) fn end(&self) -> u64 {
        self.size.unwrap_or(0).max(self.cursor.offset)
    }

    pub(super) fn gap(&self, fate: &str) -> String {
        let FileCursor { path, offset, .. } = &self.cursor;
        let rest = match self.size {
            Some(size) => format!("{} bytes were not read", size.saturating_sub(*offset)),
            None => "what it got after that may be lost".to_owned(),
        };
        format!("{path} {fate}; it was read up to byte {offset}, {rest}")
    }
}

/// A copy that the pattern does not lead to (`eve.json.1`), if it holds all that is missed.
pub(super) fn copy_nearby(
    orphan: &Orphan,
    files: &[Followed],
    entries: &mut Entries,
    own: &Own,
    now: Instant,
) -> Option<Followed> {
    if orphan.gone && orphan.fate.is_none() {
        return None;
    }
    let path = Path::new(&orphan.cursor.path);
    let name = path.file_name()?.to_string_lossy().into_owned();
    let stem = name.split('.').next().unwrap_or_default();
    let near = entries.of(path).ok()?.iter().filter(|(_, path)| {
        let other = path.file_name().unwrap_or_default().to_string_lossy();
        other.starts_with(stem) && !is_packed(path)
    });
    near.take(COPIES_MAX).find_map(|(_, path)| {
        let own = own.ids();
        let (handle, _) = file::open_regular(path, |meta| {
            let is_known = files.iter().any(|file| file.id == Id::of(meta));
            let fits = meta.size() >= orphan.end() && !is_known && !own.has(meta);
            if fits { Ok(()) } else { Err(io::Error::other("no copy")) }
        })
        .ok()?;
        let mut file = Followed::new(path.clone(), handle, 0, now).ok()?;
        file.name = None;
        is_copy_of(&file, &orphan.cursor).then_some(file)
    })
}

/// Names in the directories of files that are looked for, read once per scan.
#[derive(Default)]
pub(super) struct Entries(HashMap<PathBuf, Vec<(u64, PathBuf)>>);

impl Entries {
    /// Inode and path of what is in the directory of `path`.
    pub(super) fn of(&mut self, path: &Path) -> io::Result<&[(u64, PathBuf)]> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !self.0.contains_key(dir) {
            let entries: io::Result<Vec<_>> = fs::read_dir(dir)?
                .take(ENTRIES_MAX)
                .map(|entry| entry.map(|entry| (entry.ino(), entry.path())))
                .collect();
            self.0.insert(dir.to_owned(), entries?);
        }
        Ok(self.0.get(dir).map(Vec::as_slice).unwrap_or_default())
    }
}

/// The file of a cursor under another name in its directory.
pub(super) fn moved(near: &[(u64, PathBuf)], cursor: &FileCursor, now: Instant) -> Option<Followed> {
    let (_, path) = near.iter().find(|(inode, path)| *inode == cursor.inode && !is_packed(path))?;
    let known = Id { device: cursor.device, inode: cursor.inode };
    let (handle, _) = file::open_regular(path, |meta| {
        if Id::of(meta) == known { Ok(()) } else { Err(io::Error::other("another file")) }
    })
    .ok()?;
    let mut file = Followed::new(path.clone(), handle, 0, now).ok()?;
    if !continues(&file, cursor).ok()? {
        return None;
    }
    resume(&mut file, cursor).ok()?;
    file.name = None;
    Some(file)
}

/// Whether the file still holds what was read of it.
pub(super) fn continues(file: &Followed, cursor: &FileCursor) -> io::Result<bool> {
    if !begins_as(file, cursor)? {
        return Ok(false);
    }
    if cursor.proofs.is_empty() {
        return Ok(file.look.size >= cursor.offset);
    }
    Ok(file::last_proven(&*with_handle(file)?, &cursor.proofs)?.is_some())
}

/// The open file, or the file opened for a moment.
fn with_handle(file: &Followed) -> io::Result<Opened<'_>> {
    match &file.handle {
        Some(handle) => Ok(Opened::Held(handle)),
        None => file::open_regular(&file.path, |meta| {
            if Id::of(meta) == file.id {
                Ok(())
            } else {
                Err(io::Error::other("another file has taken its name"))
            }
        })
        .map(|(handle, _)| Opened::Own(handle)),
    }
}

/// An open file, whoever holds it.
enum Opened<'a> {
    Held(&'a fs::File),
    Own(fs::File),
}

impl std::ops::Deref for Opened<'_> {
    type Target = fs::File;

    fn deref(&self) -> &fs::File {
        match self {
            Self::Held(file) => file,
            Self::Own(file) => file,
        }
    }
}

/// Reads on in the file of a cursor that [`continues`]: where it was read up to, or else from the last place at which it
/// is as it was read.
pub(super) fn resume(file: &mut Followed, cursor: &FileCursor) -> io::Result<()> {
    let proven = file::last_proven(&*with_handle(file)?, &cursor.proofs)?;
    let Some(place) = proven.filter(|place| Some(*place) != cursor.proofs.last().map(|last| last.offset))
    else {
        file.proofs.clone_from(&cursor.proofs);
        if proven != Some(cursor.offset) {
            go_on(file, cursor);
            return Ok(());
        }
        file.begin_at(cursor.offset, cursor.state.clone());
        (file.backlog_end, file.moved) = (cursor.backlog_end, true);
        return Ok(());
    };
    told_back(&file.path, cursor.offset, place);
    file.proofs.clone_from(&cursor.proofs);
    file.begin_at(place, cursor.state.clone());
    (file.backlog_end, file.moved) = (cursor.backlog_end, true);
    Ok(())
}

/// Says that a file is not what it was.
pub(super) fn told_back(path: &Path, read: u64, place: u64) {
    let path = path.display().to_string();
    let path = one_line(&path);
    tracing::warn!(
        "{path} was read up to byte {read}, but is as it was then only up to byte {place} (after a power cut, or \
         written over); it is read again from there"
    );
}

/// Whether the file begins as the cursor's file did.
pub(super) fn begins_as(file: &Followed, cursor: &FileCursor) -> io::Result<bool> {
    if file.look.size < u64::from(cursor.head_len) {
        return Ok(false);
    }
    let head = Head { hash: cursor.head_hash, len: cursor.head_len };
    head.is_of(&*with_handle(file)?)
}

/// Whether the file is a copy of what the cursor's file was; it may be an older and shorter one.
pub(super) fn is_copy_of(file: &Followed, cursor: &FileCursor) -> bool {
    cursor.head_len >= COPY_HEAD_MIN && begins_as(file, cursor).unwrap_or(false) && is_proven(file, cursor)
}

/// Whether the file is a copy of one that was read, and holds nothing beyond what was read.
pub(super) fn is_read_copy(file: &Followed, cursor: &FileCursor) -> bool {
    let head = Head { hash: cursor.head_hash, len: cursor.head_len };
    head.len as usize == HEAD_LEN
        && file.head == head
        && file.look.size <= cursor.offset
        && is_copy_of(file, cursor)
}

/// Goes on in a file that has taken the place of one of these and is a longer copy of it, as `rsync` leaves it. The old one
/// is kept for a while, as a writer may still have it open.
pub(super) fn take_over(files: &mut [Followed], file: &mut Followed) -> bool {
    let is_old = |old: &&mut Followed| old.name.is_none() && is_grown_copy(file, &old.cursor());
    // Of several that it replaced one after the other, the one that was read furthest.
    let Some(old) = files.iter_mut().filter(is_old).max_by_key(|old| old.offset) else { return false };
    go_on(file, &old.cursor());
    if begins(file, old).unwrap_or(false)
        && let Err(error) = old.skip_rest()
    {
        old.trouble = Some(unreadable(&old.path, &error));
    }
    true
}

/// Whether the file is a copy of what the cursor's file was, and has all that was read of it.
fn is_grown_copy(file: &Followed, cursor: &FileCursor) -> bool {
    let is_provable = cursor.proofs.last().is_some_and(|proof| proof.offset == cursor.offset);
    is_provable && file.look.size >= cursor.offset && is_copy_of(file, cursor)
}

/// Whether what was read of the cursor's file is in this one, as far as this one is long enough to tell.
fn is_proven(file: &Followed, cursor: &FileCursor) -> bool {
    let Some(last) = cursor.proofs.last().filter(|last| last.offset <= file.look.size) else { return true };
    with_handle(file).and_then(|open| file::last_proven(&open, &[*last])).is_ok_and(|place| place.is_some())
}

/// Reads on where the cursor is, or from the end of an older copy.
pub(super) fn go_on(file: &mut Followed, cursor: &FileCursor) {
    file.begin_at(cursor.offset.min(file.look.size), cursor.state.clone());
    (file.backlog_end, file.moved) = (cursor.backlog_end, true);
    if let Err(error) = file.align() {
        file.trouble = Some(unreadable(&file.path, &error));
    }
}

/// Whether `copy` is the beginning of `original`, as far as the first and the last bytes of `copy` tell.
pub(super) fn begins(original: &mut Followed, copy: &mut Followed) -> io::Result<bool> {
    const TAIL: u64 = 4096;
    let comparable = original.head.len >= copy.head.len && original.look.size >= copy.look.size;
    let long = copy.head.len as usize == HEAD_LEN;
    if !comparable || copy.head.len < COPY_HEAD_MIN || long && original.head.hash != copy.head.hash {
        return Ok(false);
    }
    if !long && original.handle.is_none() {
        return Ok(false);
    }
    if !copy.head.is_of(original.open()?)? {
        return Ok(false);
    }
    let from = copy.look.size.saturating_sub(TAIL);
    let mut ends = [vec![0; (copy.look.size - from) as usize], vec![0; (copy.look.size - from) as usize]];
    let one = file::read_full(original.open()?, &mut ends[0], from)?;
    let other = file::read_full(copy.open()?, &mut ends[1], from)?;
    Ok(one == other && ends[0] == ends[1])
}

/// Not readable as lines: `archive`'s, or nobody's.
fn is_packed(path: &Path) -> bool {
    Packing::of(path).is_some()
}
