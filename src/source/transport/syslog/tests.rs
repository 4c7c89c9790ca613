//! Tests of the syslog transport over loopback: what is sent is what comes out, and what is not taken is counted.

use std::io::Write as _;
use std::sync::Arc;

use super::super::super::format::Settings as Common;
use super::super::super::format::syslog::{self as format, Payload};
use super::super::super::{RejectCounts, Sighting};
use super::*;
use crate::clock::ManualClock;
use crate::heartbeat::Heartbeats;
use crate::model::Timestamp;
use crate::net::places::Bounds;

/// Longest wait for what has to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A port that is free now. Another program may take it; then the test says so and not that something is lost.
fn free() -> SocketAddr {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    taken.local_addr().unwrap()
}

fn settings(protocols: &[Protocol]) -> Listeners {
    let listen = protocols.iter().map(|protocol| Listen { protocol: *protocol, address: free() }).collect();
    Listeners { listen, tls: None, allow: Vec::new(), rate: 100_000 }
}

fn source(settings: &Listeners) -> Syslog {
    let name = SourceName::new("sensors").unwrap();
    let reads = Reads::new(format::Syslog::new(format::Settings {
        common: Common::new("a", "a", name.clone()),
        payload: Payload::Auto,
        time_zone: jiff::tz::TimeZone::UTC,
    }));
    let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
    let heartbeat = Heartbeats::default().of("source sensors", Duration::from_mins(1));
    Syslog::new(name, "syslog", settings.clone(), reads, clock, heartbeat)
}

/// A source at work, and what has come of it.
struct Bench {
    batches: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    sightings: Vec<Sighting>,
    counts: RejectCounts,
    details: Vec<String>,
    lines: u64,
    unauthenticated: u64,
    trouble: Option<String>,
}

impl Bench {
    /// Runs the source beside `work`, then stops it and takes what is left.
    async fn with(settings: &Listeners, work: impl AsyncFnOnce(&mut Self)) -> Self {
        Self::of(source(settings), work).await
    }

    /// The same for a source that was made already.
    async fn of(source: Syslog, work: impl AsyncFnOnce(&mut Self)) -> Self {
        let (out, batches) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let running = source.run(out, stop.clone());
        let mut bench = Self {
            batches,
            stop: stop.clone(),
            sightings: Vec::new(),
            counts: RejectCounts::default(),
            details: Vec::new(),
            lines: 0,
            unauthenticated: 0,
            trouble: None,
        };
        let (ended, bench) = tokio::join!(running, async {
            // The first batch says that it is there.
            bench.next().await;
            work(&mut bench).await;
            bench.stop.cancel();
            while bench.next().await {}
            bench
        });
        ended.unwrap();
        bench
    }

    async fn next(&mut self) -> bool {
        let batch = tokio::time::timeout(PATIENCE, self.batches.recv()).await.expect("a batch in time");
        let Some(batch) = batch else { return false };
        self.lines += batch.lines();
        self.unauthenticated += batch.unauthenticated;
        self.trouble.clone_from(&batch.trouble);
        for (all, new) in self.counts.iter_mut().zip(batch.reject_counts) {
            *all += new;
        }
        self.details.extend(batch.rejects.into_iter().map(|reject| reject.detail));
        self.sightings.extend(batch.sightings);
        true
    }

    /// Waits until so many records were counted.
    async fn lines(&mut self, lines: u64) {
        while self.lines < lines {
            assert!(self.next().await, "{} of {lines} lines", self.lines);
        }
    }

    fn titles(&self) -> Vec<&str> {
        self.sightings.iter().map(|sighting| sighting.alert.title.as_str()).collect()
    }

    fn count(&self, reason: RejectReason) -> u64 {
        self.counts[reason as usize]
    }
}

fn connect(settings: &Listeners, at: usize) -> std::net::TcpStream {
    std::net::TcpStream::connect(settings.listen[at].address).unwrap()
}

fn datagram(settings: &Listeners, at: usize, message: &[u8]) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(message, settings.listen[at].address).unwrap();
}

fn cef(name: &str) -> String {
    format!("<134>Nov 21 08:00:00 ids CEF:0|Acme|Watch|1|7|{name}|8|src=10.0.0.1")
}

#[tokio::test]
async fn several_listeners_are_one_source() {
    let settings = settings(&[Protocol::Udp, Protocol::Tcp, Protocol::Tcp]);
    let bench = Bench::with(&settings, async |bench| {
        datagram(&settings, 0, format!("{}\n\0", cef("datagram")).as_bytes());
        bench.lines(1).await;
        let (mut lines, mut counted) = (connect(&settings, 1), connect(&settings, 2));
        writeln!(lines, "{}\n{}", cef("one"), cef("two")).unwrap();
        bench.lines(3).await;
        write!(counted, "{} {}{} {}", cef("three").len(), cef("three"), cef("four").len(), cef("four"))
            .unwrap();
        bench.lines(5).await;
    })
    .await;
    assert_eq!(bench.titles(), ["datagram", "one", "two", "three", "four"]);
    assert_eq!((bench.unauthenticated, bench.counts), (5, RejectCounts::default()));
    assert_eq!(bench.sightings[0].alert.references, ["unauthenticated sender 127.0.0.1 (UDP)"]);
    assert_eq!(bench.sightings[4].alert.references, ["unauthenticated sender 127.0.0.1 (TCP)"]);
    assert_eq!(bench.trouble, None);
}

#[tokio::test]
async fn what_is_not_taken_is_counted() {
    let mut settings = settings(&[Protocol::Udp, Protocol::Tcp]);
    settings.rate = 2;
    let bench = Bench::with(&settings, async |bench| {
        for number in 0..10 {
            datagram(&settings, 0, cef(&number.to_string()).as_bytes());
        }
        bench.lines(10).await;
    })
    .await;
    let over = bench.count(RejectReason::OverLimit);
    assert!((1..=7).contains(&over) && bench.sightings.len() as u64 == 10 - over, "{over}");
    assert!(bench.details.iter().any(|detail| detail.contains("more than 2 messages a second")));

    settings.rate = 100_000;
    settings.allow = vec!["10.20.0.0/16".parse().unwrap()];
    let bench = Bench::with(&settings, async |bench| {
        datagram(&settings, 0, cef("x").as_bytes());
        let _connection = connect(&settings, 1);
        bench.lines(2).await;
    })
    .await;
    assert_eq!((bench.count(RejectReason::Foreign), bench.sightings.len()), (2, 0));
    assert!(bench.details.iter().all(|detail| detail.contains("not in `allow`")), "{:?}", bench.details);
}

#[tokio::test]
async fn a_line_without_end_and_a_lying_count_are_skipped() {
    let settings = settings(&[Protocol::Tcp, Protocol::Tcp]);
    let bench = Bench::with(&settings, async |bench| {
        let address = settings.listen[0].address;
        // A thread of its own: more than the buffers between us hold.
        let sender = std::thread::spawn(move || {
            let mut lines = std::net::TcpStream::connect(address).unwrap();
            for _ in 0..64 {
                lines.write_all(&vec![b'x'; 64 * 1024]).unwrap();
            }
            writeln!(lines, "\n{}", cef("after")).unwrap();
        });
        bench.lines(2).await;
        sender.join().unwrap();
        let mut counted = connect(&settings, 1);
        write!(counted, "99999 <1>x").unwrap();
        drop(counted);
        bench.lines(3).await;
        let mut unfinished = connect(&settings, 1);
        write!(unfinished, "4 <1>a50 <1>b").unwrap();
        drop(unfinished);
        bench.lines(5).await;
    })
    .await;
    assert_eq!(bench.titles(), ["after", "a"]);
    assert_eq!((bench.count(RejectReason::TooLong), bench.count(RejectReason::Malformed)), (2, 1));
    assert!(bench.details.iter().any(|detail| detail.contains("in the middle of a counted message")));
}

#[tokio::test]
async fn one_address_has_a_share_of_the_connections() {
    let settings = settings(&[Protocol::Tcp]);
    let bench = Bench::with(&settings, async |bench| {
        let mut held: Vec<_> = (0..limits::CONNECTIONS.of_one).map(|_| connect(&settings, 0)).collect();
        let _refused = [connect(&settings, 0), connect(&settings, 0)];
        bench.lines(2).await;
        writeln!(held[7], "{}", cef("still")).unwrap();
        bench.lines(3).await;
    })
    .await;
    assert_eq!((bench.count(RejectReason::OverLimit), bench.titles()), (2, vec!["still"]));
}

/// From another address of this machine.
async fn connect_from(settings: &Listeners, at: usize, from: &str) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(settings.listen[at].address).await.unwrap()
}

#[tokio::test]
async fn while_all_places_are_taken_that_is_its_trouble() {
    let settings = settings(&[Protocol::Tcp]);
    let bench = Bench::with(&settings, async |bench| {
        let mut held = Vec::new();
        for from in ["127.0.0.2", "127.0.0.3"] {
            for _ in 0..limits::CONNECTIONS.of_one {
                held.push(connect_from(&settings, 0, from).await);
            }
        }
        let _refused = connect(&settings, 0);
        bench.lines(1).await;
        while bench.trouble.is_none() {
            assert!(bench.next().await);
        }
    })
    .await;
    assert_eq!(bench.count(RejectReason::OverLimit), 1);
    let trouble = bench.trouble.as_deref().unwrap();
    assert!(trouble.starts_with(TURNED_AWAY) && trouble.contains("64 connections"), "{trouble}");
}

#[tokio::test]
async fn who_is_silent_for_longest_goes_for_a_new_sender() {
    let settings = settings(&[Protocol::Tcp]);
    let mut source = source(&settings);
    let bounds = Bounds { most: 3, of_one: 2, silent_min: Duration::ZERO };
    source.doors = Doors::new(bounds);
    let bench = Bench::of(source, async |bench| {
        let mut one = connect(&settings, 0);
        writeln!(one, "{}", cef("one")).unwrap();
        bench.lines(1).await;
        let _other =
            [connect_from(&settings, 0, "127.0.0.2").await, connect_from(&settings, 0, "127.0.0.2").await];
        let mut new = connect_from(&settings, 0, "127.0.0.3").await.into_std().unwrap();
        writeln!(new, "{}", cef("new")).unwrap();
        bench.lines(3).await;
        writeln!(one, "{}", cef("still")).unwrap();
        bench.lines(4).await;
    })
    .await;
    assert_eq!(bench.titles(), ["one", "new", "still"]);
    assert!(
        bench.details[0].starts_with("tcp from 127.0.0.2: closed for another one"),
        "{:?}",
        bench.details
    );
}

#[tokio::test]
async fn what_has_come_is_taken_at_the_stop() {
    let settings = settings(&[Protocol::Udp, Protocol::Tcp]);
    // Open until after the stop: what a sender closes behind is a whole message.
    let mut lines = None;
    let bench = Bench::with(&settings, async |bench| {
        let lines = lines.insert(connect(&settings, 1));
        writeln!(lines, "{}", cef("first")).unwrap();
        bench.lines(1).await;
        write!(lines, "{}", cef("begun")).unwrap();
        // Read, and not whole: a moment is enough on loopback, and more time changes nothing.
        tokio::time::sleep(Duration::from_millis(300)).await;
        datagram(&settings, 0, cef("waits").as_bytes());
    })
    .await;
    assert_eq!(bench.titles(), ["first", "waits"]);
    assert_eq!(bench.count(RejectReason::Lost), 1);
}

/// The kernel has taken them from the sender, who knows no better than that they have come.
#[tokio::test]
async fn what_the_kernel_has_of_a_connection_is_taken_at_the_stop() {
    const MANY: usize = 1_000;
    let settings = settings(&[Protocol::Tcp]);
    let bench = Bench::with(&settings, async |bench| {
        let mut lines = connect(&settings, 0);
        writeln!(lines, "{}", cef("first")).unwrap();
        bench.lines(1).await;
        let all: Vec<String> = (1..MANY).map(|number| cef(&format!("n{number}"))).collect();
        writeln!(lines, "{}", all.join("\n")).unwrap();
    })
    .await;
    assert_eq!((bench.titles().len(), bench.count(RejectReason::Lost)), (MANY, 0));
}

#[tokio::test]
async fn while_the_intake_has_no_room_nothing_is_read_and_nothing_is_lost() {
    const MANY: u64 = 20_000;
    let settings = settings(&[Protocol::Tcp]);
    let address = settings.listen[0].address;
    let bench = Bench::with(&settings, async |bench| {
        let sender = std::thread::spawn(move || {
            let mut lines = io::BufWriter::new(std::net::TcpStream::connect(address).unwrap());
            for number in 0..MANY {
                writeln!(lines, "{}", cef(&format!("n{number}"))).unwrap();
            }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        bench.lines(MANY).await;
        sender.join().unwrap();
    })
    .await;
    let expected: Vec<String> = (0..MANY).map(|number| format!("n{number}")).collect();
    assert_eq!(bench.titles(), expected);
}

#[tokio::test]
async fn an_address_in_use_is_trouble_and_not_the_end() {
    let settings = settings(&[Protocol::Tcp, Protocol::Tcp]);
    let taken = std::net::TcpListener::bind(settings.listen[0].address).unwrap();
    let bench = Bench::with(&settings, async |bench| {
        while bench.trouble.is_none() {
            assert!(bench.next().await);
        }
        assert!(bench.trouble.as_ref().unwrap().contains("in use by another program"), "{:?}", bench.trouble);
        writeln!(connect(&settings, 1), "{}", cef("x")).unwrap();
        bench.lines(1).await;
        drop(taken);
        while bench.trouble.is_some() {
            assert!(bench.next().await);
        }
    })
    .await;
    assert_eq!(bench.titles(), ["x"]);
}

/// Certificates: a CA, a listener's and a sender's, as PEM files.
#[cfg(feature = "simulator")]
mod tls {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;

    struct Files {
        dir: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut ca = CertificateParams::new(Vec::new()).unwrap();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
            std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
            for name in ["listener", "sender"] {
                let key = KeyPair::generate().unwrap();
                let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                let certificate = params.signed_by(&key, &ca).unwrap();
                std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
                std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
            }
            Self { dir }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.dir.path().join(name)
        }

        fn listener(&self, clients: bool) -> ListenTls {
            ListenTls {
                cert_file: self.path("listener.pem"),
                key_file: self.path("listener.key"),
                client_ca_file: clients.then(|| self.path("ca.pem")),
            }
        }

        /// Sends one message in its own thread; whether it could be sent.
        fn send(
            &self,
            address: SocketAddr,
            with_certificate: bool,
            message: String,
        ) -> std::thread::JoinHandle<bool> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
            let config = if with_certificate {
                let certificate = CertificateDer::from_pem_file(self.path("sender.pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(self.path("sender.key")).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            } else {
                builder.with_no_client_auth()
            };
            std::thread::spawn(move || {
                let name = ServerName::try_from("localhost").unwrap();
                let client = ClientConnection::new(Arc::new(config), name).unwrap();
                let stream = std::net::TcpStream::connect(address).unwrap();
                let mut tls = StreamOwned::new(client, stream);
                let sent = tls.write_all(message.as_bytes()).and_then(|()| tls.flush()).is_ok();
                tls.conn.send_close_notify();
                sent && tls.flush().is_ok()
            })
        }
    }

    #[tokio::test]
    async fn senders_show_certificates_where_they_are_asked_to() {
        let files = Files::new();
        let mut settings = settings(&[Protocol::Tls]);
        settings.tls = Some(files.listener(true));
        let address = settings.listen[0].address;
        let bench = Bench::with(&settings, async |bench| {
            let sender = files.send(address, true, format!("{} {}", cef("known").len(), cef("known")));
            bench.lines(1).await;
            assert!(sender.join().unwrap());
            let stranger = files.send(address, false, cef("stranger"));
            bench.lines(2).await;
            stranger.join().unwrap();
            // No TLS at all.
            writeln!(connect(&settings, 0), "{}", cef("plain")).unwrap();
            bench.lines(3).await;
        })
        .await;
        assert_eq!((bench.titles(), bench.count(RejectReason::Foreign)), (vec!["known"], 2));
        assert_eq!(bench.unauthenticated, 0);
        assert!(bench.sightings[0].alert.references.is_empty());
        assert!(
            bench.details.iter().all(|detail| detail.contains("TLS handshake failed")),
            "{:?}",
            bench.details
        );
    }

    /// Every unfinished handshake was accepted before the sender's connection: the kernel keeps their order.
    #[tokio::test]
    async fn strangers_that_never_finish_a_handshake_keep_no_sender_out() {
        const STRANGERS: usize = 64;
        let files = Files::new();
        let mut settings = settings(&[Protocol::Tls]);
        settings.tls = Some(files.listener(true));
        let address = settings.listen[0].address;
        let bench = Bench::with(&settings, async |bench| {
            let mut strangers = Vec::new();
            for at in 0..STRANGERS {
                strangers.push(connect_from(&settings, 0, ["127.0.0.2", "127.0.0.3"][at % 2]).await);
            }
            let sender = files.send(address, true, format!("{} {}", cef("known").len(), cef("known")));
            let gone = (STRANGERS + 1 - crate::net::places::HANDSHAKES_MAX) as u64;
            bench.lines(gone + 1).await;
            assert!(sender.join().unwrap());
            while bench.trouble.is_none() {
                assert!(bench.next().await);
            }
        })
        .await;
        assert_eq!(bench.titles(), ["known"]);
        assert!(bench.trouble.as_ref().is_some_and(|trouble| trouble.contains("32 unfinished handshakes")));
        assert!(bench.count(RejectReason::OverLimit) > 0 && bench.unauthenticated == 0);
    }

    #[tokio::test]
    async fn encrypted_is_not_authenticated() {
        let files = Files::new();
        let mut settings = settings(&[Protocol::Tls]);
        settings.tls = Some(files.listener(false));
        let bench = Bench::with(&settings, async |bench| {
            let sender = files.send(settings.listen[0].address, false, format!("{}\n", cef("x")));
            bench.lines(1).await;
            assert!(sender.join().unwrap());
        })
        .await;
        let mark = "unauthenticated sender 127.0.0.1 (TLS without a client certificate)";
        assert_eq!(
            (bench.unauthenticated, bench.sightings[0].alert.references.as_slice()),
            (1, &[mark.to_owned()][..])
        );
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let files = Files::new();
        let mut wrong = files.listener(false);
        wrong.key_file = files.path("sender.key");
        assert!(Acceptor::new(&wrong).err().unwrap().to_string().contains("could not set up TLS"));
        wrong.cert_file = files.path("sender.key");
        assert!(Acceptor::new(&wrong).err().unwrap().to_string().contains("tls.cert_file"));
    }
}
