//! Times as syslog, CEF and LEEF write them: with and without year, zone, fraction; and the epoch in three units.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::super::time;
use crate::model::Timestamp;

/// How far ahead of this machine's clock a time without a year may be before it is one of last year.
const AHEAD_MAX_US: i64 = 24 * 3_600 * 1_000_000;

/// A time of RFC 3339 and its relatives. One without an offset is in `zone`.
pub(super) fn iso(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    time::read(text, zone)
}

/// A time at the beginning of a line, and what follows it.
pub(super) fn leading<'a>(
    text: &'a str,
    zone: &TimeZone,
    received_at: Timestamp,
) -> Option<(Timestamp, &'a str)> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let end = text.find(' ')?;
        return Some((iso(text[..end].trim_end_matches(':'), zone)?, &text[end..]));
    }
    let (parts, rest) = Parts::read(text)?;
    Some((parts.at(&In::Zone(zone), received_at)?, rest))
}

/// A time that is the whole of a value, in any of the forms of the field.
pub(super) fn any(text: &str, zone: &TimeZone, received_at: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return epoch(text);
    }
    let Some((parts, rest)) = Parts::read(text) else { return iso(text, zone) };
    let rest = rest.trim();
    let place = match offset(rest) {
        Some(offset) => In::Offset(offset),
        // A zone's name that is not known here is that of the source, more often than any other.
        None if rest.len() <= 8 && rest.bytes().all(|byte| byte.is_ascii_alphabetic()) => In::Zone(zone),
        None => return None,
    };
    parts.at(&place, received_at)
}

/// Seconds, milliseconds or microseconds since 1970, told apart by their digits.
fn epoch(digits: &str) -> Option<Timestamp> {
    let number: i64 = digits.parse().ok()?;
    match digits.len() {
        9..=10 => Some(Timestamp::from_secs(number)),
        12..=13 => Some(Timestamp::from_micros(number * 1_000)),
        15..=16 => Some(Timestamp::from_micros(number)),
        _ => None,
    }
}

/// A time in the form that `format` says (`devTimeFormat` of LEEF: letters of Java's `SimpleDateFormat`).
pub(super) fn by_format(
    text: &str,
    format: &str,
    zone: &TimeZone,
    received_at: Timestamp,
) -> Option<Timestamp> {
    let told = || {
        let parsed = jiff::fmt::strtime::parse(strtime(format)?, text.trim()).ok()?;
        if let Ok(instant) = parsed.to_timestamp() {
            return Some(Timestamp::from_micros(instant.as_microsecond()));
        }
        instant(parsed.to_datetime().ok()?, &In::Zone(zone))
    };
    told().or_else(|| any(text, zone, received_at))
}

/// The letters of `SimpleDateFormat` as those of `strftime`; `None` for one that has no counterpart.
fn strtime(format: &str) -> Option<String> {
    let mut out = String::with_capacity(format.len() * 2);
    let mut rest = format.get(..64.min(format.len()))?;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            let (literal, after) = rest[1..].split_once('\'')?;
            out.push_str(&literal.replace('%', "%%"));
            rest = after;
            continue;
        }
        let run = rest.len() - rest.trim_start_matches(first).len();
        let count = run / first.len_utf8();
        out.push_str(match first {
            'y' | 'u' if count == 2 => "%y",
            'y' | 'u' => "%Y",
            'M' | 'L' if count > 3 => "%B",
            'M' | 'L' if count == 3 => "%b",
            'M' | 'L' => "%m",
            'd' => "%d",
            'H' => "%H",
            'h' => "%I",
            'm' => "%M",
            's' => "%S",
            'S' => "%f",
            'a' => "%p",
            'E' if count > 3 => "%A",
            'E' => "%a",
            'Z' | 'X' | 'x' => "%z",
            letter if letter.is_ascii_alphabetic() => return None,
            '%' => "%%",
            _ => &rest[..run],
        });
        rest = &rest[run..];
    }
    Some(out)
}

/// Where a civil time was read off the clock.
enum In<'a> {
    Zone(&'a TimeZone),
    Offset(Offset),
}

fn instant(civil: DateTime, place: &In<'_>) -> Option<Timestamp> {
    let instant = match place {
        In::Zone(zone) => zone.to_ambiguous_timestamp(civil).compatible().ok()?,
        In::Offset(offset) => offset.to_timestamp(civil).ok()?,
    };
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

/// `MMM dd [yyyy] HH:mm:ss[.fraction]`.
struct Parts {
    year: Option<i16>,
    month: i8,
    day: i8,
    clock: [i8; 3],
    micros: i32,
}

impl Parts {
    fn read(text: &str) -> Option<(Self, &str)> {
        const MONTHS: [&str; 12] =
            ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
        let name = text.get(..3)?;
        let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
        let rest = text[3..].strip_prefix(' ')?;
        let (day, rest) = number(rest.trim_start_matches(' '), 2)?;
        let mut rest = rest.trim_start_matches([' ', ',']);
        let mut year = None;
        if let Some((number, after)) = number(rest, 4).filter(|(_, after)| after.starts_with(' ')) {
            (year, rest) = (Some(number), after.trim_start_matches(' '));
        }
        let (hour, rest) = number(rest, 2)?;
        let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
        let (second, mut rest) = number(rest.strip_prefix(':')?, 2)?;
        let mut micros = 0;
        if let Some(digits) = rest.strip_prefix(['.', ',']) {
            let mut worth = 100_000;
            rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
            for digit in digits[..digits.len() - rest.len()].bytes() {
                micros += i32::from(digit - b'0') * worth;
                worth /= 10;
            }
        }
        let small = |number: i16| i8::try_from(number).ok();
        // A leap second is told as the second before it.
        let clock = [small(hour)?, small(minute)?, small(second)?.min(59)];
        Some((Self { year, month: month as i8 + 1, day: small(day)?, clock, micros }, rest))
    }

    fn at(&self, place: &In<'_>, received_at: Timestamp) -> Option<Timestamp> {
        let in_year = |year: i16| {
            let [hour, minute, second] = self.clock;
            let civil =
                DateTime::new(year, self.month, self.day, hour, minute, second, self.micros * 1_000).ok()?;
            instant(civil, place)
        };
        if let Some(year) = self.year {
            return in_year(year);
        }
        let now = jiff::Timestamp::from_microsecond(received_at.as_micros()).ok()?;
        let this = match place {
            In::Zone(zone) => zone.to_datetime(now).year(),
            In::Offset(offset) => offset.to_datetime(now).year(),
        };
        let near = |time: &Timestamp| time.as_micros() <= received_at.as_micros() + AHEAD_MAX_US;
        // Each year but one in four has no 29 February; and on New Year's Eve a fast clock writes next year's date.
        let next = in_year(this + 1).filter(near);
        next.or_else(|| in_year(this).filter(near)).or_else(|| in_year(this - 1))
    }
}

/// One to `max` digits.
fn number(text: &str, max: usize) -> Option<(i16, &str)> {
    let digits = text.bytes().take(max).take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// `UTC`, `GMT+02:00`, `+0200`, `CEST`; the empty text and names that mean several zones are none.
fn offset(text: &str) -> Option<Offset> {
    const NAMES: [(&str, i32); 13] = [
        ("Z", 0),
        ("WET", 0),
        ("WEST", 60),
        ("CET", 60),
        ("CEST", 120),
        ("EET", 120),
        ("EEST", 180),
        ("EST", -300),
        ("EDT", -240),
        ("PST", -480),
        ("PDT", -420),
        ("JST", 540),
        ("AEST", 600),
    ];
    if let Some((_, minutes)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Offset::from_seconds(minutes * 60).ok();
    }
    let universal = ["GMT", "UTC", "UT"].iter().find_map(|name| text.strip_prefix(name));
    let rest = universal.unwrap_or(text).trim_start();
    if rest.is_empty() {
        return universal.map(|_| Offset::UTC);
    }
    let sign = match rest.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = number(&rest[1..], 2)?;
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = if rest.is_empty() { (0, "") } else { number(rest, 2)? };
    let whole = rest.is_empty() && minutes < 60;
    whole
        .then(|| Offset::from_seconds(sign * (i32::from(hours) * 60 + i32::from(minutes)) * 60).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T08:15:00Z.
    const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

    fn check(text: &str, expected: &str) {
        let read = any(text, &TimeZone::UTC, NOW).map(|time| time.to_string()).unwrap_or_default();
        assert_eq!(read, expected, "{text}");
    }

    #[test]
    fn every_form_of_the_field() {
        check("1594808260000", "2020-07-15T10:17:40Z");
        check("1594808260", "2020-07-15T10:17:40Z");
        check("1594808260123456", "2020-07-15T10:17:40.123456Z");
        check("Sep 07 2018 14:50:39", "2018-09-07T14:50:39Z");
        check("Sep 07 2018 14:50:39.250 GMT+02:00", "2018-09-07T12:50:39.25Z");
        check("Sep 7 14:50:39 CEST", "2026-09-07T12:50:39Z");
        check("Sep  7 14:50:39.5 UTC", "2026-09-07T14:50:39.5Z");
        check("Sep 07 2018 14:50:39 -0330", "2018-09-07T18:20:39Z");
        check("Sep 07 2018 14:50:39 XYZT", "2018-09-07T14:50:39Z");
        check("2018-09-07T14:50:39.123456+02:00", "2018-09-07T12:50:39.123456Z");
        check("Nov 22 08:14:59", "2026-11-22T08:14:59Z");
        check("Nov 22 08:15:01", "2025-11-22T08:15:01Z");
        check("Feb 29 00:00:00", "");
        for bad in [
            "",
            "soon",
            "Sep 31 2018 14:50:39",
            "Sep 07 2018",
            "123",
            "Sep 07 2018 14:50:39 and more",
            "é9 7",
        ] {
            check(bad, "");
        }
    }

    #[test]
    fn a_year_that_begins_while_clocks_differ() {
        let eve = Timestamp::from_secs(1_798_761_590); // 2026-12-31T23:59:50Z
        let read = any("Jan  1 00:00:05", &TimeZone::UTC, eve).unwrap();
        assert_eq!(read.to_string(), "2027-01-01T00:00:05Z");
        let read = any("Dec 31 23:59:59", &TimeZone::UTC, Timestamp::from_secs(1_798_761_610)).unwrap();
        assert_eq!(read.to_string(), "2026-12-31T23:59:59Z");
    }

    #[test]
    fn formats_that_the_sender_names() {
        let read = |text, format| {
            by_format(text, format, &TimeZone::UTC, NOW).map(|time| time.to_string()).unwrap_or_default()
        };
        assert_eq!(read("May 05 2019 15:28:54", "MMM dd yyyy HH:mm:ss"), "2019-05-05T15:28:54Z");
        assert_eq!(read("05/06/19 03:28 PM", "dd/MM/yy hh:mm a"), "2019-06-05T15:28:00Z");
        assert_eq!(read("2019-05-05T15:28:54+0200", "yyyy-MM-dd'T'HH:mm:ssZ"), "2019-05-05T13:28:54Z");
        assert_eq!(read("May 05 2019 15:28:54 UTC", "MMM dd yyyy HH:mm:ss z"), "2019-05-05T15:28:54Z");
        assert_eq!(read("1557059334000", "nonsense"), "2019-05-05T12:28:54Z");
    }
}
