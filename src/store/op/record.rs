//! What a source took in: alerts, occurrences, deliveries, counters, samples and cursors, in one transaction.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::again;
use super::attempt;
use super::cursors::move_cursors;
use super::device::take;
use super::fresh::Fresh;
use super::history;
use super::life::{self, Newest};
use super::plan;
use super::prune::{Room, room};
use super::row::{
    KEPT, KeptAlert, NewDelivery, NewRecord, NewTicket, Subject, destination_scope, insert_delivery,
    insert_record, insert_ticket, source_scope,
};
use super::settle;
use super::storm::{self, Folds, Verdict};
use super::told;
use super::turn;
use crate::model::cursor::Again;
use crate::model::life::{Life, Lives};
use crate::model::text::clip;
use crate::model::ticket::TicketKeys;
use crate::model::{
    Alert, AlertState, Cursor, DeliveryId, DeliveryKind, DeliveryState, DestinationName, Device, Fingerprint,
    Generation, Protocol, RuleName, Severity, SourceName, TableName, TicketState, Timestamp,
};
use crate::store::handle::Operation;
use crate::store::health::Kind;
use crate::store::pack::body::Packer;
use crate::store::session::Tx;
use crate::store::turns::Told;
use crate::store::{Store, StoreError};

/// Samples of filtered alerts that are kept, over all sources.
pub const FILTERED_SAMPLES: i64 = 256;
/// Samples of rejected input that are kept, over all sources.
pub const REJECT_SAMPLES: i64 = 128;

/// Where an alert goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Destination.
    pub destination: DestinationName,
    /// Table there.
    pub table: TableName,
    /// The rule that gives the fields.
    pub rule: RuleName,
    /// What the alert becomes there.
    pub kind: DeliveryKind,
}

/// One alert with its sightings in this batch folded into it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which finding.
    pub fingerprint: Fingerprint,
    /// The first sighting.
    pub alert: Alert,
    /// Sightings in this batch, at least 1.
    pub occurrences: u64,
    /// The sensor's time of the latest sighting.
    pub last_seen_at: Timestamp,
    /// Where it goes; empty only for an alert that was cleared, which goes nowhere by itself.
    pub routes: Vec<Routed>,
    /// The order by which it is read a second time; then it is one sighting.
    pub again: Option<Again>,
}

/// Alerts of one batch that are not forwarded, by reason.
#[derive(Clone, Debug)]
pub struct Filtered {
    /// Stable words of the reason, or the name of the exclusion.
    pub reason: Cow<'static, str>,
    /// How many.
    pub count: u64,
    /// A few of them.
    pub samples: Vec<Sample>,
}

impl Filtered {
    /// None so far.
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), count: 0, samples: Vec::new() }
    }
}

/// What is kept of an alert that is not forwarded.
#[derive(Clone, Debug)]
pub struct Sample {
    /// By the sensor's clock.
    pub at: Timestamp,
    /// Severity.
    pub severity: Severity,
    /// Engine.
    pub engine: crate::model::Engine,
    /// First protocol.
    pub protocol: Option<Protocol>,
    /// Title.
    pub title: String,
    /// `10.0.0.1 → 10.0.0.2`.
    pub parties: String,
}

/// Input that was not understood.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Stable words of the reason.
    pub reason: &'static str,
    /// How many.
    pub count: u64,
    /// Where and what, and the beginning of it; a few.
    pub samples: Vec<(String, String)>,
}

/// One batch of one source.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which source.
    pub source: SourceName,
    /// Its kind, as in the config; empty: as it is known.
    pub kind: &'static str,
    /// When it was taken in.
    pub now: Timestamp,
    /// Whether nobody waits for more of this source: then it may be gathered with what comes.
    pub gather: bool,
    /// Lines read.
    pub lines: u64,
    /// Alerts among them.
    pub alerts: u64,
    /// The same by severity, the lowest first.
    pub by_severity: [u64; 4],
    /// To be forwarded, or cleared.
    pub entries: Vec<Entry>,
    /// What was told of devices.
    pub devices: Vec<Device>,
    /// How many of the alerts came from senders that nobody has authenticated.
    pub unauthenticated: u64,
    /// Not forwarded.
    pub filtered: Vec<Filtered>,
    /// Kept from the rules by an exclusion.
    pub excluded: Vec<Filtered>,
    /// Not understood.
    pub rejected: Vec<Rejected>,
    /// Records that are no alerts, by kind.
    pub ignored: Vec<(&'static str, u64)>,
    /// How far the source is read.
    pub cursors: Vec<Cursor>,
    /// What is done with.
    pub finished: Vec<Cursor>,
    /// What is wrong with the source now.
    pub trouble: Option<String>,
    /// What the rules want of tickets that are there.
    pub lives: Arc<Lives>,
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Findings seen for the first time.
    pub new: u64,
    /// Sightings of known findings.
    pub repeats: u64,
    /// Sightings that took a finding back.
    pub cleared: u64,
    /// Deliveries put into the outbox.
    pub deliveries: u64,
    /// Sightings among them that were read a second time, and taken in after all.
    pub again: u64,
    /// How full the buffer is after it.
    pub room: Room,
}

impl Store {
    /// Commits batches, all or none; ends when they are synced. Shared, because the caller keeps them to try again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of them is stored then.
    pub async fn record(&self, records: impl Into<Arc<[Record]>>) -> Result<Recorded, StoreError> {
        self.call(Records(records.into())).await
    }
}

struct Records(Arc<[Record]>);

impl Operation for Records {
    type Output = Recorded;

    fn urgent(&self) -> bool {
        !self.0.iter().all(|r| r.gather)
    }

    fn run(self, tx: &mut Tx<'_>) -> Result<Recorded, StoreError> {
        if let Some(full) = [Kind::Disk, Kind::Log].into_iter().find_map(|kind| tx.conditions.get(kind)) {
            // What room is left belongs to claims and settles.
            return Err(StoreError::DiskFull(full.text));
        }
        write_all(tx, &self.0)
    }
}

/// Writes records into a transaction.
pub(in crate::store) fn write_all(tx: &mut Tx<'_>, records: &[Record]) -> Result<Recorded, StoreError> {
    if let Some(record) = records.first() {
        history::note(tx, record.now)?;
    }
    let mut sums = Recorded::default();
    let mut packer = Packer::of(records.iter().map(|record| record.entries.len()).sum());
    for record in records {
        record.write(tx, &mut packer, &mut sums)?;
    }
    packer.flush(tx.conn)?;
    sums.room = room(tx)?;
    if sums.room.used > sums.room.limit && sums.new > 0 {
        return Err(StoreError::Full("the room that is left is for the tickets of what waits".to_owned()));
    }
    Ok(sums)
}

impl Record {
    /// Of a batch in which nothing came.
    pub fn new(source: SourceName, now: Timestamp) -> Self {
        Self {
            source,
            kind: "",
            now,
            gather: false,
            lines: 0,
            alerts: 0,
            by_severity: [0; 4],
            entries: Vec::new(),
            devices: Vec::new(),
            unauthenticated: 0,
            filtered: Vec::new(),
            excluded: Vec::new(),
            rejected: Vec::new(),
            ignored: Vec::new(),
            cursors: Vec::new(),
            finished: Vec::new(),
            trouble: None,
            lives: Arc::default(),
        }
    }

    fn write(&self, tx: &mut Tx<'_>, packer: &mut Packer, total: &mut Recorded) -> Result<(), StoreError> {
        let now = self.now.as_micros();
        let source_id = tx.source_id(self.source.as_str(), now)?;
        let scope = source_scope(self.source.as_str());
        let mut sums = Recorded::default();
        self.write_entries(tx, packer, source_id, &mut sums)?;
        tx.count(&scope, "lines", (self.lines + sums.again) as i64);
        tx.count(&scope, "alerts", (self.alerts + sums.again) as i64);
        tx.count(&scope, "again", sums.again as i64);
        tx.count(&scope, "new", sums.new as i64);
        tx.count(&scope, "repeats", sums.repeats as i64);
        tx.count(&scope, "cleared", sums.cleared as i64);
        for (severity, count) in Severity::ALL.into_iter().zip(self.by_severity) {
            tx.count("severity", severity.as_str(), count as i64);
        }
        tx.count(&scope, "unauthenticated", self.unauthenticated as i64);
        self.write_devices(tx, source_id, &scope)?;
        for (kind, count) in &self.ignored {
            tx.count(&format!("ignored:{}", self.source), *kind, *count as i64);
        }
        for filtered in &self.filtered {
            tx.count(&format!("filtered:{}", self.source), filtered.reason.clone(), filtered.count as i64);
            keep_filtered(tx, source_id, &filtered.reason, filtered)?;
        }
        for excluded in &self.excluded {
            tx.count(&format!("excluded:{}", self.source), excluded.reason.clone(), excluded.count as i64);
            keep_filtered(tx, source_id, &format!("excluded: {}", excluded.reason), excluded)?;
        }
        for rejected in &self.rejected {
            tx.count(&format!("rejected:{}", self.source), rejected.reason, rejected.count as i64);
            keep_rejected(tx, source_id, rejected, now)?;
        }
        move_cursors(tx, source_id, self)?;
        // A log directory that could not be read at install time is still to be read for the first time.
        let was_read = self.lines > 0 || !self.cursors.is_empty() || self.trouble.is_none();
        let came = self.lines + sums.again > 0 || !self.devices.is_empty();
        let last_alert_at = (self.alerts + sums.again > 0).then_some(now);
        tx.conn
            .prepare_cached(
                "UPDATE source SET last_read_at = CASE WHEN ?7 THEN ?2 ELSE last_read_at END, last_alert_at = coalesce(?3, last_alert_at), trouble = ?4,
                 first_read_at = CASE WHEN ?5 THEN coalesce(first_read_at, ?2) ELSE first_read_at END,
                 kind = coalesce(nullif(?6, ''), kind)
                 WHERE id = ?1",
            )?
            .execute(params![source_id, now, last_alert_at, self.trouble, was_read, self.kind, came])?;
        total.new += sums.new;
        total.repeats += sums.repeats;
        total.cleared += sums.cleared;
        total.deliveries += sums.deliveries;
        Ok(())
    }

    /// What was told of devices.
    fn write_devices(&self, tx: &mut Tx<'_>, source_id: i64, scope: &str) -> Result<(), StoreError> {
        if self.devices.is_empty() {
            return Ok(());
        }
        if !self.kind.is_empty() {
            // Which word is the better one depends on it.
            tx.conn
                .prepare_cached("UPDATE source SET kind = ?2 WHERE id = ?1 AND kind <> ?2")?
                .execute(params![source_id, self.kind])?;
        }
        let source = take::Source { id: source_id, name: self.source.as_str(), now: self.now };
        let unknown = take::take(tx, &source, &self.devices)?;
        tx.count(scope, "devices", self.devices.len() as i64);
        tx.count(scope, "devices without identity", unknown as i64);
        Ok(())
    }

    fn write_entries(
        &self,
        tx: &mut Tx<'_>,
        packer: &mut Packer,
        source_id: i64,
        sums: &mut Recorded,
    ) -> Result<(), StoreError> {
        let now = self.now.as_micros();
        let mut fresh = Fresh::new(source_id, now, &self.lives);
        for entry in by_severity(&self.entries) {
            if fresh.is_full() || fresh.holds(&entry.fingerprint) {
                fresh.write(tx, packer, sums)?;
            }
            let id = tx.memory.index.find(tx.conn, &entry.fingerprint)?;
            if let Some(again) = entry.again {
                if again::is_known(tx, id, entry, again, sums, now)? {
                    continue;
                }
                sums.again += 1;
            }
            if entry.alert.state == AlertState::Cleared {
                // What nobody wanted raised is nothing that could be cleared; it is counted all the same.
                if let Some(id) = id
                    && set_cleared(tx, id, now)?
                {
                    plan::write_of(tx, id)?;
                    sums.deliveries += life::cleared(tx, id, &self.lives, now)?;
                }
                sums.cleared += entry.occurrences;
                continue;
            }
            let Some(id) = id else {
                fresh.add(entry);
                continue;
            };
            let (had_ended, mut planned) = add_occurrences(tx, id, entry)?;
            if planned.is_some_and(|(_, severity)| entry.alert.severity as i64 > severity) {
                // Its rows are made, and get worse as those of any other.
                plan::write_of(tx, id)?;
                planned = None;
            }
            if had_ended {
                sums.deliveries += life::raised_again(tx, id, &self.lives, now)?;
            }
            sums.repeats += entry.occurrences;
            let sighting = Sighting::of(entry, &self.lives, planned.map(|(route, _)| route));
            for routed in &entry.routes {
                if deliver(tx, id, routed, &sighting, now)? {
                    sums.deliveries += 1;
                }
            }
        }
        fresh.write(tx, packer, sums)
    }
}

/// Most severe first, otherwise as they came: packs of bodies hold one severity. A finding that comes with two severities
/// keeps its place by the first.
fn by_severity(entries: &[Entry]) -> Vec<&Entry> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    if entries.is_sorted_by_key(|entry| Reverse(entry.alert.severity)) {
        return order;
    }
    let mut first: HashMap<&Fingerprint, Severity> = HashMap::with_capacity(entries.len());
    for entry in entries {
        first.entry(&entry.fingerprint).or_insert(entry.alert.severity);
    }
    order.sort_by_key(|entry| Reverse(first.get(&entry.fingerprint).copied()));
    order
}

/// Marks a finding as taken back by its source, since the first time that it was; the next sighting raises it again.
/// Whether this was the first.
pub(super) fn set_cleared(tx: &Tx<'_>, id: i64, at: i64) -> Result<bool, StoreError> {
    let changed = tx
        .conn
        .prepare_cached("UPDATE alert SET cleared_at = ?2 WHERE id = ?1 AND cleared_at IS NULL")?
        .execute(params![id, at])?;
    Ok(changed > 0)
}

/// A known finding as it stands, and whether it has ended.
pub(super) fn known(tx: &Tx<'_>, id: i64) -> Result<(KeptAlert, bool), StoreError> {
    let sql = format!("SELECT {}, a.cleared_at IS NOT NULL FROM alert a WHERE a.id = ?1", KeptAlert::COLUMNS);
    Ok(tx.conn.prepare_cached(&sql)?.query_row([id], |r| Ok((KeptAlert::read(r, 0)?, r.get(9)?)))?)
}

/// Counts sightings of a known finding, which stands by them. Whether it had ended, and of a planned ticket the route that
/// it takes and its severity.
fn add_occurrences(tx: &Tx<'_>, id: i64, entry: &Entry) -> Result<(bool, Option<(i64, i64)>), StoreError> {
    let (mut known, had_ended) = known(tx, id)?;
    let row = &mut known.row;
    row.last_seen_at = row.last_seen_at.max(entry.last_seen_at.as_micros());
    row.occurrences = row.occurrences.saturating_add(entry.occurrences as i64);
    let (last_seen_at, occurrences) = (row.last_seen_at, row.occurrences);
    tx.conn
        .prepare_cached(
            "UPDATE alert SET last_seen_at = ?2, occurrences = ?3, cleared_at = NULL, crc = ?4 WHERE id = ?1",
        )?
        .execute([id, last_seen_at, occurrences, known.crc()])?;
    let severity = known.row.severity;
    Ok((had_ended, known.row.plan.map(|plan| (plan.route, severity))))
}

/// Why an alert is to be delivered.
pub(super) struct Sighting<'a> {
    pub(super) severity: i64,
    /// What was seen, and what the rules want; `None`: it was not seen, only the rules have changed.
    pub(super) seen: Option<(&'a Alert, &'a Lives)>,
    /// The route on which its ticket is planned (`plan.rs`).
    pub(super) planned_on: Option<i64>,
}

impl<'a> Sighting<'a> {
    pub(super) fn of(entry: &'a Entry, lives: &'a Lives, planned_on: Option<i64>) -> Self {
        Self { severity: entry.alert.severity as i64, seen: Some((&entry.alert, lives)), planned_on }
    }

    /// What is told of this alert, in turns.
    fn told(&self, alert_id: i64) -> Told<'a> {
        match self.seen {
            Some((alert, _)) => Told::Finding(storm::kind(alert), &alert.destination),
            None => Told::Later(alert_id),
        }
    }
}

/// Makes sure that a known alert is told on this route; true when a delivery was made for it.
pub(super) fn deliver(
    tx: &mut Tx<'_>,
    alert_id: i64,
    routed: &Routed,
    sighting: &Sighting<'_>,
    now: i64,
) -> Result<bool, StoreError> {
    let severity = sighting.severity;
    let (destination_id, route_id) = tx.route_id(routed.destination.as_str(), routed.table.as_str())?;
    if routed.kind != DeliveryKind::OpenTicket {
        return deliver_record(tx, alert_id, routed, (destination_id, route_id), sighting, now);
    }
    if sighting.planned_on == Some(route_id) {
        return Ok(false);
    }
    let life = sighting
        .seen
        .map(|(_, lives)| lives.of(routed.rule.as_str(), routed.destination.as_str(), routed.table.as_str()));
    let newest = life::newest(tx, alert_id, route_id)?;
    if let (Some(life), Some(ticket)) = (life, &newest) {
        let is_worse = ticket.state == Some(TicketState::Opening) && ticket.is_better_than(severity);
        if ticket.state == Some(TicketState::Open) || is_worse {
            life::seen_again(tx, ticket, life, severity, now)?;
            if life.max_tickets_per_hour.is_some() {
                storm::mark_leader(tx, alert_id, ticket.id, severity, now)?;
            }
            return Ok(false);
        }
        if ticket.state == Some(TicketState::Folded) {
            match storm::seen(tx, ticket, (routed.rule.as_str(), life), severity, now)? {
                Folds::Told(made) => return Ok(made),
                Folds::GivenUp => return Ok(false),
                Folds::Over => {}
            }
        }
        if life::reopens(tx, ticket, routed.rule.as_str(), life, severity, now)? {
            return Ok(true);
        }
    }
    let generation = next_generation(tx, newest.as_ref(), life.is_some(), routed.destination.as_str())?;
    let Some(generation) = generation else { return Ok(false) };
    let new = NewTicket { alert_id, route_id, generation, rule: routed.rule.as_str() };
    if let (Some((alert, _)), Some(life @ Life { max_tickets_per_hour: Some(_), .. })) = (sighting.seen, life)
    {
        let kind = storm::kind(alert);
        match storm::judge(tx, &new, kind, life, now)? {
            Verdict::Own => {}
            Verdict::Folds(parent) => {
                life::fold(tx, &new, parent, (severity, now))?;
                storm::rises(tx, parent, life, severity, now)?;
                return Ok(false);
            }
            Verdict::Resumes(parent) => return storm::resume(tx, &new, (parent, life), severity, now),
            Verdict::Leads => return storm::lead(tx, &new, (alert, life), destination_id, severity, now),
        }
    }
    let ticket = insert_ticket(tx, &new)?;
    let turn = turn::next(tx, (route_id, severity), routed.rule.as_str(), sighting.told(alert_id))?;
    let new = NewDelivery { destination_id, route_id, severity, turn, ..NewDelivery::opens(ticket, now) };
    insert_delivery(tx, &new, routed.destination.as_str())?;
    if let (Some((alert, _)), Some(life)) = (sighting.seen, life) {
        life::attach(tx, ticket, alert, life.attach, now)?;
    }
    Ok(true)
}

/// The same of what is no ticket.
fn deliver_record(
    tx: &mut Tx<'_>,
    alert_id: i64,
    routed: &Routed,
    (destination_id, route_id): (i64, i64),
    sighting: &Sighting<'_>,
    now: i64,
) -> Result<bool, StoreError> {
    let severity = sighting.severity;
    let known: bool = tx
        .conn
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM record WHERE alert_id = ?1 AND route_id = ?2)")?
        .query_row([alert_id, route_id], |r| r.get(0))?;
    if known {
        if bring_back(tx, alert_id, routed, route_id, now)? {
            return Ok(true);
        }
        if sighting.seen.is_some() && life::record_worsens(tx, (alert_id, route_id), severity)? {
            return Ok(false);
        }
        let Some((_, lives)) = sighting.seen.filter(|_| routed.kind.goes_on()) else { return Ok(false) };
        let life = lives.of(routed.rule.as_str(), routed.destination.as_str(), routed.table.as_str());
        return told::seen_again(tx, (alert_id, route_id), life, severity, now);
    }
    let record = put_record(tx, alert_id, routed, route_id)?;
    let turn = turn::next(tx, (route_id, severity), routed.rule.as_str(), sighting.told(alert_id))?;
    let puts = NewDelivery::puts(routed.kind, record, now);
    let new = NewDelivery { destination_id, route_id, severity, turn, ..puts };
    insert_delivery(tx, &new, routed.destination.as_str())?;
    Ok(true)
}

/// A record of an alert on a route; its key is made of the two.
pub(super) fn put_record(
    tx: &mut Tx<'_>,
    alert_id: i64,
    routed: &Routed,
    route_id: i64,
) -> Result<i64, StoreError> {
    let fingerprint: [u8; 32] = tx
        .conn
        .prepare_cached("SELECT fingerprint FROM alert WHERE id = ?1")?
        .query_row([alert_id], |r| r.get(0))?;
    let keys = TicketKeys::derive(
        &Fingerprint::from_bytes(fingerprint),
        &routed.destination,
        &routed.table,
        Generation(0),
    );
    let new = NewRecord { alert_id, route_id, rule: routed.rule.as_str(), key: keys.correlation_id.as_str() };
    insert_record(tx, &new)
}

/// A record that was withdrawn with its rule, and is wanted again, is put after all. One that a person dropped is not.
fn bring_back(
    tx: &mut Tx<'_>,
    alert_id: i64,
    routed: &Routed,
    route_id: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let withdrawn: Option<i64> = tx
        .conn
        .prepare_cached(
            "SELECT d.id FROM record c JOIN delivery d ON d.record_id = c.id
             WHERE c.alert_id = ?1 AND c.route_id = ?2 AND d.state = 'withdrawn' AND c.state = 'withdrawn'
             ORDER BY d.seq LIMIT 1",
        )?
        .query_row([alert_id, route_id], |r| r.get(0))
        .optional()?;
    let Some(id) = withdrawn.map(DeliveryId) else { return Ok(false) };
    let Some(was) = settle::current(tx, id)? else { return Ok(false) };
    let now = Timestamp::from_micros(now);
    let next = settle::Next {
        subject: was.subject,
        state: DeliveryState::Pending,
        due_at: Some(now),
        attempts: was.attempts,
        doubtful: true,
        reason: None,
        now,
    };
    settle::move_delivery(tx, id, &was, &next)?;
    settle::record_is(tx, &was, TicketState::Opening)?;
    if let Subject::Record(record) = was.subject {
        tx.conn
            .prepare_cached("UPDATE record SET rule = ?2 WHERE id = ?1")?
            .execute(params![record, routed.rule.as_str()])?;
    }
    Ok(true)
}

/// The generation of the ticket to be made now; `None`: there is a live one, or a person dropped it, or nothing was seen
/// since it was closed.
fn next_generation(
    tx: &mut Tx<'_>,
    newest: Option<&Newest>,
    was_seen: bool,
    destination: &str,
) -> Result<Option<Generation>, StoreError> {
    let Some(&Newest { id: ticket, generation, state, .. }) = newest else { return Ok(Some(Generation(0))) };
    match state {
        // A folded one whose parent is over.
        Some(TicketState::Closed | TicketState::Resolved | TicketState::Deleted | TicketState::Folded) => {
            Ok(was_seen.then(|| Generation(generation).next()))
        }
        Some(TicketState::Withdrawn) => {
            let dropped: bool = tx
                .conn
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM delivery WHERE ticket_id = ?1 AND state = ?2)")?
                .query_row(params![ticket, DeliveryState::Dropped.as_str()], |r| r.get(0))?;
            if dropped {
                return Ok(None);
            }
            // It never got there, so its keys are free: the new row takes its place.
            let deliveries: Vec<i64> = tx
                .conn
                .prepare_cached("SELECT id FROM delivery WHERE ticket_id = ?1")?
                .query_map([ticket], |r| r.get(0))?
                .collect::<Result<_, _>>()?;
            for delivery in deliveries {
                attempt::forget(tx, delivery)?;
            }
            let gone =
                tx.conn.prepare_cached("DELETE FROM delivery WHERE ticket_id = ?1")?.execute([ticket])?;
            tx.count(&destination_scope(destination), DeliveryState::Withdrawn.as_str(), -(gone as i64));
            tx.count(KEPT, "deliveries", -(gone as i64));
            tx.conn.prepare_cached("DELETE FROM ticket WHERE id = ?1")?.execute([ticket])?;
            tx.count(KEPT, "tickets", -1);
            Ok(Some(Generation(generation)))
        }
        _ => Ok(None),
    }
}

fn keep_filtered(tx: &Tx<'_>, source_id: i64, reason: &str, filtered: &Filtered) -> Result<(), StoreError> {
    for s in &filtered.samples {
        tx.conn
            .prepare_cached(
                "INSERT INTO filtered_sample (source_id, at, reason, severity, engine, protocol, title, parties)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                source_id,
                s.at.as_micros(),
                reason,
                s.severity as i64,
                s.engine.as_str(),
                s.protocol.as_ref().map_or("", Protocol::as_str),
                s.title,
                s.parties
            ])?;
    }
    if !filtered.samples.is_empty() {
        tx.conn
            .prepare_cached(
                "DELETE FROM filtered_sample WHERE id <= (SELECT max(id) FROM filtered_sample) - ?1",
            )?
            .execute([FILTERED_SAMPLES])?;
    }
    Ok(())
}

fn keep_rejected(tx: &Tx<'_>, source_id: i64, rejected: &Rejected, now: i64) -> Result<(), StoreError> {
    for (detail, sample) in &rejected.samples {
        tx.conn
            .prepare_cached(
                "INSERT INTO reject_sample (source_id, at, reason, detail, sample) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                source_id,
                now,
                rejected.reason,
                clip(detail, super::WORDS_MAX),
                clip(sample, super::WORDS_MAX)
            ])?;
    }
    if !rejected.samples.is_empty() {
        tx.conn
            .prepare_cached("DELETE FROM reject_sample WHERE id <= (SELECT max(id) FROM reject_sample) - ?1")?
            .execute([REJECT_SAMPLES])?;
    }
    Ok(())
}
