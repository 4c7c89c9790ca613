//! Findings that end where an instance closes nothing that was not worked on: changes, problems, security incidents. The
//! end is told as a work note, once; nobody has to look after a dead letter. And events, which go on under their key.

use std::time::Duration;

use otrelay::relay::Report;
use otrelay::simulator::{Fault, Options, Record};

use crate::life::HOUR;
use crate::storms::Line;
use crate::support::agent::Agent;
use crate::support::simulator;

const TABLES: [&str; 3] = ["change_request", "problem", "sn_si_incident"];

fn resolves(table: &str) -> String {
    format!("table = \"{table}\"\non_cleared = \"resolve\"\nupdate_interval = \"24h\"")
}

impl Line {
    /// The one record of a table.
    fn the(&self, table: &str) -> Record {
        let mut all = self.0.simulator.records(table);
        assert_eq!(all.len(), 1, "{all:?}");
        all.pop().unwrap()
    }

    fn notes_in(&self, table: &str) -> Vec<String> {
        self.notes_of(&self.the(table))
    }

    /// Changes of records of a table that the instance refused, and all of them.
    fn changes(&self, table: &str) -> (usize, usize) {
        let path = format!("/api/now/table/{table}/");
        let mut all = self.0.simulator.ledger();
        all.retain(|entry| entry.method == "PATCH" && entry.path.starts_with(&path));
        (all.iter().filter(|entry| entry.status == Some(403)).count(), all.len())
    }

    fn health(&self) -> String {
        self.0.agent.status()["health"].to_string()
    }

    /// Two hours later, without waiting for what is tried again by itself.
    fn briefly(&self) -> Report {
        let plant = self.0.after(2 * HOUR);
        plant.agent.once_briefly(&plant.simulator, plant.clock.clone(), Duration::from_millis(1))
    }

    /// Whether a person is told that a table is not closed.
    fn is_told(&self) -> bool {
        self.health().contains("not-closed")
    }

    /// A person goes on with a record.
    fn person(&self, table: &str, steps: &[&[(&str, &str)]]) {
        let id = self.the(table).get("sys_id").to_owned();
        for step in steps {
            assert!(self.0.simulator.edit(table, &id, step), "{step:?}");
        }
    }
}

#[test]
fn what_is_refused_is_told_as_a_note_and_not_asked_for_again() {
    for table in TABLES {
        let line = Line::new(&resolves(table), "");
        assert_eq!(line.raise(0..1).created, 1);
        let state = line.the(table).get("state").to_owned();
        let report = line.clear(0..1);
        assert_eq!(report.dead, 0, "{table}: {report:?}");
        let (record, notes) = (line.the(table), line.notes_in(table));
        assert_eq!((record.get("state"), record.get("active")), (state.as_str(), "true"));
        assert_eq!(notes.len(), 1, "{table}: {notes:?}");
        assert!(notes[0].contains("that this has ended"), "{notes:?}");
        assert!(notes[0].contains("could not be closed from here"), "{notes:?}");
        assert_eq!(line.changes(table), (1, 2), "{table}");

        // What an operator reads.
        line.0.has(&[("open", 0)]);
        let ticket = line.0.tickets().remove(0);
        assert!(ticket["not_closed"].as_str().unwrap().contains("aborted by Business Rule"), "{ticket}");
        line.0.agent.run(&["tickets"]).ends(0).says("open, not closed");
        line.0.agent.run(&["explain", record.get("number")]).ends(0).says("not closed").says("Business Rule");
        let health = line.health();
        assert!(health.contains(&format!("prod does not close records of {table}")), "{health}");
        assert!(health.contains("not-closed") && health.contains("set on_cleared = "), "{health}");
        assert_eq!(line.0.agent.status()["dead"], 0);

        // It comes and goes: each end is one more note, and the instance is not asked to close it again.
        line.0.after(2 * HOUR);
        line.raise(0..1);
        assert_eq!(line.clear(0..1).dead, 0);
        line.0.after(HOUR).once();
        assert_eq!((line.notes_in(table).len(), line.changes(table)), (2, (1, 3)), "{table}");
        assert!(line.0.simulator.twins().is_empty());
    }
}

#[test]
fn there_is_one_note_whichever_answers_are_lost() {
    // Of three answers: to the change that is refused, to it once more, to the note.
    for (table, most) in TABLES.into_iter().zip([3, 1, 2]) {
        for lost in [most - 1, most].into_iter().filter(|lost| *lost > 0) {
            let line = Line::new(&resolves(table), "");
            line.raise(0..1);
            let drop: Fault = "commit-drop".parse().unwrap();
            line.0.simulator.add_fault(drop.times(lost).on("PATCH", &format!("/api/now/table/{table}")));
            line.tell(0, "major", "cleared");
            let mut report = Report::default();
            for _ in 0..4 {
                report.add(line.briefly());
            }
            assert_eq!(report.dead, 0, "{table} {lost}: {report:?}");
            assert_eq!(line.0.simulator.faults_fired(), lost, "{table}");
            assert_eq!(line.notes_in(table).len(), 1, "{table} {lost}: {:?}", line.notes_in(table));
            assert_eq!(line.0.agent.status()["backlog"], 0);
        }
    }
}

#[test]
fn what_was_worked_on_is_closed() {
    let (cause, fix) = (("cause_notes", "a test"), ("fix_notes", "none"));
    let steps: [&[&[(&str, &str)]]; 3] = [
        &[&[("state", "-4")], &[("state", "-3")], &[("state", "-2")], &[("state", "-1")], &[("state", "0")]],
        &[&[("state", "102")], &[("state", "103")], &[("state", "104"), cause, fix]],
        &[
            &[("state", "16")],
            &[("state", "18")],
            &[("state", "19")],
            &[("state", "20")],
            &[("state", "100")],
        ],
    ];
    for ((table, steps), last) in TABLES.into_iter().zip(steps).zip(["3", "106", "3"]) {
        let line = Line::new(&resolves(table), "");
        line.raise(0..1);
        line.person(table, steps);
        let report = line.clear(0..1);
        assert_eq!((report.dead, line.the(table).get("state")), (0, last), "{table}: {report:?}");
        assert_eq!((line.notes_in(table), line.is_told()), (Vec::new(), false), "{table}");
    }
}

#[test]
fn an_open_process_closes_at_once_and_takes_the_remark_back() {
    let line = Line::new(&resolves("sn_si_incident"), "");
    line.raise(0..1);
    line.clear(0..1);
    assert!(line.is_told());
    // Another finding, whose record a person brought to where it may be closed.
    line.raise(1..2);
    let other = line.0.simulator.records("sn_si_incident").pop().unwrap();
    for state in ["16", "18", "19", "20", "100"] {
        assert!(line.0.simulator.edit("sn_si_incident", other.get("sys_id"), &[("state", state)]));
    }
    line.clear(1..2);
    assert!(!line.is_told());

    let open = Options { nist_open: true, ..Options::default() };
    let line = Line::at(open, &resolves("sn_si_incident"), "");
    line.raise(0..1);
    assert_eq!(line.clear(0..1).dead, 0);
    let record = line.the("sn_si_incident");
    assert_eq!((record.get("state"), record.get("close_code")), ("3", "Threat mitigated"));
    line.0.has(&[("closed", 0)]);
}

#[test]
fn what_the_rule_gives_closes_it() {
    let own = "table = \"problem\"\non_cleared = \"resolve\"\n[rule.action.resolve]\nstate = \"107\"\n\
               resolution_code = \"canceled\"\nclose_notes = \"{{ title }} has ended\"";
    let line = Line::new(own, "");
    line.raise(0..1);
    assert_eq!(line.clear(0..1).dead, 0);
    let record = line.the("problem");
    let got = ["state", "resolution_code", "close_notes"].map(|field| record.get(field));
    assert_eq!(got, ["107", "canceled", "scan has ended"]);
}

#[test]
fn a_state_that_is_dropped_in_silence_closes_nothing_and_is_told() {
    let line = Line::new("on_cleared = \"resolve\"", "");
    line.raise(0..1);
    line.fails("drop-field=state");
    assert_eq!(line.clear(0..1).dead, 0);
    let notes = line.notes_in("incident");
    assert!(notes.len() == 1 && notes[0].contains("that this has ended"), "{notes:?}");
    assert!(line.0.tickets()[0]["not_closed"].as_str().unwrap().contains("left the state at `1`"));
    assert!(!line.health().contains("dropped-field"), "{}", line.health());
}

#[test]
fn a_rule_that_only_notes_takes_the_remark_back() {
    let mut line = Line::new(&resolves("problem"), "");
    line.raise(0..1);
    line.clear(0..1);
    assert!(line.is_told());
    line.acts("table = \"problem\"\non_cleared = \"note\"", "");
    line.0.once();
    assert!(!line.is_told());
}

#[test]
fn the_check_says_it_beforehand() {
    let simulator = simulator();
    let check = |action: &str| {
        let rules = format!("[[rule]]\nname = \"OT\"\n[[rule.action]]\nservicenow = \"prod\"\n{action}\n");
        Agent::new(&simulator).rules(&rules).run(&["check"])
    };
    for table in TABLES {
        let said = check(&resolves(table)).ends(0).says("may stay open: an instance moves");
        said.says("set on_cleared = \"note\"");
    }
    let said = check("table = \"incident\"\non_cleared = \"resolve\"").ends(0);
    assert!(!said.err.contains("may stay open"), "{said:?}");
    check("table = \"u_own\"\non_cleared = \"resolve\"").ends(78).says("how a record of u_own is resolved");
    check("table = \"u_own\"\non_cleared = \"resolve\"\nresolve = { state = \"9\" }").ends(0);
    check("on_cleared = \"resolve\"\nclose_code = \"a\"\nresolve = { close_code = \"b\" }")
        .ends(78)
        .says("also stands");
    check("resolve = { state = \"6\" }").ends(0).says("nothing is closed without");
    check("on_cleared = \"resolve\"\nresolve = { sys_id = \"b\" }").ends(78).says("cannot be set");
}

const EVENTS: &str = "table = \"em_event\"\nupdate_interval = \"2h\"";

impl Line {
    /// The one alert of Event Management: its state, severity, and how many events it is made of.
    fn alert(&self) -> (String, String, String) {
        let alert = self.the("em_alert");
        let [state, severity, count] =
            ["state", "severity", "event_count"].map(|field| alert.get(field).to_owned());
        (state, severity, count)
    }

    #[track_caller]
    fn is_alert(&self, state: &str, severity: &str, count: &str) {
        assert_eq!(self.alert(), (state.to_owned(), severity.to_owned(), count.to_owned()));
    }

    fn sees(&self, severity: &str) -> Report {
        self.tell(0, severity, "raised");
        self.0.after(HOUR / 30).once()
    }
}

#[test]
fn an_event_goes_on_as_its_finding_does() {
    let line = Line::new(EVENTS, "");
    assert_eq!(line.sees("minor").created, 1);
    // Within the interval nothing, then one word on all of it.
    for _ in 0..3 {
        line.sees("minor");
    }
    line.is_alert("Open", "3", "1");
    line.0.after(2 * HOUR);
    let report = line.sees("minor");
    assert_eq!((report.created, report.updated), (0, 1), "{report:?}");
    line.is_alert("Open", "3", "2");
    let more: serde_json::Value = serde_json::from_str(line.the("em_alert").get("additional_info")).unwrap();
    assert_eq!(more["occurrences"], "5");
    // Worse is told at once, and what is less so afterwards is no less bad.
    line.sees("critical");
    line.sees("minor");
    line.is_alert("Open", "1", "3");
    // It ends, is back, and ends again: one alert all the time.
    assert_eq!(line.clear(0..1).updated, 1);
    line.is_alert("Closed", "1", "4");
    assert_eq!(line.clear(0..1).updated, 0, "it has ended already");
    line.sees("minor");
    line.is_alert("Reopen", "1", "5");
    line.clear(0..1);
    line.is_alert("Closed", "1", "6");
    let events = line.0.simulator.records("em_event");
    let states: Vec<&str> = events.iter().map(|event| event.get("resolution_state")).collect();
    assert_eq!(states, ["New", "New", "New", "Closing", "New", "Closing"]);
    assert!(events[3].get("time_of_event") > events[2].get("time_of_event"), "{events:?}");
    let status = line.0.agent.status();
    assert_eq!((&status["dead"], &status["backlog"]), (&0.into(), &0.into()));
}

#[test]
fn an_end_that_comes_before_the_event_was_told_is_told_after_it() {
    let line = Line::new(EVENTS, "");
    line.0.simulator.add_fault("status=503".parse::<Fault>().unwrap());
    line.tell(0, "major", "raised");
    line.briefly();
    line.tell(0, "major", "cleared");
    line.briefly();
    line.0.simulator.clear_faults();
    for _ in 0..3 {
        line.briefly();
    }
    line.is_alert("Closed", "2", "2");
    // While its end waits it is there again: what is told is that it stands.
    line.0.simulator.add_fault("status=503".parse::<Fault>().unwrap());
    line.tell(0, "major", "raised");
    line.tell(0, "major", "cleared");
    line.briefly();
    line.tell(0, "major", "raised");
    line.briefly();
    line.0.simulator.clear_faults();
    for _ in 0..3 {
        line.briefly();
    }
    assert_eq!(line.alert().0, "Reopen");
}

#[test]
fn an_event_whose_answers_are_lost_is_the_same_event() {
    let line = Line::new(EVENTS, "");
    let lose = || {
        let drop: Fault = "commit-drop".parse().unwrap();
        line.0.simulator.add_fault(drop.times(1).on("POST", "/api/global/em"));
    };
    let mut report = Report::default();
    for state in ["raised", "cleared", "raised", "cleared"] {
        lose();
        line.tell(0, "major", state);
        for _ in 0..2 {
            report.add(line.briefly());
        }
    }
    assert_eq!((report.dead, line.0.simulator.faults_fired()), (0, 4), "{report:?}");
    line.is_alert("Closed", "2", "8");
    assert_eq!(line.0.agent.status()["backlog"], 0);
}

#[test]
fn what_an_action_does_not_want_of_an_event_is_not_told() {
    let line = Line::new("table = \"em_event\"\nupdate_interval = \"0s\"\non_cleared = \"none\"", "");
    line.sees("minor");
    line.0.after(48 * HOUR);
    line.sees("critical");
    line.clear(0..1);
    line.sees("minor");
    // That it got worse is told all the same: otherwise the alert there would stay what it was.
    line.is_alert("Open", "1", "2");
}

#[test]
fn the_check_says_which_keys_do_nothing_where_no_ticket_is_made() {
    let simulator = simulator();
    let check = |action: &str| {
        let rules = format!("[[rule]]\nname = \"OT\"\n[[rule.action]]\nservicenow = \"prod\"\n{action}\n");
        Agent::new(&simulator).rules(&rules).run(&["check"])
    };
    let warnings = |said: &crate::support::agent::Said| said.err.matches("this does nothing").count();
    let row = "report_type = \"application\"\ntable = \"u_rows\"";
    assert_eq!(warnings(&check(row).ends(0)), 0);
    let said = check(&format!("{row}\non_cleared = \"resolve\"\nupdate_interval = \"1h\"")).ends(0);
    assert_eq!(warnings(&said), 2, "{said:?}");
    said.says("a row is told once, when its finding is first seen");
    let said = check("table = \"em_event\"\non_cleared = \"resolve\"\nupdate_interval = \"1h\"").ends(0);
    assert_eq!(warnings(&said), 0, "{said:?}");
    let said = check("table = \"em_event\"\non_seen_again = \"reopen\"").ends(0);
    assert_eq!(warnings(&said), 1, "{said:?}");
}
