//! Files that grow: by glob, through rotation by rename, by copytruncate and by a new name, without keeping long lines.
//!
//! `file` reads the lines of one file, `watch` knows which files there are, `search` finds what was moved or copied,
//! [`Tail`] makes batches of what they hand out. All of it is synchronous in [`Tail::turn`], which tests call
//! directly; [`Source::run`] is a thin loop around it that waits. A file is only looked at while nothing happens:
//! less than two wake-ups a second, and no thread beside the runtime's.
//!
//! Invariants: a cursor is the start of a line; it moves in the same batch that carries the line's alert; what a file's
//! decoder has learnt goes with the cursor; memory does not depend on the size of a line, a file or the number of files.
//! What was packed before the source was first met is read by `packed`, what was packed unread after that by `archive`.
//! What this does not do: store cursors, decide what is forwarded.

mod archive;

mod file;

mod packed;

mod packing;

mod pattern;

mod search;

mod unpacked;

mod unread;

mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::cursor::{Again, Mark};
use crate::model::{Cursor, FileCursor, SourceName, Timestamp};
use crate::source::{Batch, Own, Reading, Reads, RejectReason, Source, SourceError};

pub use self::file::judge;
use self::file::{CHUNK, Followed, Piece};
pub use self::packed::MARK as PACKED;
use self::packed::Packed;
use self::watch::{Cut, Events, Watch};
use super::{Decoding, send};

pub use self::pattern::Pattern;

/// What a file source needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: SourceName,
    /// Its kind, as in the config.
    pub kind: &'static str,
    /// Glob over files. Those that end in `.gz` are generations that a rotation packed; what there are when the source is
    /// first met is read only by [`Tail::unpacking`].
    pub pattern: String,
    /// How a line is read. Each file has a decoder of its own.
    pub format: Reads,
    /// Follow, or end at the end.
    pub reading: Reading,
    /// How far each file was read before; empty when the source was never read.
    pub cursors: Vec<FileCursor>,
    /// Whether the source was read before, even if no file is remembered: then new files are no backlog.
    pub read_before: bool,
    /// The order by which its backlog is read a second time.
    pub again: Option<Again>,
}

/// Most bytes read for a batch, give or take one line.
const READ_MAX: u64 = 8 * 1024 * 1024;
/// Most bytes of one file before the next has its turn.
const SHARE: u64 = 1024 * 1024;
/// Most bytes of packed files that are read for a batch: files that are written to have their share of each turn.
const UNPACK_MAX: u64 = READ_MAX / 2;
/// How long cursors may wait when only lines without alerts come: flash is written once for all of them.
const CURSORS_EVERY: Duration = Duration::from_secs(10);
/// How long to wait before looking again when something was written a moment ago.
const WAIT_BUSY: Duration = Duration::from_millis(250);
/// How long to wait before looking again when nothing is written. Each wait wakes the processor twice: the runtime's
/// timer sleeps to the neighbourhood of the time, then to the time.
const WAIT_IDLE: Duration = Duration::from_millis(1_500);
/// How long after the last line it counts as busy.
const BUSY_FOR: Duration = Duration::from_secs(5);
/// What came of one turn.
#[derive(Debug)]
pub struct Turn {
    /// What is to be committed now; `None` when nothing is worth a commit yet.
    pub batch: Option<Batch>,
    /// Whether there is more to read at once.
    pub more: bool,
}

/// What has become of what was handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Handed {
    /// All of it is committed, or will be at once.
    #[default]
    Committed,
    /// The commit of some may wait, as its file still has it.
    MayWait,
    /// The same, but a file was rotated since: it may not be there when the power comes back.
    Urgent,
}

/// Files that grow, as a [`Source`].
pub struct Tail {
    name: SourceName,
    kind: &'static str,
    reading: Reading,
    again: Option<Again>,
    clock: SharedClock,
    format: Reads,
    pattern: String,
    /// Whether nothing is remembered of the source.
    is_first: bool,
    watch: Watch,
    packed: Option<Packed>,
    /// Whether a mark was ever committed, and is to be forgotten at the end.
    marked: bool,
    /// One chunk; as long as the longest line only while that is read.
    buffer: Vec<u8>,
    pending: Batch,
    /// What was handed out and is perhaps not committed yet.
    handed: Handed,
    /// When a batch was last handed out, and with which trouble.
    told: Option<(Instant, Option<String>)>,
    busy_at: Option<Instant>,
    /// Which file had the last turn, and whether the reading ended with it before all had theirs.
    next: usize,
    full: bool,
    heartbeat: Heartbeat,
}

impl Tail {
    /// A tail that has read nothing yet.
    pub fn new(settings: Settings, clock: SharedClock) -> Self {
        let is_first = !settings.read_before && settings.cursors.is_empty();
        let mut watch = Watch::new(&settings.pattern, settings.cursors, settings.read_before);
        // A reading that ends does not come back to a file that is quiet then.
        watch.archive.waits = settings.reading == Reading::Follow;
        Self {
            pending: Batch { again: settings.again, ..Batch::new(settings.name.clone(), settings.kind) },
            again: settings.again,
            name: settings.name,
            kind: settings.kind,
            reading: settings.reading,
            clock,
            format: settings.format,
            is_first,
            watch,
            pattern: settings.pattern,
            packed: None,
            marked: false,
            handed: Handed::default(),
            buffer: vec![0; CHUNK],
            told: None,
            busy_at: None,
            next: 0,
            full: false,
            heartbeat: Heartbeat::default(),
        }
    }

    /// The same, reading what a rotation packed before the source was first met. `mark` is how far an earlier process
    /// came with that.
    #[must_use]
    pub fn unpacking(mut self, mark: Option<&str>) -> Self {
        self.marked = mark.is_some();
        if self.is_first || self.marked {
            self.packed = Packed::find(&self.pattern, mark, &self.watch.own.ids(), self.clock.now());
        }
        if let Some(packed) = &self.packed {
            // After an order to read again they are read by that way alone, all of each.
            let left = self.watch.archive.leave(&packed.ids());
            self.pending.cursors.extend(left.into_iter().map(Cursor::File));
        }
        if let (None, Some(value)) = (&self.packed, mark) {
            // What was still to be read is gone.
            let mark = Mark { name: PACKED.to_owned(), value: value.to_owned() };
            self.pending.finished.push(Cursor::Mark(mark));
        }
        self
    }

    /// The same, leaving otrelay's own files alone.
    #[must_use]
    pub fn sparing(mut self, own: Arc<Own>) -> Self {
        self.watch.own = own;
        self
    }

    /// The same, giving these signs of life.
    #[must_use]
    pub fn beating(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Looks at the files and reads what is new, up to the size of a batch. Blocks on the disk.
    pub fn turn(&mut self, now: Instant) -> Turn {
        let mut events = Events::default();
        self.watch.look(now, &mut events);
        self.note(events);
        let before = self.pending.lines();
        let more = self.unpack() | self.read() || self.watch.is_waiting();
        if !more && self.reading == Reading::Once {
            self.take_rests();
        }
        self.watch.close_idle();
        self.heartbeat.behind(self.watch.behind());
        if self.pending.lines() > before {
            self.busy_at = Some(now);
        }
        let mut batch = self.take(now, false);
        if let Some(batch) = &mut batch {
            // Nobody gains by a wait when the reading is about to end.
            batch.more = more || self.reading == Reading::Once;
            batch.can_wait &= !more;
        }
        Turn { batch, more }
    }

    /// What is still to be told when the reading ends.
    pub fn last(&mut self, now: Instant) -> Option<Batch> {
        self.take(now, true)
    }

    /// Counts what happened to files.
    fn note(&mut self, events: Events) {
        if events.moved && self.handed == Handed::MayWait {
            self.handed = Handed::Urgent;
        }
        for gap in events.gaps {
            self.pending.refuse(RejectReason::Lost, || gap, &[]);
        }
        for Cut { mut file, begin, line } in events.cut {
            if is_whole(&line) {
                self.take_rest(&mut file, begin, &line);
            } else {
                let detail = || format!("{}: the last line has no end", watch::place(&file.path, begin));
                self.pending.refuse(RejectReason::Malformed, detail, &line);
            }
        }
        let is_gone = |cursor: &Cursor| {
            let same = |gone: &FileCursor| matches!(cursor, Cursor::File(file) if file.is_of(gone));
            events.finished.iter().any(same)
        };
        self.pending.cursors.retain(|cursor| !is_gone(cursor));
        self.pending.cursors.extend(events.complete.into_iter().map(Cursor::File));
        self.pending.finished.extend(events.finished.into_iter().map(Cursor::File));
    }

    /// Takes a last line without its end: nothing will be written to its file any more.
    fn take_rest(&mut self, file: &mut Followed, begin: u64, rest: &[u8]) {
        let mut take = Take {
            received_at: self.clock.now(),
            decoding: file.decoding(&self.format),
            batch: &mut self.pending,
            path: file.path.clone(),
            backlog_end: file.backlog_end,
        };
        take.piece(begin, &Piece::Line(rest));
        file.decoding = Some(take.decoding);
    }

    /// At the end of a reading: takes last lines that are whole without their end, and says which are not.
    fn take_rests(&mut self) {
        let mut files = std::mem::take(&mut self.watch.files);
        for file in files.iter_mut().filter(|file| file.look.size > file.begin() && file.trouble.is_none()) {
            let Ok(rest) = file.rest(file::LINE_MAX) else { continue };
            if is_whole(&rest) {
                self.take_rest(file, file.begin(), &rest);
                file.took_rest(&rest);
            } else {
                let place = watch::place(&file.path, file.begin());
                tracing::info!(source = %self.name, "{place}: the last line has no end; it is read when it has one");
            }
        }
        self.watch.files = files;
    }

    /// Reads packed files for a part of the turn; whether there is more of them.
    fn unpack(&mut self) -> bool {
        let more = self.unpack_first();
        // Its cursors are told in the batch of its lines.
        let (archive, before) = (&mut self.watch.archive, self.pending.lines());
        let has_more = archive.read(&self.format, UNPACK_MAX, self.clock.now(), &mut self.pending);
        if self.pending.lines() > before {
            // Its file is the next that a rotation removes.
            self.handed = Handed::Urgent;
        }
        has_more | more
    }

    /// The same, of what was packed before the source was first met.
    fn unpack_first(&mut self) -> bool {
        let Some(packed) = &mut self.packed else { return false };
        let more = packed.read(&self.format, UNPACK_MAX, self.clock.now(), &mut self.pending);
        let mark = Cursor::Mark(packed.mark());
        if more {
            self.pending.cursors.retain(|cursor| !matches!(cursor, Cursor::Mark(_)));
            self.pending.cursors.push(mark);
            self.marked = true;
        } else {
            self.packed = None;
            self.pending.cursors.retain(|cursor| !matches!(cursor, Cursor::Mark(_)));
            if std::mem::take(&mut self.marked) {
                self.pending.finished.push(mark);
            }
        }
        more
    }

    /// Reads until the batch is full or the files end, a share of each file in turn; whether there is more.
    fn read(&mut self) -> bool {
        let mut budget = READ_MAX;
        let count = self.watch.files.len();
        let mut silent = 0;
        if !self.full {
            // Nobody was left out: oldest first.
            self.next = count.saturating_sub(1);
        }
        // A file that has a share left lets the next one have its turn, so that none starves another.
        while silent < count {
            self.next = (self.next + 1) % count;
            let got = self.read_share(self.next, &mut budget);
            silent = if got { 0 } else { silent + 1 };
            if budget == 0 || self.pending.is_full() {
                break;
            }
        }
        self.full = budget == 0 || self.pending.is_full();
        self.full && self.watch.files.iter().any(|file| file.has_more() && file.trouble.is_none())
    }

    /// Reads a share of one file; whether it may have more.
    fn read_share(&mut self, at: usize, budget: &mut u64) -> bool {
        let Some(file) = self.watch.files.get_mut(at).filter(|file| file.has_more()) else { return false };
        let mut share = SHARE.min(*budget);
        let before = share;
        let mut take = Take {
            received_at: self.clock.now(),
            decoding: file.decoding(&self.format),
            batch: &mut self.pending,
            path: file.path.clone(),
            backlog_end: file.backlog_end,
        };
        let result = file.read(&mut self.buffer, &mut share, |at, piece| take.piece(at, &piece));
        let decoding = take.decoding;
        file.decoding = Some(decoding);
        *budget -= before - share;
        file.trouble = result.err().map(|error| watch::unreadable(&file.path, &error));
        file.trouble.is_none() && file.has_more()
    }

    /// The batch, when it is worth a commit: alerts and rejects at once, cursors alone now and then.
    fn take(&mut self, now: Instant, last: bool) -> Option<Batch> {
        let trouble = self.watch.trouble();
        let (told_at, told) = match &self.told {
            Some((at, trouble)) => (Some(*at), trouble.as_ref()),
            None => (None, None),
        };
        let pending = &self.pending;
        let urgent = told_at.is_none()
            || told != trouble.as_ref()
            || self.handed == Handed::Urgent
            || !pending.sightings.is_empty()
            || !pending.devices.is_empty()
            || !pending.finished.is_empty()
            || pending.reject_counts.iter().any(|count| *count > 0);
        let due = last || told_at.is_some_and(|at| now.duration_since(at) >= CURSORS_EVERY);
        let worth = urgent || (due && self.has_moved());
        if !worth {
            return None;
        }
        let next = Batch { again: self.again, ..Batch::new(self.name.clone(), self.kind) };
        let mut batch = std::mem::replace(&mut self.pending, next);
        for file in self.watch.files.iter_mut().filter(|file| file.moved) {
            batch.cursors.push(Cursor::File(file.tell()));
        }
        // What is lost in memory is in the file, as long as that is where it was.
        let changed = told_at.is_none() || told != trouble.as_ref() || !batch.finished.is_empty();
        let urgent = changed || last || self.handed == Handed::Urgent || self.reading == Reading::Once;
        batch.can_wait = !urgent;
        self.handed = if urgent { Handed::Committed } else { Handed::MayWait };
        batch.trouble.clone_from(&trouble);
        self.told = Some((now, trouble));
        Some(batch)
    }

    fn has_moved(&self) -> bool {
        self.pending.lines() > 0
            || !self.pending.cursors.is_empty()
            || self.watch.files.iter().any(|file| file.moved)
    }

    /// Waits until something may have happened. Looks at the files itself: a few calls that do not wait for the disk.
    async fn stirred(&mut self) {
        loop {
            let now = Instant::now();
            let busy = self.busy_at.is_some_and(|at| now.duration_since(at) < BUSY_FOR);
            tokio::time::sleep(if busy { WAIT_BUSY } else { WAIT_IDLE }).await;
            let now = Instant::now();
            let told = self.told.as_ref().map(|(at, _)| now.duration_since(*at));
            let due = self.has_moved() && told.is_none_or(|since| since >= CURSORS_EVERY);
            if due || self.watch.stirred(now) {
                return;
            }
        }
    }
}

impl Source for Tail {
    async fn run(mut self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let name = self.name.clone();
        while !stop.is_cancelled() {
            self.heartbeat.busy();
            let (tail, turn) = spawn_blocking(move || {
                let turn = self.turn(Instant::now());
                (self, turn)
            })
            .await
            .map_err(|error| SourceError::Reader(name.clone(), error))?;
            self = tail;
            self.heartbeat.idle();
            if let Some(batch) = turn.batch
                && !send(&out, batch, &name, &stop).await?
            {
                return Ok(());
            }
            if turn.more {
                continue;
            }
            if self.reading == Reading::Once {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.stirred() => {}
            }
        }
        if let Some(batch) = self.last(Instant::now()) {
            send(&out, batch, &name, &stop).await?;
        }
        Ok(())
    }
}

/// Whether this is a whole JSON object: then its line wants nothing but its end.
fn is_whole(rest: &[u8]) -> bool {
    let rest = rest.trim_ascii();
    rest.starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(rest).is_ok()
}

/// Turns pieces of one file into what a batch holds.
struct Take<'a> {
    received_at: Timestamp,
    decoding: Decoding,
    batch: &'a mut Batch,
    path: PathBuf,
    backlog_end: u64,
}

impl Take<'_> {
    /// Takes a piece; whether there is room for another.
    fn piece(&mut self, at: u64, piece: &Piece<'_>) -> bool {
        let path = &self.path;
        match piece {
            Piece::Line(line) => {
                let (batch, backlog) = (&mut *self.batch, at < self.backlog_end);
                self.decoding.each(line, self.received_at, |decoded, record| {
                    batch.take(decoded, record, backlog, || watch::place(path, at));
                });
            }
            Piece::TooLong(length, start) => {
                let decoded = self.decoding.decode_start(start, self.received_at);
                let place = || {
                    format!(
                        "{}: a line of {length} bytes, of which {} are read",
                        watch::place(path, at),
                        start.len()
                    )
                };
                self.batch.take(decoded, start, at < self.backlog_end, place);
            }
        }
        !self.batch.is_full()
    }
}

#[cfg(test)]
mod tests;
