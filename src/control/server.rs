//! Answering in the service. Connections are few and short: they are served one after the other, but for a sync, which
//! would block the others for as long as it runs.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Answer, Glance, QUESTION_MAX, Question, answer, tap};
use crate::clock::SharedClock;
use crate::intake::Tap;
use crate::model::HealthIssue;
use crate::model::text::chain;
use crate::relay::{Ask, Progress};
use crate::status::{Live, Status};
use crate::store::Store;
use crate::store::op::again::{Rewound, Wanted};
use crate::store::op::dead::Verdict;

/// Callers that are served at the same time.
const AT_ONCE: usize = 16;
/// Time for those who have asked to get their answer after the order to stop: the relay ends its sync meanwhile.
const TO_END: Duration = Duration::from_secs(15);
/// Callers of those that may wait for the relay: a sync can take long, and the others have to be answered meanwhile.
const WAITING: usize = 8;
/// Callers of those that may watch what is decided: each costs a place for as long as it likes.
const WATCHING: usize = 4;
/// Between two tries to open the socket in a directory that cannot be written.
const TO_LISTEN: Duration = Duration::from_secs(15);
/// Time for a caller to ask.
const TO_ASK: Duration = Duration::from_secs(5);

/// Stops a source, sets it back and lets it go on; or says why not.
pub type Rewind =
    Arc<dyn Fn(Wanted) -> Pin<Box<dyn Future<Output = Result<Rewound, String>> + Send>> + Send + Sync>;
/// Places of those that stay longer than an answer takes.
struct Places {
    waiting: Semaphore,
    watching: Semaphore,
}

/// What the ear needs.
#[derive(Clone)]
pub struct Control {
    /// `[agent] name`.
    pub agent: String,
    /// For what changes deliveries.
    pub store: Store,
    /// For syncs.
    pub relay: mpsc::Sender<Ask>,
    /// What the relay tells about itself.
    pub progress: watch::Receiver<Progress>,
    /// What the intake decides.
    pub tap: Tap,
    /// Bytes that each source has not read.
    pub behind: Arc<dyn Fn() -> BTreeMap<String, u64> + Send + Sync>,
    /// Has a source read again.
    pub rewind: Rewind,
    /// What is wrong with the service itself.
    pub concerns: watch::Receiver<Vec<HealthIssue>>,
    /// The time.
    pub clock: SharedClock,
}

/// Opens the socket. A socket file that a killed process left behind is replaced: the lock on the state directory says
/// that nobody else listens.
///
/// # Errors
/// When the directory does not allow it.
pub fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What is known beside the store: of the relay's progress, and of the service itself.
pub fn live(progress: &Progress, mut concerns: Vec<HealthIssue>) -> Live {
    concerns.extend(progress.clock.map(|at| {
        let text = format!("the clock says {at}, before this version was released: alerts are kept, nothing is sent");
        let remedy =
            "set the clock of this machine (timedatectl; a time server it can reach); sending then begins by itself";
        HealthIssue::new("clock-wrong", text, remedy)
    }));
    Live {
        syncing: progress.syncing,
        next_sync_at: progress.next_sync_at,
        empty_sync: progress.empty_sync.clone(),
        failing: progress.failing.clone(),
        sync_off: progress.off,
        concerns,
        ..Live::default()
    }
}

/// Opens the socket when its directory can be written; `None` when it has to stop before.
pub async fn listen_patiently(path: &Path, stop: &CancellationToken) -> Option<UnixListener> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(TO_LISTEN) => {}
        }
        if let Ok(listener) = listen(path) {
            return Some(listener);
        }
    }
}

/// Whether a directory cannot be written now, and nothing else is wrong.
pub fn is_passing(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(e.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

impl Control {
    /// Answers until `stop`.
    pub async fn run(self, listener: UnixListener, path: PathBuf, stop: CancellationToken) {
        let mut callers = JoinSet::new();
        let places =
            Arc::new(Places { waiting: Semaphore::new(WAITING), watching: Semaphore::new(WATCHING) });
        loop {
            while callers.try_join_next().is_some() {}
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept(), if callers.len() < AT_ONCE => match accepted {
                    Ok((stream, _)) => {
                        callers.spawn(self.clone().serve(stream, Arc::clone(&places), stop.clone()));
                    }
                    // Out of file descriptors: the callers that are there give theirs back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                },
                Some(_) = callers.join_next(), if callers.len() >= AT_ONCE => {}
            }
        }
        // The next start would remove it too.
        let _ = std::fs::remove_file(path);
        let answered = async { while callers.join_next().await.is_some() {} };
        // Those who are not answered by then see the connection end.
        let _ = tokio::time::timeout(TO_END, answered).await;
    }

    async fn serve(self, mut stream: UnixStream, places: Arc<Places>, stop: CancellationToken) {
        let own = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
            return;
        }
        let (read, mut write) = stream.split();
        let mut line = Vec::new();
        let mut reader = BufReader::new(read.take(QUESTION_MAX));
        let question = tokio::select! {
            question = tokio::time::timeout(TO_ASK, reader.read_until(b'\n', &mut line)) => question,
            () = stop.cancelled() => return,
        };
        let answer = match question {
            Ok(Ok(_)) => match serde_json::from_slice(&line) {
                Ok(Question::Tap(watched)) => match places.watching.try_acquire() {
                    Ok(_place) => {
                        return tap::tell(&self.tap, &watched, &mut reader, &mut write, &stop).await;
                    }
                    Err(_) => Answer::Error(format!(
                        "{WATCHING} are watching already, more cannot: end one of them (ps -C otrelay -o pid,args)"
                    )),
                },
                Ok(question) => self.answer(question, &places.waiting).await,
                Err(e) => Answer::Error(format!("not a question that this version knows: {e}")),
            },
            _ => return,
        };
        if let Ok(mut text) = serde_json::to_vec(&answer) {
            text.push(b'\n');
            // A caller that left does not want it any more.
            let _ = tokio::time::timeout(Duration::from_secs(30), write.write_all(&text)).await;
        }
    }

    async fn answer(&self, question: Question, waiting: &Semaphore) -> Answer {
        let place = waiting.try_acquire();
        let is_of_arguments = matches!(&question, Question::Rewind(_) | Question::OrderTicket(_));
        let value = match &question {
            Question::Sync | Question::Plan { .. } if place.is_err() => {
                Err("too many are waiting for a sync already; try again later".to_owned())
            }
            Question::Sync => {
                let (send, receive) = oneshot::channel();
                self.ask_relay(Ask::Sync(send), receive).await
            }
            Question::Plan { limit } => {
                let (send, receive) = oneshot::channel();
                self.ask_relay(Ask::Plan(*limit, send), receive).await
            }
            _ => {
                drop(place);
                self.ask_store(question).await
            }
        };
        value.map_or_else(if is_of_arguments { Answer::No } else { Answer::Error }, Answer::Ok)
    }

    async fn ask_relay<T: serde::Serialize>(
        &self,
        ask: Ask,
        answer: oneshot::Receiver<T>,
    ) -> Result<serde_json::Value, String> {
        let gone = "the service is stopping";
        self.relay.send(ask).await.map_err(|_| gone.to_owned())?;
        let value = answer.await.map_err(|_| gone.to_owned())?;
        serde_json::to_value(value).map_err(|e| e.to_string())
    }

    async fn ask_store(&self, question: Question) -> Result<serde_json::Value, String> {
        if let Some((ids, verdict)) = question.verdict() {
            let judged = self.store.judge(ids.to_vec(), verdict).await.map_err(|e| e.to_string())?;
            if verdict == Verdict::Retry && judged.iter().any(|one| one.done) {
                // A relay with so many questions before it will come to these anyway.
                let _ = self.relay.try_send(Ask::Again);
            }
            return serde_json::to_value(judged).map_err(|e| e.to_string());
        }
        if let Question::OrderTicket(wanted) = &question {
            let ordered = self.store.order_ticket(wanted.clone()).await.map_err(|e| e.to_string())?;
            return serde_json::to_value(ordered).map_err(|e| e.to_string());
        }
        if let Question::Rewind(wanted) = question {
            let rewound = (self.rewind)(wanted).await?;
            return serde_json::to_value(rewound).map_err(|e| e.to_string());
        }
        if matches!(question, Question::ResyncDevices) {
            let devices = self.store.resync_devices().await.map_err(|e| e.to_string())?;
            return serde_json::to_value(devices).map_err(|e| e.to_string());
        }
        // Who looks sees all that was taken in; who looks again and again must not wear the disk.
        if !matches!(question, Question::Glance) {
            self.store.commit_gathered().await;
        }
        let (agent, now) = (self.agent.clone(), self.clock.now());
        let live = {
            let progress = self.progress.borrow();
            let concerns = self.concerns.borrow().clone();
            Live {
                conditions: self.store.conditions(),
                gathered: self.store.gathered(),
                behind: (self.behind)(),
                ..live(&progress, concerns)
            }
        };
        let store = self.store.clone();
        let read = move || -> Result<serde_json::Value, String> {
            let reader = store.reader().map_err(|e| chain(&e))?;
            if matches!(question, Question::Status | Question::Glance) {
                let overview = reader.overview().map_err(|e| e.to_string())?;
                let status = Status::new(&agent, now, overview, Some(live));
                let value = match question {
                    Question::Status => serde_json::to_value(status),
                    _ => serde_json::to_value(Glance::new(&reader, status).map_err(|e| e.to_string())?),
                };
                return value.map_err(|e| e.to_string());
            }
            answer(&reader, &question)
                .map_err(|e| e.to_string())?
                .ok_or_else(|| "not a question for the store".to_owned())
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?
    }
}
