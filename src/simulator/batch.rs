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
    pub(super) fn batch(&mut self, ctx: Context<'_>, call: &Call) -> Result<Answer, Answer> {
        if !self.options.batch_api {
            return Err(Answer::no_path());
        }
        let body = call.posted()?;
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
        Ok(answer)
    }

    /// `GET /api/now/stats/{table}?sysparm_count=true`.
    pub(super) fn stats(&self, ctx: Context<'_>, call: &Call, table: &str) -> Result<Answer, Answer> {
        if call.method != Method::GET {
            return Err(Answer::no_verb(&call.method));
        }
        self.table(table, ctx.tweaks)?;
        let query = self.query_of(ctx, call, table);
        let found = self.select(table, &query);
        let mut stats = serde_json::Map::new();
        if call.params.flag("sysparm_count") {
            stats.insert("count".to_owned(), json!(found.len().to_string()));
        }
        let Some(groups) = call.params.get("sysparm_group_by").filter(|g| !g.is_empty()) else {
            return Ok(Answer::result(200, &json!({ "stats": stats })));
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
        Ok(Answer::result(200, &rows.collect()))
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

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    fn create(id: &str, short: &str) -> Value {
        json!({
            "id": id, "method": "POST", "url": "/api/now/table/incident?sysparm_fields=short_description",
            "headers": [{"name": "Content-Type", "value": "application/json"}],
            "body": STANDARD.encode(json!({"short_description": short}).to_string()),
        })
    }

    #[test]
    fn items_run_in_order_and_failures_do_not_stop_them() {
        let mut trial = Trial::new();
        let nowhere = json!({"id": 7, "method": "GET", "url": "/api/now/table/nosuch", "headers": []});
        let body = json!({"batch_request_id": 12, "rest_requests": [create("a", "one"), nowhere, create("b", "two")]});
        let (status, answer) = trial.call("POST", "/api/now/v1/batch", &body);
        assert_eq!((status, &answer["batch_request_id"]), (200, &json!("12")));
        let done = answer["serviced_requests"].as_array().unwrap();
        let told: Vec<_> = done.iter().map(|d| (d["id"].clone(), d["status_code"].clone())).collect();
        assert_eq!(told, [(json!("a"), json!(201)), (json!("7"), json!(400)), (json!("b"), json!(201))]);
        assert_eq!(done[0]["status_text"], json!("Created"));
        let inner = STANDARD.decode(done[0]["body"].as_str().unwrap()).unwrap();
        let inner: Value = serde_json::from_slice(&inner).unwrap();
        assert_eq!(inner["result"], json!({"short_description": "one"}));
        assert_eq!(trial.list("incident", "", "short_description"), ["one", "two"]);
        assert_eq!(answer["unserviced_requests"], json!([]));
    }

    #[test]
    fn what_does_not_fit_into_the_time_is_left() {
        let mut trial = Trial::new();
        trial.instance.options.batch_item_cost = Duration::from_secs(12);
        let body = json!({"batch_request_id": "x", "rest_requests": [create("a", "1"), create("b", "2"),
            create("c", "3"), create("d", "4")]});
        let (_, answer) = trial.call("POST", "/api/now/v1/batch", &body);
        assert_eq!(answer["unserviced_requests"], json!(["c", "d"]));
        assert_eq!(answer["serviced_requests"][0]["execution_time"], json!(12_000));
        assert_eq!(trial.list("incident", "", "short_description"), ["1", "2"]);
    }

    #[test]
    fn a_batch_in_a_batch_is_refused() {
        let item = json!({"id": "a", "method": "POST", "url": "/api/now/v1/batch", "headers": []});
        let body = json!({"batch_request_id": "x", "rest_requests": [item]});
        let (_, answer) = Trial::new().call("POST", "/api/now/v1/batch", &body);
        assert_eq!(answer["serviced_requests"][0]["status_code"], json!(400));
    }

    #[test]
    fn counts() {
        let mut trial = Trial::new();
        for impact in ["1", "1", "2"] {
            trial.make("incident", &json!({ "impact": impact }));
        }
        let path = "/api/now/stats/incident?sysparm_count=true";
        let (_, answer) = trial.call("GET", &format!("{path}&sysparm_query=impact=1"), &Value::Null);
        assert_eq!(answer, json!({"result": {"stats": {"count": "2"}}}));
        let (_, answer) = trial.call("GET", &format!("{path}&sysparm_group_by=impact"), &Value::Null);
        assert_eq!(answer["result"][1]["stats"]["count"], json!("1"));
        assert_eq!(trial.call("GET", "/api/now/stats/nosuch", &Value::Null).0, 400);
    }
}
