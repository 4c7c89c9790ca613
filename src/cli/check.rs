//! `otrelay check`: the config, offline. Says everything that can be known without the network, all at once.

use std::io::{self, Write};

use serde_json::json;

use crate::config::{self, Config, ConfigError, Environment, Level, Problem, Purpose, TemplateCheck};

/// The exit code for a config that cannot be used; the unit does not restart on it.
pub const EX_CONFIG: u8 = 78;

/// Arguments of `otrelay check`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CheckArgs {
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
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
    let loaded = config::load(environment, Purpose::Check, templates);
    let (config, problems, files) = match &loaded {
        Ok(loaded) => {
            let mut problems = loaded.warnings.clone();
            problems.extend(config::look_around(&loaded.config));
            (Some(&loaded.config), problems, loaded.files.as_slice())
        }
        Err(error) => (None, error.problems.clone(), [].as_slice()),
    };
    let fine = config.filter(|_| problems.iter().all(|problem| problem.level == Level::Warning));
    if args.json {
        let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) =
            problems.iter().partition(|problem| problem.level == Level::Error);
        let mut report = json!({ "ok": fine.is_some(), "errors": errors, "warnings": warnings });
        if let Some(config) = fine {
            report["files"] = json!(files);
            report["sources"] = json!(config.sources.len());
            report["rules"] = json!(config.rules.len());
            report["destinations"] = json!(config.desks.len());
        }
        writeln!(out, "{report:#}")?;
    } else {
        for problem in &problems {
            writeln!(err, "{problem}")?;
        }
        match fine {
            Some(config) => writeln!(out, "config OK: {}", counts(config))?,
            None => writeln!(err, "{}", verdict(&problems))?,
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
        writeln!(err, "{problem}")?;
    }
    writeln!(err, "{}", verdict(&error.problems))?;
    Ok(EX_CONFIG)
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
    format!("{sources}, {rules}, {}", plural(config.desks.len(), "destination"))
}

fn plural(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}
