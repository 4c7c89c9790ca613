//! Rules that change between two runs: they hold for what is still undelivered, and for what comes after.

use serde_json::Value;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::eve::{self, alert};
use crate::support::{assert_one_each, simulator, values};

/// An agent that has taken four alerts in and may not push.
fn waiting(url: &str) -> Agent {
    let mut agent = Agent::at(url);
    agent.set_sync("enabled = false");
    agent.feed(eve::alerts(0..3) + &alert(3).protocol("dnp3").line());
    agent.once().ends(75).says("4 waiting").says("enabled = false");
    agent.set_sync("");
    agent
}

fn states(agent: &Agent, state: &str) -> usize {
    agent.json(&["queue", "list", "--state", state]).as_array().unwrap().len()
}

#[test]
fn what_no_rule_wants_any_more_is_withdrawn() {
    let simulator = simulator();
    let mut agent = waiting(simulator.url());
    agent.set_rules(&CRITICAL.replace("[[rule.action]]", "protocols = [\"DNP3\"]\n[[rule.action]]"));
    agent.once().ends(0).says("1 ticket created, 0 found there already, 0 waiting");
    assert_one_each(&simulator, [eve::short(3)]);
    assert_eq!((states(&agent, "withdrawn"), states(&agent, "delivered")), (3, 1));
    // Wanted again, and seen again: then there is a ticket.
    agent.set_rules(CRITICAL);
    agent.feed(alert(0).set("flow_id", 1).line());
    agent.once().ends(0);
    assert_one_each(&simulator, [eve::short(0), eve::short(3)]);
}

#[test]
fn what_another_rule_wants_elsewhere_goes_there() {
    let simulator = simulator();
    let mut agent = waiting(simulator.url());
    agent.set_rules(&format!("{CRITICAL}table = \"problem\"\n"));
    agent.once().ends(0).says("4 tickets created");
    assert!(simulator.records("incident").is_empty());
    assert_eq!(simulator.records("problem").len(), 4);
}

#[test]
fn fields_are_those_of_the_rules_in_force_when_it_is_sent() {
    let simulator = simulator();
    let mut agent = waiting(simulator.url());
    agent.set_rules(&format!("{CRITICAL}[rule.action.fields]\nshort_description = \"new words\"\n"));
    agent.run(&["sync", "--dry-run"]).ends(0).says("new words");
    agent.run(&["sync"]).ends(0).says("4 created");
    assert_eq!(values(&simulator, "incident", "short_description"), vec!["new words"; 4]);
}

#[test]
fn delivered_tickets_stay_as_they_are() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    agent.set_rules(&CRITICAL.replace("critical", "warning").replace("name = \"warning\"", "name = \"All\""));
    agent.feed(eve::alerts(0..3) + &alert(9).severity(4).line());
    agent.once().ends(0).says("1 ticket created");
    assert_eq!(simulator.records("incident").len(), 4);
    let seen: Vec<u64> = agent
        .json(&["tickets", "--min-severity", "critical"])
        .as_array()
        .unwrap()
        .iter()
        .map(|row: &Value| row["occurrences"].as_u64().unwrap())
        .collect();
    assert_eq!(seen, [2, 2, 2]);
}

#[test]
fn a_rule_that_is_turned_off_sends_nothing() {
    let simulator = simulator();
    let mut agent = waiting(simulator.url());
    agent.set_rules(&CRITICAL.replace("[[rule]]", "[[rule]]\nenabled = false"));
    agent.once().ends(0).says("0 tickets created, 0 found there already, 0 waiting");
    assert_eq!(states(&agent, "withdrawn"), 4);
    assert_eq!(simulator.requests(), 0);
}

/// The rules are changed, the change ends in its middle, and the old rules are there again when it starts the next time:
/// they are not taken for those that the outbox was made by.
#[test]
fn a_change_that_was_cut_off_and_taken_back_leaves_nothing_dead() {
    let simulator = simulator();
    let mut agent = waiting(simulator.url());
    let cut = rusqlite::Connection::open(agent.state().join("queue.db")).unwrap();
    cut.execute_batch(
        "CREATE TRIGGER cut BEFORE INSERT ON meta WHEN NEW.key = 'rules' AND length(NEW.value) = 64
         BEGIN SELECT abs(-9223372036854775807 - 1); END",
    )
    .unwrap();
    agent.set_rules(&CRITICAL.replace("\"Critical\"", "\"Other\""));
    agent.once().ends(1).says("integer overflow");
    let by_it = "SELECT count(*) FROM alert a JOIN rule u ON u.id = a.rule_id WHERE u.name = 'Other'";
    let moved: i64 = cut.query_row(by_it, [], |row| row.get(0)).unwrap();
    assert_eq!(moved, 4, "it ended before the change had begun");
    cut.execute_batch("DROP TRIGGER cut").unwrap();
    agent.set_rules(CRITICAL);
    agent.once().ends(0).says("4 tickets created, 0 found there already, 0 waiting");
    assert_one_each(&simulator, (0..4).map(eve::short));
}
