//! What a Defender for IoT sensor or management console is asked, and in which order.
//!
//! A round: the console's sensors, then (at their own pace) vulnerabilities, connections and devices, then alerts, so
//! that these find names and protocols of what they speak of. Alerts are asked for from an overlap before the newest
//! one that was told; now and then, as often as it costs next to nothing, for all that the other side still has: that
//! finds those that came late, and those that were handled since. The watermark only saves work; what is news is known
//! by [`Told`](super::poll::told::Told). There is no paging on alerts, so an answer that is too much is asked for again
//! in shorter spans of time.
//!
//! What this does not do: read records. What a console is told is in [`handling`].

pub mod handling;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::handling::{Closed, Handling};
use super::Decoding;
use super::poll::http::{self, Caller};
use super::poll::told::{News, Seen, Step};
use super::poll::{Api, Feed, Halt, Trouble, Why};
use crate::model::{Alert, AlertKind, AlertState, Fingerprint, SourceName, Timestamp};
use crate::source::format::defender::split::Piece;
use crate::source::format::defender::{self as format, Directory};
use crate::source::format::{Decoded, Finding, Format, Outcome};

/// How far before the newest alert that was told the next question begins.
const OVERLAP: Duration = Duration::from_hours(1);
/// Longest time between two questions for all that the other side has.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Such a question may take one part in so many of the time.
const SWEEP_SHARE: u32 = 20;
/// Shortest span of time that is asked for at once, and the first one that is tried when all at once is too much.
const SPAN: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(24 * 30));
/// How often a span may be made shorter in one round: a console that is down must not be asked ever more.
const SHORTER_MAX: u32 = 4;
/// Sensors keep alerts for 90 days: a span before this is asked for at once.
const KEPT_FOR: Duration = Duration::from_hours(24 * 92);
/// How often the console's sensors are asked for, at most.
const SENSORS_EVERY: Duration = Duration::from_secs(60);
/// How soon devices are asked for again after that failed, at most.
const DEVICES_RETRY: Duration = Duration::from_mins(5);
/// Records of one page of the integration API.
const PAGE: u64 = 500;
/// Most pages of one question: an answer that never ends is no answer.
const PAGES_MAX: u64 = 10_000;
/// When alerts were first asked for, by the other side's clock; older ones are backlog.
const BEGAN: &str = "began";
/// Time of the newest alert that was told.
const WATERMARK: &str = "alerts";
/// When devices were last asked for, by the other side's clock.
const DEVICES: &str = "devices";

/// What is forgotten when it is ordered to be read again, as beginnings of marks' names. Not which alerts were told: by that
/// those are known that were never told before the order.
pub const FORGOTTEN: &[&str] = &[WATERMARK];

/// How it is asked, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where.
    pub http: http::Settings,
    /// A management console; else a sensor.
    pub console: bool,
    /// How often devices are asked for.
    pub devices_interval: Duration,
    /// Sources of whose closed tickets the console is told that they are handled; empty: of none.
    pub handles: Vec<SourceName>,
    /// How its records are read.
    pub format: format::Defender,
}

/// A sensor or a console, as an [`Api`].
pub struct Defender {
    settings: Settings,
    /// Made at the first round that can: trust files may be missing until then.
    caller: Option<Arc<Caller>>,
    format: Arc<dyn Format>,
    /// Which version of the alerts is there.
    version: u8,
    /// The span that alerts are asked for in; `None`: all at once.
    span: Option<Duration>,
    /// When all was last asked for, and how long that took.
    swept: Option<(Instant, Duration)>,
    sensors_at: Option<Instant>,
    devices_due: Option<Instant>,
    /// What the console is to be told, and of what.
    handling: Option<(Handling, Arc<dyn Closed>)>,
    /// What was wrong with sensors, with devices and with what is told when that was last tried.
    lesser: [Option<Box<Trouble>>; 3],
}

/// What a question brought.
#[derive(Debug, Default)]
struct Brought {
    /// Records of any kind.
    records: u64,
    /// How many there are in all, where the answer says so.
    total: Option<u64>,
    /// The newest alert that is not from the future.
    newest: Option<Timestamp>,
}

impl Defender {
    /// One that has asked nothing yet.
    pub fn new(settings: Settings) -> Self {
        let format: Arc<dyn Format> = Arc::new(settings.format.clone());
        Self {
            settings,
            caller: None,
            format,
            version: 2,
            span: None,
            swept: None,
            sensors_at: None,
            devices_due: None,
            handling: None,
            lesser: [None, None, None],
        }
    }

    /// One that tells the console what people have closed.
    #[must_use]
    pub fn telling(mut self, closed: Arc<dyn Closed>) -> Self {
        let of = &self.settings.handles;
        self.handling = (!of.is_empty()).then(|| (Handling::new(of.clone()), closed));
        self
    }

    /// What was closed, after alerts were read: what the other side knows already is known then.
    async fn tell(&mut self, caller: &Caller, feed: &mut Feed) -> Result<(), Halt> {
        let Some((handling, closed)) = &mut self.handling else { return Ok(()) };
        let told = handling.round(caller, feed, closed.as_ref()).await?;
        self.lesser[2] = told.map(Box::new);
        Ok(())
    }

    /// All states of all alerts of a time, however many questions it takes.
    async fn alerts(&mut self, caller: &Caller, feed: &mut Feed) -> Result<(), Halt> {
        let began = Instant::now();
        let sweep = self
            .swept
            .is_none_or(|(at, took)| at.elapsed() >= SWEEP_EVERY.min(took.saturating_mul(SWEEP_SHARE)));
        let watermark = feed.mark(WATERMARK).and_then(millis);
        let from = watermark.filter(|_| !sweep).map(|newest| newest.before(OVERLAP));
        let newest = self.all_spans(caller, feed, from).await?.max(watermark);
        if let Some(newest) = newest {
            feed.set_mark(WATERMARK, in_millis(newest));
        }
        self.span = self.span.and_then(longer);
        if sweep {
            self.swept = Some((Instant::now(), began.elapsed()));
        }
        Ok(())
    }

    /// All states of all alerts since a time, in spans that get shorter where one is too much. Gives the newest alert.
    async fn all_spans(
        &mut self,
        caller: &Caller,
        feed: &mut Feed,
        from: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, Halt> {
        // What is handled between the two questions is in the second answer, or in both.
        let states: &[Option<&str>] =
            if self.settings.console { &[None] } else { &[Some("unhandled"), Some("handled")] };
        let (mut newest, mut tries) = (None, SHORTER_MAX);
        let mut left = spans(from, feed.now(), self.span);
        while let Some((from, to)) = left.next() {
            for state in states {
                match self.alerts_of(caller, feed, *state, from, to).await {
                    Ok(brought) => newest = newest.max(brought.newest),
                    Err(Halt::Trouble(trouble)) if trouble.why == Why::TooMuch => {
                        self.span = Some(shorter(self.span));
                        if tries == 0 {
                            return Err(Halt::Trouble(trouble));
                        }
                        tries -= 1;
                        left = spans(from, feed.now(), self.span);
                        break;
                    }
                    Err(halt) => return Err(halt),
                }
            }
        }
        Ok(newest)
    }

    async fn alerts_of(
        &mut self,
        caller: &Caller,
        feed: &mut Feed,
        state: Option<&str>,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Brought, Halt> {
        let state = state.map(|state| ("state", state.to_owned()));
        let times = [("fromTime", from), ("toTime", to)].into_iter();
        let times = times.filter_map(|(name, time)| Some((name, in_millis(time?))));
        let query: Vec<_> = state.into_iter().chain(times).collect();
        loop {
            let api = if self.settings.console { "external" } else { "api" };
            let path = format!("/{api}/v{}/alerts", self.version);
            match self.page(caller, feed, &path, &query).await {
                Err(Halt::Trouble(trouble)) if trouble.why == Why::Absent && self.version > 1 => {
                    self.version -= 1;
                }
                other => return other,
            }
        }
    }

    /// One question and all that its answer brings.
    async fn page(
        &self,
        caller: &Caller,
        feed: &mut Feed,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Brought, Halt> {
        feed.told.next_question();
        feed.rests();
        let page = caller.ask(path, query).await;
        feed.works();
        let mut page = page?;
        let server_now = page.date().unwrap_or_else(|| feed.now());
        if feed.mark(BEGAN).is_none() {
            feed.set_mark(BEGAN, in_millis(server_now));
        }
        let state = query.iter().find(|(name, _)| *name == "state").map(|(_, state)| state.as_str());
        let address = state.map_or_else(|| path.to_owned(), |state| format!("{path}?state={state}"));
        let mut take = Take {
            format: &self.settings.format,
            decoding: Decoding::new(&self.format, &address, None, None),
            address,
            began: feed.mark(BEGAN).and_then(millis).unwrap_or(server_now),
            server_now,
            received_at: feed.now(),
            brought: Brought::default(),
        };
        loop {
            feed.rests();
            let more = page.read(|piece| take.piece(feed, piece)).await;
            feed.works();
            feed.make_room().await?;
            if !more? {
                return Ok(take.brought);
            }
        }
    }

    /// All pages of a question to the integration API. `u_count` counts all of them.
    async fn pages(&self, caller: &Caller, feed: &mut Feed, path: &str) -> Result<(), Halt> {
        let mut records = 0;
        for page in 0..PAGES_MAX {
            let query = [("page", page.to_string()), ("size", PAGE.to_string())];
            let brought = self.page(caller, feed, path, &query).await?;
            records += brought.records;
            if brought.records == 0 || brought.total.is_none_or(|total| records >= total) {
                break;
            }
        }
        Ok(())
    }

    /// The console's sensors, by the newest API that is there.
    async fn sensors(&mut self, caller: &Caller, feed: &mut Feed) -> Result<(), Halt> {
        let due = self.sensors_at.is_none_or(|at| at.elapsed() >= SENSORS_EVERY);
        if !self.settings.console || !due {
            return Ok(());
        }
        self.sensors_at = Some(Instant::now());
        let paths =
            ["/external/v3/integration/sensors", "/external/v2/appliances", "/external/v1/appliances"];
        for path in paths {
            if is_there(self.page(caller, feed, path, &[]).await)? {
                break;
            }
        }
        self.lesser[0] = None;
        Ok(())
    }

    /// Trouble that concerns one question only is kept in its place; alerts are asked for all the same.
    fn still(&mut self, place: usize, asked: Result<(), Halt>) -> Result<(), Halt> {
        match asked {
            Err(Halt::Trouble(trouble)) if trouble.why != Why::Away => {
                self.lesser[place] = Some(trouble);
                Ok(())
            }
            other => other,
        }
    }

    /// Devices with all that belongs to them, which comes first.
    async fn devices(&mut self, caller: &Caller, feed: &mut Feed) -> Result<(), Halt> {
        let now = Instant::now();
        if self.devices_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        let interval = self.settings.devices_interval;
        self.devices_due = Some(now + interval.min(DEVICES_RETRY));
        let asked_at = feed.now();
        self.settings.format.with_directory(Directory::begin_round);
        if self.settings.console {
            self.console_devices(caller, feed).await?;
        } else {
            is_there(self.page(caller, feed, "/api/v1/devices/cves", &[]).await)?;
            is_there(self.page(caller, feed, "/api/v1/devices/connections", &[]).await)?;
            is_there(self.page(caller, feed, "/api/v1/devices", &[]).await)?;
        }
        let left_out = self.settings.format.with_directory(|directory| {
            let left_out = directory.left_out();
            directory.begin_round();
            left_out
        });
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "{left_out} connections and vulnerabilities of devices were left out: more than are kept at a time"
            );
        }
        feed.set_mark(DEVICES, in_millis(asked_at));
        feed.forget_sensors();
        self.devices_due = Some(Instant::now() + interval);
        self.lesser[1] = None;
        Ok(())
    }

    async fn console_devices(&self, caller: &Caller, feed: &mut Feed) -> Result<(), Halt> {
        const API: &str = "/external/v3/integration";
        let since = feed
            .mark(DEVICES)
            .and_then(millis)
            .map_or_else(|| "0".to_owned(), |at| in_millis(at.before(OVERLAP)));
        if !is_there(self.pages(caller, feed, &format!("{API}/devicecves/0")).await)? {
            // No integration API: an older console.
            is_there(self.page(caller, feed, "/external/v1/devices", &[]).await)?;
            return Ok(());
        }
        is_there(self.pages(caller, feed, &format!("{API}/connections/0")).await)?;
        is_there(self.pages(caller, feed, &format!("{API}/devices/0")).await)?;
        is_there(self.page(caller, feed, &format!("{API}/deleteddevices/{since}"), &[]).await)?;
        Ok(())
    }
}

impl Api for Defender {
    async fn round(&mut self, feed: &mut Feed) -> Result<Option<Trouble>, Halt> {
        let caller = match &self.caller {
            Some(caller) => Arc::clone(caller),
            None => Arc::clone(self.caller.insert(Arc::new(Caller::new(&self.settings.http)?))),
        };
        let sensors = self.sensors(&caller, feed).await;
        self.still(0, sensors)?;
        let devices = self.devices(&caller, feed).await;
        self.still(1, devices)?;
        self.alerts(&caller, feed).await?;
        let told = self.tell(&caller, feed).await;
        self.still(2, told)?;
        Ok(self.lesser.iter().flatten().next().map(|trouble| Trouble::clone(trouble)))
    }
}

/// Whether what was asked for exists there; only newer versions have everything.
fn is_there<T>(asked: Result<T, Halt>) -> Result<bool, Halt> {
    match asked {
        Ok(_) => Ok(true),
        Err(Halt::Trouble(trouble)) if trouble.why == Why::Absent => Ok(false),
        Err(halt) => Err(halt),
    }
}

/// Turns pieces of a page into what a batch holds.
struct Take<'a> {
    format: &'a format::Defender,
    decoding: Decoding,
    address: String,
    began: Timestamp,
    server_now: Timestamp,
    received_at: Timestamp,
    brought: Brought,
}

impl Take<'_> {
    fn piece(&mut self, feed: &mut Feed, piece: Piece<'_>) {
        match piece {
            Piece::Record(record) => {
                self.brought.records += 1;
                let decoded = self.decoding.decode(record, self.received_at);
                self.decoded(feed, decoded, record);
            }
            Piece::TooLong(start) => {
                self.brought.records += 1;
                feed.too_long(start, &self.address);
            }
            Piece::Value(key, value) => {
                if let Some(total) = format::total(key, value) {
                    self.brought.total = Some(total);
                }
            }
        }
    }

    fn decoded(&mut self, feed: &mut Feed, decoded: Decoded, record: &[u8]) {
        let Decoded { outcome, mut devices } = decoded;
        let Outcome::Alert(finding) = outcome else {
            feed.take(Decoded { outcome, devices }, record, false, &self.address);
            return;
        };
        let Finding { alert, mut fingerprint } = *finding;
        if alert.kind == AlertKind::SystemNotification {
            let step = feed.told.condition(alert.id.as_deref().unwrap_or_default(), alert.state);
            // A sensor as a device is told when it changes, and when the source is first read.
            let outcome = match step {
                Step::Nothing => Outcome::Ignored("sensor"),
                _ => Outcome::Alert(Box::new(Finding { alert, fingerprint })),
            };
            feed.sensor(Decoded { outcome, devices }, record, &self.address);
            return;
        }
        let time = (alert.time != self.received_at).then_some(alert.time);
        if let Some(time) = time.filter(|time| *time <= self.server_now) {
            self.brought.newest = self.brought.newest.max(Some(time));
        }
        let backlog = alert.time < self.began;
        let News { step, second, anew } = feed.told.step(&seen(&alert, &fingerprint, time, backlog));
        if let Some(time) = anew {
            fingerprint = self.format.numbered_anew(alert.id.as_deref().unwrap_or_default(), time);
        }
        let mut tell = |state| {
            let alert = Alert { state, ..alert.clone() };
            let finding = Finding { alert, fingerprint };
            if second {
                feed.take_again(finding);
                return;
            }
            let outcome = Outcome::Alert(Box::new(finding));
            let devices = std::mem::take(&mut devices);
            feed.take(Decoded { outcome, devices }, record, backlog, &self.address);
        };
        if matches!(step, Step::Raise | Step::RaiseAndClear) {
            tell(AlertState::Raised);
        }
        if matches!(step, Step::Clear | Step::RaiseAndClear) {
            tell(AlertState::Cleared);
        }
    }
}

/// Sensor and number of an alert, as its id has them; a number that is none is replaced by one that is as good.
fn seen<'a>(alert: &'a Alert, fingerprint: &Fingerprint, time: Option<Timestamp>, backlog: bool) -> Seen<'a> {
    let id = alert.id.as_deref().unwrap_or_default();
    let (sensor, number) = id.rsplit_once(':').unwrap_or(("", id));
    let number = number.parse().unwrap_or_else(|_| fingerprint.prefix() as u64);
    let time = time.map(|time| time.as_micros() / 1_000);
    Seen { sensor, number, state: alert.state, severity: alert.severity, time, backlog }
}

fn in_millis(time: Timestamp) -> String {
    (time.as_micros() / 1_000).to_string()
}

fn millis(text: &str) -> Option<Timestamp> {
    text.parse::<i64>().ok().map(|millis| Timestamp::from_micros(millis.saturating_mul(1_000)))
}

fn shorter(span: Option<Duration>) -> Duration {
    span.map_or(SPAN.1, |span| (span / 2).max(SPAN.0))
}

fn longer(span: Duration) -> Option<Duration> {
    Some(span * 2).filter(|span| *span <= SPAN.1)
}

/// From when to when each question goes; without `span` one question without an end. Neighbours overlap by a
/// millisecond, as nobody says on which side the edge belongs.
fn spans(from: Option<Timestamp>, now: Timestamp, span: Option<Duration>) -> Spans {
    Spans { next: Some((from, from.unwrap_or_else(|| now.before(KEPT_FOR)))), now, span }
}

struct Spans {
    /// From when the next question goes, and where its span is counted from.
    next: Option<(Option<Timestamp>, Timestamp)>,
    now: Timestamp,
    span: Option<Duration>,
}

impl Iterator for Spans {
    type Item = (Option<Timestamp>, Option<Timestamp>);

    fn next(&mut self) -> Option<Self::Item> {
        let (from, begin) = self.next?;
        let end = self.span.map(|span| begin.after(span)).filter(|end| *end < self.now);
        self.next = end.map(|end| (Some(end), end));
        Some((from, end.map(|end| end.after(Duration::from_millis(1)))))
    }
}

/// Asks for the alerts of this moment, which are hardly any, and reads none: is it there, and does it take the token?
///
/// # Errors
/// There was no answer, or it said no.
pub async fn greet(settings: &Settings, now: Timestamp) -> Result<(), Trouble> {
    let caller = Caller::new(&settings.http)?;
    let api = if settings.console { "external" } else { "api" };
    let query = [("fromTime", in_millis(now)), ("toTime", in_millis(now))];
    match caller.ask(&format!("/{api}/v2/alerts"), &query).await {
        Err(trouble) if trouble.why == Why::Absent => {
            caller.ask(&format!("/{api}/v1/alerts"), &query).await.map(drop)
        }
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_secs(1_700_000_000 + hours * 3_600)
    }

    #[test]
    fn spans_leave_no_time_out() {
        let all = |from, span| spans(from, at(0), span).collect::<Vec<_>>();
        assert_eq!(all(None, None), [(None, None)]);
        assert_eq!(all(Some(at(-1)), None), [(Some(at(-1)), None)]);
        let day = Duration::from_hours(24);
        assert_eq!(all(Some(at(-1)), Some(day)), [(Some(at(-1)), None)]);
        let days = all(None, Some(day));
        assert_eq!((days.len(), days[0].0, days.last().unwrap().1), (92, None, None));
        for pair in days.windows(2) {
            assert_eq!(pair[0].1.unwrap(), pair[1].0.unwrap().after(Duration::from_millis(1)));
        }
    }

    #[test]
    fn spans_shrink_by_halves_and_grow_back() {
        let mut span = None;
        for _ in 0..20 {
            span = Some(shorter(span));
        }
        assert_eq!(span, Some(SPAN.0));
        let mut rounds = 0;
        while let Some(longer) = span.and_then(longer) {
            (span, rounds) = (Some(longer), rounds + 1);
        }
        assert_eq!((rounds, span.and_then(longer)), (9, None));
    }
}
