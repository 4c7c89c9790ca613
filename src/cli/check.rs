//! `otrelay check`: the config, offline. Says everything that can be known without the network, all at once.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::app;
use crate::config::{self, Config, ConfigError, Environment, Level, Problem, Purpose, TemplateCheck};
use crate::model::codes::Code;
use crate::model::text::one_line;

/// The exit code for a config that cannot be used; the unit does not restart on it.
pub const EX_CONFIG: u8 = 78;

/// Arguments of `otrelay check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What came of looking at a config.
pub(crate) struct Examined {
    /// The config, when it can be used.
    pub(crate) config: Option<Config>,
    /// Everything that is wrong or odd, in the order of files and lines.
    pub(crate) problems: Vec<Problem>,
    files: Vec<PathBuf>,
}

/// Looks at a config as a whole: its files, this machine, and whether the service can be made from it. `otrelay check`
/// and the reload of a running service both ask here, so that one cannot take what the other refuses.
pub(crate) fn examine(environment: &Environment, purpose: Purpose, templates: TemplateCheck) -> Examined {
    let (config, mut problems, files) = match config::load(environment, purpose, templates) {
        Ok(loaded) => (loaded.config, loaded.warnings, loaded.files),
        Err(error) => return Examined { config: None, problems: error.problems, files: Vec::new() },
    };
    let service = environment.judged().filter(|_| purpose == Purpose::Check);
    problems.extend(config::look_around(&config, service));
    if let Err(e) = app::can_be_made(&config, &super::clock()) {
        problems.push(Problem::new(Level::Error, "", super::chain(&e)));
    }
    let fine = problems.iter().all(|problem| problem.level == Level::Warning);
    Examined { config: fine.then_some(config), problems, files }
}

/// Checks the config and what this machine says about it. Answers 0, or [`EX_CONFIG`] when it cannot be used.
///
/// # Errors
/// Only when `out` or `err` cannot be written to.
pub fn check(
    args: &CheckArgs,
    environment: &Environment,
    templates: TemplateCheck,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    let examined = examine(environment, Purpose::Check, templates);
    let Examined { config, problems, files } = &examined;
    let fine = config.as_ref();
    if args.json {
        let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
            problems.iter().partition(|problem| problem.level == Level::Error);
        let mut report = json!({ "ok": fine.is_some(), "errors": errors, "warnings": warnings });
        if let Some(config) = fine {
            report["files"] = json!(files);
            report["sources"] = json!(config.sources.len());
            report["rules"] = json!(config.rules.len());
            report["destinations"] = json!(config.destinations.len());
        }
        writeln!(out, "{report:#}")?;
    } else {
        for problem in problems {
            writeln!(err, "{}", told(problem))?;
        }
        match fine {
            Some(config) => {
                let whose = environment.judged().map_or(String::new(), |service| {
                    format!("; asked for the service's user {}", one_line(service.user()))
                });
                writeln!(out, "config OK: {}{whose}", counts(config))?;
            }
            None => writeln!(err, "{}", verdict(problems))?,
        }
    }
    Ok(if fine.is_some() { 0 } else { EX_CONFIG })
}

/// Prints what is wrong with a config, for every command that needs one; answers [`EX_CONFIG`].
///
/// # Errors
/// Only when `err` cannot be written to.
pub fn refuse(error: &ConfigError, err: &mut dyn Write) -> io::Result<u8> {
    for problem in &error.problems {
        writeln!(err, "{}", told(problem))?;
    }
    writeln!(err, "{}", verdict(&error.problems))?;
    Ok(EX_CONFIG)
}

/// A problem as a line, with the code behind an error.
fn told(problem: &Problem) -> String {
    let code = if problem.level == Level::Error { Code::behind(problem.code()) } else { String::new() };
    format!("{}{code}", one_line(&problem.to_string()))
}

fn verdict(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.level == Level::Error).count();
    let warnings = problems.len() - errors;
    let warnings = if warnings > 0 { format!(", {}", plural(warnings, "warning")) } else { String::new() };
    format!("config cannot be used: {}{warnings}", plural(errors, "error"))
}

fn counts(config: &Config) -> String {
    let sources = plural(config.sources.len(), "source");
    let rules = plural(config.rules.len(), "rule");
    format!("{sources}, {rules}, {}", plural(config.destinations.len(), "destination"))
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}
