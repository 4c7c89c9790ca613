//! `otrelay run`: the service, or with `--once` one pass over what the file sources hold.

use std::io::IsTerminal;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ask::runtime_dir;
use super::human::relative;
use super::{Exit, Outcome, Terminal, clock, load, runtime, with_signals};
use crate::app;
use crate::relay::{Progress, Report};
use crate::store::Overview;

/// Arguments of `otrelay run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Take in what the file sources hold, sync once, and end: 0 when all is delivered, 75 when something still waits,
    /// 1 when there are dead letters
    #[arg(long)]
    pub once: bool,
}

pub(super) fn run(args: &RunArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load(terminal)?;
    let stop = CancellationToken::new();
    if args.once {
        let bar = progress_bar();
        let (report, overview) = runtime()?.block_on(async {
            let watch = |progress| follow(&bar, progress);
            with_signals(stop.clone(), app::once(config, clock(), watch, stop)).await
        })?;
        bar.finish_and_clear();
        return account(&report, &overview, terminal);
    }
    let socket = app::socket(&config.store.dir, runtime_dir(terminal).as_deref());
    runtime()?.block_on(with_signals(stop.clone(), app::serve(config, clock(), socket, stop)))?;
    Ok(Exit::Fine)
}

/// What is left decides the exit code.
fn account(report: &Report, overview: &Overview, terminal: &mut Terminal<'_>) -> Outcome {
    writeln!(
        terminal.err,
        "{} ticket{} created, {} found there already, {} waiting, {} dead",
        report.created,
        if report.created == 1 { "" } else { "s" },
        report.found,
        overview.backlog,
        overview.dead
    )?;
    for line in &report.waiting {
        writeln!(terminal.err, "waits: {line}")?;
    }
    if let Some(at) = report.next_at.filter(|_| overview.backlog > 0) {
        writeln!(terminal.err, "next try {}", relative(at, clock().now()))?;
    }
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
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
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
