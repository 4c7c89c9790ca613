//! What is to be told of devices: deliveries of what has changed, their claim, what became of them.
//!
//! A device is known there by its key, so that it may be told as often as one likes: nothing is looked up, and what is
//! claimed when the process ends is only told once more.

use rusqlite::{OptionalExtension, params};

use super::super::attempt;
use super::super::destination_state::{Change, DestinationChange};
use super::super::health;
use super::super::identity::meta;
use super::super::prune::room;
use super::super::row::{DeliveryCrc, KEPT, NewDelivery, Subject, insert_delivery};
use super::super::settle::{self, Settled};
use super::peers::Peers;
use super::share;
use super::take::{self, SAME, device_crc, withdraw};
use crate::device::merge::View;
use crate::model::device::Peer;
use crate::model::text::clip;
use crate::model::{
    DeliveryId, DeliveryKind, DeliveryState, DestinationName, Severity, SysId, TableName, Timestamp,
};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Devices that get a delivery in one transaction.
const STEP: i64 = 500;
/// When devices were last synced, in `meta`.
const SYNCED: &str = "devices_synced_at";
/// To which destination and table devices were told, in `meta`.
const TOLD_TO: &str = "devices_told_to";

/// What to claim of devices.
#[derive(Clone, Debug)]
pub struct ClaimDevices {
    /// Of which destination.
    pub destination: DestinationName,
    /// The table that stands for all of them.
    pub table: TableName,
    /// At most so many.
    pub limit: usize,
    /// Only what was tried before.
    pub only_tried: bool,
    /// Only look: nothing is claimed.
    pub peek: bool,
    /// Now.
    pub now: Timestamp,
}

/// A claimed delivery of a device.
#[derive(Clone, Debug)]
pub struct ClaimedDevice {
    /// The delivery.
    pub id: DeliveryId,
    /// The device's row.
    pub device: i64,
    /// Its key.
    pub key: String,
    /// What is known of it; `None` when its row is damaged or gone.
    pub view: Option<View>,
    /// The digest of it.
    pub hash: Vec<u8>,
    /// Whether it was told before.
    pub is_known: bool,
    /// Known devices that it talks to.
    pub peers: Vec<Peer>,
    /// Attempts before this one.
    pub attempts: u32,
    /// Whether an earlier attempt may have been carried out.
    pub doubtful: bool,
}

/// A device as it is there now.
#[derive(Clone, Debug)]
pub struct ToldDevice {
    /// The device's row.
    pub device: i64,
    /// The digest of what was told.
    pub hash: Vec<u8>,
    /// Its CI, where it has one.
    pub sys_id: Option<SysId>,
    /// The CI's class; empty: it has none.
    pub class: String,
}

struct Enqueue {
    destination: DestinationName,
    table: TableName,
    after: i64,
    now: Timestamp,
}

struct SettleDevices {
    settled: Vec<Settled>,
    told: Vec<ToldDevice>,
    change: Change,
}

/// What a sync would tell: the first that have changed, claimed or not, and those that wait already.
struct Changed {
    destination: DestinationName,
    table: TableName,
    limit: usize,
    now: Timestamp,
}

struct Resync;

struct Synced(Option<Timestamp>);

impl Store {
    /// Makes deliveries of all devices that have changed since they were last told. Gives how many.
    ///
    /// # Errors
    /// [`StoreError`]; what was made before it stays.
    pub async fn enqueue_devices(
        &self,
        destination: &DestinationName,
        table: &TableName,
    ) -> Result<u64, StoreError> {
        let (mut made, mut after) = (0, Some(0));
        while let Some(from) = after {
            let now = self.shared.clock.now();
            let (destination, table) = (destination.clone(), table.clone());
            let step;
            (step, after) = self.call(Enqueue { destination, table, after: from, now }).await?;
            made += step;
        }
        Ok(made)
    }

    /// Claims devices that are to be told, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim_devices(&self, claim: ClaimDevices) -> Result<Vec<ClaimedDevice>, StoreError> {
        self.call(claim).await
    }

    /// The first devices that a sync would tell; nothing is changed. What has no delivery yet has the id 0.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn changed_devices(
        &self,
        destination: &DestinationName,
        table: &TableName,
        limit: usize,
    ) -> Result<Vec<ClaimedDevice>, StoreError> {
        let (destination, table, now) = (destination.clone(), table.clone(), self.shared.clock.now());
        self.call(Changed { destination, table, limit, now }).await
    }

    /// Settles claimed devices together with what changed about their destination.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of both is done then.
    pub async fn settle_devices(
        &self,
        destination: &DestinationName,
        settled: Vec<Settled>,
        told: Vec<ToldDevice>,
        changes: Vec<DestinationChange>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let change = Change { destination: destination.clone(), changes, now };
        self.call(SettleDevices { settled, told, change }).await
    }

    /// Forgets what was told of devices, so that the next sync tells all of them. Gives how many there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resync_devices(&self) -> Result<u64, StoreError> {
        self.call(Resync).await
    }

    /// When devices were last synced; `None`: never.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices_synced_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.call(Synced(None)).await
    }

    /// Remembers that devices were synced.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn devices_synced(&self) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Synced(Some(now))).await.map(|_| ())
    }
}

impl Operation for Enqueue {
    type Output = (u64, Option<i64>);

    fn run(self, tx: &mut Tx<'_>) -> Result<(u64, Option<i64>), StoreError> {
        tx.conditions.want_devices();
        if !share::may_plan(tx, self.now)? {
            return Ok((0, None));
        }
        let (destination_id, route_id) = tx.route_id(self.destination.as_str(), self.table.as_str())?;
        let place = format!("{} {}", self.destination, self.table);
        if self.after == 0 && meta(tx.conn, TOLD_TO)?.as_deref() != Some(place.as_str()) {
            // Another instance knows nothing of them, and neither does another table.
            let values = [TOLD_TO, place.as_str()];
            tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", values)?;
            forget_told(tx)?;
        }
        let changed: Vec<i64> = tx
            .conn
            .prepare_cached(
                "SELECT id FROM device INDEXED BY device_changed WHERE changed = 1 AND id > ?1 ORDER BY id LIMIT ?2",
            )?
            .query_map([self.after, STEP], |r| r.get(0))?
            .collect::<Result<_, _>>()?;
        let mut made = 0;
        for device in &changed {
            made += u64::from(enqueue(tx, *device, destination_id, route_id, &self)?);
        }
        let next = changed.last().copied().filter(|_| changed.len() as i64 == STEP);
        Ok((made, next))
    }
}

/// One delivery waits for a device at most, and it tells what is known when it is sent.
fn enqueue(
    tx: &mut Tx<'_>,
    device: i64,
    destination_id: i64,
    route_id: i64,
    ask: &Enqueue,
) -> Result<bool, StoreError> {
    let last: Option<(i64, String, i64)> = tx
        .conn
        .prepare_cached(
            "SELECT seq, state, route_id FROM delivery WHERE device_id = ?1 ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([device], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let state = last.as_ref().and_then(|(_, state, _)| DeliveryState::parse(state));
    let here = last.as_ref().is_some_and(|(_, _, route)| *route == route_id);
    match state {
        // What is on its way tells what was; the next sync sees what came of it.
        Some(DeliveryState::Claimed) => return Ok(false),
        Some(DeliveryState::Pending) if here => return waits(tx, device).map(|()| false),
        _ => {}
    }
    withdraw(tx, device, ask.now, "what is known of the device has changed since")?;
    forget_settled(tx, device)?;
    let seq = last.map_or(1, |(seq, ..)| seq + 1);
    let new = NewDelivery {
        seq,
        subject: Subject::Device(device),
        destination_id,
        route_id,
        severity: Severity::Warning as i64,
        ..NewDelivery::puts(DeliveryKind::PutDevice, device, ask.now.as_micros())
    };
    insert_delivery(tx, &new, ask.destination.as_str())?;
    waits(tx, device)?;
    Ok(true)
}

fn waits(tx: &Tx<'_>, device: i64) -> Result<(), StoreError> {
    tx.conn.prepare_cached("UPDATE device SET changed = 0 WHERE id = ?1")?.execute([device])?;
    Ok(())
}

/// The outbox keeps the last delivery of each device; what it was told before is in the counters.
fn forget_settled(tx: &mut Tx<'_>, device: i64) -> Result<(), StoreError> {
    let old: Vec<i64> = tx
        .conn
        .prepare_cached(
            "SELECT id FROM delivery WHERE device_id = ?1 AND state IN ('delivered', 'withdrawn', 'dropped')",
        )?
        .query_map([device], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    for id in &old {
        attempt::forget(tx, *id)?;
        tx.conn.prepare_cached("DELETE FROM delivery WHERE id = ?1")?.execute([id])?;
    }
    tx.count(KEPT, "deliveries", -(old.len() as i64));
    Ok(())
}

/// What is due, of the devices' route (`?1`); the statement for what was tried has the destination too.
fn select(only_tried: bool) -> String {
    let (index, due) = if only_tried {
        ("delivery_tried", "d.destination_id = ?4 AND d.route_id = ?1 AND d.attempts > 0 AND d.due_at <= ?2")
    } else {
        ("delivery_due", "d.route_id = ?1 AND (d.attempts = 0 OR d.due_at <= ?2) AND ?4 IS NOT NULL")
    };
    format!(
        "SELECT d.id, d.device_id, d.seq, d.severity, d.attempts, d.doubtful, v.key, v.view, v.hash, v.crc, v.told IS NOT NULL
         FROM delivery d INDEXED BY {index} LEFT JOIN device v ON v.id = d.device_id AND v.merged_into IS NULL
         WHERE d.state = 'pending' AND {due} ORDER BY d.severity DESC, d.turn, d.id LIMIT ?3"
    )
}

impl Operation for ClaimDevices {
    type Output = Vec<ClaimedDevice>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<ClaimedDevice>, StoreError> {
        let (destination_id, route_id) = tx.route_id(self.destination.as_str(), self.table.as_str())?;
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let mut found: Vec<(ClaimedDevice, i64, i64)>;
        loop {
            found = tx
                .conn
                .prepare_cached(&select(self.only_tried))?
                .query_map(params![route_id, self.now.as_micros(), limit, destination_id], claimed)?
                .collect::<Result<_, _>>()?;
            // What was withdrawn is not found again.
            if self.peek || !withdraw_merged(tx, &found, self.now)? {
                break;
            }
        }
        find_peers(tx, destination_id, &mut found)?;
        if self.peek {
            return Ok(found.into_iter().map(|(claimed, ..)| claimed).collect());
        }
        let mut update =
            tx.conn.prepare_cached("UPDATE delivery SET state = 'claimed', crc = ?2 WHERE id = ?1")?;
        for (one, seq, severity) in &found {
            let crc = DeliveryCrc {
                kind: DeliveryKind::PutDevice.as_str(),
                subject: Subject::Device(one.device),
                seq: *seq,
                destination: destination_id,
                state: DeliveryState::Claimed,
                severity: *severity,
                attempts: i64::from(one.attempts),
            };
            update.execute(params![one.id.0, crc.value()])?;
        }
        // What is told is what is known now: what comes from here on is a change, whatever becomes of this.
        let mut is_told =
            tx.conn.prepare_cached("UPDATE device SET changed = 0 WHERE id = ?1 AND changed = 1")?;
        for (one, ..) in &found {
            is_told.execute([one.device])?;
        }
        Ok(found.into_iter().map(|(claimed, ..)| claimed).collect())
    }
}

/// Withdraws those that turned out to be another device: the process may have ended while they were in flight. Says whether
/// there were any.
fn withdraw_merged(
    tx: &mut Tx<'_>,
    found: &[(ClaimedDevice, i64, i64)],
    now: Timestamp,
) -> Result<bool, StoreError> {
    let mut any = false;
    for (one, ..) in found.iter().filter(|(one, ..)| one.view.is_none()) {
        if merged(tx, "?1", one.device)?.is_some() {
            withdraw(tx, one.device, now, SAME)?;
            any = true;
        }
    }
    Ok(any)
}

fn find_peers(
    tx: &Tx<'_>,
    destination_id: i64,
    found: &mut [(ClaimedDevice, i64, i64)],
) -> Result<(), StoreError> {
    let mut peers = Peers::new(tx.conn, Some(destination_id));
    for (one, ..) in found {
        if let Some(view) = &one.view {
            one.peers = peers.of(one.device, &view.device)?;
        }
    }
    Ok(())
}

fn claimed(row: &rusqlite::Row<'_>) -> rusqlite::Result<(ClaimedDevice, i64, i64)> {
    let key: String = row.get::<_, Option<String>>(6)?.unwrap_or_default();
    let view: Vec<u8> = row.get::<_, Option<_>>(7)?.unwrap_or_default();
    let hash: Vec<u8> = row.get::<_, Option<_>>(8)?.unwrap_or_default();
    let sound = row.get::<_, Option<i64>>(9)? == Some(device_crc(&key, &view, &hash));
    let one = ClaimedDevice {
        id: DeliveryId(row.get(0)?),
        device: row.get(1)?,
        view: if sound { serde_json::from_slice(&view).ok() } else { None },
        key,
        hash,
        attempts: row.get(4)?,
        doubtful: row.get(5)?,
        is_known: row.get(10)?,
        peers: Vec::new(),
    };
    Ok((one, row.get(2)?, row.get(3)?))
}

impl Operation for SettleDevices {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let destination_id = tx.destination_id(self.change.destination.as_str())?;
        for one in &self.settled {
            // One that is refused is told again when something else is known of it, which may have come meanwhile, or when a
            // person says so.
            settle::settle(tx, one, &crate::model::life::Lives::default(), self.change.now)?;
            if let Some((device, _)) = merged(tx, "SELECT device_id FROM delivery WHERE id = ?1", one.id.0)? {
                withdraw(tx, device, self.change.now, SAME)?;
            }
        }
        for told in &self.told {
            tx.conn
                .prepare_cached(
                    "UPDATE device SET told = ?2, told_at = ?3, told_to = ?4, sys_id = ?5, class = ?6,
                     changed = (hash <> ?2 AND merged_into IS NULL) WHERE id = ?1",
                )?
                .execute(params![
                    told.device,
                    told.hash,
                    self.change.now.as_micros(),
                    destination_id,
                    told.sys_id.as_ref().map(SysId::as_str),
                    clip(&told.class, 80)
                ])?;
            if let (Some(sys_id), Some((_, into))) = (&told.sys_id, merged(tx, "?1", told.device)?) {
                twins(tx, told.device, into, sys_id, self.change.now)?;
            }
        }
        self.change.run(tx)
    }
}

/// The device that this expression gives for `?1`, and the one that it turned out to be; `None`: it is one by itself.
fn merged(tx: &Tx<'_>, which: &str, id: i64) -> Result<Option<(i64, i64)>, StoreError> {
    let sql = format!("SELECT id, merged_into FROM device WHERE id = ({which}) AND merged_into IS NOT NULL");
    let mut select = tx.conn.prepare_cached(&sql)?;
    Ok(select.query_row([id], |r| Ok((r.get(0)?, r.get(1)?))).optional()?)
}

/// While a device was told it turned out to be another one, and now it has a CI: what was there before is said when the two
/// are put together, this could not be known then.
fn twins(tx: &Tx<'_>, from: i64, into: i64, sys_id: &SysId, now: Timestamp) -> Result<(), StoreError> {
    let (keys, other): (String, Option<String>) = tx
        .conn
        .prepare_cached(
            "SELECT b.key || ' and ' || a.key, b.sys_id FROM device a, device b WHERE a.id = ?1 AND b.id = ?2",
        )?
        .query_row([from, into], |r| Ok((r.get(0)?, r.get(1)?)))?;
    if other.as_deref() == Some(sys_id.as_str()) {
        return Ok(());
    }
    let issue = take::twins(&keys, " while it was told, and a CI was made of each", sys_id.as_str());
    health::keep(tx.conn, &issue, now)?;
    Ok(())
}

fn forget_told(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "UPDATE device SET told = NULL, told_at = NULL, told_to = NULL, sys_id = NULL, class = NULL, changed = 1
               WHERE merged_into IS NULL";
    Ok(tx.conn.execute(sql, [])? as u64)
}

impl Operation for Changed {
    type Output = Vec<ClaimedDevice>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<ClaimedDevice>, StoreError> {
        let Self { destination, table, limit, now } = self;
        let destination_id = tx.destination_id(destination.as_str())?;
        let claim = ClaimDevices { destination, table, limit, only_tried: false, peek: true, now };
        let mut all = claim.run(tx)?;
        let rest = i64::try_from(limit.saturating_sub(all.len())).unwrap_or(i64::MAX);
        let mut changed: Vec<(ClaimedDevice, i64, i64)> = tx
            .conn
            .prepare_cached(
                "SELECT 0, v.id, 0, 0, 0, 0, v.key, v.view, v.hash, v.crc, v.told IS NOT NULL
                 FROM device v INDEXED BY device_changed WHERE v.changed = 1 AND NOT EXISTS (
                   SELECT 1 FROM delivery d WHERE d.device_id = v.id AND d.state = 'pending')
                 ORDER BY v.id LIMIT ?1",
            )?
            .query_map([rest], claimed)?
            .collect::<Result<_, _>>()?;
        find_peers(tx, destination_id, &mut changed)?;
        all.extend(changed.into_iter().map(|(one, ..)| one));
        Ok(all)
    }
}

impl Operation for Resync {
    type Output = u64;

    fn run(self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        forget_told(tx)
    }
}

impl Operation for Synced {
    type Output = Option<Timestamp>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Option<Timestamp>, StoreError> {
        let is_tight = self.0.is_some() && room(tx)?.is_tight();
        // Not all could be planned: the next sync goes on.
        if let Some(at) = self.0.filter(|_| !is_tight) {
            let values = [SYNCED, &at.as_micros().to_string()];
            tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", values)?;
            return Ok(Some(at));
        }
        synced_at(tx.conn)
    }
}

/// When devices were last synced.
pub(in crate::store) fn synced_at(conn: &rusqlite::Connection) -> Result<Option<Timestamp>, StoreError> {
    let text = meta(conn, SYNCED)?;
    Ok(text.and_then(|text| text.parse().ok()).map(Timestamp::from_micros))
}
