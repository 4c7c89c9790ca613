//! What a person should know and can do something about: one type for the log, `status`, the control socket and the store.

use serde::{Deserialize, Serialize};

use super::codes::Code;

/// Something that needs a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthIssue {
    /// Stable words for programs: `dead-letters`.
    pub code: String,
    /// Which of several of this code: `prod:incident:assignment_group`. Empty where there can be only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What is the case.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl HealthIssue {
    /// The only one of its code.
    pub fn new(code: &str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code: code.to_owned(), subject: String::new(), text: text.into(), remedy: remedy.into() }
    }

    /// What is the case, with the number that `otrelay help` explains: for every place where a person reads it.
    pub fn told(&self) -> String {
        format!("{}{}", self.text, Code::behind(&self.code))
    }

    /// The same about one of several.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }
}
