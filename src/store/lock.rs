//! One agent per state directory. The lock is the kernel's (`flock`), so it is gone with the process that held it,
//! however that ended; the pid inside is for people.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::owner::hand_over;

/// Held as long as the store is open.
#[derive(Debug)]
pub(super) struct StateLock {
    dir: PathBuf,
    _held: File,
}

impl StateLock {
    /// Takes the lock, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let io = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
            .open(&path)
            .map_err(io)?;
        match patiently(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // Without the pid the message is only less precise.
                let _ = file.read_to_string(&mut pid);
                return Err(OpenError::Locked { dir: dir.to_owned(), pid: pid.trim().to_owned() });
            }
            Err(e) => return Err(io(e.into())),
        }
        // The lock holds without it: on a full disk there may be no room for the number.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { dir: dir.to_owned(), _held: file })
    }

    /// Takes the lock in a directory that cannot be written; `None` when there never was a lock file.
    pub(super) fn take_unwritten(dir: &Path) -> Result<Option<Self>, OpenError> {
        let Ok(mut file) = File::open(dir.join("lock")) else { return Ok(None) };
        if patiently(&file) == Err(rustix::io::Errno::WOULDBLOCK) {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: pid.trim().to_owned() });
        }
        Ok(Some(Self { dir: dir.to_owned(), _held: file }))
    }

    /// Whether some agent holds it now.
    pub(super) fn is_held(dir: &Path) -> bool {
        let Ok(file) = File::open(dir.join("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }
}

impl Drop for StateLock {
    /// What root made meanwhile must not shut the service out.
    fn drop(&mut self) {
        hand_over(&self.dir);
    }
}

/// Somebody who only asks [`StateLock::is_held`] holds the lock for a moment; that is no second agent.
fn patiently(file: &File) -> rustix::io::Result<()> {
    let mut last = Err(rustix::io::Errno::WOULDBLOCK);
    for _ in 0..10 {
        last = flock(file, FlockOperation::NonBlockingLockExclusive);
        if last != Err(rustix::io::Errno::WOULDBLOCK) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    last
}
