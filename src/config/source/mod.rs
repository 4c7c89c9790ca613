//! `[[source]]` to Settings: a table of its own for each kind.
//!
//! To add a kind: a file with its table and its [`Kind`], and a line in `kinds!` below. A kind that is known and not
//! built yet is refused by name; a key of another kind is an unknown key.

mod defender;

mod parts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::check::Check;
use super::problem::At;
use super::read::{Field, List, Node, Read, Reader, Table, choice, quoted};
use super::values::Period;
use super::{Agent, parse_str};
use crate::model::{Engine, Severity, SourceName};
use crate::source::format::{self, Format};
use crate::source::{Input, Reads, Settings};

/// Shortest `silent_after`.
const SILENT_MIN: Duration = Duration::from_mins(1);

/// What a source kind brings.
trait Kind: Table + Read + JsonSchema {
    /// Its word in `kind`.
    const WORD: &'static str;
    /// The keys that it needs beside name and kind, with values that work.
    const LEAST: &'static str;

    /// Checks its own keys, all of them, whatever is wrong with the common ones.
    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings>;
}

/// What all kinds have in common, checked; `None`: wrong.
struct Common<'a> {
    name: Option<SourceName>,
    agent: Option<&'a Agent>,
    /// The names of all sources.
    all: &'a [String],
    /// Where the table is.
    at: &'a At,
}

impl Common<'_> {
    /// What every format is told.
    fn format(
        &self,
        severity_map: Option<BTreeMap<String, Severity>>,
        engine_map: Option<BTreeMap<String, Engine>>,
    ) -> Option<format::Settings> {
        let agent = self.agent?;
        Some(format::Settings {
            site: agent.site.clone(),
            zone: agent.zone.clone(),
            severity_map: severity_map?,
            engine_map: engine_map?,
            ..format::Settings::new(&agent.id, &agent.name, self.name.clone()?)
        })
    }

    /// The same, with the zone of times without one.
    fn zoned(
        &self,
        severity_map: Option<BTreeMap<String, Severity>>,
        engine_map: Option<BTreeMap<String, Engine>>,
        time_zone: Option<TimeZone>,
    ) -> Option<format::Settings> {
        Some(format::Settings { time_zone: time_zone?, ..self.format(severity_map, engine_map)? })
    }

    /// The source.
    fn settings(self, kind: &'static str, input: Input, format: impl Format) -> Option<Settings> {
        Some(Settings { name: self.name?, kind, input, format: Reads::new(format), silent_after: None })
    }
}

/// Declares the table of a kind that may be silent: the keys that all of them have, and its own.
macro_rules! source {
    ($(#[$meta:meta])* $name:ident = $word:literal { $($keys:tt)* }) => {
        $crate::config::read::table! {
            $(#[$meta])*
            $name {
                /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
                name: String,
                /// What it is.
                #[schemars(extend("const" = $word))]
                kind: String,
                /// A system notification when no record came of it for so long, at least 1m; default none.
                silent_after: $crate::config::values::Period,
                $($keys)*
            }
        }
    };
}
use source;

/// The kinds, each with those of the keys in question that it has.
macro_rules! kinds {
    ($($module:ident::$name:ident($($silent_after:ident $(, $path:ident)?)?),)*) => {
        $(mod $module;)*
        $(#[cfg(test)] pub(in crate::config) use $module::$name;)*

        /// A `[[source]]`, by its kind.
        #[derive(Clone, Debug)]
        pub(in crate::config) enum Source {
            $($name($module::$name),)*
            /// Of a kind that cannot be read: absent, wrong, or not built yet.
            Other(Other),
        }

        /// The kinds that are built.
        const WORDS: &[&str] = &[$(<$module::$name as Kind>::WORD),*];

        /// A table of a kind that is built.
        fn read_kind(word: &str, node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Source> {
            match word {
                $(<$module::$name as Kind>::WORD => Read::read(node, at, reader).map(Source::$name),)*
                _ => None,
            }
        }

        impl Source {
            fn name(&self) -> &Field<String> {
                match self {
                    $(Self::$name(source) => &source.name,)*
                    Self::Other(source) => &source.name,
                }
            }

            /// How long nothing may come of it.
            fn silent_after(&self) -> Option<&Field<Period>> {
                match self {
                    $($(Self::$name(source) => Some(&source.$silent_after),)?)*
                    _ => None,
                }
            }

            /// Its files, where it reads any.
            fn path(&self) -> Option<&Field<String>> {
                match self {
                    $($($(Self::$name(source) => Some(&source.$path),)?)?)*
                    _ => None,
                }
            }

            fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
                match self {
                    $(Self::$name(source) => {
                        c.effective.note_field("kind", <$module::$name as Kind>::WORD, &source.kind);
                        source.check(common, c)
                    })*
                    Self::Other(source) => source.check(&common, c),
                }
            }
        }

        /// What a source of this kind has to have beside name and kind.
        fn least(kind: &str) -> Option<&'static str> {
            match kind {
                $(<$module::$name as Kind>::WORD => Some(<$module::$name as Kind>::LEAST),)*
                _ => None,
            }
        }

        /// The kind whose key this is, for keys that stand in the wrong table.
        pub(in crate::config) fn kind_of_key(key: &str) -> Option<&'static str> {
            let kinds: &[(&'static str, &[&str])] =
                &[$((<$module::$name as Kind>::WORD, <$module::$name as Table>::KEYS)),*];
            kinds.iter().find(|(_, keys)| keys.contains(&key)).map(|(word, _)| *word)
        }

        impl JsonSchema for Source {
            fn schema_name() -> Cow<'static, str> {
                "Source".into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let kinds = [$(generator.subschema_for::<$module::$name>()),*];
                json_schema!({ "oneOf": kinds, "description": "What is read." })
            }
        }
    };
}

kinds! {
    suricata_eve::SuricataEve(silent_after, path),
    defender_sensor::DefenderSensor(silent_after),
    defender_console::DefenderConsole(silent_after),
    zeek::Zeek(silent_after, path),
    json_lines::JsonLines(silent_after, path),
    http::Http(silent_after),
    syslog::Syslog(silent_after, path),
    host::Host(),
}

#[cfg(test)]
pub(in crate::config) use syslog::SyslogTls;

/// Kinds that are known and not built yet.
const LATER: [&str; 0] = [];

impl Read for Source {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = node.get_ref().as_table() else {
            reader.wrong_type(at, node, "a table of name, kind and what the kind needs");
            return None;
        };
        let kind = table.iter().find(|(key, _)| key.get_ref() == "kind");
        let word = kind.and_then(|(_, node)| node.get_ref().as_str()).unwrap_or_default();
        if WORDS.contains(&word) {
            return read_kind(word, node, at, reader);
        }
        // What belongs to a kind that is not known is not judged.
        let mut other = Other::default();
        for (key, node) in table {
            let name: &str = key.get_ref();
            let here = reader.at(key.span(), super::problem::join(&at.key, name));
            match name {
                "name" => other.name.fill(node, here, reader),
                "kind" => other.kind.fill(node, here, reader),
                _ => {}
            }
        }
        Some(Self::Other(other))
    }
}

/// What is read of a source whose kind cannot be read.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Other {
    name: Field<String>,
    kind: Field<LaterWord>,
}

/// A kind that is known, and not built.
#[derive(Clone, Copy, Debug)]
struct LaterWord(&'static str);

impl Read for LaterWord {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let all = [WORDS, &LATER].concat();
        choice(node, at, reader, &all, &LATER).map(Self)
    }
}

impl Other {
    fn check(&self, common: &Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let (LaterWord(kind), at) = c.required("kind", &self.kind, common.at, &words())?;
        c.not_yet(at, &format!("kind = \"{kind}\""), "remove this source");
        None
    }
}

/// Whether a kind is built.
pub(in crate::config) fn is_built(kind: &str) -> bool {
    WORDS.contains(&kind)
}

/// The kinds that are built, for people.
pub(in crate::config) fn words() -> String {
    if let [only] = WORDS { quoted(&[only]) } else { format!("one of {}", quoted(WORDS)) }
}

/// Checks all sources; those with an error are left out.
pub(in crate::config) fn check(
    sources: &Field<List<Source>>,
    agent: Option<&Agent>,
    c: &mut Check<'_>,
) -> Vec<Settings> {
    let Some((sources, _)) = sources.get() else { return Vec::new() };
    let mut names = BTreeMap::new();
    let mut paths: BTreeMap<&str, &At> = BTreeMap::new();
    let mut checked = Vec::new();
    let all: Vec<String> =
        sources.items.iter().filter_map(|(source, _)| Some(source.name().get()?.0.clone())).collect();
    for (source, at) in &sources.items {
        c.name_once(&mut names, "sources", source.name());
        if let Some((path, place)) = source.path().and_then(Field::get) {
            if let Some(first) = paths.get(path.as_str()) {
                let message = format!("two sources read the same files, the first at {}", first.line());
                c.problems
                    .warn(place, message, |p| p.hint("each alert becomes two tickets; remove one of them"));
            } else if let Some((other, first)) = paths.iter().find(|(other, _)| may_meet(path, other)) {
                let message = format!("this and \"{other}\" at {} can lead to the same file", first.line());
                c.problems.warn(place, message, |p| {
                    p.quoted(path).hint("each alert of it becomes two tickets; let only one lead to it")
                });
                paths.insert(path, place);
            } else {
                paths.insert(path, place);
            }
        }
        c.effective.begin("[[source]]", at.key.to_string());
        let name = c.named(source.name(), at, "a name for this source", SourceName::new);
        let silent_after = source.silent_after().map_or(Some(None), |field| silence(field, c));
        let settings = source.check(Common { name, agent, all: &all, at }, c);
        checked.extend(
            settings.zip(silent_after).map(|(settings, silent_after)| Settings { silent_after, ..settings }),
        );
    }
    checked
}

/// `silent_after`; `Some(None)`: it is not said, `None`: it is wrong.
#[expect(clippy::option_option, reason = "absent and wrong are not the same")]
fn silence(field: &Field<Period>, c: &mut Check<'_>) -> Option<Option<Duration>> {
    if !field.is_present() {
        return Some(None);
    }
    c.duration("silent_after", field, "24h", SILENT_MIN).map(Some)
}

/// Whether one pattern leads to the other, taken as a path: `eve*.json` and `eve.json`.
fn may_meet(one: &str, other: &str) -> bool {
    let leads = |pattern: &str, path: &str| {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, options))
    };
    leads(one, other) || leads(other, one)
}

/// A source of this kind with all defaults, for a file that is looked at and not followed.
///
/// # Errors
/// The kind is unknown, or not supported yet.
pub fn default_source(kind: &str, agent: &Agent) -> Result<Settings, String> {
    let Some(least) = least(kind) else {
        let state = if LATER.contains(&kind) { "is not supported yet" } else { "is unknown" };
        return Err(format!("kind = \"{kind}\" {state}; expected {}", words()));
    };
    let quote = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!(
        "[sync]\nenabled = false\n[agent]\nname = {}\nid = {}\n",
        quote(&agent.name),
        quote(&agent.id)
    );
    for (key, value) in [("site", &agent.site), ("zone", &agent.zone)] {
        text.extend(value.iter().map(|value| format!("{key} = {}\n", quote(value))));
    }
    text.extend(["[[source]]\nname = \"input\"\nkind = \"", kind, "\"\n", least, "\n"]);
    let mut loaded = parse_str("defaults", &text).map_err(|e| e.to_string())?;
    Ok(loaded.config.sources.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_patterns_that_can_lead_to_one_file_are_known() {
        for (one, other, meet) in [
            ("/l/eve.json", "/l/eve*.json", true),
            ("/l/*.json", "/l/eve*.json", true),
            ("/l/eve-a.json", "/l/eve-b.json", false),
            ("/l/*.json", "/l/x/eve.json", false),
        ] {
            assert_eq!((may_meet(one, other), may_meet(other, one)), (meet, meet), "{one} {other}");
        }
    }

    #[test]
    fn every_kind_works_with_its_defaults() {
        let agent = Agent {
            name: "line \"4\"".to_owned(),
            id: "an-id".to_owned(),
            id_from: crate::config::IdFrom::Config,
            role: crate::config::Role::Sensor,
            site: Some("Plant".to_owned()),
            zone: None,
        };
        for kind in WORDS {
            let source = default_source(kind, &agent).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!((source.kind, source.name.as_str()), (*kind, "input"));
        }
        for kind in LATER {
            assert!(default_source(kind, &agent).unwrap_err().contains("is not supported yet"));
        }
        assert!(default_source("snort", &agent).unwrap_err().contains("is unknown"));
    }
}
