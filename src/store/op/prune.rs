//! Making room: what was delivered long ago is forgotten; when the buffer is full, what `when_full` says.
//!
//! A finding whose ticket is still open may be forgotten too: its keys are derived, so its next sighting finds the
//! ticket again.

use rusqlite::params;

use super::row::desk_scope;
use crate::model::{DeliveryState, Fingerprint, Timestamp};
use crate::store::session::Tx;
use crate::store::writer::Operation;
use crate::store::{Store, StoreError, WhenFull};

/// Alerts in one step: bounds the transaction.
const STEP: i64 = 500;

struct Prune {
    before: Timestamp,
}

struct Shed;

/// How full the buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that the database may have.
    pub limit: u64,
}

impl Room {
    /// Whether so little is left that the policy has to act: more than nine tenths are in use.
    pub fn is_tight(&self) -> bool {
        self.used > self.limit / 10 * 9
    }
}

impl Store {
    /// Forgets findings whose deliveries were all settled, and that were not seen, since `keep_delivered` ago. One
    /// step; gives how many were forgotten.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let before = self.shared.clock.now().before(self.shared.settings.keep_delivered);
        self.call(Prune { before }).await
    }

    /// `when_full = "shed-lowest"`: when room is tight, forgets settled findings, oldest first, and where there are
    /// none, the oldest of the lowest severity that is still undelivered, counted as `shed`. One step.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shed(&self) -> Result<(Room, u64), StoreError> {
        self.call(Shed).await
    }
}

impl Store {
    /// Makes room by the policy until it is no longer tight, as far as the policy goes: with `refuse` only what was
    /// delivered long ago goes. Gives how many undelivered findings were given up.
    ///
    /// # Errors
    /// [`StoreError`] that is not passing.
    pub async fn make_room(&self) -> Result<u64, StoreError> {
        let mut given_up = 0;
        loop {
            let step = match self.shared.settings.when_full {
                WhenFull::Refuse => self.prune().await.map(|_| (Room::default(), 0)),
                WhenFull::ShedLowest => self.shed().await,
            };
            match step {
                Ok((room, shed)) => {
                    given_up += shed;
                    // Without an undelivered finding to give up, the last step made what room there was.
                    if !room.is_tight() || shed == 0 {
                        return Ok(given_up);
                    }
                }
                Err(e) if e.is_passing() => return Ok(given_up),
                Err(e) => return Err(e),
            }
        }
    }
}

pub(super) fn room(tx: &Tx<'_>) -> Result<Room, StoreError> {
    let get = |name: &str| tx.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (pages, free, most) = (get("page_count")?, get("freelist_count")?, get("max_page_count")?);
    Ok(Room { used: (pages - free) as u64 * 4096, limit: most as u64 * 4096 })
}

/// Nothing of it is waiting.
const SETTLED: &str = "NOT EXISTS (SELECT 1 FROM ticket t JOIN delivery d ON d.ticket_id = t.id
                       WHERE t.alert_id = a.id AND d.state IN ('pending', 'claimed', 'dead'))";

impl Operation for Prune {
    type Output = u64;

    fn run(self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        // Ids grow with time, so the oldest come first and the scan ends at the first young one.
        let ids = pick(
            tx,
            &format!(
                "SELECT a.id, a.fingerprint FROM (SELECT * FROM alert ORDER BY id LIMIT 20000) a
                 WHERE a.recorded_at < ?1 AND a.last_seen_at < ?1 AND {SETTLED} LIMIT ?2"
            ),
            self.before.as_micros(),
        )?;
        forget(tx, &ids)?;
        if !ids.is_empty() {
            tx.conn.execute_batch("PRAGMA incremental_vacuum(256)")?;
        }
        Ok(ids.len() as u64)
    }
}

impl Operation for Shed {
    type Output = (Room, u64);

    fn run(self, tx: &mut Tx<'_>) -> Result<(Room, u64), StoreError> {
        let now = room(tx)?;
        if !now.is_tight() {
            return Ok((now, 0));
        }
        let settled = pick(
            tx,
            &format!("SELECT a.id, a.fingerprint FROM alert a WHERE ?1 AND {SETTLED} ORDER BY a.id LIMIT ?2"),
            1,
        )?;
        if !settled.is_empty() {
            forget(tx, &settled)?;
            return Ok((room(tx)?, 0));
        }
        let lowest = pick(
            tx,
            "SELECT a.id, a.fingerprint FROM alert a
             WHERE ?1 AND a.severity = (SELECT min(severity) FROM alert)
               AND NOT EXISTS (SELECT 1 FROM ticket t JOIN delivery d ON d.ticket_id = t.id
                               WHERE t.alert_id = a.id AND d.state = 'claimed')
             ORDER BY a.id LIMIT ?2",
            1,
        )?;
        forget(tx, &lowest)?;
        tx.count("store", "shed", lowest.len() as i64);
        Ok((room(tx)?, lowest.len() as u64))
    }
}

fn pick(tx: &Tx<'_>, sql: &str, first: i64) -> Result<Vec<(i64, Fingerprint)>, StoreError> {
    let mut select = tx.conn.prepare_cached(sql)?;
    let rows =
        select.query_map(params![first, STEP], |r| Ok((r.get(0)?, Fingerprint::from_bytes(r.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes findings with all that hangs on them, and takes their deliveries out of the counters.
fn forget(tx: &mut Tx<'_>, ids: &[(i64, Fingerprint)]) -> Result<(), StoreError> {
    for (id, fingerprint) in ids {
        let gone: Vec<(String, String)> = tx
            .conn
            .prepare_cached(
                "SELECT k.name, d.state FROM ticket t JOIN delivery d ON d.ticket_id = t.id
                 JOIN desk k ON k.id = d.desk_id WHERE t.alert_id = ?1",
            )?
            .query_map([id], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (desk, state) in gone {
            // Delivered stays counted: it says what was done, not what is kept.
            if let Some(state @ (DeliveryState::Pending | DeliveryState::Dead)) = DeliveryState::parse(&state)
            {
                tx.count(&desk_scope(&desk), state.as_str(), -1);
            }
        }
        for sql in [
            "DELETE FROM attempt WHERE delivery_id IN
               (SELECT d.id FROM ticket t JOIN delivery d ON d.ticket_id = t.id WHERE t.alert_id = ?1)",
            "DELETE FROM delivery WHERE ticket_id IN (SELECT id FROM ticket WHERE alert_id = ?1)",
            "DELETE FROM ticket WHERE alert_id = ?1",
            "DELETE FROM alert_body WHERE alert_id = ?1",
            "DELETE FROM alert WHERE id = ?1",
        ] {
            tx.conn.prepare_cached(sql)?.execute([id])?;
        }
        tx.memory.index.remove(tx.conn, fingerprint, *id)?;
    }
    Ok(())
}
