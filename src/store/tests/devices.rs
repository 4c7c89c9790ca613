//! Which sightings are one device, what of it is to be told, and that it is told once.

use super::*;
use crate::model::Device;
use crate::model::device::Connection;
use crate::store::op::device::outbox::{ClaimDevices, ClaimedDevice, ToldDevice};

#[expect(clippy::unnecessary_wraps, reason = "every attribute may be absent")]
pub(super) fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

pub(super) fn at(ip: &str) -> Device {
    Device { ips: vec![ip.parse().unwrap()], ..Device::default() }
}

fn with_mac(ip: &str, mac: &str) -> Device {
    Device { macs: vec![mac.to_owned()], macs_are_own: true, ..at(ip) }
}

pub(super) fn destination() -> DestinationName {
    DestinationName::new("prod").unwrap()
}

pub(super) fn table() -> TableName {
    TableName::new("cmdb_ci").unwrap()
}

impl Bench {
    /// A source says it.
    pub(super) async fn say(&self, source: &str, kind: &'static str, devices: Vec<Device>) {
        let record =
            Record { kind, devices, ..Record::new(SourceName::new(source).unwrap(), self.clock_now()) };
        self.store.record(vec![record]).await.unwrap();
    }

    pub(super) fn devices(&self) -> Vec<DeviceRow> {
        self.reader().devices(&DeviceFilter::default()).unwrap()
    }

    async fn claim_devices(&self, limit: usize) -> Vec<ClaimedDevice> {
        let claim = ClaimDevices {
            destination: destination(),
            table: table(),
            limit,
            only_tried: false,
            peek: false,
            now: self.clock_now(),
        };
        self.store.claim_devices(claim).await.unwrap()
    }

    pub(super) async fn enqueue(&self) -> u64 {
        self.store.enqueue_devices(&destination(), &table()).await.unwrap()
    }

    /// Tells all that is to be told; gives how many that were.
    pub(super) async fn tell_devices(&self) -> usize {
        self.enqueue().await;
        let claimed = self.claim_devices(1_000).await;
        let outcome = Outcome::Told { created: true };
        let settled = |c: &ClaimedDevice| Settled {
            id: c.id,
            started_at: NOW,
            duration_ms: 1,
            status: Some(200),
            outcome: outcome.clone(),
        };
        let told = |c: &ClaimedDevice| ToldDevice {
            device: c.device,
            hash: c.hash.clone(),
            sys_id: SysId::new(&"a".repeat(32)).ok(),
            class: "cmdb_ci_ot".to_owned(),
        };
        let (settled, told) = (claimed.iter().map(settled).collect(), claimed.iter().map(told).collect());
        self.store.settle_devices(&destination(), settled, told, Vec::new()).await.unwrap();
        claimed.len()
    }
}

#[tokio::test]
async fn one_plc_that_three_sources_see_is_one_device_in_whatever_order() {
    let words = || {
        [
            (
                "console",
                "defender-console",
                Device {
                    id: text("7"),
                    name: text("PLC-7"),
                    kind: text("PLC"),
                    serial: text("C0FFEE01"),
                    macs: vec!["00:1b:1b:aa:bb:cc".to_owned()],
                    ..at("10.3.0.17")
                },
            ),
            ("zeek", "zeek", with_mac("10.3.0.17", "00:1b:1b:aa:bb:cc")),
            (
                "eve",
                "suricata-eve",
                Device { serial: text("c0ffee-01"), model: text("S7-1500"), ..at("10.3.0.17") },
            ),
        ]
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let bench = Bench::new();
        for n in order {
            let (source, kind, device) = words()[n].clone();
            bench.say(source, kind, vec![device]).await;
        }
        let devices = bench.devices();
        assert_eq!(devices.len(), 1, "{order:?}");
        let view = &devices[0].view;
        assert_eq!(view.device.name.as_deref(), Some("PLC-7"));
        assert_eq!(
            (view.from["model"].source.as_str(), view.from["name"].source.as_str()),
            ("eve", "console")
        );
        assert_eq!(bench.reader().device("10.3.0.17").unwrap().unwrap().sources.len(), 3);
        assert_eq!(bench.tell_devices().await, 1);
    }
}

#[tokio::test]
async fn what_was_taken_for_two_becomes_one_when_a_source_says_so() {
    let bench = Bench::new();
    bench.say("eve", "suricata-eve", vec![Device { serial: text("C0FFEE01"), ..at("10.3.0.17") }]).await;
    bench.say("zeek", "zeek", vec![with_mac("10.3.0.18", "00:1b:1b:aa:bb:cc")]).await;
    assert_eq!((bench.devices().len(), bench.tell_devices().await), (2, 2));
    let both =
        Device { id: text("7"), serial: text("C0FFEE01"), ..with_mac("10.3.0.18", "00:1b:1b:aa:bb:cc") };
    bench.say("console", "defender-console", vec![both]).await;
    assert_eq!((bench.devices().len(), bench.tell_devices().await), (1, 1));
    let overview = bench.reader().overview().unwrap();
    assert_eq!(overview.devices.known, 1);
    assert!(overview.issues.iter().any(|row| row.issue.code == "device-twins"));
}

#[tokio::test]
async fn two_plcs_behind_one_router_are_two() {
    let bench = Bench::new();
    let behind = |ip: &str| Device { macs: vec!["00:1b:1b:00:00:01".to_owned()], ..at(ip) };
    bench.say("eve", "suricata-eve", vec![behind("10.3.0.17"), behind("10.3.0.18")]).await;
    // A source that shows the router's MAC as their own still knows them apart.
    let of = |id: &str, ip: &str| Device { id: text(id), ..with_mac(ip, "00:1b:1b:00:00:01") };
    bench.say("console", "defender-console", vec![of("1", "10.3.0.17"), of("2", "10.3.0.18")]).await;
    assert_eq!(bench.devices().len(), 2);
}

#[tokio::test]
async fn an_address_of_dhcp_that_moves_renames_nothing() {
    let bench = Bench::new();
    let lease =
        |name: &str, mac: &str, ip: &str| Device { dhcp: true, name: text(name), ..with_mac(ip, mac) };
    bench.say("eve", "suricata-eve", vec![lease("PLC-7", "00:1b:1b:00:00:07", "10.3.0.17")]).await;
    let before = bench.devices()[0].id.clone();
    bench
        .say(
            "eve",
            "suricata-eve",
            vec![
                lease("PLC-7", "00:1b:1b:00:00:07", "10.3.0.99"),
                lease("laptop", "00:1b:1b:00:00:08", "10.3.0.17"),
            ],
        )
        .await;
    let devices = bench.devices();
    assert_eq!(devices.len(), 2);
    assert_eq!(
        (devices[0].id.as_str(), devices[0].view.device.name.as_deref()),
        (before.as_str(), Some("PLC-7"))
    );
    assert_eq!(devices[0].view.device.ips, at("10.3.0.99").ips);
    assert_eq!(devices[1].view.device.name.as_deref(), Some("laptop"));
}

#[tokio::test]
async fn only_what_has_changed_is_told() {
    let bench = Bench::new();
    let device = |n: u32| {
        with_mac(
            &format!("10.3.{}.{}", n / 200, n % 200 + 1),
            &format!("00:1b:1b:00:{:02x}:{:02x}", n / 256, n % 256),
        )
    };
    bench.say("zeek", "zeek", (0..300).map(device).collect()).await;
    assert_eq!(bench.tell_devices().await, 300);
    bench.clock.advance(Duration::from_hours(1));
    let seen = |n| Device { last_seen: Some(bench.clock_now()), ..device(n) };
    bench.say("zeek", "zeek", (0..300).map(seen).collect()).await;
    assert_eq!((bench.enqueue().await, bench.tell_devices().await), (0, 0), "seen again is no change");
    bench
        .say("zeek", "zeek", (0..3).map(|n| Device { vendor: text("Siemens"), ..device(n) }).collect())
        .await;
    assert_eq!(bench.devices().iter().filter(|row| row.changed == ["identity"]).count(), 3);
    assert_eq!(bench.tell_devices().await, 3);
    assert_eq!(bench.store.resync_devices().await.unwrap(), 300);
    assert_eq!(bench.tell_devices().await, 300);
    let overview = bench.reader().overview().unwrap();
    assert_eq!((overview.backlog, overview.dead, overview.devices.changed), (0, 0, 0));
}

#[tokio::test]
async fn an_inventory_that_has_not_changed_writes_next_to_nothing() {
    let bench = Bench::new();
    let talks = || Device {
        connections: vec![Connection {
            ip: Some("10.3.0.18".parse().unwrap()),
            last_seen: Some(bench.clock_now()),
            ..Connection::default()
        }],
        last_seen: Some(bench.clock_now()),
        ..with_mac("10.3.0.17", "00:1b:1b:00:00:01")
    };
    let seen = || bench.devices()[0].seen_at;
    bench.say("console", "defender-console", vec![talks()]).await;
    let first = seen();
    for _ in 0..5 {
        bench.clock.advance(Duration::from_hours(1));
        bench.say("console", "defender-console", vec![talks()]).await;
    }
    assert_eq!(seen(), first, "when something was last seen is no news");
    bench.clock.advance(Duration::from_hours(1));
    bench.say("console", "defender-console", vec![talks()]).await;
    assert_eq!(seen(), bench.clock_now(), "but it is written once in a while");
    // With two sources it counts whose word is the newer one.
    bench.say("zeek", "zeek", vec![with_mac("10.3.0.17", "00:1b:1b:00:00:01")]).await;
    bench.clock.advance(Duration::from_mins(20));
    bench.say("console", "defender-console", vec![talks()]).await;
    assert_eq!((seen(), bench.devices().len()), (bench.clock_now(), 1));
}

#[tokio::test]
async fn a_change_while_it_is_told_is_told_next_and_a_restart_tells_it_once_more() {
    let bench = Bench::new();
    bench.say("zeek", "zeek", vec![at("10.3.0.17")]).await;
    bench.enqueue().await;
    let claimed = bench.claim_devices(10).await;
    assert_eq!(claimed.len(), 1);
    bench.say("zeek", "zeek", vec![Device { vendor: text("Siemens"), ..at("10.3.0.17") }]).await;
    assert_eq!(bench.enqueue().await, 0, "one is on its way");
    // The process ends before the answer is settled.
    let bench = bench.reopen().await;
    assert_eq!(bench.store.recover(bench.clock_now()).await.unwrap(), 1);
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.tell_devices().await, 1);
    assert_eq!(bench.tell_devices().await, 0);
    assert!(bench.devices()[0].changed.is_empty());
}

#[tokio::test]
async fn one_that_was_refused_waits_for_a_person_or_for_a_change() {
    let bench = Bench::new();
    bench.say("zeek", "zeek", vec![at("10.3.0.17")]).await;
    bench.enqueue().await;
    let claimed = bench.claim_devices(10).await;
    let outcome = Outcome::Dead { message: "MULTI_MATCH".to_owned() };
    let settled =
        vec![Settled { id: claimed[0].id, started_at: NOW, duration_ms: 1, status: Some(200), outcome }];
    bench.store.settle_devices(&destination(), settled, Vec::new(), Vec::new()).await.unwrap();
    let dead = bench.reader().deliveries(DeliveryState::Dead, &ListFilter::default()).unwrap();
    assert_eq!(
        (dead.len(), dead[0].title.as_str(), dead[0].reason.as_deref()),
        (1, "10.3.0.17", Some("MULTI_MATCH"))
    );
    assert_eq!(bench.enqueue().await, 0);
    bench.store.judge(vec![dead[0].id], Verdict::Retry).await.unwrap();
    assert_eq!(bench.tell_devices().await, 1);
    bench.say("zeek", "zeek", vec![Device { vendor: text("Siemens"), ..at("10.3.0.17") }]).await;
    assert_eq!(bench.tell_devices().await, 1);
}

#[tokio::test]
async fn what_has_nothing_that_lasts_is_counted_and_not_kept() {
    let bench = Bench::new();
    bench.say("eve", "suricata-eve", vec![Device { dhcp: true, ..at("10.3.0.17") }, Device::default()]).await;
    assert!(bench.devices().is_empty());
    assert_eq!(bench.reader().overview().unwrap().sources[0].devices, 2);
}

#[tokio::test]
async fn alerts_are_claimed_as_if_there_were_no_devices() {
    let bench = Bench::new();
    bench.say("zeek", "zeek", vec![at("10.3.0.17")]).await;
    bench.enqueue().await;
    assert!(bench.claim(10).await.is_empty());
    assert_eq!(bench.claim_devices(10).await.len(), 1);
}

fn outcome_of(claimed: &ClaimedDevice, outcome: Outcome) -> Vec<Settled> {
    vec![Settled { id: claimed.id, started_at: NOW, duration_ms: 1, status: Some(200), outcome }]
}

/// One of two devices is on its way when a source shows that they are one.
async fn merged_in_flight() -> (Bench, ClaimedDevice) {
    let bench = Bench::new();
    bench.say("eve", "suricata-eve", vec![Device { serial: text("C0FFEE01"), ..at("10.3.0.17") }]).await;
    assert_eq!(bench.tell_devices().await, 1);
    bench.say("zeek", "zeek", vec![with_mac("10.3.0.18", "00:1b:1b:aa:bb:cc")]).await;
    bench.enqueue().await;
    let claimed = bench.claim_devices(10).await.remove(0);
    let both =
        Device { id: text("7"), serial: text("C0FFEE01"), ..with_mac("10.3.0.18", "00:1b:1b:aa:bb:cc") };
    bench.say("console", "defender-console", vec![both]).await;
    assert_eq!(bench.devices().len(), 1);
    (bench, claimed)
}

impl Bench {
    fn count(&self, state: DeliveryState) -> usize {
        self.reader().deliveries(state, &ListFilter::default()).unwrap().len()
    }

    /// Only the one that is left is told of any more, and nobody hears of damage.
    async fn goes_on_as_one(&self) {
        self.clock.advance(Duration::from_hours(1));
        assert_eq!(self.tell_devices().await, 1);
        assert_eq!(self.tell_devices().await, 0);
        assert_eq!((self.count(DeliveryState::Dead), self.count(DeliveryState::Pending)), (0, 0));
    }
}

#[tokio::test]
async fn a_device_that_turns_out_to_be_another_while_it_is_told_leaves_a_twin_that_is_said() {
    let (bench, claimed) = merged_in_flight().await;
    let sys_id = SysId::new(&"b".repeat(32)).ok();
    let told =
        ToldDevice { device: claimed.device, hash: claimed.hash.clone(), sys_id, class: String::new() };
    let settled = outcome_of(&claimed, Outcome::Told { created: true });
    bench.store.settle_devices(&destination(), settled, vec![told], Vec::new()).await.unwrap();
    let issues = bench.reader().overview().unwrap().issues;
    let twins = issues.iter().find(|row| row.issue.code == "device-twins").unwrap();
    assert!(twins.issue.text.contains(&"b".repeat(32)), "{}", twins.issue.text);
    bench.goes_on_as_one().await;
}

#[tokio::test]
async fn a_device_that_turns_out_to_be_another_while_its_telling_fails_is_told_of_no_more() {
    let message = || "busy".to_owned();
    let retry = Outcome::Retry { due_at: NOW, word: "retry", doubtful: true, message: message() };
    let requeue = Outcome::Requeue { doubtful: true, message: message() };
    for outcome in [retry, requeue, Outcome::Dead { message: message() }] {
        let (bench, claimed) = merged_in_flight().await;
        let settled = outcome_of(&claimed, outcome);
        bench.store.settle_devices(&destination(), settled, Vec::new(), Vec::new()).await.unwrap();
        assert_eq!(bench.count(DeliveryState::Withdrawn), 1);
        bench.goes_on_as_one().await;
    }
    // The same if the process ends before.
    let (bench, _) = merged_in_flight().await;
    let bench = bench.reopen().await;
    assert_eq!(bench.store.recover(bench.clock_now()).await.unwrap(), 1);
    bench.goes_on_as_one().await;
}

#[tokio::test]
async fn what_changed_while_one_was_refused_is_told() {
    let bench = Bench::new();
    bench.say("zeek", "zeek", vec![at("10.3.0.17")]).await;
    bench.enqueue().await;
    let claimed = bench.claim_devices(10).await.remove(0);
    bench.say("zeek", "zeek", vec![Device { vendor: text("Siemens"), ..at("10.3.0.17") }]).await;
    let settled = outcome_of(&claimed, Outcome::Dead { message: "MULTI_MATCH".to_owned() });
    bench.store.settle_devices(&destination(), settled, Vec::new(), Vec::new()).await.unwrap();
    assert_eq!(bench.tell_devices().await, 1);
}
