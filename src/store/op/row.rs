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
    desk: i64,
    state: DeliveryState,
    severity: i64,
    attempts: i64,
) -> i64 {
    crc(&[ticket, desk, severity, attempts], &[state.as_str().as_bytes()])
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

/// A ticket that is still to be made.
pub(super) struct NewTicket<'a> {
    pub(super) alert_id: i64,
    pub(super) route_id: i64,
    pub(super) generation: Generation,
    pub(super) rule: &'a str,
}

pub(super) fn insert_ticket(tx: &Tx<'_>, new: &NewTicket<'_>) -> Result<i64, StoreError> {
    let state = TicketState::Opening;
    tx.conn
        .prepare_cached(
            "INSERT INTO ticket (alert_id, route_id, generation, state, rule, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            new.alert_id,
            new.route_id,
            new.generation.0,
            state.as_str(),
            new.rule,
            ticket_crc(new.alert_id, new.route_id, new.generation, state, "")
        ])?;
    Ok(tx.conn.last_insert_rowid())
}

/// Puts "open this ticket" into the outbox.
pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    ticket: i64,
    (desk_id, route_id): (i64, i64),
    desk: &str,
    severity: i64,
    now: i64,
) -> Result<(), StoreError> {
    let state = DeliveryState::Pending;
    tx.conn
        .prepare_cached(
            "INSERT INTO delivery (payload, ticket_id, desk_id, route_id, state, severity, created_at, due_at, crc)
             VALUES (?1, ?2, ?3, ?8, ?4, ?5, ?6, ?6, ?7)",
        )?
        .execute(params![
            Payload::OpenTicket.as_str(),
            ticket,
            desk_id,
            state.as_str(),
            severity,
            now,
            delivery_crc(ticket, desk_id, state, severity, 0),
            route_id
        ])?;
    tx.count(&desk_scope(desk), state.as_str(), 1);
    Ok(())
}

pub(super) fn desk_scope(desk: &str) -> String {
    format!("desk:{desk}")
}

pub(super) fn source_scope(source: &str) -> String {
    format!("source:{source}")
}
