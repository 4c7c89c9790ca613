//! Text that came from a sensor, made safe to keep and to show.
//!
//! Decoded OT data put raw bytes into JSON strings (`\u0000\t\u0018`); a terminal acts on escape sequences, and a
//! journal field of ServiceNow renders HTML between `[code]` tags. What leaves these functions has none of it.

use std::borrow::Cow;

/// At most `max` bytes of `text`, cut at a character; `…` (3 bytes, within `max`) marks a cut.
pub fn clip(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let room = max.saturating_sub('…'.len_utf8());
    let end = text.floor_char_boundary(room);
    if max < '…'.len_utf8() {
        return Cow::Borrowed(&text[..text.floor_char_boundary(max)]);
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// One line, without control characters and without marks that reorder text (bidi) or take no room; runs of blanks stay.
pub fn one_line(text: &str) -> Cow<'_, str> {
    clean(text, false)
}

/// Several lines: newline and tab stay, everything else as in [`one_line`].
pub fn lines(text: &str) -> Cow<'_, str> {
    clean(text, true)
}

fn clean(text: &str, keep_newline: bool) -> Cow<'_, str> {
    let bad = |c: char| match c {
        '\n' | '\t' => !keep_newline,
        // Marks that reorder text, take no room, end a line, or are ignored: with them one text looks like another.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => true,
        c => c.is_control(),
    };
    // Nearly every text is printable ASCII: that is told byte by byte.
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) || !text.chars().any(bad) {
        return Cow::Borrowed(text);
    }
    let space = |c: char| matches!(c, '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}');
    Cow::Owned(
        text.chars()
            .filter_map(|c| match c {
                c if !bad(c) => Some(c),
                c if space(c) && !keep_newline => Some(' '),
                _ => None,
            })
            .collect(),
    )
}

/// Adds a text to an XML or HTML document, as a text there or between double quotes.
pub fn push_xml(document: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => document.push_str("&amp;"),
            '<' => document.push_str("&lt;"),
            '>' => document.push_str("&gt;"),
            '"' => document.push_str("&quot;"),
            // XML has no place for them, not even escaped.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => document.push('\u{fffd}'),
            c => document.push(c),
        }
    }
}

/// The error and its causes in one line.
pub fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let next = e.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_an_element_or_an_attribute() {
        let mut document = String::new();
        push_xml(&mut document, "</a b=\"&\u{0}\u{fffe}\n]]>é");
        assert_eq!(document, "&lt;/a b=&quot;&amp;\u{fffd}\u{fffd}\u{fffd}]]&gt;é");
    }

    #[test]
    fn clips_at_a_character() {
        assert_eq!(clip("abc", 3), "abc");
        assert_eq!(clip("abcdef", 5), "ab…");
        assert_eq!(clip("ééééé", 6), "é…");
        assert_eq!(clip("abcdef", 2), "ab");
    }

    #[test]
    fn takes_out_what_terminals_act_on() {
        assert_eq!(one_line("a\u{1b}[31mb\r\nc\u{202e}d\0"), "a[31mb  cd");
        assert_eq!(lines("a\n\u{0}b\tc"), "a\nb\tc");
        assert_eq!(one_line("a\u{61c}b\u{2028}c\u{200b}\u{9b}2Jd\u{2069}\u{ad}e"), "ab c2Jde");
        assert!(matches!(one_line("plain"), Cow::Borrowed(_)));
    }
}
