//! OAuth JWT bearer: an assertion signed with a private key (RS256, ES256 or ES384 by the kind of key) for a token. No
//! password, no refresh token. Each assertion has an id of its own, since the instance takes each once.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::json;

use super::Form;
use crate::model::der::{BIT_STRING, Der, INTEGER, OBJECT, OCTET_STRING, SEQUENCE};
use crate::model::{Secret, Timestamp, alert::hex};
use crate::net::pem;

/// How far an assertion's beginning is put back, for a clock there that is behind; seconds.
const BACK: i64 = 10;
/// How long it may be used, seconds. Short: it is used at once.
const GOOD_FOR: i64 = 290;

/// `auth = "jwt-bearer"`.
#[derive(Clone, Debug)]
pub struct JwtBearer {
    /// Client id of the OAuth registry record.
    pub client_id: String,
    /// Its secret; a public client has none.
    pub client_secret: Option<Secret>,
    /// The key that signs, PEM.
    pub private_key: Secret,
    /// The user to act as: what the record's user field holds.
    pub subject: String,
    /// Which of the record's verifiers to use.
    pub key_id: Option<String>,
}

/// A key that can sign.
enum Key {
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
}

/// Whether the key can sign; the error says why not, without anything of the key. An empty one is not looked at: it
/// stands for a credential that only the service is given.
pub(super) fn check(own: &JwtBearer) -> Result<(), String> {
    if own.private_key.expose().is_empty() { Ok(()) } else { key(&own.private_key).map(drop) }
}

pub(super) fn form(own: &JwtBearer, now: Timestamp) -> Result<Form, String> {
    let mut form = Form::new("urn:ietf:params:oauth:grant-type:jwt-bearer");
    form.add("assertion", &assertion(own, now)?);
    // A public client shows neither; its id stands in the assertion.
    if let Some(secret) = &own.client_secret {
        form.add("client_id", &own.client_id).add("client_secret", secret.expose());
    }
    Ok(form)
}

fn assertion(own: &JwtBearer, now: Timestamp) -> Result<String, String> {
    let (key, random) = (key(&own.private_key)?, SystemRandom::new());
    let no_chance = |_| "this machine gives no random numbers".to_owned();
    let mut id = [0; 16];
    random.fill(&mut id).map_err(no_chance)?;
    let algorithm = match &key {
        Key::Rsa(_) => "RS256",
        Key::P256(_) => "ES256",
        Key::P384(_) => "ES384",
    };
    let mut head = json!({ "alg": algorithm, "typ": "JWT" });
    if let Some(id) = &own.key_id {
        head["kid"] = json!(id);
    }
    let issued = now.as_secs() - BACK;
    let claims = json!({
        "aud": own.client_id, "iss": own.client_id, "sub": own.subject, "jti": hex(&id),
        "iat": issued, "exp": issued + BACK + GOOD_FOR,
    });
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = match &key {
        Key::Rsa(pair) => {
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).map_err(no_chance)?;
            signature
        }
        Key::P256(pair) | Key::P384(pair) => {
            pair.sign(&random, text.as_bytes()).map_err(no_chance)?.as_ref().to_vec()
        }
    };
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Reads PKCS #8, PKCS #1 and SEC 1.
fn key(secret: &Secret) -> Result<Key, String> {
    let blocks = pem::blocks(secret.expose().as_bytes()).map_err(|e| e.to_string())?;
    for block in &blocks {
        let rsa = |pair: Result<RsaKeyPair, ring::error::KeyRejected>| {
            pair.map(|pair| Key::Rsa(Box::new(pair)))
                .map_err(|e| format!("the RSA key was refused ({e}); expected 2048 to 4096 bits"))
        };
        match block.label.as_str() {
            "PRIVATE KEY" if is_rsa(&block.der) => return rsa(RsaKeyPair::from_pkcs8(&block.der)),
            "RSA PRIVATE KEY" => return rsa(RsaKeyPair::from_der(&block.der)),
            "PRIVATE KEY" | "EC PRIVATE KEY" => {
                return elliptic(&block.der)
                    .ok_or_else(|| "it is neither RSA nor ECDSA on P-256 or P-384".to_owned());
            }
            "ENCRYPTED PRIVATE KEY" => {
                return Err("the key is encrypted, and nobody is there to type its password; openssl pkey -in FILE -out FILE2 \
                            decrypts it"
                    .to_owned());
            }
            _ => {}
        }
    }
    Err("it holds no private key; expected PEM with -----BEGIN PRIVATE KEY-----".to_owned())
}

/// The content of a PKCS #8 key.
struct Pkcs8<'a> {
    algorithm: &'a [u8],
    curve: Option<&'a [u8]>,
    key: &'a [u8],
}

fn pkcs8(der: &[u8]) -> Option<Pkcs8<'_>> {
    let mut key = Der(der).enter(SEQUENCE)?;
    key.take(INTEGER)?;
    let mut algorithm = key.enter(SEQUENCE)?;
    let (algorithm, curve) = (algorithm.take(OBJECT)?, algorithm.take(OBJECT));
    Some(Pkcs8 { algorithm, curve, key: key.take(OCTET_STRING)? })
}

fn is_rsa(der: &[u8]) -> bool {
    pkcs8(der).is_some_and(|key| key.algorithm == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1])
}

/// Both forms hold the same inside; the library wants the public half as well, which OpenSSL always writes.
fn elliptic(der: &[u8]) -> Option<Key> {
    let (curve, inner) = match pkcs8(der) {
        Some(outer) => (outer.curve, outer.key),
        None => (None, der),
    };
    let mut key = Der(inner).enter(SEQUENCE)?;
    key.take(INTEGER)?;
    let private = key.take(OCTET_STRING)?;
    let named = key.enter(0xa0).and_then(|mut named| named.take(OBJECT));
    let public = key.enter(0xa1)?.take(BIT_STRING)?.strip_prefix(&[0])?;
    let random = SystemRandom::new();
    match curve.or(named)? {
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => {
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                private,
                public,
                &random,
            );
            pair.ok().map(Key::P256)
        }
        [0x2b, 0x81, 4, 0, 0x22] => {
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                private,
                public,
                &random,
            );
            pair.ok().map(Key::P384)
        }
        _ => None,
    }
}

pub(super) const CAUSES: &str = "the instance does not say why; on it, check in this order: client_id (and client_secret, where the record \
    wants one) of the OAuth registry record, and that the record is active; the record's JWT verifier: the certificate of \
    this key, and key_id where it has several; that subject is what the record's user field holds, and that this user is \
    active; the clock of this machine (timedatectl): the assertion is good for five minutes; after a clone of the instance \
    the record may be gone. The reason stands in its system log";

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn bearer(pem: &str) -> JwtBearer {
        JwtBearer {
            client_id: "id".to_owned(),
            client_secret: None,
            private_key: Secret::new("test", pem),
            subject: "relay".to_owned(),
            key_id: Some("kid-1".to_owned()),
        }
    }

    /// The key bits of a `PUBLIC KEY`.
    fn public(pem: &str) -> Vec<u8> {
        let der = pem::blocks(pem.as_bytes()).unwrap().remove(0).der;
        let mut info = Der(&der).enter(SEQUENCE).unwrap();
        info.take(SEQUENCE).unwrap();
        info.take(BIT_STRING).unwrap()[1..].to_vec()
    }

    #[test]
    fn each_form_of_a_key_signs_what_its_public_half_verifies() {
        let rsa = public(include_str!("../../../tests/fixtures/tls/jwt-rsa.pub.pem"));
        let ec = public(include_str!("../../../tests/fixtures/tls/jwt-ec.pub.pem"));
        for (pem, algorithm) in [
            (include_str!("../../../tests/fixtures/tls/jwt-rsa.key"), "RS256"),
            (include_str!("../../../tests/fixtures/tls/jwt-rsa-pkcs1.key"), "RS256"),
            (include_str!("../../../tests/fixtures/tls/jwt-ec.key"), "ES256"),
            (include_str!("../../../tests/fixtures/tls/jwt-ec-sec1.key"), "ES256"),
        ] {
            let now = Timestamp::from_secs(1_795_248_900);
            let jwt = assertion(&bearer(pem), now).unwrap();
            let (text, signature) = jwt.rsplit_once('.').unwrap();
            let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
            let verified = match algorithm {
                "RS256" => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &rsa)
                    .verify(text.as_bytes(), &signature),
                _ => {
                    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &ec).verify(text.as_bytes(), &signature)
                }
            };
            assert!(verified.is_ok(), "{algorithm}");
            let part = |n| -> Value {
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text.split('.').nth(n).unwrap()).unwrap())
                    .unwrap()
            };
            assert_eq!(part(0), json!({ "alg": algorithm, "typ": "JWT", "kid": "kid-1" }));
            let mut claims = part(1);
            let id = claims.as_object_mut().unwrap().remove("jti").unwrap();
            assert_eq!(id.as_str().unwrap().len(), 32);
            let expected = json!({ "aud": "id", "iss": "id", "sub": "relay", "iat": 1_795_248_890, "exp": 1_795_249_190 });
            assert_eq!(claims, expected);
            assert_ne!(assertion(&bearer(pem), now).unwrap(), jwt, "an id is used once");
        }
    }

    #[test]
    fn keys_that_cannot_sign_are_named() {
        let wrong = |pem: &str, words: &str| {
            let error = check(&bearer(pem)).unwrap_err();
            assert!(error.contains(words) && !error.contains("canary"), "{error}");
        };
        wrong("canary", "it holds no private key");
        wrong(include_str!("../../../tests/fixtures/tls/jwt-ec.pub.pem"), "it holds no private key");
        wrong("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "neither RSA nor ECDSA");
        wrong("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", "RSA key was refused");
        wrong(
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
            "encrypted",
        );
        assert!(check(&bearer("")).is_ok());
    }
}
