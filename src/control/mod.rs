//! The running service's ear: a unix socket in the state directory (or `$RUNTIME_DIRECTORY`), for this machine only.
//!
//! One JSON line in, one JSON line out, then the connection ends; who watches (`tap.rs`) is told line after line. Mode 0600, and the peer's user is checked: it has to
//! be the service's own or root. `server.rs` answers in the service, `client.rs` asks; where no service runs, commands
//! read the store themselves through the same [`answer`].

pub mod client;
pub mod server;
mod tap;

use serde::{Deserialize, Serialize};

use crate::model::seen::Watched;
use crate::model::{DeliveryId, DeliveryState};
use crate::status::Status;
use crate::store::op::again::Wanted;
use crate::store::op::by_hand::ByHand;
use crate::store::op::dead::Verdict;
use crate::store::{AlertRow, DeviceFilter, ListFilter, Reader, StoreError, TicketRow};

/// Name of the socket.
pub const SOCKET: &str = "otrelay.sock";
/// Longest question in bytes.
const QUESTION_MAX: u64 = 64 * 1024;

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// How things are.
    Status,
    /// The same with the newest findings and tickets, for one who looks again and again: nothing is written for it.
    Glance,
    /// Findings.
    Alerts(ListFilter),
    /// Recent alerts that were not forwarded.
    Filtered(ListFilter),
    /// Recent input that was not understood.
    Rejected(ListFilter),
    /// Tickets.
    Tickets(ListFilter),
    /// One ticket with its finding.
    Ticket {
        /// Its number, `sys_id` or correlation id.
        name: String,
    },
    /// Deliveries in a state.
    Queue {
        /// Which state.
        state: DeliveryState,
        /// What of it.
        filter: ListFilter,
    },
    /// One delivery with all that is known of it.
    Delivery {
        /// Which.
        id: DeliveryId,
    },
    /// Try again.
    Retry {
        /// Which.
        ids: Vec<DeliveryId>,
    },
    /// Give up.
    Drop {
        /// Which.
        ids: Vec<DeliveryId>,
    },
    /// Devices.
    Devices(DeviceFilter),
    /// One device with what each source says.
    Device {
        /// Its id, an address, a MAC or its name.
        id: String,
    },
    /// Forget what was told of devices, so that the next sync tells all of them.
    ResyncDevices,
    /// Put a ticket into the outbox that a person wants.
    OrderTicket(ByHand),
    /// How far each source was read.
    Sources,
    /// Read a source again.
    Rewind(Wanted),
    /// What is decided from now on, until one of both sides ends.
    Tap(Watched),
    /// Sync now.
    Sync,
    /// What a sync would send.
    Plan {
        /// At most so many.
        limit: usize,
    },
}

impl Question {
    /// Whether it changes deliveries, and how.
    pub fn verdict(&self) -> Option<(&[DeliveryId], Verdict)> {
        match self {
            Self::Retry { ids } => Some((ids, Verdict::Retry)),
            Self::Drop { ids } => Some((ids, Verdict::Drop)),
            _ => None,
        }
    }
}

/// How things are at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Glance {
    /// The numbers, and what needs a person.
    pub status: Status,
    /// The newest findings, without their texts and originals.
    pub alerts: Vec<AlertRow>,
    /// The newest tickets.
    pub tickets: Vec<TicketRow>,
}

impl Glance {
    const ROWS: u32 = 20;

    /// Puts it together. Blocking.
    fn new(reader: &Reader, status: Status) -> Result<Self, StoreError> {
        let newest = ListFilter { limit: Self::ROWS, ..ListFilter::default() };
        let mut alerts = reader.alerts(&newest)?;
        for alert in alerts.iter_mut().filter_map(|row| row.alert.as_mut()) {
            (alert.raw, alert.message) = (String::new(), String::new());
        }
        Ok(Self { status, alerts, tickets: reader.tickets(&newest)? })
    }
}

/// The answer: a value, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not.
    Error(String),
    /// Why not, where it is what was asked for that cannot be: another question may be answered.
    No(String),
}

/// Answers what only needs reading. `None`: this question needs the service, or a writer. Blocking.
///
/// # Errors
/// [`StoreError`].
pub fn answer(reader: &Reader, question: &Question) -> Result<Option<serde_json::Value>, StoreError> {
    let value = match question {
        Question::Alerts(filter) => json(reader.alerts(filter)?),
        Question::Filtered(filter) => json(reader.filtered(filter)?),
        Question::Rejected(filter) => json(reader.rejected(filter)?),
        Question::Tickets(filter) => json(reader.tickets(filter)?),
        Question::Ticket { name } => json(reader.ticket(name)?),
        Question::Queue { state, filter } => json(reader.deliveries(*state, filter)?),
        Question::Delivery { id } => json(reader.delivery(*id)?),
        Question::Devices(filter) => json(reader.devices(filter)?),
        Question::Device { id } => json(reader.device(id)?),
        Question::Sources => json(reader.readings()?),
        _ => return Ok(None),
    };
    value.map(Some).map_err(|e| StoreError::Refused(e.to_string()))
}

fn json(value: impl Serialize) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::to_value(value)
}

#[cfg(test)]
mod tests;
