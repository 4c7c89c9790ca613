//! Identification and Reconciliation: `POST /api/now/identifyreconcile[/query | /enhanced | /queryEnhanced]`.
//!
//! An item is first looked for by its native key in `sys_object_source`, then by serial number, MAC and name; what is found
//! is updated, what is not is made. An item that fails has its error in an answer of 200. Without `partial_commits` one
//! that fails keeps all others from being written. Whose word counts: the property [`PRECEDENCE`] names data sources, the
//! highest first; what a higher one has told of a CI is skipped without a word, as the engine does it. Not here: dependent
//! rules, partial payloads that are completed later.

use crate::model::gather::Gather as _;
use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Made};
use super::instance::{Context, Instance};

/// Most items of a request.
const ITEMS_MAX: usize = 1000;
/// Data sources by precedence, with commas; stands for reconciliation rules.
const PRECEDENCE: &str = "simulator.cmdb.precedence";
/// Columns of a CI that a lookup or a related row points to it by.
const CI: &str = "cmdb_ci";

/// What the caller wants of it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the API")]
struct Mode {
    query: bool,
    enhanced: bool,
    partial_commits: bool,
    deduplicate: bool,
    summary: bool,
}

/// What an item is, before anything is written.
enum Found {
    /// A CI that is there, and by which rule.
    Known(String, &'static str),
    /// None is.
    New,
    /// The engine's code and words.
    Failed(&'static str, String),
}

/// The class, the fields and the key of one item.
struct Item<'a> {
    class: &'a str,
    values: Map<String, Value>,
    source: &'a str,
    native: &'a str,
    raw: &'a Value,
}

impl<'a> Item<'a> {
    fn of(raw: &'a Value) -> Self {
        let info = &raw["sys_object_source_info"];
        let text = |value: &'a Value| value.as_str().unwrap_or_default();
        Self {
            class: text(&raw["className"]),
            values: raw["values"].as_object().cloned().unwrap_or_default(),
            source: text(&info["source_name"]),
            native: text(&info["source_native_key"]),
            raw,
        }
    }

    fn value(&self, name: &str) -> &str {
        self.values.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn rows(&self, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.raw.get(list).and_then(Value::as_array).into_iter().flatten()
    }
}

impl Instance {
    /// `/api/now/identifyreconcile…`.
    pub(super) fn identify(&mut self, ctx: Context<'_>, call: &Call, rest: &str) -> Result<Answer, Answer> {
        if call.method != Method::POST {
            return Err(Answer::no_verb(&call.method));
        }
        let mut mode = Mode::default();
        (mode.query, mode.enhanced) = match rest {
            "" => (false, false),
            "query" => (true, false),
            "enhanced" => (false, true),
            "queryEnhanced" => (true, true),
            _ => return Err(Answer::no_path()),
        };
        if mode.enhanced {
            options(call, &mut mode)?;
        }
        let body = call.object()?;
        let Some(raw) = body.get("items").and_then(Value::as_array).filter(|items| items.len() <= ITEMS_MAX)
        else {
            return Err(Answer::error(500, "Invalid payload", Some("items is missing or too long")));
        };
        let items: Vec<Item<'_>> = raw.iter().map(Item::of).collect();
        let relations: Vec<&Value> =
            body.get("relations").and_then(Value::as_array).into_iter().flatten().collect();
        let source = call.params.get("sysparm_data_source").map_or("", AsRef::as_ref);
        if source.is_empty() {
            let parked = items.iter().enumerate().map(|(at, item)| {
                json!({"className": item.class, "operation": "INSERT_AS_INCOMPLETE", "sysId": "Unknown",
                       "identifierEntrySysId": "Unknown", "errors": [], "errorCount": 0, "inputIndices": [at]})
            });
            let parked: Vec<Value> = parked.collect();
            return Ok(Answer::result(200, &json!({"items": parked, "relations": []})));
        }
        Ok(self.commit(ctx, source, mode, &items, &relations))
    }

    fn commit(
        &mut self,
        ctx: Context<'_>,
        source: &str,
        mode: Mode,
        items: &[Item<'_>],
        relations: &[&Value],
    ) -> Answer {
        let mut failed: Vec<Option<(&'static str, String)>> =
            (0..items.len()).map(|at| self.wrong(source, mode, items, at)).collect();
        if failed.iter().any(Option::is_some) && !mode.partial_commits {
            let others = ("ABANDONED", "Another item of the payload failed".to_owned());
            failed.iter_mut().filter(|f| f.is_none()).for_each(|f| *f = Some(others.clone()));
        }
        let (mut answers, mut ids, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for (at, item) in items.iter().enumerate() {
            let failure = failed[at].take();
            let found = failure.map_or_else(|| self.look(item), |(code, words)| Found::Failed(code, words));
            let (answer, id) = self.write_item(ctx, mode, at, item, found, &mut new);
            answers.push(answer);
            ids.push(id);
        }
        let links: Vec<Value> = relations
            .iter()
            .enumerate()
            .map(|(at, relation)| self.relate(ctx, mode, at, relation, (items, &ids), &mut new))
            .collect();
        let bad = answers.iter().chain(&links).any(|a| a["errorCount"] != json!(0));
        let mut result = json!({"items": answers, "relations": links,
            "additionalCommittedItems": [], "additionalCommittedRelations": []});
        if mode.enhanced {
            result["hasError"] = json!(bad);
            result["hasWarning"] = json!(false);
        }
        if mode.summary {
            result["summary"] =
                json!({"errors": answers.iter().filter(|a| a["errorCount"] != json!(0)).count()});
        }
        let mut answer = Answer::result(200, &result);
        answer.made = new;
        answer
    }

    /// What is wrong with an item, whatever is there.
    fn wrong(
        &self,
        source: &str,
        mode: Mode,
        items: &[Item<'_>],
        at: usize,
    ) -> Option<(&'static str, String)> {
        let item = &items[at];
        let known =
            |name: &str| self.choices("cmdb_ci", "discovery_source").iter().any(|(value, _)| value == name);
        for name in [source, item.source].into_iter().filter(|name| !name.is_empty()) {
            if !known(name) {
                let words = format!("Invalid data source [{name}]: not a choice of cmdb_ci.discovery_source");
                return Some(("INVALID_INPUT_DATA", words));
            }
        }
        if !self.is_a(item.class, "cmdb_ci") {
            return Some(("INVALID_INPUT_DATA", format!("Invalid class name [{}]", item.class)));
        }
        let same = |other: &Item<'_>| {
            !item.native.is_empty() && (other.source, other.native) == (item.source, item.native)
        };
        if !mode.deduplicate && items[..at].iter().any(same) {
            return Some((
                "DUPLICATE_PAYLOAD_RECORDS",
                format!("Found duplicate items in the payload (index {at})"),
            ));
        }
        let lookups = item.rows("lookup").filter_map(|row| row["className"].as_str());
        if let Some(class) = lookups.into_iter().find(|class| !self.tables.contains_key(*class)) {
            return Some((
                "IDENTIFICATION_RULE_FOR_LOOKUP_MISSING",
                format!("No rule for lookup table [{class}]"),
            ));
        }
        let related = item.rows("related").filter_map(|row| row["className"].as_str());
        if let Some(class) = related.into_iter().find(|class| !self.tables.contains_key(*class)) {
            return Some(("RELATED_ITEM_MISSING", format!("No rule for related table [{class}]")));
        }
        let identifies = !item.native.is_empty()
            || item.rows("lookup").next().is_some()
            || ["serial_number", "name", "ip_address"].iter().any(|name| !item.value(name).is_empty());
        let named = !item.value("name").is_empty();
        if !identifies || !named && item.rows("lookup").next().is_none() {
            let words = "In payload no relations defined or no matching attributes for any identifier entry"
                .to_owned();
            return Some(("MISSING_MATCHING_ATTRIBUTES", words));
        }
        None
    }

    /// The CI that an item is, by its native key, its serial number, its MAC, its name, in this order.
    fn look(&self, item: &Item<'_>) -> Found {
        if let Some(id) = self.by_native(item.source, item.native) {
            return Found::Known(id, "sys_object_source");
        }
        if !self.is_a(item.class, "cmdb_ci_hardware") && !self.is_a(item.class, "cmdb_ci_nids") {
            return Found::New;
        }
        let lookup = |class: &'static str, field: &'static str| {
            item.rows("lookup")
                .filter(move |row| row["className"] == class)
                .filter_map(move |row| row["values"][field].as_str())
        };
        for serial in lookup("cmdb_serial_number", "serial_number") {
            if let Some(id) = self.pointed("cmdb_serial_number", "serial_number", serial) {
                return Found::Known(id, "cmdb_serial_number");
            }
        }
        let family = if self.is_a(item.class, "cmdb_ci_nids") { "cmdb_ci_nids" } else { "cmdb_ci_hardware" };
        for (field, rule) in [("serial_number", "serial_number"), ("", "mac"), ("name", "name")] {
            if rule == "mac" {
                let mac = lookup("cmdb_ci_network_adapter", "mac_address")
                    .find_map(|mac| self.pointed("cmdb_ci_network_adapter", "mac_address", mac));
                if let Some(id) = mac {
                    return Found::Known(id, "mac_address");
                }
                continue;
            }
            let value = item.value(field);
            let all = if value.is_empty() { Vec::new() } else { self.with_value(family, field, value) };
            match all.as_slice() {
                [] => {}
                [one] => return Found::Known(one.clone(), rule),
                many => {
                    let words = format!("Found {} records of {family} with {field} [{value}]", many.len());
                    return Found::Failed("MULTIPLE_DUPLICATE_RECORDS", words);
                }
            }
        }
        Found::New
    }

    fn by_native(&self, source: &str, native: &str) -> Option<String> {
        let table = self.tables.get("sys_object_source")?;
        let rows = table.with_key("id", &[native]).filter(|_| !native.is_empty())?;
        rows.into_iter().find_map(|seq| {
            let row = table.row(seq)?;
            let (target, id) = (table.value(row, "target_table"), table.value(row, "target_sys_id"));
            let alive = table.value(row, "name") == source && self.find(target, id).is_some();
            alive.then(|| id.to_owned())
        })
    }

    /// The CI that a row of a lookup table points to.
    fn pointed(&self, table: &str, field: &str, value: &str) -> Option<String> {
        let table = self.tables.get(table)?;
        table.with_key(field, &[value])?.into_iter().find_map(|seq| {
            let id = table.value(table.row(seq)?, CI).to_owned();
            self.find("cmdb_ci", &id).is_some().then_some(id)
        })
    }

    fn with_value(&self, family: &str, field: &str, value: &str) -> Vec<String> {
        self.family(family)
            .flat_map(|table| {
                let rows = table.with_key(field, &[value]).unwrap_or_default();
                rows.into_iter().filter_map(|seq| Some(table.value(table.row(seq)?, "sys_id").to_owned()))
            })
            .collect()
    }

    fn write_item(
        &mut self,
        ctx: Context<'_>,
        mode: Mode,
        at: usize,
        item: &Item<'_>,
        found: Found,
        new: &mut Vec<Made>,
    ) -> (Value, Option<String>) {
        let (operation, id, rule) = match found {
            Found::Failed(code, words) => return (failure(at, item.class, code, &words), None),
            Found::Known(id, rule) if mode.query => ("UPDATE", id, rule),
            Found::New if mode.query => ("INSERT", "Unknown".to_owned(), ""),
            Found::Known(id, rule) => match self.reconcile(ctx, item, &id) {
                Ok(operation) => (operation, id, rule),
                Err(words) => return (failure(at, item.class, "INSERT_FAILED", &words), None),
            },
            Found::New => match self.insert(ctx, item.class, &item.values, true) {
                Ok(one) => {
                    new.push(one.clone());
                    ("INSERT", one.sys_id, "")
                }
                Err(refusal) => {
                    let words = String::from_utf8_lossy(&refusal.body).into_owned();
                    return (failure(at, item.class, "INSERT_FAILED", &words), None);
                }
            },
        };
        if !mode.query {
            self.attach(ctx, item, &id, new);
        }
        let attempts = json!([{"attributes": [rule], "identifierName": "Hardware Rule",
            "attemptResult": if rule.is_empty() { "NO_MATCH" } else { "MATCHED" }, "searchOnTable": item.class}]);
        let answer = json!({"className": item.class, "operation": operation, "sysId": id, "identifierEntrySysId": id,
            "relatedSysIds": [], "identificationAttempts": attempts, "relatedItems": [], "errors": [], "errorCount": 0,
            "warnings": [], "warningCount": 0, "inputIndices": [at], "markers": [], "mergedPayloadIds": []});
        (answer, Some(id))
    }

    /// Updates a CI; one of another class becomes one of this class, and keeps its `sys_id`.
    fn reconcile(&mut self, ctx: Context<'_>, item: &Item<'_>, id: &str) -> Result<&'static str, String> {
        let words = |refusal: &Answer| String::from_utf8_lossy(&refusal.body).into_owned();
        let Some((table, seq, row)) = self.find("cmdb_ci", id) else { return Err("No such CI".to_owned()) };
        let was = table.name.clone();
        if was != item.class && !self.is_a(&was, item.class) {
            let mut values: Map<String, Value> = table
                .schema
                .fields
                .iter()
                .map(|field| (field.name.clone(), json!(table.value(row, &field.name))))
                .into_object();
            values.extend(item.values.clone());
            values.insert("sys_id".to_owned(), json!(id));
            let upgrade = self.is_a(item.class, &was);
            self.drop_row(&was, seq);
            self.insert(ctx, item.class, &values, true).map_err(|e| words(&e))?;
            return Ok(if upgrade { "UPDATE_WITH_UPGRADE" } else { "UPDATE_WITH_SWITCH" });
        }
        let mods = |instance: &Self| {
            let (table, _, row) = instance.find(&was, id)?;
            Some(table.value(row, "sys_mod_count").to_owned())
        };
        let before = mods(self);
        let values = self.permitted(item, id);
        self.update(ctx, &was, id, &values, true).map_err(|e| words(&e))?;
        Ok(if mods(self) == before { "NO_CHANGE" } else { "UPDATE" })
    }

    /// The values that no source of higher precedence keeps: of a CI that it has told of, all that are filled.
    fn permitted(&self, item: &Item<'_>, id: &str) -> Map<String, Value> {
        let Some(order) = self.property(PRECEDENCE) else { return item.values.clone() };
        let rank = |name: &str| order.split(',').position(|one| one.trim() == name).unwrap_or(usize::MAX);
        let own = rank(item.source);
        let is_kept = self.tables.get("sys_object_source").is_some_and(|table| {
            table.rows().any(|(_, row)| {
                table.value(row, "target_sys_id") == id && rank(table.value(row, "name")) < own
            })
        });
        let filled = |name: &str| {
            self.find("cmdb_ci", id).is_some_and(|(table, _, row)| !table.value(row, name).is_empty())
        };
        let values = item.values.iter().filter(|(name, _)| !is_kept || !filled(name));
        values.map(|(name, value)| (name.clone(), value.clone())).into_object()
    }

    /// What hangs on a CI: where it is from, its lookups, its related rows.
    fn attach(&mut self, ctx: Context<'_>, item: &Item<'_>, id: &str, new: &mut Vec<Made>) {
        let now = self.clock.now().servicenow();
        self.set_quietly(id, "last_discovered", &now);
        if !item.native.is_empty() && self.by_native(item.source, item.native).is_none() {
            let row = json!({"name": item.source, "id": item.native, "target_sys_id": id, "target_table": item.class});
            self.put_row(ctx, "sys_object_source", &row, new);
        }
        for (list, unique) in [("lookup", true), ("related", false)] {
            for row in item.rows(list) {
                let (Some(class), Some(values)) = (row["className"].as_str(), row["values"].as_object())
                else {
                    continue;
                };
                self.hang(ctx, class, values, id, unique, new);
            }
        }
    }

    /// A row that points to a CI, made or changed.
    fn hang(
        &mut self,
        ctx: Context<'_>,
        class: &str,
        values: &Map<String, Value>,
        id: &str,
        unique: bool,
        new: &mut Vec<Made>,
    ) {
        let pointer = if class == "cmdb_ot_entity" { "ot_device" } else { CI };
        let same =
            ["serial_number", "mac_address", "key"].into_iter().find(|name| values.contains_key(*name));
        let old = self.tables.get(class).and_then(|table| {
            table.with_key(pointer, &[id])?.into_iter().find_map(|seq| {
                let row = table.row(seq)?;
                let wanted = |name: &str| values.get(name).and_then(Value::as_str).unwrap_or_default();
                let fits = same.is_none_or(|name| table.value(row, name) == wanted(name));
                fits.then(|| table.value(row, "sys_id").to_owned())
            })
        });
        let mut values = values.clone();
        values.insert(pointer.to_owned(), json!(id));
        if let Some(old) = old {
            if !unique {
                // A related row of a class that takes none of these fields stays as it is.
                let _ = self.update(ctx, class, &old, &values, true);
            }
            return;
        }
        let row = self.put_row(ctx, class, &Value::Object(values), new);
        if let (Some(row), "cmdb_ot_entity") = (row, class) {
            let link = Map::from_iter([("cmdb_ot_entity".to_owned(), json!(row))]);
            let _ = self.update(ctx, "cmdb_ci", id, &link, false);
        }
    }

    /// Sets a field of a CI without counting that as a change of it.
    fn set_quietly(&mut self, id: &str, field: &str, value: &str) {
        let Some((table, seq, row)) = self.find("cmdb_ci", id) else { return };
        let (name, mut row) = (table.name.clone(), row.clone());
        table.set(&mut row, field, value);
        if let Some(table) = self.tables.get_mut(&name) {
            table.put(seq, row);
        }
    }

    fn put_row(&mut self, ctx: Context<'_>, table: &str, row: &Value, new: &mut Vec<Made>) -> Option<String> {
        let one = self.insert(ctx, table, row.as_object()?, false).ok()?;
        new.push(one.clone());
        Some(one.sys_id)
    }

    /// A relation, by the ids or the places of its items.
    fn relate(
        &mut self,
        ctx: Context<'_>,
        mode: Mode,
        at: usize,
        relation: &Value,
        (items, ids): (&[Item<'_>], &[Option<String>]),
        new: &mut Vec<Made>,
    ) -> Value {
        let end = |by_id: &str, by_place: &str| match relation.get(by_id).and_then(Value::as_str) {
            Some(id) => items.iter().position(|item| item.raw["internal_id"] == json!(id)),
            None => relation.get(by_place).and_then(Value::as_u64).map(|n| n as usize),
        };
        let (parent, child) = (end("parent_id", "parent"), end("child_id", "child"));
        let id = |place: Option<usize>| ids.get(place?)?.clone();
        let kind = relation["type"].as_str().unwrap_or_default();
        if parent.is_none() || child.is_none() || !kind.contains("::") {
            return failure(at, "cmdb_rel_ci", "INVALID_INPUT_DATA", "Invalid relation");
        }
        let (Some(parent), Some(child)) = (id(parent), id(child)) else {
            return failure(at, "cmdb_rel_ci", "ABANDONED", "An item of the relation failed");
        };
        let known = self.tables.get("cmdb_rel_ci").and_then(|table| {
            table.with_key("child", &[&child])?.into_iter().find(|seq| {
                table.row(*seq).is_some_and(|row| {
                    table.value(row, "parent") == parent && table.value(row, "type") == kind
                })
            })
        });
        let operation = if known.is_some() { "NO_CHANGE" } else { "INSERT" };
        if known.is_none() && !mode.query {
            self.put_row(ctx, "cmdb_rel_ci", &json!({"parent": parent, "child": child, "type": kind}), new);
        }
        json!({"className": "cmdb_rel_ci", "operation": operation, "inputIndices": [at], "errorCount": 0})
    }
}

fn failure(at: usize, class: &str, code: &str, words: &str) -> Value {
    json!({"className": class, "operation": "", "sysId": "Unknown", "identifierEntrySysId": "Unknown",
        "errors": [{"error": code, "message": words}], "errorCount": 1, "inputIndices": [at]})
}

/// `options=partial_commits:true,…`.
fn options(call: &Call, mode: &mut Mode) -> Result<(), Answer> {
    let text = call.params.get("options").map_or("", AsRef::as_ref);
    for chunk in text.split(',').filter(|chunk| !chunk.is_empty()) {
        let wrong = || {
            Err(Answer::error(500, "Invalid options", Some(&format!("Chunk [{chunk}] is not a valid entry"))))
        };
        let Some((name, value)) = chunk.split_once(':') else { return wrong() };
        let on = match value {
            "true" => true,
            "false" => false,
            _ => return wrong(),
        };
        match name {
            "partial_commits" => mode.partial_commits = on,
            "deduplicate_payloads" => mode.deduplicate = on,
            "generate_summary" => mode.summary = on,
            "partial_payloads" => {}
            _ => return wrong(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    const PATH: &str =
        "/api/now/identifyreconcile/enhanced?sysparm_data_source=otrelay&options=partial_commits:true";

    fn plc(native: &str, name: &str, serial: &str) -> Value {
        json!({"internal_id": native, "className": "cmdb_ci_ot_plc", "values": {"name": name},
            "sys_object_source_info": {"source_name": "otrelay", "source_native_key": native},
            "lookup": [{"className": "cmdb_serial_number", "values": {"serial_number": serial, "serial_number_type": "system"}},
                       {"className": "cmdb_ci_network_adapter", "values": {"name": "00:1b:1b:aa:bb:cc", "mac_address": "00:1b:1b:aa:bb:cc"}}],
            "related": [{"className": "cmdb_ot_entity", "values": {"purdue_level": "1"}},
                        {"className": "cmdb_key_value_v2", "values": {"key": "scanner", "value": "true"}}]})
    }

    fn send(trial: &mut Trial, path: &str, body: &Value) -> Value {
        let (status, answer) = trial.call("POST", path, body);
        assert_eq!(status, 200, "{answer}");
        answer["result"].clone()
    }

    #[test]
    fn the_same_native_key_is_the_same_ci_whatever_its_name() {
        let mut trial = Trial::new();
        let first = send(&mut trial, PATH, &json!({"items": [plc("a/1", "PLC-7", "AB1")]}));
        assert_eq!(first["items"][0]["operation"], "INSERT");
        let renamed = send(&mut trial, PATH, &json!({"items": [plc("a/1", "PLC-8", "AB1")]}));
        assert_eq!(
            (&renamed["items"][0]["operation"], &renamed["items"][0]["sysId"]),
            (&json!("UPDATE"), &first["items"][0]["sysId"])
        );
        let again = send(&mut trial, PATH, &json!({"items": [plc("a/1", "PLC-8", "AB1")]}));
        assert_eq!(again["items"][0]["operation"], "NO_CHANGE");
        for (table, rows) in [
            ("cmdb_ci_ot_plc", 1),
            ("cmdb_serial_number", 1),
            ("cmdb_ci_network_adapter", 1),
            ("cmdb_ot_entity", 1),
            ("cmdb_key_value_v2", 1),
            ("sys_object_source", 1),
        ] {
            assert_eq!(trial.instance.records(table).len(), rows, "{table}");
        }
        let ci = &trial.instance.records("cmdb_ci_ot_plc")[0];
        assert_eq!(ci.get("cmdb_ot_entity"), trial.instance.records("cmdb_ot_entity")[0].get("sys_id"));
    }

    #[test]
    fn another_key_finds_it_by_serial_mac_and_name() {
        let mut trial = Trial::new();
        send(&mut trial, PATH, &json!({"items": [plc("a/1", "PLC-7", "AB1")]}));
        let mut by_mac = plc("b/2", "other", "AB2");
        by_mac["lookup"].as_array_mut().unwrap().remove(0);
        let mut by_name = plc("b/3", "other", "AB3");
        by_name.as_object_mut().unwrap().remove("lookup");
        for item in [plc("b/1", "other", "AB1"), by_mac, by_name] {
            let answer = send(&mut trial, PATH, &json!({"items": [item]}));
            assert_eq!(answer["items"][0]["identificationAttempts"][0]["attemptResult"], "MATCHED");
        }
        assert_eq!(trial.instance.records("cmdb_ci_ot_plc").len(), 1);
    }

    #[test]
    fn one_that_fails_costs_the_others_nothing_only_with_partial_commits() {
        let mut trial = Trial::new();
        let body = json!({"items": [plc("a/1", "PLC-7", "AB1"), {"className": "cmdb_ci_nowhere", "values": {"name": "x"}}]});
        let all = send(&mut trial, "/api/now/identifyreconcile?sysparm_data_source=otrelay", &body);
        assert_eq!(all["items"][0]["errors"][0]["error"], "ABANDONED");
        assert!(trial.instance.records("cmdb_ci_ot_plc").is_empty());
        let part = send(&mut trial, PATH, &body);
        assert_eq!((&part["items"][0]["operation"], &part["hasError"]), (&json!("INSERT"), &json!(true)));
        assert_eq!(part["items"][1]["errors"][0]["error"], "INVALID_INPUT_DATA");
    }

    #[test]
    fn without_a_data_source_it_is_parked_and_an_unknown_one_is_refused() {
        let mut trial = Trial::new();
        let body = json!({"items": [plc("a/1", "PLC-7", "AB1")]});
        let parked = send(&mut trial, "/api/now/identifyreconcile", &body);
        assert_eq!(parked["items"][0]["operation"], "INSERT_AS_INCOMPLETE");
        let refused = send(&mut trial, "/api/now/identifyreconcile?sysparm_data_source=nobody", &body);
        assert_eq!(refused["items"][0]["errors"][0]["error"], "INVALID_INPUT_DATA");
        let (status, _) = trial.call("POST", "/api/now/identifyreconcile/enhanced?options=partial", &body);
        assert_eq!(status, 500);
        assert!(trial.instance.records("cmdb_ci_ot_plc").is_empty());
    }

    #[test]
    fn a_query_writes_nothing_and_relations_are_made_once() {
        let mut trial = Trial::new();
        let ip = json!({"internal_id": "ip", "className": "cmdb_ci_ip_address", "values": {"name": "10.0.0.1"},
            "sys_object_source_info": {"source_name": "otrelay", "source_native_key": "a/1/ip"}});
        let body = json!({"items": [plc("a/1", "PLC-7", "AB1"), ip],
            "relations": [{"parent_id": "a/1", "child_id": "ip", "type": "Owns::Owned by"}]});
        send(&mut trial, "/api/now/identifyreconcile/queryEnhanced?sysparm_data_source=otrelay", &body);
        assert!(trial.instance.records("cmdb_ci_ot_plc").is_empty());
        for operation in ["INSERT", "NO_CHANGE"] {
            assert_eq!(send(&mut trial, PATH, &body)["relations"][0]["operation"], operation);
        }
        assert_eq!(trial.instance.records("cmdb_rel_ci").len(), 1);
    }

    #[test]
    fn a_better_class_is_an_upgrade_of_the_same_ci() {
        let mut trial = Trial::new();
        let mut unknown = plc("a/1", "PLC-7", "AB1");
        unknown["className"] = json!("cmdb_ci_ot");
        let first = send(&mut trial, PATH, &json!({"items": [unknown]}));
        let better = send(&mut trial, PATH, &json!({"items": [plc("a/1", "PLC-7", "AB1")]}));
        assert_eq!(better["items"][0]["operation"], "UPDATE_WITH_UPGRADE");
        assert_eq!(better["items"][0]["sysId"], first["items"][0]["sysId"]);
        assert_eq!(trial.instance.records("cmdb_ci_ot").len(), 1);
    }
}
