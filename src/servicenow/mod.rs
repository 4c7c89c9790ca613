//! 6 — the one [`crate::desk::Desk`]: ServiceNow's Table API.

use url::Url;

use crate::model::{DeskName, Secret};
use crate::net::{ProxySettings, TlsSettings};

/// A destination, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[servicenow.NAME]`.
    pub name: DeskName,
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
