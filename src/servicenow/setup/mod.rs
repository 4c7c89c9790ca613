//! What an instance needs for a config (`otrelay instance-setup`). Pure.
//!
//! [`plan`] goes from the destination and the actions that lead there to a [`Setup`]; [`update_set()`] writes that as a file for
//! *Retrieved Update Sets*, [`steps()`] as a list for people. Invariants: a set changes nothing that is there already, so it has
//! access rules only for the tables that it makes itself; the same config gives the same bytes, as every `sys_id` is derived
//! from the names it stands for. Nothing here asks the instance.

mod steps;
mod update_set;

use std::collections::{BTreeMap, BTreeSet};

use super::row::columns_of;
use super::{Auth, Settings, cmdb};
use crate::model::{DeliveryKind, TableName};

pub use steps::steps;
pub use update_set::{choice, update_set};

/// The role that the set makes, and that the integration user gets.
pub const ROLE: &str = "otrelay_integration";

/// Length of a column where nothing else is needed.
const LENGTH: u16 = 255;
/// Of columns that hold texts or lists.
const LENGTH_LONG: u16 = 4000;
/// Columns of ours that hold texts or lists.
const LONG: [&str; 9] = [
    "description",
    "external_references",
    "protocols",
    "ip_addresses",
    "mac_addresses",
    "cves",
    "ports",
    "additional_data",
    "operating_system",
];
/// What of an alert's row the map puts into which column of a ticket: those that every task has. `severity` has other
/// values there, so it is the administrator's to map.
const MAPPED: [(&str, &str); 5] = [
    ("correlation_id", "correlation_id"),
    ("title", "short_description"),
    ("description", "description"),
    ("impact", "impact"),
    ("urgency", "urgency"),
];

/// One action of a rule that leads to the destination.
pub struct Action<'a> {
    /// What the alert becomes.
    pub kind: DeliveryKind,
    /// In which table.
    pub table: &'a TableName,
    /// Of a row: our names to the columns that have them.
    pub columns: &'a BTreeMap<String, String>,
    /// The operator's own fields, by the names that the table has.
    pub fields: &'a BTreeMap<String, String>,
    /// Whether evidence goes along.
    pub attaches: bool,
}

/// What is needed there.
pub struct Setup<'a> {
    settings: &'a Settings,
    /// Staging tables, by their names.
    staging: BTreeMap<&'a str, Staging>,
    /// Tables that tickets go into.
    tickets: BTreeSet<&'a str>,
    /// APIs that are called.
    apis: BTreeSet<&'static str>,
    /// Where the rows of alerts go on to.
    target: &'a TableName,
}

#[derive(Default)]
struct Staging {
    label: String,
    /// By their names there.
    columns: BTreeMap<String, Column>,
    /// Whether its rows are alerts: then a map is made.
    is_alerts: bool,
}

struct Column {
    label: String,
    length: u16,
    /// What of an alert is in it, by our name.
    ours: Option<&'static str>,
}

impl Setup<'_> {
    /// Those that a set of the scope *Global* can make; others belong to an application, and it has to make them.
    fn made(&self) -> impl Iterator<Item = (&str, &Staging)> {
        self.staging.iter().map(|(name, staging)| (*name, staging)).filter(|(name, _)| is_global(name))
    }

    /// Those that it cannot make.
    fn not_made(&self) -> impl Iterator<Item = (&str, &Staging)> {
        self.staging.iter().map(|(name, staging)| (*name, staging)).filter(|(name, _)| !is_global(name))
    }

    fn devices(&self) -> Option<&cmdb::Settings> {
        self.settings.devices.as_ref()
    }

    /// The choice that the CMDB wants to know us by.
    fn data_source(&self) -> Option<&str> {
        self.devices().filter(|devices| devices.import.is_none()).map(|devices| devices.data_source.as_str())
    }
}

fn is_global(table: &str) -> bool {
    table.starts_with("u_")
}

/// What these actions, and the devices of the destination, need there.
pub fn plan<'a>(settings: &'a Settings, actions: &[Action<'a>], target: &'a TableName) -> Setup<'a> {
    let mut setup = Setup {
        settings,
        staging: BTreeMap::new(),
        tickets: BTreeSet::new(),
        apis: BTreeSet::from(["Table API"]),
        target,
    };
    for action in actions {
        let table = action.table.as_str();
        match action.kind {
            DeliveryKind::PutRow => {
                setup.apis.insert("Import Set API");
                alerts(setup.staging.entry(table).or_default(), action);
            }
            DeliveryKind::PutEvent => {
                setup.apis.insert("Event Management (/api/global/em/jsonv2)");
                setup.tickets.insert(table);
            }
            _ => {
                if table == "change_request" {
                    setup.apis.insert("Change Management API");
                }
                setup.tickets.insert(table);
            }
        }
        if action.attaches {
            setup.apis.insert("Attachment API");
        }
    }
    if let Some(devices) = &settings.devices {
        match &devices.import {
            Some(import) => {
                setup.apis.insert("Import Set API");
                rows_of_devices(&mut setup.staging, import);
            }
            None => {
                setup.apis.insert("Identification and Reconciliation API");
            }
        }
    }
    setup
}

/// The columns of an alert's row, and those that the operator fills beside them.
fn alerts(staging: &mut Staging, action: &Action<'_>) {
    "OT alerts from otrelay".clone_into(&mut staging.label);
    staging.is_alerts = true;
    for (ours, name, _) in columns_of(action.table, action.columns) {
        let column = Column { label: label(ours), length: length(ours), ours: Some(ours) };
        staging.columns.insert(name, column);
    }
    for name in action.fields.keys() {
        let column = || Column { label: label(name), length: LENGTH_LONG, ours: None };
        staging.columns.entry(name.clone()).or_insert_with(column);
    }
}

/// What belongs to no device in the tables of connections and firmware is not made there.
fn rows_of_devices<'a>(all: &mut BTreeMap<&'a str, Staging>, import: &'a cmdb::Import) {
    let tables = [
        (Some(&import.device), "OT devices from otrelay", cmdb::Part::Device),
        (import.connection.as_ref(), "OT connections from otrelay", cmdb::Part::Connection),
        (import.firmware.as_ref(), "OT firmware from otrelay", cmdb::Part::Firmware),
    ];
    for (table, words, part) in tables {
        let Some(table) = table else { continue };
        let staging = all.entry(table.as_str()).or_default();
        words.clone_into(&mut staging.label);
        for (ours, label) in cmdb::columns_of(part) {
            let given = import.columns.get(*ours);
            // Where all rows go at once they go by labels, and the operator's own words are labels.
            let (name, label) = match given {
                Some(theirs) if import.insert_multiple => (*ours, theirs.as_str()),
                Some(theirs) => (theirs.as_str(), *label),
                None => (*ours, *label),
            };
            let column = Column { label: label.to_owned(), length: length(ours), ours: None };
            staging.columns.insert(name.to_owned(), column);
        }
    }
}

fn length(ours: &str) -> u16 {
    if LONG.contains(&ours) { LENGTH_LONG } else { LENGTH }
}

/// `source_ip` is *Source IP*.
fn label(name: &str) -> String {
    let word = |word: &str| match word {
        "ip" | "id" | "mac" => word.to_uppercase(),
        word => {
            let mut letters = word.chars();
            letters.next().map(|c| c.to_uppercase().chain(letters).collect()).unwrap_or_default()
        }
    };
    name.trim_start_matches("u_").split('_').map(word).collect::<Vec<_>>().join(" ")
}

/// The narrowest shipped role for what is done with a table, as far as one is known.
fn role_of(table: &str) -> &'static str {
    match table {
        "incident" => "sn_incident_write",
        "problem" | "change_request" => "itil",
        "sn_ot_incident" => "sn_ot_incident_write",
        "em_event" => "evt_mgmt_integration",
        "sn_si_incident" => "one of the sn_si family that may create",
        _ => "one that may create, read and write its records",
    }
}

/// What the log-in needs beside a user.
fn log_in(auth: &Auth) -> &'static str {
    match auth {
        Auth::ClientCredentials(_) => {
            "an OAuth record (System OAuth > Application Registry, API endpoint for external clients), its OAuth Application \
             User = that user; property glide.oauth.inbound.client.credential.grant_type.enabled = true"
        }
        Auth::Password(_) | Auth::RefreshToken(_) => {
            "an OAuth record (System OAuth > Application Registry, API endpoint for external clients)"
        }
        Auth::JwtBearer(_) => {
            "an OAuth JWT record (System OAuth > Application Registry, JWT API endpoint for external clients) with the \
             certificate of the key and a verifier map"
        }
        Auth::ApiKey(_) => {
            "a REST API Key record for that user, and a REST API access policy for each API below"
        }
        Auth::ClientCertificate => {
            "plugin com.glide.auth.mutual, the CA, and the certificate mapped to that user"
        }
        Auth::Basic(_) => "the role snc_basic_auth_api_access, unless the user is for web services only",
    }
}

#[cfg(test)]
mod tests;
