//! Pure: by what a device is known again, and when two sightings cannot be the same one.
//!
//! A serial number, then its own MAC, then an address with care: a MAC that may be a router's is no key, an address that
//! DHCP gave moves and is none either, and an address joins two sightings only where nothing else tells them apart.

use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::model::Device;

/// Most keys of one kind that are looked at.
const KEYS_MAX: usize = 16;

/// Words that stand where a serial number would.
const NO_SERIAL: [&str; 9] =
    ["na", "none", "unknown", "notavailable", "default", "null", "serialnumber", "tobefilledbyoem", "empty"];

/// Keys that one device has and no other: `serial:…`, `mac:…`.
pub fn strong(device: &Device) -> Vec<String> {
    let serial = serial(device).map(|serial| format!("serial:{serial}"));
    let macs = own_macs(device).map(|mac| format!("mac:{mac}"));
    serial.into_iter().chain(macs).take(KEYS_MAX).collect()
}

/// Keys that hold while nothing contradicts them: `ip:…`.
pub fn weak(device: &Device) -> Vec<String> {
    if device.dhcp {
        return Vec::new();
    }
    device.ips.iter().filter(|ip| is_key(**ip)).map(|ip| format!("ip:{ip}")).take(KEYS_MAX).collect()
}

/// What the device is known by at its source; `None`: by nothing that would last, so it cannot be kept.
pub fn at_source(device: &Device) -> Option<String> {
    if let Some(id) = device.id.as_deref().map(str::trim).filter(|id| !id.is_empty()) {
        return Some(format!("id:{id}"));
    }
    let named = || {
        let name = device.name.as_deref().map(str::trim).filter(|name| !name.is_empty())?;
        name.parse::<IpAddr>().is_err().then(|| format!("name:{}", name.to_lowercase()))
    };
    // A record without the source's own id is one sighting: the MAC lasts longest and is in most of them.
    let macs = own_macs(device).map(|mac| format!("mac:{mac}")).next();
    macs.or_else(|| weak(device).into_iter().next())
        .or_else(|| strong(device).into_iter().next())
        .or_else(named)
}

/// What a new device is called towards the other side, for ever. Derived, so that an agent that lost its database finds
/// the same one again. `again` tells devices apart that were born with the same key.
pub fn born(source: &str, at_source: &str, device: &Device, again: u32) -> String {
    let lasting = strong(device).into_iter().next();
    let key = lasting.unwrap_or_else(|| match at_source.split_once(':') {
        // Ids are the source's own; addresses are the plant's.
        Some(("id", _)) => format!("{source}/{at_source}"),
        _ => at_source.to_owned(),
    });
    let text = if again == 0 { key } else { format!("{key}#{again}") };
    let sum = digest(&SHA256, text.as_bytes());
    format!("d{}", crate::model::alert::hex(&sum.as_ref()[..8]))
}

/// Whether both say something that only one device can have, and say it differently. `by_address`: what joins them is only
/// an address, so that their MACs, sites and zones count as well.
pub fn contradict(one: &Device, other: &Device, by_address: bool) -> bool {
    let differ = |a: Option<String>, b: Option<String>| matches!((a, b), (Some(a), Some(b)) if a != b);
    let folded = |text: &Option<String>| text.as_deref().map(fold).filter(|text| !text.is_empty());
    if differ(serial(one), serial(other)) {
        return true;
    }
    if !by_address {
        return false;
    }
    let mut macs = own_macs(one).peekable();
    let apart = macs.peek().is_some()
        && own_macs(other).next().is_some()
        && !macs.any(|mac| own_macs(other).any(|o| o == mac));
    apart || differ(folded(&one.site), folded(&other.site)) || differ(folded(&one.zone), folded(&other.zone))
}

/// The serial number, if it is one.
pub fn serial(device: &Device) -> Option<String> {
    let folded = fold(device.serial.as_deref()?);
    let first = folded.chars().next()?;
    let is_one =
        folded.len() >= 4 && folded.chars().any(|c| c != first) && !NO_SERIAL.contains(&folded.as_str());
    is_one.then_some(folded)
}

fn fold(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// MACs that are the device's own and no other's.
pub fn own_macs(device: &Device) -> impl Iterator<Item = &str> {
    let all: &[String] = if device.macs_are_own { &device.macs } else { &[] };
    all.iter().map(String::as_str).filter(|mac| is_own(mac))
}

/// What it is called where it needs a name: by its own, else by a MAC of its own or an address.
pub fn called(device: &Device) -> String {
    let address = || device.ips.first().map(ToString::to_string);
    let mac = || own_macs(device).next().map(str::to_owned);
    device.name.clone().or_else(mac).or_else(address).unwrap_or_else(|| "unknown device".to_owned())
}

/// No group address, none of nobody, and none that routers share (VRRP, HSRP).
pub fn is_own(mac: &str) -> bool {
    let Some(first) = mac.get(..2).and_then(|octet| u8::from_str_radix(octet, 16).ok()) else { return false };
    let shared = ["00:00:5e:00:01:", "00:00:5e:00:02:", "00:00:0c:07:ac:", "00:00:0c:9f:f"];
    mac.len() == 17
        && first & 1 == 0
        && mac != "00:00:00:00:00:00"
        && !shared.iter().any(|start| mac.starts_with(start))
}

/// Whether an address can be that of one device.
pub fn is_key(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast() || ip.octets()[3] == 255,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(link_local || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast())
}
