//! Names that the operator gives: sources, destinations, rules, tables. One type each, so that none is swapped.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is not a {what}: {expected}")]
pub struct NameError {
    /// What it should have been a name of.
    pub what: &'static str,
    /// The refused text, cut to 80 characters.
    pub found: String,
    /// The rule it breaks.
    pub expected: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// Checks the text.
            ///
            /// # Errors
            /// When it is empty, too long or has characters that the name may not have.
            pub fn new(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    let found = text.chars().take(80).collect();
                    Err(NameError { what: $what, found, expected: $expected })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.into()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

fn is_plain(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn is_line(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= 200 && !text.chars().any(char::is_control)
}

fn is_table(text: &str) -> bool {
    is_field(text)
}

/// Whether a text can be the name of a column: 1 to 80 of a-z 0-9 _, a letter first. Tables are named the same way.
pub fn is_field(text: &str) -> bool {
    (1..=80).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && text.as_bytes()[0].is_ascii_lowercase()
}

name!(
    /// A `[[source]]`. Goes into fingerprints: renaming a source makes its alerts new ones.
    SourceName, "source name", "1 to 64 of A-Z a-z 0-9 _ - .", is_plain
);
name!(
    /// A `[servicenow.NAME]` destination.
    DestinationName, "destination name", "1 to 64 of A-Z a-z 0-9 _ - .", is_plain
);
name!(
    /// A `[[rule]]`.
    RuleName, "rule name", "one line of 1 to 200 bytes", is_line
);
name!(
    /// A ServiceNow table, e.g. `incident`, `sn_ot_incident`.
    TableName, "table name", "1 to 80 of a-z 0-9 _, a letter first", is_table
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_cannot_leave_their_place_in_a_url() {
        for bad in ["", "Incident", "incident?x", "../x", "a/b", "1x", "incident^NQ"] {
            assert!(TableName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(TableName::new("sn_si_incident").unwrap().as_str(), "sn_si_incident");
    }

    #[test]
    fn rule_names_are_one_line() {
        assert!(RuleName::new("OT security incidents").is_ok());
        assert!(RuleName::new("a\nb").is_err());
        assert!(RuleName::new("  ").is_err());
    }
}
