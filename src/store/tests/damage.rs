//! Kinds of damage that are easily taken for something else: a name in the schema, a row of the history, a read that
//! failed once.

use std::path::Path;

use super::repair::{closed, count, ended, filled, healed, leaves, overwrite};
use super::*;
use crate::store::disk::files;

/// Another name in the schema, in the file; each place, as there may be copies that are not in use.
fn rename(path: &Path, from: &str, to: &str) {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut bytes = std::fs::read(path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_name_in_the_schema_that_is_not_what_was_written_is_damage() {
    // At start, and in a table that is only asked while it runs.
    for (from, to) in [
        ("    value TEXT NOT NULL\n", "    vague TEXT NOT NULL\n"),
        ("    generation   INTEGER", "    generatiom   INTEGER"),
    ] {
        let (dir, path) = closed(filled(20).await).await;
        rename(&path, from, to);
        let bench = Bench::open(dir, |_| {});
        let first = bench.store.claim(claim(10, NOW)).await;
        let bench = if matches!(first, Err(StoreError::Damaged(_))) { ended(bench).await } else { bench };
        assert_eq!(healed(&bench).len(), 1, "{from}");
        bench.store.claim(claim(10, NOW)).await.unwrap();
    }
}

#[tokio::test]
async fn rows_keep_their_numbers_when_the_name_of_the_number_is_damaged() {
    let pairs =
        "SELECT t.id || ' ' || t.alert_id || ' ' || d.id FROM ticket t JOIN delivery d ON d.ticket_id = t.id";
    let all = |path: &Path| -> Vec<String> {
        let conn = rusqlite::Connection::open(path).unwrap();
        let mut select = conn.prepare(pairs).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    for (from, to) in [
        ("    id           INTEGER PRIMARY KEY", "    id$          INTEGER PRIMARY KEY"),
        ("    id         INTEGER PRIMARY KEY", "    ie         INTEGER PRIMARY KEY"),
    ] {
        let bench = filled(40).await;
        // The first ones are gone, so counting from one would give other numbers.
        for c in bench.claim(20).await {
            bench.settle(&c, there(u32::try_from(c.id.0).unwrap())).await;
        }
        let (dir, path) = closed(bench).await;
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("DELETE FROM delivery WHERE ticket_id < 5; DELETE FROM ticket WHERE id < 5")
            .unwrap();
        drop(conn);
        let before = all(&path);
        rename(&path, from, to);
        std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
        let bench = Bench::open(dir, |_| {});
        assert_eq!(healed(&bench).len(), 1, "{from}");
        // Alerts that had no ticket any more are none of this.
        assert_eq!(all(&bench.dir.path().join(DATABASE)), before, "{from}");
    }
}

#[tokio::test]
async fn an_outcome_with_a_key_that_is_not_its_own_is_in_nobodys_way() {
    let bench = filled(20).await;
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    let pending = count(&bench, "SELECT max(id) FROM delivery WHERE state = 'pending'");
    conn.execute("UPDATE outcome SET id = ?1 * 32 + 1 WHERE id = (SELECT min(id) FROM outcome)", [pending])
        .unwrap();
    for c in bench.claim(100).await {
        bench.settle(&c, there(u32::try_from(c.id.0).unwrap())).await;
    }
    let kept = format!("SELECT count(*) FROM outcome WHERE id = {pending} * 32 + 1 AND outcome = 'created'");
    assert_eq!(count(&bench, &kept), 1);
    // Nor is it taken over by a salvage.
    conn.execute("UPDATE outcome SET id = ?1 * 32 + 2 WHERE id = (SELECT min(id) FROM outcome)", [pending])
        .unwrap();
    drop(conn);
    let (dir, path) = closed(bench).await;
    overwrite(&path, leaves(&path, "cursor")[0] * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(healed(&bench).len(), 1);
    assert_eq!(count(&bench, &format!("SELECT count(*) FROM outcome WHERE id = {pending} * 32 + 2")), 0);
}

#[tokio::test]
async fn a_total_loss_says_so_and_reads_all_again() {
    let (dir, path) = closed(filled(20).await).await;
    // The schema is there, and nothing in it is a table.
    rename(&path, "CREATE TABLE ", "CREATE TAXLE ");
    let bench = Bench::open(dir, |_| {});
    let heals = healed(&bench);
    assert!(heals[0].rewound && heals[0].counts["alert"].at_least, "{heals:?}");
    let notice = &bench.reader().overview().unwrap().issues[0].issue.text;
    for words in ["nothing of it could be read", "are read again, as far back as [sync] backfill"] {
        assert!(notice.contains(words), "{notice}");
    }
}

/// An operation that does not get a page, as SQLite says it.
struct Misses;

impl handle::Operation for Misses {
    type Output = ();

    fn run(self, _: &mut session::Tx<'_>) -> Result<(), StoreError> {
        Err(StoreError::Damaged("database disk image is malformed".to_owned()))
    }
}

#[tokio::test]
async fn a_read_that_failed_once_while_it_runs_sets_nothing_aside_and_twice_does() {
    let mut bench = filled(20).await;
    for kept in [0, 1] {
        let met = bench.store.call(Misses).await;
        assert!(matches!(met, Err(StoreError::Damaged(_))), "{met:?}");
        bench = ended(bench).await;
        assert_eq!(bench.store.untold_repairs().await.unwrap().len(), kept);
        assert_eq!(files::kept(bench.dir.path()).len(), kept);
    }
    assert!(!healed(&bench)[0].rewound, "nothing was lost");
    assert_eq!(bench.claim(100).await.len(), 8);
    // And after a start that found nothing wrong and an end that was clean, it is the first time again.
    let bench = bench.reopen().await;
    bench.store.call(Misses).await.unwrap_err();
    assert_eq!(files::kept(ended(bench).await.dir.path()).len(), 1);
}
