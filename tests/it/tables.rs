//! Tables that are no incidents: rows of a staging table, changes, the other kinds of ticket; and what a table's schema
//! says before the first alert goes there.

use std::time::Duration;

use otrelay::clock::{Clock as _, ManualClock, SystemClock};
use otrelay::destination::{Admission, Destination, Order};
use otrelay::model::ticket::TicketKeys;
use otrelay::model::{Class, DeliveryKind, DestinationName, Fingerprint, Generation, HoldScope, TableName};
use otrelay::simulator::{Fault, FaultKind, Options};

use crate::servicenow::{deliver, destination, destination_by, order, start};
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

#[test]
fn the_limit_of_one_api_keeps_nothing_waiting_that_goes_by_another() {
    let also = "[[rule.action]]\nservicenow = \"prod\"\n\
                [[rule.action]]\nservicenow = \"prod\"\ntable = \"em_event\"\n\
                [[rule.action]]\nservicenow = \"prod\"\ntable = \"change_request\"\n";
    let tables = ["u_findings", "incident", "em_alert", "change_request"];
    for (api, waits, count) in [
        ("/api/global/em", "em_alert", 5),
        ("/api/now/import", "u_findings", 5),
        ("/api/sn_chg_rest", "change_request", 5),
        // More than go singly where batches are taken.
        ("/api/now/v1/batch", "", 40),
    ] {
        let simulator = simulator_with(staging(true));
        simulator.add_fault(format!("rate-limit=3000:path={api}").parse().unwrap());
        let agent = Agent::new(&simulator).rules(&format!("{APPLICATION}{also}"));
        agent.feed(eve::alerts(0..count));
        agent.once();
        for table in tables {
            let expected = if table == waits { 0 } else { count as usize };
            assert_eq!(simulator.records(table).len(), expected, "{api}: {table}");
        }
        let refused = simulator.ledger().iter().filter(|entry| entry.status == Some(429)).count();
        assert!(refused <= 4, "{api}: {refused} refusals");
    }
}

fn row(number: u8) -> Order {
    let table = TableName::new("u_stage").unwrap();
    let of = Fingerprint::from_bytes([number; 32]);
    let keys = TicketKeys::derive(&of, &DestinationName::new("prod").unwrap(), &table, Generation(0));
    let fields = [("u_key", keys.correlation_id.as_str()), ("u_title", "Stop command")];
    let fields = fields.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter().collect();
    Order { kind: DeliveryKind::PutRow, table, keys, fields, attachment: None, affected: Vec::new() }
}

fn change(number: u8) -> Order {
    ticket_in("change_request", number)
}

fn ticket_in(table: &str, number: u8) -> Order {
    let table = TableName::new(table).unwrap();
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

/// Of every kind of ticket; of an incident at each byte elsewhere.
#[tokio::test]
async fn a_tickets_answer_cut_at_any_byte_makes_no_twin() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    for table in ["change_request", "problem", "sn_si_incident", "sn_ot_incident"] {
        let path =
            if table == "change_request" { "/api/sn_chg_rest".to_owned() } else { format!("/{table}") };
        for (number, cut) in (0..60).zip((0..).step_by(9)) {
            simulator.add_fault(Fault::new(FaultKind::CommitCut(cut)).on("POST", &path).times(1));
            deliver(&destination, &ticket_in(table, number)).await.unwrap();
        }
        assert_eq!(simulator.records(table).len(), 60, "{table}");
    }
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
            let command: Vec<&str> = hint.split(' ').skip(1).collect();
            agent.run(&command).ends(0).says(record.get("number")).says(&format!("table {table}"));
        }
    }
    agent.run(&["explain", "otrelay-00000000000000000000000000000000"]).ends(1).says("no ticket of that");
    let health = agent.status()["health"].to_string();
    assert!(!health.contains("dropped-field"), "{health}");
}

/// Security Incident Response by its own staging table.
#[test]
fn a_security_incident_by_its_import_table_has_title_severity_and_addresses() {
    let simulator = simulator();
    let action = "servicenow = \"prod\"\nreport_type = \"application\"\ntable = \"sn_si_incident_import\"\n";
    let agent = Agent::new(&simulator).rules(&format!("[[rule]]\nname = \"All\"\n[[rule.action]]\n{action}"));
    agent.feed(eve::alerts(0..1));
    agent.once().ends(0);
    let all = simulator.records("sn_si_incident");
    assert_eq!(all.len(), 1);
    assert!(all[0].get("short_description").contains(&eve::title(0)), "{all:?}");
    assert!(all[0].get("description").contains("Destination: "), "{all:?}");
    assert!(all[0].get("correlation_id").starts_with("otrelay-"), "{all:?}");
}

/// What outsiders may write at length drives out neither the addresses nor how to look it up, and events say it as well.
#[test]
fn a_long_message_leaves_room_for_who_it_was_and_how_to_look_it_up() {
    let simulator = simulator();
    let action = |table: &str| format!("[[rule.action]]\nservicenow = \"prod\"\ntable = \"{table}\"\n");
    let agent = Agent::new(&simulator);
    let path = agent.log("long.jsonl");
    std::fs::write(&path, "").unwrap();
    let source =
        format!("[[source]]\nname = \"long\"\nkind = \"json-lines\"\npath = \"{}\"\n", path.display());
    let agent = agent.rules(&format!(
        "{source}[[rule]]\nname = \"All\"\n{}{}",
        action("incident"),
        action("em_event")
    ));
    let line = serde_json::json!({
        "title": "t".repeat(600), "message": "m[code]".repeat(900), "severity": "critical",
        "category": "c".repeat(900), "references": ["r".repeat(900), "s".repeat(900)],
        "source": {"ip": "10.0.1.7"}, "destination": {"ip": "10.0.0.9"}, "time": format!("{}Z", SystemClock.now().servicenow().replace(' ', "T")),
    });
    agent.feed_to("long.jsonl", format!("{line}\n"));
    agent.once().ends(0);
    for table in ["incident", "em_event"] {
        let all = simulator.records(table);
        let text = all[0].get("description");
        assert!(text.contains("Source: 10.0.1.7") && text.contains("Destination: 10.0.0.9"), "{text}");
        let (_, key) = text.rsplit_once("otrelay explain ").unwrap();
        let said = agent.run(&["explain", key]).ends(0).says("Destination: 10.0.0.9");
        assert!(!said.out.contains("[code]"), "it shows what would be sent");
    }
}

/// A rule with one action for incidents and these fields.
fn incidents(fields: &str) -> String {
    format!(
        "[[rule]]\nname = \"R\"\n[[rule.action]]\nservicenow = \"prod\"\n[rule.action.fields]\n{fields}\n"
    )
}

fn issue(status: &serde_json::Value, code: &str) -> Vec<String> {
    let issues = status["health"].as_array().unwrap().iter().filter(|issue| issue["code"] == code);
    issues.map(|issue| format!("{} | {}", issue["text"], issue["remedy"])).collect()
}

/// The `sys_id` of the record of a table with that value.
fn id_of(simulator: &otrelay::simulator::Running, table: &str, field: &str, value: &str) -> String {
    let records = simulator.records(table);
    records.iter().find(|record| record.get(field) == value).unwrap().get("sys_id").to_owned()
}

#[test]
fn what_a_table_does_not_take_is_left_out_and_said() {
    let simulator = simulator();
    let fields = "u_nosuch = \"x\"\ncategory = \"rubbish\"\nimpact = \"2 - Medium\"\nclose_notes = \"kept\"";
    let agent = Agent::new(&simulator).rules(&incidents(fields));
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0);
    let records = simulator.records("incident");
    assert_eq!(records.len(), 2);
    for record in &records {
        let got = ["impact", "category", "close_notes", "u_nosuch"].map(|field| record.get(field));
        assert_eq!(got, ["2", "inquiry", "kept", ""], "a label is as good as its value");
    }
    let status = agent.status();
    let unknown = issue(&status, "unknown-column");
    assert!(unknown.len() == 1 && unknown[0].contains("`u_nosuch`"), "{unknown:?}");
    let choice = issue(&status, "not-a-choice");
    assert!(
        choice.len() == 1 && choice[0].contains("`rubbish`") && choice[0].contains("network"),
        "{choice:?}"
    );
    assert!(issue(&status, "dropped-field").is_empty() && issue(&status, "schema-unread").is_empty());
}

#[test]
fn a_reference_by_name_is_looked_up_once() {
    let simulator = simulator();
    let fields = "assignment_group = \"OT SOC\"\ncaller_id = \"abel.tuter\"";
    let agent = Agent::new(&simulator).rules(&incidents(fields));
    agent.feed(eve::alerts(0..5));
    agent.once().ends(0);
    let group = id_of(&simulator, "sys_user_group", "name", "OT SOC");
    let records = simulator.records("incident");
    assert_eq!(records.len(), 5);
    assert!(records.iter().all(|record| record.get("assignment_group") == group));
    for table in ["sys_user_group", "sys_user", "sys_dictionary", "sys_choice"] {
        let path = format!("/api/now/table/{table}");
        let asked = simulator.ledger().iter().filter(|entry| entry.path.starts_with(&path)).count();
        let reads_users = usize::from(table == "sys_user_group");
        assert!(asked >= 1 && asked <= 2 + reads_users, "{table}: {asked}");
    }
}

#[test]
fn an_unknown_group_holds_its_action_alone_until_it_is_there() {
    let simulator = simulator();
    let also = "[[rule.action]]\nservicenow = \"prod\"\ntable = \"problem\"\n";
    let rules = format!("{}{also}", incidents("assignment_group = \"Nobody\""));
    let agent = Agent::new(&simulator).rules(&rules);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(75);
    assert_eq!((simulator.records("incident").len(), simulator.records("problem").len()), (0, 3));
    let status = agent.status();
    assert_eq!((&status["backlog"], &status["dead"]), (&3.into(), &0.into()));
    let held = issue(&status, "held");
    assert_eq!(held.len(), 1);
    for word in ["rule `R` waits", "`assignment_group`", "`Nobody`", "sys_user_group", "[rule.action.fields]"]
    {
        assert!(held[0].contains(word), "{word}: {held:?}");
    }
    let group = id_of(&simulator, "sys_user_group", "name", "Network");
    assert!(simulator.edit("sys_user_group", &group, &[("name", "Nobody")]));
    agent.once().ends(0);
    let records = simulator.records("incident");
    assert!(records.len() == 3 && records.iter().all(|record| record.get("assignment_group") == group));
    assert!(issue(&agent.status(), "held").is_empty());
}

#[test]
fn a_mandatory_field_without_a_value_holds_its_action() {
    let simulator = simulator();
    let location = simulator.records("sys_dictionary");
    let location =
        location.iter().find(|c| c.get("element") == "location" && c.get("name") == "task").unwrap();
    assert!(simulator.edit("sys_dictionary", location.get("sys_id"), &[("mandatory", "true")]));
    let mut agent = Agent::new(&simulator).rules(&incidents("category = \"network\""));
    agent.feed(eve::alerts(0..2));
    agent.once().ends(75);
    let held = issue(&agent.status(), "held");
    assert!(held.len() == 1 && held[0].contains("`location` is mandatory in incident"), "{held:?}");
    assert!(simulator.records("incident").is_empty());
    agent.set_rules(&incidents("location = \"Line 4\""));
    agent.once().ends(0);
    assert_eq!(simulator.records("incident").len(), 2);
}

#[test]
fn what_may_not_be_read_is_said_and_holds_nothing() {
    let simulator = simulator();
    let hide = "sys_dictionary,sys_choice,sys_db_object,sys_data_policy_rule,sys_user_group";
    for table in hide.split(',') {
        simulator.add_fault(format!("status=403:path=/api/now/table/{table}").parse().unwrap());
    }
    let agent =
        Agent::new(&simulator).rules(&incidents("assignment_group = \"OT SOC\"\ncategory = \"network\""));
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0);
    assert_eq!(simulator.records("incident").len(), 2);
    let unread = issue(&agent.status(), "schema-unread");
    assert!(
        unread.len() == 1 && unread[0].contains("sys_choice") && unread[0].contains("sys_dictionary"),
        "{unread:?}"
    );
}

#[test]
fn whatever_reads_of_what_a_table_takes_are_answered_tickets_are_made() {
    for fault in ["status=401", "unscoped", "status=500", "rate-limit=3000", "html-login"] {
        let simulator = simulator();
        simulator.add_fault(format!("{fault}:path=/api/now/table/sys_").parse().unwrap());
        let agent = Agent::new(&simulator).rules(&incidents("category = \"network\""));
        agent.feed(eve::alerts(0..2));
        agent.once().ends(0).says("2 tickets created");
        let status = agent.status();
        assert_eq!(issue(&status, "schema-unread").len(), 1, "{fault}: {status}");
        assert!(!status.to_string().contains("our login"), "{fault}: {status}");
    }
}

#[test]
fn a_login_that_may_not_use_the_batch_api_makes_tickets_singly() {
    let simulator = simulator();
    simulator.add_fault("status=401:path=/api/now/v1/batch".parse().unwrap());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..30));
    agent.once().ends(0).says("30 tickets created");
    assert!(simulator.twins().is_empty());
}

fn batches(simulator: &otrelay::simulator::Running) -> usize {
    simulator.ledger().iter().filter(|entry| entry.path.starts_with("/api/now/v1/batch")).count()
}

#[test]
fn many_tickets_go_in_few_requests_where_batches_are_taken() {
    for (batch_api, wanted) in [(true, 5), (false, 1)] {
        let simulator = simulator_with(Options { batch_api, ..Options::default() });
        let agent = Agent::new(&simulator).rules(&incidents("category = \"network\""));
        agent.feed(eve::alerts(0..100));
        agent.once().ends(0).says("100 tickets created");
        assert_eq!(simulator.records("incident").len(), 100);
        assert!(simulator.twins().is_empty());
        let made = batches(&simulator);
        // Two are on their way before it is known that none is taken.
        assert!(made >= wanted && made <= wanted + 1, "{made} batches");
        if batch_api {
            assert!(simulator.requests() < 25, "{} requests", simulator.requests());
        }
    }
}

#[test]
fn what_a_batch_did_not_get_to_goes_with_the_next() {
    let cost = Duration::from_secs(5);
    let simulator = simulator_with(Options { batch_item_cost: cost, ..Options::default() });
    let agent = Agent::new(&simulator).rules(&incidents("category = \"network\""));
    agent.feed(eve::alerts(0..40));
    agent.once().ends(0);
    assert_eq!(simulator.records("incident").len(), 40);
    assert!(simulator.twins().is_empty());
    assert!(batches(&simulator) >= 7, "six fit into one");
}

#[tokio::test]
async fn a_batchs_answer_cut_at_any_byte_makes_no_twin() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    for (number, cut) in (0..30).zip((0..).step_by(97)) {
        let orders: Vec<Order> = (0..5).map(|at| order(number * 5 + at)).collect();
        simulator.add_fault(Fault::new(FaultKind::CommitCut(cut)).on("POST", "/api/now/v1/batch").times(1));
        let error = destination.send_all(&orders).await.unwrap_err();
        assert!(error.class == Class::Retry && error.doubtful, "{error}");
        // Each is looked up before it would be sent again.
        let asked = orders.iter().map(|order| otrelay::destination::Asked::record(order.keys.clone(), true));
        let asked: Vec<_> = asked.collect();
        let found = destination.look_up(DeliveryKind::OpenTicket, &orders[0].table, &asked).await.unwrap();
        assert_eq!(found.found.len(), 5, "cut at {cut}");
    }
    assert_eq!(simulator.records("incident").len(), 150);
}

#[tokio::test]
async fn an_item_is_judged_as_if_it_had_come_alone() {
    let simulator = start(Options::default()).await;
    let destination = destination(&simulator);
    destination.send(&order(1)).await.unwrap();
    let mut refused = order(2);
    refused.fields.insert("state".to_owned(), "6".to_owned());
    let orders = [order(1), refused, order(3)];
    let items = destination.send_all(&orders).await.unwrap();
    let of = |item: &otrelay::destination::Item| match item {
        otrelay::destination::Item::Done(done) => match done.as_ref() {
            Ok(sent) => format!("created {}", sent.created),
            Err(error) => format!("{:?} {}", error.class, error.message.contains("Data Policy Exception")),
        },
        otrelay::destination::Item::NotDone => "left".to_owned(),
    };
    assert_eq!(items.iter().map(of).collect::<Vec<_>>(), ["created false", "Reject true", "created true"]);
}

#[tokio::test]
async fn after_an_upgrade_of_the_instance_what_its_tables_take_is_read_again() {
    let simulator = start(Options::default()).await;
    let clock = ManualClock::at(SystemClock.now());
    let destination = destination_by(&simulator, clock.clone()).checking();
    let read = || simulator.ledger().iter().filter(|e| e.path.ends_with("sys_dictionary")).count();
    let admit = async || {
        assert!(matches!(destination.admit(&order(1), &|| true).await, Ok(Admission::Fits(_))));
        read()
    };
    let first = admit().await;
    clock.advance(Duration::from_hours(2));
    assert_eq!(admit().await, first, "it is believed for a day");
    let properties = simulator.records("sys_properties");
    let build = properties.iter().find(|row| row.get("name") == "glide.buildname").unwrap();
    assert!(simulator.edit("sys_properties", build.get("sys_id"), &[("value", "Brazil")]));
    assert_eq!(admit().await, first, "the build was asked for within the hour");
    clock.advance(Duration::from_hours(2));
    assert_eq!(admit().await, first * 2);
}

#[test]
fn an_acl_that_hides_our_key_makes_no_twin_and_touches_no_stranger() {
    let simulator = simulator();
    simulator.add_fault("hide-field=correlation_id".parse().unwrap());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    let first = agent.run(&["run", "--once"]);
    agent.feed(eve::alerts(0..3));
    let second = agent.run(&["run", "--once"]);
    let ids = crate::support::values(&simulator, "incident", "sys_id");
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert!(ids.len() <= 3 && different.len() == ids.len(), "{first:#?} {second:#?}");
    let health = agent.status()["health"].to_string();
    assert!(health.contains("correlation_id"), "{health}");
    // Where the ACL is gone, everything goes on.
    simulator.clear_faults();
    agent.run(&["queue", "retry", "--all"]);
    agent.run(&["run", "--once"]);
    assert_eq!(simulator.records("incident").len(), 3, "{:#}", agent.status());
}

#[test]
fn an_acl_that_hides_a_field_is_said_and_the_ticket_is_made() {
    let simulator = simulator();
    simulator.add_fault("hide-field=description".parse().unwrap());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0).says("2 tickets created");
    let dropped = issue(&agent.status(), "dropped-field");
    assert!(dropped.iter().any(|text| text.contains("description")), "{dropped:?}");
}

#[test]
fn a_ticket_that_a_rule_moved_to_another_domain_is_taken_for_deleted() {
    let simulator = simulator();
    simulator.add_fault(format!("other-domain={}", eve::title(1)).parse().unwrap());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    agent.once().ends(0).says("2 tickets created");
    agent.run(&["sync"]).ends(0);
    assert_eq!(simulator.records("incident").len(), 2, "nothing is seen again, so nothing is made again");
    // Seen again: the look does not find it, and both that it may be are said, with what to do.
    agent.feed(eve::alerts(0..2));
    let synced = agent.once().ends(0);
    assert!(synced.err.contains("deleted there or lost in a clone, or moved to a domain"), "{}", synced.err);
    let tickets: serde_json::Value =
        serde_json::from_str(&agent.run(&["tickets", "--json", "-n", "0"]).ends(0).out).unwrap();
    let gone = tickets.as_array().unwrap().iter().find(|ticket| ticket["state"] == "deleted").unwrap();
    let explained = agent.run(&["explain", gone["number"].as_str().unwrap()]).ends(0);
    explained.says("moved to a domain").says("let the user see that domain");
    assert!(simulator.twins().is_empty(), "{:?}", simulator.twins());
}
