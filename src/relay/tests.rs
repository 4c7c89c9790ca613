//! The relay on a ticket system in memory, in paused time: what it sends, when, and what it never does.

mod back;
mod fake;
mod histories;
mod pace;

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::task::JoinHandle;

use self::fake::{FakeDestination, Fault, SharedDestination, TitleOnly, severity};
use super::*;
use crate::clock::Clock;
use crate::model::ticket::KeysKept;
use crate::model::{
    Alert, DeliveryKind, DeliveryState, Fingerprint, Identity, RuleName, Severity, SourceName, TableName,
};
use crate::store::op::claim::Claim;
use crate::store::op::record::{Entry, Record, Routed};
use crate::store::{ListFilter, Overview, Reader, WhenFull};

const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// The wall clock of paused time; it can be set, and made to tick with each look at it.
struct TestClock {
    began: Instant,
    shift: AtomicI64,
    tick: AtomicI64,
}

impl TestClock {
    fn shift(&self, seconds: i64) {
        self.shift.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let shift = self.shift.fetch_add(self.tick.load(Ordering::SeqCst), Ordering::SeqCst);
        Timestamp::from_micros(NOW.after(self.began.elapsed()).as_micros() + shift)
    }
}

/// A store, destinations and, while it runs, a relay.
struct Site {
    dir: tempfile::TempDir,
    clock: Arc<TestClock>,
    store: Store,
    destinations: Vec<SharedDestination>,
    settings: Settings,
    running: Option<Running>,
}

struct Running {
    stop: CancellationToken,
    ask: mpsc::Sender<Ask>,
    relay: JoinHandle<Result<(), StoreError>>,
    progress: watch::Receiver<Progress>,
}

#[expect(clippy::disallowed_methods, reason = "the test is the only spawner here")]
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(work)
}

impl Site {
    fn new(destinations: &[&str], change: impl FnOnce(&mut Settings, &mut Vec<FakeDestination>)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock =
            Arc::new(TestClock { began: Instant::now(), shift: AtomicI64::new(0), tick: AtomicI64::new(0) });
        let buffer = crate::store::Settings {
            dir: dir.path().to_owned(),
            max_size: 64 << 20,
            keep_delivered: HOUR * 720,
            when_full: WhenFull::ShedLowest,
        };
        let (store, writer) = Store::open(&buffer, clock.clone()).unwrap();
        spawn(writer.run());
        let mut settings = Settings {
            enabled: true,
            interval: HOUR,
            doubt_wait: DOUBT_WAIT,
            destinations: BTreeMap::new(),
            devices: None,
            sync: crate::sync::Settings::default(),
        };
        let mut made: Vec<FakeDestination> =
            destinations.iter().map(|name| FakeDestination::new(name, clock.clone())).collect();
        change(&mut settings, &mut made);
        let destinations = made.into_iter().map(Arc::new).collect();
        Self { dir, clock, store, destinations, settings, running: None }
    }

    fn one() -> Self {
        Self::new(&["prod"], |_, _| {})
    }

    fn limited(limits: Limits) -> Self {
        Self::new(&["prod"], |s, _| {
            s.destinations.insert(DestinationName::new("prod").unwrap(), limits);
            s.interval = HOUR * 24;
        })
    }

    fn relay(&self) -> Relay<FakeDestination> {
        let (clock, settings) = (self.clock.clone(), self.settings.clone());
        Relay::new(self.store.clone(), self.destinations.clone(), Arc::new(TitleOnly), clock, settings)
    }

    fn start(&mut self) {
        let (ask, asked) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let (relay, mut asked, token) = (self.relay(), asked, stop.clone());
        let progress = relay.progress();
        let relay = spawn(async move { relay.run(&mut asked, token).await });
        self.running = Some(Running { stop, ask, relay, progress });
    }

    /// As the process that ends: what is in flight gets no time.
    fn kill(&mut self) {
        self.running.take().unwrap().relay.abort();
    }

    async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.cancel();
        running.relay.await.unwrap().unwrap();
    }

    async fn sync(&self) -> Report {
        let (send, receive) = oneshot::channel();
        self.running.as_ref().unwrap().ask.send(Ask::Sync(send)).await.unwrap();
        receive.await.unwrap()
    }

    async fn record(&self, titles: &[(&str, Severity, &str, &str)]) {
        let entries = titles
            .iter()
            .map(|(title, severity, destination, table)| entry(title, *severity, destination, table));
        let source = SourceName::new("eve").unwrap();
        let record = Record { entries: entries.collect(), ..Record::new(source, self.clock.now()) };
        self.store.record(vec![record]).await.unwrap();
    }

    /// `n` alerts to the table `incident` of the destination `prod`.
    async fn record_many(&self, n: u32) {
        for i in 0..n {
            self.record(&[(&format!("a{i}"), severity(i), "prod", "incident")]).await;
        }
    }

    fn overview(&self) -> Overview {
        Reader::open(self.dir.path()).unwrap().overview().unwrap()
    }

    fn pending(&self) -> usize {
        self.in_state(DeliveryState::Pending).len()
    }

    fn in_state(&self, state: DeliveryState) -> Vec<crate::store::DeliveryRow> {
        Reader::open(self.dir.path()).unwrap().deliveries(state, &ListFilter::default()).unwrap()
    }

    fn destination(&self) -> &FakeDestination {
        &self.destinations[0]
    }
}

fn entry(title: &str, severity: Severity, destination: &str, table: &str) -> Entry {
    let alert = Alert { protocols: Vec::new(), ..Alert::sample(title, severity, NOW) };
    Entry {
        fingerprint: Fingerprint::derive("a", &SourceName::new("eve").unwrap(), &Identity::Own(title)),
        alert,
        occurrences: 1,
        last_seen_at: NOW,
        routes: vec![Routed {
            destination: DestinationName::new(destination).unwrap(),
            table: TableName::new(table).unwrap(),
            rule: RuleName::new("r").unwrap(),
            kind: DeliveryKind::of_table(&TableName::new(table).unwrap()),
        }],
        again: None,
    }
}

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_most_severe_go_first_then_the_oldest_and_few_at_once() {
    let mut site = Site::limited(Limits { max_in_flight: 3, ..Limits::default() });
    site.record_many(100).await;
    site.start();
    pass(MINUTE).await;
    let ledger = site.destination().ledger();
    let mut wanted: Vec<u32> = (0..100).collect();
    wanted.sort_by_key(|n| std::cmp::Reverse(severity(*n)));
    let wanted: Vec<String> = wanted.iter().map(|n| format!("a{n}")).collect();
    let sent: Vec<String> = ledger.calls.iter().map(|c| c.1.clone()).filter(|c| c != "find").collect();
    assert_eq!(sent, wanted);
    assert_eq!(ledger.most_in_flight, 3);
    assert_eq!(ledger.calls.len(), 103, "a look-up for forty");
}

#[tokio::test(start_paused = true)]
async fn a_sync_with_nothing_to_do_writes_nothing_and_is_told() {
    let mut site = Site::one();
    site.record_many(2).await;
    site.start();
    // The tickets are made, then they are polled for the first time.
    pass(HOUR * 3).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (2, 0));
    let disk = |site: &Site| {
        ["queue.db", "queue.db-wal"].map(|name| {
            let meta = site.dir.path().join(name).metadata().unwrap();
            (meta.len(), meta.modified().unwrap())
        })
    };
    let before = (disk(&site), site.overview().last_sync.unwrap().started_at);
    let told = |site: &Site| site.running.as_ref().unwrap().progress.borrow().empty_sync.clone();
    let first = told(&site).map(|sync| sync.started_at);
    pass(HOUR * 2).await;
    assert_eq!((disk(&site), site.overview().last_sync.unwrap().started_at), before);
    let last = told(&site).unwrap();
    assert!(last.cause == "interval" && Some(last.started_at) > first && last.started_at > before.1);
    // One that has something to do is kept again.
    site.record_many(3).await;
    pass(HOUR).await;
    assert!(told(&site).is_none() && site.overview().last_sync.unwrap().created == 1);
}

/// However the answers of one ticket's creates go, there is one record in the end, looked up before it is created again.
async fn one_ticket_after(opens: &[Fault], finds: &[Fault], lag: u64) {
    let mut site = Site::new(&["prod"], |_, destinations| destinations[0].lag = Duration::from_secs(lag));
    site.destination().ledger().opens.extend(opens);
    site.destination().ledger().finds.extend(finds);
    site.record_many(1).await;
    site.start();
    pass(HOUR * 3).await;
    assert_eq!(site.destination().titles(), ["a0"], "{opens:?} {finds:?}");
    let ledger = site.destination().ledger();
    assert_eq!(ledger.careless, 0, "{opens:?} {finds:?}");
    let kinds: Vec<bool> = ledger.calls.iter().map(|c| c.1 == "find").collect();
    assert!(kinds.windows(2).all(|w| w[0] || w[1]), "a look-up before each create: {:?}", ledger.calls);
    assert_eq!(site.overview().backlog, 0);
}

#[tokio::test(start_paused = true)]
async fn one_ticket_whatever_becomes_of_the_answers() {
    use Fault::{Accepted, Busy, Hold, LostAfter, LostBefore, None, Told};
    one_ticket_after(&[LostAfter], &[], 0).await;
    one_ticket_after(&[LostAfter], &[], 5).await;
    one_ticket_after(&[LostAfter], &[None, Busy, LostBefore, Hold], 5).await;
    one_ticket_after(&[LostBefore, Accepted, LostAfter], &[], 5).await;
    one_ticket_after(&[Accepted, Busy, Busy, Told(30), LostBefore], &[], 0).await;
    one_ticket_after(&[Hold, LostAfter], &[Busy, Busy, Told(1), Told(90)], 0).await;
}

#[tokio::test(start_paused = true)]
async fn never_faster_than_told_unless_a_person_asks() {
    let mut site = Site::one();
    site.destination().ledger().opens.push_back(Fault::Told(1_800));
    site.record_many(5).await;
    site.start();
    pass(MINUTE).await;
    let (calls, told_at) = (site.destination().calls(), site.destination().ledger().calls.last().unwrap().0);
    pass(MINUTE * 28).await;
    assert_eq!(site.destination().calls(), calls);
    pass(MINUTE * 10).await;
    let next = site.destination().ledger().calls[calls].0;
    assert!(next >= told_at.after(Duration::from_secs(1_800)), "{next}");
    assert_eq!(site.destination().titles().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_persons_order_tries_at_once_with_one_probe_and_says_what_came_of_it() {
    let mut site = Site::one();
    site.destination().ledger().opens.extend([
        Fault::Told(3_500),
        Fault::Told(3_500),
        Fault::Told(9_999_999),
    ]);
    site.record_many(20).await;
    site.start();
    pass(MINUTE).await;
    let calls = site.destination().calls();
    let report = site.sync().await;
    assert_eq!((site.destination().calls(), report.delivered()), (calls + 2, 0), "a look-up and one probe");
    let [waits] = report.waiting.as_slice() else { panic!("{:?}", report.waiting) };
    assert!(waits.starts_with("prod: Told(9999999); do something; tried again at "), "{waits}");
    assert!(report.next_at.is_some_and(|at| at <= site.clock.now().after(HOUR)), "{report:?}");
    let report = site.sync().await;
    assert_eq!((report.delivered(), report.waiting.len()), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_persons_order_tries_what_backed_off_by_itself() {
    let mut site = Site::one();
    site.record_many(3).await;
    site.destination().ledger().refused.insert("a0".to_owned(), Fault::Throws);
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 2);
    let report = site.sync().await;
    assert_eq!((report.again, report.failures.as_slice()), (1, ["Throws".to_owned()].as_slice()));
    site.destination().ledger().refused.clear();
    let before = site.destination().calls();
    // `queue retry` does not wait for anything either.
    site.running.as_ref().unwrap().ask.send(Ask::Again).await.unwrap();
    pass(Duration::from_secs(1)).await;
    assert_eq!((site.destination().calls(), site.pending()), (before + 2, 0));
}

/// Of 100, these fail in this way: all others are there after one sync.
async fn poisoned(poison: impl Fn(u32) -> bool, fault: Fault) -> Site {
    let mut site = Site::new(&["prod"], |s, _| s.interval = HOUR * 24);
    for n in (0..100).filter(|n| poison(*n)) {
        site.destination().ledger().refused.insert(format!("a{n}"), fault);
    }
    let bad = site.destination().ledger().refused.len();
    site.record_many(100).await;
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 100 - bad, "{fault:?}");
    site
}

#[tokio::test(start_paused = true)]
async fn a_few_that_always_fail_starve_no_other() {
    // The six most severe, as they are sent first.
    let most_severe = |n| severity(n) == Severity::Critical && n < 24;
    let site = poisoned(most_severe, Fault::Throws).await;
    pass(HOUR * 20).await;
    assert_eq!(site.destination().titles().len(), 94);
    assert_eq!(site.pending() + site.in_state(DeliveryState::Dead).len(), 6);
    poisoned(|n| n == 3, Fault::Acl).await;
    poisoned(most_severe, Fault::Acl).await;
    poisoned(most_severe, Fault::Policy).await;
}

#[tokio::test(start_paused = true)]
async fn half_of_all_may_be_poisoned_in_whatever_order() {
    for fault in [Fault::Throws, Fault::Acl, Fault::Policy, Fault::Waf] {
        // The most severe half goes first, so fifty fail in a row.
        poisoned(|n| severity(n) >= Severity::Major, fault).await;
        poisoned(|n| n % 2 == 0, fault).await;
        poisoned(|n| n % 3 == 0, fault).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_alone_while_others_get_through_becomes_a_dead_letter_with_the_words() {
    let mut site = Site::new(&["prod"], |s, _| s.interval = MINUTE * 5);
    let bad = [("thrown", Fault::Throws), ("acl", Fault::Acl), ("waf", Fault::Waf)];
    site.destination().ledger().refused.extend(bad.map(|(title, fault)| (title.to_owned(), fault)));
    site.record(&[("thrown", Severity::Major, "prod", "incident")]).await;
    site.record(&[("waf", Severity::Major, "prod", "incident")]).await;
    site.record(&[("acl", Severity::Major, "prod", "incident")]).await;
    site.start();
    for n in 0..100 {
        site.record(&[(&format!("good {n}"), Severity::Major, "prod", "incident")]).await;
        pass(MINUTE * 5).await;
    }
    assert_eq!(site.destination().titles().len(), 100);
    let reasons: Vec<String> =
        site.in_state(DeliveryState::Dead).into_iter().filter_map(|d| d.reason).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().any(|r| r.starts_with("Waf — do something (failed 5 times")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.starts_with("Acl — do something (failed 5 times")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.starts_with("Throws — do something (failed 12 times")), "{reasons:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_firewall_dislikes_keeps_nothing_else_waiting_and_one_that_dislikes_all_holds_the_destination()
{
    let mut site = Site::one();
    site.destination().ledger().refused.insert("waf".to_owned(), Fault::Waf);
    site.record(&[("waf", Severity::Major, "prod", "incident")]).await;
    site.start();
    pass(MINUTE).await;
    // It was all there was, and what comes next need not wait for it.
    site.record(&[("next", Severity::Minor, "prod", "incident")]).await;
    let report = site.sync().await;
    assert_eq!((report.created, report.waiting.len()), (1, 0), "{report:?}");
    let all = (0..60).map(|n| (format!("a{n}"), Fault::Waf));
    site.destination().ledger().refused.extend(all);
    site.record_many(60).await;
    site.sync().await;
    let state = site.store.destination_state(&DestinationName::new("prod").unwrap()).await.unwrap();
    assert!(state.holds.iter().any(|hold| hold.table.is_none()), "{:?}", state.holds);
    assert!(site.in_state(DeliveryState::Dead).is_empty());
    site.destination().ledger().refused.clear();
    pass(HOUR * 4).await;
    assert_eq!(site.destination().titles().len(), 62);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_for_now_makes_one_wait_for_its_next_turn_and_nobody_has_to_act() {
    let mut site = Site::one();
    site.destination().ledger().unsure = 1;
    site.record_many(3).await;
    site.start();
    pass(Duration::from_secs(15)).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (2, 1), "the others go on");
    pass(MINUTE * 5).await;
    assert_eq!(site.destination().titles().len(), 3);
    assert!(site.store.reader().unwrap().overview().unwrap().issues.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_its_last_attempt_made_is_no_dead_letter() {
    let mut site = Site::new(&["prod"], |s, _| s.interval = MINUTE * 5);
    let attempts =
        |site: &Site| site.destination().ledger().calls.iter().filter(|(_, c)| c == "thrown").count();
    site.destination().ledger().refused.insert("thrown".to_owned(), Fault::Throws);
    site.record(&[("thrown", Severity::Major, "prod", "incident")]).await;
    site.start();
    for n in 0..200 {
        if attempts(&site) == 11 {
            // Only the twelfth, after which it is given up, is carried out.
            site.destination().ledger().refused.insert("thrown".to_owned(), Fault::ThrowsAfter);
        }
        site.record(&[(&format!("good {n}"), Severity::Major, "prod", "incident")]).await;
        pass(MINUTE * 5).await;
    }
    assert_eq!(attempts(&site), 12);
    assert!(site.in_state(DeliveryState::Dead).is_empty());
    assert_eq!((site.pending(), site.destination().titles().len()), (0, 201));
}

#[tokio::test(start_paused = true)]
async fn a_probe_is_never_the_delivery_that_failed() {
    let mut site = Site::one();
    site.destination().ledger().stuck.insert(table("incident"), Fault::Busy);
    site.record_many(40).await;
    site.start();
    pass(HOUR).await;
    site.destination().ledger().stuck.clear();
    let tried: Vec<String> = site.destination().ledger().calls.iter().map(|c| c.1.clone()).collect();
    let sent: Vec<&String> = tried.iter().filter(|c| *c != "find").collect();
    let different: std::collections::BTreeSet<&&String> = sent.iter().collect();
    assert_eq!(different.len(), sent.len(), "{sent:?}");
    pass(MINUTE * 10).await;
    assert_eq!(site.destination().titles().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_all_by_the_same_words_hold_the_table_and_make_no_thousand_dead_letters() {
    let mut site = Site::new(&["prod"], |s, _| s.interval = HOUR * 24);
    for n in 0..300 {
        site.destination().ledger().refused.insert(format!("a{n}"), Fault::Policy);
    }
    site.record_many(300).await;
    site.start();
    pass(HOUR * 10).await;
    assert!(site.destination().calls() < 80, "{} calls", site.destination().calls());
    assert_eq!((site.overview().dead, site.pending()), (0, 300));
    let holds = site.overview().destinations[0].holds.clone();
    assert_eq!((holds.len(), holds[0].reason.as_str()), (1, "Policy"));
    // A person corrects it.
    site.destination().ledger().refused.clear();
    assert_eq!(site.sync().await.created, 300);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_takes_no_sys_id_is_looked_at_twice_before_a_second_create() {
    let mut site = Site::new(&["prod"], |s, destinations| {
        s.interval = HOUR * 24;
        destinations[0].lag = Duration::from_secs(50);
    });
    site.destination().ledger().keeps = Some(KeysKept { sys_id: false, correlation_id: true });
    site.record(&[("first", Severity::Critical, "prod", "incident")]).await;
    site.start();
    pass(MINUTE).await;
    site.destination().ledger().opens.extend([Fault::LostAfter; 10]);
    site.record_many(10).await;
    site.sync().await;
    pass(HOUR).await;
    assert_eq!(site.destination().titles().len(), 11, "no twins");
    assert_eq!((site.pending(), site.destination().ledger().careless), (0, 0));
    // What was not made is made after the second look.
    site.destination().ledger().opens.push_back(Fault::LostBefore);
    site.record(&[("lost", Severity::Critical, "prod", "incident")]).await;
    site.sync().await;
    pass(HOUR).await;
    assert_eq!(site.destination().titles().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_keeps_neither_key_is_held_or_accepted_as_configured() {
    let neither = Some(KeysKept { sys_id: false, correlation_id: false });
    let mut site = Site::one();
    site.destination().ledger().keeps = neither;
    site.record_many(5).await;
    site.start();
    pass(HOUR * 5).await;
    let made = site.destination().titles().len();
    assert!(made <= 2, "those in flight when it showed: {made}");
    let holds = site.overview().destinations[0].holds.clone();
    assert!(holds[0].reason.contains("keeps neither"), "{holds:?}");
    assert!(holds[0].remedy.contains("on_unprotected"), "{holds:?}");
    // A person gave the right to write the field.
    site.destination().ledger().keeps = None;
    site.sync().await;
    assert_eq!((site.destination().titles().len(), site.pending()), (5, 0));

    let accept = Limits { on_unprotected: OnUnprotected::Accept, ..Limits::default() };
    let mut site = Site::limited(accept);
    site.destination().ledger().keeps = neither;
    site.record_many(5).await;
    site.start();
    pass(MINUTE).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_put_once_without_a_look_up_and_again_after_a_lost_answer() {
    let mut site = Site::one();
    site.destination().ledger().opens.push_back(Fault::LostAfter);
    site.record(&[("e", Severity::Major, "prod", "em_event")]).await;
    site.record(&[("t", Severity::Minor, "prod", "incident")]).await;
    site.start();
    pass(MINUTE).await;
    // Seen again: nothing new.
    site.record(&[("e", Severity::Major, "prod", "em_event")]).await;
    site.sync().await;
    let kinds = site.destination().ledger().kinds.clone();
    let (ticket, event) = (DeliveryKind::OpenTicket, DeliveryKind::PutEvent);
    assert_eq!(kinds, [event, ticket, event]);
    assert_eq!((site.destination().titles().len(), site.pending(), site.overview().dead), (2, 0, 0));
    assert_eq!(site.overview().destinations[0].counts["delivered"], 2);
    let list = site.in_state(DeliveryState::Delivered);
    assert!(list.iter().any(|d| d.kind == "put-event" && d.title == "e" && d.table == "em_event"));
}

#[tokio::test(start_paused = true)]
async fn a_destination_on_hold_waits_and_the_others_go_on() {
    let mut site = Site::new(&["prod", "dr"], |_, _| {});
    for n in 0..50 {
        site.record(&[(&format!("p{n}"), Severity::Major, "prod", "incident")]).await;
        site.record(&[(&format!("d{n}"), Severity::Major, "dr", "incident")]).await;
    }
    site.destination().ledger().finds.extend([Fault::Hold, Fault::Hold]);
    site.start();
    pass(MINUTE).await;
    assert_eq!((site.destination().calls(), site.destinations[1].titles().len()), (1, 50));
    let holds = site.overview().destinations[0].holds.clone();
    assert_eq!((holds.len(), holds[0].reason.as_str()), (1, "Hold"));
    // Asking tries at once; the second refusal holds longer.
    assert_eq!(site.sync().await.delivered(), 0);
    assert_eq!(site.destination().calls(), 2);
    pass(MINUTE * 7).await;
    assert_eq!(site.destination().calls(), 2);
    pass(MINUTE * 6).await;
    let calls: Vec<String> = site.destination().ledger().calls.iter().map(|c| c.1.clone()).collect();
    assert_eq!(calls[2..6], ["find", "p41", "find", "p0"], "one that was not tried probes, then all go");
    assert_eq!(site.destination().titles().len(), 50);
    assert!(site.overview().destinations[0].holds.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_large_group_is_looked_up_forty_at_a_time() {
    let mut site = Site::one();
    for n in 0..100 {
        site.record(&[(&format!("t{n}"), Severity::Major, "prod", "incident")]).await;
    }
    site.start();
    pass(MINUTE).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (100, 0));
    let calls: Vec<String> = site.destination().ledger().calls.iter().map(|c| c.1.clone()).collect();
    let looked: Vec<usize> = (0..calls.len()).filter(|at| calls[*at] == "find").collect();
    assert_eq!(looked, [0, 41, 82]);
}

#[tokio::test(start_paused = true)]
async fn each_held_table_waits_by_itself() {
    let mut site = Site::one();
    let all = ["sn_si_incident", "incident", "problem", "sn_ot_incident"];
    for (n, name) in (0..40).zip(all.iter().cycle()) {
        site.record(&[(&format!("t{n}"), Severity::Major, "prod", name)]).await;
    }
    for name in ["incident", "problem"] {
        site.destination().ledger().stuck.insert(table(name), Fault::HoldTable);
    }
    site.start();
    pass(MINUTE).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (20, 20));
    assert_eq!(site.overview().destinations[0].holds.len(), 2);
    let refused = site.destination().calls() - 20 - 2;
    assert_eq!(refused, 2, "each of the two was asked once");
    site.destination().ledger().stuck.clear();
    pass(MINUTE * 10).await;
    assert_eq!(site.destination().titles().len(), 40);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_succeed_is_set_aside_and_the_rest_goes_on() {
    let mut site = Site::one();
    site.destination().ledger().refused.insert("bad".to_owned(), Fault::Reject);
    site.record(&[("bad", Severity::Critical, "prod", "incident")]).await;
    site.record(&[("uncomposable", Severity::Critical, "prod", "incident")]).await;
    site.record_many(3).await;
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 3);
    let reasons: Vec<String> =
        site.in_state(DeliveryState::Dead).into_iter().filter_map(|d| d.reason).collect();
    assert_eq!(reasons, ["the template failed", "Reject — do something"]);
    assert_eq!((site.overview().dead, site.overview().backlog), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_closed_there_is_followed_by_the_next_in_the_same_run() {
    let mut site = Site::one();
    site.record_many(1).await;
    let first = &site.relay().plan(1).await.unwrap()[0];
    let keys = crate::model::ticket::TicketKeys::derive(
        &entry("a0", Severity::Warning, "prod", "incident").fingerprint,
        &DestinationName::new("prod").unwrap(),
        &table("incident"),
        crate::model::Generation(0),
    );
    assert_eq!(first.correlation_id, keys.correlation_id.as_str());
    let closed = fake::Kept {
        title: "old".to_owned(),
        active: false,
        seen_from: NOW,
        keys: (keys.correlation_id, keys.sys_id),
    };
    site.destination().ledger().tickets.push((table("incident"), closed));
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles(), ["old", "a0"]);
}

#[tokio::test(start_paused = true)]
async fn never_more_requests_than_the_hourly_budget() {
    let mut site = Site::limited(Limits { requests_per_hour: 30, ..Limits::default() });
    let tables = ["incident", "problem", "sn_si_incident"];
    for (n, name) in (0..60u32).zip(tables.iter().cycle()) {
        site.record(&[(&format!("b{n}"), Severity::Minor, "prod", name)]).await;
    }
    site.start();
    pass(MINUTE).await;
    assert!(
        (20..=27).contains(&site.destination().calls()),
        "a tenth is kept: {}",
        site.destination().calls()
    );
    site.record(&[("urgent", Severity::Critical, "prod", "incident")]).await;
    site.sync().await;
    assert!(site.destination().titles().contains(&"urgent".to_owned()), "for this");
    pass(HOUR * 5).await;
    assert_eq!(
        site.destination().titles().len(),
        61,
        "what was left goes on without waiting for the interval"
    );
    let at: Vec<Timestamp> = site.destination().ledger().calls.iter().map(|c| c.0).collect();
    // The hour of the budget begins with its first request.
    let (mut from, mut within) = (at[0], 0);
    for t in at {
        (from, within) = if t.since(from) >= HOUR { (t, 1) } else { (from, within + 1) };
        assert!(within <= 30, "{within} requests since {from}");
    }
}

/// Requests of each whole hour of a backlog, from the first one on.
fn by_hour(site: &Site) -> Vec<u32> {
    let at: Vec<Timestamp> = site.destination().ledger().calls.iter().map(|c| c.0).collect();
    let mut hours: Vec<(Timestamp, u32)> = Vec::new();
    for t in at {
        match hours.last_mut() {
            Some((from, n)) if t.since(*from) < HOUR => *n += 1,
            _ => hours.push((t, 1)),
        }
    }
    // The last is not full.
    hours.pop();
    hours.into_iter().map(|(_, n)| n).collect()
}

async fn backlog_under(limits: Limits, theirs: Option<u32>) -> Site {
    let mut site = Site::limited(limits);
    site.destination().ledger().hourly = theirs;
    for from in (0..1_000).step_by(250) {
        let source = SourceName::new("eve").unwrap();
        let one = |n: u32| entry(&format!("c{n}"), Severity::Critical, "prod", "incident");
        let entries = (from..from + 250).map(one).collect();
        site.store.record(vec![Record { entries, ..Record::new(source, NOW) }]).await.unwrap();
    }
    site.start();
    pass(HOUR * 12).await;
    assert_eq!(site.destination().titles().len(), 1_000);
    site
}

#[tokio::test(start_paused = true)]
async fn a_backlog_uses_the_hourly_budget_up() {
    let site = backlog_under(Limits { requests_per_hour: 200, ..Limits::default() }, None).await;
    let hours = by_hour(&site);
    assert!(hours.len() >= 4 && hours.iter().all(|n| (190..=200).contains(n)), "{hours:?}");
}

#[tokio::test(start_paused = true)]
async fn under_the_instances_own_limit_there_is_at_most_one_429_an_hour() {
    let limits = Limits { requests_per_hour: 10_000, max_in_flight: 2, ..Limits::default() };
    let site = backlog_under(limits, Some(200)).await;
    let hours = by_hour(&site);
    assert!(hours.len() >= 4 && hours.iter().all(|n| (190..=201).contains(n)), "{hours:?}");
    let refusals = site.destination().ledger().refusals.clone();
    assert!(refusals.windows(2).all(|two| two[1].since(two[0]) >= HOUR), "{refusals:?}");
}

#[tokio::test(start_paused = true)]
async fn twenty_thousand_forged_sources_on_one_rule_delay_no_other_finding() {
    let mut site = Site::limited(Limits::default());
    let forged = |n: u32| {
        let unique = entry(&format!("forged {n}"), Severity::Critical, "prod", "incident");
        Entry { alert: Alert { title: "flood".to_owned(), ..unique.alert.clone() }, ..unique }
    };
    for from in (0..20_000).step_by(1_000) {
        let source = SourceName::new("eve").unwrap();
        let entries = (from..from + 1_000).map(forged).collect();
        site.store.record(vec![Record { entries, ..Record::new(source, NOW) }]).await.unwrap();
    }
    site.record(&[("another rule", Severity::Critical, "prod", "incident")]).await;
    site.start();
    pass(FIRST_SYNC + Duration::from_secs(1)).await;
    let at = site.destination().titles().iter().position(|title| title == "another rule");
    assert!(at.is_some_and(|at| at <= 2), "{at:?}");
    // In the middle of it, and when the hour's budget is used up to what is kept for the most severe.
    pass(MINUTE * 10).await;
    site.record(&[("in the middle", Severity::Critical, "prod", "incident")]).await;
    site.sync().await;
    pass(HOUR).await;
    let titles = site.destination().titles();
    let at = titles.iter().position(|title| title == "in the middle");
    assert!(at.is_some_and(|at| at < 1_100), "{at:?} of {}", titles.len());
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_is_cut_short_says_so() {
    let site = Site::one();
    site.record_many(3).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let report = site.relay().run_once(MINUTE, &stop).await.unwrap();
    assert!(report.cut && report.waiting[0].contains("stops or reloads"), "{report:?}");
    assert_eq!((site.destination().calls(), site.pending()), (0, 3));
    let report = site.relay().run_once(MINUTE, &CancellationToken::new()).await.unwrap();
    assert!(!report.cut && report.waiting.is_empty() && report.created == 3, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_mid_run_leaves_nothing_claimed() {
    let mut site = Site::one();
    site.record_many(30).await;
    site.start();
    pass(FIRST_SYNC + Duration::from_millis(120)).await;
    site.stop().await;
    let sent = site.destination().titles().len();
    assert!((1..10).contains(&sent), "{sent}");
    assert!(site.in_state(DeliveryState::Claimed).is_empty());
    assert_eq!(site.pending(), 30 - sent);
    assert!(site.in_state(DeliveryState::Pending).iter().all(|d| d.attempts == 0 && !d.doubtful));
    // After the restart it goes on without waiting for the interval.
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 30);
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_at_a_kill_waits_and_is_looked_up() {
    let mut site = Site::new(&["prod"], |_, destinations| destinations[0].lag = Duration::from_secs(5));
    site.record_many(1).await;
    site.start();
    pass(FIRST_SYNC + Duration::from_millis(75)).await;
    site.kill();
    let claim = site.in_state(DeliveryState::Claimed);
    assert_eq!(claim.len(), 1);
    // The create arrived there all the same.
    let order = crate::destination::Order {
        kind: DeliveryKind::OpenTicket,
        table: table("incident"),
        keys: crate::model::ticket::TicketKeys::derive(
            &entry("a0", Severity::Warning, "prod", "incident").fingerprint,
            &DestinationName::new("prod").unwrap(),
            &table("incident"),
            crate::model::Generation(0),
        ),
        fields: Fields::from([("short_description".to_owned(), "a0".to_owned())]),
        attachment: None,
        affected: Vec::new(),
    };
    site.destination().send(&order).await.unwrap();
    let before = site.destination().calls();
    site.start();
    pass(Duration::from_secs(5)).await;
    assert_eq!(site.destination().calls(), before, "its index may lag");
    pass(MINUTE).await;
    assert_eq!((site.destination().titles().len(), site.destination().ledger().careless), (1, 0));
    assert_eq!(site.overview().destinations[0].counts["found"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_field_is_told_once() {
    let mut site = Site::one();
    site.destination().ledger().drops_field = true;
    site.record_many(60).await;
    site.start();
    pass(MINUTE).await;
    let notices = site.overview().issues;
    assert_eq!(notices.len(), 1);
    assert!(notices[0].issue.text.contains("assignment_group"), "{}", notices[0].issue.text);
}

#[tokio::test(start_paused = true)]
async fn the_interval_is_kept_over_a_restart_and_a_clock_set_back() {
    let mut site = Site::one();
    site.record_many(1).await;
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 1, "the first sync is at once");
    site.record(&[("later", Severity::Major, "prod", "incident")]).await;
    pass(MINUTE * 30).await;
    site.stop().await;
    site.start();
    pass(MINUTE * 28).await;
    assert_eq!(site.destination().titles().len(), 1);
    // Set back in between: the interval is monotonic.
    site.clock.shift(-86_400 * 10);
    pass(MINUTE * 2).await;
    assert_eq!(site.destination().titles().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_pushed_while_sync_is_off() {
    let mut site = Site::new(&["prod"], |s, _| s.enabled = false);
    site.record_many(3).await;
    site.start();
    pass(HOUR * 3).await;
    assert!(site.sync().await.waiting[0].contains("enabled = false"));
    assert_eq!((site.destination().calls(), site.pending()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn an_absurd_clock_holds_the_sync_and_it_is_made_up_for() {
    let mut site = Site::one();
    let back = NOW.since(RELEASED_AT).as_secs() as i64 + 86_400;
    site.clock.shift(-back);
    site.record_many(3).await;
    site.start();
    pass(MINUTE * 10).await;
    assert_eq!(site.destination().calls(), 0);
    assert!(site.sync().await.waiting[0].contains("sending is held"));
    site.clock.shift(back);
    pass(MINUTE).await;
    assert_eq!(site.destination().titles().len(), 3, "without waiting for the next interval");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_strands_nothing() {
    let mut site = Site::one();
    let year = 86_400 * 365;
    site.clock.shift(year);
    site.destination().ledger().opens.push_back(Fault::Busy);
    site.record_many(2).await;
    site.start();
    pass(Duration::from_secs(5)).await;
    site.record(&[("made ahead", Severity::Major, "prod", "incident")]).await;
    site.clock.shift(-year);
    pass(HOUR * 2).await;
    assert_eq!(site.destination().titles().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_due_while_the_run_ends_is_not_forgotten() {
    let mut site = Site::one();
    site.destination().ledger().opens.extend([Fault::LostBefore; 12]);
    site.record_many(12).await;
    // Each look at the clock is half a second later than the last: due times fall between any two looks.
    site.clock.tick.store(500_000, Ordering::SeqCst);
    site.start();
    pass(MINUTE * 20).await;
    assert_eq!(site.destination().titles().len(), 12);
}

#[tokio::test(start_paused = true)]
async fn creates_that_fail_while_look_ups_work_are_backed_off() {
    let mut site = Site::one();
    site.destination().ledger().opens.extend([Fault::Busy; 200]);
    site.record_many(100).await;
    site.start();
    pass(HOUR).await;
    let calls = site.destination().calls();
    assert!(calls <= 60, "{calls} requests in an hour to a destination that fails");
    site.destination().ledger().opens.clear();
    pass(MINUTE * 10).await;
    assert!(site.destination().titles().len() >= 80, "{}", site.destination().titles().len());
    pass(HOUR * 2).await;
    assert_eq!(site.destination().titles().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_slow_destination_delays_no_other() {
    let mut site = Site::new(&["prod", "dr"], |_, destinations| destinations[0].takes = MINUTE);
    site.record_many(200).await;
    site.record(&[("d", Severity::Warning, "dr", "incident")]).await;
    site.start();
    pass(MINUTE).await;
    assert_eq!(site.destinations[1].titles().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_relay_asks_nothing_and_writes_nothing() {
    let mut site = Site::new(&["prod"], |s, _| s.interval = HOUR * 24);
    site.record_many(3).await;
    site.start();
    pass(MINUTE).await;
    let files = || -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
        let all = std::fs::read_dir(site.dir.path()).unwrap().map(|f| f.unwrap());
        // The index of the WAL is memory that readers and writers share.
        let kept = all.filter(|f| !f.file_name().to_string_lossy().ends_with("-shm"));
        kept.map(|f| (f.path(), f.metadata().unwrap().len(), f.metadata().unwrap().modified().unwrap()))
            .collect()
    };
    let (before, calls) = (files(), site.destination().calls());
    let began = Instant::now();
    pass(HOUR * 20).await;
    assert_eq!(began.elapsed(), HOUR * 20);
    assert_eq!((files(), site.destination().calls()), (before, calls));
}

#[tokio::test(start_paused = true)]
async fn a_full_store_is_waited_for() {
    let site = Site::one();
    let mut answers =
        vec![Ok(7), Err(StoreError::Full("x".to_owned())), Err(StoreError::Busy("y".to_owned()))];
    let (relay, stop) = (site.relay(), CancellationToken::new());
    let got = relay.patiently(&stop, || {
        let next = answers.pop().unwrap();
        async move { next }
    });
    assert!(matches!(got.await, Ok(7)));
}

#[tokio::test(start_paused = true)]
async fn once_does_not_wait_for_room_without_end() {
    let site = Site::one();
    let (relay, stop) = (site.relay(), CancellationToken::new());
    let full = || async { Err::<(), _>(StoreError::Full("x".to_owned())) };
    let got = tokio::time::timeout(HOUR, relay.patiently(&stop, full)).await;
    assert!(matches!(&got, Ok(Err(e)) if e.is_passing()), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn once_waits_for_what_is_due_soon_and_says_when_the_rest_is() {
    let site = Site::one();
    site.record_many(3).await;
    site.destination().ledger().opens.extend([Fault::LostAfter, Fault::None, Fault::Told(7_200)]);
    let stop = CancellationToken::new();
    let report = site.relay().run_once(MINUTE + MINUTE / 2, &stop).await.unwrap();
    assert_eq!((report.created, report.found), (1, 0));
    assert!(report.next_at.is_some_and(|at| at > site.clock.now().after(MINUTE * 58)), "{report:?}");
    let site = Site::one();
    site.record_many(3).await;
    site.destination().ledger().opens.extend([Fault::LostAfter]);
    let report = site.relay().run_once(MINUTE, &stop).await.unwrap();
    assert_eq!((report.created, report.found, report.next_at), (2, 1, None));
}

#[tokio::test(start_paused = true)]
async fn once_waits_for_lost_answers_however_slow_the_machine_is() {
    // A sync takes longer than the patience: each answer needs five seconds, two at a time.
    let site = Site::new(&["prod"], |_, destinations| destinations[0].takes = Duration::from_secs(5));
    site.record_many(60).await;
    site.destination().ledger().opens.extend([
        Fault::Throws,
        Fault::LostAfter,
        Fault::LostBefore,
        Fault::Throws,
    ]);
    let report = site.relay().run_once(MINUTE, &CancellationToken::new()).await.unwrap();
    assert!(site.clock.now() > NOW.after(MINUTE * 2));
    assert_eq!((report.created, report.found, report.next_at, site.pending()), (59, 1, None, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_error_that_may_have_done_it_is_looked_up_as_soon_as_a_lost_answer() {
    let mut site = Site::one();
    site.destination().ledger().opens.extend([Fault::Throws, Fault::Throws]);
    site.record_many(1).await;
    site.start();
    pass(FIRST_SYNC + Duration::from_secs(1)).await;
    assert_eq!(site.destination().calls(), 2);
    pass(DOUBT_WAIT).await;
    assert_eq!(site.destination().calls(), 4, "looked up, and tried again");
    pass(Duration::from_secs(40)).await;
    assert_eq!(site.destination().calls(), 4, "then it is backed off");
    pass(MINUTE).await;
    assert_eq!(site.destination().titles(), ["a0"]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_shows_what_would_go_and_changes_nothing() {
    let site = Site::one();
    site.record_many(5).await;
    assert_eq!(site.relay().plan(usize::MAX).await.unwrap().len(), 5);
    assert_eq!((site.pending(), site.destination().calls()), (5, 0));
    let claim = Claim {
        destination: DestinationName::new("prod").unwrap(),
        except: vec![table("incident")],
        limit: 9,
        only_tried: false,
        fresh_first: false,
        min_severity: Severity::Warning,
        peek: false,
        links: false,
        now: NOW,
    };
    assert!(site.store.claim(claim).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_was_said_of_a_destination_ends_with_it() {
    let site = Site::one();
    for (code, subject) in [
        ("held", "gone:incident:Critical"),
        ("dropped-field", "gone:incident:urgency"),
        ("cmdb-other-source", "prod:Tool"),
        ("held", "prod:incident:Critical"),
        ("source", "gone:incident"),
    ] {
        site.store
            .tell(crate::model::HealthIssue::new(code, "it is so", "do this").about(subject))
            .await
            .unwrap();
    }
    let relay = site.relay();
    relay.run_once(Duration::ZERO, &CancellationToken::new()).await.unwrap();
    let left: Vec<_> =
        site.overview().issues.into_iter().map(|row| (row.issue.code, row.issue.subject)).collect();
    let words = |code: &str, subject: &str| (code.to_owned(), subject.to_owned());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&words("held", "prod:incident:Critical")), "it is still told of");
    assert!(left.contains(&words("source", "gone:incident")), "no destination, whatever its name");
}
