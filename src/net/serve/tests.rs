//! Tests of the server's bounds, over loopback.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Answers with the length of the body; refuses DELETE.
struct Echo;

impl Handler for Echo {
    fn judge(&self, head: &Head) -> Option<Reply> {
        (head.method == "DELETE").then(|| Reply { status: 405, ..Reply::default() })
    }

    fn refuse(&self, status: u16) -> Reply {
        Reply { status, body: b"refused".to_vec(), ..Reply::default() }
    }

    async fn answer(&self, head: Head, body: Vec<u8>) -> Reply {
        let text = format!("{} {} {}", head.path, head.header("x-a").unwrap_or("-"), body.len());
        Reply { status: 200, headers: Vec::new(), body: text.into_bytes() }
    }
}

/// Longer than any test.
const LONG: Duration = Duration::from_hours(1);

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinSet<()>,
}

fn server(limits: Limits) -> Server {
    let listener = crate::net::listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let mut task = JoinSet::new();
    task.spawn(serve(listener, None, (limits, Doors::new(limits.connections)), Arc::new(Echo), stop.clone()));
    Server { address, stop, task }
}

impl Server {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What comes back until the server closes.
    async fn ask(&self, request: &[u8]) -> String {
        let mut stream = self.open().await;
        // The server may close before all is written; what it said can still be read.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /p?q=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_request_and_its_answer() {
    let server = server(Limits::default());
    let answer = server.ask(&post("x-a: 7\r\n", "hello")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("/p 7 5"), "{answer}");
    let twice = server.ask(&post("x-a: 7\r\nx-a: 8\r\n", "")).await;
    assert!(twice.ends_with("/p - 0"), "{twice}");
    server.stop.cancel();
}

#[tokio::test]
async fn bodies_are_bounded() {
    let server = server(Limits { body_max: 100, ..Limits::default() });
    let large = "x".repeat(101);
    let announced = server.ask(&post("", &large)).await;
    assert!(announced.starts_with("HTTP/1.1 413") && announced.ends_with("refused"), "{announced}");
    let chunked =
        format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{large}\r\n0\r\n\r\n");
    let chunked = server.ask(chunked.as_bytes()).await;
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let fits = server.ask(&post("", &large[1..])).await;
    assert!(fits.ends_with(" 100"), "{fits}");
    let refused = server.ask(b"DELETE / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello").await;
    assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("connection: close"), "{refused}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = server(Limits::default());
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "a".repeat(2 * HEAD_MAX));
    let answer = server.ask(long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
    let answer = server.ask(many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn who_is_slow_is_cut() {
    let short = Duration::from_millis(50);
    let server = server(Limits { head: short, body: short, ..Limits::default() });
    let answer = server.ask(b"GET / HTTP/1.1\r\nhost:").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = server.ask(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhe").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn connections_are_bounded_by_address() {
    let server = server(Limits {
        connections: Bounds { of_one: 2, silent_min: LONG, ..CONNECTIONS },
        ..Limits::default()
    });
    let (mut one, _two) = (server.open().await, server.open().await);
    one.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    one.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    let third = server.ask(b"").await;
    assert!(third.starts_with("HTTP/1.1 429") && third.contains("retry-after: 5"), "{third}");
    drop(one);
    loop {
        // Its place is free when the server has noticed.
        let again = server.ask(&post("", "")).await;
        if again.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(again.is_empty() || again.starts_with("HTTP/1.1 429"), "{again}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn bodies_in_memory_have_one_budget() {
    let server = server(Limits { body_max: 4096, bodies_max: 4096, ..Limits::default() });
    let mut first = server.open().await;
    first.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4096\r\n\r\nx").await.unwrap();
    loop {
        let answer = server.ask(&post("", "x")).await;
        if answer.starts_with("HTTP/1.1 429") {
            assert!(answer.contains("retry-after"), "{answer}");
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.write_all(&vec![b'x'; 4095]).await.unwrap();
    let mut start = [0; 12];
    first.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
}

#[tokio::test]
async fn the_order_to_stop_ends_idle_connections() {
    let mut server = server(Limits::default());
    let mut idle = server.open().await;
    idle.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.unwrap();
    server.stop.cancel();
    assert!(server.task.join_next().await.unwrap().is_ok());
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn who_sends_nothing_goes_for_who_does() {
    let connections = Bounds { most: 2, of_one: 2, silent_min: Duration::ZERO };
    let server = server(Limits { connections, ..Limits::default() });
    let (mut silent, mut busy) = (server.open().await, server.open().await);
    busy.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    let mut start = [0; 12];
    busy.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 100", "its head was read");
    let third = server.ask(&post("", "x")).await;
    assert!(third.starts_with("HTTP/1.1 200"), "{third}");
    let mut rest = Vec::new();
    // Closed, in whichever way.
    let _ = silent.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    busy.write_all(b"ok").await.unwrap();
    rest.resize(" Continue\r\n\r\nHTTP/1.1 200".len(), 0);
    busy.read_exact(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 200"), "{rest:?}");
}
