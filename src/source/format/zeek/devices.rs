//! What the logs tell of devices: inventory logs by their columns, traffic logs by who talked what to whom.
//!
//! A busy log says the same thing thousands of times an hour. Each stream remembers what it has told and says it again
//! only after [`AGAIN_AFTER_S`] of the log's own time, so that "last seen" stays true and the store stays quiet.
//! Absent is unknown; values are the sender's and are cleaned and cut. What this does not do: merge what several rows
//! say, but for the objects of one Modbus identification, which come a row each.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use memchr::memmem;

use super::Settings;
use super::row::Row;
use crate::model::device::{ATTRIBUTE_MAX, Connection, Module, PARTS_MAX};
use crate::model::text::{clip, one_line};
use crate::model::{Device, Protocol, Timestamp};
use crate::source::format::eve::ot_port;
use crate::source::format::parts::mac;

/// Seconds of the log's time after which the same is told again.
const AGAIN_AFTER_S: u64 = 3_600;
/// Most devices that are remembered of one stream; beyond it all is told again.
const TOLD_MAX: usize = 4_096;
/// Most Modbus identifications that are gathered at once.
const GATHERED_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Told {
    at: HashMap<u64, Timestamp>,
    /// Modbus identifications by connection and unit, as far as their objects were read.
    gathered: HashMap<(String, String), Device>,
}

impl Told {
    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether this is news; remembers it.
    fn is_news(&mut self, device: &Device, time: Timestamp) -> bool {
        let mut hash = DefaultHasher::new();
        let timeless = Device { last_seen: None, first_seen: None, ..device.clone() };
        format!("{timeless:?}").hash(&mut hash);
        let key = hash.finish();
        if self.at.get(&key).is_some_and(|told| time.since(*told).as_secs() < AGAIN_AFTER_S) {
            return false;
        }
        if self.at.len() >= TOLD_MAX {
            self.at.clear();
        }
        self.at.insert(key, time);
        true
    }
}

/// Protocol of a log whose records are an OT client asking an OT server.
fn traffic(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "modbus"
        | "modbus_detailed"
        | "modbus_mask_write_register"
        | "modbus_read_write_multiple_registers"
        | "modbus_register_change" => "Modbus",
        "dnp3" | "dnp3_control" | "dnp3_objects" | "dnp3_read_objects" => "DNP3",
        "s7comm" | "s7comm_read_szl" | "s7comm_upload_download" | "s7comm_plus" => "Siemens S7",
        "enip" | "cip" => "EtherNet/IP",
        "bacnet" | "bacnet_property" | "bacnet_device_control" => "BACnet",
        "opcua_binary" => "OPC UA",
        "ge_srtp" => "GE SRTP",
        "hart_ip" => "HART-IP",
        "iec104" => "IEC 60870-5-104",
        "omron_fins" | "omron_fins_detail" => "Omron FINS",
        "profinet_io_cm" => "PROFINET",
        _ => return None,
    })
}

/// Whether records of this log are looked into.
pub(super) fn is_read(kind: &str) -> bool {
    traffic(kind).is_some()
        || matches!(
            kind,
            "arp"
                | "bacnet_discovery"
                | "cip_identity"
                | "dhcp"
                | "known_devices"
                | "known_hosts"
                | "known_modbus"
                | "known_services"
                | "modbus_read_device_identification"
                | "s7comm_known_devices"
                | "software"
        )
}

/// Whether a JSON record of connections has MAC addresses, which a script of the site adds.
pub(super) fn may_have_macs(kind: &str, line: &[u8]) -> bool {
    kind == "conn" && memmem::find(line, b"_l2_addr\"").is_some()
}

/// What a record tells of devices.
pub(super) fn of(
    settings: &Settings,
    told: &mut Told,
    kind: &str,
    row: &Row<'_>,
    received_at: Timestamp,
) -> Vec<Device> {
    let mut devices = match kind {
        "arp" => arp(row),
        "bacnet_discovery" => bacnet(row),
        "cip_identity" => cip(row),
        "conn" => macs_of_conn(row),
        "dhcp" => dhcp(row),
        "known_devices" => known_device(row),
        "known_hosts" => host(row).into_iter().collect(),
        "known_modbus" => known_modbus(row),
        "known_services" => known_service(row),
        "modbus_read_device_identification" => modbus_identification(told, row),
        "s7comm_known_devices" => s7(row),
        "software" => software(row),
        _ => traffic(kind).map_or_else(Vec::new, |protocol| talk(row, protocol)),
    };
    let time = row.time().unwrap_or(received_at);
    devices.retain(|device| told.is_news(device, time));
    for device in &mut devices {
        device.last_seen = Some(time);
        settings.place(device);
    }
    devices
}

/// A value as an attribute: one line, cut.
fn attribute(row: &Row<'_>, names: &[&str]) -> Option<String> {
    let value = row.any(names)?;
    let line = one_line(&value);
    let line = line.trim();
    // `(empty)` and `-` stand in old logs where the marks of the header were not applied.
    (!line.is_empty() && !matches!(line, "-" | "(empty)")).then(|| clip(line, ATTRIBUTE_MAX).into_owned())
}

/// An address that one device can have.
fn of_one(ip: IpAddr) -> Option<IpAddr> {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    (!ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !broadcast).then_some(ip)
}

fn unicast(row: &Row<'_>, names: &[&str]) -> Option<IpAddr> {
    names.iter().find_map(|name| row.address(name).and_then(of_one))
}

/// A MAC address that one device can have: not a group's, not nobody's.
fn mac_of(row: &Row<'_>, names: &[&str]) -> Option<String> {
    let mac = mac(&row.any(names)?)?;
    let group = u8::from_str_radix(&mac[..2], 16).is_ok_and(|first| first & 1 == 1);
    (!group && mac != "00:00:00:00:00:00").then_some(mac)
}

fn with_ip(ip: IpAddr) -> Device {
    Device { ips: vec![ip], ..Device::default() }
}

fn host(row: &Row<'_>) -> Option<Device> {
    unicast(row, &["host"]).map(with_ip)
}

fn known_device(row: &Row<'_>) -> Vec<Device> {
    let Some(mac) = mac_of(row, &["mac"]) else { return Vec::new() };
    let name = attribute(row, &["dhcp_host_name", "host_name"]);
    let ips = unicast(row, &["host", "ip"]).into_iter().collect();
    vec![Device { name, ips, macs: vec![mac], macs_are_own: true, ..Device::default() }]
}

fn known_modbus(row: &Row<'_>) -> Vec<Device> {
    let Some(mut device) = host(row) else { return Vec::new() };
    let kind = row.text("device_type").unwrap_or_default();
    // The contrary is no guess that holds: a master may be an HMI, a historian or another controller.
    let is_server = kind.ends_with("SLAVE");
    device.kind = is_server.then(|| "PLC".to_owned());
    device.protocols = vec!["Modbus".to_owned()];
    device.extra.push(role("Modbus", is_server));
    vec![device]
}

fn known_service(row: &Row<'_>) -> Vec<Device> {
    let Some(mut device) = host(row) else { return Vec::new() };
    let mut names: Vec<String> = row.members("service").iter().map(|name| protocol(name)).collect();
    names.retain(|name| !name.is_empty());
    if names.is_empty() {
        names.extend(row.port("port_num").and_then(ot_port).map(ToOwned::to_owned));
    }
    names.truncate(PARTS_MAX);
    device.protocols = names;
    vec![device]
}

fn protocol(name: &str) -> String {
    // A leading `-` says that Zeek gave the analyzer up again.
    Protocol::named(name.trim().trim_start_matches('-')).as_str().trim().to_owned()
}

/// Only what the system says of itself; software versions are bytes from the wire, of whoever sent them.
fn software(row: &Row<'_>) -> Vec<Device> {
    let Some(mut device) = host(row) else { return Vec::new() };
    let kind = row.text("software_type").unwrap_or_default();
    let name = attribute(row, &["name", "unparsed_version"]);
    let Some(name) = name.filter(|_| kind.starts_with("OS::")) else { return Vec::new() };
    let version = [row.text("version.major"), row.text("version.minor")];
    let version: Vec<_> = version.into_iter().flatten().collect();
    let text = format!("{name} {}", version.join("."));
    device.operating_system = Some(clip(one_line(&text).trim(), ATTRIBUTE_MAX).into_owned());
    vec![device]
}

/// Addresses that DHCP gave. Older versions have `assigned_ip`, and the client's address in `id.orig_h`.
fn dhcp(row: &Row<'_>) -> Vec<Device> {
    let ip = unicast(row, &["assigned_addr", "client_addr", "assigned_ip"]);
    let mac = mac_of(row, &["mac"]);
    let name = attribute(row, &["host_name", "client_fqdn"]);
    if mac.is_none() && (ip.is_none() || name.is_none()) {
        return Vec::new();
    }
    vec![Device {
        name,
        ips: ip.into_iter().collect(),
        macs_are_own: mac.is_some(),
        macs: mac.into_iter().collect(),
        dhcp: ip.is_some(),
        ..Device::default()
    }]
}

/// Packages write ARP under different names; who asks gives its own pair, who answers as well.
fn arp(row: &Row<'_>) -> Vec<Device> {
    let pairs = [
        (
            mac_of(row, &["src_mac", "orig_mac", "orig_hw", "sha", "mac_src", "sender_mac"]),
            unicast(row, &["src_ip", "orig_h", "id.orig_h", "spa", "sender_ip"]),
        ),
        (
            mac_of(row, &["target_mac", "resp_hw", "resp_mac", "tha"]),
            unicast(row, &["target_ip", "resp_h", "id.resp_h", "tpa"]),
        ),
    ];
    let known = pairs.into_iter().filter_map(|(mac, ip)| mac.zip(ip));
    known.map(|(mac, ip)| Device { macs: vec![mac], macs_are_own: true, ..with_ip(ip) }).collect()
}

/// Hardware addresses of frames: beyond the segment they are the router's.
fn macs_of_conn(row: &Row<'_>) -> Vec<Device> {
    let ends = [("local_orig", "id.orig_h", "orig_l2_addr"), ("local_resp", "id.resp_h", "resp_l2_addr")];
    let local = ends.into_iter().filter(|(local, ..)| row.is_true(local));
    local
        .filter_map(|(_, host, l2)| unicast(row, &[host]).zip(mac_of(row, &[l2])))
        .map(|(ip, mac)| Device { macs: vec![mac], ..with_ip(ip) })
        .collect()
}

/// Client and server of an exchange, each with the other as its peer.
fn talk(row: &Row<'_>, protocol: &'static str) -> Vec<Device> {
    let of = |host, port| unicast(row, &[host]).map(|ip| (ip, row.port(port).filter(|port| *port != 0)));
    let orig = of("id.orig_h", "id.orig_p");
    let resp = of("id.resp_h", "id.resp_p");
    let is_server = |end: Option<(IpAddr, Option<u16>)>| {
        end.and_then(|(_, port)| port).and_then(ot_port).is_some_and(|name| name == protocol)
    };
    // A connection that was picked up in the middle may be the wrong way round; the server's port tells.
    let (client, server) = if is_server(orig) && !is_server(resp) { (resp, orig) } else { (orig, resp) };
    let peer = |end: Option<(IpAddr, Option<u16>)>, inbound| {
        end.map(|(ip, _)| Connection {
            ip: Some(ip),
            inbound,
            protocols: vec![protocol.to_owned()],
            ports: server.and_then(|(_, port)| port).into_iter().collect(),
            ..Connection::default()
        })
    };
    let told = |end: Option<(IpAddr, Option<u16>)>, other, is_server| {
        end.map(|(ip, _)| Device {
            protocols: vec![protocol.to_owned()],
            connections: peer(other, is_server).into_iter().collect(),
            extra: vec![role(protocol, is_server)],
            ..with_ip(ip)
        })
    };
    told(client, server, false).into_iter().chain(told(server, client, true)).collect()
}

/// What a device does in a protocol: `modbus_role` is `server` or `client`.
fn role(protocol: &str, is_server: bool) -> (String, String) {
    let name = crate::model::protocol::fold(protocol);
    (format!("{name}_role"), if is_server { "server" } else { "client" }.to_owned())
}

/// The identity object of EtherNet/IP. A device that does not know its own address says 0.0.0.0.
fn cip(row: &Row<'_>) -> Vec<Device> {
    let Some(ip) = unicast(row, &["socket_address", "source_h", "id.resp_h"]) else { return Vec::new() };
    let serial = attribute(row, &["serial_number"]);
    let kind =
        attribute(row, &["device_type_name"]).map(|kind| cip_kind(&kind).map_or(kind, ToOwned::to_owned));
    let extra = [("cip_product_code", "product_code"), ("cip_device_status", "device_status")];
    vec![Device {
        kind,
        vendor: attribute(row, &["vendor_name"]),
        model: attribute(row, &["product_name"]),
        serial: serial.filter(|serial| serial.trim_start_matches("0x").bytes().any(|digit| digit != b'0')),
        firmware: attribute(row, &["revision"]),
        protocols: vec!["EtherNet/IP".to_owned()],
        extra: extra
            .into_iter()
            .filter_map(|(name, column)| Some((name.to_owned(), attribute(row, &[column])?)))
            .collect(),
        ..with_ip(ip)
    }]
}

/// Device profiles of ODVA, in the words that the device classes are mapped by.
fn cip_kind(profile: &str) -> Option<&'static str> {
    let folded: String = profile.chars().filter(char::is_ascii_alphanumeric).collect();
    Some(match folded.to_ascii_lowercase().as_str() {
        "programmablelogiccontroller" => "PLC",
        "humanmachineinterface" | "humanmachineinterfacehmi" => "HMI",
        "acdrive" | "acdrivedevice" | "dcdrive" => "Variable Frequency Drive",
        "managedswitch" | "managedethernetswitch" => "Switch",
        "communicationsadapter" => "I/O Adapter",
        _ => return None,
    })
}

fn s7(row: &Row<'_>) -> Vec<Device> {
    let Some(ip) = unicast(row, &["source_h", "id.resp_h"]) else { return Vec::new() };
    let plant = attribute(row, &["plant_name"]).map(|plant| ("plant_name".to_owned(), plant));
    vec![Device {
        name: attribute(row, &["automation_system_name"]),
        kind: Some("PLC".to_owned()),
        model: attribute(row, &["module_name"]),
        serial: attribute(row, &["module_serial"]),
        protocols: vec!["Siemens S7".to_owned()],
        extra: plant.into_iter().collect(),
        ..with_ip(ip)
    }]
}

/// Who says `i-am` tells its number and maker; who says `i-have` tells the name of an object it has.
fn bacnet(row: &Row<'_>) -> Vec<Device> {
    let service = row.text("pdu_service").unwrap_or_default().replace('_', "-").to_ascii_lowercase();
    if !matches!(service.as_str(), "i-am" | "i-have") {
        return Vec::new();
    }
    let Some(ip) = unicast(row, &["source_h", "id.orig_h"]) else { return Vec::new() };
    let of_device = |column| row.text(column).is_some_and(|kind| kind.eq_ignore_ascii_case("device"));
    let number = if service == "i-am" { ["instance_number"] } else { ["device_id_number"] };
    let number = attribute(row, &number).map(|number| ("bacnet_instance".to_owned(), number));
    vec![Device {
        name: attribute(row, &["object_name"]).filter(|_| of_device("object_type")),
        vendor: attribute(row, &["vendor"]).filter(|_| service == "i-am"),
        protocols: vec!["BACnet".to_owned()],
        extra: number.into_iter().collect(),
        ..with_ip(ip)
    }]
}

/// A row for each object. Behind a gateway, units are devices of their own on one address: those are its modules.
fn modbus_identification(told: &mut Told, row: &Row<'_>) -> Vec<Device> {
    let Some(ip) = unicast(row, &["id.resp_h"]) else { return Vec::new() };
    let Some((object, value)) = row.text("object_id").zip(attribute(row, &["object_value"])) else {
        return Vec::new();
    };
    let unit = attribute(row, &["unit"]).unwrap_or_default();
    let direct = matches!(unit.as_str(), "" | "0" | "1" | "255");
    let key = (attribute(row, &["uid"]).unwrap_or_default(), unit.clone());
    if told.gathered.len() >= GATHERED_MAX && !told.gathered.contains_key(&key) {
        told.gathered.clear();
    }
    let device = told.gathered.entry(key).or_insert_with(|| Device {
        protocols: vec!["Modbus".to_owned()],
        modules: if direct { Vec::new() } else { vec![Module { address: Some(unit), ..Module::default() }] },
        ..with_ip(ip)
    });
    device.ips = vec![ip];
    let (vendor, model, firmware) = match device.modules.first_mut() {
        Some(module) => (&mut module.vendor, &mut module.model, &mut module.firmware),
        None => (&mut device.vendor, &mut device.model, &mut device.firmware),
    };
    match &*object {
        "VendorName" => *vendor = Some(value),
        "MajorMinorVersion" => *firmware = Some(value),
        // The name of the model says more than the product's, and that more than its code.
        "ModelName" => *model = Some(value),
        "ProductName" if model.is_none() => *model = Some(value),
        "ProductCode" => return record_code(device, value),
        _ => return Vec::new(),
    }
    vec![device.clone()]
}

fn record_code(device: &mut Device, value: String) -> Vec<Device> {
    device.extra = vec![("modbus_product_code".to_owned(), value)];
    vec![device.clone()]
}
