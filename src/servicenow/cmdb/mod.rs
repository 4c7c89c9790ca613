//! Devices: `POST /api/now/identifyreconcile/enhanced`, many a request, bounded by their number and by bytes.
//!
//! Or rows of staging tables (`import`, `rows`). `class` says which class a device has, `payload` makes its items, `answer` reads what became of each. Where the instance
//! has only the plain form, that is used from then on.

pub mod class;

mod answer;
mod import;
mod payload;
mod rows;
mod sets;
mod shared;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::answer::Whole;
use self::payload::Piece;
use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::query::url_value;
use crate::destination::{DeviceOrder, DevicePut, DevicesSent, SendError};
use crate::model::gather::Gather as _;
use crate::model::{Class, HoldScope, TableName};
use crate::net::Method;

/// Most items in one request; more only where one device alone has more.
const ITEMS_MAX: usize = 50;
/// Most bytes of one request, likewise.
const BYTES_MAX: usize = 500_000;
/// The table that stands for all classes in holds and messages.
pub const TABLE: &str = "cmdb_ci";

pub use rows::{COLUMNS, Part, columns_of};
pub(super) use sets::Sets;
pub(super) use shared::KnownOthers;
pub use shared::Other;

/// What is done with a device that its source no longer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDeleted {
    /// The CI is retired.
    Retire,
    /// The CI gets a comment.
    #[default]
    Note,
    /// Nothing.
    None,
}

/// `[devices]`, as far as it is about the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The agent's identity: begins each native key.
    pub agent: String,
    /// The sensor where a device names none.
    pub sensor: String,
    /// `data_source`: a choice of `cmdb_ci.discovery_source` there.
    pub data_source: String,
    /// `class_map`: type to class, over the usual ones.
    pub class_map: BTreeMap<String, String>,
    /// `on_deleted`.
    pub on_deleted: OnDeleted,
    /// `method = "import-set"`: rows of staging tables instead.
    pub import: Option<Import>,
}

/// The class as which a device is told; `None`: it is told of as nothing.
fn told_as(settings: &Settings, order: &DeviceOrder) -> Option<String> {
    let d = &order.device;
    if d.deleted && (settings.on_deleted == OnDeleted::None || !order.is_known) {
        return None;
    }
    if d.is_sensor {
        return Some(class::SENSOR.to_owned());
    }
    class::of(d.kind.as_deref(), d.operating_system.as_deref(), &settings.class_map)
}

/// Staging tables, and what their columns are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// A row for each device.
    pub device: TableName,
    /// A row for each connection; `None`: they are not sent.
    pub connection: Option<TableName>,
    /// A row for each device and module with firmware; `None`: they are not sent.
    pub firmware: Option<TableName>,
    /// Our names of columns to theirs.
    pub columns: BTreeMap<String, String>,
    /// All rows of a table in one request, by the labels of their columns.
    pub insert_multiple: bool,
}

/// What would be sent for one device, as JSON of several lines.
///
/// # Errors
/// It gets no CI.
pub fn shown(settings: &Settings, order: &DeviceOrder) -> Result<String, String> {
    if let Some(import) = &settings.import {
        let rows = import::shown(settings, import, order).ok_or("a device of this type gets no row")?;
        return serde_json::to_string_pretty(&rows).map_err(|e| e.to_string());
    }
    let batch = Batch::of(settings, std::slice::from_ref(order));
    if batch.body["items"].as_array().is_none_or(Vec::is_empty) {
        return Err("a device of this type gets no CI".to_owned());
    }
    serde_json::to_string_pretty(&batch.body).map_err(|e| e.to_string())
}

struct Batch {
    body: Value,
    /// For each device that is in it: none where it gets no CI, else the places of its items, and its class.
    spans: Vec<Option<(usize, usize, String)>>,
}

impl Batch {
    /// As many of the orders as fit, from the first on; at least one.
    fn of(settings: &Settings, orders: &[DeviceOrder]) -> Self {
        let (mut items, mut relations): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        let mut spans = Vec::new();
        let mut sensors: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut bytes = 0;
        let mut links = Vec::new();
        for order in orders {
            let Some(piece) = payload::piece(settings, order) else {
                spans.push(None);
                continue;
            };
            let Piece { items: own, relations: inner, class, sensor, links: outer } = piece;
            let parts = own.iter().chain(&inner).chain(outer.iter().map(|(_, link)| link));
            let size = parts.map(|value| value.to_string().len()).sum::<usize>();
            let linked = links.len() + outer.len();
            let full =
                items.len() + sensors.len() + own.len() + linked > ITEMS_MAX || bytes + size > BYTES_MAX;
            if full && !items.is_empty() {
                break;
            }
            bytes += size;
            spans.push(Some((items.len(), items.len() + own.len(), class)));
            items.extend(own);
            relations.extend(inner);
            links.extend(outer);
            if let Some(sensor) = sensor {
                sensors.entry(sensor).or_default().push(&order.key);
            }
        }
        for (name, detected) in &sensors {
            let (item, links) = payload::sensor(settings, name, detected);
            items.push(item);
            relations.extend(links);
        }
        let told =
            orders.iter().zip(&spans).filter_map(|(order, span)| span.as_ref().map(|_| order.key.as_str()));
        let mut there: BTreeSet<&str> = told.into_set();
        for (peer, link) in links {
            if !there.contains(peer.key.as_str()) {
                // One that is not there yet brings the relation itself when it is told.
                if peer.class.is_empty() {
                    continue;
                }
                items.push(payload::peer(settings, peer));
                there.insert(&peer.key);
            }
            if !relations.contains(&link) {
                relations.push(link);
            }
        }
        Self { body: json!({ "items": items, "relations": relations }), spans }
    }
}

impl ServiceNow {
    /// Tells the CMDB of as many of these devices as fit into one request, or their rows into `most`.
    pub(super) async fn identify(&self, orders: &[DeviceOrder], most: u32) -> Result<DevicesSent, SendError> {
        let Ok(table) = TableName::new(TABLE) else {
            return Err(Self::hold_devices("no table", "report it"));
        };
        let Some(settings) = &self.devices else { return Err(self.no_devices(&table)) };
        if let Some(import) = &settings.import {
            return self.import(settings, import, orders, most).await;
        }
        let batch = Batch::of(settings, orders);
        let told: Vec<(usize, usize, String)> = batch.spans.iter().flatten().cloned().collect();
        if told.is_empty() {
            let outcomes = batch.spans.iter().map(|_| Ok(DevicePut::default())).collect();
            return Ok(DevicesSent { outcomes, ..DevicesSent::default() });
        }
        let (result, status) = self.reconcile(settings, &table, &batch.body, false).await?;
        let mut each = match answer::outcomes(&result, &told, &settings.data_source) {
            Ok(outcomes) => outcomes.into_iter(),
            Err(Whole::DataSource(words)) => return Err(self.unknown_source(settings, &words)),
        };
        let missing = || Ok(DevicePut::default());
        let outcomes: Vec<_> = batch
            .spans
            .iter()
            .map(|span| span.as_ref().and_then(|_| each.next()).unwrap_or_else(missing))
            .collect();
        let mut remarks = answer::relations(&result, &self.place);
        if most > 2 {
            remarks.extend(self.others(settings, orders, &outcomes).await);
        }
        Ok(DevicesSent { outcomes, status: Some(status), remarks, beyond: false })
    }

    /// What the instance would do with a device, in lines; nothing is written there.
    ///
    /// # Errors
    /// [`SendError`]; also where there is nothing to ask.
    pub async fn query_device(&self, order: &DeviceOrder) -> Result<Vec<String>, SendError> {
        let nothing = |words: &str| Self::hold_devices(words, "see `otrelay devices show ID --payload`");
        let settings = self.devices.as_ref().filter(|settings| settings.import.is_none());
        let settings = settings
            .ok_or_else(|| nothing("only method = \"identify-reconcile\" can be asked what it would do"))?;
        let batch = Batch::of(settings, std::slice::from_ref(order));
        let Some(Some((from, to, class))) = batch.spans.first() else {
            return Err(nothing("a device of this type gets no CI"));
        };
        let table = TableName::new(TABLE).map_err(|e| nothing(e.expected))?;
        let (result, _) = self.reconcile(settings, &table, &batch.body, true).await?;
        Ok(answer::would(&result, (*from, *to), class))
    }

    async fn reconcile(
        &self,
        settings: &Settings,
        table: &TableName,
        body: &Value,
        dry: bool,
    ) -> Result<(Value, u16), SendError> {
        loop {
            let plain = self.plain_identify.is_so(self.now());
            let source = format!("sysparm_data_source={}", url_value(&settings.data_source));
            let options = "partial_commits:true,deduplicate_payloads:true";
            let call = Call {
                what: What::Devices,
                table,
                method: Method::Post,
                path: match (dry, plain) {
                    (false, false) => Path::Identify,
                    (false, true) => Path::IdentifyPlain,
                    (true, false) => Path::IdentifyQuery,
                    (true, true) => Path::IdentifyQueryPlain,
                },
                query: if plain { source } else { format!("{source}&options={}", url_value(options)) },
                body: serde_json::to_vec(body).ok(),
            };
            let error = match self.call(&call).await {
                Ok((mut value, answer)) => return Ok((value["result"].take(), answer.status)),
                Err(error) => error,
            };
            let words = error.message.to_lowercase();
            if words.contains("invalid_input_data") && answer::names_source(&words, &settings.data_source) {
                return Err(self.unknown_source(settings, &error.message));
            }
            let absent = matches!(error.status, Some(400 | 404 | 405))
                && (words.contains("requested uri") || error.status != Some(400));
            if !absent {
                return Err(error);
            }
            if plain {
                return Err(Self::hold_devices(
                    &error.message,
                    "the instance has no Identification and Reconciliation API at this address, or the integration user \
                     may not use it: give it the role itil or asset, and see that the CMDB plugin is active",
                )
                .answered(error.status.unwrap_or_default()));
            }
            self.plain_identify.learn(self.now());
        }
    }

    fn unknown_source(&self, settings: &Settings, words: &str) -> SendError {
        let name = &settings.data_source;
        Self::hold_devices(
            &format!("{} does not know the data source `{name}`: {words}", self.place),
            &format!(
                "add the choice `{name}` to the field discovery_source of cmdb_ci there (System Definition > Choice Lists: \
                 table cmdb_ci, element discovery_source, label and value {name}), or set [devices] data_source to one \
                 that is there; then `otrelay sync`"
            ),
        )
    }

    /// This destination was not given any.
    pub(super) fn no_devices(&self, table: &TableName) -> SendError {
        let words = format!("devices do not go to {} ({table})", self.place);
        Self::hold_devices(&words, "set [devices] servicenow to this destination")
    }

    fn hold_devices(message: &str, remedy: &str) -> SendError {
        SendError::new(Class::Hold, HoldScope::Table, message.to_owned(), remedy)
    }
}
