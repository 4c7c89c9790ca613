//! Lists and status: read-only, short-lived connections beside a running writer, or without one. Blocking; callers in
//! the runtime wrap it in `spawn_blocking`.
//!
//! What the lists are made of is in `rows.rs`.

mod devices;
mod named;
pub(super) mod pending;

mod sources;

mod wanted;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::model::cursor::{AGAIN, Again};
use crate::model::protocol::fold;
use crate::model::ticket::TicketKeys;
use crate::model::{
    Alert, DeliveryId, DeliveryState, DestinationName, Engine, Fingerprint, Generation, HealthIssue,
    Severity, TableName, TicketId, Timestamp,
};
use crate::store::disk::files::failed;
use crate::store::disk::owner::may_read;
use crate::store::op::destination_state;
use crate::store::op::identity::meta;
use crate::store::op::life::{NOT_CLOSED, OPENED_AS};
use crate::store::pack::body::Bodies;
use crate::store::read::wanted::Titles;
use crate::store::rows::{
    AlertRow, AttemptRow, Counts, DeliveryRow, DestinationRow, FilteredRow, HoldRow, IssueRow, ListFilter,
    Overview, REPAIR, RejectRow, RepairRow, SourceRow, SyncRow, TicketRow, repair,
};
use crate::store::schema;
use crate::store::{DATABASE, OpenError, StoreError};

/// A read-only view.
#[derive(Debug)]
pub struct Reader {
    pub(super) conn: Connection,
    size: u64,
}

type Result<T> = std::result::Result<T, StoreError>;

impl Reader {
    /// Opens the store of a state directory.
    ///
    /// # Errors
    /// [`OpenError::Absent`] when otrelay has not run there yet.
    pub fn open(dir: &Path) -> std::result::Result<Self, OpenError> {
        may_read(dir).map_err(failed(dir))?;
        let path = dir.join(DATABASE);
        let conn = schema::open_reader(&path)?;
        let size = std::fs::metadata(&path).map_or(0, |m| m.len());
        let schema: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if schema == 0 {
            // It is being made at this moment.
            return Err(OpenError::Absent(path));
        }
        Ok(Self { conn, size })
    }

    /// Opens a store that is in memory, by its name.
    pub(super) fn in_memory(name: &str) -> std::result::Result<Self, OpenError> {
        let conn = schema::open_memory_reader(name)?;
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        Ok(Self { conn, size: pages as u64 * 4096 })
    }

    /// How things are. Cheap at any size: counters are kept, not counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn overview(&self) -> Result<Overview> {
        let counters = self.counters()?;
        let of = |scope: &str| counters.get(scope).cloned().unwrap_or_default();
        let sources = self.sources(&of)?;
        let destinations = self.destinations(&of)?;
        let sum = |name: &str| destinations.iter().filter_map(|d| d.counts.get(name)).sum::<i64>();
        let (backlog, dead) = (sum("pending") + sum("claimed"), sum("dead"));
        let written: Option<i64> = self.conn.query_row(pending::OLDEST, [], |r| r.get(0))?;
        let planned: Option<i64> = self.conn.query_row(pending::OLDEST_PLANNED, [], |r| r.get(0))?;
        Ok(Overview {
            agent_id: meta(&self.conn, "agent_id")?,
            agent_id_from: meta(&self.conn, "agent_id_from")?,
            folded: of("store").get("folded").copied().unwrap_or(0),
            sources,
            last_sync: self.syncs(1)?.pop(),
            issues: self.issues()?,
            backlog,
            dead,
            last_dead: self.conn.query_row(LAST_DEAD, [], |r| r.get(0)).optional()?.flatten(),
            oldest_pending_at: written.into_iter().chain(planned).min().map(Timestamp::from_micros),
            shed_by_severity: of("shed"),
            shed: of("store").get("shed").copied().unwrap_or(0),
            repairs: repairs(&self.conn)?,
            devices: self.device_counts(of("store").get("devices").copied().unwrap_or(0))?,
            bytes: self.size,
            destinations,
        })
    }

    /// All counters.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn counters(&self) -> Result<Counts> {
        let mut map = Counts::new();
        let mut select = self.conn.prepare("SELECT scope, name, value FROM counter")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            map.entry(row.get(0)?).or_default().insert(row.get(1)?, row.get(2)?);
        }
        Ok(map)
    }

    fn sources(&self, of: &dyn Fn(&str) -> BTreeMap<String, i64>) -> Result<Vec<SourceRow>> {
        let mut select = self.conn.prepare(
            "SELECT name, first_read_at, last_read_at, last_alert_at, trouble, kind,
                    (SELECT value FROM mark WHERE source_id = source.id AND mark.name = ?1)
             FROM source ORDER BY id",
        )?;
        let rows = select.query_map([AGAIN], |r| {
            let order: Option<String> = r.get(6)?;
            let order = order.and_then(|order| Again::parse(&order));
            let name: String = r.get(0)?;
            let counts = of(&format!("source:{name}"));
            let get = |key: &str| counts.get(key).copied().unwrap_or(0);
            Ok(SourceRow {
                first_read_at: maybe_at(r, 1)?,
                last_read_at: at(r, 2)?,
                last_alert_at: maybe_at(r, 3)?,
                trouble: r.get(4)?,
                behind: None,
                kind: r.get(5)?,
                lines: get("lines"),
                alerts: get("alerts"),
                new: get("new"),
                repeats: get("repeats"),
                cleared: get("cleared"),
                devices: get("devices"),
                unauthenticated: get("unauthenticated"),
                again: get("again"),
                rewound: order.is_some(),
                rewound_since: order.and_then(|order| order.reaches_since()),
                filtered: of(&format!("filtered:{name}")),
                excluded: of(&format!("excluded:{name}")),
                ignored: of(&format!("ignored:{name}")),
                rejected: of(&format!("rejected:{name}")),
                name,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    fn destinations(&self, of: &dyn Fn(&str) -> BTreeMap<String, i64>) -> Result<Vec<DestinationRow>> {
        let mut select = self.conn.prepare(
            "SELECT id, name, last_ok_at, last_error_at, last_error, window_used FROM destination ORDER BY id",
        )?;
        let mut rows = select.query([])?;
        let mut destinations = Vec::new();
        while let Some(r) = rows.next()? {
            let name: String = r.get(1)?;
            let mut counts = of(&format!("destination:{name}"));
            self.tell_claimed_apart(r.get(0)?, &mut counts)?;
            let spent = destination_state::spent(&self.conn, &name)?;
            destinations.push(DestinationRow {
                counts,
                name,
                last_ok_at: maybe_at(r, 2)?,
                last_error_at: maybe_at(r, 3)?,
                last_error: r.get(4)?,
                holds: self.holds(r.get(0)?)?,
                requests_this_hour: r.get(5)?,
                spent,
            });
        }
        Ok(destinations)
    }

    /// What is claimed was counted as pending.
    fn tell_claimed_apart(&self, destination: i64, counts: &mut BTreeMap<String, i64>) -> Result<()> {
        let claimed: i64 = self
            .conn
            .prepare_cached("SELECT count(*) FROM delivery WHERE state = 'claimed' AND destination_id = ?1")?
            .query_row([destination], |r| r.get(0))?;
        if claimed > 0 {
            counts.insert("claimed".to_owned(), claimed);
            *counts.entry("pending".to_owned()).or_default() -= claimed;
        }
        Ok(())
    }

    fn holds(&self, destination: i64) -> Result<Vec<HoldRow>> {
        let mut select = self.conn.prepare_cached(
            "SELECT table_name, since_at, until_at, reason, remedy FROM hold WHERE destination_id = ?1",
        )?;
        let rows = select.query_map([destination], |r| {
            Ok(HoldRow {
                table: r.get(0)?,
                since_at: at(r, 1)?,
                until_at: at(r, 2)?,
                reason: r.get(3)?,
                remedy: r.get(4)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// The latest syncs, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn syncs(&self, limit: u32) -> Result<Vec<SyncRow>> {
        let mut select = self.conn.prepare(
            "SELECT started_at, ended_at, cause, created, found, again, dead FROM sync ORDER BY id DESC LIMIT ?1",
        )?;
        let rows = select.query_map([limit], |r| {
            Ok(SyncRow {
                started_at: at(r, 0)?,
                ended_at: at(r, 1)?,
                cause: r.get(2)?,
                created: r.get(3)?,
                found: r.get(4)?,
                again: r.get(5)?,
                dead: r.get(6)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    fn issues(&self) -> Result<Vec<IssueRow>> {
        let mut select = self.conn.prepare(
            "SELECT code, subject, text, remedy, first_at, last_at, count FROM health_issue ORDER BY last_at DESC LIMIT 50",
        )?;
        let rows = select.query_map([], |r| {
            Ok(IssueRow {
                issue: HealthIssue {
                    code: r.get(0)?,
                    subject: r.get(1)?,
                    text: r.get(2)?,
                    remedy: r.get(3)?,
                },
                first_at: at(r, 4)?,
                last_at: at(r, 5)?,
                count: r.get(6)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Findings, newest first; fewer than asked for when their bodies are large: an answer stays bounded.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn alerts(&self, filter: &ListFilter) -> Result<Vec<AlertRow>> {
        let mut select = self.conn.prepare(
            "SELECT a.id, a.fingerprint, s.name, a.occurrences, a.first_seen_at, a.last_seen_at
             FROM alert a JOIN source s ON s.id = a.source_id
             WHERE a.severity >= ?1 AND a.id < ?3 AND (?4 IS NULL OR s.name = ?4) AND a.last_seen_at >= ?5
             ORDER BY a.id DESC LIMIT ?2",
        )?;
        let mut rows = select.query(params![
            severity(filter),
            asked(filter),
            before(filter),
            filter.source,
            since(filter)
        ])?;
        let mut titles = Titles::of(&self.conn, filter)?;
        let mut bytes = 0;
        let mut all = Vec::new();
        while let Some(r) = rows.next()? {
            let id = r.get(0)?;
            let (wanted, alert) = titles.look(id)?;
            if !wanted {
                continue;
            }
            bytes += alert.as_ref().map_or(0, |a| a.raw.len() + a.message.len());
            all.push(AlertRow {
                id,
                fingerprint: Fingerprint::from_bytes(r.get(1)?).to_string(),
                source: r.get(2)?,
                occurrences: r.get(3)?,
                first_seen_at: at(r, 4)?,
                last_seen_at: at(r, 5)?,
                alert,
            });
            if bytes > BODIES_MAX || all.len() == limit(filter) as usize {
                break;
            }
        }
        Ok(all)
    }

    /// Recent alerts that were not forwarded, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn filtered(&self, filter: &ListFilter) -> Result<Vec<FilteredRow>> {
        let mut select = self.conn.prepare(
            "SELECT f.at, s.name, f.reason, f.severity, f.engine, f.protocol, f.title, f.parties
             FROM filtered_sample f JOIN source s ON s.id = f.source_id
             WHERE f.severity >= ?1 AND (?2 IS NULL OR f.title LIKE ?2) AND (?4 IS NULL OR s.name = ?4)
               AND f.at >= ?5 AND (?6 IS NULL OR f.engine = ?6) ORDER BY f.id DESC LIMIT ?3",
        )?;
        let engine = filter.engine.map(Engine::as_str);
        let wanted = params![
            severity(filter),
            like(filter),
            // Looked at once more below; the samples are a bounded ring.
            if filter.looks_inside() { -1 } else { i64::from(limit(filter)) },
            filter.source,
            since(filter),
            engine
        ];
        let rows = select.query_map(wanted, |r| {
            Ok(FilteredRow {
                at: at(r, 0)?,
                source: r.get(1)?,
                reason: r.get(2)?,
                severity: level(r, 3)?,
                engine: r.get(4)?,
                protocol: r.get(5)?,
                title: r.get(6)?,
                parties: r.get(7)?,
            })
        })?;
        let has = |row: &FilteredRow| {
            filter.protocol.as_ref().is_none_or(|name| fold(name) == fold(&row.protocol))
                && filter.address.is_none_or(|net| {
                    let ends = row.parties.split_whitespace().filter_map(|end| end.parse().ok());
                    ends.into_iter().any(|ip: IpAddr| net.contains(&ip))
                })
        };
        let mut all = Vec::new();
        for row in rows {
            let row = row?;
            if has(&row) {
                all.push(row);
            }
            if all.len() == limit(filter) as usize {
                break;
            }
        }
        Ok(all)
    }

    /// Recent input that was not understood, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rejected(&self, filter: &ListFilter) -> Result<Vec<RejectRow>> {
        let mut select = self.conn.prepare(
            "SELECT r.at, s.name, r.reason, r.detail, r.sample FROM reject_sample r
             JOIN source s ON s.id = r.source_id
             WHERE (?2 IS NULL OR s.name = ?2) AND r.at >= ?3 ORDER BY r.id DESC LIMIT ?1",
        )?;
        let rows = select.query_map(params![limit(filter), filter.source, since(filter)], |r| {
            Ok(RejectRow {
                at: at(r, 0)?,
                source: r.get(1)?,
                reason: r.get(2)?,
                detail: r.get(3)?,
                sample: r.get(4)?,
            })
        })?;
        Ok(rows.collect::<std::result::Result<_, _>>()?)
    }

    /// Tickets, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tickets(&self, filter: &ListFilter) -> Result<Vec<TicketRow>> {
        let _one_moment = self.conn.unchecked_transaction()?;
        let mut select = self.conn.prepare(&format!(
            "{} JOIN source s ON s.id = a.source_id
             WHERE a.severity >= ?1 AND (?2 IS NULL OR t.state = ?2) AND t.id < ?4
               AND (?5 IS NULL OR s.name = ?5) AND a.last_seen_at >= ?6
               AND (?7 IS NULL OR coalesce(t.number, p.number) = ?7 COLLATE NOCASE)
             ORDER BY t.id DESC LIMIT ?3",
            tickets_from()
        ))?;
        let mut planned = self.conn.prepare(&self.planned_tickets()?)?;
        let wanted = params![
            severity(filter),
            filter.state,
            asked(filter),
            before(filter),
            filter.source,
            since(filter),
            filter.number
        ];
        let both = (select.query(wanted)?, planned.query(wanted)?);
        let mut titles = Titles::of(&self.conn, filter)?;
        let mut all = Vec::new();
        let newest = |x: &Row<'_>, y: &Row<'_>| Ok(y.get::<_, i64>(0)?.cmp(&x.get(0)?));
        pending::merged(both, newest, |r| {
            let (wanted, alert) = titles.look(r.get(12)?)?;
            if wanted {
                all.push(ticket(r, alert.as_ref())?);
            }
            Ok(all.len() < limit(filter) as usize)
        })?;
        Ok(all)
    }

    /// Deliveries in a state, in the order in which they will be sent (pending) or newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn deliveries(&self, state: DeliveryState, filter: &ListFilter) -> Result<Vec<DeliveryRow>> {
        let mut all = self.in_state(state, filter)?;
        if state == DeliveryState::Pending {
            self.wait_for_budgets(&mut all)?;
        }
        Ok(all)
    }

    fn in_state(&self, state: DeliveryState, filter: &ListFilter) -> Result<Vec<DeliveryRow>> {
        let is_pending = state == DeliveryState::Pending;
        let (source, since) = (&filter.source, since(filter));
        if is_pending && !filter.looks_inside() && source.is_none() && filter.since.is_none() {
            return self.next_pending(filter);
        }
        let _one_moment = self.conn.unchecked_transaction()?;
        let (order, place) = if is_pending {
            (
                "d.severity DESC, d.turn, d.id",
                "(d.severity < ?3 OR d.severity = ?3 AND (d.turn > ?7 OR d.turn = ?7 AND d.id > ?4))",
            )
        } else {
            ("d.id DESC", "d.id < ?4 AND ?3 >= 0 AND ?7 >= 0")
        };
        let mut select = self.conn.prepare(&format!(
            "{DELIVERY} WHERE d.state = '{}' AND d.severity >= ?1 AND {place} AND d.created_at >= ?6
             AND (?5 IS NULL OR EXISTS (SELECT 1 FROM alert a JOIN source s ON s.id = a.source_id
                  WHERE a.id = coalesce(t.alert_id, c.alert_id) AND s.name = ?5))
             ORDER BY {order} LIMIT ?2",
            // A literal, so that the small indexes of single states are used.
            state.as_str()
        ))?;
        // Only what is pending may be planned.
        let mut planned = self.conn.prepare(&format!(
            "{} AND {is_pending} AND a.severity >= ?1 AND (a.severity < ?3 OR a.severity = ?3
               AND (a.turn > ?7 OR a.turn = ?7 AND a.planned_id > ?4))
             AND a.recorded_at >= ?6 AND (?5 IS NULL OR s.name = ?5)
             ORDER BY a.severity DESC, a.turn, a.planned_id LIMIT ?2",
            pending::PLANNED
        ))?;
        let (level, turn, id) = if is_pending { behind(filter) } else { (0, 0, before(filter)) };
        let wanted = params![severity(filter), asked(filter), level, id, source, since, turn];
        let both = (select.query(wanted)?, planned.query(wanted)?);
        let mut titles = Titles::of(&self.conn, filter)?;
        let mut all = Vec::new();
        let first = |x: &Row<'_>, y: &Row<'_>| {
            let place = |r: &Row<'_>| -> rusqlite::Result<(Reverse<i64>, i64, i64)> {
                Ok((Reverse(r.get(5)?), r.get(14)?, r.get(0)?))
            };
            Ok(place(x)?.cmp(&place(y)?))
        };
        pending::merged(both, first, |r| {
            let (wanted, alert) = titles.look(r.get(12)?)?;
            if wanted {
                all.push(delivery(r, alert.as_ref())?);
            }
            Ok(all.len() < limit(filter) as usize)
        })?;
        Ok(all)
    }

    /// One delivery with its attempts and its alert.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delivery(&self, id: DeliveryId) -> Result<Option<DeliveryRow>> {
        let _one_moment = self.conn.unchecked_transaction()?;
        let mut select = self.conn.prepare(&format!("{DELIVERY} WHERE d.id = ?1"))?;
        let mut planned = self.conn.prepare(&format!("{} AND a.planned_id = ?1", pending::PLANNED))?;
        let is_written = select.exists([id.0])?;
        let mut rows = if is_written { select.query([id.0])? } else { planned.query([id.0])? };
        let Some(r) = rows.next()? else { return Ok(None) };
        let alert = Bodies::of(&self.conn).get(r.get(12)?)?;
        let mut row = DeliveryRow { alert: alert.clone(), ..delivery(r, alert.as_ref())? };
        let mut history = self.conn.prepare(HISTORY)?;
        row.history = history
            .query_map([id.0], |r| {
                Ok(AttemptRow {
                    n: r.get(0)?,
                    started_at: at(r, 1)?,
                    duration_ms: r.get(2)?,
                    outcome: r.get(3)?,
                    status: r.get(4)?,
                    message: r.get(5)?,
                })
            })?
            .collect::<std::result::Result<_, _>>()?;
        Ok(Some(row))
    }

    /// `ok`, or the first thing that SQLite finds wrong.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn integrity(&self) -> Result<String> {
        Ok(self.conn.query_row("PRAGMA integrity_check(1)", [], |r| r.get(0))?)
    }
}

/// What was said of the newest dead letter.
const LAST_DEAD: &str =
    "SELECT reason FROM delivery INDEXED BY delivery_dead WHERE state = 'dead' ORDER BY id DESC LIMIT 1";

/// Bytes of alert bodies in one answer.
const BODIES_MAX: usize = 8 << 20;

/// Outcomes of a delivery, oldest first. Where a ticket was made or found, the words are its number.
const HISTORY: &str = "SELECT n, started_at, duration_ms, outcome, status, coalesce(message,
       (SELECT t.number FROM delivery d JOIN ticket t ON t.id = d.ticket_id
        WHERE d.id = ?1 AND outcome IN ('created', 'found')), '')
     FROM outcome WHERE id BETWEEN ?1 * 32 AND ?1 * 32 + 31 ORDER BY n";

/// Tickets with what is told of them.
fn tickets_from() -> String {
    format!(
        "SELECT t.id, k.name, r.table_name, coalesce(t.number, p.number, ''), coalesce(t.sys_id, ''), t.state,
       t.generation, t.rule, t.opened_at, max(a.severity, {OPENED_AS}), a.occurrences, a.fingerprint, a.id,
       coalesce(t.assigned_to, ''), coalesce(t.close_notes, ''), coalesce(t.adopted, ''),
       CASE WHEN t.state IN ('opening', 'open') AND a.cleared_at IS NOT NULL THEN coalesce({NOT_CLOSED}, '') ELSE '' END
     FROM ticket t LEFT JOIN ticket p ON p.id = t.parent_id JOIN route r ON r.id = t.route_id
     JOIN destination k ON k.id = r.destination_id JOIN alert a ON a.id = t.alert_id"
    )
}

const DELIVERY: &str =
    "SELECT d.id, d.kind, d.state, k.name, r.table_name, d.severity, d.attempts, d.doubtful,
       d.created_at, d.due_at, d.reason, coalesce(t.rule, c.rule, ''), coalesce(t.alert_id, c.alert_id, 0), v.view,
       d.turn
     FROM delivery d JOIN route r ON r.id = d.route_id JOIN destination k ON k.id = d.destination_id
     LEFT JOIN ticket t ON t.id = d.ticket_id LEFT JOIN record c ON c.id = d.record_id
     LEFT JOIN device v ON v.id = d.device_id";

/// The last healings, newest first.
fn repairs(conn: &Connection) -> rusqlite::Result<Vec<RepairRow>> {
    let mut select = conn.prepare(&format!("{REPAIR} ORDER BY id DESC LIMIT ?1"))?;
    select.query_map([i64::from(u8::MAX)], repair)?.collect()
}

/// The key of a ticket; empty for a row that is damaged.
fn ticket(r: &Row<'_>, alert: Option<&Alert>) -> Result<TicketRow> {
    let (destination, table): (String, String) = (r.get(1)?, r.get(2)?);
    let (finding, generation) = (Fingerprint::from_bytes(r.get(11)?), Generation(r.get(6)?));
    Ok(TicketRow {
        assigned_to: r.get(13)?,
        close_notes: r.get(14)?,
        adopted: r.get(15)?,
        not_closed: r.get(16)?,
        correlation_id: key(&finding, &destination, &table, generation),
        id: TicketId(r.get(0)?),
        destination,
        table,
        number: r.get(3)?,
        sys_id: r.get(4)?,
        state: r.get(5)?,
        generation: generation.0,
        rule: text(r, 7)?,
        opened_at: maybe_at(r, 8)?,
        severity: level(r, 9)?,
        title: alert.map(|a| a.title.clone()).unwrap_or_default(),
        occurrences: r.get(10)?,
        fingerprint: finding.to_string(),
        parties: alert.map(Alert::parties).unwrap_or_default(),
        folded: 0,
    })
}

fn key(finding: &Fingerprint, destination: &str, table: &str, generation: Generation) -> String {
    let (Ok(destination), Ok(table)) = (DestinationName::new(destination), TableName::new(table)) else {
        return String::new();
    };
    TicketKeys::derive(finding, &destination, &table, generation).correlation_id.to_string()
}

/// Text of a row that may be damaged.
fn text(r: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = r.get_ref(column)?.as_bytes_or_null()?.unwrap_or_default();
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn delivery(r: &Row<'_>, alert: Option<&Alert>) -> rusqlite::Result<DeliveryRow> {
    Ok(DeliveryRow {
        id: DeliveryId(r.get(0)?),
        kind: r.get(1)?,
        state: r.get(2)?,
        destination: r.get(3)?,
        table: r.get(4)?,
        severity: level(r, 5)?,
        title: alert.map(|a| a.title.clone()).or(device_title(r)?).unwrap_or_default(),
        attempts: r.get(6)?,
        doubtful: r.get(7)?,
        created_at: at(r, 8)?,
        due_at: at(r, 9)?,
        reason: r.get::<_, Option<String>>(10)?.filter(|reason| !reason.trim().is_empty()),
        rule: text(r, 11)?,
        turn: r.get(14)?,
        history: Vec::new(),
        alert: None,
    })
}

/// What a delivery of a device is about.
fn device_title(r: &Row<'_>) -> rusqlite::Result<Option<String>> {
    let view: Option<Vec<u8>> = r.get(13)?;
    Ok(view.map(|view| devices::title(&view)))
}

fn at(r: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    r.get(column).map(Timestamp::from_micros)
}

fn maybe_at(r: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(r.get::<_, Option<i64>>(column)?.map(Timestamp::from_micros))
}

fn level(r: &Row<'_>, column: usize) -> rusqlite::Result<Severity> {
    Ok(Severity::numbered(r.get(column)?).unwrap_or(Severity::Warning))
}

fn severity(filter: &ListFilter) -> i64 {
    filter.min_severity.map_or(0, |s| s as i64)
}

/// Most rows of one answer: an answer over the control socket stays bounded.
const ROWS_MAX: u32 = 10_000;

fn limit(filter: &ListFilter) -> u32 {
    if filter.limit == 0 { ROWS_MAX } else { filter.limit.min(ROWS_MAX) }
}

/// Rows to ask SQLite for: all of them where something is looked for behind SQL.
fn asked(filter: &ListFilter) -> i64 {
    if filter.looks_inside() { -1 } else { limit(filter).into() }
}

/// The ids of a page are below this one.
fn before(filter: &ListFilter) -> i64 {
    filter.after.map_or(i64::MAX, |last| last.id)
}

/// What is pending comes behind this severity and id.
fn behind(filter: &ListFilter) -> (i64, i64, i64) {
    filter.after.map_or((i64::MAX, 0, 0), |last| (last.severity as i64, last.turn, last.id))
}

fn since(filter: &ListFilter) -> i64 {
    filter.since.map_or(i64::MIN, Timestamp::as_micros)
}

/// `LIKE` pattern of a search text; its own wildcards are left to mean what they mean in SQL.
fn like(filter: &ListFilter) -> Option<String> {
    filter.text.as_ref().map(|text| format!("%{text}%"))
}
