//! OAuth refresh token: no password anywhere. The token is the config's, or what `otrelay login` kept; one that an answer
//! brings in its place is kept as well.

use std::path::PathBuf;

use super::{Client, Form, kept};
use crate::model::secret::SecretString;
use crate::model::{Secret, Timestamp};

/// `auth = "refresh-token"`.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// The OAuth registry record.
    pub client: Client,
    /// The token of the config: bare, or the whole file that `otrelay login` kept.
    pub token: Option<Secret>,
    /// Where tokens are kept: a file of the state directory.
    pub kept: PathBuf,
}

impl RefreshToken {
    /// The token to use now. The first use of the config's token is noted, so that its age can be told.
    ///
    /// What is kept counts more than the config's as long as it follows it, is of a later log-in, or is of one that could
    /// not read the config's: a credential that only systemd can open.
    pub(super) fn current(&self, now: Timestamp) -> Result<SecretString, NoToken> {
        let found = kept::read(&self.kept).map_err(NoToken::Unreadable)?;
        let Some(given) = self.token.as_ref().filter(|token| !token.expose().is_empty()) else {
            return found.and_then(|kept| kept.refresh_token).ok_or(NoToken::None);
        };
        let seed = kept::seed(given.expose());
        let (token, issued_at) = kept::parse(given.expose());
        let follows = |kept: &kept::Kept| kept.seed.as_deref() == Some(&seed);
        let is_later = |kept: &kept::Kept| {
            let is_unseen = kept.seed.as_deref() == Some(&kept::seed(""));
            kept.refresh_token.is_some() && (is_unseen || issued_at.is_some_and(|at| kept.issued_at > at))
        };
        let noted = match found {
            Some(kept) if follows(&kept) => return Ok(kept.refresh_token.unwrap_or(token)),
            // From here on it follows this one, and not the next that is put into the config.
            Some(kept) if is_later(&kept) => kept::Kept { seed: Some(seed), ..kept },
            _ => kept::Kept { refresh_token: None, issued_at: issued_at.unwrap_or(now), seed: Some(seed) },
        };
        if let Err(e) = kept::write(&self.kept, &noted) {
            tracing::warn!(
                "the age of the refresh token cannot be watched: {} cannot be written: {e}",
                self.kept.display()
            );
        }
        Ok(noted.refresh_token.unwrap_or(token))
    }

    /// Keeps a token that an answer brought in the place of the one that was used.
    pub(in crate::servicenow) fn keep(&self, token: &SecretString, now: Timestamp) -> std::io::Result<()> {
        let seed = self.token.as_ref().map(|given| kept::seed(given.expose()));
        kept::write(&self.kept, &kept::Kept { refresh_token: Some(token.clone()), issued_at: now, seed })
    }
}

/// Why there is no refresh token.
pub(super) enum NoToken {
    /// Neither in the config nor kept.
    None,
    /// The file is there and cannot be used.
    Unreadable(String),
}

pub(super) fn form(client: &Client, token: &str) -> Form {
    let mut form = Form::of("refresh_token", client);
    form.add("refresh_token", token);
    form
}

pub(super) const CAUSES: &str = "the instance does not say why; most likely the refresh token is over (100 days after the log-in by \
    default, however often it is used), revoked or unknown, or client_id and client_secret do not fit; after a clone of \
    the instance it is gone. `otrelay login NAME` obtains a new one; the reason stands in the system log there";
