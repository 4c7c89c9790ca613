//! What the rules of a config make of an alert, for commands that rehearse a config: nothing is stored, nothing is sent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::CliError;
use crate::app::{self, AppError, Composer};
use crate::config::Config;
use crate::destination::{Compose, Fields, TicketFacts};
use crate::model::ticket::TicketKeys;
use crate::model::{Alert, Fingerprint, Generation, SourceName};
use crate::rules::exclude::Exclusions;
use crate::rules::{Route, Rules};
use crate::source::Settings;
use crate::source::format::Finding;

/// The rules and exclusions of a config.
pub(super) struct Judge {
    rules: Arc<Rules>,
    composer: Composer,
    exclusions: Exclusions,
}

/// A ticket that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) destination: String,
    pub(super) table: String,
    /// The rule that gives the fields.
    pub(super) rule: String,
}

/// What becomes of an alert.
pub(super) struct Verdict {
    /// Every rule that matches.
    pub(super) rules: BTreeSet<String>,
    /// Tickets that are asked for, in the order of the rules.
    pub(super) places: Vec<Place>,
    /// Why none, in words.
    pub(super) why: String,
    /// The fields of the first ticket, or why they cannot be made.
    pub(super) fields: Option<Result<Fields, String>>,
    /// The first ticket's key.
    pub(super) key: Option<String>,
}

impl Judge {
    pub(super) fn new(config: &Config) -> Result<Self, CliError> {
        let rules = Arc::new(app::compile(config).map_err(AppError::from)?);
        let composer = Composer::of(config, Arc::clone(&rules));
        Ok(Self { rules, composer, exclusions: config.intake.exclusions.clone() })
    }

    pub(super) fn judge(&self, source: &SourceName, finding: &Finding) -> Verdict {
        let mut verdict = Verdict {
            rules: BTreeSet::new(),
            places: Vec::new(),
            why: String::new(),
            fields: None,
            key: None,
        };
        if let Some(name) = self.exclusions.taking(source, &finding.alert) {
            verdict.why = format!("excluded: {name}");
            return verdict;
        }
        let decision = self.rules.decide(&finding.alert);
        decision.reason.as_str().clone_into(&mut verdict.why);
        let said = self.rules.explain(&finding.alert);
        verdict.rules = said.iter().filter(|v| v.matches()).map(|v| v.rule.to_string()).collect();
        for route in &decision.routes {
            if verdict.fields.is_none() {
                let keys = keys(&finding.fingerprint, route);
                let shown = self.composer.redact(finding.alert.clone());
                verdict.fields = Some(self.composer.compose(&facts(&shown, route, &keys)));
                verdict.key = Some(keys.correlation_id.to_string());
            }
            verdict.places.push(Place {
                destination: route.destination.to_string(),
                table: route.table.to_string(),
                rule: route.rule_name.to_string(),
            });
        }
        verdict
    }
}

/// The keys of the first ticket that a finding gets there.
pub(super) fn keys(fingerprint: &Fingerprint, route: &Route<'_>) -> TicketKeys {
    TicketKeys::derive(fingerprint, route.destination, route.table, Generation::default())
}

/// What a ticket is composed of that is opened at the first sighting; the alert is redacted.
pub(super) fn facts<'a>(alert: &'a Alert, route: &Route<'a>, keys: &TicketKeys) -> TicketFacts<'a> {
    TicketFacts {
        alert,
        occurrences: 1,
        last_seen_at: alert.time,
        destination: route.destination,
        table: route.table,
        generation: Generation::default(),
        rule: route.rule_name.as_str(),
        correlation_id: keys.correlation_id.clone(),
    }
}

impl Verdict {
    /// Where it goes, in words: `incident at prod by "OT incidents"`, or `nowhere (below every rule's severity)`.
    pub(super) fn words(&self) -> String {
        if self.places.is_empty() {
            return format!("nowhere ({})", self.why);
        }
        let place = |place: &Place| format!("{} at {} by \"{}\"", place.table, place.destination, place.rule);
        self.places.iter().map(place).collect::<Vec<_>>().join(", ")
    }
}

/// The source of a config that reads records of this kind: by its name, else the first of its kind, else one with all
/// defaults.
pub(super) fn source(config: &Config, kind: &str, name: Option<&str>) -> Result<Settings, CliError> {
    let mut fitting = config.sources.iter().filter(|s| s.kind == kind);
    match name {
        Some(name) => fitting.find(|s| s.name.as_str() == name).cloned().ok_or_else(|| {
            CliError::Words(format!("there is no source \"{name}\" with kind = \"{kind}\" in the config"))
        }),
        None => match fitting.next() {
            Some(source) => Ok(source.clone()),
            None => super::input::default_source(kind, &config.agent),
        },
    }
}
