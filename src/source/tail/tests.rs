use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

/// A directory, a tail over it, and everything that the tail handed out.
struct Bench {
    dir: tempfile::TempDir,
    pattern: String,
    tail: Tail,
    now: Instant,
    /// Numbers of the alerts, in the order in which they came.
    got: Vec<u64>,
    backlog: Vec<u64>,
    /// As the store would have them.
    cursors: Vec<FileCursor>,
    counts: [u64; 4],
    details: Vec<String>,
    lines: u64,
    trouble: Option<String>,
    batches: usize,
}

fn settings(dir: &Path, pattern: &str, cursors: Vec<FileCursor>, read_before: bool) -> Settings {
    let name = SourceName::new("eve").unwrap();
    Settings {
        name: name.clone(),
        pattern: format!("{}/{pattern}", dir.display()),
        eve: eve::Settings {
            agent: "line4".to_owned(),
            source: name,
            site: None,
            zone: None,
            severity_map: std::collections::BTreeMap::new(),
            engine_map: std::collections::BTreeMap::new(),
            signature_severity: true,
            time_zone: jiff::tz::TimeZone::UTC,
        },
        reading: Reading::Follow,
        cursors,
        read_before,
    }
}

/// The alert with this number, with its line end.
fn line(number: u64) -> String {
    format!(
        "{{\"timestamp\":\"2023-09-18T06:13:41.{number:06}+0000\",\"event_type\":\"alert\",\"src_ip\":\"10.0.0.1\",\"alert\":{{\"signature_id\":{number},\"signature\":\"s\"}}}}\n"
    )
}

fn lines(numbers: impl IntoIterator<Item = u64>) -> String {
    numbers.into_iter().map(line).collect()
}

impl Bench {
    fn new(pattern: &str) -> Self {
        Self::with(pattern, |_| ())
    }

    /// With files that are there before the tail.
    fn with(pattern: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let tail = Tail::new(settings(dir.path(), pattern, Vec::new(), false), ManualClock::at(NOW));
        Self {
            dir,
            pattern: pattern.to_owned(),
            tail,
            now: Instant::now(),
            got: Vec::new(),
            backlog: Vec::new(),
            cursors: Vec::new(),
            counts: [0; 4],
            details: Vec::new(),
            lines: 0,
            trouble: None,
            batches: 0,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn keep(&mut self, batch: Batch) {
        self.batches += 1;
        for gone in &batch.finished {
            self.cursors.retain(|kept| (kept.device, kept.inode) != (gone.device, gone.inode));
        }
        for cursor in &batch.cursors {
            self.cursors.retain(|kept| (kept.device, kept.inode) != (cursor.device, cursor.inode));
            self.cursors.push(cursor.clone());
        }
        for sighting in &batch.sightings {
            let number = sighting.alert.references[0].split(':').nth(2).unwrap().parse().unwrap();
            self.got.push(number);
            if sighting.backlog {
                self.backlog.push(number);
            }
        }
        for (all, new) in self.counts.iter_mut().zip(batch.reject_counts) {
            *all += new;
        }
        self.details.extend(batch.rejects.iter().map(|reject| reject.detail.clone()));
        self.lines += batch.lines;
        self.trouble = batch.trouble;
    }

    /// Turns until nothing is left, `secs` seconds after the last time.
    fn poll_after(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        loop {
            let turn = self.tail.turn(self.now);
            if let Some(batch) = turn.batch {
                self.keep(batch);
            }
            if !turn.more {
                break;
            }
        }
    }

    fn poll(&mut self) {
        self.poll_after(1);
    }

    /// A stop that hands out its last cursors, and a start with what the store has.
    fn restart(&mut self) {
        if let Some(batch) = self.tail.last(self.now) {
            self.keep(batch);
        }
        self.crash();
    }

    /// A stop that does not.
    fn crash(&mut self) {
        let settings = settings(self.dir.path(), &self.pattern, self.cursors.clone(), true);
        self.tail = Tail::new(settings, ManualClock::at(NOW));
    }

    fn check(&self, expected: impl IntoIterator<Item = u64>) {
        assert_eq!(self.got, expected.into_iter().collect::<Vec<_>>(), "{:?}", self.details);
    }

    fn lost(&self) -> u64 {
        self.counts[RejectReason::Lost as usize]
    }
}

#[test]
fn a_growing_file() {
    let mut bench = Bench::new("eve*.json");
    bench.poll();
    assert!(bench.trouble.as_ref().unwrap().starts_with("no file matches"));
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    assert_eq!(bench.trouble, None);
    let text = line(3);
    bench.append("eve.json", &text[..20]);
    bench.poll();
    bench.check(0..3);
    bench.append("eve.json", &text[20..text.len() - 1]);
    bench.poll();
    bench.check(0..3);
    bench.append("eve.json", "\n\n\r\n");
    bench.append("eve.json", &line(4).replace('\n', "\r\n"));
    bench.poll();
    bench.check(0..5);
    assert_eq!((bench.counts, bench.lines), ([0; 4], 7));
}
