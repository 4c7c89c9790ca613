//! `otrelay login`: user and password once, for a refresh token that is kept. The password is used for that one request
//! and is not saved, not printed and not taken from arguments or the environment.

use std::io;
use std::path::PathBuf;

use clap::Args;

use super::prompt::{Prompt, of_descriptor};
use super::{CliError, Exit, Outcome, Terminal, begin, clock, load_as_caller, wait};
use crate::config::Purpose;
use crate::model::{Secret, text};
use crate::servicenow::{self, Auth, ServiceNow, Settings};

/// Arguments of `otrelay login`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct LoginArgs {
    /// The destination, `[servicenow.NAME]`; may be left out when there is one with auth = "refresh-token"
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    /// The user, instead of being asked for it
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// Read the password's line from this open file descriptor instead of the terminal; 0 is standard input
    #[arg(long, value_name = "N")]
    pub password_fd: Option<u32>,
}

const AFTER_HELP: &str = "The destination has auth = \"refresh-token\", client_id and client_secret. The refresh token that is obtained \
    is kept in the state directory, mode 0600, and used from then on; the password is not kept. It ends after 100 days by \
    default: otrelay status says so from day 80 on.";

/// What does without a terminal.
const INSTEAD: &str = "--username and --password-fd";

pub(super) fn run(args: &LoginArgs, terminal: &mut Terminal<'_>) -> Outcome {
    // What is read from a descriptor of root's may be for root alone. The old token is not needed, so it may be one that
    // only systemd can open.
    let loaded = load_as_caller(terminal, Purpose::LogIn)?;
    let (settings, kept) = destination(&loaded.config.destinations, args.destination.as_deref())?;
    let (settings, kept) = (settings.clone(), kept.clone());
    needs_no_systemd(&settings)?;
    let words = |e: io::Error| CliError::Words(e.to_string());
    let username = match &args.username {
        Some(name) => name.clone(),
        None if args.password_fd.is_some() => {
            return Err(CliError::Words("--password-fd needs --username".to_owned()));
        }
        None => Prompt::open(INSTEAD).and_then(|mut prompt| prompt.line("User: ", true)).map_err(words)?,
    };
    let password = if let Some(number) = args.password_fd {
        of_descriptor(number)?
    } else {
        let question =
            format!("Password of {} at {} (not shown): ", text::one_line(&username), settings.instance);
        Prompt::open(INSTEAD).and_then(|mut prompt| prompt.line(&question, false)).map_err(words)?
    };
    if username.is_empty() || password.is_empty() {
        return Err(CliError::Words("nothing was kept: no user, or no password".to_owned()));
    }
    begin(loaded, terminal)?;
    let clock = clock();
    let destination = ServiceNow::new(settings.clone(), clock.clone()).map_err(crate::app::AppError::from)?;
    let password = Secret::new("terminal", password);
    let token = wait(destination.obtain_refresh_token(&username, &password))?.map_err(|e| {
        let remedy = if e.remedy.is_empty() { String::new() } else { format!("; {}", e.remedy) };
        CliError::Words(format!("{e}{remedy}"))
    })?;
    servicenow::keep_login(&settings, &token, clock.now()).map_err(|e| {
        CliError::Words(format!("the refresh token could not be kept in {}: {e}", kept.display()))
    })?;
    let name = &settings.name;
    let shown = kept.display();
    writeln!(
        terminal.out,
        "logged in to {} as {}; the refresh token is kept in {shown}, the password is not kept\n\
         a running service uses it from its next log-in on; otrelay sync tries at once\n\
         as a systemd credential instead (then remove the file):\n  \
         systemd-creds encrypt --name=refresh-token-{name} {shown} /etc/credstore.encrypted/refresh-token-{name}\n  \
         LoadCredentialEncrypted=refresh-token-{name} in the unit, and in [servicenow.{name}]:\n  \
         refresh_token = {{ credential = \"refresh-token-{name}\" }}",
        settings.instance,
        text::one_line(&username),
    )?;
    Ok(Exit::Fine)
}

/// Whether all is there that a log-in needs beside user and password.
fn needs_no_systemd(settings: &Settings) -> Result<(), CliError> {
    let old = match &settings.auth {
        Auth::RefreshToken(own) => own.token.as_ref(),
        _ => None,
    };
    let is_old = |secret: &Secret| old.is_some_and(|old| std::ptr::eq(old, secret));
    let sealed = servicenow::secrets(settings).into_iter().filter(|s| s.expose().is_empty() && !is_old(s));
    let sealed: Vec<&str> = sealed.map(|secret| secret.origin.trim_start_matches("credential ")).collect();
    if sealed.is_empty() {
        return Ok(());
    }
    let properties: Vec<String> =
        sealed.iter().map(|name| format!("--property=LoadCredentialEncrypted={name}")).collect();
    Err(CliError::Words(format!(
        "a log-in needs {}, which only systemd can open; run it there, with the --config that you use: systemd-run --pty \
         {} otrelay login {}",
        sealed.join(", "),
        properties.join(" "),
        settings.name
    )))
}

/// The destination that is meant, and where its token is kept.
fn destination<'a>(all: &'a [Settings], name: Option<&str>) -> Result<(&'a Settings, PathBuf), CliError> {
    let kept = |settings: &Settings| match &settings.auth {
        Auth::RefreshToken(own) => Some(own.kept.clone()),
        _ => None,
    };
    let mut with = all.iter().filter_map(|settings| Some((settings, kept(settings)?)));
    let Some(name) = name else {
        return match (with.next(), with.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(CliError::Words(
                "no destination has auth = \"refresh-token\"; the others need no log-in of this kind"
                    .to_owned(),
            )),
            _ => {
                Err(CliError::Words("name the destination: several have auth = \"refresh-token\"".to_owned()))
            }
        };
    };
    let settings = super::destination(all, name)?;
    let kept = kept(settings).ok_or_else(|| {
        CliError::Words(format!(
            "destination {name} needs no such log-in: set auth = \"refresh-token\" for it"
        ))
    })?;
    Ok((settings, kept))
}
