//! A text with `*` for anything, compared with a whole text; case does not matter.

/// A pattern. `*` stands for any number of characters, also none; nothing else is special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    written: String,
    /// What stands between the `*`, folded.
    parts: Vec<String>,
}

impl Pattern {
    /// The pattern that `text` writes.
    pub fn new(text: &str) -> Self {
        let folded = text.trim().to_lowercase();
        Self { written: text.to_owned(), parts: folded.split('*').map(ToOwned::to_owned).collect() }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Whether the whole text is as the pattern says.
    pub fn matches(&self, text: &str) -> bool {
        let text = text.trim().to_lowercase();
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|whole| *whole == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            // The earliest place leaves most to what follows.
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_with_anything_between() {
        for (pattern, text, expected) in [
            ("Port Scan", "port scan", true),
            ("Port Scan", "Port Scan Detected", false),
            ("*scan*", "Address Scan Detected", true),
            ("line4-*", "line4-a", true),
            ("line4-*", "line4-", true),
            ("line4-*", "line40-a", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("ab*bc", "abc", false),
            ("**é*", "CafÉ", true),
            ("", "", true),
            ("a.c", "abc", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} / {text}");
        }
    }
}
