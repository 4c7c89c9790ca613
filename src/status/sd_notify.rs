//! What systemd is told, by the protocol of `sd_notify(3)`: one datagram with `NAME=value` lines.
//!
//! Own lines instead of a crate: those at hand send on a blocking socket, and a service manager that does not read would
//! then stop the agent's one thread. Here a message that finds no room is dropped. Without `$NOTIFY_SOCKET` nothing is
//! sent and everything works the same.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::text::{clip, one_line};

/// Longest status text, in bytes: systemd shows it on one line.
const STATUS_MAX: usize = 400;

/// The way to the service manager; none when nobody listens.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    /// The last status: the same is not sent twice.
    status: Mutex<String>,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`: a path, or `@name` of the abstract kind.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Arc::new(Line { socket, status: Mutex::default() }))))
    }

    /// Whether anybody is told.
    pub fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// The service does its work: started, or reloaded.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload begins; [`Self::ready`] ends it, whatever came of it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The service stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// The start takes longer; it may take this much more.
    pub fn extend(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// The service is alive.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// How things are, in one line; sent only when it has changed.
    pub fn status(&self, text: &str) {
        let Some(line) = &self.0 else { return };
        // What came from outside must not begin another line of the protocol.
        let text = clip(&one_line(text), STATUS_MAX).into_owned();
        let mut last = line.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != text {
            self.send(&format!("STATUS={text}"));
            *last = text;
        }
    }

    fn send(&self, message: &str) {
        let Some(line) = &self.0 else { return };
        if let Err(e) = line.socket.send(message.as_bytes()) {
            tracing::debug!("the service manager could not be told: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        ear.set_nonblocking(true).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        (dir, ear, notifier)
    }

    fn heard(ear: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 2_000];
        let n = ear.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..n].to_vec()).unwrap())
    }

    #[test]
    fn a_status_is_one_line_and_told_once() {
        let (_dir, ear, notifier) = pair();
        notifier.status("a\nREADY=1");
        notifier.status("a\nREADY=1");
        notifier.status(&"x".repeat(5_000));
        assert_eq!(heard(&ear).unwrap(), "STATUS=a READY=1");
        assert!(heard(&ear).unwrap().len() <= STATUS_MAX + "STATUS=".len());
        assert_eq!(heard(&ear), None);
    }

    #[test]
    fn a_reload_says_when_it_began() {
        let (_dir, ear, notifier) = pair();
        notifier.reloading();
        let said = heard(&ear).unwrap();
        let micros = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0, "{said}");
    }

    #[test]
    fn a_manager_that_does_not_read_stops_nobody() {
        let (_dir, ear, notifier) = pair();
        for _ in 0..5_000 {
            notifier.alive();
        }
        assert_eq!(heard(&ear).unwrap(), "WATCHDOG=1");
        drop(ear);
        notifier.ready();
        Notifier::default().ready();
    }

    #[test]
    fn an_abstract_address_works_and_nobody_there_is_said() {
        let name = format!("otrelay-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let ear = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::connect(OsStr::new(&format!("@{name}"))).unwrap().ready();
        assert_eq!(heard(&ear).unwrap(), "READY=1");
        assert!(Notifier::connect(OsStr::new("/nowhere/notify")).is_err());
    }
}
