//! A new database out of a damaged one: what `salvage.rs` reads is put in, and then made whole. Alerts without a body
//! and what hangs on them are left out, tickets without a delivery get one, counters and the fingerprint index are made
//! anew, ids go on above the highest that ever was. Where something is missing that the files of the sensors may still
//! hold, the cursors are given up: the files are read again, and as keys are derived, that makes no twin.
//!
//! The new file is written in one go and not synced; the caller does that before anybody relies on it.

use std::path::Path;

use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::op::heals::{HealCount, HealCounts, deliver_again, note};
use super::op::notice::{Notice, keep};
use super::rows::HealRow;
use super::salvage::{Salvage, open_damaged};
use super::{OpenError, schema};
use crate::model::{Fingerprint, Timestamp};

/// Ids that are left out above the highest one that is known: a late answer must not hit another row.
const ID_MARGIN: i64 = 1_000;

/// Tables of which the last so many are kept, by their numbers: a gap would take away what was before it. Nobody outside
/// knows a row of them.
const HISTORY: [&str; 4] = ["repair", "sync", "filtered_sample", "reject_sample"];

/// The tables whose loss is counted by a counter that is kept: table, counter, index that knows the ids too.
const COUNTED: [(&str, &str, Option<&str>); 3] = [
    ("alert", "alerts", None),
    ("ticket", "tickets", Some("sqlite_autoindex_ticket_1")),
    ("delivery", "deliveries", Some("delivery_of_ticket")),
];

/// What is known about the damage.
pub(super) struct Damage<'a> {
    pub(super) at: Timestamp,
    /// Where the damaged database is kept.
    pub(super) kept: &'a Path,
    pub(super) kept_as: &'a str,
    pub(super) cause: &'a str,
}

/// Makes the new database at `path`. What is not read at `until` is given up.
pub(super) fn make_anew(path: &Path, damage: &Damage<'_>, until: Instant) -> Result<HealRow, OpenError> {
    let conn = schema::create(path)?;
    conn.execute_batch("BEGIN")?;
    let mut salvage = Salvage::new(open_damaged(damage.kept, until), &conn, until);
    salvage.copy_alerts()?;
    leave_out_bodiless(&conn, &mut salvage)?;
    index_fingerprints(&conn)?;
    salvage.copy_rest()?;
    for (table, counter, index) in COUNTED {
        let is_unread = salvage.tables.get(table).is_some_and(|c| c.unread);
        if let Some(index) = index.filter(|_| is_unread && salvage.tally("store", counter).is_none()) {
            salvage.ask_index(table, index)?;
        }
    }
    // Outcomes refer to deliveries by their number alone, and have no checksum: one whose key was damaged would be in the way
    // of a later attempt.
    conn.execute_batch(
        "DELETE FROM outcome WHERE id % 32 <> n % 32
           OR n NOT BETWEEN 1 AND coalesce((SELECT attempts FROM delivery d WHERE d.id = outcome.id / 32), 0)",
    )?;
    let made_again = deliver_again(&conn, damage.at)?;
    let counts = counts(&salvage, made_again);
    let rewound = rewind(&conn, &salvage, &counts)?;
    count_anew(&conn)?;
    let seqs = raise_ids(&conn, &salvage);
    drop(salvage);
    seqs?;
    let heal = HealRow {
        at: damage.at,
        kept_as: damage.kept_as.to_owned(),
        cause: damage.cause.to_owned(),
        counts,
        rewound,
    };
    note(&conn, &heal).map_err(OpenError::Heal)?;
    keep(&conn, &notice(&heal), damage.at).map_err(OpenError::Heal)?;
    conn.execute_batch("COMMIT")?;
    conn.close().map_err(|(_, e)| e)?;
    Ok(heal)
}

/// An alert whose body is gone cannot be told to anybody; read again from its file, it can.
fn leave_out_bodiless(conn: &Connection, salvage: &mut Salvage<'_>) -> Result<(), OpenError> {
    let mut delete = conn.prepare(
        "DELETE FROM alert WHERE coalesce(
           (SELECT p.last_id FROM body_pack p WHERE p.first_id <= alert.id ORDER BY p.first_id DESC LIMIT 1), 0) < id
         RETURNING id",
    )?;
    let mut rows = delete.query([])?;
    let alerts = salvage.tables.entry("alert").or_default();
    while let Some(row) = rows.next()? {
        alerts.salvaged -= 1;
        alerts.lost.insert(row.get(0)?);
    }
    Ok(())
}

/// All in order, so that each page is written once.
fn index_fingerprints(conn: &Connection) -> Result<(), OpenError> {
    let mut select = conn.prepare("SELECT id, fingerprint FROM alert")?;
    let rows = select
        .query_map([], |r| Ok((Fingerprint::from_bytes(r.get(1)?).prefix(), r.get::<_, i64>(0)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    super::index::make_anew(conn, rows).map_err(OpenError::Heal)
}

fn counts(salvage: &Salvage<'_>, made_again: u64) -> HealCounts {
    let mut counts = HealCounts::new();
    for (table, copied) in &salvage.tables {
        let counter = COUNTED.iter().find(|(name, ..)| name == table).map(|(_, counter, _)| *counter);
        let before = counter.and_then(|counter| salvage.tally("store", counter));
        let missing = before.map_or(0, |n| (n as u64).saturating_sub(copied.salvaged));
        let count = HealCount {
            salvaged: copied.salvaged,
            lost: missing.max(copied.lost.len() as u64),
            made_again: if *table == "delivery" { made_again } else { 0 },
            at_least: before.is_none() && (copied.unread || salvage.from.is_none()),
        };
        if count != HealCount::default() {
            counts.insert((*table).to_owned(), count);
        }
    }
    if salvage.from.is_none() {
        counts.insert("alert".to_owned(), HealCount { at_least: true, ..HealCount::default() });
    }
    counts
}

/// Gives the cursors up when what is missing may still be in the files.
fn rewind(conn: &Connection, salvage: &Salvage<'_>, counts: &HealCounts) -> Result<bool, OpenError> {
    let is_short = |table: &str| counts.get(table).is_some_and(|c| c.lost > 0 || c.at_least);
    let rewound = !salvage.in_time
        || salvage.from.is_none()
        || ["alert", "ticket", "cursor", "source", "route", "destination"].into_iter().any(is_short);
    if rewound {
        // As if they were read for the first time: `backfill` bounds what is taken of them.
        conn.execute_batch("DELETE FROM cursor; UPDATE source SET first_read_at = NULL")?;
    }
    // What has no ticket any more goes through the rules again.
    conn.execute_batch("DELETE FROM meta WHERE key = 'rules'")?;
    Ok(rewound)
}

/// Counters of what is kept are counted (what is claimed counts as pending, see `op/row.rs`); those of what was done are
/// taken over where they could be read.
fn count_anew(conn: &Connection) -> Result<(), OpenError> {
    conn.execute_batch(
        "DELETE FROM counter WHERE (scope GLOB 'destination:*' AND name IN ('pending', 'claimed', 'dead'))
                              OR (scope = 'store' AND name IN ('alerts', 'tickets', 'deliveries'));
         INSERT OR IGNORE INTO counter (scope, name, value)
           SELECT 'destination:' || k.name, iif(d.state = 'claimed', 'pending', d.state), count(*)
           FROM delivery d JOIN destination k ON k.id = d.destination_id GROUP BY 1, 2;
         INSERT OR IGNORE INTO counter (scope, name, value)
           SELECT 'source:' || s.name, 'new', count(*) FROM alert a JOIN source s ON s.id = a.source_id GROUP BY 1;
         INSERT INTO counter (scope, name, value) SELECT 'store', 'alerts', count(*) FROM alert;
         INSERT INTO counter (scope, name, value) SELECT 'store', 'tickets', count(*) FROM ticket;
         INSERT INTO counter (scope, name, value) SELECT 'store', 'deliveries', count(*) FROM delivery;",
    )?;
    Ok(())
}

fn raise_ids(conn: &Connection, salvage: &Salvage<'_>) -> Result<(), OpenError> {
    let mut select =
        conn.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%'")?;
    let mut names: Vec<String> = select.query_map([], |r| r.get(0))?.collect::<Result<_, _>>()?;
    names.retain(|name| !HISTORY.contains(&name.as_str()));
    let last_packed: i64 =
        conn.query_row("SELECT coalesce(max(last_id), 0) FROM body_pack", [], |r| r.get(0))?;
    for name in names {
        let known: i64 =
            conn.query_row(&format!("SELECT coalesce(max(id), 0) FROM {name}"), [], |r| r.get(0))?;
        let before = salvage.highest(&name).filter(|n| (0..1 << 53).contains(n)).unwrap_or(0);
        let lost = salvage.tables.get(name.as_str()).and_then(|c| c.lost.last().copied());
        let lost = lost.filter(|n| *n < 1 << 53).unwrap_or(0);
        let packed = if name == "alert" { last_packed } else { 0 };
        let top = known.max(before).max(lost).max(packed) + ID_MARGIN;
        let set = conn.execute("UPDATE sqlite_sequence SET seq = ?2 WHERE name = ?1", params![name, top])?;
        if set == 0 {
            conn.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", params![name, top])?;
        }
    }
    Ok(())
}

/// What a person should know.
fn notice(heal: &HealRow) -> Notice {
    Notice {
        code: CODE,
        subject: heal.kept_as.clone(),
        text: heal.text(),
        remedy: format!(
            "the damaged database is kept as {} in the state directory: send it to support, or delete it; when it \
             happens again, the disk is failing",
            heal.kept_as
        ),
    }
}

/// Of notices about kept files; the subject is the file's name.
pub(super) const CODE: &str = "store-repaired";
