//! What a JSON object says of an alert, before defaults: the three shapes end here, and become alerts in one way.

use std::borrow::Cow;

use crate::model::alert::{MESSAGE_MAX, TITLE_MAX};
use crate::model::text::{clip, lines, one_line};
use crate::model::{
    Alert, AlertKind, AlertState, Endpoint, Engine, Fingerprint, Identity, Protocol, Severity, Timestamp,
};
use crate::source::RejectReason;
use crate::source::format::parts::{self, When};
use crate::source::format::{Finding, Settings};

/// Why an object is no alert.
#[derive(Debug)]
pub(in crate::source::format) struct Problem(pub(super) RejectReason, pub(super) Cow<'static, str>);

impl Problem {
    /// Something that every alert needs is not there.
    pub(in crate::source::format) fn missing(detail: &'static str) -> Self {
        Self(RejectReason::MissingField, detail.into())
    }

    /// Something is there and cannot be read.
    pub(in crate::source::format) fn malformed(detail: String) -> Self {
        Self(RejectReason::Malformed, detail.into())
    }
}

/// An alert as far as its sender said it.
#[derive(Debug, Default)]
pub(in crate::source::format) struct Draft {
    /// The sender's own stable id.
    pub(in crate::source::format) id: Option<String>,
    pub(in crate::source::format) when: When,
    /// Not blank; not yet cleaned.
    pub(in crate::source::format) title: String,
    pub(in crate::source::format) message: Option<String>,
    pub(in crate::source::format) severity: Option<Severity>,
    pub(in crate::source::format) engine: Option<Engine>,
    pub(in crate::source::format) protocols: Vec<Protocol>,
    pub(in crate::source::format) category: Option<String>,
    pub(in crate::source::format) source: Endpoint,
    pub(in crate::source::format) destination: Endpoint,
    pub(in crate::source::format) sensor: Option<String>,
    pub(in crate::source::format) site: Option<String>,
    pub(in crate::source::format) zone: Option<String>,
    pub(in crate::source::format) state: AlertState,
    pub(in crate::source::format) kind: AlertKind,
    pub(in crate::source::format) references: Vec<String>,
    /// The sender's own original, where it sent one.
    pub(in crate::source::format) raw: Option<String>,
}

impl Draft {
    /// The alert, with the defaults of the contract: major, raised, an anomaly.
    pub(super) fn finding(self, settings: &Settings, raw: String, received_at: Timestamp) -> Finding {
        let title = one_line(&self.title);
        let title = clip(title.trim(), TITLE_MAX);
        // A title of nothing but control characters is still an alert.
        let title = if title.is_empty() { "(no title)".to_owned() } else { title.into_owned() };
        let fingerprint = self.fingerprint(settings, &title);
        let message = self.message.as_deref().map_or(Cow::Borrowed(title.as_str()), lines);
        let mut message = clip(message.trim(), MESSAGE_MAX).into_owned();
        if message.is_empty() {
            message.clone_from(&title);
        }
        if let Some(written) = &self.when.unreadable {
            parts::undated(&mut message, None, written);
        }
        let engine = match self.kind {
            AlertKind::SystemNotification => Engine::Operational,
            AlertKind::Alert => self.engine.unwrap_or(Engine::Anomaly),
        };
        let protocols = self.protocols.into_iter().filter(|protocol| !protocol.as_str().trim().is_empty());
        let alert = settings.alert(received_at);
        let alert = Alert {
            id: self.id,
            time: self.when.time.unwrap_or(received_at),
            message,
            title,
            severity: self.severity.unwrap_or(alert.severity),
            engine,
            protocols: protocols.collect(),
            category: self.category,
            source: self.source,
            destination: self.destination,
            sensor: self.sensor.unwrap_or(alert.sensor),
            site: self.site.or(alert.site),
            zone: self.zone.or(alert.zone),
            state: self.state,
            kind: self.kind,
            references: self.references,
            raw,
            ..alert
        };
        Finding { alert, fingerprint }
    }

    fn fingerprint(&self, settings: &Settings, title: &str) -> Fingerprint {
        let source = parts::identity(&self.source);
        let destination = parts::identity(&self.destination);
        let identity = match &self.id {
            Some(id) => Identity::Own(id),
            None => Identity::Derived {
                signature: title,
                source: &source,
                destination: &destination,
                protocol: self.protocols.first().map_or("", Protocol::as_str),
            },
        };
        settings.fingerprint(&identity)
    }
}
