//! Pure: is the service alive? From what its loops showed at two looks to who is stuck, and when to look again.
//!
//! Stuck is who owes a result and has not moved for longer than one piece of its work may take. A full disk, a busy
//! database or a slow other side is none of that: those who wait for it rest, or move at each try.

use std::collections::HashMap;
use std::time::Duration;

use crate::heartbeat::Look;

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By loop: its beats, and when they were first seen.
    seen: HashMap<String, (u64, Duration)>,
}

/// What a look came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Loops that are stuck, with the time since they last moved.
    pub(super) stuck: Vec<(String, Duration)>,
    pub(super) again: Duration,
}

impl Watch {
    /// Judges. `now` is monotonic; `limit` is the time after which systemd kills a service that it does not hear of.
    pub(super) fn judge(&mut self, looks: &[Look], now: Duration, limit: Duration) -> Verdict {
        self.seen.retain(|name, _| looks.iter().any(|look| look.name == *name));
        let mut stuck = Vec::new();
        for look in looks {
            let seen = self.seen.entry(look.name.clone()).or_insert((look.beats, now));
            if seen.0 != look.beats || !look.busy {
                *seen = (look.beats, now);
            }
            let still = now.saturating_sub(seen.1);
            if still > look.allowance {
                stuck.push((look.name.clone(), still));
            }
        }
        // Half is what sd_watchdog_enabled(3) asks for. Once somebody is stuck it is looked for more often: whoever
        // moves again has to be heard of before the limit.
        let again = if stuck.is_empty() { limit / 2 } else { limit / 8 };
        Verdict { stuck, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn look(name: &str, beats: u64, busy: bool, allowance: u64) -> Look {
        Look { name: name.to_owned(), beats, busy, allowance: Duration::from_secs(allowance) }
    }

    fn stuck(watch: &mut Watch, looks: &[Look], now: u64) -> Vec<String> {
        let verdict = watch.judge(looks, Duration::from_secs(now), MINUTE);
        assert_eq!(verdict.again, if verdict.stuck.is_empty() { MINUTE / 2 } else { MINUTE / 8 });
        verdict.stuck.into_iter().map(|(name, still)| format!("{name} {}", still.as_secs())).collect()
    }

    #[test]
    fn who_rests_is_never_stuck() {
        let mut watch = Watch::default();
        for now in [0, 30, 100_000] {
            assert!(stuck(&mut watch, &[look("source", 1, false, 0)], now).is_empty());
        }
        // The time that it rested does not count once it works.
        assert!(stuck(&mut watch, &[look("source", 1, true, 10)], 100_005).is_empty());
    }

    #[test]
    fn who_works_and_moves_is_not_stuck_however_long_it_takes() {
        let mut watch = Watch::default();
        for i in 0..1_000 {
            assert!(stuck(&mut watch, &[look("intake", i, true, 20)], i * 30).is_empty());
        }
    }

    #[test]
    fn who_works_and_does_not_move_is_stuck_after_its_allowance() {
        let mut watch = Watch::default();
        let other = look("relay", 7, true, 600);
        let mut at = |beats, now| stuck(&mut watch, &[look("store", beats, true, 20), other.clone()], now);
        assert!(at(5, 0).is_empty());
        assert_eq!(at(5, 30), ["store 30"]);
        assert_eq!(at(5, 37), ["store 37"]);
        assert!(at(6, 45).is_empty());
        assert!(at(6, 65).is_empty());
        assert_eq!(at(6, 66), ["store 21"]);
        assert_eq!(at(7, 601), ["relay 601"]);
    }

    #[test]
    fn a_loop_that_began_again_is_looked_at_afresh() {
        let mut watch = Watch::default();
        assert!(stuck(&mut watch, &[look("relay", 3, true, 20)], 0).is_empty());
        assert!(stuck(&mut watch, &[], 30).is_empty());
        assert!(stuck(&mut watch, &[look("relay", 3, true, 20)], 60).is_empty());
    }
}
