//! Devices, what belongs to them, and the sensors of a console.
//!
//! One shape reads the sensor's, the console's and the integration API. A device is handed on complete: connections and
//! vulnerabilities, which come by other addresses, are put to it from the [`Directory`]. What is no asset (a multicast
//! group, "Internet") is no device.

use super::Settings;
use super::directory::Directory;
use super::values::{attribute, id, ip, mac, number, time};
use super::wire::{self, Named};
use crate::model::device::{ATTRIBUTE_MAX, Connection, Cve, Module, PARTS_MAX};
use crate::model::text::{clip, one_line};
use crate::model::{Alert, AlertState, Device, Endpoint, Identity, Protocol, Timestamp};
use crate::source::RejectReason;
use crate::source::format::{Decoded, Finding, Outcome};

/// Types that are no assets.
const NO_ASSETS: [&str; 5] = ["Multicast/Broadcast", "Internet", "Group", "External Management", "Slot"];
/// What stands in a protocol list and is no protocol.
const NO_PROTOCOLS: [&str; 3] = ["unknown", "malformed", "generic"];
/// Kind of the [`Device`] that a sensor is.
const SENSOR_KIND: &str = "OT sensor";

fn malformed(detail: String) -> Decoded {
    Outcome::Reject(RejectReason::Malformed, detail.into()).into()
}

fn without(what: &'static str) -> Decoded {
    Outcome::Reject(RejectReason::MissingField, what.into()).into()
}

/// A device of any of the three APIs.
pub(super) fn device(settings: &Settings, directory: &mut Directory, record: &[u8]) -> Decoded {
    let read = wire::Record::new(record).read::<wire::Device<'_>>().map(|(said, _)| {
        let Some(id) = id(&said.id) else { return without("a device without `id`") };
        let kind = attribute(&said.kind.0.name);
        if kind.as_deref().is_some_and(|kind| NO_ASSETS.iter().any(|no| no.eq_ignore_ascii_case(kind))) {
            return Outcome::Ignored("no asset").into();
        }
        let mut device = the_device(settings, directory, &said, id, kind);
        directory.learn_device(&device);
        if let Some(sensor) = &device.sensor {
            directory.learn_post(sensor, device.site.as_deref(), device.zone.as_deref());
        }
        device.site = device.site.or_else(|| settings.common.site.clone());
        device.zone = device.zone.or_else(|| settings.common.zone.clone());
        directory.complete(&mut device);
        Decoded { outcome: Outcome::Ignored("device"), devices: vec![device] }
    });
    read.unwrap_or_else(malformed)
}

fn the_device(
    settings: &Settings,
    directory: &Directory,
    said: &wire::Device<'_>,
    id: String,
    kind: Option<String>,
) -> Device {
    let sensor_id = number(&said.sensor_id)
        .or_else(|| said.sensor_ids.0.iter().find_map(|wire::SensorId(text)| number(text)));
    let post = directory.post(attribute(&said.appliance).as_deref(), sensor_id.as_deref());
    let (own, modules) = firmware(said);
    let vlans: Vec<_> = said.vlans.0.iter().filter_map(|wire::Vlan(text)| attribute(text)).collect();
    let mut extra = Vec::new();
    if !vlans.is_empty() {
        extra.push(("vlans".to_owned(), clip(&vlans.join(", "), ATTRIBUTE_MAX).into_owned()));
    }
    let macs = distinct(texts(&said.macs, &said.mac_objects).filter_map(mac));
    Device {
        id: Some(id),
        name: attribute(&said.name),
        ips: distinct(texts(&said.ips, &said.ip_objects).filter_map(ip)),
        macs_are_own: !macs.is_empty(),
        macs,
        dhcp: said.dhcp.0.unwrap_or(false),
        kind,
        vendor: attribute(&said.vendor).or_else(|| own.vendor.clone()),
        model: own.model,
        serial: own.serial,
        firmware: own.firmware,
        operating_system: attribute(&said.operating_system),
        protocols: protocols(&said.protocols.0),
        owner: attribute(&said.owner),
        location: attribute(&said.location),
        site: attribute(&said.site).or(post.site),
        zone: attribute(&said.zone).or(post.zone),
        purdue_level: attribute(&said.kind.0.purdue_level).or_else(|| attribute(&said.purdue_level)),
        criticality: attribute(&said.criticality),
        authorized: said.authorized.0,
        programming: said.programming.0,
        scanner: said.scanner.0,
        sensor: post.name.or_else(|| (!settings.console).then(|| settings.common.sensor.clone())),
        first_seen: time(&said.first_seen),
        last_seen: time(&said.last_seen),
        modules,
        extra,
        ..Device::default()
    }
}

/// Both ways to write a list of addresses.
fn texts<'a>(
    plain: &'a wire::List<wire::Text<'_>>,
    objects: &'a wire::List<wire::Address<'_>>,
) -> impl Iterator<Item = &'a str> {
    plain.0.iter().chain(objects.0.iter().map(|wire::Address(text)| text)).filter_map(wire::Text::get)
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut kept = Vec::new();
    for one in all {
        if kept.len() < PARTS_MAX && !kept.contains(&one) {
            kept.push(one);
        }
    }
    kept
}

/// Canonical names.
fn protocols(said: &[Named<'_>]) -> Vec<String> {
    let names = said.iter().filter_map(|Named(text)| text.get());
    let telling = names.filter(|name| !NO_PROTOCOLS.iter().any(|no| no.eq_ignore_ascii_case(name)));
    distinct(
        telling.map(|name| Protocol::named(name).as_str().to_owned()).filter(|name| !name.trim().is_empty()),
    )
}

/// The device's own firmware, and its modules. An entry without rack, slot and module address is the device itself; so
/// is the only entry there is.
fn firmware(said: &wire::Device<'_>) -> (Module, Vec<Module>) {
    let mut own = None;
    let mut modules = Vec::new();
    let only = said.firmware.0.len() == 1;
    for entry in &said.firmware.0 {
        let module_address = attribute(&entry.module_address);
        let module = Module {
            address: module_address.clone().or_else(|| attribute(&entry.address)),
            rack: attribute(&entry.rack),
            slot: attribute(&entry.slot),
            vendor: attribute(&entry.vendor),
            model: attribute(&entry.model),
            serial: attribute(&entry.serial),
            firmware: attribute(&entry.version),
            additional: attribute(&entry.additional),
        };
        let is_module = module_address.is_some() || module.rack.is_some() || module.slot.is_some();
        if own.is_none() && (!is_module || only) {
            own = Some(module.clone());
        }
        if is_module {
            modules.push(module);
        }
    }
    (own.unwrap_or_default(), modules)
}

/// Two devices that talk: kept until they come by.
pub(super) fn connection(directory: &mut Directory, record: &[u8]) -> Decoded {
    let read = wire::Record::new(record).read::<wire::Connection<'_>>().map(|(said, _)| {
        let (Some(first), Some(second)) = (id(&said.first), id(&said.second)) else {
            return without("a connection without its two devices");
        };
        // The older API does not say who begins.
        let directed = said.kind.get().map(|kind| kind.to_ascii_lowercase().replace(' ', ""));
        let one_way = directed.as_deref().is_some_and(|kind| kind != "twoway");
        let part = |peer: &str, name: &wire::Text<'_>, inbound: bool| Connection {
            ip: None,
            device_id: Some(peer.to_owned()),
            name: attribute(name),
            two_way: !one_way,
            inbound,
            protocols: protocols(&said.protocols.0),
            ports: distinct(said.ports.0.iter().filter_map(|port| u16::try_from(port.0?).ok())),
            last_seen: time(&said.last_seen),
        };
        directory.add_connection(&first, part(&second, &said.second_name, false));
        directory.add_connection(&second, part(&first, &said.first_name, one_way));
        Outcome::Ignored("connection").into()
    });
    read.unwrap_or_else(malformed)
}

/// Vulnerabilities of an address or of a device: kept until the devices come by.
pub(super) fn vulnerable(directory: &mut Directory, record: &[u8]) -> Decoded {
    let read = wire::Record::new(record).read::<wire::Vulnerable<'_>>().map(|(said, _)| {
        let mut any = false;
        if let Some(cve) = cve(&said.one, &said.score, &said.vector, &said.description) {
            let Some(address) = said.address.get().and_then(ip) else {
                return without("a vulnerability without an address");
            };
            directory.add_cve_of_address(address, cve);
            any = true;
        }
        if let Some(device) = id(&said.device) {
            for one in &said.cves.0 {
                if let Some(cve) = cve(&one.id, &one.score, &one.vector, &one.description) {
                    directory.add_cve_of_device(&device, cve);
                }
            }
            any = true;
        }
        if any {
            Outcome::Ignored("vulnerability").into()
        } else {
            without("a vulnerability without a number")
        }
    });
    read.unwrap_or_else(malformed)
}

fn cve(
    number: &wire::Text<'_>,
    score: &wire::Text<'_>,
    vector: &wire::Text<'_>,
    description: &wire::Text<'_>,
) -> Option<Cve> {
    Some(Cve {
        id: attribute(number)?.to_ascii_uppercase(),
        score: attribute(score),
        vector: attribute(vector),
        description: attribute(description),
    })
}

pub(super) fn deleted(record: &[u8]) -> Decoded {
    let read = wire::Record::new(record).read::<wire::Deleted<'_>>().map(|(said, _)| {
        let Some(id) = id(&said.id) else { return without("a deleted device without `id`") };
        let device = Device { id: Some(id), deleted: true, ..Device::default() };
        Decoded { outcome: Outcome::Ignored("device"), devices: vec![device] }
    });
    read.unwrap_or_else(malformed)
}

/// A sensor of a console: a device itself, and a system notification of whether it is there. That notification is
/// told each time the sensor is read: who asks tells only the changes.
pub(super) fn sensor(
    settings: &Settings,
    directory: &mut Directory,
    record: &[u8],
    received_at: Timestamp,
) -> Decoded {
    let read = wire::Record::new(record).read::<wire::Sensor<'_>>().map(|(said, _)| {
        let Some(id) = number(&said.id) else { return without("a sensor without `id`") };
        let name = attribute(&said.name).unwrap_or_else(|| format!("sensor {id}"));
        directory.learn_sensor(&id, &name);
        let (site, zone) = (attribute(&said.site), attribute(&said.zone));
        directory.learn_post(&name, site.as_deref(), zone.as_deref());
        let post = directory.post(Some(&name), None);
        let address = said.address.get().map(host).unwrap_or_default();
        let mut device = Device {
            id: Some(format!("sensor:{id}")),
            name: Some(name.clone()),
            ips: ip(address).into_iter().collect(),
            kind: Some(SENSOR_KIND.to_owned()),
            vendor: Some("Microsoft".to_owned()),
            model: Some("Defender for IoT".to_owned()),
            firmware: attribute(&said.version),
            site: post.site,
            zone: post.zone,
            sensor: Some(name.clone()),
            is_sensor: true,
            last_seen: time(&said.state.last_message),
            extra: extra(&said),
            ..Device::default()
        };
        settings.common.place(&mut device);
        let outcome = match is_connected(&said) {
            Some(connected) => {
                Outcome::Alert(Box::new(notification(settings, &device, &id, &name, connected, received_at)))
            }
            None => Outcome::Ignored("sensor"),
        };
        Decoded { outcome, devices: vec![device] }
    });
    read.unwrap_or_else(malformed)
}

/// The host of an address with or without a scheme.
fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => rest.rsplit_once(':').filter(|(host, _)| !host.contains(':')).map_or(rest, |(host, _)| host),
    }
}

fn extra(said: &wire::Sensor<'_>) -> Vec<(String, String)> {
    let flag = |flag: wire::Flag| flag.0.map(|yes| yes.to_string());
    let all = [
        (
            "connection_state",
            attribute(&said.connection_state).or(attribute(&said.state.connection.description)),
        ),
        ("learning_mode", flag(said.is_learning)),
        ("activated", flag(said.is_activated)),
        ("intelligence_version", attribute(&said.intelligence)),
        ("uid", attribute(&said.uid)),
        ("zone_id", attribute(&said.zone_id)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// `None` where the record does not say.
fn is_connected(said: &wire::Sensor<'_>) -> Option<bool> {
    let word = said.connection_state.get().map(|word| !word.eq_ignore_ascii_case("disconnected"));
    word.or(said.state.connection.connected.0)
}

fn notification(
    settings: &Settings,
    device: &Device,
    id: &str,
    name: &str,
    connected: bool,
    received_at: Timestamp,
) -> Finding {
    let own = format!("sensor:{id}:connection");
    let message = match (connected, device.last_seen) {
        (true, _) => format!("The sensor {name} is connected to its console again."),
        (false, None) => {
            format!("The sensor {name} is disconnected from its console: what it sees is not reported.")
        }
        (false, Some(last)) => format!(
            "The sensor {name} is disconnected from its console: what it sees is not reported. Its last message came \
             at {last}."
        ),
    };
    let alert = Alert {
        title: clip(&one_line(&format!("Sensor disconnected: {name}")), crate::model::alert::TITLE_MAX)
            .into_owned(),
        message,
        category: Some("Sensor Traffic".to_owned()),
        source: Endpoint {
            ip: device.ips.first().copied(),
            name: Some(name.to_owned()),
            device_id: device.id.clone(),
            ..Endpoint::default()
        },
        site: device.site.clone(),
        zone: device.zone.clone(),
        state: if connected { AlertState::Cleared } else { AlertState::Raised },
        ..Alert::notification(&own, name, received_at)
    };
    let fingerprint = settings.common.fingerprint(&Identity::Own(&own));
    Finding { alert, fingerprint }
}
