//! `kind = "json-lines"`: files with an alert as JSON on each line.

use super::parts;
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::Named;
use crate::config::values::{EngineWord, SeverityWord};
use crate::source::format::alert_json::AlertJson;
use crate::source::{Input, Settings};

source! {
    /// Files with an alert as JSON on each line (`otrelay config schema --alert`); OCSF detection findings too.
    #[schemars(extend("required" = ["name", "kind", "path"]))]
    JsonLines = "json-lines" {
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// Other words than the four to severity, e.g. `high = "critical"`.
        severity_map: Named<SeverityWord>,
        /// Other words than the five, or category texts, to engine.
        engine_map: Named<EngineWord>,
        /// Zone of times without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
    }
}

impl Kind for JsonLines {
    const WORD: &'static str = "json-lines";
    const LEAST: &'static str = "path = \"/var/log/alerts/*.jsonl\"";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let pattern = parts::files(&self.path, common.at, c);
        let severity_map = parts::severities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let time_zone = parts::time_zone(&self.time_zone, c);
        let format = AlertJson::new(common.zoned(severity_map, engine_map, time_zone)?);
        common.settings(Self::WORD, Input::Files { pattern: pattern? }, format)
    }
}
