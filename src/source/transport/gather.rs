//! Where the listeners of one source put what they read, and from where it goes to the intake: a batch at a time, when it
//! is full or a quarter of a second old. While the intake has no room the batch stays full, and who wants to put more
//! into it waits without reading on.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::{Batch, SourceError};
use super::send;
use crate::heartbeat::Heartbeat;
use crate::model::SourceName;

/// Longest time that something read waits for more.
const GATHER: Duration = Duration::from_millis(250);
/// First and longest wait before a listener is bound again.
const BIND_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// Wait after a connection could not be accepted (no file descriptors).
pub(super) const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// The batch that is being filled.
#[derive(Debug)]
pub(super) struct Gather {
    name: SourceName,
    kind: &'static str,
    filling: Mutex<Filling>,
    /// Something is in it.
    some: Notify,
    /// It is full, or nothing more comes.
    full: Notify,
    room: Notify,
}

#[derive(Debug)]
struct Filling {
    batch: Batch,
    /// What is wrong, listener by listener.
    troubles: Vec<Option<String>>,
    /// Whether there is something to tell.
    news: bool,
    closed: bool,
}

impl Gather {
    /// For so many listeners. The first batch says that the source is there.
    pub(super) fn new(name: SourceName, kind: &'static str, listeners: usize) -> Self {
        let batch = Batch::new(name.clone(), kind);
        let filling = Filling { batch, troubles: vec![None; listeners], news: true, closed: false };
        let (some, full, room) = (Notify::new(), Notify::new(), Notify::new());
        Self { name, kind, filling: Mutex::new(filling), some, full, room }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Filling) -> T) -> T {
        change(&mut self.filling.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is room for a record.
    pub(super) async fn has_room(&self) {
        loop {
            let mut again = std::pin::pin!(self.room.notified());
            again.as_mut().enable();
            if !self.with(|filling| filling.batch.is_full()) {
                return;
            }
            again.await;
        }
    }

    /// Puts something in; whether there is room for more.
    pub(super) fn put(&self, put: impl FnOnce(&mut Batch)) -> bool {
        let is_full = self.with(|filling| {
            put(&mut filling.batch);
            filling.news = true;
            filling.batch.is_full()
        });
        self.some.notify_one();
        if is_full {
            self.full.notify_one();
        }
        !is_full
    }

    /// Says what is wrong with a listener now.
    pub(super) fn trouble(&self, listener: usize, trouble: Option<String>) {
        let is_new = self.with(|filling| {
            let is_new = filling.troubles[listener] != trouble;
            filling.troubles[listener] = trouble;
            filling.news |= is_new;
            is_new
        });
        if is_new {
            self.some.notify_one();
        }
    }

    /// Binds a listener, again until it can be; why it cannot is its trouble. `None`: the order to stop came first.
    pub(super) async fn bound<B>(
        &self,
        listener: usize,
        place: &(dyn Display + Sync),
        stop: &CancellationToken,
        bind: impl Fn() -> Result<B, String>,
    ) -> Option<B> {
        let mut wait = BIND_AGAIN.0;
        while !stop.is_cancelled() {
            match bind() {
                Ok(bound) => {
                    self.trouble(listener, None);
                    return Some(bound);
                }
                Err(cause) => self.trouble(listener, Some(format!("cannot listen on {place}: {cause}"))),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(BIND_AGAIN.1);
        }
        None
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.with(|filling| filling.closed = true);
        self.some.notify_one();
        self.full.notify_one();
    }

    /// What there is to hand over, and whether nothing more comes.
    fn take(&self) -> (Option<Batch>, bool) {
        let (batch, closed) = self.with(|filling| {
            let mut batch = None;
            if std::mem::take(&mut filling.news) {
                let fresh = Batch::new(self.name.clone(), self.kind);
                let mut filled = std::mem::replace(&mut filling.batch, fresh);
                let troubles: Vec<&str> = filling.troubles.iter().flatten().map(String::as_str).collect();
                filled.trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
                filled.more = filled.is_full();
                batch = Some(filled);
            }
            (batch, filling.closed)
        });
        self.room.notify_waiters();
        (batch, closed)
    }

    /// Hands batches over until it is closed and empty, or the intake takes none in time after the order to stop.
    pub(super) async fn hand_over(
        &self,
        out: &mpsc::Sender<Batch>,
        stop: &CancellationToken,
        heartbeat: &Heartbeat,
    ) -> Result<(), SourceError> {
        loop {
            let (batch, closed) = self.take();
            let nothing = batch.is_none();
            if let Some(batch) = batch
                && !send(out, batch, &self.name, stop).await?
            {
                return Ok(());
            }
            if nothing && closed {
                return Ok(());
            }
            heartbeat.idle();
            if nothing {
                self.some.notified().await;
            }
            tokio::select! {
                () = self.full.notified() => {}
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }
}
