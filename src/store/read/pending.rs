//! What is pending, as the lists show it: rows of the outbox, and what is planned (`op/plan.rs`), which looks like the rows
//! that it will be.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::{Row, Rows, params};

use super::{DELIVERY, Reader, Result, behind, delivery, limit, severity};
use crate::model::Severity;
use crate::store::op::destination_state;
use crate::store::pack::body::Bodies;
use crate::store::rows::{DeliveryRow, ListFilter, Spent};

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

/// Columns of a ticket's row, as in `tickets_from`.
const TICKET: &str =
    "SELECT a.planned_id, k.name, r.table_name, '', '', 'opening', 0, coalesce(u.name, ''), NULL, a.severity,
     a.occurrences, a.fingerprint, a.id, '', '', '', ''";

macro_rules! deliveries {
    ($index:literal, $which:literal) => {
        concat!(
            "SELECT a.planned_id, 'open-ticket', 'pending', k.name, r.table_name, a.severity, 0, 0, a.recorded_at,
             a.recorded_at, NULL, coalesce(u.name, ''), a.id, NULL, coalesce(a.turn, 0)",
            from!($index),
            $which
        )
    };
}

/// Deliveries' rows, as in `DELIVERY`.
pub(super) const PLANNED: &str = deliveries!("INDEXED BY alert_planned", "");
/// The same of one alert.
const PLANNED_OF: &str = deliveries!("NOT INDEXED", " AND a.id = ?1");

/// When the oldest that waits was made: the first of the first two turns of each table and severity, because that is
/// what the index of the outbox can tell. Whoever waits longest has one of them.
pub(in crate::store) const OLDEST: &str = "SELECT min(created_at) FROM (
     SELECT (SELECT d.created_at FROM delivery d WHERE d.state = 'pending' AND d.route_id = k.id
               AND d.severity = s.column1 ORDER BY d.turn, d.id LIMIT 1) AS created_at
     FROM route k, (VALUES (0), (1), (2), (3)) s
     UNION ALL
     SELECT (SELECT d.created_at FROM delivery d WHERE d.state = 'pending' AND d.route_id = k.id
               AND d.severity = s.column1 AND d.turn > (SELECT e.turn FROM delivery e WHERE e.state = 'pending'
                 AND e.route_id = k.id AND e.severity = s.column1 ORDER BY e.turn LIMIT 1)
               ORDER BY d.turn, d.id LIMIT 1)
     FROM route k, (VALUES (0), (1), (2), (3)) s)";

/// The first that wait of one table: which, lowest severity, how many.
pub(in crate::store) const FIRST_PENDING: &str =
    "SELECT severity, turn, id, NULL FROM delivery INDEXED BY delivery_due
     WHERE state = 'pending' AND route_id = ?1 AND severity >= ?2
       AND (severity < ?4 OR severity = ?4 AND (turn > ?5 OR turn = ?5 AND id > ?6))
     ORDER BY severity DESC, turn, id LIMIT ?3";

/// The first of a table in the order of the outbox, as in `FIRST_PENDING`.
pub(in crate::store) const FIRST_PLANNED: &str =
    "SELECT severity, coalesce(turn, 0), planned_id, id FROM alert INDEXED BY alert_planned
     WHERE route_id = ?1 AND severity >= ?2
       AND (severity < ?4 OR severity = ?4 AND (turn > ?5 OR turn = ?5 AND planned_id > ?6))
     ORDER BY severity DESC, turn, planned_id LIMIT ?3";

/// When the first and the second turn of each table and severity were taken in, as in `OLDEST`.
pub(in crate::store) const OLDEST_PLANNED: &str = "SELECT min(created_at) FROM (
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
    /// What would be due and waits for the next hour of its destination's budget says so.
    pub(super) fn wait_for_budgets(&self, rows: &mut [DeliveryRow]) -> Result<()> {
        let mut known: BTreeMap<String, Option<Spent>> = BTreeMap::new();
        for row in rows {
            if !known.contains_key(&row.destination) {
                let spent = destination_state::spent(&self.conn, &row.destination)?;
                known.insert(row.destination.clone(), spent);
            }
            let Some(Some(spent)) = known.get(&row.destination) else { continue };
            let goes_on = spent.critical_go_on && row.severity == Severity::Critical;
            if row.due_at < spent.until_at && !goes_on {
                row.due_at = spent.until_at;
                row.reason.get_or_insert_with(|| spent.reason.clone());
            }
        }
        Ok(())
    }

    /// The first that wait, merged from those of each table: the index of the outbox has them in order there, and to sort
    /// all that waits takes as long as all that waits.
    pub(super) fn next_pending(&self, filter: &ListFilter) -> Result<Vec<DeliveryRow>> {
        let _one_moment = self.conn.unchecked_transaction()?;
        let routes: Vec<i64> = self
            .conn
            .prepare_cached("SELECT id FROM route")?
            .query_map([], |r| r.get(0))?
            .collect::<std::result::Result<_, _>>()?;
        // With the alert, where it is planned.
        let mut order: Vec<(Reverse<i64>, i64, i64, Option<i64>)> = Vec::new();
        for sql in [FIRST_PENDING, FIRST_PLANNED] {
            let mut first = self.conn.prepare_cached(sql)?;
            for route in &routes {
                let (level, turn, id) = behind(filter);
                let rows = first
                    .query_map(params![route, severity(filter), limit(filter), level, turn, id], |r| {
                        Ok((Reverse(r.get(0)?), r.get(1)?, r.get(2)?, r.get(3)?))
                    })?;
                for row in rows {
                    order.push(row?);
                }
            }
        }
        order.sort_unstable();
        order.truncate(limit(filter) as usize);
        let mut select = self.conn.prepare_cached(&format!("{DELIVERY} WHERE d.id = ?1"))?;
        let mut planned = self.conn.prepare_cached(PLANNED_OF)?;
        let mut bodies = Bodies::of(&self.conn);
        let mut all = Vec::with_capacity(order.len());
        for (_, _, id, alert) in order {
            let mut rows = alert.map_or_else(|| select.query([id]), |alert| planned.query([alert]))?;
            // Gone since, where it was settled meanwhile.
            let Some(r) = rows.next()? else { continue };
            let alert = bodies.get(r.get(12)?)?;
            all.push(delivery(r, alert.as_ref())?);
        }
        Ok(all)
    }

    /// Tickets of what is planned, newest first: as many as `limit`, below a number, of a severity and source, seen since. Numbers are
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
