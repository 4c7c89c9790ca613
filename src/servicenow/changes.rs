//! What was changed there since: polled by `sys_updated_on`, by the server's clock, a page at a time.
//!
//! A page begins behind the last record of the one before, never at a count of records: what is changed while pages are read
//! moves to the end, and a count would pass over as many others.

use super::call::ServiceNow;
use super::classify::{Attempt, What};
use super::query::{Query, QueryError};
use super::ticket::{DETAIL_FIELDS, DISPLAY, remote};
use super::wire;
use crate::destination::{Changed, Remote, SendError, Since};
use crate::model::TableName;

const PAGE: usize = 200;

impl ServiceNow {
    /// What the displays of our tickets begin with: our identity with it, where that can be asked for.
    fn display_prefix(&self) -> &str {
        let prefix = self.display.split(" (").next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'_' | b'.');
        if prefix.bytes().all(plain) { prefix } else { DISPLAY }
    }

    /// Our records of a table that were changed since then.
    pub(super) async fn changed_tickets(
        &self,
        table: &TableName,
        since: &Since,
    ) -> Result<Changed, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let query = query(self.display_prefix(), since)
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let listed = self.look(&attempt, (table, DETAIL_FIELDS), &query, PAGE, "a look for changes").await?;
        let rows = &listed.rows;
        // A condition that the instance ignored lets the records of others in: they are none of ours, and the next
        // page would only hold more of them.
        let ours = rows.iter().filter(|row| wire::field(row, "correlation_id").starts_with("otrelay-"));
        let records: Vec<_> = ours.filter_map(|row| remote(table, row)).collect();
        let is_last = match listed.total {
            Some(total) => total <= PAGE,
            None => rows.is_empty(),
        };
        let next = if is_last { None } else { next(&records, since, &attempt)? };
        Ok(Changed { records, next, server_now: listed.server_now })
    }
}

fn query(display: &str, since: &Since) -> Result<Query, QueryError> {
    let at = since.at.servicenow();
    let mut query =
        Query::default().starts_with("correlation_display", display)?.at_least("sys_updated_on", &at)?;
    if let Some(behind) = &since.behind {
        query = query.either_above(("sys_updated_on", &at), ("sys_id", behind.as_str()))?;
    }
    query.order_by("sys_updated_on")?.order_by("sys_id")
}

/// Where the next page begins. An instance that does not show the time, or that ignored where this page was to begin, would
/// answer with the same one for ever.
fn next(records: &[Remote], since: &Since, attempt: &Attempt<'_>) -> Result<Option<Since>, SendError> {
    let Some(last) = records.last() else { return Ok(None) };
    let Some(at) = last.detail.updated_at else {
        let cause =
            format!("it has more than {PAGE} changed records and does not show when they were changed");
        return Err(attempt.hold_table(&cause, "let the integration user read sys_updated_on in this table"));
    };
    let is_behind = since.behind.as_ref().is_none_or(|id| (at, &last.sys_id) > (since.at, id));
    if !is_behind {
        return Err(attempt.retry("a page of what was changed begins where the one before began"));
    }
    Ok(Some(Since { at, behind: Some(last.sys_id.clone()) }))
}
