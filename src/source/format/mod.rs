//! Formats of the field: pure functions from bytes to alerts and devices. No I/O, no clock, no async; each has a fuzz
//! target.
//!
//! A [`Format`] is built once for a source and gives a [`Decoder`] for each stream of it: a file, a connection, an
//! address of an API. A transport hands records to the decoder, one at a time, and never looks into them; what the
//! decoder has learnt from a stream (the header of a Zeek log) it gives back as a state that the transport stores with
//! the cursor.

pub mod alert_json;

pub mod defender;

pub mod eve;

pub mod host;

mod json;

mod lenient;

mod mend;

mod ocsf;

mod parts;

pub mod syslog;

mod time;

pub mod zeek;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::RejectReason;
use crate::model::{Alert, Device, Engine, Fingerprint, Identity, Severity, SourceName, Timestamp};

/// What every format is told, checked: whose records it reads, and the operator's words for what they say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's identity: part of every fingerprint.
    pub agent: String,
    /// `[[source]] name`: part of every fingerprint.
    pub source: SourceName,
    /// The sensor's name where a record has none: the agent's, if nothing else is said.
    pub sensor: String,
    /// `[agent] site`, where a record names none.
    pub site: Option<String>,
    /// `[agent] zone`, where a record names none.
    pub zone: Option<String>,
    /// `severity_map`: what a record says (folded to lower case; of a priority its number) to a severity; laid over the
    /// format's own table.
    pub severity_map: BTreeMap<String, Severity>,
    /// `engine_map`: what a record says (folded to lower case) to an engine; laid over the format's own table.
    pub engine_map: BTreeMap<String, Engine>,
    /// `time_zone`, where records are JSON of any sender: the zone of times without one. Default UTC.
    pub time_zone: TimeZone,
}

impl Settings {
    /// Without a place, and without words of the operator's.
    pub fn new(agent: &str, sensor: &str, source: SourceName) -> Self {
        Self {
            agent: agent.to_owned(),
            source,
            sensor: sensor.to_owned(),
            site: None,
            zone: None,
            severity_map: BTreeMap::new(),
            engine_map: BTreeMap::new(),
            time_zone: TimeZone::UTC,
        }
    }

    /// The operator's severity for a word.
    fn severity(&self, word: &str) -> Option<Severity> {
        (!self.severity_map.is_empty()).then(|| self.severity_map.get(&word.to_lowercase()).copied())?
    }

    /// The operator's engine for a word.
    fn engine(&self, word: &str) -> Option<Engine> {
        (!self.engine_map.is_empty()).then(|| self.engine_map.get(&word.to_lowercase()).copied())?
    }

    /// An alert of which its record has said nothing yet.
    fn alert(&self, received_at: Timestamp) -> Alert {
        let (site, zone) = (self.site.clone(), self.zone.clone());
        Alert { site, zone, ..Alert::of(&self.sensor, received_at) }
    }

    /// Which finding a record is of, by the source's own rule.
    pub(super) fn fingerprint(&self, identity: &Identity<'_>) -> Fingerprint {
        Fingerprint::derive(&self.agent, &self.source, identity)
    }

    /// Where a device is that its record says nothing of, and who saw it.
    pub(super) fn place(&self, device: &mut Device) {
        device.sensor.get_or_insert_with(|| self.sensor.clone());
        device.site = device.site.take().or_else(|| self.site.clone());
        device.zone = device.zone.take().or_else(|| self.zone.clone());
    }
}

/// An alert, and which finding it is one sighting of.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The alert.
    pub alert: Alert,
    /// Which finding.
    pub fingerprint: Fingerprint,
}

/// What one record turned out to be. Each counts once: `records = alerts + ignored + rejected`.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// An alert.
    Alert(Box<Finding>),
    /// A record that is no alert, by its kind (`flow`, `conn`, `weird`). Kinds come from a closed list, never from the
    /// input, so that a sender cannot fill the store with counters.
    Ignored(&'static str),
    /// No record: an empty line, a header. Counted nowhere.
    Blank,
    /// It should have been a record of this format; and what is wrong, for people, without the place.
    Reject(RejectReason, Cow<'static, str>),
}

/// What came of one record.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What it is.
    pub outcome: Outcome,
    /// What it tells of devices, beside whatever else it is.
    pub devices: Vec<Device>,
}

impl From<Outcome> for Decoded {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, devices: Vec::new() }
    }
}

/// `identity`: what tells equal addresses apart, and so takes part in fingerprints as the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Tenant and outer VLAN.
    pub network: bool,
    /// The interface of the sensor.
    pub interface: bool,
    /// The MAC addresses.
    pub mac: bool,
}

impl Default for Apart {
    fn default() -> Self {
        Self { network: true, interface: false, mac: false }
    }
}

/// A stream that records come from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stream<'a> {
    /// File name or peer, for people and for formats that are told apart by it (`notice.log`).
    pub name: &'a str,
    /// Who sent it, where somebody did.
    pub sender: Option<IpAddr>,
    /// What an earlier decoder of the same stream had learnt: [`Decoder::state`].
    pub state: Option<&'a str>,
}

/// A format as one source uses it.
pub trait Format: Send + Sync + 'static {
    /// A decoder for a stream, from its beginning or from a state.
    fn decoder(&self, stream: &Stream<'_>) -> Box<dyn Decoder>;
}

/// Reads the records of one stream in their order.
pub trait Decoder: Send {
    /// Reads one record, with or without its line end. `received_at` dates it, and is its time where its own is
    /// unreadable. Never panics, whatever the bytes are.
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded;

    /// Where in a record that was refused another one begins: a power cut leaves half a record, and the next one goes on
    /// in the same line. `None`: nowhere.
    fn torn(&self, _record: &[u8]) -> Option<usize> {
        None
    }

    /// Reads a record of which only the beginning is at hand. Never panics, whatever the bytes are.
    fn decode_start(&mut self, _start: &[u8], _received_at: Timestamp) -> Decoded {
        Outcome::Reject(RejectReason::TooLong, "longer than a record may be".into()).into()
    }

    /// What is needed to read on from here, at most [`STATE_MAX`] bytes; `None`: nothing.
    fn state(&self) -> Option<String> {
        None
    }
}

/// Longest state of a decoder, in bytes.
pub const STATE_MAX: usize = 8 * 1024;

/// Which kind of source a file seems to be of, by its name and how it begins; `None`: it does not say.
pub fn guess(name: &str, head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches(['\u{feff}', '\0', ' ', '\n', '\r', '\t']);
    let has = |word: &str| text.contains(word);
    if text.starts_with("#separator") || text.starts_with("#fields") {
        return Some("zeek");
    }
    if text.starts_with(['{', '[']) {
        if has("\"event_type\"") {
            return Some("suricata-eve");
        }
        if has("\"engine\"") && has("\"sourceDevice\"") {
            return Some(if has("\"sensorId\"") { "defender-console" } else { "defender-sensor" });
        }
        let zeek = has("\"ts\"") && (has("\"uid\"") || has("\"note\"") || has("\"_path\""));
        return if zeek { Some("zeek") } else { has("\"title\"").then_some("json-lines") };
    }
    let syslog = has("CEF:") || has("LEEF:") || text.starts_with('<');
    let eve = name.starts_with("eve") && name.contains(".json");
    if syslog { Some("syslog") } else { eve.then_some("suricata-eve") }
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn files_say_what_they_are() {
        for (name, head, kind) in [
            ("x", "{\"timestamp\":\"…\",\"event_type\": \"flow\"}", Some("suricata-eve")),
            ("eve.json", "", Some("suricata-eve")),
            ("notice.log", "#separator \\x09\n#path\tnotice", Some("zeek")),
            ("conn.json", "{\"ts\":1.5,\"uid\":\"C1\"}", Some("zeek")),
            ("x.jsonl", "\u{feff}{\"title\":\"t\"}", Some("json-lines")),
            ("messages", "<13>Nov 27 10:00:00 host CEF:0|a|b|", Some("syslog")),
            ("messages", "Nov 27 10:00:00 host LEEF:1.0|a|b|", Some("syslog")),
            (
                "x.json",
                "[{\"id\":1,\"engine\":\"Anomaly\",\"title\":\"t\",\"sourceDevice\":1",
                Some("defender-sensor"),
            ),
            ("x.json", "{\"engine\":\"\",\"sourceDevice\":1,\"sensorId\":2", Some("defender-console")),
            ("x.json", "{\"a\":1}", None),
            ("x", "\u{1}\u{2}", None),
        ] {
            assert_eq!(guess(name, head.as_bytes()), kind, "{name}: {head}");
        }
    }
}
