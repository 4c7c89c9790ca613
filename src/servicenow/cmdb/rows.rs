//! Pure: from a device to rows of staging tables, under the names that Defender for IoT used for them.
//!
//! Every row carries `correlation_id`, which the transform maps coalesce on: a row that is sent again is the same record.

use std::collections::BTreeMap;

use super::payload::called_or;
use super::{Import, Settings, told_as};
use crate::destination::{DeviceOrder, Fields};
use crate::device::keys::called;
use crate::model::device::{Connection, Module, Peer};
use crate::model::gather::Gather as _;
use crate::model::{Device, TableName, Timestamp};

/// Our names of columns, and the labels that go with them where an instance wants labels. One name means the same in each
/// of the tables.
pub const COLUMNS: [(&str, &str); 43] = [
    ("correlation_id", "Correlation ID"),
    ("appliance", "Appliance"),
    // Devices.
    ("id", "ID"),
    ("name", "Name"),
    ("ip_addresses", "IP addresses"),
    ("type", "Type"),
    ("mac_addresses", "MAC addresses"),
    ("operating_system", "Operating System"),
    ("vendor", "Vendor"),
    ("protocols", "Protocols"),
    ("owner", "Owner"),
    ("location", "Location"),
    ("class", "Class"),
    ("model", "Model"),
    ("serial", "Serial"),
    ("firmware_version", "Firmware Version"),
    ("site", "Site"),
    ("zone", "Zone"),
    ("purdue_level", "Purdue Level"),
    ("criticality", "Criticality"),
    ("authorized", "Authorized"),
    ("programming_device", "Programming Device"),
    ("scanner", "Scanner"),
    ("cves", "CVEs"),
    ("first_seen", "First Seen"),
    ("last_seen", "Last Seen"),
    ("deleted", "Deleted"),
    // Connections.
    ("direction", "Direction"),
    ("source_device_id", "Source Device ID"),
    ("source_device_name", "Source Device Name"),
    ("source_ip", "Source IP"),
    ("destination_device_id", "Destination Device ID"),
    ("destination_device_name", "Destination Device Name"),
    ("destination_ip", "Destination IP"),
    ("ports", "Ports"),
    // Firmware.
    ("device", "Device"),
    ("device_id", "Device ID"),
    ("address", "Address"),
    ("module_address", "Module Address"),
    ("rack", "Rack"),
    ("slot", "Slot"),
    ("version", "Version"),
    ("additional_data", "Additional Data"),
];

/// Which table a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Devices.
    Device,
    /// Who talks to whom.
    Connection,
    /// Firmware of devices and their modules.
    Firmware,
}

const OF_CONNECTIONS: [&str; 12] = [
    "correlation_id",
    "appliance",
    "direction",
    "source_device_id",
    "source_device_name",
    "source_ip",
    "destination_device_id",
    "destination_device_name",
    "destination_ip",
    "protocols",
    "ports",
    "last_seen",
];
const OF_FIRMWARE: [&str; 13] = [
    "correlation_id",
    "appliance",
    "device",
    "device_id",
    "address",
    "module_address",
    "rack",
    "slot",
    "vendor",
    "model",
    "serial",
    "version",
    "additional_data",
];

/// The columns that a table needs, with their labels.
pub fn columns_of(part: Part) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    static ALL: [(&str, &str); COLUMNS.len()] = COLUMNS;
    let device = ALL.iter().position(|(name, _)| *name == "direction").unwrap_or(ALL.len());
    ALL.iter().enumerate().filter_map(move |(at, column)| {
        let wanted = match part {
            Part::Device => at < device,
            Part::Connection => OF_CONNECTIONS.contains(&column.0),
            Part::Firmware => OF_FIRMWARE.contains(&column.0),
        };
        wanted.then_some(column)
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) table: TableName,
    /// By our names.
    pub(super) fields: Fields,
}

/// The rows of a device, its own first; `None`: it gets none.
pub(super) fn rows(settings: &Settings, import: &Import, order: &DeviceOrder) -> Option<Vec<Row>> {
    let d = &order.device;
    let class = told_as(settings, order)?;
    let row = |table: &TableName, own: &str, pairs: Vec<(&str, String)>| {
        let appliance = d.sensor.clone().unwrap_or_else(|| settings.sensor.clone());
        let both = [("correlation_id", format!("{}/{own}", settings.agent)), ("appliance", appliance)];
        let filled = both.into_iter().chain(pairs).filter(|(_, value)| !value.is_empty());
        Row { table: table.clone(), fields: filled.map(|(name, value)| (name.to_owned(), value)).into_map() }
    };
    let mut rows = vec![row(&import.device, &order.key, device(order, class))];
    if let Some(table) = &import.connection {
        let all = d.connections.iter().enumerate().filter_map(|(place, c)| {
            let peer = order.peers.iter().find(|peer| peer.place == place);
            connection(order, c, peer)
        });
        rows.extend(all.map(|(own, pairs)| row(table, &own, pairs)));
    }
    if let Some(table) = &import.firmware {
        rows.extend(firmware(order).into_iter().map(|(own, pairs)| row(table, &own, pairs)));
    }
    Some(rows)
}

fn of(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

fn yes(fact: Option<bool>) -> String {
    fact.map(|is| is.to_string()).unwrap_or_default()
}

fn time(at: Option<Timestamp>) -> String {
    at.map(Timestamp::servicenow).unwrap_or_default()
}

fn list<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn device(order: &DeviceOrder, class: String) -> Vec<(&'static str, String)> {
    let d = &order.device;
    let cves: Vec<&str> = d.cves.iter().map(|cve| cve.id.as_str()).collect();
    vec![
        ("id", order.key.clone()),
        ("name", called(d)),
        ("ip_addresses", list(&d.ips)),
        ("type", of(d.kind.as_ref())),
        ("mac_addresses", list(&d.macs)),
        ("operating_system", of(d.operating_system.as_ref())),
        ("vendor", of(d.vendor.as_ref())),
        ("protocols", list(&d.protocols)),
        ("owner", of(d.owner.as_ref())),
        ("location", of(d.location.as_ref())),
        ("class", class),
        ("model", of(d.model.as_ref())),
        ("serial", of(d.serial.as_ref())),
        ("firmware_version", of(d.firmware.as_ref())),
        ("site", of(d.site.as_ref())),
        ("zone", of(d.zone.as_ref())),
        ("purdue_level", of(d.purdue_level.as_ref())),
        ("criticality", of(d.criticality.as_ref())),
        ("authorized", yes(d.authorized)),
        ("programming_device", yes(d.programming)),
        ("scanner", yes(d.scanner)),
        ("cves", list(&cves)),
        ("first_seen", time(d.first_seen)),
        ("last_seen", time(d.last_seen)),
        ("deleted", if d.deleted { "true".to_owned() } else { String::new() }),
    ]
}

struct End {
    id: String,
    name: String,
    ip: String,
}

/// Who begins conversations is the source; where both do, the first by name, so that both ends mean the same row.
fn connection(
    order: &DeviceOrder,
    c: &Connection,
    peer: Option<&Peer>,
) -> Option<(String, Vec<(&'static str, String)>)> {
    let ip = c.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let id = peer.map(|peer| peer.key.clone()).or_else(|| c.device_id.clone());
    let id = id.or_else(|| Some(ip.clone()).filter(|ip| !ip.is_empty())).or_else(|| c.name.clone())?;
    let name = peer.map(|peer| peer.name.clone()).or_else(|| c.name.clone()).unwrap_or_default();
    let own_ip = order.device.ips.first().map(ToString::to_string).unwrap_or_default();
    let own = End { id: order.key.clone(), name: called(&order.device), ip: own_ip };
    let other = End { id, name, ip };
    let turned = if c.two_way { other.id < own.id } else { c.inbound };
    let (from, to) = if turned { (other, own) } else { (own, other) };
    let direction = if c.two_way { "Two Way" } else { "One Way" };
    let key = format!("connection/{}/{}", from.id, to.id);
    let pairs = vec![
        ("direction", direction.to_owned()),
        ("source_device_id", from.id),
        ("source_device_name", from.name),
        ("source_ip", from.ip),
        ("destination_device_id", to.id),
        ("destination_device_name", to.name),
        ("destination_ip", to.ip),
        ("protocols", list(&c.protocols)),
        ("ports", list(&c.ports)),
        ("last_seen", time(c.last_seen)),
    ];
    Some((key, pairs))
}

/// Of the device itself, where it has any, and of each of its modules.
fn firmware(order: &DeviceOrder) -> Vec<(String, Vec<(&'static str, String)>)> {
    let d = &order.device;
    let whole = Module {
        vendor: d.vendor.clone(),
        model: d.model.clone(),
        serial: d.serial.clone(),
        firmware: d.firmware.clone(),
        ..Module::default()
    };
    let own = d.firmware.is_some().then(|| ("device".to_owned(), part(order, d, &whole)));
    let modules =
        d.modules.iter().enumerate().map(|(at, module)| (called_or(module, at), part(order, d, module)));
    own.into_iter()
        .chain(modules)
        .map(|(place, pairs)| (format!("{}/firmware/{place}", order.key), pairs))
        .collect()
}

fn part(order: &DeviceOrder, d: &Device, module: &Module) -> Vec<(&'static str, String)> {
    vec![
        ("device", called(d)),
        ("device_id", order.key.clone()),
        ("address", d.ips.first().map(ToString::to_string).unwrap_or_default()),
        ("module_address", of(module.address.as_ref())),
        ("rack", of(module.rack.as_ref())),
        ("slot", of(module.slot.as_ref())),
        ("vendor", of(module.vendor.as_ref())),
        ("model", of(module.model.as_ref())),
        ("serial", of(module.serial.as_ref())),
        ("version", of(module.firmware.as_ref())),
        ("additional_data", of(module.additional.as_ref())),
    ]
}

/// The same by the names that the staging table has: the operator's, else ours or our labels.
pub(super) fn named(import: &Import, fields: &Fields) -> Fields {
    let labels: BTreeMap<&str, &str> = COLUMNS.into_iter().into_map();
    let theirs = |ours: &String| {
        let label = || labels.get(ours.as_str()).filter(|_| import.insert_multiple).map(|l| (*l).to_owned());
        import.columns.get(ours).cloned().or_else(label).unwrap_or_else(|| ours.clone())
    };
    fields.iter().map(|(name, value)| (theirs(name), value.clone())).into_map()
}
