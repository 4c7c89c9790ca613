//! To journald by its own protocol: the sentence as `MESSAGE`, its priority, and each field as `OTRELAY_NAME`, so that
//! `journalctl OTRELAY_SOURCE=eve` finds what concerns one source.
//!
//! Own lines instead of a crate: the crate at hand passes control characters of a sensor's text on, and blocks for as
//! long as journald does. Here every value is one line of text that is safe to show and bounded, so no text from outside
//! can begin a field, and a journald that does not take the line gets it on stderr, where it also listens.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::priority;
use crate::model::text::{clip, one_line};

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest sentence, in bytes.
const MESSAGE_MAX: usize = 4 * 1024;
/// Longest value of a field, in bytes.
const VALUE_MAX: usize = 1024;
/// How long journald may take for one line.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(super) fn connect(path: &Path) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        event.record(&mut entry);
        let Entry { message, fields } = entry;
        let priority = priority(*metadata.level());
        let room = metadata.target().trim_start_matches("otrelay::");
        let text = format!(
            "MESSAGE={message}\nPRIORITY={priority}\nSYSLOG_IDENTIFIER=otrelay\nOTRELAY_ROOM={room}\n{fields}"
        );
        if self.socket.send(text.as_bytes()).is_err() {
            // When stderr is gone too, nobody is left to tell.
            let _ = writeln!(std::io::stderr(), "<{priority}>{message}");
        }
    }
}

#[derive(Default)]
struct Entry {
    message: String,
    fields: String,
}

impl Entry {
    fn put(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = clip(&one_line(value), MESSAGE_MAX).into_owned();
        } else {
            let name = name(field.name());
            let value = one_line(value);
            // Writing to a string does not fail.
            let _ = writeln!(self.fields, "OTRELAY_{name}={}", clip(&value, VALUE_MAX));
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// A name that journald takes: capitals, digits and underscores.
fn name(name: &str) -> String {
    let fit = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().take(50).map(fit).collect()
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn heard(log: impl FnOnce()) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let ear = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::connect(&path).unwrap());
        tracing::subscriber::with_default(subscriber, log);
        ear.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; 100_000];
        let n = ear.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_entry_has_sentence_priority_and_fields() {
        let lines = heard(|| tracing::error!(source = %"eve", count = 7, reason = "lost", "a sentence"));
        assert_eq!(lines[..3], ["MESSAGE=a sentence", "PRIORITY=3", "SYSLOG_IDENTIFIER=otrelay"]);
        assert_eq!(lines[3], "OTRELAY_ROOM=log::journal::tests");
        assert_eq!(lines[4..], ["OTRELAY_SOURCE=eve", "OTRELAY_COUNT=7", "OTRELAY_REASON=lost"]);
    }

    #[test]
    fn text_from_outside_forges_neither_field_nor_line() {
        let evil = "x\nPRIORITY=0\n_UID=0\r\u{1b}[2J\0y";
        let lines = heard(|| tracing::warn!(title = evil, "seen: {evil}"));
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert_eq!(lines[0], "MESSAGE=seen: x PRIORITY=0 _UID=0 [2Jy");
        assert_eq!(lines[1], "PRIORITY=4");
        assert_eq!(lines[4], "OTRELAY_TITLE=x PRIORITY=0 _UID=0 [2Jy");
    }

    #[test]
    fn a_long_text_is_cut() {
        let long = "x".repeat(1_000_000);
        let lines = heard(|| tracing::info!(long, "{long}"));
        assert!(lines.iter().map(String::len).sum::<usize>() < 6_000);
    }
}
