//! Files that are rotated in every way that is in use, while the agent is away or is killed: nothing is lost, nothing
//! is doubled.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use crate::support::agent::Agent;
use crate::support::{assert_one_each, eve, simulator, until};

/// What the one source has counted.
fn counted(agent: &Agent, what: &str) -> u64 {
    agent.status()["sources"][0][what].as_u64().unwrap()
}

fn rejected(agent: &Agent) -> String {
    agent.status()["sources"][0]["rejected"].to_string()
}

#[test]
fn renamed_while_the_agent_was_away() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0);
    agent.feed(eve::alerts(10..20));
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    agent.feed(eve::alerts(20..30));
    agent.once().ends(0).says("20 tickets created");
    assert_one_each(&simulator, (0..30).map(eve::short));
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (30, "{}"));
}

#[test]
fn renamed_twice_while_the_agent_was_away() {
    // The example's own pattern does not lead to the renamed ones.
    renamed_twice_with("eve*.json");
    renamed_twice_with("eve.json*");
}

fn renamed_twice_with(pattern: &str) {
    let simulator = simulator();
    let agent = Agent::new(&simulator).pattern(pattern);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0);
    agent.feed(eve::alerts(10..15));
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    agent.feed(eve::alerts(15..20));
    fs::rename(agent.log("eve.json.1"), agent.log("eve.json.2")).unwrap();
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    agent.feed(eve::alerts(20..25));
    agent.once().ends(0).says("15 tickets created");
    assert_one_each(&simulator, (0..25).map(eve::short));
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (25, "{}"));
}

/// What `gzip` does with a file of the log's directory.
fn pack(agent: &Agent, name: &str) {
    let plain = fs::read(agent.log(name)).unwrap();
    let packed = fs::File::create(agent.log(&format!("{name}.gz"))).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::default());
    packed.write_all(&plain).unwrap();
    packed.finish().unwrap();
    fs::remove_file(agent.log(name)).unwrap();
}

#[test]
fn renamed_twice_and_packed_while_the_agent_was_away() {
    // All of them, or all but the newest (`delaycompress`).
    for names in [&["eve.json.1", "eve.json.2"][..], &["eve.json.2"]] {
        let simulator = simulator();
        let agent = Agent::new(&simulator);
        agent.feed(eve::alerts(0..10));
        agent.once().ends(0);
        agent.feed(eve::alerts(10..15));
        fs::rename(agent.log("eve.json"), agent.log("eve.json.2")).unwrap();
        agent.feed_to("eve.json.1", eve::alerts(15..20));
        agent.feed(eve::alerts(20..25));
        for name in names {
            pack(&agent, name);
        }
        agent.once().ends(0).says("15 tickets created");
        assert_one_each(&simulator, (0..25).map(eve::short));
        assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (25, "{}"));
        agent.once().ends(0).says("0 tickets created");
        assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (25, "{}"));
    }
}

#[test]
fn a_packed_generation_that_was_copied_and_a_log_that_a_longer_copy_replaced_make_no_second_tickets() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed_to("eve.json.2", eve::alerts(0..5));
    pack(&agent, "eve.json.2");
    agent.feed(eve::alerts(10..15));
    agent.once().ends(0);
    let before = counted(&agent, "alerts");
    // A copy takes its name: another inode, and another time of change.
    fs::copy(agent.log("eve.json.2.gz"), agent.log("new")).unwrap();
    fs::rename(agent.log("new"), agent.log("eve.json.2.gz")).unwrap();
    agent.feed_to("new", eve::alerts(10..17));
    fs::rename(agent.log("new"), agent.log("eve.json")).unwrap();
    agent.once().ends(0).says("2 tickets created");
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (before + 2, "{}"));
}

#[test]
fn a_packed_generation_that_is_damaged_is_a_gap_that_is_told() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0);
    agent.feed(eve::alerts(10..2_000));
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    pack(&agent, "eve.json.1");
    let packed = fs::read(agent.log("eve.json.1.gz")).unwrap();
    fs::write(agent.log("eve.json.1.gz"), &packed[..packed.len() / 2]).unwrap();
    agent.feed(eve::alerts(2_000..2_001));
    agent.once().ends(0);
    assert!(counted(&agent, "alerts") > 100, "what is whole of it is taken");
    assert_eq!(rejected(&agent), r#"{"lost":1}"#);
    agent.run(&["alerts", "--rejected"]).ends(0).says("eve.json.1.gz, byte").says("what follows is lost");
}

#[test]
fn copied_and_truncated_with_a_copy_that_the_pattern_finds() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0);
    agent.feed(eve::alerts(10..20));
    fs::copy(agent.log("eve.json"), agent.log("eve-20260518.json")).unwrap();
    fs::write(agent.log("eve.json"), "").unwrap();
    agent.feed(eve::alerts(20..24));
    agent.once().ends(0).says("14 tickets created");
    assert_one_each(&simulator, (0..24).map(eve::short));
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (24, "{}"));
    agent.once().ends(0).says("0 tickets created");
    assert_eq!(counted(&agent, "alerts"), 24);
}

#[test]
fn truncated_without_a_copy_is_a_gap_that_is_told() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..10));
    agent.once().ends(0);
    agent.feed(eve::alerts(10..20));
    fs::write(agent.log("eve.json"), eve::alerts(20..22)).unwrap();
    agent.once().ends(0).says("2 tickets created");
    assert_one_each(&simulator, (0..10).chain(20..22).map(eve::short));
    assert_eq!(rejected(&agent), r#"{"lost":1}"#);
    agent.run(&["alerts", "--rejected"]).ends(0).says("lost").says("it was read up to byte");
}

#[test]
fn a_new_name_for_each_period() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    for period in 0..5_u32 {
        let name = format!("eve-2026-05-{:02}.json", period + 10);
        agent.feed_to(&name, eve::alerts(period * 7..period * 7 + 7));
        agent.once().ends(0).says("7 tickets created");
    }
    assert_one_each(&simulator, (0..35).map(eve::short));
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (35, "{}"));
}

#[test]
fn a_file_for_each_thread() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).pattern("eve.*.json");
    for round in 0..3_u32 {
        for thread in 0..4_u32 {
            let first = (round * 4 + thread) * 5;
            agent.feed_to(&format!("eve.{thread}.json"), eve::alerts(first..first + 5));
        }
        agent.once().ends(0).says("20 tickets created");
    }
    assert_one_each(&simulator, (0..60).map(eve::short));
    assert_eq!(counted(&agent, "alerts"), 60);
}

#[test]
fn a_line_that_is_written_in_two_parts() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let line = eve::alert(1).line();
    let (first, second) = line.split_at(120);
    agent.feed(eve::alert(0).line() + first);
    agent.once().ends(0).says("1 ticket created");
    agent.feed(second);
    agent.once().ends(0).says("1 ticket created");
    assert_one_each(&simulator, (0..2).map(eve::short));
    assert_eq!((counted(&agent, "alerts"), rejected(&agent).as_str()), (2, "{}"));
}

#[test]
fn followed_while_it_is_rotated() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let _service = agent.start();
    agent.feed(eve::alerts(0..10));
    agent.until_status("the first are read", |status| status["sources"][0]["alerts"] == 10);
    agent.feed(eve::alerts(10..20));
    fs::rename(agent.log("eve.json"), agent.log("eve.json.1")).unwrap();
    // The writer has not let go of it yet.
    agent.feed_to("eve.json.1", eve::alerts(20..30));
    agent.feed(eve::alerts(30..40));
    agent.until_status("all are read", |status| status["sources"][0]["alerts"] == 40);
    agent.run(&["sync"]).ends(0);
    assert_one_each(&simulator, (0..40).map(eve::short));
}

#[test]
fn killed_while_lines_come_and_files_rotate() {
    const ROUNDS: u32 = 10;
    const EACH: u32 = 30;
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    for round in 0..ROUNDS {
        let first = round * EACH;
        let service = agent.start();
        let mut sync = agent.command(&["sync"]);
        sync.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut sync = (round % 2 == 0).then(|| sync.spawn().unwrap());
        agent.feed(eve::alerts(first..first + EACH / 2));
        if round % 3 == 1 {
            fs::rename(agent.log("eve.json"), agent.log(&format!("eve.json.{round}"))).unwrap();
        }
        std::thread::sleep(Duration::from_millis(u64::from(round) * 61));
        agent.feed(eve::alerts(first + EACH / 2..first + EACH));
        std::thread::sleep(Duration::from_millis(u64::from(ROUNDS - round) * 43));
        service.kill();
        if let Some(sync) = &mut sync {
            sync.wait().unwrap();
        }
    }
    until("the rest is sent", || (agent.once().code == 0).then_some(()));
    assert_one_each(&simulator, (0..ROUNDS * EACH).map(eve::short));
    assert_eq!(counted(&agent, "alerts"), u64::from(ROUNDS * EACH), "exactly once into the store");
    assert_eq!(rejected(&agent), "{}");
}
