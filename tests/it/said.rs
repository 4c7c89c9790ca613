//! What an operator reads in each failure of the other side: `otrelay status`, and the lines of the log that warn. One snapshot,
//! so that a change of words is seen beside all others.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use otrelay::simulator::Options;

use crate::support::agent::{Agent, CRITICAL};
use crate::support::{eve, redact, simulator_with};

/// What goes wrong, by the simulator's notation; empty: only the secret is wrong.
const FAILURES: [&str; 15] = [
    "",
    "unscoped:path=/api",
    "status=503:path=/api",
    "status=400:method=POST,path=/api/now/table",
    "hibernate:path=/api",
    "html-login:path=/api",
    "rate-limit=1800:path=/api",
    "semaphore:path=/api",
    "202:method=POST,path=/api/now/table",
    "replay:method=POST,path=/api/now/table",
    "truncated-json:method=POST,path=/api/now/table,count=1",
    "hide-table=incident",
    "hide-field=correlation_id",
    "refuses=valve",
    "throws=valve",
];

/// Likewise, for the second snapshot.
const MORE: [&str; 4] = [
    "status=401:path=/api",
    "status=404:method=POST,path=/api/now/table",
    "commit-drop:method=POST,path=/api/now/table/incident,count=1",
    "drop-field=short_description",
];

/// Lines that warn, each once, without their times.
fn warnings(log: &str) -> BTreeSet<String> {
    let warn = |line: &str| {
        let at = [" WARN ", " ERROR "].into_iter().filter_map(|word| line.find(word)).min()?;
        Some(line[at..].trim().to_owned())
    };
    log.lines().filter_map(warn).collect()
}

/// How many requests it took is another matter, and differs when a sync of its own comes in between.
fn without_counts(text: &str) -> String {
    let line = |line: &str| {
        let parts = line.split(", ").map(|part| match part.strip_suffix(" requests this hour") {
            Some(count) if count.bytes().all(|b| b.is_ascii_digit()) => "N requests this hour",
            _ => part,
        });
        parts.collect::<Vec<_>>().join(", ")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Starts the service on one alert, syncs, and gives what is to be read then.
fn read(name: &str, agent: &Agent, url: &str) -> String {
    agent.feed(eve::alerts(1..2));
    read_fed(name, agent, url, 1)
}

/// The same of so many alerts that are there.
fn read_fed(name: &str, agent: &Agent, url: &str, alerts: u32) -> String {
    let service = agent.start();
    agent.until_status("it is read", |status| status["sources"][0]["alerts"] == alerts);
    agent.run(&["sync"]);
    // What failed may be tried again at that very moment.
    let status = std::iter::repeat_with(|| agent.run(&["status"]).out)
        .take(400)
        .find(|status| !status.contains("running now"))
        .unwrap();
    assert_eq!(service.stop(), 0, "{name}");
    let log: Vec<String> = warnings(&agent.logged()).into_iter().collect();
    let name = if name.is_empty() { "a wrong secret" } else { name };
    let text = format!("=== {name}\n{status}--- log\n{}\n", log.join("\n"));
    let host = url.split("//").last().unwrap();
    let text = text
        .replace(url, "https://instance")
        .replace(host, "instance")
        .replace(agent.dir().to_str().unwrap(), "DIR");
    without_counts(&redact::times(&text))
}

#[test]
fn in_each_failure() {
    let mut all = Vec::new();
    for failure in FAILURES {
        let simulator = simulator_with(Options { batch_api: false, ..Options::default() });
        if !failure.is_empty() {
            simulator.add_fault(failure.parse().unwrap());
        }
        let agent = Agent::new(&simulator).destination("max_in_flight = 1");
        if failure.is_empty() {
            agent.secrets("wrong", "admin");
        }
        all.push(read(failure, &agent, simulator.url()));
    }
    insta::assert_snapshot!("said_in_each_failure", all.join("\n"));
}

/// What the way there, the limits and the names in the config can get wrong.
#[test]
fn in_each_failure_of_the_way_and_of_names() {
    let one = |options: Options| simulator_with(Options { batch_api: false, ..options });
    let mut all = Vec::new();
    let gone = one(Options::default());
    let (agent, url) = (Agent::new(&gone), gone.url().to_owned());
    drop(gone);
    all.push(read("nobody listens", &agent, &url));

    let (simulator, other) = (
        one(Options { tls: true, ..Options::default() }),
        one(Options { tls: true, seed: 2, ..Options::default() }),
    );
    let agent = Agent::new(&simulator);
    let ca = agent.dir().join("plant-ca.pem");
    std::fs::write(&ca, other.ca_pem().unwrap()).unwrap();
    let agent = agent.destination(&format!("tls = {{ ca_file = \"{}\" }}", ca.display()));
    all.push(read("the certificate is of another CA", &agent, simulator.url()));

    let simulator = one(Options::default());
    let agent = Agent::new(&simulator)
        .rules(&format!("{CRITICAL}[rule.action.fields]\nassignment_group = \"Nobody\"\n"));
    all.push(read("a group that is not there", &agent, simulator.url()));

    let simulator = one(Options::default());
    let devices = "[devices]\nservicenow = \"prod\"\ndata_source = \"nobody\"\n";
    let agent = Agent::new(&simulator).rules(&format!("{CRITICAL}{devices}"));
    agent.feed("{\"timestamp\":\"2026-11-21T08:15:00.000000+0000\",\"event_type\":\"arp\",\"arp\":{\"opcode\":\"request\",\
        \"src_mac\":\"00:1b:1b:00:00:01\",\"src_ip\":\"10.0.0.1\",\"dest_mac\":\"00:00:00:00:00:00\",\"dest_ip\":\"10.0.0.2\"}}\n");
    all.push(read("a data source that is not there", &agent, simulator.url()));

    for failure in MORE {
        let simulator = one(Options::default());
        simulator.add_fault(failure.parse().unwrap());
        all.push(read(failure, &Agent::new(&simulator), simulator.url()));
    }
    insta::assert_snapshot!("said_in_each_failure_of_the_way", all.join("\n"));
}

/// A rule of which more than three tickets an hour fold.
const FOLDING: &str =
    "[[rule]]\nname = \"Floods\"\nmax_tickets_per_hour = 3\n[[rule.action]]\nservicenow = \"prod\"\n";

/// A staging table whose import set is to make incidents.
const STAGED: &str = "[[rule]]\nname = \"App\"\n[[rule.action]]\nservicenow = \"prod\"\nreport_type = \"application\"\n\
    table = \"u_stage\"\n";

const REFRESH: &str = "auth = \"refresh-token\"\nclient_id = \"otrelay\"\n\
    client_secret = { file = \"DIR/client-secret\" }\nrefresh_token = { file = \"DIR/password\" }";

/// A proxy that answers each CONNECT so; its port.
fn proxy(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // It is the answer that is looked at.
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

/// A port that nobody listens at.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What is read with a proxy at that port in between.
fn through(name: &str, port: u16) -> String {
    let simulator = simulator_with(Options { tls: true, batch_api: false, ..Options::default() });
    let agent = Agent::new(&simulator);
    let ca = agent.dir().join("ca.pem");
    std::fs::write(&ca, simulator.ca_pem().unwrap()).unwrap();
    let secret = agent.dir().join("password");
    let agent = agent.destination(&format!(
        "tls = {{ ca_file = \"{}\" }}\nproxy = {{ url = \"http://127.0.0.1:{port}\", username = \"relay\", \
         password = {{ file = \"{}\" }} }}",
        ca.display(),
        secret.display()
    ));
    read(name, &agent, simulator.url()).replace(&format!("127.0.0.1:{port}"), "PROXY")
}

/// A storm, a grant that is refused, import sets, and a proxy in between.
#[test]
fn in_a_storm_and_where_grant_import_or_proxy_refuse() {
    let one = |options: Options| simulator_with(Options { batch_api: false, ..options });
    let mut all = Vec::new();
    let simulator = one(Options::default());
    let agent = Agent::new(&simulator).rules(FOLDING);
    let flood: String = (0..12).map(|n| eve::alert(n).signature("Flood", 9).line()).collect();
    agent.feed(flood);
    all.push(read_fed("a storm of one rule", &agent, simulator.url(), 12));

    let simulator = one(Options::default());
    let agent = Agent::new(&simulator).login(REFRESH);
    all.push(read("a refresh token that is refused", &agent, simulator.url()));

    for (name, map) in [
        ("a transform that refuses the row", "u_stage=incident:correlation_id"),
        ("a transform without its table", "u_stage=u_nowhere"),
    ] {
        let simulator = one(Options { imports: vec![map.parse().unwrap()], ..Options::default() });
        let fields = "[rule.action.fields]\nstate = \"6\"\n";
        let agent = Agent::new(&simulator).rules(&format!("{STAGED}{fields}"));
        all.push(read(name, &agent, simulator.url()));
    }

    let refuses = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"plant\"\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    all.push(through("a proxy that does not take the password", proxy(refuses)));
    all.push(through(
        "a proxy that lets nobody through to there",
        proxy("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
    ));
    all.push(through("a proxy where nobody listens", closed()));
    insta::assert_snapshot!("said_in_a_storm_and_of_grant_import_proxy", all.join("\n"));
}

/// What waits for the next hour of a budget needs nobody, and is said all the same: a person who sees the backlog stand
/// still would take it for a fault.
#[test]
fn where_the_budget_of_requests_makes_things_wait() {
    let simulator = simulator_with(Options { batch_api: false, ..Options::default() });
    let any = "[[rule]]\nname = \"All\"\n[[rule.action]]\nservicenow = \"prod\"\n";
    let agent = Agent::new(&simulator).requests_per_hour(12).rules(any);
    agent.feed(
        (0..40).map(|n| eve::alert(n).signature(&format!("Finding {n}"), n).line()).collect::<String>(),
    );
    let status = read_fed("a budget of 12 requests an hour", &agent, simulator.url(), 40);
    let log: Vec<String> = agent
        .logged()
        .lines()
        .filter(|line| line.contains("the budget"))
        .filter_map(|line| line.find(" INFO ").map(|at| line[at..].trim().to_owned()))
        .collect();
    let list = agent.run(&["queue", "list", "-n", "2"]).out;
    let text = format!("{status}--- told\n{}\n--- queue list -n 2\n{list}", log[0]);
    insta::assert_snapshot!("said_where_the_budget_makes_things_wait", redact::times(&text));
    let json: serde_json::Value = serde_json::from_str(&agent.run(&["status", "--json"]).out).unwrap();
    assert!(json["waiting"][0].as_str().unwrap().contains("wait for the budget"), "{json}");
    assert_eq!(json["health"], serde_json::json!([]));
}
