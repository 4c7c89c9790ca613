//! What is planned is in every respect the pending delivery that it will be (`op/plan.rs`).

use super::faults::raw;
use super::repair::{closed, count, healed, leaves, overwrite, restored};
use super::*;
use crate::model::{AlertState, DeliveryState};
use crate::store::op::by_hand::ByHand;
use crate::store::op::dead::Verdict;
use crate::store::op::plan;
use crate::store::rows::{Last, ListFilter};

const ROWS: &str = "SELECT (SELECT count(*) FROM ticket) + (SELECT count(*) FROM delivery)";
const PLANNED: &str = "SELECT count(*) FROM alert WHERE route_id IS NOT NULL";

fn many(n: u32) -> Vec<Entry> {
    (0..n).map(|n| entry(n, Severity::ALL[(n % 4) as usize])).collect()
}

/// Writes out what is planned, as a claim does that comes to nothing.
pub(super) async fn written_out(bench: &Bench) {
    let all = Claim { peek: true, ..claim(usize::MAX, bench.clock_now()) };
    bench.store.claim(all).await.unwrap();
    assert_eq!(count(bench, PLANNED), 0);
    assert_eq!(counted(bench), 0);
}

fn counted(bench: &Bench) -> i64 {
    count(bench, "SELECT coalesce(sum(value), 0) FROM counter WHERE scope = 'store' AND name = 'planned'")
}

/// What a reader shows, whole.
#[derive(Debug, PartialEq)]
struct Seen {
    lists: serde_json::Value,
    ids: Vec<DeliveryId>,
    backlog: i64,
    by_severity: Vec<i64>,
}

fn seen(bench: &Bench) -> Seen {
    let reader = bench.reader();
    let filter = ListFilter { limit: 7, ..ListFilter::default() };
    let waiting = reader.deliveries(DeliveryState::Pending, &filter).unwrap();
    let last = waiting.last().unwrap();
    let after = Some(Last { severity: last.severity, turn: last.turn, id: last.id.0 });
    let of_source =
        ListFilter { source: Some("eve".to_owned()), text: Some("alert 1".to_owned()), ..filter.clone() };
    let major = ListFilter { min_severity: Some(Severity::Minor), ..filter.clone() };
    let overview = reader.overview().unwrap();
    let by_severity = reader.waiting().unwrap();
    let oldest: Vec<_> = by_severity.iter().map(|w| w.oldest_at).collect();
    Seen {
        lists: serde_json::json!([
            reader.tickets(&filter).unwrap(),
            reader.tickets(&major).unwrap(),
            waiting,
            reader.deliveries(DeliveryState::Pending, &ListFilter { after, ..filter }).unwrap(),
            reader.deliveries(DeliveryState::Pending, &of_source).unwrap(),
            reader.delivery(waiting[2].id).unwrap(),
            overview.oldest_pending_at,
            oldest,
        ]),
        ids: waiting.iter().map(|d| d.id).collect(),
        backlog: overview.backlog,
        by_severity: by_severity.iter().map(|w| w.count).collect(),
    }
}

#[tokio::test]
async fn a_burst_costs_no_rows_of_the_outbox_and_is_listed_as_if_it_had_them() {
    let bench = Bench::new();
    assert_eq!(bench.record(many(40)).await.deliveries, 40);
    assert_eq!((count(&bench, ROWS), counted(&bench)), (0, 40));
    let before = seen(&bench);
    assert_eq!((before.backlog, before.ids.len(), before.lists[0].as_array().unwrap().len()), (40, 7, 7));
    assert_eq!(before.by_severity, [10; 4]);
    // Some of them are written out: the lists are of both.
    assert_eq!(bench.store.claim(Claim { peek: true, ..claim(5, NOW) }).await.unwrap().len(), 5);
    assert_eq!(count(&bench, ROWS), 10);
    assert_eq!(bench.store.claim(Claim { peek: true, ..claim(5, NOW) }).await.unwrap().len(), 5);
    assert_eq!(count(&bench, ROWS), 10, "who looks twice finds it written out");
    assert_eq!(seen(&bench), before);
    let bench = bench.reopen().await;
    assert_eq!(seen(&bench), before);
    written_out(&bench).await;
    assert_eq!(count(&bench, ROWS), 80);
    assert_eq!(seen(&bench), before);
    let order: Vec<DeliveryId> = bench.claim(7).await.iter().map(|c| c.id).collect();
    assert_eq!(order, before.ids);
}

#[tokio::test]
async fn a_claim_writes_out_no_more_than_it_may_take() {
    let bench = Bench::new();
    bench.record(many(40)).await;
    let claimed = bench.claim(4).await;
    assert!(claimed.iter().all(|c| c.alert.as_ref().is_some_and(|a| a.severity == Severity::Critical)));
    assert_eq!(count(&bench, "SELECT count(*) FROM delivery"), 4);
    let more = entry(100, Severity::Critical);
    bench.record(vec![more, entry(101, Severity::Warning)]).await;
    let titles: Vec<String> = bench.claim(100).await.into_iter().map(|c| c.alert.unwrap().title).collect();
    assert_eq!(titles.len(), 38);
    assert_eq!(titles.last().unwrap(), "alert 101");
    assert_eq!(bench.reader().overview().unwrap().destinations[0].counts["claimed"], 42);
}

#[tokio::test]
async fn what_happens_to_a_finding_happens_to_what_is_planned_for_it() {
    let bench = Bench::new();
    let both = Entry { routes: vec![routed("incident"), routed("problem")], ..entry(1, Severity::Major) };
    assert_eq!(
        bench
            .record(vec![both.clone(), entry(2, Severity::Major), entry(3, Severity::Major)])
            .await
            .deliveries,
        4
    );
    assert_eq!(count(&bench, ROWS), 2, "of two tables one is planned");
    assert_eq!(bench.record(vec![both, entry(2, Severity::Critical)]).await.deliveries, 0);
    // By its number.
    let waiting = bench.reader().deliveries(DeliveryState::Pending, &ListFilter::default()).unwrap();
    let dropped = waiting.iter().find(|d| d.title == "alert 2").unwrap().id;
    assert!(bench.store.judge(vec![dropped], Verdict::Drop).await.unwrap()[0].done);
    assert_eq!(bench.record(vec![entry(2, Severity::Major)]).await.deliveries, 0, "a person dropped it");
    // By hand, in the same table and in another one.
    let by_hand =
        |table: &str| ByHand { alert: 3, destination: destination(), table: TableName::new(table).unwrap() };
    assert!(!bench.store.order_ticket(by_hand("incident")).await.unwrap().done, "there is a live one");
    assert!(bench.store.order_ticket(by_hand("problem")).await.unwrap().done);
    // Taken back by its source.
    let mut cleared = entry(1, Severity::Major);
    (cleared.alert.state, cleared.routes) = (AlertState::Cleared, Vec::new());
    assert_eq!(bench.record(vec![cleared]).await.cleared, 1);
    assert_eq!(count(&bench, PLANNED), 0);
    assert_eq!(bench.claim(10).await.len(), 4);
}

#[tokio::test]
async fn changed_rules_move_what_is_planned() {
    let bench = Bench::new();
    bench.record(many(3)).await;
    let other = Routed { rule: RuleName::new("other").unwrap(), ..routed("incident") };
    let routes = vec![(1, vec![other]), (2, vec![routed("problem")]), (3, Vec::new())];
    let undelivered = bench.store.undelivered(0, 10).await.unwrap();
    assert_eq!(undelivered.iter().map(|u| u.alert_id).collect::<Vec<_>>(), [1, 2, 3]);
    bench.store.reroute(routes).await.unwrap();
    assert_eq!(count(&bench, PLANNED), 2, "it stays planned, by its new rule or in another table");
    let claimed: Vec<(String, String)> = bench
        .claim(10)
        .await
        .into_iter()
        .map(|c| (c.rule.to_string(), c.alert.map(|a| a.title).unwrap_or_default()))
        .collect();
    let words = |rule: &str, title: &str| (rule.to_owned(), title.to_owned());
    // The most severe comes first, in the batch and here.
    assert_eq!(claimed, [words("other", "alert 2"), words("r", "alert 1")]);
    let counts = counts(&bench);
    assert_eq!((counts["claimed"], counts["withdrawn"]), (2, 1));
}

#[tokio::test]
async fn a_store_full_of_what_is_planned_has_the_room_to_deliver_it() {
    for rule in ["r".to_owned(), "n".repeat(200)] {
        fill_and_deliver(&rule).await;
    }
}

async fn fill_and_deliver(rule: &str) {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| {
        (s.max_size, s.when_full) = (8 << 20, WhenFull::Refuse);
    });
    let small = |n: u32| Entry {
        alert: Alert::sample("t", Severity::Major, NOW),
        routes: vec![Routed { rule: RuleName::new(rule).unwrap(), ..routed("incident") }],
        ..entry(n, Severity::Major)
    };
    let mut n = 0;
    loop {
        let batch = record((n..n + 500).map(small).collect());
        match bench.store.record(vec![batch]).await {
            Ok(recorded) => n += recorded.new as u32,
            Err(e) => break assert!(matches!(e, StoreError::Full(_)), "{e:?}"),
        }
    }
    assert!(n > 5_000, "{n}");
    let before = bench.store.room().await.unwrap();
    let all = bench.claim(usize::MAX).await;
    assert_eq!(all.len(), n as usize);
    // What was kept for it was enough, and not much more.
    let written = bench.store.room().await.unwrap();
    let kept = u64::from(n) * (plan::ROOM + rule.len() as u64);
    assert!(written.used <= before.used && written.used > before.used - kept / 2, "{before:?} {written:?}");
    for chunk in all.chunks(320) {
        let there = chunk.iter().map(|c| settled(c, there(c.id.0 as u32))).collect();
        bench.store.settle(there).await.unwrap();
    }
    assert_eq!(bench.record(vec![small(n + 1)]).await.new, 1);
}

#[tokio::test]
async fn what_is_planned_is_given_up_like_what_waits() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| s.max_size = 8 << 20);
    let mut n = 0;
    loop {
        let made = (n..n + 50).map(|n| {
            let severity = if n % 2 == 0 { Severity::Critical } else { Severity::Minor };
            let mut entry = entry(n, severity);
            entry.alert.raw = noise(2_000);
            entry
        });
        n += 50;
        if bench.record(made.collect()).await.room.is_tight() {
            break;
        }
    }
    let made = bench.store.make_room().await.unwrap();
    assert!(made.given_up > 0 && made.forgotten == 0, "{made:?}");
    let overview = bench.reader().overview().unwrap();
    assert_eq!((overview.backlog as u64 + made.given_up, counted(&bench)), (u64::from(n), overview.backlog));
    assert_eq!(overview.shed_by_severity.keys().collect::<Vec<_>>(), ["minor"]);
}

#[tokio::test]
async fn of_a_copy_and_of_a_damaged_database_what_is_planned_is_written_out() {
    let bench = Bench::new();
    bench.record(many(20)).await;
    let copy = bench.dir.path().join("copy.db");
    backup::backup(bench.dir.path(), &copy, false).unwrap();
    let (dir, path) = closed(bench).await;
    restored(&settings(dir.path()), &copy).unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!((count(&bench, PLANNED), counted(&bench), count(&bench, ROWS)), (0, 0, 40));
    let claimed = bench.claim(3).await;
    assert!(claimed.iter().all(|c| c.doubtful && c.alert.is_some()), "it may have been sent since");
    bench.record(vec![entry(100, Severity::Major)]).await;
    assert_eq!(counts(&bench)["pending"], 18);

    // One page of the index is lost: the alerts have it all.
    let (dir, _) = closed(bench).await;
    overwrite(&path, leaves(&dir.path().join(DATABASE), "alert_planned")[0] * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(healed(&bench)[0].counts["alert"].salvaged, 21);
    assert_eq!((count(&bench, PLANNED), counted(&bench)), (0, 0));
    bench.store.recover(NOW).await.unwrap();
    assert_eq!(bench.claim(100).await.len(), 21);
    assert_eq!(bench.record(many(20)).await.new, 0);
}

#[tokio::test]
async fn a_planned_row_that_is_not_what_was_written_is_a_dead_letter() {
    let bench = Bench::new();
    bench.record(many(3)).await;
    raw(&bench)
        .execute_batch(
            "INSERT INTO rule (name) VALUES ('another'); UPDATE alert SET rule_id = 2 WHERE id = 2",
        )
        .unwrap();
    let claimed = bench.claim(10).await;
    assert_eq!(
        claimed.iter().filter(|c| c.alert.is_none()).map(|c| c.fingerprint).collect::<Vec<_>>(),
        [fingerprint(1)]
    );
    assert_eq!(claimed.len(), 3);
}

/// Not in the checksum, so a flipped bit in it is not seen.
#[tokio::test]
async fn one_without_its_turn_is_claimed_and_salvaged_all_the_same() {
    let bench = Bench::new();
    bench.record(many(3)).await;
    raw(&bench).execute_batch("UPDATE alert SET turn = NULL").unwrap();
    let lists = seen_count(&bench);
    assert_eq!(lists, (3, 3));
    let (dir, path) = closed(bench).await;
    overwrite(&path, leaves(&path, "cursor")[0] * 4096, &[0; 4096]);
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!(healed(&bench).len(), 1);
    assert_eq!(bench.claim(10).await.len(), 3);
    bench.record(vec![entry(9, Severity::Major)]).await;
    raw(&bench).execute_batch("UPDATE alert SET turn = NULL").unwrap();
    assert_eq!(bench.claim(10).await.len(), 1);
}

fn seen_count(bench: &Bench) -> (usize, usize) {
    let (reader, all) = (bench.reader(), ListFilter::default());
    (reader.tickets(&all).unwrap().len(), reader.deliveries(DeliveryState::Pending, &all).unwrap().len())
}

#[tokio::test]
async fn changed_rules_reach_what_is_planned_beside_what_is_delivered() {
    let bench = Bench::new();
    let both = Entry { routes: vec![routed("incident"), routed("problem")], ..entry(1, Severity::Major) };
    bench.record(vec![both]).await;
    let only = Claim { except: vec![TableName::new("incident").unwrap()], ..claim(10, NOW) };
    let there_already = bench.store.claim(only).await.unwrap();
    bench.settle(&there_already[0], there(1)).await;
    assert_eq!((count(&bench, PLANNED), bench.store.undelivered(0, 10).await.unwrap().len()), (1, 1));
    let other = Routed { rule: RuleName::new("other").unwrap(), ..routed("incident") };
    bench.store.reroute(vec![(1, vec![other, routed("problem")])]).await.unwrap();
    let claimed = bench.claim(10).await;
    assert_eq!(
        claimed.iter().map(|c| (c.table.as_str(), c.rule.as_str())).collect::<Vec<_>>(),
        [("incident", "other")]
    );
}

#[tokio::test]
async fn a_full_store_has_the_room_for_another_table() {
    let bench = Bench::open(tempfile::tempdir().unwrap(), |s| {
        (s.max_size, s.when_full) = (8 << 20, WhenFull::Refuse);
    });
    let mut n = 0;
    while let Ok(recorded) =
        bench.store.record(vec![record((n..n + 500).map(|n| entry(n, Severity::Major)).collect())]).await
    {
        n += recorded.new as u32;
    }
    let all = bench.store.undelivered(0, usize::MAX >> 1).await.unwrap();
    assert_eq!(all.len(), n as usize);
    for some in all.chunks(500) {
        let moved = some.iter().map(|u| (u.alert_id, vec![routed("problem")])).collect();
        bench.store.reroute(moved).await.unwrap();
    }
    let claimed = bench.claim(usize::MAX).await;
    assert!(claimed.len() == n as usize && claimed.iter().all(|c| c.table.as_str() == "problem"));
    assert_eq!(bench.reader().overview().unwrap().destinations[0].counts["claimed"], i64::from(n));
}

#[tokio::test]
async fn a_sighting_makes_no_damaged_plan_sound() {
    let bench = Bench::new();
    bench.record(many(3)).await;
    raw(&bench)
        .execute_batch(
            "INSERT INTO rule (name) VALUES ('another'); UPDATE alert SET rule_id = 2 WHERE id = 2",
        )
        .unwrap();
    assert_eq!(bench.record(many(3)).await.repeats, 3);
    let claimed = bench.claim(10).await;
    assert_eq!(claimed.iter().filter(|c| c.alert.is_none()).count(), 1);
}

#[tokio::test]
async fn a_limit_of_an_hour_counts_what_is_planned() {
    use crate::model::life::{Life, Lives};
    let bench = Bench::new();
    bench.record(many(5)).await;
    let bench = bench.reopen().await;
    let (wanted, mut lives) = (routed("incident"), Lives::default());
    let life = Life { max_tickets_per_hour: Some(5), ..Life::default() };
    lives.set(&wanted.rule, &wanted.destination, &wanted.table, life);
    let more = Record { lives: Arc::new(lives), ..record(vec![entry(1, Severity::Major), storm_of(0)]) };
    bench.store.record(vec![more]).await.unwrap();
    let folded = "SELECT count(*) FROM ticket WHERE state = 'folded'";
    assert_eq!(count(&bench, folded), 1);
}

/// Another finding of the kind of one of the five.
fn storm_of(n: u32) -> Entry {
    Entry { alert: alert(n, Severity::Major), ..entry(1_000 + n, Severity::Major) }
}

#[tokio::test]
async fn a_plan_that_leads_nowhere_is_damage() {
    let bench = Bench::new();
    bench.record(many(3)).await;
    let (dir, path) = closed(bench).await;
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE alert SET route_id = 77 WHERE id = 2")
        .unwrap();
    std::fs::write(dir.path().join("lock"), "1\nopen\n").unwrap();
    let bench = Bench::open(dir, |_| {});
    assert_eq!((healed(&bench).len(), bench.claim(10).await.len()), (1, 2));
}

/// What gets worse before it is sent is sent as what it is by then, and in its order; rules that change judge it so.
#[tokio::test]
async fn what_gets_worse_before_it_is_sent_goes_before_the_better() {
    for is_written in [false, true] {
        let bench = Bench::new();
        bench.record((0..6).map(|n| entry(n, Severity::Minor)).collect()).await;
        if is_written {
            written_out(&bench).await;
        }
        bench.record(vec![entry(4, Severity::Critical), entry(2, Severity::Warning)]).await;
        assert_eq!(counts(&bench)["pending"], 6);
        let bench = bench.reopen().await;
        let judged = bench.store.undelivered(0, 10).await.unwrap();
        let judged: Vec<_> = judged.into_iter().map(|u| u.alert.unwrap().severity).collect();
        assert_eq!(judged.iter().filter(|s| **s == Severity::Critical).count(), 1);
        let critical = Claim { min_severity: Severity::Critical, ..claim(6, NOW) };
        let first = bench.store.claim(critical).await.unwrap();
        let told: Vec<_> = first.iter().map(|c| c.alert.as_ref().map(|a| (&*a.title, a.severity))).collect();
        assert_eq!(told, [Some(("alert 4", Severity::Critical))]);
        let rest = bench.claim(10).await;
        assert_eq!(rest.len(), 5);
        assert!(rest.iter().all(|c| c.alert.as_ref().is_some_and(|a| a.severity == Severity::Minor)));

        // On its way it stays what it is: the next note tells of it.
        bench.record(vec![entry(0, Severity::Major)]).await;
        assert_eq!(
            count(&bench, "SELECT count(*) FROM ticket WHERE worst = 2 AND note_due_at IS NOT NULL"),
            1
        );
    }
}

/// A row that is not what was written is none afterwards either.
#[tokio::test]
async fn what_gets_worse_makes_no_damage_good() {
    let bench = Bench::new();
    bench.record(vec![entry(0, Severity::Minor)]).await;
    written_out(&bench).await;
    raw(&bench).execute("UPDATE delivery SET attempts = 3", []).unwrap();
    bench.record(vec![entry(0, Severity::Critical)]).await;
    assert_eq!(bench.claim(1).await[0].alert, None);
}

/// The same of an event and of a row, which is put once.
#[tokio::test]
async fn an_event_or_a_row_that_gets_worse_before_it_is_sent_is_sent_as_what_it_is() {
    for kind in [DeliveryKind::PutEvent, DeliveryKind::PutRow] {
        let bench = Bench::new();
        let put =
            |n, severity| Entry { routes: vec![Routed { kind, ..routed("u_put") }], ..entry(n, severity) };
        bench.record((0..3).map(|n| put(n, Severity::Warning)).collect()).await;
        bench.record(vec![put(2, Severity::Critical)]).await;
        assert_eq!(counts(&bench)["pending"], 3, "{kind:?}");
        let critical = Claim { min_severity: Severity::Critical, ..claim(6, NOW) };
        let told = bench.store.claim(critical).await.unwrap();
        assert_eq!(told.len(), 1, "{kind:?}");
        let alert = told[0].alert.as_ref().unwrap();
        assert_eq!((&*alert.title, alert.severity), ("alert 2", Severity::Critical));
    }
}
