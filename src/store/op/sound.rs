//! Is a row what was written? SQLite's pages have no checksum: a flipped bit in a row passes its integrity check
//! (docs/figures.md), so the rows that work is done by carry one. Checked when they are read for work, when a damaged
//! database is salvaged, and before a backup is restored.

use rusqlite::OptionalExtension;
use rusqlite::types::Value;

use super::row::{AlertCrc, DeliveryCrc, Subject, crc, ticket_crc};
use crate::model::{DeliveryId, DeliveryState, FileCursor, Generation, Mark, TicketState};
use crate::store::StoreError;
use crate::store::session::Tx;

/// A row of any table: the names of its columns, and their values.
#[derive(Clone, Copy)]
pub(in crate::store) struct AnyRow<'a> {
    pub(in crate::store) columns: &'a [String],
    pub(in crate::store) values: &'a [Value],
}

impl AnyRow<'_> {
    fn value(&self, name: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|c| c == name)?;
        self.values.get(at)
    }

    pub(in crate::store) fn int(&self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::Integer(n) => Some(*n),
            _ => None,
        }
    }

    pub(in crate::store) fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.value(name)? {
            Value::Text(text) => Some(text.as_bytes()),
            Value::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn is_null(&self, name: &str) -> bool {
        matches!(self.value(name), None | Some(Value::Null))
    }
}

/// The tables whose rows carry a checksum, with the number that a row is known by.
pub(in crate::store) const CHECKED: [(&str, &str); 6] = [
    ("alert", "id"),
    ("body_pack", "first_id"),
    ("ticket", "id"),
    ("delivery", "id"),
    ("cursor", "source_id"),
    ("mark", "source_id"),
];

/// Whether a row can be trusted. Tables without a checksum: whether its numbers can be read back.
pub(in crate::store) fn is_sound(table: &str, row: AnyRow<'_>) -> bool {
    let found = match table {
        "alert" => alert(row),
        "body_pack" => pack(row),
        "ticket" => ticket(row),
        "delivery" => delivery(row),
        "cursor" => cursor(row),
        "mark" => mark(row),
        "hold" => return small(row, &["tries"]),
        "destination" => return small(row, &["window_used", "failures"]),
        "outcome" => return small(row, &["n"]),
        "counter" => return row.int("value").is_some_and(|n| (0..1 << 53).contains(&n)),
        _ => return true,
    };
    found.is_some() && found == row.int("crc")
}

fn small(row: AnyRow<'_>, names: &[&str]) -> bool {
    names.iter().all(|name| row.int(name).is_some_and(|n| u32::try_from(n).is_ok()))
}

fn alert(row: AnyRow<'_>) -> Option<i64> {
    let facts = AlertCrc {
        fingerprint: row.bytes("fingerprint")?.try_into().ok()?,
        severity: row.int("severity")?,
        first_seen_at: row.int("first_seen_at")?,
        last_seen_at: row.int("last_seen_at")?,
        occurrences: row.int("occurrences")?,
    };
    Some(facts.value())
}

fn pack(row: AnyRow<'_>) -> Option<i64> {
    let range = [row.int("first_id")?, row.int("last_id")?, row.int("unpacked")?];
    Some(crc(&range, &[row.bytes("bodies")?]))
}

fn ticket(row: AnyRow<'_>) -> Option<i64> {
    let generation = Generation(u32::try_from(row.int("generation")?).ok()?);
    let state = TicketState::parse(row.text("state")?)?;
    let sys_id = if row.is_null("sys_id") { "" } else { row.text("sys_id")? };
    Some(ticket_crc(row.int("alert_id")?, row.int("route_id")?, generation, state, sys_id))
}

fn delivery(row: AnyRow<'_>) -> Option<i64> {
    let state = DeliveryState::parse(row.text("state")?)?;
    let attempts = row.int("attempts").filter(|n| u32::try_from(*n).is_ok())?;
    let crc = DeliveryCrc {
        kind: row.text("kind")?,
        subject: Subject::of(["ticket_id", "device_id", "record_id"].map(|name| row.int(name)))?,
        seq: row.int("seq")?,
        destination: row.int("destination_id")?,
        state,
        severity: row.int("severity")?,
        attempts,
    };
    Some(crc.value())
}

fn cursor(row: AnyRow<'_>) -> Option<i64> {
    let numbers: Option<Vec<i64>> =
        ["source_id", "device", "inode", "head_hash", "head_len", "offset", "backlog_end"]
            .into_iter()
            .map(|name| row.int(name))
            .collect();
    let state = if row.is_null("state") { &[][..] } else { row.bytes("state")? };
    Some(crc(&numbers?, &[row.bytes("path")?, state]))
}

/// The checksum of a cursor's row.
pub(super) fn cursor_crc(source: i64, c: &FileCursor) -> i64 {
    let numbers = [
        source,
        c.device as i64,
        c.inode as i64,
        c.head_hash as i64,
        i64::from(c.head_len),
        c.offset as i64,
        c.backlog_end as i64,
    ];
    crc(&numbers, &[c.path.as_bytes(), c.state.as_deref().unwrap_or_default().as_bytes()])
}

fn mark(row: AnyRow<'_>) -> Option<i64> {
    Some(crc(&[row.int("source_id")?], &[row.bytes("name")?, row.bytes("value")?]))
}

/// The checksum of a mark's row.
pub(super) fn mark_crc(source: i64, mark: &Mark) -> i64 {
    crc(&[source], &[mark.name.as_bytes(), mark.value.as_bytes()])
}

/// Whether a delivery and its ticket are what was written; a row that is gone is not.
pub(super) fn is_delivery_sound(tx: &Tx<'_>, id: DeliveryId) -> Result<bool, StoreError> {
    let ticket: Option<Option<i64>> = tx
        .conn
        .prepare_cached("SELECT * FROM delivery WHERE id = ?1")?
        .query_row([id.0], |row| {
            let (columns, values) = read(row)?;
            let row = AnyRow { columns: &columns, values: &values };
            Ok(is_sound("delivery", row).then(|| row.int("ticket_id")).flatten())
        })
        .optional()?;
    let Some(Some(ticket)) = ticket else { return Ok(false) };
    let sound = tx
        .conn
        .prepare_cached(
            "SELECT id, alert_id, route_id, generation, state, sys_id, crc FROM ticket WHERE id = ?1",
        )?
        .query_row([ticket], |row| {
            let (columns, values) = read(row)?;
            Ok(is_sound("ticket", AnyRow { columns: &columns, values: &values }))
        })
        .optional()?;
    Ok(sound == Some(true))
}

/// All values of a row, whatever they are: text that is no text any more comes as bytes.
pub(in crate::store) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Vec<String>, Vec<Value>)> {
    let columns: Vec<String> = row.as_ref().column_names().into_iter().map(str::to_owned).collect();
    let values = values(row, columns.len())?;
    Ok((columns, values))
}

/// The same without the names.
pub(in crate::store) fn values(row: &rusqlite::Row<'_>, number: usize) -> rusqlite::Result<Vec<Value>> {
    use rusqlite::types::ValueRef;
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
