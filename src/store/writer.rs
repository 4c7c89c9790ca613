//! The single writer: operations arrive on a bounded channel, join a transaction, and are answered after it is synced.
//!
//! Group commit adapts: what has come while the last commit ran goes into the next one. Operations that nobody waits
//! for (a quiet sensor's alerts) are gathered for [`GATHER`] after the last commit, which bounds the syncs on flash to
//! four a second; urgent ones are committed at once. An idle writer does nothing at all.
//!
//! Each batch runs in one `spawn_blocking`, so the disk never stops the runtime's thread, and a store in a test with
//! paused time works.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::condition::{Condition, Conditions, Kind};
use super::ground::Ground;
use super::lock::StateLock;
use super::session::Tx;
use super::space::Budget;
use super::{OpenError, Reader, Settings, StoreError};
use crate::clock::SharedClock;

/// How long operations that are not urgent are gathered after the last commit.
const GATHER: Duration = Duration::from_millis(250);
/// Most operations in one transaction; an operation of the intake is bounded by its batch.
const MAX_OPERATIONS: usize = 64;
/// Operations that may wait before callers have to.
const QUEUE: usize = 16;

/// One thing done to the store, inside a transaction.
pub(crate) trait Operation: Send + 'static {
    /// What the caller gets after the commit.
    type Output: Send + 'static;

    /// Whether somebody waits for it; otherwise it may be gathered for a moment.
    fn urgent(&self) -> bool {
        true
    }

    /// Does it. An error takes back what it did, and only that.
    fn run(self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError>;
}

/// Called with the commit's result, on the writer's thread.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// What running a job leaves: its answer, and the error after which the whole transaction has to go.
type Ran = (Answer, Option<StoreError>);
/// A job runs in a transaction, or learns why there is none.
type Run = Box<dyn FnOnce(Result<&mut Tx<'_>, StoreError>) -> Ran + Send>;

struct Job {
    urgent: bool,
    run: Run,
}

/// Handle to the store: cheap to clone, one async method per operation (in `op/`).
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    pub(super) shared: Arc<Shared>,
}

/// What every handle sees.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: SharedClock,
    pub(super) conditions: Arc<Conditions>,
    /// The name of the database in memory while that is the store.
    memory: Mutex<Option<String>>,
}

impl Shared {
    /// Where readers find the store from now on.
    pub(super) fn set_memory(&self, name: Option<String>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// The writer's task. Run it until every [`Store`] handle is gone; then the database is closed.
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    ground: Ground,
}

impl Store {
    /// Opens the state directory for writing: makes it, locks it, opens and migrates the database. Blocking.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do.
    pub fn open(settings: &Settings, clock: SharedClock) -> Result<(Self, Writer), OpenError> {
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            clock,
            conditions: Arc::default(),
            memory: Mutex::default(),
        });
        let ground = Ground::open(Arc::clone(&shared))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        Ok((Self { jobs: sender, shared }, Writer { jobs: receiver, ground }))
    }

    /// A read-only view of what the store is now, be it on disk or in memory. Blocking.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn reader(&self) -> Result<Reader, OpenError> {
        let memory = self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        memory.map_or_else(|| Reader::open(&self.shared.settings.dir), |name| Reader::in_memory(&name))
    }

    /// What is the case with the store now and needs a person; empty when all is well.
    pub fn conditions(&self) -> Vec<Condition> {
        self.shared.conditions.all()
    }

    /// Bytes of alerts' bodies that one transaction may have, so that the WAL stays within its share of `max_size`.
    pub fn part_max(&self) -> u64 {
        Budget::of(self.shared.settings.max_size).part
    }

    /// Whether nothing more is taken in until there is room, on the disk or in the buffer.
    pub fn is_refusing(&self) -> bool {
        [Kind::Disk, Kind::Log, Kind::Buffer].into_iter().any(|kind| self.shared.conditions.is(kind))
    }

    /// Whether an agent runs on this state directory.
    pub fn is_running(dir: &Path) -> bool {
        StateLock::is_held(dir)
    }

    /// Submits an operation and waits for its commit.
    pub(super) async fn call<O: Operation>(&self, operation: O) -> Result<O::Output, StoreError> {
        self.submit(operation).await?.await
    }

    /// Submits an operation; the returned future ends with its commit. Waits only for room in the queue.
    pub(super) async fn submit<O: Operation>(
        &self,
        operation: O,
    ) -> Result<impl Future<Output = Result<O::Output, StoreError>> + Send + use<O>, StoreError> {
        let (send, answer) = oneshot::channel();
        let urgent = operation.urgent();
        let run: Run = Box::new(move |tx| {
            let (result, gone) = match tx {
                Ok(tx) => (tx.nested(|tx| operation.run(tx)), tx.conn.is_autocommit()),
                Err(e) => (Err(e), true),
            };
            let fatal = result.as_ref().err().filter(|e| is_fatal(e) || gone).cloned();
            let answer: Answer = Box::new(move |commit| {
                // Nobody may be listening any more; the operation stands all the same.
                let _ = send.send(commit.and(result));
            });
            (answer, fatal)
        });
        self.jobs.send(Job { urgent, run }).await.map_err(|_| StoreError::Closed)?;
        Ok(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl Writer {
    /// Runs until every handle is gone.
    ///
    /// # Errors
    /// The first failure after which the process has to start again: the disk failed or the database is damaged.
    pub async fn run(self) -> Result<(), StoreError> {
        let Self { mut jobs, mut ground } = self;
        let mut last_commit: Option<Instant> = None;
        while let Some(first) = next(&mut jobs, ground.look_at()).await {
            let batch = match first {
                Some(first) => gather(first, &mut jobs, last_commit).await,
                None => Vec::new(),
            };
            let done = tokio::task::spawn_blocking(move || {
                let outcome = commit(&mut ground, batch);
                ground.after(&outcome);
                (ground, outcome)
            });
            let outcome;
            (ground, outcome) = done.await.map_err(|e| StoreError::Refused(e.to_string()))?;
            last_commit = Some(Instant::now());
            outcome.or_else(|e| if is_fatal(&e) { Err(e) } else { Ok(()) })?;
        }
        let _ = tokio::task::spawn_blocking(move || ground.close()).await;
        Ok(())
    }
}

/// The next job; `None` when every handle is gone. `Some(None)`: nobody wants anything, but it is time to look whether
/// the disk can be written again.
async fn next(jobs: &mut mpsc::Receiver<Job>, look_at: Option<Instant>) -> Option<Option<Job>> {
    let job = match look_at {
        None => jobs.recv().await,
        Some(at) => match tokio::time::timeout_at(at, jobs.recv()).await {
            Ok(job) => job,
            Err(_) => return Some(None),
        },
    };
    job.map(Some)
}

/// Whether the process has to start again after this error.
fn is_fatal(e: &StoreError) -> bool {
    matches!(e, StoreError::Disk(_) | StoreError::Damaged(_))
}

/// The first job and those that may join it.
async fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>, last_commit: Option<Instant>) -> Vec<Job> {
    let mut urgent = first.urgent;
    let mut batch = vec![first];
    while batch.len() < MAX_OPERATIONS {
        if let Ok(job) = jobs.try_recv() {
            urgent |= job.urgent;
            batch.push(job);
            continue;
        }
        let Some(until) = last_commit.map(|at| at + GATHER).filter(|at| !urgent && Instant::now() < *at)
        else {
            break;
        };
        match tokio::time::timeout_at(until, jobs.recv()).await {
            Ok(Some(job)) => {
                urgent |= job.urgent;
                batch.push(job);
            }
            Ok(None) | Err(_) => break,
        }
    }
    batch
}

/// One transaction for all of them; the answers leave after the commit.
fn commit(ground: &mut Ground, batch: Vec<Job>) -> Result<(), StoreError> {
    ground.before();
    if batch.is_empty() {
        return Ok(());
    }
    let mut answers = Vec::with_capacity(batch.len());
    let mut jobs = batch.into_iter();
    let outcome = ground.session.transaction(|tx| {
        for job in jobs.by_ref() {
            let (answer, error) = (job.run)(Ok(tx));
            answers.push(answer);
            // Whatever ran after this would run outside of the transaction, and be kept while its caller is told no.
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    });
    let outcome = outcome.map_err(|e| ground.judge(e));
    for answer in answers {
        answer(outcome.clone());
    }
    if let Err(e) = &outcome {
        for job in jobs {
            let (answer, _) = (job.run)(Err(e.clone()));
            answer(Err(e.clone()));
        }
    }
    outcome
}
