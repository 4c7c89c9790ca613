//! The single writer: operations arrive on a bounded channel, join a transaction, and are answered after it is synced.
//!
//! Group commit adapts: what has come while the last commit ran goes into the next one. Operations that nobody waits
//! for (a quiet sensor's alerts) are gathered for [`GATHER`] after the last commit, which bounds the syncs on flash to
//! one a second; urgent ones are committed at once. An idle writer does nothing at all.
//!
//! Each batch runs in one `spawn_blocking`, so the disk never stops the runtime's thread, and a store in a test with
//! paused time works.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
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

/// How long operations that are not urgent are gathered after the last commit. Each commit writes the last page of each
/// table again, some 16 pages: at 200 alerts a second and a quarter of this time it was a fifth of all that is written.
/// Nothing is lost by waiting, the cursors are not moved before.
const GATHER: Duration = Duration::from_secs(1);
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
    /// Why the writer ended before its time.
    failed: OnceLock<StoreError>,
    pub(super) conditions: Arc<Conditions>,
    /// The name of the database in memory while that is the store.
    memory: Mutex<Option<String>>,
}

/// The writer's task. Run it until every [`Store`] handle is gone; then the database is closed.
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    ground: Ground,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the state directory for writing: makes it, locks it, opens and migrates the database. Blocking.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do.
    pub fn open(settings: &Settings, clock: SharedClock) -> Result<(Self, Writer), OpenError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            clock,
            failed: OnceLock::new(),
            conditions: Arc::default(),
            memory: Mutex::default(),
        });
        let ground = Ground::open(Arc::clone(&shared))?;
        let store = Self { jobs: sender, shared: Arc::clone(&shared) };
        Ok((store, Writer { jobs: receiver, ground, shared }))
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
        self.jobs.send(Job { urgent, run }).await.map_err(|_| self.shared.ended())?;
        let shared = Arc::clone(&self.shared);
        Ok(async move { answer.await.unwrap_or_else(|_| Err(shared.ended())) })
    }
}

impl Shared {
    /// Where readers find the store from now on.
    pub(super) fn set_memory(&self, name: Option<String>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// What callers learn when there is no writer any more.
    fn ended(&self) -> StoreError {
        self.failed.get().cloned().unwrap_or(StoreError::Closed)
    }
}

impl Writer {
    /// Runs until every handle is gone.
    ///
    /// # Errors
    /// The first failure after which the process has to start again: the disk failed, or the database is damaged, which
    /// the next start repairs. A sync that failed is never tried again: nobody knows what is on the disk then.
    pub async fn run(mut self) -> Result<(), StoreError> {
        let mut last_commit: Option<Instant> = None;
        while let Some(first) = next(&mut self.jobs, self.ground.look_at()).await {
            let batch = match first {
                Some(first) => gather(first, &mut self.jobs, last_commit).await,
                None => Vec::new(),
            };
            let mut ground = self.ground;
            let done = tokio::task::spawn_blocking(move || {
                let outcome = commit(&mut ground, batch);
                ground.after(&outcome);
                (ground, outcome)
            });
            let (ground, outcome) = done.await.map_err(|e| StoreError::Refused(e.to_string()))?;
            last_commit = Some(Instant::now());
            self.ground = match outcome {
                Err(e) if is_fatal(&e) => {
                    ground.abandon(&e);
                    return Err(self.shared.fail(e));
                }
                Ok(()) | Err(_) => ground,
            };
        }
        let ground = self.ground;
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

impl Shared {
    /// Remembers why the writer ends, so that every caller learns the same.
    fn fail(&self, e: StoreError) -> StoreError {
        tracing::error!("the store ends: {e}");
        let _ = self.failed.set(e.clone());
        e
    }
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
    let ready = ground.before();
    if batch.is_empty() {
        return ready;
    }
    let mut answers = Vec::with_capacity(batch.len());
    let mut jobs = batch.into_iter();
    let mut work = |tx: &mut Tx<'_>| {
        for job in jobs.by_ref() {
            let (answer, error) = (job.run)(Ok(tx));
            answers.push(answer);
            // Whatever ran after this would run outside of the transaction, and be kept while its caller is told no.
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    };
    let outcome = match ready {
        Ok(()) => ground.session.transaction(&mut work).map_err(|e| ground.judge(e)),
        unready => unready,
    };
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

/// The state directory, for the owner only.
pub(super) fn make_dir(dir: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::DirBuilderExt;
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
    if !std::fs::metadata(dir).map_err(io)?.is_dir() {
        return Err(io(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    Ok(())
}

/// Database, WAL and index hold alert bodies, which can hold secrets: 0600 whatever the umask.
pub(super) fn restrict(path: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::PermissionsExt;
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let file = Path::new(&name);
        if file.exists() {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
                .map_err(|source| OpenError::Io { path: file.to_owned(), source })?;
        }
    }
    Ok(())
}
