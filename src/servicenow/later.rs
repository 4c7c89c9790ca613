//! What comes later of a ticket, over the Table API: notes, resolving it, opening it again.
//!
//! One `PATCH` each. A refusal is followed by a look at the record: what a person closed meanwhile, or deleted, is no
//! failure of ours. Journal fields append, and read back empty as values; whether a note is there is read from what
//! people see of them.

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::cis::CI;
use super::classify::{self, Attempt, What};
use super::query::{Query, QueryError, url_value};
use super::ticket::{DETAIL_FIELDS, VALUES, remote};
use super::{fields, states, wire};
use crate::destination::{Asked, Fields, Found, LookedUp, Order, Remote, SendError, Sent};
use crate::model::{Class, SysId, TableName, TicketState};
use crate::net::Method;

/// Entries of a journal that are read to find out whether any can be read.
const ENTRIES: usize = 200;
/// Choices of a field that are read.
const CHOICES: usize = 200;

/// What became of a write that was refused.
enum Refused {
    /// There is no such record.
    Gone(u16),
    /// It is closed, so nothing can be told to it.
    Over(Box<Remote>, u16),
    /// It is still open.
    Open(Box<Remote>),
}

impl ServiceNow {
    pub(super) async fn note_ticket(&self, order: &Order) -> Result<Sent, SendError> {
        let fields = self.clean(order, &order.fields)?;
        match self.patch(order, &fields).await {
            Err(error) if is_refusal(&error) => match self.what_stands(order).await {
                Ok(Refused::Gone(status)) => Ok(moot(None, status)),
                Ok(Refused::Over(remote, status)) => Ok(moot(Some(*remote), status)),
                _ => Err(error),
            },
            other => other,
        }
    }

    pub(super) async fn resolve_ticket(&self, order: &Order) -> Result<Sent, SendError> {
        let known_states = states::of(&order.table);
        let Some(fields) = known_states.resolving(&order.fields) else {
            let cause = "otrelay does not know which state of this table is the resolved one";
            let remedy = "set `on_cleared = \"note\"` in the rule's action, or `state` in its [rule.action.resolve], then `otrelay queue drop`";
            return Err(self.attempt(What::Change, &order.table).reject(cause, remedy));
        };
        let fields = self.clean(order, &fields)?;
        let error = match self.patch(order, &fields).await {
            Err(error) if is_refusal(&error) => error,
            other => return other.map(as_it_stands),
        };
        let remote = match self.what_stands(order).await {
            Ok(Refused::Gone(status)) => return Ok(moot(None, status)),
            Ok(Refused::Over(remote, status)) => return Ok(moot(Some(*remote), status)),
            Ok(Refused::Open(remote)) => *remote,
            Err(_) => return Err(error),
        };
        let error = match self.with_other_code(order, fields, error).await {
            Err(error) if is_refusal(&error) => error,
            other => return other.map(as_it_stands),
        };
        if !known_states.stepwise || error.class != Class::Reject {
            return Err(error);
        }
        // No fault that anybody could mend here: the same is refused for each record that nobody worked on yet.
        let sent = moot(Some(remote), error.status.unwrap_or_default());
        Ok(Sent { not_closed: Some(error.message), ..sent })
    }

    /// The code of the default may be none of this instance's; one that the rule gives is the operator's.
    async fn with_other_code(
        &self,
        order: &Order,
        mut fields: Fields,
        error: SendError,
    ) -> Result<Sent, SendError> {
        let known_states = states::of(&order.table);
        // Another code does not change what a rule says about states.
        let is_by_rule =
            known_states.stepwise && error.message.to_ascii_lowercase().contains("business rule");
        if !is_by_rule
            && let Some((name, known)) =
                known_states.code.filter(|(name, _)| !order.fields.contains_key(*name))
            && let Ok(Some(code)) = self.choice(&order.table, name, known).await
            && fields.get(name) != Some(&code)
        {
            fields.insert(name.to_owned(), code);
            return self.patch(order, &fields).await;
        }
        Err(error)
    }

    /// Opens a ticket again. Where that is refused, the answer shows a record that is not open, or none.
    pub(super) async fn reopen_ticket(&self, order: &Order) -> Result<Sent, SendError> {
        let error = match states::of(&order.table).reopening(&order.fields) {
            Some(fields) => match self.patch(order, &self.clean(order, &fields)?).await {
                Err(error) if is_refusal(&error) => Some(error),
                other => return other,
            },
            None => None,
        };
        match self.what_stands(order).await? {
            Refused::Gone(status) => Ok(moot(None, status)),
            Refused::Over(remote, status) => Ok(moot(Some(*remote), status)),
            Refused::Open(remote) => error.map_or_else(|| Ok(moot(Some(*remote), 200)), Err),
        }
    }

    /// Writes the CI where the ticket is open and names none: a person's own word for it stands, and a table without the
    /// column gets nothing.
    pub(super) async fn link_device(&self, order: &Order) -> Result<Sent, SendError> {
        let wanted = format!("{DETAIL_FIELDS},{CI}");
        let Some((record, answer)) = self.ours(&order.table, &order.keys, &wanted).await? else {
            return Ok(moot(None, 404));
        };
        let Some(remote) = remote(&order.table, &record) else { return Ok(moot(None, answer.status)) };
        let is_empty = record.get(CI).is_some() && wire::field(&record, CI).is_empty();
        if order.fields.is_empty() || !is_empty || remote.ticket_state() != TicketState::Open {
            return Ok(moot(Some(remote), answer.status));
        }
        self.patch(order, &self.clean(order, &order.fields)?).await
    }

    fn clean(&self, order: &Order, given: &Fields) -> Result<Fields, SendError> {
        let attempt = self.attempt(What::Change, &order.table);
        fields::outgoing(given).map_err(|e| attempt.reject(&e.to_string(), "report it"))
    }

    async fn patch(&self, order: &Order, fields: &Fields) -> Result<Sent, SendError> {
        let attempt = self.attempt(What::Change, &order.table);
        let body = serde_json::to_vec(&fields::record(fields, &Fields::new()))
            .map_err(|_| attempt.reject("the change cannot be written as JSON", "report it"))?;
        let wanted: Vec<&str> = DETAIL_FIELDS.split(',').chain(fields.keys().map(String::as_str)).collect();
        let (value, answer) = self
            .call(&Call {
                what: What::Change,
                table: &order.table,
                method: Method::Patch,
                path: Path::Record(&order.table, &order.keys.sys_id),
                query: format!("{VALUES}&sysparm_fields={}", url_value(&wanted.join(","))),
                body: Some(body),
            })
            .await?;
        let record = value.get("result").unwrap_or(&Value::Null);
        let Some(remote) = remote(&order.table, record).filter(|r| r.sys_id == order.keys.sys_id) else {
            let cause = "the answer shows another record than the one that was changed";
            return Err(attempt.retry(cause).answered(answer.status));
        };
        let dropped = fields::dropped(fields, record);
        Ok(Sent {
            created: true,
            remote: Some(remote),
            dropped,
            kept: None,
            not_closed: None,
            status: answer.status,
        })
    }

    /// What the record of a refused write is now.
    async fn what_stands(&self, order: &Order) -> Result<Refused, SendError> {
        let found = self.ours(&order.table, &order.keys, DETAIL_FIELDS).await?;
        let Some((record, answer)) = found else { return Ok(Refused::Gone(404)) };
        let Some(remote) = remote(&order.table, &record) else { return Ok(Refused::Gone(answer.status)) };
        let remote = Box::new(remote);
        Ok(match remote.ticket_state() {
            TicketState::Open => Refused::Open(remote),
            _ => Refused::Over(remote, answer.status),
        })
    }

    /// A choice of a field: the best of those that are known, else the first that the instance has.
    async fn choice(
        &self,
        table: &TableName,
        field: &str,
        known: &[&str],
    ) -> Result<Option<String>, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let choices =
            TableName::new("sys_choice").map_err(|e| attempt.hold_table(e.expected, "report it"))?;
        let query = Query::default()
            .one_of("name", [table.as_str()])
            .and_then(|q| q.one_of("element", [field]))
            .and_then(|q| q.one_of("inactive", ["false"]))
            .map_err(|e| own_fault(&attempt, &e))?;
        let rows = self.records_of(&attempt, &choices, &query, "name,element,value", CHOICES).await?;
        let ours = rows
            .iter()
            .filter(|row| wire::field(row, "name") == table.as_str() && wire::field(row, "element") == field);
        let values: Vec<String> =
            ours.map(|row| wire::field(row, "value")).filter(|v| !v.is_empty()).collect();
        let best = known.iter().find(|code| values.iter().any(|value| value == *code));
        Ok(best.map(|code| (*code).to_owned()).or_else(|| values.first().cloned()))
    }

    pub(super) async fn find_notes(&self, table: &TableName, asked: &[Asked]) -> Result<LookedUp, SendError> {
        let mut all = LookedUp::default();
        for one in asked.iter().filter(|one| !one.mark.is_empty()) {
            let Some((record, status)) = self.with_history(table, &one.keys.sys_id).await? else { continue };
            all.status = Some(status);
            let Some(remote) = remote(table, &record).filter(|r| r.sys_id == one.keys.sys_id) else {
                continue;
            };
            let history = shown(&record, "work_notes");
            let is_there = if history.is_empty() {
                self.is_in_journal(table, one, &remote).await?
            } else {
                history.contains(&one.mark)
            };
            if is_there {
                let correlation_id = one.keys.correlation_id.clone();
                all.found.push(Found { correlation_id, remote, twins: 0 });
            }
        }
        Ok(all)
    }

    async fn with_history(
        &self,
        table: &TableName,
        sys_id: &SysId,
    ) -> Result<Option<(Value, u16)>, SendError> {
        let fields = url_value(&format!("{DETAIL_FIELDS},work_notes"));
        let called = self
            .call(&Call::get(
                What::LookUp,
                table,
                Path::Record(table, sys_id),
                format!(
                    "sysparm_fields={fields}&sysparm_display_value=all&sysparm_exclude_reference_link=true"
                ),
            ))
            .await;
        match called {
            Ok((mut value, answer)) => {
                Ok(Some((value.get_mut("result").map(Value::take).unwrap_or_default(), answer.status)))
            }
            Err(e) if classify::is_no_record(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A record without any history has none, or hides it. Where its journal cannot be read either, the count of its
    /// changes tells; where that says nothing, it is taken for there: a note may be missing, never doubled.
    async fn is_in_journal(
        &self,
        table: &TableName,
        one: &Asked,
        remote: &Remote,
    ) -> Result<bool, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let journal =
            TableName::new("sys_journal_field").map_err(|e| attempt.hold_table(e.expected, "report it"))?;
        let query = Query::default()
            .one_of("element_id", [one.keys.sys_id.as_str()])
            .map_err(|e| own_fault(&attempt, &e))?;
        let rows = match self.records_of(&attempt, &journal, &query, "element_id,value", ENTRIES).await {
            Ok(rows) => rows,
            Err(e) if e.status == Some(403) => Vec::new(),
            Err(e) => return Err(e),
        };
        let mut rows =
            rows.iter().filter(|row| wire::field(row, "element_id") == one.keys.sys_id.as_str()).peekable();
        if rows.peek().is_some() {
            return Ok(rows.any(|row| wire::field(row, "value").contains(&one.mark)));
        }
        Ok(match (one.mod_count, remote.detail.mod_count) {
            (Some(before), Some(now)) => now > before,
            _ => true,
        })
    }
}

/// The instance said no to this record; nothing was done.
fn is_refusal(error: &SendError) -> bool {
    !error.doubtful && matches!(error.status, Some(403 | 404))
}

/// A change that was taken without its state has not closed anything.
fn as_it_stands(mut sent: Sent) -> Sent {
    let is_open = sent.remote.as_ref().is_some_and(|remote| remote.ticket_state() == TicketState::Open);
    let state = sent.dropped.iter().position(|dropped| dropped.field == "state").filter(|_| is_open);
    if let Some(at) = state {
        let got = sent.dropped.remove(at).got;
        sent.created = false;
        sent.not_closed = Some(format!("it took the change and left the state at `{got}`"));
    }
    sent
}

/// There was nothing to do.
fn moot(remote: Option<Remote>, status: u16) -> Sent {
    Sent { created: false, remote, dropped: Vec::new(), kept: None, not_closed: None, status }
}

/// What people see of a field.
fn shown(record: &Value, field: &str) -> String {
    match record.get(field) {
        Some(Value::Object(members)) => members.get("display_value").map(wire::text_of).unwrap_or_default(),
        Some(value) => wire::text_of(value),
        None => String::new(),
    }
}

fn own_fault(attempt: &Attempt<'_>, e: &QueryError) -> SendError {
    attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it")
}
