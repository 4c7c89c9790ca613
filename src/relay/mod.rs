//! 5 — push. The loop that claims what is due, sends it and settles what came of it.
//!
//! `queue.rs` is one run over one destination, `lane.rs` what is sent to one table of it; `blame.rs`, `hold.rs`,
//! `retry.rs` and `budget.rs` decide. None of them knows a kind: what differs is in `kind/`. A delivery is claimed durably
//! before anything is sent, looked up before it is created, and settled with an outcome row; what is claimed when the
//! process ends is doubtful at the next start. So an answer that got lost never makes a second ticket, and a delivery
//! never leaves without a trace.
//!
//! The loop wakes for three reasons: the sync interval, somebody who asks, and the earliest time at which something that
//! failed is due again. Between syncs only what was tried before is sent.

mod admit;
mod blame;
mod budget;
mod device;
mod group;
mod hold;
mod kind;
mod lane;
mod learned;
mod pace;
mod queue;
mod remarks;
mod retry;

pub use device::{DeviceReport, Devices};

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{RELEASED_AT, SharedClock};
use crate::destination::{Compose, Destination, Fields, Learned};
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::model::{DeliveryId, DestinationName, Timestamp};
use crate::store::op::health::SyncRun;
use crate::store::{Spent, Store, StoreError, SyncRow};

/// What the relay needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[sync] enabled`: false pushes nothing.
    pub enabled: bool,
    /// `[sync] interval`, at least 5 min.
    pub interval: Duration,
    /// How long after a doubtful answer the other side is asked whether the record is there: its index may lag.
    pub doubt_wait: Duration,
    /// Limits by destination.
    pub destinations: BTreeMap<DestinationName, Limits>,
    /// Where devices go; `None`: nowhere.
    pub devices: Option<Devices>,
    /// How tickets are read back.
    pub sync: crate::sync::Settings,
}

/// Time from the very first start to the first sync: the sources have read something by then, and whoever set it up need
/// not wait for a whole interval to see a ticket.
const FIRST_SYNC: Duration = Duration::from_secs(10);

/// Default of [`Settings::doubt_wait`]: longer than the five seconds after which a record has been seen to appear.
pub const DOUBT_WAIT: Duration = Duration::from_secs(6);

/// Most plans that one answer has: an answer over the control socket stays bounded.
const PLAN_MAX: usize = 1_000;
/// How soon a clock that was set right is noticed.
const CLOCK_WAIT: Duration = Duration::from_secs(30);
/// Wait before a store without room is tried again.
const ROOM_WAIT: Duration = Duration::from_secs(10);
/// So often `--once` waits for room, one after the other: somebody waits for its end.
const ROOM_WAITS: u32 = 3;

/// The operator's own ceilings for one destination.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `requests_per_hour`, at least 1.
    pub requests_per_hour: u32,
    /// `max_in_flight`, 1 to 16.
    pub max_in_flight: usize,
    /// `on_unprotected`.
    pub on_unprotected: OnUnprotected,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_per_hour: 1_000, max_in_flight: 2, on_unprotected: OnUnprotected::Hold }
    }
}

/// What is done with a table that keeps neither of our keys: after a lost answer nothing there tells whether a record was
/// made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnprotected {
    /// Its deliveries wait.
    #[default]
    Hold,
    /// They go on; a lost answer may make a twin.
    Accept,
}

/// What a sync came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Tickets created.
    pub created: u64,
    /// Tickets found there already (lost answers, a lost database).
    pub found: u64,
    /// What came later of tickets that got where it should: notes, resolved and opened again.
    #[serde(default)]
    pub updated: u64,
    /// Deliveries to be tried again.
    pub again: u64,
    /// Dead letters made.
    pub dead: u64,
    /// When the next of those that failed, or what is on hold, is tried; `None`: nothing waits for a time of its own.
    pub next_at: Option<Timestamp>,
    /// What waits and why, in words.
    pub waiting: Vec<String>,
    /// What was said of some of those that are tried again.
    #[serde(default)]
    pub failures: Vec<String>,
    /// Those of them that pass by themselves, as far as is known: no health issue tells of them.
    #[serde(skip)]
    pub passing: Vec<String>,
    /// By destination, what of its budget makes something wait; in words it is in `waiting` too.
    #[serde(skip)]
    pub spent: BTreeMap<DestinationName, Spent>,
    /// Where a person ordered a sync and not all tickets could be read back, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// Nothing was even tried: the sync is still owed.
    #[serde(skip)]
    pub owed: bool,
    /// The sync was told to stop before all that was due was sent.
    #[serde(default)]
    pub cut: bool,
    /// What came of devices.
    #[serde(default)]
    pub devices: DeviceReport,
    /// When devices are synced next.
    #[serde(skip)]
    pub devices_at: Option<Timestamp>,
}

impl Report {
    /// Adds what another run came to.
    pub fn add(&mut self, other: Self) {
        self.created += other.created;
        self.found += other.found;
        self.updated += other.updated;
        self.again += other.again;
        self.dead += other.dead;
        self.cut |= other.cut;
        self.devices.created += other.devices.created;
        self.devices.updated += other.devices.updated;
        self.devices.again = other.devices.again;
        self.devices.dead += other.devices.dead;
        self.wake_devices(other.devices_at);
        self.wake(other.next_at);
        self.waiting.extend(other.waiting);
        self.failures.extend(other.failures);
        self.passing.extend(other.passing);
        self.unread.extend(other.unread);
        self.spent.extend(other.spent);
    }

    fn wait_for(&mut self, what: String) {
        if !self.waiting.contains(&what) {
            self.waiting.push(what);
        }
    }

    /// Something waits for the next hour of this destination's budget.
    fn wait_for_budget(&mut self, name: &DestinationName, spent: Spent) {
        self.wait_for(format!("{name}: {}", spent.reason));
        self.spent.insert(name.clone(), spent);
    }

    fn wake(&mut self, at: Option<Timestamp>) {
        self.next_at = [self.next_at, at].into_iter().flatten().min();
    }

    /// When something is to be done before the next sync.
    fn earliest(&self) -> Option<Timestamp> {
        [self.next_at, self.devices_at].into_iter().flatten().min()
    }

    fn wake_devices(&mut self, at: impl Into<Option<Timestamp>>) {
        self.devices_at = [self.devices_at, at.into()].into_iter().flatten().min();
    }

    /// Whether nothing came of it at all.
    fn is_empty(&self) -> bool {
        self.delivered() + self.again + self.dead == 0 && self.devices == DeviceReport::default()
    }

    /// Deliveries that got where they should.
    pub fn delivered(&self) -> u64 {
        self.created + self.found + self.updated
    }
}

/// A request that a sync would send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// The delivery.
    pub id: DeliveryId,
    /// Destination.
    pub destination: DestinationName,
    /// Table there.
    pub table: String,
    /// Its key there.
    pub correlation_id: String,
    /// The fields, or why they cannot be made.
    pub fields: Result<Fields, String>,
}

/// What somebody asks of the running relay.
#[derive(Debug)]
pub enum Ask {
    /// Sync now; holds are tried at once. Answers when the sync has ended.
    Sync(oneshot::Sender<Report>),
    /// What would a sync send, at most so many.
    Plan(usize, oneshot::Sender<Vec<Planned>>),
    /// A person made something due that was tried before: send it now.
    Again,
}

/// What the relay tells about itself while it runs.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Whether a sync is running.
    pub syncing: bool,
    /// Deliveries that got where they should since the process started.
    pub delivered: u64,
    /// When the next sync is due, by this machine's clock.
    pub next_sync_at: Option<Timestamp>,
    /// The last sync, where it had nothing to do and is not in the store: not one page of flash for that.
    pub empty_sync: Option<SyncRow>,
    /// Why what failed last is tried again, until something gets through.
    pub failing: Vec<String>,
    /// `enabled = false` in `[sync]`.
    pub off: bool,
    /// What the clock says, while it cannot be right and sending is held for it.
    pub clock: Option<Timestamp>,
}

/// Why a sync runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Interval,
    Asked,
    /// Only what was tried before.
    Again,
    /// The same, because a person said so.
    Retry,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Asked => "asked",
            Self::Again => "again",
            Self::Retry => "retry",
        }
    }

    /// Whether a person wants it now, whatever waits.
    fn is_order(self) -> bool {
        matches!(self, Self::Asked | Self::Retry)
    }

    fn only_tried(self) -> bool {
        matches!(self, Self::Again | Self::Retry)
    }
}

/// The relay's state; `D` is the kind of ticket system.
pub struct Relay<D> {
    store: Store,
    destinations: Vec<Arc<D>>,
    composer: Arc<dyn Compose>,
    clock: SharedClock,
    settings: Settings,
    progress: watch::Sender<Progress>,
    heartbeat: Heartbeat,
    /// How often it waits for room before it gives up.
    room_waits: u32,
    /// A std lock: held for a few lines, never over a wait.
    memory: Mutex<Memory>,
}

/// What is remembered between runs, and may be forgotten at a restart.
#[derive(Default)]
struct Memory {
    /// When what is looked for twice was first not found.
    looked_for: HashMap<DeliveryId, Instant>,
    /// How often one failed while others got through.
    alone: HashMap<DeliveryId, u32>,
    /// How many requests at once a destination was found to bear, and how fast they go.
    pace: HashMap<DestinationName, pace::Pace>,
    /// Whether a sync of this process is in the store: the next start knows from it when the last one was, about.
    synced: bool,
    /// What destinations have learned, as the store has it.
    learned: HashMap<DestinationName, Learned>,
    /// Destination, table and rule whose records fit when they were last asked about.
    fitting: HashSet<String>,
}

/// What a look-up and a create may take together, with a new token for each: five times the destination's longest deadline.
const ALLOWANCE: Duration = Duration::from_mins(6);

impl<D: Destination> Relay<D> {
    /// A relay over these destinations.
    pub fn new(
        store: Store,
        destinations: Vec<Arc<D>>,
        composer: Arc<dyn Compose>,
        clock: SharedClock,
        settings: Settings,
    ) -> Self {
        let (progress, _) = watch::channel(Progress::default());
        if settings.devices.is_some() {
            store.want_devices();
        }
        Self {
            store,
            destinations,
            composer,
            clock,
            settings,
            progress,
            heartbeat: Heartbeat::default(),
            room_waits: ROOM_WAITS,
            memory: Mutex::default(),
        }
    }

    /// The same, telling how it goes through this channel, and that it lives among these.
    #[must_use]
    pub fn watched(mut self, progress: watch::Sender<Progress>, heartbeats: &Heartbeats) -> Self {
        self.progress = progress;
        self.progress.send_modify(|p| p.off = !self.settings.enabled);
        self.heartbeat = heartbeats.of("relay", ALLOWANCE);
        self
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To watch it work.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Runs until `stop`. What is in flight then is finished; what cannot be is doubtful at the next start.
    ///
    /// # Errors
    /// [`StoreError`]: without its store the relay cannot go on.
    pub async fn run(
        mut self,
        asked: &mut mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) -> Result<(), StoreError> {
        self.room_waits = u32::MAX;
        self.heartbeat.busy();
        let mut again_at = self.patiently(&stop, || self.recover()).await?;
        self.patiently(&stop, || self.forget_remarks()).await?;
        let mut next_sync = Instant::now() + self.patiently(&stop, || self.first_wait()).await?;
        let mut owed = false;
        loop {
            self.announce(next_sync);
            self.heartbeat.idle();
            let cause = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                ask = asked.recv() => match ask {
                    Some(Ask::Again) => Cause::Retry,
                    Some(Ask::Plan(limit, answer)) => {
                        // Whoever asked may be gone.
                        self.store.commit_gathered().await;
                        let _ = answer.send(self.plan(limit.min(PLAN_MAX)).await.or_else(passing)?);
                        continue;
                    }
                    Some(Ask::Sync(answer)) => {
                        self.heartbeat.busy();
                        let report = self.try_sync(Cause::Asked, &stop).await?;
                        again_at = report.earliest();
                        let _ = answer.send(report);
                        continue;
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(next_sync) => Cause::Interval,
                () = self.sleep_to(again_at) => Cause::Again,
            };
            self.heartbeat.busy();
            if cause == Cause::Interval {
                next_sync = Instant::now() + self.settings.interval;
            }
            // A sync that could not even begin is made up for, not only what was tried before.
            let cause = if owed { Cause::Interval } else { cause };
            let report = self.try_sync(cause, &stop).await?;
            owed = report.owed && cause == Cause::Interval;
            again_at = report.earliest();
        }
    }

    /// A sync for which a full store is no end: there will be room again.
    async fn try_sync(&self, cause: Cause, stop: &CancellationToken) -> Result<Report, StoreError> {
        match self.sync(cause, stop).await {
            Err(e) if e.is_passing() => {
                tracing::error!("nothing is pushed for now, it is tried again: {e}");
                // A claim may have been committed though its answer was an error. Nothing is in flight here.
                self.patiently(stop, || self.recover()).await?;
                let next_at = Some(self.clock.now().after(ROOM_WAIT));
                Ok(Report {
                    waiting: vec![format!("{e}{}", e.behind())],
                    next_at,
                    owed: true,
                    ..Report::default()
                })
            }
            other => other,
        }
    }

    /// Does something to the store until it is done, or fails in a way that does not pass, or has waited often enough, or
    /// `stop`.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        stop: &CancellationToken,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError> {
        let mut waits = 0;
        loop {
            let e = match attempt().await {
                Err(e) if e.is_passing() && waits < self.room_waits && !stop.is_cancelled() => e,
                other => return other,
            };
            waits = waits.saturating_add(1);
            if waits == 1 {
                tracing::error!("pushing waits for room in the store: {e}{}", e.behind());
            }
            self.store.make_room().await?;
            self.heartbeat.idle();
            tokio::select! {
                () = tokio::time::sleep(ROOM_WAIT) => {}
                () = stop.cancelled() => {}
            }
            self.heartbeat.busy();
        }
    }

    /// Syncs until all is delivered, or until what is left will not go within `patience` of the last sync that got on: how
    /// long a sync itself takes is the machine's and the instance's affair, and changes nothing of what is waited for.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run_once(&self, patience: Duration, stop: &CancellationToken) -> Result<Report, StoreError> {
        self.recover().await?;
        self.forget_remarks().await?;
        let mut total = self.sync(Cause::Asked, stop).await?;
        let mut deadline = self.clock.now().after(patience);
        while let Some(at) = total.next_at.filter(|at| *at <= deadline && !stop.is_cancelled()) {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.sleep_to(Some(at)) => {}
            }
            total.waiting.clear();
            total.failures.clear();
            total.passing.clear();
            (total.again, total.next_at) = (0, None);
            let next = self.sync(Cause::Again, stop).await?;
            if next.delivered() > 0 {
                deadline = self.clock.now().after(patience);
            }
            total.add(next);
        }
        Ok(total)
    }

    /// What a sync would send now, at most so many; nothing is sent or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn plan(&self, limit: usize) -> Result<Vec<Planned>, StoreError> {
        let mut plans = Vec::new();
        for destination in &self.destinations {
            plans.extend(self.plan_destination(destination, limit.saturating_sub(plans.len())).await?);
        }
        plans.extend(self.plan_devices(limit.saturating_sub(plans.len())).await?);
        Ok(plans)
    }

    /// What was in flight when the process ended is looked up after the other side's index has had time.
    async fn recover(&self) -> Result<Option<Timestamp>, StoreError> {
        let due = self.clock.now().after(self.settings.doubt_wait);
        let doubtful = self.store.recover(due).await?;
        if doubtful > 0 {
            tracing::warn!(
                deliveries = doubtful,
                "the last run ended while sending {doubtful} deliveries; these are looked up before they are sent again"
            );
        }
        // Those that already backed off before the restart are due at some time of their own.
        Ok(Some(due))
    }

    /// Time to the first sync: the interval goes on over a restart.
    async fn first_wait(&self) -> Result<Duration, StoreError> {
        let Some(last) = self.store.last_sync_at().await? else { return Ok(FIRST_SYNC) };
        let now = self.clock.now();
        // A last sync in the future means that the clock was set back: then now is as good as any time.
        if now < last {
            Ok(Duration::ZERO)
        } else {
            Ok(self.settings.interval.saturating_sub(now.since(last)))
        }
    }

    /// Sleeps to a wall time, in monotonic time; for ever without one.
    async fn sleep_to(&self, at: Option<Timestamp>) {
        match at {
            Some(at) => tokio::time::sleep(at.since(self.clock.now())).await,
            None => std::future::pending().await,
        }
    }

    fn announce(&self, next_sync: Instant) {
        let next = self.clock.now().after(next_sync.saturating_duration_since(Instant::now()));
        let next = self.settings.enabled.then_some(next);
        self.progress.send_if_modified(|p| std::mem::replace(&mut p.next_sync_at, next) != next);
    }

    /// Whether sending is held because of the clock; said when that changes.
    fn clock_is_absurd(&self, now: Timestamp) -> bool {
        let absurd = now < RELEASED_AT;
        let was = self.progress.borrow().clock.is_some();
        if absurd != was {
            if absurd {
                tracing::error!(
                    now = %now,
                    "this machine's clock says {now}, before this version was released: alerts are taken in and kept, \
                     and nothing is sent until the clock is right (timedatectl, NTP)"
                );
            } else {
                tracing::info!(now = %now, "this machine's clock is right again, {now}: sending goes on");
            }
            self.progress.send_modify(|p| p.clock = absurd.then_some(now));
        }
        absurd
    }

    /// One sync over all destinations, side by side: one that is slow or dead delays no other.
    async fn sync(&self, cause: Cause, stop: &CancellationToken) -> Result<Report, StoreError> {
        let mut report = Report::default();
        if !self.settings.enabled {
            report.waiting.push("`enabled = false` in [sync]: nothing is pushed".to_owned());
            return Ok(report);
        }
        let started_at = self.clock.now();
        if self.clock_is_absurd(started_at) {
            report.waiting.push(format!(
                "the clock says {started_at}, before this version was released: sending is held until it is right \
                 (timedatectl, NTP)"
            ));
            report.next_at = Some(started_at.after(CLOCK_WAIT));
            report.owed = true;
            return Ok(report);
        }
        self.progress.send_modify(|p| p.syncing = true);
        if !cause.only_tried() {
            self.store.commit_gathered().await;
        }
        self.recall_learned().await?;
        // All to their end, whatever one of them meets: what is claimed has to be settled.
        let pushes = self.destinations.iter().map(|destination| self.push(destination, cause, stop));
        let reports = futures_util::future::join_all(pushes).await;
        for one in reports {
            report.add(one?);
        }
        // After the tickets: a finding is more urgent than an inventory.
        let devices = self.push_devices(cause, stop).await;
        self.progress.send_modify(|p| p.syncing = false);
        report.add(devices?);
        self.keep_learned().await?;
        self.end_spent(&report).await?;
        self.note_failures(&report);
        if report.cut {
            report
                .waiting
                .push("the service stops or reloads: the rest is sent when it runs again".to_owned());
        }
        if !cause.only_tried() || report.delivered() + report.dead > 0 {
            let run = SyncRun {
                started_at,
                ended_at: self.clock.now(),
                cause: cause.as_str().to_owned(),
                created: report.created,
                found: report.found,
                again: report.again,
                dead: report.dead,
            };
            self.keep_sync(run, report.is_empty()).await?;
            tracing::info!(
                cause = cause.as_str(),
                created = report.created,
                found = report.found,
                again = report.again,
                dead = report.dead,
                "sync done: {} created, {} found, {} to retry, {} dead",
                report.created,
                report.found,
                report.again,
                report.dead
            );
            for (name, spent) in &report.spent {
                tracing::info!(destination = %name, until = %spent.until_at, "{name}: some wait for the budget: {}", spent.reason);
            }
        }
        Ok(report)
    }

    /// Keeps why something is tried again for whoever asks how things are; in the log when it is other words than before.
    fn note_failures(&self, report: &Report) {
        if report.passing.is_empty() && report.delivered() + report.dead == 0 {
            return;
        }
        let was = self.progress.borrow().failing.clone();
        for words in &report.passing {
            if !was.iter().any(|before| same_words(before, words)) {
                tracing::warn!("tried again by itself: {words}");
            }
        }
        let news = &report.passing;
        self.progress.send_if_modified(|p| {
            let changes = p.failing != *news;
            p.failing.clone_from(news);
            changes
        });
    }

    /// Keeps the record of a sync, in the store unless nothing came of it.
    async fn keep_sync(&self, run: SyncRun, is_empty: bool) -> Result<(), StoreError> {
        let empty_sync = (is_empty && self.memory().synced).then(|| SyncRow {
            started_at: run.started_at,
            ended_at: run.ended_at,
            cause: run.cause.clone(),
            ..SyncRow::default()
        });
        if empty_sync.is_none() {
            self.store.synced(run).await?;
            self.memory().synced = true;
        }
        self.progress.send_modify(|p| p.empty_sync = empty_sync);
        Ok(())
    }
}

/// Whether two failures differ in nothing but the id of their transaction.
fn same_words(one: &str, other: &str) -> bool {
    let without = |text: &str| text.split(" (transaction ").next().map(str::to_owned);
    without(one) == without(other)
}

/// Nothing to show from a store that is only full for a while.
fn passing<T: Default>(e: StoreError) -> Result<T, StoreError> {
    if e.is_passing() { Ok(T::default()) } else { Err(e) }
}

#[cfg(test)]
mod tests;
