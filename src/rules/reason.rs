//! What a decision says: where an alert goes, or how far it came before no rule was left.
//!
//! Reasons are counted, shown and stored under their names, which stay as they are across releases. A reason is never guessed: it names the severity where a rule lacks nothing
//! else, and otherwise the furthest condition that any rule reached.

use crate::model::words::words;
use crate::model::{DeliveryKind, DestinationName, RuleName, TableName};

words! {
    /// Why an alert is forwarded or not.
    pub enum Reason {
        /// At least one rule takes it.
        Matched = "matched",
        /// There is no enabled rule.
        NoRules = "no rule is enabled",
        /// No rule takes this kind: alert or system notification.
        Kind = "no rule takes this kind",
        /// A rule takes everything of it but its severity; or of the rules that take its kind none takes this severity.
        Severity = "below every rule's severity",
        /// Of those that also take its severity, none takes one of its protocols.
        Protocol = "no rule takes this protocol",
        /// Of those that also take a protocol of it, none takes its engine.
        Engine = "no rule takes this engine",
        /// Older than `[sync] backfill` when its source was first read. The intake's reason: rules know no time.
        TooOld = "older than backfill",
    }
}

/// One ticket that an alert asks for. Two rules that name the same destination and table make one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route<'r> {
    /// To which destination.
    pub destination: &'r DestinationName,
    /// Into which table.
    pub table: &'r TableName,
    /// What it becomes there.
    pub kind: DeliveryKind,
    /// Index of the first rule of the file that asks for it; its action gives the fields.
    pub rule: usize,
    /// That rule's name.
    pub rule_name: &'r RuleName,
}

/// What becomes of an alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'r> {
    /// Where it goes, in the order of the rules that ask for it; empty unless the reason is [`Reason::Matched`].
    pub routes: Vec<Route<'r>>,
    /// Why.
    pub reason: Reason,
    /// Every rule that matched, also those whose tickets an earlier rule already gave.
    pub matched: RuleSet,
}

impl Decision<'_> {
    /// Whether a ticket is wanted.
    pub fn is_forwarded(&self) -> bool {
        self.reason == Reason::Matched
    }
}

/// A set of rules, by their index in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(pub(super) Vec<u64>);

impl RuleSet {
    /// The indices, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, &word)| Ones(word).map(move |bit| at * 64 + bit))
    }
}

/// Positions of the set bits of a word, lowest first.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stored_and_never_change() {
        assert_eq!(Reason::Matched.as_str(), "matched");
        assert_eq!(Reason::Severity.as_str(), "below every rule's severity");
        assert_eq!(Reason::TooOld.as_str(), "older than backfill");
    }

    #[test]
    fn a_set_walks_its_bits_in_order() {
        let set = RuleSet(vec![1 | 1 << 63, 0, 0b100]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 130]);
    }
}
