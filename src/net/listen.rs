//! The only place that builds a listener: addresses, receive buffers, and who has to show a certificate. TLS 1.2 and 1.3.
//!
//! What may be sent, how much of it and by whom is the room's that listens. Nothing here spawns.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::tls;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// Longest time of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The certificate of a listener, and whose certificates it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenTls {
    /// PEM: its certificate, then those between it and the root.
    pub cert_file: PathBuf,
    /// PEM: its private key.
    pub key_file: PathBuf,
    /// PEM: who signs the certificates that clients have to show; without it none is asked for.
    pub client_ca_file: Option<PathBuf>,
}

/// Why a listener's TLS could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file could not be read, or holds nothing of use.
    #[error("could not use tls.{key} {path}: {cause}")]
    File {
        /// The key in the config.
        key: &'static str,
        /// Which file.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Certificate and key do not belong together, or the library refused them.
    #[error("could not set up TLS with tls.cert_file and tls.key_file: {0}")]
    Setup(String),
}

/// Accepts TLS connections.
#[derive(Clone)]
pub struct Acceptor {
    tls: TlsAcceptor,
    authenticates: bool,
}

impl Acceptor {
    /// Reads the files.
    pub fn new(settings: &ListenTls) -> Result<Self, ListenError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let certificates = tls::chain(&settings.cert_file)
            .map_err(|error| broken("cert_file", &settings.cert_file, &error))?;
        let key = tls::private_key(&settings.key_file)
            .map_err(|error| broken("key_file", &settings.key_file, &error))?;
        let setup = |error: rustls::Error| ListenError::Setup(error.to_string());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(setup)?;
        let builder = match &settings.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                let all = tls::chain(file).map_err(|error| broken("client_ca_file", file, &error))?;
                for certificate in all {
                    roots.add(certificate).map_err(|error| broken("client_ca_file", file, &error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| broken("client_ca_file", file, &error))?,
                )
            }
        };
        let config = builder.with_single_cert(certificates, key).map_err(setup)?;
        let authenticates = settings.client_ca_file.is_some();
        Ok(Self { tls: TlsAcceptor::from(Arc::new(config)), authenticates })
    }

    /// Whether every client has to show a certificate.
    pub fn authenticates(&self) -> bool {
        self.authenticates
    }

    /// The handshake; at most ten seconds.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Connection> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake within 10 s");
        let stream = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await.map_err(late)??;
        Ok(Connection::Tls(Box::new(stream)))
    }
}

fn broken(key: &'static str, path: &Path, cause: &impl ToString) -> ListenError {
    ListenError::File { key, path: path.display().to_string(), cause: cause.to_string() }
}

/// A connection that was accepted.
#[derive(Debug)]
pub enum Connection {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// What the kernel may hold of a connection, in bytes as asked for (Linux takes twice as much). Where a protocol has no
/// answer this is what a power cut loses of it, so it is not left to grow by itself.
const CONNECTION_BUFFER: u32 = 128 * 1024;

/// Listens for connections.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A service that starts again finds the connections of the one before still closing.
    socket.set_reuseaddr(true)?;
    // Connections take it over from the listener.
    socket.set_recv_buffer_size(CONNECTION_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Notices, within hours, that a peer has vanished without a word.
pub fn keep_alive(stream: &TcpStream) {
    // Without it a dead connection only stays for longer.
    let _ = sockopt::set_socket_keepalive(stream, true);
}

/// A socket for datagrams.
#[derive(Debug)]
pub struct Datagrams {
    socket: UdpSocket,
    /// By which the kernel's table names it.
    inode: u64,
    ipv6: bool,
}

impl Datagrams {
    /// Binds it, with a receive buffer of so many bytes where the system lets us have it.
    pub fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // Beyond `net.core.rmem_max` only with CAP_NET_ADMIN; what we got is asked for below.
        if sockopt::set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, buffer)?;
        }
        let inode = rustix::fs::fstat(socket.as_fd())?.st_ino;
        Ok(Self { socket: UdpSocket::from_std(socket)?, inode, ipv6: address.is_ipv6() })
    }

    /// The socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How large the receive buffer is, in bytes as they were asked for.
    pub fn buffer(&self) -> usize {
        // The kernel says twice as much: its own bookkeeping is in it.
        sockopt::socket_recv_buffer_size(&self.socket).unwrap_or(0) / 2
    }

    /// How many datagrams the kernel has dropped so far because the buffer was full; `None` where it does not say.
    pub fn dropped(&self) -> Option<u64> {
        let table = if self.ipv6 { "/proc/net/udp6" } else { "/proc/net/udp" };
        dropped(&std::fs::read_to_string(table).ok()?, self.inode)
    }
}

/// The last column of the row whose tenth is the inode.
fn dropped(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    table.lines().find_map(|row| {
        let mut columns = row.split_ascii_whitespace();
        (columns.nth(9)? == inode).then(|| columns.last()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_in_the_kernels_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n  \
            77: 0100007F:0202 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 0\n  \
            78: 0100007F:0203 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 31\n";
        assert_eq!(dropped(table, 4712), Some(31));
        assert_eq!(dropped(table, 4711), Some(0));
        assert_eq!(dropped(table, 31), None);
    }

    #[tokio::test]
    async fn a_socket_that_is_not_read_says_what_it_lost() {
        let datagrams = Datagrams::bind("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let address = datagrams.socket().local_addr().unwrap();
        assert_eq!(datagrams.dropped(), Some(0));
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..200 {
            sender.send_to(&[b'x'; 1000], address).unwrap();
        }
        assert!(datagrams.dropped().unwrap() > 100);
        assert!(datagrams.buffer() >= 1024);
    }

    #[test]
    fn files_that_are_no_certificates_are_named() {
        let settings = ListenTls {
            cert_file: PathBuf::from("/nowhere/cert.pem"),
            key_file: PathBuf::from("/nowhere/key.pem"),
            client_ca_file: None,
        };
        let error = Acceptor::new(&settings).err().unwrap().to_string();
        assert!(error.contains("tls.cert_file /nowhere/cert.pem"), "{error}");
    }
}
