//! Why the store is set up as it is; docs/figures.md has the results. Three questions to SQLite alone, with rows as
//! large as the store's: what durability costs (`synchronous` FULL against NORMAL, by rows in a commit), what a random
//! key in a unique index costs, and how many flipped bits `integrity_check` finds. `cargo bench --bench settings
//! [-- sync|keys|bits]`; for people, not a gate.
#![expect(clippy::print_stdout, reason = "a table for people")]

#[expect(dead_code, reason = "shared with the other benches")]
mod machine;

use std::path::Path;

use machine::{Cost, Reading, wanted};
use ring::digest::{SHA256, digest};
use rusqlite::{Connection, params};

const BODY: usize = 600;
/// What `store/index.rs` writes at once.
const RUN: usize = 4_096;

fn main() {
    let wanted = wanted();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on a real disk");
    if wanted("sync") {
        sync(dir.path());
    }
    if wanted("keys") {
        keys(dir.path());
    }
    if wanted("bits") {
        bits(dir.path());
    }
    println!("peak of memory {:.1} MiB", machine::peak_mib());
}

/// The store's settings (`src/store/schema.rs`) but for `synchronous`.
fn open(path: &Path, synchronous: &str) -> Connection {
    let conn = Connection::open(path).expect("a database");
    let set = format!(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 1000; PRAGMA cache_size = -2000;
         PRAGMA mmap_size = 0; PRAGMA journal_size_limit = 8388608;"
    );
    conn.execute_batch(&set).expect("known settings");
    conn
}

/// A body of a row; letters, so that it is text as JSON is.
fn body(number: u64) -> String {
    format!("{number:020}").chars().cycle().take(BODY).collect()
}

/// The first eight bytes of a hash: what a fingerprint looks like to an index.
fn random_key(number: u64) -> i64 {
    let hash = digest(&SHA256, &number.to_le_bytes());
    i64::from_be_bytes(hash.as_ref()[..8].try_into().expect("eight bytes"))
}

/// Inserts `rows` in commits of `batch`; `also` does what the row needs besides.
fn insert(conn: &Connection, path: &Path, rows: u64, batch: u64, mut also: impl FnMut(u64, i64)) -> Cost {
    let before = Reading::take(path);
    for start in (0..rows).step_by(batch as usize) {
        conn.execute_batch("BEGIN IMMEDIATE").expect("no other writer");
        for number in start..rows.min(start + batch) {
            conn.prepare_cached("INSERT INTO item (body) VALUES (?1)")
                .and_then(|mut insert| insert.execute(params![body(number)]))
                .expect("room on the disk");
            also(number, conn.last_insert_rowid());
        }
        conn.execute_batch("COMMIT").expect("a sound disk");
    }
    before.until(&Reading::take(path))
}

fn per_second(rows: u64, cost: &Cost) -> f64 {
    rows as f64 / cost.wall.as_secs_f64()
}

fn sync(dir: &Path) {
    println!("synchronous: rows of {BODY} bytes a second, by rows in a commit");
    println!("{:>6} {:>12} {:>12} {:>12} {:>8}", "rows", "OFF", "NORMAL", "FULL", "FULL/NORMAL");
    for batch in [1, 10, 100, 1_000, 4_000] {
        let rows = (batch * 400).min(400_000);
        let [off, normal, full] = ["OFF", "NORMAL", "FULL"].map(|mode| {
            let mut runs: Vec<f64> = (0..5)
                .map(|run| {
                    let path = dir.join(format!("{mode}-{batch}-{run}.db"));
                    let conn = open(&path, mode);
                    conn.execute_batch(
                        "CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT",
                    )
                    .expect("an empty database");
                    per_second(rows, &insert(&conn, &path, rows, batch, |_, _| ()))
                })
                .collect();
            runs.sort_by(f64::total_cmp);
            runs[2]
        });
        println!("{batch:>6} {off:>12.0} {normal:>12.0} {full:>12.0} {:>8.2}", full / normal);
    }
}

fn keys(dir: &Path) {
    const ROWS: u64 = 200_000;
    const BATCH: u64 = 100;
    println!("keys: {ROWS} rows of {BODY} bytes, {BATCH} in a commit, FULL");
    println!("{:<44} {:>10} {:>12} {:>12}", "unique index", "rows/s", "wchar/row", "disk/row");
    for (name, key) in [
        ("none", None),
        ("key that grows", Some((|number| number as i64) as fn(u64) -> i64)),
        ("random key", Some(random_key as fn(u64) -> i64)),
    ] {
        let path = dir.join(format!("{name}.db"));
        let conn = open(&path, "FULL");
        conn.execute_batch(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
             CREATE TABLE fingerprint (prefix INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (prefix, id))
             STRICT, WITHOUT ROWID;",
        )
        .expect("an empty database");
        let cost = insert(&conn, &path, ROWS, BATCH, |number, id| {
            if let Some(key) = key {
                add(&conn, key(number), id);
            }
        });
        show(name, ROWS, &cost);
    }
    let path = dir.join("runs.db");
    let conn = open(&path, "FULL");
    conn.execute_batch(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
         CREATE TABLE fingerprint (prefix INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (prefix, id))
         STRICT, WITHOUT ROWID;",
    )
    .expect("an empty database");
    let mut run = Vec::with_capacity(RUN);
    let cost = insert(&conn, &path, ROWS, BATCH, |number, id| {
        run.push((random_key(number), id));
        if run.len() == RUN {
            run.sort_unstable();
            run.drain(..).for_each(|(key, id)| add(&conn, key, id));
        }
    });
    show("random key, in sorted runs of 4 096 (ours)", ROWS, &cost);
}

fn add(conn: &Connection, key: i64, id: i64) {
    conn.prepare_cached("INSERT INTO fingerprint (prefix, id) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute([key, id]))
        .expect("room on the disk");
}

fn show(name: &str, rows: u64, cost: &Cost) {
    println!(
        "{name:<44} {:>10.0} {:>12.0} {:>12.0}",
        per_second(rows, cost),
        cost.wchar as f64 / rows as f64,
        cost.write_bytes as f64 / rows as f64
    );
}

/// One flipped bit at a time in a database of rows, then put back.
fn bits(dir: &Path) {
    const FLIPS: u64 = 1_000;
    let path = dir.join("bits.db");
    let conn = open(&path, "FULL");
    conn.execute_batch("CREATE TABLE item (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT")
        .expect("an empty database");
    insert(&conn, &path, 2_000, 100, |_, _| ());
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("no reader");
    drop(conn);

    let whole = std::fs::read(&path).expect("its own file");
    let broken = dir.join("broken.db");
    let mut random = fastrand::Rng::with_seed(7);
    let (mut found, mut changed, mut unread) = (0, 0, 0);
    for _ in 0..FLIPS {
        let mut bytes = whole.clone();
        let at = random.usize(100..bytes.len());
        bytes[at] ^= 1 << random.u8(0..8);
        std::fs::write(&broken, &bytes).expect("room on the disk");
        let conn = Connection::open(&broken).expect("a file");
        let verdict: Result<String, _> = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0));
        if verdict.as_deref() != Ok("ok") {
            found += 1;
            continue;
        }
        match other_rows(&conn) {
            0 => unread += 1,
            _ => changed += 1,
        }
    }
    println!(
        "bits: of {FLIPS} flipped bits integrity_check found {found}; {changed} changed a row unnoticed, \
         {unread} were where nothing is kept"
    );
}

/// Rows that are not as they were written.
fn other_rows(conn: &Connection) -> u64 {
    let mut select = conn.prepare("SELECT id, body FROM item ORDER BY id").expect("the table");
    let mut rows = select.query([]).expect("no parameters");
    let (mut other, mut count) = (0, 0);
    while let Ok(Some(row)) = rows.next() {
        count += 1;
        let (id, text): (i64, Vec<u8>) = (
            row.get(0).unwrap_or(-1),
            row.get_ref(1).map_or(Vec::new(), |v| v.as_bytes().unwrap_or(&[]).to_vec()),
        );
        other += u64::from(text != body(id as u64 - 1).as_bytes());
    }
    other + u64::from(count != 2_000)
}
