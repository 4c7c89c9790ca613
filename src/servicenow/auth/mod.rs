//! Logging in: a grant a file, the token kept in memory, renewed before it ends.
//!
//! One grant at a time: callers that come meanwhile wait and share what came of it, a refusal too, so that a wrong
//! secret costs one request and not a locked-out user; a refusal is also the answer to whoever asks within the next
//! minute. Lifetimes run on the monotonic clock. The instance has one answer for nearly every cause, so a refusal names
//! all of them and never says "wrong password".

mod answer;
mod api_key;
mod basic;
mod client_certificate;
mod client_credentials;
mod jwt_bearer;
pub(super) mod kept;
mod password;
mod refresh_token;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use self::answer::Endpoint;
use self::refresh_token::NoToken;
use crate::destination::SendError;
use crate::model::secret::{ExposeSecret, SecretString};
use crate::model::{Class, DestinationName, HealthIssue, Scrubber, Secret, Timestamp};
use crate::net::{HttpClient, Method, Request};

pub use self::api_key::ApiKey;
pub use self::basic::Basic;
pub use self::client_credentials::ClientCredentials;
pub use self::jwt_bearer::JwtBearer;
pub use self::password::Password;
pub use self::refresh_token::RefreshToken;

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
/// A refused grant is not tried again before this, whoever asks. When to ask is the relay's, and it waits longer; this is
/// for people who ask again and again.
const REFUSED_FOR: Duration = Duration::from_mins(1);

/// How a destination logs in.
#[derive(Clone, Debug)]
pub enum Auth {
    /// OAuth password grant with refresh token.
    Password(Password),
    /// OAuth client credentials.
    ClientCredentials(ClientCredentials),
    /// OAuth refresh token.
    RefreshToken(RefreshToken),
    /// OAuth JWT bearer.
    JwtBearer(JwtBearer),
    /// API key.
    ApiKey(ApiKey),
    /// The client certificate of the connection.
    ClientCertificate,
    /// Basic authentication; new instances refuse it for normal users.
    Basic(Basic),
}

impl Auth {
    /// Whether it can be used as it is; no request is made.
    ///
    /// # Errors
    /// One sentence for the operator, without anything of a secret.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::JwtBearer(own) => jwt_bearer::check(own)
                .map_err(|why| format!("private_key ({}): {why}", own.private_key.origin)),
            _ => Ok(()),
        }
    }

    /// The user that it logs in, where it names one.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::Password(own) => Some(&own.username),
            Self::Basic(own) => Some(&own.username),
            Self::JwtBearer(own) => Some(&own.subject),
            Self::ClientCredentials(_)
            | Self::RefreshToken(_)
            | Self::ApiKey(_)
            | Self::ClientCertificate => None,
        }
    }

    pub(super) fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Password(own) => vec![&own.client.secret, &own.password],
            Self::ClientCredentials(own) => vec![&own.client.secret],
            Self::RefreshToken(own) => std::iter::once(&own.client.secret).chain(&own.token).collect(),
            Self::JwtBearer(own) => std::iter::once(&own.private_key).chain(&own.client_secret).collect(),
            Self::ApiKey(own) => vec![&own.key],
            Self::ClientCertificate => Vec::new(),
            Self::Basic(own) => vec![&own.password],
        }
    }
}

/// An OAuth registry record.
#[derive(Clone, Debug)]
pub struct Client {
    /// Client id.
    pub id: String,
    /// Its secret.
    pub secret: Secret,
}

/// The form that is posted to the token endpoint.
struct Form(String);

impl Form {
    fn new(grant: &str) -> Self {
        let mut form = Self(String::new());
        form.add("grant_type", grant);
        form
    }

    fn of(grant: &str, client: &Client) -> Self {
        let mut form = Self::new(grant);
        form.add("client_id", &client.id).add("client_secret", client.secret.expose());
        form
    }

    /// `name` is one of ours, plain as it is.
    fn add(&mut self, name: &str, value: &str) -> &mut Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
        self
    }

    fn finish(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

/// What shows who we are, and which grant it came from.
pub(super) struct Authorization {
    /// `authorization`, `x-sn-apikey`; none where the connection itself shows it.
    pub(super) name: Option<&'static str>,
    /// The header's value.
    pub(super) header: String,
    pub(super) grant: u64,
}

impl Authorization {
    /// The header of a call, if it needs one.
    pub(super) fn line(&self) -> Option<(&'static str, String)> {
        Some((self.name?, self.header.clone()))
    }
}

#[derive(Debug)]
pub(super) struct Login {
    name: DestinationName,
    auth: Auth,
    token_url: Url,
    place: String,
    /// Beside those of `auth`: of the proxy and of a gateway.
    others: Vec<Secret>,
    tokens: Mutex<Tokens>,
    /// Grants tried so far: who waited while one was tried shares its outcome.
    tries: AtomicU64,
    /// Whether `Tokens::unkept` holds one, for who must not wait for a grant.
    is_unkept: AtomicBool,
}

#[derive(Debug, Default)]
struct Tokens {
    access: Option<Access>,
    /// From an answer of the password grant.
    refresh: Option<SecretString>,
    /// A refresh token that an answer brought and that is not on disk.
    unkept: Option<Unkept>,
    /// Number of the grant that gave `access`.
    grant: u64,
    /// What became of the last try, if it was refused, and when.
    refusal: Option<(SendError, Instant)>,
    /// The refresh token of the config or the disk when one was tried last.
    refused: Option<SecretString>,
}

/// A refresh token that could not be written, and what is on disk in its place.
#[derive(Debug)]
struct Unkept {
    next: SecretString,
    beside: SecretString,
}

#[derive(Debug)]
struct Access {
    token: SecretString,
    good_until: Instant,
}

pub(super) struct Granted {
    access: Access,
    pub(super) refresh: Option<SecretString>,
}

/// What a caller lends to a grant.
pub(super) struct Line<'a> {
    pub(super) http: &'a HttpClient,
    pub(super) requests: &'a AtomicU64,
    pub(super) now: Timestamp,
}

impl Login {
    pub(super) fn new(
        name: DestinationName,
        auth: Auth,
        token_url: Url,
        place: String,
        others: Vec<Secret>,
    ) -> Self {
        Self {
            name,
            auth,
            token_url,
            place,
            others,
            tokens: Mutex::default(),
            tries: AtomicU64::new(0),
            is_unkept: AtomicBool::new(false),
        }
    }

    /// Whether a fresh token can be had, so that a refused call is worth repeating.
    pub(super) fn can_renew(&self) -> bool {
        !matches!(self.auth, Auth::Basic(_) | Auth::ApiKey(_) | Auth::ClientCertificate)
    }

    /// What a person has to know about this log-in before it fails.
    pub(super) fn concern(&self, now: Timestamp) -> Option<HealthIssue> {
        match &self.auth {
            Auth::RefreshToken(own) if self.is_unkept.load(Ordering::Acquire) => {
                Some(kept::unkept(&own.kept, &self.name))
            }
            Auth::RefreshToken(own) => kept::concern(&own.kept, &self.name, now),
            _ => None,
        }
    }

    /// What shows who we are; asks for a token when there is none that will last the call.
    pub(super) async fn authorization(&self, line: &Line<'_>) -> Result<Authorization, SendError> {
        let fixed = |name, header| Ok(Authorization { name, header, grant: 0 });
        match &self.auth {
            Auth::Basic(own) => return fixed(Some("authorization"), format!("Basic {}", basic::pair(own))),
            Auth::ApiKey(own) => return fixed(Some(api_key::HEADER), own.key.expose().to_owned()),
            Auth::ClientCertificate => return fixed(None, String::new()),
            _ => {}
        }
        let tries_before = self.tries.load(Ordering::Acquire);
        let mut tokens = self.tokens.lock().await;
        if let Some(access) = &tokens.access
            && access.good_until > Instant::now()
        {
            return Ok(bearer(access, tokens.grant));
        }
        if let Some((refusal, at)) = &tokens.refusal {
            let shared = self.tries.load(Ordering::Acquire) != tries_before;
            let verdict = matches!(refusal.status, Some(400 | 401 | 403));
            let soon = verdict && at.elapsed() < REFUSED_FOR && !self.has_another_token(&tokens, line.now);
            if shared || soon {
                return Err(refusal.clone());
            }
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
                tokens.refusal = Some((error.clone(), Instant::now()));
                Err(error)
            }
        }
    }

    /// Whether somebody has logged in anew since the refresh token was refused.
    fn has_another_token(&self, tokens: &Tokens, now: Timestamp) -> bool {
        let (Auth::RefreshToken(own), Some(refused)) = (&self.auth, &tokens.refused) else { return false };
        own.current(now).is_ok_and(|token| !is_same(&token, refused))
    }

    /// The token of that grant was refused: the next call asks for another one. A newer token stays.
    pub(super) async fn refused(&self, grant: u64) {
        let mut tokens = self.tokens.lock().await;
        if tokens.grant == grant {
            tokens.access = None;
        }
    }

    /// Refresh if there is something in memory to refresh with, else (or if that is refused) the grant of the config.
    async fn renew(&self, tokens: &mut Tokens, line: &Line<'_>) -> Result<Access, SendError> {
        if let (Some(token), Some(client)) = (tokens.refresh.take(), self.client()) {
            let form = refresh_token::form(client, token.expose_secret());
            match self.grant(form, refresh_token::CAUSES, line).await {
                Ok(granted) => {
                    // The answer usually echoes the refresh token; where it does not, the old one stays good.
                    tokens.refresh = Some(granted.refresh.unwrap_or(token));
                    return Ok(granted.access);
                }
                Err(error) if error.class == Class::Hold && error.status.is_some() => {}
                Err(error) => {
                    tokens.refresh = Some(token);
                    return Err(error);
                }
            }
        }
        match &self.auth {
            Auth::Password(own) => {
                let form = password::form(&own.username, &own.password, &own.client);
                let granted = self.grant(form, password::CAUSES, line).await?;
                tokens.refresh = granted.refresh;
                Ok(granted.access)
            }
            Auth::ClientCredentials(own) => {
                let granted =
                    self.grant(client_credentials::form(own), client_credentials::CAUSES, line).await?;
                Ok(granted.access)
            }
            Auth::JwtBearer(own) => {
                let endpoint = Endpoint { place: &self.place, causes: jwt_bearer::CAUSES };
                let unsigned = |why: String| {
                    endpoint.hold(None, &format!("private_key: {why}"), "correct private_key, then reload")
                };
                let form = jwt_bearer::form(own, line.now).map_err(unsigned)?;
                Ok(self.grant(form, jwt_bearer::CAUSES, line).await?.access)
            }
            Auth::RefreshToken(own) => self.refresh(own, tokens, line).await.map_err(|error| SendError {
                remedy: error.remedy.replace("login NAME", &format!("login {}", self.name)),
                ..error
            }),
            // These have no grant; `authorization` does not come here.
            Auth::Basic(_) | Auth::ApiKey(_) | Auth::ClientCertificate => {
                Err(Endpoint { place: &self.place, causes: "" }.hold(None, "this log-in has no token", ""))
            }
        }
    }

    /// With the token of the config or what `otrelay login` kept; what comes in its place is kept.
    async fn refresh(
        &self,
        own: &RefreshToken,
        tokens: &mut Tokens,
        line: &Line<'_>,
    ) -> Result<Access, SendError> {
        let endpoint = Endpoint { place: &self.place, causes: refresh_token::CAUSES };
        let current = own.current(line.now).map_err(|why| match why {
            NoToken::None => endpoint.hold(
                None,
                "there is no refresh token yet",
                "otrelay login NAME: it asks for user and password once and keeps only the refresh token",
            ),
            NoToken::Unreadable(what) => endpoint.hold(None, &what, "otrelay login NAME makes it anew"),
        });
        // One that could not be written is the newest, until somebody logs in anew.
        let (token, beside) = match (tokens.unkept.take(), current) {
            (Some(Unkept { next, beside }), Err(_)) => (next, beside),
            (Some(Unkept { next, beside }), Ok(current)) if is_same(&beside, &current) => (next, beside),
            (_, current) => current.map(|token| (token.clone(), token))?,
        };
        let form = refresh_token::form(&own.client, token.expose_secret());
        tokens.refused = Some(beside.clone());
        let granted = match self.grant(form, refresh_token::CAUSES, line).await {
            Ok(granted) => granted,
            Err(error) => {
                // After a verdict what is on disk gets its turn.
                let is_verdict = error.class == Class::Hold && error.status.is_some();
                let is_unkept = !is_verdict && !is_same(&token, &beside);
                self.set_unkept(tokens, is_unkept.then_some(Unkept { next: token, beside }));
                return Err(error);
            }
        };
        tokens.refused = None;
        // The answer usually echoes the refresh token; where it does not, the old one stays good.
        let next = granted.refresh.unwrap_or(token);
        self.set_unkept(tokens, self.keep(own, next, beside, line.now));
        Ok(granted.access)
    }

    fn set_unkept(&self, tokens: &mut Tokens, unkept: Option<Unkept>) {
        self.is_unkept.store(unkept.is_some(), Ordering::Release);
        tokens.unkept = unkept;
    }

    /// Writes a refresh token that is not the one on disk; gives it back where that fails, for the next renewal.
    fn keep(
        &self,
        own: &RefreshToken,
        next: SecretString,
        beside: SecretString,
        now: Timestamp,
    ) -> Option<Unkept> {
        if is_same(&next, &beside) {
            return None;
        }
        let error = own.keep(&next, now).err()?;
        tracing::warn!(
            "the new refresh token of {} could not be kept in {}: {error}; it is tried again at the next renewal",
            self.place,
            own.kept.display()
        );
        Some(Unkept { next, beside })
    }

    fn client(&self) -> Option<&Client> {
        match &self.auth {
            Auth::Password(own) => Some(&own.client),
            Auth::RefreshToken(own) => Some(&own.client),
            _ => None,
        }
    }

    /// One user's name and password for a refresh token: what `otrelay login` does.
    pub(super) async fn first(
        &self,
        username: &str,
        password: &Secret,
        line: &Line<'_>,
    ) -> Result<Granted, SendError> {
        let Some(client) = self.client() else {
            let endpoint = Endpoint { place: &self.place, causes: "" };
            return Err(endpoint.hold(None, "this log-in has no refresh token", ""));
        };
        self.grant(password::form(username, password, client), password::CAUSES, line).await
    }

    /// Posts a form.
    async fn grant(&self, form: Form, causes: &'static str, line: &Line<'_>) -> Result<Granted, SendError> {
        let endpoint = Endpoint { place: &self.place, causes };
        let request = Request {
            method: Method::Post,
            url: self.token_url.clone(),
            headers: vec![
                ("accept", "application/json".to_owned()),
                ("content-type", "application/x-www-form-urlencoded".to_owned()),
            ],
            body: Some(form.finish()),
            answer_max: ANSWER_MAX,
        };
        line.requests.fetch_add(1, Ordering::Relaxed);
        let asked_at = Instant::now();
        // An assertion is good once; any other form gives the same when it is posted twice.
        let is_once = matches!(self.auth, Auth::JwtBearer(_));
        let answer =
            if is_once { line.http.send(request).await } else { line.http.send_repeatable(request).await };
        let answer = answer.map_err(|e| endpoint.no_answer(&e))?;
        let parsed = endpoint.read(&answer, line.now)?;
        let lifetime = lifetime(parsed.expires_in_secs());
        let token = parsed.access_token.filter(|t| is_token(t)).ok_or_else(|| {
            endpoint.hold(answer.status, "it answered without a usable access token", answer::ODD)
        })?;
        Ok(Granted {
            access: Access { token: SecretString::from(token), good_until: asked_at + lifetime },
            refresh: parsed.refresh_token.filter(|t| is_token(t)).map(SecretString::from),
        })
    }

    /// What to look at when a call is refused although we logged in.
    pub(super) fn refused_call_remedy(&self) -> &'static str {
        match self.auth {
            Auth::Basic(_) => basic::REFUSED,
            Auth::ApiKey(_) => api_key::REFUSED,
            Auth::ClientCertificate => client_certificate::REFUSED,
            _ => {
                "the instance gave a token and then refused it: check the scope restriction of the OAuth registry record \
                 (Securely scoped allows no Table API; it must be Broadly scoped or have an API access policy), the \
                 REST API access policies, and that the user is active"
            }
        }
    }

    /// What to look at when the instance says that the token's scope is too small; `None`: it does not say that.
    pub(super) fn scope_remedy(message: &str) -> Option<&'static str> {
        let words = ["unscoped api", "api access scope"];
        let lower = message.to_ascii_lowercase();
        words.iter().any(|said| lower.contains(said)).then_some(
            "not the user's roles but the OAuth registry record is the cause: its scope restriction is Securely scoped, which \
             allows no Table API; make it Broadly scoped, or give it a REST API auth scope with an access policy",
        )
    }

    /// Takes our secrets out of texts that quote the other side, in case it quoted us: of a whole answer before its words
    /// are cut, and of what was made of it.
    pub(super) fn scrubber(&self, authorization: &Authorization) -> Scrubber {
        let token = authorization.header.split_once(' ').map_or(&*authorization.header, |(_, token)| token);
        let known = self.auth.secrets().into_iter().chain(&self.others).map(Secret::expose);
        Scrubber::new(known.chain([token]))
    }
}

fn bearer(access: &Access, grant: u64) -> Authorization {
    let header = format!("Bearer {}", access.token.expose_secret());
    Authorization { name: Some("authorization"), header, grant }
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
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
