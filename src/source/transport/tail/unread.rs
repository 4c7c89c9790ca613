//! Generations that a rotation packed in a way that is not unpacked here (xz, bzip2), perhaps before somebody read them.
//!
//! Nothing is known of what is in one. So it is taken for what was read where its plain form stands beside it, where it
//! has the time of change or the plain name of a file that this process followed (packers keep the time), and after a
//! start where a file that was read is gone, the oldest for the first. Every other one is told as long as it is there.
//! Each has a cursor without first bytes, complete where it was read: a start after a power cut knows them by that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use super::file::{Followed, Id, Look};
use super::packing::Packing;
use super::watch::Events;
use crate::model::FileCursor;
use crate::model::text::one_line;
use crate::model::trouble::PACKED_UNREAD;
use crate::source::Own;

/// Most of them that are known; most plain files whose time and name are remembered.
const FILES_MAX: usize = 4_096;
/// Most that are told by their names.
const TOLD: usize = 3;

/// What is packed and cannot be read.
#[derive(Default)]
pub(super) struct Unread {
    /// Cursors of before this process, whose files were not found yet.
    remembered: HashMap<Id, FileCursor>,
    known: HashMap<Id, FileCursor>,
    /// New ones, oldest first, until it is decided what they are.
    fresh: VecDeque<FileCursor>,
    /// Plain files of this process: name and time of change.
    plain: HashMap<Id, (PathBuf, (i64, i64))>,
}

impl Unread {
    pub(super) fn new(remembered: Vec<FileCursor>) -> Self {
        let remembered = remembered.into_iter().map(|cursor| (id(&cursor), cursor)).collect();
        Self { remembered, ..Self::default() }
    }

    /// Remembers the plain files as they are now.
    pub(super) fn note(&mut self, files: &[Followed], settled: &HashMap<Id, (FileCursor, Look)>) {
        let followed = files.iter().map(|file| (file.id, (file.path.clone(), file.look.modified)));
        let settled =
            settled.iter().map(|(id, (cursor, look))| (*id, (PathBuf::from(&cursor.path), look.modified)));
        if self.plain.len() >= FILES_MAX {
            self.plain.clear();
        }
        self.plain.extend(followed.chain(settled));
    }

    /// Looks at what the pattern leads to; `any`: whether it leads to anything, packed or not.
    pub(super) fn look(&mut self, paths: Vec<PathBuf>, any: bool, own: &Own, events: &mut Events) {
        let mut there = HashSet::new();
        let mut new = Vec::new();
        for path in paths.into_iter().take(FILES_MAX) {
            let Some(meta) = path.metadata().ok().filter(std::fs::Metadata::is_file) else { continue };
            let id = Id::of(&meta);
            if !there.insert(id) {
                continue;
            }
            let cursor = self.known.remove(&id).or_else(|| self.remembered.remove(&id));
            let Some(mut cursor) = cursor else {
                new.push((Look::of(&meta), path, id));
                continue;
            };
            cursor.path = path.to_string_lossy().into_owned();
            if !cursor.complete && stands_beside(&path) {
                // A person has unpacked it.
                cursor.complete = true;
                events.complete.push(cursor.clone());
            }
            self.known.insert(id, cursor);
        }
        self.forget(&there, any, events);
        let own = if new.is_empty() { None } else { Some(own.ids()) };
        new.retain(|(_, path, _)| {
            !path.metadata().is_ok_and(|meta| own.as_ref().is_some_and(|own| own.has(&meta)))
        });
        new.sort_unstable_by(|one, other| (one.0.modified, &one.1).cmp(&(other.0.modified, &other.1)));
        for (look, path, id) in new {
            let complete = stands_beside(&path) || self.was_followed(&path, look);
            let path = path.to_string_lossy().into_owned();
            let (device, inode) = (id.device, id.inode);
            self.fresh.push_back(FileCursor { device, inode, complete, path, ..FileCursor::default() });
        }
    }

    fn was_followed(&self, path: &Path, look: Look) -> bool {
        let plain = plain(path);
        self.plain.values().any(|(name, modified)| *modified == look.modified || Some(name) == plain.as_ref())
    }

    /// Lets those go that are gone.
    fn forget(&mut self, there: &HashSet<Id>, any: bool, events: &mut Events) {
        if !any {
            // The disk may not be mounted.
            return;
        }
        let known = self.known.extract_if(|id, _| !there.contains(id));
        for (_, cursor) in known.chain(self.remembered.extract_if(|id, _| !there.contains(id))) {
            if !cursor.complete && !stands_beside(Path::new(&cursor.path)) {
                events.gaps.push(format!(
                    "{} was removed; it was packed in a way that is not read here, and what it held is lost",
                    cursor.path
                ));
            }
            events.finished.push(cursor);
        }
    }

    /// A file of before this process is gone, and is nowhere else: the oldest new one may be it.
    pub(super) fn take(&mut self) {
        if let Some(oldest) = self.fresh.iter_mut().find(|cursor| !cursor.complete) {
            oldest.complete = true;
        }
    }

    /// What nobody took was read by nobody.
    pub(super) fn settle(&mut self, events: &mut Events) {
        for cursor in self.fresh.drain(..) {
            events.complete.push(cursor.clone());
            self.known.insert(id(&cursor), cursor);
        }
    }

    /// Those that nobody read, in words.
    pub(super) fn trouble(&self) -> Option<String> {
        let mut paths: Vec<&str> =
            self.known.values().filter(|cursor| !cursor.complete).map(|cursor| &*cursor.path).collect();
        paths.sort_unstable();
        let more = match paths.len() {
            0 => return None,
            count if count > TOLD => format!(" and {} more", count - TOLD),
            _ => String::new(),
        };
        paths.truncate(TOLD);
        Some(format!("{PACKED_UNREAD}{}{more}", one_line(&paths.join(", "))))
    }
}

fn id(cursor: &FileCursor) -> Id {
    Id { device: cursor.device, inode: cursor.inode }
}

/// The name of before it was packed.
fn plain(path: &Path) -> Option<PathBuf> {
    let (plain, _) = Packing::split(path.file_name()?.to_str()?)?;
    Some(path.with_file_name(plain))
}

fn stands_beside(path: &Path) -> bool {
    plain(path).is_some_and(|plain| plain.symlink_metadata().is_ok())
}
