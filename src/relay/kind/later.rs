//! What comes later of a ticket: notes, resolving it, opening it again, the CI that it is about.
//!
//! All change a record that is there. A CI is written where there is none, as often as one likes. A note appends, so it carries a mark: after a lost answer the mark is looked
//! for, and only a note that is not there is sent again. The other two are looked up before each send: what a
//! person did there meanwhile stands.

use super::{Job, Repeat, Work};
use crate::destination::{Fields, Found, Order, Remote, Sent};
use crate::model::gather::Gather as _;
use crate::model::ticket::TicketKeys;
use crate::model::{DestinationName, TicketState};
use crate::store::op::claim::Claimed;
use crate::store::op::life::Seen;
use crate::store::op::settle::Outcome;

/// The ticket gets a work note.
pub(super) struct Note;
/// The ticket is resolved.
pub(super) struct Resolve;
/// The ticket is opened again.
pub(super) struct Reopen;
/// The ticket names the CI of its device.
pub(super) struct LinkDevice;

/// The column of a ticket that names its CI.
const CI: &str = "cmdb_ci";
const NO_RECORD: &str = "its ticket was never made there";

/// The keys of a record that is there: its `sys_id` is the one that it has.
pub(super) fn keys(claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
    let table = claimed.ticket.table.as_ref().unwrap_or(&claimed.table);
    let derived = TicketKeys::derive(&claimed.fingerprint, destination, table, claimed.generation);
    match &claimed.ticket.sys_id {
        Some(sys_id) => TicketKeys { sys_id: sys_id.clone(), ..derived },
        None => derived,
    }
}

/// Eight hex digits that stand for one delivery of one ticket, whatever its text.
fn mark(claimed: &Claimed, destination: &DestinationName) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    hash.update(b"otrelay note\n");
    hash.update(keys(claimed, destination).correlation_id.as_str().as_bytes());
    hash.update(&claimed.ticket.seq.to_be_bytes());
    let digest = hash.finish();
    digest.as_ref()[..4].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn order(job: &Job<'_>, fields: Fields) -> Result<Order, String> {
    if job.claimed.ticket.sys_id.is_none() {
        return Err(NO_RECORD.to_owned());
    }
    Ok(job.order(keys(job.claimed, job.destination), fields))
}

fn as_seen(remote: &Remote) -> Seen {
    Seen {
        state: remote.ticket_state(),
        remote_state: remote.state.clone(),
        mod_count: remote.detail.mod_count,
        assigned_to: None,
        close_notes: None,
    }
}

/// A ticket that needs no successor.
fn later(created: bool, seen: Seen, noted: Option<u64>) -> Outcome {
    Outcome::Later { created, seen, noted, renews: false, not_closed: None }
}

/// What the answer shows; a record that it does not name is gone.
fn seen(sent: &Sent) -> Seen {
    sent.remote.as_ref().map_or_else(Seen::deleted, as_seen)
}

/// What the parent of a storm stands for, in words.
pub(super) fn storm(claimed: &Claimed) -> String {
    let folded = &claimed.ticket.folded;
    let (findings, have) = if folded.findings == 1 {
        ("finding", "it has no ticket")
    } else {
        ("findings", "they have no tickets")
    };
    let mut text = format!(
        "This ticket stands for {} {findings} of the rule `{}` beyond its max_tickets_per_hour; {have} of their own. \
         Worst severity: {}.",
        folded.findings,
        claimed.rule,
        folded.worst.as_str()
    );
    if folded.ended > 0 && folded.ended_at.is_none() {
        text.push_str(" Ended: ");
        text.push_str(&folded.ended.to_string());
        text.push_str(" of them.");
    }
    if !folded.talkers.is_empty() {
        text.push_str("\nTop talkers: ");
        text.push_str(&folded.talkers.join(", "));
    }
    text
}

/// How often what a ticket tells of was seen, and when last.
fn sightings(claimed: &Claimed) -> (u64, String) {
    let folded = &claimed.ticket.folded;
    if folded.findings > 0 {
        return (folded.sightings, folded.last_seen_at.servicenow());
    }
    (claimed.occurrences, claimed.last_seen_at.servicenow())
}

/// What a note says.
fn text(claimed: &Claimed, mark: &str) -> Result<String, String> {
    let alert = super::alert(claimed)?;
    let (times, last) = sightings(claimed);
    let mut lines = Vec::new();
    if claimed.ticket.folded.findings > 0 {
        lines.push(storm(claimed));
    }
    lines.push(match claimed.ticket.cleared_at {
        Some(at) => format!(
            "The source says since {} UTC that this has ended. Seen {times} times, the last at {last} UTC.",
            at.servicenow()
        ),
        None => format!("Seen again: {times} times by now, the last at {last} UTC."),
    });
    if claimed.ticket.cleared_at.is_some() && claimed.ticket.not_closed {
        lines.push("It could not be closed from here: close it when it is done.".to_owned());
    }
    if let Some(worst) = claimed.ticket.worst.filter(|worst| *worst > alert.severity) {
        lines.push(format!("Severity rose from {} to {}.", alert.severity.as_str(), worst.as_str()));
    }
    lines.push(format!("[otrelay {mark}]"));
    Ok(lines.join("\n"))
}

fn note(job: &Job<'_>) -> Result<Order, String> {
    let mark = mark(job.claimed, job.destination);
    let fields = Fields::from([("work_notes".to_owned(), text(job.claimed, &mark)?)]);
    order(job, fields)
}

impl Work for Note {
    fn repeat(&self) -> Repeat {
        Repeat::Marked
    }

    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        keys(claimed, destination)
    }

    fn mark(&self, claimed: &Claimed, destination: &DestinationName) -> String {
        mark(claimed, destination)
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        note(job)
    }

    fn sent(&self, claimed: &Claimed, sent: &Sent) -> Outcome {
        let noted = sent.created.then_some(claimed.occurrences);
        later(sent.created, seen(sent), noted)
    }

    /// The note that was found may have told of fewer sightings: what came since is for the next one.
    fn found(&self, _: &Claimed, found: &Found) -> Option<Outcome> {
        Some(later(false, as_seen(&found.remote), None))
    }
}

impl Work for Resolve {
    fn repeat(&self) -> Repeat {
        Repeat::ByKey
    }

    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        keys(claimed, destination)
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let claimed = job.claimed;
        let (times, last) = sightings(claimed);
        let mut fields = job.composer.closing(&job.facts()?)?;
        fields.entry("close_notes".to_owned()).or_insert_with(|| {
            let since = claimed
                .ticket
                .cleared_at
                .map_or_else(String::new, |at| format!(" since {} UTC", at.servicenow()));
            format!(
                "The source says{since} that this has ended. Seen {times} times, the last at {last} UTC. \
                 Resolved by otrelay."
            )
        });
        order(job, fields)
    }

    /// What is refused for good is told as a note instead; the store makes it in the same transaction, so that no restart
    /// and no lost answer makes two of it or none.
    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        let (seen, not_closed) = (seen(sent), sent.not_closed.clone());
        Outcome::Later { created: sent.created, seen, noted: None, renews: false, not_closed }
    }

    /// What stands is not resolved, whatever was wanted when this was made; one that we did resolve is judged where this
    /// is settled.
    fn found(&self, claimed: &Claimed, found: &Found) -> Option<Outcome> {
        let (seen, stands) = (as_seen(&found.remote), claimed.ticket.cleared_at.is_none());
        (seen.state != TicketState::Open || stands).then(|| later(false, seen, None))
    }

    fn missing(&self, claimed: &Claimed) -> Option<Outcome> {
        gone(claimed, false)
    }
}

impl Work for Reopen {
    fn repeat(&self) -> Repeat {
        Repeat::ByKey
    }

    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        keys(claimed, destination)
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        note(job)
    }

    /// One that is not open after all, whoever refused it, gets a successor.
    fn sent(&self, claimed: &Claimed, sent: &Sent) -> Outcome {
        let seen = seen(sent);
        let renews = seen.state != TicketState::Open;
        let noted = (!renews).then_some(claimed.occurrences);
        Outcome::Later { created: sent.created, seen, noted, renews, not_closed: None }
    }

    fn found(&self, claimed: &Claimed, found: &Found) -> Option<Outcome> {
        let seen = as_seen(&found.remote);
        (seen.state == TicketState::Open).then(|| later(false, seen, Some(claimed.occurrences)))
    }

    fn missing(&self, claimed: &Claimed) -> Option<Outcome> {
        gone(claimed, true)
    }
}

impl Work for LinkDevice {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        keys(claimed, destination)
    }

    /// Without the field there is nothing to do: the operator's own word for it stands, or the CI is not sure any more.
    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let own = job.fields()?.contains_key(CI);
        let ci = job.claimed.about.ci.clone().filter(|_| !own);
        let fields = ci.map(|ci| (CI.to_owned(), ci)).into_iter().into_map();
        order(job, fields)
    }

    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        later(sent.created, seen(sent), None)
    }

    fn found(&self, _: &Claimed, found: &Found) -> Option<Outcome> {
        Some(later(false, as_seen(&found.remote), None))
    }
}

/// The record is no longer there. One that was never known to be there is none of this.
fn gone(claimed: &Claimed, renews: bool) -> Option<Outcome> {
    claimed.ticket.sys_id.as_ref()?;
    Some(Outcome::Later { created: false, seen: Seen::deleted(), noted: None, renews, not_closed: None })
}
