//! Every send has an outcome row; these are written, bounded and deleted here, for `claim`, `settle` and `prune`.
//!
//! The key is made of the delivery and the number of the attempt, so that what is settled together lies together: rows
//! are appended, and those of one delivery are a short range.

use rusqlite::params;

use crate::model::Timestamp;
use crate::model::text::clip;
use crate::store::StoreError;
use crate::store::session::Tx;

/// Attempts of one delivery that are kept; what came before is in its number.
const KEPT: i64 = 20;

/// What came of one send.
pub(super) struct Attempt<'a> {
    pub(super) delivery: i64,
    /// Which of this delivery, from 1.
    pub(super) n: i64,
    pub(super) started_at: Timestamp,
    pub(super) duration_ms: u64,
    pub(super) outcome: &'a str,
    pub(super) status: Option<u16>,
    /// The ticket's number, or the other side's words.
    pub(super) message: &'a str,
}

fn key(delivery: i64, n: i64) -> i64 {
    delivery * 32 + n % 32
}

/// Writes it, and takes the oldest away when there are too many.
pub(super) fn insert(tx: &Tx<'_>, attempt: &Attempt<'_>) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            // A row that is in the way has a key that is not its own any more; history stops no settlement.
            "INSERT OR REPLACE INTO outcome (id, n, started_at, duration_ms, outcome, status, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, nullif(?7, ''))",
        )?
        .execute(params![
            key(attempt.delivery, attempt.n),
            attempt.n,
            attempt.started_at.as_micros(),
            attempt.duration_ms as i64,
            attempt.outcome,
            attempt.status,
            clip(attempt.message, super::WORDS_MAX)
        ])?;
    let old = attempt.n - KEPT;
    if old > 0 {
        tx.conn.prepare_cached("DELETE FROM outcome WHERE id = ?1")?.execute([key(attempt.delivery, old)])?;
    }
    Ok(())
}

/// Deletes those of a delivery.
pub(super) fn forget(tx: &Tx<'_>, delivery: i64) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached("DELETE FROM outcome WHERE id BETWEEN ?1 * 32 AND ?1 * 32 + 31")?
        .execute([delivery])?;
    Ok(())
}
