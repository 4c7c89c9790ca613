//! A later version takes a store over: what was recorded goes the whole way, the old database is kept beside, and what
//! fails on the way leaves it as it was. The later version is a step that only tests have (`schema::later`).

use super::repair::{closed, restored};
use super::*;
use crate::store::schema;

/// As long as it lives, this thread's program is the later version.
struct Later;

impl Later {
    fn version() -> Self {
        schema::later::be(true);
        Self
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        schema::later::be(false);
    }
}

/// A closed store of this version: alert 1 delivered, 2 and 3 waiting, 4 in flight.
async fn old_store() -> tempfile::TempDir {
    let bench = Bench::new();
    bench.record((1..=4).map(|n| entry(n, Severity::Major)).collect()).await;
    let first = bench.claim(1).await.remove(0);
    bench.settle(&first, there(1)).await;
    planned::written_out(&bench).await;
    closed(bench).await.0
}

fn raw(dir: &tempfile::TempDir, name: &str) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.path().join(name)).unwrap()
}

fn number(dir: &tempfile::TempDir, name: &str, sql: &str) -> i64 {
    raw(dir, name).query_row(sql, [], |row| row.get(0)).unwrap()
}

fn version(dir: &tempfile::TempDir, name: &str) -> i64 {
    number(dir, name, "SELECT user_version FROM pragma_user_version")
}

const COPY: &str = "queue.db.v1";

#[tokio::test]
async fn what_the_older_version_kept_goes_the_whole_way() {
    let dir = old_store().await;
    let _later = Later::version();
    // Lists work before it is taken over.
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.alerts(&ListFilter::default()).unwrap().len(), 4);
    drop(reader);
    let bench = Bench::open(dir, |_| {});
    assert_eq!(version(&bench.dir, DATABASE), 2);
    assert_eq!(number(&bench.dir, DATABASE, "SELECT count(*) FROM later"), 4);
    assert!(bench.reader().overview().unwrap().repairs.is_empty());
    let known = bench.record((1..=5).map(|n| entry(n, Severity::Major)).collect()).await;
    assert_eq!((known.new, known.repeats), (1, 4));
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().map(|c| c.alert.is_some()).collect::<Vec<_>>(), [true; 4]);
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

#[tokio::test]
async fn the_old_store_is_kept_beside_the_new_one_and_the_way_back_is_open() {
    let dir = old_store().await;
    // What an upgrade that was cut short left: half a copy, and an old one of an earlier attempt.
    std::fs::write(dir.path().join("queue.db.v1.tmp"), "half").unwrap();
    std::fs::write(dir.path().join(COPY), "of earlier").unwrap();
    let later = Later::version();
    let (dir, _) = closed(Bench::open(dir, |_| {})).await;
    assert_eq!((version(&dir, COPY), version(&dir, DATABASE)), (1, 2));
    assert!(!dir.path().join("queue.db.v1.tmp").exists());
    drop(later);

    // The older program refuses it, and takes the copy.
    let refused = Store::open(&settings(dir.path()), ManualClock::at(NOW)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
    restored(&settings(dir.path()), &dir.path().join(COPY)).unwrap();
    let bench = Bench::open(dir, |_| {});
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().map(|c| c.doubtful).collect::<Vec<_>>(), [true; 3], "looked up first");

    // And the later one again.
    let (dir, _) = closed(bench).await;
    let _later = Later::version();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(bench.store.recover(NOW).await.unwrap(), 3);
}

#[tokio::test]
async fn a_step_that_fails_leaves_the_old_store_as_it_was() {
    let dir = old_store().await;
    raw(&dir, DATABASE).execute_batch("CREATE TABLE later (x)").unwrap();
    let _later = Later::version();
    for _ in 0..2 {
        let failed = Store::open(&settings(dir.path()), ManualClock::at(NOW)).map(|_| ()).unwrap_err();
        assert!(matches!(failed, OpenError::Migration(_)), "{failed}");
        assert_eq!(version(&dir, DATABASE), 1);
        assert_eq!(number(&dir, DATABASE, "SELECT count(*) FROM delivery WHERE state = 'pending'"), 3);
    }
    raw(&dir, DATABASE).execute_batch("DROP TABLE later").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(bench.claim(10).await.len(), 3);
}

#[tokio::test]
async fn without_room_for_a_copy_the_upgrade_goes_on() {
    let dir = old_store().await;
    raw(&dir, DATABASE)
        .execute_batch("CREATE TABLE fat (x); INSERT INTO fat VALUES (zeroblob(5000000)); DROP TABLE fat")
        .unwrap();
    let _later = Later::version();
    let bench = Bench::open(dir, |settings| settings.max_size = 8 << 20);
    assert!(!bench.dir.path().join(COPY).exists());
    assert_eq!(version(&bench.dir, DATABASE), 2);
    assert_eq!(bench.claim(10).await.len(), 3);
}

#[tokio::test]
async fn the_schema_refuses_a_second_live_ticket() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    planned::written_out(&bench).await;
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    let second = |generation, state| {
        conn.execute(
            "INSERT INTO ticket (alert_id, route_id, generation, state, rule, crc) VALUES (1, 1, ?1, ?2, 'r', 0)",
            rusqlite::params![generation, state],
        )
    };
    assert!(second(1, "opening").unwrap_err().to_string().contains("a second live ticket"));
    assert_eq!(second(1, "withdrawn").unwrap(), 1);
    let revived = conn.execute("UPDATE ticket SET state = 'opening' WHERE generation = 1", []);
    assert!(revived.unwrap_err().to_string().contains("a second live ticket"));
    assert_eq!(conn.execute("UPDATE ticket SET state = 'opening' WHERE generation = 0", []).unwrap(), 1);
}
