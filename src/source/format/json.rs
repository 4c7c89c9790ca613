//! JSON of any shape as a bounded tree, borrowed from the record: for formats whose records differ by sender.
//!
//! What is deeper than [`DEPTH_MAX`] or is beyond the values that are kept is read over and is as if `null`, so a record
//! of a megabyte costs time but no memory. Members of the record and of its members have room of their own
//! ([`MEMBERS_MAX`]): nothing that is long keeps them out. What was left out is said ([`CUT`]); a record that has too
//! many of them is none. Of a key that is there twice the last one counts. What this does not do:
//! decide what is an error; a value of another type is simply not the one that was asked for.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::alert_json::body::value_end;
use super::mend;

/// Deepest nesting that is kept.
const DEPTH_MAX: usize = 12;
/// Most values that are kept of one record, beside members of the upper two levels.
const NODES_MAX: usize = 4096;
/// Most of these within one member of the record.
const SHARE_MAX: usize = 1024;
/// Most members of the upper two levels.
const MEMBERS_MAX: usize = 4096;
/// What an alert says of which not everything was kept.
pub(super) const CUT: &str = "Note: the record has more values than are read; what stands deep in it or late in a long list may be missing";

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// `null`, or what was beyond a bound.
    Null,
    /// `true` or `false`.
    Bool(bool),
    Whole(i64),
    /// Any other number.
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    /// An object, keys in their order.
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

const NULL: Value<'static> = Value::Null;

impl<'a> Value<'a> {
    /// The value at a path of keys (`["finding_info", "title"]`); `Null` where there is none.
    pub(super) fn at(&self, path: &[&str]) -> &Value<'a> {
        path.iter().fold(self, |value, key| value.get(key))
    }

    /// The value of a key; `Null` where there is none.
    pub(super) fn get(&self, key: &str) -> &Value<'a> {
        self.find(|name| name == key)
    }

    /// The value of a key, whatever its case.
    pub(super) fn get_folded(&self, key: &str) -> &Value<'a> {
        self.find(|name| name.eq_ignore_ascii_case(key))
    }

    fn find(&self, is_it: impl Fn(&str) -> bool) -> &Value<'a> {
        match self {
            Self::Object(members) => {
                members.iter().rev().find(|(name, _)| is_it(name)).map_or(&NULL, |(_, value)| value)
            }
            _ => &NULL,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The text, if it is one and not blank.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.trim()).filter(|text| !text.is_empty()),
            _ => None,
        }
    }

    /// A text, or a number or truth value as it is written; `None` for what is blank or has parts.
    pub(super) fn scalar(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(_) => self.text().map(Cow::Borrowed),
            Self::Whole(number) => Some(Cow::Owned(number.to_string())),
            Self::Float(number) => Some(Cow::Owned(number.to_string())),
            Self::Bool(truth) => Some(Cow::Borrowed(if *truth { "true" } else { "false" })),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// A whole number; a text with such a number counts.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// The values of an array; a single value is an array of one.
    pub(super) fn items(&self) -> &[Value<'a>] {
        match self {
            Self::List(items) => items,
            Self::Null => &[],
            one => std::slice::from_ref(one),
        }
    }

    pub(super) fn members(&self) -> &[(Cow<'a, str>, Value<'a>)] {
        match self {
            Self::Object(members) => members,
            _ => &[],
        }
    }

    /// What it is, for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Whole(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads one value, and nothing after it; whether all of it was kept.
fn parse(text: &str) -> Result<(Value<'_>, bool), String> {
    let bounds = Bounds::default();
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Seed { bounds: &bounds, depth: 0, is_member: true }.deserialize(&mut from);
    let value = value
        .and_then(|value| from.end().map(|()| value.unwrap_or(Value::Null)))
        .map_err(|error| format!("not JSON: {error}"))?;
    if bounds.members.get() == 0 {
        return Err(format!("more than {MEMBERS_MAX} members: what stands behind them could not be read"));
    }
    Ok((value, !bounds.cut.get()))
}

/// The same for a line that may be nearly JSON: where it is refused as it stands, what can be put right is.
pub(super) fn read<T>(text: &str, then: impl FnOnce(Result<(Value<'_>, bool), String>) -> T) -> T {
    let read = parse(text);
    if read.is_ok() {
        return then(read);
    }
    let mended = mend::cleaned(text);
    then(parse(&mended).or(read))
}

/// Without what may stand before a record: a byte order mark, and the zeros that a power cut leaves in a file.
pub(super) fn begun(record: &[u8]) -> &[u8] {
    // Zeros alone are no record, and no empty line either.
    let begin = record.iter().position(|byte| *byte != 0).unwrap_or(0);
    let record = if record[begin..].trim_ascii().is_empty() { record } else { &record[begin..] };
    record.strip_prefix(b"\xef\xbb\xbf").unwrap_or(record)
}

/// Where in a line that was refused another record begins: behind the end of the first, or, where that one was torn, where
/// one begins with the same key.
pub(super) fn torn(line: &[u8]) -> Option<usize> {
    const KEY_MAX: usize = 64;
    let start = memchr::memchr(b'{', line)?;
    let first = &line[start..];
    if let Some(end) = value_end(first) {
        let blanks = first[end..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == 0).count();
        if first.get(end + blanks) == Some(&b'{') {
            return Some(start + end);
        }
    }
    let quote = memchr::memchr(b'"', &first[..first.len().min(KEY_MAX)])? + 1;
    let end = quote + memchr::memchr(b'"', &first[quote..first.len().min(quote + KEY_MAX)])? + 1;
    let key = &first[..end];
    key[1..quote - 1].iter().all(u8::is_ascii_whitespace).then_some(())?;
    memchr::memmem::find(&first[1..], key).map(|at| start + 1 + at)
}

struct Bounds {
    /// Values that may still be kept, and those of the member that is read.
    nodes: Cell<usize>,
    share: Cell<usize>,
    /// Members of the upper two levels.
    members: Cell<usize>,
    /// Whether something was left out.
    cut: Cell<bool>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            nodes: Cell::new(NODES_MAX),
            share: Cell::new(SHARE_MAX),
            members: Cell::new(MEMBERS_MAX),
            cut: Cell::new(false),
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'b> {
    bounds: &'b Bounds,
    depth: usize,
    /// Whether it stands under a key.
    is_member: bool,
}

impl Seed<'_> {
    fn deeper(self, is_member: bool) -> Self {
        Self { depth: self.depth + 1, is_member, ..self }
    }

    /// Takes one value out of the bounds.
    fn has_room(self) -> bool {
        let Bounds { nodes, share, members, cut } = self.bounds;
        let less = |cell: &Cell<usize>| cell.replace(cell.get().saturating_sub(1)) > 0;
        if self.depth <= 2 && self.is_member {
            return less(members);
        }
        let has = self.depth < DEPTH_MAX && share.get() > 0 && nodes.get() > 0;
        if has {
            share.set(share.get() - 1);
            nodes.set(nodes.get() - 1);
        } else {
            cut.set(true);
        }
        has
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    /// `None` where there was no room.
    type Value = Option<Value<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        if self.has_room() {
            return from.deserialize_any(self).map(Some);
        }
        from.deserialize_ignored_any(IgnoredAny)?;
        Ok(None)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Float(number as f64), Value::Whole))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Whole(number))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Value<'de>, E> {
        let whole = number.fract() == 0.0 && number.abs() < 9.0e15;
        Ok(if whole { Value::Whole(number as i64) } else { Value::Float(number) })
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(truth))
    }
    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(self.deeper(false))? {
            // What was beyond a bound takes no room either.
            items.extend(item);
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            if self.depth == 0 {
                self.bounds.share.set(SHARE_MAX);
            }
            if let Some(value) = map.next_value_seed(self.deeper(true))? {
                members.push((key, value));
            }
        }
        Ok(Value::Object(members))
    }
}

/// A key, borrowed where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Cow<'de, str>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_path_and_type() {
        let text =
            r#"{"a":{"b":[1,"two",null,2.5,true]},"N":"7","a.b":"dot","twice":1,"twice":2,"e":"\u0041"}"#;
        let value = parse(text).unwrap().0;
        assert_eq!(value.at(&["a", "b"]).items().len(), 5);
        assert_eq!(value.get("a.b").text(), Some("dot"));
        assert_eq!(value.get("twice").whole(), Some(2));
        assert_eq!(value.get_folded("n").whole(), Some(7));
        assert_eq!(value.get("e").text(), Some("A"));
        assert!(value.at(&["a", "x", "y"]).is_null());
        let b = value.at(&["a", "b"]).items();
        let written: Vec<_> = b.iter().map(|item| item.scalar().map(Cow::into_owned)).collect();
        assert_eq!(
            written.iter().map(Option::as_deref).collect::<Vec<_>>(),
            [Some("1"), Some("two"), None, Some("2.5"), Some("true")]
        );
        assert!(parse("{} x").is_err() && parse("{\"a\":").is_err());
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_not_kept() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert!(matches!(parse(&deep).unwrap(), (Value::List(_), false)));
        let wide = format!("[{}1]", "1,".repeat(100_000));
        assert!(parse(&wide).unwrap().0.items().len() <= NODES_MAX);
        let keys: Vec<_> = (0..10_000).map(|n| format!("\"k{n}\":0")).collect();
        let wide = format!("{{{}}}", keys.join(","));
        assert!(parse(&wide).unwrap_err().starts_with("more than 4096 members"));
    }

    #[test]
    fn what_is_long_keeps_nothing_else_out() {
        let list = format!("[{}1]", "{\"k\":1,\"v\":[1,2,3]},".repeat(5_000));
        let lists: Vec<_> = (0..20).map(|n| format!("\"l{n}\":{list}")).collect();
        let text = format!("{{{},\"a\":\"x\",\"b\":{{\"c\":2}}}}", lists.join(","));
        let (value, whole) = parse(&text).unwrap();
        assert!(!whole && value.get("l0").items().len() < SHARE_MAX);
        assert_eq!((value.get("a").text(), value.at(&["b", "c"]).whole()), (Some("x"), Some(2)));
        assert!(parse("{\"a\":[1,{\"b\":[2]}]}").unwrap().1);
    }

    #[test]
    fn what_is_nearly_json_is_put_right() {
        for text in [
            "{\"a\":1,\"n\":NaN}",
            "{\"a\":1,\"n\":-Infinity}",
            "{\"a\":1,\"n\":\"x\ty\"}",
            "{\"a\":1,\"n\":\"\\ud83d\"}",
        ] {
            assert_eq!(read(text, |value| value.unwrap().0.get("a").whole()), Some(1), "{text}");
        }
        assert!(read("{\"a\":", |value| value.is_err()));
    }

    #[test]
    fn records_in_one_line() {
        for (line, at) in [
            ("{\"a\":1}{\"b\":2}", Some(7)),
            ("{\"a\":1} \0{\"b\":2}", Some(7)),
            ("{\"a\":{\"a\":1}}{\"a\":2}", Some(13)),
            ("{\"a\":1,\"b{\"a\":2}", Some(9)),
            ("{\"a\":1,\"bcd\0\0{\"a\":2}", Some(13)),
            ("{\"a\":1,\"b", None),
            ("{\"a\":{\"b\":1}", None),
            ("{,\"a\":{,\"a\":1}", None),
            ("{", None),
            ("", None),
        ] {
            assert_eq!(torn(line.as_bytes()), at, "{line}");
        }
        assert_eq!(begun(b"\0\0\xef\xbb\xbf{}"), b"{}");
    }
}
