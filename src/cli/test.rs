//! `otrelay test`: the `[[test]]` cases of the config. A record goes in; rules, severity, engine, protocols and fields
//! that come out are compared with what the case expects. Nothing is stored, nothing is sent.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use super::human::json;
use super::verdict::{Judge, Verdict, source};
use super::{CliError, Exit, Outcome, Terminal, clock, load_to_look};
use crate::config::{Case, Config, Expect};
use crate::model::Protocol;
use crate::model::text::one_line;
use crate::source::format::{self, Finding, Stream};

/// Arguments of `otrelay test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Only cases whose name has this in it
    pub filter: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    name: &'a str,
    passed: bool,
    /// What differs, or why there is nothing to compare.
    differences: Vec<String>,
    title: Option<String>,
    rules: Vec<String>,
    /// The key of the first ticket.
    correlation_id: Option<String>,
}

pub(super) fn run(args: &TestArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load_to_look(terminal)?;
    let judge = Judge::new(&config)?;
    let wanted = |case: &&Case| args.filter.as_deref().is_none_or(|part| case.name.contains(part));
    let reports: Vec<_> =
        config.tests.iter().filter(wanted).map(|case| run_case(case, &config, &judge)).collect();
    if reports.is_empty() {
        let none = if config.tests.is_empty() {
            "the config has no [[test]]"
        } else {
            "no [[test]] has such a name"
        };
        return Err(CliError::Words(none.to_owned()));
    }
    let failed = reports.iter().filter(|report| !report.passed).count();
    if args.json {
        json(terminal.out, &reports)?;
    } else {
        for report in &reports {
            print(report, terminal.out)?;
        }
        let passed = reports.len() - failed;
        writeln!(terminal.out, "{passed} passed, {failed} failed")?;
    }
    Ok(if failed == 0 { Exit::Fine } else { Exit::Failure })
}

fn print(report: &Report<'_>, out: &mut dyn Write) -> std::io::Result<()> {
    let word = if report.passed { "ok    " } else { "FAILED" };
    writeln!(out, "{word} {}", one_line(report.name))?;
    for difference in &report.differences {
        writeln!(out, "       {}", one_line(difference))?;
    }
    Ok(())
}

fn run_case<'a>(case: &'a Case, config: &Config, judge: &Judge) -> Report<'a> {
    let mut report = Report {
        name: &case.name,
        passed: false,
        differences: Vec::new(),
        title: None,
        rules: Vec::new(),
        correlation_id: None,
    };
    let settings = match source(config, &case.kind, case.source.as_deref()) {
        Ok(settings) => settings,
        Err(error) => {
            report.differences.push(error.to_string());
            return report;
        }
    };
    match alert(case, &settings) {
        Err(why) => report.differences.push(why),
        Ok(finding) => {
            let verdict = judge.judge(&settings.name, &finding);
            report.differences = differences(&case.expect, &finding, &verdict);
            report.passed = report.differences.is_empty();
            report.title = Some(finding.alert.title);
            report.rules = verdict.rules.into_iter().collect();
            report.correlation_id = verdict.key;
        }
    }
    report
}

/// The last alert that the case's record holds; lines before it may be a header.
fn alert(case: &Case, settings: &crate::source::Settings) -> Result<Finding, String> {
    let stream = Stream { name: &case.file, ..Stream::default() };
    let mut decoder = settings.format.0.decoder(&stream);
    let now = clock().now();
    let (mut found, mut else_was) = (None, "the line is empty".to_owned());
    // One record may be an object over several lines.
    let whole = case.line.trim_start().starts_with(['{', '[']);
    let records: Vec<&str> = if whole { vec![case.line.as_str()] } else { case.line.lines().collect() };
    for record in records {
        let record = if whole { record.replace(['\n', '\r'], " ") } else { record.to_owned() };
        match decoder.decode(record.as_bytes(), now).outcome {
            format::Outcome::Alert(finding) => found = Some(*finding),
            format::Outcome::Ignored(kind) => else_was = format!("it is a record of {kind} and no alert"),
            format::Outcome::Reject(reason, detail) => else_was = format!("{}: {detail}", reason.as_str()),
            format::Outcome::Blank => {}
        }
    }
    found.ok_or(else_was)
}

fn differences(expect: &Expect, finding: &Finding, verdict: &Verdict) -> Vec<String> {
    let mut all = Vec::new();
    let mut compare = |what: &str, expected: String, found: String| {
        if expected != found {
            all.push(format!("{what}: expected {expected}, found {found}"));
        }
    };
    let list =
        |names: &mut dyn Iterator<Item = String>| format!("[{}]", names.collect::<Vec<_>>().join(", "));
    if let Some(rules) = &expect.rules {
        let found = list(&mut verdict.rules.iter().cloned());
        let found = if verdict.rules.is_empty() { format!("{found} ({})", verdict.why) } else { found };
        if *rules != verdict.rules {
            compare("rules", list(&mut rules.iter().cloned()), found);
        }
    }
    if let Some(severity) = expect.severity {
        compare("severity", severity.to_string(), finding.alert.severity.to_string());
    }
    if let Some(engine) = expect.engine {
        compare("engine", engine.to_string(), finding.alert.engine.to_string());
    }
    if let Some(protocols) = &expect.protocols {
        let found: std::collections::BTreeSet<_> =
            finding.alert.protocols.iter().map(Protocol::folded).collect();
        compare("protocols", list(&mut protocols.iter().cloned()), list(&mut found.into_iter()));
    }
    for (name, expected) in &expect.fields {
        let found = match &verdict.fields {
            None => format!("no ticket ({})", verdict.why),
            Some(Err(why)) => format!("fields that cannot be made: {why}"),
            Some(Ok(fields)) => match fields.get(name).map(String::as_str).unwrap_or_default() {
                found if found == expected => continue,
                "" => "none".to_owned(),
                found => format!("\"{found}\""),
            },
        };
        compare(&format!("field {name}"), format!("\"{expected}\""), found);
    }
    all
}
