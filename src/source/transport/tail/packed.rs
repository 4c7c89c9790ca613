//! Files that a rotation packed before the source was first met: read once, oldest first, as lines that were there before.
//!
//! Which one is read and how far is a mark beside the cursors, committed with the alerts; a restart unpacks up to there
//! again and goes on. Bounds: files, bytes that a file may become, length of a line. A file that is no gzip, or ends
//! before its time, is one reject; what was whole of it is taken. Files that are packed later were read before they were.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::file::{self, Id};
use crate::model::Timestamp;
use crate::model::cursor::Mark;
use crate::source::transport::Decoding;
use crate::source::{Batch, OwnIds, Reads, RejectReason};

/// The mark's name.
pub const MARK: &str = "packed";
/// Most files.
const FILES_MAX: usize = 1_024;
/// Most bytes that one file may become.
const UNPACKED_MAX: u64 = 4 << 30;
/// Largest piece of packed bytes that is read at once.
const PIECE: usize = 64 * 1024;

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
    lines: BufReader<MultiGzDecoder<BufReader<File>>>,
    /// Bytes that came out of it, up to the next line.
    offset: u64,
    decoding: Decoding,
}

/// A line that came out.
struct Line {
    /// With its end.
    length: u64,
    /// All of it, or the beginning of one that is too long.
    start: Vec<u8>,
    is_whole: bool,
}

impl Packed {
    /// Those beside the files of a pattern; `mark` is how far an earlier process came, `None` when the source is met
    /// for the first time.
    pub(super) fn find(pattern: &str, mark: Option<&str>, own: &OwnIds, now: Timestamp) -> Option<Self> {
        let (met_at, skip) = match mark {
            Some(mark) => parse(mark)?,
            None => (now.as_secs(), None),
        };
        let mut found: Vec<_> = [pattern.to_owned(), format!("{pattern}*.gz")]
            .iter()
            .filter_map(|pattern| glob::glob(pattern).ok())
            .flat_map(|paths| paths.filter_map(Result::ok))
            .filter(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz")))
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

    /// How far they are read.
    pub(super) fn mark(&self) -> Mark {
        let place = self.open.as_ref().map(|open| (open.id, open.offset)).or(self.skip);
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
                    refuse(batch, &open.path, open.offset, &error);
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
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
        let unpacked = MultiGzDecoder::new(BufReader::with_capacity(PIECE, handle));
        let mut open = Open {
            path: path.to_owned(),
            id,
            lines: BufReader::with_capacity(PIECE, unpacked),
            offset: 0,
            decoding: Decoding::new(&format.0, &name, None, None),
        };
        if let Some((_, offset)) = self.skip.take().filter(|(skip, _)| *skip == id) {
            open.skip(offset)?;
        }
        Ok(open)
    }
}

impl Open {
    /// Takes the next line; how many bytes it had, 0 at the end.
    fn line(&mut self, at: Timestamp, batch: &mut Batch) -> io::Result<u64> {
        let Line { length, start: line, is_whole } = self.next()?;
        if length == 0 {
            return Ok(0);
        }
        let (path, offset) = (&self.path, self.offset);
        let place = || format!("{}, byte {offset} unpacked", path.display());
        if is_whole {
            let record = line.strip_suffix(b"\n").unwrap_or(&line);
            self.decoding.each(record, at, |decoded, record| batch.take(decoded, record, true, place));
        } else {
            let long = || format!("{}: a line of {length} bytes, of which {} are read", place(), line.len());
            batch.take(self.decoding.decode_start(&line, at), &line, true, long);
        }
        self.offset += length;
        if self.offset > UNPACKED_MAX {
            return Err(io::Error::other("it unpacks to more than 4 GiB; the rest is left out"));
        }
        Ok(length)
    }

    fn next(&mut self) -> io::Result<Line> {
        const MAX: u64 = file::LINE_MAX as u64 + 1;
        let mut start = Vec::new();
        let mut length = (&mut self.lines).take(MAX).read_until(b'\n', &mut start)? as u64;
        let is_whole = length < MAX || start.last() == Some(&b'\n');
        if !is_whole {
            length += self.skip_line()?;
        }
        Ok(Line { length, start, is_whole })
    }

    /// Reads over the rest of a line.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let piece = self.lines.fill_buf()?;
            let end = memchr::memchr(b'\n', piece);
            let length = end.map_or(piece.len(), |end| end + 1);
            self.lines.consume(length);
            skipped += length as u64;
            if end.is_some() || length == 0 || skipped > UNPACKED_MAX {
                return Ok(skipped);
            }
        }
    }

    /// Goes on at a place; what the decoder has to know stands before it.
    fn skip(&mut self, offset: u64) -> io::Result<()> {
        while self.offset < offset {
            let Line { length, start: line, .. } = self.next()?;
            if length == 0 {
                return Ok(());
            }
            // Headers are read, alerts are known.
            self.decoding.decode(line.strip_suffix(b"\n").unwrap_or(&line), Timestamp::EPOCH);
            self.offset += length;
        }
        Ok(())
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
