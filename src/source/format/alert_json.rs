//! Alerts as JSON, one object to one alert: what programs of the site write or push themselves.
//!
//! Three shapes are told apart by their keys: otrelay's own alert (the fields of `model::Alert`, [`schema()`]), a
//! detection finding of OCSF (`class_uid`), and what the console of Defender for IoT posted to webhooks. All become a
//! `draft::Draft`, and that an alert. Only `title` is needed. Unknown keys are tolerated; a word that is not one of
//! its list is an error, for a sender that misspells a severity wants to know. What this does not do: cut a body into
//! its objects (`body`), listen, read files.

pub mod body;

pub(super) mod draft;

mod schema;

mod webhook;

use std::borrow::Cow;
use std::sync::Arc;

use self::draft::{Draft, Problem};
use super::json::{self, Value};
use super::parts::{self, address, mac, port, raw, when, word};
use super::{Decoded, Decoder, Format, Outcome, Settings, Stream, ocsf};
use crate::model::{AlertKind, AlertState, Endpoint, Engine, Protocol, Severity, Timestamp};
use crate::source::RejectReason;

pub use schema::schema;

/// Most protocols or references of one alert.
const LIST_MAX: usize = 32;

/// Alerts as JSON as one source reads them.
#[derive(Clone, Debug)]
pub struct AlertJson(Arc<Settings>);

impl AlertJson {
    /// The format for one source.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(settings))
    }

    /// Reads one object.
    pub fn read(&self, record: &[u8], received_at: Timestamp) -> Outcome {
        let record = json::begun(record).trim_ascii();
        if record.is_empty() {
            return Outcome::Blank;
        }
        let text = String::from_utf8_lossy(record);
        json::read(&text, |value| match value {
            Ok((object @ Value::Object(_), whole)) => self.object(&object, whole, record, received_at),
            Ok((other, _)) => malformed(format!("{} where an alert is an object", other.kind())),
            Err(error) => malformed(error),
        })
    }

    /// `whole`: whether all of it was kept.
    fn object(&self, object: &Value<'_>, whole: bool, record: &[u8], received_at: Timestamp) -> Outcome {
        let draft = if ocsf::is_one(object) {
            if !ocsf::is_detection(object) {
                return Outcome::Ignored("ocsf");
            }
            ocsf::draft(object, &self.0.time_zone)
        } else if webhook::is_one(object) {
            webhook::draft(object, &self.0)
        } else {
            own(object, &self.0)
        };
        match draft {
            Ok(draft) => {
                let kept = draft.raw.clone().unwrap_or_else(|| raw(record));
                let mut finding = draft.finding(&self.0, kept, received_at);
                if !whole {
                    parts::note(&mut finding.alert.message, json::CUT);
                }
                Outcome::Alert(Box::new(finding))
            }
            Err(Problem(reason, detail)) => Outcome::Reject(reason, detail),
        }
    }
}

impl Format for AlertJson {
    fn decoder(&self, _: &Stream<'_>) -> Box<dyn Decoder> {
        Box::new(Lines(self.clone()))
    }
}

/// Reads objects of one stream: none depends on another.
struct Lines(AlertJson);

impl Decoder for Lines {
    fn decode(&mut self, record: &[u8], received_at: Timestamp) -> Decoded {
        self.0.read(record, received_at).into()
    }

    fn torn(&self, record: &[u8]) -> Option<usize> {
        json::torn(record)
    }
}

fn malformed(detail: String) -> Outcome {
    Outcome::Reject(RejectReason::Malformed, detail.into())
}

/// otrelay's own alert.
fn own(object: &Value<'_>, settings: &Settings) -> Result<Draft, Problem> {
    let Some(title) = object.get("title").scalar() else {
        return Err(Problem::missing("`title`, which every alert needs, is missing, blank or no text"));
    };
    let kind = words(object, "kind", "\"alert\" or \"system notification\"", kind_of)?.unwrap_or_default();
    let category = object.get("category").scalar().and_then(|text| word(&text));
    let by_category = || settings.engine(category.as_deref()?);
    let engine = engine(object, settings)?.or_else(by_category);
    let text = |key: &str| object.get(key).scalar().and_then(|text| word(&text));
    Ok(Draft {
        id: text("id"),
        when: when(&[object.get("time")], &settings.time_zone),
        title: title.into_owned(),
        message: object.get("message").scalar().map(Cow::into_owned),
        severity: severity(object, settings)?,
        engine,
        protocols: list(object.get("protocols")).iter().map(|name| Protocol::named(name)).collect(),
        category,
        source: endpoint(object.get("source")),
        destination: endpoint(object.get("destination")),
        sensor: text("sensor"),
        site: text("site"),
        zone: text("zone"),
        state: words(object, "state", "\"raised\" or \"cleared\"", state_of)?.unwrap_or_default(),
        kind,
        references: list(object.get("references")),
        raw: object.get("raw").text().map(|text| raw(text.as_bytes())),
    })
}

/// The severity that the operator's table or the word itself gives; absent is major.
fn severity(object: &Value<'_>, settings: &Settings) -> Result<Option<Severity>, Problem> {
    let of = |text: &str| settings.severity(text).or_else(|| Severity::parse(text));
    words(object, "severity", "\"warning\", \"minor\", \"major\" or \"critical\"", of)
}

fn engine(object: &Value<'_>, settings: &Settings) -> Result<Option<Engine>, Problem> {
    let of = |text: &str| settings.engine(text).or_else(|| Engine::parse(text));
    let expected =
        "\"protocol violation\", \"policy violation\", \"malware\", \"anomaly\" or \"operational\"";
    words(object, "engine", expected, of)
}

/// A word of a closed list, whatever the case of its key; `None` where the key is absent or `null`.
fn words<T>(
    object: &Value<'_>,
    key: &'static str,
    expected: &'static str,
    of: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let value = object.get_folded(key);
    if value.is_null() {
        return Ok(None);
    }
    let Some(text) = value.scalar() else {
        return Err(Problem::malformed(format!("`{key}` is {}: expected {expected}", value.kind())));
    };
    if let Some(known) = of(text.trim()) {
        return Ok(Some(known));
    }
    let found = word(&text).unwrap_or_default();
    Err(Problem::malformed(format!("`{key}` is \"{found}\": expected {expected}")))
}

fn state_of(text: &str) -> Option<AlertState> {
    [("raised", AlertState::Raised), ("cleared", AlertState::Cleared)]
        .into_iter()
        .find_map(|(word, state)| word.eq_ignore_ascii_case(text).then_some(state))
}

fn kind_of(text: &str) -> Option<AlertKind> {
    match text.to_ascii_lowercase().replace(['_', '-'], " ").as_str() {
        "alert" => Some(AlertKind::Alert),
        "system notification" => Some(AlertKind::SystemNotification),
        _ => None,
    }
}

/// An end as an object, or as one text: its address, else its name.
fn endpoint(value: &Value<'_>) -> Endpoint {
    if let Some(text) = value.text() {
        return named(text);
    }
    let text = |key: &str| value.get(key).scalar().and_then(|text| word(&text));
    let ip = text("ip");
    let mut end = ip.as_deref().map(named).unwrap_or_default();
    end.mac = value.get("mac").text().and_then(mac);
    end.name = text("name").or(end.name);
    end.port = value.get("port").whole().and_then(port).filter(|port| *port != 0);
    end.device_id = text("device_id");
    end
}

/// What stands where an address is expected: one, or the name of what has it. `N/A` and its like are neither.
pub(super) fn named(text: &str) -> Endpoint {
    let ip = address(text);
    let unknown = matches!(text.trim().to_ascii_lowercase().as_str(), "" | "n/a" | "na" | "-" | "unknown");
    let name = if ip.is_none() && !unknown { word(text) } else { None };
    Endpoint { ip, name, ..Endpoint::default() }
}

/// Texts of an array, or one text; at most [`LIST_MAX`].
pub(super) fn list(value: &Value<'_>) -> Vec<String> {
    value.items().iter().filter_map(|item| word(&item.scalar()?)).take(LIST_MAX).collect()
}

#[cfg(test)]
mod tests;
