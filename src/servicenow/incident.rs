//! Tickets: found by `correlation_id`, created with both keys, read back.
//!
//! The instance drops a condition that it does not understand (or that we may not read) and answers with every row. So
//! each row is checked for the id that was asked for, and a look-up that brings strangers proves nothing: then nothing is
//! created. What a create dropped in silence is read off its answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::classify::{self, What};
use super::client::{Call, ServiceNow};
use super::query::{Query, url_value};
use super::{fields, wire};
use crate::destination::{
    Destination, DroppedField, FIND_MAX, Fields, Found, Opened, Order, RateLimit, SendError,
};
use crate::model::{CorrelationId, DestinationName, SysId, TableName, text};
use crate::net::Method;

/// Value of `correlation_display`: whose tickets these are.
const DISPLAY: &str = "otrelay";
/// Columns of a look-up.
const LOOK_UP_FIELDS: &str = "sys_id,number,state,active,correlation_id,sys_created_on";
/// Pages read in one look-up; each id has one row, rarely two.
const PAGES_MAX: usize = 5;
/// Longest `number` and `state` that are kept, in bytes.
const SHORT_MAX: usize = 100;

impl Destination for ServiceNow {
    fn name(&self) -> &DestinationName {
        &self.name
    }

    async fn find(&self, table: &TableName, keys: &[CorrelationId]) -> Result<Vec<Found>, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if keys.len() > FIND_MAX {
            let cause = format!("{} ids were asked for at once; at most {FIND_MAX} are allowed", keys.len());
            return Err(attempt.hold_table(&cause, "this is a fault of otrelay; report it"));
        }
        let query = look_up(keys)
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let limit = keys.len() * 2 + 10;
        let mut rows = Rows::default();
        for page in 0..PAGES_MAX {
            let offset = page * limit;
            let (value, answer) = self
                .call(&Call {
                    what: What::LookUp,
                    table,
                    method: Method::Get,
                    below: String::new(),
                    query: format!("{query}&sysparm_limit={limit}&sysparm_offset={offset}"),
                    body: None,
                })
                .await?;
            let Some(result) = value.get("result").and_then(Value::as_array) else {
                return Err(attempt.retry("the answer to a look-up has no list of records"));
            };
            for row in result {
                rows.take(row, keys).map_err(|cause| attempt.retry(cause))?;
            }
            if rows.foreign > 0 {
                break;
            }
            let total: usize =
                answer.header("x-total-count").and_then(|v| v.trim().parse().ok()).unwrap_or(0);
            // Rows that we may not see count against the limit, so a short page alone is not the end.
            if total <= offset + limit && result.len() < limit {
                break;
            }
        }
        let missing = keys.iter().any(|key| !rows.best.contains_key(key));
        if rows.foreign > 0 && missing {
            return Err(attempt.hold_table(
                "the instance ignored our look-up: it answered with records that do not have the correlation_id we \
                 asked for",
                "give the integration user the right to read the field correlation_id in this table (the table must \
                 have that field); until then nothing is created there, because that could make twins",
            ));
        }
        Ok(rows.best.into_values().map(|row| row.found).collect())
    }

    async fn open(&self, order: &Order) -> Result<Opened, SendError> {
        let attempt = self.attempt(What::Create, &order.table);
        let fields = fields::outgoing(&order.fields).map_err(|e| {
            let mut error =
                attempt.reject(&e.to_string(), "correct [rule.action.fields], then `otrelay queue retry`");
            error.doubtful = false;
            error
        })?;
        let keys = Fields::from([
            ("sys_id".to_owned(), order.keys.sys_id.to_string()),
            ("correlation_id".to_owned(), order.keys.correlation_id.to_string()),
            ("correlation_display".to_owned(), DISPLAY.to_owned()),
        ]);
        let body = serde_json::to_vec(&fields::record(&fields, &keys))
            .map_err(|_| attempt.reject("the record cannot be written as JSON", "report it"))?;
        let wanted: Vec<&str> = ["number", "state"]
            .into_iter()
            .chain(keys.keys().chain(fields.keys()).map(String::as_str))
            .collect();
        let call = Call {
            what: What::Create,
            table: &order.table,
            method: Method::Post,
            below: String::new(),
            query: format!("{VALUES}&sysparm_fields={}", url_value(&wanted.join(","))),
            body: Some(body),
        };
        let value = match self.call(&call).await {
            Ok((value, _)) => value,
            Err(error) if classify::is_unique_violation(&error.message) => {
                return self.adopt(order, &call.query).await.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let record = value.get("result").unwrap_or(&Value::Null);
        read_back(record, &fields, &keys).ok_or_else(|| {
            attempt.retry("the answer says that a record was made, but it has no valid sys_id")
        })
    }

    fn requests(&self) -> u64 {
        self.request_count()
    }

    fn rate_limit(&self) -> RateLimit {
        self.last_rate_limit()
    }
}

impl ServiceNow {
    /// The record that has our `sys_id` already, if no look-up by `correlation_id` can find it, because the instance
    /// dropped that field when it was made: without this such a ticket would be refused as a twin for ever. It is ours,
    /// for nobody else derives that id. A record that has its `correlation_id` is left to the look-up.
    async fn adopt(&self, order: &Order, query: &str) -> Option<Opened> {
        let call = Call {
            what: What::LookUp,
            table: &order.table,
            method: Method::Get,
            below: format!("/{}", order.keys.sys_id),
            query: query.to_owned(),
            body: None,
        };
        let (value, _) = self.call(&call).await.ok()?;
        let record = value.get("result")?;
        let kept = wire::field(record, "correlation_id");
        let is_ours = wire::field(record, "sys_id") == order.keys.sys_id.as_str();
        if !is_ours || kept == order.keys.correlation_id.as_str() {
            return None;
        }
        let lost = DroppedField { field: "correlation_id".to_owned(), got: short(&kept) };
        let opened = read_back(record, &Fields::new(), &Fields::new())?;
        Some(Opened { dropped: vec![lost], ..opened })
    }
}

/// Database values, references as bare ids.
const VALUES: &str = "sysparm_display_value=false&sysparm_exclude_reference_link=true";

/// The query string of a look-up, without its page.
fn look_up(keys: &[CorrelationId]) -> Result<String, super::query::QueryError> {
    let query = Query::default()
        .one_of("correlation_id", keys.iter().map(CorrelationId::as_str))?
        .order_by("sys_created_on")?
        .order_by("sys_id")?;
    Ok(format!("sysparm_query={}&sysparm_fields={}&{VALUES}", query.encoded(), url_value(LOOK_UP_FIELDS)))
}

/// The rows of a look-up so far: the best one for each id.
#[derive(Default)]
struct Rows {
    best: BTreeMap<CorrelationId, Row>,
    foreign: usize,
}

struct Row {
    found: Found,
    created: String,
}

impl Rows {
    fn take(&mut self, row: &Value, keys: &[CorrelationId]) -> Result<(), &'static str> {
        let id = wire::field(row, "correlation_id");
        let Some(key) = keys.iter().find(|k| k.as_str() == id) else {
            self.foreign += 1;
            return Ok(());
        };
        let sys_id = SysId::new(&wire::field(row, "sys_id"))
            .map_err(|_| "a record in the answer has no valid sys_id")?;
        let state = short(&wire::field(row, "state"));
        let found = Found {
            correlation_id: key.clone(),
            sys_id,
            number: short(&wire::field(row, "number")),
            active: is_active(&wire::field(row, "active")),
            state,
        };
        let row = Row { found, created: wire::field(row, "sys_created_on") };
        match self.best.get(key) {
            Some(held) if rank(held) <= rank(&row) => {}
            _ => {
                self.best.insert(key.clone(), row);
            }
        }
        Ok(())
    }
}

/// Twins: an active one before a closed one, then the oldest.
fn rank(row: &Row) -> (bool, &str, &SysId) {
    (!row.found.active, &row.created, &row.found.sys_id)
}

/// A table without that field has no closed records that we could tell.
fn is_active(text: &str) -> bool {
    !matches!(text, "false" | "0")
}

fn short(value: &str) -> String {
    text::clip(&text::one_line(value), SHORT_MAX).into_owned()
}

/// What the answer to a create shows; `None` without a valid `sys_id`.
fn read_back(record: &Value, fields: &Fields, keys: &Fields) -> Option<Opened> {
    let sys_id = SysId::new(&wire::field(record, "sys_id")).ok()?;
    let mut sent = fields.clone();
    sent.extend(keys.clone());
    // Another sys_id than ours is no loss: the record is known by the one it has.
    sent.remove("sys_id");
    let dropped: Vec<DroppedField> = fields::dropped(&sent, record);
    Some(Opened {
        sys_id,
        number: short(&wire::field(record, "number")),
        state: short(&wire::field(record, "state")),
        dropped,
    })
}
