//! Tells whoever watches what is decided, and never waits for them.
//!
//! A ring of [`RING`] alerts that all watchers share: the intake writes over the oldest and goes on, and a watcher that
//! was too slow is told how many it missed. Nothing is made for the ring while nobody watches.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::Place;
use crate::model::seen::{Outcome, Seen, Wanted};
use crate::model::{Fingerprint, SourceName};
use crate::source::Sighting;
use crate::store::op::record::Routed;

/// Alerts in the ring: two batches of the largest kind, about 1 MB while somebody watches.
const RING: usize = 2048;

/// The ring.
#[derive(Clone, Debug)]
pub struct Tap(broadcast::Sender<Arc<Seen>>);

impl Default for Tap {
    fn default() -> Self {
        Self(broadcast::Sender::new(RING))
    }
}

impl Tap {
    /// What is decided from now on.
    pub fn watch(&self) -> broadcast::Receiver<Arc<Seen>> {
        self.0.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.0.receiver_count()
    }

    #[cfg(test)]
    pub(crate) fn send(&self, seen: Seen) {
        let _ = self.0.send(Arc::new(seen));
    }

    /// The beginning of what is told; `None`: nobody watches.
    pub(super) fn begin(&self, source: &SourceName, sighting: &Sighting) -> Option<Seen> {
        let finding: Fingerprint = sighting.fingerprint;
        (self.0.receiver_count() > 0).then(|| Seen::of(source, &sighting.alert, finding))
    }

    /// An exclusion took it.
    pub(super) fn excluded(&self, seen: Option<Seen>, name: &str) {
        self.tell(seen, |seen| {
            seen.outcome = Outcome::Excluded;
            name.clone_into(&mut seen.reason);
        });
    }

    /// It was decided so; of an entry these are the routes, none where it was cleared.
    pub(super) fn decided(&self, seen: Option<Seen>, place: Place, routes: &[Routed]) {
        self.tell(seen, |seen| match place {
            Place::Filtered(reason) => {
                seen.outcome = Outcome::Filtered;
                reason.as_str().clone_into(&mut seen.reason);
            }
            Place::Entry(_) if routes.is_empty() => seen.outcome = Outcome::Cleared,
            Place::Entry(_) => {
                seen.outcome = Outcome::Forwarded;
                seen.tickets = routes.iter().map(wanted).collect();
            }
        });
    }

    fn tell(&self, seen: Option<Seen>, decide: impl FnOnce(&mut Seen)) {
        let Some(mut seen) = seen else { return };
        decide(&mut seen);
        // The last watcher may have left meanwhile.
        let _ = self.0.send(Arc::new(seen));
    }
}

fn wanted(route: &Routed) -> Wanted {
    Wanted { rule: route.rule.clone(), destination: route.destination.clone(), table: route.table.clone() }
}
