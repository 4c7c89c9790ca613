//! Who is who, who wins, and what counts as a change.

use super::diff::{changed, digests};
use super::keys::{at_source, born, contradict, own_macs, serial, strong, weak};
use super::merge::{Said, merge, overlay};
use crate::model::device::Connection;
use crate::model::{Device, Timestamp};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn said(kind: &str, seconds: i64, device: Device) -> Said {
    Said { source: kind.to_owned(), kind: kind.to_owned(), at: at(seconds), device }
}

#[expect(clippy::unnecessary_wraps, reason = "every attribute may be absent")]
fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn plc() -> Device {
    Device {
        name: text("PLC-7"),
        ips: vec!["10.3.0.17".parse().unwrap()],
        macs: vec!["00:1b:1b:aa:bb:cc".to_owned()],
        macs_are_own: true,
        ..Device::default()
    }
}

#[test]
fn what_is_no_serial_number_is_no_key() {
    for none in ["N/A", "0000000", "unknown", "", "12", "To be filled by O.E.M."] {
        assert_eq!(serial(&Device { serial: text(none), ..Device::default() }), None, "{none}");
    }
    let device = Device { serial: text("S C-X4U421302009"), ..plc() };
    assert_eq!(strong(&device), ["serial:scx4u421302009", "mac:00:1b:1b:aa:bb:cc"]);
}

#[test]
fn a_macs_of_a_router_and_an_address_of_dhcp_are_no_keys() {
    let behind = Device { macs_are_own: false, ..plc() };
    assert!(strong(&behind).is_empty());
    assert_eq!(at_source(&behind).as_deref(), Some("ip:10.3.0.17"));
    let moving = Device { dhcp: true, ..plc() };
    assert!(weak(&moving).is_empty());
    let shared = Device { macs: vec!["00:00:5e:00:01:07".into(), "01:00:5e:00:00:01".into()], ..plc() };
    assert_eq!(own_macs(&shared).count(), 0);
    let nothing = Device { dhcp: true, macs: Vec::new(), name: text("10.3.0.17"), ..plc() };
    assert_eq!(at_source(&nothing), None, "what moves and has nothing else cannot be kept");
}

#[test]
fn two_behind_one_address_are_told_apart() {
    let other = Device { macs: vec!["00:1b:1b:aa:bb:cd".into()], ..plc() };
    assert!(contradict(&plc(), &other, true));
    assert!(!contradict(&plc(), &Device { macs_are_own: false, ..other }, true));
    let (a, b) = (Device { serial: text("AB1234"), ..plc() }, Device { serial: text("AB1235"), ..plc() });
    assert!(contradict(&a, &b, false));
    let (a, b) = (Device { site: text("North"), ..plc() }, Device { site: text("South"), ..plc() });
    assert!(contradict(&a, &b, true) && !contradict(&a, &b, false));
}

#[test]
fn a_native_key_depends_only_on_what_lasts() {
    let renamed = Device { name: text("other"), ips: vec!["10.9.9.9".parse().unwrap()], ..plc() };
    let key = |device: &Device, again| born("eve", &at_source(device).unwrap(), device, again);
    assert_eq!(key(&plc(), 0), key(&renamed, 0));
    assert_ne!(key(&plc(), 0), key(&plc(), 1));
    let id = Device { id: text("7"), macs_are_own: false, ..plc() };
    assert_ne!(born("a", "id:7", &id, 0), born("b", "id:7", &id, 0), "ids are a source's own");
}

#[test]
fn the_better_source_wins_and_says_so() {
    let zeek = Device { vendor: text("Siemens AG"), model: text("S7-1500"), ..plc() };
    let defender =
        Device { name: text("10.3.0.17"), vendor: text("Siemens"), kind: text("PLC"), ..Device::default() };
    let eve = Device {
        model: text("1756-L61"),
        kind: text("Unknown"),
        serial: text("C0FFEE01"),
        ..Device::default()
    };
    let view =
        merge(&[said("suricata-eve", 9, eve), said("zeek", 5, zeek), said("defender-sensor", 1, defender)]);
    let d = &view.device;
    assert_eq!(d.name.as_deref(), Some("PLC-7"), "an address is no name where another source has one");
    assert_eq!((d.vendor.as_deref(), d.model.as_deref()), (Some("Siemens"), Some("S7-1500")));
    assert_eq!((d.kind.as_deref(), d.serial.as_deref()), (Some("PLC"), Some("C0FFEE01")));
    assert_eq!(view.from["vendor"].source, "defender-sensor");
    assert_eq!((view.from["serial"].source.as_str(), view.from["serial"].at), ("suricata-eve", at(9)));
}

#[test]
fn among_equals_the_newer_word_wins() {
    let of = |name: &str| Device { name: text(name), ..Device::default() };
    let view = merge(&[said("http", 1, of("old")), said("json-lines", 2, of("new"))]);
    assert_eq!(view.device.name.as_deref(), Some("new"));
}

#[test]
fn an_address_of_dhcp_is_replaced_and_the_name_stays() {
    let first = Device { dhcp: true, ..plc() };
    let moved = Device { name: None, ips: vec!["10.3.0.99".parse().unwrap()], ..first.clone() };
    let now = overlay(&first, &moved);
    assert_eq!((now.name.as_deref(), now.ips.len()), (Some("PLC-7"), 1));
    assert_eq!(now.ips, moved.ips);
    // Another source still has the old one.
    let view = merge(&[said("zeek", 1, plc()), said("suricata-eve", 2, now)]);
    assert_eq!(view.device.ips, moved.ips);
}

#[test]
fn own_macs_drive_out_those_that_may_be_a_routers() {
    let guessed = Device { macs: vec!["00:1b:1b:00:00:01".into()], macs_are_own: false, ..plc() };
    let view = merge(&[said("defender-sensor", 1, guessed.clone()), said("zeek", 1, plc())]);
    assert_eq!(view.device.macs, plc().macs);
    assert_eq!(overlay(&plc(), &guessed).macs, plc().macs);
}

#[test]
fn a_device_is_gone_when_nobody_saw_it_since() {
    let gone = Device { deleted: true, ..plc() };
    let is_gone = |said: &[Said]| merge(said).device.deleted;
    assert!(is_gone(&[said("defender-sensor", 5, gone.clone()), said("zeek", 4, plc())]));
    assert!(!is_gone(&[said("defender-sensor", 5, gone), said("zeek", 6, plc())]));
}

#[test]
fn only_parts_that_say_something_else_have_changed() {
    let was = digests(&plc());
    assert!(changed(Some(&was), &digests(&Device { last_seen: Some(at(9)), ..plc() })).is_empty());
    let now = digests(&Device { firmware: text("2.9"), zone: text("Line 4"), ..plc() });
    assert_eq!(changed(Some(&was), &now), ["system", "place"]);
    assert_eq!(changed(None, &was).len(), 7);
}

fn talk(ip: &str, inbound: bool, port: u16) -> Connection {
    Connection { ip: ip.parse().ok(), inbound, ports: vec![port], ..Connection::default() }
}

#[test]
fn a_list_in_another_order_is_no_change() {
    let (one, two) = (talk("10.0.0.1", false, 502), talk("10.0.0.2", false, 502));
    let hmi = Device { connections: vec![one.clone(), two.clone()], ..plc() };
    let now = overlay(&hmi, &Device { connections: vec![two, one], ..plc() });
    assert!(changed(Some(&digests(&hmi)), &digests(&now)).is_empty());
}

#[test]
fn what_is_seen_of_a_connection_in_pieces_adds_up() {
    let first = Device { connections: vec![talk("10.0.0.1", false, 502)], ..plc() };
    let more = |inbound, port| Device { connections: vec![talk("10.0.0.1", inbound, port)], ..plc() };
    let now = overlay(&overlay(&first, &more(false, 44_818)), &more(false, 502));
    assert_eq!((now.connections.len(), now.connections[0].ports.as_slice()), (1, &[502, 44_818][..]));
    assert!(!now.connections[0].two_way);
    let both = overlay(&now, &more(true, 102));
    let both = overlay(&both, &more(false, 102));
    assert!(both.connections[0].two_way && !both.connections[0].inbound, "each began one");
    assert!(changed(Some(&digests(&both)), &digests(&overlay(&both, &more(true, 502)))).is_empty());
    // Two sources: the better one says which way.
    let view = merge(&[said("suricata-eve", 2, more(true, 20_000)), said("zeek", 1, first)]);
    let seen = &view.device.connections[0];
    assert_eq!((seen.inbound, seen.two_way, seen.ports.as_slice()), (false, false, &[502, 20_000][..]));
}
