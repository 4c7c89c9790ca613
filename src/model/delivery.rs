//! A delivery: one thing the ticket system has still to be told, and how an attempt to tell it can end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::TableName;
use super::words::words;

/// Row id of a delivery in the store. Never reused, so a late answer cannot hit another delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub i64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

words! {
    /// What a delivery tells: decides how it is composed, sent, settled, and repeated after a lost answer.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum DeliveryKind {
        /// There must be a ticket for this alert.
        OpenTicket = "open-ticket",
        /// The ticket gets a work note: it was seen again, grew worse, or ended.
        NoteTicket = "note-ticket",
        /// The ticket is resolved: its finding has ended.
        ResolveTicket = "resolve-ticket",
        /// The ticket is opened again: its finding is back.
        ReopenTicket = "reopen-ticket",
        /// The record beside which the ticket was made by hand names it.
        LinkTicket = "link-ticket",
        /// The ticket names the CI of its device, which came later.
        LinkDevice = "link-device",
        /// The ticket gets the record as the sensor wrote it.
        AttachRaw = "attach-raw",
        /// The ticket gets the packet of the alert.
        AttachPcap = "attach-pcap",
        /// Event Management must know of this alert.
        PutEvent = "put-event",
        /// A staging table must get this alert whole, as a row.
        PutRow = "put-row",
        /// The CMDB must know of this device.
        PutDevice = "put-device",
    }
}

impl DeliveryKind {
    /// What an alert becomes in this table, when nothing else is said.
    pub fn of_table(table: &TableName) -> Self {
        if table.as_str() == "em_event" { Self::PutEvent } else { Self::OpenTicket }
    }

    /// Whether what it puts there is put again under the same key as its finding goes on; a row is put once.
    pub fn goes_on(self) -> bool {
        self == Self::PutEvent
    }

    /// Whether it attaches something to a ticket: nothing else waits for it.
    pub fn attaches(self) -> bool {
        matches!(self, Self::AttachRaw | Self::AttachPcap)
    }
}

words! {
    /// Where a delivery is. The arrows: pending → claimed → pending (again), delivered or dead; dead → pending (retry by
    /// command) or dropped; pending → withdrawn (no rule wants it any more).
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum DeliveryState {
        /// Waits for its time.
        Pending = "pending",
        /// About to be sent, or sent without an answer yet. Found at start, it means: look before you create.
        Claimed = "claimed",
        /// The ticket is there.
        Delivered = "delivered",
        /// Cannot succeed without a person: the dead letter.
        Dead = "dead",
        /// A person gave it up.
        Dropped = "dropped",
        /// No rule of the present config wants it any more.
        Withdrawn = "withdrawn",
    }
}

words! {
    /// What a failed attempt means for the delivery.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Class {
        /// Network, 5xx, 408: again after a back-off.
        Retry = "retry",
        /// 429: again when the other side said.
        RetryAt = "retry-at",
        /// Nothing to do with this delivery (401, token refused, hibernating page, 403 on the table): the destination waits.
        Hold = "hold",
        /// This delivery cannot succeed as it is (400, 403 by data policy or business rule): dead letter.
        Reject = "reject",
    }
}

/// How far a hold reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldScope {
    /// Credentials, proxy page, hibernation: nothing there can work.
    Destination,
    /// This table is absent or forbidden; others may work.
    Table,
    /// What a rule's action makes of alerts does not fit this table; other actions may.
    Action,
    /// This write was refused; whether the table or only this record is at fault, other deliveries show.
    Delivery,
}
