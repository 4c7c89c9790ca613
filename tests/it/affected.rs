//! Whose CI a ticket names: that of the device the alert went to, by its MAC, its address of DHCP or its name, as Zeek's
//! logs know it; never that of the attacker in its place.

use otrelay::simulator::{Fault, Running};
use serde_json::{Value, json};

use crate::support::agent::{Agent, CRITICAL};
use crate::support::simulator;

const A: &str = "00:1b:1b:44:55:66";
const B: &str = "00:1b:1b:00:00:01";

fn agent(simulator: &Running, more: &str) -> Agent {
    let agent = Agent::new(simulator);
    let (log, json) = (agent.log("*.log"), agent.log("*.jsonl"));
    agent.rules(&format!(
        "[[source]]\nname = \"zeek\"\nkind = \"zeek\"\npath = \"{}\"\n\
         [[source]]\nname = \"files\"\nkind = \"json-lines\"\npath = \"{}\"\n{CRITICAL}{more}",
        log.display(),
        json.display()
    ))
}

fn zeek(agent: &Agent, path: &str, fields: &str, rows: &[&str]) {
    let tabs = |text: &str| text.replace(' ', "\t");
    let rows: String = rows.iter().map(|row| tabs(row) + "\n").collect();
    let head =
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tPATH\n#fields\t";
    let head = head.replace("PATH", path);
    agent.feed_to(&format!("{path}.log"), format!("{head}{}\n{rows}", tabs(fields)));
}

/// Both are known: A, a PLC, and B.
fn learn(agent: &Agent) {
    let a = format!("1.0 {A} 10.9.9.9 mixer");
    let b = format!("1.0 {B} 10.9.9.1 -");
    zeek(agent, "known_devices", "ts mac host host_name", &[&a, &b]);
    let arp = format!("1.0 {B} 10.9.9.1");
    zeek(agent, "arp", "ts src_mac src_ip", &[&arp]);
    agent.once().ends(0);
}

/// The CI of the one ticket that this alert makes.
fn ci(agent: &Agent, simulator: &Running, n: u32, source: &Value, destination: &Value) -> String {
    let title = format!("finding {n}");
    let alert = json!({"title": title, "severity": "critical", "source": source, "destination": destination});
    agent.feed_to("alerts.jsonl", format!("{alert}\n"));
    agent.once().ends(0).says("1 ticket created");
    let all = simulator.records("incident");
    let ticket = all.iter().find(|row| row.get("short_description").contains(&title)).unwrap();
    ticket.get("cmdb_ci").to_owned()
}

fn ci_of(simulator: &Running, mac: &str) -> String {
    let macs = simulator.records("cmdb_ci_network_adapter");
    macs.iter().find(|row| row.get("mac_address") == mac).unwrap().get("cmdb_ci").to_owned()
}

#[test]
fn a_ticket_names_the_target_by_its_mac_its_lease_or_its_name() {
    let simulator = simulator();
    let agent = agent(&simulator, "\n[devices]\nservicenow = \"prod\"\n");
    learn(&agent);
    let (a, b) = (ci_of(&simulator, A), ci_of(&simulator, B));
    let of = |n, source, destination| ci(&agent, &simulator, n, &source, &destination);
    assert_eq!(of(1, json!({"ip": "10.9.9.1"}), json!({"mac": A})), a);
    assert_eq!(of(2, json!({"mac": B}), json!({"mac": A})), a);
    assert_eq!(of(3, json!({}), json!({"name": "MIXER"})), a);
    assert_eq!(of(4, json!({"ip": "10.9.9.1"}), json!({"ip": "10.9.9.200"})), "", "nobody knows the target");
    assert_eq!(of(5, json!({"ip": "10.9.9.1"}), json!({})), b, "it went to nobody");
    let lease = format!("1.0 10.9.9.9 {A} mixer");
    zeek(&agent, "dhcp", "ts assigned_addr mac host_name", &[&lease]);
    agent.once().ends(0);
    assert_eq!(of(6, json!({"ip": "10.9.9.1"}), json!({"ip": "10.9.9.9", "mac": A})), a);
    assert_eq!(of(7, json!({"ip": "10.9.9.1"}), json!({"ip": "10.9.9.9"})), a);
}

#[test]
fn a_ticket_waits_for_its_target_and_is_not_linked_to_its_sender() {
    let simulator = simulator();
    let agent = agent(&simulator, "\n[devices]\nservicenow = \"prod\"\n");
    let source = json!({"ip": "10.9.9.1"});
    assert_eq!(ci(&agent, &simulator, 1, &source, &json!({"mac": A})), "");
    assert_eq!(ci(&agent, &simulator, 2, &source, &json!({"name": "mixer"})), "");
    assert_eq!(ci(&agent, &simulator, 3, &source, &json!({"ip": "10.9.9.200"})), "");
    learn(&agent);
    agent.once().ends(0);
    let a = ci_of(&simulator, A);
    let mut all: Vec<String> =
        simulator.records("incident").iter().map(|row| row.get("cmdb_ci").to_owned()).collect();
    all.sort();
    assert_eq!(all, [String::new(), a.clone(), a]);
}

/// Looks at the CIs there.
fn asked(simulator: &Running) -> Vec<String> {
    let ledger = simulator.ledger();
    let looks = ledger.iter().filter(|entry| entry.method == "GET" && entry.path == "/api/now/table/cmdb_ci");
    looks.map(|entry| entry.query.clone()).collect()
}

/// A PLC in the CMDB that somebody else maintains.
fn plant(simulator: &Running, name: &str, ip: &str, mac: &str) -> String {
    let fields = [("name", name), ("ip_address", ip), ("mac_address", mac)];
    simulator.plant("cmdb_ci_ot_plc", &fields).unwrap()
}

#[test]
fn where_no_devices_are_told_the_ci_is_looked_up_by_address_mac_or_name_many_at_a_time() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    let a = plant(&simulator, "Mixer", "10.9.9.9", "00-1B-1B-44-55-66");
    let b = plant(&simulator, "Attacker", "10.9.9.1", "");
    plant(&simulator, "Twin", "10.9.9.4", "");
    plant(&simulator, "Twin", "10.9.9.4", "");
    simulator
        .plant("cmdb_ci_network_adapter", &[("name", A), ("mac_address", A), ("ip_address", "10.9.9.9")]);
    let source = json!({"ip": "10.9.9.1"});
    let targets = [
        (json!({"ip": "10.9.9.9"}), &a),
        (json!({"mac": A}), &a),
        (json!({"name": "mixer"}), &a),
        (json!({"ip": "10.9.9.4"}), &String::new()),
        (json!({"ip": "10.9.9.200", "name": "nobody"}), &String::new()),
        (json!({}), &b),
    ];
    for (n, (target, _)) in targets.iter().enumerate() {
        let title = format!("finding {n}");
        let alert = json!({"title": title, "severity": "critical", "source": source, "destination": target});
        agent.feed_to("alerts.jsonl", format!("{alert}\n"));
    }
    agent.once().ends(0).says("6 tickets created");
    let all = simulator.records("incident");
    for (n, (target, expected)) in targets.iter().enumerate() {
        let title = format!("finding {n}");
        let ticket = all.iter().find(|row| row.get("short_description").contains(&title)).unwrap();
        assert_eq!(ticket.get("cmdb_ci"), expected.as_str(), "{target}");
    }
    let looks = asked(&simulator);
    assert_eq!(looks.len(), 1, "{looks:?}");
    // The operator's own word stands.
    let own = "[rule.action.fields]\ncmdb_ci = \"cccccccccccccccccccccccccccccccc\"\n";
    let agent = self::agent(&simulator, own);
    assert_eq!(ci(&agent, &simulator, 77, &source, &json!({"ip": "10.9.9.9"})), "c".repeat(32));
}

#[test]
fn a_cmdb_that_may_not_be_read_holds_no_ticket_and_what_is_redacted_is_not_asked_for() {
    let simulator = simulator();
    let agent = agent(&simulator, "");
    let a = plant(&simulator, "Mixer", "10.9.9.9", A);
    let (source, target) = (json!({"ip": "10.9.9.1"}), json!({"ip": "10.9.9.9"}));
    for fault in ["status=403", "status=500", "truncated-json"] {
        simulator.add_fault(fault.parse::<Fault>().unwrap().on("GET", "/api/now/table/cmdb_ci"));
        let number = asked(&simulator).len() as u32;
        assert_eq!(ci(&agent, &simulator, number, &source, &target), "", "{fault}");
        simulator.clear_faults();
    }
    assert_eq!(ci(&agent, &simulator, 90, &source, &target), a);
    let before = asked(&simulator).len();
    let redacted = "[[redact]]\nfields = [\"destination.ip\"]\nas = \"remove\"\n";
    let agent = self::agent(&simulator, redacted);
    assert_eq!(ci(&agent, &simulator, 91, &source, &target), "");
    assert_eq!(asked(&simulator).len(), before, "neither the target nor, in its place, the sender");
}
