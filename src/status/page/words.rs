//! Numbers, times and texts as people read them. Pure.

use crate::model::Timestamp;
use crate::model::text::{clip, one_line};
pub(super) use crate::model::time::relative;
use crate::model::time::span;

/// Longest text of one place on the page, in bytes.
const TEXT_MAX: usize = 1_000;

/// Between groups of digits: narrow, and no line ends there.
const GROUP: char = '\u{202f}';

/// `17 114`.
pub(super) fn number(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut out = if n < 0 { "−".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(GROUP);
        }
        out.push(digit);
    }
    out
}

/// `1 alert`, `2 alerts`.
pub(super) fn count(n: i64, one: &str, more: &str) -> String {
    format!("{} {}", number(n), if n == 1 { one } else { more })
}

/// How long ago, without saying so: `41 min`.
pub(super) fn age(at: Timestamp, now: Timestamp) -> String {
    span(now.since(at))
}

/// `10:47` on the day that is, else `2026-11-20 10:47`. UTC.
pub(super) fn clock(at: Timestamp, now: Timestamp) -> String {
    let (text, today) = (at.servicenow(), now.servicenow());
    let from = if text.get(..10) == today.get(..10) { 11 } else { 0 };
    text.get(from..16).unwrap_or_default().to_owned()
}

/// Text from outside: one line of bounded length, without anything that steers or hides text.
pub(super) fn clean(text: &str) -> String {
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{e0000}'..='\u{e007f}');
    let line: String = one_line(clip(text, TEXT_MAX).as_ref()).chars().filter(|c| !hidden(*c)).collect();
    line
}

/// At most so many characters, for places that do not wrap.
pub(super) fn short(text: &str, most: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= most {
        return text;
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_groups() {
        assert_eq!((number(0).as_str(), number(999).as_str()), ("0", "999"));
        assert_eq!(number(17_114), "17\u{202f}114");
        assert_eq!(number(1_000_000), "1\u{202f}000\u{202f}000");
        assert_eq!(number(-5), "−5");
        assert_eq!(
            (count(1, "alert", "alerts").as_str(), count(2, "alert", "alerts").as_str()),
            ("1 alert", "2 alerts")
        );
    }

    #[test]
    fn times_as_people_say_them() {
        let at = Timestamp::from_secs(1_795_248_900);
        let later = |s: i64| Timestamp::from_secs(1_795_248_900 + s);
        assert_eq!(clock(at, later(60)), "08:15");
        assert_eq!(clock(at, later(86_400)), "2026-11-21 08:15");
        assert_eq!(relative(at, later(480)), "8 min ago");
        assert_eq!(relative(later(3_120), at), "in 52 min");
        assert_eq!(age(later(5), at), "0 s");
    }

    #[test]
    fn what_steers_or_hides_text_is_gone() {
        assert_eq!(clean("a\u{1b}[31m\u{202e}b\u{200b}c\nd\u{e0041}"), "a[31mbc d");
        assert!(clean(&"é".repeat(1_000)).len() <= TEXT_MAX);
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
    }
}
