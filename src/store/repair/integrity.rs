//! What is wrong with a database that opens: pages and references, and the schema itself. Only looks; `mod.rs` does
//! something about it.
//!
//! A complaint has to be about what was read. A read that failed once, or a look that ran out of time, is none.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension};
use tokio::time::Instant;

use crate::store::OpenError;
use crate::store::schema::to_latest;

/// Names of columns, and the text of what stands beside the tables: the WHERE of an index decides what is in it. The text of
/// a table is SQLite's own after a column was added.
const SHAPE: &str = "SELECT m.name || '.' || p.name FROM sqlite_schema m, pragma_table_info(m.name) p
       WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%'
     UNION ALL SELECT m.name || ' ' || m.sql FROM sqlite_schema m WHERE m.type <> 'table' AND m.sql IS NOT NULL
     ORDER BY 1";

/// What in the schema of a database of this version is not as it was made. SQLite takes any that it can parse.
pub(in crate::store) fn misshapen(conn: &Connection) -> Result<Option<String>, OpenError> {
    let shape = |conn: &Connection| -> rusqlite::Result<Vec<String>> {
        conn.prepare(SHAPE)?.query_map([], |row| row.get(0))?.collect()
    };
    let mut made = Connection::open_in_memory()?;
    to_latest(&mut made)?;
    let (is, was) = (shape(conn)?, shape(&made)?);
    let lacks = was.iter().find(|part| !is.contains(part));
    let more = is.iter().find(|part| !was.contains(part));
    Ok(lacks.or(more).map(|part| format!("its schema is not what was written: {part}")))
}

/// A complaint that is only one when it comes twice, where it is about reading and not about what was read: a disk may
/// fail to read once, and the file be whole.
pub(in crate::store) fn twice(mut look: impl FnMut() -> Option<String>) -> Option<String> {
    let first = look()?;
    if may_be_a_read(&first) { look() } else { Some(first) }
}

/// Whether damage may be a read that failed: SQLite calls a page that it did not get malformed. What was read and is
/// wrong will be wrong again.
pub(in crate::store) fn may_be_a_read(cause: &str) -> bool {
    const WORDS: [&str; 6] = [
        "I/O error",
        "error code",
        "malformed",
        "not a database",
        "failed to get page",
        "unable to get the page",
    ];
    WORDS.iter().any(|words| cause.contains(words))
}

/// Whether what is planned goes to a table that is known: no foreign key says so. Of an older version nothing is planned.
fn planned_nowhere(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let plans = "SELECT EXISTS (SELECT 1 FROM pragma_table_info('alert') WHERE name = 'route_id')";
    if !conn.query_row(plans, [], |r| r.get::<_, bool>(0))? {
        return Ok(None);
    }
    let nowhere = "SELECT 'alert' FROM alert WHERE route_id IS NOT NULL AND route_id NOT IN (SELECT id FROM route) LIMIT 1";
    conn.query_row(nowhere, [], |r| r.get(0)).optional()
}

/// What SQLite finds wrong with a database; `None`: nothing, or nothing until `until`. References count too: pages of
/// two moments can each be sound.
pub(in crate::store) fn complaint(conn: &Connection, until: Instant) -> Option<String> {
    let late = move || Instant::now() >= until;
    if conn.progress_handler(10_000, Some(late)).is_err() {
        return None;
    }
    let check = || -> rusqlite::Result<Option<String>> {
        // Not quick_check: it does not compare indexes with their tables, and a delivery that the index of its ticket does
        // not know would be taken for settled.
        let answer: String = conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?;
        if answer != "ok" {
            return Ok(Some(answer));
        }
        if let Some(wrong) = partial(conn)?.map_or_else(|| no_text(conn), |index| Ok(Some(index)))? {
            return Ok(Some(wrong));
        }
        let orphan = conn.query_row("PRAGMA foreign_key_check", [], |r| r.get::<_, String>(0)).optional()?;
        let orphan = if orphan.is_none() { planned_nowhere(conn)? } else { orphan };
        Ok(orphan.map(|table| format!("a row of {table} refers to one that is not there")))
    };
    let result = check();
    // It cannot fail where setting it did not.
    let _ = conn.progress_handler(0, None::<fn() -> bool>);
    match result {
        Ok(complaint) => complaint,
        Err(e) if is_of_the_file(&e) => Some(e.to_string()),
        // Out of time; or the disk has no room for the WAL's index, which says nothing about the file.
        Err(_) => None,
    }
}

/// What is wrong with an index of some rows only. SQLite does not count the entries of one, nor looks into one that no row
/// has to be in: an entry too many is a delivery that is made again, and a page of something else in its place ends each
/// process that asks for it.
fn partial(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let sql =
        "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND instr(sql, ' WHERE ') > 0";
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (index, table, made): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Some((_, of)) = made.split_once(" WHERE ") else { continue };
        // What the index says by itself: its condition is not looked at again in the row.
        let count = |by: &str| -> rusqlite::Result<i64> {
            conn.query_row(&format!("SELECT count(*) FROM \"{table}\" {by} WHERE {of}"), [], |r| r.get(0))
        };
        let (entries, rows) = (count(&format!("INDEXED BY \"{index}\""))?, count("NOT INDEXED")?);
        if entries != rows {
            return Ok(Some(format!("index {index} has {entries} entries of {rows} rows")));
        }
    }
    Ok(None)
}

/// A text that is none: SQLite does not look at what the bytes of one say, and each process that reads it ends.
fn no_text(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT m.name, group_concat('\"' || p.name || '\"') FROM sqlite_schema m, pragma_table_info(m.name) p
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND p.type = 'TEXT' GROUP BY m.name";
    let mut tables = conn.prepare(sql)?;
    let mut tables = tables.query([])?;
    while let Some(table) = tables.next()? {
        let (table, columns): (String, String) = (table.get(0)?, table.get(1)?);
        let mut statement = conn.prepare(&format!("SELECT {columns} FROM \"{table}\""))?;
        let count = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for at in 0..count {
                if let ValueRef::Text(bytes) = row.get_ref(at)?
                    && std::str::from_utf8(bytes).is_err()
                {
                    return Ok(Some(format!("a text in a row of {table} is none")));
                }
            }
        }
    }
    Ok(None)
}

/// Whether an error of reading is the file's fault: damage, or a place on the disk that cannot be read.
fn is_of_the_file(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ};
    let unreadable = [SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_CORRUPTFS];
    match e.sqlite_error() {
        Some(e) if e.code == rusqlite::ErrorCode::SystemIoFailure => unreadable.contains(&e.extended_code),
        Some(e) => !matches!(
            e.code,
            rusqlite::ErrorCode::DiskFull
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::DatabaseBusy
                | rusqlite::ErrorCode::OperationInterrupted
        ),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::schema::open_writer;

    #[test]
    fn a_text_that_is_none_is_damage() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE t (a INTEGER, b TEXT, c BLOB); INSERT INTO t VALUES (1, 'ä', x'e4');",
        )
        .unwrap();
        let later = || Instant::now() + std::time::Duration::from_secs(60);
        assert_eq!(complaint(&conn, later()), None);
        conn.execute_batch("INSERT INTO t VALUES (1, CAST(x'e432' AS TEXT), NULL)").unwrap();
        assert_eq!(complaint(&conn, later()).as_deref(), Some("a text in a row of t is none"));
    }

    #[test]
    fn an_index_that_does_not_know_a_row_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "CREATE TABLE t (a INTEGER, b INTEGER); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1, 2), (3, 4);",
        )
        .unwrap();
        let later = || Instant::now() + std::time::Duration::from_secs(60);
        assert_eq!(complaint(&conn, later()), None);
        conn.execute_batch(
            "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (b)' WHERE name = 'i';",
        )
        .unwrap();
        drop(conn);
        let conn = Connection::open(&path).unwrap();
        let quick: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).unwrap();
        assert_eq!(quick, "ok", "it would have passed");
        assert!(complaint(&conn, later()).is_some_and(|text| text.contains("missing from index")));
    }

    #[test]
    fn an_index_of_some_rows_with_an_entry_too_many_or_of_another_page_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let later = || Instant::now() + std::time::Duration::from_secs(60);
        let change = |sql: &str| {
            let conn = Connection::open(&path).unwrap();
            conn.execute_batch(&format!("PRAGMA writable_schema = 1; {sql}")).unwrap();
            drop(conn);
            complaint(&Connection::open(&path).unwrap(), later())
        };
        let whole = "CREATE TABLE t (a INTEGER, b INTEGER); INSERT INTO t VALUES (1, 2), (3, 4);
             CREATE INDEX i ON t (a) WHERE b > 0; CREATE INDEX none ON t (a) WHERE b > 9;";
        assert_eq!(change(whole), None);
        let more =
            change("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (a) WHERE b > 3' WHERE name = 'i';");
        assert_eq!(more.as_deref(), Some("index i has 2 entries of 1 rows"));
        change("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t (a) WHERE b > 0' WHERE name = 'i';");
        // No row is in it, and its page is one of a table: whoever asks for it meets damage.
        let other = change(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 't') WHERE name = 'none';",
        );
        assert!(other.is_some(), "{other:?}");
    }

    #[test]
    fn a_read_that_fails_once_is_no_damage() {
        let check = |answers: &[Option<&str>]| {
            let mut looks = answers.iter();
            let found = twice(|| looks.next().copied().flatten().map(str::to_owned));
            (found.is_some(), answers.len() - looks.len())
        };
        let read = Some("disk I/O error");
        let malformed = Some("database disk image is malformed");
        let page = Some("Tree 9 page 12: btreeInitPage() returns error code 522");
        let unread = Some("Tree 31 page 117 cell 0: failed to get page 110");
        for io in [read, page, malformed, unread] {
            assert_eq!(check(&[io, None]), (false, 2));
            assert_eq!(check(&[io, io]), (true, 2));
            assert_eq!(check(&[io, Some("Tree 9 page 12: 2nd reference")]), (true, 2));
        }
        assert_eq!(
            check(&[Some("row 3 missing from index i"), None]),
            (true, 1),
            "what was read is not read again"
        );
        assert_eq!(check(&[None]), (false, 1));
    }

    #[test]
    fn only_what_the_file_says_of_itself_is_damage() {
        use rusqlite::ffi;
        let is = |code| is_of_the_file(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in
            [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ]
        {
            assert!(is(code), "{code}");
        }
        let disk =
            [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_CANTOPEN];
        for code in disk.into_iter().chain([ffi::SQLITE_READONLY, ffi::SQLITE_BUSY, ffi::SQLITE_INTERRUPT]) {
            assert!(!is(code), "{code}");
        }
    }

    #[test]
    fn a_schema_that_is_not_what_was_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_writer(&dir.path().join("q.db"), 64 << 20).unwrap();
        assert_eq!(misshapen(&conn).unwrap(), None);
        let ways = [
            "UPDATE sqlite_schema SET sql = replace(sql, '''dead''', '''deae''') WHERE name = 'delivery_dead'",
            "UPDATE sqlite_schema SET sql = replace(sql, ' rule', ' rulx') WHERE name = 'ticket'",
        ];
        for way in ways {
            let path = dir.path().join("spoilt.db");
            let spoilt = open_writer(&path, 64 << 20).unwrap();
            spoilt.execute_batch("PRAGMA writable_schema = 1").unwrap();
            assert_eq!(spoilt.execute(way, []).unwrap(), 1);
            drop(spoilt);
            let spoilt = Connection::open(&path).unwrap();
            assert!(
                misshapen(&spoilt).unwrap().is_some_and(|text| text.contains("is not what was")),
                "{way}"
            );
            drop(spoilt);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
