//! Tests of packed files: what is read of them, once, across restarts, and what is refused.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;

use tokio::time::Instant;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::model::{Cursor, FileCursor, SourceName};
use crate::source::Own;
use crate::source::Reading;
use crate::source::format;
use crate::source::format::alert_json::AlertJson;
use crate::source::transport::tail::unpacked::tests::zstd;
use crate::source::transport::tail::{Settings, Tail};

/// A directory, and what the store would have of a source over it.
struct Bench {
    dir: tempfile::TempDir,
    cursors: Vec<FileCursor>,
    mark: Option<String>,
    read_before: bool,
    titles: Vec<String>,
    rejects: Vec<String>,
}

fn gzip(text: &str) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

fn lines(range: std::ops::Range<usize>) -> String {
    let line = |number| format!("{{\"title\":\"{number}\"}}\n");
    range.map(line).collect::<Vec<_>>().concat()
}

fn titles(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            cursors: Vec::new(),
            mark: None,
            read_before: false,
            titles: Vec::new(),
            rejects: Vec::new(),
        }
    }

    /// A file that is `age` seconds old.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>, age: u64) {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let now = file.metadata().unwrap().modified().unwrap();
        file.set_modified(now - std::time::Duration::from_secs(age)).unwrap();
    }

    /// A process that ends after so many batches; how many it made.
    fn run(&mut self, batches: usize) -> usize {
        let name = SourceName::new("files").unwrap();
        let format = AlertJson::new(format::Settings::new("a", "s", name.clone()));
        let settings = Settings {
            name,
            kind: "json-lines",
            pattern: format!("{}/a*.jsonl", self.dir.path().display()),
            format: Reads::new(format),
            reading: Reading::Once,
            cursors: self.cursors.clone(),
            read_before: self.read_before,
            again: None,
        };
        let mut tail = Tail::new(settings, Arc::new(SystemClock)).unpacking(self.mark.as_deref());
        for made in 0..batches {
            let turn = tail.turn(Instant::now());
            if let Some(batch) = turn.batch {
                self.keep(batch);
            }
            if !turn.more {
                if let Some(last) = tail.last(Instant::now()) {
                    self.keep(last);
                }
                return made + 1;
            }
        }
        batches
    }

    fn keep(&mut self, batch: Batch) {
        self.read_before = true;
        self.titles.extend(batch.sightings.iter().map(|sighting| sighting.alert.title.clone()));
        self.rejects.extend(batch.rejects.iter().map(|reject| reject.detail.clone()));
        for cursor in batch.cursors {
            match cursor {
                Cursor::Mark(mark) => self.mark = Some(mark.value),
                Cursor::File(file) => {
                    self.cursors.retain(|known| known.inode != file.inode);
                    self.cursors.push(file);
                }
            }
        }
        for cursor in batch.finished {
            if let Cursor::Mark(_) = cursor {
                self.mark = None;
            }
        }
    }
}

#[test]
fn oldest_first_and_once() {
    let mut bench = Bench::new();
    bench.file("a.jsonl.1.gz", gzip(&lines(10..20)), 100);
    bench.file("a.jsonl.2.gz", [gzip(&lines(0..5)), gzip(&lines(5..10))].concat(), 200);
    bench.file("a-2026.jsonl.GZ", gzip(&lines(20..25)), 50);
    bench.file("a.jsonl-20261101.zst", zstd(lines(25..30).as_bytes()), 40);
    bench.file("b.jsonl.1.gz", gzip(&lines(90..99)), 50);
    bench.file("a.jsonl", lines(30..40), 0);
    bench.run(10);
    assert_eq!((&bench.titles, &bench.mark), (&titles(0..40), &None));
    bench.run(10);
    assert_eq!(bench.titles.len(), 40, "only when it is first met");
    bench.file("a.jsonl.3.gz", gzip(&lines(10..20)), 0);
    bench.run(10);
    bench.file("a.jsonl.5.zst", zstd(lines(25..30).as_bytes()), 0);
    bench.run(10);
    assert_eq!((bench.titles.len(), bench.rejects.len()), (40, 0), "copies of what was read");
    // Packed later, and nobody read it.
    bench.file("a.jsonl.4.gz", gzip(&lines(40..50)), 0);
    bench.run(10);
    assert_eq!((&bench.titles, bench.rejects.len()), (&titles(0..50), 0));
}

#[test]
fn a_restart_goes_on_in_the_middle() {
    let mut bench = Bench::new();
    bench.file("a.jsonl.2.gz", gzip(&lines(0..1_300)), 200);
    bench.file("a.jsonl.1.gz", gzip(&lines(1_300..2_000)), 100);
    let mut runs = 0;
    while bench.titles.len() < 2_000 {
        bench.run(1);
        runs += 1;
        assert!(runs < 10, "{} alerts, {:?}", bench.titles.len(), bench.mark);
    }
    assert!(runs > 2, "a batch is smaller than that");
    bench.run(10);
    assert!(bench.titles == titles(0..2_000), "{} alerts", bench.titles.len());
    assert_eq!(bench.mark, None);
}

#[test]
fn what_is_no_gzip_or_is_cut_is_one_reject() {
    let mut bench = Bench::new();
    bench.file("a.jsonl.3.gz", "no gzip", 300);
    let whole = gzip(&lines(0..1_000));
    bench.file("a.jsonl.2.gz", &whole[..whole.len() / 2], 200);
    bench.file("a.jsonl.1.gz", gzip(&lines(1_000..1_003)), 100);
    bench.run(10);
    assert_eq!(bench.rejects.len(), 2, "{:?}", bench.rejects);
    assert!(bench.rejects[0].contains("a.jsonl.3.gz, byte 0 unpacked"), "{:?}", bench.rejects);
    assert!(bench.titles.len() > 100 && bench.titles.ends_with(&titles(1_000..1_003)));
    assert!(bench.titles.iter().take(100).eq(titles(0..100).iter()), "what was whole of it is taken");
}

#[test]
fn a_line_without_end_costs_no_memory_and_one_reject() {
    let mut bench = Bench::new();
    let long = "x".repeat(file::LINE_MAX + 10);
    bench.file("a.jsonl.1.gz", gzip(&format!("{}{long}\n{}", lines(0..1), lines(1..2))), 100);
    bench.run(10);
    assert_eq!(bench.titles, titles(0..2));
    assert!(bench.rejects[0].contains("a line of 1048587 bytes"), "{:?}", bench.rejects);
}

#[test]
fn marks_that_are_none_are_no_reason_to_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.gz"), gzip("x")).unwrap();
    let pattern = format!("{}/*", dir.path().display());
    let now = ManualClock::at(Timestamp::from_secs(4_000_000_000));
    let now = crate::clock::Clock::now(&*now);
    assert!(Packed::find(&pattern, Some("nonsense"), &Own::default().ids(), now).is_none());
    assert!(Packed::find(&pattern, Some("0"), &Own::default().ids(), now).is_none(), "it came later");
    assert!(
        Packed::find(&pattern, Some("4000000000 1 2 3"), &Own::default().ids(), now).is_none(),
        "the file is gone"
    );
    assert!(Packed::find(&pattern, None, &Own::default().ids(), now).is_some());
}
