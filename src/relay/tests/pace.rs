//! How fast it goes: what waits for a budget and is said to, how many at once, and how many are claimed together.

use super::*;
use crate::store::Spent;

/// What of the budget of each destination makes something wait.
fn spent(site: &Site) -> Vec<Option<Spent>> {
    site.overview().destinations.into_iter().map(|row| row.spent).collect()
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_budget_is_kept_until_it_goes_on() {
    let mut site = Site::new(&["prod", "other"], |s, _| {
        let limits = Limits { requests_per_hour: 30, ..Limits::default() };
        s.destinations.insert(DestinationName::new("prod").unwrap(), limits);
        s.interval = HOUR * 24;
    });
    for n in 0..60u32 {
        site.record(&[(&format!("b{n}"), Severity::Minor, "prod", "incident")]).await;
    }
    site.record(&[
        ("c", Severity::Minor, "other", "incident"),
        ("d", Severity::Critical, "prod", "incident"),
    ])
    .await;
    site.start();
    pass(MINUTE).await;
    let told = spent(&site);
    let [Some(prod), None] = told.as_slice() else { panic!("{told:?}") };
    assert!(prod.reason.starts_with("`requests_per_hour = 30`: 27 were made in this hour, and the last 3"));
    assert!(prod.critical_go_on && (20..=27).contains(&prod.per_hour), "{prod:?}");
    assert_eq!(prod.until_at.since(NOW).as_secs() / 60, 60);
    let waiting = site.in_state(DeliveryState::Pending);
    let says = |row: &crate::store::DeliveryRow| {
        row.due_at == prod.until_at && row.reason.as_deref() == Some(prod.reason.as_str())
    };
    assert!(waiting.len() > 30 && waiting.iter().all(says), "{waiting:?}");
    // Asked once more it can send nothing, and does not forget how many an hour carries. So does a restart.
    site.sync().await;
    assert_eq!(spent(&site)[0].as_ref().map(|spent| spent.per_hour), Some(prod.per_hour));
    site.kill();
    assert!(spent(&site)[0].is_some());
    site.start();
    pass(HOUR * 4).await;
    assert_eq!((site.pending(), spent(&site)), (0, vec![None, None]), "nothing waits any longer");
}

/// So many warnings at once to the table `incident` of `prod`.
async fn warnings(site: &Site, n: u32) {
    let source = SourceName::new("eve").unwrap();
    let entries = (0..n).map(|n| entry(&format!("w{n}"), Severity::Warning, "prod", "incident")).collect();
    site.store.record(vec![Record { entries, ..Record::new(source, NOW) }]).await.unwrap();
}

/// One whose destination serves so many at once, each in 100 ms.
fn served(at_once: usize, max_in_flight: usize) -> Site {
    let site = Site::new(&["prod"], |s, made| {
        let limits = Limits { max_in_flight, requests_per_hour: 100_000, ..Limits::default() };
        s.destinations.insert(DestinationName::new("prod").unwrap(), limits);
        s.interval = HOUR * 24;
        made[0].takes = Duration::from_millis(100);
    });
    site.destination().ledger().semaphore = Some(at_once);
    site
}

#[tokio::test(start_paused = true)]
async fn as_many_at_once_as_are_served_are_found_without_waiting() {
    for (at_once, max_in_flight) in [(1, 2), (1, 16), (3, 4)] {
        let mut site = served(at_once, max_in_flight);
        warnings(&site, 120).await;
        site.start();
        pass(Duration::from_secs(35)).await;
        let told = format!("{at_once} of {max_in_flight}");
        assert_eq!((site.destination().titles().len(), site.pending()), (120, 0), "{told}");
        assert!(site.overview().destinations[0].holds.is_empty(), "{told}");
        // Each lowering is one answer to all that were on their way.
        let crowded = site.destination().ledger().crowded;
        assert!((1..=26).contains(&crowded), "{told}: {crowded}");
        assert_eq!(site.destination().ledger().careless, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_number_that_was_too_many_is_not_tried_again_for_an_hour_then_for_two() {
    let mut site = served(1, 2);
    site.start();
    // A whole group in each run, and many of them.
    for n in 0..30 {
        let source = SourceName::new("eve").unwrap();
        let one = |i: u32| entry(&format!("n{n}-{i}"), Severity::Warning, "prod", "incident");
        let record = Record { entries: (0..80).map(one).collect(), ..Record::new(source, NOW) };
        site.store.record(vec![record]).await.unwrap();
        site.sync().await;
        pass(MINUTE * 10).await;
    }
    assert_eq!(site.pending(), 0);
    // In five hours: at first, after one hour, and after two more.
    assert_eq!(site.destination().ledger().crowded, 3);
    site.destination().ledger().semaphore = None;
    pass(HOUR * 24).await;
    warnings(&site, 200).await;
    site.destination().ledger().most_in_flight = 0;
    site.sync().await;
    assert_eq!(site.destination().ledger().most_in_flight, 2, "more are served now");
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_that_is_too_many_waits_and_the_trial_teaches_nothing() {
    let mut site = served(0, 2);
    warnings(&site, 120).await;
    site.start();
    pass(MINUTE).await;
    assert!(site.destination().titles().is_empty());
    let hold = site.overview().destinations[0].holds[0].reason.clone();
    assert_eq!(hold, "Crowded");
    site.destination().ledger().semaphore = Some(1);
    pass(MINUTE * 10).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (120, 0));
}

#[tokio::test(start_paused = true)]
async fn a_critical_one_goes_first_in_the_middle_of_a_slow_backlog_and_the_backlog_moves() {
    let mut site = Site::new(&["prod"], |s, made| {
        let limits = Limits { requests_per_hour: 100_000, ..Limits::default() };
        s.destinations.insert(DestinationName::new("prod").unwrap(), limits);
        s.interval = HOUR * 24;
        made[0].takes = Duration::from_millis(300);
    });
    warnings(&site, 400).await;
    site.start();
    // The first sync comes after ten seconds.
    pass(Duration::from_secs(16)).await;
    site.record(&[("critical", Severity::Critical, "prod", "incident")]).await;
    pass(Duration::from_secs(10)).await;
    let at = site.destination().titles().iter().position(|title| title == "critical");
    assert!(at.is_some_and(|at| at < 120), "{at:?}");
    let delivered = site.overview().destinations[0].counts["delivered"];
    assert!(delivered >= 40, "{delivered}");
    pass(MINUTE * 2).await;
    assert_eq!((site.destination().titles().len(), site.pending()), (401, 0));
}
