//! Pure: what has to be remembered of a destination, or of a table of it, that has to wait.

use super::retry;
use crate::destination::SendError;
use crate::model::codes::Code;
use crate::model::{Class, DestinationName, TableName, Timestamp};
use crate::store::op::destination_state::{DestinationChange, DestinationState, Hold};

/// Whether the destination failed as a whole when it was last asked.
pub(super) fn is_probing(state: &DestinationState) -> bool {
    state.failures > 0 || state.holds.iter().any(|h| h.table.is_none())
}

/// What this table waited for last, if it did: one delivery decides whether it still has to.
pub(super) fn trial(state: &DestinationState, table: &TableName) -> Option<String> {
    state.holds.iter().find(|h| h.table.as_ref() == Some(table)).map(|h| h.reason.clone())
}

/// The changes that make it wait (`None`: the whole destination), with `jitter` in 0..1.
pub(super) fn begin(
    destination: &DestinationName,
    state: &DestinationState,
    table: Option<&TableName>,
    e: &SendError,
    now: Timestamp,
    jitter: f64,
) -> Vec<DestinationChange> {
    let before = state.holds.iter().find(|h| h.table.as_ref() == table);
    let tries = before.map_or(1, |h| h.tries.saturating_add(1));
    let wait = match (e.class, table) {
        (Class::Hold | Class::Reject, _) => retry::hold(tries, jitter),
        (Class::RetryAt, _) => retry::told(e.wait, tries, jitter),
        (Class::Retry, Some(_)) => retry::pause(tries, jitter),
        (Class::Retry, None) => retry::pause(state.failures.saturating_add(1), jitter),
    };
    let hold = Hold {
        table: table.cloned(),
        since_at: before.map_or(now, |h| h.since_at),
        until_at: now.after(wait),
        tries,
        told: e.class == Class::RetryAt && e.wait.is_some(),
        reason: e.message.clone(),
        remedy: e.remedy.clone(),
    };
    if before.is_none_or(|h| h.reason != hold.reason) {
        tracing::error!(destination = %destination, until = %hold.until_at, remedy = %hold.remedy, "{destination} waits: {}{}", hold.reason, Code::behind("hold"));
    }
    let mut changes = Vec::new();
    if e.class == Class::Retry && table.is_none() {
        changes.push(DestinationChange::Fails {
            failures: state.failures.saturating_add(1),
            error: e.message.clone(),
        });
    }
    changes.push(DestinationChange::Holds(hold));
    changes
}
