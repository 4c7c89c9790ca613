//! What a look at the other side means for our tickets. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Allowed;
use crate::destination::Remote;
use crate::model::{SysId, TicketState, Timestamp};
use crate::store::op::life::{Seen, SeenTicket};
use crate::store::op::sync_back::{Known, LookedAt, Watch};

/// How exactly the time of a sighting is kept: in doubt it came after the closing.
const SEEN_WITHIN: Duration = Duration::from_mins(1);

/// Whether a table is to be polled. What a poll left goes on with the next sync, not an interval later.
pub(super) fn is_due(watch: &Watch, interval: Duration, allowed: &Allowed<'_>) -> bool {
    let Some(read_at) = watch.read_at.filter(|_| watch.behind.is_none()) else { return true };
    // A time to come is one that a clock wrote that was ahead.
    allowed.is_order || allowed.now < read_at || allowed.now >= read_at.after(interval)
}

/// How far the server's clock is ahead of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    by: Duration,
    behind: Duration,
}

impl Ahead {
    /// By what its answer says; nothing where it says nothing.
    pub(super) fn of(server: Option<Timestamp>, ours: Timestamp) -> Self {
        let server = server.unwrap_or(ours);
        Self { by: server.since(ours), behind: ours.since(server) }
    }

    /// A time of the server by our clock.
    fn ours(self, at: Timestamp) -> Timestamp {
        at.before(self.by).after(self.behind)
    }
}

/// What a record that was found says.
pub(super) fn seen(remote: &Remote) -> Seen {
    Seen {
        state: remote.ticket_state(),
        remote_state: remote.state.clone(),
        mod_count: remote.detail.mod_count,
        assigned_to: Some(remote.detail.assigned_to.clone()),
        close_notes: Some(remote.detail.close_notes.clone()),
    }
}

/// What is news of the tickets that we know. What has no more changes than we have seen is none: our own echo.
pub(super) fn news(known: &[Known], changed: &BTreeMap<SysId, Remote>) -> Vec<LookedAt> {
    let is_news = |k: &Known, remote: &Remote| {
        k.mod_count.is_none() || remote.detail.mod_count.is_none() || k.mod_count != remote.detail.mod_count
    };
    known
        .iter()
        .filter_map(|k| Some((k, changed.get(&k.sys_id)?)))
        .filter(|(k, remote)| is_news(k, remote))
        .map(|(k, remote)| LookedAt { ticket: k.ticket, seen: seen(remote), renews: false, until: None })
        .collect()
}

/// What becomes of a ticket whose finding was seen again.
pub(super) fn look(ticket: &SeenTicket, found: Option<&Remote>, ahead: Ahead) -> LookedAt {
    let seen = found.map_or_else(Seen::deleted, seen);
    // Who closed it after the sighting knew of it: that is no reason for another ticket.
    let is_after = match found.and_then(|remote| remote.detail.ended_at) {
        Some(ended_at) => ticket.seen_at.after(SEEN_WITHIN) >= ahead.ours(ended_at),
        None => true,
    };
    let renews = seen.state != TicketState::Open && is_after;
    LookedAt { ticket: ticket.ticket, seen, renews, until: Some(ticket.seen_at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Detail;
    use crate::model::{Generation, TableName};

    const NOON: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn remote(state: TicketState, ended_at: Option<Timestamp>) -> Remote {
        Remote {
            sys_id: SysId::new(&"a".repeat(32)).unwrap(),
            number: "INC1".to_owned(),
            active: state != TicketState::Closed,
            state: "6".to_owned(),
            detail: Detail {
                resolved: state == TicketState::Resolved,
                mod_count: Some(3),
                assigned_to: "Abel Tuter".to_owned(),
                ended_at,
                ..Detail::default()
            },
        }
    }

    fn sighting() -> SeenTicket {
        SeenTicket {
            ticket: 7,
            table: TableName::new("incident").unwrap(),
            sys_id: SysId::new(&"a".repeat(32)).unwrap(),
            fingerprint: [1; 32],
            generation: Generation(0),
            seen_at: NOON,
        }
    }

    #[test]
    fn a_sighting_after_the_closing_renews_and_one_before_does_not() {
        let check = |found: Option<Remote>, ahead: Ahead, renews: bool| {
            let looked = look(&sighting(), found.as_ref(), ahead);
            assert_eq!((looked.renews, looked.until), (renews, Some(NOON)), "{found:?}");
        };
        let (hour, same) = (Duration::from_hours(1), Ahead::default());
        check(Some(remote(TicketState::Open, None)), same, false);
        check(Some(remote(TicketState::Closed, Some(NOON.before(hour)))), same, true);
        check(Some(remote(TicketState::Resolved, Some(NOON.before(hour)))), same, true);
        check(Some(remote(TicketState::Closed, Some(NOON.after(hour)))), same, false);
        check(Some(remote(TicketState::Closed, None)), same, true);
        check(None, same, true);
        // The server's clock is two hours ahead: what it calls an hour later was an hour before.
        let ahead = Ahead::of(Some(NOON.after(2 * hour)), NOON);
        check(Some(remote(TicketState::Closed, Some(NOON.after(hour)))), ahead, true);
        let behind = Ahead::of(Some(NOON.before(2 * hour)), NOON);
        check(Some(remote(TicketState::Closed, Some(NOON.before(hour)))), behind, false);
    }

    #[test]
    fn what_has_no_more_changes_is_no_news() {
        let changed = BTreeMap::from([(sighting().sys_id, remote(TicketState::Resolved, None))]);
        let known = |mod_count| [Known { ticket: 7, sys_id: sighting().sys_id, mod_count }];
        assert!(news(&known(Some(3)), &changed).is_empty());
        for before in [None, Some(2)] {
            let news = news(&known(before), &changed);
            assert_eq!(news[0].seen.state, TicketState::Resolved);
            assert_eq!(news[0].seen.assigned_to.as_deref(), Some("Abel Tuter"));
        }
    }

    #[test]
    fn a_table_is_polled_at_its_interval_or_on_order() {
        let check = |read_at, is_order, expected: bool| {
            let watch = Watch { route: 1, table: sighting().table, until: NOON, behind: None, read_at };
            let allowed = Allowed { is_order, requests: 1, except: &[], now: NOON };
            assert_eq!(
                is_due(&watch, Duration::from_hours(24), &allowed),
                expected,
                "{read_at:?} {is_order}"
            );
            let unfinished = Watch { behind: Some(sighting().sys_id), ..watch };
            assert!(is_due(&unfinished, Duration::from_hours(24), &allowed), "{read_at:?} {is_order}");
        };
        let day = Duration::from_hours(24);
        check(None, false, true);
        check(Some(NOON.before(day)), false, true);
        check(Some(NOON.before(day / 2)), false, false);
        check(Some(NOON.before(day / 2)), true, true);
        check(Some(NOON.after(day)), false, true);
    }
}
