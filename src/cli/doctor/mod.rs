//! `otrelay doctor`: the world around the config. One line for each thing that was looked at, a remedy below each that is
//! not as it should be; the worst decides the exit code.
//!
//! A file for each group of checks; a check is a function that gives [`Finding`]s. What stands behind something that
//! failed is not looked at: it would fail for the same reason, and say so in other words. Nothing is written, neither
//! here nor there, but for `--probe`.

mod instance;
mod machine;
mod sources;

use clap::Args;
use serde_json::json;

use super::ask::Asker;
use super::check::{Examined, examine};
use super::human::json;
use super::{Exit, Outcome, Terminal, clock, wait};
use crate::config::{self, Config, Level, Purpose, Service};
use crate::model::codes::Code;
use crate::model::finding::State;
use crate::model::text::one_line;
use crate::model::{Finding, TableName};
use crate::rules::template::check_template;

/// Arguments of `otrelay doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// Also make one record in this table of each destination that has rules, see what becomes of the two keys of a ticket,
    /// and delete it again
    #[arg(long, value_name = "TABLE", value_parser = table)]
    pub probe: Option<TableName>,
    /// End with 1 also where there are only warnings
    #[arg(long)]
    pub warnings_as_errors: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn table(text: &str) -> Result<TableName, String> {
    TableName::new(text).map_err(|e| e.to_string())
}

/// What the checks go by.
struct Scene<'a> {
    config: &'a Config,
    /// Whether the secrets are there: credentials of systemd are only in the unit.
    secrets: bool,
    /// Whether the service runs.
    running: bool,
    /// The service as the unit describes it, where this can be judged for it.
    service: Option<&'a Service>,
    probe: Option<&'a TableName>,
}

pub(super) fn run(args: &DoctorArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let whole = config::load(&terminal.environment, Purpose::Run, check_template).is_ok();
    let environment = terminal.environment.clone();
    let service = environment.judged();
    let purpose = if whole && service.is_none() { Purpose::Run } else { Purpose::Check };
    let Examined { config, problems, .. } = examine(&environment, purpose, check_template);
    let mut findings: Vec<Finding> = problems.iter().filter_map(of_config).collect();
    let Some(config) = config else {
        tell(args, &findings, terminal)?;
        return Ok(Exit::Config);
    };
    if findings.is_empty() {
        findings.push(Finding::ok("config", "it can be used"));
    }
    let asker = Asker::new(terminal)?;
    let scene = Scene {
        config: &config,
        secrets: whole,
        running: asker.running,
        service,
        probe: args.probe.as_ref(),
    };
    findings.extend(machine::all(&scene, &asker));
    wait(async {
        findings.extend(sources::all(&scene).await);
        findings.extend(instance::all(&scene).await);
    })?;
    tell(args, &findings, terminal)?;
    let worst = worst(&findings);
    let failed = worst == State::Fail || args.warnings_as_errors && worst == State::Warn;
    Ok(Exit::Fine.or_failed(failed))
}

/// What the config says by itself. The files of sources have a check of their own here.
fn of_config(problem: &config::Problem) -> Option<Finding> {
    if problem.level == Level::Warning && problem.key.starts_with("source ") {
        return None;
    }
    let mut plain = problem.clone();
    // Where the problem itself has no hint, what helps with its kind.
    let known = Code::of(problem.code()).map_or("", |code| code.remedy);
    let hint = plain.hint.take().map_or_else(|| known.to_owned(), String::from);
    let text = plain.to_string();
    Some(match problem.level {
        Level::Error => Finding::fail("config", format!("{text}{}", Code::behind(problem.code())), hint),
        Level::Warning => Finding::warn("config", text, hint),
    })
}

fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

fn tell(args: &DoctorArgs, findings: &[Finding], terminal: &mut Terminal<'_>) -> Result<(), super::CliError> {
    let findings: Vec<Finding> = findings.iter().map(with_code).collect();
    if args.json {
        return json(terminal.out, &json!({ "findings": findings, "worst": worst(&findings) })).map(drop);
    }
    for finding in &findings {
        let Finding { name, state, text, remedy } = finding;
        writeln!(terminal.out, "{:<8}{}: {}", state.as_str(), one_line(name), one_line(text))?;
        if !remedy.is_empty() {
            writeln!(terminal.out, "        → {}", one_line(remedy))?;
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    writeln!(
        terminal.err,
        "{} ok, {} skipped, {} to know, {} failed",
        count(State::Ok),
        count(State::Skipped),
        count(State::Warn),
        count(State::Fail)
    )?;
    Ok(())
}

/// What fails here is what the service tells with a number: the same number stands behind it.
fn with_code(finding: &Finding) -> Finding {
    let what = finding.name.split_once(": ").map_or(finding.name.as_str(), |(_, what)| what);
    let code = match what.split(' ').next().unwrap_or_default() {
        _ if !finding.fails() => "",
        "files" | "listener" | "api" => "source",
        "name" | "proxy" | "certificate" | "connection" | "log-in" | "instance" | "table" => "hold",
        "clock" => "clock-wrong",
        _ => "",
    };
    Finding { text: format!("{}{}", finding.text, Code::behind(code)), ..finding.clone() }
}

fn now() -> crate::model::Timestamp {
    clock().now()
}
