//! The single writer: operations arrive on a bounded channel, join a transaction, and are answered after it is synced.
//!
//! Group commit adapts: what has come while the last commit ran goes into the next one. Operations that nobody waits
//! for (a quiet sensor's alerts) are gathered for [`GATHER`] after the last commit, which bounds the syncs on flash to
//! one a second; urgent ones are committed at once. An idle writer does nothing at all.
//!
//! Each batch runs in one `spawn_blocking`, so the disk never stops the runtime's thread, and a store in a test with
//! paused time works.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::clock::SharedClock;
use crate::store::backing::Backing;
use crate::store::handle::{Job, Shared, Store, is_fatal};
use crate::store::session::Tx;
use crate::store::{OpenError, Settings, StoreError};

/// How long operations that are not urgent are gathered after the last commit. Each commit writes the last page of each
/// table again, some 16 pages: at 200 alerts a second and a quarter of this time it was a fifth of all that is written.
/// Nothing is lost by waiting, the cursors are not moved before.
const GATHER: Duration = Duration::from_secs(1);
/// Most operations in one transaction; an operation of the intake is bounded by its batch.
const MAX_OPERATIONS: usize = 64;
/// Operations that may wait before callers have to.
const QUEUE: usize = 16;

/// The writer's task. Run it until every [`Store`] handle is gone; then the database is closed.
pub struct Writer {
    jobs: mpsc::Receiver<Job>,
    backing: Backing,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the state directory for writing: makes it, locks it, opens and migrates the database. Blocking.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do.
    pub fn open(settings: &Settings, clock: SharedClock) -> Result<(Self, Writer), OpenError> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared::new(settings.clone(), clock));
        let backing = Backing::open(Arc::clone(&shared))?;
        let store = Self { jobs: sender, shared: Arc::clone(&shared) };
        Ok((store, Writer { jobs: receiver, backing, shared }))
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
        while let Some(first) = next(&mut self.jobs, self.backing.look_at()).await {
            let batch = match first {
                Some(first) => gather(first, &mut self.jobs, last_commit).await,
                None => Vec::new(),
            };
            let mut backing = self.backing;
            let done = tokio::task::spawn_blocking(move || {
                let outcome = commit(&mut backing, batch);
                backing.after(&outcome);
                (backing, outcome)
            });
            let (backing, outcome) = done.await.map_err(|e| StoreError::Refused(e.to_string()))?;
            last_commit = Some(Instant::now());
            self.backing = match outcome {
                Err(e) if is_fatal(&e) => {
                    backing.abandon();
                    return Err(self.shared.fail(e));
                }
                Ok(()) | Err(_) => backing,
            };
        }
        let backing = self.backing;
        let _ = tokio::task::spawn_blocking(move || backing.close()).await;
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
fn commit(backing: &mut Backing, batch: Vec<Job>) -> Result<(), StoreError> {
    let ready = backing.before();
    if batch.is_empty() {
        return ready;
    }
    let alone = batch.len() == 1;
    let mut answers = Vec::with_capacity(batch.len());
    let mut jobs = batch.into_iter();
    let mut work = |tx: &mut Tx<'_>| {
        tx.alone = alone;
        for job in jobs.by_ref() {
            let (answer, error) = (job.run)(Ok(tx));
            answers.push(answer);
            // Whatever ran after this would run outside of the transaction, and be kept while its caller is told no.
            error.map_or(Ok(()), Err)?;
        }
        Ok(())
    };
    let outcome = match ready {
        Ok(()) => backing.session.transaction(&mut work).map_err(|e| backing.judge(e)),
        unready => unready,
    };
    if let Err(e) = &outcome {
        // Before anybody knows: who ran once ends with the first error that it hears of.
        backing.note(e);
    }
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
