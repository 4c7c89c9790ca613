//! Sources that fall silent: which have a limit, when each was heard last, and what is to be told of them.
//!
//! The time is counted from the start of the process or from the last record, whichever is later: while otrelay was away
//! nobody listened. One timer for all; a source that is silent already has none.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::SourceName;
use crate::source::Batch;

/// First part of a silent source's mark.
pub(super) const MARK: &str = "silent/";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) source: String,
    /// Its limit, which has passed; `None`: it is heard again, or nobody asks any more.
    pub(super) silent_for: Option<Duration>,
}

/// The sources that have a limit.
#[derive(Debug, Default)]
pub(super) struct Silences {
    limits: Vec<Limit>,
    news: Vec<News>,
}

#[derive(Debug)]
struct Limit {
    source: SourceName,
    after: Duration,
    /// `None`: it was told to be silent.
    ends: Option<Instant>,
}

impl Silences {
    /// From the limits, and the sources that were told to be silent before.
    pub(super) fn begin(limits: &[(SourceName, Duration)], silent: &[String]) -> Self {
        let now = Instant::now();
        let limit = |(source, after): &(SourceName, Duration)| Limit {
            source: source.clone(),
            after: *after,
            ends: (!silent.iter().any(|silent| silent == source.as_str())).then(|| now + *after),
        };
        let gone = silent.iter().filter(|name| !limits.iter().any(|(source, _)| source.as_str() == *name));
        let news = gone.map(|source| News { source: source.clone(), silent_for: None }).collect();
        Self { limits: limits.iter().map(limit).collect(), news }
    }

    /// Something came of a source.
    pub(super) fn heard(&mut self, batch: &Batch) {
        if batch.lines() == 0 && batch.devices.is_empty() {
            return;
        }
        if let Some(limit) = self.limits.iter_mut().find(|limit| limit.source == batch.source)
            && limit.ends.replace(Instant::now() + limit.after).is_none()
        {
            self.news.push(News { source: limit.source.to_string(), silent_for: None });
        }
    }

    /// Ends when something is to be told.
    pub(super) async fn is_due(&self) {
        if !self.news.is_empty() {
            return;
        }
        match self.limits.iter().filter_map(|limit| limit.ends).min() {
            Some(ends) => tokio::time::sleep_until(ends).await,
            None => std::future::pending().await,
        }
    }

    /// What is to be told now; told once.
    pub(super) fn news(&mut self) -> Vec<News> {
        let now = Instant::now();
        let mut news = std::mem::take(&mut self.news);
        for limit in self.limits.iter_mut().filter(|limit| limit.ends.is_some_and(|ends| ends <= now)) {
            limit.ends = None;
            news.push(News { source: limit.source.to_string(), silent_for: Some(limit.after) });
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SourceName {
        SourceName::new(text).unwrap()
    }

    fn heard(of: &str) -> Batch {
        let mut batch = Batch::new(name(of), "zeek");
        batch.ignore("conn");
        batch
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_once_and_its_end_too() {
        let (eve, zeek) = (name("eve"), name("zeek"));
        let limits = [(eve, Duration::from_secs(60)), (zeek, Duration::from_secs(100))];
        let mut silences = Silences::begin(&limits, &[]);
        let news = |source: &str, silent_for: Option<u64>| News {
            source: source.to_owned(),
            silent_for: silent_for.map(Duration::from_secs),
        };
        tokio::time::advance(Duration::from_secs(50)).await;
        silences.heard(&heard("eve"));
        // What brings no record is no sign of life, and who has no limit is not asked.
        silences.heard(&Batch::new(name("zeek"), "zeek"));
        silences.heard(&heard("other"));
        assert_eq!(silences.news(), []);
        silences.is_due().await;
        assert_eq!(silences.news(), [news("zeek", Some(100))]);
        silences.is_due().await;
        assert_eq!(silences.news(), [news("eve", Some(60))]);
        let more = tokio::time::timeout(Duration::from_secs(100_000), silences.is_due()).await;
        assert!(more.is_err(), "what was told is not told again");
        silences.heard(&heard("zeek"));
        silences.is_due().await;
        assert_eq!(silences.news(), [news("zeek", None)]);
        silences.is_due().await;
        assert_eq!(silences.news(), [news("zeek", Some(100))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_knows_what_was_told() {
        let limits = [(name("eve"), Duration::from_secs(60))];
        let mut silences = Silences::begin(&limits, &["eve".to_owned(), "gone".to_owned()]);
        silences.is_due().await;
        assert_eq!(silences.news(), [News { source: "gone".to_owned(), silent_for: None }]);
        silences.heard(&heard("eve"));
        assert_eq!(silences.news(), [News { source: "eve".to_owned(), silent_for: None }]);
    }
}
