//! A source from its settings to its end: the one place that knows every transport.
//!
//! A panic in a reader is that source's trouble: it is told as such, and the source begins again where the store says
//! that it ended, after a wait that grows. The others do not notice.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::format::Format;
use super::transport::defender::handling::Closed;
use super::transport::defender::{self, Defender};
use super::transport::host::{self, Host};
use super::transport::http::{self, Push};
use super::transport::poll::{self, Poll};
use super::transport::send;
use super::transport::syslog::{self, Listeners, Syslog};
use super::transport::tail::{self, Tail};
use super::transport::unix::{self, Unix};
use super::{Acknowledge, Batch, Kept, Own, Reading, Source as _, SourceError};
use crate::clock::SharedClock;
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::model::codes::Code;
use crate::model::cursor::Remembered;
use crate::model::gather::Gather as _;
use crate::model::text::{clip, one_line};
use crate::model::{Cursor, Secret, SourceName};
use crate::net::listen::ListenTls;

/// A source, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: SourceName,
    /// Its kind, as in the config.
    pub kind: &'static str,
    /// Where its records come from.
    pub input: Input,
    /// How a record is read.
    pub format: Reads,
    /// For how long nothing may come of it.
    pub silent_after: Option<Duration>,
}

/// Where records come from: one variant for each transport.
#[derive(Clone, Debug)]
pub enum Input {
    /// Files that grow.
    Files {
        /// Glob, absolute.
        pattern: String,
    },
    /// The API of a Defender for IoT sensor or console.
    Defender {
        /// Time between two rounds.
        interval: Duration,
        /// What is asked, and where.
        api: Box<defender::Settings>,
    },
    /// A listener that alerts are pushed to.
    Http {
        /// Where it listens.
        listen: SocketAddr,
        /// What a sender has to show.
        token: Option<Secret>,
        /// Its certificate.
        tls: Option<ListenTls>,
    },
    /// Listeners for syslog.
    Syslog(Listeners),
    /// A socket in the file system.
    Unix(unix::Listen),
    /// This machine itself.
    Host(Box<host::Settings>),
}

impl Input {
    /// Where it listens with sockets that are kept over a reload.
    pub fn places(&self) -> Vec<String> {
        match self {
            Self::Syslog(listeners) => listeners.listen.iter().map(syslog::place).collect(),
            Self::Unix(listen) => vec![unix::place(listen)],
            _ => Vec::new(),
        }
    }

    /// Whether records are sent to it: then there is nothing to read before somebody sends.
    pub fn listens(&self) -> bool {
        matches!(self, Self::Http { .. } | Self::Syslog(_))
    }
}

/// A format, as a value of the settings.
#[derive(Clone)]
pub struct Reads(pub Arc<dyn Format>);

impl Reads {
    /// Of this format.
    pub fn new(format: impl Format) -> Self {
        Self(Arc::new(format))
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reads")
    }
}

/// Answers how far a source was read, by what is committed now.
pub type Remember = Arc<dyn Fn(SourceName) -> Answer + Send + Sync>;
/// The answer, or why there will be none.
pub type Answer =
    Pin<Box<dyn Future<Output = Result<Remembered, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// What is to be done while the source stands still and all that it handed over is committed. It begins anew after it, from
/// what is remembered then; dropped undone when the source ends first.
pub type Order = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a source has around it.
#[derive(Clone)]
pub struct Context {
    /// Follow, or end at the end.
    pub reading: Reading,
    /// The time.
    pub clock: SharedClock,
    /// Its signs of life: [`heartbeat`].
    pub heartbeat: Heartbeat,
    /// What no file source reads.
    pub own: Arc<Own>,
    /// How far it was read.
    pub remember: Remember,
    /// What people have closed, for consoles that are told.
    pub closed: Option<Arc<dyn Closed>>,
    /// Sockets of the config before.
    pub kept: Kept,
    /// The way to the intake, this source's own.
    pub out: mpsc::Sender<Batch>,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What one turn may take: 8 MiB from a slow card, or a file server that answers again.
const ALLOWANCE: Duration = Duration::from_mins(2);
/// First and longest wait before a source that failed begins again.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// A source that worked for so long before it failed waits for the first time again.
const WORKED: Duration = Duration::from_mins(10);
/// Longest words of a failure that are told, in bytes.
const WORDS_MAX: usize = 200;

/// What the heartbeat of a source is called, before its own name.
const LOOP: &str = "source ";

/// The signs of life of a source, among all of them.
pub fn heartbeat(name: &SourceName, heartbeats: &Heartbeats) -> Heartbeat {
    heartbeats.of(&format!("{LOOP}{name}"), ALLOWANCE)
}

/// Bytes that lie in the files of each source and are not read, by its name.
pub fn behind(heartbeats: &Heartbeats) -> BTreeMap<String, u64> {
    let all = heartbeats.behind().into_iter();
    all.filter_map(|(name, bytes)| Some((name.strip_prefix(LOOP)?.to_owned(), bytes))).into_map()
}

/// Runs a source until it is told to stop, or to its end with [`Reading::Once`], and carries out `orders` meanwhile.
///
/// # Errors
/// [`SourceError`]: the store or the intake is gone; with [`Reading::Once`] also a failed reader.
pub async fn run(
    settings: Settings,
    context: Context,
    mut orders: mpsc::Receiver<Order>,
) -> Result<(), SourceError> {
    let mut wait = BACK_OFF.0;
    loop {
        let began = Instant::now();
        let stop = context.stop.child_token();
        // It holds whatever its transport holds: large, and not moved about.
        let work = Box::pin(caught(begin(&settings, &context, stop.clone())));
        let (ended, order) = attend(work, &mut orders, &stop).await;
        let is_still = matches!(ended, Ok(Ok(()))) && !context.stop.is_cancelled();
        if let Some(order) = order.filter(|_| is_still) {
            let still = Batch::new(settings.name.clone(), settings.kind);
            if !committed(&settings, &context, still).await? {
                return Ok(());
            }
            order.await;
            continue;
        }
        let failure = match ended {
            Ok(Err(SourceError::Reader(_, error))) if error.is_panic() => words(&*error.into_panic()),
            Ok(ended) => return ended,
            Err(panic) => words(&*panic),
        };
        if context.reading == Reading::Once {
            return Err(SourceError::Failed(settings.name, failure));
        }
        if began.elapsed() >= WORKED {
            wait = BACK_OFF.0;
        }
        if !tell(&settings, &context, &failure, wait).await? {
            return Ok(());
        }
        tokio::select! {
            () = context.stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(BACK_OFF.1);
    }
}

/// Runs work to its end, or to the order for which it has to stop.
async fn attend<T>(
    work: impl Future<Output = T>,
    orders: &mut mpsc::Receiver<Order>,
    stop: &CancellationToken,
) -> (T, Option<Order>) {
    let (mut work, mut order) = (pin!(work), None);
    loop {
        tokio::select! {
            biased;
            ended = &mut work => return (ended, order),
            Some(next) = orders.recv(), if order.is_none() => {
                stop.cancel();
                order = Some(next);
            }
        }
    }
}

/// Makes the source from what is remembered of it, and runs it.
async fn begin(settings: &Settings, context: &Context, stop: CancellationToken) -> Result<(), SourceError> {
    let remembered = (context.remember)(settings.name.clone())
        .await
        .map_err(|error| SourceError::Memory(settings.name.clone(), error))?;
    let out = context.out.clone();
    let (clock, heartbeat) = (Arc::clone(&context.clock), context.heartbeat.clone());
    let (name, kind, format) = (settings.name.clone(), settings.kind, settings.format.clone());
    match &settings.input {
        Input::Files { pattern } => files(settings, pattern, context, remembered, clock).run(out, stop).await,
        Input::Defender { interval, api } => {
            let timing = poll::Settings { name, kind, interval: *interval, reading: context.reading };
            let api = Defender::new(defender::Settings::clone(api));
            let api = match &context.closed {
                Some(closed) => api.telling(Arc::clone(closed)),
                None => api,
            };
            Poll::new(timing, api, remembered, clock, heartbeat).run(out, stop).await
        }
        Input::Host(machine) => {
            let machine = host::Settings::clone(machine);
            let host = Host::new((name, kind), machine, context.reading, &remembered, clock, heartbeat);
            host.run(out, stop).await
        }
        // Nothing is there already: a listener has no end to read to.
        Input::Http { .. } | Input::Syslog(_) | Input::Unix(_) if context.reading == Reading::Once => Ok(()),
        Input::Http { listen, token, tls } => {
            let (listen, token, tls) = (*listen, token.clone(), tls.clone());
            let settings = http::Settings { name, kind, listen, token, tls, format };
            Push::new(settings, clock).beating(heartbeat).run(out, stop).await
        }
        Input::Unix(listen) => {
            let unix = Unix::new(name, kind, listen.clone(), format, clock, heartbeat);
            unix.keeping(context.kept.clone()).run(out, stop).await
        }
        Input::Syslog(listeners) => {
            let syslog = Syslog::new(name, kind, listeners.clone(), format, clock, heartbeat);
            syslog.keeping(context.kept.clone()).run(out, stop).await
        }
    }
}

fn files(
    settings: &Settings,
    pattern: &str,
    context: &Context,
    remembered: Remembered,
    clock: SharedClock,
) -> Tail {
    let mark = remembered.mark(tail::PACKED).map(ToOwned::to_owned);
    let again = remembered.again();
    let file = |cursor| match cursor {
        Cursor::File(file) => Some(file),
        Cursor::Mark(_) => None,
    };
    let settings = tail::Settings {
        name: settings.name.clone(),
        kind: settings.kind,
        pattern: pattern.to_owned(),
        format: settings.format.clone(),
        reading: context.reading,
        cursors: remembered.cursors.into_iter().filter_map(file).collect(),
        read_before: remembered.read_before,
        again,
    };
    Tail::new(settings, clock)
        .beating(context.heartbeat.clone())
        .sparing(Arc::clone(&context.own))
        .unpacking(mark.as_deref())
}

/// Tells the failure as the source's trouble, and waits until all that it handed over before is committed: only then is
/// what is remembered of it right. Whether it may begin again.
async fn tell(
    settings: &Settings,
    context: &Context,
    failure: &str,
    wait: Duration,
) -> Result<bool, SourceError> {
    let name = &settings.name;
    tracing::error!(source = %name, "source {name} failed ({failure}); it begins again in {} s{}", wait.as_secs(), Code::behind("source"));
    let batch = Batch {
        trouble: Some(format!("its reader failed ({failure}) and begins again; please report it")),
        ..Batch::new(name.clone(), settings.kind)
    };
    committed(settings, context, batch).await
}

/// Hands a batch over and waits until it is committed, and so is all before it; whether it was.
async fn committed(settings: &Settings, context: &Context, batch: Batch) -> Result<bool, SourceError> {
    let (acknowledge, told) = Acknowledge::pair();
    let (name, batch) = (&settings.name, Batch { acknowledge: Some(acknowledge), ..batch });
    if !send(&context.out, batch, name, &context.stop).await? {
        return Ok(false);
    }
    context.heartbeat.idle();
    tokio::select! {
        told = told => told.map(|_| true).map_err(|_| SourceError::Closed(name.clone())),
        () = context.stop.cancelled() => Ok(false),
    }
}

/// Runs work to its end or to its panic.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut work = pin!(work);
    std::future::poll_fn(|cx| {
        // After a panic it is not polled again, so nothing half done is ever seen.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
    clip(&one_line(text), WORDS_MAX).into_owned()
}

#[cfg(test)]
mod tests;
