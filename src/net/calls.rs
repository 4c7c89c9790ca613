//! Calls against servers that behave oddly on the way: packed answers, connections that die while idle, gateways.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use url::Url;

use super::packed::gzipped;
use super::stub::{Reply, Stub, read_request};
use super::*;

fn request(method: Method, url: &str) -> Request {
    let body = (method != Method::Get).then(|| b"{}".to_vec());
    Request { method, url: Url::parse(url).unwrap(), headers: Vec::new(), body, answer_max: 10_000 }
}

fn client() -> HttpClient {
    let deadlines = Deadlines { connect: Duration::from_secs(2), whole: Duration::from_secs(4) };
    client_with(&TlsSettings::default(), None, deadlines).unwrap()
}

fn packed(encoding: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Reply::Bytes([head.as_bytes(), body].concat())
}

#[tokio::test]
async fn an_answer_that_is_packed_unasked_is_unpacked_within_its_bound() {
    let stub = Stub::start(|number, _| match number {
        0 => packed("gzip", &gzipped(br#"{"result":[]}"#)),
        1 => packed("gzip", &gzipped(&vec![b' '; 1 << 20])),
        2 => packed("gzip", b"not packed"),
        _ => packed("br\u{7f}", b"x"),
    });
    let client = client();
    let get = || client.send(request(Method::Get, stub.url.as_str()));
    let answer = get().await.unwrap();
    assert_eq!((answer.body.as_slice(), answer.header("content-encoding")), (&br#"{"result":[]}"#[..], None));
    assert!(matches!(get().await, Err(TransportError::TooLarge { limit: 10_000, .. })));
    let damaged = get().await.unwrap_err();
    assert!(
        damaged.to_string().contains("packed with gzip although") && damaged.to_string().contains("damaged")
    );
    assert!(damaged.request_was_sent() && damaged.remedy().contains("delivery network"));
    assert!(!stub.seen()[0].to_lowercase().contains("accept-encoding"));
}

/// A server that keeps connections open, answers the first request, then drops connections on the next `broken`.
fn forgetful(broken: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                while !read_request(&mut stream).is_empty() {
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    if (1..=broken).contains(&number) {
                        return;
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            });
        }
    });
    (address, seen)
}

#[tokio::test]
async fn what_may_be_asked_twice_is_repeated_on_a_connection_that_died_while_idle() {
    for broken in 0..=3 {
        let (address, seen) = forgetful(broken);
        let (client, url) = (client(), format!("http://{address}/"));
        client.send(request(Method::Get, &url)).await.unwrap();
        assert_eq!(client.send(request(Method::Get, &url)).await.unwrap().body, b"ok", "{broken}");
        assert_eq!(seen.load(Ordering::SeqCst), broken + 2);
    }
    let (address, seen) = forgetful(9);
    let (client, url) = (client(), format!("http://{address}/"));
    client.send(request(Method::Get, &url)).await.unwrap();
    assert!(matches!(client.send(request(Method::Get, &url)).await, Err(TransportError::Cut { .. })));
    assert_eq!(seen.load(Ordering::SeqCst), 5, "it is not repeated for ever");
}

#[tokio::test]
async fn what_changes_something_is_not_repeated_and_is_doubtful() {
    let (address, seen) = forgetful(1);
    let (client, url) = (client(), format!("http://{address}/"));
    client.send(request(Method::Get, &url)).await.unwrap();
    let error = client.send(request(Method::Post, &url)).await.unwrap_err();
    assert!(matches!(error, TransportError::Cut { .. }) && error.request_was_sent(), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 2);
    // A grant is a POST that may be asked twice.
    let (address, _) = forgetful(2);
    let url = format!("http://{address}/");
    client.send(request(Method::Get, &url)).await.unwrap();
    assert_eq!(client.send_repeatable(request(Method::Post, &url)).await.unwrap().body, b"ok");
}

#[tokio::test]
async fn without_an_idle_connection_nothing_is_repeated() {
    let stub = Stub::start(|_, _| Reply::Bytes(Vec::new()));
    assert!(matches!(
        client().send(request(Method::Get, stub.url.as_str())).await,
        Err(TransportError::Cut { .. })
    ));
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn headers_for_a_gateway_go_with_each_request() {
    let stub = Stub::start(|_, _| stub::reply(200, &[], ""));
    let headers = [("X-Gateway-Key".to_owned(), Secret::new("test", "canary-gateway"))];
    let client = client().with_headers(&headers).unwrap();
    for method in [Method::Get, Method::Post] {
        client.send(request(method, stub.url.as_str())).await.unwrap();
    }
    assert!(stub.seen().iter().all(|seen| seen.contains("x-gateway-key: canary-gateway")));
    assert!(!format!("{client:?}").contains("canary"));
    for (name, value) in
        [("Authorization", "x"), ("host", "x"), ("proxy-x", "x"), ("a b", "x"), ("", "x"), ("x", "a\nb")]
    {
        let headers = [(name.to_owned(), Secret::new("test", value))];
        assert!(self::client().with_headers(&headers).is_err(), "{name}");
    }
}
