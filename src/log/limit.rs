//! No more than a few lines a minute from one place in the code about one thing; the rest becomes one line with its
//! number. A flood of garbage must neither fill the journal nor wear the flash, and no error may vanish: it is counted.
//!
//! Windows are by callsite and by what the line is about (its `source`, `destination` or `place`). Their number is bounded;
//! beyond it lines of one callsite share a window. Time is monotonic.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::model::text::{clip, one_line};

/// Lines that go out at once.
const BURST: u32 = 5;
/// In so long; then the number of the others is told.
pub(super) const WINDOW: Duration = Duration::from_secs(60);
/// Windows that are kept at most.
const WINDOWS_MAX: usize = 256;
/// Longest name of what a line is about, in bytes.
const ABOUT_MAX: usize = 64;
/// Longest text that stands for the others, in bytes.
const SAMPLE_MAX: usize = 200;
/// Fields that say what a line is about.
const ABOUT: [&str; 3] = ["source", "destination", "place"];

/// One place in the code, one thing.
type Key = (Option<tracing::callsite::Identifier>, String);

#[derive(Debug)]
struct Window {
    until: Instant,
    lines: u32,
    level: Level,
    /// The first line that was kept back.
    sample: String,
}

/// Lines that were kept back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) text: String,
}

#[derive(Debug, Default)]
pub(super) struct Limit {
    windows: Mutex<HashMap<Key, Window>>,
    /// Something was kept back.
    pub(super) kept: Notify,
}

impl Limit {
    fn windows(&self) -> MutexGuard<'_, HashMap<Key, Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line may go out; otherwise it is counted, and `text` may be asked to stand for the others.
    fn admits(&self, key: Key, level: Level, now: Instant, text: impl FnOnce() -> String) -> bool {
        let mut windows = self.windows();
        // One that is over and still owes its number is left for `summaries`.
        windows.retain(|_, window| window.until > now || window.lines > BURST);
        let key = match windows.len() {
            ..WINDOWS_MAX => key,
            _ if windows.contains_key(&key) => key,
            // One window for all that the others have no place for.
            _ => (None, String::new()),
        };
        let window = windows.entry(key).or_insert_with(|| Window {
            until: now + WINDOW,
            lines: 0,
            level,
            sample: String::new(),
        });
        window.lines = window.lines.saturating_add(1);
        // The more serious level of all that is counted.
        window.level = window.level.min(level);
        if window.lines <= BURST {
            return true;
        }
        if window.sample.is_empty() {
            window.sample = text();
            self.kept.notify_one();
        }
        false
    }

    /// When the next number is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.windows().values().filter(|window| window.lines > BURST).map(|window| window.until).min()
    }

    /// The numbers that are due at `now`; those windows begin anew. `None`: all, due or not.
    pub(super) fn summaries(&self, now: Option<Instant>) -> Vec<Summary> {
        let mut all = Vec::new();
        self.windows().retain(|_, window| {
            if window.lines <= BURST || now.is_some_and(|now| window.until > now) {
                return true;
            }
            let number = window.lines - BURST;
            let text = format!("{number} more like this in the last minute: {}", window.sample);
            all.push(Summary { level: window.level, text });
            false
        });
        all.sort_by(|a, b| a.text.cmp(&b.text));
        all
    }
}

/// The limit in the way of every line but those of `exempt` modules: the numbers themselves, and what a person did.
pub(super) struct Gate {
    pub(super) limit: Arc<Limit>,
    pub(super) exempt: &'static [&'static str],
}

impl<S: Subscriber> Layer<S> for Gate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        if self.exempt.contains(&metadata.target()) {
            return true;
        }
        let mut about = About::default();
        event.record(&mut about);
        let key = (Some(metadata.callsite()), about.thing);
        self.limit.admits(key, *metadata.level(), Instant::now(), || about.sentence)
    }
}

/// What a line says, and about what.
#[derive(Default)]
struct About {
    thing: String,
    sentence: String,
}

impl Visit for About {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.sentence = clip(&one_line(&format!("{value:?}")), SAMPLE_MAX).into_owned();
        } else if ABOUT.contains(&field.name()) {
            self.thing = clip(&format!("{value:?}"), ABOUT_MAX).into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(about: &impl ToString) -> Key {
        (None, about.to_string())
    }

    #[test]
    fn five_go_out_and_the_rest_is_a_number() {
        let (limit, now) = (Limit::default(), Instant::now());
        let admitted =
            (0..1_000).filter(|n| limit.admits(key(&"a"), Level::WARN, now, || format!("line {n}"))).count();
        assert_eq!(admitted, 5);
        assert!(limit.admits(key(&"b"), Level::WARN, now, String::new), "another thing has its own");
        assert_eq!(limit.due(), Some(now + WINDOW));
        assert_eq!(limit.summaries(Some(now + WINDOW / 2)), []);
        let text = "995 more like this in the last minute: line 5".to_owned();
        assert_eq!(limit.summaries(Some(now + WINDOW)), [Summary { level: Level::WARN, text }]);
        assert_eq!((limit.due(), limit.summaries(None).len()), (None, 0));
        let later = now + WINDOW;
        assert!(limit.admits(key(&"a"), Level::WARN, later, String::new), "a new minute begins");
    }

    #[test]
    fn an_error_among_the_kept_is_told_as_one() {
        let (limit, now) = (Limit::default(), Instant::now());
        for n in 0..10 {
            let level = if n == 8 { Level::ERROR } else { Level::INFO };
            limit.admits(key(&"a"), level, now, || "x".to_owned());
        }
        assert_eq!(limit.summaries(None)[0].level, Level::ERROR);
    }

    #[test]
    fn a_number_that_nobody_asked_for_in_time_is_not_lost() {
        let (limit, now) = (Limit::default(), Instant::now());
        for n in 0..8 {
            limit.admits(key(&"a"), Level::WARN, now, || format!("line {n}"));
        }
        limit.admits(key(&"b"), Level::WARN, now + WINDOW * 9, String::new);
        assert!(!limit.admits(key(&"a"), Level::WARN, now + WINDOW * 9, String::new));
        assert!(limit.summaries(Some(now + WINDOW * 9))[0].text.starts_with("4 more"));
    }

    #[test]
    fn memory_is_bounded_whatever_comes_and_nothing_goes_uncounted() {
        let (limit, now) = (Limit::default(), Instant::now());
        let admitted =
            (0..100_000).filter(|n| limit.admits(key(&n), Level::WARN, now, || "x".to_owned())).count();
        assert_eq!(limit.windows().len(), WINDOWS_MAX + 1);
        assert_eq!(admitted, WINDOWS_MAX + BURST as usize);
        let said = limit.summaries(None);
        assert_eq!(said.len(), 1);
        assert!(said[0].text.starts_with(&format!("{} more", 100_000 - admitted)), "{said:?}");
        limit.admits(key(&"later"), Level::WARN, now + WINDOW, String::new);
        assert_eq!(limit.windows().len(), 1);
    }
}
