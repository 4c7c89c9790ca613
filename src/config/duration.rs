//! `60m`, `24h`, `7d`, `250ms`, `1h30m`, `0s`: text to [`Duration`], and back for `otrelay config show`.

use std::fmt::Write as _;
use std::time::Duration;

/// Ten years: beyond it a slip is likelier than an intention, and dates would leave what the receivers can write.
const MAX: Duration = Duration::from_hours(3650 * 24);

const UNITS: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

pub(super) const EXPECTED: &str = "a duration such as \"60m\", \"24h\", \"7d\", \"1h30m\" or \"250ms\"";

/// Reads a duration; the error says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("empty");
    }
    let mut total: u64 = 0;
    let mut last = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits == 0 {
            return Err("a number is missing before the unit");
        }
        let number: u64 = rest[..digits].parse().map_err(|_| "the number is too large")?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_alphabetic()).len();
        if letters == 0 {
            return Err("the unit is missing (d, h, m, s or ms)");
        }
        let (_, ms) = UNITS
            .iter()
            .find(|(unit, _)| *unit == &rest[..letters])
            .ok_or("the unit is none of d, h, m, s, ms")?;
        if *ms >= last {
            return Err("units have to go from large to small, each once");
        }
        last = *ms;
        total = number.checked_mul(*ms).and_then(|n| n.checked_add(total)).ok_or("longer than 3650d")?;
        rest = rest[letters..].trim_start();
    }
    let duration = Duration::from_millis(total);
    if duration > MAX { Err("longer than 3650d") } else { Ok(duration) }
}

/// The shortest text that [`parse`] reads as `duration`; one unit where it can be.
pub(super) fn format(duration: Duration) -> String {
    let mut left = duration.as_millis() as u64;
    if left == 0 {
        return "0s".to_owned();
    }
    if let Some((unit, ms)) = UNITS.iter().find(|(_, ms)| left.is_multiple_of(*ms)) {
        return format!("{}{unit}", left / ms);
    }
    let mut text = String::new();
    for (unit, ms) in UNITS {
        if left >= *ms {
            let _ = write!(text, "{}{unit}", left / ms);
            left %= ms;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, ms) in [
            ("60m", 3_600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("0s", 0),
            (" 5m ", 300_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, wrong) in [
            ("", "empty"),
            ("60", "the unit is missing (d, h, m, s or ms)"),
            ("m", "a number is missing before the unit"),
            ("-5m", "a number is missing before the unit"),
            ("1.5h", "the unit is missing (d, h, m, s or ms)"),
            ("5 min", "the unit is none of d, h, m, s, ms"),
            ("30m1h", "units have to go from large to small, each once"),
            ("1h1h", "units have to go from large to small, each once"),
            ("9999999d", "longer than 3650d"),
            ("99999999999999999999s", "the number is too large"),
            ("18446744073709551615d", "longer than 3650d"),
            ("1é", "the unit is none of d, h, m, s, ms"),
        ] {
            assert_eq!(parse(text), Err(wrong), "{text}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["60m", "1h30m", "250ms", "7d", "1d1ms", "0s", "90s"] {
            let duration = parse(text).unwrap();
            assert_eq!(parse(&format(duration)), Ok(duration), "{text}");
        }
        assert_eq!(format(Duration::from_hours(1)), "1h");
        assert_eq!(format(Duration::from_mins(90)), "90m");
    }
}
