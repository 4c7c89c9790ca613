//! Bodies of alerts, packed: what never changes of an alert, compressed together with its neighbours.
//!
//! `op/record.rs` puts the bodies of one transaction in, `op/claim.rs`, `op/reroute.rs` and `read.rs` take single ones
//! out. A row for each body cost a page for each, written twice (docs/figures.md). A pack holds alerts with consecutive
//! ids and of one severity, so that giving up the lowest severity frees whole packs. It is at most [`PACK_MAX`] bytes
//! unpacked, on disk some 40 KiB: more would save little, one damaged pack costs few bodies, and taking one out is cheap.
//! `coding.rs` makes it small.
//!
//! Unpacked, a pack is for each of its alerts in turn: length of the facts and of the original (four bytes each,
//! little-endian), the facts as JSON, the original as it came. The checksum is over the packed bytes and is looked at
//! before anything is unpacked; what does not add up is a damaged body, never an error.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use crate::model::alert::{AlertKind, AlertState, MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use crate::model::text::clip;
use crate::model::{Alert, Endpoint, Engine, Protocol, Severity, Timestamp};
use crate::store::StoreError;
use crate::store::catalog::crc;
use crate::store::pack::coding::{self, Pace};

/// Bytes of a pack before compression, unless a single body is more.
const PACK_MAX: usize = 128 << 10;
/// Bytes of a body before compression. What a source lets through is far below.
const BODY_MAX: usize = 256 << 10;
/// Most that is unpacked, whatever a row says; the schema has the same bound.
const UNPACKED_MAX: usize = 1 << 20;

/// More alerts in one operation than this are a burst: a second of a sensor that sends five hundred.
const CALM: usize = 500;

/// Bodies that wait for their pack. It belongs to one operation: dropped with it, or written by [`Packer::flush`].
#[derive(Default)]
pub(in crate::store) struct Packer {
    bodies: Vec<u8>,
    /// Ids of the first and the last of them.
    ids: Option<(i64, i64)>,
    severity: Option<Severity>,
    pace: Pace,
}

impl Packer {
    /// For so many alerts.
    pub(in crate::store) fn of(alerts: usize) -> Self {
        Self { pace: if alerts > CALM { Pace::Burst } else { Pace::Calm }, ..Self::default() }
    }

    /// Puts the body of an alert in that was just inserted.
    pub(in crate::store) fn add(
        &mut self,
        conn: &Connection,
        id: i64,
        alert: &Alert,
    ) -> Result<(), StoreError> {
        let follows = self.ids.is_none_or(|(_, last)| id == last + 1);
        if !follows || self.severity != Some(alert.severity) {
            self.flush(conn)?;
        }
        let start = self.bodies.len();
        frame(&mut self.bodies, alert)?;
        if self.bodies.len() - start > BODY_MAX {
            self.bodies.truncate(start);
            frame(&mut self.bodies, &cut(alert))?;
        }
        if self.bodies.len() > PACK_MAX && start > 0 {
            let newest = self.bodies.split_off(start);
            self.flush(conn)?;
            self.bodies.extend_from_slice(&newest);
        }
        self.ids = Some((self.ids.map_or(id, |(first, _)| first), id));
        self.severity = Some(alert.severity);
        Ok(())
    }

    /// Writes what is left.
    pub(in crate::store) fn flush(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let Some((first, last)) = self.ids.take() else { return Ok(()) };
        let unpacked = self.bodies.len() as i64;
        let packed = coding::pack(&self.bodies, self.pace);
        self.bodies.clear();
        conn.prepare_cached(
            "INSERT INTO body_pack (first_id, last_id, unpacked, crc, bodies) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            first,
            last,
            unpacked,
            crc(&[first, last, unpacked], &[&packed]),
            packed
        ])?;
        Ok(())
    }
}

/// Appends one body. `raw` is bounded again here: whatever a source does, a body stays small.
fn frame(bodies: &mut Vec<u8>, alert: &Alert) -> Result<(), StoreError> {
    let start = bodies.len();
    bodies.extend_from_slice(&[0; 8]);
    serde_json::to_writer(&mut *bodies, &Facts::of(alert))
        .map_err(|e| StoreError::Refused(format!("the alert cannot be written as JSON: {e}")))?;
    let facts = (bodies.len() - start - 8) as u32;
    let raw = clip(&alert.raw, RAW_MAX);
    bodies.extend_from_slice(raw.as_bytes());
    bodies[start..start + 4].copy_from_slice(&facts.to_le_bytes());
    bodies[start + 4..start + 8].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    Ok(())
}

/// An alert without what a source that forgets its bounds may have let grow.
fn cut(alert: &Alert) -> Alert {
    let few = |text: &Option<String>| text.as_ref().map(|text| clip(text, TITLE_MAX).into_owned());
    let end = |end: &Endpoint| Endpoint {
        mac: few(&end.mac),
        name: few(&end.name),
        device_id: few(&end.device_id),
        ..end.clone()
    };
    Alert {
        id: few(&alert.id),
        title: clip(&alert.title, TITLE_MAX).into_owned(),
        message: clip(&alert.message, MESSAGE_MAX).into_owned(),
        protocols: alert.protocols.iter().take(1).cloned().collect(),
        category: few(&alert.category),
        source: end(&alert.source),
        destination: end(&alert.destination),
        sensor: clip(&alert.sensor, TITLE_MAX).into_owned(),
        site: few(&alert.site),
        zone: few(&alert.zone),
        references: Vec::new(),
        raw: clip(&alert.raw, RAW_MAX).into_owned(),
        ..*alert
    }
}

/// An alert as JSON without its original, which is kept as it came. [`Alert`] reads it back.
#[derive(Serialize)]
struct Facts<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: &'a Option<String>,
    time: Timestamp,
    received_at: Timestamp,
    title: &'a str,
    message: &'a str,
    severity: Severity,
    engine: Engine,
    protocols: &'a [Protocol],
    #[serde(skip_serializing_if = "Option::is_none")]
    category: &'a Option<String>,
    source: &'a Endpoint,
    destination: &'a Endpoint,
    sensor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    site: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: &'a Option<String>,
    state: AlertState,
    kind: AlertKind,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    references: &'a [String],
}

impl<'a> Facts<'a> {
    /// Names every field, so that a new one cannot be forgotten.
    fn of(alert: &'a Alert) -> Self {
        let Alert {
            id,
            time,
            received_at,
            title,
            message,
            severity,
            engine,
            protocols,
            category,
            source,
            destination,
            sensor,
            site,
            zone,
            state,
            kind,
            references,
            raw: _,
        } = alert;
        Self {
            id,
            time: *time,
            received_at: *received_at,
            title,
            message,
            severity: *severity,
            engine: *engine,
            protocols,
            category,
            source,
            destination,
            sensor,
            site,
            zone,
            state: *state,
            kind: *kind,
            references,
        }
    }
}

/// Takes bodies out. Holds the last pack, because neighbours are mostly asked for one after the other.
pub(in crate::store) struct Bodies<'c> {
    conn: &'c Connection,
    held: Option<Pack>,
}

impl<'c> Bodies<'c> {
    /// Of this database.
    pub(in crate::store) fn of(conn: &'c Connection) -> Self {
        Self { conn, held: None }
    }

    /// The body of an alert; `None` when it is damaged or gone.
    pub(in crate::store) fn get(&mut self, id: i64) -> rusqlite::Result<Option<Alert>> {
        if !self.held.as_ref().is_some_and(|pack| pack.ids.contains(&id)) {
            self.held = Pack::of(self.conn, id)?;
        }
        Ok(self.held.as_ref().and_then(|pack| pack.body(id)))
    }
}

/// An opened pack.
struct Pack {
    /// Of its alerts.
    ids: Range<i64>,
    /// Facts and original of each; fewer when it is damaged.
    places: Vec<(Range<usize>, Range<usize>)>,
    bodies: Vec<u8>,
}

impl Pack {
    /// The pack that an alert is in; `None`: it is in none.
    fn of(conn: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        let mut select = conn.prepare_cached(
            "SELECT first_id, last_id, unpacked, crc, bodies FROM body_pack WHERE first_id <= ?1
             ORDER BY first_id DESC LIMIT 1",
        )?;
        let mut rows = select.query([id])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
        if last < id {
            return Ok(None);
        }
        let mut pack = Self { ids: first..last + 1, places: Vec::new(), bodies: Vec::new() };
        let (unpacked, sum): (i64, i64) = (row.get(2)?, row.get(3)?);
        let packed = row.get_ref(4)?.as_bytes().unwrap_or_default();
        let size = usize::try_from(unpacked).unwrap_or(usize::MAX);
        if sum == crc(&[first, last, unpacked], &[packed]) && size <= UNPACKED_MAX {
            pack.bodies = coding::unpack(packed, size).unwrap_or_default();
            pack.places = places(&pack.bodies);
        }
        Ok(Some(pack))
    }

    fn body(&self, id: i64) -> Option<Alert> {
        let at = usize::try_from(id - self.ids.start).ok()?;
        let (facts, raw) = self.places.get(at)?;
        let alert: Alert = serde_json::from_slice(&self.bodies[facts.clone()]).ok()?;
        let raw = std::str::from_utf8(&self.bodies[raw.clone()]).ok()?;
        Some(Alert { raw: raw.to_owned(), ..alert })
    }
}

/// Where the bodies of an unpacked pack are, as far as their lengths add up.
fn places(bodies: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let length = |at: usize| {
        let bytes = bodies.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let mut places = Vec::new();
    let mut at = 0;
    while let (Some(facts), Some(raw)) = (length(at), length(at + 4)) {
        let (begin, end) = (at + 8, (at + 8).saturating_add(facts));
        at = end.saturating_add(raw);
        if at > bodies.len() {
            break;
        }
        places.push((begin..end, end..at));
    }
    places
}

/// Deletes packs whose alerts are gone: of these alerts, in the order of their ids.
pub(in crate::store) fn forget(conn: &Connection, gone: impl Iterator<Item = i64>) -> rusqlite::Result<()> {
    let mut range = conn.prepare_cached(
        "SELECT first_id, last_id FROM body_pack WHERE first_id <= ?1 ORDER BY first_id DESC LIMIT 1",
    )?;
    let mut delete = conn.prepare_cached(
        "DELETE FROM body_pack WHERE first_id = ?1
           AND NOT EXISTS (SELECT 1 FROM alert WHERE id BETWEEN first_id AND last_id)",
    )?;
    let mut last_seen = i64::MIN;
    for id in gone {
        if id <= last_seen {
            continue;
        }
        let found: Option<(i64, i64)> =
            range.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if let Some((first, last)) = found.filter(|(_, last)| *last >= id) {
            delete.execute([first])?;
            last_seen = last;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(include_str!("../migrations/0001_init.sql")).unwrap();
        conn
    }

    fn alert(n: i64) -> Alert {
        let raw = format!(r#"{{"a":"\n","n":{n}}} ü"#);
        Alert { raw, ..Alert::sample(&format!("alert {n}"), Severity::Major, NOW) }
    }

    fn packed(conn: &Connection, ids: Range<i64>) {
        let mut packer = Packer::default();
        ids.for_each(|id| packer.add(conn, id, &alert(id)).unwrap());
        packer.flush(conn).unwrap();
    }

    fn count(conn: &Connection) -> i64 {
        conn.query_row("SELECT count(*) FROM body_pack", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn every_fact_comes_back() {
        let conn = database();
        let end = Endpoint {
            ip: "10.0.0.1".parse().ok(),
            mac: Some("00:1b:1b:aa:bb:cc".to_owned()),
            name: Some("plc".to_owned()),
            port: Some(502),
            device_id: Some("7".to_owned()),
        };
        let full = Alert {
            id: Some("i".to_owned()),
            message: "two\nlines \"quoted\"".to_owned(),
            category: Some("c".to_owned()),
            source: end.clone(),
            destination: end,
            site: Some("s".to_owned()),
            zone: Some("z".to_owned()),
            state: AlertState::Cleared,
            kind: AlertKind::SystemNotification,
            references: vec!["CVE-2021-44228".to_owned()],
            ..alert(1)
        };
        let mut packer = Packer::default();
        packer.add(&conn, 1, &full).unwrap();
        packer.add(&conn, 2, &alert(2)).unwrap();
        packer.flush(&conn).unwrap();
        let mut bodies = Bodies::of(&conn);
        assert_eq!(bodies.get(1).unwrap(), Some(full.clone()));
        assert_eq!(bodies.get(2).unwrap(), Some(alert(2)));
        // What an alert says of itself as JSON, and nothing else.
        let whole = serde_json::to_value(Alert { raw: String::new(), ..full.clone() }).unwrap();
        assert_eq!(serde_json::to_value(Facts::of(&full)).unwrap(), whole);
    }

    #[test]
    fn packs_are_bounded_and_hold_one_severity() {
        let conn = database();
        let mut packer = Packer::default();
        for id in 1..=100 {
            let raw: String = std::iter::repeat_with(fastrand::alphanumeric).take(4_000).collect();
            let severity = Severity::ALL[usize::from(id > 50)];
            packer.add(&conn, id, &Alert { severity, raw, ..alert(id) }).unwrap();
        }
        // Another operation's.
        packer.add(&conn, 200, &alert(200)).unwrap();
        packer.flush(&conn).unwrap();
        packer.flush(&conn).unwrap();
        let sizes: Vec<i64> = conn
            .prepare("SELECT unpacked FROM body_pack")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(sizes.iter().all(|size| *size <= PACK_MAX as i64), "{sizes:?}");
        let across: i64 = conn
            .query_row("SELECT count(*) FROM body_pack WHERE first_id <= 50 AND last_id > 50", [], |r| {
                r.get(0)
            })
            .unwrap();
        assert_eq!(across, 0);
        let mut bodies = Bodies::of(&conn);
        for id in (1..=100).chain([200]) {
            assert_eq!(bodies.get(id).unwrap().unwrap().title, format!("alert {id}"));
        }
        assert_eq!(bodies.get(101).unwrap(), None);
    }

    #[test]
    fn a_burst_is_packed_more_quickly_and_read_as_well() {
        for (alerts, deflated) in [(CALM, 1), (CALM + 1, 0)] {
            let conn = database();
            let mut packer = Packer::of(alerts);
            let ids = 1..=alerts as i64;
            ids.clone().for_each(|id| packer.add(&conn, id, &alert(id)).unwrap());
            packer.flush(&conn).unwrap();
            let first = "hex(substr(bodies, 1, 1)) = '01'";
            let found: (i64, i64) = conn
                .query_row(&format!("SELECT min({first}), max({first}) FROM body_pack"), [], |r| {
                    Ok((r.get(0)?, r.get(1)?))
                })
                .unwrap();
            assert_eq!(found, (deflated, deflated), "{alerts}");
            let mut bodies = Bodies::of(&conn);
            for id in ids {
                assert_eq!(bodies.get(id).unwrap().unwrap().title, format!("alert {id}"));
            }
        }
    }

    #[test]
    fn a_body_without_bounds_is_cut_and_kept() {
        let conn = database();
        let long = "\u{1}".repeat(BODY_MAX);
        let wild = Alert {
            id: Some(long.clone()),
            title: long.clone(),
            message: long.clone(),
            category: Some(long.clone()),
            sensor: long.clone(),
            references: vec![long.clone(); 9],
            raw: long,
            ..alert(1)
        };
        let mut packer = Packer::default();
        packer.add(&conn, 1, &wild).unwrap();
        packer.add(&conn, 2, &alert(2)).unwrap();
        packer.flush(&conn).unwrap();
        let mut bodies = Bodies::of(&conn);
        let kept = bodies.get(1).unwrap().unwrap();
        assert_eq!((kept.title.len(), kept.message.len(), kept.raw.len()), (TITLE_MAX, MESSAGE_MAX, RAW_MAX));
        assert_eq!(bodies.get(2).unwrap(), Some(alert(2)));
    }

    #[test]
    fn no_flipped_bit_gives_a_wrong_body() {
        let conn = database();
        packed(&conn, 1..4);
        let sound: Vec<u8> = conn.query_row("SELECT bodies FROM body_pack", [], |row| row.get(0)).unwrap();
        for bit in 0..sound.len() * 8 {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            conn.execute("UPDATE body_pack SET bodies = ?1", [flipped]).unwrap();
            assert_eq!(Bodies::of(&conn).get(2).unwrap(), None);
        }
        conn.execute("UPDATE body_pack SET bodies = ?1, last_id = 5", [sound]).unwrap();
        assert_eq!(Bodies::of(&conn).get(2).unwrap(), None);
    }

    #[test]
    fn what_a_checksum_vouches_for_is_still_not_trusted() {
        let conn = database();
        let mut short = Vec::new();
        frame(&mut short, &alert(1)).unwrap();
        short.extend_from_slice(&[0xff; 40]);
        let bomb = vec![0; UNPACKED_MAX];
        for (bodies, says) in [(short.as_slice(), short.len()), (&bomb, 64), (b"{}", 1 << 20), (b"", 1)] {
            let packed = lz4_flex::block::compress(bodies);
            let says = says as i64;
            let sum = crc(&[1, 2, says], &[&packed]);
            conn.execute("DELETE FROM body_pack", []).unwrap();
            conn.execute("INSERT INTO body_pack VALUES (1, 2, ?1, ?2, ?3)", params![says, sum, packed])
                .unwrap();
            assert_eq!(Bodies::of(&conn).get(2).unwrap(), None);
        }
    }

    #[test]
    fn a_pack_goes_with_its_last_alert() {
        let conn = database();
        conn.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for id in 1..=6 {
            conn.execute("INSERT INTO alert VALUES (?1, zeroblob(32), 1, 0, 0, 0, 0, 1, 0, NULL, NULL, NULL, NULL, NULL)", [id])
                .unwrap();
        }
        packed(&conn, 1..4);
        packed(&conn, 4..7);
        conn.execute("DELETE FROM alert WHERE id IN (1, 2, 4, 5, 6)", []).unwrap();
        forget(&conn, [1, 2, 4, 5, 6].into_iter()).unwrap();
        assert_eq!(count(&conn), 1);
        conn.execute("DELETE FROM alert", []).unwrap();
        forget(&conn, std::iter::once(3)).unwrap();
        assert_eq!(count(&conn), 0);
    }
}
