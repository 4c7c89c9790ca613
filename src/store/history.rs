//! What the status page asks of the store beside lists and counters: the rings of its charts, and what waits by severity.
//! Cheap at any size. Blocking, like all of [`Reader`].

use rusqlite::params;

use super::rows::{COUNTED, HistoryPoint, Ring, WaitingRow};
use super::{Reader, StoreError};
use crate::model::{Severity, Timestamp};

/// What waits of a severity, at most `?2`, and the oldest of each table.
const WAITING: &str = "SELECT
     min(?2, (SELECT count(*) FROM (SELECT 1 FROM route k JOIN delivery d INDEXED BY delivery_due
        ON d.state = 'pending' AND d.route_id = k.id AND d.severity = ?1 LIMIT ?2))
      + (SELECT count(*) FROM (SELECT 1 FROM route k JOIN alert a INDEXED BY alert_planned
        ON a.route_id = k.id AND a.severity = ?1 LIMIT ?2))),
     (SELECT min(created_at) FROM (SELECT (SELECT d.created_at FROM delivery d INDEXED BY delivery_due
        WHERE d.state = 'pending' AND d.route_id = k.id AND d.severity = ?1 ORDER BY d.turn, d.id LIMIT 1) AS created_at
        FROM route k UNION ALL SELECT (SELECT a.recorded_at FROM alert a INDEXED BY alert_planned
        WHERE a.route_id = k.id AND a.severity = ?1 ORDER BY a.turn, a.planned_id LIMIT 1) FROM route k))";

impl Reader {
    /// A ring, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn history(&self, ring: Ring) -> Result<Vec<HistoryPoint>, StoreError> {
        let mut select =
            self.conn.prepare_cached("SELECT slot, counts FROM history WHERE ring = ?1 ORDER BY slot")?;
        let rows = select.query_map([ring.as_str()], |r| {
            let counts: String = r.get(1)?;
            // Written by us; a damaged one says nothing.
            Ok(HistoryPoint { slot: r.get(0)?, counts: serde_json::from_str(&counts).unwrap_or_default() })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What waits, the most severe first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn waiting(&self) -> Result<Vec<WaitingRow>, StoreError> {
        let mut select = self.conn.prepare_cached(WAITING)?;
        let mut all = Vec::with_capacity(Severity::ALL.len());
        for severity in Severity::ALL.into_iter().rev() {
            all.push(select.query_row(params![severity as i64, COUNTED], |r| {
                let oldest: Option<i64> = r.get(1)?;
                Ok(WaitingRow { severity, count: r.get(0)?, oldest_at: oldest.map(Timestamp::from_micros) })
            })?);
        }
        Ok(all)
    }
}
