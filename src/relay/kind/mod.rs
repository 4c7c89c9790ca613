//! What differs from kind to kind, a file each: how one is looked up, composed, settled, and how it may be repeated after
//! a lost answer. The queue, back-off and budget ask here and know none of them.
//!
//! A new kind: its word in `model::DeliveryKind`, its file here and its line in [`of`], its file in `servicenow` and its lines in
//! the two matches there.

mod attach;
mod device;
mod event;
mod later;
mod link;
mod row;
mod ticket;

use crate::destination::{Compose, Fields, Found, Order, Sent, TicketFacts};
use crate::model::ticket::TicketKeys;
use crate::model::{Alert, DeliveryKind, DestinationName};
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// How a delivery may be sent again when the answer to the first got lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Only after a look-up by its key; it is looked up before each send, as a lost database makes every one a second.
    ByKey,
    /// As often as one likes: the other side knows it by its key.
    Idempotent,
    /// It appends, so it carries a mark, and after a lost answer the mark is looked for.
    Marked,
}

impl Repeat {
    /// Whether this one has to be looked up before it is sent.
    pub(super) fn looks_up(self, doubtful: bool) -> bool {
        match self {
            Self::ByKey => true,
            Self::Idempotent => false,
            Self::Marked => doubtful,
        }
    }
}

/// What a delivery is composed from.
pub(super) struct Job<'a> {
    pub(super) claimed: &'a Claimed,
    pub(super) composer: &'a dyn Compose,
    pub(super) destination: &'a DestinationName,
}

impl Job<'_> {
    /// The fields that the rule's templates make of the alert.
    fn fields(&self) -> Result<Fields, String> {
        self.composer.compose(&self.facts()?)
    }

    /// What a record is made from.
    fn facts(&self) -> Result<TicketFacts<'_>, String> {
        let Self { claimed, destination, .. } = *self;
        Ok(TicketFacts {
            alert: alert(claimed)?,
            occurrences: claimed.occurrences,
            last_seen_at: claimed.last_seen_at,
            destination,
            table: &claimed.table,
            generation: claimed.generation,
            rule: claimed.rule.as_str(),
            correlation_id: of(claimed.kind).keys(claimed, destination).correlation_id,
        })
    }

    /// An order for the record of these keys.
    fn order(&self, keys: TicketKeys, fields: Fields) -> Order {
        Order {
            kind: self.claimed.kind,
            table: self.claimed.table.clone(),
            keys,
            fields,
            attachment: None,
            affected: Vec::new(),
        }
    }
}

/// The alert of a delivery.
fn alert(claimed: &Claimed) -> Result<&Alert, String> {
    let damaged = || "the stored alert is damaged (its checksum does not match)".to_owned();
    claimed.alert.as_ref().ok_or_else(damaged)
}

/// What a kind brings.
pub(super) trait Work: Sync {
    /// How it may be repeated.
    fn repeat(&self) -> Repeat;

    /// What it is known by there.
    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        TicketKeys::derive(&claimed.fingerprint, destination, &claimed.table, claimed.generation)
    }

    /// What is sent.
    ///
    /// # Errors
    /// Why it cannot be made: the delivery becomes a dead letter with that text.
    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        Ok(job.order(self.keys(job.claimed, job.destination), job.fields()?))
    }

    /// What became of it when the answer says that it was done.
    fn sent(&self, _claimed: &Claimed, sent: &Sent) -> Outcome {
        Outcome::Told { created: sent.created }
    }

    /// What became of it when it was found there; `None`: it is still to be sent.
    fn found(&self, _claimed: &Claimed, _found: &Found) -> Option<Outcome> {
        Some(Outcome::Told { created: false })
    }

    /// What became of it when it was not found there; `None`: it is still to be sent.
    fn missing(&self, _claimed: &Claimed) -> Option<Outcome> {
        None
    }

    /// What a note of it is known by; empty: it has none.
    fn mark(&self, _claimed: &Claimed, _destination: &DestinationName) -> String {
        String::new()
    }
}

/// What this kind brings.
pub(super) fn of(kind: DeliveryKind) -> &'static dyn Work {
    match kind {
        DeliveryKind::OpenTicket => &ticket::Open,
        DeliveryKind::NoteTicket => &later::Note,
        DeliveryKind::ResolveTicket => &later::Resolve,
        DeliveryKind::ReopenTicket => &later::Reopen,
        DeliveryKind::LinkTicket => &link::Link,
        DeliveryKind::LinkDevice => &later::LinkDevice,
        DeliveryKind::AttachRaw => &attach::RAW,
        DeliveryKind::AttachPcap => &attach::PCAP,
        DeliveryKind::PutEvent => &event::Put,
        DeliveryKind::PutRow => &row::Put,
        DeliveryKind::PutDevice => &device::Put,
    }
}
