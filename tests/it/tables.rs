//! Tables that are no incidents: rows of a staging table, changes, the other kinds of ticket; and what a table's schema
//! says before the first alert goes there.

use otrelay::destination::{Destination, Order};
use otrelay::model::ticket::TicketKeys;
use otrelay::model::{Class, DeliveryKind, DestinationName, Fingerprint, Generation, HoldScope, TableName};
use otrelay::simulator::{Fault, FaultKind, Options};

use crate::servicenow::{deliver, destination, order, start};
use crate::support::agent::Agent;
use crate::support::{eve, simulator, simulator_with};

fn staging(coalesce: bool) -> Options {
    let map = if coalesce { "u_stage=u_findings:u_key" } else { "u_stage=u_findings" };
    Options {
        tables: vec!["u_findings".to_owned()],
        imports: vec![map.parse().unwrap()],
        ..Options::default()
    }
}

/// An action with the whole alert, some columns under other names.
const APPLICATION: &str = r#"
[[rule]]
name = "App"
[[rule.action]]
servicenow = "prod"
report_type = "application"
table = "u_stage"
[rule.action.columns]
correlation_id = "u_key"
title = "u_title"
[rule.action.fields]
assignee = "OT SOC"
"#;

#[test]
fn the_whole_alert_goes_through_a_staging_table_once() {
    let simulator = simulator_with(staging(true));
    simulator.add_fault("commit-drop:count=1,path=/api/now/import".parse().unwrap());
    let agent = Agent::new(&simulator).rules(APPLICATION);
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0);
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0);
    let rows = simulator.records("u_findings");
    assert_eq!(rows.len(), 5);
    for row in &rows {
        assert!(row.get("u_key").starts_with("otrelay-"), "{row:?}");
        assert_eq!(row.get("assignee"), "OT SOC");
        for column in [
            "created",
            "u_title",
            "description",
            "engine",
            "severity",
            "appliance",
            "source_ip",
            "destination_ip",
        ] {
            assert!(!row.get(column).is_empty(), "{column}: {row:?}");
        }
        assert!(row.get("title").is_empty() && row.get("correlation_id").is_empty(), "{row:?}");
    }
    assert!(simulator.records("incident").is_empty());
}

#[test]
fn one_rule_may_have_several_actions() {
    let simulator = simulator_with(staging(true));
    let also = "[[rule.action]]\nservicenow = \"prod\"\n\
                [[rule.action]]\nservicenow = \"prod\"\ntable = \"em_event\"\n";
    let agent = Agent::new(&simulator).rules(&format!("{APPLICATION}{also}"));
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    for table in ["u_findings", "incident", "em_alert"] {
        assert_eq!(simulator.records(table).len(), 3, "{table}");
    }
}

fn row(number: u8) -> Order {
    let table = TableName::new("u_stage").unwrap();
    let of = Fingerprint::from_bytes([number; 32]);
    let keys = TicketKeys::derive(&of, &DestinationName::new("prod").unwrap(), &table, Generation(0));
    let fields = [("u_key", keys.correlation_id.as_str()), ("u_title", "Stop command")];
    let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect();
    Order { kind: DeliveryKind::PutRow, table, keys, fields }
}

fn change(number: u8) -> Order {
    let table = TableName::new("change_request").unwrap();
    let of = Fingerprint::from_bytes([number; 32]);
    let keys = TicketKeys::derive(&of, &DestinationName::new("prod").unwrap(), &table, Generation(0));
    Order { table, keys, ..order(number) }
}

#[tokio::test]
async fn a_rows_answer_cut_at_any_byte_makes_no_twin() {
    let simulator = start(staging(true)).await;
    let destination = destination(&simulator);
    for (number, cut) in (0..60).zip((0..).step_by(9)) {
        simulator.add_fault(Fault::new(FaultKind::CommitCut(cut)).on("POST", "/api/now/import").times(1));
        let order = row(number);
        let error = destination.send(&order).await.unwrap_err();
        assert!(error.class == Class::Retry && error.doubtful, "{error}");
        assert!(!destination.send(&order).await.unwrap().created);
    }
    assert_eq!(simulator.records("u_findings").len(), 60);
}

#[tokio::test]
async fn a_changes_answer_cut_at_any_byte_makes_no_twin() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    for (number, cut) in (0..60).zip((0..).step_by(9)) {
        simulator.add_fault(Fault::new(FaultKind::CommitCut(cut)).on("POST", "/api/sn_chg_rest").times(1));
        deliver(&destination, &change(number)).await.unwrap();
    }
    assert_eq!(simulator.records("change_request").len(), 60);
    assert!(simulator.twins().is_empty());
}

#[tokio::test]
async fn a_change_is_made_by_its_own_api_or_by_the_table_api() {
    for change_api in [true, false] {
        let simulator = start(Options { change_api, ..Options::default() }).await;
        let destination = destination(&simulator);
        let sent = destination.send(&change(1)).await.unwrap();
        assert!(sent.created && sent.dropped.is_empty(), "{sent:?}");
        assert!(sent.remote.unwrap().number.starts_with("CHG"));
        let again = destination.send(&change(1)).await.unwrap();
        assert!(!again.created);
        let by = |part: &str| {
            simulator
                .ledger()
                .iter()
                .filter(|e| e.path.contains(part) && e.status.is_some_and(|s| s < 300))
                .count()
        };
        assert_eq!(by("sn_chg_rest/change/normal"), usize::from(change_api));
        let records = simulator.records("change_request");
        assert_eq!((records.len(), records[0].get("state")), (1, "-5"));
    }
}

#[tokio::test]
async fn a_transform_that_fails_condemns_the_row_with_its_words_and_one_that_is_broken_holds_the_table() {
    let imports = vec!["u_stage=incident:correlation_id".parse().unwrap()];
    let simulator = start(Options { imports, ..Options::default() }).await;
    let destination = destination(&simulator);
    let mut closing = row(1);
    closing.fields.insert("state".to_owned(), "6".to_owned());
    let error = destination.send(&closing).await.unwrap_err();
    assert!(error.class == Class::Reject && error.message.contains("Data Policy Exception"), "{error}");

    let imports = vec!["u_stage=u_nowhere".parse().unwrap()];
    let simulator = start(Options { imports, ..Options::default() }).await;
    let error = self::destination(&simulator).send(&row(1)).await.unwrap_err();
    assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Table), "{error}");
}

/// Each kind of ticket starts in the state of its table, and its text says how it is looked up here.
#[test]
fn tickets_of_every_table() {
    let tables = ["incident", "sn_si_incident", "sn_ot_incident", "problem", "change_request"];
    let simulator = simulator();
    let action = |table: &&str| format!("[[rule.action]]\nservicenow = \"prod\"\ntable = \"{table}\"\n");
    let actions: String = tables.iter().map(action).collect();
    let agent = Agent::new(&simulator).rules(&format!("[[rule]]\nname = \"All\"\n{actions}"));
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0);
    for (table, state) in tables.iter().zip(["1", "10", "1", "101", "-5"]) {
        let records = simulator.records(table);
        assert_eq!(records.len(), 2, "{table}");
        for record in &records {
            assert_eq!(record.get("state"), state, "{table}");
            let hint = format!("otrelay explain {}", record.get("correlation_id"));
            assert!(record.get("description").ends_with(&hint), "{}", record.get("description"));
        }
    }
    let health = agent.status()["health"].to_string();
    assert!(!health.contains("dropped-field"), "{health}");
}
