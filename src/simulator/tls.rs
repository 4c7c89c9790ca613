//! The simulator's own certificate authority: made at each start, kept in memory, its certificate offered as PEM so
//! that a client can be told to trust it. Its key never leaves the process.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use super::SimError;

/// An acceptor for `localhost`, the loopback addresses and `address`, and the PEM of the CA behind it. With `client_ca` it
/// asks for a certificate of that CA, and takes connections without one as well.
pub(super) fn acceptor(
    address: IpAddr,
    names: &[String],
    client_ca: Option<&str>,
) -> Result<(TlsAcceptor, String), SimError> {
    let failed = |e: rcgen::Error| SimError::Tls(e.to_string());
    let ca_key = KeyPair::generate().map_err(failed)?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(failed)?;
    ca.distinguished_name.push(DnType::CommonName, "otrelay simulator CA");
    ca.not_after = rcgen::date_time_ymd(2049, 12, 31);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_cert = ca.self_signed(&ca_key).map_err(failed)?;
    let issuer = Issuer::new(ca, ca_key);

    let mut subjects = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    subjects.push(address.to_string());
    subjects.extend(names.iter().cloned());
    subjects.dedup();
    let key = KeyPair::generate().map_err(failed)?;
    let mut leaf = CertificateParams::new(subjects).map_err(failed)?;
    leaf.distinguished_name.push(DnType::CommonName, "otrelay simulator");
    // Until 2049: later dates have another form in a certificate, which small TLS stacks get wrong.
    leaf.not_after = rcgen::date_time_ymd(2049, 12, 31);
    leaf.use_authority_key_identifier_extension = true;
    let cert = leaf.signed_by(&key, &issuer).map_err(failed)?;

    let failed = |e: rustls::Error| SimError::Tls(e.to_string());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let unread = |e: String| SimError::Tls(format!("the CA of clients: {e}"));
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|e| unread(e.to_string()))?;
                roots.add(certificate).map_err(|e| unread(e.to_string()))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
                    .allow_unauthenticated()
                    .build()
                    .map_err(|e| unread(e.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(vec![cert.der().clone(), ca_cert.der().clone()], private).map_err(failed)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsAcceptor::from(Arc::new(config)), ca_cert.pem()))
}
