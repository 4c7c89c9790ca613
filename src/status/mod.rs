//! For people: how things are, in one value that `status` prints and `status --json` gives out.
//!
//! `sd_notify` and `keeper` tell systemd: readiness, one line of status, signs of life that `watchdog` judges.
//!
//! Reads only. Whether something needs a person is decided here and nowhere else, so that the text, the JSON and the
//! exit code cannot disagree.

pub mod graph;
mod keeper;
mod metrics;
pub mod page;
mod sd_notify;
mod watchdog;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::model::text::clip;
use crate::model::{HealthIssue, Timestamp, trouble};
use crate::store::op::identity::FROM_NAME;
use crate::store::{DestinationRow, Overview, SyncRow};

pub use keeper::Keeper;
pub use sd_notify::Notifier;

/// `[status]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the page listens, an address of this machine alone; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// File that the metrics are written to.
    pub textfile: Option<PathBuf>,
}

/// How things are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Status {
    /// Version of the otrelay that answers.
    pub version: String,
    /// `[agent] name`.
    pub agent: String,
    /// Whether the service runs.
    pub running: bool,
    /// Whether a sync runs at this moment.
    pub syncing: bool,
    /// When this was asked.
    pub now: Timestamp,
    /// When the next sync is due; absent when no service runs or sync is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_sync_at: Option<Timestamp>,
    /// Records that were taken in and are committed within half a minute, in no other number yet.
    #[serde(default)]
    pub gathered: u64,
    /// Why what failed last is tried again; what needs a person is in `health`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing: Vec<String>,
    /// What waits for the next hour of a budget and needs nobody, and how long that will take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<String>,
    /// `enabled = false` in `[sync]`: nothing is pushed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sync_off: bool,
    /// What needs a person; empty when all is fine.
    pub health: Vec<HealthIssue>,
    /// The numbers.
    #[serde(flatten, skip_deserializing)]
    pub overview: Overview,
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// Read twice, the numbers by themselves: to read both at once, each number would be kept as any value that it could be,
/// and the code for that is twenty kilobytes more.
impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let overview = Overview::deserialize(value.clone()).map_err(D::Error::custom)?;
        Ok(Self { overview, ..Self::deserialize(value).map_err(D::Error::custom)? })
    }
}

/// What the running service knows besides its store.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Whether a sync runs.
    pub syncing: bool,
    /// When the next one is due.
    pub next_sync_at: Option<Timestamp>,
    /// The last sync, where it had nothing to do and is not in the store.
    pub empty_sync: Option<SyncRow>,
    /// Bytes that each source has not read, by its name.
    pub behind: BTreeMap<String, u64>,
    /// Records that wait for their commit.
    pub gathered: u64,
    /// Why what failed last is tried again.
    pub failing: Vec<String>,
    /// Whether sync is off by the config.
    pub sync_off: bool,
    /// What is the case with the store now.
    pub conditions: Vec<HealthIssue>,
    /// What is wrong with the service itself and in no store: a refused reload, a wrong clock.
    pub concerns: Vec<HealthIssue>,
}

impl Status {
    /// Puts it together; `live` is `None` when no service runs.
    pub fn new(agent: &str, now: Timestamp, mut overview: Overview, live: Option<Live>) -> Self {
        let running = live.is_some();
        let live = live.unwrap_or_default();
        overview.last_sync = live.empty_sync.or(overview.last_sync);
        for source in &mut overview.sources {
            source.behind = live.behind.get(&source.name).copied();
        }
        let mut all = live.concerns;
        all.extend(off(live.sync_off, &overview));
        all.extend(health(&overview, &live.conditions, now));
        let mut failing = live.failing;
        failing.retain(|words| overview.backlog > 0 && !all.iter().any(|issue| issue.text.contains(words)));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            agent: agent.to_owned(),
            failing,
            waiting: overview.destinations.iter().filter_map(|row| waits(row, now)).collect(),
            sync_off: live.sync_off,
            running,
            syncing: live.syncing,
            now,
            next_sync_at: live.next_sync_at,
            gathered: live.gathered,
            health: all,
            overview,
        }
    }

    /// In one line, for `systemctl status`: what is wrong first, then the last sync, the next, and what waits.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        match self.health.as_slice() {
            [] => {}
            [one] => parts.push(one.text.clone()),
            [first, rest @ ..] => parts.push(format!("{} (and {} more)", first.text, rest.len())),
        }
        parts.push(match &self.overview.last_sync {
            _ if self.syncing => "Syncing".to_owned(),
            None => "No sync yet".to_owned(),
            Some(s) => {
                let found = if s.found > 0 { format!(", {} found", s.found) } else { String::new() };
                format!(
                    "Last sync {} UTC: {} created{found}, {} to retry",
                    minute(s.started_at),
                    s.created,
                    s.again
                )
            }
        });
        if let Some(at) = self.next_sync_at.filter(|_| !self.syncing) {
            parts.push(format!("next {}", minute(at)));
        }
        parts.push(format!("backlog {}", self.overview.backlog));
        parts.join("; ")
    }
}

/// How many wait for the next hour of a destination's budget, why, and for how many hours about.
fn waits(row: &DestinationRow, now: Timestamp) -> Option<String> {
    let spent = row.spent.as_ref().filter(|spent| spent.until_at > now)?;
    let of = |state: &str| row.counts.get(state).copied().unwrap_or(0);
    let waiting = u64::try_from(of("pending") + of("claimed")).ok().filter(|waiting| *waiting > 0)?;
    let verb = if waiting == 1 { "waits" } else { "wait" };
    let hours = waiting.div_ceil(u64::from(spent.per_hour).max(1));
    let long = if spent.per_hour > 0 && hours > 1 {
        format!("; at about {} an hour all of them take about {hours} hours", spent.per_hour)
    } else {
        String::new()
    };
    Some(format!("{}: {waiting} {verb} for the budget: {}{long}", row.name, spent.reason))
}

/// That sync is off is somebody's wish; that something waits for it is to be seen all the same.
pub fn off(is_off: bool, o: &Overview) -> Option<HealthIssue> {
    let oldest = o.oldest_pending_at.filter(|_| is_off && o.backlog > 0)?;
    let what =
        if o.backlog == 1 { "1 delivery waits".to_owned() } else { format!("{} deliveries wait", o.backlog) };
    let since = oldest.servicenow();
    Some(HealthIssue::new(
        "sync-off",
        format!(
            "sync is off (`enabled = false` in [sync]): {what}, the first since {since} UTC; nothing is pushed"
        ),
        "set `enabled = true` in [sync] and reload the service; until then all is kept as far as [buffer] max_size \
         has room",
    ))
}

/// `14:02`; with the date only where a clock is far off would it be of use, and there the health says so.
fn minute(at: Timestamp) -> String {
    at.servicenow().get(11..16).unwrap_or_default().to_owned()
}

/// How far this machine's clock may be behind what it showed before: daylight saving done wrong, a restored image.
const SET_BACK: Duration = Duration::from_hours(24);
/// Bytes that are shown of what the other side said.
const SHOWN_MAX: usize = 200;

fn health(o: &Overview, conditions: &[HealthIssue], now: Timestamp) -> Vec<HealthIssue> {
    let mut all = Vec::new();
    let mut add = |code: &str, what: String, remedy: &str| {
        all.push(HealthIssue::new(code, what, remedy));
    };
    for issue in conditions {
        add(&issue.code, issue.text.clone(), &issue.remedy);
    }
    if o.agent_id_from.as_deref() == Some(FROM_NAME) {
        add(
            "no-machine-id",
            "this machine has no machine id: the agent's name is its identity".to_owned(),
            "set [agent] id to something that no other agent has, or make a machine id (systemd-machine-id-setup)",
        );
    }
    let read = o.sources.iter().map(|source| source.last_read_at);
    let latest = read.chain(o.last_sync.as_ref().map(|sync| sync.started_at)).max();
    if let Some(latest) = latest.filter(|latest| latest.since(now) > SET_BACK) {
        add(
            "clock-set-back",
            format!("the clock says {} UTC, and was at {} UTC before", now.servicenow(), latest.servicenow()),
            "set the clock of this machine (timedatectl, NTP); if it is right now, this passes with the next sync and \
             the next alerts",
        );
    }
    for source in &o.sources {
        if let Some(trouble) = &source.trouble {
            let (trouble, packed) = trouble::split(trouble);
            if let Some(trouble) = trouble {
                let code = trouble::code(trouble);
                let (trouble, remedy) = trouble::parts(&source.kind, trouble);
                add(code, format!("source {}: {trouble}", source.name), remedy);
            }
            if let Some(packed) = packed {
                add("packed-unread", format!("source {}: {packed}", source.name), trouble::UNPACK);
            }
        }
    }
    all.extend(o.destinations.iter().flat_map(|destination| held(destination, now)));
    let mut add = |code: &str, what: String, remedy: &str| {
        all.push(HealthIssue::new(code, what, remedy));
    };
    if o.dead > 0 {
        add(
            "dead-letters",
            dead_letters(o.dead, o.last_dead.as_deref()),
            "otrelay queue list --dead; then otrelay queue retry ID or otrelay queue drop ID",
        );
    }
    if o.shed > 0 {
        add(
            "shed",
            format!(
                "{} undelivered alerts were given up because the buffer was full{}",
                o.shed,
                by_severity(&o.shed_by_severity)
            ),
            "raise [buffer] max_size, or narrow the rules",
        );
    }
    all.extend(o.issues.iter().map(|row| row.issue.clone()));
    all
}

fn held(destination: &DestinationRow, now: Timestamp) -> impl Iterator<Item = HealthIssue> {
    destination.holds.iter().map(move |hold| {
        let place = if hold.table.is_empty() { String::new() } else { format!(", table {}", hold.table) };
        let until = if hold.until_at > now {
            format!(" (tried again at {} UTC)", hold.until_at.servicenow())
        } else {
            String::new()
        };
        let what = format!("destination {}{place} waits: {}{until}", destination.name, hold.reason);
        HealthIssue::new("hold", what, hold.remedy.as_str())
    })
}

/// How many, and why the newest.
fn dead_letters(number: i64, why: Option<&str>) -> String {
    let why = why.map(str::trim).filter(|why| !why.is_empty()).map(|why| clip(why, SHOWN_MAX));
    match (number, why) {
        (1, None) => "1 dead letter".to_owned(),
        (_, None) => format!("{number} dead letters"),
        (1, Some(why)) => format!("1 dead letter: {why}"),
        (_, Some(why)) => format!("{number} dead letters, the newest: {why}"),
    }
}

/// ` (12 warning, 3 minor)`.
fn by_severity(counts: &BTreeMap<String, i64>) -> String {
    let words: Vec<String> = counts.iter().map(|(severity, count)| format!("{count} {severity}")).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Spent;

    #[test]
    fn an_identity_that_is_a_name_is_said() {
        let overview = Overview { agent_id_from: Some(FROM_NAME.to_owned()), ..Overview::default() };
        let status = Status::new("a", Timestamp::EPOCH, overview, None);
        assert_eq!(status.health[0].code, "no-machine-id");
        let json = serde_json::to_value(&status).unwrap();
        assert!(json["health"][0]["text"].is_string() && json["health"][0]["remedy"].is_string(), "{json}");
        assert_eq!((&json["folded"], &json["backlog"], &json["dead"]), (&0.into(), &0.into(), &0.into()));
    }

    #[test]
    fn quiet_when_fine() {
        let status = Status::new("a", Timestamp::EPOCH, Overview::default(), Some(Live::default()));
        assert!(status.health.is_empty() && status.running);
    }

    #[test]
    fn a_sync_that_is_not_in_the_store_is_told_all_the_same() {
        let sync = |secs| SyncRow { started_at: Timestamp::from_secs(secs), ..Default::default() };
        let overview = Overview { last_sync: Some(sync(1_000)), ..Overview::default() };
        let live = Live { empty_sync: Some(sync(2_000)), ..Live::default() };
        let status = Status::new("a", Timestamp::from_secs(2_100), overview, Some(live));
        assert_eq!(status.overview.last_sync.unwrap().started_at, Timestamp::from_secs(2_000));
    }

    #[test]
    fn a_clock_that_was_set_back_far_is_said() {
        let sync = SyncRow { started_at: Timestamp::from_secs(1_000_000), ..Default::default() };
        let overview = Overview { last_sync: Some(sync), ..Overview::default() };
        let says = |now| health(&overview, &[], Timestamp::from_secs(now)).pop().map(|a| a.text);
        assert_eq!((says(1_000_000), says(1_000_000 - 86_400)), (None, None));
        let what = "the clock says 1970-01-11 13:46:39 UTC, and was at 1970-01-12 13:46:40 UTC before";
        assert_eq!(says(1_000_000 - 86_401).as_deref(), Some(what));
    }

    #[test]
    fn the_line_for_systemd_has_what_is_wrong_first() {
        let sync =
            SyncRow { started_at: Timestamp::from_secs(50_520), created: 3, again: 1, ..Default::default() };
        let overview = Overview { last_sync: Some(sync), backlog: 12, dead: 2, ..Overview::default() };
        let next_sync_at = Some(Timestamp::from_secs(54_120));
        let live = Live { next_sync_at, ..Live::default() };
        let mut status = Status::new("a", Timestamp::from_secs(50_530), overview, Some(live));
        assert_eq!(
            status.line(),
            "2 dead letters; Last sync 14:02 UTC: 3 created, 1 to retry; next 15:02; backlog 12"
        );
        status.syncing = true;
        status.health.insert(0, HealthIssue::new("", "x", ""));
        assert_eq!(status.line(), "x (and 1 more); Syncing; backlog 12");
    }

    #[test]
    fn the_store_comes_first_and_what_was_given_up_is_told_by_severity() {
        let full = HealthIssue::new("disk-full", "the disk is full", "make space");
        let live = Live { conditions: vec![full], ..Live::default() };
        let shed_by_severity = [("minor".to_owned(), 3), ("warning".to_owned(), 12)].into();
        let overview = Overview { shed: 15, shed_by_severity, ..Overview::default() };
        let status = Status::new("a", Timestamp::EPOCH, overview, Some(live));
        let words: Vec<&str> = status.health.iter().map(|a| a.text.as_str()).collect();
        let given_up =
            "15 undelivered alerts were given up because the buffer was full (3 minor, 12 warning)";
        assert_eq!(words, ["the disk is full", given_up]);
    }

    #[test]
    fn what_waits_for_a_budget_is_said_until_its_hour_ends_and_needs_nobody() {
        let says = |pending: i64, per_hour: u32, now: i64| {
            let spent = Spent {
                reason: "R".to_owned(),
                until_at: Timestamp::from_secs(3_600),
                critical_go_on: true,
                per_hour,
            };
            let mut row = destination();
            (row.spent, row.counts) = (Some(spent), [("pending".to_owned(), pending)].into());
            let overview = Overview { destinations: vec![row], ..Overview::default() };
            let status = Status::new("a", Timestamp::from_secs(now), overview, None);
            assert!(status.health.is_empty());
            status.waiting.join("|")
        };
        let all = "prod: 257 wait for the budget: R; at about 52 an hour all of them take about 5 hours";
        assert_eq!(says(257, 52, 3_599), all);
        assert_eq!(says(52, 52, 0), "prod: 52 wait for the budget: R");
        assert_eq!(says(1, 0, 0), "prod: 1 waits for the budget: R");
        assert_eq!((says(257, 52, 3_600), says(0, 52, 0)), (String::new(), String::new()));
    }

    fn destination() -> DestinationRow {
        DestinationRow {
            name: "prod".to_owned(),
            counts: BTreeMap::new(),
            last_ok_at: None,
            last_error_at: None,
            last_error: None,
            holds: Vec::new(),
            requests_this_hour: 0,
            spent: None,
        }
    }

    #[test]
    fn says_what_needs_a_person() {
        let hold = crate::store::HoldRow {
            table: String::new(),
            since_at: Timestamp::EPOCH,
            until_at: Timestamp::from_secs(300),
            reason: "the instance refused the token".to_owned(),
            remedy: "check the client".to_owned(),
        };
        let destination = DestinationRow { holds: vec![hold], ..destination() };
        let overview = Overview { destinations: vec![destination], dead: 1, ..Overview::default() };
        let status = Status::new("a", Timestamp::EPOCH, overview, None);
        let words: Vec<&str> = status.health.iter().map(|a| a.text.as_str()).collect();
        assert_eq!(
            words,
            [
                "destination prod waits: the instance refused the token (tried again at 1970-01-01 00:05:00 UTC)",
                "1 dead letter"
            ]
        );
        assert_eq!(dead_letters(1, Some("no such choice")), "1 dead letter: no such choice");
        assert_eq!(dead_letters(3, Some("no such choice")), "3 dead letters, the newest: no such choice");
        assert!(dead_letters(3, Some(&"x".repeat(10_000))).len() < 300);
    }
}
