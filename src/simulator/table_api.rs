//! The Table API: `/api/now[/v1|/v2]/table/{table}[/{sys_id}]`.

use std::cmp::Ordering;

use hyper::Method;
use serde_json::Value;

use super::call::{Answer, Call};
use super::instance::{Context, Instance, Row, Seen, Table};
use super::query::{Query, order};
use super::values::Shape;

/// Rows of one answer when the caller names no limit.
const DEFAULT_LIMIT: usize = 10_000;

impl Instance {
    /// Answers a call of the Table API. `rest` is what follows `table/`; `v1` is the old version.
    pub(super) fn table_api(&mut self, ctx: Context<'_>, call: &Call, rest: &str, v1: bool) -> Answer {
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
        let silent = call.params.flag("x-no-response-body")
            || call.header("x-no-response-body").is_some_and(|v| v.eq_ignore_ascii_case("true"));
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
        let found = self.select(table, &query);
        let shape = Shape::of(call);
        let page: Vec<Value> = found
            .iter()
            .skip(offset)
            .take(limit)
            .map(|(table, _, row)| self.show(table, row, &shape))
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
        let known = |field: &str| self.knows(table, field);
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

    /// `Link`, without blanks, with the instance's own address.
    fn links(&self, call: &Call, offset: usize, limit: usize, total: usize) -> String {
        let url = |offset: usize| {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            for (name, value) in call.params.iter().filter(|(n, _)| *n != "sysparm_offset") {
                query.append_pair(name, value);
            }
            query.append_pair("sysparm_offset", &offset.to_string());
            format!("{}{}?{}", self.base, call.path, query.finish())
        };
        let mut links = Vec::new();
        if limit > 0 && offset + limit < total {
            links.push(format!("<{}>;rel=\"next\"", url(offset + limit)));
        }
        if offset > 0 {
            links.push(format!("<{}>;rel=\"prev\"", url(offset.saturating_sub(limit))));
        }
        links.push(format!("<{}>;rel=\"first\"", url(0)));
        if let Some(pages) = total.saturating_sub(1).checked_div(limit) {
            links.push(format!("<{}>;rel=\"last\"", url(pages * limit)));
        }
        links.join(",")
    }

    fn read(&self, ctx: Context<'_>, call: &Call, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let (table, _, row) = self.find(table, sys_id).ok_or_else(Answer::no_record)?;
        Ok(Answer::result(200, &self.show(table, row, &Shape::of(call))))
    }

    fn create(&mut self, ctx: Context<'_>, call: &Call, table: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let wanted = call.object()?;
        let made = self.insert(ctx, table, &wanted, call.params.flag("sysparm_input_display_value"))?;
        let location = format!("{}/api/now/table/{table}/{}", self.base, made.sys_id);
        let mut answer = self.shown(call, &made.table, &made.sys_id, 201)?.with("location", location);
        answer.made.push(made);
        Ok(answer)
    }

    fn change(&mut self, ctx: Context<'_>, call: &Call, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let wanted = call.object()?;
        let made =
            self.update(ctx, table, sys_id, &wanted, call.params.flag("sysparm_input_display_value"))?;
        self.shown(call, &made.table, &made.sys_id, 200)
    }

    fn shown(&self, call: &Call, table: &str, sys_id: &str, status: u16) -> Result<Answer, Answer> {
        let (table, _, row) = self.find(table, sys_id).ok_or_else(Answer::no_record)?;
        Ok(Answer::result(status, &self.show(table, row, &Shape::of(call))))
    }

    fn delete(&mut self, ctx: Context<'_>, table: &str, sys_id: &str) -> Result<Answer, Answer> {
        self.table(table, ctx.tweaks)?;
        let (table, seq, _) = self.find(table, sys_id).ok_or_else(Answer::no_record)?;
        let name = table.name.clone();
        self.drop_row(&name, seq);
        Ok(Answer::empty(204))
    }
}
