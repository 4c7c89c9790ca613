//! From a path to the API behind it. Authentication comes first, then the headers that the REST APIs insist on.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::instance::{Context, Instance, Tweaks, User};

impl Instance {
    pub(super) fn answer(&mut self, call: &Call, tweaks: &Tweaks) -> Answer {
        match call.path.as_str() {
            "/oauth_token.do" => return self.oauth_token(call),
            "/oauth_revoke_token.do" => return self.oauth_revoke(call),
            _ => {}
        }
        let user = match self.authenticate(call) {
            Ok(user) => user,
            Err(refusal) => return refusal.with("x-is-logged-in", "false"),
        };
        let answer = self.answer_as(&user, call, tweaks).with("x-is-logged-in", "true");
        if call.headers.contains_key("cookie") {
            return answer;
        }
        let session = self.new_id().to_ascii_uppercase();
        answer.with("set-cookie", format!("JSESSIONID={session}; Path=/; HttpOnly"))
    }

    /// Answers a call of a user who is logged in: also an item of a batch.
    pub(super) fn answer_as(&mut self, user: &User, call: &Call, tweaks: &Tweaks) -> Answer {
        self.routed(user, call, tweaks).unwrap_or_else(|refusal| refusal)
    }

    fn routed(&mut self, user: &User, call: &Call, tweaks: &Tweaks) -> Result<Answer, Answer> {
        headers(call)?;
        let unfolded =
            call.params.get("sysparm_tiny").and_then(|token| self.tiny.get(token)).map(|target| {
                Call::new(call.method.clone(), target, call.headers.clone(), call.body.clone())
            });
        let call = unfolded.as_ref().unwrap_or(call);
        let ctx = Context { user, tweaks };
        let Some(rest) = call.path.strip_prefix("/api/now/") else {
            return match call.path.as_str() {
                "/api/global/em/jsonv2" => self.events(ctx, call),
                path => match path.strip_prefix("/api/sn_chg_rest/") {
                    Some(rest) => self.changes(ctx, call, rest.strip_prefix("v1/").unwrap_or(rest)),
                    None => Err(Answer::no_path()),
                },
            };
        };
        let (version, rest) = match rest.split_once('/') {
            Some((v @ ("v1" | "v2"), rest)) => (v, rest),
            _ => ("", rest),
        };
        match rest.split_once('/').unwrap_or((rest, "")) {
            ("table", rest) if !rest.is_empty() => Ok(self.table_api(ctx, call, rest, version == "v1")),
            ("stats", table) if !table.is_empty() => self.stats(ctx, call, table),
            ("import", rest) if !rest.is_empty() => self.import(ctx, call, rest),
            ("batch", "") => self.batch(ctx, call),
            ("identifyreconcile", rest) => self.identify(ctx, call, rest),
            ("attachment", rest) => self.attachment(ctx, call, rest),
            ("tinyurl", "") => self.shorten(call),
            _ => Err(Answer::no_path()),
        }
    }

    /// `POST /api/now/tinyurl {"url": …}`: a short name for a long address.
    fn shorten(&mut self, call: &Call) -> Result<Answer, Answer> {
        let body = call.posted()?;
        let Some(target) = body.get("url").and_then(Value::as_str) else {
            return Err(Answer::error(400, "Missing parameter", Some("url")));
        };
        // An absolute address of this instance is fine too.
        let target = target.strip_prefix(&self.base).unwrap_or(target).to_owned();
        let token = self.new_id();
        if self.tiny.len() >= 1000 {
            self.tiny.pop_first();
        }
        // The recorded form: the list that the address shows, and the token.
        let path = target.split('?').next().unwrap_or_default();
        let table = path.rsplit('/').next().unwrap_or_default();
        let answer = json!(format!("{table}_list.do?sysparm_tiny={token}"));
        self.tiny.insert(token, target);
        Ok(Answer::result(200, &answer))
    }

    /// `POST /api/global/em/jsonv2`: events in bulk. Each is a row of `em_event`; what has the same message key is one
    /// `em_alert`, however often it is told.
    fn events(&mut self, ctx: Context<'_>, call: &Call) -> Result<Answer, Answer> {
        let body = call.posted()?;
        let mut made = Vec::new();
        for record in body.get("records").and_then(Value::as_array).into_iter().flatten() {
            let Value::Object(record) = record else { continue };
            made.push(self.insert(ctx, "em_event", record, false)?);
            self.raise(ctx, record)?;
        }
        let text = format!("{} events were inserted", made.len());
        let answer = Answer::result(200, &json!({"Default Bulk Endpoint": text}));
        Ok(Answer { made, ..answer })
    }

    /// The alert of an event: a new one, or one more event of the one with this key.
    fn raise(&mut self, ctx: Context<'_>, event: &Map<String, Value>) -> Result<(), Answer> {
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut key = text("message_key").to_owned();
        if key.is_empty() {
            key = ["source", "node", "type", "resource", "metric_name"].map(text).join("+");
        }
        let known = self.tables.get("em_alert").and_then(|table| {
            let row = table.row(*table.with_key("message_key", &[&key])?.first()?)?;
            let count: u64 = table.value(row, "event_count").parse().unwrap_or(1);
            let is_closed = table.value(row, "state") == "Closed";
            Some((table.value(row, "sys_id").to_owned(), count + 1, is_closed))
        });
        let mut wanted = event.clone();
        wanted.remove("sys_id");
        let ends = text("resolution_state") == "Closing" || text("severity") == "0";
        if ends && text("severity") == "0" {
            // What clears an alert is not how bad it was.
            wanted.remove("severity");
        }
        if ends {
            wanted.insert("state".to_owned(), json!("Closed"));
        }
        if let Some((sys_id, count, was_closed)) = known {
            if was_closed && !ends {
                wanted.insert("state".to_owned(), json!("Reopen"));
            }
            wanted.insert("event_count".to_owned(), json!(count.to_string()));
            self.update(ctx, "em_alert", &sys_id, &wanted, false).map(drop)
        } else {
            wanted.insert("message_key".to_owned(), json!(key));
            self.insert(ctx, "em_alert", &wanted, false).map(drop)
        }
    }
}

/// `Accept` is needed always, `Content-Type` with a body; only JSON is spoken. (DELETE without a content type is
/// taken: `PySNC` sends it so, whatever the documentation says.)
fn headers(call: &Call) -> Result<(), Answer> {
    let Some(accept) = call.header("accept") else {
        return Err(Answer::error(400, "Bad Request", Some("Accept header is missing")));
    };
    let fits = ["*/*", "application/*", "application/json"];
    let upload = call.path.contains("/attachment");
    if !upload && !accept.split(',').any(|a| fits.contains(&a.split(';').next().unwrap_or_default().trim())) {
        return Err(Answer::error(
            406,
            "Not acceptable",
            Some("The simulator answers application/json only"),
        ));
    }
    if [Method::POST, Method::PUT, Method::PATCH].contains(&call.method) && !upload {
        return match call.content_type().as_deref() {
            Some("application/json" | "text/json") => Ok(()),
            None => Err(Answer::error(400, "Bad Request", Some("Content-Type header is missing"))),
            Some(other) => {
                Err(Answer::error(415, "Unsupported Media Type", Some(&format!("{other} is not supported"))))
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    /// A call with a valid login and those headers.
    fn check(method: &str, target: &str, headers: &[(&str, &str)], body: &str, expected: u16) {
        let login = ("authorization", "Basic YWRtaW46YWRtaW4=");
        let headers: Vec<_> = headers.iter().copied().chain([login]).collect();
        let answer = Trial::new().raw(method, target, &headers, body);
        assert_eq!(answer.status, expected, "{method} {target} {headers:?}");
    }

    #[test]
    fn headers_are_insisted_on() {
        let (path, accept, kind) =
            ("/api/now/table/incident", ("accept", "application/json"), ("content-type", "application/json"));
        check("GET", path, &[accept], "", 200);
        check("GET", path, &[("accept", "*/*")], "", 200);
        check("GET", path, &[], "", 400);
        check("GET", path, &[("accept", "application/xml")], "", 406);
        check("POST", path, &[accept, kind], "{}", 201);
        check("POST", path, &[accept, ("content-type", "application/json; charset=utf-8")], "", 201);
        check("POST", path, &[accept], "{}", 400);
        check("POST", path, &[accept, ("content-type", "text/plain")], "{}", 415);
        check("POST", path, &[accept, kind], "{\"a\":", 400);
        check("POST", path, &[accept, kind], "7", 400);
        check("DELETE", &format!("{path}/00"), &[accept], "", 404);
        check("POST", &format!("{path}/00"), &[accept, kind, ("x-http-method-override", "PATCH")], "{}", 404);
    }

    #[test]
    fn paths_that_lead_nowhere() {
        for path in
            ["/", "/api/now/", "/api/now/table", "/api/now/table/", "/api/now/v3/table/incident", "/x.do"]
        {
            check("GET", path, &[("accept", "*/*")], "", 400);
        }
    }

    #[test]
    fn a_short_address_stands_for_the_long_one() {
        let mut trial = Trial::new();
        trial.make("incident", &json!({"impact": "1"}));
        trial.make("incident", &json!({}));
        let long = "http://sim/api/now/table/incident?sysparm_query=impact%3D1&sysparm_fields=impact";
        let (_, answer) = trial.call("POST", "/api/now/tinyurl", &json!({ "url": long }));
        let token =
            answer["result"].as_str().unwrap().strip_prefix("incident_list.do?sysparm_tiny=").unwrap();
        let target = format!("/api/now/table/incident?sysparm_tiny={token}");
        assert_eq!(trial.call("GET", &target, &Value::Null).1["result"], json!([{"impact": "1"}]));
    }

    #[test]
    fn events_are_inserted_in_bulk() {
        let mut trial = Trial::new();
        let body = json!({"records": [{"source": "otrelay", "severity": "2"}, {"source": "otrelay"}]});
        let (status, answer) = trial.call("POST", "/api/global/em/jsonv2", &body);
        let text = json!({"Default Bulk Endpoint": "2 events were inserted"});
        assert_eq!((status, &answer["result"]), (200, &text));
        assert_eq!(trial.instance.records("em_event").len(), 2);
        let again =
            json!({"records": [{"source": "x", "severity": "1", "message_key": "k"}, {"message_key": "k"}]});
        trial.call("POST", "/api/global/em/jsonv2", &again);
        let alerts = trial.instance.records("em_alert");
        let counts: Vec<&str> = alerts.iter().map(|a| a.get("event_count")).collect();
        assert_eq!(
            counts,
            ["2", "2"],
            "what has the same message key, or the same parts of one, is one alert"
        );
        // It ends, and comes back.
        let mut state = |event: Value| {
            trial.call("POST", "/api/global/em/jsonv2", &json!({ "records": [event] }));
            let alert = trial.instance.records("em_alert").pop().unwrap();
            (alert.get("state").to_owned(), alert.get("severity").to_owned())
        };
        let closing = json!({"message_key": "k", "severity": "1", "resolution_state": "Closing"});
        assert_eq!(state(closing), ("Closed".to_owned(), "1".to_owned()));
        let back = json!({"message_key": "k", "severity": "2", "resolution_state": "New"});
        assert_eq!(state(back), ("Reopen".to_owned(), "2".to_owned()));
        let clear = json!({"message_key": "k", "severity": "0"});
        assert_eq!(state(clear), ("Closed".to_owned(), "2".to_owned()));
    }
}
