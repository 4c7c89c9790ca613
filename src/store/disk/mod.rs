//! The state directory: its files, its lock, whose it is, and how much room there is. Knows nothing of tables.

pub(super) mod ballast;
pub(super) mod files;
pub(super) mod lock;
pub(super) mod owner;
pub(super) mod space;
