//! Room: the state directory stays within `max_size` under load, a full disk stops the intake and nothing else, and
//! what was kept in memory comes home without a loss or a twin.

use super::*;
use crate::model::HealthIssue;
use crate::store::disk::ballast;
use crate::store::disk::files::with;
use crate::store::fallback;
use crate::store::health::Kind;
use crate::store::op::record::write_all;
use crate::store::schema;
use crate::store::session::Session;

/// Bytes of all files in the state directory.
fn size(bench: &Bench) -> u64 {
    std::fs::read_dir(bench.dir.path()).unwrap().map(|f| f.unwrap().metadata().map_or(0, |m| m.len())).sum()
}

fn fat(n: u32, bytes: usize) -> Entry {
    let mut entry = entry(n, [Severity::Minor, Severity::Critical][usize::from(n.is_multiple_of(10))]);
    entry.alert.raw = noise(bytes);
    entry
}

#[tokio::test]
async fn the_whole_directory_stays_within_the_cap_under_load() {
    for (mib, bytes) in [(8, 400), (8, 15_000)] {
        let bench = Bench::open(tempfile::tempdir().unwrap(), |s| s.max_size = mib << 20);
        let per_part = (bench.store.part_max() as usize / (bytes + 300)) as u32;
        let (mut n, mut peak, mut sent, mut next) = (0, 0, 0_u64, per_part);
        while sent < (mib << 20) / 2 * 3 {
            let part = vec![record((n..n + next).map(|n| fat(n, bytes)).collect())];
            match bench.store.record(part).await {
                Ok(recorded) => {
                    (n, sent) = (n + next, sent + u64::from(next) * (bytes as u64 + 300));
                    next = per_part;
                    if recorded.room.is_tight() {
                        bench.store.make_room().await.unwrap();
                    }
                }
                // As the intake does.
                Err(StoreError::Full(_)) => next = (next / 2).max(1),
                Err(e) => panic!("{e}"),
            }
            if n.is_multiple_of(3) {
                for c in bench.claim(40).await {
                    bench.settle(&c, there(c.id.0 as u32)).await;
                }
            }
            peak = peak.max(size(&bench));
        }
        assert!(bench.dir.path().join(ballast::NAME).exists(), "the ballast is made while it works");
        assert!(peak <= mib << 20, "{peak} bytes with a cap of {mib} MiB and alerts of {bytes}");
        assert!(peak > (mib << 20) / 2, "{peak}: the cap was never near");
        let overview = bench.reader().overview().unwrap();
        assert_eq!(overview.shed_by_severity.values().sum::<i64>(), overview.shed);
        assert_eq!(bench.reader().integrity().unwrap(), "ok");
    }
}

/// Begins a condition inside of a transaction, behind the look at the disk.
struct Fill(HealthIssue);
impl handle::Operation for Fill {
    type Output = ();
    fn run(self, tx: &mut session::Tx<'_>) -> Result<(), StoreError> {
        tx.conditions.begin(Kind::Disk, self.0);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_intake_and_nothing_else() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let full = HealthIssue {
        code: Kind::Disk.code(),
        subject: String::new(),
        text: "the disk is full".to_owned(),
        remedy: "make space".to_owned(),
    };
    let (filled, refused, claimed) = tokio::join!(
        biased;
        bench.store.call(Fill(full.clone())),
        bench.store.record(vec![record(vec![entry(2, Severity::Major)])]),
        bench.store.claim(claim(10, NOW)),
    );
    filled.unwrap();
    assert!(matches!(&refused, Err(e @ StoreError::DiskFull(_)) if e.is_passing()), "{refused:?}");
    assert_eq!(claimed.unwrap().len(), 1, "what is stored is still delivered");
    assert_eq!(bench.store.conditions(), [full]);
    assert!(bench.store.is_refusing());
    // The next look finds space.
    assert_eq!(bench.record(vec![entry(2, Severity::Major)]).await.new, 1);
    assert!(bench.store.conditions().is_empty() && !bench.store.is_refusing());
}

#[tokio::test]
async fn somebody_who_reads_for_long_stops_the_intake_before_the_log_outgrows_the_cap() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| s.max_size = 8 << 20);
    bench.record(vec![entry(0, Severity::Major)]).await;
    let other = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    other.execute_batch("BEGIN; SELECT count(*) FROM alert").unwrap();
    let (mut n, mut peak) = (1, 0);
    let refused = loop {
        match bench.store.record(vec![record(vec![fat(n, 15_000)])]).await {
            Ok(_) => n += 1,
            Err(e) => break e,
        }
        peak = peak.max(size(&bench));
    };
    assert!(matches!(&refused, StoreError::DiskFull(why) if why.contains("another program")), "{refused:?}");
    assert!(peak <= 8 << 20 && bench.store.is_refusing(), "{peak}");
    assert_eq!(bench.claim(1).await.len(), 1, "what is stored is still delivered");
    drop(other);
    assert_eq!(bench.record(vec![fat(n, 15_000)]).await.new, 1);
    assert!(bench.store.conditions().is_empty());
}

#[tokio::test]
async fn a_refusing_buffer_says_so_and_says_when_it_is_over() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| {
        (s.max_size, s.when_full) = (8 << 20, WhenFull::Refuse);
    });
    let mut n = 0;
    while !bench.store.is_refusing() {
        match bench.store.record(vec![record(vec![fat(n, 15_000)])]).await {
            Ok(recorded) if !recorded.room.is_tight() => n += 1,
            _ => assert_eq!(bench.store.make_room().await.unwrap().given_up, 0),
        }
    }
    let said = bench.store.conditions();
    assert!(said[0].text.contains("[buffer] max_size") && !said[0].remedy.is_empty(), "{said:?}");
    for c in bench.claim(usize::MAX).await {
        bench.settle(&c, there(c.id.0 as u32)).await;
    }
    bench.store.make_room().await.unwrap();
    assert!(!bench.store.is_refusing() && bench.store.conditions().is_empty());
}

/// A store in memory over what this directory has.
fn in_memory(bench: &Bench, pages: i64) -> (Session, String, bool) {
    let name = fallback::new_name();
    let opened = fallback::open(&bench.dir.path().join(DATABASE), &name, pages).unwrap();
    (Session::new(opened.conn, pages).unwrap(), name, opened.whole)
}

fn write(session: &mut Session, record: &Record) -> Recorded {
    session.transaction(|tx| write_all(tx, std::slice::from_ref(record))).unwrap()
}

fn read_to(offset: u64) -> Cursor {
    Cursor::File(FileCursor {
        device: 1,
        inode: 2,
        head_hash: 3,
        head_len: 4,
        offset,
        backlog_end: 0,
        complete: false,
        path: "/x/eve.json".to_owned(),
        state: None,
        proofs: Vec::new(),
    })
}

/// What is taken in while the file cannot be written, and brought home: whole or with cursors only, it is the same.
async fn check_homecoming(bytes: usize, whole: bool) {
    let bench = Bench::new();
    let mut first = record((0..800).map(|n| fat(n, bytes)).collect());
    (first.lines, first.cursors) = (800, vec![read_to(800)]);
    // DEFLATE takes a quarter of noise in letters away.
    first.entries.iter_mut().for_each(|entry| entry.alert.references = vec![noise(bytes / 2)]);
    bench.store.record(vec![first]).await.unwrap();
    // A kill: the WAL stays behind, and is read. In flight is one delivery.
    let flying = bench.claim(1).await.remove(0);
    let (mut session, name, copied) = in_memory(&bench, 4_096);
    assert_eq!(copied, whole);
    let reader = Reader::in_memory(&name).unwrap();
    assert_eq!(reader.overview().unwrap().backlog, 800);

    // Ten new findings, one of them twice, and two that the file knows.
    let mut more = record((800..810).chain([3, 4]).map(|n| fat(n, 100)).collect());
    more.entries[0].occurrences = 2;
    (more.lines, more.alerts, more.cursors) = (40, 13, vec![read_to(840)]);
    more.filtered = vec![Filtered { reason: "severity".into(), count: 27, samples: Vec::new() }];
    let sums = write(&mut session, &more);
    assert_eq!(sums.new, if whole { 10 } else { 12 });
    assert_eq!(reader.overview().unwrap().sources[0].lines, 840);
    drop(reader);

    // An interrupted homecoming is made up for by the next.
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let path = dir.path().join(DATABASE);
    let conn = schema::open_writer(&path, 64 << 20).unwrap();
    let mut home = Session::new(conn, 10_000).unwrap();
    home.conn
        .execute_batch("CREATE TRIGGER no BEFORE INSERT ON cursor BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    assert!(fallback::bring_home(&session.conn, &mut home, NOW, true).is_err());
    home.conn.execute_batch("DROP TRIGGER no").unwrap();
    fallback::bring_home(&session.conn, &mut home, NOW, true).unwrap();
    drop((home, session));

    let bench = Bench::open(dir, |_| {});
    let overview = bench.reader().overview().unwrap();
    let source = &overview.sources[0];
    assert_eq!((source.new, source.repeats, source.lines), (810, 3, 840));
    assert_eq!(source.filtered["severity"], 27);
    assert_eq!(overview.backlog, 810, "each finding has one delivery");
    assert_eq!(
        bench.store.remembered(&SourceName::new("eve").unwrap()).await.unwrap().cursors,
        [read_to(840)]
    );
    assert_eq!(bench.store.recover(NOW).await.unwrap(), 1, "{:?} is looked up first", flying.id);
    assert_eq!(bench.claim(usize::MAX).await.len(), 810);
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

#[tokio::test]
async fn what_memory_took_in_comes_home() {
    check_homecoming(1_000, true).await;
    check_homecoming(15_900, false).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_read_at_all_begins_empty_in_memory() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |_| {});
    for (path, whole) in [(bench.dir.path().join("absent"), true), (bench.dir.path().to_owned(), false)] {
        let opened = fallback::open(&path, &fallback::new_name(), 1_024).unwrap();
        assert_eq!(opened.whole, whole);
        let mut session = Session::new(opened.conn, 1_024).unwrap();
        assert_eq!(write(&mut session, &record(vec![entry(1, Severity::Major)])).new, 1);
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    let bench = Bench::new();
    let (mut session, _, _) = in_memory(&bench, 512);
    let mut full = None;
    for n in 0..1_000 {
        let one = record(vec![fat(n, 8_000)]);
        if let Err(e) = session.transaction(|tx| write_all(tx, std::slice::from_ref(&one))) {
            full = Some(e);
            break;
        }
    }
    assert!(matches!(full, Some(StoreError::Full(_))), "{full:?}");
    let pages: i64 = session.conn.pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    assert!(pages <= 512);
}

#[tokio::test]
async fn a_name_with_odd_characters_is_read_without_being_written() {
    let dir = tempfile::Builder::new().prefix("a?b#c%20 é").tempdir().unwrap();
    let bench = Bench::open(dir, |_| {});
    bench.record(vec![entry(1, Severity::Major)]).await;
    let count = |conn: &rusqlite::Connection| {
        conn.query_row("SELECT count(*) FROM alert", [], |r| r.get::<_, i64>(0)).unwrap()
    };
    let path = bench.dir.path().join(DATABASE);
    assert_eq!(count(&schema::open_readonly(&path).unwrap()), 1, "with its WAL");
    // Where no index of the log can be made, the file alone would be an older state.
    let apart = tempfile::tempdir().unwrap();
    let copy = apart.path().join(DATABASE);
    for side in ["", "-wal"] {
        std::fs::copy(with(&path, side), with(&copy, side)).unwrap();
    }
    std::os::unix::fs::symlink("elsewhere", with(&copy, "-shm")).unwrap();
    assert!(schema::open_readonly(&copy).is_err(), "it is not passed over");
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let conn = schema::open_readonly(&path).unwrap();
    assert_eq!(count(&conn), 1, "after a clean stop");
    assert!(conn.execute_batch("DELETE FROM body_pack").is_err());
    drop((conn, dir));
}
