//! What is trusted: the system's roots and the operator's own CA, or one pinned certificate. TLS 1.2 and 1.3.
//!
//! There is no switch that turns the check off. A pin replaces roots, names and dates, not the proof that the other
//! side has the key: handshake signatures are verified in both cases.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use super::TlsSettings;
use super::error::NetError;
use crate::model::alert::hex;

/// The client side of TLS for these settings. Reads the system's roots and `ca_file` anew at each call.
pub(super) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, NetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| NetError::Setup(e.to_string()))?;
    let mut config = if let Some(pin) = settings.pin {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinVerifier { pin, provider }))
            .with_no_client_auth()
    } else {
        let system = rustls_native_certs::load_native_certs().certs;
        let roots = roots(system, settings.ca_file.as_deref())?;
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// A store of what the system trusts and what the operator adds. Certificates of the system that cannot be read are
/// left out, as every other program on the machine does; in the operator's file each one counts.
fn roots(system: Vec<CertificateDer<'static>>, ca_file: Option<&Path>) -> Result<RootCertStore, NetError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(system);
    if let Some(file) = ca_file {
        let path = file.display().to_string();
        let broken = |cause: String| NetError::CaFile { path: path.clone(), cause };
        let blocks = CertificateDer::pem_file_iter(file).map_err(|e| broken(e.to_string()))?;
        let mut any = false;
        for block in blocks {
            let certificate = block.map_err(|e| broken(e.to_string()))?;
            store.add(certificate).map_err(|e| broken(e.to_string()))?;
            any = true;
        }
        if !any {
            return Err(NetError::CaFileEmpty { path });
        }
    }
    if store.is_empty() { Err(NetError::NoRoots) } else { Ok(store) }
}

/// What the other side showed instead of the pinned certificate; SHA-256 as hex.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is not the pinned one")]
pub(super) struct PinMismatch {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Trusts the one certificate (or key) whose SHA-256 is pinned.
#[derive(Debug)]
struct PinVerifier {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = digest(&SHA256, end_entity);
        let key = digest(&SHA256, &ParsedCertificate::try_from(end_entity)?.subject_public_key_info());
        if certificate.as_ref() == self.pin || key.as_ref() == self.pin {
            return Ok(ServerCertVerified::assertion());
        }
        let found = PinMismatch { certificate: hex(certificate.as_ref()), key: hex(key.as_ref()) };
        Err(CertificateError::Other(OtherError(Arc::new(found))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nothing_to_trust_is_a_clear_error() {
        let error = roots(Vec::new(), None).unwrap_err().to_string();
        assert!(error.contains("no trusted root certificates") && error.contains("tls.ca_file"), "{error}");
    }

    #[test]
    fn the_ca_file_has_to_hold_certificates() {
        let check = |content: &str, expected: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content.as_bytes()).unwrap();
            let error = roots(Vec::new(), Some(file.path())).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(&file.path().display().to_string()), "{error}");
        };
        check("", "holds no usable certificate");
        check("just text", "holds no usable certificate");
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "could not read");
        check("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "could not read");
        let absent = roots(Vec::new(), Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(absent.contains("could not read tls.ca_file /nowhere/ca.pem"), "{absent}");
    }
}
