//! `[[exclude]]` to Settings.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::check::Check;
use super::file::Exclude;
use super::problem::At;
use super::read::{Field, List};
use super::values::{EngineWord, Moment, OneOrMore};
use crate::model::gather::Gather as _;
use crate::model::{Timestamp, protocol};
use crate::rules::exclude::{EXCLUDES_MAX, ExcludeSettings, Weekly, WeeklyError};
use crate::rules::pattern::Pattern;

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 512;
/// Longest name, in characters.
const NAME_MAX: usize = 100;

/// Checks all exclusions; `None` when one has an error.
pub(super) fn check(excludes: &Field<List<Exclude>>, c: &mut Check<'_>) -> Option<Vec<ExcludeSettings>> {
    let Some((excludes, place)) = excludes.get() else { return Some(Vec::new()) };
    if excludes.items.len() > EXCLUDES_MAX {
        c.problems.error(place, "too many exclusions", |p| {
            p.found(excludes.items.len().to_string()).expected(format!("at most {EXCLUDES_MAX}"))
        });
        return None;
    }
    let zone = TimeZone::system();
    let mut names = BTreeMap::new();
    let mut checked = Vec::with_capacity(excludes.items.len());
    for (exclude, at) in &excludes.items {
        c.name_once(&mut names, "exclusions", &exclude.name);
        checked.push(one(exclude, at, &zone, c));
    }
    checked.into_iter().collect()
}

fn one(exclude: &Exclude, at: &At, zone: &TimeZone, c: &mut Check<'_>) -> Option<ExcludeSettings> {
    c.effective.begin("[[exclude]]", at.key.to_string());
    let named = c.required("name", &exclude.name, at, "a name: what is excluded is counted by it");
    let name = named.and_then(|_| c.line("name", &exclude.name, NAME_MAX));
    let from = moment("from", &exclude.from, zone, c);
    let until = moment("until", &exclude.until, zone, c);
    let weekly = listed("weekly", &exclude.weekly, c, |text| {
        Weekly::parse(text).map_err(|WeeklyError| WeeklyError.to_string())
    });
    let sources = patterns("sources", &exclude.sources, c);
    let sensors = patterns("sensors", &exclude.sensors, c);
    let titles = patterns("titles", &exclude.titles, c);
    let addresses = listed("addresses", &exclude.addresses, c, network);
    let protocols = listed("protocols", &exclude.protocols, c, |text| {
        let folded = protocol::fold(text);
        if folded.is_empty() { Err("a name with letters or digits".to_owned()) } else { Ok(folded) }
    });
    let engines = engines(&exclude.engines, c);
    let settings = ExcludeSettings {
        name: name?,
        from: from?,
        until: until?,
        weekly: weekly?,
        zone: zone.clone(),
        sources: sources?,
        sensors: sensors?,
        addresses: addresses?,
        titles: titles?,
        engines: engines?,
        protocols: protocols?.map(BTreeSet::from_iter),
    };
    if settings.is_bare() {
        c.problems.error(at, "an exclusion without a condition would take every alert", |p| {
            p.expected("at least one of from, until, weekly, sources, sensors, addresses, titles, engines, protocols")
        });
        return None;
    }
    if let (Some(from), Some(until), Some(place)) = (settings.from, settings.until, exclude.until.at())
        && until <= from
    {
        c.problems.error(place, "it ends before it begins", |p| p.expected("a time after `from`"));
        return None;
    }
    Some(settings)
}

/// Outer `None`: wrong. Inner `None`: no condition.
#[expect(
    clippy::option_option,
    reason = "wrong, absent and present are three answers, and `?` takes the first"
)]
fn moment(
    name: &str,
    field: &Field<Moment>,
    zone: &TimeZone,
    c: &mut Check<'_>,
) -> Option<Option<Timestamp>> {
    let Some((Moment(text), at)) = field.get() else { return (!field.is_present()).then_some(None) };
    c.effective.note_field(name, text.clone(), field);
    let time = instant(text, zone);
    if time.is_none() {
        c.problems.error(at, "this is not a time", |p| {
            p.quoted(text).expected(
                "e.g. \"2026-12-01T22:00\" (local time of this machine) or \"2026-12-01T22:00:00+01:00\"",
            )
        });
    }
    time.map(Some)
}

/// A time with an offset, or one of this machine's clock on the wall.
fn instant(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        zone.to_ambiguous_timestamp(civil).compatible().ok()
    })?;
    Some(Timestamp::from_micros(instant.as_microsecond()))
}

fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let address = || text.parse().ok().map(|ip: std::net::IpAddr| IpNet::from(ip.to_canonical()));
    let network = text.parse().ok().or_else(address);
    network.ok_or_else(|| "an address or a network, e.g. \"10.20.0.0/16\"".to_owned())
}

#[expect(clippy::option_option, reason = "as for moment")]
fn patterns(name: &str, field: &Field<OneOrMore<String>>, c: &mut Check<'_>) -> Option<Option<Vec<Pattern>>> {
    listed(name, field, c, |text| {
        let fits = !text.trim().is_empty() && text.len() <= PATTERN_MAX;
        if fits { Ok(Pattern::new(text)) } else { Err(format!("1 to {PATTERN_MAX} bytes, `*` is anything")) }
    })
}

#[expect(clippy::option_option, reason = "as for moment")]
fn engines(
    field: &Field<OneOrMore<EngineWord>>,
    c: &mut Check<'_>,
) -> Option<Option<BTreeSet<crate::model::Engine>>> {
    let Some((OneOrMore(words), _)) = field.get() else { return (!field.is_present()).then_some(None) };
    c.note_list("engines", field, words, |word| word.0.as_str());
    not_empty(field, words.written, c)?;
    let engines: BTreeSet<_> = words.items.iter().map(|(word, _)| word.0).into_set();
    (words.items.len() == words.written).then_some(Some(engines))
}

/// Every text of a list through `read`; the error is what was expected.
#[expect(clippy::option_option, reason = "as for moment")]
pub(super) fn listed<T>(
    name: &str,
    field: &Field<OneOrMore<String>>,
    c: &mut Check<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Option<Vec<T>>> {
    let Some((OneOrMore(texts), _)) = field.get() else { return (!field.is_present()).then_some(None) };
    c.note_list(name, field, texts, |text| text.as_str());
    not_empty(field, texts.written, c)?;
    let mut all = Vec::with_capacity(texts.items.len());
    for (text, at) in &texts.items {
        match read(text) {
            Ok(value) => all.push(value),
            Err(expected) => {
                c.problems.error(at, "this cannot be used", |p| p.quoted(text).expected(expected));
            }
        }
    }
    (all.len() == texts.written).then_some(Some(all))
}

fn not_empty<T>(field: &Field<T>, written: usize, c: &mut Check<'_>) -> Option<()> {
    if let (0, Some(at)) = (written, field.at()) {
        c.problems.error(at, "an empty list matches nothing", |p| p.hint("remove the key to match any"));
        return None;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_str;

    fn excludes(keys: &str) -> Result<Vec<ExcludeSettings>, String> {
        let text = format!(
            "[sync]\nenabled = false\n[agent]\nname = \"a\"\nid = \"a\"\n[[exclude]]\nname = \"x\"\n{keys}\n\
             [[source]]\nname = \"s\"\nkind = \"suricata-eve\"\npath = \"/x\"\n"
        );
        let loaded = parse_str("x.toml", &text).map_err(|error| error.to_string())?;
        Ok(loaded.config.intake.exclusions.0)
    }

    #[test]
    fn every_key() {
        let all = excludes(
            "from = \"2026-12-01T22:00:00+01:00\"\nuntil = 2026-12-02T06:00:00Z\nweekly = [\"Sun 02:00-04:00\", \"daily 12:00-13:00\"]\n\
             sources = \"s\"\nsensors = [\"line4-*\"]\naddresses = [\"10.0.0.0/8\", \"::1\"]\ntitles = [\"*scan*\"]\n\
             engines = [\"malware\", \"protocol-violation\"]\nprotocols = [\"s7comm\"]",
        );
        let one = &all.unwrap()[0];
        assert_eq!(one.from.unwrap().to_string(), "2026-12-01T21:00:00Z");
        assert_eq!(one.until.unwrap().to_string(), "2026-12-02T06:00:00Z");
        assert_eq!((one.weekly.as_ref().unwrap().len(), one.addresses.as_ref().unwrap().len()), (2, 2));
        assert!(one.protocols.as_ref().unwrap().contains("siemenss7"));
        assert_eq!(one.engines.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn a_time_without_a_zone_is_the_machines() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(instant("2026-12-01T22:00", &zone).unwrap().to_string(), "2026-12-01T20:00:00Z");
        assert_eq!(instant("2026-12-01 22:00:30", &zone).unwrap().to_string(), "2026-12-01T20:00:30Z");
        assert_eq!(instant("2026-12-01", &zone).unwrap().to_string(), "2026-11-30T22:00:00Z");
        assert_eq!(instant("tomorrow", &zone), None);
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        for (keys, words) in [
            ("", "an exclusion without a condition"),
            ("titles = []", "an empty list matches nothing"),
            ("titles = [\" \"]", "expected 1 to 512 bytes"),
            ("weekly = \"Sunday\"", "expected days and hours"),
            ("addresses = [\"10.0.0.0/33\"]", "expected an address or a network"),
            ("from = \"soon\"", "this is not a time"),
            ("from = \"2026-12-02T00:00Z\"\nuntil = \"2026-12-01T00:00Z\"", "it ends before it begins"),
            ("engines = [\"magic\"]", "malware"),
            ("title = \"x\"", "unknown key"),
            ("titles = 7", "text"),
        ] {
            let error = excludes(keys).unwrap_err();
            assert!(error.contains(words), "{keys}: {error}");
        }
    }
}
