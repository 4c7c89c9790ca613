//! What an operator reads in each failure of the other side: `otrelay status`, and the lines of the log that warn. One snapshot,
//! so that a change of words is seen beside all others.

use std::collections::BTreeSet;

use otrelay::simulator::Options;

use crate::support::agent::Agent;
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
        agent.feed(eve::alerts(1..2));
        let service = agent.start();
        agent.until_status("it is read", |status| status["sources"][0]["alerts"] == 1);
        agent.run(&["sync"]);
        let status = agent.run(&["status"]).out;
        assert_eq!(service.stop(), 0, "{failure}");
        let log: Vec<String> = warnings(&agent.logged()).into_iter().collect();
        let text = format!("=== {failure}\n{status}--- log\n{}\n", log.join("\n"));
        let text =
            text.replace(simulator.url(), "https://instance").replace(agent.dir().to_str().unwrap(), "DIR");
        all.push(without_counts(&redact::times(&text)));
    }
    insta::assert_snapshot!("said_in_each_failure", all.join("\n"));
}
