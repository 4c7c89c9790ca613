//! Tests of the socket: what a sensor writes is what comes out, and nothing that is not ours is taken away.

use std::io::Write as _;
use std::os::unix::net as std_net;

use super::super::super::format::eve::{self, Eve};
use super::*;
use crate::clock::ManualClock;
use crate::heartbeat::Heartbeats;
use crate::model::Timestamp;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

fn line(number: u32) -> String {
    format!(
        "{{\"timestamp\":\"2023-09-18T06:13:41.532140+0000\",\"event_type\":\"alert\",\"src_ip\":\"10.0.0.1\",\
         \"alert\":{{\"gid\":1,\"signature_id\":{number},\"signature\":\"T{number}\",\"severity\":1}}}}\n"
    )
}

fn source(listen: &Listen) -> Unix {
    let name = SourceName::new("eve").unwrap();
    let reads = Reads::new(Eve::new(eve::Settings {
        common: crate::source::format::Settings::new("a", "a", name.clone()),
        apart: crate::source::format::Apart::default(),
        signature_severity: true,
        time_zone: jiff::tz::TimeZone::UTC,
    }));
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let heartbeat = Heartbeats::default().of("source eve", Duration::from_mins(1));
    Unix::new(name, "suricata-eve", listen.clone(), reads, clock, heartbeat)
}

/// A source at work, and what has come of it.
struct Bench {
    batches: mpsc::Receiver<Batch>,
    titles: Vec<String>,
    refused: Vec<String>,
    trouble: Option<String>,
}

impl Bench {
    /// Runs the source beside `work`, then stops it and takes what is left.
    async fn with(listen: &Listen, work: impl AsyncFnOnce(&mut Self)) -> Self {
        let (out, batches) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let running = source(listen).run(out, stop.clone());
        let mut bench = Self { batches, titles: Vec::new(), refused: Vec::new(), trouble: None };
        let (ended, bench) = tokio::join!(running, async {
            // The first batch says that it is there.
            bench.next().await;
            work(&mut bench).await;
            stop.cancel();
            while bench.next().await {}
            bench
        });
        ended.unwrap();
        bench
    }

    async fn next(&mut self) -> bool {
        let batch = tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("a batch in time");
        let Some(batch) = batch else { return false };
        self.trouble.clone_from(&batch.trouble);
        self.titles.extend(batch.sightings.into_iter().map(|sighting| sighting.alert.title));
        self.refused.extend(batch.rejects.into_iter().map(|reject| reject.detail));
        true
    }
}

fn at(dir: &tempfile::TempDir, way: Way) -> Listen {
    Listen { way, path: dir.path().join("eve.sock") }
}

fn titles(numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("T{number}")).collect()
}

#[tokio::test]
async fn what_suricata_had_written_before_the_order_to_stop_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let listen = at(&dir, Way::Stream);
    let bench = Bench::with(&listen, async |_| {
        let mut sensor = std_net::UnixStream::connect(&listen.path).unwrap();
        for number in 1..=60 {
            sensor.write_all(line(number).as_bytes()).unwrap();
        }
        sensor.write_all(b"\n{\"event_type\":\"al").unwrap();
    })
    .await;
    assert_eq!(bench.titles, titles(1..=60));
    assert_eq!(bench.refused.len(), 1, "{:?}", bench.refused);
    assert!(bench.refused[0].contains("in the middle of a record"), "{:?}", bench.refused);
    assert!(!listen.path.exists(), "the socket is taken away");
}

#[tokio::test]
async fn suricata_connects_again_and_several_threads_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let listen = at(&dir, Way::Stream);
    let bench = Bench::with(&listen, async |bench| {
        for number in 1..=3 {
            let mut sensor = std_net::UnixStream::connect(&listen.path).unwrap();
            sensor.write_all(line(number).as_bytes()).unwrap();
        }
        while bench.titles.len() < 3 {
            assert!(bench.next().await);
        }
    })
    .await;
    let mut got = bench.titles;
    got.sort();
    assert_eq!(got, titles(1..=3));
}

#[tokio::test]
async fn a_datagram_is_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let listen = at(&dir, Way::Datagram);
    let bench = Bench::with(&listen, async |_| {
        let sensor = std_net::UnixDatagram::unbound().unwrap();
        for number in 1..=5 {
            sensor.send_to(line(number).as_bytes(), &listen.path).unwrap();
        }
        sensor.send_to(b"no json", &listen.path).unwrap();
    })
    .await;
    assert_eq!((bench.titles, bench.refused.len()), (titles(1..=5), 1));
}

#[tokio::test]
async fn a_line_of_megabytes_is_read_by_its_beginning_and_the_next_one_whole() {
    let dir = tempfile::tempdir().unwrap();
    let listen = at(&dir, Way::Stream);
    let long = line(1).replace("\"alert\":{", &format!("\"x\":\"{}\",\"alert\":{{", "y".repeat(3 << 20)));
    let near = line(2).replace("}}\n", &format!("}},\"dnp3\":\"{}\"}}\n", "y".repeat(3 << 20)));
    let bench = Bench::with(&listen, async |bench| {
        let mut sensor = std_net::UnixStream::connect(&listen.path).unwrap();
        let lines = [long, near, line(3)].concat();
        let writer = std::thread::spawn(move || sensor.write_all(lines.as_bytes()));
        while bench.titles.last().map(String::as_str) != Some("T3") {
            assert!(bench.next().await);
        }
        writer.join().unwrap().unwrap();
    })
    .await;
    // The alert of the second is near its front.
    assert_eq!(bench.titles, ["T2", "T3"]);
    assert_eq!(bench.refused.len(), 1, "{:?}", bench.refused);
}

#[tokio::test]
async fn a_socket_of_a_killed_run_is_taken_away_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let listen = at(&dir, Way::Stream);
    drop(std_net::UnixListener::bind(&listen.path).unwrap());
    assert!(listen.path.exists());
    let bench = Bench::with(&listen, async |_| {}).await;
    assert_eq!(bench.trouble, None);

    std::fs::write(&listen.path, "not a socket").unwrap();
    let bench = Bench::with(&listen, async |_| {}).await;
    assert!(bench.trouble.as_deref().is_some_and(|why| why.contains("no socket")), "{:?}", bench.trouble);
    assert_eq!(std::fs::read_to_string(&listen.path).unwrap(), "not a socket");

    std::fs::remove_file(&listen.path).unwrap();
    let other = std_net::UnixListener::bind(&listen.path).unwrap();
    let bench = Bench::with(&listen, async |_| {}).await;
    assert!(
        bench.trouble.as_deref().is_some_and(|why| why.contains("another program")),
        "{:?}",
        bench.trouble
    );
    drop(other);
}

#[test]
fn lines_are_cut_wherever_the_reads_were() {
    let text = b"one\n\r\n\ntwo\r\nthree";
    for size in 1..text.len() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for piece in text.chunks(size) {
            lines.room().extend_from_slice(piece);
            while let Some(line) = lines.next() {
                let Line::Whole(line) = line else { panic!("{line:?}") };
                got.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        assert_eq!(got, ["one", "two"], "reads of {size}");
        assert_eq!(lines.rest(), Some(&b"three"[..]));
    }
}
