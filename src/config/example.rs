//! The shipped config: every key that works, with its default visible.

/// The text of `packaging/otrelay.toml`.
pub fn example() -> &'static str {
    include_str!("../../packaging/otrelay.toml")
}
