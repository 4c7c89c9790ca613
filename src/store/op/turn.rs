//! The turn of a delivery that is about to be put into the outbox (`store/turns.rs`). A start begins at the first turn
//! that waits.

use crate::store::StoreError;
use crate::store::session::Tx;
use crate::store::turns::Told;

/// The first turn that waits of a table and severity.
pub(in crate::store) const FIRST: &str = "SELECT min(turn) FROM (
     SELECT (SELECT turn FROM delivery INDEXED BY delivery_due
             WHERE state = 'pending' AND route_id = ?1 AND severity = ?2 ORDER BY turn LIMIT 1) AS turn
     UNION ALL
     SELECT (SELECT turn FROM alert INDEXED BY alert_planned
             WHERE route_id = ?1 AND severity = ?2 ORDER BY turn LIMIT 1))";

/// The next turn of what a rule tells there.
pub(super) fn next(
    tx: &mut Tx<'_>,
    place: (i64, i64),
    rule: &str,
    told: Told<'_>,
) -> Result<i64, StoreError> {
    if let Some(turn) = tx.memory.turns.next(place, rule, told) {
        return Ok(turn);
    }
    let first: Option<i64> = tx.conn.prepare_cached(FIRST)?.query_row([place.0, place.1], |r| r.get(0))?;
    let first = first.unwrap_or_default();
    tx.memory.turns.begin(place, first);
    Ok(tx.memory.turns.next(place, rule, told).unwrap_or(first))
}
