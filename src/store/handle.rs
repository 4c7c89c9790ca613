//! What everybody else holds of the store: how an operation is handed to the writer (`writer.rs`), and how its answer comes
//! back. One async method per operation stands in `op/`.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::disk::lock::StateLock;
use super::disk::space::Budget;
use super::gathered::Gathered;
use super::health::{Conditions, Kind};
use super::session::Tx;
use super::{OpenError, Reader, Settings, StoreError};
use crate::clock::SharedClock;
use crate::model::HealthIssue;

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
pub(super) type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// What running a job leaves: its answer, and the error after which the whole transaction has to go.
pub(super) type Ran = (Answer, Option<StoreError>);
/// A job runs in a transaction, or learns why there is none.
pub(super) type Run = Box<dyn FnOnce(Result<&mut Tx<'_>, StoreError>) -> Ran + Send>;

/// An operation on its way.
pub(super) struct Job {
    pub(super) urgent: bool,
    pub(super) run: Run,
}

/// Handle to the store: cheap to clone, one async method per operation (in `op/`).
#[derive(Clone)]
pub struct Store {
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) shared: Arc<Shared>,
}

/// What every handle sees.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: SharedClock,
    /// Why the writer ended before its time.
    failed: OnceLock<StoreError>,
    pub(super) conditions: Arc<Conditions>,
    pub(super) gathered: Gathered,
    /// The name of the database in memory while that is the store.
    memory: Mutex<Option<String>>,
}

impl Store {
    /// A read-only view of what the store is now, be it on disk or in memory. Blocking.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn reader(&self) -> Result<Reader, OpenError> {
        let memory = self.shared.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        memory.map_or_else(|| Reader::open(&self.shared.settings.dir), |name| Reader::in_memory(&name))
    }

    /// What is the case with the store now and needs a person; empty when all is well.
    pub fn conditions(&self) -> Vec<HealthIssue> {
        self.shared.conditions.all()
    }

    /// Bytes of alerts' bodies that one transaction may have, so that the WAL stays within its share of `max_size`.
    pub fn part_max(&self) -> u64 {
        Budget::of(self.shared.settings.max_size).part
    }

    /// Somebody is told of devices: they may have their whole share of the store.
    pub fn want_devices(&self) {
        self.shared.conditions.want_devices();
    }

    /// Whether nothing more is taken in until there is room, on the disk or in the buffer.
    pub fn is_refusing(&self) -> bool {
        self.refusal().is_some()
    }

    /// Why nothing more is taken in until there is room.
    pub fn refusal(&self) -> Option<HealthIssue> {
        [Kind::Disk, Kind::Log, Kind::Buffer].into_iter().find_map(|kind| self.shared.conditions.get(kind))
    }

    /// Whether an agent runs on this state directory.
    pub fn is_running(dir: &Path) -> bool {
        StateLock::is_held(dir)
    }

    /// The process of that agent, by its own word.
    pub fn holder(dir: &Path) -> Option<u32> {
        StateLock::is_held(dir).then(|| StateLock::holder(dir))?
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
                Ok(tx) => (tx.nested(|tx| operation.run(tx)), tx.alone || tx.conn.is_autocommit()),
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
    pub(super) fn new(settings: Settings, clock: SharedClock) -> Self {
        Self {
            settings,
            clock,
            failed: OnceLock::new(),
            conditions: Arc::default(),
            gathered: Gathered::default(),
            memory: Mutex::default(),
        }
    }

    /// Remembers why the writer ends, so that every caller learns the same.
    pub(super) fn fail(&self, e: StoreError) -> StoreError {
        tracing::error!("the store ends: {e}");
        let _ = self.failed.set(e.clone());
        e
    }

    /// Where readers find the store from now on.
    pub(super) fn set_memory(&self, name: Option<String>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// What callers learn when there is no writer any more.
    fn ended(&self) -> StoreError {
        self.failed.get().cloned().unwrap_or(StoreError::Closed)
    }
}

/// Whether the process has to start again after this error.
pub(super) fn is_fatal(e: &StoreError) -> bool {
    matches!(e, StoreError::Disk(_) | StoreError::Damaged(_))
}
