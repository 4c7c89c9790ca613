//! What stands where on the screen of `otrelay top`, for any size of it. What is cut off is said.
//!
//! Words first, colours beside them: nothing is told by a colour alone.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;

use super::Known;
use crate::cli::human::{relative, span};
use crate::model::text::one_line;
use crate::model::{Severity, Timestamp};
use crate::store::{DestinationRow, SourceRow, SyncRow};

/// A line of the screen.
type Row = (String, Style);

/// Rows under one heading.
struct Section {
    heading: String,
    rows: Vec<Row>,
    /// Rows that it gets before others get more.
    least: usize,
}

const PLAIN: Style = Style::new();
const HEAD: Style = Style::new().add_modifier(Modifier::BOLD);

pub(super) fn draw(frame: &mut Frame<'_>, known: &Known, now: Timestamp) {
    let area = frame.area();
    let mut rows = head(known, now);
    let room = usize::from(area.height).saturating_sub(rows.len());
    rows.extend(fit(sections(known, now), room));
    for (y, (text, style)) in (area.top()..area.bottom()).zip(rows) {
        let style = if known.colours { style } else { Style { fg: None, ..style } };
        let line = Line::styled(one_line(&text).into_owned(), style);
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// What has to be seen however small the terminal is.
fn head(known: &Known, now: Timestamp) -> Vec<Row> {
    let status = &known.glance.status;
    let health = match status.health.len() {
        0 => "fine".to_owned(),
        1 => "1 thing needs a person".to_owned(),
        n => format!("{n} things need a person"),
    };
    let title = format!("otrelay {} on {}: {health}    (q ends)", status.version, status.agent);
    let title_style = if status.health.is_empty() { HEAD } else { HEAD.fg(Color::Red) };
    let mut rows = vec![(title, title_style)];
    if let Some(trouble) = &known.trouble {
        rows.push((format!("no answer: {trouble}"), PLAIN.fg(Color::Red)));
        rows.push((format!("what follows is from {}", relative(status.now, now)), PLAIN));
    }
    let next = match status.next_sync_at {
        _ if status.syncing => "sync runs now".to_owned(),
        Some(at) if at > now => format!("next sync in {}", clock(at.since(now).as_secs())),
        Some(_) => "next sync now".to_owned(),
        None => "no sync is planned".to_owned(),
    };
    let o = &status.overview;
    let last = o.last_sync.as_ref().map_or("none so far".to_owned(), |sync| last(sync, now));
    rows.push((format!("{next}; last {last}"), PLAIN));
    let again = status.failing.iter().map(|words| (format!("tried again by itself: {words}"), PLAIN));
    rows.extend(again);
    let oldest = o.oldest_pending_at.filter(|_| o.backlog > 0);
    let oldest = oldest.map_or(String::new(), |at| format!(", the first for {}", span(now.since(at))));
    let waiting = format!("backlog {} waiting{oldest}, {} dead", o.backlog, o.dead);
    rows.push((waiting, if o.dead > 0 { PLAIN.fg(Color::Red) } else { PLAIN }));
    rows.extend(status.waiting.iter().map(|words| (words.clone(), PLAIN)));
    rows
}

fn last(sync: &SyncRow, now: Timestamp) -> String {
    let SyncRow { created, found, again, dead, started_at, .. } = sync;
    format!("{}: {created} created, {found} found, {again} to retry, {dead} dead", relative(*started_at, now))
}

/// `4:05`, `1:04:05`.
fn clock(secs: u64) -> String {
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    if h > 0 { format!("{h}:{m:02}:{s:02}") } else { format!("{m}:{s:02}") }
}

fn sections(known: &Known, now: Timestamp) -> Vec<Section> {
    let status = &known.glance.status;
    let mut all = Vec::new();
    let mut add = |heading: String, least: usize, rows: Vec<Row>| {
        if !rows.is_empty() {
            all.push(Section { heading, rows, least });
        }
    };
    let told = |issue: &crate::model::HealthIssue| {
        [(format!("! {}", issue.told()), PLAIN.fg(Color::Red)), (format!("  {}", issue.remedy), PLAIN)]
    };
    add("NEEDS A PERSON".to_owned(), 4, status.health.iter().flat_map(told).collect());
    let heading = format!(
        "{:16} {:>9} {:>10} {:>9} {:>9}  LAST READ",
        "SOURCE", "LINES/MIN", "ALERTS/MIN", "ALERTS", "FINDINGS"
    );
    add(heading, 2, status.overview.sources.iter().map(|s| source(s, known, now)).collect());
    let heading = format!(
        "{:16} {:>9} {:>6} {:>10} {:>13}  LAST SUCCESS",
        "DESTINATION", "WAITING", "DEAD", "DELIVERED", "REQUESTS/HOUR"
    );
    add(heading, 2, status.overview.destinations.iter().map(|d| destination(d, now)).collect());
    let alerts = known.glance.alerts.iter().filter_map(|row| {
        let alert = row.alert.as_ref()?;
        let text = format!(
            "{} {:8} {:12} {}  {}",
            hour(row.last_seen_at),
            alert.severity,
            row.source,
            alert.title,
            alert.parties()
        );
        Some((text, of(alert.severity)))
    });
    add("LAST ALERTS (forwarded)".to_owned(), 3, alerts.collect());
    let tickets = known.glance.tickets.iter().map(|t| {
        let number = if t.number.is_empty() { "(not there yet)" } else { &t.number };
        (format!("{number:15} {:9} {:8} {}", t.state, t.severity, t.title), of(t.severity))
    });
    add("LAST TICKETS".to_owned(), 3, tickets.collect());
    all
}

fn source(s: &SourceRow, known: &Known, now: Timestamp) -> Row {
    let (lines, alerts) = known.rates(&s.name);
    let behind = s.behind.filter(|bytes| *bytes > 0);
    let behind = behind.map_or(String::new(), |bytes| format!(", {bytes} bytes unread"));
    let text = format!(
        "{:16} {lines:>9} {alerts:>10} {:>9} {:>9}  {}{behind}",
        cut(&s.name),
        s.alerts,
        s.new,
        relative(s.last_read_at, now)
    );
    (text, if s.trouble.is_some() { PLAIN.fg(Color::Red) } else { PLAIN })
}

fn destination(d: &DestinationRow, now: Timestamp) -> Row {
    let get = |name: &str| d.counts.get(name).copied().unwrap_or(0);
    let last = d.last_ok_at.map_or("never".to_owned(), |at| relative(at, now));
    let holds = if d.holds.is_empty() { "" } else { ", on hold" };
    let text = format!(
        "{:16} {:>9} {:>6} {:>10} {:>13}  {last}{holds}",
        cut(&d.name),
        get("pending") + get("claimed"),
        get("dead"),
        get("delivered"),
        d.requests_this_hour
    );
    (text, if d.holds.is_empty() { PLAIN } else { PLAIN.fg(Color::Yellow) })
}

/// Names stay in their column.
fn cut(name: &str) -> String {
    let mut short: String = name.chars().take(16).collect();
    if short.len() < name.len() {
        short.pop();
        short.push('…');
    }
    short
}

fn hour(at: Timestamp) -> String {
    at.servicenow().get(11..19).unwrap_or_default().to_owned()
}

fn of(severity: Severity) -> Style {
    match severity {
        Severity::Critical => PLAIN.fg(Color::Red),
        Severity::Major => PLAIN.fg(Color::Yellow),
        _ => PLAIN,
    }
}

/// As much of the sections as there is room for: each its heading and its least first, then what is left from the top
/// down. A section that is cut says how many rows it has not shown.
fn fit(sections: Vec<Section>, room: usize) -> Vec<Row> {
    let mut given: Vec<usize> = Vec::new();
    let mut left = room;
    for section in &sections {
        // A blank line, the heading, and at least one row: otherwise nothing of it.
        let rows = section.least.min(section.rows.len()).min(left.saturating_sub(2));
        left -= if rows == 0 { 0 } else { rows + 2 };
        given.push(rows);
    }
    for (rows, section) in given.iter_mut().zip(&sections) {
        let more = section.rows.len().saturating_sub(*rows).min(left);
        if *rows > 0 {
            (*rows, left) = (*rows + more, left - more);
        }
    }
    let mut all = Vec::new();
    for (rows, section) in given.into_iter().zip(sections) {
        if rows == 0 {
            continue;
        }
        let hidden = section.rows.len() - rows;
        let more = if hidden > 0 { format!("   ({hidden} more rows)") } else { String::new() };
        all.push((String::new(), PLAIN));
        all.push((format!("{}{more}", section.heading), HEAD));
        all.extend(section.rows.into_iter().take(rows));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use tokio::time::Instant;

    use super::*;
    use crate::control::Glance;
    use crate::model::{Alert, HealthIssue};
    use crate::status::{Live, Status};
    use crate::store::{AlertRow, Overview};

    fn known(health: usize) -> Known {
        let now = Timestamp::from_secs(1_795_000_000);
        let source = |name: &str, trouble: Option<&str>| SourceRow {
            name: name.to_owned(),
            lines: 1200,
            alerts: 300,
            new: 20,
            last_read_at: now,
            trouble: trouble.map(str::to_owned),
            ..SourceRow::default()
        };
        let destination = DestinationRow {
            name: "prod".to_owned(),
            counts: [("pending".to_owned(), 7), ("dead".to_owned(), 1)].into(),
            last_ok_at: Some(now),
            last_error_at: None,
            last_error: None,
            holds: Vec::new(),
            requests_this_hour: 12,
            spent: None,
        };
        let overview = Overview {
            sources: vec![source("eve", None), source("a-very-long-name-of-a-source", Some("gone"))],
            destinations: vec![destination],
            backlog: 7,
            ..Overview::default()
        };
        let live = Live { next_sync_at: Some(Timestamp::from_secs(1_795_000_065)), ..Live::default() };
        let mut status = Status::new("cell-7", now, overview, Some(live));
        status.health =
            (0..health).map(|n| HealthIssue::new("source", format!("trouble {n}"), "mend it")).collect();
        let alert = |n: i64| AlertRow {
            id: n,
            fingerprint: String::new(),
            source: "eve".to_owned(),
            occurrences: 1,
            first_seen_at: now,
            last_seen_at: now,
            alert: Some(Alert::sample(&format!("find\u{1b}[2Jing {n}"), Severity::Critical, now)),
        };
        Known {
            glance: Glance { status, alerts: (0..8).map(alert).collect(), tickets: Vec::new() },
            at: Instant::now(),
            before: VecDeque::from([
                (now.before(std::time::Duration::from_secs(30)), [("eve".to_owned(), (600, 290))].into()),
                (now, [("eve".to_owned(), (1200, 300))].into()),
            ]),
            trouble: None,
            colours: true,
        }
    }

    fn screen(known: &Known, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let now = known.glance.status.now.after(std::time::Duration::from_secs(5));
        terminal.draw(|frame| draw(frame, known, now)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    #[test]
    fn what_matters_is_there_at_80_by_24() {
        let rows = screen(&known(0), 80, 24);
        let text = rows.join("\n");
        assert!(rows[0].starts_with("otrelay ") && rows[0].contains("on cell-7: fine"), "{text}");
        assert!(rows[1].starts_with("next sync in 1:00; last none so far"), "{text}");
        assert!(rows[2].starts_with("backlog 7 waiting"), "{text}");
        let eve = rows.iter().find(|row| row.starts_with("eve ")).unwrap();
        let cells: Vec<&str> = eve.split_whitespace().collect();
        assert_eq!(cells[1..5], ["1200", "20", "300", "20"], "{text}");
        assert!(text.contains("a-very-long-nam…") && text.contains("DESTINATION"), "{text}");
        assert!(text.contains("find[2Jing 0") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn what_is_cut_is_said_and_no_size_is_too_small() {
        let known = known(9);
        let rows = screen(&known, 80, 24).join("\n");
        assert!(rows.contains("9 things need a person") && rows.contains("more rows)"), "{rows}");
        assert!(rows.contains("! trouble 0") && rows.contains("DESTINATION"), "{rows}");
        for (width, height) in [(1, 1), (10, 3), (20, 5), (40, 12), (300, 100)] {
            screen(&known, width, height);
        }
        let all = screen(&known, 120, 80).join("\n");
        assert!(all.contains("! trouble 8") && !all.contains("more rows"), "{all}");
    }

    #[test]
    fn what_is_tried_again_by_itself_is_said() {
        let mut known = known(0);
        known.glance.status.failing = vec!["it answered \u{1b}[2J500".to_owned()];
        let rows = screen(&known, 80, 24);
        assert_eq!(rows[2], "tried again by itself: it answered [2J500");
        assert!(rows[3].starts_with("backlog 7 waiting"), "{rows:?}");
    }

    #[test]
    fn what_waits_for_a_budget_is_said_below_the_backlog() {
        let mut known = known(0);
        known.glance.status.waiting = vec!["prod: 7 wait for the budget: \u{1b}[2J60 were made".to_owned()];
        let rows = screen(&known, 80, 24);
        assert_eq!(rows[3], "prod: 7 wait for the budget: [2J60 were made", "{rows:?}");
    }

    #[test]
    fn a_service_that_is_gone_is_said_over_what_was_known() {
        let mut known = known(0);
        known.learn(Err(crate::cli::CliError::Words("no service answers".to_owned())));
        let rows = screen(&known, 80, 24);
        assert_eq!(rows[1], "no answer: no service answers");
        assert_eq!(rows[2], "what follows is from 5 s ago");
    }
}
