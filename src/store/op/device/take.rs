//! What a source says of devices, into the store: which device it is, and the view that all its sources make of it.
//!
//! One record costs one look by the source's own key. Only where that is new, or says by what else it can be known, the
//! keys of other devices are asked. What says nothing new writes nothing, but once in a while that it was seen.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::super::health::keep;
use super::super::row::{KEPT, Subject};
use super::super::settle::{self, Next};
use crate::device::merge::{Said, View, bounded, merge, overlay};
use crate::device::{diff, keys};
use crate::model::{DeliveryId, DeliveryState, Device, HealthIssue, Timestamp};
use crate::store::StoreError;
use crate::store::catalog::crc;
use crate::store::session::Tx;

/// That a device was seen again, and nothing else, is written at most so often.
const SEEN_AGAIN: Duration = Duration::from_mins(15);
/// The same where this source alone knows it, so that nothing hangs on whose word is newer: a poll of an inventory that has
/// not changed writes next to nothing.
const SEEN_ALONE: Duration = Duration::from_hours(6);
/// Devices of one key that are looked at.
const CANDIDATES: i64 = 8;
/// Sources of one device.
const SOURCES_MAX: i64 = 64;
/// Devices born with the same key.
const BORN_MAX: u32 = 64;

/// Who says it, and when.
pub(in crate::store::op) struct Source<'a> {
    pub(in crate::store::op) id: i64,
    pub(in crate::store::op) name: &'a str,
    pub(in crate::store::op) now: Timestamp,
}

/// What is stored of a source's word on a device.
struct Word {
    device: i64,
    said: Device,
    at: Timestamp,
}

/// Takes them in; gives how many could not be kept, because nothing of them would last.
pub(in crate::store::op) fn take(
    tx: &mut Tx<'_>,
    source: &Source<'_>,
    devices: &[Device],
) -> Result<u64, StoreError> {
    let mut unknown = 0;
    for device in devices {
        let device = bounded(device.clone());
        match keys::at_source(&device) {
            Some(key) => take_one(tx, source, &key, &device)?,
            None => unknown += 1,
        }
    }
    Ok(unknown)
}

fn take_one(tx: &mut Tx<'_>, source: &Source<'_>, key: &str, device: &Device) -> Result<(), StoreError> {
    let known = word(tx, source.id, key)?;
    // An address can be given to another device; what is known by it then is another one.
    let still_it = |word: &Word| !keys::contradict(&word.said, device, key.starts_with("ip:"));
    let left = known.as_ref().filter(|word| !still_it(word)).map(|word| word.device);
    let known = known.filter(still_it);
    let said = known.as_ref().map_or_else(|| device.clone(), |word| overlay(&word.said, device));
    if let Some(word) = &known {
        if same_but_for_times(&said, &word.said) && !is_due(tx, word, source.now)? {
            return Ok(());
        }
        let all = |device: &Device| [keys::strong(device), keys::weak(device)].concat();
        if all(&said) == all(&word.said) {
            write_word(tx, source, key, word.device, &said)?;
            return refresh(tx, word.device, source.now);
        }
    }
    let mut same = candidates(tx, source.id, key, &said)?;
    same.extend(known.map(|word| word.device));
    same.sort_unstable();
    same.dedup();
    let id = match same.split_first() {
        None => make(tx, source, key, &said)?,
        Some((first, others)) => {
            for other in others {
                absorb(tx, *other, *first, source.now)?;
            }
            *first
        }
    };
    write_word(tx, source, key, id, &said)?;
    for value in [keys::strong(&said), keys::weak(&said)].concat() {
        tx.conn
            .prepare_cached("INSERT OR IGNORE INTO device_key (value, device_id) VALUES (?1, ?2)")?
            .execute(params![value, id])?;
    }
    if let Some(left) = left.filter(|left| *left != id) {
        refresh(tx, left, source.now)?;
    }
    refresh(tx, id, source.now)
}

/// Whether two words differ in nothing but when things were last seen.
fn same_but_for_times(one: &Device, other: &Device) -> bool {
    let timeless = |device: &Device| {
        let mut device = Device { last_seen: None, ..device.clone() };
        device.connections.iter_mut().for_each(|connection| connection.last_seen = None);
        device
    };
    timeless(one) == timeless(other)
}

/// Whether it is time to write that a device was seen again.
fn is_due(tx: &Tx<'_>, word: &Word, now: Timestamp) -> Result<bool, StoreError> {
    let age = now.since(word.at);
    if age < SEEN_AGAIN || age >= SEEN_ALONE {
        return Ok(age >= SEEN_ALONE);
    }
    let words: i64 = tx
        .conn
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM device_source WHERE device_id = ?1 LIMIT 2)")?
        .query_row([word.device], |r| r.get(0))?;
    Ok(words > 1)
}

fn word(tx: &Tx<'_>, source_id: i64, key: &str) -> Result<Option<Word>, StoreError> {
    let row: Option<(i64, Vec<u8>, i64)> = tx
        .conn
        .prepare_cached("SELECT device_id, said, at FROM device_source WHERE source_id = ?1 AND key = ?2")?
        .query_row(params![source_id, key], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    // What cannot be read is as if it had not been said; it is written anew.
    Ok(row.and_then(|(device, said, at)| {
        let said = serde_json::from_slice(&said).ok()?;
        Some(Word { device, said, at: Timestamp::from_micros(at) })
    }))
}

/// The devices that it is, by their keys: what has the same serial number or MAC, else the first with the same address.
fn candidates(tx: &Tx<'_>, source_id: i64, key: &str, said: &Device) -> Result<Vec<i64>, StoreError> {
    let mut found = Vec::new();
    for value in keys::strong(said) {
        let by_mac = value.starts_with("mac:");
        for id in with_key(tx, &value)? {
            let Some(view) = view(tx, id)? else { continue };
            let stale = !keys::strong(&view.device).contains(&value);
            // A source knows its own devices apart, whatever MAC it shows for them.
            let apart = by_mac && told_apart(tx, source_id, key, id)?;
            if !stale && !apart && !keys::contradict(&view.device, said, false) {
                found.push(id);
            }
        }
    }
    if !found.is_empty() {
        return Ok(found);
    }
    for value in keys::weak(said) {
        for id in with_key(tx, &value)? {
            let Some(view) = view(tx, id)? else { continue };
            let stale = !keys::weak(&view.device).contains(&value);
            if !stale && !told_apart(tx, source_id, key, id)? && !keys::contradict(&view.device, said, true) {
                return Ok(vec![id]);
            }
        }
    }
    Ok(found)
}

fn with_key(tx: &Tx<'_>, value: &str) -> Result<Vec<i64>, StoreError> {
    let mut select = tx
        .conn
        .prepare_cached("SELECT device_id FROM device_key WHERE value = ?1 ORDER BY device_id LIMIT ?2")?;
    let ids = select.query_map(params![value, CANDIDATES], |r| r.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Whether the source has another device of its own by that row: two ids are two devices.
fn told_apart(tx: &Tx<'_>, source_id: i64, key: &str, device: i64) -> Result<bool, StoreError> {
    if !key.starts_with("id:") {
        return Ok(false);
    }
    let other: bool = tx
        .conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM device_source
             WHERE device_id = ?1 AND source_id = ?2 AND key <> ?3 AND substr(key, 1, 3) = 'id:')",
        )?
        .query_row(params![device, source_id, key], |r| r.get(0))?;
    Ok(other)
}

pub(super) fn view(tx: &Tx<'_>, id: i64) -> Result<Option<View>, StoreError> {
    let row: Option<Vec<u8>> = tx
        .conn
        .prepare_cached("SELECT view FROM device WHERE id = ?1 AND merged_into IS NULL")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    Ok(row.and_then(|view| serde_json::from_slice(&view).ok()))
}

/// A new device. Its key towards the other side is made of what lasts, so that it is the same after the loss of the store.
fn make(tx: &mut Tx<'_>, source: &Source<'_>, key: &str, said: &Device) -> Result<i64, StoreError> {
    for again in 0..BORN_MAX {
        let born = keys::born(source.name, key, said, again);
        let taken: bool = tx
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM device WHERE key = ?1)")?
            .query_row([&born], |r| r.get(0))?;
        if taken {
            continue;
        }
        let view = json(&View::default())?;
        let hash: Vec<u8> = Vec::new();
        tx.conn
            .prepare_cached(
                "INSERT INTO device (key, view, hash, changed, changed_at, seen_at, crc) VALUES (?1, ?2, ?3, 0, ?4, ?4, ?5)",
            )?
            .execute(params![born, view, hash, source.now.as_micros(), device_crc(&born, &view, &hash)])?;
        tx.count(KEPT, "devices", 1);
        return Ok(tx.conn.last_insert_rowid());
    }
    Err(StoreError::Refused(format!("more than {BORN_MAX} devices are known by {key}")))
}

fn write_word(
    tx: &Tx<'_>,
    source: &Source<'_>,
    key: &str,
    device: i64,
    said: &Device,
) -> Result<(), StoreError> {
    let (said, at) = (json(said)?, source.now.as_micros());
    tx.conn
        .prepare_cached(
            "INSERT INTO device_source (device_id, source_id, key, said, at, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (source_id, key) DO UPDATE SET device_id = excluded.device_id, said = excluded.said,
             at = excluded.at, crc = excluded.crc",
        )?
        .execute(params![device, source.id, key, said, at, word_crc(device, source.id, at, key, &said)])?;
    Ok(())
}

/// Makes the view of a device anew from what its sources say.
fn refresh(tx: &mut Tx<'_>, id: i64, now: Timestamp) -> Result<(), StoreError> {
    let words: Vec<(String, String, i64, Vec<u8>)> = tx
        .conn
        .prepare_cached(
            "SELECT s.name, s.kind, w.at, w.said FROM device_source w JOIN source s ON s.id = w.source_id
             WHERE w.device_id = ?1 ORDER BY w.at DESC LIMIT ?2",
        )?
        .query_map([id, SOURCES_MAX], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?
        .collect::<Result<_, _>>()?;
    let said: Vec<Said> = words
        .into_iter()
        .filter_map(|(source, kind, at, said)| {
            let device = serde_json::from_slice(&said).ok()?;
            Some(Said { source, kind, at: Timestamp::from_micros(at), device })
        })
        .collect();
    if said.is_empty() {
        // What it was known by is another's now; what was known of it stays.
        return Ok(());
    }
    let mut view = merge(&said);
    tx.memory.vendors.fill(&mut view, now);
    let (hash, view) = (diff::digests(&view.device), json(&view)?);
    let (key, before, told): (String, Vec<u8>, Option<Vec<u8>>) = tx
        .conn
        .prepare_cached("SELECT key, hash, told FROM device WHERE id = ?1")?
        .query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let changed_at = (before != hash).then_some(now.as_micros());
    tx.conn
        .prepare_cached(
            "UPDATE device SET view = ?2, hash = ?3, changed = ?4, changed_at = coalesce(?5, changed_at), seen_at = ?6,
             crc = ?7 WHERE id = ?1",
        )?
        .execute(params![
            id,
            view,
            hash,
            told.as_deref() != Some(&hash[..]),
            changed_at,
            now.as_micros(),
            device_crc(&key, &view, &hash)
        ])?;
    Ok(())
}

/// What was taken for two is one: the older row keeps what both were known by.
fn absorb(tx: &mut Tx<'_>, from: i64, into: i64, now: Timestamp) -> Result<(), StoreError> {
    let words: Vec<(i64, i64, String, Vec<u8>, i64)> = tx
        .conn
        .prepare_cached("SELECT id, source_id, key, said, at FROM device_source WHERE device_id = ?1")?
        .query_map([from], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?
        .collect::<Result<_, _>>()?;
    for (id, source, key, said, at) in words {
        tx.conn
            .prepare_cached("UPDATE device_source SET device_id = ?2, crc = ?3 WHERE id = ?1")?
            .execute(params![id, into, word_crc(into, source, at, &key, &said)])?;
    }
    tx.conn
        .prepare_cached("UPDATE OR IGNORE device_key SET device_id = ?2 WHERE device_id = ?1")?
        .execute([from, into])?;
    tx.conn.prepare_cached("DELETE FROM device_key WHERE device_id = ?1")?.execute([from])?;
    withdraw(tx, from, now, "it is the same device as another one")?;
    tx.conn
        .prepare_cached("UPDATE device SET merged_into = ?2, changed = 0 WHERE id = ?1")?
        .execute([from, into])?;
    tx.count(KEPT, "devices", -1);
    let (sys_id, keys): (Option<String>, String) = tx
        .conn
        .prepare_cached("SELECT a.sys_id, b.key || ' and ' || a.key FROM device a, device b WHERE a.id = ?1 AND b.id = ?2")?
        .query_row([from, into], |r| Ok((r.get(0)?, r.get(1)?)))?;
    if let Some(sys_id) = sys_id {
        let issue = HealthIssue {
            code: "device-twins".to_owned(),
            subject: keys.clone(),
            text: format!(
                "the devices {keys} turned out to be one, and each has a CI; the one that is no longer told of is {sys_id}"
            ),
            remedy: "merge the two there (Duplicate CI Remediator)".to_owned(),
        };
        keep(tx.conn, &issue, now)?;
    }
    Ok(())
}

/// Withdraws what still waits of a device.
pub(super) fn withdraw(tx: &mut Tx<'_>, device: i64, now: Timestamp, why: &str) -> Result<(), StoreError> {
    let waiting: Vec<i64> = tx
        .conn
        .prepare_cached("SELECT id FROM delivery WHERE device_id = ?1 AND state IN ('pending', 'dead')")?
        .query_map([device], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    for id in waiting.into_iter().map(DeliveryId) {
        let Some(was) = settle::current(tx, id)? else { continue };
        let next = Next {
            subject: Subject::Device(device),
            state: DeliveryState::Withdrawn,
            due_at: None,
            attempts: was.attempts,
            doubtful: false,
            reason: Some(why),
            now,
        };
        settle::move_delivery(tx, id, &was, &next)?;
    }
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|e| StoreError::Refused(format!("a device cannot be written: {e}")))
}

/// The checksum of a device's row.
pub(super) fn device_crc(key: &str, view: &[u8], hash: &[u8]) -> i64 {
    crc(&[], &[key.as_bytes(), view, hash])
}

/// The checksum of what a source says.
fn word_crc(device: i64, source: i64, at: i64, key: &str, said: &[u8]) -> i64 {
    crc(&[device, source, at], &[key.as_bytes(), said])
}
