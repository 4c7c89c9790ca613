//! Devices as commands show them: lists, one with all that its sources say, and how many there are. Read-only.

use rusqlite::{OptionalExtension, Row, params};

use super::Reader;
use crate::device::diff;
use crate::device::merge::View;
use crate::model::Timestamp;
use crate::store::StoreError;
use crate::store::op::device::outbox::synced_at;
use crate::store::op::device::peers::Peers;
use crate::store::rows::{DeviceCounts, DeviceFilter, DeviceRow, DeviceWord};

const DEVICE: &str =
    "SELECT key, view, hash, told, changed_at, told_at, sys_id, class, seen_at, id FROM device";
/// Most rows of one answer: an answer over the control socket stays bounded.
const ROWS_MAX: usize = 10_000;

impl Reader {
    /// Devices, in the order in which they were first seen.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn devices(&self, filter: &DeviceFilter) -> Result<Vec<DeviceRow>, StoreError> {
        let limit = if filter.limit == 0 { ROWS_MAX } else { (filter.limit as usize).min(ROWS_MAX) };
        let mut select = self.conn.prepare_cached(&format!(
            "{DEVICE} WHERE merged_into IS NULL AND changed_at >= ?1 AND (NOT ?2 OR told IS NOT hash) ORDER BY id"
        ))?;
        let since = filter.since.map_or(0, Timestamp::as_micros);
        let mut rows = select.query(params![since, filter.changed])?;
        let mut peers = Peers::new(&self.conn, None);
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(mut device) = device(row)? else { continue };
            if wants(filter, &device) {
                if filter.peers {
                    device.peers = peers.of(row.get(9)?, &device.view.device)?;
                }
                all.push(device);
            }
            if all.len() == limit {
                break;
            }
        }
        Ok(all)
    }

    /// One device with what each source says; by its id, an address, a MAC or its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn device(&self, id: &str) -> Result<Option<DeviceRow>, StoreError> {
        let (lower, id) = (id.to_ascii_lowercase(), id.trim());
        let by_key = "SELECT device_id FROM device_key WHERE value IN ('ip:' || ?1, 'mac:' || ?1, 'lease:' || ?1) ORDER BY id DESC LIMIT 1";
        let known: Option<i64> = self.conn.query_row(by_key, [&lower], |r| r.get(0)).optional()?;
        let sql = format!("{DEVICE} WHERE merged_into IS NULL AND (key = ?1 OR id = ?2)");
        let mut select = self.conn.prepare(&sql)?;
        let mut rows = select.query(params![lower, known])?;
        let found = match rows.next()? {
            Some(row) => device(row)?.map(|found| (row.get::<_, i64>(9), found)),
            None => None,
        };
        let Some((row, mut found)) = found else {
            let filter = DeviceFilter { text: Some(id.to_owned()), ..DeviceFilter::default() };
            let named =
                |row: &DeviceRow| row.view.device.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(id));
            let named = self.devices(&filter)?.into_iter().find(named);
            return named.map_or(Ok(None), |row| self.device(&row.id));
        };
        let row = row?;
        found.peers = Peers::new(&self.conn, None).of(row, &found.view.device)?;
        let mut words = self.conn.prepare(
            "SELECT s.name, w.at, w.said FROM device_source w JOIN source s ON s.id = w.source_id
             WHERE w.device_id = ?1 ORDER BY s.id, w.id LIMIT 256",
        )?;
        let mut words = words.query([row])?;
        while let Some(word) = words.next()? {
            let (source, at): (String, i64) = (word.get(0)?, word.get(1)?);
            if let Ok(device) = serde_json::from_slice(&word.get::<_, Vec<u8>>(2)?) {
                found.sources.push(DeviceWord { source, at: Timestamp::from_micros(at), device });
            }
        }
        Ok(Some(found))
    }

    /// How many there are.
    pub(super) fn device_counts(&self, known: i64) -> Result<DeviceCounts, StoreError> {
        let sql = "SELECT count(*) FROM device INDEXED BY device_changed WHERE changed = 1";
        let changed = self.conn.query_row(sql, [], |r| r.get(0))?;
        Ok(DeviceCounts { known, changed, last_sync: synced_at(&self.conn)? })
    }
}

/// A row that is damaged must not spoil the list.
fn device(row: &Row<'_>) -> rusqlite::Result<Option<DeviceRow>> {
    let view: Vec<u8> = row.get(1)?;
    let Ok(view) = serde_json::from_slice::<View>(&view) else { return Ok(None) };
    let (hash, told): (Vec<u8>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
    let at = |column: usize| row.get::<_, i64>(column).map(Timestamp::from_micros);
    Ok(Some(DeviceRow {
        id: row.get(0)?,
        view,
        changed: diff::changed(told.as_deref(), &hash).into_iter().map(str::to_owned).collect(),
        changed_at: at(4)?,
        told_at: row.get::<_, Option<i64>>(5)?.map(Timestamp::from_micros),
        sys_id: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
        class: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
        seen_at: at(8)?,
        peers: Vec::new(),
        sources: Vec::new(),
    }))
}

fn wants(filter: &DeviceFilter, row: &DeviceRow) -> bool {
    let d = &row.view.device;
    let is = |wanted: &Option<String>, has: &Option<String>| {
        wanted
            .as_deref()
            .is_none_or(|wanted| has.as_deref().is_some_and(|has| has.eq_ignore_ascii_case(wanted)))
    };
    let text = filter.text.as_ref().map(|text| text.to_lowercase());
    let has = |part: &str, wanted: &str| part.to_lowercase().contains(wanted);
    let found = text.is_none_or(|wanted| {
        [&d.name, &d.kind, &d.vendor, &d.model, &d.serial, &d.firmware, &d.operating_system]
            .into_iter()
            .flatten()
            .any(|part| has(part, &wanted))
            || d.macs.iter().any(|mac| has(mac, &wanted))
            || d.ips.iter().any(|ip| has(&ip.to_string(), &wanted))
            || d.protocols.iter().any(|name| has(name, &wanted))
    });
    found && is(&filter.kind, &d.kind) && is(&filter.zone, &d.zone)
}

/// What a device is called in a list of deliveries.
pub(super) fn title(view: &[u8]) -> String {
    let view: View = serde_json::from_slice(view).unwrap_or_default();
    let d = &view.device;
    let address = || d.ips.first().map(ToString::to_string).or_else(|| d.macs.first().cloned());
    let name = d.name.clone().or_else(address).unwrap_or_else(|| "device".to_owned());
    match &d.kind {
        Some(kind) => format!("{name} ({kind})"),
        None => name,
    }
}
