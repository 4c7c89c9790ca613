//! Putting a row into a staging table: its transform map knows the record by our key, so that it may be sent as often as
//! one likes.

use super::{Repeat, Work};
use crate::destination::{Found, Sent};
use crate::store::op::settle::Outcome;

/// The staging table must get this alert whole.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn sent(&self, sent: &Sent) -> Outcome {
        Outcome::Told { created: sent.created }
    }

    fn found(&self, _: &Found) -> Outcome {
        Outcome::Told { created: false }
    }
}
