//! An answer gets lost, at every place where it can: there is one record all the same, because whatever is in doubt is
//! looked up before it is created again.

use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::{Clock as _, ManualClock, SystemClock};
use otrelay::simulator::{Fault, FaultKind, Options};

use crate::support::agent::Agent;
use crate::support::eve;
use crate::support::{assert_one_each, simulator, simulator_with, values};

const INCIDENT: &str = "/api/now/table/incident";
/// More bytes than an answer has: it is not cut.
const WHOLE: u64 = 1 << 20;
const SOON: Duration = Duration::from_millis(150);

fn on_create(kind: FaultKind) -> Fault {
    Fault::new(kind).on("POST", INCIDENT)
}

/// One create whose answer is cut after so many bytes: whether the agent had to look.
fn is_cut(bytes: u64) -> bool {
    let faults = vec![on_create(FaultKind::CommitCut(bytes)).times(1)];
    let simulator = simulator_with(Options { faults, ..Options::default() });
    let agent = Agent::new(&simulator).rules(SMALL);
    agent.feed(eve::alerts(0..1));
    let report = agent.once_here(Duration::from_millis(1));
    assert_eq!(report.delivered(), 1, "{report:?}");
    assert_one_each(&simulator, [eve::title(0)]);
    report.found == 1
}

#[test]
fn cut_at_every_byte_there_is_one_record() {
    // The length of the answer, head and all.
    let (mut length, mut step) = (0, 2048);
    while step > 0 {
        if is_cut(length + step - 1) {
            length += step;
        }
        step /= 2;
    }
    assert!((300..2048).contains(&length), "an answer of {length} bytes");

    // A whole answer now and then: after many lost ones in a row the destination would be left alone for a while.
    let mut cuts: Vec<u64> = (0..length).collect();
    let mut faults = Vec::new();
    while !cuts.is_empty() {
        let some = cuts.drain(..cuts.len().min(8)).chain([WHOLE]);
        faults.extend(some.map(|bytes| on_create(FaultKind::CommitCut(bytes)).times(1)));
    }
    let number = faults.len() as u64;
    let simulator = simulator_with(Options { faults, batch_api: false, ..Options::default() });
    let agent = Agent::new(&simulator).destination("max_in_flight = 1").rules(SMALL);
    agent.feed(eve::alerts(0..number as u32));
    let report = agent.once_here(SOON);
    assert_eq!(simulator.faults_fired(), number);
    assert_eq!((report.created, report.found, report.dead), (number - length, length, 0), "{report:?}");
    assert_one_each(&simulator, (0..number as u32).map(eve::title));
}

/// Short answers: few fields.
const SMALL: &str = r#"
[[rule]]
name = "Small"
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
short_description = "{{ title }}"
description = "-"
"#;

/// That fault, a few times.
#[track_caller]
fn check(fault: &str, times: u64) {
    let simulator = simulator();
    let fault: Fault = fault.parse().unwrap();
    simulator.add_fault(fault.times(times).on("POST", INCIDENT));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..12));
    let report = agent.once_here(SOON);
    assert_eq!(simulator.faults_fired(), times);
    assert_one_each(&simulator, (0..12).map(eve::short));
    assert_eq!((report.delivered(), report.dead, report.next_at), (12, 0, None), "{report:?}");
    agent.run(&["status"]).ends(0).says("backlog      0 waiting, 0 dead");
}

#[test]
fn dropped_before_the_work() {
    check("drop-before", 2);
}

#[test]
fn dropped_after_the_work() {
    check("commit-drop", 2);
}

#[test]
fn an_error_after_the_work() {
    check("commit-500", 2);
}

#[test]
fn an_error_without_the_work() {
    check("status=500", 2);
}

#[test]
fn accepted_but_never_done() {
    check("202", 2);
}

#[test]
fn accepted_and_done() {
    check("commit-202", 2);
}

#[test]
fn an_answer_that_breaks_off() {
    check("truncated-json", 2);
}

#[test]
fn a_web_page_after_which_the_destination_waits() {
    let simulator = simulator();
    simulator.add_fault(on_create(FaultKind::HtmlLogin).times(1));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..12));
    let report = agent.once_here(SOON);
    assert!(!report.waiting.is_empty(), "{report:?}");
    agent.once_here(SOON);
    assert_one_each(&simulator, (0..12).map(eve::short));
}

#[test]
fn a_record_that_look_ups_do_not_show_at_once() {
    let simulator = simulator();
    simulator.add_fault("index-lag=800".parse().unwrap());
    simulator.add_fault(on_create(FaultKind::CommitDrop).times(2));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..6));
    let report = agent.once_here(Duration::from_millis(1300));
    assert_eq!((report.created, report.found), (4, 2));
    assert_one_each(&simulator, (0..6).map(eve::short));
}

#[test]
fn a_record_that_look_ups_show_later_than_we_ask() {
    let simulator = simulator();
    simulator.add_fault("index-lag=1500".parse().unwrap());
    simulator.add_fault(on_create(FaultKind::CommitDrop).times(2));
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..6));
    // Asked too early the instance does not know the record, and refuses a second one with the same sys_id.
    let all = || values(&simulator, "incident", "short_description").len() == 6;
    let first = agent.once_at(Arc::new(SystemClock), SOON, Duration::from_secs(2), all);
    assert_eq!(first.dead, 0, "{first:?}");
    assert_one_each(&simulator, (0..6).map(eve::short));
    let later = ManualClock::at(SystemClock.now().after(Duration::from_hours(1)));
    let second = agent.once_by(later, SOON);
    assert_eq!((first.delivered() + second.delivered(), second.dead), (6, 0), "{first:?} {second:?}");
    assert_one_each(&simulator, (0..6).map(eve::short));
}

#[test]
fn a_third_of_all_answers_is_lost() {
    let simulator = simulator_with(Options {
        faults: vec![on_create(FaultKind::CommitDrop).rate(0.3)],
        batch_api: false,
        ..Options::default()
    });
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..200));
    let report = agent.once_here(SOON);
    assert_one_each(&simulator, (0..200).map(eve::short));
    assert_eq!((report.delivered(), report.dead), (200, 0), "{report:?}");
    assert!(simulator.faults_fired() > 30, "{report:?}");
    assert_eq!(report.found, simulator.faults_fired(), "{report:?}");
}

#[test]
fn the_real_wait_after_a_lost_answer() {
    let simulator = simulator();
    simulator.add_fault(on_create(FaultKind::CommitDrop).times(1));
    simulator.add_fault("index-lag=5000".parse().unwrap());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0).says("2 tickets created, 1 found there already, 0 waiting, 0 dead");
    assert_one_each(&simulator, (0..3).map(eve::short));
}
