//! `otrelay config show | schema | example`: what is in effect and why, what may be written, what to begin with.

use std::io::{self, Write};

use serde_json::json;

use super::check::refuse;
use crate::config::{self, Environment, Purpose, TemplateCheck};
use crate::source::format::alert_json;

/// Arguments of `otrelay config`.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// What to print.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `otrelay config` prints.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Every value in effect with where it came from; secrets are masked.
    Show {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The JSON Schema of the config file, for editors.
    Schema {
        /// That of an alert instead, for those who push them or write them to files.
        #[arg(long)]
        alert: bool,
    },
    /// The shipped config with every key and its default.
    Example,
}

/// Prints what is asked for. Answers 0, or 78 when there is a config to be shown that cannot be used.
///
/// # Errors
/// Only when `out` or `err` cannot be written to.
pub fn config(
    args: &ConfigArgs,
    environment: &Environment,
    templates: TemplateCheck,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<u8> {
    match args.command {
        ConfigCommand::Schema { alert: false } => writeln!(out, "{:#}", config::schema())?,
        ConfigCommand::Schema { alert: true } => writeln!(out, "{:#}", alert_json::schema())?,
        ConfigCommand::Example => out.write_all(config::example().as_bytes())?,
        ConfigCommand::Show { json } => {
            let loaded = match config::load(environment, Purpose::Show, templates) {
                Ok(loaded) => loaded,
                Err(error) => return refuse(&error, err),
            };
            if json {
                let report = json!({ "files": loaded.files, "values": loaded.effective });
                writeln!(out, "{report:#}")?;
            } else {
                write!(out, "{}", loaded.effective)?;
            }
            for warning in &loaded.warnings {
                writeln!(err, "{warning}")?;
            }
        }
    }
    Ok(0)
}
