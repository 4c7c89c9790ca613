//! Nothing, by the way of everything else: that it is answered says that the writer works.

use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

struct Nothing;

impl Store {
    /// Goes through the writer's queue and a transaction that changes nothing. Any answer is a sign of life, also that
    /// there is no room or that somebody else holds the database; a writer that hangs gives none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn answers(&self) -> Result<(), StoreError> {
        self.call(Nothing).await
    }
}

impl Operation for Nothing {
    type Output = ();

    fn urgent(&self) -> bool {
        false
    }

    fn run(self, _: &mut Tx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}
