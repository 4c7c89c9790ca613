//! State models: what a state of each ticket table means, which one may follow which, and what has to be filled in for it.
//!
//! Changes move by the model of their type, problems by the state model of problem management, security incidents by the
//! process *NIST Stateful* (or *NIST Open*, an option). Incidents move freely. A move that is not allowed is refused by the
//! business rule that does it on an instance; a state without its fields by the data policy.

use super::call::Answer;
use super::instance::{Row, Table};

/// What a state means, table by table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Open,
    OnHold,
    Resolved,
    Closed,
    Cancelled,
}

pub(super) fn stage(table: &Table, row: &Row) -> Stage {
    match (table.name.as_str(), table.value(row, "state")) {
        ("incident" | "sn_ot_incident", "3") => Stage::OnHold,
        ("incident" | "sn_ot_incident", "6") | ("problem", "106") => Stage::Resolved,
        ("incident" | "sn_ot_incident", "7")
        | ("problem", "107")
        | ("change_request" | "sn_si_incident", "3") => Stage::Closed,
        ("incident" | "sn_ot_incident", "8") | ("sn_si_incident", "7") | ("change_request", "4") => {
            Stage::Cancelled
        }
        _ => Stage::Open,
    }
}

pub(super) fn is_closed(table: &Table, row: &Row) -> bool {
    matches!(stage(table, row), Stage::Closed | Stage::Cancelled)
}

/// Where a change may be cancelled to.
const CANCELED: &str = "4";

/// States of a table in the order in which a record goes through them; empty: it goes where it likes.
fn order(table: &Table, row: &Row) -> &'static [&'static str] {
    match (table.name.as_str(), table.value(row, "type")) {
        ("change_request", "standard") => &["-5", "-2", "-1", "0", "3"],
        ("change_request", "emergency") => &["-5", "-3", "-2", "-1", "0", "3"],
        ("change_request", _) => &["-5", "-4", "-3", "-2", "-1", "0", "3"],
        ("problem", _) => &["101", "102", "103", "104", "106", "107"],
        ("sn_si_incident", _) => &["10", "16", "18", "19", "20", "100", "3"],
        _ => &[],
    }
}

/// The states that may follow the one of this record; `None`: any.
pub(super) fn following(table: &Table, row: &Row, nist_open: bool) -> Option<Vec<&'static str>> {
    let name = table.name.as_str();
    let order = order(table, row);
    if name == "sn_si_incident" && nist_open {
        return None;
    }
    let at = order.iter().position(|state| *state == table.value(row, "state"))?;
    let mut next: Vec<&'static str> = order.get(at + 1).copied().into_iter().collect();
    match (name, order[at]) {
        ("change_request", "3") | ("problem", "107") => {}
        ("change_request", _) => next.push(CANCELED),
        // The root cause is looked for again; or the risk is taken, the problem given up.
        ("problem", "106") => next.push("103"),
        ("problem", _) => next.push("107"),
        _ => {}
    }
    Some(next)
}

/// The states that lead from the one of this record to this one.
pub(super) fn way(table: &Table, row: &Row, to: &'static str) -> Vec<&'static str> {
    let order = order(table, row);
    let from = order.iter().position(|state| *state == table.value(row, "state"));
    match from.zip(order.iter().position(|state| *state == to)) {
        Some((from, end)) if from < end => order[from + 1..=end].to_vec(),
        _ => vec![to],
    }
}

/// Refuses a move that the state model does not have.
pub(super) fn transition(
    table: &Table,
    before: &Row,
    after: &Row,
    sys_id: &str,
    nist_open: bool,
) -> Result<(), Answer> {
    let to = table.value(after, "state");
    if to == table.value(before, "state") {
        return Ok(());
    }
    let Some(allowed) = following(table, before, nist_open) else { return Ok(()) };
    // A problem is not closed before it is resolved, unless nothing is mended.
    let gives_up =
        matches!(table.value(after, "resolution_code"), "risk_accepted" | "canceled" | "duplicate");
    let skips =
        table.name == "problem" && to == "107" && stage(table, before) != Stage::Resolved && !gives_up;
    if allowed.contains(&to) && !skips {
        return Ok(());
    }
    let rule = match table.name.as_str() {
        "change_request" => "Change Model: Check State Transition",
        "problem" => "Check problem state transition",
        _ => "Validate state transition",
    };
    Err(Answer::refused(&format!(
        "Operation against file '{}' was aborted by Business Rule '{rule}^{sys_id}'. Business Rule Stack:{rule}",
        table.name
    )))
}

/// Refuses a state whose fields are missing.
pub(super) fn policy(table: &Table, row: &Row, before: Option<&Row>) -> Result<(), Answer> {
    let state = |row: &Row| table.value(row, "state").to_owned();
    if table.schema.position("state").is_none() || before.is_some_and(|b| state(b) == state(row)) {
        return Ok(());
    }
    let missing: Vec<&str> = needed(table, row)
        .iter()
        .filter(|(field, _)| table.value(row, field).is_empty())
        .map(|(_, label)| *label)
        .collect();
    Answer::mandatory(&missing)
}

/// What has to be filled in in the state of this record: field and label.
fn needed(table: &Table, row: &Row) -> &'static [(&'static str, &'static str)] {
    match (table.name.as_str(), stage(table, row)) {
        ("incident" | "sn_ot_incident", Stage::OnHold) => &[("hold_reason", "On hold reason")],
        ("problem", Stage::Resolved | Stage::Closed) => match table.value(row, "resolution_code") {
            "risk_accepted" => &[("cause_notes", "Cause notes"), ("close_notes", "Close notes")],
            "canceled" => &[("close_notes", "Close notes")],
            "duplicate" => &[("duplicate_of", "Duplicate of")],
            _ => &[
                ("resolution_code", "Resolution code"),
                ("cause_notes", "Cause notes"),
                ("fix_notes", "Fix notes"),
            ],
        },
        ("problem", _) if table.value(row, "state") == "104" => {
            &[("cause_notes", "Cause notes"), ("fix_notes", "Fix notes")]
        }
        ("change_request" | "sn_si_incident", Stage::Closed) => {
            &[("close_code", "Close code"), ("close_notes", "Close notes")]
        }
        (_, Stage::Resolved | Stage::Closed) => {
            &[("close_code", "Resolution code"), ("close_notes", "Resolution notes")]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Options;
    use super::super::trial::Trial;

    /// Changes the newest record of a table: the refusal, or nothing.
    fn patch(trial: &mut Trial, table: &str, body: &Value) -> String {
        let id = trial.instance.records(table).last().unwrap().get("sys_id").to_owned();
        let (status, answer) = trial.call("PATCH", &format!("/api/now/table/{table}/{id}"), body);
        if status == 200 {
            return String::new();
        }
        assert_eq!((status, &answer["error"]["message"]), (403, &json!("Operation Failed")));
        answer["error"]["detail"].as_str().unwrap().to_owned()
    }

    fn to(state: &str) -> Value {
        json!({ "state": state })
    }

    #[test]
    fn a_change_goes_from_state_to_state() {
        let mut trial = Trial::new();
        trial.make("change_request", &json!({}));
        let done = json!({"state": "3", "close_code": "successful", "close_notes": "done"});
        let refusal = patch(&mut trial, "change_request", &done);
        let rule = "aborted by Business Rule 'Change Model: Check State Transition^";
        assert!(refusal.contains(rule), "{refusal}");
        for state in ["-4", "-3", "-2", "-1", "0"] {
            assert_eq!(patch(&mut trial, "change_request", &to(state)), "", "{state}");
        }
        let refusal = patch(&mut trial, "change_request", &to("3"));
        assert!(refusal.ends_with("mandatory: Close code, Close notes"), "{refusal}");
        assert_eq!(patch(&mut trial, "change_request", &done), "");
        // Another is cancelled from where it is, one of another type has fewer states.
        trial.make("change_request", &to("-3"));
        assert_eq!(patch(&mut trial, "change_request", &to("4")), "");
        trial.make("change_request", &json!({"type": "emergency"}));
        assert_ne!(patch(&mut trial, "change_request", &to("-4")), "");
        assert_eq!(patch(&mut trial, "change_request", &to("-3")), "");
    }

    #[test]
    fn a_problem_is_resolved_by_its_path_and_with_its_fields() {
        let mut trial = Trial::new();
        trial.make("problem", &json!({}));
        let notes =
            json!({"state": "106", "resolution_code": "fix_applied", "cause_notes": "c", "fix_notes": "f"});
        assert!(patch(&mut trial, "problem", &notes).contains("aborted by Business Rule"));
        assert_eq!(patch(&mut trial, "problem", &to("102")), "");
        assert_eq!(patch(&mut trial, "problem", &to("103")), "");
        let refusal = patch(&mut trial, "problem", &to("104"));
        assert!(refusal.ends_with("mandatory: Cause notes, Fix notes"), "{refusal}");
        let step = json!({"state": "104", "cause_notes": "c", "fix_notes": "f"});
        assert_eq!(patch(&mut trial, "problem", &step), "");
        assert_eq!(patch(&mut trial, "problem", &notes), "");
        assert_eq!(patch(&mut trial, "problem", &to("107")), "");
        // One that is given up needs no path, one that is not does.
        trial.make("problem", &json!({}));
        let closed = |code: &str| json!({"state": "107", "resolution_code": code, "close_notes": "n"});
        assert!(patch(&mut trial, "problem", &closed("fix_applied")).contains("Business Rule"));
        assert_eq!(patch(&mut trial, "problem", &closed("canceled")), "");
    }

    #[test]
    fn a_security_incident_goes_on_to_the_next_state_unless_the_process_is_open() {
        let closed = json!({"state": "3", "close_code": "Threat mitigated", "close_notes": "n"});
        let mut trial = Trial::new();
        trial.make("sn_si_incident", &json!({}));
        assert!(patch(&mut trial, "sn_si_incident", &closed).contains("aborted by Business Rule"));
        assert!(patch(&mut trial, "sn_si_incident", &to("18")).contains("aborted by Business Rule"));
        assert_eq!(patch(&mut trial, "sn_si_incident", &to("16")), "");
        let mut trial = Trial::with(Options { nist_open: true, ..Options::default() });
        trial.make("sn_si_incident", &json!({}));
        assert_eq!(patch(&mut trial, "sn_si_incident", &closed), "");
    }
}
