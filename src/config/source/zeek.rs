//! `kind = "zeek"`: logs of Zeek and its packages, TSV or JSON.

use super::parts;
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::{Field, Named, table};
use crate::config::values::{EngineWord, Period, SeverityWord};
use crate::source::format::zeek;
use crate::source::{Input, Reads, Settings};

table! {
    /// Logs of Zeek and its packages, TSV or JSON.
    #[schemars(extend("required" = ["name", "kind", "path"]))]
    Zeek {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "zeek"))]
        kind: String,
        /// A system notification when no record came of it for so long, at least 1m; default none.
        silent_after: Period,
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
        let (name, agent) = (common.name?, common.agent?);
        let format = zeek::Zeek::new(zeek::Settings {
            agent: agent.id.clone(),
            source: name.clone(),
            sensor: agent.name.clone(),
            site: agent.site.clone(),
            zone: agent.zone.clone(),
            severity_map: severity_map?,
            engine_map: engine_map?,
        });
        let input = Input::Files { pattern: pattern? };
        Some(Settings { name, kind: Self::WORD, input, format: Reads::new(format), silent_after: None })
    }
}
