//! The Table API: `/api/now[/v1|/v2]/table/{table}[/{sys_id}]`.

use std::cmp::Ordering;

use hyper::Method;
use serde_json::Value;

use super::call::{Answer, Call};
use super::import::IMPORT_ROWS;
use super::instance::{Context, Instance, Row, Seen, Table};
use super::query::{Query, order};
use super::values::Shape;

/// Rows of one answer when the caller names no limit.
const DEFAULT_LIMIT: usize = 10_000;

impl Instance {
    /// Answers a call of the Table API. `rest` is what follows `table/`; `v1` is the old version.
    pub(super) fn table_api(&mut self, ctx: Context<'_>, call: &Call, rest: &str, v1: bool) -> Answer {
        self.resolve_on_hold();
        let (table, sys_id) = rest.split_once('/').unwrap_or((rest, ""));
        let done = match (&call.method, sys_id.is_empty()) {
            (&Method::GET | &Method::HEAD, true) => self.list(ctx, call, table, v1),
            (&Method::GET | &Method::HEAD, false) => self.read(ctx, call, table, sys_id),
            (&Method::POST, true) => self.create(ctx, call, table),
            (&Method::PUT | &Method::PATCH, false) => self.change(ctx, call, table, sys_id),
            (&Method::DELETE, false) => self.delete(ctx, table, sys_id),
            _ => Err(Answer::no_verb(&call.method)),
        };
        let mut answer = done.unwrap_or_else(|refusal| refusal);
        if table == IMPORT_ROWS {
            answer.made.extend(self.run_transforms(ctx));
        }
        let silent = call.header("x-no-response-body").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        if call.method == Method::HEAD || silent && answer.status < 300 {
            answer.body.clear();
        }
        answer
    }

    fn list(&self, ctx: Context<'_>, call: &Call, table: &str, v1: bool) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let query = self.query_of(ctx, call, table);
        let limit = call.params.number("sysparm_limit", DEFAULT_LIMIT);
        let offset = call.params.number("sysparm_offset", 0);
        let mut found = self.select(table, &query);
        found.retain(|(_, _, row)| ctx.tweaks.sees(row));
        let shape = Shape::of(call);
        let page: Vec<Value> = found
            .iter()
            .skip(offset)
            .take(limit)
            .map(|(table, _, row)| ctx.tweaks.veil(self.show(table, row, &shape)))
            .collect();
        if v1 && page.is_empty() {
            return Err(Answer::no_record());
        }
        let mut answer = Answer::result(200, &Value::Array(page));
        if !call.params.flag("sysparm_no_count") {
            answer = answer.with("x-total-count", found.len().to_string());
            if !call.params.flag("sysparm_suppress_pagination_header") {
                answer = answer.with("link", self.links(call, offset, limit, found.len()));
            }
        }
        Ok(answer)
    }

    /// The query of a list call: `sysparm_query`, or else plain `field=value` parameters.
    pub(super) fn query_of(&self, ctx: Context<'_>, call: &Call, table: &str) -> Query {
        let known = |field: &str| {
            self.knows(table, field) && !ctx.tweaks.hidden_fields.iter().any(|hidden| hidden == field)
        };
        let text = call.params.get("sysparm_query").unwrap_or_default();
        if !text.is_empty() {
            return Query::parse(text, ctx.user.caller(), known);
        }
        let mut query = Query { groups: vec![Vec::new()], ..Query::default() };
        for (name, value) in call.params.iter().filter(|(n, _)| known(n)) {
            // A plain filter takes what people see as well as what is stored.
            let stored = self.stored(table, name, value);
            let text = format!("{name}={}", stored.replace('^', "^^"));
            query.groups[0]
                .extend(Query::parse(&text, ctx.user.caller(), known).groups.into_iter().flatten());
        }
        query
    }

    fn stored(&self, table: &str, name: &str, value: &str) -> String {
        let choices = self.choices(table, name);
        let label = choices.iter().find(|(v, l)| v != value && l.eq_ignore_ascii_case(value));
        if let Some((stored, _)) = label {
            return stored.clone();
        }
        match self.tables.get(table).and_then(|t| t.schema.field(name)).map(|f| &f.kind) {
            Some(super::schema::Kind::Reference(target)) => {
                self.resolve(target, value).unwrap_or_else(|| value.to_owned())
            }
            _ => value.to_owned(),
        }
    }

    /// The rows a query asks for, in its order; rows of a lagging index are left out.
    pub(super) fn select<'a>(&'a self, table: &str, query: &Query) -> Vec<(&'a Table, u64, &'a Row)> {
        if query.dropped && self.property("glide.invalid_query.returns_no_rows") == Some("true") {
            return Vec::new();
        }
        let now = self.clock.now();
        let mut found = Vec::new();
        for table in self.family(table) {
            let pinned = ["sys_id", "correlation_id", "element_id"]
                .iter()
                .find_map(|field| table.with_key(field, &query.pinned(field)?));
            let matches =
                |row: &&Row| row.visible_at <= now && query.matches(&Seen { instance: self, table, row });
            match pinned {
                Some(list) => {
                    let rows = list.into_iter().filter_map(|seq| Some((seq, table.row(seq)?)));
                    found.extend(rows.filter(|(_, row)| matches(row)).map(|(seq, row)| (table, seq, row)));
                }
                None => {
                    found.extend(table.rows().filter(|(_, r)| matches(r)).map(|(seq, r)| (table, seq, r)));
                }
            }
        }
        found.sort_by(|a, b| {
            for key in &query.order {
                let (x, y) = (self.walk(a.0, a.2, &key.field), self.walk(b.0, b.2, &key.field));
                let by = if key.descending { order(y, x) } else { order(x, y) };
                if by != Ordering::Equal {
                    return by;
                }
            }
            a.1.cmp(&b.1)
        });
        found
    }

    /// `Link`, without blanks, in the recorded order (clients depend on it), with the instance's own address.
    fn links(&self, call: &Call, offset: usize, limit: usize, total: usize) -> String {
        let url = |offset: usize| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in call.params.iter().filter(|(n, _)| *n != "sysparm_offset") {
                query.append_pair(name, value);
            }
            query.append_pair("sysparm_offset", &offset.to_string());
            format!("{}{}?{}", self.base, call.path, query.finish())
        };
        let mut links = vec![format!("<{}>;rel=\"first\"", url(0))];
        if offset > 0 {
            links.push(format!("<{}>;rel=\"prev\"", url(offset.saturating_sub(limit))));
        }
        if limit > 0 && offset + limit < total {
            links.push(format!("<{}>;rel=\"next\"", url(offset + limit)));
        }
        if let Some(pages) = total.saturating_sub(1).checked_div(limit) {
            links.push(format!("<{}>;rel=\"last\"", url(pages * limit)));
        }
        links.join(",")
    }

    fn read(&self, ctx: Context<'_>, call: &Call, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let (table, _, row) = self.visible(ctx, table, sys_id)?;
        Ok(Answer::result(200, &ctx.tweaks.veil(self.show(table, row, &Shape::of(call)))))
    }

    /// The record, where the user sees it.
    fn visible(&self, ctx: Context<'_>, table: &str, sys_id: &str) -> Result<(&Table, u64, &Row), Answer> {
        self.find(table, sys_id).filter(|(_, _, row)| ctx.tweaks.sees(row)).ok_or_else(Answer::no_record)
    }

    fn create(&mut self, ctx: Context<'_>, call: &Call, table: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let wanted = call.object()?;
        let made = self.insert(ctx, table, &wanted, call.params.flag("sysparm_input_display_value"))?;
        let location = format!("{}/api/now/table/{table}/{}", self.base, made.sys_id);
        let mut answer = self.shown(ctx, call, (&made.table, &made.sys_id), 201)?.with("location", location);
        answer.made.push(made);
        Ok(answer)
    }

    fn change(&mut self, ctx: Context<'_>, call: &Call, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let wanted = call.object()?;
        self.visible(ctx, table, sys_id)?;
        let made =
            self.update(ctx, table, sys_id, &wanted, call.params.flag("sysparm_input_display_value"))?;
        self.shown(ctx, call, (&made.table, &made.sys_id), 200)
    }

    fn shown(
        &self,
        ctx: Context<'_>,
        call: &Call,
        (table, sys_id): (&str, &str),
        status: u16,
    ) -> Result<Answer, Answer> {
        let (table, _, row) = self.find(table, sys_id).ok_or_else(Answer::no_record)?;
        Ok(Answer::result(status, &ctx.tweaks.veil(self.show(table, row, &Shape::of(call)))))
    }

    fn delete(&mut self, ctx: Context<'_>, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let (table, seq, _) = self.visible(ctx, table, sys_id)?;
        let name = table.name.clone();
        self.drop_row(&name, seq);
        Ok(Answer::empty(204))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::trial::{Trial, header};
    use super::*;

    const PATH: &str = "/api/now/table/incident";

    fn with_incidents(count: usize) -> Trial {
        let mut trial = Trial::new();
        for number in 0..count {
            trial.make("incident", &json!({"short_description": format!("n{number}")}));
            trial.wait(1);
        }
        trial
    }

    #[test]
    fn pages_have_a_count_and_links() {
        let mut trial = with_incidents(25);
        let mut page = |offset: usize| {
            let target = format!("{PATH}?sysparm_limit=10&sysparm_offset={offset}&sysparm_fields=number");
            trial.answer("GET", &target, "")
        };
        let first = page(0);
        assert_eq!(header(&first, "x-total-count"), Some("25"));
        let url = |offset: usize| {
            format!("<http://sim{PATH}?sysparm_limit=10&sysparm_fields=number&sysparm_offset={offset}>")
        };
        let expected = format!("{};rel=\"first\",{};rel=\"next\",{};rel=\"last\"", url(0), url(10), url(20));
        assert_eq!(header(&first, "link"), Some(expected.as_str()));
        let last = page(20);
        let rows: Value = serde_json::from_slice(&last.body).unwrap();
        assert_eq!(rows["result"].as_array().unwrap().len(), 5);
        assert!(!header(&last, "link").unwrap().contains("rel=\"next\""));
        assert!(header(&last, "link").unwrap().contains(&format!("{};rel=\"prev\"", url(10))));
        assert_eq!(serde_json::from_slice::<Value>(&page(30).body).unwrap(), json!({"result": []}));
    }

    #[test]
    fn count_and_links_can_be_left_out() {
        let mut trial = with_incidents(2);
        let answer = trial.answer("GET", &format!("{PATH}?sysparm_no_count=true"), "");
        assert_eq!((header(&answer, "x-total-count"), header(&answer, "link")), (None, None));
        let answer = trial.answer("GET", &format!("{PATH}?sysparm_suppress_pagination_header=True"), "");
        assert_eq!((header(&answer, "x-total-count"), header(&answer, "link")), (Some("2"), None));
        let answer = trial.answer("HEAD", PATH, "");
        assert_eq!((answer.status, answer.body.len(), header(&answer, "x-total-count")), (200, 0, Some("2")));
    }

    #[test]
    fn an_empty_list_is_404_only_in_v1() {
        let mut trial = Trial::new();
        for (path, status) in [
            ("/api/now/v1/table/incident", 404),
            ("/api/now/v2/table/incident", 200),
            ("/api/now/table/incident", 200),
        ] {
            assert_eq!(trial.call("GET", path, &Value::Null).0, status, "{path}");
        }
    }

    #[test]
    fn verbs_and_their_answers() {
        let mut trial = Trial::new();
        let made = trial.answer("POST", &format!("{PATH}?sysparm_query=number=x"), "{\"impact\":\"1\"}");
        let record: Value = serde_json::from_slice(&made.body).unwrap();
        let id = record["result"]["sys_id"].as_str().unwrap().to_owned();
        let path = format!("{PATH}/{id}");
        assert_eq!(
            (made.status, header(&made, "location")),
            (201, Some(format!("http://sim{path}").as_str()))
        );
        assert_eq!(made.made.len(), 1);
        assert_eq!(trial.call("GET", &path, &Value::Null).1["result"]["impact"], json!("1"));
        assert_eq!(trial.call("PUT", &path, &json!({"urgency": "1"})).1["result"]["priority"], json!("1"));
        assert_eq!(
            trial.call("PATCH", &path, &json!([{"urgency": "2"}, {}])).1["result"]["urgency"],
            json!("2")
        );
        let headers = [
            ("authorization", "Basic YWRtaW46YWRtaW4="),
            ("accept", "*/*"),
            ("content-type", "application/json"),
            ("x-no-response-body", "true"),
        ];
        let silent = trial.raw("PATCH", &path, &headers, "{}");
        assert_eq!((silent.status, silent.body.len()), (200, 0));
        let gone = trial.answer("DELETE", &path, "");
        assert_eq!((gone.status, gone.body.len()), (204, 0));
        let (status, answer) = trial.call("GET", &path, &Value::Null);
        let error = json!({"message": "No Record found",
            "detail": "Record doesn't exist or ACL restricts the record retrieval"});
        assert_eq!((status, &answer["error"], &answer["status"]), (404, &error, &json!("failure")));
        assert_eq!(trial.call("DELETE", PATH, &Value::Null).0, 405);
        assert_eq!(trial.call("POST", &path, &json!({})).0, 405);
    }

    #[test]
    fn a_field_that_an_acl_hides_is_neither_shown_nor_asked_by_nor_written() {
        let mut trial = with_incidents(2);
        trial.tweaks.hidden_fields.push("correlation_id".to_owned());
        let made = trial.make("incident", &json!({"short_description": "x", "correlation_id": "otrelay-1"}));
        assert_eq!((made.get("correlation_id"), &made["short_description"]), (None, &json!("x")));
        assert_eq!(
            trial.list("incident", "correlation_id=otrelay-1", "short_description").len(),
            3,
            "strangers"
        );
        trial.tweaks.hidden_fields.clear();
        assert!(trial.list("incident", "correlation_id=otrelay-1", "number").is_empty());
    }

    #[test]
    fn a_record_of_another_domain_is_made_and_then_not_there() {
        let mut trial = with_incidents(1);
        trial.tweaks.other_domain.push("foreign".to_owned());
        let made = trial.make("incident", &json!({"short_description": "a foreign one"}));
        assert_eq!(trial.list("incident", "", "short_description"), ["n0"]);
        let path = format!("{PATH}/{}", made["sys_id"].as_str().unwrap());
        for method in ["GET", "PATCH", "DELETE"] {
            let body = if method == "PATCH" { json!({"state": "2"}) } else { Value::Null };
            assert_eq!(trial.call(method, &path, &body).0, 404, "{method}");
        }
        trial.tweaks.other_domain.clear();
        assert_eq!(trial.list("incident", "", "state"), ["1", "1"], "it was left alone");
    }

    #[test]
    fn tables_that_are_not_there_or_hidden() {
        let mut trial = Trial::new();
        let (status, answer) = trial.call("GET", "/api/now/table/sys_nonexistent", &Value::Null);
        let error = json!({"message": "Invalid table sys_nonexistent", "detail": null});
        assert_eq!((status, &answer["error"]), (400, &error));
        assert_eq!(trial.call("GET", "/api/now/table/cmdb_ci_ot_sensor", &Value::Null).0, 400);
        trial.tweaks.hidden.push("problem".to_owned());
        let (status, answer) = trial.call("POST", "/api/now/table/problem", &json!({}));
        let detail = json!("User is unauthorized to access table: problem");
        assert_eq!((status, &answer["error"]["detail"]), (403, &detail));
        assert!(trial.instance.records("problem").is_empty());
    }

    #[test]
    fn a_dropped_condition_returns_everything_unless_a_property_says_otherwise() {
        let mut trial = with_incidents(3);
        assert_eq!(trial.list("incident", "corelation_id=x", "number").len(), 3);
        assert_eq!(trial.list("incident", "opened_atFOOBAR7", "number").len(), 3);
        assert_eq!(trial.list("incident", "correlation_id=x", "number").len(), 0);
        trial.make("sys_properties", &json!({"name": "unrelated", "value": "true"}));
        let id = trial.list("sys_properties", "name=glide.invalid_query.returns_no_rows", "sys_id").remove(0);
        trial.call("PATCH", &format!("/api/now/table/sys_properties/{id}"), &json!({"value": "true"}));
        assert_eq!(trial.list("incident", "corelation_id=x", "number").len(), 0);
    }

    #[test]
    fn lists_by_key_by_time_and_by_plain_parameters() {
        let mut trial = with_incidents(3);
        trial.make("incident", &json!({"correlation_id": "otrelay-a"}));
        trial.make("incident", &json!({"correlation_id": "otrelay-b", "state": "2"}));
        let keys = trial.list("incident", "correlation_idINotrelay-b,otrelay-a,otrelay-c", "correlation_id");
        assert_eq!(keys, ["otrelay-a", "otrelay-b"]);
        let late = trial.list("incident", "sys_updated_on>=2026-11-21 08:15:02^ORDERBYDESCnumber", "number");
        assert_eq!(late, ["INC0010005", "INC0010004", "INC0010003"]);
        assert_eq!(trial.list("incident", "opened_by.user_name=admin^state=2", "number"), ["INC0010005"]);
        assert_eq!(trial.list("incident", "opened_by=javascript:gs.getUserID()", "number").len(), 5);
        assert_eq!(trial.list("task", "state=2", "sys_class_name"), ["incident"]);
        let target = format!("{PATH}?state=in%20progress&nosuch=1&sysparm_fields=number");
        let (_, answer) = trial.call("GET", &target, &Value::Null);
        assert_eq!(answer["result"], json!([{"number": "INC0010005"}]));
    }

    #[test]
    fn a_lagging_index_hides_new_records_from_lists_only() {
        let mut trial = Trial::new();
        trial.tweaks.index_lag = Some(std::time::Duration::from_secs(5));
        let made = trial.make("incident", &json!({"correlation_id": "otrelay-a"}));
        let path = format!("{PATH}/{}", made["sys_id"].as_str().unwrap());
        assert!(trial.list("incident", "correlation_id=otrelay-a", "number").is_empty());
        assert_eq!(trial.call("GET", &path, &Value::Null).0, 200);
        trial.wait(5);
        assert_eq!(trial.list("incident", "correlation_id=otrelay-a", "number").len(), 1);
    }
}
