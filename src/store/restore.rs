//! A copy comes back: its rows go into a new database of the same schema, one by one, and that one takes the place of the
//! store. Whoever made the file may have put anything into it, so nothing of its own schema lives on: no trigger, view,
//! index, generated column or virtual table. Its tables are only read, by a connection that trusts nothing the schema
//! says; a row that does not fit, or whose checksum does not match, refuses the whole file.
//!
//! The file may be for root alone, and root works in the state directory as the owner of it: [`Given`] is opened before.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use tokio::time::Instant;

use crate::model::Timestamp;
use crate::store::backup::{Copy, CopyError, digest};
use crate::store::catalog::{AnyRow, Key, TABLES, Table, values};
use crate::store::disk::files::{self, Aside, failed, is_there, seal, sync_dir, with};
use crate::store::disk::lock::StateLock;
use crate::store::op::plan;
use crate::store::repair::swap::{self, Swap};
use crate::store::repair::{self, integrity, rebuild};
use crate::store::schema::{self, Says};
use crate::store::{DATABASE, OpenError, Settings};

/// Most parts of a strange schema that are named.
const NAMED: usize = 5;
/// Ids and sequences stay below it.
const ID_MAX: i64 = 1 << 53;

/// A copy that was put in the store's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it is.
    pub copy: Copy,
    /// Where the database is kept that was there before.
    pub kept_as: Option<PathBuf>,
    /// What else was in the file and is not in the store: `trigger name`, a few of them.
    pub left_out: Vec<String>,
}

/// A file that is to be restored, open.
#[derive(Debug)]
pub struct Given {
    path: PathBuf,
    file: File,
    /// None where it has a WAL: then it is opened as any database, by who may.
    conn: Option<Connection>,
}

impl Given {
    /// Opens it to be read, and nothing beside it.
    ///
    /// # Errors
    /// [`CopyError::Unfit`].
    pub fn open(path: &Path) -> Result<Self, CopyError> {
        let unfit = |why: String| CopyError::Unfit { path: path.to_owned(), why };
        // A pipe is not waited for.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.map_err(|e| unfit(e.to_string()))?;
        let meta = file.metadata().map_err(|e| unfit(e.to_string()))?;
        if !meta.is_file() || meta.len() == 0 {
            return Err(unfit("it is not a file, or an empty one".to_owned()));
        }
        let has_wal = std::fs::metadata(with(path, "-wal")).is_ok_and(|m| m.len() > 0);
        let conn =
            if has_wal { None } else { Some(schema::open_frozen(path).map_err(|e| unfit(e.to_string()))?) };
        Ok(Self { path: path.to_owned(), file, conn })
    }

    fn unfit(&self, why: impl Into<String>) -> CopyError {
        CopyError::Unfit { path: self.path.clone(), why: why.into() }
    }

    /// Whether it can be the store at all, before anything of it is read.
    fn judge(&self, settings: &Settings) -> Result<(), CopyError> {
        let meta = self.file.metadata().map_err(failed(&self.path))?;
        let store = std::fs::metadata(settings.dir.join(DATABASE));
        if store.is_ok_and(|store| (store.dev(), store.ino()) == (meta.dev(), meta.ino())) {
            return Err(self.unfit("it is the store itself"));
        }
        if meta.len() > settings.max_size {
            let (has, most) = (meta.len(), settings.max_size);
            return Err(
                self.unfit(format!("it has {has} bytes, [buffer] max_size is {most}: raise it first"))
            );
        }
        Ok(())
    }

    /// The connection that its rows are read by.
    fn connect(&mut self) -> Result<Connection, CopyError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => schema::open_readonly(&self.path)?,
        };
        let distrust = || -> rusqlite::Result<()> {
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            for (name, value) in
                [("query_only", 1), ("cell_size_check", 1), ("mmap_size", 0), ("temp_store", 2)]
            {
                schema::set(&conn, name, value)?;
            }
            Ok(())
        };
        distrust().map_err(|e| self.unfit(e.to_string()))?;
        Ok(conn)
    }

    /// Its schema, if it is a whole store that this version knows.
    fn version(&self, conn: &Connection) -> Result<i64, CopyError> {
        let version = match schema::says(conn, &self.path) {
            Ok(Says::Ours(0)) => return Err(self.unfit("there is nothing in it")),
            Ok(Says::Ours(version)) => version,
            Ok(Says::Damaged(why)) => return Err(self.unfit(why)),
            Err(OpenError::Sqlite(e)) => return Err(self.unfit(e.to_string())),
            Err(e) => return Err(e.into()),
        };
        // No deadline: a person waits, and wants to know.
        match integrity::complaint(conn, Instant::now() + Duration::from_hours(24)) {
            Some(why) => Err(self.unfit(why)),
            None => Ok(version),
        }
    }
}

/// Puts a copy in the place of the store. What was there is kept beside. Nothing may run on the directory. What was
/// waiting in the copy may have been sent since, so it is doubtful: looked up before it is sent. Blocking.
///
/// # Errors
/// [`CopyError`], [`OpenError::Locked`] while an agent runs, [`OpenError::Newer`].
pub fn restore(settings: &Settings, mut given: Given, now: Timestamp) -> Result<Restored, CopyError> {
    files::make_dir(&settings.dir)?;
    let mut lock = StateLock::take(&settings.dir)?;
    repair::go_on(settings, now)?;
    given.judge(settings)?;
    let conn = given.connect()?;
    let version = given.version(&conn)?;
    let new = Swap::new_path(&settings.dir);
    swap::clear_new(&settings.dir)?;
    let made = fill(&given, &conn, &new, version).and_then(|left_out| {
        seal(&new)?;
        Ok((left_out, digest(&mut given.file).map_err(failed(&given.path))?))
    });
    drop(conn);
    let (left_out, (bytes, sha256)) = made.inspect_err(|_| drop(swap::clear(&settings.dir)))?;
    let kept_as = put_in(settings, &new, now)?;
    lock.clean();
    Ok(Restored { copy: Copy { bytes, sha256, schema: version }, kept_as, left_out })
}

/// Exchanges the store for the new database. Gives where the old one is kept.
fn put_in(settings: &Settings, new: &Path, now: Timestamp) -> Result<Option<PathBuf>, OpenError> {
    let path = settings.dir.join(DATABASE);
    if files::SIDES.iter().any(|side| is_there(&with(&path, side))) {
        let swap = Swap::begin(&settings.dir, Aside::BeforeRestore, "", now)?;
        let kept = swap.kept();
        repair::finish(swap, settings, now)?;
        return Ok(Some(kept));
    }
    std::fs::rename(new, &path).map_err(failed(new))?;
    sync_dir(&settings.dir)?;
    Ok(None)
}

/// Makes a new database of the rows of a given one. Gives what was left out.
fn fill(given: &Given, from: &Connection, new: &Path, version: i64) -> Result<Vec<String>, CopyError> {
    let into = schema::create(new, version)?;
    into.execute_batch("BEGIN")?;
    let left_out = strange(given, from, &into)?;
    for table in TABLES {
        copy(given, from, &into, table)?;
    }
    rebuild::index_fingerprints(&into)?;
    raise_sequences(from, &into).map_err(|e| given.unfit(e.to_string()))?;
    plan::write_all(&into).map_err(OpenError::Repair)?;
    // All that waits in it may have been sent after it was made.
    into.execute_batch("UPDATE delivery SET doubtful = 1 WHERE state IN ('pending', 'claimed'); COMMIT")?;
    into.close().map_err(|(_, e)| e)?;
    Ok(left_out)
}

/// What is in the schema of a file and not in ours.
fn strange(given: &Given, from: &Connection, into: &Connection) -> Result<Vec<String>, CopyError> {
    let parts = |conn: &Connection| -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY 1";
        conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let ours = parts(into)?;
    let theirs = parts(from).map_err(|e| given.unfit(e.to_string()))?;
    Ok(theirs.into_iter().filter(|part| !ours.contains(part)).take(NAMED).collect())
}

/// The columns that hold values; none where it is no ordinary table.
fn columns(conn: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type = 'table' AND rootpage > 0)";
    if !conn.query_row(sql, [table], |row| row.get(0))? {
        return Ok(Vec::new());
    }
    let mut select = conn.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid")?;
    select.query_map([table], |row| row.get(0))?.collect()
}

/// Copies the rows of a table, each looked at.
fn copy(given: &Given, from: &Connection, into: &Connection, table: &Table) -> Result<(), CopyError> {
    let name = table.name;
    // A version before this one may not have it yet.
    let ours = columns(into, name)?;
    let unfit = |e: &rusqlite::Error| given.unfit(format!("table {name}: {e}"));
    let theirs = columns(from, name).map_err(|e| unfit(&e))?;
    if let Some(column) = ours.iter().find(|column| !theirs.contains(column)) {
        return Err(given.unfit(format!("its table {name} has no column {column}")));
    }
    if ours.is_empty() {
        return Ok(());
    }
    let (list, places) = (ours.join(", "), vec!["?"; ours.len()].join(", "));
    // Of its own a new database has its id and its counters.
    let sql = format!("INSERT OR REPLACE INTO {name} ({list}) VALUES ({places})");
    let plain = format!("INSERT INTO {name} ({list}) VALUES ({places})");
    let mut insert = into.prepare(if table.key == Key::None { &sql } else { &plain })?;
    let mut select = from.prepare(&format!("SELECT {list} FROM main.{name}")).map_err(|e| unfit(&e))?;
    let mut rows = select.query([]).map_err(|e| unfit(&e))?;
    while let Some(row) = rows.next().map_err(|e| unfit(&e))? {
        let values = values(row, ours.len()).map_err(|e| unfit(&e))?;
        let row = AnyRow { columns: &ours, values: &values };
        if !table.is_sound(row) {
            let id = match table.key {
                Key::Row(column) | Key::Column(column) => row.int(column).unwrap_or_default(),
                Key::None => 0,
            };
            return Err(given.unfit(format!("the checksum of {name} {id} does not match")));
        }
        insert.execute(params_from_iter(values)).map_err(|e| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull | rusqlite::ErrorCode::SystemIoFailure) => e.into(),
            _ => unfit(&e),
        })?;
    }
    Ok(())
}

/// Ids go on where they were: a late answer must not hit another row.
fn raise_sequences(from: &Connection, into: &Connection) -> rusqlite::Result<()> {
    for table in TABLES {
        let sql = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
        let seq: Option<i64> = from.query_row(sql, [table.name], |row| row.get(0)).optional()?;
        let Some(seq) = seq.filter(|seq| (0..ID_MAX).contains(seq)) else { continue };
        // Absent while the table is empty, and in tables whose numbers are not SQLite's.
        let set = into.execute(
            "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
            rusqlite::params![table.name, seq],
        )?;
        if set == 0 && is_numbered(into, table.name)? {
            into.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
                rusqlite::params![table.name, seq],
            )?;
        }
    }
    Ok(())
}

fn is_numbered(conn: &Connection, table: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 AND sql LIKE '%AUTOINCREMENT%')";
    conn.query_row(sql, [table], |row| row.get(0))
}
