//! An answer as a tree of values, within a budget. Pure. A value takes up to ninety times the bytes of its text (`{"":0}`),
//! so an answer of a size that is allowed could still end a service that may have 128 MiB. A tree that would take more
//! than [`TREE_MAX`] is given up while it is read.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most bytes that the values of one answer may take: ours are one record, or a page of small ones.
const TREE_MAX: usize = 4 << 20;
/// What a value takes in a list that grows by doubling, a text beside its bytes, the first member of an object (a whole
/// leaf of its tree) and each further one.
const ELEMENT: usize = 64;
const TEXT: usize = 16;
const OBJECT: usize = 640;
const MEMBER: usize = 60;

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoTree {
    /// It is no JSON.
    Damaged,
    /// It would take more memory than an answer may.
    TooLarge,
}

pub(super) fn parse(text: &[u8]) -> Result<Value, NoTree> {
    let budget = Budget { left: Cell::new(Some(TREE_MAX)) };
    let mut from = serde_json::Deserializer::from_slice(text);
    let read = budget.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    read.map_err(|_| if budget.left.get().is_none() { NoTree::TooLarge } else { NoTree::Damaged })
}

/// Bytes that are left; none once it was overdrawn.
struct Budget {
    left: Cell<Option<usize>>,
}

impl Budget {
    fn take<E: serde::de::Error>(&self, bytes: usize) -> Result<(), E> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(bytes)));
        self.left.get().map(drop).ok_or_else(|| E::custom("too many values"))
    }
}

impl<'de> DeserializeSeed<'de> for &Budget {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Budget {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.take(TEXT + value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            self.take(ELEMENT)?;
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.take(TEXT + name.len() + if map.is_empty() { OBJECT } else { MEMBER })?;
            map.insert(name, members.next_value_seed(self)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_read_as_it_is() {
        let text = r#"{"a":[1,-2,0.5,true,null,"x",{"b":{}},[]],"c":"é\n","a2":18446744073709551615}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        for text in ["", "{", "{}x", "[1,]", "nul"] {
            assert_eq!(parse(text.as_bytes()), Err(NoTree::Damaged), "{text}");
        }
        assert_eq!(parse("[".repeat(10_000).as_bytes()), Err(NoTree::Damaged));
    }

    #[test]
    fn an_answer_that_would_take_a_hundred_times_its_size_is_given_up() {
        for (piece, wrap) in [(r#"{"":0}"#, ("[", "]")), ("0", ("[", "]")), ("[]", ("[", "]"))] {
            let many = vec![piece; (2 << 20) / (piece.len() + 1)].join(",");
            let text = format!("{}{many}{}", wrap.0, wrap.1);
            assert_eq!(parse(text.as_bytes()), Err(NoTree::TooLarge), "{piece}");
        }
    }

    #[test]
    fn a_page_of_records_fits() {
        let record =
            r#"{"sys_id":{"value":"0123456789abcdef0123456789abcdef","display_value":"x"},"state":"1"},"#;
        let page = format!(r#"{{"result":[{}{{}}]}}"#, record.repeat(1_000));
        assert!(parse(page.as_bytes()).is_ok());
    }
}
