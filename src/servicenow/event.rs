//! Events: `POST /api/global/em/jsonv2`, one record a request.
//!
//! Event Management knows what is the same by `message_key`: it is derived from the alert, so an event that is sent again
//! after a lost answer is the same event, and nothing has to be looked up. The answer only says how many were taken.

use serde_json::{Value, json};

use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::{fields, wire};
use crate::destination::{Fields, Order, SendError, Sent};

/// Longest values of the columns that are short, in characters; `description` is cut as in every record.
const LENGTHS: [(&str, usize); 5] =
    [("source", 100), ("node", 100), ("type", 100), ("resource", 100), ("metric_name", 100)];

impl ServiceNow {
    pub(super) async fn put_event(&self, order: &Order) -> Result<Sent, SendError> {
        let attempt = self.attempt(What::Event, &order.table);
        let remedy = "correct [rule.action.fields], then `otrelay queue retry`";
        let record = record(order).map_err(|cause| attempt.reject(&cause, remedy))?;
        let body = serde_json::to_vec(&json!({ "records": [record] }))
            .map_err(|_| attempt.reject("the event cannot be written as JSON", "report it"))?;
        let (value, answer) =
            self.call(&Call::post(What::Event, &order.table, Path::Events, String::new(), body)).await?;
        if inserted(&value) == Some(0) {
            let cause = "the instance answers that it took no event";
            let remedy = "give the integration user the role evt_mgmt_integration";
            return Err(attempt.reject(cause, remedy).answered(answer.status));
        }
        Ok(Sent {
            created: true,
            remote: None,
            dropped: Vec::new(),
            kept: None,
            not_closed: None,
            status: answer.status,
        })
    }
}

/// The event as it goes out: all values are strings, within the lengths of their columns.
fn record(order: &Order) -> Result<Value, String> {
    let mut fields = fields::outgoing(&order.fields).map_err(|e| e.to_string())?;
    for (name, most) in LENGTHS {
        if let Some(value) = fields.get_mut(name) {
            *value = fields::clip_chars(value, most);
        }
    }
    let severity = fields.get("severity").map_or("", String::as_str);
    if !matches!(severity, "0" | "1" | "2" | "3" | "4" | "5") {
        return Err(format!("`severity` of an event is 0 to 5, not `{}`", fields::clip_chars(severity, 80)));
    }
    let keys = Fields::from([("message_key".to_owned(), order.keys.correlation_id.to_string())]);
    Ok(fields::record(&fields, &keys))
}

/// How many the answer says were taken, if it says so in its usual words: `1 events were inserted`.
fn inserted(value: &Value) -> Option<u64> {
    let said = wire::field(value.get("result")?, "Default Bulk Endpoint");
    said.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ticket::TicketKeys;
    use crate::model::{DeliveryKind, DestinationName, Fingerprint, Generation, TableName};

    fn order(fields: &[(&str, &str)]) -> Order {
        let table = TableName::new("em_event").unwrap();
        let keys = TicketKeys::derive(
            &Fingerprint::from_bytes([1; 32]),
            &DestinationName::new("prod").unwrap(),
            &table,
            Generation(0),
        );
        let fields = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Order { kind: DeliveryKind::PutEvent, table, keys, fields, attachment: None, affected: Vec::new() }
    }

    #[test]
    fn an_event_fits_its_columns_and_carries_its_key() {
        let order = order(&[("severity", "2"), ("node", &"n".repeat(300)), ("message_key", "mine")]);
        let made = record(&order).unwrap();
        assert_eq!(made["node"].as_str().unwrap().chars().count(), 100);
        assert_eq!(made["message_key"], json!(order.keys.correlation_id.as_str()));
    }

    #[test]
    fn a_severity_that_is_none_is_refused_before_it_is_sent() {
        for severity in ["", "critical", "6", "-1"] {
            assert!(record(&order(&[("severity", severity)])).is_err(), "{severity}");
        }
    }

    #[test]
    fn an_answer_that_took_nothing_is_known() {
        let check = |text: &str, expected| {
            assert_eq!(inserted(&json!({"result": {"Default Bulk Endpoint": text}})), expected, "{text}");
        };
        check("1 events were inserted", Some(1));
        check("0 events were inserted", Some(0));
        check("done", None);
        assert_eq!(inserted(&json!({"result": []})), None);
    }
}
