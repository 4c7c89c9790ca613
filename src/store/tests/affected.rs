//! Which device an alert is about, and which CI its ticket names: by what its source calls it, address, MAC, lease, name.

use super::devices::{at, text};
use super::*;
use crate::model::{Device, Endpoint};
use crate::store::op::device::outbox::{ClaimDevices, ToldDevice};

const A: &str = "00:1b:1b:44:55:66";
const B: &str = "00:1b:1b:44:55:01";

fn known(ip: &str, mac: &str) -> Device {
    Device { macs: vec![mac.to_owned()], macs_are_own: true, ..at(ip) }
}

fn end(ip: &str, mac: &str, name: &str) -> Endpoint {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Endpoint { ip: ip.parse().ok(), mac: text(mac), name: text(name), ..Endpoint::default() }
}

fn b() -> Endpoint {
    end("10.9.9.1", "", "")
}

impl Bench {
    /// Tells each device: its CI is named after the last part of its first address, or MAC.
    async fn tell_each(&self) {
        self.enqueue().await;
        let claim = ClaimDevices {
            destination: destination(),
            table: devices::table(),
            limit: 100,
            only_tried: false,
            peek: false,
            now: self.clock_now(),
        };
        let claimed = self.store.claim_devices(claim).await.unwrap();
        let settled = claimed.iter().map(|c| Settled {
            id: c.id,
            started_at: NOW,
            duration_ms: 1,
            status: Some(200),
            outcome: Outcome::Told { created: true },
        });
        let told = claimed.iter().map(|c| {
            let device = &c.view.as_ref().unwrap().device;
            let last = device.ips.first().map_or_else(|| device.macs[0].clone(), ToString::to_string);
            let ci = format!("{:0>32}", last.rsplit(['.', ':']).next().unwrap());
            ToldDevice {
                device: c.device,
                hash: c.hash.clone(),
                sys_id: SysId::new(&ci).ok(),
                class: "cmdb_ci_ot".to_owned(),
            }
        });
        let (settled, told) = (settled.collect(), told.collect());
        self.store.settle_devices(&destination(), settled, told, Vec::new()).await.unwrap();
    }

    /// The CI of the ticket of an alert: the last digits of it. It is settled with what it waits for.
    async fn ci(&self, n: u32, source: Endpoint, destination: Endpoint) -> Option<String> {
        let mut entry = entry(n, Severity::Major);
        (entry.alert.source, entry.alert.destination) = (source, destination);
        entry.alert.received_at = self.clock_now();
        self.record(vec![entry]).await;
        let claim = Claim { links: true, ..claim(1, self.clock_now()) };
        let claimed = self.store.claim(claim).await.unwrap().remove(0);
        let Outcome::Delivered { created, sys_id, number, state, mod_count, adopted, .. } = there(n) else {
            unreachable!()
        };
        let looks_for = claimed.about.keys.clone();
        let outcome = Outcome::Delivered { created, sys_id, number, state, mod_count, adopted, looks_for };
        self.settle(&claimed, outcome).await;
        claimed.about.ci.map(|ci| ci.trim_start_matches('0').to_owned())
    }
}

#[tokio::test]
async fn the_target_is_known_by_mac_lease_and_name_and_the_attacker_never_stands_in_for_it() {
    let bench = Bench::new();
    let a = Device { name: text("PLC-Mixer"), ..known("10.9.9.9", A) };
    bench.say("zeek", "zeek", vec![a.clone(), known("10.9.9.1", B)]).await;
    bench.tell_each().await;
    let nine = Some("9".to_owned());
    assert_eq!(bench.ci(1, b(), end("", A, "")).await, nine, "its MAC, and the attacker's address");
    assert_eq!(bench.ci(2, end("", B, ""), end("", A, "")).await, nine, "only MACs");
    assert_eq!(bench.ci(3, b(), end("10.9.9.9", "", "")).await, nine);
    assert_eq!(bench.ci(4, b(), end("", "", "plc-mixer ")).await, nine, "its name only");
    // DHCP gave it its address.
    bench.say("zeek", "zeek", vec![Device { dhcp: true, ..a.clone() }]).await;
    bench.tell_each().await;
    assert_eq!(bench.ci(5, b(), end("10.9.9.9", A, "")).await, nine);
    assert_eq!(bench.ci(6, b(), end("10.9.9.9", "", "")).await, nine);
    // A router's MAC beside an address beyond it, one that nobody knows, and another name's address.
    assert_eq!(bench.ci(7, b(), end("10.7.7.7", A, "")).await, None);
    assert_eq!(bench.ci(8, b(), end("10.7.7.7", "", "PLC-Mixer")).await, None);
    assert_eq!(bench.ci(9, b(), end("", "00:1b:1b:00:00:77", "")).await, None);
    // It went to nobody, or out.
    let one = Some("1".to_owned());
    assert_eq!(bench.ci(10, b(), Endpoint::default()).await, one);
    assert_eq!(bench.ci(11, b(), end("10.9.9.255", "ff:ff:ff:ff:ff:ff", "")).await, one);
    assert_eq!(bench.ci(12, b(), end("8.8.8.8", A, "")).await, one);
    // The lease moved to another, whose CI is its own; a day later nobody knows.
    bench.say("zeek", "zeek", vec![Device { dhcp: true, ..known("10.9.9.9", "00:1b:1b:00:00:0c") }]).await;
    assert_eq!(bench.ci(13, b(), end("10.9.9.9", "", "")).await, None, "it has no CI yet");
    bench.say("zeek", "zeek", vec![Device { dhcp: true, ..known("10.9.9.44", A) }]).await;
    assert_eq!(bench.ci(14, b(), end("10.9.9.44", "", "")).await, nine);
    bench.clock.advance(Duration::from_hours(25));
    assert_eq!(bench.ci(15, b(), end("10.9.9.44", "", "")).await, None);
    assert_eq!(bench.ci(16, b(), end("10.9.9.44", A, "")).await, nine);
}

#[tokio::test]
async fn of_two_that_may_be_meant_neither_is_unless_more_is_said() {
    let bench = Bench::new();
    let cell = |site: &str, id: &str, mac: &str, ip: &str| Device {
        site: text(site),
        id: text(id),
        name: text("PLC-1"),
        ..known(ip, mac)
    };
    // Two cells with one plan of addresses, as one console has them.
    let twins = vec![cell("n", "1", A, "10.9.9.9"), cell("s", "2", B, "10.9.9.9")];
    bench.say("eve", "suricata-eve", twins).await;
    assert_eq!(bench.devices().len(), 2);
    bench.tell_each().await;
    assert_eq!(bench.ci(1, b(), end("10.9.9.9", "", "PLC-1")).await, None);
    let nine = Some("9".to_owned());
    assert_eq!(bench.ci(2, b(), end("10.9.9.9", A, "")).await, nine);
    let by_id = Endpoint { device_id: text("2"), ..end("10.9.9.9", "", "") };
    assert_eq!(bench.ci(3, b(), by_id).await, nine, "what its own source calls it");
    let stranger = Endpoint { device_id: text("3"), ..Endpoint::default() };
    assert_eq!(bench.ci(4, b(), stranger).await, None);
}

#[tokio::test]
async fn a_ticket_is_linked_when_its_device_comes_by_each_of_its_keys() {
    let bench = Bench::new();
    let ends = [end("", A, ""), end("", "", "PLC-1"), end("10.9.9.9", "", ""), end("10.9.9.77", A, "")];
    for (n, end) in (1..).zip(ends) {
        assert_eq!(bench.ci(n, b(), end).await, None);
    }
    let links = async || bench.store.link_tickets(&destination()).await.unwrap();
    assert_eq!(links().await, 0);
    bench.say("zeek", "zeek", vec![Device { dhcp: true, name: text("PLC-1"), ..known("10.9.9.9", A) }]).await;
    assert_eq!(links().await, 0, "it has no CI yet");
    bench.tell_each().await;
    assert_eq!((links().await, links().await), (3, 0), "not the one with another address");
    // The attacker alone is known: nobody is linked to it.
    bench.say("zeek", "zeek", vec![known("10.9.9.1", B)]).await;
    bench.tell_each().await;
    assert_eq!(links().await, 0);
}

#[tokio::test]
async fn a_name_that_was_given_up_and_a_lease_that_moved_are_not_looked_for_any_more() {
    let bench = Bench::new();
    let named = |name: &str, ip: &str| Device { dhcp: true, name: text(name), ..known(ip, A) };
    bench.say("eve", "suricata-eve", vec![named("old", "10.9.9.9")]).await;
    bench.say("eve", "suricata-eve", vec![named("new", "10.9.9.8")]).await;
    bench.tell_each().await;
    assert_eq!(bench.ci(1, b(), end("", "", "old")).await, None);
    assert_eq!(bench.ci(2, b(), end("10.9.9.9", "", "")).await, None);
    assert_eq!(bench.ci(3, b(), end("", "", "new")).await, Some("8".to_owned()));
    assert!(bench.reader().device("10.9.9.8").unwrap().is_some(), "commands find it by its lease");
}
