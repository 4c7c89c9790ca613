//! Any bytes as a page of Defender for IoT's API: no panic, in whatever pieces the page arrives, every text within its
//! bounds and safe to show, and no record of a good page lost.
#![no_main]


use libfuzzer_sys::fuzz_target;
use otrelay::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use otrelay::model::device::{ATTRIBUTE_MAX, PARTS_MAX};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::defender::split::{Piece, Splitter};
use otrelay::source::format::defender::{Defender, Settings, Subject};
use otrelay::source::format::{Decoded, Decoder, Outcome, Settings as Common};

const SUBJECTS: [Subject; 6] = [
    Subject::Alerts(None),
    Subject::Devices,
    Subject::Connections,
    Subject::Cves,
    Subject::Deleted,
    Subject::Sensors,
];

fn cut(page: &[u8], chunk: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut splitter, mut records) = (Splitter::new(), Vec::new());
    let fed = page.chunks(chunk).try_for_each(|bytes| {
        splitter.feed(bytes, |piece| {
            if let Piece::Record(record) = piece {
                records.push(record.to_vec());
            }
        })
    });
    (records, fed.is_ok() && splitter.finish().is_ok())
}

fn bounded(decoded: &Decoded) {
    if let Outcome::Alert(finding) = &decoded.outcome {
        let alert = &finding.alert;
        assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX && !alert.sensor.is_empty());
        assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
        assert!(!alert.title.chars().any(char::is_control));
        let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
    }
    for device in &decoded.devices {
        assert!(device.name.as_deref().unwrap_or_default().len() <= ATTRIBUTE_MAX);
        assert!(device.ips.len() <= PARTS_MAX && device.connections.len() <= PARTS_MAX);
    }
}

fuzz_target!(|page: &[u8]| {
    let (records, whole) = cut(page, page.len().max(1));
    assert_eq!(cut(page, 3), (records.clone(), whole), "the pieces of a page depend on how it arrives");
    if let Ok(values) = serde_json::from_slice::<Vec<serde_json::Value>>(page) {
        assert_eq!((records.len(), whole), (values.len(), true), "a record of a good page was lost");
    }
    let format = Defender::new(Settings {
        common: Common::new("fuzz", "fuzz", SourceName::new("defender").expect("a good name")),
        console: true,
    });
    for subject in SUBJECTS {
        let mut reader = format.reader(subject);
        for record in &records {
            bounded(&reader.decode(record, Timestamp::EPOCH));
        }
    }
});
