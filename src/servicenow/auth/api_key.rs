//! API key: one header with each call, never a parameter, which would stand in logs. No token, nothing to renew.

use crate::model::Secret;

/// `auth = "api-key"`.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key.
    pub key: Secret,
}

pub(super) const HEADER: &str = "x-sn-apikey";

pub(super) const REFUSED: &str = "the key is wrong, inactive or past its end, or the REST API access policies do not let it do this: each API \
    and each method needs a policy with the key's authentication profile (reading a list, reading one record and writing \
    are separate); check also the user that the key is bound to";
