//! The sources: files that can be read and grow, listeners that answer, sensors and consoles that take the token.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Scene, now};
use crate::cli::human::span;
use crate::config::{Found, SHOWN, SOCKET, found, unfit_socket};
use crate::model::Finding;
use crate::model::Timestamp;
use crate::source::transport::defender;
use crate::source::transport::syslog::Protocol;
use crate::source::transport::unix::Listen;
use crate::source::{Input, Settings};

/// A sensor whose files are older is asked about.
const QUIET: Duration = Duration::from_hours(24);
/// How long a listener may take.
const ANSWERS: Duration = Duration::from_secs(3);
/// How long a listener is watched that took the connection.
const MOMENT: Duration = Duration::from_millis(500);

pub(super) async fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &scene.config.sources {
        findings.extend(one(scene, source).await.into_iter().map(|finding| finding.of(source.name.as_str())));
    }
    findings
}

async fn one(scene: &Scene<'_>, source: &Settings) -> Vec<Finding> {
    match &source.input {
        Input::Files { pattern } => {
            files(pattern, now(), found(pattern, scene.service, &scene.config.own.ids()))
        }
        // Nothing stands between it and this machine.
        Input::Host(_) => Vec::new(),
        Input::Unix(listen) => vec![socket(listen, scene.running, unfit_socket(listen, scene.service))],
        Input::Defender { api, .. } if !scene.secrets => {
            vec![Finding::skipped("api", without_secrets(api.http.url.as_str()))]
        }
        Input::Defender { api, .. } => vec![api_answers(api).await],
        Input::Http { listen, .. } => vec![stream(*listen, scene.running, &[]).await],
        Input::Syslog(listeners) => {
            let mut findings = Vec::new();
            for listen in &listeners.listen {
                findings.push(match listen.protocol {
                    Protocol::Udp => datagrams(listen.address, scene.running).await,
                    Protocol::Tcp | Protocol::Tls => {
                        stream(listen.address, scene.running, &listeners.allow).await
                    }
                });
            }
            findings
        }
    }
}

/// Why something that needs a secret is not looked at.
pub(super) fn without_secrets(place: &str) -> String {
    format!("{place}: its secret is a credential of systemd, which only the unit of the service has")
}

/// Whether the socket is there as long as the service runs: then a sensor can write to it.
fn socket(listen: &Listen, running: bool, unfit: Option<&str>) -> Finding {
    let there = std::fs::symlink_metadata(&listen.path).is_ok_and(|meta| meta.file_type().is_socket());
    match (running, there, unfit) {
        (true, true, _) => Finding::ok("listener", format!("{listen} is there")),
        (_, _, Some(why)) => Finding::fail("listener", format!("cannot listen on {listen}: {why}"), SOCKET),
        (false, ..) => Finding::skipped("listener", format!("{listen}: the service does not run")),
        (true, false, None) => Finding::fail(
            "listener",
            format!("{listen} is not there although the service runs"),
            "`otrelay status` says why; its directory has to be one that the service may write, e.g. /run/otrelay",
        ),
    }
}

fn files(pattern: &str, now: Timestamp, found: Result<Found, String>) -> Vec<Finding> {
    let found = match found {
        Ok(found) => found,
        Err(e) => {
            return vec![Finding::fail("files", format!("`{pattern}` is no pattern: {e}"), "correct `path`")];
        }
    };
    let more = found.unread.len().saturating_sub(SHOWN);
    let mut findings: Vec<Finding> = found
        .unread
        .into_iter()
        .take(SHOWN)
        .map(|unread| Finding::fail("files", unread.text, unread.remedy))
        .collect();
    if more > 0 {
        findings.push(Finding::fail("files", format!("{more} more cannot be read"), "correct `path`"));
    }
    let written = |path: &PathBuf| {
        let since = path.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp::EPOCH.after(since))
    };
    let Some(newest) = found.files.iter().filter_map(written).max() else {
        if findings.is_empty() {
            let text = format!("no file matches `{pattern}`");
            let remedy = "right if the sensor has not written yet; else correct `path`";
            findings.push(Finding::warn("files", text, remedy));
        }
        return findings;
    };
    let age = now.since(newest);
    let many =
        if found.files.len() == 1 { "1 file".to_owned() } else { format!("{} files", found.files.len()) };
    let text = format!("{many}, last written {} ago", span(age));
    findings.push(if age > QUIET {
        Finding::warn("files", text, "see whether the sensor runs and still writes there")
    } else {
        Finding::ok("files", text)
    });
    findings
}

async fn api_answers(api: &defender::Settings) -> Finding {
    let place = api.http.url.host_str().unwrap_or_default();
    match defender::greet(api, now()).await {
        Ok(()) => Finding::ok("api", format!("{place} takes the token")),
        Err(trouble) => {
            let wait = "see whether it runs; it is asked again by itself";
            let remedy = if trouble.remedy.is_empty() { wait } else { &trouble.remedy };
            Finding::fail("api", trouble.text, remedy)
        }
    }
}

/// Where the service listens, the way there from this machine.
fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

async fn stream(address: SocketAddr, running: bool, allow: &[IpNet]) -> Finding {
    let name = format!("listener {address}");
    if running {
        return match timeout(ANSWERS, TcpStream::connect(reached_at(address))).await {
            Ok(Ok(stream)) if is_closed_at_once(&stream, allow).await => Finding::fail(
                name,
                "it takes the connection and closes it at once: it has no place for more",
                "see `otrelay status` and who has the places (ss -tnp); keep strangers out with a firewall",
            ),
            Ok(Ok(_)) => Finding::ok(name, "it answers; a firewall on the way is not seen from here"),
            Ok(Err(e)) => unreached(name, &e.to_string()),
            Err(_) => unreached(name, "no answer"),
        };
    }
    bound(name, TcpListener::bind(address).await.map(drop))
}

/// Whether the other side ends a connection that has sent nothing. It does so to all that may not send: then it says
/// nothing of those that may.
async fn is_closed_at_once(stream: &TcpStream, allow: &[IpNet]) -> bool {
    let may_send = |from: SocketAddr| allow.is_empty() || allow.iter().any(|net| net.contains(&from.ip()));
    // An answer where nothing was asked is that of HTTP: no place.
    stream.local_addr().is_ok_and(may_send) && timeout(MOMENT, stream.readable()).await.is_ok()
}

fn unreached(name: String, why: &str) -> Finding {
    Finding::fail(
        name,
        format!("the service runs, and this does not answer: {why}"),
        "see `otrelay status`; reload the service if the config is newer",
    )
}

async fn datagrams(address: SocketAddr, running: bool) -> Finding {
    let name = format!("listener {address}/udp");
    if running {
        return Finding::skipped(name, "datagrams are not answered; see `otrelay status` for what came");
    }
    bound(name, UdpSocket::bind(address).await.map(drop))
}

fn bound(name: String, bound: io::Result<()>) -> Finding {
    match bound {
        Ok(()) => Finding::ok(name, "it can be listened at"),
        Err(e) => {
            let remedy = match e.kind() {
                io::ErrorKind::AddrInUse => "find who listens there (`ss -lnp`), or take another port",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE in the unit; take another port"
                }
                io::ErrorKind::AddrNotAvailable => "use an address of this machine (`ip address`)",
                _ => "correct `listen`",
            };
            Finding::fail(name, format!("it cannot be listened at: {e}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::finding::State;

    #[test]
    fn files_that_are_quiet_or_closed_are_said() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = dir.path().join("eve*.json").to_str().unwrap().to_owned();
        let own = crate::source::Own::default().ids();
        let of = |now| files(&pattern, now, found(&pattern, None, &own));
        let now = crate::cli::clock().now();
        assert_eq!(of(now)[0].state, State::Warn);
        std::fs::write(dir.path().join("eve.json"), "x").unwrap();
        assert_eq!(of(now)[0].state, State::Ok);
        let quiet = of(now.after(Duration::from_hours(25) + Duration::from_mins(1)));
        assert_eq!((quiet[0].state, quiet[0].text.as_str()), (State::Warn, "1 file, last written 25 h ago"));
        for number in 0..12 {
            std::fs::create_dir(dir.path().join(format!("eve-{number:02}.json"))).unwrap();
        }
        let all = of(now);
        assert_eq!(all.len(), 12);
        assert!(
            all[0].fails()
                && all[0].text.ends_with("eve-00.json cannot be read: it is a directory, not a file")
        );
        assert_eq!((all[10].text.as_str(), all[11].state), ("2 more cannot be read", State::Ok));
    }
}
