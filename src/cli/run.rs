//! `otrelay run`: the service, or with `--once` one pass over what the file sources hold.

use std::convert::Infallible;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::ask::runtime_dir;
use super::check::{Examined, examine};
use super::{CliError, Exit, Outcome, Terminal, clock, load, report, wait, with_signals};
use crate::app::{self, Once, Reread, Surroundings};
use crate::config::{Environment, Purpose};
use crate::model::text::one_line;
use crate::model::trouble;
use crate::relay::{Progress, Report};
use crate::rules::Reason;
use crate::rules::template::check_template;
use crate::status::Notifier;
use crate::store::{Overview, SourceRow};

/// Arguments of `otrelay run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Take in what the file sources hold, sync once, and end: 0 when all is delivered, 75 when something still waits,
    /// 1 when there are dead letters or no source could be read
    #[arg(long)]
    pub once: bool,
}

/// Fewest open files that it works with: the database, a few followed files, the connections of a sync. Below that it would
/// fail at odd places.
const FILES_LEAST: u64 = 64;
/// What the unit gives it (`LimitNOFILE=`).
const FILES_GOOD: u64 = 4096;

pub(super) fn run(args: &RunArgs, terminal: &mut Terminal<'_>) -> Outcome {
    enough_files()?;
    let config = load(terminal)?;
    let stop = CancellationToken::new();
    if args.once {
        let sources: Vec<(String, bool)> =
            config.sources.iter().map(|source| (source.name.to_string(), source.input.listens())).collect();
        let backfill = config.intake.backfill;
        let bar = progress_bar();
        let Once { report, before, overview } = wait(async {
            let watch = |progress| follow(&bar, progress);
            with_signals(stop.clone(), app::once(config, clock(), watch, stop)).await
        })??;
        bar.finish_and_clear();
        let unread = unread(&sources, &overview, terminal)?;
        let older = too_old(&overview) - too_old(&before);
        if older > 0 {
            writeln!(
                terminal.err,
                "{older} {} older than `backfill = \"{backfill}\"`: counted, shown by `otrelay alerts --filtered`, and \
                 not forwarded",
                if older == 1 { "alert is" } else { "alerts are" }
            )?;
        }
        return account(&report, &overview, terminal).map(|exit| exit.or_failed(unread));
    }
    let socket = app::socket(&config.store.dir, runtime_dir(terminal).as_deref());
    let surroundings = Surroundings {
        clock: clock(),
        socket,
        notifier: notifier(&terminal.environment),
        watchdog: watchdog(&terminal.environment),
        stop: stop.clone(),
        hangup: Arc::default(),
        reread: reread(terminal.environment.clone()),
    };
    let hangup = Arc::clone(&surroundings.hangup);
    wait(with_signals(stop, with_hangup(hangup, app::serve(config, surroundings))))??;
    Ok(Exit::Fine)
}

/// Raises a limit of open files that is too low, as far as the hard one lets it.
fn enough_files() -> Result<(), CliError> {
    let limit = getrlimit(Resource::Nofile);
    let enough = |files: Option<u64>| files.is_none_or(|files| files >= FILES_LEAST);
    if enough(limit.current) {
        return Ok(());
    }
    let most = limit.maximum.map_or(FILES_GOOD, |hard| hard.min(FILES_GOOD));
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if enough(Some(most)) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(CliError::Words(format!(
        "only {most} open files are allowed, at least {FILES_LEAST} are needed: LimitNOFILE={FILES_GOOD} in the unit, or \
         ulimit -n {FILES_GOOD} before the command"
    )))
}

/// Runs `work`; each SIGHUP that comes meanwhile is passed on, from before the store is opened: unheard, it would end
/// the process.
async fn with_hangup<T>(hangup: Arc<Notify>, work: impl Future<Output = T>) -> T {
    use tokio::signal::unix::{SignalKind, signal};
    let passed_on = async {
        if let Ok(mut signals) = signal(SignalKind::hangup()) {
            while signals.recv().await.is_some() {
                hangup.notify_one();
            }
        }
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        never = passed_on => match never {},
        result = work => result,
    }
}

/// Reads the config again, by the same way as `otrelay check`.
pub(super) fn reread(environment: Environment) -> Reread {
    Arc::new(move || {
        let Examined { config, problems, .. } = examine(&environment, Purpose::Run, check_template);
        match config {
            Some(config) => Ok((config, problems)),
            None => Err(problems),
        }
    })
}

/// The way to systemd, where it said one.
fn notifier(environment: &Environment) -> Notifier {
    let Some(address) = (environment.variables)("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else {
        return Notifier::default();
    };
    Notifier::connect(address.as_ref()).unwrap_or_else(|e| {
        tracing::warn!("systemd cannot be told anything: nobody listens at NOTIFY_SOCKET={address}: {e}");
        Notifier::default()
    })
}

/// How long systemd waits for a sign of life, where it waits for one from this process.
fn watchdog(environment: &Environment) -> Option<Duration> {
    let number = |name: &str| (environment.variables)(name)?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|limit| *limit > 0).map(Duration::from_micros)
}

/// Alerts that were not forwarded for their age, so far.
fn too_old(overview: &Overview) -> i64 {
    let of = |row: &SourceRow| row.filtered.get(Reason::TooOld.as_str()).copied().unwrap_or(0);
    overview.sources.iter().map(of).sum()
}

/// Says what is wrong with sources (name, and whether it listens); whether nothing could be read of any.
fn unread(
    sources: &[(String, bool)],
    overview: &Overview,
    terminal: &mut Terminal<'_>,
) -> std::io::Result<bool> {
    let mut unread = 0;
    for (name, listens) in sources {
        if *listens {
            unread += 1;
            writeln!(
                terminal.err,
                "source {name}: it listens, and only the service does that: nothing of it is read"
            )?;
            continue;
        }
        let row = overview.sources.iter().find(|row| row.name == *name);
        if let Some(trouble) = row.and_then(|row| row.trouble.as_ref()) {
            unread += usize::from(trouble::is_unread(trouble));
            writeln!(terminal.err, "source {name}: {}", one_line(trouble))?;
        }
    }
    Ok(unread == sources.len())
}

/// What is left decides the exit code.
fn account(report: &Report, overview: &Overview, terminal: &mut Terminal<'_>) -> Outcome {
    let delivered =
        report::delivered(report, if report.created == 1 { "ticket created" } else { "tickets created" });
    writeln!(terminal.err, "{delivered}, {} waiting, {} dead", overview.backlog, overview.dead)?;
    let next_at = report.next_at.filter(|_| overview.backlog > 0);
    report::details(&Report { next_at, ..report.clone() }, clock().now(), terminal.err)?;
    Ok(match (overview.backlog, overview.dead) {
        (0, 0) => Exit::Fine,
        (0, _) => Exit::Failure,
        _ => Exit::Later,
    })
}

/// A bar on a terminal, nothing elsewhere.
pub(super) fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        bar.set_style(style);
    }
    bar.set_message("reading");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// The steady tick shows how long it takes; the message is set when the relay begins.
pub(super) fn follow(bar: &ProgressBar, progress: watch::Receiver<Progress>) {
    let bar = bar.clone();
    let style = ProgressStyle::with_template("{spinner} {elapsed} pushing, {delivered} delivered");
    if let Ok(style) = style {
        let delivered = move |_: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no reason to stop.
            let _ = write!(w, "{}", progress.borrow().delivered);
        };
        bar.set_style(style.with_key("delivered", delivered));
    }
}
