//! Single values as the product writes them: times, addresses, texts.

use std::net::IpAddr;

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::model::Timestamp;
use crate::model::device::ATTRIBUTE_MAX;
use crate::model::text::{clip, one_line};

use super::wire::Text;

/// One short line, safe to show; `None` when nothing is said.
pub(super) fn attribute(text: &Text<'_>) -> Option<String> {
    let text = one_line(text.get()?);
    let text = text.trim();
    (!text.is_empty()).then(|| clip(text, ATTRIBUTE_MAX).into_owned())
}

/// Longest id that is kept, in bytes: what is made of it has to stay within an attribute.
const ID_MAX: usize = 128;

/// A number or id of the product's own.
pub(super) fn number(text: &Text<'_>) -> Option<String> {
    attribute(text).map(|id| clip(&id, ID_MAX).into_owned())
}

/// The id of a device; `0` is how the console writes "none".
pub(super) fn id(text: &Text<'_>) -> Option<String> {
    number(text).filter(|id| id != "0")
}

/// An instant: milliseconds since 1970 (microseconds and seconds are told by their size), or a date with a time.
pub(super) fn time(text: &Text<'_>) -> Option<Timestamp> {
    let text = text.get()?;
    if let Ok(number) = text.parse::<i64>() {
        return Some(of_number(number));
    }
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then(|| of_number(number as i64));
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_micros(instant.as_microsecond()));
    }
    let civil =
        text.parse::<DateTime>().ok().or_else(|| DateTime::strptime("%m/%d/%Y %I:%M:%S %p", text).ok())?;
    let instant = Offset::UTC.to_timestamp(civil).ok()?;
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

fn of_number(number: i64) -> Timestamp {
    match number.unsigned_abs() {
        // As milliseconds these would be the first months of 1970; as seconds they are 2001 to 2286.
        1_000_000_000..=9_999_999_999 => Timestamp::from_secs(number),
        100_000_000_000_000.. => Timestamp::from_micros(number),
        _ => Timestamp::from_micros(number.saturating_mul(1_000)),
    }
}

/// An IP address, normalised; with a prefix length or a zone as well.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let bare = text.trim().trim_matches(['[', ']']);
    let bare = bare.split(['/', '%']).next()?;
    let ip = bare.parse::<IpAddr>().ok()?.to_canonical();
    (!ip.is_unspecified()).then_some(ip)
}

/// A MAC as `00:1b:1b:aa:bb:cc`; `None` for one that is nobody's.
pub(super) fn mac(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.' | ' ')).collect();
    if digits.len() != 12 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digits = digits.to_ascii_lowercase();
    if matches!(digits.as_str(), "000000000000" | "ffffffffffff") {
        return None;
    }
    let pairs: Vec<_> = (0..6).map(|at| &digits[at * 2..at * 2 + 2]).collect();
    Some(pairs.join(":"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &serde_json::Value) -> Text<'static> {
        serde_json::from_str::<Vec<Text<'_>>>(Box::leak(format!("[{value}]").into_boxed_str()))
            .unwrap()
            .remove(0)
    }

    #[test]
    fn times_are_read_in_every_form() {
        for (value, expected) in [
            (json!(1_509_881_077_000_i64), Some("2017-11-05T11:24:37Z")),
            (json!("1509881077000"), Some("2017-11-05T11:24:37Z")),
            (json!(1_509_881_077), Some("2017-11-05T11:24:37Z")),
            (json!(1_509_881_077_000_123_i64), Some("2017-11-05T11:24:37.000123Z")),
            (json!(1_509_881_077_000.0), Some("2017-11-05T11:24:37Z")),
            (json!("2017-11-05T11:24:37.000Z"), Some("2017-11-05T11:24:37Z")),
            (json!("2017-11-05T13:24:37+02:00"), Some("2017-11-05T11:24:37Z")),
            (json!("2017-11-05 11:24:37"), Some("2017-11-05T11:24:37Z")),
            (json!("11/05/2017 01:24:37 PM"), Some("2017-11-05T13:24:37Z")),
            (json!(0), Some("1970-01-01T00:00:00Z")),
            (json!(-1), Some("1969-12-31T23:59:59.999Z")),
            (json!("yesterday"), None),
            (json!("1e999"), None),
            (json!(null), None),
            (json!({"a": 1}), None),
        ] {
            assert_eq!(time(&text(&value)).map(|time| time.to_string()).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn addresses_are_normalised() {
        assert_eq!(ip(" 10.0.0.1/24").unwrap().to_string(), "10.0.0.1");
        assert_eq!(ip("[FE80::1%eth0]").unwrap().to_string(), "fe80::1");
        assert_eq!(ip("::ffff:10.0.0.1").unwrap().to_string(), "10.0.0.1");
        assert_eq!((ip("0.0.0.0"), ip("N/A"), ip("")), (None, None, None));
        assert_eq!(mac("00-1B-1B-AA-BB-CC").as_deref(), Some("00:1b:1b:aa:bb:cc"));
        assert_eq!(mac("001b.1baa.bbcc").as_deref(), Some("00:1b:1b:aa:bb:cc"));
        assert_eq!((mac("ff:ff:ff:ff:ff:ff"), mac("00:1b"), mac("é01b1baabbc")), (None, None, None));
    }

    #[test]
    fn nothing_is_nothing_in_all_its_words() {
        for value in [json!("N/A"), json!(" "), json!("null"), json!(null), json!(true), json!([])] {
            assert_eq!(attribute(&text(&value)), None, "{value}");
        }
        assert_eq!(id(&text(&json!(0))), None);
        assert_eq!(id(&text(&json!("7"))).as_deref(), Some("7"));
        assert_eq!(id(&text(&json!([1e-264]))).unwrap().len(), ID_MAX);
        assert_eq!(attribute(&text(&json!({"name": "PLC", "x": 1}))).as_deref(), Some("PLC"));
    }
}
