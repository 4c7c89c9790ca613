//! Nothing waits, and nothing is left out, without words that name the key or the step that changes it.

use std::fs;

use crate::support::agent::Agent;
use crate::support::eve::{self, alert};
use crate::support::{simulator, until};

/// How often these words were logged.
fn logged(agent: &Agent, words: &str) -> usize {
    agent.logged().lines().filter(|line| line.contains(words)).count()
}

/// Other lines in place of some of the config, until it is written again.
fn edit(agent: &Agent, from: &str, to: &str) {
    let text = fs::read_to_string(agent.config_path()).unwrap();
    assert!(text.contains(from), "no `{from}` in {text}");
    fs::write(agent.config_path(), text.replace(from, to)).unwrap();
}

#[test]
fn a_source_that_cannot_be_read_is_said_once_when_it_begins_changes_and_ends() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.run(&["check"]).ends(0).says("warning: source eve: path: no file matches");
    let service = agent.start();
    let sick = |status: &serde_json::Value| status["health"][0]["code"] == "source";
    agent.until_status("nothing matches", sick);
    let none = "source eve: no file matches";
    until("it is logged", || (logged(&agent, none) == 1).then_some(()));
    agent.run(&["status"]).ends(0).says(none).says("see `path` of this [[source]]");

    fs::create_dir(agent.log("eve.json")).unwrap();
    agent.run(&["check"]).ends(0).says("eve.json cannot be read: it is a directory");
    until("the change is logged", || {
        (logged(&agent, "eve.json is a directory, not a file") == 1).then_some(())
    });
    let text =
        |status: &serde_json::Value| status["health"][0]["text"].as_str().unwrap_or_default().to_owned();
    agent.until_status("the change is shown", |status| {
        text(status).contains("eve.json is a directory, not a file")
    });

    fs::remove_dir(agent.log("eve.json")).unwrap();
    agent.feed(alert(1).line());
    agent.until_status("it is read", |status| status["health"] == serde_json::json!([]));
    until("the end is logged", || {
        (logged(&agent, "source eve is read again without trouble") == 1).then_some(())
    });
    assert_eq!(service.stop(), 0);
    assert_eq!(logged(&agent, "WARN"), 2 + logged(&agent, none).saturating_sub(1), "{}", agent.logged());
}

#[test]
fn once_does_not_end_well_where_no_source_could_be_read_whatever_its_kind() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    // Nothing matches, and a listener is none of `--once`.
    agent.append_config(
        "\n[[source]]\nname = \"siem\"\nkind = \"syslog\"\nlisten = [\"tcp://127.0.0.1:8515\"]\n",
    );
    agent
        .once()
        .ends(1)
        .says("source siem: it listens, and only the service does that")
        .says("no file matches");
    agent.feed(alert(1).line());
    agent.once().ends(0).says("1 ticket created");
    agent.restore_config();

    // A sensor that is away, alone.
    let token = agent.dir().join("token");
    crate::support::agent::private(&token, "t");
    let sensor = format!(
        "kind = \"defender-sensor\"\nurl = \"https://127.0.0.1:1\"\ntoken = {{ file = \"{}\" }}",
        token.display()
    );
    let path = format!("kind = \"suricata-eve\"\npath = \"{}/log/eve*.json\"", agent.dir().display());
    edit(&agent, &path, &sensor);
    agent.once().ends(1).says("source eve: could not connect to 127.0.0.1:1").says("nothing of it is read");
    agent.run(&["status"]).ends(0).says("nothing of it is read").says("check that 127.0.0.1:1 is right");
}

#[test]
fn waiting_for_the_budget_names_its_key() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).requests_per_hour(20);
    agent.feed(eve::alerts(0..60));
    agent
        .once()
        .ends(75)
        .says("tickets created")
        .says("waits: prod: `requests_per_hour = 20`: ")
        .says("next try in ");
    agent.run(&["sync"]).ends(75).says("`requests_per_hour = 20`: ").says("the rest goes on at ");
}

#[test]
fn what_waits_for_critical_alerts_alone_says_so() {
    let simulator = simulator();
    let agent = Agent::new(&simulator)
        .requests_per_hour(20)
        .rules("[[rule]]\nname = \"All\"\n[[rule.action]]\nservicenow = \"prod\"\n");
    agent.feed((0..60).map(|n| alert(n).severity(3).line()).collect::<String>());
    agent
        .once()
        .ends(75)
        .says("`requests_per_hour = 20`: ")
        .says("are kept for critical alerts; the rest goes on at ");
}

#[test]
fn a_hold_is_said_with_its_remedy_and_when_it_is_tried_again() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.secrets("wrong", "admin");
    agent.feed(alert(1).line());
    agent
        .once()
        .ends(75)
        .says("waits: prod: could not get a token")
        .says("client_secret")
        .says("tried again at ");
}

#[test]
fn old_alerts_are_counted_with_the_key_that_left_them_out() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    edit(&agent, "backfill = \"all\"", "backfill = \"36h\"");
    agent.feed(eve::alerts(0..437));
    let file = agent.log("eve.json");
    agent
        .run(&["explain", file.to_str().unwrap()])
        .ends(0)
        .says("forwarded: matched")
        .says("it is older than `backfill = \"36h\"`");
    agent
        .once()
        .ends(0)
        .says("437 alerts are older than `backfill = \"36h\"`: counted, shown by `otrelay alerts --filtered`")
        .says("0 tickets created");
    // Said of this run, not of all.
    let again = agent.once().ends(0);
    assert!(!again.err.contains("older"), "{again:?}");
}

#[test]
fn a_dry_run_before_the_first_start_reads_the_sources_and_keeps_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    let plans =
        agent.run(&["sync", "--dry-run", "--json"]).ends(0).says("the sources were read for this").json();
    assert_eq!(plans.as_array().unwrap().len(), 3);
    assert!(!agent.state().exists(), "nothing is kept");
    assert_eq!(simulator.records("incident").len(), 0);
    agent.once().ends(0).says("3 tickets created");
    agent.run(&["sync", "--dry-run"]).ends(0).says("0 would be sent");
}

#[test]
fn explain_says_what_an_exclusion_takes() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.append_config("\n[[exclude]]\nname = \"valve tests\"\ntitles = [\"TEST*\"]\n");
    agent.feed(alert(1).line());
    let file = agent.log("eve.json");
    agent.run(&["explain", file.to_str().unwrap()]).ends(0).says("not forwarded: excluded: valve tests");
}

#[test]
fn two_sources_that_can_read_one_file_are_warned_about() {
    let agent = Agent::at("http://127.0.0.1:1");
    let config = fs::read_to_string(agent.config_path()).unwrap();
    let pattern = agent.log("*.json");
    let more =
        format!("\n[[source]]\nname = \"all\"\nkind = \"suricata-eve\"\npath = \"{}\"\n", pattern.display());
    fs::write(agent.config_path(), config + &more).unwrap();
    agent.run(&["check"]).says("can lead to the same file");
}

#[test]
fn what_waits_while_sync_is_off_is_said_with_the_key_that_turns_it_on() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    agent.feed("");
    let service = agent.start();
    // Somebody's wish, and nothing waits for it: no trouble.
    agent.until_status("it is up", |status| status["sync_off"] == true);
    agent.run(&["status"]).ends(0).says("next sync    none: `enabled = false` in [sync]");
    assert_eq!(agent.status()["health"], serde_json::json!([]));
    agent.feed(eve::alerts(0..3));
    agent.until_status("they wait", |status| status["backlog"] == 3);
    let said = || {
        let said = agent.run(&["status"]).ends(0).says("3 deliveries wait, the first since ");
        said.says("nothing is pushed (E134)").says("set `enabled = true` in [sync]");
    };
    said();
    assert_eq!(service.stop(), 0);
    said();
    agent.set_sync("");
    agent.once().ends(0);
    assert_eq!(agent.status()["health"], serde_json::json!([]));
}

#[test]
fn an_ordered_sync_says_that_the_hour_has_no_requests_left_for_reading_back() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).requests_per_hour(14);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    let used = agent.status()["destinations"][0]["requests_this_hour"].as_i64().unwrap();
    assert!((6..12).contains(&used), "more than half, and something is left: {used}");
    let (id, edits) = (simulator.records("incident")[0].get("sys_id").to_owned(), [("state", "2")]);
    assert!(simulator.edit("incident", &id, &edits));
    let words = format!("{used} of the 14 requests that `requests_per_hour` allows were made in this hour");
    agent.run(&["sync"]).ends(0).says("not all read back: prod: ").says(&words).says("reads the rest from ");
    // The same by the running service, and in its log.
    let service = agent.start();
    agent.run(&["sync"]).ends(0).says(&words);
    assert_eq!(logged(&agent, "tickets were not all read back: prod: "), 1, "{}", agent.logged());
    assert_eq!(service.stop(), 0);
}
