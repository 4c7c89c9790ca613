//! A power cut, a failing card, a wrong hand: whatever the database looks like, the agent starts, keeps what can be
//! read, counts what cannot, and delivers what it has without a twin.
//!
//! The mutations are deterministic. Each gets a copy of the same state (6 alerts delivered, 12 waiting), the same file
//! of the sensor (a hard link: a copy would be another file, and read from its beginning) and a simulator of its own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use otrelay::simulator::Running;
use serde_json::Value;

use crate::support::agent::{Agent, Said};
use crate::support::{assert_one_each, eve, simulator, until, values};

const DELIVERED: u32 = 6;
const ALL: u32 = 18;
const PAGE: u64 = 4096;

/// A state directory as a killed agent left it.
struct Base {
    agent: Agent,
    _simulator: Running,
    state: tempfile::TempDir,
}

impl Base {
    /// With its WAL, or with everything in the database.
    fn new(with_wal: bool) -> Self {
        let simulator = simulator();
        let agent = Agent::new(&simulator);
        let service = agent.start();
        agent.feed(eve::alerts(0..DELIVERED));
        agent.until_status("the first are kept", |s| s["backlog"] == DELIVERED);
        agent.run(&["sync"]).ends(0);
        agent.feed(eve::alerts(DELIVERED..ALL));
        agent.until_status("the others are kept", |s| s["backlog"] == ALL - DELIVERED);
        service.kill();
        let state = tempfile::tempdir().unwrap();
        copy_state(&agent.state(), state.path());
        if !with_wal {
            let path = state.path().join("queue.db");
            rusqlite::Connection::open(path)
                .unwrap()
                .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
                .unwrap();
        }
        Self { agent, _simulator: simulator, state }
    }

    /// An agent with this state and the same file of the sensor, and a simulator that knows nothing yet.
    fn again(&self) -> (Agent, Running) {
        let simulator = simulator();
        let agent = Agent::new(&simulator);
        fs::create_dir(agent.state()).unwrap();
        copy_state(self.state.path(), &agent.state());
        fs::hard_link(self.agent.log("eve.json"), agent.log("eve.json")).unwrap();
        (agent, simulator)
    }

    fn pages(&self) -> u64 {
        fs::metadata(self.state.path().join("queue.db")).unwrap().len() / PAGE
    }
}

fn copy_state(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.file_type().unwrap().is_file())
    {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// xorshift: the same numbers for the same seed on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn open(path: &Path) -> fs::File {
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, seed: u64) {
    let file = open(path);
    let mut numbers = Numbers(seed * 0x9e37_79b9 + 1);
    let at = numbers.below(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << numbers.below(8)], at).unwrap();
}

fn zero_page(path: &Path, page: u64) {
    open(path).write_all_at(&[0; PAGE as usize], page * PAGE).unwrap();
}

fn truncate(path: &Path, bytes: u64) {
    open(path).set_len(bytes).unwrap();
}

fn swap_pages(path: &Path, a: u64, b: u64) {
    let file = open(path);
    let (mut one, mut other) = ([0; PAGE as usize], [0; PAGE as usize]);
    file.read_exact_at(&mut one, a * PAGE).unwrap();
    file.read_exact_at(&mut other, b * PAGE).unwrap();
    file.write_all_at(&other, a * PAGE).unwrap();
    file.write_all_at(&one, b * PAGE).unwrap();
}

fn kept(agent: &Agent) -> Vec<PathBuf> {
    let entries = fs::read_dir(agent.state()).unwrap().map(|e| e.unwrap().path());
    let is_kept = |p: &PathBuf| {
        let name = p.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("queue.db.corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    entries.filter(is_kept).collect()
}

/// A run, and another where it ended because it met damage: that one repairs it.
fn once(agent: &Agent) -> Said {
    let said = agent.once();
    if said.code == 74 { agent.once() } else { said }
}

/// One pass of an agent over a spoilt state; true when the database was made anew.
#[track_caller]
fn judge(what: &str, agent: &Agent, simulator: &Running) -> bool {
    let said = once(agent);
    // A row whose checksum is wrong is a dead letter: 1.
    assert!(said.code == 0 || said.code == 1, "{what}: {said:#?}");
    let status = agent.status();
    let heals = status["repairs"].as_array().unwrap();
    assert_eq!(heals.len(), kept(agent).len(), "{what}: {status:#}");
    for heal in heals {
        assert!(agent.state().join(heal["kept_as"].as_str().unwrap()).exists(), "{what}");
        adds_up(what, heal);
        let words = "was damaged";
        assert!(status["health"].to_string().contains(words), "{what}: {status:#}");
    }
    let titles = values(simulator, "incident", "short_description");
    let known: BTreeSet<String> = (0..ALL).map(eve::short).collect();
    assert!(
        titles.windows(2).all(|pair| pair[0] != pair[1]) && simulator.twins().is_empty(),
        "{what}: {titles:#?}"
    );
    assert!(titles.iter().all(|title| known.contains(title)), "{what}: {titles:#?}");
    let missing: Vec<String> =
        (DELIVERED..ALL).map(eve::short).filter(|title| !titles.contains(title)).collect();
    let dead = status["dead"].as_i64().unwrap();
    assert!(missing.len() as i64 <= dead, "{what}: lost {missing:#?} {status:#}");
    assert_eq!(status["backlog"], 0, "{what}");
    !heals.is_empty()
}

/// Salvaged and lost are what there was.
#[track_caller]
fn adds_up(what: &str, heal: &Value) {
    for table in ["alert", "ticket", "delivery"] {
        let count = &heal["counts"][table];
        if count["at_least"] == true {
            assert_eq!(heal["rewound"], true, "{what}: {heal:#}");
        } else if !count.is_null() {
            let sum = count["salvaged"].as_u64().unwrap() + count["lost"].as_u64().unwrap();
            assert_eq!(sum, u64::from(ALL), "{what}, {table}: {heal:#}");
        }
    }
}

#[test]
fn a_zeroed_page_costs_what_was_on_it() {
    let base = Base::new(false);
    let mut healed = 0;
    for page in 0..base.pages() {
        let (agent, simulator) = base.again();
        zero_page(&agent.state().join("queue.db"), page);
        healed += u64::from(judge(&format!("page {page} zeroed"), &agent, &simulator));
    }
    assert!(healed > base.pages() / 2, "{healed} of {}", base.pages());
}

#[test]
fn damage_that_a_single_run_meets_ends_it_and_the_next_one_repairs_it() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    agent.feed(eve::alerts(0..40));
    agent.once().ends(75);
    let path = agent.state().join("queue.db");
    let root: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'delivery_due'", [], |row| row.get(0))
        .unwrap();
    // The last end was clean, so nothing is checked at the start.
    zero_page(&path, u64::try_from(root).unwrap() - 1);
    agent.set_sync("");
    agent.set_rules("[[rule]]\nname = \"Others\"\n[[rule.action]]\nservicenow = \"prod\"\n");
    agent.once().ends(74).says("the next start repairs it");
    agent.once().ends(0).says("made anew").says("40 tickets created");
    assert_one_each(&simulator, (0..40).map(eve::short));
}

#[test]
fn flipped_bits_cut_ends_and_pages_in_wrong_places_are_survived() {
    let base = Base::new(false);
    let database = |agent: &Agent| agent.state().join("queue.db");
    for seed in 1..=16 {
        let (agent, simulator) = base.again();
        flip(&database(&agent), seed);
        judge(&format!("bit flipped, seed {seed}"), &agent, &simulator);
    }
    let pages = base.pages();
    for bytes in [1, 50, 100, 4095, 4096, 3 * PAGE, pages / 2 * PAGE + 7, (pages - 1) * PAGE] {
        let (agent, simulator) = base.again();
        truncate(&database(&agent), bytes);
        assert!(judge(&format!("cut to {bytes}"), &agent, &simulator), "{bytes}");
    }
    let mut numbers = Numbers(7);
    for _ in 0..6 {
        let (agent, simulator) = base.again();
        let (a, b) = (numbers.below(pages), numbers.below(pages));
        swap_pages(&database(&agent), a, b);
        judge(&format!("pages {a} and {b} swapped"), &agent, &simulator);
    }
}

/// Spoils a file.
type Spoil = fn(&Path);

#[test]
fn what_is_not_even_a_database_is_set_aside() {
    let base = Base::new(false);
    let spoils: [(&str, Spoil); 4] = [
        ("empty", |path| fs::write(path, "").unwrap()),
        ("random", |path| {
            let mut numbers = Numbers(99);
            fs::write(path, (0..50_000).map(|_| numbers.below(256) as u8).collect::<Vec<_>>()).unwrap();
        }),
        ("another program's", |path| {
            fs::remove_file(path).unwrap();
            let sql = "CREATE TABLE places (url); INSERT INTO places VALUES ('x'); PRAGMA user_version = 70";
            rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
        }),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (what, spoil) in spoils {
        let (agent, simulator) = base.again();
        spoil(&agent.state().join("queue.db"));
        assert!(judge(what, &agent, &simulator), "{what}");
        // Everything is read again, and found or made: all 60.
        assert_eq!(values(&simulator, "incident", "short_description").len(), ALL as usize, "{what}");
    }
}

#[test]
fn a_damaged_wal_only_rewinds() {
    let base = Base::new(true);
    let wal = |agent: &Agent| agent.state().join("queue.db-wal");
    let size = fs::metadata(base.state.path().join("queue.db-wal")).unwrap().len();
    assert!(size > 0);
    let check = |what: &str, spoil: &dyn Fn(&Agent)| {
        let (agent, simulator) = base.again();
        spoil(&agent);
        judge(what, &agent, &simulator);
    };
    check("as it was", &|_| {});
    check("no WAL", &|agent| fs::remove_file(wal(agent)).unwrap());
    check("an empty WAL", &|agent| truncate(&wal(agent), 0));
    check("a WAL of zeros", &|agent| fs::write(wal(agent), vec![0; size as usize]).unwrap());
    check("garbage in the SHM", &|agent| {
        fs::write(agent.state().join("queue.db-shm"), vec![0xa5; 32_768]).unwrap();
    });
    for part in 1..6 {
        check(&format!("WAL cut to {part} sixths"), &|agent| truncate(&wal(agent), size / 6 * part));
    }
    for seed in 1..=8 {
        check(&format!("bit of the WAL flipped, seed {seed}"), &|agent| flip(&wal(agent), seed));
    }
    let stranger = Base::new(true);
    let theirs = fs::read(stranger.state.path().join("queue.db-wal")).unwrap();
    check("the WAL of another", &|agent| fs::write(wal(agent), &theirs).unwrap());
}

#[test]
fn a_healing_is_an_alert_for_the_rules_that_want_such() {
    let base = Base::new(false);
    let (mut agent, simulator) = base.again();
    agent.set_rules(
        "[[rule]]\nname = \"Critical\"\nmin_severity = \"critical\"\nreport_system_notifications = true\n\
         [[rule.action]]\nservicenow = \"prod\"\n[[rule]]\nname = \"Own\"\nmin_severity = \"major\"\n\
         report_alerts = false\nreport_system_notifications = true\n[[rule.action]]\nservicenow = \"prod\"\n\
         table = \"problem\"\n",
    );
    truncate(&agent.state().join("queue.db"), 6 * PAGE);
    agent.once().ends(0);
    agent.once().ends(0);
    let told = values(&simulator, "problem", "short_description");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("was damaged and made anew"), "{told:?}");
}

#[test]
fn a_newer_version_is_refused_and_its_files_stay_as_they_are() {
    let base = Base::new(true);
    let (agent, _simulator) = base.again();
    let path = agent.state().join("queue.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA user_version = 99").unwrap();
    drop(conn);
    let before = fs::read(&path).unwrap();
    agent.once().ends(78).says("written by a newer version");
    assert!(fs::read(&path).unwrap() == before, "it was changed");
    assert!(kept(&agent).is_empty());
}

#[test]
fn damage_under_a_running_service_ends_it_and_the_next_start_repairs_it() {
    let base = Base::new(false);
    let (agent, simulator) = base.again();
    let service = agent.start();
    // All but the first page is gone, and what the service has in its cache is taken for old.
    let path = agent.state().join("queue.db");
    let pages = fs::metadata(&path).unwrap().len() / PAGE;
    (1..pages).for_each(|page| zero_page(&path, page));
    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 1").unwrap();
    agent.feed(eve::alerts(ALL..ALL + 10));
    assert_eq!(service.ended(), 74);
    let service = agent.start();
    assert!(!agent.status()["repairs"].as_array().unwrap().is_empty());
    agent.until_status("what came is kept", |s| s["backlog"].as_u64() >= Some(10));
    agent.run(&["sync"]).ends(0);
    // What was lost is read again: the sources begin anew.
    let titles = until("all that the sensor's file holds has its ticket", || {
        agent.run(&["sync"]);
        let titles = values(&simulator, "incident", "short_description");
        (0..ALL + 10).map(eve::short).all(|title| titles.contains(&title)).then_some(titles)
    });
    assert_eq!(titles.len(), ALL as usize + 10, "{titles:#?}");
    assert!(simulator.twins().is_empty());
    assert_eq!(service.stop(), 0);
}
