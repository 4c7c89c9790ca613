//! What an answer means. Pure: status, headers and body in; the record or a [`SendError`] out.
//!
//! Success is narrow (200 or 201, JSON that parses, a `result`, no `error` beside it); everything else has a class.
//! When in doubt about a write the answer is `doubtful`, and when in doubt whether a delivery or the destination is at
//! fault, the destination waits: a dead letter must be the instance's own verdict on that record, or that of something in
//! between which lets others pass.

use std::time::Duration;

use serde_json::Value;

use super::tree::{self, NoTree};
use super::wire::Words;
use crate::destination::{RateLimit, SendError};
use crate::model::{Class, HoldScope, TableName, Timestamp, text};
use crate::net::{Answer, TransportError};

/// Longest text of the instance that goes into a message, in bytes.
const WORDS_MAX: usize = 500;
/// The table of files; they are sent by an API of their own.
const ATTACHMENTS: &str = "sys_attachment";
/// Longest wait that is believed; the instance counts by the hour.
const WAIT_MAX: Duration = Duration::from_hours(24);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Reading: repeating it does no harm, and no single delivery can be at fault.
    LookUp,
    /// Reading what a table takes: likewise.
    Schema,
    /// Creating: may have happened although the answer says otherwise.
    Create,
    /// Changing a record: may have happened too.
    Change,
    /// Telling Event Management: may have happened too, and may be repeated.
    Event,
    /// Several at once.
    Batch,
    /// Putting a row into a staging table: likewise.
    Row,
    /// Attaching a file: may have happened too.
    Attach,
    /// Many rows: the same, and transformed later.
    Rows,
    /// Telling the CMDB: the same.
    Devices,
}

/// The call whose answer is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt<'a> {
    pub(super) what: What,
    pub(super) table: &'a TableName,
    /// `https://acme.service-now.com`.
    pub(super) place: &'a str,
    /// Wall time, where the answer has no `Date`.
    pub(super) now: Timestamp,
}

impl Attempt<'_> {
    fn writes(&self) -> bool {
        !matches!(self.what, What::LookUp | What::Schema)
    }

    /// Whether the tickets go on whatever is answered: an instance shuts and limits each API by itself. A login that is
    /// refused everywhere is met by the next call that makes a ticket.
    pub(super) fn is_beside(&self) -> bool {
        match self.what {
            What::Schema | What::Attach => true,
            What::LookUp => self.table.as_str() == ATTACHMENTS,
            _ => false,
        }
    }

    fn tried(&self) -> String {
        let what = match self.what {
            What::LookUp if self.is_beside() => "look up files",
            What::LookUp => "look up tickets",
            What::Schema => return format!("could not read {} at {}", self.table, self.place),
            What::Create => "create a ticket",
            What::Change => "change a ticket",
            What::Event => "put an event",
            What::Row => "put a row",
            What::Attach => "attach a file",
            What::Rows => "put rows",
            What::Devices => "put devices",
            What::Batch => "put several records",
        };
        format!("could not {what} in {} at {}", self.table, self.place)
    }

    pub(super) fn error(&self, class: Class, hold: HoldScope, cause: &str, remedy: &str) -> SendError {
        SendError::new(class, hold, format!("{}: {cause}", self.tried()), remedy)
    }

    pub(super) fn retry(&self, cause: &str) -> SendError {
        SendError { doubtful: self.writes(), ..self.error(Class::Retry, HoldScope::Destination, cause, "") }
    }

    pub(super) fn hold_table(&self, cause: &str, remedy: &str) -> SendError {
        self.error(Class::Hold, HoldScope::Table, cause, remedy)
    }

    /// A write that was refused by the instance's words on it: the table is at fault, or only this record.
    fn hold_delivery(&self, cause: &str, remedy: &str) -> SendError {
        let scope = if self.writes() { HoldScope::Delivery } else { HoldScope::Table };
        self.error(Class::Hold, scope, cause, remedy)
    }

    /// Whether it tells what a sensor said, and only that: something in between may dislike it, and like the next one.
    fn tells(&self) -> bool {
        matches!(self.what, What::Create | What::Change | What::Event | What::Row | What::Attach)
    }

    /// Refused by something in between. For this record alone, unless no other gets through: then it is the destination that
    /// cannot be had.
    fn blocked(&self, cause: &str) -> SendError {
        SendError { is_general: true, ..self.error(Class::Hold, HoldScope::Delivery, cause, BY_FIREWALL) }
    }

    fn hold_destination(&self, cause: &str, remedy: &str) -> SendError {
        self.error(Class::Hold, HoldScope::Destination, cause, remedy)
    }

    /// A look-up serves many deliveries, so it never condemns one: then the table waits.
    pub(super) fn reject(&self, cause: &str, remedy: &str) -> SendError {
        let class = if self.writes() { Class::Reject } else { Class::Hold };
        self.error(class, HoldScope::Table, cause, remedy)
    }
}

pub(super) fn no_answer(error: &TransportError, attempt: &Attempt<'_>) -> SendError {
    let (class, sent) = (transport_class(error), error.request_was_sent());
    // There is a connection, and this one question may be too much for the instance.
    let scope = if attempt.what == What::Schema && sent { HoldScope::Table } else { HoldScope::Destination };
    SendError {
        doubtful: attempt.writes() && sent,
        ..attempt.error(class, scope, &error.to_string(), &error.remedy())
    }
}

/// A refused certificate or proxy login does not mend itself within minutes; everything else may.
pub(super) fn transport_class(error: &TransportError) -> Class {
    match error {
        TransportError::NotAllowed(_)
        | TransportError::Tls { .. }
        | TransportError::Proxy { login: true, .. } => Class::Hold,
        _ => Class::Retry,
    }
}

/// The parsed body of a success, with its `result`.
pub(super) fn judge(answer: &Answer, attempt: &Attempt<'_>) -> Result<Value, SendError> {
    let parsed = body(answer);
    let judged =
        match (answer.status, &parsed) {
            (200 | 201, Body::Json(_)) => match parsed {
                Body::Json(value) => success(value, attempt),
                _ => Err(attempt.retry("the answer changed while it was read")),
            },
            (200 | 201, _) => Err(not_json(answer, &parsed, attempt)),
            (300..=399, _) => Err(redirect(answer, attempt)),
            (429, _) => Err(rate_limited(answer, &parsed, attempt)),
            (401, _) => Err(unauthorised(answer, &parsed, attempt)),
            (400..=499, _) => Err(client_error(answer, &parsed, attempt)),
            (500..=599, _) => Err(server_error(answer, &parsed, attempt)),
            (202, _) => Err(attempt
                .retry("it answered 202, which says that the request waits in a queue and may never run")),
            (status, _) => {
                Err(attempt.retry(&format!("it answered {status}, which is no answer to such a request")))
            }
        };
    judged.map_err(|error| finish(error, answer))
}

/// What the answer says about the hourly limit; nothing where no rule of the instance matched.
pub(super) fn rate_limit(answer: &Answer) -> Option<RateLimit> {
    let limit = answer.header("x-ratelimit-limit").and_then(|v| v.trim().parse().ok());
    let reset_at = reset_at(answer);
    (limit.is_some() || reset_at.is_some()).then_some(RateLimit { limit, reset_at })
}

/// A body, as far as it is what its content type says.
pub(super) enum Body {
    Json(Value),
    /// JSON by its type, but it does not parse, or is not an object.
    Damaged,
    /// JSON of more values than an answer may have.
    TooLarge,
    /// A web page; its title, cleaned.
    Page {
        title: String,
        hibernating: bool,
        /// It says that something refused the request for what is in it.
        blocked: bool,
    },
    Empty,
    /// Neither JSON nor a page.
    Other,
}

pub(super) fn body(answer: &Answer) -> Body {
    let is_json =
        matches!(answer.content_type.as_deref(), Some(t) if t == "application/json" || t.ends_with("+json"));
    let encoded = answer.header("content-encoding").is_some_and(|e| !e.eq_ignore_ascii_case("identity"));
    if answer.body.trim_ascii().is_empty() {
        return Body::Empty;
    }
    if encoded {
        return Body::Other;
    }
    let is_page = answer.content_type.as_deref().is_some_and(|t| t.contains("html"))
        || answer.body.trim_ascii_start().starts_with(b"<");
    if is_page {
        return page(&answer.body);
    }
    if !is_json {
        return Body::Other;
    }
    match tree::parse(&answer.body) {
        Ok(value) if value.is_object() => Body::Json(value),
        Ok(_) | Err(NoTree::Damaged) => Body::Damaged,
        Err(NoTree::TooLarge) => Body::TooLarge,
    }
}

/// What firewalls that read requests say on their pages, some of which come with 200.
const BLOCKED: [&str; 6] = [
    "request rejected",
    "requested url was rejected",
    "web application firewall",
    "incapsula incident",
    "has been blocked",
    "request blocked",
];

/// Only the head of a page is looked at.
fn page(bytes: &[u8]) -> Body {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(64 * 1024)]).to_ascii_lowercase();
    let title = head
        .split_once("<title")
        .and_then(|(_, rest)| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split_once('<'))
        .map(|(title, _)| clean(title.trim(), 80))
        .unwrap_or_default();
    let hibernating = head.contains("hibernating");
    let blocked = BLOCKED.iter().any(|words| head.contains(words));
    Body::Page { title, hibernating, blocked }
}

pub(super) fn words(parsed: &Body) -> Option<Words> {
    match parsed {
        Body::Json(value) => value.get("error").filter(|error| !is_nothing(error)).map(Words::of),
        _ => None,
    }
}

/// No error is told by `null`, and by some gateways and scripts by an empty text.
fn is_nothing(error: &Value) -> bool {
    error.is_null() || error.as_str().is_some_and(|text| text.trim().is_empty())
}

fn success(value: Value, attempt: &Attempt<'_>) -> Result<Value, SendError> {
    if let Some(error) = value.get("error").filter(|e| !is_nothing(e)) {
        let words = Words::of(error);
        return Err(attempt
            .retry(&format!("the answer holds an error although it began as a success: {}", said(&words))));
    }
    let member = match attempt.what {
        What::Batch => "serviced_requests",
        // Not wrapped, unlike all others.
        What::Rows if value.get("result").is_none() => "import_set_id",
        _ => "result",
    };
    if value.get(member).is_none() {
        return Err(attempt.retry(&format!("the answer has no `{member}`")));
    }
    Ok(value)
}

fn not_json(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let doubtful = attempt.writes();
    match parsed {
        Body::Page { title, hibernating, blocked } => {
            let (cause, remedy) = page_words(answer.status, title, *hibernating);
            let error = if *blocked && attempt.tells() {
                attempt.blocked(&cause)
            } else {
                attempt.hold_destination(&cause, remedy)
            };
            SendError { doubtful, ..error }
        }
        Body::Empty => attempt.retry(&format!("it answered {} without a body", answer.status)),
        Body::Damaged => {
            attempt.retry(&format!("it answered {} with JSON that is cut or damaged", answer.status))
        }
        Body::TooLarge => attempt.retry(&format!(
            "it answered {} with more values than such an answer has; they were not read to their end",
            answer.status
        )),
        Body::Other | Body::Json(_) => {
            let kind = answer.content_type.as_deref().unwrap_or("no content type");
            attempt.retry(&format!("it answered {} with {} instead of JSON", answer.status, clean(kind, 80)))
        }
    }
}

/// What a web page in place of an answer means, and the remedy.
pub(super) fn page_words(status: u16, title: &str, hibernating: bool) -> (String, &'static str) {
    if hibernating {
        let cause = "the instance is hibernating: it answered with a web page instead of JSON".to_owned();
        return (
            cause,
            "wake the developer instance up on developer.servicenow.com; nothing is lost meanwhile",
        );
    }
    let title = if title.is_empty() { String::new() } else { format!(" titled `{title}`") };
    let cause = format!("it answered {status} with a web page{title} instead of JSON");
    let remedy = "something that is not the REST API answered: check `instance`; a log-in page, a maintenance page or a \
                  proxy in between looks like this";
    (cause, remedy)
}

fn redirect(answer: &Answer, attempt: &Attempt<'_>) -> SendError {
    let target = answer.header("location").map_or_else(
        || "nowhere".to_owned(),
        |l| match url::Url::parse(l) {
            // The host is enough; the rest may carry a session.
            Ok(url) => url.host_str().map_or_else(|| "another page".to_owned(), |h| clean(h, 200)),
            Err(_) => "another page of the same host".to_owned(),
        },
    );
    attempt.hold_destination(
        &format!("it answered {} and sends us on to {target}; redirects are not followed", answer.status),
        "put the address of the instance itself into `instance`; a redirect to a log-in page means that the instance \
         or a proxy wants a person",
    )
}

fn rate_limited(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let wait = wait(answer, attempt.now);
    let mut cause = "it refuses more requests for now (429)".to_owned();
    if let Some(words) = words(parsed) {
        cause = format!("{cause}: {}", said(&words));
    }
    let remedy = if wait.is_some() {
        "waits as long as the instance said; if it recurs, lower `requests_per_hour` below the instance's limit"
    } else {
        "the instance is busy; if it recurs, lower `max_in_flight` and `requests_per_hour`"
    };
    SendError { wait, ..attempt.error(Class::RetryAt, HoldScope::Destination, &cause, remedy) }
}

fn unauthorised(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let mut cause = if attempt.is_beside() {
        "it does not let us do this (401)".to_owned()
    } else {
        "it does not accept our login (401)".to_owned()
    };
    if let Some(words) = words(parsed) {
        cause = format!("{cause}: {}", said(&words));
    }
    let remedy = if answer.header("x-mfa_token").is_some() {
        "the instance asks this user for a second factor: exempt the integration user from it"
    } else {
        // `client` fills it in: it knows the kind of login.
        ""
    };
    attempt.hold_destination(&cause, remedy)
}

fn client_error(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let status = answer.status;
    if matches!(status, 408 | 409 | 425) {
        let words = words(parsed).map(|w| format!(": {}", said(&w))).unwrap_or_default();
        return attempt.retry(&format!("it answered {status}{words}"));
    }
    let is_instance = matches!(parsed, Body::Json(value) if value.get("error").is_some());
    let words = match words(parsed) {
        Some(words) => words,
        // Its form, without its words.
        None if is_instance => Words::default(),
        None => return foreign_refusal(answer, parsed, attempt),
    };
    let said = said(&words);
    let text = format!("{} {}", words.message, words.detail).to_ascii_lowercase();
    let has = |needle: &str| text.contains(needle);
    let cause = format!("it answered {status}: {said}");
    if is_unique_violation(&text) {
        return attempt.retry(&cause);
    }
    match status {
        400 if has("invalid table") || (has("table ") && has("does not exist")) => {
            attempt.hold_table(&format!("{cause}; there is no such table"), MISSING_TABLE)
        }
        400 | 404 if has("requested uri does not represent") => attempt.hold_destination(
            &cause,
            "the Table API is not at this address: `instance` must be the bare address of the instance",
        ),
        404 => attempt.hold_table(&cause, MISSING_TABLE),
        403 if has("access to unscoped api") || has("required api access scope") => attempt.hold_destination(
            &cause,
            "the token may not use this API, whatever the user's roles are: set the OAuth registry record to \"Broadly \
             scoped\", or give it the auth scope of the REST API in question",
        ),
        403 if has("data policy") => {
            attempt.reject(&cause, "give the named fields a value in [rule.action.fields], then `otrelay queue retry`")
        }
        403 if has("business rule") => attempt.reject(
            &cause,
            "a business rule on the instance forbids this record; change the rule or the fields, then `otrelay queue retry`",
        ),
        403 if has("api level acl") => attempt.hold_table(
            &cause,
            "the user may not use the Table API: look at the REST API ACL and the REST API access policies",
        ),
        403 if has("webservicepolicyvalidator") => attempt.hold_table(
            &cause,
            "allow web service access on this table (application access of the table record)",
        ),
        403 if has("operation failed") && !has("acl") && !has("security constraint") => {
            attempt.reject(&cause, "the instance refused this record; see its words")
        }
        403 if has("acl exception") || has("security constraint") => attempt.hold_delivery(&cause, MISSING_RIGHT),
        403 => attempt.hold_table(&cause, MISSING_RIGHT),
        400 | 413 | 422 => attempt.reject(&cause, "change the fields in [rule.action.fields], then `otrelay queue retry`"),
        _ => attempt.hold_destination(&cause, "the instance and otrelay do not agree on the protocol; report it"),
    }
}

const MISSING_TABLE: &str = "check `table` in the rule's action, that the plugin or store app that brings the table is \
                             active, and that the user may read it; deliveries wait meanwhile";
const MISSING_RIGHT: &str = "give the integration user the roles to read and create in this table (incident: itil or \
                             sn_incident_write) and check the scope of its token; deliveries wait meanwhile";

/// A refusal that is not in the instance's own form came from something in between, or from another server.
fn foreign_refusal(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let status = answer.status;
    match parsed {
        Body::Page { title, hibernating, .. } => {
            let (cause, remedy) = page_words(status, title, *hibernating);
            if !*hibernating && reads_records(status) && attempt.tells() {
                attempt.blocked(&cause)
            } else {
                attempt.hold_destination(&cause, remedy)
            }
        }
        _ if reads_records(status) && attempt.tells() => {
            attempt.blocked(&format!("it answered {status} without the words of a ServiceNow instance"))
        }
        _ if status == 413 => attempt.reject(
            "it answered 413: the request is too large",
            "shorten the fields in [rule.action.fields], then `otrelay queue retry`",
        ),
        _ if status == 407 => attempt
            .hold_destination("a proxy asks for a login (407)", "set `proxy.username` and `proxy.password`"),
        _ => attempt.hold_destination(
            &format!("it answered {status} without the words of a ServiceNow instance"),
            "check `instance`, and whether a proxy or firewall in between refuses the request",
        ),
    }
}

/// What a firewall that reads requests answers to one that it does not like.
fn reads_records(status: u16) -> bool {
    matches!(status, 400 | 403 | 406 | 418 | 422 | 451)
}

fn server_error(answer: &Answer, parsed: &Body, attempt: &Attempt<'_>) -> SendError {
    let cause = match (words(parsed), parsed) {
        (Some(words), _) => format!("it answered {}: {}", answer.status, said(&words)),
        (None, Body::Page { title, .. }) if !title.is_empty() => {
            format!("it answered {} with a web page titled `{title}`", answer.status)
        }
        _ => format!("it answered {}", answer.status),
    };
    let wait = retry_after(answer, attempt.now);
    SendError { wait, remedy: AWAY.to_owned(), ..attempt.retry(&cause) }
}

const BY_FIREWALL: &str = "not ServiceNow but a web application firewall or proxy in between refused this, perhaps for what the \
                           record says, as a text about an attack looks like one: let it pass this relay's requests to \
                           /api/ unexamined, or leave the text out in [rule.action.fields], then `otrelay queue retry`; where \
                           all are refused, check `instance` and the proxy";

const AWAY: &str = "the instance or something in front of it is down, restarting or overloaded: look at it there if this \
                    lasts; nothing is lost meanwhile";

/// The instance refuses a second record with our `sys_id`: ours is there already.
pub(super) fn is_unique_violation(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("unique key violation") || text.contains("duplicate entry")
}

/// No record has this key. Old releases and some gateways say so also to a look-up by query.
pub(super) fn is_no_record(error: &SendError) -> bool {
    error.status == Some(404) && error.message.to_ascii_lowercase().contains("no record found")
}

/// The instance has no such address: the plugin that brings the API is not active.
pub(super) fn is_no_such_api(error: &SendError) -> bool {
    matches!(error.status, Some(400 | 404))
        && error.message.to_ascii_lowercase().contains("requested uri does not represent")
}

/// The request is too large for the instance or for something in between.
pub(super) fn is_too_large(error: &SendError) -> bool {
    matches!(error.status, Some(413 | 414 | 431))
        || error.status == Some(400) && error.message.to_ascii_lowercase().contains("large rest payload")
}

/// Adds what every message ends with.
fn finish(mut error: SendError, answer: &Answer) -> SendError {
    error.status = Some(answer.status);
    if let Some(id) = answer.header("x-transaction-id") {
        error.message = format!("{} (transaction {})", error.message, clean(id, 64));
    }
    error
}

/// Message and detail, cleaned and bounded.
pub(super) fn said(words: &Words) -> String {
    let both = match (words.message.trim(), words.detail.trim()) {
        ("", "") => return "it gave no reason".to_owned(),
        (message, "") => message.to_owned(),
        ("", detail) => detail.to_owned(),
        // Some details begin with the message.
        (message, detail) if detail.starts_with(message) => detail.to_owned(),
        (message, detail) => format!("{message}: {detail}"),
    };
    clean(&both, WORDS_MAX)
}

fn clean(text: &str, max: usize) -> String {
    text::clip(&text::one_line(text), max).into_owned()
}

/// How long it asked us to wait: `Retry-After`, else until the window of its limit starts again.
pub(super) fn wait(answer: &Answer, now: Timestamp) -> Option<Duration> {
    retry_after(answer, now).or_else(|| {
        let now = server_date(answer).unwrap_or(now);
        positive(reset_at(answer)?.since(now))
    })
}

fn retry_after(answer: &Answer, now: Timestamp) -> Option<Duration> {
    let text = answer.header("retry-after")?.trim();
    if let Ok(secs) = text.parse::<u64>() {
        return positive(Duration::from_secs(secs));
    }
    let now = server_date(answer).unwrap_or(now);
    positive(http_date(text)?.since(now))
}

/// Nothing, or a date in the past, is no advice.
fn positive(wait: Duration) -> Option<Duration> {
    (!wait.is_zero()).then_some(wait.min(WAIT_MAX))
}

fn reset_at(answer: &Answer) -> Option<Timestamp> {
    answer.header("x-ratelimit-reset")?.trim().parse().ok().map(Timestamp::from_secs)
}

/// The instance's clock, so that ours need not be right.
pub(super) fn server_date(answer: &Answer) -> Option<Timestamp> {
    http_date(answer.header("date")?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(Timestamp::from_secs(zoned.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = "application/json";
    const HTML: &str = "text/html";
    /// 2026-11-21 08:15:00 UTC, ours; the instance's clock in the tests is an hour behind.
    const NOW: i64 = 1_795_248_900;

    fn answer(status: u16, kind: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        Answer {
            status,
            content_type: (!kind.is_empty()).then(|| kind.to_owned()),
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn judged(what: What, answer: &Answer) -> Result<Value, SendError> {
        let table = TableName::new("incident").unwrap();
        let attempt =
            Attempt { what, table: &table, place: "https://acme.example", now: Timestamp::from_secs(NOW) };
        judge(answer, &attempt)
    }

    fn refused(message: &str, detail: &str) -> String {
        serde_json::json!({"error": {"message": message, "detail": detail}, "status": "failure"}).to_string()
    }

    /// A create that failed: `class`, optionally `/table`, optionally ` doubtful`.
    fn check(status: u16, kind: &str, body: &str, expected: &str, words: &str) {
        let error =
            judged(What::Create, &answer(status, kind, body, &[("x-transaction-id", "abc123")])).unwrap_err();
        let mut got = error.class.as_str().to_owned();
        match (error.class, error.hold) {
            (Class::Hold, HoldScope::Table) => got.push_str("/table"),
            (Class::Hold, HoldScope::Delivery) => got.push_str("/delivery"),
            _ => {}
        }
        if error.doubtful {
            got.push_str(" doubtful");
        }
        assert_eq!(got, expected, "{status} {body}: {error}");
        let all = format!("{}; {}", error.message, error.remedy);
        assert!(all.contains(words), "expected `{words}` in: {all}");
        assert!(error.message.starts_with("could not create a ticket in incident at https://acme.example: "));
        assert!(error.message.ends_with(" (transaction abc123)"), "{}", error.message);
        assert_eq!(error.status, Some(status));
        if matches!(error.class, Class::Hold | Class::Reject) && status != 401 {
            assert!(!error.remedy.is_empty(), "a person has to act on: {all}");
        }
        // A look-up is never doubtful and never condemns a delivery.
        let look_up = judged(What::LookUp, &answer(status, kind, body, &[])).unwrap_err();
        assert!(!look_up.doubtful && look_up.class != Class::Reject, "{look_up}");
    }

    #[test]
    fn what_looks_like_success_and_is_not() {
        check(
            200,
            HTML,
            "<html><head><title>Instance Hibernating page</title>",
            "hold doubtful",
            "hibernating",
        );
        check(
            200,
            HTML,
            "<div class=instance-hibernating-page>",
            "hold doubtful",
            "developer.servicenow.com",
        );
        check(
            200,
            HTML,
            "<!DOCTYPE html><TITLE>Log in\u{1b}[2J</TITLE>",
            "hold doubtful",
            "titled `log in[2j`",
        );
        check(200, JSON, "  <html>proxy</html>", "hold doubtful", "web page instead of JSON");
        check(202, "", "", "retry doubtful", "may never run");
        check(202, JSON, r#"{"result":{}}"#, "retry doubtful", "202");
        check(204, "", "", "retry doubtful", "204");
        check(200, "", "", "retry doubtful", "without a body");
        check(201, JSON, "", "retry doubtful", "without a body");
        check(201, JSON, r#"{"result":{"sys_id":"0f1e"#, "retry doubtful", "cut or damaged");
        check(201, JSON, "[1]", "retry doubtful", "cut or damaged");
        check(201, JSON, "{}", "retry doubtful", "no `result`");
        check(201, JSON, r#"{"error":{}}"#, "retry doubtful", "holds an error");
        check(
            200,
            JSON,
            r#"{"result":[],"error":{"message":"Transaction cancelled: maximum execution time exceeded","detail":null}}"#,
            "retry doubtful",
            "maximum execution time exceeded",
        );
        check(200, "text/plain", r#"{"result":{}}"#, "retry doubtful", "text/plain instead of JSON");
        let gzip = answer(200, JSON, "\u{1f}...", &[("content-encoding", "gzip")]);
        assert!(judged(What::Create, &gzip).unwrap_err().doubtful);
        let mut latin = answer(200, JSON, "", &[]);
        latin.body = b"{\"result\":\"\xe9\"}".to_vec();
        assert!(judged(What::Create, &latin).unwrap_err().message.contains("damaged"));
        let deep = format!("{{\"result\":{}", "[".repeat(100_000));
        check(200, JSON, &deep, "retry doubtful", "damaged");
    }

    #[test]
    fn success_is_json_with_a_result() {
        for (status, kind, body) in [
            (200, JSON, r#"{"result":[]}"#),
            (201, JSON, r#"{"result":{"sys_id":"x"}}"#),
            (201, "application/vnd.api+json", r#"{"result":{}, "error":null}"#),
            (201, JSON, r#"{"result":{}, "error":""}"#),
        ] {
            assert!(judged(What::Create, &answer(status, kind, body, &[])).is_ok(), "{body}");
        }
    }

    #[test]
    fn refusals_have_the_class_of_their_cause() {
        let e = refused;
        let not_auth = e("User Not Authenticated", "Required to provide Auth information");
        check(401, JSON, &not_auth, "hold", "User Not Authenticated: Required");
        check(400, JSON, &e("Invalid table sys_nonexistent", ""), "hold/table", "no such table");
        check(400, JSON, &e("Table sys_nonexistent does not exist", ""), "hold/table", "plugin or store app");
        check(404, JSON, &e("No Record found", "Record doesn't exist or ACL"), "hold/table", "`table`");
        check(400, JSON, &e("Requested URI does not represent any resource", ""), "hold", "bare address");
        check(404, JSON, &e("Requested URI does not represent any resource", ""), "hold", "bare address");
        let large =
            e("Exception while reading request", "Rejected large REST payload with content-length = 2 bytes");
        check(400, JSON, &large, "reject", "large REST payload");
        check(
            400,
            JSON,
            &e("Exception while reading request", "The payload is not valid JSON."),
            "reject",
            "valid",
        );
        check(413, "", "", "reject", "too large");
        let denied = e("User Not Authorized", "User is unauthorized to access table: incident");
        check(403, JSON, &denied, "hold/table", "itil");
        check(
            403,
            JSON,
            &e("User Not Authorized", "Failed API level ACL Validation"),
            "hold/table",
            "access policies",
        );
        check(403, JSON, &e("Insufficient rights to query records", ""), "hold/table", "roles");
        let acl = e("Operation Failed", "ACL Exception Insert Failed due to security constraints");
        check(403, JSON, &acl, "hold/delivery", "roles");
        let scope = e("User Not Authorized", "Access to unscoped api is not allowed");
        check(403, JSON, &scope, "hold", "Broadly scoped");
        check(403, JSON, &e("Forbidden", "Missing required api access scope"), "hold", "auth scope");
        check(400, JSON, r#"{"error":null,"status":"failure"}"#, "reject", "answered 400: it gave no reason");
        let rule =
            "Operation against file 'incident' was aborted by Business Rule 'x^0f'. Business Rule Stack:x";
        check(403, JSON, &e("Operation Failed", rule), "reject", "aborted by Business Rule");
        let policy = "Data Policy Exception: The following fields are mandatory: Resolution code";
        check(403, JSON, &e("Operation Failed", policy), "reject", "[rule.action.fields]");
        check(403, JSON, &e("Operation Failed", "something"), "reject", "something");
        check(403, JSON, &e("x", "WebServicePolicyValidator said no"), "hold/table", "web service access");
        check(405, JSON, &e("Method not Supported", ""), "hold", "Method not Supported");
    }

    #[test]
    fn what_did_not_come_from_the_instance_is_for_the_others_to_judge_by() {
        check(400, HTML, "<title>Bad Request</title>", "hold/delivery", "titled `bad request`");
        check(403, HTML, "<html><title>Blocked by policy</title>", "hold/delivery", "blocked by policy");
        check(403, HTML, "<html>hibernating", "hold", "hibernating");
        check(404, "", "", "hold", "without the words of a ServiceNow instance");
        check(400, "text/plain", "no", "hold/delivery", "proxy in between");
        check(407, "", "", "hold", "proxy.username");
        check(418, "", "", "hold/delivery", "web application firewall");
        let page = "<html><title>Request Rejected</title>The requested URL was rejected";
        check(200, HTML, page, "hold/delivery doubtful", "web application firewall");
        // A look-up says nothing that a firewall could dislike, and neither does what goes together in base64.
        for what in [What::LookUp, What::Batch, What::Devices] {
            for status in [200, 403] {
                let error = judged(what, &answer(status, HTML, page, &[])).unwrap_err();
                assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Destination), "{error}");
            }
        }
    }

    #[test]
    fn transient_answers_are_tried_again() {
        let cancelled = refused("Transaction cancelled: maximum execution time exceeded", "");
        check(500, JSON, &cancelled, "retry doubtful", "Transaction cancelled");
        check(502, HTML, "<title>Bad Gateway</title>", "retry doubtful", "titled `bad gateway`");
        check(503, "", "", "retry doubtful", "503");
        check(504, "", "", "retry doubtful", "504");
        check(408, "", "", "retry doubtful", "408");
        check(409, JSON, &refused("x", ""), "retry doubtful", "409");
        for status in [400, 403, 409, 500] {
            let twin = refused("Operation Failed", "Unique Key violation detected by database");
            check(status, JSON, &twin, "retry doubtful", "Unique Key violation");
        }
    }

    #[test]
    fn redirects_name_their_host_and_nothing_else() {
        let check = |location: &str, expected: &str| {
            let error = judged(What::Create, &answer(302, "", "", &[("location", location)])).unwrap_err();
            assert_eq!((error.class, error.hold), (Class::Hold, HoldScope::Destination));
            assert!(error.message.contains(expected), "{error}");
            assert!(!error.message.contains("canary"), "{error}");
        };
        check("https://sso.example/login?session=canary", "to sso.example;");
        check("/login.do?session=canary", "another page of the same host");
        check("https://user:canary@sso.example", "to sso.example;");
    }

    #[test]
    fn waits_come_from_the_instance_and_by_its_clock() {
        let check = |headers: &[(&str, &str)], expected: Option<u64>| {
            let error =
                judged(What::Create, &answer(429, JSON, &refused("Rate limit exceeded", ""), headers));
            let error = error.unwrap_err();
            assert_eq!(error.class, Class::RetryAt);
            assert!(!error.doubtful);
            assert_eq!(error.wait.map(|w| w.as_secs()), expected, "{headers:?}");
        };
        let date = ("date", "Sat, 21 Nov 2026 07:15:00 GMT");
        let reset = ("x-ratelimit-reset", "1795248000"); // 08:00:00
        check(&[("retry-after", "30")], Some(30));
        check(&[("retry-after", "30"), date, reset], Some(30));
        check(&[("retry-after", "Sat, 21 Nov 2026 07:20:00 GMT"), date], Some(300));
        check(&[("retry-after", "Sat, 21 Nov 2026 08:20:00 GMT")], Some(300));
        check(&[("retry-after", "Sat, 21 Nov 2026 07:10:00 GMT"), date], None);
        check(&[("retry-after", "0"), date, reset], Some(2700));
        check(&[date, reset], Some(2700));
        check(&[reset], None);
        check(&[("retry-after", "36000")], Some(36000));
        check(&[("retry-after", "99999999999999999999")], None);
        check(&[("retry-after", "9999999999")], Some(86400));
        check(&[("retry-after", "soon"), ("x-ratelimit-reset", "-5")], None);
        check(&[], None);
        let limit = rate_limit(&answer(200, JSON, "{}", &[("x-ratelimit-limit", "100"), reset])).unwrap();
        assert_eq!(
            limit,
            RateLimit { limit: Some(100), reset_at: Some(Timestamp::from_secs(1_795_248_000)) }
        );
        assert_eq!(rate_limit(&answer(200, JSON, "{}", &[date])), None);
    }

    #[test]
    fn the_instances_words_are_bounded_and_cleaned() {
        let body = refused(&"x\u{1b}[31m\n".repeat(1000), &"y".repeat(10_000));
        let error = judged(What::Create, &answer(400, JSON, &body, &[])).unwrap_err();
        assert!(error.message.len() < 700, "{}", error.message.len());
        assert!(!error.message.chars().any(char::is_control));
    }

    #[test]
    fn a_broken_line_is_doubtful_once_there_was_one() {
        let table = TableName::new("incident").unwrap();
        let check = |error: &TransportError, what, class, doubtful| {
            let attempt = Attempt { what, table: &table, place: "https://x", now: Timestamp::EPOCH };
            let error = no_answer(error, &attempt);
            assert_eq!((error.class, error.doubtful), (class, doubtful), "{error}");
        };
        let host = || "x:443".to_owned();
        let cut = TransportError::Cut { host: host(), cause: "connection reset".to_owned() };
        let connect = TransportError::Connect { host: host(), cause: "connection refused".to_owned() };
        let tls = TransportError::Tls {
            host: host(),
            trouble: crate::net::TlsTrouble::UnknownIssuer(String::new()),
            sent: false,
        };
        let proxy = |login| TransportError::Proxy {
            proxy: host(),
            host: host(),
            cause: host(),
            login,
            offers: Vec::new(),
        };
        check(&cut, What::Create, Class::Retry, true);
        check(&cut, What::LookUp, Class::Retry, false);
        check(&connect, What::Create, Class::Retry, false);
        check(&tls, What::Create, Class::Hold, false);
        check(&proxy(true), What::Create, Class::Hold, false);
        check(&proxy(false), What::Create, Class::Retry, false);
    }

    proptest! {
        #[test]
        fn no_answer_breaks_it_and_only_json_is_success(
            status in 100u16..1000,
            kind in prop::option::of("application/json|text/html|[a-z/+;= ]{0,20}"),
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "\\{\"(result|error)\":(\\{\\}|null|\\[\\]|\"x\"|\\{\"message\":[0-9]\\})[,}]?\\}?".prop_map(String::into_bytes),
                "<.{0,10}title.{0,40}".prop_map(String::into_bytes),
            ],
            header in "retry-after|date|location|x-ratelimit-reset|content-encoding",
            value in ".{0,40}",
        ) {
            let mut answer = answer(status, kind.as_deref().unwrap_or(""), "", &[(&header, &value)]);
            answer.body = body;
            for what in [What::LookUp, What::Create] {
                match judged(what, &answer) {
                    Ok(value) => {
                        prop_assert!(matches!(status, 200 | 201));
                        prop_assert!(value.get("result").is_some());
                        prop_assert!(value.get("error").is_none_or(is_nothing));
                        prop_assert!(serde_json::from_slice::<Value>(&answer.body).is_ok());
                    }
                    Err(error) => prop_assert!(error.message.len() < 1000),
                }
            }
            let _ = rate_limit(&answer);
        }
    }
}
