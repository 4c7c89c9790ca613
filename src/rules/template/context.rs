//! The variables of a template, from an alert and what became of it.

use std::net::{IpAddr, Ipv4Addr};

use minijinja::value::Value;

use crate::model::alert::{MESSAGE_MAX, RAW_MAX};
use crate::model::gather::Gather as _;
use crate::model::{
    Alert, AlertKind, AlertState, DestinationName, Endpoint, Engine, Generation, Protocol, Severity,
    TableName, Timestamp,
};

/// Every variable of a template and what it is. What is absent is an empty text; every instant is UTC.
pub const VARIABLES: &[(&str, &str)] = &[
    ("id", "the source's own id of the alert"),
    ("time", "when the sensor saw it: 2026-11-21 08:15:00"),
    ("received_at", "when otrelay took it in: 2026-11-21 08:15:00"),
    ("title", "one line"),
    ("message", "what happened, several lines"),
    ("severity", "warning, minor, major or critical"),
    ("severity_number", "1 for critical, 2 for major, 3 for minor, 4 for warning"),
    ("engine", "protocol violation, policy violation, malware, anomaly or operational"),
    ("protocol", "the first protocol"),
    ("protocols", "list of all protocols"),
    ("category", "the source's category"),
    ("source", "who began it, see its parts"),
    ("source.ip", "address"),
    ("source.mac", "hardware address: 00:1b:1b:aa:bb:cc"),
    ("source.name", "host or device name"),
    ("source.port", "port, a number"),
    ("source.device_id", "the source's own id of the device"),
    ("source.label", "name, else address, else hardware address, else unknown"),
    ("destination", "whom it went to, see its parts"),
    ("destination.ip", "address"),
    ("destination.mac", "hardware address: 00:1b:1b:aa:bb:cc"),
    ("destination.name", "host or device name"),
    ("destination.port", "port, a number"),
    ("destination.device_id", "the source's own id of the device"),
    ("destination.label", "name, else address, else hardware address, else unknown"),
    ("sensor", "the sensor that saw it"),
    ("site", "site of the sensor"),
    ("zone", "zone of the sensor"),
    ("state", "raised or cleared"),
    ("kind", "alert or system notification"),
    ("references", "list of CVE numbers, signature ids, addresses of pages"),
    ("raw", "the original, at most 16 KiB"),
    ("occurrences", "how often it was seen, a number"),
    ("first_seen", "when it was first seen: 2026-11-21 08:15:00"),
    ("last_seen", "when it was last seen: 2026-11-21 08:15:00"),
    ("generation", "how many tickets for the same alert were closed before, a number"),
    ("agent", "name of this otrelay"),
    ("rule", "the rule that asked for the ticket"),
    ("servicenow", "the destination's name in the config"),
    ("table", "the table"),
    ("correlation_id", "the key of the record, the same in the ticket and here"),
];

/// What a ticket is made from.
#[derive(Clone, Debug)]
pub struct TicketContext<'a> {
    /// The alert as it was first recorded.
    pub alert: &'a Alert,
    /// How often it was seen.
    pub occurrences: u64,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How many tickets for the same alert were closed before.
    pub generation: Generation,
    /// Name of this agent.
    pub agent: &'a str,
    /// Name of the rule that asked for the ticket.
    pub rule: &'a str,
    /// Where the ticket goes.
    pub destination: &'a DestinationName,
    /// Where the ticket goes.
    pub table: &'a TableName,
    /// Its key there.
    pub correlation_id: &'a str,
}

impl TicketContext<'_> {
    /// The variables of [`VARIABLES`].
    pub(in crate::rules) fn values(&self) -> Value {
        let alert = self.alert;
        let or_empty = |text: &Option<String>| Value::from(text.as_deref().unwrap_or_default());
        let list = |items: &mut dyn Iterator<Item = &str>| items.map(Value::from).collect::<Vec<_>>().into();
        let protocols = &alert.protocols;
        let pairs: [(&str, Value); 29] = [
            ("id", or_empty(&alert.id)),
            ("time", alert.time.servicenow().into()),
            ("received_at", alert.received_at.servicenow().into()),
            ("title", alert.title.as_str().into()),
            ("message", alert.message.as_str().into()),
            ("severity", alert.severity.as_str().into()),
            ("severity_number", (Severity::ALL.len() - alert.severity as usize).into()),
            ("engine", alert.engine.as_str().into()),
            ("protocol", protocols.first().map_or("", Protocol::as_str).into()),
            ("protocols", list(&mut protocols.iter().map(Protocol::as_str))),
            ("category", or_empty(&alert.category)),
            ("source", endpoint(&alert.source)),
            ("destination", endpoint(&alert.destination)),
            ("sensor", alert.sensor.as_str().into()),
            ("site", or_empty(&alert.site)),
            ("zone", or_empty(&alert.zone)),
            ("state", alert.state.as_str().into()),
            ("kind", alert.kind.as_str().into()),
            ("references", list(&mut alert.references.iter().map(String::as_str))),
            ("raw", alert.raw.as_str().into()),
            ("occurrences", self.occurrences.into()),
            ("first_seen", self.first_seen.servicenow().into()),
            ("last_seen", self.last_seen.servicenow().into()),
            ("generation", self.generation.0.into()),
            ("agent", self.agent.into()),
            ("rule", self.rule.into()),
            ("servicenow", self.destination.as_str().into()),
            ("table", self.table.as_str().into()),
            ("correlation_id", self.correlation_id.into()),
        ];
        Value::from(pairs.into_iter().into_map())
    }
}

fn endpoint(end: &Endpoint) -> Value {
    let ip = end.ip.map(|ip| ip.to_string());
    let label = end.name.as_deref().or(ip.as_deref()).or(end.mac.as_deref()).unwrap_or("unknown");
    let pairs: [(&str, Value); 6] = [
        ("ip", ip.as_deref().unwrap_or_default().into()),
        ("mac", end.mac.as_deref().unwrap_or_default().into()),
        ("name", end.name.as_deref().unwrap_or_default().into()),
        ("port", end.port.map_or_else(|| "".into(), Value::from)),
        ("device_id", end.device_id.as_deref().unwrap_or_default().into()),
        ("label", label.into()),
    ];
    Value::from(pairs.into_iter().into_map())
}

/// Every variable set and as long as it can be, and nothing optional set.
pub(super) fn samples() -> [Value; 2] {
    let at = Timestamp::from_secs(1_795_248_900);
    let end = |last: u8| Endpoint {
        ip: Some(IpAddr::V4(Ipv4Addr::new(10, 20, 0, last))),
        mac: Some("00:1b:1b:aa:bb:cc".to_owned()),
        name: Some("plc-1".to_owned()),
        port: Some(502),
        device_id: Some("7".to_owned()),
    };
    let full = Alert {
        id: Some("1".to_owned()),
        title: "Modbus function code not allowed".to_owned(),
        message: "x".repeat(MESSAGE_MAX),
        severity: Severity::Critical,
        engine: Engine::PolicyViolation,
        protocols: vec![Protocol::named("modbus"), Protocol::named("tcp")],
        category: Some("Potentially bad traffic".to_owned()),
        source: end(5),
        destination: end(6),
        site: Some("Plant North".to_owned()),
        zone: Some("Line 4".to_owned()),
        references: vec!["CVE-2015-5374".to_owned(), "sid:2250005".to_owned()],
        raw: "x".repeat(RAW_MAX),
        ..Alert::of("sensor-1", at)
    };
    let bare = Alert {
        title: "x".to_owned(),
        severity: Severity::Warning,
        engine: Engine::Operational,
        state: AlertState::Cleared,
        kind: AlertKind::SystemNotification,
        ..Alert::of("x", at)
    };
    let destination = DestinationName::new("prod").expect("a plain name");
    let table = TableName::new("incident").expect("a plain name");
    let values = |alert: &Alert| {
        TicketContext {
            alert,
            occurrences: 1,
            first_seen: at,
            last_seen: at,
            generation: Generation::default(),
            agent: "agent",
            rule: "rule",
            destination: &destination,
            table: &table,
            correlation_id: "otrelay-0123456789abcdef0123456789abcdef",
        }
        .values()
    };
    [values(&full), values(&bare)]
}
