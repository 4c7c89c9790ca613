//! `otrelay simulate`: the ServiceNow simulator alone, to rehearse a config against. Runs until it is interrupted.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CliError, Exit, Outcome, Terminal, chain, wait};
use crate::model::{Secret, TableName};
use crate::simulator::{FAULT_HELP, Fault, ImportMap, Options, RateRule, Running, Simulator};

// User and password come from the environment: arguments can be read by everyone on the machine.
/// Run the ServiceNow simulator until it is interrupted
#[derive(Args, Clone, Debug)]
#[command(after_help = after_help())]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SimulateArgs {
    /// Where to listen; port 0 takes a free one; other addresses than loopback need --tls
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8600")]
    pub listen: SocketAddr,

    /// HTTPS, with a certificate of a CA that is made at each start
    #[arg(long)]
    pub tls: bool,

    /// Write the CA's certificate there (PEM), for `tls = { ca_file = … }`
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub ca_out: Option<PathBuf>,

    /// A name or address the certificate is also good for
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub tls_name: Vec<String>,

    /// OAuth client instead of otrelay:otrelay
    #[arg(long, value_name = "ID:SECRET", value_parser = client)]
    pub client: Vec<(String, String)>,

    /// Public key (PEM) that may sign assertions of the grant jwt-bearer; without any, signatures are not looked at
    #[arg(long, value_name = "FILE")]
    pub jwt_key: Vec<PathBuf>,

    /// CA (PEM) whose client certificates log in
    #[arg(long, value_name = "FILE", requires = "tls")]
    pub client_ca: Option<PathBuf>,

    /// Give a new refresh token with each refresh
    #[arg(long)]
    pub rotate_refresh_token: bool,

    /// Seconds that an access token lives
    #[arg(long, value_name = "SECONDS", default_value_t = 1799)]
    pub token_lifetime: u64,

    /// One more table; it takes any field
    #[arg(long, value_name = "NAME", value_parser = table)]
    pub table: Vec<String>,

    /// A staging table of the Import Set API
    #[arg(long, value_name = "STAGING=TARGET[:COALESCE]")]
    pub import: Vec<ImportMap>,

    /// A row of `sys_properties`
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    pub property: Vec<(String, String)>,

    /// Incidents on hold are resolved by the instance itself after so many seconds, as on newer releases
    #[arg(long, value_name = "SECONDS")]
    pub resolve_on_hold: Option<u64>,

    /// Security incidents may go to any state (process NIST Open), else only to the next one
    #[arg(long)]
    pub nist_open: bool,

    /// A limit of requests, for example 100/3600
    #[arg(long, value_name = "REQUESTS/SECONDS")]
    pub rate_limit: Option<RateRule>,

    /// Requests worked on at a time; others get 429
    #[arg(long, value_name = "N")]
    pub semaphore: Option<usize>,

    /// Refuse the Batch API, as an instance does that has it not
    #[arg(long)]
    pub no_batch_api: bool,

    /// Milliseconds that each item of a batch is taken to run; a batch ends after 30 s of them
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub batch_item_ms: u64,

    /// Something that goes wrong, see below; may be given more than once
    #[arg(long, value_name = "FAULT")]
    pub fault: Vec<Fault>,

    /// Seed of the chances of faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Most records in all tables together
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub max_records: usize,
}

fn after_help() -> String {
    format!(
        "Faults:\n{FAULT_HELP}\n\n\
         While it runs: GET, POST, DELETE /simulator/faults; GET /simulator/ledger; POST /simulator/reset, \
         /simulator/clone (every ticket is lost, as by a clone of the instance).\n\
         User and password are admin/admin, or what OTRELAY_SIM_USER and OTRELAY_SIM_PASS say; \
         OTRELAY_SIM_API_KEY sets an API key."
    )
}

fn client(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once(':').filter(|(id, secret)| !id.is_empty() && !secret.is_empty());
    parts
        .map(|(id, secret)| (id.to_owned(), secret.to_owned()))
        .ok_or_else(|| "expected ID:SECRET".to_owned())
}

fn table(text: &str) -> Result<String, String> {
    TableName::new(text).map(|name| name.as_str().to_owned()).map_err(|e| e.to_string())
}

fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected NAME=VALUE".to_owned())
}

pub(super) fn run(args: SimulateArgs, terminal: &mut Terminal<'_>) -> Outcome {
    wait(simulate(args, terminal.out))??;
    Ok(Exit::Fine)
}

fn failed(what: &str, cause: &std::io::Error) -> CliError {
    CliError::Words(format!("{what}: {cause}"))
}

/// Starts it, says where and how to log in, and runs until SIGINT or SIGTERM.
async fn simulate(args: SimulateArgs, out: &mut dyn Write) -> Result<(), CliError> {
    let ca_out = args.ca_out.clone();
    let read = |path: PathBuf| {
        std::fs::read_to_string(&path).map_err(|e| failed(&format!("cannot read {}", path.display()), &e))
    };
    let jwt_keys = args.jwt_key.iter().cloned().map(read).collect::<Result<_, _>>()?;
    let client_ca = args.client_ca.clone().map(read).transpose()?;
    let options = Options { jwt_keys, client_ca, ..options(args, |name| std::env::var(name).ok()) };
    let introduction = introduction(&options);
    let running = Simulator::start(options).await.map_err(|e| CliError::Words(chain(&e)))?;
    if let (Some(path), Some(pem)) = (ca_out, running.ca_pem()) {
        let what = format!("cannot write the CA certificate to {}", path.display());
        std::fs::write(&path, pem).map_err(|e| failed(&what, &e))?;
    }
    let silent = |e: std::io::Error| failed("cannot say where it listens", &e);
    tell(&running, &introduction, out).map_err(silent)?;
    ended().await.map_err(silent)?;
    running.stop().await;
    Ok(())
}

fn options(args: SimulateArgs, env: impl Fn(&str) -> Option<String>) -> Options {
    let given = |name: &str| {
        let value = env(name).filter(|v| !v.is_empty())?;
        Some(Secret::new(format!("environment variable {name}"), value))
    };
    let plain = Options::default();
    let clients =
        args.client.into_iter().map(|(id, secret)| (id, Secret::new("--client", secret))).collect::<Vec<_>>();
    Options {
        resolve_on_hold: args.resolve_on_hold.map(Duration::from_secs),
        nist_open: args.nist_open,
        listen: args.listen,
        tls: args.tls,
        tls_names: args.tls_name,
        user: env("OTRELAY_SIM_USER").filter(|v| !v.is_empty()).unwrap_or(plain.user),
        password: given("OTRELAY_SIM_PASS").unwrap_or(plain.password),
        clients: if clients.is_empty() { plain.clients } else { clients },
        api_key: given("OTRELAY_SIM_API_KEY"),
        jwt_keys: plain.jwt_keys,
        client_ca: plain.client_ca,
        rotate_refresh: args.rotate_refresh_token,
        token_lifetime: Duration::from_secs(args.token_lifetime),
        tables: args.table,
        change_api: plain.change_api,
        batch_api: plain.batch_api && !args.no_batch_api,
        imports: args.import,
        properties: args.property,
        rate_limit: args.rate_limit,
        semaphore: args.semaphore,
        batch_item_cost: Duration::from_millis(args.batch_item_ms),
        faults: args.fault,
        seed: args.seed,
        max_records: args.max_records,
        clock: plain.clock,
    }
}

/// How to log in; passwords only where they are the documented defaults.
fn introduction(options: &Options) -> String {
    let show = |secret: &Secret| match secret.origin.as_str() {
        "simulator default" => secret.expose().to_owned(),
        origin => format!("({origin})"),
    };
    let mut text = format!("user      {} / {}\n", options.user, show(&options.password));
    for (id, secret) in &options.clients {
        text += &["client    ", id, " / ", &show(secret), "\n"].concat();
    }
    for fault in &options.faults {
        text += &["fault     ", &fault.to_string(), "\n"].concat();
    }
    text
}

fn tell(running: &Running, introduction: &str, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "instance  {}", running.url())?;
    writeln!(out, "page      {}/simulator: watch tickets appear, and close one by hand", running.url())?;
    write!(out, "{introduction}")?;
    out.flush()
}

async fn ended() -> std::io::Result<()> {
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done,
        _ = term.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SimulateArgs,
    }

    fn parse(line: &str) -> Result<SimulateArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace())).map(|l| l.args)
    }

    #[test]
    fn defaults_are_the_documented_login() {
        let options = options(parse("").unwrap(), |_| None);
        assert_eq!(options.user, "admin");
        assert_eq!(options.password.expose(), "admin");
        assert!(introduction(&options).contains("client    otrelay / otrelay"));
    }

    #[test]
    fn the_environment_sets_the_login_and_is_not_shown() {
        let env = |name: &str| match name {
            "OTRELAY_SIM_USER" => Some("svc".to_owned()),
            "OTRELAY_SIM_PASS" => Some("canary-81".to_owned()),
            _ => None,
        };
        let options = options(parse("--client a:canary-82 --fault status=503:count=5").unwrap(), env);
        assert_eq!((options.user.as_str(), options.password.expose()), ("svc", "canary-81"));
        let text = introduction(&options);
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("fault     status=503:count=5"));
    }

    #[test]
    fn a_wrong_fault_is_explained() {
        let error = parse("--fault comit-drop").unwrap_err().to_string();
        assert!(error.contains("unknown kind"), "{error}");
        assert!(parse("--rate-limit 5/0").is_err());
        assert!(parse("--ca-out x").is_err());
    }
}
