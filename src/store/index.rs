//! Fingerprint to alert, without a random key in an index that is written with every batch.
//!
//! A fingerprint is a hash, so an index on it is written all over: measured, that costs four times the writes
//! (docs/figures.md). So the newest alerts are only in memory, found by a map; when there are [`RUN`] of them,
//! they go into the table `fingerprint` at once and in order, which touches each page once for many entries. The map
//! is rebuilt at start from the alerts above the mark `indexed_to`. At most [`RUN`] x 24 bytes.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::StoreError;
use crate::model::Fingerprint;

/// How many alerts are only in memory before they are written to the index.
const RUN: usize = 4_096;

const MARK: &str = "indexed_to";

/// The newest part of the index. The older part is the table.
#[derive(Default)]
pub(super) struct FingerprintIndex {
    recent: HashMap<i64, Vec<i64>>,
    count: usize,
}

impl FingerprintIndex {
    /// Reads back what was only in memory.
    pub(super) fn load(conn: &Connection) -> rusqlite::Result<Self> {
        let mut index = Self::default();
        let mut newer = conn.prepare("SELECT id, fingerprint FROM alert WHERE id > ?1")?;
        let mut rows = newer.query([mark(conn)?])?;
        while let Some(row) = rows.next()? {
            let bytes: [u8; 32] = row.get(1)?;
            index.remember(&Fingerprint::from_bytes(bytes), row.get(0)?);
        }
        Ok(index)
    }

    fn remember(&mut self, fingerprint: &Fingerprint, alert: i64) {
        self.recent.entry(fingerprint.prefix()).or_default().push(alert);
        self.count += 1;
    }

    /// The alert with this fingerprint. Prefixes may collide, so the row itself decides.
    pub(super) fn find(
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
        for id in self.recent.get(&prefix).into_iter().flatten() {
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

    /// Adds an alert that was just inserted, and writes a run when it is long enough.
    pub(super) fn add(
        &mut self,
        conn: &Connection,
        fingerprint: &Fingerprint,
        alert: i64,
    ) -> Result<(), StoreError> {
        self.remember(fingerprint, alert);
        if self.count >= RUN { self.write_run(conn) } else { Ok(()) }
    }

    fn write_run(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let mut run: Vec<(i64, i64)> =
            self.recent.iter().flat_map(|(prefix, ids)| ids.iter().map(move |id| (*prefix, *id))).collect();
        run.sort_unstable();
        let newest = run.iter().map(|(_, id)| *id).max().unwrap_or_default();
        let mut insert = conn.prepare_cached("INSERT INTO fingerprint (prefix, alert_id) VALUES (?1, ?2)")?;
        for (prefix, id) in &run {
            insert.execute([prefix, id])?;
        }
        conn.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            params![MARK, newest.to_string()],
        )?;
        self.recent = HashMap::new();
        self.count = 0;
        Ok(())
    }

    /// Takes out an alert that is being deleted.
    pub(super) fn remove(
        &mut self,
        conn: &Connection,
        fingerprint: &Fingerprint,
        alert: i64,
    ) -> Result<(), StoreError> {
        let prefix = fingerprint.prefix();
        if let Some(ids) = self.recent.get_mut(&prefix) {
            let before = ids.len();
            ids.retain(|id| *id != alert);
            self.count -= before - ids.len();
            if ids.is_empty() {
                self.recent.remove(&prefix);
            }
        }
        conn.prepare_cached("DELETE FROM fingerprint WHERE prefix = ?1 AND alert_id = ?2")?
            .execute([prefix, alert])?;
        Ok(())
    }
}

/// Writes the whole index into an empty table: prefix and alert of all there are.
pub(super) fn make_anew(conn: &Connection, mut all: Vec<(i64, i64)>) -> rusqlite::Result<()> {
    all.sort_unstable();
    let mut insert = conn.prepare("INSERT INTO fingerprint (prefix, alert_id) VALUES (?1, ?2)")?;
    for (prefix, id) in &all {
        insert.execute([prefix, id])?;
    }
    let newest = all.iter().map(|(_, id)| *id).max().unwrap_or_default();
    conn.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)",
        params![MARK, newest.to_string()],
    )?;
    Ok(())
}

fn mark(conn: &Connection) -> rusqlite::Result<i64> {
    let text: Option<String> =
        conn.query_row("SELECT value FROM meta WHERE key = ?1", [MARK], |row| row.get(0)).optional()?;
    Ok(text.and_then(|t| t.parse().ok()).unwrap_or(0))
}
