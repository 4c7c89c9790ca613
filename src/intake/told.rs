//! What the log is told of sources: trouble when it begins, changes and ends; what a first reading left out.

use std::collections::HashMap;

use super::Backfill;
use crate::model::SourceName;
use crate::model::codes::Code;
use crate::rules::Reason;
use crate::source::Batch;
use crate::store::op::record::Record;

/// What is new about a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News<'a> {
    /// Something is wrong, or something else than before.
    Trouble(&'a str),
    /// Nothing is wrong any more.
    Over,
    /// As before.
    None,
}

/// What is wrong with each source: said when it begins, changes and ends.
#[derive(Debug, Default)]
pub(super) struct Troubles(HashMap<SourceName, String>);

impl Troubles {
    pub(super) fn tell(&mut self, batch: &Batch) {
        let source = &batch.source;
        match self.change(source, batch.trouble.as_ref()) {
            News::Trouble(now) => tracing::warn!(%source, "source {source}: {now}{}", Code::behind("source")),
            News::Over => tracing::info!(%source, "source {source} is read again without trouble"),
            News::None => {}
        }
    }

    pub(super) fn change<'a>(&mut self, source: &SourceName, now: Option<&'a String>) -> News<'a> {
        if self.0.get(source) == now {
            return News::None;
        }
        let Some(now) = now else {
            self.0.remove(source);
            return News::Over;
        };
        self.0.insert(source.clone(), now.clone());
        News::Trouble(now)
    }
}

/// Alerts of a first reading that were too old: said once, when the reading pauses.
#[derive(Debug, Default)]
pub(super) struct Older(HashMap<SourceName, u64>);

impl Older {
    pub(super) fn tell(&mut self, record: &Record, backfill: Backfill) {
        let word = Reason::TooOld.as_str();
        let count: u64 = record.filtered.iter().filter(|f| f.reason == word).map(|f| f.count).sum();
        if count > 0 {
            *self.0.entry(record.source.clone()).or_default() += count;
        }
        if !self.0.is_empty()
            && record.gather
            && let Some(count) = self.0.remove(&record.source)
        {
            let source = &record.source;
            tracing::info!(
                %source,
                count,
                "source {source} was read for the first time: {count} alerts are older than [sync] backfill \
                 ({backfill}) and not forwarded; `otrelay sources rewind {source}` takes them in after all"
            );
        }
    }
}
