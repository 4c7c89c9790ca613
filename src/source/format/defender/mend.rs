//! Mends what the product's own samples get wrong: commas before a closing bracket, `\#`, raw control characters in a
//! string, words that JSON does not know (`NaN`). What cannot be mended stays as it is, and is rejected by the reader.

/// The text as JSON, as far as that can be had.
pub(super) fn mend(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => {
                out.push('"');
                rest = string(rest, &mut out);
            }
            ',' if rest.trim_start().starts_with([']', '}', ',']) => {}
            c if c.is_alphabetic() => {
                let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
                let word = &rest[..end];
                let known = matches!((c, word), ('t', "rue") | ('f', "alse") | ('n', "ull"));
                // The exponent of a number follows a digit.
                let exponent =
                    matches!(c, 'e' | 'E') && out.ends_with(|c: char| c.is_ascii_digit() || c == '.');
                if known || exponent {
                    out.push(c);
                    out.push_str(word);
                } else {
                    if out.ends_with('-') {
                        out.pop();
                    }
                    out.push_str("null");
                }
                rest = &rest[end..];
            }
            c => out.push(c),
        }
    }
    out
}

/// Copies a string to and with its closing quote; gives what follows.
fn string<'a>(text: &'a str, out: &mut String) -> &'a str {
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => {
                out.push('"');
                return rest;
            }
            '\\' => rest = escape(rest, out),
            c if c < ' ' => out.push(' '),
            c => out.push(c),
        }
    }
    rest
}

/// Copies what follows a backslash; gives what follows that.
fn escape<'a>(text: &'a str, out: &mut String) -> &'a str {
    let Some(c) = text.chars().next() else { return text };
    let rest = &text[c.len_utf8()..];
    match c {
        '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => {
            out.push('\\');
            out.push(c);
            rest
        }
        'u' => {
            let Some(unit) = unit(rest) else {
                out.push('\u{fffd}');
                return rest;
            };
            let after = &rest[4..];
            let low =
                after.strip_prefix("\\u").filter(|_| (0xd800..0xdc00).contains(&unit)).and_then(self::unit);
            match (unit, low) {
                (_, Some(low @ 0xdc00..=0xdfff)) => {
                    let point = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                    out.push(char::from_u32(point).unwrap_or('\u{fffd}'));
                    &after[6..]
                }
                (0xd800..=0xdfff, _) => {
                    out.push('\u{fffd}');
                    after
                }
                _ => {
                    out.push_str("\\u");
                    out.push_str(&rest[..4]);
                    after
                }
            }
        }
        // `\#`: the backslash is the mistake.
        c if c < ' ' => {
            out.push(' ');
            rest
        }
        c => {
            out.push(c);
            rest
        }
    }
}

/// Four hex digits.
fn unit(text: &str) -> Option<u32> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_the_documentation_become_json() {
        for (written, json) in [
            (r#"{"a":1,}"#, r#"{"a":1}"#),
            ("[1, 2 , ]", "[1, 2  ]"),
            (r#"{"a":"\#1 \n"}"#, r##"{"a":"#1 \n"}"##),
            ("{\"a\":\"b\u{1}\nc\"}", r#"{"a":"b  c"}"#),
            (r#"{"a":NaN,"b":-Infinity,"c":1e5,"d":true}"#, r#"{"a":null,"b":null,"c":1e5,"d":true}"#),
            (r#"{"a":"\ud800x\ud83d\ude00\uZZ"}"#, "{\"a\":\"\u{fffd}x\u{1f600}\u{fffd}ZZ\"}"),
            (r#"{"a":"\u0041,]"}"#, r#"{"a":"\u0041,]"}"#),
        ] {
            assert_eq!(mend(written), json);
            assert!(serde_json::from_str::<serde_json::Value>(&mend(written)).is_ok(), "{written}");
        }
    }

    #[test]
    fn what_is_json_stays_the_same() {
        let json = r#"{"a":[1,-2.5e-3,"x\\\"y",null,{"b":false}],"é":"\u00e9"}"#;
        assert_eq!(mend(json), json);
    }
}
