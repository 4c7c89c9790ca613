//! Any bytes as a Zeek log: no panic, every text within its bounds and safe to show, devices and state bounded, and the
//! same records after a restart in the middle.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use otrelay::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use otrelay::model::device::{ATTRIBUTE_MAX, EXTRA_MAX, PARTS_MAX};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::zeek::Zeek;
use otrelay::source::format::{Format, Outcome, STATE_MAX, Settings, Stream};

static ZEEK: LazyLock<Zeek> = LazyLock::new(|| {
    Zeek::new(Settings::new("fuzz", "fuzz", SourceName::new("zeek").expect("a good name")))
});

fuzz_target!(|log: &[u8]| {
    let stream = Stream { name: "notice.log", ..Stream::default() };
    let mut decoder = ZEEK.decoder(&stream);
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let state = decoder.state();
        assert!(state.as_ref().is_none_or(|state| state.len() <= STATE_MAX));
        let decoded = decoder.decode(line, Timestamp::EPOCH);
        if let Some(state) = &state {
            let mut restarted = ZEEK.decoder(&Stream { state: Some(state), ..stream });
            let again = restarted.decode(line, Timestamp::EPOCH);
            assert_eq!(
                std::mem::discriminant(&again.outcome),
                std::mem::discriminant(&decoded.outcome),
                "a restart reads something else"
            );
        }
        if let Outcome::Alert(finding) = &decoded.outcome {
            let alert = &finding.alert;
            assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX);
            assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
            assert!(!alert.title.chars().any(char::is_control));
            let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
        }
        for device in &decoded.devices {
            assert!(device.extra.len() <= EXTRA_MAX && device.protocols.len() <= PARTS_MAX);
            let texts = [&device.name, &device.vendor, &device.model, &device.serial, &device.firmware];
            for text in texts.into_iter().flatten() {
                assert!(text.len() <= ATTRIBUTE_MAX && !text.chars().any(char::is_control));
            }
        }
    }
});
