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
use crate::model::Timestamp;
use crate::relay::{Ask, Progress, Report};
use crate::store::{Settings, Store, WhenFull};

struct Bench {
    dir: tempfile::TempDir,
    path: PathBuf,
    asked: mpsc::Receiver<Ask>,
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
        let control = Control {
            agent: "a".to_owned(),
            store,
            relay,
            progress,
            behind: Arc::new(std::collections::BTreeMap::new),
            rewind: Arc::new(|_| Box::pin(async { Err("not here".to_owned()) })),
            concerns: watch::channel(Vec::new()).1,
            clock: Arc::clone(&clock) as _,
        };
        let stop = CancellationToken::new();
        let control = spawn(control.run(listen(&path).unwrap(), path.clone(), stop.clone()));
        Self { dir, path, asked, stop, control }
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
