//! A listener that alerts are pushed to: `POST /alerts` with one alert, an array, or one a line.
//!
//! A request is answered when all that was taken of it is committed and synced, with the findings and with the rejects
//! by line; an answer of `503` says that it was not, and a request that is sent again makes no second finding. Objects of
//! a body go to the intake in batches, each committed before the next is made, so memory does not grow with the body;
//! one body is worked on at a time. What this does not do: know HTTP (`net::serve`), or what an alert is (`format`).

use std::fmt::Write;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::packed::{Unpack, unpack};
use super::{Decoding, send};
use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::trouble::TURNED_AWAY;
use crate::model::{Fingerprint, Secret, SourceName};
use crate::net::listen::{self, Acceptor, ListenTls};
use crate::net::places::{Crowd, Doors};
use crate::net::serve::{Handler, Head, Limits, Reply, serve};
use crate::source::format::Outcome;
use crate::source::format::alert_json::body::{Item, items};
use crate::source::{Acknowledge, Batch, Reads, RejectReason, Source, SourceError};

/// What the listener needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The source's name.
    pub name: SourceName,
    /// Its kind, as in the config.
    pub kind: &'static str,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What a sender has to show; `None`: nothing, on loopback.
    pub token: Option<Secret>,
    /// Its certificate; `None`: plain, on loopback.
    pub tls: Option<ListenTls>,
    /// How an alert is read.
    pub format: Reads,
}

/// Largest body, unpacked, in bytes.
const UNPACKED_MAX: usize = 16 * 1024 * 1024;
/// Most objects of one request.
const OBJECTS_MAX: usize = 50_000;
/// Most rejects that an answer lists; the others are counted.
const LISTED_MAX: usize = 1_000;
/// How long a batch may wait for its commit before the sender is told to come again.
const COMMIT_MAX: Duration = Duration::from_secs(30);
/// How long to wait before an address that could not be had is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The listener, as a [`Source`].
pub struct Push {
    settings: Settings,
    clock: SharedClock,
    heartbeat: Heartbeat,
    limits: Limits,
}

impl Push {
    /// A listener that does not listen yet.
    pub fn new(settings: Settings, clock: SharedClock) -> Self {
        Self { settings, clock, heartbeat: Heartbeat::default(), limits: Limits::default() }
    }

    /// The same, giving these signs of life.
    #[must_use]
    pub fn beating(mut self, heartbeat: Heartbeat) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    /// Says so while connections are turned away; ends only with the intake.
    async fn tell_of_crowds(
        &self,
        mut crowd: Crowd,
        out: &mpsc::Sender<Batch>,
        stop: &CancellationToken,
    ) -> Result<(), SourceError> {
        let Settings { name, kind, .. } = &self.settings;
        loop {
            let trouble = crowd.next().await.map(|why| format!("{TURNED_AWAY}: {why}"));
            let batch = Batch { trouble, ..Batch::new(name.clone(), kind) };
            if !send(out, batch, name, stop).await? {
                // The order to stop: what is being answered ends first.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The socket and the certificate, or what is wrong with them.
    fn open(&self) -> Result<(tokio::net::TcpListener, Option<Acceptor>), String> {
        let tls = self.settings.tls.as_ref().map(Acceptor::new).transpose();
        let tls = tls.map_err(|error| error.to_string())?;
        let address = self.settings.listen;
        let listener = listen::tcp(address);
        Ok((listener.map_err(|error| format!("could not listen on {address}: {error}"))?, tls))
    }
}

impl Source for Push {
    async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let Settings { name, kind, .. } = &self.settings;
        let mut told = None;
        let (listener, tls) = loop {
            let opened = self.open();
            self.heartbeat.idle();
            let trouble = opened.as_ref().err().cloned();
            if told.as_ref() != Some(&trouble) {
                let batch = Batch { trouble: trouble.clone(), ..Batch::new(name.clone(), kind) };
                if !send(&out, batch, name, &stop).await? {
                    return Ok(());
                }
                told = Some(trouble);
            }
            if let Ok(opened) = opened {
                break opened;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(BIND_AGAIN) => {}
            }
        };
        let inbox = Inbox {
            name: name.clone(),
            kind,
            token: self.settings.token.clone(),
            are_certified: self.settings.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()),
            format: self.settings.format.clone(),
            clock: Arc::clone(&self.clock),
            out: out.clone(),
            stop: stop.clone(),
            turn: Semaphore::new(1),
        };
        let doors = Doors::new(self.limits.connections);
        let mut telling = pin!(self.tell_of_crowds(doors.crowd(), &out, &stop));
        tokio::select! {
            () = serve(listener, tls, (self.limits, doors), Arc::new(inbox), stop.clone()) => Ok(()),
            told = &mut telling => told,
        }
    }
}

struct Inbox {
    name: SourceName,
    kind: &'static str,
    token: Option<Secret>,
    /// Whether senders show certificates.
    are_certified: bool,
    format: Reads,
    clock: SharedClock,
    out: mpsc::Sender<Batch>,
    stop: CancellationToken,
    /// One body at a time.
    turn: Semaphore,
}

impl Handler for Inbox {
    fn judge(&self, head: &Head) -> Option<Reply> {
        if head.path != "/alerts" {
            return Some(refusal(404, "there is only /alerts"));
        }
        if head.method != "POST" {
            let mut reply = refusal(405, "alerts are pushed with POST");
            reply.headers.push(("allow", "POST".to_owned()));
            return Some(reply);
        }
        match &self.token {
            Some(token) => (!shows(head, token)).then(|| {
                let mut reply =
                    refusal(401, "the header `Authorization: Bearer TOKEN` with the right token is missing");
                reply.headers.push(("www-authenticate", "Bearer".to_owned()));
                reply
            }),
            None if self.are_certified => None,
            None => from_a_browser(head),
        }
    }

    fn refuse(&self, status: u16) -> Reply {
        refusal(
            status,
            match status {
                413 => "the body is too large: at most 1 MiB as sent; send several",
                408 => "the body did not come in time",
                _ => "too many bodies at once; come again",
            },
        )
    }

    async fn answer(&self, head: Head, body: Vec<u8>) -> Reply {
        let Ok(_turn) = self.turn.acquire().await else { return self.not_committed() };
        let encoding = head.header("content-encoding").unwrap_or_default().to_owned();
        let encoding =
            if head.has("content-encoding") && encoding.is_empty() { "?".to_owned() } else { encoding };
        // Unpacking megabytes takes a while; other requests go on meanwhile.
        let unpacked = tokio::task::spawn_blocking(move || unpack(body, &encoding, UNPACKED_MAX)).await;
        match unpacked {
            Ok(Ok(body)) => self.take(&head, &body).await,
            Ok(Err(error)) => self.unpackable(&head, &error).await,
            Err(_) => refusal(500, "the body could not be unpacked: an error in otrelay, please report it"),
        }
    }
}

#[derive(Default)]
struct Told {
    ids: Vec<Fingerprint>,
    rejected: Vec<serde_json::Value>,
    not_listed: u64,
}

impl Told {
    fn reject(&mut self, line: usize, error: &str) {
        if self.rejected.len() < LISTED_MAX {
            self.rejected.push(json!({ "line": line, "error": error }));
        } else {
            self.not_listed += 1;
        }
    }

    /// Written piece by piece: tens of thousands of ids are not kept three times.
    fn reply(self) -> Reply {
        let mut body = format!("{{\"accepted\":{},\"ids\":[", self.ids.len());
        body.reserve(self.ids.len() * 67);
        for (at, id) in self.ids.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(body, "{comma}\"{id}\"");
        }
        let _ = write!(body, "],\"rejected\":{}", serde_json::Value::from(self.rejected));
        if self.not_listed > 0 {
            let _ = write!(body, ",\"rejected_beside\":{}", self.not_listed);
        }
        body.push('}');
        in_json(if self.ids.is_empty() { 400 } else { 200 }, body)
    }
}

impl Inbox {
    /// Takes the objects of a body, a batch at a time.
    async fn take(&self, head: &Head, body: &[u8]) -> Reply {
        let count = items(body).take(OBJECTS_MAX + 1).count();
        if count > OBJECTS_MAX {
            return refusal(413, &format!("more than {OBJECTS_MAX} objects; send several"));
        }
        if count == 0 {
            return refusal(400, "there is no alert in the body");
        }
        let peer = head.peer.ip();
        let mut decoding = Decoding::new(&self.format.0, &peer.to_string(), Some(peer), None);
        let mut told = Told::default();
        let mut batch = Batch::new(self.name.clone(), self.kind);
        for item in items(body) {
            self.object(&mut decoding, item, head, &mut batch, &mut told);
            if batch.is_full() {
                let full = std::mem::replace(&mut batch, Batch::new(self.name.clone(), self.kind));
                if !self.commit(full, &mut told).await {
                    return self.not_committed();
                }
            }
        }
        if batch.lines() > 0 && !self.commit(batch, &mut told).await {
            return self.not_committed();
        }
        told.reply()
    }

    fn object(
        &self,
        decoding: &mut Decoding,
        item: Item<'_>,
        head: &Head,
        batch: &mut Batch,
        told: &mut Told,
    ) {
        decoding.each(item.bytes, self.clock.now(), |decoded, bytes| {
            match &decoded.outcome {
                Outcome::Reject(_, detail) => told.reject(item.line, detail),
                Outcome::Ignored(kind) => told.reject(item.line, &format!("a record of {kind} and no alert")),
                Outcome::Alert(_) | Outcome::Blank => {}
            }
            batch.take(decoded, bytes, false, || format!("from {}, line {}", head.peer.ip(), item.line));
        });
    }

    /// Waits until a batch is committed; whether it was.
    async fn commit(&self, mut batch: Batch, told: &mut Told) -> bool {
        let (acknowledge, committed) = Acknowledge::pair();
        batch.acknowledge = Some(acknowledge);
        let commit = async {
            if !matches!(send(&self.out, batch, &self.name, &self.stop).await, Ok(true)) {
                return None;
            }
            committed.await.ok()
        };
        match tokio::time::timeout(COMMIT_MAX, commit).await {
            Ok(Some(taken)) => {
                told.ids.extend(taken.alerts);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Bytes that could not be unpacked are a reject like any other.
    async fn unpackable(&self, head: &Head, error: &Unpack) -> Reply {
        let (status, reason) = match error {
            Unpack::TooLarge(_) => (413, RejectReason::TooLong),
            Unpack::Damaged(_) => (400, RejectReason::Malformed),
            Unpack::Unknown => {
                let mut reply = refusal(415, &error.to_string());
                reply.headers.push(("accept-encoding", "gzip, zstd".to_owned()));
                return reply;
            }
        };
        let mut batch = Batch::new(self.name.clone(), self.kind);
        batch.refuse(reason, || format!("from {}: the body: {error}", head.peer.ip()), &[]);
        // The sender is told in any case; only the count is lost with the intake.
        let _ = self.commit(batch, &mut Told::default()).await;
        refusal(status, &format!("the body: {error}"))
    }

    fn not_committed(&self) -> Reply {
        let words = if self.stop.is_cancelled() {
            "otrelay is stopping"
        } else {
            "nothing can be stored at the moment"
        };
        let mut reply = refusal(503, &format!("{words}: not all of it is committed; send it again"));
        reply.headers.push(("retry-after", "30".to_owned()));
        reply
    }
}

/// Whether the sender shows the token. How long the comparison takes says nothing about it.
fn shows(head: &Head, token: &Secret) -> bool {
    let Some((scheme, shown)) = head.header("authorization").and_then(|text| text.split_once(' ')) else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer")
        && bool::from(shown.trim().as_bytes().ct_eq(token.expose().as_bytes()))
}

/// Without a token a page in a browser on this machine must not be able to push: by a name of its own that leads here,
/// or across sites.
fn from_a_browser(head: &Head) -> Option<Reply> {
    let host = head.header("host").unwrap_or_default();
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let ours = name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !ours {
        return Some(refusal(421, "this listener without a token is known as localhost only"));
    }
    let foreign = head.has("origin") || head.header("sec-fetch-site").is_some_and(|site| site != "none");
    foreign.then(|| refusal(403, "a listener without a token takes nothing from a browser"))
}

fn refusal(status: u16, error: &str) -> Reply {
    in_json(status, json!({ "accepted": 0, "ids": [], "rejected": [], "error": error }).to_string())
}

fn in_json(status: u16, body: String) -> Reply {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    Reply { status, headers, body: body.into_bytes() }
}

#[cfg(test)]
mod tests;
