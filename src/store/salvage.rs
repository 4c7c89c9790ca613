//! What can still be read of a damaged database goes into a new one; what cannot is counted.
//!
//! Every table is read in the order of its key. Where a page is bad, the next key that can be read is searched by
//! doubling steps and halving back, so a bad page costs only what was on it. A row goes over when its checksum is right
//! and the new database takes it: its types, CHECKs, unique keys and references are the judges of what has no checksum.
//! Columns are copied by name; the new database has the schema of this version.
//!
//! The damaged file is only read. All of it is bounded by a deadline; what was not read by then is counted as lost.
//! `mend.rs` makes the new database whole afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};
use tokio::time::Instant;

use super::OpenError;
use super::files::with;
use super::op::sound::{AnyRow, is_sound, values};
use super::{examine, schema};

/// A table and how it is read.
struct Table {
    name: &'static str,
    key: Key,
}

enum Key {
    /// The column is SQLite's own number of the row. It is asked for by that name: where the column's is damaged, rows would
    /// be numbered anew, and what refers to them would refer to others.
    Row(&'static str),
    /// A number that does not shrink from row to row.
    Column(&'static str),
    /// The table is small and read at once.
    None,
}

const fn numbered(name: &'static str, column: &'static str) -> Table {
    Table { name, key: Key::Row(column) }
}

const fn ordered(name: &'static str, column: &'static str) -> Table {
    Table { name, key: Key::Column(column) }
}

const fn small(name: &'static str) -> Table {
    Table { name, key: Key::None }
}

/// References first. `fingerprint` is made anew.
const HEAD: [Table; 7] = [
    small("meta"),
    small("counter"),
    numbered("source", "id"),
    numbered("destination", "id"),
    numbered("route", "id"),
    numbered("alert", "id"),
    numbered("body_pack", "first_id"),
];
/// What hangs on alerts; read when those without a body are out.
const REST: [Table; 12] = [
    numbered("ticket", "id"),
    numbered("record", "id"),
    numbered("delivery", "id"),
    numbered("outcome", "id"),
    ordered("cursor", "source_id"),
    ordered("mark", "source_id"),
    small("hold"),
    small("health_issue"),
    numbered("sync", "id"),
    numbered("filtered_sample", "id"),
    numbered("reject_sample", "id"),
    numbered("repair", "id"),
];

/// Names that the whole store hangs on. They are also in an index, which is on other pages.
const NAMES: [(&str, &str); 3] = [
    (
        "SELECT id, name FROM source INDEXED BY sqlite_autoindex_source_1",
        "INSERT OR IGNORE INTO source (id, name, last_read_at) VALUES (?1, ?2, 0)",
    ),
    (
        "SELECT id, name FROM destination INDEXED BY sqlite_autoindex_destination_1",
        "INSERT OR IGNORE INTO destination (id, name) VALUES (?1, ?2)",
    ),
    (
        "SELECT id, destination_id, table_name FROM route INDEXED BY sqlite_autoindex_route_1",
        "INSERT OR IGNORE INTO route (id, destination_id, table_name) VALUES (?1, ?2, ?3)",
    ),
];

/// Who refers to whom: a row that cannot be taken because its parent is missing is a witness of that parent.
const PARENTS: [(&str, &str, &str); 7] = [
    ("ticket", "alert_id", "alert"),
    ("ticket", "route_id", "route"),
    ("delivery", "ticket_id", "ticket"),
    ("delivery", "route_id", "route"),
    ("delivery", "record_id", "record"),
    ("record", "alert_id", "alert"),
    ("record", "route_id", "route"),
];

/// Most ids that are remembered as lost, by table: 16 bytes each. Beyond, the count is a lower bound.
const WITNESSES: usize = 200_000;

/// What came over of a table, and what is known to be lost.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    pub(super) salvaged: u64,
    pub(super) lost: BTreeSet<i64>,
    /// Some of it could not be read; how many rows is unknown.
    pub(super) unread: bool,
}

/// Copies from a damaged database into a new one, which is in a transaction.
pub(super) struct Salvage<'a> {
    /// None: nothing of it can be opened.
    pub(super) from: Option<Connection>,
    pub(super) into: &'a Connection,
    until: Instant,
    pub(super) tables: BTreeMap<&'static str, Copied>,
    /// Nothing was left out because of the deadline.
    pub(super) in_time: bool,
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
    pub(super) fn new(from: Option<Connection>, into: &'a Connection, until: Instant) -> Self {
        Self { from, into, until, tables: BTreeMap::new(), in_time: true }
    }

    /// All up to the alerts and their bodies.
    pub(super) fn copy_alerts(&mut self) -> Kept {
        self.copy_all(&HEAD)
    }

    /// What hangs on the alerts.
    pub(super) fn copy_rest(&mut self) -> Kept {
        self.copy_all(&REST)
    }

    fn copy_all(&mut self, tables: &'static [Table]) -> Kept {
        let Some(from) = self.from.take() else { return Ok(()) };
        let mut result = Ok(());
        for table in tables {
            result = result.and_then(|()| self.copy(&from, table));
        }
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
                self.copy_keyed(from, table.name, "rowid", &list, &columns)?;
            }
            Key::Column(column) if columns.iter().any(|c| c == column) => {
                self.copy_keyed(from, table.name, column, &columns.join(", "), &columns)?;
            }
            Key::Column(_) | Key::None => self.copy_small(from, table.name, &columns)?,
        }
        let Some(names) = NAMES.iter().find(|(read, _)| read.contains(&format!(" {} ", table.name))) else {
            return Ok(());
        };
        self.copy_names(from, names)
    }

    /// `list`: what is read into these columns.
    fn copy_keyed(
        &mut self,
        from: &Connection,
        table: &'static str,
        key: &str,
        list: &str,
        columns: &[String],
    ) -> Kept {
        let sql = format!("SELECT {key}, {list} FROM {table} WHERE {key} > ?1 ORDER BY {key}");
        let probe = format!("{sql} LIMIT 1");
        let mut insert = self.into.prepare(&insert(table, columns))?;
        let (mut after, mut tried) = (0, None);
        loop {
            match self.read(from, &sql, after, |this, row| this.keep(&mut insert, table, row), columns)? {
                Stop::End => return Ok(()),
                Stop::Late => {
                    (self.in_time, self.tables.entry(table).or_default().unread) = (false, true);
                    return Ok(());
                }
                // A read may fail once and work the next time.
                Stop::Bad(at) if at < i64::MAX && tried != Some(at) => (after, tried) = (at, Some(at)),
                Stop::Bad(at) => {
                    self.tables.entry(table).or_default().unread = true;
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
    fn copy_small(&mut self, from: &Connection, table: &'static str, columns: &[String]) -> Kept {
        let list = columns.join(", ");
        let mut insert = self.into.prepare(&insert(table, columns))?;
        for order in ["", " ORDER BY 1 DESC, 2 DESC"] {
            let Ok(mut select) = from.prepare(&format!("SELECT {list} FROM {table}{order}")) else {
                self.tables.entry(table).or_default().unread = true;
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
            self.tables.entry(table).or_default().unread = true;
        }
        Ok(())
    }

    fn copy_names(&mut self, from: &Connection, (read, write): &(&str, &str)) -> Kept {
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
    fn keep(&mut self, insert: &mut rusqlite::Statement<'_>, table: &'static str, row: AnyRow<'_>) -> Kept {
        let id = row.values.first().and_then(|v| if let Value::Integer(n) = v { Some(*n) } else { None });
        let taken = is_sound(table, row) && taken(insert.execute(params_from_iter(row.values.iter())))?;
        let copied = self.tables.entry(table).or_default();
        if taken {
            copied.salvaged += 1;
            return Ok(());
        }
        remember(copied, id);
        for (_, column, parent) in PARENTS.iter().filter(|(child, ..)| *child == table) {
            let Some(id) = row.int(column) else { continue };
            let sql = format!("SELECT EXISTS (SELECT 1 FROM {parent} WHERE id = ?1)");
            let there: bool = self.into.prepare_cached(&sql)?.query_row([id], |r| r.get(0))?;
            // What names it may be damaged itself, so only a sound row is a witness.
            if !there && is_sound(table, row) {
                remember(self.tables.entry(parent).or_default(), Some(id));
            }
        }
        Ok(())
    }

    /// Ids that an index still knows of a table that could not be read.
    pub(super) fn ask_index(&mut self, table: &'static str, index: &str) -> Kept {
        let Some(from) = &self.from else { return Ok(()) };
        let Ok(mut select) = from.prepare(&format!("SELECT id FROM {table} INDEXED BY {index}")) else {
            return Ok(());
        };
        let Ok(mut rows) = select.query([]) else { return Ok(()) };
        let mut known = self.into.prepare(&format!("SELECT EXISTS (SELECT 1 FROM {table} WHERE id = ?1)"))?;
        let copied = self.tables.entry(table).or_default();
        while let Ok(Some(row)) = rows.next() {
            if let Ok(id) = row.get::<_, i64>(0)
                && !known.query_row([id], |r| r.get::<_, bool>(0))?
            {
                remember(copied, Some(id));
            }
        }
        Ok(())
    }

    /// The highest id that a table ever had, if that can be read.
    pub(super) fn highest(&self, table: &str) -> Option<i64> {
        let from = self.from.as_ref()?;
        from.query_row("SELECT seq FROM sqlite_sequence WHERE name = ?1", [table], |r| r.get(0)).ok()
    }

    /// A counter of the damaged database, if it can be read.
    pub(super) fn tally(&self, scope: &str, name: &str) -> Option<i64> {
        let from = self.from.as_ref()?;
        from.query_row("SELECT value FROM counter WHERE scope = ?1 AND name = ?2", [scope, name], |r| {
            r.get(0)
        })
        .ok()
        .filter(|n| (0..1 << 53).contains(n))
    }
}

fn remember(copied: &mut Copied, id: Option<i64>) {
    match id {
        Some(id) if copied.lost.len() < WITNESSES => {
            copied.lost.insert(id);
        }
        _ => copied.unread = true,
    }
}

fn insert(table: &str, columns: &[String]) -> String {
    // What the new database says of itself stands; rows that were read from both ends are met twice.
    let conflict = match table {
        "meta" | "hold" | "health_issue" => "OR IGNORE ",
        "counter" => "OR REPLACE ",
        _ => "",
    };
    let places = vec!["?"; columns.len()].join(", ");
    format!("INSERT {conflict}INTO {table} ({}) VALUES ({places})", columns.join(", "))
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
pub(super) fn open_damaged(path: &Path, until: Instant) -> Option<Connection> {
    if !path.is_file() {
        return None;
    }
    let wal = std::fs::metadata(with(path, "-wal")).map_or(0, |m| m.len());
    if wal > 0 && std::fs::metadata(path).is_ok_and(|m| m.len() == 0) {
        // SQLite throws the WAL of an empty database away.
        let grown = std::fs::OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(4096));
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
    let is_fine = |conn: &Connection| examine::complaint(conn, until).is_none();
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
