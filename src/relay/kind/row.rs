//! Putting a row into a staging table: its transform map knows the record by our key, so that it may be sent as often as
//! one likes.

use super::{Repeat, Work};
use crate::destination::{Found, Sent};
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// The staging table must get this alert whole.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        Outcome::Told { created: sent.created }
    }

    fn found(&self, _: &Claimed, _: &Found) -> Option<Outcome> {
        Some(Outcome::Told { created: false })
    }
}
