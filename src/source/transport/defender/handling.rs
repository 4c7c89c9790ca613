//! Write-back: a console is told of alerts whose tickets people have resolved or closed that they are handled.
//!
//! A round takes no order: it compares what stands here with what was closed there, so a restart, a closing that came home and
//! a failure are the same thing. Told twice is told once (the console says so with 200), so when the power goes between its
//! answer and our note of it, the next start tells it again and no harm is done. What was told counts as ended at the source:
//! its own next answer, that it is handled, is no news then, and nothing is noted on the closed ticket.
//!
//! Only an id that the product itself gave is used, none is made up. Only `handle`: learning would silence the traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::poll::http::Caller;
use super::super::poll::{Feed, Halt, Trouble, Why};
use crate::model::SourceName;

/// Between two looks for what was closed.
const EVERY: Duration = Duration::from_mins(1);
/// The longest wait after a failure.
const EVERY_MAX: Duration = Duration::from_hours(1);
/// After so many failures in a row an alert is let go, until the next start.
const TRIES_MAX: u32 = 8;
/// Most findings that are known to be none of the console's.
const LET_GO_MAX: usize = 50_000;
/// Why an alert cannot be told.
const NO_ID: &str = "they carry no UUID of the console, and its API gives none";
/// What to do about that.
const NO_ID_REMEDY: &str = "handle them there by hand; those that come by the console's syslog carry it: name that source in write_back_for";
const ID_MAX: usize = 64;

/// An answer of the store, or why there will be none.
pub type Asking<T> =
    Pin<Box<dyn Future<Output = Result<T, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

/// What this machine knows of tickets that people have closed.
pub trait Closed: Send + Sync {
    /// Findings of these sources that stand, while all their tickets are resolved or closed, except some: at most a few, the
    /// oldest first, with the id that the source gave.
    fn closed(&self, of: Vec<SourceName>, except: Arc<BTreeSet<i64>>) -> Asking<Vec<(i64, Option<String>)>>;

    /// The other side knows that these are handled.
    fn handled(&self, findings: Vec<i64>) -> Asking<()>;
}

/// What is to be told, and what was tried.
pub(super) struct Handling {
    of: Vec<SourceName>,
    due: Option<Instant>,
    wait: Duration,
    /// Failures of each finding.
    tries: BTreeMap<i64, u32>,
    /// What no console knows, or refused too often.
    let_go: Arc<BTreeSet<i64>>,
    /// How many had no id that the console takes.
    without_id: u64,
}

impl Handling {
    pub(super) fn new(of: Vec<SourceName>) -> Self {
        Self { of, due: None, wait: EVERY, tries: BTreeMap::new(), let_go: Arc::default(), without_id: 0 }
    }

    /// Tells some of what was closed. What was refused is told as trouble, and tried again later and later.
    pub(super) async fn round(
        &mut self,
        caller: &Caller,
        feed: &Feed,
        closed: &dyn Closed,
    ) -> Result<Option<Trouble>, Halt> {
        if self.due.is_some_and(|due| Instant::now() < due) {
            // What was wrong is still wrong.
            let refused = self.tries.values().max().map(|_| self.refused(None));
            return Ok(refused.or_else(|| self.nameless()));
        }
        self.due = Some(Instant::now() + self.wait);
        let found =
            closed.closed(self.of.clone(), Arc::clone(&self.let_go)).await.map_err(|e| unread(&*e))?;
        self.forget_gone(&found);
        let (mut done, mut failed, mut nameless) = (Vec::new(), None, 0_u64);
        for (finding, id) in found {
            let Some(id) = id.filter(|id| is_id(id)) else {
                self.let_go(finding);
                self.without_id += 1;
                nameless += 1;
                continue;
            };
            feed.rests();
            let told =
                caller.put(&format!("/external/v1/alerts/{id}"), br#"{"action":"handle"}"#.to_vec()).await;
            feed.works();
            match told {
                Ok(()) => {
                    self.tries.remove(&finding);
                    done.push(finding);
                }
                Err(trouble) => {
                    let ends = trouble.why == Why::Away;
                    self.fail(finding, &id, &trouble);
                    failed = Some(trouble);
                    if ends {
                        break;
                    }
                }
            }
        }
        if nameless > 0 {
            tracing::warn!(
                alerts = nameless,
                "{nameless} closed alerts cannot be marked as handled at the console: {NO_ID}. {NO_ID_REMEDY}"
            );
        }
        let told = done.len();
        if !done.is_empty() {
            closed.handled(done).await.map_err(|e| unread(&*e))?;
            tracing::info!(told, "the console was told of {told} alerts that they are handled");
        }
        self.wait = if failed.is_some() { (self.wait * 2).min(EVERY_MAX) } else { EVERY };
        self.due = Some(Instant::now() + self.wait);
        match failed {
            Some(trouble) if trouble.why == Why::Away => Err(trouble.into()),
            Some(trouble) => Ok(Some(self.refused(Some(trouble)))),
            None => Ok(self.nameless()),
        }
    }

    /// What can never be told, as long as this process lives.
    fn nameless(&self) -> Option<Trouble> {
        let text = format!("{} closed alerts cannot be marked as handled: {NO_ID}", self.without_id);
        (self.without_id > 0).then(|| Trouble {
            text,
            remedy: NO_ID_REMEDY.to_owned(),
            why: Why::Other,
            retry_after: None,
        })
    }

    /// What is no longer to be told, as its ticket is open again or the console says that it is handled, fails no more. One
    /// that older ones have pushed off the page is counted anew when it is back.
    fn forget_gone(&mut self, found: &[(i64, Option<String>)]) {
        self.tries.retain(|finding, _| found.iter().any(|(found, _)| found == finding));
    }

    fn fail(&mut self, finding: i64, id: &str, trouble: &Trouble) {
        let tries = self.tries.entry(finding).or_default();
        *tries += u32::from(trouble.why != Why::Away);
        if *tries >= TRIES_MAX {
            tracing::warn!(
                "the console was not told that alert {id} is handled, {TRIES_MAX} times ({}); it is let go until the next start",
                trouble.text
            );
            self.let_go(finding);
        }
    }

    fn let_go(&mut self, finding: i64) {
        let all = Arc::make_mut(&mut self.let_go);
        // Forgotten ones are looked at once more.
        if all.len() >= LET_GO_MAX {
            all.clear();
        }
        all.insert(finding);
        self.tries.remove(&finding);
    }

    /// In words: how many wait, and what the console said of the last.
    fn refused(&self, last: Option<Trouble>) -> Trouble {
        let text = format!("{} closed alerts could not be marked as handled", self.tries.len().max(1));
        let remedy = "look whether the token may write there, and handle them there by hand, or set write_back = \"none\"";
        let (said, retry_after) =
            last.map_or((String::new(), None), |t| (format!(": {}", t.text), t.retry_after));
        Trouble { text: text + &said, remedy: remedy.to_owned(), why: Why::Other, retry_after }
    }
}

fn unread(e: &(dyn std::error::Error + Send + Sync)) -> Halt {
    Trouble {
        text: format!("what was closed in ServiceNow cannot be learnt: {e}"),
        remedy: String::new(),
        why: Why::Other,
        retry_after: None,
    }
    .into()
}

/// `5-1557059334000`, or another form of letters, digits and dashes that is no plain number: those of the API are numbers,
/// and mean something else.
fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    id.len() <= ID_MAX && id.contains('-') && id.bytes().all(plain) && id.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_an_id_of_the_product_is_told() {
        for good in ["5-1557059334000", "7903F632-H7EJ-4"] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", "7", "4:1", "../x", "1-2?x", "1-2/x", "a-b", &"1-".repeat(40)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    fn said(why: Why) -> Trouble {
        Trouble { text: "no alert found".to_owned(), remedy: String::new(), why, retry_after: None }
    }

    #[test]
    fn what_failed_and_is_no_longer_to_be_told_is_no_trouble() {
        let mut handling = Handling::new(Vec::new());
        for finding in [7, 8] {
            handling.fail(finding, "5-1", &said(Why::Other));
        }
        assert!(handling.refused(None).text.starts_with("2 closed alerts"));
        handling.forget_gone(&[(8, Some("5-2".to_owned())), (9, None)]);
        assert_eq!(handling.tries, BTreeMap::from([(8, 1)]));
        handling.forget_gone(&[]);
        assert!(handling.tries.is_empty());
    }

    #[test]
    fn what_is_refused_too_often_is_let_go() {
        let mut handling = Handling::new(Vec::new());
        for _ in 0..20 {
            handling.fail(7, "5-1", &said(Why::Away));
        }
        assert!(handling.let_go.is_empty(), "a console that is away refuses nothing");
        for _ in 1..TRIES_MAX {
            handling.fail(7, "5-1", &said(Why::TooMuch));
        }
        assert!(handling.let_go.is_empty());
        assert!(handling.refused(Some(said(Why::TooMuch))).text.ends_with("handled: no alert found"));
        handling.fail(7, "5-1", &said(Why::TooMuch));
        assert!(handling.let_go.contains(&7) && handling.tries.is_empty());
    }
}
