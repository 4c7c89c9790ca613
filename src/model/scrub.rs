//! Secrets taken out of text that somebody else wrote: an instance, a proxy or a block page may quote what it was sent.
//! Pure.
//!
//! Each secret is looked for as it is, percent-encoded, as a form field, in JSON, in HTML, in hex and in base64 (at each
//! of the three places it can have in a longer text), in any case: a page's title is kept in lower case. Of a long one
//! its beginning is enough, since whoever quotes may cut.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands in the place of a secret.
pub const MARK: &str = "***";
/// A shorter one would blacken ordinary words and thereby show itself.
const SHORTEST: usize = 6;
/// Of a form of at least `LONG` bytes, the first `BEGINNING` are looked for.
const LONG: usize = 16;
const BEGINNING: usize = 12;

/// As RFC 3986 leaves it, and as browsers do.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const COMPONENT: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// Takes some secrets out of texts.
pub struct Scrubber {
    /// In lower case.
    forms: Vec<Vec<u8>>,
}

impl Scrubber {
    /// For these secrets; those of fewer than 6 bytes are left out.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<Vec<u8>> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .flat_map(forms)
            .map(|form| form.to_ascii_lowercase().into_bytes())
            .filter(|form| form.len() >= SHORTEST)
            .collect();
        all.sort_unstable();
        all.dedup();
        Self { forms: all }
    }

    /// The text without the secrets.
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.cut(text.as_bytes()) {
            None => Cow::Borrowed(text),
            Some(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The same for bytes of any kind.
    pub fn bytes(&self, bytes: &mut Vec<u8>) {
        if let Some(clean) = self.cut(bytes) {
            *bytes = clean;
        }
    }

    /// `None` when there is nothing to take out.
    fn cut(&self, text: &[u8]) -> Option<Vec<u8>> {
        let lower = text.to_ascii_lowercase();
        let mut found: Vec<(usize, usize)> = Vec::new();
        for form in &self.forms {
            let wanted = if form.len() >= LONG { &form[..BEGINNING] } else { &form[..] };
            for at in memchr::memmem::find_iter(&lower, wanted) {
                let same = lower[at..].iter().zip(form).take_while(|(a, b)| a == b).count();
                found.push((at, at + same));
            }
        }
        if found.is_empty() {
            return None;
        }
        found.sort_unstable();
        let (mut clean, mut done) = (Vec::with_capacity(text.len()), 0);
        for (start, end) in found {
            if start >= done {
                clean.extend_from_slice(&text[done..start]);
                clean.extend_from_slice(MARK.as_bytes());
            }
            done = done.max(end);
        }
        clean.extend_from_slice(&text[done..]);
        Some(clean)
    }
}

/// Says how many, never which.
impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").field("forms", &self.forms.len()).finish_non_exhaustive()
    }
}

/// Every way in which it may be quoted; their case does not matter.
fn forms(secret: &str) -> Vec<String> {
    let mut all = vec![secret.to_owned()];
    all.extend(
        [NON_ALPHANUMERIC, UNRESERVED, COMPONENT].map(|set| utf8_percent_encode(secret, set).to_string()),
    );
    all.push(url::form_urlencoded::byte_serialize(secret.as_bytes()).collect());
    if let Ok(json) = serde_json::to_string(secret) {
        all.push(json.trim_matches('"').to_owned());
    }
    let html = secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    all.push(html.replace('\'', "&#39;"));
    all.push(html);
    all.push(super::alert::hex(secret.as_bytes()));
    for place in 0..3 {
        let mut bytes = vec![0; place];
        bytes.extend_from_slice(secret.as_bytes());
        // Characters that are made of this text alone, whatever stands before and after it.
        let (first, last) = ((place * 8).div_ceil(6), bytes.len() * 8 / 6);
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            all.extend(text.get(first..last).map(str::to_owned));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// With all that is encoded somewhere, and long enough to be cut.
    const CANARY: &str = "Canary-91 &=+%\"<'é>/~(!)*";

    #[test]
    fn no_form_of_a_secret_stays() {
        let scrubber = Scrubber::new([CANARY]);
        for (n, form) in forms(CANARY).into_iter().enumerate() {
            for text in [form.clone(), form.to_lowercase(), format!("title: {form}, and more")] {
                let clean = scrubber.text(&text);
                assert!(clean.contains(MARK) && !clean.to_lowercase().contains("canary"), "{n}: {clean}");
            }
        }
        for before in ["", "u", "us", "user:"] {
            let text = STANDARD.encode(format!("{before}{CANARY}x"));
            let clean = scrubber.text(&text).into_owned();
            let left: String = clean.split(MARK).collect();
            let first = STANDARD.encode(before);
            assert!(clean.contains(MARK) && left.len() <= first.len() + 6, "{before}: {text} to {clean}");
        }
        let mut body = CANARY.as_bytes().to_vec();
        body.push(0xff);
        scrubber.bytes(&mut body);
        assert_eq!(body, b"***\xff");
        assert!(!format!("{scrubber:?}").contains("anary"));
    }

    #[test]
    fn what_is_cut_is_found_by_its_beginning() {
        let scrubber = Scrubber::new(["canary-0123456789-abcdef"]);
        assert_eq!(scrubber.text("<title>canary-0123456789</title>"), "<title>***</title>");
        assert_eq!(scrubber.text("canary-0123456789-abcdefgh"), "***gh");
        assert_eq!(scrubber.text("canary"), "canary");
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        let scrubber = Scrubber::new(["admin", "", "otrelay-secret"]);
        assert!(matches!(scrubber.text("the admin of otrelay"), Cow::Borrowed(_)));
        let two = Scrubber::new(["abcdef", "cdefgh"]);
        assert_eq!(two.text("-abcdefgh-cdefgh-"), "-***-***-");
    }
}
