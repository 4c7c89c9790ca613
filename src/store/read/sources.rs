//! How far each source was read, for `otrelay sources`.

use std::collections::BTreeMap;

use super::{Reader, Result};
use crate::model::cursor::{AGAIN, Again};
use crate::store::rows::{ReadFile, ReadingRow};

/// Most files of a source that are named; the others are counted.
const FILES_MAX: usize = 64;

impl Reader {
    /// How far each source was read.
    ///
    /// # Errors
    /// [`StoreError`](crate::store::StoreError).
    pub fn readings(&self) -> Result<Vec<ReadingRow>> {
        let mut all: BTreeMap<i64, ReadingRow> = BTreeMap::new();
        let mut select = self.conn.prepare("SELECT id, name FROM source")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            all.insert(row.get(0)?, ReadingRow { name: row.get(1)?, ..ReadingRow::default() });
        }
        let mut select = self
            .conn
            .prepare("SELECT source_id, path, offset, backlog_end FROM cursor ORDER BY path, inode")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            let Some(reading) = all.get_mut(&row.get(0)?) else { continue };
            let (read, backlog_end) =
                (row.get::<_, i64>(2)?.max(0) as u64, row.get::<_, i64>(3)?.max(0) as u64);
            reading.read += read;
            reading.backlog += backlog_end.saturating_sub(read);
            reading.file_count += 1;
            if reading.files.len() < FILES_MAX {
                reading.files.push(ReadFile { path: row.get(1)?, read });
            }
        }
        let mut select = self.conn.prepare("SELECT source_id, value FROM mark WHERE name = ?1")?;
        let mut rows = select.query([AGAIN])?;
        while let Some(row) = rows.next()? {
            if let (Some(reading), Some(again)) =
                (all.get_mut(&row.get(0)?), Again::parse(&row.get::<_, String>(1)?))
            {
                (reading.rewound, reading.since) = (true, again.since);
            }
        }
        Ok(all.into_values().collect())
    }
}
