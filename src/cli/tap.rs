//! `otrelay tap`: what the running service decides, alert by alert, as it decides it.
//!
//! An alert is shown when it is decided, which is up to half a minute before it is on disk: after a power cut in between
//! it is read, decided and shown again. What comes faster than it can be shown is counted and said in its place.

use std::io::Write;
use std::ops::ControlFlow;

use clap::Args;

use super::ask::Asker;
use super::human::time;
use super::lists::severity;
use super::{CliError, Exit, Terminal};
use crate::control::client::{AskError, watch};
use crate::model::Severity;
use crate::model::seen::{self, Seen, Told, Watched};
use crate::model::text::one_line;
use crate::model::time::as_text;

/// Arguments of `otrelay tap`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an argument without a value")]
pub struct TapArgs {
    /// End after so many alerts; 0: never
    #[arg(long, short = 'n', value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// This level and every higher one: warning, minor, major, critical
    #[arg(long, visible_alias = "severity", value_name = "SEVERITY", value_parser = severity)]
    pub min_severity: Option<Severity>,
    /// Only what this rule wants a ticket of
    #[arg(long, value_name = "NAME")]
    pub rule: Option<String>,
    /// Only with this text in the title
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Only what rules want tickets of
    #[arg(long, group = "outcome")]
    pub forwarded: bool,
    /// Only what no rule takes
    #[arg(long, group = "outcome")]
    pub filtered: bool,
    /// Only what an exclusion takes
    #[arg(long, group = "outcome")]
    pub excluded: bool,
    /// As JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

impl TapArgs {
    fn watched(&self) -> Watched {
        let outcomes = [
            (self.forwarded, seen::Outcome::Forwarded),
            (self.filtered, seen::Outcome::Filtered),
            (self.excluded, seen::Outcome::Excluded),
        ];
        Watched {
            source: self.source.clone(),
            min_severity: self.min_severity,
            rule: self.rule.clone(),
            outcome: outcomes.into_iter().find_map(|(wanted, outcome)| wanted.then_some(outcome)),
            text: self.grep.clone(),
        }
    }
}

pub(super) fn run(args: &TapArgs, terminal: &mut Terminal<'_>) -> super::Outcome {
    let asker = Asker::new(terminal)?;
    let (mut shown, mut left_out) = (0, 0);
    let watched = watch(&asker.socket, args.watched(), |told| -> Result<_, CliError> {
        match told {
            Told::Begin => writeln!(terminal.err, "watching what is decided; Ctrl-C ends it")?,
            Told::Alert(seen) => {
                shown += 1;
                show(args, &seen, terminal.out)?;
            }
            Told::LeftOut(missed) => {
                left_out += missed;
                tell_missed(args, missed, terminal)?;
            }
            Told::End(why) => writeln!(terminal.err, "{}", one_line(&why))?,
        }
        terminal.out.flush()?;
        let enough = args.limit > 0 && shown >= args.limit;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    });
    match watched {
        Ok(()) => {}
        Err(CliError::Ask(AskError::NotRunning(socket))) => {
            return Err(CliError::Words(format!(
                "no otrelay service answers at {}: there is nothing to watch; start it (systemctl start otrelay), or see \
                 what it took in before with `otrelay alerts`",
                socket.display()
            )));
        }
        Err(CliError::Ask(AskError::Stopped)) => {
            return Err(CliError::Words(
                "the service ended without a word, or this was stopped for over a minute; nothing more is shown"
                    .to_owned(),
            ));
        }
        Err(e) => return Err(e),
    }
    if left_out > 0 {
        writeln!(
            terminal.err,
            "{shown} shown, {left_out} left out: they came faster than they could be shown"
        )?;
    }
    Ok(Exit::Fine)
}

/// In the stream of what is shown, where they are missing.
fn tell_missed(args: &TapArgs, missed: u64, terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    if args.json {
        writeln!(terminal.out, "{{\"left_out\":{missed}}}")?;
    } else {
        writeln!(terminal.out, "… {missed} alerts came too fast and are left out here")?;
    }
    Ok(())
}

fn show(args: &TapArgs, seen: &Seen, out: &mut dyn Write) -> Result<(), CliError> {
    if args.json {
        let text = as_text(|| serde_json::to_string(seen))?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{}", line(seen))?;
    }
    Ok(())
}

/// One line, whatever the socket said.
fn line(seen: &Seen) -> String {
    let Seen { source, severity, title, from, to, .. } = seen;
    let decision = match seen.outcome {
        seen::Outcome::Forwarded => {
            let all: Vec<String> = seen
                .tickets
                .iter()
                .map(|w| format!("rule {} → {} {}", w.rule, w.destination, w.table))
                .collect();
            all.join(", ")
        }
        seen::Outcome::Filtered => format!("no ticket: {}", seen.reason),
        seen::Outcome::Excluded => format!("excluded: {}", seen.reason),
        seen::Outcome::Cleared => "cleared at the source".to_owned(),
    };
    let text = format!("{} {source} {severity:8} {title}  {from} → {to}  [{decision}]", time(seen.time));
    one_line(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Alert, Fingerprint, SourceName, Timestamp};

    #[test]
    fn a_line_is_one_line_and_says_why() {
        let source = SourceName::new("eve").unwrap();
        let alert = Alert::sample("Bad\u{1b}[2J\nthing", Severity::Major, Timestamp::from_secs(0));
        let mut seen = Seen::of(&source, &alert, Fingerprint::from_bytes([7; 32]));
        seen.outcome = seen::Outcome::Excluded;
        seen.reason = "scanner".to_owned();
        assert_eq!(line(&seen), "1970-01-01 00:00:00 eve major    Bad[2J thing  ? → ?  [excluded: scanner]");
        seen.outcome = seen::Outcome::Filtered;
        seen.reason = "below every rule's severity".to_owned();
        assert!(line(&seen).ends_with("[no ticket: below every rule's severity]"));
    }
}
