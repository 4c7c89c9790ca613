//! Putting a device: many go in one request, so `relay/device.rs` sends them; a lane never gets one.

use super::{Repeat, Work};
use crate::destination::{Compose, Found, Order, Sent};
use crate::model::DestinationName;
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// The CMDB must know of this device.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn compose(&self, _: &Claimed, _: &dyn Compose, _: &DestinationName) -> Result<Order, String> {
        Err("a device is not made of an alert".to_owned())
    }

    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        Outcome::Told { created: sent.created }
    }

    fn found(&self, _: &Claimed, _: &Found) -> Option<Outcome> {
        Some(Outcome::Told { created: false })
    }
}
