//! How bytes come in: a file that grows, and later listeners, polls and a bus. A transport cuts its input into records
//! and says how far it has got; what a record means is the decoder's.
//!
//! To add one: a file here that implements [`Source`](super::Source), a variant of [`Input`](super::Input), and an arm in
//! `super::run`. It keeps a [`Decoding`] for each stream, fills a [`Batch`] by `take`, and hands it over by
//! [`send`]. A sender that wants an answer gets it when the batch's [`Acknowledge`](super::Acknowledge) was told.

pub mod defender;

pub mod host;

pub mod http;

mod gather;

mod last;

mod packed;

pub mod poll;

pub mod syslog;

pub mod tail;

pub mod unix;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::format::{Decoded, Decoder, Format, Outcome, STATE_MAX, Stream};
use super::{Batch, RejectReason, SourceError};
use crate::model::{SourceName, Timestamp};

/// The decoder of one stream. A record that it fails on is one reject and not the end of the source: the next record
/// meets a new decoder that knows what the failed one knew before.
pub struct Decoding {
    format: Arc<dyn Format>,
    name: String,
    sender: Option<IpAddr>,
    decoder: Box<dyn Decoder>,
}

impl Decoding {
    /// A decoder for the stream of this name, from its beginning or from a state.
    pub fn new(format: &Arc<dyn Format>, name: &str, sender: Option<IpAddr>, state: Option<&str>) -> Self {
        let decoder = format.decoder(&Stream { name, sender, state });
        Self { format: Arc::clone(format), name: name.to_owned(), sender, decoder }
    }

    /// Reads one record; never panics.
    pub fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        // What it leaves half done is thrown away below.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode(record, received_at)));
        decoded.unwrap_or_else(|_| {
            let state = catch_unwind(AssertUnwindSafe(|| self.decoder.state())).ok().flatten();
            let stream = Stream { name: &self.name, sender: self.sender, state: state.as_deref() };
            self.decoder = self.format.decoder(&stream);
            let why = "the decoder failed on it: an error in otrelay, please report it with this record";
            Outcome::Reject(RejectReason::Malformed, why.into()).into()
        })
    }

    /// Reads one line, which may hold more than one record where a power cut tore one: gives each with its bytes.
    pub fn each<'a>(
        &mut self,
        line: &'a [u8],
        received_at: Timestamp,
        mut take: impl FnMut(Decoded, &'a [u8]),
    ) {
        let mut rest = line;
        for _ in 0..TORN_MAX {
            let decoded = self.decode(rest, received_at);
            let torn = match decoded.outcome {
                Outcome::Reject(RejectReason::Malformed, _) => self.torn(rest),
                _ => None,
            };
            let Some(at) = torn else { return take(decoded, rest) };
            let (piece, more) = rest.split_at(at);
            take(self.decode(piece, received_at), piece);
            rest = more;
        }
        take(self.decode(rest, received_at), rest);
    }

    fn torn(&self, record: &[u8]) -> Option<usize> {
        let at = catch_unwind(AssertUnwindSafe(|| self.decoder.torn(record))).ok()??;
        (1..record.len()).contains(&at).then_some(at)
    }

    /// Reads a record of which only the beginning is at hand, as it is longer than a record may be; never panics.
    pub fn decode_start(&mut self, start: &[u8], received_at: Timestamp) -> Decoded {
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode_start(start, received_at)));
        decoded.unwrap_or_else(|_| Outcome::Reject(RejectReason::TooLong, "too long".into()).into())
    }

    /// What is to be stored with the stream's cursor.
    pub fn state(&self) -> Option<String> {
        self.decoder.state().filter(|state| state.len() <= STATE_MAX)
    }
}

/// Most pieces of one line.
const TORN_MAX: usize = 64;
/// How long the last batch may wait for room after the order to stop; undelivered, it is read again at the next start.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// Hands a batch over, waiting for room; whether it was taken. After the order to stop it does not wait for long.
///
/// # Errors
/// [`SourceError::Closed`]: the intake has ended.
pub async fn send(
    out: &mpsc::Sender<Batch>,
    batch: Batch,
    name: &SourceName,
    stop: &CancellationToken,
) -> Result<bool, SourceError> {
    let given_up = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_BATCH).await;
    };
    tokio::select! {
        biased;
        sent = out.send(batch) => sent.map(|()| true).map_err(|_| SourceError::Closed(name.clone())),
        () = given_up => Ok(false),
    }
}
