//! How many requests at once a destination bears, and how many deliveries are claimed together.
//!
//! Both are learned from what went before and live in memory: a restart begins with as many at once as the operator
//! allows, and with a small group.

use std::time::Duration;

use tokio::time::Instant;

use crate::destination::FIND_MAX;

/// Most deliveries that are claimed and settled together. Each of the two is a transaction with a few pages of its own, so
/// more of them cost less flash each; what is claimed when the power goes has to be looked up again.
pub(super) const GROUP_MAX: usize = 8 * FIND_MAX;
/// A group is as large as goes in this time: what is more severe waits no longer, and the numbers in `status` move. Where
/// 320 go in less, nothing is lost; where they take longer, so do the transactions come seldom.
const GROUP_TIME: Duration = Duration::from_secs(8);
/// A group that turns out slower than those before it is cut off after this, between two look-ups.
pub(super) const GROUP_TIME_MAX: Duration = Duration::from_secs(20);
/// So long a number of requests at once that was refused is not tried again; then twice as long each time.
const REFUSED: Duration = Duration::from_hours(1);
const REFUSED_MAX: Duration = Duration::from_hours(24);

/// What was learned of one destination.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many at once; `None`: as many as may.
    at_once: Option<usize>,
    refused: Option<Refused>,
    /// How long one delivery took in the last group that says something.
    each: Option<Duration>,
    /// Some fail: whose trouble it is shows only in a large group.
    wide: bool,
}

/// So many at once were too many.
#[derive(Clone, Copy, Debug)]
struct Refused {
    at_once: usize,
    until: Instant,
    times: u32,
}

impl Pace {
    /// How many at once, of so many that may.
    pub(super) fn at_once(&self, most: usize) -> usize {
        let most = most.max(1);
        self.at_once.map_or(most, |found| found.clamp(1, most))
    }

    /// So many were refused for being too many: how many it is from now on, and for how long no more.
    pub(super) fn crowded(&mut self, at_once: usize, now: Instant) -> (usize, Duration) {
        let next = (at_once / 2).max(1);
        // One that is known to be too many is said again when it was tried again; half of it is news.
        let before = self.refused.filter(|refused| refused.at_once <= at_once && refused.until <= now);
        let times = before.map_or(1, |refused| refused.times.saturating_add(1));
        let wait = REFUSED.saturating_mul(1 << (times - 1).min(8)).min(REFUSED_MAX);
        self.refused = Some(Refused { at_once, until: now + wait, times });
        self.at_once = Some(next);
        (next, wait)
    }

    /// A whole group went through: one more may be tried, unless that was refused not long ago.
    pub(super) fn went_well(&mut self, most: usize, now: Instant) {
        let next = (self.at_once(most) + 1).min(most.max(1));
        if !self.refused.is_some_and(|refused| next >= refused.at_once && now < refused.until) {
            self.at_once = Some(next);
        }
    }

    /// So many were sent, and took so long.
    pub(super) fn took(&mut self, deliveries: usize, time: Duration) {
        // A few say little of many: the look-up is the same for forty.
        if deliveries >= FIND_MAX / 2 {
            self.each = Some(time / u32::try_from(deliveries).unwrap_or(u32::MAX));
        }
    }

    /// Whether a suspicion has to be settled by a larger group, and whether any failed: while some do, groups stay large.
    pub(super) fn failed(&mut self, undecided: bool, any: bool) {
        self.wide = undecided || self.wide && any;
    }

    /// How many to claim: whole look-ups.
    pub(super) fn group(&self) -> usize {
        if self.wide {
            return GROUP_MAX;
        }
        let Some(each) = self.each else { return FIND_MAX };
        let fit = GROUP_TIME.as_nanos().checked_div(each.as_nanos()).unwrap_or(u128::MAX);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX).clamp(FIND_MAX, GROUP_MAX);
        fit / FIND_MAX * FIND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn halves_what_was_refused_and_comes_back_to_less_than_that() {
        let (now, mut pace) = (Instant::now(), Pace::default());
        assert_eq!(pace.at_once(16), 16);
        assert_eq!(pace.crowded(16, now), (8, HOUR));
        assert_eq!(pace.crowded(8, now), (4, HOUR), "half of it is news, and no second time");
        for _ in 0..10 {
            pace.went_well(16, now + HOUR / 2);
        }
        assert_eq!(pace.at_once(16), 7);
        pace.went_well(16, now + HOUR);
        assert_eq!(pace.at_once(16), 8);
        assert_eq!(pace.crowded(8, now + HOUR), (4, HOUR * 2));
        pace.went_well(16, now + HOUR * 2);
        assert_eq!(pace.at_once(16), 5);
        assert_eq!(pace.at_once(2), 2, "never above what the operator allows");
        assert_eq!(pace.at_once(0), 1);
    }

    #[test]
    fn one_is_never_refused_for_good_and_no_wait_is_above_a_day() {
        let (mut now, mut pace) = (Instant::now(), Pace::default());
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            assert_eq!(pace.crowded(2, now), (1, HOUR * hours));
            pace.went_well(2, now);
            assert_eq!(pace.at_once(2), 1);
            now += HOUR * hours;
            pace.went_well(2, now);
            assert_eq!(pace.at_once(2), 2);
        }
    }

    #[test]
    fn a_group_is_what_goes_in_eight_seconds() {
        let check = |deliveries, millis, group| {
            let mut pace = Pace::default();
            pace.took(deliveries, Duration::from_millis(millis));
            assert_eq!(pace.group(), group, "{deliveries} in {millis} ms");
        };
        assert_eq!(Pace::default().group(), 40);
        check(40, 6_300, 40);
        check(40, 3_000, 80);
        check(40, 600, 320);
        check(320, 0, 320);
        check(40, 600_000, 40);
        check(1, 1, 40);
    }

    #[test]
    fn a_group_is_large_while_some_fail() {
        let mut pace = Pace::default();
        let groups = [(false, true, 40), (true, true, 320), (false, true, 320), (false, false, 40)];
        for (undecided, any, group) in groups {
            pace.failed(undecided, any);
            assert_eq!(pace.group(), group);
        }
    }
}
