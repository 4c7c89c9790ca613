//! What holds for the alert of any syslog message, whatever its format.


use otrelay::model::alert::{MESSAGE_MAX, RAW_MAX, TITLE_MAX};
use otrelay::model::{SourceName, Timestamp};
use otrelay::source::format::{Outcome, Settings as Common};
use otrelay::source::format::syslog::{Payload, Settings, Syslog};

/// A reader for each.
pub fn formats(payloads: &[Payload]) -> Vec<Syslog> {
    let settings = |payload: &Payload| Settings {
        common: Common::new("a1", "fuzz", SourceName::new("syslog").expect("a good name")),
        payload: *payload,
        time_zone: jiff::tz::TimeZone::UTC,
    };
    payloads.iter().map(|payload| Syslog::new(settings(payload))).collect()
}

/// Reads it with each of them.
pub fn check(formats: &[Syslog], message: &[u8]) {
    for format in formats {
        let decoded = format.read(message, None, Timestamp::from_secs(1_795_248_900));
        assert!(decoded.devices.len() <= 1);
        let Outcome::Alert(finding) = &decoded.outcome else { continue };
        let alert = &finding.alert;
        assert!(!alert.title.is_empty() && alert.title.len() <= TITLE_MAX);
        assert!(alert.message.len() <= MESSAGE_MAX && alert.raw.len() <= RAW_MAX);
        let shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
        assert!(!alert.title.chars().any(char::is_control));
        assert!(alert.message.chars().all(shown) && alert.raw.chars().all(shown));
        assert!(!alert.sensor.is_empty() && !alert.sensor.chars().any(char::is_control));
        assert!(alert.references.len() <= 32 && alert.protocols.len() <= 33);
        for end in [&alert.source, &alert.destination] {
            assert!(end.mac.as_ref().is_none_or(|mac| mac.len() == 17));
            assert!(end.name.as_ref().is_none_or(|name| !name.is_empty() && name.len() <= 256));
        }
    }
}
