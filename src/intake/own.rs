//! What otrelay itself has to say: system notifications of its own, decided by the rules like any other alert.
//!
//! What is raised is kept as a mark beside the alert, in one commit: a restart knows what it has to clear, and raises nothing
//! twice.

use tokio_util::sync::CancellationToken;

use super::silence::{MARK, News};
use super::{Intake, passing};
use crate::model::alert::AlertState;
use crate::model::cursor::Mark;
use crate::model::{Alert, Cursor, Fingerprint, Identity, SourceName, Timestamp};
use crate::source::{Batch, Sighting};
use crate::store::op::record::Record;
use crate::store::{RepairRow, StoreError};

/// The source of otrelay's own alerts, and its kind.
pub const OWN: &str = "otrelay";

struct Said {
    /// What makes it one finding.
    id: String,
    time: Timestamp,
    title: String,
    message: String,
    state: AlertState,
}

impl Intake {
    /// A database that was damaged is an alert like any other, once for each that is kept.
    pub(super) async fn tell_repairs(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let untold = self.store.untold_repairs().await.or_else(passing)?;
        if untold.is_empty() {
            return Ok(());
        }
        let (ids, repairs): (Vec<i64>, Vec<RepairRow>) = untold.into_iter().unzip();
        let mut batch = Batch::new(own()?, OWN);
        batch.sightings = repairs.iter().map(|repair| self.repair(repair, &batch.source)).collect();
        self.commit([self.decide(batch).0].into(), stop).await?;
        // Told twice, it is the same finding.
        self.store.repairs_told(ids).await.or_else(passing)
    }

    fn repair(&self, repair: &RepairRow, source: &SourceName) -> Sighting {
        let agent = &self.settings.agent;
        let identity = format!("damaged:{}", repair.kept_as);
        let said = Said {
            id: repair.kept_as.clone(),
            time: repair.at,
            title: format!("The alert buffer of {agent} was damaged and made anew"),
            message: format!("{}. The damaged file is kept as {}.", repair.text(), repair.kept_as),
            state: AlertState::Raised,
        };
        self.sighting(source, &identity, said)
    }

    /// The sources that were told to be silent.
    pub(super) async fn silent(&self) -> Result<Vec<String>, StoreError> {
        let remembered = self.store.remembered(&own()?).await.or_else(passing)?;
        let silent = |mark: &Mark| mark.name.strip_prefix(MARK).map(ToOwned::to_owned);
        Ok(remembered.marks().filter_map(silent).collect())
    }

    /// What is to be committed for sources that have fallen silent, or are heard again.
    pub(super) fn tell_silences(&self, news: Vec<News>) -> Option<Record> {
        if news.is_empty() {
            return None;
        }
        let mut batch = Batch::new(own().ok()?, OWN);
        for News { source, silent_for } in news {
            let mark = Mark { name: format!("{MARK}{source}"), value: "raised".to_owned() };
            let (state, message) = if let Some(limit) = silent_for {
                batch.cursors.push(Cursor::Mark(mark));
                let hours = limit.as_secs_f64() / 3600.0;
                let message = format!(
                    "No record came of source {source} for {hours:.1} hours (its `silent_after`). Look whether the \
                     sensor works and still writes there; `otrelay sources` says how far it was read."
                );
                (AlertState::Raised, message)
            } else {
                batch.finished.push(Cursor::Mark(mark));
                (AlertState::Cleared, format!("Records come of source {source} again."))
            };
            let agent = &self.settings.agent;
            let title = format!("Source {source} of {agent} is silent");
            let identity = format!("silent:{source}");
            let said = Said { id: identity.clone(), time: self.clock.now(), title, message, state };
            let sighting = self.sighting(&batch.source, &identity, said);
            batch.sightings.push(sighting);
        }
        Some(self.decide(batch).0)
    }

    fn sighting(&self, source: &SourceName, identity: &str, said: Said) -> Sighting {
        let agent = &self.settings.agent;
        let fingerprint = Fingerprint::derive(agent, source, &Identity::Own(identity));
        let alert = Alert {
            time: said.time,
            title: said.title,
            message: said.message,
            state: said.state,
            ..Alert::notification(&said.id, agent, self.clock.now())
        };
        Sighting { alert, fingerprint, backlog: false, again: false }
    }
}

/// The name of otrelay's own source.
fn own() -> Result<SourceName, StoreError> {
    SourceName::new(OWN).map_err(|e| StoreError::Refused(e.to_string()))
}
