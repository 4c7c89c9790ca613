//! The database is exchanged for another one: a healed one for a damaged one, a backup for what there was. Several
//! renames are needed, so a marker file says what is under way, and the next start goes on from any step.
//!
//! What is on disk, and what the next start does:
//!
//! 1. No marker: nothing was begun. A `queue.db.new` is a leftover and deleted.
//! 2. Marker, the kept database is not there yet: `queue.db` is the old one. It is moved, its WAL and SHM after it.
//! 3. Marker, the kept one is there, no `queue.db`: the old one is out of the way. A healing salvages again (what was
//!    written of `queue.db.new` is deleted); a restore renames the `queue.db.new` that was complete before the marker.
//! 4. Marker, both are there: the exchange is done; the marker goes.
//!
//! The directory is synced between these steps, so no step can be on disk without the one before it. As long as the
//! marker stands nobody opens `queue.db`; a `queue.db-wal` is therefore the old one's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::model::Timestamp;
use crate::model::text::one_line;
use crate::store::disk::files::{
    Aside, SIDES, create_ours, failed, is_there, name_aside, open_ours, seal, sync_dir, with,
};
use crate::store::{DATABASE, OpenError};

/// The marker.
const MARKER: &str = "queue.db.swap";
/// The database that comes.
const NEW: &str = "queue.db.new";
/// Most bytes of a marker: two names and a cause in one line.
const MARKER_MAX: u64 = 64 << 10;
/// First line of a marker.
const WORDS: [(&str, Aside); 2] = [("repair", Aside::Corrupt), ("restore", Aside::BeforeRestore)];

/// An exchange that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Swap {
    dir: PathBuf,
    pub(in crate::store) why: Aside,
    /// File name that the old database gets.
    pub(in crate::store) kept_as: String,
    /// What was found.
    pub(in crate::store) cause: String,
}

impl Swap {
    /// The exchange that the last process could not finish.
    pub(in crate::store) fn pending(dir: &Path) -> Option<Self> {
        let mut text = String::new();
        open_ours(&dir.join(MARKER)).ok()?.take(MARKER_MAX).read_to_string(&mut text).ok()?;
        let mut lines = text.lines();
        let word = lines.next()?;
        let (_, why) = WORDS.into_iter().find(|(w, _)| *w == word)?;
        let kept_as = lines.next().filter(|name| is_plain(name))?.to_owned();
        Some(Self { dir: dir.to_owned(), why, kept_as, cause: lines.next().unwrap_or_default().to_owned() })
    }

    /// Begins one: from here on the next start goes on with it.
    pub(in crate::store) fn begin(
        dir: &Path,
        why: Aside,
        cause: &str,
        now: Timestamp,
    ) -> Result<Self, OpenError> {
        let cause = one_line(cause).into_owned();
        let swap = Self { dir: dir.to_owned(), why, kept_as: name_aside(dir, why, now), cause };
        let word = WORDS.iter().find(|(_, w)| *w == why).map_or("repair", |(word, _)| word);
        let temporary = dir.join(format!("{MARKER}.tmp"));
        remove(&temporary)?;
        let write = |mut file: fs::File| {
            file.write_all(format!("{word}\n{}\n{}\n", swap.kept_as, swap.cause).as_bytes())?;
            file.sync_all()
        };
        create_ours(&temporary).and_then(write).map_err(failed(&temporary))?;
        fs::rename(&temporary, dir.join(MARKER)).map_err(failed(&temporary))?;
        sync_dir(dir)?;
        Ok(swap)
    }

    /// The old database, where it is kept.
    pub(in crate::store) fn kept(&self) -> PathBuf {
        self.dir.join(&self.kept_as)
    }

    /// The database that comes, while it is made.
    pub(in crate::store) fn new_path(dir: &Path) -> PathBuf {
        dir.join(NEW)
    }

    /// Whether the new database is in its place.
    pub(in crate::store) fn is_done(&self) -> bool {
        is_there(&self.kept()) && is_there(&self.dir.join(DATABASE))
    }

    /// Moves the old database out of the way, as far as that is not done.
    pub(in crate::store) fn set_aside(&self) -> Result<(), OpenError> {
        if self.is_done() {
            return Ok(());
        }
        let (old, kept) = (self.dir.join(DATABASE), self.kept());
        for side in SIDES {
            let (from, to) = (with(&old, side), with(&kept, side));
            if is_there(&from) && !is_there(&to) {
                fs::rename(&from, &to).map_err(failed(&from))?;
            }
        }
        if !is_there(&kept) {
            // Only a WAL was there. An empty file stands for its database, so that the step shows.
            create_ours(&kept).map_err(failed(&kept))?;
        }
        sync_dir(&self.dir)
    }

    /// Puts the new database, which is closed and complete, in its place.
    pub(in crate::store) fn put_in(&self) -> Result<(), OpenError> {
        let new = Self::new_path(&self.dir);
        seal(&new)?;
        fs::rename(&new, self.dir.join(DATABASE)).map_err(failed(&new))?;
        sync_dir(&self.dir)
    }

    /// Ends it.
    pub(in crate::store) fn end(self) -> Result<(), OpenError> {
        let marker = self.dir.join(MARKER);
        fs::remove_file(&marker).map_err(failed(&marker))?;
        sync_dir(&self.dir)
    }
}

/// Removes what an exchange that never began, or is begun again, left behind.
pub(in crate::store) fn clear(dir: &Path) -> Result<(), OpenError> {
    clear_new(dir)?;
    for name in [format!("{MARKER}.tmp"), MARKER.to_owned()] {
        remove(&dir.join(name))?;
    }
    Ok(())
}

/// Removes what was written of a new database.
pub(in crate::store) fn clear_new(dir: &Path) -> Result<(), OpenError> {
    let new = dir.join(NEW);
    ["-journal", "-wal", "-shm", ""].iter().try_for_each(|side| remove(&with(&new, side)))
}

fn remove(path: &Path) -> Result<(), OpenError> {
    if is_there(path) { fs::remove_file(path).map_err(failed(path)) } else { Ok(()) }
}

/// A file name and nothing that leads elsewhere.
fn is_plain(name: &str) -> bool {
    name.starts_with(DATABASE) && name.len() > DATABASE.len() && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn state(dir: &Path) -> Vec<String> {
        let mut all: Vec<String> = crate::store::disk::files::names(dir)
            .into_iter()
            .map(|name| {
                format!(
                    "{name}={}",
                    fs::read_to_string(dir.join(&name)).unwrap().lines().next().unwrap_or("")
                )
            })
            .collect();
        all.sort();
        all
    }

    /// What the next start does with a healing, but for the salvage itself.
    fn go_on(dir: &Path) {
        let Some(swap) = Swap::pending(dir) else { return clear(dir).unwrap() };
        if !swap.is_done() {
            swap.set_aside().unwrap();
            clear_new(dir).unwrap();
            fs::write(Swap::new_path(dir), "new").unwrap();
            swap.put_in().unwrap();
        }
        swap.end().unwrap();
    }

    /// Every subset of the renames between two syncs of the directory may be what a power cut leaves.
    #[test]
    fn from_every_step_the_next_start_comes_to_the_same_end() {
        let sides = ["", "-wal", "-shm"];
        for moved in 0..8_u32 {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            let path = dir.join(DATABASE);
            for side in sides {
                fs::write(with(&path, side), format!("old{side}")).unwrap();
            }
            let swap = Swap::begin(dir, Aside::Corrupt, "why", NOW).unwrap();
            assert_eq!(Swap::pending(dir).unwrap(), swap);
            for (n, side) in sides.iter().enumerate().filter(|(n, _)| moved >> n & 1 == 1) {
                fs::rename(with(&path, side), with(&swap.kept(), side)).unwrap();
                assert!(n < 3);
            }
            // With the database still at its old place, a half-made new one cannot be there.
            if moved & 1 == 1 {
                fs::write(Swap::new_path(dir), "half").unwrap();
            }
            go_on(dir);
            let k = &swap.kept_as;
            let mut want = vec![
                format!("{k}-shm=old-shm"),
                format!("{k}-wal=old-wal"),
                format!("{k}=old"),
                "queue.db=new".to_owned(),
            ];
            want.sort();
            assert_eq!(state(dir), want, "moved {moved:b}");
            go_on(dir);
            assert_eq!(state(dir), want);
        }
    }

    #[test]
    fn an_exchange_that_is_done_only_loses_its_marker() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join(DATABASE), "old").unwrap();
        let swap = Swap::begin(dir, Aside::BeforeRestore, "", NOW).unwrap();
        swap.set_aside().unwrap();
        fs::write(Swap::new_path(dir), "new").unwrap();
        swap.put_in().unwrap();
        assert!(swap.is_done());
        let before = state(dir).into_iter().filter(|s| !s.starts_with(MARKER)).collect::<Vec<_>>();
        go_on(dir);
        assert_eq!(state(dir), before);
    }

    #[test]
    fn a_wal_without_a_database_is_kept_too() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("queue.db-wal"), "wal").unwrap();
        let swap = Swap::begin(dir.path(), Aside::Corrupt, "no database", NOW).unwrap();
        swap.set_aside().unwrap();
        let k = &swap.kept_as;
        assert_eq!(state(dir.path()), [format!("{k}-wal=wal"), format!("{k}="), format!("{MARKER}=repair")]);
    }

    #[test]
    fn a_marker_that_makes_no_sense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        for text in
            ["", "repair", "repair\nqueue.db\n", "repair\nqueue.db/../x\n", "eat\nqueue.db.corrupt-1\n"]
        {
            fs::write(dir.path().join(MARKER), text).unwrap();
            assert_eq!(Swap::pending(dir.path()), None, "{text:?}");
        }
    }
}
