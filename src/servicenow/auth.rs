//! Logging in: OAuth grants with a token kept in memory, or basic authentication.
//!
//! One grant at a time: callers that come meanwhile wait and share what came of it, a refusal too, so that a wrong
//! secret costs one request and not a locked-out user. Lifetimes run on the monotonic clock. The instance has one answer
//! for nearly every cause, so a refusal names all of them and never says "wrong password".

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::Auth;
use super::classify::{self, Body};
use super::wire::TokenAnswer;
use crate::destination::SendError;
use crate::model::secret::{ExposeSecret, SecretString};
use crate::model::{Class, HoldScope, Timestamp};
use crate::net::{Answer, HttpClient, Method, Request, TransportError};

/// What a token lives when the answer does not say: half of the instance's own default.
const LIFETIME_DEFAULT: Duration = Duration::from_mins(15);
/// Longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_hours(24);
/// A token is not used in its last seconds: the call itself takes up to 70 s.
const MARGIN_MAX: Duration = Duration::from_secs(90);
/// Longest answer of the token endpoint, in bytes.
const ANSWER_MAX: usize = 64 * 1024;
/// Longest token, in bytes. A JWT with many claims stays below.
const TOKEN_MAX: usize = 8 * 1024;

/// A value for the header `Authorization`, and which grant it came from.
pub(super) struct Authorization {
    pub(super) header: String,
    pub(super) grant: u64,
}

/// A destination's login.
#[derive(Debug)]
pub(super) struct Login {
    auth: Auth,
    token_url: Url,
    place: String,
    tokens: Mutex<Tokens>,
    /// Grants tried so far: who waited while one was tried shares its outcome.
    tries: AtomicU64,
}

#[derive(Debug, Default)]
struct Tokens {
    access: Option<Access>,
    refresh: Option<SecretString>,
    /// Number of the grant that gave `access`.
    grant: u64,
    /// What became of the last try, if it was refused.
    refusal: Option<SendError>,
}

#[derive(Debug)]
struct Access {
    token: SecretString,
    good_until: Instant,
}

/// The form that is posted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    Password,
    Refresh,
    ClientCredentials,
}

/// What a caller lends to a grant.
pub(super) struct Line<'a> {
    pub(super) http: &'a HttpClient,
    pub(super) requests: &'a AtomicU64,
    pub(super) now: Timestamp,
}

impl Login {
    pub(super) fn new(auth: Auth, token_url: Url, place: String) -> Self {
        Self { auth, token_url, place, tokens: Mutex::default(), tries: AtomicU64::new(0) }
    }

    /// Whether a fresh token can be had, so that a refused call is worth repeating.
    pub(super) fn can_renew(&self) -> bool {
        !matches!(self.auth, Auth::Basic { .. })
    }

    /// The value for `Authorization`; asks for a token when there is none that will last the call.
    pub(super) async fn authorization(&self, line: &Line<'_>) -> Result<Authorization, SendError> {
        if let Auth::Basic { username, password } = &self.auth {
            let pair = STANDARD.encode(format!("{username}:{}", password.expose()));
            return Ok(Authorization { header: format!("Basic {pair}"), grant: 0 });
        }
        let tries_before = self.tries.load(Ordering::Acquire);
        let mut tokens = self.tokens.lock().await;
        if let Some(access) = &tokens.access
            && access.good_until > Instant::now()
        {
            return Ok(bearer(access, tokens.grant));
        }
        if self.tries.load(Ordering::Acquire) != tries_before
            && let Some(refusal) = &tokens.refusal
        {
            return Err(refusal.clone());
        }
        let outcome = self.renew(&mut tokens, line).await;
        self.tries.fetch_add(1, Ordering::AcqRel);
        match outcome {
            Ok(access) => {
                tokens.grant += 1;
                tokens.refusal = None;
                let value = bearer(&access, tokens.grant);
                tokens.access = Some(access);
                Ok(value)
            }
            Err(error) => {
                tokens.access = None;
                tokens.refusal = Some(error.clone());
                Err(error)
            }
        }
    }

    /// The token of that grant was refused: the next call asks for another one. A newer token stays.
    pub(super) async fn refused(&self, grant: u64) {
        let mut tokens = self.tokens.lock().await;
        if tokens.grant == grant {
            tokens.access = None;
        }
    }

    /// Refresh if there is something to refresh with, else (or if that is refused) the grant of the config.
    async fn renew(&self, tokens: &mut Tokens, line: &Line<'_>) -> Result<Access, SendError> {
        if let Some(refresh) = tokens.refresh.take() {
            match self.grant(Grant::Refresh, Some(&refresh), tokens, line).await {
                Ok(access) => {
                    // The answer usually echoes the refresh token; where it does not, the old one stays good.
                    tokens.refresh.get_or_insert(refresh);
                    return Ok(access);
                }
                Err(error) if error.class == Class::Hold && error.status.is_some() => {}
                Err(error) => {
                    tokens.refresh = Some(refresh);
                    return Err(error);
                }
            }
        }
        let grant = match self.auth {
            Auth::ClientCredentials { .. } => Grant::ClientCredentials,
            _ => Grant::Password,
        };
        self.grant(grant, None, tokens, line).await
    }

    async fn grant(
        &self,
        grant: Grant,
        refresh: Option<&SecretString>,
        tokens: &mut Tokens,
        line: &Line<'_>,
    ) -> Result<Access, SendError> {
        let request = Request {
            method: Method::Post,
            url: self.token_url.clone(),
            headers: vec![
                ("accept", "application/json".to_owned()),
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ],
            body: Some(self.form(grant, refresh).into_bytes()),
            answer_max: ANSWER_MAX,
        };
        line.requests.fetch_add(1, Ordering::Relaxed);
        let asked_at = Instant::now();
        let answer = line.http.send(request).await.map_err(|e| self.no_answer(&e))?;
        let parsed = self.read(&answer, grant, line.now)?;
        let lifetime = lifetime(parsed.expires_in_secs());
        let token = parsed.access_token.filter(|t| is_token(t)).ok_or_else(|| {
            self.hold(answer.status, "it answered without a usable access token", ODD_TOKEN_ANSWER)
        })?;
        if grant != Grant::ClientCredentials
            && let Some(next) = parsed.refresh_token.filter(|t| is_token(t))
        {
            tokens.refresh = Some(SecretString::from(next));
        }
        Ok(Access { token: SecretString::from(token), good_until: asked_at + lifetime })
    }

    fn form(&self, grant: Grant, refresh: Option<&SecretString>) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        match (&self.auth, grant) {
            (Auth::Password { client_id, client_secret, .. }, Grant::Refresh) => {
                form.append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", client_id)
                    .append_pair("client_secret", client_secret.expose());
                if let Some(refresh) = refresh {
                    form.append_pair("refresh_token", refresh.expose_secret());
                }
            }
            (Auth::Password { client_id, client_secret, username, password }, _) => {
                form.append_pair("grant_type", "password")
                    .append_pair("client_id", client_id)
                    .append_pair("client_secret", client_secret.expose())
                    .append_pair("username", username)
                    .append_pair("password", password.expose());
            }
            (Auth::ClientCredentials { client_id, client_secret }, _) => {
                form.append_pair("grant_type", "client_credentials")
                    .append_pair("client_id", client_id)
                    .append_pair("client_secret", client_secret.expose());
            }
            (Auth::Basic { .. }, _) => {}
        }
        form.finish()
    }
}

impl Login {
    /// The answer of the token endpoint, if it is one.
    fn read(&self, answer: &Answer, grant: Grant, now: Timestamp) -> Result<TokenAnswer, SendError> {
        let status = answer.status;
        let parsed = classify::body(answer);
        if let Body::Page { title, hibernating } = &parsed
            && !(500..=599).contains(&status)
        {
            let (cause, remedy) = classify::page_words(status, title, *hibernating);
            return Err(self.hold(status, &cause, remedy));
        }
        match (status, parsed) {
            (200 | 201, Body::Json(value)) => match serde_json::from_value::<TokenAnswer>(value) {
                Ok(token) if token.error.is_none() => Ok(token),
                Ok(_) => Err(self.hold(
                    status,
                    "it answered with an error in place of a token",
                    Self::causes(grant),
                )),
                Err(_) => {
                    Err(self.hold(status, "its answer is not that of a token endpoint", ODD_TOKEN_ANSWER))
                }
            },
            (200 | 201, Body::Damaged) => Err(self.retry(status, "its answer is cut or damaged")),
            (429, _) => {
                let wait = classify::wait(answer, now);
                let remedy = "the instance limits its token endpoint too; waits as long as it said";
                Err(SendError {
                    wait,
                    ..self.error(
                        Class::RetryAt,
                        Some(status),
                        "it refuses more requests for now (429)",
                        remedy,
                    )
                })
            }
            (202 | 408 | 500..=599, _) => Err(self.retry(status, &format!("it answered {status}"))),
            (300..=399, _) => Err(self.hold(
                status,
                &format!("it answered {status} and sends us on to another page; redirects are not followed"),
                "put the address of the instance itself into `instance`",
            )),
            (400 | 401 | 403, parsed) => {
                let code = error_code(&parsed).map(|c| format!(" ({c})")).unwrap_or_default();
                Err(self.hold(status, &format!("it refused (status {status}{code})"), Self::causes(grant)))
            }
            (_, Body::Json(_)) => {
                Err(self.hold(status, &format!("it answered {status}"), Self::causes(grant)))
            }
            _ => Err(self.hold(status, &format!("it answered {status} without a token"), ODD_TOKEN_ANSWER)),
        }
    }

    fn no_answer(&self, error: &TransportError) -> SendError {
        self.error(classify::transport_class(error), None, &error.to_string(), &error.remedy())
    }

    fn hold(&self, status: u16, cause: &str, remedy: &str) -> SendError {
        self.error(Class::Hold, Some(status), cause, remedy)
    }

    fn retry(&self, status: u16, cause: &str) -> SendError {
        self.error(Class::Retry, Some(status), cause, "")
    }

    /// Never doubtful: without a token the call itself was not made.
    fn error(&self, class: Class, status: Option<u16>, cause: &str, remedy: &str) -> SendError {
        SendError {
            class,
            hold: HoldScope::Destination,
            message: format!("could not get a token from {}: {cause}", self.place),
            remedy: remedy.to_owned(),
            doubtful: false,
            wait: None,
            status,
        }
    }

    /// All that a refusal of this grant can mean.
    fn causes(grant: Grant) -> &'static str {
        match grant {
            Grant::Password => {
                "the instance does not say why; on it, check in this order: client_id and client_secret of the OAuth \
                 registry record, and that the record is active; user and password, and that the user is active, not \
                 locked out and need not change the password; the property \
                 glide.oauth.inbound.ropc.grant_type.disabled (true forbids this grant); \
                 com.snc.platform.security.oauth.is.active; after a clone of the instance the record or its secret may \
                 be gone. The reason stands in its system log"
            }
            Grant::Refresh => {
                "the refresh token is over (100 days by default), revoked or unknown, or client_id and client_secret do \
                 not fit"
            }
            Grant::ClientCredentials => {
                "the instance does not say why; on it, check in this order: client_id and client_secret of the OAuth \
                 registry record, and that the record is active; the property \
                 glide.oauth.inbound.client.credential.grant_type.enabled (must be true, default false); the field OAuth \
                 Application User of the record, and that this user is active; \
                 com.snc.platform.security.oauth.is.active; after a clone of the instance the record or its secret may \
                 be gone. The reason stands in its system log"
            }
        }
    }

    /// What to look at when a call is refused although we logged in.
    pub(super) fn refused_call_remedy(&self) -> &'static str {
        match self.auth {
            Auth::Basic { .. } => {
                "check user and password, and that the user is active and not locked out; new instances refuse basic \
                 authentication although both are right, unless the user has Web service access only (identity type \
                 Machine) or the role snc_basic_auth_api_access; better use OAuth"
            }
            Auth::Password { .. } | Auth::ClientCredentials { .. } => {
                "the instance gave a token and then refused it: check the scope restriction of the OAuth registry record \
                 (Securely scoped allows no Table API; it must be Broadly scoped or have an API access policy), the \
                 REST API access policies, and that the user is active"
            }
        }
    }

    /// Takes our secrets out of an error that quotes the other side, in case it quoted us.
    pub(super) fn scrub(&self, error: &mut SendError, authorization: &str) {
        for secret in self.secrets(authorization) {
            if error.message.contains(secret) {
                error.message = error.message.replace(secret, "***");
            }
        }
    }

    /// The same for a whole answer, before its words are cut: half a secret is one too.
    pub(super) fn scrub_body(&self, body: &mut Vec<u8>, authorization: &str) {
        let mut text = String::from_utf8_lossy(body).into_owned();
        for secret in self.secrets(authorization) {
            if text.contains(secret) {
                text = text.replace(secret, "***");
            }
        }
        *body = text.into_bytes();
    }

    fn secrets<'a>(&'a self, authorization: &'a str) -> Vec<&'a str> {
        let mut secrets = vec![authorization];
        secrets.extend(authorization.split_once(' ').map(|(_, token)| token));
        match &self.auth {
            Auth::Password { client_secret, password, .. } => {
                secrets.extend([client_secret.expose(), password.expose()]);
            }
            Auth::ClientCredentials { client_secret, .. } => secrets.push(client_secret.expose()),
            Auth::Basic { password, .. } => secrets.push(password.expose()),
        }
        // A very short one would blacken ordinary words and thereby show itself.
        secrets.retain(|secret| secret.len() >= 6);
        secrets
    }
}

const ODD_TOKEN_ANSWER: &str = "oauth_token.do of an instance answers with JSON and an access_token: check `instance`; a \
                                hibernating instance, a log-in page or a proxy answers like this";

fn bearer(access: &Access, grant: u64) -> Authorization {
    Authorization { header: format!("Bearer {}", access.token.expose_secret()), grant }
}

/// What may stand in a header.
fn is_token(text: &str) -> bool {
    (1..=TOKEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// How long a token is used: what it lives, less a margin.
fn lifetime(stated_secs: Option<u64>) -> Duration {
    let lives = stated_secs.map_or(LIFETIME_DEFAULT, Duration::from_secs).min(LIFETIME_MAX);
    lives.saturating_sub(MARGIN_MAX.min(lives / 10))
}

/// `access_denied` and the like; anything that is not a plain code is not repeated.
fn error_code(parsed: &Body) -> Option<String> {
    let Body::Json(value) = parsed else { return None };
    let code = |name: &str| {
        let text = value.get(name)?.as_str()?;
        let plain = text.len() <= 40 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        (plain && !text.is_empty()).then(|| text.to_owned())
    };
    let codes: Vec<String> = [code("error"), code("error_description")].into_iter().flatten().collect();
    (!codes.is_empty()).then(|| codes.join(", "))
}
