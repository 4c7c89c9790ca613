//! Pure: whose trouble is a failure? One delivery that fails while others get through has trouble of its own; only
//! different deliveries that fail in a row speak of their table or of the destination.
//!
//! A run over one table goes on in order until some have failed in a row. Then the run asks others, drawn from all that
//! wait, one at a time: with up to half of them poisoned, that so many drawn at random are all poisoned is as good as
//! impossible. One that gets through ends the suspicion; when none does, the table waits.

use crate::destination::SendError;
use crate::model::{Class, HoldScope};

/// Different deliveries that fail in a row before others are drawn.
const PATIENCE: u32 = 3;
/// Deliveries that are drawn, and fail, before the table waits.
pub(super) const PROBES: u32 = 16;
/// Writes whose answers get lost in a row before the destination waits. Most lost answers are only lost answers; a
/// destination that swallows them all would cost a deadline each.
const LOST_PATIENCE: u32 = 16;

/// What is known of a table in one run.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// What it waited for before, when it is on trial: one delivery decides.
    trial: Option<String>,
    /// Whether any delivery got through, or was refused for what it says.
    pub(super) works: bool,
    /// Different ones that failed since one got through.
    row: u32,
    /// The words of the last refusal, without what differs from answer to answer.
    words: String,
    lost: u32,
    /// Drawn ones that failed.
    probes: u32,
    suspicious: bool,
    /// Why it has to wait, once it has to.
    pub(super) held: Option<SendError>,
}

impl Blame {
    /// Of a table that waited for this reason; `None`: it did not wait.
    pub(super) fn new(trial: Option<String>) -> Self {
        Self { suspicious: trial.is_some(), trial, ..Self::default() }
    }

    /// Whether deliveries are drawn, one at a time.
    pub(super) fn is_suspicious(&self) -> bool {
        self.suspicious
    }

    /// How many may be drawn in the next round.
    pub(super) fn draws(&self) -> usize {
        let most = if self.trial.is_some() { 1 } else { PROBES };
        most.saturating_sub(self.probes).max(1) as usize
    }

    /// One got through. What was said about the destination meanwhile stays said.
    pub(super) fn passed(&mut self) {
        *self = Self { works: true, held: self.held.take(), ..Self::default() };
    }

    /// One failed; `drawn`: under suspicion, and not on its way already when that was raised. What goes out together, as in
    /// a batch, would use up all probes by what was sent in order.
    pub(super) fn failed(&mut self, e: &SendError, drawn: bool) {
        match (e.class, e.hold) {
            (Class::RetryAt, _) | (Class::Hold, HoldScope::Destination | HoldScope::Table) => {
                self.held = Some(e.clone());
                return;
            }
            (Class::Retry, _) if e.doubtful && e.status.is_none() => {
                self.lost += 1;
                if self.lost >= LOST_PATIENCE || self.trial.is_some() {
                    self.held = Some(e.clone());
                }
                return;
            }
            (Class::Reject, _) => {
                let words = without_numbers(&e.message);
                let is_new = match &self.trial {
                    // What it waits for is said of this one too.
                    Some(reason) => without_numbers(reason) != words,
                    None => self.words != words,
                };
                self.words = words;
                if is_new {
                    // What it says of this delivery says that it works.
                    (self.row, self.works) = (1, true);
                    self.suspicious = false;
                    return;
                }
            }
            _ => {}
        }
        self.row += 1;
        if self.suspicious && !drawn {
            return;
        }
        if self.suspicious {
            self.probes += 1;
            let most = if self.trial.is_some() { 1 } else { PROBES };
            if self.probes >= most {
                self.held = Some(on_table(e));
            }
        } else {
            self.suspicious = self.row >= PATIENCE;
        }
    }

    /// Nothing is left to be drawn. `passed` says whether any got through in this run.
    pub(super) fn exhausted(&mut self, passed: bool, last: Option<&SendError>) {
        let Some(e) = last.filter(|_| self.held.is_none() && !passed && self.row > 0) else { return };
        // What something in between dislikes may be this one alone: it backs off by itself, and others show what it was.
        let alone = e.class == Class::Hold && e.hold == HoldScope::Delivery && !e.is_general;
        if alone || self.row >= PATIENCE {
            self.held = Some(on_table(e));
        }
    }
}

/// What different deliveries failed for is the table's, or the destination's.
fn on_table(e: &SendError) -> SendError {
    let hold =
        if e.is_general && e.hold == HoldScope::Delivery { HoldScope::Destination } else { HoldScope::Table };
    SendError { hold, ..e.clone() }
}

/// Words without numbers and ids, which differ from record to record.
pub(super) fn without_numbers(message: &str) -> String {
    let words = message.split(" (transaction ").next().unwrap_or_default();
    words.split(|c: char| !c.is_alphabetic()).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(class: Class, hold: HoldScope, message: &str, status: Option<u16>) -> SendError {
        SendError {
            class,
            hold,
            message: message.to_owned(),
            remedy: String::new(),
            doubtful: class == Class::Retry,
            wait: None,
            status,
            is_general: false,
        }
    }

    fn busy() -> SendError {
        error(Class::Retry, HoldScope::Destination, "it answered 500", Some(500))
    }

    fn after(errors: &[SendError]) -> Blame {
        let mut blame = Blame::default();
        for e in errors {
            blame.failed(e, true);
        }
        blame
    }

    #[test]
    fn a_few_that_fail_raise_a_suspicion_and_many_different_ones_hold() {
        assert!(!after(&[busy(), busy()]).is_suspicious());
        let mut blame = after(&[busy(), busy(), busy()]);
        assert!(blame.is_suspicious() && blame.held.is_none());
        for _ in 1..PROBES {
            blame.failed(&busy(), true);
        }
        assert!(blame.held.is_none());
        blame.failed(&busy(), true);
        assert_eq!(blame.held.unwrap().hold, HoldScope::Table);
    }

    #[test]
    fn what_was_on_its_way_when_the_suspicion_was_raised_is_no_probe() {
        let mut blame = after(&[busy(), busy(), busy()]);
        for _ in 0..PROBES * 3 {
            blame.failed(&busy(), false);
        }
        assert!(blame.is_suspicious() && blame.held.is_none());
        assert_eq!(blame.draws(), PROBES as usize);
    }

    #[test]
    fn one_that_gets_through_ends_the_suspicion() {
        let mut blame = after(&[busy(), busy(), busy(), busy()]);
        blame.passed();
        assert!(!blame.is_suspicious() && blame.works);
        blame.failed(&busy(), true);
        assert!(!blame.is_suspicious());
    }

    #[test]
    fn one_that_was_on_its_way_does_not_take_a_hold_back() {
        let mut blame = after(&[error(Class::Hold, HoldScope::Destination, "a log-in page", Some(200))]);
        blame.passed();
        assert!(blame.held.is_some());
    }

    #[test]
    fn refusals_count_together_only_by_the_same_words() {
        let refused = |n: u32, field: &str| {
            let text = format!("it answered 403: record INC{n}: mandatory: {field} (transaction a{n})");
            error(Class::Reject, HoldScope::Table, &text, Some(403))
        };
        assert!(after(&[refused(1, "x"), refused(2, "x"), refused(3, "x")]).is_suspicious());
        let differing = after(&[refused(1, "x"), refused(2, "y"), refused(3, "x"), refused(4, "y")]);
        assert!(!differing.is_suspicious() && differing.works);
        let mut trial = Blame::new(Some(refused(1, "x").message));
        trial.failed(&refused(9, "x"), true);
        assert!(trial.held.is_some(), "refused again for what the table waits for");
        let mut trial = Blame::new(Some("it answered 500".to_owned()));
        trial.failed(&refused(9, "x"), true);
        assert!(trial.held.is_none() && trial.works, "it works again, and refuses this one");
    }

    #[test]
    fn what_nobody_else_can_be_asked_about_is_the_tables() {
        let acl = error(Class::Hold, HoldScope::Delivery, "ACL", Some(403));
        let mut alone = after(std::slice::from_ref(&acl));
        alone.exhausted(false, Some(&acl));
        assert!(alone.held.is_some());
        let mut beside = after(std::slice::from_ref(&acl));
        beside.exhausted(true, Some(&acl));
        assert!(beside.held.is_none());
        let waf = SendError { is_general: true, ..acl.clone() };
        let mut blocked = after(std::slice::from_ref(&waf));
        blocked.exhausted(false, Some(&waf));
        assert!(blocked.held.is_none(), "the next shows whether it was this one");
        let mut all = after(&[waf.clone(), waf.clone(), waf.clone()]);
        all.exhausted(false, Some(&waf));
        assert_eq!(all.held.map(|e| e.hold), Some(HoldScope::Destination));
        let mut one = after(&[busy()]);
        one.exhausted(false, Some(&busy()));
        assert!(one.held.is_none(), "a single failure backs off by itself");
    }

    #[test]
    fn lost_answers_are_given_time() {
        let lost = error(Class::Retry, HoldScope::Destination, "cut", None);
        assert!(after(&vec![lost.clone(); 15]).held.is_none());
        assert!(after(&vec![lost; 16]).held.is_some());
    }
}
