//! An alert at the moment of its decision, as `otrelay tap` shows it: what it says, and what becomes of it.
//!
//! Made by the intake only while somebody watches, told over the control socket, and kept nowhere.

use serde::{Deserialize, Serialize};

use super::{
    Alert, DestinationName, Engine, Fingerprint, RuleName, Severity, SourceName, TableName, Timestamp,
};

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Rules want tickets of it.
    Forwarded,
    /// No rule takes it.
    Filtered,
    /// An exclusion took it before any rule was asked.
    Excluded,
    /// Its source took it back.
    Cleared,
}

/// One ticket that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// By which rule.
    pub rule: RuleName,
    /// Where.
    pub destination: DestinationName,
    /// In which table.
    pub table: TableName,
}

/// An alert with its decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// By the sensor's clock.
    pub time: Timestamp,
    /// By this machine's clock.
    pub received_at: Timestamp,
    /// Which source.
    pub source: SourceName,
    /// How bad it is.
    pub severity: Severity,
    /// What kind of analysis raised it.
    pub engine: Engine,
    /// The first protocol, empty where there is none.
    pub protocol: String,
    /// Its title.
    pub title: String,
    /// Who began it.
    pub from: String,
    /// Whom it went to.
    pub to: String,
    /// Which finding: the same in `otrelay alerts --json`.
    pub fingerprint: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Why no rule takes it, or the name of the exclusion; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The tickets that are wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tickets: Vec<Wanted>,
}

impl Seen {
    /// An alert that nothing was decided of yet.
    pub fn of(source: &SourceName, alert: &Alert, fingerprint: Fingerprint) -> Self {
        Self {
            time: alert.time,
            received_at: alert.received_at,
            source: source.clone(),
            severity: alert.severity,
            engine: alert.engine,
            protocol: alert.protocols.first().map(ToString::to_string).unwrap_or_default(),
            title: alert.title.clone(),
            from: alert.source.label(),
            to: alert.destination.label(),
            fingerprint: fingerprint.to_string(),
            outcome: Outcome::Cleared,
            reason: String::new(),
            tickets: Vec::new(),
        }
    }
}

/// What one who watches wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watched {
    /// Only of this source.
    pub source: Option<String>,
    /// This level and every higher one.
    pub min_severity: Option<Severity>,
    /// Only what this rule wants a ticket of.
    pub rule: Option<String>,
    /// Only what became this.
    pub outcome: Option<Outcome>,
    /// Only with this text in the title (any case).
    pub text: Option<String>,
}

impl Watched {
    /// Whether it is one of these.
    pub fn takes(&self, seen: &Seen) -> bool {
        self.source.as_ref().is_none_or(|name| seen.source.as_str() == name)
            && self.min_severity.is_none_or(|least| seen.severity >= least)
            && self.outcome.is_none_or(|outcome| seen.outcome == outcome)
            && self.rule.as_ref().is_none_or(|name| seen.tickets.iter().any(|w| w.rule.as_str() == name))
            && self.text.as_ref().is_none_or(|text| seen.title.to_lowercase().contains(&text.to_lowercase()))
    }
}

/// What a watcher is told, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// From here on nothing is left out without a word.
    Begin,
    /// An alert.
    Alert(Seen),
    /// So many alerts, of whatever source, came faster than they were read, and are shown to this watcher no more.
    LeftOut(u64),
    /// Nothing comes after this, and why.
    End(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_is_asked() {
        let source = SourceName::new("eve").unwrap();
        let alert = Alert::sample("Unknown Master", Severity::Major, Timestamp::from_secs(5));
        let mut seen = Seen::of(&source, &alert, Fingerprint::from_bytes([7; 32]));
        seen.outcome = Outcome::Forwarded;
        seen.tickets = vec![Wanted {
            rule: RuleName::new("All").unwrap(),
            destination: DestinationName::new("prod").unwrap(),
            table: TableName::new("incident").unwrap(),
        }];
        let takes = |text: &str| serde_json::from_str::<Watched>(text).unwrap().takes(&seen);
        for wanted in [
            "{}",
            r#"{"source":"eve","min_severity":"major","rule":"All","outcome":"forwarded","text":"master"}"#,
        ] {
            assert!(takes(wanted), "{wanted}");
        }
        for other in [
            r#"{"source":"zeek"}"#,
            r#"{"min_severity":"critical"}"#,
            r#"{"rule":"Other"}"#,
            r#"{"outcome":"excluded"}"#,
            r#"{"text":"slave"}"#,
        ] {
            assert!(!takes(other), "{other}");
        }
    }
}
