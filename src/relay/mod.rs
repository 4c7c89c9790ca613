//! 5 — push. The loop that claims what is due, sends it and settles what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::DeskName;

/// What the relay needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[sync] enabled`: false pushes nothing.
    pub enabled: bool,
    /// `[sync] interval`, at least 5 min.
    pub interval: Duration,
    /// Limits by destination.
    pub desks: BTreeMap<DeskName, Limits>,
}

/// The operator's own ceilings for one destination.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `requests_per_hour`, at least 1.
    pub requests_per_hour: u32,
    /// `max_in_flight`, 1 to 16.
    pub max_in_flight: usize,
}
