//! Handshakes with servers that are wrong in one way each, and proxies that are; every text a person would read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use url::Url;

use super::stub::{Reply, read_request, reply};
use super::*;

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: tempfile::NamedTempFile,
}

fn ca(name: &str) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let mut pem = tempfile::NamedTempFile::new().unwrap();
    pem.write_all(certificate.pem().as_bytes()).unwrap();
    Ca { issuer: Issuer::new(params, key), certificate: certificate.der().clone(), pem }
}

/// A server's certificate and key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Identity {
    fn signed(ca: &Ca, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &ca.issuer).unwrap();
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    fn pin(&self) -> [u8; 32] {
        digest(&SHA256, &self.certificate).as_ref().try_into().unwrap()
    }

    fn key_pin(&self) -> [u8; 32] {
        digest(&SHA256, &self.key.subject_public_key_info()).as_ref().try_into().unwrap()
    }

    fn config(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ServerConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], key)
            .unwrap()
    }

    fn serve(&self) -> SocketAddr {
        serve(self.config(rustls::ALL_VERSIONS))
    }
}

/// Answers each request over TLS with `hello`.
fn serve(config: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream);
            if read_request(&mut tls).is_empty() {
                continue;
            }
            let Reply::Bytes(bytes) = reply(200, &[], "hello") else { return };
            let _ = tls.write_all(&bytes);
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    address
}

/// A bare TCP server: `act` gets each connection.
fn serve_tcp(act: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(act));
    address
}

fn deadlines() -> Deadlines {
    Deadlines { connect: Duration::from_millis(1500), whole: Duration::from_secs(4) }
}

fn trusting(ca_file: Option<&Path>, pin: Option<[u8; 32]>) -> TlsSettings {
    TlsSettings { ca_file: ca_file.map(Path::to_path_buf), pin, ..TlsSettings::default() }
}

fn get(url: &str) -> Request {
    Request {
        method: Method::Get,
        url: Url::parse(url).unwrap(),
        headers: vec![("authorization", "Bearer canary-token".to_owned())],
        body: None,
        answer_max: 1000,
    }
}

async fn ask(client: &HttpClient, address: SocketAddr) -> Result<Answer, TransportError> {
    client.send(get(&format!("https://localhost:{}/", address.port()))).await
}

/// The error's text and remedy, and whether it may have been sent.
async fn refusal(settings: &TlsSettings, address: SocketAddr) -> (String, bool) {
    let client = client_with(settings, None, deadlines()).unwrap();
    let error = ask(&client, address).await.unwrap_err();
    let text = format!("{error}; {}", error.remedy());
    assert!(text.contains(&format!("localhost:{}", address.port())), "{text}");
    assert!(!format!("{text}{error:?}").contains("canary"), "{text}");
    (text, error.request_was_sent())
}

async fn check_refused(settings: &TlsSettings, address: SocketAddr, expected: &[&str]) {
    let (text, sent) = refusal(settings, address).await;
    for part in expected {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
    assert!(!sent, "{text}");
}

async fn check_works(settings: &TlsSettings, address: SocketAddr) {
    let client = client_with(settings, None, deadlines()).unwrap();
    let answer = ask(&client, address).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
}

#[tokio::test]
async fn a_private_ca_works_when_it_is_named_and_only_then() {
    let ca = ca("Plant CA");
    let server = Identity::signed(&ca, "localhost", |_| {}).serve();
    check_works(&trusting(Some(ca.pem.path()), None), server).await;
    let expected = ["signed by an authority that is not trusted here (`Plant CA`)", "tls.ca_file"];
    check_refused(&TlsSettings::default(), server, &expected).await;
    let other = self::ca("Other CA");
    check_refused(&trusting(Some(other.pem.path()), None), server, &expected).await;
    let namesake = self::ca("Plant CA");
    let expected = ["does not fit the authority's key", "was the CA made anew?"];
    check_refused(&trusting(Some(namesake.pem.path()), None), server, &expected).await;
}

#[tokio::test]
async fn both_versions_work() {
    let ca = ca("Plant CA");
    let identity = Identity::signed(&ca, "localhost", |_| {});
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        check_works(&trusting(Some(ca.pem.path()), None), serve(identity.config(&[version]))).await;
        check_works(&trusting(None, Some(identity.pin())), serve(identity.config(&[version]))).await;
    }
}

#[tokio::test]
async fn dates_and_names_count() {
    let ca = ca("Plant CA");
    let settings = trusting(Some(ca.pem.path()), None);
    let expired = Identity::signed(&ca, "localhost", |p| {
        p.not_before = date_time_ymd(2019, 1, 1);
        p.not_after = date_time_ymd(2020, 2, 3);
    });
    check_refused(
        &settings,
        expired.serve(),
        &["has expired (on 2020-02-03", "clock of this machine is ahead"],
    )
    .await;
    let early = Identity::signed(&ca, "localhost", |p| {
        p.not_before = date_time_ymd(2200, 1, 1);
        p.not_after = date_time_ymd(2201, 1, 1);
    });
    check_refused(
        &settings,
        early.serve(),
        &["not yet valid (before 2200-01-01", "check the clock of this machine: it is probably behind"],
    )
    .await;
    let other = Identity::signed(&ca, "other.plant.example", |_| {});
    check_refused(&settings, other.serve(), &["is for another name", "other.plant.example"]).await;
}

#[tokio::test]
async fn a_self_signed_certificate_needs_its_pin() {
    let identity = Identity::self_signed();
    let server = identity.serve();
    check_refused(&TlsSettings::default(), server, &["not trusted here", "tls.pin"]).await;
    check_works(&trusting(None, Some(identity.pin())), server).await;
    check_works(&trusting(None, Some(identity.key_pin())), server).await;
    let shown = format!("sha256:{}", crate::model::alert::hex(&identity.pin()));
    let key_shown = format!("sha256:{}", crate::model::alert::hex(&identity.key_pin()));
    let expected = ["is not the pinned one", &shown, &key_shown, "do not change the pin before"];
    check_refused(&trusting(None, Some([7; 32])), server, &expected).await;
}

#[tokio::test]
async fn a_pin_still_wants_the_key_behind_the_certificate() {
    let real = Identity::self_signed();
    let thief = Identity {
        certificate: real.certificate.clone(),
        pem: String::new(),
        key: KeyPair::generate().unwrap(),
    };
    let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(
        PrivatePkcs8KeyDer::from(thief.key.serialize_der()),
    ))
    .unwrap();
    let certified = rustls::sign::CertifiedKey::new(vec![thief.certificate.clone()], key);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified.clone())));
        check_refused(&trusting(None, Some(real.pin())), serve(config), &["no trusted TLS connection"]).await;
    }
}

/// A server that takes only clients with a certificate of this CA.
fn with_clients_of(ca: &Ca, identity: &Identity) -> SocketAddr {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], key)
        .unwrap();
    serve(config)
}

#[tokio::test]
async fn a_server_that_wants_our_certificate_is_told_apart() {
    let ca = ca("Plant CA");
    let identity = Identity::signed(&ca, "localhost", |_| {});
    // TLS 1.3 refuses after our first bytes went out, so this one is doubtful.
    let (text, _) = refusal(&trusting(Some(ca.pem.path()), None), with_clients_of(&ca, &identity)).await;
    assert!(text.contains("asks for a client certificate"), "{text}");
}

#[tokio::test]
async fn our_own_certificate_that_has_expired_is_named() {
    let ca = ca("Plant CA");
    let address = with_clients_of(&ca, &Identity::signed(&ca, "localhost", |_| {}));
    let with = |change: fn(&mut CertificateParams)| {
        let ours = Identity::signed(&ca, "otrelay", change);
        let dir = tempfile::tempdir().unwrap();
        let client = ClientCertificate {
            cert_file: dir.path().join("cert.pem"),
            key_file: dir.path().join("key.pem"),
        };
        std::fs::write(&client.cert_file, ours.pem).unwrap();
        std::fs::write(&client.key_file, ours.key.serialize_pem()).unwrap();
        (TlsSettings { client: Some(client), ..trusting(Some(ca.pem.path()), None) }, dir)
    };
    let (good, _dir) = with(|_| {});
    check_works(&good, address).await;
    let (expired, _dir) = with(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let (text, _) = refusal(&expired, address).await;
    assert!(text.contains("CertificateExpired") && text.contains("tls.client_cert_file"), "{text}");
}

#[tokio::test]
async fn old_versions_and_plain_http_are_named() {
    // A TLS alert `protocol_version`, as a server that knows only TLS 1.0 answers.
    let old = serve_tcp(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(&[21, 3, 1, 0, 2, 2, 70]);
    });
    check_refused(&TlsSettings::default(), old, &["no protocol that is safe enough", "TLS 1.2 or 1.3"]).await;
    let plain = serve_tcp(|mut stream| {
        let _ = stream.read(&mut [0; 512]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    });
    check_refused(&TlsSettings::default(), plain, &["does not speak TLS on this port"]).await;
}

#[tokio::test]
async fn a_stalled_handshake_and_a_closed_port_did_not_send() {
    let stall = serve_tcp(|stream| {
        std::thread::sleep(Duration::from_secs(4));
        drop(stream);
    });
    check_refused(&TlsSettings::default(), stall, &["could not connect", "no connection within 1.5 s"]).await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_refused(&TlsSettings::default(), closed, &["connection refused", "firewall"]).await;
}

#[tokio::test]
async fn a_replaced_ca_file_mends_it_without_a_new_client() {
    let (ca, other) = (ca("Plant CA"), ca("Other CA"));
    let server = Identity::signed(&ca, "localhost", |_| {}).serve();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(other.pem.path(), file.path()).unwrap();
    let client = client_with(&trusting(Some(file.path()), None), None, deadlines()).unwrap();
    assert!(matches!(
        ask(&client, server).await,
        Err(TransportError::Tls { trouble: TlsTrouble::UnknownIssuer(_), .. })
    ));
    std::fs::write(file.path(), "now it is damaged").unwrap();
    assert!(matches!(
        ask(&client, server).await,
        Err(TransportError::Tls { trouble: TlsTrouble::UnknownIssuer(_), .. })
    ));
    std::fs::copy(ca.pem.path(), file.path()).unwrap();
    assert_eq!(ask(&client, server).await.unwrap().body, b"hello");
}

/// A CONNECT proxy: `answer` gets the head of the request and says what to answer; on a 200 it passes bytes on to
/// `target`.
fn proxy(target: SocketAddr, answer: impl Fn(&str) -> &'static str + Send + 'static) -> SocketAddr {
    serve_tcp(move |mut client| {
        let head = read_request(&mut client);
        let text = answer(&head);
        if text == "hang" {
            std::thread::sleep(Duration::from_secs(3));
            return;
        }
        let _ = client.write_all(text.as_bytes());
        if !text.contains(" 200 ") {
            return;
        }
        let server = TcpStream::connect(target).unwrap();
        let (mut c, mut s) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut c, &mut s));
        let (mut c, mut s) = (client, server);
        std::thread::spawn(move || std::io::copy(&mut s, &mut c));
    })
}

const GRANTED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
const LOGIN: &str = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n";

fn through(proxy: SocketAddr, password: Option<&str>) -> ProxySettings {
    let login = password.map(|p| ("relay".to_owned(), Secret::new("test", p)));
    ProxySettings { url: Url::parse(&format!("http://{proxy}")).unwrap(), login }
}

async fn check_proxy(answer: &'static str, expected: &[&str]) {
    let proxy = proxy(SocketAddr::from(([127, 0, 0, 1], 9)), move |_| answer);
    check_proxy_at(proxy, expected).await;
}

async fn check_proxy_at(proxy: SocketAddr, expected: &[&str]) {
    let settings = through(proxy, Some("canary-proxy"));
    let client = client_with(&TlsSettings::default(), Some(&settings), deadlines()).unwrap();
    let error = client.send(get("https://instance.example/")).await.unwrap_err();
    let text = format!("{error}; {}", error.remedy());
    let named = format!("the proxy {proxy} gave no connection to instance.example:443");
    for part in expected.iter().chain([&named.as_str()]) {
        assert!(text.contains(part), "expected `{part}` in: {text}");
    }
    assert!(!error.request_was_sent());
    assert!(!format!("{text}{error:?}{client:?}").contains("canary"), "{text}");
}

#[tokio::test]
async fn a_proxy_is_asked_by_connect_and_logged_in_to() {
    let ca = ca("Plant CA");
    let server = Identity::signed(&ca, "instance.example", |_| {}).serve();
    let proxy = proxy(server, |head| {
        let head = head.to_ascii_lowercase();
        let asked = head.starts_with("connect instance.example:443 http/1.1");
        // relay:pass
        let logged_in = head.contains("proxy-authorization: basic cmvsyxk6cgfzcw==");
        if asked && logged_in && !head.contains("canary") { GRANTED } else { LOGIN }
    });
    let settings = trusting(Some(ca.pem.path()), None);
    let client = client_with(&settings, Some(&through(proxy, Some("pass"))), deadlines()).unwrap();
    assert_eq!(client.send(get("https://instance.example/")).await.unwrap().body, b"hello");
    // What is behind the proxy is checked as well as ever.
    let client =
        client_with(&TlsSettings::default(), Some(&through(proxy, Some("pass"))), deadlines()).unwrap();
    let error = client.send(get("https://instance.example/")).await.unwrap_err();
    assert!(matches!(error, TransportError::Tls { trouble: TlsTrouble::UnknownIssuer(_), .. }), "{error}");
}

/// What an inspecting proxy does: it ends TLS itself, with a certificate of the plant's CA for whatever is asked.
#[tokio::test]
async fn a_proxy_that_opens_tls_is_named_by_its_ca_and_works_once_that_is_trusted() {
    let inspector = ca("Plant Inspection CA");
    let proxy = proxy(Identity::signed(&inspector, "instance.example", |_| {}).serve(), |_| GRANTED);
    let ask = async |settings: &TlsSettings| {
        let client = client_with(settings, Some(&through(proxy, None)), deadlines()).unwrap();
        client.send(get("https://instance.example/")).await
    };
    let error = ask(&TlsSettings::default()).await.unwrap_err();
    let text = format!("{error}; {}", error.remedy());
    assert!(
        text.contains("instance.example:443: its certificate is signed by an authority")
            && text.contains("`Plant Inspection CA`"),
        "{text}"
    );
    assert!(text.contains("inspecting proxy") && !error.request_was_sent(), "{text}");
    let only = TlsSettings { system_roots: false, ..trusting(Some(inspector.pem.path()), None) };
    assert_eq!(ask(&only).await.unwrap().body, b"hello");
}

#[tokio::test]
async fn a_proxy_that_is_reached_by_https_works() {
    let ca = ca("Plant CA");
    let settings = trusting(Some(ca.pem.path()), None);
    // The TLS of the proxy is taken off, and what is inside goes to it.
    let plain = proxy(Identity::signed(&ca, "instance.example", |_| {}).serve(), |head| {
        if head.to_ascii_lowercase().contains("proxy-authorization: basic cmvsyxk6cgfzcw==") {
            GRANTED
        } else {
            LOGIN
        }
    });
    let config = Arc::new(Identity::signed(&ca, "localhost", |_| {}).config(rustls::ALL_VERSIONS));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let inner = TcpStream::connect(plain).unwrap();
            pump(ServerConnection::new(Arc::clone(&config)).unwrap(), client, inner);
        }
    });
    let url = Url::parse(&format!("https://localhost:{port}")).unwrap();
    for (password, works) in [("pass", true), ("canary", false)] {
        let proxy = ProxySettings {
            url: url.clone(),
            login: Some(("relay".to_owned(), Secret::new("test", password))),
        };
        let client = client_with(&settings, Some(&proxy), deadlines()).unwrap();
        let answer = client.send(get("https://instance.example/")).await;
        assert_eq!(answer.is_ok(), works, "{answer:?}");
        if let Err(error) = answer {
            assert!(error.to_string().contains("asks for a login, or refuses ours (407)"), "{error}");
        }
    }
}

/// Bytes to and fro between a TLS connection and a plain one, by turns with short waits.
fn pump(mut tls: ServerConnection, mut outer: TcpStream, mut inner: TcpStream) {
    for stream in [&outer, &inner] {
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    }
    let mut chunk = [0; 16 * 1024];
    std::thread::spawn(move || {
        loop {
            while tls.wants_write() {
                if tls.write_tls(&mut outer).is_err() {
                    return;
                }
            }
            match tls.read_tls(&mut outer) {
                Ok(0) => return,
                Ok(_) if tls.process_new_packets().is_err() => return,
                _ => {}
            }
            if let Ok(n) = tls.reader().read(&mut chunk)
                && inner.write_all(&chunk[..n]).is_err()
            {
                return;
            }
            match inner.read(&mut chunk) {
                Ok(0) => {
                    tls.send_close_notify();
                    let _ = tls.write_tls(&mut outer);
                    return;
                }
                Ok(n) => tls.writer().write_all(&chunk[..n]).unwrap(),
                Err(_) => {}
            }
        }
    });
}

#[tokio::test]
async fn a_proxy_that_offers_no_basic_is_named() {
    let negotiate = "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n";
    check_proxy(
        negotiate,
        &[
            "asks for a login, or refuses ours (407)",
            "it offers only Negotiate, NTLM; otrelay logs in with Basic",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_certificate_with_only_a_common_name_is_named() {
    let ca = ca("Plant CA");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    let certificate = params.signed_by(&key, &ca.issuer).unwrap().der().clone();
    let server = Identity { certificate, pem: String::new(), key }.serve();
    let expected = ["subjectAltName), only the common name `localhost`", "tls.pin"];
    check_refused(&trusting(Some(ca.pem.path()), None), server, &expected).await;
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown_to_who_asks() {
    let (ca, own) = (ca("Plant CA"), ca("Clients CA"));
    let identity = Identity::signed(&ca, "localhost", |_| {});
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from(
            pem::blocks(&std::fs::read(own.pem.path()).unwrap()).unwrap().remove(0).der,
        ))
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate.clone()], key)
        .unwrap();
    let server = serve(config);
    let dir = tempfile::tempdir().unwrap();
    let files = |signer: &Ca, name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["relay".to_owned()])
            .unwrap()
            .signed_by(&key, &signer.issuer)
            .unwrap();
        let (cert_file, key_file) =
            (dir.path().join(format!("{name}.pem")), dir.path().join(format!("{name}.key")));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        ClientCertificate { cert_file, key_file }
    };
    let with = |client| TlsSettings { client: Some(client), ..trusting(Some(ca.pem.path()), None) };
    check_works(&with(files(&own, "good")), server).await;
    let client = client_with(&with(files(&ca, "bad")), None, deadlines()).unwrap();
    let error = ask(&client, server).await.unwrap_err().to_string();
    assert!(error.contains("it refused the client certificate it was shown"), "{error}");
}

#[tokio::test]
async fn proxies_that_fail_are_named() {
    check_proxy(LOGIN, &["asks for a login, or refuses ours (407)", "proxy.password"]).await;
    check_proxy("HTTP/1.1 502 Bad Gateway\r\n\r\n", &["it refused the CONNECT", "proxy.url"]).await;
    check_proxy("HTTP/1.1 302 Found\r\nLocation: http://x/\r\n\r\n", &["it refused the CONNECT"]).await;
    check_proxy("nonsense\r\n\r\n", &["it refused the CONNECT"]).await;
    check_proxy("", &["it closed the connection during the CONNECT"]).await;
    check_proxy("hang", &["no connection within 1.5 s"]).await;
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_proxy_at(closed, &["connection refused"]).await;
}

#[test]
fn proxy_addresses_are_checked_and_shown_without_their_login() {
    let check = |url: &str, expected: &str| {
        let settings = ProxySettings { url: Url::parse(url).unwrap(), login: None };
        let error = client(&TlsSettings::default(), Some(&settings)).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("canary"), "{error}");
    };
    check("socks5://proxy.example:1080", "expected http://HOST:PORT");
    check("http://user:canary@proxy.example:3128", "proxy.example:3128");
}
