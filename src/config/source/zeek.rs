//! `kind = "zeek"`: logs of Zeek and its packages, TSV or JSON.

use super::parts;
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::Named;
use crate::config::values::{EngineWord, SeverityWord};
use crate::source::format::zeek;
use crate::source::{Input, Settings};

source! {
    /// Logs of Zeek and its packages, TSV or JSON.
    #[schemars(extend("required" = ["name", "kind", "path"]))]
    Zeek = "zeek" {
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`. `notice` and some of `weird` are alerts; the
        /// other logs are counted by kind and tell of devices.
        path: String,
        /// Note (`SSL::Weak_Key`) or name of a weird to severity, laid over the built-in table. A weird that is named
        /// here is a finding.
        severity_map: Named<SeverityWord>,
        /// Note or name of a weird to engine, laid over the built-in table. A weird that is named here is a finding.
        engine_map: Named<EngineWord>,
    }
}

impl Kind for Zeek {
    const WORD: &'static str = "zeek";
    const LEAST: &'static str = "path = \"/opt/zeek/logs/current/*.log\"";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let pattern = parts::files(&self.path, common.at, c);
        let severity_map = parts::severities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let format = zeek::Zeek::new(common.format(severity_map, engine_map)?);
        common.settings(Self::WORD, Input::Files { pattern: pattern? }, format)
    }
}
