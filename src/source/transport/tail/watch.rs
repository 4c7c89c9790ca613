//! Which files are followed: what the pattern leads to, what became of it, and what of it is gone.
//!
//! A file is the same file when device, inode and first bytes are. A name that leads to another inode was rotated: the
//! old handle is read on until the writer has surely let go of it. A file that begins anew was truncated: where a copy
//! with the old beginning is found, that is read on from the old place (`copytruncate`); a copy of a file that is still
//! followed is not read at all. A rotated file that is read to its end keeps its cursor as long as it is there: what has a
//! rotated name and no cursor is a generation that nobody has read. Whatever cannot be found again becomes one gap.
//! What this does not do: read lines.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::archive::Archive;
use super::file::{self, Change, Followed, Id, Look};
use super::packing::Packing;
use super::pattern::{Name, Pattern, before_rotation};
use super::search::{
    self, Entries, Orphan, begins, continues, go_on, is_copy_of, is_read_copy, moved, resume,
};
use super::unread::Unread;
use crate::model::FileCursor;
use crate::model::text::one_line;
use crate::model::trouble::NOTHING_READ;
use crate::source::Own;

/// Most files that are followed at once.
pub(super) const FILES_MAX: usize = 4096;
/// Most files that were followed and are quiet, of which only the place is kept. What comes above both is not read,
/// the newest before older ones.
const SETTLED_MAX: usize = 16 * 1024;
/// Most files whose last line is looked at in one scan.
const CUT_MAX: usize = 8;
/// Most files that are kept open; idle ones above it are closed and opened again when they grow.
const OPEN_MAX: usize = 64;
/// How long a rotated file must be quiet once its successor is written to: Suricata writes on until the HUP reaches it.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// How long a deleted file without a successor must be quiet.
const QUIET_DELETED: Duration = Duration::from_mins(1);
/// How long a moved file without a successor must be quiet: its writer may still have it open.
const QUIET_MOVED: Duration = Duration::from_mins(10);
/// How long between two scans when nothing seems to have changed.
const SCAN_AT_LEAST: Duration = Duration::from_secs(10);
/// How long between two scans at least.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// What happened to files since it was last asked.
#[derive(Default)]
pub(super) struct Events {
    /// Whether a file that is followed was rotated, truncated or removed.
    pub(super) moved: bool,
    /// Input that is gone, in words: one for each file, whatever its size.
    pub(super) gaps: Vec<String>,
    /// Files whose last line has no end and never will.
    pub(super) cut: Vec<Cut>,
    /// Rotated files that are read to their end, and packed ones as far as they are.
    pub(super) complete: Vec<FileCursor>,
    pub(super) finished: Vec<FileCursor>,
}

/// A last line without its end.
pub(super) struct Cut {
    pub(super) file: Followed,
    pub(super) begin: u64,
    /// Empty where it is too long.
    pub(super) line: Vec<u8>,
}

/// A file that the pattern leads to.
struct Seen {
    path: PathBuf,
    name: Name,
    id: Id,
    look: Look,
}

/// The set of files.
pub(super) struct Watch {
    pattern: String,
    /// The directory of the files, when only the last part of the pattern has wildcards: its time of change tells
    /// whether a name appeared or went.
    directory: Option<PathBuf>,
    directory_changed: Option<(i64, i64)>,
    /// In the order in which they are read: oldest first.
    pub(super) files: Vec<Followed>,
    /// Cursors whose files were not found yet.
    remembered: Vec<FileCursor>,
    orphans: Vec<Orphan>,
    /// Files that are read to their end and not followed now, as they were then: rotated ones, and those that gave their
    /// place up to newer ones.
    settled: HashMap<Id, (FileCursor, Look)>,
    /// Whether files wait for a place and some got one at the last scan.
    waiting: bool,
    /// Files that were left alone as copies of others, as they were then: they have their turn after all others.
    copies: HashMap<Id, Look>,
    /// Generations that a rotation packed.
    pub(super) archive: Archive,
    /// Those that it packed in a way that is not read here.
    unread: Unread,
    /// What is not read, whatever leads to it.
    pub(super) own: Arc<Own>,
    /// Most files that are followed at once.
    pub(super) max: usize,
    /// Whether the source was never read: what is there now was there before us. Stays while nothing can be opened.
    first: bool,
    /// Files that were there at the first scan and could not be opened then.
    early: HashSet<Id>,
    /// Whether the last scan met something that it was not allowed to read.
    refused: bool,
    scanned_at: Option<Instant>,
    troubles: Vec<String>,
}

/// What a pattern leads to: files, what is packed, and what is packed in a way that is not read here.
#[derive(Default)]
struct List {
    seen: Vec<Seen>,
    packed: Vec<PathBuf>,
    unread: Vec<PathBuf>,
}

impl Watch {
    pub(super) fn new(pattern: &str, remembered: Vec<FileCursor>, read_before: bool) -> Self {
        let parent = Path::new(pattern).parent().filter(|dir| !dir.as_os_str().is_empty());
        let plain = |dir: &&Path| !dir.to_string_lossy().contains(['*', '?', '[']);
        let nothing = remembered.is_empty();
        let (mut packed, mut unread, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for cursor in remembered {
            match Packing::of(Path::new(&cursor.path)) {
                None => others.push(cursor),
                Some(packing) if packing.is_read() => packed.push(cursor),
                Some(_) => unread.push(cursor),
            }
        }
        Self {
            pattern: pattern.to_owned(),
            directory: parent.filter(plain).map(Path::to_owned),
            directory_changed: None,
            files: Vec::new(),
            first: !read_before && nothing,
            remembered: others,
            unread: Unread::new(unread),
            archive: Archive::new(packed, !read_before && nothing),
            orphans: Vec::new(),
            settled: HashMap::new(),
            waiting: false,
            copies: HashMap::new(),
            own: Arc::default(),
            max: FILES_MAX,
            early: HashSet::new(),
            refused: false,
            scanned_at: None,
            troubles: Vec::new(),
        }
    }

    /// Whether a scan would find more to read at once.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Bytes of the files that are followed that were not handed out.
    pub(super) fn behind(&self) -> u64 {
        self.files.iter().map(|file| file.look.size.saturating_sub(file.begin())).sum()
    }

    /// What is wrong at the moment, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let of_files = self.files.iter().filter_map(|file| file.trouble.as_ref());
        let all: Vec<_> =
            self.troubles.iter().chain(&self.archive.trouble).chain(of_files).map(String::as_str).collect();
        let others = match all.len() {
            0 => None,
            1..=SHOWN => Some(all.join("; ")),
            more => Some(format!("{}; and {} more", all[..SHOWN].join("; "), more - SHOWN)),
        }
        .map(|trouble| {
            let nothing = self.files.iter().all(|file| file.trouble.is_some());
            format!("{}{}", one_line(&trouble), if nothing { NOTHING_READ } else { "" })
        });
        match (others, self.unread.trouble()) {
            (Some(others), Some(unread)) => Some(format!("{others}; {unread}")),
            (others, unread) => others.or(unread),
        }
    }

    /// Whether anything may have happened. A few cheap calls; a no is right but for what a scan finds later.
    pub(super) fn stirred(&self, now: Instant) -> bool {
        let since = self.scanned_at.map_or(Duration::MAX, |at| now.duration_since(at));
        let elsewhere = self.directory.is_none() && since >= SCAN_EVERY;
        let changed = |file: &Followed| {
            file.handle
                .as_ref()
                .is_some_and(|handle| handle.metadata().map_or(true, |meta| Look::of(&meta) != file.look))
        };
        elsewhere
            || self.archive.is_waiting && since >= SCAN_EVERY
            || since >= SCAN_AT_LEAST
            || self.directory_time() != self.directory_changed
            || self.files.iter().any(changed)
    }

    fn directory_time(&self) -> Option<(i64, i64)> {
        let meta = self.directory.as_ref()?.metadata().ok()?;
        Some((meta.mtime(), meta.mtime_nsec()))
    }

    /// Looks at every open file, and at what the pattern leads to when that is due or a file began anew.
    pub(super) fn look(&mut self, now: Instant, events: &mut Events) {
        for at in 0..self.files.len() {
            self.look_at(at, now, events);
        }
        let due = self.scanned_at.is_none_or(|at| now.duration_since(at) >= SCAN_EVERY);
        let next = self.waiting && !self.files.iter().any(|file| file.has_more() && file.trouble.is_none());
        if due || next || !self.orphans.is_empty() {
            self.scan(now, events);
        }
    }

    fn look_at(&mut self, at: usize, now: Instant, events: &mut Events) {
        let file = &mut self.files[at];
        let before = file.cursor();
        let size = file.look.size;
        let result = file.look(now).and_then(|change| {
            let fate = (size > before.offset).then_some("was truncated");
            events.moved |= change != Change::None;
            match change {
                Change::None => return Ok(()),
                Change::Rewound(place) => {
                    search::told_back(&file.path, before.offset, place);
                    file.rewind(place, now)?;
                    if fate.is_none() {
                        return Ok(());
                    }
                }
                Change::Truncated => file.restart(now)?,
            }
            self.orphans.push(Orphan { cursor: before, size: Some(size), fate, gone: false });
            Ok(())
        });
        file.trouble = result.err().map(|error| unreadable(&file.path, &error));
    }

    fn scan(&mut self, now: Instant, events: &mut Events) {
        self.scanned_at = Some(now);
        self.directory_changed = self.directory_time();
        self.troubles.clear();
        self.refused = false;
        let List { seen, packed, unread } = self.list();
        self.unread.note(&self.files, &self.settled);
        let any = !(seen.is_empty() && packed.is_empty() && unread.is_empty());
        self.unread.look(unread, any, &self.own, events);
        let mut troubles = self.archive.look(packed, &self.own, now, events);
        self.troubles.append(&mut troubles);
        let successors: HashMap<PathBuf, Id> = seen
            .iter()
            .filter(|seen| seen.name == Name::Own && seen.look.size > 0)
            .map(|seen| (seen.path.clone(), seen.id))
            .collect();
        let ids: HashSet<Id> = seen.iter().map(|seen| seen.id).collect();
        self.forget_settled(&ids);
        self.copies.retain(|id, _| ids.contains(id));
        let mut fresh = self.recognise(seen, now, events);
        let mut entries = Entries::default();
        let taken = self.recall(&mut fresh, &ids, &mut entries, now);
        // Before an older one of a log that was replaced several times is let go of, and taken for the original.
        for mut file in std::mem::take(&mut fresh) {
            let is_taken = search::take_over(&mut self.files, &mut file);
            if is_taken { &mut self.files } else { &mut fresh }.push(file);
        }
        self.finish(&successors, &mut entries, now, events);
        self.adopt(&mut fresh, &mut entries, now, events);
        self.register(fresh, taken, events);
        if self.archive.has_found() {
            let followed = self.files.iter().map(Followed::cursor);
            let settled = self.settled.values().map(|(cursor, _)| cursor.clone());
            let plain: Vec<_> = followed.chain(settled).chain(self.remembered.iter().cloned()).collect();
            self.archive.settle(&plain, now, events);
        }
        self.unread.settle(events);
        if !self.refused {
            self.archive.met();
        }
        self.first = self.first && self.refused && self.files.is_empty();
    }

    /// What the pattern leads to, each file once, and what is packed.
    fn list(&mut self) -> List {
        let pattern = match Pattern::new(&self.pattern) {
            Ok(pattern) => pattern,
            Err(error) => {
                self.troubles.push(format!("`{}` is not a path pattern: {error}", self.pattern));
                return List::default();
            }
        };
        let mut seen: Vec<Seen> = Vec::new();
        let mut ids = HashSet::new();
        let (mut paths, mut refused) = (Vec::new(), Vec::new());
        let (mut packed, mut unread) = (Vec::new(), Vec::new());
        // A pattern may be meant for packed files.
        let mut wants_packed = false;
        pattern.generations(
            |path, name| match Packing::of(&path) {
                None => paths.push((name == Name::Rotated, path, name)),
                Some(packing) if packing.is_read() => {
                    wants_packed |= name == Name::Own;
                    packed.push(path);
                }
                Some(_) => unread.push(path),
            },
            |path, error| refused.push(unreadable(path, error)),
        );
        // A file that has both is called by its own name.
        paths.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        self.refused |= !refused.is_empty();
        self.troubles.append(&mut refused);
        for (_, path, name) in paths {
            match path.metadata() {
                Ok(meta) if meta.is_file() => {
                    if ids.insert(Id::of(&meta)) {
                        seen.push(Seen { path, name, id: Id::of(&meta), look: Look::of(&meta) });
                    }
                }
                Ok(_) if name == Name::Rotated => {}
                Ok(meta) => {
                    self.troubles.push(format!("{} is {}, not a file", path.display(), file::kind(&meta)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.refuse(&path, &error),
            }
        }
        let is_quiet = wants_packed || !self.troubles.is_empty();
        if seen.iter().all(|seen| seen.name == Name::Rotated) && !is_quiet {
            self.troubles.push(format!("no file matches `{}`", self.pattern));
        }
        List { seen, packed, unread }
    }

    fn refuse(&mut self, path: &Path, error: &io::Error) {
        self.refused = true;
        self.troubles.push(unreadable(path, error));
    }

    /// Marks the files that are followed already; opens the others, oldest first, from their beginning.
    fn recognise(&mut self, seen: Vec<Seen>, now: Instant, events: &mut Events) -> Vec<Followed> {
        let known: HashMap<Id, usize> =
            self.files.iter().enumerate().map(|(at, file)| (file.id, at)).collect();
        let named = |files: &[Followed]| files.iter().filter(|file| file.name == Some(Name::Own)).count();
        let before = named(&self.files);
        for file in &mut self.files {
            file.name = None;
        }
        let mut open = self.files.iter().filter(|file| file.handle.is_some()).count();
        let mut unknown = Vec::new();
        for seen in seen {
            if let Some(&at) = known.get(&seen.id) {
                let file = &mut self.files[at];
                file.name = Some(seen.name);
                if file.path != seen.path {
                    (file.path, file.moved) = (seen.path, true);
                }
                if file.handle.is_none() && file.look != seen.look && file.open().is_ok() {
                    self.look_at(at, now, events);
                }
            } else if self.settled.get(&seen.id).is_none_or(|(_, look)| *look != seen.look) {
                unknown.push(seen);
            }
        }
        events.moved |= named(&self.files) < before;
        let mut fresh = Vec::new();
        let own = (!unknown.is_empty()).then(|| self.own.ids());
        for seen in self.admit(unknown) {
            let opened = file::open_regular(&seen.path, |meta| {
                own.as_ref().map_or(Ok(()), |own| file::foreign(meta, own))
            });
            match opened.and_then(|(handle, _)| Followed::new(seen.path.clone(), handle, 0, now)) {
                Ok(mut file) => {
                    open += 1;
                    if open > OPEN_MAX {
                        file.handle = None;
                    }
                    if let Some((mut cursor, look)) = self.settled.remove(&seen.id) {
                        cursor.complete = look.size <= cursor.offset;
                        self.remembered.push(cursor);
                    }
                    file.name = Some(seen.name);
                    fresh.push(file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.refuse(&seen.path, &error);
                    if self.first {
                        self.early.insert(seen.id);
                    }
                }
            }
        }
        fresh.sort_by_key(|file| file.look.modified);
        fresh
    }

    /// Those files that can be followed now, the newest before older ones. Files that are read to their end and quiet
    /// give their places up; the others wait for the next scan.
    fn admit(&mut self, mut unknown: Vec<Seen>) -> Vec<Seen> {
        let room = self.max.saturating_sub(self.files.len());
        self.waiting = false;
        if unknown.len() <= room {
            return unknown;
        }
        let is_copy = |seen: &Seen| self.copies.get(&seen.id) == Some(&seen.look);
        unknown.sort_by_key(|seen| (is_copy(seen), std::cmp::Reverse(seen.look.modified)));
        let new = unknown.iter().filter(|seen| !is_copy(seen)).count();
        let room = room + self.settle(unknown.len() - room);
        let left: Vec<Seen> = unknown.split_off(room.min(unknown.len()));
        if self.first {
            self.early.extend(left.iter().map(|seen| seen.id));
        }
        if let Some(one) = left.first() {
            let (pattern, number, max) = (&self.pattern, left.len(), self.max);
            self.troubles.push(format!(
                "`{pattern}` matches more files than can be followed ({max}, the newest first); {number} are not \
                 read yet, one is {}",
                one.path.display()
            ));
        }
        self.waiting = new > room && !unknown.is_empty();
        unknown
    }

    /// Takes up to so many places from files that are read to their end, the oldest first; how many.
    fn settle(&mut self, wanted: usize) -> usize {
        let wanted = wanted.min(SETTLED_MAX.saturating_sub(self.settled.len()));
        let mut quiet: Vec<_> = self
            .files
            .iter()
            .filter(|file| file.name.is_some() && !file.has_more() && !file.moved && file.trouble.is_none())
            .map(|file| (file.look.modified, file.id))
            .collect();
        quiet.sort_unstable();
        let gone: HashSet<Id> = quiet.into_iter().take(wanted).map(|(_, id)| id).collect();
        let (settled, files) =
            std::mem::take(&mut self.files).into_iter().partition(|file| gone.contains(&file.id));
        self.files = files;
        let settled: Vec<Followed> = settled;
        self.settled.extend(settled.iter().map(|file| (file.id, (file.cursor(), file.look))));
        gone.len()
    }

    /// Lets go of settled files that no name leads to any more.
    fn forget_settled(&mut self, seen: &HashSet<Id>) {
        let gone = self.settled.extract_if(|id, _| !seen.contains(id));
        let orphan = |(_, (cursor, look)): (Id, (FileCursor, Look))| Orphan {
            cursor,
            size: Some(look.size),
            fate: None,
            gone: true,
        };
        self.orphans.extend(gone.map(orphan));
    }

    /// Finds the files of remembered cursors: under a name of the pattern, or moved within their directory. Gives
    /// back the identities that other files have taken over, whose cursors must be replaced.
    fn recall(
        &mut self,
        fresh: &mut Vec<Followed>,
        seen: &HashSet<Id>,
        entries: &mut Entries,
        now: Instant,
    ) -> HashMap<Id, FileCursor> {
        let mut taken = HashMap::new();
        for cursor in std::mem::take(&mut self.remembered) {
            let id = Id { device: cursor.device, inode: cursor.inode };
            let fate = |words| Some(words).filter(|_| !cursor.complete);
            if let Some(at) = fresh.iter().position(|file| file.id == id) {
                if continues(&fresh[at], &cursor).unwrap_or(false) {
                    let mut file = fresh.remove(at);
                    if cursor.complete && file.look.size == cursor.offset {
                        self.settled.insert(id, (cursor, file.look));
                        continue;
                    }
                    if let Err(error) = resume(&mut file, &cursor) {
                        file.trouble = Some(unreadable(&file.path, &error));
                        self.remembered.push(cursor);
                        continue;
                    }
                    self.files.push(file);
                } else {
                    taken.insert(id, cursor.clone());
                    let fate = fate("was replaced while nobody read it");
                    self.orphans.push(Orphan { cursor, size: None, fate, gone: false });
                }
                continue;
            }
            if seen.contains(&id) {
                // It is there but cannot be opened now.
                self.remembered.push(cursor);
                continue;
            }
            match entries.of(Path::new(&cursor.path)) {
                Ok(near) => {
                    if let Some(file) = moved(near, &cursor, now) {
                        self.files.push(file);
                    } else {
                        let fate = fate("was removed while nobody read it");
                        self.orphans.push(Orphan { cursor, size: None, fate, gone: true });
                    }
                }
                Err(error) => {
                    // The disk may not be mounted yet.
                    let path = Path::new(&cursor.path);
                    self.troubles.push(unreadable(path.parent().unwrap_or(path), &error));
                    self.remembered.push(cursor);
                }
            }
        }
        taken
    }

    /// Lets go of files that no name leads to, once they are read and quiet.
    fn finish(
        &mut self,
        successors: &HashMap<PathBuf, Id>,
        entries: &mut Entries,
        now: Instant,
        events: &mut Events,
    ) {
        let mut at = 0;
        while at < self.files.len() {
            let file = &mut self.files[at];
            if file.name == Some(Name::Own) || !is_over(file, successors, entries, now) {
                at += 1;
                continue;
            }
            let rest = file.look.size > file.begin();
            let open = file.handle.is_some();
            let stays = file.name.is_some();
            if rest && open && events.cut.len() >= CUT_MAX || stays && self.settled.len() >= SETTLED_MAX {
                // In a later scan: each keeps its last line until then.
                at += 1;
                continue;
            }
            let mut file = self.files.remove(at);
            let fate = (rest && !open && !stays).then_some("was removed");
            let (begin, id, look, mut cursor) = (file.begin(), file.id, file.look, file.cursor());
            if rest && fate.is_none() {
                let line = file.rest(file::CHUNK).unwrap_or_default();
                if stays && let Err(error) = file.skip_rest() {
                    self.troubles.push(unreadable(&file.path, &error));
                }
                cursor = if stays { file.cursor() } else { cursor };
                events.cut.push(Cut { file, begin, line });
            }
            if stays {
                cursor.complete = true;
                events.complete.push(cursor.clone());
                self.settled.insert(id, (cursor, look));
            } else {
                self.orphans.push(Orphan { cursor, size: Some(look.size), fate, gone: true });
            }
        }
    }

    /// Reads copies of orphans on from where the originals were read up to; counts what has no copy.
    fn adopt(&mut self, fresh: &mut Vec<Followed>, entries: &mut Entries, now: Instant, events: &mut Events) {
        for orphan in std::mem::take(&mut self.orphans) {
            let (copies, others) =
                std::mem::take(fresh).into_iter().partition(|file| is_copy_of(file, &orphan.cursor));
            *fresh = others;
            let mut copies: Vec<Followed> = copies;
            if copies.is_empty() {
                copies.extend(search::copy_nearby(&orphan, &self.files, entries, &self.own, now));
            }
            let is_whole = |file: &Followed| file.look.size >= orphan.end();
            // Of a file that had hardly begun a copy is not known for one: it is new, and read from its beginning, as nothing
            // was read of the original.
            let is_new =
                |file: &Followed| is_whole(file) && search::begins_as(file, &orphan.cursor).unwrap_or(false);
            let found = copies.iter().any(is_whole)
                || orphan.cursor.offset == 0 && fresh.iter().any(is_new)
                || self.archive.take(&orphan, events);
            if !found && orphan.gone && orphan.size.is_none() {
                self.unread.take();
            }
            for mut file in copies {
                go_on(&mut file, &orphan.cursor);
                if file.name.is_some() || file.has_more() {
                    self.files.push(file);
                }
            }
            if let Some(fate) = orphan.fate.filter(|_| !found) {
                events.gaps.push(orphan.gap(fate));
            }
            if orphan.gone {
                events.finished.push(orphan.cursor);
            }
        }
    }

    /// Follows what is new. A copy of a file that is followed waits: when the original is truncated or gone, the copy
    /// is read on from there.
    fn register(&mut self, fresh: Vec<Followed>, mut taken: HashMap<Id, FileCursor>, events: &mut Events) {
        let mut fresh = VecDeque::from(fresh);
        let mut copies = Vec::new();
        while let Some(mut file) = fresh.pop_front() {
            let recycled = taken.remove(&file.id);
            if file.look.size == 0 && recycled.is_none() {
                continue;
            }
            let was_read = self.settled.values().any(|(cursor, _)| is_read_copy(&file, cursor));
            let mut others = self.files.iter_mut().chain(&mut fresh);
            if was_read || others.any(|other| begins(other, &mut file).unwrap_or(false)) {
                copies.push((file.id, file.look));
                events.finished.extend(recycled);
                continue;
            }
            let early = self.early.remove(&file.id);
            file.backlog_end = if self.first || early { file.look.size } else { 0 };
            self.files.push(file);
        }
        self.copies.extend(copies);
    }

    /// Closes idle files above the number that may be open.
    pub(super) fn close_idle(&mut self) {
        let open = self.files.iter().filter(|file| file.handle.is_some()).count();
        if open <= OPEN_MAX {
            return;
        }
        let mut idle: Vec<_> = self
            .files
            .iter_mut()
            .filter(|file| file.handle.is_some() && file.name.is_some() && !file.has_more())
            .collect();
        idle.sort_by_key(|file| file.grew_at);
        idle.into_iter().take(open - OPEN_MAX).for_each(Followed::close);
    }
}

/// Whether a file without a name is read to its end and its writer has let go of it.
fn is_over(
    file: &mut Followed,
    successors: &HashMap<PathBuf, Id>,
    entries: &mut Entries,
    now: Instant,
) -> bool {
    if file.handle.is_none() && file.name.is_none() {
        // Closed when it was idle, and rotated since: find its new name.
        let near = entries.of(&file.path).ok();
        let found = near.and_then(|near| moved(near, &file.cursor(), now));
        let Some(found) = found else { return true };
        *file = found;
        return false;
    }
    let deleted =
        file.handle.as_ref().and_then(|handle| handle.metadata().ok()).is_some_and(|meta| meta.nlink() == 0);
    let quiet = if has_successor(file, successors) {
        QUIET
    } else if deleted {
        QUIET_DELETED
    } else {
        QUIET_MOVED
    };
    !file.has_more() && now.duration_since(file.grew_at) >= quiet
}

/// Whether another file has the name that this one had before it was rotated, and is written to.
fn has_successor(file: &Followed, successors: &HashMap<PathBuf, Id>) -> bool {
    let is_other = |path: &Path| successors.get(path).is_some_and(|id| *id != file.id);
    let name = file.path.file_name().unwrap_or_default().to_string_lossy();
    is_other(&file.path) || before_rotation(&name).any(|before| is_other(&file.path.with_file_name(before)))
}

/// `eve.json, byte 8123`.
pub(super) fn place(path: &Path, offset: u64) -> String {
    format!("{}, byte {offset}", path.display())
}

/// What could not be read and what to do about it.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> String {
    let remedy = if error.kind() == io::ErrorKind::PermissionDenied {
        "; let the user of the service read it, e.g. by its group"
    } else {
        ""
    };
    format!("cannot read {}: {error}{remedy}", path.display())
}
