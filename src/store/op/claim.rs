//! Taking what is due out of the outbox, durably: what is found claimed at the next start may have been sent.

use std::cmp::Reverse;
use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::attempt::{self, Attempt};
use super::device::links::{About, about};
use super::life;
use super::plan::{self, Planned};
use super::row::{DeliveryCrc, KeptAlert, Subject};
use super::storm::{self, Folded};
use crate::model::{
    Alert, DeliveryId, DeliveryKind, DeliveryState, DestinationName, Fingerprint, Generation, RuleName,
    Severity, SysId, TableName, Timestamp,
};
use crate::store::catalog::{self, AnyRow};
use crate::store::handle::Operation;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::turns::Turns;
use crate::store::{Store, StoreError};

/// What to claim.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Claim {
    /// Of which destination.
    pub destination: DestinationName,
    /// Tables that are on hold: theirs are left.
    pub except: Vec<TableName>,
    /// At most so many.
    pub limit: usize,
    /// Only deliveries that were tried before (between two syncs).
    pub only_tried: bool,
    /// Those that were never tried, if there are any: what failed says nothing new about its destination.
    pub fresh_first: bool,
    /// This severity and higher (the end of an hourly budget).
    pub min_severity: Severity,
    /// Only look: nothing is claimed.
    pub peek: bool,
    /// Devices go there too, so that tickets name their CIs.
    pub links: bool,
    /// Now.
    pub now: Timestamp,
}

/// A claimed delivery with all that is needed to send it.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The delivery.
    pub id: DeliveryId,
    /// What it tells.
    pub kind: DeliveryKind,
    /// Where to.
    pub table: TableName,
    /// How many tickets of this alert were closed before; 0 for what is no ticket.
    pub generation: Generation,
    /// Which finding.
    pub fingerprint: Fingerprint,
    /// The alert; `None` when the row is damaged (its checksum is wrong).
    pub alert: Option<Alert>,
    /// How often it was seen.
    pub occurrences: u64,
    /// When it was last seen, by the sensor's clock.
    pub last_seen_at: Timestamp,
    /// Attempts before this one.
    pub attempts: u32,
    /// Whether an earlier attempt may have created it.
    pub doubtful: bool,
    /// The rule that gives the fields.
    pub rule: RuleName,
    /// What is known of its ticket; of anything else it is empty.
    pub ticket: TicketNow,
    /// The device it is about.
    pub about: About,
}

/// What is known of a ticket that something is told of.
#[derive(Clone, Debug, Default)]
pub struct TicketNow {
    /// The record; `None`: it is still to be made.
    pub sys_id: Option<SysId>,
    /// `sys_mod_count` after our last look.
    pub mod_count: Option<i64>,
    /// Which of its deliveries this is.
    pub seq: u32,
    /// What the severity rose to.
    pub worst: Option<Severity>,
    /// When its finding ended; `None`: it stands.
    pub cleared_at: Option<Timestamp>,
    /// What it stands for, if it is the parent of a storm.
    pub folded: Folded,
    /// Its table; that of the delivery is where the delivery goes.
    pub table: Option<TableName>,
    /// Whether the other side did not close it when it was asked to; looked up for notes.
    pub not_closed: bool,
    /// The record beside which it is made, by hand.
    pub beside: Option<(TableName, SysId)>,
}

struct NextDue(DestinationName, Timestamp);

struct Straighten(DestinationName, Timestamp);

/// Nothing waits longer than a day by its own (relay/retry.rs); what seems to was dated by a clock that was ahead.
const LONGEST_WAIT: Duration = Duration::from_hours(25);

/// See [`Store::recover`].
pub(in crate::store) struct Recover {
    pub(in crate::store) now: Timestamp,
    pub(in crate::store) due_at: Timestamp,
}

impl Store {
    /// Claims what is due, most severe first, then by turns (`store/turns.rs`), then oldest.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.call(claim).await
    }

    /// When the earliest delivery that was tried before is due, of those not due at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_due(
        &self,
        destination: &DestinationName,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.call(NextDue(destination.clone(), now)).await
    }

    /// Makes due what only a clock that was ahead for a while keeps from being so. Writes nothing when all is well.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn straighten(&self, destination: &DestinationName, now: Timestamp) -> Result<(), StoreError> {
        self.call(Straighten(destination.clone(), now)).await
    }

    /// At start: what was claimed when the process ended becomes pending again, doubtful, and due at `due_at` (the
    /// other side's index may lag behind a create). Gives their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover(&self, due_at: Timestamp) -> Result<u64, StoreError> {
        let now = self.shared.clock.now();
        self.call(Recover { now, due_at }).await
    }
}

/// Names of tables as one text, each between bars, which no name has: SQLite is built without its JSON functions.
fn between_bars(tables: &[TableName]) -> String {
    tables.iter().flat_map(|table| ["|", table.as_str(), "|"]).collect()
}

/// The tables of a destination that are not left out.
fn routes(tx: &Tx<'_>, destination_id: i64, except: &str) -> Result<Vec<i64>, StoreError> {
    let mut select = tx.conn.prepare_cached(
        "SELECT id FROM route WHERE destination_id = ?1 AND instr(?2, '|' || table_name || '|') = 0",
    )?;
    let ids = select.query_map(params![destination_id, except], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// What is due of a destination (only what was tried) or of one of its tables: which, now, tables to leave, limit,
/// lowest severity. The index is named because SQLite would walk the backlog in the order that is wanted instead.
pub(in crate::store) fn select(only_tried: bool) -> String {
    if only_tried {
        let due = "d.destination_id = ?1 AND d.attempts > 0 AND d.due_at <= ?2
               AND instr(?3, '|' || r.table_name || '|') = 0";
        select_by("delivery_tried", due)
    } else {
        // What was never tried is due whatever its date says: the clock may have been ahead when it was made.
        select_by("delivery_due", "d.route_id = ?1 AND (d.attempts = 0 OR d.due_at <= ?2)")
    }
}

/// The same of one table, of those that were never tried.
fn select_fresh() -> String {
    select_by("delivery_due", "d.route_id = ?1 AND d.attempts = 0 AND ?2 IS NOT ?3")
}

/// What comes later for a subject waits until nothing earlier of it is open: a note needs its ticket.
const IN_ORDER: &str = "(d.seq = 1
   OR NOT EXISTS (SELECT 1 FROM delivery e WHERE e.ticket_id = d.ticket_id AND e.seq < d.seq AND e.state IN ('pending', 'claimed', 'dead')
                    AND e.kind NOT IN ('attach-raw', 'attach-pcap'))
  AND NOT EXISTS (SELECT 1 FROM delivery e WHERE e.device_id = d.device_id AND e.seq < d.seq AND e.state IN ('pending', 'claimed', 'dead'))
  AND NOT EXISTS (SELECT 1 FROM delivery e WHERE e.record_id = d.record_id AND e.seq < d.seq AND e.state IN ('pending', 'claimed', 'dead')))";

fn select_by(index: &str, due: &str) -> String {
    format!(
        "{} WHERE d.state = 'pending' AND {due} AND d.severity >= ?5 AND {IN_ORDER}
         ORDER BY d.severity DESC, d.turn, d.id LIMIT ?4",
        select_from(&format!("INDEXED BY {index}"))
    )
}

/// One that was just written out.
fn select_one() -> String {
    format!("{} WHERE d.id = ?1", select_from(""))
}

fn select_from(index: &str) -> String {
    format!(
        "SELECT d.id, coalesce(t.state, c.state), d.severity, d.attempts, d.doubtful, coalesce(t.generation, 0),
                coalesce(t.rule, c.rule), r.table_name,
                a.id, d.ticket_id, d.device_id, d.record_id, d.seq, d.kind,
                t.sys_id, t.mod_count, t.worst, a.cleared_at, d.route_id, d.turn, tr.table_name, br.table_name, b.sys_id,
                {}
         FROM delivery d {index}
         JOIN route r ON r.id = d.route_id
         LEFT JOIN ticket t ON t.id = d.ticket_id
         LEFT JOIN route tr ON tr.id = t.route_id
         LEFT JOIN ticket b ON b.id = t.beside_id
         LEFT JOIN route br ON br.id = b.route_id
         LEFT JOIN record c ON c.id = d.record_id
         JOIN alert a ON a.id = coalesce(t.alert_id, c.alert_id)",
        KeptAlert::COLUMNS
    )
}

pub(in crate::store) const NEXT_DUE: &str = "SELECT min(due_at) FROM delivery
     WHERE destination_id = ?1 AND state = 'pending' AND attempts > 0 AND due_at > ?2";

impl Operation for Claim {
    type Output = Vec<Claimed>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Claimed>, StoreError> {
        let destination_id = tx.destination_id(self.destination.as_str())?;
        let except = between_bars(&self.except);
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        // What was tried is little and asked for at once. The backlog is asked for table by table: one that is on hold
        // may be large, and would be walked by each claim for the others.
        let places =
            if self.only_tried { vec![destination_id] } else { routes(tx, destination_id, &except)? };
        let ask = |sql: &str| -> Result<Vec<Row>, StoreError> {
            let mut rows: Vec<Row> = Vec::new();
            for place in &places {
                let mut due = tx.conn.prepare_cached(sql)?;
                let with = params![place, self.now.as_micros(), except, limit, self.min_severity as i64];
                let found = due.query_map(with, claimed)?;
                rows.extend(found.collect::<Result<Vec<_>, _>>()?);
            }
            Ok(rows)
        };
        let mut rows = if self.fresh_first && !self.only_tried { ask(&select_fresh())? } else { Vec::new() };
        let mut planned = Vec::new();
        for place in places.iter().filter(|_| !self.only_tried) {
            planned.extend(plan::first_of(tx, *place, self.min_severity as i64, limit)?);
        }
        if rows.is_empty() && (planned.is_empty() || !self.fresh_first) {
            rows = ask(&select(self.only_tried))?;
        }
        let found = rows.len() + planned.len();
        rows.extend(self.write_out(tx, &rows, planned)?);
        let turns = &tx.memory.turns;
        rows.sort_by_cached_key(|row| order(turns, row.place(), row.turn, row.claimed.id.0));
        rows.truncate(self.limit);
        self.fill(tx, destination_id, &mut rows)?;
        if self.peek {
            return Ok(rows.into_iter().map(|row| row.claimed).collect());
        }
        mark_claimed(tx, destination_id, &rows)?;
        for row in rows.iter().filter(|row| row.claimed.attempts == 0) {
            tx.memory.turns.served(row.place(), row.turn);
        }
        if found < self.limit && !self.only_tried && !self.fresh_first {
            for place in places {
                tx.memory.turns.empty(place, self.min_severity as i64);
            }
        }
        Ok(rows.into_iter().map(|row| row.claimed).collect())
    }
}

/// Whose turn it is: most severe first, then by turns, then the oldest.
fn order(turns: &Turns, place: (i64, i64), turn: i64, id: i64) -> (Reverse<i64>, i64, i64) {
    (Reverse(place.1), turns.behind(place, turn), id)
}

impl Claim {
    /// Adds what a delivery is sent with: the alert, unless a row of it is not what was written, and what belongs to it.
    fn fill(&self, tx: &Tx<'_>, destination_id: i64, rows: &mut [Row]) -> Result<(), StoreError> {
        let mut bodies = Bodies::of(tx.conn);
        for row in rows.iter_mut().filter(|row| row.sound) {
            row.claimed.alert = bodies.get(row.alert)?;
            let kind = row.claimed.kind;
            let rises = matches!(kind, DeliveryKind::OpenTicket | DeliveryKind::PutRow) || kind.goes_on();
            if let Some(alert) = row.claimed.alert.as_mut().filter(|_| rises) {
                // The text is of the first sighting; what is opened or told later is of a worse one.
                let of = Severity::numbered(row.severity);
                alert.severity = of.map_or(alert.severity, |of| of.max(alert.severity));
            }
            if let Some(alert) = row.claimed.alert.as_ref().filter(|_| self.links) {
                row.claimed.about = about(tx, destination_id, row.alert, alert)?;
            }
        }
        for Row { claimed, .. } in rows.iter_mut() {
            if !is_delivery_sound(tx, claimed.id)? {
                claimed.alert = None;
            }
        }
        for row in rows {
            if let Subject::Ticket(ticket) = row.subject {
                let folded = storm::folded(tx, ticket)?;
                if folded.findings > 0 {
                    // It has ended when all of them have.
                    row.claimed.ticket.cleared_at = folded.ended_at;
                }
                row.claimed.ticket.folded = folded;
                let is_note = row.claimed.kind == DeliveryKind::NoteTicket;
                row.claimed.ticket.not_closed = is_note && life::not_closed(tx, ticket)?;
            }
        }
        Ok(())
    }

    /// Writes out what of the planned ones comes before the last of those that are taken; claimed, unless it is only
    /// looked at.
    fn write_out(
        &self,
        tx: &mut Tx<'_>,
        rows: &[Row],
        planned: Vec<Planned>,
    ) -> Result<Vec<Row>, StoreError> {
        let turns = &tx.memory.turns;
        let of = |p: &Planned| order(turns, (p.plan.route, p.severity), p.turn, p.plan.id);
        let mut all: Vec<_> =
            rows.iter().map(|row| order(turns, row.place(), row.turn, row.claimed.id.0)).collect();
        all.extend(planned.iter().map(of));
        all.sort_unstable();
        let behind = all.get(self.limit).copied();
        let taken: Vec<Planned> =
            planned.into_iter().filter(|p| behind.is_none_or(|behind| of(p) < behind)).collect();
        let state = if self.peek { DeliveryState::Pending } else { DeliveryState::Claimed };
        plan::write(tx, &taken, state)?;
        let mut select = tx.conn.prepare_cached(&select_one())?;
        let made = taken.iter().map(|p| select.query_row([p.plan.id], claimed));
        let made = made.map(|row| Ok(Row { is_claimed: !self.peek, ..row? }));
        made.collect()
    }
}

/// Moves those that are not yet to the state in which they are sent.
fn mark_claimed(tx: &Tx<'_>, destination: i64, rows: &[Row]) -> Result<(), StoreError> {
    let mut update =
        tx.conn.prepare_cached("UPDATE delivery SET state = 'claimed', crc = ?2 WHERE id = ?1")?;
    for row in rows.iter().filter(|row| !row.is_claimed) {
        let crc = DeliveryCrc {
            kind: &row.kind,
            subject: row.subject,
            seq: row.seq,
            destination,
            state: DeliveryState::Claimed,
            severity: row.severity,
            attempts: i64::from(row.claimed.attempts),
        };
        update.execute(params![row.claimed.id.0, crc.value()])?;
    }
    Ok(())
}

/// What was found, still without its alert.
struct Row {
    claimed: Claimed,
    kind: String,
    subject: Subject,
    seq: i64,
    /// Of the delivery.
    severity: i64,
    route: i64,
    turn: i64,
    alert: i64,
    /// Whether the checksum of the alert's row and the rule's name are good.
    sound: bool,
    /// It was planned, and its row was made for this claim.
    is_claimed: bool,
}

impl Row {
    /// Which queue it stands in.
    fn place(&self) -> (i64, i64) {
        (self.route, self.severity)
    }
}

fn claimed(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let invalid = |column: usize| {
        move |e: crate::model::names::NameError| {
            rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e))
        }
    };
    let finding = KeptAlert::read(row, 23)?;
    // As bytes: a flipped bit may leave no valid text, and one bad row must not stop the rest.
    let rule = RuleName::new(&String::from_utf8_lossy(row.get_ref(6)?.as_bytes()?)).ok();
    let kind = String::from_utf8_lossy(row.get_ref(13)?.as_bytes()?).into_owned();
    let known = DeliveryKind::parse(&kind);
    let sound = finding.is_sound() && rule.is_some() && known.is_some();
    let claimed = Claimed {
        id: DeliveryId(row.get(0)?),
        kind: known.unwrap_or(DeliveryKind::OpenTicket),
        table: TableName::new(&row.get::<_, String>(7)?).map_err(invalid(7))?,
        generation: Generation(row.get(5)?),
        fingerprint: Fingerprint::from_bytes(finding.row.fingerprint),
        alert: None,
        occurrences: finding.row.occurrences as u64,
        last_seen_at: Timestamp::from_micros(finding.row.last_seen_at),
        attempts: row.get(3)?,
        doubtful: row.get(4)?,
        rule: rule.map_or_else(|| RuleName::new("damaged").map_err(invalid(6)), Ok)?,
        ticket: TicketNow {
            sys_id: row.get::<_, Option<String>>(14)?.and_then(|text| SysId::new(&text).ok()),
            mod_count: row.get(15)?,
            seq: row.get::<_, i64>(12)?.try_into().unwrap_or(u32::MAX),
            worst: row.get::<_, Option<i64>>(16)?.and_then(Severity::numbered),
            cleared_at: row.get::<_, Option<i64>>(17)?.map(Timestamp::from_micros),
            folded: Folded::default(),
            not_closed: false,
            table: row.get::<_, Option<String>>(20)?.and_then(|text| TableName::new(&text).ok()),
            beside: row
                .get::<_, Option<String>>(21)?
                .and_then(|text| TableName::new(&text).ok())
                .zip(row.get::<_, Option<String>>(22)?.and_then(|text| SysId::new(&text).ok())),
        },
        about: About::default(),
    };
    Ok(Row {
        claimed,
        kind,
        subject: Subject::read(row, 9)?,
        seq: row.get(12)?,
        severity: row.get(2)?,
        route: row.get(18)?,
        turn: row.get(19)?,
        alert: row.get(8)?,
        sound,
        is_claimed: false,
    })
}

/// Whether a delivery and its subject are what was written; a row that is gone is not.
fn is_delivery_sound(tx: &Tx<'_>, id: DeliveryId) -> Result<bool, StoreError> {
    let subject = sound(tx, "delivery", id.0, |row| {
        Subject::of(["ticket_id", "device_id", "record_id"].map(|name| row.int(name)))
    })?;
    match subject.flatten() {
        Some(Subject::Ticket(ticket)) => Ok(sound(tx, "ticket", ticket, |_| ())?.is_some()),
        Some(Subject::Record(record)) => Ok(sound(tx, "record", record, |_| ())?.is_some()),
        Some(Subject::Device(_)) => Ok(true),
        None => Ok(false),
    }
}

/// What is wanted of a row that is what was written.
fn sound<T>(
    tx: &Tx<'_>,
    table: &str,
    id: i64,
    wanted: impl Fn(AnyRow<'_>) -> T,
) -> Result<Option<T>, StoreError> {
    let Some(entry) = catalog::of(table) else { return Ok(None) };
    let mut select = tx.conn.prepare_cached(&format!("SELECT * FROM {table} WHERE id = ?1"))?;
    let found = select.query_row([id], |row| {
        let (columns, values) = catalog::read(row)?;
        let row = AnyRow { columns: &columns, values: &values };
        Ok(entry.is_sound(row).then(|| wanted(row)))
    });
    Ok(found.optional()?.flatten())
}

impl Operation for NextDue {
    type Output = Option<Timestamp>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Option<Timestamp>, StoreError> {
        let destination_id = tx.destination_id(self.0.as_str())?;
        let at: Option<i64> = tx
            .conn
            .prepare_cached(NEXT_DUE)?
            .query_row([destination_id, self.1.as_micros()], |r| r.get(0))?;
        Ok(at.map(Timestamp::from_micros))
    }
}

impl Operation for Straighten {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let destination_id = tx.destination_id(self.0.as_str())?;
        let (now, far) = (self.1.as_micros(), self.1.after(LONGEST_WAIT).as_micros());
        tx.conn
            .prepare_cached(
                "UPDATE delivery SET due_at = ?2 WHERE destination_id = ?1 AND state = 'pending' AND attempts > 0
                   AND due_at > ?3",
            )?
            .execute([destination_id, now, far])?;
        tx.conn
            .prepare_cached("UPDATE hold SET until_at = ?2 WHERE destination_id = ?1 AND until_at > ?3")?
            .execute([destination_id, now, far])?;
        Ok(())
    }
}

impl Operation for Recover {
    type Output = u64;

    fn run(self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let mut select = tx.conn.prepare(
            "SELECT id, ticket_id, device_id, record_id, seq, kind, destination_id, severity, attempts FROM delivery
             WHERE state = 'claimed'",
        )?;
        let mut rows = select.query([])?;
        let mut recovered = 0;
        while let Some(row) = rows.next()? {
            let (id, attempts): (i64, i64) = (row.get(0)?, row.get(8)?);
            let crc = DeliveryCrc {
                kind: &row.get::<_, String>(5)?,
                subject: Subject::read(row, 1)?,
                seq: row.get(4)?,
                destination: row.get(6)?,
                state: DeliveryState::Pending,
                severity: row.get(7)?,
                attempts: attempts + 1,
            };
            tx.conn.execute(
                "UPDATE delivery SET state = 'pending', doubtful = 1, attempts = attempts + 1, due_at = ?2, crc = ?3
                 WHERE id = ?1",
                params![id, self.due_at.as_micros(), crc.value()],
            )?;
            let attempt = Attempt {
                delivery: id,
                n: attempts + 1,
                started_at: self.now,
                duration_ms: 0,
                outcome: "unfinished",
                status: None,
                message: "the process ended before the answer was recorded",
            };
            attempt::insert(tx, &attempt)?;
            recovered += 1;
        }
        Ok(recovered)
    }
}
