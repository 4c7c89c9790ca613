//! A ticket system in memory: keeps what was created, and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::SharedClock;
use crate::destination::{
    Compose, Destination, DroppedField, Fields, Found, Opened, Order, RateLimit, SendError, TicketFacts,
};
use crate::model::{Class, CorrelationId, DestinationName, HoldScope, TableName, Timestamp};
use crate::model::{Severity, SysId};

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
    /// 401.
    Hold,
    /// 403 on the table.
    HoldTable,
    /// 400.
    Reject,
}

impl Fault {
    fn error(self) -> Option<SendError> {
        let (class, status, doubtful) = match self {
            Self::None => return None,
            Self::Busy => (Class::Retry, Some(503), false),
            Self::Accepted => (Class::Retry, Some(202), true),
            Self::LostAfter | Self::LostBefore => (Class::Retry, None, true),
            Self::Told(_) => (Class::RetryAt, Some(429), false),
            Self::Hold => (Class::Hold, Some(401), false),
            Self::HoldTable => (Class::Hold, Some(403), false),
            Self::Reject => (Class::Reject, Some(400), false),
        };
        Some(SendError {
            class,
            hold: if self == Self::HoldTable { HoldScope::Table } else { HoldScope::Destination },
            message: format!("{self:?}"),
            remedy: "do something".to_owned(),
            doubtful,
            wait: if let Self::Told(secs) = self { Some(Duration::from_secs(secs)) } else { None },
            status,
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
    /// Titles that are always refused.
    pub(super) refused: Vec<String>,
    pub(super) in_flight: usize,
    pub(super) most_in_flight: usize,
    pub(super) drops_field: bool,
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
            let refused = (create && l.refused.iter().any(|r| r == what)).then_some(Fault::Reject);
            refused.or(stuck).or(next).unwrap_or(Fault::None)
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

    async fn find(&self, table: &TableName, keys: &[CorrelationId]) -> Result<Vec<Found>, SendError> {
        assert!(!keys.is_empty() && keys.len() <= crate::destination::FIND_MAX);
        if let Some(e) = self.called("find", table, false).await.error() {
            return Err(SendError { doubtful: false, ..e });
        }
        let now = self.clock.now();
        let found = |k: &Kept| Found {
            correlation_id: k.keys.0.clone(),
            sys_id: k.keys.1.clone(),
            number: "INC1".to_owned(),
            active: k.active,
            state: "1".to_owned(),
        };
        let ledger = self.ledger();
        let asked = ledger
            .tickets
            .iter()
            .filter(|(t, k)| t == table && k.seen_from <= now && keys.contains(&k.keys.0));
        Ok(asked.map(|(_, k)| found(k)).collect())
    }

    async fn open(&self, order: &Order) -> Result<Opened, SendError> {
        let title = order.fields.get("short_description").cloned().unwrap_or_default();
        let fault = self.called(&title, &order.table, true).await;
        let now = self.clock.now();
        let mut ledger = self.ledger();
        if !matches!(fault, Fault::None | Fault::LostAfter) {
            return Err(fault.error().unwrap());
        }
        if let Some((_, twin)) = ledger.tickets.iter().find(|(_, k)| k.keys.1 == order.keys.sys_id) {
            // The unique key of the other side.
            ledger.careless += u32::from(twin.seen_from <= now);
            return Err(Fault::Accepted.error().unwrap());
        }
        let keys = (order.keys.correlation_id.clone(), order.keys.sys_id.clone());
        ledger
            .tickets
            .push((order.table.clone(), Kept { title, active: true, seen_from: now.after(self.lag), keys }));
        if let Some(e) = fault.error() {
            return Err(e);
        }
        let dropped = DroppedField { field: "assignment_group".to_owned(), got: String::new() };
        Ok(Opened {
            sys_id: order.keys.sys_id.clone(),
            number: format!("INC{}", ledger.tickets.len()),
            state: "1".to_owned(),
            dropped: if ledger.drops_field { vec![dropped] } else { Vec::new() },
        })
    }

    fn requests(&self) -> u64 {
        self.calls() as u64
    }

    fn rate_limit(&self) -> RateLimit {
        RateLimit::default()
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
