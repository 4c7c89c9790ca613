//! What is otrelay's own on this machine: its config, its secrets, what it keeps. No source reads any of it, whatever name
//! leads there: whoever may write where the sensor does could else have a password read into a sample and a backup.
//! Files are known by device and inode, so a link of either kind is none.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Most entries of a directory that are looked at; there are some dozens in ours.
const ENTRIES_MAX: usize = 1_000;

/// Where otrelay's own files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Each of these.
    pub files: Vec<PathBuf>,
    /// All that is in these.
    pub dirs: Vec<PathBuf>,
}

/// What they are now.
#[derive(Debug)]
pub struct OwnIds(HashSet<(u64, u64)>);

impl Own {
    /// Looks what is there now. Blocking.
    pub fn ids(&self) -> OwnIds {
        let entries = self.dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok());
        let inside = entries.flat_map(|entries| entries.flatten().take(ENTRIES_MAX).map(|e| e.path()));
        let all = self.files.iter().cloned().chain(inside);
        OwnIds(all.filter_map(|path| path.metadata().ok()).map(|meta| (meta.dev(), meta.ino())).collect())
    }
}

impl OwnIds {
    /// Whether this is one of them.
    pub fn has(&self, meta: &Metadata) -> bool {
        self.0.contains(&(meta.dev(), meta.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ours_is_known_by_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("state")).unwrap();
        for name in ["secret", "state/queue.db", "eve.json"] {
            std::fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("secret"), at("link")).unwrap();
        std::fs::hard_link(at("state/queue.db"), at("hard")).unwrap();
        let own = Own { files: vec![at("secret"), at("gone")], dirs: vec![at("state"), at("never")] };
        let has = |name: &str| own.ids().has(&at(name).metadata().unwrap());
        assert_eq!(
            ["secret", "link", "hard", "state/queue.db", "eve.json"].map(has),
            [true, true, true, true, false]
        );
        // A new file in the place of the old one is ours, too.
        std::fs::remove_file(at("secret")).unwrap();
        std::fs::write(at("secret"), "y").unwrap();
        assert!(has("secret"));
    }
}
