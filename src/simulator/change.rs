//! The Change Management API: `/api/sn_chg_rest/[v1/]change…`.
//!
//! Fields come as parameters, as the documentation has it, or in the body. Success is 200, also for what was made; values
//! are objects; what could not be used is listed in `__meta.ignoredFields`.

use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call};
use super::instance::{Context, Instance};
use super::stages::following;
use super::values::Shape;

const TABLE: &str = "change_request";

impl Instance {
    /// Answers a call; `rest` is what follows the API's name.
    pub(super) fn changes(&mut self, ctx: Context<'_>, call: &Call, rest: &str) -> Result<Answer, Answer> {
        if !self.options.change_api {
            return Err(Answer::no_path());
        }
        match (&call.method, rest.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::POST, ["change"]) => self.make_change(ctx, call, None),
            (&Method::POST, ["change", kind @ ("normal" | "emergency")]) => {
                self.make_change(ctx, call, Some(kind))
            }
            // A template is anything here.
            (&Method::POST, ["change", "standard", _]) => self.make_change(ctx, call, Some("standard")),
            (&Method::GET, ["change", id]) => self.one_change(ctx, id, &[]),
            (&Method::GET, ["change", id, "nextstates"]) => self.next_states(ctx, id),
            (&Method::PATCH, ["change", id] | ["change", "normal" | "emergency" | "standard", id]) => {
                self.alter_change(ctx, call, id)
            }
            (_, ["change", ..]) => Err(Answer::no_verb(&call.method)),
            _ => Err(Answer::no_path()),
        }
    }

    fn make_change(&mut self, ctx: Context<'_>, call: &Call, kind: Option<&str>) -> Result<Answer, Answer> {
        self.table(TABLE, ctx.tweaks)?;
        let mut wanted = wanted(call)?;
        if let Some(kind) = kind {
            wanted.insert("type".to_owned(), json!(kind));
        }
        let ignored = self.ignored(&wanted);
        let made = self.insert(ctx, TABLE, &wanted, false)?;
        let mut answer = self.one_change(ctx, &made.sys_id, &ignored)?;
        answer.made.push(made);
        Ok(answer)
    }

    fn alter_change(&mut self, ctx: Context<'_>, call: &Call, id: &str) -> Result<Answer, Answer> {
        self.table(TABLE, ctx.tweaks)?;
        let wanted = wanted(call)?;
        let ignored = self.ignored(&wanted);
        self.update(ctx, TABLE, id, &wanted, false)?;
        self.one_change(ctx, id, &ignored)
    }

    /// Where a change may go from where it is.
    fn next_states(&self, ctx: Context<'_>, id: &str) -> Result<Answer, Answer> {
        self.table(TABLE, ctx.tweaks)?;
        let (table, _, row) = self.find(TABLE, id).ok_or_else(Answer::no_record)?;
        let from = table.value(row, "state").to_owned();
        let next = following(table, row, false).unwrap_or_default();
        let labels: Map<String, Value> =
            self.choices(TABLE, "state").iter().map(|(value, label)| (value.clone(), json!(label))).collect();
        let transitions: Vec<Value> = next
            .iter()
            .map(|to| json!([{"from_state": from, "to_state": to, "transition_available": true}]))
            .collect();
        let shown = json!({
            "available_states": next.iter().copied().chain([from.as_str()]).collect::<Vec<_>>(),
            "state_transitions": transitions,
            "state_label": labels,
        });
        Ok(Answer::result(200, &shown))
    }

    fn ignored(&self, wanted: &Map<String, Value>) -> Vec<String> {
        let field = |name: &str| self.tables.get(TABLE).and_then(|t| t.schema.field(name));
        let is_ignored =
            |name: &&String| name.as_str() != "sys_id" && field(name).is_none_or(|f| f.read_only);
        wanted.keys().filter(is_ignored).cloned().collect()
    }

    fn one_change(&self, ctx: Context<'_>, id: &str, ignored: &[String]) -> Result<Answer, Answer> {
        self.table(TABLE, ctx.tweaks)?;
        let (table, _, row) = self.find(TABLE, id).ok_or_else(Answer::no_record)?;
        let mut record = self.show(table, row, &Shape::both());
        record["__meta"] = json!({ "ignoredFields": ignored });
        Ok(Answer::result(200, &record))
    }
}

/// The body, and the parameters over it.
fn wanted(call: &Call) -> Result<Map<String, Value>, Answer> {
    let mut wanted = call.object()?;
    wanted.extend(call.params.iter().map(|(name, value)| (name.to_owned(), json!(value))));
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::trial::Trial;
    use super::*;

    #[test]
    fn a_change_is_made_of_parameters_or_a_body() {
        let mut trial = Trial::new();
        let path = "/api/sn_chg_rest/change/normal?short_description=one&bunk=2&priority=1";
        let (status, answer) = trial.call("POST", path, &json!({"description": "two"}));
        let record = &answer["result"];
        assert_eq!((status, &record["short_description"]["value"]), (200, &json!("one")));
        assert_eq!(
            (&record["description"]["value"], &record["type"]["display_value"]),
            (&json!("two"), &json!("Normal"))
        );
        assert_eq!(record["state"], json!({"value": "-5", "display_value": "New"}));
        assert_eq!(record["__meta"]["ignoredFields"], json!(["bunk", "priority"]));
        let id = record["sys_id"]["value"].as_str().unwrap();
        let path = format!("/api/sn_chg_rest/v1/change/{id}");
        let (status, answer) = trial.call("PATCH", &path, &json!({"impact": "1"}));
        assert_eq!((status, &answer["result"]["impact"]["value"]), (200, &json!("1")));
        assert_eq!(trial.call("GET", &path, &Value::Null).1["result"]["impact"]["value"], json!("1"));
        let (status, answer) = trial.call("GET", &format!("{path}/nextstates"), &Value::Null);
        assert_eq!((status, &answer["result"]["available_states"]), (200, &json!(["-4", "4", "-5"])));
        assert_eq!(answer["result"]["state_label"]["-4"], json!("Assess"));
        assert_eq!(trial.call("GET", "/api/sn_chg_rest/change/00", &Value::Null).0, 404);
        assert_eq!(trial.call("POST", "/api/sn_chg_rest/other", &json!({})).0, 400);
    }

    #[test]
    fn an_instance_may_lack_it() {
        let mut trial = Trial::new();
        trial.instance.options.change_api = false;
        let (status, answer) = trial.call("POST", "/api/sn_chg_rest/change/normal", &json!({}));
        let words = json!("Requested URI does not represent any resource");
        assert_eq!((status, &answer["error"]["message"]), (400, &words));
    }
}
