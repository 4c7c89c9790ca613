//! Suricata's timestamps: local time of the sensor with an offset that most date readers refuse
//! (`2023-09-18T06:13:41.532140+0000`), and the variations found in the field.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use crate::model::Timestamp;

/// Reads a timestamp; one without an offset is in `zone`. `None` when it is unreadable (`ts-error`). Beside Suricata's
/// own form: seconds or milliseconds since 1970, `UTC` or a blank before the offset, and the form of `fast.log`
/// (`11/26/2026-10:00:00.000000`, month first).
pub(in crate::source::format) fn read(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let mut rest = Digits(text.trim_ascii().as_bytes());
    if let Some(time) = epoch(rest.0) {
        return Some(time);
    }
    let (year, month, day);
    if rest.0.get(2) == Some(&b'/') {
        month = rest.number(2)?;
        rest.skip(b"/")?;
        day = rest.number(2)?;
        rest.skip(b"/")?;
        year = rest.number(4)?;
        rest.skip(b"- ")?;
    } else {
        year = rest.number(4)?;
        rest.skip(b"-")?;
        month = rest.number(2)?;
        rest.skip(b"-")?;
        day = rest.number(2)?;
        rest.skip(b"T ")?;
    }
    let hour = rest.number(2)?;
    rest.skip(b":")?;
    let minute = rest.number(2)?;
    rest.skip(b":")?;
    // A leap second is told as the second before it.
    let second = rest.number(2)?.min(59);
    let micros = if rest.skip(b".,").is_some() { rest.fraction() } else { 0 };
    let civil = DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok()?,
        micros * 1_000,
    )
    .ok()?;
    rest.0 = rest.0.trim_ascii_start();
    let instant = if rest.0.is_empty() {
        zone.to_ambiguous_timestamp(civil).compatible().ok()?
    } else {
        rest.offset()?.to_timestamp(civil).ok()?
    };
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

/// Seconds since 1970 with or without a fraction; milliseconds, where as seconds it would be beyond the year 5138.
fn epoch(text: &[u8]) -> Option<Timestamp> {
    const MILLIS_FROM: i64 = 100_000_000_000;
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let (whole, fraction) = text.split_at(dot);
    let numeric = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    if !(9..=13).contains(&whole.len()) || !numeric(whole) || !numeric(fraction.get(1..).unwrap_or_default())
    {
        return None;
    }
    let whole: i64 = std::str::from_utf8(whole).ok()?.parse().ok()?;
    if whole >= MILLIS_FROM {
        return Some(Timestamp::from_micros(whole * 1_000));
    }
    let micros = Digits(fraction.get(1..).unwrap_or_default()).fraction();
    Some(Timestamp::from_micros(whole * 1_000_000 + i64::from(micros)))
}

/// What is left of the text.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// Exactly `len` digits.
    fn number(&mut self, len: usize) -> Option<i32> {
        let (digits, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        digits
            .iter()
            .try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i32::from(byte - b'0')))
    }

    /// One of `any`.
    fn skip(&mut self, any: &[u8]) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        any.contains(first).then(|| self.0 = rest)
    }

    /// As many digits as there are; microseconds, the rest cut off.
    fn fraction(&mut self) -> i32 {
        let (mut micros, mut worth) = (0, 100_000);
        while let Some((byte, rest)) = self.0.split_first().filter(|(byte, _)| byte.is_ascii_digit()) {
            micros += i32::from(byte - b'0') * worth;
            worth /= 10;
            self.0 = rest;
        }
        micros
    }

    /// `Z`, `+hhmm`, `+hh:mm` or `+hh`, and nothing after it.
    fn offset(&mut self) -> Option<Offset> {
        if matches!(self.0, b"Z" | b"z" | b"UTC" | b"GMT") {
            return Some(Offset::UTC);
        }
        let sign = match self.0.first()? {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = &self.0[1..];
        let hours = self.number(2)?;
        let _ = self.skip(b":");
        let minutes = if self.0.is_empty() { 0 } else { self.number(2)? };
        let valid = self.0.is_empty() && minutes < 60;
        valid.then(|| Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let read = read(text, &TimeZone::UTC).map(|time| time.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }

    #[test]
    fn every_form_of_the_field() {
        check("2023-09-18T06:13:41.532140+0000", Some("2023-09-18T06:13:41.53214Z"));
        check("2018-03-24T14:37:19.037299-0600", Some("2018-03-24T20:37:19.037299Z"));
        check("2018-03-24T14:37:19.037299+05:30", Some("2018-03-24T09:07:19.037299Z"));
        check("2018-03-24T14:37:19Z", Some("2018-03-24T14:37:19Z"));
        check("2018-03-24 14:37:19.123456789+00", Some("2018-03-24T14:37:19.123456Z"));
        check("2019-01-02T03:50:11.315110", Some("2019-01-02T03:50:11.31511Z"));
        check("2016-12-31T23:59:60+0000", Some("2016-12-31T23:59:59Z"));
        check("1795687200", Some("2026-11-26T10:00:00Z"));
        check("1795687200.5", Some("2026-11-26T10:00:00.5Z"));
        check("1795687200500", Some("2026-11-26T10:00:00.5Z"));
        check("2026-11-26 10:00:00 UTC", Some("2026-11-26T10:00:00Z"));
        check("2026-11-26T10:00:00.000000 +0100", Some("2026-11-26T09:00:00Z"));
        check("11/26/2026-10:00:00.250000", Some("2026-11-26T10:00:00.25Z"));
        check("1970-01-01T00:00:00.000000+0000", Some("1970-01-01T00:00:00Z"));
        check("0001-01-01T00:00:00.000000+0100", Some("0001-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "ts-error",
            "2023-09-18",
            "2023-13-18T06:13:41+0000",
            "2023-02-30T06:13:41+0000",
            "2023-09-18T24:13:41+0000",
            "2023-09-18T06:13:41+00:00x",
            "2023-09-18T06:13:41+0",
            "2023-09-18T06:13:41+9900",
            "2023-09-18T06:13:41 CET",
            "12345678",
            "1795687200.5.5",
            "26/11/2026-10:00:00",
            "２023-09-18T06:13:41Z",
            "-023-09-18T06:13:41Z",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_time_without_offset_is_in_the_configured_zone() {
        let zone = TimeZone::fixed(Offset::from_seconds(7_200).unwrap());
        let time = read("2019-01-02T03:50:11.315110", &zone).unwrap();
        assert_eq!(time.to_string(), "2019-01-02T01:50:11.31511Z");
        let time = read("2019-01-02T03:50:11+0000", &zone).unwrap();
        assert_eq!(time.to_string(), "2019-01-02T03:50:11Z");
    }
}
