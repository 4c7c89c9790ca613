//! A ticket that a person wants for a finding, whatever the rules say: one more in a table of their choice, beside the
//! one that the rules made.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::row::{NewDelivery, NewTicket, insert_delivery, insert_ticket};
use super::turn;
use super::{life, plan};
use crate::model::ticket::{BY_HAND, link_back};
use crate::model::{DeliveryKind, DestinationName, Generation, TableName, TicketState};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::turns::Told;
use crate::store::{Store, StoreError};

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// The finding, by its row.
    pub alert: i64,
    /// Where.
    pub destination: DestinationName,
    /// In which table there.
    pub table: TableName,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// Whether it waits to be sent now.
    pub done: bool,
    /// Which ticket it is made beside, or why it is not made.
    pub note: String,
}

impl Ordered {
    fn refused(note: String) -> Self {
        Self { done: false, note }
    }
}

struct Order(ByHand, i64);

impl Store {
    /// Puts a ticket that a person wants into the outbox.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn order_ticket(&self, wanted: ByHand) -> Result<Ordered, StoreError> {
        let now = self.shared.clock.now().as_micros();
        self.call(Order(wanted, now)).await
    }
}

/// A ticket of the same finding that is there.
struct Beside {
    ticket: i64,
    table: TableName,
    number: String,
}

/// The newest that is there in another table of the destination, first of those that the rules made.
fn beside(tx: &Tx<'_>, alert: i64, destination: i64, route: i64) -> Result<Option<Beside>, StoreError> {
    let found: Option<(i64, String, String)> = tx
        .conn
        .prepare_cached(
            "SELECT t.id, r.table_name, coalesce(t.number, t.sys_id) FROM ticket t JOIN route r ON r.id = t.route_id
             WHERE t.alert_id = ?1 AND r.destination_id = ?2 AND t.route_id <> ?3 AND t.state = 'open'
             ORDER BY t.rule = ?4, t.id DESC LIMIT 1",
        )?
        .query_row(params![alert, destination, route, BY_HAND], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .optional()?;
    Ok(found.and_then(|(ticket, table, number)| {
        Some(Beside { ticket, table: TableName::new(&table).ok()?, number })
    }))
}

impl Operation for Order {
    type Output = Ordered;

    fn run(self, tx: &mut Tx<'_>) -> Result<Ordered, StoreError> {
        let Self(ByHand { alert, destination, table }, now) = self;
        let severity: Option<i64> = tx
            .conn
            .prepare_cached("SELECT severity FROM alert WHERE id = ?1")?
            .query_row([alert], |r| r.get(0))
            .optional()?;
        let Some(severity) = severity else {
            return Ok(Ordered::refused(format!(
                "there is no finding {alert}: `otrelay alerts --json` shows `id`"
            )));
        };
        let (destination_id, route_id) = tx.route_id(destination.as_str(), table.as_str())?;
        plan::write_of(tx, alert)?;
        let newest = life::newest(tx, alert, route_id)?;
        if let Some(live) =
            newest.as_ref().filter(|t| matches!(t.state, Some(TicketState::Opening | TicketState::Open)))
        {
            return Ok(Ordered::refused(format!(
                "this finding has a live ticket in {table} of {destination} already (row {})",
                live.id
            )));
        }
        let generation = newest.map_or(Generation(0), |newest| Generation(newest.generation).next());
        let new = NewTicket { alert_id: alert, route_id, generation, rule: BY_HAND };
        let ticket = insert_ticket(tx, &new)?;
        let beside = beside(tx, alert, destination_id, route_id)?;
        let turn = turn::next(tx, (route_id, severity), BY_HAND, Told::Later(ticket))?;
        let opens = NewDelivery::opens(ticket, now);
        let delivery = NewDelivery { destination_id, route_id, severity, turn, ..opens };
        insert_delivery(tx, &delivery, destination.as_str())?;
        let mut note = String::new();
        if let Some(beside) = beside {
            tx.conn
                .prepare_cached("UPDATE ticket SET beside_id = ?2 WHERE id = ?1")?
                .execute(params![ticket, beside.ticket])?;
            if link_back(&table, &beside.table).is_some() {
                life::add(tx, ticket, DeliveryKind::LinkTicket, severity, now)?;
            }
            note = format!("beside {} of {}", beside.number, beside.table);
        }
        Ok(Ordered { done: true, note })
    }
}
