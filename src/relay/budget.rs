//! Pure: the hourly allowance of requests, with a tenth of it kept for critical alerts.

use std::time::Duration;

use crate::model::{Severity, Timestamp};
use crate::store::Spent;
use crate::store::op::destination_state::{DestinationChange, DestinationState};

const HOUR: Duration = Duration::from_hours(1);
/// Requests that a delivery may take: it is looked up, then sent.
const DELIVERY: u32 = 2;

/// Requests of one destination in the present hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Requests per hour, at least 1.
    pub(super) limit: u32,
    /// When the hour began.
    pub(super) started_at: Timestamp,
    /// Requests in it.
    pub(super) used: u32,
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// So many requests, for alerts of this severity and higher.
    Requests(u32, Severity),
    /// None before this time.
    NotBefore(Timestamp),
}

impl Budget {
    /// As the store has it.
    pub(super) fn of(limit: u32, state: &DestinationState) -> Self {
        Self { limit, started_at: state.window_started_at, used: state.window_used }
    }

    /// As it is to be stored.
    pub(super) fn change(&self) -> DestinationChange {
        DestinationChange::Budget { window_started_at: self.started_at, window_used: self.used }
    }

    /// Begins a new hour when the last is over. A clock that was set back begins one too, but forgives nothing.
    pub(super) fn roll(&mut self, now: Timestamp) {
        if now >= self.started_at.after(HOUR) {
            (self.started_at, self.used) = (now, 0);
        } else if now < self.started_at {
            self.started_at = now;
        }
    }

    /// Takes what the other side said about its own limit into account: we stay a twentieth below it.
    pub(super) fn heed(&mut self, theirs: Option<u32>) {
        if let Some(theirs) = theirs {
            self.limit = self.limit.min(below(theirs));
        }
    }

    /// What that leaves of an hour with so many requests in it: the other side may tell its limit in the middle of a group.
    pub(super) fn told(theirs: Option<u32>, used: u32) -> u32 {
        let least = if used == 0 { DELIVERY } else { 0 };
        theirs.map_or(u32::MAX, |theirs| below(theirs).saturating_sub(used).max(least))
    }

    /// What may be sent at `now`. Call [`Self::roll`] first.
    pub(super) fn allowance(&self) -> Allowance {
        let left = self.limit.saturating_sub(self.used);
        let reserve = self.reserve();
        if left >= reserve + DELIVERY {
            Allowance::Requests(left - reserve, Severity::Warning)
        } else if left >= DELIVERY {
            Allowance::Requests(left, Severity::Critical)
        } else if self.used == 0 {
            // A limit of 1: less than a delivery an hour would be nothing for ever.
            Allowance::Requests(DELIVERY, Severity::Warning)
        } else {
            Allowance::NotBefore(self.ends_at())
        }
    }

    /// What is kept for critical alerts.
    fn reserve(&self) -> u32 {
        if self.limit < 10 { 0 } else { (self.limit / 10).max(DELIVERY) }
    }

    /// How many of them reading back may make now. Call [`Self::roll`] first.
    ///
    /// What is kept for critical alerts is not for that. Of the rest it has the first half, or the first quarter while
    /// deliveries are due, whoever used it up: were it a part of what is left, one sync after the other would leave nothing
    /// to an alert that comes late in the hour. What is not read then is read in the next hour.
    pub(super) fn for_reading(&self, deliveries_are_due: bool) -> u32 {
        let Allowance::Requests(left, Severity::Warning) = self.allowance() else { return 0 };
        let rest = self.limit.saturating_sub(self.reserve());
        if deliveries_are_due {
            (rest / 4).saturating_sub(self.used).min(left.saturating_sub(DELIVERY))
        } else {
            (rest / 2).max(1).saturating_sub(self.used).min(left)
        }
    }

    /// Why tickets were not all read back, and when they will be; `own` is the value of the key.
    pub(super) fn unread(&self, own: u32) -> String {
        let whose = if self.limit < own { "the instance allows" } else { "`requests_per_hour` allows" };
        format!(
            "{} of the {} requests that {whose} were made in this hour, and reading back has the first half of them (a \
             quarter while deliveries are due); `otrelay sync` reads the rest from {} UTC on",
            self.used,
            self.limit,
            self.ends_at().servicenow()
        )
    }

    /// What of it makes things wait, with the key that changes it; `own` is the key's value.
    pub(super) fn words(&self, own: u32) -> String {
        let limit = if self.limit < own {
            format!("the instance allows {} requests an hour", self.limit)
        } else {
            format!("`requests_per_hour = {own}`")
        };
        let kept = match self.allowance() {
            Allowance::Requests(left, Severity::Critical) => {
                format!(", and the last {left} are kept for critical alerts")
            }
            _ => String::new(),
        };
        let until = self.ends_at().servicenow();
        format!("{limit}: {} were made in this hour{kept}; the rest goes on at {until} UTC", self.used)
    }

    /// The same, to be kept and shown.
    pub(super) fn spent(&self, own: u32) -> Spent {
        Spent {
            reason: self.words(own),
            until_at: self.ends_at(),
            critical_go_on: matches!(self.allowance(), Allowance::Requests(_, Severity::Critical)),
            per_hour: 0,
        }
    }

    /// Deliveries that a whole hour carries, where so many requests carried so many; 0 when that says nothing.
    pub(super) fn carries(&self, delivered: u64, requests: u64) -> u32 {
        // A few requests, as for one critical alert, say little of a backlog.
        if requests < u64::from(self.limit / 2).min(20) {
            return 0;
        }
        // What is kept for critical alerts counts where they had it.
        let usual = u64::from(self.limit.saturating_sub(self.reserve()));
        let hour = requests.min(u64::from(self.limit)).max(usual);
        let carries = hour.saturating_mul(delivered).checked_div(requests).unwrap_or(0);
        u32::try_from(carries).unwrap_or(u32::MAX)
    }

    /// When the hour is over.
    pub(super) fn ends_at(&self) -> Timestamp {
        self.started_at.after(HOUR)
    }

    /// Counts requests that were made.
    pub(super) fn spend(&mut self, requests: u32) {
        self.used = self.used.saturating_add(requests);
    }
}

fn below(theirs: u32) -> u32 {
    (theirs - theirs / 20).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limit: u32, used: u32) -> Budget {
        Budget { limit, started_at: Timestamp::from_secs(1_000), used }
    }

    #[test]
    fn keeps_a_tenth_for_critical_alerts() {
        assert_eq!(budget(1_000, 0).allowance(), Allowance::Requests(900, Severity::Warning));
        assert_eq!(budget(1_000, 898).allowance(), Allowance::Requests(2, Severity::Warning));
        assert_eq!(budget(1_000, 899).allowance(), Allowance::Requests(101, Severity::Critical));
        assert_eq!(budget(1_000, 900).allowance(), Allowance::Requests(100, Severity::Critical));
        assert_eq!(budget(1_000, 1_000).allowance(), Allowance::NotBefore(Timestamp::from_secs(4_600)));
        assert_eq!(budget(1_000, 999).allowance(), Allowance::NotBefore(Timestamp::from_secs(4_600)));
        assert_eq!(budget(2, 0).allowance(), Allowance::Requests(2, Severity::Warning));
        assert_eq!(budget(1, 0).allowance(), Allowance::Requests(2, Severity::Warning));
        assert_eq!(budget(1, 2).allowance(), Allowance::NotBefore(Timestamp::from_secs(4_600)));
    }

    #[test]
    fn reading_back_has_the_first_half_and_a_quarter_while_deliveries_are_due() {
        let check = |limit, used, idle, due| {
            let b = budget(limit, used);
            assert_eq!((b.for_reading(false), b.for_reading(true)), (idle, due), "{used} of {limit}");
        };
        check(1_000, 0, 450, 225);
        check(1_000, 225, 225, 0);
        check(1_000, 450, 0, 0);
        // Only what is kept for critical alerts is left, or nothing.
        check(40, 36, 0, 0);
        check(40, 40, 0, 0);
        // A delivery is always left room for, and where nothing is due something is read.
        check(12, 0, 5, 2);
        check(4, 0, 2, 1);
        check(2, 0, 1, 0);
        check(1, 0, 1, 0);
        check(1, 1, 0, 0);
    }

    #[test]
    fn a_new_hour_begins_and_a_clock_set_back_forgives_nothing() {
        let mut b = budget(10, 10);
        b.roll(Timestamp::from_secs(4_599));
        assert_eq!(b.used, 10);
        b.roll(Timestamp::from_secs(10));
        assert_eq!((b.used, b.started_at), (10, Timestamp::from_secs(10)));
        b.roll(Timestamp::from_secs(3_610));
        assert_eq!(b.used, 0);
    }

    #[test]
    fn says_what_makes_things_wait_and_which_key_changes_it() {
        let all = "`requests_per_hour = 1000`: 1000 were made in this hour; the rest goes on at 1970-01-01 01:16:40 UTC";
        assert_eq!(budget(1_000, 1_000).words(1_000), all);
        let kept = "`requests_per_hour = 1000`: 900 were made in this hour, and the last 100 are kept for critical \
                    alerts; the rest goes on at 1970-01-01 01:16:40 UTC";
        assert_eq!(budget(1_000, 900).words(1_000), kept);
        assert!(budget(95, 95).words(1_000).starts_with("the instance allows 95 requests an hour: 95 were"));
    }

    #[test]
    fn tells_how_many_deliveries_an_hour_carries() {
        let b = budget(60, 54);
        assert_eq!((b.carries(43, 54), b.carries(43, 60), b.carries(10, 20)), (43, 43, 27));
        assert_eq!((b.carries(0, 54), b.carries(0, 0), b.carries(u64::MAX, 30)), (0, 0, u32::MAX));
        assert_eq!(b.carries(1, 3), 0, "one critical alert says little of a backlog");
    }

    #[test]
    fn stays_below_their_limit() {
        let mut b = budget(1_000, 0);
        b.heed(Some(100));
        assert_eq!(b.limit, 95);
        b.heed(Some(500));
        assert_eq!(b.limit, 95);
        b.heed(Some(0));
        assert_eq!(b.limit, 1);
    }
}
