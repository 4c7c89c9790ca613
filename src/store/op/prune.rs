//! Making room: what was delivered long ago is forgotten; when the buffer is full, what `when_full` says.
//!
//! A finding whose ticket is still open may be forgotten too: its keys are derived, so its next sighting finds the
//! ticket again.

use rusqlite::{OptionalExtension, Params, params};

use super::attempt;
use super::device::share;
use super::plan;
use super::row::{KEPT, destination_scope};
use crate::model::HealthIssue;
use crate::model::{DeliveryState, Fingerprint, Severity, Timestamp};
use crate::store::catalog::{self, TABLES};
use crate::store::handle::Operation;
use crate::store::health::Kind;
use crate::store::pack::body;
use crate::store::session::Tx;
use crate::store::{Store, StoreError, WhenFull};

/// Alerts in one step: bounds the transaction.
const STEP: i64 = 500;

/// Undelivered alerts that one step gives up. Few, as each is a loss; about what a pack holds, whose room comes back whole.
const GIVE_UP: i64 = 100;

/// Rows that one step looks at.
const WINDOW: i64 = if cfg!(test) { 200 } else { 20_000 };

struct Prune {
    after: i64,
    before: Timestamp,
    now: Timestamp,
}

struct RoomNow;

struct Shed {
    now: Timestamp,
    /// Whether undelivered findings may go.
    give_up: bool,
}

/// What making room came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Findings forgotten whose deliveries were settled.
    pub forgotten: u64,
    /// Undelivered findings given up.
    pub given_up: u64,
    /// Devices forgotten.
    pub devices: u64,
}

/// How full the buffer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that the database may have.
    pub limit: u64,
}

impl Room {
    /// Whether so little is left that the policy has to act: more than nine tenths are in use.
    pub fn is_tight(&self) -> bool {
        self.used > self.limit / 10 * 9
    }

    /// Whether nothing may take more but the relay, which needs a little to deliver what is there: more than nineteen
    /// twentieths are in use.
    pub fn is_short(&self) -> bool {
        self.used > self.limit / 20 * 19
    }
}

impl Store {
    /// Forgets findings whose deliveries were all settled, and that were not seen, since `keep_delivered` ago. Gives how
    /// many were forgotten.
    ///
    /// # Errors
    /// [`StoreError`]; what was forgotten before it stays forgotten.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let now = self.shared.clock.now();
        crate::store::disk::files::bound_kept(&self.shared.settings, now);
        let before = now.before(self.shared.settings.keep_delivered);
        let (mut forgotten, mut after) = (0, Some(0));
        while let Some(from) = after {
            let step;
            (step, after) = self.call(Prune { after: from, before, now }).await?;
            forgotten += step;
        }
        Ok(forgotten)
    }

    /// When room is tight, makes some by the policy, as far as it goes; on a full disk, only by what is settled. First devices go
    /// that have more than their share, and those that only traffic shows; then settled findings, oldest first; where there
    /// are none, `when_full = "shed-lowest"` gives up the oldest of the lowest severity, counted as `shed`.
    ///
    /// # Errors
    /// [`StoreError`] that is not passing.
    pub async fn make_room(&self) -> Result<Made, StoreError> {
        let give_up = self.shared.settings.when_full == WhenFull::ShedLowest;
        let mut made = Made::default();
        loop {
            let now = self.shared.clock.now();
            match self.call(Shed { now, give_up }).await {
                Ok((room, step)) => {
                    made.forgotten += step.forgotten;
                    made.given_up += step.given_up;
                    made.devices += step.devices;
                    if !room.is_tight() || step == Made::default() {
                        return Ok(made);
                    }
                }
                Err(e) if e.is_passing() => return Ok(made),
                Err(e) => return Err(e),
            }
        }
    }

    /// How full the buffer is.
    ///
    /// # Errors
    /// [`StoreError`] that is not passing.
    pub async fn room(&self) -> Result<Room, StoreError> {
        loop {
            match self.call(RoomNow).await {
                // It shared a transaction with something that had no room.
                Err(e) if e.is_passing() => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                room => return room,
            }
        }
    }
}

pub(super) fn room(tx: &Tx<'_>) -> Result<Room, StoreError> {
    let get = |name: &str| tx.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (pages, free) = (get("page_count")?, get("freelist_count")?);
    let planned = plan::room(tx)?;
    let room = Room { used: (pages - free) as u64 * 4096 + planned, limit: tx.pages as u64 * 4096 };
    if !room.is_tight() {
        tx.conditions.end(Kind::Buffer);
    }
    Ok(room)
}

impl Operation for RoomNow {
    type Output = Room;

    fn run(self, tx: &mut Tx<'_>) -> Result<Room, StoreError> {
        room(tx)
    }
}

/// Nothing of it is waiting.
const SETTLED: &str =
    "a.route_id IS NULL AND NOT EXISTS (SELECT 1 FROM ticket t JOIN delivery d ON d.ticket_id = t.id
                       WHERE t.alert_id = a.id AND d.state IN ('pending', 'claimed', 'dead'))
                   AND NOT EXISTS (SELECT 1 FROM record c JOIN delivery d ON d.record_id = c.id
                       WHERE c.alert_id = a.id AND d.state IN ('pending', 'claimed', 'dead'))";

impl Operation for Prune {
    type Output = (u64, Option<i64>);

    fn run(self, tx: &mut Tx<'_>) -> Result<(u64, Option<i64>), StoreError> {
        let window: Option<(i64, i64)> = tx
            .conn
            .prepare_cached(
                "SELECT id, recorded_at FROM (SELECT id, recorded_at FROM alert WHERE id > ?1 ORDER BY id LIMIT ?2)
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row([self.after, WINDOW], |r| Ok((r.get(0)?, r.get(1)?)))
            .optional()?;
        let Some((end, recorded_at)) = window else { return Ok((0, None)) };
        let ids = pick(
            tx,
            &format!(
                "SELECT a.id, a.fingerprint FROM alert a WHERE a.id > ?2 AND a.id <= ?3 AND a.recorded_at < ?4
                   AND a.last_seen_at < ?4 AND {SETTLED} ORDER BY a.id LIMIT ?1"
            ),
            params![STEP, self.after, end, self.before.as_micros()],
        )?;
        forget(tx, &ids)?;
        if ids.is_empty() {
            shrink(tx)?;
        } else {
            give_back(tx)?;
        }
        // Ids grow with time, so behind a young one all are young; one from the future says only that the clock was ahead.
        let young = (self.before.as_micros()..=self.now.as_micros()).contains(&recorded_at);
        let next = match ids.last() {
            Some((last, _)) if ids.len() as i64 == STEP => Some(*last),
            _ if young => None,
            _ => Some(end),
        };
        Ok((ids.len() as u64, next))
    }
}

/// Gives pages back to the file system. Each row of this pragma is one page, so all of them have to be asked for.
fn give_back(tx: &Tx<'_>) -> Result<(), StoreError> {
    let mut vacuum = tx.conn.prepare_cached("PRAGMA incremental_vacuum(256)")?;
    let mut rows = vacuum.query([])?;
    while rows.next()?.is_some() {}
    // A database that was larger than a lowered max_size comes down to it step by step.
    tx.conn.pragma_update_and_check(None, "max_page_count", tx.pages, |_| Ok(()))?;
    Ok(())
}

/// Gives pages back only while the file is larger than it may be: otherwise the next alerts use them again.
fn shrink(tx: &Tx<'_>) -> Result<(), StoreError> {
    let pages: i64 = tx.conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages > tx.pages { give_back(tx) } else { Ok(()) }
}

impl Operation for Shed {
    type Output = (Room, Made);

    fn run(self, tx: &mut Tx<'_>) -> Result<(Room, Made), StoreError> {
        let now = room(tx)?;
        let short = tx.conditions.is(Kind::Disk);
        if !now.is_tight() && !short {
            return Ok((now, Made::default()));
        }
        if now.is_tight() {
            let devices = share::come_down(tx, self.now)?;
            if devices > 0 {
                shrink(tx)?;
                return Ok((room(tx)?, Made { devices, ..Made::default() }));
            }
        }
        let settled = pick(
            tx,
            &format!("SELECT a.id, a.fingerprint FROM alert a WHERE {SETTLED} ORDER BY a.id LIMIT ?1"),
            params![STEP],
        )?;
        if !settled.is_empty() {
            forget(tx, &settled)?;
            // On a full disk the file system needs the blocks, else the next alerts use them again.
            if short {
                give_back(tx)?;
            } else {
                shrink(tx)?;
            }
            return Ok((room(tx)?, Made { forgotten: settled.len() as u64, ..Made::default() }));
        }
        if !now.is_tight() {
            give_back(tx)?;
            return Ok((now, Made::default()));
        }
        let devices = share::step_aside(tx, self.now)?;
        if devices > 0 {
            shrink(tx)?;
            return Ok((room(tx)?, Made { devices, ..Made::default() }));
        }
        // What is in memory for a while is no reason to give anything up: the sensor's files are the buffer then.
        let lowest: Option<u8> = if self.give_up && !tx.conditions.is(Kind::Memory) {
            tx.conn.query_row("SELECT min(severity) FROM alert", [], |r| r.get(0))?
        } else {
            None
        };
        let Some(severity) = lowest else {
            tx.conditions.begin(Kind::Buffer, full());
            return Ok((now, Made::default()));
        };
        let lowest = pick(
            tx,
            "SELECT a.id, a.fingerprint FROM alert a
             WHERE a.severity = ?2
               AND NOT EXISTS (SELECT 1 FROM ticket t JOIN delivery d ON d.ticket_id = t.id
                               WHERE t.alert_id = a.id AND d.state = 'claimed')
               AND NOT EXISTS (SELECT 1 FROM record c JOIN delivery d ON d.record_id = c.id
                               WHERE c.alert_id = a.id AND d.state = 'claimed')
             ORDER BY a.id LIMIT ?1",
            params![GIVE_UP, severity],
        )?;
        if lowest.is_empty() {
            tx.conditions.begin(Kind::Buffer, full());
        }
        forget(tx, &lowest)?;
        shrink(tx)?;
        tx.count("store", "shed", lowest.len() as i64);
        if let Some(severity) = Severity::ALL.into_iter().find(|s| *s as u8 == severity) {
            tx.count("shed", severity.as_str(), lowest.len() as i64);
        }
        Ok((room(tx)?, Made { given_up: lowest.len() as u64, ..Made::default() }))
    }
}

/// The policy makes no room.
fn full() -> HealthIssue {
    HealthIssue {
        code: Kind::Buffer.code(),
        subject: String::new(),
        text:
            "the buffer is nine tenths full ([buffer] max_size): no alerts are taken in until something is \
               delivered, they wait in the sensor's files"
                .to_owned(),
        remedy: "see what keeps the deliveries waiting, raise [buffer] max_size, or narrow the rules"
            .to_owned(),
    }
}

fn pick(tx: &Tx<'_>, sql: &str, with: impl Params) -> Result<Vec<(i64, Fingerprint)>, StoreError> {
    let mut select = tx.conn.prepare_cached(sql)?;
    let rows = select.query_map(with, |r| Ok((r.get(0)?, Fingerprint::from_bytes(r.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Deletes findings with all that hangs on them, and takes their deliveries out of the counters.
fn forget(tx: &mut Tx<'_>, ids: &[(i64, Fingerprint)]) -> Result<(), StoreError> {
    for (id, _) in ids {
        plan::forget(tx, *id)?;
        let of_delivery = catalog::of("delivery").map_or(&[][..], |table| table.of_alert);
        for condition in of_delivery {
            forget_deliveries(tx, *id, condition)?;
        }
        // What refers to others goes before them.
        for table in TABLES.iter().rev() {
            for condition in table.of_alert {
                let sql = format!("DELETE FROM {} WHERE {condition}", table.name);
                let gone = tx.conn.prepare_cached(&sql)?.execute([id])?;
                if let Some(counter) = table.counter {
                    tx.count(KEPT, counter, -(gone as i64));
                }
            }
        }
    }
    tx.memory.index.forget(tx.conn, ids)?;
    body::forget(tx.conn, ids.iter().map(|(id, _)| *id))?;
    Ok(())
}

/// Outcomes of deliveries that go, and what they are counted as.
pub(super) fn forget_deliveries(tx: &mut Tx<'_>, subject: i64, condition: &str) -> Result<(), StoreError> {
    let gone: Vec<(String, String, i64)> = tx
        .conn
        .prepare_cached(&format!(
            "SELECT k.name, d.state, d.id FROM delivery d JOIN destination k ON k.id = d.destination_id WHERE {condition}"
        ))?
        .query_map([subject], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (destination, state, delivery) in gone {
        attempt::forget(tx, delivery)?;
        // Delivered stays counted: it says what was done, not what is kept.
        if let Some(state @ (DeliveryState::Pending | DeliveryState::Dead)) = DeliveryState::parse(&state) {
            tx.count(&destination_scope(&destination), state.as_str(), -1);
        }
    }
    Ok(())
}
