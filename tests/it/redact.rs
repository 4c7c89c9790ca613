//! `[[redact]]`: what may not leave this machine does not, whatever tells of it.

use serde_json::Value;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::{eve, simulator};

const ADDRESSES: &str =
    "[[redact]]\nfields = [\"source.ip\", \"destination.ip\", \"sensor\"]\nas = \"mask\"\n";
/// Templates that would tell everything.
const ALL: &str = "[rule.action.fields]\ndescription = \"{{ source.ip }} {{ destination.ip }} {{ message }} {{ sensor }}\"\n";

#[test]
fn a_redacted_address_reaches_no_record_of_the_instance_and_the_lists_here_keep_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{ALL}{ADDRESSES}"));
    agent.feed(eve::alerts(1..4));
    agent.once().ends(0);

    let records = simulator.records("incident");
    assert_eq!(records.len(), 3);
    for record in &records {
        let text = serde_json::to_string(&record.fields).unwrap();
        assert!(text.contains("10.64.0.0 10.40.1.0"), "{text}");
        for hidden in ["10.64.0.1", "10.64.0.2", "10.64.0.3", "10.40.1.11", "\"cell-7\""] {
            assert!(!text.contains(hidden), "{hidden} left: {text}");
        }
    }
    let alerts = agent.json(&["alerts"]);
    assert!(alerts.to_string().contains("10.64.0.1"), "{alerts}");
}

#[test]
fn explain_says_what_is_redacted_and_shows_the_request_without_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{ALL}{ADDRESSES}"));
    agent.feed(eve::alerts(1..2));
    let file = agent.log("eve.json");
    let path = file.to_str().unwrap();
    agent
        .run(&["explain", path])
        .ends(0)
        .says("redacted before it leaves: source.ip: mask, destination.ip: mask, sensor: mask");
    let explained = agent.json(&["explain", path]);
    let request: &Value = &explained[0]["requests"][0]["fields"];
    assert!(request["correlation_id"].is_string(), "{explained}");
    assert!(!request.to_string().contains("10.64.0.1"), "{request}");
    assert_eq!(explained[0]["alert"]["source"]["ip"], "10.64.0.1");
}
