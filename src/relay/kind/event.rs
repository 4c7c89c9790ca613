//! Putting an event: Event Management knows it by its message key, so that it may be sent as often as one likes. It is sent
//! again as its finding goes on (`store/op/told.rs`): its end is one more event, `Closing`, under the same key.

use serde_json::{Map, Value};

use super::{Job, Repeat, Work};
use crate::destination::{Order, Sent};
use crate::model::Alert;
use crate::model::gather::Gather as _;
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// Event Management must know of this alert.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    /// What comes later changes the alert there, and makes none.
    fn sent(&self, claimed: &Claimed, sent: &Sent) -> Outcome {
        let created = sent.created;
        if is_later(claimed) { Outcome::Added { created } } else { Outcome::Told { created } }
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let mut fields = job.fields()?;
        if let Some(alert) = &job.claimed.alert {
            let all = || additional_info(alert, job.claimed.occurrences);
            fields.entry("additional_info".to_owned()).or_insert_with(all);
        }
        // The first says that there is something, whatever became of it since.
        if let Some(at) = job.claimed.ticket.cleared_at.filter(|_| is_later(job.claimed)) {
            fields.insert("resolution_state".to_owned(), "Closing".to_owned());
            let seen = job.claimed.last_seen_at.servicenow();
            if let Some(time) = fields.get_mut("time_of_event").filter(|time| **time == seen) {
                *time = at.servicenow();
            }
        }
        Ok(job.order(self.keys(job.claimed, job.destination), fields))
    }
}

/// Whether it was told before: this is its next word.
fn is_later(claimed: &Claimed) -> bool {
    claimed.ticket.seq > 1
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
