//! What a machine tells of itself: what is raised is known after a restart, and what cannot be seen is not judged.

use super::*;
use crate::clock::ManualClock;
use crate::model::Timestamp;

fn machine(limits: Limits, remembered: &Remembered) -> Host {
    let settings = Settings {
        of: format::Settings {
            site: Some("Plant".to_owned()),
            ..format::Settings::new("an-id", "line4", SourceName::new("host").unwrap())
        },
        interval: Duration::from_secs(60),
        limits,
        disks: vec!["/".to_owned(), "/nowhere".to_owned()],
    };
    let clock: SharedClock = ManualClock::at(Timestamp::from_secs(1_795_000_000));
    let named = (SourceName::new("host").unwrap(), "host");
    Host::new(named, settings, Reading::Follow, remembered, clock, Heartbeat::default())
}

fn limits() -> Limits {
    Limits { disk_percent: 90, memory_percent: 95, load_per_core: 4, temperature: 85, processes: Vec::new() }
}

fn seen(percent: f64) -> Seen {
    let disks = vec![Disk { path: "/".to_owned(), percent, free: 1 << 30 }];
    let device = Device { name: Some("line4".to_owned()), is_sensor: true, ..Device::default() };
    Seen { look: Look { disks, ..Look::default() }, device, trouble: None }
}

/// What a store would remember after a batch.
fn remember(remembered: &mut Remembered, batch: &Batch) {
    let same = |one: &Cursor, other: &Cursor| match (one, other) {
        (Cursor::Mark(one), Cursor::Mark(other)) => one.name == other.name,
        _ => false,
    };
    let gone = |cursor: &Cursor| batch.finished.iter().chain(&batch.cursors).any(|other| same(cursor, other));
    remembered.cursors.retain(|cursor| !gone(cursor));
    remembered.cursors.extend(batch.cursors.iter().cloned());
}

fn states(batch: &Batch) -> Vec<(String, AlertState)> {
    batch.sightings.iter().map(|s| (s.alert.title.clone(), s.alert.state)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_condition_is_one_finding_over_restarts() {
    let mut remembered = Remembered::default();
    let mut host = machine(limits(), &remembered);
    let first = host.batch(&seen(95.0), Some("a")).unwrap();
    remember(&mut remembered, &first);
    let title = "line4: disk is filling: /".to_owned();
    assert_eq!(states(&first), [(title.clone(), AlertState::Raised)]);
    assert_eq!((first.devices.len(), first.devices[0].site.as_deref()), (1, Some("Plant")));
    assert!(host.batch(&seen(96.0), Some("a")).is_none(), "nothing is new");

    // The process is killed: what is raised is known, the device is told once more.
    let mut host = machine(limits(), &remembered);
    let again = host.batch(&seen(97.0), Some("a")).unwrap();
    assert_eq!((states(&again), again.devices.len()), (vec![], 1));
    remember(&mut remembered, &again);
    // Filled further it is told once more, as critical, and a restart knows that.
    let worse = host.batch(&seen(98.0), Some("a")).unwrap();
    assert_eq!(states(&worse), [(title.clone(), AlertState::Raised)]);
    let severities = [&first, &worse].map(|batch| batch.sightings[0].alert.severity);
    assert_eq!(severities, [Severity::Major, Severity::Critical]);
    assert_eq!(worse.sightings[0].fingerprint, first.sightings[0].fingerprint);
    remember(&mut remembered, &worse);
    let mut host = machine(limits(), &remembered);
    assert!(states(&host.batch(&seen(99.0), Some("a")).unwrap()).is_empty());
    let cleared = host.batch(&seen(50.0), Some("a")).unwrap();
    assert_eq!(states(&cleared), [(title, AlertState::Cleared)]);
    assert_eq!(cleared.sightings[0].fingerprint, first.sightings[0].fingerprint);
    remember(&mut remembered, &cleared);
    assert_eq!(remembered.mark("raised/disk:/"), None);

    tokio::time::advance(DEVICE_EVERY).await;
    assert_eq!(host.batch(&seen(50.0), Some("a")).unwrap().devices.len(), 1, "once a day");
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_was_not_shut_down_is_told_for_an_hour() {
    let mut remembered = Remembered::default();
    let begun = machine(limits(), &remembered).batch(&seen(1.0), Some("a")).unwrap();
    remember(&mut remembered, &begun);
    assert_eq!(remembered.mark(BOOT), Some("a"));
    // The same boot: only the process was killed. No word of the boot: nothing can be said.
    for boot in [Some("a"), None] {
        assert_eq!(states(&machine(limits(), &remembered).batch(&seen(1.0), boot).unwrap()), []);
    }
    let mut host = machine(limits(), &remembered);
    let cut = host.batch(&seen(1.0), Some("b")).unwrap();
    let title = "line4: it was started anew without a shutdown".to_owned();
    assert_eq!(states(&cut), [(title.clone(), AlertState::Raised)]);
    remember(&mut remembered, &cut);
    assert_eq!(remembered.mark(BOOT), Some("b"));
    assert!(host.batch(&seen(1.0), Some("b")).is_none());
    tokio::time::advance(POWER_CUT_FOR).await;
    assert_eq!(states(&host.batch(&seen(1.0), Some("b")).unwrap()), [(title, AlertState::Cleared)]);
}

#[tokio::test]
async fn a_stop_in_order_forgets_the_boot() {
    let (out, mut batches) = mpsc::channel(8);
    let stop = CancellationToken::new();
    let host = machine(limits(), &Remembered::default());
    let work = host.run(out, stop.clone());
    let mut remembered = Remembered::default();
    let intake = async {
        while let Some(batch) = batches.recv().await {
            remember(&mut remembered, &batch);
            stop.cancel();
        }
    };
    let (ended, ()) = tokio::join!(work, intake);
    ended.unwrap();
    assert_eq!(remembered.mark(BOOT), None);
}

#[test]
fn this_machine_can_be_looked_at() {
    let host =
        machine(Limits { processes: vec!["no-such-program".to_owned()], ..limits() }, &Remembered::default());
    let seen = look(&host.settings);
    assert_eq!(seen.look.disks.len(), 1, "what is not there is left out");
    let disk = &seen.look.disks[0];
    assert!((0.0..=100.0).contains(&disk.percent), "{disk:?}");
    assert!(seen.look.memory.is_none_or(|percent| (0.0..=100.0).contains(&percent)));
    assert_eq!(seen.look.processes.iter().filter(|(_, runs)| *runs).count(), 0);
    assert!(seen.device.name.is_some() && seen.device.is_sensor);
    assert!(seen.device.ips.iter().all(|ip| !ip.is_loopback()));
}

#[test]
fn files_of_the_kernel_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("thermal/thermal_zone0/temp", "41000\n");
    put("thermal/thermal_zone1/temp", "63500\n");
    put("thermal/thermal_zone2/temp", "-274000\n");
    put("thermal/thermal_zone3/temp", "?");
    assert_eq!(temperature(&dir.path().join("thermal")), Some(63.5));
    assert_eq!(temperature(&dir.path().join("nowhere")), None);

    put("net/eth0/address", "00:1B:1b:AA:bb:cc\n");
    put("net/eth0/device/x", "");
    put("net/br0/address", "00:1b:1b:aa:bb:dd\n");
    put("net/odd/address", "00:00:00:00:00:00\n");
    put("net/odd/device/x", "");
    assert_eq!(macs(&dir.path().join("net")), ["00:1b:1b:aa:bb:cc"]);

    put("proc/7/comm", "suricata\n");
    put("proc/self/comm", "not a number\n");
    assert_eq!(running(&dir.path().join("proc")), None, "only our own are to be seen");
    put("proc/1/comm", "systemd\n");
    let running = running(&dir.path().join("proc")).unwrap();
    assert_eq!(running.into_iter().collect::<Vec<_>>(), ["suricata", "systemd"]);
    assert_eq!(comm("a-program-with-a-long-name"), "a-program-with-");

    assert_eq!(synchronised(&dir.path().join("timesync")), None);
    put("timesync/x", "");
    assert_eq!(synchronised(&dir.path().join("timesync")), Some(false));
    put("timesync/synchronized", "");
    assert_eq!(synchronised(&dir.path().join("timesync")), Some(true));
}
