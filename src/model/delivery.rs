//! A delivery: one thing the ticket system has still to be told, and how an attempt to tell it can end.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::TableName;

/// Row id of a delivery in the store. Never reused, so a late answer cannot hit another delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(pub i64);

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a delivery tells: decides how it is composed, sent, settled, and repeated after a lost answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryKind {
    /// There must be a ticket for this alert.
    OpenTicket,
    /// The ticket gets a work note: it was seen again, grew worse, or ended.
    NoteTicket,
    /// The ticket is resolved: its finding has ended.
    ResolveTicket,
    /// The ticket is opened again: its finding is back.
    ReopenTicket,
    /// The record beside which the ticket was made by hand names it.
    LinkTicket,
    /// The ticket names the CI of its device, which came later.
    LinkDevice,
    /// The ticket gets the record as the sensor wrote it.
    AttachRaw,
    /// The ticket gets the packet of the alert.
    AttachPcap,
    /// Event Management must know of this alert.
    PutEvent,
    /// A staging table must get this alert whole, as a row.
    PutRow,
    /// The CMDB must know of this device.
    PutDevice,
}

impl DeliveryKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OpenTicket,
        Self::NoteTicket,
        Self::ResolveTicket,
        Self::ReopenTicket,
        Self::LinkTicket,
        Self::LinkDevice,
        Self::AttachRaw,
        Self::AttachPcap,
        Self::PutEvent,
        Self::PutRow,
        Self::PutDevice,
    ];

    /// What an alert becomes in this table, when nothing else is said.
    pub fn of_table(table: &TableName) -> Self {
        if table.as_str() == "em_event" { Self::PutEvent } else { Self::OpenTicket }
    }

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenTicket => "open-ticket",
            Self::NoteTicket => "note-ticket",
            Self::ResolveTicket => "resolve-ticket",
            Self::ReopenTicket => "reopen-ticket",
            Self::LinkTicket => "link-ticket",
            Self::LinkDevice => "link-device",
            Self::AttachRaw => "attach-raw",
            Self::AttachPcap => "attach-pcap",
            Self::PutEvent => "put-event",
            Self::PutRow => "put-row",
            Self::PutDevice => "put-device",
        }
    }

    /// Whether it attaches something to a ticket: nothing else waits for it.
    pub fn attaches(self) -> bool {
        matches!(self, Self::AttachRaw | Self::AttachPcap)
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a delivery is. The arrows: pending → claimed → pending (again), delivered or dead; dead → pending (retry by
/// command) or dropped; pending → withdrawn (no rule wants it any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// Waits for its time.
    Pending,
    /// About to be sent, or sent without an answer yet. Found at start, it means: look before you create.
    Claimed,
    /// The ticket is there.
    Delivered,
    /// Cannot succeed without a person: the dead letter.
    Dead,
    /// A person gave it up.
    Dropped,
    /// No rule of the present config wants it any more.
    Withdrawn,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Claimed, Self::Delivered, Self::Dead, Self::Dropped, Self::Withdrawn];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        ["pending", "claimed", "delivered", "dead", "dropped", "withdrawn"][self as usize]
    }

    /// The inverse of [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }
}

/// What a failed attempt means for the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Network, 5xx, 408: again after a back-off.
    Retry,
    /// 429: again when the other side said.
    RetryAt,
    /// Nothing to do with this delivery (401, token refused, hibernating page, 403 on the table): the destination waits.
    Hold,
    /// This delivery cannot succeed as it is (400, 403 by data policy or business rule): dead letter.
    Reject,
}

impl Class {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::RetryAt => "retry-at",
            Self::Hold => "hold",
            Self::Reject => "reject",
        }
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
