//! Random histories of faults, kills and clock steps: when they end, every alert has exactly one ticket.

use proptest::prelude::*;

use super::fake::Fault;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Open(Fault),
    Find(Fault),
    See(u8),
    Wait(u64),
    Kill,
    Ask,
    Clock(i64),
}

fn fault() -> impl Strategy<Value = Fault> {
    use Fault::{Accepted, Busy, Hold, HoldTable, LostAfter, LostBefore, None, Told};
    prop_oneof![
        6 => prop::sample::select(vec![None, Busy, Accepted, LostAfter, LostAfter, LostBefore, Hold, HoldTable]),
        1 => (0..4_000u64).prop_map(Told),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => fault().prop_map(Step::Open),
        3 => fault().prop_map(Step::Find),
        5 => (0..20u8).prop_map(Step::See),
        4 => (0..700u64).prop_map(Step::Wait),
        2 => Just(Step::Kill),
        1 => Just(Step::Ask),
        1 => (-7_200..7_200i64).prop_map(Step::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_alert_has_one_ticket_in_the_end(steps in prop::collection::vec(step(), 1..60), lag in 0..6u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(one_each(steps, lag));
    }
}

async fn one_each(steps: Vec<Step>, lag: u64) {
    let mut site = Site::new(&["prod"], |s, destinations| {
        s.interval = MINUTE * 5;
        destinations[0].lag = Duration::from_secs(lag);
    });
    site.start();
    for step in steps {
        match step {
            Step::Open(fault) => site.destination().ledger().opens.push_back(fault),
            Step::Find(fault) => site.destination().ledger().finds.push_back(fault),
            Step::See(n) => {
                let name = ["incident", "problem"][usize::from(n % 2)];
                site.record(&[(&format!("a{n}"), severity(u32::from(n)), "prod", name)]).await;
            }
            Step::Wait(secs) => pass(Duration::from_secs(secs)).await,
            Step::Kill => {
                pass(Duration::from_millis(70)).await;
                site.kill();
                site.start();
            }
            // Nobody waits for the answer: it may take long.
            Step::Ask => {
                let (send, _) = oneshot::channel();
                let _ = site.running.as_ref().unwrap().ask.try_send(Ask::Sync(send));
            }
            Step::Clock(by) => site.clock.shift(by),
        }
    }
    for n in 0..20u8 {
        let name = ["incident", "problem"][usize::from(n % 2)];
        site.record(&[(&format!("a{n}"), severity(u32::from(n)), "prod", name)]).await;
    }
    site.destination().ledger().opens.clear();
    site.destination().ledger().finds.clear();
    pass(HOUR * 8).await;
    let mut titles = site.destination().titles();
    titles.sort();
    let mut wanted: Vec<String> = (0..20).map(|n| format!("a{n}")).collect();
    wanted.sort();
    assert_eq!(titles, wanted);
    let overview = site.overview();
    let count = |name: &str| overview.destinations[0].counts.get(name).copied().unwrap_or(0);
    assert_eq!((count("delivered"), count("created") + count("found")), (20, 20));
    assert_eq!((overview.backlog, overview.dead, count("pending"), count("claimed")), (0, 0, 0, 0));
    assert!(site.in_state(DeliveryState::Claimed).is_empty());
}
