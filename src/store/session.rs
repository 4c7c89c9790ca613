//! The writer's connection and what it keeps in memory beside it. Lives on one thread at a time: inside
//! `spawn_blocking` while a batch runs, with the writer between batches.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::store::health::Conditions;
use crate::store::pack::index::FingerprintIndex;
use crate::store::schema;
use crate::store::{OpenError, StoreError};

/// An open database with its memory. Everything here can be rebuilt from the file.
pub(super) struct Session {
    pub(super) conn: Connection,
    memory: Memory,
    /// Pages that the database may have; `max_page_count` is more while an older file is larger.
    pages: i64,
    conditions: Arc<Conditions>,
    /// Memory could not be read back after a rollback; nothing runs before that has been made up for.
    stale: bool,
}

/// What an operation sees: the connection inside a transaction, and the memory that belongs to it.
pub(crate) struct Tx<'a> {
    pub(super) conn: &'a Connection,
    pub(super) memory: &'a mut Memory,
    pub(super) pages: i64,
    /// What is the case with the store now.
    pub(super) conditions: &'a Conditions,
    /// Only one operation is in this transaction: what it does is taken back with all of it.
    pub(super) alone: bool,
}

/// What is kept in memory so that it is not asked again for each row.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) index: FingerprintIndex,
    sources: HashMap<String, i64>,
    destinations: HashMap<String, i64>,
    routes: HashMap<(String, String), (i64, i64)>,
    rules: HashMap<String, i64>,
    /// The half hour and the day that `history` has a row of.
    pub(super) noted: Option<[i64; 2]>,
    counters: HashMap<(String, Cow<'static, str>), i64>,
    /// Tickets opened lately, where a rule holds storms back.
    pub(super) storms: crate::store::storms::Storms,
    /// Of tickets that stand for others: a folded row whose finding had not ended at the last look.
    pub(super) standing: HashMap<i64, i64>,
    /// Whose turn it is in the outbox.
    pub(super) turns: crate::store::turns::Turns,
    /// What devices hold of their share.
    pub(super) devices: crate::store::held::Held,
    /// Who made which MACs.
    pub(super) vendors: crate::store::vendors::Vendors,
}

impl Memory {
    fn load(conn: &Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self { index: FingerprintIndex::load(conn)?, ..Self::default() })
    }
}

impl Session {
    /// Takes an opened connection and loads what is kept in memory.
    pub(super) fn new(conn: Connection, pages: i64) -> Result<Self, OpenError> {
        conn.set_prepared_statement_cache_capacity(64);
        let memory = Memory::load(&conn)?;
        Ok(Self { conn, memory, pages, conditions: Arc::default(), stale: false })
    }

    /// What is the case with the store is told there from now on.
    pub(super) fn tell(mut self, conditions: &Arc<Conditions>) -> Self {
        self.conditions = Arc::clone(conditions);
        self
    }

    /// Closes it without writing anything back: after a failed sync nobody knows what is on the disk, and the WAL of a
    /// damaged database is part of what is to be looked at.
    pub(super) fn abandon(self) {
        // Where that cannot be set, closing fails in the same way.
        let _ = schema::keep_wal(&self.conn);
        let _ = self.conn.close();
    }

    /// Runs `work` in one transaction. After an error nothing of it is in the file nor in memory.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.stale {
            self.memory = Memory::load(&self.conn)?;
            self.stale = false;
        }
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let mut tx = Tx {
            conn: &self.conn,
            memory: &mut self.memory,
            pages: self.pages,
            conditions: &self.conditions,
            alone: false,
        };
        let result = work(&mut tx).and_then(|value| {
            tx.flush_counters()?;
            tx.conn.execute_batch("COMMIT")?;
            Ok(value)
        });
        if result.is_err() {
            self.roll_back();
        }
        result
    }

    fn roll_back(&mut self) {
        if !self.conn.is_autocommit() {
            // A failed rollback leaves the connection in the transaction; the next BEGIN then says so.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        match Memory::load(&self.conn) {
            Ok(memory) => self.memory = memory,
            // An index that forgot its newest alerts would make twins of them.
            Err(_) => self.stale = true,
        }
    }
}

/// Adds to a counter in the file. [`Tx::count`] does that once per transaction, for names that are known when compiled.
pub(super) fn add_to_counter(conn: &Connection, scope: &str, name: &str, by: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO counter (scope, name, value) VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET value = value + excluded.value";
    conn.prepare_cached(sql)?.execute(params![scope, name, by])?;
    Ok(())
}

impl Tx<'_> {
    /// Runs `work` so that its failure takes back only what it did itself; alone, the caller has to end the transaction.
    /// Memory that it changed may be ahead of the
    /// file afterwards, so it is loaded again. After some errors (no room, I/O) SQLite has already taken back the whole
    /// transaction; then, and when the part cannot be taken back, the connection is outside of any transaction and
    /// nothing more may run in this one.
    pub(super) fn nested<T>(
        &mut self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.alone {
            return work(self);
        }
        self.flush_counters()?;
        self.conn.execute_batch("SAVEPOINT op")?;
        let result = work(self).and_then(|value| {
            self.flush_counters()?;
            Ok(value)
        });
        let ended = match &result {
            Ok(_) => self.conn.execute_batch("RELEASE op").map_err(StoreError::from),
            Err(_) if self.conn.is_autocommit() => Ok(()),
            Err(_) => self.take_back(),
        };
        if ended.is_err() && !self.conn.is_autocommit() {
            // Whether this worked shows at the next BEGIN.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        // The first error is the one that says why.
        result.and_then(|value| ended.map(|()| value))
    }

    fn take_back(&mut self) -> Result<(), StoreError> {
        self.conn.execute_batch("ROLLBACK TO op; RELEASE op")?;
        *self.memory = Memory::load(self.conn)?;
        Ok(())
    }

    /// Adds to a counter; written once per transaction.
    pub(super) fn count(&mut self, scope: &str, name: impl Into<Cow<'static, str>>, by: i64) {
        if by != 0 {
            *self.memory.counters.entry((scope.to_owned(), name.into())).or_default() += by;
        }
    }

    /// What a counter stands at, with what is not written of it yet.
    pub(super) fn counted(&self, scope: &str, name: &'static str) -> Result<i64, StoreError> {
        let kept: i64 = self
            .conn
            .prepare_cached("SELECT coalesce((SELECT value FROM counter WHERE scope = ?1 AND name = ?2), 0)")?
            .query_row([scope, name], |r| r.get(0))?;
        let more = self.memory.counters.get(&(scope.to_owned(), Cow::Borrowed(name)));
        Ok(kept + more.copied().unwrap_or_default())
    }

    fn flush_counters(&mut self) -> Result<(), StoreError> {
        if self.memory.counters.is_empty() {
            return Ok(());
        }
        for ((scope, name), by) in self.memory.counters.drain() {
            add_to_counter(self.conn, &scope, &name, by)?;
        }
        Ok(())
    }

    /// The row of a source, made when it is new; `now` is when it was first read.
    pub(super) fn source_id(&mut self, name: &str, now: i64) -> Result<i64, StoreError> {
        if let Some(id) = self.memory.sources.get(name) {
            return Ok(*id);
        }
        self.conn.execute(
            "INSERT INTO source (name, last_read_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![name, now],
        )?;
        let id = self.conn.query_row("SELECT id FROM source WHERE name = ?1", [name], |row| row.get(0))?;
        self.memory.sources.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The row of a destination, made when it is new.
    pub(super) fn destination_id(&mut self, name: &str) -> Result<i64, StoreError> {
        if let Some(id) = self.memory.destinations.get(name) {
            return Ok(*id);
        }
        self.conn.execute("INSERT INTO destination (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
        let id =
            self.conn.query_row("SELECT id FROM destination WHERE name = ?1", [name], |row| row.get(0))?;
        self.memory.destinations.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The row of a rule's name, made when it is new.
    pub(super) fn rule_id(&mut self, name: &str) -> Result<i64, StoreError> {
        if let Some(id) = self.memory.rules.get(name) {
            return Ok(*id);
        }
        self.conn.execute("INSERT INTO rule (name) VALUES (?1) ON CONFLICT DO NOTHING", [name])?;
        let id = self.conn.query_row("SELECT id FROM rule WHERE name = ?1", [name], |row| row.get(0))?;
        self.memory.rules.insert(name.to_owned(), id);
        Ok(id)
    }

    /// The rows of a destination and of one of its tables, made when they are new.
    pub(super) fn route_id(&mut self, destination: &str, table: &str) -> Result<(i64, i64), StoreError> {
        let key = (destination.to_owned(), table.to_owned());
        if let Some(ids) = self.memory.routes.get(&key) {
            return Ok(*ids);
        }
        let destination_id = self.destination_id(destination)?;
        self.conn.execute(
            "INSERT INTO route (destination_id, table_name) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![destination_id, table],
        )?;
        let route_id = self.conn.query_row(
            "SELECT id FROM route WHERE destination_id = ?1 AND table_name = ?2",
            params![destination_id, table],
            |row| row.get(0),
        )?;
        self.memory.routes.insert(key, (destination_id, route_id));
        Ok((destination_id, route_id))
    }
}
