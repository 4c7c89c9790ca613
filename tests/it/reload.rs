//! SIGHUP: a config that can be used takes over without losing or doubling anything, one that cannot changes nothing
//! and is named, secrets and certificates are read again.

use std::path::PathBuf;
use std::time::Duration;

use otrelay::simulator::{Options, Running};

use crate::support::agent::{Agent, CRITICAL, Service};
use crate::support::eve::{self, alert};
use crate::support::{assert_one_each, simulator, simulator_with, until, values};

/// Hangs up and waits until one more reload was done.
fn reload(agent: &Agent, service: &Service) {
    let count = || agent.logged().matches("the config was reloaded").count();
    let before = count();
    service.hang_up();
    until("the config is reloaded", || (count() > before).then_some(()));
}

/// Hangs up and waits until it was refused.
fn refused(agent: &Agent, service: &Service, words: &str) {
    service.hang_up();
    let says = |status: &serde_json::Value| {
        let text = status["health"].to_string();
        text.contains("reload refused") && text.contains(words)
    };
    agent.until_status("the refusal is shown", says);
    assert!(agent.logged().contains(words), "{}", agent.logged());
}

#[test]
fn a_bad_config_changes_nothing_and_is_named_until_a_good_one_comes() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    agent.append_config("[nonsense]\n");
    refused(&agent, &service, "nonsense");
    agent.run(&["check"]).ends(78).says("nonsense");
    // It works as before.
    agent.feed(eve::alerts(0..4));
    agent.until_status("all are taken in", |status| status["backlog"] == 4);
    agent.restore_config();
    agent.run(&["sync"]).ends(0).says("4 created");
    reload(&agent, &service);
    assert_eq!(agent.status()["health"].to_string(), "[]");
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_cannot_change_while_it_runs_is_refused_with_what_to_do() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    let service = agent.start();
    agent = agent.buffer("keep_delivered = \"1d\"");
    refused(&agent, &service, "buffer.keep_delivered");
    agent.run(&["status"]).ends(0).says("systemctl restart otrelay");
    agent = agent.buffer("");
    reload(&agent, &service);
    let text = std::fs::read_to_string(agent.config_path()).unwrap();
    std::fs::write(agent.config_path(), text.replace("name = \"cell-7\"", "name = \"cell-8\"")).unwrap();
    refused(&agent, &service, "agent.name");
}

#[test]
fn a_changed_password_is_read_again() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.secrets("otrelay", "the old one");
    let service = agent.start();
    agent.feed(eve::alerts(0..3));
    agent.until_status("all are taken in", |status| status["backlog"] == 3);
    agent.run(&["sync"]).ends(75).says("waits: prod");
    agent.secrets("otrelay", "admin");
    reload(&agent, &service);
    agent.run(&["sync"]).ends(0).says("3 created");
    assert_one_each(&simulator, (0..3).map(eve::short));
}

#[test]
fn a_secret_that_cannot_be_read_keeps_the_old_one() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    std::fs::rename(agent.dir().join("password"), agent.dir().join("elsewhere")).unwrap();
    refused(&agent, &service, "password");
    agent.feed(eve::alerts(0..2));
    agent.until_status("all are taken in", |status| status["backlog"] == 2);
    agent.run(&["sync"]).says("2 created");
}

/// An agent of a destination with a private CA, the file of that CA, and the CA of somebody else.
fn private_ca() -> (Running, Agent, PathBuf, String) {
    let simulator = simulator_with(Options { tls: true, ..Options::default() });
    let other = simulator_with(Options { tls: true, seed: 2, ..Options::default() });
    let agent = Agent::new(&simulator);
    let file = agent.dir().join("ca.pem");
    std::fs::write(&file, simulator.ca_pem().unwrap()).unwrap();
    let agent = agent.destination(&format!("tls = {{ ca_file = \"{}\" }}", file.display()));
    (simulator, agent, file, other.ca_pem().unwrap().to_owned())
}

#[test]
fn a_replaced_ca_file_says_who_is_trusted_from_then_on() {
    let (simulator, agent, file, other) = private_ca();
    let service = agent.start();
    agent.feed(eve::alerts(0..2));
    agent.until_status("two are taken in", |status| status["backlog"] == 2);
    agent.run(&["sync"]).ends(0).says("2 created");
    let requests = simulator.requests();

    std::fs::write(&file, other).unwrap();
    reload(&agent, &service);
    agent.feed(eve::alerts(2..5));
    agent.until_status("three are taken in", |status| status["backlog"] == 3);
    agent.run(&["sync"]).ends(75).says("waits: prod");
    assert_eq!(simulator.requests(), requests, "nothing is sent to somebody who is no longer trusted");

    std::fs::write(&file, simulator.ca_pem().unwrap()).unwrap();
    reload(&agent, &service);
    agent.run(&["sync"]).ends(0).says("3 created");
    assert_one_each(&simulator, (0..5).map(eve::short));
}

#[test]
fn a_ca_file_that_holds_no_certificate_keeps_the_old_one() {
    let (simulator, agent, file, _) = private_ca();
    let service = agent.start();
    std::fs::write(&file, "half a certifica").unwrap();
    refused(&agent, &service, "ca_file");
    agent.feed(eve::alerts(0..2));
    agent.until_status("all are taken in", |status| status["backlog"] == 2);
    agent.run(&["sync"]).ends(0).says("2 created");
    assert_one_each(&simulator, (0..2).map(eve::short));
}

#[test]
fn a_changed_rule_holds_for_what_is_undelivered_and_for_what_comes() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    let service = agent.start();
    agent.feed(eve::alerts(0..3) + &alert(3).protocol("dnp3").line());
    agent.until_status("all are taken in", |status| status["backlog"] == 4);
    agent.set_rules(&CRITICAL.replace("[[rule.action]]", "protocols = [\"DNP3\"]\n[[rule.action]]"));
    reload(&agent, &service);
    agent.until_status("three are withdrawn", |status| status["backlog"] == 1);
    agent.feed(eve::alerts(4..6) + &alert(6).protocol("dnp3").line());
    agent.until_status("one more is wanted", |status| status["backlog"] == 2);
    agent.run(&["sync"]).ends(0).says("2 created");
    assert_one_each(&simulator, [eve::short(3), eve::short(6)]);
}

#[test]
fn a_destination_and_a_source_that_are_gone_are_told() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    let (name, second) = ("second", "third");
    let more = format!(
        "\n[servicenow.{name}]\ninstance = \"{}\"\nauth = \"basic\"\nusername = \"admin\"\npassword = \"admin\"\n\
         [[source]]\nname = \"{second}\"\nkind = \"suricata-eve\"\npath = \"{}/other.json\"\n",
        simulator.url(),
        agent.dir().display()
    );
    agent.set_rules(&format!("{CRITICAL}{more}"));
    let service = agent.start();
    agent.feed(eve::alerts(0..2));
    agent.until_status("all are taken in", |status| status["backlog"] == 2);
    agent.set_rules(CRITICAL);
    reload(&agent, &service);
    let logged = agent.logged();
    assert!(logged.contains("the source is no longer in the config"), "{logged}");
    assert!(logged.contains("the destination is no longer in the config"), "{logged}");
    agent.run(&["sync"]).ends(0).says("2 created");
}

#[test]
fn thirty_reloads_under_load_lose_and_double_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    let mut fed = 0;
    for round in 0..30 {
        agent.feed(eve::alerts(fed..fed + 20));
        fed += 20;
        match round % 3 {
            0 => agent.append_config("[nonsense]\n"),
            1 => agent.restore_config(),
            // Several at once, while a sync runs.
            _ => {
                let mut sync = agent.command(&["sync"]);
                let mut child = sync.stdout(std::process::Stdio::null()).spawn().unwrap();
                service.hang_up();
                service.hang_up();
                let code = child.wait().unwrap().code();
                assert!(matches!(code, Some(0 | 75)), "{code:?}");
            }
        }
        service.hang_up();
        std::thread::sleep(Duration::from_millis(20 * (round % 7)));
    }
    agent.restore_config();
    reload(&agent, &service);
    agent.until_status("all are taken in", |status| status["sources"][0]["alerts"] == fed);
    until("all are sent", || (agent.run(&["sync"]).code == 0).then_some(()));
    assert_one_each(&simulator, (0..fed).map(eve::short));
    assert_eq!(values(&simulator, "incident", "number").len(), fed as usize);
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_hangup_at_any_moment_of_start_and_stop_harms_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..40));
    for round in 0..8 {
        let service = agent.start();
        service.hang_up();
        std::thread::sleep(Duration::from_millis(15 * round));
        service.hang_up();
        assert_eq!(service.stop(), 0);
    }
    agent.once().ends(0);
    assert_one_each(&simulator, (0..40).map(eve::short));
}
