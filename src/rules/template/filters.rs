//! The template engine with a short list of filters and tests, each of which makes a bounded text.
//!
//! The list is ours, not the engine's: a new release of it adds nothing that was not looked at. There are no functions
//! and there is no escaping, as fields are text.

use minijinja::value::Value;
use minijinja::{Environment, UndefinedBehavior};

use crate::model::text;

use super::{FIELD_MAX, FUEL};

/// Filters of a template and what they do.
pub const FILTERS: &[(&str, &str)] = &[
    ("capitalize", "first letter large, the others small"),
    ("default", "another value for what is undefined; with `true` as second argument also for an empty text"),
    ("escape", "for fields that show HTML"),
    ("first", "first of a list"),
    ("int", "text to number"),
    ("join", "a list as one text"),
    ("last", "last of a list"),
    ("length", "how many characters or elements"),
    ("lines", "list of the lines of a text"),
    ("lower", "small letters"),
    ("replace", "one text by another"),
    ("sort", "a list in order"),
    ("split", "a text as list"),
    ("title", "every first letter large"),
    ("trim", "without blanks at both ends"),
    ("truncate", "at most so many characters, `…` marks a cut"),
    ("unique", "a list without repeats"),
    ("upper", "large letters"),
];

/// The engine with what is in [`FILTERS`] and nothing else.
pub(super) fn engine() -> Environment<'static> {
    use minijinja::{filters, tests};
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(32);
    engine.set_debug(false);

    engine.add_filter("capitalize", filters::capitalize);
    engine.add_filter("default", filters::default);
    engine.add_filter("escape", filters::escape);
    engine.add_filter("first", filters::first);
    engine.add_filter("int", filters::int);
    engine.add_filter("join", join);
    engine.add_filter("last", filters::last);
    engine.add_filter("length", filters::length);
    engine.add_filter("lines", filters::lines);
    engine.add_filter("lower", filters::lower);
    engine.add_filter("replace", replace);
    engine.add_filter("sort", filters::sort);
    engine.add_filter("split", filters::split);
    engine.add_filter("title", filters::title);
    engine.add_filter("trim", filters::trim);
    engine.add_filter("truncate", truncate);
    engine.add_filter("unique", filters::unique);
    engine.add_filter("upper", filters::upper);

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
