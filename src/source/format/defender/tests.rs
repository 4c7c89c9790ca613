//! What comes out of records as the product, its samples and its faults write them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::Settings as Common;
use super::split::{Piece, Splitter};
use super::*;
use crate::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use crate::model::device::{ATTRIBUTE_MAX, EXTRA_MAX, PARTS_MAX};
use crate::model::{
    Alert, AlertKind, AlertState, Device, Engine, Fingerprint, Identity, Severity, SourceName,
};
use crate::source::RejectReason;

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

fn settings(console: bool) -> Settings {
    let common = Common {
        site: Some("Plant North".to_owned()),
        ..Common::new("agent", "line4", SourceName::new("defender").unwrap())
    };
    Settings { common, console }
}

fn format(console: bool) -> Defender {
    Defender::new(settings(console))
}

fn decode(format: &Defender, address: &str, record: &str) -> Decoded {
    format.decoder(&Stream { name: address, ..Stream::default() }).decode(record.as_bytes(), NOW)
}

#[track_caller]
fn alert(format: &Defender, address: &str, record: &Value) -> Alert {
    match decode(format, address, &record.to_string()).outcome {
        Outcome::Alert(finding) => finding.alert,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn device(format: &Defender, address: &str, record: &Value) -> Device {
    let mut decoded = decode(format, address, &record.to_string());
    assert!(matches!(decoded.outcome, Outcome::Ignored("device")), "{decoded:?}");
    decoded.devices.pop().expect("a device")
}

const SENSOR_V1: &str = "/api/v1/alerts?state=unhandled";
const CONSOLE_V2: &str = "/external/v2/alerts";

#[test]
fn an_alert_of_a_sensor() {
    let record = json!({
        "id": 2, "time": 1_505_651_605_000_i64, "engine": "Protocol Violation", "severity": "Major",
        "title": "Illegal MODBUS Operation (Exception Raised by Master)",
        "message": "A MODBUS master 192.0.2.131 raised an exception.\nIt talked to 192.0.2.7.",
        "sourceDevice": 3, "destinationDevice": null, "additionalInformation": null,
    });
    let format = format(false);
    let alert = alert(&format, SENSOR_V1, &record);
    assert_eq!(alert.id.as_deref(), Some("2"));
    assert_eq!(alert.time.to_string(), "2017-09-17T12:33:25Z");
    assert_eq!((alert.severity, alert.engine), (Severity::Major, Engine::ProtocolViolation));
    assert_eq!(alert.category.as_deref(), Some("Illegal Commands"));
    assert_eq!(alert.protocols[0].as_str(), "Modbus");
    assert_eq!(alert.source.ip.unwrap().to_string(), "192.0.2.131");
    assert_eq!(alert.source.device_id.as_deref(), Some("3"));
    assert_eq!(alert.destination.ip.unwrap().to_string(), "192.0.2.7");
    assert_eq!((alert.sensor.as_str(), alert.site.as_deref()), ("line4", Some("Plant North")));
    assert_eq!((alert.state, alert.kind), (AlertState::Raised, AlertKind::Alert));
    assert!(alert.raw.contains("1505651605000"), "{}", alert.raw);
    let handled = self::alert(&format, "/api/v1/alerts?state=handled", &record);
    assert_eq!(handled.state, AlertState::Cleared);
}

#[test]
fn an_alert_of_a_console_names_its_sensor_and_place() {
    let record = json!({
        "ID": "7", "time": "1594808260000", "Title": "Address Scan Detected", "severity": "CRITICAL",
        "engine": "ANOMALY", "handled": "true", "siteId": 1, "zoneId": 1, "sensorId": 4,
        "sourceDevice": 4, "destinationDevice": 0, "sourceDeviceAddress": "00-1B-1B-AA-BB-CC",
        "sensorName": "sensor-west", "zoneName": "Line 2", "siteName": "Plant West",
        "additionalinformation": {"description": "Ports", "information": ["22", 80]},
        "remediationSteps": ["Look at it", "Close it"], "message": "Address scan detected.",
    });
    let alert = alert(&format(true), CONSOLE_V2, &record);
    assert_eq!(alert.id.as_deref(), Some("4:7"));
    assert_eq!(alert.source.mac.as_deref(), Some("00:1b:1b:aa:bb:cc"));
    assert_eq!((alert.destination.device_id.as_deref(), alert.source.ip), (None, None));
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::Anomaly));
    assert_eq!(
        (alert.sensor.as_str(), alert.site.as_deref(), alert.zone.as_deref()),
        ("sensor-west", Some("Plant West"), Some("Line 2"))
    );
    assert_eq!(alert.state, AlertState::Cleared);
    assert_eq!(
        alert.message,
        "Address scan detected.\n\nPorts:\n22\n80\n\nRemediation:\n- Look at it\n- Close it"
    );
}

#[test]
fn one_finding_is_one_fingerprint_whatever_changes_in_it() {
    let format = format(true);
    let of = |record: &Value| match decode(&format, CONSOLE_V2, &record.to_string()).outcome {
        Outcome::Alert(finding) => finding.fingerprint,
        other => panic!("{other:?}"),
    };
    let base = json!({"id": 1, "sensorId": 2, "title": "A", "handled": false});
    let own = Fingerprint::derive("agent", &SourceName::new("defender").unwrap(), &Identity::Own("2:1"));
    assert_eq!(of(&base), own);
    assert_eq!(of(&json!({"id": "1", "sensorId": "2", "title": "B", "handled": true, "time": 5})), own);
    assert_ne!(of(&json!({"id": 1, "sensorId": 3, "title": "A"})), own);
}

#[test]
fn an_alert_without_what_every_alert_needs_is_rejected_alone() {
    for (record, reason, words) in [
        (r#"{"title":"A"}"#, RejectReason::MissingField, "`id`"),
        (r#"{"id":null,"title":"A"}"#, RejectReason::MissingField, "`id`"),
        (r#"{"id":{},"title":"A"}"#, RejectReason::MissingField, "`id`"),
        (r#"{"id":1}"#, RejectReason::MissingField, "`title`"),
        (r#"{"id":1,"title":" ","message":[]}"#, RejectReason::MissingField, "`title`"),
        ("3", RejectReason::MissingField, "`id`"),
        ("{\"id\":1", RejectReason::Malformed, "not JSON"),
        ("{\"id\" 1}", RejectReason::Malformed, "not JSON"),
    ] {
        match decode(&format(false), SENSOR_V1, record).outcome {
            Outcome::Reject(is, detail) => {
                assert_eq!(is, reason, "{record}");
                assert!(detail.contains(words), "{record}: {detail}");
            }
            other => panic!("{record}: {other:?}"),
        }
    }
}

#[test]
fn what_the_samples_get_wrong_is_read_all_the_same() {
    let format = format(false);
    let read = |record: &str| match decode(&format, SENSOR_V1, record).outcome {
        Outcome::Alert(finding) => finding.alert,
        other => panic!("{record}: {other:?}"),
    };
    assert_eq!(read(r#"{"id":1,"title":"A \#2","x":[1,],}"#).title, "A #2");
    assert_eq!(read(r#"{"id":1,"title":"A","title":null,"id":2}"#).id.as_deref(), Some("2"));
    assert_eq!(read("{\"id\":1,\"message\":\"first line\\nsecond\"}").title, "first line");
    assert_eq!(read("{\"id\":1,\"title\":\"a\u{1}b\"}").title, "a b");
    assert_eq!(read(r#"{"id":1,"title":"A","time":"soon","severity":7,"engine":[]}"#).time, NOW);
    assert_eq!(read(r#"{"id":1,"title":"\u001b[31mred\u202e"}"#).title, "[31mred");
    let invalid = b"{\"id\":1,\"title\":\"\xff\xfe\"}";
    let decoded = format.reader(Subject::Alerts(None)).decode(invalid, NOW);
    assert!(matches!(decoded.outcome, Outcome::Alert(_)), "{decoded:?}");
}

#[test]
fn severity_and_engine_fall_back_on_the_title_and_then_on_caution() {
    let format = format(false);
    let of = |record: Value| {
        let alert = alert(&format, SENSOR_V1, &record);
        (alert.severity, alert.engine)
    };
    let said =
        |severity: &str| of(json!({"id": 1, "title": "x", "severity": severity, "engine": "Malware"})).0;
    assert_eq!(
        ["Warning", "minor", " MAJOR", "Critical", "Low", "High", "Odd"].map(said),
        [
            Severity::Warning,
            Severity::Minor,
            Severity::Major,
            Severity::Critical,
            Severity::Minor,
            Severity::Critical,
            Severity::Major
        ]
    );
    assert_eq!(of(json!({"id": 1, "title": "Controller Stop"})), (Severity::Warning, Engine::Operational));
    assert_eq!(of(json!({"id": 1, "title": "Of tomorrow"})), (Severity::Major, Engine::Anomaly));
    assert_eq!(of(json!({"id": 1, "title": "x", "engine": "POLICY_VIOLATION"})).1, Engine::PolicyViolation);

    let mut settings = settings(false);
    settings.common.severity_map.insert("major".to_owned(), Severity::Critical);
    settings.common.engine_map.insert("anomaly".to_owned(), Engine::Malware);
    let mapped = Defender::new(settings);
    let alert =
        alert(&mapped, SENSOR_V1, &json!({"id": 1, "title": "x", "severity": "Major", "engine": "Anomaly"}));
    assert_eq!((alert.severity, alert.engine), (Severity::Critical, Engine::Malware));
}

#[test]
fn a_device_of_a_sensor() {
    let record = json!({
        "id": 79, "name": "press-1", "type": "PLC", "vendor": "Omron", "operatingSystem": null,
        "ipAddresses": ["192.0.2.102", "192.0.2.102", "N/A"], "macAddresses": ["00:1B:1B:00:00:01"],
        "engineeringStation": false, "authorized": true, "scanner": "false", "hasDynamicAddress": true,
        "protocols": [{"id": 62, "name": "Omron FINS", "addresses": ["N/A"]}, {"name": "GENERIC"}, {"name": "MODBUS"}],
        "firmware": [
            {"address": "192.0.2.102", "moduleAddress": "N/A", "serial": "S1", "model": "NX1", "firmwareVersion": "20.55",
             "additionalData": "N/A", "rack": "N/A", "slot": "N/A"},
            {"address": "192.0.2.102", "moduleAddress": "2", "model": "NX-ECC", "firmwareVersion": "1.2", "rack": 0, "slot": 3},
        ],
    });
    let device = device(&format(false), "/api/v1/devices", &record);
    assert_eq!((device.id.as_deref(), device.kind.as_deref()), (Some("79"), Some("PLC")));
    assert_eq!(device.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.102"]);
    assert_eq!(
        (device.macs.as_slice(), device.macs_are_own),
        (["00:1b:1b:00:00:01".to_owned()].as_slice(), true)
    );
    assert_eq!(device.protocols, ["Omron FINS", "Modbus"]);
    assert_eq!(
        (device.programming, device.authorized, device.scanner),
        (Some(false), Some(true), Some(false))
    );
    assert!(device.dhcp);
    assert_eq!(
        (device.model.as_deref(), device.firmware.as_deref(), device.serial.as_deref()),
        (Some("NX1"), Some("20.55"), Some("S1"))
    );
    assert_eq!(device.modules.len(), 1);
    assert_eq!(
        (device.modules[0].rack.as_deref(), device.modules[0].slot.as_deref()),
        (Some("0"), Some("3"))
    );
    assert_eq!((device.sensor.as_deref(), device.site.as_deref()), (Some("line4"), Some("Plant North")));
}

#[test]
fn a_device_of_the_integration_api_in_both_of_its_shapes() {
    let record = json!({
        "u_id": 3, "u_name": "PLC 1", "u_vendor": "Acme", "u_appliance": "sensor-west", "u_site": "West", "u_zone": "Line 2",
        "u_device_type": {"u_category": "ICS", "u_purdue_layer": "Process Control", "u_name": "PLC"}, "u_purdue_layer": "N/A",
        "u_ip_address_objects": [{"u_ip_address": "192.0.2.5",
            "u_guessed_mac_addresses": [{"u_mac_address": "00:1b:1b:00:00:99"}]}],
        "u_mac_address_objects": [{"u_mac_address": "00:1b:1b:00:00:05"}],
        "u_protocol_objects": [{"u_protocol": "Siemens S7 Plus"}], "u_vlans": [{"u_vlan": "1"}, {"u_vlan": 7}],
        "u_sensor_ids": [{"u_sensor_id": 1}], "u_firmwares": [],
        "u_first_discovered": 1_600_000_000_000_i64, "u_last_activity": "2020-09-13T12:26:40Z",
    });
    let format = format(true);
    let told = device(&format, "/external/v3/integration/devices/0", &record);
    assert_eq!((told.kind.as_deref(), told.purdue_level.as_deref()), (Some("PLC"), Some("Process Control")));
    assert_eq!(told.macs, ["00:1b:1b:00:00:05"], "a guessed address is not the device's");
    assert_eq!(told.protocols, ["Siemens S7"]);
    assert_eq!(
        (told.first_seen, told.first_seen),
        (told.last_seen, Some(Timestamp::from_secs(1_600_000_000)))
    );
    assert_eq!(
        (told.sensor.as_deref(), told.site.as_deref(), told.zone.as_deref()),
        (Some("sensor-west"), Some("West"), Some("Line 2"))
    );
    assert_eq!(told.extra, [("vlans".to_owned(), "1, 7".to_owned())]);

    let guessed = json!({"u_id": "4", "u_device_type": "HMI", "u_ip_address_objects": [{"u_ip_address": "192.0.2.6",
        "u_guessed_mac_address": "00:1b:1b:00:00:99"}]});
    let told = device(&format, "/external/v3/integration/devices/0", &guessed);
    assert_eq!((told.kind.as_deref(), told.macs_are_own, told.macs.len()), (Some("HMI"), false, 0));
    assert_eq!(told.sensor, None);
}

#[test]
fn what_is_no_asset_is_no_device() {
    for kind in ["Internet", "multicast/broadcast", "Group", "Slot", "External Management"] {
        let decoded = decode(&format(false), "/api/v1/devices", &json!({"id": 1, "type": kind}).to_string());
        assert!(matches!(decoded.outcome, Outcome::Ignored("no asset")) && decoded.devices.is_empty());
    }
    let decoded = decode(&format(false), "/api/v1/devices", r#"{"name":"x"}"#);
    assert!(matches!(decoded.outcome, Outcome::Reject(RejectReason::MissingField, _)));
}

#[test]
fn connections_and_vulnerabilities_come_home_to_their_devices() {
    let format = format(false);
    let read = |address: &str, record: Value| decode(&format, address, &record.to_string()).outcome;
    device(&format, "/api/v1/devices", &json!({"id": 22, "name": "hmi", "ipAddresses": ["192.0.2.22"]}));
    let pair = json!({"firstDeviceId": 171, "secondDeviceId": 22, "lastSeen": 1_511_281_457_933_i64, "discovered": 9,
        "ports": [502, "102", 70_000], "protocols": [{"name": "modbus", "commands": ["Read Coils"]}]});
    assert!(matches!(read("/api/v1/devices/connections", pair), Outcome::Ignored("connection")));
    let arrow = json!({"u_src_device_id": 171, "u_dest_device_id": 5, "u_dest_device_name": "x", "u_connection_type": "One Way"});
    assert!(matches!(read("/external/v3/integration/connections/0", arrow), Outcome::Ignored("connection")));
    let cve = json!({"cveId": "cve-2007-0099", "score": "9.3", "ipAddress": "192.0.2.171", "attackVector": "NETWORK"});
    assert!(matches!(read("/api/v1/devices/cves", cve), Outcome::Ignored("vulnerability")));
    let cves = json!({"u_id": 171, "u_cves": [{"u_cve_id": "CVE-2007-0099", "u_score": 9.3}, {"u_cve_id": "CVE-1", "u_score": 10}]});
    assert!(matches!(read("/external/v3/integration/devicecves/0", cves), Outcome::Ignored("vulnerability")));

    let told = device(&format, "/api/v1/devices", &json!({"id": 171, "ipAddresses": "192.0.2.171"}));
    assert_eq!(told.connections.len(), 2);
    let first = &told.connections[0];
    assert_eq!((first.device_id.as_deref(), first.name.as_deref()), (Some("22"), Some("hmi")));
    assert_eq!(
        (first.ip.unwrap().to_string().as_str(), first.ports.as_slice()),
        ("192.0.2.22", [502, 102].as_slice())
    );
    assert_eq!(
        (first.two_way, first.inbound, first.protocols.as_slice()),
        (true, false, ["Modbus".to_owned()].as_slice())
    );
    assert_eq!((told.connections[1].two_way, told.connections[1].inbound), (false, false));
    let scores: Vec<_> = told.cves.iter().map(|cve| (cve.id.as_str(), cve.score.as_deref())).collect();
    assert_eq!(scores, [("CVE-2007-0099", Some("9.3")), ("CVE-1", Some("10"))]);

    let peer = device(&format, "/api/v1/devices", &json!({"id": 5}));
    assert_eq!((peer.connections[0].inbound, peer.connections[0].device_id.as_deref()), (true, Some("171")));
    format.with_directory(Directory::begin_round);
    assert_eq!(device(&format, "/api/v1/devices", &json!({"id": 5})).connections, []);
}

#[test]
fn what_has_no_room_is_counted() {
    let format = format(false);
    for peer in 1..=PARTS_MAX + 3 {
        let pair = json!({"firstDeviceId": "hub", "secondDeviceId": peer});
        decode(&format, "/api/v1/devices/connections", &pair.to_string());
    }
    assert_eq!(format.with_directory(|directory| directory.left_out()), 3);
    assert_eq!(device(&format, "/api/v1/devices", &json!({"id": "hub"})).connections.len(), PARTS_MAX);
}

#[test]
fn deleted_devices_are_told() {
    let told =
        device(&format(true), "/external/v3/integration/deleteddevices/1600000000000", &json!({"u_id": 12}));
    assert_eq!((told.id.as_deref(), told.deleted), (Some("12"), true));
}

#[test]
fn an_alert_takes_name_address_and_protocol_from_its_devices() {
    let format = format(false);
    let device = |record: Value| device(&format, "/api/v1/devices", &record);
    device(
        json!({"id": 3, "name": "ews", "ipAddresses": ["192.0.2.3"], "protocols": ["ARP", "Siemens S7", "HTTP"]}),
    );
    device(json!({"id": 4, "name": "plc", "ipAddresses": ["192.0.2.4"], "protocols": ["ARP", "s7comm"]}));
    let record =
        json!({"id": 1, "title": "PLC Operating Mode Changed", "sourceDevice": 3, "destinationDevice": 4});
    let told = alert(&format, SENSOR_V1, &record);
    assert_eq!((told.source.label().as_str(), told.destination.label().as_str()), ("ews", "plc"));
    assert_eq!(told.destination.ip.unwrap().to_string(), "192.0.2.4");
    assert_eq!(told.protocols[0].as_str(), "Siemens S7");
    let alone = json!({"id": 1, "title": "PLC Operating Mode Changed", "sourceDevice": 3});
    assert_eq!(alert(&format, SENSOR_V1, &alone).protocols, [], "two protocols are none");
}

#[test]
fn sensors_of_a_console_are_devices_and_give_alerts_their_place() {
    let format = format(true);
    let appliance = json!({
        "id": 4, "name": "sensor-west", "uid": "u", "interfaceAddress": "https://192.0.2.44/", "version": "22.1.4.8-r-63",
        "zoneId": null, "isActivated": true, "isInLearningMode": false,
        "state": [{"id": 1, "connectionState": {"id": 2, "isConsideredConnected": false, "description": "lost"},
            "sensorLastMessage": 1_600_000_000_000_i64}],
    });
    let mut decoded = decode(&format, "/external/v1/appliances", &appliance.to_string());
    let told = decoded.devices.pop().unwrap();
    assert!(told.is_sensor);
    assert_eq!((told.id.as_deref(), told.name.as_deref()), (Some("sensor:4"), Some("sensor-west")));
    assert_eq!(
        (told.ips[0].to_string().as_str(), told.firmware.as_deref()),
        ("192.0.2.44", Some("22.1.4.8-r-63"))
    );
    assert!(told.extra.contains(&("learning_mode".to_owned(), "false".to_owned())));
    let Outcome::Alert(raised) = decoded.outcome else { panic!("{:?}", decoded.outcome) };
    assert_eq!((raised.alert.state, raised.alert.kind), (AlertState::Raised, AlertKind::SystemNotification));
    assert_eq!((raised.alert.engine, raised.alert.sensor.as_str()), (Engine::Operational, "sensor-west"));
    assert!(raised.alert.message.contains("2020-09-13T12:26:40Z"), "{}", raised.alert.message);

    let again = json!({"u_id": 4, "u_name": "sensor-west", "u_connection_state": "SYNCED"});
    let Outcome::Alert(cleared) =
        decode(&format, "/external/v3/integration/sensors", &again.to_string()).outcome
    else {
        panic!("no notification");
    };
    assert_eq!((cleared.alert.state, cleared.fingerprint), (AlertState::Cleared, raised.fingerprint));
    let silent = decode(&format, "/external/v3/integration/sensors", r#"{"u_id":5,"u_name":"other"}"#);
    assert!(matches!(silent.outcome, Outcome::Ignored("sensor")));

    device(
        &format,
        "/external/v3/integration/devices/0",
        &json!({"u_id": 1, "u_appliance": "sensor-west", "u_site": "West", "u_zone": "Line 2"}),
    );
    let told = alert(&format, "/external/v1/alerts", &json!({"id": 1, "sensorId": 4, "title": "A"}));
    assert_eq!(
        (told.sensor.as_str(), told.site.as_deref(), told.zone.as_deref()),
        ("sensor-west", Some("West"), Some("Line 2"))
    );
    let told = alert(&format, "/external/v1/alerts", &json!({"id": 1, "sensorId": 9, "title": "A"}));
    assert_eq!((told.sensor.as_str(), told.site.as_deref()), ("sensor 9", Some("Plant North")));
}

#[test]
fn addresses_tell_their_subject() {
    for (address, subject) in [
        ("/api/v1/alerts", Subject::Alerts(None)),
        ("/api/v2/alerts?fromTime=1&state=handled", Subject::Alerts(Some(true))),
        ("/api/v1/devices?authorized=true", Subject::Devices),
        ("/api/v1/devices/connections", Subject::Connections),
        ("/api/v1/devices/cves", Subject::Cves),
        ("/external/v3/integration/devicecves/17?page=0", Subject::Cves),
        ("/external/v3/integration/connections/17", Subject::Connections),
        ("/external/v3/integration/deleteddevices/17", Subject::Deleted),
        ("/external/v3/integration/device/17", Subject::Devices),
        ("/external/v3/integration/sensors", Subject::Sensors),
        ("/external/v1/appliances", Subject::Sensors),
        ("recorded.json", Subject::Alerts(None)),
    ] {
        assert_eq!(Subject::of(address), subject, "{address}");
    }
}

const ADDRESSES: [&str; 6] = [
    SENSOR_V1,
    "/api/v1/devices",
    "/api/v1/devices/connections",
    "/external/v3/integration/devicecves/0",
    "/external/v3/integration/deleteddevices/0",
    "/external/v1/appliances",
];

fn within_bounds(decoded: &Decoded) {
    if let Outcome::Alert(finding) = &decoded.outcome {
        let alert = &finding.alert;
        assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX && !alert.sensor.is_empty());
        assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
        assert!(!alert.title.chars().any(char::is_control));
    }
    for device in &decoded.devices {
        assert!(device.name.as_deref().unwrap_or_default().len() <= ATTRIBUTE_MAX);
        assert!(
            device.ips.len() <= PARTS_MAX
                && device.modules.len() <= PARTS_MAX
                && device.extra.len() <= EXTRA_MAX
        );
    }
}

/// JSON with the keys of the product and any values.
fn any_json() -> impl Strategy<Value = Value> {
    const KEYS: [&str; 18] = [
        "id",
        "u_id",
        "title",
        "time",
        "severity",
        "message",
        "handled",
        "sourceDevice",
        "type",
        "u_device_type",
        "ipAddresses",
        "u_ip_address_objects",
        "firmware",
        "protocols",
        "state",
        "connectionState",
        "u_cves",
        "cveId",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("192.0.2.1")),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(KEYS.to_vec()), inner), 0..6).prop_map(|pairs| {
                Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(record in prop::collection::vec(any::<u8>(), 0..200)) {
        let format = format(true);
        for address in ADDRESSES {
            let mut decoder = format.decoder(&Stream { name: address, ..Stream::default() });
            within_bounds(&decoder.decode(&record, NOW));
        }
    }

    #[test]
    fn json_of_any_types_is_never_malformed(record in any_json()) {
        let format = format(true);
        for address in ADDRESSES {
            let decoded = decode(&format, address, &record.to_string());
            within_bounds(&decoded);
            prop_assert!(!matches!(decoded.outcome, Outcome::Reject(RejectReason::Malformed, _)), "{:?}", decoded);
        }
    }

    #[test]
    fn a_bad_record_costs_no_other(bad in "[^\"\\\\{}\\[\\],]{1,30}", at in 0_usize..3) {
        let good = r#"{"id":1,"title":"A"}"#.to_owned();
        let mut records = vec![good.clone(), good.clone(), good];
        records.insert(at, format!("{{\"id\":{bad}}}"));
        let page = format!("[{}]", records.join(","));
        let format = format(false);
        let (mut alerts, mut splitter) = (0, Splitter::new());
        splitter.feed(page.as_bytes(), |piece| {
            if let Piece::Record(record) = piece {
                let decoded = format.reader(Subject::Alerts(None)).decode(record, NOW);
                alerts += i32::from(matches!(decoded.outcome, Outcome::Alert(_)));
            }
        }).unwrap();
        prop_assert_eq!((alerts, splitter.finish()), (3, Ok(())));
    }
}
