//! `otrelay sync`: pushes what is due now, through the running service or itself when none runs.

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::ask::Asker;
use super::human::{fields_or_error, json};
use super::{CliError, Exit, Outcome, Terminal, begin, clock, load_as_caller, report, wait, with_signals};
use crate::app;
use crate::config::{Config, Purpose};
use crate::control::Question;
use crate::destination::Fields;
use crate::model::text::one_line;
use crate::model::{DeliveryId, DestinationName};
use crate::relay::{Planned, Report};
use crate::store::{OpenError, Reader};

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
            plan(begin(loaded?, terminal)?, args, &asker, terminal)?
        };
        return show_plan(args, &plans, terminal);
    }
    let report: Report = if asker.running {
        asker.ask(&Question::Sync)?
    } else {
        let config = begin(loaded?, terminal)?;
        let stop = CancellationToken::new();
        wait(with_signals(stop.clone(), app::push_once(config, clock(), stop)))??
    };
    show(args, &report, terminal)
}

/// What would be sent, where no service runs. Before the first start that is what the sources hold now.
fn plan(
    config: Config,
    args: &SyncArgs,
    asker: &Asker,
    terminal: &mut Terminal<'_>,
) -> Result<Vec<Planned>, CliError> {
    if !matches!(Reader::open(&asker.dir), Err(OpenError::Absent(_))) {
        return Ok(wait(app::plan(config, clock(), args.limit))??);
    }
    let dir = tempfile::Builder::new().prefix("otrelay-dry-run-").tempdir()?;
    let stop = CancellationToken::new();
    let work = app::plan_first(config, clock(), dir.path(), args.limit, stop.clone());
    let (plans, more) = wait(with_signals(stop, work))??;
    writeln!(
        terminal.err,
        "nothing was taken in so far: the sources were read for this, and nothing of it is kept"
    )?;
    for line in more {
        writeln!(terminal.err, "{}", one_line(&line))?;
    }
    Ok(plans)
}

fn show(args: &SyncArgs, report: &Report, terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        json(terminal.out, report)?;
    } else {
        let delivered = report::delivered(report, "created");
        writeln!(terminal.out, "{delivered}, {} to retry, {} dead", report.again, report.dead)?;
        report::details(report, clock().now(), terminal.out)?;
    }
    Ok(match report {
        r if r.dead + r.devices.dead > 0 => Exit::Failure,
        r if r.next_at.is_some() || !r.waiting.is_empty() => Exit::Later,
        _ => Exit::Fine,
    })
}

/// A plan as programs read it.
#[derive(Serialize)]
struct Shown {
    id: DeliveryId,
    destination: DestinationName,
    table: String,
    correlation_id: String,
    #[serde(flatten, serialize_with = "fields_or_error")]
    fields: Result<Fields, String>,
}

impl From<&Planned> for Shown {
    fn from(plan: &Planned) -> Self {
        let Planned { id, destination, table, correlation_id, fields } = plan.clone();
        Self { id, destination, table, correlation_id, fields }
    }
}

fn show_plan(args: &SyncArgs, plans: &[Planned], terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        return json(terminal.out, &plans.iter().map(Shown::from).collect::<Vec<_>>());
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
