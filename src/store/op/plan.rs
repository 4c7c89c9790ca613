//! Tickets that are planned and not written out yet: all that most findings of a burst will ever need of the outbox.
//!
//! A new finding that a rule wants as one ticket says so in its own row: where to, by which rule, its turn, and the
//! number that its ticket and its delivery will have. The rows of these two are made when they are claimed, so a burst
//! costs what its alerts cost. In every other respect it is a pending delivery: it is counted, listed, dropped and
//! withdrawn as one. Whoever does something to such a delivery or needs its ticket has it written out first, in the same
//! transaction; so a power cut finds the one or the other, and never both.
//!
//! What may be one of a storm, or has something attached, is written at once (`record.rs`), and so are the tickets of a
//! finding but the first.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::Routed;
use super::row::{
    DELIVERY_ROW, INSERT_DELIVERY, KEPT, KeptAlert, NewDelivery, TICKET_FILL, destination_scope, insert,
    ticket_crc,
};
use super::turn;
use crate::model::{DeliveryId, DeliveryState, Generation, TicketState};
use crate::store::StoreError;
use crate::store::session::{Tx, add_to_counter};
use crate::store::turns::Told;

/// Counter of what is planned, beside those of the rows that are there.
pub(in crate::store) const PLANNED: &str = "planned";
/// Room that is kept for what is planned, in bytes each, beside the name of its rule: its rows in two tables and three
/// indexes.
pub(in crate::store) const ROOM: u64 = 320;
/// Rows that are written out at once where nobody waits for a few.
const STEP: i64 = 500;

/// Where a planned ticket goes, as it stands in the row of its finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) route: i64,
    pub(super) rule: i64,
    /// Of the ticket and of its delivery.
    pub(super) id: i64,
}

impl Plan {
    /// From the columns `route_id`, `rule_id`, `planned_id` of a row, the first of them `at`.
    pub(super) fn read(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Self>> {
        let route: Option<i64> = row.get(at)?;
        let rule: Option<i64> = row.get(at + 1)?;
        let id: Option<i64> = row.get(at + 2)?;
        // One of which a part is missing is not what was written, and its checksum says so.
        Ok(route.or(rule).or(id).map(|_| Self {
            route: route.unwrap_or_default(),
            rule: rule.unwrap_or_default(),
            id: id.unwrap_or_default(),
        }))
    }
}

/// Bytes that are kept for all that is planned: it is still to be written out, each with the name of its rule.
pub(super) fn room(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let planned = tx.counted(KEPT, PLANNED)?.max(0) as u64;
    if planned == 0 {
        return Ok(0);
    }
    let name: i64 = tx
        .conn
        .prepare_cached("SELECT coalesce(max(octet_length(name)), 0) FROM rule")?
        .query_row([], |r| r.get(0))?;
    Ok(planned * (ROOM + name.max(0) as u64))
}

/// Keeps so many numbers free in both tables; gives the first.
pub(super) fn reserve(conn: &Connection, number: usize) -> Result<i64, StoreError> {
    let of_both = "name IN ('ticket', 'delivery')";
    let last: i64 = conn
        .prepare_cached(&format!("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE {of_both}"))?
        .query_row([], |r| r.get(0))?;
    let top = last + number as i64;
    let set = conn
        .prepare_cached(&format!("UPDATE sqlite_sequence SET seq = ?1 WHERE {of_both}"))?
        .execute([top])?;
    if set < 2 {
        // The first migration put both in; without one of them numbers would be given twice.
        conn.execute(&format!("DELETE FROM sqlite_sequence WHERE {of_both}"), [])?;
        conn.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('ticket', ?1), ('delivery', ?1)",
            [top],
        )?;
    }
    Ok(last + 1)
}

/// A planned ticket with all that its rows are made of.
pub(super) struct Planned {
    alert: i64,
    pub(super) plan: Plan,
    destination: i64,
    rule: String,
    pub(super) severity: i64,
    pub(super) turn: i64,
    recorded_at: i64,
    /// What the row of its finding is without it.
    crc: i64,
}

/// What is planned, by this index, of which this holds.
fn select(index: &str, which: &str) -> String {
    format!(
        "SELECT a.id, r.destination_id, coalesce(u.name, ''), a.turn, a.recorded_at, {} FROM alert a {index}
         JOIN route r ON r.id = a.route_id LEFT JOIN rule u ON u.id = a.rule_id WHERE a.route_id IS NOT NULL {which}",
        KeptAlert::COLUMNS
    )
}

const IN_ORDER: &str = "INDEXED BY alert_planned";

fn planned(row: &Row<'_>) -> rusqlite::Result<Planned> {
    let mut finding = KeptAlert::read(row, 5)?;
    let plan = finding.row.plan.take();
    Ok(Planned {
        alert: row.get(0)?,
        plan: plan.unwrap_or_default(),
        destination: row.get(1)?,
        // As bytes: a flipped bit may leave no valid text; the name is looked at when it is claimed.
        rule: String::from_utf8_lossy(row.get_ref(2)?.as_bytes()?).into_owned(),
        severity: finding.row.severity,
        // Not in the checksum: an order is never worth more than what is in it.
        turn: row.get::<_, Option<i64>>(3)?.unwrap_or_default(),
        recorded_at: row.get(4)?,
        // Of a row that is not what was written it stays wrong: that is told when it is claimed.
        crc: finding.crc(),
    })
}

fn ask(conn: &Connection, sql: &str, with: impl rusqlite::Params) -> Result<Vec<Planned>, StoreError> {
    let mut select = conn.prepare_cached(sql)?;
    let rows = select.query_map(with, planned)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first of a table in the order of the outbox: which, lowest severity, how many.
pub(in crate::store) fn first() -> String {
    select(
        IN_ORDER,
        "AND a.route_id = ?1 AND a.severity >= ?2 ORDER BY a.severity DESC, a.turn, a.planned_id LIMIT ?3",
    )
}

/// What of a table would be claimed first.
pub(super) fn first_of(
    tx: &Tx<'_>,
    route: i64,
    min_severity: i64,
    limit: i64,
) -> Result<Vec<Planned>, StoreError> {
    ask(tx.conn, &first(), params![route, min_severity, limit])
}

/// Writes out that of a finding, if there is one.
pub(super) fn write_of(tx: &mut Tx<'_>, alert: i64) -> Result<(), StoreError> {
    let of = ask(tx.conn, &select("NOT INDEXED", "AND a.id = ?1"), [alert])?;
    write(tx, &of, DeliveryState::Pending)
}

/// Writes out the delivery of this number, if it is planned.
pub(super) fn write_numbered(tx: &mut Tx<'_>, id: DeliveryId) -> Result<(), StoreError> {
    let of = ask(tx.conn, &select(IN_ORDER, "AND a.planned_id = ?1"), [id.0])?;
    write(tx, &of, DeliveryState::Pending)
}

/// Writes these out, their deliveries in this state.
pub(super) fn write(tx: &mut Tx<'_>, all: &[Planned], state: DeliveryState) -> Result<(), StoreError> {
    write_out(tx.conn, all, state)?;
    tx.count(KEPT, "tickets", all.len() as i64);
    tx.count(KEPT, "deliveries", all.len() as i64);
    tx.count(KEPT, PLANNED, -(all.len() as i64));
    Ok(())
}

/// Makes the rows. A planned one counts as pending already.
fn write_out(conn: &Connection, all: &[Planned], in_state: DeliveryState) -> Result<(), StoreError> {
    let (generation, state) = (Generation(0), TicketState::Opening);
    let tickets: Vec<_> = all
        .iter()
        .map(|p| {
            [
                p.plan.id.into(),
                p.alert.into(),
                p.plan.route.into(),
                i64::from(generation.0).into(),
                state.as_str().into(),
                p.rule.as_str().into(),
                TICKET_FILL.into(),
                ticket_crc(p.alert, p.plan.route, generation, state, "").into(),
            ]
        })
        .collect();
    let head =
        "INSERT INTO ticket (id, alert_id, route_id, generation, state, rule, remote_state, crc) VALUES ";
    insert(conn, head, "(?, ?, ?, ?, ?, ?, ?, ?)", &tickets)?;
    let opens = |p: &Planned| NewDelivery {
        id: Some(p.plan.id),
        state: in_state,
        destination_id: p.destination,
        route_id: p.plan.route,
        severity: p.severity,
        turn: p.turn,
        ..NewDelivery::opens(p.plan.id, p.recorded_at)
    };
    let deliveries: Vec<_> = all.iter().map(|p| opens(p).values()).collect();
    insert(conn, INSERT_DELIVERY, DELIVERY_ROW, &deliveries)?;
    all.iter().try_for_each(|p| clear(conn, p.alert, p.crc))
}

fn clear(conn: &Connection, alert: i64, crc: i64) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE alert SET route_id = NULL, rule_id = NULL, turn = NULL, planned_id = NULL, crc = ?2 WHERE id = ?1",
    )?
    .execute([alert, crc])?;
    Ok(())
}

/// Where the planned ticket of a finding goes: route, destination and table.
pub(super) fn place_of(tx: &Tx<'_>, alert: i64) -> Result<Option<(i64, String, String)>, StoreError> {
    Ok(tx
        .conn
        .prepare_cached(
            "SELECT a.route_id, k.name, r.table_name FROM alert a
             JOIN route r ON r.id = a.route_id JOIN destination k ON k.id = r.destination_id WHERE a.id = ?1",
        )?
        .query_row([alert], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?)
}

/// Another rule wants it now, in the same table.
pub(super) fn set_rule(tx: &mut Tx<'_>, alert: i64, rule: &str) -> Result<(), StoreError> {
    let rule = tx.rule_id(rule)?;
    if let Some((crc, _)) = anew(tx, alert, |plan| Plan { rule, ..plan })? {
        tx.conn
            .prepare_cached("UPDATE alert SET rule_id = ?2, crc = ?3 WHERE id = ?1 AND rule_id <> ?2")?
            .execute([alert, rule, crc])?;
    }
    Ok(())
}

/// It is wanted elsewhere now, and no longer at the destination `from`.
pub(super) fn move_to(
    tx: &mut Tx<'_>,
    alert: i64,
    from: &str,
    (routed, route): (&Routed, i64),
) -> Result<(), StoreError> {
    let rule = tx.rule_id(routed.rule.as_str())?;
    let Some((crc, severity)) = anew(tx, alert, |plan| Plan { route, rule, ..plan })? else { return Ok(()) };
    let turn = turn::next(tx, (route, severity), routed.rule.as_str(), Told::Later(alert))?;
    tx.conn
        .prepare_cached("UPDATE alert SET route_id = ?2, rule_id = ?3, turn = ?4, crc = ?5 WHERE id = ?1")?
        .execute([alert, route, rule, turn, crc])?;
    for (destination, by) in [(from, -1), (routed.destination.as_str(), 1)] {
        tx.count(&destination_scope(destination), DeliveryState::Pending.as_str(), by);
    }
    Ok(())
}

/// Checksum of a planned finding as it is with another plan, and its severity. Of one that is not what was written the
/// checksum stays wrong.
fn anew(tx: &Tx<'_>, alert: i64, other: impl Fn(Plan) -> Plan) -> Result<Option<(i64, i64)>, StoreError> {
    let sql =
        format!("SELECT {} FROM alert a WHERE a.id = ?1 AND a.route_id IS NOT NULL", KeptAlert::COLUMNS);
    let crc = tx.conn.prepare_cached(&sql)?.query_row([alert], |r| {
        let mut finding = KeptAlert::read(r, 0)?;
        finding.row.plan = finding.row.plan.map(&other);
        Ok((finding.crc(), finding.row.severity))
    });
    Ok(crc.optional()?)
}

/// A finding goes, and what is planned for it.
pub(super) fn forget(tx: &mut Tx<'_>, alert: i64) -> Result<(), StoreError> {
    if let Some((_, destination, _)) = place_of(tx, alert)? {
        tx.count(&destination_scope(&destination), DeliveryState::Pending.as_str(), -1);
        tx.count(KEPT, PLANNED, -1);
    }
    Ok(())
}

/// Writes out all that is planned of a database that was made of the rows of another one, by new numbers: it may be older
/// than what else is in it. What leads nowhere, or is a ticket already, is not planned any more; a finding without any
/// ticket goes through the rules again. Gives how many were written out.
pub(in crate::store) fn write_all(conn: &Connection) -> Result<u64, StoreError> {
    let lost = format!(
        "SELECT a.id, {} FROM alert a
         WHERE a.route_id IS NOT NULL AND (NOT EXISTS (SELECT 1 FROM route WHERE id = a.route_id)
           OR NOT EXISTS (SELECT 1 FROM rule WHERE id = a.rule_id)
           OR EXISTS (SELECT 1 FROM ticket t WHERE t.alert_id = a.id AND t.route_id = a.route_id)) LIMIT ?1",
        KeptAlert::COLUMNS
    );
    loop {
        let lost: Vec<(i64, i64)> = conn
            .prepare_cached(&lost)?
            .query_map([STEP], |r| {
                let mut finding = KeptAlert::read(r, 1)?;
                finding.row.plan = None;
                Ok((r.get(0)?, finding.crc()))
            })?
            .collect::<Result<_, _>>()?;
        if lost.is_empty() {
            break;
        }
        lost.into_iter().try_for_each(|(alert, crc)| clear(conn, alert, crc))?;
        // By that they go through the rules at the next start.
        conn.execute("DELETE FROM meta WHERE key = 'rules'", [])?;
    }
    let mut written = 0;
    loop {
        let mut some = ask(
            conn,
            &select(IN_ORDER, "ORDER BY a.route_id, a.severity DESC, a.turn, a.planned_id LIMIT ?1"),
            [STEP],
        )?;
        if some.is_empty() {
            break;
        }
        let first = reserve(conn, some.len())?;
        for (planned, id) in some.iter_mut().zip(first..) {
            planned.plan.id = id;
        }
        write_out(conn, &some, DeliveryState::Pending)?;
        for (name, by) in [("tickets", 1), ("deliveries", 1), (PLANNED, -1)] {
            add_to_counter(conn, KEPT, name, by * some.len() as i64)?;
        }
        written += some.len() as u64;
    }
    Ok(written)
}
