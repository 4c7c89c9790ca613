//! Who is at the other end of a device's connections, as far as that one is a device of ours.
//!
//! By its address, where one device alone has it, else by the id that a source of the device gives it. Both ends of a
//! connection say that they are one, so whichever is told later finds the other.

use std::collections::HashMap;

use rusqlite::{Connection as Db, OptionalExtension, params};

use crate::device::keys::called;
use crate::device::merge::View;
use crate::model::Device;
use crate::model::device::{Connection, Peer};
use crate::store::StoreError;

/// Looks peers up for the devices of one claim, each once.
pub(in crate::store) struct Peers<'a> {
    conn: &'a Db,
    /// Where their CIs are looked for; `None`: wherever they were told.
    destination_id: Option<i64>,
    known: HashMap<i64, Option<Peer>>,
}

impl<'a> Peers<'a> {
    pub(in crate::store) fn new(conn: &'a Db, destination_id: Option<i64>) -> Self {
        Self { conn, destination_id, known: HashMap::new() }
    }

    /// The peers of one device, by the number of its row.
    pub(in crate::store) fn of(&mut self, row: i64, device: &Device) -> Result<Vec<Peer>, StoreError> {
        let mut all = Vec::new();
        for (place, connection) in device.connections.iter().enumerate() {
            let Some(id) = self.other_end(row, connection)?.filter(|id| *id != row) else { continue };
            if !self.known.contains_key(&id) {
                let peer = self.peer(id)?;
                self.known.insert(id, peer);
            }
            let known = self.known.get(&id).cloned().flatten();
            all.extend(known.map(|peer| Peer { place, ..peer }));
        }
        Ok(all)
    }

    fn other_end(&self, device: i64, connection: &Connection) -> Result<Option<i64>, StoreError> {
        if let Some(ip) = connection.ip {
            let by_address = "SELECT k.device_id FROM device_key k JOIN device v ON v.id = k.device_id
                 WHERE k.value = ?1 AND v.merged_into IS NULL LIMIT 2";
            if let Some(id) = self.only(by_address, params![format!("ip:{ip}")])? {
                return Ok(Some(id));
            }
        }
        let Some(id) = &connection.device_id else { return Ok(None) };
        let by_id = "SELECT DISTINCT device_id FROM device_source WHERE key = ?1 AND source_id IN (
               SELECT source_id FROM device_source WHERE device_id = ?2) LIMIT 2";
        self.only(by_id, params![format!("id:{id}"), device])
    }

    /// The one row; none where there are several.
    fn only(&self, sql: &str, with: impl rusqlite::Params) -> Result<Option<i64>, StoreError> {
        let mut select = self.conn.prepare_cached(sql)?;
        let ids: Vec<i64> = select.query_map(with, |r| r.get(0))?.collect::<Result<_, _>>()?;
        Ok(match ids.as_slice() {
            [only] => Some(*only),
            _ => None,
        })
    }

    fn peer(&self, id: i64) -> Result<Option<Peer>, StoreError> {
        let row: Option<(String, Vec<u8>, String)> = self
            .conn
            .prepare_cached(
                "SELECT key, view, CASE WHEN sys_id IS NOT NULL AND coalesce(told_to = ?2, 1) THEN coalesce(class, '') ELSE '' END
                 FROM device WHERE id = ?1 AND merged_into IS NULL",
            )?
            .query_row(params![id, self.destination_id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .optional()?;
        let Some((key, view, class)) = row else { return Ok(None) };
        let Ok(View { device, .. }) = serde_json::from_slice(&view) else { return Ok(None) };
        let name = called(&device);
        let peer = Peer { place: 0, key, name, class, is_sensor: device.is_sensor };
        Ok((!device.deleted).then_some(peer))
    }
}
