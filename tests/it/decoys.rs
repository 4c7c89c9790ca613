//! Keys of tickets can be computed by whoever knows what they are made of: a record that is found by one and was made by
//! somebody else, or too early, is adopted with a health issue; so is one of several that carry the same key.

use std::time::Duration;

use otrelay::simulator::{Fault, FaultKind, Running};
use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::{eve, simulator};

const SOON: Duration = Duration::from_millis(1);

/// The keys of the first finding of `eve.json`: `correlation_id` and `sys_id`.
fn keys(agent: &Agent) -> (String, String) {
    let explained = agent.json(&["explain", agent.log("eve.json").to_str().unwrap()]);
    let fields = &explained[0]["requests"][0]["fields"];
    let text = |name: &str| fields[name].as_str().unwrap().to_owned();
    (text("correlation_id"), text("sys_id"))
}

fn plant(simulator: &Running, fields: &[(&str, &str)]) -> String {
    let fields = [&[("short_description", "decoy"), ("state", "1")], fields].concat();
    simulator.plant("incident", &fields).unwrap()
}

fn issues(agent: &Agent, code: &str) -> Vec<String> {
    let status = agent.run(&["status", "--json"]).json();
    let all = status["health"].as_array().unwrap().iter();
    all.filter(|issue| issue["code"] == code)
        .map(|issue| issue["text"].as_str().unwrap().to_owned())
        .collect()
}

fn ticket(agent: &Agent) -> Value {
    agent.json(&["tickets"])[0].clone()
}

#[test]
fn a_record_that_a_stranger_made_beforehand_is_adopted_with_a_health_issue() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..1));
    let (correlation_id, sys_id) = keys(&agent);
    let made_at = "2026-11-02 03:04:05";
    plant(
        &simulator,
        &[("correlation_id", &correlation_id), ("sys_id", &sys_id), ("sys_created_on", made_at)],
    );
    assert_eq!(agent.once_here(SOON).found, 1);
    assert_eq!(simulator.records("incident").len(), 1);
    let said = issues(&agent, "adopted");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("mallory") && said[0].contains(made_at), "{said:?}");
    let (ticket, number) = (ticket(&agent), simulator.records("incident")[0].get("number").to_owned());
    assert!(ticket["adopted"].as_str().unwrap().contains("mallory"), "{ticket}");
    let explained =
        agent.run(&["explain", &number]).ends(0).says("adopted").says("made by mallory at 2026-11-02");
    assert!(explained.out.contains("rule \"Critical\" matches"), "{explained:#?}");
    agent.run(&["explain", "INC0000000"]).ends(1).says("no ticket of that number");
}

#[test]
fn a_record_of_our_own_user_that_is_older_than_its_finding_is_told_too() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..1));
    let (correlation_id, _) = keys(&agent);
    let ours = [("correlation_id", correlation_id.as_str()), ("sys_created_by", "admin")];
    plant(&simulator, &[ours.as_slice(), &[("sys_created_on", "2020-01-01 00:00:00")]].concat());
    assert_eq!(agent.once_here(SOON).found, 1);
    let said = issues(&agent, "adopted");
    assert!(said.len() == 1 && said[0].contains("before its finding was first seen"), "{said:?}");
}

#[test]
fn tickets_of_our_own_are_found_again_without_a_word() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    simulator.add_fault(Fault::new(FaultKind::CommitDrop).on("POST", "/api/now/table/incident").times(2));
    agent.feed(eve::alerts(0..6));
    assert_eq!(agent.once_here(SOON).delivered(), 6);
    agent.lose_state();
    let report = agent.once_here(SOON);
    assert_eq!((report.created, report.found), (0, 6));
    assert_eq!(issues(&agent, "adopted"), Vec::<String>::new());
}

#[test]
fn who_we_are_is_asked_where_the_log_in_does_not_say() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).login(
        "auth = \"client-credentials\"\nclient_id = \"otrelay\"\nclient_secret = { file = \"DIR/client-secret\" }",
    );
    agent.feed(eve::alerts(0..2));
    agent.once_here(SOON);
    assert_eq!(simulator.records("incident").len(), 2);
    agent.lose_state();
    assert_eq!(agent.once_here(SOON).found, 2);
    assert_eq!(issues(&agent, "adopted"), Vec::<String>::new());
    agent.lose_state();
    let (correlation_id, sys_id) = keys(&agent);
    assert!(simulator.delete("incident", &sys_id));
    plant(&simulator, &[("correlation_id", &correlation_id)]);
    assert_eq!(agent.once_here(SOON).found, 2);
    assert_eq!(issues(&agent, "adopted").len(), 1);
}

#[test]
fn twins_are_told_when_they_are_met() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    let (correlation_id, _) = keys(&agent);
    // One is there before, the other comes when its ticket is open.
    plant(&simulator, &[("correlation_id", &correlation_id), ("sys_created_by", "admin")]);
    plant(&simulator, &[("correlation_id", &correlation_id), ("sys_created_by", "admin")]);
    agent.once_here(SOON);
    assert_eq!(issues(&agent, "twins").len(), 1);
    let other = simulator.records("incident")[2].get("correlation_id").to_owned();
    assert_ne!(other, correlation_id);
    plant(&simulator, &[("correlation_id", &other)]);
    agent.feed(eve::alerts(0..2));
    agent.once_here(SOON);
    let said = issues(&agent, "twins");
    assert!(said.len() == 2 && said.iter().any(|text| text.contains(&other)), "{said:?}");
}

#[test]
fn a_record_of_another_agent_on_our_key_is_told_with_its_name() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..1));
    let (correlation_id, sys_id) = keys(&agent);
    let ours =
        [("correlation_id", correlation_id.as_str()), ("sys_id", &sys_id), ("sys_created_by", "admin")];
    plant(&simulator, &[ours.as_slice(), &[("correlation_display", "otrelay cell-7-id (cell-8)")]].concat());
    assert_eq!(agent.once_here(SOON).found, 1);
    let said = issues(&agent, "adopted");
    assert!(said.len() == 1 && said[0].contains("of the agent `otrelay cell-7-id (cell-8)`"), "{said:?}");
}
