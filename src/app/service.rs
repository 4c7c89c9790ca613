//! The long run: generations of sources, intake and relay on one open store, with what outlives them around it.
//!
//! SIGHUP makes the next generation. First the new config is read and everything is made from it that can fail because
//! of it; only then do the running sources, intake and relay stop, in the order of any stop, and the next ones start
//! from what the store knows. So a reload loses and doubles nothing for the same reasons as a restart, and a config that
//! cannot be used changes nothing. The control socket, the keeper and the writer go on through all of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::again::Doors;
use super::{AppError, Components, TaskGroups, Watched, housekeeping, page, spawn};
use crate::clock::SharedClock;
use crate::config::{Config, Level, Problem};
use crate::control::client::is_there;
use crate::control::server::{Control, is_passing, listen, listen_patiently, live};
use crate::heartbeat::{Heartbeat, Heartbeats};
use crate::intake::Tap;
use crate::model::HealthIssue;
use crate::model::codes::Code;
use crate::model::text::clip;
use crate::relay::{Ask, Progress};
use crate::source;
use crate::status::page::{Facts, Page};
use crate::status::{Keeper, Live, Notifier};
use crate::store::{OpenError, Reader, Store, Writer};

/// Questions that may wait for the relay.
const QUESTIONS: usize = 16;
/// Between two looks at how old log-ins are; they end after months.
const LOGINS: Duration = Duration::from_hours(1);
/// A source that cannot be opened for so long does not keep the service from being ready: the others work.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// While the store is being opened, systemd is asked for so much more time, again and again.
const EXTEND: Duration = Duration::from_secs(60);
/// But not for ever.
const OPEN_WITHIN: Duration = Duration::from_mins(30);
/// A command that works on the store is waited for so long, and looked for so often.
const BUSY_WITHIN: Duration = Duration::from_mins(2);
const BUSY_LOOK: Duration = Duration::from_millis(500);
/// Longest refusal in the status, in bytes.
const REFUSAL_MAX: usize = 300;

/// Reads the config again, as `otrelay check` does: the config and what is odd about it, or every problem.
pub type Reread = Arc<dyn Fn() -> Result<(Config, Vec<Problem>), Vec<Problem>> + Send + Sync>;

/// What the service has around it.
pub struct Surroundings {
    /// The time.
    pub clock: SharedClock,
    /// Where the control socket goes.
    pub socket: PathBuf,
    /// The way to systemd.
    pub notifier: Notifier,
    /// `$WATCHDOG_USEC`.
    pub watchdog: Option<Duration>,
    /// Ends the service.
    pub stop: CancellationToken,
    /// SIGHUP. Several before one is served are one.
    pub hangup: Arc<Notify>,
    /// What SIGHUP reads.
    pub reread: Reread,
}

/// The service: runs until it is told to stop.
///
/// # Errors
/// [`AppError`].
pub async fn serve(config: Config, around: Surroundings) -> Result<(), AppError> {
    let components = Components::of(&config, &around.clock)?;
    let Some((store, writer)) = open(&config, &around).await? else { return Ok(()) };
    let listener = match listen(&around.socket) {
        Err(e) if is_passing(&e) => {
            let socket = around.socket.display();
            tracing::warn!("no command can ask this service before {socket} can be written: {e}");
            None
        }
        other => Some(other.map_err(|source| AppError::Socket { path: around.socket.clone(), source })?),
    };
    let mut stages = TaskGroups::begin(writer);
    let (ask, asked) = mpsc::channel(QUESTIONS);
    let mut service = Service::new(config, components, store, around, asked);
    service.surround(&mut stages, listener, ask);
    let begun = service.begin(&mut stages).await;
    let outcome = match begun {
        Ok(ready) => service.run(&mut stages, ready).await,
        // Nothing has run yet that would have to be finished.
        Err(_) if service.around.stop.is_cancelled() => None,
        Err(e) => Some(Ok(("start", Err(e)))),
    };
    tracing::info!("stopping");
    service.around.notifier.stopping();
    drop(service);
    stages.end(outcome).await
}

/// Opens the store beside the runtime's thread: a migration or a repair may take long, and systemd is told so. A command
/// that works on the store by itself, such as a `sync`, is waited for. `None`: told to stop meanwhile.
async fn open(config: &Config, around: &Surroundings) -> Result<Option<(Store, Writer)>, AppError> {
    let (settings, clock) = (config.store.clone(), Arc::clone(&around.clock));
    let again = || {
        let (settings, clock) = (settings.clone(), Arc::clone(&clock));
        tokio::task::spawn_blocking(move || Store::open(&settings, clock))
    };
    let mut opening = again();
    let (began, mut waits) = (Instant::now(), false);
    loop {
        let opened = tokio::select! {
            opened = &mut opening => opened?,
            () = tokio::time::sleep(EXTEND / 4), if began.elapsed() < OPEN_WITHIN => {
                around.notifier.extend(EXTEND);
                around.notifier.status(&format!("opening the store, for {} s now", began.elapsed().as_secs()));
                continue;
            }
        };
        let error = match opened {
            Ok(opened) => return Ok(Some(opened)),
            Err(error) => error,
        };
        // Another service does not end by itself; what has no ear is a command, and does.
        if !matches!(error, OpenError::Locked { .. })
            || began.elapsed() >= BUSY_WITHIN
            || is_there(&around.socket)
        {
            return Err(error.into());
        }
        if !waits {
            waits = true;
            let seconds = BUSY_WITHIN.as_secs();
            tracing::warn!("{error}: waits until that command has ended, at most {seconds} s");
            around.notifier.extend(BUSY_WITHIN + EXTEND);
            around.notifier.status("waits for a command that works on the store");
        }
        tokio::select! {
            () = around.stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(BUSY_LOOK) => opening = again(),
        }
    }
}

/// Ends when the sources of a generation have been opened.
type Ready = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What lives through all generations.
struct Service {
    config: Config,
    /// What the config was turned into.
    components: Components,
    store: Store,
    around: Surroundings,
    /// Questions for the relay: those asked during a reload are answered by the next one.
    asked: Arc<Mutex<mpsc::Receiver<Ask>>>,
    progress: watch::Sender<Progress>,
    concerns: watch::Sender<Vec<HealthIssue>>,
    /// Why the last reload was refused, until one is not.
    refusal: Option<HealthIssue>,
    /// What the status page tells of the config.
    facts: watch::Sender<Facts>,
    /// Why the status page cannot be shown.
    page: watch::Sender<Option<HealthIssue>>,
    heartbeats: Heartbeats,
    /// The ways to the sources of this generation.
    doors: Doors,
    kept: source::Kept,
    /// What is decided, for those who watch.
    tap: Tap,
}

impl Service {
    fn new(
        config: Config,
        components: Components,
        store: Store,
        around: Surroundings,
        asked: mpsc::Receiver<Ask>,
    ) -> Self {
        let asked = Arc::new(Mutex::new(asked));
        let (progress, concerns) = (watch::Sender::default(), watch::Sender::default());
        let facts = watch::Sender::new(page::facts(&config));
        Self {
            config,
            components,
            store,
            around,
            asked,
            progress,
            concerns,
            refusal: None,
            facts,
            page: watch::Sender::default(),
            heartbeats: Heartbeats::default(),
            doors: Doors::default(),
            kept: source::Kept::default(),
            tap: Tap::default(),
        }
    }

    /// Starts what outlives a reload.
    fn surround(
        &self,
        stages: &mut TaskGroups,
        listener: Option<tokio::net::UnixListener>,
        ask: mpsc::Sender<Ask>,
    ) {
        let stop = &stages.stop_around;
        let control = Control {
            agent: self.config.agent.name.clone(),
            store: self.store.clone(),
            relay: ask,
            progress: self.progress.subscribe(),
            tap: self.tap.clone(),
            behind: self.behind(),
            rewind: self.doors.rewinds(&self.store, &self.around.clock),
            concerns: self.concerns.subscribe(),
            clock: Arc::clone(&self.around.clock),
        };
        let (socket, token) = (self.around.socket.clone(), stop.clone());
        spawn(&mut stages.around, async move {
            let listener = match listener {
                None => listen_patiently(&socket, &token).await,
                listener => listener,
            };
            if let Some(listener) = listener {
                control.run(listener, socket, token).await;
            }
            ("control socket", Ok(()))
        });
        let token = stop.clone();
        spawn(&mut stages.around, async move {
            crate::log::tell_kept(token).await;
            ("log", Ok(()))
        });
        spawn(&mut stages.around, housekeeping(self.store.clone(), stop.clone()));
        let keeper = Keeper {
            notifier: self.around.notifier.clone(),
            limit: self.around.watchdog,
            heartbeats: self.heartbeats.clone(),
            agent: self.config.agent.name.clone(),
            concerns: self.concerns.subscribe(),
            clock: Arc::clone(&self.around.clock),
        };
        let (store, progress, token) = (self.store.clone(), self.progress.subscribe(), stop.clone());
        spawn(&mut stages.around, async move {
            keeper.run(store, progress, |progress| live(progress, Vec::new()), token).await;
            ("keeper", Ok(()))
        });
        self.show(stages);
    }

    /// Tells how many bytes each source has not read.
    fn behind(&self) -> Arc<dyn Fn() -> BTreeMap<String, u64> + Send + Sync> {
        let heartbeats = self.heartbeats.clone();
        Arc::new(move || source::behind(&heartbeats))
    }

    /// Starts the status page and the metrics, where they are asked for.
    fn show(&self, stages: &mut TaskGroups) {
        let (progress, concerns) = (self.progress.subscribe(), self.concerns.subscribe());
        let behind = self.behind();
        let page = Page {
            agent: self.config.agent.name.clone(),
            store: self.store.clone(),
            live: Arc::new(move || {
                let concerns = concerns.borrow().clone();
                Live { behind: behind(), ..live(&progress.borrow(), concerns) }
            }),
            facts: self.facts.subscribe(),
            usual_level: crate::servicenow::cmdb::class::usual_level,
            clock: Arc::clone(&self.around.clock),
        };
        if let Some(path) = self.config.status.textfile.clone() {
            spawn(&mut stages.around, page::write(page.clone(), path, stages.stop_around.clone()));
        }
        if let Some(address) = self.config.status.listen {
            spawn(
                &mut stages.around,
                page::serve(page, address, self.page.clone(), stages.stop_around.clone()),
            );
        }
    }

    /// Starts a generation. Its sources come first, as senders wait for nobody; what the last relay had in flight ends
    /// meanwhile, and before anything is taken in, changed rules are applied to what it left.
    async fn begin(&self, stages: &mut TaskGroups) -> Result<Ready, AppError> {
        let clock = &self.around.clock;
        let intake = || self.components.intake(&self.config, &self.store, clock);
        let (open, gate) = oneshot::channel();
        let watched = Watched {
            heartbeats: self.heartbeats.clone(),
            doors: self.doors.clone(),
            kept: self.kept.clone(),
            gate: Some(gate),
        };
        let telling = intake().telling(self.tap.clone());
        let sources = stages.sources(&self.config, &self.store, clock, telling, Some(watched));
        stages.relay_ended().await?;
        // What has no room yet is seen to by the intake; the relay makes the room.
        intake().apply_rules().await?;
        Components::identify(&self.config, &self.store).await?;
        let _ = open.send(());
        let relay = (self.components)
            .relay(&self.config, self.store.clone(), Arc::clone(clock))
            .watched(self.progress.clone(), &self.heartbeats);
        let (asked, stop) = (Arc::clone(&self.asked), stages.stop_relay.clone());
        spawn(&mut stages.late, async move {
            let mut asked = asked.lock().await;
            ("relay", relay.run(&mut asked, stop).await.map_err(AppError::from))
        });
        Ok(Box::pin(opened(sources)))
    }

    /// Runs until the stop, or until a task ends unasked, which is given back.
    async fn run(
        &mut self,
        stages: &mut TaskGroups,
        mut ready: Ready,
    ) -> Option<Result<super::Ended, tokio::task::JoinError>> {
        let mut told = false;
        let mut logins = tokio::time::interval(LOGINS);
        let mut page = self.page.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.around.stop.cancelled() => return None,
                ended = stages.first() => return Some(ended),
                () = &mut ready, if !told => {
                    told = true;
                    let (sources, destinations) = (self.config.sources.len(), self.config.destinations.len());
                    tracing::info!(sources, destinations, "otrelay runs: {sources} sources, {destinations} destinations");
                    self.around.notifier.ready();
                }
                _ = logins.tick() => self.tell_concerns(),
                Ok(()) = page.changed() => self.tell_concerns(),
                () = self.around.hangup.notified() => match self.reload(stages).await {
                    Ok(Some(next)) => (ready, told) = (next, false),
                    // The old ones run on. A start that is not ready yet becomes so by itself.
                    Ok(None) => if told { self.around.notifier.ready() },
                    Err(_) if self.around.stop.is_cancelled() => return None,
                    Err(e) => return Some(Ok(("reload", Err(e)))),
                },
            }
        }
    }

    /// Reads the config again and begins the next generation; `None`: it cannot be used, and the old one runs on.
    async fn reload(&mut self, stages: &mut TaskGroups) -> Result<Option<Ready>, AppError> {
        self.around.notifier.reloading();
        let (reread, clock) = (Arc::clone(&self.around.reread), Arc::clone(&self.around.clock));
        let (config, warnings) = match tokio::task::spawn_blocking(move || reread()).await? {
            Ok(read) => read,
            Err(problems) => return Ok(self.refuse(&problems)),
        };
        let fixed = fixed(&self.config, &config);
        if !fixed.is_empty() {
            return Ok(self.refuse(&fixed));
        }
        let components = match Components::of(&config, &clock) {
            Ok(components) => components,
            Err(e) => return Ok(self.refuse(&[Problem::new(Level::Error, "", e.to_string())])),
        };
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        stages.pause().await?;
        self.tell_gone(&config).await;
        (self.config, self.components) = (config, components);
        self.facts.send_replace(page::facts(&self.config));
        let ready = self.begin(stages).await?;
        self.refusal = None;
        self.tell_concerns();
        tracing::info!("the config was reloaded");
        Ok(Some(ready))
    }

    /// Says what is wrong with the service itself: a refused reload, a log-in that is about to end.
    fn tell_concerns(&self) {
        let logins: Vec<_> = self.components.destinations.iter().filter_map(|d| d.concern()).collect();
        let others = self.refusal.clone().into_iter().chain(self.page.borrow().clone());
        let all: Vec<HealthIssue> = others.chain(logins.iter().cloned()).collect();
        self.concerns.send_if_modified(|told| {
            let changed = *told != all;
            // The others are logged where they come about. One of an age has another text each day.
            for login in logins.iter().filter(|login| !told.contains(login)) {
                tracing::warn!("{}; {}", login.told(), login.remedy);
            }
            *told = all;
            changed
        });
    }

    /// Keeps the old, and says why.
    fn refuse(&mut self, problems: &[Problem]) -> Option<Ready> {
        let mut errors = problems.iter().filter(|problem| problem.level == Level::Error);
        for problem in problems {
            match problem.level {
                // Each place has its own share of the log.
                Level::Error => {
                    let place = problem.place.as_deref().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(
                        place,
                        key = problem.key,
                        "reload refused: {problem}{}",
                        Code::behind(problem.code())
                    );
                }
                Level::Warning => tracing::warn!("{problem}"),
            }
        }
        let first = errors.next().map(ToString::to_string).unwrap_or_default();
        let more = match errors.count() {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        let what = format!("reload refused, the old config runs on: {}{more}", clip(&first, REFUSAL_MAX));
        let remedy = "correct the config; otrelay check shows all of it; then systemctl reload otrelay";
        self.refusal = Some(HealthIssue::new("reload-refused", what, remedy));
        self.tell_concerns();
        None
    }

    /// Says what becomes of sources and destinations that are no longer in the config.
    async fn tell_gone(&self, next: &Config) {
        for source in &self.config.sources {
            if !next.sources.iter().any(|other| other.name == source.name) {
                tracing::info!(
                    source = %source.name,
                    "the source is no longer in the config; what it gave stays, and so does how far it was read"
                );
            }
        }
        let gone: Vec<String> = (self.config.destinations.iter())
            .filter(|destination| !next.destinations.iter().any(|other| other.name == destination.name))
            .map(|destination| destination.name.to_string())
            .collect();
        if gone.is_empty() {
            return;
        }
        let dir = self.config.store.dir.clone();
        let read = move || Reader::open(&dir).ok()?.overview().ok();
        let overview = tokio::task::spawn_blocking(read).await.ok().flatten().unwrap_or_default();
        for name in gone {
            let counts = overview
                .destinations
                .iter()
                .find(|destination| destination.name == name)
                .map(|destination| &destination.counts);
            let count = |state: &str| counts.and_then(|counts| counts.get(state)).copied().unwrap_or(0);
            tracing::warn!(
                destination = %name,
                waiting = count("pending"),
                dead = count("dead"),
                "the destination is no longer in the config; what waits for it goes where the rules now say, or is \
                 withdrawn; its dead letters are kept. Its open tickets are not followed: if it only has another name \
                 now, name it as before, or each of its findings that is seen again gets a second ticket"
            );
        }
    }
}

/// Ends when each source has been opened, or has reported why it cannot be.
async fn opened(sources: Vec<Heartbeat>) {
    let all = futures_util::future::join_all(sources.iter().map(Heartbeat::has_begun));
    if tokio::time::timeout(READY_WITHIN, all).await.is_err() {
        tracing::warn!("not every source could be opened yet; the others run");
    }
}

/// What cannot change while the store is open, and was changed.
fn fixed(old: &Config, new: &Config) -> Vec<Problem> {
    let (was, is) = (&old.store, &new.store);
    let changed = [
        ("agent.state_dir", was.dir != is.dir),
        ("agent.name", old.agent.name != new.agent.name),
        ("agent.id", old.agent.id != new.agent.id),
        ("buffer.max_size", was.max_size != is.max_size),
        ("buffer.keep_delivered", was.keep_delivered != is.keep_delivered),
        ("buffer.when_full", was.when_full != is.when_full),
        ("status.listen", old.status.listen != new.status.listen),
        ("status.textfile", old.status.textfile != new.status.textfile),
    ];
    let problem = |key: &str| {
        Problem::new(Level::Error, key, "cannot change while the service runs")
            .hint("systemctl restart otrelay, or set it back")
    };
    changed.iter().filter(|(_, changed)| *changed).map(|(key, _)| problem(key)).collect()
}
