//! The wiring: opens the store, spawns the rooms, waits, stops them in order. Nothing is decided here.
//!
//! Order of stopping: sources, then the intake drains what they sent, then sends in flight get their grace, then the
//! store closes. A task that ends unasked ends the process: systemd starts it again, and the store knows where it was.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::config::{Config, SourceSettings};
use crate::control::server::{Control, is_passing, listen, listen_patiently};
use crate::desk::{Compose, Fields, TicketFacts};
use crate::intake::Intake;
use crate::relay::{Planned, Progress, Relay, Report};
use crate::rules::template::TicketContext;
use crate::rules::{Rules, RulesError};
use crate::servicenow::{ServiceNow, SetupError, default_fields};
use crate::source::tail::{self, Tail};
use crate::source::{Batch, Reading, Source, SourceError};
use crate::store::{OpenError, Overview, Store, StoreError, Writer};

/// Batches between sources and intake. Each may hold a thousand alerts, so few.
const BATCHES: usize = 2;
/// Questions that may wait for the relay.
const QUESTIONS: usize = 16;
/// Time that sends in flight get after the stop. Below systemd's default of 90 s; what is cut off is looked up later.
const GRACE: Duration = Duration::from_secs(20);
/// Between two looks for what may be forgotten. Nothing is written when there is nothing.
const HOUSEKEEPING: Duration = Duration::from_mins(10);
/// `--once` looks so often whether the intake waits for room: longer than the intake waits before it looks again.
const TURN: Duration = Duration::from_secs(6);
/// `--once` waits so long for what failed to become due again.
pub const PATIENCE: Duration = Duration::from_secs(90);

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
    Desk(#[from] SetupError),
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
    Panicked(#[from] tokio::task::JoinError),
}

/// What the rooms share. Dropping it lets the store close.
struct Parts {
    store: Store,
    writer: Writer,
    rules: Arc<Rules>,
    desks: Vec<Arc<ServiceNow>>,
    composer: Arc<dyn Compose>,
}

impl Parts {
    fn open(config: &Config, clock: &SharedClock) -> Result<Self, AppError> {
        let rules = Arc::new(compile(config)?);
        let desk = |settings: &crate::servicenow::Settings| {
            ServiceNow::new(settings.clone(), Arc::clone(clock)).map(Arc::new)
        };
        let desks = config.desks.iter().map(desk).collect::<Result<_, _>>()?;
        let composer = Arc::new(Composer { rules: Arc::clone(&rules), agent: config.agent.name.clone() });
        let (store, writer) = Store::open(&config.store, Arc::clone(clock))?;
        Ok(Self { store, writer, rules, desks, composer })
    }
}

/// Compiles the rules of a config over the default fields of their tables.
///
/// # Errors
/// [`RulesError`].
pub fn compile(config: &Config) -> Result<Rules, RulesError> {
    Rules::compile_over(&config.rules, |table| {
        default_fields(table).into_iter().map(|(field, text)| (field.to_owned(), text.to_owned())).collect()
    })
}

/// The rules' templates, as the relay sees them.
pub struct Composer {
    /// The rules.
    pub rules: Arc<Rules>,
    /// `[agent] name`.
    pub agent: String,
}

impl Compose for Composer {
    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String> {
        let context = TicketContext {
            alert: facts.alert,
            occurrences: facts.occurrences,
            first_seen: facts.alert.time,
            last_seen: facts.last_seen_at,
            generation: facts.generation,
            agent: &self.agent,
            rule: facts.rule,
            desk: facts.desk,
            table: facts.table,
        };
        self.rules.fields(&context).map_err(|e| e.to_string())
    }
}

/// Where the control socket of a state directory is.
pub fn socket(state_dir: &Path, runtime_dir: Option<&Path>) -> PathBuf {
    runtime_dir.unwrap_or(state_dir).join(crate::control::SOCKET)
}

/// What ended, and how.
type Ended = (&'static str, Result<(), AppError>);

/// The service: runs until `stop`.
///
/// # Errors
/// [`AppError`].
pub async fn serve(
    config: Config,
    clock: SharedClock,
    socket: PathBuf,
    stop: CancellationToken,
) -> Result<(), AppError> {
    let parts = Parts::open(&config, &clock)?;
    let listener = match listen(&socket) {
        Err(e) if is_passing(&e) => {
            tracing::warn!("no command can ask this service before {} can be written: {e}", socket.display());
            None
        }
        other => Some(other.map_err(|source| AppError::Socket { path: socket.clone(), source })?),
    };
    let mut stages = Stages::begin(parts.writer);
    let store = parts.store;

    let intake = Intake::new(store.clone(), parts.rules, Arc::clone(&clock), config.intake);
    intake.apply_rules().await?;
    let relay =
        Relay::new(store.clone(), parts.desks, parts.composer, Arc::clone(&clock), config.relay.clone());
    let (ask, asked) = mpsc::channel(QUESTIONS);
    let control = Control {
        agent: config.agent.name.clone(),
        store: store.clone(),
        relay: ask,
        progress: relay.progress(),
        clock: Arc::clone(&clock),
    };
    stages.sources(&config, &store, Reading::Follow, &clock, intake).await?;
    stages.relay(relay, asked);
    let token = stages.stop_relay.clone();
    stages.late.spawn(async move {
        let listener = match listener {
            None => listen_patiently(&socket, &token).await,
            listener => listener,
        };
        if let Some(listener) = listener {
            control.run(listener, socket, token).await;
        }
        ("control socket", Ok(()))
    });
    stages.late.spawn(housekeeping(store, stages.stop_relay.clone()));
    tracing::info!(sources = config.sources.len(), destinations = config.desks.len(), "otrelay runs");
    stages.wait(&stop).await
}

/// `run --once`: takes in what the file sources hold, then syncs; where a full buffer or disk stops the taking in,
/// by turns, as long as that gets anywhere. Gives what came of it and how things are then.
///
/// # Errors
/// [`AppError`]; one of the store that is passing when neither got anywhere any more.
pub async fn once(
    config: Config,
    clock: SharedClock,
    watch: impl FnOnce(watch::Receiver<Progress>),
    stop: CancellationToken,
) -> Result<(Report, Overview), AppError> {
    let parts = Parts::open(&config, &clock)?;
    let mut stages = Stages::begin(parts.writer);
    let store = parts.store;
    let intake = Intake::new(store.clone(), parts.rules, Arc::clone(&clock), config.intake);
    intake.apply_rules().await?;
    stages.sources(&config, &store, Reading::Once, &clock, intake).await?;
    let relay = Relay::new(store.clone(), parts.desks, parts.composer, clock, config.relay.clone());
    watch(relay.progress());
    let mut report = by_turns(&mut stages, &store, &relay, &stop).await?;
    report.add(relay.run_once(PATIENCE, &stop).await?);
    let reader = store.reader()?;
    let overview = reader.overview()?;
    drop((reader, relay, store));
    stages.close().await?;
    Ok((report, overview))
}

/// Waits until the sources and the intake have ended; while they wait for room, the relay makes some.
async fn by_turns(
    stages: &mut Stages,
    store: &Store,
    relay: &Relay<ServiceNow>,
    stop: &CancellationToken,
) -> Result<Report, AppError> {
    let end = stages.stop_sources.clone();
    let drain = stages.drain(stop);
    tokio::pin!(drain);
    let mut report = Report::default();
    loop {
        tokio::select! {
            drained = &mut drain => return drained.map(|()| report),
            () = tokio::time::sleep(TURN) => {}
        }
        if !store.is_refusing() || end.is_cancelled() {
            continue;
        }
        let more = relay.run_once(PATIENCE, stop).await?;
        let got_on = more.delivered() > 0;
        report.add(more);
        if !got_on && store.is_refusing() {
            report.waiting.extend(store.conditions().into_iter().map(|c| c.what));
            end.cancel();
        }
    }
}

/// `otrelay sync` where no service runs: only the pushing.
///
/// # Errors
/// [`AppError`].
pub async fn push_once(
    config: Config,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<Report, AppError> {
    let parts = Parts::open(&config, &clock)?;
    let mut stages = Stages::begin(parts.writer);
    let intake = Intake::new(parts.store.clone(), parts.rules, Arc::clone(&clock), config.intake);
    intake.apply_rules().await?;
    drop(intake);
    let relay = Relay::new(parts.store, parts.desks, parts.composer, clock, config.relay.clone());
    let report = relay.run_once(PATIENCE, &stop).await?;
    drop(relay);
    stages.close().await?;
    Ok(report)
}

/// `otrelay sync --dry-run` where no service runs: what a sync would send.
///
/// # Errors
/// [`AppError`].
pub async fn plan(config: Config, clock: SharedClock, limit: usize) -> Result<Vec<Planned>, AppError> {
    let parts = Parts::open(&config, &clock)?;
    let mut stages = Stages::begin(parts.writer);
    let relay = Relay::new(parts.store, parts.desks, parts.composer, clock, config.relay.clone());
    let plans = relay.plan(limit).await?;
    drop(relay);
    stages.close().await?;
    Ok(plans)
}

/// Opens the store for a command that changes it, where no service runs.
///
/// # Errors
/// [`AppError`], or what the command fails with.
pub async fn with_store<T, F: Future<Output = Result<T, StoreError>>>(
    config: &Config,
    clock: SharedClock,
    work: impl FnOnce(Store) -> F,
) -> Result<T, AppError> {
    let (store, writer) = Store::open(&config.store, clock)?;
    let mut stages = Stages::begin(writer);
    let result = work(store).await;
    stages.close().await?;
    Ok(result?)
}

/// The tasks, by the order in which they stop.
struct Stages {
    sources: JoinSet<Ended>,
    intake: JoinSet<Ended>,
    late: JoinSet<Ended>,
    writer: JoinSet<Ended>,
    stop_sources: CancellationToken,
    stop_relay: CancellationToken,
}

impl Stages {
    fn begin(writer: Writer) -> Self {
        let mut stages = Self {
            sources: JoinSet::new(),
            intake: JoinSet::new(),
            late: JoinSet::new(),
            writer: JoinSet::new(),
            stop_sources: CancellationToken::new(),
            stop_relay: CancellationToken::new(),
        };
        stages.writer.spawn(async move { ("store", writer.run().await.map_err(AppError::from)) });
        stages
    }

    async fn sources(
        &mut self,
        config: &Config,
        store: &Store,
        reading: Reading,
        clock: &SharedClock,
        intake: Intake,
    ) -> Result<(), AppError> {
        let (send, receive) = mpsc::channel::<Batch>(BATCHES);
        for SourceSettings::SuricataEve { pattern, eve } in &config.sources {
            let remembered = store.remembered(&eve.source).await?;
            let settings = tail::Settings {
                name: eve.source.clone(),
                pattern: pattern.clone(),
                eve: eve.clone(),
                reading,
                cursors: remembered.cursors,
                read_before: remembered.read_before,
            };
            let tail = Tail::new(settings, Arc::clone(clock));
            let (send, stop) = (send.clone(), self.stop_sources.clone());
            self.sources.spawn(async move { ("source", tail.run(send, stop).await.map_err(AppError::from)) });
        }
        let stop = self.stop_sources.clone();
        self.intake.spawn(async move { ("intake", intake.run(receive, stop).await.map_err(AppError::from)) });
        Ok(())
    }

    fn relay(&mut self, relay: Relay<ServiceNow>, asked: mpsc::Receiver<crate::relay::Ask>) {
        let stop = self.stop_relay.clone();
        self.late.spawn(async move { ("relay", relay.run(asked, stop).await.map_err(AppError::from)) });
    }

    /// Runs until `stop` or until a task ends unasked; then stops the rest in order.
    async fn wait(mut self, stop: &CancellationToken) -> Result<(), AppError> {
        let first = tokio::select! {
            () = stop.cancelled() => None,
            Some(ended) = self.sources.join_next() => Some(ended),
            Some(ended) = self.intake.join_next() => Some(ended),
            Some(ended) = self.late.join_next() => Some(ended),
            Some(ended) = self.writer.join_next() => Some(ended),
        };
        tracing::info!("stopping");
        self.stop_sources.cancel();
        self.stop_relay.cancel();
        let rest = async {
            finish(&mut self.sources).await?;
            finish(&mut self.intake).await?;
            finish(&mut self.late).await?;
            self.close().await
        };
        let rest = tokio::time::timeout(GRACE, rest).await.unwrap_or_else(|_| {
            tracing::warn!("what was in flight took too long; it is looked up at the next start");
            Ok(())
        });
        match first {
            None => rest,
            Some(ended) => match ended? {
                (_, Err(e)) => Err(e),
                (name, Ok(())) => Err(AppError::Ended(name)),
            },
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

/// Waits for all of a stage; the first failure wins.
async fn finish(stage: &mut JoinSet<Ended>) -> Result<(), AppError> {
    let mut first = Ok(());
    while let Some(ended) = stage.join_next().await {
        let (_, result) = ended?;
        first = first.and(result);
    }
    first
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
