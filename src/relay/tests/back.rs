//! What reading back may take of the hour's requests, and that all of it comes home in the end.

use super::*;
use crate::store::op::destination_state::DestinationChange;

fn prod() -> DestinationName {
    DestinationName::new("prod").unwrap()
}

impl Site {
    /// `n` tickets that are there, and a new hour of the budget.
    async fn with_tickets(limits: Limits, n: u32) -> Self {
        let mut site = Self::limited(limits);
        site.sightings(n).await;
        site.start();
        pass(MINUTE * 5).await;
        assert_eq!(site.destination().titles().len(), n as usize);
        site
    }

    /// The findings of so many tickets are seen (again).
    async fn sightings(&self, n: u32) {
        let source = SourceName::new("eve").unwrap();
        let entries = (0..n).map(|n| entry(&format!("t{n}"), Severity::Minor, "prod", "incident"));
        let record = Record { entries: entries.collect(), ..Record::new(source, self.clock.now()) };
        self.store.record(vec![record]).await.unwrap();
    }

    async fn used(&self, requests: u32) {
        let budget = DestinationChange::Budget { window_started_at: self.clock.now(), window_used: requests };
        self.store.change_destination(&prod(), vec![budget]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_for_critical_alerts_is_not_for_reading_back() {
    let site = Site::with_tickets(Limits { requests_per_hour: 40, ..Limits::default() }, 1).await;
    site.sightings(1).await;
    site.used(36).await;
    let before = site.destination().calls();
    for _ in 0..4 {
        site.sync().await;
        assert_eq!(site.destination().calls(), before, "only what is kept for critical alerts is left");
    }
    site.record(&[("urgent", Severity::Critical, "prod", "incident")]).await;
    assert_eq!(site.sync().await.created, 1);
}

#[tokio::test(start_paused = true)]
async fn tickets_that_are_seen_again_starve_no_delivery() {
    let site = Site::with_tickets(Limits::default(), 400).await;
    // From now on the instance allows few.
    site.destination().ledger().hourly = Some(12);
    for hour in 0..3 {
        pass(HOUR).await;
        site.sightings(400).await;
        let title = format!("fresh {hour}");
        site.record(&[(&title, Severity::Major, "prod", "incident")]).await;
        assert_eq!(site.sync().await.created, 1, "hour {hour}");
    }
    // Nor does one sync after the other use up bit by bit what an alert to come will need.
    pass(HOUR).await;
    for _ in 0..12 {
        site.sightings(400).await;
        pass(MINUTE).await;
        site.sync().await;
    }
    site.record(&[("late", Severity::Major, "prod", "incident")]).await;
    assert_eq!(site.sync().await.created, 1);
}

#[tokio::test(start_paused = true)]
async fn each_ticket_that_is_seen_again_and_again_is_looked_at_in_its_turn() {
    let site = Site::with_tickets(Limits::default(), 400).await;
    site.destination().ledger().hourly = Some(12);
    // Fourteen looks at thirty tickets each, five of them an hour.
    for _ in 0..4 {
        pass(HOUR).await;
        site.sightings(400).await;
        site.sync().await;
    }
    assert_eq!(site.destination().ledger().looked_at.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_that_takes_hours_does_not_keep_tickets_from_being_looked_at() {
    let site = Site::with_tickets(Limits { requests_per_hour: 40, ..Limits::default() }, 1).await;
    let source = SourceName::new("eve").unwrap();
    let one = |n: u32| entry(&format!("more {n}"), Severity::Minor, "prod", "incident");
    let record = Record { entries: (0..400).map(one).collect(), ..Record::new(source, site.clock.now()) };
    site.store.record(vec![record]).await.unwrap();
    site.sync().await;
    site.sightings(1).await;
    // No person asks and the interval is a day: each hour's budget goes on with the backlog.
    pass(HOUR * 2).await;
    assert!(site.pending() > 0);
    assert_eq!(site.destination().ledger().looked_at.len(), 1);
}

impl Site {
    /// These records are resolved there at that time.
    fn resolve(&self, numbers: std::ops::Range<usize>, at: Timestamp) {
        let mut ledger = self.destination().ledger();
        let ids: Vec<_> = ledger.tickets[numbers].iter().map(|(_, kept)| kept.keys.1.clone()).collect();
        ledger.changes.extend(ids.into_iter().map(|id| (id, at)));
    }

    /// How many of them came home.
    async fn resolved(&self) -> usize {
        let watch = self.store.watches(&prod()).await.unwrap().remove(0);
        let (mut count, mut after) = (0, 0);
        loop {
            let known = self.store.known_tickets(watch.route, after).await.unwrap();
            let Some(last) = known.last() else { return count };
            after = last.ticket;
            count += known.iter().filter(|ticket| ticket.mod_count.is_some()).count();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn more_changes_in_one_second_than_a_poll_has_pages_come_home_with_the_next_sync() {
    let mut site = Site::new(&["prod"], |s, _| {
        let limits = Limits { requests_per_hour: 100_000, ..Limits::default() };
        s.destinations.insert(prod(), limits);
    });
    site.sightings(5_002).await;
    site.start();
    pass(HOUR * 2).await;
    assert_eq!(site.destination().titles().len(), 5_002);
    let at = site.clock.now().after(HOUR);
    site.resolve(0..5_001, at);
    site.resolve(5_001..5_002, at.after(Duration::from_secs(1)));
    // The poll is due once a day; what it left does not wait for the next day.
    pass(HOUR * 22).await;
    while site.resolved().await == 0 {
        pass(HOUR).await;
    }
    assert_eq!(site.resolved().await, 5_000);
    pass(HOUR).await;
    assert_eq!(site.resolved().await, 5_002);
    // It was read to its end: the next is due in a day, and reads what came late once more.
    let polls =
        |site: &Site| site.destination().ledger().calls.iter().filter(|(_, c)| c == "changed").count();
    let before = polls(&site);
    pass(HOUR * 20).await;
    assert_eq!(polls(&site), before);
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_the_budget_ends_goes_on_where_it_was_and_leaves_looks_their_part() {
    let site = Site::with_tickets(Limits { requests_per_hour: 100_000, ..Limits::default() }, 1_500).await;
    site.destination().ledger().hourly = Some(12);
    pass(HOUR).await;
    site.resolve(0..1_500, site.clock.now());
    site.sightings(1).await;
    // Five requests an hour, four of them for the poll.
    let mut home = Vec::new();
    for _ in 0..2 {
        site.sync().await;
        home.push(site.resolved().await);
        pass(HOUR).await;
    }
    assert_eq!(home, [800, 1_500]);
    assert_eq!(site.destination().ledger().looked_at.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_page_costs_no_page_before_it() {
    use Fault::{Busy, None};
    let site = Site::with_tickets(Limits::default(), 500).await;
    pass(HOUR).await;
    site.resolve(0..500, site.clock.now());
    site.destination().ledger().finds.extend([None, Busy]);
    site.sync().await;
    assert_eq!(site.resolved().await, 200);
    site.sync().await;
    assert_eq!(site.resolved().await, 500);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_of_the_instance_keeps_no_change_from_coming_home() {
    let site = Site::with_tickets(Limits::default(), 2).await;
    site.destination().ledger().behind = HOUR * 3;
    pass(MINUTE * 10).await;
    let theirs = |site: &Site| site.clock.now().before(HOUR * 3);
    site.resolve(0..1, theirs(&site));
    site.sync().await;
    assert_eq!(site.resolved().await, 1);
    // Nor is the next beginning one of our clock.
    pass(MINUTE * 10).await;
    site.resolve(1..2, theirs(&site));
    site.sync().await;
    assert_eq!(site.resolved().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_watermark_that_a_wrong_clock_put_into_the_future_is_not_believed() {
    let site = Site::with_tickets(Limits::default(), 1).await;
    let route = site.store.watches(&prod()).await.unwrap().remove(0).route;
    site.store.read_until(route, site.clock.now().after(HOUR * 24 * 365), None).await.unwrap();
    pass(HOUR).await;
    site.resolve(0..1, site.clock.now());
    site.sync().await;
    assert_eq!(site.resolved().await, 1);
    let watch = site.store.watches(&prod()).await.unwrap().remove(0);
    assert!(watch.until <= site.clock.now(), "{watch:?}");
}

impl Site {
    /// `n` tickets that are there, and a sync each hour.
    async fn hourly(n: u32) -> Self {
        let mut site = Self::one();
        site.sightings(n).await;
        site.start();
        pass(MINUTE * 5).await;
        assert_eq!(site.destination().titles().len(), n as usize);
        site
    }

    async fn live(&self) -> usize {
        let watch = self.store.watches(&prod()).await.unwrap().remove(0);
        self.store.unswept(watch.route, 0, self.clock.now(), 10_000).await.unwrap().len()
    }

    fn told(&self, code: &str) -> Vec<String> {
        let issues = self.store.reader().unwrap().overview().unwrap().issues;
        issues.into_iter().filter(|row| row.issue.code == code).map(|row| row.issue.text).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_there_is_known_after_two_intervals_whether_it_is_seen_again_or_not() {
    let site = Site::hourly(100).await;
    pass(HOUR).await;
    site.destination().ledger().tickets.truncate(70);
    pass(HOUR * 20).await;
    assert_eq!(site.live().await, 100, "not before the interval is over");
    pass(HOUR * 5).await;
    assert_eq!(site.live().await, 100, "it may only be hidden: a second look decides");
    pass(HOUR * 24).await;
    assert_eq!(site.live().await, 70);
    // On order at once; and what was hidden for one look is there.
    let hidden = site.destination().ledger().tickets.split_off(39);
    site.sync().await;
    site.destination().ledger().tickets.extend(hidden);
    site.sync().await;
    assert_eq!(site.live().await, 70);
    site.destination().ledger().tickets.truncate(39);
    site.sync().await;
    site.sync().await;
    assert_eq!(site.live().await, 39);
    let calls = site.destination().calls();
    pass(HOUR * 20).await;
    assert_eq!(site.destination().calls(), calls, "it has come to its end");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_the_budget_ends_goes_on_with_the_next_sync() {
    let site = Site::hourly(300).await;
    pass(HOUR).await;
    site.destination().ledger().tickets.clear();
    site.destination().ledger().hourly = Some(12);
    let mut live = Vec::new();
    while live.last() != Some(&0) && live.len() < 60 {
        pass(HOUR).await;
        live.push(site.live().await);
    }
    live.dedup();
    // Five requests an hour, four of them for the sweep, with thirty tickets in each.
    assert_eq!(live, [300, 180, 60, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_again_and_deleted_gets_its_next_ticket_from_the_look() {
    let site = Site::with_tickets(Limits::default(), 3).await;
    pass(HOUR).await;
    site.destination().ledger().tickets.clear();
    site.sightings(1).await;
    site.sync().await;
    assert_eq!(site.destination().titles(), ["t0"]);
    pass(MINUTE * 10).await;
    site.sync().await;
    assert_eq!(site.live().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_keeps_no_correlation_id_is_read_by_ids_and_that_is_said_once() {
    let mut site = Site::new(&["prod"], |_, _| {});
    site.destination().ledger().keeps = Some(KeysKept { sys_id: true, correlation_id: false });
    site.sightings(2).await;
    site.start();
    pass(MINUTE * 10).await;
    site.destination().ledger().tickets.truncate(1);
    for _ in 0..3 {
        site.sync().await;
    }
    assert_eq!(site.live().await, 1);
    let told = site.told("changes-untold");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("do not keep our correlation_id"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn devices_that_were_never_tried_go_when_the_hold_is_over() {
    let mut site = Site::new(&["prod"], |s, _| {
        s.interval = HOUR * 24;
        s.devices = Some(Devices { destination: prod(), table: table("cmdb_ci"), interval: HOUR * 24 });
    });
    // More than go in one group.
    let at = |n: usize| crate::model::Device {
        ips: vec![format!("10.3.{}.{}", n / 200, n % 200 + 1).parse().unwrap()],
        ..crate::model::Device::default()
    };
    let devices = (0..300).map(at).collect();
    let record = Record { kind: "zeek", devices, ..Record::new(SourceName::new("zeek").unwrap(), NOW) };
    site.store.record(vec![record]).await.unwrap();
    site.destination().ledger().opens.push_back(Fault::Told(1_800));
    site.start();
    pass(MINUTE * 10).await;
    assert_eq!(site.destination().calls(), 1);
    assert!(site.destination().ledger().devices.is_empty());
    pass(HOUR * 3).await;
    assert_eq!(site.destination().ledger().devices.len(), 300);
}
