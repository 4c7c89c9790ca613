//! 6 — the one [`crate::destination::Destination`]: ServiceNow's Table API.
//!
//! `relay` calls [`ServiceNow`]; `incident` says what is asked and reads what came back, `client` makes the call with a
//! token of `auth`, `classify` turns each answer into a record or a class of failure. One attempt per call: repeating
//! and waiting are the relay's, with one exception, a call that was refused for its token is made once more with a
//! fresh one. No body, token or secret gets into an error or a log.

use url::Url;

use crate::model::{DestinationName, Secret};
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

pub use client::{ServiceNow, SetupError};
pub use fields::default_fields;

/// A destination, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[servicenow.NAME]`.
    pub name: DestinationName,
    /// Base address: https, or http to a loopback address; no path, no user info.
    pub instance: Url,
    /// How it logs in.
    pub auth: Auth,
    /// Proxy, if one has to be used.
    pub proxy: Option<ProxySettings>,
    /// What is trusted.
    pub tls: TlsSettings,
}

/// How a destination logs in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// OAuth password grant with refresh token.
    Password {
        /// Client id of the registry record.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
        /// The integration user.
        username: String,
        /// Its password.
        password: Secret,
    },
    /// OAuth client credentials.
    ClientCredentials {
        /// Client id of the registry record.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
    },
    /// Basic authentication; new instances refuse it for normal users.
    Basic {
        /// The integration user.
        username: String,
        /// Its password.
        password: Secret,
    },
}
