//! 4 — keep. SQLite, one writer.

use std::path::PathBuf;
use std::time::Duration;

/// `[buffer] when_full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest of the lowest severity goes first, counted.
    ShedLowest,
    /// Nothing more is taken in until there is room.
    Refuse,
}

/// What the store needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[agent] state_dir`.
    pub dir: PathBuf,
    /// `[buffer] max_size` in bytes, at least 8 MiB.
    pub max_size: u64,
    /// `[buffer] keep_delivered`.
    pub keep_delivered: Duration,
    /// `[buffer] when_full`.
    pub when_full: WhenFull,
}
