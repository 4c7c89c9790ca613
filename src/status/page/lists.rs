//! The pages that are tables: alerts, tickets, queue, health. Rows of the store in, cells out. Pure.

use serde::Serialize;

use super::Facts;
use super::views::{called, link, state, waits};
use super::words::{clean, clock, number};
use crate::model::codes::Code;
use crate::model::{Alert, Timestamp};
use crate::status::Status;
use crate::store::{AlertRow, DeliveryRow, DeviceRow, FilteredRow, RejectRow, TicketRow, WaitingRow};

#[derive(Debug, Default, Serialize)]
pub(super) struct Cell {
    text: String,
    class: &'static str,
    /// A second line.
    more: String,
    link: Option<String>,
    /// Something to type.
    code: bool,
}

#[derive(Debug, Serialize)]
struct Column {
    name: &'static str,
    class: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Table {
    id: &'static str,
    title: &'static str,
    note: String,
    /// Instead of rows.
    none: &'static str,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    fn new(id: &'static str, title: &'static str, none: &'static str, columns: &[&'static str]) -> Self {
        // Numbers stand to the right.
        let column =
            |name: &&'static str| Column { name, class: if NUMBERS.contains(name) { "n" } else { "" } };
        let columns = columns.iter().map(column).collect();
        Self { id, title, note: String::new(), none, columns, rows: Vec::new() }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    fn rows(mut self, rows: impl Iterator<Item = Vec<Cell>>) -> Self {
        self.rows = rows.collect();
        self
    }
}

const NUMBERS: [&str; 8] = ["Seen", "How many", "Tries", "Records", "Alerts", "New", "Repeats", "Requests"];

fn cell(text: impl AsRef<str>) -> Cell {
    Cell { text: clean(text.as_ref()), ..Cell::default() }
}

fn wide(text: impl AsRef<str>, more: impl AsRef<str>) -> Cell {
    Cell { class: "wide", more: clean(more.as_ref()), ..cell(text) }
}

fn n(n: i64) -> Cell {
    Cell { class: "n", ..cell(number(n)) }
}

fn severity(severity: crate::model::Severity) -> Cell {
    let class = ["sev warning", "sev minor", "sev major", "sev critical"][severity as usize];
    Cell { class, ..cell(severity.as_str()) }
}

fn command(text: String) -> Cell {
    Cell { code: true, ..cell(text) }
}

/// Findings, what was not forwarded, what was not understood.
pub(super) fn alerts(
    found: &[AlertRow],
    filtered: &[FilteredRow],
    rejected: &[RejectRow],
    now: Timestamp,
) -> Vec<Table> {
    let finding = |row: &AlertRow| {
        let alert = row.alert.as_ref();
        let title = alert.map_or("(damaged)", |alert| alert.title.as_str());
        vec![
            cell(clock(row.last_seen_at, now)),
            alert.map_or_else(Cell::default, |alert| severity(alert.severity)),
            wide(title, alert.map(Alert::parties).unwrap_or_default()),
            cell(&row.source),
            n(row.occurrences),
        ]
    };
    let sample = |row: &FilteredRow| {
        let what = wide(&row.title, &row.parties);
        vec![cell(clock(row.at, now)), severity(row.severity), what, cell(&row.source), wide(&row.reason, "")]
    };
    let reject = |row: &RejectRow| {
        vec![cell(clock(row.at, now)), cell(&row.source), cell(&row.reason), wide(&row.detail, &row.sample)]
    };
    vec![
        Table::new(
            "findings",
            "Newest findings",
            "None yet.",
            &["Last seen", "Severity", "What", "Source", "Seen"],
        )
        .note("what the rules forward")
        .rows(found.iter().map(finding)),
        Table::new(
            "filtered",
            "Recently not forwarded",
            "None yet.",
            &["Seen at", "Severity", "What", "Source", "Why"],
        )
        .note("a few of each reason")
        .rows(filtered.iter().map(sample)),
        Table::new("rejected", "Recently not understood", "None.", &["Read at", "Source", "Why", "What"])
            .rows(rejected.iter().map(reject)),
    ]
}

pub(super) fn devices(rows: &[DeviceRow], status: &Status, now: Timestamp) -> Vec<Table> {
    let row = |row: &DeviceRow| {
        let d = &row.view.device;
        let or_nothing = |text: &Option<String>| text.clone().unwrap_or_default();
        let address = d.ips.first().map(ToString::to_string).unwrap_or_default();
        let mac = d.macs.first().cloned().unwrap_or_default();
        let name =
            d.name.clone().unwrap_or_else(|| if address.is_empty() { mac.clone() } else { address.clone() });
        let level = d.level().map(|level| format!("level {level}")).unwrap_or_default();
        let told = match (row.told_at, row.changed.is_empty()) {
            (None, _) => "not told",
            (Some(_), true) => "told",
            (Some(_), false) => "changes wait",
        };
        vec![
            wide(name, or_nothing(&d.kind)),
            wide(address, mac),
            wide(or_nothing(&d.vendor), or_nothing(&d.model)),
            wide(or_nothing(&d.zone), level),
            wide(d.protocols.join(", "), ""),
            cell(clock(row.seen_at, now)),
            Cell { more: clean(&row.class), ..cell(told) },
        ]
    };
    let known = status.overview.devices.known;
    let columns = ["Device", "Address", "Vendor", "Zone", "Protocols", "Last seen", "CMDB"];
    vec![
        Table::new("devices", "Devices", "None yet.", &columns)
            .note(format!(
                "{} of {} known; who talks to whom: otrelay devices graph",
                rows.len(),
                number(known)
            ))
            .rows(rows.iter().map(row)),
    ]
}

pub(super) fn tickets(rows: &[TicketRow], facts: &Facts, now: Timestamp) -> Vec<Table> {
    let row = |row: &TicketRow| {
        vec![
            Cell { link: link(row, facts), more: clean(&row.table), ..cell(called(row)) },
            severity(row.severity),
            wide(&row.title, &row.parties),
            n(row.occurrences),
            Cell { more: clean(&row.assigned_to), ..cell(state(row)) },
            cell(row.opened_at.map_or_else(String::new, |at| clock(at, now))),
            cell(&row.destination),
            wide(&row.rule, ""),
        ]
    };
    let columns = ["Ticket", "Severity", "What", "Seen", "State", "Made", "Destination", "Rule"];
    vec![Table::new("tickets", "Newest tickets", "None yet.", &columns).rows(rows.iter().map(row))]
}

/// What waits, what is next, what needs a person.
pub(super) fn queue(
    waiting: &[WaitingRow],
    dead: &[DeliveryRow],
    next: &[DeliveryRow],
    status: &Status,
) -> Vec<Table> {
    let now = status.now;
    let dead_row = |row: &DeliveryRow| {
        vec![
            severity(row.severity),
            wide(&row.title, row.reason.as_deref().unwrap_or("no reason was given")),
            cell(format!("{}, {}", row.destination, row.table)),
            n(i64::from(row.attempts)),
            command(format!("otrelay queue retry {}", row.id)),
        ]
    };
    let next_row = |row: &DeliveryRow| {
        vec![
            severity(row.severity),
            wide(&row.title, row.reason.as_deref().unwrap_or_default()),
            cell(format!("{}, {}", row.destination, row.table)),
            n(i64::from(row.attempts)),
            cell(clock(row.due_at, now)),
        ]
    };
    let backlog = format!("Backlog {}", number(status.overview.backlog));
    let wait = waits(waiting, now)
        .into_iter()
        .map(|(level, many, oldest)| vec![severity(level), Cell { class: "n", ..cell(many) }, cell(oldest)]);
    vec![
        Table::new(
            "dead",
            "Dead letters",
            "None: nothing was refused.",
            &["Severity", "What, and the other side’s words", "Where", "Tries", "Once mended"],
        )
        .note(number(status.overview.dead))
        .rows(dead.iter().map(dead_row)),
        Table::new("waiting", "What waits", "Nothing waits.", &["Severity", "How many", "Oldest"])
            .note(backlog)
            .rows(wait),
        Table::new(
            "next",
            "Next to be sent",
            "Nothing waits.",
            &["Severity", "What", "Where", "Tries", "Due"],
        )
        .rows(next.iter().map(next_row)),
    ]
}

/// What needs a person, sources and destinations in full, the store.
pub(super) fn health(status: &Status, facts: &Facts) -> Vec<Table> {
    let (now, overview) = (status.now, &status.overview);
    let issue = |issue: &crate::model::HealthIssue| {
        let number = Code::of(&issue.code).map_or("", |code| code.number);
        let command =
            command(format!("otrelay help {}", if number.is_empty() { &issue.code } else { number }));
        vec![command, wide(issue.told(), &issue.remedy)]
    };
    let source = |row: &crate::store::SourceRow| {
        let state = row.trouble.as_deref().unwrap_or("well");
        vec![
            cell(&row.name),
            cell(&row.kind),
            Cell { class: if row.trouble.is_some() { "wide bad" } else { "wide" }, ..cell(state) },
            n(row.lines),
            n(row.alerts),
            n(row.new),
            n(row.repeats),
            cell(clock(row.last_read_at, now)),
        ]
    };
    let destination = |row: &crate::store::DestinationRow| {
        let holds: Vec<String> =
            row.holds.iter().map(|hold| format!("{} {}", hold.table, hold.reason)).collect();
        let limit = facts.budgets.get(&row.name).map(|limit| format!("of {}", number(i64::from(*limit))));
        vec![
            cell(&row.name),
            wide(
                match (&row.spent, holds.as_slice()) {
                    (Some(spent), []) if spent.until_at > now => format!("waits: {}", spent.reason),
                    (_, []) => "well".to_owned(),
                    _ => format!("waits: {}", holds.join("; ")),
                },
                "",
            ),
            cell(row.last_ok_at.map_or_else(String::new, |at| clock(at, now))),
            wide(
                row.last_error_at.map_or_else(String::new, |at| clock(at, now)),
                row.last_error.as_deref().unwrap_or_default(),
            ),
            Cell { more: limit.unwrap_or_default(), ..n(row.requests_this_hour) },
        ]
    };
    let store = [
        ("Version", status.version.clone()),
        ("Identity", overview.agent_id.clone().unwrap_or_default()),
        ("Database", format!("{} KiB", number((overview.bytes / 1024) as i64))),
        ("Alerts given up for room", number(overview.shed)),
        ("Made anew after damage", number(overview.repairs.len() as i64)),
    ];
    vec![
        Table::new("issues", "What needs a person", "Nothing.", &["Code", "What, and what to do"])
            .rows(status.health.iter().map(issue)),
        Table::new(
            "sources",
            "Sources",
            "None.",
            &["Name", "Kind", "State", "Records", "Alerts", "New", "Repeats", "Last"],
        )
        .rows(overview.sources.iter().map(source)),
        Table::new(
            "destinations",
            "Destinations",
            "None yet.",
            &["Name", "State", "Last success", "Last failure", "Requests"],
        )
        .rows(overview.destinations.iter().map(destination)),
        Table::new("agent", "This agent", "", &["What", "Value"])
            .rows(store.into_iter().map(|(name, value)| vec![cell(name), wide(value, "")])),
    ]
}
