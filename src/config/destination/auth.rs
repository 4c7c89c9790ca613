//! How a destination logs in: which keys each way needs, and nothing that it has no use for.

use std::path::PathBuf;

use super::super::Purpose;
use super::super::check::Check;
use super::super::example;
use super::super::file::Destination;
use super::super::problem::At;
use super::super::read::Field;
use super::super::values::{AuthKind, SecretRef};
use super::fetch;
use crate::servicenow::{ApiKey, Auth, Basic, Client, ClientCredentials, JwtBearer, Password, RefreshToken};

const EXPECTED: &str = "\"password\", \"client-credentials\", \"refresh-token\", \"jwt-bearer\", \"api-key\", \
                        \"client-certificate\" or \"basic\"";

/// Keys that a way to log in needs.
fn needs(kind: AuthKind) -> &'static [&'static str] {
    match kind {
        AuthKind::Password => &["client_id", "client_secret", "username", "password"],
        AuthKind::ClientCredentials | AuthKind::RefreshToken => &["client_id", "client_secret"],
        AuthKind::JwtBearer => &["client_id", "private_key", "subject"],
        AuthKind::ApiKey => &["api_key"],
        AuthKind::ClientCertificate => &[],
        AuthKind::Basic => &["username", "password"],
    }
}

/// Keys that it may have besides.
fn may_have(kind: AuthKind) -> &'static [&'static str] {
    match kind {
        AuthKind::RefreshToken => &["refresh_token"],
        AuthKind::JwtBearer => &["client_secret", "key_id"],
        _ => &[],
    }
}

/// Checks the keys and fetches the secrets. `kept` is where `otrelay login` keeps what it obtains.
pub(super) fn check(
    destination: &Destination,
    kept: Option<PathBuf>,
    table: &At,
    c: &mut Check<'_>,
) -> Option<Auth> {
    let (&kind, at) = c.required("auth", &destination.auth, table, EXPECTED)?;
    c.effective.note_field("auth", kind.as_str(), &destination.auth);
    belonging(destination, kind, at, c);
    // All of them are looked at before the first `?`, so that every problem is told.
    let has = |key: &str| needs(kind).contains(&key) || may_have(kind).contains(&key);
    let line = |key: &str, field: &Field<String>, c: &mut Check<'_>| {
        has(key).then(|| c.line(key, field, 255)).flatten()
    };
    let secret = |key: &str, field: &Field<SecretRef>, c: &mut Check<'_>| {
        has(key).then(|| fetch(key, field, c)).flatten()
    };
    let client_id = line("client_id", &destination.client_id, c);
    no_example(client_id.as_deref(), destination.client_id.at(), c);
    let client_secret = secret("client_secret", &destination.client_secret, c);
    let username = line("username", &destination.username, c);
    let password = secret("password", &destination.password, c);
    let refresh_token = secret("refresh_token", &destination.refresh_token, c);
    let private_key = secret("private_key", &destination.private_key, c);
    let subject = line("subject", &destination.subject, c);
    let key_id = line("key_id", &destination.key_id, c);
    let api_key = secret("api_key", &destination.api_key, c);
    // There, and wrong.
    let failed = |key: &str, at: Option<&At>, missing: bool| has(key) && at.is_some() && missing;
    if failed("refresh_token", destination.refresh_token.at(), refresh_token.is_none())
        || failed("client_secret", destination.client_secret.at(), client_secret.is_none())
        || failed("key_id", destination.key_id.at(), key_id.is_none())
    {
        return None;
    }
    let client = |id, secret| Some(Client { id: id?, secret: secret? });
    Some(match kind {
        AuthKind::Password => Auth::Password(Password {
            client: client(client_id, client_secret)?,
            username: username?,
            password: password?,
        }),
        AuthKind::ClientCredentials => {
            Auth::ClientCredentials(ClientCredentials { client: client(client_id, client_secret)? })
        }
        AuthKind::RefreshToken => {
            let own =
                RefreshToken { client: client(client_id, client_secret)?, token: refresh_token, kept: kept? };
            if c.purpose == Purpose::Check && own.token.is_none() && !own.kept.exists() {
                c.problems.warn(at, "there is no refresh token yet", |p| {
                    p.hint("otrelay login NAME obtains one; or name it in refresh_token")
                });
            }
            Auth::RefreshToken(own)
        }
        AuthKind::JwtBearer => Auth::JwtBearer(JwtBearer {
            client_id: client_id?,
            client_secret,
            private_key: private_key?,
            subject: subject?,
            key_id,
        }),
        AuthKind::ApiKey => Auth::ApiKey(ApiKey { key: api_key? }),
        AuthKind::ClientCertificate => {
            client_certificate(destination, at, c)?;
            Auth::ClientCertificate
        }
        AuthKind::Basic => Auth::Basic(Basic { username: username?, password: password? }),
    })
}

fn no_example(client_id: Option<&str>, at: Option<&At>, c: &mut Check<'_>) {
    if let (Some(example::CLIENT_ID), Some(at)) = (client_id, at)
        && c.purpose != Purpose::Show
    {
        c.problems.error(at, "this is still the text of the example", |p| {
            p.hint("put the client id of the OAuth registry record here")
        });
    }
}

/// What is missing, and what the way to log in has no use for.
fn belonging(destination: &Destination, kind: AuthKind, at: &At, c: &mut Check<'_>) {
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
            (false, Some(place)) if !may_have(kind).contains(&key) => {
                let message = format!("auth = \"{}\" has no use for it", kind.as_str());
                c.problems.error(place, message, |p| p.hint("remove it, or choose another auth"));
            }
            _ => {}
        }
    }
}

/// The certificate is a setting of the connection.
fn client_certificate(destination: &Destination, at: &At, c: &mut Check<'_>) -> Option<()> {
    let there = destination.tls.get().is_some_and(|(tls, _)| tls.client_cert_file.is_present());
    if !there {
        c.problems.error(at, "auth = \"client-certificate\" needs a certificate", |p| {
            p.hint("add tls = { client_cert_file = \"/PATH\", client_key_file = \"/PATH\" }")
        });
        return None;
    }
    let plain = destination.instance.get().is_some_and(|(text, _)| text.trim().starts_with("http://"));
    if plain {
        c.problems.error(at, "a certificate is shown over https only", |p| p.hint("use https in instance"));
    }
    (!plain).then_some(())
}
