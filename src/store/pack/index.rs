//! Fingerprint to alert, without a random key in an index that is written with every batch.
//!
//! A fingerprint is a hash, so an index on it is written all over: measured, that costs four times the writes
//! (docs/figures.md). So the newest [`KEPT`] alerts are only in memory, found in a sorted set. What is more goes into the
//! table `fingerprint` a slice at a time, in the order of the hashes, like a lift that always starts again at the bottom:
//! each pass touches each page of the table once for many entries, and a transaction only the few pages of a slice.
//!
//! After a pass all alerts that were there at its beginning are in the table; that is what the mark `indexed_to` says.
//! The set is rebuilt at start from the alerts above the mark, some four times [`KEPT`] of them, 24 bytes each; what
//! the table has already is written once more then, without effect. Entries of forgotten alerts stay in the table until the lift
//! comes by: ids are never used again, and the alert's own row decides.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension};

use crate::model::Fingerprint;
use crate::store::StoreError;

/// How many alerts are only in memory.
const KEPT: usize = if cfg!(test) { 1_024 } else { 16_384 };
/// How many of them are written at once. Bounds the pages of a transaction.
const SLICE: usize = if cfg!(test) { 64 } else { 512 };

/// In `meta`: alerts up to this one are in the table.
const MARK: &str = "indexed_to";
/// In `meta`: where the lift is.
const PASS: &str = "index_pass";
/// In `meta`: entries of forgotten alerts below this one are no longer in the table.
const TIDIED: &str = "tidied_to";

/// The newest part of the index. The older part is the table.
#[derive(Default)]
pub(in crate::store) struct FingerprintIndex {
    /// Prefix and alert.
    recent: BTreeSet<(i64, i64)>,
    /// Alerts since the last slice.
    since: usize,
    /// The newest alert.
    newest: i64,
    pass: Pass,
    /// No entry in the table is of a forgotten alert below this one.
    tidied_to: i64,
}

/// One way of the lift.
#[derive(Clone, Copy, Default)]
struct Pass {
    /// The last prefix of the slice before; `None`: it is to begin.
    at: Option<i64>,
    /// The newest alert when it began.
    newest: i64,
    /// The oldest alert when it began: entries below it are taken away.
    oldest: i64,
}

impl FingerprintIndex {
    /// Reads back what was only in memory.
    pub(in crate::store) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let pass = Pass::parse(&kept(conn, PASS)?.unwrap_or_default());
        let mut index = Self { pass, tidied_to: mark(conn, TIDIED)?, ..Self::default() };
        let mut newer = conn.prepare("SELECT id, fingerprint FROM alert WHERE id > ?1")?;
        let mut rows = newer.query([mark(conn, MARK)?])?;
        while let Some(row) = rows.next()? {
            let bytes: [u8; 32] = row.get(1)?;
            index.remember(&Fingerprint::from_bytes(bytes), row.get(0)?);
        }
        Ok(index)
    }

    fn remember(&mut self, fingerprint: &Fingerprint, alert: i64) {
        self.recent.insert((fingerprint.prefix(), alert));
        self.newest = self.newest.max(alert);
    }

    /// The alert with this fingerprint. Prefixes may collide, so the row itself decides.
    pub(in crate::store) fn find(
        &self,
        conn: &Connection,
        fingerprint: &Fingerprint,
    ) -> Result<Option<i64>, StoreError> {
        let prefix = fingerprint.prefix();
        let is_it = |id: i64| -> Result<bool, StoreError> {
            let found: Option<[u8; 32]> = conn
                .prepare_cached("SELECT fingerprint FROM alert WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?;
            Ok(found.as_ref() == Some(fingerprint.as_bytes()))
        };
        for (_, id) in self.recent.range((prefix, i64::MIN)..=(prefix, i64::MAX)) {
            if is_it(*id)? {
                return Ok(Some(*id));
            }
        }
        let mut older = conn.prepare_cached("SELECT alert_id FROM fingerprint WHERE prefix = ?1")?;
        let mut rows = older.query([prefix])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            if is_it(id)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Adds an alert that was just inserted, and writes a slice when it is time.
    pub(in crate::store) fn add(
        &mut self,
        conn: &Connection,
        fingerprint: &Fingerprint,
        alert: i64,
    ) -> Result<(), StoreError> {
        self.remember(fingerprint, alert);
        self.since += 1;
        if self.since >= SLICE && self.recent.len() > KEPT {
            self.since = 0;
            // The faster, the more a start has left it with: a pass takes no longer then.
            for _ in 0..self.recent.len() / KEPT {
                self.write_slice(conn)?;
            }
        }
        Ok(())
    }

    fn write_slice(&mut self, conn: &Connection) -> Result<(), StoreError> {
        if self.pass.at.is_none() {
            self.pass = Pass { at: None, newest: self.newest, oldest: self.oldest(conn)? };
        }
        let after = self.pass.at.map_or((i64::MIN, i64::MIN), |prefix| (prefix, i64::MAX));
        let mut slice: Vec<(i64, i64)> = Vec::with_capacity(SLICE);
        let mut to = i64::MAX;
        for at in self.recent.range(after..) {
            // All entries of its last prefix, so that the next slice can begin behind it.
            if let Some((last, _)) = slice.last().filter(|(last, _)| slice.len() >= SLICE && *last != at.0) {
                to = *last;
                break;
            }
            slice.push(*at);
        }
        let is_last = to == i64::MAX;
        let mut insert =
            conn.prepare_cached("INSERT OR IGNORE INTO fingerprint (prefix, alert_id) VALUES (?1, ?2)")?;
        for at in &slice {
            insert.execute([at.0, at.1])?;
            self.recent.remove(at);
        }
        if self.pass.oldest > self.tidied_to {
            conn.prepare_cached("DELETE FROM fingerprint WHERE prefix BETWEEN ?1 AND ?2 AND alert_id < ?3")?
                .execute([after.0, to, self.pass.oldest])?;
        }
        self.pass.at = Some(to);
        if is_last {
            self.end_pass(conn)?;
        }
        keep(conn, PASS, &self.pass.text())
    }

    fn end_pass(&mut self, conn: &Connection) -> Result<(), StoreError> {
        keep(conn, MARK, &self.pass.newest.to_string())?;
        if self.pass.oldest > self.tidied_to {
            self.tidied_to = self.pass.oldest;
            keep(conn, TIDIED, &self.tidied_to.to_string())?;
        }
        self.pass.at = None;
        Ok(())
    }

    /// Takes out alerts that were just deleted. What is older than every alert is left to the lift: to take it out of
    /// the table at once would write a page for each.
    pub(in crate::store) fn forget(
        &mut self,
        conn: &Connection,
        gone: &[(i64, Fingerprint)],
    ) -> Result<(), StoreError> {
        let oldest = self.oldest(conn)?;
        let mut delete =
            conn.prepare_cached("DELETE FROM fingerprint WHERE prefix = ?1 AND alert_id = ?2")?;
        for (id, fingerprint) in gone {
            let at = (fingerprint.prefix(), *id);
            self.recent.remove(&at);
            if *id >= oldest {
                delete.execute([at.0, at.1])?;
            }
        }
        Ok(())
    }

    /// The oldest alert; where there is none, one that is still to come.
    fn oldest(&self, conn: &Connection) -> rusqlite::Result<i64> {
        let oldest: Option<i64> =
            conn.prepare_cached("SELECT min(id) FROM alert")?.query_row([], |row| row.get(0))?;
        Ok(oldest.unwrap_or(self.newest + 1))
    }
}

/// Writes the whole index into an empty table: prefix and alert of all there are.
pub(in crate::store) fn make_anew(conn: &Connection, mut all: Vec<(i64, i64)>) -> Result<(), StoreError> {
    all.sort_unstable();
    let mut insert = conn.prepare("INSERT INTO fingerprint (prefix, alert_id) VALUES (?1, ?2)")?;
    for (prefix, id) in &all {
        insert.execute([prefix, id])?;
    }
    for key in [PASS, TIDIED] {
        conn.execute("DELETE FROM meta WHERE key = ?1", [key])?;
    }
    let newest = all.iter().map(|(_, id)| *id).max().unwrap_or_default();
    keep(conn, MARK, &newest.to_string())
}

impl Pass {
    /// For `meta`, so that a process that ends often gets to the end of a pass too.
    fn text(self) -> String {
        self.at.map_or_else(String::new, |at| format!("{at} {} {}", self.newest, self.oldest))
    }

    /// Reads it back; whatever else is there begins a new pass.
    fn parse(text: &str) -> Self {
        let numbers: Vec<i64> = text.split(' ').map_while(|number| number.parse().ok()).collect();
        match numbers[..] {
            [at, newest, oldest] => Self { at: Some(at), newest, oldest },
            _ => Self::default(),
        }
    }
}

fn keep(conn: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?
    .execute([key, value])?;
    Ok(())
}

fn kept(conn: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn mark(conn: &Connection, key: &str) -> rusqlite::Result<i64> {
    Ok(kept(conn, key)?.and_then(|text| text.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../migrations/0001_init.sql")).unwrap();
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        conn
    }

    fn fingerprint(n: i64) -> Fingerprint {
        let mut bytes = [0; 32];
        // Scattered as hashes are; every seventh has the prefix of its neighbour.
        let prefix = (n - i64::from(n % 7 == 0)).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
        bytes[..8].copy_from_slice(&prefix.to_be_bytes());
        bytes[24..].copy_from_slice(&n.to_be_bytes());
        Fingerprint::from_bytes(bytes)
    }

    fn add(conn: &Connection, index: &mut FingerprintIndex, n: i64) {
        conn.execute(
            "INSERT INTO alert VALUES (?1, ?2, 1, 0, 0, 0, 0, 1, 0, NULL, NULL, NULL, NULL, NULL)",
            params![n, fingerprint(n).as_bytes()],
        )
        .unwrap();
        index.add(conn, &fingerprint(n), n).unwrap();
    }

    fn forget(conn: &Connection, index: &mut FingerprintIndex, ids: std::ops::Range<i64>) {
        conn.execute("DELETE FROM alert WHERE id >= ?1 AND id < ?2", [ids.start, ids.end]).unwrap();
        let gone: Vec<_> = ids.map(|id| (id, fingerprint(id))).collect();
        index.forget(conn, &gone).unwrap();
    }

    fn entries(conn: &Connection) -> i64 {
        conn.query_row("SELECT count(*) FROM fingerprint", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn all_are_found_wherever_the_lift_is_and_whenever_it_starts_again() {
        let conn = database();
        let mut index = FingerprintIndex::load(&conn).unwrap();
        for n in 1..=9_000 {
            add(&conn, &mut index, n);
            assert!(index.recent.len() <= 5 * KEPT, "{}", index.recent.len());
            if n % 777 == 0 && n < 8_000 {
                index = FingerprintIndex::load(&conn).unwrap();
            }
        }
        assert!(index.recent.len() <= 3 * KEPT, "{}", index.recent.len());
        for n in 1..=9_000 {
            assert_eq!(index.find(&conn, &fingerprint(n)).unwrap(), Some(n));
        }
        assert_eq!(index.find(&conn, &fingerprint(9_001)).unwrap(), None);
        assert!(mark(&conn, MARK).unwrap() > 5_000, "a start does not read all of them");
    }

    #[test]
    fn entries_of_forgotten_alerts_go_with_the_next_passes() {
        let conn = database();
        let mut index = FingerprintIndex::load(&conn).unwrap();
        (1..=6_000).for_each(|n| add(&conn, &mut index, n));
        let before = entries(&conn);
        forget(&conn, &mut index, 1..3_000);
        assert_eq!(entries(&conn), before, "not one by one");
        assert_eq!(index.find(&conn, &fingerprint(8)).unwrap(), None);
        // What an older one keeps from being older than all goes at once.
        forget(&conn, &mut index, 3_100..3_200);
        assert!(entries(&conn) > before - 101 && entries(&conn) < before);
        (6_001..=15_000).for_each(|n| add(&conn, &mut index, n));
        let stale: i64 = conn
            .query_row("SELECT count(*) FROM fingerprint WHERE alert_id < 3000", [], |row| row.get(0))
            .unwrap();
        assert_eq!(stale, 0);
        let index = FingerprintIndex::load(&conn).unwrap();
        assert_eq!(index.tidied_to, 3_000);
        for n in (3_000..3_100).chain(3_200..=15_000) {
            assert_eq!(index.find(&conn, &fingerprint(n)).unwrap(), Some(n));
        }
    }

    #[test]
    fn after_all_are_forgotten_it_goes_on() {
        let conn = database();
        let mut index = FingerprintIndex::load(&conn).unwrap();
        (1..=4_000).for_each(|n| add(&conn, &mut index, n));
        forget(&conn, &mut index, 1..4_001);
        (4_001..=12_000).for_each(|n| add(&conn, &mut index, n));
        let stale: i64 = conn
            .query_row("SELECT count(*) FROM fingerprint WHERE alert_id <= 4000", [], |row| row.get(0))
            .unwrap();
        assert_eq!(stale, 0);
        assert_eq!(index.find(&conn, &fingerprint(4_001)).unwrap(), Some(4_001));
    }
}
