//! The seam to the ticket system: only what `relay` needs of it. `servicenow` is the one [`Destination`]; tests have a fake.
//!
//! A destination does not retry, wait or remember what was sent: it makes one attempt and says what came of it. Repeating,
//! backing off and looking up after a doubtful answer are the relay's.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use crate::model::ticket::TicketKeys;
use crate::model::{
    Alert, Class, CorrelationId, DestinationName, Generation, HoldScope, SysId, TableName, Timestamp,
};

/// Field name to value, as it goes into the record. Ordered, so that requests and logs are stable.
pub type Fields = BTreeMap<String, String>;

/// A ticket to be created.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which table.
    pub table: TableName,
    /// The two keys; the destination puts them into the record itself.
    pub keys: TicketKeys,
    /// Everything else that goes into the record.
    pub fields: Fields,
}

/// A ticket that was found there by its `correlation_id`. The destination has already checked that the returned record
/// really carries the id that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key it was found by.
    pub correlation_id: CorrelationId,
    /// The record.
    pub sys_id: SysId,
    /// `INC0010042`; empty where the table has no numbers.
    pub number: String,
    /// Whether it is still worked on: false once it is closed or cancelled there.
    pub active: bool,
    /// Its state in the words (or numbers) of the table.
    pub state: String,
}

/// A field that the answer does not show as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedField {
    /// Which field.
    pub field: String,
    /// What the record has instead; empty when the field is empty or absent.
    pub got: String,
}

/// A ticket that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The record, as the answer names it.
    pub sys_id: SysId,
    /// `INC0010042`; empty where the table has no numbers.
    pub number: String,
    /// Its state in the words (or numbers) of the table.
    pub state: String,
    /// What was dropped in silence.
    pub dropped: Vec<DroppedField>,
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What it means for the delivery.
    pub class: Class,
    /// What is on hold, when the class is [`Class::Hold`].
    pub hold: HoldScope,
    /// What was tried and what the other side said, in its words; no secret, no body.
    pub message: String,
    /// What a person can do about it; empty when nothing has to be done.
    pub remedy: String,
    /// Whether the record may have been written all the same: look up before creating again.
    pub doubtful: bool,
    /// How long the other side told us to wait, if it did.
    pub wait: Option<Duration>,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
}

impl SendError {
    /// What it means for the delivery.
    pub fn class(&self) -> Class {
        self.class
    }
}

/// What the other side last said about its hourly limit (`X-RateLimit-*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per hour that its rule allows.
    pub limit: Option<u32>,
    /// When its window starts again.
    pub reset_at: Option<Timestamp>,
}

/// A ticket system. Methods make one attempt within the destination's own deadlines (connect 10 s, whole 70 s).
pub trait Destination: Send + Sync + 'static {
    /// The destination's name in the config.
    fn name(&self) -> &DestinationName;

    /// Which of these tickets are there. At most [`FIND_MAX`] keys.
    fn find(
        &self,
        table: &TableName,
        keys: &[CorrelationId],
    ) -> impl Future<Output = Result<Vec<Found>, SendError>> + Send;

    /// Creates one ticket. When the keys are already taken there, answers as [`SendError`] with `doubtful` set, so
    /// that the caller looks it up.
    fn open(&self, order: &Order) -> impl Future<Output = Result<Opened, SendError>> + Send;

    /// Requests made since it was built, token requests included: what the hourly budget counts.
    fn requests(&self) -> u64;

    /// What the last answer said about the hourly limit.
    fn rate_limit(&self) -> RateLimit;
}

/// Most keys in one [`Destination::find`]: a longer `IN` list makes URLs that proxies refuse.
pub const FIND_MAX: usize = 40;

/// What a ticket is made from, besides the config.
#[derive(Clone, Debug)]
pub struct TicketFacts<'a> {
    /// The alert as it was first recorded.
    pub alert: &'a Alert,
    /// How often it was seen.
    pub occurrences: u64,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// Where the ticket goes.
    pub destination: &'a DestinationName,
    /// Where the ticket goes.
    pub table: &'a TableName,
    /// How many tickets for the same alert were closed before.
    pub generation: Generation,
    /// The rule that asked for it.
    pub rule: &'a str,
}

/// Makes a ticket's fields from an alert: the rules' templates, seen from the relay.
pub trait Compose: Send + Sync + 'static {
    /// The fields, or why they cannot be made (the delivery becomes a dead letter with that text).
    ///
    /// # Errors
    /// A template that fails on this alert: names template, field and cause.
    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String>;
}
