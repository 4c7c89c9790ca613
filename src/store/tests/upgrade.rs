//! A store of an older schema: it is taken over at once and without converting anything, and what was recorded by the
//! older program is listed, claimed, settled and forgotten like the rest.

use super::*;

/// Makes of what is there what schema 1 would have: a row for each body, no packs. The first delivery was tried and is
/// claimed, as a process that was killed leaves it.
fn to_schema_1(dir: &std::path::Path, alerts: &[(i64, Alert)]) {
    let conn = rusqlite::Connection::open(dir.join(DATABASE)).unwrap();
    conn.execute_batch(
        "DROP TABLE body_pack; DROP TABLE outcome; DROP TRIGGER ticket_live_insert; DROP TRIGGER ticket_live_update;
         CREATE UNIQUE INDEX ticket_live ON ticket (alert_id, route_id) WHERE state IN ('opening', 'open');
         UPDATE delivery SET state = 'claimed' WHERE id = 1;
         UPDATE tally SET value = value - 1 WHERE name = 'pending';
         INSERT INTO tally SELECT scope, 'claimed', 1 FROM tally WHERE name = 'pending';
         INSERT INTO attempt VALUES (1, 1, 7, 8, 'retry', 503, 'later');
         UPDATE delivery SET attempts = 1 WHERE id = 1;
         DROP TABLE heal; ALTER TABLE cursor DROP COLUMN crc; DELETE FROM meta WHERE key IN ('schema', 'id');
         DELETE FROM tally WHERE scope = 'store' AND name IN ('alerts', 'tickets', 'deliveries');
         PRAGMA application_id = 0; PRAGMA user_version = 1",
    )
    .unwrap();
    for (id, alert) in alerts {
        let body = serde_json::to_string(alert).unwrap();
        let crc = op::crc(&[*id], &[body.as_bytes()]);
        conn.execute(
            "INSERT INTO alert_body (alert_id, body, crc) VALUES (?1, ?2, ?3)",
            rusqlite::params![id, body, crc],
        )
        .unwrap();
    }
}

/// A closed store of schema 1 that holds the alerts 1 to `n`.
async fn old_store(n: u32) -> tempfile::TempDir {
    let bench = Bench::new();
    bench.record((1..=n).map(|n| entry(n, Severity::Major)).collect()).await;
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let alerts: Vec<_> = (1..=n).map(|n| (i64::from(n), alert(n, Severity::Major))).collect();
    to_schema_1(dir.path(), &alerts);
    dir
}

fn rows(bench: &Bench, table: &str) -> i64 {
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_store_of_schema_1_is_read_before_it_is_taken_over() {
    let dir = old_store(3).await;
    let reader = Reader::open(dir.path()).unwrap();
    let all = ListFilter::default();
    let titles: Vec<_> = reader.alerts(&all).unwrap().into_iter().map(|a| a.alert.unwrap().title).collect();
    assert_eq!(titles, ["alert 3", "alert 2", "alert 1"]);
    assert_eq!(reader.deliveries(DeliveryState::Pending, &all).unwrap()[0].title, "alert 2");
    let shown = reader.delivery(DeliveryId(1)).unwrap().unwrap();
    assert_eq!((shown.history.len(), shown.history[0].outcome.as_str()), (1, "retry"));
    let counts = &reader.overview().unwrap().destinations[0].counts;
    assert_eq!((counts["pending"], counts["claimed"]), (2, 1));
}

#[tokio::test]
async fn what_schema_1_recorded_goes_the_whole_way() {
    let bench = Bench::open(old_store(3).await, |_| {});
    assert_eq!((rows(&bench, "alert_body"), rows(&bench, "body_pack")), (3, 0), "nothing is converted");
    let counts = counts(&bench);
    assert_eq!((counts["pending"], counts["claimed"]), (2, 1));
    assert_eq!(bench.store.recover(NOW).await.unwrap(), 1);
    let history = bench.reader().delivery(DeliveryId(1)).unwrap().unwrap().history;
    assert_eq!(history.iter().map(|a| a.outcome.as_str()).collect::<Vec<_>>(), ["retry", "unfinished"]);
    let known = bench.record((1..=5).map(|n| entry(n, Severity::Major)).collect()).await;
    assert_eq!((known.new, known.repeats), (2, 3));
    assert_eq!((rows(&bench, "alert_body"), rows(&bench, "body_pack")), (3, 1));
    let undelivered = bench.store.undelivered(0, 10).await.unwrap();
    assert!(undelivered.iter().all(|u| u.alert.is_some()) && undelivered.len() == 5);
    let claimed = bench.claim(10).await;
    for (c, n) in claimed.iter().zip(1..) {
        assert_eq!(c.alert.as_ref(), Some(&alert(n, Severity::Major)));
        bench.settle(c, there(n)).await;
    }
    let by_text = ListFilter { text: Some("ALERT 2".to_owned()), ..ListFilter::default() };
    assert_eq!(bench.reader().tickets(&by_text).unwrap().len(), 1);
    bench.clock.advance(Duration::from_secs(86_400 * 31));
    assert_eq!(bench.store.prune().await.unwrap(), 5);
    for table in ["alert_body", "body_pack", "attempt", "outcome"] {
        assert_eq!(rows(&bench, table), 0, "{table}");
    }
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

/// Makes of what is there what schema 3 would have: one pack of these alerts, as an LZ4 block.
fn to_schema_3(dir: &std::path::Path, alerts: &[(i64, Alert)]) {
    let mut bodies = Vec::new();
    for (_, alert) in alerts {
        let facts = serde_json::to_string(&Alert { raw: String::new(), ..alert.clone() }).unwrap();
        for text in [&facts, &alert.raw] {
            bodies.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        }
        bodies.extend_from_slice(facts.as_bytes());
        bodies.extend_from_slice(alert.raw.as_bytes());
    }
    let packed = lz4_flex::block::compress(&bodies);
    let facts = [alerts[0].0, alerts[alerts.len() - 1].0, bodies.len() as i64];
    let crc = op::crc(&facts, &[&packed]);
    let conn = rusqlite::Connection::open(dir.join(DATABASE)).unwrap();
    conn.execute_batch(
        "DELETE FROM body_pack; UPDATE meta SET value = '3' WHERE key = 'schema'; PRAGMA user_version = 3",
    )
    .unwrap();
    conn.execute(
        "INSERT INTO body_pack (first_id, last_id, unpacked, crc, bodies) VALUES (?1, ?2, ?3, ?4, ?5)",
        rusqlite::params![facts[0], facts[1], facts[2], crc, packed],
    )
    .unwrap();
}

#[tokio::test]
async fn packs_of_schema_3_are_read_beside_those_of_today() {
    let noisy = |n: u32| {
        let mut entry = entry(n, Severity::Major);
        entry.alert.raw = noise(2_000);
        entry
    };
    let bench = Bench::new();
    let old: Vec<_> = (1..=3).map(noisy).collect();
    bench.record(old.clone()).await;
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let alerts: Vec<_> = (1..).zip(old.iter().map(|e| e.alert.clone())).collect();
    to_schema_3(dir.path(), &alerts);
    // Before it is taken over, and after.
    let titles = |reader: &Reader| -> Vec<_> {
        let all = reader.alerts(&ListFilter::default()).unwrap();
        all.into_iter().map(|a| a.alert.unwrap().title).collect()
    };
    assert_eq!(titles(&Reader::open(dir.path()).unwrap()), ["alert 3", "alert 2", "alert 1"]);
    let bench = Bench::open(dir, |_| {});
    let new: Vec<_> = (4..=6).map(noisy).collect();
    bench.record(new.clone()).await;
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    let text = |sql| conn.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("SELECT value FROM meta WHERE key = 'schema'"), "4");
    assert_eq!(text("SELECT group_concat(hex(substr(bodies, 1, 1)) = '01') FROM body_pack"), "0,1");
    let claimed = bench.claim(10).await;
    let bodies: Vec<_> = claimed.into_iter().map(|c| c.alert.unwrap()).collect();
    assert_eq!(bodies, old.into_iter().chain(new).map(|e| e.alert).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_body_of_schema_1_is_one_damaged_body() {
    let bench = Bench::open(old_store(4).await, |_| {});
    let conn = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
    // No text at all, no JSON, and JSON of something else.
    for (id, body) in [(1, "CAST(x'7b22ff' AS TEXT)"), (2, "'{\"title\": '"), (3, "'[1]'")] {
        conn.execute_batch(&format!("UPDATE alert_body SET body = {body} WHERE alert_id = {id}")).unwrap();
    }
    let listed = bench.reader().alerts(&ListFilter::default()).unwrap();
    assert_eq!(listed.iter().filter(|a| a.alert.is_some()).count(), 1);
    assert_eq!(bench.store.recover(NOW).await.unwrap(), 1);
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().map(|c| c.alert.is_some()).collect::<Vec<_>>(), [false, false, false, true]);
}

#[tokio::test]
async fn the_schema_refuses_a_second_live_ticket() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
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
