//! `otrelay diag`: an archive for others to read. What is in it comes first; no secret in any form, no alert.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use otrelay::model::Secret;
use otrelay::simulator::Options;

use crate::support::agent::Agent;
use crate::support::eve::alert;
use crate::support::simulator_with;

const CLIENT_SECRET: &str = "canary-client-7c1e";
const PASSWORD: &str = "canary-password-93ab";

fn unpacked(agent: &Agent, name: &str) -> String {
    let mut text = String::new();
    let file = fs::File::open(agent.dir().join(name)).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn the_archive_has_what_helps_and_no_secret_and_no_alert() {
    let own = |text: &str| Secret::new("test", text);
    let simulator = simulator_with(Options {
        password: own(PASSWORD),
        clients: vec![("otrelay".to_owned(), own(CLIENT_SECRET))],
        ..Options::default()
    });
    let agent = Agent::new(&simulator);
    agent.secrets(CLIENT_SECRET, PASSWORD);
    agent.append_config(
        "\n[[test]]\nname = \"a case\"\ninput = { kind = \"suricata-eve\", line = '{\"x\":\"plant-secret\"}' }\n\
         expect = { rules = [] }\n",
    );
    simulator.add_fault("status=400:method=POST,path=/api,count=1".parse().unwrap());
    agent.feed(alert(1).signature("plant-secret valve opened", 7).line());
    agent.feed(alert(2).signature("plant-secret pump stopped", 8).severity(4).line());
    agent.feed("{\"event_type\":\"alert\",\"plant-secret\n");
    agent.once().ends(1).says("1 dead");

    agent
        .run(&["diag", "--output", "one.gz"])
        .ends(0)
        .says("status   what `otrelay status --json` says")
        .says("zcat one.gz");
    let text = unpacked(&agent, "one.gz");
    assert!(text.starts_with("otrelay diag\n\nWhat is in it:\n  machine  versions"), "{text}");
    for part in ["machine", "config", "status", "dead", "counts"] {
        assert!(text.contains(&format!("\n===== {part}\n")), "no {part}: {text}");
    }
    for words in ["servicenow.prod.instance", "a fault asked for this status", "\"syncs\"", "dead-letters"] {
        assert!(text.contains(words), "no `{words}` in {text}");
    }
    for canary in ["canary", "Y2FuYXJ5", "Nhbmfyes", "jYW5hcn", "plant-secret", "10.64.0.1"] {
        assert!(!text.contains(canary), "{canary} in {text}");
    }
    let mode = fs::metadata(agent.dir().join("one.gz")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    agent.run(&["diag", "--output", "one.gz"]).ends(1).says("cannot write one.gz");

    // Texts of sensors only when they are asked for.
    agent.run(&["diag", "--samples", "--output", "two.gz"]).ends(0).says("texts of your sensors");
    let text = unpacked(&agent, "two.gz");
    assert!(text.contains("plant-secret pump stopped") && text.contains("\"rejected\""), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_secret_that_got_into_the_config_as_text_is_taken_out() {
    let simulator = simulator_with(Options::default());
    let agent = Agent::new(&simulator);
    agent.secrets(CLIENT_SECRET, PASSWORD);
    let base64 = "Y2FuYXJ5LWNsaWVudC03YzFl";
    agent.append_config(&format!(
        "[rule.action.fields]\nwork_notes = \"{CLIENT_SECRET}\"\ncomments = \"{base64}\"\nu_x = \"{}\"\n",
        PASSWORD.to_uppercase()
    ));
    agent.run(&["diag", "--output", "one.gz"]).ends(0);
    let text = unpacked(&agent, "one.gz");
    assert!(text.contains("work_notes") && text.contains("***"), "{text}");
    for canary in [CLIENT_SECRET, base64, "CANARY"] {
        assert!(!text.contains(canary), "{canary} in {text}");
    }
}

#[test]
fn it_helps_also_before_the_first_start_and_with_a_broken_config() {
    let simulator = simulator_with(Options::default());
    let agent = Agent::new(&simulator);
    agent.append_config("nonsense = 1\n");
    agent.run(&["diag", "--output", "one.gz"]).ends(0);
    let text = unpacked(&agent, "one.gz");
    assert!(text.contains("nonsense") && text.contains("===== store"), "{text}");
}
