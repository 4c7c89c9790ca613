//! 1 — bytes come in. A source turns what a sensor writes into [`Batch`]es of sightings and says how far it has read.
//!
//! A source is a transport (where records come from) and a format (what a record means): `transport` and `format` have
//! one file for each, [`run`](run()) puts them together. Every input is bounded; a record becomes a sighting, is counted
//! as ignored, or becomes a counted [`Reject`], never a stop. A source does not store: it hands a batch over with its
//! cursors, and `intake` commits both in one transaction.

mod again;

mod batch;

pub mod format;

pub mod host;

mod kept;

mod own;

mod run;

pub mod transport;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::SourceName;

pub use again::begins_anew;
pub use batch::{
    Acknowledge, Batch, Reject, RejectCounts, RejectReason, SAMPLE_MAX, SIGHTINGS_MAX, Sighting, Taken,
};
pub use kept::Kept;
pub use own::{Own, OwnIds};
pub use run::{Answer, Context, Input, Order, Reads, Remember, Settings, behind, heartbeat, run};
pub use transport::defender::handling::{Asking, Closed};

/// Whether a source ends when it has read what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Goes on until it is stopped.
    Follow,
    /// Ends at the end: `otrelay run --once`, `otrelay demo`.
    Once,
}

/// A source stopped for a reason that is not an order.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The intake is gone.
    #[error("source {0}: the intake has stopped")]
    Closed(SourceName),
    /// A blocking read did not come back (a panic in it).
    #[error("source {0}: the reader failed")]
    Reader(SourceName, #[source] tokio::task::JoinError),
    /// The reader failed where it is not begun again.
    #[error("source {0}: the reader failed: {1}")]
    Failed(SourceName, String),
    /// How far it was read cannot be learnt.
    #[error("source {0}: how far it was read cannot be learnt")]
    Memory(SourceName, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A transport at work.
pub trait Source: Send + 'static {
    /// Reads until `stop`, or to the end with [`Reading::Once`]. The channel is bounded: when the store cannot keep
    /// up, the source waits and the file is the buffer.
    fn run(
        self,
        out: mpsc::Sender<Batch>,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}
