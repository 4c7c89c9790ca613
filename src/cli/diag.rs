//! `otrelay diag`: one packed text for whoever is asked for help, and a list of what is in it first.
//!
//! What goes in is on a list here, field by field; alerts, devices and records of the sources do not, unless `--samples`
//! asks for the samples that are kept of what was not forwarded or not understood. Secrets are not read into it; all the
//! same every text passes a [`Scrubber`] that knows those of the config. Looks only; the one file that it makes is its
//! own, 0600, and never in the place of another.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::json;

use super::ask::Asker;
use super::status::status;
use super::{CliError, Exit, Outcome, Terminal, clock};
use crate::config::{self, Config, Purpose};
use crate::control::Question;
use crate::model::text::clip;
use crate::model::time::as_text;
use crate::model::{DeliveryState, Scrubber};
use crate::rules::template::check_template;
use crate::servicenow;
use crate::source::Input;
use crate::store::{DeliveryRow, FilteredRow, ListFilter, Reader, RejectRow};

/// Longest text, in bytes, before it is packed.
const TEXT_MAX: usize = 20 << 20;
/// Longest part of it, in bytes.
const PART_MAX: usize = 4 << 20;
/// Dead letters, samples and syncs that are taken.
const ROWS: u32 = 200;
/// Longest words of another side that are taken, in bytes.
const WORDS_MAX: usize = 300;

/// Arguments of `otrelay diag`.
#[derive(Args, Clone, Debug)]
pub struct DiagArgs {
    /// Where to; by default otrelay-diag-TIME.txt.gz in this directory
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also the samples that are kept of alerts that were not forwarded and of input that was not understood: these are
    /// texts of your sensors
    #[arg(long)]
    pub samples: bool,
}

struct Part {
    name: &'static str,
    /// What is in it, for the list.
    what: &'static str,
    text: String,
}

pub(super) fn run(args: &DiagArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let now = clock().now().to_string();
    let stamp: String =
        now.split('.').next().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("otrelay-diag-{stamp}.txt.gz")));
    let cannot = |e: std::io::Error| CliError::Words(format!("cannot write {}: {e}", path.display()));
    // Before the store is asked, which makes root its owner: that user may not write here.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
    let mut parts = vec![machine(), config_of(terminal)];
    let loaded = config::load(&terminal.environment, Purpose::Run, check_template).ok();
    match Asker::new(terminal) {
        Ok(asker) => parts.extend(of_store(&asker, args.samples)),
        Err(e) => parts.push(Part { name: "store", what: "nothing", text: e.to_string() }),
    }
    let scrubber = scrubber(loaded.as_ref().map(|loaded| &loaded.config));
    let whole = scrubber.text(&whole(&parts)).into_owned();
    let mut packer = GzEncoder::new(file, Compression::default());
    packer.write_all(whole.as_bytes()).map_err(cannot)?;
    packer.finish().and_then(|file| file.sync_all()).map_err(cannot)?;
    for part in &parts {
        writeln!(terminal.err, "{:<8} {}", part.name, part.what)?;
    }
    writeln!(terminal.err, "look at it before you send it: zcat {}", path.display())?;
    writeln!(terminal.out, "{}", path.display())?;
    Ok(Exit::Fine)
}

/// The list, then the parts.
fn whole(parts: &[Part]) -> String {
    let mut text = String::from("otrelay diag\n\nWhat is in it:\n");
    for part in parts {
        let _ = writeln!(text, "  {:<8} {}", part.name, part.what);
    }
    text.push_str("What is not: secrets, the alerts and devices that are kept, the log (journalctl -u otrelay --since -2d)\n");
    for part in parts {
        let own = clip(&part.text, PART_MAX);
        let cut = if own.len() < part.text.len() { "\n(cut here)" } else { "" };
        let _ = writeln!(text, "\n===== {}\n{own}{cut}", part.name);
    }
    clip(&text, TEXT_MAX).into_owned()
}

fn pretty(value: &impl Serialize) -> String {
    as_text(|| serde_json::to_string_pretty(value)).unwrap_or_else(|e| format!("cannot be shown: {e}"))
}

fn machine() -> Part {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/etc/os-release");
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    let memory: Vec<String> = read("/proc/meminfo").lines().take(3).map(str::to_owned).collect();
    let value = json!({
        "otrelay": env!("CARGO_PKG_VERSION"),
        "architecture": std::env::consts::ARCH,
        "system": system.trim_matches('"'),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "uptime_seconds": read("/proc/uptime").split('.').next().unwrap_or_default(),
        "memory": memory,
        "now": clock().now().to_string(),
    });
    Part { name: "machine", what: "versions, kernel, memory, clock", text: pretty(&value) }
}

/// The effective config; no secret is read for it. Cases of `otrelay test` are records, and stay out.
fn config_of(terminal: &Terminal<'_>) -> Part {
    let text = match config::load(&terminal.environment, Purpose::Show, check_template) {
        Ok(loaded) => {
            let own = |entry: &&config::Entry| !entry.key.starts_with("test");
            let mut text = String::new();
            for entry in loaded.effective.entries().filter(own) {
                let _ = writeln!(text, "{} = {} # {}", entry.key, entry.value, entry.origin);
            }
            text
        }
        Err(e) => e.to_string(),
    };
    Part {
        name: "config",
        what: "every key with its value and where it is from; secrets by their place only",
        text,
    }
}

fn of_store(asker: &Asker, samples: bool) -> Vec<Part> {
    let filter = ListFilter { limit: ROWS, ..ListFilter::default() };
    let mut parts = vec![Part {
        name: "status",
        what: "what `otrelay status --json` says: health, sources, destinations, counts",
        text: status(asker).map_or_else(|e| e.to_string(), |status| pretty(&status)),
    }];
    let dead: Result<Vec<DeliveryRow>, CliError> =
        asker.ask(&Question::Queue { state: DeliveryState::Dead, filter: filter.clone() });
    parts.push(Part {
        name: "dead",
        what: "dead letters: ids, tables, times, and the words of the other side; no alerts",
        text: dead
            .map_or_else(|e| e.to_string(), |rows| pretty(&rows.iter().map(letter).collect::<Vec<_>>())),
    });
    let kept = Reader::open(&asker.dir).map_err(CliError::from);
    let kept =
        kept.and_then(|reader| Ok(json!({ "syncs": reader.syncs(ROWS)?, "counters": reader.counters()? })));
    parts.push(Part {
        name: "counts",
        what: "the last syncs, and all counters",
        text: kept.map_or_else(|e| e.to_string(), |value| pretty(&value)),
    });
    if samples {
        let filtered: Result<Vec<FilteredRow>, CliError> = asker.ask(&Question::Filtered(filter.clone()));
        let rejected: Result<Vec<RejectRow>, CliError> = asker.ask(&Question::Rejected(filter));
        let text = filtered.and_then(|filtered| Ok(json!({ "filtered": filtered, "rejected": rejected? })));
        parts.push(Part {
            name: "samples",
            what: "texts of your sensors: samples of what was not forwarded or not understood",
            text: text.map_or_else(|e| e.to_string(), |value| pretty(&value)),
        });
    }
    parts
}

/// A dead letter without what it is about.
fn letter(row: &DeliveryRow) -> serde_json::Value {
    let reason = row.reason.as_deref().unwrap_or_default();
    json!({
        "id": row.id,
        "kind": row.kind,
        "destination": row.destination,
        "table": row.table,
        "severity": row.severity,
        "attempts": row.attempts,
        "doubtful": row.doubtful,
        "created_at": row.created_at.to_string(),
        "due_at": row.due_at.to_string(),
        "reason": clip(reason, WORDS_MAX),
    })
}

/// Knows every secret of the config.
fn scrubber(config: Option<&Config>) -> Scrubber {
    let mut secrets = Vec::new();
    for settings in config.iter().flat_map(|config| &config.destinations) {
        secrets.extend(servicenow::secrets(settings));
    }
    for source in config.iter().flat_map(|config| &config.sources) {
        match &source.input {
            Input::Http { token, .. } => secrets.extend(token),
            Input::Defender { api, .. } => {
                secrets.push(&api.http.token);
                secrets.extend(api.http.proxy.iter().filter_map(|proxy| Some(&proxy.login.as_ref()?.1)));
            }
            Input::Files { .. } | Input::Syslog(_) | Input::Unix(_) | Input::Host(_) => {}
        }
    }
    Scrubber::new(secrets.into_iter().map(crate::model::Secret::expose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_comes_first_and_a_long_part_is_cut() {
        let part = |name, text: String| Part { name, what: "something", text };
        let text = whole(&[part("one", "x".repeat(PART_MAX + 10)), part("two", "y".to_owned())]);
        assert!(
            text.starts_with("otrelay diag\n\nWhat is in it:\n  one      something\n  two      something\n")
        );
        assert!(text.contains("(cut here)\n\n===== two\ny\n") && text.len() < PART_MAX + 500);
    }
}
