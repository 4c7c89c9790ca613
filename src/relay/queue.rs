//! One run over one destination: claim a group, send it lane by lane, settle, until nothing is due or the destination has
//! to wait. Knows nothing of kinds.
//!
//! On disk at each step: before the claim, pending; from the claim to the settlement, claimed (doubtful at the next
//! start); after it, what became of it. Nothing is sent that is not claimed, nothing claimed is left unsettled unless
//! the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{Allowance, Budget};
use super::group::{CHANGES_UNTOLD, Group, twins, unprotected, untold};
use super::lane::{Lane, back};
use super::pace::{GROUP_MAX, GROUP_TIME_MAX, Pace};
use super::{Cause, Limits, OnUnprotected, Planned, Relay, Report, hold, kind, same_words};
use crate::destination::{Destination, FIND_MAX, SendError};
use crate::device::ends;
use crate::model::codes::Code;
use crate::model::gather::Gather as _;
use crate::model::{Class, DeliveryKind, DestinationName, HealthIssue, Severity, TableName, Timestamp};
use crate::store::op::claim::{Claim, Claimed};
use crate::store::op::destination_state::{DestinationChange, DestinationState, Hold};
use crate::store::op::settle::{Outcome, Settled};
use crate::store::{Spent, StoreError};
use crate::sync;

/// Words of failures that a report repeats.
const TOLD_MAX: usize = 3;

/// How a group went.
struct Went {
    began: Instant,
    claimed: usize,
    /// One decided whether the destination still has to wait.
    on_trial: bool,
}

/// What a group may do to a destination.
pub(super) struct SendPermit<'a, D> {
    pub(super) destination: &'a D,
    pub(super) in_flight: usize,
    stop: &'a CancellationToken,
    /// The destination's own count when the group began.
    before: u64,
    most: u32,
    /// Requests of the hour before the group.
    used: u32,
    begun: AtomicU32,
    /// More wait than were claimed.
    pub(super) is_small: bool,
    /// When a group has taken so long that others have to have their turn.
    over_at: Instant,
}

impl<D: Destination> SendPermit<'_, D> {
    /// Requests so far. What was begun may not be counted by the destination yet; what the destination counts has tokens in it.
    fn made(&self) -> u32 {
        let counted = self.destination.requests().saturating_sub(self.before);
        u32::try_from(counted).unwrap_or(u32::MAX).max(self.begun.load(Ordering::Relaxed))
    }

    /// Whether what is left of the group is given back.
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.over_at
    }

    /// Whether one more request may begin.
    pub(super) fn may_begin(&self) -> bool {
        let most = self.most.min(Budget::told(self.destination.rate_limit().limit, self.used));
        self.made() < most && !self.stop.is_cancelled()
    }

    /// Whether at least half of what may be made would be left after so many: then something may be asked beside them.
    pub(super) fn has_spare(&self, sends: usize) -> bool {
        let most = self.most.min(Budget::told(self.destination.rate_limit().limit, self.used));
        self.made().saturating_add(u32::try_from(sends).unwrap_or(u32::MAX)) <= most / 2
    }

    /// Whether one more may begin; if so, it counts as begun.
    pub(super) fn begin(&self) -> bool {
        let may = self.may_begin();
        if may {
            self.begun.store(self.made() + 1, Ordering::Relaxed);
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
        if cause.is_order() {
            self.store.change_destination(name, vec![DestinationChange::Release]).await?;
        }
        let mut report = Report::default();
        self.store.straighten(name, self.clock.now()).await?;
        let mut state = self.store.destination_state(name).await?;
        let limits = self.limits_of(name);
        let mut budget = Budget::of(limits.requests_per_hour, &state);
        // One that goes on where an hour's budget ended takes its look too: a backlog of days must not be all that is done.
        let only_tried = cause.only_tried() && !state.unfinished;
        if !only_tried {
            self.read_back(destination, cause, &mut state, &mut budget, &mut report).await?;
        }
        if state.spent.as_ref().is_some_and(|spent| spent.until_at <= self.clock.now()) {
            self.store.change_destination(name, vec![DestinationChange::Spent(None)]).await?;
        }
        let mut unfinished = true;
        let mut made: u64 = 0;
        let mut looked_at = self.clock.now();
        report.cut = true;
        while !stop.is_cancelled() {
            looked_at = self.clock.now();
            budget.roll(looked_at);
            budget.heed(destination.rate_limit().limit);
            let Some((claim, most)) =
                self.next_claim(destination, cause, &state, &budget, looked_at, &mut report)
            else {
                report.cut = false;
                break;
            };
            self.heartbeat.busy();
            let claim = Claim { only_tried, ..claim };
            let claimed = self.claim(claim.clone()).await?;
            if claimed.is_empty() {
                if self.leaves_less_urgent(claim).await? {
                    report.wait_for_budget(name, budget.spent(limits.requests_per_hour));
                }
                report.cut = false;
                unfinished = report.next_at.is_some();
                break;
            }
            let went =
                Went { began: Instant::now(), claimed: claimed.len(), on_trial: hold::is_probing(&state) };
            let permit = SendPermit {
                destination: destination.as_ref(),
                in_flight: self.at_once(name, limits.max_in_flight),
                stop,
                before: destination.requests(),
                most,
                used: budget.used,
                begun: AtomicU32::new(0),
                is_small: went.claimed < GROUP_MAX && went.claimed == self.group_of(name),
                over_at: went.began + GROUP_TIME_MAX,
            };
            let mut group = self.send(&permit, &state, claimed).await;
            budget.spend(permit.made());
            made += u64::from(permit.made());
            self.learn_pace(name, limits.max_in_flight, &group, &went);
            group.changes.push(budget.change());
            self.account(destination, &state, &mut group, &mut report);
            self.keep(name, group, stop).await?;
            state = self.store.destination_state(name).await?;
        }
        if unfinished != state.unfinished && !only_tried {
            self.store.change_destination(name, vec![DestinationChange::Unfinished(unfinished)]).await?;
        }
        let carries = budget.carries(report.delivered(), made);
        self.note_spent(name, &report, carries).await?;
        // What was due at the last look and is still there is blocked by something that the report has a time for.
        report.wake(self.store.next_due(name, looked_at).await?);
        Ok(report)
    }

    /// Keeps that the budget makes something wait, and how much of it an hour carries: with the rest of what is known of
    /// the destination, so that it is shown after a restart too, until a sync of the new hour.
    pub(super) async fn note_spent(
        &self,
        name: &DestinationName,
        report: &Report,
        per_hour: u32,
    ) -> Result<(), StoreError> {
        let Some(spent) = report.spent.get(name) else { return Ok(()) };
        let was = self.store.destination_state(name).await?.spent;
        // One that could send nothing knows no better than the one before it.
        let per_hour = if per_hour > 0 { per_hour } else { was.as_ref().map_or(0, |was| was.per_hour) };
        let spent = Some(Spent { per_hour, ..spent.clone() });
        if was != spent {
            self.store.change_destination(name, vec![DestinationChange::Spent(spent)]).await?;
        }
        Ok(())
    }

    /// Where the budget makes nothing wait any longer, this is no longer said.
    pub(super) async fn end_spent(&self, report: &Report) -> Result<(), StoreError> {
        for name in self.destinations.iter().map(|destination| destination.name()) {
            let is_over = !report.spent.contains_key(name);
            if is_over && self.store.destination_state(name).await?.spent.is_some() {
                self.store.change_destination(name, vec![DestinationChange::Spent(None)]).await?;
            }
        }
        Ok(())
    }

    /// Commits what came of a group, then tells what needs a person.
    async fn keep(
        &self,
        name: &DestinationName,
        group: Group,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let (settled, changes) = (group.settled, group.changes);
        let lives = &self.settings.sync.lives;
        let settle = || self.store.settle_with(name, settled.clone(), changes.clone(), Arc::clone(lives));
        self.patiently(stop, settle).await?;
        self.tell(group.issues.into_values().collect()).await?;
        for (code, subject) in BTreeSet::from_iter(group.over) {
            self.store.issue_over(code, subject).await?;
        }
        Ok(())
    }

    /// Whether something waits only because it is not urgent enough for the rest of the budget.
    async fn leaves_less_urgent(&self, claim: Claim) -> Result<bool, StoreError> {
        if claim.min_severity == Severity::Warning {
            return Ok(false);
        }
        let peek = Claim { min_severity: Severity::Warning, peek: true, limit: 1, ..claim };
        Ok(!self.store.claim(peek).await?.is_empty())
    }

    /// Takes home what changed there. Inside the budget, and not while the destination has to wait.
    async fn read_back(
        &self,
        destination: &Arc<D>,
        cause: Cause,
        state: &mut DestinationState,
        budget: &mut Budget,
        told: &mut Report,
    ) -> Result<(), StoreError> {
        let (name, now) = (destination.name(), self.clock.now());
        budget.roll(now);
        budget.heed(destination.rate_limit().limit);
        let waiting = state.holds.iter().filter(|hold| hold.until_at > now);
        let except: Vec<TableName> = waiting.clone().filter_map(|hold| hold.table.clone()).collect();
        let halted = waiting.clone().any(|hold| hold.table.is_none()) || hold::is_probing(state);
        let requests = if halted { 0 } else { budget.for_reading(self.has_due(name, &except, now).await?) };
        let allowed = sync::Allowed { is_order: cause.is_order(), requests, except: &except, now };
        let before = destination.requests();
        let report = sync::run(&self.store, destination.as_ref(), &self.settings.sync, allowed).await?;
        let made = destination.requests().saturating_sub(before);
        if made > 0 {
            budget.spend(u32::try_from(made).unwrap_or(u32::MAX));
            self.store.change_destination(name, vec![budget.change()]).await?;
            *state = self.store.destination_state(name).await?;
        }
        // What waits for a hold is said with the hold; what an interval leaves for the next hour nobody ordered.
        if report.is_short && cause == Cause::Asked && !halted {
            let words = format!("{name}: {}", budget.unread(self.limits_of(name).requests_per_hour));
            tracing::warn!(destination = %name, "tickets were not all read back: {words}");
            told.unread.push(words);
        }
        let twins = report.twins.iter().map(|(table, found)| twins(name, table, found));
        let untold = report.untold.iter().map(|(table, why)| untold(destination.name(), table, *why));
        self.tell(twins.chain(untold).collect()).await?;
        for table in &report.told {
            self.store.issue_over(CHANGES_UNTOLD, format!("{name}:{table}")).await?;
        }
        if let Some((table, e)) = report.failure {
            let text = format!("tickets of {name}, table {table}, could not be read back: {}", e.message);
            let again = "it is tried again at the next sync";
            let remedy = if e.remedy.is_empty() { again } else { &e.remedy };
            let issue = HealthIssue::new("read-back", text, remedy).about(format!("{name}:{table}"));
            self.tell(vec![issue]).await?;
        }
        Ok(())
    }

    /// Whether a delivery is due there, in a table that does not wait.
    async fn has_due(
        &self,
        name: &DestinationName,
        except: &[TableName],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut except = except.to_vec();
        except.extend(self.settings.devices.iter().map(|devices| devices.table.clone()));
        Ok(!self.store.claim(Claim { except, ..peek(name, 1, now) }).await?.is_empty())
    }

    pub(super) fn limits_of(&self, destination: &DestinationName) -> Limits {
        self.settings.destinations.get(destination).copied().unwrap_or_default()
    }

    /// How many requests go out at once. The lock is given back here: it is taken once more beside this.
    fn at_once(&self, name: &DestinationName, most: usize) -> usize {
        self.memory().pace.entry(name.clone()).or_default().at_once(most)
    }

    /// How many are claimed together.
    fn group_of(&self, name: &DestinationName) -> usize {
        self.memory().pace.get(name).map_or_else(|| Pace::default().group(), Pace::group)
    }

    /// What a group shows of how many at once are borne, and of how fast they go. What was tried alone after a failure
    /// shows neither.
    fn learn_pace(&self, name: &DestinationName, most: usize, group: &Group, went: &Went) {
        let now = Instant::now();
        let mut memory = self.memory();
        let pace = memory.pace.entry(name.clone()).or_default();
        if let Some(at_once) = group.crowded {
            let (next, wait) = pace.crowded(at_once, now);
            let hours = wait.as_secs() / 3_600;
            tracing::info!(
                destination = %name,
                "{name} refuses {at_once} requests at once: it gets {next} from now on, and {at_once} again in {hours} h at \
                 the earliest"
            );
            return;
        }
        let is_sent = |s: &&Settled| !matches!(s.outcome, Outcome::Requeue { .. } | Outcome::Retry { .. });
        let sent = group.settled.iter().filter(is_sent).count();
        let any_failed = group.settled.iter().any(|s| s.outcome.is_failure());
        pace.failed(group.undecided, any_failed);
        pace.took(sent, now.duration_since(went.began));
        let is_whole = went.claimed >= FIND_MAX && sent == group.settled.len();
        if is_whole && group.holds.is_empty() && !went.on_trial {
            pace.went_well(most, now);
        }
    }

    /// Sends claimed deliveries, lane by lane.
    async fn send(
        &self,
        permit: &SendPermit<'_, D>,
        state: &DestinationState,
        claimed: Vec<Claimed>,
    ) -> Group {
        let mut lanes: BTreeMap<(TableName, DeliveryKind), Vec<Claimed>> = BTreeMap::new();
        for c in claimed {
            lanes.entry((c.table.clone(), c.kind)).or_default().push(c);
        }
        let mut group = Group::default();
        for ((table, kind), claimed) in lanes {
            if group.halts(&table) || !permit.may_begin() || permit.is_over() {
                let now = self.clock.now();
                group.settled.extend(claimed.iter().map(|c| back(c, now)));
                continue;
            }
            let lane = Lane {
                table: &table,
                kind,
                trial: hold::trial(state, &table),
                keeps: state.keys.get(&table).copied(),
                on_unprotected: self.limits_of(permit.destination.name()).on_unprotected,
                ok_at: state.last_ok_at,
            };
            self.send_lane(permit, &lane, claimed, &mut group).await;
        }
        group
    }

    /// Keeps what a person should know; said in the log only the first time.
    pub(super) async fn tell(&self, issues: Vec<HealthIssue>) -> Result<(), StoreError> {
        for issue in issues {
            let (text, remedy) = (issue.told(), issue.remedy.clone());
            if self.store.tell(issue).await? {
                tracing::warn!(remedy = %remedy, "{text}");
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
                Outcome::Delivered { created: true, .. } | Outcome::Told { created: true } => {
                    report.created += 1;
                }
                Outcome::Delivered { created: false, .. } | Outcome::Told { created: false } => found += 1,
                Outcome::Later { .. } | Outcome::Added { .. } => report.updated += 1,
                Outcome::Retry { message, word, .. } => {
                    report.again += 1;
                    if report.failures.len() < TOLD_MAX
                        && !report.failures.iter().any(|told| same_words(told, message))
                    {
                        report.failures.push(message.clone());
                        if [Class::Retry, Class::RetryAt].iter().any(|class| class.as_str() == *word) {
                            report.passing.push(message.clone());
                        }
                    }
                }
                Outcome::Dead { message } => {
                    report.dead += 1;
                    tracing::error!(delivery = %s.id, destination = %destination.name(), "dead letter: {message}{}", Code::behind("dead-letters"));
                }
                Outcome::ClosedThere { .. } | Outcome::Requeue { .. } => {}
            }
        }
        report.found += found;
        if found > 0 {
            self.progress.send_modify(|p| p.delivered += found);
        }
        for (table, e) in &group.holds {
            let (name, now) = (destination.name(), self.clock.now());
            group.changes.extend(hold::begin(name, state, table.as_ref(), e, now, fastrand::f64()));
        }
    }

    /// What a sync would send to one destination now, without sending or claiming.
    pub(super) async fn plan_destination(
        &self,
        destination: &Arc<D>,
        limit: usize,
    ) -> Result<Vec<Planned>, StoreError> {
        let name = destination.name();
        let claim = Claim { links: self.links(name), ..peek(name, limit, self.clock.now()) };
        let claimed = self.claim(claim).await?;
        Ok(claimed.iter().map(|c| self.planned(destination, c)).collect())
    }

    /// Claims from the buffer. From here on nothing is left of an alert that may not leave this machine.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError> {
        let links = claim.links;
        let mut claimed = self.store.claim(claim).await?;
        for c in &mut claimed {
            let is_asked = !links && c.kind == DeliveryKind::OpenTicket;
            let ends = c.alert.as_ref().filter(|_| is_asked).map(ends::affected).unwrap_or_default();
            c.alert = c.alert.take().map(|alert| self.composer.redact(alert));
            c.about.sought = c.alert.as_ref().map(|alert| ends::still_said(ends, alert)).unwrap_or_default();
            for talker in &mut c.ticket.folded.talkers {
                *talker = self.composer.redact_sources(talker);
            }
        }
        Ok(claimed)
    }

    /// Whether devices go there too.
    fn links(&self, destination: &DestinationName) -> bool {
        self.settings.devices.as_ref().is_some_and(|devices| devices.destination == *destination)
    }

    fn planned(&self, destination: &Arc<D>, c: &Claimed) -> Planned {
        let work = kind::of(c.kind);
        let order = work.compose(&self.job(c, destination.name()));
        Planned {
            id: c.id,
            destination: destination.name().clone(),
            table: c.table.to_string(),
            correlation_id: work.keys(c, destination.name()).correlation_id.to_string(),
            fields: order.map(|order| order.fields),
        }
    }

    /// What to claim next, and how many requests may be made for it; `None` when the destination has to wait, which the
    /// report then says.
    pub(super) fn next_claim(
        &self,
        destination: &Arc<D>,
        cause: Cause,
        state: &DestinationState,
        budget: &Budget,
        now: Timestamp,
        report: &mut Report,
    ) -> Option<(Claim, u32)> {
        let name = destination.name();
        let waiting: Vec<&Hold> = state.holds.iter().filter(|h| h.until_at > now).collect();
        for hold in &waiting {
            report.wake(Some(hold.until_at));
            let place = hold.table.as_ref().map_or(String::new(), |t| format!(", table {t}"));
            let again = hold.until_at.servicenow();
            let remedy = if hold.remedy.is_empty() { String::new() } else { format!("; {}", hold.remedy) };
            report.wait_for(format!(
                "{name}{place}: {}{remedy}; tried again at {again} UTC, by `otrelay sync` at once",
                hold.reason
            ));
        }
        if waiting.iter().any(|h| h.table.is_none()) {
            return None;
        }
        let mut except: BTreeSet<TableName> = waiting.iter().filter_map(|h| h.table.clone()).into_set();
        if self.limits_of(name).on_unprotected == OnUnprotected::Hold && !cause.is_order() {
            for (table, _) in state.keys.iter().filter(|(_, kept)| kept.neither()) {
                let SendError { message, remedy, .. } = unprotected(table);
                report.wait_for(format!("{name}, table {table}: {message}; {remedy}"));
                except.insert(table.clone());
            }
        }
        // Devices wait in a row of their own: `device.rs` sends them.
        except.extend(self.settings.devices.iter().map(|devices| devices.table.clone()));
        let (requests, min_severity) = match budget.allowance() {
            Allowance::Requests(n, severity) => (n, severity),
            Allowance::NotBefore(at) => {
                report.wake(Some(at));
                report.wait_for_budget(name, budget.spent(self.limits_of(name).requests_per_hour));
                return None;
            }
        };
        if min_severity > Severity::Warning {
            report.wake(Some(budget.ends_at()));
        }
        // One request of each look-up's worth is the look-up. After a failure one delivery probes for all.
        let affordable = requests as usize * FIND_MAX / (FIND_MAX + 1);
        let probing = hold::is_probing(state);
        let group = self.group_of(name);
        let claim = Claim {
            except: except.into_iter().collect(),
            fresh_first: probing,
            min_severity,
            peek: false,
            links: self.links(name),
            ..peek(name, if probing { 1 } else { group.min(affordable.max(1)) }, now)
        };
        Some((claim, requests))
    }
}

/// A look at what is due there, whatever its severity and table.
fn peek(destination: &DestinationName, limit: usize, now: Timestamp) -> Claim {
    Claim {
        destination: destination.clone(),
        except: Vec::new(),
        limit,
        only_tried: false,
        fresh_first: false,
        min_severity: Severity::Warning,
        peek: true,
        links: false,
        now,
    }
}
