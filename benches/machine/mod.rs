//! What a bench costs the machine: wall and CPU time, bytes written, commits. From `/proc/self`, so Linux only.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A reading of every counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Instant,
    cpu: Duration,
    /// Bytes given to `write`: what the program wants written.
    wchar: u64,
    /// Bytes sent to the disk: whole pages.
    write_bytes: u64,
    commits: u64,
}

/// What happened between two readings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    pub(crate) wchar: u64,
    pub(crate) write_bytes: u64,
    pub(crate) commits: u64,
}

/// CPU time of this process, all threads, user and system.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Reading {
    #[expect(clippy::disallowed_methods, reason = "benches measure real time")]
    /// Reads them; `database` is an SQLite database in WAL mode that is open.
    pub(crate) fn take(database: &Path) -> Self {
        let io = fs::read_to_string("/proc/self/io").expect("Linux");
        let of = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)).expect("a counter");
            line.trim().parse().expect("a number")
        };
        Self {
            at: Instant::now(),
            cpu: cpu(),
            wchar: of("wchar:"),
            write_bytes: of("write_bytes:"),
            commits: commits(database),
        }
    }

    /// What it cost since.
    pub(crate) fn until(&self, later: &Self) -> Cost {
        Cost {
            wall: later.at - self.at,
            cpu: later.cpu.saturating_sub(self.cpu),
            wchar: later.wchar - self.wchar,
            write_bytes: later.write_bytes - self.write_bytes,
            commits: later.commits.wrapping_sub(self.commits),
        }
    }
}

/// SQLite counts transactions in the head of the WAL's index: four bytes from byte 8.
fn commits(database: &Path) -> u64 {
    let mut name = database.as_os_str().to_owned();
    name.push("-shm");
    let index = fs::read(name).unwrap_or_default();
    index.get(8..12).map_or(0, |count| u64::from(u32::from_ne_bytes(count.try_into().expect("four bytes"))))
}

/// Peak of resident memory in MiB.
pub(crate) fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a counter");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}

/// Words after the bench's options: which parts of it are to run; none: all.
pub(crate) fn wanted() -> impl Fn(&str) -> bool {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    move |part| words.is_empty() || words.iter().any(|word| part.contains(word.as_str()))
}
