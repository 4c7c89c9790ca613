//! A row of `notice` or `weird` to an alert.

use std::fmt::Write;
use std::net::IpAddr;

use super::row::Row;
use super::{Settings, tables};
use crate::model::alert::{MESSAGE_MAX, TITLE_MAX};
use crate::model::text::{self, clip, one_line};
use crate::model::{Alert, AlertKind, Endpoint, Engine, Identity, Protocol, Severity, Timestamp};
use crate::source::RejectReason;
use crate::source::format::eve::ot_port;
use crate::source::format::parts::{self, raw, word};
use crate::source::format::{Finding, Outcome};

/// What a row says beyond what is common to notices and weirds.
struct Said {
    /// The note or the name, as written: part of the fingerprint.
    signature: String,
    title: String,
    message: String,
    severity: Severity,
    engine: Engine,
    protocol: Option<Protocol>,
    kind: AlertKind,
    references: Vec<String>,
    source: Endpoint,
    destination: Endpoint,
}

pub(super) fn notice(settings: &Settings, row: &Row<'_>, line: &[u8], received_at: Timestamp) -> Outcome {
    let Some(note) = row.text("note").and_then(|note| word(&note)) else {
        return missing("a notice without `note`");
    };
    if note == tables::TALLY {
        return Outcome::Ignored("notice");
    }
    let msg = row.text("msg").unwrap_or_default();
    let technique = technique(&msg).filter(|_| tables::is_acid(&note));
    let (severity, engine) = match technique {
        Some(id) => (tables::technique(id), Engine::PolicyViolation),
        None if tables::is_acid(&note) => (Severity::Minor, Engine::PolicyViolation),
        None => tables::note(&note),
    };
    let (source, destination) = notice_ends(row);
    let protocol = notice_protocol(row, &note, &source, &destination);
    let engine = settings.engine(&note).unwrap_or(engine);
    let about_sensor = tables::is_about_the_sensor(&note) && engine == Engine::Operational;
    let mut references = vec![format!("note:{note}")];
    references.extend(technique.map(ToOwned::to_owned));
    references.extend(parts::cve(&note).or_else(|| parts::cve(&msg)));
    let title = note.replace("::", ": ").replace('_', " ");
    let said = Said {
        message: notice_message(row, &title),
        title,
        severity: settings.severity(&note).unwrap_or(severity),
        engine,
        protocol,
        kind: if about_sensor { AlertKind::SystemNotification } else { AlertKind::Alert },
        references,
        source,
        destination,
        signature: note,
    };
    finding(settings, row, said, line, received_at)
}

pub(super) fn weird(settings: &Settings, row: &Row<'_>, line: &[u8], received_at: Timestamp) -> Outcome {
    let Some(name) = row.text("name").and_then(|name| word(&name)) else {
        return missing("a weird without `name`");
    };
    let (severity, engine) = (settings.severity(&name), settings.engine(&name));
    if severity.is_none() && engine.is_none() && !tables::WEIRDS.contains(&name.as_str()) {
        return Outcome::Ignored("weird");
    }
    let (source, destination) = connection_ends(row);
    let analyzer = || row.text("source").and_then(|analyzer| tables::named_protocol(&analyzer));
    let protocol = tables::named_protocol(&name).or_else(|| by_port(&source, &destination)).or_else(analyzer);
    let mut message = format!("{name}\n");
    labelled(&mut message, row, &[("Detail", "addl"), ("Analyzer", "source"), ("Connection", "uid")]);
    let said = Said {
        title: name.clone(),
        message: finished(&message),
        severity: severity.unwrap_or(tables::WEIRD.0),
        engine: engine.unwrap_or(tables::WEIRD.1),
        protocol,
        kind: AlertKind::Alert,
        references: vec![format!("weird:{name}")],
        source,
        destination,
        signature: name,
    };
    finding(settings, row, said, line, received_at)
}

fn missing(detail: &'static str) -> Outcome {
    Outcome::Reject(RejectReason::MissingField, detail.into())
}

fn finding(settings: &Settings, row: &Row<'_>, said: Said, line: &[u8], received_at: Timestamp) -> Outcome {
    let protocols: Vec<Protocol> = said.protocol.into_iter().collect();
    let identity = Identity::Derived {
        signature: &said.signature,
        source: &parts::identity(&said.source),
        destination: &parts::identity(&said.destination),
        protocol: protocols.first().map_or("", Protocol::as_str),
    };
    let fingerprint = settings.fingerprint(&identity);
    let when = row.when();
    let mut message = said.message;
    if let Some(written) = &when.unreadable {
        parts::undated(&mut message, None, written);
    }
    let alert = Alert {
        time: when.time.unwrap_or(received_at),
        title: title(&said.title),
        message,
        severity: said.severity,
        engine: said.engine,
        protocols,
        source: said.source,
        destination: said.destination,
        sensor: sensor(settings, row),
        kind: said.kind,
        references: said.references,
        raw: raw(line),
        ..settings.alert(received_at)
    };
    Outcome::Alert(Box::new(Finding { alert, fingerprint }))
}

/// The sensor's name, and which node of a cluster it was. A single Zeek calls itself by its program's name.
fn sensor(settings: &Settings, row: &Row<'_>) -> String {
    let node = row.any(&["peer_descr", "peer"]).and_then(|node| word(&node));
    match node.filter(|node| !matches!(node.as_str(), "zeek" | "bro")) {
        Some(node) => format!("{}/{node}", settings.sensor),
        None => settings.sensor.clone(),
    }
}

fn connection_ends(row: &Row<'_>) -> (Endpoint, Endpoint) {
    let end = |host: &str, port: &str| Endpoint {
        ip: row.address(host),
        port: row.port(port).filter(|port| *port != 0),
        ..Endpoint::default()
    };
    (end("id.orig_h", "id.orig_p"), end("id.resp_h", "id.resp_p"))
}

/// Whom the notice names, else the connection. A scan has a source only, and no connection.
fn notice_ends(row: &Row<'_>) -> (Endpoint, Endpoint) {
    let (orig, resp) = connection_ends(row);
    let (src, dst) = (row.address("src"), row.address("dst"));
    if src.is_none() && dst.is_none() {
        return (orig, resp);
    }
    let end = |ip: Option<IpAddr>| {
        let known = [&orig, &resp].into_iter().find(|end| ip == end.ip && ip.is_some());
        known.cloned().unwrap_or(Endpoint { ip, ..Endpoint::default() })
    };
    let source = end(src);
    let mut destination = if dst.is_some() { end(dst) } else { Endpoint::default() };
    if destination.port.is_none() {
        destination.port = row.port("p").filter(|port| *port != 0);
    }
    (source, destination)
}

/// ACID says it in `sub`; else the server's port, the module that raised it, the transport.
fn notice_protocol(row: &Row<'_>, note: &str, source: &Endpoint, destination: &Endpoint) -> Option<Protocol> {
    let sub = || row.text("sub").and_then(|sub| tables::named_protocol(&sub));
    let acid = if tables::is_acid(note) { sub() } else { None };
    acid.or_else(|| by_port(source, destination)).or_else(|| tables::module_protocol(note)).or_else(|| {
        row.text("proto").filter(|proto| proto != "unknown_transport").map(|proto| Protocol::named(&proto))
    })
}

/// The server's port, of either end where only one is a known one: connections are picked up in the middle.
fn by_port(source: &Endpoint, destination: &Endpoint) -> Option<Protocol> {
    let of = |end: &Endpoint, table: fn(u16) -> Option<&'static str>| end.port.and_then(table);
    of(destination, ot_port)
        .or_else(|| of(source, ot_port))
        .or_else(|| of(destination, tables::it_port))
        .map(Protocol::named)
}

/// The technique of ATT&CK for ICS that a text names: `T0843`.
fn technique(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| {
        word.len() == 5 && word.starts_with("T0") && word[1..].bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// One line, never empty: a note may be named by what cannot be shown, or by `_`, which is a blank.
fn title(name: &str) -> String {
    let line = one_line(name);
    let line = line.trim();
    clip(if line.is_empty() { "(no name)" } else { line }, TITLE_MAX).into_owned()
}

fn notice_message(row: &Row<'_>, title: &str) -> String {
    let mut message = match row.text("msg") {
        Some(msg) => format!("{}\n", text::lines(&msg).trim()),
        None => format!("{}\n", text::lines(title)),
    };
    if let Some(sub) = row.text("sub") {
        let _ = writeln!(message, "{}", text::lines(&sub).trim());
    }
    let labels = [
        ("Count", "n"),
        ("File", "file_desc"),
        ("File type", "file_mime_type"),
        ("File id", "fuid"),
        ("Connection", "uid"),
        ("Country", "remote_location.country_code"),
    ];
    labelled(&mut message, row, &labels);
    finished(&message)
}

/// A line for each column that has a value: `Connection: CmC9kY1X0u9nP78KZc`.
fn labelled(message: &mut String, row: &Row<'_>, labels: &[(&str, &str)]) {
    for (label, column) in labels {
        if let Some(value) = row.text(column).and_then(|value| word(&value)) {
            // Writing to a String cannot fail.
            let _ = writeln!(message, "{label}: {value}");
        }
    }
}

fn finished(message: &str) -> String {
    clip(message.trim_end(), MESSAGE_MAX).into_owned()
}
