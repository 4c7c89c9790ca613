//! `otrelay sources` and `sources rewind`: what a first reading left out is taken in after all, once, whenever the power goes.

use std::fs;

use otrelay::clock::{Clock as _, SystemClock};
use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::console::{Console, NOW, TOKEN};
use crate::support::{assert_one_each, eve, simulator, until, values};

/// An agent whose first reading forwards nothing older than a week; the lines of [`eve::alerts`] are.
fn agent(simulator: &otrelay::simulator::Running) -> Agent {
    let agent = Agent::new(simulator);
    let text = fs::read_to_string(agent.config_path()).unwrap();
    fs::write(agent.config_path(), text.replace(r#"backfill = "all""#, r#"backfill = "7d""#)).unwrap();
    agent
}

/// Alert `number`, of now.
fn fresh(number: u32) -> String {
    let now = SystemClock.now().servicenow().replace(' ', "T");
    eve::alert(number).set("timestamp", format!("{now}.000000+0000")).line()
}

/// What `status` counts of the first source: records, alerts, findings, repeats.
fn counted(agent: &Agent) -> [u64; 4] {
    let source = agent.status()["sources"][0].clone();
    ["lines", "alerts", "new", "repeats"].map(|name| source[name].as_u64().unwrap())
}

fn source(agent: &Agent) -> Value {
    source_named(agent, "eve")
}

fn source_named(agent: &Agent, name: &str) -> Value {
    let all = agent.json(&["sources"]);
    all.as_array().unwrap().iter().find(|source| source["name"] == name).unwrap().clone()
}

#[test]
fn what_was_too_old_is_taken_in_after_all_and_once() {
    let simulator = simulator();
    let agent = agent(&simulator);
    assert_eq!(source(&agent)["state"], "not read yet");
    agent.run(&["sources", "rewind", "eve"]).ends(1).says("was not read yet");
    // Number 12 was seen before the week and in it: its old sighting was not counted.
    agent.feed(eve::alerts(0..10) + &eve::alert(12).line() + &eve::flow(1) + &fresh(11) + &fresh(12));
    agent.once().ends(0).says("2 tickets created");
    assert_eq!(counted(&agent), [14, 13, 2, 0]);
    assert_eq!((source(&agent)["older"].as_u64(), &source(&agent)["state"]), (Some(11), &"stopped".into()));
    agent.run(&["sources"]).ends(0).says("11 alerts were older").says("otrelay sources rewind eve");
    agent.run(&["status"]).ends(0).says("otrelay sources rewind eve");

    agent
        .run(&["sources", "rewind", "eve", "--dry-run"])
        .ends(0)
        .says("would be read again")
        .says("eve.json")
        .says("14 records of it were counted, 13 of them alerts")
        .says("so at most 11 alerts are new");
    let rewound = agent.json(&["sources", "rewind", "eve", "--dry-run"]);
    assert_eq!(
        (&rewound["done"], &rewound["records"], &rewound["alerts"]),
        (&false.into(), &14.into(), &13.into())
    );
    agent.once().ends(0).says("0 tickets created");
    agent.run(&["sources", "rewind", "eve"]).ends(0).says("by the next start").says("11 of its alerts");
    assert_eq!(source(&agent)["state"], "read again");
    agent.feed(fresh(13));
    agent.once().ends(0).says("11 tickets created");
    assert_one_each(&simulator, (0..10).chain(11..14).map(eve::short));
    // Ten findings and one sighting of a known one are counted, beside the new line; what was counted before is not.
    assert_eq!(counted(&agent), [14 + 11 + 1, 13 + 11 + 1, 13, 1]);
    assert_eq!(source(&agent)["again"], 11);
    // The way was gone: nobody is sent there again.
    for list in ["sources", "status"] {
        let said = agent.run(&[list]).ends(0).says("taken in after all");
        assert!(!said.out.contains("sources rewind"), "{list}: {}", said.out);
    }

    // Once more: there is nothing left to be taken in.
    agent.run(&["sources", "rewind", "eve"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    assert_eq!(counted(&agent), [26, 25, 13, 1]);
    assert_eq!(source(&agent)["state"], "stopped");
}

#[test]
fn a_source_that_is_not_there_or_is_pushed_to_is_no_matter_of_an_upgrade() {
    let simulator = simulator();
    let agent = agent(&simulator);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    agent.append_config(&format!("\n[[source]]\nname = \"siem\"\nkind = \"http\"\nlisten = \"{free}\"\n"));
    agent.feed(eve::alerts(0..1));
    let both = |agent: &Agent| {
        for (name, words) in [("nope", "nope"), ("siem", "siem")] {
            let said = agent.run(&["sources", "rewind", name]).ends(1).says(words);
            assert!(!said.err.contains("E306") && !said.err.contains("upgrade"), "{said:?}");
        }
    };
    let service = agent.start();
    until("it is read", || (agent.source("eve")["lines"] == 1).then_some(()));
    both(&agent);
    assert_eq!(service.stop(), 0);
    both(&agent);
}

#[test]
fn since_bounds_how_far_it_goes_back() {
    let simulator = simulator();
    let agent = agent(&simulator);
    let line = |number: u32, day: &str| {
        eve::alert(number).set("timestamp", format!("{day}T06:00:00.000000+0000")).line()
    };
    agent.feed(line(1, "2026-03-01") + &line(2, "2026-04-01") + &line(3, "2026-05-01"));
    agent.once().ends(0).says("0 tickets created");
    agent
        .run(&["sources", "rewind", "eve", "--since", "2026-04-01T00:00Z"])
        .ends(0)
        .says("younger than 2026-04-01");
    agent.once().ends(0).says("2 tickets created");
    assert_one_each(&simulator, [2, 3].map(eve::short));
    let rest = "what is younger than 2026-04-01 00:00:00 UTC was read again, `otrelay sources rewind eve` takes in the rest";
    agent.run(&["sources"]).ends(0).says(rest);
    agent.run(&["status"]).ends(0).says(rest);
    agent.run(&["sources", "rewind", "eve", "--since", "soon"]).ends(2).says("24h");
}

#[test]
fn a_rotated_and_a_packed_generation_are_read_again_too() {
    use std::io::Write as _;
    let simulator = simulator();
    let agent = agent(&simulator);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(eve::alerts(0..3).as_bytes()).unwrap();
    fs::write(agent.log("eve.json.2.gz"), packed.finish().unwrap()).unwrap();
    agent.feed(eve::alerts(3..6));
    agent.once().ends(0);
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    agent.feed(eve::alerts(6..7) + &fresh(7));
    // The third line is not of the first reading, so it is forwarded, whatever its age.
    agent.once().ends(0).says("2 tickets created");
    agent.run(&["sources", "rewind", "eve"]).ends(0).says("3 files");
    agent.once().ends(0).says("6 tickets created");
    assert_one_each(&simulator, (0..8).map(eve::short));
    // Each line was one sighting, and an order to read again adds none.
    let occurrences = |agent: &Agent| -> Vec<u64> {
        let alerts = agent.json(&["alerts"]);
        alerts.as_array().unwrap().iter().map(|alert| alert["occurrences"].as_u64().unwrap()).collect()
    };
    assert_eq!(occurrences(&agent), [1; 8]);
    agent.run(&["sources", "rewind", "eve"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    agent.once().ends(0);
    assert_eq!(occurrences(&agent), [1; 8]);
    assert_eq!(source(&agent)["again"], 6, "what was too old at first is taken in once");
    assert_eq!(agent.status()["sources"][0]["rejected"].to_string(), "{}");
}

#[test]
fn what_rules_passed_over_is_taken_in_when_they_want_it() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    let minor = |number: u32| eve::alert(number).severity(3).line();
    agent.feed(minor(1) + &eve::alert(2).line() + &minor(3));
    agent.once().ends(0).says("1 ticket created");
    agent.set_rules(&crate::support::agent::CRITICAL.replace("\"critical\"", "\"warning\""));
    agent.once().ends(0).says("0 tickets created");
    agent.run(&["sources", "rewind", "eve"]).ends(0);
    agent.once().ends(0).says("2 tickets created");
    assert_eq!(simulator.records("incident").len(), 3);
}

#[test]
fn the_running_service_reads_again_and_a_kill_changes_nothing() {
    let simulator = simulator();
    let agent = agent(&simulator);
    agent.feed(eve::alerts(0..400) + &fresh(1_000));
    let service = agent.start();
    agent.until_status("it is read", |status| status["sources"][0]["lines"] == 401);
    until("the log names the way", || {
        agent.logged().contains("`otrelay sources rewind eve` takes them in after all").then_some(())
    });
    agent.run(&["sources", "rewind", "nobody"]).ends(1).says("no source nobody");
    agent.run(&["sources", "rewind", "eve", "--dry-run"]).ends(0).says("would be read again");
    agent.run(&["sources", "rewind", "eve"]).ends(0).says("is read again from its beginning");
    // The order is in the store: whatever was read again by now, the rest is by the next start.
    service.kill();
    let service = agent.start();
    agent.until_status("all is known", |status| status["sources"][0]["new"] == 401);
    assert_eq!(counted(&agent), [801, 801, 401, 0]);
    // The source works on, and so does a second order.
    agent.feed(fresh(1_001));
    agent.until_status("the new line is read", |status| status["sources"][0]["new"] == 402);
    agent.run(&["sources", "rewind", "eve"]).ends(0);
    agent.feed(fresh(1_002));
    agent.until_status("and the next", |status| status["sources"][0]["new"] == 403);
    assert_eq!(counted(&agent), [803, 803, 403, 0]);
    assert_eq!(source(&agent)["state"], "up to date");
    agent.run(&["sync"]).ends(0);
    assert_eq!(service.stop(), 0);
    assert_one_each(&simulator, (0..400).chain(1_000..1_003).map(eve::short));
}

#[test]
fn a_closed_ticket_is_not_opened_anew_by_reading_again() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0).says("2 tickets created");
    for record in simulator.records("incident") {
        let closed = [("state", "7"), ("close_code", "User error"), ("close_notes", "-")];
        assert!(simulator.edit("incident", record.get("sys_id"), &closed));
    }
    agent.run(&["sync"]).ends(0);
    agent.run(&["sources", "rewind", "eve"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    assert_eq!(simulator.records("incident").len(), 2);
    // A new sighting does, as ever.
    agent.feed(fresh(0));
    agent.once().ends(0).says("1 ticket created");
}

#[test]
fn a_listener_has_nothing_to_read_again() {
    let simulator = simulator();
    let agent = agent(&simulator);
    agent.append_config(
        "[[source]]\nname = \"door\"\nkind = \"syslog\"\nlisten = [\"tcp://127.0.0.1:55140\"]\n",
    );
    let said = agent.run(&["sources", "rewind", "door"]).ends(1);
    said.says("source door cannot be read again").says("records are sent to it");
}

fn ask(agent: &Agent, console: &Console) {
    agent.append_config(&format!(
        "[[source]]\nname = \"console\"\nkind = \"defender-console\"\nurl = \"{}\"\ntoken = \"{TOKEN}\"\npoll_interval = \"5s\"\n",
        console.url()
    ));
}

#[test]
fn an_alert_that_comes_late_is_taken_in_though_the_order_reached_less_far_back() {
    const DAY: i64 = 86_400_000;
    let (console, simulator) = (Console::start(true), simulator());
    let agent = agent(&simulator);
    ask(&agent, &console);
    let raise = |sensor, time| {
        let mut state = console.state();
        let now = state.now;
        state.raise_at(sensor, time, now);
        state.alerts.last_mut().unwrap().severity = "Critical";
    };
    raise(4, NOW);
    agent.once().ends(0).says("1 ticket created");
    console.state().now += 20 * DAY;
    raise(4, NOW + 15 * DAY);
    agent.once().ends(0).says("1 ticket created");
    agent.run(&["sources", "rewind", "console", "--since", "2025-06-11"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    // A sensor was cut off until now. What it says of before the first connection is too old, and counted.
    raise(5, NOW + DAY);
    raise(5, NOW - 40 * DAY);
    agent.once().ends(0).says("1 ticket created");
    assert_eq!(source_named(&agent, "console")["older"], 1);
    agent.once().ends(0).says("0 tickets created");
    // Told before a second order, it is known to it.
    agent.run(&["sources", "rewind", "console", "--since", "2025-06-11"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    assert_eq!(simulator.records("incident").len(), 3);
    assert_eq!(source_named(&agent, "console")["again"], 0);
    // All of it: what was too old is taken in after all.
    agent.run(&["sources", "rewind", "console"]).ends(0);
    agent.once().ends(0).says("1 ticket created");
    assert!(simulator.twins().is_empty());
}

#[test]
fn a_console_is_asked_again() {
    let (console, simulator) = (Console::start(true), simulator());
    {
        let mut state = console.state();
        state.sensor(4, "west", "Plant West", "Line 2");
        for (alert, days) in [(0, 1), (1, 20), (2, 40)] {
            state.raise_at(4, NOW - days * 86_400_000, NOW);
            state.alerts[alert].severity = "Critical";
        }
    }
    let agent = agent(&simulator);
    ask(&agent, &console);
    // The mock's clock stands long ago, so that all of it is too old at first.
    agent.once().ends(0);
    assert_eq!(source_named(&agent, "console")["older"], 3);
    assert_eq!(simulator.records("incident").len(), 0);
    agent.run(&["sources", "rewind", "console"]).ends(0).says("by the next start");
    agent.once().ends(0);
    let all = values(&simulator, "incident", "short_description");
    assert_eq!(all.len(), 3, "{all:?}");
    agent.run(&["sources", "rewind", "console"]).ends(0);
    agent.once().ends(0).says("0 tickets created");
    assert!(simulator.twins().is_empty());
}
