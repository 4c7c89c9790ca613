//! What was opened lately: what `op/storm` goes by. In memory, bounded, made again after a start. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// So long ago tickets were opened that count.
pub(super) const HOUR: Duration = Duration::from_hours(1);
/// Kinds that are remembered of a rule; one beyond them is a new kind again.
const KINDS_MAX: usize = 4_096;
/// Most times that are remembered of a rule.
const TIMES_MAX: usize = 65_536;

/// What was opened lately, by rule and table.
#[derive(Default)]
pub(super) struct Storms(pub(super) Option<HashMap<(String, i64), Lately>>);

/// Of one rule and table.
#[derive(Default)]
pub(super) struct Lately {
    /// When tickets were opened, oldest first.
    pub(super) at: VecDeque<i64>,
    pub(super) kinds: HashMap<u64, Kind>,
}

/// Of one kind.
pub(super) struct Kind {
    /// When it was last seen new.
    pub(super) at: i64,
    /// What stands for what is too much.
    pub(super) parent: Option<i64>,
}

/// Titles are what outsiders choose; a number of fixed size is kept of them.
pub(super) fn kind_of(kind: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, kind.as_bytes());
    digest.as_ref()[..8].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
}

impl Lately {
    /// Forgets what is longer ago than an hour.
    pub(super) fn roll(&mut self, now: i64) {
        let since = now.saturating_sub(HOUR.as_micros() as i64);
        // A clock that was set back leaves times that are still to come: they count for nothing.
        self.at.retain(|at| *at > since && *at <= now);
        self.kinds.retain(|_, kind| kind.at > since && kind.at <= now);
    }

    /// A ticket is opened.
    pub(super) fn opened(&mut self, kind: u64, at: i64) {
        if self.at.len() < TIMES_MAX {
            self.at.push_back(at);
        }
        if self.kinds.len() < KINDS_MAX || self.kinds.contains_key(&kind) {
            self.kinds.entry(kind).or_insert(Kind { at, parent: None }).at = at;
        }
    }
}
