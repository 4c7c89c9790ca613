//! Any bytes as an EVE line: no panic, every text within its bounds and safe to show, and never an alert missed that a
//! full JSON reader finds.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use otrelay::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::{Apart, Outcome, Settings as Common};
use otrelay::source::format::eve::{Reader, Settings};

static READER: LazyLock<Reader> = LazyLock::new(|| {
    Reader::new(Settings {
        common: Common::new("fuzz", "fuzz", SourceName::new("eve").expect("a good name")),
        apart: Apart::default(),
        signature_severity: true,
        time_zone: jiff::tz::TimeZone::UTC,
    })
});

fuzz_target!(|line: &[u8]| {
    let outcome = READER.line(line, Timestamp::EPOCH);
    if let Outcome::Alert(finding) = &outcome {
        let alert = &finding.alert;
        assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX);
        assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
        assert!(!alert.title.chars().any(char::is_control));
        let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
        assert!(alert.references.len() <= 32 && !alert.sensor.is_empty());
    }
    let start = line.iter().position(|byte| *byte == b'{').unwrap_or(line.len());
    let full = serde_json::from_slice::<serde_json::Value>(&line[start..]);
    if full.is_ok_and(|value| value["event_type"] == "alert") {
        assert!(!matches!(outcome, Outcome::Ignored(_) | Outcome::Blank), "an alert was taken for something else");
    }
});
