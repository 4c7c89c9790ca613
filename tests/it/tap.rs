//! `otrelay tap`: alerts with their decision as they are made, and nothing left out without a word.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::support::agent::{Agent, Said, terminate};
use crate::support::eve::{self, alert};
use crate::support::simulator;

const RULES: &str = r#"
[[exclude]]
name = "scanner"
titles = ["*scan*"]
[[rule]]
name = "Critical"
min_severity = "critical"
[[rule.action]]
servicenow = "prod"
"#;

/// One that watches.
struct Tap {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Tap {
    /// Begins, and waits until nothing is missed any more.
    fn new(agent: &Agent, args: &[&str]) -> Self {
        let mut command = agent.command(&[&["tap"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 8];
        child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"watching");
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// What it says until it ends.
    fn ends(mut self) -> Said {
        let (mut out, mut err) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.as_mut().unwrap().read_to_string(&mut err).unwrap();
        Said { code: self.child.wait().unwrap().code().unwrap_or(-1), out, err }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tap {
    fn leave(&self) {
        terminate(&self.child);
    }
}

#[test]
fn each_alert_is_shown_with_what_became_of_it() {
    let simulator = simulator();
    let agent = Agent::new(&simulator).rules(RULES);
    let service = agent.start();
    let mut tap = Tap::new(&agent, &["--json"]);
    let mut excluded = Tap::new(&agent, &["--excluded"]);
    let mut two = Tap::new(&agent, &["--rule", "Critical", "--limit", "2"]);
    agent.feed(alert(1).line());
    agent.feed(alert(2).severity(3).line());
    agent.feed(alert(3).signature("A \u{1b}[31mscan\u{202e} of ports", 3).line());
    // Seen again: shown again.
    agent.feed(alert(1).line());

    let one = tap.json();
    assert_eq!(one["title"], eve::title(1));
    assert_eq!(one["outcome"], "forwarded");
    assert_eq!(
        one["tickets"],
        serde_json::json!([{ "rule": "Critical", "destination": "prod", "table": "incident" }])
    );
    assert!(one["time"].as_str().unwrap().ends_with('Z') && one["from"].is_string(), "{one}");
    let other = tap.json();
    assert_eq!((&other["title"], &other["outcome"]), (&eve::title(2).into(), &"filtered".into()));
    assert_eq!(other["reason"], "below every rule's severity");
    assert_eq!((&tap.json()["reason"], &tap.json()["title"]), (&"scanner".into(), &eve::title(1).into()));

    let line = excluded.line();
    assert!(line.contains(" eve critical ") && line.contains("scan of ports"), "{line:?}");
    assert!(line.ends_with("[excluded: scanner]\n") && !line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
    let line = two.line();
    assert!(line.ends_with("[rule Critical → prod incident]\n"), "{line:?}");
    assert_eq!(two.ends().ends(0).out.lines().count(), 1);
    // The finding is the one of the list, which has it a moment later: it is shown when it is decided.
    let finding = crate::support::until("it is in the list", || {
        let list = agent.json(&["alerts", "--grep", &eve::title(1)]);
        list[0]["fingerprint"].as_str().map(str::to_owned)
    });
    assert_eq!(finding, one["fingerprint"]);

    // A reload goes on telling.
    service.hang_up();
    crate::support::until("it has reloaded", || agent.logged().contains("reload").then_some(()));
    agent.feed(alert(4).line());
    assert_eq!(tap.json()["title"], eve::title(4));

    assert_eq!(service.stop(), 0);
    tap.ends().ends(0).says("the service stops");
}

#[test]
fn who_cannot_watch_is_told_why() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.run(&["tap"]).ends(1).says("there is nothing to watch; start it");
    agent.run(&["tap", "--filtered", "--excluded"]).ends(2).says("cannot be used with");
    agent.run(&["tap", "--severity", "loud"]).ends(2).says("expected warning, minor, major or critical");
    let service = agent.start();
    let taps: Vec<Tap> = (0..4).map(|_| Tap::new(&agent, &[])).collect();
    agent.run(&["tap"]).ends(1).says("4 are watching already");
    agent.status();
    // A place is given back, and who has it sees what comes.
    taps[0].leave();
    let said = crate::support::until("a place is free", || {
        let mut command = agent.command(&["tap", "--json", "--limit", "1"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 8];
        child.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        (&first == b"watching").then_some(Tap { child, out })
    });
    agent.feed(alert(1).line());
    said.ends().ends(0).says("\"title\"");
    // A service that is gone without a word is one.
    service.kill();
    let last = taps.into_iter().next_back().unwrap();
    last.ends().ends(1).says("the service ended without a word");
}
