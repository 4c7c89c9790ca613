//! What is the case with the store now, for `status` and for the intake: the disk is full, the buffer is full, the
//! state directory cannot be written.
//!
//! Kept in memory, because none of it can be relied on to be writable when it is true. Said in the log when it begins
//! and when it ends, not for each attempt.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::model::HealthIssue;

/// What can be the case, in the order in which it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The state directory cannot be written: everything is in memory.
    Memory,
    /// The file system has no room: nothing is taken in.
    Disk,
    /// The write-ahead log cannot be emptied because somebody reads: nothing is taken in.
    Log,
    /// The buffer has no room and its policy makes none: nothing is taken in.
    Buffer,
}

impl Kind {
    /// Of its issue.
    pub(super) fn code(self) -> String {
        let code = match self {
            Self::Memory => "store-in-memory",
            Self::Disk => "disk-full",
            Self::Log => "log-full",
            Self::Buffer => "buffer-full",
        };
        code.to_owned()
    }
}

/// What is the case now. Shared between the writer, which knows, and whoever asks.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    all: Mutex<BTreeMap<Kind, HealthIssue>>,
    devices_are_wanted: AtomicBool,
}

impl Conditions {
    /// It is so. What was said once is not said again; the words may change.
    pub(super) fn begin(&self, kind: Kind, issue: HealthIssue) {
        let (text, HealthIssue { code, remedy, .. }) = (issue.told(), issue.clone());
        if self.map(|all| all.insert(kind, issue)).is_none() {
            tracing::error!(code, remedy, "{text}");
        }
    }

    /// It is so no more.
    pub(super) fn end(&self, kind: Kind) {
        if self.map(|all| all.remove(&kind)).is_some() {
            let over = match kind {
                Kind::Memory => "the state directory can be written again: the store is on disk",
                Kind::Disk => "there is space on the disk again: alerts are taken in",
                Kind::Log => "the write-ahead log could be emptied: alerts are taken in",
                Kind::Buffer => "there is room in the buffer again: alerts are taken in",
            };
            tracing::info!("{over}");
        }
    }

    /// Whether it is so.
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.map(|all| all.contains_key(&kind))
    }

    /// What it says of this.
    pub(super) fn get(&self, kind: Kind) -> Option<HealthIssue> {
        self.map(|all| all.get(&kind).cloned())
    }

    /// All of it.
    pub(super) fn all(&self) -> Vec<HealthIssue> {
        self.map(|all| all.values().cloned().collect())
    }

    /// Somebody is told of devices (`[devices]`), so that they have their whole share of the store.
    pub(super) fn want_devices(&self) {
        self.devices_are_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether somebody is.
    pub(super) fn devices_are_wanted(&self) -> bool {
        self.devices_are_wanted.load(Ordering::Relaxed)
    }

    fn map<T>(&self, work: impl FnOnce(&mut BTreeMap<Kind, HealthIssue>) -> T) -> T {
        // Nothing in here can be half done.
        work(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
