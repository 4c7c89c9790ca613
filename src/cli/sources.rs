//! `otrelay sources`: how far each source was read; `rewind` has one read again.
//!
//! Asks the running service, which lets only that source stand still for it; where none runs, the order is put into the
//! store, and the next start carries it out.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::ask::Asker;
use super::devices::period;
use super::human::{Listing, json, relative, span, time, width};
use super::{CliError, Exit, Outcome, Terminal, clock};
use crate::control::Question;
use crate::intake::OWN;
use crate::model::text::one_line;
use crate::model::{SourceName, Timestamp};
use crate::rules::Reason;
use crate::store::op::again::{Rewound, Wanted};
use crate::store::{ReadFile, ReadingRow, SourceRow};

/// Arguments of `otrelay sources`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SourcesArgs {
    /// Another thing to do than to list them
    #[command(subcommand)]
    pub command: Option<SourcesCommand>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `otrelay sources …`
#[derive(Subcommand, Clone, Debug)]
pub enum SourcesCommand {
    /// Read a source again from its beginning, and take in after all what was too old or passed over; what is known
    /// gets no second ticket
    Rewind(RewindArgs),
}

/// Arguments of `otrelay sources rewind`.
#[derive(Args, Clone, Debug)]
pub struct RewindArgs {
    /// Which source
    #[arg(value_name = "NAME", value_parser = source)]
    pub name: SourceName,
    /// Nothing older than this: 90m, 24h, 7d, or a time such as 2026-11-21 or 2026-11-21T08:00Z; otherwise all
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Timestamp>,
    /// Only say what would be read again
    #[arg(long)]
    pub dry_run: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn source(text: &str) -> Result<SourceName, String> {
    SourceName::new(text).map_err(|e| e.to_string())
}

/// A time, or how long ago.
fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(ago) = period(text) {
        return Ok(clock().now().before(ago));
    }
    let plain = text.trim().trim_end_matches(['z', 'Z']).replace('T', " ");
    let whole = match plain.len() {
        10 => format!("{plain} 00:00:00"),
        16 => format!("{plain}:00"),
        _ => plain,
    };
    Timestamp::from_servicenow(&whole).ok_or_else(|| {
        "expected how long ago (90m, 24h, 7d), or a time in UTC, such as 2026-11-21 or 2026-11-21T08:00Z"
            .to_owned()
    })
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    kind: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<&'a str>,
    files: &'a [ReadFile],
    file_count: u64,
    /// Bytes of its files that were read.
    read: u64,
    /// Bytes that are still to be read; absent where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    /// Bytes of the first reading, or of one that was ordered, that are still to be read.
    backlog: u64,
    records: i64,
    alerts: i64,
    /// Alerts that were older than `[sync] backfill` when it was first read.
    older: i64,
    #[serde(skip)]
    older_way: Option<String>,
    /// Alerts that a second reading took in after all.
    again: i64,
    /// Since when the last order takes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    rewound_since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_record_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_alert_at: Option<Timestamp>,
    /// Seconds since the last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    silent: Option<u64>,
}

pub(super) fn run(args: &SourcesArgs, terminal: &mut Terminal<'_>) -> Outcome {
    match &args.command {
        None => list(args.json, terminal),
        Some(SourcesCommand::Rewind(args)) => rewind(args, terminal),
    }
}

fn list(as_json: bool, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let configured: Option<Vec<(String, &str)>> = asker
        .config()
        .ok()
        .map(|config| config.sources.iter().map(|s| (s.name.to_string(), s.kind)).collect());
    let status = super::status::status(&asker)?;
    let known = &status.overview.sources;
    // Before the first start there is no store to ask.
    let readings: Vec<ReadingRow> =
        if known.is_empty() { Vec::new() } else { asker.ask(&Question::Sources)? };
    let (now, running, nothing) = (clock().now(), status.running, ReadingRow::default());
    let mut all: Vec<Shown<'_>> = Vec::new();
    for row in known.iter().filter(|row| row.kind != OWN) {
        let reading = readings.iter().find(|reading| reading.name == row.name).unwrap_or(&nothing);
        let gone = configured.as_ref().is_some_and(|all| !all.iter().any(|(name, _)| *name == row.name));
        all.push(shown(row, reading, state(row, reading, gone, running), now));
    }
    let fresh: Vec<SourceRow> = (configured.iter().flatten())
        .filter(|(name, _)| !known.iter().any(|row| row.name == *name))
        .map(|(name, kind)| SourceRow {
            name: name.clone(),
            kind: (*kind).to_owned(),
            ..SourceRow::default()
        })
        .collect();
    all.extend(fresh.iter().map(|row| shown(row, &nothing, "not read yet", now)));
    if as_json {
        return json(terminal.out, &all);
    }
    print(&all, now, terminal)?;
    Ok(Exit::Fine)
}

fn state(row: &SourceRow, reading: &ReadingRow, gone: bool, running: bool) -> &'static str {
    match row {
        _ if gone => "not in the config",
        row if row.trouble.is_some() => "trouble",
        row if row.first_read_at.is_none() => "not read yet",
        _ if reading.backlog > 0 && reading.rewound => "read again",
        _ if reading.backlog > 0 => "first read",
        _ if !running => "stopped",
        row if row.behind.is_some_and(|bytes| bytes > 0) => "behind",
        _ => "up to date",
    }
}

fn shown<'a>(row: &'a SourceRow, reading: &'a ReadingRow, state: &'static str, now: Timestamp) -> Shown<'a> {
    let last = (row.lines > 0).then_some(row.last_read_at);
    Shown {
        name: &row.name,
        kind: &row.kind,
        state,
        trouble: row.trouble.as_deref(),
        files: &reading.files,
        file_count: reading.file_count,
        read: reading.read,
        behind: row.behind,
        backlog: reading.backlog,
        records: row.lines,
        alerts: row.alerts,
        older: row.filtered.get(Reason::TooOld.as_str()).copied().unwrap_or(0),
        older_way: older_way(row),
        again: row.again,
        rewound_since: reading.since,
        last_record_at: last,
        last_alert_at: row.last_alert_at,
        silent: last.map(|last| now.since(last).as_secs()),
    }
}

fn print(all: &[Shown<'_>], now: Timestamp, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    let header = ["name", "kind", "state", "files", "read", "behind", "records", "last record", "last alert"];
    let mut listing = Listing::fitting(width(terminal), &header, &["files", "last alert"]);
    for one in all {
        let ago = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| relative(at, now));
        let (files, read) = match one.file_count {
            0 => (String::new(), String::new()),
            count => (count.to_string(), bytes(one.read)),
        };
        let behind = one.behind.map_or(String::new(), bytes);
        let (records, record, alert) =
            (one.records.to_string(), ago(one.last_record_at), ago(one.last_alert_at));
        let cells = [one.name, one.kind, one.state, &files, &read, &behind, &records, &record, &alert];
        listing.row(&cells);
    }
    listing.print(terminal.out)?;
    for one in all {
        if let Some(trouble) = one.trouble {
            writeln!(terminal.out, "{}: {}", one.name, one_line(trouble))?;
        }
        if let Some(way) = one.older_way.as_ref().filter(|_| one.older > 0) {
            let (name, count) = (one.name, one.older);
            let told = "alerts were older than [sync] backfill when it was first read";
            writeln!(terminal.out, "{name}: {count} {told}; {way}")?;
        }
        if one.again > 0 {
            writeln!(terminal.out, "{}: {} alerts were taken in after all", one.name, one.again)?;
        }
    }
    Ok(())
}

/// The way to what was older than the first reading reached; `None`: all of it was read again.
pub(super) fn older_way(row: &SourceRow) -> Option<String> {
    let way = format!("`otrelay sources rewind {}` takes", row.name);
    match (row.rewound, row.rewound_since) {
        (false, _) => Some(format!("{way} them in after all")),
        (true, Some(since)) => {
            Some(format!("what is younger than {} UTC was read again, {way} in the rest", time(since)))
        }
        (true, None) => None,
    }
}

/// `512 B`, `3.4 MiB`.
fn bytes(n: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", n as f64 / size as f64),
        None => format!("{n} B"),
    }
}

fn rewind(args: &RewindArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let wanted = Wanted { source: args.name.clone(), since: args.since, dry_run: args.dry_run };
    let rewound: Rewound = asker.ask(&Question::Rewind(wanted))?;
    if args.json {
        return json(terminal.out, &rewound);
    }
    let since = args.since.map_or("all of it".to_owned(), |at| {
        format!("what is younger than {} UTC ({})", time(at), span(clock().now().since(at)))
    });
    let files = match rewound.files.len() {
        0 => String::new(),
        1 => format!("; {} ({} were read)", rewound.files[0], bytes(rewound.bytes)),
        n => format!("; {n} files ({} were read)", bytes(rewound.bytes)),
    };
    let name = &args.name;
    let verb = match (rewound.done, asker.running) {
        (false, _) => "would be read again",
        (true, true) => "is read again",
        (true, false) => "is read again by the next start",
    };
    writeln!(terminal.out, "source {name} {verb} from its beginning: {since}{files}")?;
    counted(&rewound, terminal)?;
    writeln!(
        terminal.out,
        "  what is known gets no second ticket; what is new there waits until that is done"
    )?;
    Ok(Exit::Fine)
}

/// What is known of what will come: how much was counted, and what of it was passed over.
fn counted(rewound: &Rewound, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    let out = &mut *terminal.out;
    let is_gone = |path: &&String| {
        std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    for path in rewound.files.iter().filter(is_gone) {
        writeln!(out, "  {} is gone and is not read again", one_line(path))?;
    }
    writeln!(out, "  {} records of it were counted, {} of them alerts", rewound.records, rewound.alerts)?;
    for (reason, count) in &rewound.passed_over {
        writeln!(out, "  {count} of its alerts were not forwarded: {}", one_line(reason))?;
    }
    for (name, count) in &rewound.excluded {
        writeln!(out, "  {count} of its alerts were excluded: {}", one_line(name))?;
    }
    let most: i64 = rewound.passed_over.values().chain(rewound.excluded.values()).sum();
    writeln!(
        out,
        "  so at most {most} alerts are new, as far as rules and exclusions want them now; and what the store has \
         forgotten since"
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_how_long_ago() {
        let day = Timestamp::from_servicenow("2026-11-21 00:00:00").unwrap();
        assert_eq!(since("2026-11-21"), Ok(day));
        let eight = Timestamp::from_servicenow("2026-11-21 08:15:00").unwrap();
        assert_eq!(since("2026-11-21T08:15Z"), Ok(eight));
        assert_eq!(since("2026-11-21 08:15:00"), Ok(eight));
        let ago = clock().now().since(since("24h").unwrap()).as_secs();
        assert!((86_390..86_500).contains(&ago), "{ago}");
        for bad in ["", "Z", "yesterday", "2026-13-01", "7", "24x", "2026-11-21T08:15+01:00"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(
            [0, 1023, 1024, 3_565_158, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "3.4 MiB", "5.0 GiB"]
        );
    }
}
