//! From an EVE line to an incident: which, how many, with which fields and keys, and never twice.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::agent::{Agent, CRITICAL, NAME};
use crate::support::eve::{self, alert};
use crate::support::{assert_one_each, simulator, values};

/// The recording and what an independent script counted in it.
fn plant() -> (Vec<u8>, Value) {
    let at = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/eve").join(name);
    let expected = serde_json::from_slice(&fs::read(at("plant.expected.json")).unwrap()).unwrap();
    (fs::read(at("plant.json")).unwrap(), expected)
}

/// What the script counted as findings that are so.
fn findings(expected: &Value, is: impl Fn(&Value) -> bool) -> Vec<(String, u64)> {
    let each = expected["each"].as_array().unwrap();
    let mut found: Vec<(String, u64)> = each
        .iter()
        .filter(|finding| is(finding))
        .map(|finding| (finding["title"].as_str().unwrap().to_owned(), finding["alerts"].as_u64().unwrap()))
        .collect();
    found.sort();
    found
}

fn is_major(finding: &Value) -> bool {
    ["major", "critical"].contains(&finding["severity"].as_str().unwrap())
}

/// Title and number of sightings of each ticket that the agent knows.
fn tickets(agent: &Agent) -> Vec<(String, u64)> {
    let rows = agent.json(&["tickets", "-n", "0"]);
    let mut rows: Vec<(String, u64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["title"].as_str().unwrap().to_owned(), row["occurrences"].as_u64().unwrap()))
        .collect();
    rows.sort();
    rows
}

/// The recording under one rule makes these tickets.
#[track_caller]
fn check(conditions: &str, is: impl Fn(&Value) -> bool) {
    let (lines, expected) = plant();
    let simulator = simulator();
    let agent = Agent::new(&simulator)
        .rules(&format!("[[rule]]\nname = \"R\"\n{conditions}\n[[rule.action]]\nservicenow = \"prod\"\n"));
    agent.feed(lines);
    agent.once().ends(0);
    let wanted = findings(&expected, is);
    assert!(!wanted.is_empty());
    assert_eq!(tickets(&agent), wanted);
    assert_eq!(simulator.records("incident").len(), wanted.len());
    assert!(simulator.twins().is_empty());
}

#[test]
fn each_finding_that_a_rule_wants_has_one_incident_and_a_second_run_makes_none() {
    let (lines, expected) = plant();
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(
        "[[rule]]\nname = \"Major\"\nmin_severity = \"major\"\n[[rule.action]]\nservicenow = \"prod\"\n",
    );
    agent.feed(lines);
    let count = expected["major_and_above"]["fingerprints"].as_u64().unwrap();
    agent.once().ends(0).says(&format!("{count} tickets created, 0 found there already, 0 waiting, 0 dead"));
    assert_eq!(simulator.records("incident").len() as u64, count);
    assert_eq!(tickets(&agent), findings(&expected, is_major));

    let status = agent.status();
    let source = &status["sources"][0];
    assert_eq!((&source["lines"], &source["alerts"]), (&expected["lines"], &expected["alerts"]));
    let sightings = expected["major_and_above"]["alerts"].as_u64().unwrap();
    assert_eq!(source["new"].as_u64().unwrap(), count);
    assert_eq!(source["repeats"].as_u64().unwrap(), sightings - count);
    let filtered: u64 = source["filtered"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(filtered + sightings, expected["alerts"].as_u64().unwrap());

    agent.once().ends(0).says("0 tickets created, 0 found there already, 0 waiting");
    assert_eq!(simulator.records("incident").len() as u64, count);
}

#[test]
fn protocols_of_a_rule() {
    check("min_severity = \"major\"\nprotocols = [\"modbus/tcp\", \"dnp3\"]", |finding| {
        let protocols = finding["protocols"].as_array().unwrap();
        is_major(finding) && protocols.iter().any(|p| p == "Modbus" || p == "DNP3")
    });
}

#[test]
fn engines_of_a_rule() {
    check("min_severity = \"warning\"\nengines = [\"malware\", \"policy-violation\"]", |finding| {
        finding["engine"] == "malware" || finding["engine"] == "policy violation"
    });
}

/// Two rules that want one finding, in the order of the file.
const TWO_RULES: &str = r#"
[[rule]]
name = "First"
min_severity = "critical"
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
short_description = "first: {{ title }}"

[[rule]]
name = "Second"
min_severity = "minor"
protocols = ["Modbus"]
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
short_description = "second: {{ title }}"
[[rule.action]]
servicenow = "prod"
table = "problem"
"#;

#[test]
fn two_rules_make_one_ticket_by_the_first_and_another_table_another_ticket() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(TWO_RULES);
    agent
        .feed(alert(1).line() + &alert(2).severity(3).line() + &alert(3).severity(3).protocol("dnp3").line());
    agent.once().ends(0).says("4 tickets created");
    let first = format!("first: {}", eve::title(1));
    assert_one_each(&simulator, [first, format!("second: {}", eve::title(2))]);
    assert_eq!(simulator.records("problem").len(), 2);
    let rules: Vec<Value> =
        agent.json(&["tickets"]).as_array().unwrap().iter().map(|row| row["rule"].clone()).collect();
    assert_eq!(rules.iter().filter(|rule| *rule == "First").count(), 1);
}

#[test]
fn fields_are_what_the_templates_say() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(
        r#"
[[rule]]
name = "Fields"
min_severity = "minor"
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
assignment_group = "OT SOC"
short_description = "{{ protocol }} {{ source.ip }} > {{ destination.ip }}:{{ destination.port }} at {{ site }}"
"#,
    );
    agent.feed(alert(1).line() + &alert(1).set("flow_id", 5).line());
    agent.once().ends(0);
    let records = simulator.records("incident");
    let [record] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(record.get("short_description"), "Modbus 10.64.0.1 > 10.40.1.11:502 at Test plant");
    let groups = simulator.records("sys_user_group");
    let group = groups.iter().find(|group| group.get("name") == "OT SOC").unwrap();
    assert_eq!(record.get("assignment_group"), group.get("sys_id"));
    assert_eq!((record.get("impact"), record.get("urgency")), ("1", "1"));
    assert_eq!(record.get("correlation_display"), "otrelay cell-7-id (cell-7)");
    let description = record.get("description");
    for words in [eve::title(1).as_str(), "Occurrences: 2", "Severity: critical", "Forwarded by rule: Fields"]
    {
        assert!(description.contains(words), "no `{words}` in {description}");
    }
}

/// Both keys, computed from the words of their definition: who changes them makes twins in every instance.
fn keys(number: u32, generation: u32) -> (String, String) {
    let sha = |bytes: &[u8]| ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().to_vec();
    let part = |text: &str| [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
    let from = format!("10.64.0.{number}");
    let agent = format!("{NAME}-id");
    let identity =
        [&agent, "eve", "derived", "1:2000001", "", &from, "10.40.1.11", "Modbus"].map(part).concat();
    let digest =
        sha(&[sha(&identity), part("prod"), part("incident"), generation.to_be_bytes().to_vec()].concat());
    let hex = digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    (format!("otrelay-{}", &hex[..32]), hex[32..].to_owned())
}

#[test]
fn the_keys_of_a_ticket_are_as_defined() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(1..3));
    agent.once().ends(0);
    let mut wanted = [keys(1, 0), keys(2, 0)];
    wanted.sort();
    let mut found: Vec<(String, String)> = simulator
        .records("incident")
        .iter()
        .map(|record| (record.get("correlation_id").to_owned(), record.get("sys_id").to_owned()))
        .collect();
    found.sort();
    assert_eq!(found, wanted);
}

#[test]
fn an_agent_that_lost_its_state_finds_its_tickets() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..30));
    agent.once().ends(0).says("30 tickets created");
    agent.lose_state();
    agent.once().ends(0).says("0 tickets created, 30 found there already, 0 waiting");
    assert_one_each(&simulator, (0..30).map(eve::short));
    let numbers = values(&simulator, "incident", "number");
    let rows = agent.json(&["tickets"]);
    let mut known: Vec<&str> =
        rows.as_array().unwrap().iter().map(|r| r["number"].as_str().unwrap()).collect();
    known.sort_unstable();
    assert_eq!(known, numbers);
}

#[test]
fn what_was_closed_there_gets_one_new_ticket_when_it_is_seen_again() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).line());
    agent.once().ends(0);
    let first = simulator.records("incident").remove(0);
    let closed = [("state", "7"), ("close_code", "Solution provided"), ("close_notes", "valve was ours")];
    assert!(simulator.edit("incident", first.get("sys_id"), &closed));

    for (created, found) in [(1, 0), (0, 1)] {
        agent.lose_state();
        agent.once().ends(0).says(&format!("{created} ticket"));
        let report = agent.status()["last_sync"].clone();
        assert_eq!((&report["created"], &report["found"]), (&created.into(), &found.into()));
        let mut ids = values(&simulator, "incident", "correlation_id");
        let mut wanted = vec![keys(1, 0).0, keys(1, 1).0];
        ids.sort();
        wanted.sort();
        assert_eq!(ids, wanted);
    }
    assert_eq!(agent.json(&["tickets"])[0]["generation"], 1);
}

#[test]
fn a_config_without_a_matching_rule_sends_nothing_and_says_why() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(CRITICAL);
    agent.feed((0..5).map(|n| alert(n).severity(4).line()).collect::<String>() + &eve::flow(1));
    agent.once().ends(0).says("0 tickets created");
    assert_eq!(simulator.requests(), 0);
    let status = agent.status();
    let filtered = status["sources"][0]["filtered"].as_object().unwrap();
    assert_eq!(filtered.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), 5, "{filtered:?}");
    assert_eq!(agent.json(&["alerts", "--filtered"]).as_array().unwrap().len(), 4);
}

#[test]
fn a_rule_to_em_event_tells_each_finding_once() {
    let simulator = simulator();
    simulator.add_fault("commit-drop:count=1,path=/api/global/em".parse().unwrap());
    let action = "[[rule.action]]\nservicenow = \"prod\"\ntable = \"em_event\"\n";
    let agent = Agent::new(&simulator).rules(&format!("[[rule]]\nname = \"Events\"\n{action}"));
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0);
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0);
    let alerts = simulator.records("em_alert");
    assert_eq!((alerts.len(), simulator.records("em_event").len()), (5, 6), "one was told again");
    assert!(simulator.records("incident").is_empty());
    for alert in &alerts {
        assert!(["1", "2", "3", "4"].contains(&alert.get("severity")), "{alert:?}");
        assert!(alert.get("message_key").starts_with("otrelay-") && !alert.get("node").is_empty());
        let more: Value = serde_json::from_str(alert.get("additional_info")).unwrap();
        assert!(more["engine"].is_string() && more["severity"].is_string(), "{more}");
    }
}

#[test]
fn an_agent_whose_host_got_another_name_is_the_same_and_another_identity_is_told() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let config = fs::read_to_string(agent.config_path()).unwrap();
    agent.feed(alert(1).line());
    agent.once().ends(0).says("1 ticket created");
    // Before a lease it was `localhost`, then it has a name.
    fs::write(agent.config_path(), config.replace(&format!("name = \"{NAME}\""), "name = \"sensor7\""))
        .unwrap();
    agent.feed(alert(1).line());
    agent.once().ends(0).says("0 tickets created");
    assert_one_each(&simulator, [eve::short(1)]);
    assert!(!agent.status().to_string().contains("identity-changed"));
    // Another identity makes every finding a new one: that is said, with the way back.
    fs::write(agent.config_path(), config.replace(&format!("id = \"{NAME}-id\""), "id = \"another\""))
        .unwrap();
    agent.feed(alert(2).line());
    agent.once().ends(0).says("1 ticket created");
    let status = agent.status().to_string();
    assert!(status.contains("identity-changed") && status.contains(&format!("{NAME}-id")), "{status}");
}
