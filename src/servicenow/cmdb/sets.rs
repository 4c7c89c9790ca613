//! Import sets that were not through in time, as long as the process lives.
//!
//! Their rows are there and are worked on: they are looked at again before anything of them is sent once more, and the next sets
//! have half as many rows. After a restart nothing is known of them; then the rows are sent once more, which makes nothing twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::destination::Fields;
use crate::model::{SysId, TableName};

/// Most rows of one `insertMultiple`.
pub(super) const ROWS_MAX: usize = 500;
/// Fewer are not sent at a time, however slow the instance is.
const ROWS_LEAST: usize = 10;
/// When an import set is looked at, each after the one before.
const LOOKS: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(12),
];
/// Sets that are remembered.
const OPEN_MAX: usize = 4;
/// How many requests each table takes at most, beside the one that brings the rows.
pub(super) const LOOKS_MAX: usize = LOOKS.len() + OPEN_MAX;
/// How often one is looked at again before its rows are sent once more: it may never be worked on.
const AGAIN_MAX: u32 = 8;
/// How long a set is remembered.
const KEPT: Duration = Duration::from_hours(6);

/// An import set that was not through when it was last looked at.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) table: TableName,
    pub(super) set: SysId,
    /// Its rows in their places; `None`: what became of it is known.
    rows: Vec<Option<Fields>>,
    again: u32,
    since: Instant,
}

impl Open {
    /// One that was just made.
    pub(super) fn new(table: &TableName, set: SysId, rows: &[Fields]) -> Self {
        let rows = rows.iter().cloned().map(Some).collect();
        Self { table: table.clone(), set, rows, again: 0, since: Instant::now() }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Where rows of which nothing is known are in it.
    pub(super) fn places(&self) -> BTreeMap<&Fields, usize> {
        self.rows.iter().enumerate().filter_map(|(at, row)| Some((row.as_ref()?, at))).collect()
    }
}

#[derive(Debug)]
struct Known {
    most: usize,
    looks: Vec<Duration>,
    open: VecDeque<Open>,
}

#[derive(Debug)]
pub(in super::super) struct Sets(Mutex<Known>);

impl Default for Sets {
    fn default() -> Self {
        Self(Mutex::new(Known { most: ROWS_MAX, looks: LOOKS.to_vec(), open: VecDeque::new() }))
    }
}

impl Sets {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many rows a set may have.
    pub(super) fn most(&self) -> usize {
        self.known().most
    }

    /// When a set is looked at.
    pub(super) fn looks(&self) -> Vec<Duration> {
        self.known().looks.clone()
    }

    /// The open ones of a table, oldest first.
    pub(super) fn of(&self, table: &TableName) -> Vec<Open> {
        let mut known = self.known();
        known.open.retain(|open| open.since.elapsed() < KEPT);
        known.open.iter().filter(|open| open.table == *table).cloned().collect()
    }

    /// So many rows were not through in time.
    pub(super) fn slow(&self, rows: usize) {
        let mut known = self.known();
        known.most = (rows.min(known.most) / 2).max(ROWS_LEAST);
    }

    /// What became of the rows of this one is not known yet.
    pub(super) fn keep(&self, open: Open) {
        let mut known = self.known();
        if known.open.len() >= OPEN_MAX {
            known.open.pop_front();
        }
        known.open.push_back(open);
    }

    /// It still is not. Says whether it is looked at once more.
    pub(super) fn again(&self, set: &SysId) -> bool {
        let mut known = self.known();
        if let Some(open) = known.open.iter_mut().find(|open| open.set == *set) {
            open.again += 1;
        }
        known.open.retain(|open| open.again < AGAIN_MAX);
        known.open.iter().any(|open| open.set == *set)
    }

    /// What became of these rows of it is known.
    pub(super) fn taken(&self, set: &SysId, places: impl IntoIterator<Item = usize>) {
        let mut known = self.known();
        if let Some(open) = known.open.iter_mut().find(|open| open.set == *set) {
            for at in places {
                if let Some(row) = open.rows.get_mut(at) {
                    *row = None;
                }
            }
        }
        known.open.retain(|open| open.rows.iter().any(Option::is_some));
    }

    #[cfg(test)]
    fn impatient(&self) {
        self.known().looks = vec![Duration::ZERO];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::{Value, json};

    use super::super::{Import, OnDeleted, Settings};
    use crate::clock::ManualClock;
    use crate::destination::{Destination, DeviceOrder, DevicesSent, SendError};
    use crate::model::{Class, DestinationName, Device, Secret, TableName, Timestamp};
    use crate::net::stub::{Stub, json as answer};
    use crate::net::{Deadlines, TlsSettings};
    use crate::servicenow::{Auth, Basic, ServiceNow};

    fn devices() -> Settings {
        let import = Import {
            device: TableName::new("u_device").unwrap(),
            connection: None,
            firmware: None,
            columns: std::collections::BTreeMap::new(),
            insert_multiple: true,
        };
        Settings {
            agent: "agent-1".to_owned(),
            sensor: "cell-7".to_owned(),
            data_source: "otrelay".to_owned(),
            class_map: std::collections::BTreeMap::new(),
            on_deleted: OnDeleted::Retire,
            import: Some(import),
        }
    }

    fn destination(stub: &Stub) -> ServiceNow {
        let settings = crate::servicenow::Settings {
            name: DestinationName::new("prod").unwrap(),
            instance: stub.url.clone(),
            auth: Auth::Basic(Basic { username: "relay".to_owned(), password: Secret::new("test", "pw") }),
            proxy: None,
            tls: TlsSettings::default(),
            headers: Vec::new(),
            devices: Some(devices()),
        };
        let second = std::time::Duration::from_secs(2);
        let clock = ManualClock::at(Timestamp::from_secs(1_795_248_900));
        let deadlines = Deadlines { connect: second, whole: second };
        let destination = ServiceNow::with_deadlines(settings, clock, deadlines).unwrap();
        destination.sets.impatient();
        destination
    }

    fn orders(numbers: std::ops::Range<usize>) -> Vec<DeviceOrder> {
        let order = |n: usize| DeviceOrder {
            key: format!("d{n}"),
            device: Device { serial: Some(format!("S{n}")), ..Device::default() },
            is_known: false,
            peers: Vec::new(),
        };
        numbers.map(order).collect()
    }

    async fn put(
        destination: &ServiceNow,
        numbers: std::ops::Range<usize>,
    ) -> Result<DevicesSent, SendError> {
        destination.put_devices(&orders(numbers), 100).await
    }

    fn sets(stub: &Stub) -> Vec<usize> {
        let rows = |request: &String| {
            let (_, body) = request.split_once("\r\n\r\n")?;
            let body: Value = serde_json::from_str(body).ok()?;
            Some(body["records"].as_array()?.len())
        };
        stub.seen().iter().filter(|request| request.contains("insertMultiple")).filter_map(rows).collect()
    }

    #[tokio::test]
    async fn a_set_that_is_not_through_in_time_is_looked_at_and_not_sent_again() {
        let through = Arc::new(AtomicBool::new(false));
        let is_through = Arc::clone(&through);
        let set = "a".repeat(32);
        let stub = Stub::start(move |_, request| {
            if request.contains("insertMultiple") {
                return answer(201, &json!({"import_set_id": set}).to_string());
            }
            let state = if is_through.load(Ordering::SeqCst) { "inserted" } else { "pending" };
            let row = |at: usize| {
                json!({"sys_import_set": set, "sys_import_row": at.to_string(), "sys_import_state": state,
                    "sys_target_sys_id": "b".repeat(32), "sys_target_table": "cmdb_ci_ot"})
            };
            answer(200, &json!({"result": (0..40).map(row).collect::<Vec<_>>()}).to_string())
        });
        let destination = destination(&stub);
        for _ in 0..3 {
            let e = put(&destination, 0..40).await.unwrap_err();
            assert_eq!(e.class, Class::Retry);
            assert!(e.message.contains("40 rows is not through yet"), "{}", e.message);
            assert_eq!(sets(&stub), [40]);
        }
        // What became of them is read off in whatever parts they come again; what is new is sent in smaller sets.
        through.store(true, Ordering::SeqCst);
        assert_eq!(put(&destination, 0..1).await.unwrap().outcomes.len(), 1);
        assert_eq!(put(&destination, 1..20).await.unwrap().outcomes.len(), 19);
        assert_eq!(sets(&stub), [40]);
        assert_eq!(put(&destination, 35..80).await.unwrap().outcomes.len(), 20);
        assert_eq!(sets(&stub), [40, 15]);
    }

    #[tokio::test]
    async fn a_set_that_is_never_worked_on_is_sent_again_in_the_end() {
        let stub = Stub::start(|_, request| {
            if request.contains("insertMultiple") {
                return answer(201, &json!({"import_set_id": "a".repeat(32)}).to_string());
            }
            answer(200, r#"{"result": []}"#)
        });
        let destination = destination(&stub);
        for _ in 0..9 {
            assert!(put(&destination, 0..30).await.is_err());
        }
        assert_eq!(sets(&stub), [30, 15]);
    }
}
