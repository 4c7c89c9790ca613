//! The wiring: opens the store, spawns the rooms, waits, stops them in order. Nothing is decided here.
//!
//! `service` is the long run with its reloads, `oneshot` has the short ones; here are the stages that all of them stop by.
//!
//! Order of stopping: sources, then the intake drains what they sent, then sends in flight get their grace, then the
//! store closes. A task that ends unasked ends the process: systemd starts it again, and the store knows where it was.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::config::{Config, IdFrom};
use crate::destination::{Compose, Fields, TicketFacts};
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::intake::{self, Intake};
use crate::model::cursor::Remembered;
use crate::model::gather::Gather as _;
use crate::model::{DeliveryKind, SourceName};
use crate::relay::Relay;
use crate::rules::redact::Redaction;
use crate::rules::template::TicketContext;
use crate::rules::{Rules, RulesError};
use crate::servicenow::{ServiceNow, SetupError, default_fields, row_fields};
use crate::source::{self, Asking, Closed, Reading, SourceError};
use crate::store::op::identity::FROM_NAME;
use crate::store::{OpenError, Store, StoreError, Writer};

/// Time that sends in flight get after the stop. Below systemd's default of 90 s; what is cut off is looked up later.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks for what may be forgotten. Nothing is written when there is nothing.
const HOUSEKEEPING: Duration = Duration::from_mins(10);

mod again;
mod oneshot;
mod page;
mod service;

use again::Doors;
pub use again::rewind;
pub use oneshot::{Once, PATIENCE, once, plan, plan_first, push_once, with_store};
pub use service::{Reread, Surroundings, serve};

/// Why the agent cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The state directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store failed while running.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The rules of the config.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A destination of the config.
    #[error(transparent)]
    Destination(#[from] SetupError),
    /// A source stopped.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The control socket.
    #[error("cannot listen at {}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A task ended unasked.
    #[error("the {0} ended unasked")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task failed")]
    Panicked(#[from] JoinError),
}

impl AppError {
    /// What the store said through a source is the store's.
    fn from_source(e: SourceError) -> Self {
        match e {
            SourceError::Memory(name, e) => match e.downcast::<StoreError>() {
                Ok(e) => Self::Store(*e),
                Err(e) => Self::Source(SourceError::Memory(name, e)),
            },
            e => Self::Source(e),
        }
    }
}

/// What a config is turned into: everything that can fail because of it, before anything that runs is touched.
struct Components {
    rules: Arc<Rules>,
    destinations: Vec<Arc<ServiceNow>>,
    composer: Arc<dyn Compose>,
}

impl Components {
    fn of(config: &Config, clock: &SharedClock) -> Result<Self, AppError> {
        let rules = Arc::new(compile(config)?);
        let display = crate::servicenow::display(&config.agent.id, &config.agent.name);
        let destination = |settings: &crate::servicenow::Settings| {
            ServiceNow::new(settings.clone(), Arc::clone(clock))
                .map(|to| Arc::new(to.checking().of_agent(display.clone())))
        };
        let destinations = config.destinations.iter().map(destination).collect::<Result<_, _>>()?;
        let composer = Arc::new(Composer::of(config, Arc::clone(&rules)));
        Ok(Self { rules, destinations, composer })
    }

    fn intake(&self, config: &Config, store: &Store, clock: &SharedClock) -> Intake {
        Intake::new(store.clone(), Arc::clone(&self.rules), Arc::clone(clock), config.intake.clone())
    }

    /// Keeps in the store who the agent is.
    async fn identify(config: &Config, store: &Store) -> Result<(), StoreError> {
        let from = match config.agent.id_from {
            IdFrom::Config => "config",
            IdFrom::Machine => "machine",
            IdFrom::Name => FROM_NAME,
        };
        match store.identify(&config.agent.id, from).await {
            // It is only shown; the next start keeps it.
            Err(e) if e.is_passing() => Ok(()),
            other => other,
        }
    }

    fn relay(&self, config: &Config, store: Store, clock: SharedClock) -> Relay<ServiceNow> {
        let mut settings = config.relay.clone();
        settings.sync.lives = Arc::clone(self.rules.lives());
        Relay::new(store, self.destinations.clone(), Arc::clone(&self.composer), clock, settings)
    }
}

/// Whether the service could be made from this config: rules compile, certificates can be read. Opens nothing.
///
/// # Errors
/// [`AppError`], what the service would say.
pub fn can_be_made(config: &Config, clock: &SharedClock) -> Result<(), AppError> {
    Components::of(config, clock).map(drop)
}

/// Compiles the rules of a config over the default fields of their tables.
///
/// # Errors
/// [`RulesError`].
pub fn compile(config: &Config) -> Result<Rules, RulesError> {
    Rules::compile_over(&config.rules, |kind, table, columns| match kind {
        DeliveryKind::PutRow => row_fields(table, columns),
        _ => default_fields(table).into_iter().map(|(f, text)| (f.to_owned(), text.to_owned())).into_map(),
    })
}

/// The rules' templates, as the relay sees them.
pub struct Composer {
    /// The rules.
    pub rules: Arc<Rules>,
    /// `[agent] name`.
    pub agent: String,
    /// What may not leave.
    pub redaction: Redaction,
}

impl Compose for Composer {
    fn redact(&self, alert: crate::model::Alert) -> crate::model::Alert {
        self.redaction.apply(alert)
    }

    fn redact_sources(&self, text: &str) -> String {
        self.redaction.sources(text)
    }

    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String> {
        self.rules.fields(&self.context(facts)).map_err(|e| e.to_string())
    }

    fn closing(&self, facts: &TicketFacts<'_>) -> Result<Fields, String> {
        self.rules.closing(&self.context(facts)).map_err(|e| e.to_string())
    }
}

impl Composer {
    /// The composer of a config, with its rules.
    pub fn of(config: &Config, rules: Arc<Rules>) -> Self {
        Self { rules, agent: config.agent.name.clone(), redaction: config.redaction.clone() }
    }

    fn context<'a>(&'a self, facts: &'a TicketFacts<'_>) -> TicketContext<'a> {
        TicketContext {
            alert: facts.alert,
            occurrences: facts.occurrences,
            first_seen: facts.alert.time,
            last_seen: facts.last_seen_at,
            generation: facts.generation,
            agent: &self.agent,
            rule: facts.rule,
            destination: facts.destination,
            table: facts.table,
            correlation_id: facts.correlation_id.as_str(),
        }
    }
}

/// Where the control socket of a state directory is.
pub fn socket(state_dir: &Path, runtime_dir: Option<&Path>) -> PathBuf {
    runtime_dir.unwrap_or(state_dir).join(crate::control::SOCKET)
}

type Ended = (&'static str, Result<(), AppError>);

/// Starts a task. Boxed, so that the runtime's part of it is in the program once and not for each task.
fn spawn(stage: &mut JoinSet<Ended>, task: impl Future<Output = Ended> + Send + 'static) {
    let task: Pin<Box<dyn Future<Output = Ended> + Send>> = Box::pin(task);
    stage.spawn(task);
}

/// The tasks, by the order in which they stop.
/// What is around sources that are followed.
#[derive(Default)]
struct Watched {
    heartbeats: Heartbeats,
    doors: Doors,
    kept: source::Kept,
    /// The intake takes nothing before this is told.
    gate: Option<tokio::sync::oneshot::Receiver<()>>,
}

struct TaskGroups {
    sources: JoinSet<Ended>,
    intake: JoinSet<Ended>,
    late: JoinSet<Ended>,
    /// What outlives a reload: the control socket, the keeper, housekeeping.
    around: JoinSet<Ended>,
    writer: JoinSet<Ended>,
    stop_sources: CancellationToken,
    stop_relay: CancellationToken,
    stop_around: CancellationToken,
}

impl TaskGroups {
    fn begin(writer: Writer) -> Self {
        let mut stages = Self {
            sources: JoinSet::new(),
            intake: JoinSet::new(),
            late: JoinSet::new(),
            around: JoinSet::new(),
            writer: JoinSet::new(),
            stop_sources: CancellationToken::new(),
            stop_relay: CancellationToken::new(),
            stop_around: CancellationToken::new(),
        };
        spawn(&mut stages.writer, async move { ("store", writer.run().await.map_err(AppError::from)) });
        stages
    }

    /// Starts the sources and the intake behind them. Gives the sources' heartbeats. They are followed where somebody
    /// watches them, else read once.
    fn sources(
        &mut self,
        config: &Config,
        store: &Store,
        clock: &SharedClock,
        intake: Intake,
        watched: Option<Watched>,
    ) -> Vec<Heartbeat> {
        let reading = if watched.is_some() { Reading::Follow } else { Reading::Once };
        let Watched { heartbeats, doors, kept, gate } = watched.unwrap_or_default();
        doors.shut();
        kept.retain(&config.sources.iter().flat_map(|source| source.input.places()).collect());
        let (send, receive) = intake::lanes(config.sources.len());
        let (mut all, own) = (Vec::new(), Arc::new(config.own.clone()));
        for (settings, out) in config.sources.iter().zip(send) {
            let heartbeat = source::heartbeat(&settings.name, &heartbeats);
            all.push(heartbeat.clone());
            let context = source::Context {
                reading,
                clock: Arc::clone(clock),
                heartbeat,
                own: Arc::clone(&own),
                remember: remember(store),
                closed: Some(Arc::new(ClosedTickets(store.clone()))),
                kept: kept.clone(),
                out,
                stop: self.stop_sources.clone(),
            };
            let source = source::run(settings.clone(), context, doors.open(settings));
            spawn(&mut self.sources, async move { ("source", source.await.map_err(AppError::from_source)) });
        }
        let (intake, stop) = (intake.watched(&heartbeats), self.stop_sources.clone());
        let intake = async move {
            if let Some(gate) = gate {
                // Who was to open it has gone: then all of this ends.
                let _ = gate.await;
            }
            ("intake", intake.run(receive, stop).await.map_err(AppError::from))
        };
        spawn(&mut self.intake, intake);
        all
    }

    /// The first task that ends, which none should.
    async fn first(&mut self) -> Result<Ended, JoinError> {
        tokio::select! {
            Some(ended) = self.sources.join_next() => ended,
            Some(ended) = self.intake.join_next() => ended,
            Some(ended) = self.late.join_next() => ended,
            Some(ended) = self.around.join_next() => ended,
            Some(ended) = self.writer.join_next() => ended,
            else => std::future::pending().await,
        }
    }

    /// Stops sources and intake, so that they can begin anew on the same store, and tells the relay to stop. What does not
    /// end within [`GRACE`] is cut off, as a crash would; it is read again.
    async fn pause(&mut self) -> Result<(), AppError> {
        self.stop_sources.cancel();
        self.stop_relay.cancel();
        let rest = async {
            finish(&mut self.sources).await?;
            finish(&mut self.intake).await
        };
        let rest = tokio::time::timeout(GRACE, rest).await.unwrap_or_else(|_| {
            tracing::warn!("a source took too long to stop; it is read again from what is stored");
            Ok(())
        });
        self.sources.shutdown().await;
        self.intake.shutdown().await;
        self.stop_sources = CancellationToken::new();
        rest
    }

    /// Waits for the relay that was told to stop, if there is one. What does not end within [`GRACE`] is cut off; the next
    /// looks it up before it sends it again.
    async fn relay_ended(&mut self) -> Result<(), AppError> {
        let rest = tokio::time::timeout(GRACE, finish(&mut self.late)).await.unwrap_or_else(|_| {
            tracing::warn!("what was in flight took too long; it is looked up before it is sent again");
            Ok(())
        });
        self.late.shutdown().await;
        self.stop_relay = CancellationToken::new();
        rest
    }

    /// Stops all in order. `first` is what ended unasked, if that is why.
    async fn end(mut self, first: Option<Result<Ended, JoinError>>) -> Result<(), AppError> {
        self.stop_sources.cancel();
        self.stop_relay.cancel();
        self.stop_around.cancel();
        let rest = async {
            finish(&mut self.sources).await?;
            finish(&mut self.intake).await?;
            finish(&mut self.late).await?;
            finish(&mut self.around).await?;
            self.close().await
        };
        let rest = tokio::time::timeout(GRACE, rest).await.unwrap_or_else(|_| {
            tracing::warn!("what was in flight took too long; it is looked up at the next start");
            Ok(())
        });
        match first {
            None => rest,
            Some(ended) => {
                let (name, result) = ended?;
                let e = result.err().unwrap_or(AppError::Ended(name));
                // Who was left only knows that: the cause is who left, and decides what the process ends with.
                let was_left = matches!(
                    e,
                    AppError::Source(SourceError::Closed(_)) | AppError::Store(StoreError::Closed)
                );
                Err(if was_left { rest.err().unwrap_or(e) } else { e })
            }
        }
    }

    /// Waits until the sources have ended by themselves and the intake has stored what they sent.
    async fn drain(&mut self, stop: &CancellationToken) -> Result<(), AppError> {
        let token = self.stop_sources.clone();
        let all = async {
            finish(&mut self.sources).await?;
            finish(&mut self.intake).await
        };
        tokio::pin!(all);
        tokio::select! {
            result = &mut all => return result,
            () = stop.cancelled() => token.cancel(),
        }
        all.await
    }

    /// Waits until the store is closed; every handle has to be gone.
    async fn close(&mut self) -> Result<(), AppError> {
        finish(&mut self.writer).await
    }
}

/// Asks the store how far a source was read.
fn remember(store: &Store) -> source::Remember {
    let store = store.clone();
    Arc::new(move |name| {
        let store = store.clone();
        Box::pin(async move { remembered(&store, &name).await.map_err(Into::into) })
    })
}

/// What the store knows of tickets that were closed, for consoles that are told.
struct ClosedTickets(Store);

impl Closed for ClosedTickets {
    fn closed(&self, of: Vec<SourceName>, except: Arc<BTreeSet<i64>>) -> Asking<Vec<(i64, Option<String>)>> {
        let store = self.0.clone();
        Box::pin(async move { store.closed_findings(of, except).await.map_err(Into::into) })
    }

    fn handled(&self, findings: Vec<i64>) -> Asking<()> {
        let store = self.0.clone();
        Box::pin(async move { store.handled(findings).await.map_err(Into::into) })
    }
}

/// How far a source was read. A database that somebody else holds for a while is waited for.
async fn remembered(store: &Store, name: &SourceName) -> Result<Remembered, StoreError> {
    loop {
        match store.remembered(name).await {
            Err(e) if e.is_passing() => {
                tracing::warn!(source = %name, "waits to learn how far it was read: {e}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other,
        }
    }
}

/// Waits for all of a stage; the first failure wins.
async fn finish(stage: &mut JoinSet<Ended>) -> Result<(), AppError> {
    let mut first = Ok(());
    while let Some(ended) = stage.join_next().await {
        let (_, result) = ended?;
        first = first.and(result.or_else(left_behind));
    }
    first
}

/// What could not be stored for want of room, or not be handed over, when the order to stop came: it was not
/// acknowledged, and is read again.
fn left_behind(e: AppError) -> Result<(), AppError> {
    match e {
        AppError::Store(e) if e.is_passing() => {
            tracing::warn!("the last batch was not stored ({e}); it is read again");
            Ok(())
        }
        AppError::Source(SourceError::Closed(_)) => Ok(()),
        e => Err(e),
    }
}

/// Forgets what was delivered long ago.
async fn housekeeping(store: Store, stop: CancellationToken) -> Ended {
    loop {
        let pruned = tokio::select! {
            () = stop.cancelled() => return ("housekeeping", Ok(())),
            pruned = async { tokio::time::sleep(HOUSEKEEPING).await; store.prune().await } => pruned,
        };
        match pruned {
            Err(e) if !e.is_passing() => return ("housekeeping", Err(e.into())),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
