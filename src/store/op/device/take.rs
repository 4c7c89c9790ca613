//! What a source says of devices, into the store: which device it is, and the view that all its sources make of it.
//!
//! One record costs one look by the source's own key. Only where that is new, or says by what else it can be known, the
//! keys of other devices are asked. What says nothing new writes nothing, but once in a while that it was seen; what a batch
//! says of one device is written once.

use std::collections::HashMap;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde_json::Value;

use super::super::health::keep;
use super::super::row::{KEPT, Subject};
use super::super::settle::{self, Next};
use super::share;
use crate::device::merge::{Said, View, bounded, is_same_peer, merge, overlay};
use crate::device::{diff, ends, keys};
use crate::model::device::{Connection, PARTS_MAX};
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

/// Why nothing more is told of a device that turned out to be another.
pub(super) const SAME: &str = "it is the same device as another one";
/// Connections of words that a batch keeps at most before it writes them: a word may have many, and a batch many words.
const TALKS_HELD: usize = 4_096;

/// What is stored of a source's word on a device.
struct Word {
    device: i64,
    said: Device,
    at: Timestamp,
    /// Not written yet.
    is_new: bool,
}

impl Word {
    fn weight(&self) -> usize {
        1 + self.said.connections.len()
    }
}

/// The words of a batch, each written once at its end: a device that many talk to is in many lines, and is large.
struct Batch<'a> {
    source: &'a Source<'a>,
    kind: String,
    /// By the source's keys.
    words: HashMap<String, Word>,
    /// Keys of those that are not written, by device.
    unwritten: HashMap<i64, Vec<String>>,
    weight: usize,
    /// New ones that had no place.
    left_out: u64,
    /// Whether others went.
    made_way: bool,
}

/// Takes them in; gives how many could not be kept, because nothing of them would last.
pub(in crate::store::op) fn take(
    tx: &mut Tx<'_>,
    source: &Source<'_>,
    devices: &[Device],
) -> Result<u64, StoreError> {
    let kind = tx.conn.query_row("SELECT kind FROM source WHERE id = ?1", [source.id], |r| r.get(0))?;
    let mut batch = Batch {
        source,
        kind,
        words: HashMap::new(),
        unwritten: HashMap::new(),
        weight: 0,
        left_out: 0,
        made_way: false,
    };
    let mut unknown = 0;
    for device in devices {
        let device = bounded(device.clone());
        match keys::at_source(&device) {
            Some(key) => batch.take_one(tx, key, device)?,
            None => unknown += 1,
        }
    }
    batch.write(tx)?;
    batch.made_way |= !share::settle_down(tx, source.now)?.is_empty();
    if batch.left_out > 0 || batch.made_way {
        share::say(tx, batch.left_out, source.now)?;
    } else {
        share::is_well(tx)?;
    }
    Ok(unknown)
}

impl Batch<'_> {
    fn take_one(&mut self, tx: &mut Tx<'_>, key: String, mut device: Device) -> Result<(), StoreError> {
        let known = match self.words.remove(&key) {
            Some(word) => {
                self.weight -= word.weight();
                Some(word)
            }
            None => word(tx, self.source.id, &key)?,
        };
        // An address can be given to another device; what is known by it then is another one.
        let is_still_it =
            known.as_ref().is_some_and(|word| !keys::contradict(&word.said, &device, key.starts_with("ip:")));
        let Some(mut word) = known else { return self.find(tx, &key, &device, None, None) };
        if !is_still_it {
            self.put(tx, &key, &word)?;
            return self.find(tx, &key, &device, None, Some(word.device));
        }
        if device.id.is_none() && (word.said.connections.len() >= PARTS_MAX || share::is_used_up(tx)?) {
            // Who came first stays: in a full list each new peer would take another one's place, and it would be written
            // and told for ever.
            let is_known = |one: &Connection| word.said.connections.iter().any(|c| is_same_peer(c, one));
            device.connections.retain(is_known);
        }
        let mut said = overlay(&word.said, &device);
        let is_same = same_but_for_times(&mut said, &mut word.said);
        if is_same && !word.is_new && !is_due(tx, &word, self.source.now)? {
            return self.hold(tx, key, word);
        }
        let all = |device: &Device| [keys::strong(device), keys::weak(device)].concat();
        if is_same || all(&said) == all(&word.said) {
            if !word.is_new {
                self.unwritten.entry(word.device).or_default().push(key.clone());
            }
            (word.said, word.at, word.is_new) = (said, self.source.now, true);
            return self.hold(tx, key, word);
        }
        self.put(tx, &key, &word)?;
        self.find(tx, &key, &said, Some(word.device), None)
    }

    /// Keeps a word for the lines that follow, within bounds.
    fn hold(&mut self, tx: &mut Tx<'_>, key: String, word: Word) -> Result<(), StoreError> {
        self.weight += word.weight();
        self.words.insert(key, word);
        if self.weight > TALKS_HELD { self.write(tx) } else { Ok(()) }
    }

    /// Writes all that is not written.
    fn write(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let devices: Vec<i64> = self.unwritten.keys().copied().collect();
        for device in devices {
            self.write_device(tx, device)?;
        }
        self.words.clear();
        self.weight = 0;
        Ok(())
    }

    /// Writes what was said of one device, and its view.
    fn write_device(&mut self, tx: &mut Tx<'_>, device: i64) -> Result<(), StoreError> {
        let Some(keys) = self.unwritten.remove(&device) else { return Ok(()) };
        for key in keys {
            if let Some(word) = self.words.get_mut(&key).filter(|word| word.is_new && word.device == device) {
                write_word(tx, self.source, &key, device, &word.said)?;
                word.is_new = false;
            }
        }
        refresh(tx, device, self.source.now)
    }

    /// Writes a word that was taken out, before others are compared with its device.
    fn put(&mut self, tx: &mut Tx<'_>, key: &str, word: &Word) -> Result<(), StoreError> {
        if word.is_new {
            write_word(tx, self.source, key, word.device, &word.said)?;
            self.unwritten.entry(word.device).or_default();
        }
        self.write_device(tx, word.device)
    }

    /// Those devices are gone, or are others now.
    fn let_go(&mut self, gone: &[i64]) {
        if !gone.is_empty() {
            self.words.retain(|_, word| !gone.contains(&word.device));
            self.unwritten.retain(|device, _| !gone.contains(device));
            self.weight = self.words.values().map(Word::weight).sum();
        }
    }

    /// Finds the device that a word is of, by all its keys, or makes it. `left`: the one that had the key before.
    fn find(
        &mut self,
        tx: &mut Tx<'_>,
        key: &str,
        said: &Device,
        known: Option<i64>,
        left: Option<i64>,
    ) -> Result<(), StoreError> {
        let (source, values) = (self.source, [keys::strong(said), keys::weak(said)].concat());
        if !self.unwritten.is_empty() {
            for value in &values {
                for id in with_key(tx, value)? {
                    self.write_device(tx, id)?;
                }
            }
        }
        let mut same = candidates(tx, source.id, key, said)?;
        same.extend(known);
        same.sort_unstable();
        same.dedup();
        let id = match same.split_first() {
            None => match self.make(tx, key, said)? {
                Some(id) => id,
                None => return Ok(()),
            },
            Some((first, others)) => {
                for other in others {
                    absorb(tx, *other, *first, source.now)?;
                }
                self.let_go(others);
                *first
            }
        };
        write_word(tx, source, key, id, said)?;
        for value in values {
            tx.conn
                .prepare_cached("INSERT OR IGNORE INTO device_key (value, device_id) VALUES (?1, ?2)")?
                .execute(params![value, id])?;
        }
        if let Some(left) = left.filter(|left| *left != id) {
            refresh(tx, left, source.now)?;
        }
        refresh(tx, id, source.now)
    }

    /// A new device, where it has a place.
    fn make(&mut self, tx: &mut Tx<'_>, key: &str, said: &Device) -> Result<Option<i64>, StoreError> {
        let is_known = share::is_known_by_inventory(&self.kind, key, said);
        let mut gone = Vec::new();
        let is_admitted = share::admits(tx, json(said)?.len(), is_known, self.source.now, &mut gone)?;
        self.made_way |= !gone.is_empty();
        self.let_go(&gone);
        if is_admitted {
            return make(tx, self.source, key, said).map(Some);
        }
        self.left_out += 1;
        Ok(None)
    }
}

/// Whether two words differ in nothing but when things were last seen. Both are as they were afterwards.
fn same_but_for_times(one: &mut Device, other: &mut Device) -> bool {
    let bare = |device: &mut Device| (std::mem::take(&mut device.connections), device.last_seen.take());
    let (of_one, of_other) = (bare(one), bare(other));
    let talk = |c: &Connection, d: &Connection| {
        (c.ip, &c.device_id, &c.name, c.two_way, c.inbound)
            == (d.ip, &d.device_id, &d.name, d.two_way, d.inbound)
            && (&c.protocols, &c.ports) == (&d.protocols, &d.ports)
    };
    let is_same = of_one.0.len() == of_other.0.len()
        && of_one.0.iter().zip(&of_other.0).all(|(c, d)| talk(c, d))
        && one == other;
    (one.connections, one.last_seen) = of_one;
    (other.connections, other.last_seen) = of_other;
    is_same
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
        Some(Word { device, said, at: Timestamp::from_micros(at), is_new: false })
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
        let id = tx.conn.last_insert_rowid();
        tx.count(KEPT, "devices", 1);
        share::view_is(tx, None, view.len())?;
        return Ok(id);
    }
    Err(StoreError::Refused(format!("more than {BORN_MAX} devices are known by {key}")))
}

fn write_word(
    tx: &mut Tx<'_>,
    source: &Source<'_>,
    key: &str,
    device: i64,
    said: &Device,
) -> Result<(), StoreError> {
    let (said, at) = (json(said)?, source.now.as_micros());
    let before: Option<i64> = tx
        .conn
        .prepare_cached("SELECT length(said) FROM device_source WHERE source_id = ?1 AND key = ?2")?
        .query_row(params![source.id, key], |r| r.get(0))
        .optional()?;
    share::word_is(tx, before, said.len())?;
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
    let names = said.iter().filter_map(|one| one.device.name.as_deref());
    write_looked_up(tx, id, &ends::looked_up(&view.device, names))?;
    let (hash, view) = (diff::digests(&view.device), json(&view)?);
    let (key, before, told, length): (String, Vec<u8>, Option<Vec<u8>>, i64) = tx
        .conn
        .prepare_cached("SELECT key, hash, told, length(view) FROM device WHERE id = ?1")?
        .query_row([id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?;
    share::view_is(tx, Some(length), view.len())?;
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

/// By what else it is looked for now, in place of what it was: in one transaction with the view that says so.
fn write_looked_up(tx: &Tx<'_>, id: i64, wanted: &[String]) -> Result<(), StoreError> {
    let held: Vec<(i64, String)> = tx
        .conn
        .prepare_cached(
            "SELECT id, value FROM device_key WHERE device_id = ?1 AND (substr(value, 1, 5) = 'name:'
             OR substr(value, 1, 6) = 'lease:')",
        )?
        .query_map([id], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (row, _) in held.iter().filter(|(_, value)| !wanted.contains(value)) {
        tx.conn.prepare_cached("DELETE FROM device_key WHERE id = ?1")?.execute([row])?;
    }
    for value in wanted.iter().filter(|value| !held.iter().any(|(_, held)| held == *value)) {
        tx.conn
            .prepare_cached("INSERT OR IGNORE INTO device_key (value, device_id) VALUES (?1, ?2)")?
            .execute(params![value, id])?;
    }
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
    withdraw(tx, from, now, SAME)?;
    tx.conn
        .prepare_cached("UPDATE device SET merged_into = ?2, changed = 0 WHERE id = ?1")?
        .execute([from, into])?;
    tx.count(KEPT, "devices", -1);
    let (sys_id, keys): (Option<String>, String) = tx
        .conn
        .prepare_cached("SELECT a.sys_id, b.key || ' and ' || a.key FROM device a, device b WHERE a.id = ?1 AND b.id = ?2")?
        .query_row([from, into], |r| Ok((r.get(0)?, r.get(1)?)))?;
    if let Some(sys_id) = sys_id {
        keep(tx.conn, &twins(&keys, ", and each has a CI", &sys_id), now)?;
    }
    Ok(())
}

/// That two devices, named together, are one and have two CIs; `how` goes on from there.
pub(super) fn twins(keys: &str, how: &str, sys_id: &str) -> HealthIssue {
    let text = format!(
        "the devices {keys} turned out to be one{how}; the one that is no longer told of is {sys_id}"
    );
    HealthIssue::new("device-twins", text, "merge the two there (Duplicate CI Remediator)").about(keys)
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

/// As it is stored: without what is absent, as most of a device is. What reads it takes absent for nothing.
fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    let refused = |e| StoreError::Refused(format!("a device cannot be written: {e}"));
    let mut value = serde_json::to_value(value).map_err(refused)?;
    thin(&mut value);
    serde_json::to_vec(&value).map_err(refused)
}

/// Facts that may be unknown: of them `false` says something.
const MAY_BE_UNKNOWN: [&str; 3] = ["authorized", "programming", "scanner"];

fn thin(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| match value {
                Value::Null => false,
                Value::Bool(is) => *is || MAY_BE_UNKNOWN.contains(&name.as_str()),
                Value::Array(all) => !all.is_empty(),
                _ => true,
            });
            fields.values_mut().for_each(thin);
        }
        Value::Array(all) => all.iter_mut().for_each(thin),
        _ => {}
    }
}

/// The checksum of a device's row.
pub(super) fn device_crc(key: &str, view: &[u8], hash: &[u8]) -> i64 {
    crc(&[], &[key.as_bytes(), view, hash])
}

/// The checksum of what a source says.
fn word_crc(device: i64, source: i64, at: i64, key: &str, said: &[u8]) -> i64 {
    crc(&[device, source, at], &[key.as_bytes(), said])
}
