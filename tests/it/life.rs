//! The later life of a ticket: notes for what is seen again, exactly one each; what was closed, deleted or lost by a clone
//! there; opening again; storms.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use otrelay::clock::{Clock, SystemClock};
use otrelay::model::Timestamp;
use otrelay::relay::Report;
use otrelay::simulator::{Fault, FaultKind, Options, Running};
use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::eve;
use crate::support::{simulator, simulator_with};

pub(crate) const SOON: Duration = Duration::from_millis(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);

/// The machine's clock, moved on by hand.
pub(crate) struct Ahead(Mutex<Duration>);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(*self.0.lock().unwrap())
    }
}

/// An agent and an instance whose clock is moved on by hand, the same for both.
pub(crate) struct Plant {
    pub(crate) clock: Arc<Ahead>,
    pub(crate) simulator: Running,
    pub(crate) agent: Agent,
}

impl Plant {
    pub(crate) fn new(action: &str) -> Self {
        Self::with(action, "")
    }

    pub(crate) fn with(action: &str, rule: &str) -> Self {
        Self::at(Options::default(), action, rule)
    }

    pub(crate) fn at(options: Options, action: &str, rule: &str) -> Self {
        let clock = Arc::new(Ahead(Mutex::new(Duration::ZERO)));
        let simulator = simulator_with(Options { clock: clock.clone(), ..options });
        let rules = format!(
            "[[rule]]\nname = \"OT\"\n{rule}\n[[rule.action]]\nservicenow = \"prod\"\n{action}\n\
             [rule.action.fields]\nshort_description = \"{{{{ title }}}}\"\ndescription = \"-\"\n"
        );
        let agent = Agent::new(&simulator).rules(&rules);
        Self { clock, simulator, agent }
    }

    pub(crate) fn once(&self) -> Report {
        self.agent.once_by(self.clock.clone(), SOON)
    }

    pub(crate) fn after(&self, time: Duration) -> &Self {
        *self.clock.0.lock().unwrap() += time;
        self
    }

    /// These are seen (again), and a sync runs.
    fn see(&self, numbers: std::ops::Range<u32>) -> Report {
        self.agent.feed(eve::alerts(numbers));
        self.once()
    }

    pub(crate) fn records(&self) -> Vec<otrelay::simulator::Record> {
        self.simulator.records("incident")
    }

    fn sys_id(&self, at: usize) -> String {
        self.records()[at].get("sys_id").to_owned()
    }

    pub(crate) fn notes(&self, at: usize) -> Vec<String> {
        self.simulator.journal(&self.sys_id(at))
    }

    fn edit(&self, at: usize, fields: &[(&str, &str)]) {
        assert!(self.simulator.edit("incident", &self.sys_id(at), fields));
    }

    pub(crate) fn close(&self, at: usize) {
        self.edit(at, &[("state", "7"), ("close_code", "User error"), ("close_notes", "a test of ours")]);
    }

    pub(crate) fn tickets(&self) -> Vec<Value> {
        self.agent.json(&["tickets", "-n", "0"]).as_array().unwrap().clone()
    }

    /// State and generation of each ticket, oldest first.
    fn states(&self) -> Vec<(String, u64)> {
        let state = |t: &Value| (t["state"].as_str().unwrap().to_owned(), t["generation"].as_u64().unwrap());
        self.tickets().iter().rev().map(state).collect()
    }

    #[track_caller]
    pub(crate) fn has(&self, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect();
        assert_eq!(self.states(), expected);
    }
}

#[test]
fn what_is_seen_again_is_noted_once_in_an_interval() {
    let plant = Plant::new("update_interval = \"2h\"");
    assert_eq!(plant.see(0..1).created, 1);
    // Within the interval nothing is noted, however often it is seen.
    for _ in 0..3 {
        assert_eq!(plant.after(HOUR / 4).see(0..1).updated, 0);
    }
    assert_eq!(plant.notes(0), Vec::<String>::new());
    // When it is over, what was seen meanwhile is noted without another sighting.
    assert_eq!(plant.after(2 * HOUR).once().updated, 1);
    assert_eq!(plant.notes(0).len(), 1);
    assert!(plant.notes(0)[0].contains("4 times"), "{:?}", plant.notes(0));
    assert_eq!(plant.after(3 * HOUR).once().updated, 0);
    assert_eq!(plant.see(0..1).updated, 1);
    assert_eq!((plant.notes(0).len(), plant.records().len()), (2, 1));
    plant.has(&[("open", 0)]);
}

#[test]
fn no_interval_no_notes() {
    let plant = Plant::new("update_interval = \"0s\"");
    plant.see(0..1);
    assert_eq!(plant.after(100 * HOUR).see(0..1).updated, 0);
    assert_eq!(plant.notes(0), Vec::<String>::new());
}

#[test]
fn a_severity_that_rose_is_in_the_note() {
    let plant = Plant::new("update_interval = \"1h\"");
    plant.agent.feed(eve::alert(0).severity(3).line());
    plant.once();
    plant.after(2 * HOUR).agent.feed(eve::alert(0).severity(1).line());
    assert_eq!(plant.once().updated, 1);
    assert!(plant.notes(0)[0].contains("Severity rose from minor to critical."), "{:?}", plant.notes(0));
}

#[test]
fn the_answer_to_a_note_is_lost_at_each_byte_and_there_is_one_note() {
    const CUTS: u64 = 900;
    let plant = Plant::new("update_interval = \"1s\"");
    // A whole answer now and then: after many lost ones in a row the destination would be left alone for a while.
    let mut faults: Vec<u64> = Vec::new();
    for bytes in (0..CUTS).step_by(3) {
        faults.push(bytes);
        if faults.len().is_multiple_of(8) {
            faults.push(1 << 20);
        }
    }
    let number = faults.len() as u32;
    plant.see(0..number);
    for bytes in faults {
        let cut = Fault::new(FaultKind::CommitCut(bytes)).on("PATCH", "/api/now/table/incident");
        plant.simulator.add_fault(cut.times(1));
    }
    let mut report = plant.after(HOUR).see(0..number);
    for _ in 0..8 {
        let next = plant.after(HOUR).once();
        report.add(next);
    }
    assert_eq!((report.updated, report.dead, report.created), (u64::from(number), 0, 0), "{report:?}");
    assert_eq!(plant.simulator.faults_fired(), u64::from(number));
    let mut noted: Vec<String> = Vec::new();
    for entry in plant.simulator.records("sys_journal_field") {
        noted.push(entry.get("element_id").to_owned());
    }
    noted.sort();
    let all = noted.len();
    noted.dedup();
    assert_eq!((all, noted.len()), (number as usize, number as usize));
}

#[test]
fn a_note_that_was_not_written_is_sent_again() {
    let plant = Plant::new("update_interval = \"1s\"");
    plant.see(0..1);
    for (number, fault) in ["drop-before", "drop-before"].into_iter().enumerate() {
        let fault: Fault = fault.parse().unwrap();
        plant.simulator.add_fault(fault.times(1).on("PATCH", "/api/now/table/incident"));
        let report = plant.after(HOUR).see(0..1);
        let report = if report.updated == 0 { plant.after(HOUR).once() } else { report };
        assert_eq!(report.dead, 0, "{report:?}");
        assert_eq!(plant.notes(0).len(), number + 1, "{report:?}");
    }
}

#[test]
fn closed_by_hand_and_seen_again_there_is_a_new_ticket() {
    let plant = Plant::new("");
    // One after the other, so that it is known whose record is the first.
    plant.see(0..1);
    plant.see(1..2);
    plant.after(HOUR).close(0);
    // Nobody sees it: nothing happens to it, but it is known.
    plant.after(HOUR).once();
    plant.has(&[("closed", 0), ("open", 0)]);
    assert_eq!(plant.tickets()[1]["close_notes"], "a test of ours");
    assert_eq!(plant.after(HOUR).see(0..1).created, 1);
    plant.has(&[("closed", 0), ("open", 0), ("open", 1)]);
    assert_eq!(plant.records().len(), 3);
    assert!(plant.simulator.twins().is_empty());
    // What is explained of a later ticket is that one.
    for (at, ticket) in plant.tickets().iter().enumerate() {
        let explained = plant.agent.json(&["explain", ticket["number"].as_str().unwrap()]);
        let fields = &explained[0]["requests"][0]["fields"];
        assert_eq!(fields["correlation_id"], ticket["correlation_id"], "{at}");
        let by_key = plant.agent.json(&["explain", ticket["correlation_id"].as_str().unwrap()]);
        assert_eq!(by_key[0]["ticket"]["number"], ticket["number"]);
    }
}

#[test]
fn resolved_or_cancelled_counts_as_closed() {
    for state in ["6", "8"] {
        let plant = Plant::new("");
        plant.see(0..1);
        plant.edit(0, &[("state", state), ("close_code", "User error"), ("close_notes", "-")]);
        // The sync that takes the sighting in is the one that finds it out.
        assert_eq!(plant.after(HOUR).see(0..1).created, 1, "{state}");
        plant.has(&[(if state == "6" { "resolved" } else { "closed" }, 0), ("open", 1)]);
    }
}

#[test]
fn who_closed_it_after_the_sighting_is_not_fought() {
    let plant = Plant::new("");
    plant.see(0..1);
    // The instance is away while it is seen again, and a person closes the ticket then.
    plant.simulator.add_fault("status=503".parse::<Fault>().unwrap());
    plant.after(HOUR).see(0..1);
    plant.simulator.clear_faults();
    plant.after(HOUR).close(0);
    for _ in 0..2 {
        assert_eq!(plant.after(HOUR).once().created, 0);
        plant.has(&[("closed", 0)]);
    }
    assert_eq!(plant.after(HOUR).see(0..1).created, 1);
}

#[test]
fn deleted_or_lost_by_a_clone_there_is_a_new_ticket() {
    let plant = Plant::new("");
    plant.see(0..3);
    assert!(plant.simulator.delete("incident", &plant.sys_id(0)));
    assert_eq!(plant.after(HOUR).see(0..1).created, 1);
    plant.has(&[("deleted", 0), ("open", 0), ("open", 0), ("open", 1)]);
    plant.simulator.clone_over();
    assert_eq!(plant.after(HOUR).see(0..3).created, 3);
    assert_eq!(plant.records().len(), 3);
    let open = plant.states().iter().filter(|(state, _)| state == "open").count();
    assert_eq!(open, 3);
}

#[test]
fn deleted_is_known_with_the_next_reading_back_though_the_finding_is_not_seen_again() {
    let plant = Plant::new("");
    plant.see(0..3);
    assert!(plant.simulator.delete("incident", &plant.sys_id(1)));
    // So new that it might not be shown yet.
    plant.once();
    plant.has(&[("open", 0), ("open", 0), ("open", 0)]);
    plant.after(HOUR).once();
    // Not found once: it may only be hidden for a while.
    plant.has(&[("open", 0), ("open", 0), ("open", 0)]);
    plant.after(HOUR).once();
    plant.has(&[("open", 0), ("deleted", 0), ("open", 0)]);
    // Its finding gets the next ticket when it is seen again.
    assert_eq!(plant.after(HOUR).see(0..3).created, 1);
    plant.has(&[("open", 0), ("deleted", 0), ("open", 0), ("open", 1)]);
}

#[test]
fn a_clock_that_is_hours_ahead_of_the_instance_keeps_nothing_from_coming_home() {
    let plant = Plant::new("");
    // So little between them that nobody asks for the tickets by their ids.
    let ahead = |minutes| Arc::new(Ahead(Mutex::new(5 * HOUR + minutes * HOUR / 60)));
    let closed = || plant.states().iter().filter(|(state, _)| state == "closed").count();
    plant.agent.feed(eve::alerts(0..2));
    plant.agent.once_by(ahead(0), SOON);
    plant.close(0);
    plant.agent.once_by(ahead(1), SOON);
    assert_eq!(closed(), 1);
    plant.close(1);
    plant.agent.once_by(ahead(2), SOON);
    assert_eq!(closed(), 2);
}

#[test]
fn a_ticket_is_opened_again_where_that_is_wanted() {
    let plant = Plant::new("on_seen_again = \"reopen\"");
    plant.see(0..1);
    plant.edit(0, &[("state", "6"), ("close_code", "User error"), ("close_notes", "-")]);
    let report = plant.after(HOUR).see(0..1);
    assert_eq!((report.created, report.updated), (0, 1), "{report:?}");
    let record = &plant.records()[0];
    assert_eq!((record.get("state"), record.get("reopen_count")), ("2", "1"));
    assert_eq!(plant.notes(0).len(), 1);
    plant.has(&[("open", 0)]);
}

#[test]
fn opening_again_that_is_refused_makes_a_new_ticket() {
    let plant = Plant::new("on_seen_again = \"reopen\"");
    plant.see(0..1);
    plant.close(0);
    let report = plant.after(HOUR).see(0..1);
    assert_eq!((report.created, report.dead), (1, 0), "{report:?}");
    plant.has(&[("closed", 0), ("open", 1)]);
    assert_eq!(plant.records()[0].get("state"), "7");
}

#[test]
fn who_works_on_it_comes_home() {
    let plant = Plant::new("");
    plant.see(0..2);
    plant.edit(1, &[("assigned_to", "abel.tuter"), ("state", "2")]);
    plant.after(HOUR).once();
    let tickets = plant.tickets();
    assert_eq!(tickets[0]["assigned_to"], "Abel Tuter");
    assert_eq!((tickets[1]["assigned_to"].as_str(), tickets[0]["state"].as_str()), (Some(""), Some("open")));
    let id = plant.records()[1].get("correlation_id").to_owned();
    assert_eq!(tickets[0]["correlation_id"], id);
    plant.agent.run(&["tickets"]).ends(0).says("Abel Tuter");
}

#[test]
fn a_storm_folds_into_one_parent() {
    let plant = Plant::with("update_interval = \"10m\"", "max_tickets_per_hour = 5");
    let storm = |numbers: std::ops::Range<u32>| -> String {
        numbers.map(|n| eve::alert(n).signature("Flood", 9).line()).collect()
    };
    plant.agent.feed(storm(0..40));
    plant.agent.feed(eve::alert(100).signature("Another", 10).line());
    let report = plant.once();
    // Five, the parent, and the first of another kind.
    assert_eq!((report.created, report.dead), (7, 0), "{report:?}");
    assert_eq!(plant.agent.status()["folded"], 35);
    let parent = plant.records().into_iter().find(|r| r.get("short_description").contains("storm")).unwrap();
    assert!(parent.get("description").contains("stands for 35 findings"), "{parent:?}");
    assert!(parent.get("description").contains("Top talkers: 10.64."), "{parent:?}");
    let tickets = plant.tickets();
    let folded: Vec<_> = tickets.iter().filter(|t| t["state"] == "folded").collect();
    assert_eq!(folded.len(), 35);
    assert!(folded.iter().all(|t| t["number"] == parent.get("number")));
    // A process that begins anew remembers; the parent is told.
    plant.agent.feed(storm(40..50));
    let report = plant.after(HOUR / 2).once();
    assert_eq!((report.created, report.updated), (0, 1), "{report:?}");
    assert_eq!(plant.agent.status()["folded"], 45);
    // What folded stays folded; after the storm there are tickets again.
    plant.agent.feed(storm(10..12) + &storm(50..52));
    assert_eq!(plant.after(2 * HOUR).once().created, 2);
    assert!(plant.simulator.twins().is_empty());
}

#[test]
fn ten_thousand_alerts_of_five_hundred_findings_take_few_requests() {
    let plant = Plant::new("");
    for _ in 0..4 {
        let lines: String = (0..5).map(|_| eve::alerts(0..500)).collect();
        plant.agent.feed(lines);
        plant.after(HOUR).once();
    }
    assert_eq!(plant.records().len(), 500);
    let requests = plant.simulator.requests();
    assert!(requests <= 600, "{requests} requests");
}

#[test]
fn ten_thousand_alerts_of_five_hundred_findings_take_few_requests_with_a_note_for_each() {
    let plant = Plant::new("");
    for _ in 0..2 {
        let lines: String = (0..10).map(|_| eve::alerts(0..500)).collect();
        plant.agent.feed(lines);
        plant.after(HOUR * 25).once();
    }
    // Each look at all records copies them: one is enough.
    let records = plant.records();
    let notes = records.iter().map(|record| plant.simulator.journal(record.get("sys_id")).len()).sum();
    assert_eq!((records.len(), notes), (500, 500_usize));
    let requests = plant.simulator.requests();
    assert!(requests <= 600, "{requests} requests");
}

#[test]
fn wrong_keys_are_said() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(
        "[[rule]]\nname = \"OT\"\nmax_tickets_per_hour = 0\n[[rule.action]]\ntable = \"u_own\"\n\
         on_cleared = \"resolve\"\nupdate_interval = \"10ms\"\n",
    );
    let said = agent.run(&["check"]).ends(78);
    said.says("not a number of tickets").says("how a record of u_own is resolved");
}

/// The clock of the plant is no other than the instance's.
#[test]
fn times_of_the_plant_are_times_of_the_instance() {
    let plant = Plant::new("");
    plant.see(0..1);
    let made = Timestamp::from_servicenow(plant.records()[0].get("sys_created_on")).unwrap();
    assert!(plant.clock.now().since(made) < HOUR);
}

/// An alert with the packet that it was seen in.
fn with_packet(number: u32, packet: &str) -> String {
    let mut line: Value = serde_json::from_str(&eve::alert(number).line()).unwrap();
    line["packet"] = packet.into();
    line["packet_info"] = serde_json::json!({"linktype": 1});
    format!("{line}\n")
}

const EVIDENCE: &str = "attach = [\"raw\", \"pcap\"]\nupdate_interval = \"1h\"";

/// Names of the files of a ticket, sorted.
fn files(plant: &Plant, sys_id: &str) -> Vec<String> {
    let all = plant.simulator.records("sys_attachment");
    let ours = all.iter().filter(|file| file.get("table_sys_id") == sys_id);
    let mut names: Vec<String> = ours.map(|file| file.get("file_name").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn evidence_is_attached_to_a_ticket_once() {
    let plant = Plant::new(EVIDENCE);
    plant.agent.feed(with_packet(0, "AAECAwQF"));
    plant.agent.feed(eve::alerts(1..2));
    let report = plant.once();
    assert_eq!((report.created, report.updated), (2, 3));
    let names = files(&plant, &plant.sys_id(0));
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].ends_with("-packet.pcap") && names[1].ends_with("-record.json"), "{names:?}");
    assert_eq!(files(&plant, &plant.sys_id(1)).len(), 1);
    let of = |end: &str| {
        let all = plant.simulator.records("sys_attachment");
        let file = all.iter().find(|file| file.get("file_name").ends_with(end)).unwrap().clone();
        plant.simulator.file(file.get("sys_id")).unwrap()
    };
    let capture = of("packet.pcap");
    assert_eq!((capture.len(), &capture[40..]), (46, [0, 1, 2, 3, 4, 5].as_slice()));
    assert!(String::from_utf8(of("record.json")).unwrap().contains("TEST valve opened"));
    // Seen again, and by an agent that lost everything: nothing is attached a second time.
    plant.after(2 * HOUR).see(0..2);
    plant.agent.lose_state();
    plant.once();
    assert_eq!(plant.simulator.records("sys_attachment").len(), 3);
    assert_eq!(plant.agent.status()["backlog"], 0);
}

#[test]
fn the_parent_of_a_storm_has_the_evidence_of_the_finding_that_it_quotes_once() {
    let plant = Plant::with(EVIDENCE, "max_tickets_per_hour = 1");
    let flood = |number: u32| {
        let mut line: Value = serde_json::from_str(&with_packet(number, "AAECAwQF")).unwrap();
        (line["alert"]["signature"], line["alert"]["signature_id"]) = ("Flood".into(), 9.into());
        format!("{line}\n")
    };
    plant.agent.feed((0..6).map(flood).collect::<String>());
    plant.once();
    let parent = plant.records().into_iter().find(|r| r.get("short_description").contains("storm")).unwrap();
    let names = files(&plant, parent.get("sys_id"));
    assert_eq!(names.len(), 2, "{names:?}");
    // Two tickets: what folded brings nothing of its own, now or later, also where all that was known is lost.
    assert_eq!(plant.simulator.records("sys_attachment").len(), 4);
    plant.agent.feed((6..9).map(flood).collect::<String>());
    plant.after(HOUR / 2).once();
    assert_eq!(plant.simulator.records("sys_attachment").len(), 4);
    let text =
        String::from_utf8(plant.simulator.file(&file_of(&plant, parent.get("sys_id"), ".json")).unwrap());
    assert!(parent.get("description").contains("10.64."), "{parent:?}");
    assert!(text.unwrap().contains("\"Flood\""));
}

/// The `sys_id` of a file of a ticket.
fn file_of(plant: &Plant, ticket: &str, end: &str) -> String {
    let all = plant.simulator.records("sys_attachment");
    let is_it = |file: &&otrelay::simulator::Record| {
        file.get("table_sys_id") == ticket && file.get("file_name").ends_with(end)
    };
    all.iter().find(is_it).unwrap().get("sys_id").to_owned()
}

#[test]
fn the_answer_to_an_attachment_is_lost_at_each_byte_and_there_is_one_file() {
    let plant = Plant::new(EVIDENCE);
    let upload = "/api/now/attachment/file";
    for cut in (0..600).step_by(40) {
        plant.simulator.add_fault(Fault::new(FaultKind::CommitCut(cut)).on("POST", upload).times(1));
    }
    plant.simulator.add_fault(Fault::new(FaultKind::CommitDrop).on("POST", upload).times(1));
    plant.agent.feed(eve::alerts(0..20));
    for _ in 0..48 {
        let report = plant.agent.once_briefly(&plant.simulator, plant.clock.clone(), SOON);
        if report.next_at.is_none() && !report.cut {
            break;
        }
        plant.after(HOUR / 4);
    }
    assert_eq!(plant.simulator.faults_fired(), 16);
    let all = plant.simulator.records("sys_attachment");
    let names: std::collections::BTreeSet<_> =
        all.iter().map(|file| (file.get("table_sys_id"), file.get("file_name"))).collect();
    assert_eq!((all.len(), names.len()), (20, 20));
    assert_eq!(plant.agent.status()["backlog"], 0);
}

#[test]
fn where_files_are_refused_tickets_and_notes_go_on() {
    let plant = Plant::new(EVIDENCE);
    plant.simulator.add_fault(Fault::new(FaultKind::HideTable("sys_attachment".to_owned())));
    assert_eq!(plant.see(0..3).created, 3);
    assert_eq!(plant.after(2 * HOUR).see(0..3).updated, 3, "notes");
    assert_eq!(plant.notes(0).len(), 1);
    let status = plant.agent.run(&["status", "--json"]).json();
    assert_eq!(status["backlog"], 3, "{status}");
    assert!(status["health"].to_string().contains("sys_attachment"), "{status}");
    plant.simulator.clear_faults();
    assert_eq!(plant.after(HOUR).once().updated, 3);
    assert_eq!(plant.simulator.records("sys_attachment").len(), 3);
}

#[test]
fn a_limit_or_a_refusal_of_the_attachment_api_holds_files_alone() {
    for fault in ["rate-limit=3000", "status=401", "unscoped"] {
        let plant = Plant::new(EVIDENCE);
        plant.simulator.add_fault(format!("{fault}:path=/api/now/attachment").parse().unwrap());
        assert_eq!(plant.see(0..2).created, 2, "{fault}");
        assert_eq!(plant.see(2..4).created, 2, "{fault}: while files wait");
        assert_eq!(plant.agent.status()["backlog"], 4, "{fault}");
        plant.simulator.clear_faults();
        assert_eq!(plant.after(HOUR).once().updated, 4, "{fault}");
        assert_eq!(plant.simulator.records("sys_attachment").len(), 4, "{fault}");
    }
}

#[test]
fn evidence_of_a_ticket_that_is_gone_is_let_go() {
    let plant = Plant::new(EVIDENCE);
    plant.simulator.add_fault(Fault::new(FaultKind::HideTable("sys_attachment".to_owned())));
    plant.see(0..1);
    assert_eq!(plant.agent.run(&["status", "--json"]).json()["backlog"], 1);
    assert!(plant.simulator.delete("incident", &plant.sys_id(0)));
    plant.simulator.clear_faults();
    plant.after(HOUR).once();
    assert_eq!(plant.simulator.records("sys_attachment").len(), 0);
    assert_eq!(plant.agent.status()["backlog"], 0);
}

/// A ticket that a person orders for the first finding, and what came of it.
fn order(plant: &Plant, kind: &str) -> crate::support::agent::Said {
    let alerts = plant.agent.json(&["alerts"]);
    let id = alerts[0]["id"].to_string();
    plant.agent.run(&["tickets", "create", "--alert", &id, "--type", kind])
}

#[test]
fn a_problem_and_a_change_by_hand_are_linked_both_ways_with_the_incident() {
    let plant = Plant::new("");
    plant.see(0..1);
    for (kind, table, field) in [("problem", "problem", "problem_id"), ("change", "change_request", "rfc")] {
        order(&plant, kind).ends(0).says("beside INC");
        order(&plant, kind).ends(1).says("has a live ticket");
        let report = plant.once();
        assert_eq!((report.created, report.updated), (1, 1), "{report:?}");
        let made = plant.simulator.records(table);
        assert_eq!(made.len(), 1);
        assert!(made[0].get("short_description").contains("TEST valve opened"), "{made:?}");
        let incident = &plant.records()[0];
        assert_eq!(made[0].get("parent"), incident.get("sys_id"));
        assert_eq!(incident.get(field), made[0].get("sys_id"));
    }
    assert_eq!(plant.agent.status()["backlog"], 0);
    // Seen again, nothing more is made; and it is found again by an agent that knows nothing of it.
    assert_eq!(plant.see(0..1).created, 0);
    order(&plant, "incident").ends(1).says("has a live ticket");
    plant
        .agent
        .run(&["tickets", "create", "--alert", "999", "--type", "problem"])
        .ends(1)
        .says("no finding 999");
}

#[test]
fn what_a_person_ordered_stays_when_the_rules_change() {
    let mut plant = Plant::new("");
    plant.see(0..1);
    order(&plant, "problem").ends(0);
    plant.agent.set_rules(crate::support::agent::CRITICAL);
    assert_eq!(plant.once().created, 1);
    assert_eq!(plant.simulator.records("problem").len(), 1);
}

#[test]
fn the_answers_to_a_ticket_by_hand_and_its_link_are_lost_and_there_is_one() {
    let plant = Plant::new("");
    plant.see(0..1);
    let lost = Fault::new(FaultKind::CommitDrop).times(1);
    plant.simulator.add_fault(lost.clone().on("POST", "/api/now/table/problem"));
    plant.simulator.add_fault(lost.on("PATCH", "/api/now/table/incident"));
    order(&plant, "problem").ends(0);
    plant.once();
    plant.after(HOUR / 4).once();
    let made = plant.simulator.records("problem");
    assert_eq!(made.len(), 1);
    assert_eq!(plant.records()[0].get("problem_id"), made[0].get("sys_id"));
    assert_eq!(plant.agent.status()["backlog"], 0);
}
