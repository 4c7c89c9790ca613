//! `otrelay instance-setup`: what the instance needs for this config, for its administrator. Asks nobody, reads no secret; the
//! same config gives the same bytes.

use clap::Args;

use super::{CliError, Exit, Outcome, Terminal, load_to_look};
use crate::config::Config;
use crate::model::TableName;
use crate::model::text::{clip, one_line};
use crate::servicenow::Settings;
use crate::servicenow::setup::{Action, choice, plan, steps, update_set};

/// Arguments of `otrelay instance-setup`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct InstanceSetupArgs {
    /// The destination, `[servicenow.NAME]`; may be left out when there is one
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    /// The numbered steps beside the update set, instead of the set
    #[arg(long)]
    pub steps: bool,

    /// All as numbered steps, for who imports no update set
    #[arg(long, conflicts_with = "steps")]
    pub by_hand: bool,

    /// The choice of the data source of the CMDB alone, for Import XML on the list of `sys_choice`
    #[arg(long, conflicts_with_all = ["steps", "by_hand"])]
    pub choice: bool,

    /// Where the rows of alerts go on to, for the transform map of a staging table
    #[arg(long, value_name = "TABLE", default_value = "incident")]
    pub target: String,
}

const AFTER_HELP: &str = "otrelay instance-setup > otrelay.xml, then in ServiceNow: System Update Sets > Retrieved Update Sets > Import Update \
     Set from XML, Preview, Commit. The set makes a role, and where the config sends rows: the staging tables (names that \
     begin with u_), their access rules and the transform map. It changes nothing that is there already.";

pub(super) fn run(args: &InstanceSetupArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load_to_look(terminal)?;
    let settings = destination(&config, args.destination.as_deref())?;
    let target = TableName::new(&args.target).map_err(|e| {
        let given = one_line(&args.target);
        CliError::Words(format!("--target {}: expected {}", clip(&given, 80), e.expected))
    })?;
    let enabled = config.rules.iter().filter(|rule| rule.enabled).flat_map(|rule| &rule.actions);
    let actions: Vec<Action<'_>> = enabled
        .filter(|action| action.destination == settings.name)
        .map(|action| Action {
            kind: action.kind,
            table: &action.table,
            columns: &action.columns,
            fields: &action.fields,
            attaches: action.life.attach.raw || action.life.attach.pcap,
        })
        .collect();
    let setup = plan(settings, &actions, &target);
    if args.steps || args.by_hand {
        for (at, step) in steps(&setup, args.by_hand).iter().enumerate() {
            writeln!(terminal.out, "{}. {step}", at + 1)?;
        }
        return Ok(Exit::Fine);
    }
    if args.choice {
        let Some(text) = choice(&setup) else {
            return Err(CliError::Words(
                "no choice is needed: the config sends no devices by identification and reconciliation to this destination"
                    .to_owned(),
            ));
        };
        terminal.out.write_all(text.as_bytes())?;
        return Ok(Exit::Fine);
    }
    terminal.out.write_all(update_set(&setup).as_bytes())?;
    writeln!(
        terminal.err,
        "what to do with it, and what it cannot do: otrelay instance-setup --steps{}",
        args.destination.as_deref().map(|name| format!(" {}", one_line(name))).unwrap_or_default()
    )?;
    Ok(Exit::Fine)
}

fn destination<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Settings, CliError> {
    match (name, config.destinations.as_slice()) {
        (Some(name), all) => super::destination(all, name),
        (None, [only]) => Ok(only),
        (None, []) => Err(CliError::Words("the config has no destination: add [servicenow.NAME]".to_owned())),
        (None, all) => {
            let all: Vec<&str> = all.iter().map(|settings| settings.name.as_str()).collect();
            Err(CliError::Words(format!("name the destination: {}", all.join(", "))))
        }
    }
}
