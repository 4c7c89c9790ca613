//! Remarks about destinations that the config does not name any more, or that it does not ask any more for what was
//! refused: nobody would look again, so they would stay for ever.

use super::Relay;
use super::group::NOT_CLOSED;
use crate::destination::Destination;
use crate::model::HealthIssue;
use crate::store::StoreError;

/// Codes of what is said of a destination; the subject begins with its name.
const OF_A_DESTINATION: [&str; 11] = [
    "unknown-column",
    "not-a-choice",
    "schema-unread",
    "dropped-field",
    "read-back",
    "changes-untold",
    "twins",
    "adopted",
    "held",
    "ticket-damaged",
    NOT_CLOSED,
];
/// The same by those who push devices there.
const OF_DEVICES: [&str; 3] = ["cmdb-class-missing", "cmdb-relation-refused", "cmdb-other-source"];

impl<D: Destination> Relay<D> {
    /// Takes them back. What cannot be read is no error here: the next start does it too.
    pub(super) async fn forget_remarks(&self) -> Result<(), StoreError> {
        let store = self.store.clone();
        let read = move || store.reader().ok()?.overview().ok();
        let Ok(Some(overview)) = tokio::task::spawn_blocking(read).await else { return Ok(()) };
        for issue in overview.issues.into_iter().map(|row| row.issue) {
            if let Some(code) = self.of_nobody(&issue) {
                self.store.issue_over(code, issue.subject).await?;
            }
        }
        Ok(())
    }

    /// Its code, if it is about a destination, or about devices in one, to which nothing of that kind goes.
    fn of_nobody(&self, issue: &HealthIssue) -> Option<&'static str> {
        let place = issue.subject.split(':').next().unwrap_or_default();
        let is_there = self.destinations.iter().any(|destination| destination.name().as_str() == place);
        let takes_devices = self.settings.devices.as_ref().is_some_and(|d| d.destination.as_str() == place);
        let of = |codes: &'static [&'static str]| codes.iter().copied().find(|code| *code == issue.code);
        let closes =
            || self.settings.sync.lives.closes(place, issue.subject.split(':').nth(1).unwrap_or_default());
        of(&OF_DEVICES)
            .filter(|_| !takes_devices)
            .or(of(&OF_A_DESTINATION).filter(|code| !is_there || *code == NOT_CLOSED && !closes()))
    }
}
