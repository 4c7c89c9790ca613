//! What the states of each ticket table mean, and what is written to change them. Pure.

use crate::destination::{Fields, Remote};
use crate::model::TableName;

#[derive(Clone, Copy, Debug)]
pub(super) struct States {
    /// Worked on no longer, and still open to changes.
    resolved: &'static [&'static str],
    /// Closed or cancelled.
    closed: &'static [&'static str],
    /// What resolves a ticket; a table without it cannot be told.
    resolve: &'static [(&'static str, &'static str)],
    /// The state in which a ticket is worked on again.
    reopen: Option<&'static str>,
    /// Whether an instance lets a record go only from one state to the next, so that a new one cannot be closed at once.
    pub(super) stepwise: bool,
    /// The field whose value is a choice of the instance, and those that are known, best first.
    pub(super) code: Option<(&'static str, &'static [&'static str])>,
}

const CLOSE_CODES: &[&str] = &[
    "Solution provided",
    "Solved (Permanently)",
    "Resolved by caller",
    "Closed/Resolved by Caller",
    "Solved (Work Around)",
];

/// The states of a table; of one that is not known, nothing is.
pub(super) fn of(table: &TableName) -> States {
    let none = States { resolved: &[], closed: &[], resolve: &[], reopen: None, stepwise: false, code: None };
    match table.as_str() {
        "incident" | "sn_ot_incident" => States {
            resolved: &["6"],
            closed: &["7", "8"],
            resolve: &[("state", "6"), ("close_code", "Solution provided")],
            reopen: Some("2"),
            stepwise: false,
            code: Some(("close_code", CLOSE_CODES)),
        },
        "sn_si_incident" => States {
            closed: &["3", "7"],
            resolve: &[("state", "3"), ("close_code", "Threat mitigated")],
            reopen: Some("16"),
            stepwise: true,
            code: Some(("close_code", &["Threat mitigated"])),
            ..none
        },
        "problem" => States {
            resolved: &["106"],
            closed: &["107", "4"],
            resolve: &[
                ("state", "106"),
                ("resolution_code", "fix_applied"),
                ("cause_notes", "The sensor says that the finding has ended."),
                ("fix_notes", "The sensor says that the finding has ended."),
            ],
            reopen: Some("103"),
            stepwise: true,
            code: Some(("resolution_code", &["fix_applied"])),
        },
        "change_request" => States {
            closed: &["3", "4"],
            resolve: &[("state", "3"), ("close_code", "successful")],
            stepwise: true,
            code: Some(("close_code", &["successful"])),
            ..none
        },
        _ => none,
    }
}

/// Why an instance refuses to close a new ticket of this table, as far as that is known before it is tried.
pub fn refuses_to_close(table: &TableName) -> Option<&'static str> {
    match table.as_str() {
        "change_request" => Some(
            "an instance moves a change only from state to state, and closes none that was not worked on",
        ),
        "problem" => Some(
            "an instance moves a problem only from state to state, and resolves none that was not worked on",
        ),
        "sn_si_incident" => Some(
            "an instance moves a security incident only to its next state, unless its process is NIST Open",
        ),
        _ => None,
    }
}

/// Whether otrelay knows how a ticket of this table is resolved.
pub fn can_resolve(table: &TableName) -> bool {
    !of(table).resolve.is_empty()
}

/// Whether otrelay knows how a ticket of this table is opened again.
pub fn can_reopen(table: &TableName) -> bool {
    of(table).reopen.is_some()
}

impl States {
    /// Puts into a record what its state means.
    pub(super) fn read(&self, mut remote: Remote) -> Remote {
        let is = |list: &[&str]| list.contains(&remote.state.as_str());
        (remote.active, remote.detail.resolved) = (remote.active && !is(self.closed), is(self.resolved));
        remote
    }

    /// What resolves a ticket, the given fields over it; a table that is not known is resolved by the state that is given.
    pub(super) fn resolving(&self, given: &Fields) -> Option<Fields> {
        if self.resolve.is_empty() && !given.contains_key("state") {
            return None;
        }
        let own = self.resolve.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut fields: Fields = own.collect();
        fields.extend(given.clone());
        Some(fields)
    }

    /// The same for opening it again.
    pub(super) fn reopening(&self, given: &Fields) -> Option<Fields> {
        let mut fields = given.clone();
        fields.insert("state".to_owned(), self.reopen?.to_owned());
        Some(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Detail;
    use crate::model::{SysId, TicketState};

    #[test]
    fn states_mean_what_each_table_says() {
        let check = |table: &str, state: &str, active: bool, expected: TicketState| {
            let remote = Remote {
                sys_id: SysId::new(&"a".repeat(32)).unwrap(),
                number: String::new(),
                active,
                state: state.to_owned(),
                detail: Detail::default(),
            };
            let read = of(&TableName::new(table).unwrap()).read(remote);
            assert_eq!(read.ticket_state(), expected, "{table} {state} {active}");
        };
        check("incident", "1", true, TicketState::Open);
        check("incident", "3", true, TicketState::Open);
        check("incident", "6", true, TicketState::Resolved);
        check("incident", "7", false, TicketState::Closed);
        check("incident", "8", true, TicketState::Closed);
        check("sn_si_incident", "3", true, TicketState::Closed);
        check("problem", "106", true, TicketState::Resolved);
        check("problem", "107", true, TicketState::Closed);
        check("change_request", "4", true, TicketState::Closed);
        check("u_own", "6", true, TicketState::Open);
        check("u_own", "6", false, TicketState::Closed);
    }

    #[test]
    fn what_the_rule_gives_is_laid_over_the_defaults() {
        let incident = of(&TableName::new("incident").unwrap());
        let given = Fields::from([("close_code".to_owned(), "Duplicate".to_owned())]);
        let fields = incident.resolving(&given).unwrap();
        assert_eq!((fields["state"].as_str(), fields["close_code"].as_str()), ("6", "Duplicate"));
        assert_eq!(incident.reopening(&given).unwrap()["state"], "2");
        let own = TableName::new("u_own").unwrap();
        let by_state = Fields::from([("state".to_owned(), "9".to_owned())]);
        assert_eq!(of(&own).resolving(&by_state), Some(by_state));
        assert!(!can_resolve(&own) && !can_reopen(&own) && of(&own).resolving(&given).is_none());
    }
}
