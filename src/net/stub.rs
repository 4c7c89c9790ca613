//! A scripted HTTP server for unit tests: a thread, one connection at a time, raw bytes out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::Url;

/// What the stub does with one request.
pub(crate) enum Reply {
    /// Writes these bytes and closes.
    Bytes(Vec<u8>),
    /// Keeps the connection open without a word, this long.
    Hang(Duration),
    /// Writes the bytes one by one with a pause between them.
    Drip(Vec<u8>, Duration),
}

/// A complete answer with `Content-Length`.
pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    Reply::Bytes(format!("{text}\r\n{body}").into_bytes())
}

/// The same with `Content-Type: application/json`.
pub(crate) fn json(status: u16, body: &str) -> Reply {
    reply(status, &[("Content-Type", "application/json;charset=UTF-8")], body)
}

/// The running stub; its thread ends with the test process.
pub(crate) struct Stub {
    /// `http://127.0.0.1:port`.
    pub(crate) url: Url,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// Answers the requests by `script`, which gets the number of the request and its text (head and body).
    pub(crate) fn start(mut script: impl FnMut(usize, &str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let Ok(mut stream) = stream else { return };
                let request = read_request(&mut stream);
                record.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
                act(stream, script(number, &request));
            }
        });
        Self { url, seen }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn act(mut stream: TcpStream, reply: Reply) {
    match reply {
        Reply::Bytes(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Both);
        }
        Reply::Hang(time) => std::thread::sleep(time),
        Reply::Drip(bytes, pause) => {
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(pause);
            }
        }
    }
}

/// One request with its `Content-Length` body.
pub(crate) fn read_request(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end]
                .lines()
                .find_map(|l| {
                    l.to_ascii_lowercase()
                        .strip_prefix("content-length:")
                        .map(|v| v.trim().parse().unwrap_or(0))
                })
                .unwrap_or(0usize);
            if bytes.len() >= end + 4 + length {
                return text.into_owned();
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return String::from_utf8_lossy(&bytes).into_owned(),
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}
