//! OAuth password grant: a user's name and password for a token, and a refresh token for the time after. Kept in memory;
//! when the refresh token is over, the password is there to begin anew.

use super::{Client, Form};
use crate::model::Secret;

/// `auth = "password"`.
#[derive(Clone, Debug)]
pub struct Password {
    /// The OAuth registry record.
    pub client: Client,
    /// The integration user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

pub(super) fn form(username: &str, password: &Secret, client: &Client) -> Form {
    let mut form = Form::of("password", client);
    form.add("username", username).add("password", password.expose());
    form
}

pub(super) const CAUSES: &str = "the instance does not say why; on it, check in this order: client_id and client_secret of the OAuth \
    registry record, and that the record is active; user and password, and that the user is active, not locked out and \
    need not change the password; the property glide.oauth.inbound.ropc.grant_type.disabled (true forbids this grant); \
    com.snc.platform.security.oauth.is.active; after a clone of the instance the record or its secret may be gone. The \
    reason stands in its system log";
