//! The way to a destination: proxy, trust, a certificate of our own, headers for a gateway.

use std::path::{Path, PathBuf};

use url::Url;

use super::super::check::Check;
use super::super::file::{Destination, Proxy, Tls};
use super::super::problem::{At, quote};
use super::super::read::Field;
use super::super::show::Origin;
use super::super::{Purpose, secret};
use super::fetch;
use crate::model::Secret;
use crate::model::alert::unhex;
use crate::net::{self, ClientCertificate, ProxySettings, TlsSettings};

/// It is there and wrong; what is wrong with it is among the problems.
pub(in crate::config) struct Wrong;

/// The proxy of the config, else that of the environment.
pub(in crate::config) fn proxy_of(
    field: &Field<Proxy>,
    instance: Option<&Url>,
    c: &mut Check<'_>,
) -> Result<Option<ProxySettings>, Wrong> {
    match field.get() {
        Some((table, at)) => proxy(table, at, c).map(Some).ok_or(Wrong),
        None if field.is_present() => Err(Wrong),
        None => from_environment(instance, c),
    }
}

fn from_environment(instance: Option<&Url>, c: &mut Check<'_>) -> Result<Option<ProxySettings>, Wrong> {
    let Some(instance) = instance else { return Ok(None) };
    let variables = &*c.environment.variables;
    match net::proxy_of_environment(&|name| variables(name), instance) {
        Ok(None) => Ok(None),
        Ok(Some((settings, name))) => {
            let shown = settings.url.as_str().trim_end_matches('/').to_owned();
            c.effective.note("proxy.url", shown, Origin::Environment(name));
            Ok(Some(settings))
        }
        Err((name, why)) => {
            let problem = super::super::problem::Problem::new(
                super::super::problem::Level::Error,
                "servicenow.proxy",
                format!("the environment variable {name} cannot be used: {why}"),
            );
            c.problems.push(
                problem
                    .expected("http://HOST:PORT")
                    .hint("name the proxy in `proxy`, or the host in NO_PROXY"),
            );
            Err(Wrong)
        }
    }
}

fn proxy(proxy: &Proxy, table: &At, c: &mut Check<'_>) -> Option<ProxySettings> {
    const EXPECTED: &str = "\"http://HOST:PORT\" or \"https://HOST:PORT\"";
    let url = c.required("url", &proxy.url, table, EXPECTED).and_then(|(text, at)| {
        let url = Url::parse(text.trim())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
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

/// What is trusted and shown; `None`: it is there and wrong.
pub(in crate::config) fn tls_of(
    field: &Field<Tls>,
    proxy: Option<&ProxySettings>,
    c: &mut Check<'_>,
) -> Option<TlsSettings> {
    let settings = match field.get() {
        Some((tls, _)) => trust(tls, c),
        None => (!field.is_present()).then(TlsSettings::default),
    }?;
    let https_proxy = proxy.is_some_and(|proxy| proxy.url.scheme() == "https");
    if let (true, Some(at)) = (settings.pin.is_some() && https_proxy, field.at()) {
        c.problems.error(at, "a pin and a proxy of https exclude each other", |p| {
            p.hint("the pin would have to fit the proxy as well; use ca_file, or reach the proxy by http")
        });
        return None;
    }
    Some(settings)
}

fn trust(tls: &Tls, c: &mut Check<'_>) -> Option<TlsSettings> {
    let client = client(tls, c);
    for at in [tls.cert_file.at(), tls.key_file.at(), tls.client_ca_file.at()].into_iter().flatten() {
        c.problems.error(at, "this key is for sources that listen", |p| {
            p.expected("ca_file, pin, client_cert_file")
        });
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
                    p.quoted(text)
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
    let system_roots = c.value("tls.system_roots", &tls.system_roots, true, |v| *v)?;
    if let (false, None, None, Some(at)) = (system_roots, &ca_file, pin, tls.system_roots.at()) {
        c.problems.error(at, "then nothing is trusted", |p| p.hint("name ca_file or pin"));
        return None;
    }
    if let (Some(_), Some(_), Some(at)) = (&ca_file, pin, tls.ca_file.at()) {
        c.problems.warn(at, "with a pin, ca_file has no effect", |p| p.hint("remove one of the two"));
    }
    Some(TlsSettings { ca_file, system_roots, pin, client: client.ok()? })
}

/// Both files or none. The key is a secret, and its file has to be one.
fn client(tls: &Tls, c: &mut Check<'_>) -> Result<Option<ClientCertificate>, Wrong> {
    for (has, lacks, missing) in [
        (&tls.client_cert_file, &tls.client_key_file, "client_key_file"),
        (&tls.client_key_file, &tls.client_cert_file, "client_cert_file"),
    ] {
        if let (Some(at), false) = (has.at(), lacks.is_present()) {
            c.problems.error(
                at,
                format!("a certificate and its key belong together: {missing} is missing"),
                |p| p,
            );
            return Err(Wrong);
        }
    }
    if !tls.client_cert_file.is_present() {
        return Ok(None);
    }
    let (cert, cert_at) = tls.client_cert_file.get().ok_or(Wrong)?;
    let (key, key_at) = tls.client_key_file.get().ok_or(Wrong)?;
    c.effective.note_field("tls.client_cert_file", cert.clone(), &tls.client_cert_file);
    c.effective.note_field("tls.client_key_file", key.clone(), &tls.client_key_file);
    let cert_file = absolute(Path::new(cert), cert_at, c);
    let key_file = absolute(Path::new(key), key_at, c);
    let files = ClientCertificate { cert_file: cert_file.ok_or(Wrong)?, key_file: key_file.ok_or(Wrong)? };
    c.service_reads(&files.cert_file, cert_at);
    c.service_reads(&files.key_file, key_at);
    if c.purpose != Purpose::Show
        && let Err(problem) = secret::key_file(&files.key_file, c.environment)
    {
        c.problems.push(problem.at(key_at));
        return Err(Wrong);
    }
    Ok(Some(files))
}

fn absolute(path: &Path, at: &At, c: &mut Check<'_>) -> Option<PathBuf> {
    if path.is_absolute() {
        return Some(path.into());
    }
    c.problems.error(at, "the path has to be absolute", |p| p.quoted(path.display()));
    None
}

fn pin(text: &str) -> Option<[u8; 32]> {
    let hex: String = text.trim().strip_prefix("sha256:")?.chars().filter(|c| *c != ':').collect();
    unhex(&hex)
}

/// Whether the file can be read and each block in it is a certificate; those that nothing can be checked with are named.
fn certificates(path: &Path, at: &At, c: &mut Check<'_>) -> Option<PathBuf> {
    let path = absolute(path, at, c)?;
    if c.purpose == Purpose::Show {
        return Some(path);
    }
    c.service_reads(&path, at);
    // What is no file must not be waited for.
    let looked = match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => net::look_at_ca_file(&path).map_err(|e| e.to_string()),
        Ok(_) => Err(format!("{} is not a file", path.display())),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    };
    match looked {
        Err(wrong) => {
            c.problems
                .error(at, wrong, |p| p.expected("a PEM file with the line -----BEGIN CERTIFICATE-----"));
            None
        }
        Ok(odd) => {
            for what in odd {
                c.problems.warn(at, what, |p| {
                    p.hint("have that CA issue with RSA of at least 2048 bits, or ECDSA on P-256 or P-384")
                });
            }
            Some(path)
        }
    }
}

/// Headers for a gateway. `None`: one of them is wrong.
pub(super) fn headers(destination: &Destination, c: &mut Check<'_>) -> Option<Vec<(String, Secret)>> {
    let Some((named, _)) = destination.headers.get() else {
        return (!destination.headers.is_present()).then(Vec::new);
    };
    let (mut all, mut fine) = (Vec::new(), true);
    for (name, reference, at) in &named.0 {
        c.effective.note(
            &format!("headers.{}", quote(name)),
            format!("({})", secret::origin(reference)),
            Origin::from(at),
        );
        if let Err(why) = net::check_header(name) {
            c.problems
                .error(at, why, |p| p.expected("a header that the gateway wants, such as x-gateway-key"));
            fine = false;
        }
        match secret::fetch(reference, at, c.environment, c.purpose, c.problems) {
            Some(value) if value.expose().chars().any(char::is_control) => {
                c.problems.error(at, "its value has characters that HTTP forbids", |p| p);
                fine = false;
            }
            Some(value) => all.push((name.clone(), value)),
            None => fine = false,
        }
    }
    fine.then_some(all)
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
