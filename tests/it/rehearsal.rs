//! What a change of rules is rehearsed with: exclusions that are counted, cases of the config, and recorded alerts
//! under another config.

use std::fs;

use serde_json::json;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::eve::alert;
use crate::support::simulator;

#[test]
fn what_is_excluded_is_counted_by_name_and_shown() {
    let simulator = simulator();
    let exclude = r#"
[[exclude]]
name = "lab"
addresses = ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12"]
titles = ["*"]
"#;
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{exclude}"));
    agent.feed(alert(1).line() + &alert(2).line());
    let before = agent.run(&["check"]).ends(0);
    assert!(!before.err.contains("exclude"), "{before:#?}");
    agent.once().ends(0).says("0 tickets created");
    let source = &agent.status()["sources"][0];
    assert_eq!((&source["alerts"], &source["new"]), (&json!(2), &json!(0)));
    assert_eq!((&source["excluded"], &source["filtered"]), (&json!({ "lab": 2 }), &json!({})));
    agent.run(&["alerts", "--filtered"]).ends(0).says("excluded: lab");
}

fn case(name: &str, expect: &str) -> String {
    let line = alert(1).line();
    format!(
        "[[test]]\nname = \"{name}\"\ninput = {{ kind = \"suricata-eve\", line = '{}' }}\nexpect = {{ {expect} }}\n",
        line.trim()
    )
}

#[test]
fn cases_of_the_config() {
    let simulator = simulator();
    let good = case(
        "a critical alert is an incident",
        "rules = [\"Critical\"], severity = \"critical\", fields = { impact = \"1\" }",
    );
    let mut agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{good}"));
    agent.run(&["check"]).ends(0);
    agent.run(&["test"]).ends(0).says("ok     a critical alert is an incident").says("1 passed, 0 failed");
    let bad = case("it is minor", "rules = [], severity = \"minor\", fields = { impact = \"3\" }");
    let zeek = "[[test]]\nname = \"a notice\"\ninput = { kind = \"zeek\", file = \"notice.log\", line = '{\"ts\":1,\"note\":\"Scan::Port_Scan\"}' }\n\
        expect = { rules = [], severity = \"major\", engine = \"anomaly\" }\n";
    agent.set_rules(&format!("{CRITICAL}{good}{bad}{zeek}"));
    let said = agent.run(&["test"]).ends(1).says("FAILED it is minor").says("2 passed, 1 failed");
    assert!(said.out.contains("severity: expected minor, found critical"), "{said:#?}");
    assert!(said.out.contains("rules: expected [], found [Critical]"), "{said:#?}");
    assert!(said.out.contains("field impact: expected \"3\", found \"1\""), "{said:#?}");
    let reports = agent.run(&["test", "--json"]).ends(1).json();
    assert_eq!((&reports[0]["passed"], &reports[1]["passed"]), (&json!(true), &json!(false)));
    assert!(reports[0]["correlation_id"].as_str().unwrap().starts_with("otrelay-"));
    agent.run(&["test", "notice"]).ends(0).says("1 passed, 0 failed");
    agent.set_rules(CRITICAL);
    agent.run(&["test"]).ends(1).says("the config has no [[test]]");
    agent.set_rules(&format!(
        "{CRITICAL}[[test]]\nname = \"x\"\ninput = {{ kind = \"snort\", line = '' }}\nexpect = {{}}\n"
    ));
    agent.run(&["check"]).ends(78).says("there is no such kind of source").says("always holds");
}

#[test]
fn recorded_alerts_under_another_config() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(alert(1).line() + &alert(1).line() + &alert(2).line() + &alert(3).severity(2).line());
    let file = agent.log("eve.json").display().to_string();
    let new = agent.dir().join("new.toml");
    let text = fs::read_to_string(agent.config_path()).unwrap();
    fs::write(&new, &text).unwrap();
    let against = new.display().to_string();
    agent.run(&["replay", &file, "--against", &against]).ends(0).says("0 of 4 alerts would go elsewhere");
    fs::write(&new, text.replace("min_severity = \"critical\"", "min_severity = \"major\"")).unwrap();
    let said =
        agent.run(&["replay", &file, "--against", &against]).ends(1).says("1 of 4 alerts would go elsewhere");
    assert!(said.out.contains("now:  nowhere (below every rule's severity)"), "{said:#?}");
    assert!(said.out.contains("then: incident at prod by \"Critical\""), "{said:#?}");
    fs::write(
        &new,
        text.replace("servicenow = \"prod\"\n", "servicenow = \"prod\"\ntable = \"sn_si_incident\"\n"),
    )
    .unwrap();
    let report = agent.run(&["replay", &file, "--against", &against, "--json"]).ends(1).json();
    assert_eq!((&report["alerts"], &report["changed"]), (&json!(4), &json!(3)));
    assert_eq!(report["changes"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&report["changes"][0]["alerts"], report["changes"][0]["title"].is_string()),
        (&json!(2), true)
    );
    agent.run(&["replay", &file, "--against", "/nowhere/new.toml"]).ends(78);
}
