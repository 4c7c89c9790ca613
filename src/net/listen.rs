//! The only place that builds listeners: the socket, and the TLS that it may want.
//!
//! TLS is 1.2 or 1.3 with the operator's certificate; where a CA for clients is named, nobody else gets in. Files are
//! read when an acceptor is built. What this does not do: accept, or know a protocol above.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// The certificate of a listener, and who may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// PEM: the certificate, and those that lead to its CA.
    pub cert_file: PathBuf,
    /// PEM: its key, not encrypted.
    pub key_file: PathBuf,
    /// PEM: CAs of clients; with it, a client without a certificate of theirs is refused.
    pub client_ca_file: Option<PathBuf>,
}

/// Why a listener's TLS cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// A file cannot be read, or holds nothing of what it should.
    #[error("could not read tls.{key} {path}: {cause}")]
    File {
        /// The key in the config.
        key: &'static str,
        /// Which file.
        path: String,
        /// What the system or the PEM reader said.
        cause: String,
    },
    /// Certificate and key do not fit, or the library refuses them.
    #[error("the certificate {path} cannot be used: {cause}")]
    Certificate {
        /// Which file.
        path: String,
        /// Why.
        cause: String,
    },
}

/// Listens on an address.
///
/// # Errors
/// What the system says: the address is in use, or not one of this machine.
pub async fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Takes connections into TLS.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Reads the files. `protocols` is what is offered by ALPN; none: nothing is.
    ///
    /// # Errors
    /// [`ListenError`] names the file.
    pub fn new(tls: &ServerTls, protocols: &[&str]) -> Result<Self, ListenError> {
        let certificates = certificates("cert_file", &tls.cert_file)?;
        let key = PrivateKeyDer::from_pem_file(&tls.key_file)
            .map_err(|error| unreadable("key_file", &tls.key_file, &error, "no private key in PEM"))?;
        let unusable =
            |cause: String| ListenError::Certificate { path: tls.cert_file.display().to_string(), cause };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| unusable(error.to_string()))?;
        let builder = match &tls.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(client_roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| unusable(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config =
            builder.with_single_cert(certificates, key).map_err(|error| unusable(error.to_string()))?;
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The handshake of one connection.
    ///
    /// # Errors
    /// The other side does not speak TLS, has no certificate that is wanted, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match tokio::time::timeout(HANDSHAKE_MAX, self.0.accept(stream)).await {
            Ok(accepted) => accepted,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")),
        }
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, PemError>>();
    match read() {
        Ok(found) if found.is_empty() => Err(unreadable(key, path, &PemError::NoItemsFound, NONE)),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(key, path, &error, NONE)),
    }
}

const NONE: &str = "no certificate in PEM (`-----BEGIN CERTIFICATE-----`)";

fn client_roots(path: &Path) -> Result<RootCertStore, ListenError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", path)? {
        roots.add(certificate).map_err(|error| ListenError::File {
            key: "client_ca_file",
            path: path.display().to_string(),
            cause: error.to_string(),
        })?;
    }
    Ok(roots)
}

fn unreadable(key: &'static str, path: &Path, error: &PemError, none: &str) -> ListenError {
    let cause = match error {
        PemError::NoItemsFound => none.to_owned(),
        PemError::Io(error) => error.to_string(),
        other => other.to_string(),
    };
    ListenError::File { key, path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_do_not_do_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let empty = file("empty.pem", "");
        let absent = dir.path().join("absent.pem");
        let tls = ServerTls { cert_file: absent.clone(), key_file: empty.clone(), client_ca_file: None };
        let error = Acceptor::new(&tls, &[]).unwrap_err().to_string();
        assert!(error.contains("tls.cert_file") && error.contains("absent.pem"), "{error}");
        let tls = ServerTls { cert_file: empty, key_file: absent, client_ca_file: None };
        let error = Acceptor::new(&tls, &[]).unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM"), "{error}");
    }
}
