//! Suricata's EVE JSON, one line to one alert.
//!
//! Most lines of a sensor are no alerts, so a search for the bytes `"alert"` decides before anything is parsed. What
//! is parsed is borrowed from the line and lenient (`wire`); what it means stands in `tables`; who began it is decided
//! in `ends`. A line becomes an alert, or is not one, or is rejected with a reason: never a panic, never a stop.
//! What this does not do: read files, decide what is forwarded.

mod devices;

mod ends;

mod message;

pub(super) mod tables;

mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use memchr::memmem;

use self::ends::Ends;
pub(super) use self::tables::ot_port;
use super::parts::{References, raw, short as word};
use super::{Apart, Decoded, Decoder, Finding, Format, Outcome, Stream, mend, time};
use crate::model::alert::TITLE_MAX;
use crate::model::text::{clip, one_line};
use crate::model::{Alert, Engine, Fingerprint, Identity, Protocol, Severity, Timestamp};
use crate::source::RejectReason;

/// How EVE is read, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every format is told: severities by the rule's priority, engines by its category.
    pub common: super::Settings,
    /// `identity`.
    pub apart: Apart,
    /// `signature_severity`: whether `alert.metadata.signature_severity` overrides the priority. Default true.
    pub signature_severity: bool,
    /// `time_zone`: the zone of timestamps without an offset. Default UTC.
    pub time_zone: jiff::tz::TimeZone,
}

/// Priority of a rule that has none.
const DEFAULT_PRIORITY: u64 = 3;

/// EVE as a format. Every alert stands for itself, so all decoders of a source share one reader.
#[derive(Clone, Debug)]
pub struct Eve(Arc<Reader>);

impl Eve {
    /// EVE as one source uses it.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Reader::new(settings)))
    }
}

impl Format for Eve {
    fn decoder(&self, _: &Stream<'_>) -> Box<dyn Decoder> {
        Box::new(Lines { reader: Arc::clone(&self.0), told: devices::Told::default() })
    }
}

#[derive(Debug)]
struct Lines {
    reader: Arc<Reader>,
    told: devices::Told,
}

impl Decoder for Lines {
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        let outcome = self.reader.line(record, received_at);
        let devices = match &outcome {
            Outcome::Ignored(kind) => {
                devices::of(kind, record, received_at, &self.reader.settings, &mut self.told)
            }
            _ => Vec::new(),
        };
        Decoded { outcome, devices }
    }

    fn torn(&self, record: &[u8]) -> Option<usize> {
        let first = memchr::memchr(b'{', record)? + 1;
        self.reader.begin.find(&record[first..]).map(|at| first + at)
    }

    fn decode_start(&mut self, start: &[u8], received_at: Timestamp) -> Decoded {
        self.reader.start(start, received_at).into()
    }
}

/// Reads lines. Built once per source: it holds the search tables.
#[derive(Debug)]
pub struct Reader {
    settings: Settings,
    alert: memmem::Finder<'static>,
    event_type: memmem::Finder<'static>,
    escape: memmem::Finder<'static>,
    /// The key as it stands in a text inside of another record.
    wrapped: memmem::Finder<'static>,
    /// How Suricata begins each record.
    begin: memmem::Finder<'static>,
    protocols: HashMap<&'static str, Protocol>,
}

impl Reader {
    /// A reader for one source.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            alert: memmem::Finder::new(b"\"alert\""),
            event_type: memmem::Finder::new(b"\"event_type\""),
            escape: memmem::Finder::new(b"\\u00"),
            wrapped: memmem::Finder::new(b"\\\"event_type\\\""),
            begin: memmem::Finder::new(b"{\"timestamp\":"),
            protocols: tables::APP_PROTOS.iter().map(|name| (*name, Protocol::named(name))).collect(),
        }
    }

    /// Reads one line, with or without its line end. `received_at` dates it, and is its time where the sensor's is
    /// unreadable.
    pub fn line(&self, line: &[u8], received_at: Timestamp) -> Outcome {
        let line = line.trim_ascii();
        // A byte order mark, `@cee: ` and the zeros that a power cut leaves in a file all end at the first brace.
        let Some(start) = memchr::memchr(b'{', line) else {
            return if line.is_empty() {
                Outcome::Blank
            } else {
                Outcome::Reject(RejectReason::Malformed, "not a JSON object: the line has no `{`".into())
            };
        };
        let json = &line[start..];
        if !json.ends_with(b"}") {
            let detail = "the JSON object does not end on its line (cut short?)";
            return Outcome::Reject(RejectReason::Malformed, detail.into());
        }
        if !self.may_be_alert(json) {
            if self.event_type.find(json).is_none() && self.wrapped.find(json).is_some() {
                let detail = "a record of EVE as text inside of another one: a log shipper wrapped it; read the file \
                              that Suricata writes, or have the shipper pass its lines on as they are";
                return Outcome::Reject(RejectReason::Malformed, detail.into());
            }
            return Outcome::Ignored(self.kind(json));
        }
        match serde_json::from_slice::<wire::Record<'_>>(json) {
            Ok(record) => self.record(&record, json, received_at),
            Err(error) => self.mended(json, received_at, &error),
        }
    }

    /// Reads a line by its beginning: what is long in an alert (payload, packet, what the parser saw) stands behind the
    /// alert itself.
    fn start(&self, start: &[u8], received_at: Timestamp) -> Outcome {
        let long = || Outcome::Reject(RejectReason::TooLong, "the line is longer than is read".into());
        let Some(begin) = memchr::memchr(b'{', start) else { return long() };
        let start = &start[begin..];
        if !self.may_be_alert(start) {
            let known = self.event_type.find(start).is_some();
            return if known { Outcome::Ignored(self.kind(start)) } else { long() };
        }
        let text = String::from_utf8_lossy(start);
        let json = mend::closed(text.as_bytes());
        let read = json.as_deref().map(|json| self.line(json, received_at));
        match read {
            Some(Outcome::Reject(..)) | None => long(),
            Some(outcome) => outcome,
        }
    }

    /// Whether the line can have the event type `alert`: it has the word as a whole string, or it has one of the
    /// word's letters written as an escape. A cheap no for nearly every other line.
    fn may_be_alert(&self, json: &[u8]) -> bool {
        self.alert.find(json).is_some()
            || self.escape.find_iter(json).any(|at| matches!(json.get(at + 4), Some(b'6' | b'7')))
    }

    /// The event type of a line that is not parsed: the first one that stands in it.
    fn kind(&self, json: &[u8]) -> &'static str {
        let word = || {
            let (_, rest) =
                json.split_at_checked(self.event_type.find(json)? + self.event_type.needle().len())?;
            let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
            let end = memchr::memchr(b'"', &rest[..rest.len().min(tables::EVENT_TYPE_MAX + 1)])?;
            std::str::from_utf8(&rest[..end]).ok()
        };
        tables::event_type(word().unwrap_or_default())
    }

    /// The line was no JSON as it stands; without its invalid UTF-8, or numbers that are none, it may be.
    fn mended(&self, json: &[u8], received_at: Timestamp, error: &serde_json::Error) -> Outcome {
        let text = mend::cleaned(&String::from_utf8_lossy(json));
        if let Ok(record) = serde_json::from_str::<wire::Record<'_>>(&text) {
            return self.record(&record, json, received_at);
        }
        Outcome::Reject(RejectReason::Malformed, format!("not JSON: {error}").into())
    }

    fn record(&self, record: &wire::Record<'_>, json: &[u8], received_at: Timestamp) -> Outcome {
        let event_type = record.event_type.get().unwrap_or_default();
        if event_type != "alert" {
            return Outcome::Ignored(tables::event_type(event_type));
        }
        let Some(sid) = record.alert.signature_id.0 else {
            let detail = "an alert without the number `alert.signature_id`";
            return Outcome::Reject(RejectReason::MissingField, detail.into());
        };
        Outcome::Alert(Box::new(self.alert(record, sid, json, received_at)))
    }

    fn alert(&self, record: &wire::Record<'_>, sid: u64, json: &[u8], received_at: Timestamp) -> Finding {
        let signature = Signature { gid: record.alert.gid.0.unwrap_or(1), sid, rev: record.alert.rev.0 };
        let ends = Ends::of(record);
        let category = record.alert.category.get().map(str::trim).filter(|text| !text.is_empty());
        let folded = category.map(str::to_lowercase).unwrap_or_default();
        let time = record.timestamp.get().and_then(|text| time::read(text, &self.settings.time_zone));
        let undated = record.timestamp.get().filter(|_| time.is_none());
        let sensor = record.host.get().map(word).filter(|name| !name.is_empty());
        let protocols = self.protocols(record);
        let fingerprint = self.fingerprint(record, &signature, &ends, protocols.first());
        let title = title(record, &signature);
        let message = message::compose(record, &signature, &title, &protocols, undated);
        let alert = self.settings.common.alert(received_at);
        let alert = Alert {
            time: time.unwrap_or(received_at),
            title,
            message,
            severity: self.severity(&record.alert),
            engine: self.engine(&folded, sid),
            protocols,
            category: category.map(word),
            source: ends.initiator,
            destination: ends.responder,
            sensor: sensor.unwrap_or(alert.sensor),
            references: references(&record.alert, &signature),
            raw: raw(json),
            ..alert
        };
        Finding { alert, fingerprint }
    }

    /// Neither ports nor the time take part: a scan over ports is one finding. The protocol is the one that is shown, so
    /// that it does not matter whether Suricata had recognised it by then.
    fn fingerprint(
        &self,
        record: &wire::Record<'_>,
        signature: &Signature,
        ends: &Ends,
        protocol: Option<&Protocol>,
    ) -> Fingerprint {
        let address = |end: &crate::model::Endpoint| end.ip.map(|ip| ip.to_string()).unwrap_or_default();
        let identity = Identity::Derived {
            signature: &format!("{}:{}", signature.gid, signature.sid),
            source: &address(&ends.initiator),
            destination: &address(&ends.responder),
            protocol: protocol.map_or("", Protocol::as_str),
        };
        let network = self.network(record, ends);
        let common = &self.settings.common;
        Fingerprint::derive_in(&common.agent, &common.source, &network, &identity)
    }

    /// What the record names to tell equal addresses apart, as far as it was asked for.
    fn network(&self, record: &wire::Record<'_>, ends: &Ends) -> String {
        let apart = self.settings.apart;
        let mut network = String::new();
        let mut part = |name: &str, value: &str| {
            if !value.is_empty() {
                network.extend([name, "=", value, ";"]);
            }
        };
        if apart.network {
            part("tenant", &record.tenant_id.0.map(|id| id.to_string()).unwrap_or_default());
            part("vlan", record.vlan.0.first().map_or("", |outer| outer));
        }
        if apart.interface {
            part("interface", record.in_iface.get().unwrap_or_default());
        }
        if apart.mac {
            part("from", ends.initiator.mac.as_deref().unwrap_or_default());
            part("to", ends.responder.mac.as_deref().unwrap_or_default());
        }
        network
    }

    /// The operator's table over the base table; the rule's own word over both.
    fn severity(&self, alert: &wire::Alert<'_>) -> Severity {
        let said = alert.metadata.signature_severity.as_deref().filter(|_| self.settings.signature_severity);
        if let Some(severity) = said.and_then(tables::signature_severity) {
            return severity;
        }
        let priority = alert.severity.0.unwrap_or(DEFAULT_PRIORITY);
        let mapped = self.settings.common.severity(&priority.to_string());
        mapped.unwrap_or_else(|| tables::severity(priority))
    }

    fn engine(&self, category: &str, sid: u64) -> Engine {
        if let Some(engine) = self.settings.common.engine(category) {
            return engine;
        }
        if category.is_empty() {
            return tables::engine_of_sid(sid);
        }
        tables::engine(category).unwrap_or(Engine::Anomaly)
    }

    /// The parser's name; where Suricata has no parser, the protocol of the port; else TCP, UDP and so on.
    fn protocols(&self, record: &wire::Record<'_>) -> Vec<Protocol> {
        if let Some(name) = app_proto(record) {
            return vec![self.protocols.get(name).cloned().unwrap_or_else(|| Protocol::named(name))];
        }
        let of = |port: wire::Number| port.port().and_then(ot_port);
        match (of(record.src_port), of(record.dest_port)) {
            (Some(name), None) | (None, Some(name)) => return vec![Protocol::named(name)],
            // BACnet stations talk from port 47808 to port 47808.
            (Some(one), Some(other)) if one == other => return vec![Protocol::named(one)],
            _ => {}
        }
        let written = record.proto.get().unwrap_or_default();
        let protocol = Protocol::named(&tables::ip_protocol(written));
        if protocol.as_str().trim().is_empty() { Vec::new() } else { vec![protocol] }
    }
}

/// The rule that fired.
struct Signature {
    gid: u64,
    sid: u64,
    rev: Option<u64>,
}

/// `app_proto`, unless Suricata says that it does not know.
fn app_proto<'a>(record: &'a wire::Record<'_>) -> Option<&'a str> {
    record.app_proto.get().filter(|name| !matches!(*name, "failed" | "unknown"))
}

fn title(record: &wire::Record<'_>, signature: &Signature) -> String {
    let text = one_line(record.alert.signature.get().unwrap_or_default());
    let text = text.trim();
    if text.is_empty() {
        return format!("{}:{}:{}", signature.gid, signature.sid, signature.rev.unwrap_or(0));
    }
    clip(text, TITLE_MAX).into_owned()
}

fn references(alert: &wire::Alert<'_>, signature: &Signature) -> Vec<String> {
    let mut all = References::default();
    all.add(&format!("sid:{}:{}:{}", signature.gid, signature.sid, signature.rev.unwrap_or(0)));
    for value in &alert.metadata.references {
        // Rule sets write `CVE_2021_44228`, everyone else `CVE-2021-44228`.
        let cve = value.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("cve"));
        if cve { all.add(&value.to_ascii_uppercase().replace('_', "-")) } else { all.add(value) }
    }
    alert.references.0.iter().for_each(|value| all.add(value));
    all.0
}

#[cfg(test)]
mod tests;
