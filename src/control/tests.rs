//! The socket: who is answered, what garbage gets, and that nobody waits for a slow one.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::client::{AskError, ask};
use super::server::{Control, listen};
use super::*;
use crate::clock::ManualClock;
use crate::intake::Tap;
use crate::model::seen::{Seen, Told};
use crate::model::{Alert, Fingerprint, Severity, SourceName, Timestamp};
use crate::relay::{Ask, Progress, Report};
use crate::store::{Settings, Store, WhenFull};

struct Bench {
    dir: tempfile::TempDir,
    path: PathBuf,
    asked: mpsc::Receiver<Ask>,
    tap: Tap,
    stop: CancellationToken,
    control: tokio::task::JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test is the only spawner here")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOCKET);
        // What a killed process left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let clock = ManualClock::at(Timestamp::from_secs(1_795_000_000));
        let settings = Settings {
            dir: dir.path().to_owned(),
            max_size: 64 << 20,
            keep_delivered: Duration::from_secs(60),
            when_full: WhenFull::Refuse,
        };
        let (store, writer) = Store::open(&settings, clock.clone()).unwrap();
        spawn(writer.run());
        let (relay, asked) = mpsc::channel(4);
        let (_, progress) = watch::channel(Progress::default());
        let tap = Tap::default();
        let control = Control {
            agent: "a".to_owned(),
            store,
            relay,
            progress,
            tap: tap.clone(),
            behind: Arc::new(std::collections::BTreeMap::new),
            rewind: Arc::new(|_| Box::pin(async { Err("not here".to_owned()) })),
            concerns: watch::channel(Vec::new()).1,
            clock: Arc::clone(&clock) as _,
        };
        let stop = CancellationToken::new();
        let control = spawn(control.run(listen(&path).unwrap(), path.clone(), stop.clone()));
        Self { dir, path, asked, tap, stop, control }
    }

    async fn ask(&self, question: Question) -> Result<serde_json::Value, AskError> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || ask(&path, &question)).await.unwrap()
    }

    /// What these bytes are answered.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.path).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A caller that wrote more than is read may see the connection reset behind the answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }
}

#[tokio::test]
async fn the_socket_is_for_the_owner_and_gone_after_the_stop() {
    let bench = Bench::new();
    assert_eq!(std::fs::metadata(&bench.path).unwrap().permissions().mode() & 0o777, 0o600);
    let status = bench.ask(Question::Status).await.unwrap();
    assert_eq!((status["agent"].as_str(), status["running"].as_bool()), (Some("a"), Some(true)));
    bench.stop.cancel();
    bench.control.await.unwrap();
    assert!(!bench.path.exists() && bench.dir.path().exists());
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody() {
    let bench = Bench::new();
    let deep = format!("{{\"ask\":{}", "[".repeat(10_000));
    let long = "x".repeat(100_000);
    for bytes in [&b"\n"[..], b"\xff\xfe\n", b"{\"ask\":\"burn\"}\n", deep.as_bytes(), long.as_bytes()] {
        let answer = bench.raw(bytes).await;
        assert!(answer.starts_with("{\"error\":\"not a question"), "{answer}");
    }
    assert_eq!(bench.raw(b"{\"ask\":\"alerts\"}").await, "{\"ok\":[]}\n");
    bench.ask(Question::Status).await.unwrap();
}

#[tokio::test]
async fn nobody_waits_for_a_slow_one() {
    let mut bench = Bench::new();
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(UnixStream::connect(&bench.path).await.unwrap());
    }
    let path = bench.path.clone();
    let syncing = tokio::task::spawn_blocking(move || ask(&path, &Question::Sync));
    let Some(Ask::Sync(answer)) = bench.asked.recv().await else { panic!("a sync was asked for") };
    bench.ask(Question::Status).await.unwrap();
    answer.send(Report { created: 3, ..Report::default() }).unwrap();
    assert_eq!(syncing.await.unwrap().unwrap()["created"], 3);
    drop(silent);
}

#[tokio::test]
async fn many_who_wait_for_a_sync_do_not_keep_the_others_out() {
    let mut bench = Bench::new();
    let mut syncing = Vec::new();
    for _ in 0..20 {
        let mut stream = UnixStream::connect(&bench.path).await.unwrap();
        stream.write_all(b"{\"ask\":\"sync\"}\n").await.unwrap();
        syncing.push(stream);
    }
    let Some(Ask::Sync(_answer)) = bench.asked.recv().await else { panic!("a sync was asked for") };
    let status = tokio::time::timeout(Duration::from_secs(3), bench.ask(Question::Status)).await;
    assert!(status.expect("the status is told meanwhile").is_ok());
}

fn seen(number: u32) -> Seen {
    let (source, time) = (SourceName::new("eve").unwrap(), Timestamp::from_secs(1));
    let severity = if number.is_multiple_of(2) { Severity::Critical } else { Severity::Minor };
    let alert = Alert::sample(&format!("finding {number} {}", "x".repeat(400)), severity, time);
    Seen::of(&source, &alert, Fingerprint::from_bytes([1; 32]))
}

/// Reads what a watcher is told until its end.
async fn told(mut stream: UnixStream) -> Vec<Told> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let part = |line: &str| {
        let mut part: serde_json::Value = serde_json::from_str(line).unwrap();
        serde_json::from_value(part["ok"].take()).unwrap()
    };
    text.lines().map(part).collect()
}

async fn watcher(bench: &Bench, question: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(&bench.path).await.unwrap();
    let before = bench.tap.watchers();
    stream.write_all(question).await.unwrap();
    while bench.tap.watchers() == before {
        tokio::task::yield_now().await;
    }
    stream
}

/// Far more than the ring and the socket hold.
const ALL: u32 = 20_000;

#[tokio::test]
async fn a_watcher_that_does_not_read_holds_nobody_up_and_is_told_what_it_missed() {
    let bench = Bench::new();
    let slow = watcher(&bench, b"{\"ask\":\"tap\"}\n").await;
    for number in 0..ALL {
        // Never waits, whoever reads.
        bench.tap.send(seen(number));
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    bench.stop.cancel();
    let told = told(slow).await;
    assert_eq!(told.first(), Some(&Told::Begin));
    assert_eq!(told.last(), Some(&Told::End("the service stops".to_owned())));
    let (mut next, mut missed) = (0, 0);
    for one in &told[1..told.len() - 1] {
        match one {
            Told::Alert(seen) => {
                // In order, and what is not there was said at its place.
                assert!(seen.title.starts_with(&format!("finding {next} ")), "{next}: {}", seen.title);
                next += 1;
            }
            Told::LeftOut(count) => {
                missed += count;
                next += count;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next, u64::from(ALL), "each is shown or counted");
    assert!(missed > 0);
    bench.control.await.unwrap();
}

#[tokio::test]
async fn a_watcher_is_told_only_what_it_wants_and_gives_its_place_back() {
    let bench = Bench::new();
    let critical = watcher(&bench, b"{\"ask\":\"tap\",\"min_severity\":\"critical\"}\n").await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(watcher(&bench, b"{\"ask\":\"tap\"}\n").await);
    }
    let refused = bench.raw(b"{\"ask\":\"tap\"}\n").await;
    assert!(refused.contains("4 are watching already"), "{refused}");
    bench.ask(Question::Status).await.unwrap();
    others.clear();
    while bench.tap.watchers() > 1 {
        tokio::task::yield_now().await;
    }
    drop(watcher(&bench, b"{\"ask\":\"tap\"}\n").await);
    (0..10).for_each(|number| bench.tap.send(seen(number)));
    bench.stop.cancel();
    let told = told(critical).await;
    assert_eq!(told.len(), 7, "{told:?}");
}
