//! CEF: seven header fields between bars, then pairs. Escapes as written by real products, not only as specified.

use std::borrow::Cow;

use super::super::super::RejectReason;
use super::event::{Event, Refusal};
use super::pairs::{Pairs, unescape};

/// Begins a message.
pub(super) const MARK: &str = "CEF:";

/// How many bars an unescaped bar in a name may be followed by before the severity.
const BARS_IN_NAME: usize = 4;

/// Reads from the version on: `0|vendor|product|version|class|name|severity|pairs`.
pub(super) fn read(text: &str) -> Result<Event<'_>, Refusal> {
    let mut rest = text;
    let mut fields = [""; 7];
    for (number, field) in fields.iter_mut().enumerate() {
        if let Some((value, after)) = split(rest) {
            (*field, rest) = (value, after);
        } else if number == 6 && !rest.contains('=') {
            // Some forget the last bar where no pairs follow.
            (*field, rest) = (rest, "");
        } else {
            let detail =
                format!("CEF: the header has {number} fields of 7 (version to severity, each ended by `|`)");
            return Err((RejectReason::Malformed, Cow::Owned(detail)));
        }
    }
    let [_version, vendor, product, version, class, name, severity] = fields;
    let (name, severity, rest) = severity_moved(text, name, severity, rest);
    Ok(Event {
        vendor: field(vendor),
        product: field(product),
        version: field(version),
        class: field(class),
        name: field(name),
        severity: field(severity),
        pairs: Pairs::spaced(rest, true),
    })
}

/// Up to the next bar that is not escaped, and what follows it.
fn split(text: &str) -> Option<(&str, &str)> {
    memchr::memchr_iter(b'|', text.as_bytes()).find_map(|at| {
        let escapes = text.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        (escapes % 2 == 0).then(|| (&text[..at], &text[at + 1..]))
    })
}

/// Products that do not escape a bar in the name move the severity to the right. Where the field is no severity and one
/// of the next is, the fields between them are the name.
fn severity_moved<'a>(
    text: &'a str,
    name: &'a str,
    severity: &'a str,
    rest: &'a str,
) -> (&'a str, &'a str, &'a str) {
    if is_severity(severity) {
        return (name, severity, rest);
    }
    let mut after = rest;
    for _ in 0..BARS_IN_NAME {
        let Some((field, next)) = split(after).filter(|(field, _)| !field.contains('=')) else { break };
        if !field.trim().is_empty() && is_severity(field) {
            let from = name.as_ptr() as usize - text.as_ptr() as usize;
            let to = field.as_ptr() as usize - text.as_ptr() as usize - 1;
            return (&text[from..to], field, next);
        }
        after = next;
    }
    (name, severity, rest)
}

/// A number up to 100, one of the specification's words or one of those that products use, or nothing.
fn is_severity(field: &str) -> bool {
    const WORDS: [&str; 16] = [
        "unknown",
        "low",
        "medium",
        "high",
        "very-high",
        "critical",
        "major",
        "minor",
        "warning",
        "info",
        "informational",
        "notice",
        "error",
        "severe",
        "alert",
        "unapproved",
    ];
    let field = field.trim();
    field.is_empty()
        || field.parse::<f32>().is_ok_and(|number| (0.0..=100.0).contains(&number))
        || WORDS.iter().any(|word| word.eq_ignore_ascii_case(field))
}

fn field(text: &str) -> Cow<'_, str> {
    unescape(text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: [&str; 6], pairs: &[(&str, &str)]) {
        let event = read(text).unwrap();
        let header =
            [&event.vendor, &event.product, &event.version, &event.class, &event.name, &event.severity];
        assert_eq!(header.map(AsRef::as_ref), expected, "{text}");
        for (key, value) in pairs {
            assert_eq!(event.pairs.get(key).as_deref(), Some(*value), "{text}");
        }
    }

    #[test]
    fn headers() {
        check("0|V|P|1|7|Name|5|src=10.0.0.1", ["V", "P", "1", "7", "Name", "5"], &[("src", "10.0.0.1")]);
        check("0|||1.0|7|Name|5|", ["", "", "1.0", "7", "Name", "5"], &[]);
        check("0|V|P|1|7|Name|5", ["V", "P", "1", "7", "Name", "5"], &[]);
        check(r"0|V\|W|P\\|1|a=b|N\\a\me|5|", [r"V|W", r"P\", "1", "a=b", r"N\a\me", "5"], &[]);
        check("0|V|P|1|7|Name||a=1", ["V", "P", "1", "7", "Name", ""], &[("a", "1")]);
        check("0|V|P|1|7|Name|Very-High|a=1", ["V", "P", "1", "7", "Name", "Very-High"], &[("a", "1")]);
    }

    #[test]
    fn bars_that_are_not_escaped() {
        check("0|V|P|1|7|Read | write|5|a=x|y", ["V", "P", "1", "7", "Read | write", "5"], &[("a", "x|y")]);
        check("0|V|P|1|7|a|b|c|High|k=1", ["V", "P", "1", "7", "a|b|c", "High"], &[("k", "1")]);
        check("0|V|P|1|7|Name|odd|k=1|5|", ["V", "P", "1", "7", "Name", "odd"], &[("k", "1|5|")]);
        check("0|V|P|1|7|Name|5|msg=a|b c\\|d", ["V", "P", "1", "7", "Name", "5"], &[("msg", "a|b c|d")]);
    }

    #[test]
    fn what_is_no_header() {
        for bad in
            ["", "0", "0|V", "0|V|P|1|7|Name", "0|V|P|1|7|Name|5 src=10.0.0.1", r"0|V\|P|1|7|Name|5 a=b"]
        {
            assert!(matches!(read(bad), Err((RejectReason::Malformed, _))), "{bad}");
        }
    }
}
