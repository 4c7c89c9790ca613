//! Which rules take an alert: a bit vector of rules per value of each condition, and-ed word by word.
//!
//! Bit *i* of every vector is rule *i* of the file; a disabled rule has no bit anywhere. A rule that takes any
//! protocol or engine has its bit in all of that condition's vectors, so nothing is tested per rule.
//! [`super::explain`] evaluates the same conditions rule by rule; a property test holds the two together.

use std::collections::HashMap;

use crate::model::{Alert, AlertKind, Engine, Protocol, Severity};

use super::RuleSettings;
use super::reason::{Reason, RuleSet};

/// Bit *i*: rule *i*.
type Bits = Box<[u64]>;

/// The compiled conditions of all rules.
#[derive(Clone, Debug)]
pub(super) struct Matcher {
    any_enabled: bool,
    kinds: [Bits; 2],
    severities: [Bits; Severity::ALL.len()],
    engines: [Bits; Engine::ALL.len()],
    /// Rules that take any protocol: all that an alert without protocols can match.
    any_protocol: Bits,
    /// One after another, `any_protocol.len()` words each: rules that take this protocol by name.
    protocols: Vec<u64>,
    /// Folded name to its place in `protocols`.
    by_fold: HashMap<Box<str>, usize>,
    /// Canonical name to its place in `protocols`, `None` when no rule names it. Saves the folding of names that the
    /// table knows, which is nearly every alert.
    by_name: HashMap<&'static str, Option<usize>>,
}

impl Matcher {
    /// Compiles the conditions. The caller has bounded the number of rules and of protocol names.
    pub(super) fn compile(rules: &[RuleSettings]) -> Self {
        let words = rules.len().div_ceil(64);
        let bits = |takes: &dyn Fn(&RuleSettings) -> bool| -> Bits {
            let mut bits = vec![0u64; words].into_boxed_slice();
            for (at, rule) in rules.iter().enumerate() {
                if rule.enabled && takes(rule) {
                    bits[at / 64] |= 1 << (at % 64);
                }
            }
            bits
        };

        let mut by_fold: HashMap<Box<str>, usize> = HashMap::new();
        let mut protocols: Vec<u64> = Vec::new();
        for (at, rule) in rules.iter().enumerate().filter(|(_, r)| r.enabled) {
            for name in rule.protocols.iter().flatten() {
                let place = if let Some(&place) = by_fold.get(name.as_str()) {
                    place
                } else {
                    let place = protocols.len();
                    protocols.resize(place + words, 0);
                    by_fold.insert(name.as_str().into(), place);
                    place
                };
                protocols[place + at / 64] |= 1 << (at % 64);
            }
        }
        let by_name = if by_fold.is_empty() {
            HashMap::new()
        } else {
            Protocol::known()
                .map(|name| (name, by_fold.get(crate::model::protocol::fold(name).as_str()).copied()))
                .collect()
        };

        Self {
            any_enabled: rules.iter().any(|r| r.enabled),
            kinds: [AlertKind::Alert, AlertKind::SystemNotification].map(|k| bits(&|r| r.takes_kind(k))),
            severities: Severity::ALL.map(|s| bits(&|r| r.takes_severity(s))),
            engines: Engine::ALL.map(|e| bits(&|r| r.takes_engine(e))),
            any_protocol: bits(&|r| r.protocols.is_none()),
            protocols,
            by_fold,
            by_name,
        }
    }

    /// The rules that take this alert, and the furthest condition that any rule reached.
    pub(super) fn matching(&self, alert: &Alert) -> (Reason, RuleSet) {
        if !self.any_enabled {
            return (Reason::NoRules, RuleSet::default());
        }
        let mut set = self.any_protocol.to_vec();
        for protocol in &alert.protocols {
            if let Some(place) = self.place(protocol) {
                for (word, more) in set.iter_mut().zip(&self.protocols[place..]) {
                    *word |= more;
                }
            }
        }

        let kinds = &self.kinds[usize::from(alert.kind == AlertKind::SystemNotification)];
        let severities = &self.severities[alert.severity as usize];
        let engines = &self.engines[alert.engine as usize];
        let (mut kind, mut severity, mut protocol, mut engine, mut all_but_severity) = (0, 0, 0, 0, 0);
        for (((word, k), s), e) in set.iter_mut().zip(kinds).zip(severities).zip(engines) {
            all_but_severity |= *word & k & e;
            kind |= k;
            severity |= k & s;
            *word &= k & s;
            protocol |= *word;
            *word &= e;
            engine |= *word;
        }

        // A rule that would take it but for its severity says more than one that is about something else.
        if engine == 0 && all_but_severity != 0 {
            return (Reason::Severity, RuleSet::default());
        }
        // The first condition after which no rule is left.
        let stages = [
            (kind, Reason::Kind),
            (severity, Reason::Severity),
            (protocol, Reason::Protocol),
            (engine, Reason::Engine),
        ];
        match stages.into_iter().find(|(left, _)| *left == 0) {
            Some((_, reason)) => (reason, RuleSet::default()),
            None => (Reason::Matched, RuleSet(set)),
        }
    }

    /// Where this protocol's vector begins, if any rule names it.
    fn place(&self, protocol: &Protocol) -> Option<usize> {
        if self.by_fold.is_empty() {
            return None;
        }
        match self.by_name.get(protocol.as_str()) {
            Some(&place) => place,
            // A name that the table does not know, or one that was read from a file as somebody wrote it.
            None => self.by_fold.get(protocol.folded().as_str()).copied(),
        }
    }
}
