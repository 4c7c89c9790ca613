//! How a record looks in an answer: strings everywhere, references as objects or strings, journal fields empty.

use serde_json::{Map, Value, json};

use super::call::{Call, Params};
use super::instance::{Instance, Row, Table};
use super::schema::Kind;

/// `sysparm_display_value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Display {
    /// Database values.
    Value,
    /// What people see.
    Label,
    All,
}

/// How the caller wants records.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    display: Display,
    links: bool,
    fields: Vec<String>,
}

impl Shape {
    /// From the parameters; upper and lower case mean the same, and no fields mean all.
    pub(super) fn of(call: &Call) -> Self {
        Self::from_params(&call.params)
    }

    /// Every field, both its values.
    pub(super) fn both() -> Self {
        Self { display: Display::All, links: false, fields: Vec::new() }
    }

    fn from_params(params: &Params) -> Self {
        let display = match params.get("sysparm_display_value").map(str::to_ascii_lowercase).as_deref() {
            Some("true") => Display::Label,
            Some("all") => Display::All,
            _ => Display::Value,
        };
        let listed = params.get("sysparm_fields").unwrap_or_default().split(',').map(str::trim);
        Self {
            display,
            links: !params.flag("sysparm_exclude_reference_link"),
            fields: listed.filter(|f| !f.is_empty()).take(1000).map(str::to_owned).collect(),
        }
    }
}

impl Instance {
    pub(super) fn show(&self, table: &Table, row: &Row, shape: &Shape) -> Value {
        let mut out = Map::new();
        if shape.fields.is_empty() {
            for field in &table.schema.fields {
                out.insert(field.name.clone(), self.show_field(table, row, &field.name, shape));
            }
        } else {
            for path in shape.fields.iter().filter(|path| self.knows(&table.name, path)) {
                out.insert(path.clone(), self.show_path(table, row, path, shape));
            }
        }
        Value::Object(out)
    }

    fn show_path(&self, table: &Table, row: &Row, path: &str, shape: &Shape) -> Value {
        let Some((first, rest)) = path.split_once('.') else {
            return self.show_field(table, row, path, shape);
        };
        let target = match table.schema.field(first).map(|f| &f.kind) {
            Some(Kind::Reference(target)) => self.find(target, table.value(row, first)),
            _ => None,
        };
        match target {
            Some((table, _, row)) => self.show_path(table, row, rest, shape),
            None if shape.display == Display::All => json!({"display_value": "", "value": ""}),
            None => json!(""),
        }
    }

    fn show_field(&self, table: &Table, row: &Row, name: &str, shape: &Shape) -> Value {
        let Some(field) = table.schema.field(name) else { return json!("") };
        let value = table.value(row, name);
        let label = || self.label(table, row, name, &field.kind);
        let Kind::Reference(target) = &field.kind else {
            return match shape.display {
                Display::Value => json!(value),
                Display::Label => json!(label()),
                Display::All => json!({"display_value": label(), "value": value}),
            };
        };
        if value.is_empty() {
            return match shape.display {
                Display::All => json!({"display_value": "", "value": ""}),
                _ => json!(""),
            };
        }
        let link = || format!("{}/api/now/table/{target}/{value}", self.base);
        match (shape.display, shape.links) {
            (Display::Value, true) => json!({"link": link(), "value": value}),
            (Display::Value, false) => json!(value),
            (Display::Label, true) => json!({"display_value": label(), "link": link()}),
            (Display::Label, false) => json!(label()),
            (Display::All, true) => json!({"display_value": label(), "value": value, "link": link()}),
            (Display::All, false) => json!({"display_value": label(), "value": value}),
        }
    }

    /// What people see of a field.
    pub(super) fn label(&self, table: &Table, row: &Row, name: &str, kind: &Kind) -> String {
        let value = table.value(row, name);
        match kind {
            Kind::Reference(target) => match self.display(target, value) {
                Some(shown) => shown.to_owned(),
                None if value == "global" => value.to_owned(),
                None => String::new(),
            },
            Kind::Choice => {
                let choice = self.choices(&table.name, name).iter().find(|(v, _)| v == value);
                choice.map_or(value, |(_, label)| label).to_owned()
            }
            Kind::Journal => self.history(table, row, name),
            _ => value.to_owned(),
        }
    }

    /// All entries of a journal field, newest first, as one text.
    fn history(&self, table: &Table, row: &Row, name: &str) -> String {
        let Some(journal) = self.tables.get("sys_journal_field") else { return String::new() };
        let entries = journal.with_key("element_id", &[table.value(row, "sys_id")]).unwrap_or_default();
        let mut text = String::new();
        for entry in entries.iter().rev().filter_map(|seq| journal.row(*seq)) {
            let element = journal.value(entry, "element");
            if element == name || name == "comments_and_work_notes" {
                let kind = if element == "comments" { "Additional comments" } else { "Work notes" };
                let (on, by) =
                    (journal.value(entry, "sys_created_on"), journal.value(entry, "sys_created_by"));
                text += &[on, " - ", by, " (", kind, ")\n", journal.value(entry, "value"), "\n\n"].concat();
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    /// One field of a new incident in one shape.
    fn check(field: &str, params: &str, expected: &Value) {
        let mut trial = Trial::new();
        let group = trial.list("sys_user_group", "name=Network", "sys_id").remove(0);
        let body = json!({"impact": "1", "work_notes": "n", "assignment_group": group});
        let id = trial.make("incident", &body)["sys_id"].as_str().unwrap().to_owned();
        let (_, answer) = trial.call("GET", &format!("/api/now/table/incident/{id}?{params}"), &Value::Null);
        let expected = expected.to_string().replace("GROUP", &group);
        assert_eq!(answer["result"][field].to_string(), expected, "{field} with {params}");
    }

    #[test]
    fn scalars() {
        check("impact", "", &json!("1"));
        check("impact", "sysparm_display_value=False", &json!("1"));
        check("impact", "sysparm_display_value=True", &json!("1 - High"));
        check(
            "priority",
            "sysparm_display_value=all",
            &json!({"display_value": "3 - Moderate", "value": "3"}),
        );
        check("active", "sysparm_display_value=all", &json!({"display_value": "true", "value": "true"}));
        check("sys_mod_count", "", &json!("0"));
        check("close_notes", "", &json!(""));
    }

    #[test]
    fn references() {
        let field = "assignment_group";
        let link = "http://sim/api/now/table/sys_user_group/GROUP";
        let bare = "sysparm_exclude_reference_link=true&sysparm_display_value=";
        check(field, "", &json!({"link": link, "value": "GROUP"}));
        check(field, &format!("{bare}false"), &json!("GROUP"));
        check(field, "sysparm_display_value=true", &json!({"display_value": "Network", "link": link}));
        check(field, &format!("{bare}true"), &json!("Network"));
        let all = json!({"display_value": "Network", "link": link, "value": "GROUP"});
        check(field, "sysparm_display_value=all", &all);
        check(field, &format!("{bare}all"), &json!({"display_value": "Network", "value": "GROUP"}));
        check("cmdb_ci", "", &json!(""));
        check("cmdb_ci", "sysparm_display_value=true", &json!(""));
        check("cmdb_ci", "sysparm_display_value=all", &json!({"display_value": "", "value": ""}));
        let global = json!({"link": "http://sim/api/now/table/sys_user_group/global", "value": "global"});
        check("sys_domain", "", &global);
    }

    #[test]
    fn journals() {
        check("work_notes", "", &json!(""));
        let text = "2026-11-21 08:15:00 - admin (Work notes)\nn\n\n";
        check("work_notes", "sysparm_display_value=true", &json!(text));
        check("comments", "sysparm_display_value=true", &json!(""));
    }

    #[test]
    fn fields() {
        let walked = "sysparm_fields=number,nosuch,assignment_group.name,cmdb_ci.name";
        check("assignment_group.name", walked, &json!("Network"));
        check("cmdb_ci.name", walked, &json!(""));
        check("nosuch", walked, &Value::Null);
        check("state", walked, &Value::Null);
        // No fields are all fields.
        check("state", "sysparm_fields=", &json!("1"));
    }
}
