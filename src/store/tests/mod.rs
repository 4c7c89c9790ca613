//! The store on a real disk: what operations do, what a restart finds, and a model that must agree with it.

mod affected;
mod closing;
mod damage;
mod devices;
mod faults;
mod model;
mod planned;
mod repair;
mod room;
mod share;
mod turns;
mod upgrade;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::op::claim::{Claim, Claimed};
use super::op::dead::Verdict;
use super::op::destination_state::{DestinationChange, Hold};
use super::op::health::SyncRun;
use super::op::life::Seen;
use super::op::record::{Entry, Filtered, Record, Recorded, Rejected, Routed, Sample};
use super::op::settle::{Outcome, Settled};
use super::*;
use crate::clock::ManualClock;
use crate::model::cursor::Proof;
use crate::model::life::{Life, Lives, OnCleared, OnSeenAgain};
use crate::model::{
    Alert, Cursor, DeliveryId, DeliveryKind, DeliveryState, DestinationName, Engine, FileCursor, Fingerprint,
    Identity, Mark, RuleName, Severity, SourceName, SysId, TableName, Timestamp,
};

pub(super) const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

/// A store in a temporary directory, with its writer running.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) clock: Arc<ManualClock>,
    writer: tokio::task::JoinHandle<Result<(), StoreError>>,
}

pub(super) fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_size: 64 << 20,
        keep_delivered: Duration::from_hours(720),
        when_full: WhenFull::ShedLowest,
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), |_| {})
    }

    pub(super) fn open(dir: tempfile::TempDir, change: impl FnOnce(&mut Settings)) -> Self {
        let clock = ManualClock::at(NOW);
        let mut settings = settings(dir.path());
        change(&mut settings);
        let (store, writer) = Store::open(&settings, clock.clone()).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test is the only spawner here")]
        let writer = tokio::spawn(writer.run());
        Self { dir, store, clock, writer }
    }

    /// Closes it, as a process that ends does, and opens it again.
    pub(super) async fn reopen(self) -> Self {
        let Self { dir, store, writer, .. } = self;
        drop(store);
        writer.await.unwrap().unwrap();
        Self::open(dir, |_| {})
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(self.dir.path()).unwrap()
    }

    pub(super) async fn record(&self, entries: Vec<Entry>) -> Recorded {
        self.store.record(vec![record(entries)]).await.unwrap()
    }

    pub(super) async fn claim(&self, limit: usize) -> Vec<Claimed> {
        self.store.claim(claim(limit, self.clock_now())).await.unwrap()
    }

    pub(super) fn clock_now(&self) -> Timestamp {
        use crate::clock::Clock;
        self.clock.now()
    }

    pub(super) async fn settle(&self, c: &Claimed, outcome: Outcome) {
        self.store.settle(vec![settled(c, outcome)]).await.unwrap();
    }
}

pub(super) fn claim(limit: usize, now: Timestamp) -> Claim {
    Claim {
        destination: destination(),
        except: Vec::new(),
        limit,
        only_tried: false,
        fresh_first: false,
        min_severity: Severity::Warning,
        peek: false,
        links: false,
        now,
    }
}

pub(super) fn settled(c: &Claimed, outcome: Outcome) -> Settled {
    Settled { id: c.id, started_at: NOW, duration_ms: 5, status: Some(201), outcome }
}

pub(super) fn there(n: u32) -> Outcome {
    Outcome::Delivered {
        created: true,
        sys_id: SysId::new(&format!("{n:032x}")).unwrap(),
        number: format!("INC{n:07}"),
        state: "1".to_owned(),
        mod_count: Some(0),
        adopted: None,
        looks_for: Vec::new(),
    }
}

pub(super) fn destination() -> DestinationName {
    DestinationName::new("prod").unwrap()
}

pub(super) fn routed(table: &str) -> Routed {
    Routed {
        destination: destination(),
        table: TableName::new(table).unwrap(),
        rule: RuleName::new("r").unwrap(),
        kind: DeliveryKind::of_table(&TableName::new(table).unwrap()),
    }
}

pub(super) fn alert(n: u32, severity: Severity) -> Alert {
    let sample = Alert::sample(&format!("alert {n}"), severity, NOW);
    Alert { message: "m".to_owned(), raw: "{}".to_owned(), ..sample }
}

/// Text that packs by a quarter and no more.
pub(super) fn noise(bytes: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect()
}

pub(super) fn fingerprint(n: u32) -> Fingerprint {
    let identity = Identity::Own(&n.to_string());
    Fingerprint::derive("a", &SourceName::new("eve").unwrap(), &identity)
}

pub(super) fn entry(n: u32, severity: Severity) -> Entry {
    Entry {
        fingerprint: fingerprint(n),
        alert: alert(n, severity),
        occurrences: 1,
        last_seen_at: NOW,
        routes: vec![routed("incident")],
        again: None,
    }
}

pub(super) fn record(entries: Vec<Entry>) -> Record {
    Record {
        kind: "suricata-eve",
        lines: entries.len() as u64,
        alerts: entries.len() as u64,
        entries,
        ..Record::new(SourceName::new("eve").unwrap(), NOW)
    }
}

fn counts(bench: &Bench) -> BTreeMap<String, i64> {
    let overview = bench.reader().overview().unwrap();
    overview.destinations.into_iter().next().map(|d| d.counts).unwrap_or_default()
}

#[tokio::test]
async fn a_repeat_counts_up_and_makes_no_second_delivery() {
    let bench = Bench::new();
    let first = bench.record(vec![entry(1, Severity::Major)]).await;
    assert_eq!((first.new, first.repeats, first.deliveries), (1, 0, 1));
    let again = Entry {
        occurrences: 3,
        last_seen_at: NOW.after(Duration::from_secs(9)),
        ..entry(1, Severity::Major)
    };
    let second = bench.record(vec![again]).await;
    assert_eq!((second.new, second.repeats, second.deliveries), (0, 3, 0));
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.len(), 1);
    assert_eq!((claimed[0].occurrences, claimed[0].last_seen_at), (4, NOW.after(Duration::from_secs(9))));
    assert_eq!(claimed[0].alert.as_ref(), Some(&alert(1, Severity::Major)));
}

#[tokio::test]
async fn two_tables_are_two_tickets() {
    let bench = Bench::new();
    let both = Entry { routes: vec![routed("incident"), routed("problem")], ..entry(1, Severity::Major) };
    assert_eq!(bench.record(vec![both.clone()]).await.deliveries, 2);
    assert_eq!(bench.record(vec![both]).await.deliveries, 0);
    let mut claim = claim(10, NOW);
    claim.except = vec![TableName::new("incident").unwrap()];
    let claimed = bench.store.claim(claim).await.unwrap();
    assert_eq!(claimed.iter().map(|c| c.table.as_str()).collect::<Vec<_>>(), ["problem"]);
}

#[tokio::test]
async fn the_most_severe_goes_first_then_the_oldest() {
    let bench = Bench::new();
    let levels = [Severity::Minor, Severity::Critical, Severity::Warning, Severity::Critical];
    bench.record(levels.into_iter().zip(0..).map(|(s, n)| entry(n, s)).collect()).await;
    let titles: Vec<String> = bench.claim(3).await.into_iter().map(|c| c.alert.unwrap().title).collect();
    assert_eq!(titles, ["alert 1", "alert 3", "alert 0"]);
    let mut critical_only = claim(3, NOW);
    critical_only.min_severity = Severity::Critical;
    assert!(bench.store.claim(critical_only).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_claimed_when_the_process_ended_is_doubtful_and_waits() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    assert_eq!(bench.claim(1).await.len(), 1);
    let bench = bench.reopen().await;
    let due = NOW.after(Duration::from_secs(6));
    assert_eq!(bench.store.recover(due).await.unwrap(), 1);
    assert!(bench.claim(1).await.is_empty(), "it is not due yet");
    bench.clock.set(due);
    let again = bench.claim(1).await;
    assert!(again[0].doubtful);
    assert_eq!(again[0].attempts, 1);
    let shown = bench.reader().delivery(again[0].id).unwrap().unwrap();
    assert_eq!(shown.history[0].outcome, "unfinished");
    assert_eq!(counts(&bench)["claimed"], 1);
}

#[tokio::test]
async fn delivered_is_found_again_by_its_fingerprint_after_a_restart() {
    let bench = Bench::new();
    bench.record((0..5_000).map(|n| entry(n, Severity::Minor)).collect()).await;
    let bench = bench.reopen().await;
    let again = bench.record((0..5_001).map(|n| entry(n, Severity::Minor)).collect()).await;
    assert_eq!((again.new, again.repeats, again.deliveries), (1, 5_000, 1));
    assert_eq!(bench.reader().integrity().unwrap(), "ok");
}

#[tokio::test]
async fn a_ticket_closed_there_goes_on_with_the_next_generation() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let claimed = bench.claim(1).await;
    let Outcome::Delivered { sys_id, number, state, .. } = there(1) else { unreachable!() };
    bench.settle(&claimed[0], Outcome::ClosedThere { sys_id, number, state }).await;
    let next = bench.claim(1).await;
    assert_eq!((next[0].id, next[0].generation.0), (claimed[0].id, 1));
    bench.settle(&next[0], there(2)).await;
    let tickets = bench.reader().tickets(&ListFilter::default()).unwrap();
    let shown: Vec<(&str, &str)> = tickets.iter().map(|t| (t.number.as_str(), t.state.as_str())).collect();
    assert_eq!(shown, [("INC0000002", "open"), ("INC0000001", "closed")]);
    assert_eq!(bench.record(vec![entry(1, Severity::Major)]).await.deliveries, 0);
}

#[tokio::test]
async fn states_move_only_along_their_arrows() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let claimed = bench.claim(1).await;
    bench.settle(&claimed[0], there(1)).await;
    let twice = bench.store.settle(vec![settled(&claimed[0], there(2))]).await;
    assert!(
        matches!(twice, Err(StoreError::Refused(ref why)) if why.contains("delivered, not claimed")),
        "{twice:?}"
    );
    let dropped = bench.store.judge(vec![claimed[0].id, DeliveryId(99)], Verdict::Drop).await.unwrap();
    assert!(dropped.iter().all(|j| !j.done));
}

#[tokio::test]
async fn a_failed_operation_takes_nothing_of_its_neighbours_along() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let claimed = bench.claim(1).await;
    bench.settle(&claimed[0], there(1)).await;
    // Submitted together, so that they share a transaction.
    let (bad, good) = tokio::join!(
        bench.store.settle(vec![settled(&claimed[0], there(2))]),
        bench.record(vec![entry(2, Severity::Major)])
    );
    assert!(bad.is_err());
    assert_eq!(good.new, 1);
    assert_eq!(bench.claim(10).await.len(), 1);
}

#[tokio::test]
async fn dead_letters_wait_for_a_person() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    for c in bench.claim(2).await {
        bench.settle(&c, Outcome::Dead { message: "400 no".to_owned() }).await;
    }
    let dead = bench.reader().deliveries(DeliveryState::Dead, &ListFilter::default()).unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!(dead[0].reason.as_deref(), Some("400 no"));
    let judged = bench.store.judge(vec![dead[0].id], Verdict::Retry).await.unwrap();
    assert!(judged[0].done);
    bench.store.judge(vec![dead[1].id], Verdict::Drop).await.unwrap();
    let again = bench.claim(10).await;
    assert_eq!(again.iter().map(|c| c.id).collect::<Vec<_>>(), [dead[0].id]);
    assert!(again[0].doubtful, "whatever was said last time, it may be there");
    // A dropped one stays dropped when it is seen again.
    assert_eq!(bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await.deliveries, 0);
    let c = counts(&bench);
    assert_eq!((c["dead"], c["dropped"], c["claimed"]), (0, 1, 1));
}

#[tokio::test]
async fn cursors_and_samples_come_with_their_alerts() {
    let bench = Bench::new();
    let file = FileCursor {
        device: u64::MAX,
        inode: 7,
        head_hash: u64::MAX - 1,
        head_len: 256,
        offset: 1 << 40,
        backlog_end: 5,
        complete: false,
        path: "/x/eve.json".to_owned(),
        state: Some("#fields\tts".to_owned()),
        proofs: vec![Proof { offset: 1 << 40, len: 256, hash: u64::MAX }],
    };
    let mark = |value: &str| Cursor::Mark(Mark { name: "alerts".to_owned(), value: value.to_owned() });
    let mut batch = record(Vec::new());
    batch.cursors = vec![Cursor::File(file.clone()), mark("7")];
    bench.store.record(vec![batch.clone()]).await.unwrap();
    let cursors = [Cursor::File(file), mark("8")];
    batch.cursors = cursors.to_vec();
    batch.ignored = vec![("conn", 40), ("weird", 2)];
    batch.trouble = Some("it is a directory".to_owned());
    batch.filtered = vec![Filtered {
        reason: "below every rule's severity".into(),
        count: 300,
        samples: (0..300)
            .map(|n| Sample {
                at: NOW,
                severity: Severity::Minor,
                engine: Engine::Anomaly,
                protocol: None,
                title: format!("t{n}"),
                parties: "a → b".to_owned(),
            })
            .collect(),
    }];
    batch.rejected = vec![Rejected {
        reason: "malformed",
        count: 2,
        samples: vec![("byte 1".to_owned(), "}{".to_owned())],
    }];
    bench.store.record(vec![batch]).await.unwrap();
    let bench = bench.reopen().await;
    let source = SourceName::new("eve").unwrap();
    let remembered = bench.store.remembered(&source).await.unwrap();
    assert!(remembered.read_before);
    assert_eq!((remembered.cursors.as_slice(), remembered.mark("alerts")), (&cursors[..], Some("8")));
    let overview = bench.reader().overview().unwrap();
    assert_eq!(overview.sources[0].filtered["below every rule's severity"], 300);
    assert_eq!(overview.sources[0].rejected["malformed"], 2);
    assert_eq!((overview.sources[0].ignored["conn"], overview.sources[0].ignored["weird"]), (40, 2));
    assert_eq!(overview.sources[0].kind, "suricata-eve");
    assert_eq!(overview.sources[0].trouble.as_deref(), Some("it is a directory"));
    let ring = bench.reader().filtered(&ListFilter::default()).unwrap();
    assert_eq!((ring.len() as i64, ring[0].title.as_str()), (op::record::FILTERED_SAMPLES, "t299"));
    let mut done = record(Vec::new());
    done.finished = cursors.to_vec();
    bench.store.record(vec![done]).await.unwrap();
    assert!(bench.store.remembered(&source).await.unwrap().cursors.is_empty());
}

#[tokio::test]
async fn a_cleared_finding_opens_nothing_and_stands_again_when_it_is_seen() {
    let bench = Bench::new();
    let cleared = |n| {
        let mut entry = entry(n, Severity::Major);
        (entry.alert.state, entry.routes) = (crate::model::AlertState::Cleared, Vec::new());
        entry
    };
    let at = || {
        let raw = rusqlite::Connection::open(bench.dir.path().join(DATABASE)).unwrap();
        let select = "SELECT group_concat(coalesce(cleared_at, 'stands'), ' ') FROM alert";
        raw.query_row(select, [], |r| r.get::<_, String>(0)).unwrap()
    };
    let since = NOW.as_micros();
    // In one batch, in its order; what was never wanted is only counted.
    let sums = bench
        .record(vec![entry(1, Severity::Major), entry(2, Severity::Minor), cleared(1), cleared(9)])
        .await;
    // Two tickets, and a note that one of them has ended.
    assert_eq!((sums.new, sums.repeats, sums.cleared, sums.deliveries), (2, 0, 2, 3));
    assert_eq!(at(), format!("{since} stands"));
    let sums = bench.record(vec![cleared(1), entry(1, Severity::Major)]).await;
    assert_eq!((sums.new, sums.repeats, sums.cleared, sums.deliveries), (0, 1, 1, 0));
    assert_eq!(at(), "stands stands");
    let source = bench.reader().overview().unwrap().sources.remove(0);
    assert_eq!((source.alerts, source.new + source.repeats + source.cleared), (6, 6));
}

#[tokio::test]
async fn what_comes_later_waits_for_what_comes_first_and_is_not_done_when_it_is_moot() {
    let bench = Bench::new();
    let mut lives = Lives::default();
    let wanted = routed("incident");
    let life = Life { on_cleared: OnCleared::Resolve, ..Life::default() };
    lives.set(&wanted.rule, &wanted.destination, &wanted.table, life);
    let lives = Arc::new(lives);
    let see = async |cleared: bool| {
        let mut entry = entry(1, Severity::Major);
        if cleared {
            (entry.alert.state, entry.routes) = (crate::model::AlertState::Cleared, Vec::new());
        }
        let record = Record { lives: Arc::clone(&lives), ..record(vec![entry]) };
        bench.store.record(vec![record]).await.unwrap().deliveries
    };
    let kinds = |claimed: &[Claimed]| claimed.iter().map(|c| c.kind).collect::<Vec<_>>();
    assert_eq!((see(false).await, see(true).await, see(true).await), (1, 1, 0));
    // The ticket is not resolved before it is there.
    let first = bench.claim(9).await;
    assert_eq!(kinds(&first), [DeliveryKind::OpenTicket]);
    assert!(bench.claim(9).await.is_empty());
    bench.settle(&first[0], there(1)).await;
    // Seen again before it was resolved: it is not.
    see(false).await;
    assert!(bench.claim(9).await.is_empty());
    see(true).await;
    let second = bench.claim(9).await;
    assert_eq!(kinds(&second), [DeliveryKind::ResolveTicket]);
    assert_eq!(second[0].ticket.sys_id, Some(SysId::new(&format!("{:032x}", 1)).unwrap()));
    assert!(second[0].ticket.cleared_at.is_some());
}

/// Resolving that failed, by how it failed, when the finding is back: what is claimed then and after that.
async fn resolve_fails(outcome: Outcome, wanted: OnSeenAgain) -> Vec<(DeliveryKind, u32)> {
    let bench = Bench::new();
    let (mut lives, to) = (Lives::default(), routed("incident"));
    let life = Life { on_cleared: OnCleared::Resolve, on_seen_again: wanted, ..Life::default() };
    lives.set(&to.rule, &to.destination, &to.table, life);
    let lives = Arc::new(lives);
    let see = async |cleared: bool| {
        let mut entry = entry(1, Severity::Major);
        if cleared {
            (entry.alert.state, entry.routes) = (crate::model::AlertState::Cleared, Vec::new());
        }
        let record = Record { lives: Arc::clone(&lives), ..record(vec![entry]) };
        bench.store.record(vec![record]).await.unwrap()
    };
    see(false).await;
    bench.settle(&bench.claim(9).await[0], there(1)).await;
    see(true).await;
    bench.settle(&bench.claim(9).await[0], outcome).await;
    see(false).await;
    let seen = Seen {
        state: crate::model::TicketState::Resolved,
        remote_state: "6".to_owned(),
        mod_count: None,
        assigned_to: None,
        close_notes: None,
    };
    let mut all = Vec::new();
    for _ in 0..2 {
        for c in bench.claim(9).await {
            all.push((c.kind, c.generation.0));
            let found = Outcome::Later {
                created: false,
                seen: seen.clone(),
                noted: None,
                renews: false,
                not_closed: None,
            };
            if c.kind == DeliveryKind::ResolveTicket {
                assert_eq!(c.ticket.cleared_at, None);
                let done = vec![settled(&c, found)];
                bench.store.settle_with(&destination(), done, Vec::new(), Arc::clone(&lives)).await.unwrap();
            }
        }
    }
    assert_eq!(bench.reader().overview().unwrap().dead, 0);
    all
}

#[tokio::test]
async fn a_resolve_that_failed_is_withdrawn_or_looked_up_when_the_finding_is_back() {
    let again = |doubtful| Outcome::Retry { due_at: NOW, word: "retry", doubtful, message: "503".to_owned() };
    let dead = Outcome::Dead { message: "400 no".to_owned() };
    for outcome in [again(false), dead] {
        assert_eq!(resolve_fails(outcome, OnSeenAgain::New).await, []);
    }
    // The answer was lost, and it is found resolved: it counts as closed.
    let resolve = (DeliveryKind::ResolveTicket, 0);
    let new = resolve_fails(again(true), OnSeenAgain::New).await;
    assert_eq!(new, [resolve, (DeliveryKind::OpenTicket, 1)]);
    let same = resolve_fails(again(true), OnSeenAgain::Reopen).await;
    assert_eq!(same, [resolve, (DeliveryKind::ReopenTicket, 0)]);
}

#[tokio::test]
async fn a_source_that_could_not_be_read_yet_is_still_to_be_read_for_the_first_time() {
    let bench = Bench::new();
    let source = SourceName::new("eve").unwrap();
    let mut batch = record(Vec::new());
    batch.trouble = Some("permission denied".to_owned());
    bench.store.record(vec![batch.clone()]).await.unwrap();
    assert!(!bench.store.remembered(&source).await.unwrap().read_before);
    batch.trouble = None;
    bench.store.record(vec![batch]).await.unwrap();
    assert!(bench.store.remembered(&source).await.unwrap().read_before);
}

#[tokio::test]
async fn holds_and_budget_survive_a_restart() {
    let bench = Bench::new();
    let hold = Hold {
        table: None,
        since_at: NOW,
        until_at: NOW.after(Duration::from_mins(5)),
        tries: 1,
        told: false,
        reason: "refused".to_owned(),
        remedy: "ask".to_owned(),
    };
    let budget = DestinationChange::Budget { window_started_at: NOW, window_used: 17 };
    bench
        .store
        .change_destination(&destination(), vec![DestinationChange::Holds(hold.clone()), budget])
        .await
        .unwrap();
    let bench = bench.reopen().await;
    let state = bench.store.destination_state(&destination()).await.unwrap();
    assert_eq!((state.holds, state.window_used), (vec![hold], 17));
    let works = DestinationChange::Works { table: TableName::new("incident").unwrap() };
    bench.store.change_destination(&destination(), vec![works]).await.unwrap();
    assert!(bench.store.destination_state(&destination()).await.unwrap().holds.is_empty());
}

#[tokio::test]
async fn changed_rules_apply_to_what_is_undelivered() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    let page = bench.store.undelivered(0, 10).await.unwrap();
    assert_eq!(page.len(), 2);
    let routes = vec![(page[0].alert_id, vec![routed("problem")]), (page[1].alert_id, Vec::new())];
    bench.store.reroute(routes).await.unwrap();
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().map(|c| c.table.as_str()).collect::<Vec<_>>(), ["problem"]);
    assert_eq!(counts(&bench)["withdrawn"], 1, "the other one moved before it was made");
    // A rule that wants it again gets its ticket after all.
    assert_eq!(bench.record(vec![entry(2, Severity::Major)]).await.deliveries, 1);
    assert_eq!(counts(&bench)["withdrawn"], 0, "its row took the place of the withdrawn one");
}

#[tokio::test]
async fn forgets_what_was_delivered_long_ago_and_nothing_else() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    let claimed = bench.claim(1).await;
    bench.settle(&claimed[0], there(1)).await;
    assert_eq!(bench.store.prune().await.unwrap(), 0, "not yet");
    bench.clock.advance(Duration::from_hours(744));
    assert_eq!(bench.store.prune().await.unwrap(), 1);
    assert_eq!(bench.store.prune().await.unwrap(), 0, "the other is undelivered");
    let alerts = bench.reader().alerts(&ListFilter::default()).unwrap();
    assert_eq!(alerts.len(), 1);
    // Seen again, it is new here; its keys are derived, so the destination finds its ticket.
    let again = bench.record(vec![entry(1, Severity::Major)]).await;
    assert_eq!((again.new, again.deliveries), (1, 1));
}

#[tokio::test]
async fn a_full_buffer_gives_up_the_lowest_severity_and_counts_it() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| s.max_size = 8 << 20);
    let fat = |n: u32| {
        let severity = if n.is_multiple_of(10) { Severity::Critical } else { Severity::Warning };
        let mut entry = entry(n, severity);
        entry.alert.raw = noise(8_000);
        entry
    };
    let mut given_up = 0;
    for n in 0..1_500 {
        let mut record = record(vec![fat(n)]);
        record.gather = false;
        match bench.store.record(vec![record]).await {
            Ok(recorded) if !recorded.room.is_tight() => {}
            Ok(_) | Err(StoreError::Full(_)) => given_up += bench.store.make_room().await.unwrap().given_up,
            Err(e) => panic!("{e}"),
        }
    }
    let overview = bench.reader().overview().unwrap();
    assert!(given_up > 500, "{given_up}");
    assert_eq!(overview.shed as u64, given_up);
    let left = bench.reader().deliveries(DeliveryState::Pending, &ListFilter::default()).unwrap();
    assert_eq!(left.iter().filter(|d| d.severity == Severity::Critical).count(), 150, "critical ones stay");
    assert_eq!(overview.backlog as usize, left.len());
    let used: u64 =
        std::fs::read_dir(bench.dir.path()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(used <= 8 << 20, "{used} bytes in the state directory");
}

#[tokio::test]
async fn issues_and_syncs_are_kept_and_bounded() {
    let bench = Bench::new();
    let issue = |n: u32| crate::model::HealthIssue::new("c", "t", "r").about(format!("s{n}"));
    assert!(bench.store.tell(issue(0)).await.unwrap());
    assert!(!bench.store.tell(issue(0)).await.unwrap(), "told before");
    assert_eq!(bench.reader().overview().unwrap().issues[0].count, 2);
    assert_eq!(bench.store.last_sync_at().await.unwrap(), None);
    for n in 0..120 {
        let started_at = NOW.after(Duration::from_secs(n));
        bench
            .store
            .synced(SyncRun { started_at, cause: "interval".to_owned(), ..SyncRun::default() })
            .await
            .unwrap();
    }
    assert_eq!(bench.store.last_sync_at().await.unwrap(), Some(NOW.after(Duration::from_secs(119))));
    assert_eq!(bench.reader().syncs(1_000).unwrap().len(), 100);
}

#[tokio::test]
async fn one_agent_per_state_directory() {
    let bench = Bench::new();
    let second = Store::open(&settings(bench.dir.path()), bench.clock.clone()).map(|_| ()).unwrap_err();
    assert!(
        matches!(second, OpenError::Locked { ref pid, .. } if *pid == std::process::id().to_string()),
        "{second}"
    );
    assert!(Store::is_running(bench.dir.path()));
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    let (store, _writer) = Store::open(&settings(&dir), ManualClock::at(NOW)).unwrap();
    drop(store);
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

/// A record that is not found there was deleted, and its finding gets a new ticket: so it must be the right one that is
/// looked for.
#[tokio::test]
async fn a_ticket_whose_row_is_damaged_is_not_looked_for() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    for (n, claimed) in (1..).zip(bench.claim(2).await) {
        bench.settle(&claimed, there(n)).await;
    }
    bench.record(vec![entry(1, Severity::Major), entry(2, Severity::Major)]).await;
    assert_eq!(bench.store.seen_again(&destination(), 0).await.unwrap().len(), 2);
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    let conn = rusqlite::Connection::open(dir.path().join(DATABASE)).unwrap();
    conn.execute("UPDATE ticket SET sys_id = replace(sys_id, '0001', '0009')", []).unwrap();
    drop(conn);

    let bench = Bench::open(dir, |_| {});
    let seen = bench.store.seen_again(&destination(), 0).await.unwrap();
    assert_eq!(seen.iter().map(|t| t.sys_id.to_string()).collect::<Vec<_>>(), [format!("{:032x}", 2)]);
    let route = bench.store.watches(&destination()).await.unwrap()[0].route;
    assert_eq!(bench.store.known_tickets(route, 0).await.unwrap().len(), 1);
    let issues = bench.reader().overview().unwrap().issues;
    assert_eq!(issues.len(), 1);
    assert_eq!(issues[0].issue.code, "ticket-damaged");
    assert!(issues[0].issue.text.contains("INC0000001"), "{}", issues[0].issue.text);
}

#[tokio::test]
async fn a_flipped_bit_is_noticed() {
    let bench = Bench::new();
    bench.record(vec![entry(1, Severity::Major)]).await;
    let Bench { dir, store, writer, .. } = bench;
    drop(store);
    writer.await.unwrap().unwrap();
    // The same length: only the checksum can tell.
    let path = dir.path().join(DATABASE);
    let conn = rusqlite::Connection::open(&path).unwrap();
    let bodies: Vec<u8> = conn.query_row("SELECT bodies FROM body_pack", [], |row| row.get(0)).unwrap();
    drop(conn);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = memchr::memmem::find(&bytes, &bodies).unwrap();
    bytes[at + bodies.len() / 2] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(bench.reader().integrity().unwrap(), "ok", "SQLite does not see it");
    let claimed = bench.claim(1).await;
    assert_eq!(claimed[0].alert, None);
}
