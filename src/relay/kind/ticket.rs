//! Opening a ticket: there is at most one for an alert, a table and a generation, found by its keys.

use super::{Repeat, Work};
use crate::destination::{Found, Remote, Sent};
use crate::store::op::settle::Outcome;

/// There must be a ticket for this alert.
pub(super) struct Open;

impl Work for Open {
    fn repeat(&self) -> Repeat {
        Repeat::ByKey
    }

    fn sent(&self, sent: &Sent) -> Outcome {
        match &sent.remote {
            Some(remote) => settled(sent.created, remote),
            None => Outcome::Told { created: sent.created },
        }
    }

    fn found(&self, found: &Found) -> Outcome {
        settled(false, &found.remote)
    }
}

/// A record that was there and is closed is not the ticket that is wanted: the next generation is.
fn settled(created: bool, remote: &Remote) -> Outcome {
    let (sys_id, number, state) = (remote.sys_id.clone(), remote.number.clone(), remote.state.clone());
    if created || remote.active {
        Outcome::Delivered { created, sys_id, number, state }
    } else {
        Outcome::ClosedThere { sys_id, number, state }
    }
}
