//! `kind = "defender-sensor"`: the API of a Defender for IoT sensor.

use super::defender::{self, Keys};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::file::{Proxy, Tls};
use crate::config::read::{Field, Named, table};
use crate::config::values::{EngineWord, Period, SecretRef, SeverityWord};
use crate::source::Settings;

table! {
    /// The API of a Defender for `IoT` sensor.
    #[schemars(extend("required" = ["name", "kind", "url", "token"]))]
    DefenderSensor {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        #[schemars(extend("const" = "defender-sensor"))]
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
        /// Name of the sensor in tickets. Default: the source's name.
        sensor: String,
        /// Its word for a severity to ours, laid over `Warning`, `Minor`, `Major` and `Critical`.
        severity_map: Named<SeverityWord>,
        /// Its word for an engine to ours, laid over its five.
        engine_map: Named<EngineWord>,
    }
}

impl Kind for DefenderSensor {
    const WORD: &'static str = "defender-sensor";
    const LEAST: &'static str = "url = \"https://sensor.example\"\ntoken = \"-\"";

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
            console: false,
            url: &self.url,
            token: &self.token,
            tls: &self.tls,
            proxy: &self.proxy,
            poll_interval: &self.poll_interval,
            devices_interval: &self.devices_interval,
            sensor: Some(&self.sensor),
            // No way to write is documented for a sensor.
            write_back: None,
            severity_map: &self.severity_map,
            engine_map: &self.engine_map,
        };
        defender::check(&keys, common, c)
    }
}
