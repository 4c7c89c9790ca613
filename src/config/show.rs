//! The effective config: every value with where it came from, secrets masked. What `otrelay config show` prints.
//!
//! The checks write it down while they decide, so that a default shown here is the default that is used.

use std::fmt::{self, Write as _};

use serde::Serialize;
use serde_json::Value;

use super::problem::{At, Place, join};
use super::read::Field;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file and the line in it.
    File(Place),
    /// Nobody set it.
    Default,
    /// An environment variable, by name.
    Environment(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(place) => write!(f, "{place}"),
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment, ${name}"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<&At> for Origin {
    fn from(at: &At) -> Self {
        Self::File(at.line())
    }
}

/// One value.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its key with its tables.
    pub key: String,
    /// Text, number, truth, a list or a table of them; a secret is where it is, in parentheses.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
    /// The last part of `key`.
    #[serde(skip)]
    pub name: String,
}

/// The values of one table.
#[derive(Clone, Debug)]
pub struct Section {
    /// As in a file: `[sync]`, `[[rule]]`.
    pub header: String,
    /// Its values, in the order of the schema.
    pub entries: Vec<Entry>,
    path: String,
}

/// All values. `Display` is TOML with the origins as comments.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// Tables in the order of the schema.
    pub sections: Vec<Section>,
}

impl Effective {
    /// All values, one after the other.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.sections.iter().flat_map(|section| &section.entries)
    }

    pub(super) fn begin(&mut self, header: impl Into<String>, path: impl Into<String>) {
        self.sections.push(Section { header: header.into(), entries: Vec::new(), path: path.into() });
    }

    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>, origin: Origin) {
        if let Some(section) = self.sections.last_mut() {
            let key = join(&section.path, name);
            section.entries.push(Entry { key, value: value.into(), origin, name: name.to_owned() });
        }
    }

    /// Notes a value that the file may leave out.
    pub(super) fn note_field<T>(&mut self, name: &str, value: impl Into<Value>, field: &Field<T>) {
        let origin = field.at().map_or(Origin::Default, Origin::from);
        self.note(name, value, origin);
    }
}

impl Serialize for Effective {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.entries())
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, section) in self.sections.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", section.header)?;
            let lines: Vec<(String, &Origin)> = section
                .entries
                .iter()
                .map(|entry| (format!("{} = {}", entry.name, toml(&entry.value)), &entry.origin))
                .collect();
            let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or(0).min(60);
            for (line, origin) in lines {
                writeln!(f, "{line:width$}  # {origin}")?;
            }
        }
        Ok(())
    }
}

/// JSON strings and numbers are TOML as well; only tables are written in another way.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let mut text = String::from("{");
            for (n, (key, value)) in entries.iter().enumerate() {
                let comma = if n > 0 { "," } else { "" };
                let _ = write!(text, "{comma} {} = {}", Value::from(key.as_str()), toml(value));
            }
            text.push_str(" }");
            text
        }
        // DEL is the one control character that JSON writes as it is and TOML does not take.
        other => other.to_string().replace('\u{7f}', "\\u007f"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_toml_with_comments() {
        let mut effective = Effective::default();
        effective.begin("[agent]", "agent");
        effective.note("name", "line\"4\u{7f}", Origin::Default);
        effective.note("map", serde_json::json!({"1": "critical"}), Origin::Environment("X"));
        effective.note("list", serde_json::json!(["a", 1, true]), Origin::Default);
        let text = effective.to_string();
        assert_eq!(
            text,
            "[agent]\nname = \"line\\\"4\\u007f\"      # default\nmap = { \"1\" = \"critical\" }  # environment, $X\n\
             list = [\"a\", 1, true]       # default\n"
        );
        let read: toml::Table = text.parse().unwrap();
        assert_eq!(read["agent"]["name"].as_str(), Some("line\"4\u{7f}"));
        assert_eq!(serde_json::to_value(&effective).unwrap()[1]["key"], "agent.map");
    }
}
