//! `otrelay status`: how things are. A few lines when all is fine, what needs a person first when not.

use std::io::Write;

use clap::Args;

use super::ask::Asker;
use super::human::{json, relative, span, time};
use super::sources::older_way;
use super::{CliError, Exit, Outcome, Terminal, clock};
use crate::control::Question;
use crate::control::client::{AskError, ask};
use crate::model::text::{lines, one_line};
use crate::rules::Reason;
use crate::servicenow;
use crate::status::{self, Status};
use crate::store::{DestinationRow, OpenError, Overview, Reader, SourceRow};

/// Arguments of `otrelay status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Everything, as JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &StatusArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let status = status(&asker)?;
    if args.json {
        json(terminal.out, &status)?;
    } else {
        // What a socket says that is not the service's must not talk to the terminal either.
        let mut text = Vec::new();
        print(&status, &mut text)?;
        terminal.out.write_all(lines(&String::from_utf8_lossy(&text)).as_bytes())?;
    }
    Ok(Exit::Fine)
}

pub(super) fn status(asker: &Asker) -> Result<Status, CliError> {
    if asker.running {
        match ask(&asker.socket, &Question::Status) {
            Err(AskError::NotRunning(_)) => {}
            answer => return Ok(serde_json::from_value(answer?).map_err(AskError::Strange)?),
        }
    }
    let overview = match Reader::open(&asker.dir) {
        Ok(reader) => reader.overview()?,
        Err(OpenError::Absent(_)) => Overview::default(),
        Err(e) => return Err(e.into()),
    };
    let (config, now) = (asker.config()?, clock().now());
    let mut status = Status::new(&config.agent.name, now, overview, None);
    status.sync_off = !config.relay.enabled;
    status.health.extend(status::off(status.sync_off, &status.overview));
    // A running service says it by itself.
    let concerns = config.destinations.iter().filter_map(|d| servicenow::login_concern(d, now));
    status.health.extend(concerns);
    Ok(status)
}

fn print(s: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let now = s.now;
    let o = &s.overview;
    let service = if s.running { "running" } else { "not running" };
    writeln!(out, "otrelay {} on {}: {service}", s.version, s.agent)?;
    if let Some(id) = &o.agent_id {
        writeln!(out, "identity     {id}")?;
    }
    for a in &s.health {
        writeln!(out, "  ! {}", one_line(&a.told()))?;
        if !a.remedy.is_empty() {
            writeln!(out, "    {}", one_line(&a.remedy))?;
        }
    }
    match &o.last_sync {
        Some(sync) => writeln!(
            out,
            "last sync    {} UTC ({}): {} created, {} found, {} to retry, {} dead",
            time(sync.started_at),
            relative(sync.started_at, now),
            sync.created,
            sync.found,
            sync.again,
            sync.dead
        )?,
        None => writeln!(out, "last sync    never")?,
    }
    for words in &s.failing {
        writeln!(out, "             tried again by itself: {}", one_line(words))?;
    }
    match s.next_sync_at {
        _ if s.sync_off => writeln!(out, "next sync    none: `enabled = false` in [sync]")?,
        _ if s.syncing => writeln!(out, "next sync    running now")?,
        Some(at) => writeln!(out, "next sync    {} UTC ({})", time(at), relative(at, now))?,
        None => {}
    }
    let oldest = o.oldest_pending_at.filter(|_| o.backlog > 0);
    let oldest = oldest.map_or(String::new(), |at| format!(", the first for {}", span(now.since(at))));
    writeln!(out, "backlog      {} waiting{oldest}, {} dead", o.backlog, o.dead)?;
    for words in &s.waiting {
        writeln!(out, "             {}", one_line(words))?;
    }
    if o.folded > 0 {
        let (findings, have) = if o.folded == 1 { ("finding", "has") } else { ("findings", "have") };
        writeln!(
            out,
            "storms       {} {findings} {have} no ticket of their own but the parent's of a storm (max_tickets_per_hour)",
            o.folded
        )?;
    }
    if o.devices.known > 0 {
        let last = o.devices.last_sync.map_or("never".to_owned(), |at| relative(at, now));
        writeln!(
            out,
            "devices      {} known, {} changed, last sync {last}",
            o.devices.known, o.devices.changed
        )?;
    }
    o.sources.iter().try_for_each(|source| print_source(source, s, out))?;
    o.destinations.iter().try_for_each(|destination| print_destination(destination, s, out))
}

fn print_source(r: &SourceRow, s: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "source       {} ({}): {} lines, {} alerts ({} findings, {} repeats), last read {}",
        r.name,
        r.kind,
        r.lines,
        r.alerts,
        r.new,
        r.repeats,
        relative(r.last_read_at, s.now)
    )?;
    if let Some(bytes) = r.behind.filter(|bytes| *bytes > 0) {
        writeln!(out, "             {bytes} bytes of its files are not read yet")?;
    }
    for (reason, count) in &r.filtered {
        writeln!(out, "             {count} not forwarded: {reason}")?;
        if let Some(way) = older_way(r).filter(|_| reason == Reason::TooOld.as_str()) {
            writeln!(out, "             ({way})")?;
        }
    }
    if r.again > 0 {
        writeln!(out, "             {} of its alerts were read again and taken in after all", r.again)?;
    }
    for (name, count) in &r.excluded {
        writeln!(out, "             {count} excluded: {name}")?;
    }
    if r.cleared > 0 {
        writeln!(out, "             {} cleared at the source", r.cleared)?;
    }
    let ignored: i64 = r.ignored.values().sum();
    if ignored > 0 {
        let kinds: Vec<&str> = r.ignored.keys().map(String::as_str).collect();
        writeln!(out, "             {ignored} no alerts: {}", kinds.join(", "))?;
    }
    for (reason, count) in &r.rejected {
        writeln!(out, "             {count} rejected: {reason}")?;
    }
    if r.unauthenticated > 0 {
        writeln!(out, "             {} alerts from senders that are not authenticated", r.unauthenticated)?;
    }
    Ok(())
}

fn print_destination(d: &DestinationRow, s: &Status, out: &mut dyn Write) -> std::io::Result<()> {
    let get = |name: &str| d.counts.get(name).copied().unwrap_or(0);
    let last = d.last_ok_at.map_or("never".to_owned(), |at| relative(at, s.now));
    writeln!(
        out,
        "destination  {}: {} delivered, {} waiting, {} dead, {} requests this hour, last success {last}",
        d.name,
        get("delivered"),
        get("pending") + get("claimed"),
        get("dead"),
        d.requests_this_hour
    )
}
