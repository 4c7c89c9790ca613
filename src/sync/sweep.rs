//! Whether live tickets are still there: asked for by their ids, some in each request.
//!
//! It begins when a poll that was not the first came to its end, so once in each `tickets_interval` or when a person orders it, and has its part of the
//! requests; where that does not suffice, the next sync goes on. Up to which ticket it came is committed behind what was read: after
//! a power cut in between these are looked at once more, which is no news.

use std::sync::Arc;
use std::time::Duration;

use super::{LOOK_MAX, PAGES_MAX, Run, reconcile};
use crate::destination::{Destination, SendError};
use crate::model::TicketState;
use crate::model::ticket::NOT_FOUND;
use crate::store::StoreError;
use crate::store::op::sync_back::{Known, Watch};

/// A record so new may not be shown yet.
const SETTLED: Duration = Duration::from_mins(5);

impl<D: Destination> Run<'_, D> {
    /// Goes on with each table that has some left.
    pub(super) async fn sweep(&mut self) -> Result<(), StoreError> {
        for watch in self.store.watches(self.destination.name()).await? {
            let Some(after) = watch.swept.filter(|_| self.is_read(&watch.table)) else { continue };
            if let Err(e) = self.sweep_table(&watch, after).await? {
                self.fail(watch.table, e);
                break;
            }
        }
        Ok(())
    }

    async fn sweep_table(
        &mut self,
        watch: &Watch,
        mut after: i64,
    ) -> Result<Result<(), SendError>, StoreError> {
        for _ in 0..PAGES_MAX {
            let before = self.allowed.now.before(SETTLED);
            let asked = self.store.unswept(watch.route, after, before, LOOK_MAX).await?;
            let Some(last) = asked.last().map(|k| k.ticket) else {
                self.store.swept_until(watch.route, None).await?;
                return Ok(Ok(()));
            };
            if !self.may_poll(&watch.table) {
                self.report.is_short = true;
                break;
            }
            let ids: Vec<_> = asked.iter().map(|k| k.sys_id.clone()).collect();
            let found = match self.destination.still_there(&watch.table, &ids).await {
                Ok(found) => found,
                Err(e) => return Ok(Err(e)),
            };
            let news = reconcile::swept(&asked, &found);
            self.report.changed += news.len() as u64;
            let gone = |k: &&Known| {
                news.iter().any(|one| one.ticket == k.ticket && one.seen.state == TicketState::Deleted)
            };
            self.say_missing(watch, &asked.iter().filter(gone).collect::<Vec<_>>());
            self.store.take_home(news, Arc::clone(&self.settings.lives)).await?;
            after = last;
            self.store.swept_until(watch.route, Some(after)).await?;
        }
        Ok(Ok(()))
    }

    fn say_missing(&self, watch: &Watch, gone: &[&Known]) {
        let (Some(first), name, table) = (gone.first(), self.destination.name(), &watch.table) else {
            return;
        };
        let first = &first.sys_id;
        tracing::warn!(
            destination = %name, table = %table, sys_id = %first,
            "{} live tickets are not found in {name} {table}, one of them {first}: {NOT_FOUND}",
            gone.len()
        );
    }
}
