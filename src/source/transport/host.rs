//! This machine: its own facts as a device, its conditions as system notifications.
//!
//! Looks once a minute and writes only what has changed. What is raised is a mark in the commit of its alert, so a restart
//! knows what it may clear. The boot that it runs in is a mark too, forgotten by a stop in order: who finds the mark of
//! another boot was not stopped in order, and neither was the machine.
//!
//! What the unit's sandbox hides (memory and load, other users' processes) is not judged; the drop-in `host.conf` shows it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Batch, Reading, Sighting, Source, SourceError, host};
use super::send;
use crate::clock::SharedClock;
use crate::heartbeat::Heartbeat;
use crate::model::alert::{AlertState, TITLE_MAX};
use crate::model::cursor::{Mark, Remembered};
use crate::model::text::{clip, one_line};
use crate::model::{Alert, Cursor, Device, Identity, Severity, SourceName};
use crate::net::chrony;
use crate::source::format;
use crate::source::format::host::{Change, Conditions, Disk, Limits, Look};

/// First part of the mark of a condition that is raised.
const RAISED: &str = "raised/";
/// Its value, where it was raised as critical.
const CRITICAL: &str = "critical";
/// The mark of the boot that it runs in.
const BOOT: &str = "boot";
/// How long a power cut is told as one.
const POWER_CUT_FOR: Duration = Duration::from_hours(1);
/// How often the machine is told as a device where nothing has changed.
const DEVICE_EVERY: Duration = Duration::from_hours(24);
/// Longest small file that is read, in bytes.
const FILE_MAX: u64 = 4096;
/// Most processes that are looked at.
const PROCESSES_MAX: usize = 32 * 1024;
/// Most temperature sensors and network cards.
const PARTS_MAX: usize = 64;

/// What it looks at, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whose facts they are, as of any record.
    pub of: format::Settings,
    /// Time between two looks.
    pub interval: Duration,
    /// Limits.
    pub limits: Limits,
    /// Paths on the file systems that are watched.
    pub disks: Vec<String>,
}

/// This machine, as a [`Source`].
pub struct Host {
    name: SourceName,
    kind: &'static str,
    settings: Settings,
    reading: Reading,
    clock: SharedClock,
    heartbeat: Heartbeat,
    conditions: Conditions,
    /// The boot that an earlier process ran in, and did not end in order.
    left: Option<String>,
    began: Instant,
    told: Option<(Instant, Device)>,
    trouble: Option<String>,
}

impl Host {
    /// With what is remembered.
    pub fn new(
        (name, kind): (SourceName, &'static str),
        settings: Settings,
        reading: Reading,
        remembered: &Remembered,
        clock: SharedClock,
        heartbeat: Heartbeat,
    ) -> Self {
        let raised = remembered.marks().filter_map(|mark| {
            let key = mark.name.strip_prefix(RAISED)?;
            // Up to 0.3.0 no mark said so; a program that is gone always was.
            Some((key.to_owned(), mark.value == CRITICAL || key.starts_with("process:")))
        });
        Self {
            name,
            kind,
            settings,
            reading,
            clock,
            heartbeat,
            conditions: Conditions::new(raised),
            left: remembered.mark(BOOT).map(ToOwned::to_owned),
            began: Instant::now(),
            told: None,
            trouble: None,
        }
    }

    /// What is to be told of a look; `None`: nothing is new.
    fn batch(&mut self, seen: &Seen, boot: Option<&str>) -> Option<Batch> {
        let mut look = seen.look.clone();
        look.power_cut = self.began.elapsed() < POWER_CUT_FOR && is_other_boot(self.left.as_deref(), boot);
        let mut batch = Batch::new(self.name.clone(), self.kind);
        for change in self.conditions.judge(&look, &self.settings.limits, &self.settings.disks) {
            let value = if change.is_critical { CRITICAL } else { "raised" };
            let mark = Mark { name: format!("{RAISED}{}", change.key), value: value.to_owned() };
            let list = if change.raised { &mut batch.cursors } else { &mut batch.finished };
            list.push(Cursor::Mark(mark));
            batch.sightings.push(self.sighting(change));
        }
        let is_told =
            |(at, device): &(Instant, Device)| at.elapsed() < DEVICE_EVERY && *device == seen.device;
        let first = self.told.is_none();
        if !self.told.as_ref().is_some_and(is_told) {
            self.told = Some((Instant::now(), seen.device.clone()));
            let now = Some(self.clock.now());
            batch.devices.push(Device { last_seen: now, ..self.placed(seen.device.clone()) });
        }
        if let Some(boot) = boot.filter(|_| first && self.reading == Reading::Follow) {
            batch.cursors.push(Cursor::Mark(Mark { name: BOOT.to_owned(), value: boot.to_owned() }));
        }
        let is_news = batch.lines() > 0 || !batch.devices.is_empty() || self.trouble != seen.trouble;
        self.trouble.clone_from(&seen.trouble);
        batch.trouble.clone_from(&seen.trouble);
        is_news.then_some(batch)
    }

    fn placed(&self, device: Device) -> Device {
        let of = &self.settings.of;
        let mut device = Device { id: Some(of.agent.clone()), ..device };
        of.place(&mut device);
        device
    }

    fn sighting(&self, change: Change) -> Sighting {
        let of = &self.settings.of;
        let fingerprint = of.fingerprint(&Identity::Own(&change.key));
        let title = format!("{}: {}", of.sensor, change.title);
        let alert = Alert {
            title: clip(&one_line(&title), TITLE_MAX).into_owned(),
            message: change.message,
            severity: if change.is_critical { Severity::Critical } else { Severity::Major },
            site: of.site.clone(),
            zone: of.zone.clone(),
            state: if change.raised { AlertState::Raised } else { AlertState::Cleared },
            ..Alert::notification(&change.key, &of.sensor, self.clock.now())
        };
        Sighting { alert, fingerprint, backlog: false, again: false }
    }
}

impl Source for Host {
    async fn run(mut self, out: mpsc::Sender<Batch>, stop: CancellationToken) -> Result<(), SourceError> {
        let (name, boot) = (self.name.clone(), boot());
        while !stop.is_cancelled() {
            self.heartbeat.busy();
            let settings = self.settings.clone();
            let seen = spawn_blocking(move || look(&settings))
                .await
                .map_err(|error| SourceError::Reader(name.clone(), error))?;
            let batch = self.batch(&seen, boot.as_deref());
            self.heartbeat.idle();
            if let Some(batch) = batch
                && !send(&out, batch, &name, &stop).await?
            {
                return Ok(());
            }
            if self.reading == Reading::Once {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(self.settings.interval) => {}
            }
        }
        // It ends in order: the next start finds no boot that was cut off.
        let mut batch = Batch::new(name.clone(), self.kind);
        batch.finished.push(Cursor::Mark(Mark { name: BOOT.to_owned(), value: String::new() }));
        batch.trouble = self.trouble;
        send(&out, batch, &name, &stop).await?;
        Ok(())
    }
}

/// Whether an earlier process was cut off in another boot.
fn is_other_boot(left: Option<&str>, now: Option<&str>) -> bool {
    matches!((left, now), (Some(left), Some(now)) if left != now)
}

struct Seen {
    look: Look,
    device: Device,
    trouble: Option<String>,
}

/// Looks at everything. Blocking, and short.
fn look(settings: &Settings) -> Seen {
    let system = System::new_with_specifics(
        RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()),
    );
    let memory = system.ok().map(|system| (system.total_memory(), system.available_memory()));
    let used = |(total, left): (u64, u64)| total.saturating_sub(left) as f64 / total as f64 * 100.0;
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let has_load = Path::new("/proc/loadavg").exists();
    let running = if settings.limits.processes.is_empty() { None } else { running(Path::new("/proc")) };
    let unseen = !settings.limits.processes.is_empty() && running.is_none();
    let processes = (settings.limits.processes.iter())
        .filter_map(|name| Some((name.clone(), running.as_ref()?.contains(comm(name)))));
    let look = Look {
        disks: settings.disks.iter().filter_map(|path| disk(path)).collect(),
        memory: memory.filter(|(total, _)| *total > 0).map(used),
        load: System::load_average().ok().filter(|_| has_load).map(|load| load.fifteen / cores),
        temperature: temperature(Path::new("/sys/class/thermal")),
        synchronised: synchronised(Path::new("/run/systemd/timesync")).or_else(chrony::is_synchronised),
        processes: processes.collect(),
        power_cut: false,
    };
    let trouble = unseen.then(|| {
        "other users' processes cannot be seen from the sandbox of this service, so `process` says nothing; put the drop-in \
         host.conf in place"
            .to_owned()
    });
    Seen { look, device: device(), trouble }
}

fn disk(path: &str) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    // Of what everybody may use: the rest is root's.
    let usable =
        (stat.f_blocks.checked_sub(stat.f_bfree)?).checked_add(stat.f_bavail).filter(|all| *all > 0)?;
    let percent = (usable - stat.f_bavail) as f64 / usable as f64 * 100.0;
    Some(Disk { path: path.to_owned(), percent, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

fn temperature(zones: &Path) -> Option<f64> {
    let zones = fs::read_dir(zones).ok()?.filter_map(Result::ok).take(PARTS_MAX);
    let degrees = zones.filter_map(|zone| small(&zone.path().join("temp"))?.trim().parse::<i32>().ok());
    // What is far beyond any chip is a sensor that is not there.
    degrees.filter(|milli| (-50_000..200_000).contains(milli)).max().map(|milli| f64::from(milli) / 1000.0)
}

/// Whether systemd's time client has the time. Chrony is asked; others leave no word that an unprivileged program could
/// read.
fn synchronised(client: &Path) -> Option<bool> {
    client.is_dir().then(|| client.join("synchronized").exists())
}

/// Names of all processes; `None`: only our own can be seen.
fn running(proc: &Path) -> Option<BTreeSet<String>> {
    small(&proc.join("1/comm"))?;
    let all = fs::read_dir(proc).ok()?.filter_map(Result::ok);
    let processes =
        all.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let names = processes.take(PROCESSES_MAX).filter_map(|entry| small(&entry.path().join("comm")));
    Some(names.map(|name| name.trim_end().to_owned()).collect())
}

/// As the kernel keeps a name: its first 15 bytes.
fn comm(name: &str) -> &str {
    let end = (0..=15).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or(name)
}

/// What is one and the same from the start of the machine to its end.
fn boot() -> Option<String> {
    if let Some(id) = small(Path::new("/proc/sys/kernel/random/boot_id")) {
        return Some(id.trim().to_owned());
    }
    // In the sandbox: when the file system of /run was made.
    let made = fs::metadata("/run/systemd").ok()?;
    let at = made.created().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{}-{}", made.dev(), at.as_micros()))
}

fn device() -> Device {
    let text = |path: &str| {
        let text = small(Path::new(path))?;
        let text = one_line(text.trim().trim_end_matches('\0')).into_owned();
        (!text.is_empty()).then(|| clip(&text, crate::model::device::ATTRIBUTE_MAX).into_owned())
    };
    let system =
        [System::long_os_version(), System::kernel_version().map(|kernel| format!("Linux {kernel}"))];
    let system: Vec<String> = system.into_iter().flatten().collect();
    Device {
        name: Some(host::name()),
        ips: addresses(),
        macs: macs(Path::new("/sys/class/net")),
        macs_are_own: true,
        kind: Some("Sensor".to_owned()),
        vendor: text("/sys/class/dmi/id/sys_vendor"),
        model: text("/sys/class/dmi/id/product_name").or_else(|| text("/proc/device-tree/model")),
        serial: text("/sys/class/dmi/id/product_serial").or_else(|| text("/proc/device-tree/serial-number")),
        operating_system: (!system.is_empty()).then(|| system.join(", ")),
        is_sensor: true,
        extra: vec![("otrelay_version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())],
        ..Device::default()
    }
}

/// The addresses that it sends from. The kernel says them when a socket is given a direction; no packet leaves.
fn addresses() -> Vec<IpAddr> {
    let from = |bind: &str, to: &str| {
        let socket = UdpSocket::bind((bind, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let all = [from("0.0.0.0", "192.0.2.1"), from("::", "2001:db8::1")];
    all.into_iter().flatten().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).collect()
}

/// Of network cards that are things, not of bridges and tunnels.
fn macs(net: &Path) -> Vec<String> {
    let Ok(cards) = fs::read_dir(net) else { return Vec::new() };
    let cards = cards.filter_map(Result::ok).filter(|card| card.path().join("device").exists());
    let mut all: Vec<String> = cards
        .take(PARTS_MAX)
        .filter_map(|card| small(&card.path().join("address")))
        .map(|mac| mac.trim().to_lowercase())
        .filter(|mac| mac.len() == 17 && mac != "00:00:00:00:00:00")
        .collect();
    all.sort();
    all.dedup();
    all
}

/// A small text of the kernel's.
fn small(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests;
