//! What the management console of Defender for IoT posted to a webhook: the fields of its alert API, and with the
//! extended action those of the sensor. Whether a key has a capital in the middle differs by version: case does not
//! matter.

use std::borrow::Cow;

use super::draft::{Draft, Problem};
use super::{engine, list, named, severity};
use crate::model::AlertState;
use crate::source::format::Settings;
use crate::source::format::json::Value;
use crate::source::format::parts::{when, word};

/// Keys that an alert of otrelay's own does not have.
const MARKS: [&str; 14] = [
    "sensorid",
    "sensorname",
    "zoneid",
    "zonename",
    "siteid",
    "sitename",
    "sourcedevice",
    "destinationdevice",
    "sourcedeviceaddress",
    "destinationdeviceaddress",
    "remediationsteps",
    "additionalinformation",
    "handled",
    "alertid",
];

/// Whether the object is one: two of its keys at least.
pub(super) fn is_one(object: &Value<'_>) -> bool {
    let is_mark = |key: &str| MARKS.iter().any(|mark| mark.eq_ignore_ascii_case(key));
    object.members().iter().filter(|(key, _)| is_mark(key)).take(2).count() == 2
}

pub(super) fn draft(object: &Value<'_>, settings: &Settings) -> Result<Draft, Problem> {
    let text = |key: &str| object.get_folded(key).scalar().and_then(|text| word(&text));
    let Some(title) = object.get_folded("title").scalar() else {
        return Err(Problem::missing("a webhook of Defender for IoT without `title`"));
    };
    let mut source = text("sourceDeviceAddress").map(|text| named(&text)).unwrap_or_default();
    let mut destination = text("destinationDeviceAddress").map(|text| named(&text)).unwrap_or_default();
    // No device is 0.
    let device = |key: &str| text(key).filter(|id| id != "0");
    source.device_id = device("sourceDevice");
    destination.device_id = device("destinationDevice");
    let handled = matches!(object.get_folded("handled"), Value::Bool(true))
        || text("handled").is_some_and(|word| word.eq_ignore_ascii_case("true"));
    Ok(Draft {
        id: own_id(object),
        when: when(&[object.get_folded("time")], &settings.time_zone),
        title: title.into_owned(),
        message: Some(message(object)).filter(|text| !text.is_empty()),
        severity: severity(object, settings)?,
        engine: engine(object, settings)?,
        source,
        destination,
        sensor: text("sensorName"),
        site: text("siteName"),
        zone: text("zoneName"),
        state: if handled { AlertState::Cleared } else { AlertState::Raised },
        ..Draft::default()
    })
}

/// Ids count from one at each sensor.
fn own_id(object: &Value<'_>) -> Option<String> {
    let id = ["id", "alertId", "UUID"].iter().find_map(|key| object.get_folded(key).scalar())?;
    let sensor = ["sensorId", "sensorName"].iter().find_map(|key| object.get_folded(key).scalar());
    word(&format!("{}:{id}", sensor.unwrap_or_default()))
}

fn message(object: &Value<'_>) -> String {
    let own = object.get_folded("message").scalar().unwrap_or_default();
    let more = [("Additional information", "additionalInformation"), ("Remediation", "remediationSteps")];
    let more = more.into_iter().filter_map(|(label, key)| {
        let value = object.get_folded(key);
        let told = match value {
            Value::List(_) => list(value).join("\n"),
            _ => value.text().map(ToOwned::to_owned)?,
        };
        (!told.is_empty()).then(|| format!("{label}: {told}"))
    });
    std::iter::once(Cow::into_owned(own))
        .chain(more)
        .filter(|text| !text.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}
