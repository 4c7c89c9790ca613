//! Generations that a rotation packed after the source was first met, perhaps before their rest was read.
//!
//! A packed file has a cursor of its own as long as it is there, as any generation has: what it is by device, inode and
//! the first bytes that come out of it, and a place in those bytes. A new one is matched with the files that are gone: of
//! the one that it was, it is read on from the cursor, proven by what stands before it; one that none of them was is a
//! generation that nobody has read. Its cursor is committed with the one that goes and with its own alerts, so that a
//! start after a power cut reads on from there. What cannot be unpacked is told as lost, with its place.
//! A file that is still being written to waits until it is quiet, unless one that is gone has become it. One that was
//! touched, copied or moved to another disk is known again by its content, not by what the file system calls it.
//! Bounds: files, and all that `unpacked` bounds. What this does not do: read what was packed before the source was met.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::file::{self, Head, Id, Look};
use super::packing::Packing;
use super::search::{COPY_HEAD_MIN, Orphan};
use super::unpacked::Unpacked;
use super::watch::{Events, unreadable};
use crate::model::cursor::HEAD_LEN;
use crate::model::{Cursor, FileCursor, Timestamp};
use crate::source::transport::Decoding;
use crate::source::{Batch, Own, Reads, RejectReason};

/// Most packed files that are looked at, the newest first.
const FILES_MAX: usize = 4_096;
/// How long a new file must be as it is before it is looked into: `scp` and `cp` write in place, and half of a packed file
/// looks damaged.
const STILL: Duration = Duration::from_secs(6);
/// How long the cursor of a file that is gone may wait for new ones that are still being written to.
const HELD: Duration = Duration::from_mins(10);

/// The packed generations of a source.
pub(super) struct Archive {
    /// Cursors whose files were not found yet.
    remembered: HashMap<Id, FileCursor>,
    /// Files of which nothing is to be read, as they were then.
    known: HashMap<Id, (FileCursor, Look)>,
    /// Cursors whose files are gone, until it is decided whether new ones are what they were.
    gone: Vec<Gone>,
    /// New ones, until it is decided what they are.
    found: Vec<Found>,
    /// How new ones were at the last look, and since when.
    waiting: HashMap<Id, (Look, Instant)>,
    /// Whether new files are left alone until nobody writes to them.
    pub(super) waits: bool,
    /// Whether the last look left some alone.
    pub(super) is_waiting: bool,
    /// What is to be read, oldest first.
    queue: VecDeque<Job>,
    /// Whether nothing is remembered: what is packed by then was packed before us.
    first: bool,
    /// Why it cannot be read on at the moment.
    pub(super) trouble: Option<String>,
}

/// A packed file that was not seen before.
struct Found {
    path: PathBuf,
    id: Id,
    look: Look,
    /// The first bytes that come out of it.
    start: Vec<u8>,
    /// How many come out of its last part, modulo 2^32: of all of it, as gzip writes it. Zstd need not say it.
    length: Option<u32>,
    /// Whether nobody has written to it for a while.
    is_still: bool,
}

/// A file that is gone.
struct Gone {
    cursor: FileCursor,
    /// As it was; `None` when that was before this process.
    look: Option<Look>,
    since: Instant,
}

/// A packed file that is to be read from its cursor on.
struct Job {
    cursor: FileCursor,
    look: Look,
    path: PathBuf,
    open: Option<(Unpacked, Decoding)>,
    /// Whether all of it was read as far as is known: then nothing before its cursor can be lost.
    was_read: bool,
    /// Whether only its first bytes tell that it is the cursor's file, until what stands before the cursor does.
    is_guess: bool,
}

/// What a step of a job came to.
enum Step {
    /// So many bytes came out.
    Came(u64),
    /// Nothing more will.
    End,
}

impl Archive {
    pub(super) fn new(remembered: Vec<FileCursor>, first: bool) -> Self {
        Self {
            remembered: remembered.into_iter().map(|cursor| (id(&cursor), cursor)).collect(),
            known: HashMap::new(),
            gone: Vec::new(),
            waiting: HashMap::new(),
            waits: true,
            is_waiting: false,
            found: Vec::new(),
            queue: VecDeque::new(),
            first,
            trouble: None,
        }
    }

    /// Leaves these files to somebody else; their cursors as they are from now on.
    pub(super) fn leave(&mut self, ids: &HashSet<Id>) -> Vec<FileCursor> {
        let left = self.remembered.iter_mut().filter(|(id, cursor)| ids.contains(id) && !cursor.complete);
        left.map(|(_, cursor)| {
            cursor.complete = true;
            cursor.clone()
        })
        .collect()
    }

    pub(super) fn has_more(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether files wait for [`settle`](Self::settle).
    pub(super) fn has_found(&self) -> bool {
        !(self.found.is_empty() && self.gone.is_empty())
    }

    /// Looks at the packed files that the pattern leads to; what could not be read, in words.
    pub(super) fn look(
        &mut self,
        paths: Vec<PathBuf>,
        own: &Own,
        now: Instant,
        events: &mut Events,
    ) -> Vec<String> {
        let mut there = HashSet::new();
        let mut seen = Vec::new();
        for path in paths {
            let Ok(meta) = path.metadata() else { continue };
            if there.insert(Id::of(&meta)) && meta.is_file() {
                seen.push((Look::of(&meta), path, meta));
            }
        }
        self.forget(&there, now);
        seen.sort_unstable_by(|one, other| (other.0.modified, &other.1).cmp(&(one.0.modified, &one.1)));
        seen.truncate(FILES_MAX);
        seen.retain(|(look, path, meta)| self.is_new(Id::of(meta), *look, path));
        if !seen.is_empty() {
            let own = own.ids();
            seen.retain(|(_, _, meta)| !own.has(meta));
        }
        let before = std::mem::take(&mut self.waiting);
        let since = |id, look| before.get(&id).filter(|(then, _)| *then == look).map_or(now, |(_, at)| *at);
        let new = seen.into_iter().rev().map(|(look, path, meta)| (path, Id::of(&meta), look));
        let new: Vec<_> = new.map(|(path, id, look)| (path, id, look, since(id, look))).collect();
        self.waiting = new.iter().map(|(_, id, look, since)| (*id, (*look, *since))).collect();
        self.open(new, now, events)
    }

    /// Whether a file has to be looked into; one that is being read may have got another name.
    fn is_new(&mut self, id: Id, look: Look, path: &Path) -> bool {
        if let Some(job) = self.queue.iter_mut().find(|job| job.id() == id) {
            path.clone_into(&mut job.path);
            return false;
        }
        // What stands beside its own plain form is still being packed, or was when the power went.
        let is_made = path.with_extension("").symlink_metadata().is_err();
        is_made && self.known.get(&id).is_none_or(|(_, known)| *known != look)
    }

    /// Looks into new files, oldest first.
    fn open(
        &mut self,
        new: Vec<(PathBuf, Id, Look, Instant)>,
        now: Instant,
        events: &mut Events,
    ) -> Vec<String> {
        let mut troubles = Vec::new();
        self.is_waiting = false;
        for (path, id, look, since) in new {
            let is_still = !self.waits || self.first || now.duration_since(since) >= STILL;
            self.is_waiting |= !is_still;
            if !is_still && self.known.contains_key(&id) {
                // It was looked into, and is being written to again.
                continue;
            }
            match Found::read(&path, id, look) {
                Ok(Ok(found)) => self.recall(Found { is_still, ..found }, events),
                Ok(Err(_)) if !is_still && !self.remembered.contains_key(&id) => {}
                Ok(Err(why)) => self.damaged(&path, id, look, &why, events),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => troubles.push(unreadable(&path, &error)),
            }
        }
        troubles
    }

    /// Puts the cursors aside of files that are gone. Until it is decided they are in the store: a start after a power cut
    /// does the same again.
    fn forget(&mut self, there: &HashSet<Id>, now: Instant) {
        if there.is_empty() {
            // The disk may not be mounted: what is forgotten would be read again.
            return;
        }
        let known = self.known.extract_if(|id, _| !there.contains(id));
        let known = known.map(|(_, (cursor, look))| Gone { cursor, look: Some(look), since: now });
        let remembered = self.remembered.extract_if(|id, _| !there.contains(id));
        let remembered = remembered.map(|(_, cursor)| Gone { cursor, look: None, since: now });
        self.gone.extend(known.chain(remembered));
    }

    /// Lets the cursors go that no new file can need any more.
    fn let_go(&mut self, now: Instant, events: &mut Events) {
        for gone in std::mem::take(&mut self.gone) {
            if self.is_waiting && now.duration_since(gone.since) < HELD {
                self.gone.push(gone);
                continue;
            }
            let FileCursor { path, offset, complete, .. } = &gone.cursor;
            if !complete {
                events.gaps.push(format!(
                    "{path} was removed while nobody read it; it was read up to byte {offset} unpacked, the rest is lost"
                ));
            }
            self.finish(gone.cursor, events);
        }
    }

    /// Lets a cursor go, unless another file has its device and inode by now: then it is that one's.
    fn finish(&self, cursor: FileCursor, events: &mut Events) {
        let id = id(&cursor);
        if !self.known.contains_key(&id) && self.queue.iter().all(|job| job.id() != id) {
            events.finished.push(cursor);
        }
    }

    /// Goes on with a file that is known or remembered.
    fn recall(&mut self, found: Found, events: &mut Events) {
        let known = self.known.remove(&found.id).map(|(cursor, look)| (cursor, Some(look)));
        let before = known.or_else(|| Some((self.remembered.remove(&found.id)?, None)));
        match before {
            // One that could not be unpacked has no first bytes, and is one reject again only when it was changed.
            Some((cursor, look)) if found.begins_as(&cursor) && cursor.head_len > 0 => {
                self.go_on(cursor, look, found);
            }
            Some((other, _)) => {
                events.finished.push(other);
                self.found.push(found);
            }
            None => self.found.push(found),
        }
    }

    /// Goes on at the cursor of the same file; `look` is how it was when all of it was read.
    fn go_on(&mut self, mut cursor: FileCursor, look: Option<Look>, found: Found) {
        let has_grown = |look: Look| look.size != found.look.size && !found.is_as_long_as(cursor.offset);
        let was_read = cursor.complete;
        if was_read && look.is_some_and(has_grown) {
            // Its writer had only paused: what was read of it stays read.
            cursor.complete = false;
            self.follow(cursor, found);
            if let Some(job) = self.queue.back_mut() {
                job.was_read = true;
            }
        } else {
            self.follow(cursor, found);
        }
    }

    /// Goes on with a file that is gone and has come back under another device and inode, if the new one is that; else
    /// gives the new one back.
    fn regain(&mut self, found: Found, events: &mut Events) -> Option<Found> {
        let exact = self.gone.iter().position(|gone| found.is_all_of(gone));
        let at = exact.or_else(|| self.gone.iter().position(|gone| found.may_be(&gone.cursor)));
        let Some(at) = at else { return Some(found) };
        let Gone { cursor, .. } = self.gone.remove(at);
        let was_read = cursor.complete;
        let new = found.id;
        self.put(found, FileCursor { complete: exact.is_some(), ..cursor.clone() }, events);
        if let Some(job) = self.queue.back_mut().filter(|job| job.id() == new) {
            (job.was_read, job.is_guess) = (was_read, was_read);
        }
        self.finish(cursor, events);
        None
    }

    /// Says once that nothing comes out of a file.
    fn damaged(&mut self, path: &Path, id: Id, look: Look, why: &io::Error, events: &mut Events) {
        let is_told = self.remembered.remove(&id).is_some_and(|cursor| cursor.head_len == 0);
        let cursor = FileCursor {
            device: id.device,
            inode: id.inode,
            complete: true,
            path: path.to_string_lossy().into_owned(),
            ..FileCursor::default()
        };
        if !is_told {
            if !self.first {
                events.gaps.push(format!(
                    "{} cannot be unpacked ({why}); what it held is lost, unless it was read before it was packed",
                    path.display()
                ));
            }
            events.complete.push(cursor.clone());
        }
        self.known.insert(id, (cursor, look));
    }

    /// Whether a file that is gone has become one of the new ones: then its rest is read there.
    pub(super) fn take(&mut self, orphan: &Orphan, events: &mut Events) -> bool {
        let Some(at) = self.found.iter().position(|found| found.is_of(&orphan.cursor)) else {
            // Nothing was read of it: it is read from its beginning like any other.
            return orphan.cursor.offset == 0
                && self.found.iter().any(|found| found.begins_as(&orphan.cursor));
        };
        let found = self.found.remove(at);
        let read = orphan.cursor.offset & u64::from(u32::MAX);
        // Where the length is not known it is read over up to there, and is found to be all.
        let complete = found.length.is_some_and(|length| u64::from(length) == read);
        self.put(found, FileCursor { complete, ..orphan.cursor.clone() }, events);
        if let Some(job) = self.queue.back_mut().filter(|_| !complete) {
            job.was_read = orphan.cursor.complete;
        }
        true
    }

    /// Decides what the rest of the new files is; `plain` is what is known of files that are not packed.
    pub(super) fn settle(&mut self, plain: &[FileCursor], now: Instant, events: &mut Events) {
        for found in std::mem::take(&mut self.found) {
            if !found.is_still {
                // It is looked into again at the next scan.
                continue;
            }
            if !self.first && plain.iter().any(|cursor| found.is_of(cursor)) {
                // A copy of what is still there: it is matched when that is gone.
                continue;
            }
            let Some(found) = self.regain(found, events) else { continue };
            let length = found.length.map(u64::from);
            let is_copy = |(cursor, look): &(FileCursor, Look)| match length {
                Some(length) => cursor.offset == length && found.is_of(cursor),
                None => look.size == found.look.size && found.is_of(cursor),
            };
            let copied = self.known.values().find(|known| is_copy(known)).map(|(cursor, _)| cursor.offset);
            let complete = self.first || copied.is_some();
            let offset = length.filter(|_| complete).or(copied).unwrap_or(0);
            // Whatever it may still get was there before us.
            let backlog_end = if self.first { u64::from(u32::MAX) + 1 } else { 0 };
            self.put(found, FileCursor { offset, backlog_end, complete, ..FileCursor::default() }, events);
        }
        self.let_go(now, events);
    }

    /// What is packed from now on was packed after the source was met.
    pub(super) fn met(&mut self) {
        self.first = false;
    }

    /// Remembers a new file with the place of this cursor.
    fn put(&mut self, found: Found, place: FileCursor, events: &mut Events) {
        let head = Head::of(&found.start);
        let cursor = FileCursor {
            device: found.id.device,
            inode: found.id.inode,
            head_hash: head.hash,
            head_len: head.len,
            path: found.path.to_string_lossy().into_owned(),
            ..place
        };
        events.complete.push(cursor.clone());
        self.follow(cursor, found);
    }

    /// Knows a file that is read to its end, and goes on with one that is not.
    fn follow(&mut self, cursor: FileCursor, found: Found) {
        if cursor.complete {
            self.known.insert(found.id, (cursor, found.look));
        } else {
            self.queue.push_back(Job::new(cursor, found));
        }
    }

    /// Reads lines until `budget` bytes came out, the batch is full, or all is read; whether there is more.
    pub(super) fn read(&mut self, format: &Reads, budget: u64, at: Timestamp, batch: &mut Batch) -> bool {
        let mut left = budget;
        self.trouble = None;
        while left > 0 && !batch.is_full() {
            let Some(job) = self.queue.front_mut() else { return false };
            let step = match job.step(format, at, batch) {
                Ok(step) => step,
                Err(error) if error.raw_os_error().is_some() && error.kind() != io::ErrorKind::NotFound => {
                    // The disk, not the file: it is read on when that can be read.
                    self.trouble = Some(unreadable(&job.path, &error));
                    job.open = None;
                    return false;
                }
                Err(error) => {
                    job.refuse(&error, batch);
                    Step::End
                }
            };
            match step {
                Step::Came(bytes) => left = left.saturating_sub(bytes),
                Step::End => self.end(batch),
            }
        }
        if let Some(job) = self.queue.front_mut() {
            job.tell(batch);
        }
        self.has_more()
    }

    fn end(&mut self, batch: &mut Batch) {
        let Some(mut job) = self.queue.pop_front() else { return };
        job.cursor.complete = true;
        job.tell(batch);
        self.known.insert(job.id(), (job.cursor, job.look));
    }
}

impl Found {
    /// The inner error is the file's fault.
    fn read(path: &Path, id: Id, look: Look) -> io::Result<io::Result<Self>> {
        let (handle, meta) = file::open_regular(path, |meta| {
            if Id::of(meta) == id { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        })?;
        let packing = Packing::of(path).unwrap_or(Packing::Gzip);
        let mut last = [0; 4];
        file::read_full(&handle, &mut last, meta.len().saturating_sub(4))?;
        let length = (packing == Packing::Gzip).then(|| u32::from_le_bytes(last));
        let mut start = Vec::new();
        match packing.unpack(handle).take(HEAD_LEN as u64).read_to_end(&mut start) {
            Err(error) if error.raw_os_error().is_some() => Err(error),
            // The end of a damaged one may be missing: what came out tells what it is.
            Err(error) if start.is_empty() => Ok(Err(error)),
            _ => Ok(Ok(Self { path: path.to_owned(), id, look, start, length, is_still: true })),
        }
    }

    fn begins_as(&self, cursor: &FileCursor) -> bool {
        let head = self.start.get(..cursor.head_len as usize).map(Head::of);
        head == Some(Head { hash: cursor.head_hash, len: cursor.head_len })
    }

    /// Whether just so much comes out of it, as far as it says.
    fn is_as_long_as(&self, offset: u64) -> bool {
        self.length.is_some_and(|length| u64::from(length) == offset & u64::from(u32::MAX))
    }

    /// Whether it is a file that is gone and was read to its end, by its first bytes and its length.
    fn is_all_of(&self, gone: &Gone) -> bool {
        // Of what zstd packed before the source was met nothing was read here, and only the packed length is known.
        let is_as_long = match self.length {
            Some(_) => self.is_as_long_as(gone.cursor.offset),
            None => gone.cursor.offset == 0 && gone.look.is_none_or(|look| look.size == self.look.size),
        };
        gone.cursor.complete && is_as_long && self.is_of(&gone.cursor)
    }

    /// Whether it may be the cursor's file: what stands before the cursor will tell.
    fn may_be(&self, cursor: &FileCursor) -> bool {
        let is_provable = cursor.proofs.last().is_some_and(|proof| proof.offset == cursor.offset);
        (is_provable || cursor.offset == 0 && !cursor.complete) && self.is_of(cursor)
    }

    /// Whether it is what the cursor's file was, as far as the first bytes tell, or all of them.
    fn is_of(&self, cursor: &FileCursor) -> bool {
        let all = self.start.len() < HEAD_LEN
            && self.start.len() == cursor.head_len as usize
            && u64::from(cursor.head_len) == cursor.offset;
        (cursor.head_len >= COPY_HEAD_MIN || all && !self.start.is_empty()) && self.begins_as(cursor)
    }
}

impl Job {
    fn new(cursor: FileCursor, found: Found) -> Self {
        Self { cursor, look: found.look, path: found.path, open: None, was_read: false, is_guess: false }
    }

    fn id(&self) -> Id {
        id(&self.cursor)
    }

    /// Counts what cannot be unpacked; what was read before it was packed is no loss.
    fn refuse(&self, error: &io::Error, batch: &mut Batch) {
        let place = self.open.as_ref().map_or(self.cursor.offset, |(lines, _)| lines.offset);
        if self.was_read && place <= self.cursor.offset {
            return;
        }
        let (path, place) = (self.path.display(), place.max(self.cursor.offset));
        let text = || {
            format!(
                "{path}, byte {place} unpacked: it cannot be unpacked further: {error}; what follows is lost"
            )
        };
        batch.refuse(RejectReason::Lost, text, &[]);
    }

    /// Puts its cursor into the batch of what was taken up to it.
    fn tell(&mut self, batch: &mut Batch) {
        if let Some((lines, decoding)) =
            self.open.as_ref().filter(|(lines, _)| lines.offset > self.cursor.offset)
        {
            (self.cursor.offset, self.cursor.state) = (lines.offset, decoding.state());
            self.cursor.proofs = vec![file::proof(lines.offset, lines.before())];
        }
        self.cursor.path = self.path.to_string_lossy().into_owned();
        let same = |told: &Cursor| matches!(told, Cursor::File(file) if file.is_of(&self.cursor));
        batch.cursors.retain(|told| !same(told));
        batch.cursors.push(Cursor::File(self.cursor.clone()));
    }

    /// Takes a line, or a piece of what stands before the cursor.
    fn step(&mut self, format: &Reads, at: Timestamp, batch: &mut Batch) -> io::Result<Step> {
        if self.open.is_none() {
            let id = self.id();
            let (handle, _) = file::open_regular(&self.path, |meta| {
                if Id::of(meta) == id { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            })?;
            let decoding = Unpacked::decoding(&self.path, format, self.cursor.state.as_deref());
            self.open = Some((Unpacked::new(&self.path, handle), decoding));
        }
        let Some((lines, decoding)) = &mut self.open else { return Ok(Step::End) };
        let to = self.cursor.offset;
        if lines.offset < to {
            let came = lines.skip(to)?;
            if came == 0 || lines.offset == to && !is_proven(&self.cursor, lines.before()) {
                self.go_back(batch);
            }
            return Ok(Step::Came(came));
        }
        // Proven, or read by us: what comes out of the same file is the same.
        self.is_guess = false;
        let came = lines.take(decoding, at, self.cursor.backlog_end, batch)?;
        Ok(if came == 0 { Step::End } else { Step::Came(came) })
    }

    /// It is not as it was read up to the cursor: to the last place before it that can be proven, or all of it again.
    fn go_back(&mut self, batch: &mut Batch) {
        let place = self.cursor.offset;
        self.cursor.proofs.retain(|proof| proof.offset < place);
        let back = self.cursor.proofs.last().map_or(0, |proof| proof.offset);
        if std::mem::take(&mut self.is_guess) {
            // It only begins like that one: it is new.
            (self.was_read, self.cursor.backlog_end, self.cursor.state) = (false, 0, None);
            self.cursor.proofs.clear();
            (self.cursor.offset, self.open) = (0, None);
            return;
        }
        if back == 0 {
            let path = self.path.display();
            let text = || {
                format!(
                    "{path} is not the file that was read up to byte {place} before it was packed; it is read from its \
                     beginning, what that file got after that may be lost"
                )
            };
            batch.refuse(RejectReason::Lost, text, &[]);
            self.cursor.state = None;
        }
        (self.cursor.offset, self.open) = (back, None);
    }
}

fn id(cursor: &FileCursor) -> Id {
    Id { device: cursor.device, inode: cursor.inode }
}

/// Whether these bytes, which stand before the cursor's place, are what was read there.
fn is_proven(cursor: &FileCursor, before: &[u8]) -> bool {
    let at = cursor.proofs.iter().rev().find(|proof| proof.offset == cursor.offset);
    at.is_none_or(|proof| file::is_before(*proof, before))
}
