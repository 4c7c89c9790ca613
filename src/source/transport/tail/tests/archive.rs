//! Tests of generations that a rotation packed: what nobody read of them is read once, what is gone is told.

use super::*;
use crate::source::transport::tail::unpacked::tests::{bomb, gzip, zstd};

impl Bench {
    /// What `gzip` does: a new file with the old one's time of change, then the old one goes.
    fn pack(&self, name: &str) {
        self.pack_as(name, "gz");
    }

    fn pack_as(&self, name: &str, end: &str) {
        let (plain, packed) = (self.path(name), self.path(&format!("{name}.{end}")));
        let pack = if end == "zst" { zstd } else { gzip };
        fs::write(&packed, pack(&fs::read(&plain).unwrap())).unwrap();
        let modified = plain.metadata().unwrap().modified().unwrap();
        File::options().append(true).open(packed).unwrap().set_modified(modified).unwrap();
        fs::remove_file(plain).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// All of these come, in whatever order their files are met, and then nothing any more.
    fn comes(&mut self, wanted: std::ops::Range<u64>) {
        self.poll();
        self.got.sort_unstable();
        self.check(wanted);
        self.stays();
    }

    /// Nothing comes again, whatever stops.
    fn stays(&mut self) {
        let got = self.got.clone();
        for _ in 0..2 {
            self.crash();
            self.poll();
            self.poll_after(700);
            self.poll_after(11);
            self.check(got.clone());
        }
        assert_eq!(self.counts, [0; 6], "{:?}", self.details);
    }
}

#[test]
fn packed_while_nobody_read_it_is_read_on_from_its_place() {
    for pattern in ["eve.json", "eve*.json", "eve.json*"] {
        for end in ["gz", "GZ", "zst"] {
            let mut bench = Bench::new(pattern);
            bench.append("eve.json", &lines(0..3));
            bench.poll();
            bench.append("eve.json", &lines(3..9));
            bench.rename("eve.json", "eve.json.1");
            bench.pack_as("eve.json.1", end);
            bench.append("eve.json", &lines(9..11));
            bench.restart();
            bench.comes(0..11);
        }
    }
}

#[test]
fn two_generations_with_the_last_one_packed_later_are_both_read() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    // `delaycompress`: the one whose rest is missed is packed, the one that nobody saw is not.
    bench.append("eve.json", &lines(3..6));
    bench.rename("eve.json", "eve.json.2");
    bench.pack("eve.json.2");
    bench.append("eve.json.1", &lines(6..8));
    bench.append("eve.json", &line(8));
    bench.restart();
    bench.comes(0..9);
}

#[test]
fn a_packed_generation_that_nobody_saw_is_read_whole() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..6));
    bench.rename("eve.json", "eve.json.2");
    bench.pack("eve.json.2");
    bench.append("eve.json.1", &lines(6..1_300));
    bench.pack("eve.json.1");
    bench.append("eve.json", &line(1_300));
    bench.restart();
    bench.poll();
    bench.now += Duration::from_secs(7);
    // A crash after each batch: what was told goes on where it ended.
    while bench.tail.turn(bench.now).batch.map(|batch| bench.keep(batch)).is_some() && bench.got.len() < 1_301
    {
        bench.crash();
    }
    bench.comes(0..1_301);
}

#[test]
fn what_was_read_before_it_was_packed_is_not_read_again() {
    ["gz", "zst"].into_iter().for_each(packed_after_it_was_read);
}

fn packed_after_it_was_read(end: &str) {
    let mut bench = Bench::new("eve*.json");
    for generation in 0..4 {
        bench.append("eve.json", &lines(generation * 9..generation * 9 + 9));
        bench.poll();
        for old in (1..=generation).rev() {
            let (from, to) = (format!("eve.json.{old}.{end}"), format!("eve.json.{}.{end}", old + 1));
            if bench.path(&from).exists() {
                bench.rename(&from, &to);
            }
        }
        bench.rename("eve.json", "eve.json.1");
        bench.append("eve.json", "");
        if generation % 2 == 0 {
            // It is packed when it was let go of; otherwise while it is still open.
            bench.append("eve.json", &line(1_000 + generation));
            bench.poll();
            bench.poll_after(6);
        }
        bench.pack_as("eve.json.1", end);
        bench.poll();
        bench.poll_after(61);
    }
    let mut expected = (0..4).flat_map(|g| g * 9..g * 9 + 9).collect::<Vec<_>>();
    expected.extend([1_000, 1_002]);
    let mut got = bench.got.clone();
    got.sort_unstable();
    assert_eq!(got, expected, "{:?}", bench.details);
    bench.stays();
    fs::remove_file(bench.path(&format!("eve.json.4.{end}"))).unwrap();
    bench.poll_after(11);
    let packed = bench.cursors.iter().filter(|cursor| cursor.path.contains(&format!(".{end}"))).count();
    assert_eq!(packed, 3, "what is gone is forgotten: {:?}", bench.cursors);
}

#[test]
fn copied_truncated_and_packed_while_nobody_read_it() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..7));
    fs::copy(bench.path("eve.json"), bench.path("eve.json.1")).unwrap();
    fs::write(bench.path("eve.json"), lines(7..9)).unwrap();
    bench.pack("eve.json.1");
    bench.restart();
    bench.comes(0..9);
}

#[test]
fn one_that_is_still_being_packed_waits() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..30));
    bench.poll();
    bench.append("eve.json", &lines(30..60));
    bench.rename("eve.json", "eve.json.1");
    let packed = gzip(&fs::read(bench.path("eve.json.1")).unwrap());
    fs::write(bench.path("eve.json.1.gz"), &packed[..packed.len() / 2]).unwrap();
    bench.restart();
    bench.poll();
    bench.check(0..60);
    fs::write(bench.path("eve.json.1.gz"), &packed).unwrap();
    fs::remove_file(bench.path("eve.json.1")).unwrap();
    bench.stays();
}

#[test]
fn a_damaged_packed_file_gives_what_is_whole_and_is_told_as_lost_with_its_place() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..20_000));
    bench.rename("eve.json", "eve.json.1");
    bench.pack("eve.json.1");
    let packed = fs::read(bench.path("eve.json.1.gz")).unwrap();
    fs::write(bench.path("eve.json.1.gz"), &packed[..packed.len() / 2]).unwrap();
    fs::write(bench.path("eve.json.2.gz"), "no gzip").unwrap();
    bench.append("eve.json", &line(20_000));
    bench.restart();
    bench.poll();
    bench.poll_after(7);
    assert_eq!(bench.lost(), 2, "{:?}", bench.details);
    assert!(bench.details.iter().any(|told| told.contains("eve.json.2.gz cannot be unpacked")));
    let place = bench.details.iter().find(|told| told.contains("cannot be unpacked further")).unwrap();
    assert!(place.contains("eve.json.1.gz, byte ") && place.contains("what follows is lost"), "{place}");
    assert!(bench.got.len() > 5_000, "{}", bench.got.len());
    bench.restart();
    bench.poll_after(11);
    assert_eq!(bench.lost(), 2, "told once: {:?}", bench.details);
}

#[test]
fn a_packed_file_that_is_another_one_is_read_whole_and_the_rest_is_told_as_lost() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..300));
    bench.poll();
    bench.rename("eve.json", "eve.json.1");
    // It begins as the one that was read, and goes on in another way.
    fs::write(bench.path("eve.json.1"), lines(0..3) + &lines(500..900)).unwrap();
    bench.pack("eve.json.1");
    bench.append("eve.json", &line(1_000));
    bench.restart();
    bench.poll();
    assert_eq!(bench.lost(), 1, "{:?}", bench.details);
    assert!(bench.details[0].contains("is not the file that was read up to byte"), "{:?}", bench.details);
    assert!(bench.got.ends_with(&[899]) || bench.got.ends_with(&[1_000]), "{:?}", bench.got.last());
    assert!((500..900).all(|number| bench.got.contains(&number)));
}

#[test]
fn what_was_removed_packed_or_not_is_told() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    bench.append("eve.json", &lines(3..6));
    fs::remove_file(bench.path("eve.json")).unwrap();
    bench.append("eve.json", &line(6));
    bench.restart();
    bench.poll();
    assert_eq!(bench.lost(), 1);
    // A packed one that goes before it was read to its end.
    bench.append("eve.json.1", &lines(10..9_000));
    bench.pack("eve.json.1");
    bench.poll_after(11);
    bench.now += Duration::from_secs(7);
    let batch = bench.tail.turn(bench.now).batch.unwrap();
    bench.keep(batch);
    bench.crash();
    bench.append("eve.json.2", &line(9));
    bench.pack("eve.json.2");
    fs::remove_file(bench.path("eve.json.1.gz")).unwrap();
    bench.poll();
    bench.poll_after(7);
    assert_eq!(bench.lost(), 2, "{:?}", bench.details);
    assert!(bench.details[1].contains("unpacked, the rest is lost"), "{:?}", bench.details);
}

#[test]
fn a_bomb_costs_no_memory_and_no_long_turn() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &line(0));
    bench.poll();
    // A gibibyte of one line, with a record after it.
    let mut packed = bomb(1 << 30);
    packed.extend(gzip(("\n".to_owned() + &line(1)).as_bytes()));
    fs::write(bench.path("eve.json.1.gz"), packed).unwrap();
    bench.append("eve.json", &line(2));
    bench.poll_after(11);
    bench.now += Duration::from_secs(7);
    let mut turns = 0;
    loop {
        let turn = bench.tail.turn(bench.now);
        turns += 1;
        if let Some(batch) = turn.batch {
            bench.keep(batch);
        }
        if !turn.more {
            break;
        }
    }
    bench.got.sort_unstable();
    bench.check(0..3);
    assert!(turns > 200, "each takes a bounded piece: {turns}");
    assert_eq!(bench.counts[RejectReason::TooLong as usize], 1, "{:?}", bench.details);
}

#[test]
fn those_that_were_there_before_the_source_was_met_are_not_its_generations() {
    let mut bench = Bench::with("eve.json", |dir| {
        fs::write(dir.join("eve.json"), line(0)).unwrap();
        fs::write(dir.join("eve.json.1.gz"), gzip(lines(50..60).as_bytes())).unwrap();
    });
    bench.poll();
    bench.check([0]);
    bench.stays();
}

#[test]
fn an_inode_that_another_packed_file_has_taken_is_no_reason_to_pass_it_over() {
    let mut bench = Bench::with("eve.json", |dir| {
        fs::write(dir.join("eve.json"), line(0)).unwrap();
        fs::write(dir.join("eve.json.1.gz"), gzip(lines(50..60).as_bytes())).unwrap();
    });
    bench.poll();
    // Written over: the same inode.
    fs::write(bench.path("eve.json.1.gz"), gzip(lines(1..9).as_bytes())).unwrap();
    bench.crash();
    bench.poll();
    bench.poll_after(7);
    bench.check(0..9);
    bench.stays();
}

impl Bench {
    /// What `xz` does, as far as anybody here can tell.
    fn pack_xz(&self, name: &str) {
        let (plain, packed) = (self.path(name), self.path(&format!("{name}.xz")));
        fs::write(&packed, "nobody here can read this").unwrap();
        let modified = plain.metadata().unwrap().modified().unwrap();
        File::options().append(true).open(packed).unwrap().set_modified(modified).unwrap();
        fs::remove_file(plain).unwrap();
    }

    /// The files that are told as read by nobody.
    fn unread(&self) -> Vec<String> {
        let told = self.trouble.as_deref().and_then(|trouble| crate::model::trouble::split(trouble).1);
        let names = told.unwrap_or_default().split(['/', ',']).filter(|name| name.starts_with("eve"));
        names.map(ToOwned::to_owned).collect()
    }
}

#[test]
fn what_was_read_before_it_was_packed_with_xz_is_no_trouble() {
    let mut bench = Bench::new("eve.json");
    for generation in 0..3 {
        bench.append("eve.json", &lines(generation * 9..generation * 9 + 9));
        bench.poll();
        if bench.path("eve.json.1.xz").exists() {
            bench.rename("eve.json.1.xz", "eve.json.2.xz");
        }
        bench.rename("eve.json", "eve.json.1");
        bench.append("eve.json", &line(100 + generation));
        bench.pack_xz("eve.json.1");
        bench.poll_after(11);
        bench.poll_after(61);
        assert_eq!(bench.unread(), [""; 0], "generation {generation}: {:?}", bench.trouble);
        fs::remove_file(bench.path("eve.json")).unwrap();
        bench.poll_after(61);
    }
    // One more, of what was read up to its end before, while nobody looked.
    bench.append("eve.json", &lines(50..53));
    bench.poll();
    bench.rename("eve.json", "eve.json.1");
    bench.pack_xz("eve.json.1");
    bench.append("eve.json", &line(53));
    bench.restart();
    bench.poll();
    assert_eq!(bench.unread(), [""; 0], "{:?}", bench.trouble);
}

#[test]
fn what_was_packed_with_xz_unread_is_told_until_it_is_unpacked() {
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json", &lines(0..3));
    bench.poll();
    for (generation, rest) in [(3, 3..6), (2, 6..8), (1, 8..9)] {
        bench.append("eve.json", &lines(rest));
        bench.rename("eve.json", &format!("eve.json.{generation}"));
        bench.pack_xz(&format!("eve.json.{generation}"));
        std::thread::sleep(Duration::from_millis(10));
    }
    bench.append("eve.json", &line(9));
    bench.restart();
    bench.poll();
    // The oldest is the one that was read in part; its rest is told as lost.
    assert_eq!(bench.unread(), ["eve.json.1.xz", "eve.json.2.xz"], "{:?}", bench.trouble);
    assert_eq!(bench.details.len(), 1, "{:?}", bench.details);
    bench.crash();
    bench.poll();
    assert_eq!(bench.unread().len(), 2, "a start knows them: {:?}", bench.trouble);
    // A person unpacks one, and moves the other away.
    bench.append("eve.json.2", &lines(6..8));
    bench.poll_after(11);
    bench.got.sort_unstable();
    assert_eq!(bench.got, [0, 1, 2, 6, 7, 9]);
    assert_eq!(bench.unread(), ["eve.json.1.xz"], "{:?}", bench.trouble);
    fs::remove_file(bench.path("eve.json.1.xz")).unwrap();
    bench.poll_after(11);
    assert_eq!(bench.unread(), [""; 0], "{:?}", bench.trouble);
    assert!(
        bench.details.iter().any(|told| told.contains("eve.json.1.xz was removed")),
        "{:?}",
        bench.details
    );
}

#[test]
fn a_pattern_that_leads_to_packed_files_alone_is_no_trouble() {
    let mut bench = Bench::new("eve*");
    bench.append("eve.json.1", &lines(0..3));
    bench.pack("eve.json.1");
    bench.poll();
    assert_eq!(bench.trouble, None);
    let mut bench = Bench::new("eve.json");
    bench.append("eve.json.1", &lines(0..3));
    bench.pack("eve.json.1");
    bench.poll();
    assert!(
        bench.trouble.unwrap().starts_with("no file matches"),
        "it is the name of the one that is missed"
    );
}

#[test]
fn packed_with_xz_before_the_source_was_met() {
    let mut bench = Bench::new("eve*.json");
    bench.append("eve-1.json", &lines(0..3));
    bench.pack_xz("eve-1.json");
    bench.append("eve-2.json", &lines(3..5));
    bench.poll();
    bench.check(3..5);
    assert_eq!(bench.unread(), ["eve-1.json.xz"], "{:?}", bench.trouble);
}

/// What was packed before the source was met, and one log.
fn with_packed(end: &str) -> Bench {
    let pack = if end == "zst" { zstd } else { gzip };
    let mut bench = Bench::with("eve*.json", |dir| {
        fs::write(dir.join("eve.json"), line(0)).unwrap();
        fs::write(dir.join(format!("eve.json.2.{end}")), pack(lines(50..60).as_bytes())).unwrap();
    });
    bench.poll();
    bench.check([0]);
    // And one that was read here.
    bench.append("eve.json.1", &lines(1..9));
    bench.pack_as("eve.json.1", end);
    bench.poll();
    bench.poll_after(7);
    bench.check(0..9);
    bench
}

fn touch(path: &Path) {
    let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000);
    File::options().append(true).open(path).unwrap().set_modified(later).unwrap();
}

#[test]
fn a_packed_file_is_known_by_its_content_whatever_became_of_its_time_inode_or_device() {
    for end in ["gz", "zst"] {
        let mut bench = with_packed(end);
        for generation in [1, 2] {
            touch(&bench.path(&format!("eve.json.{generation}.{end}")));
        }
        bench.stays();
        // A copy takes its name: another inode.
        for generation in [1, 2] {
            let path = bench.path(&format!("eve.json.{generation}.{end}"));
            fs::copy(&path, bench.path("new")).unwrap();
            fs::rename(bench.path("new"), path).unwrap();
        }
        bench.poll();
        bench.poll_after(11);
        bench.stays();
        // Another device, while nobody looked.
        for cursor in &mut bench.cursors {
            cursor.device += 1;
        }
        bench.stays();
        assert!(bench.cursors.len() <= 3, "{:?}", bench.cursors);
    }
}

#[test]
fn one_that_only_begins_as_one_that_is_gone_is_read_whole() {
    for end in ["gz", "zst"] {
        let mut bench = with_packed(end);
        // In this order no inode is used again.
        bench.append("eve.json.3", &(lines(1..4) + &lines(100..140)));
        bench.pack_as("eve.json.3", end);
        fs::remove_file(bench.path(&format!("eve.json.1.{end}"))).unwrap();
        bench.crash();
        bench.poll();
        bench.poll_after(7);
        assert_eq!(bench.lost(), 0, "{:?}", bench.details);
        bench.check((0..9).chain(1..4).chain(100..140));
    }
}

#[test]
fn one_that_is_written_in_place_slowly_is_read_when_it_is_whole() {
    for end in ["gz", "zst"] {
        let mut bench = with_packed(end);
        let pack = if end == "zst" { zstd } else { gzip };
        let packed = pack(lines(10..3_000).as_bytes());
        let name = format!("eve.json.3.{end}");
        for part in packed.chunks(packed.len() / 5) {
            let mut file = OpenOptions::new().append(true).create(true).open(bench.path(&name)).unwrap();
            file.write_all(part).unwrap();
            bench.poll_after(4);
        }
        bench.poll_after(7);
        bench.check((0..9).chain(10..3_000));
        bench.stays();
    }
}

#[test]
fn one_whose_writer_paused_is_read_on_where_it_was_read_up_to() {
    for end in ["gz", "zst"] {
        let mut bench = with_packed(end);
        // Several parts, so that something comes out of each third.
        let pack = if end == "zst" { zstd } else { gzip };
        let packed: Vec<u8> =
            (0..20).flat_map(|part| pack(lines(100 + part * 99..199 + part * 99).as_bytes())).collect();
        let name = format!("eve.json.3.{end}");
        for (part, told) in packed.chunks(packed.len() / 3 + 1).zip([1, 2, 2]) {
            let mut file = OpenOptions::new().append(true).create(true).open(bench.path(&name)).unwrap();
            file.write_all(part).unwrap();
            bench.poll();
            bench.poll_after(11);
            assert_eq!(bench.lost(), told, "{end}: {:?}", bench.details);
        }
        bench.check((0..9).chain(100..100 + 20 * 99));
    }
}
