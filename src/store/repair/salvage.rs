//! What can still be read of a damaged database goes into a new one; what cannot is counted.
//!
//! Every table is read in the order of its key. Where a page is bad, the next key that can be read is searched by
//! doubling steps and halving back, so a bad page costs only what was on it. A row goes over when its checksum is right
//! and the new database takes it: its types, CHECKs, unique keys and references are the judges of what has no checksum.
//! Columns are copied by name; the new database has the schema of this version.
//!
//! The damaged file is only read. All of it is bounded by a deadline; what was not read by then is counted as lost.
//! `rebuild.rs` makes the new database whole afterwards.

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use tokio::time::Instant;

use crate::store::OpenError;
use crate::store::catalog::{AnyRow, Key, Repair, TABLES, Table, values};
use crate::store::disk::files::{OURS, with};
use crate::store::repair::integrity;
use crate::store::schema;

/// What came over of a table, and what is known to be lost.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Copied {
    pub(in crate::store) salvaged: u64,
    /// Rows that were read and not taken.
    pub(in crate::store) refused: u64,
    /// Some of it could not be read; how many rows is unknown.
    pub(in crate::store) unread: bool,
}

/// Copies from a damaged database into a new one, which is in a transaction.
pub(in crate::store) struct Salvage<'a> {
    /// None: nothing of it can be opened.
    pub(in crate::store) from: Option<Connection>,
    pub(in crate::store) into: &'a Connection,
    until: Instant,
    pub(in crate::store) tables: BTreeMap<&'static str, Copied>,
    /// Nothing was left out because of the deadline.
    pub(in crate::store) in_time: bool,
}

/// Why reading stopped.
enum Stop {
    /// The end.
    End,
    /// A bad page after this key.
    Bad(i64),
    /// No time is left.
    Late,
}

type Kept = Result<(), OpenError>;

impl<'a> Salvage<'a> {
    pub(in crate::store) fn new(from: Option<Connection>, into: &'a Connection, until: Instant) -> Self {
        Self { from, into, until, tables: BTreeMap::new(), in_time: true }
    }

    /// All that comes over.
    pub(in crate::store) fn copy_all(&mut self) -> Kept {
        let Some(from) = self.from.take() else { return Ok(()) };
        let kept = TABLES.iter().filter(|table| matches!(table.repair, Repair::Kept | Repair::Replaced));
        let result = kept.into_iter().try_for_each(|table| self.copy(&from, table));
        self.from = Some(from);
        result
    }

    fn copy(&mut self, from: &Connection, table: &'static Table) -> Kept {
        let mut columns = columns_of_both(from, self.into, table.name)?;
        let copied = self.tables.entry(table.name).or_default();
        if columns.is_empty() {
            // The first version had all of them, so it is the schema that cannot be read.
            copied.unread = true;
            return Ok(());
        }
        match table.key {
            Key::Row(column) => {
                columns.retain(|c| c != column);
                let list =
                    ["rowid"].into_iter().chain(columns.iter().map(String::as_str)).collect::<Vec<_>>();
                let list = list.join(", ");
                columns.insert(0, column.to_owned());
                self.copy_keyed(from, table, "rowid", &list, &columns)?;
            }
            Key::Column(column) if columns.iter().any(|c| c == column) => {
                self.copy_keyed(from, table, column, &columns.join(", "), &columns)?;
            }
            Key::Column(_) | Key::None => self.copy_small(from, table, &columns)?,
        }
        table.names.map_or(Ok(()), |names| self.copy_names(from, names))
    }

    /// `list`: what is read into these columns.
    fn copy_keyed(
        &mut self,
        from: &Connection,
        table: &'static Table,
        key: &str,
        list: &str,
        columns: &[String],
    ) -> Kept {
        let sql = format!("SELECT {key}, {list} FROM {} WHERE {key} > ?1 ORDER BY {key}", table.name);
        let probe = format!("{sql} LIMIT 1");
        let mut insert = self.into.prepare(&insert(table, columns))?;
        let (mut after, mut tried) = (0, None);
        loop {
            match self.read(from, &sql, after, |this, row| this.keep(&mut insert, table, row), columns)? {
                Stop::End => return Ok(()),
                Stop::Late => {
                    (self.in_time, self.tables.entry(table.name).or_default().unread) = (false, true);
                    return Ok(());
                }
                // A read may fail once and work the next time.
                Stop::Bad(at) if at < i64::MAX && tried != Some(at) => (after, tried) = (at, Some(at)),
                Stop::Bad(at) => {
                    self.tables.entry(table.name).or_default().unread = true;
                    let Some(next) = self.next_readable(from, &probe, at) else { return Ok(()) };
                    after = next;
                }
            }
        }
    }

    /// Reads from a key on until the end, a bad page or the deadline.
    fn read(
        &mut self,
        from: &Connection,
        sql: &str,
        after: i64,
        mut keep: impl FnMut(&mut Self, AnyRow<'_>) -> Kept,
        columns: &[String],
    ) -> Result<Stop, OpenError> {
        let mut last = after;
        let Ok(mut select) = from.prepare(sql) else { return Ok(Stop::Bad(i64::MAX)) };
        let Ok(mut rows) = select.query([after]) else { return Ok(Stop::Bad(last)) };
        loop {
            if Instant::now() >= self.until {
                return Ok(Stop::Late);
            }
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => return Ok(Stop::End),
                Err(_) => return Ok(Stop::Bad(last)),
            };
            let (Ok(key), Ok(mut all)) = (row.get::<_, i64>(0), values(row, columns.len() + 1)) else {
                return Ok(Stop::Bad(last));
            };
            // Keys that do not grow come from pages that point in a circle.
            if key < last {
                return Ok(Stop::Bad(last));
            }
            last = key;
            all.remove(0);
            keep(self, AnyRow { columns, values: &all })?;
        }
    }

    /// The smallest place after `bad` from which a row, or the end, can be read.
    fn next_readable(&self, from: &Connection, probe: &str, bad: i64) -> Option<i64> {
        let mut select = from.prepare(probe).ok()?;
        let mut is_readable = |after: i64| {
            let mut rows = select.query([after]).ok()?;
            let row = rows.next().ok()?;
            row.is_none_or(|row| row.get::<_, i64>(0).is_ok_and(|key| key > after)).then_some(())
        };
        let (mut bad, mut step) = (bad, 1_i64);
        let mut good = loop {
            let there = bad.checked_add(step)?;
            if Instant::now() >= self.until {
                return None;
            }
            if is_readable(there).is_some() {
                break there;
            }
            (bad, step) = (there, step.saturating_mul(2));
        };
        while good - bad > 1 {
            let middle = bad + (good - bad) / 2;
            if is_readable(middle).is_some() { good = middle } else { bad = middle }
        }
        Some(good)
    }

    /// A small table without a number to go by: from both ends, as far as it goes.
    fn copy_small(&mut self, from: &Connection, table: &'static Table, columns: &[String]) -> Kept {
        let list = columns.join(", ");
        let mut insert = self.into.prepare(&insert(table, columns))?;
        for order in ["", " ORDER BY 1 DESC, 2 DESC"] {
            let Ok(mut select) = from.prepare(&format!("SELECT {list} FROM {}{order}", table.name)) else {
                self.tables.entry(table.name).or_default().unread = true;
                return Ok(());
            };
            let Ok(mut rows) = select.query([]) else { continue };
            let whole = loop {
                match rows.next() {
                    Ok(Some(row)) => {
                        let Ok(all) = values(row, columns.len()) else { break false };
                        self.keep(&mut insert, table, AnyRow { columns, values: &all })?;
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if whole {
                return Ok(());
            }
            self.tables.entry(table.name).or_default().unread = true;
        }
        Ok(())
    }

    fn copy_names(&mut self, from: &Connection, (read, write): (&str, &str)) -> Kept {
        let Ok(mut select) = from.prepare(read) else { return Ok(()) };
        let number = select.column_count();
        let Ok(mut rows) = select.query([]) else { return Ok(()) };
        let mut insert = self.into.prepare(write)?;
        while let Ok(Some(row)) = rows.next() {
            if let Ok(values) = values(row, number) {
                taken(insert.execute(params_from_iter(values)))?;
            }
        }
        Ok(())
    }

    /// Takes a row over, or counts it.
    fn keep(&mut self, insert: &mut rusqlite::Statement<'_>, table: &'static Table, row: AnyRow<'_>) -> Kept {
        let sound = table.is_sound(row) && self.is_of_use(table, row)?;
        let taken = sound && taken(insert.execute(params_from_iter(row.values.iter())))?;
        let copied = self.tables.entry(table.name).or_default();
        if taken {
            copied.salvaged += 1;
        } else if !sound || table.key != Key::None {
            // Of a small table, the new database has some rows already: its own, and those that were read from the other end.
            copied.refused += 1;
        }
        Ok(())
    }

    fn is_of_use(&self, table: &Table, row: AnyRow<'_>) -> Result<bool, OpenError> {
        let (Some(needs), Some(key)) = (table.needs, row.values.first()) else { return Ok(true) };
        Ok(self.into.prepare_cached(needs)?.query_row([key], |r| r.get(0))?)
    }

    /// The highest id that a table ever had, if that can be read.
    pub(in crate::store) fn highest(&self, table: &str) -> Option<i64> {
        let from = self.from.as_ref()?;
        from.query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |r| r.get(0)).ok()
    }

    /// A counter of the damaged database, if it can be read.
    pub(in crate::store) fn counter(&self, scope: &str, name: &str) -> Option<i64> {
        let from = self.from.as_ref()?;
        from.query_row("SELECT value FROM counter WHERE scope = ?1 AND name = ?2", [scope, name], |r| {
            r.get(0)
        })
        .ok()
        .filter(|n| (0..1 << 53).contains(n))
    }
}

fn insert(table: &Table, columns: &[String]) -> String {
    let conflict = match (table.repair, table.key) {
        (Repair::Replaced, _) => "OR REPLACE ",
        // Read from both ends, rows are met twice.
        (_, Key::None) => "OR IGNORE ",
        _ => "",
    };
    let places = vec!["?"; columns.len()].join(", ");
    format!("INSERT {conflict}INTO {} ({}) VALUES ({places})", table.name, columns.join(", "))
}

/// Whether the new database took a row; an error that is not about the row is one.
fn taken(result: rusqlite::Result<usize>) -> Result<bool, OpenError> {
    match result {
        Ok(n) => Ok(n > 0),
        Err(e) => match e.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) => Ok(false),
            _ => Err(e.into()),
        },
    }
}

/// Columns of a table that both have; of the damaged one what its schema says.
fn columns_of_both(from: &Connection, into: &Connection, table: &str) -> Result<Vec<String>, OpenError> {
    let theirs = columns(from, table).unwrap_or_default();
    Ok(columns(into, table)?.into_iter().filter(|c| theirs.contains(c)).collect())
}

fn columns(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut select = conn.prepare("SELECT name FROM pragma_table_info(?1)")?;
    select.query_map([table], |r| r.get(0))?.collect()
}

/// Opens a damaged database to read what is left, with its WAL when that belongs to it.
pub(in crate::store) fn open_damaged(path: &Path, until: Instant) -> Option<Connection> {
    if !path.is_file() {
        return None;
    }
    let wal = std::fs::metadata(with(path, "-wal")).map_or(0, |m| m.len());
    if wal > 0 && std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
        // SQLite throws the WAL of an empty database away.
        let grown = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(OURS.bits().cast_signed())
            .open(path)
            .and_then(|f| f.set_len(4096));
        grown.ok()?;
    }
    // Without the schema nothing can be found in it. A read may fail once and work the next time.
    let once = |with_wal| view(path, with_wal).filter(schema::is_readable);
    let view = |with_wal| once(with_wal).or_else(|| once(with_wal));
    let with_wal = view(true);
    if wal == 0 {
        return with_wal;
    }
    let Some(without) = view(false) else { return with_wal };
    let Some(with_wal) = with_wal else { return Some(without) };
    let strange = matches!((schema::id(&with_wal), schema::id(&without)), (Some(a), Some(b)) if a != b);
    let is_fine = |conn: &Connection| integrity::complaint(conn, until).is_none();
    if strange || (!is_fine(&with_wal) && is_fine(&without)) {
        tracing::error!("the WAL does not belong to the database; it is left out");
        return Some(without);
    }
    Some(with_wal)
}

fn view(path: &Path, with_wal: bool) -> Option<Connection> {
    let conn = if with_wal {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags).ok()?
    } else {
        schema::open_frozen(path).ok()?
    };
    schema::keep_wal(&conn).ok()?;
    // A schema with a bad entry, or a file that is shorter than it says, is no reason to read nothing.
    for (name, value) in [
        ("writable_schema", 1),
        ("query_only", 1),
        ("cell_size_check", 1),
        ("trusted_schema", 0),
        ("mmap_size", 0),
    ] {
        schema::set(&conn, name, value).ok()?;
    }
    Some(conn)
}
