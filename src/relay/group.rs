//! What a group of sends came to: settlements, what became of the destination, and what a person should know.

use std::collections::BTreeMap;

use super::OnUnprotected;
use super::lane::Lane;
use crate::destination::{Found, SendError, Sent};
use crate::model::ticket::KeysKept;
use crate::model::{Class, DeliveryKind, DestinationName, HealthIssue, HoldScope, TableName};
use crate::store::op::destination_state::DestinationChange;
use crate::store::op::settle::{Outcome, Settled};
use crate::sync::Untold;

/// Code of what is said of a table whose records are not closed.
pub(super) const NOT_CLOSED: &str = "not-closed";

/// What a group of sends came to, beside the settlements.
#[derive(Default)]
pub(super) struct Group {
    pub(super) settled: Vec<Settled>,
    pub(super) changes: Vec<DestinationChange>,
    /// The destination (`None`), or tables of it, have to wait.
    pub(super) holds: Vec<(Option<TableName>, SendError)>,
    /// So many requests at once were refused for being too many: fewer go on at once.
    pub(super) crowded: Option<usize>,
    /// A suspicion was raised that a larger group has to settle.
    pub(super) undecided: bool,
    /// Told after the settlement: an issue that cannot be kept must not cost an outcome.
    pub(super) issues: BTreeMap<String, HealthIssue>,
    /// Codes and subjects of what is no longer so.
    pub(super) over: Vec<(&'static str, String)>,
    /// What tables did to our keys.
    keys: BTreeMap<TableName, KeysKept>,
}

impl Group {
    /// Whether the destination, or this table of it, has to wait.
    pub(super) fn halts(&self, place: &TableName) -> bool {
        let waits = self.holds.iter().any(|(table, _)| table.as_ref().is_none_or(|table| table == place));
        waits || self.crowded.is_some()
    }

    /// What the answer to a send shows beside that it was done.
    pub(super) fn note_sent(&mut self, destination: &DestinationName, lane: &Lane<'_>, sent: &Sent) {
        self.note_dropped(destination, lane.table, sent);
        let Some(kept) = sent.kept.filter(|_| sent.created) else { return };
        if lane.keeps != Some(kept) && self.keys.insert(lane.table.clone(), kept) != Some(kept) {
            self.changes.push(DestinationChange::Keeps { table: lane.table.clone(), kept });
        }
        if kept.neither() && lane.on_unprotected == OnUnprotected::Hold && !self.halts(lane.table) {
            self.holds.push((Some(lane.table.clone()), unprotected(lane.table)));
        }
    }

    /// A field that the other side dropped in silence is told once per table and field.
    fn note_dropped(&mut self, destination: &DestinationName, table: &TableName, sent: &Sent) {
        let record = sent.remote.as_ref().map_or("it", |remote| remote.number.as_str());
        for d in &sent.dropped {
            let got =
                if d.got.is_empty() { "left it empty".to_owned() } else { format!("made it `{}`", d.got) };
            let text = format!("{destination} took {record} but not its field `{}`: it {got}", d.field);
            let remedy = if d.field == "correlation_id" || d.field == "correlation_display" {
                format!(
                    "give the integration user the right to write `{}` in {table} (a field ACL, or no such field): it \
                     is the key by which a record is found again after a lost answer",
                    d.field
                )
            } else {
                format!(
                    "check the value that [rule.action.fields] gives `{}`: is it a field of {table}, a valid choice \
                     value, an existing reference, and may the integration user write it?",
                    d.field
                )
            };
            let subject = format!("{destination}:{table}:{}", d.field);
            self.note(HealthIssue::new("dropped-field", text, remedy).about(subject));
        }
    }

    /// More than one record there carries a key of ours.
    pub(super) fn note_twins(&mut self, destination: &DestinationName, table: &TableName, found: &Found) {
        self.note(twins(destination, table, found));
    }

    /// Each issue once.
    pub(super) fn note(&mut self, issue: HealthIssue) {
        self.issues.entry(format!("{}:{}", issue.code, issue.subject)).or_insert(issue);
    }

    /// Settles one whose record was found or made.
    pub(super) fn settle(&mut self, destination: &DestinationName, lane: &Lane<'_>, settled: Settled) {
        if let Outcome::Delivered { adopted: Some(words), sys_id, number, .. } = &settled.outcome {
            let record = if number.is_empty() { sys_id.as_str() } else { number };
            // One for all of a creator: who makes many decoys makes no more of them.
            let by = words.split(" at ").next().unwrap_or_default();
            let subject = format!("{destination}:{}:{by}", lane.table);
            let place = format!("{destination}, table {}", lane.table);
            let text = format!(
                "{record} of {place}, was found by our key and is taken for our ticket; it was {words}"
            );
            let remedy = "look at it: who may create records there can make one beforehand, so that a finding seems to be \
                          told. If it is none of yours, close it, and the next sighting makes a new one; \
                          `otrelay tickets --json` shows all of them under `adopted`";
            self.note(HealthIssue::new("adopted", text, remedy).about(subject));
        }
        self.note_closing(destination, lane, &settled.outcome);
        self.settled.push(settled);
    }

    /// A table whose records are not closed when they should be is told once, until one is.
    fn note_closing(&mut self, destination: &DestinationName, lane: &Lane<'_>, outcome: &Outcome) {
        let Outcome::Later { created, not_closed, .. } = outcome else { return };
        if lane.kind != DeliveryKind::ResolveTicket {
            return;
        }
        let subject = format!("{destination}:{}", lane.table);
        if let Some(words) = not_closed {
            let text = format!(
                "{destination} does not close records of {}, so their ends are told as work notes: {words}",
                lane.table
            );
            let remedy = "close them there by hand, and set on_cleared = \"note\" in the rule's action; or let the instance \
                          close them from the state in which they are, and give what it wants for it in \
                          [rule.action.resolve]";
            self.over.retain(|(code, over)| *code != NOT_CLOSED || *over != subject);
            self.note(HealthIssue::new(NOT_CLOSED, text, remedy).about(subject));
        } else if *created && !self.issues.contains_key(&format!("{NOT_CLOSED}:{subject}")) {
            self.over.push((NOT_CLOSED, subject));
        }
    }
}

/// That more than one record carries a key of ours.
pub(super) fn twins(destination: &DestinationName, table: &TableName, found: &Found) -> HealthIssue {
    let number = &found.remote.number;
    let text = format!(
        "{} records of {destination}, table {table}, carry the key {}; {} is taken for it",
        found.twins + 1,
        found.correlation_id,
        if number.is_empty() { found.remote.sys_id.as_str() } else { number }
    );
    HealthIssue::new("twins", text, "close the others there; if it recurs, find out who copies records")
        .about(format!("{destination}:{table}:{}", found.correlation_id))
}

pub(super) const CHANGES_UNTOLD: &str = "changes-untold";

/// A table whose changes cannot be asked for.
pub(super) fn untold(destination: &DestinationName, table: &TableName, why: Untold) -> HealthIssue {
    let (cause, remedy) = match why {
        Untold::Unmarked => (
            "its records do not keep our correlation_id (no such column, or something there clears it)",
            "give the table the column correlation_id, let the integration user read and write it, and let no business rule \
             clear it",
        ),
        Untold::Strangers => (
            "it answers with the records of others",
            "let the integration user read correlation_id and correlation_display in this table",
        ),
    };
    let text = format!(
        "{destination} cannot be asked what changed in {table}: {cause}. Each live ticket is asked for by its own id instead, \
         once in each tickets_interval"
    );
    HealthIssue::new(CHANGES_UNTOLD, text, remedy).about(format!("{destination}:{table}"))
}

/// A table that keeps neither of our keys cannot be protected against twins.
pub(super) fn unprotected(table: &TableName) -> SendError {
    let message = format!(
        "{table} keeps neither the sys_id nor the correlation_id that we give its records: after a lost answer \
         nothing would tell whether a record was made, and there could be twins"
    );
    let remedy = "give the integration user the right to write correlation_id in this table, then `otrelay sync`; or \
                  set `on_unprotected = \"accept\"` for this destination";
    SendError::new(Class::Hold, HoldScope::Table, message, remedy)
}
