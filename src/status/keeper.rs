//! Keeps systemd informed while the service runs: one line of status when something has changed, and signs of life.
//!
//! A sign of life goes out only when the store's writer answers through its queue and no loop is stuck; otherwise none
//! goes out, the log names who is stuck, and systemd ends the process after its limit. Nothing is woken by a timer
//! unless the unit asks for a watchdog; then twice in its limit.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::watchdog::Watch;
use super::{Live, Notifier, Status};
use crate::clock::SharedClock;
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::model::HealthIssue;
use crate::store::{Store, StoreError};

/// Between two lines of status at least: a flood of alerts must not become a flood of messages.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// How long the store's writer may take to answer. A commit on a slow card takes two seconds, a busy database five.
const ANSWER: Duration = Duration::from_secs(20);

/// What it needs.
#[derive(Clone)]
pub struct Keeper {
    /// The way to systemd.
    pub notifier: Notifier,
    /// `$WATCHDOG_USEC`: systemd ends a service that it does not hear of for so long. `None`: no watchdog.
    pub limit: Option<Duration>,
    /// Every loop.
    pub heartbeats: Heartbeats,
    /// `[agent] name`.
    pub agent: String,
    /// What is wrong with the service itself.
    pub concerns: watch::Receiver<Vec<HealthIssue>>,
    /// The time.
    pub clock: SharedClock,
}

type Answer = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// Asks the store whether it lives.
struct Question {
    heartbeat: Heartbeat,
    answer: Option<Answer>,
}

impl Question {
    /// Ends with an answer; never when nothing was asked.
    async fn answered(&mut self) {
        match &mut self.answer {
            // Any answer is a sign of life.
            Some(answer) => drop(answer.await),
            None => std::future::pending().await,
        }
        self.answer = None;
        self.heartbeat.idle();
    }

    /// Asks, unless the last question is still open.
    fn ask(&mut self, store: &Store) {
        if self.answer.is_none() {
            let store = store.clone();
            self.answer = Some(Box::pin(async move { store.answers().await }));
            self.heartbeat.busy();
        }
    }
}

impl Keeper {
    /// Runs until `stop`; `live` makes of the relay's progress what is known beside the store.
    pub async fn run<P: Send + Sync>(
        mut self,
        store: Store,
        mut progress: watch::Receiver<P>,
        live: impl Fn(&P) -> Live,
        stop: CancellationToken,
    ) {
        if !self.notifier.is_connected() {
            return stop.cancelled().await;
        }
        let began = Instant::now();
        let mut question = Question { heartbeat: self.heartbeats.of("store", ANSWER), answer: None };
        let (mut watch, mut stuck) = (Watch::default(), Vec::new());
        let mut look_at = self.limit.map(|_| began);
        let mut status_at = Some(began);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = until(look_at) => {
                    question.ask(&store);
                    look_at = self.look(&mut watch, &mut stuck, began).map(|wait| Instant::now() + wait);
                }
                () = question.answered() => {}
                () = until(status_at) => {
                    let live = live(&progress.borrow_and_update());
                    self.tell(&store, live).await;
                    status_at = None;
                }
                Ok(()) = progress.changed(), if status_at.is_none() => status_at = Some(soon()),
                Ok(()) = self.concerns.changed() => status_at = Some(Instant::now()),
                () = self.heartbeats.news(), if status_at.is_none() => status_at = Some(soon()),
            }
        }
    }

    /// Looks whether all live, and says so to systemd or, on change, to the log. When to look again.
    fn look(&self, watch: &mut Watch, before: &mut Vec<String>, began: Instant) -> Option<Duration> {
        let limit = self.limit?;
        let verdict = watch.judge(&self.heartbeats.look(), began.elapsed(), limit);
        let stuck: Vec<String> = verdict.stuck.iter().map(|(name, _)| name.clone()).collect();
        if stuck.is_empty() {
            self.notifier.alive();
            if !before.is_empty() {
                tracing::warn!("{} moved again; the service is alive", before.join(", "));
            }
        } else if stuck != *before {
            let still = verdict.stuck.iter().map(|(_, still)| still.as_secs()).max().unwrap_or(0);
            tracing::error!(
                "{} has not moved for {still} s; systemd is not told that the service is alive, and will start it again \
                 unless this passes",
                stuck.join(", ")
            );
        }
        *before = stuck;
        Some(verdict.again)
    }

    /// Sends the line of status when it has changed.
    async fn tell(&self, store: &Store, mut live: Live) {
        live.conditions = store.conditions();
        live.concerns.extend(self.concerns.borrow().iter().cloned());
        let (store, agent, now) = (store.clone(), self.agent.clone(), self.clock.now());
        let read = move || {
            let overview = store.reader().ok()?.overview().ok()?;
            Some(Status::new(&agent, now, overview, Some(live)).line())
        };
        // Without an answer the last line stands.
        if let Ok(Some(line)) = tokio::task::spawn_blocking(read).await {
            self.notifier.status(&line);
        }
    }
}

fn soon() -> Instant {
    Instant::now() + STATUS_EVERY
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::{Settings, WhenFull, Writer};

    const LIMIT: Duration = Duration::from_secs(60);

    struct Bench {
        _dir: tempfile::TempDir,
        ear: UnixDatagram,
        keeper: Keeper,
        store: Store,
        writer: Option<Writer>,
        concerns: watch::Sender<Vec<HealthIssue>>,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let settings = Settings {
                dir: dir.path().join("state"),
                max_size: 64 << 20,
                keep_delivered: LIMIT,
                when_full: WhenFull::Refuse,
            };
            let (store, writer) = Store::open(&settings, Arc::new(SystemClock)).unwrap();
            let path = dir.path().join("notify");
            let ear = UnixDatagram::bind(&path).unwrap();
            ear.set_nonblocking(true).unwrap();
            let (concerns, receiver) = watch::channel(Vec::new());
            let keeper = Keeper {
                notifier: Notifier::connect(path.as_os_str()).unwrap(),
                limit: Some(LIMIT),
                heartbeats: Heartbeats::default(),
                agent: "a".to_owned(),
                concerns: receiver,
                clock: Arc::new(SystemClock),
            };
            Self { _dir: dir, ear, keeper, store, writer: Some(writer), concerns }
        }

        /// What was told within this time.
        async fn heard(&mut self, within: Duration) -> Vec<String> {
            let (_progress, progress) = watch::channel(());
            let stop = CancellationToken::new();
            let run = self.keeper.clone().run(self.store.clone(), progress, |()| Live::default(), stop);
            // The paused clock stands while the writer works in its blocking task, and jumps to the next time when all wait.
            // Each step begins when the writer has answered, however long that takes.
            let asked = self.writer.is_some().then(|| self.store.clone());
            let end = Instant::now() + within;
            let time = async {
                while Instant::now() < end {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if let Some(store) = &asked {
                        store.answers().await.unwrap();
                    }
                }
            };
            let writer = self.writer.take();
            tokio::select! {
                () = run => {}
                () = time => {}
                _ = async { match writer { Some(w) => w.run().await, None => std::future::pending().await } } => {}
            }
            let mut all = Vec::new();
            let mut buffer = [0; 2_000];
            while let Ok(n) = self.ear.recv(&mut buffer) {
                all.push(String::from_utf8(buffer[..n].to_vec()).unwrap());
            }
            all
        }
    }

    fn pings(heard: &[String]) -> usize {
        heard.iter().filter(|said| *said == "WATCHDOG=1").count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_whose_store_answers_is_alive() {
        let mut bench = Bench::new();
        let idle = bench.keeper.heartbeats.of("source eve", Duration::ZERO);
        idle.idle();
        let heard = bench.heard(Duration::from_secs(301)).await;
        // Ten or eleven: each step of the test's time is a second.
        assert!((10..=11).contains(&pings(&heard)), "{heard:?}");
        assert!(heard.contains(&"STATUS=No sync yet; backlog 0".to_owned()), "{heard:?}");
        assert_eq!(heard.len(), pings(&heard) + 1, "the same line is not told again: {heard:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_sign_of_life_while_the_store_does_not_answer() {
        let mut bench = Bench::new();
        // Nobody runs the writer: as if it hung in the disk.
        let writer = bench.writer.take();
        let heard = bench.heard(Duration::from_secs(300)).await;
        assert_eq!(pings(&heard), 1, "only the first, before anything was asked: {heard:?}");
        drop(writer);
    }

    #[tokio::test(start_paused = true)]
    async fn no_sign_of_life_while_a_loop_is_stuck() {
        let mut bench = Bench::new();
        let heartbeat = bench.keeper.heartbeats.of("relay", Duration::from_secs(50));
        heartbeat.busy();
        let heard = bench.heard(Duration::from_secs(300)).await;
        assert_eq!(pings(&heard), 2, "{heard:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_reload_is_in_the_status() {
        let mut bench = Bench::new();
        let what = "reload refused: x".to_owned();
        bench.concerns.send_replace(vec![HealthIssue::new("", what, "")]);
        let heard = bench.heard(Duration::from_secs(10)).await;
        assert!(heard.contains(&"STATUS=reload refused: x; No sync yet; backlog 0".to_owned()), "{heard:?}");
    }
}
