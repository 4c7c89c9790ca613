//! `otrelay backup` and `restore`: the whole store as one file, out beside a running service and in again, without a
//! twin; and the way back from an upgrade.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::agent::Agent;
use crate::support::eve;
use crate::support::{assert_one_each, simulator};

#[test]
fn a_backup_of_a_running_service_comes_back_without_twins() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let service = agent.start();
    agent.feed(eve::alerts(0..10));
    agent.until_status("they are kept", |s| s["backlog"] == 10);
    let file = agent.dir().join("copy.db");
    let name = file.to_str().unwrap();
    let said = agent.json(&["backup", name]);
    let bytes = fs::read(&file).unwrap();
    assert_eq!(said["bytes"], bytes.len());
    assert_eq!(said["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    agent.run(&["backup", name]).ends(1).says("exists; nothing was written");
    assert!(fs::read(&file).unwrap() == bytes);
    agent.run(&["backup", "--force", name]).ends(0).says("SHA-256");
    agent.run(&["restore", name]).ends(75).says("in use by another otrelay");

    // What waited in the copy is delivered after it was made.
    agent.feed(eve::alerts(10..15));
    agent.until_status("more is kept", |s| s["backlog"] == 15);
    agent.run(&["sync"]).ends(0);
    assert_eq!(service.stop(), 0);
    agent.run(&["restore", name]).ends(0).says("is restored").says("before-restore-");
    assert_eq!(agent.status()["backlog"], 10);
    // Its cursors are those of then: the later lines are read again.
    agent.once().ends(0).says("0 tickets created, 15 found there already");
    assert_one_each(&simulator, (0..15).map(eve::short));
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.once().ends(0);
    let file = agent.dir().join("bad.db");
    let name = file.to_str().unwrap();
    let before = fs::read(agent.state().join("queue.db")).unwrap();
    agent.run(&["restore", name]).ends(1).says("cannot be restored");
    fs::write(&file, "no database at all, and longer than a header would be").unwrap();
    agent.run(&["restore", name]).ends(1).says("cannot be restored");
    let copy = agent.dir().join("copy.db");
    agent.run(&["backup", copy.to_str().unwrap()]).ends(0);
    let conn = rusqlite::Connection::open(&copy).unwrap();
    conn.execute_batch("UPDATE ticket SET generation = 7").unwrap();
    drop(conn);
    agent.run(&["restore", copy.to_str().unwrap()]).ends(1).says("checksum of ticket 1 does not match");
    assert!(fs::read(agent.state().join("queue.db")).unwrap() == before);
    agent.run(&["backup", "/nonexistent/copy.db"]).ends(1).says("/nonexistent/copy.db");
    Agent::new(&simulator).run(&["backup", "never.db"]).ends(1).says("there is no store at");
}
