//! `kind = "json-lines"`: files with an alert as JSON on each line.

use super::parts;
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::{Field, Named, table};
use crate::config::values::{EngineWord, Period, SeverityWord};
use crate::source::format::alert_json::AlertJson;
use crate::source::{Input, Reads, Settings};

table! {
    /// Files with an alert as JSON on each line (`otrelay config schema --alert`); OCSF detection findings too.
    #[schemars(extend("required" = ["name", "kind", "path"]))]
    JsonLines {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "json-lines"))]
        kind: String,
        /// A system notification when no record came of it for so long, at least 1m; default none.
        silent_after: Period,
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// Other words than the four to severity, e.g. `high = "critical"`.
        severity_map: Named<SeverityWord>,
        /// Other words than the five, or category texts, to engine.
        engine_map: Named<EngineWord>,
    }
}

impl Kind for JsonLines {
    const WORD: &'static str = "json-lines";
    const LEAST: &'static str = "path = \"/var/log/alerts/*.jsonl\"";

    fn name(&self) -> &Field<String> {
        &self.name
    }

    fn silent_after(&self) -> Option<&Field<Period>> {
        Some(&self.silent_after)
    }

    fn path(&self) -> Option<&Field<String>> {
        Some(&self.path)
    }

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let pattern = parts::files(&self.path, common.at, c);
        let severity_map = parts::severities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let settings = parts::alert_json(&common, severity_map, engine_map)?;
        let (name, input) = (common.name?, Input::Files { pattern: pattern? });
        Some(Settings { name, kind: Self::WORD, input, format: Reads::new(AlertJson::new(settings)), silent_after: None })
    }
}
