//! What the instance says about itself: its tables, their columns, its data policies; and that a policy is kept.
//!
//! A column stands in the dictionary once, at the table that brings it, as on an instance. Tables that take any field
//! are not in it. Editing the dictionary changes what is said, not what is stored; a data policy that is added holds.

use super::call::Answer;
use super::instance::{Instance, Row, Table};
use super::schema::{Field, Kind};

impl Instance {
    /// Fills the tables that tell of tables.
    pub(super) fn seed_dictionary(&mut self) {
        let mut left: Vec<String> = self.tables.keys().cloned().collect();
        let mut known: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
        // Parents first: a table names the row of the one that it extends.
        while !left.is_empty() {
            let before = left.len();
            left.retain(|name| {
                let parent = self.tables.get(name).map(|t| t.parent.clone()).unwrap_or_default();
                if !parent.is_empty() && !known.contains_key(&parent) {
                    return true;
                }
                let above = known.get(&parent).cloned().unwrap_or_default();
                let row = [("name", name.as_str()), ("label", name), ("super_class", &above)];
                known.insert(name.clone(), self.seed_row("sys_db_object", &row));
                false
            });
            if left.len() == before {
                break;
            }
        }
        let rows: Vec<_> =
            self.tables.values().filter(|t| !t.schema.open).flat_map(|t| self.own_columns(t)).collect();
        for row in rows {
            let row: Vec<(&str, &str)> = row.iter().map(|(name, value)| (*name, value.as_str())).collect();
            self.seed_row("sys_dictionary", &row);
        }
    }

    fn own_columns(&self, table: &Table) -> Vec<Vec<(&'static str, String)>> {
        let parent = self.tables.get(&table.parent);
        let is_own = |field: &&Field| parent.is_none_or(|p| p.schema.field(&field.name).is_none());
        table.schema.fields.iter().filter(is_own).map(|field| self.column(table, field)).collect()
    }

    fn column(&self, table: &Table, field: &Field) -> Vec<(&'static str, String)> {
        let is_list = self.family(&table.name).any(|t| !self.choices(&t.name, &field.name).is_empty());
        let (kind, max, target) = match &field.kind {
            Kind::Text(max) => ("string", max.to_string(), ""),
            Kind::Integer => ("integer", "40".to_owned(), ""),
            Kind::Boolean => ("boolean", "40".to_owned(), ""),
            Kind::DateTime => ("glide_date_time", "40".to_owned(), ""),
            Kind::Choice => ("string", "40".to_owned(), ""),
            Kind::Reference(target) => ("reference", "32".to_owned(), target.as_str()),
            Kind::Journal => ("journal_input", "4000".to_owned(), ""),
        };
        vec![
            ("name", table.name.clone()),
            ("element", field.name.clone()),
            ("internal_type", kind.to_owned()),
            ("column_label", label(&field.name)),
            ("max_length", max),
            ("reference", target.to_owned()),
            ("default_value", field.default.clone()),
            ("read_only", field.read_only.to_string()),
            ("choice", if is_list || field.kind == Kind::Choice { "3" } else { "0" }.to_owned()),
        ]
    }

    /// The refusal of a record that leaves a field empty which a data policy without a condition wants.
    pub(super) fn data_policies(&self, table: &str, row: &Row) -> Result<(), Answer> {
        let (Some(rules), Some(own)) = (self.tables.get("sys_data_policy_rule"), self.tables.get(table))
        else {
            return Ok(());
        };
        let missing = rules.rows().filter_map(|(_, rule)| {
            let field = rules.value(rule, "field");
            let (policies, _, policy) =
                self.find("sys_data_policy2", rules.value(rule, "sys_data_policy"))?;
            let holds = policies.value(policy, "active") == "true"
                && policies.value(policy, "conditions").is_empty()
                && rules.value(rule, "mandatory") == "true"
                && self.is_a(table, policies.value(policy, "model_table"));
            (holds && own.value(row, field).is_empty()).then(|| label(field))
        });
        let missing: Vec<String> = missing.collect();
        Answer::mandatory(&missing)
    }
}

/// `assignment_group` is labelled `Assignment group`.
fn label(name: &str) -> String {
    let text = name.trim_start_matches("u_").replace('_', " ");
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::Trial;

    #[test]
    fn a_column_stands_at_the_table_that_brings_it() {
        let mut trial = Trial::new();
        let mut of = |query: &str, field: &str| trial.list("sys_dictionary", query, field);
        assert_eq!(of("element=short_description^nameINtask,incident", "name"), ["task"]);
        assert_eq!(of("element=caller_id^name=incident", "reference"), ["sys_user"]);
        assert_eq!(of("element=short_description^name=task", "max_length"), ["160"]);
        assert_eq!(of("element=close_code^name=incident", "choice"), ["3"]);
        let parent =
            "/api/now/table/sys_db_object?sysparm_query=name%3Dincident&sysparm_fields=super_class.name";
        let (_, answer) = trial.call("GET", parent, &json!(null));
        assert_eq!(answer["result"], json!([{"super_class.name": "task"}]));
    }

    #[test]
    fn a_policy_that_is_added_holds() {
        let mut trial = Trial::new();
        let policy = trial.make("sys_data_policy2", &json!({"model_table": "task"}));
        let rule = json!({"sys_data_policy": policy["sys_id"], "field": "location", "mandatory": "true"});
        trial.make("sys_data_policy_rule", &rule);
        let (status, answer) = trial.call("POST", "/api/now/table/incident", &json!({}));
        let words = "Data Policy Exception: The following fields are mandatory: Location";
        assert_eq!((status, &answer["error"]["detail"]), (403, &json!(words)));
        assert_eq!(trial.call("POST", "/api/now/table/incident", &json!({"location": "North"})).0, 201);
        assert_eq!(trial.call("POST", "/api/now/table/em_event", &json!({})).0, 201);
    }
}
