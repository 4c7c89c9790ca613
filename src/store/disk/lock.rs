//! One agent per state directory. The lock is the kernel's (`flock`), so it is gone with the process that held it,
//! however that ended; the pid inside is for people.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::model::text::clip;
use crate::store::OpenError;
use crate::store::disk::files::{OURS, open_ours};

/// How the last agent on this state directory ended, as far as the lock file says: a power cut may have taken that back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) enum Before {
    /// It closed the store.
    Clean,
    /// It did not, and had the store open.
    Used,
    /// It met damage, which is to be repaired now.
    Damaged {
        /// What it met.
        cause: String,
        /// The one before it had met damage too, and nothing was found wrong then.
        again: bool,
    },
    /// It did not, and may not have come so far; or there was none.
    Unknown,
}

impl Before {
    fn of(text: &str) -> Self {
        let last = text.trim_end().lines().last().unwrap_or_default();
        let damaged = |cause: &str, again| Self::Damaged { cause: cause.to_owned(), again };
        match (last, last.strip_prefix(DAMAGED), last.strip_prefix(AGAIN)) {
            (CLOSED, ..) => Self::Clean,
            (OPEN, ..) => Self::Used,
            (_, Some(cause), _) => damaged(cause, false),
            (.., Some(cause)) => damaged(cause, true),
            _ => Self::Unknown,
        }
    }

    /// Last line of the lock file, where a start that is cut short must not lose it.
    fn note(&self) -> String {
        match self {
            Self::Damaged { cause, again } => format!("{}{cause}", if *again { AGAIN } else { DAMAGED }),
            _ => String::new(),
        }
    }
}

/// Last line of the lock file while the store is open.
const OPEN: &str = "open";
/// Last line after damage was met; the cause follows.
const DAMAGED: &str = "damaged: ";
/// The same, where the start before had found nothing wrong.
const AGAIN: &str = "damaged again: ";
/// Most bytes of a cause.
const CAUSE_MAX: usize = 300;
/// The whole of it after the store was closed.
const CLOSED: &str = "closed";

/// Held as long as the store is open.
#[derive(Debug)]
pub(in crate::store) struct StateLock {
    file: File,
    /// How the last one ended.
    pub(in crate::store) before: Before,
    /// Damage had been met, and nothing was found wrong at the start.
    doubted: bool,
}

impl StateLock {
    /// Takes the lock, or says who has it.
    pub(in crate::store) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("lock");
        let io = |source| OpenError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OURS.bits().cast_signed())
            .open(&path)
            .map_err(io)?;
        match patiently(&file) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Without the pid the message is only less precise.
                let _ = file.take(100).read_to_string(&mut text);
                let pid = text.lines().next().unwrap_or_default().trim().to_owned();
                return Err(OpenError::Locked { dir: dir.to_owned(), pid });
            }
            Err(e) => return Err(io(e.into())),
        }
        let mut text = String::new();
        // Without it, the store is checked once more than it need be.
        let _ = Read::by_ref(&mut file).take(2 * CAUSE_MAX as u64).read_to_string(&mut text);
        let before = Before::of(&text);
        let note = before.note();
        let mut lock = Self { file, before, doubted: false };
        // The lock holds without it: on a full disk there may be no room for the number.
        let _ = lock.write(&note);
        Ok(lock)
    }

    /// Takes the lock in a directory that cannot be written; `None` when there never was a lock file.
    pub(in crate::store) fn take_unwritten(dir: &Path) -> Result<Option<Self>, OpenError> {
        let Ok(file) = open_ours(&dir.join("lock")) else { return Ok(None) };
        if patiently(&file) == Err(rustix::io::Errno::WOULDBLOCK) {
            return Err(OpenError::Locked { dir: dir.to_owned(), pid: String::new() });
        }
        Ok(Some(Self { file, before: Before::Unknown, doubted: false }))
    }

    /// The store is open: from here on an empty database is a damaged one. `repaired`: on the way.
    pub(in crate::store) fn opened(&mut self, repaired: bool) {
        self.doubted = !repaired && matches!(self.before, Before::Damaged { .. });
        // Only the check at the next start depends on it.
        let _ = self.write(OPEN);
    }

    /// Damage was met: the next start repairs it.
    pub(in crate::store) fn damaged(&mut self, cause: &str) {
        let cause = clip(cause, CAUSE_MAX).replace('\n', " ");
        // Without it the next start looks for damage all the same, as after any end that was not clean.
        let _ = self.write(&Before::Damaged { cause, again: self.doubted }.note());
    }

    /// The store was closed as it should be.
    pub(in crate::store) fn clean(&mut self) {
        // Then the next start checks the database once more than it need be.
        let _ = self.replace(CLOSED);
    }

    fn write(&mut self, word: &str) -> std::io::Result<()> {
        self.replace(&format!("{}\n{word}", std::process::id()))
    }

    fn replace(&mut self, text: &str) -> std::io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{text}")
    }

    /// The number of the process that wrote itself into it.
    pub(in crate::store) fn holder(dir: &Path) -> Option<u32> {
        let mut text = String::new();
        File::open(dir.join("lock")).ok()?.take(32).read_to_string(&mut text).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Whether some agent holds it now.
    pub(in crate::store) fn is_held(dir: &Path) -> bool {
        let Ok(file) = open_ours(&dir.join("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
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
