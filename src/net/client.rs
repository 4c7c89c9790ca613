//! One HTTP client per destination: HTTP/1.1, no redirects, no cookies, no proxy from the environment, body capped.
//!
//! Flow: a room builds a [`Request`], [`HttpClient::send`] gives an [`Answer`] whatever its status, or a
//! [`TransportError`] that knows whether the other side may have acted. One thing is repeated here: what may be asked
//! twice and broke on a connection that was kept from before, since the other side had closed it while it was idle.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use url::Url;

use super::error::{Asked, NetError, TransportError, read};
use super::packed::{self, Trouble};
use super::{ProxySettings, TlsSettings, check_url, place, proxy, tls};
use crate::model::Secret;

/// Longest body of an answer that is held, in bytes; a request may ask for less.
pub const BODY_MAX: usize = 8 * 1024 * 1024;

/// Longest answer of a look-up, in bytes: rows of a few short fields. A larger one is a mistake or an attack, and what
/// reads it would hold a multiple of it.
pub const LOOK_UP_MAX: usize = 256 * 1024;

/// Longest value of an answer's header that is kept, in bytes.
const HEADER_MAX: usize = 1024;

/// Idle connections are kept no longer: load balancers close them after 20 s, and that must not race with a POST.
const POOL_IDLE: Duration = Duration::from_secs(15);
/// Idle connections that are kept.
const POOL_SIZE: usize = 2;
/// A call that may be asked twice is repeated so often: all idle connections may be dead, and the one made after them.
const REPEATS: usize = POOL_SIZE + 1;

/// Headers that are ours to set, or that would change where the answer goes.
const OWN_HEADERS: [&str; 16] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-sn-apikey",
];

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Name, TCP, proxy and TLS together. Default 10 s.
    pub connect: Duration,
    /// From the first to the last byte of the answer. Default 70 s: ServiceNow itself gives up after 60 s.
    pub whole: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), whole: Duration::from_secs(70) }
    }
}

/// What is done with the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Read.
    Get,
    /// Create.
    Post,
    /// Set.
    Put,
    /// Change.
    Patch,
    /// Take away.
    Delete,
}

/// One call. `Debug` shows neither header values nor the body nor the query.
#[derive(Clone)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// https, or http to a loopback address.
    pub url: Url,
    /// Name and value; values are treated as secrets.
    pub headers: Vec<(&'static str, String)>,
    /// The body, if any.
    pub body: Option<Vec<u8>>,
    /// Longest body of the answer, in bytes; more than [`BODY_MAX`] counts as that.
    pub answer_max: usize,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .field("path", &self.url.path())
            .field("headers", &names)
            .field("body_bytes", &self.body.as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

/// What came back, whatever its status. `Debug` shows neither header values nor the body.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Media type without its parameters, in lower case; `None` when absent or unreadable.
    pub content_type: Option<String>,
    /// Name in lower case and value (cut at 1 KiB), without `Set-Cookie`.
    pub headers: Vec<(String, String)>,
    /// The body, complete.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// An answer whose body is read as it comes. `Debug` shows neither header values nor the body.
pub struct Incoming<'c> {
    /// HTTP status.
    pub status: u16,
    /// As [`Answer::content_type`].
    pub content_type: Option<String>,
    /// As [`Answer::headers`].
    pub headers: Vec<(String, String)>,
    client: &'c HttpClient,
    host: String,
    through: Option<String>,
    limit: usize,
    length: usize,
    response: reqwest::Response,
}

impl Incoming<'_> {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// The connection broke, the time is over, or the body is longer than the request allowed.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, TransportError> {
        let asked =
            Asked { host: &self.host, proxy: self.through.as_deref(), deadlines: self.client.deadlines };
        let chunk = self.response.chunk().await.map_err(|e| self.client.failed(&e, &asked))?;
        let Some(chunk) = chunk else {
            self.client.has_answered();
            return Ok(None);
        };
        self.length = self.length.saturating_add(chunk.len());
        if self.length > self.limit {
            return Err(TransportError::TooLarge { host: self.host.clone(), limit: self.limit });
        }
        Ok(Some(chunk.to_vec()))
    }

    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

/// A client for one destination. After a refused handshake the trust files are read again before the next call, so that
/// a replaced `ca_file` mends it without a restart.
#[derive(Debug)]
pub struct HttpClient {
    tls: TlsSettings,
    proxy: Option<ProxySettings>,
    deadlines: Deadlines,
    /// Sent with each request.
    extra: HeaderMap,
    inner: RwLock<reqwest::Client>,
    stale: AtomicBool,
    /// When the last answer was complete: from then on a connection may be idle.
    answered_at: Mutex<Option<Instant>>,
}

/// A client with the usual deadlines.
///
/// # Errors
/// Trust files that cannot be read, nothing to trust at all, or a proxy address that cannot be used.
pub fn client(tls: &TlsSettings, proxy: Option<&ProxySettings>) -> Result<HttpClient, NetError> {
    client_with(tls, proxy, Deadlines::default())
}

/// A client with deadlines of one's own.
///
/// # Errors
/// As [`client`].
pub fn client_with(
    tls: &TlsSettings,
    proxy: Option<&ProxySettings>,
    deadlines: Deadlines,
) -> Result<HttpClient, NetError> {
    let inner = build(tls, proxy, deadlines)?;
    Ok(HttpClient {
        tls: tls.clone(),
        proxy: proxy.cloned(),
        deadlines,
        extra: HeaderMap::new(),
        inner: RwLock::new(inner),
        stale: AtomicBool::new(false),
        answered_at: Mutex::new(None),
    })
}

#[expect(clippy::disallowed_methods, reason = "the one place that builds a client")]
fn build(
    tls: &TlsSettings,
    proxy: Option<&ProxySettings>,
    deadlines: Deadlines,
) -> Result<reqwest::Client, NetError> {
    // The name leads to this machine whatever a resolver says, so that plain http cannot leave it.
    let loopback = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(tls)?)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .user_agent(concat!("otrelay/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.whole)
        .pool_idle_timeout(POOL_IDLE)
        .pool_max_idle_per_host(POOL_SIZE)
        .resolve_to_addrs("localhost", &loopback);
    if let Some(settings) = proxy {
        builder = builder.proxy(proxy::connect_proxy(settings)?);
    }
    builder.build().map_err(|e| NetError::Setup(e.without_url().to_string()))
}

impl HttpClient {
    /// The same client with headers that go with each request, for a gateway in front of the instance.
    ///
    /// # Errors
    /// A name or a value that cannot be a header, or a header that is ours to set.
    pub fn with_headers(mut self, headers: &[(String, Secret)]) -> Result<Self, NetError> {
        for (name, value) in headers {
            let refuse = |cause| NetError::Header { name: name.clone(), cause };
            check_header(name).map_err(refuse)?;
            let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
                .map_err(|_| refuse("it is not the name of a header"))?;
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| refuse("its value has characters that HTTP forbids"))?;
            value.set_sensitive(true);
            self.extra.insert(name, value);
        }
        Ok(self)
    }

    /// Makes the call and reads the answer to its end. A GET that breaks on a connection from before is repeated.
    ///
    /// # Errors
    /// See [`TransportError`]; a status of 400 or 500 is an answer, not an error.
    pub async fn send(&self, request: Request) -> Result<Answer, TransportError> {
        let repeats = if request.method == Method::Get { REPEATS } else { 0 };
        self.send_within(request, repeats).await
    }

    /// As [`Self::send`] for what may be asked twice whatever its method: a grant gives the same token again.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_repeatable(&self, request: Request) -> Result<Answer, TransportError> {
        self.send_within(request, REPEATS).await
    }

    async fn send_within(&self, request: Request, repeats: usize) -> Result<Answer, TransportError> {
        check_url(&request.url).map_err(TransportError::NotAllowed)?;
        let end = Instant::now() + self.deadlines.whole;
        let mut left = if self.is_reusing() { repeats } else { 0 };
        loop {
            match self.once(&request, end).await {
                Err(TransportError::Cut { .. }) if left > 0 && Instant::now() < end => left -= 1,
                Err(error @ TransportError::Proxy { login: true, .. }) => {
                    return Err(self.explain(error).await);
                }
                other => return other,
            }
        }
    }

    async fn once(&self, request: &Request, end: Instant) -> Result<Answer, TransportError> {
        let limit = request.answer_max.min(BODY_MAX);
        let mut incoming = self.begin(request, limit, end).await?;
        let mut body = Vec::new();
        while let Some(chunk) = incoming.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        let Incoming { status, content_type, headers, host, .. } = incoming;
        unpacked(Answer { status, content_type, headers, body }, limit).map_err(|(trouble, encoding)| {
            match trouble {
                Trouble::TooLarge => TransportError::TooLarge { host, limit },
                Trouble::Damaged => TransportError::Packed { host, encoding, damaged: true },
                Trouble::Unknown => TransportError::Packed { host, encoding, damaged: false },
            }
        })
    }

    /// Makes the call; the body of the answer is read piece by piece and never held whole, so `answer_max` may be more
    /// than [`BODY_MAX`] here, and a packed body stays packed. A GET that breaks on a connection from before is repeated.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn open(&self, request: Request) -> Result<Incoming<'_>, TransportError> {
        check_url(&request.url).map_err(TransportError::NotAllowed)?;
        let end = Instant::now() + self.deadlines.whole;
        let mut left = if request.method == Method::Get && self.is_reusing() { REPEATS } else { 0 };
        loop {
            match self.begin(&request, request.answer_max, end).await {
                Err(TransportError::Cut { .. }) if left > 0 && Instant::now() < end => left -= 1,
                Err(error @ TransportError::Proxy { login: true, .. }) => {
                    return Err(self.explain(error).await);
                }
                other => return other,
            }
        }
    }

    /// Sends the request and waits for the head of the answer.
    async fn begin(
        &self,
        request: &Request,
        limit: usize,
        end: Instant,
    ) -> Result<Incoming<'_>, TransportError> {
        let host = place(&request.url);
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        let through = self.proxy.as_ref().filter(|_| request.url.scheme() == "https").map(|p| place(&p.url));
        let asked = Asked { host: &host, proxy: through.as_deref(), deadlines: self.deadlines };
        let mut headers = self.extra.clone();
        headers.extend(header_map(&request.headers)?);
        let mut call = self
            .current()
            .request(method, request.url.clone())
            .headers(headers)
            .timeout(end.saturating_duration_since(Instant::now()));
        if let Some(body) = &request.body {
            call = call.body(body.clone());
        }
        let response = call.send().await.map_err(|e| self.failed(&e, &asked))?;
        if response.content_length().is_some_and(|n| n > limit as u64) {
            return Err(TransportError::TooLarge { host, limit });
        }
        Ok(Incoming {
            status: response.status().as_u16(),
            content_type: media_type(response.headers()),
            headers: kept(response.headers()),
            client: self,
            host,
            through,
            limit,
            length: 0,
            response,
        })
    }

    /// Whether a connection from before may be used.
    fn is_reusing(&self) -> bool {
        let answered_at = *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner);
        answered_at.is_some_and(|at| at.elapsed() <= POOL_IDLE)
    }

    fn has_answered(&self) {
        *self.answered_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// What the proxy offers, where it does not take our login.
    async fn explain(&self, mut error: TransportError) -> TransportError {
        if let (TransportError::Proxy { host, offers, .. }, Some(settings)) = (&mut error, &self.proxy) {
            *offers = proxy::offers(&settings.url, host, self.deadlines.connect).await;
        }
        error
    }

    /// The library's client, built anew when the last handshake was refused. If the files are worse than before, the
    /// old client stays, and the refusal it gives is the better message.
    fn current(&self) -> reqwest::Client {
        if self.stale.swap(false, Ordering::AcqRel)
            && let Ok(fresh) = build(&self.tls, self.proxy.as_ref(), self.deadlines)
        {
            *self.inner.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        self.inner.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, error: &reqwest::Error, asked: &Asked<'_>) -> TransportError {
        let error = read(error, asked);
        if matches!(error, TransportError::Tls { .. }) {
            self.stale.store(true, Ordering::Release);
        }
        error
    }
}

/// Whether a header may be set by the config.
///
/// # Errors
/// Why not, in words.
pub fn check_header(name: &str) -> Result<(), &'static str> {
    let lower = name.to_ascii_lowercase();
    if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("proxy-") {
        return Err("this header is set by otrelay itself, or would change where the request goes");
    }
    HeaderName::from_bytes(lower.as_bytes()).map(drop).map_err(|_| "it is not the name of a header")
}

/// The answer with its body unpacked, or why not and the encoding, cleaned.
fn unpacked(mut answer: Answer, limit: usize) -> Result<Answer, (Trouble, String)> {
    let Some(encoding) = answer.header("content-encoding").map(str::to_owned) else { return Ok(answer) };
    answer.body = packed::unpack(answer.body, &encoding, limit).map_err(|trouble| {
        let clean = crate::model::text::one_line(&encoding).into_owned();
        (trouble, crate::model::text::clip(&clean, 40).into_owned())
    })?;
    answer.headers.retain(|(name, _)| name != "content-encoding");
    Ok(answer)
}

fn header_map(headers: &[(&'static str, String)]) -> Result<HeaderMap, TransportError> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let bad = || {
            TransportError::NotAllowed(format!(
                "the value for the header {name} has characters that HTTP forbids"
            ))
        };
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        map.insert(HeaderName::from_static(name), value);
    }
    Ok(map)
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("content-type")?.to_str().ok()?;
    let plain = text.split(';').next()?.trim().to_ascii_lowercase();
    (!plain.is_empty()).then_some(plain)
}

fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter(|(name, _)| *name != "set-cookie")
        .filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value[..value.len().min(HEADER_MAX)].to_owned()))
        })
        .collect()
}
