//! The header of a syslog message: RFC 5424, RFC 3164, and what real senders write in their place.
//!
//! Own code, and not the crate `syslog_loose`: that one refuses the two blanks which Claroty puts after the version, needs
//! text where real lines have bytes, builds a list of structured data that nobody reads, and brings a second library of
//! dates. What is needed here is little: who sent it, when, and where the text begins. A header that is not one is no
//! error: everything is text then.

use jiff::tz::TimeZone;

use super::time;
use crate::model::Timestamp;

/// A message, taken apart. What it does not say is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Facility times eight plus severity, 0 to 191.
    pub(super) priority: Option<u8>,
    /// When it was sent, by the sender's clock.
    pub(super) time: Option<Timestamp>,
    /// Who sent it, by its own word.
    pub(super) host: Option<&'a str>,
    /// The program: APP-NAME, or the tag without its process id.
    pub(super) app: Option<&'a str>,
    /// The rest.
    pub(super) text: &'a str,
}

/// Priority of a message without one: user.notice (RFC 3164, 4.3.3).
const DEFAULT_PRIORITY: u8 = 13;

impl<'a> Message<'a> {
    /// Takes `line` apart. Times without a zone are in `zone`, times without a year are near `received_at`.
    pub(super) fn read(line: &'a str, zone: &TimeZone, received_at: Timestamp) -> Self {
        let line = line.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0' || c == '\u{feff}');
        let outer = Self::header(line, zone, received_at);
        // A relay has put a header of its own before that of the sender: whose message it is says the inner one.
        if outer.text.starts_with('<') && outer.priority.is_some() {
            let inner = Self::header(outer.text, zone, received_at);
            if inner.priority.is_some() && inner.host.is_some() {
                return inner;
            }
        }
        outer
    }

    fn header(line: &'a str, zone: &TimeZone, received_at: Timestamp) -> Self {
        let (priority, rest) = priority(line);
        let message = rfc5424(rest, zone).unwrap_or_else(|| rfc3164(rest, zone, received_at));
        Self { priority, ..message }
    }

    /// Severity of the priority: 0 emergency to 7 debug.
    pub(super) fn severity(&self) -> u8 {
        self.priority.unwrap_or(DEFAULT_PRIORITY) & 7
    }
}

/// `<0>` to `<191>` at the beginning.
fn priority(line: &str) -> (Option<u8>, &str) {
    let read = || {
        let (digits, rest) = line.strip_prefix('<')?.split_once('>')?;
        let plain = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u8>().ok().filter(|number| plain && *number <= 191)?;
        Some((number, rest))
    };
    read().map_or((None, line), |(number, rest)| (Some(number), rest))
}

/// The next word; runs of blanks count as one.
fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let text = rest.trim_start_matches(' ');
    let end = text.find(' ').unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    (!word.is_empty()).then_some(word)
}

/// `1 TIME HOST APP PROCID MSGID SD [MSG]`; `None` when it is not that.
fn rfc5424<'a>(rest: &'a str, zone: &TimeZone) -> Option<Message<'a>> {
    let mut rest = rest.strip_prefix('1').filter(|rest| rest.starts_with(' '))?;
    let known = |word: &'a str| (word != "-").then_some(word);
    let time = match word(&mut rest)? {
        "-" => None,
        written => Some(time::iso(written, zone)?),
    };
    let host = known(word(&mut rest)?);
    let app = known(word(&mut rest)?);
    let (_process, _kind) = (word(&mut rest)?, word(&mut rest)?);
    let text = after_structured_data(rest.trim_start_matches(' '))?;
    let text = text.trim_start_matches(' ').trim_start_matches('\u{feff}');
    Some(Message { priority: None, time, host, app, text })
}

/// What follows `-` or `[id name="value" …]…`. Senders that leave it out altogether are taken at their text.
fn after_structured_data(rest: &str) -> Option<&str> {
    if let Some(text) = rest.strip_prefix('-').filter(|text| text.is_empty() || text.starts_with(' ')) {
        return Some(text);
    }
    if !rest.starts_with('[') {
        return Some(rest);
    }
    let (mut quoted, mut escaped, mut open) = (false, false, false);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' if !quoted && !open => open = true,
            b']' if !quoted && open => open = false,
            _ if !quoted && !open => return Some(&rest[at..]),
            _ => {}
        }
    }
    (!open && !quoted).then_some("")
}

/// `TIME HOST TAG: MSG`, any part of which may be missing.
fn rfc3164<'a>(rest: &'a str, zone: &TimeZone, received_at: Timestamp) -> Message<'a> {
    let rest = rest.trim_start();
    let Some((time, after)) = time::leading(rest, zone, received_at) else {
        let (app, text) = tag(rest);
        return Message { app, text, ..Message::default() };
    };
    let mut rest = after.trim_start_matches([' ', ':']);
    let mut next = rest;
    let host = word(&mut next).filter(|word| !is_tag(word) && !begins_payload(word));
    if host.is_some() {
        rest = next.trim_start_matches(' ');
    }
    let (app, text) = tag(rest);
    Message { priority: None, time: Some(time), host, app, text }
}

/// The tag in front of the text, without `[pid]` and colon.
fn tag(rest: &str) -> (Option<&str>, &str) {
    let mut after = rest;
    match word(&mut after) {
        Some(word) if is_tag(word) && !begins_payload(word) => {
            let name = word.split(['[', ':']).next().filter(|name| !name.is_empty());
            (name, after.trim_start_matches(' '))
        }
        _ => (None, rest),
    }
}

/// `program:`, `program[123]:`, and `program[123]` as Radiflow writes it.
fn is_tag(word: &str) -> bool {
    let bare = word.strip_suffix(':');
    let named = bare.unwrap_or(word);
    let process = named.strip_suffix(']').and_then(|named| named.split_once('['));
    bare.is_some_and(|name| !name.contains(':')) || process.is_some()
}

fn begins_payload(word: &str) -> bool {
    word.starts_with("CEF:") || word.starts_with("LEEF:")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

    fn check(line: &str, priority: Option<u8>, time: &str, host: &str, app: &str, text: &str) {
        let message = Message::read(line, &TimeZone::UTC, NOW);
        let read = (
            message.priority,
            message.time.map(|time| time.to_string()).unwrap_or_default(),
            message.host.unwrap_or_default(),
            message.app.unwrap_or_default(),
            message.text,
        );
        assert_eq!(read, (priority, time.to_owned(), host, app, text), "{line}");
    }

    #[test]
    fn bsd_headers_in_their_variants() {
        check("<9>May  5 12:29:23 plc-gw ids: up", Some(9), "2026-05-05T12:29:23Z", "plc-gw", "ids", "up");
        check("<9>May 5 12:29:23 gw ids[7]: up", Some(9), "2026-05-05T12:29:23Z", "gw", "ids", "up");
        check("<9>May 05 2019 12:29:23 gw up", Some(9), "2019-05-05T12:29:23Z", "gw", "", "up");
        check("Dec 31 23:59:59 gw up", None, "2025-12-31T23:59:59Z", "gw", "", "up");
        check(
            "<14>2026-05-05T12:29:23+02:00 fe80::1 up",
            Some(14),
            "2026-05-05T10:29:23Z",
            "fe80::1",
            "",
            "up",
        );
        check("<13>May  5 12:29:23 root: hello", Some(13), "2026-05-05T12:29:23Z", "", "root", "hello");
        check("<13>root: hello", Some(13), "", "", "root", "hello");
        check("<13>hello world", Some(13), "", "", "", "hello world");
        check("CEF:0|a|b|", None, "", "", "", "CEF:0|a|b|");
        check(
            "May 18 16:02:00 isid-lab isid-lab[1] CEF:0|r|",
            None,
            "2026-05-18T16:02:00Z",
            "isid-lab",
            "isid-lab",
            "CEF:0|r|",
        );
        check("<9>May  5 12:29:23 CEF:0|a|b|", Some(9), "2026-05-05T12:29:23Z", "", "", "CEF:0|a|b|");
    }

    #[test]
    fn of_two_headers_the_inner_one_says_who_it_was() {
        let (time, text) = ("2026-11-21T07:00:01Z", "CEF:0|r|");
        let inner = "<14>Nov 21 07:00:01 isid-a isid-a[1] CEF:0|r|";
        check(&format!("<13>Nov 21 07:00:00 relay {inner}"), Some(14), time, "isid-a", "isid-a", text);
        check(&format!("<13>1 - relay app - - - {inner}"), Some(14), time, "isid-a", "isid-a", text);
        check("<13>Nov 21 07:00:01 relay <b> x", Some(13), time, "relay", "", "<b> x");
        check("<13>Nov 21 07:00:01 relay <14>x", Some(13), time, "relay", "", "<14>x");
    }

    #[test]
    fn new_headers_in_their_variants() {
        let time = "2026-08-15T01:00:00Z";
        check("<14>1 2026-08-15T01:00:00Z h app 1 - - hello", Some(14), time, "h", "app", "hello");
        check("<14>1  2026-08-15T01:00:00Z h app - - - CEF:0|", Some(14), time, "h", "app", "CEF:0|");
        check("<14>1 - - - - - -", Some(14), "", "", "", "");
        check("<14>1 - h a p m [x@1 a=\"] \\\" \\] [\"][y] \u{feff}text\n\0", Some(14), "", "h", "a", "text");
        check("<14>1 - h a p m text without data", Some(14), "", "h", "a", "text without data");
        check("<14>1 - h a p m [x a=\"open", Some(14), "", "", "", "1 - h a p m [x a=\"open");
        check("<14>1 yesterday h a p m - x", Some(14), "", "", "", "1 yesterday h a p m - x");
    }

    #[test]
    fn priorities() {
        for (line, expected) in [
            ("<0>a", Some(0)),
            ("<191>a", Some(191)),
            ("<192>a", None),
            ("<>a", None),
            ("<+1>a", None),
            ("<0001>a", None),
            ("< 1>a", None),
            ("a<1>", None),
        ] {
            assert_eq!(Message::read(line, &TimeZone::UTC, NOW).priority, expected, "{line}");
        }
        assert_eq!(Message::read("x", &TimeZone::UTC, NOW).severity(), 5);
    }
}
