//! Commands: a file each. Data goes to stdout, notices to stderr; exit codes are 0, 1 failure, 2 usage, 74 the disk
//! failed, 75 try again later, 78 config.

mod ask;
pub mod backup;
pub mod check;
pub mod completions;
pub mod config;
#[cfg(feature = "simulator")]
pub mod demo;
pub mod devices;
pub mod diag;
pub mod doctor;
pub mod explain;
pub mod help;
mod human;
pub mod init;
mod input;
pub mod instance_setup;
pub mod lists;
pub mod login;
pub mod man;
mod owner;
mod plain;
mod prompt;
pub mod replay;
mod report;
pub mod run;
#[cfg(feature = "simulator")]
pub mod simulate;
pub mod sources;
pub mod status;
pub mod sync;
pub mod tap;
pub mod test;
pub mod top;
mod verdict;

use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio_util::sync::CancellationToken;

use self::plain::Plain;
use crate::app::AppError;
use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, ConfigError, Environment, Loaded, Purpose, Service};
use crate::control::client::AskError;
use crate::log::{self, Volume};
use crate::model::codes::Code;
use crate::model::text::{chain, clip, one_line};
use crate::rules::template::check_template;
use crate::servicenow::Settings;
use crate::store::backup::CopyError;
use crate::store::{OpenError, StoreError};

/// Carries OT/IoT security alerts from this sensor into ServiceNow.
#[derive(Debug, Parser)]
#[command(
    name = "otrelay",
    version,
    about,
    propagate_version = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        display_order = 900,
        help = "Config file instead of /etc/otrelay/otrelay.toml (also: OTRELAY_CONFIG)"
    )]
    config: Option<PathBuf>,

    /// Say more on stderr
    #[arg(long, short, global = true, display_order = 901)]
    verbose: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The main job from nothing: recorded sensor output, a simulated ServiceNow, and an account of what happened
    #[cfg(feature = "simulator")]
    Demo(demo::DemoArgs),
    /// The service: takes alerts in, decides, keeps, pushes
    Run(run::RunArgs),
    /// Ask for all that is needed, find the sensor's files, try the connection, and write config, secrets and drop-in
    Init(Box<init::InitArgs>),
    /// Check the config, offline
    Check(check::CheckArgs),
    /// What stands between this config and a ticket: clock, way, certificate, log-in, tables, sources, disk
    Doctor(doctor::DoctorArgs),
    /// Last sync, next sync, backlog, dead letters, sources, destinations; quiet when fine
    Status(status::StatusArgs),
    /// How things are, live on a terminal: countdown, rates, queue, last alerts and tickets, what needs a person
    Top(top::TopArgs),
    /// What the running service decides, alert by alert, as it decides it
    Tap(tap::TapArgs),
    /// How far each source was read, and how to have one read again
    Sources(sources::SourcesArgs),
    /// Push what is due now
    Sync(sync::SyncArgs),
    /// For one alert: how it is normalised, which rules match or why not, the request that would be sent
    Explain(explain::ExplainArgs),
    /// The test cases of the config: what is expected of a record, and what becomes of it
    Test(test::TestArgs),
    /// Which recorded alerts would go elsewhere with another config
    Replay(replay::ReplayArgs),
    /// Findings, newest first
    Alerts(lists::AlertsArgs),
    /// Tickets, newest first
    Tickets(lists::TicketsArgs),
    /// Devices: what the sources together say, and what the CMDB has still to be told
    Devices(devices::DevicesArgs),
    /// Deliveries: what ServiceNow has still to be told, and dead letters
    #[command(subcommand)]
    Queue(lists::QueueCommand),
    /// Copy the whole store to one file, also while the service runs
    Backup(backup::BackupArgs),
    /// Put such a copy in the place of the store; the service must not run
    Restore(backup::RestoreArgs),
    /// Log in to ServiceNow once with user and password, and keep only the refresh token
    Login(login::LoginArgs),
    /// What ServiceNow needs for this config: an update set for its administrator, or the same as steps
    InstanceSetup(instance_setup::InstanceSetupArgs),
    /// The effective config, its schema, the commented example
    Config(config::ConfigArgs),
    /// One packed text for whoever is asked for help, with a list of what is in it; no secrets, no alerts
    Diag(diag::DiagArgs),
    /// The ServiceNow simulator alone, to rehearse a config against
    #[cfg(feature = "simulator")]
    Simulate(Box<simulate::SimulateArgs>),
    /// Of a command, or of the code beside a message: what it means, how it comes about, the remedy
    Help(help::HelpArgs),
    /// What a shell needs to complete otrelay's arguments
    Completions(completions::CompletionsArgs),
    /// The manual pages, written into a directory
    Man(man::ManArgs),
}

/// What a command ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Fine = 0,
    /// It did not work.
    Failure = 1,
    /// The arguments do not suffice.
    Usage = 2,
    /// The disk failed: the service has to start again.
    Disk = 74,
    /// Try again later: the state directory is in use, or something still waits.
    Later = 75,
    /// The config, or the version.
    Config = 78,
}

impl Exit {
    /// This, or a failure where all would be well but for that.
    pub(crate) fn or_failed(self, failed: bool) -> Self {
        if failed && self == Self::Fine { Self::Failure } else { self }
    }
}

/// Where a command writes, and what it knows of the process.
pub(crate) struct Terminal<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) err: &'a mut dyn Write,
    pub(crate) environment: Environment,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON")]
    Json(#[from] serde_json::Error),
    #[error("cannot read {}", path.display())]
    Input {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Words(String),
}

impl CliError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::App(AppError::Rules(_) | AppError::Destination(_)) => Exit::Config,
            Self::Open(e) | Self::App(AppError::Open(e)) | Self::Copy(CopyError::Open(e)) => match e {
                OpenError::Locked { .. } => Exit::Later,
                OpenError::Newer { .. } => Exit::Config,
                e if e.is_disk() => Exit::Disk,
                _ => Exit::Failure,
            },
            Self::Store(StoreError::Disk(_) | StoreError::Damaged(_))
            | Self::App(AppError::Store(StoreError::Disk(_) | StoreError::Damaged(_))) => Exit::Disk,
            Self::Store(e) | Self::App(AppError::Store(e)) if e.is_passing() => Exit::Later,
            _ => Exit::Failure,
        }
    }
}

impl CliError {
    /// Its words in the table of codes; empty: the message says all there is.
    fn code(&self) -> &'static str {
        match self {
            Self::Open(e) | Self::App(AppError::Open(e)) | Self::Copy(CopyError::Open(e)) => match e {
                OpenError::Locked { .. } => "in-use",
                OpenError::Newer { .. } => "newer-store",
                OpenError::Absent(_) => "no-store",
                OpenError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                    "not-the-owner"
                }
                e if e.is_disk() => "store-failed",
                _ => "",
            },
            Self::Store(e) | Self::App(AppError::Store(e)) => e.code(),
            Self::App(AppError::Destination(_)) => "destination-set-up",
            Self::Ask(AskError::NotRunning(_) | AskError::Stopped) => "no-service",
            Self::Ask(AskError::Strange(_) | AskError::Refused(_)) => "refused-by-service",
            Self::Input { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "not-the-owner"
            }
            _ => "",
        }
    }

    /// The number of its code; where there is no room also what to do, as that is not in the words of the message.
    fn behind(&self) -> String {
        match self {
            Self::Store(e) | Self::App(AppError::Store(e)) => e.behind(),
            _ => Code::behind(self.code()),
        }
    }
}

type Outcome = Result<Exit, CliError>;

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Secrets are in memory: no other process of this user may read it, and no core dump may hold it. Nothing depends on it.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let variable = |name: &str| std::env::var(name).ok();
    let environment = Environment::new(variable)
        .on_machine(crate::source::host::machine_id())
        .beside(Service::find(std::path::Path::new("/")))
        .with_config(cli.config.clone());
    let mut out = Plain::new(std::io::stdout().lock());
    let mut err = Plain::new(std::io::stderr());
    let mut terminal = Terminal { out: &mut out, err: &mut err, environment };
    log_for(&cli, &terminal.environment);
    let result = dispatch(cli.command, &mut terminal).and_then(|exit| {
        terminal.out.flush()?;
        Ok(exit)
    });
    log::tell_all_kept();
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        // `otrelay alerts | head`: nobody reads on.
        Err(CliError::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(CliError::Config(e)) => {
            // Nothing is left to tell when stderr is gone.
            let code = check::refuse(&e, terminal.err).unwrap_or(check::EX_CONFIG);
            ExitCode::from(code)
        }
        Err(e) => {
            let _ = writeln!(terminal.err, "otrelay: {}{}", one_line(&chain(&e)), e.behind());
            ExitCode::from(e.exit() as u8)
        }
    }
}

/// Whether these arguments, without the program's name, are a command line that otrelay takes; else what it says.
///
/// # Errors
/// What is wrong with them.
pub fn understands(arguments: &[&str]) -> Result<(), String> {
    let all = std::iter::once("otrelay").chain(arguments.iter().copied());
    match Cli::try_parse_from(all) {
        Err(e) if !matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Err(e.to_string())
        }
        _ => Ok(()),
    }
}

fn log_for(cli: &Cli, environment: &Environment) {
    let volume = match &cli.command {
        _ if cli.verbose => Volume::Verbose,
        Command::Run(args) if !args.once => Volume::Normal,
        #[cfg(feature = "simulator")]
        Command::Demo(_) => Volume::Faults,
        _ => Volume::Quiet,
    };
    let variable = |name: &str| (environment.variables)(name).filter(|value| !value.is_empty());
    log::init(volume, variable("JOURNAL_STREAM").as_deref(), variable("NO_COLOR").is_some());
}

fn dispatch(command: Command, terminal: &mut Terminal<'_>) -> Outcome {
    match command {
        #[cfg(feature = "simulator")]
        Command::Demo(args) => demo::run(&args, terminal),
        Command::Run(args) => run::run(&args, terminal),
        Command::Init(args) => init::run(&args, terminal),
        Command::Check(args) => {
            let environment = &terminal.environment;
            Ok(numbered(check::check(&args, environment, check_template, terminal.out, terminal.err)?))
        }
        Command::Diag(args) => diag::run(&args, terminal),
        Command::Doctor(args) => doctor::run(&args, terminal),
        Command::Status(args) => status::run(&args, terminal),
        Command::Top(args) => top::run(args, terminal),
        Command::Tap(args) => tap::run(&args, terminal),
        Command::Sources(args) => sources::run(&args, terminal),
        Command::Sync(args) => sync::run(&args, terminal),
        Command::Explain(args) => explain::run(&args, terminal),
        Command::Test(args) => test::run(&args, terminal),
        Command::Replay(args) => replay::run(&args, terminal),
        Command::Alerts(args) => lists::alerts(&args, terminal),
        Command::Tickets(args) => lists::tickets(&args, terminal),
        Command::Devices(args) => devices::run(&args, terminal),
        Command::Queue(command) => lists::queue(command, terminal),
        Command::Backup(args) => backup::run_backup(&args, terminal),
        Command::Restore(args) => backup::run_restore(&args, terminal),
        Command::Login(args) => login::run(&args, terminal),
        Command::InstanceSetup(args) => instance_setup::run(&args, terminal),
        Command::Config(args) => {
            let environment = &terminal.environment;
            Ok(numbered(config::config(&args, environment, check_template, terminal.out, terminal.err)?))
        }
        #[cfg(feature = "simulator")]
        Command::Simulate(args) => simulate::run(*args, terminal),
        Command::Help(args) => help::run(&args, Cli::command(), terminal.out),
        Command::Completions(args) => completions::run(&args, Cli::command(), terminal.out),
        Command::Man(args) => man::run(&args, Cli::command(), terminal.out),
    }
}

fn numbered(code: u8) -> Exit {
    match code {
        0 => Exit::Fine,
        78 => Exit::Config,
        _ => Exit::Failure,
    }
}

/// Loads the config for work, and becomes the owner of its state directory; warnings go to stderr once.
fn load(terminal: &mut Terminal<'_>) -> Result<Config, CliError> {
    begin(load_as_caller(terminal, Purpose::Run)?, terminal)
}

/// Loads the config to look at it: no secret has to be there. The state directory may not be touched after it: `ask.rs`
/// and [`load`] are for that.
fn load_to_look(terminal: &Terminal<'_>) -> Result<Config, CliError> {
    Ok(load_as_caller(terminal, Purpose::Show)?.config)
}

/// Loads the config with the rights of who runs this. The state directory may not be touched with them: that is for the
/// owner of it (`owner.rs`).
fn load_as_caller(terminal: &Terminal<'_>, purpose: Purpose) -> Result<Loaded, ConfigError> {
    crate::config::load(&terminal.environment, purpose, check_template)
}

/// Becomes the owner of the state directory of a config that is loaded, and tells what is odd about it.
fn begin(loaded: Loaded, terminal: &mut Terminal<'_>) -> Result<Config, CliError> {
    owner::become_owner(&loaded.config.store.dir)?;
    for warning in &loaded.warnings {
        writeln!(terminal.err, "{warning}")?;
    }
    Ok(loaded.config)
}

/// The destination of this name.
fn destination<'a>(all: &'a [Settings], name: &str) -> Result<&'a Settings, CliError> {
    all.iter().find(|settings| settings.name.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = all.iter().map(|settings| settings.name.as_str()).collect();
        let name = one_line(name);
        let (name, known) = (clip(&name, 64), known.join(", "));
        CliError::Words(format!("there is no destination `{name}`; known: {known}"))
    })
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// One thread for everything, and at most three for what blocks: disk, files, names.
fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(3)
        .thread_keep_alive(std::time::Duration::from_secs(30))
        .build()
        .map_err(|e| CliError::Words(format!("cannot start the runtime: {e}")))
}

/// Runs `work` to its end. Boxed, so that the runtime's part of it is in the program once and not for each command.
fn wait<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let runtime = runtime()?;
    let mut result = None;
    let work: Pin<Box<dyn Future<Output = ()> + '_>> = Box::pin(async { result = Some(work.await) });
    runtime.block_on(work);
    result.ok_or_else(|| CliError::Words("the runtime ended before its work".to_owned()))
}

/// Runs `work`; SIGTERM and SIGINT cancel `stop`, and `work` then ends in its own order.
async fn with_signals<T>(stop: CancellationToken, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = signalled() => stop.cancel(),
    }
    work.await
}

async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(e: impl Into<CliError>) -> u8 {
        e.into().exit() as u8
    }

    #[test]
    fn systemd_learns_from_the_exit_code_what_to_do() {
        let disk = StoreError::Disk("a sync failed".to_owned());
        assert_eq!(code(AppError::Store(disk.clone())), 74);
        assert_eq!(code(disk), 74);
        let io = |kind: rustix::io::Errno| OpenError::Io { path: "/x".into(), source: kind.into() };
        assert_eq!(code(io(rustix::io::Errno::IO)), 74);
        assert_eq!(code(io(rustix::io::Errno::ACCESS)), 1);
        assert_eq!(code(CopyError::Open(OpenError::Locked { dir: "/x".into(), pid: String::new() })), 75);
        assert_eq!(code(OpenError::Newer { path: "/x".into(), found: 9, known: 3 }), 78);
        assert_eq!(code(StoreError::Damaged("a page".to_owned())), 74);
    }
}
