//! What each page shows, made of one look at the store: values in, values for the templates out. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use minijinja::value::Serde;
use minijinja::{Value, context};

use super::Facts;
use super::chart::{self, Bars, Part};
use super::words::{age, clean, clock, count, number, relative};
use crate::model::{HealthIssue, Severity, Timestamp};
use crate::status::Status;
use crate::store::{COUNTED, Counts, HistoryPoint, Ring, TicketRow, WaitingRow};

/// Issues that the first page tells.
const ISSUES: usize = 5;
/// Reasons that the flow names.
const REASONS: usize = 3;
/// What is worse than something that waits for a person: alerts may get lost, or nothing works.
const BAD: [&str; 7] =
    ["disk-full", "buffer-full", "log-full", "store-in-memory", "clock-wrong", "shed", "dead-letters"];

pub(super) struct Look {
    pub(super) status: Status,
    pub(super) counts: Counts,
    pub(super) half_hours: Vec<HistoryPoint>,
    pub(super) days: Vec<HistoryPoint>,
    pub(super) waiting: Vec<WaitingRow>,
    pub(super) tickets: Vec<TicketRow>,
}

impl Look {
    /// What was counted since midnight, UTC.
    fn today(&self) -> Today<'_> {
        let day = Ring::Day.slot(self.status.now);
        // Without a row of this day nothing was counted in it.
        let before =
            self.days.iter().find(|point| point.slot == day).map_or(&self.counts, |point| &point.counts);
        Today { counts: &self.counts, before }
    }
}

struct Today<'a> {
    counts: &'a Counts,
    before: &'a Counts,
}

impl Today<'_> {
    fn of(&self, scope: &str, name: &str) -> i64 {
        let get = |counts: &Counts| counts.get(scope).and_then(|of| of.get(name)).copied().unwrap_or(0);
        (get(self.counts) - get(self.before)).max(0)
    }

    /// All names of the scopes that begin so, summed by name.
    fn all(&self, prefix: &str) -> BTreeMap<&str, i64> {
        let mut all = BTreeMap::new();
        for (scope, of) in self.counts.iter().filter(|(scope, _)| scope.starts_with(prefix)) {
            for name in of.keys() {
                *all.entry(name.as_str()).or_default() += self.of(scope, name);
            }
        }
        all.retain(|_, n| *n > 0);
        all
    }

    /// One name over all scopes that begin so.
    fn sum(&self, prefix: &str, name: &str) -> i64 {
        let scopes = self.counts.keys().filter(|scope| scope.starts_with(prefix));
        scopes.map(|scope| self.of(scope, name)).sum()
    }
}

/// The page *Now* without its chart.
pub(super) fn now(look: &Look, facts: &Facts, day: Value) -> Value {
    let tickets: Vec<Value> = look.tickets.iter().map(|row| ticket(row, facts)).collect();
    context! {
        verdict => verdict(&look.status),
        facts => figures(look, facts),
        flow => flow(look, facts),
        day,
        tickets,
        ends => ends(look),
    }
}

fn verdict(status: &Status) -> Value {
    let health = &status.health;
    if health.is_empty() {
        let mut told = status.waiting.clone();
        if !status.failing.is_empty() {
            told.insert(0, format!("Tried again by itself: {}", status.failing.join("; ")));
        }
        let words = if told.is_empty() {
            "What came in was decided, and what is to be reported is there or on its way.".to_owned()
        } else {
            clean(&told.join(" · "))
        };
        return context! { class => "good", title => "All is well: nothing needs a person", words };
    }
    let class = if health.iter().any(|issue| BAD.contains(&issue.code.as_str())) { "bad" } else { "warn" };
    let title = match health.len() {
        1 => "1 thing needs a person".to_owned(),
        n => format!("{n} things need a person"),
    };
    let more = health.len().saturating_sub(ISSUES);
    let told = |issue: &HealthIssue| context! { told => issue.told(), remedy => issue.remedy.as_str() };
    let issues: Vec<Value> = health.iter().take(ISSUES).map(told).collect();
    context! { class, title, more, issues }
}

fn figure(name: &str, value: String, note: String) -> Value {
    context! { name, value, note }
}

fn figures(look: &Look, facts: &Facts) -> Vec<Value> {
    let (status, overview) = (&look.status, &look.status.overview);
    let now = status.now;
    let last = overview.last_sync.as_ref();
    let last_value = match last {
        _ if status.syncing => "running".to_owned(),
        None => "never".to_owned(),
        Some(sync) => clock(sync.started_at, now),
    };
    let last_note = last.map_or_else(String::new, |sync| {
        let took = sync.ended_at.since(sync.started_at).as_secs_f64();
        format!("{}, {} sent, {took:.1} s", relative(sync.started_at, now), number(sync.created + sync.found))
    });
    let next_value = status.next_sync_at.map_or_else(|| "none".to_owned(), |at| clock(at, now));
    let next_note = facts
        .interval
        .map_or_else(|| "sync is off".to_owned(), |every| format!("every {}", every_so_often(every)));
    let dead_note = if overview.dead == 0 { "none waits for a person" } else { "each waits for a person" };
    let dead_class = if overview.dead > 0 { "bad" } else { "" };
    let used: i64 = overview.destinations.iter().map(|row| row.requests_this_hour).sum();
    let limit: i64 = facts.budgets.values().map(|limit| i64::from(*limit)).sum();
    let devices = &overview.devices;
    let told =
        devices.last_sync.map_or_else(|| "told never".to_owned(), |at| format!("told {}", clock(at, now)));
    let devices = (devices.known > 0).then(|| {
        figure("Devices", number(devices.known), format!("{} changed, {told}", number(devices.changed)))
    });
    let mut all = vec![
        figure("Last Sync", last_value, last_note),
        figure("Next Sync", next_value, next_note),
        figure("Backlog", number(overview.backlog), backlog_note(look)),
        context! { name => "Dead letters", value => number(overview.dead), note => dead_note, class => dead_class },
    ];
    all.extend(devices);
    all.push(figure("Budget this hour", number(used), format!("of {}", count(limit, "request", "requests"))));
    all
}

/// `60 min`, `24 h`.
fn every_so_often(every: Duration) -> String {
    match every.as_secs() {
        s if s >= 7_200 && s.is_multiple_of(3_600) => format!("{} h", s / 3_600),
        s => format!("{} min", s / 60),
    }
}

fn backlog_note(look: &Look) -> String {
    let Some(oldest) = look.status.overview.oldest_pending_at else { return "nothing waits".to_owned() };
    let oldest = format!("oldest {}", age(oldest, look.status.now));
    match look.waiting.iter().find(|row| row.count > 0) {
        Some(row) => format!("{oldest}, {} {}", counted(row.count), row.severity),
        None => oldest,
    }
}

/// Beyond a bound it is not counted.
fn counted(n: i64) -> String {
    if n >= COUNTED { format!("{} or more", number(COUNTED)) } else { number(n) }
}

fn flow(look: &Look, facts: &Facts) -> Value {
    let (today, overview) = (look.today(), &look.status.overview);
    let source = |row: &crate::store::SourceRow| {
        let n = today.of(&format!("source:{}", row.name), "alerts");
        Part {
            class: "in",
            count: n,
            title: row.name.clone(),
            lines: vec![format!("{} · {}", row.kind, number(n))],
        }
    };
    let sources = overview.sources.iter().map(source).collect();
    let mut reasons: Vec<(String, i64)> =
        today.all("filtered:").into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
    let excluded = today.all("excluded:").into_iter().map(|(name, n)| (format!("excluded by {name}"), n));
    reasons.extend(excluded);
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let gone: i64 = reasons.iter().map(|(_, n)| n).sum();
    let mut lines: Vec<String> =
        reasons.iter().take(REASONS).map(|(reason, n)| format!("{} {reason}", number(*n))).collect();
    if reasons.len() > REASONS {
        let rest: i64 = reasons[REASONS..].iter().map(|(_, n)| n).sum();
        lines.push(format!("{} for other reasons", number(rest)));
    }
    let repeats = today.sum("source:", "repeats") + today.sum("source:", "cleared");
    let (created, found) = (today.sum("destination:", "created"), today.sum("destination:", "found"));
    let part = |class, n: i64, words: &str, lines: Vec<String>| Part {
        class,
        count: n,
        title: format!("{} {words}", number(n)),
        lines,
    };
    let mut outcomes = vec![
        part("gone", gone, "not forwarded", lines),
        part("repeat", repeats, "repeats", vec!["counted on known findings".to_owned()]),
        part(
            "made",
            created + found,
            "reported",
            vec![format!("{} made, {} found there", number(created), number(found))],
        ),
    ];
    if overview.backlog > 0 {
        let for_budget = !look.status.waiting.is_empty();
        let what_for = if for_budget { "for the budget of requests" } else { "for the next sync" };
        outcomes.push(part("wait", overview.backlog, "wait", vec![what_for.to_owned()]));
    }
    if overview.dead > 0 {
        outcomes.push(part("person", overview.dead, "need a person", vec!["see Queue".to_owned()]));
    }
    chart::flow(sources, facts.rules, &outcomes).map_or(Value::UNDEFINED, |flow| Value::from(Serde(&flow)))
}

pub(super) fn day(look: &Look) -> Value {
    let now = Ring::HalfHour.slot(look.status.now);
    let slots = chart::by_slot(Ring::HalfHour, &look.half_hours, &look.counts, now);
    let first = now - slots.len() as i64 + 1;
    let bars = chart::bars(&slots, |at| {
        let slot = first + at as i64;
        // Every third hour that is whole; below the last bar there is no room for it.
        (slot.rem_euclid(6) == 0 && at + 1 < slots.len()).then(|| {
            Timestamp::from_secs(slot * Ring::HalfHour.seconds()).servicenow().get(11..16).map(str::to_owned)
        })?
    });
    chart_of("day", "Alerts in the last 24 hours", "by severity, each bar half an hour", &bars)
}

pub(super) fn month(look: &Look) -> Value {
    let now = Ring::Day.slot(look.status.now);
    let slots = chart::by_slot(Ring::Day, &look.days, &look.counts, now);
    let first = now - slots.len() as i64 + 1;
    let bars = chart::bars(&slots, |at| {
        let at = first + at as i64;
        (now - at).rem_euclid(5).eq(&0).then(|| {
            Timestamp::from_secs(at * Ring::Day.seconds()).servicenow().get(5..10).map(str::to_owned)
        })?
    });
    chart_of("month", "Alerts in the last month", "by severity, each bar a day", &bars)
}

fn chart_of(id: &str, title: &str, note: &str, bars: &Bars) -> Value {
    context! { id, title, note, bars => Value::from(Serde(bars)) }
}

/// Where a ticket is seen, when all that the address is made of is what it should be.
pub(super) fn link(row: &TicketRow, facts: &Facts) -> Option<String> {
    let base = facts.instances.get(&row.destination)?;
    let is_id = row.sys_id.len() == 32 && row.sys_id.bytes().all(|b| b.is_ascii_hexdigit());
    let is_table = !row.table.is_empty()
        && row.table.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    (is_id && is_table)
        .then(|| format!("{}/{}.do?sys_id={}", base.trim_end_matches('/'), row.table, row.sys_id))
}

/// What a ticket is called: its number, else its table.
pub(super) fn called(row: &TicketRow) -> &str {
    if row.number.is_empty() { &row.table } else { &row.number }
}

pub(super) fn state(row: &TicketRow) -> &str {
    if row.state == "opening" { "not there yet" } else { &row.state }
}

fn ticket(row: &TicketRow, facts: &Facts) -> Value {
    context! {
        number => called(row),
        link => link(row, facts),
        severity => row.severity.as_str(),
        title => row.title.as_str(),
        parties => row.parties.as_str(),
        seen => number(row.occurrences),
        state => state(row),
        whose => row.assigned_to.as_str(),
    }
}

fn ends(look: &Look) -> Vec<Value> {
    let (today, now) = (look.today(), look.status.now);
    let source = |row: &crate::store::SourceRow| {
        let (state, class) = match (&row.trouble, row.first_read_at) {
            (Some(trouble), _) => (clean(trouble), "bad"),
            (None, None) => ("nothing could be read yet".to_owned(), ""),
            (None, Some(_)) => {
                let behind = match row.behind {
                    Some(bytes) if bytes > 0 => format!(", {} bytes behind", number(bytes.cast_signed())),
                    _ => String::new(),
                };
                (format!("read {}{behind}", relative(row.last_read_at, now)), "")
            }
        };
        let today = number(today.of(&format!("source:{}", row.name), "alerts"));
        context! { name => row.name.as_str(), kind => row.kind.as_str(), state, class, today }
    };
    let destination = |row: &crate::store::DestinationRow| {
        let (state, class) = match (row.holds.first(), row.last_ok_at) {
            (Some(hold), _) => (format!("waits: {}", clean(&hold.reason)), "bad"),
            (None, Some(at)) => (format!("last success {}", relative(at, now)), ""),
            (None, None) => ("nothing was sent yet".to_owned(), ""),
        };
        let made = today.of(&format!("destination:{}", row.name), "created");
        context! { name => row.name.as_str(), kind => "ServiceNow", state, class, today => number(made) }
    };
    let overview = &look.status.overview;
    overview.sources.iter().map(source).chain(overview.destinations.iter().map(destination)).collect()
}

/// What waits, by severity, for the page *Queue*.
pub(super) fn waits(rows: &[WaitingRow], now: Timestamp) -> Vec<(Severity, String, String)> {
    let row = |row: &WaitingRow| {
        (row.severity, counted(row.count), row.oldest_at.map_or_else(String::new, |at| age(at, now)))
    };
    rows.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TicketId;

    fn row() -> TicketRow {
        TicketRow {
            folded: 0,
            id: TicketId(1),
            destination: "prod".to_owned(),
            table: "incident".to_owned(),
            number: "INC1".to_owned(),
            sys_id: "0123456789abcdef0123456789abcdef".to_owned(),
            state: "open".to_owned(),
            generation: 0,
            rule: String::new(),
            adopted: String::new(),
            not_closed: String::new(),
            opened_at: None,
            severity: Severity::Major,
            title: String::new(),
            parties: String::new(),
            occurrences: 1,
            fingerprint: String::new(),
            assigned_to: String::new(),
            close_notes: String::new(),
            correlation_id: String::new(),
        }
    }

    fn facts() -> Facts {
        Facts { instances: [("prod".to_owned(), "https://x.example/".to_owned())].into(), ..Facts::default() }
    }

    #[test]
    fn a_link_is_made_only_of_what_is_what_it_should_be() {
        let facts = facts();
        let there = "https://x.example/incident.do?sys_id=0123456789abcdef0123456789abcdef";
        assert_eq!(link(&row(), &facts).as_deref(), Some(there));
        let strange = [
            TicketRow { sys_id: "0123456789abcdef0123456789abcde&".to_owned(), ..row() },
            TicketRow { sys_id: String::new(), ..row() },
            TicketRow { table: "incident/../x".to_owned(), ..row() },
            TicketRow { destination: "other".to_owned(), ..row() },
        ];
        assert!(strange.iter().all(|row| link(row, &facts).is_none()));
    }

    #[test]
    fn what_is_tried_again_by_itself_is_no_trouble_and_is_said() {
        let told = |health: &[HealthIssue], failing: &[&str], waiting: &[&str]| {
            let failing: Vec<String> = failing.iter().map(|words| (*words).to_owned()).collect();
            let mut status = Status::new("a", Timestamp::EPOCH, crate::store::Overview::default(), None);
            (status.health, status.failing) = (health.to_vec(), failing);
            status.waiting = waiting.iter().map(|words| (*words).to_owned()).collect();
            let verdict = verdict(&status);
            ["class", "words"].map(|name| verdict.get_attr(name).unwrap().to_string())
        };
        assert_eq!(told(&[], &[], &[])[0], "good");
        let again = told(&[], &["it answered 500", "it answered\u{200b}\n502"], &[]);
        assert_eq!(again, ["good", "Tried again by itself: it answered 500; it answered 502"]);
        assert_eq!(told(&[HealthIssue::new("source", "t", "r")], &["it answered 500"], &[])[0], "warn");
        let waits = told(&[], &["it answered 500"], &["prod: 7 wait for the budget"]);
        assert_eq!(waits, ["good", "Tried again by itself: it answered 500 · prod: 7 wait for the budget"]);
    }

    #[test]
    fn a_day_counts_from_its_first_row() {
        let counts =
            |n: i64| -> Counts { [("source:eve".to_owned(), [("alerts".to_owned(), n)].into())].into() };
        let look = |days: Vec<HistoryPoint>| Look {
            status: Status::new(
                "a",
                Timestamp::from_secs(86_400 * 10 + 5),
                crate::store::Overview::default(),
                None,
            ),
            counts: counts(12),
            half_hours: Vec::new(),
            days,
            waiting: Vec::new(),
            tickets: Vec::new(),
        };
        let point = |slot, n| HistoryPoint { slot, counts: counts(n) };
        assert_eq!(look(vec![point(9, 1), point(10, 5)]).today().sum("source:", "alerts"), 7);
        assert_eq!(look(vec![point(9, 1)]).today().sum("source:", "alerts"), 0, "nothing today");
    }
}
