//! What sensors are on this machine: where Suricata and Zeek write, and whether Defender for IoT is here. Looks only.
//!
//! What is found is a suggestion with its reason; a person, or a flag, decides.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest `suricata.yaml` that is looked at, in bytes.
const YAML_MAX: u64 = 4 << 20;
/// Where Suricata writes when its config says nothing else.
const SURICATA_LOGS: &str = "/var/log/suricata";
const SURICATA_CONFIGS: [&str; 3] = [
    "/etc/suricata/suricata.yaml",
    "/usr/local/etc/suricata/suricata.yaml",
    "/opt/suricata/etc/suricata.yaml",
];
/// Where packages and appliances of Zeek write.
const ZEEK_LOGS: [&str; 6] = [
    "/opt/zeek/logs/current",
    "/usr/local/zeek/logs/current",
    "/var/log/zeek/current",
    "/nsm/zeek/logs/current",
    "/opt/bro/logs/current",
    "/usr/local/bro/logs/current",
];
/// What only a Defender for `IoT` sensor has.
const DEFENDER: [&str; 2] = ["/var/cyberx/properties", "/opt/sensor/persist"];

/// Something that was found: what to put into the config, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) value: String,
    pub(super) why: String,
}

/// What there is below `root`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sensors {
    pub(super) suricata: Option<Found>,
    pub(super) zeek: Option<Found>,
    pub(super) defender: Option<Found>,
}

pub(super) fn look(root: &Path) -> Sensors {
    let below = |path: &str| root.join(path.trim_start_matches('/'));
    let zeek = ZEEK_LOGS.iter().find(|dir| below(dir).is_dir());
    let defender = DEFENDER.iter().find(|dir| below(dir).is_dir());
    Sensors {
        suricata: suricata(&below),
        zeek: zeek.map(|dir| Found { value: format!("{dir}/*.log"), why: format!("{dir} is there") }),
        defender: defender
            .map(|dir| Found { value: "https://127.0.0.1".to_owned(), why: format!("{dir} is there") }),
    }
}

fn suricata(below: &impl Fn(&str) -> PathBuf) -> Option<Found> {
    let said = SURICATA_CONFIGS.iter().find_map(|config| Some((config, eve_path(&text(&below(config))?)?)));
    if let Some((config, path)) = said {
        return Some(Found { value: pattern(&path), why: format!("eve-log of {config}") });
    }
    let file = format!("{SURICATA_LOGS}/eve.json");
    below(&file).exists().then(|| Found { value: pattern(&file), why: format!("{file} is there") })
}

fn text(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|m| m.is_file()))?;
    let mut bytes = Vec::new();
    file.take(YAML_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Where the first `eve-log` that is on and writes a file writes, by the few lines that say so: `suricata.yaml` is
/// written by its package and indented, and what is odd in it is asked instead.
fn eve_path(yaml: &str) -> Option<String> {
    let lines: Vec<(usize, &str, &str)> = yaml.lines().filter_map(entry).collect();
    let value = |from: &[(usize, &str, &str)], key: &str| {
        from.iter().find(|(_, name, _)| *name == key).map(|(.., value)| (*value).to_owned())
    };
    let dir = value(&lines, "default-log-dir").filter(|dir| dir.starts_with('/'));
    let dir = dir.unwrap_or_else(|| SURICATA_LOGS.to_owned());
    let blocks =
        lines.iter().enumerate().filter(|(_, (_, key, _))| *key == "eve-log").map(|(at, (indent, ..))| {
            let inside = lines[at + 1..].iter().take_while(|(own, ..)| own > indent).count();
            let block = &lines[at + 1..=at + inside];
            let least = block.iter().map(|(own, ..)| *own).min().unwrap_or_default();
            block.iter().filter(|(own, ..)| *own == least).copied().collect::<Vec<_>>()
        });
    blocks
        .filter(|block| value(block, "enabled").is_none_or(|on| matches!(on.as_str(), "yes" | "true" | "on")))
        .filter(|block| value(block, "filetype").is_none_or(|kind| kind == "regular"))
        .find_map(|block| {
            let name = value(&block, "filename").unwrap_or_else(|| "eve.json".to_owned());
            let path = Path::new(&dir).join(name);
            path.is_absolute().then(|| path.to_string_lossy().into_owned())
        })
}

/// Indent, key, value of a line `- key: value`, without its comment.
fn entry(line: &str) -> Option<(usize, &str, &str)> {
    let inner = line.trim_start_matches([' ', '-']);
    if inner.starts_with('#') {
        return None;
    }
    let (key, value) = inner.split_once(':')?;
    let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    Some((line.len() - inner.len(), key.trim(), value))
}

/// The file and what stands beside it under other numbers or times: `eve.json` to `eve*.json`, `eve-%Y.json` to `eve-*.json`.
fn pattern(path: &str) -> String {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut out = String::new();
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            chars.next();
            if !out.ends_with('*') {
                out.push('*');
            }
        } else {
            out.push(c);
        }
    }
    if !out.contains('*') {
        out = match out.rsplit_once('.') {
            Some((stem, end)) => format!("{stem}*.{end}"),
            None => format!("{out}*"),
        };
    }
    format!("{dir}/{out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "%YAML 1.1\n---\nvars:\n  filename: no\ndefault-log-dir: /data/suricata/   # here\noutputs:\n  - fast:\n      \
                        enabled: yes\n      filename: fast.log\n  # - eve-log:\n  - eve-log:\n      enabled: no\n      filename: off.json\n  \
                        - eve-log:\n      enabled: yes\n      filetype: unix_stream\n      filename: eve.sock\n  - eve-log:\n      enabled: \
                        yes\n      filetype: regular #regular|syslog\n      filename: \"eve-%Y-%m.json\"\n      types:\n        - alert:\n            \
                        filename: inner.json\n  - stats:\n      filename: stats.log\n";

    #[test]
    fn the_eve_file_is_the_one_that_is_on() {
        assert_eq!(eve_path(YAML).as_deref(), Some("/data/suricata/eve-%Y-%m.json"));
        assert_eq!(
            eve_path("outputs:\n- eve-log:\n    enabled: yes\n").as_deref(),
            Some("/var/log/suricata/eve.json")
        );
        assert_eq!(eve_path("outputs:\n- eve-log:\n    filename: /x/y.json\n").as_deref(), Some("/x/y.json"));
        for none in ["", "eve-log", "outputs:\n- eve-log:\n    enabled: no\n", "\u{0}:\n::\n- -:"] {
            assert_eq!(eve_path(none), None, "{none}");
        }
    }

    #[test]
    fn rotated_files_are_in_the_pattern() {
        for (path, found) in [
            ("/var/log/suricata/eve.json", "/var/log/suricata/eve*.json"),
            ("/x/eve-%Y-%m.json", "/x/eve-*-*.json"),
            ("/x/eve%s%f", "/x/eve*"),
            ("/x/eve", "/x/eve*"),
        ] {
            assert_eq!(pattern(path), found, "{path}");
        }
    }

    #[test]
    fn sensors_are_found_by_what_they_leave() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(look(dir.path()), Sensors::default());
        for path in
            ["var/log/suricata", "usr/local/zeek/logs/current", "var/cyberx/properties", "etc/suricata"]
        {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("var/log/suricata/eve.json"), "").unwrap();
        let value = |found: Option<Found>| found.unwrap().value;
        let sensors = look(dir.path());
        assert_eq!(value(sensors.suricata), "/var/log/suricata/eve*.json");
        assert_eq!(value(sensors.zeek), "/usr/local/zeek/logs/current/*.log");
        assert_eq!(value(sensors.defender), "https://127.0.0.1");
        std::fs::write(dir.path().join("etc/suricata/suricata.yaml"), YAML).unwrap();
        let found = look(dir.path()).suricata.unwrap();
        assert_eq!(
            (found.value.as_str(), found.why.as_str()),
            ("/data/suricata/eve-*-*.json", "eve-log of /etc/suricata/suricata.yaml")
        );
    }
}
