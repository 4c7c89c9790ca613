//! What was taken in and is not committed yet, because its source still has it: the intake gathers it, so that a quiet
//! sensor's alerts share a commit. Who needs it in the store (a sync, somebody who looks) has it committed first.
//!
//! On disk: nothing. After a power cut the source is read again from its cursor, which is in the same commit.

use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::Store;

/// How long one waits for the commit of what is gathered; a disk may be slow.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the intake tells of it.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    now: watch::Sender<Now>,
    wanted: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Now {
    /// Records that are held.
    records: u64,
    /// How often what was held was committed.
    commits: u64,
}

impl Store {
    /// How many records were taken in and wait for their commit.
    pub fn gathered(&self) -> u64 {
        self.shared.gathered.now.borrow().records
    }

    /// Has what is gathered committed; ends when that is done, or cannot be done soon.
    pub async fn commit_gathered(&self) {
        let mut now = self.shared.gathered.now.subscribe();
        let before = *now.borrow_and_update();
        if before.records == 0 || self.is_refusing() {
            return;
        }
        self.shared.gathered.wanted.notify_one();
        let done = now.wait_for(|now| now.records == 0 || now.commits > before.commits);
        // Whoever waits for it goes on without: what is gathered is not lost by it.
        let _ = tokio::time::timeout(PATIENCE, done).await;
    }

    /// For the intake: ends when somebody wants what it holds to be committed.
    pub async fn gathered_is_wanted(&self) {
        self.shared.gathered.wanted.notified().await;
    }

    /// For the intake: it holds so many records more.
    pub fn gather(&self, records: u64) {
        self.shared.gathered.now.send_modify(|now| now.records += records);
    }

    /// For the intake: what it held is committed, or will not be by it.
    pub fn gathered_is_done(&self) {
        self.shared.gathered.now.send_if_modified(|now| {
            let held = now.records > 0;
            *now = Now { records: 0, commits: now.commits + 1 };
            held
        });
    }
}
