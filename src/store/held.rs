//! What is kept in memory of the room that devices hold, so that it is not counted for each (`op/device/share.rs`). All of it
//! can be had again from the file.

use crate::model::Timestamp;

/// What devices hold of their share, and who of them gives way next.
#[derive(Default)]
pub(super) struct Held {
    /// Bytes; `None`: not read yet.
    pub(super) bytes: Option<i64>,
    /// Of each kind that gives way: up to which row they were looked at, oldest first.
    pub(super) hands: [i64; 3],
    /// Since when none of them is known.
    pub(super) none: [Option<Timestamp>; 3],
    /// Whether the issue stands; `None`: not known.
    pub(super) said: Option<bool>,
}
