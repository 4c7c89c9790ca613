//! What lines that are no alerts tell of devices: leases and ARP name a MAC, EtherNet/IP an identity, Modbus and DNP3 who
//! serves and who asks.
//!
//! Such lines may be most of a file, so what was told already is known by a digest of a few bytes, before anything is
//! parsed; the memory for it is bounded and forgotten after a while, so that a device is seen again. MACs of the packets
//! may be a router's and are not looked at.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use memchr::memmem;

use super::{Settings, ends, tables, time, wire, word};
use crate::model::device::Connection;
use crate::model::{Device, Timestamp};

const TOLD_MAX: usize = 8_192;
/// So long.
const TOLD_FOR: Duration = Duration::from_mins(15);

#[derive(Debug, Default)]
pub(super) struct Told {
    known: HashSet<u64>,
    since: Timestamp,
}

impl Told {
    /// Whether it is new; remembered.
    fn is_new(&mut self, what: impl Hash, now: Timestamp) -> bool {
        let old = now.since(self.since) > TOLD_FOR || now < self.since;
        if old || self.known.len() >= TOLD_MAX {
            self.known.clear();
            self.since = now;
        }
        let mut hash = DefaultHasher::new();
        what.hash(&mut hash);
        self.known.insert(hash.finish())
    }
}

/// The devices of a line of this event type.
pub(super) fn of(
    kind: &'static str,
    line: &[u8],
    received_at: Timestamp,
    settings: &Settings,
    told: &mut Told,
) -> Vec<Device> {
    if !matches!(kind, "dhcp" | "arp" | "enip" | "modbus" | "dnp3") {
        return Vec::new();
    }
    let Some(start) = memchr::memchr(b'{', line) else { return Vec::new() };
    let json = &line[start..];
    let part = match kind {
        "dhcp" => after(json, b"\"dhcp\""),
        "arp" => after(json, b"\"arp\""),
        "enip" => after(json, b"\"identity\""),
        _ => &[],
    };
    let ends = (after(json, b"\"src_ip\"").get(..48), after(json, b"\"dest_ip\"").get(..48));
    // A lease says the same in other words each time (its id), an address in an exchange has other ports behind it.
    let ends = (ends.0.map(value), ends.1.map(value));
    if !told.is_new((kind, part, ends), received_at) {
        return Vec::new();
    }
    let Ok(record) = serde_json::from_slice::<wire::Inventory<'_>>(json) else { return Vec::new() };
    let mut devices = match kind {
        "dhcp" => lease(&record.dhcp),
        "arp" => arp(&record.arp),
        "enip" => enip(&record),
        _ => exchange(&record, kind),
    };
    let at =
        record.timestamp.get().and_then(|text| time::read(text, &settings.time_zone)).unwrap_or(received_at);
    let sensor = record.host.get().map(word).filter(|name| !name.is_empty());
    for device in &mut devices {
        device.sensor.clone_from(&sensor);
        settings.common.place(device);
        (device.first_seen, device.last_seen) = (Some(at), Some(at));
    }
    devices
}

/// What stands behind a key, to the end of the line.
fn after<'a>(json: &'a [u8], key: &[u8]) -> &'a [u8] {
    memmem::find(json, key).map_or(&[], |at| &json[at + key.len()..])
}

/// The text at its beginning, as far as it goes.
fn value(bytes: &[u8]) -> &[u8] {
    let text = bytes.splitn(3, |byte| *byte == b'"').nth(1);
    text.unwrap_or(bytes)
}

fn ip(text: &wire::Text<'_>) -> Option<IpAddr> {
    ends::address(text.get()?).filter(|ip| !ip.is_unspecified() && !ip.is_multicast())
}

/// Who got an address. A client that asks has no address yet, but says its name.
fn lease(dhcp: &wire::Dhcp<'_>) -> Vec<Device> {
    let Some(mac) = ends::mac(&dhcp.client_mac) else { return Vec::new() };
    let name = dhcp.hostname.get().map(word).map(|name| name.trim_matches('\0').to_owned());
    let given = dhcp.message.get() == Some("ack");
    let ips: Vec<IpAddr> = ip(&dhcp.assigned_ip).filter(|_| given).into_iter().collect();
    let name = name.filter(|name| !name.is_empty());
    if ips.is_empty() && name.is_none() {
        return Vec::new();
    }
    vec![Device {
        name,
        macs: vec![mac],
        macs_are_own: true,
        dhcp: !ips.is_empty(),
        ips,
        ..Device::default()
    }]
}

/// Who says that an address is its own: the sender of a request too.
fn arp(arp: &wire::Arp<'_>) -> Vec<Device> {
    let (Some(mac), Some(ip)) = (ends::mac(&arp.src_mac), ip(&arp.src_ip)) else { return Vec::new() };
    vec![Device { ips: vec![ip], macs: vec![mac], macs_are_own: true, ..Device::default() }]
}

/// The two ends, the one that serves last; by the ports that are known.
fn two(record: &wire::Inventory<'_>) -> Option<[IpAddr; 2]> {
    let (source, dest) = (ip(&record.src_ip)?, ip(&record.dest_ip)?);
    let serves = |port: wire::Number| port.port().and_then(tables::ot_port).is_some();
    let backwards = serves(record.src_port) && !serves(record.dest_port);
    Some(if backwards { [dest, source] } else { [source, dest] })
}

fn exchange(record: &wire::Inventory<'_>, kind: &str) -> Vec<Device> {
    let Some([client, server]) = two(record) else { return Vec::new() };
    let (name, port) = match kind {
        "modbus" => ("Modbus", 502),
        "dnp3" => ("DNP3", 20_000),
        _ => ("EtherNet/IP", 44_818),
    };
    let mut ports = [record.src_port, record.dest_port].into_iter().filter_map(wire::Number::port);
    let port = ports.rfind(|port| tables::ot_port(*port).is_some()).unwrap_or(port);
    let role = |role: &str| vec![(format!("{kind}_role"), role.to_owned())];
    let speaks = || vec![name.to_owned()];
    let link = |peer, inbound| Connection {
        ip: Some(peer),
        inbound,
        protocols: speaks(),
        ports: vec![port],
        ..Connection::default()
    };
    vec![
        Device {
            ips: vec![client],
            protocols: speaks(),
            connections: vec![link(server, false)],
            extra: role("client"),
            ..Device::default()
        },
        Device {
            ips: vec![server],
            protocols: speaks(),
            connections: vec![link(client, true)],
            extra: role("server"),
            ..Device::default()
        },
    ]
}

/// An answer to List Identity says what the device is.
fn enip(record: &wire::Inventory<'_>) -> Vec<Device> {
    let mut devices = exchange(record, "enip");
    let identity = &record.enip.response.identity;
    if let Some(server) = devices.get_mut(1) {
        let text = |text: &wire::Text<'_>| text.get().map(word).filter(|text| !text.is_empty());
        server.vendor = text(&identity.vendor_id);
        server.model = text(&identity.product_name);
        server.firmware = text(&identity.revision);
        server.kind = identity.device_type.get().map(kind_of);
        // Vendors print it so on the device.
        server.serial = identity.serial.0.filter(|serial| *serial != 0).map(|serial| format!("{serial:08X}"));
    }
    devices
}

/// A CIP device type in the words of the inventory, where there are such.
fn kind_of(device_type: &str) -> String {
    let folded: String =
        device_type.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let known = match folded.as_str() {
        "programmablelogiccontroller" => "PLC",
        "humanmachineinterface" => "HMI",
        "acdrivedevice" | "acdrive" | "dcdrive" | "softstart" => "Variable Frequency Drive",
        "cipmotiondrive" | "servodrive" => "Servo Drive",
        "managedethernetswitch" | "managedswitch" => "Switch",
        "pneumaticvalves" | "pneumaticvalve" => "Pneumatic Device",
        "robot" => "Industrial Robot",
        _ => return word(device_type),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn read(kind: &'static str, line: &str) -> Vec<Device> {
        of(kind, line.as_bytes(), at(1), &settings(), &mut Told::default())
    }

    #[test]
    fn a_lease_is_a_mac_with_an_address_that_moves() {
        let line = r#"{"timestamp":"2026-11-21T08:15:00.000000+0000","event_type":"dhcp","src_ip":"10.0.0.1","dest_ip":"10.0.0.9",
            "dhcp":{"type":"reply","id":7,"client_mac":"00:11:32:AA:BB:CC","assigned_ip":"10.0.0.9","dhcp_type":"ack","hostname":"hmi-1\u0000"}}"#;
        let device = read("dhcp", line).remove(0);
        assert_eq!((device.name.as_deref(), device.dhcp), (Some("hmi-1"), true));
        assert_eq!((device.macs, device.macs_are_own), (vec!["00:11:32:aa:bb:cc".to_owned()], true));
        assert_eq!(device.last_seen.map(Timestamp::servicenow).as_deref(), Some("2026-11-21 08:15:00"));
        let offer = line.replace("\"ack\"", "\"offer\"");
        assert!(read("dhcp", &offer)[0].ips.is_empty(), "what is only offered is nobody's yet");
    }

    #[test]
    fn who_sends_arp_says_its_own_address() {
        let line = r#"{"event_type":"arp","arp":{"opcode":"request","src_mac":"00:1b:1b:aa:bb:cc","src_ip":"10.3.0.17","dest_mac":"00:00:00:00:00:00","dest_ip":"10.3.0.1"}}"#;
        let device = read("arp", line).remove(0);
        assert_eq!((device.ips[0].to_string().as_str(), device.macs_are_own), ("10.3.0.17", true));
        let probe = line.replace("10.3.0.17", "0.0.0.0");
        assert!(read("arp", &probe).is_empty());
    }

    #[test]
    fn an_identity_is_that_of_the_end_that_serves() {
        let line = r#"{"event_type":"enip","src_ip":"10.3.0.17","src_port":44818,"dest_ip":"10.3.0.5","dest_port":51000,
            "enip":{"response":{"command":"ListIdentity","identity":{"vendor_id":"Rockwell Automation","device_type":"Programmable Logic Controller","product_name":"1756-L61/B","revision":"20.11","serial":12648430}}}}"#;
        let devices = read("enip", line);
        let plc = &devices[1];
        assert_eq!((plc.ips[0].to_string().as_str(), plc.kind.as_deref()), ("10.3.0.17", Some("PLC")));
        assert_eq!((plc.serial.as_deref(), plc.firmware.as_deref()), (Some("00C0FFEE"), Some("20.11")));
        assert!(plc.macs.is_empty());
        assert!(devices[0].serial.is_none() && !devices[0].connections[0].inbound);
    }

    #[test]
    fn roles_are_those_of_the_ports() {
        let line = r#"{"event_type":"modbus","src_ip":"10.3.0.5","src_port":49000,"dest_ip":"10.3.0.17","dest_port":502,"modbus":{}}"#;
        let devices = read("modbus", line);
        assert_eq!(devices[1].extra, [("modbus_role".to_owned(), "server".to_owned())]);
        assert_eq!(
            (devices[1].ips[0].to_string().as_str(), devices[0].connections[0].ports[0]),
            ("10.3.0.17", 502)
        );
    }

    #[test]
    fn what_was_told_of_late_is_not_told_again() {
        let line = |port: u16| {
            format!(
                r#"{{"event_type":"modbus","src_ip":"10.3.0.5","src_port":{port},"dest_ip":"10.3.0.17","dest_port":502}}"#
            )
        };
        let mut told = Told::default();
        let mut read =
            |line: &str, seconds| of("modbus", line.as_bytes(), at(seconds), &settings(), &mut told).len();
        assert_eq!((read(&line(1), 1), read(&line(2), 2), read(&line(3), 5_000)), (2, 0, 2));
    }

    #[test]
    fn hostile_lines_tell_nothing() {
        for kind in ["dhcp", "arp", "enip", "modbus", "dnp3"] {
            for line in ["", "{", "{}", "{\"src_ip\":", "{\"src_ip\":\"\u{1}\",\"dest_ip\":7}", "[1]"] {
                assert!(read(kind, line).is_empty(), "{kind} {line}");
            }
        }
    }
}
