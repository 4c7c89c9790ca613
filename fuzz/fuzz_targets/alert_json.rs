//! Any bytes as a pushed body: no panic, every object within the body, every text of an alert within its bounds and safe
//! to show, and no object missed that a full JSON reader finds.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use otrelay::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::alert_json::{AlertJson, body};
use otrelay::source::format::{Outcome, Settings};

static FORMAT: LazyLock<AlertJson> = LazyLock::new(|| {
    AlertJson::new(Settings::new("fuzz", "fuzz", SourceName::new("push").expect("a good name")))
});

fuzz_target!(|bytes: &[u8]| {
    let mut count = 0;
    for item in body::items(bytes) {
        count += 1;
        if let Outcome::Alert(finding) = FORMAT.read(item.bytes, Timestamp::EPOCH) {
            let alert = &finding.alert;
            assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX);
            assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
            assert!(!alert.title.chars().any(char::is_control));
            let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
            assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
            assert!(alert.references.len() <= 32 && alert.protocols.len() <= 32);
        }
    }
    assert!(count <= bytes.len());
    if let Ok(serde_json::Value::Array(array)) = serde_json::from_slice(bytes) {
        assert_eq!(count, array.len(), "an array with other members than a JSON reader finds");
    }
});
