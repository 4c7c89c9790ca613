//! What lists and status are made of. Commands print these with `--json`: their names are an interface. No behaviour.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::device::merge::View;
use crate::model::device::Peer;
use crate::model::{Alert, DeliveryId, Device, Engine, HealthIssue, Severity, TicketId, Timestamp};

/// What a list shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ListFilter {
    /// At most so many rows, newest first.
    #[serde(default)]
    pub limit: u32,
    /// This level and every higher one.
    #[serde(default)]
    pub min_severity: Option<Severity>,
    /// Text that the title has in it (any case).
    #[serde(default)]
    pub text: Option<String>,
    /// Only deliveries or tickets in this state.
    #[serde(default)]
    pub state: Option<String>,
    /// Only with one of its protocols so named.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Only of this engine.
    #[serde(default)]
    pub engine: Option<Engine>,
    /// Only of this source.
    #[serde(default)]
    pub source: Option<String>,
    /// Only what was last seen, or made, then or later.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only with an end in this network.
    #[serde(default)]
    pub address: Option<IpNet>,
    /// Only the ticket of this number.
    #[serde(default)]
    pub number: Option<String>,
    /// Only what comes behind this row in the order of the list: the next page.
    #[serde(default)]
    pub after: Option<Last>,
}

impl ListFilter {
    /// Whether it asks for what only the alert itself tells.
    pub(super) fn looks_inside(&self) -> bool {
        self.text.is_some() || self.protocol.is_some() || self.engine.is_some() || self.address.is_some()
    }
}

/// The last row of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Its severity, by which pending deliveries are in order.
    pub severity: Severity,
    /// Its turn within the severity, where pending deliveries are listed.
    #[serde(default)]
    pub turn: i64,
    /// Its id.
    pub id: i64,
}

/// How things are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overview {
    /// The agent's identity, part of every fingerprint; absent before the first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Where it is from: `config`, `machine` (derived from the machine id) or `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id_from: Option<String>,
    /// Sources in the order they were first read.
    pub sources: Vec<SourceRow>,
    /// Destinations.
    pub destinations: Vec<DestinationRow>,
    /// The last sync, if there was one.
    pub last_sync: Option<SyncRow>,
    /// What a person should know.
    pub issues: Vec<IssueRow>,
    /// Deliveries that wait, over all destinations.
    pub backlog: i64,
    /// Deliveries that need a person.
    pub dead: i64,
    /// What the other side said of the newest dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_dead: Option<String>,
    /// Findings that a parent ticket stands for.
    #[serde(default)]
    pub folded: i64,
    /// When the oldest waiting delivery was made.
    pub oldest_pending_at: Option<Timestamp>,
    /// Alerts that were given up because the buffer was full.
    pub shed: i64,
    /// The same, by their severity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shed_by_severity: BTreeMap<String, i64>,
    /// Times that the database was found damaged and made anew, newest first.
    #[serde(default)]
    pub repairs: Vec<RepairRow>,
    /// Devices.
    #[serde(default)]
    pub devices: DeviceCounts,
    /// Bytes of the database.
    pub bytes: u64,
}

/// Rows of one table after a healing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairCount {
    /// Rows that came over.
    pub salvaged: u64,
    /// Rows that were there and did not.
    pub lost: u64,
    /// Lost rows that could be made again from others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub made_again: u64,
    /// More may have been lost: what would say how many could not be read.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_least: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// Rows by table.
pub type RepairCounts = BTreeMap<String, RepairCount>;

/// A time that the database was found damaged and made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRow {
    /// When.
    pub at: Timestamp,
    /// File name of the damaged database in the state directory.
    pub kept_as: String,
    /// What was found.
    pub cause: String,
    /// Rows by table.
    pub counts: RepairCounts,
    /// Whether the cursors were given up, so that files are read again.
    pub rewound: bool,
}

impl RepairRow {
    /// What happened, in words.
    pub fn text(&self) -> String {
        let rewound = if self.rewound {
            "; the files of the sources are read again, as far back as [sync] backfill reaches; \
             what was done before (outcomes of sends, syncs, samples) is not kept"
        } else {
            "; what was done before (outcomes of sends, syncs, samples) is not kept"
        };
        let of = |table: &str| self.counts.get(table).copied().unwrap_or_default();
        let (alerts, deliveries) = (of("alert"), of("delivery"));
        let least = if alerts.at_least { "at least " } else { "" };
        let again = if deliveries.made_again > 0 {
            format!(" ({} made again)", deliveries.made_again)
        } else {
            String::new()
        };
        if alerts.at_least && (alerts.salvaged, alerts.lost) == (0, 0) {
            return format!(
                "the database was damaged ({}) and was made anew: nothing of it could be read, so all that was not \
                 delivered and what was known of tickets is lost, and how much that was is unknown{rewound}",
                self.cause
            );
        }
        format!(
            "the database was damaged ({}) and was made anew: {} alerts were salvaged, {least}{} lost; {} deliveries \
             were salvaged, {} lost{again}{rewound}",
            self.cause, alerts.salvaged, alerts.lost, deliveries.salvaged, deliveries.lost
        )
    }
}

/// A source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceRow {
    /// Its name.
    pub name: String,
    /// Its kind, as in the config.
    pub kind: String,
    /// When it was first read; absent when nothing could be read yet.
    pub first_read_at: Option<Timestamp>,
    /// When a record or a device last came of it; before that, when it was first tried.
    pub last_read_at: Timestamp,
    /// When the last alert came.
    pub last_alert_at: Option<Timestamp>,
    /// What is wrong with it now.
    pub trouble: Option<String>,
    /// Bytes that lie in its files and are not read; absent when no service runs, or it reads no files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
    /// Records read: `alerts` and the sums of `ignored` and `rejected`.
    pub lines: i64,
    /// Alerts among them: `new`, `repeats`, `cleared` and the sums of `filtered` and `excluded`.
    pub alerts: i64,
    /// Findings seen for the first time.
    pub new: i64,
    /// Sightings of known findings.
    pub repeats: i64,
    /// Sightings that took a finding back.
    pub cleared: i64,
    /// What was told of devices.
    pub devices: i64,
    /// Alerts from senders that nobody has authenticated (plain syslog).
    #[serde(default)]
    pub unauthenticated: i64,
    /// Alerts that `otrelay sources rewind` took in after all; among `alerts`.
    #[serde(default)]
    pub again: i64,
    /// Whether it was ordered to be read again.
    #[serde(default)]
    pub rewound: bool,
    /// From when on orders to read it again took it in, the farthest of them; absent: all of it, or there was no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound_since: Option<Timestamp>,
    /// Alerts that were not forwarded, by reason.
    pub filtered: BTreeMap<String, i64>,
    /// Alerts that an exclusion kept from the rules, by its name.
    pub excluded: BTreeMap<String, i64>,
    /// Records that are no alerts, by kind.
    pub ignored: BTreeMap<String, i64>,
    /// Input that was not understood, by reason.
    pub rejected: BTreeMap<String, i64>,
}

/// A destination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DestinationRow {
    /// Its name.
    pub name: String,
    /// Deliveries by state, and `created`, `found`, `retries`.
    pub counts: BTreeMap<String, i64>,
    /// When it last did what was asked.
    pub last_ok_at: Option<Timestamp>,
    /// When it last did not.
    pub last_error_at: Option<Timestamp>,
    /// What it said then.
    pub last_error: Option<String>,
    /// What of it waits.
    pub holds: Vec<HoldRow>,
    /// Requests in the present hour of the budget.
    pub requests_this_hour: i64,
    /// What of the budget made something wait when it was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// The requests of an hour are used up, or those that are not kept for critical alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Whose limit, how many were made, and when it goes on.
    pub reason: String,
    /// When the hour ends.
    pub until_at: Timestamp,
    /// Critical alerts go on: some are kept for them.
    pub critical_go_on: bool,
    /// Deliveries that such an hour carries, as the last ones went; 0: not known.
    pub per_hour: u32,
}

/// A destination, or one table of it, that waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldRow {
    /// Empty: the whole destination.
    pub table: String,
    /// Since when.
    pub since_at: Timestamp,
    /// Until when at least.
    pub until_at: Timestamp,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// One run of pushing what is due.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SyncRow {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it ran.
    pub cause: String,
    /// Tickets created.
    pub created: i64,
    /// Tickets found there already.
    pub found: i64,
    /// Deliveries to be tried again.
    pub again: i64,
    /// Dead letters made.
    pub dead: i64,
}

/// What a person should know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssueRow {
    /// What it is.
    #[serde(flatten)]
    pub issue: HealthIssue,
    /// First seen.
    pub first_at: Timestamp,
    /// Last seen.
    pub last_at: Timestamp,
    /// How often.
    pub count: i64,
}

/// A finding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertRow {
    /// Its row.
    pub id: i64,
    /// 64 hex digits.
    pub fingerprint: String,
    /// Which source.
    pub source: String,
    /// How often it was seen.
    pub occurrences: i64,
    /// By the sensor's clock.
    pub first_seen_at: Timestamp,
    /// By the sensor's clock.
    pub last_seen_at: Timestamp,
    /// The alert as first recorded; `null` when the row is damaged.
    pub alert: Option<Alert>,
}

/// A recent alert that was not forwarded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FilteredRow {
    /// By the sensor's clock.
    pub at: Timestamp,
    /// Which source.
    pub source: String,
    /// Why.
    pub reason: String,
    /// Severity.
    pub severity: Severity,
    /// Engine.
    pub engine: String,
    /// First protocol.
    pub protocol: String,
    /// Title.
    pub title: String,
    /// `10.0.0.1 → 10.0.0.2`.
    pub parties: String,
}

/// Recent input that was not understood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RejectRow {
    /// When it was read.
    pub at: Timestamp,
    /// Which source.
    pub source: String,
    /// Why.
    pub reason: String,
    /// Where and what.
    pub detail: String,
    /// The beginning of it.
    pub sample: String,
}

/// A ticket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TicketRow {
    /// Its row.
    pub id: TicketId,
    /// Destination.
    pub destination: String,
    /// Table there.
    pub table: String,
    /// `INC0010042`; empty until it is there, and on tables without numbers.
    pub number: String,
    /// Empty until it is there.
    pub sys_id: String,
    /// `opening`, `open`, `resolved`, `closed`, `deleted`; `folded`: the ticket of this number stands for it; `withdrawn`.
    pub state: String,
    /// Display name of who works on it there; empty: nobody, or it was not read back yet.
    pub assigned_to: String,
    /// What was written when it was closed there.
    pub close_notes: String,
    /// What is strange about its record, which was found and not made; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub adopted: String,
    /// Why it could not be closed there when its finding ended; empty: it was, or was not to be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub not_closed: String,
    /// Value of its field `correlation_id`.
    pub correlation_id: String,
    /// How many tickets of the same alert were closed before.
    pub generation: u32,
    /// The rule that asked for it.
    pub rule: String,
    /// When it was confirmed there.
    pub opened_at: Option<Timestamp>,
    /// Severity of the alert.
    pub severity: Severity,
    /// Title of the alert.
    pub title: String,
    /// `10.0.0.1 → 10.0.0.2`.
    pub parties: String,
    /// How often the alert was seen.
    pub occurrences: i64,
    /// Fingerprint of the alert.
    pub fingerprint: String,
    /// How many findings of a storm it stands for; only where one ticket is asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub folded: u64,
}

/// A delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Its id, for `queue show|retry|drop`.
    pub id: DeliveryId,
    /// What it tells.
    pub kind: String,
    /// Where it is.
    pub state: String,
    /// Destination.
    pub destination: String,
    /// Table there.
    pub table: String,
    /// Severity of the alert.
    pub severity: Severity,
    /// Title of the alert.
    pub title: String,
    /// Attempts so far.
    pub attempts: u32,
    /// Whether an attempt may have reached the other side without an answer.
    pub doubtful: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is due.
    pub due_at: Timestamp,
    /// The other side's words of the last failure.
    pub reason: Option<String>,
    /// The rule that asked for it.
    pub rule: String,
    /// Its turn: within a severity of a table lower ones go first.
    #[serde(default)]
    pub turn: i64,
    /// Its attempts, oldest first; only in `queue show`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<AttemptRow>,
    /// Its alert; only in `queue show`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptRow {
    /// Which.
    pub n: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: i64,
    /// What came of it.
    pub outcome: String,
    /// HTTP status.
    pub status: Option<u16>,
    /// The ticket's number, or the other side's words.
    pub message: Option<String>,
}

/// Counters by scope and name.
pub type Counts = BTreeMap<String, BTreeMap<String, i64>>;

/// How far apart the rows of a history are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Half an hour, over the last day.
    HalfHour,
    /// A day, over the last month.
    Day,
}

impl Ring {
    /// Both.
    pub const ALL: [Self; 2] = [Self::HalfHour, Self::Day];

    /// Its word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HalfHour => "half-hour",
            Self::Day => "day",
        }
    }

    /// Seconds between two rows.
    pub fn seconds(self) -> i64 {
        match self {
            Self::HalfHour => 1800,
            Self::Day => 86_400,
        }
    }

    /// Rows that are kept.
    pub fn kept(self) -> i64 {
        match self {
            Self::HalfHour => 48,
            Self::Day => 31,
        }
    }

    /// To which row an instant belongs: half hours or days since 1970, UTC.
    pub fn slot(self, at: Timestamp) -> i64 {
        at.as_secs().div_euclid(self.seconds())
    }
}

/// The counters at the beginning of a half hour or day in which something happened.
#[derive(Clone, Debug)]
pub struct HistoryPoint {
    /// Which, counted as by [`Ring::slot`].
    pub slot: i64,
    /// The counters then.
    pub counts: Counts,
}

/// What waits of one severity.
#[derive(Clone, Copy, Debug)]
pub struct WaitingRow {
    /// Which.
    pub severity: Severity,
    /// How many; not counted beyond [`COUNTED`].
    pub count: i64,
    /// When the oldest was made.
    pub oldest_at: Option<Timestamp>,
}

/// So far what waits is counted by severity: a page must not take longer the more waits.
pub const COUNTED: i64 = 1_000;

/// The columns that [`repair`] reads; the id is one more.
pub(super) const REPAIR: &str = "SELECT at, kept_as, cause, counts, rewound, id FROM repair";

/// A row of [`REPAIR`].
pub(super) fn repair(row: &rusqlite::Row<'_>) -> rusqlite::Result<RepairRow> {
    Ok(RepairRow {
        at: Timestamp::from_micros(row.get(0)?),
        kept_as: row.get(1)?,
        cause: row.get(2)?,
        // Written by us; a damaged one says nothing.
        counts: serde_json::from_str(&row.get::<_, String>(3)?).unwrap_or_default(),
        rewound: row.get(4)?,
    })
}

/// Which devices a list shows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DeviceFilter {
    /// At most so many; 0: all.
    #[serde(default)]
    pub limit: u32,
    /// Text that one of its attributes has in it (any case).
    #[serde(default)]
    pub text: Option<String>,
    /// Only of this type (any case).
    #[serde(default)]
    pub kind: Option<String>,
    /// Only in this zone (any case).
    #[serde(default)]
    pub zone: Option<String>,
    /// Only what has changed since then.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// Only what there is still to be told.
    #[serde(default)]
    pub changed: bool,
    /// Each with the known devices that it talks to.
    #[serde(default)]
    pub peers: bool,
}

/// A device of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceRow {
    /// What it is called here and, behind the agent's id, there.
    pub id: String,
    /// Its attributes.
    #[serde(flatten)]
    pub view: View,
    /// Parts that are not told yet.
    pub changed: Vec<String>,
    /// When something about it last changed.
    pub changed_at: Timestamp,
    /// When it was last told.
    pub told_at: Option<Timestamp>,
    /// Its CI; empty: none yet.
    pub sys_id: String,
    /// The class of the CI.
    pub class: String,
    /// When a source last said something of it.
    pub seen_at: Timestamp,
    /// Known devices that it talks to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
    /// What each source says; only of a single device.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<DeviceWord>,
}

/// What one source says of a device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceWord {
    /// The source.
    pub source: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub device: Device,
}

/// Devices in the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounts {
    /// How many are known.
    pub known: i64,
    /// How many have changed since they were last told, and wait for the next sync.
    pub changed: i64,
    /// When devices were last synced.
    pub last_sync: Option<Timestamp>,
}

/// How far a source was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingRow {
    /// Its name.
    pub name: String,
    /// Files of which a place is kept, the first of them by path.
    pub files: Vec<ReadFile>,
    /// How many there are.
    pub file_count: u64,
    /// Bytes of them that were read.
    pub read: u64,
    /// Bytes that were there when it was first read, or set back, and are still to be read.
    pub backlog: u64,
    /// Whether it was ever set back.
    pub rewound: bool,
    /// Since when it is taken in then.
    pub since: Option<Timestamp>,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadFile {
    /// Where it was last seen.
    pub path: String,
    /// Bytes that were read.
    pub read: u64,
}
