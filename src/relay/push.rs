//! One run over one destination: claim a group, look it up, create what is not there, settle, until nothing is due or
//! the destination has to wait.
//!
//! On disk at each step: before the claim, pending; from the claim to the settlement, claimed (doubtful at the next
//! start); after it, what became of it. Nothing is sent that is not claimed, nothing claimed is left unsettled unless
//! the process ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{Allowance, Budget};
use super::{Cause, Limits, Planned, Relay, Report, retry};
use crate::destination::{Destination, FIND_MAX, Found, Opened, Order, SendError, TicketFacts};
use crate::model::ticket::TicketKeys;
use crate::model::{Class, CorrelationId, DestinationName, HoldScope, Severity, TableName, Timestamp};
use crate::store::StoreError;
use crate::store::op::claim::{Claim, Claimed};
use crate::store::op::destination_state::{DestinationChange, DestinationState, Hold};
use crate::store::op::notice::Notice;
use crate::store::op::settle::{Outcome, Settled};

/// Creates that fail in a row with a server's or network's failure before the destination is left alone for a while.
/// One is enough while it is being probed after such a pause.
const PATIENCE: u32 = 3;
/// Creates whose answers get lost in a row before the same. Most lost answers are only lost answers; a destination that
/// swallows them all would cost a deadline each.
const LOST_PATIENCE: u32 = 16;

/// Deliveries that are claimed and settled together. Each of the two is a transaction with a few pages of its own, so more
/// of them cost less flash each; what is claimed when the power goes has to be looked up again.
const GROUP: usize = 8 * FIND_MAX;

/// What a group of sends came to, beside the settlements.
#[derive(Default)]
struct Group {
    settled: Vec<Settled>,
    changes: Vec<DestinationChange>,
    /// The destination (`None`), or tables of it, have to wait.
    holds: Vec<(Option<TableName>, SendError)>,
    /// Told after the settlement: a notice that cannot be kept must not cost an outcome.
    notices: BTreeMap<String, Notice>,
}

impl Group {
    /// Whether the destination, or this table of it, has to wait.
    fn halts(&self, place: &TableName) -> bool {
        self.holds.iter().any(|(table, _)| table.as_ref().is_none_or(|table| table == place))
    }
}

/// What a group may do to a destination.
struct SendPermit<'a, D> {
    destination: &'a D,
    in_flight: usize,
    /// Failed creates in a row after which it is left alone.
    patience: u32,
    stop: &'a CancellationToken,
    /// The destination's own count when the group began.
    before: u64,
    most: u32,
    begun: AtomicU32,
}

impl<D: Destination> SendPermit<'_, D> {
    /// Requests so far. What was begun may not be counted by the destination yet; what the destination counts has tokens in it.
    fn made(&self) -> u32 {
        let counted = self.destination.requests().saturating_sub(self.before);
        u32::try_from(counted).unwrap_or(u32::MAX).max(self.begun.load(Ordering::Relaxed))
    }

    /// Whether one more request may begin; if so, it counts as begun.
    fn begin(&self) -> bool {
        let made = self.made();
        let may = made < self.most && !self.stop.is_cancelled();
        if may {
            self.begun.store(made + 1, Ordering::Relaxed);
        }
        may
    }
}

impl<D: Destination> Relay<D> {
    /// Pushes what is due to one destination.
    pub(super) async fn push(
        &self,
        destination: &Arc<D>,
        cause: Cause,
        stop: &CancellationToken,
    ) -> Result<Report, StoreError> {
        let name = destination.name();
        if cause == Cause::Asked {
            self.store.change_destination(name, vec![DestinationChange::Release]).await?;
        }
        let mut report = Report::default();
        self.store.straighten(name, self.clock.now()).await?;
        let mut state = self.store.destination_state(name).await?;
        let limits = self.limits(destination);
        let mut budget = Budget {
            limit: limits.requests_per_hour,
            started_at: state.window_started_at,
            used: state.window_used,
        };
        let only_tried = cause == Cause::Again && !state.unfinished;
        let mut unfinished = true;
        let mut looked_at = self.clock.now();
        report.cut = true;
        while !stop.is_cancelled() {
            looked_at = self.clock.now();
            budget.roll(looked_at);
            budget.heed(destination.rate_limit().limit);
            let Some((claim, most)) =
                next_claim(destination.name(), &state, &budget, only_tried, looked_at, &mut report)
            else {
                report.cut = false;
                break;
            };
            self.heartbeat.busy();
            let probing = is_probing(&state);
            let claimed = self.store.claim(claim).await?;
            if claimed.is_empty() {
                report.cut = false;
                unfinished = report.next_at.is_some();
                break;
            }
            let permit = SendPermit {
                destination: destination.as_ref(),
                in_flight: limits.max_in_flight.max(1),
                patience: if probing { 1 } else { PATIENCE },
                stop,
                before: destination.requests(),
                most,
                begun: AtomicU32::new(0),
            };
            let mut group = self.send(&permit, claimed).await;
            budget.spend(permit.made());
            group.changes.push(DestinationChange::Budget {
                window_started_at: budget.started_at,
                window_used: budget.used,
            });
            self.account(destination, &state, &mut group, &mut report);
            let (settled, changes) = (group.settled, group.changes);
            self.patiently(stop, || self.store.settle_with(name, settled.clone(), changes.clone())).await?;
            self.tell(group.notices).await?;
            state = self.store.destination_state(name).await?;
        }
        if unfinished != state.unfinished && !only_tried {
            self.store.change_destination(name, vec![DestinationChange::Unfinished(unfinished)]).await?;
        }
        // What was due at the last look and is still there is blocked by something that the report has a time for.
        report.wake(self.store.next_due(name, looked_at).await?);
        Ok(report)
    }

    fn limits(&self, destination: &Arc<D>) -> Limits {
        let default = Limits { requests_per_hour: 1_000, max_in_flight: 2 };
        self.settings.destinations.get(destination.name()).copied().unwrap_or(default)
    }

    /// Sends claimed deliveries, table by table, as many at once as one look-up takes.
    async fn send(&self, permit: &SendPermit<'_, D>, claimed: Vec<Claimed>) -> Group {
        let mut by_table: BTreeMap<TableName, Vec<Claimed>> = BTreeMap::new();
        for c in claimed {
            by_table.entry(c.table.clone()).or_default().push(c);
        }
        let mut group = Group::default();
        for (table, mut claimed) in by_table {
            while !claimed.is_empty() {
                if group.halts(&table) || !permit.begin() {
                    let now = self.clock.now();
                    group.settled.extend(claimed.iter().map(|c| back(c, now)));
                    break;
                }
                let rest = claimed.split_off(claimed.len().min(FIND_MAX));
                self.send_table(permit, &table, claimed, &mut group).await;
                claimed = rest;
            }
        }
        group
    }

    async fn send_table(
        &self,
        permit: &SendPermit<'_, D>,
        table: &TableName,
        claimed: Vec<Claimed>,
        group: &mut Group,
    ) {
        let destination = permit.destination;
        let keys: Vec<TicketKeys> = claimed
            .iter()
            .map(|c| TicketKeys::derive(&c.fingerprint, destination.name(), table, c.generation))
            .collect();
        let ids: Vec<CorrelationId> = keys.iter().map(|k| k.correlation_id.clone()).collect();
        let (started_at, began) = (self.clock.now(), Instant::now());
        let found = match destination.find(table, &ids).await {
            Ok(found) => found,
            Err(e) => {
                group.settled.extend(claimed.iter().map(|c| not_looked_up(c, &e, started_at)));
                // A look-up that is refused is no fault of these deliveries; the table waits.
                let place = (e.hold == HoldScope::Table || e.class() == Class::Reject).then(|| table.clone());
                group.holds.push((place, e));
                return;
            }
        };
        self.heartbeat.busy();
        let mut absent = Vec::new();
        for (c, key) in claimed.into_iter().zip(keys) {
            match found.iter().find(|f| f.correlation_id == key.correlation_id) {
                Some(f) => group.settled.push(is_there(&c, f, started_at, began)),
                None => absent.push((c, key)),
            }
        }
        if self.create(permit, table, absent, group).await {
            group.changes.push(DestinationChange::Works { table: table.clone() });
        }
    }

    /// Creates tickets, a bounded number at once; stops beginning new ones when the destination has to wait. Says
    /// whether the table works as far as that shows.
    async fn create(
        &self,
        permit: &SendPermit<'_, D>,
        table: &TableName,
        absent: Vec<(Claimed, TicketKeys)>,
        group: &mut Group,
    ) -> bool {
        let halted = AtomicBool::new(false);
        let sends = absent.into_iter().map(|(c, keys)| {
            let halted = &halted;
            async move {
                let started_at = self.clock.now();
                if halted.load(Ordering::Relaxed) || !permit.begin() {
                    return (back(&c, started_at), None);
                }
                let (settled, answer) =
                    self.create_one(permit.destination, table, &c, keys, started_at).await;
                if matches!(&answer, Some(Err(e)) if matches!(e.class(), Class::Hold | Class::RetryAt)) {
                    halted.store(true, Ordering::Relaxed);
                }
                (settled, answer)
            }
        });
        let mut results = futures_util::stream::iter(sends).buffer_unordered(permit.in_flight);
        let (mut failed, mut lost, mut works, mut held) = (0, 0, None, false);
        while let Some((settled, answer)) = results.next().await {
            self.heartbeat.busy();
            group.settled.push(settled);
            match answer {
                Some(Ok(opened)) => {
                    (failed, lost, works) = (0, 0, Some(true));
                    self.progress.send_modify(|p| p.delivered += 1);
                    note_dropped(permit.destination.name(), table, &opened, &mut group.notices);
                }
                Some(Err(e)) => {
                    match (e.class(), e.doubtful && e.status.is_none()) {
                        (Class::Retry, false) => failed += 1,
                        (Class::Retry, true) => lost += 1,
                        // What it says of this delivery says that it works.
                        (Class::Reject, _) => (failed, lost, works) = (0, 0, Some(true)),
                        (Class::Hold | Class::RetryAt, _) => {}
                    }
                    works = works.or(Some(false));
                    let waits = matches!(e.class(), Class::Hold | Class::RetryAt)
                        || failed >= permit.patience
                        || lost >= LOST_PATIENCE;
                    if waits && !held {
                        held = true;
                        halted.store(true, Ordering::Relaxed);
                        let place = (e.hold == HoldScope::Table).then(|| table.clone());
                        group.holds.push((place, e));
                    }
                }
                None => {}
            }
        }
        // The look-up worked, and no create says otherwise.
        works.unwrap_or(true)
    }

    async fn create_one(
        &self,
        destination: &D,
        table: &TableName,
        c: &Claimed,
        keys: TicketKeys,
        started_at: Timestamp,
    ) -> (Settled, Option<Result<Opened, SendError>>) {
        let settled =
            |outcome, status, duration_ms| Settled { id: c.id, started_at, duration_ms, status, outcome };
        let Some(alert) = &c.alert else {
            let message = "the stored alert is damaged (its checksum does not match)".to_owned();
            return (settled(Outcome::Dead { message }, None, 0), None);
        };
        let facts = TicketFacts {
            alert,
            occurrences: c.occurrences,
            last_seen_at: c.last_seen_at,
            destination: destination.name(),
            table,
            generation: c.generation,
            rule: c.rule.as_str(),
        };
        let fields = match self.composer.compose(&facts) {
            Ok(fields) => fields,
            Err(message) => return (settled(Outcome::Dead { message }, None, 0), None),
        };
        let began = Instant::now();
        let answer = destination.open(&Order { table: table.clone(), keys, fields }).await;
        let took = began.elapsed().as_millis() as u64;
        let (outcome, status) = match &answer {
            Ok(opened) => (
                Outcome::Delivered {
                    created: true,
                    sys_id: opened.sys_id.clone(),
                    number: opened.number.clone(),
                    state: opened.state.clone(),
                },
                Some(201),
            ),
            Err(e) => (self.after_failure(c, e), e.status),
        };
        (settled(outcome, status, took), Some(answer))
    }

    fn after_failure(&self, c: &Claimed, e: &SendError) -> Outcome {
        let now = self.clock.now();
        let attempts = c.attempts + 1;
        let doubtful = c.doubtful || e.doubtful;
        let message = e.message.clone();
        let jitter = fastrand::f64();
        match e.class() {
            Class::Reject => Outcome::Dead { message: with_remedy(e) },
            Class::Hold => Outcome::Requeue { doubtful, message },
            Class::RetryAt => {
                let due_at = now.after(retry::told(e.wait, attempts, jitter));
                Outcome::Retry { due_at, word: Class::RetryAt.as_str(), doubtful, message }
            }
            Class::Retry => {
                // The first doubt is settled soon: most lost answers are only lost answers.
                let wait = if e.doubtful && c.attempts == 0 {
                    self.settings.doubt_wait
                } else {
                    retry::backoff(attempts, jitter).max(self.settings.doubt_wait)
                };
                Outcome::Retry { due_at: now.after(wait), word: Class::Retry.as_str(), doubtful, message }
            }
        }
    }

    /// Keeps what a person should know; said in the log only the first time.
    async fn tell(&self, notices: BTreeMap<String, Notice>) -> Result<(), StoreError> {
        for notice in notices.into_values() {
            let text = notice.text.clone();
            if self.store.notice(notice).await? {
                tracing::warn!("{text}");
            }
        }
        Ok(())
    }

    /// Sums the group up and turns a failure of the destination into what has to be remembered.
    fn account(
        &self,
        destination: &Arc<D>,
        state: &DestinationState,
        group: &mut Group,
        report: &mut Report,
    ) {
        let mut found = 0;
        for s in &group.settled {
            match &s.outcome {
                Outcome::Delivered { created: true, .. } => report.created += 1,
                Outcome::Delivered { created: false, .. } => found += 1,
                Outcome::Retry { .. } => report.again += 1,
                Outcome::Dead { message } => {
                    report.dead += 1;
                    tracing::error!(delivery = %s.id, destination = %destination.name(), "dead letter: {message}");
                }
                Outcome::ClosedThere { .. } | Outcome::Requeue { .. } => {}
            }
        }
        report.found += found;
        if found > 0 {
            self.progress.send_modify(|p| p.delivered += found);
        }
        for (table, e) in &group.holds {
            group.changes.extend(hold(destination.name(), state, table.as_ref(), e, self.clock.now()));
        }
    }

    /// What a sync would send to one destination now, without sending or claiming.
    pub(super) async fn plan_destination(
        &self,
        destination: &Arc<D>,
        limit: usize,
    ) -> Result<Vec<Planned>, StoreError> {
        let claim = Claim {
            destination: destination.name().clone(),
            except: Vec::new(),
            limit,
            only_tried: false,
            min_severity: Severity::Warning,
            peek: true,
            now: self.clock.now(),
        };
        let claimed = self.store.claim(claim).await?;
        Ok(claimed.iter().map(|c| self.planned(destination, c)).collect())
    }

    fn planned(&self, destination: &Arc<D>, c: &Claimed) -> Planned {
        let keys = TicketKeys::derive(&c.fingerprint, destination.name(), &c.table, c.generation);
        let fields = match &c.alert {
            None => Err("the stored alert is damaged".to_owned()),
            Some(alert) => self.composer.compose(&TicketFacts {
                alert,
                occurrences: c.occurrences,
                last_seen_at: c.last_seen_at,
                destination: destination.name(),
                table: &c.table,
                generation: c.generation,
                rule: c.rule.as_str(),
            }),
        };
        Planned {
            id: c.id,
            destination: destination.name().clone(),
            table: c.table.to_string(),
            correlation_id: keys.correlation_id.to_string(),
            fields,
        }
    }
}

/// What to claim next, and how many requests may be made for it; `None` when the destination has to wait, which the report then says.
fn next_claim(
    destination: &DestinationName,
    state: &DestinationState,
    budget: &Budget,
    only_tried: bool,
    now: Timestamp,
    report: &mut Report,
) -> Option<(Claim, u32)> {
    let waiting: Vec<&Hold> = state.holds.iter().filter(|h| h.until_at > now).collect();
    for hold in &waiting {
        report.wake(Some(hold.until_at));
        let place = hold.table.as_ref().map_or(String::new(), |t| format!(", table {t}"));
        let text = format!("{}{place}: {}", destination, hold.reason);
        if !report.waiting.contains(&text) {
            report.waiting.push(text);
        }
    }
    if waiting.iter().any(|h| h.table.is_none()) {
        return None;
    }
    let (requests, min_severity) = match budget.allowance() {
        Allowance::Requests(n, severity) => (n, severity),
        Allowance::NotBefore(at) => {
            report.wake(Some(at));
            report
                .waiting
                .push(format!("{}: the hourly budget of {} requests is used up", destination, budget.limit));
            return None;
        }
    };
    if min_severity > Severity::Warning {
        report.wake(Some(budget.ends_at()));
    }
    // One request of each look-up's worth is the look-up. After a failure one delivery probes for all.
    let affordable = requests as usize * FIND_MAX / (FIND_MAX + 1);
    let limit = if is_probing(state) { 1 } else { GROUP.min(affordable.max(1)) };
    let claim = Claim {
        destination: destination.clone(),
        except: waiting.iter().filter_map(|h| h.table.clone()).collect(),
        limit,
        only_tried,
        min_severity,
        peek: false,
        now,
    };
    Some((claim, requests))
}

/// Whether the destination failed as a whole when it was last asked.
fn is_probing(state: &DestinationState) -> bool {
    state.failures > 0 || state.holds.iter().any(|h| h.table.is_none())
}

/// What has to be remembered of a destination, or of a table of it, that has to wait.
fn hold(
    destination: &DestinationName,
    state: &DestinationState,
    table: Option<&TableName>,
    e: &SendError,
    now: Timestamp,
) -> Vec<DestinationChange> {
    let before = state.holds.iter().find(|h| h.table.as_ref() == table);
    let tries = before.map_or(1, |h| h.tries.saturating_add(1));
    let jitter = fastrand::f64();
    let wait = match e.class() {
        Class::Hold | Class::Reject => retry::hold(tries, jitter),
        Class::RetryAt => retry::told(e.wait, tries, jitter),
        Class::Retry => retry::pause(state.failures.saturating_add(1), jitter),
    };
    let hold = Hold {
        table: table.cloned(),
        since_at: before.map_or(now, |h| h.since_at),
        until_at: now.after(wait),
        tries,
        told: e.class() == Class::RetryAt && e.wait.is_some(),
        reason: e.message.clone(),
        remedy: e.remedy.clone(),
    };
    if before.is_none_or(|h| h.reason != hold.reason) {
        tracing::error!(destination = %destination, until = %hold.until_at, remedy = %hold.remedy, "{destination} waits: {}", hold.reason);
    }
    let mut changes = Vec::new();
    if e.class() == Class::Retry {
        changes.push(DestinationChange::Fails {
            failures: state.failures.saturating_add(1),
            error: e.message.clone(),
        });
    }
    changes.push(DestinationChange::Holds(hold));
    changes
}

/// A field that the other side dropped in silence is told once per table and field.
fn note_dropped(
    destination: &DestinationName,
    table: &TableName,
    opened: &Opened,
    notices: &mut BTreeMap<String, Notice>,
) {
    for d in &opened.dropped {
        let got = if d.got.is_empty() { "left it empty".to_owned() } else { format!("made it `{}`", d.got) };
        let subject = format!("{destination}:{table}:{}", d.field);
        notices.entry(subject.clone()).or_insert_with(|| Notice {
            code: "dropped-field",
            subject,
            text: format!("{destination} took {} but not its field `{}`: it {got}", opened.number, d.field),
            remedy: format!(
                "check the value that [rule.action.fields] gives `{}`: is it a field of {table}, a valid choice value, \
                 an existing reference, and may the integration user write it?",
                d.field
            ),
        });
    }
}

/// The look-up itself failed: nothing was created, so nothing is doubtful that was not before.
fn not_looked_up(c: &Claimed, e: &SendError, started_at: Timestamp) -> Settled {
    let outcome = Outcome::Requeue { doubtful: c.doubtful, message: format!("look-up: {e}") };
    Settled { id: c.id, started_at, duration_ms: 0, status: e.status, outcome }
}

/// Was not sent: as it was.
fn back(c: &Claimed, now: Timestamp) -> Settled {
    let outcome = Outcome::Requeue { doubtful: c.doubtful, message: String::new() };
    Settled { id: c.id, started_at: now, duration_ms: 0, status: None, outcome }
}

fn is_there(c: &Claimed, f: &Found, started_at: Timestamp, began: Instant) -> Settled {
    let (sys_id, number, state) = (f.sys_id.clone(), f.number.clone(), f.state.clone());
    let outcome = if f.active {
        Outcome::Delivered { created: false, sys_id, number, state }
    } else {
        Outcome::ClosedThere { sys_id, number, state }
    };
    let duration_ms = began.elapsed().as_millis() as u64;
    Settled { id: c.id, started_at, duration_ms, status: Some(200), outcome }
}

fn with_remedy(e: &SendError) -> String {
    if e.remedy.is_empty() { e.message.clone() } else { format!("{} — {}", e.message, e.remedy) }
}
