//! How much of the store devices may have, and which of them are forgotten when they would have more.
//!
//! Whoever gets a packet past a sensor makes as many devices as there are addresses, and each is a row for ever. So devices
//! have a share of the pages, and what they hold is counted in bytes as it is written. Beyond it the oldest go that only
//! traffic shows and nobody was told of: they are made again when they are seen again, under the same key. For one that an
//! inventory knows, also those go that were told. Where none of both is left, the new ones are left out. Alerts come
//! first: a tight store forgets what only traffic shows before it gives up any that is undelivered.
//!
//! A device goes with all that hangs on it in one transaction, and its bytes leave the counter in the same: after a power
//! cut it is there wholly or not at all. What waits for its address (`unlinked`) belongs to a ticket, and stays.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use super::super::health::{keep, over};
use super::super::prune::{forget_deliveries, room};
use super::super::row::KEPT;
use crate::model::{Device, HealthIssue, Timestamp};
use crate::store::StoreError;
use crate::store::session::Tx;

/// The share is this part of the pages: 100 000 devices of a console fit into the default `max_size` with it, and alerts
/// keep the other half whatever comes.
const SHARE: i64 = 2;
/// The same without `[devices]`: nobody is told of them, they can only be listed.
const SHARE_UNWANTED: i64 = 8;
/// In a tight store what only traffic shows comes down to this part before any finding goes, settled or not.
const FLOOR: i64 = 16;
/// Bytes of a device besides its texts: keys, a delivery, all in their indexes (docs/figures.md).
const DEVICE_ROW: i64 = 300;
/// The same of what one source says of it.
const WORD_ROW: i64 = 100;
/// Devices that are forgotten in one transaction at most: their rows are spread over the indexes, and the log has a bound.
const STEP: usize = 200;
/// Where none was found that gives way, it is looked for again after this.
const AGAIN: Duration = Duration::from_mins(10);
/// The counter of the bytes, in the scope of what is kept. Where it is missing, they are counted once.
const BYTES: &str = "device bytes";
const CODE: &str = "devices-share";
/// What can be seen of a device by whoever sees traffic is only an address; an inventory knows it by more.
const INVENTORIES: [&str; 5] = ["host", "defender-sensor", "defender-console", "json-lines", "http"];
/// Where a store is made anew, or holds a part of another: they are counted when it is next asked for them.
pub(in crate::store) const COUNT_ANEW: &str =
    "DELETE FROM main.counter WHERE scope = 'store' AND name = 'device bytes';";

/// Which devices give way; each has those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::op) enum Give {
    /// Only traffic shows them, and nobody was told.
    Untold,
    /// Only traffic shows them.
    Seen,
    /// Whatever is not on its way.
    Any,
}

impl Give {
    fn sql(self) -> String {
        let inventories = INVENTORIES.map(|kind| format!("'{kind}'")).join(", ");
        let seen = format!(
            "NOT EXISTS (SELECT 1 FROM device_source w JOIN source s ON s.id = w.source_id
               WHERE w.device_id = v.id AND s.kind IN ({inventories})
                 AND (substr(w.key, 1, 3) <> 'ip:' OR instr(w.said, CAST('\"serial\":\"' AS BLOB)) > 0
                   OR instr(w.said, CAST('\"name\":\"' AS BLOB)) > 0))"
        );
        let which = match self {
            Self::Untold => format!("v.told IS NULL AND {seen}"),
            Self::Seen => seen,
            Self::Any => "1".to_owned(),
        };
        // What was claimed is settled by the number of its row.
        format!(
            "SELECT v.id FROM device v WHERE v.id > ?1 AND {which} AND NOT EXISTS (
               SELECT 1 FROM delivery d WHERE d.device_id = v.id AND d.state = 'claimed') ORDER BY v.id LIMIT ?2"
        )
    }
}

/// Whether an inventory knows it by more than an address.
pub(super) fn is_known_by_inventory(kind: &str, key: &str, device: &Device) -> bool {
    INVENTORIES.contains(&kind)
        && (!key.starts_with("ip:") || device.serial.is_some() || device.name.is_some())
}

/// Bytes that devices may have.
pub(in crate::store::op) fn share(tx: &Tx<'_>) -> i64 {
    tx.pages * 4096 / if tx.conditions.devices_are_wanted() { SHARE } else { SHARE_UNWANTED }
}

/// Bytes that they have.
pub(in crate::store::op) fn held(tx: &mut Tx<'_>) -> Result<i64, StoreError> {
    if let Some(bytes) = tx.memory.devices.bytes {
        return Ok(bytes);
    }
    let kept: Option<i64> = tx
        .conn
        .query_row("SELECT value FROM counter WHERE scope = ?1 AND name = ?2", [KEPT, BYTES], |r| r.get(0))
        .optional()?;
    let bytes = if let Some(bytes) = kept {
        bytes
    } else {
        // A store of an earlier version, or one that was made anew.
        let bytes = counted_anew(tx.conn)?;
        tx.count(KEPT, BYTES, bytes);
        bytes
    };
    tx.memory.devices.bytes = Some(bytes);
    Ok(bytes)
}

/// The same from the rows; the tables are read for it.
pub(in crate::store) fn counted_anew(conn: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT (SELECT coalesce(sum(length(view) * 3 / 2 + ?1), 0) FROM device)
               + (SELECT coalesce(sum(length(said) * 3 / 2 + ?2), 0) FROM device_source)";
    conn.query_row(sql, [DEVICE_ROW, WORD_ROW], |r| r.get(0))
}

/// They hold so many bytes more.
fn weigh(tx: &mut Tx<'_>, more: i64) -> Result<(), StoreError> {
    // More goes than was counted only where a bit of the counter flipped.
    let bytes = held(tx)?;
    let more = more.max(-bytes);
    tx.count(KEPT, BYTES, more);
    tx.memory.devices.bytes = Some(bytes + more);
    Ok(())
}

/// What a text takes: its row grows with it when the device is told, and pages are left half empty by that.
fn room_of(length: i64) -> i64 {
    length * 3 / 2
}

/// A device was made, or its view is of another length.
pub(super) fn view_is(tx: &mut Tx<'_>, before: Option<i64>, after: usize) -> Result<(), StoreError> {
    weigh(tx, before.map_or(DEVICE_ROW, |before| -room_of(before)) + room_of(after as i64))
}

/// The same of what a source says.
pub(super) fn word_is(tx: &mut Tx<'_>, before: Option<i64>, after: usize) -> Result<(), StoreError> {
    weigh(tx, before.map_or(WORD_ROW, |before| -room_of(before)) + room_of(after as i64))
}

/// Whether a device that is new has a place; others give way for it, and are named in `gone`.
pub(super) fn admits(
    tx: &mut Tx<'_>,
    said: usize,
    is_known_by_inventory: bool,
    now: Timestamp,
    gone: &mut Vec<i64>,
) -> Result<bool, StoreError> {
    // It stands in the view and in the word.
    let wanted = DEVICE_ROW + WORD_ROW + 2 * room_of(said as i64);
    for give in [Give::Untold, Give::Seen] {
        let short = held(tx)? + wanted - share(tx);
        if short <= 0 {
            return Ok(true);
        }
        if give == Give::Untold || is_known_by_inventory {
            gone.extend(give_way(tx, give, short, now)?);
        }
    }
    Ok(held(tx)? + wanted <= share(tx))
}

/// Forgets devices that give way, oldest first, until so many bytes are free, or a step's worth is gone. Gives which.
pub(in crate::store::op) fn give_way(
    tx: &mut Tx<'_>,
    give: Give,
    bytes: i64,
    now: Timestamp,
) -> Result<Vec<i64>, StoreError> {
    let (mut gone, until) = (Vec::new(), held(tx)? - bytes);
    let place = give as usize;
    let is_none = |since: Timestamp| since <= now && now.since(since) < AGAIN;
    if tx.memory.devices.none[place].is_some_and(is_none) {
        return Ok(gone);
    }
    let sql = give.sql();
    // Twice: what is behind the hand, and once more from the beginning.
    let mut left = 2;
    while left > 0 && gone.len() < STEP && held(tx)? > until {
        let hand = tx.memory.devices.hands[place];
        let at_once = ((held(tx)? - until) / DEVICE_ROW + 1).min((STEP - gone.len()) as i64);
        let ids: Vec<i64> = tx
            .conn
            .prepare_cached(&sql)?
            .query_map([hand, at_once], |r| r.get(0))?
            .collect::<Result<_, _>>()?;
        if ids.is_empty() {
            left -= if hand == 0 { 2 } else { 1 };
            tx.memory.devices.hands[place] = 0;
        }
        for id in ids {
            if held(tx)? <= until {
                break;
            }
            forget(tx, id)?;
            tx.memory.devices.hands[place] = id;
            gone.push(id);
        }
    }
    tx.memory.devices.none[place] = (left <= 0 && gone.is_empty()).then_some(now);
    tx.count(KEPT, "devices forgotten", gone.len() as i64);
    Ok(gone)
}

/// Deletes a device with all that hangs on it, and takes it out of the counters.
fn forget(tx: &mut Tx<'_>, id: i64) -> Result<(), StoreError> {
    let (view, is_merged): (i64, bool) = tx
        .conn
        .prepare_cached("SELECT length(view), merged_into IS NOT NULL FROM device WHERE id = ?1")?
        .query_row([id], |r| Ok((r.get(0)?, r.get(1)?)))?;
    let words: i64 = tx
        .conn
        .prepare_cached(
            "SELECT coalesce(sum(length(said) * 3 / 2 + ?2), 0) FROM device_source WHERE device_id = ?1",
        )?
        .query_row([id, WORD_ROW], |r| r.get(0))?;
    forget_deliveries(tx, id, "d.device_id = ?1")?;
    let gone = tx.conn.prepare_cached("DELETE FROM delivery WHERE device_id = ?1")?.execute([id])?;
    tx.count(KEPT, "deliveries", -(gone as i64));
    for sql in [
        "DELETE FROM device_key WHERE device_id = ?1",
        "DELETE FROM device_source WHERE device_id = ?1",
        "DELETE FROM device WHERE id = ?1",
    ] {
        tx.conn.prepare_cached(sql)?.execute([id])?;
    }
    tx.count(KEPT, "devices", -i64::from(!is_merged));
    weigh(tx, -(room_of(view) + DEVICE_ROW + words))
}

/// In a tight store, before findings go: devices come down to their share, and those that only traffic shows to less. Gives
/// how many went.
pub(in crate::store::op) fn come_down(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let over = held(tx)? - share(tx);
    for give in [Give::Untold, Give::Seen, Give::Any] {
        let more = if give == Give::Untold { held(tx)? - tx.pages * 4096 / FLOOR } else { over };
        let gone = if more > 0 { give_way(tx, give, more, now)? } else { Vec::new() };
        if !gone.is_empty() {
            say(tx, 0, now)?;
            return Ok(gone.len() as u64);
        }
    }
    Ok(0)
}

/// Before a finding is given up: what only traffic shows goes. Gives how many went.
pub(in crate::store::op) fn step_aside(tx: &mut Tx<'_>, now: Timestamp) -> Result<u64, StoreError> {
    let gone = give_way(tx, Give::Seen, i64::MAX / 2, now)?;
    if !gone.is_empty() {
        say(tx, 0, now)?;
    }
    Ok(gone.len() as u64)
}

/// After a batch: what known devices grew by is made up for. Gives which went.
pub(super) fn settle_down(tx: &mut Tx<'_>, now: Timestamp) -> Result<Vec<i64>, StoreError> {
    let over = held(tx)? - share(tx);
    if over > 0 { give_way(tx, Give::Untold, over, now) } else { Ok(Vec::new()) }
}

/// Whether nothing more has room; then known devices get no new connections.
pub(super) fn is_used_up(tx: &mut Tx<'_>) -> Result<bool, StoreError> {
    Ok(held(tx)? >= share(tx))
}

/// Says that the share is used up, with what became of devices by that.
pub(super) fn say(tx: &mut Tx<'_>, left_out: u64, now: Timestamp) -> Result<(), StoreError> {
    tx.count(KEPT, "devices left out", left_out as i64);
    let (forgotten, left_out) =
        (tx.counted(KEPT, "devices forgotten")?, tx.counted(KEPT, "devices left out")?);
    let text = format!(
        "devices have used up their share of the buffer ({} MiB of [buffer] max_size): {forgotten} were forgotten, \
         the oldest first that were only seen as addresses, and {left_out} sightings of new ones were left out, so far",
        share(tx) >> 20
    );
    let remedy = "see who is behind the addresses (otrelay devices); for a plant with more devices raise [buffer] max_size";
    let issue = HealthIssue::new(CODE, text, remedy);
    tx.memory.devices.said = Some(true);
    keep(tx.conn, &issue, now)?;
    Ok(())
}

/// Takes that back when there is room again.
pub(super) fn is_well(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if tx.memory.devices.said == Some(false) || held(tx)? >= share(tx) / 10 * 9 {
        return Ok(());
    }
    tx.memory.devices.said = Some(false);
    over(tx.conn, CODE, "")
}

/// Whether deliveries of devices may be planned: the last tenth belongs to claims and settles, without which nothing could
/// leave. Says it where they wait for that.
pub(super) fn may_plan(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    const SUBJECT: &str = "sending";
    if !room(tx)?.is_tight() {
        over(tx.conn, CODE, SUBJECT)?;
        return Ok(true);
    }
    let text = "the buffer is nine tenths full ([buffer] max_size): no more devices are planned for sending until there is \
                room; what is planned is sent";
    let remedy = "see what keeps the deliveries waiting (otrelay status), or raise [buffer] max_size";
    keep(tx.conn, &HealthIssue::new(CODE, text, remedy).about(SUBJECT), now)?;
    Ok(false)
}
