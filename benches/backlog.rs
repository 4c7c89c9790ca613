//! Whether the store grows slower as the backlog grows: claim 10, settle 10, insert 10, with 1 000 to 1 000 000
//! deliveries queued, and how long it takes to open. Goal: at most 1.25 times. `cargo bench --bench backlog`;
//! `OTRELAY_BENCH_QUEUED=1000,10000000` takes other sizes (10 M need 15 GB of disk). For people, not a gate.
#![expect(clippy::print_stdout, reason = "a table for people")]
#![expect(clippy::disallowed_methods, reason = "benches measure real time")]

#[expect(dead_code, reason = "shared with the other benches")]
mod machine;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::{Reading, cpu};
use otrelay::clock::{Clock, SharedClock, SystemClock};
use otrelay::model::{
    Alert, AlertKind, AlertState, DestinationName, Endpoint, Engine, Fingerprint, Identity, Protocol,
    RuleName, Severity, SourceName, SysId, TableName,
};
use otrelay::store::op::claim::Claim;
use otrelay::store::op::record::{Entry, Record, Routed};
use otrelay::store::op::settle::{Outcome, Settled};
use otrelay::store::{self, Store, WhenFull};

/// Rounds at each size; the median counts.
const ROUNDS: usize = 500;
/// Deliveries of a round.
const STEP: usize = 10;
/// Alerts of a commit while it is filled.
const FILL: u64 = 4_000;

/// Medians of CPU time and wall time of one kind of call.
type Medians = (Duration, Duration);

fn main() {
    let sizes = std::env::var("OTRELAY_BENCH_QUEUED").unwrap_or_else(|_| "1000,100000,1000000".to_owned());
    let sizes: Vec<u64> = sizes.split(',').map(|size| size.parse().expect("a number")).collect();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
    println!(
        "{:>9}  {:>16} {:>16} {:>16}  {:>8} {:>9} {:>10}   (medians, CPU / wall in us for {STEP} each)",
        "queued", "claim", "settle", "insert", "open ms", "peak MiB", "B per life"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut first: Option<[Medians; 3]> = None;
    for size in sizes {
        let (medians, bytes) = runtime.block_on(measure(dir.path(), size));
        let started = Instant::now();
        let (store, writer) = open(dir.path());
        let open_ms = started.elapsed().as_secs_f64() * 1e3;
        drop((store, writer));
        let show = |(cpu, wall): &Medians| format!("{:.0} / {:.0}", us(*cpu), us(*wall));
        println!(
            "{size:>9}  {:>16} {:>16} {:>16}  {open_ms:>8.1} {:>9.1} {bytes:>10}",
            show(&medians[0]),
            show(&medians[1]),
            show(&medians[2]),
            machine::peak_mib()
        );
        let base = first.get_or_insert(medians);
        let times = |at: usize| us(medians[at].0) / us(base[at].0);
        println!("{:>9}  {:>16.2} {:>16.2} {:>16.2}", "times", times(0), times(1), times(2));
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn open(dir: &Path) -> (Store, store::Writer) {
    let settings = store::Settings {
        dir: dir.to_owned(),
        max_size: 64 << 30,
        keep_delivered: Duration::from_hours(24),
        when_full: WhenFull::Refuse,
    };
    let clock: SharedClock = Arc::new(SystemClock);
    Store::open(&settings, clock).expect("a store")
}

/// Fills up to `size` and measures; also gives the bytes written for each alert's life in these rounds.
async fn measure(dir: &Path, size: u64) -> ([Medians; 3], u64) {
    let (store, writer) = open(dir);
    let writer = tokio::spawn(writer.run());
    let database = dir.join(store::DATABASE);
    let overview = store::Reader::open(dir).expect("a store").overview().expect("a sound store");
    let mut next = overview.sources.iter().map(|source| source.alerts as u64).sum::<u64>();
    let mut queued = overview.backlog as u64;
    while queued < size {
        let now = FILL.min(size - queued);
        store.record(vec![record(next..next + now)]).await.expect("room");
        next += now;
        queued += now;
    }

    let mut times = [const { Vec::new() }; 3];
    let before = Reading::take(&database);
    for _ in 0..ROUNDS {
        let claim = Claim {
            destination: DestinationName::new("prod").expect("a plain name"),
            except: Vec::new(),
            limit: STEP,
            only_tried: false,
            fresh_first: false,
            min_severity: Severity::Warning,
            peek: false,
            links: false,
            now: SystemClock.now(),
        };
        let claimed = timed(&mut times[0], store.claim(claim)).await.expect("a sound disk");
        assert_eq!(claimed.len(), STEP, "there is always enough");
        let settled = claimed.iter().map(|claimed| Settled {
            id: claimed.id,
            started_at: SystemClock.now(),
            duration_ms: 5,
            status: Some(201),
            outcome: Outcome::Delivered {
                created: true,
                sys_id: SysId::new(&format!("{:032x}", claimed.id.0)).expect("32 hex digits"),
                number: "INC0010001".to_owned(),
                state: "1".to_owned(),
                mod_count: None,
                adopted: None,
                looks_for: Vec::new(),
            },
        });
        timed(&mut times[1], store.settle(settled.collect())).await.expect("a sound disk");
        let batch = record(next..next + STEP as u64);
        timed(&mut times[2], store.record(vec![batch])).await.expect("room");
        next += STEP as u64;
    }
    let cost = before.until(&Reading::take(&database));
    drop(store);
    writer.await.expect("no panic").expect("a sound disk");
    (times.map(medians), cost.wchar / (ROUNDS * STEP) as u64)
}

async fn timed<T>(times: &mut Vec<(Duration, Duration)>, work: impl Future<Output = T>) -> T {
    let (cpu_before, wall_before) = (cpu(), Instant::now());
    let done = work.await;
    times.push((cpu().saturating_sub(cpu_before), wall_before.elapsed()));
    done
}

fn medians(mut times: Vec<(Duration, Duration)>) -> Medians {
    let middle = times.len() / 2;
    times.sort_unstable_by_key(|(cpu, _)| *cpu);
    let cpu = times[middle].0;
    times.sort_unstable_by_key(|(_, wall)| *wall);
    (cpu, times[middle].1)
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
            title: "SURICATA Modbus invalid Function code".to_owned(),
            message: "SURICATA Modbus invalid Function code\nFrom: 10.0.0.7\nTo: 10.0.0.11 port 502"
                .to_owned(),
            severity: Severity::ALL[(number % 4) as usize],
            engine: Engine::ProtocolViolation,
            protocols: vec![Protocol::named("modbus")],
            category: Some("Generic Protocol Command Decode".to_owned()),
            source: Endpoint::default(),
            destination: Endpoint::default(),
            sensor: "line4".to_owned(),
            site: Some("Plant North".to_owned()),
            zone: None,
            state: AlertState::Raised,
            kind: AlertKind::Alert,
            references: vec!["sid:1:2250005:2".to_owned()],
            raw: "x".repeat(300),
        },
        occurrences: 1,
        last_seen_at: now,
        routes: vec![Routed {
            destination: DestinationName::new("prod").expect("a plain name"),
            table: TableName::new("incident").expect("a plain name"),
            rule: RuleName::new("OT security incidents").expect("one line"),
            kind: otrelay::model::DeliveryKind::OpenTicket,
        }],
        again: None,
    }
}
