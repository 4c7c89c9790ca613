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
    use crate::config::parse_str;

    /// The blocks that are commented out as a whole, as they are when somebody takes "# " away.
    fn blocks() -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        let mut inside = false;
        for line in example().lines() {
            let bare = line.strip_prefix("# ");
            match bare {
                Some(header) if header.starts_with("[[") => {
                    inside = true;
                    blocks.push(format!("{header}\n"));
                }
                Some(key) if inside => blocks.last_mut().unwrap().extend([key, "\n"]),
                _ => inside = false,
            }
        }
        blocks
    }

    #[test]
    fn every_block_that_is_commented_out_works_once_it_is_not() {
        let blocks = blocks();
        assert!(blocks.iter().filter(|block| block.starts_with("[[source]]")).count() >= 5, "{blocks:?}");
        for block in blocks {
            // No machine has an id here, and a pseudonym needs one.
            let block = block.replace("\"pseudonym\"", "\"mask\"");
            let text = format!("{}\n{block}", example());
            if let Err(error) = parse_str("otrelay.toml", &text) {
                panic!("{block}: {error}");
            }
        }
    }

    #[test]
    fn the_example_has_what_is_refused() {
        for text in [format!("\"https://{HOST}\""), format!("\"{CLIENT_ID}\"")] {
            assert!(example().contains(&text), "{text}");
        }
    }
}
