//! What the decoders of one source tell each other: alerts name devices and sensors by number only, connections and
//! vulnerabilities come apart from the devices they belong to.
//!
//! Bounded, and lossless where it can be: what no longer fits is counted in [`Directory::left_out`]. It is only ever
//! additional knowledge: an alert whose devices are not known is an alert.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::model::device::{Connection, Cve, Device, PARTS_MAX};

/// Most devices that are remembered for alerts.
const DEVICES_MAX: usize = 16_384;
/// Most sensors that are remembered.
const SENSORS_MAX: usize = 4_096;
/// Most memory that connections and vulnerabilities take until their devices come by, in bytes.
const PARTS_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Most protocols that are remembered of one device.
const PROTOCOLS_MAX: usize = 8;

/// What an alert may want to know of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) name: Option<Box<str>>,
    pub(super) ip: Option<IpAddr>,
    pub(super) mac: Option<Box<str>>,
    pub(super) protocols: Vec<Box<str>>,
}

/// Which sensor it is and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Post {
    pub(super) name: Option<String>,
    pub(super) site: Option<String>,
    pub(super) zone: Option<String>,
}

/// What is known of a source's devices and sensors.
#[derive(Debug, Default)]
pub struct Directory {
    devices: HashMap<Box<str>, Hint>,
    /// By their number at the console.
    sensors: HashMap<Box<str>, String>,
    /// Site and zone by the sensor's name.
    posts: HashMap<Box<str>, (Option<String>, Option<String>)>,
    connections: HashMap<Box<str>, Vec<Connection>>,
    cves_of_device: HashMap<Box<str>, Vec<Cve>>,
    cves_of_address: HashMap<IpAddr, Vec<Cve>>,
    parts_bytes: usize,
    left_out: u64,
}

impl Directory {
    /// Before connections and vulnerabilities are read anew: those of the last time are forgotten.
    pub fn begin_round(&mut self) {
        self.connections = HashMap::new();
        self.cves_of_device = HashMap::new();
        self.cves_of_address = HashMap::new();
        self.parts_bytes = 0;
        self.left_out = 0;
    }

    /// How many connections and vulnerabilities of this round had no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn device(&self, id: &str) -> Option<&Hint> {
        self.devices.get(id)
    }

    pub(super) fn learn_device(&mut self, device: &Device) {
        let Some(id) = device.id.as_deref() else { return };
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(id) {
            return;
        }
        let hint = Hint {
            name: device.name.as_deref().map(Into::into),
            ip: device.ips.first().copied(),
            mac: device.macs.first().map(|mac| mac.as_str().into()),
            protocols: device.protocols.iter().take(PROTOCOLS_MAX).map(|name| name.as_str().into()).collect(),
        };
        self.devices.insert(id.into(), hint);
    }

    pub(super) fn learn_sensor(&mut self, id: &str, name: &str) {
        if self.sensors.len() < SENSORS_MAX || self.sensors.contains_key(id) {
            self.sensors.insert(id.into(), name.to_owned());
        }
    }

    /// Where a sensor stands, as a device or an alert of it said.
    pub(super) fn learn_post(&mut self, name: &str, site: Option<&str>, zone: Option<&str>) {
        if site.is_none() && zone.is_none() {
            return;
        }
        if self.posts.len() >= SENSORS_MAX && !self.posts.contains_key(name) {
            return;
        }
        let post = self.posts.entry(name.into()).or_default();
        if let Some(site) = site {
            post.0 = Some(site.to_owned());
        }
        if let Some(zone) = zone {
            post.1 = Some(zone.to_owned());
        }
    }

    /// The sensor of that name or else that number.
    pub(super) fn post(&self, name: Option<&str>, id: Option<&str>) -> Post {
        let name = name.or_else(|| self.sensors.get(id?).map(String::as_str));
        let (site, zone) = name.and_then(|name| self.posts.get(name)).cloned().unwrap_or_default();
        Post { name: name.map(str::to_owned), site, zone }
    }

    pub(super) fn add_connection(&mut self, device: &str, connection: Connection) {
        let bytes = 256 + connection.protocols.len() * 48 + connection.name.as_deref().map_or(0, str::len);
        if self.make_room(bytes) {
            push(self.connections.entry(device.into()).or_default(), connection, &mut self.left_out);
        }
    }

    pub(super) fn add_cve_of_device(&mut self, device: &str, cve: Cve) {
        if self.make_room(weight(&cve)) {
            push(self.cves_of_device.entry(device.into()).or_default(), cve, &mut self.left_out);
        }
    }

    pub(super) fn add_cve_of_address(&mut self, address: IpAddr, cve: Cve) {
        if self.make_room(weight(&cve)) {
            push(self.cves_of_address.entry(address).or_default(), cve, &mut self.left_out);
        }
    }

    fn make_room(&mut self, bytes: usize) -> bool {
        if self.parts_bytes + bytes > PARTS_BYTES_MAX {
            self.left_out += 1;
            return false;
        }
        self.parts_bytes += bytes;
        true
    }

    /// Puts what came apart from the device back to it.
    pub(super) fn complete(&self, device: &mut Device) {
        let Some(id) = device.id.as_deref() else { return };
        for connection in self.connections.get(id).into_iter().flatten() {
            let mut connection = connection.clone();
            if let Some(hint) = connection.device_id.as_deref().and_then(|peer| self.device(peer)) {
                connection.ip = connection.ip.or(hint.ip);
                connection.name = connection.name.or_else(|| hint.name.as_deref().map(str::to_owned));
            }
            device.connections.push(connection);
        }
        let of_addresses = device.ips.iter().filter_map(|ip| self.cves_of_address.get(ip)).flatten();
        for cve in self.cves_of_device.get(id).into_iter().flatten().chain(of_addresses) {
            if device.cves.len() < PARTS_MAX && !device.cves.iter().any(|other| other.id == cve.id) {
                device.cves.push(cve.clone());
            }
        }
    }
}

fn weight(cve: &Cve) -> usize {
    160 + cve.id.len() + cve.description.as_deref().map_or(0, str::len)
}

fn push<T>(list: &mut Vec<T>, part: T, left_out: &mut u64) {
    if list.len() < PARTS_MAX {
        list.push(part);
    } else {
        *left_out += 1;
    }
}
