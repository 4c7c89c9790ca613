//! `kind = "defender-sensor"`: the API of a Defender for IoT sensor.

use super::defender::{self, Keys};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::source::Settings;

defender::polled! {
    /// The API of a Defender for `IoT` sensor.
    DefenderSensor = "defender-sensor" {
        /// Name of the sensor in tickets. Default: the source's name.
        sensor: String,
    }
}

impl Kind for DefenderSensor {
    const WORD: &'static str = "defender-sensor";
    const LEAST: &'static str = "url = \"https://sensor.example\"\ntoken = \"-\"";

    /// No way to write is documented for a sensor.
    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        defender::check(&Keys { sensor: Some(&self.sensor), ..self.keys(false) }, common, c)
    }
}
