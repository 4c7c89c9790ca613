//! `otrelay sync`: pushes what is due now, through the running service or itself when none runs.

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::ask::Asker;
use super::human::{json, relative};
use super::{Exit, Outcome, Terminal, begin, clock, load_as_caller, runtime, with_signals};
use crate::app;
use crate::config::Purpose;
use crate::control::Question;
use crate::relay::{DeviceReport, Planned, Report};

/// Arguments of `otrelay sync`.
#[derive(Args, Clone, Debug)]
pub struct SyncArgs {
    /// Only show what would be sent; nothing is sent, nothing is changed
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: at most so many
    #[arg(long, value_name = "N", default_value_t = 100, requires = "dry_run")]
    pub limit: usize,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(args: &SyncArgs, terminal: &mut Terminal<'_>) -> Outcome {
    // The secrets may be for root alone, and asking makes root the owner of the state directory.
    let loaded = load_as_caller(terminal, Purpose::Run);
    let asker = Asker::new(terminal)?;
    if args.dry_run {
        let plans: Vec<Planned> = if asker.running {
            asker.ask(&Question::Plan { limit: args.limit })?
        } else {
            let config = begin(loaded?, terminal)?;
            runtime()?.block_on(app::plan(config, clock(), args.limit))?
        };
        return show_plan(args, &plans, terminal);
    }
    let report: Report = if asker.running {
        asker.ask(&Question::Sync)?
    } else {
        let config = begin(loaded?, terminal)?;
        let stop = CancellationToken::new();
        runtime()?.block_on(with_signals(stop.clone(), app::push_once(config, clock(), stop)))?
    };
    show(args, &report, terminal)
}

fn show(args: &SyncArgs, report: &Report, terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        json(terminal.out, report)?;
    } else {
        writeln!(
            terminal.out,
            "{} created, {} found there already, {} to retry, {} dead",
            report.created, report.found, report.again, report.dead
        )?;
        let d = &report.devices;
        if *d != DeviceReport::default() {
            writeln!(
                terminal.out,
                "devices: {} created, {} updated, {} to retry, {} dead",
                d.created, d.updated, d.again, d.dead
            )?;
        }
        for line in &report.waiting {
            writeln!(terminal.out, "waits: {line}")?;
        }
        if let Some(at) = report.next_at {
            writeln!(terminal.out, "next try {}", relative(at, clock().now()))?;
        }
    }
    Ok(match report {
        r if r.dead + r.devices.dead > 0 => Exit::Failure,
        r if r.next_at.is_some() || !r.waiting.is_empty() => Exit::Later,
        _ => Exit::Fine,
    })
}

fn show_plan(args: &SyncArgs, plans: &[Planned], terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        json(terminal.out, &plans)?;
        return Ok(Exit::Fine);
    }
    for p in plans {
        if let Ok(fields) = &p.fields
            && let Some(payload) = fields.get("payload")
        {
            writeln!(terminal.out, "device {} → {}, {payload}", p.correlation_id, p.destination)?;
            continue;
        }
        writeln!(
            terminal.out,
            "delivery {} → {} table {}, {}",
            p.id, p.destination, p.table, p.correlation_id
        )?;
        match &p.fields {
            Ok(fields) => {
                for (field, value) in fields {
                    super::explain::field(terminal.out, field, value)?;
                }
            }
            Err(why) => writeln!(terminal.out, "  cannot be made: {why}")?,
        }
    }
    writeln!(terminal.err, "{} would be sent (first {} at most); nothing was sent", plans.len(), args.limit)?;
    Ok(Exit::Fine)
}
