//! 3 — the loop that takes a batch, decides, and commits alerts, decisions, deliveries and cursors together.

use std::time::Duration;

/// `[sync] backfill`: which alerts are forwarded when a source is first read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backfill {
    /// All.
    All,
    /// Those that are not older than this when they are read; zero: none of them.
    Within(Duration),
}

/// What the intake needs to know, checked.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `[sync] backfill`.
    pub backfill: Backfill,
}
