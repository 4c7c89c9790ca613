//! The lists: filters, all of a long one, a terminal's width, and what programs read.

use serde_json::{Value, json};

use crate::support::agent::{Agent, Said};
use crate::support::eve::{self, alert};
use crate::support::simulator;

const ALL: &str = "[[rule]]\nname = \"All\"\n[[rule.action]]\nservicenow = \"prod\"\n";

fn titles(rows: &Value) -> Vec<String> {
    let mut titles: Vec<String> =
        rows.as_array().unwrap().iter().map(|row| row["title"].as_str().unwrap().to_owned()).collect();
    titles.sort();
    titles
}

#[test]
fn a_list_is_filtered_by_protocol_engine_source_time_address_and_number() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(ALL);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000000+0000").to_string();
    agent.feed(alert(1).line());
    agent.feed(alert(2).protocol("dnp3").severity(3).line());
    agent.feed(alert(3).set("timestamp", now).line());
    agent.once().ends(0).says("3 tickets created");
    let check = |args: &[&str], expected: &[u32]| {
        let expected: Vec<String> = expected.iter().map(|n| eve::title(*n)).collect();
        for list in ["alerts", "tickets"] {
            assert_eq!(titles(&agent.json(&[&[list], args].concat())), expected, "{list} {args:?}");
        }
        let queue = [&["queue", "list", "--state", "delivered"], args].concat();
        // A delivery is dated by when it was made.
        if !args.contains(&"--since") {
            assert_eq!(titles(&agent.json(&queue)), expected, "queue {args:?}");
        }
    };
    check(&[], &[1, 2, 3]);
    check(&["--protocol", "DNP3"], &[2]);
    check(&["--protocol", "modbus"], &[1, 3]);
    check(&["--engine", "malware"], &[]);
    check(&["--source", "eve"], &[1, 2, 3]);
    check(&["--source", "other"], &[]);
    check(&["--since", "24h"], &[3]);
    check(&["--address", "10.64.0.2"], &[2]);
    check(&["--address", "10.40.0.0/16"], &[1, 2, 3]);
    check(&["--address", "192.0.2.0/24"], &[]);
    check(&["--min-severity", "critical", "--protocol", "modbus", "--grep", "00003"], &[3]);
    agent.run(&["alerts", "--address", "10.64"]).ends(2).says("expected an address or a network");
    agent.run(&["alerts", "--engine", "steam"]).ends(2).says("expected one of protocol violation");

    let number = agent.json(&["tickets", "--grep", "00002"])[0]["number"].as_str().unwrap().to_lowercase();
    assert_eq!(titles(&agent.json(&["tickets", "--number", &number])), [eve::title(2)]);
    assert_eq!(agent.json(&["tickets", "--number", "INC1"]), json!([]));
}

#[test]
fn samples_are_filtered_too() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).severity(3).line());
    agent.feed(alert(2).severity(4).protocol("dnp3").line());
    agent.feed("{\"event_type\":\"alert\",\n");
    agent.once().ends(0);
    let check = |args: &[&str], expected: &[u32]| {
        let expected: Vec<String> = expected.iter().map(|n| eve::title(*n)).collect();
        assert_eq!(titles(&agent.json(&[&["alerts", "--filtered"], args].concat())), expected, "{args:?}");
    };
    check(&["--protocol", "dnp3"], &[2]);
    check(&["--address", "10.64.0.1"], &[1]);
    check(&["--min-severity", "minor"], &[1]);
    check(&["--since", "24h"], &[]);
    check(&["--source", "other"], &[]);
    let rejected = |args: &[&str]| agent.json(&[&["alerts", "--rejected"], args].concat());
    assert_eq!(rejected(&["--source", "eve"]).as_array().unwrap().len(), 1);
    assert_eq!(rejected(&["--source", "other"]), json!([]));
}

#[test]
fn zero_is_all_however_many_there_are_and_in_the_order_of_one_page() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).rules(ALL);
    agent.set_sync("enabled = false");
    // More than one answer holds.
    let many = 10_050;
    agent.feed(
        (0..many).map(|n| alert(n).severity(u8::try_from(n % 4).unwrap() + 1).line()).collect::<String>(),
    );
    agent.once().ends(75);
    let mut rows = Value::Null;
    for (list, after) in [(&["alerts"][..], "finding"), (&["queue", "list"], "deliver")] {
        let said = agent.run(&[list, &["-n", "0"]].concat()).ends(0).says(&format!("{many} {after}"));
        assert_eq!(said.out.lines().count(), many as usize + 1, "a header, and a line for each");
        rows = agent.json(&[list, &["-n", "0"]].concat());
        let ids: std::collections::BTreeSet<i64> =
            rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!((rows.as_array().unwrap().len(), ids.len()), (many as usize, many as usize));
    }
    // What waits stays in the order in which it is sent, over the edge of a page.
    let order: Vec<(usize, i64)> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let level = ["critical", "major", "minor", "warning"].iter().position(|s| row["severity"] == *s);
            (level.unwrap(), row["id"].as_i64().unwrap())
        })
        .collect();
    assert!(order.is_sorted());
}

/// At a terminal of 80 columns.
fn at_80(agent: &Agent, args: &[&str]) -> Said {
    let mut command = agent.command(args);
    command.env("COLUMNS", "80");
    crate::support::agent::said(command)
}

#[test]
fn every_list_fits_80_columns_and_is_whole_in_a_pipe() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(ALL);
    let long = "a title that is longer than a terminal is wide, as those of real signatures are, and goes on";
    agent.feed(alert(1).signature(long, 7).line());
    agent.feed("{\"event_type\":\"alert\",\n");
    agent.once().ends(0).says("1 ticket created");
    // And a dead letter.
    simulator.add_fault("status=400:method=POST,path=/api,count=1".parse().unwrap());
    agent.feed(alert(2).signature(long, 8).line());
    agent.once().ends(1).says("1 dead");
    for args in [
        &["alerts"][..],
        &["alerts", "--rejected"],
        &["tickets"],
        &["queue", "list", "--state", "delivered"],
        &["queue", "list", "--dead"],
    ] {
        let said = at_80(&agent, args).ends(0);
        let lines: Vec<&str> = said.out.lines().collect();
        assert!((2..=3).contains(&lines.len()), "{args:?}: {said:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{args:?}: {said:#?}");
        agent.run(args).ends(0);
    }
    agent.run(&["alerts"]).ends(0).says(long).says("Modbus");
}

#[test]
fn programs_read_plain_values() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).line());
    let plans = agent.json(&["sync", "--dry-run"]);
    assert_eq!(plans[0]["fields"]["short_description"], eve::short(1).as_str(), "{plans:#}");
    agent.once().ends(0);
    let row = &agent.json(&["alerts"])[0];
    assert_eq!((&row["title"], &row["severity"]), (&json!(eve::title(1)), &json!("critical")), "{row:#}");
    assert_eq!(row["last_seen_at"], "2026-05-18T06:00:01.000001Z");
    assert_eq!(row["alert"]["time"], "2026-05-18T06:00:01.000001Z");
    let status = agent.status();
    let now: jiff::Timestamp = status["now"].as_str().unwrap().parse().unwrap();
    assert!(now.as_second() > 1_793_491_200, "{status:#}");
}
