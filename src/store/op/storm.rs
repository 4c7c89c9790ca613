//! Storms: beyond so many tickets an hour of one rule, new findings of a kind fold into one parent ticket.
//!
//! A kind is a rule and a signature, or a title where there is none; its first finding is never held back, and the hour slides. What was opened lately is
//! kept in memory, bounded, and read back from the outbox after a start. The parent is a ticket of the first finding
//! that folds, one generation on; it says how many findings it stands for when it is sent, and later by notes.

use std::collections::HashMap;

use rusqlite::params;

use super::row::{NewDelivery, NewTicket, insert_delivery, insert_ticket};
use super::{life, turn};
use crate::model::life::Life;
use crate::model::{Alert, DeliveryKind, Timestamp};
use crate::store::StoreError;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::storms::{HOUR, Kind, Lately, kind_of};
use crate::store::turns::Told;

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
                    _ => Verdict::Leads,
                }
            }
        }
    };
    if matches!(verdict, Verdict::Own) {
        lately.opened(kind, now);
    }
    if let (Verdict::Folds(parent), false) = (&verdict, life.update_interval.is_zero()) {
        // Its number of findings has grown.
        tx.conn
            .prepare_cached(
                "UPDATE ticket SET note_due_at = coalesce(noted_at, opened_at, ?2) + ?3
                 WHERE id = ?1 AND state = 'open' AND note_due_at IS NULL",
            )?
            .execute(params![parent, now, life.update_interval.as_micros() as i64])?;
    }
    tx.memory.storms.0 = Some(storms);
    Ok(verdict)
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
    life::fold(tx, new, parent)?;
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded {
    /// How many findings; 0 for a ticket that is no parent.
    pub findings: u64,
    /// Who talks most: `10.0.0.1 (12)`.
    pub talkers: Vec<String>,
}

/// Findings that are looked at for the talkers.
const TALKERS_OF: i64 = 1_000;
/// Talkers that are named.
const TALKERS: usize = 5;

/// What a ticket stands for.
pub(super) fn folded(tx: &Tx<'_>, ticket: i64) -> Result<Folded, StoreError> {
    let findings: i64 = tx
        .conn
        .prepare_cached("SELECT count(*) FROM ticket WHERE parent_id = ?1")?
        .query_row([ticket], |r| r.get(0))?;
    if findings == 0 {
        return Ok(Folded::default());
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
    Ok(Folded { findings: findings as u64, talkers })
}
