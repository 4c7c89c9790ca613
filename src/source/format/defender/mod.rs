//! Defender for IoT: alerts, devices and sensors as the JSON of a sensor's and a management console's API.
//!
//! Flow: a page is cut into records by [`split`] as it arrives; a decoder, made for one address of the API, reads each.
//! What a record of one address says about those of another (names of sensors, addresses of devices, connections)
//! passes through the [`Directory`] that all decoders of a source share. A record that cannot be read is rejected; the
//! page goes on. What this does not do: ask for pages, or know what was told before.

mod alert;

mod device;

mod directory;

mod mend;

mod prose;

pub mod split;

pub mod titles;

mod values;

mod wire;

use std::sync::{Arc, Mutex, PoisonError};

pub use self::directory::Directory;
use super::{Decoded, Decoder, Format, Outcome, Stream};
use crate::model::{Fingerprint, Identity, Timestamp};

/// How it is read, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every format is told. What the operator's words are laid over are the product's own.
    pub common: super::Settings,
    /// Whether it is a console, whose records name their sensor; else a sensor.
    pub console: bool,
}

/// What stands at an address of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Alerts; and whether handled ones were asked for, where that is known.
    Alerts(Option<bool>),
    /// Devices of any of the APIs.
    Devices,
    /// Pairs of devices that talk.
    Connections,
    /// Vulnerabilities.
    Cves,
    /// Devices that are gone.
    Deleted,
    /// Sensors of a console (`sensors`, `appliances`).
    Sensors,
}

impl Subject {
    /// What is found at an address (`/api/v2/alerts?state=handled`); alerts where the address does not say.
    pub fn of(address: &str) -> Self {
        let (path, query) = address.split_once('?').unwrap_or((address, ""));
        let has = |word: &str| path.split('/').any(|part| part.eq_ignore_ascii_case(word));
        if has("cves") || has("devicecves") {
            Self::Cves
        } else if has("connections") {
            Self::Connections
        } else if has("deleteddevices") {
            Self::Deleted
        } else if has("devices") || has("device") {
            Self::Devices
        } else if has("sensors") || has("appliances") {
            Self::Sensors
        } else {
            let state = query.split('&').find_map(|pair| pair.strip_prefix("state="));
            Self::Alerts(match state {
                Some("handled") => Some(true),
                Some("unhandled") => Some(false),
                _ => None,
            })
        }
    }
}

/// How many records there are on all pages, where a plain value beside a list says so (`u_count`).
pub fn total(key: &[u8], value: &[u8]) -> Option<u64> {
    let key = std::str::from_utf8(key).ok().filter(|key| wire::key_is(key, "count"));
    key.and_then(|_| std::str::from_utf8(value).ok()?.trim_matches('"').trim().parse().ok())
}

/// The format as one source uses it.
#[derive(Clone, Debug)]
pub struct Defender {
    settings: Arc<Settings>,
    directory: Arc<Mutex<Directory>>,
}

impl Defender {
    /// With an empty directory.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), directory: Arc::default() }
    }

    /// Does something with what the decoders know in common.
    pub fn with_directory<R>(&self, work: impl FnOnce(&mut Directory) -> R) -> R {
        work(&mut self.directory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The finding of an alert whose number meant another one before, as that of a sensor that was set up again. `time` tells
    /// it from that one.
    pub fn numbered_anew(&self, id: &str, time: u32) -> Fingerprint {
        self.settings.common.fingerprint(&Identity::Own(&format!("{id}@{time}")))
    }

    /// A decoder for the records of one subject.
    pub fn reader(&self, subject: Subject) -> Reader {
        Reader { format: self.clone(), subject }
    }
}

impl Format for Defender {
    fn decoder(&self, stream: &Stream<'_>) -> Box<dyn Decoder> {
        Box::new(self.reader(Subject::of(stream.name)))
    }
}

/// Reads the records of one subject.
#[derive(Debug)]
pub struct Reader {
    format: Defender,
    subject: Subject,
}

impl Decoder for Reader {
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        let record = record.trim_ascii();
        if record.is_empty() {
            return Outcome::Blank.into();
        }
        let (settings, subject) = (&self.format.settings, self.subject);
        self.format.with_directory(|directory| match subject {
            Subject::Alerts(handled) => {
                alert::decode(settings, directory, handled, record, received_at).into()
            }
            Subject::Devices => device::device(settings, directory, record),
            Subject::Connections => device::connection(directory, record),
            Subject::Cves => device::vulnerable(directory, record),
            Subject::Deleted => device::deleted(record),
            Subject::Sensors => device::sensor(settings, directory, record, received_at),
        })
    }
}

#[cfg(test)]
mod tests;
