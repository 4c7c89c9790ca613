//! HTTP for people and scrapers of this machine, with every bound that a hostile visitor needs: connections in all, time
//! and size of a request's head, and no body is read.
//!
//! Rooms hand over a router; which hosts and methods are answered is decided here, before it is asked. Connections are
//! tasks of the loop's own `JoinSet` and end with it.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::places::{Doors, Place};
use super::serve::{CONNECTIONS, accept};

const CONNECTION_TIME: Duration = Duration::from_mins(10);
/// Longest time for a request's head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long connections may go on after the order to stop.
const GRACE: Duration = Duration::from_secs(2);

/// What every answer carries: no outside resource, no frame, no sniffing, no trace in caches and other sites.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self'; connect-src 'self'; script-src 'self'; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Serves until `stop`; then requests that are being answered have a moment to end.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(from_fn(guard));
    let places = Doors::new(CONNECTIONS).places;
    let begin = |stream, _, place| {
        let serving = connection(stream, place, router.clone(), stop.clone());
        // A visitor who reads slowly has a place for so long; a browser comes again by itself.
        async move { drop(tokio::time::timeout(CONNECTION_TIME, serving).await) }
    };
    accept(listener, &places, begin, GRACE, &stop).await;
}

async fn connection(stream: TcpStream, place: Place, router: Router, stop: CancellationToken) {
    // Answers are one write each; without this the second of two waits for the peer's delayed ack.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request| {
        place.is_silent();
        router.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // A broken connection is the visitor's business.
    tokio::select! {
        served = serving.as_mut() => drop(served),
        () = place.told_to_go() => {}
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            drop(serving.await);
        }
    }
}

/// Looks at a request before the router does, and puts [`HEADERS`] on every answer.
async fn guard(request: Request, next: Next) -> Response {
    let refused = if !is_ours(request.uri(), request.headers()) {
        // A name that leads here only by somebody else's DNS: a page of theirs could read the answer.
        Some((
            StatusCode::MISDIRECTED_REQUEST,
            "This page is only for the names of this machine: localhost, 127.0.0.1, [::1].\n",
        ))
    } else if request.method() != Method::GET && request.method() != Method::HEAD {
        Some((StatusCode::METHOD_NOT_ALLOWED, "This page only shows. GET and HEAD are answered.\n"))
    } else if announces_body(request.headers()) {
        Some((StatusCode::PAYLOAD_TOO_LARGE, "A request to this page has no body.\n"))
    } else {
        None
    };
    let mut response = match refused {
        None => next.run(request).await,
        Some((status, words)) => {
            let mut response = (status, words).into_response();
            // What else it sent is not read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            if status == StatusCode::METHOD_NOT_ALLOWED {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            if request.method() == Method::HEAD {
                *response.body_mut() = Body::empty();
            }
            response
        }
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a request has something behind its head.
fn announces_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// Whether a request asks for a name of this machine. Any port: the way here may be an SSH tunnel.
fn is_ours(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let named = host.to_str().is_ok_and(is_loopback);
    named && uri.authority().is_none_or(|authority| is_loopback(authority.as_str()))
}

/// `localhost`, or an address that only this machine has, with or without a port.
fn is_loopback(authority: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) && !host.ends_with(':') => host,
        Some(_) if !authority.ends_with(']') => return false,
        _ => authority,
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match address {
        Some(v6) => v6.parse().is_ok_and(|v6: std::net::Ipv6Addr| v6.is_loopback()),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() && ip.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_and_no_others() {
        for ours in
            ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9464", "[::1]", "[::1]:9464", "127.9.9.9:1"]
        {
            assert!(is_loopback(ours), "{ours}");
        }
        let strange = [
            "",
            ":",
            "localhost:",
            "localhost.example",
            "evil.example:9464",
            "127.0.0.1.example",
            "::1",
            "[::1",
            "[::2]:1",
            "10.0.0.1:9464",
            "localhost:80@evil.example",
            "localhost:80:80",
            "user@localhost",
            "0.0.0.0:9464",
        ];
        for strange in strange {
            assert!(!is_loopback(strange), "{strange}");
        }
    }
}
