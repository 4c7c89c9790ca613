//! A wrong config: every problem is named with file, line and key, the command exits with 78, and no secret is shown.
//!
//! `fixtures/config/bad/` holds wrong files (or folders with a main file and `conf.d`) beside what is said about them,
//! `good/` those that work. `OTRELAY_BLESS=1` writes the answers anew, to be read before they are committed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use otrelay::cli::check::{CheckArgs, check};
use otrelay::cli::config::{ConfigArgs, ConfigCommand, config};
use otrelay::config::Environment;

/// Stands where the tests need a secret; may be in no output at all.
const CANARY: &str = "canary-5f2a";

fn fixtures(which: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config").join(which)
}

fn environment(dir: &Path) -> Environment {
    let vars = BTreeMap::from([
        ("PASSWORD", CANARY.to_owned()),
        ("EMPTY", String::new()),
        ("LONG", "x".repeat(64 * 1024 + 1)),
        ("OTRELAY_CONFIG", dir.join("otrelay.toml").to_str().unwrap().to_owned()),
        ("CREDENTIALS_DIRECTORY", dir.join("credentials").to_str().unwrap().to_owned()),
        ("STATE_DIRECTORY", dir.to_str().unwrap().to_owned()),
    ]);
    Environment::new(move |name| vars.get(name).cloned())
}

/// Copies a fixture to where nothing else lies beside it, with modes that do not depend on the checkout.
fn install(fixture: &Path, dir: &Path) {
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).unwrap();
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o640)).unwrap();
    };
    if fixture.is_file() {
        copy(fixture, &dir.join("otrelay.toml"));
        return;
    }
    copy(&fixture.join("otrelay.toml"), &dir.join("otrelay.toml"));
    std::fs::create_dir(dir.join("conf.d")).unwrap();
    for entry in std::fs::read_dir(fixture.join("conf.d")).unwrap() {
        let entry = entry.unwrap();
        copy(&entry.path(), &dir.join("conf.d").join(entry.file_name()));
    }
}

struct Answer {
    code: u8,
    out: String,
    err: String,
}

fn run(
    dir: &Path,
    command: impl FnOnce(&Environment, &mut Vec<u8>, &mut Vec<u8>) -> std::io::Result<u8>,
) -> Answer {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = command(&environment(dir), &mut out, &mut err).unwrap();
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains(CANARY), "a secret is shown: {text}");
        text.replace(&format!("{}/", dir.display()), "").replace(dir.to_str().unwrap(), "DIR")
    };
    Answer { code, out: text(out), err: text(err) }
}

fn check_in(dir: &Path, json: bool) -> Answer {
    run(dir, |environment, out, err| check(&CheckArgs { json }, environment, |_, _| Ok(()), out, err))
}

fn config_in(dir: &Path, command: ConfigCommand) -> Answer {
    run(dir, |environment, out, err| config(&ConfigArgs { command }, environment, |_, _| Ok(()), out, err))
}

/// Without the code that stands behind each error, and behind nothing else.
fn without_codes(text: &str) -> String {
    let line = |line: &str| {
        if line.contains("warning: ") || line.starts_with("config cannot be used") {
            return format!("{line}\n");
        }
        let (words, code) = line.rsplit_once(" (E2").unwrap_or_else(|| panic!("no code: {line}"));
        assert_eq!(code.len(), 3, "{line}");
        format!("{words}\n")
    };
    text.lines().map(line).collect()
}

fn cases(which: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(fixtures(which))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    cases
}

#[test]
fn every_bad_config_is_answered_as_written_beside_it() {
    let cases = cases("bad");
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut differing = Vec::new();
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        install(&case, dir.path());
        let answer = check_in(dir.path(), false);
        assert_eq!((answer.code, answer.out.as_str()), (78, ""), "{}: {}", case.display(), answer.err);
        let answer = Answer { err: without_codes(&answer.err), ..answer };
        let beside = case.with_extension("expected");
        if std::env::var_os("OTRELAY_BLESS").is_some() {
            std::fs::write(&beside, &answer.err).unwrap();
        }
        let expected = std::fs::read_to_string(&beside).unwrap_or_default();
        if answer.err != expected {
            let name = case.file_name().unwrap().display();
            differing.push(format!("{name}\n--- expected\n{expected}--- found\n{}", answer.err));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_good_config_is_ok() {
    let cases = cases("good");
    assert!(cases.len() >= 5, "{} cases", cases.len());
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        install(&case, dir.path());
        let answer = check_in(dir.path(), false);
        assert_eq!(answer.code, 0, "{}: {}", case.display(), answer.err);
        assert!(answer.out.starts_with("config OK: "), "{}", answer.out);
        let shown = config_in(dir.path(), ConfigCommand::Show { json: false });
        assert_eq!(shown.code, 0, "{}", shown.err);
        let values: toml::Table = shown.out.parse().unwrap_or_else(|e| panic!("{e}: {}", shown.out));
        assert!(values["sync"]["interval"].is_str(), "{}", shown.out);
    }
}

#[test]
fn machines_get_the_same_as_json() {
    let dir = tempfile::tempdir().unwrap();
    install(&fixtures("bad").join("unknown_keys.toml"), dir.path());
    let answer = check_in(dir.path(), true);
    assert_eq!((answer.code, answer.err.as_str()), (78, ""));
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(report["ok"], false);
    let first = &report["errors"][0];
    assert_eq!((&first["file"], &first["key"]), (&"otrelay.toml".into(), &"sync.intervall".into()));
    assert_eq!(first["hint"], "did you mean `interval`?");
    assert!(first["line"].is_u64() && first["column"].is_u64(), "{first}");

    install(&fixtures("good").join("small.toml"), dir.path());
    let answer = check_in(dir.path(), true);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((answer.code, &report["ok"], &report["sources"]), (0, &true.into(), &1.into()));
}

#[test]
fn warnings_do_not_stop_and_go_to_stderr() {
    let dir = tempfile::tempdir().unwrap();
    install(&fixtures("good").join("small.toml"), dir.path());
    let answer = check_in(dir.path(), false);
    assert_eq!(answer.out, "config OK: 1 source, 1 rule, 1 destination\n");
    assert_eq!(
        answer.err,
        "warning: source eve: path: no file matches /nonexistent/eve*.json now; right if the sensor has not written \
         yet; else check it\n"
    );
}

#[test]
fn show_masks_secrets_and_names_origins() {
    let dir = tempfile::tempdir().unwrap();
    install(&fixtures("good").join("bare_secrets.toml"), dir.path());
    let shown = config_in(dir.path(), ConfigCommand::Show { json: false });
    assert!(shown.out.contains("client_secret = \"(written in the config)\""), "{}", shown.out);
    let shown = config_in(dir.path(), ConfigCommand::Show { json: true });
    let report: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    let origin = |key: &str| {
        let values = report["values"].as_array().unwrap();
        let entry =
            values.iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key}: {report:#}"));
        entry["origin"].as_str().unwrap().to_owned()
    };
    assert_eq!(origin("sync.interval"), "default");
    assert_eq!(origin("agent.state_dir"), "environment, $STATE_DIRECTORY");
    assert_eq!(origin("agent.name"), "otrelay.toml:2");
}

#[test]
fn the_example_is_a_config_that_lacks_only_its_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let example = config_in(dir.path(), ConfigCommand::Example);
    assert_eq!(example.code, 0);
    let path = dir.path().join("otrelay.toml");
    std::fs::write(&path, &example.out).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let answer = check_in(dir.path(), false);
    assert_eq!(answer.code, 78);
    let lines: Vec<&str> = answer.err.lines().collect();
    assert_eq!(lines.len(), 5, "{}", answer.err);
    assert!(
        lines[0].contains("still the address of the example") && lines[0].contains("otrelay init"),
        "{}",
        answer.err
    );
    assert!(lines[1].contains("client_id: this is still the text of the example"), "{}", answer.err);
    assert!(lines[2..4].iter().all(|line| line.contains("credential servicenow-")), "{}", answer.err);
}

#[test]
fn the_schema_is_json_with_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let answer = config_in(dir.path(), ConfigCommand::Schema { alert: false });
    let schema: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["servicenow"].is_object(), "{schema:#}");
}
