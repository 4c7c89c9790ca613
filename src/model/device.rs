//! A device: what a source knows of one asset in the plant, as far as it knows it. Absent is unknown, never an error.
//!
//! Attributes are those of contracts §9 (what Defender for IoT pushed, and what its service graph connector maps): the
//! store merges what several sources say, `servicenow` maps it to classes.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// One source's view of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Device {
    /// The source's own stable id, if it has one.
    pub id: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Addresses, normalised.
    pub ips: Vec<IpAddr>,
    /// `00:1b:1b:aa:bb:cc`: lower case, colons.
    pub macs: Vec<String>,
    /// Whether the MACs were seen on the device's own segment. False: may be a router's, and is no key.
    pub macs_are_own: bool,
    /// Addresses that DHCP gave: they move, and are no key.
    pub dhcp: bool,
    /// Type in the source's words (`PLC`, `Engineering Station`, `Switch`).
    pub kind: Option<String>,
    /// Manufacturer.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version of the device itself.
    pub firmware: Option<String>,
    /// Operating system.
    pub operating_system: Option<String>,
    /// Canonical names of protocols it speaks.
    pub protocols: Vec<String>,
    /// Who owns it.
    pub owner: Option<String>,
    /// Where it stands.
    pub location: Option<String>,
    /// Site.
    pub site: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// Level of the Purdue model (`Level 1`), in the source's words.
    pub purdue_level: Option<String>,
    /// Criticality in the source's words.
    pub criticality: Option<String>,
    /// Whether somebody authorised it.
    pub authorized: Option<bool>,
    /// It programs controllers.
    pub programming: Option<bool>,
    /// It scans.
    pub scanner: Option<bool>,
    /// The sensor that saw it.
    pub sensor: Option<String>,
    /// It is a sensor itself (`cmdb_ci_nids`).
    pub is_sensor: bool,
    /// The source says that it is gone.
    pub deleted: bool,
    /// First seen.
    pub first_seen: Option<Timestamp>,
    /// Last seen.
    pub last_seen: Option<Timestamp>,
    /// Modules in its slots.
    pub modules: Vec<Module>,
    /// Known vulnerabilities.
    pub cves: Vec<Cve>,
    /// Whom it talks to.
    pub connections: Vec<Connection>,
    /// Anything else worth keeping, by name: `plc_run_state`, `plc_key_state`. At most [`EXTRA_MAX`].
    pub extra: Vec<(String, String)>,
}

impl Device {
    /// The digit of its Purdue level: `Level 1`, `1`; `Process Control` has none.
    pub fn level(&self) -> Option<u8> {
        let digit = self.purdue_level.as_deref()?.chars().find_map(|c| c.to_digit(10))?;
        u8::try_from(digit).ok().filter(|level| *level <= 5)
    }
}

/// Most entries of [`Device::extra`].
pub const EXTRA_MAX: usize = 32;
/// Most addresses, MACs, protocols, modules, vulnerabilities or connections of one record.
pub const PARTS_MAX: usize = 256;
/// Longest text of one attribute, in bytes.
pub const ATTRIBUTE_MAX: usize = 255;

/// A module in a slot of a controller, with its firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// Address of the module on its bus.
    pub address: Option<String>,
    /// Rack.
    pub rack: Option<String>,
    /// Slot.
    pub slot: Option<String>,
    /// Manufacturer.
    pub vendor: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// What else the source says.
    pub additional: Option<String>,
}

/// A known vulnerability.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cve {
    /// `CVE-2021-44228`.
    pub id: String,
    /// CVSS score as written.
    pub score: Option<String>,
    /// How it is attacked.
    pub vector: Option<String>,
    /// What it is.
    pub description: Option<String>,
}

/// A known device at the other end of a connection, as far as it has to be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which of the device's connections leads to it.
    pub place: usize,
    /// What it is called towards the other side.
    pub key: String,
    /// What it is called by people.
    pub name: String,
    /// The class of its CI; empty: it has none yet.
    pub class: String,
    /// It is a sensor itself.
    pub is_sensor: bool,
}

/// Whom a device talks to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection {
    /// The peer's address.
    pub ip: Option<IpAddr>,
    /// The peer's id at the same source.
    pub device_id: Option<String>,
    /// The peer's name.
    pub name: Option<String>,
    /// Both ends begin conversations.
    pub two_way: bool,
    /// The peer begins them; without `two_way`.
    pub inbound: bool,
    /// Canonical names of protocols.
    pub protocols: Vec<String>,
    /// Server ports.
    pub ports: Vec<u16>,
    /// When it was last seen.
    pub last_seen: Option<Timestamp>,
}
