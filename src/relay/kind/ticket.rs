//! Opening a ticket: there is at most one for an alert, a table and a generation, found by its keys.

use std::time::Duration;

use super::{Job, Repeat, Work};
use crate::destination::{Found, Order, Remote, Sent};
use crate::model::ticket::LINK;
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// There must be a ticket for this alert.
pub(super) struct Open;

impl Work for Open {
    fn repeat(&self) -> Repeat {
        Repeat::ByKey
    }

    /// The parent of a storm says what it stands for.
    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let claimed = job.claimed;
        let mut fields = job.fields()?;
        // The operator's own word for it stands.
        if let Some(ci) = &claimed.about.ci {
            fields.entry("cmdb_ci".to_owned()).or_insert_with(|| ci.clone());
        }
        if let Some((table, sys_id)) = &claimed.ticket.beside {
            fields.insert(LINK.to_owned(), sys_id.to_string());
            let text = fields.entry("description".to_owned()).or_default();
            *text = format!("{text}\n\nMade by hand beside the record {sys_id} of {table}.");
        }
        let folded = &claimed.ticket.folded;
        if folded.findings > 0 {
            let title = claimed.alert.as_ref().map_or("", |alert| &alert.title);
            let findings = if folded.findings == 1 { "finding" } else { "findings" };
            let short = format!("[storm] {} {findings}: {title}", folded.findings);
            fields.insert("short_description".to_owned(), short);
            let text = fields.entry("description".to_owned()).or_default();
            *text = format!("{}\n\nOne of them:\n{text}", super::later::storm(claimed));
        }
        let affected = claimed.about.sought.clone();
        Ok(Order { affected, ..job.order(self.keys(claimed, job.destination), fields) })
    }

    fn sent(&self, claimed: &Claimed, sent: &Sent) -> Outcome {
        match &sent.remote {
            Some(remote) => settled(claimed, sent.created, remote),
            None => Outcome::Told { created: sent.created },
        }
    }

    fn found(&self, claimed: &Claimed, found: &Found) -> Option<Outcome> {
        Some(settled(claimed, false, &found.remote))
    }
}

/// How much earlier than its finding a record may seem to be made: clocks differ.
const EARLY: Duration = Duration::from_mins(5);

/// What is strange about a record that was found by our key: anybody who may create records there can compute it.
fn strange(claimed: &Claimed, remote: &Remote) -> Option<String> {
    let detail = &remote.detail;
    let seen = claimed.alert.as_ref().map(|alert| alert.time.min(alert.received_at));
    // One that we may have made ourselves a moment ago is not early, whatever the clocks say.
    let is_early =
        !claimed.doubtful && seen.zip(detail.created_at).is_some_and(|(seen, made)| made.after(EARLY) < seen);
    let mut why: Vec<String> = Vec::new();
    if detail.is_strangers {
        why.push("which is not the user of this agent".to_owned());
    }
    if is_early {
        why.push("before its finding was first seen here".to_owned());
    }
    if !detail.agent.is_empty() {
        why.push(format!("and it says that it is of the agent `{}`", detail.agent));
    }
    if why.is_empty() {
        return None;
    }
    let by = if detail.created_by.is_empty() { "somebody" } else { &detail.created_by };
    let at = detail
        .created_at
        .map_or_else(|| "a time not shown".to_owned(), |at| format!("{} UTC", at.servicenow()));
    Some(format!("made by {by} at {at}, {}", why.join(", ")))
}

/// A record that was there and is closed is not the ticket that is wanted: the next generation is. Resolved counts as
/// closed, but for one that we may have made ourselves a moment ago.
fn settled(claimed: &Claimed, created: bool, remote: &Remote) -> Outcome {
    let (sys_id, number, state) = (remote.sys_id.clone(), remote.number.clone(), remote.state.clone());
    let mod_count = remote.detail.mod_count;
    let is_over = !remote.active || remote.detail.resolved && !claimed.doubtful;
    if created || !is_over {
        let adopted = if created { None } else { strange(claimed, remote) };
        let looks_for = claimed.about.keys.clone();
        Outcome::Delivered { created, sys_id, number, state, mod_count, adopted, looks_for }
    } else {
        Outcome::ClosedThere { sys_id, number, state }
    }
}
