//! 1 — bytes come in. A source turns what a sensor writes into [`Batch`]es of sightings and says how far it has read.
//!
//! Every input is bounded; a line becomes a sighting or a counted [`Reject`], never a stop. A source does not store:
//! it hands a batch over with its cursors, and `intake` commits both in one transaction.

pub mod format;

pub mod host;

pub mod tail;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::{Alert, FileCursor, Fingerprint, SourceName};

/// One alert as it came in.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The alert.
    pub alert: Alert,
    /// Which finding it is one sighting of.
    pub fingerprint: Fingerprint,
    /// Whether it was already written when its source was first read, so that `backfill` applies to it.
    pub backlog: bool,
}

/// Why a piece of input did not become an alert. Counted by these names; nothing is dropped without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// Not the format that the source was said to have.
    Malformed,
    /// Longer than the limit; skipped to its end.
    TooLong,
    /// An alert without what every alert needs.
    MissingField,
    /// Input that vanished before it was read (truncated or removed file); counted once per gap.
    Lost,
}

impl RejectReason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Malformed, Self::TooLong, Self::MissingField, Self::Lost];

    /// As counted and shown.
    pub fn as_str(self) -> &'static str {
        ["malformed", "too long", "missing field", "lost"][self as usize]
    }
}

/// Longest sample of a rejected input, in bytes.
pub const SAMPLE_MAX: usize = 512;

/// A piece of input that did not become an alert.
#[derive(Clone, Debug)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// Where and what, for people: `eve.json, byte 8123: expected value at column 1`.
    pub detail: String,
    /// The beginning of it, at most [`SAMPLE_MAX`] bytes, safe to show.
    pub sample: String,
}

/// What a source took in since its last batch.
#[derive(Debug)]
pub struct Batch {
    /// Which source.
    pub source: SourceName,
    /// Alerts, in the order they were read.
    pub sightings: Vec<Sighting>,
    /// The first few rejects in full; `reject_counts` has all.
    pub rejects: Vec<Reject>,
    /// How many pieces were rejected, by [`RejectReason`] as index.
    pub reject_counts: [u64; 4],
    /// Lines read, whatever they were.
    pub lines: u64,
    /// How far the files were read; stored with the sightings.
    pub cursors: Vec<FileCursor>,
    /// Cursors of files that are gone and read to their end: forgotten with this batch.
    pub finished: Vec<FileCursor>,
    /// Whether the source has more to give at once: the batch ended at a limit, not at the end of the input.
    pub more: bool,
    /// What is wrong with the source at the moment, in words (`/var/log/suricata/eve.json is a directory`); `None`: nothing.
    pub trouble: Option<String>,
}

impl Batch {
    /// An empty batch.
    pub fn new(source: SourceName) -> Self {
        Self {
            source,
            sightings: Vec::new(),
            rejects: Vec::new(),
            reject_counts: [0; 4],
            lines: 0,
            cursors: Vec::new(),
            finished: Vec::new(),
            more: false,
            trouble: None,
        }
    }
}

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
}

/// A kind of input.
pub trait Source: Send + 'static {
    /// Its name in the config.
    fn name(&self) -> &SourceName;

    /// Reads until `stop`, or to the end with [`Reading::Once`]. The channel is bounded: when the store cannot keep
    /// up, the source waits and the file is the buffer.
    fn run(
        self,
        out: mpsc::Sender<Batch>,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;
}
