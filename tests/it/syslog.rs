//! Syslog as senders send it: each message a ticket, whatever is not taken counted, and what a kill loses.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use otrelay::simulator::{Options, Running};
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::eve::alert;
use crate::support::{simulator, simulator_with, until, values};

/// Everything goes to the table `incident`.
const ALL: &str = r#"
[[rule]]
name = "All"
[[rule.action]]
servicenow = "prod"
"#;

/// A port that is free now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An agent that listens there, UDP and TCP, with more lines of the source.
fn agent(simulator: &Running, address: SocketAddr, more: &str) -> Agent {
    let agent = Agent::new(simulator).rules(ALL);
    agent.append_config(&format!(
        "\n[[source]]\nname = \"sensors\"\nkind = \"syslog\"\nlisten = [\"udp://{address}\", \"tcp://{address}\"]\n{more}\n"
    ));
    agent
}

fn connect(address: SocketAddr) -> TcpStream {
    until("a connection", || TcpStream::connect(address).ok())
}

fn cef(name: &str, pairs: &str) -> String {
    format!("<134>Nov 21 08:00:00 ids-7 CEF:0|Acme|Watch|1|7|{name}|10|src=10.0.0.1 dst=10.0.0.2 {pairs}")
}

fn source(status: &Value) -> &Value {
    status["sources"].as_array().unwrap().iter().find(|source| source["name"] == "sensors").unwrap()
}

fn lines(status: &Value) -> u64 {
    let sources = status["sources"].as_array().unwrap();
    sources
        .iter()
        .find(|source| source["name"] == "sensors")
        .map_or(0, |source| source["lines"].as_u64().unwrap())
}

/// Who sends meanwhile finds the same sockets, however long a request that is in flight takes.
#[test]
fn a_reload_takes_no_listener_away() {
    let delay = "delay=4000:method=POST,path=/api/now/table,count=1".parse().unwrap();
    let options = Options { faults: vec![delay], batch_api: false, ..Options::default() };
    let (simulator, address) = (simulator_with(options), free());
    let agent = agent(&simulator, address, "");
    let path = agent.dir().join("eve.sock");
    agent.append_config(&format!(
        "\n[[source]]\nname = \"engine\"\nkind = \"suricata-eve\"\nlisten = \"unix_dgram://{}\"\n",
        path.display()
    ));
    let service = agent.start();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(address).unwrap();
    let unix = UnixDatagram::unbound().unwrap();
    until("the socket is there", || unix.connect(&path).ok());
    // One is on its way to the instance when the reload comes.
    udp.send(cef("first", "").as_bytes()).unwrap();
    agent.until_status("it is read", |status| lines(status) == 1);
    let mut sync = agent.command(&["sync"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    until("it is on its way", || (simulator.requests() > 2).then_some(()));
    let before = agent.logged().matches("the config was reloaded").count();
    service.hang_up();
    // As many as every kernel keeps for a socket, spread over the whole reload.
    for n in 0..80 {
        udp.send(cef(&format!("message {n}"), "").as_bytes()).unwrap();
        unix.send(alert(n).line().as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let taken = |status: &Value| {
        let sources = status["sources"].as_array().unwrap();
        let alerts = |name: &str| sources.iter().find(|s| s["name"] == name).map(|s| s["alerts"].clone());
        (alerts("sensors"), alerts("engine")) == (Some(json!(81)), Some(json!(80)))
    };
    agent.until_status("all are taken in", taken);
    until("the reload is over", || {
        (agent.logged().matches("the config was reloaded").count() > before).then_some(())
    });
    sync.wait().unwrap();
    assert_eq!(service.stop(), 0);
    assert!(!path.exists(), "who connects now is told that nobody is there");
}

#[test]
fn every_message_is_a_ticket_and_says_that_nobody_knows_its_sender() {
    let (simulator, address) = (simulator(), free());
    let agent = agent(&simulator, address, "");
    let service = agent.start();
    let mut stream = connect(address);
    let counted = cef("counted", "app=modbus");
    write!(stream, "{} {counted}", counted.len()).unwrap();
    writeln!(
        connect(address),
        "{}\n<11>Nov 21 08:00:00 gw-1 watchdog: link is down\nGET / HTTP/1.1",
        cef("a line", "")
    )
    .unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(cef("a datagram", "").as_bytes(), address).unwrap();
    let status = agent.until_status("five messages", |status| lines(status) == 5);
    let sensors = source(&status);
    assert_eq!(
        (&sensors["alerts"], &sensors["new"], &sensors["unauthenticated"]),
        (&json!(4), &json!(4), &json!(4))
    );
    assert_eq!(sensors["rejected"], json!({"malformed": 1}), "{status:#}");
    agent.run(&["status"]).ends(0).says("4 alerts from senders that are not authenticated");
    agent.run(&["alerts", "--rejected"]).ends(0).says("tcp from 127.0.0.1");
    agent.run(&["sync"]).ends(0);
    until("four tickets", || (simulator.records("incident").len() == 4).then_some(()));
    let told = values(&simulator, "incident", "description").join("\n");
    for words in ["unauthenticated sender 127.0.0.1 (TCP)", "unauthenticated sender 127.0.0.1 (UDP)", "ids-7"]
    {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn senders_that_may_not_send_are_counted() {
    let (simulator, address) = (simulator(), free());
    let agent = agent(&simulator, address, "allow = [\"10.20.0.0/16\"]");
    let service = agent.start();
    let _connection = connect(address);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(cef("x", "").as_bytes(), address).unwrap();
    let status = agent.until_status("both", |status| lines(status) == 2);
    assert_eq!(source(&status)["rejected"], json!({"foreign sender": 2}), "{status:#}");
    assert_eq!(service.stop(), 0);
}

/// Senders that say nothing have all the places of a listener.
#[test]
fn a_listener_without_a_place_is_named_by_status_and_doctor() {
    let (simulator, address) = (simulator(), free());
    let agent = agent(&simulator, address, "");
    let service = agent.start();
    let first = connect(address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = runtime.block_on(async {
        let mut held = Vec::new();
        for at in 0..63 {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::from(([127, 0, 0, 2 + at % 2], 0))).unwrap();
            held.push(socket.connect(address).await.unwrap());
        }
        held
    });
    // It looks for half a second; on a slow machine not every look is long enough.
    let said = until("doctor names it", || {
        Some(agent.run(&["doctor"])).filter(|said| said.out.contains("closes it at once"))
    });
    said.ends(1);
    let status = agent.until_status("the crowd", |status| {
        status["health"].as_array().unwrap().iter().any(|issue| issue["code"] == "turned-away")
    });
    assert!(source(&status)["rejected"]["over the limit"].as_u64() >= Some(1), "{status:#}");
    agent.run(&["status"]).ends(0).says("connections are turned away").says("E132");
    drop((first, held));
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_listener_for_everybody_is_refused() {
    let (simulator, address) = (simulator(), free());
    let agent = agent(&simulator, address, "");
    agent.append_config(
        "\n[[source]]\nname = \"open\"\nkind = \"syslog\"\nlisten = [\"udp://0.0.0.0:5514\"]\n",
    );
    agent.run(&["check"]).ends(78).says("anybody who can reach udp://0.0.0.0:5514 could send alerts");
}

/// TCP knows no answer. What a kill loses is what was on its way: the buffers of both kernels, and what was read and not
/// committed. Nothing before it is missing, and what is sent afterwards arrives.
#[test]
fn a_kill_loses_only_what_was_on_its_way() {
    const MANY: usize = 6_000;
    const SENDERS_BUFFER: usize = 64 * 1024;
    // Our receive buffer and the sender's, each twice as large as was asked for; and at most four full batches with one
    // read of the connection (lane, commit, filling, one behind).
    const ON_ITS_WAY: usize = 2 * (128 * 1024 + SENDERS_BUFFER) + 4 * 1024 * 1024 / 2 + 32 * 1024;
    let (simulator, address) = (simulator(), free());
    let mut agent = agent(&simulator, address, "");
    agent.set_sync("enabled = false");
    agent.append_config(&format!(
        "\n[[source]]\nname = \"sensors\"\nkind = \"syslog\"\nlisten = [\"tcp://{address}\"]\n"
    ));
    let message = |number: usize| {
        format!(
            "{}\n",
            cef(&format!("n{number:05}"), &format!("externalId={number} msg={}", "x".repeat(800)))
        )
    };
    let service = agent.start();
    let stream = connect(address);
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, SENDERS_BUFFER).unwrap();
    // What the kernel has taken counts as sent: more than that no sender of syslog knows.
    let sender = std::thread::spawn(move || {
        let mut stream = stream;
        (0..MANY).take_while(|number| stream.write_all(message(*number).as_bytes()).is_ok()).count()
    });
    agent.until_status("some messages", |status| lines(status) >= 500);
    service.kill();
    let sent = sender.join().unwrap();

    let service = agent.start();
    let mut stream = connect(address);
    let again: Vec<usize> = (MANY..MANY + 100).collect();
    for number in &again {
        stream.write_all(message(*number).as_bytes()).unwrap();
    }
    drop(stream);
    let stored = |agent: &Agent| -> Vec<usize> {
        let mut all: Vec<usize> = agent
            .json(&["alerts", "-n", "0"])
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| alert["alert"]["title"].as_str().unwrap()[1..].parse().unwrap())
            .collect();
        all.sort_unstable();
        all
    };
    until("what was sent afterwards", || stored(&agent).ends_with(&again).then_some(()));
    let mut all = stored(&agent);
    all.truncate(all.len() - again.len());
    let before: Vec<usize> = (0..all.len()).collect();
    assert_eq!(all, before, "a message is missing before the kill, or is there twice");
    let lost = (sent - all.len()) * message(0).len();
    assert!(lost <= ON_ITS_WAY, "{lost} bytes were lost");
    assert_eq!(service.stop(), 0);
}
