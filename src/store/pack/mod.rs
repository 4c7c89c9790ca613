//! How alerts are kept small and found again: bodies in packs, and the index of fingerprints.

pub(super) mod body;
mod coding;
pub(super) mod index;
