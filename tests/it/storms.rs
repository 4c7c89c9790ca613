//! What ends and is there again: resolving that failed, findings that come and go, storms and their parents.

use std::fs;

use otrelay::clock::Clock as _;
use otrelay::relay::Report;
use otrelay::simulator::{Fault, Options};

use crate::life::{HOUR, Plant, SOON};

/// A plant whose findings end, too: a source of JSON lines.
pub(crate) struct Line(pub(crate) Plant);

#[expect(clippy::unwrap_used, reason = "helpers of tests")]
impl Line {
    pub(crate) fn new(action: &str, rule: &str) -> Self {
        Self::at(Options::default(), action, rule)
    }

    /// One whose instance is as these options say.
    pub(crate) fn at(options: Options, action: &str, rule: &str) -> Self {
        let mut line = Self(Plant::at(options, "", ""));
        fs::write(line.0.agent.log("line.jsonl"), "").unwrap();
        line.acts(action, rule);
        line
    }

    /// Another action from now on.
    pub(crate) fn acts(&mut self, action: &str, rule: &str) {
        let path = self.0.agent.log("line.jsonl");
        let rules = format!(
            "[[source]]\nname = \"line\"\nkind = \"json-lines\"\npath = \"{}\"\n\
             [[rule]]\nname = \"Line\"\nmin_severity = \"minor\"\n{rule}\n[[rule.action]]\nservicenow = \"prod\"\n{action}\n",
            path.display()
        );
        self.0.agent.set_rules(&rules);
    }

    /// A source tells of a finding of this number.
    pub(crate) fn tell(&self, number: u32, severity: &str, state: &str) {
        let time = self.0.clock.now().servicenow().replace(' ', "T");
        let line = serde_json::json!({
            "title": "scan", "severity": severity, "state": state, "time": format!("{time}Z"),
            "source": {"ip": format!("10.0.1.{number}")}, "destination": {"ip": "10.0.0.9"},
        });
        self.0.agent.feed_to("line.jsonl", format!("{line}\n"));
    }

    pub(crate) fn raise(&self, numbers: std::ops::Range<u32>) -> Report {
        numbers.for_each(|number| self.tell(number, "major", "raised"));
        self.0.after(HOUR / 30).once()
    }

    pub(crate) fn clear(&self, numbers: std::ops::Range<u32>) -> Report {
        numbers.for_each(|number| self.tell(number, "major", "cleared"));
        self.0.after(HOUR / 30).once()
    }

    /// State of each record there, oldest first.
    fn there(&self) -> Vec<String> {
        let mut all = self.0.records();
        all.sort_by(|a, b| a.get("number").cmp(b.get("number")));
        all.iter().map(|record| record.get("state").to_owned()).collect()
    }

    fn parents(&self) -> Vec<otrelay::simulator::Record> {
        let mut all = self.0.records();
        all.retain(|record| record.get("short_description").contains("[storm]"));
        all.sort_by(|a, b| a.get("number").cmp(b.get("number")));
        all
    }

    pub(crate) fn notes_of(&self, record: &otrelay::simulator::Record) -> Vec<String> {
        self.0.simulator.journal(record.get("sys_id"))
    }

    /// Changes of tickets fail until the faults are cleared.
    pub(crate) fn fails(&self, fault: &str) -> &Self {
        let fault: Fault = fault.parse().unwrap();
        self.0.simulator.add_fault(fault.on("PATCH", "/api/now/table/incident"));
        self
    }
}

const RESOLVES: &str = "on_cleared = \"resolve\"\nupdate_interval = \"1s\"";

#[test]
fn resolving_that_failed_is_not_done_when_the_finding_is_back() {
    let line = Line::new(RESOLVES, "");
    line.raise(0..1);
    line.fails("status=503").tell(0, "major", "cleared");
    let plant = line.0.after(HOUR / 30);
    let report = plant.agent.once_briefly(&plant.simulator, plant.clock.clone(), SOON);
    assert_eq!(report.updated, 0, "{report:?}");
    assert!(line.0.simulator.ledger().iter().any(|entry| entry.method == "PATCH"), "it was tried");
    line.0.simulator.clear_faults();
    line.raise(0..1);
    line.0.after(2 * HOUR).once();
    line.0.has(&[("open", 0)]);
    assert_eq!(line.there(), ["1"]);
    assert_eq!(line.0.agent.status()["backlog"], 0);
    // It ends again, and is resolved.
    line.clear(0..1);
    assert_eq!(line.there(), ["6"]);
}

#[test]
fn resolving_that_was_refused_needs_nobody_when_the_finding_is_back() {
    let line = Line::new(RESOLVES, "");
    line.raise(0..1);
    assert_eq!(line.fails("status=400").clear(0..1).dead, 1);
    line.0.simulator.clear_faults();
    let dead = line.0.agent.json(&["queue", "list", "--dead"]);
    let id = dead[0]["id"].as_u64().unwrap().to_string();
    // Whoever has it tried again while the finding stands resolves nothing, either.
    line.raise(0..1);
    assert_eq!(line.0.agent.status()["dead"], 0);
    line.0.agent.run(&["queue", "retry", &id]);
    line.0.after(2 * HOUR).once();
    line.0.has(&[("open", 0)]);
    assert_eq!(line.there(), ["1"]);
    // What is noted is not kept back by it.
    assert!(!line.notes_of(&line.0.records()[0]).is_empty());
}

#[test]
fn a_parent_is_resolved_when_all_that_it_stands_for_have_ended() {
    let line = Line::new(RESOLVES, "max_tickets_per_hour = 2");
    line.raise(0..8);
    assert_eq!((line.there().len(), line.parents().len()), (3, 1));
    // The first of the storm, and others of it: the parent stays, and says how many are left at the next note.
    line.clear(2..5);
    assert_eq!(line.parents()[0].get("state"), "1");
    let notes = line.notes_of(&line.parents()[0]);
    assert!(!notes.iter().any(|note| note.contains("has ended")), "{notes:?}");
    // One is back before the last has ended.
    line.clear(5..8);
    assert_eq!(line.parents()[0].get("state"), "6");
    line.0.after(2 * HOUR);
    line.raise(3..4);
    assert_eq!(line.there().len(), 4);
    assert!(line.0.simulator.twins().is_empty());
}

#[test]
fn what_folded_is_told_again_when_its_parent_is_closed() {
    for after in [HOUR / 30, 2 * HOUR] {
        let line = Line::new("update_interval = \"1s\"", "max_tickets_per_hour = 2");
        line.raise(0..6);
        let parent = line.parents()[0].get("sys_id").to_owned();
        let closed = [("state", "7"), ("close_code", "User error"), ("close_notes", "a test of ours")];
        assert!(line.0.simulator.edit("incident", &parent, &closed));
        line.0.after(after).once();
        line.raise(3..6);
        line.0.after(HOUR / 30).once();
        // Not opened again, as that is refused: whatever stands now has an open ticket.
        let open: Vec<_> = line.0.records().into_iter().filter(|record| record.get("state") == "1").collect();
        assert!(open.len() >= 3, "{:?}", line.there());
        let tickets = line.0.tickets();
        for ip in ["10.0.1.3", "10.0.1.4", "10.0.1.5"] {
            let of = |t: &&serde_json::Value| t["parties"].as_str().unwrap().starts_with(ip);
            let newest = tickets.iter().filter(of).max_by_key(|t| t["generation"].as_u64()).unwrap();
            let told = open.iter().any(|record| record.get("number") == newest["number"].as_str().unwrap());
            assert!(told, "{ip}: {newest} {:?}", line.there());
        }
        assert!(line.0.simulator.twins().is_empty());
    }
}

#[test]
fn one_finding_that_comes_and_goes_keeps_to_one_parent() {
    let line = Line::new(RESOLVES, "max_tickets_per_hour = 2");
    for _ in 0..8 {
        line.raise(0..1);
        line.clear(0..1);
    }
    assert_eq!(line.there(), ["6", "6", "6"]);
    let parents = line.parents();
    assert_eq!(parents.len(), 1);
    assert!(parents[0].get("short_description").contains("1 finding: scan"), "{:?}", parents[0]);
}

#[test]
fn what_is_worse_than_its_parent_is_noted_at_once() {
    let line = Line::new("update_interval = \"24h\"", "max_tickets_per_hour = 2");
    for number in 0..5 {
        line.tell(number, "minor", "raised");
    }
    line.raise(0..0);
    line.tell(7, "critical", "raised");
    line.raise(0..0);
    let notes = line.notes_of(&line.parents()[0]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("Worst severity: critical."), "{notes:?}");
    // One that is folded already gets worse: of that the parent has been told.
    line.tell(4, "critical", "raised");
    line.raise(0..0);
    assert_eq!(line.notes_of(&line.parents()[0]).len(), 1);
    let number = line.parents()[0].get("number").to_owned();
    line.0.agent.run(&["explain", &number]).ends(0).says("findings of a storm");
}

#[test]
fn a_severity_that_rises_is_noted_at_once() {
    let line = Line::new("update_interval = \"24h\"", "");
    line.tell(0, "minor", "raised");
    line.raise(0..0);
    line.tell(0, "critical", "raised");
    assert_eq!(line.raise(0..0).updated, 1);
    let notes = line.0.notes(0);
    assert!(notes[0].contains("Severity rose from minor to critical."), "{notes:?}");
    line.tell(0, "critical", "raised");
    assert_eq!(line.raise(0..0).updated, 0);
}

#[test]
fn what_gets_worse_before_its_first_sync_is_opened_as_what_it_is() {
    for rule in ["", "max_tickets_per_hour = 9"] {
        let line = Line::new("", rule);
        line.tell(0, "minor", "raised");
        line.tell(0, "critical", "raised");
        assert_eq!(line.raise(0..0).created, 1);
        let all = line.0.records();
        assert_eq!(all.len(), 1);
        assert!(all[0].get("short_description").contains("[critical]"), "{all:?}");
        assert_eq!(line.0.after(24 * HOUR).once().updated, 0, "that it is critical is no news");
    }
}

#[test]
fn a_ticket_is_opened_with_the_severity_of_the_sighting_that_it_is_made_for() {
    let line = Line::new("update_interval = \"1s\"", "");
    line.tell(0, "minor", "raised");
    line.raise(0..0);
    line.0.after(HOUR).close(0);
    line.0.after(HOUR).once();
    line.0.has(&[("closed", 0)]);
    line.0.after(HOUR);
    line.tell(0, "critical", "raised");
    line.raise(0..0);
    let all = line.0.records();
    let made = all.iter().find(|record| record.get("state") == "1");
    let made = made.unwrap_or_else(|| panic!("{all:?} {:?}", line.0.tickets()));
    assert!(made.get("short_description").contains("[critical]"), "{made:?}");
}
