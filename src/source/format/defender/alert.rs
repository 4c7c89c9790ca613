//! One alert of a sensor or a console.
//!
//! The API says neither protocol nor category, the older one no address either: the title's table, the prose and the
//! devices are asked for them. What it does say is never overruled by these.

use super::directory::Directory;
use super::values::{self, attribute, id, ip, mac, number, time};
use super::wire::{self, Text};
use super::{Settings, prose, titles};
use crate::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use crate::model::text::{clip, lines, one_line};
use crate::model::{Alert, AlertState, Endpoint, Engine, Identity, Protocol, Severity, Timestamp};
use crate::source::RejectReason;
use crate::source::format::{Finding, Outcome};

/// Reads one. `handled` is what was asked for, where the record does not say it itself.
pub(super) fn decode(
    settings: &Settings,
    directory: &mut Directory,
    handled: Option<bool>,
    record: &[u8],
    received_at: Timestamp,
) -> Outcome {
    let read = wire::Record::new(record).read::<wire::Alert<'_>>().map(|(said, text)| {
        let Some(number) = number(&said.id) else {
            return Outcome::Reject(RejectReason::MissingField, "an alert without `id`".into());
        };
        let Some(title) = title(&said) else {
            return Outcome::Reject(RejectReason::MissingField, "an alert without `title`".into());
        };
        Outcome::Alert(Box::new(finding(
            settings,
            directory,
            handled,
            &said,
            text,
            number,
            title,
            received_at,
        )))
    });
    read.unwrap_or_else(|detail| Outcome::Reject(RejectReason::Malformed, detail.into()))
}

fn title(said: &wire::Alert<'_>) -> Option<String> {
    let text = said.title.get().or_else(|| said.message.get()?.lines().next())?;
    let text = one_line(text);
    let text = text.trim();
    (!text.is_empty()).then(|| clip(text, TITLE_MAX).into_owned())
}

#[expect(clippy::too_many_arguments, reason = "parts of one record and where it came from, used once")]
fn finding(
    settings: &Settings,
    directory: &mut Directory,
    handled: Option<bool>,
    said: &wire::Alert<'_>,
    text: &str,
    number: String,
    title: String,
    received_at: Timestamp,
) -> Finding {
    let sensor_id = values::number(&said.sensor_id);
    let sensor_name = attribute(&said.sensor_name);
    let (site, zone) = (attribute(&said.site_name), attribute(&said.zone_name));
    if let (Some(id), Some(name)) = (&sensor_id, &sensor_name) {
        directory.learn_sensor(id, name);
    }
    if let Some(name) = &sensor_name {
        directory.learn_post(name, site.as_deref(), zone.as_deref());
    }
    let post = directory.post(sensor_name.as_deref(), sensor_id.as_deref());
    // Numbers of a sensor's alerts are its own; a console's come with the sensor's number.
    let own = match sensor_id.as_deref().filter(|_| settings.console).or(sensor_name.as_deref()) {
        Some(sensor) => format!("{sensor}:{number}"),
        None => number,
    };
    let known = titles::known(&title);
    let additional = additional(said);
    let (source, destination) = ends(directory, said, &additional);
    let protocols = protocols(directory, said, &title, &additional, &source, &destination);
    let is_handled = said.handled.0.or(handled).unwrap_or(false);
    let alert = settings.common.alert(received_at);
    let alert = Alert {
        time: time(&said.time).unwrap_or(received_at),
        message: message(said, &additional),
        severity: severity(settings, said, known),
        engine: engine(settings, said, known),
        protocols,
        category: category(said, known),
        source,
        destination,
        sensor: post.name.unwrap_or_else(|| sensor(settings, sensor_id.as_deref())),
        site: site.or(post.site).or(alert.site),
        zone: zone.or(post.zone).or(alert.zone),
        state: if is_handled { AlertState::Cleared } else { AlertState::Raised },
        raw: clip(&lines(&text[..text.floor_char_boundary(RAW_MAX + 4)]), RAW_MAX).into_owned(),
        id: Some(own),
        title,
        ..alert
    };
    let identity = Identity::Own(alert.id.as_deref().unwrap_or_default());
    let fingerprint = settings.common.fingerprint(&identity);
    Finding { alert, fingerprint }
}

/// A console's sensor that has no name yet is called by its number.
fn sensor(settings: &Settings, id: Option<&str>) -> String {
    match id {
        Some(id) if settings.console => format!("sensor {id}"),
        _ => settings.common.sensor.clone(),
    }
}

/// `additionalInformation` as lines.
fn additional(said: &wire::Alert<'_>) -> String {
    let mut all = String::new();
    if let Some(description) = said.additional.description.get() {
        all.push_str(description);
        all.push_str(":\n");
    }
    for line in said.additional.information.0.iter().filter_map(Text::get) {
        all.push_str(line);
        all.push('\n');
    }
    all
}

fn message(said: &wire::Alert<'_>, additional: &str) -> String {
    let mut all = said.message.get().unwrap_or_default().to_owned();
    if !additional.is_empty() {
        all.push_str("\n\n");
        all.push_str(additional.trim_end());
    }
    let steps: Vec<_> = said.remediation.0.iter().filter_map(Text::get).collect();
    if !steps.is_empty() {
        all.push_str("\n\nRemediation:");
        for step in steps {
            all.push_str("\n- ");
            all.push_str(step);
        }
    }
    clip(lines(&all).trim(), MESSAGE_MAX).into_owned()
}

fn severity(settings: &Settings, said: &wire::Alert<'_>, known: Option<titles::Known>) -> Severity {
    let word = said.severity.get().unwrap_or_default();
    let mapped = settings.common.severity(word);
    mapped.or_else(|| Severity::parse(word)).or_else(|| portal(word)).unwrap_or_else(|| {
        // Unknown is no reason to be quiet.
        known.map_or(Severity::Major, |known| known.severity)
    })
}

/// The words of the product's cloud portal. `Low` stands for two of the sensor's words there; the higher one is taken.
fn portal(word: &str) -> Option<Severity> {
    match word.to_ascii_lowercase().as_str() {
        "low" => Some(Severity::Minor),
        "medium" => Some(Severity::Major),
        "high" => Some(Severity::Critical),
        _ => None,
    }
}

fn engine(settings: &Settings, said: &wire::Alert<'_>, known: Option<titles::Known>) -> Engine {
    let word = said.engine.get().unwrap_or_default();
    let mapped = settings.common.engine(word);
    mapped
        .or_else(|| parse_engine(word))
        .unwrap_or_else(|| known.map_or(Engine::Anomaly, |known| known.engine))
}

/// Case and everything but letters do not count: `PolicyViolation`, `POLICY_VIOLATION`.
fn parse_engine(word: &str) -> Option<Engine> {
    let fold = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect()
    };
    let wanted = fold(word);
    Engine::ALL.into_iter().find(|engine| fold(engine.as_str()) == wanted)
}

fn category(said: &wire::Alert<'_>, known: Option<titles::Known>) -> Option<String> {
    let written = attribute(&said.category);
    let written = written.map(|text| titles::category(&text).map_or(text, str::to_owned));
    written.or_else(|| known.map(|known| known.category.to_owned()))
}

fn ends(directory: &Directory, said: &wire::Alert<'_>, additional: &str) -> (Endpoint, Endpoint) {
    let mut source = end(directory, &said.source_device, &said.source_address);
    let mut destination = end(directory, &said.destination_device, &said.destination_address);
    let nothing = |end: &Endpoint| end.ip.is_none() && end.mac.is_none();
    if nothing(&source) && nothing(&destination) {
        let message = said.message.get().unwrap_or_default();
        (source.ip, destination.ip) = prose::ends(message, additional);
    }
    (source, destination)
}

fn end(directory: &Directory, device: &Text<'_>, address: &Text<'_>) -> Endpoint {
    let device_id = id(device);
    let hint = device_id.as_deref().and_then(|id| directory.device(id));
    let written = address.get().unwrap_or_default();
    let mut end = Endpoint { ip: ip(written), mac: mac(written), device_id, ..Endpoint::default() };
    if let Some(hint) = hint {
        // A device with several addresses: the alert knows better which one it was.
        end.ip = end.ip.or(hint.ip.filter(|_| end.mac.is_none()));
        end.mac = end.mac.or_else(|| hint.mac.as_deref().map(str::to_owned));
        end.name = hint.name.as_deref().map(str::to_owned);
    }
    end
}

/// What the record says; else the title, the message, and at last what the devices speak.
fn protocols(
    directory: &Directory,
    said: &wire::Alert<'_>,
    title: &str,
    additional: &str,
    source: &Endpoint,
    destination: &Endpoint,
) -> Vec<Protocol> {
    let written = attribute(&said.protocol).map(|name| Protocol::named(&name));
    let found = written
        .or_else(|| prose::protocol(title))
        .or_else(|| prose::protocol(said.message.get()?))
        .or_else(|| prose::protocol(additional))
        .or_else(|| spoken(directory, source, destination));
    found.into_iter().collect()
}

/// The one protocol that both devices speak, or the only known of them.
fn spoken(directory: &Directory, source: &Endpoint, destination: &Endpoint) -> Option<Protocol> {
    let of =
        |end: &Endpoint| directory.device(end.device_id.as_deref()?).map(|hint| hint.protocols.as_slice());
    let common: Vec<_> = match (of(source), of(destination)) {
        (Some(one), Some(other)) => one.iter().filter(|name| other.contains(name)).collect(),
        (Some(one), None) | (None, Some(one)) => one.iter().collect(),
        (None, None) => Vec::new(),
    };
    let mut telling = common.into_iter().filter(|name| !is_everybodys(name));
    let first = telling.next()?;
    telling.next().is_none().then(|| Protocol::named(first))
}

/// Protocols that nearly every device speaks, so that they say nothing of an alert.
fn is_everybodys(name: &str) -> bool {
    const NAMES: [&str; 12] = [
        "ARP",
        "DNS",
        "mDNS",
        "DHCP",
        "ICMP",
        "NTP",
        "LLDP",
        "TCP",
        "UDP",
        "STP",
        "LLMNR",
        "Netbios Name Service",
    ];
    NAMES.contains(&name)
}
