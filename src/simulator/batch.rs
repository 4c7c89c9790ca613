//! The Batch API and the Aggregate API.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::instance::{Context, Instance};

/// `glide.rest.batch.max.inputSize`: an item's body may not be larger.
const MAX_ITEM: usize = 5 << 20;

/// `glide.rest.batch.max.outputSize`: all answers together.
const MAX_OUTPUT: usize = 10 << 20;

/// A batch that runs longer leaves the rest unserviced.
const MAX_TIME: Duration = Duration::from_secs(30);

impl Instance {
    /// `POST /api/now/v1/batch`: items run one after the other with the caller's rights, without a transaction. The
    /// option `batch_item_cost` says how long each is taken to run; nobody waits for it.
    pub(super) fn batch(&mut self, ctx: Context<'_>, call: &Call) -> Answer {
        if call.method != Method::POST {
            return Answer::no_verb(&call.method);
        }
        let body = match call.object() {
            Ok(body) => body,
            Err(refusal) => return refusal,
        };
        let (mut spent, mut size) = (Duration::ZERO, 0);
        let (mut serviced, mut unserviced, mut made) = (Vec::new(), Vec::new(), Vec::new());
        for item in body.get("rest_requests").and_then(Value::as_array).into_iter().flatten() {
            let id = text(item.get("id"));
            spent += self.options.batch_item_cost;
            let input = item.get("body").and_then(Value::as_str).map_or(0, str::len) / 4 * 3;
            if spent > MAX_TIME || size > MAX_OUTPUT || input > MAX_ITEM || !unserviced.is_empty() {
                unserviced.push(id);
                continue;
            }
            let mut answer = match inner(item, call) {
                Some(inner) if !inner.path.ends_with("/batch") => {
                    self.answer_as(ctx.user, &inner, ctx.tweaks)
                }
                _ => Answer::no_path(),
            };
            size += answer.body.len();
            made.append(&mut answer.made);
            serviced.push(outcome(&id, item, &answer, self.options.batch_item_cost));
        }
        let id = text(body.get("batch_request_id"));
        let body =
            json!({"batch_request_id": id, "serviced_requests": serviced, "unserviced_requests": unserviced});
        let mut answer = Answer::json(200, &body);
        answer.made = made;
        answer
    }

    /// `GET /api/now/stats/{table}?sysparm_count=true`.
    pub(super) fn stats(&self, ctx: Context<'_>, call: &Call, table: &str) -> Answer {
        if call.method != Method::GET {
            return Answer::no_verb(&call.method);
        }
        if let Err(refusal) = self.table(table, ctx.tweaks) {
            return refusal;
        }
        let query = self.query_of(ctx, call, table);
        let found = self.select(table, &query);
        let mut stats = serde_json::Map::new();
        if call.params.flag("sysparm_count") {
            stats.insert("count".to_owned(), json!(found.len().to_string()));
        }
        let Some(groups) = call.params.get("sysparm_group_by").filter(|g| !g.is_empty()) else {
            return Answer::result(200, &json!({ "stats": stats }));
        };
        let fields: Vec<&str> = groups.split(',').map(str::trim).filter(|f| self.knows(table, f)).collect();
        let mut counts: std::collections::BTreeMap<Vec<&str>, usize> = std::collections::BTreeMap::new();
        for (table, _, row) in &found {
            *counts.entry(fields.iter().map(|f| self.walk(table, row, f)).collect()).or_default() += 1;
        }
        let rows = counts.iter().map(|(values, count)| {
            let named =
                fields.iter().zip(values).map(|(field, value)| json!({"field": field, "value": value}));
            json!({"stats": {"count": count.to_string()}, "groupby_fields": named.collect::<Vec<_>>()})
        });
        Answer::result(200, &rows.collect())
    }
}

/// A string, also where a number was sent.
fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// An item as a call.
fn inner(item: &Value, outer: &Call) -> Option<Call> {
    let method = Method::from_bytes(item.get("method")?.as_str()?.to_ascii_uppercase().as_bytes()).ok()?;
    let url = item.get("url")?.as_str()?;
    let body = match item.get("body").and_then(Value::as_str) {
        Some(body) => STANDARD.decode(body).ok()?,
        None => Vec::new(),
    };
    let mut headers = HeaderMap::new();
    for header in item.get("headers").and_then(Value::as_array).into_iter().flatten().take(100) {
        let name = HeaderName::from_bytes(header.get("name")?.as_str()?.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(header.get("value")?.as_str()?).ok()?);
    }
    // Items without their own `Accept` speak as the envelope does.
    if !headers.contains_key("accept")
        && let Some(accept) = outer.headers.get("accept")
    {
        headers.insert("accept", accept.clone());
    }
    if !url.starts_with('/') {
        return None;
    }
    Some(Call::new(method, url, headers, body.into()))
}

fn outcome(id: &str, item: &Value, answer: &Answer, cost: Duration) -> Value {
    let status = StatusCode::from_u16(answer.status).unwrap_or_default();
    let mut out = json!({
        "id": id,
        "status_code": answer.status,
        "status_text": status.canonical_reason().unwrap_or_default(),
        "execution_time": cost.as_millis() as u64,
        "body": STANDARD.encode(&answer.body),
    });
    if item.get("exclude_response_headers") != Some(&json!(true)) {
        let headers = answer.headers.iter().map(|(name, value)| json!({"name": name, "value": value}));
        out["headers"] = headers.collect();
    }
    out
}
