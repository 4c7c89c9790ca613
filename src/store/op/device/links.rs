//! Which CI a ticket is about, also when its device comes later.
//!
//! A ticket that was opened before its device had a CI leaves what to look for in `unlinked`. Each sync of devices compares
//! that with what is there by then, and puts one delivery into the outbox for a ticket that is still open; so a restart
//! at any line links what is left.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, params};

use super::affected::find;
use crate::device::ends;
use crate::model::{Alert, DeliveryKind, DestinationName, Endpoint, TicketState, Timestamp};
use crate::store::handle::Operation;
use crate::store::op::life;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Rows that are compared in one transaction.
const STEP: i64 = 500;

/// What is known of the device that an alert is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its CI.
    pub ci: Option<String>,
    /// Without one: by what to look for it later.
    pub keys: Vec<String>,
    /// Where no devices are told: the ends of the alert that the other side is asked about.
    pub sought: Vec<Endpoint>,
}

struct Link {
    destination: DestinationName,
    after: i64,
    now: Timestamp,
}

impl Store {
    /// Makes deliveries that link open tickets to the CIs of their devices. Gives how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was made before it stays.
    pub async fn link_tickets(&self, destination: &DestinationName) -> Result<u64, StoreError> {
        let (mut made, mut after) = (0, Some(0));
        while let Some(from) = after {
            let now = self.shared.clock.now();
            let step;
            (step, after) = self.call(Link { destination: destination.clone(), after: from, now }).await?;
            made += step;
        }
        Ok(made)
    }
}

/// The CI of the device that an alert is about, or by what to wait for it. An end that is a known device decides, also where
/// that has no CI yet, or none of this destination: nobody else's is taken for it.
pub(in crate::store::op) fn about(
    tx: &Tx<'_>,
    destination_id: i64,
    alert_id: i64,
    alert: &Alert,
) -> Result<About, StoreError> {
    let source_id: Option<i64> = tx
        .conn
        .prepare_cached("SELECT source_id FROM alert WHERE id = ?1")?
        .query_row([alert_id], |r| r.get(0))
        .optional()?;
    let ends = ends::affected(alert);
    for end in &ends {
        let Some(found) = find(tx, source_id.unwrap_or_default(), end, alert.received_at)? else { continue };
        let Some(sys_id) = found.sys_id.filter(|_| found.told_to == Some(destination_id)) else { break };
        return Ok(About { ci: Some(sys_id), ..About::default() });
    }
    Ok(About { keys: ends.iter().flat_map(ends::waits_for).collect(), ..About::default() })
}

/// A ticket was opened without a CI.
pub(in crate::store::op) fn wait(tx: &Tx<'_>, ticket: i64, keys: &[String]) -> Result<(), StoreError> {
    for key in keys {
        tx.conn
            .prepare_cached("INSERT OR IGNORE INTO unlinked (value, ticket_id) VALUES (?1, ?2)")?
            .execute(params![key, ticket])?;
    }
    Ok(())
}

impl Operation for Link {
    type Output = (u64, Option<i64>);

    fn run(self, tx: &mut Tx<'_>) -> Result<(u64, Option<i64>), StoreError> {
        let destination_id = tx.destination_id(self.destination.as_str())?;
        let rows: Vec<(i64, i64, bool)> = tx
            .conn
            .prepare_cached(
                "SELECT u.id, u.ticket_id, EXISTS (SELECT 1 FROM device_key k JOIN device v ON v.id = k.device_id
                   WHERE k.value = u.value AND v.merged_into IS NULL AND v.sys_id IS NOT NULL AND v.told_to = ?2)
                 FROM unlinked u WHERE u.id > ?1 ORDER BY u.id LIMIT ?3",
            )?
            .query_map([self.after, destination_id, STEP], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let tickets: BTreeSet<i64> =
            rows.iter().filter(|(_, _, there)| *there).map(|(_, ticket, _)| *ticket).collect();
        let mut made = 0;
        for ticket in tickets {
            made += u64::from(link(tx, ticket, destination_id, self.now)?);
        }
        let next = rows.last().map(|(id, ..)| *id).filter(|_| rows.len() as i64 == STEP);
        Ok((made, next))
    }
}

/// One that is no longer open is told nothing any more.
fn link(tx: &mut Tx<'_>, ticket: i64, destination_id: i64, now: Timestamp) -> Result<bool, StoreError> {
    let row: Option<(String, i64, i64, i64)> = tx
        .conn
        .prepare_cached(
            "SELECT t.state, t.alert_id, a.severity, r.destination_id FROM ticket t JOIN alert a ON a.id = t.alert_id
             JOIN route r ON r.id = t.route_id WHERE t.id = ?1",
        )?
        .query_row([ticket], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
        .optional()?;
    let Some((state, alert_id, severity, own)) = row else { return Ok(false) };
    let state = TicketState::parse(&state);
    if own != destination_id || state == Some(TicketState::Opening) {
        return Ok(false);
    }
    let is_open = state == Some(TicketState::Open);
    if is_open {
        let Some(alert) = Bodies::of(tx.conn).get(alert_id)? else { return Ok(false) };
        if about(tx, destination_id, alert_id, &alert)?.ci.is_none() {
            return Ok(false);
        }
        life::add(tx, ticket, DeliveryKind::LinkDevice, severity, now.as_micros())?;
    }
    tx.conn.prepare_cached("DELETE FROM unlinked WHERE ticket_id = ?1")?.execute([ticket])?;
    Ok(is_open)
}
