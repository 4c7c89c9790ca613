//! The ballast: a file of real blocks that is given up when the disk is full.
//!
//! Once a disk is full, a store with a write-ahead log is stuck: a settle needs room in the WAL, and emptying the WAL
//! needs room in the database. So some room is kept in this file and given back then. It is written and synced, not
//! only reserved (some file systems promise blocks that they do not have), and with bytes that cannot be compressed.
//!
//! Power cut: the file is either whole or not. One that is shorter than it should be was cut off while it was made, and
//! is taken away when it is found; one that is longer belongs to another `max_size`, likewise. Nothing reads it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Its name in the state directory.
pub(in crate::store) const NAME: &str = "ballast";
/// Bytes in one write.
const STEP: usize = 64 * 1024;

/// The ballast of one state directory. Every failure is the same: then there is none.
#[derive(Debug)]
pub(in crate::store) struct Ballast {
    path: PathBuf,
    size: u64,
    there: bool,
}

impl Ballast {
    /// Looks whether a whole one is there; what is not whole is taken away.
    pub(in crate::store) fn find(dir: &Path, size: u64) -> Self {
        let path = dir.join(NAME);
        let whole = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == size);
        let mut ballast = Self { path, size, there: true };
        if !whole {
            ballast.release();
        }
        ballast
    }

    /// Whether it can be given up.
    pub(in crate::store) fn is_there(&self) -> bool {
        self.there
    }

    /// Gives its blocks back. False when there was none.
    pub(in crate::store) fn release(&mut self) -> bool {
        let was = std::mem::replace(&mut self.there, false);
        was && std::fs::remove_file(&self.path).is_ok()
    }

    /// Makes it, synced. Where that fails there is none, and no part of one.
    pub(in crate::store) fn make(&mut self) {
        match self.write() {
            Ok(()) => self.there = true,
            Err(e) => {
                tracing::debug!("no ballast could be made: {e}");
                // Absent where it could not even be created.
                let _ = std::fs::remove_file(&self.path);
            }
        }
    }

    fn write(&self) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        let mut step = vec![0; STEP];
        let (mut state, mut left) = (0x9e37_79b9_7f4a_7c15_u64, self.size);
        while left > 0 {
            for word in step.chunks_exact_mut(8) {
                // xorshift64: noise is all that is needed.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let now = left.min(STEP as u64);
            file.write_all(&step[..now as usize])?;
            left -= now;
        }
        file.sync_all()?;
        self.path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    const SIZE: u64 = 200_000;

    #[test]
    fn it_has_real_blocks_and_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(dir.path(), SIZE);
        assert!(!ballast.is_there() && !ballast.release());
        ballast.make();
        let meta = std::fs::metadata(dir.path().join(NAME)).unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (SIZE, 0o600));
        assert!(meta.blocks() * 512 >= SIZE, "{} blocks", meta.blocks());
        assert!(Ballast::find(dir.path(), SIZE).is_there(), "the next start finds it");
        assert!(ballast.release() && !ballast.is_there());
        assert!(!dir.path().join(NAME).exists());
    }

    #[test]
    fn what_is_not_whole_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        // Cut off while it was made; of another size; a link to something that is not ours.
        for bytes in [0, 65_536, SIZE as usize + 1] {
            std::fs::write(&path, vec![1; bytes]).unwrap();
            assert!(!Ballast::find(dir.path(), SIZE).is_there());
            assert!(!path.exists());
        }
        let other = dir.path().join("other");
        std::fs::write(&other, vec![1; SIZE as usize]).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(!Ballast::find(dir.path(), SIZE).is_there());
        assert!(other.exists() && std::fs::symlink_metadata(&path).is_err());
    }

    #[test]
    fn where_it_cannot_be_made_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut ballast = Ballast::find(&dir.path().join("absent"), SIZE);
        ballast.make();
        assert!(!ballast.is_there());
    }
}
