//! Any values as a look-up (first line the field, then a value a line): what the instance reads is what was asked, or it is refused. A value that becomes a second
//! condition would widen the answer to every row (docs: encoded queries split at single carets).
#![no_main]

use libfuzzer_sys::fuzz_target;
use otrelay::servicenow::fuzzing::look_up;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let field = lines.next().expect("one at least");
    let values: Vec<&str> = lines.collect();
    let Some(wire) = look_up(field, &values) else {
        let plain = |text: &&str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let refused = field != "correlation_id" || values.is_empty() || !values.iter().all(|value| plain(&value));
        assert!(refused, "keys of our own making are never refused: {values:?}");
        return;
    };
    assert!(wire.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%".contains(&byte)), "{wire}");
    let read = percent_encoding::percent_decode_str(&wire).decode_utf8().expect("what went in was UTF-8");
    let conditions = conditions(&read);
    assert_eq!(conditions.len(), 2, "{read:?}");
    let list = conditions[0].strip_prefix(field).and_then(|rest| rest.strip_prefix("IN")).expect("the field");
    assert_eq!(list.split(',').collect::<Vec<_>>(), values, "{read:?}");
    assert_eq!(conditions[1], "ORDERBYsys_created_on");
    assert!(!list.to_ascii_lowercase().starts_with("javascript:"), "{read:?}");
});

/// How the instance reads it: split at single carets, a doubled one is a caret.
fn conditions(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '^' if chars.next_if_eq(&'^').is_some() => parts.last_mut().expect("one at least").push('^'),
            '^' => parts.push(String::new()),
            char => parts.last_mut().expect("one at least").push(char),
        }
    }
    parts
}
