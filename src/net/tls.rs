//! What is trusted: the system's roots and the operator's own CA, or one pinned certificate. TLS 1.2 and 1.3. And what
//! is shown to a server that asks for a certificate of ours.
//!
//! There is no switch that turns the check off. A pin replaces roots, names and dates, not the proof that the other
//! side has the key: handshake signatures are verified in both cases. Around the library's verifier stands one of our own
//! that changes no verdict, only its words: who the unknown issuer is, which kind of key cannot be used.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer, ServerName,
    TrustAnchor, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
};

use super::certificate::{Look, weak_key};
use super::error::{NetError, TlsTrouble};
use super::pem::{self, Block};
use super::{ClientCertificate, TlsSettings};
use crate::model::alert::hex;

/// Largest file of certificates or keys, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The client side of TLS for these settings. Reads the system's roots and all files anew at each call.
pub(super) fn client_config(settings: &TlsSettings) -> Result<ClientConfig, NetError> {
    config_with(settings, None)
}

/// The same, which also notes each chain that it is shown, good or not: the certificates, the server's own first.
pub(super) fn noting_config(settings: &TlsSettings) -> Result<(ClientConfig, Chain), NetError> {
    let chain = Chain::default();
    Ok((config_with(settings, Some(Arc::clone(&chain)))?, chain))
}

fn config_with(settings: &TlsSettings, chain: Option<Chain>) -> Result<ClientConfig, NetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| NetError::Setup(e.to_string()))?;
    let trust = if let Some(pin) = settings.pin {
        Trust::Pin(pin)
    } else {
        let system =
            if settings.system_roots { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
        Trust::roots(roots(system, settings.ca_file.as_deref())?, &provider)?
    };
    let verifier = Arc::new(Verifier { trust, provider, chain });
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = identity(files)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| NetError::ClientCertificate {
                key: "tls.client_key_file",
                path: files.key_file.display().to_string(),
                cause: match e {
                    rustls::Error::InconsistentKeys(_) => {
                        "the key does not belong to the certificate in tls.client_cert_file".to_owned()
                    }
                    e => e.to_string(),
                },
            })?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What is odd in a file of certificates, one sentence each: those that nothing can be checked with.
///
/// # Errors
/// What is wrong with the file itself, a block of it that cannot be read above all.
pub fn look_at_ca_file(file: &Path) -> Result<Vec<String>, NetError> {
    let certificates = ca_certificates(file)?;
    let of = |block: &Block| {
        let look = Look::at(&block.der)?;
        let why = look.weak_key?;
        Some(format!(
            "the certificate `{}` in line {} cannot be used: its key is {why}",
            look.subject, block.line
        ))
    };
    Ok(certificates.iter().filter_map(of).collect())
}

fn read_blocks(path: &Path) -> Result<Vec<Block>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > FILE_MAX {
        return Err("it is larger than 1 MiB".to_owned());
    }
    pem::blocks(&text).map_err(|e| e.to_string())
}

/// In the operator's file each block counts, and has to be a certificate.
fn ca_certificates(file: &Path) -> Result<Vec<Block>, NetError> {
    let path = file.display().to_string();
    let broken = |cause: String| NetError::CaFile { path: path.clone(), cause };
    let blocks = read_blocks(file).map_err(broken)?;
    for block in &blocks {
        if !matches!(block.label.as_str(), "CERTIFICATE" | "X509 CERTIFICATE") {
            let Block { line, label, .. } = block;
            return Err(broken(format!(
                "line {line}: a block {label}; only certificates belong into this file"
            )));
        }
    }
    if blocks.is_empty() { Err(NetError::CaFileEmpty { path }) } else { Ok(blocks) }
}

/// A store of what the system trusts and what the operator adds. Certificates of the system that cannot be read are
/// left out, as every other program on the machine does; in the operator's file each one counts.
fn roots(system: Vec<CertificateDer<'static>>, ca_file: Option<&Path>) -> Result<RootCertStore, NetError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(system);
    if let Some(file) = ca_file {
        let path = file.display().to_string();
        let blocks = ca_certificates(file)?;
        let all = blocks.len();
        let weak = look_at_ca_file(file)?;
        if weak.len() == all {
            return Err(NetError::CaFileWeak { path, why: weak.into_iter().next().unwrap_or_default() });
        }
        for block in blocks {
            store.add(CertificateDer::from(block.der)).map_err(|e| NetError::CaFile {
                path: path.clone(),
                cause: format!("line {}: {e}", block.line),
            })?;
        }
    }
    if store.is_empty() { Err(NetError::NoRoots) } else { Ok(store) }
}

/// Certificate, chain and key of our own.
fn identity(
    files: &ClientCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), NetError> {
    let wrong = |key: &'static str, path: &Path, cause: String| NetError::ClientCertificate {
        key,
        path: path.display().to_string(),
        cause,
    };
    let chain = chain(&files.cert_file).map_err(|e| wrong("tls.client_cert_file", &files.cert_file, e))?;
    let key = private_key(&files.key_file).map_err(|e| wrong("tls.client_key_file", &files.key_file, e))?;
    Ok((chain, key))
}

/// The certificates of a file, at least one. A file with certificate and key is common; the key in it is not used.
pub(super) fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let blocks = read_blocks(file)?.into_iter().filter(|block| block.label == "CERTIFICATE");
    let chain: Vec<_> = blocks.map(|block| CertificateDer::from(block.der)).collect();
    if chain.is_empty() { Err("it holds no certificate".to_owned()) } else { Ok(chain) }
}

pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let key = read_blocks(file)?.into_iter().find_map(|block| match block.label.as_str() {
        "PRIVATE KEY" => Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(block.der))),
        "RSA PRIVATE KEY" => Some(PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(block.der))),
        "EC PRIVATE KEY" => Some(PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(block.der))),
        _ => None,
    });
    key.ok_or_else(|| "it holds no private key".to_owned())
}

/// A refusal of ours, in the words of the trouble that it is.
fn refusal(trouble: TlsTrouble) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(trouble))).into()
}

/// Its key cannot be used, so that a good handshake is not possible either.
fn refuse_weak_key(end_entity: &CertificateDer<'_>) -> Result<(), rustls::Error> {
    match Look::at(end_entity).and_then(|look| look.weak_key) {
        Some(why) => {
            let why = format!("its certificate has a key of a kind that cannot be used here: {why}");
            Err(refusal(TlsTrouble::Weak(why)))
        }
        None => Ok(()),
    }
}

/// Certificates that were shown last, the server's own first.
pub(super) type Chain = Arc<Mutex<Vec<CertificateDer<'static>>>>;
/// Most of them that are noted.
const CHAIN_MAX: usize = 8;

/// What makes a certificate a trusted one.
#[derive(Debug)]
enum Trust {
    /// The library's verifier says so; for its refusals there are better words.
    Roots { inner: Arc<WebPkiServerVerifier>, roots: Arc<RootCertStore> },
    /// The SHA-256 of it, or of its key, is this one.
    Pin([u8; 32]),
}

impl Trust {
    fn roots(roots: RootCertStore, provider: &Arc<CryptoProvider>) -> Result<Self, NetError> {
        let roots = Arc::new(roots);
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .build()
            .map_err(|e| NetError::Setup(e.to_string()))?;
        Ok(Self::Roots { inner, roots })
    }
}

fn root<'r>(roots: &'r RootCertStore, name: &[u8]) -> Option<&'r TrustAnchor<'static>> {
    roots.roots.iter().find(|anchor| anchor.subject.as_ref() == name)
}

/// What a person should know instead of that error; `None`: it says all there is.
fn seen(
    roots: &RootCertStore,
    error: &CertificateError,
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
) -> Option<TlsTrouble> {
    let shown: Vec<Look> = std::iter::once(leaf).chain(above).take(10).filter_map(|c| Look::at(c)).collect();
    let first = shown.first()?;
    let only_common_name = || Some(TlsTrouble::OnlyCommonName(first.subject.clone()));
    match error {
        CertificateError::NotValidForNameContext { presented, .. }
            if presented.is_empty() && !first.has_names =>
        {
            only_common_name()
        }
        CertificateError::NotValidForName if !first.has_names => only_common_name(),
        // The first version of certificates had no room for such names.
        CertificateError::Other(_)
            if error.to_string().contains("UnsupportedCertVersion") && !first.has_names =>
        {
            only_common_name()
        }
        CertificateError::Other(_) if !error.to_string().contains("CaUsedAsEndEntity") => None,
        CertificateError::NotValidForName
        | CertificateError::NotValidForNameContext { .. }
        | CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => None,
        _ => weak(roots, &shown).or_else(|| match error {
            CertificateError::UnknownIssuer | CertificateError::Other(_) => {
                let stranger = shown.iter().find(|look| root(roots, &look.issuer_raw).is_none());
                Some(TlsTrouble::UnknownIssuer(stranger.unwrap_or(first).issuer.clone()))
            }
            _ => None,
        }),
    }
}

/// The first key or signature on the way up that cannot be used.
fn weak(roots: &RootCertStore, shown: &[Look]) -> Option<TlsTrouble> {
    shown.iter().find_map(|look| {
        if let Some(hash) = look.weak_signature.filter(|_| !look.self_issued) {
            return Some(TlsTrouble::Weak(format!(
                "its certificate `{}` is signed in a way that cannot be checked here: {hash}",
                look.subject
            )));
        }
        let of_root = root(roots, &look.issuer_raw);
        let why = of_root.and_then(|anchor| weak_key(&anchor.subject_public_key_info)).or_else(|| {
            let above = shown.iter().find(|other| other.subject == look.issuer);
            above.and_then(|other| other.weak_key.clone())
        })?;
        Some(TlsTrouble::Weak(format!(
            "the authority `{}` that signs its certificate has a key of a kind that cannot be used here: {why}",
            look.issuer
        )))
    })
}

/// The one verifier: it trusts what the settings say, and notes what it was shown where somebody wants to know.
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    chain: Option<Chain>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            let shown = std::iter::once(end_entity).chain(intermediates).take(CHAIN_MAX);
            *chain.lock().unwrap_or_else(PoisonError::into_inner) =
                shown.map(|certificate| certificate.clone().into_owned()).collect();
        }
        match &self.trust {
            Trust::Roots { inner, roots } => inner
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .map_err(|error| match error {
                    rustls::Error::InvalidCertificate(error) => {
                        seen(roots, &error, end_entity, intermediates).map_or(error.into(), refusal)
                    }
                    error => error,
                })?,
            Trust::Pin(pin) => is_pinned(pin, end_entity)?,
        };
        refuse_weak_key(end_entity)?;
        Ok(ServerCertVerified::assertion())
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

    /// With P-521, which we cannot verify: a server with such a key then shows its certificate, and is refused by name.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut all = self.provider.signature_verification_algorithms.supported_schemes();
        all.push(SignatureScheme::ECDSA_NISTP521_SHA512);
        all
    }
}

fn is_pinned(pin: &[u8; 32], end_entity: &CertificateDer<'_>) -> Result<ServerCertVerified, rustls::Error> {
    let certificate = digest(&SHA256, end_entity);
    let key = digest(&SHA256, &ParsedCertificate::try_from(end_entity)?.subject_public_key_info());
    if certificate.as_ref() == pin || key.as_ref() == pin {
        return Ok(ServerCertVerified::assertion());
    }
    let (certificate, key) = (hex(certificate.as_ref()), hex(key.as_ref()));
    Err(refusal(TlsTrouble::PinMismatch { certificate, key }))
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
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "line 1: ");
        check("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "line 1: ");
        let good = include_str!("../../tests/fixtures/tls/p256-names.pem");
        let key = include_str!("../../tests/fixtures/tls/jwt-ec.key");
        check(&format!("{good}{key}"), "a block PRIVATE KEY; only certificates belong");
        check(include_str!("../../tests/fixtures/tls/p521.pem"), "its key is ECDSA on P-521");
        check(include_str!("../../tests/fixtures/tls/rsa1024.pem"), "its key is RSA with 1024 bits");
        let absent = roots(Vec::new(), Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(absent.contains("could not read tls.ca_file /nowhere/ca.pem"), "{absent}");
    }

    #[test]
    fn a_byte_order_mark_hides_no_certificate() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let good = include_str!("../../tests/fixtures/tls/p256-names.pem");
        let p521 = include_str!("../../tests/fixtures/tls/p521.pem");
        file.write_all(format!("\u{feff}{good}{p521}{good}").as_bytes()).unwrap();
        assert_eq!(roots(Vec::new(), Some(file.path())).unwrap().len(), 3);
        let odd = look_at_ca_file(file.path()).unwrap();
        assert!(
            odd.len() == 1 && odd[0].contains("`Plant CA P-521`") && odd[0].contains("ECDSA on P-521"),
            "{odd:?}"
        );
    }

    #[test]
    fn a_certificate_and_a_key_of_our_own_have_to_fit() {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tls"));
        let check = |cert: &str, key: &str, words: &str| {
            let client = Some(ClientCertificate { cert_file: dir.join(cert), key_file: dir.join(key) });
            let settings = TlsSettings { pin: Some([0; 32]), client, ..TlsSettings::default() };
            let error = client_config(&settings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check("p256-names.pem", "jwt-ec.key", "does not belong to the certificate");
        check("p256-names.pem", "jwt-ec-sec1.key", "does not belong to the certificate");
        check("p256-names.pem", "jwt-ec.pub.pem", "tls.client_key_file");
        check("jwt-ec.key", "jwt-ec.key", "it holds no certificate");
        check("none.pem", "jwt-ec.key", "tls.client_cert_file");
    }
}
