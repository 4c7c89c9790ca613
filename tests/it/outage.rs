//! The other side is away, refuses us, or refuses one record: nothing is lost, nothing is hurried, and the operator
//! reads why and what to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::SystemClock;
use otrelay::model::Secret;
use otrelay::simulator::{Fault, FaultKind, Options, Running};
use serde_json::Value;

use crate::support::agent::{Agent, terminate};
use crate::support::eve::{self, alert};
use crate::support::{assert_one_each, simulator, simulator_with, until};

const INCIDENT: &str = "/api/now/table/incident";

/// An address where nobody listens, and that no other test gets.
fn nowhere(last: u8) -> SocketAddr {
    let running = simulator_with(Options { listen: ([127, 0, 0, last], 0).into(), ..Options::default() });
    running.url().trim_start_matches("http://").parse().unwrap()
}

/// What needs a person, in the words of `status --json`.
fn attention(status: &Value) -> String {
    status["health"].to_string()
}

fn requests(simulator: &Running, path: &str) -> usize {
    simulator.ledger().iter().filter(|entry| entry.path == path).count()
}

#[test]
fn a_service_keeps_what_comes_while_nobody_listens_there_and_sends_it_later() {
    let address = nowhere(71);
    let agent = Agent::at(&format!("http://{address}"));
    agent.feed(eve::alerts(0..40));
    let service = agent.start();
    let status = agent.until_status("the destination is on hold", |status| {
        status["destinations"][0]["holds"].as_array().is_some_and(|holds| !holds.is_empty())
    });
    assert!(attention(&status).contains("refused"), "{status:#}");
    agent.feed(eve::alerts(40..60));
    agent.until_status("all are kept", |status| status["backlog"] == 60);
    agent.run(&["status"]).ends(0).says("destination prod waits").says("60 waiting");
    agent.run(&["sync"]).ends(75).says("waits: prod");

    let simulator = simulator_with(Options { listen: address, ..Options::default() });
    agent.run(&["sync"]).ends(0).says("60 created, 0 found there already, 0 to retry, 0 dead");
    assert_one_each(&simulator, (0..60).map(eve::short));
    let status = agent.status();
    assert_eq!((&status["backlog"], attention(&status).as_str()), (&0.into(), "[]"));
    assert_eq!(service.stop(), 0);
}

#[test]
fn run_once_that_is_told_to_stop_says_what_still_waits() {
    let agent = Agent::at(&format!("http://{}", nowhere(72)));
    agent.feed(eve::alerts(0..3));
    let mut command = agent.command(&["run", "--once"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("it waits", || {
        let status = agent.run(&["status", "--json"]);
        (status.code == 0 && attention(&status.json()).contains("waits")).then_some(())
    });
    terminate(&child);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{err}");
    assert!(err.contains("3 waiting, 0 dead") && err.contains("waits: prod: "), "{err}");
}

#[test]
fn a_refused_login_is_not_hammered_and_loses_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.secrets("otrelay", "wrong");
    agent.feed(eve::alerts(0..25));
    agent.once().ends(75).says("25 waiting, 0 dead").says("waits: prod");
    assert!(requests(&simulator, "/oauth_token.do") <= 2, "{:?}", simulator.ledger());
    let status = agent.status();
    assert!(attention(&status).contains("\"remedy\":\"") && !attention(&status).contains("\"remedy\":\"\""));
    agent.run(&["status"]).ends(0).says("25 waiting");

    agent.secrets("otrelay", "admin");
    agent.once().ends(0).says("25 tickets created");
    assert_one_each(&simulator, (0..25).map(eve::short));
    assert_eq!(attention(&agent.status()), "[]");
}

#[test]
fn a_wrong_client_secret_waits_too() {
    let own = |text: &str| Secret::new("test", text);
    let clients = vec![("otrelay".to_owned(), own("right"))];
    let simulator = simulator_with(Options { clients, ..Options::default() });
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    agent.once().ends(75).says("2 waiting").says("client");
    assert!(simulator.records("incident").is_empty());
    agent.secrets("right", "admin");
    agent.once().ends(0).says("2 tickets created");
}

#[test]
fn a_token_that_is_taken_back_is_renewed_without_a_trace() {
    let simulator = simulator();
    // After the first sync's look-up, and again after some creates.
    for after in [1, 6] {
        simulator.add_fault(Fault::new(FaultKind::RevokeToken).times(1).after(after).on("", "/api"));
    }
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0).says("10 tickets created");
    assert_one_each(&simulator, (0..10).map(eve::short));
}

#[test]
fn nothing_is_sent_before_the_time_that_the_instance_named() {
    let simulator = simulator();
    let wait = 3;
    simulator.add_fault(Fault::new(FaultKind::RateLimit(wait)).times(1).after(2).on("POST", INCIDENT));
    let agent = Agent::new(&simulator).destination("max_in_flight = 1");
    agent.feed(eve::alerts(0..8));
    agent.once().ends(0).says("8 tickets created, 0 found there already, 0 waiting");
    assert_one_each(&simulator, (0..8).map(eve::short));
    let ledger = simulator.ledger();
    let at = ledger.iter().position(|entry| entry.status == Some(429)).unwrap();
    let gap = ledger[at + 1].at.since(ledger[at].at);
    assert!(gap >= Duration::from_secs(wait), "asked again after {gap:?}");
}

#[test]
fn a_limit_that_lasts_is_left_alone_and_explained() {
    let simulator = simulator();
    simulator.add_fault(Fault::new(FaultKind::RateLimit(1800)).on("", "/api"));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..8));
    agent.once().ends(75).says("8 waiting").says("429");
    // A token, the build, what the table takes (which is given up at once), and the look-up that makes all wait.
    assert!(simulator.requests() <= 4, "{:?}", simulator.ledger());
    agent.run(&["status"]).ends(0).says("requests_per_hour");
}

#[test]
fn a_hibernating_instance_is_not_taken_for_success() {
    let simulator = simulator();
    simulator.add_fault(Fault::new(FaultKind::Hibernate).on("", "/api"));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..4));
    agent.once().ends(75).says("4 waiting").says("hibernating");
    assert!(attention(&agent.status()).contains("developer.servicenow.com"));
    simulator.clear_faults();
    agent.once().ends(0).says("4 tickets created");
    assert_one_each(&simulator, (0..4).map(eve::short));
}

#[test]
fn a_missing_right_holds_the_table_and_the_other_table_goes_on() {
    let simulator = simulator();
    simulator.add_fault("hide-table=problem".parse().unwrap());
    let agent = Agent::new(&simulator).rules(
        r#"
[[rule]]
name = "Both"
[[rule.action]]
servicenow = "prod"
[[rule.action]]
servicenow = "prod"
table = "problem"
"#,
    );
    agent.feed(eve::alerts(0..3));
    agent.once().ends(75).says("3 tickets created").says("3 waiting").says("problem");
    assert_one_each(&simulator, (0..3).map(eve::short));
    assert!(attention(&agent.status()).contains("table problem"));
    simulator.clear_faults();
    agent.once().ends(0).says("3 tickets created, 0 found there already, 0 waiting");
    assert_eq!(simulator.records("problem").len(), 3);
}

/// The id of the only dead letter.
fn dead(agent: &Agent) -> String {
    let rows = agent.json(&["queue", "list", "--dead"]);
    let [row] = rows.as_array().unwrap().as_slice() else { panic!("{rows:#}") };
    row["id"].to_string()
}

#[test]
fn what_the_instance_refuses_becomes_a_dead_letter_that_a_person_can_send_again() {
    let simulator = simulator();
    simulator.add_fault(Fault::new(FaultKind::Status(400)).times(2).on("POST", INCIDENT));
    let agent = Agent::new(&simulator).destination("max_in_flight = 1");
    agent.feed(alert(1).line());
    agent.once().ends(1).says("0 tickets created, 0 found there already, 0 waiting, 1 dead");
    agent.feed(alert(2).line());
    agent.once().ends(1).says("2 dead");
    agent.run(&["status"]).ends(0).says("2 dead letters").says("otrelay queue retry ID");
    let rows = agent.json(&["queue", "list", "--dead"]);
    let id = |number| {
        let mut rows = rows.as_array().unwrap().iter();
        rows.find(|row| row["title"] == eve::title(number)).unwrap()["id"].to_string()
    };
    let ids = [id(1), id(2)];
    agent
        .run(&["queue", "show", &ids[0]])
        .ends(0)
        .says("a fault asked for this status")
        .says("HTTP 400")
        .says(&eve::title(1));

    agent.run(&["queue", "retry", &ids[0]]).ends(0).says("now");
    agent.run(&["queue", "drop", &ids[1]]).ends(1).says("say --yes");
    agent.run(&["queue", "drop", "--yes", &ids[1]]).ends(0).says("now");
    agent.once().ends(0).says("1 ticket created, 0 found there already, 0 waiting, 0 dead");
    assert_one_each(&simulator, [eve::short(1)]);
    // What was given up stays given up, whatever is seen of it later.
    agent.feed(alert(2).set("flow_id", 9).line());
    agent.once().ends(0).says("0 tickets created");
    assert_one_each(&simulator, [eve::short(1)]);
    agent.run(&["queue", "retry", "4711"]).ends(1).says("not changed");
    agent.run(&["queue", "show", "4711"]).ends(1).says("there is no delivery 4711");
}

#[test]
fn a_data_policy_is_quoted_and_other_records_go_on() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(
        r#"
[[rule]]
name = "Closed at once"
min_severity = "critical"
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
state = "{{ '7' if source.ip == '10.64.0.1' else '1' }}"
"#,
    );
    agent.feed(eve::alerts(0..4));
    agent.once().ends(1).says("3 tickets created, 0 found there already, 0 waiting, 1 dead");
    let id = dead(&agent);
    agent.run(&["queue", "show", &id]).ends(0).says("Data Policy Exception").says("[rule.action.fields]");
    agent.set_rules(crate::support::agent::CRITICAL);
    agent.run(&["queue", "retry", "--all-dead"]).ends(0);
    agent.run(&["sync"]).ends(0).says("1 created");
    assert_one_each(&simulator, (0..4).map(eve::short));
}

/// Findings of which every `n`th, counted from `first`, cannot be created for a reason of its own: all others are there
/// after one run.
fn poisoned(kind: fn(String) -> FaultKind, bad: &[u32], batch_api: bool) {
    let simulator = simulator_with(Options { batch_api, ..Options::default() });
    for number in bad {
        simulator.add_fault(Fault::new(kind(eve::title(*number))));
    }
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..100));
    let enough = || simulator.records("incident").len() == 100 - bad.len();
    let report = agent.once_at(Arc::new(SystemClock), Duration::from_millis(1), Duration::ZERO, enough);
    assert_eq!(report.created as usize, 100 - bad.len(), "{report:?}");
    let good = (0..100).filter(|number| !bad.contains(number)).map(eve::short);
    assert_one_each(&simulator, good);
    let queue = agent.json(&["queue", "list", "-n", "0"]);
    let waiting: Vec<&Value> = queue.as_array().unwrap().iter().collect();
    assert_eq!(waiting.len(), bad.len(), "{queue}");
    assert!(
        // Those that were on their way when it was told to stop have no words yet, and are looked up before they are repeated.
        waiting.iter().all(|one| match one["reason"].as_str() {
            Some(words) => words.contains("it answered"),
            None => one["doubtful"] == true,
        }),
        "{queue:#}"
    );
}

#[test]
fn six_of_a_hundred_on_which_a_business_rule_throws_starve_no_other() {
    for batch_api in [true, false] {
        poisoned(FaultKind::Throws, &[3, 17, 18, 40, 71, 99], batch_api);
    }
}

#[test]
fn one_of_a_hundred_that_an_acl_refuses_starves_no_other() {
    for batch_api in [true, false] {
        poisoned(FaultKind::Refuses, &[0], batch_api);
    }
}

#[test]
fn half_of_a_hundred_may_be_poisoned() {
    let even: Vec<u32> = (0..100).step_by(2).collect();
    let first: Vec<u32> = (0..50).collect();
    poisoned(FaultKind::Throws, &even, false);
    poisoned(FaultKind::Throws, &first, false);
    poisoned(FaultKind::Refuses, &first, true);
}

#[test]
fn a_record_that_a_firewall_dislikes_is_set_aside_and_the_others_go_on() {
    let simulator = simulator();
    simulator.add_fault("waf=union select:path=/api".parse().unwrap());
    let agent = Agent::new(&simulator);
    let bad = alert(0).signature("ET SQL union select in a request", 9_000_001).line();
    agent.feed(format!("{bad}{}", eve::alerts(1..4)));
    let service = agent.start();
    agent.until_status("the others are there", |status| status["backlog"] == 1);
    for number in 4..9 {
        agent.feed(eve::alerts(number..number + 1));
        until("the next is there, and nothing waits for it", || {
            agent.run(&["sync"]);
            (simulator.records("incident").len() == number as usize).then_some(())
        });
    }
    agent.until_status("it is set aside", |status| status["dead"] == 1);
    let said = agent.run(&["queue", "list", "--dead"]).says("web application firewall");
    said.says("while others got through").says("request rejected");
    // Mended there, a person has it sent.
    simulator.clear_faults();
    let dead = agent.json(&["queue", "list", "--dead"]);
    agent.run(&["queue", "retry", &dead[0]["id"].to_string()]).ends(0);
    agent.until_status("it is sent", |status| status["backlog"] == 0 && status["dead"] == 0);
    assert_eq!(simulator.records("incident").len(), 9);
    assert_eq!(service.stop(), 0);
}
