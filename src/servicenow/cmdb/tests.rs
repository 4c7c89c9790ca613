//! What is sent for a device, how devices are put into requests, and what the engine's words mean.

use serde_json::json;

use super::*;
use crate::model::Device;
use crate::model::device::{Connection, Module, Peer};

fn settings() -> Settings {
    Settings {
        agent: "agent-1".to_owned(),
        sensor: "cell-7".to_owned(),
        data_source: "otrelay".to_owned(),
        class_map: BTreeMap::new(),
        on_deleted: OnDeleted::Retire,
        import: None,
    }
}

#[expect(clippy::unnecessary_wraps, reason = "every attribute may be absent")]
fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn plc() -> Device {
    Device {
        name: text("PLC-7"),
        kind: text("PLC"),
        serial: text("AB12345"),
        firmware: text("2.9.4"),
        ips: vec!["10.3.0.17".parse().unwrap()],
        macs: vec!["00:1b:1b:aa:bb:cc".to_owned()],
        macs_are_own: true,
        purdue_level: text("Level 1"),
        criticality: text("High"),
        zone: text("Line 4"),
        modules: vec![Module { slot: text("3"), firmware: text("1.1"), ..Module::default() }],
        extra: vec![("plc_run_state".to_owned(), "RUN".to_owned())],
        ..Device::default()
    }
}

fn order(key: &str, device: Device) -> DeviceOrder {
    DeviceOrder { key: key.to_owned(), device, is_known: false, peers: Vec::new() }
}

#[test]
fn a_plc_is_its_ci_with_lookups_entity_address_module_and_sensor() {
    let batch = Batch::of(&settings(), &[order("d1", plc())]);
    let items = batch.body["items"].as_array().unwrap();
    let classes: Vec<&str> = items.iter().map(|item| item["className"].as_str().unwrap()).collect();
    assert_eq!(classes, ["cmdb_ci_ot_plc", "cmdb_ci_ip_address", class::MODULE, class::SENSOR]);
    let ci = &items[0];
    assert_eq!(
        ci["sys_object_source_info"],
        json!({"source_name": "otrelay", "source_native_key": "agent-1/d1"})
    );
    assert_eq!(
        (&ci["values"]["name"], &ci["values"]["firmware_version"]),
        (&json!("PLC-7"), &json!("2.9.4"))
    );
    assert_eq!(ci["values"]["switch_remote_mode"], json!("RUN"));
    assert!(ci["values"].get("ip_address").is_none() && ci["values"].get("mac_address").is_none());
    let lookups: Vec<&str> =
        ci["lookup"].as_array().unwrap().iter().map(|l| l["className"].as_str().unwrap()).collect();
    assert_eq!(lookups, ["cmdb_serial_number", "cmdb_ci_network_adapter"]);
    let entity = &ci["related"][0]["values"];
    assert_eq!(entity["purdue_level"], json!("1"));
    assert_eq!((&entity["business_criticality"], &entity["zone"]), (&json!("2"), &json!("Line 4")));
    let kinds: Vec<&str> =
        batch.body["relations"].as_array().unwrap().iter().map(|r| r["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Owns::Owned by", "Owns::Owned by", "Detects::Detected by"]);
    assert_eq!(batch.spans, [Some((0, 3, "cmdb_ci_ot_plc".to_owned()))]);
}

#[test]
fn a_mac_that_may_be_a_routers_and_a_serial_that_is_none_identify_nothing() {
    let device = Device { macs_are_own: false, serial: text("N/A"), ..plc() };
    let batch = Batch::of(&settings(), &[order("d1", device)]);
    assert_eq!(batch.body["items"][0]["lookup"], json!([]));
}

#[test]
fn requests_are_bounded_and_none_is_left_out() {
    let orders: Vec<DeviceOrder> = (0..120).map(|n| order(&format!("d{n}"), plc())).collect();
    let (mut rest, mut requests) = (&orders[..], 0);
    while !rest.is_empty() {
        let batch = Batch::of(&settings(), rest);
        assert!(batch.body["items"].as_array().unwrap().len() <= ITEMS_MAX + 1);
        assert!(batch.body.to_string().len() <= BYTES_MAX + 1000);
        rest = &rest[batch.spans.len()..];
        requests += 1;
    }
    assert_eq!(requests, 8, "16 of three items each");
}

#[test]
fn what_is_no_device_is_not_sent_and_what_is_deleted_is_retired() {
    let place = Device { kind: text("Physical Location"), ..plc() };
    assert!(shown(&settings(), &order("d1", place)).is_err());
    let gone = Device { deleted: true, ..plc() };
    assert!(
        payload::piece(&settings(), &order("d1", gone.clone())).is_none(),
        "never told, nothing to retire"
    );
    let known = DeviceOrder { is_known: true, ..order("d1", gone) };
    let values = |on_deleted| {
        let settings = Settings { on_deleted, ..settings() };
        payload::piece(&settings, &known).map(|piece| piece.items[0]["values"].clone())
    };
    let retired = values(OnDeleted::Retire).unwrap();
    assert_eq!((&retired["install_status"], retired["comments"].is_string()), (&json!("7"), true));
    let noted = values(OnDeleted::Note).unwrap();
    assert!(noted["comments"].is_string() && noted.get("install_status").is_none());
    assert!(values(OnDeleted::None).is_none());
}

#[expect(clippy::needless_pass_by_value, reason = "cases are written where they are used")]
fn outcome(item: Value) -> Result<DevicePut, crate::destination::DeviceRefusal> {
    let result = json!({"items": [item, {"className": "cmdb_ci_ip_address", "sysId": "b".repeat(32)}]});
    let spans = [(0, 2, "cmdb_ci_ot_plc".to_owned())];
    answer::outcomes(&result, &spans, "otrelay").unwrap().remove(0)
}

#[test]
fn an_item_that_went_well_names_its_ci() {
    let put = outcome(json!({"className": "cmdb_ci_ot_plc", "operation": "INSERT", "sysId": "a".repeat(32)}))
        .unwrap();
    assert!(put.created && put.class == "cmdb_ci_ot_plc");
    let put = outcome(json!({"operation": "NO_CHANGE", "sysId": "a".repeat(32), "errors": []})).unwrap();
    assert!(!put.created && put.sys_id.is_some());
}

#[test]
fn an_item_that_failed_has_the_engines_words_and_a_remedy() {
    let failed = |code: &str, message: &str| {
        outcome(json!({"sysId": "Unknown", "errors": [{"error": code, "message": message}]})).unwrap_err()
    };
    let refusal = failed("MISSING_MATCHING_ATTRIBUTES", "In payload no information for any of the rules");
    assert!(refusal.message.contains("MISSING_MATCHING_ATTRIBUTES: In payload") && !refusal.again);
    assert!(!refusal.remedy.is_empty());
    assert!(failed("LOCK_TIMEOUT", "").again && failed("ABANDONED", "").again);
    let absent = failed("INVALID_INPUT_DATA", "Invalid class [cmdb_ci_ot_plc]");
    assert!(absent.again && absent.remedy.contains("CMDB CI Class Models"));
    assert_eq!(absent.notice, Some(("cmdb-class-missing", "cmdb_ci_ot_plc".to_owned())));
    assert!(outcome(json!({"operation": "INSERT_AS_INCOMPLETE", "sysId": "Unknown"})).is_err());
    assert!(outcome(json!({"sysId": "Unknown"})).unwrap_err().again);
}

#[test]
fn an_unknown_data_source_is_no_fault_of_a_device() {
    let item = json!({"sysId": "Unknown", "errors": [
        {"error": "INVALID_INPUT_DATA", "message": "Invalid discovery_source [otrelay]"}]});
    let spans = [(0, 1, "cmdb_ci_ot".to_owned())];
    let whole = answer::outcomes(&json!({"items": [item]}), &spans, "otrelay").unwrap_err();
    assert!(matches!(whole, Whole::DataSource(words) if words.contains("Invalid discovery_source")));
}

#[test]
fn devices_that_talk_are_connected_by_whichever_is_told_later() {
    let to = |ip: &str, inbound| Connection {
        ip: ip.parse().ok(),
        inbound,
        protocols: vec!["Modbus".to_owned()],
        ports: vec![502],
        ..Connection::default()
    };
    let peer = |place, key: &str, class: &str| Peer {
        place,
        key: key.to_owned(),
        name: format!("name of {key}"),
        class: class.to_owned(),
        is_sensor: false,
    };
    let hmi = DeviceOrder {
        peers: vec![peer(0, "d2", ""), peer(1, "d3", "cmdb_ci_ot_rtu"), peer(2, "d4", "")],
        ..order(
            "d1",
            Device {
                connections: vec![to("10.3.0.17", false), to("10.3.0.18", true), to("10.3.0.19", false)],
                ..plc()
            },
        )
    };
    let plc = DeviceOrder {
        peers: vec![peer(0, "d1", "")],
        ..order("d2", Device { connections: vec![to("10.3.0.2", true)], ..plc() })
    };
    let batch = Batch::of(&settings(), &[hmi, plc]);
    let relations = batch.body["relations"].as_array().unwrap();
    let talks: Vec<(&str, &str)> = relations
        .iter()
        .filter(|r| r["type"] == "Connects to::Connected by")
        .map(|r| (r["parent_id"].as_str().unwrap(), r["child_id"].as_str().unwrap()))
        .collect();
    assert_eq!(talks, [("d1", "d2"), ("d3", "d1")], "both say it once; d4 is not there yet");
    let items = batch.body["items"].as_array().unwrap();
    let there = items.iter().find(|item| item["internal_id"] == "d3").unwrap();
    assert_eq!(there["className"], "cmdb_ci_ot_rtu");
    assert_eq!(there["sys_object_source_info"]["source_native_key"], "agent-1/d3");
    assert_eq!(there["values"], json!({"name": "name of d3"}), "nothing else of it is touched");
    assert!(!items.iter().any(|item| item["internal_id"] == "d4"));
    let pairs: Vec<&Value> = items[0]["related"].as_array().unwrap().iter().collect();
    let said = pairs.iter().find(|p| p["values"]["key"] == "connection 10.3.0.18").unwrap();
    assert_eq!(said["values"]["value"], "one way, from the peer; Modbus; ports 502");
}

#[test]
fn a_relation_that_is_refused_is_said_and_one_of_a_refused_device_is_not() {
    let bad = |code: &str, words: &str| json!({"errors": [{"error": code, "message": words}]});
    let result = json!({"relations": [
        bad("INVALID_INPUT_DATA", "no such type"), bad("INVALID_INPUT_DATA", "no such type"), bad("ABANDONED", "x"),
        {"operation": "INSERT"}]});
    let remarks = answer::relations(&result, "https://x");
    assert_eq!(remarks.len(), 1);
    assert!(remarks[0].text.contains("INVALID_INPUT_DATA: no such type"), "{}", remarks[0].text);
}

#[test]
fn a_table_has_the_columns_that_its_rows_fill() {
    let table = |name: &str| TableName::new(name).unwrap();
    let import = Import {
        device: table("u_device"),
        connection: Some(table("u_connection")),
        firmware: Some(table("u_firmware")),
        columns: BTreeMap::new(),
        insert_multiple: false,
    };
    let connection = Connection { ip: Some("10.3.0.9".parse().unwrap()), ..Connection::default() };
    let device = Device { connections: vec![connection], ..plc() };
    let all = rows::rows(&settings(), &import, &order("d1", device)).unwrap();
    for (name, part) in
        [("u_device", Part::Device), ("u_connection", Part::Connection), ("u_firmware", Part::Firmware)]
    {
        let columns: Vec<&str> = columns_of(part).map(|(column, _)| *column).collect();
        let filled = all.iter().filter(|row| row.table.as_str() == name).flat_map(|row| row.fields.keys());
        for field in filled {
            assert!(columns.contains(&field.as_str()), "{name} has no {field}");
        }
    }
    let of_all = [Part::Device, Part::Connection, Part::Firmware];
    let known: BTreeSet<&str> = of_all.into_iter().flat_map(columns_of).map(|(column, _)| *column).collect();
    assert_eq!(known.len(), COLUMNS.len(), "each column is in some table");
}
