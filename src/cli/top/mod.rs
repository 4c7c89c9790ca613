//! `otrelay top`: how things are, looked at again and again, on a terminal and nothing but one.
//!
//! The service is asked every two seconds for what it has in its store anyway ([`Question::Glance`]): looking makes it
//! write nothing. `screen.rs` has the terminal and gives it back as it was, whatever ends this; `view.rs` decides what
//! stands where.

mod screen;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use ratatui::Terminal as Cells;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

use super::ask::Asker;
use super::{CliError, Exit, Outcome, Terminal, runtime};
use crate::app::AppError;
use crate::control::client::{AskError, ask};
use crate::control::{Glance, Question};
use crate::model::Timestamp;
use crate::model::gather::Gather as _;
use crate::model::text::one_line;
use screen::{Keys, Screen};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);
/// Rates are over so long.
const RATES_OVER: Duration = Duration::from_secs(60);

/// Arguments of `otrelay top`.
#[derive(Args, Clone, Copy, Debug)]
pub struct TopArgs {}

/// What was counted of a source at a look: lines, alerts.
type Counts = BTreeMap<String, (i64, i64)>;

struct Known {
    glance: Glance,
    /// When it was asked, by this process's own clock.
    at: Instant,
    /// Counts of the last minute, oldest first.
    before: VecDeque<(Timestamp, Counts)>,
    /// Why the last look failed.
    trouble: Option<String>,
    colours: bool,
}

pub(super) fn run(_: TopArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let words = |why: &str| {
        CliError::Words(format!(
            "otrelay top needs a terminal, {why}; without one: otrelay status, otrelay tap"
        ))
    };
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(words("and standard input and output are not one"));
    }
    let variable = |name: &str| (terminal.environment.variables)(name).filter(|value| !value.is_empty());
    if variable("TERM").is_none_or(|kind| kind == "dumb") {
        return Err(words("and TERM names none that can be drawn on"));
    }
    let asker = Asker::new(terminal)?;
    // Before the screen is taken: what is wrong is said in plain words.
    let glance = look(&asker.socket)?;
    let mut known = Known {
        before: VecDeque::from([(glance.status.now, counts(&glance))]),
        glance,
        at: Instant::now(),
        trouble: None,
        colours: variable("NO_COLOR").is_none(),
    };
    let runtime = runtime()?;
    // They are caught from before the terminal is taken.
    let stop = {
        let _inside = runtime.enter();
        ordered_to_end()?
    };
    let (screen, keys) = Screen::open().map_err(|e| words(&format!("and it cannot be had ({e})")))?;
    let cells = Cells::new(screen)?;
    let ended = runtime.block_on(show(&mut known, cells, keys, asker.socket, stop));
    // A look that the service does not answer is not waited for.
    runtime.shutdown_background();
    ended.map(|()| Exit::Fine)
}

/// Draws until a key or a signal ends it. The terminal is as it was when this ends, also by a panic.
async fn show(
    known: &mut Known,
    mut cells: Cells<Screen>,
    keys: Keys,
    socket: PathBuf,
    stop: impl Future<Output = ()>,
) -> Result<(), CliError> {
    let mut looking: Option<JoinHandle<Result<Glance, CliError>>> = None;
    let mut looked_at = known.at;
    let (mut stop, mut pressed) = (std::pin::pin!(stop), keys.read());
    loop {
        let now = known.glance.status.now.after(known.at.elapsed());
        cells.draw(|frame| view::draw(frame, known, now))?;
        if looking.is_none() && looked_at.elapsed() >= EVERY {
            let socket = socket.clone();
            looking = Some(spawn_blocking(move || look(&socket)));
        }
        tokio::select! {
            () = &mut stop => return Ok(()),
            keys_read = &mut pressed => match keys_read.map_err(AppError::from)? {
                Ok(bytes) if ends(&bytes) => return Ok(()),
                Ok(_) => pressed = keys.read(),
                // Nobody sits there any more.
                Err(_) => return Ok(()),
            },
            looked = done(&mut looking) => {
                (looking, looked_at) = (None, Instant::now());
                known.learn(looked.map_err(AppError::from)?);
            }
        }
    }
}

/// `q`, Ctrl-C, Ctrl-D.
fn ends(keys: &[u8]) -> bool {
    keys.iter().any(|key| matches!(key, b'q' | b'Q' | 0x03 | 0x04))
}

async fn done<T>(work: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// The signals that would end the process and leave the terminal as it is then: caught when this returns, not when what it
/// returns is first looked at.
fn ordered_to_end() -> Result<impl Future<Output = ()>, CliError> {
    let on = |kind: SignalKind| signal(kind).map_err(CliError::from);
    let mut term = on(SignalKind::terminate())?;
    let mut int = on(SignalKind::interrupt())?;
    let mut hangup = on(SignalKind::hangup())?;
    let mut quit = on(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    })
}

impl Known {
    fn learn(&mut self, looked: Result<Glance, CliError>) {
        match looked {
            Ok(glance) => {
                let now = glance.status.now;
                self.before.push_back((now, counts(&glance)));
                while self.before.len() > 2 && self.before[1].0 < now.before(RATES_OVER) {
                    self.before.pop_front();
                }
                (self.glance, self.at, self.trouble) = (glance, Instant::now(), None);
            }
            Err(e) => self.trouble = Some(one_line(&super::chain(&e)).into_owned()),
        }
    }

    /// Lines and alerts a minute of a source, over the last minute or as long as this runs.
    fn rates(&self, source: &str) -> (i64, i64) {
        let (Some((from, first)), Some((to, last))) = (self.before.front(), self.before.back()) else {
            return (0, 0);
        };
        let millis = i64::try_from(to.since(*from).as_millis()).unwrap_or(i64::MAX);
        let of = |counts: &Counts| counts.get(source).copied();
        let (Some(last), true) = (of(last), millis > 0) else { return (0, 0) };
        // A source that was not there before is counted from its first look on.
        let first = of(first).unwrap_or(last);
        let rate = |first: i64, last: i64| (last - first).max(0).saturating_mul(60_000) / millis;
        (rate(first.0, last.0), rate(first.1, last.1))
    }
}

fn counts(glance: &Glance) -> Counts {
    let sources = glance.status.overview.sources.iter();
    sources.map(|s| (s.name.clone(), (s.lines, s.alerts))).into_map()
}

fn look(socket: &Path) -> Result<Glance, CliError> {
    match ask(socket, &Question::Glance) {
        Ok(value) => Ok(serde_json::from_value(value).map_err(AskError::Strange)?),
        Err(AskError::NotRunning(socket)) => Err(CliError::Words(format!(
            "no otrelay service answers at {}: there is nothing to look at; start it (systemctl start otrelay)",
            socket.display()
        ))),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_keys_end_it() {
        for (keys, expected) in [
            (&b"q"[..], true),
            (b"xQ", true),
            (b"\x03", true),
            (b"\x04", true),
            (b"\x1b[A\x1a ", false),
            (b"", false),
        ] {
            assert_eq!(ends(keys), expected, "{keys:?}");
        }
    }
}
