//! A plain page of the instance's tables, for a person who watches tickets appear and closes one by hand: `/simulator`,
//! for callers on this machine only.
//!
//! **Escaped by construction.** [`Html`] takes markup only as text of this program; everything else goes through
//! [`Html::text`]. **Who may change something:** a request of this very page, by its `Origin`, as JSON; a foreign `Host`
//! gets nothing, so that no name that leads to this machine can be used by a page of the web.

use std::fmt::Write as _;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::Record;
use super::call::{Answer, Call};
use super::instance::{Context, Tweaks};
use super::serve::State;
use super::stages;

const SCRIPT: &str = include_str!("page/page.js");
const STYLE: &str = include_str!("page/page.css");
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; script-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
/// Records on one page, the newest first.
const SHOWN: usize = 100;
/// Longest value that is shown, in characters.
const VALUE_MAX: usize = 120;
/// Who closes tickets here.
const PERSON: &str = "abel.tuter";
const ROOT: &str = "/simulator";
const TABLES: &str = "/tables/";
const CLOSE: &str = "/close/";

/// Answers a call of the page; `None`: it is none.
pub(super) fn answer(state: &mut State, call: &Call) -> Option<Answer> {
    let path = call.path.strip_prefix(ROOT)?.trim_end_matches('/');
    let (get, post) = (call.method == Method::GET, call.method == Method::POST);
    let work: fn(&mut State, &Call, &str) -> Answer = match path {
        "" if get => |state, _, _| html(&index(state)),
        "/page.js" if get => |_, _, _| file("text/javascript; charset=utf-8", SCRIPT),
        "/page.css" if get => |_, _, _| file("text/css; charset=utf-8", STYLE),
        path if get && path.starts_with(TABLES) => |state, _, path| table(state, &path[TABLES.len()..]),
        path if post && path.starts_with(CLOSE) => {
            |state, call, path| close(state, call, &path[CLOSE.len()..])
        }
        _ => return None,
    };
    if !is_host_ours(state, call) {
        let detail = "this page is for this machine, by its own name";
        return Some(Answer::error(421, "Misdirected Request", Some(detail)));
    }
    Some(work(state, call, path))
}

/// Whether the caller knows this address by one of its own names.
fn is_host_ours(state: &State, call: &Call) -> bool {
    let own = state.instance.base.split_once("://").map_or("", |(_, own)| own);
    let port = own.rsplit_once(':').map_or("", |(_, port)| port);
    let host = call.header("host").unwrap_or_default();
    host == own || ["127.0.0.1", "localhost", "[::1]"].iter().any(|name| host == format!("{name}:{port}"))
}

/// Whether a request is of this very page.
fn is_origin_ours(state: &State, call: &Call) -> bool {
    let scheme = state.instance.base.split_once("://").map_or("http", |(scheme, _)| scheme);
    let ours = format!("{scheme}://{}", call.header("host").unwrap_or_default());
    call.header("origin") == Some(ours.as_str())
        && call.header("sec-fetch-site").is_none_or(|site| site == "same-origin")
        && call.content_type().as_deref() == Some("application/json")
}

fn html(page: &Html) -> Answer {
    file("text/html; charset=utf-8", &page.0)
}

fn file(content_type: &'static str, text: &str) -> Answer {
    let mut answer = Answer::empty(200)
        .with("content-type", content_type)
        .with("content-security-policy", POLICY)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
        .with("cache-control", "no-store")
        .with("cross-origin-resource-policy", "same-origin");
    answer.body = text.as_bytes().to_vec();
    answer
}

/// Markup of ours, and text of anybody.
struct Html(String);

impl Html {
    fn page(title: &str) -> Self {
        let mut page = Self(String::new());
        page.raw("<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>").text(title);
        page.raw("</title><link rel=\"stylesheet\" href=\"/simulator/page.css\"><script src=\"/simulator/page.js\" defer>");
        page.raw("</script><h1>").text(title).raw("</h1>");
        page
    }

    /// Markup: only what is written in this program.
    fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text, also as the value of an attribute between double quotes.
    fn text(&mut self, text: &str) -> &mut Self {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{}", minijinja::HtmlEscape(text));
        self
    }

    fn row(&mut self, cells: &[&str]) {
        for cell in cells {
            let short: String = cell.chars().take(VALUE_MAX).collect();
            self.raw("<td>").text(&short).raw("</td>");
        }
    }

    fn head(&mut self, names: &[&str]) {
        self.raw("<table><thead><tr>");
        for name in names {
            self.raw("<th>").text(name).raw("</th>");
        }
        self.raw("</tr></thead><tbody>");
    }
}

/// The tables that have records, and the newest tickets.
fn index(state: &State) -> Html {
    let instance = &state.instance;
    let mut page = Html::page("otrelay simulate");
    let mut tickets: Vec<(u64, Record)> =
        instance.family("task").flat_map(|table| table.last(SHOWN)).collect();
    tickets.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    tickets.truncate(SHOWN);
    page.raw("<h2>Tickets</h2>");
    page.head(&["number", "state", "short description", "made", "by", "key", ""]);
    for (_, record) in &tickets {
        let code = record.get("state");
        let choices = instance.choices(&record.table, "state");
        let state = choices.iter().find(|(value, _)| value == code).map_or(code, |(_, label)| label);
        page.raw("<tr>");
        page.row(&[
            record.get("number"),
            state,
            record.get("short_description"),
            record.get("sys_created_on"),
            record.get("sys_created_by"),
            record.get("correlation_id"),
        ]);
        page.raw("<td>");
        if record.get("active") != "false" && closing(&record.table).is_some() {
            page.raw("<button data-close=\"").text(&record.table).raw("/").text(record.get("sys_id"));
            page.raw("\">close</button>");
        }
        page.raw("</td></tr>");
    }
    page.raw("</tbody></table><h2>Tables</h2><ul>");
    for (name, count) in instance.counts() {
        page.raw("<li><a href=\"/simulator/tables/").text(&name).raw("\">").text(&name).raw("</a> ");
        page.text(&count.to_string()).raw("</li>");
    }
    page.raw("</ul>");
    page
}

/// The newest records of a table, with all that they say.
fn table(state: &State, name: &str) -> Answer {
    let Some(table) = state.instance.tables.get(name) else { return Answer::no_path() };
    let mut page = Html::page(name);
    page.raw("<p><a href=\"/simulator\">all tables</a></p>");
    for (_, record) in table.last(SHOWN) {
        page.head(&["field", "value"]);
        for (field, value) in &record.fields {
            page.raw("<tr>");
            page.row(&[field, value]);
            page.raw("</tr>");
        }
        page.raw("</tbody></table>");
    }
    html(&page)
}

/// The last state of a closed ticket, and what a person enters to get there.
fn closing(table: &str) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
    Some(match table {
        "incident" | "sn_ot_incident" => ("7", &[("close_code", "User error"), ("close_notes", "by hand")]),
        "sn_si_incident" => ("3", &[("close_code", "Threat mitigated"), ("close_notes", "by hand")]),
        "problem" => (
            "107",
            &[("resolution_code", "fix_applied"), ("cause_notes", "by hand"), ("fix_notes", "by hand")],
        ),
        "change_request" => ("3", &[("close_code", "successful"), ("close_notes", "by hand")]),
        _ => return None,
    })
}

fn close(state: &mut State, call: &Call, what: &str) -> Answer {
    if !is_origin_ours(state, call) {
        return Answer::error(403, "Forbidden", Some("only the page itself closes tickets"));
    }
    let Some((table, sys_id)) = what.split_once('/') else { return Answer::no_path() };
    let Some((last, fields)) = closing(table) else { return Answer::no_path() };
    let Some(user) = state.instance.user(PERSON) else { return Answer::no_record() };
    let tweaks = Tweaks::default();
    let ctx = Context { user: &user, tweaks: &tweaks };
    let Some((known, _, row)) = state.instance.find(table, sys_id) else { return Answer::no_record() };
    // As a person does it: a change, a problem and a security incident go through all states.
    for step in stages::way(known, row, last) {
        let all = fields.iter().copied().chain([("state", step)]);
        let wanted: Map<String, Value> = all.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        if let Err(refusal) = state.instance.update(ctx, table, sys_id, &wanted, false) {
            return refusal;
        }
    }
    Answer::json(200, &json!({"closed": true}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut page = Html(String::new());
        page.row(&["<script>alert('1')</script>", "a\" onload=\"x", "&lt;"]);
        assert_eq!(
            page.0,
            "<td>&lt;script&gt;alert(&#x27;1&#x27;)&lt;&#x2f;script&gt;</td><td>a&quot; onload=&quot;x</td><td>&amp;lt;</td>"
        );
    }
}
