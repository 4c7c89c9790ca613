//! Lines that are nearly JSON: numbers that are none (`NaN`), control characters, half surrogates, and lines of which
//! only the beginning is kept. Looked at only when a line was refused as it stands.

/// The text with what JSON does not have put right: a word that is no value becomes `null`, a control character in a
/// string a blank, a surrogate without its other half `\ufffd`.
pub(in crate::source::format) fn cleaned(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut clean = Vec::with_capacity(bytes.len() + 16);
    let (mut at, mut in_string) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let step = match byte {
            b'"' => {
                in_string = !in_string;
                clean.push(byte);
                1
            }
            b'\\' if in_string => escape(&bytes[at..], &mut clean),
            0..=0x1f => {
                clean.push(b' ');
                1
            }
            b'+' | b'-' | b'a'..=b'z' | b'A'..=b'Z' if !in_string => word(&bytes[at..], &mut clean),
            _ => {
                clean.push(byte);
                1
            }
        };
        at += step;
    }
    String::from_utf8(clean).unwrap_or_default()
}

/// Copies an escape that is one, mends one that is none; how long it was.
fn escape(rest: &[u8], clean: &mut Vec<u8>) -> usize {
    match rest.get(1) {
        Some(b'u') => {
            let Some(code) = hex(rest) else {
                clean.extend(b"\\\\");
                return 1;
            };
            let low = rest.get(6..).filter(|low| low.starts_with(b"\\u")).and_then(hex);
            let (len, whole) = match (code, low) {
                (0xd800..=0xdbff, Some(0xdc00..=0xdfff)) => (12, true),
                (0xd800..=0xdfff, _) => (6, false),
                _ => (6, true),
            };
            clean.extend(if whole { &rest[..len] } else { b"\\ufffd" });
            len
        }
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
            clean.extend(&rest[..2]);
            2
        }
        _ => {
            clean.extend(b"\\\\");
            1
        }
    }
}

/// The number of `\uXXXX` at the beginning.
fn hex(rest: &[u8]) -> Option<u16> {
    let digits = rest.get(2..6).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// A word outside of strings: `null` where it stands for no number.
fn word(rest: &[u8], clean: &mut Vec<u8>) -> usize {
    let sign = usize::from(matches!(rest[0], b'+' | b'-'));
    let letters = rest[sign..].iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    let word = &rest[sign..sign + letters];
    let none = [&b"nan"[..], b"inf", b"infinity"].iter().any(|none| word.eq_ignore_ascii_case(none));
    let len = (sign + letters).max(1);
    clean.extend(if none { b"null" } else { &rest[..len] });
    len
}

/// The beginning of a long object, closed after the last value that is whole; `None` where there is none.
pub(super) fn closed(start: &[u8]) -> Option<Vec<u8>> {
    let (mut open, mut in_string, mut escaped) = (Vec::new(), false, false);
    let mut whole: Option<(usize, usize)> = None;
    for (at, &byte) in start.iter().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => {
                open.pop();
                // What is open at the comma before it is not needed any more.
                whole = whole
                    .map(|(end, depth)| if depth > open.len() { (at + 1, open.len()) } else { (end, depth) });
            }
            b',' => whole = Some((at, open.len())),
            _ => {}
        }
        if open.len() > DEPTH_MAX {
            return None;
        }
    }
    let (end, depth) = whole?;
    let mut json = start[..end].to_vec();
    json.extend(open.get(..depth)?.iter().rev());
    Some(json)
}

/// Deeper objects are not read.
const DEPTH_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_put_right_and_nothing_else() {
        for (text, clean) in [
            ("{\"a\":NaN,\"b\":-inf,\"c\":[Infinity,-nan]}", "{\"a\":null,\"b\":null,\"c\":[null,null]}"),
            ("{\"a\":true,\"b\":-1.5e+7,\"c\":\"NaN\"}", "{\"a\":true,\"b\":-1.5e+7,\"c\":\"NaN\"}"),
            ("{\"a\":\"x\u{1}\ty\"}", "{\"a\":\"x  y\"}"),
            ("{\"a\":\"\\ud800x\\udc00\\ud83d\\ude00\"}", "{\"a\":\"\\ufffdx\\ufffd\\ud83d\\ude00\"}"),
            ("{\"a\":\"\\x41\\\"\"}", "{\"a\":\"\\\\x41\\\"\"}"),
            ("{\"é\":inf", "{\"é\":null"),
        ] {
            assert_eq!(cleaned(text), clean);
        }
    }

    #[test]
    fn the_beginning_of_an_object_is_closed_after_its_last_whole_value() {
        for (start, json) in [
            ("{\"a\":1,\"b\":{\"c\":2,\"d\":\"xx", Some("{\"a\":1,\"b\":{\"c\":2}}")),
            ("{\"a\":1,\"b\":{\"c\":2,\"d\":3},\"e\":\"},{", Some("{\"a\":1,\"b\":{\"c\":2,\"d\":3}}")),
            ("{\"a\":1,\"b\":{\"c\":2,\"d\":3},\"e", Some("{\"a\":1,\"b\":{\"c\":2,\"d\":3}}")),
            ("{\"a\":[1,2,[3,4],\"x\\\",", Some("{\"a\":[1,2,[3,4]]}")),
            ("{\"a", None),
        ] {
            assert_eq!(
                closed(start.as_bytes()).map(|json| String::from_utf8(json).unwrap()).as_deref(),
                json,
                "{start}"
            );
        }
    }
}
