//! What the counters were at the beginning of each half hour of a day and of each day of a month: two rings, for charts.
//!
//! A row is written with the first commit of its time that moves counters, so a quiet agent writes nothing, and a busy one
//! two small rows at most in half an hour. What came in between two rows is the difference of their counters.

use rusqlite::params;

use crate::model::Timestamp;
use crate::store::rows::Ring;
use crate::store::session::Tx;
use crate::store::{Counts, StoreError};

/// What a chart or a sum of the day may be made of.
const NOTED: &str = "SELECT scope, name, value FROM counter
     WHERE scope = 'severity' OR scope GLOB 'source:*' OR scope GLOB 'filtered:*' OR scope GLOB 'excluded:*'
        OR scope GLOB 'destination:*'";

/// Notes the counters as they are before this transaction, when its half hour or day has no row yet.
pub(in crate::store) fn note(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let slots = Ring::ALL.map(|ring| ring.slot(now));
    if tx.memory.noted == Some(slots) {
        return Ok(());
    }
    let mut counts = Counts::new();
    let mut select = tx.conn.prepare_cached(NOTED)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        counts.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
    }
    let counts = serde_json::to_string(&counts).map_err(|e| StoreError::Refused(e.to_string()))?;
    for (ring, slot) in Ring::ALL.into_iter().zip(slots) {
        tx.conn
            .prepare_cached("INSERT OR IGNORE INTO history (ring, slot, counts) VALUES (?1, ?2, ?3)")?
            .execute(params![ring.as_str(), slot, counts])?;
        // A row of the future is one of a wrong clock.
        tx.conn
            .prepare_cached("DELETE FROM history WHERE ring = ?1 AND (slot <= ?2 OR slot > ?3)")?
            .execute(params![ring.as_str(), slot - ring.kept(), slot])?;
    }
    tx.memory.noted = Some(slots);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::store::session::Session;
    use crate::store::{Reader, schema};

    use super::*;

    #[test]
    fn one_row_a_half_hour_and_no_more_than_the_ring_has() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join(crate::store::DATABASE), 64 << 20).unwrap();
        let mut session = Session::new(conn, 1_000).unwrap();
        // Two commits in each of 100 half hours.
        for at in (0..100 * 1800).step_by(900) {
            let work = |tx: &mut Tx<'_>| {
                note(tx, Timestamp::from_secs(1_000_000_800 + at))?;
                tx.count("severity", "minor", 1);
                Ok(())
            };
            session.transaction(work).unwrap();
        }
        let reader = Reader::open(dir.path()).unwrap();
        let points = reader.history(Ring::HalfHour).unwrap();
        assert_eq!(points.len(), Ring::HalfHour.kept() as usize);
        let seen: Vec<i64> = points.iter().map(|point| point.counts["severity"]["minor"]).collect();
        assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[1] - pair[0] == 2), "{seen:?}");
        let days = reader.history(Ring::Day).unwrap();
        assert_eq!(days.len(), 3);
        assert!(days[0].counts.is_empty(), "before anything was counted");
    }

    #[test]
    fn a_clock_that_is_set_back_takes_the_rows_of_the_future_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let conn = schema::open_writer(&dir.path().join(crate::store::DATABASE), 64 << 20).unwrap();
        let mut session = Session::new(conn, 1_000).unwrap();
        for at in [1_000_000_000, 2_000_000_000, 1_000_003_600] {
            session.transaction(|tx| note(tx, Timestamp::from_secs(at))).unwrap();
        }
        let reader = Reader::open(dir.path()).unwrap();
        let slots: Vec<i64> =
            reader.history(Ring::HalfHour).unwrap().iter().map(|point| point.slot).collect();
        assert_eq!(slots, [1_000_003_600 / 1800], "the jump took the older ones");
    }
}
