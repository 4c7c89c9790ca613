//! The life of a ticket after it was opened: what a rule's action wants done when its finding ends or is seen again.

use std::collections::HashMap;
use std::time::Duration;

use super::{DestinationName, RuleName, TableName};

/// What is done when the source says that a finding has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCleared {
    /// The ticket is resolved there.
    Resolve,
    /// It gets a work note.
    #[default]
    Note,
    /// Nothing.
    None,
}

/// What is done when a finding is seen whose ticket was closed there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSeenAgain {
    /// It gets a new ticket.
    #[default]
    New,
    /// The old one is opened again; a new one where the other side refuses that.
    Reopen,
}

/// What is attached to a ticket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attach {
    /// The record as the sensor wrote it.
    pub raw: bool,
    /// The packet of an alert that has one.
    pub pcap: bool,
}

/// `update_interval` where nothing is said.
pub const UPDATE_INTERVAL: Duration = Duration::from_hours(24);

/// What an action wants of its tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// `on_cleared`.
    pub on_cleared: OnCleared,
    /// `on_seen_again`.
    pub on_seen_again: OnSeenAgain,
    /// `update_interval`: at most one note for more sightings in this time; zero: none at all.
    pub update_interval: Duration,
    /// `max_tickets_per_hour` of the rule; `None`: any number.
    pub max_tickets_per_hour: Option<u32>,
    /// `attach`.
    pub attach: Attach,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            on_cleared: OnCleared::default(),
            on_seen_again: OnSeenAgain::default(),
            update_interval: UPDATE_INTERVAL,
            max_tickets_per_hour: None,
            attach: Attach::default(),
        }
    }
}

impl Life {
    /// Whether its tickets are made one by one: they may fold, or have something attached.
    pub fn is_by_itself(&self) -> bool {
        self.max_tickets_per_hour.is_some() || self.attach != Attach::default()
    }
}

/// What each action wants, by rule, destination and table. A rule that is no longer in the config may only have another name
/// now: for its tickets counts what all of the others want of tickets there, if they agree, else the defaults.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    actions: HashMap<String, Life>,
    /// By destination and table; `None` where they differ.
    places: HashMap<String, Option<Life>>,
}

impl Lives {
    /// What an action wants. The first that is said of an action stays.
    pub fn set(&mut self, rule: &RuleName, destination: &DestinationName, table: &TableName, life: Life) {
        let life =
            *self.actions.entry(key(&[rule.as_str(), destination.as_str(), table.as_str()])).or_insert(life);
        let place = self.places.entry(key(&[destination.as_str(), table.as_str()])).or_insert(Some(life));
        *place = place.filter(|other| *other == life);
    }

    /// What the action of this rule for this table wants.
    pub fn of(&self, rule: &str, destination: &str, table: &str) -> Life {
        let of_place = || self.places.get(&key(&[destination, table])).copied().flatten();
        self.actions.get(&key(&[rule, destination, table])).copied().or_else(of_place).unwrap_or_default()
    }

    /// Whether any action for this table closes its tickets.
    pub fn closes(&self, destination: &str, table: &str) -> bool {
        let behind = key(&["", destination, table]);
        self.actions.iter().any(|(key, life)| life.on_cleared == OnCleared::Resolve && key.ends_with(&behind))
    }

    /// Whether any rule holds storms back, or attaches something: then tickets are made one by one.
    pub fn any_by_itself(&self) -> bool {
        self.actions.values().any(Life::is_by_itself)
    }
}

/// No name has a control character.
fn key(names: &[&str]) -> String {
    names.join("\u{1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_an_action_counts_and_the_rest_is_default() {
        let rule = RuleName::new("OT").unwrap();
        let (prod, incident) = (DestinationName::new("prod").unwrap(), TableName::new("incident").unwrap());
        let mut lives = Lives::default();
        let first = Life { on_cleared: OnCleared::Resolve, ..Life::default() };
        lives.set(&rule, &prod, &incident, first);
        lives.set(&rule, &prod, &incident, Life { max_tickets_per_hour: Some(1), ..Life::default() });
        assert_eq!(lives.of("OT", "prod", "incident"), first);
        assert_eq!(lives.of("OT", "prod", "problem"), Life::default());
        assert!(!lives.any_by_itself());
        // A rule that was renamed: what the others want of tickets there, as long as that is one thing.
        assert_eq!(lives.of("OT before", "prod", "incident"), first);
        lives.set(&RuleName::new("IT").unwrap(), &prod, &incident, Life::default());
        assert_eq!(lives.of("OT before", "prod", "incident"), Life::default());
        assert_eq!(lives.of("OT", "prod", "incident"), first);
        assert!(lives.closes("prod", "incident"));
        assert!(!lives.closes("prod", "problem") && !lives.closes("rod", "incident"));
    }
}
