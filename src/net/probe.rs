//! The way to an address, step by step: name, connection, proxy, certificate. For people: one [`Finding`] a step, up to
//! the first that does not work. Sends nothing but what a connection needs, and keeps none.
//!
//! It trusts what `net::client` trusts: verdicts are those of the same verifier.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::certificate::Look;
use super::error::{TransportError, trouble};
use super::{ProxySettings, TlsSettings, place, proxy, tls};
use crate::model::{Finding, Timestamp, text};

/// How long each step may take.
const STEP: Duration = Duration::from_secs(10);
/// A certificate that ends sooner is said.
const ENDS_SOON: Duration = Duration::from_hours(21 * 24);
/// Addresses of a name that are shown.
const SHOWN: usize = 4;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Goes the way to an address.
pub async fn way(
    url: &Url,
    settings: &TlsSettings,
    through: Option<&ProxySettings>,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Plain http is for loopback, which no proxy can reach.
    let through = through.filter(|_| url.scheme() == "https");
    if let Err(last) = go(url, settings, through, now, &mut findings).await {
        findings.push(last);
    }
    findings
}

async fn go(
    url: &Url,
    settings: &TlsSettings,
    through: Option<&ProxySettings>,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) -> Result<(), Finding> {
    let first = through.map_or(url, |proxy| &proxy.url);
    let addresses = resolve(first, findings).await?;
    let stream = connect(first, &addresses, through.is_some(), url).await?;
    let (host, first_host) = (place(url), place(first));
    let mut stream: Box<dyn Stream> = Box::new(stream);
    if let Some(proxy) = through {
        if proxy.url.scheme() == "https" {
            let (inner, words) = shake(&proxy.url, stream, settings, now, "proxy certificate").await?;
            findings.push(words);
            stream = inner;
        }
        let head = timeout(STEP, proxy::tunnel(&mut stream, &host, proxy.login.as_ref())).await;
        findings.push(tunnelled(&first_host, &host, head)?);
    } else {
        findings.push(Finding::ok("connection", format!("{first_host} answers")));
    }
    if url.scheme() == "https" {
        let (_, words) = shake(url, stream, settings, now, "certificate").await?;
        findings.push(words);
    }
    Ok(())
}

async fn resolve(url: &Url, findings: &mut Vec<Finding>) -> Result<Vec<SocketAddr>, Finding> {
    let port = url.port_or_known_default().unwrap_or(443);
    let name = match url.host() {
        Some(Host::Ipv4(ip)) => return Ok(vec![SocketAddr::from((ip, port))]),
        Some(Host::Ipv6(ip)) => return Ok(vec![SocketAddr::from((ip, port))]),
        Some(Host::Domain("localhost")) => {
            return Ok(vec![
                SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port)),
                SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)),
            ]);
        }
        Some(Host::Domain(name)) => name,
        None => return Err(Finding::fail("name", "the address has no host", "correct it in the config")),
    };
    let remedy = format!(
        "correct the name in the config, or the resolver of this machine (/etc/resolv.conf; `getent hosts {name}`)"
    );
    let failed = |why: String| Finding::fail("name", format!("{name} has no address: {why}"), remedy.clone());
    let found = timeout(STEP, tokio::net::lookup_host((name, port)))
        .await
        .map_err(|_| failed(format!("no answer within {} s", STEP.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    let found: Vec<SocketAddr> = found.take(16).collect();
    if found.is_empty() {
        return Err(failed("the answer names none".to_owned()));
    }
    let shown: Vec<String> = found.iter().take(SHOWN).map(|at| at.ip().to_string()).collect();
    findings.push(Finding::ok("name", format!("{name} is {}", shown.join(", "))));
    Ok(found)
}

async fn connect(
    first: &Url,
    addresses: &[SocketAddr],
    is_proxy: bool,
    url: &Url,
) -> Result<TcpStream, Finding> {
    let mut cause = "no address".to_owned();
    for address in addresses {
        match timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => cause = e.to_string(),
            Err(_) => cause = format!("no connection within {} s", STEP.as_secs()),
        }
    }
    let host = place(first);
    let (name, error) = if is_proxy {
        let (proxy, host) = (host, place(url));
        ("proxy", TransportError::Proxy { proxy, host, cause, login: false, offers: Vec::new() })
    } else {
        ("connection", TransportError::Connect { host, cause })
    };
    Err(Finding::fail(name, error.to_string(), error.remedy()))
}

/// What the proxy said to the CONNECT.
fn tunnelled(
    proxy: &str,
    host: &str,
    head: Result<std::io::Result<Vec<u8>>, tokio::time::error::Elapsed>,
) -> Result<Finding, Finding> {
    let failed = |cause: String, login: bool, offers: Vec<String>| {
        let (proxy, host) = (proxy.to_owned(), host.to_owned());
        let error = TransportError::Proxy { proxy, host, cause, login, offers };
        Finding::fail("proxy", error.to_string(), error.remedy())
    };
    let head = match head {
        Err(_) => return Err(failed(format!("no answer within {} s", STEP.as_secs()), false, Vec::new())),
        Ok(Err(e)) => return Err(failed(e.to_string(), false, Vec::new())),
        Ok(Ok(head)) => head,
    };
    let first = String::from_utf8_lossy(&head);
    let status = first.split_whitespace().nth(1).unwrap_or_default();
    match status {
        "200" => Ok(Finding::ok("proxy", format!("{proxy} gives a connection to {host}"))),
        "407" => {
            Err(failed("it asks for a login, or refuses ours (407)".to_owned(), true, proxy::schemes(&head)))
        }
        "" => Err(failed("it closed the connection during the CONNECT".to_owned(), false, Vec::new())),
        other => {
            let other = text::clip(&text::one_line(other), 20).into_owned();
            Err(failed(format!("it refused the CONNECT ({other})"), false, Vec::new()))
        }
    }
}

async fn shake(
    url: &Url,
    stream: Box<dyn Stream>,
    settings: &TlsSettings,
    now: Timestamp,
    name: &str,
) -> Result<(Box<dyn Stream>, Finding), Finding> {
    let (config, chain) = tls::noting_config(settings)
        .map_err(|e| Finding::fail(name, e.to_string(), "correct [servicenow.NAME.tls] or the file"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let server = ServerName::try_from(host)
        .map_err(|_| Finding::fail(name, "the host is no name of a server", "correct it in the config"))?;
    let shaken = timeout(STEP, TlsConnector::from(Arc::new(config)).connect(server, stream)).await;
    let shown = chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let shown = looks(&shown);
    let host = place(url);
    match shaken {
        Ok(Ok(stream)) => Ok((Box::new(stream), good(name, &shown, settings, now))),
        Ok(Err(e)) => {
            let trouble = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).map(trouble);
            let error = match trouble {
                Some(trouble) => TransportError::Tls { host, trouble, sent: false },
                None => TransportError::Cut { host, cause: e.to_string() },
            };
            let chain = if shown.is_empty() { String::new() } else { format!("; {}", words(&shown)) };
            let remedy = error.remedy();
            let usual = "see whether something in between cuts TLS connections (firewall, inspecting proxy)";
            let remedy = if remedy.is_empty() { usual.to_owned() } else { remedy };
            Err(Finding::fail(name, format!("{error}{chain}"), remedy))
        }
        Err(_) => Err(Finding::fail(
            name,
            format!("{host} did not finish the TLS handshake within {} s", STEP.as_secs()),
            "see whether something in between holds TLS connections back (firewall, inspecting proxy)",
        )),
    }
}

fn looks(chain: &[CertificateDer<'_>]) -> Vec<Look> {
    chain.iter().filter_map(|certificate| Look::at(certificate)).collect()
}

/// The chain in words: it shows its own, signed by one, signed by another.
fn words(chain: &[Look]) -> String {
    let signed = chain.iter().map(|look| {
        if look.self_issued { "signed by itself".to_owned() } else { format!("signed by `{}`", look.issuer) }
    });
    let own = chain.first().map_or("", |look| look.subject.as_str());
    format!("it shows `{own}`, {}", signed.collect::<Vec<_>>().join(", "))
}

fn good(name: &str, chain: &[Look], settings: &TlsSettings, now: Timestamp) -> Finding {
    let pinned = if settings.pin.is_some() { "; it is the pinned one" } else { "" };
    let Some(first) = chain.iter().filter(|look| look.ends_at.is_some()).min_by_key(|look| look.ends_at)
    else {
        return Finding::ok(name, format!("{}{pinned}", words(chain)));
    };
    let end = first.ends_at.unwrap_or(Timestamp::EPOCH);
    let whose =
        if first.subject == chain[0].subject { String::new() } else { format!(" of `{}`", first.subject) };
    let left = end.since(now);
    let text = format!(
        "{}; the time{whose} ends {} UTC, in {} days{pinned}",
        words(chain),
        end.servicenow(),
        left.as_secs() / 86_400
    );
    // A pin holds whatever the dates are.
    if left < ENDS_SOON && settings.pin.is_none() {
        Finding::warn(name, text, "have it renewed there before that day")
    } else {
        Finding::ok(name, text)
    }
}
