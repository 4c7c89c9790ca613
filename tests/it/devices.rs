//! Devices, from the sensor's lines to CIs: each once, only what has changed, and what keeps one from being told is said
//! with what to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::{Clock, ManualClock, SystemClock};
use otrelay::destination::{Destination, DeviceOrder};
use otrelay::model::Device;
use otrelay::servicenow::cmdb;
use otrelay::simulator::{Fault, Options, Running};
use serde_json::{Value, json};

use crate::support::agent::{Agent, CRITICAL};
use crate::support::console::{Console, TOKEN};
use crate::support::{eve, simulator, simulator_with, values};

const SOON: Duration = Duration::from_millis(1);
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

/// Contract, section 9.3: a type of Defender for IoT, and the class without its `cmdb_ci_`.
const CLASSES: &str = "PLC=ot_plc RTU=ot_rtu DCS Controller=ot_dcs IED=ot_ied HMI=ot_hmi Engineering Station=ot_ews \
    Historian=ot_historian Robot Controller=ot_control Alarm System=ot_control Slot=ot_control_module \
    Industrial Robot=ot_industrial_robot Meter=ot_industrial_sensor Servo Drive=ot_industrial_actuator \
    Pneumatic Device=ot_industrial_actuator Variable Frequency Drive=ot_industrial_drive \
    Industrial Packaging System=ot_field_device Industrial Scale=ot_field_device Unknown=ot Unclassified=ot \
    Flux Capacitor=ot Switch=ip_switch Router=ip_router Firewall=ip_firewall Wireless Access Point=wap_network \
    WLAN Access Point=wap_network Protocol Converter=netgear VPN Gateway=netgear Multicast/Broadcast=netgear \
    Wifi Pineapple=netgear Server=server DB Server=server Backup Server=server NTP Server=server \
    Domain Controller=server Storage=server Workstation=computer Terminal Station=computer IP Camera=ip_camera \
    IP Telephone=ip_phone Printer=printer UPS=ups HVAC=hvac Smart Phone=handheld_computing \
    Tablet=handheld_computing Smart TV=stv Game console=game_console Alarm Siren=iot ATM=iot Barcode Scanner=iot \
    Door Control Panel=iot DVR=iot Elevator=iot Fire Alarm=iot Fire Detector=iot Humidity Sensor=iot Intercom=iot \
    Marquee=iot Motion Detector=iot People Counter=iot Punch Clock=iot Smart Light=iot Smart Switch=iot \
    Thermostat=iot Turnstile=iot I/O Adapter=network_adapter";

/// `Name of several words=class`, one after the other.
fn classes() -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut name: Vec<&str> = Vec::new();
    for word in CLASSES.split_whitespace() {
        match word.split_once('=') {
            Some((last, class)) => {
                name.push(last);
                all.push((name.join(" "), format!("cmdb_ci_{class}")));
                name.clear();
            }
            None => name.push(word),
        }
    }
    all
}

fn told(n: u32, kind: &str, system: Option<&str>) -> DeviceOrder {
    let device = Device {
        name: Some(format!("device {n}")),
        kind: Some(kind.to_owned()),
        operating_system: system.map(str::to_owned),
        macs: vec![mac(n)],
        macs_are_own: true,
        ..Device::default()
    };
    DeviceOrder { key: format!("d{n}"), device, is_known: false, peers: Vec::new() }
}

#[tokio::test]
async fn each_type_and_each_operating_system_of_the_contract_becomes_a_ci_of_its_class() {
    let simulator = crate::servicenow::start(Options::default()).await;
    let destination = crate::servicenow::destination_of_devices(
        &simulator,
        cmdb::Settings {
            agent: "agent".to_owned(),
            sensor: "sensor".to_owned(),
            data_source: "otrelay".to_owned(),
            class_map: BTreeMap::new(),
            on_deleted: cmdb::OnDeleted::Note,
            import: None,
        },
    );
    let systems =
        ["Linux", "AIX", "ESX", "HP-UX", "Hyper-V", "Solaris", "OSX", "Unix", "Windows Server", "Windows"];
    let names = ["linux", "aix", "esx", "hpux", "hyper_v", "solaris", "osx", "unix", "win"];
    let by_system = names.map(|name| format!("cmdb_ci_{name}_server"));
    let by_system = by_system.into_iter().chain(["cmdb_ci_computer".to_owned()]);
    let of_system = systems.into_iter().map(|system| ("Server".to_owned(), Some(system)));
    let (kinds, of_kind): (Vec<_>, Vec<_>) =
        classes().into_iter().map(|(kind, class)| ((kind, None), class)).unzip();
    let kinds: Vec<(String, Option<&str>)> = kinds.into_iter().chain(of_system).collect();
    let expected: Vec<String> = of_kind.into_iter().chain(by_system).collect();
    let orders: Vec<DeviceOrder> =
        kinds.iter().zip(0..).map(|((kind, system), n)| told(n, kind, *system)).collect();
    let mut got = Vec::new();
    while got.len() < orders.len() {
        let sent = destination.put_devices(&orders[got.len()..], u32::MAX).await.unwrap();
        for outcome in sent.outcomes {
            let put = outcome.unwrap_or_else(|e| panic!("{:?}: {}", kinds[got.len()], e.message));
            assert!(put.created && put.sys_id.is_some(), "{:?}", kinds[got.len()]);
            got.push(put.class);
        }
    }
    assert_eq!(expected.len(), 75);
    for ((kind, got), expected) in kinds.iter().zip(&got).zip(&expected) {
        assert_eq!(got, expected, "{kind:?}");
        assert!(!simulator.records(expected).is_empty(), "{expected}");
    }
}

#[test]
fn what_talks_is_connected_there_once_and_the_sensor_detects_it() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    // Each in a sync of its own: the second finds the client, which was told before it.
    for lines in [arp(5), identity(1, "1756-L61/B"), identity(2, "1756-L61/B")] {
        agent.feed(lines);
        agent.once().ends(0);
    }
    let id = |name: &str| {
        let all = [simulator.records("cmdb_ci_ot"), simulator.records("cmdb_ci_ot_plc")].concat();
        all.iter().find(|ci| ci.get("name") == name).map(|ci| ci.get("sys_id").to_owned()).unwrap()
    };
    let relations = |kind: &str| -> Vec<(String, String)> {
        let all = simulator.records("cmdb_rel_ci");
        let of = all.iter().filter(|row| row.get("type") == kind);
        of.map(|row| (row.get("parent").to_owned(), row.get("child").to_owned())).collect()
    };
    let client = id("10.99.0.1");
    assert_eq!(
        relations("Connects to::Connected by"),
        [(client.clone(), id(&ip(1))), (client.clone(), id(&ip(2)))],
        "the client begins"
    );
    let detects = relations("Detects::Detected by");
    assert_eq!(detects.len(), 4);
    assert!(detects.iter().all(|(parent, _)| *parent == simulator.records("cmdb_ci_nids")[0].get("sys_id")));
    let pairs = values(&simulator, "cmdb_key_value_v2", "key");
    assert_eq!(pairs.iter().filter(|key| **key == "connection 10.99.0.1").count(), 2, "{pairs:?}");
    assert!(pairs.contains(&format!("connection {}", ip(2))));
}

#[test]
fn a_lost_answer_and_a_lost_database_double_nothing() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    agent.feed((0..30).map(arp).collect::<String>());
    simulator.add_fault("commit-cut=20".parse::<Fault>().unwrap().times(1).on("POST", PATH));
    let said = agent.once_by_hours(&simulator, SOON);
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
    let adapters = || values(&simulator, "cmdb_ci_network_adapter", "mac_address");
    agent.once_at(Arc::new(SystemClock), SOON, Duration::ZERO, || adapters().len() == 1);
    assert_eq!(adapters(), [mac(2)]);
    let status = agent.run(&["status"]);
    status.says("Invalid class name [cmdb_ci_nowhere]").says("class_map");
    agent.set_rules(&format!("{CRITICAL}{DEVICES}"));
    agent.run(&["queue", "retry", "1", "2", "3"]);
    agent.once_by_hours(&simulator, SOON);
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
    // The instance is asked what it would do, and a picture shows who talks to whom.
    let show = |id: &str| agent.run(&["devices", "show", id, "--query"]).ends(0);
    show(&ip(1)).says("cmdb_ci_ot_plc: INSERT, a new one");
    assert!(simulator.records("cmdb_ci").is_empty());
    let svg = agent.run(&["devices", "graph"]).ends(0).out;
    assert_eq!(svg.matches("class=\"talk\"").count(), 1, "{svg}");
    assert!(svg.contains("10.99.0.1 → ") && svg.contains("Level 1"), "{svg}");
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
    let alert = eve::alert(1).severity(1).set("src_ip", "192.0.2.9").set("dest_ip", ip(1));
    agent.feed(arp(1));
    agent.once().ends(0);
    agent.feed(format!("{}\n", alert.line()));
    agent.once().ends(0);
    let ci = &simulator.records("cmdb_ci_ot")[0];
    assert_eq!(values(&simulator, "incident", "cmdb_ci"), [ci.get("sys_id")]);
}

/// Staging tables whose transform maps coalesce on the key that each row carries.
fn staging() -> Running {
    staging_with(true)
}

fn staging_with(batch_api: bool) -> Running {
    let map = |name: &str, target: &str| format!("u_otrelay_{name}={target}:correlation_id").parse().unwrap();
    simulator_with(Options {
        tables: vec!["u_connections".to_owned(), "u_firmware".to_owned(), "u_plant".to_owned()],
        imports: vec![
            map("device", "u_plant"),
            map("connection", "u_connections"),
            map("firmware", "u_firmware"),
            "u_ci=cmdb_ci_ot:correlation_id".parse().unwrap(),
        ],
        batch_api,
        ..Options::default()
    })
}

const IMPORT: &str = "method = \"import-set\"\n";

#[test]
fn rows_of_devices_keep_the_hourly_budget_and_leave_what_is_kept_for_critical_alerts() {
    // A row a request; or as many as a claim in two to seven.
    for (more, limit, count) in [("", 100, 200), ("insert_multiple = true\n", 30, 2_000)] {
        let simulator = staging_with(false);
        let agent = agent(&simulator, &format!("{IMPORT}{more}")).requests_per_hour(limit);
        let alert = |n: u32| eve::alert(n).severity(1).set("dest_ip", "192.0.2.9").line();
        agent.feed(format!("{}\n", alert(1)));
        agent.once().ends(0);
        agent.feed((0..count).map(arp).collect::<String>());
        agent.once().ends(75).says(&format!("`requests_per_hour = {limit}`: ")).says("the rest goes on at ");
        let requests = simulator.requests();
        assert!(requests <= u64::from(limit - limit / 10), "{requests} requests {more}");
        let there = simulator.records("u_plant").len();
        assert!((1..count as usize).contains(&there), "{there} devices {more}");
        if more.is_empty() {
            agent.feed(format!("{}\n", alert(2)));
            let said = agent.once();
            let incidents = simulator.records("incident").len();
            assert_eq!(incidents, 2, "a critical alert has its requests: {} {}", said.out, said.err);
        }
        assert!(simulator.requests() <= u64::from(limit), "{} requests {more}", simulator.requests());
        // The next hour goes on at once: this sync was not over.
        let later = ManualClock::at(SystemClock.now().after(Duration::from_mins(61)));
        let more_there = || simulator.records("u_plant").len() > there;
        agent.once_at(later, Duration::from_millis(1), Duration::from_millis(1), more_there);
        assert!(simulator.requests() <= 2 * u64::from(limit), "{} requests {more}", simulator.requests());
    }
}

#[test]
fn a_device_whose_rows_are_more_than_an_hours_requests_is_told_all_the_same() {
    let simulator = staging_with(false);
    let agent = agent(&simulator, IMPORT).requests_per_hour(2);
    // Two rows of the client, and each time a log-in; then three of the controller.
    agent.feed(identity(1, "1756-L61/B"));
    agent.once().ends(75);
    assert_eq!((simulator.requests(), simulator.records("u_plant").len()), (3, 1));
    let later = ManualClock::at(SystemClock.now().after(Duration::from_mins(61)));
    let all = || simulator.records("u_firmware").len() == 1;
    agent.once_at(later, Duration::from_millis(1), Duration::from_millis(1), all);
    assert_eq!((simulator.records("u_plant").len(), simulator.records("u_connections").len()), (2, 1));
}

#[test]
fn an_import_set_gets_rows_of_devices_connections_and_firmware_each_once() {
    for more in ["", "insert_multiple = true\n"] {
        let simulator = staging();
        let agent = agent(&simulator, &format!("{IMPORT}{more}"));
        let lines =
            || [identity(1, "1756-L61/B"), identity(2, "1756-L61/B"), (10..40).map(arp).collect()].concat();
        agent.feed(lines());
        // Rows were taken, and the answer is lost: they are sent again.
        simulator.add_fault("commit-cut=20".parse::<Fault>().unwrap().times(1).on("POST", "/api/now/import"));
        let said = agent.once_by_hours(&simulator, SOON);
        assert_eq!((simulator.faults_fired(), said.devices.dead, said.devices.again), (1, 0, 0), "{said:?}");
        let devices = simulator.records("u_plant");
        let plc = devices.iter().find(|row| row.get("serial") == "00C0FFEF").unwrap();
        assert_eq!((plc.get("ip_addresses"), plc.get("class")), (ip(1).as_str(), "cmdb_ci_ot_plc"), "{more}");
        assert_eq!((plc.get("protocols"), plc.get("vendor")), ("EtherNet/IP", "Rockwell Automation"));
        assert_eq!(devices.len(), 33, "{more}");
        let mut connections: Vec<(String, String)> = simulator
            .records("u_connections")
            .iter()
            .map(|row| (row.get("source_ip").to_owned(), row.get("destination_ip").to_owned()))
            .collect();
        connections.sort();
        let client = || "10.99.0.1".to_owned();
        assert_eq!(connections, [(client(), ip(1)), (client(), ip(2))], "both ends say the same one");
        assert_eq!(values(&simulator, "u_connections", "direction"), ["One Way", "One Way"]);
        let firmware = simulator.records("u_firmware");
        assert_eq!((firmware.len(), firmware[0].get("version")), (2, "20.11"), "{more}");
        // Nothing has changed; then one thing has.
        let before = simulator.ledger().len();
        agent.feed(lines());
        assert_eq!(report(&agent), json!({"created": 0, "updated": 0, "again": 0, "dead": 0}));
        let imported = |from: usize| {
            simulator.ledger()[from..]
                .iter()
                .filter(|entry| entry.path.starts_with("/api/now/import"))
                .count()
        };
        assert_eq!(imported(before), 0, "{more}");
        agent.feed(identity(1, "1756-L85E"));
        assert_eq!(report(&agent)["updated"], json!(1));
        assert_eq!(simulator.records("u_plant").len(), 33);
    }
}

#[test]
fn columns_and_tables_have_the_names_of_the_instance_and_a_ci_of_a_transform_is_linked() {
    let simulator = staging();
    let own = "[devices.tables]\ndevice = \"u_ci\"\nconnection = \"\"\nfirmware = \"\"\n\
               [devices.columns]\nserial = \"serial_number\"\n";
    let mut agent = agent(&simulator, &format!("{IMPORT}{own}"));
    agent.feed(identity(1, "1756-L61/B"));
    agent.once().ends(0);
    assert_eq!(values(&simulator, "cmdb_ci_ot", "serial_number"), ["", "00C0FFEF"]);
    let payload = agent.run(&["devices", "show", &ip(1), "--payload"]).ends(0).json();
    assert_eq!(payload["u_ci"][0]["serial_number"], json!("00C0FFEF"));
    let alert = eve::alert(1).severity(1).set("src_ip", "192.0.2.9").set("dest_ip", ip(1));
    agent.feed(format!("{}\n", alert.line()));
    agent.once().ends(0);
    assert_eq!(values(&simulator, "incident", "cmdb_ci"), [simulator.records("cmdb_ci_ot")[1].get("sys_id")]);
    // Another way there: what was told by the one says nothing of the other.
    agent.set_rules(&format!("{CRITICAL}{DEVICES}"));
    agent.once().ends(0);
    assert_eq!(values(&simulator, "cmdb_ci_ot_plc", "name").len(), 1);
}

#[test]
fn a_transform_that_fails_is_a_dead_letter_and_a_table_that_is_not_there_holds_them() {
    for more in ["", "insert_multiple = true\n"] {
        let simulator = simulator_with(Options {
            imports: vec!["u_otrelay_device=u_nowhere".parse().unwrap()],
            ..Options::default()
        });
        let only = "[devices.tables]\nconnection = \"\"\nfirmware = \"\"\n";
        let mut agent = agent(&simulator, &format!("{IMPORT}{more}{only}"));
        agent.feed(arp(1));
        agent.once().ends(75);
        agent.run(&["status"]).says("Invalid table");
        agent.set_rules(&format!("{CRITICAL}{DEVICES}{IMPORT}{more}tables = {{ device = \"u_absent\" }}\n"));
        agent.once().ends(75);
        agent.run(&["status"]).says("u_absent");
    }
}

#[test]
fn a_ticket_that_came_before_its_device_is_linked_later_once_and_by_nobody_elses_word() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    let alert = |n: u32, target: u32| {
        let alert = eve::alert(n).severity(1).set("src_ip", "192.0.2.9").set("dest_ip", ip(target));
        format!("{}\n", alert.line())
    };
    agent.feed([alert(1, 1), alert(2, 2), alert(3, 3)].concat());
    agent.once().ends(0);
    assert_eq!(values(&simulator, "incident", "cmdb_ci"), ["", "", ""]);
    // Meanwhile a person names one, and closes another.
    let incident = |n: usize| simulator.records("incident")[n].get("sys_id").to_owned();
    assert!(simulator.edit("incident", &incident(1), &[("cmdb_ci", &"c".repeat(32))]));
    let closed = [("state", "7"), ("close_code", "User error"), ("close_notes", "-")];
    assert!(simulator.edit("incident", &incident(2), &closed));
    agent.feed((1..4).map(arp).collect::<String>());
    // The answer to the change is lost.
    simulator
        .add_fault("commit-cut=20".parse::<Fault>().unwrap().times(1).on("PATCH", "/api/now/table/incident"));
    agent.once_here(Duration::from_millis(1));
    agent.once().ends(0);
    assert_eq!(simulator.faults_fired(), 1);
    let macs = simulator.records("cmdb_ci_network_adapter");
    let ci = macs.iter().find(|row| row.get("mac_address") == mac(1)).unwrap().get("cmdb_ci");
    let mut expected = ["", ci, &"c".repeat(32)];
    expected.sort_unstable();
    assert_eq!(values(&simulator, "incident", "cmdb_ci"), expected);
    let patches = || simulator.ledger().iter().filter(|entry| entry.method == "PATCH").count();
    let before = patches();
    assert!(before <= 2, "{before}");
    agent.feed(identity(1, "1756-L61/B"));
    agent.once().ends(0);
    assert_eq!((patches(), simulator.records("incident").len()), (before, 3), "once is enough");
}

/// The data source of a Service Graph Connector, which the simulator knows.
const CONNECTOR: &str = "SG-OTDefender";

#[test]
fn another_integration_on_the_same_instance_is_named_and_not_fought() {
    let simulator = simulator_with(Options {
        properties: vec![("simulator.cmdb.precedence".to_owned(), format!("{CONNECTOR},otrelay"))],
        ..Options::default()
    });
    let agent = agent(&simulator, "");
    let doctor = || agent.run(&["doctor"]);
    doctor().says("skipped prod: other integrations: no CI there is from otrelay yet");
    // The connector was there first: a CI with this MAC, a name and a maker of its own, and its row beside it.
    let plant = |table: &str, fields: &[(&str, &str)]| simulator.plant(table, fields).unwrap();
    let ci = plant("cmdb_ci_ot_plc", &[("name", "PLC of the connector"), ("manufacturer", "Siemens")]);
    let (mac, ip) = (mac(1), ip(1));
    plant("cmdb_ci_network_adapter", &[("name", &mac), ("mac_address", &mac), ("cmdb_ci", &ci)]);
    let target = ("target_table", "cmdb_ci_ot_plc");
    plant("sys_object_source", &[("name", CONNECTOR), ("id", "4711"), ("target_sys_id", &ci), target]);

    agent.feed([arp(1), arp(2), identity(1, "1756-L61/B")].concat());
    agent.once().ends(0);
    let plcs = simulator.records("cmdb_ci_ot_plc");
    let get = |field: &str| plcs[0].get(field).to_owned();
    assert_eq!((plcs.len(), get("sys_id")), (1, ci.clone()), "it is the same CI");
    let attributes = (get("name"), get("manufacturer"), get("model_number"));
    let (name, maker, model) = ("PLC of the connector", "Siemens", "1756-L61/B");
    assert_eq!(attributes, (name.to_owned(), maker.to_owned(), model.to_owned()), "only what was empty");
    let status = agent.run(&["status"]).ends(0);
    status.says("`SG-OTDefender` tells the CMDB of ").says(&ci).says("reconciliation rules of cmdb_ci");
    doctor().says("warn    prod: other integrations: `SG-OTDefender` tells").says("docs/devices.md");

    // What the other one keeps is not sent again while the device itself does not change.
    let before = simulator.requests();
    for _ in 0..2 {
        agent.run(&["sync"]).ends(0);
    }
    let paths =
        || simulator.ledger().iter().skip(before as usize).map(|e| e.path.clone()).collect::<Vec<_>>();
    assert!(paths().iter().all(|path| !path.contains("identifyreconcile")), "{ip}: {:?}", paths());

    // It is said as long as it is so, also by processes that found nothing new: each `sync` above was one.
    agent.run(&["status"]).ends(0).says("`SG-OTDefender` tells the CMDB of ");
    let rows = simulator.records("sys_object_source");
    let theirs: Vec<_> = rows.iter().filter(|row| row.get("name") == CONNECTOR).collect();
    assert_eq!(theirs.len(), 1);
    assert!(simulator.delete("sys_object_source", theirs[0].get("sys_id")));
    agent.run(&["sync"]).ends(0);
    let status = agent.run(&["status"]).ends(0);
    assert!(!status.out.contains("tells the CMDB"), "{}", status.out);
    let before = simulator.requests();
    agent.run(&["sync"]).ends(0);
    assert_eq!(simulator.requests(), before, "nothing is looked at when there is nothing to take back");
}

#[test]
fn what_is_said_of_devices_ends_when_they_are_not_pushed_any_more() {
    let simulator = simulator();
    let mut agent = agent(&simulator, "");
    let ci = simulator.plant("cmdb_ci_ot_plc", &[("name", "theirs")]).unwrap();
    let mac = mac(1);
    simulator.plant("cmdb_ci_network_adapter", &[("mac_address", &mac), ("cmdb_ci", &ci)]).unwrap();
    let row = [("name", CONNECTOR), ("id", "1"), ("target_sys_id", &ci), ("target_table", "cmdb_ci_ot_plc")];
    simulator.plant("sys_object_source", &row).unwrap();
    agent.feed([arp(1), identity(1, "1756-L61/B")].concat());
    agent.once().ends(0);
    agent.run(&["status"]).says("tells the CMDB of ");
    agent.set_rules(&format!("{CRITICAL}[devices]\nenabled = false\nservicenow = \"prod\"\n"));
    agent.once().ends(0);
    assert_eq!(agent.status()["health"], json!([]));
}

#[test]
fn what_an_instance_does_not_have_is_not_asked_for_again_by_each_process() {
    let simulator = simulator_with(Options { batch_api: false, ..Options::default() });
    simulator.add_fault("status=404".parse::<Fault>().unwrap().on("POST", PATH));
    let agent = agent(&simulator, "");
    let asked = |path: &str| simulator.ledger().iter().filter(|entry| entry.path.starts_with(path)).count();
    let mut batches = Vec::new();
    for from in [0, 50] {
        agent.feed((from..from + 30).map(arp).collect::<String>());
        agent.feed(eve::alerts(from..from + 30));
        agent.once().ends(0);
        batches.push(asked("/api/now/v1/batch"));
    }
    // Those that were under way together were refused together.
    assert!(batches[0] > 0 && batches[1] == batches[0], "the second process knows: {batches:?}");
    assert_eq!(asked(PATH), 1);
    assert_eq!(simulator.records("incident").len(), 60);
}

#[test]
fn an_instance_that_otrelay_alone_tells_has_no_other_integration() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    agent.feed(arp(1));
    agent.once().ends(0);
    agent.run(&["doctor"]).says("ok      prod: other integrations: no other data source");
    assert!(!agent.run(&["status"]).out.contains("tells the CMDB"));
}

/// From the wire of each source to the CIs.
#[test]
fn one_plc_of_three_sources_is_one_ci_and_a_shared_mac_or_a_moved_address_makes_none_of_two() {
    let (simulator, console) = (simulator(), Console::start(false));
    console.state().devices = vec![
        json!({"id": 7, "name": "PLC-7", "type": "PLC", "ipAddresses": [ip(7)], "macAddresses": [mac(7)]}),
    ];
    let agent = Agent::new(&simulator);
    let zeek = agent.log("known_*.log").display().to_string();
    let agent = agent.rules(&format!(
        "[[source]]\nname = \"zeek\"\nkind = \"zeek\"\npath = \"{zeek}\"\n\
         [[source]]\nname = \"sensor\"\nkind = \"defender-sensor\"\nurl = \"{}\"\ntoken = \"{TOKEN}\"\n\
         {CRITICAL}{DEVICES}",
        console.url()
    ));
    let header = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tknown_devices\n#fields\tts\tmac\tdhcp_host_name\n";
    agent.feed_to("known_devices.log", format!("{header}1795248900.0\t{}\t-\n", mac(7)));
    // Two behind one router, which shows its own MAC for both.
    let behind = |n| arp(n).replace(&mac(n), &mac(99));
    agent.feed(
        [arp(7), identity(7, "1756-L61/B"), behind(8), identity(8, "a"), behind(9), identity(9, "b")]
            .concat(),
    );
    agent.once().ends(0);
    let plcs = || ["name", "serial_number"].map(|field| values(&simulator, "cmdb_ci_ot_plc", field));
    let before = plcs();
    assert_eq!(before[0].len(), 3, "{before:?}");
    assert_eq!(before[0].iter().filter(|name| *name == "PLC-7").count(), 1, "{before:?}");
    assert_eq!(
        values(&simulator, "cmdb_ci_network_adapter", "mac_address").iter().filter(|m| **m == mac(7)).count(),
        1
    );
    let known = agent.json(&["devices", "show", &ip(7)]);
    let mut by: Vec<&str> =
        known["sources"].as_array().unwrap().iter().map(|word| word["source"].as_str().unwrap()).collect();
    by.sort_unstable();
    by.dedup();
    assert_eq!(by, ["eve", "sensor", "zeek"], "{known:#}");

    // Its address goes to another one, by DHCP.
    let lease = |n: u32, to: u32, name: &str| {
        let told = json!({"type": "reply", "client_mac": mac(n), "assigned_ip": ip(to), "dhcp_type": "ack", "hostname": name});
        format!(
            "{}\n",
            json!({"timestamp": "2026-11-21T08:16:00.000000+0000", "event_type": "dhcp", "dhcp": told})
        )
    };
    agent.feed(lease(7, 70, "plc-7") + &lease(71, 7, "laptop"));
    agent.once().ends(0);
    assert_eq!(plcs(), before, "no PLC has another name or serial number");
    assert!(values(&simulator, "cmdb_ci_ot", "name").contains(&"laptop".to_owned()));
}

#[test]
fn recorded_lines_give_the_devices_types_and_protocols_that_were_counted_by_hand() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    let zeek = agent.log("*.log").display().to_string();
    agent.append_config(&format!("\n[[source]]\nname = \"zeek\"\nkind = \"zeek\"\npath = \"{zeek}\"\n"));
    let fixture = |name: &str| {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/inventory");
        std::fs::read_to_string(dir.join(name)).unwrap()
    };
    agent.feed(fixture("eve.json"));
    for name in ["modbus.log", "known_devices.log"] {
        agent.feed_to(name, fixture(name));
    }
    agent.once().ends(0);
    let devices = agent.json(&["devices"]);
    let mut counted = BTreeMap::from([("devices".to_owned(), devices.as_array().unwrap().len())]);
    for device in devices.as_array().unwrap().iter().map(|row| &row["device"]) {
        let protocols = device["protocols"].as_array().into_iter().flatten();
        let protocols = protocols.map(|name| format!("protocol {}", name.as_str().unwrap()));
        for name in protocols.chain(device["kind"].as_str().map(|kind| format!("type {kind}"))) {
            *counted.entry(name).or_default() += 1;
        }
    }
    let counted: Vec<String> = counted.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let by_hand = fixture("counted.txt");
    let mut by_hand: Vec<&str> = by_hand.lines().collect();
    by_hand.sort_unstable();
    assert_eq!(counted, by_hand);
}
