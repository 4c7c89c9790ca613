//! The seam to the other side: only what `relay` needs of it. `servicenow` is the one [`Destination`]; tests have a fake.
//!
//! An [`Order`] says of which kind it is; which address and which form of a request that means is the destination's. A
//! destination does not retry, wait or remember what was sent: it makes one attempt and says what came of it. Repeating,
//! backing off and looking up after a doubtful answer are the relay's.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use crate::model::device::Peer;
use crate::model::ticket::{KeysKept, TicketKeys};
use crate::model::{
    Alert, Class, CorrelationId, DeliveryKind, DestinationName, Device, Endpoint, Generation, HoldScope,
    SysId, TableName, TicketState, Timestamp,
};

/// Field name to value, as it goes into the record. Ordered, so that requests and logs are stable.
pub type Fields = BTreeMap<String, String>;

/// One thing to be done there.
#[derive(Clone, Debug)]
pub struct Order {
    /// What.
    pub kind: DeliveryKind,
    /// Which table.
    pub table: TableName,
    /// What it is known by there; the destination puts these into the record itself.
    pub keys: TicketKeys,
    /// Everything else that goes into the record.
    pub fields: Fields,
    /// What is attached, if that is what is to be done.
    pub attachment: Option<Attachment>,
    /// The ends of the alert that it may be about, the likeliest first, where the destination knows which devices they are
    /// ([`Destination::know_devices`]).
    pub affected: Vec<Endpoint>,
}

/// A file for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The table of the record; its `sys_id` is that of the order's keys.
    pub table: TableName,
    /// Its name, ours: what it is looked for by.
    pub name: String,
    /// Its media type.
    pub content_type: &'static str,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A key that is looked up.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The keys of the record.
    pub keys: TicketKeys,
    /// Whether it may have been made although no answer said so: then it is also asked for by its `sys_id`.
    pub doubtful: bool,
    /// What a note is known by, or the name of a file; empty: the record itself is asked for.
    pub mark: String,
    /// `sys_mod_count` of the record before the note, where that is known.
    pub mod_count: Option<i64>,
}

impl Asked {
    /// The record itself.
    pub fn record(keys: TicketKeys, doubtful: bool) -> Self {
        Self { keys, doubtful, mark: String::new(), mod_count: None }
    }
}

/// A record that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The record.
    pub sys_id: SysId,
    /// `INC0010042`; empty where the table has no numbers.
    pub number: String,
    /// Whether it is still worked on: false once it is closed or cancelled there.
    pub active: bool,
    /// Its state in the words (or numbers) of the table.
    pub state: String,
    /// What else is shown.
    pub detail: Detail,
}

impl Remote {
    /// Where a ticket is whose record this is.
    pub fn ticket_state(&self) -> TicketState {
        match (self.active, self.detail.resolved) {
            (false, _) => TicketState::Closed,
            (true, true) => TicketState::Resolved,
            (true, false) => TicketState::Open,
        }
    }
}

/// What an answer shows of a record beside what it is known by. Empty where it was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Whether it is resolved, and still open to changes.
    pub resolved: bool,
    /// `sys_mod_count`: one more with each change.
    pub mod_count: Option<i64>,
    /// Display name of who works on it.
    pub assigned_to: String,
    /// What was written when it was closed.
    pub close_notes: String,
    /// When it was resolved or closed, by the server's clock.
    pub ended_at: Option<Timestamp>,
    /// When it was last changed, by the server's clock.
    pub updated_at: Option<Timestamp>,
    /// Who made it; empty: not shown.
    pub created_by: String,
    /// When it was made, by the server's clock.
    pub created_at: Option<Timestamp>,
    /// Whether whoever made it is not the user that we are there.
    pub is_strangers: bool,
    /// Which other agent it says that it is of; empty: none.
    pub agent: String,
    /// The table that a transform put it into.
    pub table: String,
}

/// A record that was found by its keys. The destination has already checked that it really carries one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key it was asked for by.
    pub correlation_id: CorrelationId,
    /// The record.
    pub remote: Remote,
    /// Other records that carry the same key.
    pub twins: u32,
}

/// What a person should know of what is sent, before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Stable words: `unknown-column`, `not-a-choice`, `schema-unread`.
    pub code: &'static str,
    /// Which field; empty: the whole table.
    pub field: String,
    /// What is the case.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// Whether an order can go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It can, with these remarks.
    Fits(Vec<Remark>),
    /// More would have to be asked than may be asked now.
    Waits,
}

/// What became of one order of several.
#[derive(Debug)]
pub enum Item {
    /// It was sent, as if alone.
    Done(Box<Result<Sent, SendError>>),
    /// The other side did not get to it: nothing was done.
    NotDone,
}

/// Whether one more request may be made; if so, it counts as made.
pub type MayAsk<'a> = &'a (dyn Fn() -> bool + Sync);

/// What a look-up found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookedUp {
    /// At most one for each key.
    pub found: Vec<Found>,
    /// HTTP status of the answer.
    pub status: Option<u16>,
    /// What the server's clock said.
    pub server_now: Option<Timestamp>,
}

/// From where on what was changed there is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// Changed at this time or later, by the server's clock.
    pub at: Timestamp,
    /// Of those of exactly this time, only the ones behind this record.
    pub behind: Option<SysId>,
}

/// A page of what was changed there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Records, oldest change first.
    pub records: Vec<Remote>,
    /// From where on there are more, if there are. A record that is changed meanwhile moves behind it and is read again:
    /// none is passed over, as it would be where pages are counted.
    pub next: Option<Since>,
    /// What the server's clock said.
    pub server_now: Option<Timestamp>,
    /// Records among them that are none of ours: the other side ignored what we asked for. They are not in `records`.
    pub strangers: u32,
}

/// A field that the answer does not show as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedField {
    /// Which field.
    pub field: String,
    /// What the record has instead; empty when the field is empty or absent.
    pub got: String,
}

/// An order that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Whether this made it; otherwise it was there already.
    pub created: bool,
    /// The record, where the answer names one.
    pub remote: Option<Remote>,
    /// What was dropped in silence.
    pub dropped: Vec<DroppedField>,
    /// What became of our keys, where the answer shows it.
    pub kept: Option<KeysKept>,
    /// The record was to be closed, stands as it was, and would be refused again: why, in the other side's words.
    pub not_closed: Option<String>,
    /// HTTP status of the answer.
    pub status: u16,
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
    /// Whether it may be said of more than is kept back (`hold`): of all requests of the same kind, or, of a delivery, of the
    /// whole destination if no other gets through.
    pub is_general: bool,
}

impl SendError {
    /// Without an answer, and nothing written.
    pub fn new(class: Class, hold: HoldScope, message: String, remedy: &str) -> Self {
        let remedy = remedy.to_owned();
        Self { class, hold, message, remedy, doubtful: false, wait: None, status: None, is_general: false }
    }

    /// The same, after an answer with this status.
    #[must_use]
    pub fn answered(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
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

/// The other side. Methods make one attempt within the destination's own deadlines (connect 10 s, whole 70 s).
pub trait Destination: Send + Sync + 'static {
    /// The destination's name in the config.
    fn name(&self) -> &DestinationName;

    /// Whether the other side would take this order as it is; asks there what has to be known for it. An order that has to
    /// wait is a [`SendError`] of [`HoldScope::Action`].
    fn admit(
        &self,
        order: &Order,
        may_ask: MayAsk<'_>,
    ) -> impl Future<Output = Result<Admission, SendError>> + Send {
        let _ = (order, may_ask);
        async { Ok(Admission::Fits(Vec::new())) }
    }

    /// Finds out which devices there these ends of alerts are, as far as may be asked; an order for the table that has one of
    /// them names it from then on. What cannot be found out keeps no order back.
    fn know_devices(
        &self,
        table: &TableName,
        ends: &[Endpoint],
        may_ask: MayAsk<'_>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (table, ends, may_ask);
        async {}
    }

    /// Which of these are there, by their keys. At most [`FIND_MAX`].
    fn look_up(
        &self,
        kind: DeliveryKind,
        table: &TableName,
        asked: &[Asked],
    ) -> impl Future<Output = Result<LookedUp, SendError>> + Send;

    /// Carries one order out. When its keys are taken there by somebody we do not know, answers as [`SendError`] with
    /// `doubtful` set, so that the caller looks it up.
    fn send(&self, order: &Order) -> impl Future<Output = Result<Sent, SendError>> + Send;

    /// Tells some of these devices, from the first on, in one request or, where each is rows, in `most` at most; the answer
    /// has an outcome for each that was told.
    fn put_devices(
        &self,
        orders: &[DeviceOrder],
        most: u32,
    ) -> impl Future<Output = Result<DevicesSent, SendError>> + Send {
        let _ = (orders, most);
        async { Err(no_devices()) }
    }

    /// Looks whether what was remarked of devices is still so, now and then or as a person wants it.
    fn review_devices(&self, is_order: bool) -> impl Future<Output = Reviewed> + Send {
        let _ = is_order;
        async { Reviewed::default() }
    }

    /// What would be told of a device, as JSON.
    ///
    /// # Errors
    /// Why nothing would be.
    fn device_payload(&self, order: &DeviceOrder) -> Result<String, String> {
        let _ = order;
        Err(no_devices().message)
    }

    /// The same of tickets that we know, with all that is worth knowing of them.
    fn read_back(
        &self,
        table: &TableName,
        asked: &[Asked],
    ) -> impl Future<Output = Result<LookedUp, SendError>> + Send;

    /// Our records of a table that were changed since then, a page of them.
    fn changed(
        &self,
        table: &TableName,
        since: &Since,
    ) -> impl Future<Output = Result<Changed, SendError>> + Send;

    /// Which of these records are there, by nothing but their ids. At most [`FIND_MAX`]; one that is hidden from us is not.
    fn still_there(
        &self,
        table: &TableName,
        ids: &[SysId],
    ) -> impl Future<Output = Result<Vec<Remote>, SendError>> + Send;

    /// How many of so many due orders like this one go into one request; 1: each into its own.
    fn together(&self, order: &Order, due: usize) -> usize {
        let _ = (order, due);
        1
    }

    /// Carries several orders of one kind and table out, in one request where it can. An error is that of all of them.
    fn send_all(&self, orders: &[Order]) -> impl Future<Output = Result<Vec<Item>, SendError>> + Send {
        async move {
            let mut items = Vec::with_capacity(orders.len());
            for order in orders {
                items.push(Item::Done(Box::new(self.send(order).await)));
            }
            Ok(items)
        }
    }

    /// What it has learned of the other side and would have to find out anew after a restart, in words of its own.
    fn learned(&self) -> Learned {
        Learned::new()
    }

    /// Is given what it had learned before the restart. What it does not understand counts for nothing.
    fn recall(&self, learned: &Learned) {
        let _ = learned;
    }

    /// Requests made since it was built, token requests included: what the hourly budget counts.
    fn requests(&self) -> u64;

    /// What the last answer said about the hourly limit.
    fn rate_limit(&self) -> RateLimit;
}

/// What a destination has learned of the other side.
pub type Learned = BTreeMap<String, String>;

/// What a second look at remarks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// What is still so.
    pub remarks: Vec<Remark>,
    /// What is no longer: code and field of the remark.
    pub over: Vec<(&'static str, String)>,
}

/// A destination that keeps no devices.
fn no_devices() -> SendError {
    let message = "this destination takes no devices".to_owned();
    SendError::new(Class::Hold, HoldScope::Table, message, "set [devices] servicenow to one that does")
}

/// A device that is to be told.
#[derive(Clone, Debug)]
pub struct DeviceOrder {
    /// What it is called there, behind the agent's id; never changes.
    pub key: String,
    /// What is known of it.
    pub device: Device,
    /// Whether it was told before.
    pub is_known: bool,
    /// Known devices that it talks to.
    pub peers: Vec<Peer>,
}

/// A device that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DevicePut {
    /// Whether this made it.
    pub created: bool,
    /// Its CI; `None`: what it is has none.
    pub sys_id: Option<SysId>,
    /// The CI's class; empty: it has none.
    pub class: String,
}

/// Why one device of a request is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRefusal {
    /// The other side's words.
    pub message: String,
    /// What a person can do.
    pub remedy: String,
    /// Whether it may be taken later as it is.
    pub again: bool,
    /// Told as a health issue: its code, and what it is about.
    pub notice: Option<(&'static str, String)>,
}

impl DeviceRefusal {
    /// It may be taken later.
    pub fn again(message: String) -> Self {
        Self { message, again: true, ..Self::default() }
    }
}

/// What became of the devices of a request.
#[derive(Clone, Debug, Default)]
pub struct DevicesSent {
    /// One for each, in the order of the orders.
    pub outcomes: Vec<Result<DevicePut, DeviceRefusal>>,
    /// HTTP status of the answer; `None`: there was nothing to ask.
    pub status: Option<u16>,
    /// What a person should know that is no fault of one of them.
    pub remarks: Vec<Remark>,
    /// Nothing was sent: already the first takes more requests than that.
    pub beyond: bool,
}

/// Most keys in one [`Destination::look_up`]: a longer `IN` list makes URLs that proxies refuse.
pub const FIND_MAX: usize = 40;

/// What a record is made from, besides the config.
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
    /// What it is known by there.
    pub correlation_id: CorrelationId,
}

/// Makes a record's fields from an alert: the rules' templates, seen from the relay.
pub trait Compose: Send + Sync + 'static {
    /// The fields, or why they cannot be made (the delivery becomes a dead letter with that text).
    ///
    /// # Errors
    /// A template that fails on this alert: names template, field and cause.
    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String>;

    /// What may leave this machine of an alert. The relay asks for it once, as it takes the alert out of the buffer.
    fn redact(&self, alert: Alert) -> Alert {
        alert
    }

    /// As [`Self::redact`], of a text of ours that quotes addresses of sources.
    fn redact_sources(&self, text: &str) -> String {
        text.to_owned()
    }

    /// `close_code` and `close_notes` of the rule's action, as far as it has them.
    ///
    /// # Errors
    /// As [`Self::compose`].
    fn closing(&self, _facts: &TicketFacts<'_>) -> Result<Fields, String> {
        Ok(Fields::new())
    }
}
