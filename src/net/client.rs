//! One HTTP client per destination: HTTP/1.1, no redirects, no cookies, no proxy from the environment, body capped.
//!
//! Flow: a room builds a [`Request`], [`HttpClient::send`] gives an [`Answer`] whatever its status, or a
//! [`TransportError`] that knows whether the other side may have acted. Nothing is retried here.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::error::{Asked, NetError, TransportError, read};
use super::{ProxySettings, TlsSettings, check_url, tls};

/// Longest body of an answer that is held, in bytes; a request may ask for less.
pub const BODY_MAX: usize = 8 * 1024 * 1024;

/// Longest value of an answer's header that is kept, in bytes.
const HEADER_MAX: usize = 1024;

/// Idle connections are kept no longer: the other side's own time-out must not race with a POST.
const POOL_IDLE: Duration = Duration::from_secs(30);

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
        let Some(chunk) = chunk else { return Ok(None) };
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
    inner: RwLock<reqwest::Client>,
    stale: AtomicBool,
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
        inner: RwLock::new(inner),
        stale: AtomicBool::new(false),
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
        .pool_max_idle_per_host(2)
        .resolve_to_addrs("localhost", &loopback);
    if let Some(settings) = proxy {
        builder = builder.proxy(connect_proxy(settings)?);
    }
    builder.build().map_err(|e| NetError::Setup(e.without_url().to_string()))
}

/// Only https goes through the proxy, by CONNECT: plain http is for loopback, which no proxy can reach.
fn connect_proxy(settings: &ProxySettings) -> Result<reqwest::Proxy, NetError> {
    let shown = format!("{}://{}", settings.url.scheme(), place(&settings.url));
    let refuse = |cause: &str| NetError::Proxy { proxy: shown.clone(), cause: cause.to_owned() };
    if settings.url.scheme() != "http" || settings.url.host_str().is_none() {
        return Err(refuse("expected http://HOST:PORT"));
    }
    if !settings.url.username().is_empty() || settings.url.password().is_some() {
        return Err(refuse("user and password belong into proxy.username and proxy.password"));
    }
    let proxy =
        reqwest::Proxy::https(settings.url.clone()).map_err(|_| refuse("it is not a proxy address"))?;
    Ok(match &settings.login {
        Some((user, password)) => proxy.basic_auth(user, password.expose()),
        None => proxy,
    })
}

/// `host:port`, never user info.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("(no host)");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

impl HttpClient {
    /// Makes the call and reads the answer to its end.
    ///
    /// # Errors
    /// See [`TransportError`]; a status of 400 or 500 is an answer, not an error.
    pub async fn send(&self, mut request: Request) -> Result<Answer, TransportError> {
        request.answer_max = request.answer_max.min(BODY_MAX);
        let mut incoming = self.open(request).await?;
        let mut body = Vec::new();
        while let Some(chunk) = incoming.chunk().await? {
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: incoming.status,
            content_type: incoming.content_type,
            headers: incoming.headers,
            body,
        })
    }

    /// Makes the call; the body of the answer is read piece by piece and never held whole, so `answer_max` may be more
    /// than [`BODY_MAX`] here.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn open(&self, request: Request) -> Result<Incoming<'_>, TransportError> {
        check_url(&request.url).map_err(TransportError::NotAllowed)?;
        let host = place(&request.url);
        let headers = header_map(&request.headers)?;
        let limit = request.answer_max;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
        };
        let through = self.proxy.as_ref().filter(|_| request.url.scheme() == "https").map(|p| place(&p.url));
        let asked = Asked { host: &host, proxy: through.as_deref(), deadlines: self.deadlines };
        let mut call = self.current().request(method, request.url).headers(headers);
        if let Some(body) = request.body {
            call = call.body(body);
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
