//! JSON of any shape as a bounded tree, borrowed from the record: for formats whose records differ by sender.
//!
//! What is deeper than [`DEPTH_MAX`] or comes after [`NODES_MAX`] values is read over and is as if `null`, so a record
//! of a megabyte costs time but no memory. Of a key that is there twice the last one counts. What this does not do:
//! decide what is an error; a value of another type is simply not the one that was asked for.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Deepest nesting that is kept.
const DEPTH_MAX: usize = 12;
/// Most values that are kept of one record.
const NODES_MAX: usize = 4096;

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

/// Reads one value, and nothing after it.
pub(super) fn parse(text: &str) -> Result<Value<'_>, serde_json::Error> {
    let left = Cell::new(NODES_MAX);
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Seed { left: &left, depth: 0 }.deserialize(&mut from)?;
    from.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Seed<'b> {
    left: &'b Cell<usize>,
    depth: usize,
}

impl Seed<'_> {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    /// Takes one value out of the bound.
    fn has_room(self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0 && self.depth < DEPTH_MAX
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        if self.has_room() {
            return from.deserialize_any(self);
        }
        from.deserialize_ignored_any(IgnoredAny)?;
        Ok(Value::Null)
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
        while let Some(item) = list.next_element_seed(self.deeper())? {
            // What was beyond a bound takes no room either.
            if self.left.get() > 0 {
                items.push(item);
            }
        }
        Ok(Value::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let value = map.next_value_seed(self.deeper())?;
            if self.left.get() > 0 {
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
        let value = parse(text).unwrap();
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
        assert!(matches!(parse(&deep).unwrap(), Value::List(_)));
        let wide = format!("[{}1]", "1,".repeat(100_000));
        assert!(parse(&wide).unwrap().items().len() <= NODES_MAX);
        let keys: Vec<_> = (0..10_000).map(|n| format!("\"k{n}\":0")).collect();
        let wide = format!("{{{}}}", keys.join(","));
        assert!(parse(&wide).unwrap().members().len() <= NODES_MAX);
    }
}
