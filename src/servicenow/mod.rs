//! 6 — the one [`crate::destination::Destination`]: ServiceNow's Table API.
//!
//! `relay` calls [`ServiceNow`]; `incident` says what is asked and reads what came back, `client` makes the call with a
//! token of `auth`, `classify` turns each answer into a record or a class of failure. One attempt per call: repeating
//! and waiting are the relay's, with one exception, a call that was refused for its token is made once more with a
//! fresh one. No body, token or secret gets into an error or a log.

use url::Url;

use crate::model::{DestinationName, Secret, SecretString, Timestamp};
use crate::net::{ProxySettings, TlsSettings};

mod auth;

mod classify;

mod client;

mod fields;

mod incident;

mod query;

mod wire;

#[cfg(test)]
mod conversation;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! What `fuzz/` reaches of the private parts; cargo-fuzz builds with `--cfg fuzzing`, nothing else does.

    /// The look-up of these values as it is put into an address; `None` when it is refused.
    pub fn look_up(field: &str, values: &[&str]) -> Option<String> {
        let query = super::query::Query::default().one_of(field, values.iter().copied()).ok()?;
        Some(query.order_by("sys_created_on").ok()?.encoded())
    }
}

pub use auth::kept::path as kept_login;
pub use auth::{ApiKey, Auth, Basic, Client, ClientCredentials, JwtBearer, Password, RefreshToken};
pub use client::{ServiceNow, SetupError};
pub use fields::default_fields;

/// A destination, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[servicenow.NAME]`.
    pub name: DestinationName,
    /// Base address: https, or http to a loopback address; no user info, and a path only behind a gateway.
    pub instance: Url,
    /// How it logs in.
    pub auth: Auth,
    /// Proxy, if one has to be used.
    pub proxy: Option<ProxySettings>,
    /// What is trusted.
    pub tls: TlsSettings,
    /// Headers that go with each request, for a gateway in front of the instance.
    pub headers: Vec<(String, Secret)>,
}

/// What a person has to know about a destination before it fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concern {
    /// What is the case.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What is known of a destination's log-in without asking it: a kept refresh token that grows old.
pub fn login_concern(settings: &Settings, now: Timestamp) -> Option<Concern> {
    match &settings.auth {
        Auth::RefreshToken(own) => auth::kept::concern(&own.kept, &settings.name, now),
        _ => None,
    }
}

/// Keeps a refresh token for a destination whose `auth` is one; for others there is nothing to keep.
///
/// # Errors
/// The state directory cannot be written to.
pub fn keep_login(settings: &Settings, token: &SecretString, now: Timestamp) -> std::io::Result<()> {
    match &settings.auth {
        Auth::RefreshToken(own) => own.keep(token, now),
        _ => Ok(()),
    }
}
