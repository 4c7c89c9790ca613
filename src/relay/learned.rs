//! What destinations have learned of the other side, over restarts: given back before the first sync, kept after one in which
//! it changed.
//!
//! When power goes before it is kept, it is learned once more: that costs a few requests.

use super::{Relay, passing};
use crate::destination::Destination;
use crate::store::StoreError;

impl<D: Destination> Relay<D> {
    /// Gives each destination what the store has of it, once.
    pub(super) async fn recall_learned(&self) -> Result<(), StoreError> {
        for destination in &self.destinations {
            let name = destination.name();
            if self.memory().learned.contains_key(name) {
                continue;
            }
            let learned = self.store.learned(name).await?;
            destination.recall(&learned);
            self.memory().learned.insert(name.clone(), learned);
        }
        Ok(())
    }

    /// Keeps what is new.
    pub(super) async fn keep_learned(&self) -> Result<(), StoreError> {
        for destination in &self.destinations {
            let (name, learned) = (destination.name(), destination.learned());
            if self.memory().learned.get(name) == Some(&learned) {
                continue;
            }
            // On a full disk it is kept after a later sync.
            if self.store.keep_learned(name, learned.clone()).await.map_or_else(passing, |()| Ok(true))? {
                self.memory().learned.insert(name.clone(), learned);
            }
        }
        Ok(())
    }
}
