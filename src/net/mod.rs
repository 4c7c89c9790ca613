//! The only place that builds a client or a listener's TLS: roots, proxy, size caps, no redirects.

use std::path::PathBuf;

use url::Url;

use crate::model::Secret;

/// What a TLS client trusts. There is no way to trust everything.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// PEM file with certificates that are trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of the server's certificate (what `openssl x509 -fingerprint -sha256` prints) or of its public key info;
    /// either may match. With a pin, roots, names and dates of the certificate do not matter.
    pub pin: Option<[u8; 32]>,
}

/// An HTTP proxy that is asked with CONNECT.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `http://host:port`.
    pub url: Url,
    /// User and password, if it wants them.
    pub login: Option<(String, Secret)>,
}
