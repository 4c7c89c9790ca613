//! The short runs: what a command does with the store by itself, where no service runs.
//!
//! They stop by the same stages as the service. Damage that is met ends them too, and the next run repairs it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AppError, Components, TaskGroups};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::model::HealthIssue;
use crate::relay::{Planned, Progress, Relay, Report};
use crate::servicenow::ServiceNow;
use crate::store::{Overview, Store, StoreError};

/// Most that a plan before the first start keeps of what it reads, in bytes.
const FIRST_PLAN: u64 = 256 << 20;
/// `--once` looks so often whether the intake waits for room: longer than the intake waits before it looks again.
const TURN: Duration = Duration::from_secs(6);
/// `--once` waits so long for what failed to become due again.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What `--once` did.
pub struct Once {
    /// What was pushed.
    pub report: Report,
    /// How things were before.
    pub before: Overview,
    /// How they are now.
    pub overview: Overview,
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
) -> Result<Once, AppError> {
    let (components, store, mut stages) = open(&config, &clock)?;
    let before = store.reader()?.overview()?;
    let relay = components.relay(&config, store.clone(), Arc::clone(&clock));
    watch(relay.progress());
    Components::identify(&config, &store).await?;
    let intake = components.intake(&config, &store, &clock);
    intake.apply_rules().await?;
    stages.sources(&config, &store, &clock, intake, None);
    let mut report = by_turns(&mut stages, &store, &relay, &stop).await?;
    report.add(relay.run_once(PATIENCE, &stop).await?);
    let reader = store.reader()?;
    let overview = reader.overview()?;
    drop((reader, relay, store));
    stages.close().await?;
    Ok(Once { report, before, overview })
}

/// What any of it begins with.
fn open(config: &Config, clock: &SharedClock) -> Result<(Components, Store, TaskGroups), AppError> {
    let components = Components::of(config, clock)?;
    let (store, writer) = Store::open(&config.store, Arc::clone(clock))?;
    Ok((components, store, TaskGroups::begin(writer)))
}

/// Waits until the sources and the intake have ended; while they wait for room, the relay makes some.
async fn by_turns(
    stages: &mut TaskGroups,
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
            report.waiting.extend(store.conditions().iter().map(words));
            end.cancel();
        }
    }
}

/// What is the case, its code, and what to do.
fn words(issue: &HealthIssue) -> String {
    format!("{}: {}", issue.told(), issue.remedy)
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
    let (components, store, mut stages) = open(&config, &clock)?;
    let intake = components.intake(&config, &store, &clock);
    let relay = components.relay(&config, store, clock);
    let mut report = Report::default();
    loop {
        let fits = intake.apply_rules().await?;
        let more = relay.run_once(PATIENCE, &stop).await?;
        let got_on = more.delivered() > 0;
        report.add(more);
        // What changed rules want in addition may have no room before something is delivered.
        if fits || !got_on || stop.is_cancelled() {
            break;
        }
    }
    drop((intake, relay));
    stages.close().await?;
    Ok(report)
}

/// `otrelay sync --dry-run` where no service runs: what a sync would send.
///
/// # Errors
/// [`AppError`].
pub async fn plan(config: Config, clock: SharedClock, limit: usize) -> Result<Vec<Planned>, AppError> {
    let (components, store, mut stages) = open(&config, &clock)?;
    let relay = components.relay(&config, store, clock);
    let plans = relay.plan(limit).await?;
    drop(relay);
    stages.close().await?;
    Ok(plans)
}

/// The same before the first start: takes in what the sources hold, into a store of its own that is thrown away. Gives
/// the plans, and what keeps more from being taken in.
///
/// # Errors
/// [`AppError`].
pub async fn plan_first(
    mut config: Config,
    clock: SharedClock,
    dir: &Path,
    limit: usize,
    stop: CancellationToken,
) -> Result<(Vec<Planned>, Vec<String>), AppError> {
    dir.clone_into(&mut config.store.dir);
    config.store.max_size = config.store.max_size.min(FIRST_PLAN);
    let (components, store, mut stages) = open(&config, &clock)?;
    let intake = components.intake(&config, &store, &clock);
    intake.apply_rules().await?;
    stages.sources(&config, &store, &clock, intake, None);
    let relay = components.relay(&config, store.clone(), clock);
    let mut more = Vec::new();
    let end = stages.stop_sources.clone();
    {
        let drain = stages.drain(&stop);
        tokio::pin!(drain);
        loop {
            tokio::select! {
                drained = &mut drain => break drained?,
                () = tokio::time::sleep(TURN) => {}
            }
            if store.is_refusing() && !end.is_cancelled() {
                more.extend(store.conditions().iter().map(words));
                end.cancel();
            }
        }
    }
    let plans = relay.plan(limit).await?;
    drop((relay, store));
    stages.close().await?;
    Ok((plans, more))
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
    let mut stages = TaskGroups::begin(writer);
    let result = work(store).await;
    stages.close().await?;
    Ok(result?)
}
