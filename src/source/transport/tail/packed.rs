//! Files that a rotation packed before the source was first met: read once, oldest first, as lines that were there before.
//!
//! Which one is read and how far is a mark beside the cursors, committed with the alerts; a restart unpacks up to there
//! again and goes on. Bounds: files, bytes that a file may become, length of a line. A file that is no gzip, or ends
//! before its time, is one reject; what was whole of it is taken. What is packed later: `archive`.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{self, Id};
use super::packing::Packing;
use super::pattern::Pattern;
use super::unpacked::Unpacked;
use crate::model::Timestamp;
use crate::model::cursor::Mark;
use crate::source::transport::Decoding;
use crate::source::{Batch, OwnIds, Reads, RejectReason};

/// The mark's name.
pub const MARK: &str = "packed";
const FILES_MAX: usize = 1_024;

/// Packed files that are still to be read.
pub(super) struct Packed {
    /// Oldest first.
    left: VecDeque<PathBuf>,
    open: Option<Open>,
    /// Only files that were there by then, in seconds since 1970.
    met_at: i64,
    /// Where the last one ended that was begun: to be skipped by a restart.
    skip: Option<(Id, u64)>,
}

/// A packed file that is being read.
struct Open {
    path: PathBuf,
    id: Id,
    lines: Unpacked,
    /// Up to where its lines were taken by an earlier process.
    taken: u64,
    decoding: Decoding,
}

impl Packed {
    /// Those beside the files of a pattern; `mark` is how far an earlier process came, `None` when the source is met
    /// for the first time.
    pub(super) fn find(pattern: &str, mark: Option<&str>, own: &OwnIds, now: Timestamp) -> Option<Self> {
        let (met_at, skip) = match mark {
            Some(mark) => parse(mark)?,
            None => (now.as_secs(), None),
        };
        let mut paths = Vec::new();
        for pattern in [pattern.to_owned(), format!("{pattern}*")] {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let is_read = |path: &PathBuf| Packing::of(path).is_some_and(Packing::is_read);
                pattern.each(|path| paths.extend(Some(path).filter(is_read)), |_, _| ());
            }
        }
        let mut found: Vec<_> = paths
            .into_iter()
            .take(FILES_MAX)
            .filter_map(|path| {
                let meta = path.metadata().ok()?;
                (meta.is_file() && meta.mtime() <= met_at && !own.has(&meta))
                    .then(|| (meta.mtime(), path, Id::of(&meta)))
            })
            .collect();
        found.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        found.dedup_by(|one, other| one.1 == other.1);
        if let Some((id, _)) = skip {
            // Those before it were read to their end; where it is gone, so may be the order.
            let at = found.iter().position(|(_, _, found)| *found == id);
            found.drain(..at.unwrap_or(found.len()));
        }
        let left: VecDeque<_> = found.into_iter().map(|(_, path, _)| path).collect();
        (!left.is_empty()).then_some(Self { left, open: None, met_at, skip })
    }

    /// Which files are still to be read.
    pub(super) fn ids(&self) -> HashSet<Id> {
        self.left.iter().filter_map(|path| path.metadata().ok()).map(|meta| Id::of(&meta)).collect()
    }

    /// How far they are read.
    pub(super) fn mark(&self) -> Mark {
        let place = self.open.as_ref().map(|open| (open.id, open.lines.offset.max(open.taken))).or(self.skip);
        let value = match place {
            Some((id, offset)) => format!("{} {} {} {offset}", self.met_at, id.device, id.inode),
            None => self.met_at.to_string(),
        };
        Mark { name: MARK.to_owned(), value }
    }

    /// Reads lines until `budget` bytes came out, the batch is full, or all is read; whether there is more.
    pub(super) fn read(&mut self, format: &Reads, budget: u64, at: Timestamp, batch: &mut Batch) -> bool {
        let mut left = budget;
        while left > 0 && !batch.is_full() {
            let Some(open) = &mut self.open else {
                let Some(path) = self.left.pop_front() else { return false };
                match self.begin(&path, format) {
                    Ok(open) => self.open = Some(open),
                    Err(error) => refuse(batch, &path, 0, &error),
                }
                continue;
            };
            match open.line(at, batch) {
                Ok(0) => self.end(),
                Ok(length) => left = left.saturating_sub(length),
                Err(error) => {
                    refuse(batch, &open.path, open.lines.offset, &error);
                    self.end();
                }
            }
        }
        self.open.is_some() || !self.left.is_empty()
    }

    fn end(&mut self) {
        // The next one has another identity: a mark of this one would skip it.
        self.skip = None;
        self.open = None;
        if let Some(next) = self.left.front().and_then(|path| path.metadata().ok()) {
            self.skip = Some((Id::of(&next), 0));
        }
    }

    fn begin(&mut self, path: &Path, format: &Reads) -> io::Result<Open> {
        let (handle, meta) = file::open_regular(path, file::any)?;
        let id = Id::of(&meta);
        let taken = self.skip.take().filter(|(skip, _)| *skip == id).map_or(0, |(_, offset)| offset);
        let decoding = Unpacked::decoding(path, format, None);
        Ok(Open { path: path.to_owned(), id, lines: Unpacked::new(path, handle), taken, decoding })
    }
}

impl Open {
    /// Takes the next line, or reads over one that is known; how many bytes came out, 0 at the end.
    fn line(&mut self, at: Timestamp, batch: &mut Batch) -> io::Result<u64> {
        if self.lines.offset < self.taken {
            return self.lines.pass(&mut self.decoding);
        }
        // All of it was there before.
        self.lines.take(&mut self.decoding, at, u64::MAX, batch)
    }
}

fn refuse(batch: &mut Batch, path: &Path, offset: u64, error: &io::Error) {
    let detail =
        || format!("{}, byte {offset} unpacked: the packed file cannot be read on: {error}", path.display());
    batch.refuse(RejectReason::Malformed, detail, &[]);
}

/// When the files were met, and where the reading was; `None`: not a mark of ours.
fn parse(mark: &str) -> Option<(i64, Option<(Id, u64)>)> {
    let mut numbers = mark.split(' ');
    let met_at = numbers.next()?.parse().ok()?;
    let place = match (numbers.next(), numbers.next(), numbers.next()) {
        (Some(device), Some(inode), Some(offset)) => {
            let id = Id { device: device.parse().ok()?, inode: inode.parse().ok()? };
            Some((id, offset.parse().ok()?))
        }
        _ => None,
    };
    Some((met_at, place))
}

#[cfg(test)]
mod tests;
