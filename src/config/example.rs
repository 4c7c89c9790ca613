//! The shipped config: every key that works, with its default visible.

/// What stands in it where something of the plant has to stand: a config that still has it cannot be used.
pub(super) const HOST: &str = "example.service-now.com";
pub(super) const CLIENT_ID: &str = "put the client id of the OAuth registry record here";

/// The text of `packaging/otrelay.toml`.
pub fn example() -> &'static str {
    include_str!("../../packaging/otrelay.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_what_is_refused() {
        for text in [format!("\"https://{HOST}\""), format!("\"{CLIENT_ID}\"")] {
            assert!(example().contains(&text), "{text}");
        }
    }
}
