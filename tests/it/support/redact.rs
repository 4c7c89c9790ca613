//! Takes out of a text what differs from run to run: dates, spans of time, and what the caller names.

/// Dates become `<time>`, spans such as `3 s ago` become `<ago>`, `in 5 min` becomes `<soon>`.
pub(crate) fn times(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

fn line(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let boundary = !out.ends_with(|c: char| c.is_ascii_alphanumeric());
        let found = if boundary { date(rest).or_else(|| ago(rest)).or_else(|| soon(rest)) } else { None };
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
    Some((shape.len() + more, "<time>"))
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

#[test]
fn only_times_go() {
    let text = "last sync 2026-11-21 06:25:00 UTC (3 s ago), next in 5 min, 12 seen\nat 2026-05-18T06:00:01.25Z: 4 min";
    assert_eq!(times(text), "last sync <time> UTC (<ago>), next <soon>, 12 seen\nat <time>: 4 min");
}
