//! The proxy on the way: its address, what the environment says of it, and what it offers when it refuses.
//!
//! Only https goes through a proxy, by CONNECT: plain http is for loopback, which no proxy can reach. What the config
//! says wins over the environment; the caller sees to that.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::{Host, Url};

use super::ProxySettings;
use super::error::NetError;
use crate::model::Secret;

/// Longest head of a proxy's answer that is looked at, in bytes.
const HEAD_MAX: usize = 8 * 1024;

/// The proxy as the library wants it.
pub(super) fn connect_proxy(settings: &ProxySettings) -> Result<reqwest::Proxy, NetError> {
    let shown = format!("{}://{}", settings.url.scheme(), super::place(&settings.url));
    let refuse = |cause: &str| NetError::Proxy { proxy: shown.clone(), cause: cause.to_owned() };
    if !matches!(settings.url.scheme(), "http" | "https") || settings.url.host_str().is_none() {
        return Err(refuse("expected http://HOST:PORT or https://HOST:PORT"));
    }
    if !settings.url.username().is_empty() || settings.url.password().is_some() {
        return Err(refuse("user and password belong into proxy.username and proxy.password"));
    }
    let proxy =
        reqwest::Proxy::https(settings.url.clone()).map_err(|_| refuse("it is not a proxy address"))?;
    Ok(match &settings.login {
        Some((user, password)) => proxy.basic_auth(user, password.expose()),
        None => proxy,
    })
}

/// The proxy that the environment names for this address, and by which variable; none where `NO_PROXY` exempts the host.
/// `HTTPS_PROXY` counts before `ALL_PROXY`, the lower-case name before the other.
///
/// # Errors
/// The variable, and why its value cannot be used, in words that do not repeat it: it may hold a password.
pub fn proxy_of_environment(
    variable: &dyn Fn(&str) -> Option<String>,
    address: &Url,
) -> Result<Option<(ProxySettings, &'static str)>, (&'static str, &'static str)> {
    let get = |name: &&'static str| variable(name).filter(|value| !value.trim().is_empty());
    if address.scheme() != "https" {
        return Ok(None);
    }
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let Some((name, value)) = names.iter().find_map(|name| Some((*name, get(name)?))) else {
        return Ok(None);
    };
    if ["no_proxy", "NO_PROXY"].iter().find_map(get).is_some_and(|list| exempts(&list, address)) {
        return Ok(None);
    }
    let value = value.trim();
    let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let mut url = Url::parse(&text).map_err(|_| (name, "it is not an address"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err((name, "only http and https proxies are supported"));
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let login = (!url.username().is_empty()).then(|| {
        let password =
            Secret::new(format!("environment variable {name}"), decoded(url.password().unwrap_or_default()));
        (decoded(url.username()), password)
    });
    let bare = url.set_username("").and_then(|()| url.set_password(None));
    bare.map_err(|()| (name, "it is not the address of a proxy"))?;
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Ok(Some((ProxySettings { url, login }, name)))
}

/// `NO_PROXY`: names (and what is below them), addresses and networks, with or without a port, or `*`.
fn exempts(list: &str, address: &Url) -> bool {
    let (Some(host), port) = (address.host(), address.port_or_known_default()) else { return false };
    list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty()).any(|entry| {
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>()
            {
                Ok(wanted) => (name, Some(wanted)),
                Err(_) => (entry, None),
            },
            _ => (entry, None),
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        wanted.is_none_or(|wanted| Some(wanted) == port) && (name == "*" || is_below(name, &host))
    })
}

fn is_below(entry: &str, host: &Host<&str>) -> bool {
    let ip = match host {
        Host::Domain(name) => {
            let (name, entry) = (name.trim_end_matches('.').to_ascii_lowercase(), entry.to_ascii_lowercase());
            let entry = entry.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
            let above = name.strip_suffix(entry);
            return !entry.is_empty() && above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        }
        Host::Ipv4(ip) => ip.to_ipv6_mapped(),
        Host::Ipv6(ip) => *ip,
    };
    let (network, bits) =
        entry.split_once('/').map_or((entry, None), |(network, bits)| (network, bits.parse::<u32>().ok()));
    let Ok(network) = network.parse::<std::net::IpAddr>() else { return false };
    let (network, offset) = match network {
        std::net::IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 96u32),
        std::net::IpAddr::V6(v6) => (v6, 0),
    };
    let bits = match (entry.contains('/'), bits) {
        (false, _) => 128,
        (true, Some(bits)) if bits <= 128 - offset => bits + offset,
        (true, _) => return false,
    };
    let shift = 128 - bits;
    let top = |ip: std::net::Ipv6Addr| ip.to_bits().checked_shr(shift).unwrap_or_default();
    top(network) == top(ip)
}

/// How a plain proxy wants to be logged in to: the words of `Proxy-Authenticate`. Asked without any login, so that it
/// cannot lock anybody out; nothing when it does not say. The library keeps the head of a 407 to itself.
pub(super) async fn offers(proxy: &Url, host: &str, within: Duration) -> Vec<String> {
    if proxy.scheme() != "http" {
        return Vec::new();
    }
    let head =
        tokio::time::timeout(within, ask(proxy, host)).await.ok().and_then(Result::ok).unwrap_or_default();
    schemes(&head)
}

async fn ask(proxy: &Url, host: &str) -> std::io::Result<Vec<u8>> {
    let bare = proxy.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let mut stream = TcpStream::connect((bare, proxy.port_or_known_default().unwrap_or(80))).await?;
    tunnel(&mut stream, host, None).await
}

/// Asks for a tunnel to `host:port`; the head of the answer. A byte at a time: what comes after it is the other side's.
pub(super) async fn tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    login: Option<&(String, Secret)>,
) -> std::io::Result<Vec<u8>> {
    let login = login.map_or(String::new(), |(user, password)| {
        let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
        format!("Proxy-Authorization: Basic {pair}\r\n")
    });
    stream.write_all(format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{login}\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while head.len() < HEAD_MAX && !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
    }
    Ok(head)
}

/// `Negotiate`, `NTLM`, `Basic`: plain words only, each once.
pub(super) fn schemes(head: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(head).lines().take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(':') else { continue };
        let scheme = value.split_whitespace().next().unwrap_or_default().trim_end_matches(',');
        let plain = (1..=20).contains(&scheme.len())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if name.trim().eq_ignore_ascii_case("proxy-authenticate")
            && plain
            && !found.iter().any(|s: &String| s.eq_ignore_ascii_case(scheme))
        {
            found.push(scheme.to_owned());
        }
    }
    found.truncate(5);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)], address: &str) -> Option<(String, &'static str)> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let found = proxy_of_environment(&get, &address.parse().unwrap()).unwrap();
        found.map(|(settings, name)| {
            let login = settings
                .login
                .map(|(user, password)| format!("{user}:{}@", password.expose()))
                .unwrap_or_default();
            (format!("{login}{}", settings.url), name)
        })
    }

    #[test]
    fn the_environment_names_a_proxy() {
        let acme = "https://acme.service-now.com";
        let is = |text: &str, name| Some((text.to_owned(), name));
        assert_eq!(found(&[], acme), None);
        assert_eq!(
            found(&[("HTTPS_PROXY", "proxy.example:3128")], acme),
            is("http://proxy.example:3128/", "HTTPS_PROXY")
        );
        let both = [
            ("ALL_PROXY", "http://a.example:1"),
            ("https_proxy", "https://b.example:2/x?y"),
            ("HTTPS_PROXY", "http://c.example"),
        ];
        assert_eq!(found(&both, acme), is("https://b.example:2/", "https_proxy"));
        let login = [("ALL_PROXY", "http://relay:p%40ss@a.example:1")];
        assert_eq!(found(&login, acme), is("relay:p@ss@http://a.example:1/", "ALL_PROXY"));
        assert_eq!(found(&both, "http://127.0.0.1:1"), None);
        let get = |_: &str| Some("socks5://u:canary@a.example:1".to_owned());
        let (name, why) =
            proxy_of_environment(&get, &acme.parse().unwrap()).map(drop).err().unwrap_or_default();
        // NO_PROXY says the same odd thing, which exempts nobody.
        assert_eq!((name, why), ("https_proxy", "only http and https proxies are supported"));
    }

    #[test]
    fn no_proxy_exempts_names_addresses_and_networks() {
        let check = |list: &str, address: &str, expected: bool| {
            let variables = [("HTTPS_PROXY", "http://p.example:1"), ("NO_PROXY", list)];
            assert_eq!(found(&variables, address).is_none(), expected, "{list} {address}");
        };
        let acme = "https://acme.service-now.com";
        for (list, expected) in [
            ("*", true),
            ("service-now.com", true),
            (".service-now.com", true),
            ("*.service-now.com", true),
            ("localhost, ACME.service-now.com", true),
            ("acme.service-now.com:443", true),
            ("acme.service-now.com:8443", false),
            ("now.com", false),
            ("me.service-now.com", false),
            ("", false),
            (".", false),
        ] {
            check(list, acme, expected);
        }
        check("10.0.0.0/8", "https://10.1.2.3", true);
        check("10.0.0.0/8", "https://11.1.2.3", false);
        check("10.0.0.0/33", "https://10.1.2.3", false);
        check("10.1.2.3", "https://10.1.2.3:8443", true);
        check("10.1.2.3:443", "https://10.1.2.3:8443", false);
        check("fd00::/8", "https://[fd00::1]", true);
        check("[fd00::1]:8443", "https://[fd00::1]:8443", true);
        check("::/0", "https://[fd00::1]", true);
    }

    #[test]
    fn schemes_are_plain_words() {
        let head = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM\r\nProxy-Authenticate: negotiate x\r\nProxy-Authenticate: <b>\r\nX: Basic\r\n\r\nProxy-Authenticate: Basic";
        assert_eq!(schemes(head), ["Negotiate", "NTLM"]);
    }
}
