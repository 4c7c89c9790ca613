//! `kind = "host"`: this machine, its facts as a device, its conditions as system notifications.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::destination::number;
use crate::config::exclude::listed;
use crate::config::read::{Field, table};
use crate::config::values::{OneOrMore, Period};
use crate::source::format::alert_json::AlertJson;
use crate::source::format::host::Limits;
use crate::source::transport::host;
use crate::source::{Input, Settings};

/// Shortest time between two looks: nothing of it needs more.
const INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Most programs and file systems.
const NAMES_MAX: usize = 16;
/// Longest name of a program or of a path.
const NAME_MAX: usize = 255;
/// File systems that are watched where nothing is said.
const DISKS: [&str; 2] = ["/", "/var"];

table! {
    /// This machine: its facts as a device, and system notifications when a disk fills, memory is short, load is high, it is
    /// hot, its clock is not synchronised, it lost its power, or a program is gone.
    #[schemars(extend("required" = ["name", "kind"]))]
    Host {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "host"))]
        kind: String,
        /// Time between two looks, at least 10s. Default 60s.
        interval: Period,
        /// Paths on the file systems that are watched, at most 16. Default `["/", "/var"]`.
        disks: OneOrMore<String>,
        /// How full a file system may be, in percent, 10 to 100. Default 90.
        disk_percent: i64,
        /// How much memory may be in use, in percent, 10 to 100. Default 95.
        memory_percent: i64,
        /// The load average of 15 minutes that each processor may have, 1 to 1000. Default 4.
        load_per_core: i64,
        /// How hot its hottest sensor may be, in degrees Celsius, 20 to 150. Default 85.
        temperature: i64,
        /// Programs that have to run, by name, at most 16. Default none.
        process: OneOrMore<String>,
    }
}

impl Kind for Host {
    const WORD: &'static str = "host";
    const LEAST: &'static str = "";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let interval = c.duration("interval", &self.interval, "60s", INTERVAL_MIN);
        let is_path = |text: &str| text.starts_with('/');
        let disks = names("disks", &self.disks, &DISKS, "absolute paths", is_path, c);
        let is_name = |text: &str| !text.contains('/');
        let processes = names("process", &self.process, &[], "names of programs", is_name, c);
        let disk = number("disk_percent", &self.disk_percent, 90, 10..=100, c);
        let memory = number("memory_percent", &self.memory_percent, 95, 10..=100, c);
        let load = number("load_per_core", &self.load_per_core, 4, 1..=1000, c);
        let temperature = number("temperature", &self.temperature, 85, 20..=150, c);
        let of = common.format(Some(BTreeMap::new()), Some(BTreeMap::new()))?;
        let limits = Limits {
            disk_percent: u8::try_from(disk?).ok()?,
            memory_percent: u8::try_from(memory?).ok()?,
            load_per_core: u16::try_from(load?).ok()?,
            temperature: u16::try_from(temperature?).ok()?,
            processes: processes?,
        };
        let settings = host::Settings { of: of.clone(), interval: interval?, limits, disks: disks? };
        // It has no records; what it would tell is the alert of `config schema --alert`.
        common.settings(Self::WORD, Input::Host(Box::new(settings)), AlertJson::new(of))
    }
}

/// A list of texts; `None`: something in it is wrong.
fn names(
    key: &str,
    field: &Field<OneOrMore<String>>,
    default: &[&str],
    expected: &str,
    fits: impl Fn(&str) -> bool,
    c: &mut Check<'_>,
) -> Option<Vec<String>> {
    let said = listed(key, field, c, |text| {
        let is_plain = !text.trim().is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control);
        if is_plain && fits(text) { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
    })?;
    if let Some(said) = said {
        let Some(at) = field.at().filter(|_| said.len() > NAMES_MAX) else { return Some(said) };
        let found = said.len().to_string();
        c.problems.error(at, "too many", |p| p.found(found).expected(format!("at most {NAMES_MAX} {expected}")));
        return None;
    }
    c.effective.note_field(key, default.to_vec(), field);
    Some(default.iter().map(|text| (*text).to_owned()).collect())
}
