//! Checksums of rows and the two inserts that several operations share.

use rusqlite::params;

use crate::model::{DeliveryState, Generation, Payload, TicketState};
use crate::store::StoreError;
use crate::store::session::Tx;

/// CRC-32C over numbers and bytes of a row. SQLite has no page checksums: a flipped bit in a row passes its integrity
/// check (docs/figures.md).
pub(in crate::store) fn crc(numbers: &[i64], bytes: &[&[u8]]) -> i64 {
    let mut sum = 0;
    for n in numbers {
        sum = crc32c::crc32c_append(sum, &n.to_le_bytes());
    }
    for b in bytes {
        sum = crc32c::crc32c_append(sum, &(b.len() as u64).to_le_bytes());
        sum = crc32c::crc32c_append(sum, b);
    }
    i64::from(sum)
}

pub(super) struct AlertCrc<'a> {
    pub(super) fingerprint: &'a [u8; 32],
    pub(super) severity: i64,
    pub(super) first_seen_at: i64,
    pub(super) last_seen_at: i64,
    pub(super) occurrences: i64,
}

impl AlertCrc<'_> {
    pub(super) fn value(&self) -> i64 {
        crc(&[self.severity, self.first_seen_at, self.last_seen_at, self.occurrences], &[self.fingerprint])
    }
}

pub(super) fn delivery_crc(
    ticket: i64,
    destination: i64,
    state: DeliveryState,
    severity: i64,
    attempts: i64,
) -> i64 {
    crc(&[ticket, destination, severity, attempts], &[state.as_str().as_bytes()])
}

pub(super) fn ticket_crc(
    alert: i64,
    route: i64,
    generation: Generation,
    state: TicketState,
    sys_id: &str,
) -> i64 {
    crc(&[alert, route, i64::from(generation.0)], &[state.as_str().as_bytes(), sys_id.as_bytes()])
}

/// What is written in a column that is still to come, so that the row does not grow when it is settled: a page of rows
/// that grow is split, and three pages are written for it. As long as `sys_id`, number and the times that replace it.
pub(super) const TICKET_FILL: &str = "                                                  ";
/// The same of a delivery's row; readers take a reason of blanks for none.
pub(super) const DELIVERY_FILL: &str = "            ";

/// A ticket that is still to be made.
pub(super) struct NewTicket<'a> {
    pub(super) alert_id: i64,
    pub(super) route_id: i64,
    pub(super) generation: Generation,
    pub(super) rule: &'a str,
}

pub(super) fn insert_ticket(tx: &mut Tx<'_>, new: &NewTicket<'_>) -> Result<i64, StoreError> {
    let state = TicketState::Opening;
    tx.conn
        .prepare_cached(
            "INSERT INTO ticket (alert_id, route_id, generation, state, rule, remote_state, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?6)",
        )?
        .execute(params![
            new.alert_id,
            new.route_id,
            new.generation.0,
            state.as_str(),
            new.rule,
            ticket_crc(new.alert_id, new.route_id, new.generation, state, ""),
            TICKET_FILL
        ])?;
    tx.count(KEPT, "tickets", 1);
    Ok(tx.conn.last_insert_rowid())
}

/// Puts "open this ticket" into the outbox.
pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    ticket: i64,
    (destination_id, route_id): (i64, i64),
    destination: &str,
    severity: i64,
    now: i64,
) -> Result<(), StoreError> {
    let state = DeliveryState::Pending;
    tx.conn
        .prepare_cached(
            "INSERT INTO delivery (payload, ticket_id, destination_id, route_id, state, severity, created_at, due_at, reason,
             crc) VALUES (?1, ?2, ?3, ?8, ?4, ?5, ?6, ?6, ?9, ?7)",
        )?
        .execute(params![
            Payload::OpenTicket.as_str(),
            ticket,
            destination_id,
            state.as_str(),
            severity,
            now,
            delivery_crc(ticket, destination_id, state, severity, 0),
            route_id,
            DELIVERY_FILL
        ])?;
    tx.count(&destination_scope(destination), state.as_str(), 1);
    tx.count(KEPT, "deliveries", 1);
    Ok(())
}

/// Scope of the counters of rows that are kept: `alerts`, `tickets`, `deliveries`. They say how many were lost when the
/// rows themselves cannot be read any more.
pub(super) const KEPT: &str = "store";

/// The counter of a state. What is claimed counts as pending: the reader counts the few that are claimed, and a claim
/// moves no counter.
pub(super) fn counter(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Claimed => DeliveryState::Pending.as_str(),
        state => state.as_str(),
    }
}

pub(super) fn destination_scope(destination: &str) -> String {
    format!("destination:{destination}")
}

pub(super) fn source_scope(source: &str) -> String {
    format!("source:{source}")
}
