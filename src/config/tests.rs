//! What the whole room promises: defaults, merging, the shipped file, the schema, and no panic on any text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::file::{self, File};
use super::read::Table as _;
use super::*;
use crate::intake::Backfill;
use crate::model::{Engine, Severity};
use crate::servicenow::{Auth, Basic};
use crate::source::Input;
use crate::source::format::{Outcome, Stream};
use crate::store::WhenFull;

const MINIMAL: &str = r#"
[agent]
name = "line4"
[servicenow.prod]
instance = "https://acme.service-now.com"
auth = "basic"
username = "otrelay"
password = { env = "PW" }
[[source]]
name = "eve"
kind = "suricata-eve"
path = "/var/log/suricata/eve*.json"
[[rule]]
name = "all"
[[rule.action]]
"#;

fn environment(dir: &Path) -> Environment {
    let vars = BTreeMap::from([("PW", "canary-7731"), ("STATE_DIRECTORY", "/state:/other")]);
    Environment::new(move |name| vars.get(name).map(|value| (*value).to_owned()))
        .with_config(Some(dir.join("otrelay.toml")))
}

/// Writes files below a new directory and loads them for the service.
fn load_files(files: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o640);
    }
    load(&environment(dir.path()), Purpose::Run, |_, _| Ok(()))
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn messages(result: Result<Loaded, ConfigError>) -> Vec<String> {
    let problems = match result {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.problems,
    };
    problems.into_iter().map(|p| format!("{}: {}", p.key, p.message)).collect()
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let loaded = load_files(&[("otrelay.toml", MINIMAL)]).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.agent.name, "line4");
    assert_eq!((&config.agent.site, &config.agent.zone), (&None, &None));
    assert_eq!(config.store.dir, Path::new("/state"));
    assert_eq!(config.store.max_size, 256 << 20);
    assert_eq!(config.store.keep_delivered, Duration::from_hours(30 * 24));
    assert_eq!(config.store.when_full, WhenFull::ShedLowest);
    assert!(config.relay.enabled);
    assert_eq!(config.relay.interval, Duration::from_hours(1));
    assert_eq!(config.intake.backfill, Backfill::Within(Duration::from_hours(7 * 24)));
    let limits = config.relay.destinations.values().next().unwrap();
    assert_eq!((limits.requests_per_hour, limits.max_in_flight), (1000, 2));
    let Auth::Basic(Basic { username, password }) = &config.destinations[0].auth else {
        panic!("{:?}", config.destinations)
    };
    assert_eq!((username.as_str(), password.expose()), ("otrelay", "canary-7731"));
    let source = &config.sources[0];
    let Input::Files { pattern } = &source.input else { panic!("{source:?}") };
    assert_eq!((source.kind, pattern.as_str()), ("suricata-eve", "/var/log/suricata/eve*.json"));
    let alert = eve(source, r#""severity":1,"metadata":{"signature_severity":["Minor"]}"#);
    assert_eq!((alert.sensor.as_str(), alert.severity), ("line4", Severity::Minor));
    let rule = &config.rules[0];
    assert_eq!((rule.min_severity, &rule.protocols, &rule.engines), (Severity::Warning, &None, &None));
    assert!(rule.enabled && rule.report_alerts && !rule.report_system_notifications);
    assert_eq!((rule.actions[0].destination.as_str(), rule.actions[0].table.as_str()), ("prod", "incident"));
}

/// What a source of EVE makes of an alert with these members.
fn eve(source: &crate::source::Settings, inside: &str) -> crate::model::Alert {
    let line = format!(r#"{{"event_type":"alert","alert":{{"signature_id":1,{inside}}}}}"#);
    let mut decoder = source.format.0.decoder(&Stream::default());
    match decoder.decode(line.as_bytes(), crate::model::Timestamp::EPOCH).outcome {
        Outcome::Alert(finding) => finding.alert,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn everything_that_can_be_set_arrives() {
    let text = r#"
[agent]
name = "a"
site = "Plant"
zone = "Z"
state_dir = "/s"
[sync]
enabled = false
interval = "5m"
backfill = "all"
[buffer]
max_size = "8MiB"
keep_delivered = "1d"
when_full = "refuse"
[servicenow.prod]
instance = "http://127.0.0.1:8080/"
auth = "password"
client_id = "id"
client_secret = { env = "PW" }
username = "u"
password = { env = "PW" }
proxy = { url = "http://proxy:3128", username = "p", password = { env = "PW" } }
tls = { pin = "sha256:ABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABABAB" }
requests_per_hour = 1
max_in_flight = 16
[[source]]
name = "eve"
kind = "suricata-eve"
path = "/e"
severity_map = { 1 = "major", 9 = "minor" }
engine_map = { "Attempted Information Leak" = "anomaly" }
signature_severity = false
time_zone = "+01:00"
[[rule]]
name = "r"
enabled = false
min_severity = "Critical"
protocols = ["modbus/tcp", "CIP"]
engines = ["malware", "Policy_Violation"]
report_alerts = true
[[rule.action]]
servicenow = "prod"
report_type = "incidents"
table = "sn_si_incident"
[rule.action.fields]
short_description = "{{ title }}"
"#;
    let loaded = load_files(&[("otrelay.toml", text)]).unwrap();
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert!(!config.relay.enabled);
    assert_eq!(config.intake.backfill, Backfill::All);
    assert_eq!(config.store.dir, Path::new("/s"));
    assert_eq!(config.store.when_full, WhenFull::Refuse);
    let destination = &config.destinations[0];
    assert_eq!(destination.tls.pin, Some([0xab; 32]));
    let (user, password) = destination.proxy.as_ref().unwrap().login.as_ref().unwrap();
    assert_eq!((user.as_str(), password.expose()), ("p", "canary-7731"));
    let of = |inside: &str| eve(&config.sources[0], inside);
    let severities = [1, 9, 2].map(|priority| of(&format!("\"severity\":{priority}")).severity);
    assert_eq!(severities, [Severity::Major, Severity::Minor, Severity::Major]);
    let alert = of(r#""category":"Attempted Information Leak""#);
    assert_eq!(alert.engine, Engine::Anomaly);
    assert_eq!((alert.site.as_deref(), alert.zone.as_deref()), (Some("Plant"), Some("Z")));
    let rule = &config.rules[0];
    assert_eq!(rule.min_severity, Severity::Critical);
    let protocols: Vec<&str> = rule.protocols.as_ref().unwrap().iter().map(String::as_str).collect();
    assert_eq!(protocols, ["ethernetip", "modbus"]);
    assert_eq!(rule.engines.as_ref().unwrap().len(), 2);
    assert_eq!(rule.actions[0].fields["short_description"], "{{ title }}");
}

#[test]
fn a_polled_console_has_its_defaults_and_whatever_is_set() {
    let sources = |text: &str| {
        let text = MINIMAL.replace("[[rule]]\nname", &format!("{text}\n[[rule]]\nname"));
        load_files(&[("otrelay.toml", &text)]).unwrap().config.sources.remove(1)
    };
    let source = sources(
        "[[source]]\nname = \"console\"\nkind = \"defender-console\"\nurl = \"https://console.plant.example\"\n\
         token = { env = \"PW\" }",
    );
    let Input::Defender { interval, api } = &source.input else { panic!("{:?}", source.input) };
    assert_eq!((source.kind, *interval), ("defender-console", Duration::from_secs(60)));
    assert_eq!((api.console, api.devices_interval), (true, Duration::from_hours(1)));
    assert_eq!(
        (api.http.url.as_str(), api.http.token.expose()),
        ("https://console.plant.example/", "canary-7731")
    );
    assert!(!format!("{source:?}").contains("canary"));

    let pin = "ab".repeat(32);
    let source = sources(&format!(
        "[[source]]\nname = \"west\"\nkind = \"defender-sensor\"\nurl = \"https://192.0.2.9:8443/ot\"\n\
         token = {{ env = \"PW\" }}\ntls = {{ pin = \"sha256:{pin}\" }}\nproxy = {{ url = \"http://proxy.example:3128\" }}\n\
         poll_interval = \"5s\"\ndevices_interval = \"1d\"\nsensor = \"line 4\"\nseverity_map = {{ Warning = \"minor\" }}"
    ));
    let Input::Defender { interval, api } = &source.input else { panic!("{:?}", source.input) };
    assert_eq!(
        (api.console, *interval, api.devices_interval),
        (false, Duration::from_secs(5), Duration::from_hours(24))
    );
    assert_eq!(api.http.tls.pin, Some([0xab; 32]));
    assert!(api.http.proxy.is_some());
    let mut decoder = source.format.0.decoder(&Stream::default());
    let line = br#"{"id":1,"title":"A","severity":"Warning"}"#;
    let Outcome::Alert(finding) = decoder.decode(line, crate::model::Timestamp::EPOCH).outcome else {
        panic!()
    };
    assert_eq!((finding.alert.sensor.as_str(), finding.alert.severity), ("line 4", Severity::Minor));
}

#[test]
fn files_are_laid_together_in_order() {
    let loaded = load_files(&[
        ("otrelay.toml", MINIMAL),
        ("conf.d/20-b.toml", "[[rule]]\nname = \"b\"\n[[rule.action]]\nservicenow = \"dr\"\n"),
        ("conf.d/10-a.toml", "[sync]\ninterval = \"10m\"\n[[rule]]\nname = \"a\"\nenabled = false\n"),
        (
            "conf.d/30-dr.toml",
            "[servicenow.dr]\ninstance = \"https://dr.service-now.com\"\nauth = \"basic\"\nusername = \"u\"\npassword = { env = \"PW\" }\n",
        ),
        ("conf.d/.hidden.toml", "nonsense"),
        ("conf.d/readme.txt", "nonsense"),
    ]);
    // The main file's action names no destination, and with the second one it has to.
    let error = loaded.unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    assert_eq!(error.problems[0].key, "rule[1].action[1].servicenow");

    let one = MINIMAL.replace("[[rule.action]]", "[[rule.action]]\nservicenow = \"prod\"");
    let loaded = load_files(&[
        ("otrelay.toml", &one),
        ("conf.d/20-b.toml", "[[rule]]\nname = \"b\"\nenabled = false\n"),
        ("conf.d/10-a.toml", "[sync]\ninterval = \"10m\"\n[[rule]]\nname = \"a\"\nenabled = false\n"),
    ])
    .unwrap();
    let names: Vec<&str> = loaded.config.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["all", "a", "b"]);
    assert_eq!(loaded.config.relay.interval, Duration::from_mins(10));
    let files: Vec<_> = loaded.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(files, ["otrelay.toml", "10-a.toml", "20-b.toml"]);
}

#[test]
fn what_everyone_may_read_or_change_is_warned_about() {
    let bare = MINIMAL.replace("{ env = \"PW\" }", "\"canary-7731\"");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otrelay.toml");
    std::fs::write(&path, bare).unwrap();
    set_mode(&path, 0o664);
    let loaded = load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())).unwrap();
    let text = loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for part in
        ["others may change this file (mode 0664)", "everyone may read this secret", "written in the config"]
    {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("canary"), "{text}");
    assert!(!format!("{loaded:?}").contains("canary"));
    assert!(!loaded.effective.to_string().contains("canary"));
}

#[test]
fn what_does_nothing_for_events_and_rows_is_said() {
    for (table, told) in [("em_event", 1), ("incident", 0)] {
        let keys = format!("table = \"{table}\"\nattach = [\"raw\"]\n");
        let text = MINIMAL
            .replace("[[rule.action]]\n", &format!("max_tickets_per_hour = 2\n[[rule.action]]\n{keys}"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("otrelay.toml"), text).unwrap();
        let loaded = load(&environment(dir.path()), Purpose::Check, |_, _| Ok(())).unwrap();
        for words in ["nothing can be attached to an event or a row", "what goes to em_event is not limited"]
        {
            let said = loaded.warnings.iter().filter(|w| w.to_string().contains(words)).count();
            assert_eq!(said, told, "{table}: {:?}", loaded.warnings);
        }
    }
}

/// Wherever a secret may stand, also in a section that is turned off or wrong.
#[test]
fn every_kind_of_secret_in_a_file_of_mode_0644_is_warned_about() {
    let check = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otrelay.toml");
        std::fs::write(&path, text).unwrap();
        set_mode(&path, 0o644);
        let said = match load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())) {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        };
        assert!(said.contains("everyone may read this secret (the file has mode 0644)"), "{text}: {said}");
        assert!(!said.contains("canary"), "{said}");
    };
    for line in [
        "client_secret = \"canary\"",
        "refresh_token = \"canary\"",
        "private_key = \"canary\"",
        "api_key = \"canary\"",
        "headers = { X-Key = \"canary\" }",
        "proxy = { url = \"http://proxy.example:3128\", username = \"u\", password = \"canary\" }",
    ] {
        check(&MINIMAL.replace("[servicenow.prod]\n", &format!("[servicenow.prod]\n{line}\n")));
    }
    for kind in ["http", "defender-sensor"] {
        check(&format!("{MINIMAL}[[source]]\nname = \"x\"\nkind = \"{kind}\"\ntoken = \"canary\"\n"));
    }
}

#[test]
fn captures_that_no_source_has_are_warned_about() {
    let check = |more: &str, action: &str, expected: &[&str]| {
        let files = [("otrelay.toml", format!("{MINIMAL}{action}\n{more}"))];
        let loaded = load_files(&files.each_ref().map(|(name, text)| (*name, text.as_str()))).unwrap();
        let said: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
        let said: Vec<_> = said.iter().filter(|text| text.contains("attach")).collect();
        assert_eq!(said.len(), usize::from(!expected.is_empty()), "{said:?}");
        assert!(expected.iter().all(|part| said[0].contains(part)), "{said:?}");
    };
    let zeek = "[[source]]\nname = \"z\"\nkind = \"zeek\"\npath = \"/zeek/*.log\"";
    let named = ["rule[1].action[1].attach: no `pcap` is attached for alerts of `z` (zeek)"];
    check(zeek, "attach = [\"raw\", \"pcap\"]", &named);
    check(zeek, "attach = [\"raw\"]", &[]);
    check("", "attach = [\"pcap\"]", &[]);
    let json = "[[source]]\nname = \"j\"\nkind = \"json-lines\"\npath = \"/json/*.log\"";
    check(json, "attach = [\"pcap\"]", &[]);
}

#[test]
fn a_missing_or_odd_main_file_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("otrelay config example"), "{error}");
    std::fs::create_dir(dir.path().join("otrelay.toml")).unwrap();
    let error = load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("this is a directory"), "{error}");
    std::fs::remove_dir(dir.path().join("otrelay.toml")).unwrap();
    std::fs::write(dir.path().join("otrelay.toml"), b"# ok\n# \xff\n").unwrap();
    let error = load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("line 2 is not UTF-8"), "{error}");
    std::fs::write(dir.path().join("otrelay.toml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let error = load(&environment(dir.path()), Purpose::Run, |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("larger than 1 MiB"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_makes_no_config_even_when_the_rest_is_good() {
    let error = load_files(&[("otrelay.toml", MINIMAL), ("conf.d/a.toml", "[sync\n")]).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    assert!(error.to_string().contains("conf.d/a.toml:1:"), "{error}");
}

#[test]
fn the_shipped_file_is_good_and_shows_what_is_in_effect() {
    let loaded = parse_str("otrelay.toml", example()).unwrap();
    assert_eq!(loaded.warnings, []);
    // Every commented default is the real one: taking the marks away changes no value but the optional ones.
    for entry in loaded.effective.entries() {
        assert!(example().contains(entry.name.trim_start_matches("fields.")), "{} is not shown", entry.key);
    }
}

/// `# key = value` lines of the shipped file, by number; blocks that are commented out as a whole are `example.rs`'s.
fn commented(text: &str) -> Vec<usize> {
    let is_key = |line: &str| {
        let Some((key, _)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")) else {
            return false;
        };
        key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let mut in_block = false;
    let mut of_its_own = |line: &str| {
        in_block = line.starts_with("# [[") || (in_block && line.starts_with("# "));
        !in_block
    };
    text.lines().enumerate().filter(|(_, line)| of_its_own(line) && is_key(line)).map(|(n, _)| n).collect()
}

#[test]
fn every_commented_line_of_the_shipped_file_works_when_it_is_taken() {
    let text = example();
    let lines = commented(text);
    assert!(lines.len() > 25, "{}", lines.len());
    let known: Vec<&str> = loaded_keys();
    for n in lines {
        let taken: Vec<&str> =
            text.lines().enumerate().map(|(i, line)| if i == n { &line[2..] } else { line }).collect();
        let line = taken[n];
        let loaded = parse_str("otrelay.toml", &taken.join("\n")).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert_eq!(loaded.warnings, [], "{line}");
        let key = line.split(" = ").next().unwrap();
        assert!(known.contains(&key) || line.contains('"'), "{line}");
    }
}

fn loaded_keys() -> Vec<&'static str> {
    let tables: [&[&str]; 9] = [
        file::Agent::KEYS,
        file::Sync::KEYS,
        file::Buffer::KEYS,
        file::Destination::KEYS,
        source::SuricataEve::KEYS,
        file::Rule::KEYS,
        file::Action::KEYS,
        file::Devices::KEYS,
        file::Status::KEYS,
    ];
    tables.concat()
}

#[test]
fn a_commented_default_is_the_default() {
    let text = example();
    let origin = parse_str("otrelay.toml", text).unwrap();
    let optional = [
        "name",
        "id",
        "site",
        "zone",
        "proxy",
        "tls",
        "headers",
        "severity_map",
        "engine_map",
        "class_map",
        "state_dir",
        "assignment_group",
        "short_description",
        "textfile",
        "attach",
        "silent_after",
    ];
    for n in commented(text) {
        let line = text.lines().nth(n).unwrap();
        let key = line[2..].split(" = ").next().unwrap();
        if optional.contains(&key) {
            continue;
        }
        let taken: Vec<&str> =
            text.lines().enumerate().map(|(i, l)| if i == n { &l[2..] } else { l }).collect();
        let taken = parse_str("otrelay.toml", &taken.join("\n")).unwrap();
        let values = |loaded: &Loaded| -> Vec<(String, serde_json::Value)> {
            loaded.effective.entries().map(|e| (e.key.clone(), e.value.clone())).collect()
        };
        assert_eq!(values(&taken), values(&origin), "{line}");
    }
}

/// Walks the schema beside the readers: what one knows, the other has to know.
#[test]
fn the_schema_has_the_keys_that_the_reader_knows() {
    let schema = schema();
    let of = |name: &str| -> Vec<String> {
        let table = if name == "File" { &schema } else { &schema["$defs"][name] };
        assert_eq!(table["additionalProperties"], false, "{name}");
        let properties = table["properties"].as_object().unwrap_or_else(|| panic!("{name}: {schema:#}"));
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
        }
        properties.keys().cloned().collect()
    };
    let tables: [(&str, &[&str]); 25] = [
        ("File", File::KEYS),
        ("Agent", file::Agent::KEYS),
        ("Sync", file::Sync::KEYS),
        ("Buffer", file::Buffer::KEYS),
        ("Destination", file::Destination::KEYS),
        ("Proxy", file::Proxy::KEYS),
        ("Tls", file::Tls::KEYS),
        ("SuricataEve", source::SuricataEve::KEYS),
        ("DefenderSensor", source::DefenderSensor::KEYS),
        ("DefenderConsole", source::DefenderConsole::KEYS),
        ("Zeek", source::Zeek::KEYS),
        ("JsonLines", source::JsonLines::KEYS),
        ("Http", source::Http::KEYS),
        ("Host", source::Host::KEYS),
        ("Syslog", source::Syslog::KEYS),
        ("SyslogTls", source::SyslogTls::KEYS),
        ("Rule", file::Rule::KEYS),
        ("Action", file::Action::KEYS),
        ("Exclude", file::Exclude::KEYS),
        ("Redact", file::Redact::KEYS),
        ("Case", file::Case::KEYS),
        ("CaseInput", file::CaseInput::KEYS),
        ("CaseExpect", file::CaseExpect::KEYS),
        ("Devices", file::Devices::KEYS),
        ("Status", file::Status::KEYS),
    ];
    for (name, keys) in tables {
        let mut known: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        known.sort();
        let mut there = of(name);
        there.sort();
        assert_eq!(there, known, "{name}");
    }
    // Nothing that TOML cannot write, and no table beside those above.
    assert!(!schema.to_string().contains("\"null\""), "{schema:#}");
    for (name, table) in schema["$defs"].as_object().unwrap() {
        let listed = tables.iter().any(|(known, _)| known == name);
        assert!(listed || table.get("properties").is_none(), "{name} is not compared");
    }
}

#[test]
fn showing_reads_no_secret_and_tells_where_values_come_from() {
    let text = MINIMAL.replace("{ env = \"PW\" }", "{ file = \"/does/not/exist\" }");
    let loaded = parse_str("t.toml", &text).unwrap();
    let shown = loaded.effective.to_string();
    for line in [
        "name = \"line4\"",
        "# t.toml:3",
        "interval = \"60m\"",
        "# default",
        "password = \"(file /does/not/exist)\"",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    shown.parse::<toml::Table>().unwrap();
}

#[test]
fn templates_are_checked_by_whoever_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("otrelay.toml");
    std::fs::write(&path, format!("{MINIMAL}[rule.action.fields]\nshort_description = \"{{{{ x\"\n"))
        .unwrap();
    set_mode(&path, 0o600);
    let refuse: TemplateCheck = |field, text| Err(format!("{field}: {} bytes", text.len()));
    let messages = messages(load(&environment(dir.path()), Purpose::Run, refuse));
    assert_eq!(
        messages,
        [
            "rule[1].action[1].fields.short_description: the template does not work: short_description: 4 bytes"
        ]
    );
}

#[test]
fn a_file_of_certificates_holds_one() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    let text =
        MINIMAL.replace("[[source]]", &format!("tls = {{ ca_file = \"{}\" }}\n[[source]]", ca.display()));
    let load = || load_files(&[("otrelay.toml", &text)]);
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let found = messages(load());
    assert!(
        found.len() == 1 && found[0].ends_with("line 1: the block that begins here has no end"),
        "{found:?}"
    );
    std::fs::write(&ca, "# ours\n").unwrap();
    assert!(messages(load())[0].contains("holds no usable certificate"));
    let good = include_str!("../../tests/fixtures/tls/p256-names.pem");
    std::fs::write(&ca, format!("\u{feff}# ours\n{good}")).unwrap();
    assert_eq!(load().unwrap().config.destinations[0].tls.ca_file.as_deref(), Some(ca.as_path()));
    std::fs::write(&ca, vec![b'x'; (1 << 20) + 1]).unwrap();
    assert!(messages(load())[0].ends_with("is larger than 1 MiB"));
}

#[test]
fn ten_thousand_rules_and_no_more() {
    let rules = |n: usize| {
        let mut text = MINIMAL.to_owned();
        for i in 0..n {
            let _ = write!(text, "[[rule]]\nname='r{i}'\nprotocols=['Modbus']\nenabled=false\n");
        }
        text
    };
    assert_eq!(parse_str("t", &rules(4_095)).unwrap().config.rules.len(), 4_096);
    assert!(messages(parse_str("t", &rules(4_096))).iter().any(|m| m == "rule: too many rules"));
}

/// Text that is nearly a config: lines of the real file in any order, some of them spoiled.
fn nearly() -> impl Strategy<Value = String> {
    let lines: Vec<String> = format!("{MINIMAL}{}", example())
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap_or(line).to_owned())
        .collect();
    let spoiled =
        (proptest::sample::select(lines), any::<prop::sample::Index>(), ".?").prop_map(|(line, at, with)| {
            let mut line: Vec<char> = line.chars().collect();
            let at = at.index(line.len() + 1);
            line.splice(at..at, with.chars());
            line.into_iter().collect::<String>()
        });
    prop::collection::vec(spoiled, 0..40).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(?s).{0,400}") {
        let _ = parse_str("t.toml", &text);
    }

    #[test]
    fn no_near_miss_makes_it_panic(text in nearly()) {
        match parse_str("t.toml", &text) {
            Ok(loaded) => prop_assert!(loaded.warnings.iter().all(|p| p.level == Level::Warning)),
            Err(error) => prop_assert!(error.problems.iter().any(|p| p.level == Level::Error)),
        }
    }
}
