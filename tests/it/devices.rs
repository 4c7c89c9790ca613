//! Devices, from the sensor's lines to CIs: each once, only what has changed, and what keeps one from being told is said
//! with what to do.

use std::time::Duration;

use otrelay::simulator::{Fault, Running};
use serde_json::{Value, json};

use crate::support::agent::{Agent, CRITICAL};
use crate::support::{simulator, values};

const DEVICES: &str = "\n[devices]\nservicenow = \"prod\"\n";
const PATH: &str = "/api/now/identifyreconcile/enhanced";

fn agent(simulator: &Running, more: &str) -> Agent {
    Agent::new(simulator).rules(&format!("{CRITICAL}{DEVICES}{more}"))
}

fn mac(n: u32) -> String {
    format!("00:1b:1b:{:02x}:{:02x}:{:02x}", n >> 16, n >> 8 & 0xff, n & 0xff)
}

fn ip(n: u32) -> String {
    format!("10.{}.{}.{}", n / 62_500, n / 250 % 250, n % 250 + 1)
}

/// A line of Suricata that names one device.
fn arp(n: u32) -> String {
    let arp = json!({"opcode": "request", "src_mac": mac(n), "src_ip": ip(n), "dest_mac": "00:00:00:00:00:00", "dest_ip": "10.0.0.1"});
    let line = json!({"timestamp": "2026-11-21T08:15:00.000000+0000", "event_type": "arp", "arp": arp});
    format!("{line}\n")
}

fn identity(n: u32, product: &str) -> String {
    let identity = json!({"vendor_id": "Rockwell Automation", "device_type": "Programmable Logic Controller",
        "product_name": product, "revision": "20.11", "serial": 12_648_430 + n});
    let line = json!({"timestamp": "2026-11-21T08:15:00.000000+0000", "event_type": "enip", "src_ip": "10.99.0.1",
        "src_port": 50_000, "dest_ip": ip(n), "dest_port": 44_818, "enip": {"response": {"identity": identity}}});
    format!("{line}\n")
}

fn puts(simulator: &Running) -> usize {
    simulator.ledger().iter().filter(|entry| entry.path.starts_with("/api/now/identifyreconcile")).count()
}

fn report(agent: &Agent) -> Value {
    serde_json::to_value(agent.once_here(Duration::from_millis(1)).devices).unwrap()
}

#[test]
fn a_first_sync_tells_all_a_second_none_and_a_third_what_has_changed() {
    const COUNT: u32 = 1_000;
    let simulator = simulator();
    let agent = agent(&simulator, "");
    agent.feed((0..COUNT).map(arp).collect::<String>());
    assert_eq!(report(&agent)["created"], json!(COUNT));
    assert_eq!(simulator.records("cmdb_ci_ot").len() as u32, COUNT);
    assert_eq!(values(&simulator, "cmdb_ci_network_adapter", "mac_address").len() as u32, COUNT);
    assert_eq!(simulator.records("cmdb_ci_nids").len(), 1);
    // Two items each, and the sensor; two hundred devices are claimed at a time.
    let first = puts(&simulator);
    assert!(first <= COUNT as usize / 24 + COUNT as usize / 200, "{first} requests");

    assert_eq!(report(&agent), json!({"created": 0, "updated": 0, "again": 0, "dead": 0}));
    assert_eq!(puts(&simulator), first, "nothing has changed, so nothing is sent");

    // One in a hundred says what it is; another asked it.
    agent.feed((0..COUNT / 100).map(|n| identity(n, "1756-L61/B")).collect::<String>());
    assert_eq!(report(&agent), json!({"created": 1, "updated": COUNT / 100, "again": 0, "dead": 0}));
    assert_eq!(puts(&simulator), first + 1);
    assert_eq!(
        simulator.records("cmdb_ci_ot_plc").len() as u32,
        COUNT / 100,
        "the same CIs in a better class"
    );
    assert_eq!(simulator.records("cmdb_ci_ot").len() as u32, COUNT + 1);
    let status = agent.status();
    assert_eq!((&status["devices"]["known"], &status["devices"]["changed"]), (&json!(COUNT + 1), &json!(0)));
    assert!(status["devices"]["last_sync"].is_string(), "{status}");
}

#[test]
fn a_lost_answer_and_a_lost_database_double_nothing() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    agent.feed((0..30).map(arp).collect::<String>());
    simulator.add_fault("commit-cut=20".parse::<Fault>().unwrap().times(1).on("POST", PATH));
    let said = agent.once_here(Duration::from_millis(1));
    assert_eq!((simulator.faults_fired(), said.devices.dead), (1, 0), "{said:?}");
    let all = |table: &str| simulator.records(table).len();
    let cis = || {
        (all("cmdb_ci_ot"), all("cmdb_ci_ip_address"), all("cmdb_ci_network_adapter"), all("cmdb_ci_nids"))
    };
    assert_eq!(cis(), (30, 30, 30, 1));
    let entities = all("cmdb_ot_entity");
    agent.lose_state();
    assert_eq!(report(&agent)["created"], json!(0), "the same keys find the same CIs");
    assert_eq!((cis(), all("cmdb_ot_entity")), ((30, 30, 30, 1), entities));
}

#[test]
fn an_unknown_data_source_holds_them_and_says_what_to_create() {
    let simulator = simulator();
    let mut agent = agent(&simulator, "data_source = \"nobody\"\n");
    agent.feed(arp(1));
    agent.once().ends(75).says("does not know the data source `nobody`");
    agent.run(&["status"]).says("add the choice `nobody` to the field discovery_source");
    assert!(simulator.records("cmdb_ci_ot").is_empty());
    agent.set_rules(&format!("{CRITICAL}{DEVICES}"));
    agent.once().ends(0);
    assert_eq!(values(&simulator, "cmdb_ci_network_adapter", "mac_address"), [mac(1)]);
}

#[test]
fn what_the_engine_refuses_is_a_dead_letter_with_its_words() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    // Two that were there before, by the name that this one has for want of another.
    agent.feed([arp(1), arp(2)].concat());
    agent.once().ends(0);
    for (record, name) in simulator.records("cmdb_ci_ot").iter().zip(["twin", "twin"]) {
        assert!(simulator.edit("cmdb_ci_ot", record.get("sys_id"), &[("name", name)]));
    }
    let lease = r#"{"event_type":"dhcp","dhcp":{"client_mac":"00:1b:1b:00:00:77","assigned_ip":"10.7.7.7","dhcp_type":"ack","hostname":"twin"}}"#;
    agent.feed([arp(3), format!("{lease}\n")].concat());
    agent.once().ends(1);
    let dead = agent.json(&["queue", "list", "--dead"]);
    assert_eq!((dead.as_array().unwrap().len(), &dead[0]["title"]), (1, &json!("twin")));
    let reason = dead[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("MULTIPLE_DUPLICATE_RECORDS") && reason.contains("Duplicate CI Remediator"),
        "{reason}"
    );
    let macs = values(&simulator, "cmdb_ci_network_adapter", "mac_address");
    assert_eq!(macs, [mac(1), mac(2), mac(3)], "the others of the request are there");
    // A person mends it there, and says so.
    assert!(simulator.edit(
        "cmdb_ci_ot",
        simulator.records("cmdb_ci_ot")[0].get("sys_id"),
        &[("name", "other")]
    ));
    agent.run(&["queue", "retry", "--all-dead"]).ends(0);
    agent.once().ends(0);
}

#[test]
fn a_class_that_is_not_there_waits_and_costs_the_others_nothing() {
    let simulator = simulator();
    let mut agent = agent(&simulator, "class_map = { PLC = \"cmdb_ci_nowhere\" }\n");
    agent.feed([identity(1, "1756-L61/B"), arp(2)].concat());
    agent.once().ends(75);
    assert_eq!(values(&simulator, "cmdb_ci_network_adapter", "mac_address"), [mac(2)]);
    let status = agent.run(&["status"]);
    status.says("Invalid class name [cmdb_ci_nowhere]").says("class_map");
    agent.set_rules(&format!("{CRITICAL}{DEVICES}"));
    agent.run(&["queue", "retry", "1", "2", "3"]);
    agent.once().ends(0);
    assert_eq!(values(&simulator, "cmdb_ci_ot_plc", "serial_number"), ["00C0FFEF"]);
}

#[test]
fn an_instance_without_the_enhanced_form_gets_the_plain_one() {
    let simulator = simulator();
    simulator.add_fault("status=404".parse::<Fault>().unwrap().on("POST", PATH));
    let agent = agent(&simulator, "");
    agent.feed(arp(1));
    agent.once().ends(0);
    assert_eq!(simulator.records("cmdb_ci_ot").len(), 1);
}

#[test]
fn a_dry_run_and_the_payload_show_what_would_be_sent_and_send_nothing() {
    let simulator = simulator();
    let mut agent = agent(&simulator, "");
    agent.feed([arp(1), identity(1, "1756-L61/B")].concat());
    // Taken in, not pushed.
    agent.set_sync("enabled = false");
    agent.once();
    let rows = agent.json(&["devices", "--type", "plc"]);
    let id = rows[0]["id"].as_str().unwrap();
    assert_eq!(rows[0]["from"]["vendor"]["source"], json!("eve"));
    let payload = agent.run(&["devices", "show", &ip(1), "--payload"]).ends(0).json();
    assert_eq!(payload["items"][0]["className"], json!("cmdb_ci_ot_plc"));
    agent.run(&["sync", "--dry-run"]).ends(0).says(id).says("cmdb_ci_ot_plc");
    assert!(simulator.records("cmdb_ci").is_empty());
    let csv = agent.run(&["devices", "--csv"]).ends(0);
    assert_eq!(csv.out.lines().count(), 3, "{}", csv.out);
    agent.run(&["devices", "show", "nothing"]).ends(1).says("there is no device nothing");
}

#[test]
fn without_the_table_devices_are_kept_and_not_pushed() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(arp(1));
    agent.once().ends(0);
    assert!(simulator.records("cmdb_ci").is_empty());
    assert_eq!(agent.json(&["devices"]).as_array().unwrap().len(), 1);
    agent.run(&["devices", "resync"]).ends(0).says("1 devices are told anew");
}

#[test]
fn an_incident_points_at_the_ci_of_the_device_it_is_about() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    let alert = crate::support::eve::alert(1).severity(1).set("src_ip", "192.0.2.9").set("dest_ip", ip(1));
    agent.feed(arp(1));
    agent.once().ends(0);
    agent.feed(format!("{}\n", alert.line()));
    agent.once().ends(0);
    let ci = &simulator.records("cmdb_ci_ot")[0];
    assert_eq!(values(&simulator, "incident", "cmdb_ci"), [ci.get("sys_id")]);
}
