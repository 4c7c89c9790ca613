//! What the read-back asks of the store: which tickets were seen again, which notes are due, and what the other side
//! shows of them.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Row, params};

use super::health;
use super::life::{self, Seen, SeenTicket};
use super::row::{KeptAlert, ticket_crc};
use super::storm;
use crate::model::life::Lives;
use crate::model::{
    DeliveryKind, DestinationName, Fingerprint, Generation, HealthIssue, SysId, TableName, TicketState,
    Timestamp,
};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Tickets in one step.
const PAGE: i64 = 400;

/// A table of a destination whose tickets are read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its row.
    pub route: i64,
    /// The table.
    pub table: TableName,
    /// How far it was read, by the server's clock; at first, when its oldest ticket was opened.
    pub until: Timestamp,
    /// The last poll had no more requests left: of exactly that time it was read up to this record.
    pub behind: Option<SysId>,
    /// When there was no more to read, by this machine's.
    pub read_at: Option<Timestamp>,
    /// Up to which ticket it was looked whether they are still there; `None`: all of them were.
    pub swept: Option<i64>,
    /// Its records do not keep our `correlation_id`.
    pub is_unmarked: bool,
}

/// A ticket that is there as far as we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its row: the key of the next page.
    pub ticket: i64,
    /// The record.
    pub sys_id: SysId,
    /// `sys_mod_count` after our last look; [`MISSED`]: that did not find it.
    pub mod_count: Option<i64>,
    /// What it is to us.
    pub state: TicketState,
}

/// In the place of a ticket's `sys_mod_count`: it was not found by its id once. A record that is only hidden for a while is
/// not deleted, so the next look decides; whatever that finds has another count.
pub const MISSED: i64 = -1;

/// What a look at one ticket came to.
#[derive(Clone, Debug)]
pub struct LookedAt {
    /// Its row.
    pub ticket: i64,
    /// What it is there.
    pub seen: Seen,
    /// Its finding was seen after it was closed there: it gets a new ticket.
    pub renews: bool,
    /// This sighting is dealt with; a later one is not.
    pub until: Option<Timestamp>,
}

struct Watches(DestinationName);
struct SeenAgain(DestinationName, i64, Timestamp);
struct Page(i64, i64);
struct TakeHome(Vec<LookedAt>, Arc<Lives>, Timestamp);
struct ReadUntil(i64, Timestamp, Option<SysId>, Timestamp);
struct Unswept(i64, i64, Timestamp, usize);
struct SweptUntil(i64, Option<i64>);
struct LookedUntil(DestinationName);
struct LookUntil(DestinationName, i64);
struct DueNotes(DestinationName, Timestamp);

impl Store {
    /// The tables of a destination that have tickets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn watches(&self, destination: &DestinationName) -> Result<Vec<Watch>, StoreError> {
        self.call(Watches(destination.clone())).await
    }

    /// Tickets that were open when their finding was seen again, by row, after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn seen_again(
        &self,
        destination: &DestinationName,
        after: i64,
    ) -> Result<Vec<SeenTicket>, StoreError> {
        let now = self.shared.clock.now();
        self.call(SeenAgain(destination.clone(), after, now)).await
    }

    /// Tickets of a table that are there as far as we know, by row, after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn known_tickets(&self, route: i64, after: i64) -> Result<Vec<Known>, StoreError> {
        self.call(Page(route, after)).await
    }

    /// Keeps what the other side shows, and does what that means for findings that were seen again.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is kept then.
    pub async fn take_home(&self, all: Vec<LookedAt>, lives: Arc<Lives>) -> Result<(), StoreError> {
        if all.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        self.call(TakeHome(all, lives, now)).await
    }

    /// Remembers how far a table was read back, by the server's clock; up to which record of that time, where there is more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read_until(
        &self,
        route: i64,
        until: Timestamp,
        behind: Option<SysId>,
    ) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(ReadUntil(route, until, behind, now)).await
    }

    /// Live tickets of a table by row, after `after`, opened before then, so many at most. Those that were seen again get a
    /// look of their own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unswept(
        &self,
        route: i64,
        after: i64,
        before: Timestamp,
        most: usize,
    ) -> Result<Vec<Known>, StoreError> {
        self.call(Unswept(route, after, before, most)).await
    }

    /// Remembers up to which ticket it was looked whether they are still there; `None`: all of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn swept_until(&self, route: i64, ticket: Option<i64>) -> Result<(), StoreError> {
        self.call(SweptUntil(route, ticket)).await
    }

    /// Up to which ticket those that were seen again have been looked at; 0: all of them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn looked_until(&self, destination: &DestinationName) -> Result<i64, StoreError> {
        self.call(LookedUntil(destination.clone())).await
    }

    /// Remembers that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look_until(&self, destination: &DestinationName, ticket: i64) -> Result<(), StoreError> {
        self.call(LookUntil(destination.clone(), ticket)).await
    }

    /// Puts the notes that are due into the outbox. Gives their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due_notes(&self, destination: &DestinationName, now: Timestamp) -> Result<u64, StoreError> {
        self.call(DueNotes(destination.clone(), now)).await
    }
}

impl Operation for Watches {
    type Output = Vec<Watch>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Watch>, StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        let mut select = tx.conn.prepare_cached(
            "SELECT r.id, r.table_name, coalesce(r.read_until,
                    (SELECT min(opened_at) FROM ticket t WHERE t.route_id = r.id AND t.opened_at > 0)), r.read_at, r.read_behind,
                    r.swept, coalesce(r.keeps_correlation_id, 1) = 0
             FROM route r WHERE r.destination_id = ?1",
        )?;
        let mut rows = select.query([id])?;
        let mut all = Vec::new();
        while let Some(r) = rows.next()? {
            let (Some(until), Ok(table)) =
                (r.get::<_, Option<i64>>(2)?, TableName::new(&r.get::<_, String>(1)?))
            else {
                continue;
            };
            let read_at = r.get::<_, Option<i64>>(3)?.map(Timestamp::from_micros);
            // One that was damaged costs a poll that begins somewhat earlier.
            let behind = r.get::<_, Option<String>>(4)?.and_then(|id| SysId::new(&id).ok());
            all.push(Watch {
                route: r.get(0)?,
                table,
                until: Timestamp::from_micros(until),
                behind,
                read_at,
                swept: r.get(5)?,
                is_unmarked: r.get(6)?,
            });
        }
        Ok(all)
    }
}

impl Operation for SeenAgain {
    type Output = Vec<SeenTicket>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<SeenTicket>, StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        let mut select = tx.conn.prepare_cached(&format!(
            "SELECT t.id, r.table_name, t.sys_id, t.number, t.generation, t.seen_at, t.alert_id, t.route_id, t.state, t.crc, {}
             FROM ticket t INDEXED BY ticket_seen JOIN route r ON r.id = t.route_id JOIN alert a ON a.id = t.alert_id
             WHERE t.seen_at IS NOT NULL AND t.route_id IN (SELECT id FROM route WHERE destination_id = ?1)
               AND t.id > ?2 AND t.state IN ('open', 'resolved', 'closed') ORDER BY t.id LIMIT ?3",
            KeptAlert::COLUMNS
        ))?;
        let (mut all, mut damaged) = (Vec::new(), Vec::new());
        let mut rows = select.query([id, self.1, PAGE])?;
        while let Some(r) = rows.next()? {
            match seen_ticket(r) {
                Some(ticket) => all.push(ticket),
                None => damaged.push((r.get::<_, i64>(0)?, damage(&self.0, r))),
            }
        }
        for (ticket, issue) in damaged {
            health::keep(tx.conn, &issue, self.2)?;
            // Told once a sighting, and not at each sync.
            tx.conn.prepare_cached("UPDATE ticket SET seen_at = NULL WHERE id = ?1")?.execute([ticket])?;
        }
        Ok(all)
    }
}

/// The row as it was written. What was changed on the disk since names another record, which would be taken for deleted.
fn seen_ticket(r: &Row<'_>) -> Option<SeenTicket> {
    let finding = KeptAlert::read(r, 10).ok()?;
    let (sys_id, generation): (String, _) = (r.get(2).ok()?, Generation(r.get(4).ok()?));
    let state = TicketState::parse(&r.get::<_, String>(8).ok()?)?;
    let sum = ticket_crc(r.get(6).ok()?, r.get(7).ok()?, generation, state, &sys_id);
    let sound = Some(sum) == r.get(9).ok() && finding.is_sound();
    sound.then_some(SeenTicket {
        ticket: r.get(0).ok()?,
        table: TableName::new(&r.get::<_, String>(1).ok()?).ok()?,
        sys_id: SysId::new(&sys_id).ok()?,
        fingerprint: finding.row.fingerprint,
        generation,
        seen_at: Timestamp::from_micros(r.get(5).ok()?),
    })
}

fn damage(destination: &DestinationName, r: &Row<'_>) -> HealthIssue {
    let text = |at| r.get::<_, String>(at).unwrap_or_default();
    let (table, number) = (text(1), text(3));
    HealthIssue::new(
        "ticket-damaged",
        format!(
            "what is kept here of ticket {number} of {destination}, table {table}, is not what was written: it is not read \
             back, and its finding gets no other ticket"
        ),
        "look after that record by hand; when it happens again, the disk is failing",
    )
    .about(format!("{destination}:{table}:{number}"))
}

impl SeenTicket {
    /// Its finding.
    pub fn finding(&self) -> Fingerprint {
        Fingerprint::from_bytes(self.fingerprint)
    }
}

impl Operation for Page {
    type Output = Vec<Known>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Known>, StoreError> {
        let mut select = tx.conn.prepare_cached(
            "SELECT id, sys_id, mod_count, alert_id, generation, state, crc FROM ticket
             WHERE id > ?2 AND route_id = ?1 AND state IN ('open', 'resolved', 'closed') ORDER BY id LIMIT ?3",
        )?;
        let mut rows = select.query([self.0, self.1, 10 * PAGE])?;
        let mut all = Vec::new();
        while let Some(r) = rows.next()? {
            all.extend(known(self.0, r));
        }
        Ok(all)
    }
}

impl Operation for Unswept {
    type Output = Vec<Known>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Known>, StoreError> {
        let mut select = tx.conn.prepare_cached(
            "SELECT id, sys_id, mod_count, alert_id, generation, state, crc FROM ticket
             WHERE id > ?2 AND route_id = ?1 AND state IN ('open', 'resolved') AND seen_at IS NULL AND opened_at < ?3
             ORDER BY id",
        )?;
        let mut rows = select.query(params![self.0, self.1, self.2.as_micros()])?;
        let mut all = Vec::new();
        while all.len() < self.3
            && let Some(r) = rows.next()?
        {
            all.extend(known(self.0, r));
        }
        Ok(all)
    }
}

impl Operation for SweptUntil {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.conn
            .prepare_cached("UPDATE route SET swept = ?2 WHERE id = ?1")?
            .execute(params![self.0, self.1])?;
        Ok(())
    }
}

/// The row as it was written; one that is not is told of when its finding is seen again.
fn known(route: i64, r: &Row<'_>) -> Option<Known> {
    let sys_id: String = r.get(1).ok()?;
    let state = TicketState::parse(&r.get::<_, String>(5).ok()?)?;
    let sum = ticket_crc(r.get(3).ok()?, route, Generation(r.get(4).ok()?), state, &sys_id);
    (Some(sum) == r.get(6).ok()).then_some(Known {
        ticket: r.get(0).ok()?,
        sys_id: SysId::new(&sys_id).ok()?,
        mod_count: r.get(2).ok()?,
        state,
    })
}

impl Operation for TakeHome {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for one in &self.0 {
            if one.until.is_none() && one.seen.state == TicketState::Deleted && is_seen(tx, one.ticket)? {
                // Seen again while the answer was under way: the look at that sighting gives its finding the next ticket.
                continue;
            }
            life::take_home(tx, one.ticket, &one.seen)?;
            if let Some(until) = one.until {
                tx.conn
                    .prepare_cached("UPDATE ticket SET seen_at = NULL WHERE id = ?1 AND seen_at <= ?2")?
                    .execute([one.ticket, until.as_micros()])?;
                if !one.renews {
                    storm::looked_at(tx, one.ticket, until.as_micros())?;
                }
            }
            if one.renews {
                life::again(tx, one.ticket, &self.1, self.2.as_micros())?;
            }
        }
        Ok(())
    }
}

fn is_seen(tx: &Tx<'_>, ticket: i64) -> Result<bool, StoreError> {
    let mut select = tx.conn.prepare_cached("SELECT seen_at IS NOT NULL FROM ticket WHERE id = ?1")?;
    Ok(select.query_row([ticket], |r| r.get(0)).optional()?.unwrap_or_default())
}

impl Operation for ReadUntil {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let Self(route, until, behind, now) = self;
        tx.conn
            .prepare_cached(
                "UPDATE route SET read_until = ?2, read_behind = ?3,
                 read_at = CASE WHEN ?3 IS NULL THEN ?4 ELSE read_at END,
                 swept = CASE WHEN ?3 IS NULL AND read_at IS NOT NULL THEN coalesce(swept, 0) ELSE swept END WHERE id = ?1",
            )?
            .execute(params![
                route,
                until.as_micros(),
                behind.as_ref().map(SysId::as_str),
                now.as_micros()
            ])?;
        Ok(())
    }
}

impl Operation for LookedUntil {
    type Output = i64;

    fn run(self, tx: &mut Tx<'_>) -> Result<i64, StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        let mut select = tx.conn.prepare_cached("SELECT looked_until FROM destination WHERE id = ?1")?;
        Ok(select.query_row([id], |r| r.get(0)).optional()?.unwrap_or_default())
    }
}

impl Operation for LookUntil {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        tx.conn
            .prepare_cached("UPDATE destination SET looked_until = ?2 WHERE id = ?1")?
            .execute([id, self.1])?;
        Ok(())
    }
}

impl Operation for DueNotes {
    type Output = u64;

    fn run(self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let id = tx.destination_id(self.0.as_str())?;
        let now = self.1.as_micros();
        let due: Vec<(i64, bool, i64)> = tx
            .conn
            .prepare_cached(&format!(
                "SELECT t.id, a.occurrences > coalesce(t.told, 0)
                          OR EXISTS (SELECT 1 FROM ticket f WHERE f.parent_id = t.id) OR t.worst > {},
                        max(a.severity, coalesce(t.worst, 0))
                 FROM ticket t INDEXED BY ticket_noted JOIN alert a ON a.id = t.alert_id
                 WHERE t.note_due_at <= ?2 AND t.route_id IN (SELECT id FROM route WHERE destination_id = ?1)
                   AND t.state = 'open' LIMIT ?3",
                life::OPENED_AS
            ))?
            .query_map(params![id, now, PAGE], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let number = due.len() as u64;
        for (ticket, is_news, severity) in due {
            // What comes from here on is for the next one.
            tx.conn
                .prepare_cached("UPDATE ticket SET note_due_at = NULL, noted_at = ?2 WHERE id = ?1")?
                .execute([ticket, now])?;
            if is_news {
                life::add(tx, ticket, DeliveryKind::NoteTicket, severity, now)?;
            }
        }
        Ok(number)
    }
}
