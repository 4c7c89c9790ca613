//! From a parsed TOML tree to the raw tables of `file.rs`, with the place of every value and every error at once.
//!
//! `#[derive(Deserialize)]` stops at the first error. Here a [`Field`] that cannot be read is marked as wrong, the
//! reader goes on, and later checks can tell a wrong key from a missing one. The [`table!`] macro makes the struct, its
//! list of keys, its reader and its JSON Schema from one text, so that they cannot differ.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{At, Problems, list, quote};

pub(super) type Node<'i> = Spanned<DeValue<'i>>;

/// Turns spans of one file into places, and collects what is wrong.
pub(super) struct Reader<'a> {
    file: At,
    text: &'a str,
    /// Byte offset at which each line begins.
    lines: Vec<usize>,
    /// The first secret that stands in the text itself.
    pub(super) secret: Option<At>,
    pub(super) problems: &'a mut Problems,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &Path, order: usize, text: &'a str, problems: &'a mut Problems) -> Self {
        let lines =
            std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|n| n + 1)).collect();
        Self { file: At::file(path, order), text, lines, secret: None, problems }
    }

    pub(super) fn at(&self, span: Range<usize>, key: impl Into<Arc<str>>) -> At {
        let start = self.text.floor_char_boundary(span.start);
        let line = self.lines.partition_point(|begin| *begin <= start);
        let begin = self.lines[line.saturating_sub(1)];
        let column = self.text[begin..start].chars().take(10_000).count() + 1;
        At { line, column, key: key.into(), ..self.file.clone() }
    }

    /// Reads a whole file; `None` when it is no TOML.
    pub(super) fn document<T: Table>(&mut self) -> Option<T> {
        match DeTable::parse(self.text) {
            Ok(root) => Some(T::read_table(root.get_ref(), &self.at(0..0, ""), self)),
            Err(error) => {
                // Only the message: the error's own Display repeats the line, which may hold a secret.
                let at = self.at(error.span().unwrap_or_default(), "");
                self.problems.error(&at, format!("not valid TOML: {}", quote(error.message())), |p| p);
                None
            }
        }
    }

    pub(super) fn wrong_type(&mut self, at: &At, node: &Node<'_>, expected: &str) {
        let kind = node.get_ref().type_str();
        let article = if matches!(kind.as_bytes()[0], b'a' | b'i') { "an" } else { "a" };
        let kind = if kind == "string" { "text" } else { kind };
        let found = if kind == "text" { kind.to_owned() } else { format!("{article} {kind}") };
        self.problems.error(at, "wrong type", |p| p.found(found).expected(expected));
    }
}

/// A value that can stand in the file. `None`: it could not be read, and the reason is among the problems.
pub(super) trait Read: Sized {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self>;
}

/// A set of known keys.
pub(super) trait Table: Sized {
    const KEYS: &'static [&'static str];
    /// Those of them that are known but refused: not offered in messages.
    const LATER: &'static [&'static str];

    fn read_table(table: &DeTable<'_>, at: &At, reader: &mut Reader<'_>) -> Self;

    /// Lays what a later file says beside what is here; nothing may be said twice.
    fn merge(&mut self, other: Self, problems: &mut Problems);
}

/// One key: absent, wrong, or set.
#[derive(Clone, Debug)]
pub(super) struct Field<T> {
    at: Option<At>,
    value: Option<T>,
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self { at: None, value: None }
    }
}

impl<T> Field<T> {
    /// Whether the key is there, with a good value or a wrong one.
    pub(super) fn is_present(&self) -> bool {
        self.at.is_some()
    }

    /// Whether the key is there and its value could not be read.
    pub(super) fn is_wrong(&self) -> bool {
        self.at.is_some() && self.value.is_none()
    }

    /// Where the key is, if it is there.
    pub(super) fn at(&self) -> Option<&At> {
        self.at.as_ref()
    }

    /// The value and where it is, if it is there and good.
    pub(super) fn get(&self) -> Option<(&T, &At)> {
        self.value.as_ref().zip(self.at.as_ref())
    }

    /// A copy of the value, or the empty table where the key is not there or wrong.
    pub(super) fn get_or_default(&self) -> T
    where
        T: Clone + Default,
    {
        self.value.clone().unwrap_or_default()
    }

    /// Keeps the first; both places are named.
    pub(super) fn once(&mut self, other: Self, problems: &mut Problems) {
        match (&self.at, &other.at) {
            (None, _) => *self = other,
            (Some(first), Some(second)) => {
                let message = format!("set twice, first at {}", first.line());
                problems.error(second, message, |p| p.hint("keep one of the two"));
            }
            (Some(_), None) => {}
        }
    }
}

impl<T: Table> Field<T> {
    /// The keys of both tables; none of them may be said twice.
    pub(super) fn join(&mut self, other: Self, problems: &mut Problems) {
        match (&mut self.value, other) {
            (_, Self { at: None, .. }) | (Some(_), Self { value: None, .. }) => {}
            (Some(table), Self { value: Some(other), .. }) => table.merge(other, problems),
            (None, other) => *self = other,
        }
    }
}

impl<T> Field<List<T>> {
    /// The entries of the later file come after.
    pub(super) fn append(&mut self, other: Self) {
        match (&mut self.value, other) {
            (Some(list), Self { value: Some(other), .. }) => {
                list.items.extend(other.items);
                list.written += other.written;
            }
            (None, other @ Self { value: Some(_), .. }) => *self = other,
            // A wrong one is remembered, so that it is not said to be missing as well.
            (_, other) => self.at = self.at.take().or(other.at),
        }
    }
}

impl<T> Field<Named<T>> {
    /// The destinations of both files; a name is of one of them.
    pub(super) fn add(&mut self, other: Self, problems: &mut Problems) {
        // A wrong one is remembered, so that it is not said to be missing as well.
        self.at = self.at.take().or(other.at);
        let Some(Named(others)) = other.value else { return };
        let Named(all) = self.value.get_or_insert_with(|| Named(Vec::new()));
        for one in others {
            match all.iter().find(|(known, ..)| *known == one.0) {
                Some((_, _, place)) => {
                    let message = format!("destination defined twice, first at {}", place.line());
                    problems.error(&one.2, message, |p| p.hint("keep one, or give it another name"));
                }
                None => all.push(one),
            }
        }
    }
}

impl<T: Read> Field<T> {
    pub(super) fn fill(&mut self, node: &Node<'_>, at: At, reader: &mut Reader<'_>) {
        self.value = T::read(node, &at, reader);
        self.at = Some(at);
    }
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Reads the entries of `table` by `fill`, which answers whether it knows the key.
pub(super) fn entries(
    table: &DeTable<'_>,
    at: &At,
    known: &[&str],
    later: &[&str],
    reader: &mut Reader<'_>,
    mut fill: impl FnMut(&str, &Node<'_>, At, &mut Reader<'_>) -> bool,
) {
    for (key, node) in table {
        let name: &str = key.get_ref();
        // A key may be anything when it is quoted; the path is for people.
        let path = super::problem::join(&at.key, &quote(name));
        let here = reader.at(key.span(), path);
        if !fill(name, node, here.clone(), reader) {
            let expected = format!("one of {}", offered(known, later));
            let elsewhere =
                super::file::home_of(name).filter(|_| !at.key.is_empty() || !node.get_ref().is_table());
            reader.problems.error(&here, "unknown key", |p| {
                let p = p.expected(expected).near(name, known.iter().copied());
                match elsewhere {
                    Some(home) if p.hint.is_none() => p.hint(format!("`{}` belongs in {home}", quote(name))),
                    _ => p,
                }
            });
        }
    }
}

/// The key that a field is for: a word of Rust's own is written `r#as`.
pub(in crate::config) const fn bare(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Declares a table of the config file: struct, keys, reader, merger and JSON Schema from one text.
macro_rules! table {
    ($($(#[$meta:meta])* $name:ident { $($(#[$key_meta:meta])* $(($later:ident))? $key:ident: $type:ty,)* })*) => {$(
        #[derive(Clone, Debug, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        $(#[$meta])*
        pub(in crate::config) struct $name {
            $($(#[$key_meta])* #[schemars(default)] pub(in crate::config) $key: $crate::config::read::Field<$type>,)*
        }

        impl $crate::config::read::Table for $name {
            const KEYS: &'static [&'static str] = &[$($crate::config::read::bare(stringify!($key))),*];
            const LATER: &'static [&'static str] = &[$($($crate::config::read::name_of!($later $key),)?)*];

            fn read_table(
                table: &toml::de::DeTable<'_>,
                at: &$crate::config::problem::At,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Self {
                let mut this = Self::default();
                $crate::config::read::entries(table, at, Self::KEYS, Self::LATER, reader, |key, node, at, reader| match key {
                    $(_ if key == $crate::config::read::bare(stringify!($key)) => {
                        this.$key.fill(node, at, reader);
                        true
                    })*
                    _ => false,
                });
                this
            }

            fn merge(&mut self, other: Self, problems: &mut $crate::config::problem::Problems) {
                $(self.$key.once(other.$key, problems);)*
            }
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                at: &$crate::config::problem::At,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let Some(table) = node.get_ref().as_table() else {
                    let known = $crate::config::read::offered(
                        <Self as $crate::config::read::Table>::KEYS,
                        <Self as $crate::config::read::Table>::LATER,
                    );
                    reader.wrong_type(at, node, &format!("a table of {known}"));
                    return None;
                };
                Some(<Self as $crate::config::read::Table>::read_table(table, at, reader))
            }
        }
    )*};
}
pub(super) use table;

/// The name of a key that is marked; the mark only makes the repetition possible.
macro_rules! name_of {
    (later $key:ident) => {
        stringify!($key)
    };
}
pub(super) use name_of;

/// Known keys or words without those that are refused.
pub(super) fn offered(known: &[&str], later: &[&str]) -> String {
    list(known.iter().copied().filter(|key| !later.contains(key)))
}

/// Declares a choice of fixed words.
macro_rules! word {
    ($($(#[$meta:meta])* $name:ident { $($(#[$word_meta:meta])* $(($later:ident))? $variant:ident = $word:literal,)* })*) => {$(
        #[derive(Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema)]
        $(#[$meta])*
        pub(in crate::config) enum $name {
            $($(#[$word_meta])* #[schemars(rename = $word)] $variant,)*
        }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];
            /// Those of them that are known but refused: not offered in messages.
            const LATER: &'static [&'static str] = &[$($($crate::config::read::word_of!($later $word),)?)*];

            pub(in crate::config) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl $crate::config::read::Read for $name {
            fn read(
                node: &$crate::config::read::Node<'_>,
                at: &$crate::config::problem::At,
                reader: &mut $crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                let word = $crate::config::read::choice(node, at, reader, Self::WORDS, Self::LATER)?;
                [$(Self::$variant),*].into_iter().find(|choice| choice.as_str() == word)
            }
        }
    )*};
}
pub(super) use word;

macro_rules! word_of {
    (later $word:literal) => {
        $word
    };
}
pub(super) use word_of;

/// One of `words`, exactly.
pub(super) fn choice<'w>(
    node: &Node<'_>,
    at: &At,
    reader: &mut Reader<'_>,
    words: &[&'w str],
    later: &[&str],
) -> Option<&'w str> {
    let expected = match words.iter().copied().filter(|word| !later.contains(word)).collect::<Vec<_>>() {
        now if now.len() == 1 => quoted(&now),
        now => format!("one of {}", quoted(&now)),
    };
    let Some(text) = node.get_ref().as_str() else {
        reader.wrong_type(at, node, &expected);
        return None;
    };
    let found = words.iter().find(|word| **word == text).copied();
    if found.is_none() {
        reader.problems.error(at, "unknown word", |p| {
            p.quoted(text).expected(expected).near(text, words.iter().copied())
        });
    }
    found
}

pub(super) fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

impl Read for bool {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let value = node.get_ref().as_bool();
        if value.is_none() {
            reader.wrong_type(at, node, "true or false (without quotes)");
        }
        value
    }
}

impl Read for String {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let value = node.get_ref().as_str().map(str::to_owned);
        if value.is_none() {
            reader.wrong_type(at, node, "text in quotes");
        }
        value
    }
}

impl Read for i64 {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(integer) = node.get_ref().as_integer() else {
            reader.wrong_type(at, node, "a whole number (without quotes)");
            return None;
        };
        let value = Self::from_str_radix(integer.as_str(), integer.radix()).ok();
        if value.is_none() {
            reader.problems.error(at, "the number is too large", |p| p.found(integer.as_str()));
        }
        value
    }
}

/// The JSON Schema of a value that stands where it is used, without a definition of its own.
macro_rules! inline_schema {
    (<$of:ident> $type:ty: $name:expr, |$generator:pat_param| $schema:expr) => {
        $crate::config::read::inline_schema!(@[<$of: schemars::JsonSchema>] $type, $name, $generator, $schema);
    };
    ($type:ty: $name:expr, $schema:expr) => {
        $crate::config::read::inline_schema!(@[] $type, $name, _, $schema);
    };
    (@[$($generics:tt)*] $type:ty, $name:expr, $generator:pat_param, $schema:expr) => {
        impl $($generics)* schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema($generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $schema
            }
        }
    };
}
pub(super) use inline_schema;

/// Several values with their places: an array of tables, or a list of words.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    /// Those that could be read.
    pub(super) items: Vec<(T, At)>,
    /// How many stand there, good or wrong.
    pub(super) written: usize,
}

/// A key as the header of its table is written: `rule[2].action` stands under `[[rule.action]]`.
fn header(key: &str) -> String {
    let step = |step: &str| step.split_once('[').map_or(step, |(name, _)| name).to_owned();
    key.split('.').map(step).collect::<Vec<_>>().join(".")
}

impl<T: Read> Read for List<T> {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(array) = node.get_ref().as_array() else {
            if node.get_ref().is_table() {
                let hint = format!("write [[{}]] with two brackets", header(&at.key));
                reader.problems.error(at, "one table where several may stand", |p| p.hint(hint));
            } else {
                reader.wrong_type(at, node, "a list in [ ]");
            }
            return None;
        };
        let mut values = Vec::with_capacity(array.len());
        for (n, node) in array.iter().enumerate() {
            let at = reader.at(node.span(), format!("{}[{}]", at.key, n + 1));
            if let Some(value) = T::read(node, &at, reader) {
                values.push((value, at));
            }
        }
        Some(Self { items: values, written: array.len() })
    }
}

inline_schema!(<T> List<T>: format!("List_of_{}", T::schema_name()), |of| Vec::<T>::json_schema(of));

/// A table whose keys the operator chooses, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(String, T, At)>);

impl<T: Read> Read for Named<T> {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(table) = node.get_ref().as_table() else {
            reader.wrong_type(at, node, "a table");
            return None;
        };
        let mut values = Vec::with_capacity(table.len());
        for (key, node) in table {
            let name: &str = key.get_ref();
            let here = reader.at(key.span(), super::problem::join(&at.key, &quote(name)));
            if &*at.key == "servicenow" && !node.get_ref().is_table() {
                let hint = "a destination has a name: write [servicenow.NAME]";
                reader.problems.error(&here, "this stands above the destinations", |p| p.hint(hint));
            } else if let Some(value) = T::read(node, &here, reader) {
                values.push((name.to_owned(), value, here));
            }
        }
        values.sort_by_key(|(_, _, at)| (at.line, at.column));
        Some(Self(values))
    }
}

inline_schema!(<T> Named<T>: format!("Named_{}", T::schema_name()), |of| {
    std::collections::BTreeMap::<String, T>::json_schema(of)
});
