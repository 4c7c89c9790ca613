//! Changes: `POST /api/sn_chg_rest/change/normal`, the Change Management API.
//!
//! It is documented with the fields as parameters; a body works too, but nobody promises it. So both are sent, the long
//! texts in the body alone. The answer is 200 also for what was made, its `result` an object or a list of one, its
//! values objects. They are looked up and read by the Table API like every ticket.

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::classify::{Attempt, What};
use super::query::url_value;
use super::{fields, ticket, wire};
use crate::destination::{Fields, Order, SendError, Sent};

/// The table of changes.
pub(super) const TABLE: &str = "change_request";
/// Longest query that is made of the fields, in bytes: a longer address is refused by proxies.
const QUERY_MAX: usize = 4_000;

impl ServiceNow {
    /// Makes a change of the type that its field `type` names.
    pub(super) async fn create_change(
        &self,
        attempt: &Attempt<'_>,
        order: &Order,
        fields: &Fields,
    ) -> Result<Sent, SendError> {
        let keys = self.keys(order);
        let body = serde_json::to_vec(&fields::record(fields, &keys))
            .map_err(|_| attempt.reject("the change cannot be written as JSON", "report it"))?;
        let kind = match fields.get("type").map_or("normal", String::as_str) {
            kind @ ("normal" | "emergency") => kind,
            // A standard change needs a template; the type is in the fields.
            _ => "",
        };
        let (value, answer) = self
            .call(&Call::post(What::Create, &order.table, Path::Change(kind), query(&keys, fields), body))
            .await?;
        let record = record(&value);
        let read = ticket::read_back((&order.table, record), fields, &keys, &order.keys, answer.status);
        let mut sent = read.map_err(|cause| attempt.retry(&cause).answered(answer.status))?;
        let ignored = record.pointer("/__meta/ignoredFields").and_then(Value::as_array);
        for name in ignored.into_iter().flatten().map(wire::text_of) {
            let is_known = sent.dropped.iter().any(|d| d.field == name);
            if !is_known && fields.contains_key(&name) {
                sent.dropped.push(crate::destination::DroppedField { field: name, got: String::new() });
            }
        }
        Ok(sent)
    }
}

/// Keys first, then the fields, as long as there is room.
fn query(keys: &Fields, fields: &Fields) -> String {
    let mut query = String::new();
    for (name, value) in keys.iter().chain(fields) {
        let pair = format!("{name}={}", url_value(value));
        if query.len() + pair.len() < QUERY_MAX {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(&pair);
        }
    }
    query
}

/// The record of an answer: some releases answer with a list of one.
fn record(value: &Value) -> &Value {
    match value.get("result") {
        Some(Value::Array(rows)) => rows.first().unwrap_or(&Value::Null),
        Some(record) => record,
        None => &Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_an_object_or_a_list_of_one() {
        assert_eq!(record(&json!({"result": {"a": 1}})), &json!({"a": 1}));
        assert_eq!(record(&json!({"result": [{"a": 1}]})), &json!({"a": 1}));
        assert_eq!(record(&json!({"result": []})), &Value::Null);
    }

    #[test]
    fn a_query_keeps_its_bound_and_its_keys() {
        let of = |pairs: &[(&str, String)]| {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect::<Fields>()
        };
        let keys = of(&[("correlation_id", "otrelay-1".to_owned())]);
        let fields = of(&[("description", "é".repeat(4_000)), ("short_description", "a&b=c #1".to_owned())]);
        let query = query(&keys, &fields);
        assert_eq!(query, "correlation_id=otrelay-1&short_description=a%26b%3Dc%20%231");
    }
}
