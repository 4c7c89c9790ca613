//! Tickets: found by their keys, created with both, read back.
//!
//! The instance drops a condition that it does not understand (or that we may not read) and answers with every row. So
//! each row is checked for the id that was asked for, and a look-up that brings strangers proves nothing: then nothing is
//! created. What a create dropped in silence is read off its answer, also whether the record is ours at all. Before a
//! create is condemned, the record with our `sys_id` is asked for: it may be there already.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::batch::Single;
use super::call::{Call, Path, ServiceNow};
use super::cis::CI;
use super::classify::{self, Attempt, What};
use super::query::{Query, url_value};
use super::{change, fields, states, wire};
use crate::destination::{
    Asked, Detail, DroppedField, FIND_MAX, Fields, Found, LookedUp, Order, Remote, SendError, Sent,
};
use crate::model::ticket::{KeysKept, TicketKeys};
use crate::model::{Class, CorrelationId, HoldScope, SysId, TableName, Timestamp, text};
use crate::net::Answer;

/// Beginning of each `correlation_display`: whose tickets these are.
pub(super) const DISPLAY: &str = "otrelay";
/// Length of that column.
const DISPLAY_MAX: usize = 100;
pub(super) const LOOK_UP_FIELDS: &str = "sys_id,number,state,active,correlation_id,sys_created_on,sys_created_by,correlation_display,sys_mod_count";
/// The same with all that is worth knowing of a ticket that we know.
pub(super) const DETAIL_FIELDS: &str = "sys_id,number,state,active,correlation_id,sys_created_on,sys_created_by,\
     correlation_display,sys_mod_count,\
     sys_updated_on,resolved_at,closed_at,close_notes,assigned_to.name";
/// Longest close notes that are taken home, in bytes.
const CLOSE_NOTES_MAX: usize = 1_000;
/// Pages read in one look-up; each id has one row, rarely two.
const PAGES_MAX: usize = 5;
/// Longest `number` and `state` that are kept, in bytes.
const SHORT_MAX: usize = 100;
/// Longest fields of a record that was refused as too large, in characters: the next tries.
const SHORTER: [usize; 2] = [1_000, 200];

impl ServiceNow {
    /// Which of these tickets are there, with what these columns say.
    pub(super) async fn find_tickets(
        &self,
        table: &TableName,
        asked: &[Asked],
        fields: &str,
    ) -> Result<LookedUp, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        if asked.len() > FIND_MAX {
            let cause = format!("{} ids were asked for at once; at most {FIND_MAX} are allowed", asked.len());
            return Err(attempt.hold_table(&cause, "this is a fault of otrelay; report it"));
        }
        let mut all = LookedUp::default();
        let mut left = asked;
        while !left.is_empty() {
            let most = self.look_up_max.load(Ordering::Relaxed).max(1);
            let (now, later) = left.split_at(left.len().min(most));
            let keys: Vec<CorrelationId> = now.iter().map(|a| a.keys.correlation_id.clone()).collect();
            match self.find_by_query(&attempt, &keys, fields).await {
                Ok(part) => {
                    all.found.extend(part.found);
                    all.status = part.status.or(all.status);
                    all.server_now = part.server_now.or(all.server_now);
                    left = later;
                }
                Err(e) if classify::is_too_large(&e) && now.len() > 1 => {
                    self.look_up_max.store(now.len() / 2, Ordering::Relaxed);
                }
                Err(e) => return Err(e),
            }
        }
        for one in asked.iter().filter(|one| one.doubtful) {
            if all.found.iter().any(|f| f.correlation_id == one.keys.correlation_id) {
                continue;
            }
            if let Some((record, _)) = self.ours(table, &one.keys, fields).await?
                && let Some(remote) = remote(table, &record)
            {
                let correlation_id = one.keys.correlation_id.clone();
                all.found.push(Found { correlation_id, remote, twins: 0 });
            }
        }
        self.mark_strangers(all.found.iter_mut().map(|found| &mut found.remote)).await;
        Ok(all)
    }

    async fn find_by_query(
        &self,
        attempt: &Attempt<'_>,
        keys: &[CorrelationId],
        fields: &str,
    ) -> Result<LookedUp, SendError> {
        let query = look_up(keys, fields)
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let limit = keys.len() * 2 + 10;
        let mut rows = Rows::default();
        let (mut status, mut server_now) = (None, None);
        for page in 0..PAGES_MAX {
            let offset = page * limit;
            let call = Call::get(
                What::LookUp,
                attempt.table,
                Path::Records(attempt.table),
                format!("{query}&sysparm_limit={limit}&sysparm_offset={offset}"),
            );
            let listed = self.list(&call, attempt, "a look-up").await?;
            status = listed.status;
            server_now = listed.server_now.or(server_now);
            for row in &listed.rows {
                rows.take(attempt.table, row, keys)
                    .map_err(|cause| attempt.retry(cause).answered(listed.status.unwrap_or_default()))?;
            }
            if rows.foreign > 0 {
                break;
            }
            // Rows that we may not see count against the limit, so a short page alone is not the end.
            if listed.total.unwrap_or_default() <= offset + limit && listed.rows.len() < limit {
                break;
            }
        }
        let missing = keys.iter().any(|key| !rows.best.contains_key(key));
        if rows.foreign > 0 && missing {
            return Err(attempt.hold_table(
                "the instance ignored our look-up: it answered with records that do not have the correlation_id we \
                 asked for",
                "give the integration user the right to read the field correlation_id in this table (the table must \
                 have that field); until then nothing is created there, because that could make twins",
            ));
        }
        let found = rows.best.into_values().map(|row| row.found).collect();
        Ok(LookedUp { found, status, server_now })
    }

    /// Creates a ticket; shorter when it is too large, and not again when it is there.
    pub(super) async fn open_ticket(&self, order: &Order) -> Result<Sent, SendError> {
        let attempt = self.attempt(What::Create, &order.table);
        let mut fields = self.outgoing(&attempt, order)?;
        let mut shorter = SHORTER.into_iter();
        loop {
            let error = match self.create(&attempt, order, &fields).await {
                Err(error) => error,
                made => return made,
            };
            if classify::is_too_large(&error)
                && let Some(most) = shorter.next()
            {
                fields = fields::shortened(&fields, most);
                continue;
            }
            return self.unless_there(order, error).await;
        }
    }

    /// Before a create is condemned it is looked whether the record is there.
    pub(super) async fn unless_there(&self, order: &Order, error: SendError) -> Result<Sent, SendError> {
        let may_be_there = classify::is_unique_violation(&error.message)
            || error.class == Class::Reject && error.status == Some(403)
            || error.class == Class::Hold && error.hold == HoldScope::Delivery;
        if may_be_there { self.adopt(order, error).await } else { Err(error) }
    }

    /// A create as one item of a batch.
    pub(super) fn single_ticket<'a>(&'a self, order: &'a Order) -> Result<Single<'a>, SendError> {
        let attempt = self.attempt(What::Create, &order.table);
        let fields = self.outgoing(&attempt, order)?;
        let keys = self.keys(order);
        let call = create_call(&attempt, order, &fields, &keys)?;
        let read =
            move |value: &Value, status: u16| created(&attempt, order, (&fields, &keys), value, status);
        Ok(Single { call, read: Box::new(read) })
    }

    fn outgoing(&self, attempt: &Attempt<'_>, order: &Order) -> Result<Fields, SendError> {
        let mut fields = fields::outgoing(&order.fields).map_err(|e| {
            attempt.reject(&e.to_string(), "correct [rule.action.fields], then `otrelay queue retry`")
        })?;
        // The operator's own word for it stands.
        if let Some(ci) = self.known_ci(order) {
            fields.entry(CI.to_owned()).or_insert(ci);
        }
        Ok(self.fitting(&order.table, fields))
    }

    async fn create(&self, attempt: &Attempt<'_>, order: &Order, fields: &Fields) -> Result<Sent, SendError> {
        if order.table.as_str() == change::TABLE && !self.no_change_api.is_so(self.now()) {
            match self.create_change(attempt, order, fields).await {
                Err(e) if classify::is_no_such_api(&e) => {
                    tracing::info!(
                        "{} has no Change Management API; changes go by the Table API",
                        self.place
                    );
                    self.no_change_api.learn(self.now());
                }
                made => return made,
            }
        }
        let keys = self.keys(order);
        let (value, answer) = self.call(&create_call(attempt, order, fields, &keys)?).await?;
        created(attempt, order, (fields, &keys), &value, answer.status)
    }

    /// What became of a create that was refused: if the record with our `sys_id` is there and nobody else's key is in
    /// it, it was made before.
    async fn adopt(&self, order: &Order, error: SendError) -> Result<Sent, SendError> {
        let (record, answer) = match self.ours(&order.table, &order.keys, LOOK_UP_FIELDS).await {
            Ok(Some(found)) => found,
            Ok(None) => return Err(error),
            // Not known is not refused.
            Err(unknown) => {
                let message =
                    format!("{}; whether it is there already is not known: {unknown}", error.message);
                let class = if error.class == Class::Reject { Class::Retry } else { error.class };
                return Err(SendError { class, message, doubtful: true, ..error });
            }
        };
        let Some(mut remote) = remote(&order.table, &record) else { return Err(error) };
        self.mark_strangers(std::iter::once(&mut remote)).await;
        let kept = wire::field(&record, "correlation_id");
        let correlation_id = kept == order.keys.correlation_id.as_str();
        let lost = DroppedField { field: "correlation_id".to_owned(), got: String::new() };
        Ok(Sent {
            created: false,
            remote: Some(remote),
            dropped: if correlation_id { Vec::new() } else { vec![lost] },
            kept: Some(KeysKept { sys_id: true, correlation_id }),
            not_closed: None,
            status: answer.status,
        })
    }

    /// The record that has our `sys_id`, if its `correlation_id` is ours or empty: nobody else derives that id, and an
    /// instance may have dropped the field when it was made.
    pub(super) async fn ours(
        &self,
        table: &TableName,
        keys: &TicketKeys,
        fields: &str,
    ) -> Result<Option<(Value, Answer)>, SendError> {
        let called = self
            .call(&Call::get(
                What::LookUp,
                table,
                Path::Record(table, &keys.sys_id),
                format!("sysparm_fields={}&{VALUES}", url_value(fields)),
            ))
            .await;
        let (mut value, answer) = match called {
            Ok(called) => called,
            Err(e) if classify::is_no_record(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        let record = value.get_mut("result").map(Value::take).unwrap_or_default();
        let kept = wire::field(&record, "correlation_id");
        let is_ours = wire::field(&record, "sys_id") == keys.sys_id.as_str()
            && (kept.is_empty() || kept == keys.correlation_id.as_str());
        Ok(is_ours.then_some((record, answer)))
    }
}

/// The request that makes a ticket.
fn create_call<'a>(
    attempt: &Attempt<'_>,
    order: &'a Order,
    fields: &Fields,
    keys: &Fields,
) -> Result<Call<'a>, SendError> {
    let body = serde_json::to_vec(&fields::record(fields, keys))
        .map_err(|_| attempt.reject("the record cannot be written as JSON", "report it"))?;
    let wanted: Vec<&str> =
        ["number", "state", "active", "sys_created_on", "sys_created_by", "sys_mod_count"]
            .into_iter()
            .chain(keys.keys().chain(fields.keys()).map(String::as_str))
            .collect();
    Ok(Call::post(
        What::Create,
        &order.table,
        Path::Records(&order.table),
        format!("{VALUES}&sysparm_fields={}", url_value(&wanted.join(","))),
        body,
    ))
}

/// What its answer says.
fn created(
    attempt: &Attempt<'_>,
    order: &Order,
    (fields, keys): (&Fields, &Fields),
    value: &Value,
    status: u16,
) -> Result<Sent, SendError> {
    let record = value.get("result").unwrap_or(&Value::Null);
    read_back((&order.table, record), fields, keys, &order.keys, status)
        .map_err(|cause| attempt.retry(&cause).answered(status))
}

/// Database values, references as bare ids.
pub(super) const VALUES: &str = "sysparm_display_value=false&sysparm_exclude_reference_link=true";

/// The query string of a look-up, without its page.
fn look_up(keys: &[CorrelationId], fields: &str) -> Result<String, super::query::QueryError> {
    let query = Query::default()
        .one_of("correlation_id", keys.iter().map(CorrelationId::as_str))?
        .order_by("sys_created_on")?
        .order_by("sys_id")?;
    Ok(format!("sysparm_query={}&sysparm_fields={}&{VALUES}", query.encoded(), url_value(fields)))
}

/// The rows of a look-up so far: the best one for each id.
#[derive(Default)]
struct Rows {
    best: BTreeMap<CorrelationId, Row>,
    foreign: usize,
}

struct Row {
    found: Found,
    created: String,
}

impl Rows {
    fn take(&mut self, table: &TableName, row: &Value, keys: &[CorrelationId]) -> Result<(), &'static str> {
        let id = wire::field(row, "correlation_id");
        let Some(key) = keys.iter().find(|k| k.as_str() == id) else {
            self.foreign += 1;
            return Ok(());
        };
        let remote = remote(table, row).ok_or("a record in the answer has no valid sys_id")?;
        let found = Found { correlation_id: key.clone(), remote, twins: 0 };
        let mut row = Row { found, created: wire::field(row, "sys_created_on") };
        match self.best.remove(key) {
            // Pages may overlap.
            Some(held) if held.found.remote.sys_id == row.found.remote.sys_id => {
                row.found.twins = held.found.twins;
            }
            Some(held) => {
                let twins = held.found.twins + 1;
                if rank(&held) <= rank(&row) {
                    row = held;
                }
                row.found.twins = twins;
            }
            None => {}
        }
        self.best.insert(key.clone(), row);
        Ok(())
    }
}

/// Twins: an active one before a closed one, then the oldest.
fn rank(row: &Row) -> (bool, &str, &SysId) {
    (!row.found.remote.active, &row.created, &row.found.remote.sys_id)
}

/// A table without that field has no closed records that we could tell.
fn is_active(text: &str) -> bool {
    !matches!(text, "false" | "0")
}

fn short(value: &str) -> String {
    text::clip(&text::one_line(value), SHORT_MAX).into_owned()
}

/// A record of an answer; `None` without a valid `sys_id`.
pub(super) fn remote(table: &TableName, record: &Value) -> Option<Remote> {
    let time = |name: &str| Timestamp::from_servicenow(&wire::field(record, name));
    let remote = Remote {
        sys_id: SysId::new(&wire::field(record, "sys_id")).ok()?,
        number: short(&wire::field(record, "number")),
        active: is_active(&wire::field(record, "active")),
        state: short(&wire::field(record, "state")),
        detail: Detail {
            resolved: false,
            mod_count: wire::field(record, "sys_mod_count").trim().parse().ok(),
            assigned_to: short(&wire::field(record, "assigned_to.name")),
            close_notes: text::clip(&text::lines(&wire::field(record, "close_notes")), CLOSE_NOTES_MAX)
                .into_owned(),
            ended_at: time("resolved_at").or_else(|| time("closed_at")).or_else(|| time("sys_updated_on")),
            updated_at: time("sys_updated_on"),
            created_by: short(&wire::field(record, "sys_created_by")),
            created_at: time("sys_created_on"),
            is_strangers: false,
            agent: short(&wire::field(record, "correlation_display")),
            table: String::new(),
        },
    };
    Some(states::of(table).read(remote))
}

/// Which agent a ticket is of, for people: its identity and its name. Both may be looked at, neither is a key.
pub fn display(id: &str, name: &str) -> String {
    text::clip(&text::one_line(&format!("{DISPLAY} {id} ({name})")), DISPLAY_MAX).into_owned()
}

impl ServiceNow {
    /// What goes into a ticket beside its fields.
    pub(super) fn keys(&self, order: &Order) -> Fields {
        Fields::from([
            ("sys_id".to_owned(), order.keys.sys_id.to_string()),
            ("correlation_id".to_owned(), order.keys.correlation_id.to_string()),
            ("correlation_display".to_owned(), self.display.clone()),
        ])
    }
}

/// What the answer to a create shows, or why it does not show our record.
pub(super) fn read_back(
    (table, record): (&TableName, &Value),
    fields: &Fields,
    sent_keys: &Fields,
    keys: &TicketKeys,
    status: u16,
) -> Result<Sent, String> {
    let mut remote =
        remote(table, record).ok_or("the answer says that a record was made, but it has no valid sys_id")?;
    if sent_keys.get("correlation_display") == Some(&remote.detail.agent) {
        remote.detail.agent.clear();
    }
    let correlation_id = wire::field(record, "correlation_id");
    let kept = KeysKept {
        sys_id: remote.sys_id == keys.sys_id,
        correlation_id: correlation_id == keys.correlation_id.as_str(),
    };
    let dropped_fields = fields::dropped(fields, record);
    // A table that keeps neither key still shows our text; a replayed answer shows somebody else's.
    let is_kept = |name: &str| dropped_fields.iter().all(|d| d.field != name);
    let mut texts =
        ["short_description", "description"].into_iter().filter(|name| fields.contains_key(*name));
    let is_echo = texts.next().is_some_and(is_kept) && texts.all(is_kept);
    let is_plausible = correlation_id.is_empty() && is_echo;
    if kept.neither() && !is_plausible {
        return Err(format!(
            "the answer shows another record ({}) with neither of our keys: a proxy or a cache may have replayed it",
            if remote.number.is_empty() { remote.sys_id.as_str() } else { &remote.number }
        ));
    }
    let mut sent = sent_keys.clone();
    // Another sys_id than ours is no loss: the record is known by the one it has.
    sent.remove("sys_id");
    let mut dropped = fields::dropped(&sent, record);
    dropped.extend(dropped_fields);
    Ok(Sent { created: true, remote: Some(remote), dropped, kept: Some(kept), not_closed: None, status })
}
