//! What an operator types and reads: help, lists, errors, exit codes, the control socket. Snapshots are the interface:
//! who changes one changes what people have learned and what their scripts read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use otrelay::simulator::{Fault, FaultKind, Running};
use serde_json::{Value, json};

use crate::support::agent::{Agent, Said, said, terminate};
use crate::support::eve::{self, alert};
use crate::support::{redact, simulator, until};

const RULES: &str = r#"
[[rule]]
name = "Critical"
min_severity = "critical"
[[rule.action]]
servicenow = "prod"

[[rule]]
name = "OT protocols"
min_severity = "minor"
protocols = ["DNP3", "Siemens S7"]
[[rule.action]]
servicenow = "prod"
[rule.action.fields]
assignment_group = "OT SOC"
"#;

/// An agent with two tickets, one dead letter, one that waits, some that were filtered, one reject.
fn lived(simulator: &Running) -> Agent {
    simulator.add_fault(Fault::new(FaultKind::Status(400)).times(1).on("POST", "/api/now/table/incident"));
    let mut agent = Agent::new(simulator).rules(RULES).destination("max_in_flight = 1");
    agent.feed(alert(1).line());
    agent.once().ends(1);
    agent.feed(alert(2).line() + &alert(2).line() + &alert(3).severity(3).protocol("dnp3").line());
    agent.feed(alert(4).severity(3).line() + &eve::flow(1) + "{\"event_type\":\"alert\",\n");
    agent.once().ends(1);
    agent.set_sync("enabled = false");
    agent.feed(alert(5).line());
    agent.once().ends(75);
    agent.set_sync("");
    agent
}

/// What was said, without what differs from run to run.
fn text(said: &Said, agent: &Agent, simulator: &Running) -> String {
    let Said { code, out, err } = said;
    let text = format!("{out}--- stderr\n{err}--- exit {code}\n");
    let text =
        text.replace(simulator.url(), "https://instance").replace(agent.dir().to_str().unwrap(), "DIR");
    redact::times(&text)
}

/// One command's snapshot.
macro_rules! snapshot {
    ($name:literal, $agent:expr, $simulator:expr, $args:expr) => {
        insta::assert_snapshot!($name, text(&$agent.run($args), &$agent, &$simulator));
    };
}

fn bare(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otrelay"));
    command.env_clear().args(args);
    said(command)
}

#[test]
fn help() {
    let mut all = Vec::new();
    for command in [
        &[][..],
        &["run"],
        &["init"],
        &["check"],
        &["status"],
        &["sync"],
        &["explain"],
        &["alerts"],
        &["tickets"],
        &["queue"],
        &["queue", "list"],
        &["queue", "show"],
        &["queue", "retry"],
        &["queue", "drop"],
        &["config"],
        &["demo"],
        &["simulate"],
        &["instance-setup"],
        &["completions"],
        &["man"],
    ] {
        let said = bare(&[command, &["--help"]].concat()).ends(0);
        all.push(format!("$ otrelay {}\n{}", [command, &["--help"]].concat().join(" "), said.out));
    }
    insta::assert_snapshot!("help", all.join("\n"));
}

#[test]
fn pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("not/yet/there");
    let said = bare(&["man", pages.to_str().unwrap()]).ends(0);
    let named: Vec<PathBuf> = said.out.lines().map(PathBuf::from).collect();
    assert!(named.iter().all(|page| page.is_file()), "{named:?}");
    assert_eq!(fs::read_dir(&pages).unwrap().count(), named.len());
    insta::assert_snapshot!("page_of_sync", fs::read_to_string(pages.join("otrelay-sync.1")).unwrap());
    bare(&["man", "/proc/otrelay"]).ends(1).says("/proc/otrelay");
    bare(&["man"]).ends(2);
    bare(&["completions", "bash"]).ends(0).says("complete -F _otrelay");
    bare(&["completions", "tcsh"]).ends(2);
}

#[test]
fn wrong_usage() {
    insta::assert_snapshot!("unknown_command", bare(&["stauts"]).ends(2).err);
    insta::assert_snapshot!("unknown_option", bare(&["status", "--jsn"]).ends(2).err);
    insta::assert_snapshot!("unknown_state", bare(&["tickets", "--state", "gone"]).ends(2).err);
    bare(&[]).ends(2);
    bare(&["--version"]).ends(0).says(env!("CARGO_PKG_VERSION"));
    let said = bare(&["--config", "/nonexistent/otrelay.toml", "status"]).ends(78);
    insta::assert_snapshot!("no_config", said.err);
}

#[test]
fn before_the_first_run() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    snapshot!("status_never_run", agent, simulator, &["status"]);
    snapshot!("tickets_never_run", agent, simulator, &["tickets"]);
    snapshot!("dry_run_never_run", agent, simulator, &["sync", "--dry-run"]);
}

#[test]
fn when_all_is_fine() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(RULES);
    agent.feed(eve::alerts(1..4));
    snapshot!("run_once", agent, simulator, &["run", "--once"]);
    snapshot!("status_fine", agent, simulator, &["status"]);
    snapshot!("queue_empty", agent, simulator, &["queue", "list"]);
    snapshot!("sync_nothing", agent, simulator, &["sync"]);
}

#[test]
fn when_something_needs_a_person() {
    let simulator = simulator();
    let agent = lived(&simulator);
    snapshot!("status_attention", agent, simulator, &["status"]);
    snapshot!("tickets", agent, simulator, &["tickets"]);
    snapshot!("alerts", agent, simulator, &["alerts"]);
    snapshot!("alerts_filtered", agent, simulator, &["alerts", "--filtered"]);
    // The width of a column is that of a path here.
    let rejected = text(&agent.run(&["alerts", "--rejected"]), &agent, &simulator);
    let narrow: Vec<&str> = rejected.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    insta::assert_snapshot!("alerts_rejected", narrow.join("  "));
    snapshot!("queue_list", agent, simulator, &["queue", "list"]);
    snapshot!("queue_list_dead", agent, simulator, &["queue", "list", "--dead"]);
    snapshot!("queue_show", agent, simulator, &["queue", "show", "1"]);
    snapshot!("sync_dry_run", agent, simulator, &["sync", "--dry-run"]);
    snapshot!("queue_retry_of_a_delivered_one", agent, simulator, &["queue", "retry", "2"]);
    snapshot!(
        "tickets_of_a_title",
        agent,
        simulator,
        &["tickets", "--grep", "00003", "--min-severity", "minor"]
    );
}

#[test]
fn explain() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(RULES);
    let lines =
        alert(1).line() + &alert(2).severity(3).protocol("s7comm").line() + &alert(3).severity(4).line();
    fs::write(agent.dir().join("some.json"), eve::flow(1) + &lines).unwrap();
    snapshot!("explain", agent, simulator, &["explain", "some.json", "-n", "3"]);
    snapshot!("explain_nth", agent, simulator, &["explain", "some.json", "--nth", "9"]);
    let rows = agent.json(&["explain", "some.json", "--nth", "2"]);
    assert_eq!((&rows[0]["line"], &rows[0]["forwarded"]), (&json!(3), &json!(true)));
    assert_eq!(rows[0]["requests"][0]["fields"]["assignment_group"], "OT SOC");
    assert_eq!(simulator.requests(), 0);
    assert!(!agent.state().exists(), "explain stores nothing");
}

#[test]
fn explain_and_demo_take_a_packed_file_as_it_is() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(RULES);
    let path = agent.dir().join("odd name?.json.gz");
    let mut packer =
        flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
    packer.write_all((eve::flow(1) + &alert(7).line()).as_bytes()).unwrap();
    packer.finish().unwrap();
    let file = path.to_str().unwrap();
    let rows = agent.json(&["explain", file]);
    assert_eq!((&rows[0]["line"], &rows[0]["alert"]["title"]), (&json!(2), &json!(eve::title(7))));
    let wrong = agent.run(&["explain", file, "--kind", "snort"]).ends(1);
    assert!(
        wrong.err.contains("kind = \"snort\" is unknown; expected one of \"suricata-eve\", "),
        "{wrong:?}"
    );
    let said = agent.run(&["demo", "--input", file]).ends(0);
    assert!(said.out.contains("1 incidents: 1 critical"), "{said:?}");
    assert_eq!(said.err, "", "the verdict comes first, not what the simulator breaks on purpose");
}

#[test]
fn every_list_is_json_when_asked() {
    let simulator = simulator();
    let agent = lived(&simulator);
    let arrays: [(&[&str], usize); 9] = [
        (&["tickets"], 4),
        (&["alerts"], 4),
        (&["alerts", "--filtered"], 1),
        (&["alerts", "--rejected"], 1),
        (&["queue", "list"], 1),
        (&["queue", "list", "--dead"], 1),
        (&["queue", "list", "--state", "delivered"], 2),
        (&["queue", "list", "-n", "1", "--state", "delivered"], 1),
        (&["sync", "--dry-run"], 1),
    ];
    for (args, count) in arrays {
        let rows = agent.json(args);
        assert_eq!(rows.as_array().unwrap().len(), count, "{args:?}: {rows:#}");
    }
    for args in [&["status"][..], &["queue", "show", "1"], &["check"], &["config", "show"]] {
        assert!(agent.json(args).is_object(), "{args:?}");
    }
    assert!(agent.run(&["config", "schema"]).ends(0).json().is_object());
    let judged = agent.run(&["queue", "retry", "1", "--json"]).ends(0).json();
    assert_eq!((&judged[0]["id"], &judged[0]["done"]), (&json!(1), &json!(true)));
    assert_eq!(agent.run(&["sync", "--json"]).ends(0).json()["created"], 2);
}

#[test]
fn a_dry_run_changes_nothing() {
    let simulator = simulator();
    let agent = lived(&simulator);
    let before = (agent.status()["backlog"].clone(), simulator.requests(), simulator.records("incident"));
    agent.run(&["sync", "--dry-run"]).ends(0).says(&eve::title(5));
    let after = (agent.status()["backlog"].clone(), simulator.requests(), simulator.records("incident"));
    assert_eq!(before, after);
}

#[test]
fn a_list_that_nobody_reads_to_its_end() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    agent.feed(eve::alerts(0..5000));
    agent.once().ends(75);
    let mut child = agent
        .command(&["alerts", "-n", "0", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_second_agent_on_one_state_directory_is_told_who_has_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    let pid = service.id().to_string();
    for args in [&["run"][..], &["run", "--once"]] {
        agent.run(args).ends(75).says(&pid);
    }
    assert_eq!(agent.status()["running"], true);
    service.kill();
    // What a killed one left behind is in nobody's way.
    agent.run(&["status"]).ends(0).says("not running");
    assert_eq!(agent.start().stop(), 0);
}

#[test]
fn a_start_waits_for_a_command_that_works_on_the_store() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    let lock = fs::File::open(agent.state().join("lock")).unwrap();
    lock.lock().unwrap();
    let service = std::thread::scope(|scope| {
        let service = scope.spawn(|| agent.start());
        until("it says that it waits", || {
            agent.said_so_far().contains("waits until that command has ended").then_some(())
        });
        lock.unlock().unwrap();
        service.join().unwrap()
    });
    assert_eq!(agent.status()["running"], true);
    assert_eq!(service.stop(), 0);
    // Told to stop while it waits, it ends in order.
    lock.lock().unwrap();
    fs::remove_file(agent.dir().join("service.err")).unwrap();
    let mut command = agent.command(&["run"]);
    command.stderr(fs::File::create(agent.dir().join("service.err")).unwrap());
    let mut waiting = command.spawn().unwrap();
    until("it waits again", || agent.said_so_far().contains("waits until").then_some(()));
    terminate(&waiting);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_raised_or_named() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    let with = |limit: &str| {
        let mut command = agent.command(&[]);
        let (program, config) = (command.get_program().to_owned(), agent.config_path());
        command = Command::new("sh");
        command
            .env_clear()
            .args(["-c", &format!("{limit}; exec \"$0\" --config \"$1\" run --once")])
            .arg(program)
            .arg(config);
        said(command)
    };
    with("ulimit -n 24")
        .ends(1)
        .says("only 24 open files are allowed, at least 64 are needed: LimitNOFILE=4096");
    with("ulimit -Sn 24").ends(0);
}

/// The database of a state directory.
fn database(agent: &Agent) -> PathBuf {
    let mut files = fs::read_dir(agent.state()).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| fs::read(path).unwrap().starts_with(b"SQLite format 3\0")).unwrap()
}

#[test]
fn a_store_of_a_newer_version_is_left_alone() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    let path = database(&agent);
    let mut bytes = fs::read(&path).unwrap();
    // `user_version` in SQLite's header.
    bytes[60..64].copy_from_slice(&9999_u32.to_be_bytes());
    fs::write(&path, &bytes).unwrap();
    for args in [
        &["run", "--once"][..],
        &["run"],
        &["sync"],
        &["status"],
        &["tickets"],
        &["queue", "drop", "--yes", "1"],
    ] {
        agent.run(args).ends(78).says("9999").says("newer version");
    }
    assert!(fs::read(&path).unwrap() == bytes, "the file was touched");
}

#[test]
fn a_running_service_is_asked_through_its_socket() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    let socket = agent.state().join("otrelay.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // When the next is comes a moment after the record of the first.
    let status = agent.until_status("the first sync is over, the next is to come", |status| {
        !status["last_sync"].is_null() && status["next_sync_at"].as_str() > status["now"].as_str()
    });
    assert_eq!(status["running"], true);
    snapshot!("status_running", agent, simulator, &["status"]);

    agent.feed(eve::alerts(0..4));
    agent.until_status("they are read", |status| status["backlog"] == 4);
    assert_eq!(agent.run(&["sync", "--dry-run", "--json"]).ends(0).json().as_array().unwrap().len(), 4);
    assert_eq!(simulator.requests(), 0, "nothing is pushed before its time");
    agent.run(&["sync"]).ends(0).says("4 created, 0 found there already, 0 to retry, 0 dead");
    assert_eq!(agent.json(&["tickets"]).as_array().unwrap().len(), 4);

    simulator.add_fault(Fault::new(FaultKind::Status(400)).times(1).on("POST", "/api"));
    agent.feed(eve::alerts(4..5));
    agent.until_status("it is read", |status| status["backlog"] == 1);
    agent.run(&["sync"]).ends(1).says("1 dead");
    agent.run(&["queue", "retry", "--all-dead"]).ends(0).says("now");
    agent.until_status("it is sent without waiting for a sync", |s| s["backlog"] == 0 && s["dead"] == 0);
    assert_eq!(agent.json(&["tickets", "--state", "open"]).as_array().unwrap().len(), 5);
    assert_eq!(agent.json(&["queue", "show", "1"])["state"], "delivered");
    assert_eq!(service.stop(), 0);
    assert!(!socket.exists());
}

#[test]
fn nonsense_on_the_socket_is_answered_and_the_service_goes_on() {
    use std::io::{Read as _, Write as _};
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let _service = agent.start();
    let ask = |question: &[u8]| {
        let mut stream = std::os::unix::net::UnixStream::connect(agent.state().join("otrelay.sock")).unwrap();
        // It may hang up before all is said.
        let _ = stream.write_all(question);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(ask(b"{\"ask\":\"dance\"}\n").contains("not a question that this version knows"));
    assert!(!ask(b"\xff\xfe\n").contains("\"ok\""));
    ask(&vec![b'['; 200_000]);
    // Callers that say nothing do not keep the others out.
    let silent: Vec<_> = (0..10)
        .map(|_| std::os::unix::net::UnixStream::connect(agent.state().join("otrelay.sock")).unwrap())
        .collect();
    assert_eq!(agent.status()["running"], true);
    drop(silent);
}

#[test]
fn the_service_ends_in_order_with_all_that_it_took_in() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    agent.feed(eve::alerts(0..500));
    agent.until_status("they are read", |status| status["sources"][0]["alerts"] == 500);
    let mut sync = agent.command(&["sync"]);
    let sync = sync.stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("some are there", || (simulator.records("incident").len() > 20).then_some(()));
    assert_eq!(service.stop(), 0);
    let said = String::from_utf8(sync.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.contains(" created, 0 found there already"), "the one who asked is answered: {said:?}");
    let rows: Value = agent.json(&["queue", "list", "-n", "0", "--state", "claimed"]);
    assert_eq!(rows, json!([]), "what was in flight was settled");
    let there = simulator.records("incident").len();
    agent.once().ends(0).says(&format!("{} tickets created, 0 found", 500 - there));
    assert!(simulator.twins().is_empty());
}
