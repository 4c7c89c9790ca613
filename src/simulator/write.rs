//! What an instance does to a record that is written: drops in silence what it does not take, calculates what it
//! calculates, and refuses what a data policy forbids. Nothing is written when anything is refused.
//!
//! References: 32 hex digits are stored whether or not such a record exists, as an instance does; any other text is
//! resolved by name, user name or number, with and without `sysparm_input_display_value`, and stays empty when
//! nothing has that name. (Real instances differ here; nobody should depend on it.)

use serde_json::{Map, Value};

use super::call::{Answer, Made};
use super::instance::{Context, Instance, Row, Table, stamp};
use super::schema::{Field, Kind};
use super::stages::{Stage, is_closed, policy, stage, transition};
use crate::model::SysId;

/// Fields and values that a call wants, before anything is decided.
pub(super) type Wanted = Map<String, Value>;

/// A body, taken apart: what goes into the record, and what goes into the journal.
#[derive(Default)]
struct Taken {
    set: Vec<(String, String)>,
    notes: Vec<(String, String)>,
}

/// What faults make of a new record by its texts.
fn poison(ctx: Context<'_>, taken: &Taken) -> Result<(), Answer> {
    let has = |text: &String| taken.set.iter().any(|(_, value)| value.contains(text.as_str()));
    if ctx.tweaks.throws.iter().any(has) {
        let detail = "TypeError: Cannot read property \"u_zone\" from undefined (sys_script; line 4)";
        return Err(Answer::error(500, "Script Evaluation Exception", Some(detail)));
    }
    if ctx.tweaks.refuses.iter().any(has) {
        return Err(Answer::refused("ACL Exception Insert Failed due to security constraints"));
    }
    Ok(())
}

impl Instance {
    /// Inserts a record; its `sys_id` comes back.
    pub(super) fn insert(
        &mut self,
        ctx: Context<'_>,
        table: &str,
        wanted: &Wanted,
        labels: bool,
    ) -> Result<Made, Answer> {
        if !self.has_room() {
            return Err(Answer::refused("The simulator is full: see its option --max-records"));
        }
        if let Some(target) = self.tables.get_mut(table) {
            wanted.keys().for_each(|k| target.schema.learn(k));
        }
        let taken = self.take(ctx, table, wanted, labels);
        let dropped = ctx.tweaks.drop_fields.iter().any(|field| field == "sys_id");
        let sys_id = match wanted.get("sys_id").and_then(Value::as_str).map(SysId::new) {
            Some(Ok(id)) if !dropped => id.as_str().to_owned(),
            _ => self.new_id(),
        };
        let now = self.clock.now();
        let target = self.tables.get(table).ok_or_else(|| Answer::no_table(table))?;
        if target.with_key("sys_id", &[&sys_id]).is_some_and(|found| !found.is_empty()) {
            // The recorded words; those of the database need not be among them.
            let number = self.tables.get_mut(table).and_then(Table::take_number).unwrap_or_default();
            return Err(Answer::refused(&format!("Error during insert of {table} ({number})")));
        }
        let mut row = Row::default();
        let by = ctx.user.name.as_str();
        for (field, value) in [("sys_id", sys_id.as_str()), ("sys_created_by", by), ("sys_updated_by", by)] {
            target.set(&mut row, field, value);
        }
        stamp(target, &mut row, now);
        target.set(&mut row, "opened_at", &now.servicenow());
        target.set(&mut row, "opened_by", &ctx.user.sys_id);
        for (field, value) in &taken.set {
            target.set(&mut row, field, value);
        }
        settle(target, &mut row, None, &now.servicenow(), &ctx.user.sys_id);
        policy(target, &row, None)?;
        self.data_policies(table, &row)?;
        poison(ctx, &taken)?;
        if let Some(lag) = ctx.tweaks.index_lag {
            row.visible_at = now.after(lag);
        }
        if let Some(target) = self.tables.get_mut(table)
            && let Some(number) = target.take_number()
        {
            target.set(&mut row, "number", &number);
        }
        self.push(table, row);
        self.note(ctx, table, &sys_id, &taken.notes);
        self.after_write(table);
        Ok(Made { table: table.to_owned(), sys_id })
    }

    /// Changes a record. Only journal entries are taken once a ticket is closed.
    pub(super) fn update(
        &mut self,
        ctx: Context<'_>,
        table: &str,
        sys_id: &str,
        wanted: &Wanted,
        labels: bool,
    ) -> Result<Made, Answer> {
        let (found, seq, row) = self.find(table, sys_id).ok_or_else(Answer::no_record)?;
        let (table, before) = (found.name.clone(), row.clone());
        if let Some(target) = self.tables.get_mut(&table) {
            wanted.keys().for_each(|k| target.schema.learn(k));
        }
        let taken = self.take(ctx, &table, wanted, labels);
        let target = self.tables.get(&table).ok_or_else(|| Answer::no_table(&table))?;
        let changes: Vec<_> = taken.set.iter().filter(|(f, v)| target.value(&before, f) != v).collect();
        if !changes.is_empty() && is_closed(target, &before) {
            return Err(Answer::refused("ACL Exception Update Failed due to security constraints"));
        }
        let now = self.clock.now();
        let mut after = before.clone();
        if changes.iter().any(|(f, _)| f == "assignment_group") {
            target.set(&mut after, "assigned_to", "");
            let count: u64 = target.value(&before, "reassignment_count").parse().unwrap_or(0);
            target.set(&mut after, "reassignment_count", &(count + 1).to_string());
        }
        for (field, value) in &changes {
            target.set(&mut after, field, value);
        }
        settle(target, &mut after, Some(&before), &now.servicenow(), &ctx.user.sys_id);
        transition(target, &before, &after, sys_id, self.options.nist_open)?;
        policy(target, &after, Some(&before))?;
        if !changes.is_empty() || !taken.notes.is_empty() {
            let count: u64 = target.value(&before, "sys_mod_count").parse().unwrap_or(0);
            target.set(&mut after, "sys_mod_count", &(count + 1).to_string());
            target.set(&mut after, "sys_updated_on", &now.servicenow());
            target.set(&mut after, "sys_updated_by", &ctx.user.name);
            if let Some(target) = self.tables.get_mut(&table) {
                target.put(seq, after);
            }
            self.note(ctx, &table, sys_id, &taken.notes);
            self.after_write(&table);
        }
        Ok(Made { table, sys_id: sys_id.to_owned() })
    }

    /// What the instance does by itself to incidents that nobody answered to.
    pub(super) fn resolve_on_hold(&mut self) {
        let Some(after) = self.options.resolve_on_hold else { return };
        let now = self.clock.now();
        let since = now.before(after).servicenow();
        for name in ["incident", "sn_ot_incident"] {
            let Some(table) = self.tables.get_mut(name) else { continue };
            let waiting: Vec<(u64, Row)> = table
                .rows()
                .filter(|(_, row)| {
                    stage(table, row) == Stage::OnHold && table.value(row, "sys_updated_on") <= since.as_str()
                })
                .map(|(seq, row)| (seq, row.clone()))
                .collect();
            for (seq, before) in waiting {
                let mut after = before.clone();
                let changes = [
                    ("state", "6"),
                    ("incident_state", "6"),
                    ("close_code", "Resolved by caller"),
                    ("close_notes", "Resolved by the system: no answer after three reminders."),
                    ("sys_updated_by", "system"),
                ];
                for (field, value) in changes {
                    table.set(&mut after, field, value);
                }
                let count: u64 = table.value(&before, "sys_mod_count").parse().unwrap_or(0);
                table.set(&mut after, "sys_mod_count", &(count + 1).to_string());
                table.set(&mut after, "sys_updated_on", &now.servicenow());
                settle(table, &mut after, Some(&before), &now.servicenow(), "system");
                table.put(seq, after);
            }
        }
    }

    fn after_write(&mut self, table: &str) {
        if table == "sys_choice" {
            self.refresh_choices();
        }
    }

    /// Takes a body apart and drops what the table does not take.
    fn take(&self, ctx: Context<'_>, table: &str, wanted: &Wanted, labels: bool) -> Taken {
        let mut taken = Taken::default();
        let Some(target) = self.tables.get(table) else { return taken };
        for (name, value) in wanted {
            let Some(field) = target.schema.field(name) else { continue };
            let refused = [&ctx.tweaks.drop_fields, &ctx.tweaks.hidden_fields];
            if field.read_only || refused.iter().any(|names| names.contains(name)) {
                continue;
            }
            let Some(text) = plain(value) else { continue };
            if field.kind == Kind::Journal {
                if !text.is_empty() {
                    taken.notes.push((name.clone(), text));
                }
            } else if let Some(kept) = self.accept(table, field, &text, labels) {
                taken.set.push((name.clone(), kept));
            }
        }
        mirror(&mut taken.set, "state", "incident_state", target);
        taken
    }

    /// What is stored of a value; nothing when it is dropped.
    fn accept(&self, table: &str, field: &Field, text: &str, labels: bool) -> Option<String> {
        if text.is_empty() {
            return (field.kind != Kind::Choice).then(String::new);
        }
        match &field.kind {
            Kind::Text(max) => Some(text.chars().take(*max).collect()),
            Kind::Integer => text.trim().parse::<i64>().ok().map(|n| n.to_string()),
            Kind::Boolean => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" => Some("true".to_owned()),
                "false" | "0" => Some("false".to_owned()),
                _ => None,
            },
            Kind::DateTime => {
                text.parse::<jiff::civil::DateTime>().ok().map(|t| t.strftime("%F %T").to_string())
            }
            Kind::Choice => {
                let choices = self.choices(table, &field.name);
                let fits = |(value, label): &&(String, String)| {
                    value == text || labels && label.eq_ignore_ascii_case(text)
                };
                match choices.iter().find(fits) {
                    Some((value, _)) => Some(value.clone()),
                    None if choices.is_empty() => Some(text.chars().take(40).collect()),
                    None => None,
                }
            }
            Kind::Reference(target) => match SysId::new(text) {
                Ok(id) => Some(id.as_str().to_owned()),
                Err(_) => self.resolve(target, text),
            },
            Kind::Journal => None,
        }
    }

    /// Writes journal entries.
    fn note(&mut self, ctx: Context<'_>, table: &str, sys_id: &str, notes: &[(String, String)]) {
        for (element, value) in notes {
            let (id, now) = (self.new_id(), self.clock.now());
            let Some(journal) = self.tables.get("sys_journal_field") else { return };
            let mut row = Row::default();
            let by = ctx.user.name.as_str();
            let fields = [
                ("sys_id", id.as_str()),
                ("name", table),
                ("element", element),
                ("element_id", sys_id),
                ("value", value),
                ("sys_created_by", by),
                ("sys_updated_by", by),
            ];
            for (field, value) in fields {
                journal.set(&mut row, field, value);
            }
            stamp(journal, &mut row, now);
            self.push("sys_journal_field", row);
        }
    }
}

/// Text of a JSON value as the instance reads it; an object gives its `value`.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Object(map) => match map.get("value").or_else(|| map.get("display_value")) {
            Some(Value::String(text)) => Some(text.clone()),
            _ => None,
        },
        Value::Array(_) => None,
    }
}

/// One of the two names of the state speaks for both.
fn mirror(set: &mut Vec<(String, String)>, main: &str, twin: &str, table: &Table) {
    if table.schema.field(twin).is_none() {
        return;
    }
    let find = |name: &str| set.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let Some(value) = find(main).or_else(|| find(twin)) else { return };
    set.retain(|(n, _)| n != main && n != twin);
    set.push((main.to_owned(), value.clone()));
    set.push((twin.to_owned(), value));
}

/// Calculates what the instance calculates.
fn settle(table: &Table, row: &mut Row, before: Option<&Row>, now: &str, user: &str) {
    if table.schema.field("priority").is_some() {
        let level = |field| table.value(row, field).parse::<u8>().unwrap_or(3).clamp(1, 3);
        let priority = level("impact") + level("urgency") - 1;
        table.set(row, "priority", &priority.to_string());
    }
    if table.schema.field("state").is_none() {
        return;
    }
    let now_at = stage(table, row);
    if before.is_some_and(|b| stage(table, b) == now_at) || before.is_none() && now_at == Stage::Open {
        return;
    }
    if matches!(now_at, Stage::Resolved | Stage::Closed) && table.value(row, "resolved_at").is_empty() {
        table.set(row, "resolved_at", now);
        table.set(row, "resolved_by", user);
    }
    if matches!(now_at, Stage::Closed | Stage::Cancelled) {
        table.set(row, "closed_at", now);
        table.set(row, "closed_by", user);
        table.set(row, "active", "false");
    }
    if now_at == Stage::Open && before.is_some_and(|b| stage(table, b) == Stage::Resolved) {
        let count: u64 = table.value(row, "reopen_count").parse().unwrap_or(0);
        table.set(row, "reopen_count", &(count + 1).to_string());
        table.set(row, "resolved_at", "");
        table.set(row, "resolved_by", "");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::Trial;
    use super::*;

    /// Creates an incident with one field and looks at what is stored.
    fn check(field: &str, sent: &Value, expected: &str) {
        let made = Trial::new().make("incident", &json!({ field: sent }));
        let got = match &made[field] {
            Value::Object(reference) => reference["value"].clone(),
            other => other.clone(),
        };
        assert_eq!(got, json!(expected), "{field} = {sent}");
    }

    #[test]
    fn what_is_dropped_in_silence() {
        check("category", &json!("no such choice"), "inquiry");
        check("category", &json!("Network"), "inquiry");
        check("category", &json!("network"), "network");
        check("impact", &json!(""), "3");
        check("impact", &json!(1), "1");
        check("priority", &json!("1"), "5");
        check("number", &json!("INC1"), "INC0010001");
        check("sys_created_by", &json!("someone"), "admin");
        check("sys_mod_count", &json!("7"), "0");
        check("assignment_group", &json!("No Such Group"), "");
        check("opened_at", &json!("yesterday"), "2026-11-21 08:15:00");
        check("work_notes", &json!("kept elsewhere"), "");
        check("short_description", &json!("x".repeat(200)), &"x".repeat(160));
        check("description", &Value::Null, "");
        check("description", &json!(["a"]), "");
        let made = Trial::new().make("incident", &json!({"bunk_field": "x"}));
        assert_eq!(made.get("bunk_field"), None);
    }

    #[test]
    fn references_are_kept_or_resolved() {
        let id = "0123456789abcdef0123456789abcdef";
        check("assignment_group", &json!(id), id);
        check("cmdb_ci", &json!({"value": id, "display_value": "x"}), id);
        let mut trial = Trial::new();
        let made = trial.make("incident", &json!({"assignment_group": "ot soc", "caller_id": "abel.tuter"}));
        let group = trial.list("sys_user_group", "name=OT SOC", "sys_id").remove(0);
        assert_eq!(made["assignment_group"]["value"], json!(group));
        assert_ne!(made["caller_id"], json!(""));
    }

    #[test]
    fn labels_count_only_when_asked_for() {
        let mut trial = Trial::new();
        let body = json!({"category": "Network", "urgency": "1 - High"});
        let (status, answer) =
            trial.call("POST", "/api/now/table/incident?sysparm_input_display_value=true", &body);
        assert_eq!((status, &answer["result"]["category"]), (201, &json!("network")));
        assert_eq!(answer["result"]["urgency"], json!("1"));
    }

    #[test]
    fn a_sys_id_is_taken_once() {
        let mut trial = Trial::new();
        let body = json!({"sys_id": "0123456789abcdef0123456789abcdef", "correlation_id": "otrelay-1"});
        assert_eq!(trial.make("incident", &body)["sys_id"], body["sys_id"]);
        let (status, answer) = trial.call("POST", "/api/now/table/incident", &body);
        assert_eq!(status, 403);
        let detail = answer["error"]["detail"].as_str().unwrap();
        assert_eq!(detail, "Error during insert of incident (INC0010002)");
        assert_eq!(trial.instance.records("incident").len(), 1);
        assert!(trial.instance.twins().is_empty());
        // What is no sys_id gets one.
        let other = trial.make("incident", &json!({"sys_id": "mine", "correlation_id": "otrelay-1"}));
        assert_eq!(other["sys_id"].as_str().unwrap().len(), 32);
        assert_eq!(trial.instance.twins(), [("otrelay-1".to_owned(), 2)].into());
    }

    #[test]
    fn closing_wants_its_fields_and_then_the_record_is_read_only() {
        let mut trial = Trial::new();
        let id = trial.make("incident", &json!({}))["sys_id"].as_str().unwrap().to_owned();
        let path = format!("/api/now/table/incident/{id}");
        let (status, answer) = trial.call("PATCH", &path, &json!({"state": "6"}));
        assert_eq!(status, 403);
        let text =
            "Data Policy Exception: The following fields are mandatory: Resolution code, Resolution notes";
        assert_eq!(answer["error"]["detail"], json!(text));
        assert_eq!(trial.call("PATCH", &path, &json!({"state": "3"})).0, 403);

        let close = json!({"state": "6", "close_code": "User error", "close_notes": "done"});
        let (_, answer) = trial.call("PATCH", &path, &close);
        let result = &answer["result"];
        assert_eq!(
            (&result["active"], &result["resolved_at"]),
            (&json!("true"), &json!("2026-11-21 08:15:00"))
        );
        let (_, answer) = trial.call("PATCH", &path, &json!({"state": "2"}));
        assert_eq!(answer["result"]["reopen_count"], json!("1"));
        let (_, answer) = trial.call("PUT", &path, &json!({"incident_state": "7"}));
        assert_eq!((&answer["result"]["active"], &answer["result"]["state"]), (&json!("false"), &json!("7")));

        assert_eq!(trial.call("PATCH", &path, &json!({"state": "1"})).0, 403);
        assert_eq!(trial.call("PATCH", &path, &json!({"work_notes": "late"})).0, 200);
        assert_eq!(trial.list("sys_journal_field", &format!("element_id={id}"), "value"), ["late"]);
    }

    #[test]
    fn every_change_is_counted_and_no_change_is_not() {
        let mut trial = Trial::new();
        let id = trial.make("incident", &json!({"impact": "2"}))["sys_id"].as_str().unwrap().to_owned();
        let patch = |trial: &mut Trial, body: Value| {
            let (status, mut answer) = trial.call("PATCH", &format!("/api/now/table/incident/{id}"), &body);
            assert_eq!(status, 200, "{answer}");
            answer["result"].take()
        };
        trial.wait(60);
        assert_eq!(patch(&mut trial, json!({"impact": "2"}))["sys_updated_on"], json!("2026-11-21 08:15:00"));
        let changed = patch(&mut trial, json!({"impact": "1", "urgency": "1"}));
        assert_eq!((&changed["priority"], &changed["sys_mod_count"]), (&json!("1"), &json!("1")));
        assert_eq!(changed["sys_updated_on"], json!("2026-11-21 08:16:00"));
        // A repeated note is a second note.
        for count in ["2", "3"] {
            assert_eq!(patch(&mut trial, json!({"work_notes": "n"}))["sys_mod_count"], json!(count));
        }
    }

    #[test]
    fn numbers_count_up_table_by_table() {
        let mut trial = Trial::new();
        let mut number = |table: &str| trial.make(table, &json!({}))["number"].clone();
        assert_eq!(number("incident"), json!("INC0010001"));
        assert_eq!(number("incident"), json!("INC0010002"));
        assert_eq!(number("problem"), json!("PRB0010001"));
        assert_eq!(number("change_request"), json!("CHG0010001"));
        assert_eq!(number("sn_si_incident"), json!("SIR0010001"));
        assert_eq!(number("sn_ot_incident"), json!("OTINC0010001"));
    }

    #[test]
    fn faults_drop_fields_and_limits_hold() {
        let mut trial = Trial::new();
        trial.tweaks.drop_fields.push("correlation_id".to_owned());
        assert_eq!(trial.make("incident", &json!({"correlation_id": "x"}))["correlation_id"], json!(""));
        trial.instance.options.max_records = 1;
        assert_eq!(trial.call("POST", "/api/now/table/incident", &json!({})).0, 403);
    }

    #[test]
    fn a_new_choice_is_a_choice() {
        let mut trial = Trial::new();
        let choice = json!({"name": "incident", "element": "category", "value": "ot", "label": "OT"});
        trial.make("sys_choice", &choice);
        assert_eq!(trial.make("incident", &json!({"category": "ot"}))["category"], json!("ot"));
    }
}
