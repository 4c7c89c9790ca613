//! 7 — what changed there comes home, before a sync pushes: one run over one destination.
//!
//! Three questions. What was changed lately is polled by the server's clock, at its own interval or when a person orders
//! it; the watermark overlaps, and what is not news is known by its count of changes, our own echoes too. A poll that has to
//! stop before its end goes on at the next sync behind the very record it had come to, without overlap: however many records
//! one second has, it gets past them. And every ticket whose finding was seen again is looked at, so that one that was closed,
//! deleted, or lost by a clone there is known within one sync of that sighting; where requests do not suffice for all, the
//! next sync begins behind the last, so that each gets its turn. Behind each poll that came to its end, every live ticket is
//! asked for by its id (`sweep`): a deletion is no change, and neither does a table tell of changes that keeps no key of ours.
//! Then the notes that are due go into the outbox.
//!
//! On disk: what was read is committed before how far it was read; after a power cut in between it is read again, which is no
//! news.
//!
//! Nothing is written there, nothing is retried here: the next run asks again. A failure is told and keeps nothing from
//! being pushed. `reconcile` decides; this file carries it out.

mod reconcile;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::destination::{Asked, Destination, FIND_MAX, Found, Remote, SendError};
use crate::model::codes::Code;
use crate::model::life::Lives;
use crate::model::ticket::{NOT_FOUND, TicketKeys};
use crate::model::{SysId, TableName, TicketState, Timestamp};
use crate::store::op::life::SeenTicket;
use crate::store::op::sync_back::{LookedAt, Watch};
use crate::store::{Store, StoreError};

/// How far each poll reaches back behind the last: long transactions are committed late.
const OVERLAP: Duration = Duration::from_mins(2);
/// The same where the beginning was put down by our own clock, and is the server's by what the two are apart now.
const FIRST_OVERLAP: Duration = Duration::from_hours(1);
/// Pages of one poll; the next sync goes on from there.
const PAGES_MAX: usize = 25;
/// Keys in one look: the fields that are asked for make the address longer.
const LOOK_MAX: usize = if FIND_MAX < 30 { FIND_MAX } else { 30 };

/// What the read-back needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[sync] tickets_interval`, at least 5 min.
    pub interval: Duration,
    /// What the rules want of tickets that are there.
    pub lives: Arc<Lives>,
}

/// `[sync] tickets_interval` where nothing is said.
pub const INTERVAL: Duration = Duration::from_hours(24);

impl Default for Settings {
    fn default() -> Self {
        Self { interval: INTERVAL, lives: Arc::default() }
    }
}

/// What a run may do.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// A person wants it now, whatever the interval says.
    pub is_order: bool,
    /// Requests.
    pub requests: u32,
    /// Tables that wait: theirs are left.
    pub except: &'a [TableName],
    /// Now.
    pub now: Timestamp,
}

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Tickets that were found to have changed.
    pub changed: u64,
    /// Notes that were put into the outbox.
    pub notes: u64,
    /// Keys that more than one record carries, and their tables.
    pub twins: Vec<(TableName, Found)>,
    /// Tables whose changes cannot be asked for, and why.
    pub untold: Vec<(TableName, Untold)>,
    /// Tables that were asked to the end and answered with ours only.
    pub told: Vec<TableName>,
    /// The first failure, and of which table.
    pub failure: Option<(TableName, SendError)>,
    /// Something was to be read, and there were no requests left for it: the next run goes on with it.
    pub is_short: bool,
}

/// Why changes of a table are not read as they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untold {
    /// Its records do not keep our `correlation_id`.
    Unmarked,
    /// It answers with the records of others.
    Strangers,
}

/// One run: reads back, then puts the notes that are due into the outbox.
///
/// # Errors
/// [`StoreError`]; what the other side answers is in the report.
pub async fn run<D: Destination>(
    store: &Store,
    destination: &D,
    settings: &Settings,
    allowed: Allowed<'_>,
) -> Result<Report, StoreError> {
    let name = destination.name();
    let mut run = Run {
        store,
        destination,
        settings,
        allowed,
        before: destination.requests(),
        report: Report::default(),
    };
    for watch in store.watches(name).await? {
        if !run.is_read(&watch.table) || !reconcile::is_due(&watch, settings.interval, &allowed) {
            continue;
        }
        if !run.may_poll(&watch.table) {
            run.report.is_short = true;
            continue;
        }
        if let Err(e) = run.poll(&watch).await? {
            run.fail(watch.table, e);
            break;
        }
    }
    run.look_at_seen().await?;
    run.sweep().await?;
    loop {
        let notes = store.due_notes(name, allowed.now).await?;
        run.report.notes += notes;
        if notes == 0 {
            return Ok(run.report);
        }
    }
}

struct Run<'a, D> {
    store: &'a Store,
    destination: &'a D,
    settings: &'a Settings,
    allowed: Allowed<'a>,
    /// The destination's own count when it began.
    before: u64,
    report: Report,
}

impl<D: Destination> Run<'_, D> {
    fn may(&self, table: &TableName) -> bool {
        self.has_left(self.allowed.requests) && self.is_read(table)
    }

    /// A poll leaves a third of the requests to the looks: a table with very many changes must not keep them waiting.
    fn may_poll(&self, table: &TableName) -> bool {
        self.has_left(self.allowed.requests - self.allowed.requests / 3) && self.is_read(table)
    }

    fn has_left(&self, most: u32) -> bool {
        self.destination.requests().saturating_sub(self.before) < u64::from(most)
    }

    fn is_read(&self, table: &TableName) -> bool {
        !self.allowed.except.contains(table) && table.as_str() != "em_event" && self.report.failure.is_none()
    }

    fn fail(&mut self, table: TableName, e: SendError) {
        tracing::warn!(destination = %self.destination.name(), table = %table, "could not read tickets back: {e}{}", Code::behind("read-back"));
        self.report.failure.get_or_insert((table, e));
    }

    /// Takes home what was changed in a table. What was read before a failure counts.
    async fn poll(&mut self, watch: &Watch) -> Result<Result<(), SendError>, StoreError> {
        if watch.is_unmarked {
            // None of its records would be known as ours: the sweep that this begins asks for them by their ids.
            self.report.untold.push((watch.table.clone(), Untold::Unmarked));
            self.store.read_until(watch.route, watch.until, None).await?;
            return Ok(Ok(()));
        }
        let mut since = reconcile::begin(watch, None, self.allowed.now);
        let mut news: BTreeMap<SysId, Remote> = BTreeMap::new();
        let (mut read_until, mut page, mut strangers) = (None, 0, 0);
        let outcome = loop {
            let changed = match self.destination.changed(&watch.table, &since).await {
                Ok(changed) => changed,
                Err(e) => break Err(e),
            };
            page += 1;
            strangers += changed.strangers;
            let told = changed.records.iter().filter_map(|remote| remote.detail.updated_at).max();
            news.extend(changed.records.into_iter().map(|remote| (remote.sys_id.clone(), remote)));
            let begin = reconcile::begin(watch, changed.server_now, self.allowed.now);
            if page == 1 && begin.at < since.at {
                // By the server's clock it is too late a beginning: our own was ahead of it.
                since = begin;
                continue;
            }
            let Some(next) = changed.next else {
                read_until = Some((changed.server_now.or(told).unwrap_or(watch.until), None));
                break Ok(());
            };
            read_until = Some((next.at, next.behind.clone()));
            since = next;
            let may_go_on = self.may_poll(&watch.table);
            if page >= PAGES_MAX || !may_go_on {
                self.report.is_short |= !may_go_on;
                break Ok(());
            }
        };
        if strangers > 0 {
            self.report.untold.push((watch.table.clone(), Untold::Strangers));
        } else if read_until.as_ref().is_some_and(|(_, behind)| behind.is_none()) {
            self.report.told.push(watch.table.clone());
        }
        self.take_news_home(watch, news).await?;
        if let Some((until, behind)) = read_until {
            let is_end = behind.is_none();
            self.store.read_until(watch.route, until, behind).await?;
            if is_end && self.allowed.is_order && watch.swept.is_none() {
                // Behind the first poll, too.
                self.store.swept_until(watch.route, Some(0)).await?;
            }
        }
        Ok(outcome)
    }

    async fn take_news_home(
        &mut self,
        watch: &Watch,
        news: BTreeMap<SysId, Remote>,
    ) -> Result<(), StoreError> {
        let mut after = 0;
        while !news.is_empty() {
            let known = self.store.known_tickets(watch.route, after).await?;
            let Some(last) = known.last() else { break };
            after = last.ticket;
            let looked_at = reconcile::news(&known, &news);
            self.report.changed += looked_at.len() as u64;
            self.store.take_home(looked_at, Arc::clone(&self.settings.lives)).await?;
        }
        Ok(())
    }

    /// Looks at each ticket whose finding was seen again: first those that the last sync did not get to.
    async fn look_at_seen(&mut self) -> Result<(), StoreError> {
        let name = self.destination.name();
        if !self.has_left(self.allowed.requests) {
            // Only who ordered it wants to know.
            self.report.is_short |=
                self.allowed.is_order && !self.store.seen_again(name, 0).await?.is_empty();
            return Ok(());
        }
        let began = self.store.looked_until(name).await?;
        let stopped = match self.look_from(began, i64::MAX).await? {
            None if began > 0 => self.look_from(0, began).await?,
            stopped => stopped,
        };
        let until = stopped.unwrap_or(0);
        if until != began {
            self.store.look_until(name, until).await?;
        }
        Ok(())
    }

    /// The same of tickets behind `after`, up to `last`. Where it has to stop, says behind which ticket the rest begins.
    async fn look_from(&mut self, mut after: i64, last: i64) -> Result<Option<i64>, StoreError> {
        loop {
            let mut seen = self.store.seen_again(self.destination.name(), after).await?;
            seen.retain(|ticket| ticket.ticket <= last);
            let Some(end) = seen.last() else { return Ok(None) };
            let end = end.ticket;
            while let Some(first) = seen.first() {
                let (table, first) = (first.table.clone(), first.ticket);
                let has_left = self.has_left(self.allowed.requests);
                if !has_left || self.report.failure.is_some() {
                    self.report.is_short |= !has_left;
                    return Ok(Some(first - 1));
                }
                let (mut some, rest): (Vec<_>, Vec<_>) = seen.into_iter().partition(|t| t.table == table);
                seen = rest;
                if !self.may(&table) {
                    continue;
                }
                let more = some.split_off(some.len().min(LOOK_MAX));
                seen.extend(more);
                seen.sort_unstable_by_key(|ticket| ticket.ticket);
                if let Err(e) = self.look_at(&table, &some).await? {
                    self.fail(table, e);
                    // Not before the same one again: the others get their turn.
                    return Ok(Some(first));
                }
            }
            after = end;
        }
    }

    async fn look_at(
        &mut self,
        table: &TableName,
        tickets: &[SeenTicket],
    ) -> Result<Result<(), SendError>, StoreError> {
        let name = self.destination.name();
        let asked: Vec<Asked> = tickets
            .iter()
            .map(|t| Asked {
                keys: TicketKeys {
                    sys_id: t.sys_id.clone(),
                    ..TicketKeys::derive(&t.finding(), name, table, t.generation)
                },
                doubtful: true,
                mark: String::new(),
                mod_count: None,
            })
            .collect();
        let looked_up = match self.destination.read_back(table, &asked).await {
            Ok(looked_up) => looked_up,
            Err(e) => return Ok(Err(e)),
        };
        let twins = looked_up.found.iter().filter(|found| found.twins > 0).cloned();
        self.report.twins.extend(twins.map(|found| (table.clone(), found)));
        let ahead = reconcile::Ahead::of(looked_up.server_now, self.allowed.now);
        let looked_at: Vec<LookedAt> = tickets
            .iter()
            .zip(&asked)
            .map(|(ticket, asked)| {
                let key = &asked.keys.correlation_id;
                let found = looked_up.found.iter().find(|found| found.correlation_id == *key);
                reconcile::look(ticket, found.map(|found| &found.remote), ahead)
            })
            .collect();
        self.report.changed += looked_at.iter().filter(|one| one.renews).count() as u64;
        let missing = looked_at.iter().filter(|one| one.seen.state == TicketState::Deleted).count();
        if missing > 0 {
            let which =
                tickets.iter().zip(&looked_at).find(|(_, one)| one.seen.state == TicketState::Deleted);
            let first = which.map(|(ticket, _)| ticket.sys_id.to_string()).unwrap_or_default();
            tracing::warn!(
                destination = %name, table = %table, sys_id = first,
                "{missing} tickets whose findings were seen again are not found in {name} {table}, one of them {first}: {NOT_FOUND}"
            );
        }
        self.store.take_home(looked_at, Arc::clone(&self.settings.lives)).await?;
        Ok(Ok(()))
    }
}
