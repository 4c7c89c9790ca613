//! What is known of a table, and what that makes of a record before it is sent. Pure.
//!
//! Nothing is judged by what could not be read: a table without its dictionary has no unknown columns, a column without
//! a list of choices takes any value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::destination::Fields;
use crate::model::{SysId, Timestamp, text};
use crate::servicenow::{fields, wire};

/// Choices of one column that are named in a message.
const NAMED: usize = 12;

/// A column, as the dictionary has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    /// Longest value in characters; `None`: not said.
    pub(super) max: Option<usize>,
    /// The table that a reference leads to.
    pub(super) target: Option<String>,
    pub(super) mandatory: bool,
    pub(super) has_default: bool,
    /// Whether only values of its list are stored; suggestions are none.
    pub(super) is_closed: bool,
}

/// A choice: what is stored, and what people see.
pub(super) type Choice = (String, String);

#[derive(Clone, Debug, Default)]
pub(super) struct TableSchema {
    /// The table and those that it extends, itself first.
    pub(super) family: Vec<String>,
    /// By name; empty: the dictionary could not be read, or has nothing of this table.
    pub(super) columns: BTreeMap<String, Column>,
    /// Columns that a data policy wants filled, always.
    pub(super) by_policy: BTreeSet<String>,
    /// By column; a column whose choices were asked for and that has none is there with an empty list.
    pub(super) choices: BTreeMap<String, Vec<Choice>>,
    /// What could not be read.
    pub(super) unread: BTreeSet<&'static str>,
}

/// A reference that is given by a name: column, the table it leads to, the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pub(super) column: String,
    pub(super) target: String,
    pub(super) name: String,
}

/// What became of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    To(SysId),
    /// Nothing has that name.
    Nothing,
    /// So many have it.
    Several(usize),
    /// That table could not be read: the instance may know the name.
    Unread,
    /// Asking failed in a way that passes, since then; how it failed last.
    Failing {
        since: Timestamp,
        words: String,
    },
}

/// Why a field is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    NoColumn,
    /// The value, and what there is.
    NoChoice(String, String),
}

/// A record, made to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fitted {
    pub(super) fields: Fields,
    pub(super) left_out: BTreeMap<String, LeftOut>,
    /// Mandatory columns without a value; true: by a data policy.
    pub(super) empty: BTreeMap<String, bool>,
    /// Names that lead nowhere.
    pub(super) lost: Vec<(Named, Resolved)>,
}

/// Where the references that every instance has lead to, for tables whose dictionary cannot be read.
fn usual_target(column: &str) -> Option<&'static str> {
    Some(match column {
        "assignment_group" => "sys_user_group",
        "assigned_to" | "caller_id" | "opened_by" => "sys_user",
        "company" => "core_company",
        "cmdb_ci" => "cmdb_ci",
        _ => return None,
    })
}

impl TableSchema {
    /// Takes the rows of the dictionary; what a table says itself goes before what those that it extends say.
    pub(super) fn take_columns(&mut self, rows: &[Value]) {
        for table in &self.family {
            for row in rows.iter().filter(|row| wire::field(row, "name") == *table) {
                let name = wire::field(row, "element");
                let is_off = wire::field(row, "active") == "false";
                // A row without a column is the table's own.
                if !name.is_empty() && !is_off && !self.columns.contains_key(&name) {
                    self.columns.insert(name, column(row));
                }
            }
        }
    }

    /// Takes the rows of the choices of these columns: those of the nearest table that has any.
    pub(super) fn take_choices(&mut self, asked: &BTreeSet<String>, rows: &[Value]) {
        for name in asked {
            let of = |table: &String| {
                let is_one = |row: &&Value| {
                    wire::field(row, "name") == *table
                        && wire::field(row, "element") == *name
                        && wire::field(row, "inactive") != "true"
                };
                let choice = |row| (wire::field(row, "value"), wire::field(row, "label"));
                rows.iter().filter(is_one).map(choice).collect::<Vec<Choice>>()
            };
            let nearest = self.family.iter().map(of).find(|list| !list.is_empty());
            self.choices.insert(name.clone(), nearest.unwrap_or_default());
        }
    }

    /// Takes the rows of the data policies. One with a condition is no business of a new record.
    pub(super) fn take_policies(&mut self, rows: &[Value]) {
        for row in rows {
            let says = |name: &str| wire::field(row, name);
            let is_always = says("sys_data_policy.conditions").trim_end_matches("^EQ").is_empty()
                && says("sys_data_policy.active") != "false"
                && says("disabled") != "true";
            let is_ours = self.family.contains(&says("sys_data_policy.model_table"));
            if is_always && is_ours && says("mandatory") == "true" && !says("field").is_empty() {
                self.by_policy.insert(says("field"));
            }
        }
    }

    /// The references of these fields that are given by a name.
    pub(super) fn named(&self, fields: &Fields) -> Vec<Named> {
        let named = |(column, value): (&String, &String)| {
            let known = self.columns.get(column);
            let target = match known {
                Some(column) => column.target.clone()?,
                None if self.columns.is_empty() => usual_target(column)?.to_owned(),
                None => return None,
            };
            SysId::new(value).is_err().then(|| Named { column: column.clone(), target, name: value.clone() })
        };
        fields.iter().filter_map(named).collect()
    }

    /// The columns of these fields whose choices are not known yet.
    pub(super) fn unasked(&self, fields: &Fields) -> BTreeSet<String> {
        let may_have = |name: &&String| self.columns.get(*name).is_none_or(|c| c.is_closed);
        fields.keys().filter(may_have).filter(|name| !self.choices.contains_key(*name)).cloned().collect()
    }

    /// Makes a record fit: `resolve` says what a name leads to, `None` where nobody asked.
    pub(super) fn fit(&self, sent: &Fields, resolve: impl Fn(&Named) -> Option<Resolved>) -> Fitted {
        let mut fitted = Fitted { fields: sent.clone(), ..Fitted::default() };
        if !self.columns.is_empty() {
            for name in sent.keys().filter(|name| !self.columns.contains_key(*name)) {
                fitted.fields.remove(name);
                fitted.left_out.insert(name.clone(), LeftOut::NoColumn);
            }
        }
        for named in self.named(&fitted.fields) {
            match resolve(&named) {
                Some(Resolved::To(id)) => drop(fitted.fields.insert(named.column, id.to_string())),
                Some(Resolved::Unread | Resolved::Failing { .. }) | None => {}
                Some(lost) => fitted.lost.push((named, lost)),
            }
        }
        for (name, value) in &mut fitted.fields {
            self.fit_value(name, value, &mut fitted.left_out);
        }
        fitted.fields.retain(|name, _| !fitted.left_out.contains_key(name));
        let by_dictionary = self.columns.iter().filter(|(_, c)| c.mandatory && !c.has_default);
        let wanted = by_dictionary.map(|(name, _)| (name, false));
        for (name, policy) in wanted.chain(self.by_policy.iter().map(|name| (name, true))) {
            let is_ours =
                matches!(name.as_str(), "sys_id" | "number" | "correlation_id" | "correlation_display");
            let has_default = self.columns.get(name).is_some_and(|c| c.has_default);
            if !is_ours && !has_default && !fitted.fields.contains_key(name) {
                fitted.empty.insert(name.clone(), policy);
            }
        }
        fitted
    }

    fn fit_value(&self, name: &str, value: &mut String, left_out: &mut BTreeMap<String, LeftOut>) {
        let column = self.columns.get(name);
        let choices = self.choices.get(name).map_or(&[] as &[Choice], Vec::as_slice);
        if column.is_none_or(|c| c.is_closed) && !choices.is_empty() {
            if choices.iter().any(|(stored, _)| stored == value) {
                return;
            }
            // What people see is meant as well as what is stored.
            if let Some((stored, _)) = choices.iter().find(|(_, label)| label.eq_ignore_ascii_case(value)) {
                stored.clone_into(value);
            } else {
                let value = fields::clip_chars(&text::one_line(value), 80);
                left_out.insert(name.to_owned(), LeftOut::NoChoice(value, some_of(choices)));
            }
            return;
        }
        if let Some(max) = column.filter(|c| c.target.is_none()).and_then(|c| c.max) {
            *value = fields::clip_chars(value, max);
        }
    }
}

fn some_of(choices: &[Choice]) -> String {
    let mut named: Vec<&str> = choices.iter().map(|(value, _)| value.as_str()).collect();
    named.sort_unstable();
    named.dedup();
    let more = if named.len() > NAMED { " …" } else { "" };
    let named = named.into_iter().take(NAMED).map(|v| text::clip(&text::one_line(v), 40).into_owned());
    format!("{}{more}", named.collect::<Vec<_>>().join(", "))
}

fn column(row: &Value) -> Column {
    let says = |name: &str| wire::field(row, name);
    let kind = says("internal_type");
    let is_text = matches!(kind.as_str(), "string" | "" | "translated_text" | "url" | "email" | "ip_addr");
    Column {
        max: says("max_length").trim().parse().ok().filter(|max| *max > 0 && is_text),
        target: Some(says("reference")).filter(|target| kind == "reference" && !target.is_empty()),
        mandatory: says("mandatory") == "true",
        has_default: !says("default_value").is_empty() || is_filled(&says("element"), &kind),
        // 1 and 3 are lists, 2 only suggests; where it is not said, a list is one.
        is_closed: !matches!(says("choice").as_str(), "0" | "2"),
    }
}

/// Columns that the instance fills by itself.
fn is_filled(name: &str, kind: &str) -> bool {
    name.starts_with("sys_")
        || matches!(kind, "boolean" | "GUID" | "journal" | "journal_input" | "journal_list")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn incident() -> TableSchema {
        let mut schema =
            TableSchema { family: vec!["incident".to_owned(), "task".to_owned()], ..TableSchema::default() };
        schema.take_columns(&[
            json!({"name": "task", "element": "", "internal_type": "collection"}),
            json!({"name": "task", "element": "short_description", "internal_type": "string", "max_length": "10"}),
            json!({"name": "task", "element": "assignment_group", "internal_type": {"value": "reference"},
                   "reference": {"value": "sys_user_group"}, "max_length": "32"}),
            json!({"name": "task", "element": "impact", "internal_type": "integer", "choice": "3", "default_value": "3"}),
            json!({"name": "task", "element": "location", "internal_type": "string", "mandatory": "true"}),
            json!({"name": "incident", "element": "location", "internal_type": "string", "mandatory": "false"}),
            json!({"name": "incident", "element": "category", "internal_type": "string", "mandatory": "true"}),
            json!({"name": "incident", "element": "subcategory", "internal_type": "string", "choice": "2"}),
            json!({"name": "incident", "element": "gone", "active": "false"}),
            json!({"name": "stranger", "element": "foreign"}),
        ]);
        let choice = |table: &str, element: &str, value: &str, label: &str| json!({"name": table, "element": element, "value": value, "label": label});
        let asked = ["impact", "category", "subcategory"].map(str::to_owned).into();
        schema.take_choices(
            &asked,
            &[
                choice("task", "impact", "9", "Only for tasks"),
                choice("incident", "impact", "1", "1 - High"),
                choice("incident", "impact", "2", "2 - Medium"),
                choice("incident", "subcategory", "a", "A"),
                json!({"name": "incident", "element": "impact", "value": "7", "inactive": "true"}),
            ],
        );
        schema
    }

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// What becomes of one field beside a category.
    #[track_caller]
    fn check(name: &str, value: &str, expected: Option<&str>) {
        let fitted = incident().fit(&fields(&[("category", "x"), (name, value)]), |_| None);
        assert_eq!(fitted.fields.get(name).map(String::as_str), expected, "{name} {value}");
        assert_eq!(fitted.left_out.contains_key(name), expected.is_none(), "{fitted:?}");
    }

    #[test]
    fn fields_are_kept_mapped_cut_or_left_out() {
        check("impact", "1", Some("1"));
        check("impact", "2 - medium", Some("2"));
        check("impact", "7", None);
        check("impact", "9", None);
        check("subcategory", "anything", Some("anything"));
        check("short_description", "exactly 10", Some("exactly 10"));
        check("short_description", "exactly 11!", Some("exactly 1…"));
        check("gone", "x", None);
        check("foreign", "x", None);
        check("u_nosuch", "x", None);
        check(
            "assignment_group",
            "a name that is longer than its column, 32",
            Some("a name that is longer than its column, 32"),
        );
    }

    #[test]
    fn what_is_mandatory_is_said_by_the_nearest_table_and_by_policies() {
        let mut schema = incident();
        let empty = |schema: &TableSchema, sent: &[(&str, &str)]| {
            schema.fit(&fields(sent), |_| None).empty.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(empty(&schema, &[]), [("category".to_owned(), false)]);
        assert_eq!(empty(&schema, &[("category", "x")]), []);
        let rule = |field: &str, conditions: &str, active: &str| {
            json!({"field": field, "mandatory": "true", "sys_data_policy.conditions": conditions,
                   "sys_data_policy.active": active, "sys_data_policy.model_table": "task"})
        };
        schema.take_policies(&[
            rule("short_description", "^EQ", "true"),
            rule("impact", "", "true"),
            rule("location", "state=6^EQ", "true"),
            rule("subcategory", "", "false"),
        ]);
        let wanted = [("category".to_owned(), false), ("short_description".to_owned(), true)];
        assert_eq!(empty(&schema, &[]), wanted, "what has a default is filled there");
    }

    #[test]
    fn names_become_ids_or_are_said_to_be_lost() {
        let schema = incident();
        let sent = fields(&[("category", "x"), ("assignment_group", "OT SOC")]);
        let id = SysId::new("0f1e2d3c4b5a69788796a5b4c3d2e1f0").unwrap();
        let fitted = schema.fit(&sent, |_| Some(Resolved::To(id.clone())));
        assert_eq!(fitted.fields["assignment_group"], id.as_str());
        for lost in [Resolved::Nothing, Resolved::Several(2)] {
            let fitted = schema.fit(&sent, |_| Some(lost.clone()));
            assert_eq!(fitted.lost[0].1, lost);
        }
        let fitted = schema.fit(&sent, |_| Some(Resolved::Unread));
        assert_eq!((fitted.lost.len(), fitted.fields["assignment_group"].as_str()), (0, "OT SOC"));
        let by_id = fields(&[("assignment_group", id.as_str())]);
        assert!(schema.named(&by_id).is_empty());
    }

    #[test]
    fn what_could_not_be_read_judges_nothing() {
        let schema = TableSchema::default();
        let sent = fields(&[("u_any", "x"), ("impact", "77"), ("assignment_group", "OT SOC")]);
        let fitted = schema.fit(&sent, |_| None);
        assert_eq!(fitted, Fitted { fields: sent.clone(), ..Fitted::default() });
        assert_eq!(schema.named(&sent)[0].target, "sys_user_group");
    }

    proptest! {
        #[test]
        fn rows_of_any_shape_harm_nothing(
            keys in prop::collection::vec("name|element|internal_type|max_length|reference|mandatory|field|value", 0..6),
            values in prop::collection::vec(prop_oneof![
                Just(json!(null)), Just(json!("incident")), Just(json!("-1")), Just(json!("99999999999999999999")),
                Just(json!({"value": "impact"})), Just(json!([1])), Just(json!(true)), "\\PC{0,20}".prop_map(|t| json!(t)),
            ], 6),
            value in "\\PC{0,40}",
        ) {
            let row: serde_json::Map<String, Value> = keys.into_iter().zip(values).collect();
            let rows = [Value::Object(row), json!(7), json!([])];
            let mut schema = TableSchema { family: vec!["incident".to_owned()], ..TableSchema::default() };
            schema.take_columns(&rows);
            schema.take_choices(&["impact".to_owned()].into(), &rows);
            schema.take_policies(&rows);
            let fitted = schema.fit(&fields(&[("impact", &value), ("u_x", &value)]), |_| Some(Resolved::Nothing));
            prop_assert!(fitted.fields.values().all(|kept| kept.chars().count() <= value.chars().count()));
        }
    }
}
