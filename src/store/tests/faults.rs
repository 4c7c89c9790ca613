//! What goes wrong under the store: no room, a transaction that SQLite took back, damaged rows, strange directories;
//! and that the questions of the relay never scan the backlog.

use std::path::Path;

use super::*;
use crate::store::handle::Operation;
use crate::store::schema;
use crate::store::session::{Session, Tx};

/// An operation that fails like SQLite on a full disk: the whole transaction is gone before it says so.
struct NoRoom;

impl Operation for NoRoom {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        tx.conn.execute_batch("ROLLBACK").unwrap();
        Err(StoreError::Full("disk".to_owned()))
    }
}

/// An operation that stores something and then fails.
struct Half(Entry);

impl Operation for Half {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for _ in 0..2 {
            let id = 1_000 + tx.source_id("eve", 1)?;
            tx.memory.index.add(tx.conn, &self.0.fingerprint, id)?;
        }
        Err(StoreError::Refused("half".to_owned()))
    }
}

pub(super) fn raw(bench: &Bench) -> rusqlite::Connection {
    rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap()
}

#[tokio::test]
async fn nothing_runs_outside_of_a_transaction_that_sqlite_took_back() {
    let bench = Bench::new();
    // Submitted together, so that they share a transaction.
    let (before, none, after) = tokio::join!(
        biased;
        bench.store.record(vec![record(vec![entry(1, Severity::Major)])]),
        bench.store.call(NoRoom),
        bench.store.record(vec![record(vec![entry(2, Severity::Major)])]),
    );
    for result in [before.map(|_| ()), none, after.map(|_| ())] {
        assert!(matches!(result, Err(StoreError::Full(_))), "{result:?}");
    }
    // As they were told that nothing was stored, they try again.
    let again = bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    assert_eq!((again.new, again.repeats, again.deliveries), (2, 0, 2));
}

/// After a failed write or sync the pages may be in the page cache alone: nothing but a write puts them on the disk.
#[tokio::test]
async fn the_log_is_written_again_after_an_end_that_was_not_clean() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_000);
    for (word, is_written) in [("1\nopen\n", true), ("closed\n", false)] {
        let dir = tempfile::tempdir().unwrap();
        for name in [DATABASE, "queue.db-wal"] {
            std::fs::copy(bench.dir.path().join(name), dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("lock"), word).unwrap();
        let log = dir.path().join("queue.db-wal");
        let before = std::fs::read(&log).unwrap();
        std::fs::File::options().write(true).open(&log).unwrap().set_modified(long_ago).unwrap();
        let (_store, _writer) = Store::open(&settings(dir.path()), bench.clock.clone()).unwrap();
        let written = log.metadata().unwrap().modified().unwrap() != long_ago;
        assert_eq!((written, std::fs::read(&log).unwrap() == before), (is_written, true), "{word}");
    }
}

#[test]
fn a_directory_that_cannot_be_looked_into_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(dir.path()), Err(OpenError::Absent(_))));
    let gone = dir.path().join("gone");
    std::os::unix::fs::symlink(&gone, &gone).unwrap();
    let told = Reader::open(&gone).map(drop);
    assert!(matches!(told, Err(OpenError::Io { .. })), "{told:?}");
}

#[tokio::test]
async fn a_half_done_operation_leaves_nothing_in_memory() {
    let bench = Bench::new();
    let (half, good) = tokio::join!(
        biased;
        bench.store.call(Half(entry(1, Severity::Major))),
        bench.record(vec![entry(2, Severity::Major)]),
    );
    assert!(half.is_err());
    assert_eq!(good.new, 1);
    let again = bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    assert_eq!((again.new, again.repeats), (1, 1));
}

#[tokio::test]
async fn somebody_else_in_the_database_is_waited_for() {
    let bench = Bench::new();
    let other = raw(&bench);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = bench.store.record(vec![record(vec![entry(1, Severity::Major)])]).await;
    assert!(refused.as_ref().is_err_and(StoreError::is_passing), "{refused:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(bench.record(vec![entry(1, Severity::Major)]).await.new, 1);
}

#[tokio::test]
async fn a_full_store_takes_the_same_batch_when_there_is_room() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| {
        (s.max_size, s.when_full) = (8 << 20, WhenFull::Refuse);
    });
    let fat = |n: u32| {
        let mut entry = entry(n, Severity::Major);
        entry.alert.raw = noise(12_000);
        entry
    };
    let mut n = 0;
    let full = loop {
        match bench.store.record(vec![record((n..n + 20).map(fat).collect())]).await {
            Ok(_) => n += 20,
            Err(e) => break e,
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert_eq!(bench.store.make_room().await.unwrap().given_up, 0, "undelivered alerts are not given up");
    for c in bench.claim(usize::MAX).await {
        bench.settle(&c, there(c.id.0 as u32)).await;
    }
    // What was delivered is only history: it gives way even before keep_delivered.
    assert!(bench.store.make_room().await.unwrap().forgotten > 0);
    let again = bench.record((n..n + 20).map(fat).collect()).await;
    assert_eq!((again.new, again.deliveries), (20, 20));
    let overview = bench.reader().overview().unwrap();
    assert_eq!((overview.backlog, overview.destinations[0].counts["delivered"]), (20, i64::from(n)));
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

#[tokio::test]
async fn the_index_finds_what_is_in_its_table_and_what_came_back() {
    let bench = Bench::new();
    let all = |from: u32, to: u32| (from..to).map(|n| entry(n, Severity::Minor)).collect::<Vec<_>>();
    bench.record(all(0, 4_095)).await;
    let runs =
        || raw(&bench).query_row("SELECT count(*) FROM fingerprint", [], |r| r.get::<_, i64>(0)).unwrap();
    assert!((1_000..4_095).contains(&runs()), "the newest are only in memory");
    bench.record(all(4_095, 4_100)).await;
    assert_eq!(bench.record(all(0, 4_100)).await.new, 0);
    for c in bench.claim(usize::MAX).await {
        bench.settle(&c, there(c.id.0 as u32)).await;
    }
    bench.clock.advance(Duration::from_secs(86_400 * 31));
    assert_eq!(bench.store.prune().await.unwrap(), 4_100);
    assert_eq!(bench.record(all(0, 4_100)).await.new, 4_100);
    assert_eq!(bench.record(all(0, 4_100)).await.new, 0);
}

#[tokio::test]
async fn what_waits_for_long_does_not_keep_the_rest_from_being_forgotten() {
    let bench = Bench::new();
    let name = ["incident", "problem"];
    let all =
        |n: u32| Entry { routes: vec![routed(name[usize::from(n >= 400)])], ..entry(n, Severity::Minor) };
    bench.record((0..500).map(all).collect()).await;
    let mut problems = claim(usize::MAX, NOW);
    problems.except = vec![TableName::new("incident").unwrap()];
    for c in bench.store.claim(problems).await.unwrap() {
        bench.settle(&c, there(c.id.0 as u32)).await;
    }
    bench.clock.advance(Duration::from_secs(86_400 * 31));
    let pages = || raw(&bench).query_row("PRAGMA page_count", [], |r| r.get::<_, i64>(0)).unwrap();
    let before = pages();
    assert_eq!(bench.store.prune().await.unwrap(), 100);
    assert!(before - pages() > 3, "room is given back: {before} to {}", pages());
    let overview = bench.reader().overview().unwrap();
    assert_eq!((overview.backlog, overview.destinations[0].counts["delivered"]), (400, 100));
}

#[tokio::test]
async fn one_damaged_row_spoils_no_list_and_no_claim() {
    let bench = Bench::new();
    // Each in a pack of its own.
    for n in 1..=4 {
        bench.record(vec![entry(n, Severity::Major)]).await;
    }
    // Another bit, another length, and not there at all.
    for damage in [
        "UPDATE body_pack SET crc = crc + 1 WHERE first_id = 1",
        "UPDATE body_pack SET bodies = zeroblob(9) WHERE first_id = 2",
        "DELETE FROM body_pack WHERE first_id = 3",
    ] {
        raw(&bench).execute_batch(damage).unwrap();
    }
    raw(&bench).execute_batch("UPDATE ticket SET rule = CAST(x'00ff' AS TEXT) WHERE id = 1").unwrap();
    let all = ListFilter::default();
    let reader = bench.reader();
    let titles = |rows: Vec<String>| rows.into_iter().filter(|t| t == "alert 4").count();
    assert_eq!(reader.alerts(&all).unwrap().iter().filter(|a| a.alert.is_some()).count(), 1);
    assert_eq!(titles(reader.tickets(&all).unwrap().into_iter().map(|t| t.title).collect()), 1);
    let pending = reader.deliveries(DeliveryState::Pending, &all).unwrap();
    assert_eq!(titles(pending.into_iter().map(|d| d.title).collect()), 1);
    assert!(reader.delivery(DeliveryId(1)).unwrap().unwrap().alert.is_none());
    assert_eq!(
        bench.store.undelivered(0, 3).await.unwrap().len(),
        3,
        "a page of damaged ones is not the end"
    );
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().map(|c| c.alert.is_some()).collect::<Vec<_>>(), [false, false, false, true]);
}

#[tokio::test]
async fn the_oldest_that_waits_is_the_oldest_not_the_most_severe() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Minor)]).await;
    bench
        .store
        .record(vec![Record {
            now: NOW.after(Duration::from_secs(9)),
            ..record(vec![entry(2, Severity::Critical)])
        }])
        .await
        .unwrap();
    assert_eq!(bench.reader().overview().unwrap().oldest_pending_at, Some(NOW));
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file.clone(), file.join("below"), "/proc/otrelay".into()] {
        let refused = Store::open(&settings(&path), ManualClock::at(NOW)).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains(&path.display().to_string()), "{refused}");
    }
}

#[tokio::test]
async fn a_smaller_max_size_than_what_is_there_still_opens() {
    let bench = Bench::new();
    bench
        .record(
            (0..4_000)
                .map(|n| {
                    let mut e = entry(n, Severity::Minor);
                    e.alert.raw = noise(4_000);
                    e
                })
                .collect(),
        )
        .await;
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let bench = Bench::open(dir, |s| s.max_size = 8 << 20);
    let room = bench.record(vec![entry(1, Severity::Minor)]).await.room;
    assert!(room.is_tight() && room.limit < 8 << 20, "{room:?}");
    assert!(bench.store.make_room().await.unwrap().given_up > 1_000);
}

/// How SQLite answers a question, with the store's indexes and no statistics.
fn plan(sql: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&dir.path().join(DATABASE), 64 << 20).unwrap();
    let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let none = vec![rusqlite::types::Value::Integer(1); explain.parameter_count()];
    let steps = explain.query_map(rusqlite::params_from_iter(none), |r| r.get(3)).unwrap();
    steps.collect::<Result<_, _>>().unwrap()
}

/// Walks an index, sorts nothing, and scans no table that grows.
fn check_plan(sql: &str, index: &str) {
    let steps = plan(sql);
    assert!(steps.iter().any(|s| s.contains(index)), "{steps:?}");
    for step in &steps {
        let grows =
            ["delivery", "ticket", "alert", "d", "t", "a"].iter().any(|t| *step == format!("SCAN {t}"));
        assert!(!grows && !step.contains("TEMP B-TREE"), "{steps:?}");
    }
}

#[test]
fn no_question_of_the_relay_scans_the_backlog() {
    check_plan(&op::claim::select(false), "INDEX delivery_due");
    check_plan(op::claim::NEXT_DUE, "INDEX delivery_tried");
    check_plan("SELECT alert_id FROM fingerprint WHERE prefix = ?1", "PRIMARY KEY");
    check_plan(
        "SELECT id, generation, state FROM ticket WHERE alert_id = ?1 AND route_id = ?2 ORDER BY generation DESC LIMIT 1",
        "INDEX sqlite_autoindex_ticket_1",
    );
    check_plan("SELECT d.id FROM delivery d WHERE d.state = 'claimed'", "INDEX delivery_claimed");
    check_plan(read::pending::OLDEST, "INDEX delivery_due");
    check_plan(read::pending::OLDEST_PLANNED, "INDEX alert_planned");
    check_plan(op::turn::FIRST, "INDEX delivery_due");
    check_plan(read::pending::FIRST_PENDING, "INDEX delivery_due");
    check_plan(read::pending::FIRST_PLANNED, "INDEX alert_planned");
    check_plan(&op::plan::first(), "INDEX alert_planned");
    // Of those that were tried only: few, so sorting them costs nothing.
    let tried = plan(&op::claim::select(true));
    assert!(tried[0].contains("INDEX delivery_tried"), "{tried:?}");
}

#[test]
fn memory_that_cannot_be_read_back_stops_the_next_transaction_not_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let conn = schema::open_writer(&dir.path().join(DATABASE), 64 << 20).unwrap();
    let mut session = Session::new(conn, 1_000).unwrap();
    session.conn.execute_batch("ALTER TABLE alert RENAME TO elsewhere").unwrap();
    let failed = session.transaction(|_| Err::<(), _>(StoreError::Refused("x".to_owned())));
    assert!(failed.is_err());
    assert!(session.transaction(|_| Ok(())).is_err(), "without its index it would make twins");
    session.conn.execute_batch("ALTER TABLE elsewhere RENAME TO alert").unwrap();
    session.transaction(|_| Ok(())).unwrap();
}

/// What another program sees: whether this process has locks on a file. The kernel's list is no snapshot: while others
/// come and go, one that stays may be passed over in one reading, and is in the next.
fn is_locked(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    (0..100).any(|_| std::fs::read_to_string("/proc/locks").unwrap().contains(&inode))
}

/// Closing any descriptor of a file gives up all POSIX locks that the process has on it. Without them a `status` that comes
/// and goes cuts off the index below the mapping of the service, and that ends by SIGBUS.
#[tokio::test]
async fn sqlite_keeps_its_locks_as_long_as_the_store_is_open() {
    let bench = Bench::new();
    for name in [DATABASE, "queue.db-shm"] {
        assert!(is_locked(&bench.dir.path().join(name)), "no lock on {name}");
    }
    bench.record(vec![entry(1, Severity::Major)]).await;
    drop(Reader::open(bench.dir.path()).unwrap());
    assert!(is_locked(&bench.dir.path().join("queue.db-shm")));
}
