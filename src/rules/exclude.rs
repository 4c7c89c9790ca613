//! Exclusions: alerts that nobody wants, by when, where from and what, before any rule sees them.
//!
//! All conditions of an exclusion have to hold; of a list in a condition one. The first exclusion of the file that takes
//! an alert gives its name to the count. The time is the alert's own, by the sensor's clock, in the exclusion's zone.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use super::pattern::Pattern;
use crate::model::{Alert, Engine, SourceName, Timestamp};

/// Most exclusions in a config.
pub const EXCLUDES_MAX: usize = 256;

/// An exclusion, checked. `None` is no condition.
#[derive(Clone, Debug, PartialEq)]
pub struct ExcludeSettings {
    /// Its name, unique: it is counted by it.
    pub name: String,
    /// Not before.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// In one of these windows of each week.
    pub weekly: Option<Vec<Weekly>>,
    /// The zone of `weekly`.
    pub zone: TimeZone,
    /// Names of sources.
    pub sources: Option<Vec<Pattern>>,
    /// Sensors.
    pub sensors: Option<Vec<Pattern>>,
    /// Networks; one of the two ends is in one of them.
    pub addresses: Option<Vec<IpNet>>,
    /// Titles.
    pub titles: Option<Vec<Pattern>>,
    /// Engines.
    pub engines: Option<BTreeSet<Engine>>,
    /// Folded protocol names ([`crate::model::protocol::fold`]).
    pub protocols: Option<BTreeSet<String>>,
}

impl ExcludeSettings {
    /// An exclusion without any condition: takes all.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            from: None,
            until: None,
            weekly: None,
            zone: TimeZone::UTC,
            sources: None,
            sensors: None,
            addresses: None,
            titles: None,
            engines: None,
            protocols: None,
        }
    }

    /// Whether it has no condition at all.
    pub fn is_bare(&self) -> bool {
        let bare = Self { zone: self.zone.clone(), ..Self::named(&self.name) };
        *self == bare
    }

    /// Whether it takes this alert.
    pub fn takes(&self, source: &SourceName, alert: &Alert) -> bool {
        fn one_of(patterns: Option<&Vec<Pattern>>, text: &str) -> bool {
            patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(text)))
        }
        self.is_time(alert.time)
            && self.engines.as_ref().is_none_or(|engines| engines.contains(&alert.engine))
            && self
                .protocols
                .as_ref()
                .is_none_or(|names| alert.protocols.iter().any(|protocol| names.contains(&protocol.folded())))
            && self.addresses.as_ref().is_none_or(|networks| {
                let ends = [alert.source.ip, alert.destination.ip];
                ends.into_iter().flatten().any(|ip| networks.iter().any(|network| network.contains(&ip)))
            })
            && one_of(self.sources.as_ref(), source.as_str())
            && one_of(self.sensors.as_ref(), &alert.sensor)
            && one_of(self.titles.as_ref(), &alert.title)
    }

    fn is_time(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time)
            && self.until.is_none_or(|until| time < until)
            && self.weekly.as_ref().is_none_or(|windows| {
                let instant = jiff::Timestamp::from_microsecond(time.as_micros()).unwrap_or_default();
                let local = self.zone.to_datetime(instant);
                windows.iter().any(|window| window.contains(local.weekday(), local.time()))
            })
    }
}

/// Hours of some days of each week. A window that ends before it begins ends on the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weekly {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    from: Time,
    /// Midnight is the end of the day.
    until: Time,
}

/// Why a window cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected days and hours, e.g. \"Sun 02:00-04:00\", \"Mon-Fri 18:00-06:00\" or \"daily 12:00-12:30\""
)]
pub struct WeeklyError;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Weekly {
    /// Reads `Sun 02:00-04:00`; days also as `Mon-Fri`, `Sat,Sun` or `daily`.
    pub fn parse(text: &str) -> Result<Self, WeeklyError> {
        let folded = text.trim().to_ascii_lowercase();
        let (days, hours) = folded.rsplit_once(char::is_whitespace).ok_or(WeeklyError)?;
        let (from, until) = hours.split_once('-').ok_or(WeeklyError)?;
        let (from, until) = (hour(from)?, hour(until)?);
        let mut window = Self { days: [false; 7], from, until };
        for part in days.split(',') {
            let (first, last) = match part.trim() {
                "daily" => (0, 6),
                part => match part.split_once('-') {
                    Some((first, last)) => (day(first)?, day(last)?),
                    None => (day(part)?, day(part)?),
                },
            };
            // Friday to Monday goes over the end of the week.
            let count = (last + 7 - first) % 7;
            (0..=count).for_each(|step| window.days[(first + step) % 7] = true);
        }
        Ok(window)
    }

    fn contains(&self, weekday: Weekday, time: Time) -> bool {
        let today = weekday.to_monday_zero_offset() as usize % 7;
        let yesterday = (today + 6) % 7;
        if self.from < self.until {
            return self.days[today] && self.from <= time && time < self.until;
        }
        (self.days[today] && self.from <= time) || (self.days[yesterday] && time < self.until)
    }
}

/// A day by its name or the first letters of it, three at least.
fn day(text: &str) -> Result<usize, WeeklyError> {
    const FULL: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let text = text.trim();
    let found = FULL.iter().position(|name| text.len() >= 3 && name.starts_with(text));
    found.ok_or(WeeklyError)
}

/// `02:00`; `24:00` is midnight.
fn hour(text: &str) -> Result<Time, WeeklyError> {
    let (hours, minutes) = text.trim().split_once(':').ok_or(WeeklyError)?;
    let number = |text: &str| {
        let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if plain { text.parse::<i8>().map_err(|_| WeeklyError) } else { Err(WeeklyError) }
    };
    match (number(hours)?, number(minutes)?) {
        (24, 0) => Ok(Time::midnight()),
        (hours, minutes) => Time::new(hours, minutes, 0, 0).map_err(|_| WeeklyError),
    }
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        write!(f, "{} {}-{}", days.join(","), self.from.strftime("%H:%M"), self.until.strftime("%H:%M"))
    }
}

/// All exclusions of the config, in order.
#[derive(Clone, Debug, Default)]
pub struct Exclusions(pub(crate) Vec<ExcludeSettings>);

impl Exclusions {
    /// These.
    pub fn new(settings: Vec<ExcludeSettings>) -> Self {
        Self(settings)
    }

    /// The name of the first one that takes this alert.
    pub fn taking(&self, source: &SourceName, alert: &Alert) -> Option<&str> {
        self.0.iter().find(|exclude| exclude.takes(source, alert)).map(|exclude| exclude.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Endpoint, Protocol, Severity};

    fn at(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn alert(time: &str) -> Alert {
        let end = |ip: &str| Endpoint { ip: Some(ip.parse().unwrap()), ..Endpoint::default() };
        Alert {
            source: end("10.0.0.9"),
            destination: end("192.168.7.1"),
            sensor: "line4-a".to_owned(),
            protocols: vec![Protocol::named("s7comm"), Protocol::named("cotp")],
            engine: Engine::Anomaly,
            ..Alert::sample("Address Scan Detected", Severity::Major, at(time))
        }
    }

    #[track_caller]
    fn check(expected: bool, change: impl FnOnce(&mut ExcludeSettings)) {
        let mut exclude = ExcludeSettings::named("x");
        assert!(exclude.is_bare());
        change(&mut exclude);
        assert!(!exclude.is_bare());
        let source = SourceName::new("eve").unwrap();
        assert_eq!(exclude.takes(&source, &alert("2026-12-06T02:30:00Z")), expected, "{exclude:?}");
    }

    fn patterns(text: &str) -> Vec<Pattern> {
        text.split('|').map(Pattern::new).collect()
    }

    fn networks(text: &str) -> Vec<IpNet> {
        text.split('|').map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_condition_alone() {
        check(true, |x| x.titles = Some(patterns("Other|*scan*")));
        check(false, |x| x.titles = Some(patterns("Address Scan")));
        check(true, |x| x.sensors = Some(patterns("line4-*")));
        check(false, |x| x.sensors = Some(patterns("line5-*")));
        check(true, |x| x.sources = Some(patterns("eve")));
        check(false, |x| x.sources = Some(patterns("ev")));
        check(true, |x| x.addresses = Some(networks("10.0.0.0/24")));
        check(true, |x| x.addresses = Some(networks("172.16.0.0/12|192.168.7.1/32")));
        check(false, |x| x.addresses = Some(networks("10.0.1.0/24|::/0")));
        check(true, |x| x.engines = Some(BTreeSet::from([Engine::Anomaly])));
        check(false, |x| x.engines = Some(BTreeSet::from([Engine::Malware])));
        check(true, |x| x.protocols = Some(BTreeSet::from(["cotp".to_owned()])));
        check(false, |x| x.protocols = Some(BTreeSet::from(["modbus".to_owned()])));
        check(true, |x| x.from = Some(at("2026-12-06T02:30:00Z")));
        check(false, |x| x.from = Some(at("2026-12-06T02:30:01Z")));
        check(false, |x| x.until = Some(at("2026-12-06T02:30:00Z")));
        check(true, |x| x.until = Some(at("2026-12-06T02:30:01Z")));
    }

    #[test]
    fn all_conditions_have_to_hold() {
        check(false, |x| {
            x.titles = Some(patterns("*scan*"));
            x.sensors = Some(patterns("line5-*"));
        });
        check(true, |x| {
            x.titles = Some(patterns("*scan*"));
            x.weekly = Some(vec![Weekly::parse("Sun 02:00-04:00").unwrap()]);
        });
    }

    #[test]
    fn a_week_in_the_exclusions_zone() {
        // 2026-12-06 is a Sunday.
        let check = |window: &str, zone: &str, time: &str, expected: bool| {
            let exclude = ExcludeSettings {
                weekly: Some(vec![Weekly::parse(window).unwrap()]),
                zone: TimeZone::fixed(zone.parse::<i8>().map(jiff::tz::offset).unwrap()),
                ..ExcludeSettings::named("x")
            };
            assert_eq!(exclude.is_time(at(time)), expected, "{window} {zone} {time}");
        };
        check("Sun 02:00-04:00", "0", "2026-12-06T02:00:00Z", true);
        check("Sun 02:00-04:00", "0", "2026-12-06T04:00:00Z", false);
        check("Sun 02:00-04:00", "0", "2026-12-07T02:00:00Z", false);
        check("sun 02:00-04:00", "1", "2026-12-06T01:30:00Z", true);
        check("Sunday 02:00-04:00", "-10", "2026-12-06T02:30:00Z", false);
        check("Sat 22:00-06:00", "0", "2026-12-06T05:59:00Z", true);
        check("Sat 22:00-06:00", "0", "2026-12-06T22:30:00Z", false);
        check("Sat 22:00-24:00", "0", "2026-12-05T23:59:59Z", true);
        check("Sat 22:00-24:00", "0", "2026-12-06T00:00:00Z", false);
        check("Fri-Mon 00:00-24:00", "0", "2026-12-07T12:00:00Z", true);
        check("Fri-Mon 00:00-24:00", "0", "2026-12-08T12:00:00Z", false);
        check("Sat,Sun 9:00-10:00", "0", "2026-12-06T09:30:00Z", true);
        check("daily 02:00-03:00", "0", "2026-12-08T02:30:00Z", true);
    }

    #[test]
    fn windows_that_cannot_be_read() {
        for bad in [
            "",
            "Sun",
            "02:00-04:00",
            "Sun 02:00",
            "Son 02:00-04:00",
            "Su 02:00-04:00",
            "Sun 25:00-26:00",
            "Sun 2-4",
            "Sun 02:00-04:00 x",
            "Mon- 02:00-04:00",
        ] {
            assert_eq!(Weekly::parse(bad), Err(WeeklyError), "{bad}");
        }
        assert_eq!(Weekly::parse("Sat-Mon 22:00-2:30").unwrap().to_string(), "mon,sat,sun 22:00-02:30");
    }

    #[test]
    fn the_first_of_the_file_gives_its_name() {
        let all = Exclusions::new(vec![
            ExcludeSettings { titles: Some(patterns("none")), ..ExcludeSettings::named("a") },
            ExcludeSettings { titles: Some(patterns("*")), ..ExcludeSettings::named("b") },
            ExcludeSettings { titles: Some(patterns("*scan*")), ..ExcludeSettings::named("c") },
        ]);
        let source = SourceName::new("eve").unwrap();
        assert_eq!(all.taking(&source, &alert("2026-12-06T02:30:00Z")), Some("b"));
        assert_eq!(Exclusions::default().taking(&source, &alert("2026-12-06T02:30:00Z")), None);
    }
}
