//! 6 — the one [`Destination`]: ServiceNow.
//!
//! `relay` gives [`ServiceNow`] orders; `ticket` and `event` (a file for each thing that is told) say what is asked and
//! read what came back, `call` knows the addresses of the API and makes the call with a token of `auth`, `classify` is
//! the one place where an answer is judged. One attempt per call: repeating and waiting are the relay's, with three
//! exceptions, each for an answer that says that nothing was done: a call that was refused for its token is made once
//! more with a fresh one, a request that was too large is made smaller, and a create that was refused is followed by a
//! look at whether the record is there. No body, token or secret gets into an error or a log.

use std::sync::atomic::Ordering;

use url::Url;

use crate::destination::{
    Admission, Asked, Changed, Destination, DeviceOrder, DevicesSent, Item, Learned, LookedUp, MayAsk, Order,
    RateLimit, Remote, Reviewed, SendError, Sent, Since,
};
use crate::model::{
    DeliveryKind, DestinationName, Endpoint, HealthIssue, Secret, SecretString, SysId, TableName, Timestamp,
};
use crate::net::{ProxySettings, TlsSettings};

mod attachment;

mod auth;

mod batch;

mod call;

mod change;

mod changes;

mod cis;

mod classify;

pub mod cmdb;

pub mod doctor;

mod event;

mod row;

mod schema;

pub mod setup;

mod fields;

mod later;

mod learned;

mod listed;

mod states;

mod ticket;

mod tree;

mod user;

mod query;

mod wire;

#[cfg(test)]
mod conversation;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What `fuzz/` reaches of the private parts; cargo-fuzz builds with `--cfg fuzzing`, nothing else does.

    /// The look-up of these values as it is put into an address; `None` when it is refused.
    pub fn look_up(field: &str, values: &[&str]) -> Option<String> {
        let query = super::query::Query::default().one_of(field, values.iter().copied()).ok()?;
        Some(query.order_by("sys_created_on").ok()?.encoded())
    }
}

pub use auth::kept::path as kept_login;
pub use auth::{ApiKey, Auth, Basic, Client, ClientCredentials, JwtBearer, Password, RefreshToken};
pub use call::{ServiceNow, SetupError, address};
pub use fields::{as_sent, default_fields};
pub use row::{ROW_COLUMNS, row_fields};
pub use states::{can_reopen, can_resolve, refuses_to_close};
pub use ticket::display;

/// A destination, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[servicenow.NAME]`.
    pub name: DestinationName,
    /// Base address: https, or http to a loopback address; no user info, and a path only behind a gateway.
    pub instance: Url,
    /// How it logs in.
    pub auth: Auth,
    /// Proxy, if one has to be used.
    pub proxy: Option<ProxySettings>,
    /// What is trusted.
    pub tls: TlsSettings,
    /// Headers that go with each request, for a gateway in front of the instance.
    pub headers: Vec<(String, Secret)>,
    /// How devices are told; `None`: they go elsewhere, or nowhere.
    pub devices: Option<cmdb::Settings>,
}

/// What is known of a destination's log-in without asking it: a kept refresh token that grows old.
pub fn login_concern(settings: &Settings, now: Timestamp) -> Option<HealthIssue> {
    match &settings.auth {
        Auth::RefreshToken(own) => auth::kept::concern(&own.kept, &settings.name, now),
        _ => None,
    }
}

/// Every secret of a destination, to be taken out of texts.
pub fn secrets(settings: &Settings) -> Vec<&Secret> {
    let mut all = settings.auth.secrets();
    all.extend(settings.headers.iter().map(|(_, value)| value));
    all.extend(settings.proxy.iter().filter_map(|proxy| Some(&proxy.login.as_ref()?.1)));
    all
}

/// Keeps a refresh token for a destination whose `auth` is one; for others there is nothing to keep.
///
/// # Errors
/// The state directory cannot be written to.
pub fn keep_login(settings: &Settings, token: &SecretString, now: Timestamp) -> std::io::Result<()> {
    match &settings.auth {
        Auth::RefreshToken(own) => own.keep(token, now),
        _ => Ok(()),
    }
}

impl Destination for ServiceNow {
    fn name(&self) -> &DestinationName {
        &self.name
    }

    async fn admit(&self, order: &Order, may_ask: MayAsk<'_>) -> Result<Admission, SendError> {
        self.admit_order(order, may_ask).await
    }

    async fn know_devices(&self, table: &TableName, ends: &[Endpoint], may_ask: MayAsk<'_>) {
        self.know_cis(table, ends, may_ask).await;
    }

    async fn look_up(
        &self,
        kind: DeliveryKind,
        table: &TableName,
        asked: &[Asked],
    ) -> Result<LookedUp, SendError> {
        match kind {
            DeliveryKind::OpenTicket | DeliveryKind::ResolveTicket | DeliveryKind::ReopenTicket => {
                self.find_tickets(table, asked, ticket::LOOK_UP_FIELDS).await
            }
            DeliveryKind::NoteTicket => self.find_notes(table, asked).await,
            DeliveryKind::AttachRaw | DeliveryKind::AttachPcap => self.find_files(table, asked).await,
            // They are known by their key there, and nowhere to be asked for.
            DeliveryKind::LinkTicket
            | DeliveryKind::LinkDevice
            | DeliveryKind::PutEvent
            | DeliveryKind::PutRow
            | DeliveryKind::PutDevice => Ok(LookedUp::default()),
        }
    }

    async fn send(&self, order: &Order) -> Result<Sent, SendError> {
        match order.kind {
            DeliveryKind::OpenTicket => {
                let sent = self.open_ticket(order).await?;
                self.learn_user(&sent);
                Ok(sent)
            }
            DeliveryKind::NoteTicket | DeliveryKind::LinkTicket => self.note_ticket(order).await,
            DeliveryKind::ResolveTicket => self.resolve_ticket(order).await,
            DeliveryKind::ReopenTicket => self.reopen_ticket(order).await,
            DeliveryKind::LinkDevice => self.link_device(order).await,
            DeliveryKind::AttachRaw | DeliveryKind::AttachPcap => self.attach(order).await,
            DeliveryKind::PutEvent => self.put_event(order).await,
            DeliveryKind::PutRow => self.put_row(order).await,
            // Devices go many at a time, by `put_devices`.
            DeliveryKind::PutDevice => Err(self.no_devices(&order.table)),
        }
    }

    async fn put_devices(&self, orders: &[DeviceOrder], most: u32) -> Result<DevicesSent, SendError> {
        self.identify(orders, most).await
    }

    fn device_payload(&self, order: &DeviceOrder) -> Result<String, String> {
        self.devices.as_ref().map_or_else(
            || Err("this destination is not the one of [devices]".to_owned()),
            |settings| cmdb::shown(settings, order),
        )
    }

    async fn review_devices(&self, is_order: bool) -> Reviewed {
        self.review_others(is_order).await
    }

    fn learned(&self) -> Learned {
        self.what_is_learned()
    }

    fn recall(&self, learned: &Learned) {
        self.recall_learned(learned);
    }

    async fn read_back(&self, table: &TableName, asked: &[Asked]) -> Result<LookedUp, SendError> {
        self.find_tickets(table, asked, ticket::DETAIL_FIELDS).await
    }

    async fn changed(&self, table: &TableName, since: &Since) -> Result<Changed, SendError> {
        self.changed_tickets(table, since).await
    }

    async fn still_there(&self, table: &TableName, ids: &[SysId]) -> Result<Vec<Remote>, SendError> {
        let found = self.tickets_by_id(table, ids).await?;
        if found.is_empty() && ids.len() >= changes::MANY {
            self.sees_any(table).await?;
        }
        Ok(found)
    }

    fn together(&self, order: &Order, due: usize) -> usize {
        self.batch_size(order, due)
    }

    async fn send_all(&self, orders: &[Order]) -> Result<Vec<Item>, SendError> {
        self.send_batch(orders).await
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn rate_limit(&self) -> RateLimit {
        self.last_rate_limit()
    }
}
