//! Who is calling: the token endpoint, bearer tokens, basic authentication, API keys, client certificates.
//!
//! Every refusal of the token endpoint has the same status and body, as on an instance; the reason stands nowhere.
//! Passwords, client secrets and API keys are compared in constant time, tokens by their SHA-256.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hyper::Method;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use super::call::{Answer, Call, Params};
use super::instance::{Instance, User};
use crate::model::Timestamp;
use crate::model::der::Der;

/// 100 days, as delivered.
const REFRESH_LIFETIME: Duration = Duration::from_hours(100 * 24);

/// Most tokens and used JWT ids that are remembered.
const MAX_TOKENS: usize = 10_000;

type Digest = [u8; 32];

#[derive(Clone, Debug)]
struct Token {
    user: String,
    client: String,
    expires_at: Timestamp,
}

#[derive(Debug, Default)]
pub(super) struct Tokens {
    access: HashMap<Digest, Token>,
    refresh: HashMap<Digest, Token>,
    /// (grant, client, user) to the access and refresh token that a repeated grant gives again.
    current: HashMap<(&'static str, String, String), (String, String)>,
    used_ids: HashSet<String>,
}

impl Tokens {
    /// Takes all access tokens back; refresh tokens stay.
    pub(super) fn revoke_access(&mut self) {
        self.access.clear();
    }

    /// Takes all refresh tokens back.
    pub(super) fn revoke_refresh(&mut self) {
        self.refresh.clear();
        self.current.clear();
    }

    /// Access tokens that are known, expired or not.
    pub(super) fn count(&self) -> usize {
        self.access.len()
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.access.len() + self.refresh.len() > MAX_TOKENS {
            self.access.retain(|_, t| t.expires_at > now);
            self.refresh.retain(|_, t| t.expires_at > now);
        }
        if self.access.len() + self.refresh.len() + self.current.len() + self.used_ids.len() > 4 * MAX_TOKENS
        {
            *self = Self::default();
        }
    }
}

fn digest(token: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// Equal, told in a time that does not depend on where they differ.
fn equal(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

impl Instance {
    /// `/oauth_token.do`.
    pub(super) fn oauth_token(&mut self, call: &Call) -> Answer {
        self.grant(call).unwrap_or_else(|| {
            Answer::json(401, &json!({"error_description": "access_denied", "error": "server_error"}))
        })
    }

    fn grant(&mut self, call: &Call) -> Option<Answer> {
        let form = call.content_type().as_deref() == Some("application/x-www-form-urlencoded");
        let in_url = ["grant_type", "client_id", "client_secret", "username", "password", "refresh_token"];
        if call.method != Method::POST || !form || in_url.iter().any(|p| call.params.get(p).is_some()) {
            return None;
        }
        let body = Params::parse(std::str::from_utf8(&call.body).ok()?);
        match body.get("grant_type")? {
            "password" => {
                let client = self.client(call, &body, true)?;
                if self.property("glide.oauth.inbound.ropc.grant_type.disabled") == Some("true") {
                    return None;
                }
                let user = self.login(body.get("username")?, body.get("password")?)?;
                self.issue("password", &client, &user, true)
            }
            "refresh_token" => {
                let client = self.client(call, &body, true)?;
                let text = body.get("refresh_token")?;
                let token = self.tokens.refresh.get(&digest(text))?.clone();
                if token.client != client || token.expires_at <= self.clock.now() {
                    return None;
                }
                let user = self.user(&token.user)?;
                let access = self.new_access(&client, &user)?;
                let text =
                    if self.options.rotate_refresh { self.rotate(text, &token)? } else { text.to_owned() };
                let current = ("password", client, user.name);
                if let Some(pair) = self.tokens.current.get_mut(&current) {
                    *pair = (access.clone(), text.clone());
                }
                Some(self.granted(&access, Some(&text)))
            }
            "client_credentials" => {
                let client = self.client(call, &body, false)?;
                let on = "glide.oauth.inbound.client.credential.grant_type.enabled";
                if self.property(on) != Some("true") {
                    return None;
                }
                let user = self.user(&self.options.user.clone())?;
                self.issue("client_credentials", &client, &user, false)
            }
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => self.jwt_bearer(call, &body),
            _ => None,
        }
    }

    /// A new refresh token in the place of an old one.
    fn rotate(&mut self, old: &str, token: &Token) -> Option<String> {
        let next = random_token()?;
        self.tokens.refresh.remove(&digest(old));
        let expires_at = self.clock.now().after(REFRESH_LIFETIME);
        self.tokens.refresh.insert(digest(&next), Token { expires_at, ..token.clone() });
        Some(next)
    }

    /// Checks the shape and the claims of the assertion, and its signature where the simulator was given keys.
    fn jwt_bearer(&mut self, call: &Call, body: &Params) -> Option<Answer> {
        let mut parts = body.get("assertion")?.split('.');
        let (header, claims, signature) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || URL_SAFE_NO_PAD.decode(signature).ok()?.is_empty() {
            return None;
        }
        let read = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let (header, claims) = (read(header)?, read(claims)?);
        let known = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];
        let algorithm = header.get("alg")?.as_str()?;
        if !known.contains(&algorithm) || !self.signed(body.get("assertion")?, algorithm) {
            return None;
        }
        let claim = |name: &str| claims.get(name).and_then(Value::as_str);
        let client = claim("aud")?.to_owned();
        let given = body.get("client_id").is_some() || call.header("authorization").is_some();
        if given && self.client(call, body, true)? != client || !self.has_client(&client) {
            return None;
        }
        let expires = claims.get("exp").and_then(Value::as_i64)?;
        let id = claim("jti")?.to_owned();
        if claim("iss")? != client
            || expires <= self.clock.now().as_secs()
            || !self.tokens.used_ids.insert(id)
        {
            return None;
        }
        let user = self.user(claim("sub")?)?;
        self.issue("jwt", &client, &user, false)
    }

    /// Whether one of the registered keys made the signature; without keys each one will do.
    fn signed(&self, assertion: &str, algorithm: &str) -> bool {
        let verifier: &dyn VerificationAlgorithm = match algorithm {
            "RS256" => &RSA_PKCS1_2048_8192_SHA256,
            "RS384" => &RSA_PKCS1_2048_8192_SHA384,
            "RS512" => &RSA_PKCS1_2048_8192_SHA512,
            "ES256" => &ECDSA_P256_SHA256_FIXED,
            "ES384" => &ECDSA_P384_SHA384_FIXED,
            _ => return self.options.jwt_keys.is_empty(),
        };
        let Some((text, signature)) = assertion.rsplit_once('.') else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let fits = |pem: &String| {
            let key = public_key(pem)?;
            UnparsedPublicKey::new(verifier, key).verify(text.as_bytes(), &signature).ok()
        };
        self.options.jwt_keys.is_empty() || self.options.jwt_keys.iter().any(|pem| fits(pem).is_some())
    }

    /// The client, if its id and secret are right; from the form, or from `Authorization` where that is allowed.
    fn client(&self, call: &Call, body: &Params, basic: bool) -> Option<String> {
        let (id, secret) = match (body.get("client_id"), body.get("client_secret")) {
            (Some(id), Some(secret)) => (id.to_owned(), secret.to_owned()),
            _ if basic => basic_of(call)?,
            _ => return None,
        };
        let mut right = false;
        for (known, its) in &self.options.clients {
            right |= equal(known, &id) & equal(its.expose(), &secret);
        }
        right.then_some(id)
    }

    fn has_client(&self, id: &str) -> bool {
        self.options.clients.iter().any(|(known, _)| known == id)
    }

    fn login(&self, name: &str, password: &str) -> Option<User> {
        let right = equal(name, &self.options.user) & equal(password, self.options.password.expose());
        right.then(|| self.user(name)).flatten()
    }

    /// Gives the token that lives, or a new one.
    fn issue(&mut self, grant: &'static str, client: &str, user: &User, refresh: bool) -> Option<Answer> {
        let now = self.clock.now();
        self.tokens.make_room(now);
        let key = (grant, client.to_owned(), user.name.clone());
        let (mut access, mut again) = self.tokens.current.get(&key).cloned().unwrap_or_default();
        if self.tokens.access.get(&digest(&access)).is_none_or(|t| t.expires_at <= now) {
            access = self.new_access(client, user)?;
        }
        if refresh {
            if self.tokens.refresh.get(&digest(&again)).is_none_or(|t| t.expires_at <= now) {
                again = random_token()?;
            }
            let expires_at = now.after(REFRESH_LIFETIME);
            let token = Token { user: user.name.clone(), client: client.to_owned(), expires_at };
            self.tokens.refresh.insert(digest(&again), token);
        }
        self.tokens.current.insert(key, (access.clone(), again.clone()));
        Some(self.granted(&access, refresh.then_some(again.as_str())))
    }

    fn new_access(&mut self, client: &str, user: &User) -> Option<String> {
        let text = random_token()?;
        let expires_at = self.clock.now().after(self.options.token_lifetime);
        let token = Token { user: user.name.clone(), client: client.to_owned(), expires_at };
        self.tokens.access.insert(digest(&text), token);
        Some(text)
    }

    fn granted(&self, access: &str, refresh: Option<&str>) -> Answer {
        let left = self.tokens.access.get(&digest(access)).map(|t| t.expires_at.since(self.clock.now()));
        let mut body = json!({
            "access_token": access,
            "scope": "useraccount",
            "token_type": "Bearer",
            "expires_in": left.unwrap_or_default().as_millis().div_ceil(1000) as u64,
        });
        if let Some(refresh) = refresh {
            body["refresh_token"] = json!(refresh);
        }
        Answer::json(200, &body)
    }

    /// `/oauth_revoke_token.do?token=…`: needs no authentication.
    pub(super) fn oauth_revoke(&mut self, call: &Call) -> Answer {
        let body = Params::parse(std::str::from_utf8(&call.body).unwrap_or_default());
        if let Some(token) = call.params.get("token").or_else(|| body.get("token")) {
            let key = digest(token);
            self.tokens.access.remove(&key);
            self.tokens.refresh.remove(&key);
        }
        Answer::empty(200)
    }

    /// Who makes this call, or the 401 for it.
    pub(super) fn authenticate(&self, call: &Call) -> Result<User, Answer> {
        self.who(call).ok_or_else(|| {
            if call.header("x-sn-apikey").is_some() {
                let detail = "Required to provide Auth information";
                return Answer::error(401, "User is not authenticated", Some(detail));
            }
            Answer::unauthenticated()
        })
    }

    fn who(&self, call: &Call) -> Option<User> {
        if let Some(given) = call.header("x-sn-apikey").or_else(|| call.params.get("x-sn-apikey")) {
            let key = self.options.api_key.as_ref()?;
            return equal(key.expose(), given).then(|| self.user(&self.options.user)).flatten();
        }
        let Some(given) = call.header("authorization") else {
            return call.certified.then(|| self.user(&self.options.user)).flatten();
        };
        let (scheme, token) = given.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            let token = self.tokens.access.get(&digest(token.trim()))?;
            return (token.expires_at > self.clock.now()).then(|| self.user(&token.user)).flatten();
        }
        if self.property("glide.authenticate.basic_auth.restriction.enforce") == Some("true") {
            return None;
        }
        let (name, password) = basic_of(call)?;
        self.login(&name, &password)
    }
}

/// The bits of a `PUBLIC KEY`: what stands in the last element, behind a byte that counts unused bits.
fn public_key(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).ok()?;
    let mut info = Der(&der).enter(0x30)?;
    info.take(0x30)?;
    Some(info.take(0x03)?.strip_prefix(&[0])?.to_vec())
}

fn basic_of(call: &Call) -> Option<(String, String)> {
    let (scheme, text) = call.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// 66 characters that nobody guesses.
fn random_token() -> Option<String> {
    let mut bytes = [0; 48];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).ok()?;
    Some(format!("{}_s", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::trial::Trial;
    use super::*;
    use crate::model::Secret;

    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    const PASSWORD: &str =
        "grant_type=password&client_id=otrelay&client_secret=otrelay&username=admin&password=admin";

    fn token(trial: &mut Trial, form: &str) -> Value {
        let answer = trial.raw("POST", "/oauth_token.do", &[FORM], form);
        let body = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 200, "{form}: {body}");
        body
    }

    fn bearer(trial: &mut Trial, token: &Value) -> u16 {
        let login = format!("Bearer {}", token.as_str().unwrap());
        let headers = [("authorization", login.as_str()), ("accept", "*/*")];
        trial.raw("GET", "/api/now/table/incident", &headers, "").status
    }

    fn check_refused(trial: &mut Trial, target: &str, headers: &[(&str, &str)], form: &str) {
        let answer = trial.raw("POST", target, headers, form);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer.status, 401, "{target} {form}");
        assert_eq!(body, json!({"error_description": "access_denied", "error": "server_error"}));
    }

    #[test]
    fn the_password_grant_repeats_its_token_until_it_ends() {
        let mut trial = Trial::new();
        let first = token(&mut trial, PASSWORD);
        assert_eq!((&first["expires_in"], &first["token_type"]), (&json!(1799), &json!("Bearer")));
        assert_eq!(bearer(&mut trial, &first["access_token"]), 200);
        trial.wait(1000);
        let second = token(&mut trial, PASSWORD);
        assert_eq!(second["access_token"], first["access_token"]);
        assert_eq!((&second["expires_in"], &second["refresh_token"]), (&json!(799), &first["refresh_token"]));
        trial.wait(799);
        assert_eq!(bearer(&mut trial, &first["access_token"]), 401);
        assert_ne!(token(&mut trial, PASSWORD)["access_token"], first["access_token"]);
    }

    #[test]
    fn a_refresh_echoes_the_refresh_token_and_it_dies_after_100_days() {
        let mut trial = Trial::new();
        let first = token(&mut trial, PASSWORD);
        let text = first["refresh_token"].as_str().unwrap();
        let form =
            format!("grant_type=refresh_token&client_id=otrelay&client_secret=otrelay&refresh_token={text}");
        trial.wait(99 * 86_400);
        let second = token(&mut trial, &form);
        assert_eq!(second["refresh_token"], first["refresh_token"]);
        assert_ne!(second["access_token"], first["access_token"]);
        assert_eq!(token(&mut trial, PASSWORD)["access_token"], second["access_token"]);
        // The password grant has moved the end of the refresh token; a refresh does not.
        trial.wait(99 * 86_400);
        token(&mut trial, &form);
        trial.wait(86_400);
        check_refused(&mut trial, "/oauth_token.do", &[FORM], &form);
    }

    #[test]
    fn every_refusal_looks_the_same() {
        let mut trial = Trial::new();
        for form in [
            "",
            "grant_type=magic&client_id=otrelay&client_secret=otrelay",
            "grant_type=password&client_id=otrelay&client_secret=wrong&username=admin&password=admin",
            "grant_type=password&client_id=otrelay&client_secret=otrelay&username=admin&password=wrong",
            "grant_type=password&client_id=otrelay&client_secret=otrelay&username=abel.tuter&password=admin",
            "grant_type=refresh_token&client_id=otrelay&client_secret=otrelay&refresh_token=old",
            "grant_type=client_credentials&client_id=otrelay&client_secret=wrong",
            "grant_type=client_credentials&client_id=otrelay",
        ] {
            check_refused(&mut trial, "/oauth_token.do", &[FORM], form);
        }
        check_refused(&mut trial, &format!("/oauth_token.do?{PASSWORD}"), &[FORM], "");
        check_refused(&mut trial, "/oauth_token.do", &[("content-type", "application/json")], PASSWORD);
    }

    #[test]
    fn client_credentials_have_no_refresh_token_and_a_switch() {
        let mut trial = Trial::new();
        let form = "grant_type=client_credentials&client_id=otrelay&client_secret=otrelay";
        let got = token(&mut trial, form);
        assert_eq!(got.get("refresh_token"), None);
        assert_eq!(bearer(&mut trial, &got["access_token"]), 200);
        let off = "glide.oauth.inbound.client.credential.grant_type.enabled".to_owned();
        let properties = vec![(off, "false".to_owned())];
        let mut trial = Trial::with(Options { properties, ..Options::default() });
        check_refused(&mut trial, "/oauth_token.do", &[FORM], form);
    }

    #[test]
    fn the_client_may_come_as_basic() {
        let mut trial = Trial::new();
        let login = format!("Basic {}", STANDARD.encode("otrelay:otrelay"));
        let headers = [FORM, ("authorization", login.as_str())];
        let form = "grant_type=password&username=admin&password=admin";
        assert_eq!(trial.raw("POST", "/oauth_token.do", &headers, form).status, 200);
        check_refused(&mut trial, "/oauth_token.do", &headers, "grant_type=client_credentials");
    }

    #[test]
    fn an_assertion_is_judged_by_its_claims_and_used_once() {
        let mut trial = Trial::new();
        let now = trial.clock_secs();
        let jwt = |claims: &Value| {
            let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
            let head = part(&json!({"alg": "RS256", "kid": "k"}));
            let grant = "grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer";
            format!("{grant}&assertion={head}.{}.c2ln", part(claims))
        };
        let good = json!({"aud": "otrelay", "iss": "otrelay", "sub": "admin", "exp": now + 60, "jti": "1"});
        let got = token(&mut trial, &jwt(&good));
        assert_eq!(got.get("refresh_token"), None);
        assert_eq!(bearer(&mut trial, &got["access_token"]), 200);
        check_refused(&mut trial, "/oauth_token.do", &[FORM], &jwt(&good));
        for (claim, value) in [
            ("aud", json!("x")),
            ("iss", json!("x")),
            ("sub", json!("x")),
            ("exp", json!(now)),
            ("jti", json!(2)),
        ] {
            let mut bad = good.clone();
            bad["jti"] = json!(claim);
            bad[claim] = value;
            check_refused(&mut trial, "/oauth_token.do", &[FORM], &jwt(&bad));
        }
        check_refused(&mut trial, "/oauth_token.do", &[FORM], &format!("{}&client_id=otrelay", jwt(&good)));
    }

    /// A signature by a key that was registered, made by OpenSSL, and what it is worth with another key or another text.
    #[test]
    fn an_assertion_has_to_be_signed_by_a_known_key() {
        let key = |pem: &str| vec![pem.to_owned()];
        let (rsa, ec) = (
            key(include_str!("../../tests/fixtures/tls/jwt-rsa.pub.pem")),
            key(include_str!("../../tests/fixtures/tls/jwt-ec.pub.pem")),
        );
        let signed = include_str!("../../tests/fixtures/tls/signed.jwt").trim();
        let check = |keys: Vec<String>, assertion: &str, expected: bool| {
            let trial = Trial::with(Options { jwt_keys: keys, ..Options::default() });
            assert_eq!(trial.instance.signed(assertion, "RS256"), expected, "{assertion}");
        };
        check(rsa.clone(), signed, true);
        check(Vec::new(), "e30.e30.AA", true);
        check(ec, signed, false);
        check(rsa.clone(), &format!("x{signed}"), false);
        check(rsa.clone(), "e30.e30.AA", false);
        check(rsa, "none", false);
    }

    #[test]
    fn a_refresh_may_give_another_refresh_token() {
        let mut trial = Trial::with(Options { rotate_refresh: true, ..Options::default() });
        let first = token(&mut trial, PASSWORD);
        let form = |token: &Value| {
            let text = token["refresh_token"].as_str().unwrap();
            format!("grant_type=refresh_token&client_id=otrelay&client_secret=otrelay&refresh_token={text}")
        };
        let second = token(&mut trial, &form(&first));
        assert_ne!(second["refresh_token"], first["refresh_token"]);
        check_refused(&mut trial, "/oauth_token.do", &[FORM], &form(&first));
        token(&mut trial, &form(&second));
        trial.instance.tokens.revoke_refresh();
        check_refused(&mut trial, "/oauth_token.do", &[FORM], &form(&second));
    }

    #[test]
    fn a_revoked_token_is_gone() {
        let mut trial = Trial::new();
        let got = token(&mut trial, PASSWORD);
        let target = format!("/oauth_revoke_token.do?token={}", got["access_token"].as_str().unwrap());
        assert_eq!(trial.raw("GET", &target, &[], "").status, 200);
        assert_eq!(bearer(&mut trial, &got["access_token"]), 401);
        let again = token(&mut trial, PASSWORD);
        assert_eq!(bearer(&mut trial, &again["access_token"]), 200);
        trial.instance.tokens.revoke_access();
        assert_eq!(bearer(&mut trial, &again["access_token"]), 401);
    }

    #[test]
    fn other_ways_to_log_in() {
        let key = Some(Secret::new("test", "k-1"));
        let mut trial = Trial::with(Options { api_key: key, ..Options::default() });
        let mut check = |login: &[(&str, &str)], target: &str, expected: u16| {
            let headers: Vec<_> = login.iter().copied().chain([("accept", "application/json")]).collect();
            assert_eq!(trial.raw("GET", target, &headers, "").status, expected, "{login:?} {target}");
        };
        let path = "/api/now/table/incident";
        check(&[], path, 401);
        check(&[("x-sn-apikey", "k-1")], path, 200);
        check(&[("x-sn-apikey", "k-2")], path, 401);
        check(&[], &format!("{path}?x-sn-apikey=k-1"), 200);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        check(&[("authorization", &basic("admin:admin"))], path, 200);
        check(&[("authorization", &basic("admin:x"))], path, 401);
        check(&[("authorization", "Bearer x")], path, 401);
        check(&[("authorization", "Basic !")], path, 401);
    }

    #[test]
    fn basic_authentication_can_be_switched_off() {
        let switch = "glide.authenticate.basic_auth.restriction.enforce".to_owned();
        let properties = vec![(switch, "true".to_owned())];
        let mut trial = Trial::with(Options { properties, ..Options::default() });
        let (status, answer) = trial.call("GET", "/api/now/table/incident", &Value::Null);
        let error =
            json!({"message": "User Not Authenticated", "detail": "Required to provide Auth information"});
        assert_eq!((status, &answer["error"]), (401, &error));
    }
}
