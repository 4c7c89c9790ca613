//! Operations, a file each: what the caller says, the SQL, what the caller gets. Each adds one async method to
//! [`super::Store`].

pub mod again;
pub mod answer;
pub(super) mod attempt;
pub mod by_hand;
pub mod claim;
pub mod cursors;
pub mod dead;
pub mod destination_state;
pub mod device;
pub mod handled;
pub mod health;
pub mod identity;
pub mod life;
pub mod prune;
pub mod record;
pub mod repairs;
pub mod reroute;
pub mod settle;
pub mod sync_back;

mod fresh;
mod history;
pub(super) mod plan;
mod row;
mod storm;
mod told;
pub(super) mod turn;

pub use storm::Folded;

/// Bytes of a text in a row that came from outside.
const WORDS_MAX: usize = 1_000;
