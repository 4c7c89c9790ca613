//! `[[source]]` to Settings.

use std::collections::BTreeMap;

use jiff::tz::{Offset, TimeZone};
use serde_json::Value;

use super::check::Check;
use super::file::Source;
use super::problem::At;
use super::read::{Field, List, Named};
use super::values::{EngineWord, SeverityWord, SourceKind};
use super::Agent;
use crate::model::{Engine, Severity, SourceName};
use crate::source::format::eve::{self, Eve};
use crate::source::{Input, Reads, Settings};

/// Longest category text that can be mapped, in bytes.
const CATEGORY_MAX: usize = 512;

/// Checks all sources; those with an error are left out.
pub(super) fn check(
    sources: &Field<List<Source>>,
    agent: Option<&Agent>,
    c: &mut Check<'_>,
) -> Vec<Settings> {
    let Some((sources, _)) = sources.get() else { return Vec::new() };
    let mut names: BTreeMap<&str, &At> = BTreeMap::new();
    let mut paths: BTreeMap<&str, &At> = BTreeMap::new();
    let mut checked = Vec::new();
    for (source, at) in &sources.items {
        if let Some((name, place)) = source.name.get() {
            if let Some(first) = names.get(name.as_str()) {
                let message = format!("two sources have this name, the first at {}", first.line());
                c.problems
                    .error(place, message, |p| p.found(format!("\"{name}\"")).hint("rename one of them"));
            } else {
                names.insert(name, place);
            }
        }
        if let Some((path, place)) = source.path.get() {
            if let Some(first) = paths.get(path.as_str()) {
                let message = format!("two sources read the same files, the first at {}", first.line());
                c.problems
                    .warn(place, message, |p| p.hint("each alert becomes two tickets; remove one of them"));
            } else {
                paths.insert(path, place);
            }
        }
        checked.extend(one(source, at, agent, c));
    }
    checked
}

fn one(source: &Source, at: &At, agent: Option<&Agent>, c: &mut Check<'_>) -> Option<Settings> {
    c.effective.begin("[[source]]", at.key.to_string());
    let name = c.required("name", &source.name, at, "a name for this source").and_then(|(text, place)| {
        let name = SourceName::new(text);
        if let Err(error) = &name {
            let expected = error.expected;
            c.problems.error(place, "this name cannot be used", |p| {
                p.found(format!("\"{text}\"")).expected(expected)
            });
        }
        c.effective.note_field("name", text.clone(), &source.name);
        name.ok()
    });
    let (kind, place) = c.required("kind", &source.kind, at, "\"suricata-eve\"")?;
    if *kind != SourceKind::SuricataEve {
        c.not_yet(place, &format!("kind = \"{}\"", kind.as_str()), "remove this source");
        return None;
    }
    c.effective.note_field("kind", kind.as_str(), &source.kind);
    foreign(source, *kind, c);
    let pattern =
        c.required("path", &source.path, at, "an absolute path, e.g. \"/var/log/suricata/eve*.json\"");
    let pattern = pattern.and_then(|(text, place)| {
        c.effective.note_field("path", text.clone(), &source.path);
        glob(text, place, c)
    });
    let severity_map = severities(&source.severity_map, c);
    let engine_map = engines(&source.engine_map, c);
    let signature_severity = c.value("signature_severity", &source.signature_severity, true, |v| *v);
    let time_zone = c.value("time_zone", &source.time_zone, "UTC".to_owned(), Clone::clone);
    let time_zone = time_zone.and_then(|text| {
        let zone = zone(&text);
        if let (None, Some(place)) = (&zone, source.time_zone.at()) {
            c.problems.error(place, "unknown time zone", |p| {
                p.found(format!("\"{text}\""))
                    .expected("an IANA name such as \"Europe/Vienna\", or \"+hh:mm\"")
                    .hint("names are looked up in /usr/share/zoneinfo (package tzdata)")
            });
        }
        zone
    });
    let agent = agent?;
    let name = name?;
    let format = Eve::new(eve::Settings {
        agent: agent.name.clone(),
        source: name.clone(),
        site: agent.site.clone(),
        zone: agent.zone.clone(),
        severity_map: severity_map?,
        engine_map: engine_map?,
        signature_severity: signature_severity?,
        time_zone: time_zone?,
    });
    let input = Input::Files { pattern: pattern? };
    Some(Settings { name, kind: kind.as_str(), input, format: Reads::new(format) })
}

/// A source of this kind with all defaults, for a file that is looked at and not followed.
///
/// # Errors
/// The kind is unknown, or not supported yet.
pub fn default_source(kind: &str, agent: &Agent) -> Result<Settings, String> {
    if kind != SourceKind::SuricataEve.as_str() {
        return Err(format!("a file of kind \"{kind}\" cannot be read yet"));
    }
    let name = SourceName::new("input").map_err(|e| e.to_string())?;
    let format = Eve::new(eve::Settings {
        agent: agent.name.clone(),
        source: name.clone(),
        site: agent.site.clone(),
        zone: agent.zone.clone(),
        severity_map: BTreeMap::new(),
        engine_map: BTreeMap::new(),
        signature_severity: true,
        time_zone: TimeZone::UTC,
    });
    let input = Input::Files { pattern: String::new() };
    Ok(Settings { name, kind: SourceKind::SuricataEve.as_str(), input, format: Reads::new(format) })
}

/// Keys of other kinds of sources.
fn foreign(source: &Source, kind: SourceKind, c: &mut Check<'_>) {
    let keys = [
        source.listen.at(),
        source.allow.at(),
        source.format.at(),
        source.url.at(),
        source.token.at(),
        source.tls.at(),
        source.poll_interval.at(),
    ];
    for at in keys.into_iter().flatten() {
        let message = format!("kind = \"{}\" has no use for it", kind.as_str());
        c.problems.error(at, message, |p| p.hint("remove it"));
    }
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
    c.problems.error(at, wrong, |p| {
        p.found(format!("\"{text}\"")).expected("an absolute path, e.g. \"/var/log/suricata/eve*.json\"")
    });
    None
}

fn severities(map: &Field<Named<SeverityWord>>, c: &mut Check<'_>) -> Option<BTreeMap<u32, Severity>> {
    let Some((named, _)) = map.get() else { return (!map.is_present()).then(BTreeMap::new) };
    let mut checked = BTreeMap::new();
    let mut shown = serde_json::Map::new();
    let mut wrong = false;
    for (key, SeverityWord(severity), at) in &named.0 {
        if let Some(priority) = key.parse::<u32>().ok().filter(|n| (1..=255).contains(n)) {
            checked.insert(priority, *severity);
            shown.insert(priority.to_string(), severity.as_str().into());
        } else {
            wrong = true;
            c.problems.error(at, "this is not a priority", |p| {
                p.found(format!("\"{key}\"")).expected("1 to 255, e.g. 1 = \"critical\"")
            });
        }
    }
    c.effective.note_field("severity_map", Value::Object(shown), map);
    (!wrong).then_some(checked)
}

fn engines(map: &Field<Named<EngineWord>>, c: &mut Check<'_>) -> Option<BTreeMap<String, Engine>> {
    let Some((named, _)) = map.get() else { return (!map.is_present()).then(BTreeMap::new) };
    let mut checked = BTreeMap::new();
    let mut shown = serde_json::Map::new();
    let mut wrong = false;
    for (category, EngineWord(engine), at) in &named.0 {
        if category.len() > CATEGORY_MAX {
            wrong = true;
            c.problems.error(at, "the category is too long", |p| {
                p.expected(format!("at most {CATEGORY_MAX} bytes"))
            });
        } else if checked.insert(category.trim().to_lowercase(), *engine).is_some() {
            wrong = true;
            c.problems.error(at, "the same category twice (case does not matter)", |p| p.hint("remove one"));
        }
        shown.insert(category.clone(), engine.as_str().into());
    }
    c.effective.note_field("engine_map", Value::Object(shown), map);
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
