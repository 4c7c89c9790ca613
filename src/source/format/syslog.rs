//! Syslog messages to alerts: CEF, LEEF and the text of Defender for IoT, with profiles of the products that send them,
//! and plain text.
//!
//! A message is taken apart once (`message`); then the format's mark (`CEF:0|`) is searched in it, whatever stands before;
//! the header says which product it is (`profile`), and its table says which key holds what (`alert`). Nothing is
//! required but a name: addresses, times and ids that cannot be read are as if absent.
//! What this does not do: framing, sockets, who may send.

mod alert;

mod cef;

mod defender_text;

mod event;

mod leef;

mod message;

mod pairs;

mod profile;

mod time;

mod vendor;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use self::message::Message;
use super::super::RejectReason;
use super::{Decoded, Decoder, Format, Outcome, Stream};
use crate::model::Timestamp;
use crate::model::alert::RAW_MAX;
use crate::model::text::{self, clip};

/// What the messages of a source are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// Each message by its own marks; a message without any is plain text if it has a syslog header, else a reject.
    #[default]
    Auto,
    /// Common Event Format.
    Cef,
    /// Log Event Extended Format 1.0 and 2.0.
    Leef,
    /// The text message of Defender for IoT.
    DefenderText,
    /// Text: the first line is the title, the priority is the severity.
    Plain,
}

impl Payload {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Cef, Self::Leef, Self::DefenderText, Self::Plain];
}

/// How messages are read, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every format is told. Severities are what the sender writes, of plain messages the syslog severity 0 to 7;
    /// engines go by category, event class, title, or program of plain messages, before everything else.
    pub common: super::Settings,
    /// `format`. Default auto.
    pub payload: Payload,
    /// `time_zone`: the zone of times without one. Default UTC.
    pub time_zone: jiff::tz::TimeZone,
}

/// Syslog as one source uses it.
#[derive(Clone, Debug)]
pub struct Syslog(Arc<Settings>);

impl Syslog {
    /// With these settings.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(settings))
    }

    /// Reads one message of `sender`.
    pub fn read(&self, bytes: &[u8], sender: Option<IpAddr>, received_at: Timestamp) -> Decoded {
        let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        let settings = &*self.0;
        let message = Message::read(&text, &settings.time_zone, received_at);
        let mended = matches!(text, Cow::Owned(_));
        Reading { settings, message, line: &text, mended, sender, received_at }.read()
    }
}

impl Format for Syslog {
    fn decoder(&self, stream: &Stream<'_>) -> Box<dyn Decoder> {
        Box::new(Messages { format: self.clone(), sender: stream.sender })
    }
}

/// Messages of one sender. Each stands for itself.
struct Messages {
    format: Syslog,
    sender: Option<IpAddr>,
}

impl Decoder for Messages {
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        self.format.read(record, self.sender, received_at)
    }
}

/// One message while it is read.
struct Reading<'a> {
    settings: &'a Settings,
    message: Message<'a>,
    line: &'a str,
    /// Whether it had bytes that are not UTF-8.
    mended: bool,
    sender: Option<IpAddr>,
    received_at: Timestamp,
}

impl Reading<'_> {
    fn read(&self) -> Decoded {
        if self.message.text.is_empty() && self.message.priority.is_none() {
            return Outcome::Blank.into();
        }
        match self.settings.payload {
            Payload::Auto => self.auto(),
            Payload::Cef => self.marked(cef::MARK, cef::read),
            Payload::Leef => self.marked(leef::MARK, leef::read),
            Payload::DefenderText => {
                self.event(defender_text::read(&defender_text::in_lines(self.message.text)))
            }
            Payload::Plain => alert::plain(self).into(),
        }
    }

    /// The mark that comes first says what it is.
    fn auto(&self) -> Decoded {
        if self.message.text.starts_with(cef::MARK)
            && let Some(rest) = event::find(self.message.text, cef::MARK)
            && rest.len() + cef::MARK.len() == self.message.text.len()
        {
            // As nearly every message: nothing can come before it.
            return self.read_marked(rest, cef::read);
        }
        let at = |mark| self.find(mark).map(|rest| self.line.len() - rest.len());
        match (at(cef::MARK), at(leef::MARK)) {
            (Some(cef), leef) if leef.is_none_or(|leef| cef < leef) => self.marked(cef::MARK, cef::read),
            (_, Some(_)) => self.marked(leef::MARK, leef::read),
            _ => self.unmarked(),
        }
    }

    fn unmarked(&self) -> Decoded {
        let text = defender_text::in_lines(self.message.text);
        if defender_text::is_it(&text) {
            self.event(defender_text::read(&text))
        } else if self.message.priority.is_some() || self.message.time.is_some() {
            alert::plain(self).into()
        } else {
            reject("neither CEF, LEEF nor Defender's text, and no syslog header")
        }
    }

    /// What follows a mark: in the text, else anywhere (a header may have been taken for more than it is).
    fn find(&self, mark: &str) -> Option<&str> {
        event::find(self.message.text, mark).or_else(|| event::find(self.line, mark))
    }

    fn marked<'s>(
        &'s self,
        mark: &str,
        read: fn(&'s str) -> Result<event::Event<'s>, event::Refusal>,
    ) -> Decoded {
        match self.find(mark) {
            Some(rest) => self.read_marked(rest, read),
            None if mark == cef::MARK => reject("no `CEF:0|` in it"),
            None => reject("no `LEEF:1.0|` or `LEEF:2.0|` in it"),
        }
    }

    fn read_marked<'s>(
        &'s self,
        rest: &'s str,
        read: fn(&'s str) -> Result<event::Event<'s>, event::Refusal>,
    ) -> Decoded {
        self.event(read(rest.trim_end_matches(['\r', '\n', '\0'])))
    }

    fn event(&self, event: Result<event::Event<'_>, event::Refusal>) -> Decoded {
        match event {
            Ok(event) => alert::of(&event, self),
            Err((reason, detail)) => Outcome::Reject(reason, detail).into(),
        }
    }

    /// The sender's name for itself, its address, the agent.
    fn sensor(&self) -> String {
        let host = self.message.host.map(alert::word).filter(|host| !host.is_empty());
        host.or_else(|| self.sender.map(|ip| ip.to_string()))
            .unwrap_or_else(|| self.settings.common.sensor.clone())
    }

    /// The whole message, safe to show.
    fn raw(&self) -> String {
        let start = &self.line[..self.line.floor_char_boundary(RAW_MAX + 1)];
        let start = start.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
        clip(&text::lines(start), RAW_MAX).into_owned()
    }
}

fn reject(detail: &'static str) -> Decoded {
    Outcome::Reject(RejectReason::Malformed, Cow::Borrowed(detail)).into()
}

#[cfg(test)]
mod tests;
