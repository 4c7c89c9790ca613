//! Basic authentication: user and password with each call. The legacy connection; new instances refuse it for users who
//! can log in to pages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::Secret;

/// `auth = "basic"`.
#[derive(Clone, Debug)]
pub struct Basic {
    /// The integration user.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// `user:password` in base64.
pub(super) fn pair(own: &Basic) -> String {
    STANDARD.encode(format!("{}:{}", own.username, own.password.expose()))
}

pub(super) const REFUSED: &str = "check user and password, and that the user is active and not locked out; new instances refuse basic \
    authentication although both are right, unless the user has Web service access only (identity type Machine) or the \
    role snc_basic_auth_api_access; better use OAuth";
