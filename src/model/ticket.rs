//! Tickets: what a delivery became in the ticket system, and the two keys it is found by.
//!
//! Both keys are derived from what the alert is, not drawn at random: an agent that lost its database derives the
//! same keys and finds its tickets again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::words::words;
use super::{DestinationName, Fingerprint, TableName};

/// Row id of a ticket in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TicketId(pub i64);

/// Which ticket of the same alert, destination and table this is: 0 for the first, one more after each that was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// What stands for the rule of a ticket that a person ordered; no rule of a config is meant by it.
pub const BY_HAND: &str = "(by hand)";
/// The tables of tickets that can be ordered by hand.
pub const BY_HAND_TABLES: [&str; 3] = ["incident", "problem", "change_request"];

/// The field of a new record that names the one beside which it is made.
pub const LINK: &str = "parent";

/// The field of the record beside which a new one of this table is made, that names the new one; `None`: it has none.
pub fn link_back(new: &TableName, beside: &TableName) -> Option<&'static str> {
    let is_incident = matches!(beside.as_str(), "incident" | "sn_ot_incident");
    match new.as_str() {
        "problem" if is_incident => Some("problem_id"),
        "change_request" if is_incident || beside.as_str() == "problem" => Some("rfc"),
        _ => None,
    }
}

/// `sys_id` of a record: 32 lower-case hex digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SysId(Box<str>);

impl SysId {
    /// Checks the text.
    ///
    /// # Errors
    /// Gives the text back when it is not 32 lower-case hex digits.
    pub fn new(text: &str) -> Result<Self, String> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 32 && text.bytes().all(hex) {
            Ok(Self(text.into()))
        } else {
            Err(format!("`{}` is not a sys_id (32 lower-case hex digits)", super::text::clip(text, 80)))
        }
    }

    /// The id of what these parts together name: the same each time, so that what is written twice is there once.
    pub fn derived(parts: &[&str]) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(super::alert::hex(&hash.finish().as_ref()[..16]).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SysId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::new(&text)
    }
}

impl From<SysId> for String {
    fn from(id: SysId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for SysId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SysId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `otrelay-` and 32 hex digits: the value of `correlation_id`. Only `[a-z0-9-]`, so it needs no escaping in an
/// encoded query.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorrelationId(Box<str>);

impl CorrelationId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The two keys of a ticket, known before the first request for it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketKeys {
    /// Value of the field `correlation_id`.
    pub correlation_id: CorrelationId,
    /// The `sys_id` the record is created with; a second create then violates the unique key instead of making a twin.
    pub sys_id: SysId,
}

impl TicketKeys {
    /// SHA-256 over fingerprint, destination, table and generation (names length-prefixed): the first 16 bytes name
    /// the `correlation_id`, the next 16 the `sys_id`.
    pub fn derive(
        fingerprint: &Fingerprint,
        destination: &DestinationName,
        table: &TableName,
        generation: Generation,
    ) -> Self {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        hash.update(fingerprint.as_bytes());
        for name in [destination.as_str(), table.as_str()] {
            hash.update(&(name.len() as u32).to_be_bytes());
            hash.update(name.as_bytes());
        }
        hash.update(&generation.0.to_be_bytes());
        let digest = hash.finish();
        let hex = super::alert::hex(digest.as_ref());
        Self {
            correlation_id: CorrelationId(format!("otrelay-{}", &hex[..32]).into()),
            sys_id: SysId(hex[32..].into()),
        }
    }
}

/// Which of the keys that we gave it a new record kept: what a table does to one it does to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysKept {
    /// The `sys_id`: a second create is refused there.
    pub sys_id: bool,
    /// The `correlation_id`: it can be looked up.
    pub correlation_id: bool,
}

impl KeysKept {
    /// Whether nothing there can tell a second record from the first.
    pub fn neither(self) -> bool {
        !self.sys_id && !self.correlation_id
    }
}

words! {
    /// Where a ticket is.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum TicketState {
        /// Its keys are known, it is not confirmed there yet; or it is about to be opened again.
        Opening = "opening",
        /// It is there and not closed as far as we know.
        Open = "open",
        /// It was resolved there, by whom ever; the next sighting counts it as closed.
        Resolved = "resolved",
        /// It was closed or cancelled there; the next sighting makes the next generation.
        Closed = "closed",
        /// It is no longer there.
        Deleted = "deleted",
        /// Its finding came in a storm: the parent stands for it.
        Folded = "folded",
        /// It will not be made: its delivery was dropped or is no longer wanted by any rule.
        Withdrawn = "withdrawn",
    }
}

/// What it means when a ticket that was there is not found, and what to do.
pub const NOT_FOUND: &str = "deleted there or lost in a clone, or moved to a domain (or behind a rule) where the integration \
     user does not see it. For this agent it is gone: seen again, its finding gets a new ticket. Where it was moved, let the \
     user see that domain (sys_user.sys_domain, or a visibility domain of its groups), or keep business rules from moving \
     records whose correlation_display begins with otrelay";

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(destination: &str, table: &str, generation: u32) -> TicketKeys {
        let fp = Fingerprint::from_bytes([7; 32]);
        TicketKeys::derive(
            &fp,
            &DestinationName::new(destination).unwrap(),
            &TableName::new(table).unwrap(),
            Generation(generation),
        )
    }

    #[test]
    fn keys_are_stable_across_releases() {
        // Changing this value makes every open ticket invisible to the agent that made it.
        let k = keys("prod", "incident", 0);
        assert_eq!(k.correlation_id.as_str(), "otrelay-add626807b3b846fb3dd8df88589361c");
        assert_eq!(k.sys_id.as_str(), "2722f5675e67879dcfcb715ec1c5e40b");
    }

    #[test]
    fn each_part_counts() {
        let all = [
            keys("prod", "incident", 0),
            keys("dr", "incident", 0),
            keys("prod", "problem", 0),
            keys("prod", "incident", 1),
        ];
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!(a.correlation_id, b.correlation_id);
                assert_ne!(a.sys_id, b.sys_id);
            }
        }
    }
}
