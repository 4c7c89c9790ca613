//! From an older version to this one and back: every alert is still there, each is delivered once, a copy of the old
//! store is beside the new one, and what fails on the way leaves the old one usable.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use crate::support::agent::Agent;
use crate::support::{assert_one_each, eve, simulator, values};

const FIXTURE: &str = include_str!("../fixtures/store/0.1.0.sql");
const SHORT: &str = "short_description";

/// Makes the state directory of an agent one that 0.1.0 left behind.
fn as_0_1_0_left_it(agent: &Agent) {
    fs::create_dir(agent.state()).unwrap();
    let conn = Connection::open(agent.state().join("queue.db")).unwrap();
    conn.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA foreign_keys = OFF; PRAGMA journal_mode = WAL",
    )
    .unwrap();
    conn.execute_batch(FIXTURE).unwrap();
    conn.execute_batch("PRAGMA user_version = 1").unwrap();
    fs::write(agent.state().join("lock"), "4711\n").unwrap();
}

fn one<T: rusqlite::types::FromSql>(path: &Path, sql: &str) -> T {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn version(path: &Path) -> i64 {
    one(path, "SELECT user_version FROM pragma_user_version")
}

#[test]
fn what_0_1_0_kept_is_delivered_once_and_nothing_is_lost() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    as_0_1_0_left_it(&agent);
    agent.once().ends(1).says("12 tickets created, 0 found there already, 0 waiting, 2 dead");
    assert_one_each(&simulator, (11..23).map(eve::short));
    let status = agent.status();
    assert_eq!(status["heals"], serde_json::json!([]), "{status:#}");
    assert_eq!(status["destinations"][0]["counts"]["delivered"], 9 + 12, "{status:#}");
    let alerts = agent.json(&["alerts"]);
    let titles: Vec<&str> =
        alerts.as_array().unwrap().iter().rev().map(|a| a["alert"]["title"].as_str().unwrap()).collect();
    assert_eq!(titles, (0..23).map(eve::title).collect::<Vec<_>>());

    // Seen again, they are known.
    agent.feed(eve::alerts(0..23));
    agent.once().ends(1).says("0 tickets created");
    agent.run(&["queue", "retry", "--all-dead"]).ends(0);
    agent.once().ends(0).says("2 tickets created");
    let expected: Vec<String> =
        (0..23).map(eve::short).filter(|t| values(&simulator, "incident", SHORT).contains(t)).collect();
    assert_eq!(expected.len(), 14);
    assert!(simulator.twins().is_empty());
}

#[test]
fn the_old_store_is_kept_beside_the_new_one_and_the_way_back_is_open() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    as_0_1_0_left_it(&agent);
    // What an upgrade that was cut short left: half a copy, and an old one of an earlier attempt.
    fs::write(agent.state().join("queue.db.v1.tmp"), "half").unwrap();
    fs::write(agent.state().join("queue.db.v1"), "of earlier").unwrap();
    agent.once().ends(1);
    let copy = agent.state().join("queue.db.v1");
    assert_eq!(version(&copy), 1);
    assert_eq!(one::<i64>(&copy, "SELECT count(*) FROM delivery WHERE state = 'pending'"), 12);
    assert!(!agent.state().join("queue.db.v1.tmp").exists());
    let database = agent.state().join("queue.db");
    assert!(version(&database) > 1);

    agent.run(&["restore", copy.to_str().unwrap()]).ends(0).says("before-restore-");
    assert_eq!(version(&database), 1, "the older version can use it");
    assert_eq!(one::<String>(&database, "PRAGMA integrity_check"), "ok");
    // And this one again, without a twin.
    agent.once().ends(1).says("0 tickets created, 12 found there already, 0 waiting, 2 dead");
    assert_one_each(&simulator, (11..23).map(eve::short));
}

#[test]
fn a_step_that_fails_leaves_the_old_store_as_it_was() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    as_0_1_0_left_it(&agent);
    let database = agent.state().join("queue.db");
    // The last step cannot be done.
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE heal (x)").unwrap();
    for _ in 0..2 {
        agent.once().ends(1).says("it is as it was").says("heal");
        assert_eq!(version(&database), 1);
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name = 'body_pack'";
        assert_eq!(one::<i64>(&database, tables), 0, "no step was done");
        assert_eq!(one::<i64>(&database, "SELECT count(*) FROM alert_body"), 23);
    }
    Connection::open(&database).unwrap().execute_batch("DROP TABLE heal").unwrap();
    agent.once().ends(1).says("12 tickets created");
    assert_one_each(&simulator, (11..23).map(eve::short));
}

#[test]
fn without_room_for_a_copy_the_upgrade_goes_on_and_says_so() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).buffer("max_size = \"8MiB\"");
    as_0_1_0_left_it(&agent);
    let database = agent.state().join("queue.db");
    let conn = Connection::open(&database).unwrap();
    conn.execute_batch(
        "CREATE TABLE ballast (x); INSERT INTO ballast VALUES (zeroblob(5000000)); DROP TABLE ballast",
    )
    .unwrap();
    drop(conn);
    agent.once().ends(1).says("without a copy of the old one").says("12 tickets created");
    assert!(!agent.state().join("queue.db.v1").exists());
    assert!(version(&database) > 1);
}
