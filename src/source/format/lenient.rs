//! Values of JSON that may be of any type: what cannot be used is as if absent. For formats whose records are read into
//! structs, borrowed from the record; those that differ by sender are read by `json.rs`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value that can be read from whatever JSON has in its place. Each method defaults to "not usable".
pub(super) trait Lenient<'de>: Sized + Default {
    fn text(_: Cow<'de, str>) -> Self {
        Self::default()
    }
    /// A whole number, also one that is written `2.0`.
    fn number(_: i128) -> Self {
        Self::default()
    }
    fn float(_: f64) -> Self {
        Self::default()
    }
    fn flag(_: bool) -> Self {
        Self::default()
    }
    fn list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
    fn map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// The visitor of every [`Lenient`] type.
pub(super) struct Any<T>(pub(super) PhantomData<T>);

impl<'de, T: Lenient<'de>> Visitor<'de> for Any<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<T, E> {
        Ok(T::text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        Ok(T::text(Cow::Owned(text.to_owned())))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok(T::number(number.into()))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Ok(T::number(number.into()))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // `2.0` is a two for those who keep all numbers as floats; anything else is no count and no port, but may be a time.
        let whole = number.fract() == 0.0 && number.abs() < 9.0e15;
        Ok(if whole { T::number(number as i128) } else { T::float(number) })
    }
    fn visit_bool<E: Error>(self, flag: bool) -> Result<T, E> {
        Ok(T::flag(flag))
    }
    fn visit_unit<E: Error>(self) -> Result<T, E> {
        Ok(T::default())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::list(list)
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::map(map)
    }
}

/// Reads a [`Lenient`] type by its visitor.
macro_rules! lenient {
    ($type:ty, $life:lifetime) => {
        impl<$life> serde::Deserialize<$life> for $type {
            fn deserialize<D: serde::Deserializer<$life>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any($crate::source::format::lenient::Any::<Self>(std::marker::PhantomData))
            }
        }
    };
}
pub(super) use lenient;
