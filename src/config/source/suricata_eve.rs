//! `kind = "suricata-eve"`: EVE JSON files of Suricata.

use super::parts::{self, ApartWord};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::{Field, List, Named, table};
use crate::config::values::{EngineWord, SeverityWord};
use crate::source::format::eve::{self, Eve};
use crate::source::{Input, Reads, Settings};

table! {
    /// EVE JSON files of Suricata.
    #[schemars(extend("required" = ["name", "kind", "path"]))]
    SuricataEve {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "suricata-eve"))]
        kind: String,
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// What tells equal addresses apart: any of `network` (tenant and VLAN), `interface`, `mac`. Default `["network"]`.
        identity: List<ApartWord>,
        /// Rule priority to severity, laid over 1 = critical, 2 = major, 3 = minor, else warning.
        severity_map: Named<SeverityWord>,
        /// Category text to engine, laid over the built-in table.
        engine_map: Named<EngineWord>,
        /// Whether `alert.metadata.signature_severity` overrides the priority. Default true.
        signature_severity: bool,
        /// Zone of timestamps without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
    }
}

impl Kind for SuricataEve {
    const WORD: &'static str = "suricata-eve";
    const LEAST: &'static str = "path = \"/var/log/suricata/eve*.json\"";

    fn name(&self) -> &Field<String> {
        &self.name
    }

    fn path(&self) -> Option<&Field<String>> {
        Some(&self.path)
    }

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let pattern = parts::files(&self.path, common.at, c);
        let apart = parts::apart(&self.identity, c);
        let severity_map = parts::priorities(&self.severity_map, c);
        let engine_map = parts::engines(&self.engine_map, c);
        let signature_severity = c.value("signature_severity", &self.signature_severity, true, |v| *v);
        let time_zone = parts::time_zone(&self.time_zone, c);
        let (name, agent) = (common.name?, common.agent?);
        let format = Eve::new(eve::Settings {
            agent: agent.id.clone(),
            source: name.clone(),
            sensor: agent.name.clone(),
            site: agent.site.clone(),
            zone: agent.zone.clone(),
            apart: apart?,
            severity_map: severity_map?,
            engine_map: engine_map?,
            signature_severity: signature_severity?,
            time_zone: time_zone?,
        });
        let input = Input::Files { pattern: pattern? };
        Some(Settings { name, kind: Self::WORD, input, format: Reads::new(format) })
    }
}
