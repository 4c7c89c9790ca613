//! OAuth client credentials: the registry record itself logs in, as the user that stands in it. No refresh token.

use super::{Client, Form};

/// `auth = "client-credentials"`.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    /// The OAuth registry record.
    pub client: Client,
}

pub(super) fn form(own: &ClientCredentials) -> Form {
    Form::of("client_credentials", &own.client)
}

pub(super) const CAUSES: &str = "the instance does not say why; on it, check in this order: client_id and client_secret of the OAuth \
    registry record, and that the record is active; the property \
    glide.oauth.inbound.client.credential.grant_type.enabled (must be true, default false); the field OAuth Application \
    User of the record, and that this user is active; com.snc.platform.security.oauth.is.active; after a clone of the \
    instance the record or its secret may be gone. The reason stands in its system log";
