//! Secrets. `Debug` of a [`SecretString`] never shows the text; the memory is wiped when it is dropped.

pub use secrecy::{ExposeSecret, SecretString};

/// Where the operator said that a secret is, together with the secret itself once it was read.
#[derive(Clone, Debug)]
pub struct Secret {
    /// For messages: `credential servicenow-client-secret`, `file /etc/…`, `environment variable X`, `written in the config`.
    pub origin: String,
    /// The text, without a trailing newline.
    pub value: SecretString,
}

impl Secret {
    /// A secret and where it came from.
    pub fn new(origin: impl Into<String>, value: impl Into<String>) -> Self {
        Self { origin: origin.into(), value: SecretString::from(value.into()) }
    }

    /// The text itself. Call it only where it goes onto the wire.
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_text() {
        let s = Secret::new("file /x", "canary-5f2");
        assert!(!format!("{s:?}").contains("canary"));
        assert_eq!(s.expose(), "canary-5f2");
    }
}
