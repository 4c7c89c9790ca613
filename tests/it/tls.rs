//! HTTPS with the real binary: a private CA is trusted when it is named, and nothing else is; a second destination
//! goes on while the first is down.

use std::fs;

use otrelay::simulator::Options;

use crate::support::agent::Agent;
use crate::support::{assert_one_each, eve, simulator, simulator_with};

#[test]
fn a_private_ca_is_trusted_when_it_is_named() {
    let simulator = simulator_with(Options { tls: true, ..Options::default() });
    let agent = Agent::new(&simulator);
    let ca = agent.dir().join("plant-ca.pem");
    fs::write(&ca, simulator.ca_pem().unwrap()).unwrap();
    let agent = agent.destination(&format!("tls = {{ ca_file = \"{}\" }}", ca.display()));
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0).says("10 tickets created");
    assert_one_each(&simulator, (0..10).map(eve::short));
}

#[test]
fn another_ca_is_not_and_nothing_is_sent() {
    let simulator = simulator_with(Options { tls: true, ..Options::default() });
    let other = simulator_with(Options { tls: true, seed: 2, ..Options::default() });
    let agent = Agent::new(&simulator);
    let ca = agent.dir().join("plant-ca.pem");
    fs::write(&ca, other.ca_pem().unwrap()).unwrap();
    let agent = agent.destination(&format!("tls = {{ ca_file = \"{}\" }}", ca.display()));
    agent.feed(eve::alerts(0..10));
    agent.once().ends(75).says("10 waiting").says("no trusted TLS connection");
    assert_eq!(simulator.requests(), 0);
    agent.run(&["status"]).ends(0).says("ca_file");
}

#[test]
fn a_destination_that_waits_does_not_stop_the_other() {
    let prod = simulator_with(Options {
        faults: vec!["hibernate:path=/api".parse().unwrap()],
        ..Options::default()
    });
    let second = simulator();
    let agent = Agent::new(&prod);
    let dir = agent.dir().display().to_string();
    let agent = agent
        .destination(&format!(
            r#"
[servicenow.dr]
instance = "{}"
auth = "password"
client_id = "otrelay"
client_secret = {{ file = "{dir}/client-secret" }}
username = "admin"
password = {{ file = "{dir}/password" }}
"#,
            second.url()
        ))
        .rules(
            r#"
[[rule]]
name = "Both"
[[rule.action]]
servicenow = "prod"
[[rule.action]]
servicenow = "dr"
"#,
        );
    agent.feed(eve::alerts(0..6));
    agent.once().ends(75).says("6 tickets created").says("6 waiting").says("waits: prod");
    assert_one_each(&second, (0..6).map(eve::short));
    assert!(prod.records("incident").is_empty());
    prod.clear_faults();
    agent.run(&["sync"]).ends(0).says("6 created");
    assert_one_each(&prod, (0..6).map(eve::short));
    let ids = |simulator| crate::support::values(simulator, "incident", "correlation_id");
    assert!(ids(&prod).iter().all(|id| !ids(&second).contains(id)), "a destination has keys of its own");
}
