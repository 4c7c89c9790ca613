//! What a source hands over: alerts, devices, what was not understood, and how far it has read, in one piece.
//!
//! Every record is counted once, by what it turned out to be, and [`Batch::lines`] is the sum of the counts: nothing can
//! be left out of it. A sender that has to be answered puts an [`Acknowledge`] into the batch.

use tokio::sync::oneshot;

use super::format::{Decoded, Finding, Outcome};
use crate::model::cursor::Again;
use crate::model::text::{clip, one_line};
use crate::model::words::words;
use crate::model::{Alert, Cursor, Device, Fingerprint, SourceName};

/// One alert as it came in.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// The alert, raised or cleared.
    pub alert: Alert,
    /// Which finding it is one sighting of.
    pub fingerprint: Fingerprint,
    /// Whether it was already written when its source was first read, so that `backfill` applies to it.
    pub backlog: bool,
    /// Whether it was counted before, and an order has it read again.
    pub again: bool,
}

words! {
    /// Why a piece of input did not become an alert. Counted by these names; nothing is dropped without one.
    pub enum RejectReason {
        /// Not the format that the source was said to have.
        Malformed = "malformed",
        /// Longer than the limit; skipped to its end.
        TooLong = "too long",
        /// An alert without what every alert needs.
        MissingField = "missing field",
        /// Input that vanished before it was read: a truncated or removed file, counted once per gap; a datagram that the
        /// kernel had no room for.
        Lost = "lost",
        /// Its sender may not send here: not in `allow`, or no TLS handshake. Counted per datagram or connection.
        Foreign = "foreign sender",
        /// Beyond a limit of rate or connections. Counted per datagram or connection.
        OverLimit = "over the limit",
    }
}

/// How many pieces were rejected, by [`RejectReason`] as index.
pub type RejectCounts = [u64; RejectReason::ALL.len()];

/// Most sightings in a batch. With the batches that wait and those in a commit it decides the peak of memory.
pub const SIGHTINGS_MAX: usize = 384;
/// Most text of sightings and devices in a batch, in bytes, give or take one record.
const KEPT_MAX: usize = 1024 * 1024;
/// What a device counts for in it: most have a few dozen short texts.
const DEVICE_WEIGHT: usize = 2048;
/// Most rejects that a batch has in full.
const REJECTS_MAX: usize = 16;
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

/// What was taken with a batch, said after its commit was synced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The findings of its sightings, in their order; those that no rule wants are among them, they are counted.
    pub alerts: Vec<Fingerprint>,
    /// How many devices.
    pub devices: u64,
}

/// Told once, when a batch is committed; dropped without a word when it will not be.
#[derive(Debug)]
pub struct Acknowledge(oneshot::Sender<Taken>);

impl Acknowledge {
    /// One end for the batch, the other for who waits. An error there: it was not committed; send it again.
    pub fn pair() -> (Self, oneshot::Receiver<Taken>) {
        let (send, receive) = oneshot::channel();
        (Self(send), receive)
    }

    /// The batch is committed.
    pub fn tell(self, taken: Taken) {
        // Who does not wait any more will ask again, and be told that it is known.
        let _ = self.0.send(taken);
    }
}

/// What a source took in since its last batch.
#[derive(Debug)]
pub struct Batch {
    /// Which source.
    pub source: SourceName,
    /// Its kind, as in the config.
    pub kind: &'static str,
    /// Alerts, raised and cleared, in the order they were read.
    pub sightings: Vec<Sighting>,
    /// What was told of devices, in the order it was read.
    pub devices: Vec<Device>,
    /// The first few rejects in full; `reject_counts` has all.
    pub rejects: Vec<Reject>,
    /// How many pieces were rejected, by [`RejectReason`] as index.
    pub reject_counts: RejectCounts,
    /// How many records were no alerts, by their kind.
    pub ignored: Vec<(&'static str, u64)>,
    /// How far the source was read; stored with the sightings.
    pub cursors: Vec<Cursor>,
    /// Cursors of what is gone and read to its end: forgotten with this batch.
    pub finished: Vec<Cursor>,
    /// Whether the source has more to give at once: the batch ended at a limit, not at the end of the input.
    pub more: bool,
    /// What is wrong with the source at the moment, in words (`/var/log/suricata/eve.json is a directory`); `None`: nothing.
    pub trouble: Option<String>,
    /// Whether its commit may wait for more: the source still has all of it, and would give it again.
    pub can_wait: bool,
    /// Who waits for the commit.
    pub acknowledge: Option<Acknowledge>,
    /// How much text it keeps, in bytes.
    pub kept: usize,
    /// How many of the sightings came from senders that nobody has authenticated: shown beside the source.
    pub unauthenticated: u64,
    /// The order by which its backlog is read a second time: then that counts only where something comes of it.
    pub again: Option<Again>,
}

impl Batch {
    /// An empty batch.
    pub fn new(source: SourceName, kind: &'static str) -> Self {
        Self {
            source,
            kind,
            sightings: Vec::new(),
            devices: Vec::new(),
            rejects: Vec::new(),
            reject_counts: RejectCounts::default(),
            ignored: Vec::new(),
            cursors: Vec::new(),
            finished: Vec::new(),
            more: false,
            trouble: None,
            can_wait: false,
            acknowledge: None,
            kept: 0,
            unauthenticated: 0,
            again: None,
        }
    }

    /// Records read, whatever they were. Empty lines and headers are no records.
    pub fn lines(&self) -> u64 {
        let ignored: u64 = self.ignored.iter().map(|(_, count)| count).sum();
        self.alerts() + ignored + self.reject_counts.iter().sum::<u64>()
    }

    /// How many of the records are alerts; those that are read again are none of them.
    pub fn alerts(&self) -> u64 {
        self.sightings.iter().filter(|sighting| !sighting.again).count() as u64
    }

    /// Whether it should be handed over before anything more is taken.
    pub fn is_full(&self) -> bool {
        self.sightings.len() >= SIGHTINGS_MAX || self.kept >= KEPT_MAX
    }

    /// Takes what a decoder made of a record. `place` says where the record stands, for people. After an order to read
    /// again the backlog is what was read before it.
    pub fn take(&mut self, decoded: Decoded, record: &[u8], backlog: bool, place: impl FnOnce() -> String) {
        if backlog && self.again.is_some() {
            // Everything else of it was counted at the first time, and of a device the newest word counts.
            if let Outcome::Alert(finding) = decoded.outcome {
                self.take_again(*finding);
            }
            return;
        }
        self.take_once(decoded, record, backlog, place);
    }

    /// Takes an alert that was counted before.
    pub fn take_again(&mut self, finding: Finding) {
        self.sight(finding, true, self.again.is_some());
    }

    /// Takes what a decoder made of a record that was never read before, order or not.
    pub fn take_once(
        &mut self,
        decoded: Decoded,
        record: &[u8],
        backlog: bool,
        place: impl FnOnce() -> String,
    ) {
        self.kept += decoded.devices.len() * DEVICE_WEIGHT;
        self.devices.extend(decoded.devices);
        match decoded.outcome {
            Outcome::Alert(finding) => {
                self.sight(*finding, backlog, false);
            }
            Outcome::Ignored(kind) => self.ignore(kind),
            Outcome::Blank => {}
            Outcome::Reject(reason, why) => {
                self.refuse(reason, || format!("{}: {why}", place()), record);
            }
        }
    }

    fn sight(&mut self, finding: Finding, backlog: bool, again: bool) {
        let Finding { alert, fingerprint } = finding;
        self.kept += kept(&alert);
        self.sightings.push(Sighting { alert, fingerprint, backlog, again });
    }

    /// Counts a record that is no alert.
    pub fn ignore(&mut self, kind: &'static str) {
        match self.ignored.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => self.ignored.push((kind, 1)),
        }
    }

    /// Counts rejects that have one cause and no text of their own.
    pub fn refuse_many(&mut self, reason: RejectReason, count: u64, detail: impl FnOnce() -> String) {
        if count > 0 {
            self.refuse(reason, detail, b"");
            self.reject_counts[reason as usize] += count - 1;
        }
    }

    /// Counts a reject, and keeps it while there is room.
    pub fn refuse(&mut self, reason: RejectReason, detail: impl FnOnce() -> String, input: &[u8]) {
        self.reject_counts[reason as usize] += 1;
        if self.rejects.len() < REJECTS_MAX {
            let start = String::from_utf8_lossy(&input[..input.len().min(SAMPLE_MAX)]);
            let sample = clip(&one_line(&start), SAMPLE_MAX).into_owned();
            let detail = one_line(&detail()).into_owned();
            self.rejects.push(Reject { reason, detail, sample });
        }
    }
}

/// How much text an alert keeps, in bytes: what makes batches large.
fn kept(alert: &Alert) -> usize {
    let references: usize = alert.references.iter().map(String::len).sum();
    alert.raw.len() + alert.message.len() + alert.title.len() + references
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Identity, Severity, Timestamp};

    #[test]
    fn every_record_is_counted_once() {
        let source = SourceName::new("s").unwrap();
        let fingerprint = Fingerprint::derive("a", &source, &Identity::Own("x"));
        let alert = Alert::sample("x", Severity::Major, Timestamp::EPOCH);
        let finding = Finding { alert, fingerprint };
        let mut batch = Batch::new(source, "zeek");
        for outcome in [
            Outcome::Alert(Box::new(finding)),
            Outcome::Ignored("conn"),
            Outcome::Ignored("weird"),
            Outcome::Ignored("conn"),
            Outcome::Blank,
            Outcome::Reject(RejectReason::Malformed, "no number".into()),
        ] {
            batch.take(outcome.into(), b"a\x07b", false, || "x.log, byte 7".to_owned());
        }
        assert_eq!(batch.ignored, [("conn", 2), ("weird", 1)]);
        assert_eq!((batch.sightings.len(), batch.reject_counts, batch.lines()), (1, [1, 0, 0, 0, 0, 0], 5));
        let reject = &batch.rejects[0];
        assert_eq!((reject.detail.as_str(), reject.sample.len()), ("x.log, byte 7: no number", 2));
    }

    #[test]
    fn devices_fill_a_batch() {
        let mut batch = Batch::new(SourceName::new("s").unwrap(), "host");
        while !batch.is_full() {
            let devices = vec![Device::default(); 8];
            batch.take(Decoded { outcome: Outcome::Blank, devices }, b"", false, String::new);
        }
        assert_eq!((batch.devices.len(), batch.lines()), (KEPT_MAX / DEVICE_WEIGHT, 0));
    }
}
