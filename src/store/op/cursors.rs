//! How far a source was read: asked when it begins, moved with what it gave.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::Record;
use super::row::{cursor_crc, mark_crc};
use crate::model::cursor::{MARK_MAX, Proof, Remembered};
use crate::model::text::clip;
use crate::model::{Cursor, FileCursor, Mark, SourceName};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

struct Remember(SourceName);

impl Store {
    /// How far this source was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remembered(&self, source: &SourceName) -> Result<Remembered, StoreError> {
        self.call(Remember(source.clone())).await
    }
}

impl Operation for Remember {
    type Output = Remembered;

    fn run(self, tx: &mut Tx<'_>) -> Result<Remembered, StoreError> {
        let known: Option<(i64, bool)> = tx
            .conn
            .query_row(
                "SELECT id, first_read_at IS NOT NULL FROM source WHERE name = ?1",
                [self.0.as_str()],
                |r| Ok((r.get(0)?, r.get(1)?)),
            )
            .optional()?;
        let Some((id, read_before)) = known else { return Ok(Remembered::default()) };
        Ok(Remembered { cursors: of_source(tx.conn, id, self.0.as_str())?, read_before })
    }
}

/// The cursors of a source, as far as they are sound.
pub(in crate::store) fn of_source(
    conn: &Connection,
    id: i64,
    source: &str,
) -> Result<Vec<Cursor>, StoreError> {
    let mut cursors: Vec<Cursor> = files(conn, id, source)?.into_iter().map(Cursor::File).collect();
    cursors.extend(marks(conn, id, source)?.into_iter().map(Cursor::Mark));
    Ok(cursors)
}

fn marks(conn: &Connection, id: i64, source: &str) -> Result<Vec<Mark>, StoreError> {
    let mut statement = conn.prepare("SELECT name, value, crc FROM mark WHERE source_id = ?1")?;
    let mut marks = Vec::new();
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        let mark = || Ok::<_, rusqlite::Error>(Mark { name: row.get(0)?, value: row.get(1)? });
        match mark() {
            Ok(mark) if row.get::<_, Option<i64>>(2)? == Some(mark_crc(id, &mark)) => marks.push(mark),
            _ => tracing::error!(source, "a damaged mark was left out; what it stood for is read again"),
        }
    }
    Ok(marks)
}

fn files(conn: &Connection, id: i64, source: &str) -> Result<Vec<FileCursor>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT device, inode, head_hash, head_len, offset, backlog_end, path, crc, state, proofs, complete FROM cursor
             WHERE source_id = ?1",
    )?;
    let mut cursors = Vec::new();
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        // Read from its beginning, a file gives again what is known already; read from a wrong place, it may not
        // give what is not.
        match cursor(row) {
            Ok(c) if row.get::<_, i64>(7)? == cursor_crc(id, &c) => {
                cursors.push(c);
            }
            _ => {
                tracing::error!(source, "a damaged cursor was left out; its file is read again");
            }
        }
    }
    Ok(cursors)
}

fn cursor(row: &Row<'_>) -> rusqlite::Result<FileCursor> {
    Ok(FileCursor {
        device: row.get::<_, i64>(0)? as u64,
        inode: row.get::<_, i64>(1)? as u64,
        head_hash: row.get::<_, i64>(2)? as u64,
        head_len: row.get(3)?,
        offset: row.get::<_, i64>(4)? as u64,
        backlog_end: row.get::<_, i64>(5)? as u64,
        path: row.get(6)?,
        state: row.get(8)?,
        proofs: Proof::decode(&row.get::<_, String>(9)?),
        complete: row.get(10)?,
    })
}

/// Writes how far a source is read, and forgets what is done with.
pub(super) fn move_cursors(tx: &Tx<'_>, source_id: i64, record: &Record) -> Result<(), StoreError> {
    for cursor in &record.finished {
        match cursor {
            Cursor::File(c) => tx
                .conn
                .prepare_cached(
                    "DELETE FROM cursor WHERE source_id = ?1 AND device = ?2 AND inode = ?3 AND head_hash = ?4",
                )?
                .execute(params![source_id, c.device as i64, c.inode as i64, c.head_hash as i64])?,
            Cursor::Mark(mark) => tx
                .conn
                .prepare_cached("DELETE FROM mark WHERE source_id = ?1 AND name = ?2")?
                .execute(params![source_id, mark.name])?,
        };
    }
    record.cursors.iter().try_for_each(|cursor| match cursor {
        Cursor::File(file) => put_file(tx, source_id, file),
        Cursor::Mark(mark) => put_mark(tx, source_id, mark),
    })
}

pub(super) fn put_file(tx: &Tx<'_>, source_id: i64, c: &FileCursor) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(
            "INSERT INTO cursor (source_id, device, inode, head_hash, head_len, offset, backlog_end, path, state,
             proofs, complete, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT DO UPDATE SET head_hash = excluded.head_hash, head_len = excluded.head_len,
             offset = excluded.offset, backlog_end = excluded.backlog_end, path = excluded.path,
             state = excluded.state, proofs = excluded.proofs, complete = excluded.complete, crc = excluded.crc",
        )?
        .execute(params![
            source_id,
            c.device as i64,
            c.inode as i64,
            c.head_hash as i64,
            c.head_len,
            c.offset as i64,
            c.backlog_end as i64,
            c.path,
            c.state,
            Proof::encode(&c.proofs),
            c.complete,
            cursor_crc(source_id, c)
        ])?;
    Ok(())
}

pub(super) fn put_mark(tx: &Tx<'_>, source_id: i64, mark: &Mark) -> Result<(), StoreError> {
    if mark.name.len().max(mark.value.len()) > MARK_MAX {
        return Err(StoreError::Refused(format!("the mark {} is too long", clip(&mark.name, 64))));
    }
    tx.conn
        .prepare_cached(
            "INSERT INTO mark (source_id, name, value, crc) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = excluded.value, crc = excluded.crc",
        )?
        .execute(params![source_id, mark.name, mark.value, mark_crc(source_id, mark)])?;
    Ok(())
}
