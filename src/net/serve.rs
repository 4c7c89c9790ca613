//! HTTP/1.1 for listeners, with every bound that a hostile sender needs: connections in all and from one address, time
//! and size of a request's head, time and size of its body, and one budget for the bodies that are in memory.
//!
//! Rooms implement [`Handler`]; they never see the HTTP library. A request is judged by its head before a byte of its
//! body is kept. Connections are tasks of the loop's own `JoinSet` and end with it. What this does not do: authenticate,
//! unpack, answer for the room.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::listen::Acceptor;
use super::places::{Bounds, Doors, Place, Places};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of connections.
    pub connections: Bounds,
    /// Longest time for a request's head, and between two requests.
    pub head: Duration,
    /// Longest time for a body.
    pub body: Duration,
    /// Largest body, in bytes.
    pub body_max: usize,
    /// Most bytes of all bodies that are in memory; at least `body_max`.
    pub bodies_max: usize,
}

/// Connections of a listener for HTTP. Who sends no request costs nothing when it is closed: it asks again.
pub(super) const CONNECTIONS: Bounds = Bounds { most: 64, of_one: 8, silent_min: Duration::from_secs(2) };

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            head: Duration::from_secs(5),
            body: Duration::from_secs(15),
            body_max: 1024 * 1024,
            bodies_max: 4 * 1024 * 1024,
        }
    }
}

/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// Most of a body that is read only to be refused: a connection that is closed on unread bytes is reset, and the sender
/// would never see the answer.
const DRAIN_MAX: usize = 8 * 1024 * 1024;
/// How long connections may go on after the order to stop.
const GRACE: Duration = Duration::from_secs(5);
/// When somebody who was refused for want of room may come again, in seconds.
const COME_AGAIN_S: u32 = 5;

/// What a request says before its body.
#[derive(Debug)]
pub struct Head {
    /// `POST`.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Who sends it.
    pub peer: SocketAddr,
    headers: HeaderMap,
}

impl Head {
    /// A header as text; `None` where it is absent, or there more than once, or no text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.get_all(name).iter();
        let first = all.next()?;
        if all.next().is_some() {
            return None;
        }
        first.to_str().ok()
    }

    /// Whether a header is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside length and date.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a room does with requests.
pub trait Handler: Send + Sync + 'static {
    /// Judges a request by its head; an answer here refuses it, and its body is not kept.
    fn judge(&self, head: &Head) -> Option<Reply>;

    /// The answer to a request that could not be taken for its size, its time or want of room: `413`, `408` or `429`.
    fn refuse(&self, status: u16) -> Reply;

    /// Answers a request.
    fn answer(&self, head: Head, body: Vec<u8>) -> impl Future<Output = Reply> + Send;
}

/// Serves until `stop`; then requests that are being answered have a moment to end. `doors` are made of the bounds in
/// `limits`; who has them hears of crowds.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Option<Acceptor>,
    (limits, doors): (Limits, Doors),
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let shared = Arc::new(Shared {
        tls,
        limits,
        handler,
        stop: stop.clone(),
        bodies: Semaphore::new(limits.bodies_max.div_ceil(KIB)),
        doors,
    });
    let of = if shared.tls.is_none() { &shared.doors.places } else { &shared.doors.handshakes };
    let begin = |stream, peer, place| Arc::clone(&shared).connection(stream, peer, place);
    accept(listener, of, begin, GRACE, &stop).await;
}

/// Serves each connection that gets a place until `stop`; then those that are served have a moment to end.
pub(super) async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    places: &Places,
    begin: impl Fn(TcpStream, SocketAddr, Place) -> F,
    grace: Duration,
    stop: &CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Ok(place) => drop(connections.spawn(boxed(begin(stream, peer, place)))),
                    Err(_) => turn_away(&stream),
                },
                Err(error) if is_of_the_peer(error.kind()) => {}
                // Out of file descriptors, most likely: give connections time to end.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Who is not done by then is cut: what was not acknowledged will be sent again, and what is read is not lost by it.
    let _ = timeout(grace, ended).await;
    connections.shutdown().await;
}

/// So that the runtime's part of a connection is in the program once and not for each listener.
fn boxed(served: impl Future<Output = ()> + Send + 'static) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(served)
}

fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}

/// No place for a connection: says so.
pub(super) fn turn_away(stream: &TcpStream) {
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: {COME_AGAIN_S}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    // A new connection has room for it; if not, closing says the same.
    let _ = stream.try_write(answer.as_bytes());
}

/// The unit of the budget for bodies.
const KIB: usize = 1024;

struct Shared<H> {
    tls: Option<Acceptor>,
    limits: Limits,
    handler: Arc<H>,
    stop: CancellationToken,
    bodies: Semaphore,
    doors: Doors,
}

impl<H: Handler> Shared<H> {
    async fn connection(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are one write each; without this the second of two waits for the peer's delayed ack.
        stream.set_nodelay(true).ok();
        let Some(tls) = &self.tls else { return self.http(stream, peer, &place).await };
        let shaken = tokio::select! {
            () = place.told_to_go() => return,
            shaken = tls.accept(stream) => shaken,
        };
        drop(place);
        // Without a place it is closed: who gets so far knows that it has to come again.
        if let Ok(stream) = shaken
            && let Ok(place) = self.doors.places.take(peer.ip())
        {
            self.http(stream, peer, &place).await;
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, place: &Place)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| async move { self.request(request, peer, place).await });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        // A broken connection is the sender's business.
        tokio::select! {
            served = serving.as_mut() => drop(served),
            () = place.told_to_go() => {}
            () = self.stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                drop(serving.await);
            }
        }
    }

    async fn request(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        place: &Place,
    ) -> Result<Response<Full<Bytes>>, NoAnswer> {
        let (parts, mut body) = request.into_parts();
        let head = Head {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            peer,
            headers: parts.headers,
        };
        if let Some(reply) = self.handler.judge(&head) {
            return Ok(self.refused(reply, &mut body).await);
        }
        // From here on it is somebody who may send: it is not closed for another one.
        place.is_busy();
        let reply = self.body(head, &mut body).await;
        place.is_silent();
        reply
    }

    /// The answer to a request whose head is in order.
    async fn body(&self, head: Head, body: &mut Incoming) -> Result<Response<Full<Bytes>>, NoAnswer> {
        let announced = body.size_hint().upper().map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let max = self.limits.body_max;
        if announced.is_some_and(|size| size > max) {
            return Ok(self.refused(self.handler.refuse(413), body).await);
        }
        let room = announced.unwrap_or(max).div_ceil(KIB) as u32;
        let Ok(_room) = self.bodies.try_acquire_many(room) else {
            let mut reply = self.handler.refuse(429);
            reply.headers.push(("retry-after", COME_AGAIN_S.to_string()));
            return Ok(self.refused(reply, body).await);
        };
        match self.read(body, announced.unwrap_or(0)).await {
            Ok(bytes) => Ok(response(self.handler.answer(head, bytes).await, false)),
            Err(Unread::TooLarge) => Ok(self.refused(self.handler.refuse(413), body).await),
            Err(Unread::TooSlow) => Ok(response(self.handler.refuse(408), true)),
            Err(Unread::Broken) => Err(NoAnswer),
        }
    }

    /// The whole body.
    async fn read(&self, body: &mut Incoming, announced: usize) -> Result<Vec<u8>, Unread> {
        let until = Instant::now() + self.limits.body;
        let mut bytes = Vec::with_capacity(announced);
        loop {
            let frame = timeout_at(until, body.frame()).await.map_err(|_| Unread::TooSlow)?;
            let Some(frame) = frame else { return Ok(bytes) };
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if bytes.len() + data.len() > self.limits.body_max {
                return Err(Unread::TooLarge);
            }
            bytes.extend_from_slice(&data);
        }
    }

    /// Reads on, up to a bound, without keeping; then gives the answer and closes.
    async fn refused(&self, reply: Reply, body: &mut Incoming) -> Response<Full<Bytes>> {
        let announced = body.size_hint().upper();
        let drain = async {
            let mut length = 0;
            while length <= DRAIN_MAX {
                let Some(Ok(frame)) = body.frame().await else { break };
                length += frame.into_data().map_or(0, |data| data.len());
            }
        };
        if announced.is_none_or(|size| size <= DRAIN_MAX as u64) {
            // What is not read in time is not read.
            let _ = timeout(self.limits.body, drain).await;
        }
        response(reply, true)
    }
}

/// Why there is no body.
enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

/// The connection is gone; nobody would read an answer.
#[derive(Debug, thiserror::Error)]
#[error("the sender is gone")]
struct NoAnswer;

fn response(reply: Reply, close: bool) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(reply.status).header("cache-control", "no-store");
    for (name, value) in reply.headers {
        builder = builder.header(name, value);
    }
    if close {
        builder = builder.header("connection", "close");
    }
    builder.body(Full::new(Bytes::from(reply.body))).unwrap_or_else(|_| {
        // A header with a character it may not have.
        let mut plain = Response::new(Full::new(Bytes::new()));
        *plain.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        plain
    })
}

#[cfg(test)]
mod tests;
