//! What a console is to be told: findings that stand, while people have resolved or closed all their tickets. Told, a finding
//! counts as ended at its source, which is what the console itself will say; a sighting raises it again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::record::set_cleared;
use crate::model::SourceName;
use crate::store::handle::Operation;
use crate::store::pack::body::Bodies;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Findings in one step.
const PAGE: usize = 50;

struct ClosedFindings(Vec<SourceName>, Arc<BTreeSet<i64>>);
struct Handled(Vec<i64>, i64);

impl Store {
    /// Findings of these sources that stand, while all their tickets are resolved or closed, except some: a page, oldest first,
    /// with the id that the source gave.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn closed_findings(
        &self,
        of: Vec<SourceName>,
        except: Arc<BTreeSet<i64>>,
    ) -> Result<Vec<(i64, Option<String>)>, StoreError> {
        self.call(ClosedFindings(of, except)).await
    }

    /// The source knows that these are handled.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is kept then.
    pub async fn handled(&self, findings: Vec<i64>) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        self.call(Handled(findings, now.as_micros())).await
    }
}

impl Operation for ClosedFindings {
    type Output = Vec<(i64, Option<String>)>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Self::Output, StoreError> {
        let mut select = tx.conn.prepare_cached(
            "SELECT DISTINCT t.alert_id FROM ticket t CROSS JOIN alert a ON a.id = t.alert_id
             WHERE t.state IN ('resolved', 'closed') AND a.cleared_at IS NULL AND a.route_id IS NULL
               AND a.source_id = (SELECT id FROM source WHERE name = ?1)
               AND NOT EXISTS (SELECT 1 FROM ticket l WHERE l.alert_id = t.alert_id AND l.state IN ('opening', 'open'))
             ORDER BY t.alert_id",
        )?;
        let mut bodies = Bodies::of(tx.conn);
        let mut all = Vec::new();
        for source in &self.0 {
            let mut rows = select.query([source.as_str()])?;
            while let Some(r) = rows.next()? {
                let id: i64 = r.get(0)?;
                if self.1.contains(&id) {
                    continue;
                }
                if all.len() == PAGE {
                    return Ok(all);
                }
                // A damaged one has no id that could be told.
                all.push((id, bodies.get(id)?.and_then(|alert| alert.id)));
            }
        }
        Ok(all)
    }
}

impl Operation for Handled {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.0.into_iter().try_for_each(|id| set_cleared(tx, id, self.1).map(drop))
    }
}
