//! What a look at the other side means for our tickets. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Allowed, FIRST_OVERLAP, OVERLAP};
use crate::destination::{Remote, Since};
use crate::model::{SysId, TicketState, Timestamp};
use crate::store::op::life::{Seen, SeenTicket};
use crate::store::op::sync_back::{Known, LookedAt, MISSED, Watch};

/// How exactly the time of a sighting is kept: in doubt it came after the closing.
const SEEN_WITHIN: Duration = Duration::from_mins(1);

/// Whether a table is to be polled. What a poll left goes on with the next sync, not an interval later.
pub(super) fn is_due(watch: &Watch, interval: Duration, allowed: &Allowed<'_>) -> bool {
    let Some(read_at) = watch.read_at.filter(|_| watch.behind.is_none()) else { return true };
    // A time to come is one that a clock wrote that was ahead.
    allowed.is_order || allowed.now < read_at || allowed.now >= read_at.after(interval)
}

/// Where a poll begins. `server` is the server's clock: the beginning is by it, and never later than it. A watermark of the
/// future is one that our own clock put down while it was ahead; what was changed before it is for the sweep.
pub(super) fn begin(watch: &Watch, server: Option<Timestamp>, ours: Timestamp) -> Since {
    if watch.behind.is_some() {
        return Since { at: watch.until, behind: watch.behind.clone() };
    }
    let latest = server.unwrap_or(watch.until);
    let at = match watch.read_at {
        // By our clock.
        None => Ahead::of(server, ours).theirs(watch.until).min(latest).before(FIRST_OVERLAP),
        Some(_) if watch.until > latest => latest.before(FIRST_OVERLAP),
        Some(_) => watch.until.before(OVERLAP),
    };
    Since { at, behind: None }
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

    /// A time of our clock by the server's.
    fn theirs(self, at: Timestamp) -> Timestamp {
        at.after(self.by).before(self.behind)
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

/// What is news of live tickets that were asked for by their ids: what has changed, and what is no longer there. One that is
/// missing for the first time may only be hidden for a while: it is marked, and the next look decides.
pub(super) fn swept(asked: &[Known], found: &[Remote]) -> Vec<LookedAt> {
    let there: BTreeMap<SysId, Remote> =
        found.iter().map(|remote| (remote.sys_id.clone(), remote.clone())).collect();
    let gone = |k: &Known| {
        let missed = Seen { state: k.state, mod_count: Some(MISSED), ..Seen::deleted() };
        let seen = if k.mod_count == Some(MISSED) { Seen::deleted() } else { missed };
        LookedAt { ticket: k.ticket, seen, renews: false, until: None }
    };
    let missing = asked.iter().filter(|k| !there.contains_key(&k.sys_id)).map(gone);
    news(asked, &there).into_iter().chain(missing).collect()
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
        let known =
            |mod_count| [Known { ticket: 7, sys_id: sighting().sys_id, mod_count, state: TicketState::Open }];
        assert!(news(&known(Some(3)), &changed).is_empty());
        for before in [None, Some(2)] {
            let news = news(&known(before), &changed);
            assert_eq!(news[0].seen.state, TicketState::Resolved);
            assert_eq!(news[0].seen.assigned_to.as_deref(), Some("Abel Tuter"));
        }
    }

    fn watch(read_at: Option<Timestamp>) -> Watch {
        Watch {
            route: 1,
            table: sighting().table,
            until: NOON,
            behind: None,
            read_at,
            swept: None,
            is_unmarked: false,
        }
    }

    #[test]
    fn a_poll_begins_by_the_servers_clock() {
        let hour = Duration::from_hours(1);
        let check = |read_at: Option<Timestamp>, server, ours, expected: Timestamp| {
            assert_eq!(begin(&watch(read_at), server, ours).at, expected, "{read_at:?} {server:?} {ours:?}");
        };
        let later = NOON.after(5 * hour);
        // Our clock put it down, and was right, three hours ahead, three hours behind.
        check(None, Some(later), later, NOON.before(hour));
        check(None, Some(later), later.after(3 * hour), NOON.before(4 * hour));
        check(None, Some(later), later.before(3 * hour), NOON.after(2 * hour));
        // It was ahead, and was set right since.
        check(None, Some(NOON.before(5 * hour)), NOON.before(5 * hour), NOON.before(6 * hour));
        check(None, None, later, NOON.before(hour));
        // The server put it down; what our clock says is nothing to it.
        check(Some(NOON), Some(later), later.after(9 * hour), NOON.before(OVERLAP));
        check(Some(NOON), Some(NOON.before(hour)), later, NOON.before(2 * hour));
        check(Some(NOON), None, later, NOON.before(OVERLAP));
    }

    #[test]
    fn a_table_is_polled_at_its_interval_or_on_order() {
        let check = |read_at, is_order, expected: bool| {
            let watch = watch(read_at);
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
