//! A ticket system in memory: keeps what was created, and fails as it is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::destination::{
    Admission, Asked, Changed, Compose, Destination, Detail, DeviceOrder, DevicePut, DevicesSent,
    DroppedField, Fields, Found, LookedUp, MayAsk, Order, RateLimit, Remote, SendError, Sent, Since,
    TicketFacts,
};
use crate::model::ticket::KeysKept;
use crate::model::{
    Class, CorrelationId, DeliveryKind, DestinationName, HoldScope, Severity, SysId, TableName, Timestamp,
};

/// How one call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does not.
    None,
    /// 503, nothing was done.
    Busy,
    /// 202: nothing was done, or later.
    Accepted,
    /// It was done, the answer got lost.
    LostAfter,
    /// It was not done, and there is no answer.
    LostBefore,
    /// 429 with this `Retry-After` in seconds.
    Told(u64),
    /// 429 without a word on how long: too many at once.
    Crowded,
    /// 401.
    Hold,
    /// 403 on the table.
    HoldTable,
    /// 400.
    Reject,
    /// 500 by a business rule that throws on this record; nothing was done.
    Throws,
    /// The same, but it was done.
    ThrowsAfter,
    /// 403, the words of an ACL on this insert.
    Acl,
    /// 403, a mandatory field is missing.
    Policy,
    /// 403, the page of a firewall that dislikes this record.
    Waf,
}

impl Fault {
    fn error(self) -> Option<SendError> {
        let (class, status, doubtful) = match self {
            Self::None => return None,
            Self::Busy => (Class::Retry, Some(503), false),
            Self::Accepted => (Class::Retry, Some(202), true),
            Self::LostAfter | Self::LostBefore => (Class::Retry, None, true),
            Self::Told(_) | Self::Crowded => (Class::RetryAt, Some(429), false),
            Self::Hold => (Class::Hold, Some(401), false),
            Self::HoldTable | Self::Acl | Self::Waf => (Class::Hold, Some(403), false),
            Self::Reject => (Class::Reject, Some(400), false),
            Self::Throws | Self::ThrowsAfter => (Class::Retry, Some(500), true),
            Self::Policy => (Class::Reject, Some(403), false),
        };
        Some(SendError {
            class,
            hold: match self {
                Self::HoldTable => HoldScope::Table,
                Self::Acl | Self::Waf => HoldScope::Delivery,
                _ => HoldScope::Destination,
            },
            message: format!("{self:?}"),
            remedy: "do something".to_owned(),
            doubtful,
            wait: if let Self::Told(secs) = self { Some(Duration::from_secs(secs)) } else { None },
            status,
            is_general: self == Self::Waf,
        })
    }
}

/// A ticket there.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) title: String,
    pub(super) active: bool,
    pub(super) seen_from: Timestamp,
    pub(super) keys: (CorrelationId, SysId),
}

/// What the destination has and what it was asked.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) tickets: Vec<(TableName, Kept)>,
    /// Creates of what was there and visible already.
    pub(super) careless: u32,
    /// Calls by time: `find` or the title of what was to be created.
    pub(super) calls: Vec<(Timestamp, String)>,
    /// Faults of the next calls, in order; after the last all is well.
    pub(super) finds: VecDeque<Fault>,
    pub(super) opens: VecDeque<Fault>,
    /// Faults that stay, by table.
    pub(super) stuck: BTreeMap<TableName, Fault>,
    /// Titles that always fail, and how.
    pub(super) refused: BTreeMap<String, Fault>,
    /// What the tables do to our keys; none: they keep both.
    pub(super) keeps: Option<KeysKept>,
    /// Kinds of what was sent.
    pub(super) kinds: Vec<DeliveryKind>,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    pub(super) drops_field: bool,
    /// So many at once are served; who comes beside them gets 429.
    pub(super) semaphore: Option<usize>,
    pub(super) crowded: u32,
    /// A rule of so many requests an hour; what is beyond it gets 429 until the hour ends.
    pub(super) hourly: Option<u32>,
    /// The hour of that rule and the requests that were let through in it, and when others were refused.
    pub(super) hour: (Option<Timestamp>, u32),
    pub(super) refusals: Vec<Timestamp>,
    /// Records that were looked at by their ids.
    pub(super) looked_at: BTreeSet<SysId>,
    /// Keys of devices that were told.
    pub(super) devices: BTreeSet<String>,
    /// Records that were resolved, and when.
    pub(super) changes: BTreeMap<SysId, Timestamp>,
    /// The first of the next page is changed once more before the page after it is read.
    pub(super) touches: bool,
    /// So many orders it cannot say of now whether it would take them.
    pub(super) unsure: u32,
    /// How far its clock is behind ours.
    pub(super) behind: Duration,
}

/// Records in a page of what was changed.
const CHANGED_PAGE: usize = 200;

impl Ledger {
    /// What the rule makes of a request.
    fn limited(&mut self, now: Timestamp) -> Option<Fault> {
        const HOUR: Duration = Duration::from_hours(1);
        let most = self.hourly?;
        let began = self.hour.0.filter(|began| now.since(*began) < HOUR);
        let began = began.unwrap_or_else(|| {
            self.hour = (Some(now), 0);
            now
        });
        if self.hour.1 < most {
            self.hour.1 += 1;
            return None;
        }
        self.refusals.push(now);
        Some(Fault::Told(began.after(HOUR).since(now).as_secs() + 1))
    }
}

pub(super) struct FakeDestination {
    name: DestinationName,
    clock: SharedClock,
    ledger: Mutex<Ledger>,
    /// How long a call takes.
    pub(super) takes: Duration,
    /// How long a new record cannot be found.
    pub(super) lag: Duration,
}

impl FakeDestination {
    pub(super) fn new(name: &str, clock: SharedClock) -> Self {
        let name = DestinationName::new(name).unwrap();
        let (takes, lag) = (Duration::from_millis(50), Duration::ZERO);
        Self { name, clock, ledger: Mutex::default(), takes, lag }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(super) fn titles(&self) -> Vec<String> {
        self.ledger().tickets.iter().map(|(_, k)| k.title.clone()).collect()
    }

    pub(super) fn calls(&self) -> usize {
        self.ledger().calls.len()
    }

    async fn called(&self, what: &str, table: &TableName, create: bool) -> Fault {
        let fault = {
            let mut l = self.ledger();
            l.calls.push((self.clock.now(), what.to_owned()));
            l.in_flight += 1;
            l.most_in_flight = l.most_in_flight.max(l.in_flight);
            let stuck = l.stuck.get(table).copied();
            let next = if create { l.opens.pop_front() } else { l.finds.pop_front() };
            let refused = l.refused.get(what).copied().filter(|_| create);
            let now = self.clock.now();
            let limited = l.limited(now);
            let crowded = l.semaphore.filter(|most| l.in_flight > *most).map(|_| Fault::Crowded);
            l.crowded += u32::from(crowded.is_some());
            limited.or(crowded).or(refused).or(stuck).or(next).unwrap_or(Fault::None)
        };
        tokio::time::sleep(self.takes).await;
        self.ledger().in_flight -= 1;
        fault
    }
}

impl Destination for FakeDestination {
    fn name(&self) -> &DestinationName {
        &self.name
    }

    async fn admit(&self, _: &Order, _: MayAsk<'_>) -> Result<Admission, SendError> {
        let mut ledger = self.ledger();
        if ledger.unsure == 0 {
            return Ok(Admission::Fits(Vec::new()));
        }
        ledger.unsure -= 1;
        Err(SendError::new(Class::Retry, HoldScope::Action, "a name could not be looked up".to_owned(), ""))
    }

    async fn look_up(
        &self,
        kind: DeliveryKind,
        table: &TableName,
        asked: &[Asked],
    ) -> Result<LookedUp, SendError> {
        assert_eq!(kind, DeliveryKind::OpenTicket, "an event is not looked up");
        assert!(!asked.is_empty() && asked.len() <= crate::destination::FIND_MAX);
        if let Some(e) = self.called("find", table, false).await.error() {
            return Err(SendError { doubtful: false, ..e });
        }
        let now = self.clock.now();
        let found = |k: &Kept| Found {
            correlation_id: k.keys.0.clone(),
            remote: Remote {
                sys_id: k.keys.1.clone(),
                number: "INC1".to_owned(),
                active: k.active,
                state: "1".to_owned(),
                detail: Detail::default(),
            },
            twins: 0,
        };
        let ledger = self.ledger();
        let is_asked = |k: &Kept| asked.iter().any(|a| a.keys.correlation_id == k.keys.0);
        let keeps_it = ledger.keeps.is_none_or(|kept| kept.correlation_id);
        let seen = ledger.tickets.iter().filter(|(t, k)| t == table && k.seen_from <= now && is_asked(k));
        let found = seen.filter(|_| keeps_it).map(|(_, k)| found(k)).collect();
        Ok(LookedUp { found, status: Some(200), server_now: None })
    }

    async fn send(&self, order: &Order) -> Result<Sent, SendError> {
        let title = order.fields.get("short_description").cloned().unwrap_or_default();
        let fault = self.called(&title, &order.table, true).await;
        let now = self.clock.now();
        let mut ledger = self.ledger();
        ledger.kinds.push(order.kind);
        if !matches!(fault, Fault::None | Fault::LostAfter | Fault::ThrowsAfter) {
            return Err(fault.error().unwrap());
        }
        let kept = ledger.keeps.unwrap_or(KeysKept { sys_id: true, correlation_id: true });
        let is_event = order.kind == DeliveryKind::PutEvent;
        let twin = ledger.tickets.iter().position(|(_, k)| k.keys.1 == order.keys.sys_id);
        match twin {
            // The same event.
            Some(_) if is_event => {}
            // The unique key of the other side.
            Some(at) if kept.sys_id => {
                let seen = ledger.tickets[at].1.seen_from <= now;
                ledger.careless += u32::from(seen);
                return Err(Fault::Accepted.error().unwrap());
            }
            _ => {
                let keys = (order.keys.correlation_id.clone(), order.keys.sys_id.clone());
                let seen_from = now.after(self.lag);
                ledger.tickets.push((order.table.clone(), Kept { title, active: true, seen_from, keys }));
            }
        }
        if let Some(e) = fault.error() {
            return Err(e);
        }
        let dropped = DroppedField { field: "assignment_group".to_owned(), got: String::new() };
        let remote = Remote {
            sys_id: order.keys.sys_id.clone(),
            number: format!("INC{}", ledger.tickets.len()),
            active: true,
            state: "1".to_owned(),
            detail: Detail::default(),
        };
        Ok(Sent {
            created: true,
            remote: (!is_event).then_some(remote),
            dropped: if ledger.drops_field { vec![dropped] } else { Vec::new() },
            kept: (!is_event).then_some(kept),
            not_closed: None,
            status: 201,
        })
    }

    async fn put_devices(&self, orders: &[DeviceOrder], _: u32) -> Result<DevicesSent, SendError> {
        let fault = self.called("devices", &TableName::new("cmdb_ci").unwrap(), true).await;
        if let Some(e) = fault.error() {
            return Err(e);
        }
        self.ledger().devices.extend(orders.iter().map(|order| order.key.clone()));
        let put = |_| Ok(DevicePut { created: true, ..DevicePut::default() });
        let outcomes = orders.iter().map(put).collect();
        Ok(DevicesSent { outcomes, status: Some(200), ..DevicesSent::default() })
    }

    async fn read_back(&self, table: &TableName, asked: &[Asked]) -> Result<LookedUp, SendError> {
        if let Some(e) = self.called("find", table, false).await.error() {
            return Err(SendError { doubtful: false, ..e });
        }
        // By the record's own id nothing lags.
        let mut ledger = self.ledger();
        ledger.looked_at.extend(asked.iter().map(|a| a.keys.sys_id.clone()));
        let is_asked = |k: &Kept| asked.iter().any(|a| a.keys.sys_id == k.keys.1);
        let found = ledger.tickets.iter().filter(|(t, k)| t == table && is_asked(k)).map(|(_, k)| Found {
            correlation_id: k.keys.0.clone(),
            remote: Remote {
                sys_id: k.keys.1.clone(),
                number: "INC1".to_owned(),
                active: k.active,
                state: "1".to_owned(),
                detail: Detail::default(),
            },
            twins: 0,
        });
        Ok(LookedUp { found: found.collect(), status: Some(200), server_now: None })
    }

    async fn still_there(&self, table: &TableName, ids: &[SysId]) -> Result<Vec<Remote>, SendError> {
        if let Some(e) = self.called("still there", table, false).await.error() {
            return Err(SendError { doubtful: false, ..e });
        }
        let ledger = self.ledger();
        let found = ledger.tickets.iter().filter(|(t, k)| t == table && ids.contains(&k.keys.1));
        let found = found.map(|(_, k)| {
            let at = ledger.changes.get(&k.keys.1);
            Remote {
                sys_id: k.keys.1.clone(),
                number: "INC1".to_owned(),
                active: k.active,
                state: if at.is_some() { "6" } else { "1" }.to_owned(),
                detail: Detail { resolved: at.is_some(), mod_count: at.map(|_| 1), ..Detail::default() },
            }
        });
        Ok(found.collect())
    }

    async fn changed(&self, table: &TableName, since: &Since) -> Result<Changed, SendError> {
        if self.ledger().changes.is_empty() {
            return Ok(Changed::default());
        }
        if let Some(e) = self.called("changed", table, false).await.error() {
            return Err(SendError { doubtful: false, ..e });
        }
        let mut ledger = self.ledger();
        let mut all: Vec<(Timestamp, SysId)> =
            ledger.changes.iter().map(|(id, at)| (*at, id.clone())).collect();
        all.sort();
        all.retain(|(at, id)| {
            *at >= since.at && since.behind.as_ref().is_none_or(|b| (at, id) > (&since.at, b))
        });
        let more = all.len() > CHANGED_PAGE;
        all.truncate(CHANGED_PAGE);
        let next = all.last().filter(|_| more).map(|(at, id)| Since { at: *at, behind: Some(id.clone()) });
        if let Some((_, first)) = all.first().filter(|_| std::mem::take(&mut ledger.touches)) {
            ledger.changes.insert(first.clone(), self.clock.now());
        }
        let resolved = |(at, sys_id)| Remote {
            sys_id,
            number: "INC1".to_owned(),
            active: true,
            state: "6".to_owned(),
            detail: Detail { resolved: true, mod_count: Some(1), updated_at: Some(at), ..Detail::default() },
        };
        Ok(Changed {
            records: all.into_iter().map(resolved).collect(),
            next,
            server_now: Some(self.clock.now().before(ledger.behind)),
            strangers: 0,
        })
    }

    fn requests(&self) -> u64 {
        self.calls() as u64
    }

    /// Headers tell it, where there is a rule.
    fn rate_limit(&self) -> RateLimit {
        RateLimit { limit: self.ledger().hourly, ..RateLimit::default() }
    }
}

/// The title is the only field; one title cannot be composed.
pub(super) struct TitleOnly;

impl Compose for TitleOnly {
    fn compose(&self, facts: &TicketFacts<'_>) -> Result<Fields, String> {
        if facts.alert.title == "uncomposable" {
            return Err("the template failed".to_owned());
        }
        Ok(Fields::from([("short_description".to_owned(), facts.alert.title.clone())]))
    }
}

/// Severity by turns, so that order shows.
pub(super) fn severity(n: u32) -> Severity {
    Severity::ALL[n as usize % 4]
}

pub(super) type SharedDestination = Arc<FakeDestination>;
