//! Parts of a record that several formats write alike: addresses, MACs, instants, ports, CVE numbers, short texts.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::json::Value;
use super::time;
use crate::model::alert::{MESSAGE_MAX, RAW_MAX};
use crate::model::text::{self, clip, one_line};
use crate::model::{Endpoint, Timestamp};

/// Longest name, category or single reference that is kept, in bytes.
pub(super) const WORD_MAX: usize = 256;
/// Most references of one alert.
const REFERENCES_MAX: usize = 32;

/// One short line, safe to show; `None` when nothing is left of it.
pub(super) fn word(text: &str) -> Option<String> {
    Some(short(text)).filter(|line| !line.is_empty())
}

/// The same, empty when nothing is left of it.
pub(super) fn short(text: &str) -> String {
    clip(one_line(text).trim(), WORD_MAX).into_owned()
}

/// What an alert refers to, each once.
#[derive(Debug, Default)]
pub(super) struct References(pub(super) Vec<String>);

impl References {
    /// Takes one, while there are fewer than most.
    pub(super) fn add(&mut self, text: &str) {
        let reference = short(text);
        if self.0.len() < REFERENCES_MAX && !reference.is_empty() && !self.0.contains(&reference) {
            self.0.push(reference);
        }
    }
}

/// The beginning of the record, safe to show, at most [`RAW_MAX`] bytes.
pub(super) fn raw(record: &[u8]) -> String {
    let start = String::from_utf8_lossy(&record[..record.len().min(RAW_MAX + 1)]);
    clip(&text::lines(&start), RAW_MAX).into_owned()
}

/// An address without its zone (`%eth0`); IPv4 in IPv6 is IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address: IpAddr = text.split_once('%').map_or(text, |(address, _)| address).parse().ok()?;
    Some(address.to_canonical())
}

/// `00:1b:1b:aa:bb:cc` of any common spelling, or nothing when it is no MAC address.
pub(super) fn mac(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    let pairs: Vec<&str> = (0..6).map(|at| &digits[2 * at..2 * at + 2]).collect();
    Some(pairs.join(":"))
}

/// A port number.
pub(super) fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok()
}

/// Seconds since 1970, with or without a fraction, exactly: `1521911720.629574`.
pub(super) fn epoch(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)))
}

/// When something was, as its record has it.
#[derive(Debug, Default)]
pub(super) struct When {
    pub(super) time: Option<Timestamp>,
    /// What is written there and cannot be read.
    pub(super) unreadable: Option<String>,
}

/// The first of several values that is a time; where none is, what the first of them says.
pub(super) fn when(values: &[&Value<'_>], zone: &TimeZone) -> When {
    let time = values.iter().find_map(|value| instant(value, zone));
    let written = || {
        values.iter().find(|value| !value.is_null()).map(|value| match value.scalar() {
            Some(text) => short(&text),
            None => value.kind().to_owned(),
        })
    };
    When { time, unreadable: if time.is_none() { written() } else { None } }
}

/// Says in a message that its time is another than that of the record; `dated`: which, where it is not that of reading.
pub(super) fn undated(message: &mut String, dated: Option<&str>, written: &str) {
    let dated = dated.unwrap_or("reading");
    note(message, &format!("Time: that of {dated}; the sensor's own, {}, cannot be read", short(written)));
}

/// Adds a line to a message, which is cut where both are too long.
pub(super) fn note(message: &mut String, line: &str) {
    let room = MESSAGE_MAX.saturating_sub(line.len() + 1);
    message.truncate(message.floor_char_boundary(room));
    message.push('\n');
    message.push_str(line);
}

/// An instant as RFC 3339 text or its like (one without an offset is in `zone`), or as a number since 1970: seconds, or
/// by its size milli-, micro- or nanoseconds.
pub(super) fn instant(value: &Value<'_>, zone: &TimeZone) -> Option<Timestamp> {
    match value {
        Value::Text(text) => {
            let text = text.trim();
            text.parse()
                .ok()
                .map(|instant: jiff::Timestamp| Timestamp::from_micros(instant.as_microsecond()))
                .or_else(|| epoch(text))
                .or_else(|| time::read(text, zone))
        }
        Value::Whole(number) => since_epoch(*number as f64),
        Value::Float(number) => since_epoch(*number),
        _ => None,
    }
}

fn since_epoch(number: f64) -> Option<Timestamp> {
    // The first three are the year 5138 in the smaller unit.
    let micros = match number.abs() {
        n if n < 1.0e11 => number * 1.0e6,
        n if n < 1.0e14 => number * 1.0e3,
        n if n < 1.0e17 => number,
        n if n < 1.0e19 => number / 1.0e3,
        _ => return None,
    };
    Some(Timestamp::from_micros(micros.round() as i64))
}

/// What of an end tells it from others in a fingerprint: its address, else its MAC, else its name; absent is empty.
pub(super) fn identity(end: &Endpoint) -> Cow<'_, str> {
    match (end.ip, &end.mac, &end.name) {
        (Some(ip), ..) => Cow::Owned(ip.to_string()),
        (None, Some(text), _) | (None, None, Some(text)) => Cow::Borrowed(text),
        (None, None, None) => Cow::Borrowed(""),
    }
}

/// The first CVE number in a text, however its parts are joined (`CVE-2021-44228`, `CVE_2021_44228`).
pub(super) fn cve(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(3)).find_map(|at| {
        let rest = &bytes[at..];
        let joint = |byte: Option<&u8>| matches!(byte, Some(b'-' | b'_'));
        if !rest[..3].eq_ignore_ascii_case(b"cve") || !joint(rest.get(3)) || !joint(rest.get(8)) {
            return None;
        }
        let year = rest.get(4..8)?;
        let number: Vec<u8> = rest[9..].iter().copied().take_while(u8::is_ascii_digit).take(8).collect();
        let valid = year.iter().all(u8::is_ascii_digit) && (4..=7).contains(&number.len());
        valid.then(|| format!("CVE-{}-{}", String::from_utf8_lossy(year), String::from_utf8_lossy(&number)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_in_every_unit() {
        let check = |value: Value<'_>, expected: Option<&str>| {
            assert_eq!(
                instant(&value, &TimeZone::UTC).map(|t| t.to_string()).as_deref(),
                expected,
                "{value:?}"
            );
        };
        let text = |text: &'static str| Value::Text(Cow::Borrowed(text));
        check(text("2018-03-24T17:15:20.629574Z"), Some("2018-03-24T17:15:20.629574Z"));
        check(text("2018-03-24T19:15:20+02:00"), Some("2018-03-24T17:15:20Z"));
        check(text("1521911720.629574"), Some("2018-03-24T17:15:20.629574Z"));
        check(Value::Float(1_521_911_720.629_574), Some("2018-03-24T17:15:20.629574Z"));
        check(Value::Whole(1_521_911_720), Some("2018-03-24T17:15:20Z"));
        check(Value::Whole(1_521_911_720_629), Some("2018-03-24T17:15:20.629Z"));
        check(Value::Whole(1_521_911_720_629_574), Some("2018-03-24T17:15:20.629574Z"));
        for bad in ["", "yesterday", "1521911720.6x", "-1", "2018-03-24", "99999999999999999999"] {
            check(text(bad), None);
        }
        check(text("2018-03-24T17:15:20"), Some("2018-03-24T17:15:20Z"));
        check(text("2018-03-24 17:15:20 UTC"), Some("2018-03-24T17:15:20Z"));
        check(text("2018-03-24T17:15:20+0200"), Some("2018-03-24T15:15:20Z"));
        check(Value::Float(1.0e300), None);
        check(Value::Bool(true), None);
    }

    #[test]
    fn macs_addresses_and_cves() {
        for written in ["00:1B:1b:AA:bb:01", "00-1b-1b-aa-bb-01", "001b.1baa.bb01"] {
            assert_eq!(mac(written).as_deref(), Some("00:1b:1b:aa:bb:01"), "{written}");
        }
        assert_eq!(mac("00:1b:1b:aa:bb"), None);
        assert_eq!(address("fe80::1%eth0").map(|ip| ip.to_string()).as_deref(), Some("fe80::1"));
        assert_eq!(address("::ffff:10.0.0.1").map(|ip| ip.to_string()).as_deref(), Some("10.0.0.1"));
        assert_eq!(cve("CVE_2021_44228::LOG4J_ATTEMPT").as_deref(), Some("CVE-2021-44228"));
        assert_eq!(cve("see cve-2019-0708.").as_deref(), Some("CVE-2019-0708"));
        for none in ["", "cve", "CVE-20210708", "CVE-2021-12", "ÄCVE-é"] {
            assert_eq!(cve(none), None, "{none}");
        }
    }
}
