//! Devices: at an interval of their own what has changed is put into the outbox, claimed, and told many at a time.
//!
//! The other side knows a device by its key, so that nothing is looked up and what a lost answer leaves in doubt is told
//! once more. What one device is refused for costs the others nothing; what concerns all of them holds the table that
//! stands for them, as it does with tickets.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{Allowance, Budget};
use super::{Cause, Planned, Relay, Report, hold, retry};
use crate::destination::{
    Destination, DeviceOrder, DevicePut, DeviceRefusal, DevicesSent, Fields, Remark, SendError,
};
use crate::model::codes::Code;
use crate::model::{Class, DestinationName, HealthIssue, HoldScope, Severity, TableName, Timestamp};
use crate::store::StoreError;
use crate::store::op::destination_state::{DestinationChange, DestinationState, Hold};
use crate::store::op::device::outbox::{ClaimDevices, ClaimedDevice, ToldDevice};
use crate::store::op::settle::{Outcome, Settled};

/// Devices that are claimed and settled together.
const GROUP: usize = 200;
/// Requests that must be left of the hour for a second look at remarks: two or three, and those for a token.
const REVIEW: u32 = 5;
/// How often it is looked whether requests are made.
const LOOK: std::time::Duration = std::time::Duration::from_secs(10);

/// `[devices]`, as far as the relay goes by it.
#[derive(Clone, Debug)]
pub struct Devices {
    /// To which destination.
    pub destination: DestinationName,
    /// The table that stands for all of them in holds and lists.
    pub table: TableName,
    /// Time between two syncs of devices.
    pub interval: std::time::Duration,
}

/// What a sync of devices came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// CIs made.
    pub created: u64,
    /// CIs that were there, and are as they should be now.
    pub updated: u64,
    /// To be tried again.
    pub again: u64,
    /// Dead letters made.
    pub dead: u64,
}

/// What a group of devices came to.
#[derive(Default)]
struct Group {
    settled: Vec<Settled>,
    told: Vec<ToldDevice>,
    changes: Vec<DestinationChange>,
    issues: Vec<HealthIssue>,
    held: Option<SendError>,
    /// The next of them takes more requests than are left of the hour.
    beyond: bool,
}

/// How a push of devices ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing more is due.
    Done,
    /// The service stops.
    Cut,
    /// The hour's requests are used up, or it is held: the sync goes on then, with what was never tried too.
    Owed(Timestamp),
}

/// What may be sent.
#[derive(Clone, Copy)]
struct Room {
    /// Requests.
    most: u32,
    /// None was made in this hour: what takes more than a whole hour's would otherwise never go.
    fresh: bool,
}

impl<D: Destination> Relay<D> {
    /// Pushes devices, if it is time for them or a person wants it.
    pub(super) async fn push_devices(
        &self,
        cause: Cause,
        stop: &CancellationToken,
    ) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let Some(settings) = &self.settings.devices else { return Ok(report) };
        let of = |one: &&Arc<D>| *one.name() == settings.destination;
        let Some(destination) = self.destinations.iter().find(of) else { return Ok(report) };
        let due = self.store.devices_synced_at().await?.map(|at| at.after(settings.interval));
        let now = self.clock.now();
        // A last sync in the future means that the clock was set back.
        let is_due = due.is_none_or(|due| due <= now || due.since(now) > settings.interval);
        let all = is_due || cause == Cause::Asked;
        if all {
            self.patiently(stop, || self.store.enqueue_devices(&settings.destination, &settings.table))
                .await?;
        }
        let end = self.push_claimed_devices(destination, settings, cause, !all, stop, &mut report).await?;
        report.cut = end == End::Cut;
        if all && !report.cut {
            if end == End::Done {
                self.review_devices(destination, settings, cause).await?;
                self.patiently(stop, || self.store.devices_synced()).await?;
            }
            // Tickets that came before their devices.
            if self.patiently(stop, || self.store.link_tickets(&settings.destination)).await? > 0 {
                report.add(Box::pin(self.push(destination, cause, stop)).await?);
            }
        }
        let next = match end {
            End::Owed(at) => at,
            _ if all => self.clock.now().after(settings.interval),
            _ => due.unwrap_or(now),
        };
        report.wake_devices(next);
        self.note_spent(destination.name(), &report, 0).await?;
        report.wake(self.store.next_due(&settings.destination, now).await?);
        Ok(report)
    }

    async fn push_claimed_devices(
        &self,
        destination: &Arc<D>,
        settings: &Devices,
        cause: Cause,
        only_tried: bool,
        stop: &CancellationToken,
        report: &mut Report,
    ) -> Result<End, StoreError> {
        let name = destination.name();
        while !stop.is_cancelled() {
            let state = self.store.destination_state(name).await?;
            let mut budget = self.budget(destination, &state);
            let now = self.clock.now();
            let claim = self.next_claim(destination, cause, &state, &budget, now, report);
            let held = held_until(&state, settings, now);
            // What is kept for critical alerts is not for an inventory.
            let claim = claim.filter(|(claim, _)| claim.min_severity <= Severity::Warning);
            let Some((claim, most)) = claim.filter(|_| held.is_none()) else {
                return Ok(self.no_more(&budget, name, held, report));
            };
            self.heartbeat.busy();
            let trial = hold::trial(&state, &settings.table).is_some();
            let ask = ClaimDevices {
                destination: name.clone(),
                table: settings.table.clone(),
                limit: if trial || claim.limit == 1 { 1 } else { GROUP },
                only_tried,
                peek: false,
                now,
            };
            let claimed = self.store.claim_devices(ask).await?;
            if claimed.is_empty() {
                return Ok(End::Done);
            }
            let before = destination.requests();
            let room = Room { most, fresh: budget.used == 0 };
            let mut group = self.send_devices(destination, settings, claimed, room, stop).await;
            budget.spend(u32::try_from(destination.requests().saturating_sub(before)).unwrap_or(u32::MAX));
            group.changes.push(budget.change());
            self.account_devices(name, settings, &state, &mut group, report);
            let beyond = group.beyond;
            self.settle_group(name, group, stop).await?;
            if beyond {
                report.wait_for_budget(name, budget.spent(self.limits_of(name).requests_per_hour));
                return Ok(End::Owed(budget.ends_at()));
            }
        }
        Ok(End::Cut)
    }

    /// Looks whether what was remarked of devices is still so, where there are requests left for that.
    async fn review_devices(
        &self,
        destination: &Arc<D>,
        settings: &Devices,
        cause: Cause,
    ) -> Result<(), StoreError> {
        let (name, now) = (destination.name(), self.clock.now());
        let state = self.store.destination_state(name).await?;
        let mut budget = self.budget(destination, &state);
        let is_left = matches!(budget.allowance(), Allowance::Requests(n, severity)
            if n >= REVIEW && severity <= Severity::Warning);
        if !is_left || held_until(&state, settings, now).is_some() {
            return Ok(());
        }
        let before = destination.requests();
        let reviewed = destination.review_devices(cause.is_order()).await;
        let made = destination.requests().saturating_sub(before);
        if made > 0 {
            budget.spend(u32::try_from(made).unwrap_or(u32::MAX));
            self.store.change_destination(name, vec![budget.change()]).await?;
        }
        for remark in &reviewed.remarks {
            self.store.tell(issue_of(name, remark)).await?;
        }
        for (code, field) in reviewed.over {
            tracing::info!("{name}: `{field}` is no longer so ({code})");
            self.store.issue_over(code, format!("{name}:{field}")).await?;
        }
        Ok(())
    }

    /// What is left of the hour.
    fn budget(&self, destination: &Arc<D>, state: &DestinationState) -> Budget {
        let mut budget = Budget::of(self.limits_of(destination.name()).requests_per_hour, state);
        budget.roll(self.clock.now());
        budget.heed(destination.rate_limit().limit);
        budget
    }

    /// Why there is nothing to claim now.
    fn no_more(
        &self,
        budget: &Budget,
        name: &DestinationName,
        held: Option<Timestamp>,
        report: &mut Report,
    ) -> End {
        let spent =
            !matches!(budget.allowance(), Allowance::Requests(_, severity) if severity <= Severity::Warning);
        if let Some(at) = held {
            return End::Owed(at);
        }
        if !spent {
            return End::Done;
        }
        report.wait_for_budget(name, budget.spent(self.limits_of(name).requests_per_hour));
        End::Owed(budget.ends_at())
    }

    async fn settle_group(
        &self,
        name: &DestinationName,
        group: Group,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let Group { settled, told, changes, issues, .. } = group;
        self.patiently(stop, || {
            self.store.settle_devices(name, settled.clone(), told.clone(), changes.clone())
        })
        .await?;
        self.tell(issues).await
    }

    /// Sends a group, as many at a time as the other side takes in one request.
    async fn send_devices(
        &self,
        destination: &Arc<D>,
        settings: &Devices,
        claimed: Vec<ClaimedDevice>,
        room: Room,
        stop: &CancellationToken,
    ) -> Group {
        let mut group = Group::default();
        let before = destination.requests();
        let mut rest: Vec<(ClaimedDevice, DeviceOrder)> = Vec::new();
        for one in claimed {
            if let Some(order) = order(&one) {
                rest.push((one, order));
            } else {
                let message = "the stored device is damaged (its checksum does not match)".to_owned();
                group.settled.push(settled(&one, self.clock.now(), 0, None, Outcome::Dead { message }));
            }
        }
        let (mut one_by_one, mut dear) = (false, false);
        while !rest.is_empty() && group.held.is_none() && !group.beyond {
            let made = u32::try_from(destination.requests().saturating_sub(before)).unwrap_or(u32::MAX);
            if stop.is_cancelled() || made >= room.most {
                break;
            }
            let (started_at, began) = (self.clock.now(), Instant::now());
            let orders: Vec<DeviceOrder> = rest.iter().map(|(_, order)| order.clone()).collect();
            let asked = if one_by_one || dear { &orders[..1] } else { &orders[..] };
            let most = if dear { u32::MAX } else { room.most - made };
            let answer = self.alive(destination, Box::pin(destination.put_devices(asked, most))).await;
            self.heartbeat.busy();
            let took = began.elapsed().as_millis() as u64;
            match answer {
                Ok(sent) if sent.beyond && !dear => {
                    dear = room.fresh && made == 0;
                    group.beyond = !dear;
                }
                Ok(sent) => {
                    // At least one is told with each request, or the loop would not end.
                    let sent_now = sent.outcomes.len().clamp(1, rest.len());
                    let batch: Vec<_> = rest.drain(..sent_now).collect();
                    take_answer(settings, &batch, &sent, started_at, took, &mut group);
                    dear = false;
                }
                // One of them may be at fault; each is asked for by itself.
                Err(e) if e.class == Class::Reject && asked.len() > 1 => one_by_one = true,
                Err(e) if e.class == Class::Reject => {
                    let (one, _) = rest.remove(0);
                    let message = with_remedy(&e.message, &e.remedy);
                    group.settled.push(settled(&one, started_at, took, e.status, Outcome::Dead { message }));
                }
                Err(e) => {
                    let n = if one_by_one { 1 } else { rest.len() };
                    for (one, _) in rest.drain(..n) {
                        let outcome = after_device_failure(&one, &e, started_at);
                        group.settled.push(settled(&one, started_at, took, e.status, outcome));
                    }
                    group.held = Some(e);
                }
            }
        }
        let now = self.clock.now();
        let as_it_was = |doubtful| Outcome::Requeue { doubtful, message: String::new() };
        group.settled.extend(rest.iter().map(|(c, _)| settled(c, now, 0, None, as_it_was(c.doubtful))));
        group
    }

    /// One order may take many requests (rows of an import set): each that was made is a sign of life.
    async fn alive<T>(&self, destination: &Arc<D>, mut work: impl Future<Output = T> + Unpin) -> T {
        let mut seen = destination.requests();
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(LOOK) => {
                    if std::mem::replace(&mut seen, destination.requests()) != seen {
                        self.heartbeat.busy();
                    }
                }
            }
        }
    }

    /// Sums the group up and turns a failure into what has to be remembered.
    fn account_devices(
        &self,
        name: &DestinationName,
        settings: &Devices,
        state: &DestinationState,
        group: &mut Group,
        report: &mut Report,
    ) {
        for one in &group.settled {
            match &one.outcome {
                Outcome::Told { created: true } => report.devices.created += 1,
                Outcome::Told { created: false } => report.devices.updated += 1,
                Outcome::Retry { message, .. } => {
                    report.devices.again += 1;
                    if report.failures.is_empty() {
                        report.failures.push(message.clone());
                        report.passing.push(message.clone());
                    }
                }
                Outcome::Dead { message } => {
                    report.devices.dead += 1;
                    tracing::error!(delivery = %one.id, destination = %name, "dead letter: {message}{}", Code::behind("dead-letters"));
                }
                _ => {}
            }
        }
        if let Some(e) = &group.held {
            // A class that is absent, a role that is missing: tickets may go on.
            let place = (e.hold != HoldScope::Destination).then_some(&settings.table);
            group.changes.extend(hold::begin(name, state, place, e, self.clock.now(), fastrand::f64()));
        }
    }

    /// What a sync would tell of devices now, without sending or claiming.
    pub(super) async fn plan_devices(&self, limit: usize) -> Result<Vec<Planned>, StoreError> {
        let Some(settings) = &self.settings.devices else { return Ok(Vec::new()) };
        let of = |one: &&Arc<D>| *one.name() == settings.destination;
        let Some(destination) = self.destinations.iter().find(of) else { return Ok(Vec::new()) };
        let changed = self.store.changed_devices(&settings.destination, &settings.table, limit).await?;
        let planned = |one: &ClaimedDevice| {
            let fields = match order(one) {
                Some(order) => destination
                    .device_payload(&order)
                    .map(|payload| Fields::from([("payload".to_owned(), payload)])),
                None => Err("the stored device is damaged (its checksum does not match)".to_owned()),
            };
            Planned {
                id: one.id,
                destination: settings.destination.clone(),
                table: settings.table.to_string(),
                correlation_id: one.key.clone(),
                fields,
            }
        };
        Ok(changed.iter().map(planned).collect())
    }
}

/// Until when devices have to wait.
fn held_until(state: &DestinationState, settings: &Devices, now: Timestamp) -> Option<Timestamp> {
    let is_here = |hold: &&Hold| hold.table.as_ref().is_none_or(|table| *table == settings.table);
    state.holds.iter().filter(is_here).map(|hold| hold.until_at).filter(|until| *until > now).max()
}

/// What became of each device of a request.
fn take_answer(
    settings: &Devices,
    batch: &[(ClaimedDevice, DeviceOrder)],
    sent: &DevicesSent,
    started_at: Timestamp,
    took: u64,
    group: &mut Group,
) {
    let mut works = false;
    group.issues.extend(sent.remarks.iter().map(|remark| issue_of(&settings.destination, remark)));
    for (at, (one, _)) in batch.iter().enumerate() {
        let missing = DeviceRefusal::again("the answer says nothing of it".to_owned());
        let outcome = match sent.outcomes.get(at).cloned().unwrap_or(Err(missing)) {
            Ok(DevicePut { created, sys_id, class }) => {
                works = true;
                group.told.push(ToldDevice { device: one.device, hash: one.hash.clone(), sys_id, class });
                Outcome::Told { created }
            }
            Err(refusal) => {
                if let Some((code, subject)) = refusal.notice.clone() {
                    let (text, remedy) = (refusal.message.clone(), refusal.remedy.clone());
                    let subject = format!("{}:{subject}", settings.destination);
                    group.issues.push(HealthIssue::new(code, text, remedy).about(subject));
                }
                let message = with_remedy(&refusal.message, &refusal.remedy);
                if refusal.again {
                    let wait = retry::backoff(one.attempts + 1, fastrand::f64());
                    let (word, doubtful) = (Class::Retry.as_str(), false);
                    Outcome::Retry { due_at: started_at.after(wait), word, doubtful, message }
                } else {
                    Outcome::Dead { message }
                }
            }
        };
        group.settled.push(settled(one, started_at, took, sent.status, outcome));
    }
    if works {
        group.changes.push(DestinationChange::Works { table: settings.table.clone() });
    }
}

fn issue_of(destination: &DestinationName, remark: &Remark) -> HealthIssue {
    let Remark { code, field, text, remedy } = remark;
    HealthIssue::new(code, text.as_str(), remedy.as_str()).about(format!("{destination}:{field}"))
}

fn after_device_failure(one: &ClaimedDevice, e: &SendError, now: Timestamp) -> Outcome {
    let (doubtful, message) = (one.doubtful || e.doubtful, e.message.clone());
    let attempts = one.attempts + 1;
    let wait = match e.class {
        Class::Retry => retry::backoff(attempts, fastrand::f64()),
        Class::RetryAt => retry::told(e.wait, attempts, fastrand::f64()),
        Class::Hold | Class::Reject => return Outcome::Requeue { doubtful, message },
    };
    Outcome::Retry { due_at: now.after(wait), word: e.class.as_str(), doubtful, message }
}

fn order(one: &ClaimedDevice) -> Option<DeviceOrder> {
    let view = one.view.as_ref()?;
    Some(DeviceOrder {
        key: one.key.clone(),
        device: view.device.clone(),
        is_known: one.is_known,
        peers: one.peers.clone(),
    })
}

fn settled(
    one: &ClaimedDevice,
    started_at: Timestamp,
    duration_ms: u64,
    status: Option<u16>,
    outcome: Outcome,
) -> Settled {
    Settled { id: one.id, started_at, duration_ms, status, outcome }
}

fn with_remedy(message: &str, remedy: &str) -> String {
    if remedy.is_empty() { message.to_owned() } else { format!("{message} — {remedy}") }
}
