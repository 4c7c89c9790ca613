//! `kind = "host"`: the machine is a device of its own, and what is wrong with it a system notification that is raised and
//! cleared.

use crate::support::agent::Agent;
use crate::support::simulator;

const NOTIFIED: &str = r#"
[[rule]]
name = "The machine"
report_alerts = false
report_system_notifications = true
[[rule.action]]
servicenow = "prod"
on_cleared = "resolve"

[[source]]
name = "machine"
kind = "host"
"#;

/// The service looks at once, and again after its interval; what it saw is in the store when it ends.
fn looks(agent: &Agent) -> crate::support::agent::Said {
    agent.once().ends(0)
}

#[test]
fn a_disk_over_its_limit_is_one_incident_until_it_is_not() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    // The file system of the tests is hardly empty; where it is, there is nothing to be raised, and nothing is.
    let used = used_percent(agent.dir());
    let limit = |percent: u8, agent: &Agent| {
        format!("{NOTIFIED}disks = \"{}\"\ndisk_percent = {percent}\n", agent.dir().display())
    };
    let text = limit(10, &agent);
    agent.set_rules(&text);
    agent.run(&["check"]).ends(0);
    let raised = u8::from(used >= 10.0);
    looks(&agent);
    looks(&agent);
    assert_eq!(simulator.records("incident").len(), usize::from(raised), "{used} % are used");
    let devices = agent.json(&["devices"]);
    assert_eq!(devices.as_array().unwrap().len(), 1, "{devices:#}");
    agent.run(&["sources", "rewind", "machine"]).ends(1).says("nothing older to read");
    if raised == 1 && used < 94.0 {
        assert!(simulator.records("incident")[0].get("short_description").contains("disk is filling"));
        let text = limit(100, &agent);
        agent.set_rules(&text);
        looks(&agent);
        assert_eq!(simulator.records("incident")[0].get("state"), "6", "it is resolved");
    }
}

/// How full the file system of a path is, as the program reckons it.
fn used_percent(path: &std::path::Path) -> f64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    let usable = stat.f_blocks - stat.f_bfree + stat.f_bavail;
    (usable - stat.f_bavail) as f64 / usable as f64 * 100.0
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    for (line, words) in [
        ("interval = \"1s\"", "at least \"10s\""),
        ("disk_percent = 101", "10 to 100"),
        ("disks = [\"var\"]", "absolute paths"),
        ("process = [\"/usr/bin/suricata\"]", "names of programs"),
        ("process = []", "an empty list"),
        ("path = \"/x\"", "path"),
        ("silent_after = \"1h\"", "silent_after"),
    ] {
        agent.set_rules(&format!("{NOTIFIED}{line}\n"));
        agent.run(&["check"]).ends(78).says(words);
    }
    agent.set_rules(&format!("{NOTIFIED}process = \"suricata\"\n"));
    agent.run(&["check"]).ends(0);
    agent.run(&["config", "show"]).ends(0).says("suricata").says("disk_percent");
}

#[test]
fn a_limit_of_silence_is_a_key_of_each_source() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    let source = "[[source]]\nname = \"zeek\"\nkind = \"zeek\"\npath = \"/nowhere/*.log\"\n";
    agent.set_rules(&format!("{source}silent_after = \"30s\"\n{}", crate::support::agent::CRITICAL));
    agent.run(&["check"]).ends(78).says("silent_after").says("at least \"1m\"");
    agent.set_rules(&format!("{source}silent_after = \"24h\"\n{}", crate::support::agent::CRITICAL));
    agent.run(&["config", "show"]).ends(0).says("silent_after");
}
