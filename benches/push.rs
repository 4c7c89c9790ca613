//! How long a backlog of 10 000 tickets takes with 300 ms for each request, two at once, where the instance takes batches
//! and where it does not. Goal with batches: at most 200 s. `cargo bench --bench push`; `OTRELAY_BENCH_TICKETS=1000` takes
//! another number, `OTRELAY_BENCH_SINGLE=1` also measures single requests (25 min). For people, not a gate.
#![expect(clippy::print_stdout, reason = "a line for people")]
#![expect(clippy::disallowed_methods, reason = "benches measure real time")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use otrelay::clock::{Clock, SharedClock, SystemClock};
use otrelay::destination::{Compose, Fields, TicketFacts};
use otrelay::model::{
    Alert, AlertKind, AlertState, DeliveryKind, DestinationName, Endpoint, Engine, Fingerprint, Identity,
    Protocol, RuleName, Secret, Severity, SourceName, TableName,
};
use otrelay::net::TlsSettings;
use otrelay::relay::{DOUBT_WAIT, Limits, OnUnprotected, Relay, Settings};
use otrelay::servicenow::{self, Auth, Basic, ServiceNow};
use otrelay::simulator::{Fault, FaultKind, Options, Simulator};
use otrelay::store::op::record::{Entry, Record, Routed};
use otrelay::store::{self, Store, WhenFull};
use tokio_util::sync::CancellationToken;

/// What each request takes on its way.
const LATENCY: Duration = Duration::from_millis(300);
/// Alerts of a commit while it is filled.
const FILL: u64 = 1_000;

fn main() {
    let tickets = std::env::var("OTRELAY_BENCH_TICKETS").map_or(10_000, |n| n.parse().expect("a number"));
    let ways: &[bool] = if std::env::var("OTRELAY_BENCH_SINGLE").is_ok() { &[true, false] } else { &[true] };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for batch_api in ways {
        let (took, requests) = runtime.block_on(push(tickets, *batch_api));
        let how = if *batch_api { "batches" } else { "single requests" };
        println!("{tickets} tickets, {how}, 2 at once: {:.1} s, {requests} requests", took.as_secs_f64());
    }
}

async fn push(tickets: u64, batch_api: bool) -> (Duration, u64) {
    let faults = vec![Fault::new(FaultKind::Delay(LATENCY))];
    let simulator =
        Simulator::start_on_thread(Options { batch_api, faults, ..Options::default() }).expect("it listens");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
    let (store, writer) = open(dir.path());
    for first in (0..tickets).step_by(FILL as usize) {
        store.record(vec![record(first..(first + FILL).min(tickets))]).await.expect("room");
    }
    let prod = DestinationName::new("prod").expect("a plain name");
    let own = |text: &str| Secret::new("bench", text);
    let settings = servicenow::Settings {
        name: prod.clone(),
        instance: simulator.url().parse().expect("an address"),
        auth: Auth::Basic(Basic { username: "admin".to_owned(), password: own("admin") }),
        proxy: None,
        tls: TlsSettings::default(),
        headers: Vec::new(),
        devices: None,
    };
    let clock: SharedClock = Arc::new(SystemClock);
    let destination = ServiceNow::new(settings, Arc::clone(&clock)).expect("a good config").checking();
    let limits =
        Limits { requests_per_hour: 1_000_000, max_in_flight: 2, on_unprotected: OnUnprotected::Hold };
    let settings = Settings {
        enabled: true,
        interval: Duration::from_hours(1),
        doubt_wait: DOUBT_WAIT,
        destinations: BTreeMap::from([(prod, limits)]),
        devices: None,
        sync: otrelay::sync::Settings::default(),
    };
    let relay = Relay::new(store.clone(), vec![Arc::new(destination)], Arc::new(Plain), clock, settings);
    let started = Instant::now();
    let report =
        relay.run_once(Duration::from_secs(60), &CancellationToken::new()).await.expect("a sound disk");
    let took = started.elapsed();
    assert_eq!(report.created, tickets, "{report:?}");
    assert_eq!(simulator.records("incident").len() as u64, tickets);
    let requests = simulator.requests();
    drop((relay, store));
    writer.await.expect("no panic").expect("a sound disk");
    (took, requests)
}

fn open(dir: &Path) -> (Store, tokio::task::JoinHandle<Result<(), store::StoreError>>) {
    let settings = store::Settings {
        dir: dir.to_owned(),
        max_size: 1 << 30,
        keep_delivered: Duration::from_hours(24),
        when_full: WhenFull::Refuse,
    };
    let (store, writer) = Store::open(&settings, Arc::new(SystemClock)).expect("a store");
    (store, tokio::spawn(writer.run()))
}

/// Fields without rules.
struct Plain;

impl Compose for Plain {
    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String> {
        let pairs = [
            ("short_description", facts.alert.title.clone()),
            ("description", "x".repeat(800)),
            ("impact", "1".to_owned()),
        ];
        Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

fn record(numbers: std::ops::Range<u64>) -> Record {
    let now = SystemClock.now();
    Record {
        lines: numbers.end - numbers.start,
        alerts: numbers.end - numbers.start,
        entries: numbers.map(entry).collect(),
        ..Record::new(SourceName::new("eve").expect("a good name"), now)
    }
}

fn entry(number: u64) -> Entry {
    let (source, destination) = (format!("finding {number}"), "10.0.0.11");
    let identity =
        Identity::Derived { signature: "1:2250005", source: &source, destination, protocol: "modbus" };
    let now = SystemClock.now();
    let name = SourceName::new("eve").expect("a good name");
    Entry {
        fingerprint: Fingerprint::derive("line4", &name, &identity),
        alert: Alert {
            id: None,
            time: now,
            received_at: now,
            title: format!("Modbus invalid function code {number}"),
            message: "x".to_owned(),
            severity: Severity::ALL[(number % 4) as usize],
            engine: Engine::ProtocolViolation,
            protocols: vec![Protocol::named("modbus")],
            category: None,
            source: Endpoint::default(),
            destination: Endpoint::default(),
            sensor: "line4".to_owned(),
            site: None,
            zone: None,
            state: AlertState::Raised,
            kind: AlertKind::Alert,
            references: Vec::new(),
            raw: String::new(),
        },
        occurrences: 1,
        last_seen_at: now,
        routes: vec![Routed {
            destination: DestinationName::new("prod").expect("a plain name"),
            table: TableName::new("incident").expect("a plain name"),
            rule: RuleName::new("OT security incidents").expect("one line"),
            kind: DeliveryKind::OpenTicket,
        }],
        again: None,
    }
}
