//! What was learned of the instance and holds for a while: the APIs it does not have, and who else tells of its devices.
//!
//! `relay` keeps it in the store and gives it back at a start, so that `run --once` from a timer does not find it out anew each
//! time. Everything has an end, after which the instance is asked again: what an administrator mends is found a day later,
//! or at once when the instance's build changes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::call::ServiceNow;
use crate::destination::Learned;
use crate::model::{SysId, Timestamp};

/// How long the instance is not asked again.
const BELIEVED: Duration = Duration::from_hours(24);
/// When it was last looked for others.
const LOOKED: &str = "others-looked-at";
/// Before the name of another data source; the value is one of the CIs.
const OTHER: &str = "other ";
/// Others that are remembered.
pub(super) const OTHERS_MAX: usize = 8;

/// Something that the instance does not have: until when, in seconds of the clock; 0: it may have it.
#[derive(Debug, Default)]
pub(super) struct Absent(AtomicU64);

impl Absent {
    /// Whether it is known to be absent.
    pub(super) fn is_so(&self, now: Timestamp) -> bool {
        let until = self.0.load(Ordering::Relaxed);
        // An end further off than a day means that the clock was set back.
        seconds(now) < until && until <= seconds(now.after(BELIEVED))
    }

    /// The instance has just said so.
    pub(super) fn learn(&self, now: Timestamp) {
        self.0.store(seconds(now.after(BELIEVED)), Ordering::Relaxed);
    }

    /// It may have it now.
    pub(super) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

pub(super) fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_secs()).unwrap_or_default()
}

impl ServiceNow {
    /// All that may be absent, each with its name in the store.
    pub(super) fn absent(&self) -> [(&'static str, &Absent); 3] {
        [
            ("no-batches-until", &self.batching.refused),
            ("no-enhanced-identification-until", &self.plain_identify),
            ("no-change-api-until", &self.no_change_api),
        ]
    }

    /// What is known, as it is kept.
    pub(super) fn what_is_learned(&self) -> Learned {
        let now = self.now();
        let mut learned = Learned::new();
        for (name, absent) in self.absent().into_iter().filter(|(_, absent)| absent.is_so(now)) {
            learned.insert(name.to_owned(), absent.0.load(Ordering::Relaxed).to_string());
        }
        let looked = self.others.looked_at.load(Ordering::Relaxed);
        if looked > 0 {
            learned.insert(LOOKED.to_owned(), looked.to_string());
        }
        let names = self.others.names();
        for (name, ci) in names.iter() {
            learned.insert(format!("{OTHER}{name}"), ci.clone());
        }
        learned
    }

    /// Takes back what was kept; a value that is not as it should be says nothing.
    pub(super) fn recall_learned(&self, learned: &Learned) {
        let number = |name: &str| learned.get(name).and_then(|text| text.parse::<u64>().ok());
        for (name, absent) in self.absent() {
            if let Some(until) = number(name) {
                absent.0.store(until, Ordering::Relaxed);
            }
        }
        if let Some(at) = number(LOOKED) {
            self.others.looked_at.store(at, Ordering::Relaxed);
        }
        let kept = learned.iter().filter_map(|(name, ci)| {
            let ci = SysId::new(ci).ok()?;
            Some((name.strip_prefix(OTHER)?.to_owned(), ci.as_str().to_owned()))
        });
        let mut names = self.others.names();
        names.extend(kept.take(OTHERS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_is_so_for_a_day_and_no_longer_when_the_clock_was_set_back() {
        let now = Timestamp::from_secs(1_795_248_900);
        let absent = Absent::default();
        assert!(!absent.is_so(now));
        absent.learn(now);
        assert!(absent.is_so(now) && absent.is_so(now.after(Duration::from_hours(23))));
        assert!(!absent.is_so(now.after(BELIEVED)), "then it is asked again");
        assert!(!absent.is_so(Timestamp::from_secs(1_700_000_000)), "the clock was set back");
        absent.forget();
        assert!(!absent.is_so(now));
    }
}
