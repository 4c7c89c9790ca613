//! Lines of a packed file, a bounded piece at a time: a few kilobytes can say terabytes.
//!
//! What comes out is never kept but for one line, or the beginning of one that is too long; whoever reads has a budget,
//! and each call takes only a piece of it, whatever the file says. What this does not do: know which file, or remember.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::file;
use super::packing::Packing;
use crate::model::Timestamp;
use crate::model::cursor::PROOF_LEN;
use crate::source::Batch;
use crate::source::transport::Decoding;

/// Most bytes that one file may become.
const UNPACKED_MAX: u64 = 4 << 30;
/// Largest piece of what comes out that is looked at at once.
const PIECE: usize = 64 * 1024;
/// Most bytes of a line that is too long that one call reads over.
const SKIP_MAX: u64 = 4 << 20;

/// A packed file that is being read.
pub(super) struct Unpacked {
    path: PathBuf,
    lines: BufReader<Box<dyn Read + Send>>,
    /// Bytes that came out of it, up to the next line.
    pub(super) offset: u64,
    /// A line that is too long, while its end is looked for.
    long: Option<Line>,
    /// The last bytes before `offset`, some of them; none behind a line that is too long.
    before: Vec<u8>,
}

struct Line {
    /// With its end.
    length: u64,
    /// All of it, or the beginning of one that is too long.
    start: Vec<u8>,
    is_whole: bool,
}

impl Unpacked {
    pub(super) fn new(path: &Path, handle: File) -> Self {
        let unpacked = Packing::of(path).unwrap_or(Packing::Gzip).unpack(handle);
        Self {
            path: path.to_owned(),
            lines: BufReader::with_capacity(PIECE, unpacked),
            offset: 0,
            long: None,
            before: Vec::new(),
        }
    }

    /// A decoder for it; a file is packed under its name with another end.
    pub(super) fn decoding(path: &Path, format: &crate::source::Reads, state: Option<&str>) -> Decoding {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Decoding::new(&format.0, Packing::split(&name).map_or(&*name, |(plain, _)| plain), None, state)
    }

    /// Takes the next line, or a piece of one that is too long; how many bytes came out, 0 at the end.
    pub(super) fn take(
        &mut self,
        decoding: &mut Decoding,
        at: Timestamp,
        backlog_end: u64,
        batch: &mut Batch,
    ) -> io::Result<u64> {
        let (came, line) = self.next()?;
        let Some(Line { length, start: line, is_whole }) = line else { return Ok(came) };
        let (path, offset, backlog) = (&self.path, self.offset, self.offset < backlog_end);
        let place = || format!("{}, byte {offset} unpacked", path.display());
        if is_whole {
            let record = line.strip_suffix(b"\n").unwrap_or(&line);
            // A hole of zeros is no part of the record after it.
            let zeros = record.iter().take_while(|byte| **byte == 0).count();
            decoding
                .each(&record[zeros..], at, |decoded, record| batch.take(decoded, record, backlog, place));
        } else {
            let long = || format!("{}: a line of {length} bytes, of which {} are read", place(), line.len());
            batch.take(decoding.decode_start(&line, at), &line, backlog, long);
        }
        self.offset += length;
        self.before.clear();
        if is_whole {
            self.before.extend_from_slice(&line[line.len().saturating_sub(PROOF_LEN)..]);
        }
        Ok(came)
    }

    /// Reads over a line that was taken before; how many bytes came out, 0 at the end.
    pub(super) fn pass(&mut self, decoding: &mut Decoding) -> io::Result<u64> {
        let (came, line) = self.next()?;
        if let Some(line) = line {
            // Headers are read, alerts are known.
            decoding.decode(line.start.strip_suffix(b"\n").unwrap_or(&line.start), Timestamp::EPOCH);
            self.offset += line.length;
        }
        Ok(came)
    }

    /// Reads over a piece of what stands before `place`; how many bytes came out, 0 at the end.
    pub(super) fn skip(&mut self, place: u64) -> io::Result<u64> {
        let piece = self.lines.fill_buf()?;
        let left = usize::try_from(place - self.offset).unwrap_or(usize::MAX);
        let piece = &piece[..piece.len().min(left)];
        self.before.extend_from_slice(&piece[piece.len().saturating_sub(PROOF_LEN)..]);
        self.before.drain(..self.before.len().saturating_sub(PROOF_LEN));
        let length = piece.len();
        self.lines.consume(length);
        self.offset += length as u64;
        self.bounded(0).map(|()| length as u64)
    }

    /// The last bytes before `offset`, some of them.
    pub(super) fn before(&self) -> &[u8] {
        &self.before
    }

    /// How many bytes came out, and the next line if they end it. No bytes: the file ends.
    fn next(&mut self) -> io::Result<(u64, Option<Line>)> {
        const MAX: u64 = file::LINE_MAX as u64 + 1;
        let Some(mut line) = self.long.take() else {
            let mut start = Vec::new();
            let length = (&mut self.lines).take(MAX).read_until(b'\n', &mut start)? as u64;
            self.bounded(length)?;
            let is_whole = length < MAX || start.last() == Some(&b'\n');
            let line = Line { length, start, is_whole };
            if is_whole {
                return Ok((length, Some(line).filter(|_| length > 0)));
            }
            self.long = Some(line);
            return Ok((length, None));
        };
        let (skipped, ends) = self.skip_line()?;
        line.length += skipped;
        self.bounded(line.length)?;
        if ends {
            return Ok((skipped.max(1), Some(line)));
        }
        self.long = Some(line);
        Ok((skipped, None))
    }

    /// Reads over a piece of the rest of a line; how long it was, and whether the line ends there.
    fn skip_line(&mut self) -> io::Result<(u64, bool)> {
        let mut skipped = 0;
        while skipped < SKIP_MAX {
            let piece = self.lines.fill_buf()?;
            let end = memchr::memchr(b'\n', piece);
            let length = end.map_or(piece.len(), |end| end + 1);
            self.lines.consume(length);
            skipped += length as u64;
            if end.is_some() || length == 0 {
                return Ok((skipped, true));
            }
        }
        Ok((skipped, false))
    }

    fn bounded(&self, more: u64) -> io::Result<()> {
        if self.offset + more > UNPACKED_MAX {
            return Err(io::Error::other("it unpacks to more than 4 GiB; the rest is left out"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    pub(in super::super) fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    pub(in super::super) fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    /// A few hundred kilobytes that become this many.
    pub(in super::super) fn bomb(size: u64) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        std::io::copy(&mut std::io::Read::take(std::io::repeat(b'x'), size), &mut packed).unwrap();
        packed.finish().unwrap()
    }
}
