//! How fast EVE is read. Goals on one core of the CI machine: 1.5 million lines a second of a stream with 2 % alerts;
//! an alert parsed in a few microseconds. `cargo bench --bench eve`; for people, not a gate.

use std::fmt::Write as _;
use std::hint::black_box;

use divan::counter::{BytesCount, ItemsCount};
use otrelay::clock::ManualClock;
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::eve::{Eve, Reader, Settings};
use otrelay::source::format::{Apart, Outcome, Settings as Common};
use otrelay::source::transport::tail::{self, Tail};
use otrelay::source::{Reading, Reads};

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);
const LINES: u64 = 20_000;

fn main() {
    divan::main();
}

fn settings() -> Settings {
    Settings {
        common: Common {
            site: Some("Plant North".to_owned()),
            ..Common::new("line4", "line4", SourceName::new("eve").expect("a good name"))
        },
        apart: Apart::default(),
        signature_severity: true,
        time_zone: jiff::tz::TimeZone::UTC,
    }
}

/// What is the same in every record, about as long as a sensor writes it.
fn record(kind: &str, number: u64, body: &str) -> String {
    let mut line = format!(
        r#"{{"timestamp":"2023-09-18T06:13:41.{micros:06}+0000","flow_id":{flow},"in_iface":"eth1","event_type":"{kind}","vlan":[100],"src_ip":"10.0.{a}.{b}","src_port":{port},"dest_ip":"10.0.0.11","dest_port":502,"proto":"TCP","community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=",{body},"#,
        micros = number % 1_000_000,
        flow = 900_000_000_000_000 + number,
        a = number / 250 % 250,
        b = number % 250,
        port = 49_152 + number % 10_000,
    );
    let pad = 1_400_usize.saturating_sub(line.len() + 24);
    let _ = writeln!(line, r#""payload_printable":"{}"}}"#, "U3VyaWNhdGE.".repeat(pad / 12));
    line
}

fn alert(number: u64) -> String {
    let body = r#""alert":{"action":"allowed","gid":1,"signature_id":2250005,"rev":2,"signature":"SURICATA Modbus invalid Function code","category":"Generic Protocol Command Decode","severity":3,"metadata":{"created_at":["2010_07_30"],"signature_severity":["Major"]}},"app_proto":"modbus","direction":"to_server","modbus":{"id":1,"request":{"transaction_id":7,"protocol_id":0,"unit_id":3,"function_raw":5,"function_code":"WrSingleCoil","access_type":"WRITE | COILS","error_flags":"NONE","write":{"address":12,"data":65280}}},"flow":{"pkts_toserver":12,"pkts_toclient":10,"bytes_toserver":1034,"bytes_toclient":900,"start":"2023-09-18T06:13:40.532140+0000","src_ip":"10.0.0.7","dest_ip":"10.0.0.11","src_port":49160,"dest_port":502}"#;
    record("alert", number, body)
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
        _ => ("tls", r#""tls":{"subject":"CN=\u00e9hmi","sni":"hmi.plant.example","version":"TLS 1.2"}"#),
    };
    record(kind, number, body)
}

fn stream(percent: u64) -> String {
    (0..LINES).map(|number| if number % 100 < percent { alert(number) } else { other(number) }).collect()
}

/// Finds the lines in memory and reads them.
#[divan::bench(args = [0, 2, 100])]
fn lines_in_memory(bencher: divan::Bencher<'_, '_>, percent: u64) {
    let (reader, text) = (Reader::new(settings()), stream(percent));
    bencher.counter(ItemsCount::new(LINES)).counter(BytesCount::of_str(&text)).bench(|| {
        let mut alerts = 0;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text.as_bytes()) {
            let line = &text.as_bytes()[start..end];
            alerts += u64::from(matches!(black_box(reader.line(line, NOW)), Outcome::Alert(_)));
            start = end + 1;
        }
        assert_eq!(alerts, LINES / 100 * percent);
    });
}

/// The whole source: a file, through the tail, to batches.
#[divan::bench(args = [2, 100])]
fn lines_of_a_file(bencher: divan::Bencher<'_, '_>, percent: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("eve.json");
    std::fs::write(&path, stream(percent)).expect("a file");
    let settings = tail::Settings {
        name: SourceName::new("eve").expect("a good name"),
        pattern: path.display().to_string(),
        kind: "suricata-eve",
        format: Reads::new(Eve::new(settings())),
        reading: Reading::Once,
        cursors: Vec::new(),
        read_before: true,
        again: None,
    };
    bencher
        .counter(ItemsCount::new(LINES))
        .with_inputs(|| Tail::new(settings.clone(), ManualClock::at(NOW)))
        .bench_local_values(|mut tail| {
            let mut alerts = 0;
            loop {
                let turn = tail.turn(tokio::time::Instant::now());
                alerts += turn.batch.map_or(0, |batch| batch.sightings.len() as u64);
                if !turn.more {
                    break;
                }
            }
            assert_eq!(alerts, LINES / 100 * percent);
        });
}

/// One alert.
#[divan::bench]
fn one_alert(bencher: divan::Bencher<'_, '_>) {
    let (reader, line) = (Reader::new(settings()), alert(7));
    bencher.counter(BytesCount::of_str(&line)).bench(|| reader.line(black_box(line.as_bytes()), NOW));
}

/// One line of another kind.
#[divan::bench]
fn one_other(bencher: divan::Bencher<'_, '_>) {
    let (reader, line) = (Reader::new(settings()), other(7));
    bencher.counter(BytesCount::of_str(&line)).bench(|| reader.line(black_box(line.as_bytes()), NOW));
}
