//! Tests of pushed alerts: what is answered, and when.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::*;
use crate::clock::SystemClock;
use crate::source::Taken;
use crate::source::format;
use crate::source::format::alert_json::AlertJson;

fn settings(token: Option<&str>, listen: SocketAddr) -> Settings {
    let name = SourceName::new("push").unwrap();
    let format = AlertJson::new(format::Settings::new("a1", "line4", name.clone()));
    Settings {
        name,
        kind: "http",
        listen,
        token: token.map(|token| Secret::new("test", token)),
        tls: None,
        format: Reads::new(format),
    }
}

/// A listener at work, and the receiving end of its lane.
struct Bench {
    address: SocketAddr,
    batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), SourceError>>,
}

async fn bench(token: Option<&str>) -> Bench {
    // A free port of this moment.
    let address = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
    let (out, mut batches) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(Push::new(settings(token, address), Arc::new(SystemClock)).run(out, stop.clone()));
    let first = batches.recv().await.unwrap();
    assert_eq!((first.lines(), first.trouble), (0, None));
    Bench { address, batches, stop, tasks }
}

/// Status and body of the answer.
async fn ask(address: SocketAddr, request: Vec<u8>) -> (u16, serde_json::Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

const TOKEN: &str = "authorization: Bearer canary-5f2\r\n";

impl Bench {
    fn ask(&mut self, headers: &str, body: &[u8]) {
        let (address, request) = (self.address, request("POST", "/alerts", headers, body));
        self.tasks.spawn(async move {
            ask(address, request).await;
            Ok(())
        });
    }

    /// Commits what comes until the answer is there.
    async fn answer(&mut self, request: Vec<u8>) -> (u16, serde_json::Value, Vec<Batch>) {
        let mut taken = Vec::new();
        let asked = ask(self.address, request);
        tokio::pin!(asked);
        loop {
            tokio::select! {
                (status, body) = &mut asked => return (status, body, taken),
                Some(mut batch) = self.batches.recv() => {
                    let alerts = batch.sightings.iter().map(|sighting| sighting.fingerprint).collect();
                    batch.acknowledge.take().unwrap().tell(Taken { alerts, devices: 0 });
                    taken.push(batch);
                }
            }
        }
    }
}

#[tokio::test]
async fn answered_after_the_commit_and_not_before() {
    let mut bench = bench(Some("canary-5f2")).await;
    let asked =
        ask(bench.address, request("POST", "/alerts", TOKEN, b"{\"title\":\"a\"}\nnonsense\n{\"id\":7}\n"));
    tokio::pin!(asked);
    let batch = tokio::select! {
        answer = &mut asked => panic!("answered before the commit: {answer:?}"),
        batch = bench.batches.recv() => batch.unwrap(),
    };
    assert_eq!((batch.sightings.len(), batch.reject_counts, batch.lines()), (1, [1, 0, 1, 0, 0, 0], 3));
    assert!(batch.rejects[0].detail.starts_with("from 127.0.0.1, line 2: not JSON"), "{:?}", batch.rejects);
    tokio::select! {
        answer = &mut asked => panic!("answered before the commit: {answer:?}"),
        () = tokio::time::sleep(Duration::from_millis(50)) => {}
    }
    let fingerprint = batch.sightings[0].fingerprint;
    batch.acknowledge.unwrap().tell(Taken { alerts: vec![fingerprint], devices: 0 });
    let (status, body) = asked.await;
    assert_eq!(
        (status, &body["accepted"], &body["ids"][0]),
        (200, &1.into(), &fingerprint.to_string().into())
    );
    let lines: Vec<_> =
        body["rejected"].as_array().unwrap().iter().map(|r| r["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3]);
    assert!(body["rejected"][1]["error"].as_str().unwrap().contains("`title`"), "{body}");
}

#[tokio::test]
async fn what_is_not_committed_is_503() {
    let mut bench = bench(Some("canary-5f2")).await;
    let asked = ask(bench.address, request("POST", "/alerts", TOKEN, b"{\"title\":\"a\"}"));
    tokio::pin!(asked);
    tokio::select! {
        answer = &mut asked => panic!("{answer:?}"),
        batch = bench.batches.recv() => drop(batch),
    }
    let (status, body) = asked.await;
    assert_eq!((status, &body["accepted"]), (503, &0.into()));
}

#[tokio::test]
async fn requests_that_are_refused() {
    let mut bench = bench(Some("canary-5f2")).await;
    let body = b"{\"title\":\"a\"}";
    for (method, path, headers, status) in [
        ("POST", "/alerts", "", 401),
        ("POST", "/alerts", "authorization: Bearer canary-5f\r\n", 401),
        ("POST", "/alerts", "authorization: Basic canary-5f2\r\n", 401),
        ("POST", "/alerts", "authorization: canary-5f2\r\n", 401),
        ("GET", "/alerts", TOKEN, 405),
        ("POST", "/", TOKEN, 404),
    ] {
        let (found, answer, taken) = bench.answer(request(method, path, headers, body)).await;
        assert_eq!(found, status, "{method} {path} {headers}: {answer}");
        assert!(answer["error"].is_string() && taken.is_empty());
        assert!(!answer.to_string().contains("canary"));
    }
    let encoded = format!("{TOKEN}content-encoding: br\r\n");
    assert_eq!(bench.answer(request("POST", "/alerts", &encoded, body)).await.0, 415);
    let (status, _, taken) = bench.answer(request("POST", "/alerts", TOKEN, b"[]")).await;
    assert_eq!((status, taken.len()), (400, 0));
    let (status, answer, taken) = bench.answer(request("POST", "/alerts", TOKEN, b"[{},3]")).await;
    assert_eq!((status, &answer["accepted"], taken[0].reject_counts), (400, &0.into(), [1, 0, 1, 0, 0, 0]));
    let (status, _, taken) =
        bench.answer(request("POST", "/alerts", TOKEN, &vec![b' '; (1 << 20) + 1])).await;
    assert_eq!((status, taken.len()), (413, 0));
}

#[tokio::test]
async fn packed_bodies_and_bombs() {
    use std::io::Write;
    let gzip = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let mut bench = bench(Some("canary-5f2")).await;
    let headers = |name: &str| format!("{TOKEN}content-encoding: {name}\r\n");
    let alert = b"[{\"title\":\"a\"},{\"title\":\"b\"}]";
    let (status, body, _) = bench.answer(request("POST", "/alerts", &headers("gzip"), &gzip(alert))).await;
    assert_eq!((status, &body["accepted"]), (200, &2.into()));
    let zstd = ruzstd::encoding::compress_to_vec(&alert[..], ruzstd::encoding::CompressionLevel::Fastest);
    let (status, body, _) = bench.answer(request("POST", "/alerts", &headers("zstd"), &zstd)).await;
    assert_eq!((status, &body["accepted"]), (200, &2.into()));
    let bomb = gzip(&vec![b' '; 17 << 20]);
    let (status, _, taken) = bench.answer(request("POST", "/alerts", &headers("gzip"), &bomb)).await;
    assert_eq!((status, taken[0].reject_counts), (413, [0, 1, 0, 0, 0, 0]));
    let (status, _, taken) = bench.answer(request("POST", "/alerts", &headers("gzip"), b"no gzip")).await;
    assert_eq!((status, taken[0].reject_counts), (400, [1, 0, 0, 0, 0, 0]));
}

#[tokio::test]
async fn a_large_body_is_committed_in_parts_and_answered_once() {
    let mut bench = bench(Some("canary-5f2")).await;
    let lines: Vec<_> = (0..1_500).map(|n| format!("{{\"id\":\"{n}\",\"title\":\"a\"}}")).collect();
    let (status, body, taken) =
        bench.answer(request("POST", "/alerts", TOKEN, lines.join("\n").as_bytes())).await;
    assert_eq!(
        (status, &body["accepted"], taken.len()),
        (200, &1_500.into(), 1_500_usize.div_ceil(crate::source::SIGHTINGS_MAX))
    );
    let ids: std::collections::BTreeSet<_> =
        body["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1_500);
    let broken = "{\n".repeat(5_000);
    let (status, body, taken) = bench.answer(request("POST", "/alerts", TOKEN, broken.as_bytes())).await;
    assert_eq!((status, body["rejected"].as_array().unwrap().len()), (400, LISTED_MAX));
    assert_eq!((&body["rejected_beside"], taken[0].reject_counts), (&4_000.into(), [5_000, 0, 0, 0, 0, 0]));
}

#[tokio::test]
async fn without_a_token_no_page_of_a_browser_gets_in() {
    let mut bench = bench(None).await;
    let of = |host: &str, more: &str| {
        let body = "{\"title\":\"a\"}";
        format!("POST /alerts HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
            .into_bytes()
    };
    for (host, more, status) in [
        ("localhost:8514", "", 200),
        ("[::1]:8514", "", 200),
        ("127.0.0.1", "", 200),
        ("evil.example", "", 421),
        ("evil.example:8514", "", 421),
        ("localhost", "origin: https://evil.example\r\n", 403),
        ("localhost", "sec-fetch-site: cross-site\r\n", 403),
    ] {
        assert_eq!(bench.answer(of(host, more)).await.0, status, "{host} {more}");
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_the_sources_trouble() {
    let taken = listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let (out, mut batches) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let settings = settings(Some("x"), taken.local_addr().unwrap());
    tasks.spawn(Push::new(settings, Arc::new(SystemClock)).run(out, stop.clone()));
    let trouble = batches.recv().await.unwrap().trouble.unwrap();
    assert!(trouble.starts_with("could not listen on 127.0.0.1:"), "{trouble}");
    stop.cancel();
    assert!(tasks.join_next().await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn the_order_to_stop_ends_it() {
    let mut bench = bench(Some("canary-5f2")).await;
    bench.ask(TOKEN, b"{\"title\":\"a\"}");
    let batch = bench.batches.recv().await.unwrap();
    bench.stop.cancel();
    // What was handed over before is still answered.
    batch.acknowledge.unwrap().tell(Taken::default());
    while let Some(ended) = bench.tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}
