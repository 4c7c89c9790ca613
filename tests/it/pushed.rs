//! Alerts that are pushed over HTTP: what is answered with 200 is on disk, whatever comes after; what is not alerts is
//! told line by line; nobody gets in without the token.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::{simulator, until};

const TOKEN: &str = "canary-of-the-push-token";

/// An agent that listens, and where.
fn listening(simulator: &otrelay::simulator::Running) -> (Agent, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = Agent::new(simulator);
    let token = agent.dir().join("push-token");
    std::fs::write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let source = format!(
        "[[source]]\nname = \"push\"\nkind = \"http\"\nlisten = \"{address}\"\ntoken = {{ file = \"{}\" }}\n",
        token.display()
    );
    (agent.rules(&format!("{source}{CRITICAL}")), address)
}

/// Status and body of the answer.
fn push(address: SocketAddr, headers: &str, body: &[u8]) -> (u16, Value) {
    let mut stream = until("it listens", || TcpStream::connect(address).ok());
    let head = format!(
        "POST /alerts HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn bearer() -> String {
    format!("authorization: Bearer {TOKEN}\r\n")
}

/// What the source has counted.
fn counted(agent: &Agent) -> Value {
    let status = agent.status();
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == "push").cloned().unwrap_or_default()
}

#[test]
fn what_was_answered_survives_a_kill() {
    let simulator = simulator();
    let (agent, address) = listening(&simulator);
    let service = agent.start();
    let body =
        b"{\"title\":\"Door of cabinet 7 open\",\"severity\":\"critical\"}\nnonsense\n{\"id\":\"7\"}\n";
    let (status, answer) = push(address, &bearer(), body);
    assert_eq!((status, &answer["accepted"]), (200, &1.into()), "{answer}");
    service.kill();
    let rejected: Vec<_> = answer["rejected"].as_array().unwrap().iter().map(|r| r["line"].clone()).collect();
    assert_eq!(rejected, [2, 3]);
    let source = counted(&agent);
    assert_eq!(
        (&source["kind"], &source["lines"], &source["alerts"]),
        (&"http".into(), &3.into(), &1.into())
    );
    assert_eq!(
        (&source["rejected"]["malformed"], &source["rejected"]["missing field"]),
        (&1.into(), &1.into())
    );
    // Nothing of its sources can be read by a single run: a listener is the service's.
    agent.once().ends(1).says("1 ticket created");
    let tickets = agent.json(&["tickets"]);
    assert_eq!(tickets[0]["title"], "Door of cabinet 7 open");

    // The same again is no second finding.
    let service = agent.start();
    assert_eq!(push(address, &bearer(), body).0, 200);
    assert_eq!(counted(&agent)["repeats"], 1);
    assert_eq!(service.stop(), 0);
}

#[test]
fn nobody_gets_in_without_the_token_and_the_token_does_not_get_out() {
    let simulator = simulator();
    let (agent, address) = listening(&simulator);
    let service = agent.start();
    let alert = b"{\"title\":\"a\",\"severity\":\"critical\"}";
    assert_eq!(push(address, "", alert).0, 401);
    let (status, answer) = push(address, "authorization: Bearer canary-of-another\r\n", alert);
    assert_eq!(status, 401);
    assert!(!answer.to_string().contains("canary"), "{answer}");
    agent.until_status("the source is told, without a line", |_| counted(&agent)["lines"] == 0);
    assert_eq!(service.stop(), 0);
    let shown = agent.run(&["config", "show"]).ends(0);
    assert!(!shown.out.contains(TOKEN) && !agent.logged().contains(TOKEN));
}

#[test]
fn a_listener_that_is_open_to_others_does_not_pass_the_check() {
    let simulator = simulator();
    let (agent, _) = listening(&simulator);
    agent.run(&["check"]).ends(0);
    let text = std::fs::read_to_string(agent.config_path()).unwrap();
    let open = text.replace("listen = \"127.0.0.1", "listen = \"0.0.0.0");
    std::fs::write(agent.config_path(), open).unwrap();
    agent.run(&["check"]).ends(78).says("unencrypted from elsewhere").says("add tls");
}
