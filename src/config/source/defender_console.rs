//! `kind = "defender-console"`: the API of a Defender for IoT management console.

use super::defender::{self, Keys};
use super::{Common, Kind};
use crate::config::check::Check;
use crate::config::read::List;
use crate::config::values::WriteBack;
use crate::source::Settings;

defender::polled! {
    /// The API of a Defender for `IoT` management console.
    DefenderConsole = "defender-console" {
        /// What it is told when the ticket of an alert was resolved or closed: `none` (default) or `handle`.
        write_back: WriteBack,
        /// The sources whose alerts carry this console's UUIDs, such as its syslog. Default: itself alone.
        write_back_for: List<String>,
    }
}

impl Kind for DefenderConsole {
    const WORD: &'static str = "defender-console";
    const LEAST: &'static str = "url = \"https://console.example\"\ntoken = \"-\"";

    fn check(&self, common: Common<'_>, c: &mut Check<'_>) -> Option<Settings> {
        let write_back = Some((&self.write_back, &self.write_back_for));
        defender::check(&Keys { write_back, ..self.keys(true) }, common, c)
    }
}
