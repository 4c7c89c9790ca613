//! This machine: clock, room and wear of the disk, memory, and the service with its sandbox.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, major, minor, statfs, statvfs};

use super::{Scene, now};
use crate::cli::ask::Asker;
use crate::clock::RELEASED_AT;
use crate::config::look_around;
use crate::control::Question;
use crate::model::{Finding, HealthIssue};
use crate::net::chrony;
use crate::status::Status;
use crate::store::Store;

const MIB: u64 = 1 << 20;
/// Free space below which nothing works.
const SPACE_MIN: u64 = 16 * MIB;
/// Free names of files below which nothing works.
const NAMES_MIN: u64 = 100;
/// Available memory that the service should find: its promise for any fault.
const MEMORY_MIN_KIB: u64 = 64 * 1024;
/// `statfs` of a file system in memory.
const TMPFS: u64 = 0x0102_1994;
/// Where timesyncd says that it has set the clock.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

pub(super) fn all(scene: &Scene<'_>, asker: &Asker) -> Vec<Finding> {
    let mut findings = vec![time()];
    findings.extend(disk(scene));
    findings.push(wear(&scene.config.store.dir, Path::new("/sys/dev/block")));
    findings.push(memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()));
    findings.extend(service(asker));
    findings
}

fn time() -> Finding {
    let now = now();
    if now < RELEASED_AT {
        return Finding::fail(
            "clock",
            format!("it says {} UTC, before this version was released", now.servicenow()),
            "set the clock (timedatectl set-ntp true, or a time server of the plant); nothing is sent before",
        );
    }
    let is_set = Path::new(SYNCHRONISED).exists() || chrony::is_synchronised() == Some(true);
    let by = if is_set { ", set by the network" } else { "" };
    Finding::ok("clock", format!("{} UTC{by}", now.servicenow()))
}

/// The state directory, and the file system below it.
fn disk(scene: &Scene<'_>) -> Vec<Finding> {
    let wrong = look_around(scene.config, scene.service)
        .into_iter()
        .filter(|problem| problem.key == "agent.state_dir");
    let wrong: Vec<Finding> = wrong
        .map(|problem| {
            let hint = problem.hint.map(String::from).unwrap_or_default();
            Finding::fail("state directory", problem.message, hint)
        })
        .collect();
    if !wrong.is_empty() {
        // `config` has said it.
        return Vec::new();
    }
    let dir = there(&scene.config.store.dir);
    let Ok(space) = statvfs(&dir) else {
        return vec![Finding::skipped("disk", format!("{} cannot be looked at", dir.display()))];
    };
    let in_memory = statfs(&dir).is_ok_and(|fs| fs.f_type as u64 == TMPFS);
    let figures = Figures {
        free: space.f_bavail.saturating_mul(space.f_frsize),
        names: (space.f_files > 0).then_some(space.f_favail),
        read_only: space.f_flag.contains(StatVfsMountFlags::RDONLY),
        in_memory,
        wanted: scene.config.store.max_size.saturating_sub(size_of(&scene.config.store.dir)),
    };
    vec![room(&dir, &figures)]
}

/// The directory, or what it will be made in.
fn there(dir: &Path) -> PathBuf {
    dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// What the files of a directory take, in bytes.
fn size_of(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

struct Figures {
    /// Bytes.
    free: u64,
    /// Names of files that can still be made; `None`: the file system has no such limit.
    names: Option<u64>,
    read_only: bool,
    in_memory: bool,
    /// Bytes that the buffer may still take.
    wanted: u64,
}

fn room(dir: &Path, figures: &Figures) -> Finding {
    let dir = dir.display();
    let Figures { free, names, read_only, in_memory, wanted } = *figures;
    let (free_mib, wanted_mib) = (free / MIB, wanted.div_ceil(MIB));
    if read_only {
        let remedy =
            "mount it writable, after a look at why it is not (dmesg; fsck), or name another state_dir";
        return Finding::fail("disk", format!("{dir} is on a file system that is mounted read-only"), remedy);
    }
    if free < SPACE_MIN {
        return Finding::fail("disk", format!("{free_mib} MiB are free at {dir}"), "make room there");
    }
    if names.is_some_and(|names| names < NAMES_MIN) {
        let text = format!("the file system of {dir} has no more room for names of files (`df -i {dir}`)");
        return Finding::fail("disk", text, "delete files there, many small ones above all");
    }
    if in_memory {
        let text = format!("{dir} is in memory (tmpfs): all of it is gone after a power cut");
        return Finding::warn("disk", text, "name a state_dir on a disk");
    }
    let text = format!("{free_mib} MiB are free at {dir}; the buffer may still take {wanted_mib}");
    if free < wanted {
        return Finding::warn("disk", text, "make room there, or lower `max_size` in [buffer]");
    }
    Finding::ok("disk", text)
}

/// What an eMMC says of its life: estimates in tenths, and how many of its spare blocks are gone.
fn wear(dir: &Path, blocks: &Path) -> Finding {
    let skipped = || Finding::skipped("wear", "the disk of the state directory does not tell");
    let Ok(meta) = there(dir).metadata() else { return skipped() };
    let device = blocks.join(format!("{}:{}", major(meta.dev()), minor(meta.dev())));
    let Ok(device) = fs::canonicalize(device) else { return skipped() };
    // A partition is a directory in that of its disk.
    let says = |name: &str| {
        let of = |dir: &Path| fs::read_to_string(dir.join("device").join(name)).ok();
        of(&device).or_else(|| of(device.parent()?))
    };
    let Some(life) = says("life_time") else { return skipped() };
    worn(&life, &says("pre_eol_info").unwrap_or_default())
}

fn worn(life: &str, spare: &str) -> Finding {
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let Some(tenths) = life.split_whitespace().filter_map(number).max() else {
        return Finding::skipped("wear", "the disk of the state directory does not tell");
    };
    let used = if tenths > 10 { "more than all".to_owned() } else { format!("up to {} %", tenths * 10) };
    let text = format!("{used} of the life of the disk is used up, by its own estimate");
    let urgent = number(spare.trim()).is_some_and(|spare| spare >= 2);
    match (tenths, urgent) {
        (11.., _) | (_, true) => {
            Finding::warn("wear", text, "replace the disk or card soon; keep backups (otrelay backup)")
        }
        (9..=10, _) => Finding::warn("wear", text, "plan to replace the disk or card"),
        _ => Finding::ok("wear", text),
    }
}

fn memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()) else {
        return Finding::skipped("memory", "the system does not tell what is available");
    };
    let text = format!("{} MiB are available", kib / 1024);
    if kib < MEMORY_MIN_KIB {
        Finding::warn("memory", text, "free some: the service may need up to 64 MiB")
    } else {
        Finding::ok("memory", text)
    }
}

/// What the service itself has to say, and whether it runs in the sandbox of its unit.
fn service(asker: &Asker) -> Vec<Finding> {
    if !asker.running {
        return vec![Finding::skipped("service", "it does not run")];
    }
    let mut findings = Vec::new();
    match asker.ask::<Status>(&Question::Status) {
        Err(e) => findings.push(Finding::warn(
            "service",
            format!("somebody holds the state directory, and does not answer: {e}"),
            "run this as root or as the user of the service; see `systemctl status otrelay`",
        )),
        Ok(status) => {
            findings.push(Finding::ok("service", status.line()));
            // Sources and holds have checks of their own.
            let others =
                status.health.into_iter().filter(|issue| !["source", "hold"].contains(&issue.code.as_str()));
            findings.extend(others.map(of_service));
        }
    }
    let process =
        Store::holder(&asker.dir).and_then(|id| fs::read_to_string(format!("/proc/{id}/status")).ok());
    findings.push(match process {
        Some(process) => sandbox(&process),
        None => Finding::skipped("sandbox", "the process of the service cannot be looked at"),
    });
    findings
}

/// Where nothing more is taken in, the check fails.
fn of_service(issue: HealthIssue) -> Finding {
    let stops = ["disk-full", "log-full", "buffer-full"].contains(&issue.code.as_str());
    let text = issue.told();
    if stops {
        Finding::fail("service", text, issue.remedy)
    } else {
        Finding::warn("service", text, issue.remedy)
    }
}

/// What `/proc/PID/status` says.
fn sandbox(process: &str) -> Finding {
    let value = |name: &str| {
        let line = process.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let mut open = Vec::new();
    if value("NoNewPrivs") != "1" {
        open.push("it may gain privileges (NoNewPrivileges)");
    }
    if value("Seccomp") != "2" {
        open.push("no system call is barred (SystemCallFilter)");
    }
    if value("CapEff").trim_matches('0').is_empty() {
        if open.is_empty() {
            return Finding::ok("sandbox", "no privileges, few system calls");
        }
    } else {
        open.push("it has capabilities (CapabilityBoundingSet)");
    }
    Finding::warn(
        "sandbox",
        format!("the service does not run in the sandbox of its unit: {}", open.join(", ")),
        "start it by systemd with the packaged unit (`systemctl cat otrelay` shows what drop-ins change)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::State;

    #[test]
    fn a_service_that_takes_nothing_in_fails() {
        let issue = |code: &str| HealthIssue {
            code: code.to_owned(),
            subject: String::new(),
            text: "the buffer is full".to_owned(),
            remedy: "raise it".to_owned(),
        };
        let full = of_service(issue("buffer-full"));
        assert!(full.fails() && full.text.ends_with("(E108)"), "{full:?}");
        assert!(!of_service(issue("devices-share")).fails());
    }

    #[test]
    fn room_is_judged_by_what_the_buffer_may_still_take() {
        let of = |free: u64, names: Option<u64>, wanted: u64| {
            let figures = Figures { free, names, read_only: false, in_memory: false, wanted };
            room(Path::new("/var/lib/otrelay"), &figures)
        };
        assert_eq!(of(4_000 * MIB, None, 2_048 * MIB).state, State::Ok);
        assert_eq!(of(1_000 * MIB, Some(1_000), 2_048 * MIB).state, State::Warn);
        assert_eq!(of(15 * MIB, None, 0).state, State::Fail);
        assert!(of(4_000 * MIB, Some(3), 0).text.contains("df -i /var/lib/otrelay"));
        let figures = Figures { free: 1 << 40, names: None, read_only: true, in_memory: true, wanted: 0 };
        assert!(room(Path::new("/x"), &figures).text.contains("read-only"));
        let figures = Figures { read_only: false, ..figures };
        assert!(room(Path::new("/x"), &figures).text.contains("gone after a power cut"));
    }

    #[test]
    fn wear_is_what_the_card_says() {
        assert_eq!(
            worn("0x01 0x02\n", "0x01\n").text,
            "up to 20 % of the life of the disk is used up, by its own estimate"
        );
        assert_eq!(worn("0x01 0x09", "0x01").state, State::Warn);
        assert_eq!(worn("0x01 0x01", "0x02").state, State::Warn);
        assert!(worn("0x0b 0x01", "").text.starts_with("more than all"));
        assert_eq!(worn("", "").state, State::Skipped);
        assert_eq!(wear(Path::new("/"), Path::new("/nonexistent")).state, State::Skipped);
    }

    #[test]
    fn memory_and_sandbox_are_read_from_the_kernel() {
        assert_eq!(memory("MemTotal: 9 kB\nMemAvailable:   65536 kB\n").state, State::Ok);
        assert_eq!(memory("MemAvailable:   65535 kB\n").state, State::Warn);
        assert_eq!(memory("").state, State::Skipped);
        let good = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert_eq!(sandbox(good).state, State::Ok);
        let bad = sandbox("CapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n");
        for word in ["NoNewPrivileges", "SystemCallFilter", "CapabilityBoundingSet"] {
            assert!(bad.text.contains(word), "{bad:?}");
        }
    }
}
