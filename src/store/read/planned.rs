//! What is planned and not written out (`op/plan.rs`), as the lists show it: like the rows that it will be.

use std::cmp::Ordering;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::{Row, Rows};

use super::{Reader, Result};

/// With fewer of them all are sorted, otherwise the alerts are gone through from the newest: among many alerts a few
/// planned ones would be looked for long, and many take memory.
const FEW: i64 = 10_000;

macro_rules! from {
    ($index:literal) => {
        concat!(
            " FROM alert a ",
            $index,
            " JOIN route r ON r.id = a.route_id JOIN destination k ON k.id = r.destination_id
             LEFT JOIN rule u ON u.id = a.rule_id JOIN source s ON s.id = a.source_id WHERE a.route_id IS NOT NULL"
        )
    };
}

/// Columns of a ticket's row, as in `TICKET`.
const TICKET: &str =
    "SELECT a.planned_id, k.name, r.table_name, '', '', 'opening', 0, coalesce(u.name, ''), NULL, a.severity,
     a.occurrences, a.fingerprint, a.id, '', '', ''";

/// A delivery's row, as in `DELIVERY`.
pub(super) const DELIVERY: &str = concat!(
    "SELECT a.planned_id, 'open-ticket', 'pending', k.name, r.table_name, a.severity, 0, 0, a.recorded_at, a.recorded_at, NULL,
     coalesce(u.name, ''), a.id, NULL, a.turn",
    from!("INDEXED BY alert_planned")
);

/// The same of one alert.
pub(super) fn of_alert() -> String {
    format!("{} AND a.id = ?1", DELIVERY.replace("INDEXED BY alert_planned", "NOT INDEXED"))
}

/// The first of a table in the order of the outbox, as in `FIRST_PENDING`.
pub(in crate::store) const FIRST: &str =
    "SELECT severity, turn, planned_id, id FROM alert INDEXED BY alert_planned
     WHERE route_id = ?1 AND severity >= ?2
       AND (severity < ?4 OR severity = ?4 AND (turn > ?5 OR turn = ?5 AND planned_id > ?6))
     ORDER BY severity DESC, turn, planned_id LIMIT ?3";

/// When the first and the second turn of each table and severity were taken in, as in `OLDEST`.
pub(in crate::store) const OLDEST: &str = "SELECT min(created_at) FROM (
     SELECT (SELECT a.recorded_at FROM alert a INDEXED BY alert_planned WHERE a.route_id = k.id
               AND a.severity = s.column1 ORDER BY a.turn, a.planned_id LIMIT 1) AS created_at
     FROM route k, (VALUES (0), (1), (2), (3)) s
     UNION ALL
     SELECT (SELECT a.recorded_at FROM alert a INDEXED BY alert_planned WHERE a.route_id = k.id
               AND a.severity = s.column1 AND a.turn > (SELECT e.turn FROM alert e INDEXED BY alert_planned
                 WHERE e.route_id = k.id AND e.severity = s.column1 ORDER BY e.turn LIMIT 1)
               ORDER BY a.turn, a.planned_id LIMIT 1)
     FROM route k, (VALUES (0), (1), (2), (3)) s)";

impl Reader {
    /// Their tickets, newest first: as many as `limit`, below a number, of a severity and source, seen since. Numbers are
    /// given in the order of the alerts.
    pub(super) fn planned_tickets(&self) -> Result<String> {
        let sql =
            "SELECT coalesce((SELECT value FROM counter WHERE scope = 'store' AND name = 'planned'), 0)";
        let planned: i64 = self.conn.query_row(sql, [], |r| r.get(0))?;
        let (from, order) = if planned < FEW {
            (from!("INDEXED BY alert_planned"), "a.planned_id")
        } else {
            (from!("NOT INDEXED"), "a.id")
        };
        Ok(format!(
            "{TICKET}{from} AND a.severity >= ?1 AND (?2 IS NULL OR ?2 = 'opening') AND a.planned_id < ?4
             AND (?5 IS NULL OR s.name = ?5) AND a.last_seen_at >= ?6 AND ?7 IS NULL ORDER BY {order} DESC LIMIT ?3"
        ))
    }
}

/// Goes through the rows of both in one order, until `each` wants no more.
pub(super) fn merged(
    (mut a, mut b): (Rows<'_>, Rows<'_>),
    order: impl Fn(&Row<'_>, &Row<'_>) -> rusqlite::Result<Ordering>,
    mut each: impl FnMut(&Row<'_>) -> Result<bool>,
) -> Result<()> {
    a.advance()?;
    b.advance()?;
    loop {
        let is_a = match (a.get(), b.get()) {
            (None, None) => return Ok(()),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(x), Some(y)) => order(x, y)?.is_le(),
        };
        let rows = if is_a { &mut a } else { &mut b };
        if let Some(row) = rows.get()
            && !each(row)?
        {
            return Ok(());
        }
        rows.advance()?;
    }
}
