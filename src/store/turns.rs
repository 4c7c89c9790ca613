//! Whose turn it is among what waits of one table and severity: what `op/turn` goes by. Pure, in memory, bounded.
//!
//! Findings of one signature of one rule on one target stand behind each other, a turn each, so twenty thousand forged
//! sources delay nobody else by more than a turn at a time. Forged targets do not help either: of one signature at
//! most [`TARGETS`] targets share a turn. Who comes new begins at the turn that is being served.
//!
//! A delivery keeps the turn that it was given, on disk. What is here may be forgotten at any time: who had turns far
//! behind then gets one more in front, and no more.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::model::Endpoint;

/// Targets of one signature that share a turn.
const TARGETS: i64 = 16;
/// Targets, and signatures, that are remembered of one table and severity.
const GROUPS_MAX: usize = 4_096;

/// What is told in turns.
#[derive(Clone, Copy)]
pub(super) enum Told<'a> {
    /// A finding, by what was seen and on what.
    Finding(&'a str, &'a Endpoint),
    /// Something later of what this number stands for.
    Later(i64),
}

/// The queues, by table and severity.
#[derive(Default)]
pub(super) struct Turns {
    queues: HashMap<(i64, i64), Queue>,
    /// Titles and addresses are what outsiders choose; numbers of fixed size are kept of them.
    hasher: RandomState,
}

struct Queue {
    /// The turn that is being served.
    now: i64,
    /// Targets that each signature has had, in turns of [`TARGETS`].
    signatures: HashMap<u64, i64>,
    /// The last turn of each target.
    targets: HashMap<u64, i64>,
}

impl Turns {
    /// The next turn of what a rule tells; `None`: it is not known yet which turn is being served.
    pub(super) fn next(&mut self, place: (i64, i64), rule: &str, told: Told<'_>) -> Option<i64> {
        let (signature, target) = match told {
            Told::Finding(kind, on) => {
                let signature = self.hasher.hash_one((rule, kind));
                (signature, self.hasher.hash_one((signature, on.ip, &on.mac, &on.name)))
            }
            Told::Later(of) => {
                let signature = self.hasher.hash_one((rule, 0));
                (signature, self.hasher.hash_one((signature, of)))
            }
        };
        self.queues.get_mut(&place).map(|queue| queue.next(signature, target))
    }

    /// Begins a queue at a turn.
    pub(super) fn begin(&mut self, place: (i64, i64), now: i64) {
        let queue = Queue { now, signatures: HashMap::new(), targets: HashMap::new() };
        self.queues.insert(place, queue);
    }

    /// How far behind the turn that is served one is.
    pub(super) fn behind(&self, place: (i64, i64), turn: i64) -> i64 {
        self.queues.get(&place).map_or(turn, |queue| turn.saturating_sub(queue.now))
    }

    /// This turn is served.
    pub(super) fn served(&mut self, place: (i64, i64), turn: i64) {
        if let Some(queue) = self.queues.get_mut(&place) {
            queue.now = queue.now.max(turn);
        }
    }

    /// Nothing of this table waits that is at least so severe: nobody stands behind anybody.
    pub(super) fn empty(&mut self, route: i64, min_severity: i64) {
        for ((of, severity), queue) in &mut self.queues {
            if *of == route && *severity >= min_severity {
                queue.signatures.clear();
                queue.targets.clear();
            }
        }
    }
}

impl Queue {
    fn next(&mut self, signature: u64, target: u64) -> i64 {
        if self.targets.len().max(self.signatures.len()) >= GROUPS_MAX {
            self.forget();
        }
        let turn = if let Some(last) = self.targets.get(&target) {
            last.saturating_add(1).max(self.now)
        } else {
            let first = self.now.saturating_mul(TARGETS);
            let place =
                self.signatures.get(&signature).map_or(first, |last| first.max(last.saturating_add(1)));
            self.signatures.insert(signature, place);
            place / TARGETS
        };
        self.targets.insert(target, turn);
        turn
    }

    /// Who is not ahead of the turn that is served needs no memory; when that is not enough, nobody has any.
    fn forget(&mut self) {
        let now = self.now;
        self.targets.retain(|_, last| *last > now);
        self.signatures.retain(|_, last| *last / TARGETS > now);
        if self.targets.len() > GROUPS_MAX / 2 {
            self.targets.clear();
        }
        if self.signatures.len() > GROUPS_MAX / 2 {
            self.signatures.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: (i64, i64) = (1, 3);

    fn turns() -> Turns {
        let mut turns = Turns::default();
        turns.begin(PLACE, 0);
        turns
    }

    fn on(n: u32) -> Endpoint {
        Endpoint { ip: Some(std::net::Ipv4Addr::from(n).into()), ..Endpoint::default() }
    }

    fn next(turns: &mut Turns, kind: &str, target: u32) -> i64 {
        turns.next(PLACE, "r", Told::Finding(kind, &on(target))).unwrap()
    }

    #[test]
    fn a_flood_stands_behind_itself_and_delays_nobody_else() {
        let mut turns = turns();
        assert_eq!(turns.next((2, 3), "r", Told::Later(1)), None, "a queue that has not begun");
        let flood: Vec<i64> = (0..20_000).map(|_| next(&mut turns, "flood", 1)).collect();
        assert_eq!(flood, (0..20_000).collect::<Vec<_>>());
        assert_eq!(next(&mut turns, "flood", 2), 0, "another target of the same signature");
        assert_eq!(next(&mut turns, "other", 1), 0);
        assert_eq!(turns.next(PLACE, "another rule", Told::Finding("flood", &on(1))), Some(0));
        turns.served(PLACE, 700);
        assert_eq!((next(&mut turns, "late", 1), next(&mut turns, "late", 1)), (700, 701));
        assert_eq!((turns.behind(PLACE, 705), next(&mut turns, "other", 1)), (5, 700));
    }

    #[test]
    fn forged_targets_share_the_turns_of_their_signature() {
        let mut turns = turns();
        let last = (0..20_000).map(|n| next(&mut turns, "flood", n)).max();
        assert_eq!(last, Some(20_000 / TARGETS - 1));
        assert_eq!(next(&mut turns, "other", 1), 0);
    }

    #[test]
    fn it_is_bounded_and_forgets_when_nothing_waits() {
        let mut turns = turns();
        for n in 0..50_000u32 {
            next(&mut turns, &n.to_string(), n);
        }
        let queue = &turns.queues[&PLACE];
        assert!(queue.targets.len() <= GROUPS_MAX && queue.signatures.len() <= GROUPS_MAX);
        next(&mut turns, "a", 1);
        assert_eq!(next(&mut turns, "a", 1), 1);
        turns.empty(PLACE.0, 3);
        assert_eq!(next(&mut turns, "a", 1), 0);
    }
}
