//! `otrelay init`: asks for what a config needs, finds the sensor's files, tries the connection, and writes config, secrets
//! and the unit's drop-in. Every answer is also an argument, for machines that set up machines.
//!
//! Nothing is written before everything was asked, checked as a config and tried. Secrets come from the terminal without
//! echo, from a descriptor or from a file.

mod detect;
mod write;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use self::detect::{Found, Sensors};
use self::write::{Planned, There};
use super::check::{CheckArgs, check};
use super::lists::severity;
use super::prompt::{Prompt, of_descriptor, of_file};
use super::{CliError, Exit, Outcome, Terminal, clock, wait};
use crate::app::AppError;
use crate::config::{self, Answers, Config, Kept, LogIn, Secrets, Service};
use crate::destination::{Destination as _, Since};
use crate::model::text::one_line;
use crate::model::{SecretString, TableName};
use crate::rules::template::check_template;
use crate::servicenow::ServiceNow;
use crate::source::transport::tail::Pattern;

/// The drop-in, beside those of an administrator.
const DROP_IN: &str = "/etc/systemd/system/otrelay.service.d/50-otrelay-init.conf";
/// Where systemd says that it runs.
const SYSTEMD: &str = "/run/systemd/system";
/// What is read to try a connection.
const TABLE: &str = "incident";
/// How often a question is asked again when nothing is answered.
const PATIENCE: usize = 3;

/// Arguments of `otrelay init`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct InitArgs {
    /// The instance.
    #[arg(long, value_name = "URL", help = "The instance: https://NAME.service-now.com")]
    pub instance: Option<String>,

    /// How to log in: password (default), client-credentials, refresh-token, api-key or basic
    #[arg(long, value_name = "KIND", value_parser = log_in)]
    pub auth: Option<LogIn>,

    /// Client ID of the OAuth registry record
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,

    /// File with its secret
    #[arg(long, value_name = "FILE", conflicts_with = "client_secret_fd")]
    pub client_secret_file: Option<PathBuf>,

    /// Open file descriptor with its secret; 0 is standard input
    #[arg(long, value_name = "N")]
    pub client_secret_fd: Option<u32>,

    /// The user there
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// File with the user's password
    #[arg(long, value_name = "FILE", conflicts_with = "password_fd")]
    pub password_file: Option<PathBuf>,

    /// Open file descriptor with the user's password
    #[arg(long, value_name = "N")]
    pub password_fd: Option<u32>,

    /// File with the API key
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_fd")]
    pub api_key_file: Option<PathBuf>,

    /// Open file descriptor with the API key
    #[arg(long, value_name = "N")]
    pub api_key_fd: Option<u32>,

    /// A proxy on the way: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub proxy: Option<String>,

    /// PEM file of a CA that is trusted beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<String>,

    /// Suricata's EVE files; `-` for none
    #[arg(long, value_name = "GLOB")]
    pub suricata_path: Option<String>,

    /// Zeek's logs; `-` for none
    #[arg(long, value_name = "GLOB")]
    pub zeek_path: Option<String>,

    /// A Defender for `IoT` sensor.
    #[arg(long, value_name = "URL", help = "A Defender for IoT sensor: https://HOST; `-` for none")]
    pub defender_url: Option<String>,

    /// File with its access token
    #[arg(long, value_name = "FILE", conflicts_with = "defender_token_fd")]
    pub defender_token_file: Option<PathBuf>,

    /// Open file descriptor with its access token
    #[arg(long, value_name = "N")]
    pub defender_token_fd: Option<u32>,

    /// Least severity of a ticket: warning, minor, major (default) or critical
    #[arg(long, value_name = "LEVEL")]
    pub min_severity: Option<String>,

    /// How old alerts may be when a source is first read: 7d (default), 0s, all
    #[arg(long, value_name = "TIME")]
    pub backfill: Option<String>,

    /// State directory, where it is not to be /var/lib/otrelay
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<String>,

    /// The config that is written, instead of --config or /etc/otrelay/otrelay.toml
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Where the secrets go: credential (of the unit, default where it is installed and root runs this) or file
    #[arg(long, value_name = "PLACE", value_parser = ["credential", "file"])]
    pub secrets: Option<String>,

    /// Do not try the connection
    #[arg(long)]
    pub offline: bool,

    /// Replace what is there; the old files stay beside
    #[arg(long)]
    pub force: bool,

    /// Ask nothing: what is not given has its default, or is named
    #[arg(long, short)]
    pub yes: bool,
}

const AFTER_HELP: &str = "Secrets are taken from a terminal, a file or a descriptor, never from arguments or the environment. As root beside \
    the packaged unit they go to /etc/otrelay/secrets, mode 0600 root, and reach the service as credentials by a drop-in, which \
    also gives it the group of the sensor's files where it needs one. With --output of another file they go to secrets/ beside it. \
    Nothing is written when an answer cannot be used or the instance does not answer.\n\n\
    otrelay init --yes --instance https://acme.service-now.com --client-id 0f3c --client-secret-file cs --username otrelay \
    --password-file pw";

fn log_in(text: &str) -> Result<LogIn, String> {
    LogIn::parse(text).ok_or_else(|| {
        let words = LogIn::ALL.map(LogIn::as_str).join(", ");
        format!("expected one of {words}; the others are for an editor: otrelay config example")
    })
}

pub(super) fn run(args: &InitArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let place = Place::of(args, terminal)?;
    let mut interview = Interview::begin(args);
    let answers = interview.all(&detect::look(Path::new("/")))?;
    if !interview.missing.is_empty() {
        writeln!(terminal.err, "otrelay: missing: {}", interview.missing.join(", "))?;
        writeln!(terminal.err, "otrelay: without --yes, at a terminal, they are asked for")?;
        return Ok(Exit::Usage);
    }
    let config = config::rehearse(&answers, &terminal.environment, check_template)?;
    if !tried(args, &answers, &config, &mut interview, terminal)? {
        return Ok(Exit::Failure);
    }
    let files = place.files(&answers, &config);
    let written = put(&files, args.force)?;
    for line in written {
        writeln!(terminal.out, "{line}")?;
    }
    if place.service.is_some() {
        read_units_again(terminal)?;
    }
    let environment = terminal
        .environment
        .clone()
        .with_config(Some(place.output.clone()))
        .beside(Service::find(Path::new("/")));
    let code = check(&CheckArgs { json: false }, &environment, check_template, terminal.out, terminal.err)?;
    if code != 0 {
        return Ok(Exit::Config);
    }
    for line in next_steps(&place, &answers) {
        writeln!(terminal.out, "{line}")?;
    }
    Ok(Exit::Fine)
}

fn next_steps(place: &Place, answers: &Answers) -> Vec<String> {
    let config =
        if place.is_default { String::new() } else { format!(" --config {}", place.output.display()) };
    let mut steps = Vec::new();
    if answers.auth == LogIn::RefreshToken {
        steps.push(format!("next: otrelay{config} login prod"));
    }
    steps.push(if place.service.is_some() {
        "next: systemctl enable --now otrelay".to_owned()
    } else {
        format!("next: otrelay{config} run")
    });
    steps.push(format!("then: otrelay{config} status says how it is, otrelay{config} sync pushes at once"));
    steps
}

/// Where everything goes.
struct Place {
    output: PathBuf,
    is_default: bool,
    /// The service whose config it is.
    service: Option<Service>,
    as_credentials: bool,
}

impl Place {
    fn of(args: &InitArgs, terminal: &Terminal<'_>) -> Result<Self, CliError> {
        let default = Path::new(config::DEFAULT_PATH);
        let output =
            args.output.as_deref().or(terminal.environment.config_path.as_deref()).unwrap_or(default);
        let output = std::path::absolute(output)
            .map_err(|source| CliError::Input { path: output.to_owned(), source })?;
        let is_root = rustix::process::geteuid().is_root();
        let service = terminal.environment.service.as_deref();
        let service = service.filter(|service| is_root && service.runs_with(Some(&output))).cloned();
        let wanted = args.secrets.as_deref();
        if wanted == Some("credential") && service.is_none() {
            return Err(CliError::Words(
                "--secrets credential needs the packaged unit, root, and its own config as --output"
                    .to_owned(),
            ));
        }
        let as_credentials = wanted.map_or(service.is_some(), |place| place == "credential");
        Ok(Self { is_default: output == default, output, service, as_credentials })
    }

    fn secrets_dir(&self) -> PathBuf {
        self.output.with_file_name("secrets")
    }

    /// Secrets, drop-in, config: in the order of writing.
    fn files(&self, answers: &Answers, config: &Config) -> Vec<Planned> {
        let owner = self.service.as_ref().and_then(Service::owner);
        let dir = self.secrets_dir();
        let secret = |kept: &Kept| Planned {
            path: dir.join(kept.name),
            text: kept.text.clone(),
            mode: 0o600,
            // As a credential it is systemd that reads it.
            owner: owner.filter(|_| !self.as_credentials),
            dir_mode: 0o750,
        };
        let mut files: Vec<Planned> = answers.all_secrets().map(secret).collect();
        files.extend(self.drop_in(answers, config));
        let secrets = if self.as_credentials { Secrets::Credentials } else { Secrets::Files(&dir) };
        files.push(Planned {
            path: self.output.clone(),
            text: answers.text(secrets).into(),
            mode: if owner.is_some() { 0o640 } else { 0o600 },
            owner: owner.map(|(_, group)| (0, group)),
            dir_mode: 0o750,
        });
        files
    }

    /// What the unit has to give the service: credentials, and the groups of the sensor's files.
    fn drop_in(&self, answers: &Answers, config: &Config) -> Option<Planned> {
        let service = self.service.as_ref()?;
        let dir = self.secrets_dir();
        let mut lines: Vec<String> = Vec::new();
        if self.as_credentials {
            lines.extend(
                answers
                    .all_secrets()
                    .map(|kept| format!("LoadCredential={0}:{1}", kept.name, dir.join(kept.name).display())),
            );
        }
        let mut groups: Vec<String> =
            config.sources.iter().flat_map(|source| lacking(service, source)).collect();
        groups.sort();
        groups.dedup();
        if !groups.is_empty() {
            lines.push(format!("SupplementaryGroups={}", groups.join(" ")));
        }
        (!lines.is_empty()).then(|| Planned {
            path: DROP_IN.into(),
            text: format!(
                "# Written by `otrelay init`: the service's secrets, and the groups of the sensor's files.\n# After a change: \
                 systemctl daemon-reload && systemctl restart otrelay\n[Service]\n{}\n",
                lines.join("\n")
            )
            .into(),
            mode: 0o644,
            owner: None,
            dir_mode: 0o755,
        })
    }
}

/// The groups that the service lacks to read the first file of a source. A link is not looked at: whoever writes there
/// could lead it to a file of a group that has nothing to do with the sensor.
fn lacking(service: &Service, source: &crate::source::Settings) -> Vec<String> {
    let crate::source::Input::Files { pattern } = &source.input else { return Vec::new() };
    let mut first = None;
    if let Ok(paths) = Pattern::new(pattern) {
        paths.each(
            |path| {
                if path.symlink_metadata().is_ok_and(|found| found.is_file() && found.nlink() == 1) {
                    first.get_or_insert(path);
                }
            },
            |_, _| {},
        );
    }
    let path = first.or_else(|| Path::new(pattern).parent().map(Path::to_owned));
    path.map_or(Vec::new(), |path| service.groups_for(&path, Path::new(DROP_IN)))
}

/// A free name beside a file for what was there; two orders may come in one second.
fn beside(path: &Path, now: &str) -> PathBuf {
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".before-init-{now}Z"));
        if n > 1 {
            name.push(format!("-{n}"));
        }
        PathBuf::from(name)
    };
    (1..100).map(name).find(|name| std::fs::symlink_metadata(name).is_err()).unwrap_or_else(|| name(100))
}

/// Writes all or nothing: what is in the way is named first, all of it. Says what was written.
fn put(files: &[Planned], force: bool) -> Result<Vec<String>, CliError> {
    let mut wrong = Vec::new();
    let mut kept = Vec::new();
    let now = clock().now().servicenow().replace(['-', ':'], "").replace(' ', "T");
    for file in files {
        let shown = one_line(&file.path.to_string_lossy()).into_owned();
        // The example that the package brought is nobody's work.
        let there = file.check_directory().and_then(|()| file.there(Some(config::example())));
        let mut keep = None;
        match there {
            Err(e) => wrong.push(format!("{shown}: {e}")),
            Ok(There::Other) if force => {
                keep = Some(beside(&file.path, &now));
            }
            Ok(There::Other) => {
                wrong.push(format!("{shown} is there already; --force replaces it and keeps it beside"));
            }
            Ok(There::Nothing | There::Free) => {}
        }
        kept.push(keep);
    }
    if !wrong.is_empty() {
        return Err(CliError::Words(format!("nothing was written: {}", wrong.join("; "))));
    }
    let mut lines = Vec::new();
    for (file, keep) in files.iter().zip(kept) {
        file.write(keep.as_deref()).map_err(|e| {
            CliError::Words(format!(
                "cannot write {}: {e}; when that is mended, run this again",
                file.path.display()
            ))
        })?;
        let beside = keep.map_or(String::new(), |keep| format!(", the old one is {}", keep.display()));
        lines.push(format!("written: {} (mode {:04o}{beside})", file.path.display(), file.mode));
    }
    Ok(lines)
}

/// A token and one read; whether to go on.
fn tried(
    args: &InitArgs,
    answers: &Answers,
    config: &Config,
    interview: &mut Interview<'_>,
    terminal: &mut Terminal<'_>,
) -> Result<bool, CliError> {
    let Some(settings) = config.destinations.first() else { return Ok(true) };
    if args.offline || answers.auth == LogIn::RefreshToken {
        return Ok(true);
    }
    let destination = ServiceNow::new(settings.clone(), clock()).map_err(AppError::from)?;
    let table = TableName::new(TABLE).map_err(|e| CliError::Words(e.to_string()))?;
    let since = Since { at: clock().now(), behind: None };
    let read = wait(destination.changed(&table, &since))?;
    let Err(e) = read else {
        writeln!(
            terminal.out,
            "tried: {} lets otrelay log in and read the table {TABLE}",
            settings.instance
        )?;
        return Ok(true);
    };
    let remedy = if e.remedy.is_empty() { String::new() } else { format!("; {}", e.remedy) };
    let said = format!("{e}{remedy}");
    writeln!(terminal.err, "otrelay: {}", one_line(&said))?;
    if interview.agrees("Write the config all the same? [y/N] ")? {
        return Ok(true);
    }
    writeln!(terminal.err, "otrelay: nothing was written; --offline writes without trying")?;
    Ok(false)
}

/// So that the next start knows the drop-in.
fn read_units_again(terminal: &mut Terminal<'_>) -> Result<(), CliError> {
    if !Path::new(SYSTEMD).is_dir() {
        return Ok(());
    }
    let done = std::process::Command::new("systemctl").arg("daemon-reload").status();
    if !done.is_ok_and(|status| status.success()) {
        writeln!(
            terminal.err,
            "otrelay: systemd could not be told of the drop-in; do it: systemctl daemon-reload"
        )?;
    }
    Ok(())
}

/// Questions and their answers: the arguments', else a person's, else the default, else missing.
struct Interview<'a> {
    args: &'a InitArgs,
    prompt: Option<Prompt>,
    missing: Vec<String>,
}

impl<'a> Interview<'a> {
    fn begin(args: &'a InitArgs) -> Self {
        let prompt = if args.yes { None } else { Prompt::open("arguments").ok() };
        Self { args, prompt, missing: Vec::new() }
    }

    fn all(&mut self, sensors: &Sensors) -> Result<Answers, CliError> {
        let args = self.args;
        let question = "Instance (https://NAME.service-now.com)";
        let instance = self.text_that(args.instance.as_ref(), "--instance", question, None, |answer| {
            let is_address = answer.contains("://");
            is_address.then_some(()).ok_or_else(|| "expected an address with https:// before it".to_owned())
        })?;
        let auth = self.auth()?;
        let mut secrets = Vec::new();
        let [client_id, username] = self.log_in(auth, &mut secrets)?;
        let proxy = self.optional(args.proxy.as_ref(), "Proxy (http://HOST:PORT)", None)?;
        let ca_file = self.optional(args.ca_file.as_ref(), "PEM file of a CA of your own", None)?;
        let suricata =
            self.optional(args.suricata_path.as_ref(), "Suricata's EVE files", sensors.suricata.as_ref())?;
        let zeek = self.optional(args.zeek_path.as_ref(), "Zeek's logs", sensors.zeek.as_ref())?;
        let defender = self.optional(
            args.defender_url.as_ref(),
            "Defender for IoT sensor (https://HOST)",
            self.defender(sensors),
        )?;
        let defender = match defender {
            Some(url) => {
                let from = (args.defender_token_file.as_deref(), args.defender_token_fd);
                Some((url, self.secret("token", "defender-token", from, "Its access token")?))
            }
            None => None,
        };
        if suricata.is_none() && zeek.is_none() && defender.is_none() {
            self.missing.push("a source (--suricata-path, --zeek-path or --defender-url)".to_owned());
        }
        Ok(Answers {
            instance,
            auth,
            client_id,
            username,
            secrets,
            ca_file,
            proxy,
            suricata,
            zeek,
            defender: defender.and_then(|(url, token)| Some((url, token?))),
            state_dir: args.state_dir.clone(),
            min_severity: self.text_that(
                args.min_severity.as_ref(),
                "--min-severity",
                "Least severity of a ticket",
                Some("major"),
                |answer| severity(answer).map(|_| ()),
            )?,
            backfill: self.text(
                args.backfill.as_ref(),
                "--backfill",
                "Forward alerts not older than",
                Some("7d"),
            )?,
        })
    }

    fn auth(&mut self) -> Result<LogIn, CliError> {
        match self.args.auth {
            Some(auth) => Ok(auth),
            None if self.prompt.is_some() => {
                let question = "Log-in: password, client-credentials, refresh-token, api-key, basic";
                let usable = |word: &str| log_in(word).map(|_| ());
                let word = self.text_that(None, "--auth", question, Some("password"), usable)?;
                log_in(&word).map_err(CliError::Words)
            }
            None => Ok(LogIn::Password),
        }
    }

    /// Client and user, and into `secrets` those of the destination.
    fn log_in(&mut self, auth: LogIn, secrets: &mut Vec<Kept>) -> Result<[Option<String>; 2], CliError> {
        let args = self.args;
        let (mut client_id, mut username) = (args.client_id.clone(), args.username.clone());
        if auth.has_client() {
            client_id = Some(self.text(args.client_id.as_ref(), "--client-id", "Client ID", None)?);
            let from = (args.client_secret_file.as_deref(), args.client_secret_fd);
            secrets.extend(self.secret(
                "client_secret",
                "servicenow-client-secret",
                from,
                "Client secret",
            )?);
        }
        if auth.has_user() {
            username = Some(self.text(args.username.as_ref(), "--username", "User", None)?);
            let from = (args.password_file.as_deref(), args.password_fd);
            secrets.extend(self.secret("password", "servicenow-password", from, "Password")?);
        }
        if auth == LogIn::ApiKey {
            let from = (args.api_key_file.as_deref(), args.api_key_fd);
            secrets.extend(self.secret("api_key", "servicenow-api-key", from, "API key")?);
        }
        Ok([client_id, username])
    }

    /// Found by its directories only: without a token it is no answer, and nobody but a person has one.
    fn defender<'s>(&self, sensors: &'s Sensors) -> Option<&'s Found> {
        let has_token = self.args.defender_token_file.is_some() || self.args.defender_token_fd.is_some();
        sensors.defender.as_ref().filter(|_| self.prompt.is_some() || has_token)
    }

    fn text(
        &mut self,
        given: Option<&String>,
        flag: &str,
        question: &str,
        default: Option<&str>,
    ) -> Result<String, CliError> {
        self.text_that(given, flag, question, default, |_| Ok(()))
    }

    /// What a person answered so that it cannot be used is asked once more, with the reason: the other answers are not lost
    /// for it. The last one is taken as it is, and refused with the config.
    fn text_that(
        &mut self,
        given: Option<&String>,
        flag: &str,
        question: &str,
        default: Option<&str>,
        usable: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, CliError> {
        if let Some(given) = given {
            return Ok(given.clone());
        }
        let shown = default.map_or(String::new(), |default| format!(" [{default}]"));
        let mut why = String::new();
        for asked in 1..=PATIENCE {
            let Some(prompt) = &mut self.prompt else { break };
            let answer = prompt.line(&format!("{why}{question}{shown}: "), true).map_err(given_up)?;
            let answer = answer.trim();
            if !answer.is_empty() {
                match usable(answer) {
                    Err(reason) if asked < PATIENCE => {
                        why = format!("{reason}\n");
                        continue;
                    }
                    _ => return Ok(answer.to_owned()),
                }
            }
            if default.is_some() {
                break;
            }
        }
        if default.is_none() {
            self.missing.push(flag.to_owned());
        }
        Ok(default.unwrap_or_default().to_owned())
    }

    /// What may be left out: `-` or, where nothing was found, nothing.
    fn optional(
        &mut self,
        given: Option<&String>,
        question: &str,
        found: Option<&Found>,
    ) -> Result<Option<String>, CliError> {
        let answer = match (given, &mut self.prompt) {
            (Some(given), _) => given.clone(),
            (None, Some(prompt)) => {
                let shown = found.map_or("none".to_owned(), |found| {
                    format!("{}, as {}; - for none", one_line(&found.value), one_line(&found.why))
                });
                prompt.line(&format!("{question} [{shown}]: "), true).map_err(given_up)?
            }
            (None, None) => String::new(),
        };
        Ok(match answer.trim() {
            "-" => None,
            "" => found.map(|found| found.value.clone()),
            answer => Some(answer.to_owned()),
        })
    }

    fn secret(
        &mut self,
        key: &'static str,
        name: &'static str,
        (file, descriptor): (Option<&Path>, Option<u32>),
        question: &str,
    ) -> Result<Option<Kept>, CliError> {
        let text = match (file, descriptor, &mut self.prompt) {
            (Some(file), ..) => of_file(file)?,
            (None, Some(number), _) => of_descriptor(number)?,
            (None, None, Some(prompt)) => {
                prompt.line(&format!("{question} (not shown): "), false).map_err(given_up)?
            }
            (None, None, None) => {
                let flag = if key == "token" { "defender-token".to_owned() } else { key.replace('_', "-") };
                self.missing.push(format!("--{flag}-file or --{flag}-fd"));
                return Ok(None);
            }
        };
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(CliError::Words(format!(
                "{question}: expected one line that is not empty; nothing was written"
            )));
        }
        Ok(Some(Kept { key, name, text: SecretString::from(text) }))
    }

    /// Only a person can agree.
    fn agrees(&mut self, question: &str) -> Result<bool, CliError> {
        let Some(prompt) = &mut self.prompt else { return Ok(false) };
        let answer = prompt.line(question, true).map_err(given_up)?;
        Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is handed over by map_err")]
fn given_up(e: std::io::Error) -> CliError {
    CliError::Words(e.to_string().replace("nothing was kept", "nothing was written"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use clap::FromArgMatches as _;
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    #[test]
    fn what_cannot_be_used_is_asked_once_more_and_nothing_else_is_lost() {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let mut person = File::from(person);
        let none = InitArgs::augment_args(clap::Command::new("init")).get_matches_from(["init"]);
        let args = InitArgs::from_arg_matches(&none).unwrap();
        let prompt = Some(Prompt::on(terminal).unwrap());
        let mut interview = Interview { args: &args, prompt, missing: Vec::new() };
        person.write_all(b"high\nhigher\nmajor\nhigh\nhigher\nhighest\n\n").unwrap();
        let mut ask = |default| {
            let usable = |answer: &str| severity(answer).map(|_| ());
            interview.text_that(None, "--min-severity", "Least severity", default, usable).unwrap()
        };
        assert_eq!(ask(None), "major");
        assert_eq!(ask(None), "highest", "the last is refused with the config");
        assert_eq!(ask(Some("minor")), "minor");
        drop(interview);
        let mut shown = Vec::new();
        // Ends with an error where nobody has the terminal any more.
        let _ = person.read_to_end(&mut shown);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        assert_eq!(shown.matches("expected warning, minor, major or critical").count(), 4, "{shown}");
    }

    #[test]
    fn what_is_kept_takes_the_place_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otrelay.toml");
        for name in
            ["otrelay.toml.before-init-TZ", "otrelay.toml.before-init-TZ-2", "otrelay.toml.before-init-TZ-3"]
        {
            let kept = beside(&path, "T");
            assert_eq!(kept, dir.path().join(name));
            std::fs::write(kept, "").unwrap();
        }
    }
}
