//! One record of a Zeek log, by the names of its columns, whichever way it was written.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::header::Header;
use crate::model::Timestamp;
use crate::source::format::json::Value;
use crate::source::format::parts::{self, When};

/// Most members that are read of one set or vector.
const MEMBERS_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum Row<'a> {
    /// A row of a TSV log: the header, and the columns as written.
    Tsv(&'a Header, Vec<&'a str>),
    /// A JSON object with flat keys.
    Json(&'a Value<'a>),
}

impl<'a> Row<'a> {
    /// A row that has as many columns as its header.
    pub(super) fn of_columns(header: &'a Header, line: &'a str) -> Self {
        Self::Tsv(header, line.split(header.separator.as_str()).collect())
    }

    /// A value as text, unescaped; `None` where it is absent, unset or empty.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        let text = match self {
            Self::Tsv(header, _) => {
                let written = self.written(name)?;
                if written == header.empty {
                    return None;
                }
                unescape(written.as_bytes())
            }
            Self::Json(object) => object.get(name).scalar()?,
        };
        (!text.trim().is_empty()).then_some(text)
    }

    /// The members of a set or vector, unescaped.
    pub(super) fn members(&self, name: &str) -> Vec<Cow<'_, str>> {
        match self {
            Self::Tsv(header, _) => {
                let Some(written) = self.written(name).filter(|text| *text != header.empty) else {
                    return Vec::new();
                };
                let members = written.split(header.set_separator.as_str()).take(MEMBERS_MAX);
                members.filter(|text| !text.is_empty()).map(|text| unescape(text.as_bytes())).collect()
            }
            Self::Json(object) => {
                object.get(name).items().iter().take(MEMBERS_MAX).filter_map(Value::scalar).collect()
            }
        }
    }

    /// What stands in a column of a TSV row, unless it is the mark for unset.
    fn written(&self, name: &str) -> Option<&'a str> {
        let Self::Tsv(header, columns) = self else { return None };
        let column = header.column(name)?;
        columns.get(column).copied().filter(|text| *text != header.unset)
    }

    /// The first of several names that has a value: columns are called differently by version.
    pub(super) fn any(&self, names: &[&str]) -> Option<Cow<'_, str>> {
        names.iter().find_map(|name| self.text(name))
    }

    pub(super) fn address(&self, name: &str) -> Option<IpAddr> {
        self.text(name).and_then(|text| parts::address(&text))
    }

    pub(super) fn port(&self, name: &str) -> Option<u16> {
        // Older versions wrote `443/tcp`.
        self.text(name).and_then(|text| text.split('/').next()?.trim().parse().ok())
    }

    /// A truth value: `T` or `true`.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| matches!(&*text, "T" | "true"))
    }

    /// The record's time; `None` where it is absent or unreadable.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.when().time
    }

    /// The same, with what is written where it cannot be read.
    pub(super) fn when(&self) -> When {
        match self {
            Self::Tsv(..) => {
                let text = self.text("ts").map_or(Value::Null, Value::Text);
                parts::when(&[&text], &TimeZone::UTC)
            }
            Self::Json(object) => parts::when(&[object.get("ts")], &TimeZone::UTC),
        }
    }
}

/// Undoes `\xHH` and `\\`; bytes that are no text become `U+FFFD`.
pub(super) fn unescape(written: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(b'\\', written).is_none() {
        return String::from_utf8_lossy(written);
    }
    let mut bytes = Vec::with_capacity(written.len());
    let mut rest = written;
    while let Some((byte, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, after.first(), hex(1).zip(hex(2))) {
            (b'\\', Some(b'x'), Some((high, low))) => {
                bytes.push((high * 16 + low) as u8);
                rest = &after[3..];
            }
            (b'\\', Some(b'\\'), _) => {
                bytes.push(b'\\');
                rest = &after[1..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        for (written, meant) in [
            ("plain", "plain"),
            ("a\\x09b", "a\tb"),
            ("\\\\x41", "\\x41"),
            ("\\x2d", "-"),
            ("\\xc3\\xa9", "é"),
            ("\\xff", "\u{fffd}"),
            ("\\x4", "\\x4"),
            ("\\xzz\\", "\\xzz\\"),
        ] {
            assert_eq!(unescape(written.as_bytes()), meant, "{written}");
        }
    }

    #[test]
    fn values_of_a_row() {
        let mut header = Header::default();
        header.line("#fields\tts\thost\tservice\tempty\tdash\tport\tyes").unwrap();
        let line = "1.5\t10.0.0.1\tHTTP,SS\\x2cL\t(empty)\t\\x2d\t443/tcp\tT";
        let row = Row::of_columns(&header, line);
        assert_eq!(row.members("service"), ["HTTP", "SS,L"]);
        assert_eq!((row.text("empty"), row.members("empty").len()), (None, 0));
        assert_eq!(row.text("dash").as_deref(), Some("-"));
        assert_eq!((row.port("port"), row.is_true("yes"), row.text("none")), (Some(443), true, None));
        assert_eq!(row.time().unwrap().as_micros(), 1_500_000);
    }
}
