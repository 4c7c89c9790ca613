//! Pure: which end of an alert is the affected device, and by what that end may be found among the devices that are known.
//!
//! An alert is about whom it went to. Who began it stands in only where the other end names no device (a broadcast, an
//! alert without one), or is out on the Internet, where no device of the plant is. An end that is named and not known
//! leaves the alert without a device: the CI of the attacker on a ticket about a PLC is worse than none.

use std::net::IpAddr;
use std::time::Duration;

use super::keys::{is_key, is_own, own_macs};
use super::merge::View;
use crate::model::{Alert, Device, Endpoint, Timestamp};

/// How far an alert may be from the last word on an address that DHCP gave: then it may be another's.
const LEASE_BELIEVED: Duration = Duration::from_hours(24);
/// Longest name that something is looked for by, in bytes.
const NAME_MAX: usize = 200;
/// Most names and leases that a device is looked for by.
const LOOKED_UP_MAX: usize = 16;

/// The ends that an alert may be about, the likeliest first: what of them is known of one device, and at least one thing.
pub fn affected(alert: &Alert) -> Vec<Endpoint> {
    let source = || known(&alert.source);
    match known(&alert.destination) {
        None => source().into_iter().collect(),
        Some(end) if end.ip.is_some_and(is_public) => {
            // A MAC that goes with such an address is that of the way out.
            let source = source().filter(|source| !source.ip.is_some_and(is_public));
            std::iter::once(Endpoint { mac: None, ..end }).chain(source).collect()
        }
        Some(end) => vec![end],
    }
}

/// Of these ends what the alert still says after what may not leave this machine was taken out of it. None at all where
/// nothing is left of one: then another end would seem to be the likeliest.
pub fn still_said(ends: Vec<Endpoint>, alert: &Alert) -> Vec<Endpoint> {
    let both = [&alert.source, &alert.destination];
    let left = |end: Endpoint| {
        let ip = end.ip.filter(|_| both.iter().any(|one| one.ip == end.ip));
        let mac = end.mac.filter(|mac| both.iter().any(|one| one.mac.as_ref() == Some(mac)));
        let name = end.name.filter(|name| both.iter().any(|one| one.name.as_ref() == Some(name)));
        let is_left = ip.is_some() || mac.is_some() || name.is_some();
        is_left.then_some(Endpoint { ip, mac, name, device_id: None, port: None })
    };
    ends.into_iter().map(left).collect::<Option<_>>().unwrap_or_default()
}

/// What one device is known by.
fn known(end: &Endpoint) -> Option<Endpoint> {
    let device_id = end.device_id.clone().filter(|id| !id.trim().is_empty());
    let ip = end.ip.filter(|ip| is_key(*ip));
    let mac = end.mac.clone().filter(|mac| is_own(mac));
    // What went to all went to nobody, whatever it is called.
    let to_all = end.ip.is_some() && ip.is_none() && mac.is_none();
    let name = end.name.clone().filter(|name| !to_all && folded(name).is_some());
    let is_one = device_id.is_some() || ip.is_some() || mac.is_some() || name.is_some();
    is_one.then_some(Endpoint { device_id, ip, mac, name, port: None })
}

/// By what the store is asked for an end later, when it is not known yet. Not by a MAC beside an address: that of a router
/// is known, and would be found each time for nothing.
pub fn waits_for(end: &Endpoint) -> Vec<String> {
    let ip = end.ip.into_iter().flat_map(|ip| [format!("ip:{ip}"), lease(ip)]);
    let mac = end.mac.iter().filter(|_| end.ip.is_none()).map(|mac| format!("mac:{mac}"));
    ip.chain(mac).chain(end.name.as_deref().and_then(named)).collect()
}

/// Whether a device that was found by its name is another, by what else the end says.
pub fn contradicts(end: &Endpoint, device: &Device) -> bool {
    let other_ip = end.ip.is_some_and(|ip| !device.ips.is_empty() && !device.ips.contains(&ip));
    // A MAC beside an address may be a router's, and says nothing against it.
    let mac = end.mac.as_deref().filter(|_| end.ip.is_none());
    let mut own = own_macs(device).peekable();
    let other_mac = mac.is_some_and(|mac| own.peek().is_some() && !own.any(|one| one == mac));
    other_ip || other_mac
}

/// By what else than its own keys a device is looked for: addresses that DHCP gave while its MAC is known, and all names
/// that its sources have for it. None of them joins two sightings.
pub fn looked_up<'a>(device: &Device, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_leased = device.dhcp && own_macs(device).next().is_some();
    let leases = device.ips.iter().filter(|ip| is_leased && is_key(**ip)).map(|ip| lease(*ip));
    let mut all: Vec<String> = leases.chain(names.filter_map(named)).take(2 * LOOKED_UP_MAX).collect();
    all.sort_unstable();
    all.dedup();
    all.truncate(LOOKED_UP_MAX);
    all
}

/// The key of an address that DHCP gave.
pub fn lease(ip: IpAddr) -> String {
    format!("lease:{ip}")
}

/// The key of a name, if it is one.
pub fn named(name: &str) -> Option<String> {
    Some(format!("name:{}", folded(name)?))
}

/// When DHCP gave the device that address, if that is near enough to a time.
pub fn leased_at(view: &View, ip: IpAddr, at: Timestamp) -> Option<Timestamp> {
    let said = view.from.get("ips")?.at;
    let is_near = said.since(at).max(at.since(said)) <= LEASE_BELIEVED;
    (view.device.dhcp && view.device.ips.contains(&ip) && is_near).then_some(said)
}

/// A name as it is compared; an address is none.
fn folded(name: &str) -> Option<String> {
    let name = name.trim();
    let is_one = !name.is_empty() && name.len() <= NAME_MAX && name.parse::<IpAddr>().is_err();
    let is_unknown = ["unknown", "n/a", "none", "?"].iter().any(|word| name.eq_ignore_ascii_case(word));
    (is_one && !is_unknown).then(|| name.to_lowercase())
}

/// Whether an address is out on the Internet. Those of documentation are nowhere.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_bench = a == 198 && (18..20).contains(&b);
            !(ip.is_private() || ip.is_documentation() || is_shared || is_bench || a == 0 || a >= 240)
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::merge::Origin;
    use crate::model::{Severity, SourceName};

    const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

    fn end(ip: &str, mac: &str, name: &str) -> Endpoint {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Endpoint { ip: ip.parse().ok(), mac: text(mac), name: text(name), ..Endpoint::default() }
    }

    fn keys(source: Endpoint, destination: Endpoint) -> Vec<String> {
        let alert = Alert { source, destination, ..Alert::sample("t", Severity::Major, NOW) };
        affected(&alert).iter().flat_map(waits_for).collect()
    }

    fn check(destination: &Endpoint, expected: &[&str]) {
        assert_eq!(keys(end("10.9.9.1", "", ""), destination.clone()), expected, "{destination:?}");
    }

    #[test]
    fn the_end_it_went_to_counts_and_the_other_only_where_that_is_nobody() {
        let (a, from) = ("00:1b:1b:44:55:66", ["ip:10.9.9.1", "lease:10.9.9.1"]);
        check(&end("10.9.9.9", "", ""), &["ip:10.9.9.9", "lease:10.9.9.9"]);
        check(&end("10.9.9.9", a, "PLC-1 "), &["ip:10.9.9.9", "lease:10.9.9.9", "name:plc-1"]);
        check(&end("", a, ""), &["mac:00:1b:1b:44:55:66"]);
        check(&end("169.254.3.4", a, ""), &["mac:00:1b:1b:44:55:66"]);
        check(&end("", "", "PLC-1"), &["name:plc-1"]);
        // Nobody: none, a broadcast, a group, what routers share, words for nothing.
        check(&end("", "", ""), &from);
        check(&end("10.9.9.255", "ff:ff:ff:ff:ff:ff", "everyone"), &from);
        check(&end("224.0.0.1", "01:00:5e:00:00:01", ""), &from);
        check(&end("", "00:00:5e:00:01:07", "unknown"), &from);
        check(&end("", "", "10.9.9.1"), &from);
        // Out on the Internet: the one inside, if no device has that address after all. The MAC is the router's.
        let out = ["ip:8.8.8.8", "lease:8.8.8.8", from[0], from[1]];
        check(&end("8.8.8.8", a, ""), &out);
        check(&end("203.0.113.9", "", ""), &["ip:203.0.113.9", "lease:203.0.113.9"]);
        assert_eq!(keys(end("1.1.1.1", "", ""), end("8.8.8.8", "", "")), out[..2]);
        check(&end("fd00::1", "", ""), &["ip:fd00::1", "lease:fd00::1"]);
        assert!(keys(Endpoint::default(), Endpoint::default()).is_empty());
    }

    #[test]
    fn a_device_is_looked_for_by_all_its_names_and_by_its_lease_while_its_mac_is_known() {
        let mut device = Device { ips: vec!["10.9.9.9".parse().unwrap()], ..Device::default() };
        let looked =
            |device: &Device| looked_up(device, ["PLC-1", "plc-1", " ", "N/A", "10.9.9.9"].into_iter());
        assert_eq!(looked(&device), ["name:plc-1"]);
        device.dhcp = true;
        assert_eq!(looked(&device), ["name:plc-1"]);
        (device.macs, device.macs_are_own) = (vec!["00:1b:1b:44:55:66".to_owned()], true);
        assert_eq!(looked(&device), ["lease:10.9.9.9", "name:plc-1"]);
        let many: Vec<String> = (0..100).map(|n| format!("n{n}")).collect();
        assert_eq!(looked_up(&device, many.iter().map(String::as_str)).len(), LOOKED_UP_MAX);
    }

    #[test]
    fn an_address_of_dhcp_is_believed_for_a_day_either_way() {
        let ip = "10.9.9.9".parse().unwrap();
        let mut view = View::default();
        (view.device.ips, view.device.dhcp) = (vec![ip], true);
        let source = SourceName::new("z").unwrap().to_string();
        view.from.insert("ips".to_owned(), Origin { source, at: NOW });
        for (hours, expected) in [(0, true), (24, true), (25, false)] {
            let far = Duration::from_hours(hours);
            assert_eq!(leased_at(&view, ip, NOW.after(far)).is_some(), expected, "{hours}");
            assert_eq!(leased_at(&view, ip, NOW.before(far)).is_some(), expected, "{hours}");
        }
        assert!(leased_at(&view, "10.9.9.8".parse().unwrap(), NOW).is_none());
    }
}
