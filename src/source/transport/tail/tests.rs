//! Tests of the tail on real files: growth, rotation by rename and by copy, gaps, restarts.

mod archive;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;
use crate::source::SIGHTINGS_MAX;
use crate::source::format::Apart;
use crate::source::format::eve::{self, Eve};

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
    counts: crate::source::RejectCounts,
    details: Vec<String>,
    lines: u64,
    trouble: Option<String>,
    batches: usize,
}

fn settings(dir: &Path, pattern: &str, cursors: Vec<FileCursor>, read_before: bool) -> Settings {
    let name = SourceName::new("eve").unwrap();
    Settings {
        name: name.clone(),
        kind: "suricata-eve",
        pattern: format!("{}/{pattern}", dir.display()),
        format: Reads::new(Eve::new(eve::Settings {
            common: crate::source::format::Settings::new("line4", "line4", name),
            apart: Apart::default(),
            signature_severity: true,
            time_zone: jiff::tz::TimeZone::UTC,
        })),
        reading: Reading::Follow,
        cursors,
        read_before,
        again: None,
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

/// A tail gives no other cursors.
fn files(cursors: &[Cursor]) -> impl Iterator<Item = &FileCursor> {
    cursors.iter().map(|cursor| match cursor {
        Cursor::File(file) => file,
        Cursor::Mark(mark) => panic!("{mark:?}"),
    })
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
            counts: crate::source::RejectCounts::default(),
            details: Vec::new(),
            lines: 0,
            trouble: None,
            batches: 0,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn keep(&mut self, batch: Batch) {
        self.batches += 1;
        for gone in files(&batch.finished) {
            self.cursors.retain(|kept| (kept.device, kept.inode) != (gone.device, gone.inode));
        }
        for cursor in files(&batch.cursors) {
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
        self.lines += batch.lines();
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

    /// As `run --once` reads.
    fn once(&mut self) {
        let mut settings = settings(self.dir.path(), &self.pattern, self.cursors.clone(), true);
        settings.reading = Reading::Once;
        self.tail = Tail::new(settings, ManualClock::at(NOW));
        self.poll();
        if let Some(batch) = self.tail.last(self.now) {
            self.keep(batch);
        }
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
    assert_eq!(
        (bench.counts, bench.lines),
        (crate::source::RejectCounts::default(), 5),
        "empty lines are no records"
    );
}

#[test]
fn what_lies_there_and_is_not_read_is_told() {
    let heartbeats = crate::heartbeat::Heartbeats::default();
    let mut bench = Bench::new("eve*.json");
    bench.tail.heartbeat = heartbeats.of("source eve", Duration::ZERO);
    let behind = || heartbeats.behind()["source eve"];
    bench.append("eve.json", &(lines(0..3) + "{\"half"));
    bench.poll();
    assert_eq!(behind(), 6);
    let noise = "{\"event_type\":\"flow\"}\n".repeat(1_000_000);
    bench.append("eve-2.json", &noise);
    bench.now += Duration::from_secs(1);
    assert!(bench.tail.turn(bench.now).more);
    assert!(behind() > noise.len() as u64 / 2, "{}", behind());
    bench.poll();
    assert_eq!(behind(), 6);
}

#[test]
fn renamed_and_still_written_to() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json.1", &line(3));
    bench.poll();
    bench.append("eve.json", &line(10));
    bench.append("eve.json.1", &line(4));
    bench.poll();
    bench.check([0, 1, 2, 3, 4, 10]);
    assert_eq!(bench.cursors.len(), 2);
    // Quiet for five seconds with a successor: it is let go, and remembered as read to its end.
    bench.poll_after(4);
    assert_eq!(bench.tail.watch.files.len(), 2);
    bench.poll_after(2);
    assert_eq!(bench.tail.watch.files.len(), 1);
    bench.poll_after(10);
    assert_eq!(bench.cursors.iter().filter(|cursor| cursor.complete).count(), 1);
    fs::remove_file(bench.path("eve.json.1")).unwrap();
    bench.poll();
    assert_eq!(bench.cursors.len(), 1, "what is gone is forgotten");
    bench.append("eve.json", &line(11));
    bench.poll();
    bench.check([0, 1, 2, 3, 4, 10, 11]);
    assert_eq!(bench.counts, crate::source::RejectCounts::default());
}

#[test]
fn moved_without_a_successor_is_read_on() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &line(0));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("old.json")).unwrap();
    bench.poll_after(60);
    bench.append("old.json", &line(1));
    bench.poll();
    bench.check([0, 1]);
}

#[test]
fn a_rotated_file_that_ends_in_half_a_line_is_told() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &(line(0) + "{\"half"));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", &line(1));
    bench.poll();
    bench.poll_after(6);
    bench.check([0, 1]);
    assert_eq!(bench.counts[RejectReason::Malformed as usize], 1);
    bench.poll_after(20);
    assert_eq!(bench.counts.iter().sum::<u64>(), 1);
}

#[test]
fn a_whole_last_line_without_its_end_is_taken_when_nothing_more_can_come() {
    let whole = line(1).trim_end().to_owned();
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &(line(0) + &whole));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", &line(2));
    bench.poll();
    bench.poll_after(6);
    bench.check([0, 2, 1]);
    // A reading that ends takes it as well, once; what is not whole waits for its end.
    bench.append("eve.json", line(3).trim_end());
    bench.once();
    bench.check([0, 2, 1, 3]);
    bench.once();
    bench.append("eve.json", "\n{\"half");
    bench.once();
    bench.check([0, 2, 1, 3]);
    assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
}

#[test]
fn a_hole_of_zeros_before_a_record_is_no_part_of_it_whatever_its_size() {
    let mut bench = Bench::new("eve*.json");
    for (name, size) in [("eve-1.json", 100), ("eve-2.json", 20_000_000), ("eve-3.json", 1 << 40)] {
        let file = File::create(bench.path(name)).unwrap();
        file.write_all_at(&[0; 100], 0).unwrap();
        file.write_all_at(lines([size, size + 1]).as_bytes(), size).unwrap();
    }
    let file = File::create(bench.path("eve-4.json")).unwrap();
    file.set_len(1 << 43).unwrap();
    bench.poll();
    bench.got.sort_unstable();
    bench.check([100, 101, 20_000_000, 20_000_001, 1 << 40, (1 << 40) + 1]);
    assert_eq!(bench.counts, [0; 6]);
}

#[test]
fn a_line_torn_by_a_power_cut_costs_only_the_torn_piece() {
    let mut bench = Bench::new("eve.json");
    let torn = &line(9)[..60];
    bench.append("eve.json", &(torn.to_owned() + &line(0)));
    bench.append("eve.json", &(torn.to_owned() + &"\0".repeat(64) + &line(1)));
    bench.append("eve.json", &(line(2).trim_end().to_owned() + &line(3)));
    bench.append("eve.json", &(torn.to_owned() + torn + line(4).trim_end() + torn + "\n"));
    bench.poll();
    bench.check(0..5);
    assert_eq!(bench.counts, [5, 0, 0, 0, 0, 0], "{:?}", bench.details);
}

#[test]
fn a_file_with_much_to_read_does_not_starve_another() {
    let mut bench = Bench::new("eve*.json");
    let noise = "{\"event_type\":\"flow\"}\n".repeat(1_500_000);
    bench.append("eve-1.json", &noise);
    bench.append("eve-2.json", &line(1));
    let turn = bench.tail.turn(bench.now);
    assert!(turn.more);
    bench.keep(turn.batch.unwrap());
    bench.check([1]);
}

#[test]
fn generations_that_nobody_saw_are_read_after_two_rotations() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &line(0));
    bench.poll();
    bench.append("eve.json", &line(1));
    fs::rename(bench.path("eve.json"), bench.path("eve.json.2")).unwrap();
    bench.append("eve.json.1", &line(2));
    // Whatever the clock said when it was written.
    let file = OpenOptions::new().append(true).open(bench.path("eve.json.1")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000)).unwrap();
    bench.append("eve.json", &line(3));
    bench.restart();
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..4);
    bench.restart();
    bench.poll_after(700);
    bench.check(0..4);
    assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
}

#[test]
fn a_generation_that_was_born_and_renamed_between_two_looks_is_read() {
    for restarted in [true, false] {
        let mut bench = Bench::new("eve*.json");
        bench.append("eve.json", &line(0));
        bench.poll();
        // The sensor goes on under a new name, and logrotate takes that at once.
        bench.append("eve-new-2.json", &lines(1..4));
        fs::rename(bench.path("eve-new-2.json"), bench.path("eve-new-2.json.1")).unwrap();
        if restarted {
            bench.crash();
        }
        bench.append("eve-new-2.json.1", &line(4));
        bench.poll();
        bench.append("eve-new-2.json", &line(5));
        bench.poll();
        bench.poll_after(700);
        bench.check(0..6);
        bench.crash();
        bench.poll();
        bench.check(0..6);
        assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
    }
}

#[test]
fn generations_that_a_first_read_finds_are_backlog() {
    let mut bench = Bench::with("eve.json", |dir| {
        fs::write(dir.join("eve.json"), line(1)).unwrap();
        fs::write(dir.join("eve.json.1"), line(0)).unwrap();
        fs::write(dir.join("eve.json.bak"), line(9)).unwrap();
    });
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..2);
    assert_eq!(bench.backlog.len(), 2);
}

#[test]
fn a_generation_that_was_read_is_known_as_long_as_it_is_there() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..9));
    bench.poll();
    for generation in 1..4 {
        for old in (1..generation).rev() {
            let (from, to) = (format!("eve.json.{old}"), format!("eve.json.{}", old + 1));
            fs::rename(bench.path(&from), bench.path(&to)).unwrap();
        }
        fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
        bench.append("eve.json", &lines(generation * 9..generation * 9 + 9));
        bench.poll();
        bench.poll_after(6);
    }
    bench.check(0..36);
    bench.poll_after(11);
    assert_eq!(bench.cursors.iter().filter(|cursor| cursor.complete).count(), 3, "{:?}", bench.cursors);
    // While it is down the oldest one goes, another is put back from a copy; a late line comes.
    fs::remove_file(bench.path("eve.json.3")).unwrap();
    fs::copy(bench.path("eve.json.2"), bench.path("eve.json.4")).unwrap();
    bench.append("eve.json.1", &line(36));
    bench.crash();
    bench.poll();
    bench.check(0..37);
    assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
    assert_eq!(bench.cursors.len(), 3, "{:?}", bench.cursors);
    // The inode of one that is gone becomes another file: nothing is lost.
    bench.poll_after(6);
    bench.poll_after(11);
    fs::write(bench.path("eve.json.1"), lines(40..80)).unwrap();
    bench.crash();
    bench.poll();
    bench.check((0..37).chain(40..80));
    assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
}

#[test]
fn a_cut_line_of_a_generation_is_counted_once() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &(line(0) + line(1).trim_end()));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("eve.json.2")).unwrap();
    bench.append("eve.json", &(line(2) + "{\"half"));
    bench.poll();
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", &line(3));
    for _ in 0..3 {
        bench.poll();
        bench.poll_after(6);
        bench.poll_after(11);
        bench.restart();
    }
    bench.got.sort_unstable();
    bench.check(0..4);
    assert_eq!(bench.counts, [1, 0, 0, 0, 0, 0], "{:?}", bench.details);
}

#[test]
fn of_too_many_files_the_newest_are_read_first_and_the_others_after_them() {
    let mut bench = Bench::with("eve*.json", |dir| {
        for number in 0..70 {
            fs::write(dir.join(format!("eve-{number}.json")), "x".repeat(1 + number % 3)).unwrap();
        }
        fs::write(dir.join("eve.json"), line(1)).unwrap();
        fs::write(dir.join("eve-old.json"), line(0)).unwrap();
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let secs = ["eve-old.json", "", "eve.json"]
                .iter()
                .position(|name| entry.file_name() == *name)
                .unwrap_or(1);
            let file = OpenOptions::new().append(true).open(entry.path()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(secs as u64)).unwrap();
        }
    });
    bench.tail.watch.max = 20;
    let turn = bench.tail.turn(bench.now);
    bench.keep(turn.batch.unwrap());
    bench.check([1]);
    assert!(bench.trouble.as_ref().unwrap().contains("are not read yet"), "{:?}", bench.trouble);
    bench.poll();
    bench.poll();
    bench.check([1, 0]);
    assert_eq!(bench.backlog.len(), 2);
    // Rotated, the sensor's own file is not left out, and a settled one is read on.
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", &line(2));
    bench.append("eve-old.json", &line(3));
    bench.poll();
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..4);
}

#[test]
fn copied_and_truncated() {
    // The copy is seen by the pattern, or only lies beside the file.
    for copy in ["eve-copy.json", "eve.json.1"] {
        let mut bench = Bench::new("eve*.json");
        bench.append("eve.json", &lines(0..5));
        bench.poll();
        bench.append("eve.json", &lines(5..8));
        fs::copy(bench.path("eve.json"), bench.path(copy)).unwrap();
        OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap().set_len(0).unwrap();
        bench.append("eve.json", &lines(8..10));
        bench.poll();
        bench.append("eve.json", &lines(10..12));
        bench.poll();
        bench.got.sort_unstable();
        bench.check(0..12);
        assert_eq!(bench.counts, crate::source::RejectCounts::default(), "{copy}");
        bench.restart();
        bench.append("eve.json", &line(12));
        bench.poll();
        bench.check(0..13);
    }
}

#[test]
fn a_copy_that_is_seen_before_the_truncation_is_not_read_twice() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &lines(0..5));
    bench.poll();
    fs::copy(bench.path("eve.json"), bench.path("eve-copy.json")).unwrap();
    bench.poll_after(2);
    bench.check(0..5);
    bench.append("eve.json", &line(5));
    bench.poll();
    OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap().set_len(0).unwrap();
    bench.poll_after(2);
    bench.append("eve.json", &line(6));
    bench.poll_after(2);
    bench.check(0..7);
    assert_eq!(bench.counts, crate::source::RejectCounts::default());
}

#[test]
fn replaced_by_a_longer_copy_it_is_read_on_where_it_was() {
    for unread in [0, 1] {
        let mut bench = Bench::new("eve*.json");
        bench.append("eve.json", &lines(0..3));
        bench.poll();
        let mut had = 3;
        for end in [5, 9, 20] {
            bench.append("eve.json", &lines(had..had + unread));
            fs::write(bench.path("new"), lines(0..end)).unwrap();
            fs::rename(bench.path("new"), bench.path("eve.json")).unwrap();
            bench.poll_after(2);
            bench.check(0..end);
            had = end;
        }
        bench.poll_after(70);
        bench.restart();
        bench.poll();
        bench.check(0..20);
        assert_eq!(bench.counts, crate::source::RejectCounts::default(), "{:?}", bench.details);
    }
}

#[test]
fn truncated_without_a_copy() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..5));
    bench.poll();
    OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap().set_len(0).unwrap();
    bench.poll();
    bench.append("eve.json", &lines(5..7));
    bench.poll();
    bench.check(0..7);
    assert_eq!(bench.lost(), 0);
    // A line that was half there is gone, and that is known.
    bench.append("eve.json", "{\"half");
    bench.poll();
    fs::write(bench.path("eve.json"), lines(7..20)).unwrap();
    bench.poll();
    bench.check(0..20);
    assert_eq!(bench.lost(), 1);
    assert!(
        bench.details[0].contains("was truncated") && bench.details[0].contains("6 bytes"),
        "{:?}",
        bench.details
    );
}

#[test]
fn a_new_name_for_each_hour_and_a_file_for_each_thread() {
    let mut bench = Bench::new("eve*.json");
    for (name, numbers) in [("eve.1.json", 0..2), ("eve.2.json", 2..4), ("eve-10.json", 4..6)] {
        bench.append(name, &lines(numbers));
    }
    bench.append("other.json", &line(99));
    bench.poll();
    bench.append("eve-11.json", &lines(6..8));
    bench.append("eve.1.json", &lines(8..9));
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..9);
    fs::remove_file(bench.path("eve-10.json")).unwrap();
    bench.poll();
    bench.poll_after(61);
    assert_eq!(bench.cursors.len(), 3);
    assert_eq!(bench.counts, crate::source::RejectCounts::default());
}

#[test]
fn what_is_packed_in_other_ways_is_no_lines() {
    let mut bench = Bench::new("eve*");
    for name in ["eve.json.xz", "eve.ZST", "eve.json.2.bz2"] {
        bench.append(name, &line(1));
    }
    bench.poll();
    bench.check([]);
    assert!(bench.trouble.is_some());
}

#[test]
fn rotated_while_nobody_read() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..5));
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", &lines(5..7));
    bench.restart();
    bench.poll();
    bench.check(0..7);
    bench.poll_after(700);
    bench.poll_after(11);
    let complete = bench.cursors.iter().map(|cursor| cursor.complete);
    assert_eq!(complete.collect::<std::collections::BTreeSet<_>>().len(), 2, "{:?}", bench.cursors);
    assert_eq!((bench.counts, bench.cursors.len()), (crate::source::RejectCounts::default(), 2));
}

#[test]
fn rotated_to_a_name_of_the_pattern_while_nobody_read() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..5));
    fs::rename(bench.path("eve.json"), bench.path("eve-2026.json")).unwrap();
    bench.append("eve.json", &lines(5..7));
    bench.restart();
    bench.poll();
    bench.check(0..7);
    assert_eq!((bench.counts, bench.cursors.len()), (crate::source::RejectCounts::default(), 2));
    assert!(bench.cursors.iter().any(|cursor| cursor.path.ends_with("eve-2026.json")));
}

#[test]
fn truncated_while_nobody_read() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..5));
    fs::copy(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    fs::write(bench.path("eve.json"), lines(5..50)).unwrap();
    bench.restart();
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..50);
    assert_eq!(bench.lost(), 0);
    // Without a copy it cannot be known whether there was more: that is told, once.
    fs::write(bench.path("eve.json"), lines(50..52)).unwrap();
    fs::remove_file(bench.path("eve.json.1")).unwrap();
    bench.restart();
    bench.poll();
    bench.check(0..52);
    assert_eq!(bench.lost(), 2, "{:?}", bench.details);
    bench.restart();
    bench.poll();
    assert_eq!(bench.lost(), 2);
}

#[test]
fn a_log_that_came_back_shorter_and_was_written_on_is_read_from_the_last_line_that_is_as_it_was() {
    let mut bench = Bench::new("eve.json");
    for number in 0..6 {
        bench.append("eve.json", &line(number));
        bench.poll();
    }
    // The cut takes back the last two lines; the sensor starts first, and writes past the old place.
    let file = OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap();
    file.set_len(lines(0..4).len() as u64).unwrap();
    bench.append("eve.json", &lines(10..15));
    bench.crash();
    bench.poll();
    bench.check((0..6).chain(10..15));
    // The same while it is followed, to a length above and below what was read.
    for (to, more) in [(12, 20..23), (11, 30..31)] {
        file.set_len((lines(0..4) + &lines(10..to)).len() as u64).unwrap();
        bench.append("eve.json", &lines(more.clone()));
        bench.got.clear();
        bench.poll();
        for number in more {
            assert!(bench.got.contains(&number), "{number} of {:?}", bench.got);
        }
    }
    assert_eq!(bench.counts, [0; 6], "{:?}", bench.details);
}

#[test]
fn a_second_hole_at_the_beginning_is_not_taken_for_the_first_one() {
    let mut bench = Bench::new("eve.json");
    let hole = |from: u64, number: u64| {
        let file = OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap();
        file.set_len(0).unwrap();
        file.write_all_at(line(number).as_bytes(), from).unwrap();
    };
    bench.append("eve.json", &lines(0..4));
    hole(10_000, 7);
    bench.restart();
    bench.poll();
    bench.check([7]);
    let file = OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at((line(8) + &line(9)).as_bytes(), 10_000).unwrap();
    bench.restart();
    bench.poll();
    bench.check([7, 8, 9]);
}

#[test]
fn vanished_while_nobody_read() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    fs::remove_file(bench.path("eve.json")).unwrap();
    bench.restart();
    bench.poll();
    assert_eq!((bench.lost(), bench.cursors.len()), (1, 0));
    assert!(bench.details[0].contains("eve.json was removed"), "{:?}", bench.details);
    bench.append("eve.json", &lines(3..4));
    bench.restart();
    bench.poll();
    bench.check(0..4);
    assert_eq!(bench.lost(), 1);
}

#[test]
fn deleted_while_it_is_read() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    let mut writer = OpenOptions::new().append(true).open(bench.path("eve.json")).unwrap();
    fs::remove_file(bench.path("eve.json")).unwrap();
    bench.poll();
    writer.write_all(line(3).as_bytes()).unwrap();
    bench.poll();
    bench.check(0..4);
    bench.poll_after(61);
    assert_eq!((bench.lost(), bench.cursors.len()), (0, 0));
}

#[test]
fn a_reused_inode_is_another_file() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..20));
    bench.poll();
    // The same device and inode, another beginning, longer than what was read: as after delete and create.
    fs::write(bench.path("eve.json"), lines(20..60)).unwrap();
    bench.restart();
    bench.poll();
    bench.check(0..60);
    assert_eq!(bench.cursors.len(), 1);
}

#[test]
fn a_beginning_that_was_short_grows() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &line(0));
    bench.poll();
    assert!(bench.cursors[0].head_len < 256);
    bench.append("eve.json", &lines(1..9));
    bench.restart();
    bench.poll();
    bench.check(0..9);
    assert_eq!(bench.cursors[0].head_len, 256);
    bench.crash();
    bench.append("eve.json", &line(9));
    bench.poll();
    bench.check(0..10);
}

#[test]
fn what_was_there_first_is_backlog() {
    let mut bench = Bench::with("eve*.json", |dir| {
        fs::write(dir.join("eve.json"), lines(0..3) + &line(3)[..40]).unwrap();
    });
    bench.poll();
    bench.append("eve.json", &(line(3)[40..].to_owned() + &line(4)));
    bench.append("eve-later.json", &line(5));
    bench.restart();
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..6);
    assert_eq!(bench.backlog, [0, 1, 2, 3]);
}

#[test]
fn other_things_in_the_place_of_a_file() {
    let mut bench = Bench::with("eve*.json", |dir| {
        fs::create_dir(dir.join("eve.json")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("eve-pipe.json"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        fs::write(dir.join("eve-2.json"), line(0)).unwrap();
    });
    bench.poll();
    bench.check([0]);
    let trouble = bench.trouble.clone().unwrap();
    assert!(
        trouble.contains("eve.json is a directory") && trouble.contains("eve-pipe.json is a pipe"),
        "{trouble}"
    );
    fs::remove_dir(bench.path("eve.json")).unwrap();
    fs::remove_file(bench.path("eve-pipe.json")).unwrap();
    bench.append("eve.json", &line(1));
    bench.poll();
    bench.check([0, 1]);
    assert_eq!(bench.trouble, None);
}

#[test]
fn a_link_that_somebody_else_made_to_a_file_that_is_not_theirs_is_not_followed() {
    // Owners: of the link, of the file, of this process.
    for (link, target, me, followed) in [
        (0, 5, 7, true),
        (5, 5, 7, true),
        (7, 5, 7, true),
        (9, 5, 7, false),
        (9, 0, 7, false),
        (9, 7, 7, false),
    ] {
        assert_eq!(file::may_follow(link, target, me), followed, "{link} {target} {me}");
    }
    let mut bench = Bench::new("eve.json");
    bench.append("real.json", &line(0));
    std::os::unix::fs::symlink(bench.path("real.json"), bench.path("eve.json")).unwrap();
    bench.poll();
    bench.check([0]);
}

#[test]
fn no_file_of_otrelays_own_is_read_under_any_name() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (secret, state) = (elsewhere.path().join("password"), elsewhere.path().join("state"));
    fs::write(&secret, "pw-canary-1\n").unwrap();
    fs::create_dir(&state).unwrap();
    fs::write(state.join("login-prod.json"), "rt-canary-2\n").unwrap();
    let mut bench = Bench::new("eve*.json");
    let own = Own { files: vec![secret.clone()], dirs: vec![state.clone()] };
    bench.tail = Tail::new(settings(bench.dir.path(), "eve*.json", Vec::new(), false), ManualClock::at(NOW))
        .sparing(std::sync::Arc::new(own));
    bench.append("eve.json", &line(0));
    std::os::unix::fs::symlink(&secret, bench.path("eve-a.json")).unwrap();
    fs::hard_link(state.join("login-prod.json"), bench.path("eve-b.json")).unwrap();
    for _ in 0..2 {
        bench.poll();
        bench.append("eve.json", &line(1));
        let trouble = bench.trouble.clone().unwrap();
        for name in ["eve-a.json", "eve-b.json"] {
            assert!(trouble.contains(&format!("{name}: it is one of otrelay's own files")), "{trouble}");
        }
    }
    bench.poll();
    assert_eq!((bench.lines, bench.details.len()), (3, 0), "{:?}", bench.details);
    // What is no longer there is no trouble any more.
    fs::remove_file(bench.path("eve-a.json")).unwrap();
    fs::remove_file(bench.path("eve-b.json")).unwrap();
    bench.poll();
    assert_eq!(bench.trouble, None);
}

#[test]
fn names_with_escapes_are_told_in_one_clean_line() {
    let mut bench = Bench::with("eve*.json", |dir| {
        fs::create_dir(dir.join("eve-\u{1b}[31mred\n\u{202e}new.json")).unwrap();
    });
    bench.poll();
    let trouble = bench.trouble.clone().unwrap();
    assert!(trouble.contains("eve-[31mred new.json is a directory"), "{trouble:?}");
}

#[test]
fn a_pattern_that_is_none_is_told() {
    let mut bench = Bench::new("eve***.json");
    bench.poll();
    assert!(bench.trouble.as_ref().unwrap().contains("is not a path pattern"), "{:?}", bench.trouble);
}

#[test]
fn garbage_is_counted_with_its_place() {
    let mut bench = Bench::new("eve.json");
    let mut bytes = line(0).into_bytes();
    bytes.extend(b"\x00\xff\xfe\x1b[31m\n{\"event_type\":\"alert\"\n");
    bytes.extend(line(1).bytes());
    bytes.extend(b"{\"event_type\":\"alert\"}\n");
    fs::write(bench.path("eve.json"), &bytes).unwrap();
    bench.poll();
    bench.check([0, 1]);
    assert_eq!(bench.counts, [2, 0, 1, 0, 0, 0]);
    assert!(bench.details[0].contains(&format!("eve.json, byte {}: ", line(0).len())), "{:?}", bench.details);
    let mut lines = String::new();
    for _ in 0..100 {
        lines.push_str("garbage\n");
    }
    bench.append("eve.json", &lines);
    bench.details.clear();
    bench.poll();
    assert_eq!((bench.counts[0], bench.details.len()), (102, 16));
}

#[test]
fn lines_of_any_length_in_bounded_memory() {
    let mut bench = Bench::new("eve.json");
    let padded = |number: u64, pad: usize| {
        line(number).replace("\"s\"", &format!("\"s\",\"pad\":\"{}\"", "x".repeat(pad)))
    };
    // Around the size of a chunk, and as long as a line may be.
    for (number, pad) in
        [CHUNK - 400, CHUNK - 200, CHUNK, 3 * CHUNK, file::LINE_MAX - 400].into_iter().enumerate()
    {
        bench.append("eve.json", &padded(number as u64, pad));
        bench.append("eve.json", &line(100 + number as u64));
    }
    // Of a longer one the alert is read all the same, as it stands near the front.
    bench.append("eve.json", &padded(5, 3 * file::LINE_MAX));
    bench.poll();
    bench.check([0, 100, 1, 101, 2, 102, 3, 103, 4, 104, 5]);
    assert_eq!(bench.tail.buffer.capacity(), CHUNK);

    // A hundred megabytes without a line end (holes, so that it costs no disk), in two parts.
    let from = bench.path("eve.json").metadata().unwrap().len();
    let file = OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap();
    file.write_all_at(b"x", from).unwrap();
    file.set_len(from + 60_000_000).unwrap();
    bench.poll();
    assert_eq!(bench.cursors[0].offset, from);
    // A crash in the middle: it is read again from where the line starts.
    bench.restart();
    file.set_len(from + 100_000_000).unwrap();
    bench.poll();
    assert_eq!(bench.counts, crate::source::RejectCounts::default());
    file.write_all_at(b"\n", from + 100_000_000).unwrap();
    bench.append("eve.json", &line(200));
    bench.poll();
    assert_eq!(bench.counts[RejectReason::TooLong as usize], 1);
    assert!(bench.details[0].contains("a line of 100000000 bytes"), "{:?}", bench.details);
    assert_eq!(bench.got.last(), Some(&200));
    assert_eq!(bench.tail.buffer.capacity(), CHUNK);
}

#[test]
fn batches_are_bounded_and_cursors_alone_wait() {
    let mut bench = Bench::new("eve.json");
    bench.poll();
    assert_eq!(bench.batches, 1, "the first look is told even when nothing is there");
    bench.append("eve.json", &lines(0..3_000));
    bench.poll();
    let told = 1 + 3_000_usize.div_ceil(SIGHTINGS_MAX);
    assert_eq!(bench.batches, told);
    bench.check(0..3_000);
    // Lines without alerts: no commit for each look.
    for _ in 0..8 {
        bench.append("eve.json", "{\"event_type\":\"flow\"}\n");
        bench.poll();
    }
    assert_eq!(bench.batches, told);
    bench.poll_after(3);
    assert_eq!((bench.batches, bench.lines), (told + 1, 3_008));
    let end = bench.path("eve.json").metadata().unwrap().len();
    assert_eq!(bench.cursors[0].offset, end);
    bench.poll_after(60);
    assert_eq!(bench.batches, told + 1, "nothing happens, nothing is told");
}

#[test]
fn a_commit_may_wait_while_the_file_is_there_and_not_when_it_is_rotated_truncated_or_gone() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &line(0));
    let waits = |bench: &mut Bench| {
        bench.now += Duration::from_secs(1);
        let turn = bench.tail.turn(bench.now);
        turn.batch.map(|batch| (batch.can_wait, batch.sightings.len()))
    };
    assert_eq!(waits(&mut bench), Some((false, 1)), "the first look is told at once");
    bench.append("eve.json", &line(1));
    assert_eq!(waits(&mut bench), Some((true, 1)));
    fs::rename(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    bench.append("eve.json", "");
    assert_eq!(waits(&mut bench), Some((false, 0)), "what was handed out is committed now");
    assert_eq!(waits(&mut bench), None, "once");
    bench.append("eve.json", &line(2));
    assert_eq!(waits(&mut bench), Some((true, 1)));
    OpenOptions::new().write(true).open(bench.path("eve.json")).unwrap().set_len(0).unwrap();
    assert_eq!(waits(&mut bench), Some((false, 0)));
    bench.append("eve.json", &line(3));
    assert_eq!(waits(&mut bench), Some((true, 1)));
    fs::remove_file(bench.path("eve.json")).unwrap();
    let removed = waits(&mut bench);
    assert!(removed.is_some_and(|(can_wait, _)| !can_wait), "{removed:?}");
    // A reading that ends has nobody to wait for.
    bench.append("eve.json", &line(4));
    bench.tail.reading = Reading::Once;
    assert!(waits(&mut bench).is_some_and(|(can_wait, _)| !can_wait));
}

#[test]
fn many_files_with_few_handles() {
    let mut bench = Bench::new("eve*.json");
    for number in 0..200 {
        bench.append(&format!("eve-{number}.json"), &line(number));
    }
    bench.poll();
    let open = bench.tail.watch.files.iter().filter(|file| file.handle.is_some()).count();
    assert!(open <= 64, "{open}");
    for number in 0..200 {
        bench.append(&format!("eve-{number}.json"), &line(200 + number));
    }
    bench.poll();
    // A closed file is written to, rotated, and found again.
    let closed = bench.tail.watch.files.iter().position(|file| file.handle.is_none()).unwrap();
    let path = bench.tail.watch.files[closed].path.clone();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(line(400).as_bytes()).unwrap();
    fs::rename(&path, path.with_extension("json.1")).unwrap();
    bench.poll();
    bench.got.sort_unstable();
    bench.check(0..401);
    assert_eq!(bench.counts, crate::source::RejectCounts::default());
}

#[test]
fn looking_costs_no_turn_when_nothing_happens() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &line(0));
    bench.poll();
    assert!(!bench.tail.watch.stirred(bench.now));
    bench.append("eve.json", &line(1));
    assert!(bench.tail.watch.stirred(bench.now));
    bench.poll();
    assert!(!bench.tail.watch.stirred(bench.now + Duration::from_secs(9)));
    assert!(bench.tail.watch.stirred(bench.now + Duration::from_secs(10)));
    bench.append("eve-new.json", &line(2));
    assert!(bench.tail.watch.stirred(bench.now));
}

async fn collect(settings: Settings, stop: CancellationToken) -> (Vec<Batch>, Result<(), SourceError>) {
    let (out, mut batches) = mpsc::channel(2);
    let tail = Tail::new(settings, ManualClock::at(NOW));
    let all = async {
        let mut all = Vec::new();
        while let Some(batch) = batches.recv().await {
            all.push(batch);
        }
        all
    };
    let (result, all) = tokio::join!(tail.run(out, stop), all);
    (all, result)
}

#[tokio::test]
async fn once_ends_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eve.json"), lines(0..2_500) + "{\"half").unwrap();
    let mut settings = settings(dir.path(), "eve.json", Vec::new(), false);
    settings.reading = Reading::Once;
    let (batches, result) = collect(settings, CancellationToken::new()).await;
    result.unwrap();
    let sightings: usize = batches.iter().map(|batch| batch.sightings.len()).sum();
    assert_eq!(sightings, 2_500);
    let last = batches.iter().rev().find_map(|batch| files(&batch.cursors).last()).unwrap();
    assert_eq!(last.offset, lines(0..2_500).len() as u64);
}

#[tokio::test]
async fn following_ends_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("eve.json");
    File::create(&path).unwrap();
    let settings = settings(dir.path(), "eve.json", Vec::new(), true);
    let stop = CancellationToken::new();
    let (out, mut batches) = mpsc::channel(2);
    let reader = async {
        // Written when it follows already: its first batch tells that there is nothing yet.
        let mut all = vec![batches.recv().await.unwrap()];
        fs::write(&path, line(7) + "{\"event_type\":\"flow\"}\n").unwrap();
        while let Some(batch) = batches.recv().await {
            all.push(batch);
            if all.iter().any(|batch: &Batch| !batch.sightings.is_empty()) {
                stop.cancel();
            }
        }
        all
    };
    let tail = Tail::new(settings, ManualClock::at(NOW));
    let (result, batches) = tokio::join!(tail.run(out, stop.clone()), reader);
    result.unwrap();
    assert_eq!(batches.iter().map(|batch| batch.sightings.len()).sum::<usize>(), 1);
    assert_eq!(batches.iter().map(Batch::lines).sum::<u64>(), 2);
}

#[tokio::test]
async fn an_intake_that_is_gone_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("eve.json"), line(0)).unwrap();
    let (out, batches) = mpsc::channel(1);
    drop(batches);
    let settings = settings(dir.path(), "eve.json", Vec::new(), true);
    let tail = Tail::new(settings, Arc::new(crate::clock::SystemClock));
    let result = tail.run(out, CancellationToken::new()).await;
    assert!(matches!(result, Err(SourceError::Closed(_))));
}

/// What can happen to a log file while it is read.
#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Part(usize),
    Poll(u64),
    Restart,
    Crash,
    Rename,
    CopyTruncate,
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => (1..9_usize).prop_map(Step::Append),
        3 => (1..300_usize).prop_map(Step::Part),
        5 => (0..8_u64).prop_map(Step::Poll),
        2 => Just(Step::Restart),
        1 => Just(Step::Crash),
        1 => Just(Step::Rename),
        1 => Just(Step::CopyTruncate),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]

    /// However it is written, rotated and read: every line once. (A crash loses no batch here, because a batch is
    /// committed when it is handed out.)
    #[test]
    fn every_line_exactly_once(steps in steps()) {
        let mut bench = Bench::new("eve.json");
        let (mut next, mut partial, mut rotations) = (0, String::new(), 0);
        for step in steps {
            match step {
                Step::Append(count) => {
                    bench.append("eve.json", &std::mem::take(&mut partial));
                    bench.append("eve.json", &lines(next..next + count as u64));
                    next += count as u64;
                }
                Step::Part(len) => {
                    if partial.is_empty() {
                        partial = line(next);
                        next += 1;
                    }
                    let rest = partial.split_off(len.min(partial.len()));
                    bench.append("eve.json", &partial);
                    partial = rest;
                }
                Step::Poll(secs) => bench.poll_after(secs),
                Step::Restart => bench.restart(),
                Step::Crash => bench.crash(),
                Step::Rename | Step::CopyTruncate => {
                    bench.append("eve.json", &std::mem::take(&mut partial));
                    rotations += 1;
                    let to = bench.path(&format!("eve.json.{rotations}"));
                    if matches!(step, Step::Rename) {
                        fs::rename(bench.path("eve.json"), to).unwrap();
                        bench.append("eve.json", "");
                    } else {
                        fs::copy(bench.path("eve.json"), to).unwrap();
                        fs::write(bench.path("eve.json"), "").unwrap();
                    }
                }
            }
        }
        bench.append("eve.json", &partial);
        bench.poll();
        bench.poll();
        bench.got.sort_unstable();
        proptest::prop_assert_eq!(&bench.got, &(0..next).collect::<Vec<_>>(), "{:?}", bench.details);
        proptest::prop_assert_eq!(bench.counts, crate::source::RejectCounts::default(), "{:?}", bench.details);
    }
}
