//! Keys that several kinds of sources share: files by glob, maps of severities and engines, the time zone, what tells
//! equal addresses apart.

use std::collections::BTreeMap;

use jiff::tz::{Offset, TimeZone};
use serde_json::Value;

use crate::config::check::Check;
use crate::config::problem::At;
use crate::config::read::{Field, List, Named, word};
use crate::config::values::{EngineWord, SeverityWord};
use crate::model::{Engine, Severity};
use crate::source::format::Apart;

/// What a path of files may look like.
pub(super) const PATH: &str = "an absolute path, e.g. \"/var/log/suricata/eve*.json\"";

word! {
    /// What tells equal addresses of different networks apart.
    ApartWord {
        /// Tenant and outer VLAN.
        Network = "network",
        /// The interface of the sensor.
        Interface = "interface",
        /// The MAC addresses.
        Mac = "mac",
    }
}

/// `identity`.
pub(super) fn apart(field: &Field<List<ApartWord>>, c: &mut Check<'_>) -> Option<Apart> {
    let Some((words, _)) = field.get() else {
        if field.is_present() {
            return None;
        }
        c.effective.note_field("identity", Value::from(vec!["network"]), field);
        return Some(Apart::default());
    };
    if words.items.len() < words.written {
        return None;
    }
    let has = |wanted: ApartWord| words.items.iter().any(|(word, _)| *word == wanted);
    c.note_list("identity", field, words, |word| word.as_str());
    Some(Apart {
        network: has(ApartWord::Network),
        interface: has(ApartWord::Interface),
        mac: has(ApartWord::Mac),
    })
}

/// `path`.
pub(super) fn files(field: &Field<String>, table: &At, c: &mut Check<'_>) -> Option<String> {
    let (text, place) = c.required("path", field, table, PATH)?;
    c.effective.note_field("path", text.clone(), field);
    glob(text, place, c)
}

/// `time_zone`.
pub(super) fn time_zone(field: &Field<String>, c: &mut Check<'_>) -> Option<TimeZone> {
    let text = c.value("time_zone", field, "UTC".to_owned(), Clone::clone)?;
    let zone = zone(&text);
    if let (None, Some(place)) = (&zone, field.at()) {
        c.problems.error(place, "unknown time zone", |p| {
            p.quoted(text)
                .expected("an IANA name such as \"Europe/Vienna\", or \"+hh:mm\"")
                .hint("names are looked up in /usr/share/zoneinfo (package tzdata)")
        });
    }
    zone
}

fn glob(text: &str, at: &At, c: &mut Check<'_>) -> Option<String> {
    let wrong = if text.contains('\0') || text.len() > 4096 {
        Some("this is not a path".to_owned())
    } else if !text.starts_with('/') {
        Some("the path has to be absolute".to_owned())
    } else if text.ends_with('/') {
        Some("this is a directory".to_owned())
    } else {
        glob::Pattern::new(text).err().map(|error| format!("not a pattern of files: {}", error.msg))
    };
    let Some(wrong) = wrong else { return Some(text.to_owned()) };
    c.problems.error(at, wrong, |p| p.quoted(text).expected(PATH));
    None
}

/// `severity_map` by a priority.
pub(super) fn priorities(
    map: &Field<Named<SeverityWord>>,
    c: &mut Check<'_>,
) -> Option<BTreeMap<String, Severity>> {
    let Some((named, _)) = map.get() else { return (!map.is_present()).then(BTreeMap::new) };
    let mut checked = BTreeMap::new();
    let mut shown = serde_json::Map::new();
    let mut wrong = false;
    for (key, SeverityWord(severity), at) in &named.0 {
        if let Some(priority) = key.parse::<u32>().ok().filter(|n| (1..=255).contains(n)) {
            checked.insert(priority.to_string(), *severity);
            shown.insert(priority.to_string(), severity.as_str().into());
        } else {
            wrong = true;
            c.problems.error(at, "this is not a priority", |p| {
                p.quoted(key).expected("1 to 255, e.g. 1 = \"critical\"")
            });
        }
    }
    c.effective.note_field("severity_map", Value::Object(shown), map);
    (!wrong).then_some(checked)
}

/// `severity_map` by the source's words.
pub(super) fn severities(
    map: &Field<Named<SeverityWord>>,
    c: &mut Check<'_>,
) -> Option<BTreeMap<String, Severity>> {
    words("severity_map", map, |SeverityWord(severity)| (*severity, severity.as_str()), &WORDS, c)
}

/// `severity_map` by what a sender writes.
pub(super) fn written_severities(
    map: &Field<Named<SeverityWord>>,
    c: &mut Check<'_>,
) -> Option<BTreeMap<String, Severity>> {
    words("severity_map", map, |SeverityWord(severity)| (*severity, severity.as_str()), &WRITTEN, c)
}

/// `engine_map`.
pub(super) fn engines(map: &Field<Named<EngineWord>>, c: &mut Check<'_>) -> Option<BTreeMap<String, Engine>> {
    words("engine_map", map, |EngineWord(engine)| (*engine, engine.as_str()), &WORDS, c)
}

/// What the keys of a map may be, and how the one that may not is refused.
struct Keys {
    fits: fn(&str) -> bool,
    wrong: &'static str,
    shows_it: bool,
    expected: &'static str,
    twice: &'static str,
}

/// Category texts.
const WORDS: Keys = Keys {
    fits: |word| word.len() <= 512,
    wrong: "the word is too long",
    shows_it: false,
    expected: "at most 512 bytes",
    twice: "the same word twice (case does not matter)",
};

/// Severities as a sender writes them.
const WRITTEN: Keys = Keys {
    fits: |written| (1..=64).contains(&written.trim().to_lowercase().len()),
    wrong: "this is not a severity",
    shows_it: true,
    expected: "what the sender writes, 1 to 64 bytes",
    twice: "the same severity twice (case does not matter)",
};

/// The source's words to ours; their case and blanks around them do not matter.
fn words<W, T>(
    key: &str,
    map: &Field<Named<W>>,
    ours: impl Fn(&W) -> (T, &'static str),
    keys: &Keys,
    c: &mut Check<'_>,
) -> Option<BTreeMap<String, T>> {
    let Some((named, _)) = map.get() else { return (!map.is_present()).then(BTreeMap::new) };
    let mut checked = BTreeMap::new();
    let mut shown = serde_json::Map::new();
    let mut wrong = false;
    for (word, value, at) in &named.0 {
        let (value, text) = ours(value);
        if !(keys.fits)(word) {
            wrong = true;
            c.problems.error(at, keys.wrong, |p| {
                let p = if keys.shows_it { p.quoted(word) } else { p };
                p.expected(keys.expected)
            });
        } else if checked.insert(word.trim().to_lowercase(), value).is_some() {
            wrong = true;
            c.problems.error(at, keys.twice, |p| p.hint("remove one"));
        }
        shown.insert(word.clone(), text.into());
    }
    c.effective.note_field(key, Value::Object(shown), map);
    (!wrong).then_some(checked)
}

fn zone(text: &str) -> Option<TimeZone> {
    let text = text.trim();
    if text == "Z" || text.eq_ignore_ascii_case("utc") {
        return Some(TimeZone::UTC);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ if text.len() <= 100 => return TimeZone::get(text).ok(),
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 18 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().map(TimeZone::fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_by_name_and_by_offset() {
        let seconds = |text: &str| {
            let zone = zone(text)?;
            Some(zone.to_offset(jiff::Timestamp::from_second(1_795_248_900).unwrap()).seconds())
        };
        for (text, offset) in [
            ("UTC", Some(0)),
            ("Z", Some(0)),
            ("+02:00", Some(7200)),
            ("-03:30", Some(-12_600)),
            ("+19:00", None),
        ] {
            assert_eq!(seconds(text), offset, "{text}");
        }
        for bad in ["", "+2", "+02", "+02:0x", "+aé:00", "Mars/Base", "+ 1:00", "../etc/passwd"] {
            assert!(zone(bad).is_none(), "{bad}");
        }
    }
}
