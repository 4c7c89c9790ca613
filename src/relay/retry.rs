//! Pure: what failed, how often, and what the other side said, to when it is tried again.

use std::time::Duration;

/// First wait after a failure.
const FIRST: Duration = Duration::from_secs(30);
/// Longest wait while a failure may still be passing.
const CAP: Duration = Duration::from_mins(5);
/// After so many attempts it is not passing: once an hour is enough.
const PATIENT: u32 = 10;
const SLOW: Duration = Duration::from_hours(1);
/// A destination on hold (credentials refused, hibernating) is asked again after this, doubling up to [`SLOW`]. Users get
/// locked out by impatient agents.
const HOLD_FIRST: Duration = Duration::from_mins(5);
/// Whatever the other side says, we ask again within the hour: its limits are by the hour, and what a proxy says may be
/// anything.
const TOLD_MAX: Duration = Duration::from_hours(1);
/// First wait when the other side says less than this; it doubles when the other side says so again.
const TOLD_MIN: Duration = Duration::from_secs(5);

/// Wait before attempt `attempts + 1`, with `jitter` in 0..1 spreading it by a fifth to each side.
pub(super) fn backoff(attempts: u32, jitter: f64) -> Duration {
    if attempts > PATIENT {
        return spread(SLOW, jitter);
    }
    spread(FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(CAP), jitter)
}

/// Wait before a destination that failed `failures` times in a row is probed. However long it is away, it is noticed
/// soon when it is back: a probe is one delivery.
pub(super) fn pause(failures: u32, jitter: f64) -> Duration {
    backoff(failures.min(PATIENT), jitter)
}

/// Wait before a destination on hold is asked for the `tries + 1`th time.
pub(super) fn hold(tries: u32, jitter: f64) -> Duration {
    spread(HOLD_FIRST.saturating_mul(1 << tries.saturating_sub(1).min(8)).min(SLOW), jitter)
}

/// Wait that the other side asked for, at most an hour; short ones grow when they are told again and again.
pub(super) fn told(wait: Option<Duration>, attempts: u32, jitter: f64) -> Duration {
    match wait {
        Some(wait) => {
            let least = TOLD_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(CAP);
            wait.max(least).min(TOLD_MAX)
        }
        None => backoff(attempts, jitter),
    }
}

fn spread(d: Duration, jitter: f64) -> Duration {
    d.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(attempts: u32, seconds: u64) {
        assert_eq!(backoff(attempts, 0.5), Duration::from_secs(seconds), "after {attempts}");
    }

    #[test]
    fn backs_off_to_five_minutes_and_then_to_an_hour() {
        check(1, 30);
        check(2, 60);
        check(4, 240);
        check(5, 300);
        check(10, 300);
        check(11, 3_600);
        check(u32::MAX, 3_600);
        assert_eq!(pause(u32::MAX, 0.5), Duration::from_secs(300));
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        for jitter in [-1.0, 0.0, 0.3, 1.0, 7.0] {
            let d = backoff(1, jitter).as_secs_f64();
            assert!((24.0..=36.0).contains(&d), "{d}");
        }
    }

    #[test]
    fn does_not_hurry_what_it_was_told() {
        assert_eq!(told(Some(Duration::from_secs(1_234)), 1, 0.0), Duration::from_secs(1_234));
        assert_eq!(told(Some(Duration::MAX), 1, 0.0), TOLD_MAX);
        assert_eq!(told(Some(Duration::from_secs(9_999_999)), 1, 0.0), Duration::from_hours(1));
        assert_eq!(told(Some(Duration::from_secs(1)), 1, 0.0), Duration::from_secs(5));
        assert_eq!(told(Some(Duration::from_secs(1)), 4, 0.0), Duration::from_secs(40));
        assert_eq!(told(Some(Duration::from_secs(1)), u32::MAX, 0.0), Duration::from_mins(5));
        assert_eq!(hold(1, 0.5), Duration::from_mins(5));
        assert_eq!(hold(9, 0.5), Duration::from_hours(1));
    }
}
