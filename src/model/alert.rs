//! An alert: one finding of a sensor, normalised, whichever source it came from.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::words::words;
use super::{Protocol, SourceName, Timestamp};

words! {
    /// How bad it is, in the four steps of Defender for IoT. The order is the order of badness.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Severity with its own parse {
        /// Worth knowing.
        Warning = "warning",
        /// Worth a look.
        Minor = "minor",
        /// Needs attention soon.
        Major = "major",
        /// Needs attention now.
        Critical = "critical",
    }
}

impl Severity {
    /// The one of this number, by which the store has it.
    pub fn numbered(n: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(n).ok()?).copied()
    }

    /// Reads the word, whatever its case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str().eq_ignore_ascii_case(text.trim()))
    }
}

words! {
    /// What kind of analysis raised it: the five engines of Defender for IoT.
    #[derive(Serialize, Deserialize)]
    pub enum Engine with its own parse {
        /// Packets that break the protocol's own specification.
        #[serde(rename = "protocol violation")]
        ProtocolViolation = "protocol violation",
        /// Behaviour that the site does not allow.
        #[serde(rename = "policy violation")]
        PolicyViolation = "policy violation",
        /// Known malicious code or traffic.
        #[serde(rename = "malware")]
        Malware = "malware",
        /// Behaviour that differs from what is usual.
        #[serde(rename = "anomaly")]
        Anomaly = "anomaly",
        /// State of devices, sensors and otrelay itself.
        #[serde(rename = "operational")]
        Operational = "operational",
    }
}

impl Engine {
    /// Reads the words; case, `-` and `_` do not matter.
    pub fn parse(text: &str) -> Option<Self> {
        let fold = |s: &str| s.trim().to_ascii_lowercase().replace(['-', '_'], " ");
        let wanted = fold(text);
        Self::ALL.into_iter().find(|e| e.as_str() == wanted)
    }
}

/// One end of what was seen. Everything is optional: decoder alerts have no address at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address, normalised (IPv6 compressed, no zone).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// `00:1b:1b:aa:bb:cc`: lower case, colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Host or device name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// TCP, UDP or SCTP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The source's own id of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
}

impl Endpoint {
    /// What people call it: its name, else its address, else its MAC; `?` when nothing is known.
    pub fn label(&self) -> String {
        self.name
            .clone()
            .or_else(|| self.ip.map(|ip| ip.to_string()))
            .or_else(|| self.mac.clone())
            .unwrap_or_else(|| "?".to_owned())
    }
}

words! {
    /// Whether the finding stands or its source took it back.
    #[derive(Default, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum AlertState {
        /// It stands.
        #[default]
        Raised = "raised",
        /// The source says it is over.
        Cleared = "cleared",
    }
}

words! {
    /// A finding about the plant, or one about the sensor and otrelay themselves.
    #[derive(Default, Serialize, Deserialize)]
    pub enum AlertKind {
        /// About the plant.
        #[default]
        #[serde(rename = "alert")]
        Alert = "alert",
        /// About the sensor or otrelay (sensor offline, disk filling); its engine is always `operational`.
        #[serde(rename = "system notification")]
        SystemNotification = "system notification",
    }
}

/// Longest `raw` that is kept, in bytes. EVE lines reach 2.4 MB; the store keeps this much of them.
pub const RAW_MAX: usize = 16 * 1024;
/// Longest title that is kept, in bytes.
pub const TITLE_MAX: usize = 512;
/// Longest message that is kept, in bytes.
pub const MESSAGE_MAX: usize = 8 * 1024;

/// One finding of a sensor, normalised. Texts hold no control characters but newline and tab in `message` and `raw`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The source's own id of this finding, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When the sensor saw it, by the sensor's clock; the time of receipt where the source gave none.
    pub time: Timestamp,
    /// When otrelay took it in, by this machine's clock.
    pub received_at: Timestamp,
    /// One line, at most [`TITLE_MAX`] bytes, never empty.
    pub title: String,
    /// What happened, for people; at most [`MESSAGE_MAX`] bytes.
    pub message: String,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of analysis raised it.
    pub engine: Engine,
    /// Protocols involved, most specific first; may be empty.
    pub protocols: Vec<Protocol>,
    /// The source's category text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// Who began it.
    pub source: Endpoint,
    /// Whom it went to.
    pub destination: Endpoint,
    /// The sensor that saw it: its own name for itself, else the agent's name.
    pub sensor: String,
    /// Of the config, or of the source where it knows better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Of the config, or of the source where it knows better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Raised or cleared.
    #[serde(default)]
    pub state: AlertState,
    /// About the plant or about the sensor.
    #[serde(default)]
    pub kind: AlertKind,
    /// CVE numbers, `sid:2250005`, URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// The original, at most [`RAW_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raw: String,
}

impl Alert {
    /// `10.0.0.1 → 10.0.0.2`: who and whom.
    pub fn parties(&self) -> String {
        format!("{} → {}", self.source.label(), self.destination.label())
    }

    /// What a sensor, or this agent, says of itself, raised: `id` makes it one finding. Nothing was seen on the wire, so
    /// there is no protocol, no other side and no original. Title and message are the caller's.
    pub fn notification(id: &str, sensor: &str, at: Timestamp) -> Self {
        Self {
            id: Some(id.to_owned()),
            engine: Engine::Operational,
            source: Endpoint { name: Some(sensor.to_owned()), ..Endpoint::default() },
            kind: AlertKind::SystemNotification,
            ..Self::of(sensor, at)
        }
    }

    /// A finding about the plant of which nothing is said yet but who saw it, and when: raised, major, an anomaly.
    pub fn of(sensor: &str, at: Timestamp) -> Self {
        Self {
            id: None,
            time: at,
            received_at: at,
            title: String::new(),
            message: String::new(),
            severity: Severity::Major,
            engine: Engine::Anomaly,
            protocols: Vec::new(),
            category: None,
            source: Endpoint::default(),
            destination: Endpoint::default(),
            sensor: sensor.to_owned(),
            site: None,
            zone: None,
            state: AlertState::Raised,
            kind: AlertKind::Alert,
            references: Vec::new(),
            raw: String::new(),
        }
    }
}

#[cfg(test)]
impl Alert {
    /// An alert for tests of every room: what it says beside title, severity and time does not matter to them.
    pub(crate) fn sample(title: &str, severity: Severity, time: Timestamp) -> Self {
        Self {
            title: title.to_owned(),
            severity,
            protocols: vec![Protocol::named("modbus")],
            ..Self::of("s", time)
        }
    }
}

/// What makes two sightings the same finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    /// The source's own stable alert id.
    Own(&'a str),
    /// Where the source has none. Addresses are written normalised, absent is empty. Ports are not part of it.
    Derived {
        /// `gid:sid` for EVE, the title elsewhere.
        signature: &'a str,
        /// Initiator.
        source: &'a str,
        /// Responder.
        destination: &'a str,
        /// The protocol that is shown: canonical, aliases and port table applied; absent is empty.
        protocol: &'a str,
    },
}

/// The bytes that 64 hex digits stand for.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// SHA-256 over agent, source and [`Identity`]: same fingerprint, same finding, one ticket.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Derives it, of a record that names no network. `agent` is the agent's identity, not its name.
    pub fn derive(agent: &str, source: &SourceName, identity: &Identity<'_>) -> Self {
        Self::derive_in(agent, source, "", identity)
    }

    /// Derives it. `network` is what the record names to tell equal addresses apart, empty where it names nothing; with
    /// [`Identity::Own`] it plays no part. Every part is length-prefixed, so that no two different tuples give the same
    /// bytes.
    pub fn derive_in(agent: &str, source: &SourceName, network: &str, identity: &Identity<'_>) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        let mut part = |text: &str| {
            hash.update(&(text.len() as u32).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(agent);
        part(source.as_str());
        match identity {
            Identity::Own(id) => {
                part("own");
                part(id);
            }
            Identity::Derived { signature, source, destination, protocol } => {
                part("derived");
                part(signature);
                part(network);
                part(source);
                part(destination);
                part(protocol);
            }
        }
        let digest = hash.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// From stored bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For storing.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes as a number: what the store's index holds.
    pub fn prefix(&self) -> i64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        i64::from_be_bytes(first)
    }

    /// Reads the 64 hex digits that `Display` writes.
    pub fn parse(text: &str) -> Option<Self> {
        unhex(text).map(Self)
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    text
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered() {
        assert!(Severity::Warning < Severity::Minor && Severity::Major < Severity::Critical);
        assert_eq!(Severity::parse(" Major"), Some(Severity::Major));
        assert_eq!(Severity::parse("high"), None);
    }

    #[test]
    fn engines_read_as_people_write_them() {
        assert_eq!(Engine::parse("Protocol-Violation"), Some(Engine::ProtocolViolation));
        assert_eq!(Engine::parse("policy_violation"), Some(Engine::PolicyViolation));
    }

    #[test]
    fn fingerprint_parts_do_not_run_together() {
        let source = SourceName::new("eve").unwrap();
        let of = |signature, from| {
            let identity = Identity::Derived { signature, source: from, destination: "", protocol: "tcp" };
            Fingerprint::derive("agent", &source, &identity)
        };
        assert_ne!(of("1:1", "1"), of("1:11", ""));
        assert_eq!(of("1:1", "1"), of("1:1", "1"));
        let identity = Identity::Derived { signature: "1:1", source: "1", destination: "", protocol: "tcp" };
        assert_ne!(of("1:1", "1"), Fingerprint::derive_in("agent", &source, "1", &identity));
        let text = of("1:1", "1").to_string();
        assert_eq!(Fingerprint::parse(&text), Some(of("1:1", "1")));
    }
}
