//! What the black-box tests share: EVE lines of our own, and the agent as an operator has it. The other side is
//! `otrelay::simulator`; who asks it for its records is the judge.

pub(crate) mod agent;
pub(crate) mod console;
pub(crate) mod eve;
pub(crate) mod redact;

use std::time::Duration;

use otrelay::simulator::{Options, Running, Simulator};
use tokio::time::Instant;

/// A simulator on a thread of its own.
pub(crate) fn simulator() -> Running {
    simulator_with(Options::default())
}

/// The same with options.
pub(crate) fn simulator_with(options: Options) -> Running {
    Simulator::start_on_thread(options).unwrap()
}

/// Values of one field of a table's records, sorted.
pub(crate) fn values(simulator: &Running, table: &str, field: &str) -> Vec<String> {
    let mut values: Vec<String> =
        simulator.records(table).iter().map(|record| record.get(field).to_owned()).collect();
    values.sort();
    values
}

/// Each of these titles has one incident, and there are no others.
#[track_caller]
pub(crate) fn assert_one_each(simulator: &Running, titles: impl IntoIterator<Item = String>) {
    let mut lost: Vec<String> = titles.into_iter().collect();
    let mut others = values(simulator, "incident", "short_description");
    lost.retain(|title| match others.binary_search(title) {
        Ok(at) => {
            others.remove(at);
            false
        }
        Err(_) => true,
    });
    assert!(lost.is_empty() && others.is_empty(), "lost: {lost:#?}; doubled or not asked for: {others:#?}");
    assert!(simulator.twins().is_empty(), "{:?}", simulator.twins());
}

/// Pause between two looks, at first and at most: what comes soon is seen soon, and who waits for long starts no program 30
/// times a second for it.
const LOOKS: (Duration, Duration) = (Duration::from_millis(15), Duration::from_millis(250));

/// Looks until it is so; fails with `what` after two minutes, which only a broken program or a very busy machine takes.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    let mut pause = LOOKS.0;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(LOOKS.1);
    }
}
