//! Linking the record beside which a ticket was made by hand: it names the new one. Setting a field twice is as good as
//! once.

use super::{Job, Repeat, Work};
use crate::destination::{Fields, Found, Order, Sent};
use crate::model::ticket::{TicketKeys, link_back};
use crate::store::op::claim::Claimed;
use crate::store::op::settle::Outcome;

/// The record beside it must name it.
pub(super) struct Link;

impl Work for Link {
    fn repeat(&self) -> Repeat {
        Repeat::Idempotent
    }

    fn compose(&self, job: &Job<'_>) -> Result<Order, String> {
        let claimed = job.claimed;
        let nothing = "the record beside which it was made is not known any more";
        let (table, sys_id) = claimed.ticket.beside.clone().ok_or(nothing)?;
        let own = claimed.ticket.sys_id.as_ref().ok_or("its ticket was never made there")?;
        let field = link_back(&claimed.table, &table).ok_or(nothing)?;
        let fields = Fields::from([(field.to_owned(), own.to_string())]);
        let keys = TicketKeys { sys_id, ..self.keys(claimed, job.destination) };
        Ok(Order { table, ..job.order(keys, fields) })
    }

    fn sent(&self, _: &Claimed, sent: &Sent) -> Outcome {
        Outcome::Added { created: sent.created }
    }

    fn found(&self, _: &Claimed, _: &Found) -> Option<Outcome> {
        None
    }
}
