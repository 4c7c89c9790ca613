//! Which of the known devices an end of an alert is.
//!
//! What the source itself calls it decides; then its address, with its MAC where several have that address; a MAC alone
//! where there is no address, as in a routed packet it is the router's; a name at last. One device or none: of two that may
//! be meant neither is.

use rusqlite::{OptionalExtension, Row, params};

use crate::device::ends;
use crate::device::keys;
use crate::device::merge::View;
use crate::model::{Endpoint, Timestamp};
use crate::store::StoreError;
use crate::store::session::Tx;

/// Devices of one key that are looked at; of what more have nobody can be meant.
const CANDIDATES: u32 = 16;

/// A device that may be meant.
pub(super) struct Candidate {
    id: i64,
    /// Its CI.
    pub(super) sys_id: Option<String>,
    /// The destination that knows it by that.
    pub(super) told_to: Option<i64>,
    view: View,
}

/// The device at this end of an alert of that source and time.
pub(super) fn find(
    tx: &Tx<'_>,
    source_id: i64,
    end: &Endpoint,
    at: Timestamp,
) -> Result<Option<Candidate>, StoreError> {
    if let Some(id) = &end.device_id
        && let Some(found) = by_id(tx, source_id, id)?
    {
        return Ok(Some(found));
    }
    let mut by_mac = match &end.mac {
        Some(mac) => with(tx, &format!("mac:{mac}"))?,
        None => Vec::new(),
    };
    by_mac.retain(|one| keys::own_macs(&one.view.device).any(|own| Some(own) == end.mac.as_deref()));
    if let Some(ip) = end.ip {
        by_mac.retain(|one| one.view.device.ips.contains(&ip));
    }
    if let Some(found) = only(by_mac) {
        return Ok(Some(found));
    }
    if let Some(found) = by_address(tx, end, at)? {
        return Ok(Some(found));
    }
    let Some(key) = end.name.as_deref().and_then(ends::named) else { return Ok(None) };
    let mut named = with(tx, &key)?;
    named.retain(|one| !ends::contradicts(end, &one.view.device));
    Ok(only(named))
}

/// The one that has the address; among those that DHCP gave it to, the last.
fn by_address(tx: &Tx<'_>, end: &Endpoint, at: Timestamp) -> Result<Option<Candidate>, StoreError> {
    let Some(ip) = end.ip else { return Ok(None) };
    let mut own = with(tx, &format!("ip:{ip}"))?;
    // A key that is no longer so stays: the view tells.
    own.retain(|one| !one.view.device.dhcp && one.view.device.ips.contains(&ip));
    let leases = with(tx, &ends::lease(ip))?;
    let last = leases.into_iter().filter_map(|one| Some((ends::leased_at(&one.view, ip, at)?, one)));
    own.extend(last.max_by_key(|(at, one)| (*at, one.id)).map(|(_, one)| one));
    Ok(only(own))
}

fn only(mut found: Vec<Candidate>) -> Option<Candidate> {
    found.pop().filter(|_| found.is_empty())
}

fn by_id(tx: &Tx<'_>, source_id: i64, id: &str) -> Result<Option<Candidate>, StoreError> {
    let found = tx
        .conn
        .prepare_cached(
            "SELECT v.id, v.sys_id, v.told_to, v.view FROM device_source w JOIN device v ON v.id = w.device_id
             WHERE w.source_id = ?1 AND w.key = ?2 AND v.merged_into IS NULL",
        )?
        .query_row(params![source_id, format!("id:{}", id.trim())], candidate)
        .optional()?;
    Ok(found.flatten())
}

fn with(tx: &Tx<'_>, key: &str) -> Result<Vec<Candidate>, StoreError> {
    let mut select = tx.conn.prepare_cached(
        "SELECT v.id, v.sys_id, v.told_to, v.view FROM device_key k JOIN device v ON v.id = k.device_id
         WHERE k.value = ?1 AND v.merged_into IS NULL LIMIT ?2",
    )?;
    let rows = select.query_map(params![key, CANDIDATES + 1], candidate)?;
    let found: Vec<Option<Candidate>> = rows.collect::<Result<_, _>>()?;
    Ok(if found.len() > CANDIDATES as usize { Vec::new() } else { found.into_iter().flatten().collect() })
}

/// A view that cannot be read says nothing.
fn candidate(row: &Row<'_>) -> rusqlite::Result<Option<Candidate>> {
    let view: Vec<u8> = row.get(3)?;
    let Ok(view) = serde_json::from_slice(&view) else { return Ok(None) };
    Ok(Some(Candidate { id: row.get(0)?, sys_id: row.get(1)?, told_to: row.get(2)?, view }))
}
