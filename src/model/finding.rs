//! What one check of `otrelay doctor` came to.

use serde::Serialize;

use super::words::words;

words! {
    /// How bad it is; the worst of all is the last.
    #[derive(Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum State {
        /// It is as it should be.
        Ok = "ok",
        /// It could not be looked at.
        Skipped = "skipped",
        /// It works, and a person should know.
        Warn = "warn",
        /// It does not work.
        Fail = "fail",
    }
}

/// One line, and a remedy below it where one is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `prod: token`.
    pub name: String,
    /// How it is.
    pub state: State,
    /// In words.
    pub text: String,
    /// What to do; empty where nothing has to be done.
    pub remedy: String,
}

impl Finding {
    /// It is as it should be.
    pub fn ok(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(name, State::Ok, text, "")
    }

    /// It could not be looked at, for this reason.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(name, State::Skipped, why, "")
    }

    /// It works, and a person should know.
    pub fn warn(name: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Warn, text, remedy)
    }

    /// It does not work.
    pub fn fail(name: impl Into<String>, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, State::Fail, text, remedy)
    }

    fn new(
        name: impl Into<String>,
        state: State,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name: name.into(), state, text: text.into(), remedy: remedy.into() }
    }

    /// The same about one of several.
    #[must_use]
    pub fn of(mut self, whose: &str) -> Self {
        self.name = format!("{whose}: {}", self.name);
        self
    }

    /// Whether it does not work.
    pub fn fails(&self) -> bool {
        self.state == State::Fail
    }
}
