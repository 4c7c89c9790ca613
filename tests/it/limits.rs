//! What is bounded on purpose: the buffer on disk, the requests of an hour, and what is done while the clock is wrong.

use std::fs;
use std::time::Duration;

use otrelay::clock::{Clock as _, ManualClock, RELEASED_AT, SystemClock};
use otrelay::simulator::{Fault, FaultKind, Options, RateRule};

use crate::support::agent::Agent;
use crate::support::eve::{self, alert, noise};
use crate::support::{assert_one_each, simulator, simulator_with, values};

const YEAR: Duration = Duration::from_hours(365 * 24);
const SOON: Duration = Duration::from_millis(100);
const SHORTLY: Duration = Duration::from_secs(2);

/// Everything goes to the table `incident`.
const ALL: &str = r#"
[[rule]]
name = "All"
[[rule.action]]
servicenow = "prod"
"#;

/// Bytes of the state directory.
fn size(agent: &Agent) -> u64 {
    fs::read_dir(agent.state()).unwrap().map(|entry| entry.unwrap().metadata().map_or(0, |m| m.len())).sum()
}

#[test]
fn once_with_a_full_buffer_that_refuses_goes_by_turns_and_loses_nothing() {
    const CAP: u64 = 8 << 20;
    // Text that cannot be packed into less than the cap.
    const COUNT: u32 = 700;
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(ALL).buffer("max_size = \"8MiB\"\nwhen_full = \"refuse\"");
    agent.feed(
        (0..COUNT)
            .map(|number| alert(number).set("payload", noise(number, 30_000)).line())
            .collect::<String>(),
    );

    // Nothing makes room: the rest waits in the sensor's files.
    agent.set_sync("enabled = false");
    agent.once().ends(75).says("waiting").says("(E108)").says("[buffer] max_size");
    let status = agent.json(&["status"]);
    let taken = status["backlog"].as_u64().unwrap();
    assert!((50..u64::from(COUNT)).contains(&taken) && status["shed"] == 0, "{status:#}");
    assert!(size(&agent) <= CAP, "{} bytes", size(&agent));

    // What is delivered makes room for what waits.
    agent.set_sync("");
    agent.once().ends(0).says("0 waiting, 0 dead");
    assert_one_each(&simulator, (0..COUNT).map(eve::short));
    let status = agent.json(&["status"]);
    assert!(status["shed"] == 0 && status["dead"] == 0 && status["backlog"] == 0, "{status:#}");
    assert!(size(&agent) <= CAP, "{} bytes", size(&agent));
}

#[test]
fn a_full_buffer_gives_up_the_least_severe_and_counts_them() {
    const CAP: u64 = 8 << 20;
    const ROUNDS: u32 = 10;
    const EACH: u32 = 200;
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(ALL).buffer("max_size = \"8MiB\"");
    agent.set_sync("enabled = false");
    let service = agent.start();
    let large =
        |number: u32, severity| alert(number).severity(severity).set("payload", noise(number, 6000)).line();
    // A few that matter between very many that do not, in the order of time.
    let mut critical = Vec::new();
    for round in 0..ROUNDS {
        let numbers = round * EACH..round * EACH + EACH;
        let lines: String = numbers
            .map(|number| {
                let severity = if number % 100 == 0 { 1 } else { 4 };
                if severity == 1 {
                    critical.push(eve::short(number));
                }
                large(number, severity)
            })
            .collect();
        agent.feed(lines);
        let read = u64::from((round + 1) * EACH);
        agent.until_status("they are read", |status| status["sources"][0]["alerts"].as_u64() >= Some(read));
        assert!(size(&agent) <= CAP, "{} bytes", size(&agent));
    }
    let peak = service.peak_kib();
    assert!(peak <= 64 * 1024, "{peak} KiB");
    let status = agent.status();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert!(number(&status["shed"]) > 500, "{status:#}");
    assert_eq!(
        number(&status["shed"]) + number(&status["backlog"]),
        u64::from(ROUNDS * EACH),
        "every one is accounted for"
    );
    agent.run(&["status"]).ends(0).says("given up because the buffer was full").says("[buffer] max_size");
    assert_eq!(service.stop(), 0);

    agent.set_sync("");
    agent.once().ends(0);
    let there = values(&simulator, "incident", "short_description");
    assert!(critical.iter().all(|title| there.binary_search(title).is_ok()), "a critical one was given up");
    assert_eq!(there.len() as u64, number(&status["backlog"]));
}

/// A burst that is larger than what is left of the buffer, and than its last tenth.
const BURST: u32 = 500;

#[test]
fn a_burst_that_does_not_fit_does_not_stop_the_intake_for_ever() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(ALL).buffer("max_size = \"8MiB\"");
    agent.set_sync("enabled = false");
    let service = agent.start();
    for round in 0..4_u32 {
        let numbers = round * BURST..round * BURST + BURST;
        agent.feed(numbers.map(|n| alert(n).set("payload", noise(n, 6000)).line()).collect::<String>());
        let read = u64::from((round + 1) * BURST);
        agent.until_status("they are read", |status| status["sources"][0]["alerts"].as_u64() >= Some(read));
    }
    let status = agent.status();
    let number = |value: &serde_json::Value| value.as_u64().unwrap();
    assert_eq!(number(&status["shed"]) + number(&status["backlog"]), u64::from(4 * BURST));
    assert_eq!(service.stop(), 0);
}

#[test]
fn one_batch_that_is_larger_than_the_whole_buffer_is_taken_in_parts() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(ALL).buffer("max_size = \"8MiB\"");
    agent.set_sync("enabled = false");
    agent.feed((0..2 * BURST).map(|n| alert(n).set("payload", noise(n, 12_000)).line()).collect::<String>());
    let service = agent.start();
    let status = agent.until_status("they are read", |status| {
        status["sources"][0]["alerts"].as_u64() >= Some(u64::from(2 * BURST))
    });
    assert!(status["backlog"].as_u64() > Some(0), "{status:#}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn the_hourly_budget_is_kept_and_explained() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(ALL).requests_per_hour(20);
    agent.feed((0..30).map(|n| alert(n).severity(3).line()).collect::<String>());
    agent.feed(alert(100).line());
    agent.once().ends(75).says("next try in ");
    assert!(simulator.requests() <= 20, "{}", simulator.requests());
    let titles = values(&simulator, "incident", "short_description");
    assert!(titles.contains(&eve::short(100)), "the most severe first: {titles:?}");
    assert!(titles.len() > 10, "{titles:?}");
    // Asking again does not bring a new budget.
    agent.once().ends(75);
    agent.run(&["sync"]).ends(75);
    assert!(simulator.requests() <= 20, "{}", simulator.requests());
    assert!(simulator.twins().is_empty());
}

#[test]
fn nothing_is_sent_while_the_clock_is_absurd() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    let report =
        agent.once_at(ManualClock::at(RELEASED_AT.before(YEAR)), SOON, SHORTLY, || agent.has_backlog(3));
    assert!(report.waiting.iter().any(|why| why.contains("clock")), "{report:?}");
    assert_eq!(simulator.requests(), 0);
    let report = agent.once_here(SOON);
    assert_eq!(report.created, 3, "{report:?}");
    assert_one_each(&simulator, (0..3).map(eve::short));
}

#[test]
fn what_failed_while_the_clock_was_ten_years_ahead_is_sent_when_it_is_right_again() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..5));
    simulator.add_fault(Fault::new(FaultKind::CommitDrop).times(2).on("POST", "/api"));
    let ahead = ManualClock::at(SystemClock.now().after(YEAR * 10));
    let first = agent.once_at(ahead, Duration::from_secs(20), SHORTLY, || {
        values(&simulator, "incident", "short_description").len() == 5
    });
    assert_eq!((first.created, first.again), (3, 2), "{first:?}");
    let second = agent.once_here(SOON);
    assert_eq!(second.found, 2, "{second:?}");
    assert_one_each(&simulator, (0..5).map(eve::short));
    agent.run(&["status"]).ends(0).says("0 waiting, 0 dead");
}

#[test]
fn a_hold_that_was_made_while_the_clock_was_ahead_ends() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..5));
    simulator.add_fault(Fault::new(FaultKind::Hibernate).times(1).on("", "/api"));
    let ahead = ManualClock::at(SystemClock.now().after(YEAR * 10));
    agent.once_at(ahead, SOON, SHORTLY, || simulator.requests() > 0);
    let service = agent.start();
    agent.until_status("the service sends them by itself", |status| status["backlog"] == 0);
    assert_one_each(&simulator, (0..5).map(eve::short));
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_limit_that_the_instance_tells_in_the_middle_of_a_group_is_heeded_in_it() {
    let rule = RateRule { limit: 40, window: Duration::from_hours(1) };
    let simulator =
        simulator_with(Options { rate_limit: Some(rule), batch_api: false, ..Options::default() });
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..100));
    let said = agent.once().ends(75);
    said.says("the instance allows 38 requests an hour");
    let ledger = simulator.ledger();
    let refused = ledger.iter().filter(|entry| entry.status == Some(429)).count();
    let made = ledger.iter().filter(|entry| entry.path.starts_with("/api/")).count();
    assert!(refused == 0 && made <= 40, "{refused} refused of {made}");
    assert!(simulator.records("incident").len() >= 15, "{} tickets", simulator.records("incident").len());
}
