//! A new database out of a damaged one: what `salvage.rs` reads is put in, and then made whole. Alerts without a body
//! and what hangs on them are left out, tickets without a delivery get one, counters and the fingerprint index are made
//! anew, ids go on above the highest that ever was. Where something is missing that the files of the sensors may still
//! hold, the cursors are given up: the files are read again, and as keys are derived, that makes no twin.
//!
//! The new file is written in one go and not synced; the caller does that before anybody relies on it.

use std::path::Path;

use rusqlite::{Connection, params};
use tokio::time::Instant;

use crate::model::{Fingerprint, HealthIssue, Timestamp};
use crate::store::OpenError;
use crate::store::catalog::{self, TABLES};
use crate::store::op::device::share;
use crate::store::op::health::keep;
use crate::store::op::plan;
use crate::store::op::repairs::{deliver_again, note};
use crate::store::repair::salvage::{Salvage, open_damaged};
use crate::store::rows::RepairRow;
use crate::store::rows::{RepairCount, RepairCounts};
use crate::store::schema;

/// Ids that are left out above the highest one that is known: a late answer must not hit another row.
const ID_MARGIN: i64 = 1_000;

/// What is known about the damage.
pub(in crate::store) struct Damage<'a> {
    pub(in crate::store) at: Timestamp,
    /// Where the damaged database is kept.
    pub(in crate::store) kept: &'a Path,
    pub(in crate::store) kept_as: &'a str,
    pub(in crate::store) cause: &'a str,
}

/// Makes the new database at `path`. What is not read at `until` is given up.
pub(in crate::store) fn make_anew(
    path: &Path,
    damage: &Damage<'_>,
    until: Instant,
) -> Result<RepairRow, OpenError> {
    let conn = schema::create(path, schema::version())?;
    conn.execute_batch("BEGIN")?;
    let mut salvage = Salvage::new(open_damaged(damage.kept, until), &conn, until);
    salvage.copy_all()?;
    index_fingerprints(&conn)?;
    let planned = plan::write_all(&conn).map_err(OpenError::Repair)?;
    let made_again = deliver_again(&conn, damage.at)?;
    let counts = counts(&salvage, made_again, planned);
    let rewound = rewind(&conn, &salvage, &counts)?;
    count_anew(&conn)?;
    let seqs = raise_ids(&conn, &salvage);
    drop(salvage);
    seqs?;
    let repair = RepairRow {
        at: damage.at,
        kept_as: damage.kept_as.to_owned(),
        cause: damage.cause.to_owned(),
        counts,
        rewound,
    };
    note(&conn, &repair).map_err(OpenError::Repair)?;
    keep(&conn, &issue(&repair), damage.at).map_err(OpenError::Repair)?;
    conn.execute_batch("COMMIT")?;
    conn.close().map_err(|(_, e)| e)?;
    Ok(repair)
}

/// All in order, so that each page is written once.
pub(in crate::store) fn index_fingerprints(conn: &Connection) -> Result<(), OpenError> {
    let mut select = conn.prepare("SELECT id, fingerprint FROM alert")?;
    let rows = select
        .query_map([], |r| Ok((Fingerprint::from_bytes(r.get(1)?).prefix(), r.get::<_, i64>(0)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    crate::store::pack::index::make_anew(conn, rows).map_err(OpenError::Repair)
}

/// What was planned counts as the ticket and the delivery that it is by now.
fn counts(salvage: &Salvage<'_>, made_again: u64, planned: u64) -> RepairCounts {
    let mut counts = RepairCounts::new();
    for (table, copied) in &salvage.tables {
        let counter = catalog::of(table).and_then(|table| table.counter);
        let is_planned = matches!(*table, "ticket" | "delivery");
        let salvaged = copied.salvaged + if is_planned { planned } else { 0 };
        let before = counter.and_then(|counter| salvage.counter("store", counter)).map(|n| {
            let planned = salvage.counter("store", plan::PLANNED).filter(|_| is_planned);
            n + planned.unwrap_or_default()
        });
        let missing = before.map_or(0, |n| (n as u64).saturating_sub(salvaged));
        let count = RepairCount {
            salvaged,
            lost: missing.max(copied.refused),
            made_again: if *table == "delivery" { made_again } else { 0 },
            // Where how many there were cannot be read, what is in the place of a table may be rows of another one.
            at_least: before.is_none() && (counter.is_some() || copied.unread || salvage.from.is_none()),
        };
        if count != RepairCount::default() {
            counts.insert((*table).to_owned(), count);
        }
    }
    if salvage.from.is_none() {
        counts.insert("alert".to_owned(), RepairCount { at_least: true, ..RepairCount::default() });
    }
    counts
}

/// Gives the cursors up when what is missing may still be in the files.
fn rewind(conn: &Connection, salvage: &Salvage<'_>, counts: &RepairCounts) -> Result<bool, OpenError> {
    let is_short = |table: &str| counts.get(table).is_some_and(|c| c.lost > 0 || c.at_least);
    let rewound = !salvage.in_time
        || salvage.from.is_none()
        || TABLES.iter().any(|table| table.is_read_again && is_short(table.name));
    if rewound {
        // As if they were read for the first time: `backfill` bounds what is taken of them.
        conn.execute_batch("DELETE FROM cursor; DELETE FROM mark; UPDATE source SET first_read_at = NULL")?;
    }
    // What has no ticket any more goes through the rules again.
    conn.execute_batch("DELETE FROM meta WHERE key = 'rules'")?;
    Ok(rewound)
}

/// Counters of what is kept are counted (what is claimed counts as pending, see `op/row.rs`); those of what was done are
/// taken over where they could be read.
fn count_anew(conn: &Connection) -> Result<(), OpenError> {
    conn.execute_batch(share::COUNT_ANEW)?;
    conn.execute_batch(
        "DELETE FROM counter WHERE scope GLOB 'destination:*' AND name IN ('pending', 'dead') OR scope = 'store' AND name = 'planned';
         INSERT OR IGNORE INTO counter (scope, name, value)
           SELECT 'destination:' || k.name, iif(d.state = 'claimed', 'pending', d.state), count(*)
           FROM delivery d JOIN destination k ON k.id = d.destination_id GROUP BY 1, 2;
         INSERT OR IGNORE INTO counter (scope, name, value)
           SELECT 'source:' || s.name, 'new', count(*) FROM alert a JOIN source s ON s.id = a.source_id GROUP BY 1;",
    )?;
    for table in TABLES {
        let Some(counter) = table.counter else { continue };
        let sql = format!(
            "INSERT OR REPLACE INTO counter (scope, name, value) SELECT 'store', ?1, count(*) FROM {}",
            table.name
        );
        conn.execute(&sql, [counter])?;
    }
    Ok(())
}

fn raise_ids(conn: &Connection, salvage: &Salvage<'_>) -> Result<(), OpenError> {
    let mut select =
        conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")?;
    let names: Vec<String> = select.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let last_packed: i64 =
        conn.query_row("SELECT coalesce(max(last_id), 0) FROM body_pack", [], |r| r.get(0))?;
    for name in names {
        let known: i64 =
            conn.query_row(&format!("SELECT coalesce(max(id), 0) FROM {name}"), [], |r| r.get(0))?;
        let before = salvage.highest(&name).filter(|n| (0..1 << 53).contains(n)).unwrap_or(0);
        let packed = if name == "alert" { last_packed } else { 0 };
        let top = known.max(before).max(packed) + ID_MARGIN;
        let set = conn.execute("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1", params![name, top])?;
        if set == 0 {
            conn.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![name, top])?;
        }
    }
    Ok(())
}

/// What a person should know.
fn issue(repair: &RepairRow) -> HealthIssue {
    HealthIssue {
        code: CODE.to_owned(),
        subject: repair.kept_as.clone(),
        text: repair.text(),
        remedy: format!(
            "the damaged database is kept as {} in the state directory: send it to support, or delete it; when it \
             happens again, the disk is failing",
            repair.kept_as
        ),
    }
}

/// Of issues about kept files; the subject is the file's name.
pub(in crate::store) const CODE: &str = "store-repaired";
