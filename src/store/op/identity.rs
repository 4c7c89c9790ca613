//! Who the agent is, kept with what it has taken in: fingerprints are made of its identity, so a new one makes every
//! finding a new one.

use rusqlite::{Connection, OptionalExtension};

use super::health::keep;
use crate::model::{HealthIssue, Timestamp};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Where an identity is from that only is the agent's name.
pub const FROM_NAME: &str = "name";

struct Identify {
    id: String,
    from: &'static str,
    now: Timestamp,
}

impl Store {
    /// Keeps the agent's identity and where it is from. Another one than before is told as a health issue.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn identify(&self, id: &str, from: &'static str) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Identify { id: id.to_owned(), from, now }).await
    }
}

impl Operation for Identify {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let known = meta(tx.conn, "agent_id")?;
        if let Some(before) = known.as_ref().filter(|known| **known != self.id) {
            let issue = HealthIssue {
                code: "identity-changed".to_owned(),
                subject: self.id.clone(),
                text: format!(
                    "the agent's identity was {before} and is {} now: every finding is taken for a new one",
                    self.id
                ),
                remedy: format!("set [agent] id = \"{before}\" if this is still the same agent"),
            };
            keep(tx.conn, &issue, self.now)?;
        }
        for (key, value, was) in [
            ("agent_id", self.id.as_str(), known.as_deref()),
            ("agent_id_from", self.from, meta(tx.conn, "agent_id_from")?.as_deref()),
        ] {
            if was != Some(value) {
                tx.conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)", [key, value])?;
            }
        }
        Ok(())
    }
}

/// A value of the table `meta`.
pub(in crate::store) fn meta(conn: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    Ok(conn.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()?)
}
