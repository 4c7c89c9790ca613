//! What was changed there since: polled by `sys_updated_on`, by the server's clock, a page at a time.
//!
//! A page begins behind the last record of the one before, never at a count of records: what is changed while pages are read
//! moves to the end, and a count would pass over as many others.

use std::sync::atomic::Ordering;

use super::call::ServiceNow;
use super::classify::{self, Attempt, What};
use super::query::{Query, QueryError};
use super::ticket::{DETAIL_FIELDS, DISPLAY, remote};
use super::wire;
use crate::destination::{Changed, FIND_MAX, Remote, SendError, Since};
use crate::model::{SysId, TableName, Timestamp};

const PAGE: usize = 200;
/// What each `correlation_id` of ours begins with.
const PREFIX: &str = "otrelay-";

/// From so many records on that are all gone at once it is asked whether the table shows us any.
pub(super) const MANY: usize = 3;

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
        // A condition that the instance ignored lets the records of others in. They are none of ours, but the next page
        // begins behind them: a page that holds only theirs is not the end.
        let ours = rows.iter().filter(|row| wire::field(row, "correlation_id").starts_with(PREFIX));
        let records: Vec<_> = ours.filter_map(|row| remote(table, row)).collect();
        let is_last = match listed.total {
            Some(total) => total <= PAGE,
            None => rows.is_empty(),
        };
        let last = rows.iter().rev().find_map(|row| remote(table, row));
        let next = if is_last { None } else { next(last.as_ref(), since, &attempt)? };
        let strangers = u32::try_from(rows.len() - records.len()).unwrap_or(u32::MAX);
        Ok(Changed { records, next, server_now: listed.server_now, strangers })
    }

    /// Whether a table shows us anything at all; where it does not, that none of our records is found means nothing.
    pub(super) async fn sees_any(&self, table: &TableName) -> Result<(), SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let all = Query::default()
            .at_least("sys_created_on", &Timestamp::EPOCH.servicenow())
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let shown = self.look(&attempt, (table, "sys_id"), &all, 1, "a look at the table").await?;
        if shown.rows.is_empty() {
            let cause = "the table shows no record at all, so that our tickets are not found there says nothing of them";
            return Err(attempt.hold_table(cause, "let the integration user read the records of this table"));
        }
        Ok(())
    }

    /// Which of these records are there, with all that is worth knowing of them.
    pub(super) async fn tickets_by_id(
        &self,
        table: &TableName,
        ids: &[SysId],
    ) -> Result<Vec<Remote>, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let mut all = Vec::new();
        let mut left = ids;
        while !left.is_empty() {
            let most = self.look_up_max.load(Ordering::Relaxed).clamp(1, FIND_MAX);
            let (now, later) = left.split_at(left.len().min(most));
            let query = Query::default()
                .one_of("sys_id", now.iter().map(SysId::as_str))
                .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
            // One more than there can be: what comes beside them says that the question was not understood.
            let looked =
                self.look(&attempt, (table, DETAIL_FIELDS), &query, now.len() + 1, "a look at tickets");
            let rows = match looked.await {
                Ok(listed) => listed.rows,
                Err(e) if classify::is_too_large(&e) && now.len() > 1 => {
                    self.look_up_max.store(now.len() / 2, Ordering::Relaxed);
                    continue;
                }
                Err(e) => return Err(e),
            };
            let found: Vec<_> = rows.iter().filter_map(|row| remote(table, row)).collect();
            if found.len() < rows.len() || found.iter().any(|remote| !now.contains(&remote.sys_id)) {
                return Err(attempt.hold_table(
                    "the instance answered a look at tickets with records that were not asked for",
                    "let the integration user read sys_id in this table",
                ));
            }
            all.extend(found);
            left = later;
        }
        Ok(all)
    }
}

fn query(display: &str, since: &Since) -> Result<Query, QueryError> {
    let at = since.at.servicenow();
    // Both say which are ours: where the instance ignores one, the other keeps the records of others out.
    let mut query = Query::default()
        .starts_with("correlation_display", display)?
        .starts_with("correlation_id", PREFIX)?
        .at_least("sys_updated_on", &at)?;
    if let Some(behind) = &since.behind {
        query = query.either_above(("sys_updated_on", &at), ("sys_id", behind.as_str()))?;
    }
    query.order_by("sys_updated_on")?.order_by("sys_id")
}

/// Where the next page begins. An instance that does not show the time, or that ignored where this page was to begin, would
/// answer with the same one for ever.
fn next(last: Option<&Remote>, since: &Since, attempt: &Attempt<'_>) -> Result<Option<Since>, SendError> {
    let Some(last) = last else { return Ok(None) };
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
