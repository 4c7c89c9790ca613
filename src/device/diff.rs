//! Pure: a digest of each part of a device, and which parts differ. When it was last seen is no part: it changes always.
//! Neither is the order in which a list was said.

use ring::digest::{SHA256, digest};
use serde::Serialize;

use crate::model::Device;
use crate::model::device::Connection;

/// The parts, in the order of the digest.
pub const PARTS: [&str; 7] =
    ["identity", "addresses", "system", "place", "modules", "vulnerabilities", "connections"];

/// Bytes of the digest of one part.
const PART: usize = 8;

/// A digest of each part, one after the other.
pub fn digests(d: &Device) -> Vec<u8> {
    let connections = d.connections.iter().map(|c| Connection { last_seen: None, ..c.clone() });
    let parts = [
        part(&(&d.name, &d.kind, &d.vendor, &d.model, &d.serial, d.is_sensor, d.deleted)),
        part(&(in_order(&d.ips), in_order(&d.macs), d.macs_are_own, d.dhcp)),
        part(&(
            &d.firmware,
            &d.operating_system,
            in_order(&d.protocols),
            d.authorized,
            d.programming,
            d.scanner,
            in_order(&d.extra),
        )),
        part(&(&d.owner, &d.location, &d.site, &d.zone, &d.purdue_level, &d.criticality, &d.sensor)),
        part(&d.modules),
        part(&in_order(&d.cves)),
        part(&in_order(connections)),
    ];
    parts.concat()
}

/// As texts, in an order of their own.
fn in_order<T: Serialize>(all: impl IntoIterator<Item = T>) -> Vec<String> {
    let texts = all.into_iter().filter_map(|one| serde_json::to_string(&one).ok());
    let mut texts: Vec<String> = texts.collect();
    texts.sort_unstable();
    texts
}

fn part(value: &impl Serialize) -> Vec<u8> {
    // What is written in memory cannot fail; a part that could not be written would count as unchanged.
    let text = serde_json::to_vec(value).unwrap_or_default();
    digest(&SHA256, &text).as_ref()[..PART].to_vec()
}

/// The names of the parts that differ; all of them where nothing was told yet.
pub fn changed(told: Option<&[u8]>, now: &[u8]) -> Vec<&'static str> {
    let Some(told) = told else { return PARTS.to_vec() };
    let pairs = PARTS.iter().zip(now.chunks(PART)).enumerate();
    pairs
        .filter(|(at, (_, part))| told.get(at * PART..(at + 1) * PART) != Some(*part))
        .map(|(_, (name, _))| *name)
        .collect()
}
