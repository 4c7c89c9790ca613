//! A database was found damaged and made anew: the record of it, the deliveries that are made again, and whether the
//! alert about it has gone through the rules yet.

use rusqlite::{Connection, params};

use super::row::NewDelivery;
use crate::model::Timestamp;
use crate::store::handle::Operation;
use crate::store::rows::{REPAIR, RepairRow, repair};
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Healings that are kept.
const KEPT: i64 = 20;

struct Untold;

struct Told(Vec<i64>);

impl Store {
    /// Healings that no alert was made of yet, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn untold_repairs(&self) -> Result<Vec<(i64, RepairRow)>, StoreError> {
        self.call(Untold).await
    }

    /// Their alerts went through the rules.
    ///
    /// # Errors
    /// [`StoreError`]; they are told once more then, as the same finding.
    pub async fn repairs_told(&self, ids: Vec<i64>) -> Result<(), StoreError> {
        self.call(Told(ids)).await
    }
}

impl Operation for Untold {
    type Output = Vec<(i64, RepairRow)>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let mut select = tx.conn.prepare(&format!("{REPAIR} WHERE told = 0 ORDER BY id"))?;
        let rows = select.query_map([], |row| Ok((row.get(5)?, repair(row)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

impl Operation for Told {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let mut update = tx.conn.prepare_cached("UPDATE repair SET told = 1 WHERE id = ?1")?;
        self.0.iter().try_for_each(|id| update.execute([id]).map(|_| ()))?;
        Ok(())
    }
}

/// Writes the record of a healing.
pub(in crate::store) fn note(conn: &Connection, done: &RepairRow) -> Result<(), StoreError> {
    let counts = serde_json::to_string(&done.counts).map_err(|e| StoreError::Refused(e.to_string()))?;
    conn.execute(
        "INSERT INTO repair (at, kept_as, cause, counts, rewound) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![done.at.as_micros(), done.kept_as, done.cause, counts, done.rewound],
    )?;
    conn.execute("DELETE FROM repair WHERE id <= (SELECT max(id) FROM repair) - ?1", [KEPT])?;
    Ok(())
}

/// A ticket that is still to be opened and has no delivery any more gets one, doubtful. Gives how many.
pub(in crate::store) fn deliver_again(conn: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    // A record without its delivery is forgotten: its alert is told anew, and it is the same one there by its key.
    conn.execute(
        "DELETE FROM record WHERE id NOT IN (SELECT record_id FROM delivery WHERE record_id IS NOT NULL)",
        [],
    )?;
    let mut select = conn.prepare(
        "SELECT t.id, r.destination_id, t.route_id, a.severity FROM ticket t
         JOIN route r ON r.id = t.route_id JOIN alert a ON a.id = t.alert_id
         WHERE t.state = 'opening' AND NOT EXISTS (SELECT 1 FROM delivery d WHERE d.ticket_id = t.id)",
    )?;
    let orphans: Vec<(i64, i64, i64, i64)> = select
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
        .collect::<Result<_, _>>()?;
    for (turn, (ticket, destination_id, route_id, severity)) in (0..).zip(&orphans) {
        let opens = NewDelivery::opens(*ticket, now.as_micros());
        let again = NewDelivery {
            destination_id: *destination_id,
            route_id: *route_id,
            severity: *severity,
            // Their turns are gone: they stand behind each other, so that they delay nobody.
            turn,
            doubtful: true,
            ..opens
        };
        again.insert(conn)?;
    }
    Ok(orphans.len() as u64)
}
