//! An API that is asked again and again: interval, back-off, deadlines, what is wrong in words, and what was told.
//!
//! An [`Api`] knows what to ask, and in which order; [`Poll`] asks it to make a round whenever one is due and hands on
//! what came of it by its [`Feed`]. An answer is never held: `http` gives it in pieces, `told` knows which of its
//! alerts are news. What was told is committed with the alerts themselves, so a round that breaks off anywhere is just
//! made again. A quiet round writes nothing. What this does not do: understand records.

pub mod http;

pub mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::told::Told;
use super::send;
use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::cursor::{Mark, Remembered};
use crate::model::gather::Gather as _;
use crate::model::trouble::NOTHING_READ;
use crate::model::{Cursor, SourceName, Timestamp};
use crate::source::format::{Decoded, Finding, Outcome};
use crate::source::{Batch, Reading, RejectReason, Source, SourceError};

/// First and longest wait after a round that failed.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// Most rejected records that are known as such, so that they are counted once.
const REJECTS_MAX: usize = 4_096;
/// Most sensors that are known as told.
const SENSORS_MAX: usize = 4_096;

/// What is wrong, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub text: String,
    /// What to do; empty when waiting is enough.
    pub remedy: String,
    /// What the poller itself can do.
    pub why: Why,
    /// What the other side asked for.
    pub retry_after: Option<Duration>,
}

/// Kinds of trouble that are acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is nothing at this address (404, 405, 501).
    Absent,
    /// The answer was too much for the other side or for its time: a smaller question may work.
    TooMuch,
    /// It cannot be reached or refuses us: any other question would fare the same.
    Away,
    /// Anything else.
    Other,
}

impl Trouble {
    /// In one line: what, whether anything was read all the same, and what to do.
    fn words(&self, unread: bool) -> String {
        let unread = if unread { NOTHING_READ } else { "" };
        let remedy = if self.remedy.is_empty() { "" } else { "; " };
        format!("{}{unread}{remedy}{}", self.text, self.remedy)
    }
}

/// Why a round ends early.
#[derive(Debug)]
pub enum Halt {
    /// Something is wrong; it is tried again.
    Trouble(Box<Trouble>),
    /// The order to stop.
    Stopped,
    /// The source cannot go on.
    Source(SourceError),
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(Box::new(trouble))
    }
}

/// What is asked, and in which order.
pub trait Api: Send + 'static {
    /// Asks everything that is due and feeds what is new. What is wrong with a lesser part of it (devices) is told, and
    /// the round is good all the same.
    ///
    /// # Errors
    /// [`Halt`]; what was fed before stays fed.
    fn round(&mut self, feed: &mut Feed) -> impl Future<Output = Result<Option<Trouble>, Halt>> + Send;
}

/// The way from an [`Api`] to the intake.
pub struct Feed {
    name: SourceName,
    kind: &'static str,
    clock: SharedClock,
    heartbeat: Heartbeat,
    out: mpsc::Sender<Batch>,
    stop: CancellationToken,
    batch: Batch,
    /// What was told already.
    pub told: Told,
    marks: BTreeMap<String, String>,
    changed: BTreeSet<String>,
    /// Hashes of rejected records.
    rejected: BTreeSet<u64>,
    /// Sensors that were told as devices.
    sensors: BTreeSet<String>,
    /// Whether anything was handed over yet.
    begun: bool,
    /// The trouble that was last handed over.
    trouble: Option<String>,
    /// Whether something of this round was handed over.
    read: bool,
}

impl Feed {
    /// This machine's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A place of the source's own, as it was last set.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.marks.get(name).map(String::as_str)
    }

    /// Sets a place; stored with what was fed before.
    pub fn set_mark(&mut self, name: &str, value: String) {
        if self.mark(name) != Some(value.as_str()) {
            self.marks.insert(name.to_owned(), value);
            self.changed.insert(name.to_owned());
        }
    }

    /// Takes what a decoder made of a record. A reject is counted once, however often the record comes.
    pub fn take(&mut self, decoded: Decoded, record: &[u8], backlog: bool, place: &str) {
        if matches!(decoded.outcome, Outcome::Reject(..)) && !self.is_new_reject(record) {
            return;
        }
        self.batch.take_once(decoded, record, backlog, || place.to_owned());
    }

    /// Takes an alert that was taken before, as an order to read again has it.
    pub fn take_again(&mut self, finding: Finding) {
        self.batch.take_again(finding);
    }

    /// Counts a record that is longer than can be read.
    pub fn too_long(&mut self, start: &[u8], place: &str) {
        if self.is_new_reject(start) {
            let detail = || format!("{place}: a record longer than can be read");
            self.batch.refuse(RejectReason::TooLong, detail, start);
        }
    }

    fn is_new_reject(&mut self, record: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        hasher.write(record);
        if self.rejected.len() >= REJECTS_MAX {
            self.rejected.clear();
        }
        self.rejected.insert(hasher.finish())
    }

    /// Hands over what there is when it fills a batch; waits for room.
    ///
    /// # Errors
    /// [`Halt`]: the order to stop, or the intake is gone.
    pub async fn make_room(&mut self) -> Result<(), Halt> {
        if self.batch.is_full() {
            let trouble = self.trouble.clone();
            self.hand_over(trouble, true).await?;
        }
        Ok(())
    }

    /// Takes what a sensor's record is: as a device it is told when its state changes, after a start and with devices.
    pub fn sensor(&mut self, decoded: Decoded, record: &[u8], place: &str) {
        let Decoded { outcome, mut devices } = decoded;
        let changed = matches!(outcome, Outcome::Alert(_));
        devices.retain(|device| {
            let id = device.id.clone().unwrap_or_default();
            self.sensors.len() < SENSORS_MAX && self.sensors.insert(id) || changed
        });
        if changed || !devices.is_empty() {
            self.take(Decoded { outcome, devices }, record, false, place);
        }
    }

    /// From now on every sensor is told as a device once more.
    pub fn forget_sensors(&mut self) {
        self.sensors.clear();
    }

    /// Says that it waits for the other side.
    pub fn rests(&self) {
        self.heartbeat.idle();
    }

    /// Says that it works.
    pub fn works(&self) {
        self.heartbeat.busy();
    }

    /// Whether anything came of this round.
    fn has_read(&self) -> bool {
        self.read || self.batch.lines() > 0 || !self.batch.devices.is_empty()
    }

    async fn finish(&mut self, trouble: Option<String>) -> Result<(), Halt> {
        let quiet = self.batch.lines() == 0
            && self.batch.devices.is_empty()
            && self.changed.is_empty()
            && !self.told.has_changes()
            && self.begun
            && self.trouble == trouble;
        if quiet { Ok(()) } else { self.hand_over(trouble, false).await }
    }

    async fn hand_over(&mut self, trouble: Option<String>, more: bool) -> Result<(), Halt> {
        self.read |= self.has_read();
        let next = Batch { again: self.batch.again, ..Batch::new(self.name.clone(), self.kind) };
        let mut batch = std::mem::replace(&mut self.batch, next);
        let (changed, forgotten) = self.told.changes();
        batch.cursors.extend(changed);
        batch.finished.extend(forgotten);
        for name in std::mem::take(&mut self.changed) {
            if let Some(value) = self.marks.get(&name) {
                batch.cursors.push(Cursor::Mark(Mark { name, value: value.clone() }));
            }
        }
        batch.more = more;
        batch.trouble.clone_from(&trouble);
        (self.begun, self.trouble) = (true, trouble);
        self.heartbeat.idle();
        let sent = send(&self.out, batch, &self.name, &self.stop).await;
        self.heartbeat.busy();
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => Err(Halt::Stopped),
            Err(error) => Err(Halt::Source(error)),
        }
    }
}

/// When to ask, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: SourceName,
    /// Its kind, as in the config.
    pub kind: &'static str,
    /// Time from the end of a round to the next.
    pub interval: Duration,
    /// Go on, or end after one round.
    pub reading: Reading,
}

/// An API that is asked again and again, as a [`Source`].
pub struct Poll<A> {
    settings: Settings,
    clock: SharedClock,
    heartbeat: Heartbeat,
    remembered: Remembered,
    api: A,
}

impl<A: Api> Poll<A> {
    /// Asks by what is remembered.
    pub fn new(
        settings: Settings,
        api: A,
        remembered: Remembered,
        clock: SharedClock,
        heartbeat: Heartbeat,
    ) -> Self {
        Self { settings, clock, heartbeat, remembered, api }
    }

    fn feed(&self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Feed {
        let marks = self.remembered.marks();
        let Settings { name, kind, .. } = &self.settings;
        Feed {
            batch: Batch { again: self.remembered.again(), ..Batch::new(name.clone(), kind) },
            name: name.clone(),
            kind,
            clock: SharedClock::clone(&self.clock),
            heartbeat: self.heartbeat.clone(),
            out,
            stop,
            told: Told::load(&self.remembered),
            marks: marks
                .filter(|mark| !mark.name.contains('/'))
                .map(|mark| (mark.name.clone(), mark.value.clone()))
                .into_map(),
            changed: BTreeSet::new(),
            rejected: BTreeSet::new(),
            sensors: BTreeSet::new(),
            begun: false,
            trouble: None,
            read: false,
        }
    }
}

/// How long to wait after so many failures in a row, before the jitter.
fn back_off(failures: u32, trouble: &Trouble) -> Duration {
    let wait = BACK_OFF.0.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACK_OFF.1);
    // An hour is the most that another side may order.
    wait.max(trouble.retry_after.unwrap_or_default().min(Duration::from_hours(1)))
}

/// Up to a tenth longer, so that many agents do not come back at the same moment.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 10.0)
}

impl<A: Api> Source for Poll<A> {
    async fn run(mut self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let mut feed = self.feed(out, stop.clone());
        let mut failures = 0;
        while !stop.is_cancelled() {
            self.heartbeat.busy();
            feed.read = false;
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Halt::Stopped),
                round = self.api.round(&mut feed) => round,
            };
            let (wait, trouble) = match round {
                Ok(lesser) => {
                    failures = 0;
                    (self.settings.interval, lesser.map(|trouble| trouble.words(false)))
                }
                Err(Halt::Trouble(trouble)) => {
                    failures += 1;
                    (jittered(back_off(failures, &trouble)), Some(trouble.words(!feed.has_read())))
                }
                Err(Halt::Stopped) => return Ok(()),
                Err(Halt::Source(error)) => return Err(error),
            };
            match feed.finish(trouble).await {
                Ok(()) | Err(Halt::Trouble(_)) => {}
                Err(Halt::Stopped) => return Ok(()),
                Err(Halt::Source(error)) => return Err(error),
            }
            self.heartbeat.idle();
            if self.settings.reading == Reading::Once {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;
    use crate::clock::SystemClock;

    /// Fails as often as it is told to, and notes when it was asked.
    struct Script {
        failures: usize,
        retry_after: Option<Duration>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Api for Script {
        async fn round(&mut self, _: &mut Feed) -> Result<Option<Trouble>, Halt> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(Instant::now());
            if asked.len() > self.failures {
                return Ok(None);
            }
            let (text, remedy) = ("it is away".to_owned(), "wait".to_owned());
            Err(Trouble { text, remedy, why: Why::Away, retry_after: self.retry_after }.into())
        }
    }

    /// Seconds between rounds, and the troubles that were handed over.
    async fn run(
        failures: usize,
        retry_after: Option<Duration>,
        rounds: usize,
    ) -> (Vec<u64>, Vec<Option<String>>) {
        let settings = Settings {
            name: SourceName::new("console").unwrap(),
            kind: "defender-console",
            interval: Duration::from_secs(60),
            reading: Reading::Follow,
        };
        let asked = Arc::default();
        let script = Script { failures, retry_after, asked: Arc::clone(&asked) };
        let clock: SharedClock = Arc::new(SystemClock);
        let poll = Poll::new(settings, script, Remembered::default(), clock, Heartbeat::default());
        let (out, mut batches) = mpsc::channel(64);
        let stop = CancellationToken::new();
        let work = poll.run(out, stop.clone());
        let watch = async {
            while asked.lock().unwrap().len() < rounds {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(work, watch);
        ended.unwrap();
        let mut troubles = Vec::new();
        while let Some(batch) = batches.recv().await {
            troubles.push(batch.trouble);
        }
        let asked = asked.lock().unwrap();
        (asked.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs()).collect(), troubles)
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_source_is_asked_at_its_interval_and_writes_once() {
        assert_eq!(run(0, None, 5).await, (vec![60; 4], vec![None]));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_and_are_told_when_they_change() {
        let (waits, troubles) = run(9, None, 11).await;
        for (wait, expected) in waits.iter().zip([5, 10, 20, 40, 80, 160, 300, 300, 300, 60]) {
            assert!((expected..=expected * 11 / 10).contains(wait), "{waits:?}");
        }
        assert_eq!(troubles, [Some("it is away; nothing of it is read; wait".to_owned()), None]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_side_may_order_a_longer_wait_but_not_for_ever() {
        let (waits, _) = run(1, Some(Duration::from_secs(100)), 2).await;
        assert!((100..=110).contains(&waits[0]), "{waits:?}");
        let (waits, _) = run(1, Some(Duration::MAX), 2).await;
        assert!((3_600..=3_960).contains(&waits[0]), "{waits:?}");
    }
}
