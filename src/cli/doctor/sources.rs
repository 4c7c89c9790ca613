//! The sources: files that can be read and grow, listeners that answer, sensors and consoles that take the token.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::{Scene, now};
use crate::cli::human::span;
use crate::config::unread;
use crate::model::Finding;
use crate::model::Timestamp;
use crate::source::transport::defender;
use crate::source::transport::syslog::Protocol;
use crate::source::transport::tail::Pattern;
use crate::source::transport::unix::Listen;
use crate::source::{Input, Settings};

/// Most files of a pattern that are looked at.
const FILES_MAX: usize = 1_000;
/// A sensor whose files are older is asked about.
const QUIET: Duration = Duration::from_hours(24);
/// How long a listener may take.
const ANSWERS: Duration = Duration::from_secs(3);

/// All checks of the sources.
pub(super) async fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &scene.config.sources {
        findings.extend(one(scene, source).await.into_iter().map(|finding| finding.of(source.name.as_str())));
    }
    findings
}

async fn one(scene: &Scene<'_>, source: &Settings) -> Vec<Finding> {
    match &source.input {
        Input::Files { pattern } => vec![files(pattern, now(), &|path| unread(path, scene.service))],
        // Nothing stands between it and this machine.
        Input::Host(_) => Vec::new(),
        Input::Unix(listen) => vec![socket(listen, scene.running)],
        Input::Defender { api, .. } if !scene.secrets => {
            vec![Finding::skipped("api", without_secrets(api.http.url.as_str()))]
        }
        Input::Defender { api, .. } => vec![api_answers(api).await],
        Input::Http { listen, .. } => vec![stream(*listen, scene.running).await],
        Input::Syslog(listeners) => {
            let mut findings = Vec::new();
            for listen in &listeners.listen {
                findings.push(match listen.protocol {
                    Protocol::Udp => datagrams(listen.address, scene.running).await,
                    Protocol::Tcp | Protocol::Tls => stream(listen.address, scene.running).await,
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
fn socket(listen: &Listen, running: bool) -> Finding {
    let there = std::fs::symlink_metadata(&listen.path).is_ok_and(|meta| meta.file_type().is_socket());
    match (running, there) {
        (true, true) => Finding::ok("listener", format!("{listen} is there")),
        (false, _) => Finding::skipped("listener", format!("{listen}: the service does not run")),
        (true, false) => Finding::fail(
            "listener",
            format!("{listen} is not there although the service runs"),
            "`otrelay status` says why; its directory has to be one that the service may write, e.g. /run/otrelay",
        ),
    }
}

fn files(pattern: &str, now: Timestamp, judge: &dyn Fn(&Path) -> Option<(String, String)>) -> Finding {
    const WAY: &str = "correct `path`, or put the user of the service into the group of the files (also the directories \
                       above them have to let it through)";
    let paths = match Pattern::new(pattern) {
        Ok(paths) => paths,
        Err(e) => return Finding::fail("files", format!("`{pattern}` is no pattern: {e}"), "correct `path`"),
    };
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    paths.each(
        |path| {
            if found.len() < FILES_MAX {
                found.push(path);
            }
        },
        |path, error| refused.push((path.to_owned(), (error.to_string(), WAY.to_owned()))),
    );
    refused.extend(found.iter().filter_map(|path| Some((path.clone(), judge(path)?))));
    if let Some((path, (why, remedy))) = refused.into_iter().next() {
        return Finding::fail("files", format!("{} cannot be read: {why}", path.display()), remedy);
    }
    let written = |path: &PathBuf| {
        let since = path.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp::EPOCH.after(since))
    };
    let Some(newest) = found.iter().filter_map(written).max() else {
        let text = format!("no file matches `{pattern}`");
        return Finding::warn("files", text, "right if the sensor has not written yet; else correct `path`");
    };
    let age = now.since(newest);
    let many = if found.len() == 1 { "1 file".to_owned() } else { format!("{} files", found.len()) };
    let text = format!("{many}, last written {} ago", span(age));
    if age > QUIET {
        Finding::warn("files", text, "see whether the sensor runs and still writes there")
    } else {
        Finding::ok("files", text)
    }
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

async fn stream(address: SocketAddr, running: bool) -> Finding {
    let name = format!("listener {address}");
    if running {
        return match timeout(ANSWERS, TcpStream::connect(reached_at(address))).await {
            Ok(Ok(_)) => Finding::ok(name, "it answers; a firewall on the way is not seen from here"),
            Ok(Err(e)) => unreached(name, &e.to_string()),
            Err(_) => unreached(name, "no answer"),
        };
    }
    bound(name, TcpListener::bind(address).await.map(drop))
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
        let now = crate::cli::clock().now();
        let of = |now, judge: &dyn Fn(&Path) -> Option<(String, String)>| files(&pattern, now, judge);
        assert_eq!(of(now, &|path| unread(path, None)).state, State::Warn);
        std::fs::write(dir.path().join("eve.json"), "x").unwrap();
        assert_eq!(of(now, &|path| unread(path, None)).state, State::Ok);
        let quiet =
            of(now.after(Duration::from_hours(25) + Duration::from_mins(1)), &|path| unread(path, None));
        assert_eq!((quiet.state, quiet.text.as_str()), (State::Warn, "1 file, last written 25 h ago"));
        let closed = of(now, &|_| Some(("permission denied".to_owned(), "open it".to_owned())));
        assert!(closed.fails() && closed.text.ends_with("eve.json cannot be read: permission denied"));
        std::fs::create_dir(dir.path().join("eve-old.json")).unwrap();
        assert!(
            of(now, &|path| unread(path, None))
                .text
                .ends_with("eve-old.json cannot be read: it is a directory")
        );
    }
}
