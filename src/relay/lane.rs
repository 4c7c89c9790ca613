//! What is claimed of one table and one kind: looked up where the kind wants it, sent, and judged when it is known what
//! became of the others.
//!
//! In order first, several at once; when a few have failed in a row, others are drawn at random and sent one at a time
//! (`blame.rs`). What fails is judged at the end: by then it shows whether it was the delivery's own trouble or the
//! table's.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::blame::Blame;
use super::group::Group;
use super::kind::{self, Job, Repeat, Work};
use super::queue::SendPermit;
use super::{OnUnprotected, Relay, retry};
use crate::destination::{Asked, Destination, FIND_MAX, Item, Order, SendError, Sent};
use crate::model::ticket::KeysKept;
use crate::model::{
    Class, DeliveryId, DeliveryKind, DestinationName, Endpoint, HoldScope, TableName, Timestamp,
};
use crate::store::op::claim::Claimed;
use crate::store::op::destination_state::DestinationChange;
use crate::store::op::settle::{Outcome, Settled};

/// Failures of a delivery's own, while others get through, after which it is a dead letter.
const OWN_FAILURES: u32 = 12;
/// The same where the other side refused it in so many words.
const OWN_REFUSALS: u32 = 5;
/// So long ago others got through at most, when one is condemned for failing alone: longer than its longest back-off.
const OTHERS: std::time::Duration = std::time::Duration::from_mins(90);
/// A record that may be there although a look-up does not find it is looked for twice, this far apart, before it is
/// made anew, where nothing there would refuse a second one.
const LOOK_TWICE: std::time::Duration = std::time::Duration::from_mins(1);
/// Deliveries that are remembered between runs; what is beyond starts anew, as after a restart.
const REMEMBERED_MAX: usize = 4_096;

/// What is sent together: the same table, the same kind.
pub(super) struct Lane<'a> {
    pub(super) table: &'a TableName,
    pub(super) kind: DeliveryKind,
    /// What the table waited for, if it did.
    pub(super) trial: Option<String>,
    /// What the table does to our keys, if that is known.
    pub(super) keeps: Option<KeysKept>,
    pub(super) on_unprotected: OnUnprotected,
    /// When the destination last did what it was asked.
    pub(super) ok_at: Option<Timestamp>,
}

/// One that failed, still to be judged.
struct Failed {
    claimed: Claimed,
    error: SendError,
    started_at: Timestamp,
    duration_ms: u64,
    /// Whether one has got through since: then it was not the table.
    alone: bool,
    /// Whether it failed with others, by one answer.
    of_many: bool,
}

/// What one send came to.
enum Done {
    Sent(Claimed, Timestamp, u64, Box<Sent>),
    Failed(Box<Failed>),
    /// Not begun.
    Left(Claimed),
    /// Cannot be made.
    Dead(Claimed, String),
}

/// Has the destination find out which of its CIs these tickets are about; a ticket counts for more than its CI.
async fn know_devices<D: Destination>(permit: &SendPermit<'_, D>, lane: &Lane<'_>, ready: &[Claimed]) {
    let sought: Vec<Endpoint> = ready.iter().flat_map(|c| c.about.sought.iter().cloned()).collect();
    if !sought.is_empty() && permit.has_spare(ready.len()) {
        permit.destination.know_devices(lane.table, &sought, &|| permit.begin()).await;
    }
}

/// What is known of a lane while it goes on.
struct Run {
    blame: Blame,
    failed: Vec<Failed>,
    passed: bool,
    looked_up: bool,
    /// Requests that were on their way at once, at most, in the last round.
    at_once: usize,
    /// It ended under a suspicion that more of them have to settle.
    undecided: bool,
}

impl Run {
    /// Whether more have to settle a suspicion than were claimed: a few that follow each other may all be poisoned, and
    /// whose trouble it is shows only among many. A table on trial is judged by one.
    fn is_undecided(&self, lane: &Lane<'_>, is_small: bool) -> bool {
        is_small && lane.trial.is_none() && self.blame.held.is_none() && self.blame.is_suspicious()
    }
}

impl<D: Destination> Relay<D> {
    /// Sends what is claimed of one lane; what was not begun is given back.
    pub(super) async fn send_lane(
        &self,
        permit: &SendPermit<'_, D>,
        lane: &Lane<'_>,
        mut pool: Vec<Claimed>,
        group: &mut Group,
    ) {
        let work = kind::of(lane.kind);
        let blame = Blame::new(lane.trial.clone());
        let mut run =
            Run { blame, failed: Vec::new(), passed: false, looked_up: false, at_once: 0, undecided: false };
        while !pool.is_empty()
            && run.blame.held.is_none()
            && !group.halts(lane.table)
            && permit.may_begin()
            && (run.blame.is_suspicious() || !permit.is_over())
        {
            if run.is_undecided(lane, permit.is_small) {
                break;
            }
            let chunk = draw(&mut pool, &run.blame);
            let Some(ready) = self.look_up(permit, lane, work, chunk, &mut run, group).await else { break };
            know_devices(permit, lane, &ready).await;
            let left = self.send_each(permit, lane, work, ready, &mut run, group).await;
            pool.splice(0..0, left);
        }
        // In a batch all of them may have failed at once.
        run.undecided = run.is_undecided(lane, permit.is_small);
        if pool.is_empty() && !run.undecided {
            run.blame.exhausted(run.passed, run.failed.last().map(|f| &f.error));
        }
        let now = self.clock.now();
        group.settled.extend(pool.iter().map(|c| back(c, now)));
        self.conclude(permit, lane, run, group).await;
    }

    pub(super) fn job<'a>(&'a self, claimed: &'a Claimed, destination: &'a DestinationName) -> Job<'a> {
        Job { claimed, composer: self.composer.as_ref(), destination }
    }

    /// What fits and is not there yet, of a chunk; `None` when asking failed.
    async fn look_up(
        &self,
        permit: &SendPermit<'_, D>,
        lane: &Lane<'_>,
        work: &dyn Work,
        chunk: Vec<Claimed>,
        run: &mut Run,
        group: &mut Group,
    ) -> Option<Vec<Claimed>> {
        let chunk = self.admit(permit, lane, work, chunk, group).await?;
        let repeat = work.repeat();
        let (ask, mut ready): (Vec<_>, Vec<_>) = chunk.into_iter().partition(|c| repeat.looks_up(c.doubtful));
        if ask.is_empty() {
            return Some(ready);
        }
        let name = permit.destination.name();
        let asked: Vec<Asked> = ask.iter().map(|c| asked(work, c, name)).collect();
        let (started_at, began) = (self.clock.now(), Instant::now());
        permit.begin();
        let looked_up = match permit.destination.look_up(lane.kind, lane.table, &asked).await {
            Ok(looked_up) => looked_up,
            Err(e) => {
                group.settled.extend(ask.iter().map(|c| not_looked_up(c, &e, started_at)));
                group.settled.extend(ready.iter().map(|c| back(c, started_at)));
                // A look-up that is refused is no fault of these deliveries; the table waits.
                let place = e.hold == HoldScope::Table || e.class == Class::Reject;
                group.holds.push((place.then(|| lane.table.clone()), e));
                return None;
            }
        };
        self.heartbeat.busy();
        run.looked_up = true;
        let duration_ms = began.elapsed().as_millis() as u64;
        for (c, asked) in ask.into_iter().zip(asked) {
            let found = looked_up.found.iter().find(|f| f.correlation_id == asked.keys.correlation_id);
            if let Some(found) = found {
                if found.twins > 0 {
                    group.note_twins(name, lane.table, found);
                }
                self.memory().looked_for.remove(&c.id);
                let Some(outcome) = work.found(&c, found) else {
                    ready.push(c);
                    continue;
                };
                let status = looked_up.status;
                group.settle(name, lane, Settled { id: c.id, started_at, duration_ms, status, outcome });
            } else if let Some(outcome) = work.missing(&c).or_else(|| self.looks_again(lane, repeat, &c)) {
                group.settled.push(Settled {
                    id: c.id,
                    started_at,
                    duration_ms,
                    status: looked_up.status,
                    outcome,
                });
            } else {
                ready.push(c);
            }
        }
        Some(ready)
    }

    /// Where nothing would refuse a second record, one whose answer got lost is looked for once more before it is made
    /// anew.
    fn looks_again(&self, lane: &Lane<'_>, repeat: Repeat, c: &Claimed) -> Option<Outcome> {
        let unguarded = lane.keeps.is_some_and(|kept| !kept.sys_id && kept.correlation_id);
        if !c.doubtful || !unguarded || repeat != Repeat::ByKey || lane.kind != DeliveryKind::OpenTicket {
            return None;
        }
        let now = Instant::now();
        let looked_for = &mut self.memory().looked_for;
        if looked_for.get(&c.id).is_some_and(|first| now.duration_since(*first) >= LOOK_TWICE) {
            looked_for.remove(&c.id);
            return None;
        }
        if looked_for.len() >= REMEMBERED_MAX {
            looked_for.clear();
        }
        let first = *looked_for.entry(c.id).or_insert(now);
        let wait = LOOK_TWICE.saturating_sub(now.duration_since(first));
        Some(Outcome::Retry {
            due_at: self.clock.now().after(wait),
            word: "looked-up",
            doubtful: true,
            message: "not found after a lost answer; as this table takes no sys_id from us, it is looked for once more \
                      before it is created again"
                .to_owned(),
        })
    }

    /// Sends what is ready, a bounded number at once; gives back what was not begun.
    async fn send_each(
        &self,
        permit: &SendPermit<'_, D>,
        lane: &Lane<'_>,
        work: &dyn Work,
        ready: Vec<Claimed>,
        run: &mut Run,
        group: &mut Group,
    ) -> Vec<Claimed> {
        let halted = AtomicBool::new(false);
        let was_suspicious = run.blame.is_suspicious();
        let at_once = if was_suspicious { 1 } else { permit.in_flight };
        let (mut left, mut dead) = (Vec::new(), Vec::new());
        let parts = self.parts(permit.destination, work, ready, was_suspicious, &mut dead);
        run.at_once = at_once.min(parts.len());
        let sends = parts.into_iter().map(|part| {
            let halted = &halted;
            async move {
                if halted.load(Ordering::Relaxed) || !permit.begin() {
                    return part.into_iter().map(|(c, _)| Done::Left(c)).collect();
                }
                self.send_part(permit.destination, part).await
            }
        });
        let dead = futures_util::stream::iter([dead]);
        let sent = futures_util::stream::iter(sends).buffer_unordered(at_once);
        let mut results = std::pin::pin!(dead.chain(sent).flat_map(futures_util::stream::iter));
        let mut lost: Option<String> = None;
        while let Some(done) = results.next().await {
            self.heartbeat.busy();
            match done {
                Done::Left(c) => left.push(c),
                Done::Dead(c, message) => group.settled.push(Settled {
                    id: c.id,
                    started_at: self.clock.now(),
                    duration_ms: 0,
                    status: None,
                    outcome: Outcome::Dead { message },
                }),
                Done::Sent(c, started_at, duration_ms, sent) => {
                    run.passed = true;
                    self.memory().alone.remove(&c.id);
                    run.blame.passed();
                    run.failed.iter_mut().for_each(|f| f.alone = true);
                    group.note_sent(permit.destination.name(), lane, &sent);
                    self.progress.send_modify(|p| p.delivered += u64::from(sent.created));
                    note_storm(&c, lane.kind, &sent);
                    let (outcome, status) = (work.sent(&c, &sent), Some(sent.status));
                    let settled = Settled { id: c.id, started_at, duration_ms, status, outcome };
                    group.settle(permit.destination.name(), lane, settled);
                    // The suspicion is over: the rest goes on in order.
                    halted.fetch_or(was_suspicious, Ordering::Relaxed);
                }
                Done::Failed(failed) => {
                    // One answer that is lost is one, however many waited for it.
                    if !failed.of_many || lost.as_ref() != Some(&failed.error.message) {
                        run.blame.failed(&failed.error, was_suspicious);
                    }
                    lost = failed.of_many.then(|| failed.error.message.clone());
                    run.failed.push(*failed);
                }
            }
            let stops = run.blame.held.is_some() || run.blame.is_suspicious() && !was_suspicious;
            halted.fetch_or(stops || group.halts(lane.table), Ordering::Relaxed);
        }
        left
    }

    /// Orders by the requests that they go in; what cannot be made is dead.
    fn parts(
        &self,
        destination: &D,
        work: &dyn Work,
        ready: Vec<Claimed>,
        singly: bool,
        dead: &mut Vec<Done>,
    ) -> Vec<Vec<(Claimed, Order)>> {
        let due = ready.len();
        let mut parts: Vec<Vec<(Claimed, Order)>> = Vec::new();
        for c in ready {
            let order = match work.compose(&self.job(&c, destination.name())) {
                Ok(order) => order,
                Err(message) => {
                    dead.push(Done::Dead(c, message));
                    continue;
                }
            };
            let most = if singly { 1 } else { destination.together(&order, due).max(1) };
            match parts.last_mut().filter(|part| part.len() < most) {
                Some(part) => part.push((c, order)),
                None => parts.push(vec![(c, order)]),
            }
        }
        parts
    }

    async fn send_part(&self, destination: &D, part: Vec<(Claimed, Order)>) -> Vec<Done> {
        let (started_at, began) = (self.clock.now(), Instant::now());
        let failed = |c: Claimed, error: SendError, duration_ms: u64, of_many: bool| {
            Done::Failed(Box::new(Failed {
                claimed: c,
                error,
                started_at,
                duration_ms,
                alone: false,
                of_many,
            }))
        };
        if let [(_, order)] = part.as_slice() {
            let answer = destination.send(order).await;
            let took = began.elapsed().as_millis() as u64;
            let done = |(c, _): (Claimed, Order)| match &answer {
                Ok(sent) => Done::Sent(c, started_at, took, Box::new(sent.clone())),
                Err(error) => failed(c, error.clone(), took, false),
            };
            return part.into_iter().map(done).collect();
        }
        let (claimed, orders): (Vec<Claimed>, Vec<Order>) = part.into_iter().unzip();
        let answer = destination.send_all(&orders).await;
        let took = began.elapsed().as_millis() as u64;
        let items = match answer {
            Ok(items) => items,
            Err(error) => {
                return claimed.into_iter().map(|c| failed(c, error.clone(), took, true)).collect();
            }
        };
        let mut items = items.into_iter();
        let done = |c: Claimed| match items.next() {
            Some(Item::Done(done)) => match *done {
                Ok(sent) => Done::Sent(c, started_at, took, Box::new(sent)),
                Err(error) => failed(c, error, took, false),
            },
            Some(Item::NotDone) | None => Done::Left(c),
        };
        claimed.into_iter().map(done).collect()
    }

    /// Judges what failed, now that it shows what became of the others.
    async fn conclude(&self, permit: &SendPermit<'_, D>, lane: &Lane<'_>, run: Run, group: &mut Group) {
        let Run { blame, failed, passed, looked_up, at_once, undecided } = run;
        group.undecided |= undecided;
        let held = blame.held.is_some() || undecided;
        // Found or sent: there is nothing that says otherwise.
        if blame.works || passed || looked_up && failed.is_empty() && !held {
            group.changes.push(DestinationChange::Works { table: lane.table.clone() });
        }
        // What backed off by itself is tried alone, so others may have got through in other runs.
        let since = |at: Timestamp| self.clock.now() < at.after(OTHERS);
        let lately = passed || !held && lane.trial.is_none() && lane.ok_at.is_some_and(since);
        for f in &failed {
            let own = f.alone || !held;
            let outcome = if is_crowded(&f.error, at_once) {
                let doubtful = f.claimed.doubtful || f.error.doubtful;
                Outcome::Requeue { doubtful, message: f.error.message.clone() }
            } else {
                self.after_failure(f, own, (lately, passed))
            };
            let outcome = self.unless_made(permit, lane, f, outcome).await;
            let settled = Settled {
                id: f.claimed.id,
                started_at: f.started_at,
                duration_ms: f.duration_ms,
                status: f.error.status,
                outcome,
            };
            group.settle(permit.destination.name(), lane, settled);
        }
        if let Some(e) = blame.held.as_ref().filter(|e| is_crowded(e, at_once)) {
            tracing::debug!(at_once, "too many at once: {}", e.message);
            group.crowded = Some(at_once);
        } else if let Some(e) = blame.held {
            let place = (e.hold != HoldScope::Destination).then(|| lane.table.clone());
            group.holds.push((place, e));
        }
    }

    /// What is to be a dead letter, and may have been made by the very attempt that was its last, is looked for first: what is
    /// there is its ticket. Where that cannot be asked now, the delivery stays, doubtful, and the next attempt begins with it.
    async fn unless_made(
        &self,
        permit: &SendPermit<'_, D>,
        lane: &Lane<'_>,
        f: &Failed,
        outcome: Outcome,
    ) -> Outcome {
        let work = kind::of(lane.kind);
        let is_dead = matches!(outcome, Outcome::Dead { .. });
        if !is_dead || !f.error.doubtful || work.repeat() != Repeat::ByKey {
            return outcome;
        }
        let asked = [Asked { doubtful: true, ..asked(work, &f.claimed, permit.destination.name()) }];
        let looked_up = if permit.begin() {
            permit.destination.look_up(lane.kind, lane.table, &asked).await.ok()
        } else {
            None
        };
        self.heartbeat.busy();
        let Some(looked_up) = looked_up else {
            let due_at = self.clock.now().after(self.settings.doubt_wait);
            let (word, message) = (Class::Retry.as_str(), f.error.message.clone());
            return Outcome::Retry { due_at, word, doubtful: true, message };
        };
        let key = &asked[0].keys.correlation_id;
        let found = looked_up.found.iter().find(|found| found.correlation_id == *key);
        found.and_then(|found| work.found(&f.claimed, found)).unwrap_or(outcome)
    }

    /// Counts how often this one failed while others got through.
    fn fails_alone(&self, id: DeliveryId) -> u32 {
        let mut memory = self.memory();
        if memory.alone.len() >= REMEMBERED_MAX {
            memory.alone.clear();
        }
        let times = memory.alone.entry(id).or_insert(0);
        *times += 1;
        *times
    }

    /// `own`: it is this delivery's trouble and not that of its table; `passed`: others got through meanwhile.
    fn after_failure(&self, f: &Failed, own: bool, (passed, passed_now): (bool, bool)) -> Outcome {
        let (c, e, now) = (&f.claimed, &f.error, self.clock.now());
        let attempts = c.attempts + 1;
        let doubtful = c.doubtful || e.doubtful;
        let message = e.message.clone();
        let jitter = fastrand::f64();
        let refused = e.class == Class::Hold && e.hold == HoldScope::Delivery;
        let is_answer = e.status.is_some_and(|s| refused || s >= 400 && e.class == Class::Retry);
        // What a firewall in between refuses says nothing of others that got through before it did: only those of this run.
        let passed = if refused && e.is_general { passed_now } else { passed };
        let alone = if own && passed && is_answer { self.fails_alone(c.id) } else { 0 };
        let most = if refused { OWN_REFUSALS } else { OWN_FAILURES };
        match e.class {
            Class::Reject if own => Outcome::Dead { message: with_remedy(e) },
            _ if alone >= most => Outcome::Dead {
                message: format!("{} (failed {alone} times while others got through)", with_remedy(e)),
            },
            Class::Hold if refused && own => {
                let due_at = now.after(retry::backoff(attempts, jitter));
                Outcome::Retry { due_at, word: Class::Retry.as_str(), doubtful, message }
            }
            Class::Reject | Class::Hold => Outcome::Requeue { doubtful, message },
            Class::RetryAt => {
                let due_at = now.after(retry::told(e.wait, attempts, jitter));
                Outcome::Retry { due_at, word: Class::RetryAt.as_str(), doubtful, message }
            }
            Class::Retry => {
                // The first doubt is settled soon: most lost answers are only lost answers, and so is many a 500.
                let wait = if e.doubtful && c.attempts == 0 {
                    self.settings.doubt_wait
                } else {
                    retry::backoff(attempts, jitter).max(self.settings.doubt_wait)
                };
                Outcome::Retry { due_at: now.after(wait), word: Class::Retry.as_str(), doubtful, message }
            }
        }
    }
}

/// Whether so many at once were too many: a refusal for being busy, without a word on how long. With one at a time it is
/// another's load, and the destination waits.
fn is_crowded(e: &SendError, at_once: usize) -> bool {
    e.class == Class::RetryAt && e.wait.is_none() && at_once > 1
}

/// A ticket that stands for others is news: the others get none.
fn note_storm(c: &Claimed, kind: DeliveryKind, sent: &Sent) {
    let (rule, findings) = (&c.rule, c.ticket.folded.findings);
    if findings > 0 && sent.created && kind == DeliveryKind::OpenTicket {
        let number = sent.remote.as_ref().map_or("the new ticket", |remote| remote.number.as_str());
        tracing::warn!(
            ticket = number,
            "rule `{rule}` made its max_tickets_per_hour: {number} stands for {findings} findings, and for more of their \
             kind until the storm ends; `otrelay tickets --state folded` lists them"
        );
    }
}

/// The next that are sent: in order, or under suspicion some at random, those that were tried least.
fn draw(pool: &mut Vec<Claimed>, blame: &Blame) -> Vec<Claimed> {
    if !blame.is_suspicious() {
        let rest = pool.split_off(pool.len().min(FIND_MAX));
        return std::mem::replace(pool, rest);
    }
    let mut drawn = Vec::new();
    while drawn.len() < blame.draws() && !pool.is_empty() {
        let least = pool.iter().map(|c| c.attempts).min().unwrap_or_default();
        let places: Vec<usize> = (0..pool.len()).filter(|at| pool[*at].attempts == least).collect();
        drawn.push(pool.remove(places[fastrand::usize(..places.len())]));
    }
    drawn
}

/// The look-up itself failed: nothing was created, so nothing is doubtful that was not before.
pub(super) fn not_looked_up(c: &Claimed, e: &SendError, started_at: Timestamp) -> Settled {
    let outcome = Outcome::Requeue { doubtful: c.doubtful, message: format!("look-up: {e}") };
    Settled { id: c.id, started_at, duration_ms: 0, status: e.status, outcome }
}

/// How one is looked up.
fn asked(work: &dyn Work, c: &Claimed, destination: &DestinationName) -> Asked {
    Asked {
        keys: work.keys(c, destination),
        // What is known to have been there is asked for by both its keys.
        doubtful: c.doubtful || c.ticket.sys_id.is_some(),
        mark: work.mark(c, destination),
        mod_count: c.ticket.mod_count,
    }
}

/// Was not sent: as it was.
pub(super) fn back(c: &Claimed, now: Timestamp) -> Settled {
    let outcome = Outcome::Requeue { doubtful: c.doubtful, message: String::new() };
    Settled { id: c.id, started_at: now, duration_ms: 0, status: None, outcome }
}

fn with_remedy(e: &SendError) -> String {
    if e.remedy.is_empty() { e.message.clone() } else { format!("{} — {}", e.message, e.remedy) }
}
