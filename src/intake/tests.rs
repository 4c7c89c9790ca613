//! The intake on a real store: what is folded, what is left out, and that a batch comes before the next or not at all.

use super::told::News;
use super::*;
use crate::clock::ManualClock;
use crate::model::{Cursor, DeliveryKind, DestinationName, FileCursor, Identity, TableName};
use crate::rules::exclude::ExcludeSettings;
use crate::rules::pattern::Pattern;
use crate::rules::{ActionSettings, RuleSettings};
use crate::store::{ListFilter, Reader, Settings as Buffer, WhenFull};

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    batches: tokio::sync::mpsc::Sender<Batch>,
    intake: tokio::task::JoinHandle<Result<(), StoreError>>,
}

#[expect(clippy::disallowed_methods, reason = "the test is the only spawner here")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}

/// Everything that is at least minor goes to one table.
fn rules() -> Arc<Rules> {
    rules_of(Severity::Minor, &["incident"])
}

fn rules_of(min_severity: Severity, tables: &[&str]) -> Arc<Rules> {
    let action = |table: &&str| ActionSettings {
        destination: DestinationName::new("prod").unwrap(),
        table: TableName::new(table).unwrap(),
        kind: DeliveryKind::OpenTicket,
        fields: BTreeMap::new(),
        columns: BTreeMap::new(),
        life: crate::model::life::Life::default(),
        closing: BTreeMap::new(),
    };
    let rule = RuleSettings {
        name: RuleName::new("r").unwrap(),
        enabled: true,
        min_severity,
        protocols: None,
        engines: None,
        report_alerts: true,
        report_system_notifications: true,
        actions: tables.iter().map(action).collect(),
    };
    Arc::new(Rules::compile(&[rule]).unwrap())
}

/// Until now, whatever is called so.
fn exclusions() -> Exclusions {
    Exclusions::new(vec![ExcludeSettings {
        titles: Some(vec![Pattern::new("maintenance*")]),
        until: Some(NOW),
        ..ExcludeSettings::named("window")
    }])
}

impl Bench {
    fn new(max_size: u64) -> Self {
        Self::listening(max_size, Vec::new())
    }

    /// With limits of silence.
    fn listening(max_size: u64, silences: Vec<(SourceName, Duration)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOW);
        let buffer =
            Buffer { dir: dir.path().to_owned(), max_size, keep_delivered: DAY, when_full: WhenFull::Refuse };
        let (store, writer) = Store::open(&buffer, clock.clone()).unwrap();
        spawn(writer.run());
        let intake = Intake::new(store.clone(), rules(), clock, settings(silences));
        let (mut send, receive) = lanes(1);
        let batches = send.remove(0);
        let intake = spawn(intake.run(receive, CancellationToken::new()));
        Self { dir, store, batches, intake }
    }

    /// The channel closes; what was sent is stored.
    async fn drain(self) -> (tempfile::TempDir, Store) {
        drop(self.batches);
        self.intake.await.unwrap().unwrap();
        (self.dir, self.store)
    }
}

fn settings(silences: Vec<(SourceName, Duration)>) -> Settings {
    Settings {
        backfill: Backfill::Within(DAY * 7),
        agent: "a".to_owned(),
        exclusions: exclusions(),
        silences,
    }
}

fn source() -> SourceName {
    SourceName::new("eve").unwrap()
}

fn sighting(title: &str, severity: Severity, time: Timestamp, backlog: bool) -> Sighting {
    let alert = Alert { received_at: NOW, ..Alert::sample(title, severity, time) };
    let fingerprint = Fingerprint::derive("a", &source(), &Identity::Own(title));
    Sighting { alert, fingerprint, backlog, again: false }
}

fn cursor(offset: u64) -> FileCursor {
    FileCursor {
        device: 1,
        inode: 2,
        head_hash: 3,
        head_len: 4,
        offset,
        backlog_end: 0,
        complete: false,
        path: "/x/eve.json".to_owned(),
        state: None,
        proofs: Vec::new(),
    }
}

fn batch(sightings: Vec<Sighting>, offset: u64) -> Batch {
    Batch {
        sightings,
        cursors: vec![Cursor::File(cursor(offset))],
        more: true,
        ..Batch::new(source(), "suricata-eve")
    }
}

/// What its file would give again.
fn waiting(titles: std::ops::Range<u64>) -> Batch {
    let time = NOW.before(Duration::from_secs(5));
    let one = |n: u64| sighting(&n.to_string(), Severity::Minor, time, false);
    let offset = titles.end;
    Batch { can_wait: true, more: false, ..batch(titles.map(one).collect(), offset) }
}

fn known(bench: &Bench) -> usize {
    Reader::open(bench.dir.path()).unwrap().alerts(&ListFilter::default()).unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn what_a_file_would_give_again_is_held_until_half_a_minute_is_over() {
    let bench = Bench::new(64 << 20);
    let began = Instant::now();
    for n in 0..3 {
        bench.batches.send(waiting(n..n + 1)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(9)).await;
    }
    assert_eq!((known(&bench), bench.store.gathered()), (0, 3));
    while bench.store.gathered() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((known(&bench), began.elapsed().as_secs()), (3, 30));
    bench.drain().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_committed_for_who_asks_who_must_be_answered_and_at_the_end() {
    let bench = Bench::new(64 << 20);
    let began = Instant::now();
    bench.batches.send(waiting(0..1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(known(&bench), 0);
    bench.store.commit_gathered().await;
    assert_eq!((known(&bench), bench.store.gathered()), (1, 0));
    // A sender that waits takes it along.
    bench.batches.send(waiting(1..2)).await.unwrap();
    let (acknowledge, told) = Acknowledge::pair();
    let pushed = Batch { can_wait: false, acknowledge: Some(acknowledge), ..waiting(2..3) };
    bench.batches.send(pushed).await.unwrap();
    told.await.unwrap();
    assert_eq!((known(&bench), bench.store.gathered()), (3, 0));
    bench.batches.send(waiting(3..4)).await.unwrap();
    assert!(began.elapsed() < HOLD, "nothing of this was the half minute");
    let (dir, _store) = bench.drain().await;
    let reader = Reader::open(dir.path()).unwrap();
    assert_eq!(reader.alerts(&ListFilter::default()).unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_is_an_alert_until_it_is_heard_again() {
    let bench = Bench::listening(64 << 20, vec![(source(), Duration::from_hours(1))]);
    let alerts = |bench: &Bench| {
        let all = Reader::open(bench.dir.path()).unwrap().alerts(&ListFilter::default()).unwrap();
        all.into_iter().map(|row| (row.alert.unwrap().title, row.occurrences)).collect::<Vec<_>>()
    };
    bench.batches.send(waiting(0..1)).await.unwrap();
    tokio::time::sleep(Duration::from_mins(59)).await;
    assert_eq!(alerts(&bench).len(), 1);
    while alerts(&bench).len() < 2 {
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert!(alerts(&bench).contains(&("Source eve of a is silent".to_owned(), 1)), "{:?}", alerts(&bench));
    let own = SourceName::new(OWN).unwrap();
    assert_eq!(bench.store.remembered(&own).await.unwrap().mark("silent/eve"), Some("raised"));
    let (acknowledge, told) = Acknowledge::pair();
    let pushed = Batch { can_wait: false, acknowledge: Some(acknowledge), ..waiting(2..3) };
    bench.batches.send(pushed).await.unwrap();
    told.await.unwrap();
    assert_eq!(bench.store.remembered(&own).await.unwrap().mark("silent/eve"), None);
    let counted = Reader::open(bench.dir.path()).unwrap().overview().unwrap().sources;
    let own = counted.iter().find(|source| source.name == OWN).unwrap();
    assert_eq!((own.new, own.cleared, own.alerts), (1, 1, 2));
    bench.drain().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_is_held_than_its_bounds() {
    let bench = Bench::new(64 << 20);
    for n in 0..HELD_BATCHES_MAX as u64 - 1 {
        bench.batches.send(waiting(n..n + 1)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((known(&bench), bench.store.gathered()), (0, HELD_BATCHES_MAX as u64 - 1));
    bench.batches.send(waiting(900..901)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((known(&bench), bench.store.gathered()), (HELD_BATCHES_MAX, 0));
    let mut large = waiting(1_000..1_001);
    large.sightings[0].alert.raw = "x".repeat(HELD_MAX as usize);
    bench.batches.send(large).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.store.gathered(), 0);
    bench.drain().await;
}

/// Sightings in one batch, to alerts with their occurrences, and to what was left out by reason.
async fn check(sightings: Vec<Sighting>, alerts: &[(&str, i64)], left_out: &[(&str, i64)]) {
    let bench = Bench::new(64 << 20);
    let all = sightings.len() as i64;
    bench.batches.send(batch(sightings, 1)).await.unwrap();
    let (dir, _store) = bench.drain().await;
    let reader = Reader::open(dir.path()).unwrap();
    let mut rows = reader.alerts(&ListFilter::default()).unwrap();
    rows.reverse();
    let found: Vec<(String, i64)> =
        rows.into_iter().map(|a| (a.alert.unwrap().title, a.occurrences)).collect();
    let wanted: Vec<(String, i64)> = alerts.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect();
    assert_eq!(found, wanted);
    let row = reader.overview().unwrap().sources.remove(0);
    let wanted = left_out.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
    assert_eq!(row.filtered, wanted);
    assert_eq!(row.new + row.repeats + row.filtered.values().sum::<i64>(), all, "nothing is uncounted");
    assert_eq!(row.alerts, all);
}

#[tokio::test]
async fn repeats_are_folded_and_each_sighting_is_counted() {
    use Severity::{Critical, Major, Warning};
    let new = |title, severity| sighting(title, severity, NOW, false);
    let old = |title, days| sighting(title, Major, NOW.before(DAY * days), true);
    let below = Reason::Severity.as_str();
    check(vec![new("a", Major), new("b", Major), new("a", Major)], &[("a", 2), ("b", 1)], &[]).await;
    // Decided again when its severity changes; still one finding.
    check(
        vec![new("a", Warning), new("a", Major), new("a", Warning), new("a", Critical)],
        &[("a", 2)],
        &[(below, 2)],
    )
    .await;
    // Only what was there at the first read can be too old, each sighting by its own time.
    let too_old = Reason::TooOld.as_str();
    check(vec![old("a", 9), old("a", 2), old("a", 8), old("a", 1)], &[("a", 2)], &[(too_old, 2)]).await;
    check(vec![sighting("a", Major, NOW.before(DAY * 400), false)], &[("a", 1)], &[]).await;
}

/// What shares a transaction with the batch that has no room is told so, and tries again.
async fn until_done<T, F: Future<Output = Result<T, StoreError>>>(mut attempt: impl FnMut() -> F) -> T {
    loop {
        match attempt().await {
            Err(e) if e.is_passing() => tokio::time::sleep(Duration::from_secs(1)).await,
            other => return other.unwrap(),
        }
    }
}

/// Sends batches of 40, half of them major and half minor, until nothing is taken any more; gives how many batches.
async fn fill(bench: &Bench) -> u64 {
    let fat = |n: u64| {
        let all = (0..40).map(|i| {
            let severity = if i % 2 == 0 { Severity::Major } else { Severity::Minor };
            let mut s = sighting(&format!("{n}-{i}"), severity, NOW, false);
            s.alert.raw = std::iter::repeat_with(fastrand::alphanumeric).take(12_000).collect();
            s
        });
        batch(all.collect(), n)
    };
    let mut sent = 0;
    while let Ok(Ok(())) =
        tokio::time::timeout(Duration::from_secs(60), bench.batches.send(fat(sent + 1))).await
    {
        sent += 1;
    }
    sent
}

/// Claims all that waits and settles it as delivered; gives how many there were.
async fn deliver_all(store: &Store) -> usize {
    let claim = crate::store::op::claim::Claim {
        destination: DestinationName::new("prod").unwrap(),
        except: Vec::new(),
        limit: usize::MAX,
        only_tried: false,
        fresh_first: false,
        min_severity: Severity::Warning,
        peek: false,
        links: false,
        now: NOW,
    };
    let ids = until_done(|| store.claim(claim.clone())).await;
    let gone = |c: &crate::store::op::claim::Claimed| crate::store::op::settle::Settled {
        id: c.id,
        started_at: NOW,
        duration_ms: 1,
        status: None,
        outcome: crate::store::op::settle::Outcome::Delivered {
            created: true,
            sys_id: crate::model::SysId::new(&"0".repeat(32)).unwrap(),
            number: String::new(),
            state: String::new(),
            mod_count: None,
            adopted: None,
            looks_for: Vec::new(),
        },
    };
    until_done(|| store.settle(ids.iter().map(gone).collect())).await;
    ids.len()
}

#[tokio::test(start_paused = true)]
async fn changed_rules_for_which_there_is_no_room_withdraw_first_and_wait_for_the_relay() {
    let bench = Bench::new(8 << 20);
    fill(&bench).await;
    bench.intake.abort();
    let (dir, store) = (bench.dir, bench.store);
    let overview = || Reader::open(dir.path()).unwrap().overview().unwrap();
    let before = overview().backlog;
    let wanted = || rules_of(Severity::Major, &["incident", "u_a", "u_b", "u_c", "u_d", "u_e", "u_f", "u_g"]);
    let intake = Intake::new(store.clone(), wanted(), ManualClock::at(NOW), settings(Vec::new()));
    assert!(!intake.apply_rules().await.unwrap(), "there is no room for seven tables more");
    assert_eq!(overview().destinations[0].counts["withdrawn"] * 2, before);
    // The relay finds nothing that the rules do not want, and what it delivers makes the room.
    let (lanes_in, lanes_out) = lanes(1);
    let intake = spawn(intake.run(lanes_out, CancellationToken::new()));
    let mut applied = false;
    for _ in 0..100 {
        deliver_all(&store).await;
        applied = store.rules_digest().await.unwrap() == Some(hex(&wanted().digest()));
        if applied {
            break;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(applied, "{:?}", store.room().await);
    drop(lanes_in);
    intake.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_room_is_tried_again_and_no_cursor_overtakes_it() {
    let bench = Bench::new(8 << 20);
    let sent = fill(&bench).await;
    assert!(!bench.intake.is_finished(), "a full store is no end");
    let stored = || {
        let overview = Reader::open(bench.dir.path()).unwrap().overview().unwrap();
        (overview.backlog, overview.sources[0].alerts)
    };
    let (backlog, alerts) = stored();
    assert!(backlog == alerts && backlog < sent as i64 * 40, "{backlog} {alerts} {sent}");
    let eve = source();
    let cursors = until_done(|| bench.store.remembered(&eve)).await.cursors;
    let Cursor::File(FileCursor { offset, .. }) = cursors[0] else { panic!("{cursors:?}") };
    // A batch that fits in part is stored in part; its cursor comes with the rest.
    assert!((backlog - 39..=backlog).contains(&(offset as i64 * 40)), "{offset} {backlog}");
    // Room comes: what waits here follows, in order, once.
    deliver_all(&bench.store).await;
    let (dir, _store) = bench.drain().await;
    let row = Reader::open(dir.path()).unwrap().overview().unwrap().sources.remove(0);
    assert_eq!((row.alerts, row.new, row.repeats), (sent as i64 * 40, sent as i64 * 40, 0));
}

#[test]
fn a_trouble_of_a_source_is_said_when_it_begins_changes_and_ends() {
    let source = SourceName::new("eve").unwrap();
    let mut troubles = Troubles::default();
    let (one, other) = ("cannot read it".to_owned(), "it is a directory".to_owned());
    let steps = [None, Some(&one), Some(&one), Some(&other), None, None];
    let said = steps.map(|now| troubles.change(&source, now));
    let expected =
        [News::None, News::Trouble(&one), News::None, News::Trouble(&other), News::Over, News::None];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn exclusions_come_before_the_rules_and_are_counted_by_name() {
    let before = NOW.before(Duration::from_secs(1));
    let bench = Bench::new(64 << 20);
    let sightings = vec![
        sighting("maintenance work", Severity::Major, before, false),
        // The same finding on the other side of the window's edge.
        sighting("maintenance work", Severity::Major, NOW, false),
        sighting("maintenance work", Severity::Major, before, false),
        sighting("another", Severity::Major, before, false),
    ];
    bench.batches.send(batch(sightings, 1)).await.unwrap();
    let (dir, _store) = bench.drain().await;
    let reader = Reader::open(dir.path()).unwrap();
    let row = reader.overview().unwrap().sources.remove(0);
    assert_eq!((row.alerts, row.new, row.repeats), (4, 2, 0));
    assert_eq!(row.excluded, BTreeMap::from([("window".to_owned(), 2)]));
    let samples = reader.filtered(&ListFilter::default()).unwrap();
    assert_eq!(samples.len(), 2);
    assert_eq!(
        (samples[0].reason.as_str(), samples[0].title.as_str()),
        ("excluded: window", "maintenance work")
    );
}

#[tokio::test]
async fn what_is_cleared_is_not_kept_from_it() {
    let bench = Bench::new(64 << 20);
    let mut cleared = sighting("maintenance work", Severity::Major, NOW.before(DAY), false);
    cleared.alert.state = AlertState::Cleared;
    bench.batches.send(batch(vec![cleared], 1)).await.unwrap();
    let (dir, _store) = bench.drain().await;
    let row = Reader::open(dir.path()).unwrap().overview().unwrap().sources.remove(0);
    assert_eq!((row.cleared, row.excluded.len()), (1, 0));
}
