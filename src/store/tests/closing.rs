//! A ticket that the other side does not close: the note in its place, on disk with the refusal.

use std::sync::Arc;

use super::{Bench, entry, record, routed, there};
use crate::model::life::{Life, Lives, OnCleared};
use crate::model::{AlertState, DeliveryKind, Severity, TicketState};
use crate::store::op::claim::Claimed;
use crate::store::op::life::Seen;
use crate::store::op::record::Record;
use crate::store::op::settle::Outcome;
use crate::store::rows::ListFilter;

fn kinds(claimed: &[Claimed]) -> Vec<DeliveryKind> {
    claimed.iter().map(|c| c.kind).collect()
}

#[tokio::test]
async fn what_was_not_closed_is_noted_also_after_a_restart_and_not_resolved_again() {
    let life = Life { on_cleared: OnCleared::Resolve, ..Life::default() };
    let (mut lives, wanted) = (Lives::default(), routed("incident"));
    lives.set(&wanted.rule, &wanted.destination, &wanted.table, life);
    let lives = Arc::new(lives);
    let see = async |bench: &Bench, ends: bool| {
        let mut entry = entry(1, Severity::Major);
        if ends {
            (entry.alert.state, entry.routes) = (AlertState::Cleared, Vec::new());
        }
        let record = Record { lives: Arc::clone(&lives), ..record(vec![entry]) };
        bench.store.record(vec![record]).await.unwrap()
    };
    let bench = Bench::new();
    see(&bench, false).await;
    bench.settle(&bench.claim(9).await[0], there(1)).await;
    see(&bench, true).await;
    let claimed = bench.claim(9).await;
    assert_eq!(kinds(&claimed), [DeliveryKind::ResolveTicket]);
    let seen = Seen {
        state: TicketState::Open,
        remote_state: "-5".to_owned(),
        mod_count: None,
        assigned_to: None,
        close_notes: None,
    };
    let refused = |words: Option<&str>| Outcome::Later {
        created: false,
        seen: seen.clone(),
        noted: None,
        renews: false,
        not_closed: words.map(str::to_owned),
    };
    bench.settle(&claimed[0], refused(Some("403: no"))).await;
    // The refusal and its note are one commit.
    let bench = bench.reopen().await;
    let row = bench.reader().tickets(&ListFilter::default()).unwrap().remove(0);
    assert_eq!((row.state.as_str(), row.not_closed.as_str()), ("open", "403: no"));
    let claimed = bench.claim(9).await;
    assert_eq!(kinds(&claimed), [DeliveryKind::NoteTicket]);
    assert!(claimed[0].ticket.not_closed);
    bench.settle(&claimed[0], refused(None)).await;
    see(&bench, false).await;
    see(&bench, true).await;
    assert_eq!(kinds(&bench.claim(9).await), [DeliveryKind::NoteTicket]);
    assert_eq!(bench.reader().overview().unwrap().dead, 0);
}
