//! Findings seen for the first time: their rows, many to a statement. Used by `record`.
//!
//! A statement has a price of its own, whatever the number of its rows: the counter of AUTOINCREMENT is read and written. Row by row that was half of the store's time for an alert.
//! Ids within a statement follow each other (AUTOINCREMENT, one writer); this is checked, because tickets and packs are
//! made of them.

use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use super::plan::{self, Plan};
use super::record::{Entry, Recorded, Routed, Sighting, deliver};
use super::row::{AlertCrc, KEPT, destination_scope, insert};
use super::{storm, turn};
use crate::model::life::Lives;
use crate::model::{DeliveryKind, DeliveryState, Fingerprint};
use crate::store::StoreError;
use crate::store::pack::body::Packer;
use crate::store::session::Tx;
use crate::store::turns::Told;

/// Findings that are gathered.
const GATHERED: usize = 64;

/// Findings of one record that are still to be inserted.
pub(super) struct Fresh<'r> {
    source_id: i64,
    now: i64,
    lives: &'r Lives,
    entries: Vec<&'r Entry>,
}

/// What an entry waits for by itself, and which of its routes that is.
struct Planned<'r> {
    plan: Plan,
    turn: i64,
    routed: &'r Routed,
}

impl<'r> Fresh<'r> {
    pub(super) fn new(source_id: i64, now: i64, lives: &'r Lives) -> Self {
        Self { source_id, now, lives, entries: Vec::with_capacity(GATHERED) }
    }

    /// Whether no more should be gathered.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= GATHERED
    }

    /// Whether this finding is among them.
    pub(super) fn holds(&self, fingerprint: &Fingerprint) -> bool {
        self.entries.iter().any(|entry| entry.fingerprint == *fingerprint)
    }

    pub(super) fn add(&mut self, entry: &'r Entry) {
        self.entries.push(entry);
    }

    /// Inserts them with what they wait for, and puts their bodies into packs.
    pub(super) fn write(
        &mut self,
        tx: &mut Tx<'_>,
        packer: &mut Packer,
        sums: &mut Recorded,
    ) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut self.entries);
        if entries.is_empty() {
            return Ok(());
        }
        let planned = self.plan(tx, &entries, sums)?;
        let first = self.insert_alerts(tx.conn, &entries, &planned)?;
        for ((entry, planned), id) in entries.iter().zip(&planned).zip(first..) {
            tx.memory.index.add(tx.conn, &entry.fingerprint, id)?;
            packer.add(tx.conn, id, &entry.alert)?;
            sums.new += 1;
            sums.repeats += entry.occurrences - 1;
            let others =
                entry.routes.iter().filter(|r| !planned.as_ref().is_some_and(|p| std::ptr::eq(p.routed, *r)));
            for routed in others {
                let planned_on = planned.as_ref().map(|planned| planned.plan.route);
                let sighting = Sighting::of(entry, self.lives, planned_on);
                sums.deliveries += u64::from(deliver(tx, id, routed, &sighting, self.now)?);
            }
        }
        tx.count(KEPT, "alerts", entries.len() as i64);
        Ok(())
    }

    /// Plans what each of them waits for by itself: its first ticket that is nothing special.
    fn plan(
        &self,
        tx: &mut Tx<'_>,
        entries: &[&'r Entry],
        sums: &mut Recorded,
    ) -> Result<Vec<Option<Planned<'r>>>, StoreError> {
        let mut all: Vec<Option<Planned<'r>>> = Vec::with_capacity(entries.len());
        let mut last: Option<(&'r Routed, i64, i64)> = None;
        for entry in entries {
            let is_plain = |r: &&'r Routed| r.kind == DeliveryKind::OpenTicket && !self.is_by_itself(r);
            let Some(routed) = entry.routes.iter().find(is_plain) else {
                all.push(None);
                continue;
            };
            // Neighbours mostly go the same way.
            let (route, rule) = match last {
                Some((r, route, rule)) if r == routed => (route, rule),
                _ => {
                    let (_, route) = tx.route_id(routed.destination.as_str(), routed.table.as_str())?;
                    (route, tx.rule_id(routed.rule.as_str())?)
                }
            };
            last = Some((routed, route, rule));
            let told = Told::Finding(storm::kind(&entry.alert), &entry.alert.destination);
            let place = (route, entry.alert.severity as i64);
            let turn = turn::next(tx, place, routed.rule.as_str(), told)?;
            all.push(Some(Planned { plan: Plan { route, rule, id: 0 }, turn, routed }));
        }
        let number = all.iter().flatten().count();
        if number > 0 {
            let first = plan::reserve(tx.conn, number)?;
            all.iter_mut().flatten().zip(first..).for_each(|(planned, id)| planned.plan.id = id);
            tx.count(KEPT, plan::PLANNED, number as i64);
        }
        sums.deliveries += number as u64;
        let routed: Vec<&Routed> = all.iter().flatten().map(|planned| planned.routed).collect();
        for same in routed.chunk_by(|a, b| a.destination == b.destination) {
            let scope = destination_scope(same[0].destination.as_str());
            tx.count(&scope, DeliveryState::Pending.as_str(), same.len() as i64);
        }
        Ok(all)
    }

    /// Whether it may be one of a storm, or has something attached: then it is decided by itself.
    fn is_by_itself(&self, routed: &Routed) -> bool {
        let (rule, to, table) = (routed.rule.as_str(), routed.destination.as_str(), routed.table.as_str());
        self.lives.any_by_itself() && self.lives.of(rule, to, table).is_by_itself()
    }

    fn insert_alerts(
        &self,
        conn: &Connection,
        entries: &[&Entry],
        planned: &[Option<Planned<'_>>],
    ) -> Result<i64, StoreError> {
        let rows: Vec<[ToSqlOutput<'_>; 12]> = entries
            .iter()
            .zip(planned)
            .map(|(entry, planned)| {
                let planned = planned.as_ref();
                let row = AlertCrc {
                    fingerprint: *entry.fingerprint.as_bytes(),
                    severity: entry.alert.severity as i64,
                    first_seen_at: entry.alert.time.as_micros(),
                    last_seen_at: entry.last_seen_at.as_micros(),
                    occurrences: entry.occurrences as i64,
                    plan: planned.map(|planned| planned.plan),
                };
                let number = |n: Option<i64>| ToSqlOutput::Owned(n.map_or(Value::Null, Value::Integer));
                [
                    ToSqlOutput::Borrowed(ValueRef::Blob(entry.fingerprint.as_bytes())),
                    self.source_id.into(),
                    row.severity.into(),
                    row.first_seen_at.into(),
                    row.last_seen_at.into(),
                    self.now.into(),
                    row.occurrences.into(),
                    row.value().into(),
                    number(row.plan.map(|plan| plan.route)),
                    number(row.plan.map(|plan| plan.rule)),
                    number(planned.map(|planned| planned.turn)),
                    number(row.plan.map(|plan| plan.id)),
                ]
            })
            .collect();
        insert(
            conn,
            "INSERT INTO alert (fingerprint, source_id, severity, first_seen_at, last_seen_at, recorded_at, occurrences,
             crc, route_id, rule_id, turn, planned_id) VALUES ",
            "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            &rows,
        )?
        .ok_or_else(|| StoreError::Refused("ids of new rows do not follow each other".to_owned()))
    }
}
