//! A clock that jumps: what it makes the agent forget or hold costs look-ups and time, never a ticket and never a twin.

use std::sync::Arc;
use std::time::Duration;

use otrelay::clock::{ManualClock, RELEASED_AT};
use otrelay::model::Timestamp;
use otrelay::store::Store;

use crate::support::agent::Agent;
use crate::support::{assert_one_each, eve, simulator};

const DAY: Duration = Duration::from_secs(86_400);
const DOUBT: Duration = Duration::ZERO;

fn now() -> Timestamp {
    RELEASED_AT.after(DAY * 30)
}

/// Housekeeping as the service does it, at this time. How many findings were forgotten.
fn prune(agent: &Agent, clock: &Arc<ManualClock>) -> u64 {
    let settings = agent.config(DOUBT).store;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, writer) = Store::open(&settings, Arc::clone(clock) as _).unwrap();
        let work = async move { store.prune().await.unwrap() };
        let (forgotten, ended) = tokio::join!(work, writer.run());
        ended.unwrap();
        forgotten
    })
}

#[test]
fn a_jump_of_a_year_forgets_what_was_delivered_and_makes_no_twin() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let clock = ManualClock::at(now());
    let once = || agent.once_by(Arc::clone(&clock) as _, DOUBT);
    agent.feed(eve::alerts(0..10));
    assert_eq!(once().created, 10);
    clock.advance(DAY * 366);
    assert_eq!(prune(&agent, &clock), 10, "this is what `keep_delivered` asks for");
    // A year ahead, and then right again: the same findings are seen again in both.
    for (back, numbers) in [(Duration::ZERO, 0..4), (DAY * 366, 4..10)] {
        clock.set(clock_of(&clock).before(back));
        agent.feed(numbers.clone().map(|n| eve::alert(n).set("flow_id", 900 + n).line()).collect::<String>());
        let report = once();
        assert_eq!((report.created, report.found), (0, u64::from(numbers.end - numbers.start)));
    }
    assert_one_each(&simulator, (0..10).map(eve::short));
}

fn clock_of(clock: &Arc<ManualClock>) -> Timestamp {
    use otrelay::clock::Clock;
    clock.now()
}

#[test]
fn what_came_while_the_clock_was_a_year_ahead_is_sent_and_not_kept_for_ever() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let clock = ManualClock::at(now().after(DAY * 366));
    agent.feed(eve::alerts(0..5));
    let once = || agent.once_by(Arc::clone(&clock) as _, DOUBT);
    assert_eq!(once().created, 5);
    clock.set(now());
    agent.feed(eve::alerts(5..9));
    assert_eq!(once().created, 4);
    let status = agent.status();
    assert_eq!(status["backlog"], 0, "{status:#}");
    // Two months on by the right clock, those of the right clock are forgotten.
    clock.advance(DAY * 60);
    assert_eq!(prune(&agent, &clock), 4);
    assert_one_each(&simulator, (0..9).map(eve::short));
}

#[test]
fn a_machine_that_starts_in_1970_takes_in_and_sends_when_its_clock_is_right() {
    let simulator = simulator();
    let agent = Agent::new(&simulator);
    let clock = ManualClock::at(Timestamp::EPOCH.after(DAY));
    agent.feed(eve::alerts(0..5));
    let read = || agent.has_backlog(5);
    let report = agent.once_at(Arc::clone(&clock) as _, DOUBT, Duration::from_millis(500), read);
    assert!(report.waiting[0].contains("the clock says 1970-01-02"), "{report:?}");
    assert_eq!((simulator.requests(), &agent.status()["backlog"]), (0, &5.into()));
    clock.set(now());
    assert_eq!(agent.once_by(Arc::clone(&clock) as _, DOUBT).created, 5);
    assert_one_each(&simulator, (0..5).map(eve::short));
}
