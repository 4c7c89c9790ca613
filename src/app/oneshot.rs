//! The short runs: what a command does with the store by itself, where no service runs.
//!
//! They stop by the same stages as the service. Damage that is met is healed in the same process, and what was begun is
//! done once more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{AppError, Components, TaskGroups};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::heartbeat::Heartbeats;
use crate::relay::{Planned, Progress, Relay, Report};
use crate::servicenow::ServiceNow;
use crate::source::Reading;
use crate::store::{Overview, Store, StoreError};

/// `--once` looks so often whether the intake waits for room: longer than the intake waits before it looks again.
const TURN: Duration = Duration::from_secs(6);
/// `--once` waits so long for what failed to become due again.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// `run --once`: takes in what the file sources hold, then syncs; where a full buffer or disk stops the taking in,
/// by turns, as long as that gets anywhere. Where a healing gave the cursors up, the sources begin anew. Gives what came
/// of it and how things are then.
///
/// # Errors
/// [`AppError`]; one of the store that is passing when neither got anywhere any more.
pub async fn once(
    config: Config,
    clock: SharedClock,
    watch: impl FnOnce(watch::Receiver<Progress>),
    stop: CancellationToken,
) -> Result<(Report, Overview), AppError> {
    let blueprint = Components::of(&config, &clock)?;
    let (store, writer) = Store::open(&config.store, Arc::clone(&clock))?;
    let mut stages = TaskGroups::begin(writer);
    let relay = blueprint.relay(&config, store.clone(), Arc::clone(&clock));
    watch(relay.progress());
    let (mut report, mut rewound) = (Report::default(), store.rewound());
    loop {
        let turn = async || {
            stages.pause_sources().await?;
            rewound.mark_unchanged();
            let intake = blueprint.intake(&config, &store, &clock);
            intake.apply_rules().await?;
            stages.sources(&config, &store, Reading::Once, &clock, intake, &Heartbeats::default());
            report.add(by_turns(&mut stages, &store, &relay, &stop).await?);
            report.add(relay.run_once(PATIENCE, &stop).await?);
            Ok(())
        };
        through_healings(turn).await?;
        if stop.is_cancelled() || !rewound.has_changed().unwrap_or(false) {
            break;
        }
    }
    let reader = store.reader()?;
    let overview = reader.overview()?;
    drop((reader, relay, store));
    stages.close().await?;
    Ok((report, overview))
}

/// Does it once more where it met damage, which is healed in this process: another one would meet it for the first time
/// again, and take it for a read that failed. A database is healed only so often, then the store ends.
async fn through_healings<T>(mut turn: impl AsyncFnMut() -> Result<T, AppError>) -> Result<T, AppError> {
    loop {
        match turn().await {
            Err(AppError::Store(StoreError::Healing(cause))) => {
                tracing::warn!("what was begun is done once more: {cause}");
            }
            ended => return ended,
        }
    }
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
    let blueprint = Components::of(&config, &clock)?;
    let (store, writer) = Store::open(&config.store, Arc::clone(&clock))?;
    let mut stages = TaskGroups::begin(writer);
    let intake = blueprint.intake(&config, &store, &clock);
    let relay = blueprint.relay(&config, store, clock);
    let turn = async || {
        intake.apply_rules().await?;
        Ok(relay.run_once(PATIENCE, &stop).await?)
    };
    let report = through_healings(turn).await?;
    drop((intake, relay));
    stages.close().await?;
    Ok(report)
}

/// `otrelay sync --dry-run` where no service runs: what a sync would send.
///
/// # Errors
/// [`AppError`].
pub async fn plan(config: Config, clock: SharedClock, limit: usize) -> Result<Vec<Planned>, AppError> {
    let blueprint = Components::of(&config, &clock)?;
    let (store, writer) = Store::open(&config.store, Arc::clone(&clock))?;
    let mut stages = TaskGroups::begin(writer);
    let relay = blueprint.relay(&config, store, clock);
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
    let mut stages = TaskGroups::begin(writer);
    let result = work(store).await;
    stages.close().await?;
    Ok(result?)
}
