//! The later life of tickets: what a sighting, an ending or a look at the other side makes of them.
//!
//! Nothing here is timed: a sighting leaves a mark in the ticket's row (`seen_at`, `note_due_at`), and the next sync
//! compares what is with what should be. So a restart, an interval and an order run the same way, and a repeat costs a
//! ticket at most one more row a minute.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};

use super::row::{KEPT, NewDelivery, NewTicket, Subject, insert_delivery, insert_ticket, ticket_crc};
use super::settle::{self, Current, Next, current, move_delivery};
use super::{storm, told, turn};
use crate::model::life::{Attach, Life, Lives, OnCleared, OnSeenAgain};
use crate::model::text::clip;
use crate::model::{
    Alert, DeliveryId, DeliveryKind, DeliveryState, Generation, Severity, SysId, TableName, TicketState,
    Timestamp, evidence,
};
use crate::store::StoreError;
use crate::store::session::Tx;
use crate::store::turns::Told;

/// The table of files: evidence waits in a row of its own.
pub(in crate::store) const ATTACHMENTS: &str = "sys_attachment";
/// How exactly it is kept when a finding was seen: a repeat within it writes nothing.
pub(super) const SEEN_WITHIN: Duration = Duration::from_mins(1);
/// Longest close notes that are kept, in bytes.
const CLOSE_NOTES_MAX: usize = 1_000;
/// Longest display name that is kept, in bytes.
const NAME_MAX: usize = 100;

/// What is known of a ticket that may be the newest of an alert on a route.
pub(super) struct Newest {
    pub(super) id: i64,
    pub(super) generation: u32,
    pub(super) state: Option<TicketState>,
    pub(super) sys_id: Option<String>,
    /// Of a folded one: the ticket that stands for it.
    pub(super) parent: Option<i64>,
    noted_at: Option<i64>,
    note_due_at: Option<i64>,
    seen_at: Option<i64>,
    worst: i64,
}

impl Newest {
    /// Whether nothing so bad was told of it yet.
    pub(super) fn is_better_than(&self, severity: i64) -> bool {
        severity > self.worst
    }
}

/// The severity with which a ticket `t` was opened.
pub(in crate::store) const OPENED_AS: &str =
    "coalesce((SELECT o.severity FROM delivery o WHERE o.ticket_id = t.id AND o.seq = 1),
     (SELECT o.severity FROM alert o WHERE o.id = t.alert_id))";

fn find(tx: &Tx<'_>, which: &str, with: impl rusqlite::Params) -> Result<Option<Newest>, StoreError> {
    let sql = format!(
        "SELECT t.id, t.generation, t.state, t.sys_id, coalesce(t.noted_at, t.opened_at), t.note_due_at, t.seen_at,
                coalesce(t.worst, {OPENED_AS}), t.parent_id FROM ticket t WHERE {which}"
    );
    let read = |r: &rusqlite::Row<'_>| {
        Ok(Newest {
            id: r.get(0)?,
            generation: r.get(1)?,
            state: TicketState::parse(&r.get::<_, String>(2)?),
            sys_id: r.get(3)?,
            noted_at: r.get(4)?,
            note_due_at: r.get(5)?,
            seen_at: r.get(6)?,
            worst: r.get(7)?,
            parent: r.get(8)?,
        })
    };
    Ok(tx.conn.prepare_cached(&sql)?.query_row(with, read).optional()?)
}

pub(super) fn newest(tx: &Tx<'_>, alert_id: i64, route_id: i64) -> Result<Option<Newest>, StoreError> {
    let which = "t.alert_id = ?1 AND t.route_id = ?2 ORDER BY t.generation DESC LIMIT 1";
    find(tx, which, [alert_id, route_id])
}

/// The ticket of this row.
pub(super) fn ticket(tx: &Tx<'_>, id: i64) -> Result<Option<Newest>, StoreError> {
    find(tx, "t.id = ?1", [id])
}

/// The finding of an open ticket was seen again: the next sync looks whether it is still open, and notes it when it is
/// time for that. One that is still to be made is made as what it is now; of one that is on its way a note tells.
pub(super) fn seen_again(
    tx: &mut Tx<'_>,
    ticket: &Newest,
    life: Life,
    severity: i64,
    now: i64,
) -> Result<(), StoreError> {
    let is_worse = ticket.is_better_than(severity);
    if is_worse && ticket.state == Some(TicketState::Opening) && worsens(tx, ticket.id, severity)? {
        return Ok(());
    }
    let stale =
        ticket.seen_at.is_none_or(|at| now.saturating_sub(at) >= SEEN_WITHIN.as_micros() as i64 || at > now);
    let notes = !life.update_interval.is_zero() && ticket.note_due_at.is_none();
    if !stale && !notes && !is_worse {
        return Ok(());
    }
    let due = Timestamp::from_micros(ticket.noted_at.unwrap_or(now)).after(life.update_interval).as_micros();
    // That it got worse is told at once, unless notes are not wanted at all.
    let at_once = is_worse && !life.update_interval.is_zero();
    tx.conn
        .prepare_cached(
            "UPDATE ticket SET seen_at = max(?2, coalesce(seen_at, 0)),
             note_due_at = CASE WHEN ?5 THEN ?2 ELSE coalesce(note_due_at, ?3) END,
             worst = coalesce(?4, worst) WHERE id = ?1",
        )?
        .execute(params![ticket.id, now, notes.then_some(due), is_worse.then_some(severity), at_once])?;
    Ok(())
}

/// Gives the delivery that will make a ticket a higher severity, and the turn that comes with it. Whether there is one: what
/// has been sent before, or may be just now, stays what it is.
fn worsens(tx: &mut Tx<'_>, ticket: i64, severity: i64) -> Result<bool, StoreError> {
    let waits = "SELECT id FROM delivery WHERE ticket_id = ?1 AND seq = 1 AND state IN ('pending', 'dead')
                   AND doubtful = 0 AND kind = 'open-ticket'";
    let first: Option<i64> = tx.conn.prepare_cached(waits)?.query_row([ticket], |r| r.get(0)).optional()?;
    first.map_or(Ok(false), |id| rise(tx, DeliveryId(id), ticket, severity))
}

/// The same of an event or a row of an alert on a route, if what it will say is better than this.
pub(super) fn record_worsens(
    tx: &mut Tx<'_>,
    (alert_id, route_id): (i64, i64),
    severity: i64,
) -> Result<bool, StoreError> {
    let waits = "SELECT d.id, c.id FROM record c JOIN delivery d ON d.record_id = c.id
                 WHERE c.alert_id = ?1 AND c.route_id = ?2 AND d.seq = 1 AND d.state IN ('pending', 'dead')
                   AND d.doubtful = 0 AND d.severity < ?3";
    let first: Option<(i64, i64)> = tx
        .conn
        .prepare_cached(waits)?
        .query_row([alert_id, route_id, severity], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    first.map_or(Ok(false), |(id, record)| rise(tx, DeliveryId(id), record, severity))
}

fn rise(tx: &mut Tx<'_>, id: DeliveryId, of: i64, severity: i64) -> Result<bool, StoreError> {
    let Some(was) = current(tx, id)? else { return Ok(false) };
    let turn = turn::next(tx, (was.route_id, severity), &was.rule, Told::Later(of))?;
    settle::set_severity(tx, id, &was, (severity, turn))?;
    Ok(true)
}

/// Puts one more delivery of a ticket into the outbox, behind what it waits for already.
pub(super) fn add(
    tx: &mut Tx<'_>,
    ticket: i64,
    kind: DeliveryKind,
    severity: i64,
    now: i64,
) -> Result<(), StoreError> {
    let (seq, mut route_id, destination_id, destination, rule): (i64, i64, i64, String, String) = tx
        .conn
        .prepare_cached(
            "SELECT coalesce((SELECT max(seq) FROM delivery WHERE ticket_id = t.id), 0) + 1, t.route_id,
                    r.destination_id, k.name, t.rule
             FROM ticket t JOIN route r ON r.id = t.route_id JOIN destination k ON k.id = r.destination_id
             WHERE t.id = ?1",
        )?
        .query_row([ticket], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    if kind.attaches() {
        // A row of its own: where files are refused, tickets are not.
        route_id = tx.route_id(&destination, ATTACHMENTS)?.1;
    }
    let turn = turn::next(tx, (route_id, severity), &rule, Told::Later(ticket))?;
    let opens = NewDelivery::opens(ticket, now);
    let new = NewDelivery { kind, seq, destination_id, route_id, severity, turn, ..opens };
    insert_delivery(tx, &new, &destination)
}

/// The kinds of delivery that attach something.
const EVIDENCE: [DeliveryKind; 2] = [DeliveryKind::AttachRaw, DeliveryKind::AttachPcap];

/// Puts into the outbox what is to be attached to a ticket. Evidence is less urgent than any ticket.
pub(super) fn attach(
    tx: &mut Tx<'_>,
    ticket: i64,
    alert: &Alert,
    wanted: Attach,
    now: i64,
) -> Result<(), StoreError> {
    let least = Severity::Warning as i64;
    if wanted.raw && evidence::record(alert).is_some() {
        add(tx, ticket, DeliveryKind::AttachRaw, least, now)?;
    }
    if wanted.pcap && evidence::capture(alert).is_some() {
        add(tx, ticket, DeliveryKind::AttachPcap, least, now)?;
    }
    Ok(())
}

/// A ticket was found closed, and the next takes its place: what was to be attached to it goes to that one.
pub(super) fn bring_evidence(tx: &mut Tx<'_>, from: i64, to: i64, now: Timestamp) -> Result<(), StoreError> {
    for kind in EVIDENCE {
        for id in waiting(tx, from, kind)? {
            let Some(was) = current(tx, id)? else { continue };
            let next = Next {
                subject: Subject::Ticket(to),
                state: DeliveryState::Pending,
                due_at: None,
                attempts: was.attempts,
                doubtful: false,
                reason: None,
                now,
            };
            move_delivery(tx, id, &was, &next)?;
        }
    }
    Ok(())
}

/// Deliveries of a ticket of this kind that were not begun.
fn waiting(tx: &Tx<'_>, ticket: i64, kind: DeliveryKind) -> Result<Vec<DeliveryId>, StoreError> {
    let mut select = tx
        .conn
        .prepare_cached("SELECT id FROM delivery WHERE ticket_id = ?1 AND kind = ?2 AND state = 'pending'")?;
    let ids = select.query_map(params![ticket, kind.as_str()], |r| r.get(0).map(DeliveryId))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// The tickets that tell of a finding: its own, and those that stand for it.
const TELL: &str = "(SELECT id FROM ticket WHERE alert_id = ?1
   UNION SELECT parent_id FROM ticket WHERE alert_id = ?1 AND parent_id IS NOT NULL)";

/// The source says that a finding has ended: the live tickets that tell of it are told as their actions want it; one that
/// stands for others too only when all of them have ended.
pub(super) fn cleared(tx: &mut Tx<'_>, alert_id: i64, lives: &Lives, now: i64) -> Result<u64, StoreError> {
    let live: Vec<(i64, String, String, String, i64)> = tx
        .conn
        .prepare_cached(&format!(
            "SELECT t.id, t.rule, k.name, r.table_name, a.severity
             FROM ticket t JOIN route r ON r.id = t.route_id JOIN destination k ON k.id = r.destination_id
             JOIN alert a ON a.id = t.alert_id WHERE t.id IN {TELL} AND t.state IN ('opening', 'open')"
        ))?
        .query_map([alert_id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?)))?
        .collect::<Result<_, _>>()?;
    let mut added = 0;
    for (ticket, rule, destination, table, severity) in live {
        let life = lives.of(&rule, &destination, &table);
        if storm::stands(tx, ticket)? {
            storm::note_later(tx, ticket, life, now)?;
            continue;
        }
        let kind = match life.on_cleared {
            // Once it was refused, it would be each time.
            OnCleared::Resolve if not_closed(tx, ticket)? => DeliveryKind::NoteTicket,
            OnCleared::Resolve => DeliveryKind::ResolveTicket,
            OnCleared::Note => DeliveryKind::NoteTicket,
            OnCleared::None => continue,
        };
        if waiting(tx, ticket, kind)?.is_empty() {
            add(tx, ticket, kind, severity, now)?;
            added += 1;
        }
    }
    Ok(added + told::turned(tx, alert_id, lives, now)?)
}

/// Why a ticket `t` could not be closed: the words with which its resolve was answered and settled. One that was done has
/// none.
pub(in crate::store) const NOT_CLOSED: &str = "(SELECT n.reason FROM delivery n WHERE n.ticket_id = t.id
       AND n.kind = 'resolve-ticket' AND n.state = 'delivered' AND trim(n.reason) <> '' ORDER BY n.seq DESC LIMIT 1)";

/// Whether the other side did not close this ticket when it was asked to.
pub(super) fn not_closed(tx: &Tx<'_>, ticket: i64) -> Result<bool, StoreError> {
    let sql = format!("SELECT {NOT_CLOSED} IS NOT NULL FROM ticket t WHERE t.id = ?1");
    Ok(tx.conn.prepare_cached(&sql)?.query_row([ticket], |r| r.get(0)).optional()?.unwrap_or_default())
}

/// A ticket that could not be closed gets a note instead. In the transaction that settles the refusal: a power cut leaves
/// both or neither, and then the resolve is asked for again.
pub(super) fn note_instead(tx: &mut Tx<'_>, was: &Current, now: i64) -> Result<(), StoreError> {
    let Subject::Ticket(ticket) = was.subject else { return Ok(()) };
    if waiting(tx, ticket, DeliveryKind::NoteTicket)?.is_empty() {
        add(tx, ticket, DeliveryKind::NoteTicket, was.severity, now)?;
    }
    Ok(())
}

/// A finding that had ended is there again: what was still to be resolved for it is not, and nobody needs to look at what
/// was refused. One that may have been done is looked up all the same, and so is one that is being sent
/// (`relay/kind/later.rs`); after a power cut it is pending and doubtful, and looked up as well.
pub(super) fn raised_again(
    tx: &mut Tx<'_>,
    alert_id: i64,
    lives: &Lives,
    now: i64,
) -> Result<u64, StoreError> {
    let tickets: Vec<i64> = tx
        .conn
        .prepare_cached(&format!(
            "SELECT id FROM ticket WHERE id IN {TELL} AND state IN ('opening', 'open')"
        ))?
        .query_map([alert_id], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    for ticket in tickets {
        let resolves: Vec<DeliveryId> = tx
            .conn
            .prepare_cached(
                "SELECT id FROM delivery WHERE ticket_id = ?1 AND kind = ?2
                   AND (state = 'pending' AND doubtful = 0 OR state = 'dead')",
            )?
            .query_map(params![ticket, DeliveryKind::ResolveTicket.as_str()], |r| r.get(0).map(DeliveryId))?
            .collect::<Result<_, _>>()?;
        for id in resolves {
            let Some(was) = current(tx, id)? else { continue };
            let next = Next {
                subject: was.subject,
                state: DeliveryState::Withdrawn,
                due_at: None,
                attempts: was.attempts,
                doubtful: false,
                reason: Some("it was seen again"),
                now: Timestamp::from_micros(now),
            };
            move_delivery(tx, id, &was, &next)?;
        }
    }
    told::turned(tx, alert_id, lives, now)
}

/// Whether a ticket that was closed is opened again instead of a new one being made; if so, that is under way then.
pub(super) fn reopens(
    tx: &mut Tx<'_>,
    ticket: &Newest,
    rule: &str,
    life: Life,
    severity: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let closed = matches!(ticket.state, Some(TicketState::Closed | TicketState::Resolved));
    if life.on_seen_again != OnSeenAgain::Reopen || !closed {
        return Ok(false);
    }
    let Some(sys_id) = ticket.sys_id.as_deref() else { return Ok(false) };
    set_state(tx, ticket.id, TicketState::Opening, sys_id)?;
    tx.conn.prepare_cached("UPDATE ticket SET rule = ?2 WHERE id = ?1")?.execute(params![ticket.id, rule])?;
    add(tx, ticket.id, DeliveryKind::ReopenTicket, severity, now)?;
    Ok(true)
}

/// Moves a ticket to another state, and nothing else of it.
pub(super) fn set_state(
    tx: &Tx<'_>,
    ticket: i64,
    state: TicketState,
    sys_id: &str,
) -> Result<(), StoreError> {
    let (alert, route, generation): (i64, i64, u32) = tx
        .conn
        .prepare_cached("SELECT alert_id, route_id, generation FROM ticket WHERE id = ?1")?
        .query_row([ticket], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let crc = ticket_crc(alert, route, Generation(generation), state, sys_id);
    tx.conn.prepare_cached("UPDATE ticket SET state = ?2, crc = ?3 WHERE id = ?1")?.execute(params![
        ticket,
        state.as_str(),
        crc
    ])?;
    Ok(())
}

/// A finding whose ticket was closed there was seen again: that one is opened again, or the next is made.
pub(super) fn again(tx: &mut Tx<'_>, ticket: i64, lives: &Lives, now: i64) -> Result<(), StoreError> {
    let (alert_id, route_id, rule, severity, destination, table): (i64, i64, String, i64, String, String) =
        tx.conn
            .prepare_cached(
                "SELECT t.alert_id, t.route_id, t.rule, a.severity, k.name, r.table_name
             FROM ticket t JOIN alert a ON a.id = t.alert_id JOIN route r ON r.id = t.route_id
             JOIN destination k ON k.id = r.destination_id WHERE t.id = ?1",
            )?
            .query_row([ticket], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?))
            })?;
    let Some(newest) = newest(tx, alert_id, route_id)?.filter(|newest| newest.id == ticket) else {
        return Ok(());
    };
    let severity = severity.max(newest.worst);
    if !reopens(tx, &newest, &rule, lives.of(&rule, &destination, &table), severity, now)? {
        renew(tx, ticket, now)?;
    }
    Ok(())
}

/// Puts the next ticket of the same finding into the outbox, unless there is a live one already.
pub(super) fn renew(tx: &mut Tx<'_>, ticket: i64, now: i64) -> Result<bool, StoreError> {
    let (alert_id, route_id, rule, severity, destination_id, destination): (
        i64,
        i64,
        String,
        i64,
        i64,
        String,
    ) = tx
        .conn
        .prepare_cached(
            "SELECT t.alert_id, t.route_id, t.rule, a.severity, r.destination_id, k.name
                 FROM ticket t JOIN alert a ON a.id = t.alert_id JOIN route r ON r.id = t.route_id
                 JOIN destination k ON k.id = r.destination_id WHERE t.id = ?1",
        )?
        .query_row([ticket], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)))?;
    if let Some(goes_on) = storm::goes_on(tx, ticket)? {
        // It stands for findings that were seen again: the next one does, too.
        let Some(newest) = newest(tx, goes_on.alert, route_id)? else { return Ok(false) };
        let generation = Generation(newest.generation).next();
        let made =
            insert_ticket(tx, &NewTicket { alert_id: goes_on.alert, route_id, generation, rule: &rule })?;
        let severity = goes_on.severity;
        let turn = turn::next(tx, (route_id, severity), &rule, Told::Later(made))?;
        let new = NewDelivery { destination_id, route_id, severity, turn, ..NewDelivery::opens(made, now) };
        insert_delivery(tx, &new, &destination)?;
        storm::follows(tx, ticket, made)?;
        return Ok(true);
    }
    let Some(newest) = newest(tx, alert_id, route_id)? else { return Ok(false) };
    if newest.id != ticket {
        return Ok(false);
    }
    let severity = severity.max(newest.worst);
    let generation = Generation(newest.generation).next();
    let new = NewTicket { alert_id, route_id, generation, rule: &rule };
    let made = insert_ticket(tx, &new)?;
    let turn = turn::next(tx, (route_id, severity), &rule, Told::Later(ticket))?;
    let new = NewDelivery { destination_id, route_id, severity, turn, ..NewDelivery::opens(made, now) };
    insert_delivery(tx, &new, &destination)?;
    for kind in EVIDENCE {
        let had: bool = tx
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM delivery WHERE ticket_id = ?1 AND kind = ?2)")?
            .query_row(params![ticket, kind.as_str()], |r| r.get(0))?;
        if had {
            add(tx, made, kind, Severity::Warning as i64, now)?;
        }
    }
    Ok(true)
}

/// What the other side shows of a ticket, as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is there: open, resolved, closed or deleted.
    pub state: TicketState,
    /// The state's own words; empty: not known.
    pub remote_state: String,
    /// `sys_mod_count`, where it is shown.
    pub mod_count: Option<i64>,
    /// Display name of who works on it; `None`: not looked at.
    pub assigned_to: Option<String>,
    /// What was written when it was closed; `None`: not looked at.
    pub close_notes: Option<String>,
}

impl Seen {
    /// That it is no longer there.
    pub fn deleted() -> Self {
        Self {
            state: TicketState::Deleted,
            remote_state: String::new(),
            mod_count: None,
            assigned_to: None,
            close_notes: None,
        }
    }
}

/// Writes what the other side shows into the ticket's row. A newer ticket of the same finding stays the live one.
pub(super) fn take_home(tx: &Tx<'_>, ticket: i64, seen: &Seen) -> Result<(), StoreError> {
    let known: Option<(String, String, bool)> = tx
        .conn
        .prepare_cached(
            "SELECT t.state, coalesce(t.sys_id, ''), EXISTS (SELECT 1 FROM ticket n WHERE n.alert_id = t.alert_id
               AND n.route_id = t.route_id AND n.generation > t.generation AND n.state IN ('opening', 'open'))
             FROM ticket t WHERE t.id = ?1",
        )?
        .query_row([ticket], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    let Some((state, sys_id, replaced)) = known else { return Ok(()) };
    if sys_id.is_empty() {
        return Ok(());
    }
    if state != seen.state.as_str() && !(replaced && seen.state == TicketState::Open) {
        set_state(tx, ticket, seen.state, &sys_id)?;
    }
    tx.conn
        .prepare_cached(
            "UPDATE ticket SET remote_state = coalesce(nullif(?2, ''), remote_state), mod_count = coalesce(?3, mod_count),
             assigned_to = coalesce(?4, assigned_to), close_notes = coalesce(?5, close_notes) WHERE id = ?1",
        )?
        .execute(params![
            ticket,
            clip(&seen.remote_state, NAME_MAX),
            seen.mod_count,
            seen.assigned_to.as_deref().map(|name| clip(name, NAME_MAX)),
            seen.close_notes.as_deref().map(|notes| clip(notes, CLOSE_NOTES_MAX)),
        ])?;
    if seen.state != TicketState::Open {
        tx.conn
            .prepare_cached("UPDATE ticket SET note_due_at = NULL WHERE id = ?1 AND note_due_at IS NOT NULL")?
            .execute([ticket])?;
    }
    Ok(())
}

/// What a delivery of a later kind came to, in its ticket's row.
pub(super) fn later(
    tx: &mut Tx<'_>,
    was: &Current,
    seen: &Seen,
    (created, noted, renews): (bool, Option<u64>, bool),
    lives: &Lives,
    now: i64,
) -> Result<(), StoreError> {
    let Subject::Ticket(ticket) = was.subject else { return Ok(()) };
    take_home(tx, ticket, seen)?;
    if let Some(told) = noted {
        tx.conn
            .prepare_cached("UPDATE ticket SET noted_at = ?2, told = ?3 WHERE id = ?1")?
            .execute(params![ticket, now, told as i64])?;
    }
    // We resolved it, or may have, and it was seen again: what a person closed is judged when it is read back.
    let is_ours = match seen.state {
        TicketState::Open => false,
        TicketState::Resolved | TicketState::Closed => created || was.doubtful,
        _ => true,
    };
    if renews {
        renew(tx, ticket, now)?;
    } else if is_ours && was.is(DeliveryKind::ResolveTicket) && storm::stands(tx, ticket)? {
        again(tx, ticket, lives, now)?;
    }
    Ok(())
}

/// A ticket that was opened: from here on its notes count. Where `noted_at` is NULL, `opened_at` stands for it.
pub(super) fn opened(tx: &Tx<'_>, was: &Current, mod_count: Option<i64>) -> Result<(), StoreError> {
    let Subject::Ticket(ticket) = was.subject else { return Ok(()) };
    tx.conn
        .prepare_cached(
            "UPDATE ticket SET mod_count = ?2,
             told = (SELECT occurrences FROM alert WHERE id = ticket.alert_id) WHERE id = ?1",
        )?
        .execute(params![ticket, mod_count])?;
    Ok(())
}

/// Keeps what is strange about the record that a ticket became.
pub(super) fn adopted(tx: &Tx<'_>, was: &Current, words: &str) -> Result<(), StoreError> {
    let Subject::Ticket(ticket) = was.subject else { return Ok(()) };
    tx.conn
        .prepare_cached("UPDATE ticket SET adopted = ?2 WHERE id = ?1")?
        .execute(params![ticket, clip(words, super::WORDS_MAX)])?;
    Ok(())
}

/// A folded finding: told with its kind's parent.
pub(super) fn fold(
    tx: &mut Tx<'_>,
    new: &NewTicket<'_>,
    parent: i64,
    (severity, now): (i64, i64),
) -> Result<(), StoreError> {
    let state = TicketState::Folded;
    tx.conn
        .prepare_cached(
            "INSERT INTO ticket (alert_id, route_id, generation, state, rule, parent_id, crc, worst, seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            new.alert_id,
            new.route_id,
            new.generation.0,
            state.as_str(),
            new.rule,
            parent,
            ticket_crc(new.alert_id, new.route_id, new.generation, state, ""),
            severity,
            now
        ])?;
    tx.count(KEPT, "tickets", 1);
    tx.count(KEPT, "folded", 1);
    Ok(())
}

/// What is to be looked at there: a ticket whose finding was seen again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTicket {
    /// Its row.
    pub ticket: i64,
    /// Its table.
    pub table: TableName,
    /// The record.
    pub sys_id: SysId,
    /// Its finding, and which ticket of it this is: what its key is derived from.
    pub fingerprint: [u8; 32],
    /// See there.
    pub generation: Generation,
    /// When it was seen, by this machine's clock.
    pub seen_at: Timestamp,
}
