//! What products mean by their classes and words, beyond what a table of keys says.

use super::event::Event;
use crate::model::{Engine, Severity};

/// Kinds of CTD that are no alerts. Class ids begin with the kind.
pub(super) fn claroty_ignored(event: &Event<'_>) -> Option<&'static str> {
    const KINDS: [(&str, &str); 4] = [
        ("healthcheck", "health check"),
        ("activitylog", "activity log"),
        ("insight", "insight"),
        ("event/", "event"),
    ];
    let class = event.class.to_ascii_lowercase();
    KINDS.iter().find(|(begin, _)| class.starts_with(begin)).map(|(_, kind)| *kind)
}

/// xDome sends communication events beside its alerts.
pub(super) fn xdome_ignored(event: &Event<'_>) -> Option<&'static str> {
    event.class.eq_ignore_ascii_case("comm_event").then_some("event")
}

/// Group `Integrity` is deviation from the baseline, group `Security` is behaviour; some types are more than that.
pub(super) fn claroty_engine(event: &Event<'_>) -> Option<Engine> {
    let category = event.pairs.first(&["CtdCategory", "cat"])?.to_ascii_lowercase();
    let (group, kind) = category.split_once('/').unwrap_or((&category, ""));
    by_words(kind).or_else(|| by_words(&event.name.to_ascii_lowercase())).or(match group.trim() {
        "integrity" => Some(Engine::PolicyViolation),
        "security" => Some(Engine::Anomaly),
        _ => None,
    })
}

/// By the beginning of the type id (`SIGN:PROGRAM:CHANGE`); the first that fits.
pub(super) fn nozomi_engine(event: &Event<'_>) -> Option<Engine> {
    const TYPES: [(&str, Engine); 14] = [
        ("SIGN:MALWARE", Engine::Malware),
        ("SIGN:MALICIOUS", Engine::Malware),
        ("SIGN:PROGRAM", Engine::PolicyViolation),
        ("SIGN:CONFIGURATION-CHANGE", Engine::PolicyViolation),
        ("SIGN:FIRMWARE", Engine::PolicyViolation),
        ("SIGN:PROTOCOL", Engine::ProtocolViolation),
        ("SIGN:SCADA-MALFORMED", Engine::ProtocolViolation),
        ("SIGN:NETWORK-MALFORMED", Engine::ProtocolViolation),
        ("SIGN:MALFORMED", Engine::ProtocolViolation),
        ("VI:", Engine::PolicyViolation),
        ("ASRT:", Engine::PolicyViolation),
        ("PROC:", Engine::Anomaly),
        ("NET:", Engine::Operational),
        ("HEALTH", Engine::Operational),
    ];
    let class = event.class.to_ascii_uppercase();
    TYPES.iter().find(|(begin, _)| class.starts_with(begin)).map(|(_, engine)| *engine)
}

/// Words of classes, titles and categories; the first one here that is there counts.
static WORDS: [(&str, Engine); 42] = [
    ("malware", Engine::Malware),
    ("malicious", Engine::Malware),
    ("ransom", Engine::Malware),
    ("trojan", Engine::Malware),
    ("virus", Engine::Malware),
    ("botnet", Engine::Malware),
    ("exploit", Engine::Malware),
    ("known threat", Engine::Malware),
    ("backdoor", Engine::Malware),
    ("dangerous file", Engine::Malware),
    ("protocol violation", Engine::ProtocolViolation),
    ("protocol error", Engine::ProtocolViolation),
    ("malformed", Engine::ProtocolViolation),
    ("illegal function", Engine::ProtocolViolation),
    ("reserved", Engine::ProtocolViolation),
    ("invalid", Engine::ProtocolViolation),
    ("exception", Engine::ProtocolViolation),
    ("policy", Engine::PolicyViolation),
    ("unauthorized", Engine::PolicyViolation),
    ("not allowed", Engine::PolicyViolation),
    ("new asset", Engine::PolicyViolation),
    ("new device", Engine::PolicyViolation),
    ("new mac", Engine::PolicyViolation),
    ("new node", Engine::PolicyViolation),
    ("new link", Engine::PolicyViolation),
    ("baseline", Engine::PolicyViolation),
    ("download", Engine::PolicyViolation),
    ("upload", Engine::PolicyViolation),
    ("programming", Engine::PolicyViolation),
    ("logic update", Engine::PolicyViolation),
    ("firmware", Engine::PolicyViolation),
    ("configuration change", Engine::PolicyViolation),
    ("mode change", Engine::PolicyViolation),
    ("online edit", Engine::PolicyViolation),
    ("offline", Engine::Operational),
    ("disconnect", Engine::Operational),
    ("unresponsive", Engine::Operational),
    ("health", Engine::Operational),
    ("operational", Engine::Operational),
    ("restart", Engine::Operational),
    ("no traffic", Engine::Operational),
    ("backup", Engine::Operational),
];

/// Which of them begin with a byte, a bit for each: every message is looked through for all.
static BEGINS: [u64; 128] = {
    assert!(WORDS.len() < 64);
    let (mut begins, mut at) = ([0; 128], 0);
    while at < WORDS.len() {
        begins[WORDS[at].0.as_bytes()[0] as usize] |= 1 << at;
        at += 1;
    }
    begins
};

/// Engine by the words of class, title or category, whatever their case.
pub(super) fn by_words(text: &str) -> Option<Engine> {
    if !text.is_ascii() {
        let lower = text.to_lowercase();
        return by_bytes(lower.as_bytes());
    }
    by_bytes(text.as_bytes())
}

/// Case is told apart for ASCII only.
fn by_bytes(text: &[u8]) -> Option<Engine> {
    let mut first = WORDS.len();
    for (at, byte) in text.iter().enumerate() {
        let begins = BEGINS.get(usize::from(byte.to_ascii_lowercase())).copied().unwrap_or(0);
        let mut left = begins & ((1 << first) - 1);
        while left != 0 {
            let word = left.trailing_zeros() as usize;
            if begins_with(&text[at..], WORDS[word].0.as_bytes()) {
                first = word;
                break;
            }
            left &= left - 1;
        }
    }
    WORDS.get(first).map(|(_, engine)| *engine)
}

/// Without a call for what differs at once.
fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len()
        && text.iter().zip(word).all(|(byte, wanted)| byte.to_ascii_lowercase() == *wanted)
}

/// Severity as written: our words, the words of CEF and of products, numbers to 10. `None`: nothing was written.
pub(super) fn severity(written: &str) -> Option<Severity> {
    let written = written.trim();
    let digits = written.len() - written.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    if digits > 0 {
        return Some(match written[..digits].parse::<u32>() {
            Ok(9..=10) => Severity::Critical,
            Ok(7..=8) => Severity::Major,
            Ok(4..=6) => Severity::Minor,
            _ => Severity::Warning,
        });
    }
    let word = written.to_ascii_lowercase().replace([' ', '_'], "-");
    match word.as_str() {
        "" => None,
        "very-high" | "critical" | "severe" | "emergency" | "fatal" => Some(Severity::Critical),
        "high" | "major" | "error" | "alert" => Some(Severity::Major),
        "medium" | "minor" | "moderate" => Some(Severity::Minor),
        _ => Some(Severity::Warning),
    }
}

/// Severity of a plain message, by its syslog severity.
pub(super) fn syslog_severity(number: u8) -> Severity {
    match number {
        0..=2 => Severity::Critical,
        3 => Severity::Major,
        4 => Severity::Minor,
        _ => Severity::Warning,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_the_table_counts_wherever_it_stands() {
        for text in [
            "",
            "x",
            "Odd write",
            "PLC was restarted with new firmware",
            "Éxploit",
            "MALWAR",
            "é",
            "K\u{212a}",
        ]
        .into_iter()
        .map(str::to_owned)
        .chain(WORDS.iter().map(|(word, _)| format!("Ein {} here", word.to_uppercase())))
        .chain(WORDS.windows(2).map(|two| format!("{}{}", two[1].0, two[0].0)))
        {
            let lower = text.to_lowercase();
            let plain = WORDS.iter().find(|(word, _)| lower.contains(word)).map(|(_, engine)| *engine);
            assert_eq!(by_words(&text), plain, "{text}");
        }
    }

    #[test]
    fn severities_as_written() {
        for (written, expected) in [
            ("10", Some(Severity::Critical)),
            ("9", Some(Severity::Critical)),
            ("8", Some(Severity::Major)),
            ("5.3", Some(Severity::Minor)),
            ("4", Some(Severity::Minor)),
            ("1", Some(Severity::Warning)),
            ("0", Some(Severity::Warning)),
            ("100", Some(Severity::Warning)),
            ("99999999999", Some(Severity::Warning)),
            ("Very-High", Some(Severity::Critical)),
            ("Very High", Some(Severity::Critical)),
            ("Critical", Some(Severity::Critical)),
            ("High", Some(Severity::Major)),
            ("Medium", Some(Severity::Minor)),
            ("Unapproved", Some(Severity::Warning)),
            ("Unknown", Some(Severity::Warning)),
            ("Major", Some(Severity::Major)),
            ("", None),
        ] {
            assert_eq!(severity(written), expected, "{written}");
        }
    }
}
