//! Storms: beyond so many tickets an hour of one rule, new findings of a kind fold into one parent ticket.
//!
//! A kind is a rule and a signature, or a title where there is none; its first finding is never held back, and the hour slides. What was opened lately is
//! kept in memory, bounded, and read back from the outbox after a start. The parent is a ticket of the first finding
//! that folds, one generation on; it says how many findings it stands for when it is sent, and later by notes.

use std::collections::HashMap;

use rusqlite::{OptionalExtension as _, params};

use super::life::Newest;
use super::row::{NewDelivery, NewTicket, insert_delivery, insert_ticket};
use super::{life, turn};
use crate::model::life::{Life, OnSeenAgain};
use crate::model::{Alert, DeliveryKind, Severity, TicketState, Timestamp};
use crate::store::StoreError;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::storms::{HOUR, Kind, Lately, kind_of};
use crate::store::turns::Told;

/// Parents of which a finding that stands is remembered.
const STANDING_MAX: usize = 1_024;
/// Tickets that are read back after a start.
const READ_BACK: i64 = 2_000;

/// What becomes of a finding.
pub(super) enum Verdict {
    /// It gets a ticket of its own.
    Own,
    /// It is the first of its kind that does not: a parent has to be made.
    Leads,
    /// This ticket stands for it.
    Folds(i64),
    /// The same, when it is open again: it was closed within the hour.
    Resumes(i64),
}

/// What tells the kinds of one rule apart: the signature id, whatever its revision, or the title.
pub(super) fn kind(alert: &Alert) -> &str {
    let signature = alert.references.first().filter(|reference| reference.starts_with("sid:"));
    signature.and_then(|reference| reference.rsplit_once(':')).map_or(&alert.title, |(id, _)| id)
}

/// Whether the ticket that is about to be made is one too many.
pub(super) fn judge(
    tx: &mut Tx<'_>,
    new: &NewTicket<'_>,
    kind: &str,
    life: Life,
    now: i64,
) -> Result<Verdict, StoreError> {
    let mut storms = match tx.memory.storms.0.take() {
        Some(storms) => storms,
        None => read_back(tx, now)?,
    };
    let lately = storms.entry((new.rule.to_owned(), new.route_id)).or_default();
    lately.roll(now);
    let kind = kind_of(kind);
    let most = life.max_tickets_per_hour.map_or(usize::MAX, |most| most as usize);
    let verdict = if lately.at.len() < most {
        Verdict::Own
    } else {
        match lately.kinds.get_mut(&kind) {
            // The first of its kind is never held back.
            None => Verdict::Own,
            Some(known) => {
                known.at = now;
                match known.parent {
                    Some(parent) if is_live(tx, parent)? => Verdict::Folds(parent),
                    // Otherwise one finding that comes and goes would get a parent each time.
                    Some(parent) if resumable(tx, parent)?.is_some() => Verdict::Resumes(parent),
                    _ => Verdict::Leads,
                }
            }
        }
    };
    if matches!(verdict, Verdict::Own) {
        lately.opened(kind, now);
    }
    if let Verdict::Folds(parent) = verdict {
        // Its number of findings has grown.
        note_later(tx, parent, life, now)?;
    }
    tx.memory.storms.0 = Some(storms);
    Ok(verdict)
}

/// There is something to note on an open ticket, when it is time for that.
pub(super) fn note_later(tx: &Tx<'_>, ticket: i64, life: Life, now: i64) -> Result<(), StoreError> {
    if !life.update_interval.is_zero() {
        tx.conn
            .prepare_cached(
                "UPDATE ticket SET note_due_at = coalesce(noted_at, opened_at, ?2) + ?3
                 WHERE id = ?1 AND state = 'open' AND note_due_at IS NULL",
            )?
            .execute(params![ticket, now, life.update_interval.as_micros() as i64])?;
    }
    Ok(())
}

/// What a finding's folded ticket means when the finding is seen again.
pub(super) enum Folds {
    /// Its parent stands for it, or is to be opened again for it (`true`): nothing else is to be made.
    Told(bool),
    /// Its parent is over: it counts as closed.
    Over,
    /// A person gave the parent up.
    GivenUp,
}

/// A finding that is folded was seen again. The marks that this leaves are on disk with the sighting: after a power cut the
/// next sync looks at the parent all the same.
pub(super) fn seen(
    tx: &mut Tx<'_>,
    folded: &Newest,
    (rule, life): (&str, Life),
    severity: i64,
    now: i64,
) -> Result<Folds, StoreError> {
    let Some(parent) = folded.parent else { return Ok(Folds::Over) };
    mark(tx, folded.id, severity, now)?;
    let Some(ticket) = life::ticket(tx, parent)? else { return Ok(Folds::Over) };
    match ticket.state {
        Some(TicketState::Opening | TicketState::Open) => {
            life::seen_again(tx, &ticket, life, severity, now)?;
            Ok(Folds::Told(false))
        }
        Some(TicketState::Withdrawn) => {
            let dropped: bool = tx
                .conn
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM delivery WHERE ticket_id = ?1 AND state = 'dropped')",
                )?
                .query_row([parent], |r| r.get(0))?;
            Ok(if dropped { Folds::GivenUp } else { Folds::Over })
        }
        _ => match resumable(tx, parent)? {
            Some(ticket) if life::reopens(tx, &ticket, rule, life, severity, now)? => Ok(Folds::Told(true)),
            _ => Ok(Folds::Over),
        },
    }
}

/// The finding of this folded row was seen (again) since its parent was last looked at.
fn mark(tx: &Tx<'_>, folded: i64, severity: i64, now: i64) -> Result<(), StoreError> {
    let within = life::SEEN_WITHIN.as_micros() as i64;
    tx.conn
        .prepare_cached(
            "UPDATE ticket SET seen_at = ?2, worst = max(coalesce(worst, 0), ?3) WHERE id = ?1
               AND (seen_at IS NULL OR seen_at NOT BETWEEN ?2 - ?4 AND ?2 OR coalesce(worst, 0) < ?3)",
        )?
        .execute([folded, now, severity, within])?;
    Ok(())
}

/// The first finding of a storm was seen again: its newest ticket is the parent, and its own row is folded into it.
pub(super) fn mark_leader(
    tx: &Tx<'_>,
    alert: i64,
    parent: i64,
    severity: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let folded: Option<i64> = tx
        .conn
        .prepare_cached("SELECT id FROM ticket WHERE alert_id = ?1 AND parent_id = ?2")?
        .query_row([alert, parent], |r| r.get(0))
        .optional()?;
    folded.map_or(Ok(()), |folded| mark(tx, folded, severity, now))?;
    Ok(folded.is_some())
}

/// A parent that is closed there and may be opened again: what it was made for has no newer ticket.
fn resumable(tx: &Tx<'_>, parent: i64) -> Result<Option<Newest>, StoreError> {
    let of: Option<(i64, i64)> = tx
        .conn
        .prepare_cached(
            "SELECT alert_id, route_id FROM ticket WHERE id = ?1 AND state IN ('resolved', 'closed')",
        )?
        .query_row([parent], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    let Some((alert, route)) = of else { return Ok(None) };
    Ok(life::newest(tx, alert, route)?.filter(|newest| newest.id == parent))
}

/// Opens the last parent again, and folds this finding into it, unless it is.
pub(super) fn resume(
    tx: &mut Tx<'_>,
    new: &NewTicket<'_>,
    (parent, life): (i64, Life),
    severity: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let Some(ticket) = resumable(tx, parent)? else { return Ok(false) };
    if !mark_leader(tx, new.alert_id, parent, severity, now)? {
        life::fold(tx, new, parent, (severity, now))?;
    }
    let life = Life { on_seen_again: OnSeenAgain::Reopen, ..life };
    life::reopens(tx, &ticket, new.rule, life, severity, now)
}

/// A finding that is folded now may be worse than all that its parent stood for: that is noted at once.
pub(super) fn rises(
    tx: &mut Tx<'_>,
    parent: i64,
    life: Life,
    severity: i64,
    now: i64,
) -> Result<(), StoreError> {
    match life::ticket(tx, parent)? {
        Some(ticket) if ticket.is_better_than(severity) => life::seen_again(tx, &ticket, life, severity, now),
        _ => Ok(()),
    }
}

/// Whether what a ticket tells of has not ended: its finding, or one of those that it stands for.
pub(super) fn stands(tx: &mut Tx<'_>, ticket: i64) -> Result<bool, StoreError> {
    // One that stood at the last look mostly still does; otherwise the search goes on from there. So a storm that ends
    // finding by finding is not read whole for each.
    let from = tx.memory.standing.get(&ticket).copied().unwrap_or_default();
    let mut select = tx.conn.prepare_cached(
        "SELECT f.id FROM ticket f JOIN alert a ON a.id = f.alert_id
         WHERE f.parent_id = ?1 AND f.id >= ?2 AND f.id < ?3 AND a.cleared_at IS NULL ORDER BY f.id LIMIT 1",
    )?;
    for (from, to) in [(from, i64::MAX), (0, from)] {
        let found: Option<i64> = select.query_row([ticket, from, to], |r| r.get(0)).optional()?;
        if let Some(found) = found {
            if tx.memory.standing.len() >= STANDING_MAX {
                tx.memory.standing.clear();
            }
            tx.memory.standing.insert(ticket, found);
            return Ok(true);
        }
    }
    tx.memory.standing.remove(&ticket);
    Ok(tx
        .conn
        .prepare_cached(
            "SELECT a.cleared_at IS NULL AND NOT EXISTS (SELECT 1 FROM ticket f WHERE f.parent_id = t.id)
             FROM ticket t JOIN alert a ON a.id = t.alert_id WHERE t.id = ?1",
        )?
        .query_row([ticket], |r| r.get(0))?)
}

/// What the next parent of a storm is made for.
pub(super) struct GoesOn {
    /// The finding that it quotes.
    pub(super) alert: i64,
    /// The worst severity of those that it stands for.
    pub(super) severity: i64,
}

/// Of a parent that is over: its findings that were seen since, and have no ticket of their own by now.
const SEEN_SINCE: &str = "f.parent_id = ?1 AND f.seen_at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ticket n
     WHERE n.alert_id = f.alert_id AND n.route_id = f.route_id AND n.generation > f.generation AND n.id NOT IN (?1, ?2))";

/// Whether a parent that is over has to have a successor; `None`: it is no parent, or nothing was seen since.
pub(super) fn goes_on(tx: &Tx<'_>, parent: i64) -> Result<Option<GoesOn>, StoreError> {
    Ok(tx
        .conn
        .prepare_cached(&format!(
            "SELECT f.alert_id, (SELECT max(coalesce(f.worst, 0)) FROM ticket f WHERE {SEEN_SINCE})
             FROM ticket f WHERE {SEEN_SINCE} ORDER BY f.id LIMIT 1"
        ))?
        .query_row([parent, parent], |r| Ok(GoesOn { alert: r.get(0)?, severity: r.get(1)? }))
        .optional()?)
}

/// What was seen since is folded into the successor of a parent from here on.
pub(super) fn follows(tx: &mut Tx<'_>, parent: i64, next: i64) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached(&format!("UPDATE ticket AS f SET parent_id = ?2, seen_at = NULL WHERE {SEEN_SINCE}"))?
        .execute([parent, next])?;
    let kinds = tx.memory.storms.0.iter_mut().flat_map(|storms| storms.values_mut());
    for kind in kinds.flat_map(|lately| lately.kinds.values_mut()) {
        if kind.parent == Some(parent) {
            kind.parent = Some(next);
        }
    }
    Ok(())
}

/// A parent was looked at, and is open: so much was seen before that.
pub(super) fn looked_at(tx: &Tx<'_>, parent: i64, until: i64) -> Result<(), StoreError> {
    tx.conn
        .prepare_cached("UPDATE ticket SET seen_at = NULL WHERE parent_id = ?1 AND seen_at <= ?2")?
        .execute([parent, until])?;
    Ok(())
}

fn is_live(tx: &Tx<'_>, ticket: i64) -> Result<bool, StoreError> {
    Ok(tx
        .conn
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM ticket WHERE id = ?1 AND state IN ('opening', 'open'))",
        )?
        .query_row([ticket], |r| r.get(0))?)
}

/// Makes the parent of a kind, with the evidence of this finding, and folds this finding into it.
pub(super) fn lead(
    tx: &mut Tx<'_>,
    new: &NewTicket<'_>,
    (alert, life): (&Alert, Life),
    destination_id: i64,
    severity: i64,
    now: i64,
) -> Result<bool, StoreError> {
    let parent = insert_ticket(tx, &NewTicket { generation: new.generation.next(), ..*new })?;
    life::fold(tx, new, parent, (severity, now))?;
    let destination: String = tx
        .conn
        .prepare_cached("SELECT name FROM destination WHERE id = ?1")?
        .query_row([destination_id], |r| r.get(0))?;
    let route_id = new.route_id;
    let turn = turn::next(tx, (route_id, severity), new.rule, Told::Later(parent))?;
    let opens = NewDelivery::opens(parent, now);
    let delivery = NewDelivery { destination_id, route_id, severity, turn, ..opens };
    insert_delivery(tx, &delivery, &destination)?;
    // Of the finding that the parent quotes, and of no other: what comes later makes the ticket no larger.
    life::attach(tx, parent, alert, life.attach, now)?;
    let storms = tx.memory.storms.0.get_or_insert_default();
    let lately = storms.entry((new.rule.to_owned(), new.route_id)).or_default();
    lately.kinds.insert(kind_of(kind(alert)), Kind { at: now, parent: Some(parent) });
    Ok(true)
}

/// What the last hour was, after a start.
fn read_back(tx: &Tx<'_>, now: i64) -> Result<HashMap<(String, i64), Lately>, StoreError> {
    let since = Timestamp::from_micros(now).before(HOUR).as_micros();
    let mut select = tx.conn.prepare_cached(
        // Planned ones too: they were there before their rule had a limit.
        "SELECT * FROM (SELECT d.created_at AS at, t.rule, t.route_id, t.alert_id, t.id AS id,
             EXISTS (SELECT 1 FROM ticket f WHERE f.parent_id = t.id)
           FROM delivery d JOIN ticket t ON t.id = d.ticket_id
           WHERE d.kind = ?1 AND d.created_at > ?2 ORDER BY d.id DESC LIMIT ?3)
         UNION ALL
         SELECT * FROM (SELECT a.recorded_at, u.name, a.route_id, a.id, a.planned_id, 0
           FROM alert a INDEXED BY alert_planned JOIN rule u ON u.id = a.rule_id
           WHERE a.route_id IS NOT NULL AND a.recorded_at > ?2 ORDER BY a.planned_id DESC LIMIT ?3)
         ORDER BY at DESC, id DESC",
    )?;
    let mut rows = select.query(params![DeliveryKind::OpenTicket.as_str(), since, READ_BACK])?;
    let mut bodies = Bodies::of(tx.conn);
    let mut storms: HashMap<(String, i64), Lately> = HashMap::new();
    while let Some(r) = rows.next()? {
        let (at, rule, route, alert, ticket, leads): (i64, String, i64, i64, i64, bool) =
            (r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?);
        let Some(alert) = bodies.get(alert)? else { continue };
        let lately = storms.entry((rule, route)).or_default();
        let kind = kind_of(kind(&alert));
        if leads {
            let known = lately.kinds.entry(kind).or_insert(Kind { at, parent: None });
            known.parent.get_or_insert(ticket);
        } else {
            lately.at.push_front(at);
            lately.kinds.entry(kind).or_insert(Kind { at, parent: None });
        }
    }
    Ok(storms)
}

/// What a ticket stands for: how many findings, and which of their addresses come most often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// How many findings; 0 for a ticket that is no parent.
    pub findings: u64,
    /// Who talks most: `10.0.0.1 (12)`.
    pub talkers: Vec<String>,
    /// How many of them have ended.
    pub ended: u64,
    /// When the last of them ended; `None`: one stands.
    pub ended_at: Option<Timestamp>,
    /// How often they were seen, together.
    pub sightings: u64,
    /// When one of them was last seen, by the sensor's clock.
    pub last_seen_at: Timestamp,
    /// Their worst severity.
    pub worst: Severity,
}

impl Default for Folded {
    fn default() -> Self {
        Self {
            findings: 0,
            talkers: Vec::new(),
            ended: 0,
            ended_at: None,
            sightings: 0,
            last_seen_at: Timestamp::from_micros(0),
            worst: Severity::Warning,
        }
    }
}

/// Findings that are looked at for the talkers.
const TALKERS_OF: i64 = 1_000;
/// Talkers that are named.
const TALKERS: usize = 5;

/// What a ticket stands for.
pub(super) fn folded(tx: &Tx<'_>, ticket: i64) -> Result<Folded, StoreError> {
    let all: Folded = tx
        .conn
        .prepare_cached(
            "SELECT count(*), count(a.cleared_at), max(a.cleared_at), sum(a.occurrences), max(a.last_seen_at),
                    max(max(a.severity, coalesce(f.worst, 0)))
             FROM ticket f JOIN alert a ON a.id = f.alert_id WHERE f.parent_id = ?1",
        )?
        .query_row([ticket], |r| {
            let (findings, ended): (i64, i64) = (r.get(0)?, r.get(1)?);
            let at = |n: Option<i64>| Timestamp::from_micros(n.unwrap_or_default());
            let worst = r.get::<_, Option<i64>>(5)?.and_then(Severity::numbered);
            Ok(Folded {
                findings: findings as u64,
                talkers: Vec::new(),
                ended: ended as u64,
                ended_at: r.get::<_, Option<i64>>(2)?.filter(|_| ended == findings).map(Timestamp::from_micros),
                sightings: r.get::<_, Option<i64>>(3)?.unwrap_or_default() as u64,
                last_seen_at: at(r.get(4)?),
                worst: worst.unwrap_or(Severity::Warning),
            })
        })?;
    if all.findings == 0 {
        return Ok(all);
    }
    let mut select = tx
        .conn
        .prepare_cached("SELECT alert_id FROM ticket WHERE parent_id = ?1 ORDER BY id DESC LIMIT ?2")?;
    let alerts: Vec<i64> = select.query_map([ticket, TALKERS_OF], |r| r.get(0))?.collect::<Result<_, _>>()?;
    let mut bodies = Bodies::of(tx.conn);
    let mut times: HashMap<String, u64> = HashMap::new();
    for alert in alerts {
        if let Some(alert) = bodies.get(alert)?
            && let Some(ip) = alert.source.ip
        {
            *times.entry(ip.to_string()).or_default() += 1;
        }
    }
    let mut times: Vec<(String, u64)> = times.into_iter().collect();
    times.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let talkers = times.into_iter().take(TALKERS).map(|(ip, n)| format!("{ip} ({n})")).collect();
    Ok(Folded { talkers, ..all })
}
