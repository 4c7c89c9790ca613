//! The simulator seen from a socket: keep-alive, real cuts of TCP, TLS, bounds, the admin addresses, both ways to
//! start it. What it answers as an instance is tested beside its code.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::ManualClock;
use otrelay::model::Timestamp;
use otrelay::simulator::{Fault, FaultKind, Options, RateRule, Running, SimError, Simulator};
use serde_json::{Value, json};

use crate::support::until;

/// `admin:admin`.
const LOGIN: &str = "Authorization: Basic YWRtaW46YWRtaW4=\r\nAccept: application/json\r\n";

const INCIDENT: &str = "/api/now/table/incident";

fn start() -> Running {
    Simulator::start_on_thread(Options::default()).unwrap()
}

fn dial(running: &Running) -> TcpStream {
    let address = running.url().split_once("://").unwrap().1;
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// An answer as far as it came.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

fn request(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: sim\r\n{LOGIN}Content-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}

/// One exchange on an open connection; nothing when it ended before a whole head was there.
fn exchange(stream: &mut (impl Read + Write), request: &str) -> Option<Reply> {
    stream.write_all(request.as_bytes()).ok()?;
    let (mut raw, mut byte) = (Vec::new(), [0]);
    while !raw.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        raw.push(byte[0]);
    }
    let head = String::from_utf8(raw).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = Vec::new();
    stream.take(length.unwrap_or(0)).read_to_end(&mut body).ok();
    Some(Reply { status, head, body: String::from_utf8(body).unwrap() })
}

fn send(running: &Running, method: &str, target: &str, body: &str) -> Option<Reply> {
    exchange(&mut dial(running), &request(method, target, body))
}

fn create(running: &Running, key: &str) -> Option<Reply> {
    send(running, "POST", INCIDENT, &json!({ "correlation_id": key }).to_string())
}

#[test]
fn one_connection_carries_many_requests() {
    let running = start();
    let mut stream = dial(&running);
    for number in 1..=20 {
        let reply = exchange(&mut stream, &request("POST", INCIDENT, "{}")).unwrap();
        assert_eq!(
            (reply.status, &reply.json()["result"]["number"]),
            (201, &json!(format!("INC{:07}", 10_000 + number)))
        );
    }
    let reply = exchange(&mut stream, &request("GET", INCIDENT, "")).unwrap();
    assert!(
        reply.head.contains("x-total-count: 20") && reply.head.contains("x-transaction-id: "),
        "{}",
        reply.head
    );
    assert_eq!((running.requests(), running.records("incident").len()), (21, 20));
}

#[test]
fn a_commit_drop_leaves_the_record_and_no_byte() {
    let running = start();
    running.add_fault(Fault::new(FaultKind::CommitDrop).on("POST", INCIDENT).times(1));
    let mut stream = dial(&running);
    stream.write_all(request("POST", INCIDENT, "{\"correlation_id\":\"otrelay-1\"}").as_bytes()).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).ok();
    assert_eq!(got, b"");
    let records = running.records("incident");
    assert_eq!((records.len(), records[0].get("correlation_id")), (1, "otrelay-1"));
    let entry = &running.ledger()[0];
    assert_eq!((entry.status, entry.fault.as_deref()), (None, Some("commit-drop")));
    assert_eq!(entry.created, [format!("incident/{}", records[0].get("sys_id"))]);
    assert_eq!(create(&running, "otrelay-2").unwrap().status, 201);
    assert_eq!(running.faults_fired(), 1);
}

#[test]
fn a_commit_cut_sends_exactly_so_many_bytes() {
    let running = start();
    for bytes in [0, 1, 40, 300] {
        running.clear_faults();
        running.add_fault(Fault::new(FaultKind::CommitCut(bytes)));
        let mut stream = dial(&running);
        stream.write_all(request("POST", INCIDENT, "{}").as_bytes()).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).ok();
        assert_eq!(got.len() as u64, bytes, "{}", String::from_utf8_lossy(&got));
    }
    assert_eq!(running.records("incident").len(), 4);
}

#[test]
fn a_drop_before_leaves_nothing() {
    let running = start();
    running.add_fault(Fault::new(FaultKind::DropBefore).times(1));
    assert!(create(&running, "otrelay-1").is_none());
    assert!(running.records("incident").is_empty());
}

/// One fault on one create: the status, a piece of the body, how many records there are.
fn check(fault: &str, status: u16, piece: &str, records: usize) {
    let running = start();
    running.add_fault(fault.parse().unwrap());
    let reply = create(&running, "otrelay-1").unwrap();
    assert_eq!(reply.status, status, "{fault}: {reply:?}");
    assert!(reply.body.contains(piece), "{fault}: {reply:?}");
    assert_eq!(running.records("incident").len(), records, "{fault}");
    assert_eq!(running.ledger()[0].status, Some(status), "{fault}");
}

#[test]
fn faults_that_answer() {
    check("status=503", 503, "<html>", 0);
    check("status=500", 500, "Transaction cancelled", 0);
    check("status=403", 403, "ACL Exception", 0);
    check("202", 202, "", 0);
    check("hibernate", 200, "Instance Hibernating page", 0);
    check("html-login", 200, "<form", 0);
    check("rate-limit=7", 429, "Rate limit exceeded", 0);
    check("semaphore", 429, "Too Many Requests", 0);
    check("revoke-token", 201, "\"result\"", 1);
    check("commit-500", 500, "Transaction cancelled", 1);
    check("commit-202", 202, "", 1);
    check("truncated-json", 201, "\"error\":{\"message\":\"Transaction cancelled", 1);
    check("delay=20", 201, "\"result\"", 1);
    check("drop-field=correlation_id", 201, "\"correlation_id\":\"\"", 1);
    check("hide-table=incident", 403, "User is unauthorized to access table: incident", 0);
}

#[test]
fn truncated_json_does_not_parse() {
    let running = start();
    running.add_fault(Fault::new(FaultKind::TruncatedJson));
    let reply = create(&running, "otrelay-1").unwrap();
    assert!(serde_json::from_str::<Value>(&reply.body).is_err(), "{}", reply.body);
}

#[test]
fn a_body_that_is_too_large_gets_its_answer() {
    let running = start();
    let size = (10 << 20) + 1;
    let reply = send(&running, "POST", INCIDENT, &" ".repeat(size)).unwrap();
    let detail = format!(
        "Rejected large REST payload with content-length = {size} bytes. Max allowed: 10485760 bytes."
    );
    assert_eq!((reply.status, &reply.json()["error"]["detail"]), (400, &json!(detail)));
}

#[test]
fn the_limit_of_requests_shows_only_with_a_rule() {
    let plain = start();
    assert!(!create(&plain, "x").unwrap().head.contains("x-ratelimit"));
    let rate_limit = Some(RateRule { limit: 2, window: Duration::from_mins(1) });
    let clock = ManualClock::at(Timestamp::from_secs(6015));
    let options = Options { rate_limit, clock: clock.clone(), ..Options::default() };
    let running = Simulator::start_on_thread(options).unwrap();
    for _ in 0..2 {
        let reply = create(&running, "x").unwrap();
        assert!(reply.status == 201 && reply.head.contains("x-ratelimit-limit: 2"), "{reply:?}");
    }
    let reply = create(&running, "x").unwrap();
    assert_eq!((reply.status, reply.json()["error"]["message"].as_str()), (429, Some("Rate limit exceeded")));
    assert!(
        reply.head.contains("retry-after: 45") && reply.head.contains("x-ratelimit-reset: 6060"),
        "{reply:?}"
    );
    clock.advance(Duration::from_secs(45));
    assert_eq!(create(&running, "x").unwrap().status, 201);
}

#[test]
fn a_full_pool_refuses_at_once() {
    let options = Options { semaphore: Some(1), ..Options::default() };
    let running = Simulator::start_on_thread(options).unwrap();
    running.add_fault(Fault::new(FaultKind::Delay(Duration::from_secs(5))).times(1));
    let mut slow = dial(&running);
    slow.write_all(request("POST", INCIDENT, "{}").as_bytes()).unwrap();
    while running.requests() == 0 {
        std::thread::yield_now();
    }
    let reply = create(&running, "x").unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (429, "Too Many Requests"));
    assert!(!reply.head.contains("retry-after"));
    // The slow one was carried out before it waited.
    assert_eq!(running.records("incident").len(), 1);
}

#[test]
fn garbage_does_not_hurt() {
    let running = start();
    for garbage in ["\r\n\r\n", "\0\0\0", "GET\r\n\r\n", "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"] {
        let mut stream = dial(&running);
        stream.write_all(garbage.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).ok();
    }
    assert_eq!(create(&running, "x").unwrap().status, 201);
}

#[test]
fn the_admin_addresses() {
    let running = start();
    let faults = "/simulator/faults";
    let reply = send(&running, "POST", faults, "status=503:count=1\n\ncommit-drop:rate=0\n").unwrap();
    assert_eq!(reply.json()["faults"][0], json!({"fault": "status=503:count=1", "matched": 0, "fired": 0}));
    assert_eq!(create(&running, "a").unwrap().status, 503);
    assert_eq!(create(&running, "a").unwrap().status, 201);
    assert_eq!(create(&running, "a").unwrap().status, 201);
    assert_eq!(send(&running, "GET", faults, "").unwrap().json()["faults"][0]["fired"], json!(1));
    assert_eq!(send(&running, "POST", faults, "comit-drop").unwrap().status, 400);
    assert_eq!(send(&running, "DELETE", faults, "").unwrap().json(), json!({"faults": []}));

    let book = send(&running, "GET", "/simulator/ledger?last=1", "").unwrap().json();
    assert_eq!(
        (&book["requests"], &book["created"], &book["records"]["incident"]),
        (&json!(3), &json!(2), &json!(2))
    );
    assert_eq!((&book["twins"], &book["by_table"]["incident"]["POST"]), (&json!({"a": 2}), &json!(3)));
    assert_eq!(book["entries"].as_array().unwrap().len(), 1);
    assert_eq!(running.twins(), [("a".to_owned(), 2)].into());

    let foreign = request("POST", "/simulator/reset", "").replace("\r\n\r\n", "\r\nOrigin: http://x\r\n\r\n");
    assert_eq!(exchange(&mut dial(&running), &foreign).unwrap().status, 403);
    assert_eq!(send(&running, "POST", "/simulator/reset", "").unwrap().status, 200);
    assert_eq!((running.requests(), running.records("incident").len()), (0, 0));
}

#[test]
fn a_person_at_the_instance_can_close_a_ticket() {
    let running = start();
    let id = create(&running, "a").unwrap().json()["result"]["sys_id"].as_str().unwrap().to_owned();
    assert!(!running.edit("incident", &id, &[("state", "7")]));
    let close = [("state", "7"), ("close_code", "Solution provided"), ("close_notes", "mended")];
    assert!(running.edit("incident", &id, &close));
    let record = running.records("incident").remove(0);
    assert_eq!((record.get("active"), record.get("sys_updated_by")), ("false", "abel.tuter"));
}

#[test]
fn plain_http_stays_on_the_machine() {
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Simulator::start_on_thread(Options { listen, ..Options::default() });
    assert!(matches!(refused, Err(SimError::NotLoopback(_))), "{refused:?}");
    let tls_names = vec!["destination.plant.example".to_owned()];
    let options = Options { listen, tls: true, tls_names, ..Options::default() };
    let running = Simulator::start_on_thread(options).unwrap();
    assert!(running.url().starts_with("https://destination.plant.example:"), "{}", running.url());
}

#[test]
fn a_taken_port_is_told() {
    let running = start();
    let listen = running.url().strip_prefix("http://").unwrap().parse().unwrap();
    let refused = Simulator::start_on_thread(Options { listen, ..Options::default() });
    assert!(matches!(refused, Err(SimError::Listen { .. })), "{refused:?}");
}

/// A client that trusts only that certificate.
fn tls(running: &Running) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(running.ca_pem().unwrap().as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let address = running.url().strip_prefix("https://").unwrap();
    rustls::StreamOwned::new(session, TcpStream::connect(address).unwrap())
}

#[test]
fn tls_has_a_certificate_of_its_own_ca() {
    let running = Simulator::start_on_thread(Options { tls: true, ..Options::default() }).unwrap();
    let mut stream = tls(&running);
    let reply = exchange(&mut stream, &request("POST", INCIDENT, "{}")).unwrap();
    assert_eq!(reply.status, 201);
    assert!(reply.head.contains(&format!("location: {}{INCIDENT}/", running.url())), "{}", reply.head);
    running.add_fault(Fault::new(FaultKind::CommitCut(25)));
    stream.write_all(request("POST", INCIDENT, "{}").as_bytes()).unwrap();
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got);
    // Cut as TCP is cut: TLS notices that nobody said goodbye.
    assert_eq!((got.len(), end.is_err()), (25, true));
    assert_eq!(running.records("incident").len(), 2);
}

#[test]
fn it_runs_as_a_task_of_a_current_thread_runtime_and_stops() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let running = Simulator::start(Options::default()).await.unwrap();
        let address = running.url().strip_prefix("http://").unwrap().to_owned();
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(request("GET", INCIDENT, "").as_bytes()).await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        running.stop().await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
        is_closed(address.parse().unwrap());
    });
}

/// Nobody listens there any more. Not at once: a child of another test that is still to become its program has a copy of
/// every socket until then.
fn is_closed(address: SocketAddr) {
    until("nobody listens there", || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn a_dropped_simulator_is_gone() {
    let running = start();
    let address: SocketAddr = running.url().strip_prefix("http://").unwrap().parse().unwrap();
    let idle = dial(&running);
    drop(running);
    is_closed(address);
    drop(idle);
}

/// One request of a browser on this machine.
fn browse(running: &Running, method: &str, target: &str, more: &str) -> Reply {
    let host = running.url().split_once("://").unwrap().1;
    let text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: 0\r\n\r\n");
    exchange(&mut dial(running), &text).unwrap()
}

#[test]
fn a_person_watches_tickets_on_a_page_and_closes_one_there() {
    let running = start();
    assert_eq!(create(&running, "otrelay-1").unwrap().status, 201);
    let decoy = [("short_description", "<script>alert(1)</script>"), ("number", "INC0000007")];
    running.plant("incident", &decoy).unwrap();
    let page = browse(&running, "GET", "/simulator", "");
    assert_eq!(page.status, 200);
    assert!(
        page.head.to_ascii_lowercase().contains("content-security-policy: default-src 'none'"),
        "{page:?}"
    );
    assert!(page.body.contains("otrelay-1") && page.body.contains("&lt;script&gt;alert(1)"), "{page:?}");
    assert!(!page.body.contains("<script>alert"), "{page:?}");
    let table = browse(&running, "GET", "/simulator/tables/incident", "");
    assert!(table.body.contains("mallory") && !table.body.contains("<script>alert"), "{table:?}");
    assert_eq!(browse(&running, "GET", "/simulator/tables/nothing", "").status, 400);
    assert_eq!(browse(&running, "GET", "/simulator/page.js", "").status, 200);

    let id = running.records("incident")[0].get("sys_id").to_owned();
    let close = format!("/simulator/close/incident/{id}");
    let state = || running.records("incident")[0].get("state").to_owned();
    let json = "Content-Type: application/json\r\n";
    let ours = format!("{json}Origin: {}\r\n", running.url());
    for refused in [
        json.to_owned(),
        format!("Origin: {}\r\n", running.url()),
        format!("{json}Origin: http://x\r\n"),
        format!("{ours}Sec-Fetch-Site: cross-site\r\n"),
    ] {
        assert_eq!(browse(&running, "POST", &close, &refused).status, 403, "{refused}");
    }
    assert_ne!(state(), "7");
    assert_eq!(browse(&running, "POST", &close, &ours).status, 200);
    assert_eq!(state(), "7");
    // A name that leads to this machine is not one of its own.
    assert_eq!(send(&running, "GET", "/simulator", "").unwrap().status, 421);
    let foreign = request("POST", &close, "").replace("\r\n\r\n", "\r\nOrigin: http://sim\r\n\r\n");
    assert_eq!(exchange(&mut dial(&running), &foreign).unwrap().status, 421);
}
