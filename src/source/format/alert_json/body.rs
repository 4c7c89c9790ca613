//! A body that was pushed, cut into its objects: one object, an array of them, or one a line.
//!
//! Nothing is copied and nothing is parsed but where an object ends; a body of a million braces costs no memory.

/// An object of a body, and where it stands: its line where there is one a line, else its place in the array; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The line or place.
    pub line: usize,
    /// Its bytes, whatever they are.
    pub bytes: &'a [u8],
}

/// Cuts a body. Empty lines are left out.
pub fn items(body: &[u8]) -> Items<'_> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_end();
    let begin = body.len() - body.trim_ascii_start().len();
    let shape = match body.get(begin) {
        Some(b'[') => Shape::Array,
        // An object over several lines: its first line is none.
        Some(b'{') if value_end(&body[begin..]) == Some(body.len() - begin) => Shape::One,
        _ => Shape::Lines,
    };
    let rest = match shape {
        Shape::Array => &body[begin + 1..],
        Shape::One => &body[begin..],
        Shape::Lines => body,
    };
    Items { rest, shape, line: 0 }
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    One,
    Array,
    Lines,
}

/// The objects of a body, in their order.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
    shape: Shape,
    line: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let bytes = match self.shape {
            Shape::One => std::mem::take(&mut self.rest),
            Shape::Array => self.next_of_array(),
            Shape::Lines => self.next_line(),
        };
        if bytes.is_empty() {
            return None;
        }
        if !matches!(self.shape, Shape::Lines) {
            self.line += 1;
        }
        Some(Item { line: self.line, bytes })
    }
}

impl<'a> Items<'a> {
    fn next_line(&mut self) -> &'a [u8] {
        while !self.rest.is_empty() {
            let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
            let line = self.rest[..end].trim_ascii();
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            self.line += 1;
            if !line.is_empty() {
                return line;
            }
        }
        &[]
    }

    /// Up to the comma or bracket after the next value. Where an array is broken, all that is left is one item: it is
    /// no JSON, and is rejected as such.
    fn next_of_array(&mut self) -> &'a [u8] {
        let rest = self.rest.trim_ascii();
        if rest.is_empty() || rest == b"]" {
            // An array without its end was cut short; what was whole of it is taken.
            self.rest = &[];
            return &[];
        }
        let end = value_end(rest).unwrap_or(rest.len());
        let after = rest[end..].trim_ascii_start();
        match after {
            [b',', more @ ..] => self.rest = more,
            [b']'] => self.rest = &[],
            _ => {
                self.rest = &[];
                return rest;
            }
        }
        &rest[..end]
    }
}

/// Where the JSON value ends that `text` begins with; `None` when it does not end. Brackets are counted, not matched:
/// who parses it will see.
pub(in crate::source::format) fn value_end(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return (at > 0).then_some(at),
            b'}' | b']' => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 1;
        if depth == 0 && matches!(text[at - 1], b'}' | b']' | b'"') {
            return Some(at);
        }
    }
    None
}

/// The closing quote of the text that begins at `at`.
fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut from = at + 1;
    loop {
        let found = from + memchr::memchr2(b'"', b'\\', text.get(from..)?)?;
        if text[found] == b'"' {
            return Some(found);
        }
        from = found + 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expected: &[(usize, &str)]) {
        let found: Vec<_> = items(body.as_bytes())
            .map(|item| (item.line, std::str::from_utf8(item.bytes).unwrap()))
            .collect();
        assert_eq!(found, expected, "{body}");
    }

    #[test]
    fn objects_arrays_and_lines() {
        check("", &[]);
        check(" \n ", &[]);
        check("{\"a\":1}", &[(1, "{\"a\":1}")]);
        check("\n{\n \"a\": \"}\\\"]\"\n}\n", &[(1, "{\n \"a\": \"}\\\"]\"\n}")]);
        check("{\"a\":1}\n\n{\"b\":2}\r\n", &[(1, "{\"a\":1}"), (3, "{\"b\":2}")]);
        check("{\"a\":1}\nnonsense\n{\"b\":2}", &[(1, "{\"a\":1}"), (2, "nonsense"), (3, "{\"b\":2}")]);
        check("[]", &[]);
        check("[{\"a\":[1,2]},\n {\"b\":\"],\"} ]", &[(1, "{\"a\":[1,2]}"), (2, "{\"b\":\"],\"}")]);
        check("[1, \"two\", null, [3]]", &[(1, "1"), (2, "\"two\""), (3, "null"), (4, "[3]")]);
    }

    #[test]
    fn what_is_broken_is_one_item_and_ends() {
        check("[{\"a\":1},{\"b\"", &[(1, "{\"a\":1}"), (2, "{\"b\"")]);
        check("[{\"a\":1}", &[(1, "{\"a\":1}")]);
        check("[{\"a\":1} {\"b\":2}]", &[(1, "{\"a\":1} {\"b\":2}]")]);
        check("[,{\"a\":1}]", &[(1, ",{\"a\":1}]")]);
        check("[{\"a\":1}] x", &[(1, "{\"a\":1}] x")]);
        check("{\"a\":", &[(1, "{\"a\":")]);
    }

    proptest! {
        #[test]
        fn any_body_ends(body in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(items(&body).count() <= body.len());
        }

        #[test]
        fn arrays_of_json_give_their_members(texts in prop::collection::vec(".{0,20}", 0..10)) {
            let body = serde_json::to_vec(&texts.iter().map(|t| serde_json::json!({ "t": t })).collect::<Vec<_>>()).unwrap();
            let found: Vec<serde_json::Value> =
                items(&body).map(|item| serde_json::from_slice(item.bytes).unwrap()).collect();
            prop_assert_eq!(found.iter().map(|v| v["t"].as_str().unwrap()).collect::<Vec<_>>(), texts);
        }
    }
}
