//! Client secret and password: in no output, no file of the state directory, no argument and no environment.

use std::fs;
use std::path::Path;

use otrelay::model::Secret;
use otrelay::simulator::Options;

use crate::support::agent::Agent;
use crate::support::{eve, simulator_with};

const CLIENT_SECRET: &str = "canary-client-7c1e";
const PASSWORD: &str = "canary-password-93ab";

/// Neither as they are nor as they go over the wire.
#[track_caller]
fn assert_clean(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for canary in ["canary", "Y2FuYXJ5", "Nhbmfyes", "jYW5hcn"] {
        assert!(!text.contains(canary), "{canary} in {what}: {text}");
    }
}

fn walk(dir: &Path, seen: &mut usize) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, seen);
        } else if let Ok(bytes) = fs::read(&path) {
            assert_clean(&path.display().to_string(), &bytes);
            *seen += 1;
        }
    }
}

#[test]
fn no_secret_is_shown_or_stored() {
    let own = |text: &str| Secret::new("test", text);
    let simulator = simulator_with(Options {
        password: own(PASSWORD),
        clients: vec![("otrelay".to_owned(), own(CLIENT_SECRET))],
        ..Options::default()
    });
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..5));
    fs::write(agent.dir().join("some.json"), eve::alerts(0..1)).unwrap();
    let every: [&[&str]; 12] = [
        &["run", "--once"],
        &["sync"],
        &["sync", "--dry-run", "--json"],
        &["status", "--json"],
        &["tickets", "--json"],
        &["alerts", "--json"],
        &["queue", "list", "--state", "delivered", "--json"],
        &["queue", "show", "1", "--json"],
        &["explain", "some.json", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
        &["check", "--json"],
    ];
    let sweep = || {
        for args in every {
            let said = agent.run(&[args, &["--verbose"]].concat());
            assert_clean(&format!("the output of {args:?}"), (said.out + &said.err).as_bytes());
        }
    };
    // Refused at first: errors quote most.
    for (secret, password) in
        [("canary-wrong-1", PASSWORD), (CLIENT_SECRET, "canary-wrong-2"), (CLIENT_SECRET, PASSWORD)]
    {
        agent.secrets(secret, password);
        sweep();
    }
    assert_eq!(simulator.records("incident").len(), 5);

    // Login again and again, answers that are pages, a body that breaks off, with everything logged.
    for fault in ["revoke-token:count=1,path=/api", "html-login:count=1,path=/api", "truncated-json:count=1"]
    {
        simulator.add_fault(fault.parse().unwrap());
    }
    let service = agent.start_with(&["--verbose"]);
    agent.feed(eve::alerts(5..9));
    agent.until_status("they are read", |status| status["sources"][0]["alerts"] == 9);
    for _ in 0..3 {
        agent.run(&["sync", "--verbose"]);
    }
    for name in ["cmdline", "environ"] {
        match fs::read(format!("/proc/{}/{name}", service.id())) {
            Ok(bytes) => assert_clean(name, &bytes),
            // Only root may look into it.
            Err(e) => assert_eq!((name, e.kind()), ("environ", std::io::ErrorKind::PermissionDenied)),
        }
    }
    service.kill();
    let mut seen = 0;
    walk(&agent.state(), &mut seen);
    assert!(seen >= 2, "{seen} files");
    for name in ["service.out", "service.err"] {
        assert_clean(name, &fs::read(agent.dir().join(name)).unwrap());
    }
    assert!(fs::metadata(agent.dir().join("service.err")).unwrap().len() > 100);
}

#[test]
fn the_state_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let simulator = simulator_with(Options::default());
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..2));
    let service = agent.start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&agent.state()), 0o700);
    let mut files = 0;
    for entry in fs::read_dir(agent.state()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files += 1;
    }
    assert!(files >= 3, "{files} files");
    assert_eq!(service.stop(), 0);
}
