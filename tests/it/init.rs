//! `otrelay init`: from nothing to a ticket, what it writes and how, and what it refuses before it writes anything.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use otrelay::model::Secret;
use otrelay::simulator::{Options, Running};
use tempfile::TempDir;

use crate::support::agent::Said;
use crate::support::{eve, simulator_with, values};

const CLIENT_SECRET: &str = "canary-client-41";
const PASSWORD: &str = "canary-pass\"word-42";

fn instance() -> Running {
    let own = |text: &str| Secret::new("test", text);
    simulator_with(Options {
        password: own(PASSWORD),
        clients: vec![("otrelay".to_owned(), own(CLIENT_SECRET))],
        ..Options::default()
    })
}

/// A machine with a sensor's log and nothing of otrelay.
struct Box {
    dir: TempDir,
}

impl Box {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("it-").tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::write(dir.path().join("log/eve.json"), eve::alerts(0..3)).unwrap();
        fs::write(dir.path().join("client-secret"), format!("{CLIENT_SECRET}\r\n")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("etc/otrelay.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn otrelay(&self, args: &[&str], stdin: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otrelay"));
        command.env_clear().current_dir(self.dir.path()).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It may end before it reads.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(!text.contains("canary"), "a secret is shown: {text}");
            text
        };
        Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// As Ansible would: every answer is an argument or a descriptor, and nobody is asked.
    fn init(&self, simulator: &Running, more: &[&str], password: &str) -> Said {
        let (config, log, state) = (self.config(), self.path("log/eve*.json"), self.path("state"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (config, log, state) = (text(&config), text(&log), text(&state));
        let mut args =
            vec!["init", "--yes", "--output", &config, "--instance", simulator.url(), "--state-dir", &state];
        args.extend([
            "--suricata-path",
            &log,
            "--zeek-path",
            "-",
            "--client-id",
            "otrelay",
            "--username",
            "admin",
        ]);
        args.extend(["--client-secret-file", "client-secret", "--password-fd", "0", "--backfill", "all"]);
        args.extend(more);
        self.otrelay(&args, &format!("{password}\n"))
    }

    fn written(&self) -> bool {
        self.path("etc").exists()
    }
}

#[test]
fn init_leads_from_nothing_to_a_ticket() {
    let (simulator, machine) = (instance(), Box::new());
    let said = machine.init(&simulator, &["--min-severity", "critical"], PASSWORD);
    let said =
        said.ends(0).says("lets otrelay log in and read the table incident").says("config OK: 1 source");
    assert!(said.out.contains("next: otrelay --config"), "{said:?}");
    for (name, mode) in
        [("", 0o750), ("otrelay.toml", 0o600), ("secrets", 0o750), ("secrets/servicenow-password", 0o600)]
    {
        let path = machine.path("etc").join(name);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode, "{}", path.display());
    }
    assert_eq!(fs::read_to_string(machine.path("etc/secrets/servicenow-password")).unwrap(), PASSWORD);
    assert!(!machine.text().contains("canary"), "{}", machine.text());
    assert_eq!(fs::read_dir(machine.path("etc/secrets")).unwrap().count(), 2);
    let config = machine.config();
    machine.otrelay(&["--config", config.to_str().unwrap(), "run", "--once"], "").ends(0);
    let mut titles = values(&simulator, "incident", "short_description");
    titles.sort();
    assert_eq!(titles.len(), 3, "{titles:?}");
    assert!((0..3).zip(&titles).all(|(n, title)| title.contains(&eve::title(n))), "{titles:?}");
}

#[test]
fn a_wrong_answer_is_named_by_its_argument() {
    let (simulator, machine) = (instance(), Box::new());
    let said =
        machine.init(&simulator, &["--min-severity", "high"], PASSWORD).ends(78).says("--min-severity: ");
    assert!(!said.err.contains("rule[1]") && !said.err.contains("secret itself"), "{said:?}");
    assert!(!machine.written());
}

#[test]
fn what_is_missing_is_named_at_once() {
    let machine = Box::new();
    let output = machine.config();
    let args = [
        "init",
        "--yes",
        "--output",
        output.to_str().unwrap(),
        "--suricata-path",
        "-",
        "--zeek-path",
        "-",
        "--defender-url",
        "-",
    ];
    machine
        .otrelay(&args, "")
        .ends(2)
        .says("--instance, --client-id, --client-secret-file or --client-secret-fd, --username, --password-file or --password-fd")
        .says("a source (--suricata-path, --zeek-path or --defender-url)");
    assert!(!machine.written());
    machine
        .otrelay(&[&args[..], &["--auth", "jwt-bearer"]].concat(), "")
        .ends(2)
        .says("the others are for an editor");
    machine.otrelay(&["init", "--client-secret", "x"], "").ends(2);
}

#[test]
fn nothing_is_written_when_an_answer_cannot_be_used_or_the_instance_refuses() {
    let (simulator, machine) = (instance(), Box::new());
    machine
        .init(&simulator, &["--min-severity", "high"], PASSWORD)
        .ends(78)
        .says("--min-severity: ")
        .says("\"critical\"");
    machine.init(&simulator, &[], "wrong").ends(1).says("nothing was written; --offline");
    machine.init(&simulator, &[], "").ends(1).says("Password: expected one line");
    machine.init(&simulator, &["--secrets", "credential"], PASSWORD).ends(1).says("needs the packaged unit");
    assert!(!machine.written());
    machine.init(&simulator, &["--offline"], "wrong").ends(0);
    assert!(machine.written());
    // Where nothing else is said, the config that --config names is the one that is written.
    let args = [
        "--config",
        "etc/otrelay.toml",
        "init",
        "--yes",
        "--offline",
        "--instance",
        "https://acme.service-now.com",
    ];
    let more = [
        "--auth",
        "api-key",
        "--api-key-fd",
        "0",
        "--zeek-path",
        "/opt/zeek/logs/current/*.log",
        "--suricata-path",
        "-",
    ];
    machine.otrelay(&[&args[..], &more].concat(), "key\n").ends(1).says("etc/otrelay.toml is there already");
    machine.otrelay(&[&args[..], &more, &["--force"]].concat(), "key\n").ends(0);
    assert!(machine.text().contains("api_key = { file ="), "{}", machine.text());
}

#[test]
fn a_config_that_is_there_is_kept() {
    let (simulator, machine) = (instance(), Box::new());
    machine.init(&simulator, &[], PASSWORD).ends(0);
    // After a power cut between two files the same command goes on.
    fs::remove_file(machine.config()).unwrap();
    machine.init(&simulator, &[], PASSWORD).ends(0);
    let before = machine.text();
    let said = machine.init(&simulator, &["--min-severity", "minor"], PASSWORD).ends(1);
    said.says("otrelay.toml is there already; --force replaces it");
    assert_eq!(machine.text(), before);
    machine
        .init(&simulator, &["--min-severity", "minor", "--force"], PASSWORD)
        .ends(0)
        .says("the old one is");
    assert!(machine.text().contains("\"minor\""), "{}", machine.text());
    let kept = fs::read_dir(machine.path("etc")).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = kept.filter(|path| path.to_str().unwrap().contains(".before-init-")).collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), before);
    // What the package brought is nobody's work.
    let example = machine.otrelay(&["config", "example"], "").ends(0).out;
    fs::write(machine.config(), example).unwrap();
    machine.init(&simulator, &[], PASSWORD).ends(0);
    assert!(machine.text().contains(simulator.url()));
}

#[test]
fn a_link_in_the_place_of_a_secret_is_not_followed() {
    let (simulator, machine) = (instance(), Box::new());
    let secrets = machine.path("etc/secrets");
    fs::create_dir_all(&secrets).unwrap();
    fs::write(machine.path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(machine.path("victim"), secrets.join("servicenow-password")).unwrap();
    for more in [&[][..], &["--force"]] {
        machine
            .init(&simulator, more, PASSWORD)
            .ends(1)
            .says("nothing was written")
            .says("servicenow-password");
    }
    assert_eq!(fs::read_to_string(machine.path("victim")).unwrap(), "untouched");
}
