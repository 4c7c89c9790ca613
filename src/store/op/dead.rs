//! What a person does with dead letters and with what waits: retry, drop.

use serde::{Deserialize, Serialize};

use super::plan;
use super::settle::{Next, current, move_delivery};
use crate::model::{DeliveryId, DeliveryKind, DeliveryState, Timestamp};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// What to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Due now, as at the next sync at the latest. For dead letters and for pending ones that back off.
    Retry,
    /// Given up: for dead letters and pending ones. The alert's later sightings make no new one.
    Drop,
}

/// What became of one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// The delivery.
    pub id: DeliveryId,
    /// Whether it was done.
    pub done: bool,
    /// What it is now, or why not.
    pub note: String,
}

struct Judge {
    ids: Vec<DeliveryId>,
    verdict: Verdict,
    now: Timestamp,
}

impl Store {
    /// Does what a person said.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn judge(&self, ids: Vec<DeliveryId>, verdict: Verdict) -> Result<Vec<Judged>, StoreError> {
        let now = self.shared.clock.now();
        self.call(Judge { ids, verdict, now }).await
    }
}

impl Operation for Judge {
    type Output = Vec<Judged>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Vec<Judged>, StoreError> {
        self.ids.iter().map(|id| judge(tx, *id, self.verdict, self.now)).collect()
    }
}

fn judge(tx: &mut Tx<'_>, id: DeliveryId, verdict: Verdict, now: Timestamp) -> Result<Judged, StoreError> {
    let refused = |note: &str| Ok(Judged { id, done: false, note: note.to_owned() });
    let mut found = current(tx, id)?;
    if found.is_none() {
        plan::write_numbered(tx, id)?;
        found = current(tx, id)?;
    }
    let Some(was) = found else { return refused("there is no delivery with this id") };
    match was.state {
        DeliveryState::Dead | DeliveryState::Pending => {}
        DeliveryState::Claimed => return refused("it is being sent at this moment; try again shortly"),
        DeliveryState::Delivered => return refused("it is delivered already"),
        DeliveryState::Dropped if verdict == Verdict::Retry => {
            return refused("it was dropped; its next sighting will not bring it back");
        }
        DeliveryState::Dropped | DeliveryState::Withdrawn => return refused("it is given up already"),
    }
    let state = match verdict {
        Verdict::Retry => DeliveryState::Pending,
        Verdict::Drop => DeliveryState::Dropped,
    };
    let next = Next {
        subject: was.subject,
        state,
        due_at: (verdict == Verdict::Retry).then_some(now),
        attempts: was.attempts,
        // Whatever the other side said last time, it may have kept it.
        doubtful: true,
        reason: None,
        now,
    };
    move_delivery(tx, id, &was, &next)?;
    if verdict == Verdict::Drop {
        withdraw(tx, &was)?;
    }
    Ok(Judged { id, done: true, note: state.as_str().to_owned() })
}

/// Its ticket or record will not be made.
pub(super) fn withdraw(tx: &Tx<'_>, was: &super::settle::Current) -> Result<(), StoreError> {
    use super::row::Subject;
    use crate::model::TicketState;
    let state = TicketState::Withdrawn;
    let Subject::Ticket(ticket) = was.subject else {
        return if was.is_first() { super::settle::record_is(tx, was, state) } else { Ok(()) };
    };
    // What would have come later leaves the ticket as it is; one that would have been opened again stays closed.
    if was.is(DeliveryKind::ReopenTicket) {
        let sys_id: Option<String> =
            tx.conn.query_row("SELECT sys_id FROM ticket WHERE id = ?1", [ticket], |r| r.get(0))?;
        return super::life::set_state(tx, ticket, TicketState::Closed, &sys_id.unwrap_or_default());
    }
    if !was.is(DeliveryKind::OpenTicket) {
        return Ok(());
    }
    let crc = super::row::ticket_crc(was.alert_id, was.route_id, was.generation, state, "");
    tx.conn.execute(
        "UPDATE ticket SET state = ?2, crc = ?3 WHERE id = ?1 AND state = 'opening'",
        rusqlite::params![ticket, state.as_str(), crc],
    )?;
    Ok(())
}
