//! Putting a row into a staging table: its transform map knows the record by our key, so that it may be sent as often as
//! one likes.

use super::{Repeat, Work};

/// The staging table must get this alert whole.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }
}
