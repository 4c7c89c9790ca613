//! 3 — the loop that takes a batch, decides, and commits alerts, decisions, deliveries and cursors together.
//!
//! One batch after the other and never the next before the last is synced: a batch that failed is tried again as it is,
//! because a later cursor would step over its alerts. When the store is full nothing more is taken; the bounded lanes
//! then stop the sources, and their files are the buffer. Batches that came while the disk was busy go into one commit;
//! sources are taken in turns. Who waits for a batch is told after its commit. What a source would give again (a file is
//! its own log) is held for up to `HOLD`, so that few alerts of a quiet sensor share the pages of one commit.

mod lanes;
mod own;
mod silence;
mod tap;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::model::alert::AlertState;
use crate::model::alert::hex;
use crate::model::cursor::Again;
use crate::model::{Alert, Engine, Fingerprint, RuleName, Severity, SourceName, Timestamp};
use crate::rules::exclude::Exclusions;
use crate::rules::{Decision, Reason, Rules};
use crate::source::{Acknowledge, Batch, RejectCounts, RejectReason, Sighting, Taken};
use crate::store::op::prune::Made;
use crate::store::op::record::{Entry, Filtered, Record, Rejected, Routed, Sample};
use crate::store::op::reroute::Undelivered;
use crate::store::{Store, StoreError};

pub use lanes::{Lanes, lanes};
pub use own::OWN;
use silence::Silences;
pub use tap::Tap;
use told::{Older, Troubles};

/// `[sync] backfill`: which alerts are forwarded when a source is first read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backfill {
    /// All.
    All,
    /// Those that are not older than this when they are read; zero: none of them.
    Within(Duration),
}

impl Backfill {
    /// Whether an alert of this time is older.
    pub fn is_too_old(self, time: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::All => false,
            Self::Within(Duration::ZERO) => true,
            Self::Within(age) => time < now.before(age),
        }
    }
}

impl std::fmt::Display for Backfill {
    /// As in the config: `all`, `7d`, `90m`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Within(age) = self else { return f.write_str("all") };
        let secs = age.as_secs();
        let (unit, word) = [(86_400, "d"), (3_600, "h"), (60, "m")]
            .into_iter()
            .find(|(unit, _)| secs > 0 && secs.is_multiple_of(*unit))
            .unwrap_or((1, "s"));
        write!(f, "{}{word}", secs / unit)
    }
}

/// What the intake needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[sync] backfill`.
    pub backfill: Backfill,
    /// `[agent] name`: the sensor of otrelay's own alerts.
    pub agent: String,
    /// `[[exclude]]`: alerts that no rule is asked about.
    pub exclusions: Exclusions,
    /// `[[source]] silent_after`: for how long nothing may come of a source.
    pub silences: Vec<(SourceName, Duration)>,
}

/// Batches that are committed together at most. More would save syncs that cost little, for memory that is dear.
const TOGETHER: usize = 2;
/// How long what can wait is held, and how much of it: flash is written in pages, whatever stands in them.
const HOLD: Duration = Duration::from_secs(30);
/// Most text that is held, in bytes.
const HELD_MAX: u64 = 256 * 1024;
/// Most batches that are held.
const HELD_BATCHES_MAX: usize = 64;
/// Samples of filtered alerts that one batch may add to the ring, by reason.
const SAMPLES: usize = 4;
/// Wait before a full store is tried again.
const FULL_WAIT: Duration = Duration::from_secs(5);
/// Bytes that an alert takes in the store besides its texts.
const ROW: usize = 256;
/// Alerts in one step when changed rules are applied to what is undelivered.
const PAGE: usize = 200;

/// The intake's state.
pub struct Intake {
    store: Store,
    rules: Arc<Rules>,
    clock: SharedClock,
    settings: Settings,
    heartbeat: Heartbeat,
    tap: Tap,
}

/// What one commit may take; a wait for room is none.
const ALLOWANCE: Duration = Duration::from_mins(2);

impl Intake {
    /// An intake that decides by these rules.
    pub fn new(store: Store, rules: Arc<Rules>, clock: SharedClock, settings: Settings) -> Self {
        Self { store, rules, clock, settings, heartbeat: Heartbeat::default(), tap: Tap::default() }
    }

    /// The same, telling there what it decides.
    #[must_use]
    pub fn telling(mut self, tap: Tap) -> Self {
        self.tap = tap;
        self
    }

    /// The same, telling that it lives among these.
    #[must_use]
    pub fn watched(mut self, heartbeats: &Heartbeats) -> Self {
        self.heartbeat = heartbeats.of("intake", ALLOWANCE);
        self
    }

    /// Takes batches until the sources are gone, then has drained them. `stop` only ends the wait for a full store.
    ///
    /// # Errors
    /// [`StoreError`]: the process has to start again.
    pub async fn run(self, mut batches: Lanes, stop: CancellationToken) -> Result<(), StoreError> {
        self.until_applied(&stop).await?;
        self.tell_repairs(&stop).await?;
        self.heartbeat.idle();
        let (mut troubles, mut older) = (Troubles::default(), Older::default());
        let mut held = Held::default();
        let mut silences = Silences::begin(&self.settings.silences, &self.silent().await?);
        loop {
            let waiting = tokio::select! {
                biased;
                waiting = batches.next(TOGETHER) => Some(waiting),
                () = held.is_due() => None,
                () = self.store.gathered_is_wanted(), if held.since.is_some() => None,
                () = silences.is_due() => None,
            };
            let is_end = waiting.as_ref().is_some_and(Vec::is_empty);
            let wanted = waiting.is_none() || is_end;
            let waiting = waiting.unwrap_or_default();
            self.heartbeat.busy();
            for batch in &waiting {
                troubles.tell(batch);
                silences.heard(batch);
            }
            let can_wait = !wanted && waiting.iter().all(|batch| batch.can_wait);
            let (records, told): (Vec<Record>, Vec<Option<Waits>>) =
                waiting.into_iter().map(|batch| self.decide(batch)).unzip();
            for record in &records {
                older.tell(record, self.settings.backfill);
            }
            let lines = records.iter().map(|record| record.lines).sum();
            held.records.extend(records);
            let news = silences.news();
            let can_wait = can_wait && news.is_empty();
            held.records.extend(self.tell_silences(news));
            if can_wait && held.wait() {
                self.store.gather(lines);
            } else {
                let done = self.commit_held(&mut held, wanted, &stop).await;
                self.store.gathered_is_done();
                done?;
            }
            told.into_iter().flatten().for_each(|(acknowledge, taken)| acknowledge.tell(taken));
            self.heartbeat.idle();
            if is_end {
                return Ok(());
            }
        }
    }

    /// Commits what is held, at once where somebody waits for it.
    async fn commit_held(
        &self,
        held: &mut Held,
        wanted: bool,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let mut records = std::mem::take(held).records;
        if records.is_empty() {
            return Ok(());
        }
        let kept = records.iter().any(|record| !record.entries.is_empty());
        for record in &mut records {
            record.gather &= !wanted;
        }
        self.commit(Arc::from(records), stop).await?;
        if kept {
            self.heartbeat.tells();
        }
        Ok(())
    }

    /// Commits records in their order. What is too large for one transaction, or does not fit even after room was made is committed in parts.
    async fn commit(&self, records: Arc<[Record]>, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            let too_large = weight(&part) > self.store.part_max();
            let split = if too_large { halves(&part) } else { None };
            let split = match split {
                None => self.commit_part(part, stop).await?,
                split => split,
            };
            if let Some((first, second)) = split {
                parts.push(second);
                parts.push(first);
            }
        }
        Ok(())
    }

    /// Commits one part, or gives back its halves when it does not fit.
    async fn commit_part(
        &self,
        part: Arc<[Record]>,
        stop: &CancellationToken,
    ) -> Result<Option<Halves>, StoreError> {
        let mut told = false;
        loop {
            match self.store.record(Arc::clone(&part)).await {
                Ok(recorded) => {
                    if recorded.room.is_tight() {
                        self.until_room(stop).await?;
                    }
                    return Ok(None);
                }
                Err(e) if e.is_passing() && !stop.is_cancelled() => {
                    if matches!(e, StoreError::Full(_)) {
                        if self.store.room().await?.is_tight() {
                            // What is left of a tight buffer belongs to the relay: without it nothing could leave.
                            if tell(self.store.make_room().await?) != Made::default() {
                                continue;
                            }
                        } else if let Some(halves) = halves(&part) {
                            return Ok(Some(halves));
                        }
                    }
                    // What is settled is only history; without it there may be space.
                    if matches!(e, StoreError::DiskFull(_))
                        && tell(self.store.make_room().await?) != Made::default()
                    {
                        continue;
                    }
                    // The disk is full: giving anything up would not help; the file is the buffer until there is
                    // room. The store has said so.
                    if !told && !self.store.is_refusing() {
                        tracing::error!("nothing more is taken in until there is room: {e}");
                        told = true;
                    }
                    self.wait(stop).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes room by the policy; where the policy makes none, waits until the relay has.
    async fn until_room(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        tell(self.store.make_room().await?);
        while self.store.room().await?.is_tight() && !stop.is_cancelled() {
            self.wait(stop).await;
            tell(self.store.make_room().await?);
        }
        Ok(())
    }

    async fn wait(&self, stop: &CancellationToken) {
        self.heartbeat.idle();
        tokio::select! {
            () = tokio::time::sleep(FULL_WAIT) => {}
            () = stop.cancelled() => {}
        }
        self.heartbeat.busy();
    }

    /// Turns a batch into what the store has to do, and whom to tell when it is done. Pure but for the time of receipt.
    fn decide(&self, batch: Batch) -> (Record, Option<Waits>) {
        let now = self.clock.now();
        let mut folded = Folded::default();
        let (alerts, lines, again) = (batch.alerts(), batch.lines(), batch.again);
        let taken = |acknowledge| {
            let alerts = batch.sightings.iter().map(|sighting| sighting.fingerprint).collect();
            (acknowledge, Taken { alerts, devices: batch.devices.len() as u64 })
        };
        let mut by_severity = [0; 4];
        for sighting in batch.sightings.iter().filter(|sighting| !sighting.again) {
            by_severity[sighting.alert.severity as usize] += 1;
        }
        let waits = batch.acknowledge.map(taken);
        for sighting in batch.sightings {
            // Each sighting by itself: two of one finding may be on both sides of a window's edge.
            let seen = self.tap.begin(&batch.source, &sighting);
            let second = again.filter(|_| sighting.again);
            let place = match (self.exclusion(&batch.source, &sighting), second) {
                // Counted when it was read first.
                (Some(_), Some(_)) => None,
                (Some(name), None) => {
                    folded.exclude(name, &sighting.alert);
                    self.tap.excluded(seen, name);
                    continue;
                }
                (None, Some(again)) => self.decide_again(again, sighting, &mut folded),
                (None, None) => Some(folded.add(sighting, |s| self.verdict(s, now))),
            };
            if let Some(place) = place {
                self.tap.decided(seen, place, folded.routes(place));
            }
        }
        let record = Record {
            now,
            kind: batch.kind,
            gather: !batch.more && waits.is_none(),
            lines,
            alerts,
            by_severity,
            entries: folded.entries,
            devices: batch.devices,
            unauthenticated: batch.unauthenticated,
            filtered: folded.filtered.into_values().collect(),
            excluded: folded.excluded.into_values().collect(),
            rejected: rejected(&batch.source, &batch.rejects, &batch.reject_counts),
            ignored: batch.ignored,
            cursors: batch.cursors,
            finished: batch.finished,
            trouble: batch.trouble,
            source: batch.source,
            lives: Arc::clone(self.rules.lives()),
        };
        (record, waits)
    }

    /// The exclusion that takes a sighting, by its name. What is cleared was raised before, and is not kept from it.
    fn exclusion(&self, source: &SourceName, sighting: &Sighting) -> Option<&str> {
        let is_raised = sighting.alert.state == AlertState::Raised;
        self.settings.exclusions.taking(source, &sighting.alert).filter(|_| is_raised)
    }

    /// What is read a second time: each sighting by itself, as the store says which was counted; nothing is counted here.
    fn decide_again(&self, again: Again, sighting: Sighting, folded: &mut Folded) -> Option<Place> {
        let is_too_old = again.since.is_some_and(|since| sighting.alert.time < since);
        let is_cleared = sighting.alert.state == AlertState::Cleared;
        let decision = self.rules.decide(&sighting.alert);
        if is_too_old || !(is_cleared || decision.is_forwarded()) {
            return None;
        }
        let routes = if is_cleared { Vec::new() } else { routed(&decision) };
        folded.entries.push(Entry { again: Some(again), ..Entry::of(sighting, routes) });
        Some(Place::Entry(folded.entries.len() - 1))
    }

    fn verdict(&self, sighting: &Sighting, now: Timestamp) -> Result<Vec<Routed>, Reason> {
        if sighting.backlog && self.settings.backfill.is_too_old(sighting.alert.time, now) {
            return Err(Reason::TooOld);
        }
        let decision = self.rules.decide(&sighting.alert);
        if decision.is_forwarded() { Ok(routed(&decision)) } else { Err(decision.reason) }
    }

    /// Applies changed rules to what is still undelivered, as far as there is room; does nothing when they are the ones it
    /// was made by. False: what they want in addition has to wait, and [`Intake::run`] sees to it; what they do not want
    /// any more is withdrawn, so the relay may go on. It has to: without it there would never be room. What it delivers
    /// meanwhile is no longer undelivered, and gets nothing in addition.
    ///
    /// # Errors
    /// [`StoreError`]; it goes on from the beginning at the next start.
    pub async fn apply_rules(&self) -> Result<bool, StoreError> {
        let digest = hex(&self.rules.digest());
        let known = self.store.rules_digest().await?;
        if known.as_deref() == Some(digest.as_str()) {
            return Ok(true);
        }
        if known.is_some() {
            tracing::info!("the rules have changed; they are applied to what is still undelivered");
        }
        let (mut after, mut fits) = (0, true);
        loop {
            let page = self.store.undelivered(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.alert_id;
            // A damaged one stays as it is; claiming it says so.
            let decide = |u: Undelivered| Some((u.alert_id, routed(&self.rules.decide(&u.alert?))));
            let all: Vec<_> = page.into_iter().filter_map(decide).collect();
            fits = fits && !self.store.room().await?.is_short() && self.reroute(all.clone()).await?;
            if !fits {
                self.store.withdraw(all).await.or_else(passing)?;
            }
        }
        if fits {
            self.store.set_rules_digest(digest).await?;
        }
        Ok(fits)
    }

    /// False: there was no room for it.
    async fn reroute(&self, all: Vec<(i64, Vec<Routed>)>) -> Result<bool, StoreError> {
        self.store.reroute(all).await.map_or_else(passing, |()| Ok(true))
    }

    /// Waits until there was room for all that changed rules want: what is taken in later is not to come before it.
    async fn until_applied(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut told = false;
        while !self.apply_rules().await? && !stop.is_cancelled() {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "the buffer has no room for all that the changed rules want in addition: what is delivered before \
                     there is room gets no further ticket by them"
                );
            }
            self.until_room(stop).await?;
            self.wait(stop).await;
            self.heartbeat.idle();
        }
        Ok(())
    }
}

impl Entry {
    fn of(sighting: Sighting, routes: Vec<Routed>) -> Self {
        let Sighting { alert, fingerprint, .. } = sighting;
        Self { fingerprint, last_seen_at: alert.time, alert, occurrences: 1, routes, again: None }
    }
}

fn routed(decision: &Decision<'_>) -> Vec<Routed> {
    let route = |r: &crate::rules::Route<'_>| Routed {
        kind: r.kind,
        destination: r.destination.clone(),
        table: r.table.clone(),
        rule: RuleName::clone(r.rule_name),
    };
    decision.routes.iter().map(route).collect()
}

/// What can be done later: at the next start.
fn passing<T: Default>(e: StoreError) -> Result<T, StoreError> {
    if e.is_passing() { Ok(T::default()) } else { Err(e) }
}

/// Says what was given up.
fn tell(made: Made) -> Made {
    if made.given_up > 0 {
        tracing::error!(
            alerts = made.given_up,
            "the buffer is full ([buffer] max_size): {} undelivered alerts of the lowest severity were given up",
            made.given_up
        );
    }
    made
}

/// What was decided and is not committed yet.
#[derive(Default)]
struct Held {
    records: Vec<Record>,
    /// Since when; `None`: nothing is held.
    since: Option<Instant>,
}

impl Held {
    /// Whether it can wait for more.
    fn wait(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now);
        self.records.len() < HELD_BATCHES_MAX && weight(&self.records) < HELD_MAX
    }

    /// Ends when it has waited for long enough.
    async fn is_due(&self) {
        match self.since {
            Some(since) => tokio::time::sleep_until(since + HOLD).await,
            None => std::future::pending().await,
        }
    }
}

/// Who waits for a batch, and what to tell.
type Waits = (Acknowledge, Taken);

type Halves = (Arc<[Record]>, Arc<[Record]>);

/// Bytes that records take in the store, about.
fn weight(records: &[Record]) -> u64 {
    let row = |e: &Entry| e.alert.raw.len() + e.alert.message.len() + e.alert.title.len() + ROW;
    records.iter().flat_map(|record| &record.entries).map(row).sum::<usize>() as u64
}

/// Two parts in their order; the cursors go with the last one, so that a power cut between them only reads again what
/// is then known already. `None`: a single alert.
fn halves(records: &[Record]) -> Option<Halves> {
    if let [one] = records {
        let at = one.entries.len() / 2;
        if at == 0 {
            return None;
        }
        let entries = one.entries[..at].to_vec();
        let alerts = entries.iter().filter(|e| e.again.is_none()).map(|e| e.occurrences).sum();
        let first = Record {
            entries,
            alerts,
            // The second half counts all of them.
            by_severity: [0; 4],
            lines: 0,
            devices: Vec::new(),
            unauthenticated: 0,
            filtered: Vec::new(),
            excluded: Vec::new(),
            rejected: Vec::new(),
            ignored: Vec::new(),
            cursors: Vec::new(),
            finished: Vec::new(),
            ..one.clone()
        };
        let second = Record {
            entries: one.entries[at..].to_vec(),
            alerts: one.alerts.saturating_sub(alerts),
            ..one.clone()
        };
        return Some((Arc::from([first]), Arc::from([second])));
    }
    let (first, second) = records.split_at(records.len() / 2);
    (!first.is_empty()).then(|| (Arc::from(first), Arc::from(second)))
}

/// What decides the same way within a batch: a fingerprint can change its severity between two sightings (a changed
/// rule of the sensor), and then it is decided again.
type Key = (Fingerprint, Severity, Engine, bool);

#[derive(Default)]
struct Folded {
    seen: HashMap<Key, Place>,
    entries: Vec<Entry>,
    filtered: HashMap<Reason, Filtered>,
    excluded: BTreeMap<String, Filtered>,
}

#[derive(Clone, Copy)]
enum Place {
    Entry(usize),
    Filtered(Reason),
}

impl Folded {
    /// Where a place leads.
    fn routes(&self, place: Place) -> &[Routed] {
        match place {
            Place::Entry(at) => self.entries.get(at).map_or(&[], |entry| &entry.routes),
            Place::Filtered(_) => &[],
        }
    }

    fn add(
        &mut self,
        sighting: Sighting,
        verdict: impl FnOnce(&Sighting) -> Result<Vec<Routed>, Reason>,
    ) -> Place {
        if sighting.alert.state == AlertState::Cleared {
            return self.clear(sighting);
        }
        let Alert { severity, engine, time, .. } = sighting.alert;
        let key = (sighting.fingerprint, severity, engine, sighting.backlog);
        match self.seen.get(&key) {
            // A backlog reaches from before to after the backfill's edge, so only an entry answers for the next sighting.
            Some(Place::Entry(at)) if !sighting.backlog => {
                let entry = &mut self.entries[*at];
                entry.occurrences += 1;
                entry.last_seen_at = entry.last_seen_at.max(time);
                Place::Entry(*at)
            }
            Some(Place::Filtered(reason)) if !sighting.backlog => {
                let reason = *reason;
                self.filter(reason, &sighting.alert);
                Place::Filtered(reason)
            }
            _ => self.decide(key, sighting, verdict),
        }
    }

    /// No rule is asked: a clearing opens nothing. What comes after it stands on its own, in its order.
    fn clear(&mut self, sighting: Sighting) -> Place {
        self.seen.retain(|(fingerprint, ..), _| *fingerprint != sighting.fingerprint);
        self.entries.push(Entry::of(sighting, Vec::new()));
        Place::Entry(self.entries.len() - 1)
    }

    fn decide(
        &mut self,
        key: Key,
        sighting: Sighting,
        verdict: impl FnOnce(&Sighting) -> Result<Vec<Routed>, Reason>,
    ) -> Place {
        let place = match verdict(&sighting) {
            Err(reason) => {
                self.filter(reason, &sighting.alert);
                Place::Filtered(reason)
            }
            Ok(routes) => {
                if let Some(Place::Entry(at)) = self.seen.get(&key) {
                    let entry = &mut self.entries[*at];
                    entry.occurrences += 1;
                    entry.last_seen_at = entry.last_seen_at.max(sighting.alert.time);
                    return Place::Entry(*at);
                }
                self.entries.push(Entry::of(sighting, routes));
                Place::Entry(self.entries.len() - 1)
            }
        };
        self.seen.insert(key, place);
        place
    }

    fn filter(&mut self, reason: Reason, alert: &Alert) {
        let filtered = self.filtered.entry(reason).or_insert_with(|| Filtered::new(reason.as_str()));
        note(filtered, alert);
    }

    fn exclude(&mut self, name: &str, alert: &Alert) {
        if !self.excluded.contains_key(name) {
            self.excluded.insert(name.to_owned(), Filtered::new(name.to_owned()));
        }
        if let Some(excluded) = self.excluded.get_mut(name) {
            note(excluded, alert);
        }
    }
}

/// Counts an alert, and keeps a sample of it while there is room.
fn note(filtered: &mut Filtered, alert: &Alert) {
    filtered.count += 1;
    if filtered.samples.len() < SAMPLES {
        filtered.samples.push(Sample {
            at: alert.time,
            severity: alert.severity,
            engine: alert.engine,
            protocol: alert.protocols.first().cloned(),
            title: alert.title.clone(),
            parties: alert.parties(),
        });
    }
}

fn rejected(source: &SourceName, rejects: &[crate::source::Reject], counts: &RejectCounts) -> Vec<Rejected> {
    let mut all = Vec::new();
    for (reason, count) in RejectReason::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0) {
        let samples: Vec<(String, String)> = rejects
            .iter()
            .filter(|r| r.reason == reason)
            .map(|r| (r.detail.clone(), r.sample.clone()))
            .collect();
        let first = samples.first().map_or("", |(detail, _)| detail);
        tracing::warn!(source = %source, reason = reason.as_str(), count, "{source}: {count} pieces of input were not understood: {first}");
        all.push(Rejected { reason: reason.as_str(), count: *count, samples });
    }
    all
}

#[cfg(test)]
mod tests;
