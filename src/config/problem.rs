//! One thing that is wrong with the config, and the list in which all of them are collected.
//!
//! A problem says where (file, line, column, key), what was found, what was expected and what to do. It never holds
//! the text of a secret: readers of secrets pass only the kind of what they found.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::model::text;

/// Problems kept of each load; a megabyte of nonsense has a line count, not a million lines of output.
const MAX_PROBLEMS: usize = 200;
/// Longest piece of the operator's text that is repeated in a message, in bytes.
const QUOTE_MAX: usize = 80;
/// Longest list of known words that is printed.
const LISTED_MAX: usize = 16;

/// Whether the config can be used in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It cannot.
    Error,
    /// It can.
    Warning,
}

/// A place in a config file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Line; 0 when the whole file is meant.
    pub line: usize,
    /// Column; 0 when the whole line is meant.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::one_line(&self.file.to_string_lossy()))?;
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (line, 0) => write!(f, ":{line}"),
            (line, column) => write!(f, ":{line}:{column}"),
        }
    }
}

/// One thing that is wrong. `Display` is for people and one line; `Serialize` is for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Error or warning.
    pub level: Level,
    /// Where; `None` when no file is to blame.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<Place>>,
    /// The key with its tables (`sync.interval`, `rule[2].action[1].table`; lists count from 1); may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What stands there, shortened; never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<str>>,
    /// What may stand there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Box<str>>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    #[serde(skip)]
    pub(super) file_order: u32,
}

impl Problem {
    /// A problem of the machine, at no place in a file.
    pub fn new(level: Level, key: impl Into<String>, message: impl Into<String>) -> Self {
        let (key, message) = (key.into(), message.into());
        Self {
            level,
            place: None,
            key,
            message,
            found: None,
            expected: None,
            hint: None,
            file_order: u32::MAX,
        }
    }

    /// Says what stands there. Not for secrets.
    #[must_use]
    pub fn found(mut self, found: impl AsRef<str>) -> Self {
        self.found = Some(quote(found.as_ref()).into());
        self
    }

    /// Says which text stands there. Not for secrets.
    #[must_use]
    pub(super) fn quoted(self, text: impl fmt::Display) -> Self {
        self.found(format!("\"{text}\""))
    }

    /// Says what may stand there.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into().into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// Says which known word may have been meant, if one is near.
    #[must_use]
    pub fn near<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, known) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Its class in `model::codes`: what `otrelay help` explains.
    pub fn code(&self) -> &'static str {
        let says = |words: &str| self.message.contains(words);
        let of_secret = |key: &str| {
            let last = key.rsplit('.').next().unwrap_or_default();
            ["password", "secret", "token", "key_file", "api_key"].iter().any(|word| last.contains(word))
        };
        if self.message.starts_with("not valid TOML") {
            "config-syntax"
        } else if self.message == "unknown key" {
            "config-unknown-key"
        } else if self.message.starts_with("missing") {
            "config-missing-key"
        } else if of_secret(&self.key) || says("secret") || says("credential") {
            "config-secret"
        } else if self.place.is_none() || says("cannot be read") || says("may not") {
            "config-machine"
        } else {
            "config-value"
        }
    }

    pub(super) fn at(mut self, at: &At) -> Self {
        self.place = Some(Box::new(at.place()));
        self.file_order = u32::try_from(at.file.order).unwrap_or(u32::MAX);
        if self.key.is_empty() {
            self.key = at.key.to_string();
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if self.level == Level::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(found) = &self.found {
            write!(f, ", found {found}")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

/// The operator's text, safe to show: one line, shortened.
pub(super) fn quote(text: &str) -> String {
    text::clip(&text::one_line(text), QUOTE_MAX).into_owned()
}

/// `a, b, c`, shortened where there are many.
pub(super) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    let shown = words.iter().take(LISTED_MAX).copied().collect::<Vec<_>>().join(", ");
    if words.len() > LISTED_MAX { format!("{shown}, …") } else { shown }
}

/// The known word that is nearest to `word`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let fold = |text: &str| -> String {
        text.chars().take(64).map(|c| if c == '_' { '-' } else { c.to_ascii_lowercase() }).collect()
    };
    let word = fold(word);
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &fold(candidate)), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A config file as the readers know it: its name and its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) path: PathBuf,
    pub(super) order: usize,
}

/// Where something was written, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) file: Arc<FileId>,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) key: Arc<str>,
}

impl At {
    pub(super) fn file(path: &Path, order: usize) -> Self {
        Self { file: Arc::new(FileId { path: path.into(), order }), line: 0, column: 0, key: "".into() }
    }

    pub(super) fn place(&self) -> Place {
        Place { file: self.file.path.clone(), line: self.line, column: self.column }
    }

    /// `file:line`, for "first set at".
    pub(super) fn line(&self) -> Place {
        Place { column: 0, ..self.place() }
    }

    /// The same place, the key `key` of the same table: for keys that this one makes necessary.
    pub(super) fn sibling(self, key: &str) -> Self {
        let table = self.key.rsplit_once('.').map_or("", |(table, _)| table);
        Self { key: join(table, key).into(), ..self }
    }

    /// The same place, another key: for keys that are missing in the table that stands here.
    pub(super) fn child(&self, key: &str) -> Self {
        Self { key: join(&self.key, key).into(), ..self.clone() }
    }
}

/// `table.key`.
pub(super) fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

#[derive(Debug, Default)]
pub(super) struct Problems {
    found: Vec<Problem>,
    dropped: usize,
    errors: usize,
}

impl Problems {
    pub(super) fn push(&mut self, problem: Problem) {
        self.errors += usize::from(problem.level == Level::Error);
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    pub(super) fn error(
        &mut self,
        at: &At,
        message: impl Into<String>,
        finish: impl FnOnce(Problem) -> Problem,
    ) {
        self.push(finish(Problem::new(Level::Error, "", message).at(at)));
    }

    pub(super) fn warn(
        &mut self,
        at: &At,
        message: impl Into<String>,
        finish: impl FnOnce(Problem) -> Problem,
    ) {
        self.push(finish(Problem::new(Level::Warning, "", message).at(at)));
    }

    pub(super) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All of them in the order of files and lines; those without a place come last.
    pub(super) fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by(|a, b| {
            let key = |p: &Problem| (p.file_order, p.place.as_ref().map(|p| (p.line, p.column)));
            key(a).cmp(&key(b))
        });
        if self.dropped > 0 {
            let message = format!("{} more problems are not shown", self.dropped);
            let level = if self.errors > 0 { Level::Error } else { Level::Warning };
            self.found.push(Problem::new(level, "", message));
        }
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_where_what_and_what_to_do() {
        let mut at = At::file(Path::new("/etc/otrelay/otrelay.toml"), 0);
        at.line = 14;
        at.column = 1;
        let problem = Problem::new(Level::Error, "", "unknown key")
            .at(&at.child("sync").child("intervall"))
            .expected("one of enabled, interval")
            .near("intervall", ["enabled", "interval"]);
        assert_eq!(
            problem.to_string(),
            "/etc/otrelay/otrelay.toml:14:1: sync.intervall: unknown key; expected one of enabled, interval; \
             did you mean `interval`?"
        );
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(json["line"], 14);
        assert_eq!(json["file"], "/etc/otrelay/otrelay.toml");
        assert_eq!(json["level"], "error");
    }

    #[test]
    fn each_class_of_problems_has_its_words_in_the_table() {
        let at = At::file(Path::new("x"), 0);
        let code = |key: &str, message: &str| Problem::new(Level::Error, key, message).at(&at).code();
        for (key, message, expected) in [
            ("", "not valid TOML: newline", "config-syntax"),
            ("sync.intervall", "unknown key", "config-unknown-key"),
            ("servicenow.prod.username", "missing: auth = \"basic\" needs it", "config-missing-key"),
            ("servicenow.prod.password.file", "cannot be read", "config-machine"),
            ("servicenow.prod.password", "cannot be read", "config-secret"),
            ("sync.interval", "too small", "config-value"),
        ] {
            assert_eq!(code(key, message), expected, "{key}: {message}");
            assert!(crate::model::codes::Code::of(expected).is_some(), "{expected}");
        }
        assert_eq!(Problem::new(Level::Error, "", "/var/lib/x: not there").code(), "config-machine");
    }

    #[test]
    fn near_words_only() {
        for (word, near) in [
            ("clientid", Some("client_id")),
            ("USERNAME", Some("username")),
            ("pasword", Some("password")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(word, ["client_id", "username", "password"]), near, "{word}");
        }
    }

    #[test]
    fn a_flood_is_counted() {
        let mut problems = Problems::default();
        let at = At::file(Path::new("x"), 0);
        for _ in 0..MAX_PROBLEMS + 5 {
            problems.error(&at, "no", |p| p);
        }
        let all = problems.sorted();
        assert_eq!(all.len(), MAX_PROBLEMS + 1);
        assert_eq!(all[MAX_PROBLEMS].message, "5 more problems are not shown");
    }

    #[test]
    fn what_terminals_act_on_is_not_repeated() {
        let problem = Problem::new(Level::Error, "k", "no").found("\u{1b}[31mred\n");
        assert_eq!(problem.found.as_deref(), Some("[31mred "));
    }
}
