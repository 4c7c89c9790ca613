//! Devices have a share of the store: forged addresses cost neither an alert nor the intake, and one busy device is written
//! once a batch.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use super::devices::{at, destination, table, text};
use super::*;
use crate::model::Device;
use crate::model::device::Connection;
use crate::store::op::device::share::counted_anew;

fn ip(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + ((n / 200) << 8) + n % 200 + 1).into()
}

/// What one forged packet to a server shows of its sender.
fn seen(n: u32) -> Device {
    let talk = Connection {
        ip: Some(ip(900_000)),
        protocols: vec!["DNP3".to_owned()],
        ports: vec![20_000],
        last_seen: Some(NOW),
        ..Connection::default()
    };
    Device {
        protocols: vec!["DNP3".to_owned()],
        first_seen: Some(NOW),
        last_seen: Some(NOW),
        connections: vec![talk],
        ..at(&ip(n).to_string())
    }
}

/// What a console says of one.
fn listed(n: u32) -> Device {
    Device {
        id: Some(n.to_string()),
        name: Some(format!("PLC-{n}")),
        kind: text("PLC"),
        vendor: text("Siemens"),
        macs: vec![format!("00:1b:1b:00:{:02x}:{:02x}", n >> 8 & 255, n & 255)],
        macs_are_own: true,
        ..at(&ip(n).to_string())
    }
}

/// Takes them in as the intake does.
async fn take_in(bench: &Bench, source: &str, kind: &'static str, devices: Vec<Device>) {
    for devices in devices.chunks(100) {
        let source = SourceName::new(source).unwrap();
        let record = Record { kind, devices: devices.to_vec(), ..Record::new(source, bench.clock_now()) };
        match bench.store.record(vec![record]).await {
            Ok(recorded) if !recorded.room.is_tight() => {}
            Ok(_) | Err(StoreError::Full(_)) => {
                bench.store.make_room().await.unwrap();
            }
            Err(e) => panic!("{e}"),
        }
    }
}

async fn flood(bench: &Bench, numbers: Range<u32>) {
    take_in(bench, "eve", "suricata-eve", numbers.map(seen).collect()).await;
}

fn small() -> Bench {
    Bench::open(tempfile::tempdir().unwrap(), |s| s.max_size = 8 << 20)
}

fn issue(bench: &Bench, subject: &str) -> Option<String> {
    let issues = bench.reader().overview().unwrap().issues;
    let found = issues.into_iter().find(|r| r.issue.code == "devices-share" && r.issue.subject == subject);
    found.map(|row| row.issue.text)
}

/// What is counted is what is there.
fn is_counted(bench: &Bench) {
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    let counter = |name: &str| -> i64 {
        let sql = "SELECT value FROM counter WHERE scope = 'store' AND name = ?1";
        conn.query_row(sql, [name], |r| r.get(0)).unwrap()
    };
    let rows = |table: &str| -> i64 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap()
    };
    assert_eq!(counter("device bytes"), counted_anew(&conn).unwrap());
    assert_eq!((counter("devices"), counter("deliveries")), (rows("device"), rows("delivery")));
}

#[tokio::test]
async fn forged_addresses_cost_no_alert() {
    for planned in [false, true] {
        let bench = small();
        if planned {
            bench.store.want_devices();
        }
        bench.record((0..100).map(|n| entry(n, Severity::Critical)).collect()).await;
        for from in (0..5_000).step_by(500) {
            flood(&bench, from..from + 500).await;
            if planned {
                bench.enqueue().await;
            }
        }
        let overview = bench.reader().overview().unwrap();
        assert_eq!((overview.shed, overview.backlog >= 100), (0, true), "planned: {planned}");
        assert!(!bench.store.is_refusing() && !bench.store.room().await.unwrap().is_tight());
        assert!(issue(&bench, "").unwrap().contains("forgotten"));
        assert_eq!(bench.record(vec![entry(1_000, Severity::Critical)]).await.new, 1);
        let claimed = bench.claim(usize::MAX).await;
        assert_eq!(claimed.len(), 101);
        for c in claimed {
            bench.settle(&c, there(c.id.0 as u32)).await;
        }
        assert_eq!(bench.tell_devices().await > 500, planned || bench.devices().len() > 500);
        is_counted(&bench);
    }
}

#[tokio::test]
async fn what_an_inventory_knows_stays_and_what_was_forgotten_returns_as_the_same() {
    let bench = small();
    take_in(&bench, "console", "defender-console", (0..50).map(|n| listed(100_000 + n)).collect()).await;
    flood(&bench, 0..1).await;
    let first = |bench: &Bench| bench.devices().into_iter().find(|d| d.view.device.ips == [ip(0)]);
    let key = first(&bench).unwrap().id;
    flood(&bench, 1..3_000).await;
    assert!(first(&bench).is_none(), "the oldest went");
    let of_console = |bench: &Bench| {
        bench.devices().iter().filter(|d| d.view.device.vendor.as_deref() == Some("Siemens")).count()
    };
    assert_eq!(of_console(&bench), 50);
    flood(&bench, 0..1).await;
    assert_eq!(first(&bench).unwrap().id, key);
    // What was told stays before what was not, and gives way to an inventory.
    let told = bench.tell_devices().await;
    assert!(told > 50, "{told}");
    bench.store.resync_devices().await.unwrap();
    bench.store.enqueue_devices(&destination(), &table()).await.unwrap();
    assert_eq!(bench.tell_devices().await, told, "after a resync all are told again");
    take_in(&bench, "console", "defender-console", (50..4_000).map(|n| listed(100_000 + n)).collect()).await;
    assert!(of_console(&bench) > told, "{} of {told}", of_console(&bench));
    assert!(first(&bench).is_none());
    is_counted(&bench);
}

#[tokio::test]
async fn an_inventory_beyond_the_share_is_left_out_and_said() {
    let bench = small();
    bench.record((0..100).map(|n| entry(n, Severity::Warning)).collect()).await;
    take_in(&bench, "console", "defender-console", (0..5_000).map(listed).collect()).await;
    let words = issue(&bench, "").unwrap();
    assert!(words.contains("left out") && !words.contains("and 0 sightings"), "{words}");
    assert_eq!(bench.claim(usize::MAX).await.len(), 100);
    assert!(!bench.store.room().await.unwrap().is_tight());
    is_counted(&bench);
    // With more room it is well again.
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let bench = Bench::open(dir, |s| s.max_size = 64 << 20);
    take_in(&bench, "console", "defender-console", vec![listed(6_000)]).await;
    assert_eq!(issue(&bench, ""), None);
}

#[tokio::test]
async fn a_store_that_devices_filled_before_gets_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir, |s| s.max_size = 64 << 20);
    bench.store.want_devices();
    bench.record((0..100).map(|n| entry(n, Severity::Critical)).collect()).await;
    flood(&bench, 0..6_000).await;
    bench.enqueue().await;
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let conn = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute("DELETE FROM counter WHERE name = 'device bytes'", []).unwrap();
    drop(conn);
    let bench = Bench::open(dir, |s| s.max_size = 8 << 20);
    assert!(bench.store.room().await.unwrap().is_tight());
    let made = bench.store.make_room().await.unwrap();
    assert!(made.devices > 1_000 && made.given_up == 0, "{made:?}");
    assert_eq!(bench.enqueue().await, 0);
    assert!(!bench.store.room().await.unwrap().is_tight());
    assert_eq!(bench.claim(usize::MAX).await.len(), 100);
    is_counted(&bench);
}

#[tokio::test]
async fn devices_are_not_planned_into_the_last_tenth() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| {
        (s.max_size, s.when_full) = (8 << 20, WhenFull::Refuse);
    });
    bench.store.want_devices();
    take_in(&bench, "console", "defender-console", (0..50).map(listed).collect()).await;
    let mut n = 0;
    while !bench.store.room().await.unwrap().is_tight() {
        let mut one = entry(n, Severity::Major);
        one.alert.raw = noise(15_000);
        bench.record(vec![one]).await;
        n += 1;
    }
    assert_eq!(bench.enqueue().await, 0);
    assert!(issue(&bench, "sending").unwrap().contains("nine tenths"));
    bench.store.devices_synced().await.unwrap();
    assert_eq!(bench.store.devices_synced_at().await.unwrap(), None, "the next sync goes on");
    for c in bench.claim(usize::MAX).await {
        bench.settle(&c, there(c.id.0 as u32)).await;
    }
    bench.store.make_room().await.unwrap();
    assert_eq!(bench.enqueue().await, 50);
    assert_eq!(issue(&bench, "sending"), None);
}

#[tokio::test]
async fn one_that_many_talk_to_is_written_once_a_batch() {
    let bench = Bench::new();
    let server = |talks: Vec<Connection>| Device { connections: talks, ..at(&ip(900_000).to_string()) };
    bench.say("eve", "suricata-eve", vec![server(Vec::new())]).await;
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    conn.execute_batch(
        "CREATE TABLE written (ips BLOB); CREATE TRIGGER written_view AFTER UPDATE OF view ON device
           BEGIN INSERT INTO written VALUES (new.view); END;",
    )
    .unwrap();
    let from =
        |n: u32| Connection { ip: Some(ip(n)), inbound: true, ports: vec![20_000], ..Connection::default() };
    let lines =
        |numbers: Range<u32>| numbers.flat_map(|n| [seen(n), server(vec![from(n)])]).collect::<Vec<_>>();
    let written = || -> i64 {
        let sql =
            "SELECT count(*) FROM written WHERE instr(ips, CAST('\"ips\":[\"10.17.148.1\"]' AS BLOB)) > 0";
        conn.query_row(sql, [], |r| r.get(0)).unwrap()
    };
    assert_eq!(ip(900_000).to_string(), "10.17.148.1");
    bench.say("eve", "suricata-eve", lines(0..2_000)).await;
    assert!((1..=3).contains(&written()), "{}", written());
    let device = bench.devices().into_iter().find(|d| d.view.device.ips == [ip(900_000)]).unwrap();
    assert_eq!(device.view.device.connections.len(), 256);
    let before = written();
    bench.say("eve", "suricata-eve", lines(2_000..2_500)).await;
    assert_eq!(written(), before, "in a full list who came first stays");
}
