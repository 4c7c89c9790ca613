//! Putting a device: many go in one request, so `relay/device.rs` sends them; a lane never gets one.

use super::{Job, Repeat, Work};
use crate::destination::Order;

/// The CMDB must know of this device.
pub(super) struct Put;

impl Work for Put {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn compose(&self, _: &Job<'_>) -> Result<Order, String> {
        Err("a device is not made of an alert".to_owned())
    }
}
