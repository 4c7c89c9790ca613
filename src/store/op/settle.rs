//! What became of claimed deliveries. Every send has an outcome row; states move along their arrows.

use std::sync::Arc;

use rusqlite::params;

use super::attempt::{self, Attempt};
use super::destination_state::{Change, DestinationChange};
use super::device::links;
use super::history;
use super::life::{self, Seen};
use super::row::{
    DeliveryCrc, NewTicket, Subject, counter, destination_scope, insert_ticket, record_crc, ticket_crc,
};
use crate::model::life::Lives;
use crate::model::text::clip;
use crate::model::{
    DeliveryId, DeliveryKind, DeliveryState, DestinationName, Generation, SysId, TicketState, Timestamp,
};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// What became of one claimed delivery.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The delivery.
    pub id: DeliveryId,
    /// When its send began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// HTTP status, if there was one.
    pub status: Option<u16>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The ticket is there.
    Delivered {
        /// Whether this attempt created it; otherwise it was found.
        created: bool,
        /// The record.
        sys_id: SysId,
        /// Its number, or empty.
        number: String,
        /// Its state there.
        state: String,
        /// Its `sys_mod_count`, where it is shown.
        mod_count: Option<i64>,
        /// What is strange about it, in words: it was found, and was not made by us, or too early.
        adopted: Option<String>,
        /// It names no CI: by what its device is looked for later.
        looks_for: Vec<String>,
    },
    /// What came later of a ticket was told, or has nobody to be told to any more.
    Later {
        /// Whether this attempt did it; otherwise there was nothing to do.
        created: bool,
        /// What the other side shows of the ticket.
        seen: Seen,
        /// How many sightings a note told of.
        noted: Option<u64>,
        /// The finding gets a new ticket.
        renews: bool,
        /// It was to be closed, and the other side does not do it: why. The end is told as a note instead.
        not_closed: Option<String>,
    },
    /// What was to be added to a ticket is there, or has nothing to be added to any more. Nothing is seen of the ticket.
    Added {
        /// Whether this attempt did it; otherwise there was nothing to do.
        created: bool,
    },
    /// It was told, and the answer names no record.
    Told {
        /// Whether this attempt did it; otherwise it was there.
        created: bool,
    },
    /// It is there but closed: the next generation has to be opened. The delivery goes on with that one.
    ClosedThere {
        /// The closed record.
        sys_id: SysId,
        /// Its number, or empty.
        number: String,
        /// Its state there.
        state: String,
    },
    /// Again at `due_at`.
    Retry {
        /// When.
        due_at: Timestamp,
        /// Word for the outcome row (`retry`, `retry-at`).
        word: &'static str,
        /// Whether it may have been created.
        doubtful: bool,
        /// The other side's words.
        message: String,
    },
    /// Nothing to do with this delivery (destination on hold, or stopping): as it was, not counted as an attempt.
    Requeue {
        /// Whether it may have been created.
        doubtful: bool,
        /// Why, for the outcome row when something was sent; empty: nothing was sent, no row.
        message: String,
    },
    /// Cannot succeed without a person.
    Dead {
        /// The other side's words.
        message: String,
    },
}

impl Outcome {
    /// Whether something was sent and came to nothing.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Retry { .. } | Self::Dead { .. } => true,
            Self::Requeue { message, .. } => !message.is_empty(),
            _ => false,
        }
    }
}

struct Settle {
    all: Vec<Settled>,
    /// What came to light about the destination with it.
    change: Option<Change>,
    /// What their actions want, where a ticket is over and its finding is not.
    lives: Arc<Lives>,
    now: Timestamp,
}

impl Store {
    /// Settles claimed deliveries in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]; they stay claimed then, and doubtful at the next start.
    pub async fn settle(&self, all: Vec<Settled>) -> Result<(), StoreError> {
        if all.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        self.call(Settle { all, change: None, lives: Arc::default(), now }).await
    }

    /// Settles claimed deliveries together with what changed about their destination.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of both is done then.
    pub async fn settle_with(
        &self,
        destination: &DestinationName,
        all: Vec<Settled>,
        changes: Vec<DestinationChange>,
        lives: Arc<Lives>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let change = Some(Change { destination: destination.clone(), changes, now });
        self.call(Settle { all, change, lives, now }).await
    }
}

/// What is needed of the rows that a settlement changes.
pub(super) struct Current {
    pub(super) subject: Subject,
    pub(super) alert_id: i64,
    pub(super) route_id: i64,
    pub(super) generation: Generation,
    pub(super) rule: String,
    /// Of a record; empty for a ticket.
    pub(super) key: String,
    pub(super) destination_id: i64,
    pub(super) destination: String,
    pub(super) state: DeliveryState,
    pub(super) severity: i64,
    pub(super) attempts: i64,
    /// Whether an attempt before may have done it.
    pub(super) doubtful: bool,
    kind: String,
    seq: i64,
}

impl Current {
    /// Whether it is the one that makes its subject; what comes later leaves it as it is.
    pub(super) fn is_first(&self) -> bool {
        self.seq == 1
    }

    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: DeliveryKind) -> bool {
        self.kind == kind.as_str()
    }
}

pub(super) fn current(tx: &Tx<'_>, id: DeliveryId) -> Result<Option<Current>, StoreError> {
    use rusqlite::OptionalExtension;
    let row = tx
        .conn
        .prepare_cached(
            "SELECT d.ticket_id, d.device_id, d.record_id, coalesce(t.alert_id, c.alert_id, 0), d.route_id,
                    coalesce(t.generation, 0), coalesce(t.rule, c.rule, ''), coalesce(c.key, ''), d.destination_id, k.name,
                    d.state, d.severity, d.attempts, d.kind, d.seq, d.doubtful
             FROM delivery d JOIN destination k ON k.id = d.destination_id
             LEFT JOIN ticket t ON t.id = d.ticket_id LEFT JOIN record c ON c.id = d.record_id
             WHERE d.id = ?1 AND (t.id IS NOT NULL OR c.id IS NOT NULL OR d.device_id IS NOT NULL)",
        )?
        .query_row([id.0], |r| {
            Ok(Current {
                subject: Subject::read(r, 0)?,
                alert_id: r.get(3)?,
                route_id: r.get(4)?,
                generation: Generation(r.get(5)?),
                rule: r.get(6)?,
                key: r.get(7)?,
                destination_id: r.get(8)?,
                destination: r.get(9)?,
                // The schema's CHECK knows the same words.
                state: DeliveryState::parse(&r.get::<_, String>(10)?).unwrap_or(DeliveryState::Pending),
                severity: r.get(11)?,
                attempts: r.get(12)?,
                kind: r.get(13)?,
                seq: r.get(14)?,
                doubtful: r.get(15)?,
            })
        })
        .optional()?;
    Ok(row)
}

/// The new values of a delivery's row.
pub(super) struct Next<'a> {
    pub(super) subject: Subject,
    pub(super) state: DeliveryState,
    pub(super) due_at: Option<Timestamp>,
    pub(super) attempts: i64,
    pub(super) doubtful: bool,
    pub(super) reason: Option<&'a str>,
    pub(super) now: Timestamp,
}

pub(super) fn move_delivery(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    from: &Current,
    next: &Next<'_>,
) -> Result<(), StoreError> {
    let settled_at = (!matches!(next.state, DeliveryState::Pending | DeliveryState::Claimed))
        .then_some(next.now.as_micros());
    let crc = DeliveryCrc {
        kind: &from.kind,
        subject: next.subject,
        seq: from.seq,
        destination: from.destination_id,
        state: next.state,
        severity: from.severity,
        attempts: next.attempts,
    };
    tx.conn
        .prepare_cached(
            "UPDATE delivery SET state = ?2, due_at = coalesce(?3, due_at), attempts = ?4, doubtful = ?5,
             settled_at = ?6, reason = ?7, crc = ?8 WHERE id = ?1",
        )?
        .execute(params![
            id.0,
            next.state.as_str(),
            next.due_at.map(Timestamp::as_micros),
            next.attempts,
            next.doubtful,
            settled_at,
            next.reason.map(|text| clip(text, super::WORDS_MAX)),
            crc.value()
        ])?;
    if let Subject::Ticket(ticket) = next.subject
        && next.subject != from.subject
    {
        // By itself: named in the statement above, it would rewrite its index each time.
        tx.conn
            .prepare_cached("UPDATE delivery SET ticket_id = ?2 WHERE id = ?1")?
            .execute([id.0, ticket])?;
    }
    let scope = destination_scope(&from.destination);
    tx.count(&scope, counter(from.state), -1);
    tx.count(&scope, counter(next.state), 1);
    Ok(())
}

/// What is still to be sent is worse than it was. The checksum of a row that is not what was written stays wrong.
pub(super) fn set_severity(
    tx: &Tx<'_>,
    id: DeliveryId,
    from: &Current,
    (severity, turn): (i64, i64),
) -> Result<(), StoreError> {
    let crc = |severity| {
        DeliveryCrc {
            kind: &from.kind,
            subject: from.subject,
            seq: from.seq,
            destination: from.destination_id,
            state: from.state,
            severity,
            attempts: from.attempts,
        }
        .value()
    };
    tx.conn
        .prepare_cached("UPDATE delivery SET severity = ?2, turn = ?3, crc = ?4 WHERE id = ?1 AND crc = ?5")?
        .execute([id.0, severity, turn, crc(severity), crc(from.severity)])?;
    Ok(())
}

/// A ticket that is there.
struct There<'a> {
    state: TicketState,
    sys_id: &'a SysId,
    number: &'a str,
    remote: &'a str,
    at: Timestamp,
}

fn ticket_is(tx: &Tx<'_>, now: &Current, there: &There<'_>) -> Result<(), StoreError> {
    let Subject::Ticket(ticket) = now.subject else { return Ok(()) };
    let crc = ticket_crc(now.alert_id, now.route_id, now.generation, there.state, there.sys_id.as_str());
    tx.conn
        .prepare_cached(
            "UPDATE ticket SET state = ?2, sys_id = ?3, number = ?4, remote_state = ?5, opened_at = ?6, crc = ?7
             WHERE id = ?1",
        )?
        .execute(params![
            ticket,
            there.state.as_str(),
            there.sys_id.as_str(),
            clip(there.number, 100),
            clip(there.remote, 100),
            there.at.as_micros(),
            crc
        ])?;
    Ok(())
}

/// Where the record of a delivery is, if it has one.
pub(super) fn record_is(tx: &Tx<'_>, now: &Current, state: TicketState) -> Result<(), StoreError> {
    if let Subject::Record(id) = now.subject {
        let crc = record_crc(now.alert_id, now.route_id, &now.key, state);
        tx.conn.prepare_cached("UPDATE record SET state = ?2, crc = ?3 WHERE id = ?1")?.execute(params![
            id,
            state.as_str(),
            crc
        ])?;
    }
    Ok(())
}

impl Operation for Settle {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        history::note(tx, self.now)?;
        // Answers come back in any order; rows that lie together are written together.
        let mut all: Vec<&Settled> = self.all.iter().collect();
        all.sort_by_key(|one| one.id);
        for one in all {
            settle(tx, one, &self.lives, self.now)?;
        }
        self.change.map_or(Ok(()), |change| change.run(tx))
    }
}

pub(super) fn settle(
    tx: &mut Tx<'_>,
    one: &Settled,
    lives: &Lives,
    now: Timestamp,
) -> Result<(), StoreError> {
    let Some(was) = current(tx, one.id)? else { return Ok(()) };
    if was.state != DeliveryState::Claimed {
        return Err(StoreError::Refused(format!(
            "delivery {} is {}, not claimed",
            one.id,
            was.state.as_str()
        )));
    }
    let mut next = Next {
        subject: was.subject,
        state: DeliveryState::Pending,
        due_at: None,
        attempts: was.attempts + 1,
        doubtful: false,
        reason: None,
        now,
    };
    outcome(tx, one, &was, &mut next, lives)?;
    move_delivery(tx, one.id, &was, &next)
}

/// What came of it, in the rows of its subject and in `next`.
fn outcome<'a>(
    tx: &mut Tx<'_>,
    one: &'a Settled,
    was: &Current,
    next: &mut Next<'a>,
    lives: &Lives,
) -> Result<(), StoreError> {
    let now = next.now;
    match &one.outcome {
        Outcome::Delivered { created, sys_id, number, state, mod_count, adopted, looks_for } => {
            let there = There { state: TicketState::Open, sys_id, number, remote: state, at: now };
            ticket_is(tx, was, &there)?;
            life::opened(tx, was, *mod_count)?;
            if let Some(words) = adopted {
                life::adopted(tx, was, words)?;
            }
            if let Subject::Ticket(ticket) = was.subject {
                links::wait(tx, ticket, looks_for)?;
            }
            // Its number stands in the ticket's row.
            done(tx, one, was, next, made(*created), "")
        }
        Outcome::Later { created, seen, noted, renews, not_closed } => {
            life::later(tx, was, seen, (*created, *noted, *renews), lives, now.as_micros())?;
            if let Some(words) = not_closed {
                // The words that stay with the delivery are the mark: see `life::NOT_CLOSED`.
                next.reason = Some(words);
                life::note_instead(tx, was, now.as_micros())?;
                return done(tx, one, was, next, ["moot", "not closed"], words);
            }
            done(tx, one, was, next, changed(*created), seen.state.as_str())
        }
        Outcome::Added { created } => done(tx, one, was, next, changed(*created), ""),
        Outcome::Told { created } => {
            record_is(tx, was, TicketState::Open)?;
            let words =
                if matches!(was.subject, Subject::Device(_)) { told(*created) } else { made(*created) };
            done(tx, one, was, next, words, "")
        }
        Outcome::ClosedThere { sys_id, number, state } => {
            let there = There { state: TicketState::Closed, sys_id, number, remote: state, at: now };
            next.subject = next_generation(tx, was, &there)?;
            next.due_at = Some(now);
            attempt(tx, one, next.attempts, "found closed", number)
        }
        Outcome::Retry { due_at, word, doubtful, message } => {
            next.due_at = Some(*due_at);
            next.doubtful = *doubtful;
            next.reason = Some(message);
            tx.count(&destination_scope(&was.destination), "retries", 1);
            attempt(tx, one, next.attempts, word, message)
        }
        Outcome::Requeue { doubtful, message } => {
            next.doubtful = *doubtful;
            if message.is_empty() {
                next.attempts = was.attempts;
                return Ok(());
            }
            next.reason = Some(message);
            attempt(tx, one, next.attempts, "hold", message)
        }
        Outcome::Dead { message } => {
            next.state = DeliveryState::Dead;
            next.reason = Some(message);
            attempt(tx, one, next.attempts, "reject", message)
        }
    }
}

/// Counter and word of a record that was to be there.
fn made(created: bool) -> [&'static str; 2] {
    if created { ["created", "created"] } else { ["found", "found"] }
}

/// The same of a device: it is no ticket, and counted by itself.
fn told(created: bool) -> [&'static str; 2] {
    if created { ["devices created", "created"] } else { ["devices found", "found"] }
}

/// The same of a change.
fn changed(created: bool) -> [&'static str; 2] {
    if created { ["updated", "done"] } else { ["moot", "nothing to do"] }
}

/// It is there, or done: the delivery is at its end.
fn done(
    tx: &mut Tx<'_>,
    one: &Settled,
    was: &Current,
    next: &mut Next<'_>,
    [counter, word]: [&'static str; 2],
    message: &str,
) -> Result<(), StoreError> {
    next.state = DeliveryState::Delivered;
    tx.count(&destination_scope(&was.destination), counter, 1);
    attempt(tx, one, next.attempts, word, message)
}

/// The ticket is closed there: the delivery is of the next generation from now on.
fn next_generation(tx: &mut Tx<'_>, was: &Current, there: &There<'_>) -> Result<Subject, StoreError> {
    ticket_is(tx, was, there)?;
    let new = NewTicket {
        alert_id: was.alert_id,
        route_id: was.route_id,
        generation: was.generation.next(),
        rule: &was.rule,
    };
    let next = insert_ticket(tx, &new)?;
    if let Subject::Ticket(ticket) = was.subject {
        life::bring_evidence(tx, ticket, next, there.at)?;
    }
    Ok(Subject::Ticket(next))
}

fn attempt(tx: &Tx<'_>, one: &Settled, n: i64, outcome: &str, message: &str) -> Result<(), StoreError> {
    let attempt = Attempt {
        delivery: one.id.0,
        n,
        started_at: one.started_at,
        duration_ms: one.duration_ms,
        outcome,
        status: one.status,
        message,
    };
    attempt::insert(tx, &attempt)
}
