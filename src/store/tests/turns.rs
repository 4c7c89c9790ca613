//! Turns: a flood delays itself and nobody else, before and after a start.

use super::*;
use crate::model::Endpoint;

/// A finding of a signature on a target.
fn finding(n: u32, title: &str, target: u8) -> Entry {
    let mut entry = entry(n, Severity::Critical);
    title.clone_into(&mut entry.alert.title);
    entry.alert.destination =
        Endpoint { ip: Some(std::net::Ipv4Addr::new(10, 0, 0, target).into()), ..Endpoint::default() };
    entry
}

async fn flood(bench: &Bench, n: std::ops::Range<u32>) {
    bench.record(n.map(|n| finding(n, "flood", 1)).collect()).await;
}

async fn titles(bench: &Bench, limit: usize) -> Vec<String> {
    bench.claim(limit).await.into_iter().map(|c| c.alert.unwrap().title).collect()
}

#[tokio::test]
async fn a_flood_delays_nobody_else_before_and_after_a_start() {
    let bench = Bench::new();
    flood(&bench, 0..500).await;
    bench
        .record(vec![finding(1_000, "other", 1), finding(1_001, "flood", 2), finding(1_002, "third", 9)])
        .await;
    assert_eq!(titles(&bench, 4).await, ["flood", "other", "flood", "third"]);
    assert_eq!(titles(&bench, 100).await, ["flood"; 100]);
    // Who comes now is the next.
    bench.record(vec![finding(1_003, "late", 1)]).await;
    assert_eq!(titles(&bench, 2).await, ["late", "flood"]);

    let bench = bench.reopen().await;
    flood(&bench, 500..600).await;
    bench.record(vec![finding(1_004, "after the start", 1)]).await;
    let next = titles(&bench, 3).await;
    assert!(next.contains(&"after the start".to_owned()), "{next:?}");
}

#[tokio::test]
async fn what_is_given_back_keeps_its_turn() {
    let bench = Bench::new();
    flood(&bench, 0..50).await;
    bench.record(vec![finding(1_000, "other", 1)]).await;
    let claimed = bench.claim(2).await;
    for c in &claimed {
        bench.settle(c, Outcome::Requeue { doubtful: false, message: String::new() }).await;
    }
    bench.record(vec![finding(1_001, "flood", 1)]).await;
    assert_eq!(titles(&bench, 3).await, ["flood", "other", "flood"]);
}

#[tokio::test]
async fn the_oldest_that_waits_is_known_though_turns_are_not_by_age() {
    let bench = Bench::new();
    flood(&bench, 0..50).await;
    let oldest = bench.clock_now();
    bench.claim(20).await;
    for n in 0..5 {
        bench.clock.advance(Duration::from_secs(60));
        bench.record(vec![finding(1_000 + n, &format!("other {n}"), 1)]).await;
    }
    assert_eq!(bench.reader().overview().unwrap().oldest_pending_at, Some(oldest));
}

#[tokio::test]
async fn an_events_and_a_notes_turns_are_of_the_same_queue() {
    let bench = Bench::new();
    let event = |n: u32, title: &str| Entry { routes: vec![routed("em_event")], ..finding(n, title, 1) };
    bench.record((0..30).map(|n| event(n, "flood")).collect()).await;
    bench.record(vec![event(100, "other")]).await;
    assert_eq!(titles(&bench, 2).await, ["flood", "other"]);
}
