//! Input that is not what it should be: counted by reason with a sample, never a stop, never much memory; the good
//! alerts beside it arrive.

use std::fs;
use std::io::Write;

use otrelay::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::eve::{self, alert};
use crate::support::{assert_one_each, simulator};

/// Most memory of the agent, whatever comes: the promise for any fault.
const PEAK_KIB: u64 = 64 * 1024;

/// These bytes between two good alerts: both arrive, and the bytes are counted like this.
#[track_caller]
fn check(bytes: &[u8], rejected: &Value) -> Agent {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).line());
    agent.feed(bytes);
    agent.feed(alert(2).line());
    agent.once().ends(0).says("2 tickets created");
    assert_one_each(&simulator, [eve::short(1), eve::short(2)]);
    let status = agent.status();
    assert_eq!(&status["sources"][0]["rejected"], rejected, "{status:#}");
    if rejected.as_object().is_some_and(|reasons| !reasons.is_empty()) {
        agent.run(&["alerts", "--rejected"]).ends(0).says("eve.json, byte");
        agent.run(&["status"]).ends(0).says("rejected: ");
    }
    agent
}

#[test]
fn garbage() {
    let bytes: Vec<u8> = (0..200_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .filter(|b| *b != b'\n')
        .collect();
    // Where no line could be an alert nothing was lost; this one claims to be one.
    let claim = b"\x00\xff{\"event_type\":\"alert\",\x1b[2J\x00";
    let agent = check(&[claim, &bytes[..], b"\n"].concat(), &json!({"malformed": 1}));
    let shown = agent.run(&["alerts", "--rejected"]).ends(0);
    assert!(!shown.out.contains('\u{1b}') && !shown.out.contains('\0'), "{shown:?}");
}

#[test]
fn deep_nesting() {
    let line = format!("{{\"event_type\":\"alert\",\"alert\":{}\n", "[".repeat(100_000));
    check(line.as_bytes(), &json!({"malformed": 1}));
    let line =
        format!("{{\"event_type\":\"alert\",\"x\":{}{}}}\n", "{\"a\":".repeat(100_000), "}".repeat(100_000));
    check(line.as_bytes(), &json!({"malformed": 1}));
}

#[test]
fn an_alert_without_what_every_alert_needs() {
    check(alert(3).without("alert").line().as_bytes(), &json!({"missing field": 1}));
}

#[test]
fn half_a_line_that_another_follows() {
    let line = alert(3).line();
    check(format!("{}\n", &line[..150]).as_bytes(), &json!({"malformed": 1}));
}

#[test]
fn an_empty_line_and_a_line_of_blanks() {
    check(b"\n   \n\t\r\n", &json!({}));
}

#[test]
fn an_alert_is_an_alert_however_it_is_spelled() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let spelled = alert(1).line().replace("\"event_type\":\"alert\"", "\"event_type\" : \"\\u0061lert\"");
    assert!(spelled.contains("u0061"));
    agent.feed(spelled);
    agent.feed(alert(2).line().replace('\n', "\r\n"));
    agent.feed(b"\xef\xbb\xbf".iter().copied().chain(alert(3).line().into_bytes()).collect::<Vec<u8>>());
    agent.once().ends(0);
    let titles: Vec<String> =
        agent.json(&["tickets"]).as_array().unwrap().iter().map(|t| t["title"].to_string()).collect();
    assert!(titles.contains(&format!("\"{}\"", eve::title(1))), "{titles:?}");
    assert!(titles.contains(&format!("\"{}\"", eve::title(2))), "{titles:?}");
    let status = agent.status();
    let source = &status["sources"][0];
    let rejected: u64 = source["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(titles.len() as u64 + rejected, 3, "each is a ticket or counted: {source:#}");
}

#[test]
fn text_that_is_not_utf8_is_mended_or_counted() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let line = alert(1).line().into_bytes();
    let at = line.windows(5).position(|w| w == b"valve").unwrap();
    agent.feed([&line[..at], b"\xff\xfe", &line[at..]].concat());
    agent.feed(alert(2).line());
    agent.once().ends(0);
    let tickets = simulator.records("incident").len() as u64;
    let status = agent.status();
    let counted = status["sources"][0]["rejected"]["malformed"].as_u64().unwrap_or(0);
    assert_eq!(tickets + counted, 2, "{status:#}");
    assert!(tickets >= 1);
}

#[test]
fn text_that_would_command_a_terminal_or_an_instance() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let mut hostile = serde_json::from_str::<Value>(&alert(1).line()).unwrap();
    hostile["alert"]["signature"] =
        "\u{1b}[2J[code]<b>x</b>[/code]\r\nSubject: y \u{202e}txt.exe ^NQactive=true".into();
    agent.feed(format!("{hostile}\n"));
    agent.once().ends(0).says("1 ticket created");
    let record = simulator.records("incident").remove(0);
    let text = format!("{}{}", record.get("short_description"), record.get("description"));
    for bad in ["\u{1b}", "[code]", "\u{202e}", "\r"] {
        assert!(!text.contains(bad), "{bad:?} in {text:?}");
    }
    for args in [&["tickets"][..], &["alerts"], &["status"]] {
        let said = agent.run(args).ends(0);
        assert!(!said.out.contains('\u{1b}') && !said.out.contains('\u{202e}'), "{said:?}");
    }
}

#[test]
fn every_record_is_counted_once_by_what_it_is() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.feed(
        "\n\r\n{\"event_type\":\"flow\"}\n{\"event_type\":\"dns\"}\n{\"event_type\": \"flow\"}\nnot JSON\n",
    );
    agent.feed("{\"event_type\":\"of somebody's own\"}\n");
    agent.once().ends(0).says("3 tickets created");
    let source = &agent.status()["sources"][0];
    assert_eq!(source["kind"], "suricata-eve");
    assert_eq!(source["ignored"], json!({ "dns": 1, "flow": 2, "other": 1 }));
    assert_eq!(source["rejected"], json!({ "malformed": 1 }));
    assert_eq!((&source["alerts"], &source["lines"]), (&json!(3), &json!(8)), "{source:#}");
    assert_eq!((&source["filtered"], &source["excluded"]), (&json!({}), &json!({})));
}

#[test]
fn a_sensor_without_a_good_clock() {
    // The alert is worth more than its date: the time of receipt stands in. `ts-error` is what Suricata writes.
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let began = SystemClock.now();
    agent.feed(alert(1).set("timestamp", "ts-error").line());
    agent.feed(alert(2).without("timestamp").line());
    agent.feed(alert(3).set("timestamp", "1970-01-01T00:00:07.000000+0000").line());
    agent.once().ends(0).says("3 tickets created");
    assert_one_each(&simulator, (1..4).map(eve::short));
    let rows = agent.json(&["alerts"]);
    for row in rows.as_array().unwrap().iter().filter(|row| row["alert"]["title"] != eve::title(3)) {
        let time: jiff::Timestamp = row["alert"]["time"].as_str().unwrap().parse().unwrap();
        let time = time.as_microsecond();
        assert!(time >= began.as_micros(), "{row:#}");
    }
}

#[test]
fn a_directory_a_pipe_and_a_file_that_is_not_ours_beside_the_real_file() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    fs::create_dir(agent.log("eve-old.json")).unwrap();
    let pipe = agent.log("eve-pipe.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    std::os::unix::fs::symlink("/nonexistent/eve.json", agent.log("eve-link.json")).unwrap();
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0).says("3 tickets created");
    assert_one_each(&simulator, (0..3).map(eve::short));
    agent.once().ends(0).says("eve-old.json is a directory");
    agent.run(&["status"]).ends(0).says("eve-old.json").says("eve-pipe.json");
}

#[test]
fn a_file_that_is_not_there_yet_or_not_any_more() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    // Where nothing could be read, nothing was done well.
    agent.once().ends(1).says("0 tickets created").says("source eve: no file matches");
    agent.run(&["status"]).ends(0).says("source eve: ");
    let _service = agent.start();
    agent.feed(eve::alerts(0..3));
    let status = agent.until_status("they are read", |status| status["sources"][0]["alerts"] == 3);
    assert_eq!(status["health"], json!([]));
    fs::remove_file(agent.log("eve.json")).unwrap();
    agent.feed(eve::alerts(3..5));
    agent.until_status("the new file is read", |status| status["sources"][0]["alerts"] == 5);
    agent.run(&["sync"]).ends(0);
    assert_one_each(&simulator, (0..5).map(eve::short));
}

#[test]
fn a_line_without_end_takes_no_memory() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    agent.feed(alert(1).line());
    let mut file = fs::OpenOptions::new().append(true).open(agent.log("eve.json")).unwrap();
    let start = b"{\"event_type\":\"alert\",\"payload\":\"";
    file.write_all(start).unwrap();
    let block = vec![b'A'; 1 << 20];
    for _ in 0..20 {
        file.write_all(&block).unwrap();
    }
    agent.until_status("the first is read", |status| status["sources"][0]["alerts"] == 1);
    file.write_all(b"\"}\n").unwrap();
    // Longer than is kept of a line: what the alert is stands near its front.
    let long = alert(2).set("payload", "B".repeat((15 << 20) + (1 << 19))).line();
    file.write_all(long.as_bytes()).unwrap();
    file.write_all(alert(3).line().as_bytes()).unwrap();
    let status = agent.until_status("the rest is read", |status| status["sources"][0]["alerts"] == 3);
    assert_eq!(status["sources"][0]["rejected"], json!({"too long": 1}), "{status:#}");
    agent.run(&["sync"]).ends(0);
    assert_one_each(&simulator, (1..4).map(eve::short));
    agent.run(&["alerts", "--rejected"]).ends(0).says("too long").says("a line of 20971");
    let peak = service.peak_kib();
    assert!(peak <= PEAK_KIB, "{peak} KiB");
}

#[test]
fn many_large_alerts_take_no_memory() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    let service = agent.start();
    let payload = "C".repeat(64 * 1024);
    for round in 0..8_u32 {
        let lines: String = (round * 100..round * 100 + 100)
            .map(|n| alert(n).set("payload", payload.as_str()).line())
            .collect();
        agent.feed(lines);
    }
    agent.until_status("all are read", |status| status["backlog"] == 800);
    let peak = service.peak_kib();
    assert!(peak <= PEAK_KIB, "{peak} KiB");
}
