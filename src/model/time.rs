//! One instant on the wall clock. Alerts, rows and requests use this type and no other.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// An instant in UTC, in microseconds since 1970 (EVE writes microseconds). Any value is fine: a sensor without a
/// clock battery writes 1970, and that has to be carried, not refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Years 0001 to 9999, what jiff and every receiver can write.
const MIN_US: i64 = -62_135_596_800_000_000;
const MAX_US: i64 = 253_402_207_200_000_000;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From microseconds since 1970; clamped to the years 0001 to 9999.
    pub const fn from_micros(micros: i64) -> Self {
        if micros < MIN_US {
            Self(MIN_US)
        } else if micros > MAX_US {
            Self(MAX_US)
        } else {
            Self(micros)
        }
    }

    /// From whole seconds since 1970.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// This instant plus `d`, clamped.
    #[must_use]
    pub fn after(self, d: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(d)))
    }

    /// This instant minus `d`, clamped.
    #[must_use]
    pub fn before(self, d: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(micros(d)))
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// `2026-11-21 08:15:00`: how ServiceNow writes and reads a date-time (UTC, no zone).
    pub fn servicenow(self) -> String {
        self.civil().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The inverse of [`Self::servicenow`]; `None` for anything else.
    pub fn from_servicenow(text: &str) -> Option<Self> {
        let time = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text.trim()).ok()?;
        let instant = jiff::tz::Offset::UTC.to_timestamp(time).ok()?;
        Some(Self::from_micros(instant.as_microsecond()))
    }

    fn civil(self) -> jiff::civil::DateTime {
        let instant = jiff::Timestamp::from_microsecond(self.0).unwrap_or_default();
        jiff::tz::Offset::UTC.to_datetime(instant)
    }
}

thread_local! {
    /// Whether times are serialised as text.
    static AS_TEXT: Cell<bool> = const { Cell::new(false) };
}

/// Times that are serialised while `work` runs are RFC 3339, for people and their programs. Elsewhere they are
/// microseconds: shorter on disk and on the control socket.
pub fn as_text<T>(work: impl FnOnce() -> T) -> T {
    let before = AS_TEXT.replace(true);
    let done = work();
    AS_TEXT.set(before);
    done
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if AS_TEXT.get() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// `2026-11-21T08:15:00Z`, with the fraction only where there is one.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = jiff::Timestamp::from_microsecond(self.0).unwrap_or_default();
        write!(f, "{instant}")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `3 min`, `2 h`, `5 d`: one unit is enough to act on.
pub fn span(d: Duration) -> String {
    match d.as_secs() {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7_199 => format!("{} min", s / 60),
        s @ 7_200..=172_799 => format!("{} h", s / 3_600),
        s => format!("{} d", s / 86_400),
    }
}

/// `3 min ago`, or `in 3 min`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("in {}", span(at.since(now))) } else { format!("{} ago", span(now.since(at))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_both_forms() {
        let t = Timestamp::from_secs(1_795_248_900);
        assert_eq!(t.to_string(), "2026-11-21T08:15:00Z");
        assert_eq!(t.servicenow(), "2026-11-21 08:15:00");
        assert_eq!(Timestamp::from_servicenow("2026-11-21 08:15:00"), Some(t));
        assert_eq!(Timestamp::from_servicenow("2026-11-21"), None);
        assert_eq!(Timestamp::from_servicenow(""), None);
        assert_eq!(Timestamp::from_micros(1_500_000).to_string(), "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn is_text_for_people_and_a_number_elsewhere() {
        let t = Timestamp::from_secs(1_795_248_900);
        assert_eq!(as_text(|| serde_json::to_string(&t)).unwrap(), "\"2026-11-21T08:15:00Z\"");
        assert_eq!(serde_json::to_string(&t).unwrap(), "1795248900000000");
    }

    #[test]
    fn clamps_instead_of_overflowing() {
        let far = Timestamp::from_micros(i64::MAX);
        assert_eq!(far.after(Duration::MAX), far);
        assert!(far.to_string().starts_with("9999-12-30"));
        assert!(Timestamp::from_micros(i64::MIN).servicenow().starts_with("0001-01-01"));
        assert_eq!(Timestamp::EPOCH.since(far), Duration::ZERO);
    }
}
