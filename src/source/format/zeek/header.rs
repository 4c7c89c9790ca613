//! The header of a Zeek log in TSV: what separates, what stands for absent and empty, which log it is, and its columns.
//!
//! Nothing of it is assumed: every part is configurable in Zeek, and columns change with version and site. A header can
//! come again in the middle of a file (a restart that appends); the newest counts.

use std::borrow::Cow;

use super::row::unescape;
use crate::source::format::STATE_MAX;

/// Most columns of a log. The widest that are known have about 60.
const COLUMNS_MAX: usize = 400;
/// Longest separator, marker or name of a log, in bytes.
const MARK_MAX: usize = 128;

/// A header as far as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Between columns.
    pub(super) separator: String,
    /// Between members of a set or vector.
    pub(super) set_separator: String,
    /// An empty set or text.
    pub(super) empty: String,
    /// An absent value.
    pub(super) unset: String,
    /// Which log (`notice`); empty when the header does not say.
    pub(super) path: String,
    /// Names of the columns; empty until `#fields` was read.
    pub(super) fields: Vec<String>,
}

impl Default for Header {
    fn default() -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            separator: text("\t"),
            set_separator: text(","),
            empty: text("(empty)"),
            unset: text("-"),
            path: String::new(),
            fields: Vec::new(),
        }
    }
}

impl Header {
    /// Takes a header line in. Lines that say nothing about columns (`#open`, `#types`, `#close`) change nothing.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Cow<'static, str>> {
        // The first line has a blank whatever the separator is, for it says what the separator is.
        if let Some(separator) = line.strip_prefix("#separator ") {
            let separator = mark(separator)?;
            *self = Self { separator, ..Self::default() };
            return Ok(());
        }
        let Some((key, value)) = line.split_once(self.separator.as_str()) else { return Ok(()) };
        match key {
            "#set_separator" => self.set_separator = mark(value)?,
            "#empty_field" => self.empty = mark(value)?,
            "#unset_field" => self.unset = mark(value)?,
            "#path" => self.path = mark(value)?,
            "#fields" => return self.columns(value),
            _ => {}
        }
        Ok(())
    }

    /// The line of names that a log without a header begins with (the writer's option `tsv`), if `line` is one.
    pub(super) fn of_names(line: &str) -> Option<Self> {
        let name = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
            text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(plain)
        };
        let mut header = Self::default();
        let names = || line.split('\t');
        let valid = names().count() > 1 && names().all(name) && names().any(|name| name == "ts");
        (valid && header.columns(line).is_ok()).then_some(header)
    }

    fn columns(&mut self, names: &str) -> Result<(), Cow<'static, str>> {
        self.fields.clear();
        let count = names.split(self.separator.as_str()).count();
        if count > COLUMNS_MAX || names.len() > STATE_MAX / 2 {
            let found = format!(
                "a header of {count} columns in {} bytes: at most {COLUMNS_MAX} in {}",
                names.len(),
                STATE_MAX / 2
            );
            return Err(Cow::Owned(found));
        }
        self.fields = names.split(self.separator.as_str()).map(ToOwned::to_owned).collect();
        Ok(())
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field == name)
    }

    /// The header as its lines, for [`Header::restored`]; `None` before `#fields`.
    pub(super) fn state(&self) -> Option<String> {
        if self.fields.is_empty() {
            return None;
        }
        let between = &self.separator;
        // A header of names alone says no path, and an empty one would not be read.
        let path = (!self.path.is_empty()).then(|| format!("#path{between}{}\n", escape(&self.path)));
        let lines = [
            format!("#separator {}", escape(between)),
            format!("#set_separator{between}{}", escape(&self.set_separator)),
            format!("#empty_field{between}{}", escape(&self.empty)),
            format!("#unset_field{between}{}", escape(&self.unset)),
            format!("{}#fields{between}{}", path.unwrap_or_default(), self.fields.join(between)),
        ];
        Some(lines.join("\n"))
    }

    /// Reads what [`Header::state`] gave; a state that is none gives the header of nothing.
    pub(super) fn restored(state: &str) -> Self {
        let mut header = Self::default();
        if state.len() <= STATE_MAX && state.lines().all(|line| header.line(line).is_ok()) {
            return header;
        }
        Self::default()
    }
}

/// A separator or marker, unescaped.
fn mark(written: &str) -> Result<String, Cow<'static, str>> {
    let text = unescape(written.as_bytes()).into_owned();
    if text.len() > MARK_MAX || text.contains(['\n', '\r']) || text.is_empty() {
        return Err(Cow::Owned(format!("a header value that is empty or longer than {MARK_MAX} bytes")));
    }
    Ok(text)
}

/// As Zeek writes it: bytes outside printable ASCII as `\xHH`, a backslash doubled.
fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut written, byte| {
        match byte {
            b'\\' => written.push_str("\\\\"),
            0x20..=0x7e => written.push(char::from(byte)),
            _ => {
                use std::fmt::Write;
                // Writing to a String cannot fail.
                let _ = write!(written, "\\x{byte:02x}");
            }
        }
        written
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 8] = [
        "#separator \\x7c",
        "#set_separator|;",
        "#empty_field|EMPTY",
        "#unset_field|?",
        "#path|notice",
        "#open|2024-04-12-19-29-12",
        "#fields|ts|note|src",
        "#types|time|enum|addr",
    ];

    #[test]
    fn every_part_is_read_and_survives_a_restart() {
        let mut header = Header::default();
        for line in LINES {
            header.line(line).unwrap();
        }
        assert_eq!((header.separator.as_str(), header.set_separator.as_str()), ("|", ";"));
        assert_eq!((header.empty.as_str(), header.unset.as_str()), ("EMPTY", "?"));
        assert_eq!((header.path.as_str(), header.column("src")), ("notice", Some(2)));
        assert_eq!(Header::restored(&header.state().unwrap()), header);
        header.line("#separator \\x09").unwrap();
        assert_eq!(header, Header::default(), "a new header begins from nothing");
    }

    #[test]
    fn a_separator_of_bytes_that_are_no_text_survives_too() {
        let mut header = Header::default();
        header.line("#separator \\x01\\x5c\\xc3\\xa9").unwrap();
        header.line("#path\u{1}\\é\\x2d").unwrap();
        header.line("#fields\u{1}\\éts\u{1}\\éhost").unwrap();
        assert_eq!((header.path.as_str(), header.fields.len()), ("-", 2));
        assert_eq!(Header::restored(&header.state().unwrap()), header);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let mut header = Header::default();
        let wide = format!("#fields\t{}", vec!["a"; COLUMNS_MAX + 1].join("\t"));
        assert!(header.line(&wide).is_err() && header.fields.is_empty());
        assert!(header.line(&format!("#fields\t{}", "a".repeat(STATE_MAX))).is_err());
        assert!(header.line(&format!("#path\t{}", "a".repeat(MARK_MAX + 1))).is_err());
        assert_eq!(header.state(), None);
        assert_eq!(Header::restored("nonsense"), Header::default());
    }

    #[test]
    fn a_line_of_names() {
        let header = Header::of_names("ts\tid.orig_h\tnote").unwrap();
        assert_eq!(header.fields.len(), 3);
        assert_eq!(Header::restored(&header.state().unwrap()), header, "a restart in mid-file");
        for none in ["ts", "1521911720.6\tx\ty", "host\tname", "ts\t-\tx", "ts\tA note"] {
            assert_eq!(Header::of_names(none), None, "{none}");
        }
    }
}
