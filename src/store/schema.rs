//! Opening the database: settings that are read back and asserted, migrations forward only, newer schemas refused.
//!
//! Every setting has its reason in docs/figures.md or ARCHITECTURE.md; the two that matter most are `journal_mode=WAL`
//! with `synchronous=FULL` (a commit that was answered survives a power cut) and `mmap_size=0` (an I/O error is an
//! error, not a SIGBUS).

use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use super::OpenError;
use super::space::Budget;

/// Page cache in KiB (negative: KiB, not pages). The largest single block of memory of the agent.
const CACHE_SIZE: i64 = -2_000;
/// The WAL-reset bug is present until 3.51.2.
const OLDEST_SQLITE: i32 = 3_051_003;

const STEPS: &[M<'static>] =
    &[M::up(include_str!("migrations/0001_init.sql")), M::up(include_str!("migrations/0002_body_packs.sql"))];

/// The schema version that this program writes.
pub(super) const VERSION: i64 = STEPS.len() as i64;

fn migrations() -> Migrations<'static> {
    Migrations::from_slice(STEPS)
}

/// Opens for writing, creating it when it is not there.
pub(super) fn open_writer(path: &Path, budget: &Budget) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(OpenError::OldSqlite(rusqlite::version().to_owned()));
    }
    let fresh = !path.exists();
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
    settings(&conn, budget)?;
    to_latest(&mut conn)?;
    Ok(conn)
}

/// Takes the steps that are missing.
pub(super) fn to_latest(conn: &mut Connection) -> Result<(), OpenError> {
    migrations().to_latest(conn).map_err(|e| OpenError::Migration(Box::new(e)))
}

/// Opens for reading beside a running writer, or without one.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    if !path.exists() {
        return Err(OpenError::Absent(path.to_owned()));
    }
    // Read-only connections of a WAL database have to create the -shm file, hence READ_WRITE with query_only.
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let readable = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
    // On a read-only file system, or a full one, there is no -shm to be made.
    let conn = if readable.is_ok() { conn } else { super::memory::open_readonly(path)? };
    refuse_newer(&conn, path)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "busy_timeout", 5_000)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(conn)
}

/// Leaves a file alone that a newer otrelay wrote.
pub(super) fn refuse_newer(conn: &Connection, path: &Path) -> Result<(), OpenError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > VERSION {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    Ok(())
}

fn settings(conn: &Connection, budget: &Budget) -> Result<(), OpenError> {
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
    fn settings_hold_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for _ in 0..2 {
            let conn = open_writer(&path, &Budget::of(64 << 20)).unwrap();
            let get = |name| conn.pragma_query_value(None, name, |r| r.get::<_, i64>(0)).unwrap();
            assert_eq!((get("synchronous"), get("foreign_keys"), get("auto_vacuum")), (2, 1, 2));
            assert_eq!(get("user_version"), VERSION);
            assert_eq!(get("max_page_count"), Budget::of(64 << 20).pages);
        }
    }

    #[test]
    fn a_newer_schema_is_refused_and_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let conn = open_writer(&path, &Budget::of(64 << 20)).unwrap();
        conn.pragma_update(None, "user_version", VERSION + 1).unwrap();
        drop(conn);
        let before = std::fs::read(&path).unwrap();
        let refused = open_writer(&path, &Budget::of(64 << 20)).map(|_| ()).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found, .. } if found == VERSION + 1), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(open_reader(&path).is_err());
    }
}
