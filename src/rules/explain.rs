//! Why each rule takes an alert or does not, in words. Rule by rule and slow: for people, and the oracle that the
//! bit sets of [`super::matcher`] are tested against, so it must not use them.

use std::fmt;

use crate::model::words::words;
use crate::model::{Alert, AlertKind, Protocol, RuleName};

use super::RuleSettings;

words! {
    /// What a rule asks of an alert, in the order in which it is looked at.
    pub enum Condition {
        /// The rule itself is enabled.
        Enabled = "rule",
        /// Alert or system notification.
        Kind = "kind",
        /// At least `min_severity`.
        Severity = "severity",
        /// One of `protocols`.
        Protocol = "protocol",
        /// One of `engines`.
        Engine = "engine",
    }
}

/// The first condition of a rule that an alert does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which condition.
    pub condition: Condition,
    /// What the alert has.
    pub found: String,
    /// What the rule takes.
    pub wanted: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}, the rule takes {}", self.condition.as_str(), self.found, self.wanted)
    }
}

/// What one rule says to one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'r> {
    /// Place of the rule in the file, from 0.
    pub index: usize,
    /// The rule.
    pub rule: &'r RuleName,
    /// `None`: it matches.
    pub failure: Option<Failure>,
}

impl Verdict<'_> {
    /// Whether the rule takes the alert.
    pub fn matches(&self) -> bool {
        self.failure.is_none()
    }
}

/// `matches`, `disabled`, or the condition that fails.
impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failure {
            None => f.write_str("matches"),
            Some(failure) if failure.condition == Condition::Enabled => f.write_str("disabled"),
            Some(failure) => failure.fmt(f),
        }
    }
}

/// The first condition of `rule` that `alert` does not meet.
pub(super) fn failure(rule: &RuleSettings, alert: &Alert) -> Option<Failure> {
    let fails =
        |condition, found: &str, wanted: String| Some(Failure { condition, found: found.to_owned(), wanted });
    if !rule.enabled {
        return fails(Condition::Enabled, "disabled", "nothing".to_owned());
    }
    if !rule.takes_kind(alert.kind) {
        let taken = AlertKind::ALL.into_iter().filter(|kind| rule.takes_kind(*kind));
        let taken: Vec<_> = taken.map(AlertKind::as_str).collect();
        return fails(Condition::Kind, alert.kind.as_str(), either(&taken));
    }
    if !rule.takes_severity(alert.severity) {
        let wanted = format!("{} and higher", rule.min_severity);
        return fails(Condition::Severity, alert.severity.as_str(), wanted);
    }
    if let Some(taken) = &rule.protocols
        && !alert.protocols.iter().any(|p| taken.contains(&p.folded()))
    {
        let found: Vec<_> = alert.protocols.iter().map(Protocol::as_str).collect();
        let found = if found.is_empty() { "not known".to_owned() } else { found.join(", ") };
        let taken: Vec<_> = taken.iter().map(|folded| Protocol::named(folded)).collect();
        let taken: Vec<_> = taken.iter().map(Protocol::as_str).collect();
        return fails(Condition::Protocol, &found, either(&taken));
    }
    if !rule.takes_engine(alert.engine) {
        let taken: Vec<_> = rule.engines.iter().flatten().map(|e| e.as_str()).collect();
        return fails(Condition::Engine, alert.engine.as_str(), either(&taken));
    }
    None
}

fn either(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(" or ") }
}
