//! One file that is followed: which file it is, how far it was read, and its lines.
//!
//! Nothing of a file is kept in memory between two readings. A line that is not finished yet, or longer than one
//! chunk, is only searched for its end (`scanned`); it is read whole once the end is found, or skipped when it is
//! longer than a line may be. So memory is one buffer for all files, and `offset`, the cursor, is always the start of
//! a line. What this does not do: find files, decide when one is finished.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tokio::time::Instant;

use super::pattern::Name;
use crate::model::FileCursor;
use crate::model::cursor::{HEAD_LEN, PROOF_LEN, Proof};
use crate::source::OwnIds;
use crate::source::Reads;
use crate::source::transport::Decoding;

/// How much is read at once, in bytes.
pub(super) const CHUNK: usize = 256 * 1024;
/// Longest line that is read whole, in bytes, without its end; of a longer one only so much is read and kept.
pub(super) const LINE_MAX: usize = 1024 * 1024;

/// Which file, as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Id {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// The first bytes of a file: they tell a reused inode from the old file, and a copy from an unrelated file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) hash: u64,
    pub(super) len: u32,
}

impl Head {
    /// Of the first `len` bytes; shorter where the file is.
    pub(super) fn read(file: &File, len: usize) -> io::Result<Self> {
        let mut bytes = [0; HEAD_LEN];
        let len = read_full(file, &mut bytes[..len.min(HEAD_LEN)], 0)?;
        Ok(Self { hash: hash(&bytes[..len]), len: len as u32 })
    }

    /// Of a file that begins with these bytes.
    pub(super) fn of(start: &[u8]) -> Self {
        let start = &start[..start.len().min(HEAD_LEN)];
        Self { hash: hash(start), len: start.len() as u32 }
    }

    /// Whether the file begins like this.
    pub(super) fn is_of(self, file: &File) -> io::Result<bool> {
        Ok(Self::read(file, self.len as usize)? == self)
    }
}

/// The first 64 bits of SHA-256.
fn hash(bytes: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(first)
}

/// Proves a place by what was read before it; `before` ends there.
pub(super) fn proof(offset: u64, before: &[u8]) -> Proof {
    let before = &before[before.len().saturating_sub(PROOF_LEN)..];
    Proof { offset, len: before.len() as u32, hash: hash(before) }
}

/// Whether a file still has before this place what was read there.
fn proves(file: &File, proof: Proof) -> io::Result<bool> {
    let mut bytes = [0; PROOF_LEN];
    let bytes = &mut bytes[..(proof.len as usize).min(PROOF_LEN)];
    let len = read_full(file, bytes, proof.offset - u64::from(proof.len))?;
    Ok(len == bytes.len() && hash(bytes) == proof.hash)
}

/// Whether these bytes are what stood before a place.
pub(super) fn is_before(known: Proof, before: &[u8]) -> bool {
    before.len().checked_sub(known.len as usize).is_some_and(|from| hash(&before[from..]) == known.hash)
}

/// The last place at which a file is as it was read.
pub(super) fn last_proven(file: &File, proofs: &[Proof]) -> io::Result<Option<u64>> {
    for known in proofs.iter().rev() {
        if proves(file, *known)? {
            return Ok(Some(known.offset));
        }
    }
    Ok(None)
}

/// Size and time of change: when neither moves, nobody wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) size: u64,
    pub(super) modified: (i64, i64),
}

impl Look {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { size: meta.size(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// What a look at a file showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// As it was, or longer.
    None,
    /// It begins anew: what was read of it is no longer in it.
    Truncated,
    /// It is as it was read only up to here: a power cut took the rest back, or it was written over.
    Rewound(u64),
}

/// A piece of a file, as it is handed out.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    /// A line without its `\n`.
    Line(&'a [u8]),
    /// A line that is too long: how long, and its beginning.
    TooLong(u64, &'a [u8]),
}

pub(super) struct Followed {
    pub(super) id: Id,
    /// As it was last seen.
    pub(super) path: PathBuf,
    /// Closed while there is nothing to read and too many are open.
    pub(super) handle: Option<File>,
    pub(super) head: Head,
    /// Start of the first line that was not handed out.
    pub(super) offset: u64,
    /// How many zeros follow `offset`: a hole that a power cut or a truncation left is no part of the line after it.
    hole: u64,
    /// No line ends in `offset..scanned`.
    scanned: u64,
    pub(super) backlog_end: u64,
    pub(super) look: Look,
    /// The last reading ended before the size that was seen: somebody made the file shorter meanwhile.
    short: bool,
    /// How the pattern led to it at the last scan.
    pub(super) name: Option<Name>,
    /// When something was last written, as far as we saw.
    pub(super) grew_at: Instant,
    /// Whether its cursor moved since it was last told.
    pub(super) moved: bool,
    /// What went wrong with the last reading.
    pub(super) trouble: Option<String>,
    /// Its decoder, while it is read or has been a moment ago.
    pub(super) decoding: Option<Decoding>,
    /// What the decoder knew at `offset`, while there is none.
    pub(super) state: Option<String>,
    /// What was read before earlier places.
    pub(super) proofs: Vec<Proof>,
    /// What was read before `offset`; none where it was not read since.
    trail: Option<Proof>,
}

impl Followed {
    /// Follows an open file from `offset`.
    pub(super) fn new(path: PathBuf, file: File, offset: u64, now: Instant) -> io::Result<Self> {
        let meta = file.metadata()?;
        let head = Head::read(&file, HEAD_LEN)?;
        Ok(Self {
            id: Id::of(&meta),
            path,
            handle: Some(file),
            head,
            offset,
            hole: 0,
            scanned: offset,
            backlog_end: 0,
            look: Look::of(&meta),
            short: false,
            name: Some(Name::Own),
            grew_at: now,
            moved: true,
            trouble: None,
            decoding: None,
            state: None,
            proofs: Vec::new(),
            trail: None,
        })
    }

    pub(super) fn cursor(&self) -> FileCursor {
        let mut proofs = self.proofs.clone();
        if let Some(trail) = self.trail {
            Proof::add(&mut proofs, trail);
        }
        FileCursor {
            proofs,
            device: self.id.device,
            inode: self.id.inode,
            head_hash: self.head.hash,
            head_len: self.head.len,
            offset: self.offset,
            backlog_end: self.backlog_end,
            complete: false,
            path: self.path.to_string_lossy().into_owned(),
            state: self.decoding.as_ref().map_or_else(|| self.state.clone(), Decoding::state),
        }
    }

    /// The cursor that is to be stored now.
    pub(super) fn tell(&mut self) -> FileCursor {
        let cursor = self.cursor();
        self.proofs.clone_from(&cursor.proofs);
        self.moved = false;
        cursor
    }

    /// Its decoder, to be put back after the reading.
    pub(super) fn decoding(&mut self, format: &Reads) -> Decoding {
        let name = || self.path.file_name().unwrap_or_default().to_string_lossy();
        let made = || Decoding::new(&format.0, &name(), None, self.state.as_deref());
        self.decoding.take().unwrap_or_else(made)
    }

    /// Lets go of the handle and the decoder, as nothing is written to it.
    pub(super) fn close(&mut self) {
        if let Some(decoding) = self.decoding.take() {
            self.state = decoding.state();
        }
        self.handle = None;
    }

    /// Reads on from a place, with what the decoder knew there.
    pub(super) fn begin_at(&mut self, offset: u64, state: Option<String>) {
        (self.offset, self.hole, self.scanned) = (offset, 0, offset);
        (self.decoding, self.state) = (None, state);
        self.proofs.retain(|proof| proof.offset <= offset);
        self.trail = None;
    }

    /// Whether there are bytes that were not even searched for a line's end.
    pub(super) fn has_more(&self) -> bool {
        self.look.size > self.scanned && !self.short
    }

    pub(super) fn open(&mut self) -> io::Result<&File> {
        if self.handle.is_none() {
            let (file, _) = open_regular(&self.path, |meta| {
                let same = Id::of(meta) == self.id;
                if same { Ok(()) } else { Err(io::Error::other("another file has taken its name")) }
            })?;
            self.handle = Some(file);
        }
        self.handle.as_ref().ok_or_else(|| io::Error::other("not open"))
    }

    /// Looks whether it grew or begins anew. A file that is not open is left as it is.
    pub(super) fn look(&mut self, now: Instant) -> io::Result<Change> {
        let Some(file) = &self.handle else { return Ok(Change::None) };
        let look = Look::of(&file.metadata()?);
        if look == self.look {
            return Ok(Change::None);
        }
        if look.size < u64::from(self.head.len) || !self.head.is_of(file)? {
            return Ok(Change::Truncated);
        }
        let is_as_read = self.proved_at().is_none_or(|proof| proves(file, proof).unwrap_or(false));
        if look.size < self.scanned || !is_as_read {
            let proofs = self.cursor().proofs;
            return Ok(last_proven(file, &proofs)?.map_or(Change::Truncated, Change::Rewound));
        }
        if (self.head.len as usize) < HEAD_LEN && look.size > u64::from(self.head.len) {
            self.head = Head::read(file, HEAD_LEN)?;
            self.moved = true;
        }
        (self.look, self.short, self.grew_at) = (look, false, now);
        Ok(Change::None)
    }

    /// What proves `offset`.
    fn proved_at(&self) -> Option<Proof> {
        self.trail.or_else(|| self.proofs.last().filter(|proof| proof.offset == self.offset).copied())
    }

    /// Goes back to a place that is proven.
    pub(super) fn rewind(&mut self, to: u64, now: Instant) -> io::Result<()> {
        let file = self.open()?;
        let look = Look::of(&file.metadata()?);
        let head = Head::read(file, HEAD_LEN)?;
        let state = self.cursor().state;
        (self.head, self.look, self.short) = (head, look, false);
        self.begin_at(to, state);
        (self.grew_at, self.moved) = (now, true);
        Ok(())
    }

    /// Goes to the beginning after [`Change::Truncated`].
    pub(super) fn restart(&mut self, now: Instant) -> io::Result<()> {
        let file = self.open()?;
        let look = Look::of(&file.metadata()?);
        self.head = Head::read(file, HEAD_LEN)?;
        (self.look, self.short) = (look, false);
        self.begin_at(0, None);
        self.backlog_end = 0;
        (self.grew_at, self.moved) = (now, true);
        Ok(())
    }

    /// Makes sure that `offset` is the start of a line where nothing proves it: a copy may end within one. Then the
    /// line around it is read again.
    pub(super) fn align(&mut self) -> io::Result<()> {
        const BACK: u64 = 64 * 1024;
        let (offset, from) = (self.offset, self.offset.saturating_sub(BACK));
        let mut before = vec![0; (offset - from) as usize];
        let len = read_full(self.open()?, &mut before, from)?;
        match memchr::memrchr(b'\n', &before[..len]) {
            Some(end) => self.offset = from + end as u64 + 1,
            None if from == 0 => self.offset = 0,
            None => {}
        }
        (self.hole, self.scanned) = (0, self.offset);
        Ok(())
    }

    /// Hands out lines until the file ends, `budget` bytes were read, or `take` has enough. `take` gets where the
    /// piece starts, and says whether it wants another. `buffer` is a chunk long before and after.
    pub(super) fn read(
        &mut self,
        buffer: &mut Vec<u8>,
        budget: &mut u64,
        mut take: impl FnMut(u64, Piece<'_>) -> bool,
    ) -> io::Result<()> {
        while self.has_more() && *budget > 0 {
            let goes_on = if self.scanned - self.begin() < CHUNK as u64 {
                self.read_chunk(buffer, budget, &mut take)?
            } else {
                self.search_end(buffer, budget, &mut take)?
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Lines that fit into a chunk. The rest of the chunk is read again, with what follows it.
    fn read_chunk(
        &mut self,
        buffer: &mut [u8],
        budget: &mut u64,
        take: &mut impl FnMut(u64, Piece<'_>) -> bool,
    ) -> io::Result<bool> {
        let start = self.begin();
        let len = read_full(self.open()?, buffer, start)?;
        *budget = budget.saturating_sub(len as u64);
        if buffer[..len].first() == Some(&0) {
            return self.skip(&buffer[..len], len == buffer.len());
        }
        let mut line = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..len]) {
            let more = take(start + line as u64, Piece::Line(&buffer[line..end]));
            line = end + 1;
            if !more {
                self.move_to(proof(start + line as u64, &buffer[..line]));
                return Ok(false);
            }
        }
        if line > 0 {
            self.move_to(proof(start + line as u64, &buffer[..line]));
        }
        let full = len == buffer.len();
        self.searched(start + len as u64, full);
        Ok(full)
    }

    /// Steps over zeros before a line.
    fn skip(&mut self, read: &[u8], full: bool) -> io::Result<bool> {
        let start = self.begin();
        let zeros = read.iter().position(|byte| *byte != 0);
        let end = match zeros {
            Some(zeros) => start + zeros as u64,
            None => self.data_from(start + read.len() as u64)?,
        };
        self.hole = end - self.offset;
        self.searched(self.scanned.max(end), full || zeros.is_some());
        Ok(full || zeros.is_some())
    }

    /// Where from a place on there are bytes on the disk: holes have none.
    fn data_from(&mut self, place: u64) -> io::Result<u64> {
        let size = self.look.size;
        match rustix::fs::seek(self.open()?, rustix::fs::SeekFrom::Data(place)) {
            Ok(data) => Ok(data.clamp(place, size.max(place))),
            Err(rustix::io::Errno::NXIO) => Ok(size.max(place)),
            // Not every file system knows.
            Err(_) => Ok(place),
        }
    }

    /// Where the line begins that was not handed out.
    pub(super) fn begin(&self) -> u64 {
        self.offset + self.hole
    }

    /// What stands behind the last line's end, if it is not longer than this; empty otherwise.
    pub(super) fn rest(&mut self, max: usize) -> io::Result<Vec<u8>> {
        let begin = self.begin();
        let size = self.open()?.metadata()?.len();
        let len = usize::try_from(size.saturating_sub(begin)).unwrap_or(usize::MAX);
        let mut rest = vec![0; if len <= max { len } else { 0 }];
        let len = read_full(self.open()?, &mut rest, begin)?;
        rest.truncate(len);
        Ok(rest)
    }

    /// Goes behind a last line that was taken without its end.
    pub(super) fn took_rest(&mut self, rest: &[u8]) {
        self.move_to(proof(self.begin() + rest.len() as u64, rest));
    }

    /// Goes behind a last line without its end, whatever it is.
    pub(super) fn skip_rest(&mut self) -> io::Result<()> {
        let end = self.look.size;
        let mut before = [0; PROOF_LEN];
        let before = &mut before[..PROOF_LEN.min(usize::try_from(end).unwrap_or(usize::MAX))];
        let len = read_full(self.open()?, before, end - before.len() as u64)?;
        if len == before.len() {
            self.move_to(proof(end, before));
        }
        Ok(())
    }

    /// The end of a line that is longer than a chunk.
    fn search_end(
        &mut self,
        buffer: &mut Vec<u8>,
        budget: &mut u64,
        take: &mut impl FnMut(u64, Piece<'_>) -> bool,
    ) -> io::Result<bool> {
        let from = self.scanned;
        let len = read_full(self.open()?, buffer, from)?;
        *budget = budget.saturating_sub(len as u64);
        let Some(end) = memchr::memchr(b'\n', &buffer[..len]) else {
            if len > 0 && buffer[..len].iter().all(|byte| *byte == 0) {
                self.scanned = self.data_from(from + len as u64)?;
                return Ok(self.has_more());
            }
            let full = len == buffer.len();
            self.searched(from + len as u64, full);
            return Ok(full);
        };
        let proof = proof(from + end as u64 + 1, &buffer[..=end]);
        let (start, end) = (self.begin(), from + end as u64);
        let length = end - start;
        let kept = length.min(LINE_MAX as u64);
        buffer.resize(kept as usize, 0);
        let read = read_full(self.open()?, buffer, start);
        let more = read.map(|len| {
            let line = &buffer[..len];
            take(start, if length == kept { Piece::Line(line) } else { Piece::TooLong(length, line) })
        });
        buffer.resize(CHUNK, 0);
        buffer.shrink_to(CHUNK);
        *budget = budget.saturating_sub(kept);
        let more = more?;
        self.move_to(proof);
        Ok(more)
    }

    fn move_to(&mut self, proof: Proof) {
        (self.offset, self.hole, self.scanned, self.moved) = (proof.offset, 0, proof.offset, true);
        self.trail = Some(proof);
    }

    /// Remembers up to where no line ends.
    fn searched(&mut self, to: u64, full: bool) {
        self.scanned = to;
        self.short = !full && to < self.look.size;
    }
}

/// Opens a regular file for reading, never waiting: a pipe or a device in its place is an error, and so is what `fits`
/// refuses. What is refused is never opened: to open a device can act on it, and to close a file of the store would give up
/// the locks that SQLite has on it in this process. So the file is held by a descriptor that can do nothing until all of it
/// was looked at.
pub(super) fn open_regular(
    path: &Path,
    fits: impl Fn(&Metadata) -> io::Result<()>,
) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let (held, meta) = hold(path, rustix::process::geteuid().as_raw(), fits)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
    Ok((file, meta))
}

/// Looks at what stands under a name, as the user `me`, and holds it.
fn hold(path: &Path, me: u32, fits: impl Fn(&Metadata) -> io::Result<()>) -> io::Result<(File, Metadata)> {
    let named = path.symlink_metadata()?;
    let held = OpenOptions::new().read(true).custom_flags(OFlags::PATH.bits().cast_signed()).open(path)?;
    let meta = held.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other(format!("it is {}, not a file", kind(&meta))));
    }
    fits(&meta)?;
    if named.is_symlink() && !may_follow(named.uid(), meta.uid(), me) {
        let text = format!(
            "it is a link that user {} made to a file of user {}, and not followed",
            named.uid(),
            meta.uid()
        );
        return Err(io::Error::other(text));
    }
    Ok((held, meta))
}

const OWN: &str = "it is one of otrelay's own files (its config, a secret, its state) under this name, and not read: see \
     who may write into that directory";

/// For [`open_regular`]: any file but those of otrelay.
pub(super) fn foreign(meta: &Metadata, own: &OwnIds) -> io::Result<()> {
    if own.has(meta) { Err(io::Error::other(OWN)) } else { Ok(()) }
}

/// What a source of files makes of one, for whoever checks a config; nothing of it is read. With the user of a service the
/// same for that user, but for its rights on the file: those are not tried.
///
/// # Errors
/// Why it is not read. [`io::ErrorKind::NotFound`]: nothing is there, also at the end of a link; that is no trouble.
pub fn judge(path: &Path, own: &OwnIds, service: Option<u32>) -> io::Result<()> {
    match service {
        Some(user) => hold(path, user, |meta| foreign(meta, own)).map(drop),
        None => open_regular(path, |meta| foreign(meta, own)).map(drop),
    }
}

/// For [`open_regular`]: any file.
#[expect(clippy::unnecessary_wraps, reason = "it is one of several")]
pub(super) fn any(_: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Whether a link with this owner is followed to a file with that one: whoever may write where the sensor does could
/// else have any file read that the agent can read, such as its own password.
pub(super) fn may_follow(link: u32, target: u32, me: u32) -> bool {
    link == 0 || link == me || link == target
}

/// What stands in the place of a file, in words.
pub(super) fn kind(meta: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], from + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
