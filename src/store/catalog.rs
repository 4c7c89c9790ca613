//! One description of each table, beside its migration: how its rows are read in order, what their checksum is over, what
//! becomes of them when a damaged database is made anew, and which of them go with an alert that is forgotten. Checksums,
//! salvage, rebuild, forgetting and the judge of power cuts (tests/faults/catalog.json) go by it: a new table is one entry.
//!
//! SQLite's pages have no checksum: a flipped bit in a row passes its integrity check (docs/figures.md), so the rows that
//! work is done by carry one. It is looked at when they are read for work, when a damaged database is salvaged, and
//! before a backup is restored.

use rusqlite::types::{Value, ValueRef};

/// A table.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) key: Key,
    /// Of the column `crc`.
    pub(super) checksum: Option<Checksum>,
    /// Numbers of a row without a checksum, from 0, and the highest that each may be.
    pub(super) bounds: &'static [(&'static str, i64)],
    /// What becomes of it in a repair.
    pub(super) repair: Repair,
    /// Its rows are counted in `counter`, scope `store`, by this name: a loss is known when they cannot be read any more.
    pub(super) counter: Option<&'static str>,
    /// What is missing of it may still be in the files of the sensors: they are read again.
    pub(super) is_read_again: bool,
    /// Names that much hangs on are also in an index, on other pages: how they are read there and written.
    pub(super) names: Option<(&'static str, &'static str)>,
    /// Whether a row (by its key, `?1`) can be of use in the new database.
    pub(super) needs: Option<&'static str>,
    /// Rows that go with an alert (`?1`) that is forgotten.
    pub(super) of_alert: &'static [&'static str],
    /// The fallback store begins with it, however large the file is.
    pub(super) in_fallback: bool,
}

/// How rows are read in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The column is SQLite's own number of the row. It is asked for by that name: where the column's is damaged, rows would
    /// be numbered anew, and what refers to them would refer to others.
    Row(&'static str),
    /// A number that does not shrink from row to row.
    Column(&'static str),
    /// The table is small and read at once.
    None,
}

/// What becomes of a table when a damaged database is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repair {
    /// What can be read comes over.
    Kept,
    /// It comes over, and what was written meanwhile is replaced by it.
    Replaced,
    /// It says what was, and starts empty.
    History,
    /// It is made anew from the others.
    Derived,
}

/// The columns that a checksum is over, in this order; NULL is 0 or no bytes.
pub(super) struct Checksum {
    pub(super) numbers: &'static [&'static str],
    pub(super) texts: &'static [&'static str],
}

const fn table(name: &'static str, key: Key, repair: Repair) -> Table {
    Table {
        name,
        key,
        checksum: None,
        bounds: &[],
        repair,
        counter: None,
        is_read_again: false,
        names: None,
        needs: None,
        of_alert: &[],
        in_fallback: false,
    }
}

const fn over(numbers: &'static [&'static str], texts: &'static [&'static str]) -> Checksum {
    Checksum { numbers, texts }
}

/// Counters and budgets stay below it.
const SMALL: i64 = u32::MAX as i64;

/// All tables; what is referred to comes before what refers to it.
pub(super) const TABLES: &[Table] = &[
    table("meta", Key::None, Repair::Kept),
    Table {
        bounds: &[("value", (1 << 53) - 1)],
        in_fallback: true,
        ..table("counter", Key::None, Repair::Replaced)
    },
    Table {
        is_read_again: true,
        names: Some((
            "SELECT id, name FROM source INDEXED BY sqlite_autoindex_source_1",
            "INSERT OR IGNORE INTO source (id, name, last_read_at) VALUES (?1, ?2, 0)",
        )),
        in_fallback: true,
        ..table("source", Key::Row("id"), Repair::Kept)
    },
    Table {
        bounds: &[("window_used", SMALL), ("failures", SMALL)],
        is_read_again: true,
        names: Some((
            "SELECT id, name FROM destination INDEXED BY sqlite_autoindex_destination_1",
            "INSERT OR IGNORE INTO destination (id, name) VALUES (?1, ?2)",
        )),
        in_fallback: true,
        ..table("destination", Key::Row("id"), Repair::Kept)
    },
    Table {
        is_read_again: true,
        names: Some((
            "SELECT id, destination_id, table_name FROM route INDEXED BY sqlite_autoindex_route_1",
            "INSERT OR IGNORE INTO route (id, destination_id, table_name) VALUES (?1, ?2, ?3)",
        )),
        ..table("route", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(&["first_id", "last_id", "unpacked"], &["bodies"])),
        ..table("body_pack", Key::Row("first_id"), Repair::Kept)
    },
    Table {
        names: Some((
            "SELECT id, name FROM rule INDEXED BY sqlite_autoindex_rule_1",
            "INSERT OR IGNORE INTO rule (id, name) VALUES (?1, ?2)",
        )),
        ..table("rule", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(
            &[
                "severity",
                "first_seen_at",
                "last_seen_at",
                "occurrences",
                "route_id",
                "rule_id",
                "planned_id",
            ],
            &["fingerprint"],
        )),
        counter: Some("alerts"),
        is_read_again: true,
        // One whose body is gone cannot be told to anybody; read again from its file, it can.
        needs: Some(
            "SELECT coalesce((SELECT last_id FROM body_pack WHERE first_id <= ?1 ORDER BY first_id DESC LIMIT 1), 0) >= ?1",
        ),
        of_alert: &["id = ?1"],
        ..table("alert", Key::Row("id"), Repair::Kept)
    },
    table("fingerprint", Key::None, Repair::Derived),
    Table {
        checksum: Some(over(&["alert_id", "route_id", "generation"], &["state", "sys_id"])),
        counter: Some("tickets"),
        is_read_again: true,
        of_alert: &["alert_id = ?1"],
        ..table("ticket", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(&["alert_id", "route_id"], &["key", "state"])),
        counter: Some("records"),
        of_alert: &["alert_id = ?1"],
        ..table("record", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(&[], &["key", "view", "hash"])),
        counter: Some("devices"),
        is_read_again: true,
        ..table("device", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(&["device_id", "source_id", "at"], &["key", "said"])),
        is_read_again: true,
        ..table("device_source", Key::Row("id"), Repair::Kept)
    },
    table("device_key", Key::Row("id"), Repair::Kept),
    Table {
        of_alert: &["ticket_id IN (SELECT id FROM ticket WHERE alert_id = ?1)"],
        ..table("unlinked", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(
            &["ticket_id", "device_id", "record_id", "seq", "destination_id", "severity", "attempts"],
            &["kind", "state"],
        )),
        counter: Some("deliveries"),
        of_alert: &[
            "ticket_id IN (SELECT id FROM ticket WHERE alert_id = ?1)",
            "record_id IN (SELECT id FROM record WHERE alert_id = ?1)",
        ],
        ..table("delivery", Key::Row("id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(
            &["source_id", "device", "inode", "head_hash", "head_len", "offset", "backlog_end", "complete"],
            &["path", "state", "proofs"],
        )),
        is_read_again: true,
        in_fallback: true,
        ..table("cursor", Key::Column("source_id"), Repair::Kept)
    },
    Table {
        checksum: Some(over(&["source_id"], &["name", "value"])),
        is_read_again: true,
        in_fallback: true,
        ..table("mark", Key::Column("source_id"), Repair::Kept)
    },
    Table { bounds: &[("tries", SMALL)], in_fallback: true, ..table("hold", Key::None, Repair::Kept) },
    table("outcome", Key::Row("id"), Repair::History),
    table("health_issue", Key::None, Repair::History),
    table("sync", Key::Row("id"), Repair::History),
    table("filtered_sample", Key::Row("id"), Repair::History),
    table("reject_sample", Key::Row("id"), Repair::History),
    table("history", Key::None, Repair::History),
    table("repair", Key::Row("id"), Repair::History),
];

/// The entry of a table.
pub(super) fn of(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.name == name)
}

/// CRC-32C over numbers (eight bytes each, little-endian) and texts (their length as a number, then they themselves).
pub(super) fn crc(numbers: &[i64], texts: &[&[u8]]) -> i64 {
    let mut sum = 0;
    for n in numbers {
        sum = crc32c::crc32c_append(sum, &n.to_le_bytes());
    }
    for text in texts {
        sum = crc32c::crc32c_append(sum, &(text.len() as u64).to_le_bytes());
        sum = crc32c::crc32c_append(sum, text);
    }
    i64::from(sum)
}

/// A row of any table: the names of its columns, and their values.
#[derive(Clone, Copy)]
pub(super) struct AnyRow<'a> {
    pub(super) columns: &'a [String],
    pub(super) values: &'a [Value],
}

impl AnyRow<'_> {
    fn value(&self, name: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|c| c == name)?;
        self.values.get(at)
    }

    pub(super) fn int(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::Integer(n) => Some(*n),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        if matches!(self.value(name)?, Value::Null) { Some(0) } else { self.int(name) }
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.value(name)? {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Blob(bytes) => Some(bytes),
            Value::Null => Some(&[]),
            _ => None,
        }
    }
}

impl Table {
    /// Whether a row is what was written. Without a checksum: whether its numbers can be read back.
    pub(super) fn is_sound(&self, row: AnyRow<'_>) -> bool {
        let bounded =
            self.bounds.iter().all(|(name, most)| row.int(name).is_some_and(|n| (0..=*most).contains(&n)));
        let sums = self.checksum.as_ref().is_none_or(|sum| {
            let found = sum.value(row);
            found.is_some() && found == row.int("crc")
        });
        bounded && sums
    }
}

impl Checksum {
    fn value(&self, row: AnyRow<'_>) -> Option<i64> {
        let numbers: Option<Vec<i64>> = self.numbers.iter().map(|name| row.number(name)).collect();
        let texts: Option<Vec<&[u8]>> = self.texts.iter().map(|name| row.bytes(name)).collect();
        Some(crc(&numbers?, &texts?))
    }
}

/// All values of a row, whatever they are: text that is no text any more comes as bytes.
pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Vec<String>, Vec<Value>)> {
    let columns: Vec<String> = row.as_ref().column_names().into_iter().map(str::to_owned).collect();
    let values = values(row, columns.len())?;
    Ok((columns, values))
}

/// The same without the names.
pub(super) fn values(row: &rusqlite::Row<'_>, number: usize) -> rusqlite::Result<Vec<Value>> {
    let value = |at| {
        Ok(match row.get_ref(at)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(n) => Value::Integer(n),
            ValueRef::Real(x) => Value::Real(x),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                Err(_) => Value::Blob(bytes.to_owned()),
            },
            ValueRef::Blob(bytes) => Value::Blob(bytes.to_owned()),
        })
    };
    (0..number).map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn made() -> rusqlite::Connection {
        let mut conn = rusqlite::Connection::open_in_memory().unwrap();
        crate::store::schema::to_latest(&mut conn).unwrap();
        conn
    }

    fn texts(conn: &rusqlite::Connection, sql: &str) -> BTreeSet<String> {
        conn.prepare(sql).unwrap().query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn each_table_has_one_entry_with_columns_that_are_there() {
        let conn = made();
        let there =
            texts(&conn, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'");
        assert_eq!(TABLES.iter().map(|t| t.name.to_owned()).collect::<BTreeSet<_>>(), there);
        assert_eq!(TABLES.len(), there.len());
        for table in TABLES {
            let columns = texts(&conn, &format!("SELECT name FROM pragma_table_info('{}')", table.name));
            let sum = table.checksum.iter().flat_map(|sum| sum.numbers.iter().chain(sum.texts));
            let key = match table.key {
                Key::Row(column) | Key::Column(column) => Some(column),
                Key::None => None,
            };
            let named = sum.copied().chain(table.bounds.iter().map(|(name, _)| *name)).chain(key);
            for column in named {
                assert!(columns.contains(column), "{}.{column}", table.name);
            }
            assert_eq!(columns.contains("crc"), table.checksum.is_some(), "{}", table.name);
        }
    }

    #[test]
    fn what_is_referred_to_comes_first_and_statements_fit() {
        let conn = made();
        for (at, table) in TABLES.iter().enumerate() {
            let parents =
                texts(&conn, &format!("SELECT \"table\" FROM pragma_foreign_key_list('{}')", table.name));
            for parent in parents {
                assert!(TABLES[..at].iter().any(|t| t.name == parent), "{} before {parent}", table.name);
            }
            for condition in table.of_alert {
                conn.prepare(&format!("DELETE FROM {} WHERE {condition}", table.name)).unwrap();
            }
            for sql in table.needs.into_iter().chain(table.names.into_iter().flat_map(|(a, b)| [a, b])) {
                conn.prepare(sql).unwrap();
            }
        }
    }

    /// The judge of power cuts is another program, and goes by the same description.
    #[test]
    fn the_judge_of_power_cuts_has_this_description() {
        let sums: Vec<_> = TABLES
            .iter()
            .filter_map(|t| Some((t.name, t.checksum.as_ref()?)))
            .map(|(name, sum)| serde_json::json!({"table": name, "numbers": sum.numbers, "texts": sum.texts}))
            .collect();
        let counters: Vec<_> = TABLES
            .iter()
            .filter_map(|t| Some(serde_json::json!({"table": t.name, "counter": t.counter?})))
            .collect();
        let is = serde_json::json!({"checksums": sums, "counters": counters});
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/catalog.json");
        let was: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(was, is, "put this into {path}:\n{is:#}");
    }
}
