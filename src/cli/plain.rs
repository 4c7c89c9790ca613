//! What a command prints, as a terminal may have it: whatever a table, a sensor or a restored copy holds, no character of it
//! moves the cursor, names the window or turns the text around. Each such character comes out as its number, `\\u001b`, which
//! is also how JSON writes it. `top` draws by itself (`top/screen.rs`).

use std::io::{self, Write};

use crate::model::text::is_unsafe;

/// Passes on what is safe.
pub(super) struct Plain<W> {
    inner: W,
    /// The beginning of a character whose end has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> Plain<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, begun: Vec::new() }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        let bad = |c: char| is_unsafe(c) && !matches!(c, '\n' | '\t');
        let mut rest = text;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| bad(*c)) {
            self.inner.write_all(&rest.as_bytes()[..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(self.inner, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.inner.write_all(rest.as_bytes())
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let whole;
        let all = if self.begun.is_empty() {
            bytes
        } else {
            whole = [&std::mem::take(&mut self.begun)[..], bytes].concat();
            &whole
        };
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text(chunk.valid())?;
            let cut = chunk.invalid();
            if cut.is_empty() {
                continue;
            }
            let is_begun =
                chunks.peek().is_none() && std::str::from_utf8(cut).is_err_and(|e| e.error_len().is_none());
            if is_begun {
                cut.clone_into(&mut self.begun);
            } else {
                self.inner.write_all("\u{fffd}".as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(parts: &[&[u8]]) -> String {
        let mut plain = Plain::new(Vec::new());
        for part in parts {
            plain.write_all(part).unwrap();
        }
        String::from_utf8(plain.inner).unwrap()
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_comes_out() {
        assert_eq!(printed(&["a\tü漢\n".as_bytes()]), "a\tü漢\n");
        assert_eq!(
            printed(&[b"\x1b]0;own\x07", "\u{9b}31m\u{202e}\u{e0041}".as_bytes()]),
            "\\u001b]0;own\\u0007\\u009b31m\\u202e\\udb40\\udc41"
        );
        assert_eq!(printed(&[b"\r\x7f\0"]), "\\u000d\\u007f\\u0000");
    }

    #[test]
    fn characters_that_come_in_pieces_are_seen_whole() {
        assert_eq!(printed(&[b"x\xe2", b"\x80", b"\xaey", b"\xc2", b"\x9b"]), "x\\u202ey\\u009b");
        assert_eq!(printed(&[b"\xc3", b"\xbc"]), "ü");
        assert_eq!(printed(&[b"\xffz", b"\xe2", b"z"]), "\u{fffd}z\u{fffd}z");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"a": "\u{1b}\u{9b}\u{202e}\u{e0041}\n"});
        let text = printed(&[serde_json::to_string_pretty(&value).unwrap().as_bytes()]);
        assert!(text.is_ascii(), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
