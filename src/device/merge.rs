//! Pure: one view of a device out of what its sources say, each attribute with where it is from.
//!
//! The better kind of source wins, among equals the newer word. What is a list is put together; addresses that DHCP gave
//! are those of the newest word on it only.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::device::{ATTRIBUTE_MAX, Connection, EXTRA_MAX, PARTS_MAX};
use crate::model::text::{clip, one_line};
use crate::model::{Device, Timestamp};

/// What one source says of it.
#[derive(Clone, Debug)]
pub struct Said {
    /// The source's name.
    pub source: String,
    /// Its kind, as in the config.
    pub kind: String,
    /// When it said so, by this machine's clock.
    pub at: Timestamp,
    /// What it says.
    pub device: Device,
}

/// Where an attribute is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The source's name.
    pub source: String,
    /// When it said so.
    pub at: Timestamp,
}

/// One device as all its sources together have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// Its attributes. Has no `id`: ids are the sources' own.
    pub device: Device,
    /// Where each attribute is from, by its name.
    pub from: BTreeMap<String, Origin>,
}

/// How good a kind of source is: lower is better.
pub fn rank(kind: &str) -> u8 {
    match kind {
        "host" => 0,
        "defender-sensor" | "defender-console" => 1,
        "zeek" => 2,
        "suricata-eve" => 3,
        "syslog" => 4,
        _ => 5,
    }
}

/// Does something for each attribute that is one text.
macro_rules! texts {
    ($do:ident) => {
        $do!(
            name,
            kind,
            vendor,
            model,
            serial,
            firmware,
            operating_system,
            owner,
            location,
            site,
            zone,
            purdue_level,
            criticality,
            sensor
        )
    };
}

/// The same for what is so, is not so, or is unknown.
macro_rules! facts {
    ($do:ident) => {
        $do!(authorized, programming, scanner)
    };
}

/// What a source says now, laid over what it said. One that has ids of its own says all it knows each time; of others each
/// record is a piece.
#[must_use]
pub fn overlay(old: &Device, new: &Device) -> Device {
    let first_seen = [old.first_seen, new.first_seen].into_iter().flatten().min();
    let last_seen = [old.last_seen, new.last_seen].into_iter().flatten().max();
    if new.id.is_some() {
        return Device { first_seen, last_seen, ..new.clone() };
    }
    let mut all = new.clone();
    macro_rules! keep {
        ($($name:ident),*) => {$(
            if !tells(stringify!($name), all.$name.as_deref(), &all) {
                all.$name.clone_from(&old.$name);
            }
        )*};
    }
    texts!(keep);
    macro_rules! keep_fact {
        ($($name:ident),*) => { $(all.$name = all.$name.or(old.$name);)* };
    }
    facts!(keep_fact);
    all.dhcp |= old.dhcp;
    // An address that DHCP gives replaces the one before.
    if !new.dhcp || new.ips.is_empty() {
        add(&mut all.ips, &old.ips);
    }
    if new.macs_are_own || !old.macs_are_own {
        let same = new.macs_are_own == old.macs_are_own;
        add(&mut all.macs, if same { &old.macs } else { &[] });
    } else {
        (all.macs, all.macs_are_own) = (old.macs.clone(), true);
    }
    add(&mut all.protocols, &old.protocols);
    all.protocols.sort_unstable();
    if all.modules.is_empty() {
        all.modules.clone_from(&old.modules);
    }
    add_by(&mut all.cves, &old.cves, |cve| cve.id.clone());
    let new_talks = std::mem::replace(&mut all.connections, old.connections.clone());
    talks(&mut all.connections, &new_talks, |one, other| {
        // Each record says who began it.
        one.two_way |= other.two_way || one.inbound != other.inbound;
        // The newer word counts.
        one.device_id = other.device_id.clone().or_else(|| one.device_id.take());
        one.name = other.name.clone().or_else(|| one.name.take());
    });
    add_by(&mut all.extra, &old.extra, |(name, _)| name.clone());
    all.is_sensor |= old.is_sensor;
    Device { first_seen, last_seen, ..bounded(all) }
}

/// One view of all that is said.
pub fn merge(said: &[Said]) -> View {
    let mut order: Vec<&Said> = said.iter().collect();
    order.sort_by_key(|one| (rank(&one.kind), Reverse(one.at), one.source.clone()));
    let mut view = View::default();
    for one in &order {
        take(&mut view, one);
    }
    let View { device, from } = &mut view;
    device.protocols.sort_unstable();
    // An address that moves is where the newest word says it is.
    let dhcp = order.iter().filter(|one| one.device.dhcp && !one.device.ips.is_empty());
    if let Some(newest) = dhcp.max_by_key(|one| one.at) {
        device.dhcp = true;
        device.ips.clone_from(&newest.device.ips);
        from.insert("ips".to_owned(), origin(newest));
    }
    let gone = order.iter().find(|one| one.device.deleted);
    device.deleted = gone.is_some_and(|gone| order.iter().all(|one| one.device.deleted || one.at < gone.at));
    view.device = bounded(std::mem::take(&mut view.device));
    view
}

fn origin(said: &Said) -> Origin {
    Origin { source: said.source.clone(), at: said.at }
}

/// Adds what a source says, as far as no better one said it.
fn take(view: &mut View, said: &Said) {
    let View { device, from } = view;
    let other = &said.device;
    macro_rules! take_text {
        ($($name:ident),*) => {$({
            let name = stringify!($name);
            let better = tells(name, other.$name.as_deref(), other) && !tells(name, device.$name.as_deref(), device);
            if better || device.$name.is_none() && other.$name.is_some() {
                device.$name.clone_from(&other.$name);
                from.insert(name.to_owned(), origin(said));
            }
        })*};
    }
    // Before the addresses: a name that is only an address is told by them.
    add_from(&mut device.ips, &other.ips, "ips", from, said);
    texts!(take_text);
    macro_rules! take_fact {
        ($($name:ident),*) => {$(
            if device.$name.is_none() && other.$name.is_some() {
                device.$name = other.$name;
                from.insert(stringify!($name).to_owned(), origin(said));
            }
        )*};
    }
    facts!(take_fact);
    if other.macs_are_own && !other.macs.is_empty() && !device.macs_are_own {
        // What may be a router's gives way to the device's own.
        device.macs.clear();
        device.macs_are_own = true;
        from.remove("macs");
    }
    if other.macs_are_own == device.macs_are_own {
        add_from(&mut device.macs, &other.macs, "macs", from, said);
    }
    add_from(&mut device.protocols, &other.protocols, "protocols", from, said);
    if device.modules.is_empty() && !other.modules.is_empty() {
        device.modules.clone_from(&other.modules);
        from.insert("modules".to_owned(), origin(said));
    }
    let before = device.cves.len();
    add_by(&mut device.cves, &other.cves, |cve| cve.id.clone());
    if before == 0 && !device.cves.is_empty() {
        from.insert("cves".to_owned(), origin(said));
    }
    let before = device.connections.len();
    talks(&mut device.connections, &other.connections, |_, _| {});
    if before == 0 && !device.connections.is_empty() {
        from.insert("connections".to_owned(), origin(said));
    }
    add_by(&mut device.extra, &other.extra, |(name, _)| name.clone());
    device.is_sensor |= other.is_sensor;
    device.first_seen = [device.first_seen, other.first_seen].into_iter().flatten().min();
    device.last_seen = [device.last_seen, other.last_seen].into_iter().flatten().max();
}

/// Whether a text says anything: sources write their own ignorance in words, and an address where they have no name.
fn tells(attribute: &str, text: Option<&str>, device: &Device) -> bool {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else { return false };
    let unknown =
        ["unknown", "unclassified", "n/a", "none"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let address =
        || text.parse::<IpAddr>().is_ok() || device.macs.iter().any(|mac| mac.eq_ignore_ascii_case(text));
    !(unknown || attribute == "name" && address())
}

fn add<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
    for one in from {
        if to.len() < PARTS_MAX && !to.contains(one) {
            to.push(one.clone());
        }
    }
}

fn add_from<T: Clone + PartialEq>(
    to: &mut Vec<T>,
    other: &[T],
    name: &str,
    from: &mut BTreeMap<String, Origin>,
    said: &Said,
) {
    let was_empty = to.is_empty();
    add(to, other);
    if was_empty && !to.is_empty() {
        from.insert(name.to_owned(), origin(said));
    }
}

/// Whether two connections lead to the same one: by its address, else by what it is called.
pub fn is_same_peer(one: &Connection, other: &Connection) -> bool {
    one.ip == other.ip && (one.ip.is_some() || (&one.device_id, &one.name) == (&other.device_id, &other.name))
}

/// Puts connections together: of one peer all protocols and ports that anybody saw, and the direction as `direct` says.
fn talks(to: &mut Vec<Connection>, from: &[Connection], direct: impl Fn(&mut Connection, &Connection)) {
    for one in from {
        let Some(known) = to.iter_mut().find(|known| is_same_peer(known, one)) else {
            if to.len() < PARTS_MAX {
                to.push(one.clone());
            }
            continue;
        };
        direct(known, one);
        add(&mut known.protocols, &one.protocols);
        known.protocols.sort_unstable();
        add(&mut known.ports, &one.ports);
        known.ports.sort_unstable();
        known.inbound &= !known.two_way;
        known.last_seen = known.last_seen.max(one.last_seen);
        known.device_id = known.device_id.take().or_else(|| one.device_id.clone());
        known.name = known.name.take().or_else(|| one.name.clone());
    }
}

fn add_by<T: Clone, K: PartialEq>(to: &mut Vec<T>, from: &[T], key: impl Fn(&T) -> K) {
    for one in from {
        if to.len() < PARTS_MAX && !to.iter().any(|known| key(known) == key(one)) {
            to.push(one.clone());
        }
    }
}

/// The same within its bounds: texts of one line that are no longer than an attribute may be, lists that end.
#[must_use]
pub fn bounded(mut device: Device) -> Device {
    let clean = |text: &mut Option<String>| {
        let short = text.as_deref().map(|text| clip(one_line(text).trim(), ATTRIBUTE_MAX).into_owned());
        *text = short.filter(|text| !text.is_empty());
    };
    macro_rules! clean_all {
        ($($name:ident),*) => { $(clean(&mut device.$name);)* };
    }
    texts!(clean_all);
    clean(&mut device.id);
    device.ips.truncate(PARTS_MAX);
    device.macs.truncate(PARTS_MAX);
    device.macs.iter_mut().for_each(|mac| mac.make_ascii_lowercase());
    device.protocols.truncate(PARTS_MAX);
    device.modules.truncate(PARTS_MAX);
    device.cves.truncate(PARTS_MAX);
    device.connections.truncate(PARTS_MAX);
    device.extra.truncate(EXTRA_MAX);
    let short = |text: &mut String| *text = clip(one_line(text).trim(), ATTRIBUTE_MAX).into_owned();
    device.protocols.iter_mut().for_each(short);
    for (name, value) in &mut device.extra {
        short(name);
        short(value);
    }
    for module in &mut device.modules {
        for text in [
            &mut module.address,
            &mut module.rack,
            &mut module.slot,
            &mut module.vendor,
            &mut module.model,
            &mut module.serial,
            &mut module.firmware,
            &mut module.additional,
        ] {
            clean(text);
        }
    }
    for cve in &mut device.cves {
        short(&mut cve.id);
        clean(&mut cve.score);
        clean(&mut cve.vector);
        clean(&mut cve.description);
    }
    for connection in &mut device.connections {
        clean(&mut connection.device_id);
        clean(&mut connection.name);
        connection.protocols.truncate(PARTS_MAX);
        connection.protocols.iter_mut().for_each(short);
        connection.ports.truncate(PARTS_MAX);
    }
    device
}
