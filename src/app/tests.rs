//! The order of stopping, and that no task ends unnoticed.

use std::sync::Mutex;

use super::*;
use crate::clock::SystemClock;
use crate::store::{Settings, WhenFull};

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Task groups over a real store; each task notes its end.
struct Bench {
    _dir: tempfile::TempDir,
    stages: TaskGroups,
    store: Store,
    log: Log,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            max_size: 64 << 20,
            keep_delivered: Duration::from_secs(60),
            when_full: WhenFull::Refuse,
        };
        let (store, writer) = Store::open(&settings, Arc::new(SystemClock)).unwrap();
        Self { _dir: dir, stages: TaskGroups::begin(writer), store, log: Log::default() }
    }

    /// A source that stops when it is told, an intake that ends behind it, and a relay with something in flight.
    fn usual(&mut self) {
        let (send, mut receive) = tokio::sync::mpsc::channel::<()>(1);
        let (stop, log) = (self.stages.stop_sources.clone(), Arc::clone(&self.log));
        self.stages.sources.spawn(async move {
            stop.cancelled().await;
            log.lock().unwrap().push("source");
            drop(send);
            ("source", Ok(()))
        });
        let log = Arc::clone(&self.log);
        self.stages.intake.spawn(async move {
            while receive.recv().await.is_some() {}
            log.lock().unwrap().push("intake");
            ("intake", Ok(()))
        });
        let (stop, log, store) = (self.stages.stop_relay.clone(), Arc::clone(&self.log), self.store.clone());
        self.stages.late.spawn(async move {
            stop.cancelled().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            store.last_sync_at().await.unwrap();
            log.lock().unwrap().push("relay");
            ("relay", Ok(()))
        });
    }

    async fn wait(self, stop: &CancellationToken) -> (Result<(), AppError>, Vec<&'static str>) {
        let Self { _dir, stages, store, log } = self;
        drop(store);
        let mut stages = stages;
        let first = tokio::select! {
            () = stop.cancelled() => None,
            ended = stages.first() => Some(ended),
        };
        let result = stages.end(first).await;
        let log = log.lock().unwrap().clone();
        (result, log)
    }
}

#[tokio::test]
async fn sources_stop_then_the_intake_drains_then_the_relay_ends_then_the_store_closes() {
    let mut bench = Bench::new();
    bench.usual();
    let stop = CancellationToken::new();
    stop.cancel();
    let (result, log) = bench.wait(&stop).await;
    result.unwrap();
    assert_eq!(log, ["source", "intake", "relay"]);
}

#[tokio::test]
async fn a_task_that_ends_unasked_ends_the_rest_in_order() {
    let never = CancellationToken::new();
    let mut bench = Bench::new();
    bench.usual();
    bench.stages.late.spawn(async { ("housekeeping", Ok(())) });
    let (result, log) = bench.wait(&never).await;
    assert_eq!(result.unwrap_err().to_string(), "the housekeeping ended unasked");
    assert_eq!(log, ["source", "intake", "relay"]);

    let mut bench = Bench::new();
    bench.usual();
    bench.stages.intake.spawn(async { ("intake", Err(StoreError::Disk("gone".to_owned()).into())) });
    let (result, _) = bench.wait(&never).await;
    assert_eq!(result.unwrap_err().to_string(), "the disk failed under the store (gone)");

    // A source may be the first to end, as nobody takes what it has.
    let mut bench = Bench::new();
    bench.usual();
    let left = SourceError::Closed(SourceName::new("eve").unwrap());
    bench.stages.sources.spawn(async { ("source", Err(left.into())) });
    bench.stages.intake.spawn(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        ("intake", Err(StoreError::Disk("gone".to_owned()).into()))
    });
    let (result, _) = bench.wait(&never).await;
    assert_eq!(result.unwrap_err().to_string(), "the disk failed under the store (gone)");

    let mut bench = Bench::new();
    bench.usual();
    bench.stages.sources.spawn(async { panic!("a fault of ours") });
    let (result, log) = bench.wait(&never).await;
    assert!(matches!(result, Err(AppError::Panicked(_))));
    assert_eq!(log, ["source", "intake", "relay"], "a panic of one task is an orderly stop of the others");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_in_time_is_left_behind() {
    let mut bench = Bench::new();
    bench.usual();
    bench.stages.late.spawn(std::future::pending());
    let (stop, began) = (CancellationToken::new(), tokio::time::Instant::now());
    stop.cancel();
    bench.wait(&stop).await.0.unwrap();
    assert!((GRACE..GRACE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}
