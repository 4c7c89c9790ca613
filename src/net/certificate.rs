//! What a person wants to know of a certificate: who it is, who signed it, and whether its key is of a kind that this
//! program can use. Looks only, verifies nothing. Pure.

use crate::model::Timestamp;
use crate::model::der::{BIT_STRING, Der, INTEGER, OBJECT, SEQUENCE};
use crate::model::text::{clip, one_line};

/// Longest name that is shown, in bytes.
const NAME_MAX: usize = 100;
/// Least and most bits of an RSA key that can be used.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// A certificate, as far as it concerns a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Common name, else organisation, else empty.
    pub(super) subject: String,
    pub(super) issuer: String,
    /// The issuer's name as it is in the certificate.
    pub(super) issuer_raw: Vec<u8>,
    /// When its time is over.
    pub(super) ends_at: Option<Timestamp>,
    /// Whether it names itself as its issuer.
    pub(super) self_issued: bool,
    /// Whether it has the names that count, `subjectAltName`.
    pub(super) has_names: bool,
    /// Why its key cannot be used, in words.
    pub(super) weak_key: Option<String>,
    /// Why its signature cannot be checked.
    pub(super) weak_signature: Option<&'static str>,
}

impl Look {
    /// Reads it; `None` when it is no certificate.
    pub(super) fn at(certificate: &[u8]) -> Option<Self> {
        let mut outer = Der(certificate).enter(SEQUENCE)?;
        let mut body = outer.enter(SEQUENCE)?;
        let signature = outer.enter(SEQUENCE)?.take(OBJECT)?;
        body.take(0xa0);
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        let issuer = body.take(SEQUENCE)?;
        let ends_at = ends_at(body.take(SEQUENCE)?);
        let subject = body.take(SEQUENCE)?;
        let key = body.take(SEQUENCE)?;
        let mut has_names = false;
        while let Some((tag, content)) = body.element() {
            if tag == 0xa3 {
                has_names = extensions(content).any(|id| id == ALTERNATIVE_NAME);
            }
        }
        Some(Self {
            subject: name(subject),
            issuer: name(issuer),
            issuer_raw: issuer.to_vec(),
            ends_at,
            self_issued: subject == issuer,
            has_names,
            weak_key: weak_key(key),
            weak_signature: weak_signature(signature),
        })
    }
}

/// The second date of a validity: `YYMMDDhhmmssZ` (years 1950 to 2049) or `YYYYMMDDhhmmssZ`.
fn ends_at(validity: &[u8]) -> Option<Timestamp> {
    let mut dates = Der(validity);
    dates.element()?;
    let (tag, text) = dates.element()?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        0x17 if text.get(..2)? < "50" => format!("20{text}"),
        0x17 => format!("19{text}"),
        _ => text.to_owned(),
    };
    let at = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", text).ok()?;
    Some(Timestamp::from_secs(jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?.as_second()))
}

fn extensions(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut list = Der(content).enter(SEQUENCE);
    std::iter::from_fn(move || Some(list.as_mut()?.enter(SEQUENCE)?.take(OBJECT).unwrap_or_default()))
}

/// The common name, else the organisation.
fn name(content: &[u8]) -> String {
    let (mut sets, mut best) = (Der(content), None);
    while let Some(mut set) = sets.enter(0x31) {
        while let Some(mut pair) = set.enter(SEQUENCE) {
            let (id, value) = (pair.take(OBJECT), pair.element());
            match (id, value) {
                (Some(COMMON_NAME), Some((_, value))) => best = Some(value),
                (Some(ORGANISATION), Some((_, value))) => best = best.or(Some(value)),
                _ => {}
            }
        }
    }
    let text = String::from_utf8_lossy(best.unwrap_or_default());
    clip(&one_line(&text), NAME_MAX).into_owned()
}

/// Why a key (the content of a `SubjectPublicKeyInfo`) cannot be used.
pub(super) fn weak_key(content: &[u8]) -> Option<String> {
    let mut info = Der(content);
    let mut algorithm = info.enter(SEQUENCE)?;
    let kind = algorithm.take(OBJECT)?;
    match kind {
        // rsaEncryption
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1] => {
            let bits = info.take(BIT_STRING)?.strip_prefix(&[0])?;
            let modulus = Der(bits).enter(SEQUENCE)?.take(INTEGER)?;
            let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
            let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
            (!RSA_BITS.contains(&bits)).then(|| format!("RSA with {bits} bits"))
        }
        // id-ecPublicKey
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1] => match algorithm.take(OBJECT) {
            Some([0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] | [0x2b, 0x81, 4, 0, 0x22]) => None,
            Some([0x2b, 0x81, 4, 0, 0x23]) => Some("ECDSA on P-521".to_owned()),
            _ => Some("ECDSA on another curve than P-256 and P-384".to_owned()),
        },
        // Ed25519
        [0x2b, 0x65, 0x70] => None,
        [0x2b, 0x65, 0x71] => Some("Ed448".to_owned()),
        _ => Some("neither RSA nor ECDSA nor Ed25519".to_owned()),
    }
}

fn weak_signature(kind: &[u8]) -> Option<&'static str> {
    match kind {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 5] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1] => Some("SHA-1"),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4] => Some("MD5"),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => Some("ECDSA with SHA-512"),
        _ => None,
    }
}

/// What can be used, for remedies.
pub(super) const USABLE: &str =
    "RSA with 2048 to 8192 bits, ECDSA on P-256 or P-384 and Ed25519, signed with SHA-256 or SHA-384";

#[cfg(test)]
mod tests {
    use super::super::pem::blocks;
    use super::*;

    fn look(pem: &str) -> Look {
        Look::at(&blocks(pem.as_bytes()).unwrap()[0].der).unwrap()
    }

    #[test]
    fn kinds_of_keys_are_told_apart() {
        let p521 = look(include_str!("../../tests/fixtures/tls/p521.pem"));
        assert_eq!(
            (p521.subject.as_str(), p521.weak_key.as_deref()),
            ("Plant CA P-521", Some("ECDSA on P-521"))
        );
        assert!(p521.self_issued && !p521.has_names);
        assert_eq!(p521.weak_signature, Some("ECDSA with SHA-512"));
        let small = look(include_str!("../../tests/fixtures/tls/rsa1024.pem"));
        assert_eq!(
            (small.weak_key.as_deref(), small.weak_signature),
            (Some("RSA with 1024 bits"), Some("SHA-1"))
        );
        let good = look(include_str!("../../tests/fixtures/tls/p256-names.pem"));
        assert_eq!((good.weak_key, good.weak_signature, good.has_names), (None, None, true));
    }

    #[test]
    fn what_is_no_certificate_is_nothing() {
        let whole = blocks(include_bytes!("../../tests/fixtures/tls/p256-names.pem")).unwrap().remove(0).der;
        for end in 0..whole.len() {
            assert_eq!(Look::at(&whole[..end]), None, "{end}");
        }
    }
}
