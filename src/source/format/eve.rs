//! Suricata's EVE JSON, one line to one alert.

use std::collections::BTreeMap;

use crate::model::{Engine, Severity, SourceName};

/// How EVE is read, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[agent] name`: part of every fingerprint, and the sensor's name where EVE has no `host`.
    pub agent: String,
    /// `[[source]] name`: part of every fingerprint.
    pub source: SourceName,
    /// `[agent] site`.
    pub site: Option<String>,
    /// `[agent] zone`.
    pub zone: Option<String>,
    /// `severity_map`: the rule's priority to a severity; laid over the base table (1 critical, 2 major, 3 minor, else warning).
    pub severity_map: BTreeMap<u32, Severity>,
    /// `engine_map`: category text (folded to lower case) to an engine; laid over the base table.
    pub engine_map: BTreeMap<String, Engine>,
    /// `signature_severity`: whether `alert.metadata.signature_severity` overrides the priority. Default true.
    pub signature_severity: bool,
    /// `time_zone`: the zone of timestamps without an offset. Default UTC.
    pub time_zone: jiff::tz::TimeZone,
}
