//! Pure: how the machine is, as conditions that are raised and cleared. No I/O, no clock: `transport::host` looks, this
//! judges what it saw.
//!
//! Each condition has a limit above which it is raised and a lower one below which it is cleared, and has to be so for as
//! many looks in a row: what swings around a limit is one notification, not hundreds. What becomes critical is raised once
//! more as such.

use std::collections::BTreeMap;

use crate::model::gather::Gather as _;

/// Limits, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// How full a file system may be, in percent.
    pub disk_percent: u8,
    /// How much memory may be in use, in percent.
    pub memory_percent: u8,
    /// The load average of 15 minutes that each processor may have.
    pub load_per_core: u16,
    /// How hot the hottest sensor may be, in degrees Celsius.
    pub temperature: u16,
    /// Programs that have to run, by name.
    pub processes: Vec<String>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// A path on it.
    pub path: String,
    /// How full.
    pub percent: f64,
    /// Bytes that are free.
    pub free: u64,
}

/// What was seen; what cannot be seen is absent, and nothing is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// File systems.
    pub disks: Vec<Disk>,
    /// Memory in use, in percent.
    pub memory: Option<f64>,
    /// The load average of 15 minutes for each processor.
    pub load: Option<f64>,
    /// The hottest sensor, in degrees Celsius.
    pub temperature: Option<f64>,
    /// Whether the clock is synchronised.
    pub synchronised: Option<bool>,
    /// Programs that have to run, and whether each does.
    pub processes: Vec<(String, bool)>,
    /// Whether the machine was started anew without a shutdown, not long ago.
    pub power_cut: bool,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What makes it one finding: `disk:/var`.
    pub key: String,
    /// Whether it is so now; false: it is over.
    pub raised: bool,
    /// In a few words, without the machine.
    pub title: String,
    /// What was seen, and what to do.
    pub message: String,
    /// Whether somebody has to act soon.
    pub is_critical: bool,
}

struct Measure {
    key: String,
    is_over: bool,
    is_calm: bool,
    /// Looks in a row after which it is raised or cleared.
    patience: u8,
    is_critical: bool,
    title: String,
    message: String,
}

/// What is raised, and what is about to change.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// By key, whether as critical.
    raised: BTreeMap<String, bool>,
    counts: BTreeMap<String, u8>,
}

impl Conditions {
    /// With what was raised before, and whether as critical.
    pub fn new(raised: impl IntoIterator<Item = (String, bool)>) -> Self {
        Self { raised: raised.into_iter().into_map(), counts: BTreeMap::new() }
    }

    /// Judges a look: what has changed by it. `disks` are the paths that are asked for, seen or not.
    pub fn judge(&mut self, look: &Look, limits: &Limits, disks: &[String]) -> Vec<Change> {
        let measures = measures(look, limits);
        let mut changes: Vec<Change> = measures.into_iter().filter_map(|m| self.weigh(m)).collect();
        // A program or a file system that nobody asks for any more.
        let asked = |key: &str| match key.split_once(':') {
            Some(("process", name)) => limits.processes.iter().any(|asked| asked == name),
            Some(("disk", path)) => disks.iter().any(|asked| asked == path),
            _ => true,
        };
        let gone: Vec<String> = self.raised.keys().filter(|key| !asked(key)).cloned().collect();
        for key in gone {
            self.raised.remove(&key);
            let message = "It is not watched any more.".to_owned();
            changes.push(Change { title: key.clone(), key, raised: false, message, is_critical: false });
        }
        changes
    }

    fn weigh(&mut self, measure: Measure) -> Option<Change> {
        let raised = self.raised.get(&measure.key).copied();
        let is_worse = raised == Some(false) && measure.is_over && measure.is_critical;
        let turns = if raised.is_some() { measure.is_calm || is_worse } else { measure.is_over };
        if !turns {
            self.counts.remove(&measure.key);
            return None;
        }
        let count = self.counts.entry(measure.key.clone()).or_default();
        *count += 1;
        if *count < measure.patience {
            return None;
        }
        self.counts.remove(&measure.key);
        let is_over = raised.is_none() || is_worse;
        if is_over {
            self.raised.insert(measure.key.clone(), measure.is_critical);
        } else {
            self.raised.remove(&measure.key);
        }
        let Measure { key, title, message, is_critical, .. } = measure;
        Some(Change { key, raised: is_over, title, message, is_critical })
    }
}

/// How far below its limit a number has to come to be calm, in its unit.
const CALM: f64 = 5.0;

fn measures(look: &Look, limits: &Limits) -> Vec<Measure> {
    let disk = |disk: &Disk| self::disk(disk, f64::from(limits.disk_percent));
    let memory = look.memory.map(|percent| {
        let remedy = "The kernel ends programs when none is left; see which one grows (top).";
        number("memory", "memory is short", percent, f64::from(limits.memory_percent), "%", remedy)
    });
    let load = look.load.map(|load| {
        let limit = f64::from(limits.load_per_core);
        Measure {
            is_calm: load < limit * 0.8,
            ..number(
                "load",
                "load is high",
                load,
                limit,
                "for each processor",
                "A sensor that does not keep up drops packets.",
            )
        }
    });
    let temperature = look.temperature.map(|degrees| {
        let remedy = "See to the fan, the dust and the cabinet.";
        number("temperature", "it is hot", degrees, f64::from(limits.temperature), "°C", remedy)
    });
    let clock = look.synchronised.map(|synchronised| Measure {
        // After a start it takes its time.
        patience: 15,
        ..state(
            "clock",
            !synchronised,
            "clock is not synchronised",
            "Times of alerts are wrong by as much as the clock is; see `timedatectl timesync-status` and the time server.",
        )
    });
    let process = |(name, runs): &(String, bool)| Measure {
        patience: 2,
        is_critical: true,
        ..state(
            &format!("process:{name}"),
            !runs,
            &format!("process is gone: {name}"),
            &format!(
                "No process of the name {name} runs: nothing is detected while it is away. See `systemctl status {name}`."
            ),
        )
    };
    let power = state(
        "power-cut",
        look.power_cut,
        "it was started anew without a shutdown",
        "The power was cut, or the machine hung and was reset. What otrelay had acknowledged is kept; what the sensor had not \
         written by then is gone.",
    );
    let disks = look.disks.iter().map(disk);
    let others = [memory, load, temperature, clock, Some(power)].into_iter().flatten();
    disks.chain(others).chain(look.processes.iter().map(process)).collect()
}

fn disk(disk: &Disk, limit: f64) -> Measure {
    let mib = disk.free >> 20;
    Measure {
        key: format!("disk:{}", disk.path),
        is_over: disk.percent >= limit,
        is_calm: disk.percent < limit - CALM,
        patience: 1,
        is_critical: disk.percent >= 98.0,
        title: format!("disk is filling: {}", disk.path),
        message: format!(
            "{} is {:.0} % full, {mib} MiB are free (limit {limit} %). A sensor on a full disk stops writing; make room, \
             or let logs be rotated sooner.",
            disk.path, disk.percent
        ),
    }
}

fn number(key: &str, title: &str, value: f64, limit: f64, unit: &str, remedy: &str) -> Measure {
    Measure {
        is_calm: value < limit - CALM,
        patience: 3,
        message: format!("It is at {value:.1} {unit} (limit {limit}). {remedy}"),
        ..state(key, value >= limit, title, "")
    }
}

fn state(key: &str, is_over: bool, title: &str, message: &str) -> Measure {
    Measure {
        key: key.to_owned(),
        is_over,
        is_calm: !is_over,
        patience: 1,
        is_critical: false,
        title: title.to_owned(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            disk_percent: 90,
            memory_percent: 95,
            load_per_core: 4,
            temperature: 85,
            processes: vec!["suricata".to_owned()],
        }
    }

    fn disk(percent: f64) -> Look {
        Look { disks: vec![Disk { path: "/".to_owned(), percent, free: 7 << 20 }], ..Look::default() }
    }

    /// Keys of what has changed: `+disk:/` raised, `!disk:/` as critical, `-disk:/` cleared.
    fn told(conditions: &mut Conditions, look: &Look) -> Vec<String> {
        let changes = conditions.judge(look, &limits(), &["/".to_owned()]);
        let word = |c: &Change| match (c.raised, c.is_critical && c.key.starts_with("disk")) {
            (false, _) => "-",
            (true, false) => "+",
            (true, true) => "!",
        };
        changes.iter().map(|c| format!("{}{}", word(c), c.key)).collect()
    }

    #[test]
    fn what_swings_around_a_limit_is_told_once() {
        let mut conditions = Conditions::default();
        let all: Vec<_> = [89.9, 90.0, 89.0, 91.0, 85.1, 97.0, 84.9, 89.0, 90.0]
            .into_iter()
            .map(|percent| told(&mut conditions, &disk(percent)).join(""))
            .collect();
        assert_eq!(all, ["", "+disk:/", "", "", "", "", "-disk:/", "", "+disk:/"]);
    }

    #[test]
    fn what_becomes_critical_is_raised_once_more() {
        let mut conditions = Conditions::default();
        let all: Vec<_> = [90.0, 98.0, 99.0, 97.0, 98.5, 84.0, 98.0, 99.0]
            .into_iter()
            .map(|percent| told(&mut conditions, &disk(percent)).join(""))
            .collect();
        assert_eq!(all, ["+disk:/", "!disk:/", "", "", "", "-disk:/", "!disk:/", ""]);
    }

    #[test]
    fn what_may_pass_by_itself_has_to_last() {
        let mut conditions = Conditions::default();
        let hot = |degrees| Look { temperature: Some(degrees), ..Look::default() };
        for (degrees, expected) in
            [(90.0, ""), (90.0, ""), (70.0, ""), (90.0, ""), (90.0, ""), (90.0, "+temperature"), (82.0, "")]
        {
            assert_eq!(told(&mut conditions, &hot(degrees)).join(""), expected, "{degrees}");
        }
        for expected in ["", "", "-temperature"] {
            assert_eq!(told(&mut conditions, &hot(60.0)).join(""), expected);
        }
        // What cannot be seen says nothing.
        assert!(told(&mut conditions, &Look::default()).is_empty());
    }

    #[test]
    fn every_condition_is_raised_and_cleared() {
        let bad = Look {
            memory: Some(99.0),
            load: Some(9.0),
            synchronised: Some(false),
            processes: vec![("suricata".to_owned(), false)],
            power_cut: true,
            temperature: Some(99.0),
            ..disk(99.0)
        };
        let good = Look {
            memory: Some(10.0),
            load: Some(0.1),
            synchronised: Some(true),
            processes: vec![("suricata".to_owned(), true)],
            power_cut: false,
            temperature: Some(30.0),
            ..disk(10.0)
        };
        let mut conditions = Conditions::default();
        let mut all = |look: &Look| {
            let mut all: Vec<String> = (0..20).flat_map(|_| told(&mut conditions, look)).collect();
            all.sort();
            all.join(" ")
        };
        assert_eq!(all(&bad), "!disk:/ +clock +load +memory +power-cut +process:suricata +temperature");
        assert_eq!(all(&good), "-clock -disk:/ -load -memory -power-cut -process:suricata -temperature");
    }

    #[test]
    fn a_restart_knows_what_is_raised_and_what_nobody_asks_for() {
        let raised = ["disk:/", "disk:/data", "process:zeek"].map(|key| (key.to_owned(), false));
        let mut conditions = Conditions::new(raised);
        assert_eq!(told(&mut conditions, &disk(95.0)), ["-disk:/data", "-process:zeek"]);
        // One that cannot be looked at at the moment is asked for all the same.
        assert!(told(&mut conditions, &Look::default()).is_empty());
        assert_eq!(told(&mut conditions, &disk(50.0)), ["-disk:/"]);
    }
}
