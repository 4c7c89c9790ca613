//! The whole way in: an EVE file on disk, through tail, rules and intake, durably into the store (`synchronous=FULL`).
//! Goals: 60 000 alerts a second of CPU, 45 000 of wall time, 1.5 million lines a second of CPU where 2 % are alerts,
//! 3 000 bytes written per alert. `cargo bench --bench intake [-- alerts|storm|mixed]`; for people, not a gate.
//! `OTRELAY_BENCH_LINES` sets the number of lines (200 000), `OTRELAY_BENCH_RUNS` the runs of each (5). A slow card:
//! `strace -f --seccomp-bpf -e trace=fdatasync -e inject=fdatasync:delay_exit=20000` before the bench's program.
#![expect(clippy::print_stdout, reason = "a table for people")]
#![expect(clippy::disallowed_methods, reason = "a bench spawns and measures real time")]

mod machine;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machine::{Cost, Reading, wanted};
use otrelay::clock::SystemClock;
use otrelay::intake::{self, Backfill, Intake};
use otrelay::model::{DestinationName, RuleName, Severity, SourceName, TableName};
use otrelay::rules::exclude::Exclusions;
use otrelay::rules::{ActionSettings, RuleSettings, Rules};
use otrelay::source::format::eve::{self, Eve};
use otrelay::source::format::{Apart, Settings as Common};
use otrelay::source::transport::tail::{self, Tail};
use otrelay::source::{Reading as HowLong, Reads, Source};
use otrelay::store::{self, Store, WhenFull};
use tokio_util::sync::CancellationToken;

/// Length of a line: what Suricata writes for a Modbus alert with flow, metadata and payload.
const LINE: usize = 1_373;

/// What is in the file.
struct Input {
    name: &'static str,
    /// The record number `n`.
    line: fn(u64) -> String,
    /// Alerts among so many lines.
    alerts: fn(u64) -> u64,
}

const INPUTS: [Input; 3] = [
    Input { name: "alerts", line: |n| alert(n, n), alerts: |lines| lines },
    Input { name: "storm", line: |n| alert(n, n % 500), alerts: |lines| lines },
    Input {
        name: "mixed",
        line: |n| if n % 50 == 0 { alert(n, n) } else { other(n) },
        alerts: |lines| lines.div_ceil(50),
    },
];

fn main() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (lines, runs) = (number("OTRELAY_BENCH_LINES", 200_000), number("OTRELAY_BENCH_RUNS", 5));
    let wanted = wanted();
    println!(
        "{:<8} {:>10} {:>12} {:>12} {:>11} {:>11} {:>9} {:>8}",
        "input", "alerts", "per s wall", "per CPU s", "wchar/al.", "disk/al.", "commits", "lines/CPU s"
    );
    for input in INPUTS.iter().filter(|input| wanted(input.name)) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
        let eve = dir.path().join("eve.json");
        write(&eve, lines, input.line);
        for run in 0..runs {
            let state = dir.path().join(format!("state{run}"));
            let cost = take_in(&eve, &state, (input.alerts)(lines));
            show(input, lines, &cost);
            std::fs::remove_dir_all(state).expect("its own directory");
        }
    }
    println!("peak of memory, input in the page cache not counted: {:.1} MiB", machine::peak_mib());
}

fn show(input: &Input, lines: u64, cost: &Cost) {
    let alerts = (input.alerts)(lines) as f64;
    println!(
        "{:<8} {:>10} {:>12.0} {:>12.0} {:>11.0} {:>11.0} {:>9} {:>8.0}",
        input.name,
        alerts,
        alerts / cost.wall.as_secs_f64(),
        alerts / cost.cpu.as_secs_f64(),
        cost.wchar as f64 / alerts,
        cost.write_bytes as f64 / alerts,
        cost.commits,
        lines as f64 / cost.cpu.as_secs_f64()
    );
}

/// Takes the file in as the service does, without sending anything.
fn take_in(eve: &Path, state: &Path, alerts: u64) -> Cost {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clock: otrelay::clock::SharedClock = Arc::new(SystemClock);
        let settings = store::Settings {
            dir: state.to_owned(),
            max_size: 8 << 30,
            keep_delivered: Duration::from_hours(24),
            when_full: WhenFull::Refuse,
        };
        let (store, writer) = Store::open(&settings, Arc::clone(&clock)).expect("a store");
        let writer = tokio::spawn(writer.run());
        let rules = Arc::new(Rules::compile(&rules()).expect("good rules"));
        let intake = Intake::new(
            store.clone(),
            rules,
            Arc::clone(&clock),
            intake::Settings {
                backfill: Backfill::All,
                agent: "bench".to_owned(),
                exclusions: Exclusions::default(),
                silences: Vec::new(),
            },
        );
        let tail = Tail::new(tail_settings(eve), clock);
        let (mut send, receive) = intake::lanes(1);
        let stop = CancellationToken::new();
        let database = state.join(store::DATABASE);

        let before = Reading::take(&database);
        let source = tokio::spawn(tail.run(send.remove(0), stop.clone()));
        intake.run(receive, stop).await.expect("a sound disk");
        source.await.expect("no panic").expect("an open channel");
        let after = Reading::take(&database);

        drop(store);
        writer.await.expect("no panic").expect("a sound disk");
        let overview = store::Reader::open(state).expect("a store").overview().expect("a sound store");
        let taken: i64 = overview.sources.iter().map(|source| source.alerts).sum();
        assert_eq!(taken as u64, alerts, "every alert is stored");
        before.until(&after)
    })
}

fn tail_settings(eve: &Path) -> tail::Settings {
    let source = SourceName::new("eve").expect("a good name");
    tail::Settings {
        name: source.clone(),
        pattern: eve.display().to_string(),
        kind: "suricata-eve",
        format: Reads::new(Eve::new(eve::Settings {
            common: Common { site: Some("Plant North".to_owned()), ..Common::new("line4", "line4", source) },
            apart: Apart::default(),
            signature_severity: true,
            time_zone: jiff::tz::TimeZone::UTC,
        })),
        reading: HowLong::Once,
        cursors: Vec::new(),
        read_before: false,
        again: None,
    }
}

/// One rule that takes all.
fn rules() -> Vec<RuleSettings> {
    vec![RuleSettings {
        name: RuleName::new("OT security incidents").expect("one line"),
        enabled: true,
        min_severity: Severity::Warning,
        protocols: None,
        engines: None,
        report_alerts: true,
        report_system_notifications: false,
        actions: vec![ActionSettings {
            destination: DestinationName::new("prod").expect("a plain name"),
            table: TableName::new("incident").expect("a plain name"),
            kind: otrelay::model::DeliveryKind::OpenTicket,
            fields: BTreeMap::new(),
            columns: BTreeMap::new(),
            life: otrelay::model::life::Life::default(),
            closing: BTreeMap::new(),
        }],
    }]
}

fn write(path: &PathBuf, lines: u64, line: fn(u64) -> String) {
    let file = std::fs::File::create(path).expect("a file");
    let mut out = std::io::BufWriter::new(file);
    for n in 0..lines {
        out.write_all(line(n).as_bytes()).expect("room on the disk");
    }
    out.into_inner().expect("room on the disk").sync_all().expect("a sound disk");
}

/// A record of the usual length; `finding` decides the addresses, so the fingerprint.
fn record(kind: &str, number: u64, finding: u64, body: &str) -> String {
    let mut line = format!(
        r#"{{"timestamp":"2026-11-20T06:{minute:02}:{second:02}.{micros:06}+0000","flow_id":{flow},"in_iface":"eth1","event_type":"{kind}","vlan":[100],"src_ip":"10.{a}.{b}.{c}","src_port":{port},"dest_ip":"10.0.0.11","dest_port":502,"proto":"TCP","pkt_src":"wire/pcap","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=",{body},"#,
        minute = number / 60 % 60,
        second = number % 60,
        micros = number % 1_000_000,
        flow = 900_000_000_000_000 + number,
        a = 1 + finding / 62_500,
        b = finding / 250 % 250,
        c = 1 + finding % 250,
        port = 49_152 + number % 10_000,
    );
    let pad = LINE.saturating_sub(line.len() + 26);
    let mut random = fastrand::Rng::with_seed(number);
    let filling: String = std::iter::repeat_with(|| random.alphanumeric()).take(pad).collect();
    let _ = writeln!(line, r#""payload_printable":"{filling}"}}"#);
    line
}

fn alert(number: u64, finding: u64) -> String {
    let body = r#""alert":{"action":"allowed","gid":1,"signature_id":2250005,"rev":2,"signature":"SURICATA Modbus invalid Function code","category":"Generic Protocol Command Decode","severity":3,"metadata":{"created_at":["2010_07_30"],"signature_severity":["Major"]}},"app_proto":"modbus","direction":"to_server","modbus":{"id":1,"request":{"transaction_id":7,"protocol_id":0,"unit_id":3,"function_raw":5,"function_code":"WrSingleCoil","access_type":"WRITE | COILS","error_flags":"NONE","write":{"address":12,"data":65280}}},"flow":{"pkts_toserver":12,"pkts_toclient":10,"bytes_toserver":1034,"bytes_toclient":900,"start":"2026-11-20T06:13:40.532140+0000","src_ip":"10.0.0.7","dest_ip":"10.0.0.11","src_port":49160,"dest_port":502}"#;
    // The flow's own addresses must not decide who began it.
    record("alert", number, finding, &body.replace(r#","src_ip":"10.0.0.7","dest_ip":"10.0.0.11""#, ""))
}

fn other(number: u64) -> String {
    let (kind, body) = match number % 3 {
        0 => (
            "flow",
            r#""app_proto":"modbus","flow":{"pkts_toserver":12,"pkts_toclient":10,"bytes_toserver":1034,"bytes_toclient":900,"state":"closed","reason":"timeout","alerted":false}"#,
        ),
        1 => (
            "dns",
            r#""dns":{"type":"query","id":4211,"rrname":"plc-7.plant.example","rrtype":"A","tx_id":0}"#,
        ),
        _ => ("tls", r#""tls":{"subject":"CN=hmi","sni":"hmi.plant.example","version":"TLS 1.2"}"#),
    };
    record(kind, number, number, body)
}
