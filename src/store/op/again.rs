//! A source that a person orders to be read again: where it begins, and what its second reading adds.
//!
//! One transaction sets every file back to its beginning, with the place it was read up to as the end of its backlog, and
//! keeps the order as a mark. So a power cut comes either before it, and nothing has happened, or after it, and the next
//! start reads again; how far that is says each cursor, as always. What is read again is known by the backlog's end.
//!
//! A finding that was there when it was ordered is not seen again by it: no ticket opens anew, none is made beside it on a
//! route that has one. Its sightings count only where they are older than all that was counted.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::cursors::{of_source, put_file, put_mark};
use super::record::{Entry, Recorded, Sighting, deliver, known};
use super::row::source_scope;
use crate::model::cursor::{AGAIN, Again};
use crate::model::{AlertState, Cursor, FileCursor, Mark, SourceName, Timestamp};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Of which source.
    pub source: SourceName,
    /// Nothing older; `None`: all.
    pub since: Option<Timestamp>,
    /// Only say what would be read.
    pub dry_run: bool,
}

/// What of a source's memory has to go so that it begins anew, beside the places in its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Marks that begin so are forgotten.
    pub forget: &'static [&'static str],
    /// A mark that is set.
    pub put: Option<Mark>,
}

/// What will be read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewound {
    /// Whether it was set back; not so with `dry_run`.
    pub done: bool,
    /// Files that were read.
    pub files: Vec<String>,
    /// Bytes of them that were read.
    pub bytes: u64,
    /// How many of its alerts were not forwarded, by reason.
    pub passed_over: BTreeMap<String, i64>,
    /// How many of them an exclusion kept from the rules, by its name.
    #[serde(default)]
    pub excluded: BTreeMap<String, i64>,
    /// How many records of it were counted.
    #[serde(default)]
    pub records: i64,
    /// How many of these were alerts.
    #[serde(default)]
    pub alerts: i64,
}

struct Rewind(Wanted, Steps);

impl Store {
    /// Sets a source back, which must stand still: what it hands over later would move it on again.
    ///
    /// # Errors
    /// [`StoreError`]; `Refused` where there is nothing to read again.
    pub async fn rewind(&self, wanted: Wanted, steps: Steps) -> Result<Rewound, StoreError> {
        self.call(Rewind(wanted, steps)).await
    }
}

impl Operation for Rewind {
    type Output = Rewound;

    fn run(self, tx: &mut Tx<'_>) -> Result<Rewound, StoreError> {
        let Self(wanted, steps) = self;
        let name = wanted.source.as_str();
        let id: Option<i64> = tx
            .conn
            .query_row("SELECT id FROM source WHERE name = ?1 AND first_read_at IS NOT NULL", [name], |r| {
                r.get(0)
            })
            .optional()?;
        let Some(id) = id else {
            let text = format!("source {name} was not read yet: there is nothing to read again");
            return Err(StoreError::Refused(text));
        };
        let mut rewound = Rewound { done: !wanted.dry_run, ..Rewound::default() };
        let (mut files, mut earlier) = (Vec::new(), None);
        for cursor in of_source(tx.conn, id, name)? {
            match cursor {
                Cursor::File(file) => files.push(file),
                Cursor::Mark(mark) if mark.name == AGAIN => earlier = Again::parse(&mark.value),
                Cursor::Mark(_) => {}
            }
        }
        rewound.bytes = files.iter().map(|file| file.offset).sum();
        rewound.files = files.iter().map(|file| file.path.clone()).collect();
        rewound.files.sort();
        rewound.passed_over = counters(tx, &format!("filtered:{name}"))?;
        rewound.excluded = counters(tx, &format!("excluded:{name}"))?;
        let counted = counters(tx, &source_scope(name))?;
        let of = |what: &str| counted.get(what).copied().unwrap_or(0);
        (rewound.records, rewound.alerts) = (of("lines"), of("alerts"));
        if !rewound.done {
            return Ok(rewound);
        }
        // Of what has no first bytes nothing comes, now as then.
        for file in files.into_iter().filter(|file| file.head_len > 0) {
            put_file(tx, id, &beginning(file))?;
        }
        for prefix in steps.forget {
            tx.conn
                .prepare_cached("DELETE FROM mark WHERE source_id = ?1 AND substr(name, 1, length(?2)) = ?2")?
                .execute(params![id, prefix])?;
        }
        let known_to = tx.conn.query_row("SELECT coalesce(max(id), 0) FROM alert", [], |r| r.get(0))?;
        let again = Again { since: wanted.since, known_to, before: earlier.map(|earlier| earlier.reached()) };
        steps.put.iter().chain([&again.mark()]).try_for_each(|mark| put_mark(tx, id, mark))?;
        Ok(rewound)
    }
}

fn counters(tx: &Tx<'_>, scope: &str) -> Result<BTreeMap<String, i64>, StoreError> {
    let mut select = tx.conn.prepare_cached("SELECT name, value FROM counter WHERE scope = ?1")?;
    let rows = select.query_map([scope], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The beginning of a file, whose backlog ends where it was read up to.
fn beginning(file: FileCursor) -> FileCursor {
    FileCursor {
        backlog_end: file.offset.max(file.backlog_end),
        offset: 0,
        state: None,
        proofs: Vec::new(),
        complete: false,
        ..file
    }
}

/// Takes what is read again of a finding that is known since before the order, and says so. What is not known is taken
/// like any other; but for a clearing, which would have nothing to clear.
pub(super) fn is_known(
    tx: &mut Tx<'_>,
    id: Option<i64>,
    entry: &Entry,
    again: Again,
    sums: &mut Recorded,
    now: i64,
) -> Result<bool, StoreError> {
    let is_cleared = entry.alert.state == AlertState::Cleared;
    let Some(id) = id else { return Ok(is_cleared) };
    if id > again.known_to {
        return Ok(false);
    }
    let (mut known, has_ended) = known(tx, id)?;
    let time = entry.alert.time;
    if is_cleared {
        // Of what came later it says nothing.
        return Ok(has_ended || time.as_micros() < known.row.last_seen_at);
    }
    // The finding keeps the time that it was first taken in with: by that the next sighting is told, too.
    if time.as_micros() < known.row.first_seen_at && again.before.is_none_or(|before| time < before) {
        known.row.occurrences = known.row.occurrences.saturating_add(1);
        tx.conn
            .prepare_cached("UPDATE alert SET occurrences = ?2, crc = ?3 WHERE id = ?1")?
            .execute(params![id, known.row.occurrences, known.crc()])?;
        sums.repeats += 1;
        sums.again += 1;
    }
    // As where only the rules have changed.
    let planned_on = known.row.plan.map(|plan| plan.route);
    let sighting = Sighting { severity: entry.alert.severity as i64, seen: None, planned_on };
    for routed in &entry.routes {
        sums.deliveries += u64::from(deliver(tx, id, routed, &sighting, now)?);
    }
    Ok(true)
}
