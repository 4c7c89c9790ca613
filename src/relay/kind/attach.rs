//! Attaching evidence to a ticket: a file of a name that is made of the ticket's key, so that one which is there already,
//! after a lost answer or a lost database, is found by it and not sent again.

use super::later;
use super::{Job, Repeat, Work};
use crate::destination::{Attachment, Fields, Found, Order, Sent};
use crate::model::evidence::{self, File};
use crate::model::ticket::TicketKeys;
use crate::model::{Alert, DestinationName};
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// A kind of evidence.
pub(super) struct Attach {
    /// In the name of the file.
    what: &'static str,
    /// What is attached of an alert.
    file: fn(&Alert) -> Option<File>,
}

/// The record as the sensor wrote it.
pub(super) static RAW: Attach = Attach { what: "record", file: evidence::record };
/// The packet of it.
pub(super) static PCAP: Attach = Attach { what: "packet", file: evidence::capture };

/// Digits of the key in a name: enough for a person, and for one ticket.
const DIGITS: usize = 8;

impl Attach {
    fn file(&self, claimed: &Claimed) -> Result<File, String> {
        (self.file)(super::alert(claimed)?)
            .ok_or_else(|| "the stored record has nothing to attach, or [[redact]] keeps it here".to_owned())
    }

    fn name(&self, claimed: &Claimed, destination: &DestinationName) -> String {
        let keys = later::keys(claimed, destination);
        let key = keys.correlation_id.as_str().trim_start_matches("otrelay-");
        let extension = self.file(claimed).map_or("txt", |file| file.extension);
        format!("otrelay-{}-{}.{extension}", key.get(..DIGITS).unwrap_or(key), self.what)
    }
}

impl Work for Attach {
    fn repeat(&self) -> Repeat {
        Repeat::ByKey
    }

    fn keys(&self, claimed: &Claimed, destination: &DestinationName) -> TicketKeys {
        later::keys(claimed, destination)
    }

    fn mark(&self, claimed: &Claimed, destination: &DestinationName) -> String {
        self.name(claimed, destination)
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let Job { claimed, destination, .. } = *job;
        let table = claimed.ticket.table.clone().ok_or("its ticket is not known any more")?;
        let File { content_type, bytes, .. } = self.file(claimed)?;
        let attachment = Attachment { table, name: self.name(claimed, destination), content_type, bytes };
        let order = job.order(later::keys(claimed, destination), Fields::new());
        Ok(Order { attachment: Some(attachment), ..order })
    }

    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        Outcome::Added { created: sent.created }
    }

    fn found(&self, _: &Claimed, _: &Found) -> Option<Outcome> {
        Some(Outcome::Added { created: false })
    }

    /// A ticket that was never made, or was given up, has nothing that anything could be attached to.
    fn missing(&self, claimed: &Claimed) -> Option<Outcome> {
        claimed.ticket.sys_id.is_none().then_some(Outcome::Added { created: false })
    }
}
