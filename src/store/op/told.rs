//! What comes later of an event: it is told again under the same key when its finding was seen again, got worse, has ended,
//! or is back.
//!
//! Each time that is one more delivery of the same kind, made of what is so when it is sent. So one that still waits tells
//! whatever has come since; only the first always says that it was raised, and what got worse has a delivery of its own. A
//! restart finds the outbox as it was committed with the sighting, and what is sent twice is the same event there.

use rusqlite::params;

use super::row::{NewDelivery, insert_delivery};
use super::turn;
use crate::model::life::{Life, Lives, OnCleared};
use crate::model::{DeliveryKind, Timestamp};
use crate::store::StoreError;
use crate::store::session::Tx;
use crate::store::turns::Told;

/// A record and what was told of it.
struct Record {
    id: i64,
    alert_id: i64,
    rule: String,
    destination: String,
    table: String,
    destination_id: i64,
    route_id: i64,
    kind: DeliveryKind,
    /// Of the last delivery.
    seq: i64,
    /// The worst that is told, or waits to be.
    severity: i64,
    /// When it was last told.
    at: i64,
    /// Whether one waits that tells what is so by then.
    waits: bool,
}

/// The events of a finding: all, or the one on a route. One that nobody wants any more is left alone.
fn events(tx: &Tx<'_>, alert_id: i64, route_id: Option<i64>) -> Result<Vec<Record>, StoreError> {
    let mut select = tx.conn.prepare_cached(
        "SELECT c.id, c.rule, k.name, r.table_name, k.id, c.route_id, max(d.seq), max(d.severity),
                max(coalesce(d.settled_at, d.created_at)), max(d.state = 'pending' AND d.seq > 1)
         FROM record c JOIN delivery d ON d.record_id = c.id JOIN route r ON r.id = c.route_id
         JOIN destination k ON k.id = r.destination_id
         WHERE c.alert_id = ?1 AND (?2 IS NULL OR c.route_id = ?2) AND c.state <> 'withdrawn' AND d.kind = ?3
         GROUP BY c.id",
    )?;
    let kind = DeliveryKind::PutEvent;
    let all = select.query_map(params![alert_id, route_id, kind.as_str()], |r| {
        Ok(Record {
            id: r.get(0)?,
            alert_id,
            rule: r.get(1)?,
            destination: r.get(2)?,
            table: r.get(3)?,
            destination_id: r.get(4)?,
            route_id: r.get(5)?,
            kind,
            seq: r.get(6)?,
            severity: r.get(7)?,
            at: r.get(8)?,
            waits: r.get(9)?,
        })
    })?;
    Ok(all.collect::<Result<_, _>>()?)
}

/// Puts one more delivery of it into the outbox, unless one waits that will tell the same.
fn tell(tx: &mut Tx<'_>, event: &Record, severity: i64, now: i64) -> Result<bool, StoreError> {
    if event.waits && severity <= event.severity {
        return Ok(false);
    }
    let severity = severity.max(event.severity);
    let turn = turn::next(tx, (event.route_id, severity), &event.rule, Told::Later(event.alert_id))?;
    let (destination_id, route_id, seq) = (event.destination_id, event.route_id, event.seq + 1);
    let puts = NewDelivery::puts(event.kind, event.id, now);
    let new = NewDelivery { seq, destination_id, route_id, severity, turn, ..puts };
    insert_delivery(tx, &new, &event.destination)?;
    Ok(true)
}

/// A finding was seen again: that is told when the last word on it is old enough, and at once when it got worse.
pub(super) fn seen_again(
    tx: &mut Tx<'_>,
    (alert_id, route_id): (i64, i64),
    life: Life,
    severity: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let Some(event) = events(tx, alert_id, Some(route_id))?.pop() else { return Ok(false) };
    let due = Timestamp::from_micros(event.at).after(life.update_interval).as_micros();
    // A clock that was ahead when it was told must not silence it.
    let is_due = !life.update_interval.is_zero() && (now >= due || now < event.at);
    Ok((severity > event.severity || is_due) && tell(tx, &event, severity, now)?)
}

/// A finding has ended, or is there again: how many deliveries that made.
pub(super) fn turned(tx: &mut Tx<'_>, alert_id: i64, lives: &Lives, now: i64) -> Result<u64, StoreError> {
    let mut added = 0;
    for event in events(tx, alert_id, None)? {
        let life = lives.of(&event.rule, &event.destination, &event.table);
        if life.on_cleared != OnCleared::None {
            added += u64::from(tell(tx, &event, 0, now)?);
        }
    }
    Ok(added)
}
