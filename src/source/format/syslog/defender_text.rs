//! The text message of Defender for IoT: pieces `key: value` in a fixed order, of which some may be missing and two occur
//! once for each end. What stands between the pieces is not documented: new lines, commas, semicolons and bars are taken.
//!
//! Read by position: a key counts only after the one before it in the order, so that a message which talks about
//! `Protocol:` does not become one. Of the two pieces after the message the last one in the text counts.

use std::borrow::Cow;

use super::super::super::RejectReason;
use super::event::{Event, Refusal};
use super::pairs::Pairs;

/// Words that begin a piece, in their order, and the key of Defender's CEF that has the same meaning.
const PIECES: [(&str, &str); 16] = [
    ("cyberx platform name", "senderName"),
    ("sensor name", "senderName"),
    ("alert", "title"),
    ("type", "type"),
    ("severity", "severity"),
    ("source", "srcName"),
    ("source ip", "src_ip"),
    ("protocol", "protocol"),
    ("address", "src_mac"),
    ("destination", "dstName"),
    ("destination ip", "dst_ip"),
    ("protocol", "protocol"),
    ("address", "dst_mac"),
    ("message", "msg"),
    ("alert group", "cat"),
    ("uuid", "UUID"),
];
/// Where the message is in [`PIECES`]: behind it the last piece of a name counts.
const MESSAGE: usize = 13;
const TITLE: usize = 2;

/// Whether the text is one: it names the title as Defender does.
pub(super) fn is_it(text: &str) -> bool {
    Piece::all(text).any(|piece| piece.names(TITLE))
}

/// The text with its lines, where a relay has written the ends of lines as text (`#012`).
pub(super) fn in_lines(text: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\n', text.as_bytes()).is_some() || !text.contains("#012") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("#015#012", "\n").replace("#012", "\n"))
}

/// Reads the text.
pub(super) fn read(text: &str) -> Result<Event<'_>, Refusal> {
    let mut found: [Option<Piece<'_>>; PIECES.len()] = [None; PIECES.len()];
    let mut next = 0;
    for piece in Piece::all(text) {
        let from = if next > MESSAGE { MESSAGE + 1 } else { next };
        if let Some(at) = (from..PIECES.len()).find(|at| piece.names(*at)) {
            found[at] = Some(piece);
            next = at + 1;
        }
    }
    if found[TITLE].is_none() {
        let detail = "not Defender's text: no `Microsoft Defender for IoT Alert:` in it";
        return Err((RejectReason::Malformed, Cow::Borrowed(detail)));
    }
    let mut begins: Vec<usize> = found.iter().flatten().map(|piece| piece.begin).collect();
    begins.sort_unstable();
    let value = |piece: &Piece<'_>| {
        let end = begins.iter().find(|begin| **begin > piece.begin).copied().unwrap_or(text.len());
        let value = text.get(piece.value..end).unwrap_or_default();
        value.trim_matches(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '|'))
    };
    let pairs =
        found.iter().enumerate().filter_map(|(at, piece)| Some((PIECES[at].1, value(piece.as_ref()?))));
    Ok(Event {
        vendor: Cow::Borrowed("Microsoft Defender for IoT"),
        pairs: Pairs::of(pairs.collect()),
        ..Event::default()
    })
}

/// Something that may be a piece: words in front of a colon, at the beginning or after what parts pieces.
#[derive(Clone, Copy)]
struct Piece<'a> {
    /// Where its words begin.
    begin: usize,
    words: &'a str,
    /// Where its value begins.
    value: usize,
}

impl<'a> Piece<'a> {
    /// Longest words that are looked at, in bytes.
    const WORDS_MAX: usize = 48;

    fn all(text: &'a str) -> impl Iterator<Item = Self> {
        let mut last = 0;
        memchr::memchr_iter(b':', text.as_bytes()).filter_map(move |colon| {
            let between = &text[last..colon];
            let first = last == 0;
            last = colon + 1;
            let near = &between[between.ceil_char_boundary(between.len().saturating_sub(Self::WORDS_MAX))..];
            let parted = near.rfind([',', ';', '|', '\n', '\t']);
            let words = match parted {
                Some(at) => &near[at + 1..],
                // The first piece may follow the tag of the header.
                None if first => near,
                None => return None,
            };
            let words = words.trim();
            let begin = words.as_ptr() as usize - text.as_ptr() as usize;
            (!words.is_empty()).then_some(Self { begin, words, value: colon + 1 })
        })
    }

    fn names(&self, at: usize) -> bool {
        const TITLES: [&str; 4] =
            ["defender for iot alert", "cyberx platform alert", "cyberx alert", "alert title"];
        let ends = |end: &str| {
            let from = self.words.len().checked_sub(end.len());
            from.and_then(|from| self.words.get(from..)).is_some_and(|words| words.eq_ignore_ascii_case(end))
        };
        match at {
            TITLE => TITLES.iter().any(|title| ends(title)),
            // The first words may stand behind the tag.
            0 | 1 => ends(PIECES[at].0),
            _ => {
                self.words.eq_ignore_ascii_case(PIECES[at].0)
                    || (at == MESSAGE + 1 && self.words.eq_ignore_ascii_case("alert_group"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "CyberX platform name: plant 1, Microsoft Defender for IoT Alert: Address Scan Detected, \
        Type: Anomaly, Severity: Critical, Source: hmi-3, Source IP: 10.10.10.22, Protocol: SMB, \
        Destination: plc-1, Destination IP: 10.10.10.30, Address: 00:11:22:33:44:55, Message: Scan seen, \
        Protocol: none. Type: x, Alert group: Scan, UUID: 12-1594808260000";

    #[test]
    fn pieces_by_their_position() {
        for text in [TEXT.to_owned(), TEXT.replace(", ", "\n"), TEXT.replace(", ", "|")] {
            let event = read(&text).unwrap();
            let get = |key| event.pairs.get(key).map(Cow::into_owned).unwrap_or_default();
            assert_eq!((get("senderName"), get("title")), ("plant 1".into(), "Address Scan Detected".into()));
            assert_eq!((get("type"), get("severity")), ("Anomaly".into(), "Critical".into()));
            assert_eq!((get("srcName"), get("src_ip")), ("hmi-3".into(), "10.10.10.22".into()));
            assert_eq!((get("dstName"), get("dst_ip")), ("plc-1".into(), "10.10.10.30".into()));
            assert_eq!((get("protocol"), get("src_mac")), ("SMB".into(), String::new()));
            assert_eq!(get("dst_mac"), "00:11:22:33:44:55");
            assert!(get("msg").starts_with("Scan seen") && get("msg").ends_with("Type: x"), "{}", get("msg"));
            assert_eq!((get("cat"), get("UUID")), ("Scan".into(), "12-1594808260000".into()));
        }
    }

    #[test]
    fn lines_that_a_relay_has_written_out() {
        for end in ["#012", "#015#012"] {
            let text = TEXT.replace(", ", end);
            let lines = in_lines(&text);
            assert!(is_it(&lines), "{text}");
            let event = read(&lines).unwrap();
            assert_eq!(event.pairs.get("dst_ip").as_deref(), Some("10.10.10.30"));
            assert_eq!(event.pairs.get("title").as_deref(), Some("Address Scan Detected"));
        }
        assert_eq!(in_lines("a#012b\n"), "a#012b\n");
    }

    #[test]
    fn the_last_group_and_id_count() {
        let text =
            "Microsoft Defender for IoT Alert: T, Message: it said, UUID: 1-1, Alert group: Scan, UUID: 2-2";
        let event = read(text).unwrap();
        assert_eq!(event.pairs.get("UUID").as_deref(), Some("2-2"));
        assert_eq!(event.pairs.get("cat").as_deref(), Some("Scan"));
    }

    #[test]
    fn what_is_not_it() {
        assert!(is_it("Azure Defender for IoT Alert: T") && is_it("a: b\nCyberX Alert: T"));
        for bad in ["", "Alert: T", "about Microsoft Defender for IoT Alerts", "Severity: Critical", "::::"] {
            assert!(!is_it(bad) && read(bad).is_err(), "{bad}");
        }
    }
}
