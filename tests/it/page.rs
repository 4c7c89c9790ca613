//! The status page, `/metrics`, `/health` and `/ready` of the real binary, asked over sockets of the test's own making.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::support::agent::{Agent, Service};
use crate::support::{eve, simulator, until};

/// Where the page of a service is.
struct Page(String);

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Page {
    /// Starts a service with a page at a free port.
    fn start(agent: &Agent) -> (Self, Service) {
        agent.append_config("\n[status]\nlisten = \"127.0.0.1:0\"\n");
        let service = agent.start();
        let at = until("the page is there", || {
            let log = agent.logged();
            let (_, rest) = log.split_once("the status page is at http://")?;
            rest.split_once('/').map(|(at, _)| at.to_owned())
        });
        (Self(at), service)
    }

    /// Sends this, and reads until the other side closes or falls silent.
    fn say(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.0).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        // A connection that is cut has said what it had to say.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn ask(&self, request: &str) -> Answer {
        let said = self.say(request);
        let (head, body) = said.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {said:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Answer { status, headers, body: body.to_owned() }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }
}

/// Every answer is locked down, whatever it is.
#[track_caller]
fn assert_locked(answer: &Answer) {
    let policy = "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; script-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (name, value) in [
        ("content-security-policy", policy),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(answer.headers.get(name).map(String::as_str), Some(value), "{name} of {answer:?}");
    }
}

const PAGES: [&str; 6] = ["/", "/alerts", "/tickets", "/devices", "/queue", "/issues"];

#[test]
fn the_page_tells_the_last_sync_the_backlog_and_the_tickets() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..5));
    let (page, service) = Page::start(&agent);
    agent.until_status("all is sent", |s| s["backlog"] == 0 && s["last_sync"]["created"] == 5);
    let now = page.get("/");
    assert_eq!(now.status, 200);
    let words = text(&now.body);
    assert!(words.contains("Backlog 0 nothing waits"), "{words}");
    let (_, sync) = words.split_once("Last Sync ").unwrap();
    assert_eq!(sync.as_bytes()[2], b':', "{sync}");
    assert!(words.contains("All is well: nothing needs a person"), "{words}");
    assert!(words.contains("5 reported 5 made, 0 found there"), "{words}");
    let record = &simulator.records("incident")[0];
    let link =
        format!("{}/incident.do?sys_id={}", simulator.url().trim_end_matches('/'), record.get("sys_id"));
    assert!(now.body.replace("&#x2f;", "/").contains(&link), "{link} in {}", now.body);
    for path in PAGES {
        let answer = page.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_locked(&answer);
        // Nothing that the policy would have to stop.
        for inline in [" style=", "<style", "<script>", " onclick=", "javascript:"] {
            assert!(!answer.body.contains(inline), "{inline} in {path}");
        }
    }
    for (path, kind) in
        [("/style.css", "text/css"), ("/live.js", "text/javascript"), ("/icon.svg", "image/svg+xml")]
    {
        let answer = page.get(path);
        assert!(answer.status == 200 && answer.headers["content-type"].starts_with(kind), "{answer:?}");
        assert_locked(&answer);
    }
    assert_eq!(service.stop(), 0);
}

/// What a reader sees.
fn text(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' => {
                inside = false;
                out.push(' ');
            }
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn only_names_of_this_machine_are_answered_and_only_reading() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (page, _service) = Page::start(&agent);
    let ask = |line: &str, headers: &str| {
        page.ask(&format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"))
    };
    for (headers, status) in [
        ("Host: 127.0.0.1:9464\r\n", 200),
        ("Host: [::1]\r\n", 200),
        ("Host: evil.example\r\n", 421),
        ("Host: localhost.evil.example:9464\r\n", 421),
        ("Host: 10.0.0.1\r\n", 421),
        ("Host: localhost\r\nHost: evil.example\r\n", 421),
        ("", 421),
    ] {
        for path in ["/", "/metrics", "/health", "/live/now", "/nothing"] {
            // What lives would not end.
            if (path, status) == ("/live/now", 200) {
                continue;
            }
            let expected = if (path, status) == ("/nothing", 200) { 404 } else { status };
            let answer = ask(&format!("GET {path}"), headers);
            assert_eq!(answer.status, expected, "{path} with {headers:?}");
            assert_locked(&answer);
        }
    }
    let strange = ask("GET http://evil.example/", "Host: localhost\r\n");
    assert_eq!(strange.status, 421);
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(&format!("{method} /"), "Host: localhost\r\n");
        assert_eq!((answer.status, answer.headers["allow"].as_str()), (405, "GET, HEAD"), "{method}");
        assert_locked(&answer);
    }
    let head = ask("HEAD /", "Host: localhost\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let body = page.ask("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(body.status, 413);
    let long = ask("GET /", &format!("Host: localhost\r\nX: {}\r\n", "x".repeat(20_000)));
    assert_eq!(long.status, 431);
    assert_eq!(page.get("/").status, 200, "it goes on");
}

#[test]
fn devices_are_drawn_by_zone_and_level_without_anything_the_policy_would_stop() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (page, _service) = Page::start(&agent);
    assert!(!page.get("/devices").body.contains("<svg"), "nothing to draw");
    for n in 1..4 {
        let arp = json!({
            "opcode": "request", "src_mac": format!("00:1b:1b:00:00:0{n}"), "src_ip": format!("10.0.0.{n}"),
            "dest_mac": "00:00:00:00:00:00", "dest_ip": "10.0.0.9"
        });
        agent.feed(format!(
            "{}\n",
            json!({ "timestamp": "2026-11-21T08:15:00.000000+0000", "event_type": "arp", "arp": arp })
        ));
    }
    agent.until_status("they are known", |s| s["devices"]["known"] == 3);
    let answer = page.get("/devices");
    assert_locked(&answer);
    let body = answer.body;
    assert!(
        body.contains("<svg class=\"zones\" role=\"img\"") && body.contains("Zones and levels"),
        "{body}"
    );
    assert_eq!(body.matches("<rect class=\"box").count(), 3, "{body}");
    assert!(!body.contains("<style") && !body.contains(" style="), "{body}");
}

#[test]
fn hostile_titles_are_text() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    let evil =
        "\"'><script src=//evil.example></script><img src=x onerror=alert(1)>\u{202e}\u{200b}\u{7}{{ 7*7 }}";
    let line =
        eve::alert(1).line().replace(&eve::title(1), &evil.replace('"', "\\\"").replace('\u{7}', "\\u0007"));
    agent.feed(line);
    let (page, _service) = Page::start(&agent);
    agent.until_status("it waits", |s| s["backlog"] == 1);
    for path in ["/alerts", "/queue"] {
        let body = page.get(path).body;
        assert!(body.contains("&lt;script src="), "{path}: {body}");
        assert!(body.contains("{{ 7*7 }}"), "{path}: {body}");
        for bad in ["<script src=//", "<img", "\u{202e}", "\u{200b}", "\u{7}"] {
            assert!(!body.contains(bad), "{bad:?} in {path}: {body}");
        }
    }
}

#[test]
fn metrics_health_and_ready_are_for_machines() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.feed(eve::alerts(0..3));
    agent.feed(eve::flow(9));
    let file = agent.dir().join("otrelay.prom");
    agent
        .append_config(&format!("\n[status]\nlisten = \"127.0.0.1:0\"\ntextfile = \"{}\"\n", file.display()));
    let service = agent.start();
    let at = until("the page is there", || {
        let log = agent.logged();
        log.split_once("the status page is at http://")?.1.split_once('/').map(|(at, _)| at.to_owned())
    });
    let page = Page(at);
    agent.until_status("all is sent", |s| s["last_sync"]["created"] == 3);
    let metrics = page.get("/metrics");
    assert_eq!(metrics.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    for line in [
        "otrelay_records_total{source=\"eve\"} 4",
        "otrelay_alerts_total{source=\"eve\"} 3",
        "otrelay_records_ignored_total{source=\"eve\",kind=\"flow\"} 1",
        "otrelay_tickets_created_total{destination=\"prod\"} 3",
        "otrelay_backlog_deliveries{destination=\"prod\"} 0",
        "otrelay_source_up{source=\"eve\"} 1",
    ] {
        assert!(metrics.body.lines().any(|had| had == line), "{line} in {}", metrics.body);
    }
    assert!(metrics.body.lines().all(|line| line.starts_with("otrelay_") || line.starts_with("# ")));
    let older = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\nConnection: close\r\n\r\n";
    let older = page.ask(older);
    assert!(older.headers["content-type"].starts_with("text/plain; version=0.0.4"), "{older:?}");
    assert!(older.body.contains("# TYPE otrelay_alerts_total counter\n"), "{older:?}");
    assert_eq!((page.get("/health").status, page.get("/ready").status), (200, 200));
    // It is written at the start; what came later follows with the next look.
    let written = until("the file is written", || std::fs::read_to_string(&file).ok());
    assert!(written.contains("# TYPE otrelay_build_info gauge\n"), "{written}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn ready_and_doctor_say_when_nothing_more_is_taken_in() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator).buffer("max_size = \"8MiB\"\nwhen_full = \"refuse\"");
    agent.set_sync("enabled = false");
    agent.feed(
        (0..700).map(|n| eve::alert(n).set("payload", eve::noise(n, 30_000)).line()).collect::<String>(),
    );
    let (page, _service) = Page::start(&agent);
    let answer = until("it is not ready", || Some(page.get("/ready")).filter(|answer| answer.status != 200));
    assert!(answer.status == 503 && answer.body.contains("not ready: the buffer is"), "{answer:?}");
    assert!(answer.body.contains("(E108)"), "{answer:?}");
    assert_eq!(page.get("/health").status, 200);
    agent.run(&["doctor"]).says("(E108)").says("raise [buffer] max_size");
}

#[test]
fn a_large_backlog_makes_no_large_page() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    agent.feed(eve::alerts(0..3_000));
    let (page, _service) = Page::start(&agent);
    agent.until_status("all is taken in", |s| s["backlog"] == 3_000);
    for path in PAGES {
        let answer = page.get(path);
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() < 128 << 10, "{path}: {} bytes", answer.body.len());
    }
    let words = text(&page.get("/").body);
    assert!(words.contains("Backlog 3 000 oldest"), "{words}");
    assert!(words.contains("1 000 or more critical"), "what is more is not counted: {words}");
}

#[test]
fn who_has_the_page_open_gets_its_parts_and_does_not_keep_the_service_from_ending() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (page, service) = Page::start(&agent);
    let mut stream = TcpStream::connect(&page.0).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /live/now HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut heard = String::new();
    let mut buffer = vec![0; 64 * 1024];
    while !heard.contains("id=\"verdict\"") {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "it ended: {heard}");
        heard.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    assert!(heard.contains("content-type: text/event-stream") && heard.contains("event: parts\n"), "{heard}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn one_address_has_eight_connections_to_the_page_and_no_more() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let (page, service) = Page::start(&agent);
    let connect = || {
        let stream = TcpStream::connect(&page.0).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    };
    let mut held: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    let mut said = String::new();
    connect().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 429 ") && said.contains("retry-after: "), "{said}");
    // Who was there before is served, and who comes when one has gone.
    let mut first = held.remove(0);
    first.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut said = String::new();
    first.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    drop(first);
    until("the place is free", || (page.get("/health").status == 200).then_some(()));
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_needs_a_person_has_the_number_that_help_explains() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    agent.secrets("wrong", "admin");
    agent.feed(eve::alerts(0..1));
    let (page, service) = Page::start(&agent);
    agent.until_status("it is held", |s| s["health"][0]["code"] == "hold");
    let now = text(&page.get("/").body);
    assert!(now.contains("1 thing needs a person") && now.contains("(E102)"), "{now}");
    let issues = text(&page.get("/issues").body);
    assert!(issues.contains("otrelay help E102"), "{issues}");
    assert!(agent.logged().contains("(E102)"), "{}", agent.logged());
    agent.run(&["help", "E102"]).ends(0).says("E102 hold");
    assert_eq!(service.stop(), 0);
}

#[test]
fn all_is_not_well_while_alerts_wait_for_a_sync_that_is_off() {
    let simulator = simulator();
    let mut agent = Agent::new(&simulator);
    agent.set_sync("enabled = false");
    agent.feed(eve::alerts(0..3));
    let (page, service) = Page::start(&agent);
    agent.until_status("they wait", |status| status["backlog"] == 3);
    let words = text(&page.get("/").body);
    assert!(words.contains("1 thing needs a person") && words.contains("(E134)"), "{words}");
    assert!(words.contains("3 deliveries wait, the first since"), "{words}");
    assert_eq!(service.stop(), 0);
}

#[test]
fn an_address_that_somebody_else_has_is_told_and_stops_nothing() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    agent.append_config(&format!("\n[status]\nlisten = \"{at}\"\n"));
    agent.feed(eve::alerts(0..1));
    let service = agent.start();
    let status = agent.until_status("it is told, and alerts are sent", |s| {
        s["last_sync"]["created"] == 1 && s["health"][0]["code"] == "page"
    });
    let issue = &status["health"][0];
    assert!(issue["text"].as_str().unwrap().contains(&at.to_string()), "{issue}");
    assert!(issue["remedy"].as_str().unwrap().contains("[status] listen"), "{issue}");
    agent.run(&["status"]).ends(0).says("(E115)");
    assert!(agent.logged().contains("(E115); tried again"), "{}", agent.logged());
    drop(other);
    agent.until_status("it goes on by itself", |s| s["health"] == serde_json::json!([]));
    let page = Page(at.to_string());
    assert_eq!(page.get("/health").status, 200);
    assert_eq!(service.stop(), 0);
}

#[test]
fn other_machines_are_not_let_in() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    for (listen, words) in [
        ("0.0.0.0:9464", "only be on an address of this machine alone"),
        ("[::]:9464", "only be on an address of this machine alone"),
        ("localhost:9464", "this is no address"),
    ] {
        agent.append_config(&format!("\n[status]\nlisten = \"{listen}\"\n"));
        agent.run(&["check"]).says(words);
        agent.restore_config();
    }
}
