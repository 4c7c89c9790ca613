//! The store in memory, for as long as the state directory cannot be written: mounted read-only, or full at start.
//!
//! It begins as a copy of the file when that fits, else with the cursors and counters alone, and then everything goes
//! on as always. What it takes in meanwhile is brought home when the directory can be written again ([`bring_home`]):
//! recorded into the file as if it came then, cursors last. Nothing relies on that: after a restart the cursors of the
//! file are older, the lines are read again, and as keys are derived, tickets are found and not made twice.
//!
//! The database is one of SQLite's `memdb`, so that readers of this process see it by its name.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;

use crate::model::{
    Cursor, DeliveryKind, DestinationName, Fingerprint, RuleName, SourceName, TableName, Timestamp,
};
use crate::store::catalog::TABLES;
use crate::store::disk::files::is_absent;
use crate::store::disk::space::Budget;
use crate::store::op::device::share;
use crate::store::op::record::{Entry, Record, Routed, write_all};
use crate::store::pack::body::Bodies;
use crate::store::schema;
use crate::store::session::{Session, add_to_counter};
use crate::store::{OpenError, StoreError};

/// Most memory that it may have.
const LIMIT: u64 = 16 << 20;
/// The largest file that is copied whole: the rest is for what comes.
const WHOLE: u64 = LIMIT / 4 * 3;
/// Alerts that are brought home in one transaction.
const STEP: i64 = 50;
/// Pages that a store in memory may have, where the one on disk may have `budget`.
pub(super) fn pages(budget: &Budget) -> i64 {
    budget.pages.min((LIMIT / 4096) as i64)
}

/// A name that no other store of this process has.
pub(super) fn new_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("file:/otrelay-{}?vfs=memdb", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A store in memory, as it begins.
pub(super) struct Opened {
    pub(super) conn: Connection,
    /// Whether all of the file is in it, if there is one.
    pub(super) whole: bool,
}

/// Opens it under this name, with what can be read of the file at `path`.
///
/// # Errors
/// [`OpenError::Newer`]: the file is not ours to understand. Others only when memory itself fails.
pub(super) fn open(path: &Path, name: &str, pages: i64) -> Result<Opened, OpenError> {
    let mut conn = schema::open_memory(name)?;
    let whole = match schema::open_readonly(path) {
        // There is nothing to be copied.
        _ if is_absent(path).unwrap_or(false) => true,
        Ok(file) => {
            schema::refuse_newer(&file, path)?;
            let copied = copy_whole(&file, name);
            if let Err(e) = &copied {
                tracing::debug!("the store is not copied whole: {e}");
            }
            copied.is_ok_and(|whole| whole)
        }
        Err(_) => false,
    };
    settings(&conn, pages)?;
    schema::to_latest(&mut conn)?;
    if !whole {
        // A file that cannot be read at all is as good as none: the sources are read from their beginning.
        let copied = schema::WAYS.iter().any(|way| {
            let copied = copy_some(&conn, &schema::uri(path, way));
            copied.inspect_err(|e| tracing::debug!("nothing could be read of the store: {e}")).is_ok()
        });
        tracing::debug!(copied, "the store is not whole");
    }
    conn.execute_batch(
        "CREATE TEMP TABLE touched (alert_id INTEGER PRIMARY KEY, before INTEGER NOT NULL);
         CREATE TEMP TRIGGER touched_new AFTER INSERT ON main.alert
           BEGIN INSERT OR IGNORE INTO touched VALUES (new.id, 0); END;
         CREATE TEMP TRIGGER touched_again AFTER UPDATE OF occurrences ON main.alert
           BEGIN INSERT OR IGNORE INTO touched VALUES (old.id, old.occurrences); END;
         CREATE TEMP TABLE base_counter AS SELECT scope, name, value FROM main.counter;",
    )?;
    Ok(Opened { conn, whole })
}

fn settings(conn: &Connection, pages: i64) -> Result<(), OpenError> {
    conn.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
    conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    // Nothing here survives the process, so nothing is synced; the cache would be a second copy.
    for (name, value) in [("synchronous", 0), ("foreign_keys", 1), ("cache_size", -256), ("temp_store", 2)] {
        conn.pragma_update(None, name, value)?;
    }
    conn.pragma_update(None, "trusted_schema", false)?;
    Ok(())
}

/// Copies all of it when it fits.
fn copy_whole(file: &Connection, name: &str) -> Result<bool, rusqlite::Error> {
    let pages: i64 = file.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let free: i64 = file.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if (pages - free) as u64 * 4096 > WHOLE {
        return Ok(false);
    }
    file.execute("VACUUM INTO ?1", [name])?;
    Ok(true)
}

/// Copies what is small and what a relay and a source go by. New rows get ids above those of the file, so that an
/// answer for one is never taken for the other.
fn copy_some(conn: &Connection, file: &str) -> Result<(), rusqlite::Error> {
    conn.execute("ATTACH ?1 AS file", [file])?;
    let chosen = TABLES.iter().filter(|table| table.in_fallback);
    let statements = chosen
        .map(|table| ["INSERT OR REPLACE INTO main.", table.name, " SELECT * FROM file.", table.name, ";"]);
    let mut script: String = ["BEGIN;"].into_iter().chain(statements.flatten()).collect();
    script.push_str(share::COUNT_ANEW);
    script.push_str(
        "INSERT INTO main.meta SELECT * FROM file.meta WHERE key = 'rules';
         DELETE FROM main.sqlite_sequence;
         INSERT INTO main.sqlite_sequence SELECT name, seq FROM file.sqlite_sequence;
         COMMIT;",
    );
    let copied = conn.execute_batch(&script);
    if !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK")?;
    }
    conn.execute_batch("DETACH file")?;
    copied
}

/// Whether something was claimed here and not settled yet: its answer comes with a row number of this store.
pub(super) fn is_sending(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.query_row("SELECT EXISTS (SELECT 1 FROM delivery WHERE state = 'claimed')", [], |r| r.get(0))?)
}

/// Records what came in meanwhile into the store on disk, in steps; what is done is forgotten here, so that it can be
/// tried again from where it failed. Cursors and counters go last: if the power fails before, the lines are read again.
///
/// # Errors
/// [`StoreError`] of the store on disk.
pub(super) fn bring_home(
    memory: &Connection,
    home: &mut Session,
    now: Timestamp,
    with_cursors: bool,
) -> Result<u64, StoreError> {
    let mut brought = 0;
    loop {
        let Touched { ids, records, settled } = touched(memory, now)?;
        if ids.is_empty() {
            break;
        }
        home.transaction(|tx| {
            write_all(tx, &records)?;
            add_all(tx.conn, &settled)
        })?;
        for id in &ids {
            memory.execute("DELETE FROM temp.touched WHERE alert_id = ?1", [id])?;
        }
        brought += ids.len() as u64;
    }
    let mut last = last_records(memory, now)?;
    if !with_cursors {
        for record in &mut last {
            record.cursors.clear();
        }
    }
    let counts = counts(memory)?;
    home.transaction(|tx| {
        write_all(tx, &last)?;
        add_all(tx.conn, &counts)
    })?;
    Ok(brought)
}

/// Alerts of one step home.
struct Touched {
    ids: Vec<i64>,
    records: Vec<Record>,
    /// Counters of those that were delivered meanwhile and of which no body is kept. Their next sighting finds the
    /// ticket by its derived key.
    settled: Vec<(String, String, i64)>,
}

/// The next alerts that came in or were seen again, as their sources would record them.
fn touched(memory: &Connection, now: Timestamp) -> Result<Touched, StoreError> {
    let mut select = memory.prepare_cached(
        "SELECT u.alert_id, u.before, a.occurrences, a.last_seen_at, a.fingerprint, s.name
         FROM temp.touched u LEFT JOIN alert a ON a.id = u.alert_id LEFT JOIN source s ON s.id = a.source_id
         ORDER BY u.alert_id LIMIT ?1",
    )?;
    let mut rows = select.query([STEP])?;
    let mut bodies = Bodies::of(memory);
    let (mut ids, mut records, mut settled) = (Vec::new(), BTreeMap::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        ids.push(id);
        // Forgotten since, because it was delivered.
        let Some(occurrences) = row.get::<_, Option<i64>>(2)? else { continue };
        let before: i64 = row.get(1)?;
        let more = occurrences - before;
        let Ok(source) = SourceName::new(&row.get::<_, String>(5)?) else { continue };
        let Some(alert) = bodies.get(id)? else {
            let (scope, new) = (format!("source:{source}"), i64::from(before == 0));
            settled.push((scope.clone(), "new".to_owned(), new));
            settled.push((scope, "repeats".to_owned(), more - new));
            continue;
        };
        let entry = Entry {
            fingerprint: Fingerprint::from_bytes(row.get(4)?),
            alert,
            occurrences: more.max(1) as u64,
            last_seen_at: Timestamp::from_micros(row.get(3)?),
            routes: routes(memory, id)?,
            again: None,
        };
        records.entry(source.clone()).or_insert_with(|| Record::new(source, now)).entries.push(entry);
    }
    Ok(Touched { ids, records: records.into_values().collect(), settled })
}

fn routes(memory: &Connection, alert: i64) -> Result<Vec<Routed>, StoreError> {
    let mut select = memory.prepare_cached(
        "SELECT k.name, r.table_name, max(t.rule), 'open-ticket' FROM ticket t JOIN route r ON r.id = t.route_id
         JOIN destination k ON k.id = r.destination_id WHERE t.alert_id = ?1 AND t.state <> 'withdrawn' GROUP BY t.route_id
         UNION ALL
         SELECT k.name, r.table_name, c.rule, d.kind FROM record c JOIN delivery d ON d.record_id = c.id AND d.seq = 1
         JOIN route r ON r.id = c.route_id JOIN destination k ON k.id = r.destination_id
         WHERE c.alert_id = ?1 AND c.state <> 'withdrawn'
         UNION ALL
         SELECT k.name, r.table_name, u.name, 'open-ticket' FROM alert a JOIN route r ON r.id = a.route_id
         JOIN rule u ON u.id = a.rule_id JOIN destination k ON k.id = r.destination_id WHERE a.id = ?1",
    )?;
    let mut rows = select.query([alert])?;
    let mut routes = Vec::new();
    while let Some(row) = rows.next()? {
        let (destination, table, rule): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let kind = DeliveryKind::parse(&row.get::<_, String>(3)?);
        if let (Ok(destination), Ok(table), Ok(rule), Some(kind)) =
            (DestinationName::new(&destination), TableName::new(&table), RuleName::new(&rule), kind)
        {
            routes.push(Routed { destination, table, rule, kind });
        }
    }
    Ok(routes)
}

/// How far each source was read, and what is wrong with it.
fn last_records(memory: &Connection, now: Timestamp) -> Result<Vec<Record>, StoreError> {
    let mut select = memory.prepare("SELECT id, name, trouble FROM source ORDER BY id")?;
    let mut rows = select.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let Ok(source) = SourceName::new(&row.get::<_, String>(1)?) else { continue };
        let cursors: Vec<Cursor> =
            crate::store::op::cursors::of_source(memory, row.get(0)?, source.as_str())?;
        records.push(Record { cursors, trouble: row.get(2)?, ..Record::new(source, now) });
    }
    Ok(records)
}

/// What was counted meanwhile and is not counted by recording it again.
fn counts(memory: &Connection) -> Result<Vec<(String, String, i64)>, StoreError> {
    let mut select = memory.prepare(
        "SELECT t.scope, t.name, t.value - coalesce(b.value, 0) AS more
         FROM main.counter t LEFT JOIN temp.base_counter b ON b.scope = t.scope AND b.name = t.name
         WHERE more <> 0 AND (t.scope GLOB 'filtered:*' OR t.scope GLOB 'rejected:*'
           OR t.scope GLOB 'ignored:*' OR t.scope GLOB 'excluded:*' OR t.scope = 'shed'
           OR (t.scope = 'store' AND t.name = 'shed')
           OR (t.scope GLOB 'source:*' AND t.name IN ('lines', 'alerts', 'cleared', 'devices', 'unauthenticated')))",
    )?;
    let counts = select.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    Ok(counts.collect::<Result<_, _>>()?)
}

fn add_all(home: &Connection, counts: &[(String, String, i64)]) -> Result<(), StoreError> {
    counts.iter().try_for_each(|(scope, name, more)| add_to_counter(home, scope, name, *more))
}
