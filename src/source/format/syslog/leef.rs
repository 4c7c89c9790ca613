//! LEEF 1.0 and 2.0: five header fields between bars, a delimiter of one's own (2.0), then pairs.

use std::borrow::Cow;

use super::super::super::RejectReason;
use super::event::{Event, Refusal};
use super::pairs::Pairs;

/// Begins a message.
pub(super) const MARK: &str = "LEEF:";

/// Reads from the version on: `1.0|vendor|product|version|event|pairs`, `2.0|…|event|delimiter|pairs`.
pub(super) fn read<'a>(text: &'a str) -> Result<Event<'a>, Refusal> {
    let mut fields = text.splitn(6, '|');
    let header = [(); 5].map(|()| fields.next());
    let rest = fields.next();
    let ([Some(format), Some(vendor), Some(product), Some(version), Some(class)], Some(rest)) =
        (header, rest)
    else {
        let count = text.split('|').count() - 1;
        let detail =
            format!("LEEF: the header has {count} fields of 5 (version to event, each ended by `|`)");
        return Err((RejectReason::Malformed, Cow::Owned(detail)));
    };
    let (delimiter, rest) = if format.starts_with('2') { delimiter(rest) } else { (None, rest) };
    let field = |text: &'a str| Cow::Borrowed(text.trim());
    Ok(Event {
        vendor: field(vendor),
        product: field(product),
        version: field(version),
        class: field(class),
        pairs: pairs(rest, delimiter),
        ..Event::default()
    })
}

/// What rsyslog and its kind make of a tab.
const WRITTEN_TAB: &str = "#011";
/// Longest field of a delimiter that is not understood, in bytes; what is longer is text.
const FIELD_MAX: usize = 8;

/// The delimiter of LEEF 2.0 and the pairs. The field may be empty (a tab) or missing (pairs begin at once); one that is
/// not understood is as if empty.
fn delimiter(rest: &str) -> (Option<char>, &str) {
    let Some((field, pairs)) = rest.split_once('|') else { return (None, rest) };
    let field = field.trim_matches(' ');
    let code = ["0x", "0X", "\\x", "\\X", "x", "X"].iter().find_map(|prefix| field.strip_prefix(prefix));
    let code = code.filter(|digits| (1..=4).contains(&digits.len()));
    let coded = code.and_then(|digits| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32));
    let mut letters = field.chars();
    match (letters.next(), letters.next(), coded) {
        (None, ..) => (None, pairs),
        (_, _, Some(delimiter)) => (Some(delimiter), pairs),
        (Some(delimiter), None, None) if delimiter != '=' => (Some(delimiter), pairs),
        _ if field.len() <= FIELD_MAX && !field.contains(['=', '\t']) => (None, pairs),
        // No delimiter is told, and the first pairs have the bar in them.
        _ => (None, rest),
    }
}

/// Where no delimiter is told it is a tab; relays write it as text, real products use `|`, and documents show blanks.
fn pairs(text: &str, delimiter: Option<char>) -> Pairs<'_> {
    if let Some(delimiter) = delimiter.filter(|delimiter| *delimiter != '\t') {
        return Pairs::delimited(text, delimiter);
    }
    if text.contains('\t') {
        return Pairs::delimited(text, '\t');
    }
    if text.contains(WRITTEN_TAB) {
        return Pairs::parted(text.split(WRITTEN_TAB));
    }
    let barred = text.split('|').skip(1).filter(|part| begins_pair(part)).take(2).count() == 2;
    if barred { Pairs::delimited(text, '|') } else { Pairs::spaced(text, false) }
}

fn begins_pair(part: &str) -> bool {
    part.split_once('=')
        .is_some_and(|(key, _)| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, pairs: &[(&str, &str)]) {
        let event = read(text).unwrap();
        let header = [&event.vendor, &event.product, &event.version, &event.class];
        assert_eq!(header.map(AsRef::as_ref), ["V", "P", "9", "E"], "{text}");
        for (key, value) in pairs {
            assert_eq!(event.pairs.get(key).as_deref(), Some(*value), "{text}");
        }
        assert_eq!(event.pairs.len(), pairs.len(), "{text}");
    }

    #[test]
    fn delimiters() {
        let pairs = &[("src", "10.0.0.1"), ("msg", "a b")][..];
        check("1.0|V|P|9|E|src=10.0.0.1\tmsg=a b", pairs);
        check("2.0|V|P|9|E|^|src=10.0.0.1^msg=a b", pairs);
        check("2.0|V|P|9|E|x5E|src=10.0.0.1^msg=a b", pairs);
        check("2.0|V|P|9|E|0x5e|src=10.0.0.1^msg=a b", pairs);
        check("2.0|V|P|9|E|0x09|src=10.0.0.1\tmsg=a b", pairs);
        check("2.0|V|P|9|E|x7c|src=10.0.0.1|msg=a b", pairs);
        check("2.0|V|P|9|E|xa6|src=10.0.0.1¦msg=a b", pairs);
        check("2.0|V|P|9|E||src=10.0.0.1\tmsg=a b", pairs);
        check("2.0|V|P|9|E|src=10.0.0.1\tmsg=a b", pairs);
        check("2.0|V|P|9|E|x|src=10.0.0.1xmsg=a b", pairs);
        check("1.0|V|P|9|E|src=10.0.0.1 msg=a b", pairs);
        check("1.0|V|P|9|E|cat=T|src=10.0.0.1|msg=a b", &[("cat", "T"), ("src", "10.0.0.1"), ("msg", "a b")]);
        check("1.0|V|P|9|E|msg=a|b\tsrc=10.0.0.1", &[("msg", "a|b"), ("src", "10.0.0.1")]);
        check("1.0|V|P|9|E|", &[]);
        check("1.0|V|P|9|E|src=10.0.0.1#011msg=a b", pairs);
        check("2.0|V|P|9|E||src=10.0.0.1#011msg=a b", pairs);
        check("2.0|V|P|9|E|0x09|src=10.0.0.1#011msg=a b", pairs);
        check("1.0|V|P|9|E|src=10.0.0.1\tmsg=a#011b", &[("src", "10.0.0.1"), ("msg", "a#011b")]);
        for field in ["0X5E", "X5E", "x5e", "\\x5E", "x005E", " 0x5E "] {
            check(&format!("2.0|V|P|9|E|{field}|src=10.0.0.1^msg=a b"), pairs);
        }
        for field in ["<tab>", "\\t", "TAB", "#011", "0xZZ", "#009"] {
            check(&format!("2.0|V|P|9|E|{field}|src=10.0.0.1\tmsg=a b"), pairs);
        }
        check(
            "1.0|V|P|9|E|url=http://h.example/?a=b\tpath=C:\\new",
            &[("url", "http://h.example/?a=b"), ("path", "C:\\new")],
        );
    }

    #[test]
    fn what_is_no_header() {
        for bad in ["", "1.0", "1.0|V|P|9|E", "1.0|V\tsrc=1"] {
            assert!(matches!(read(bad), Err((RejectReason::Malformed, _))), "{bad}");
        }
    }
}
