//! What is remembered of a destination between sends and over restarts: holds, the hourly budget, the last answers.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::identity::meta;
use crate::model::text::clip;
use crate::model::ticket::KeysKept;
use crate::model::{DestinationName, TableName, Timestamp};
use crate::store::handle::Operation;
use crate::store::rows::Spent;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// A destination, or one table of it, that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// `None`: the whole destination.
    pub table: Option<TableName>,
    /// Since when.
    pub since_at: Timestamp,
    /// Until when at least.
    pub until_at: Timestamp,
    /// How often it was tried again without success.
    pub tries: u32,
    /// Whether `until_at` is what the other side said (`Retry-After`): then only a person shortens it.
    pub told: bool,
    /// Why.
    pub reason: String,
    /// What a person can do.
    pub remedy: String,
}

/// What is remembered of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationState {
    /// What waits.
    pub holds: Vec<Hold>,
    /// When the budget's hour began.
    pub window_started_at: Timestamp,
    /// Requests in it.
    pub window_used: u32,
    /// Failures in a row of the kind that concerns the whole destination.
    pub failures: u32,
    /// Whether the last sync had to leave some that were due.
    pub unfinished: bool,
    /// What of the budget makes something wait; absent: nothing.
    pub spent: Option<Spent>,
    /// When it last did what it was asked.
    pub last_ok_at: Option<Timestamp>,
    /// What its tables do to our keys, as far as their answers showed.
    pub keys: BTreeMap<TableName, KeysKept>,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum DestinationChange {
    /// It answered as it should: the hold on this table (and on the whole) ends.
    Works {
        /// The table that worked.
        table: TableName,
    },
    /// It failed for now.
    Fails {
        /// Failures in a row.
        failures: u32,
        /// Its words.
        error: String,
    },
    /// It, or a table of it, waits.
    Holds(Hold),
    /// Requests were made.
    Budget {
        /// When the hour began.
        window_started_at: Timestamp,
        /// Requests in it.
        window_used: u32,
    },
    /// A sync had to leave some that were due, or left none.
    Unfinished(bool),
    /// The budget makes something wait, or no longer.
    Spent(Option<Spent>),
    /// What a table does to our keys.
    Keeps {
        /// The table.
        table: TableName,
        /// As its last answer showed.
        kept: KeysKept,
    },
    /// A person asked to try again now: every wait ends. What may have been made by an answer that got lost just now
    /// keeps its moment, as the other side's index may lag.
    Release,
}

struct Ask(DestinationName);

struct AskLearned(DestinationName);

struct KeepLearned(DestinationName, BTreeMap<String, String>);

pub(super) struct Change {
    pub(super) destination: DestinationName,
    pub(super) changes: Vec<DestinationChange>,
    pub(super) now: Timestamp,
}

impl Store {
    /// What is remembered of a destination.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn destination_state(
        &self,
        destination: &DestinationName,
    ) -> Result<DestinationState, StoreError> {
        self.call(Ask(destination.clone())).await
    }

    /// What a destination had learned of the other side.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn learned(&self, name: &DestinationName) -> Result<BTreeMap<String, String>, StoreError> {
        self.call(AskLearned(name.clone())).await
    }

    /// Keeps what it has learned, in the place of what was kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn keep_learned(
        &self,
        name: &DestinationName,
        learned: BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        self.call(KeepLearned(name.clone(), learned)).await
    }

    /// Remembers what changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn change_destination(
        &self,
        destination: &DestinationName,
        changes: Vec<DestinationChange>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Change { destination: destination.clone(), changes, now }).await
    }
}

impl Operation for Ask {
    type Output = DestinationState;

    fn run(self, tx: &mut Tx<'_>) -> Result<DestinationState, StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        let mut state = tx
            .conn
            .query_row(
                "SELECT window_started_at, window_used, failures, unfinished, last_ok_at FROM destination WHERE id = ?1",
                [id],
                |r| {
                    Ok(DestinationState {
                        holds: Vec::new(),
                        window_started_at: Timestamp::from_micros(r.get(0)?),
                        window_used: r.get(1)?,
                        failures: r.get(2)?,
                        unfinished: r.get(3)?,
                        spent: None,
                        last_ok_at: r.get::<_, Option<i64>>(4)?.map(Timestamp::from_micros),
                        keys: BTreeMap::new(),
                    })
                },
            )
            .optional()?
            .unwrap_or_default();
        let mut holds = tx.conn.prepare_cached(
            "SELECT table_name, since_at, until_at, tries, told, reason, remedy FROM hold WHERE destination_id = ?1",
        )?;
        let rows = holds.query_map([id], |r| {
            Ok(Hold {
                table: TableName::new(&r.get::<_, String>(0)?).ok(),
                since_at: Timestamp::from_micros(r.get(1)?),
                until_at: Timestamp::from_micros(r.get(2)?),
                tries: r.get(3)?,
                told: r.get(4)?,
                reason: r.get(5)?,
                remedy: r.get(6)?,
            })
        })?;
        state.holds = rows.collect::<Result<_, _>>()?;
        state.keys = keys(tx, id)?;
        state.spent = spent(tx.conn, self.0.as_str())?;
        Ok(state)
    }
}

/// Where it is kept in `meta` that the budget makes something wait.
fn spent_key(name: &str) -> String {
    format!("spent:{name}")
}

/// What of the budget makes something wait. A damaged one says nothing: the next sync says it anew.
pub(in crate::store) fn spent(conn: &Connection, name: &str) -> Result<Option<Spent>, StoreError> {
    Ok(meta(conn, &spent_key(name))?.and_then(|kept| serde_json::from_str(&kept).ok()))
}

fn set_spent(conn: &Connection, name: &str, spent: Option<&Spent>) -> rusqlite::Result<usize> {
    let Some(spent) = spent else {
        return conn.execute("DELETE FROM meta WHERE key = ?1", [spent_key(name)]);
    };
    let values = [spent_key(name), serde_json::json!(spent).to_string()];
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", values)
}

/// Where it is kept in `meta`.
fn learned_key(name: &DestinationName) -> String {
    format!("learned:{name}")
}

impl Operation for AskLearned {
    type Output = BTreeMap<String, String>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let kept = meta(tx.conn, &learned_key(&self.0))?;
        // A damaged one says nothing: it is learned anew.
        Ok(kept.and_then(|kept| serde_json::from_str(&kept).ok()).unwrap_or_default())
    }
}

impl Operation for KeepLearned {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let values = [learned_key(&self.0), serde_json::json!(self.1).to_string()];
        tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", values)?;
        Ok(())
    }
}

fn keys(tx: &Tx<'_>, destination_id: i64) -> Result<BTreeMap<TableName, KeysKept>, StoreError> {
    let mut select = tx.conn.prepare_cached(
        "SELECT table_name, keeps_sys_id, keeps_correlation_id FROM route
         WHERE destination_id = ?1 AND keeps_sys_id IS NOT NULL AND keeps_correlation_id IS NOT NULL",
    )?;
    let rows = select.query_map([destination_id], |r| {
        let kept = KeysKept { sys_id: r.get(1)?, correlation_id: r.get(2)? };
        Ok((r.get::<_, String>(0)?, kept))
    })?;
    let mut keys = BTreeMap::new();
    for row in rows {
        let (table, kept) = row?;
        if let Ok(table) = TableName::new(&table) {
            keys.insert(table, kept);
        }
    }
    Ok(keys)
}

fn set_hold(conn: &Connection, destination: i64, hold: &Hold) -> rusqlite::Result<usize> {
    conn.execute(
        "INSERT INTO hold (destination_id, table_name, since_at, until_at, tries, told, reason, remedy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET until_at = excluded.until_at, tries = excluded.tries,
         told = excluded.told, reason = excluded.reason, remedy = excluded.remedy",
        params![
            destination,
            hold.table.as_ref().map_or("", TableName::as_str),
            hold.since_at.as_micros(),
            hold.until_at.as_micros(),
            hold.tries,
            hold.told,
            clip(&hold.reason, super::WORDS_MAX),
            clip(&hold.remedy, super::WORDS_MAX)
        ],
    )
}

/// The last that went wrong there.
fn failed(conn: &Connection, destination: i64, now: i64, error: &str) -> rusqlite::Result<usize> {
    conn.execute(
        "UPDATE destination SET last_error_at = ?2, last_error = ?3 WHERE id = ?1",
        params![destination, now, clip(error, super::WORDS_MAX)],
    )
}

impl Operation for Change {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let id = tx.destination_id(self.destination.as_str())?;
        let now = self.now.as_micros();
        for change in &self.changes {
            match change {
                DestinationChange::Works { table } => {
                    tx.conn.execute(
                        "DELETE FROM hold WHERE destination_id = ?1 AND table_name IN ('', ?2)",
                        params![id, table.as_str()],
                    )?;
                    tx.conn.execute(
                        "UPDATE destination SET failures = 0, last_ok_at = ?2 WHERE id = ?1",
                        [id, now],
                    )?;
                }
                DestinationChange::Fails { failures, error } => {
                    let set = "UPDATE destination SET failures = ?2 WHERE id = ?1";
                    tx.conn.execute(set, params![id, failures])?;
                    failed(tx.conn, id, now, error)?;
                }
                DestinationChange::Holds(hold) => {
                    set_hold(tx.conn, id, hold)?;
                    failed(tx.conn, id, now, &hold.reason)?;
                }
                DestinationChange::Budget { window_started_at, window_used } => {
                    tx.conn.execute(
                        "UPDATE destination SET window_started_at = ?2, window_used = ?3 WHERE id = ?1",
                        params![id, window_started_at.as_micros(), window_used],
                    )?;
                }
                DestinationChange::Unfinished(left) => {
                    tx.conn
                        .execute("UPDATE destination SET unfinished = ?2 WHERE id = ?1", params![id, left])?;
                }
                DestinationChange::Spent(spent) => {
                    set_spent(tx.conn, self.destination.as_str(), spent.as_ref())?;
                }
                DestinationChange::Keeps { table, kept } => {
                    tx.conn.execute(
                        "UPDATE route SET keeps_sys_id = ?3, keeps_correlation_id = ?4
                         WHERE destination_id = ?1 AND table_name = ?2",
                        params![id, table.as_str(), kept.sys_id, kept.correlation_id],
                    )?;
                }
                DestinationChange::Release => {
                    tx.conn.execute(
                        "UPDATE hold SET until_at = ?2 WHERE destination_id = ?1 AND until_at > ?2",
                        [id, now],
                    )?;
                    tx.conn.execute(
                        "UPDATE delivery SET due_at = ?2 WHERE destination_id = ?1 AND state = 'pending' AND attempts > 0
                         AND due_at > ?2 AND (doubtful = 0 OR attempts > 1)",
                        [id, now],
                    )?;
                }
            }
        }
        Ok(())
    }
}
