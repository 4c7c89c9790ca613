//! Putting an event: Event Management knows it by its message key, so that it may be sent as often as one likes.

use serde_json::{Map, Value};

use super::{Job, Repeat, Work};
use crate::destination::Order;
use crate::model::Alert;
use crate::model::gather::Gather as _;

/// Event Management must know of this alert.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let mut fields = job.fields()?;
        if let Some(alert) = &job.claimed.alert {
            let all = || additional_info(alert, job.claimed.occurrences);
            fields.entry("additional_info".to_owned()).or_insert_with(all);
        }
        Ok(job.order(self.keys(job.claimed, job.destination), fields))
    }
}

/// What no column of an event holds: a text that is JSON, with texts as values.
fn additional_info(alert: &Alert, occurrences: u64) -> String {
    let protocols: Vec<&str> = alert.protocols.iter().map(crate::model::Protocol::as_str).collect();
    let pairs = [
        ("severity", alert.severity.as_str().to_owned()),
        ("engine", alert.engine.as_str().to_owned()),
        ("category", alert.category.clone().unwrap_or_default()),
        ("protocols", protocols.join(", ")),
        ("sensor", alert.sensor.clone()),
        ("site", alert.site.clone().unwrap_or_default()),
        ("zone", alert.zone.clone().unwrap_or_default()),
        ("source_ip", alert.source.ip.map(|ip| ip.to_string()).unwrap_or_default()),
        ("destination_ip", alert.destination.ip.map(|ip| ip.to_string()).unwrap_or_default()),
        ("occurrences", occurrences.to_string()),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    let map: Map<String, Value> =
        pairs.map(|(name, value)| (name.to_owned(), Value::String(value))).into_object();
    Value::Object(map).to_string()
}
