//! `otrelay replay FILE… --against NEW.toml`: which recorded alerts would go elsewhere with another config. Both configs
//! read the records, each with its own sources, exclusions and rules. Nothing is stored, nothing is sent.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::human::json;
use super::input::{Input, next_line};
use super::verdict::{Judge, Verdict, source};
use super::{CliError, Exit, Outcome, Terminal, clock, load_to_look};
use crate::config::{self, Config, Purpose};
use crate::model::text::one_line;
use crate::model::{Fingerprint, SourceName};
use crate::rules::template::check_template;
use crate::source::format::{self, Decoder, Finding, Stream};

/// Arguments of `otrelay replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// Files as a sensor writes them, also packed with gzip; `-` for standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The config that the present one is compared with
    #[arg(long, value_name = "NEW.toml")]
    pub against: PathBuf,
    /// The kind of source that the files are of, as in the config; by default found out from each file
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Most findings that are named; the others are counted.
const NAMED_MAX: usize = 10_000;

#[derive(Default, Serialize)]
struct Report {
    alerts: u64,
    /// Those of them that would go elsewhere.
    changed: u64,
    changes: Vec<Change>,
    /// Changed alerts of findings beyond those that are named.
    #[serde(skip_serializing_if = "is_zero")]
    not_named: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A finding that would go elsewhere.
#[derive(Serialize)]
struct Change {
    title: String,
    parties: String,
    /// Where it goes now, and where it would.
    before: String,
    after: String,
    alerts: u64,
}

/// One of the two configs.
struct Side {
    config: Config,
    judge: Judge,
}

pub(super) fn run(args: &ReplayArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let now = Side::new(load_to_look(terminal)?)?;
    let environment = terminal.environment.clone().with_config(Some(args.against.clone()));
    let then = Side::new(config::load(&environment, Purpose::Show, check_template)?.config)?;
    let mut report = Report::default();
    let mut named = BTreeMap::new();
    for file in &args.files {
        replay(file, args.kind.as_deref(), [&now, &then], &mut report, &mut named, terminal.err)?;
    }
    if args.json {
        json(terminal.out, &report)?;
    } else {
        print(&report, terminal.out)?;
    }
    Ok(if report.changed == 0 { Exit::Fine } else { Exit::Failure })
}

impl Side {
    fn new(config: Config) -> Result<Self, CliError> {
        Ok(Self { judge: Judge::new(&config)?, config })
    }

    fn decoder(&self, kind: &str, name: &str) -> Result<(SourceName, Box<dyn Decoder>), CliError> {
        let settings = source(&self.config, kind, None)?;
        let stream = Stream { name, ..Stream::default() };
        Ok((settings.name, settings.format.0.decoder(&stream)))
    }
}

/// Where the change of a finding is named.
type Named = BTreeMap<(Fingerprint, String, String), usize>;

fn replay(
    path: &Path,
    kind: Option<&str>,
    sides: [&Side; 2],
    report: &mut Report,
    named: &mut Named,
    err: &mut dyn Write,
) -> Result<(), CliError> {
    let mut input = Input::open(path)?;
    let unknown = || CliError::Words(format!("say which --kind of source {} is of", path.display()));
    let kind = kind.or_else(|| input.kind()).ok_or_else(unknown)?.to_owned();
    let [mut one, mut other] = [sides[0].decoder(&kind, &input.name)?, sides[1].decoder(&kind, &input.name)?];
    let at = clock().now();
    let mut rejected = 0_u64;
    while let Some(line) = next_line(&mut input.bytes, path)? {
        let (before, after) = (one.1.decode(&line, at).outcome, other.1.decode(&line, at).outcome);
        rejected += u64::from(matches!(before, format::Outcome::Reject(..)));
        let (before, after) = (finding(before), finding(after));
        let Some(shown) = before.as_ref().or(after.as_ref()) else { continue };
        report.alerts += 1;
        let judged = |side: &Side, source: &SourceName, finding: &Option<Finding>| {
            finding.as_ref().map(|finding| side.judge.judge(source, finding))
        };
        let verdicts = (judged(sides[0], &one.0, &before), judged(sides[1], &other.0, &after));
        let places = |verdict: &Option<Verdict>| verdict.as_ref().map_or(Vec::new(), |v| v.places.clone());
        if places(&verdicts.0) != places(&verdicts.1) {
            report.add(shown, words(verdicts.0.as_ref()), words(verdicts.1.as_ref()), named);
        }
    }
    if rejected > 0 {
        writeln!(err, "{}: {rejected} lines were not understood", path.display())?;
    }
    Ok(())
}

fn finding(outcome: format::Outcome) -> Option<Finding> {
    match outcome {
        format::Outcome::Alert(finding) => Some(*finding),
        _ => None,
    }
}

fn words(verdict: Option<&Verdict>) -> String {
    verdict.map_or_else(|| "nowhere (no alert)".to_owned(), Verdict::words)
}

impl Report {
    fn add(&mut self, finding: &Finding, before: String, after: String, named: &mut Named) {
        self.changed += 1;
        let key = (finding.fingerprint, before, after);
        if let Some(at) = named.get(&key) {
            self.changes[*at].alerts += 1;
        } else if self.changes.len() < NAMED_MAX {
            self.changes.push(Change {
                title: finding.alert.title.clone(),
                parties: finding.alert.parties(),
                before: key.1.clone(),
                after: key.2.clone(),
                alerts: 1,
            });
            named.insert(key, self.changes.len() - 1);
        } else {
            self.not_named += 1;
        }
    }
}

fn print(report: &Report, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{} of {} alerts would go elsewhere", report.changed, report.alerts)?;
    for change in &report.changes {
        let times = if change.alerts > 1 { format!(" ({} alerts)", change.alerts) } else { String::new() };
        writeln!(out, "{}, {}{times}", one_line(&change.title), one_line(&change.parties))?;
        writeln!(out, "  now:  {}", one_line(&change.before))?;
        writeln!(out, "  then: {}", one_line(&change.after))?;
    }
    if report.not_named > 0 {
        writeln!(out, "and {} more", report.not_named)?;
    }
    Ok(())
}
