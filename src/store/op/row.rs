//! Checksums of rows and the two inserts that several operations share.

use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, ToSql, params};

use super::plan::Plan;
use crate::model::cursor::Proof;
use crate::model::{DeliveryKind, DeliveryState, FileCursor, Generation, Mark, TicketState};
use crate::store::StoreError;
use crate::store::catalog::crc;
use crate::store::session::Tx;

/// What the checksum of an alert's row is made of.
pub(super) struct AlertCrc {
    pub(super) fingerprint: [u8; 32],
    pub(super) severity: i64,
    pub(super) first_seen_at: i64,
    pub(super) last_seen_at: i64,
    pub(super) occurrences: i64,
    pub(super) plan: Option<Plan>,
}

impl AlertCrc {
    pub(super) fn value(&self) -> i64 {
        let Plan { route, rule, id } = self.plan.unwrap_or_default();
        let numbers =
            [self.severity, self.first_seen_at, self.last_seen_at, self.occurrences, route, rule, id];
        crc(&numbers, &[&self.fingerprint])
    }
}

/// An alert's row as it is read for work.
pub(super) struct KeptAlert {
    pub(super) row: AlertCrc,
    /// The checksum of a row that is not what was written: whatever is changed in it, it gets no better.
    wrong: Option<i64>,
}

impl KeptAlert {
    /// The columns that it is read from, of a table that is called `a`.
    pub(super) const COLUMNS: &str =
        "a.fingerprint, a.severity, a.first_seen_at, a.last_seen_at, a.occurrences,
         a.route_id, a.rule_id, a.planned_id, a.crc";

    /// From these columns, the first of them `at`.
    pub(super) fn read(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self> {
        let facts = AlertCrc {
            fingerprint: row.get(at)?,
            severity: row.get(at + 1)?,
            first_seen_at: row.get(at + 2)?,
            last_seen_at: row.get(at + 3)?,
            occurrences: row.get(at + 4)?,
            plan: Plan::read(row, at + 5)?,
        };
        let crc: i64 = row.get(at + 8)?;
        let wrong = (facts.value() != crc).then_some(crc);
        Ok(Self { row: facts, wrong })
    }

    pub(super) fn is_sound(&self) -> bool {
        self.wrong.is_none()
    }

    /// The checksum to be written with the row as it is now.
    pub(super) fn crc(&self) -> i64 {
        self.wrong.unwrap_or_else(|| self.row.value())
    }
}

/// What a delivery is about; by the number of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Subject {
    Ticket(i64),
    Device(i64),
    Record(i64),
}

impl Subject {
    /// Values of `ticket_id`, `device_id`, `record_id`.
    pub(super) fn columns(self) -> [Option<i64>; 3] {
        match self {
            Self::Ticket(id) => [Some(id), None, None],
            Self::Device(id) => [None, Some(id), None],
            Self::Record(id) => [None, None, Some(id)],
        }
    }

    /// The inverse; exactly one of them is a number.
    pub(super) fn of(columns: [Option<i64>; 3]) -> Option<Self> {
        match columns {
            [Some(id), None, None] => Some(Self::Ticket(id)),
            [None, Some(id), None] => Some(Self::Device(id)),
            [None, None, Some(id)] => Some(Self::Record(id)),
            _ => None,
        }
    }

    /// From three columns of a row, the first of them `at`. A row with none or several is damaged.
    pub(super) fn read(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Self> {
        Self::of([row.get(at)?, row.get(at + 1)?, row.get(at + 2)?])
            .ok_or(rusqlite::Error::IntegralValueOutOfRange(at, 0))
    }
}

/// What the checksum of a delivery is made of.
pub(in crate::store) struct DeliveryCrc<'a> {
    /// [`DeliveryKind::as_str`].
    pub(super) kind: &'a str,
    pub(super) subject: Subject,
    /// Place within the subject.
    pub(super) seq: i64,
    pub(super) destination: i64,
    pub(super) state: DeliveryState,
    pub(super) severity: i64,
    pub(super) attempts: i64,
}

impl DeliveryCrc<'_> {
    pub(super) fn value(&self) -> i64 {
        let [ticket, device, record] = self.subject.columns().map(Option::unwrap_or_default);
        crc(
            &[ticket, device, record, self.seq, self.destination, self.severity, self.attempts],
            &[self.kind.as_bytes(), self.state.as_str().as_bytes()],
        )
    }
}

pub(super) fn ticket_crc(
    alert: i64,
    route: i64,
    generation: Generation,
    state: TicketState,
    sys_id: &str,
) -> i64 {
    crc(&[alert, route, i64::from(generation.0)], &[state.as_str().as_bytes(), sys_id.as_bytes()])
}

/// The checksum of a record's row.
pub(super) fn record_crc(alert: i64, route: i64, key: &str, state: TicketState) -> i64 {
    crc(&[alert, route], &[key.as_bytes(), state.as_str().as_bytes()])
}

/// A record that is still to be put there.
pub(super) struct NewRecord<'a> {
    pub(super) alert_id: i64,
    pub(super) route_id: i64,
    pub(super) rule: &'a str,
    /// What it is known by there.
    pub(super) key: &'a str,
}

pub(super) fn insert_record(tx: &mut Tx<'_>, new: &NewRecord<'_>) -> Result<i64, StoreError> {
    let state = TicketState::Opening;
    tx.conn
        .prepare_cached(
            "INSERT INTO record (alert_id, route_id, rule, key, state, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            new.alert_id,
            new.route_id,
            new.rule,
            new.key,
            state.as_str(),
            record_crc(new.alert_id, new.route_id, new.key, state)
        ])?;
    Ok(tx.conn.last_insert_rowid())
}

/// What is written in a column that is still to come, so that the row does not grow when it is settled: a page of rows
/// that grow is split, and three pages are written for it. As long as `sys_id`, number and the times that replace it.
pub(super) const TICKET_FILL: &str = "                                                  ";
/// The same of a delivery's row; readers take a reason of blanks for none.
pub(super) const DELIVERY_FILL: &str = "            ";

/// A ticket that is still to be made.
pub(super) struct NewTicket<'a> {
    pub(super) alert_id: i64,
    pub(super) route_id: i64,
    pub(super) generation: Generation,
    pub(super) rule: &'a str,
}

pub(super) fn insert_ticket(tx: &mut Tx<'_>, new: &NewTicket<'_>) -> Result<i64, StoreError> {
    let state = TicketState::Opening;
    tx.conn
        .prepare_cached(
            "INSERT INTO ticket (alert_id, route_id, generation, state, rule, remote_state, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?6)",
        )?
        .execute(params![
            new.alert_id,
            new.route_id,
            new.generation.0,
            state.as_str(),
            new.rule,
            ticket_crc(new.alert_id, new.route_id, new.generation, state, ""),
            TICKET_FILL
        ])?;
    tx.count(KEPT, "tickets", 1);
    Ok(tx.conn.last_insert_rowid())
}

/// Puts the first delivery of a subject into the outbox.
pub(super) fn insert_delivery(
    tx: &mut Tx<'_>,
    new: &NewDelivery,
    destination: &str,
) -> Result<(), StoreError> {
    new.insert(tx.conn)?;
    tx.count(&destination_scope(destination), DeliveryState::Pending.as_str(), 1);
    tx.count(KEPT, "deliveries", 1);
    Ok(())
}

/// A row for the outbox. The one place that knows the columns; many of them at once are made by `fresh.rs`.
pub(in crate::store) struct NewDelivery {
    /// Its number, where one was kept free for it.
    pub(super) id: Option<i64>,
    /// Pending, or claimed at once.
    pub(super) state: DeliveryState,
    pub(super) kind: DeliveryKind,
    pub(super) subject: Subject,
    pub(super) seq: i64,
    pub(super) destination_id: i64,
    pub(super) route_id: i64,
    pub(super) severity: i64,
    /// See `store/turns.rs`.
    pub(super) turn: i64,
    pub(super) now: i64,
    pub(super) doubtful: bool,
}

/// Head of the statement that inserts rows of [`NewDelivery::values`].
pub(super) const INSERT_DELIVERY: &str =
    "INSERT INTO delivery (id, kind, ticket_id, device_id, record_id, seq, destination_id,
     route_id, state, severity, turn, created_at, due_at, doubtful, reason, crc) VALUES ";
/// One row of it.
pub(super) const DELIVERY_ROW: &str = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

impl NewDelivery {
    /// The first of a ticket: that it is opened.
    pub(super) fn opens(ticket: i64, now: i64) -> Self {
        Self {
            id: None,
            state: DeliveryState::Pending,
            kind: DeliveryKind::OpenTicket,
            subject: Subject::Ticket(ticket),
            seq: 1,
            destination_id: 0,
            route_id: 0,
            severity: 0,
            turn: 0,
            now,
            doubtful: false,
        }
    }

    /// The first of a record: that it is put there.
    pub(super) fn puts(kind: DeliveryKind, record: i64, now: i64) -> Self {
        Self { kind, subject: Subject::Record(record), ..Self::opens(0, now) }
    }

    /// In the order of [`INSERT_DELIVERY`].
    pub(super) fn values(&self) -> [ToSqlOutput<'static>; 16] {
        let state = self.state;
        let number = |id: Option<i64>| ToSqlOutput::Owned(id.map_or(Value::Null, Value::Integer));
        let [ticket, device, record] = self.subject.columns().map(number);
        let crc = DeliveryCrc {
            kind: self.kind.as_str(),
            subject: self.subject,
            seq: self.seq,
            destination: self.destination_id,
            state,
            severity: self.severity,
            attempts: 0,
        };
        [
            number(self.id),
            self.kind.as_str().into(),
            ticket,
            device,
            record,
            self.seq.into(),
            self.destination_id.into(),
            self.route_id.into(),
            state.as_str().into(),
            self.severity.into(),
            self.turn.into(),
            self.now.into(),
            self.now.into(),
            self.doubtful.into(),
            DELIVERY_FILL.into(),
            crc.value().into(),
        ]
    }

    pub(super) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached(&format!("{INSERT_DELIVERY}{DELIVERY_ROW}"))?
            .execute(rusqlite::params_from_iter(self.values()))
            .map(|_| ())
    }
}

/// Scope of the counters of rows that are kept: `alerts`, `tickets`, `deliveries`. They say how many were lost when the
/// rows themselves cannot be read any more.
pub(super) const KEPT: &str = "store";

/// The counter of a state. What is claimed counts as pending: the reader counts the few that are claimed, and a claim
/// moves no counter.
pub(super) fn counter(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Claimed => DeliveryState::Pending.as_str(),
        state => state.as_str(),
    }
}

pub(super) fn destination_scope(destination: &str) -> String {
    format!("destination:{destination}")
}

pub(super) fn source_scope(source: &str) -> String {
    format!("source:{source}")
}

/// The checksum of a cursor's row.
pub(super) fn cursor_crc(source: i64, c: &FileCursor) -> i64 {
    let numbers = [
        source,
        c.device as i64,
        c.inode as i64,
        c.head_hash as i64,
        i64::from(c.head_len),
        c.offset as i64,
        c.backlog_end as i64,
        i64::from(c.complete),
    ];
    let proofs = Proof::encode(&c.proofs);
    crc(&numbers, &[c.path.as_bytes(), c.state.as_deref().unwrap_or_default().as_bytes(), proofs.as_bytes()])
}

/// The checksum of a mark's row.
pub(super) fn mark_crc(source: i64, mark: &Mark) -> i64 {
    crc(&[source], &[mark.name.as_bytes(), mark.value.as_bytes()])
}

/// Numbers of rows to a statement, largest first; each is a prepared statement of its own.
const ROWS: [usize; 4] = [64, 16, 4, 1];

/// Inserts rows. Gives the id of the first where those of the others follow it.
pub(super) fn insert<const COLUMNS: usize>(
    conn: &Connection,
    head: &str,
    row: &str,
    rows: &[[ToSqlOutput<'_>; COLUMNS]],
) -> Result<Option<i64>, StoreError> {
    let (mut first, mut follow) = (None, true);
    let mut left = rows;
    while !left.is_empty() {
        let size = ROWS.into_iter().find(|size| *size <= left.len()).unwrap_or(1);
        let (now, later) = left.split_at(size);
        let mut statement = conn.prepare_cached(&format!("{head}{}", vec![row; size].join(", ")))?;
        for (at, value) in now.as_flattened().iter().enumerate() {
            statement.raw_bind_parameter(at + 1, value as &dyn ToSql)?;
        }
        statement.raw_execute()?;
        let begin = conn.last_insert_rowid() + 1 - size as i64;
        follow &= *first.get_or_insert(begin) + (rows.len() - left.len()) as i64 == begin;
        left = later;
    }
    Ok(first.filter(|_| follow))
}
