//! Why no answer came, in terms a person can act on.
//!
//! The library's error is a chain of boxed causes; it is read once, here. No text of ours holds a URL with user info, a
//! header or a body.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::certificate::USABLE;
use super::client::Deadlines;

/// Why a client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// `tls.ca_file` could not be read.
    #[error("could not read tls.ca_file {path}: {cause}")]
    CaFile {
        /// Which file.
        path: String,
        /// What the system or the PEM reader said.
        cause: String,
    },
    /// `tls.ca_file` holds nothing that can be trusted.
    #[error(
        "tls.ca_file {path} holds no usable certificate; expected PEM blocks `-----BEGIN CERTIFICATE-----`"
    )]
    CaFileEmpty {
        /// Which file.
        path: String,
    },
    /// `tls.ca_file` holds only certificates whose keys cannot be used.
    #[error("tls.ca_file {path} holds no certificate that can be used: {why}; what can be used is {USABLE}")]
    CaFileWeak {
        /// Which file.
        path: String,
        /// What is wrong with the first.
        why: String,
    },
    /// The client's certificate or key.
    #[error("{key} {path}: {cause}")]
    ClientCertificate {
        /// `tls.client_cert_file` or `tls.client_key_file`.
        key: &'static str,
        /// Which file.
        path: String,
        /// What is wrong.
        cause: String,
    },
    /// A header of the config.
    #[error("header {name}: {cause}")]
    Header {
        /// Its name.
        name: String,
        /// Why it cannot be sent.
        cause: &'static str,
    },
    /// Nothing to trust.
    #[error(
        "this system has no trusted root certificates (is the package ca-certificates installed?); install it, or name \
         tls.ca_file or tls.pin"
    )]
    NoRoots,
    /// The proxy's address.
    #[error("the proxy address {proxy} cannot be used: {cause}")]
    Proxy {
        /// `scheme://host:port`.
        proxy: String,
        /// Why.
        cause: String,
    },
    /// The library refused the settings.
    #[error("could not set up the HTTPS client: {0}")]
    Setup(String),
}

/// Why a request brought no complete answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The request itself is not allowed or not possible; nothing was sent.
    #[error("the request was not made: {0}")]
    NotAllowed(String),
    /// No connection: refused, no route, name not resolved, time-out while connecting. Nothing was sent.
    #[error("could not connect to {host}: {cause}")]
    Connect {
        /// `host:port`.
        host: String,
        /// In plain words.
        cause: String,
    },
    /// The proxy did not give a connection. Nothing was sent to the other side.
    #[error("the proxy {proxy} gave no connection to {host}: {cause}")]
    Proxy {
        /// `host:port` of the proxy.
        proxy: String,
        /// `host:port` behind it.
        host: String,
        /// In plain words.
        cause: String,
        /// It asks for a login, or refuses ours.
        login: bool,
        /// The kinds of login that it then offers, where it said so.
        offers: Vec<String>,
    },
    /// The TLS handshake failed, or the other side refused us right after it.
    #[error("no trusted TLS connection to {host}: {trouble}")]
    Tls {
        /// `host:port`.
        host: String,
        /// What is wrong.
        trouble: TlsTrouble,
        /// The refusal came after the handshake (a client certificate was wanted): bytes of the request were sent.
        sent: bool,
    },
    /// Connected, but no complete answer in time.
    #[error("no complete answer from {host} within {} s", .after.as_secs())]
    Timeout {
        /// `host:port`.
        host: String,
        /// The deadline of the whole call.
        after: Duration,
    },
    /// The connection broke before the answer was complete.
    #[error("the connection to {host} broke before its answer was complete: {cause}")]
    Cut {
        /// `host:port`.
        host: String,
        /// In plain words.
        cause: String,
    },
    /// The answer is longer than we are willing to hold.
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLarge {
        /// `host:port`.
        host: String,
        /// The cap, in bytes.
        limit: usize,
    },
    /// The answer is packed, and cannot be unpacked.
    #[error("the answer of {host} is packed with {encoding} although that was not asked for{}", if *.damaged { ", and it is damaged or cut" } else { "" })]
    Packed {
        /// `host:port`.
        host: String,
        /// The header `Content-Encoding`, cleaned.
        encoding: String,
        /// The kind is known, the content is not in order.
        damaged: bool,
    },
}

impl TransportError {
    /// Whether the other side may have acted on the request. Careful: true as soon as there was a connection.
    pub fn request_was_sent(&self) -> bool {
        match self {
            Self::NotAllowed(_) | Self::Connect { .. } | Self::Proxy { .. } => false,
            Self::Tls { sent, .. } => *sent,
            Self::Timeout { .. } | Self::Cut { .. } | Self::TooLarge { .. } | Self::Packed { .. } => true,
        }
    }

    /// What a person can do; empty when waiting is enough.
    pub fn remedy(&self) -> String {
        match self {
            Self::NotAllowed(_) => "correct the address in the config".to_owned(),
            Self::Connect { host, .. } => {
                format!(
                    "check that {host} is right and that the firewall lets this machine reach it, or set `proxy`"
                )
            }
            Self::Proxy { login: true, offers, .. } if !offers.is_empty() && !has_basic(offers) => format!(
                "it offers only {}; otrelay logs in with Basic: have the proxy offer Basic to this machine, or let its \
                 address through without a login",
                offers.join(", ")
            ),
            Self::Proxy { login: true, .. } => "check `proxy.username` and `proxy.password`".to_owned(),
            Self::Proxy { .. } => {
                "check `proxy.url`, that the proxy runs, and that it allows CONNECT to this address"
                    .to_owned()
            }
            Self::Tls { trouble, .. } => trouble.remedy(),
            Self::Packed { .. } => {
                "a delivery network or a proxy in between packs answers: have it leave `Content-Encoding` alone, or use \
                 gzip"
                .to_owned()
            }
            Self::Timeout { .. } | Self::Cut { .. } | Self::TooLarge { .. } => String::new(),
        }
    }
}

fn has_basic(offers: &[String]) -> bool {
    offers.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

/// What is wrong with the other side's TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsTrouble {
    /// The certificate's time is over, by this machine's clock.
    #[error("its certificate has expired ({0})")]
    Expired(String),
    /// The certificate's time has not come, by this machine's clock.
    #[error("its certificate is not yet valid ({0})")]
    NotYetValid(String),
    /// Signed by nobody we trust.
    #[error("its certificate is signed by an authority that is not trusted here{}", shown(.0))]
    UnknownIssuer(String),
    /// Its certificate, or one above it, has a key or a signature that cannot be checked here.
    #[error("{0}")]
    Weak(String),
    /// The certificate has only a common name, which does not count.
    #[error("its certificate has no name that counts (subjectAltName), only the common name `{0}`")]
    OnlyCommonName(String),
    /// A signature that the key it names did not make.
    #[error("a signature of its certificate does not fit the authority's key")]
    BadSignature,
    /// The certificate is for other names.
    #[error("its certificate is for another name ({0})")]
    WrongName(String),
    /// Neither the certificate nor its key is the pinned one. Holds both SHA-256 as hex.
    #[error(
        "its certificate is not the pinned one; it shows certificate sha256:{certificate} with public key sha256:{key}"
    )]
    PinMismatch {
        /// Of the whole certificate.
        certificate: String,
        /// Of its public key info.
        key: String,
    },
    /// It wants a certificate from us.
    #[error("it asks for a client certificate")]
    WantsClientCertificate,
    /// It did not like the certificate that we showed.
    #[error("it refused the client certificate it was shown ({0})")]
    RefusedOurCertificate(String),
    /// No common version or cipher.
    #[error("it offers no protocol that is safe enough, or no kind of key that is known here ({0})")]
    NoCommonProtocol(String),
    /// It does not speak TLS on this port.
    #[error("it does not speak TLS on this port")]
    NotTls,
    /// Anything else, in the library's words.
    #[error("{0}")]
    Other(String),
}

impl TlsTrouble {
    fn remedy(&self) -> String {
        let text = match self {
            Self::Expired(_) => {
                "renew the certificate there; if it is in order there, the clock of this machine is ahead"
            }
            Self::NotYetValid(_) => "check the clock of this machine: it is probably behind (timedatectl)",
            Self::UnknownIssuer(_) => {
                "if a private CA or an inspecting proxy signs it, put that CA's certificate (PEM) into a file and name it \
                 in `tls.ca_file`; for a self-signed certificate use `tls.pin`"
            }
            Self::BadSignature => {
                "a CA of the same name but with another key is in `tls.ca_file` (was the CA made anew?): put the present \
                 one there; if that is not it, the server does not hold the key of the certificate it shows"
            }
            Self::WrongName(_) => "use the name that the certificate has, or have it issued for this one",
            Self::PinMismatch { .. } => {
                "if the certificate was renewed there, put the shown value into `tls.pin`; if not, someone may be in \
                 between: do not change the pin before that is known"
            }
            Self::WantsClientCertificate => {
                "it needs mutual TLS: name a certificate that it knows in `tls.client_cert_file` and `tls.client_key_file`"
            }
            Self::Weak(_) => {
                return format!(
                    "have the certificate issued with another kind of key; what can be used is {USABLE}"
                );
            }
            Self::OnlyCommonName(_) => {
                "have it issued with a subjectAltName for the name in `instance`; until then use `tls.pin`"
            }
            Self::RefusedOurCertificate(_) => {
                "check `tls.client_cert_file`: signed by a CA that the other side knows, with the certificates between, and \
                 in its time"
            }
            Self::NoCommonProtocol(_) => {
                return format!("enable TLS 1.2 or 1.3 there, with a key that can be used: {USABLE}");
            }
            Self::NotTls => "check scheme and port of the address",
            Self::Other(_) => {
                "check the certificate there with `openssl s_client -connect HOST:PORT -showcerts`"
            }
        };
        text.to_owned()
    }
}

fn shown(issuer: &str) -> String {
    if issuer.is_empty() { String::new() } else { format!(" (`{issuer}`)") }
}

/// Who was asked, for the texts.
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) proxy: Option<&'a str>,
    pub(super) deadlines: Deadlines,
}

/// Reads the library's error: `connected` is false only when the library is sure that no connection came about.
pub(super) fn read(error: &reqwest::Error, asked: &Asked<'_>) -> TransportError {
    let host = asked.host.to_owned();
    let sent = !error.is_connect();
    if let Some(tls) = find::<rustls::Error>(error) {
        return TransportError::Tls { host, trouble: trouble(tls), sent };
    }
    if error.is_builder() {
        return TransportError::NotAllowed(
            "the address or a header has characters that HTTP forbids".to_owned(),
        );
    }
    if sent {
        return if error.is_timeout() {
            TransportError::Timeout { host, after: asked.deadlines.whole }
        } else {
            TransportError::Cut { host, cause: root_cause(error) }
        };
    }
    let cause = if error.is_timeout() {
        format!("no connection within {} s", asked.deadlines.connect.as_secs_f32())
    } else {
        root_cause(error)
    };
    match asked.proxy {
        Some(proxy) => {
            let (cause, login) = tunnel_cause(error).unwrap_or((cause, false));
            TransportError::Proxy { proxy: proxy.to_owned(), host, cause, login, offers: Vec::new() }
        }
        None => TransportError::Connect { host, cause },
    }
}

/// The library does not export its tunnel error; its texts are held by a test against a real CONNECT proxy.
fn tunnel_cause(error: &reqwest::Error) -> Option<(String, bool)> {
    let text = chain(error).map(ToString::to_string).find(|t| t.starts_with("tunnel error"))?;
    if text.contains("authorization required") {
        return Some(("it asks for a login, or refuses ours (407)".to_owned(), true));
    }
    if text.contains("unsuccessful") {
        return Some(("it refused the CONNECT".to_owned(), false));
    }
    if text.contains("unexpected end") {
        return Some(("it closed the connection during the CONNECT".to_owned(), false));
    }
    if text.contains("too long") {
        return Some(("its answer to the CONNECT is too long".to_owned(), false));
    }
    None
}

pub(super) fn trouble(error: &rustls::Error) -> TlsTrouble {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(problem) => certificate_trouble(problem),
        E::AlertReceived(AlertDescription::CertificateRequired) => TlsTrouble::WantsClientCertificate,
        E::AlertReceived(
            alert @ (AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion),
        ) => TlsTrouble::NoCommonProtocol(format!("it answered {alert:?}")),
        E::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::AccessDenied),
        ) => TlsTrouble::RefusedOurCertificate(format!("it answered {alert:?}")),
        E::PeerIncompatible(reason) => TlsTrouble::NoCommonProtocol(format!("{reason:?}")),
        E::InvalidMessage(_) => TlsTrouble::NotTls,
        other => TlsTrouble::Other(other.to_string()),
    }
}

fn certificate_trouble(problem: &CertificateError) -> TlsTrouble {
    use CertificateError as C;
    let date = |t: &rustls::pki_types::UnixTime| {
        crate::model::Timestamp::from_secs(i64::try_from(t.as_secs()).unwrap_or(i64::MAX))
    };
    match problem {
        C::Expired => TlsTrouble::Expired("by this machine's clock".to_owned()),
        C::ExpiredContext { time, not_after } => {
            TlsTrouble::Expired(format!("on {}; this machine's clock says {}", date(not_after), date(time)))
        }
        C::NotValidYet => TlsTrouble::NotYetValid("by this machine's clock".to_owned()),
        C::NotValidYetContext { time, not_before } => TlsTrouble::NotYetValid(format!(
            "before {}; this machine's clock says {}",
            date(not_before),
            date(time)
        )),
        C::UnknownIssuer => TlsTrouble::UnknownIssuer(String::new()),
        C::BadSignature => TlsTrouble::BadSignature,
        C::NotValidForName => TlsTrouble::WrongName("not the one asked for".to_owned()),
        C::NotValidForNameContext { presented, .. } => {
            let names = presented.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            TlsTrouble::WrongName(
                crate::model::text::clip(&crate::model::text::one_line(&names), 200).into_owned(),
            )
        }
        C::Other(other) => {
            let ours = other.0.downcast_ref::<TlsTrouble>().cloned();
            ours.unwrap_or_else(|| TlsTrouble::Other(format!("its certificate was refused: {}", other.0)))
        }
        other => TlsTrouble::Other(format!("its certificate was refused: {other}")),
    }
}

/// The error and its causes.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = cause(this);
        Some(this)
    })
    .take(16)
}

/// `io::Error::source` skips the error it wraps, so that one is looked into by hand.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn find<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    chain(error).find_map(|e| e.downcast_ref::<E>())
}

/// The innermost cause, in plain words where it is a well-known one.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_dns() {
        return "its name could not be resolved (DNS)".to_owned();
    }
    if let Some(io) = find::<io::Error>(error) {
        let known = match io.kind() {
            io::ErrorKind::ConnectionRefused => Some("connection refused"),
            io::ErrorKind::ConnectionReset => Some("connection reset"),
            io::ErrorKind::UnexpectedEof => Some("closed too early"),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some("no route to it"),
            _ => None,
        };
        if let Some(known) = known {
            return known.to_owned();
        }
    }
    let last = chain(error).last().map(ToString::to_string).unwrap_or_default();
    crate::model::text::clip(&crate::model::text::one_line(&last), 200).into_owned()
}
