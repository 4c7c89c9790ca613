//! Takes out of a text what differs from run to run: dates, spans of time, ids of transactions.

/// Dates become `YYYY-MM-DD hh:mm:ss` (tables keep their width), spans such as `3 s ago` become `<ago>`, `in 5 min` becomes `<soon>`, `7 ms` becomes `<ms>`, and
/// `transaction 0123456789ab` becomes `transaction <id>`.
pub(crate) fn times(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

/// How long what is found at the beginning of a text is, and what stands in for it.
type Shape = fn(&str) -> Option<(usize, &'static str)>;

const SHAPES: [Shape; 6] = [date, ago, soon, lasting, milliseconds, transaction];

fn line(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let boundary = !out.ends_with(|c: char| c.is_ascii_alphanumeric());
        let found = if boundary { SHAPES.iter().find_map(|shape| shape(rest)) } else { None };
        match found {
            Some((length, word)) => {
                out.push_str(word);
                rest = &rest[length..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

fn date(text: &str) -> Option<(usize, &'static str)> {
    let shape = "0000-00-00 00:00:00";
    let bytes = text.as_bytes();
    let fits = bytes.len() >= shape.len()
        && shape.bytes().zip(bytes).all(|(s, b)| match s {
            b'0' => b.is_ascii_digit(),
            b' ' => matches!(b, b' ' | b'T'),
            other => *b == other,
        });
    if !fits {
        return None;
    }
    let more =
        bytes[shape.len()..].iter().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b'Z')).count();
    Some((shape.len() + more, "YYYY-MM-DD hh:mm:ss"))
}

/// `3 s`, `12 min`, `2 h`, `5 d` at the beginning: its length.
fn span(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = text.get(digits..)?.strip_prefix(' ')?;
    let unit = ["min", "s", "h", "d"].into_iter().find(|name| unit.starts_with(name))?;
    (digits > 0).then_some(digits + 1 + unit.len())
}

fn ago(text: &str) -> Option<(usize, &'static str)> {
    let length = span(text)?;
    text[length..].starts_with(" ago").then_some((length + 4, "<ago>"))
}

fn soon(text: &str) -> Option<(usize, &'static str)> {
    let length = span(text.strip_prefix("in ")?)?;
    Some((length + 3, "<soon>"))
}

fn lasting(text: &str) -> Option<(usize, &'static str)> {
    let length = span(text.strip_prefix("for ")?)?;
    Some((length + 4, "for <span>"))
}

fn milliseconds(text: &str) -> Option<(usize, &'static str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && text[digits..].starts_with(" ms")).then_some((digits + 3, "<ms>"))
}

fn transaction(text: &str) -> Option<(usize, &'static str)> {
    let id = text.strip_prefix("transaction ")?;
    let digits = id.bytes().take_while(u8::is_ascii_hexdigit).count();
    (digits == 12).then_some((12 + 12, "transaction <id>"))
}

#[test]
fn only_times_go() {
    let text = "last sync 2026-11-21 06:25:00 UTC (3 s ago), next in 5 min, 12 seen\nat 2026-05-18T06:00:01.25Z: 4 min, 17 ms";
    assert_eq!(
        times(text),
        "last sync YYYY-MM-DD hh:mm:ss UTC (<ago>), next <soon>, 12 seen\nat YYYY-MM-DD hh:mm:ss: 4 min, <ms>"
    );
}
