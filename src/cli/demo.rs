//! `otrelay demo`: the main job from nothing. Recorded output of a real Suricata goes through the real path (files,
//! rules, store on disk, HTTP) into the built-in ServiceNow simulator, which loses some answers on purpose; then a
//! readable account of what happened to every line.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::human::Listing;
use super::input::Input;
use super::run::{follow, progress_bar};
use super::{CliError, Exit, Outcome, Terminal, chain, clock, runtime, with_signals};
use crate::app;
use crate::config::{Config, Environment, Purpose};
use crate::model::Severity;
use crate::net::listen;
use crate::relay::Report;
use crate::simulator::{Fault, FaultKind, Options, Running, Simulator};
use crate::status::Notifier;
use crate::store::{ListFilter, Overview, Reader, TicketRow};

/// Recorded by a real Suricata over traffic of a plant of our own; tests/fixtures/eve/make has the script.
/// Packed, because the program is meant for small machines; a test holds it to `plant.json`.
const RECORDED: &[u8] = include_bytes!("../../tests/fixtures/eve/plant.json.zlib");
/// Most bytes that are unpacked.
const RECORDED_MAX: usize = 4 << 20;

/// Tickets that the account lists.
const LISTED: usize = 25;

/// Arguments of `otrelay demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Your own file of a sensor instead of the recording, also packed with gzip; it is only read
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// The kind of source that the file is of, as in the config; by default found out from the file
    #[arg(long, value_name = "KIND", requires = "input")]
    pub kind: Option<String>,
    /// Keep simulator and service running afterwards, and say how to look at them
    #[arg(long)]
    pub serve: bool,
    /// Seed of the simulator's faults
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub seed: u64,
}

pub(super) fn run(args: &DemoArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let dir = tempfile::Builder::new().prefix("otrelay-demo-").tempdir()?;
    let input = input(args, dir.path())?;
    let runtime = runtime()?;
    let stop = CancellationToken::new();
    runtime.block_on(with_signals(stop.clone(), demo(args, dir.path(), &input, terminal, stop)))
}

/// What the demo's source reads.
struct Copied {
    path: PathBuf,
    kind: String,
}

/// A copy of the input beside the store, unpacked: the source is read where nobody else writes.
fn input(args: &DemoArgs, dir: &Path) -> Result<Copied, CliError> {
    const EVE: &str = "suricata-eve";
    let Some(path) = &args.input else {
        let eve = dir.join("eve.json");
        std::fs::write(&eve, recorded()?)?;
        return Ok(Copied { path: eve, kind: EVE.to_owned() });
    };
    let wrong = |source| CliError::Input { path: path.clone(), source };
    if !std::fs::metadata(path).map_err(wrong)?.is_file() {
        return Err(CliError::Words(format!("{} is not a regular file", path.display())));
    }
    let mut input = Input::open(path)?;
    let kind = args.kind.clone().unwrap_or_else(|| input.kind().unwrap_or(EVE).to_owned());
    // Some formats go by the name of the file. What a pattern would take for a wildcard is not in the copy's name.
    let name: String =
        input.name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect();
    let copy = dir.join("input").join(name);
    std::fs::create_dir(dir.join("input"))?;
    std::io::copy(&mut input.bytes, &mut std::fs::File::create_new(&copy)?).map_err(wrong)?;
    Ok(Copied { path: copy, kind })
}

fn recorded() -> Result<Vec<u8>, CliError> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(RECORDED, RECORDED_MAX)
        .map_err(|e| CliError::Words(format!("the recording in this program is damaged: {e}")))
}

async fn demo(
    args: &DemoArgs,
    dir: &Path,
    input: &Copied,
    terminal: &mut Terminal<'_>,
    stop: CancellationToken,
) -> Outcome {
    let simulator = Simulator::start(options(args.seed)).await.map_err(|e| CliError::Words(chain(&e)))?;
    let (path, config) = write_config(dir, input, simulator.url())?;
    opening(args, &simulator, terminal.out)?;

    let store_dir = config.store.dir.clone();
    let bar = progress_bar();
    let watch = |progress| follow(&bar, progress);
    let (first, _) = app::once(config.clone(), clock(), watch, stop.clone()).await?;
    bar.finish_and_clear();
    let requests = simulator.requests();
    let lost = simulator.faults_fired();

    // Once more from the beginning of the sync: what is there is not made again.
    let second = app::push_once(config.clone(), clock(), stop.clone()).await?;
    let reader = Reader::open(&store_dir)?;
    let overview = reader.overview()?;
    let tickets = reader.tickets(&ListFilter::default())?;
    let account = Account {
        overview,
        tickets,
        first,
        second,
        requests,
        lost,
        incidents: simulator.records("incident").len(),
        twins: simulator.twins().len(),
    };
    account.print(terminal.out)?;
    terminal.out.flush()?;
    let exit = account.exit();

    if args.serve {
        let mut config = config;
        let page = free_address();
        config.status.listen = Some(page);
        serving(&path, &simulator, &input.path, page, terminal.out)?;
        simulator.clear_faults();
        let socket = app::socket(&store_dir, None);
        let surroundings = app::Surroundings {
            clock: clock(),
            socket,
            notifier: Notifier::default(),
            watchdog: None,
            stop,
            // Nobody asks a demo to read its config again.
            hangup: Arc::default(),
            reread: Arc::new(|| Err(Vec::new())),
        };
        app::serve(config, surroundings).await?;
    }
    simulator.stop().await;
    Ok(exit)
}

/// A quarter of the answers to creates is lost after the record was made, and twice the instance says 500 to a
/// create that it has done.
fn options(seed: u64) -> Options {
    let creates = "/api/now/table/incident";
    Options {
        seed,
        // One record a request, so that an answer that is lost is one of one ticket.
        batch_api: false,
        faults: vec![
            Fault::new(FaultKind::Commit500).times(2).after(5).on("POST", creates),
            Fault::new(FaultKind::CommitDrop).rate(0.25).on("POST", creates),
        ],
        ..Options::default()
    }
}

/// The config of the demo, as an operator would write it, loaded the way every config is loaded.
fn write_config(dir: &Path, input: &Copied, url: &str) -> Result<(PathBuf, Config), CliError> {
    let text = format!(
        r#"[agent]
name = "demo-sensor"
id = "demo"
site = "Demo plant"
zone = "Line 1"
state_dir = "{state}"

[sync]
backfill = "all"
interval = "5m"

[servicenow.simulator]
instance = "{url}"
auth = "password"
client_id = "otrelay"
client_secret = {{ file = "{secret}" }}
username = "admin"
password = {{ file = "{password}" }}

[[source]]
name = "input"
kind = "{kind}"
path = "{input}"

[[rule]]
name = "Major and worse"
min_severity = "major"
[[rule.action]]
servicenow = "simulator"

[[rule]]
name = "Malformed OT protocols"
min_severity = "minor"
protocols = ["Modbus", "DNP3", "EtherNet/IP", "Siemens S7", "BACnet"]
engines = ["protocol violation"]
[[rule.action]]
servicenow = "simulator"
[rule.action.fields]
short_description = "[OT protocol] {{{{ title }}}} ({{{{ sensor }}}})"
"#,
        state = dir.join("state").display(),
        secret = dir.join("client-secret").display(),
        password = dir.join("password").display(),
        kind = input.kind,
        input = input.path.display(),
    );
    private(&dir.join("client-secret"), "otrelay")?;
    private(&dir.join("password"), "admin")?;
    let path = dir.join("otrelay.toml");
    private(&path, &text)?;
    let environment = Environment::new(|_| None).with_config(Some(path.clone()));
    let loaded = crate::config::load(&environment, Purpose::Run, crate::rules::template::check_template)?;
    let mut config = loaded.config;
    // The simulator's list queries do not lag, and nobody should have to wait for six seconds.
    config.relay.doubt_wait = Duration::from_millis(300);
    Ok((path, config))
}

fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn opening(args: &DemoArgs, simulator: &Running, out: &mut dyn Write) -> std::io::Result<()> {
    match &args.input {
        None => writeln!(out, "Input      recorded output of a real Suricata")?,
        Some(path) => writeln!(out, "Input      {}", path.display())?,
    }
    writeln!(
        out,
        "ServiceNow a simulator at {}, which loses a quarter of its answers on purpose",
        simulator.url()
    )?;
    writeln!(out, "Rules      everything from major up; malformed OT protocols from minor up")?;
    writeln!(out)
}

/// Where the demo's status page is: the usual address, or another one where somebody has that.
fn free_address() -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], 9_464));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = |address| listen::tcp(address).and_then(|listener| listener.local_addr());
    bound(usual).or_else(|_| bound(any)).unwrap_or(usual)
}

fn serving(
    config: &Path,
    simulator: &Running,
    input: &Path,
    page: SocketAddr,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out)?;
    writeln!(out, "Simulator and service keep running until Ctrl-C:")?;
    writeln!(out, "  the status page: http://{page}/")?;
    writeln!(out, "  otrelay --config {} status", config.display())?;
    writeln!(out, "  otrelay --config {} tickets", config.display())?;
    writeln!(out, "  curl -u admin:admin '{}/api/now/table/incident?sysparm_limit=3'", simulator.url())?;
    writeln!(
        out,
        "  append lines to {} and run: otrelay --config {} sync",
        input.display(),
        config.display()
    )?;
    out.flush()
}

/// What happened.
struct Account {
    overview: Overview,
    tickets: Vec<TicketRow>,
    first: Report,
    second: Report,
    requests: u64,
    lost: u64,
    incidents: usize,
    twins: usize,
}

impl Account {
    fn exit(&self) -> Exit {
        let complete = self.overview.backlog == 0 && self.overview.dead == 0 && self.twins == 0;
        let agrees = self.incidents == self.tickets.len() && self.second.created == 0;
        if complete && agrees { Exit::Fine } else { Exit::Failure }
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        self.print_intake(out)?;
        self.print_tickets(out)?;
        self.print_push(out)
    }

    fn print_intake(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let sum =
            |get: fn(&crate::store::SourceRow) -> i64| self.overview.sources.iter().map(get).sum::<i64>();
        let (lines, alerts) = (sum(|s| s.lines), sum(|s| s.alerts));
        let mut filtered: BTreeMap<&str, i64> = BTreeMap::new();
        let mut rejected: BTreeMap<&str, i64> = BTreeMap::new();
        for source in &self.overview.sources {
            source.filtered.iter().for_each(|(why, n)| *filtered.entry(why).or_default() += n);
            source.rejected.iter().for_each(|(why, n)| *rejected.entry(why).or_default() += n);
        }
        let kept = alerts - filtered.values().sum::<i64>();
        writeln!(out, "{lines:>7} lines read")?;
        writeln!(
            out,
            "{alerts:>7} of them are alerts; the others are flows, statistics and protocol records"
        )?;
        for (why, n) in &rejected {
            writeln!(out, "{n:>7} rejected: {why}")?;
        }
        for (why, n) in &filtered {
            writeln!(out, "{n:>7} alerts not forwarded: {why}")?;
        }
        writeln!(
            out,
            "{kept:>7} alerts to forward, grouped into {} findings ({} repeats counted on them)",
            sum(|s| s.new),
            sum(|s| s.repeats)
        )?;
        writeln!(out)
    }

    fn print_tickets(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut rows: Vec<&TicketRow> = self.tickets.iter().collect();
        rows.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.number.cmp(&b.number)));
        let mut listing = Listing::new(&["incident", "severity", "title", "from → to", "seen"]);
        for row in rows.iter().take(LISTED) {
            listing.row(&[
                &row.number,
                row.severity.as_str(),
                &row.title,
                &row.parties,
                &row.occurrences.to_string(),
            ]);
        }
        listing.print(out)?;
        if let Some(more) = rows.len().checked_sub(LISTED).filter(|n| *n > 0) {
            writeln!(out, "… and {more} more")?;
        }
        let by = |severity| rows.iter().filter(|r| r.severity == severity).count();
        let counts: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .map(|s| (s, by(s)))
            .filter(|(_, n)| *n > 0)
            .map(|(s, n)| format!("{n} {s}"))
            .collect();
        writeln!(out, "{} incidents: {}", rows.len(), counts.join(", "))?;
        writeln!(out)
    }

    fn print_push(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{:>7} answers were lost or wrong after the instance had made the record; each was looked up, {} found",
            self.lost, self.first.found
        )?;
        writeln!(out, "{:>7} incidents there, {} of them double", self.incidents, self.twins)?;
        writeln!(out, "{:>7} requests in all; a second sync created {}", self.requests, self.second.created)?;
        let verdict = if self.exit() == Exit::Fine {
            "Nothing lost, nothing double."
        } else {
            "Something is left: see the numbers above."
        };
        writeln!(out, "{verdict}")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_packed_recording_is_the_fixture() {
        let fixture = include_bytes!("../../tests/fixtures/eve/plant.json");
        assert!(super::recorded().unwrap() == fixture, "pack plant.json again: see its README");
    }
}
