//! The only place that builds a client or a listener's TLS: roots, proxy, size caps, no redirects.
//!
//! Rooms hand over a [`Request`] and get an [`Answer`] or a [`TransportError`]; they never see the HTTP or TLS library.
//! What an answer means (which status is a success) is theirs.

use std::net::IpAddr;
use std::path::PathBuf;

use url::{Host, Url};

use crate::model::Secret;

#[cfg(test)]
mod calls;

mod certificate;

pub mod chrony;

mod client;

mod error;

pub mod listen;

mod packed;

pub mod pem;

pub mod places;

pub mod probe;

mod proxy;

pub mod serve;

mod tls;

pub mod web;

#[cfg(test)]
#[cfg(feature = "simulator")]
mod handshakes;

#[cfg(test)]
pub(crate) mod stub;

pub use client::{
    Answer, BODY_MAX, Deadlines, HttpClient, Incoming, LOOK_UP_MAX, Method, Request, check_header, client,
    client_with,
};
pub use error::{NetError, TlsTrouble, TransportError};
pub use proxy::proxy_of_environment;
pub use tls::look_at_ca_file;

/// What a TLS client trusts. There is no way to trust everything.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// PEM file with certificates that are trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Whether the system's roots are trusted at all; without them only `ca_file` counts.
    pub system_roots: bool,
    /// SHA-256 of the server's certificate (what `openssl x509 -fingerprint -sha256` prints) or of its public key info;
    /// either may match. With a pin, roots, names and dates of the certificate do not matter.
    pub pin: Option<[u8; 32]>,
    /// What is shown to a server that asks for a certificate.
    pub client: Option<ClientCertificate>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { ca_file: None, system_roots: true, pin: None, client: None }
    }
}

/// A certificate of our own and its key. Both files are read when a client is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM: the certificate, and those that lead to its CA.
    pub cert_file: PathBuf,
    /// PEM: its key, not encrypted.
    pub key_file: PathBuf,
}

/// An HTTP proxy that is asked with CONNECT.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `http://host:port` or `https://host:port`.
    pub url: Url,
    /// User and password, if it wants them.
    pub login: Option<(String, Secret)>,
}

/// Whether otrelay may talk to this address at all: https, or plain http to a loopback address; no user info, a host,
/// and none of the addresses that only ever lead somewhere else (link-local with the clouds' metadata services,
/// multicast, unspecified). The text says what is wrong and never repeats user info.
///
/// # Errors
/// One sentence for the operator.
pub fn check_url(url: &Url) -> Result<(), String> {
    let Some(host) = url.host() else {
        return Err(format!("`{}:…` has no host; expected https://HOST", url.scheme()));
    };
    let shown = format!("{}://{host}", url.scheme());
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{shown} carries a user name or password; give them in their own keys"));
    }
    if let Some(ip) = ip_of(&host)
        && is_elsewhere(ip)
    {
        return Err(format!("{shown} is a link-local, multicast or unspecified address; name the real host"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&host) => Ok(()),
        "http" => Err(format!("{shown} is not encrypted; plain http is allowed to a loopback address only")),
        _ => Err(format!("{shown} is neither https nor http to a loopback address")),
    }
}

/// `host:port`, never user info.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or("(no host)");
    match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn ip_of(host: &Host<&str>) -> Option<IpAddr> {
    match host {
        Host::Ipv4(ip) => Some(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(*ip).to_canonical()),
        Host::Domain(_) => None,
    }
}

/// `localhost` counts: the client resolves that name to the two loopback addresses itself.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        _ => ip_of(host).is_some_and(|ip| ip.is_loopback()),
    }
}

fn is_elsewhere(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || ip.is_multicast() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encrypted_or_loopback_addresses_pass() {
        let good = [
            "https://acme.service-now.com",
            "https://acme.service-now.com:8443/x?y=z",
            "https://10.1.2.3",
            "https://[fd00::1]",
            "https://localhost:8443",
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost:1",
            "http://LOCALHOST",
            "http://2130706433/", // the URL parser makes 127.0.0.1 of it
        ];
        for text in good {
            assert_eq!(check_url(&Url::parse(text).unwrap()), Ok(()), "{text}");
        }
        let bad = [
            "http://acme.service-now.com",
            "http://10.1.2.3",
            "http://127.0.0.1.nip.io",
            "http://localhost.plant.example",
            "http://128.0.0.1",
            "http://0.0.0.0",
            "http://[::]",
            "https://0.0.0.0",
            "https://169.254.169.254/latest/meta-data",
            "https://0xa9fea9fe/",
            "https://2852039166/",
            "https://[::ffff:169.254.169.254]",
            "https://[fe80::1]",
            "https://224.0.0.1",
            "https://255.255.255.255",
            "https://[ff02::1]",
            "https://user@acme.service-now.com",
            "https://user:canary-7f@acme.service-now.com",
            "https://:canary-7f@acme.service-now.com",
            "ftp://acme.service-now.com",
            "file:///etc/passwd",
            "unix:/run/x.sock",
            "data:text/plain,x",
            "ws://127.0.0.1",
            "gopher://127.0.0.1",
        ];
        for text in bad {
            let problem = check_url(&Url::parse(text).unwrap()).unwrap_err();
            assert!(!problem.contains("canary"), "{text}: {problem}");
        }
    }
}
