//! Rows: `POST /api/now/import/{staging table}`, the whole alert, one row a request.
//!
//! The transform map of the staging table makes a record of it, and coalesces on our key, so a row that is sent again
//! after a lost answer is the same record and nothing has to be looked up. How the transform ended stands in the answer,
//! an element for each map, also under a status that says success.

use std::collections::BTreeMap;

use serde_json::Value;

use super::batch::Single;
use super::call::{Call, Path, ServiceNow};
use super::classify::{Attempt, What};
use super::{fields, wire};
use crate::destination::{Detail, Fields, Order, Remote, SendError, Sent};
use crate::model::gather::Gather as _;
use crate::model::{SysId, TableName, text};

/// Our names of a row's columns and their templates: what Defender for IoT hands to its own app and our key, then what else
/// is known.
pub const ROW_COLUMNS: [(&str, &str); 24] = [
    ("correlation_id", "{{ correlation_id }}"),
    ("created", "{{ time }}"),
    ("title", "{{ title }}"),
    // The whole text of a ticket: a map may hand on nothing else.
    ("description", fields::DESCRIPTION),
    ("engine", "{{ engine }}"),
    ("severity", "{{ severity }}"),
    ("protocol", "{{ protocols | join(', ') }}"),
    ("appliance", "{{ sensor }}"),
    ("source_name", "{{ source.name or source.mac }}"),
    ("source_ip", "{{ source.ip }}"),
    ("destination_name", "{{ destination.name or destination.mac }}"),
    ("destination_ip", "{{ destination.ip }}"),
    // Nobody, unless the operator says who.
    ("assignee", ""),
    ("source_mac", "{{ source.mac }}"),
    ("source_port", "{{ source.port }}"),
    ("destination_mac", "{{ destination.mac }}"),
    ("destination_port", "{{ destination.port }}"),
    ("category", "{{ category }}"),
    ("site", "{{ site }}"),
    ("zone", "{{ zone }}"),
    ("occurrences", "{{ occurrences }}"),
    // Techniques of MITRE ATT&CK for ICS, CVEs, signatures.
    ("external_references", "{{ references | join(', ') }}"),
    ("impact", fields::IMPACT),
    ("urgency", fields::URGENCY),
];

/// How many of them Defender's app has.
const OF_DEFENDER: usize = 13;

/// The staging table of Security Incident Response, which is there ready-made with a map: its columns are those of the
/// record. Its CI is not filled: where that column is a reference, an address that no CI has would hold the row.
const SECURITY_IMPORT: &str = "sn_si_incident_import";
const SECURITY_COLUMNS: [(&str, &str, &str); 4] = [
    ("correlation_id", "correlation_id", "{{ correlation_id }}"),
    ("title", "short_description", fields::SHORT_DESCRIPTION),
    ("description", "description", fields::DESCRIPTION),
    ("severity", "severity", fields::IMPACT),
];

/// Longest words of a transform that are quoted, in bytes.
const WORDS_MAX: usize = 300;
/// Longest name of a record that is kept, in bytes.
const NAME_MAX: usize = 100;

/// The columns of a row in a staging table: our name, the name there, the template.
pub(super) fn columns_of(
    table: &TableName,
    columns: &BTreeMap<String, String>,
) -> Vec<(&'static str, String, &'static str)> {
    let named = |ours: &str| columns.get(ours).cloned();
    if table.as_str() != SECURITY_IMPORT {
        let all = ROW_COLUMNS.iter();
        return all
            .map(|(ours, template)| (*ours, named(ours).unwrap_or_else(|| (*ours).to_owned()), *template))
            .collect();
    }
    let own = SECURITY_COLUMNS.iter().map(|(ours, theirs, template)| {
        (*ours, named(ours).unwrap_or_else(|| (*theirs).to_owned()), *template)
    });
    // What else the operator has a column for.
    let is_own = |ours: &str| SECURITY_COLUMNS.iter().any(|(own, ..)| *own == ours);
    let others = ROW_COLUMNS.iter().filter(|(ours, _)| !is_own(ours));
    own.chain(others.filter_map(|(ours, template)| Some((*ours, named(ours)?, *template)))).collect()
}

/// The templates of a row by the names that the staging table has for our columns.
pub fn row_fields(table: &TableName, columns: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    columns_of(table, columns).into_iter().map(|(_, name, template)| (name, template.to_owned())).into_map()
}

/// Whether a staging table may well lack this column: those of Defender's own app have the first ones alone.
pub(super) fn is_optional(column: &str) -> bool {
    ROW_COLUMNS.iter().skip(OF_DEFENDER).any(|(name, _)| *name == column)
}

impl ServiceNow {
    /// Puts a row into a staging table and reads what its transform made of it.
    pub(super) async fn put_row(&self, order: &Order) -> Result<Sent, SendError> {
        let single = self.single_row(&order.table, &order.fields)?;
        let (value, answer) = self.call(&single.call).await?;
        (single.read)(&value, answer.status)
    }

    /// A row, also as one item of a batch.
    pub(super) fn single_row<'a>(
        &'a self,
        table: &'a TableName,
        fields: &Fields,
    ) -> Result<Single<'a>, SendError> {
        let attempt = self.attempt(What::Row, table);
        let remedy = "correct [rule.action.fields], then `otrelay queue retry`";
        let row = fields::outgoing(fields).map_err(|e| attempt.reject(&e.to_string(), remedy))?;
        let row = self.fitting(table, row);
        let body = serde_json::to_vec(&row)
            .map_err(|_| attempt.reject("the row cannot be written as JSON", "report it"))?;
        let call = Call::post(What::Row, table, Path::Import(table), String::new(), body);
        let read = move |value: &Value, status: u16| {
            transformed(value, &attempt, status).map_err(|e| e.answered(status))
        };
        Ok(Single { call, read: Box::new(read) })
    }
}

/// What the maps made of the row. One that failed condemns it, whatever others did: the record is not what was wanted.
pub(super) fn transformed(value: &Value, attempt: &Attempt<'_>, status: u16) -> Result<Sent, SendError> {
    let results = match value.get("result") {
        Some(Value::Array(results)) => results.as_slice(),
        Some(one @ Value::Object(_)) => std::slice::from_ref(one),
        _ => return Err(attempt.retry("the answer does not say what the transform made of the row")),
    };
    let word = |result: &Value| wire::field(result, "status").to_ascii_lowercase();
    if let Some(failed) = results.iter().find(|result| word(result) == "error") {
        return Err(refused(failed, attempt));
    }
    let has_record = |result: &&Value| SysId::new(&wire::field(result, "sys_id")).is_ok();
    // What a map skips without naming a record, none was made of.
    let done = |result: &&Value| match word(result).as_str() {
        "inserted" | "updated" | "ignored" => true,
        "skipped" => has_record(result),
        _ => false,
    };
    let Some(first) = results.iter().find(done) else {
        if let Some(skipped) = results.iter().find(|result| word(result) == "skipped") {
            return Err(skipped_row(skipped, attempt));
        }
        let remedy = "activate a transform map for this staging table, with correlation_id as coalesce field";
        return Err(if results.is_empty() {
            attempt.hold_table("the row was taken, but no transform map made a record of it", remedy)
        } else {
            let said = text::clip(&text::one_line(&word(&results[0])), 40).into_owned();
            attempt.retry(&format!("the transform says `{said}`, which is no outcome"))
        });
    };
    let created = results.iter().any(|result| word(result) == "inserted");
    let remote = SysId::new(&wire::field(first, "sys_id")).ok().map(|sys_id| Remote {
        sys_id,
        number: text::clip(&text::one_line(&wire::field(first, "display_value")), NAME_MAX).into_owned(),
        active: true,
        state: String::new(),
        detail: Detail {
            table: text::clip(&wire::field(first, "table"), NAME_MAX).into_owned(),
            ..Detail::default()
        },
    });
    Ok(Sent { created, remote, dropped: Vec::new(), kept: None, not_closed: None, status })
}

/// The name of a map, and its words.
fn said(result: &Value) -> (String, String) {
    let words = [wire::field(result, "error_message"), wire::field(result, "status_message")];
    let words =
        words.into_iter().find(|w| !w.trim().is_empty()).unwrap_or_else(|| "it gave no reason".to_owned());
    let clean = |text: &str, most| text::clip(&text::one_line(text), most).into_owned();
    (clean(&wire::field(result, "transform_map"), NAME_MAX), clean(&words, WORDS_MAX))
}

/// A map decides by what the row says, so the same row would be skipped again.
fn skipped_row(result: &Value, attempt: &Attempt<'_>) -> SendError {
    let (map, words) = said(result);
    attempt.reject(
        &format!("the transform map `{map}` skipped the row, and there is no record of it: {words}"),
        "let the conditions and scripts of the transform map take this row, or correct the columns in \
         [rule.action.columns] and [rule.action.fields], then `otrelay queue retry`",
    )
}

/// A map that cannot work at all holds the table; one that failed on this row condemns the row.
fn refused(result: &Value, attempt: &Attempt<'_>) -> SendError {
    let (map, words) = said(result);
    let cause = format!("the transform map `{map}` failed: {words}");
    let plain = words.to_ascii_lowercase();
    if plain.contains("invalid table") || plain.contains("invalid staging table") {
        attempt.hold_table(&cause, "correct the target table of the transform map; deliveries wait meanwhile")
    } else {
        attempt.reject(
            &cause,
            "correct the transform map, or the columns in [rule.action.columns] and [rule.action.fields], then \
             `otrelay queue retry`",
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Class, HoldScope, Timestamp};

    #[test]
    fn what_the_transform_did_is_read_and_not_the_status() {
        let table = TableName::new("u_alerts").unwrap();
        let attempt = Attempt { what: What::Row, table: &table, place: "https://x", now: Timestamp::EPOCH };
        let id = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let check = |result: Value, expected: Result<bool, (Class, &str)>| {
            let got = transformed(&json!({ "result": result }), &attempt, 201);
            match (&got, expected) {
                (Ok(sent), Ok(created)) => assert_eq!(sent.created, created, "{result}"),
                (Err(e), Err((class, words))) => {
                    assert!(e.class == class && e.message.contains(words), "{result} {e}");
                }
                _ => panic!("{result}: {got:?}"),
            }
        };
        let ok = |status: &str| json!({"status": status, "sys_id": id, "display_value": "INC1"});
        check(json!([ok("inserted")]), Ok(true));
        check(json!([ok("updated")]), Ok(false));
        check(json!([ok("ignored")]), Ok(false));
        check(json!(ok("INSERTED")), Ok(true));
        check(json!([ok("updated"), ok("inserted")]), Ok(true));
        check(json!([{"status": "ignored"}]), Ok(false));
        let lost =
            json!({"transform_map": "m", "status": "error", "error_message": "Target record not found"});
        check(json!([lost]), Err((Class::Reject, "`m` failed: Target record not found")));
        check(json!([ok("inserted"), lost]), Err((Class::Reject, "Target record not found")));
        check(json!([{"status": "error"}]), Err((Class::Reject, "no reason")));
        let skipped =
            json!({"transform_map": "m", "status": "skipped", "status_message": "Row is not of this plant"});
        check(
            json!([skipped]),
            Err((Class::Reject, "`m` skipped the row, and there is no record of it: Row is not")),
        );
        check(json!([skipped, ok("inserted")]), Ok(true));
        check(json!([ok("skipped")]), Ok(false));
        check(json!([skipped, lost]), Err((Class::Reject, "Target record not found")));
        check(
            json!([{"status": "error", "error_message": "Invalid table"}]),
            Err((Class::Hold, "Invalid table")),
        );
        check(json!([]), Err((Class::Hold, "no transform map")));
        check(json!([{"status": "pending"}]), Err((Class::Retry, "`pending`")));
        check(json!("x"), Err((Class::Retry, "does not say")));
        let held = transformed(&json!({"result": []}), &attempt, 201).unwrap_err();
        assert_eq!(held.hold, HoldScope::Table);
        let sent = transformed(&json!({"result": [ok("inserted")]}), &attempt, 201).unwrap();
        assert_eq!(sent.remote.unwrap().number, "INC1");
    }

    #[test]
    fn columns_have_the_names_of_the_staging_table() {
        let mapped = BTreeMap::from([("title".to_owned(), "u_title".to_owned())]);
        let fields = row_fields(&TableName::new("u_alerts").unwrap(), &mapped);
        assert_eq!(fields.len(), ROW_COLUMNS.len());
        assert_eq!(
            (fields.get("u_title").map(String::as_str), fields.get("title")),
            (Some("{{ title }}"), None)
        );
    }

    #[test]
    fn the_staging_table_of_security_incidents_has_its_own_columns() {
        let table = TableName::new(SECURITY_IMPORT).unwrap();
        let names: Vec<String> = row_fields(&table, &BTreeMap::new()).into_keys().collect();
        assert_eq!(names, ["correlation_id", "description", "severity", "short_description"]);
        let renamed = BTreeMap::from([("title".to_owned(), "u_title".to_owned())]);
        assert!(row_fields(&table, &renamed).contains_key("u_title"));
        let more = BTreeMap::from([("source_ip".to_owned(), "u_source".to_owned())]);
        let fields = row_fields(&table, &more);
        assert_eq!((fields.len(), fields.get("u_source").map(String::as_str)), (5, Some("{{ source.ip }}")));
        assert!(is_optional("site") && !is_optional("assignee") && !is_optional("title"));
    }
}
