//! Before anything is looked up: does what an action makes of an alert fit the table it goes to? What does not waits, with
//! the reason in words, and no other action waits with it.

use super::group::Group;
use super::kind::Work;
use super::lane::{Lane, back, not_looked_up};
use super::queue::SendPermit;
use super::{Relay, retry};
use crate::destination::{Admission, Destination, Remark, SendError};
use crate::model::{Class, HealthIssue, HoldScope};
use crate::store::op::claim::Claimed;
use crate::store::op::settle::{Outcome, Settled};

/// Code of the health issue of an action that waits.
pub(super) const HELD: &str = "held";
/// Subjects that are remembered; then it begins anew.
const REMEMBERED_MAX: usize = 4_096;

impl<D: Destination> Relay<D> {
    /// Those of a chunk that can go out; `None` when asking failed.
    pub(super) async fn admit(
        &self,
        permit: &SendPermit<'_, D>,
        lane: &Lane<'_>,
        work: &dyn Work,
        chunk: Vec<Claimed>,
        group: &mut Group,
    ) -> Option<Vec<Claimed>> {
        let name = permit.destination.name();
        let mut ready = Vec::with_capacity(chunk.len());
        let mut chunk = chunk.into_iter();
        while let Some(c) = chunk.next() {
            // What cannot be made is told when it is sent.
            let Ok(order) = work.compose(&self.job(&c, name)) else {
                ready.push(c);
                continue;
            };
            let started_at = self.clock.now();
            let subject = format!("{name}:{}:{}", lane.table, c.rule.as_str());
            match permit.destination.admit(&order, &|| permit.begin()).await {
                Ok(Admission::Fits(remarks)) => {
                    for remark in remarks {
                        note(group, &format!("{name}:{}", lane.table), remark);
                    }
                    if self.now_fits(&subject) {
                        group.over.push((HELD, subject));
                    }
                    ready.push(c);
                }
                Ok(Admission::Waits) => {
                    group
                        .settled
                        .extend(std::iter::once(&c).chain(chunk.as_slice()).map(|c| back(c, started_at)));
                    break;
                }
                // What it takes could not be asked for now: no fault of the action, and nobody has to act.
                Err(e) if e.hold == HoldScope::Action && e.class != Class::Hold => {
                    let due_at = started_at.after(retry::backoff(c.attempts + 1, fastrand::f64()));
                    let (word, doubtful, message) = (Class::Retry.as_str(), c.doubtful, e.message);
                    let outcome = Outcome::Retry { due_at, word, doubtful, message };
                    let (id, status) = (c.id, e.status);
                    group.settled.push(Settled { id, started_at, duration_ms: 0, status, outcome });
                }
                Err(e) if e.hold == HoldScope::Action => {
                    self.memory().fitting.remove(&subject);
                    let due_at = started_at.after(retry::hold(c.attempts + 1, fastrand::f64()));
                    let hold = Class::Hold.as_str();
                    let outcome = Outcome::Retry {
                        due_at,
                        word: hold,
                        doubtful: c.doubtful,
                        message: e.message.clone(),
                    };
                    let (id, status) = (c.id, e.status);
                    group.settled.push(Settled { id, started_at, duration_ms: 0, status, outcome });
                    note_hold(group, &subject, c.rule.as_str(), e);
                }
                Err(e) => {
                    group.settled.push(not_looked_up(&c, &e, started_at));
                    group.settled.extend(ready.iter().chain(chunk.as_slice()).map(|c| back(c, started_at)));
                    let place = e.hold == HoldScope::Table || e.class == Class::Reject;
                    group.holds.push((place.then(|| lane.table.clone()), e));
                    return None;
                }
            }
        }
        Some(ready)
    }

    /// Whether it is news that this fits.
    fn now_fits(&self, subject: &str) -> bool {
        let fitting = &mut self.memory().fitting;
        if fitting.contains(subject) {
            return false;
        }
        if fitting.len() >= REMEMBERED_MAX {
            fitting.clear();
        }
        fitting.insert(subject.to_owned())
    }
}

fn note(group: &mut Group, place: &str, remark: Remark) {
    let subject =
        if remark.field.is_empty() { place.to_owned() } else { format!("{place}:{}", remark.field) };
    let Remark { code, text, remedy, .. } = remark;
    group.note(HealthIssue::new(code, text, remedy).about(subject));
}

fn note_hold(group: &mut Group, subject: &str, rule: &str, e: SendError) {
    group.over.retain(|(_, over)| over != subject);
    let text = format!("rule `{rule}` waits: {}", e.message);
    group.note(HealthIssue::new(HELD, text, e.remedy).about(subject));
}
