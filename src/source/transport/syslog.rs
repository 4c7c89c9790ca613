//! Syslog over UDP, TCP and TLS: several listeners, one source.
//!
//! Everything runs in the source's own task: a future for each listener and each connection, all of which put what they
//! read into one `Gather`. Nobody reads on while it is full, so the kernel's buffers, and behind them the senders, are
//! the queue. Syslog has no answer: what a sender gave to its kernel, or ours, and what was not committed yet is lost
//! when power fails; that is at most the socket buffers, one batch, and the messages of one read of each connection.
//!
//! Whatever is not taken is counted: foreign senders, limits, what the kernel dropped. Alerts of senders that have shown
//! no certificate carry a reference that says so.

mod framing;

mod limits;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use ipnet::IpNet;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::bytes::BufMut as _;
use tokio_util::sync::CancellationToken;

use self::framing::{Frame, Framer, MESSAGE_MAX};
use self::limits::Rates;
use super::super::format::{Decoded, Outcome};
use super::super::{Batch, Kept, Reads, RejectReason, Source, SourceError};
use super::Decoding;
use super::gather::{ACCEPT_AGAIN, Gather};
use super::last::{Last, nothing_more};
use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::SourceName;
use crate::model::trouble::TURNED_AWAY;
use crate::model::words::words;
use crate::net::listen::{self, Acceptor, Connection, Datagrams, ListenTls};
use crate::net::places::{Doors, Place};

words! {
    /// How a listener is spoken to.
    pub enum Protocol {
        /// A datagram, a message.
        Udp = "udp",
        /// Counted or by lines.
        Tcp = "tcp",
        /// The same, encrypted.
        Tls = "tls",
    }
}

/// A listener: `udp://0.0.0.0:5514`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// How.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.protocol.as_str(), self.address)
    }
}

/// Where syslog comes in, checked.
#[derive(Clone, Debug)]
pub struct Listeners {
    /// At least one.
    pub listen: Vec<Listen>,
    /// For `tls://`.
    pub tls: Option<ListenTls>,
    /// Networks that may send; empty: all.
    pub allow: Vec<IpNet>,
    /// Messages a second of one sender: a TCP sender is read no faster, datagrams beyond it are dropped.
    pub rate: u32,
}

/// What is asked of the system for datagrams, in bytes: half a second at 20 000 messages a second.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
/// Most datagrams that are read in one turn before others have theirs.
const DATAGRAMS_A_TURN: usize = 256;
/// Most bytes that are read of a connection in one turn.
const READ: usize = 32 * 1024;
/// How often the kernel is asked what it dropped.
const DROPS_EVERY: Duration = Duration::from_secs(2);

/// A source at work.
pub struct Syslog {
    name: SourceName,
    settings: Listeners,
    format: Reads,
    clock: SharedClock,
    heartbeat: Heartbeat,
    gather: Gather,
    doors: Doors,
    rates: Rates,
    kept: Kept,
}

impl Syslog {
    /// A source that is not listening yet.
    pub fn new(
        name: SourceName,
        kind: &'static str,
        settings: Listeners,
        format: Reads,
        clock: SharedClock,
        heartbeat: Heartbeat,
    ) -> Self {
        let gather = Gather::new(name.clone(), kind, settings.listen.len() + 1);
        let rates = Rates::new(settings.rate);
        Self {
            name,
            settings,
            format,
            clock,
            heartbeat,
            gather,
            doors: Doors::new(limits::CONNECTIONS),
            rates,
            kept: Kept::default(),
        }
    }

    /// The same, with sockets that are kept over a reload.
    #[must_use]
    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    async fn listener(&self, at: usize, stop: &CancellationToken) {
        let listen = self.settings.listen[at];
        match self.gather.bound(at, &listen, stop, || self.bind(listen)).await {
            Some(Bound::Datagrams(datagrams, dropped)) => {
                let dropped = self.datagrams(&datagrams, dropped, stop).await;
                self.kept.keep(place(&listen), (datagrams, dropped));
            }
            Some(Bound::Stream(listener, tls)) => self.accept(at, listener, tls, stop).await,
            None => {}
        }
    }

    /// Listens there, where the socket was not kept.
    fn bind(&self, listen: Listen) -> Result<Bound, String> {
        let kept = place(&listen);
        let said = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => "the address is in use by another program".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "permission denied; ports below 1024 need CAP_NET_BIND_SERVICE, take another one".to_owned()
            }
            _ => error.to_string(),
        };
        let bound = match listen.protocol {
            Protocol::Udp => {
                if let Some((datagrams, dropped)) = self.kept.take(&kept) {
                    return Ok(Bound::Datagrams(datagrams, dropped));
                }
                let datagrams = Datagrams::bind(listen.address, RECEIVE_BUFFER).map_err(said)?;
                if datagrams.buffer() < RECEIVE_BUFFER {
                    let (got, wanted) = (datagrams.buffer() / 1024, RECEIVE_BUFFER / 1024);
                    tracing::warn!(
                        source = %self.name,
                        "source {}: the receive buffer of {listen} is {got} KiB; {wanted} KiB lose less in bursts: \
                         sysctl net.core.rmem_max={RECEIVE_BUFFER}",
                        self.name
                    );
                }
                let dropped = datagrams.dropped().unwrap_or(0);
                Bound::Datagrams(datagrams, dropped)
            }
            Protocol::Tcp => Bound::Stream(tcp(&self.kept, &kept, listen.address).map_err(said)?, None),
            Protocol::Tls => {
                let settings = self.settings.tls.as_ref().ok_or("it has no certificate (tls.cert_file)")?;
                let acceptor = Acceptor::new(settings).map_err(|error| error.to_string())?;
                Bound::Stream(tcp(&self.kept, &kept, listen.address).map_err(said)?, Some(acceptor))
            }
        };
        let local = bound.local().unwrap_or(listen.address);
        tracing::info!(
            source = %self.name,
            "source {} listens on {}",
            self.name,
            Listen { address: local, ..listen }
        );
        Ok(bound)
    }

    /// Puts what came of one message into the batch; whether there is room for more.
    fn put(&self, mut decoded: Decoded, record: &[u8], peer: &Peer) -> bool {
        let unauthenticated = match &mut decoded.outcome {
            Outcome::Alert(finding) => {
                finding.alert.references.extend(peer.mark.clone());
                peer.mark.is_some()
            }
            _ => false,
        };
        self.gather.put(|batch| {
            batch.unauthenticated += u64::from(unauthenticated);
            batch.take(decoded, record, false, || peer.name.clone());
        })
    }

    fn refuse(&self, reason: RejectReason, peer: &Peer, why: &str, input: &[u8]) -> bool {
        self.gather.put(|batch| batch.refuse(reason, || format!("{}: {why}", peer.name), input))
    }

    /// Reads datagrams until the order to stop, and then those that are there already. Takes and gives how many of those that
    /// the kernel dropped are counted.
    async fn datagrams(&self, datagrams: &Datagrams, mut known: u64, stop: &CancellationToken) -> u64 {
        let socket = datagrams.socket();
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut last: Option<(Peer, Decoding)> = None;
        let mut drops = tokio::time::interval(DROPS_EVERY);
        loop {
            self.gather.has_room().await;
            tokio::select! {
                () = stop.cancelled() => break,
                _ = drops.tick() => self.count_drops(datagrams, &mut known),
                _ = socket.readable() => {
                    self.read_datagrams(datagrams, &mut buffer, &mut last);
                    tokio::task::yield_now().await;
                }
            }
        }
        // What came before the order is taken; senders that go on sending do not keep us.
        let until = Instant::now() + DROPS_EVERY / 2;
        while Instant::now() < until && self.read_datagrams(datagrams, &mut buffer, &mut last) {
            self.gather.has_room().await;
        }
        self.count_drops(datagrams, &mut known);
        known
    }

    /// Reads what is there, within one turn; whether there may be more.
    fn read_datagrams(
        &self,
        datagrams: &Datagrams,
        buffer: &mut [u8],
        last: &mut Option<(Peer, Decoding)>,
    ) -> bool {
        for _ in 0..DATAGRAMS_A_TURN {
            // An error here tells of an earlier answer of ours, and there is none: it is like nothing to read.
            let Ok((len, from)) = datagrams.socket().try_recv_from(buffer) else { return false };
            if !self.datagram(&buffer[..len], from.ip().to_canonical(), last) {
                break;
            }
        }
        true
    }

    fn datagram(&self, message: &[u8], sender: IpAddr, last: &mut Option<(Peer, Decoding)>) -> bool {
        let (peer, decoding) = match last {
            Some((peer, decoding)) if peer.ip == sender => (&*peer, decoding),
            _ => {
                let peer = Peer::new(sender, Protocol::Udp, false);
                let decoding = Decoding::new(&self.format.0, &peer.name, Some(sender), None);
                let (peer, decoding) = last.insert((peer, decoding));
                (&*peer, decoding)
            }
        };
        if !limits::is_allowed(&self.settings.allow, sender) {
            return self.refuse(RejectReason::Foreign, peer, "its address is not in `allow`", message);
        }
        if !self.rates.admit(sender, Instant::now()) {
            let why = format!("more than {} messages a second", self.settings.rate);
            return self.refuse(RejectReason::OverLimit, peer, &why, message);
        }
        let decoded = decoding.decode(message, self.clock.now());
        self.put(decoded, message, peer)
    }

    fn count_drops(&self, datagrams: &Datagrams, known: &mut u64) {
        let Some(now) = datagrams.dropped() else { return };
        // The kernel's number is of 32 bits on some systems, and goes round.
        let more = now.checked_sub(*known).unwrap_or(now);
        *known = now;
        if more > 0 {
            let why = || "udp: dropped by the kernel, the receive buffer was full".to_owned();
            self.gather.put(|batch| batch.refuse_many(RejectReason::Lost, more, why));
        }
    }

    /// Accepts connections until the order to stop; then every connection ends with what it has.
    async fn accept(
        &self,
        at: usize,
        listener: TcpListener,
        tls: Option<Acceptor>,
        stop: &CancellationToken,
    ) {
        let mut connections = FuturesUnordered::new();
        let mut not_before = Instant::now();
        loop {
            let next = async {
                tokio::time::sleep_until(not_before).await;
                listener.accept().await
            };
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = next => match accepted {
                    Ok((stream, from)) => {
                        self.gather.trouble(at, None);
                        connections.extend(self.connection(stream, from.ip().to_canonical(), tls.clone(), stop));
                    }
                    Err(error) => {
                        let why = format!("{} accepts no connection: {error}", self.settings.listen[at]);
                        self.gather.trouble(at, Some(why));
                        not_before = Instant::now() + ACCEPT_AGAIN;
                    }
                },
            }
        }
        self.kept.keep(place(&self.settings.listen[at]), listener);
        while connections.next().await.is_some() {}
    }

    /// What serves a connection, if its sender may have one.
    fn connection<'a>(
        &'a self,
        stream: TcpStream,
        sender: IpAddr,
        tls: Option<Acceptor>,
        stop: &'a CancellationToken,
    ) -> Option<impl Future<Output = ()> + 'a> {
        let protocol = if tls.is_some() { Protocol::Tls } else { Protocol::Tcp };
        let authenticated = tls.as_ref().is_some_and(Acceptor::authenticates);
        let peer = Peer::new(sender, protocol, authenticated);
        if !limits::is_allowed(&self.settings.allow, sender) {
            self.refuse(RejectReason::Foreign, &peer, "its address is not in `allow`", b"");
            return None;
        }
        listen::keep_alive(&stream);
        // At once, so that who comes first is first to go; behind a handshake it is taken by those who got there.
        let place = match &tls {
            None => self.place(sender, &peer)?,
            Some(_) => self.doors.handshakes.take(sender).ok()?,
        };
        Some(async move {
            let (connection, place) = match tls {
                None => (Connection::Plain(stream), place),
                Some(tls) => {
                    let shaken = tokio::select! {
                        () = stop.cancelled() => return,
                        () = place.told_to_go() => {
                            self.refuse(RejectReason::OverLimit, &peer, &self.doors.handshakes.gone(), b"");
                            return;
                        }
                        shaken = tls.accept(stream) => shaken,
                    };
                    drop(place);
                    match shaken {
                        Ok(connection) => match self.place(sender, &peer) {
                            Some(place) => (connection, place),
                            None => return,
                        },
                        Err(error) => {
                            let why = format!("the TLS handshake failed: {error}");
                            self.refuse(RejectReason::Foreign, &peer, &why, b"");
                            return;
                        }
                    }
                }
            };
            self.serve(connection, &place, &peer, stop).await;
        })
    }

    /// A place among the connections that are read; without one that is counted.
    fn place(&self, sender: IpAddr, peer: &Peer) -> Option<Place> {
        let refused = |why: String| self.refuse(RejectReason::OverLimit, peer, &why, b"");
        self.doors.places.take(sender).map_err(refused).ok()
    }

    /// Says so while connections are turned away.
    async fn tell_of_crowds(&self) {
        let mut crowd = self.doors.crowd();
        loop {
            let now = crowd.next().await.map(|why| format!("{TURNED_AWAY}: {why}"));
            self.gather.trouble(self.settings.listen.len(), now);
        }
    }

    /// Reads a connection to its end, or to the order to stop.
    async fn serve(&self, mut connection: Connection, place: &Place, peer: &Peer, stop: &CancellationToken) {
        let mut decoding = Decoding::new(&self.format.0, &peer.name, Some(peer.ip), None);
        let mut framer = Framer::default();
        let mut last = Last::default();
        place.is_busy();
        let why = loop {
            self.gather.has_room().await;
            if last.is_over(stop) {
                break STOPPED;
            }
            let mut room = framer.room(READ).limit(READ);
            // Silent is who sends nothing while it is read, not who waits for us.
            place.is_silent();
            let read = tokio::select! {
                // What is there goes before the order to stop.
                biased;
                read = connection.read_buf(&mut room) => read,
                () = nothing_more(stop) => break STOPPED,
                () = place.told_to_go() => {
                    self.refuse(RejectReason::OverLimit, peer, &self.doors.places.gone(), b"");
                    break "the connection was closed in the middle of a message, silent, for another one";
                }
            };
            place.is_busy();
            last.read(stop, *read.as_ref().unwrap_or(&0));
            let ended = !matches!(read, Ok(1..));
            let mut messages = 0;
            while let Some(frame) = framer.next() {
                messages += 1;
                if !self.frame(&frame, &mut decoding, peer) {
                    self.gather.has_room().await;
                }
                if matches!(frame, Frame::Lost(_)) {
                    return;
                }
            }
            if ended {
                if let Some(frame) = framer.end() {
                    self.frame(&frame, &mut decoding, peer);
                }
                return;
            }
            let wait = self.rates.charge(peer.ip, messages, Instant::now());
            if !wait.is_zero() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        // Whole messages were given out as they came. What is begun will not be ended here: the sender knows no better
        // than that it was sent.
        match framer.end() {
            Some(
                Frame::Message(rest) | Frame::Unfinished(rest) | Frame::Rest(rest) | Frame::TooLong(rest),
            ) => {
                self.refuse(RejectReason::Lost, peer, why, rest);
            }
            Some(Frame::Lost(_)) | None => {}
        }
    }

    fn frame(&self, frame: &Frame<'_>, decoding: &mut Decoding, peer: &Peer) -> bool {
        match frame {
            Frame::Message(message) => {
                let decoded = decoding.decode(message, self.clock.now());
                self.put(decoded, message, peer)
            }
            Frame::TooLong(start) => {
                let why = format!("longer than {} KiB; it was skipped", MESSAGE_MAX / 1024);
                self.refuse(RejectReason::TooLong, peer, &why, start)
            }
            Frame::Unfinished(start) => {
                let why = "the connection ended in the middle of a counted message";
                self.refuse(RejectReason::Malformed, peer, why, start)
            }
            Frame::Rest(start) => {
                let why = "behind a counted message: its count was too small, and its alert lacks this end; have the \
                           sender count bytes, not letters, or send lines";
                self.refuse(RejectReason::Malformed, peer, why, start)
            }
            Frame::Lost(start) => {
                let why = format!(
                    "a count was wrong, and neither another count nor the end of a line came within {} KiB; the \
                     connection was closed, so that the sender begins anew",
                    MESSAGE_MAX / 1024
                );
                self.refuse(RejectReason::Malformed, peer, &why, start)
            }
        }
    }
}

impl Source for Syslog {
    async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let listeners = (0..self.settings.listen.len()).map(|at| self.listener(at, &stop));
        let mut listening = pin!(join_all(listeners));
        let mut handing = pin!(self.gather.hand_over(&out, &stop, &self.heartbeat));
        tokio::select! {
            ended = &mut handing => return ended,
            _ = &mut listening => self.gather.close(),
            () = self.tell_of_crowds() => {}
        }
        handing.await
    }
}

/// Why the rest of a connection is not read.
const STOPPED: &str = "otrelay stopped in the middle of a message";

/// A listener at work.
enum Bound {
    /// And how many of those that the kernel dropped are counted.
    Datagrams(Datagrams, u64),
    Stream(TcpListener, Option<Acceptor>),
}

/// What a kept socket is called: whether TLS is spoken behind it makes no difference.
pub fn place(listen: &Listen) -> String {
    let kind = if listen.protocol == Protocol::Udp { "udp" } else { "tcp" };
    format!("{kind} {}", listen.address)
}

fn tcp(kept: &Kept, place: &str, address: SocketAddr) -> io::Result<TcpListener> {
    kept.take(place).map_or_else(|| listen::tcp(address), Ok)
}

impl Bound {
    fn local(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Datagrams(datagrams, _) => datagrams.socket().local_addr(),
            Self::Stream(listener, _) => listener.local_addr(),
        }
    }
}

#[derive(Debug)]
struct Peer {
    ip: IpAddr,
    /// For people: `tcp from 10.20.0.5`.
    name: String,
    /// What stands in each alert when nobody has proved who sent it.
    mark: Option<String>,
}

impl Peer {
    fn new(ip: IpAddr, protocol: Protocol, authenticated: bool) -> Self {
        let how = match protocol {
            Protocol::Udp => "UDP",
            Protocol::Tcp => "TCP",
            Protocol::Tls => "TLS without a client certificate",
        };
        let mark = (!authenticated).then(|| format!("unauthenticated sender {ip} ({how})"));
        Self { ip, name: format!("{} from {ip}", protocol.as_str()), mark }
    }
}

#[cfg(test)]
mod tests;
