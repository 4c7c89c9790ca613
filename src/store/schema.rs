//! Opening the database: settings that are read back and asserted, migrations forward only, newer schemas refused.
//!
//! Every setting has its reason in docs/figures.md or ARCHITECTURE.md; the two that matter most are `journal_mode=WAL`
//! with `synchronous=FULL` (a commit that was answered survives a power cut) and `mmap_size=0` (an I/O error is an
//! error, not a SIGBUS).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rusqlite_migration::{M, Migrations};

use crate::store::OpenError;
use crate::store::disk::files::{create_ours, failed, is_absent, with};
use crate::store::disk::space::Budget;

/// Page cache in KiB (negative: KiB, not pages). The largest single block of memory of the agent.
const CACHE_SIZE: i64 = -2_000;
/// The WAL-reset bug is present until 3.51.2.
const OLDEST_SQLITE: i32 = 3_051_003;
/// `OTRL`: the file is ours.
pub(super) const APPLICATION: i64 = 0x4f54_524c;

const STEPS: &[M<'static>] = &[M::up(include_str!("migrations/0001_init.sql"))];

/// The schema version that this program writes.
pub(super) fn version() -> i64 {
    steps().len() as i64
}

fn migrations() -> Migrations<'static> {
    Migrations::from_slice(steps())
}

#[cfg(not(test))]
fn steps() -> &'static [M<'static>] {
    STEPS
}

#[cfg(test)]
fn steps() -> &'static [M<'static>] {
    later::steps()
}

/// A program of a later version, in tests: one whose schema has one more step. By thread, as tests run side by side.
#[cfg(test)]
pub(super) mod later {
    use std::cell::Cell;

    use super::{M, STEPS};

    /// The last step makes a table and a row of it.
    const MORE: &[M<'static>] = &[
        M::up(include_str!("migrations/0001_init.sql")),
        M::up(
            "CREATE TABLE later (id INTEGER PRIMARY KEY) STRICT; INSERT INTO later SELECT id FROM alert;
             UPDATE meta SET value = '2' WHERE key = 'schema';",
        ),
    ];

    thread_local! {
        static IS: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes this thread's program the later one, or the present one again.
    pub(in super::super) fn be(later: bool) {
        IS.set(later);
    }

    pub(super) fn steps() -> &'static [M<'static>] {
        if IS.get() { MORE } else { STEPS }
    }
}

/// What a file says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// A database of ours, of this schema; 0: nothing is in it yet.
    Ours(i64),
    /// What is wrong with it.
    Damaged(String),
}

/// Looks at a database without changing it or its WAL.
///
/// # Errors
/// [`OpenError::Newer`]; or it cannot be read at all, for a reason that is not in the file.
pub(super) fn probe(path: &Path) -> Result<Says, OpenError> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    keep_wal(&conn)?;
    set(&conn, "busy_timeout", 5_000)?;
    set(&conn, "trusted_schema", 0)?;
    // Only who has read the header knows.
    conn.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
    // SQLite only reads a file whose header says a format that is newer than it.
    if conn.is_readonly(rusqlite::MAIN_DB)? && rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
    {
        return Ok(Says::Damaged("its header says that it may only be read".to_owned()));
    }
    says(&conn, path)
}

/// What an open database says of itself.
///
/// # Errors
/// As of [`probe`].
pub(super) fn says(conn: &Connection, path: &Path) -> Result<Says, OpenError> {
    let get = |name: &str| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (found, application) = (get("user_version")?, get("application_id")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if tables == 0 && found == 0 {
        return Ok(Says::Ours(0));
    }
    let noted = noted_version(conn)?;
    // A newer version notes its own number, so one bit more in the header than in the note is a flipped bit.
    let is_flip = noted.is_some_and(|n| n <= version() && (n ^ found).count_ones() == 1);
    if found > version() && !is_flip && (noted.is_some() || application == APPLICATION) {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: version() });
    }
    let (APPLICATION, Some(noted)) = (application, noted) else {
        return Ok(Says::Damaged("it is a database of another program".to_owned()));
    };
    if noted != found {
        return Ok(Says::Damaged(format!("its header says schema {found}, but it is {noted}")));
    }
    if !has_counters(conn)? {
        return Ok(Says::Damaged("its counters are gone".to_owned()));
    }
    Ok(Says::Ours(found))
}

/// Whether the counters are there that nothing takes away. Two small tables whose pages were swapped
/// are each sound to SQLite.
fn has_counters(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) = 3 FROM counter WHERE scope = 'store' AND name IN ('alerts', 'tickets', 'deliveries')";
    Ok(conn.query_row(sql, [], |r| r.get(0))? && id(conn).is_some())
}

/// The schema by what is in the database, not by its header.
fn noted_version(conn: &Connection) -> rusqlite::Result<Option<i64>> {
    let has = |table: &str| -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        conn.query_row(sql, [table], |r| r.get(0))
    };
    if !has("meta")? || !has("alert")? || !has("delivery")? {
        return Ok(None);
    }
    let noted: Option<String> =
        conn.query_row("SELECT value FROM meta WHERE key = 'schema'", [], |r| r.get(0)).optional()?;
    Ok(noted.and_then(|noted| noted.parse().ok()))
}

/// Whether the tables of a damaged database can be found.
pub(super) fn is_readable(conn: &Connection) -> bool {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE name IN ('alert', 'ticket', 'delivery')";
    conn.query_row(sql, [], |r| r.get::<_, i64>(0)).is_ok_and(|n| n > 0)
}

/// Which database this is.
pub(super) fn id(conn: &Connection) -> Option<String> {
    conn.query_row("SELECT value FROM meta WHERE key = 'id'", [], |r| r.get(0)).ok()
}

/// Whether the WAL beside a database carries the id of another one. A WAL of a full set of pages replaces all there is,
/// and nothing in SQLite's format would tell.
pub(super) fn has_strange_wal(path: &Path) -> bool {
    if std::fs::metadata(with(path, "-wal")).map_or(0, |m| m.len()) == 0 {
        return false;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let (Ok(whole), Ok(frozen)) = (Connection::open_with_flags(path, flags), open_frozen(path)) else {
        return false;
    };
    keep_wal(&whole).is_ok() && matches!((id(&whole), id(&frozen)), (Some(a), Some(b)) if a != b)
}

/// Leaves the WAL as it is when the connection closes. For all but the writer: who closes last would write it back and
/// delete it *by name*, and by then the name may belong to another database.
pub(super) fn keep_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(|_| ())
}

/// Sets a pragma that may answer.
pub(super) fn set(conn: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    conn.pragma_update(None, name, value).or_else(ignore_answer)
}

/// Opens what is in the file itself, without its WAL, to read.
pub(super) fn open_frozen(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri(path, "immutable=1"), flags)
}

/// How a file is read that cannot be written: with its WAL where that is there, by an index in memory where the one beside
/// it has no room to grow (a full disk); after a clean stop there is none, and then the file alone is the truth. SQLite
/// cannot know that nobody will write it, so it has to be told.
pub(super) const WAYS: [&str; 3] =
    ["vfs=unix&mode=ro&readonly_shm=1", "vfs=unix&mode=ro", "vfs=unix&immutable=1"];

/// Opens a database that cannot be written, or not now. Blocking.
///
/// # Errors
/// When it cannot be read either.
pub(super) fn open_readonly(path: &Path) -> Result<Connection, OpenError> {
    let open = |more: &str| -> Result<Connection, rusqlite::Error> {
        let conn = Connection::open_with_flags(
            uri(path, more),
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        conn.pragma_update(None, "trusted_schema", false)?;
        Ok(conn)
    };
    let [without_index, with_index, alone] = WAYS;
    let opened = open(without_index).or_else(|_| open(with_index));
    if std::fs::metadata(with(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        // Without its log the file is an older state, or none: pages of a checkpoint that was begun are in it.
        return Ok(opened?);
    }
    Ok(opened.or_else(|_| open(alone))?)
}

/// The name of a file for SQLite, with what it has to know.
pub(super) fn uri(path: &Path, more: &str) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.extend(format!("%{byte:02x}").chars()),
        }
    }
    format!("{uri}?{more}")
}

/// Another connection to the store of this name, for lists and status.
pub(super) fn open_memory_reader(name: &str) -> Result<Connection, OpenError> {
    let conn = open_memory(name)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// Opens the store in memory of this name.
pub(super) fn open_memory(name: &str) -> Result<Connection, OpenError> {
    let conn = Connection::open_with_flags(
        name,
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.pragma_update(None, "busy_timeout", 5_000)?;
    Ok(conn)
}

/// A new database of this schema at `path`, where nothing is yet, to be filled and closed before anybody relies on it: nothing of
/// it is synced.
pub(super) fn create(path: &Path, version: i64) -> Result<Connection, OpenError> {
    create_ours(path).map_err(failed(path))?;
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.pragma_update(None, "page_size", 4096)?;
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Not OFF: a row that breaks a rule has to be taken back. Pages of a new file are not journaled, so it stays small.
    conn.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    for (name, value) in
        [("synchronous", 0), ("foreign_keys", 1), ("cache_size", CACHE_SIZE), ("temp_store", 2)]
    {
        set(&conn, name, value)?;
    }
    let made = migrations().to_version(&mut conn, version as usize);
    made.map_err(|e| OpenError::Migration(Box::new(e)))?;
    Ok(conn)
}

/// Takes the steps that are missing.
pub(super) fn to_latest(conn: &mut Connection) -> Result<(), OpenError> {
    migrations().to_latest(conn).map_err(|e| OpenError::Migration(Box::new(e)))
}

/// Opens for writing, creating it when it is not there. An older schema is brought to this one in a single transaction:
/// whatever stops it, the file is as the older version left it.
pub(super) fn open_writer(path: &Path, max_size: u64) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::OldSqlite(rusqlite::version().to_owned()));
    }
    let fresh = is_absent(path)?;
    let mut conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    if !fresh {
        refuse_newer(&conn, path)?;
    }
    if fresh {
        // Both can only be chosen before the first table is made.
        conn.pragma_update(None, "page_size", 4096)?;
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    settings(&conn, max_size)?;
    migrations().to_latest(&mut conn).map_err(|e| OpenError::Migration(Box::new(e)))?;
    add_swept(&conn)?;
    Ok(conn)
}

/// A column that came into schema 1 before that was released. One statement: it is there or not.
fn add_swept(conn: &Connection) -> Result<(), OpenError> {
    let has = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('route') WHERE name = 'swept')
               OR NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'route')";
    if !conn.query_row(has, [], |r| r.get::<_, bool>(0))? {
        conn.execute_batch("ALTER TABLE route ADD COLUMN swept INTEGER")?;
    }
    Ok(())
}

/// Opens for reading beside a running writer, or without one.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let conn = open_beside(path)?;
    conn.pragma_update(None, "query_only", true)?;
    Ok(conn)
}

/// The same for a copy, which SQLite does not take for reading.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    if is_absent(path)? {
        return Err(OpenError::Absent(path.to_owned()));
    }
    // Read-only connections of a WAL database have to create the -shm file, hence READ_WRITE.
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let readable = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    // On a read-only file system, or a full one, there is no -shm to be made.
    let cannot =
        readable.is_err_and(|e| matches!(super::StoreError::of(&e), crate::store::StoreError::Disk(_)));
    let conn = if cannot {
        // Its index would be shared with this one.
        drop(conn);
        open_readonly(path)?
    } else {
        conn
    };
    keep_wal(&conn)?;
    refuse_newer(&conn, path)?;
    conn.pragma_update(None, "busy_timeout", 5_000)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(conn)
}

/// Says no to a newer schema, and leaves it as it is.
pub(super) fn refuse_newer(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > version() {
        keep_wal(conn)?;
        return Err(OpenError::Newer { path: path.to_owned(), found, known: version() });
    }
    Ok(())
}

/// Pages that the database may have: the WAL and its checkpoint live beside them within `max_size`.
pub(super) fn pages(max_size: u64) -> i64 {
    Budget::of(max_size).pages
}

fn settings(conn: &Connection, max_size: u64) -> Result<(), OpenError> {
    let budget = Budget::of(max_size);
    let wanted: [(&str, i64); 11] = [
        ("synchronous", 2),
        ("wal_autocheckpoint", budget.checkpoint_pages as i64),
        ("journal_size_limit", budget.wal as i64),
        ("busy_timeout", 5_000),
        ("foreign_keys", 1),
        ("mmap_size", 0),
        ("cache_size", CACHE_SIZE),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("temp_store", 2),
        ("max_page_count", budget.pages),
    ];
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Setting { name: "journal_mode", wanted: "wal".to_owned(), found: mode });
    }
    for (name, value) in wanted {
        conn.pragma_update(None, name, value).or_else(ignore_answer)?;
        let found: i64 = conn.pragma_query_value(None, name, |row| row.get(0)).or_else(|e| match e {
            // mmap_size answers nothing where mmap is compiled out.
            rusqlite::Error::QueryReturnedNoRows if value == 0 => Ok(0),
            e => Err(e),
        })?;
        // An existing database may already be larger than a lowered max_size: SQLite then keeps its size.
        if found != value && name != "max_page_count" {
            return Err(OpenError::Setting { name, wanted: value.to_string(), found: found.to_string() });
        }
    }
    Ok(())
}

/// Some pragmas answer with a row when they are set; that is no error.
fn ignore_answer(e: rusqlite::Error) -> rusqlite::Result<()> {
    match e {
        rusqlite::Error::ExecuteReturnedResults => Ok(()),
        e => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_valid() {
        migrations().validate().unwrap();
    }

    #[test]
    fn a_header_that_lets_sqlite_only_read_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        drop(open_writer(&path, 64 << 20).unwrap());
        assert!(matches!(probe(&path).unwrap(), Says::Ours(1)));
        let mut bytes = std::fs::read(&path).unwrap();
        // The format for writing: 2 is WAL, and what is above it is of a time to come.
        bytes[18] = 3;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(probe(&path).unwrap(), Says::Damaged(cause) if cause.contains("only be read")));
    }

    #[test]
    fn settings_hold_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for _ in 0..2 {
            let conn = open_writer(&path, 64 << 20).unwrap();
            let get = |name| conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).unwrap();
            assert_eq!((get("synchronous"), get("foreign_keys"), get("auto_vacuum")), (2, 1, 2));
            assert_eq!(get("user_version"), version());
            assert_eq!(get("max_page_count"), pages(64 << 20));
        }
    }

    #[test]
    fn a_newer_schema_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let conn = open_writer(&path, 64 << 20).unwrap();
        conn.pragma_update(None, "user_version", version() + 1).unwrap();
        drop(conn);
        let before = std::fs::read(&path).unwrap();
        let refused = open_writer(&path, 64 << 20).map(|_| ()).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found, .. } if found == version() + 1), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(open_reader(&path).is_err());
    }
}
