//! A database in any state: the store opens, what can be read is there, what cannot is counted.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::store::backup;
use crate::store::disk::files::{self, with};
use crate::store::repair;
use crate::store::repair::swap::Swap;
use crate::store::restore;
use crate::store::schema;

/// Alerts 1 to `n`, two in five of them delivered, one in five dead.
pub(super) async fn filled(n: u32) -> Bench {
    let bench = Bench::new();
    let mut cursor = FileCursor {
        device: 1,
        inode: 2,
        head_hash: 3,
        head_len: 4,
        offset: 500,
        backlog_end: 6,
        complete: false,
        path: "/var/log/eve.json".to_owned(),
        state: None,
        proofs: Vec::new(),
    };
    for from in (1..=n).step_by(10) {
        let mut record = record((from..(from + 10).min(n + 1)).map(|n| entry(n, Severity::Major)).collect());
        cursor.offset += 100;
        record.cursors = vec![Cursor::File(cursor.clone())];
        bench.store.record(vec![record]).await.unwrap();
    }
    for (c, at) in bench.claim((n / 5 * 3) as usize).await.iter().zip(0_u32..) {
        let outcome = if at % 3 == 2 { Outcome::Dead { message: "no".to_owned() } } else { there(at) };
        bench.settle(c, outcome).await;
    }
    // The rest has its rows, too.
    planned::written_out(&bench).await;
    bench
}

/// Closes it; the directory and the path of its database.
pub(super) async fn closed(bench: Bench) -> (tempfile::TempDir, PathBuf) {
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let path = dir.path().join(DATABASE);
    (dir, path)
}

pub(super) fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// The pages that the rows of a table, or the entries of an index, are on; counted from 0.
pub(super) fn leaves(path: &Path, name: &str) -> Vec<u64> {
    let conn = rusqlite::Connection::open(path).unwrap();
    let root: i64 =
        conn.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [name], |r| r.get(0)).unwrap();
    drop(conn);
    let bytes = std::fs::read(path).unwrap();
    let short = |at: usize| usize::from(u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap()));
    let long = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())) - 1;
    let (mut walk, mut found) = (vec![root as u64 - 1], Vec::new());
    while let Some(page) = walk.pop() {
        let at = page as usize * 4096;
        if matches!(bytes[at], 10 | 13) {
            found.push(page);
            continue;
        }
        walk.push(long(at + 8));
        walk.extend((0..short(at + 3)).rev().map(|cell| long(at + short(at + 12 + 2 * cell))));
    }
    found
}

pub(super) fn healed(bench: &Bench) -> Vec<RepairRow> {
    bench.reader().overview().unwrap().repairs
}

pub(super) fn count(bench: &Bench, sql: &str) -> i64 {
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    conn.query_row(sql, [], |r| r.get(0)).unwrap()
}

#[track_caller]
fn adds_up(bench: &Bench, before: [u64; 3]) {
    let heals = healed(bench);
    let of = |table: &str| heals[0].counts.get(table).copied().unwrap_or_default();
    for (table, before) in ["alert", "ticket", "delivery"].into_iter().zip(before) {
        let c = of(table);
        assert_eq!(c.salvaged + c.lost, before, "{table}: {heals:?}");
        assert!(!c.at_least, "{table}: {heals:?}");
    }
    let overview = bench.reader().overview().unwrap();
    let by_state =
        |state: &str| count(bench, &format!("SELECT count(*) FROM delivery WHERE state = '{state}'"));
    assert_eq!(overview.backlog, by_state("pending") + by_state("claimed"));
    assert_eq!(overview.dead, by_state("dead"));
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
    let orphans = "SELECT group_concat(DISTINCT \"table\" || '>' || parent) FROM pragma_foreign_key_check";
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    assert_eq!(conn.query_row(orphans, [], |r| r.get::<_, Option<String>>(0)).unwrap(), None, "{heals:?}");
}

#[tokio::test]
async fn each_bad_page_costs_only_what_was_on_it() {
    for table in
        ["alert", "body_pack", "ticket", "delivery", "source", "destination", "route", "cursor", "counter"]
    {
        let (dir, path) = closed(filled(300).await).await;
        let page = leaves(&path, table)[0];
        overwrite(&path, page * 4096, &[0; 4096]);
        std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
        let bench = Bench::open(dir, |_| {});
        let heals = healed(&bench);
        assert_eq!(heals.len(), 1, "{table}");
        assert!(bench.dir.path().join(&heals[0].kept_as).is_file());
        if table != "counter" {
            adds_up(&bench, [300, 300, 300]);
        }
        let kept = heals[0].counts["alert"].salvaged;
        // The bodies of 300 such alerts are on two pages.
        assert!(kept >= 120, "{table}: {heals:?}");
        // What is read again is known, or new; nothing is there twice.
        let again = bench.record((1..=300).map(|n| entry(n, Severity::Major)).collect()).await;
        assert_eq!((again.new, again.repeats), (300 - kept, kept), "{table}");
        assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 300);
    }
}

#[tokio::test]
async fn rows_in_each_others_place_are_not_told_as_all_that_there_were() {
    let (dir, path) = closed(filled(20).await).await;
    let mut bytes = std::fs::read(&path).unwrap();
    let alerts = leaves(&path, "alert")[0] as usize * 4096;
    // Of the schema: with it goes the table that says how many rows there were.
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let cell =
        |n: usize| usize::from(u16::from_be_bytes(bytes[112 + 2 * n..114 + 2 * n].try_into().unwrap()));
    let cells = usize::from(u16::from_be_bytes(bytes[103..105].try_into().unwrap()));
    let children = (0..cells).map(|n| number(cell(n))).chain([number(108)]);
    let words = b"CREATE TABLE counter";
    let has = |page: &usize| bytes[(page - 1) * 4096..page * 4096].windows(words.len()).any(|w| w == words);
    let schema = (children.into_iter().find(has).unwrap() - 1) * 4096;
    let (low, high) = bytes.split_at_mut(alerts.max(schema));
    low[alerts.min(schema)..][..4096].swap_with_slice(&mut high[..4096]);
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    let told = healed(&bench)[0].counts["alert"];
    assert!(told.at_least && told.salvaged == 0 && healed(&bench)[0].rewound, "{told:?}");
}

#[tokio::test]
async fn a_ticket_that_lost_its_delivery_gets_one_and_an_alert_without_ticket_goes_through_the_rules() {
    let (dir, path) = closed(filled(300).await).await;
    let pages = leaves(&path, "delivery");
    overwrite(&path, pages[pages.len() - 1] * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    let delivery = healed(&bench)[0].counts["delivery"];
    assert!(delivery.lost > 0 && delivery.made_again == delivery.lost, "{delivery:?}");
    let before = bench.reader().overview().unwrap();
    assert_eq!((before.backlog, before.dead), (120, 60));

    let (dir, path) = closed(bench).await;
    let page = leaves(&path, "ticket")[0];
    overwrite(&path, page * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(bench.store.rules_digest().await.unwrap(), None, "the rules are applied again");
    let lost = healed(&bench)[0].counts["ticket"].lost;
    let without = count(&bench, "SELECT count(*) FROM alert WHERE id NOT IN (SELECT alert_id FROM ticket)");
    assert!(lost > 0 && without as u64 == lost);
    let found = bench.store.undelivered(0, 1_000).await.unwrap();
    assert!(found.len() as u64 >= lost);
}

#[tokio::test]
async fn ids_go_on_above_all_that_ever_were() {
    let (dir, path) = closed(filled(100).await).await;
    let pages = leaves(&path, "delivery");
    overwrite(&path, pages[pages.len() - 1] * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    bench.record(vec![entry(1_000, Severity::Critical)]).await;
    let claimed = bench.claim(1).await;
    assert!(claimed[0].id.0 > 1_000, "{:?}", claimed[0].id);
}

#[tokio::test]
async fn a_file_that_is_no_database_of_ours_is_set_aside() {
    type Spoil = fn(&Path);
    let spoils: [(&str, Spoil); 7] = [
        ("random bytes", |path| {
            std::fs::write(path, (0..40_000_u32).map(|n| (n * n % 251) as u8).collect::<Vec<_>>()).unwrap();
        }),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("short", |path| std::fs::write(path, "SQLite format 3").unwrap()),
        ("truncated", |path| {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(3 * 4096 + 100).unwrap();
        }),
        ("a directory", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("another program's", |path| {
            std::fs::remove_file(path).unwrap();
            let conn = rusqlite::Connection::open(path).unwrap();
            conn.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA user_version = 77")
                .unwrap();
        }),
        ("a zeroed first page", |path| overwrite(path, 0, &[0; 4096])),
    ];
    for (name, spoil) in spoils {
        let (dir, path) = closed(filled(20).await).await;
        spoil(&path);
        let bench = Bench::open(dir, |_| {});
        let heals = healed(&bench);
        assert_eq!(heals.len(), 1, "{name}");
        assert!(heals[0].rewound, "{name}");
        assert!(files::is_there(&bench.dir.path().join(&heals[0].kept_as)), "{name}");
        assert_eq!(bench.record(vec![entry(1_000, Severity::Major)]).await.new, 1, "{name}");
        let overview = bench.reader().overview().unwrap();
        assert!(overview.issues[0].issue.text.contains("was damaged"), "{name}: {overview:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_not_what_was_written_is_left_out_of_a_salvage_and_made_a_dead_letter_by_a_claim() {
    let bench = filled(20).await;
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    let one = |table: &str| -> i64 {
        conn.query_row(&format!("SELECT min(id) FROM {table} WHERE state = 'pending'"), [], |r| r.get(0))
            .unwrap()
    };
    let delivery = one("delivery");
    let sql = "SELECT ticket_id FROM delivery WHERE id = ?1";
    let ticket: i64 = conn.query_row(sql, [delivery + 1], |r| r.get(0)).unwrap();
    conn.execute("UPDATE delivery SET severity = 3 WHERE id = ?1", [delivery]).unwrap();
    conn.execute("UPDATE ticket SET generation = 4 WHERE id = ?1", [ticket]).unwrap();
    let claimed = bench.claim(100).await;
    let bad: Vec<i64> = claimed.iter().filter(|c| c.alert.is_none()).map(|c| c.id.0).collect();
    assert_eq!(claimed.len(), 8);
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad.contains(&delivery));
}

#[tokio::test]
async fn damage_while_it_runs_is_the_end_and_the_next_start_repairs_it() {
    let bench = filled(300).await;
    let path = bench.dir.path().join(DATABASE);
    let raw = rusqlite::Connection::open(&path).unwrap();
    let (busy, _, _): (i64, i64, i64) = raw
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .unwrap();
    assert_eq!(busy, 0);
    drop(raw);
    let pages = leaves(&path, "delivery_due");
    overwrite(&path, pages[0] * 4096, &[0xff; 4096]);
    // The pages are still in the cache: a write by somebody else makes the writer read them anew.
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE destination SET failures = failures")
        .unwrap();
    let first = bench.store.claim(claim(10, NOW)).await;
    assert!(
        first.as_ref().is_err_and(|e| matches!(e, StoreError::Damaged(_)) && !e.is_passing()),
        "{first:?}"
    );
    let bench = ended(bench).await;
    assert_eq!(bench.claim(1_000).await.len(), 120);
    adds_up(&bench, [300, 300, 300]);
    let untold = bench.store.untold_repairs().await.unwrap();
    assert_eq!(untold.len(), 1);
    bench.store.repairs_told(vec![untold[0].0]).await.unwrap();
    assert!(bench.store.untold_repairs().await.unwrap().is_empty());
}

/// The writer has ended with damage; gives the store of the next start.
pub(super) async fn ended(bench: Bench) -> Bench {
    let Bench { dir, store, writer, .. } = bench;
    let ended = writer.await.unwrap();
    assert!(matches!(ended, Err(StoreError::Damaged(_))), "{ended:?}");
    let late = store.claim(claim(10, NOW)).await;
    assert!(matches!(late, Err(StoreError::Damaged(_))), "{late:?}");
    Bench::open(dir, |_| {})
}

/// An operation that meets damage.
pub(super) struct Meets;

impl handle::Operation for Meets {
    type Output = ();

    fn run(self, _: &mut session::Tx<'_>) -> Result<(), StoreError> {
        Err(StoreError::Damaged("a page".to_owned()))
    }
}

#[tokio::test]
async fn what_cannot_be_a_failed_read_is_repaired_at_once() {
    let bench = filled(50).await;
    let met = bench.store.call(Meets).await;
    assert!(matches!(met, Err(StoreError::Damaged(_))), "{met:?}");
    let bench = ended(bench).await;
    assert_eq!(files::kept(bench.dir.path()).len(), 1);
    assert_eq!(healed(&bench)[0].cause, "a page");
    assert!(!healed(&bench)[0].rewound, "nothing was lost");
    assert_eq!(files::kept(bench.reopen().await.dir.path()).len(), 1, "once");
}

#[tokio::test]
async fn a_damaged_cursor_is_left_out() {
    let bench = filled(20).await;
    let source = SourceName::new("eve").unwrap();
    let cursors = bench.store.remembered(&source).await.unwrap().cursors;
    assert!(matches!(cursors[..], [Cursor::File(FileCursor { offset: 700, .. })]), "{cursors:?}");
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    conn.execute_batch("UPDATE cursor SET offset = offset + 64").unwrap();
    let remembered = bench.store.remembered(&source).await.unwrap();
    assert!(remembered.cursors.is_empty() && remembered.read_before);
}

#[tokio::test]
async fn a_newer_version_stays_as_it_is_with_its_wal() {
    let (dir, path) = closed(filled(20).await).await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    schema::keep_wal(&conn).unwrap();
    conn.execute_batch("UPDATE meta SET value = '9' WHERE key = 'schema'; PRAGMA user_version = 9").unwrap();
    drop(conn);
    let bytes = |side: &str| std::fs::read(with(&path, side)).unwrap();
    let before = (bytes(""), bytes("-wal"));
    assert!(!before.1.is_empty());
    let refused = Store::open(&settings(dir.path()), ManualClock::at(NOW)).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found: 9, .. }), "{refused}");
    assert!(Reader::open(dir.path()).is_err());
    assert!((bytes(""), bytes("-wal")) == before, "it was changed");
}

#[tokio::test]
async fn one_flipped_bit_does_not_make_a_newer_version() {
    for bit in [0, 1, 2, 5, 9, 17, 31_u32] {
        let (dir, path) = closed(filled(5).await).await;
        let mut version = [0; 4];
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.read_exact_at(&mut version, 60).unwrap();
        file.write_all_at(&(u32::from_be_bytes(version) ^ 1 << bit).to_be_bytes(), 60).unwrap();
        let bench = Bench::open(dir, |_| {});
        assert_eq!(healed(&bench)[0].counts["alert"].salvaged, 5, "bit {bit}");
    }
}

#[tokio::test]
async fn a_wal_of_another_database_is_left_out() {
    let (dir, path) = closed(filled(50).await).await;
    let other = filled(80).await;
    std::fs::copy(other.dir.path().join("queue.db-wal"), with(&path, "-wal")).unwrap();
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 50);
    assert_eq!(healed(&bench).len(), 1);
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

#[tokio::test]
async fn a_wal_without_its_database_still_gives_its_rows() {
    let bench = filled(20).await;
    let (database, wal) = (bench.dir.path().join(DATABASE), bench.dir.path().join("queue.db-wal"));
    for lose in
        [|path: &Path| std::fs::remove_file(path).unwrap(), |path: &Path| std::fs::write(path, "").unwrap()]
    {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(&wal, dir.path().join("queue.db-wal")).unwrap();
        let path = dir.path().join(DATABASE);
        std::fs::copy(&database, &path).unwrap();
        lose(&path);
        let bench = Bench::open(dir, |_| {});
        assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 20);
    }
}

/// Each step of a healing, as a power cut leaves it, comes to the same end.
#[tokio::test]
async fn a_healing_that_was_cut_short_is_done_at_the_next_start() {
    let (dir, path) = closed(filled(60).await).await;
    overwrite(&path, leaves(&path, "ticket")[0] * 4096, &[0; 4096]);
    let damaged = std::fs::read(&path).unwrap();
    for step in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DATABASE);
        std::fs::write(&path, &damaged).unwrap();
        std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
        if step > 0 {
            let swap = Swap::begin(dir.path(), files::Aside::Corrupt, "test", NOW).unwrap();
            if step > 1 {
                swap.set_aside().unwrap();
            }
            if step > 2 {
                std::fs::write(Swap::new_path(dir.path()), "half of a database").unwrap();
            }
            if step > 3 {
                repair::finish(swap.clone(), &settings(dir.path()), NOW).unwrap();
                let again = Swap::begin(dir.path(), files::Aside::Corrupt, "test", NOW).unwrap();
                // The marker of before, as if it had not been removed.
                let marker = std::fs::read_to_string(dir.path().join("queue.db.swap")).unwrap();
                let marker = marker.replace(&again.kept_as, &swap.kept_as);
                std::fs::write(dir.path().join("queue.db.swap"), marker).unwrap();
            }
        }
        let bench = Bench::open(dir, |_| {});
        let heals = healed(&bench);
        assert_eq!(heals.len(), 1, "step {step}");
        adds_up(&bench, [60, 60, 60]);
        assert_eq!(std::fs::read(bench.dir.path().join(&heals[0].kept_as)).unwrap(), damaged, "step {step}");
        assert!(!files::names(bench.dir.path()).iter().any(|n| n.contains("swap") || n.contains("new")));
    }
    drop(dir);
}

#[tokio::test]
async fn a_backup_is_whole_beside_a_running_store_and_comes_back() {
    let bench = filled(40).await;
    let target = bench.dir.path().join("out.db");
    let copy = backup::backup(bench.dir.path(), &target, false).unwrap();
    assert_eq!((copy.bytes, copy.schema), (std::fs::metadata(&target).unwrap().len(), schema::version()));
    let refused = backup::backup(bench.dir.path(), &target, false).unwrap_err();
    assert!(matches!(refused, backup::CopyError::Exists(_)), "{refused}");
    backup::backup(bench.dir.path(), &target, true).unwrap();
    let locked = restored(&settings(bench.dir.path()), &target).unwrap_err();
    assert!(matches!(locked, backup::CopyError::Open(OpenError::Locked { .. })), "{locked}");

    bench.record((41..=60).map(|n| entry(n, Severity::Major)).collect()).await;
    let (dir, _) = closed(bench).await;
    let restored = restored(&settings(dir.path()), &target).unwrap();
    assert!(restored.kept_as.as_ref().is_some_and(|kept| kept.is_file()), "{restored:?}");
    assert!(files::names(dir.path()).iter().all(|n| !n.contains("swap")));
    let bench = Bench::open(dir, |_| {});
    assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 40);
    assert_eq!(count(&bench, "SELECT count(*) FROM delivery WHERE state = 'pending' AND doubtful = 0"), 0);
    assert!(healed(&bench).is_empty());
}

/// Restores a file.
pub(super) fn restored(settings: &Settings, file: &Path) -> Result<restore::Restored, backup::CopyError> {
    restore::restore(settings, restore::Given::open(file)?, NOW)
}

#[tokio::test]
async fn nothing_of_the_schema_of_a_backup_lives_on_in_the_store() {
    let bench = filled(40).await;
    let (clean, hostile) = (bench.dir.path().join("clean.db"), bench.dir.path().join("hostile.db"));
    backup::backup(bench.dir.path(), &clean, false).unwrap();
    let (dir, _) = closed(bench).await;
    let schema = || -> Vec<String> {
        let conn = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
        let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema
                   WHERE name NOT LIKE 'sqlite%' ORDER BY 1";
        conn.prepare(sql).unwrap().query_map([], |r| r.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let ours = schema();
    std::fs::copy(&clean, &hostile).unwrap();
    let conn = rusqlite::Connection::open(&hostile).unwrap();
    conn.execute_batch(
        "CREATE TRIGGER hide AFTER INSERT ON delivery BEGIN
           UPDATE delivery SET state = 'withdrawn', settled_at = NEW.due_at WHERE id = NEW.id; END;
         CREATE VIEW look AS SELECT * FROM alert;
         CREATE INDEX more ON alert (first_seen_at);
         CREATE TABLE kept (x, y AS (x + 1));
         INSERT INTO kept VALUES ('a canary');
         ALTER TABLE alert ADD COLUMN doubled INTEGER AS (id * 2);",
    )
    .unwrap();
    drop(conn);
    let said = restored(&settings(dir.path()), &hostile).unwrap();
    assert_eq!(said.left_out, ["index more", "table kept", "trigger hide", "view look"]);
    assert_eq!(schema(), ours);
    assert!(!std::fs::read(dir.path().join(DATABASE)).unwrap().windows(8).any(|w| w == b"a canary"));
    let bench = Bench::open(dir, |_| {});
    assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 40);
    bench.record(vec![entry(41, Severity::Major)]).await;
    let waiting = "SELECT count(*) FROM delivery WHERE state = 'withdrawn'";
    assert_eq!(count(&bench, waiting), 0, "no new finding vanishes");
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
    assert!(healed(&bench).is_empty());
}

#[tokio::test]
async fn a_table_of_a_backup_that_is_none_is_not_read() {
    let bench = filled(10).await;
    let whole = bench.dir.path().join("whole.db");
    backup::backup(bench.dir.path(), &whole, false).unwrap();
    let (dir, _) = closed(bench).await;
    let hostile = dir.path().join("hostile.db");
    for (sql, words) in [
        (
            "ALTER TABLE hold RENAME TO other; CREATE VIEW hold AS SELECT * FROM other",
            "table hold has no column",
        ),
        ("DROP TABLE reject_sample", "table reject_sample has no column"),
        ("ALTER TABLE sync RENAME COLUMN dead TO alive", "table sync has no column dead"),
        ("UPDATE meta SET value = 'x' WHERE key = 'schema'", "another program"),
    ] {
        std::fs::copy(&whole, &hostile).unwrap();
        rusqlite::Connection::open(&hostile).unwrap().execute_batch(sql).unwrap();
        let refused = restored(&settings(dir.path()), &hostile).unwrap_err().to_string();
        assert!(refused.contains(words), "{sql}: {refused}");
    }
    let small = Settings { max_size: 4096, ..settings(dir.path()) };
    let refused = restored(&small, &whole).unwrap_err().to_string();
    assert!(refused.contains("max_size is 4096: raise it first"), "{refused}");
    let refused = restored(&settings(dir.path()), &dir.path().join(DATABASE)).unwrap_err().to_string();
    assert!(refused.contains("it is the store itself"), "{refused}");
    assert!(files::names(dir.path()).iter().all(|n| !n.contains("swap") && !n.contains("new")));
}

#[tokio::test]
async fn a_backup_deletes_and_replaces_nothing_that_it_did_not_make() {
    let bench = filled(10).await;
    let dir = bench.dir.path();
    let (target, beside) = (dir.join("out.db"), dir.join("out.db.tmp"));
    std::fs::write(&beside, "somebody's").unwrap();
    backup::backup(dir, &target, false).unwrap();
    assert_eq!(std::fs::read(&beside).unwrap(), b"somebody's");
    for name in [DATABASE, "queue.db-wal", "queue.db.v1", "lock", "ballast", "login-prod.json"] {
        let refused = backup::backup(dir, &dir.join(name), true).unwrap_err();
        assert!(matches!(refused, backup::CopyError::Ours(_)), "{name}: {refused}");
    }
    // A link is replaced; what it leads to is not written to.
    let (link, victim) = (dir.join("link.db"), dir.join("victim"));
    std::fs::write(&victim, "not ours").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    backup::backup(dir, &link, true).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"not ours");
    let exported = backup::keep(backup::export(dir).unwrap(), dir, &dir.join("again.db"), false).unwrap();
    assert_eq!(exported.bytes, std::fs::metadata(dir.join("again.db")).unwrap().len());
    assert!(files::names(dir).iter().all(|name| !name.contains("copy-")), "{:?}", files::names(dir));
}

#[tokio::test]
async fn a_link_with_a_name_of_ours_is_not_followed() {
    let (dir, _) = closed(filled(10).await).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let victim = elsewhere.path().join("victim");
    std::fs::write(&victim, "root's own").unwrap();
    for name in ["queue.db.swap.tmp", "queue.db.new", "ballast", "probe", "queue.db-wal"] {
        let _ = std::fs::remove_file(dir.path().join(name));
        std::os::unix::fs::symlink(&victim, dir.path().join(name)).unwrap();
    }
    // An exchange that was under way, for each way a start can take.
    std::fs::write(dir.path().join("queue.db.swap"), "repair\nqueue.db.corrupt-x\nby hand\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 10);
    assert_eq!(std::fs::read(&victim).unwrap(), b"root's own");
    let meta = std::fs::metadata(&victim).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&meta) & 0o777, 0o644 & !umask());
}

/// The umask of this process, as a file shows it that is made without any other mode.
fn umask() -> u32 {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), "").unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(dir.path().join("x")).unwrap());
    0o666 & !mode
}

/// Spoils a file.
type Spoiling<'a> = Box<dyn Fn() + 'a>;

#[tokio::test]
async fn what_is_no_sound_store_is_not_restored() {
    let bench = filled(40).await;
    let whole = bench.dir.path().join("whole.db");
    backup::backup(bench.dir.path(), &whole, false).unwrap();
    let (dir, _) = closed(bench).await;
    let bad = dir.path().join("bad.db");
    let spoils: [(&str, Spoiling<'_>); 4] = [
        ("not a file", Box::new(|| std::fs::write(&bad, "").unwrap())),
        ("not a database", Box::new(|| std::fs::write(&bad, "x".repeat(9_000)).unwrap())),
        (
            "checksum of delivery",
            Box::new(|| {
                std::fs::copy(&whole, &bad).unwrap();
                rusqlite::Connection::open(&bad)
                    .unwrap()
                    .execute_batch("UPDATE delivery SET severity = 0")
                    .unwrap();
            }),
        ),
        (
            "cannot be restored",
            Box::new(|| {
                std::fs::copy(&whole, &bad).unwrap();
                overwrite(&bad, leaves(&bad, "ticket")[0] * 4096, &[0; 4096]);
            }),
        ),
    ];
    for (words, spoil) in spoils {
        spoil();
        let refused = restored(&settings(dir.path()), &bad).unwrap_err().to_string();
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let bench = Bench::open(dir, |_| {});
    assert_eq!(count(&bench, "SELECT count(*) FROM alert"), 40, "what was there is untouched");
}
