//! Enums whose variants have a word each: as it stands in the config, in the store, in lists and counters.
//!
//! Words that are stored or counted stay as they are across releases.

/// Declares such an enum, its variants each with its word: `ALL` of them in their order, `as_str`, `Display`, and `parse`
/// as the inverse, unless that is the enum's own.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident $(with its own $parse:ident)? {
        $($(#[$of:meta])* $variant:ident = $word:literal,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$of])* $variant,)* }

        impl $name {
            /// All of them, in their order.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// The word.
            pub const fn as_str(self) -> &'static str {
                [$($word),*][self as usize]
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        $crate::model::words::words!(@parse $name $($parse)?);
    };
    (@parse $name:ident) => {
        impl $name {
            /// The inverse of [`Self::as_str`].
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|known| known.as_str() == word)
            }
        }
    };
    (@parse $name:ident parse) => {};
}
pub(crate) use words;
