//! `kind = "defender-console"`: the API of a Defender for IoT management console.

use super::defender::{self, Keys};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::file::{Proxy, Tls};
use crate::config::read::{Field, List, Named, table};
use crate::config::values::{EngineWord, Period, SecretRef, SeverityWord, WriteBack};
use crate::source::Settings;

table! {
    /// The API of a Defender for `IoT` management console.
    #[schemars(extend("required" = ["name", "kind", "url", "token"]))]
    DefenderConsole {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "defender-console"))]
        kind: String,
        /// A system notification when no record came of it for so long, at least 1m; default none.
        silent_after: Period,
        /// Where it is: `https://HOST`.
        url: String,
        /// Its access token, made there in System settings > Integrations > Access tokens.
        token: SecretRef,
        /// What is trusted; these machines ship with a certificate of their own.
        tls: Tls,
        /// The proxy on the way there.
        proxy: Proxy,
        /// Time between two polls, at least 5s. Default 60s.
        poll_interval: Period,
        /// Time between two readings of devices, at least 5m. Default 60m.
        devices_interval: Period,
        /// What it is told when the ticket of an alert was resolved or closed: `none` (default) or `handle`.
        write_back: WriteBack,
        /// The sources whose alerts carry this console's UUIDs, such as its syslog. Default: itself alone.
        write_back_for: List<String>,
        /// Its word for a severity to ours, laid over `Warning`, `Minor`, `Major` and `Critical`.
        severity_map: Named<SeverityWord>,
        /// Its word for an engine to ours, laid over its five.
        engine_map: Named<EngineWord>,
    }
}

impl Kind for DefenderConsole {
    const WORD: &'static str = "defender-console";
    const LEAST: &'static str = "url = \"https://console.example\"\ntoken = \"-\"";

    fn name(&self) -> &Field<String> {
        &self.name
    }

    fn silent_after(&self) -> Option<&Field<Period>> {
        Some(&self.silent_after)
    }

    fn path(&self) -> Option<&Field<String>> {
        None
    }

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let keys = Keys {
            kind: Self::WORD,
            console: true,
            url: &self.url,
            token: &self.token,
            tls: &self.tls,
            proxy: &self.proxy,
            poll_interval: &self.poll_interval,
            devices_interval: &self.devices_interval,
            sensor: None,
            write_back: Some((&self.write_back, &self.write_back_for)),
            severity_map: &self.severity_map,
            engine_map: &self.engine_map,
        };
        defender::check(&keys, common, c)
    }
}
