//! `[[redact]]`: what may not leave this machine does not, whatever tells of it.

use otrelay::simulator::Options;
use serde_json::Value;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::{eve, simulator, simulator_with};

const ADDRESSES: &str =
    "[[redact]]\nfields = [\"source.ip\", \"destination.ip\", \"sensor\"]\nas = \"mask\"\n";
/// Templates that would tell everything.
const ALL: &str = "[rule.action.fields]\ndescription = \"{{ source.ip }} {{ destination.ip }} {{ message }} {{ sensor }}\"\n";

#[test]
fn a_redacted_address_reaches_no_record_of_the_instance_and_the_lists_here_keep_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{ALL}{ADDRESSES}"));
    agent.feed(eve::alerts(1..4));
    agent.once().ends(0);

    let records = simulator.records("incident");
    assert_eq!(records.len(), 3);
    for record in &records {
        let text = serde_json::to_string(&record.fields).unwrap();
        assert!(text.contains("10.64.0.0 10.40.1.0"), "{text}");
        for hidden in ["10.64.0.1", "10.64.0.2", "10.64.0.3", "10.40.1.11", "\"cell-7\""] {
            assert!(!text.contains(hidden), "{hidden} left: {text}");
        }
    }
    let alerts = agent.json(&["alerts"]);
    assert!(alerts.to_string().contains("10.64.0.1"), "{alerts}");
}

#[test]
fn explain_says_what_is_redacted_and_shows_the_request_without_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{ALL}{ADDRESSES}"));
    agent.feed(eve::alerts(1..2));
    let file = agent.log("eve.json");
    let path = file.to_str().unwrap();
    agent
        .run(&["explain", path])
        .ends(0)
        .says("redacted before it leaves: source.ip: mask, destination.ip: mask, sensor: mask");
    let explained = agent.json(&["explain", path]);
    let request: &Value = &explained[0]["requests"][0]["fields"];
    assert!(request["correlation_id"].is_string(), "{explained}");
    assert!(!request.to_string().contains("10.64.0.1"), "{request}");
    assert_eq!(explained[0]["alert"]["source"]["ip"], "10.64.0.1");
}

/// What a sender may say, each field with the value in it.
const TELLING: &str = r#"{"id":"10.1.2.3-hmi-2-7","title":"Stop by HMI-2","message":"hmi-2_old (10.1.2.3)","severity":"critical","sensor":"tap of hmi-2.plant.example","site":"hmi-2","zone":"10.1.2.3/24","category":"from 10.1.2.3","protocols":["x-10.1.2.3","Modbus"],"references":["https://siem.example/?h=hmi%2D2"],"source":{"ip":"10.1.2.3","name":"hmi-2.plant.example"},"destination":{"ip":"10.1.2.9","name":"gateway of hmi-2"}}"#;

#[test]
fn a_redacted_end_is_in_no_field_of_a_ticket_a_row_or_an_event_whatever_quotes_it() {
    let simulator = simulator_with(Options {
        imports: vec!["u_stage=u_findings:correlation_id".parse().unwrap()],
        tables: vec!["u_findings".to_owned()],
        ..Options::default()
    });
    let shown = "{{ id }} {{ sensor }} {{ site }} {{ zone }} {{ category }} {{ protocols }} {{ references }} {{ source }} \
                 {{ destination }} {{ message }} {{ title }} {{ source.name }} {{ destination.name }}";
    let rules = format!(
        "[[source]]\nname = \"feed\"\nkind = \"json-lines\"\npath = \"DIR/log/feed.jsonl\"\n{CRITICAL}\
         [rule.action.fields]\ndescription = \"{shown}\"\n\
         [[rule]]\nname = \"Row\"\n[[rule.action]]\nservicenow = \"prod\"\nreport_type = \"application\"\ntable = \"u_stage\"\n\
         [[rule]]\nname = \"Event\"\n[[rule.action]]\nservicenow = \"prod\"\ntable = \"em_event\"\n\
         [[redact]]\nfields = [\"source.ip\", \"source.name\"]\nas = \"remove\"\n"
    );
    let mut agent = Agent::new(&simulator);
    agent.set_rules(&rules.replace("DIR", agent.dir().to_str().unwrap()));
    agent.feed_to("feed.jsonl", format!("{TELLING}\n"));
    agent.once().ends(0);
    for table in ["incident", "u_findings", "em_event"] {
        let records = simulator.records(table);
        assert_eq!(records.len(), 1, "{table}");
        let text = serde_json::to_string(&records[0].fields).unwrap().to_lowercase();
        assert!(text.contains("10.1.2.9") && text.contains("modbus"), "{table}: {text}");
        for hidden in ["10.1.2.3", "hmi-2", "hmi%2d2"] {
            assert!(!text.contains(hidden), "{table}: {hidden} left: {text}");
        }
    }
}

#[test]
fn check_says_that_devices_go_out_as_they_are() {
    let simulator = simulator();
    let agent =
        Agent::new(&simulator).rules(&format!("{CRITICAL}{ADDRESSES}[devices]\nservicenow = \"prod\"\n"));
    agent.run(&["check"]).ends(0).says("[devices] tells the CMDB addresses and names as they are");
    let agent = agent.rules(&format!("{CRITICAL}{ADDRESSES}"));
    let said = agent.run(&["check"]).ends(0);
    assert!(!said.err.contains("[devices]"), "{said:?}");
}
