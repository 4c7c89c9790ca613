//! The listener: connections in, calls to the instance, answers out, and the faults that break them.
//!
//! Every connection is a task of the accept loop's own `JoinSet`; nothing is detached. A call is carried out under
//! one lock and never waits inside it. Bounds: connections, size of a body, time for a request's head.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::call::{Answer, Call, Made};
use super::cut::{Cuttable, Scissors};
use super::fault::{Faults, Kind, Verdict};
use super::instance::Instance;
use super::ledger::{Entry, Ledger, redact};
use super::limit::{Limiter, denied, no_worker};
use super::{Options, admin};
use crate::model::Timestamp;

/// Most connections at a time; others wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// How long a connection may be silent, between requests too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(90);

/// `glide.rest.max_content_length`.
const MAX_BODY: usize = 10 << 20;

/// Most of a body that is read only to be refused.
const MAX_DRAIN: usize = 64 << 20;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything that a call may look at or change.
pub(super) struct State {
    pub(super) instance: Instance,
    pub(super) faults: Faults,
    pub(super) ledger: Ledger,
    limiter: Limiter,
    in_flight: usize,
}

impl State {
    /// An instance at that address, as delivered.
    pub(super) fn new(options: Options, base: String) -> Self {
        Self {
            faults: Faults::new(options.faults.clone(), options.seed),
            instance: Instance::new(options, base),
            ledger: Ledger::default(),
            limiter: Limiter::default(),
            in_flight: 0,
        }
    }

    /// Forgets records, tokens and the ledger; faults stay.
    pub(super) fn reset(&mut self) {
        let (options, base) = (self.instance.options.clone(), self.instance.base.clone());
        self.instance = Instance::new(options, base);
        self.ledger = Ledger::default();
        self.limiter = Limiter::default();
    }
}

/// The state, shared by connections and tests. A std lock: nobody awaits under it.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<State>>);

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    /// Takes the lock; a panic of another holder does not matter here.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections until it is told to stop; then every connection ends.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Shared,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            place = Arc::clone(&places).acquire_owned(), if places.available_permits() > 0 => {
                let Ok(place) = place else { break };
                let accepted = tokio::select! {
                    () = stop.cancelled() => break,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, peer)) = accepted else {
                    // Out of file descriptors, most likely: give connections time to end.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (tls, shared) = (tls.clone(), shared.clone());
                connections.spawn(async move {
                    connection(stream, peer, tls, shared).await;
                    drop(place);
                });
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, shared: Shared) {
    // Answers are small and one write each; without this the second of two waits for the peer's delayed ack.
    stream.set_nodelay(true).ok();
    match tls {
        None => http(stream, peer, false, shared).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                let certified = stream.get_ref().1.peer_certificates().is_some();
                http(stream, peer, certified, shared).await;
            }
        }
    }
}

async fn http<S>(stream: S, peer: SocketAddr, certified: bool, shared: Shared)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let scissors = Scissors::new();
    let io = TokioIo::new(Cuttable::new(stream, scissors.clone()));
    let service = service_fn(|request| {
        let (shared, scissors) = (shared.clone(), scissors.clone());
        async move { respond(request, peer, certified, &shared, &scissors).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(io, service)
        .await;
    // A broken connection is the client's business, or a fault's.
    drop(served);
}

/// The connection ends here, without (the rest of) an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut by a fault")]
struct Cut;

async fn respond(
    request: Request<Incoming>,
    peer: SocketAddr,
    certified: bool,
    shared: &Shared,
    scissors: &Scissors,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |t| t.as_str()).to_owned();
    let body = read(body).await?;
    let call = Call::new(head.method, &target, head.headers, body.clone().unwrap_or_default());
    let call = Call { certified, ..call };
    if call.path == "/simulator" || call.path.starts_with("/simulator/") {
        let answer = admin::answer(&mut shared.lock(), &call, peer.ip().is_loopback());
        return Ok(response(answer, false));
    }
    if let Err(length) = body {
        let detail = format!(
            "Rejected large REST payload with content-length = {length} bytes. Max allowed: {MAX_BODY} bytes."
        );
        let answer = Answer::error(400, "Exception while reading request", Some(&detail));
        let query = target.split_once('?').map_or("", |t| t.1);
        let mut state = shared.lock();
        let entry = entry(&call, query, state.instance.clock.now());
        state.ledger.write(Entry { status: Some(400), ..entry }, &[]);
        return Ok(response(answer, true));
    }
    let _flight = Flight::start(shared);
    let outcome = carry_out(&call, &target, shared);
    if !outcome.delay.is_zero() {
        tokio::time::sleep(outcome.delay).await;
    }
    match outcome.answer {
        None => Err(Cut),
        Some(answer) => {
            if let Some(bytes) = outcome.cut_after {
                scissors.cut_after(bytes);
            }
            Ok(response(answer, false))
        }
    }
}

/// The whole body, or how long it is when it is too long. That much is read all the same: a connection that is closed
/// on unread bytes is reset, and the client would never see the answer.
async fn read(mut body: Incoming) -> Result<Result<Bytes, usize>, Cut> {
    let (mut all, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Cut)?.into_data() else { continue };
        length += data.len();
        if length > MAX_DRAIN {
            return Err(Cut);
        }
        if length <= MAX_BODY {
            all.extend_from_slice(&data);
        }
    }
    Ok(if length > MAX_BODY { Err(length) } else { Ok(all.into()) })
}

/// One request that is being worked on; counts for the semaphore.
struct Flight<'a>(&'a Shared);

impl<'a> Flight<'a> {
    fn start(shared: &'a Shared) -> Self {
        shared.lock().in_flight += 1;
        Self(shared)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.lock().in_flight -= 1;
    }
}

/// What goes back, when, and how much of it.
struct Outcome {
    answer: Option<Answer>,
    delay: Duration,
    cut_after: Option<u64>,
}

/// Judges, works and writes it down, all under one lock.
fn carry_out(call: &Call, target: &str, shared: &Shared) -> Outcome {
    let mut guard = shared.lock();
    let state = &mut *guard;
    let now = state.instance.clock.now();
    let verdict = state.faults.judge(call.method.as_str(), &call.path, &call.body);
    if verdict.revoke {
        state.instance.tokens.revoke_access();
    }
    let (answer, made, cut_after) = treat(state, call, &verdict, now);
    let whole = answer.is_some() && cut_after.is_none();
    let entry = Entry {
        status: answer.as_ref().filter(|_| whole).map(|a| a.status),
        fault: verdict.end.as_ref().map(ToString::to_string),
        ..entry(call, target.split_once('?').map_or("", |t| t.1), now)
    };
    state.ledger.write(entry, &made);
    let id = state.instance.rng.u64(..);
    let answer = answer.map(|a| a.with("x-transaction-id", format!("{:012x}", id >> 16)));
    Outcome { answer, delay: verdict.delay, cut_after }
}

fn entry(call: &Call, query: &str, at: Timestamp) -> Entry {
    Entry {
        at,
        method: call.method.to_string(),
        path: crate::model::text::clip(&call.path, 500).into_owned(),
        query: redact(query),
        status: None,
        fault: None,
        created: Vec::new(),
        cookie: call.headers.contains_key("cookie"),
    }
}

/// The answer (none: cut), the records that were made, and where the answer is cut.
fn treat(
    state: &mut State,
    call: &Call,
    verdict: &Verdict,
    now: Timestamp,
) -> (Option<Answer>, Vec<Made>, Option<u64>) {
    if state.instance.options.semaphore.is_some_and(|most| state.in_flight > most) {
        return (Some(no_worker()), Vec::new(), None);
    }
    if let Some(answer) = verdict.end.as_ref().and_then(instead) {
        return (answer.ok(), Vec::new(), None);
    }
    let rule = state.instance.options.rate_limit.filter(|_| call.path.starts_with("/api/"));
    let count = rule.map(|rule| state.limiter.count(rule, now));
    let mut answer = match count {
        Some(count) if count.exceeded => return (Some(count.refusal()), Vec::new(), None),
        Some(count) => count.head(state.instance.answer(call, &verdict.tweaks)),
        None => state.instance.answer(call, &verdict.tweaks),
    };
    let made = std::mem::take(&mut answer.made);
    match &verdict.end {
        Some(Kind::CommitDrop) => (None, made, None),
        Some(Kind::CommitCut(bytes)) => (Some(answer), made, Some(*bytes)),
        Some(Kind::Commit500) => (Some(Answer::cancelled()), made, None),
        Some(Kind::CommitAccepted) => (Some(Answer::empty(202)), made, None),
        Some(Kind::TruncatedJson) => (Some(truncated(answer)), made, None),
        _ => (Some(answer), made, None),
    }
}

/// For faults that keep a request from being carried out: the answer instead, or that there is none.
fn instead(kind: &Kind) -> Option<Result<Answer, Cut>> {
    Some(match kind {
        Kind::DropBefore => Err(Cut),
        Kind::Accepted => Ok(Answer::empty(202)),
        Kind::Hibernate => Ok(Answer::html(200, HIBERNATING)),
        Kind::HtmlLogin => Ok(Answer::html(200, LOGIN)),
        Kind::RateLimit(wait) => Ok(denied(100, *wait)),
        Kind::Semaphore => Ok(no_worker()),
        Kind::Replay => Ok(replayed()),
        Kind::Unscoped => {
            Ok(Answer::error(403, "User Not Authorized", Some("Access to unscoped api is not allowed")))
        }
        Kind::Waf(_) => Ok(Answer::html(403, BLOCKED)),
        Kind::Status(code) => Ok(status(*code)),
        _ => return None,
    })
}

/// The record of another client's create.
fn replayed() -> Answer {
    let record = serde_json::json!({
        "sys_id": "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a", "number": "INC0000001", "state": "1", "active": "true",
        "correlation_id": "", "short_description": "Printer on fire",
    });
    Answer::result(201, &record)
}

fn status(code: u16) -> Answer {
    match code {
        204 | 304 => Answer::empty(code),
        401 => Answer::unauthenticated(),
        403 => Answer::refused("ACL Exception Insert Failed due to security constraints"),
        404 => Answer::no_record(),
        429 => no_worker(),
        500 => Answer::cancelled(),
        502..=504 => Answer::html(code, "<html><head><title>Service unavailable</title></head></html>"),
        _ => Answer::error(code, "Simulated", Some("a fault asked for this status")),
    }
}

const HIBERNATING: &str = "<!DOCTYPE html><html><head><title>Instance Hibernating page</title></head>\
    <body class=\"instance-hibernating-page\"><h1>Hibernating Instance</h1><p>Your instance is hibernating.</p>\
    </body></html>";

const BLOCKED: &str = "<!DOCTYPE html><html><head><title>Request rejected</title></head><body>The requested URL was \
    rejected. Your support ID is: 4711</body></html>";

const LOGIN: &str = "<!DOCTYPE html><html><head><title>ServiceNow</title></head><body><form id=\"login\" \
    action=\"login.do\" method=\"post\"><input name=\"user_name\"><input name=\"user_password\" type=\"password\">\
    </form></body></html>";

/// An answer that was being streamed when the time ran out: half of it, then an error object.
fn truncated(mut answer: Answer) -> Answer {
    let half = answer.body.len() / 2;
    answer.body.truncate(half);
    answer.body.extend_from_slice(
        b",\"error\":{\"message\":\"Transaction cancelled: maximum execution time exceeded\",\
          \"detail\":\"maximum execution time exceeded Check logs for error trace.\"},\"status\":\"failure\"}",
    );
    answer
}

fn response(answer: Answer, close: bool) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        builder = builder.header(name, value);
    }
    if close {
        builder = builder.header("connection", "close");
    }
    let body = Full::new(Bytes::from(answer.body));
    builder.body(body).unwrap_or_else(|_| {
        // A header with a character it may not have: a field's text got into it.
        let mut plain = Response::new(Full::new(Bytes::new()));
        *plain.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        plain
    })
}
