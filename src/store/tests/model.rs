//! A small model of the store, and random histories that both must agree on.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// Sightings of these findings.
    See(Vec<(u8, Severity)>),
    Claim(usize),
    /// What is claimed ends like this.
    Settle(Fate),
    Retry,
    Drop,
    /// The process ends (claimed ones become doubtful) and starts again.
    Restart,
    Wait(u64),
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    Retry,
    Requeue,
    Dead,
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
struct Modelled {
    severity: Severity,
    occurrences: u64,
    state: DeliveryState,
    due: Timestamp,
    doubtful: bool,
    generation: u32,
}

#[derive(Default)]
struct Model {
    /// By finding; the delivery's id is its place in `order`.
    findings: BTreeMap<u8, Modelled>,
    order: Vec<u8>,
}

impl Model {
    fn see(&mut self, n: u8, severity: Severity, now: Timestamp) {
        if let Some(known) = self.findings.get_mut(&n) {
            known.occurrences += 1;
            // What was sent before, or may be just now, stays what it is.
            if matches!(known.state, DeliveryState::Pending | DeliveryState::Dead) && !known.doubtful {
                known.severity = known.severity.max(severity);
            }
            return;
        }
        let state = DeliveryState::Pending;
        let new = Modelled { severity, occurrences: 1, state, due: now, doubtful: false, generation: 0 };
        self.findings.insert(n, new);
        self.order.push(n);
    }

    fn claim(&mut self, limit: usize, now: Timestamp) -> Vec<u8> {
        let due = |n: &&u8| {
            let m = &self.findings[*n];
            m.state == DeliveryState::Pending && m.due <= now
        };
        let mut ids: Vec<u8> = self.order.iter().filter(due).copied().collect();
        ids.sort_by_key(|n| std::cmp::Reverse(self.findings[n].severity));
        ids.truncate(limit);
        for n in &ids {
            self.set(*n, DeliveryState::Claimed);
        }
        ids
    }

    fn set(&mut self, n: u8, state: DeliveryState) {
        self.findings.get_mut(&n).unwrap().state = state;
    }

    fn of(&self, state: DeliveryState) -> Vec<u8> {
        self.order.iter().copied().filter(|n| self.findings[n].state == state).collect()
    }
}

fn severity() -> impl Strategy<Value = Severity> {
    prop::sample::select(Severity::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    let fate =
        prop::sample::select(vec![Fate::Delivered, Fate::Retry, Fate::Requeue, Fate::Dead, Fate::Closed]);
    prop_oneof![
        4 => prop::collection::vec((0..30u8, severity()), 1..8).prop_map(Step::See),
        3 => (1..6usize).prop_map(Step::Claim),
        3 => fate.prop_map(Step::Settle),
        1 => Just(Step::Retry),
        1 => Just(Step::Drop),
        1 => Just(Step::Restart),
        1 => (1..120u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn store_and_model_agree(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(agree(steps));
    }
}

async fn agree(steps: Vec<Step>) {
    let mut bench = Bench::new();
    let mut model = Model::default();
    let mut held: Vec<(u8, Claimed)> = Vec::new();
    for step in steps {
        let now = bench.clock_now();
        match step {
            Step::See(seen) => {
                bench.record(seen.iter().map(|(n, s)| entry(u32::from(*n), *s)).collect()).await;
                // Numbers are given most severe first, by the first sighting of each.
                let first = |n: u8| seen.iter().find(|(of, _)| *of == n).map(|(_, s)| *s);
                let mut order = seen.clone();
                order.sort_by_key(|(n, _)| std::cmp::Reverse(first(*n)));
                for (n, s) in order {
                    model.see(n, s, now);
                }
            }
            Step::Claim(limit) => {
                let real = bench.claim(limit).await;
                let wanted = model.claim(limit, now);
                let titles: Vec<String> = real.iter().map(|c| c.alert.clone().unwrap().title).collect();
                let expected: Vec<String> = wanted.iter().map(|n| format!("alert {n}")).collect();
                assert_eq!(titles, expected);
                for (n, c) in wanted.iter().zip(&real) {
                    assert_eq!(c.alert.as_ref().unwrap().severity, model.findings[n].severity);
                }
                for (n, c) in wanted.into_iter().zip(real) {
                    assert_eq!(c.occurrences, model.findings[&n].occurrences);
                    assert_eq!(c.generation.0, model.findings[&n].generation);
                    held.push((n, c));
                }
            }
            Step::Settle(fate) => settle_all(&bench, &mut model, std::mem::take(&mut held), fate, now).await,
            Step::Retry | Step::Drop => {
                let verdict = if matches!(step, Step::Retry) { Verdict::Retry } else { Verdict::Drop };
                let dead = bench.reader().deliveries(DeliveryState::Dead, &ListFilter::default()).unwrap();
                bench.store.judge(dead.iter().map(|d| d.id).collect(), verdict).await.unwrap();
                for n in model.of(DeliveryState::Dead) {
                    let m = model.findings.get_mut(&n).unwrap();
                    (m.due, m.doubtful) = (now, true);
                    model.set(
                        n,
                        if verdict == Verdict::Retry {
                            DeliveryState::Pending
                        } else {
                            DeliveryState::Dropped
                        },
                    );
                }
            }
            Step::Restart => {
                held.clear();
                bench = bench.reopen().await;
                bench.clock.set(now);
                bench.store.recover(now).await.unwrap();
                for n in model.of(DeliveryState::Claimed) {
                    let m = model.findings.get_mut(&n).unwrap();
                    (m.due, m.doubtful) = (now, true);
                    model.set(n, DeliveryState::Pending);
                }
            }
            Step::Wait(secs) => bench.clock.advance(Duration::from_secs(secs)),
        }
        compare(&bench, &model);
    }
}

async fn settle_all(bench: &Bench, model: &mut Model, held: Vec<(u8, Claimed)>, fate: Fate, now: Timestamp) {
    for (n, c) in held {
        let m = model.findings.get_mut(&n).unwrap();
        let due = now.after(Duration::from_secs(30));
        let Outcome::Delivered { sys_id, number, state, .. } = there(u32::from(n)) else { unreachable!() };
        let outcome = match fate {
            Fate::Delivered => {
                m.state = DeliveryState::Delivered;
                there(u32::from(n))
            }
            Fate::Retry => {
                (m.state, m.due, m.doubtful) = (DeliveryState::Pending, due, true);
                Outcome::Retry { due_at: due, word: "retry", doubtful: true, message: "x".to_owned() }
            }
            Fate::Requeue => {
                (m.state, m.doubtful) = (DeliveryState::Pending, false);
                Outcome::Requeue { doubtful: false, message: String::new() }
            }
            Fate::Dead => {
                (m.state, m.doubtful) = (DeliveryState::Dead, false);
                Outcome::Dead { message: "no".to_owned() }
            }
            Fate::Closed => {
                (m.state, m.due, m.doubtful) = (DeliveryState::Pending, now, false);
                m.generation += 1;
                Outcome::ClosedThere { sys_id, number, state }
            }
        };
        bench.settle(&c, outcome).await;
    }
}

fn compare(bench: &Bench, model: &Model) {
    let reader = bench.reader();
    let all = ListFilter::default();
    let counted = counts(bench);
    for state in DeliveryState::ALL {
        let real: BTreeSet<String> =
            reader.deliveries(state, &all).unwrap().into_iter().map(|d| d.title).collect();
        let wanted: BTreeSet<String> = model.of(state).into_iter().map(|n| format!("alert {n}")).collect();
        assert_eq!(real, wanted, "{}", state.as_str());
        assert_eq!(
            counted.get(state.as_str()).copied().unwrap_or(0) as usize,
            wanted.len(),
            "{}",
            state.as_str()
        );
    }
    let live = reader.tickets(&all).unwrap();
    let mut keys = BTreeSet::new();
    for t in live.iter().filter(|t| t.state == "opening" || t.state == "open") {
        assert!(keys.insert((&t.fingerprint, &t.destination, &t.table)), "two live tickets for {}", t.title);
    }
}
