//! What systemd sees of the real binary: readiness, one line of status, signs of life, reload and stop, on a socket of
//! the test in the place of the service manager's.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::agent::{Agent, Service};
use crate::support::{eve, simulator, until};

/// The service manager's end.
struct Manager {
    ear: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(agent: &Agent) -> Self {
        let ear = UnixDatagram::bind(agent.dir().join("notify")).unwrap();
        ear.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { ear, heard: Vec::new() }
    }

    /// Starts the service under this manager.
    fn start(agent: &Agent, watchdog: Option<Duration>) -> (Self, Service) {
        let manager = Self::new(agent);
        let mut command = agent.command(&["run"]);
        command.env("NOTIFY_SOCKET", agent.dir().join("notify"));
        if let Some(limit) = watchdog {
            command.env("WATCHDOG_USEC", limit.as_micros().to_string());
        }
        (manager, agent.start_command(command))
    }

    fn listen(&mut self) {
        let mut buffer = [0; 4_096];
        while let Ok(n) = self.ear.recv(&mut buffer) {
            self.heard.extend(String::from_utf8(buffer[..n].to_vec()).unwrap().lines().map(str::to_owned));
        }
    }

    /// Listens until this was said, beginning with what was not asked for yet; gives all that was said before it.
    #[track_caller]
    fn until_said(&mut self, words: &str) -> Vec<String> {
        until(&format!("systemd hears `{words}`"), || {
            self.listen();
            let at = self.heard.iter().position(|said| said.contains(words))?;
            Some(self.heard.drain(..=at).collect())
        })
    }
}

#[test]
fn ready_is_said_when_the_store_is_open_and_the_sources_are_read() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..5));
    let (mut manager, service) = Manager::start(&agent, None);
    let before = manager.until_said("READY=1");
    assert!(!before.iter().any(|said| said.starts_with("WATCHDOG")), "{before:?}");
    assert!(agent.state().join("queue.db").exists());
    manager.until_said("backlog 5");
    // The first sync comes by itself.
    let said = manager.until_said("Last sync");
    let last = said.last().unwrap();
    assert!(last.contains("5 created") && last.contains("; next ") && last.ends_with("backlog 0"), "{last}");
    assert_eq!(service.stop(), 0);
    manager.until_said("STOPPING=1");
    assert!(!manager.heard.iter().any(|said| said.starts_with("WATCHDOG")), "nobody asked for one");
}

#[test]
fn a_source_that_cannot_be_opened_does_not_keep_the_service_from_being_ready() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).pattern("nothing-here.json");
    let (mut manager, _service) = Manager::start(&agent, None);
    manager.until_said("READY=1");
    manager.until_said("STATUS=source eve: ");
}

#[test]
fn no_ready_while_another_agent_has_the_state_directory() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let _first = agent.start();
    let mut manager = Manager::new(&agent);
    let mut command = agent.command(&["run"]);
    command.env("NOTIFY_SOCKET", agent.dir().join("notify"));
    assert_eq!(command.output().unwrap().status.code(), Some(75));
    manager.listen();
    assert!(!manager.heard.iter().any(|said| said == "READY=1"), "{:?}", manager.heard);
}

#[test]
fn a_database_that_somebody_else_holds_is_no_reason_to_be_killed() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (mut manager, _service) = Manager::start(&agent, Some(Duration::from_secs(2)));
    manager.until_said("READY=1");
    manager.until_said("WATCHDOG=1");
    let other = rusqlite::Connection::open(agent.state().join("queue.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    agent.feed(eve::alerts(0..3));
    // The writer answers each question after five seconds of waiting, so three answers are more than one wait.
    for _ in 0..3 {
        manager.until_said("WATCHDOG=1");
        std::thread::sleep(Duration::from_secs(2));
    }
    other.execute_batch("ROLLBACK").unwrap();
    agent.until_status("all are taken in", |status| status["backlog"] == 3);
    assert!(!agent.logged().contains("has not moved"), "{}", agent.logged());
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (mut manager, service) = Manager::start(&agent, None);
    manager.until_said("READY=1");
    service.hang_up();
    manager.until_said("RELOADING=1");
    let said = manager.until_said("READY=1");
    assert!(said.iter().any(|said| said.starts_with("MONOTONIC_USEC=")), "{said:?}");

    agent.append_config("[sync]\ninterval = \"1s\"\n");
    service.hang_up();
    manager.until_said("RELOADING=1");
    manager.until_said("READY=1");
    manager.until_said("STATUS=reload refused");
    agent.restore_config();
    service.hang_up();
    manager.until_said("RELOADING=1");
    manager.until_said("READY=1");
    let said = manager.until_said("STATUS=");
    assert!(!said.last().unwrap().contains("refused"), "{said:?}");
}

#[test]
fn a_flood_of_garbage_does_not_fill_the_journal() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let mut command = agent.command(&["run"]);
    // Not where stderr goes, so the prefix of sd-daemon(3) is written.
    command.env("JOURNAL_STREAM", "1:1");
    let service = agent.start_command(command);
    for n in 0..40 {
        agent.feed(format!("{{\"event_type\":\"alert\", garbage {n}\u{1b}[2J\n").repeat(50));
        std::thread::sleep(Duration::from_millis(60));
    }
    agent.until_status("all is counted", |s| s["sources"][0]["rejected"]["malformed"] == 2_000);
    assert_eq!(service.stop(), 0);
    let logged = agent.logged();
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains("were not understood")).collect();
    assert!(lines.len() <= 6, "{lines:#?}");
    // How many batches there were is the machine's affair; what was kept back is told, at the stop at the latest.
    assert!(lines.len() < 6 || lines[5].contains("more like this in the last minute"), "{lines:#?}");
    assert!(lines.iter().all(|line| line.starts_with("<4>")), "{lines:#?}");
    assert!(!logged.contains('\u{1b}'), "{logged}");
}
