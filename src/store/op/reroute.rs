//! A changed rule applies to what is still undelivered: what it no longer wants is withdrawn, what it wants elsewhere
//! gets its ticket there.

use rusqlite::{OptionalExtension, params};

use super::record::{Routed, Sighting, deliver};
use super::row::Subject;
use super::settle::{Next, current, move_delivery};
use super::{life, plan};
use crate::model::ticket::BY_HAND;
use crate::model::{Alert, DeliveryId, DeliveryKind, DeliveryState, Severity, Timestamp};
use crate::store::handle::Operation;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// An alert that has something undelivered.
#[derive(Clone, Debug)]
pub struct Undelivered {
    /// Its row: the key of the next page.
    pub alert_id: i64,
    /// The alert; `None` when its row is damaged.
    pub alert: Option<Alert>,
}

struct Page {
    after: i64,
    limit: usize,
}

struct Reroute {
    all: Vec<(i64, Vec<Routed>)>,
    /// Whether something may come into the outbox that was not in it.
    adds: bool,
    now: Timestamp,
}

struct Digest(Option<String>);

impl Store {
    /// Alerts with pending or dead deliveries, or without any ticket, by row, after `after`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn undelivered(&self, after: i64, limit: usize) -> Result<Vec<Undelivered>, StoreError> {
        self.call(Page { after, limit }).await
    }

    /// Makes the undelivered deliveries of these alerts (by row) those of their routes, and forgets the digest of the rules,
    /// in one transaction.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reroute(&self, all: Vec<(i64, Vec<Routed>)>) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Reroute { all, adds: true, now }).await
    }

    /// The same where there is no room for more: what no rule wants any more is withdrawn, what only goes elsewhere goes
    /// there, and nothing is put beside it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn withdraw(&self, all: Vec<(i64, Vec<Routed>)>) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Reroute { all, adds: false, now }).await
    }

    /// The digest of the rules that the outbox was made by; `None` in a new store, and in the middle of a change.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rules_digest(&self) -> Result<Option<String>, StoreError> {
        self.call(Digest(None)).await
    }

    /// Remembers by which rules the outbox was made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_rules_digest(&self, digest: String) -> Result<(), StoreError> {
        self.call(Digest(Some(digest))).await.map(|_| ())
    }
}

impl Operation for Page {
    type Output = Vec<Undelivered>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Undelivered>, StoreError> {
        let mut select = tx.conn.prepare_cached(
            // One without any ticket has lost it: what is stored was wanted by a rule.
            "SELECT a.id FROM alert a WHERE a.id > ?1 AND (a.route_id IS NOT NULL OR EXISTS (
               SELECT 1 FROM ticket t JOIN delivery d ON d.ticket_id = t.id
               WHERE t.alert_id = a.id AND d.state IN ('pending', 'dead'))
               OR EXISTS (SELECT 1 FROM record c JOIN delivery d ON d.record_id = c.id
               WHERE c.alert_id = a.id AND d.state IN ('pending', 'dead'))
               OR NOT EXISTS (SELECT 1 FROM ticket t WHERE t.alert_id = a.id)
              AND NOT EXISTS (SELECT 1 FROM record c WHERE c.alert_id = a.id))
             ORDER BY a.id LIMIT ?2",
        )?;
        let mut rows = select.query(params![self.after, self.limit as i64])?;
        let mut bodies = Bodies::of(tx.conn);
        let mut page = Vec::new();
        while let Some(row) = rows.next()? {
            let alert_id = row.get(0)?;
            let mut alert = bodies.get(alert_id)?;
            if let Some(alert) = &mut alert {
                // The text is of the first sighting; the rules judge the worst.
                let worst = worst(tx, alert_id)?.and_then(Severity::numbered);
                alert.severity = worst.map_or(alert.severity, |worst| worst.max(alert.severity));
            }
            page.push(Undelivered { alert_id, alert });
        }
        Ok(page)
    }
}

impl Operation for Reroute {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        // Until all are done the outbox is made by no rules: the next start applies its own, even those of before.
        tx.conn.execute("DELETE FROM meta WHERE key = 'rules'", [])?;
        for (alert_id, routes) in &self.all {
            let planned_on = keep_planned(tx, *alert_id, routes)?;
            withdraw(tx, *alert_id, routes, self.now)?;
            if self.adds {
                add(tx, *alert_id, routes, planned_on, self.now)?;
            }
        }
        Ok(())
    }
}

/// The worst severity that is known of a finding; `None`: there is no such finding.
fn worst(tx: &Tx<'_>, alert_id: i64) -> Result<Option<i64>, StoreError> {
    Ok(tx
        .conn
        .prepare_cached(
            "SELECT max(a.severity, coalesce((SELECT max(max(d.severity, coalesce(t.worst, 0)))
               FROM ticket t JOIN delivery d ON d.ticket_id = t.id AND d.seq = 1 WHERE t.alert_id = a.id), 0))
             FROM alert a WHERE a.id = ?1",
        )?
        .query_row([alert_id], |row| row.get(0))
        .optional()?)
}

/// Withdraws what none of them wants; the rest is by the rule that wants it now.
fn withdraw(tx: &mut Tx<'_>, alert_id: i64, routes: &[Routed], now: Timestamp) -> Result<(), StoreError> {
    for id in waiting(tx, alert_id)? {
        let Some(was) = current(tx, id)? else { continue };
        // A person wants it, not a rule.
        if was.rule == BY_HAND {
            continue;
        }
        let table: String = tx
            .conn
            .prepare_cached(
                // What is attached goes with its ticket.
                "SELECT table_name FROM route WHERE id = coalesce((SELECT route_id FROM ticket WHERE id = ?2), ?1)",
            )?
            .query_row(
                params![was.route_id, if let Subject::Ticket(id) = was.subject { Some(id) } else { None }],
                |row| row.get(0),
            )?;
        let wanted =
            routes.iter().find(|r| r.destination.as_str() == was.destination && r.table.as_str() == table);
        if let Some(route) = wanted {
            let (sql, id) = match was.subject {
                Subject::Ticket(id) => ("UPDATE ticket SET rule = ?2 WHERE id = ?1", id),
                Subject::Record(id) => ("UPDATE record SET rule = ?2 WHERE id = ?1", id),
                Subject::Device(_) => continue,
            };
            tx.conn.prepare_cached(sql)?.execute(params![id, route.rule.as_str()])?;
        } else {
            let next = Next {
                subject: was.subject,
                state: DeliveryState::Withdrawn,
                due_at: None,
                attempts: was.attempts,
                doubtful: true,
                reason: Some("no rule wants it any more"),
                now,
            };
            move_delivery(tx, id, &was, &next)?;
            super::dead::withdraw(tx, &was)?;
        }
    }
    Ok(())
}

/// Puts in what they want and is not there.
fn add(
    tx: &mut Tx<'_>,
    alert_id: i64,
    routes: &[Routed],
    planned_on: Option<i64>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let severity = worst(tx, alert_id)?;
    for routed in severity.into_iter().flat_map(|s| routes.iter().map(move |r| (s, r))) {
        let sighting = Sighting { severity: routed.0, seen: None, planned_on };
        deliver(tx, alert_id, routed.1, &sighting, now.as_micros())?;
    }
    Ok(())
}

/// The route on which its ticket stays planned, by the rule that wants it there now. Where none does, it goes where the
/// first of them wants one, still in the row of its finding: a full buffer has no room for more. What none wants is
/// written out, to be withdrawn like any other.
fn keep_planned(tx: &mut Tx<'_>, alert_id: i64, routes: &[Routed]) -> Result<Option<i64>, StoreError> {
    let Some((planned_on, destination, table)) = plan::place_of(tx, alert_id)? else { return Ok(None) };
    let wants = |r: &&Routed| r.destination.as_str() == destination && r.table.as_str() == table;
    if let Some(routed) = routes.iter().find(wants) {
        plan::set_rule(tx, alert_id, routed.rule.as_str())?;
        return Ok(Some(planned_on));
    }
    for routed in routes.iter().filter(|r| r.kind == DeliveryKind::OpenTicket) {
        let (_, route) = tx.route_id(routed.destination.as_str(), routed.table.as_str())?;
        if life::newest(tx, alert_id, route)?.is_none() {
            plan::move_to(tx, alert_id, &destination, (routed, route))?;
            return Ok(Some(route));
        }
    }
    plan::write_of(tx, alert_id)?;
    Ok(None)
}

fn waiting(tx: &Tx<'_>, alert_id: i64) -> Result<Vec<DeliveryId>, StoreError> {
    let mut select = tx.conn.prepare_cached(
        "SELECT d.id FROM ticket t JOIN delivery d ON d.ticket_id = t.id
         WHERE t.alert_id = ?1 AND d.state IN ('pending', 'dead')
         UNION ALL
         SELECT d.id FROM record c JOIN delivery d ON d.record_id = c.id
         WHERE c.alert_id = ?1 AND d.state IN ('pending', 'dead')",
    )?;
    let ids = select.query_map([alert_id], |row| row.get(0).map(DeliveryId))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

impl Operation for Digest {
    type Output = Option<String>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Option<String>, StoreError> {
        let Some(digest) = self.0 else {
            return Ok(tx
                .conn
                .query_row("SELECT value FROM meta WHERE key = 'rules'", [], |row| row.get(0))
                .optional()?);
        };
        tx.conn.execute(
            "INSERT INTO meta (key, value) VALUES ('rules', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
            [&digest],
        )?;
        Ok(Some(digest))
    }
}
