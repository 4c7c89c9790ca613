//! otrelay.toml(5) from the schema of the config: a section for each table, an entry for each key. What a key means and
//! what its default is stands in the schema, which is made of the doc comments of the reader itself. Values to values.

use std::io;

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use serde_json::{Map, Value};

use super::{MANUAL, release_date, source};

/// Tables in tables: deeper than any config is, so that a schema that names itself ends too.
const DEPTH_MAX: usize = 8;

const INTRO: [&str; 5] = [
    "`/etc/otrelay/otrelay.toml` is read first, then every `*.toml` of the directory `conf.d` beside it, in the order of their names. Lists of tables are appended to each other, other tables are merged key by key. A name that is used twice and a key that is not known are errors.",
    "`--config FILE` and the environment variable `OTRELAY_CONFIG` name another file.",
    "`otrelay check` says everything that is wrong, with file, line and key, and ends with 78. `otrelay config show` prints every value in effect and where it came from, `otrelay config example` this file with all keys and their defaults, `otrelay config schema` a JSON Schema for editors, with `--alert` that of an alert as JSON.",
    "A running service reads the files again on SIGHUP (`systemctl reload otrelay`) and keeps what it had when they are wrong.",
    "Keys that are marked as not supported yet are known, and refused with that reason.",
];

const VALUES: [(&str, &str); 5] = [
    (
        "duration",
        "Text of numbers with units: `\"90s\"`, `\"5m\"`, `\"1h 30m\"`, `\"7d\"`. Units are `d`, `h`, `m`, `s` and `ms`.",
    ),
    ("size", "Text of a number and a unit: `\"64MiB\"`, `\"1GB\"`."),
    (
        "secret",
        "Where a secret is: `{ credential = \"NAME\" }`, a systemd credential; `{ file = \"/PATH\" }`, a file that only root, the service and its group may read; `{ env = \"NAME\" }`, an environment variable. The secret itself as bare text works and is warned about.",
    ),
    (
        "template",
        "Text with `{{ … }}` over the values of the alert; `otrelay explain` shows what comes of it.",
    ),
    ("table", "Has a section of its own below."),
];

const FILES: [(&str, &str); 3] = [
    ("/etc/otrelay/otrelay.toml", "The config. Readable by root and the group otrelay only."),
    ("/etc/otrelay/conf.d/", "More of it; files that end in .toml."),
    ("/etc/otrelay/secrets/", "A place for secrets that are files. Not readable by others."),
];

/// The smallest config that does something.
pub(super) const EXAMPLE: &str = r#"[servicenow.prod]
instance = "https://acme.service-now.com"
auth = "password"
client_id = "0f3c"
client_secret = { file = "/etc/otrelay/secrets/client-secret" }
username = "otrelay"
password = { file = "/etc/otrelay/secrets/password" }

[[source]]
name = "eve"
kind = "suricata-eve"
path = "/var/log/suricata/eve*.json"

[[rule]]
name = "OT security incidents"
min_severity = "major"
[[rule.action]]
table = "incident"
"#;

/// The page as the text of a roff file.
pub(super) fn render(schema: &Value) -> io::Result<Vec<u8>> {
    let mut page = Page { schema, roff: Roff::new() };
    page.head();
    page.tables(schema, "", 0);
    page.tail();
    let mut text = Vec::new();
    page.roff.to_writer(&mut text)?;
    Ok(text)
}

struct Page<'a> {
    schema: &'a Value,
    roff: Roff,
}

impl<'a> Page<'a> {
    fn head(&mut self) {
        let (date, source) = (release_date(), source());
        self.roff.control("TH", ["otrelay.toml", "5", &date, &source, MANUAL]);
        self.section("NAME");
        self.roff.text([roman("otrelay.toml - what otrelay reads, decides and pushes")]);
        self.section("DESCRIPTION");
        for (index, text) in INTRO.iter().enumerate() {
            if index > 0 {
                self.roff.control("PP", []);
            }
            self.roff.text(marked(text));
        }
        self.section("VALUES");
        self.entries(&VALUES);
    }

    fn tail(&mut self) {
        self.section("FILES");
        self.entries(&FILES);
        self.section("EXAMPLES");
        self.roff.control("EX", []);
        for line in EXAMPLE.lines() {
            // An empty line would be a paragraph to some formatters.
            let line = if line.is_empty() { " " } else { line };
            self.roff.text([roman(line)]);
        }
        self.roff.control("EE", []);
        self.section("SEE ALSO");
        let pages = [
            ("otrelay", "(1), "),
            ("otrelay-check", "(1), "),
            ("otrelay-config", "(1), "),
            ("otrelay", "(8)"),
        ];
        self.roff.text(pages.map(|(page, section)| [bold(page), roman(section)]).concat());
    }

    fn section(&mut self, title: &str) {
        self.roff.control("SH", [title]);
    }

    fn entries(&mut self, entries: &[(&str, &str)]) {
        for (name, text) in entries {
            self.roff.control("TP", []);
            self.roff.text([bold(*name)]);
            self.roff.text(marked(text));
        }
    }

    /// Every table below `table`, each with its keys, then with the tables in it. `path` is where `table` stands.
    fn tables(&mut self, table: &'a Value, path: &str, depth: usize) {
        if depth == DEPTH_MAX {
            return;
        }
        for (key, node) in properties(table) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let inner = self.resolve(node);
            let (inner, path, heading) = if is_table(inner) {
                (inner, path.clone(), format!("[{path}]"))
            } else if let Some(item) =
                node.get("items").map(|item| self.resolve(item)).filter(|item| is_table(item))
            {
                (item, path.clone(), format!("[[{path}]]"))
            } else if let Some(kinds) = node["items"].get("$ref").and_then(|_| self.kinds(&node["items"])) {
                for item in kinds {
                    let kind = item["properties"]["kind"]["const"].as_str().unwrap_or_default();
                    self.section(&format!("[[{path}]] of kind {kind}"));
                    self.roff.text(marked(description(item).unwrap_or_default()));
                    self.keys(item);
                    self.tables(item, &path, depth + 1);
                }
                continue;
            } else if let Some(item) =
                values(inner).map(|item| self.resolve(item)).filter(|item| is_table(item))
            {
                let path = format!("{path}.NAME");
                (item, path.clone(), format!("[{path}]"))
            } else {
                continue;
            };
            self.section(&heading);
            self.roff.text(marked(description(node).unwrap_or_default()));
            self.keys(inner);
            self.tables(inner, &path, depth + 1);
        }
    }

    /// The tables of which one has to stand there, by its kind.
    fn kinds(&self, node: &'a Value) -> Option<Vec<&'a Value>> {
        let kinds: Vec<_> =
            self.resolve(node)["oneOf"].as_array()?.iter().map(|kind| self.resolve(kind)).collect();
        kinds.iter().all(|kind| is_table(kind)).then_some(kinds)
    }

    fn keys(&mut self, table: &'a Value) {
        let required: Vec<&str> =
            table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, node) in properties(table) {
            let inner = self.resolve(node);
            let kind = self.kind(node);
            let must = if required.contains(&key.as_str()) { ", required" } else { "" };
            self.roff.control("TP", []);
            self.roff.text([bold(key.clone()), roman(" ("), italic(kind), roman(format!("{must})"))]);
            self.roff.text(marked(description(node).unwrap_or_default()));
            self.choices(inner);
        }
    }

    /// The words that may stand there, each with its meaning.
    fn choices(&mut self, node: &Value) {
        let Some(choices) = node["oneOf"].as_array() else { return };
        self.roff.control("RS", []);
        for choice in choices {
            self.roff.control("TP", []);
            self.roff.text([bold(quoted(&choice["const"]))]);
            self.roff.text(marked(description(choice).unwrap_or_default()));
        }
        self.roff.control("RE", []);
    }

    /// What kind of value a key takes, in words.
    fn kind(&self, node: &'a Value) -> String {
        let inner = self.resolve(node);
        if let Some(words) = inner["enum"].as_array() {
            return words.iter().map(quoted).collect::<Vec<_>>().join(" | ");
        }
        if let Some(kinds) = inner["anyOf"].as_array() {
            let secret = kinds.iter().any(|kind| kind["properties"].get("credential").is_some());
            return if secret {
                "secret".into()
            } else {
                kinds.iter().map(|kind| self.kind(kind)).collect::<Vec<_>>().join(" or ")
            };
        }
        if inner.get("const").is_some() {
            return quoted(&inner["const"]);
        }
        if inner.get("oneOf").is_some() {
            return "word".into();
        }
        match inner["type"].as_str() {
            Some("boolean") => "true | false".into(),
            Some("integer") => "number".into(),
            Some("array") => format!("list of {}", self.kind(&inner["items"])),
            Some("object") => values(inner)
                .map(|value| self.resolve(value))
                .filter(|value| !is_table(value))
                .map_or_else(|| "table".into(), |value| format!("table of {}", self.kind(value))),
            _ => measure(inner["pattern"].as_str()).into(),
        }
    }

    /// What a reference stands for; anything else stands for itself.
    fn resolve(&self, node: &'a Value) -> &'a Value {
        let name = node["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/"));
        name.and_then(|name| self.schema["$defs"].get(name)).unwrap_or(node)
    }
}

/// The measure that a pattern is of. The readers of durations and sizes bring their own; other text has none.
fn measure(pattern: Option<&str>) -> &'static str {
    match pattern {
        Some(pattern) if pattern.contains("|ms)") => {
            if pattern.contains("all|") {
                "\"all\" or duration"
            } else {
                "duration"
            }
        }
        Some(pattern) if pattern.contains("[bB]") => "size",
        _ => "text",
    }
}

fn properties(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flat_map(Map::iter)
}

/// The schema of the values of a table whose keys the operator chooses.
fn values(node: &Value) -> Option<&Value> {
    node.get("additionalProperties").filter(|values| values.is_object())
}

fn is_table(node: &Value) -> bool {
    node["type"] == "object" && values(node).is_none()
}

fn description(node: &Value) -> Option<&str> {
    node["description"].as_str()
}

fn quoted(word: &Value) -> String {
    format!("\"{}\"", word.as_str().unwrap_or_default())
}

/// Text with `words` that are to be typed set bold.
fn marked(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{self, Environment};

    fn page() -> String {
        String::from_utf8(render(&config::schema()).unwrap()).unwrap()
    }

    /// The lines of the section with this heading, as they are in the page.
    fn section(page: &str, heading: &str) -> String {
        let begin = format!(".SH {heading}\n");
        let (_, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no section {heading} in\n{page}"));
        rest.split(".SH ").next().unwrap().to_owned()
    }

    fn has_key(section: &str, key: &str) -> bool {
        section.contains(&format!("\\fB{key}\\fR (")) || section.contains(&format!(".B {key}\n"))
    }

    #[test]
    fn every_key_of_the_schema_is_in_the_section_of_its_table() {
        let (schema, page) = (config::schema(), page());
        let homes = [
            ("[agent]", "Agent"),
            ("[buffer]", "Buffer"),
            ("[devices]", "Devices"),
            ("[[rule]]", "Rule"),
            ("[[rule.action]]", "Action"),
            ("[servicenow.NAME]", "Destination"),
            ("[servicenow.NAME.proxy]", "Proxy"),
            ("[servicenow.NAME.tls]", "Tls"),
            ("\"[[source]] of kind suricata-eve\"", "SuricataEve"),
            ("\"[[source]] of kind defender-sensor\"", "DefenderSensor"),
            ("\"[[source]] of kind defender-console\"", "DefenderConsole"),
            ("\"[[source]] of kind zeek\"", "Zeek"),
            ("\"[[source]] of kind json-lines\"", "JsonLines"),
            ("\"[[source]] of kind http\"", "Http"),
            ("\"[[source]] of kind host\"", "Host"),
            ("[[exclude]]", "Exclude"),
            ("[[redact]]", "Redact"),
            ("[[test]]", "Case"),
            ("[test.input]", "CaseInput"),
            ("[test.expect]", "CaseExpect"),
            ("\"[[source]] of kind syslog\"", "Syslog"),
            ("[source.tls]", "SyslogTls"),
            ("[status]", "Status"),
            ("[sync]", "Sync"),
        ];
        for (heading, table) in homes {
            let section = section(&page, heading);
            for (key, _) in properties(&schema["$defs"][table]) {
                assert!(has_key(&section, key), "{heading} {key} is not in\n{section}");
            }
        }
        // A table that is new in the schema has to be in the list above.
        let tables = schema["$defs"].as_object().unwrap().iter();
        for (name, _) in tables.filter(|(_, table)| properties(table).next().is_some()) {
            assert!(homes.iter().any(|(_, table)| table == name), "{name} has no section");
        }
    }

    #[test]
    fn a_measure_is_never_called_mere_text() {
        let schema = config::schema();
        let mut measured = 0;
        for table in schema["$defs"].as_object().unwrap().values() {
            for (key, node) in properties(table).filter(|(_, node)| node["pattern"].is_string()) {
                assert_ne!(measure(node["pattern"].as_str()), "text", "{key}");
                measured += 1;
            }
        }
        assert!(measured >= 5, "{measured}");
    }

    #[test]
    fn kinds_defaults_choices_and_duties_are_said() {
        let page = page();
        let sync = section(&page, "[sync]");
        assert!(sync.contains("duration") && sync.contains("Default 60m"), "{sync}");
        let buffer = section(&page, "[buffer]");
        assert!(buffer.contains("size") && buffer.contains("shed\\-lowest"), "{buffer}");
        let destination = section(&page, "[servicenow.NAME]");
        assert!(destination.contains(", required)") && destination.contains("secret"), "{destination}");
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        let schema = json!({
            "properties": { "loop": { "$ref": "#/$defs/Loop" } },
            "$defs": { "Loop": { "type": "object", "properties": { "loop": { "$ref": "#/$defs/Loop" } } } },
        });
        let page = String::from_utf8(render(&schema).unwrap()).unwrap();
        assert_eq!(page.matches(".SH [loop").count(), DEPTH_MAX);
    }

    #[test]
    fn the_example_passes_the_check() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "s3cret").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&secret, mode).unwrap();
        let file = dir.path().join("otrelay.toml");
        let secrets = dir.path().to_str().unwrap();
        let text = EXAMPLE
            .replace("/etc/otrelay/secrets/client-secret", &format!("{secrets}/secret"))
            .replace("/etc/otrelay/secrets/password", &format!("{secrets}/secret"));
        std::fs::write(&file, text).unwrap();
        let environment = Environment::new(|_: &str| None).with_config(Some(file));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let check = crate::cli::check::check;
        let code = check(
            &crate::cli::check::CheckArgs::default(),
            &environment,
            crate::rules::template::check_template,
            &mut out,
            &mut err,
        );
        assert_eq!(code.unwrap(), 0, "{}", String::from_utf8_lossy(&err));
    }
}
