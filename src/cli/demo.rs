//! `otrelay demo`: the main job from nothing. Recorded output of a real Suricata, CEF messages over TCP and a simulated
//! Defender for `IoT` console go through the real path (files, listener, poll, rules, store on disk, HTTP) into the built-in
//! ServiceNow simulator, which loses some answers on purpose; then an account of what happened that fits one screen.
//!
//! The sources are taken in one after the other, so that each run numbers its tickets alike.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use super::human::Listing;
use super::input::Input;
use super::run::{follow, progress_bar};
use super::{CliError, Exit, Outcome, Terminal, chain, clock, wait, with_signals};
use crate::app;
use crate::config::{Config, Environment, Purpose};
use crate::model::Severity;
use crate::model::gather::Gather as _;
use crate::model::text::one_line;
use crate::net::listen;
use crate::relay::Report;
use crate::simulator::console::{Console, TOKEN};
use crate::simulator::{Fault, FaultKind, Options, Running, Simulator};
use crate::status::Notifier;
use crate::store::{AlertRow, ListFilter, Overview, Reader, TicketRow};

/// Recorded by a real Suricata over traffic of a plant of our own; tests/fixtures/eve/make has the script.
/// Packed, because the program is meant for small machines; a test holds it to `plant.json`.
const RECORDED: &[u8] = include_bytes!("../../tests/fixtures/eve/plant.json.zlib");
/// Most bytes that are unpacked.
const RECORDED_MAX: usize = 4 << 20;

/// What another sensor sends over TCP.
const MESSAGES: &str = include_str!("../../tests/fixtures/cef/demo.cef");

/// Tickets that the account lists: it has to fit one screen.
const LISTED: usize = 8;

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
    let stop = CancellationToken::new();
    wait(with_signals(stop.clone(), demo(args, dir.path(), &input, terminal, stop)))?
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
    let console = Console::bind()?;
    let others = args.input.is_none().then(|| Others { console: console.url(), cef: free_address(0) });
    let answers = CancellationToken::new();
    let work = async {
        let _end = answers.clone().drop_guard();
        play(args, dir, input, others.as_ref(), terminal, stop).await
    };
    let ((), exit) = tokio::join!(console.run(answers.clone()), work);
    exit
}

/// Where the demo's other sources are.
struct Others {
    console: String,
    cef: SocketAddr,
}

async fn play(
    args: &DemoArgs,
    dir: &Path,
    input: &Copied,
    others: Option<&Others>,
    terminal: &mut Terminal<'_>,
    stop: CancellationToken,
) -> Outcome {
    let simulator = Simulator::start(options(args.seed)).await.map_err(|e| CliError::Words(chain(&e)))?;
    let (path, config) = write_config(dir, input, others, simulator.url())?;

    let store_dir = config.store.dir.clone();
    let bar = progress_bar();
    if let Some(others) = others {
        take_in_messages(&config, others.cef, stop.child_token()).await?;
        let mut asks = config.clone();
        asks.sources.retain(|source| source.name.as_str() == CONSOLE);
        asks.relay.enabled = false;
        app::once(asks, clock(), drop, stop.clone()).await?;
    }
    let watch = |progress| follow(&bar, progress);
    let app::Once { report: first, .. } = app::once(config.clone(), clock(), watch, stop.clone()).await?;
    bar.finish_and_clear();
    let requests = simulator.requests();
    let lost = simulator.faults_fired();

    // Once more from the beginning of the sync: what is there is not made again.
    let second = app::push_once(config.clone(), clock(), stop.clone()).await?;
    let reader = Reader::open(&store_dir)?;
    let overview = reader.overview()?;
    let tickets = reader.tickets(&ListFilter::default())?;
    let findings = reader.alerts(&ListFilter::default())?;
    let account = Account {
        input: args.input.clone(),
        simulator: simulator.url().to_owned(),
        overview,
        references: findings.into_iter().filter_map(reference).into_map(),
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
        let page = free_address(9_464);
        config.status.listen = Some(page);
        serving(&path, &simulator, &input.path, page, terminal.out)?;
        simulator.clear_faults();
        let surroundings = surroundings(&store_dir, stop);
        app::serve(config, surroundings).await?;
    }
    simulator.stop().await;
    Ok(exit)
}

fn surroundings(store_dir: &Path, stop: CancellationToken) -> app::Surroundings {
    app::Surroundings {
        clock: clock(),
        socket: app::socket(store_dir, None),
        notifier: Notifier::default(),
        watchdog: None,
        stop,
        // Nobody asks a demo to read its config again.
        hangup: Arc::default(),
        reread: Arc::new(|| Err(Vec::new())),
    }
}

/// Runs the service with its listener alone, sends it the messages, and waits until all of them are committed.
async fn take_in_messages(config: &Config, cef: SocketAddr, stop: CancellationToken) -> Result<(), CliError> {
    let mut listens = config.clone();
    listens.sources.retain(|source| source.input.listens());
    listens.relay.enabled = false;
    let dir = listens.store.dir.clone();
    let service = app::serve(listens, surroundings(&dir, stop.clone()));
    let sender = async {
        let _end = stop.clone().drop_guard();
        send(cef).await?;
        let wanted = MESSAGES.lines().count() as i64;
        let read = || Reader::open(&dir).ok()?.overview().ok()?.sources.first().map(|source| source.lines);
        wait_until(|| read() >= Some(wanted) || stop.is_cancelled()).await
    };
    let (served, sent) = tokio::join!(service, sender);
    served?;
    sent
}

/// Sends the messages as another sensor would.
async fn send(cef: SocketAddr) -> Result<(), CliError> {
    let mut stream = None;
    for _ in 0..PATIENCE {
        stream = tokio::net::TcpStream::connect(cef).await.ok();
        if stream.is_some() {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let Some(mut stream) = stream else {
        return Err(CliError::Words(format!("nobody listens for CEF at {cef}")));
    };
    stream.write_all(MESSAGES.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}

/// Between two looks, and how many there are: two minutes.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: usize = 2_400;

async fn wait_until(mut is: impl FnMut() -> bool) -> Result<(), CliError> {
    for _ in 0..PATIENCE {
        if is() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(CliError::Words("the messages that were sent did not arrive".to_owned()))
}

/// A finding, and the first thing that its sensor refers to.
fn reference(row: AlertRow) -> Option<(String, String)> {
    Some((row.fingerprint, row.alert?.references.into_iter().next()?))
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

/// The config of the demo, as an operator would write it.
fn config_text(dir: &Path, input: &Copied, others: Option<&Others>, url: &str) -> String {
    let others = others.map_or(String::new(), |others| {
        format!(
            r#"[[source]]
name = "{CEF}"
kind = "syslog"
listen = ["tcp://{}"]

[[source]]
name = "{CONSOLE}"
kind = "defender-console"
url = "{}"
token = {{ file = "{}" }}
"#,
            others.cef,
            others.console,
            dir.join("token").display()
        )
    });
    format!(
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

{others}
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
    )
}

/// The same in its file, with its secrets beside it, loaded the way every config is loaded.
fn write_config(
    dir: &Path,
    input: &Copied,
    others: Option<&Others>,
    url: &str,
) -> Result<(PathBuf, Config), CliError> {
    private(&dir.join("client-secret"), "otrelay")?;
    private(&dir.join("password"), "admin")?;
    private(&dir.join("token"), TOKEN)?;
    let path = dir.join("otrelay.toml");
    private(&path, &config_text(dir, input, others, url))?;
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

/// An address of this machine: with the usual port, or another one where somebody has that.
fn free_address(usual: u16) -> SocketAddr {
    let usual = SocketAddr::from(([127, 0, 0, 1], usual));
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

struct Account {
    input: Option<PathBuf>,
    simulator: String,
    overview: Overview,
    /// What findings refer to, by fingerprint.
    references: BTreeMap<String, String>,
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

    /// The verdict first; all of it on one screen of 24 lines.
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let verdict = if self.exit() == Exit::Fine {
            "Nothing lost, nothing double."
        } else {
            "Something is left: see the numbers below."
        };
        writeln!(out, "{verdict}")?;
        writeln!(
            out,
            "{} incidents there, {} of them double; a second sync created {}.",
            self.incidents, self.twins, self.second.created
        )?;
        writeln!(out, "{} plays ServiceNow and loses a quarter of its answers.", self.simulator)?;
        writeln!(
            out,
            "{} answers were lost: the instance made the incident and nobody heard of it.\n\
             Who just tries again makes a twin. otrelay looks first, and found {} of them.\n\
             {} requests in all.",
            self.lost, self.first.found, self.requests
        )?;
        writeln!(out)?;
        self.print_intake(out)?;
        self.print_tickets(out)
    }

    /// A source's own words.
    fn source(&self, name: &str) -> String {
        match (name, &self.input) {
            (CEF, _) => "another sensor's CEF messages over TCP".to_owned(),
            (CONSOLE, _) => "a Defender for IoT console, asked for its alerts".to_owned(),
            (_, Some(path)) => one_line(&path.display().to_string()).into_owned(),
            (_, None) => "the EVE file of a real Suricata".to_owned(),
        }
    }

    fn print_intake(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut listing = Listing::fitting(Some(WIDTH), &["read", "alerts", "findings", "from"], &[]);
        for s in &self.overview.sources {
            let (lines, alerts, new) = (s.lines.to_string(), s.alerts.to_string(), s.new.to_string());
            listing.row(&[&lines, &alerts, &new, &self.source(&s.name)]);
        }
        listing.print(out)?;
        let mut why: BTreeMap<&str, i64> = BTreeMap::new();
        for source in &self.overview.sources {
            source.filtered.iter().for_each(|(reason, n)| *why.entry(reason).or_default() += n);
        }
        let why: Vec<String> = why.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        if !why.is_empty() {
            writeln!(out, "not forwarded: {}", why.join(", "))?;
        }
        let rejected: i64 = self.overview.sources.iter().flat_map(|s| s.rejected.values()).sum();
        if rejected > 0 {
            writeln!(out, "{rejected} rejected: otrelay could not read them")?;
        }
        writeln!(out)
    }

    /// What tells rows apart that look alike: what their sensor refers to, `1:1000112:3` of Suricata.
    fn reference(&self, row: &TicketRow, rows: &[&TicketRow]) -> &str {
        let is_alike = |other: &&&TicketRow| other.title == row.title && other.parties == row.parties;
        let reference = self.references.get(&row.fingerprint).map_or("", String::as_str);
        let reference = reference.strip_prefix("sid:").unwrap_or(reference);
        if rows.iter().filter(is_alike).count() > 1 { reference } else { "" }
    }

    fn print_tickets(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mut rows: Vec<&TicketRow> = self.tickets.iter().collect();
        rows.sort_by(|a, b| b.severity.cmp(&a.severity).then(a.number.cmp(&b.number)));
        let header = ["incident", "title", "from → to", "seen", "signature"];
        let mut listing = Listing::fitting(Some(WIDTH), &header, &[]);
        for row in rows.iter().take(LISTED) {
            let seen = row.occurrences.to_string();
            listing.row(&[&row.number, &row.title, &row.parties, &seen, self.reference(row, &rows)]);
        }
        listing.print(out)?;
        let more = rows.len().saturating_sub(LISTED);
        let more = if more > 0 { format!(" ({more} more than are shown)") } else { String::new() };
        let by = |severity| rows.iter().filter(|r| r.severity == severity).count();
        let counts: Vec<String> = Severity::ALL
            .into_iter()
            .rev()
            .map(|s| (s, by(s)))
            .filter(|(_, n)| *n > 0)
            .map(|(s, n)| format!("{n} {s}"))
            .collect();
        writeln!(out, "{} incidents: {}{more}", rows.len(), counts.join(", "))
    }
}

/// Names of the demo's own sources.
const CEF: &str = "cef";
const CONSOLE: &str = "console";
/// The account's width.
const WIDTH: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Severity, TicketId};
    use crate::store::SourceRow;

    #[test]
    fn the_packed_recording_is_the_fixture() {
        let fixture = include_bytes!("../../tests/fixtures/eve/plant.json");
        assert!(recorded().unwrap() == fixture, "pack plant.json again: see its README");
    }

    #[tokio::test]
    async fn the_messages_come_in_over_tcp() {
        let dir = tempfile::tempdir().unwrap();
        let input = Copied { path: dir.path().join("eve.json"), kind: "suricata-eve".to_owned() };
        let others = Others { console: "http://127.0.0.1:1".to_owned(), cef: free_address(0) };
        let (_, config) = write_config(dir.path(), &input, Some(&others), "http://127.0.0.1:1").unwrap();
        assert_eq!(config.sources.len(), 3);
        take_in_messages(&config, others.cef, CancellationToken::new()).await.unwrap();
        let overview = Reader::open(&config.store.dir).unwrap().overview().unwrap();
        let [source] = overview.sources.as_slice() else { panic!("{overview:?}") };
        assert_eq!(
            (source.name.as_str(), source.lines, source.alerts, source.new),
            (CEF, 4, 4, 2),
            "{source:?}"
        );
        assert_eq!(source.rejected.len(), 0, "{source:?}");
    }

    fn ticket(n: i64, fingerprint: &str) -> TicketRow {
        let text = |text: &str| text.to_owned();
        TicketRow {
            folded: 0,
            id: TicketId(n),
            destination: text("simulator"),
            table: text("incident"),
            number: format!("INC{n:07}"),
            sys_id: String::new(),
            state: text("open"),
            assigned_to: String::new(),
            close_notes: String::new(),
            correlation_id: String::new(),
            generation: 0,
            rule: String::new(),
            opened_at: None,
            severity: Severity::Critical,
            title: text("PLANT Modbus write from unknown host, and many more words than a line of it has"),
            parties: text("2001:db8:40:2::199 → 2001:db8:40:1::11"),
            occurrences: 1_234_567,
            fingerprint: text(fingerprint),
            adopted: String::new(),
            not_closed: String::new(),
        }
    }

    fn account() -> Account {
        let source = |name: &str| SourceRow { name: name.to_owned(), lines: 1_305, ..SourceRow::default() };
        let sources = [CEF, CONSOLE, "input"].map(source).into();
        let overview = Overview { sources, ..Overview::default() };
        Account {
            input: None,
            simulator: "http://127.0.0.1:65535".to_owned(),
            overview,
            references: [("a".to_owned(), "sid:1:1000112:3".to_owned())].into(),
            tickets: (0..92).map(|n| ticket(n, if n == 0 { "a" } else { "b" })).collect(),
            first: Report::default(),
            second: Report::default(),
            requests: 10_000,
            lost: 10_000,
            incidents: 92,
            twins: 0,
        }
    }

    #[test]
    fn the_account_begins_with_the_verdict_and_is_one_look() {
        let mut out = Vec::new();
        account().print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("Nothing lost, nothing double.\n92 incidents there, 0 of them double;"),
            "{text}"
        );
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(text.matches("1:1000112:3").count(), 1, "rows that look alike show what differs: {text}");
        let mut out = Vec::new();
        Account { twins: 1, ..account() }.print(&mut out).unwrap();
        assert!(out.starts_with(b"Something is left"));
    }
}
