//! Pure: from a device to the items and relations of an identification request.
//!
//! Every item carries a native key made of the agent's id and the device's key: by it the instance finds the same CI
//! again, whatever name and address it has by then. All values are texts; MACs and addresses are as the CMDB wants them.

use serde_json::{Map, Value, json};

use super::{OnDeleted, Settings, class, told_as};
use crate::destination::DeviceOrder;
use crate::device::keys::{called, own_macs};
use crate::model::device::{Connection, Module, Peer};
use crate::model::gather::Gather as _;
use crate::model::{Device, Timestamp};

/// What one device is in a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece<'a> {
    /// The CI first, then what belongs to it.
    pub(super) items: Vec<Value>,
    pub(super) relations: Vec<Value>,
    pub(super) class: String,
    /// The sensor that detects it.
    pub(super) sensor: Option<String>,
    /// Relations to other devices; each needs the other one in the request.
    pub(super) links: Vec<(&'a Peer, Value)>,
}

const OWNS: &str = "Owns::Owned by";
const CONNECTS: &str = "Connects to::Connected by";
const DETECTS: &str = "Detects::Detected by";
/// Longest value of a text column.
const VALUE_MAX: usize = 255;

/// The items of a device; `None`: it gets no CI.
pub(super) fn piece<'a>(settings: &Settings, order: &'a DeviceOrder) -> Option<Piece<'a>> {
    let d = &order.device;
    let class = told_as(settings, order)?;
    let id = order.key.as_str();
    let native = native(settings, d.is_sensor, &called(d), &order.key);
    let mut items = vec![item(id, &class, &values(settings, d, &class), &native, settings, d.last_seen)];
    if let Some(ci) = items.first_mut() {
        ci["lookup"] = Value::Array(lookups(d));
        ci["related"] = Value::Array(if d.is_sensor { Vec::new() } else { related(d, order) });
    }
    let mut relations = Vec::new();
    for ip in &d.ips {
        let (inner, text) = (format!("{id}/{ip}"), ip.to_string());
        let version = if ip.is_ipv4() { "4" } else { "6" };
        let values = texts([("name", text.as_str()), ("ip_address", &text), ("ip_version", version)]);
        items.push(item(
            &inner,
            "cmdb_ci_ip_address",
            &values,
            &format!("{native}/{ip}"),
            settings,
            d.last_seen,
        ));
        relations.push(relation(id, &inner, OWNS));
    }
    for (at, module) in d.modules.iter().enumerate() {
        let place = called_or(module, at);
        let inner = format!("{id}/module/{place}");
        let key = format!("{native}/module/{place}");
        let values = module_values(d, module, &place);
        items.push(item(&inner, class::MODULE, &values, &key, settings, d.last_seen));
        relations.push(relation(id, &inner, OWNS));
    }
    let sensor = d.sensor.clone().or_else(|| Some(settings.sensor.clone())).filter(|_| !d.is_sensor);
    let links = order.peers.iter().flat_map(|peer| links(id, d.connections.get(peer.place), peer)).collect();
    Some(Piece { items, relations, class, sensor, links })
}

fn native(settings: &Settings, is_sensor: bool, name: &str, key: &str) -> String {
    if is_sensor { sensor_key(settings, name) } else { format!("{}/{key}", settings.agent) }
}

/// Who begins conversations is the parent.
fn links<'a>(id: &str, connection: Option<&Connection>, peer: &'a Peer) -> Vec<(&'a Peer, Value)> {
    let Some(connection) = connection else { return Vec::new() };
    let outbound = (connection.two_way || !connection.inbound).then(|| relation(id, &peer.key, CONNECTS));
    let inbound = (connection.two_way || connection.inbound).then(|| relation(&peer.key, id, CONNECTS));
    outbound.into_iter().chain(inbound).map(|link| (peer, link)).collect()
}

/// A device that is there already, as an end of relations: its native key says which, and nothing of it is changed.
pub(super) fn peer(settings: &Settings, peer: &Peer) -> Value {
    let native = native(settings, peer.is_sensor, &peer.name, &peer.key);
    item(&peer.key, &peer.class, &texts([("name", peer.name.as_str())]), &native, settings, None)
}

/// The sensor as an item of its own, and that it detects these.
pub(super) fn sensor(settings: &Settings, name: &str, detected: &[&str]) -> (Value, Vec<Value>) {
    let id = format!("sensor/{name}");
    let values = texts([("name", name), ("correlation_id", &sensor_key(settings, name))]);
    let item = item(&id, class::SENSOR, &values, &sensor_key(settings, name), settings, None);
    let relations = detected.iter().map(|device| relation(&id, device, DETECTS)).collect();
    (item, relations)
}

fn sensor_key(settings: &Settings, name: &str) -> String {
    format!("{}/sensor/{name}", settings.agent)
}

fn item(
    id: &str,
    class: &str,
    values: &Map<String, Value>,
    native: &str,
    settings: &Settings,
    seen: Option<Timestamp>,
) -> Value {
    let mut source = texts([("source_name", settings.data_source.as_str()), ("source_native_key", native)]);
    if let Some(seen) = seen {
        source.insert("source_recency_timestamp".to_owned(), json!(seen.servicenow()));
    }
    json!({ "internal_id": id, "className": class, "values": values, "sys_object_source_info": source })
}

fn relation(parent: &str, child: &str, kind: &str) -> Value {
    json!({ "parent_id": parent, "child_id": child, "type": kind })
}

fn values(settings: &Settings, d: &Device, class: &str) -> Map<String, Value> {
    let name = called(d);
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let extra = |name: &str| {
        d.extra.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let time = |at: Option<Timestamp>| at.map(Timestamp::servicenow).unwrap_or_default();
    let mut all = texts([
        ("name", name.as_str()),
        ("manufacturer", &of(&d.vendor)),
        ("model_number", &of(&d.model)),
        ("serial_number", &of(&d.serial)),
        ("first_discovered", &time(d.first_seen)),
        ("location", &of(&d.location)),
        ("owned_by", &of(&d.owner)),
    ]);
    if class.starts_with("cmdb_ci_ot") || d.is_sensor {
        all.extend(texts([("firmware_version", of(&d.firmware).as_str())]));
    } else {
        all.extend(texts([("os", of(&d.operating_system).as_str())]));
    }
    if class == "cmdb_ci_ot_plc" {
        all.extend(texts([
            ("switch_position", extra("plc_key_state").as_str()),
            ("switch_remote_mode", &extra("plc_run_state")),
        ]));
    }
    if d.is_sensor {
        all.extend(texts([("zone", of(&d.zone).as_str()), ("correlation_id", &sensor_key(settings, &name))]));
    }
    if d.deleted {
        let at = d.last_seen.map_or(String::new(), |at| format!("; last seen {} UTC", at.servicenow()));
        let note = format!("otrelay: the sensor no longer has this device{at}");
        all.insert("comments".to_owned(), json!(note));
        if settings.on_deleted == OnDeleted::Retire {
            all.extend(texts([("install_status", "7"), ("operational_status", "6")]));
        }
    }
    all
}

/// Rows by which the CI is identified.
fn lookups(d: &Device) -> Vec<Value> {
    let serial = crate::device::keys::serial(d).and(d.serial.as_deref()).map(|serial| {
        let values = texts([("serial_number", serial), ("serial_number_type", "system"), ("valid", "true")]);
        json!({ "className": "cmdb_serial_number", "values": values })
    });
    let adapters = own_macs(d).map(|mac| {
        json!({ "className": "cmdb_ci_network_adapter", "values": texts([("name", mac), ("mac_address", mac)]) })
    });
    serial.into_iter().chain(adapters).collect()
}

/// What makes an OT device of a CI, and what no column holds.
fn related(d: &Device, order: &DeviceOrder) -> Vec<Value> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let entity = texts([
        ("ot_asset_type", of(&d.kind).as_str()),
        ("purdue_level", &d.level().map(|level| level.to_string()).unwrap_or_default()),
        ("business_criticality", criticality(d.criticality.as_deref())),
        ("zone", &of(&d.zone)),
        ("isa_entity_site", &of(&d.site)),
        ("ot_correlation_id", &order.key),
    ]);
    let yes = |fact: Option<bool>| fact.map(|is| is.to_string()).unwrap_or_default();
    let cves: Vec<&str> = d.cves.iter().map(|cve| cve.id.as_str()).collect();
    let facts = [
        ("authorized", yes(d.authorized)),
        ("programming_device", yes(d.programming)),
        ("scanner", yes(d.scanner)),
        ("protocols", d.protocols.join(", ")),
        ("cves", cves.join(", ")),
        ("firmware_version", of(&d.firmware)),
        ("dhcp", if d.dhcp { "true".to_owned() } else { String::new() }),
    ];
    let extra = d.extra.iter().map(|(name, value)| (name.clone(), value.clone()));
    let facts = facts.into_iter().map(|(key, value)| (key.to_owned(), value));
    let pairs = facts.chain(extra).chain(d.connections.iter().filter_map(connection)).filter(|(_, value)| !value.is_empty()).map(|(key, value)| {
        json!({ "className": "cmdb_key_value_v2", "values": texts([("key", key.as_str()), ("value", &value)]) })
    });
    std::iter::once(json!({ "className": "cmdb_ot_entity", "values": entity })).chain(pairs).collect()
}

/// With whom, which way, by what: a relation has no room for it.
fn connection(c: &Connection) -> Option<(String, String)> {
    let peer = c.ip.map(|ip| ip.to_string()).or_else(|| c.name.clone()).or_else(|| c.device_id.clone())?;
    let ports: Vec<String> = c.ports.iter().map(u16::to_string).collect();
    let mut said = vec![direction(c).to_owned()];
    said.extend((!c.protocols.is_empty()).then(|| c.protocols.join(", ")));
    said.extend((!ports.is_empty()).then(|| format!("ports {}", ports.join(", "))));
    Some((format!("connection {peer}"), said.join("; ")))
}

/// Which way conversations begin, seen from the device.
pub(super) fn direction(c: &Connection) -> &'static str {
    match (c.two_way, c.inbound) {
        (true, _) => "two way",
        (false, true) => "one way, from the peer",
        (false, false) => "one way, to the peer",
    }
}

fn module_values(d: &Device, module: &Module, place: &str) -> Map<String, Value> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = format!("{} module {place}", called(d));
    texts([
        ("name", name.as_str()),
        ("firmware_version", &of(&module.firmware)),
        ("model_id", &of(&module.model)),
        ("rack_number", &of(&module.rack)),
        ("serial_number", &of(&module.serial)),
        ("slot_number", &of(&module.slot)),
        ("vendor", &of(&module.vendor)),
    ])
}

/// Where a module is: two in one place are told apart by their order.
pub(super) fn called_or(module: &Module, at: usize) -> String {
    let known = |text: &Option<String>| text.clone().filter(|text| !text.eq_ignore_ascii_case("n/a"));
    let parts: Vec<String> =
        [known(&module.rack), known(&module.slot), known(&module.address)].into_iter().flatten().collect();
    if parts.is_empty() { at.to_string() } else { parts.join("/") }
}

/// 1 is the most critical.
fn criticality(text: Option<&str>) -> &'static str {
    match text.map(str::to_lowercase).as_deref().map(str::trim) {
        Some("1" | "critical" | "very high" | "essential") => "1",
        Some("2" | "high" | "important") => "2",
        Some("3" | "medium" | "moderate" | "standard" | "normal") => "3",
        Some("4" | "low" | "minor") => "4",
        _ => "",
    }
}

/// Those that say something, within the length of a column.
fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    let filled = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    filled
        .map(|(name, value)| {
            (name.to_owned(), Value::String(super::super::fields::clip_chars(value, VALUE_MAX)))
        })
        .into_object()
}
