//! The template engine with a short list of filters and tests, each of which makes a bounded text.
//!
//! The list is ours, not the engine's: a new release of it adds nothing that was not looked at. There are no functions
//! and there is no escaping, as fields are text.

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior, filters, tests};

use crate::model::text;

use super::{FIELD_MAX, FUEL};

macro_rules! filters {
    ($($name:literal = $filter:path, $does:literal;)*) => {
        /// Filters of a template and what they do.
        pub const FILTERS: &[(&str, &str)] = &[$(($name, $does)),*];

        fn add_filters(engine: &mut Environment<'_>) {
            $(engine.add_filter($name, $filter);)*
        }
    };
}

filters! {
    "capitalize" = filters::capitalize, "first letter large, the others small";
    "default" = filters::default, "another value for what is undefined; with `true` as second argument also for an empty text";
    "escape" = filters::escape, "for fields that show HTML";
    "first" = filters::first, "first of a list";
    "int" = filters::int, "text to number";
    "join" = join, "a list as one text";
    "last" = filters::last, "last of a list";
    "length" = filters::length, "how many characters or elements";
    "lines" = filters::lines, "list of the lines of a text";
    "lower" = filters::lower, "small letters";
    "replace" = replace, "one text by another";
    "sort" = filters::sort, "a list in order";
    "split" = filters::split, "a text as list";
    "title" = filters::title, "every first letter large";
    "trim" = filters::trim, "without blanks at both ends";
    "truncate" = truncate, "at most so many characters, `…` marks a cut";
    "unique" = filters::unique, "a list without repeats";
    "upper" = filters::upper, "large letters";
}

/// The engine with what is in [`FILTERS`] and nothing else.
pub(super) fn engine() -> Environment<'static> {
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(32);
    engine.set_debug(false);
    add_filters(&mut engine);
    engine.add_test("defined", tests::is_defined);
    engine.add_test("undefined", tests::is_undefined);
    engine.add_test("startingwith", tests::is_startingwith);
    engine.add_test("endingwith", tests::is_endingwith);
    engine.add_test("number", tests::is_number);
    engine.add_test("in", tests::is_in);
    engine
}

/// `join`, cut at [`FIELD_MAX`].
fn join(list: &Value, separator: Option<String>) -> Result<String, minijinja::Error> {
    let separator = separator.unwrap_or_default();
    let mut joined = String::new();
    for (at, item) in list.try_iter()?.enumerate() {
        if at > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&item.to_string());
        if joined.len() > FIELD_MAX {
            break;
        }
    }
    Ok(text::clip(&joined, FIELD_MAX).into_owned())
}

/// `replace`, cut at [`FIELD_MAX`].
fn replace(value: &Value, from: &str, to: &str) -> String {
    let value = value.to_string();
    let mut replaced = String::new();
    let mut end = 0;
    for (at, found) in value.match_indices(from) {
        replaced.push_str(&value[end..at]);
        replaced.push_str(to);
        end = at + found.len();
        if replaced.len() > FIELD_MAX {
            return text::clip(&replaced, FIELD_MAX).into_owned();
        }
    }
    replaced.push_str(&value[end..]);
    text::clip(&replaced, FIELD_MAX).into_owned()
}

/// At most `max` characters; `…`, one of them, marks a cut.
fn truncate(value: &Value, max: usize) -> String {
    let value = value.to_string();
    if value.chars().nth(max).is_none() {
        return value;
    }
    let mut cut: String = value.chars().take(max.saturating_sub(1)).collect();
    if max > 0 {
        cut.push('…');
    }
    cut
}
