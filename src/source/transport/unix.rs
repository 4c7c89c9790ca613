//! A socket in the file system that a sensor of this machine writes to, a record a line or a datagram: Suricata's
//! `unix_stream` and `unix_dgram`.
//!
//! The sensor connects and gets no answer; while nobody listens, or when its buffer is full, it drops records and does not
//! say how many. So a file is the better way where there is one. What was given to the kernel is read also after the order
//! to stop; a kill loses the socket's buffer and one batch. Nobody reads on while the batch is full, so the kernel's
//! buffers are the queue.
//!
//! The socket is group-writable: who may send is who may reach it. A stale one that this user left is taken away; anything
//! else in its place is not touched.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixDatagram, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::bytes::BufMut as _;
use tokio_util::sync::CancellationToken;

use super::super::{Batch, Kept, Reads, RejectReason, Source, SourceError};
use super::Decoding;
use super::gather::{ACCEPT_AGAIN, Gather};
use super::last::{Last, nothing_more};
use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::SourceName;
use crate::model::words::words;

words! {
    /// How the sensor writes.
    pub enum Way {
        /// Lines over a connection.
        Stream = "unix_stream",
        /// A record each datagram.
        Datagram = "unix_dgram",
    }
}

/// A socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// How.
    pub way: Way,
    /// Where; absolute.
    pub path: PathBuf,
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.way.as_str(), self.path.display())
    }
}

/// Longest record that is kept whole, in bytes, as for files; of a longer one the beginning is read.
const RECORD_MAX: usize = 1024 * 1024;
/// Most bytes that are read of a connection in one turn.
const READ: usize = 64 * 1024;
/// Most connections; Suricata has one, or one for each of its threads.
const CONNECTIONS_MAX: usize = 32;
/// How long what is there already is read after the order to stop.
const LAST: Duration = Duration::from_secs(1);

/// A source at work.
pub struct Unix {
    name: SourceName,
    listen: Listen,
    format: Reads,
    clock: SharedClock,
    heartbeat: Heartbeat,
    gather: Gather,
    kept: Kept,
}

impl Unix {
    /// A source that is not listening yet.
    pub fn new(
        name: SourceName,
        kind: &'static str,
        listen: Listen,
        format: Reads,
        clock: SharedClock,
        heartbeat: Heartbeat,
    ) -> Self {
        let gather = Gather::new(name.clone(), kind, 1);
        Self { name, listen, format, clock, heartbeat, gather, kept: Kept::default() }
    }

    /// The same, with a socket that is kept over a reload.
    #[must_use]
    pub fn keeping(mut self, kept: Kept) -> Self {
        self.kept = kept;
        self
    }

    /// From its binding to the order to stop.
    async fn listen(&self, stop: &CancellationToken) {
        let place = place(&self.listen);
        let kept = || self.kept.take(&place).filter(Bound::is_there);
        let bind = || kept().map_or_else(|| bind(&self.listen), Ok);
        let Some(bound) = self.gather.bound(0, &self.listen, stop, bind).await else {
            return;
        };
        tracing::info!(source = %self.name, "source {} listens on {}", self.name, self.listen);
        match &bound.socket {
            Socket::Stream(listener) => self.accept(listener, stop).await,
            Socket::Datagram(socket) => self.datagrams(socket, stop).await,
        }
        self.kept.keep(place, bound);
    }

    async fn accept(&self, listener: &UnixListener, stop: &CancellationToken) {
        let mut connections = FuturesUnordered::new();
        let mut not_before = Instant::now();
        let mut last = Last::default();
        while !last.is_over(stop) {
            let room = connections.len() < CONNECTIONS_MAX;
            let next = async {
                tokio::time::sleep_until(not_before).await;
                listener.accept().await
            };
            tokio::select! {
                // Who has connected already goes before the order to stop.
                biased;
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = next, if room => match accepted {
                    Ok((stream, _)) => {
                        self.gather.trouble(0, None);
                        connections.push(self.serve(stream, stop));
                    }
                    Err(error) => {
                        self.gather.trouble(0, Some(format!("{} accepts no connection: {error}", self.listen)));
                        not_before = Instant::now() + ACCEPT_AGAIN;
                    }
                },
                () = nothing_more(stop) => break,
            }
        }
        while connections.next().await.is_some() {}
    }

    /// Reads a connection to its end; after the order to stop only what is there.
    async fn serve(&self, mut stream: UnixStream, stop: &CancellationToken) {
        let mut decoding = Decoding::new(&self.format.0, &self.listen.to_string(), None, None);
        let mut lines = Lines::default();
        let mut last = Last::default();
        while !last.is_over(stop) {
            self.gather.has_room().await;
            let mut room = lines.room().limit(READ);
            let read = tokio::select! {
                // What is there goes before the order to stop.
                biased;
                read = stream.read_buf(&mut room) => read,
                () = nothing_more(stop) => break,
            };
            last.read(stop, *read.as_ref().unwrap_or(&0));
            let ended = !matches!(read, Ok(1..));
            while let Some(line) = lines.next() {
                if !self.put(line, &mut decoding) {
                    self.gather.has_room().await;
                }
            }
            if ended {
                break;
            }
        }
        if let Some(rest) = lines.rest() {
            let why = || format!("{}: the connection ended in the middle of a record", self.listen);
            self.gather.put(|batch| batch.refuse(RejectReason::Lost, why, rest));
        }
    }

    async fn datagrams(&self, socket: &UnixDatagram, stop: &CancellationToken) {
        let mut decoding = Decoding::new(&self.format.0, &self.listen.to_string(), None, None);
        let mut buffer = Vec::new();
        loop {
            self.gather.has_room().await;
            tokio::select! {
                () = stop.cancelled() => break,
                readable = socket.readable() => {
                    self.read_datagrams(socket, &mut buffer, &mut decoding);
                    if readable.is_err() {
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
        let until = Instant::now() + LAST;
        while Instant::now() < until && self.read_datagrams(socket, &mut buffer, &mut decoding) {
            self.gather.has_room().await;
        }
    }

    /// Reads what is there while there is room for it; whether there was anything.
    fn read_datagrams(&self, socket: &UnixDatagram, buffer: &mut Vec<u8>, decoding: &mut Decoding) -> bool {
        buffer.resize(RECORD_MAX, 0);
        let mut any = false;
        while let Ok(len) = socket.try_recv(buffer) {
            any = true;
            let record = buffer[..len].strip_suffix(b"\n").unwrap_or(&buffer[..len]);
            let line = if len == RECORD_MAX { Line::Start(record) } else { Line::Whole(record) };
            if !self.put(line, decoding) {
                break;
            }
        }
        any
    }

    /// Puts what came of a record into the batch; whether there is room for more.
    fn put(&self, line: Line<'_>, decoding: &mut Decoding) -> bool {
        let now = self.clock.now();
        let (decoded, record) = match line {
            Line::Whole(record) => (decoding.decode(record, now), record),
            Line::Start(record) => (decoding.decode_start(record, now), record),
        };
        self.gather.put(|batch| batch.take(decoded, record, false, || self.listen.to_string()))
    }
}

impl Source for Unix {
    async fn run(self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let mut listening = pin!(self.listen(&stop));
        let mut handing = pin!(self.gather.hand_over(&out, &stop, &self.heartbeat));
        tokio::select! {
            ended = &mut handing => return ended,
            () = &mut listening => self.gather.close(),
        }
        handing.await
    }
}

/// A socket at work, and its name.
struct Bound {
    socket: Socket,
    path: PathBuf,
}

enum Socket {
    Stream(UnixListener),
    Datagram(UnixDatagram),
}

impl Bound {
    /// Whether its name was not taken away.
    fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|there| there.file_type().is_socket())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Whoever connects from now on is told that nobody is here.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What a kept socket is called.
pub fn place(listen: &Listen) -> String {
    format!("{:?} {}", listen.way, listen.path.display())
}

/// What is said where its directory is missing.
const NO_DIRECTORY: &str = "the directory is not there";
/// What is said of anything else in its place.
const NO_SOCKET: &str = "what is there is no socket; move it away or name another path";

/// Why nobody can listen there, as far as that is to be seen without trying: for whoever checks a config.
pub fn unfit(listen: &Listen) -> Option<&'static str> {
    let is_dir = listen.path.parent().map_or(Ok(false), |dir| dir.metadata().map(|meta| meta.is_dir()));
    let is_missing =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    if is_dir.as_ref().map_or_else(is_missing, |is_dir| !is_dir) {
        return Some(NO_DIRECTORY);
    }
    let there = std::fs::symlink_metadata(&listen.path).ok()?;
    (!there.file_type().is_socket()).then_some(NO_SOCKET)
}

fn bind(listen: &Listen) -> Result<Bound, String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NO_DIRECTORY.to_owned(),
        io::ErrorKind::AddrInUse => "something else is in its place".to_owned(),
        _ => error.to_string(),
    };
    take_away_stale(listen)?;
    let socket = match listen.way {
        Way::Stream => Socket::Stream(UnixListener::bind(&listen.path).map_err(said)?),
        Way::Datagram => Socket::Datagram(UnixDatagram::bind(&listen.path).map_err(said)?),
    };
    let bound = Bound { socket, path: listen.path.clone() };
    // Nobody but this user could connect until now, whatever the umask is: 0660 is only ever more.
    let mode = std::fs::Permissions::from_mode(0o660);
    std::fs::set_permissions(&listen.path, mode)
        .map_err(|error| format!("its mode cannot be set: {error}"))?;
    Ok(bound)
}

/// Takes away a socket that this user left when it was killed, and that nobody answers on.
fn take_away_stale(listen: &Listen) -> Result<(), String> {
    let Ok(there) = std::fs::symlink_metadata(&listen.path) else { return Ok(()) };
    if !there.file_type().is_socket() {
        return Err(NO_SOCKET.to_owned());
    }
    if there.uid() != rustix::process::geteuid().as_raw() {
        return Err("the socket that is there belongs to another user".to_owned());
    }
    if answers(listen.way, &listen.path) {
        return Err("another program listens there".to_owned());
    }
    std::fs::remove_file(&listen.path).map_err(|error| format!("the old socket cannot be removed: {error}"))
}

fn answers(way: Way, path: &Path) -> bool {
    match way {
        Way::Stream => std::os::unix::net::UnixStream::connect(path).is_ok(),
        Way::Datagram => {
            std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.connect(path)).is_ok()
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Whole(&'a [u8]),
    /// The beginning of one that is longer than [`RECORD_MAX`]; the rest is skipped.
    Start(&'a [u8]),
}

/// Cuts a stream into lines; keeps at most one of them and what was read behind it.
#[derive(Debug, Default)]
struct Lines {
    buffer: Vec<u8>,
    /// Where what was not given yet begins.
    at: usize,
    /// How far there is no end of a line.
    searched: usize,
    /// In the rest of a line that was too long.
    skipping: bool,
}

impl Lines {
    /// Where bytes are read into. What was given is forgotten first.
    fn room(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.at);
        self.searched -= self.at;
        self.at = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * READ {
            self.buffer = Vec::new();
        }
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    fn next(&mut self) -> Option<Line<'_>> {
        loop {
            let start = self.at;
            match memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                Some(end) => {
                    let end = self.searched + end;
                    (self.at, self.searched) = (end + 1, end + 1);
                    if std::mem::take(&mut self.skipping) || self.buffer[start..end].trim_ascii().is_empty() {
                        continue;
                    }
                    return Some(Line::Whole(self.buffer[start..end].trim_ascii_end()));
                }
                None if self.skipping => {
                    (self.at, self.searched) = (self.buffer.len(), self.buffer.len());
                    return None;
                }
                None if self.buffer.len() - start >= RECORD_MAX => {
                    self.skipping = true;
                    (self.at, self.searched) = (self.buffer.len(), self.buffer.len());
                    return Some(Line::Start(&self.buffer[start..]));
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            }
        }
    }

    /// What is left without an end.
    fn rest(&self) -> Option<&[u8]> {
        let rest = self.buffer[self.at..].trim_ascii();
        (!rest.is_empty() && !self.skipping).then_some(rest)
    }
}

#[cfg(test)]
mod tests;
