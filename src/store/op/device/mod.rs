//! Devices: what sources say of them (`take`), what is to be told of them and what became of it (`outbox`), and how much
//! of the store they may have (`share`).
//!
//! A device is one row with the merged view of all its sources, a digest of each part of it, and the digest that was
//! last told. It is changed while the two differ; a sync makes deliveries of what is changed, and of nothing else.

mod affected;
pub mod links;
pub mod outbox;
pub(in crate::store) mod peers;
pub(in crate::store) mod share;
pub(super) mod take;
