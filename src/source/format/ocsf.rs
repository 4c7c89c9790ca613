//! A detection finding of OCSF (class 2004), the common schema that security tools exchange.
//!
//! Taken are identity, texts, severity, state, times, who and whom (of the finding, else of its first evidence), the
//! device it was seen on, and what it refers to. Other classes of OCSF are records, not findings.

use jiff::tz::TimeZone;

use super::alert_json::draft::{Draft, Problem};
use super::alert_json::{list, named};
use super::json::Value;
use super::parts::{References, mac, port, when, word};
use crate::model::{AlertState, Endpoint, Engine, Protocol, Severity};

/// Class of a detection finding.
const DETECTION: i64 = 2004;

pub(super) fn is_one(object: &Value<'_>) -> bool {
    class(object).is_some()
}

pub(super) fn is_detection(object: &Value<'_>) -> bool {
    class(object) == Some(DETECTION)
}

/// A type is a class and an activity: 200401 is a detection finding that was created.
fn class(object: &Value<'_>) -> Option<i64> {
    object.get("class_uid").whole().or_else(|| object.get("type_uid").whole().map(|kind| kind / 100))
}

pub(super) fn draft(object: &Value<'_>, zone: &TimeZone) -> Result<Draft, Problem> {
    let text = |path: &[&str]| object.at(path).scalar().and_then(|text| word(&text));
    let first = |paths: &[&[&str]]| paths.iter().find_map(|path| text(path));
    let title = first(&[&["finding_info", "title"], &["finding", "title"], &["message"]]);
    let Some(title) = title else {
        return Err(Problem::missing("an OCSF detection finding without `finding_info.title` and `message`"));
    };
    let message = object.get("message").scalar().into_iter();
    let description = object.at(&["finding_info", "desc"]).scalar();
    let message: Vec<_> = message.chain(description).filter(|told| *told != title.as_str()).collect();
    let time = [&["time"][..], &["time_dt"], &["finding_info", "created_time"]];
    Ok(Draft {
        id: first(&[&["finding_info", "uid"], &["finding", "uid"]]),
        when: when(&time.map(|path| object.at(path)), zone),
        title,
        message: (!message.is_empty()).then(|| message.join("\n")),
        severity: severity(object),
        engine: engine(object),
        protocols: protocols(object),
        category: first(&[&["finding_info", "analytic", "category"], &["finding_info", "types"]])
            .or_else(|| list(object.at(&["finding_info", "types"])).into_iter().next()),
        source: end(object, "src_endpoint"),
        destination: end(object, "dst_endpoint"),
        sensor: first(&[
            &["metadata", "product", "instance_uid"],
            &["device", "hostname"],
            &["metadata", "logger"],
            &["metadata", "product", "name"],
        ]),
        state: state(object),
        references: references(object),
        ..Draft::default()
    })
}

/// Informational to fatal; unknown and other are left to the default.
fn severity(object: &Value<'_>) -> Option<Severity> {
    match object.get("severity_id").whole() {
        Some(1) => Some(Severity::Warning),
        Some(2) => Some(Severity::Minor),
        Some(3) => Some(Severity::Major),
        Some(4..=6) => Some(Severity::Critical),
        _ => match object.get("severity").text()?.to_ascii_lowercase().as_str() {
            "informational" => Some(Severity::Warning),
            "low" => Some(Severity::Minor),
            "medium" => Some(Severity::Major),
            "high" | "critical" | "fatal" => Some(Severity::Critical),
            _ => None,
        },
    }
}

/// Malware that was found is one; what a rule or a policy found is told by nobody.
fn engine(object: &Value<'_>) -> Option<Engine> {
    let has_malware = !object.get("malware").items().is_empty();
    has_malware.then_some(Engine::Malware)
}

/// Closed by its activity, or resolved by its status.
fn state(object: &Value<'_>) -> AlertState {
    let closed = object.get("activity_id").whole() == Some(3) || object.get("status_id").whole() == Some(4);
    if closed { AlertState::Cleared } else { AlertState::Raised }
}

fn evidences<'v, 'a>(object: &'v Value<'a>) -> &'v [Value<'a>] {
    object.get("evidences").items()
}

fn end(object: &Value<'_>, key: &str) -> Endpoint {
    let of_evidence =
        || evidences(object).iter().map(|evidence| evidence.get(key)).find(|end| !end.is_null());
    let value = Some(object.get(key)).filter(|end| !end.is_null()).or_else(of_evidence);
    let Some(value) = value else { return Endpoint::default() };
    let text = |key: &str| value.get(key).scalar().and_then(|text| word(&text));
    let mut end = text("ip").map(|text| named(&text)).unwrap_or_default();
    end.mac = value.get("mac").text().and_then(mac);
    end.name = text("hostname").or_else(|| text("name")).or(end.name);
    end.port = value.get("port").whole().and_then(port).filter(|port| *port != 0);
    end.device_id = text("uid");
    end
}

fn protocols(object: &Value<'_>) -> Vec<Protocol> {
    let connections =
        std::iter::once(object).chain(evidences(object)).map(|part| part.get("connection_info"));
    let name = |connection: &Value<'_>| {
        let service =
            connection.get("service_name").scalar().or_else(|| connection.get("protocol_name").scalar());
        service.map(|name| Protocol::named(&name))
    };
    connections.filter_map(name).take(1).collect()
}

fn references(object: &Value<'_>) -> Vec<String> {
    let mut all = References::default();
    let mut add = |value: &Value<'_>| value.scalar().iter().for_each(|text| all.add(text));
    for weakness in object.get("vulnerabilities").items() {
        add(weakness.at(&["cve", "uid"]));
    }
    for attack in object.at(&["finding_info", "attacks"]).items() {
        add(attack.at(&["technique", "uid"]));
    }
    add(object.at(&["finding_info", "analytic", "uid"]));
    add(object.at(&["finding_info", "src_url"]));
    all.0
}
