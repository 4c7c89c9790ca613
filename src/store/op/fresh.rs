//! Findings seen for the first time: their rows, many to a statement. Used by `record`.
//!
//! A statement has a price of its own, whatever the number of its rows: the counter of AUTOINCREMENT is read and written. Row by row that was half of the store's time for an alert.
//! Ids within a statement follow each other (AUTOINCREMENT, one writer); this is checked, because tickets and packs are
//! made of them.

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql};

use super::record::{Entry, Recorded, Routed, Sighting, deliver};
use super::row::{
    AlertCrc, DELIVERY_ROW, INSERT_DELIVERY, KEPT, NewDelivery, TICKET_FILL, counter, destination_scope,
    ticket_crc,
};
use super::{storm, turn};
use crate::model::life::Lives;
use crate::model::{DeliveryKind, DeliveryState, Fingerprint, Generation, TicketState};
use crate::store::StoreError;
use crate::store::pack::body::Packer;
use crate::store::session::Tx;
use crate::store::turns::Told;

/// Numbers of rows to a statement, largest first; each is a prepared statement of its own.
const ROWS: [usize; 4] = [64, 16, 4, 1];
/// Findings that are gathered.
const GATHERED: usize = 64;

/// Findings of one record that are still to be inserted.
pub(super) struct Fresh<'r> {
    source_id: i64,
    now: i64,
    lives: &'r Lives,
    entries: Vec<&'r Entry>,
}

/// A ticket to be inserted, with what its delivery needs.
struct Ticket<'r> {
    alert: i64,
    destination: i64,
    route: i64,
    severity: i64,
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

    /// Inserts them with their tickets and deliveries, and puts their bodies into packs.
    pub(super) fn write(
        &mut self,
        tx: &mut Tx<'_>,
        packer: &mut Packer,
        sums: &mut Recorded,
    ) -> Result<(), StoreError> {
        let entries = std::mem::take(&mut self.entries);
        let first = self.insert_alerts(tx.conn, &entries)?;
        let mut tickets: Vec<Ticket<'_>> = Vec::with_capacity(entries.len());
        let mut others: Vec<(i64, &Entry, &Routed)> = Vec::new();
        for (entry, id) in entries.iter().zip(first..) {
            tx.memory.index.add(tx.conn, &entry.fingerprint, id)?;
            packer.add(tx.conn, id, &entry.alert)?;
            for routed in &entry.routes {
                if routed.kind != DeliveryKind::OpenTicket || self.is_by_itself(routed) {
                    others.push((id, entry, routed));
                    continue;
                }
                let (destination, route) = match tickets.last() {
                    Some(t)
                        if t.routed.destination == routed.destination && t.routed.table == routed.table =>
                    {
                        (t.destination, t.route)
                    }
                    _ => tx.route_id(routed.destination.as_str(), routed.table.as_str())?,
                };
                let severity = entry.alert.severity as i64;
                let told = Told::Finding(storm::kind(&entry.alert), &entry.alert.destination);
                let turn = turn::next(tx, (route, severity), routed.rule.as_str(), told)?;
                tickets.push(Ticket { alert: id, destination, route, severity, turn, routed });
            }
            sums.new += 1;
            sums.repeats += entry.occurrences - 1;
        }
        sums.deliveries += tickets.len() as u64;
        tx.count(KEPT, "alerts", entries.len() as i64);
        tx.count(KEPT, "tickets", tickets.len() as i64);
        tx.count(KEPT, "deliveries", tickets.len() as i64);
        let first = insert_tickets(tx.conn, &tickets)?;
        insert_deliveries(tx.conn, &tickets, first, self.now)?;
        for of_destination in tickets.chunk_by(|a, b| a.routed.destination == b.routed.destination) {
            let scope = destination_scope(of_destination[0].routed.destination.as_str());
            tx.count(&scope, counter(DeliveryState::Pending), of_destination.len() as i64);
        }
        for (id, entry, routed) in others {
            let sighting = Sighting::of(entry, self.lives);
            sums.deliveries += u64::from(deliver(tx, id, routed, &sighting, self.now)?);
        }
        Ok(())
    }

    /// Whether it may be one of a storm, or has something attached: then it is decided by itself.
    fn is_by_itself(&self, routed: &Routed) -> bool {
        let (rule, to, table) = (routed.rule.as_str(), routed.destination.as_str(), routed.table.as_str());
        self.lives.any_by_itself() && self.lives.of(rule, to, table).is_by_itself()
    }

    fn insert_alerts(&self, conn: &Connection, entries: &[&Entry]) -> Result<i64, StoreError> {
        let rows: Vec<[ToSqlOutput<'_>; 8]> = entries
            .iter()
            .map(|entry| {
                let row = AlertCrc {
                    fingerprint: entry.fingerprint.as_bytes(),
                    severity: entry.alert.severity as i64,
                    first_seen_at: entry.alert.time.as_micros(),
                    last_seen_at: entry.last_seen_at.as_micros(),
                    occurrences: entry.occurrences as i64,
                };
                [
                    ToSqlOutput::Borrowed(ValueRef::Blob(row.fingerprint)),
                    self.source_id.into(),
                    row.severity.into(),
                    row.first_seen_at.into(),
                    row.last_seen_at.into(),
                    self.now.into(),
                    row.occurrences.into(),
                    row.value().into(),
                ]
            })
            .collect();
        insert(
            conn,
            "INSERT INTO alert (fingerprint, source_id, severity, first_seen_at, last_seen_at, recorded_at, occurrences,
             crc) VALUES ",
            "(?, ?, ?, ?, ?, ?, ?, ?)",
            &rows,
        )
    }
}

fn insert_tickets(conn: &Connection, tickets: &[Ticket<'_>]) -> Result<i64, StoreError> {
    let (generation, state) = (Generation(0), TicketState::Opening);
    let rows: Vec<[ToSqlOutput<'_>; 7]> = tickets
        .iter()
        .map(|t| {
            [
                t.alert.into(),
                t.route.into(),
                i64::from(generation.0).into(),
                state.as_str().into(),
                t.routed.rule.as_str().into(),
                TICKET_FILL.into(),
                ticket_crc(t.alert, t.route, generation, state, "").into(),
            ]
        })
        .collect();
    insert(
        conn,
        "INSERT INTO ticket (alert_id, route_id, generation, state, rule, remote_state, crc) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?)",
        &rows,
    )
}

fn insert_deliveries(
    conn: &Connection,
    tickets: &[Ticket<'_>],
    first_ticket: i64,
    now: i64,
) -> Result<(), StoreError> {
    let opens = |(t, ticket): (&Ticket<'_>, i64)| NewDelivery {
        destination_id: t.destination,
        route_id: t.route,
        severity: t.severity,
        turn: t.turn,
        ..NewDelivery::opens(ticket, now)
    };
    let rows: Vec<_> = tickets.iter().zip(first_ticket..).map(opens).map(|new| new.values()).collect();
    insert(conn, INSERT_DELIVERY, DELIVERY_ROW, &rows).map(|_| ())
}

/// Inserts rows and gives the id of the first; the others follow it.
fn insert<const COLUMNS: usize>(
    conn: &Connection,
    head: &str,
    row: &str,
    rows: &[[ToSqlOutput<'_>; COLUMNS]],
) -> Result<i64, StoreError> {
    let mut first = None;
    let mut left = rows;
    while !left.is_empty() {
        let size = ROWS.into_iter().find(|size| *size <= left.len()).unwrap_or(1);
        let (now, later) = left.split_at(size);
        let mut statement = conn.prepare_cached(&format!("{head}{}", vec![row; size].join(", ")))?;
        for (at, value) in now.as_flattened().iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value as &dyn ToSql)?;
        }
        statement.raw_execute()?;
        let begin = conn.last_insert_rowid() + 1 - size as i64;
        if *first.get_or_insert(begin) + (rows.len() - left.len()) as i64 != begin {
            return Err(StoreError::Refused("ids of new rows do not follow each other".to_owned()));
        }
        left = later;
    }
    Ok(first.unwrap_or_default())
}
