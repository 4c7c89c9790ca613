//! Which files are followed: what the pattern leads to, what became of it, and what of it is gone.
//!
//! A file is the same file when device, inode and first bytes are. A name that leads to another inode was rotated: the
//! old handle is read on until the writer has surely let go of it. A file that begins anew was truncated: where a copy
//! with the old beginning is found, that is read on from the old place (`copytruncate`); a copy of a file that is still
//! followed is not read at all. Whatever cannot be found again becomes one gap. What this does not do: read lines.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::file::{self, Change, Followed, Id, Look};
use super::search::{self, Entries, Orphan, begins, continues, go_on, is_copy_of, is_packed, moved};
use crate::model::FileCursor;
use crate::model::cursor::HEAD_LEN;

/// Most files that are followed at once.
pub(super) const FILES_MAX: usize = 4096;
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
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Input that is gone, in words: one for each file, whatever its size.
    pub(super) gaps: Vec<String>,
    /// Files whose last line has no end and never will: where it starts, and its beginning.
    pub(super) cut: Vec<(String, Vec<u8>)>,
    /// Files that are gone.
    pub(super) finished: Vec<FileCursor>,
}

/// A file that the pattern leads to.
struct Seen {
    path: PathBuf,
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
    /// Whether the source was never read: what is there now was there before us. Stays while nothing can be opened.
    first: bool,
    /// Files that were there at the first scan and could not be opened then.
    early: HashSet<Id>,
    /// Whether the last scan met something that it was not allowed to read.
    refused: bool,
    scanned_at: Option<Instant>,
    troubles: Vec<String>,
}

impl Watch {
    pub(super) fn new(pattern: &str, remembered: Vec<FileCursor>, read_before: bool) -> Self {
        let parent = Path::new(pattern).parent().filter(|dir| !dir.as_os_str().is_empty());
        let plain = |dir: &&Path| !dir.to_string_lossy().contains(['*', '?', '[']);
        Self {
            pattern: pattern.to_owned(),
            directory: parent.filter(plain).map(Path::to_owned),
            directory_changed: None,
            files: Vec::new(),
            first: !read_before && remembered.is_empty(),
            remembered,
            orphans: Vec::new(),
            early: HashSet::new(),
            refused: false,
            scanned_at: None,
            troubles: Vec::new(),
        }
    }

    /// What is wrong at the moment, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        const SHOWN: usize = 3;
        let of_files = self.files.iter().filter_map(|file| file.trouble.as_ref());
        let all: Vec<_> = self.troubles.iter().chain(of_files).map(String::as_str).collect();
        match all.len() {
            0 => None,
            1..=SHOWN => Some(all.join("; ")),
            more => Some(format!("{}; and {} more", all[..SHOWN].join("; "), more - SHOWN)),
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
            self.look_at(at, now);
        }
        let due = self.scanned_at.is_none_or(|at| now.duration_since(at) >= SCAN_EVERY);
        if due || !self.orphans.is_empty() {
            self.scan(now, events);
        }
    }

    fn look_at(&mut self, at: usize, now: Instant) {
        let file = &mut self.files[at];
        let before = file.cursor();
        let size = file.look.size;
        let result = file.look(now).and_then(|change| {
            if change == Change::Truncated {
                file.restart(now)?;
                let fate = (size > before.offset).then_some("was truncated");
                self.orphans.push(Orphan { cursor: before, size: Some(size), fate, gone: false });
            }
            Ok(())
        });
        file.trouble = result.err().map(|error| unreadable(&file.path, &error));
    }

    fn scan(&mut self, now: Instant, events: &mut Events) {
        self.scanned_at = Some(now);
        self.directory_changed = self.directory_time();
        self.troubles.clear();
        self.refused = false;
        let seen = self.list();
        let successors: HashMap<PathBuf, Id> =
            seen.iter().filter(|seen| seen.look.size > 0).map(|seen| (seen.path.clone(), seen.id)).collect();
        let ids: Vec<Id> = seen.iter().map(|seen| seen.id).collect();
        let mut fresh = self.recognise(seen, now);
        let mut entries = Entries::default();
        let kept = self.recall(&mut fresh, &ids, &mut entries, now);
        self.finish(&successors, &mut entries, now, events);
        self.adopt(&mut fresh, &mut entries, now, events);
        self.register(fresh, &kept);
        self.first = self.first && self.refused && self.files.is_empty();
    }

    /// What the pattern leads to, each file once.
    fn list(&mut self) -> Vec<Seen> {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = match glob::glob_with(&self.pattern, options) {
            Ok(paths) => paths,
            Err(error) => {
                self.troubles.push(format!("`{}` is not a path pattern: {error}", self.pattern));
                return Vec::new();
            }
        };
        let mut seen: Vec<Seen> = Vec::new();
        let mut ids = HashSet::new();
        for path in paths {
            let path = match path {
                Ok(path) if is_packed(&path) => continue,
                Ok(path) => path,
                Err(error) => {
                    self.refuse(error.path(), error.error());
                    continue;
                }
            };
            match path.metadata() {
                Ok(meta) if meta.is_file() => {
                    if ids.insert(Id::of(&meta)) {
                        seen.push(Seen { path, id: Id::of(&meta), look: Look::of(&meta) });
                    }
                }
                Ok(meta) => {
                    self.troubles.push(format!("{} is {}, not a file", path.display(), file::kind(&meta)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.refuse(&path, &error),
            }
        }
        if seen.is_empty() && self.troubles.is_empty() {
            self.troubles.push(format!("no file matches `{}`", self.pattern));
        }
        seen
    }

    fn refuse(&mut self, path: &Path, error: &io::Error) {
        self.refused = true;
        self.troubles.push(unreadable(path, error));
    }

    /// Marks the files that are followed already; opens the others, oldest first, from their beginning.
    fn recognise(&mut self, seen: Vec<Seen>, now: Instant) -> Vec<Followed> {
        let known: HashMap<Id, usize> =
            self.files.iter().enumerate().map(|(at, file)| (file.id, at)).collect();
        for file in &mut self.files {
            file.named = false;
        }
        let mut open = self.files.iter().filter(|file| file.handle.is_some()).count();
        let mut fresh = Vec::new();
        for seen in seen {
            if let Some(&at) = known.get(&seen.id) {
                let file = &mut self.files[at];
                file.named = true;
                if file.path != seen.path {
                    (file.path, file.moved) = (seen.path, true);
                }
                if file.handle.is_none() && file.look != seen.look && file.open().is_ok() {
                    self.look_at(at, now);
                }
            } else if self.files.len() + fresh.len() < FILES_MAX {
                let opened = file::open_regular(&seen.path);
                match opened.and_then(|(handle, _)| Followed::new(seen.path.clone(), handle, 0, now)) {
                    Ok(mut file) => {
                        open += 1;
                        if open > OPEN_MAX {
                            file.handle = None;
                        }
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
            } else {
                self.troubles.push(format!(
                    "`{}` matches more than {FILES_MAX} files; {} is not read",
                    self.pattern,
                    seen.path.display()
                ));
            }
        }
        fresh.sort_by_key(|file| file.look.modified);
        fresh
    }

    /// Finds the files of remembered cursors: under a name of the pattern, or moved within their directory. Gives
    /// back the identities that other files have taken over, whose cursors must be replaced.
    fn recall(
        &mut self,
        fresh: &mut Vec<Followed>,
        seen: &[Id],
        entries: &mut Entries,
        now: Instant,
    ) -> Vec<Id> {
        let mut taken = Vec::new();
        for cursor in std::mem::take(&mut self.remembered) {
            let id = Id { device: cursor.device, inode: cursor.inode };
            let fate = Some("was replaced while nobody read it");
            if let Some(at) = fresh.iter().position(|file| file.id == id) {
                if continues(&fresh[at], &cursor).unwrap_or(false) {
                    let mut file = fresh.remove(at);
                    go_on(&mut file, &cursor);
                    self.files.push(file);
                } else {
                    taken.push(id);
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
                Ok(near) => match moved(near, &cursor, now) {
                    Some(file) => self.files.push(file),
                    None => self.orphans.push(Orphan {
                        cursor,
                        size: None,
                        fate: Some("was removed while nobody read it"),
                        gone: true,
                    }),
                },
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
            if file.named || !is_over(file, successors, entries, now) {
                at += 1;
                continue;
            }
            let file = self.files.remove(at);
            let cursor = file.cursor();
            let rest = file.look.size > file.offset;
            if let Some(handle) = file.handle.as_ref().filter(|_| rest) {
                let mut start = vec![0; HEAD_LEN * 2];
                let len = file::read_full(handle, &mut start, file.offset).unwrap_or(0);
                start.truncate(len);
                events.cut.push((place(&file.path, file.offset), start));
            }
            let fate = (rest && file.handle.is_none()).then_some("was removed");
            self.orphans.push(Orphan { cursor, size: Some(file.look.size), fate, gone: true });
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
                copies.extend(search::copy_nearby(&orphan, &self.files, entries, now));
            }
            let found = copies.iter().any(|file| file.look.size >= orphan.end());
            for mut file in copies {
                go_on(&mut file, &orphan.cursor);
                if file.named || file.has_more() {
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
    fn register(&mut self, fresh: Vec<Followed>, taken: &[Id]) {
        let mut fresh = VecDeque::from(fresh);
        while let Some(mut file) = fresh.pop_front() {
            let recycled = taken.contains(&file.id);
            if file.look.size == 0 && !recycled {
                continue;
            }
            let mut others = self.files.iter_mut().chain(&mut fresh);
            if others.any(|other| begins(other, &mut file).unwrap_or(false)) {
                continue;
            }
            let early = self.early.remove(&file.id);
            file.backlog_end = if self.first || early { file.look.size } else { 0 };
            self.files.push(file);
        }
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
            .filter(|file| file.handle.is_some() && file.named && !file.has_more())
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
    let Some(handle) = &file.handle else {
        // Closed when it was idle, and rotated since: find its new name.
        let near = entries.of(&file.path).ok();
        let found = near.and_then(|near| moved(near, &file.cursor(), now));
        let Some(found) = found else { return true };
        *file = found;
        return false;
    };
    let deleted = handle.metadata().is_ok_and(|meta| meta.nlink() == 0);
    let quiet = if successors.get(&file.path).is_some_and(|id| *id != file.id) {
        QUIET
    } else if deleted {
        QUIET_DELETED
    } else {
        QUIET_MOVED
    };
    !file.has_more() && now.duration_since(file.grew_at) >= quiet
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
