//! `[servicenow.NAME]` to the Settings of a destination: address, log-in, proxy, trust, ceilings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use url::{Host, Url};

use super::check::Check;
use super::file::{Destination, Proxy, Tls};
use super::problem::At;
use super::read::{Field, Named};
use super::values::{AuthKind, SecretRef};
use super::{Purpose, secret};
use crate::model::{DestinationName, Secret};
use crate::net::{ProxySettings, TlsSettings};
use crate::relay::Limits;
use crate::servicenow::{Auth, Settings};

/// Largest file of certificates, in bytes.
const CA_MAX: u64 = 1 << 20;

/// Checks all destinations; those with an error are left out.
pub(super) fn check(destinations: &Field<Named<Destination>>, c: &mut Check<'_>) -> Vec<(Settings, Limits)> {
    let Some((destinations, _)) = destinations.get() else { return Vec::new() };
    // Not `filter_map` over a lazy chain of `?`: every destination is looked at to its end.
    let mut seen: BTreeMap<String, &At> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, destination, at) in &destinations.0 {
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), at) {
            let message = format!("two destinations differ only in case, the other at {}", other.line());
            c.problems.warn(at, message, |p| p);
        }
        checked.extend(one(name, destination, at, c));
    }
    checked
}

fn one(name: &str, destination: &Destination, at: &At, c: &mut Check<'_>) -> Option<(Settings, Limits)> {
    let header =
        if name.contains('.') { format!("[servicenow.\"{name}\"]") } else { format!("[servicenow.{name}]") };
    c.effective.begin(header, at.key.to_string());
    let name = match DestinationName::new(name) {
        Ok(name) => Some(name),
        Err(error) => {
            c.problems.error(at, "this name cannot be used", |p| p.expected(error.expected));
            None
        }
    };
    let instance = c
        .required("instance", &destination.instance, at, "\"https://NAME.service-now.com\"")
        .and_then(|(text, place)| {
            let url = instance(text, place, c)?;
            c.effective.note_field("instance", text.clone(), &destination.instance);
            Some(url)
        });
    let auth = auth(destination, at, c);
    let proxy = match destination.proxy.get() {
        Some((proxy, at)) => self::proxy(proxy, at, c).map(Some),
        None => (!destination.proxy.is_present()).then_some(None),
    };
    let tls = match destination.tls.get() {
        Some((tls, _)) => trust(tls, c),
        None => (!destination.tls.is_present()).then(TlsSettings::default),
    };
    let requests_per_hour =
        number("requests_per_hour", &destination.requests_per_hour, 1000, 1..=1_000_000, c);
    let max_in_flight = number("max_in_flight", &destination.max_in_flight, 2, 1..=16, c);
    let limits = Limits {
        requests_per_hour: u32::try_from(requests_per_hour?).ok()?,
        max_in_flight: usize::try_from(max_in_flight?).ok()?,
    };
    Some((Settings { name: name?, instance: instance?, auth: auth?, proxy: proxy?, tls: tls? }, limits))
}

fn number(
    name: &str,
    field: &Field<i64>,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
    c: &mut Check<'_>,
) -> Option<i64> {
    let value = c.value(name, field, default, |n| *n)?;
    if let (false, Some(at)) = (range.contains(&value), field.at()) {
        let (low, high) = range.into_inner();
        c.problems
            .error(at, "out of range", |p| p.found(value.to_string()).expected(format!("{low} to {high}")));
        return None;
    }
    Some(value)
}

/// The base address. Found text is repeated only when it cannot hold a password.
fn instance(text: &str, at: &At, c: &mut Check<'_>) -> Option<Url> {
    const EXPECTED: &str = "\"https://NAME.service-now.com\"";
    let url = match Url::parse(text.trim()) {
        Ok(url) if !url.cannot_be_a_base() => url,
        _ => {
            let hint = if text.contains("://") { None } else { Some("begin with https://") };
            c.problems.error(at, "this is not an address", |p| {
                let p =
                    if text.contains('@') { p } else { p.found(format!("\"{text}\"")) }.expected(EXPECTED);
                hint.map_or(p.clone(), |hint| p.hint(hint))
            });
            return None;
        }
    };
    let mut wrong = false;
    let mut error = |message: &str, hint: &str| {
        c.problems.error(at, message, |p| p.expected(EXPECTED).hint(hint));
        wrong = true;
    };
    if !url.username().is_empty() || url.password().is_some() {
        error("a log-in must not stand in the address", "use the keys username and password");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        error("only the base address belongs here, without a path", "take away what follows the host name");
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => {
            error("alerts must not leave unencrypted: http is for loopback addresses only", "use https");
        }
        _ => error("the scheme is neither https nor http", "use https"),
    }
    if wrong {
        return None;
    }
    let host = url.host_str().unwrap_or_default();
    if url.scheme() == "https" && !host.ends_with(".service-now.com") && !is_loopback(&url) {
        let message = format!("{host} is not a host of .service-now.com");
        c.problems.warn(at, message, |p| {
            p.hint("right for a custom address or an on-prem instance; else check it")
        });
    }
    Some(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Keys that a way to log in needs.
fn needs(kind: AuthKind) -> &'static [&'static str] {
    match kind {
        AuthKind::Password => &["client_id", "client_secret", "username", "password"],
        AuthKind::ClientCredentials => &["client_id", "client_secret"],
        AuthKind::Basic => &["username", "password"],
        _ => &[],
    }
}

fn auth(destination: &Destination, table: &At, c: &mut Check<'_>) -> Option<Auth> {
    let (kind, at) =
        c.required("auth", &destination.auth, table, "\"password\", \"client-credentials\" or \"basic\"")?;
    let kind = *kind;
    if needs(kind).is_empty() {
        let hint = "choose \"password\", \"client-credentials\" or \"basic\"";
        c.not_yet(at, &format!("auth = \"{}\"", kind.as_str()), hint);
        return None;
    }
    c.effective.note_field("auth", kind.as_str(), &destination.auth);
    let keys: [(&str, Option<&At>); 9] = [
        ("client_id", destination.client_id.at()),
        ("client_secret", destination.client_secret.at()),
        ("username", destination.username.at()),
        ("password", destination.password.at()),
        ("refresh_token", destination.refresh_token.at()),
        ("private_key", destination.private_key.at()),
        ("subject", destination.subject.at()),
        ("key_id", destination.key_id.at()),
        ("api_key", destination.api_key.at()),
    ];
    for (key, place) in keys {
        match (needs(kind).contains(&key), place) {
            (true, None) => {
                let message = format!("missing: auth = \"{}\" needs it", kind.as_str());
                c.problems.error(&at.clone().sibling(key), message, |p| p);
            }
            (false, Some(place)) => {
                let message = format!("auth = \"{}\" has no use for it", kind.as_str());
                c.problems.error(place, message, |p| p.hint("remove it, or choose another auth"));
            }
            _ => {}
        }
    }
    let uses = |key: &str| needs(kind).contains(&key);
    let client_id = uses("client_id").then(|| c.line("client_id", &destination.client_id, 255));
    let client_secret = uses("client_secret").then(|| fetch("client_secret", &destination.client_secret, c));
    let username = uses("username").then(|| c.line("username", &destination.username, 255));
    let password = uses("password").then(|| fetch("password", &destination.password, c));
    Some(match kind {
        AuthKind::Password => Auth::Password {
            client_id: client_id??,
            client_secret: client_secret??,
            username: username??,
            password: password??,
        },
        AuthKind::ClientCredentials => {
            Auth::ClientCredentials { client_id: client_id??, client_secret: client_secret?? }
        }
        _ => Auth::Basic { username: username??, password: password?? },
    })
}

pub(super) fn fetch(name: &str, field: &Field<SecretRef>, c: &mut Check<'_>) -> Option<Secret> {
    let (reference, at) = field.get()?;
    c.effective.note_field(name, format!("({})", secret::origin(reference)), field);
    secret::fetch(reference, at, c.environment, c.purpose, c.problems)
}

pub(super) fn proxy(proxy: &Proxy, table: &At, c: &mut Check<'_>) -> Option<ProxySettings> {
    const EXPECTED: &str = "\"http://HOST:PORT\"";
    let url = c.required("url", &proxy.url, table, EXPECTED).and_then(|(text, at)| {
        let url = Url::parse(text.trim()).ok().filter(|url| url.scheme() == "http" && url.has_host());
        let Some(url) = url else {
            c.problems.error(at, "this is not the address of a proxy", |p| p.expected(EXPECTED));
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            c.problems.error(at, "a log-in must not stand in the address", |p| {
                p.expected(EXPECTED).hint("use the keys username and password of the proxy")
            });
            return None;
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            c.problems.error(at, "a proxy has no path", |p| p.expected(EXPECTED));
            return None;
        }
        c.effective.note_field("proxy.url", text.clone(), &proxy.url);
        Some(url)
    });
    let username = c.line("proxy.username", &proxy.username, 255);
    let password = fetch("proxy.password", &proxy.password, c);
    match (proxy.username.at(), proxy.password.at()) {
        (Some(at), None) => c.problems.error(at, "a username without a password", |p| p.hint("add password")),
        (None, Some(at)) => c.problems.error(at, "a password without a username", |p| p.hint("add username")),
        _ => {}
    }
    let login = match (username, password, proxy.username.is_present()) {
        (Some(username), Some(password), _) => Some((username, password)),
        (None, None, false) => None,
        _ => return None,
    };
    Some(ProxySettings { url: url?, login })
}

pub(super) fn trust(tls: &Tls, c: &mut Check<'_>) -> Option<TlsSettings> {
    for at in [tls.client_cert_file.at(), tls.client_key_file.at()].into_iter().flatten() {
        c.not_yet(at, "a client certificate", "remove it");
    }
    for at in [tls.cert_file.at(), tls.key_file.at(), tls.client_ca_file.at()].into_iter().flatten() {
        c.problems.error(at, "this key is for sources that listen", |p| p.expected("ca_file or pin"));
    }
    let ca_file = match tls.ca_file.get() {
        Some((path, at)) => {
            c.effective.note_field("tls.ca_file", path.clone(), &tls.ca_file);
            Some(certificates(Path::new(path), at, c)?)
        }
        None if tls.ca_file.is_present() => return None,
        None => None,
    };
    let pin = match tls.pin.get() {
        Some((text, at)) => {
            let pin = pin(text);
            if pin.is_none() {
                c.problems.error(at, "this is not a fingerprint", |p| {
                    p.found(format!("\"{text}\""))
                        .expected("\"sha256:\" and 64 hex digits (colons may stand between them)")
                        .hint("openssl x509 -in CERT.pem -noout -fingerprint -sha256 prints it")
                });
            }
            c.effective.note_field("tls.pin", text.clone(), &tls.pin);
            Some(pin?)
        }
        None if tls.pin.is_present() => return None,
        None => None,
    };
    if let (Some(_), Some(_), Some(at)) = (&ca_file, pin, tls.ca_file.at()) {
        c.problems.warn(at, "with a pin, ca_file has no effect", |p| p.hint("remove one of the two"));
    }
    Some(TlsSettings { ca_file, pin })
}

fn pin(text: &str) -> Option<[u8; 32]> {
    let hex: String = text.trim().strip_prefix("sha256:")?.chars().filter(|c| *c != ':').collect();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether the file can be read and holds a certificate; `net` reads what is in it.
fn certificates(path: &Path, at: &At, c: &mut Check<'_>) -> Option<PathBuf> {
    if !path.is_absolute() {
        c.problems.error(at, "the path has to be absolute", |p| p.found(format!("\"{}\"", path.display())));
        return None;
    }
    if c.purpose == Purpose::Show {
        return Some(path.into());
    }
    let is_file = std::fs::metadata(path).map(|metadata| metadata.is_file());
    let read = match is_file {
        Ok(true) => File::open(path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(CA_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
        }),
        Ok(false) => Err(std::io::Error::other("it is not a file")),
        Err(error) => Err(error),
    };
    let wrong = match read {
        Err(error) => format!("{} cannot be read: {error}", path.display()),
        Ok(bytes) if bytes.len() as u64 > CA_MAX => format!("{} is larger than 1 MiB", path.display()),
        Ok(bytes) if memchr::memmem::find(&bytes, b"-----BEGIN CERTIFICATE-----").is_none() => {
            format!("{} holds no certificate", path.display())
        }
        Ok(_) => return Some(path.into()),
    };
    c.problems.error(at, wrong, |p| p.expected("a PEM file with the line -----BEGIN CERTIFICATE-----"));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_as_openssl_prints_them() {
        let colons = format!("sha256:{}", vec!["AB"; 32].join(":"));
        assert_eq!(pin(&colons), Some([0xab; 32]));
        assert_eq!(pin(&format!("sha256:{}", "0f".repeat(32))), Some([0x0f; 32]));
        for bad in ["", "sha256:", "ab", "sha1:00", &format!("sha256:{}", "é".repeat(32)), &"0f".repeat(32)]
        {
            assert_eq!(pin(bad), None, "{bad}");
        }
    }
}
