//! Zeek's logs and files of JSON: every line is accounted for, across a rotation and a restart in mid-file.

use std::fs;

use serde_json::json;

use crate::support::agent::Agent;
use crate::support::simulator;

const RULES: &str = r#"
[[rule]]
name = "All"
[[rule.action]]
servicenow = "prod"
"#;

fn agent(simulator: &otrelay::simulator::Running) -> Agent {
    let agent = Agent::new(simulator);
    let log = agent.log("*.log").display().to_string();
    let json = agent.log("*.jsonl").display().to_string();
    agent.rules(&format!(
        "[[source]]\nname = \"zeek\"\nkind = \"zeek\"\npath = \"{log}\"\n\
         [[source]]\nname = \"files\"\nkind = \"json-lines\"\npath = \"{json}\"\n{RULES}"
    ))
}

fn header(path: &str, fields: &str) -> String {
    format!(
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t{path}\n#fields\t{}\n",
        fields.replace(' ', "\t")
    )
}

/// A notice of this source address.
fn notice(host: u8) -> String {
    format!("1521911720.5\tC1\tScan::Port_Scan\t10.0.0.{host} scanned at least 15 hosts\t10.0.0.{host}\n")
}

const NOTICE: &str = "ts uid note msg src";

#[test]
fn each_line_is_accounted_for() {
    let simulator = simulator();
    let agent = agent(&simulator);
    agent.feed_to(
        "notice.log",
        header("notice", NOTICE) + &notice(1) + &notice(2) + &notice(1) + "1.0\tcut\n",
    );
    let weird = header("weird", "ts name peer");
    agent.feed_to("weird.log", weird + "1.0\tdnp3_header_lacks_magic\tzeek\n1.0\tbad_HTTP_request\tzeek\n");
    agent.feed_to("conn.log", header("conn", "ts uid proto") + "1.0\tC1\ttcp\n2.0\tC2\tudp\n");
    agent.feed_to("known_hosts.log", header("known_hosts", "ts host") + "1.0\t10.0.0.7\n");
    agent.once().ends(0).says("3 tickets created");
    let zeek = agent.source("zeek");
    assert_eq!(
        (&zeek["lines"], &zeek["alerts"], &zeek["new"], &zeek["repeats"]),
        (&json!(9), &json!(4), &json!(3), &json!(1))
    );
    assert_eq!(zeek["ignored"], json!({ "conn": 2, "known_hosts": 1, "weird": 1 }));
    assert_eq!((&zeek["rejected"], &zeek["devices"]), (&json!({ "malformed": 1 }), &json!(1)));
    let mut titles: Vec<_> = agent
        .json(&["alerts"])
        .as_array()
        .unwrap()
        .iter()
        .map(|alert| alert["alert"]["title"].to_string())
        .collect();
    titles.sort();
    assert_eq!(titles, ["\"Scan: Port Scan\"", "\"Scan: Port Scan\"", "\"dnp3_header_lacks_magic\""]);
}

#[test]
fn a_restart_in_mid_file_and_a_rotation() {
    let simulator = simulator();
    let agent = agent(&simulator);
    agent.feed_to("notice.log", header("notice", NOTICE) + &notice(1));
    agent.once().ends(0).says("1 ticket created");
    // The header is behind the cursor now.
    agent.feed_to("notice.log", notice(2));
    agent.once().ends(0).says("1 ticket created");
    // Renamed with a rest that was not read; the new file has another header.
    agent.feed_to("notice.log", notice(3));
    fs::rename(agent.log("notice.log"), agent.log("notice-2026-11-27-10-00-00.log")).unwrap();
    let other = header("notice", "src note ts") + "10.0.0.4\tScan::Port_Scan\t1521911720.5\n";
    agent.feed_to("notice.log", other);
    agent.once().ends(0).says("2 tickets created");
    let zeek = agent.source("zeek");
    assert_eq!((&zeek["lines"], &zeek["new"], &zeek["rejected"]), (&json!(4), &json!(4), &json!({})));
}

#[test]
fn files_of_json() {
    let simulator = simulator();
    let agent = agent(&simulator);
    let lines = [
        r#"{"title":"Door open","severity":"minor","source":"10.0.0.1"}"#,
        r#"{"class_uid":2004,"severity_id":5,"finding_info":{"uid":"f1","title":"Program download"}}"#,
        r#"{"class_uid":4001}"#,
        r#"{"severity":"minor"}"#,
        "[]",
    ];
    agent.feed_to("a.jsonl", lines.join("\n") + "\n");
    agent.once().ends(0).says("2 tickets created");
    let files = agent.source("files");
    assert_eq!(
        (&files["lines"], &files["alerts"], &files["ignored"]),
        (&json!(5), &json!(2), &json!({ "ocsf": 1 }))
    );
    assert_eq!(files["rejected"], json!({ "malformed": 1, "missing field": 1 }));
}
