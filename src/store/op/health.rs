//! What a person should know, one row a subject; and the record of each sync.

use rusqlite::{Connection, OptionalExtension, params};

use crate::model::text::clip;
use crate::model::{HealthIssue, Timestamp};
use crate::store::handle::Operation;
use crate::store::session::Tx;
use crate::store::{Store, StoreError};

/// Issues that are kept; the oldest go first. Subjects come from outside (field names), so they are bounded.
const ISSUES: i64 = 200;
/// Syncs that are kept.
const SYNCS: i64 = 100;

/// One run of pushing what is due.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRun {
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why it ran: `interval`, `asked`, `start`, `once`.
    pub cause: String,
    /// Tickets created.
    pub created: u64,
    /// Tickets found there already.
    pub found: u64,
    /// Deliveries to be tried again.
    pub again: u64,
    /// Dead letters made.
    pub dead: u64,
}

struct Tell(HealthIssue, Timestamp);

struct Ran(SyncRun);

struct Over(&'static str, String);

struct LastSync;

impl Store {
    /// Keeps an issue; true when the subject is new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn tell(&self, issue: HealthIssue) -> Result<bool, StoreError> {
        let now = self.shared.clock.now();
        self.call(Tell(issue, now)).await
    }

    /// Takes an issue back: what it says is no longer so.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn issue_over(&self, code: &'static str, subject: String) -> Result<(), StoreError> {
        self.call(Over(code, subject)).await
    }

    /// When the last sync began.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_sync_at(&self) -> Result<Option<Timestamp>, StoreError> {
        self.call(LastSync).await
    }

    /// Keeps the record of a sync.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn synced(&self, run: SyncRun) -> Result<(), StoreError> {
        self.call(Ran(run)).await
    }
}

impl Operation for Tell {
    type Output = bool;

    fn run(self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        keep(tx.conn, &self.0, self.1)
    }
}

/// Keeps an issue; true when the subject is new.
pub(in crate::store) fn keep(
    conn: &Connection,
    issue: &HealthIssue,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let subject = clip(&issue.subject, 200);
    let known: bool = conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM health_issue WHERE code = ?1 AND subject = ?2)",
        params![issue.code, subject],
        |row| row.get(0),
    )?;
    conn.execute(
        "INSERT INTO health_issue (code, subject, text, remedy, first_at, last_at, count) VALUES (?5, ?1, ?2, ?3, ?4, ?4, 1)
         ON CONFLICT DO UPDATE SET text = excluded.text, remedy = excluded.remedy, last_at = excluded.last_at,
         count = count + 1",
        params![
            subject,
            clip(&issue.text, super::WORDS_MAX),
            clip(&issue.remedy, super::WORDS_MAX),
            now.as_micros(),
            issue.code
        ],
    )?;
    conn.execute(
        "DELETE FROM health_issue WHERE (code, subject) IN (SELECT code, subject FROM health_issue ORDER BY last_at DESC LIMIT -1 OFFSET ?1)",
        [ISSUES],
    )?;
    Ok(!known)
}

impl Operation for Over {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        over(tx.conn, self.0, &self.1)
    }
}

/// Takes an issue back.
pub(in crate::store) fn over(conn: &Connection, code: &str, subject: &str) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM health_issue WHERE code = ?1 AND subject = ?2")?
        .execute(params![code, clip(subject, 200)])?;
    Ok(())
}

impl Operation for LastSync {
    type Output = Option<Timestamp>;

    fn run(self, tx: &mut Tx<'_>) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<i64> = tx
            .conn
            .query_row(
                // By id: one dated by a clock that was ahead would be the latest for years.
                "SELECT started_at FROM sync WHERE cause <> 'again' ORDER BY id DESC LIMIT 1",
                [],
                |r| r.get(0),
            )
            .optional()?;
        Ok(at.map(Timestamp::from_micros))
    }
}

impl Operation for Ran {
    type Output = ();

    fn run(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        let r = self.0;
        tx.conn.execute(
            "INSERT INTO sync (started_at, ended_at, cause, created, found, again, dead)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                r.started_at.as_micros(),
                r.ended_at.as_micros(),
                r.cause,
                r.created as i64,
                r.found as i64,
                r.again as i64,
                r.dead as i64
            ],
        )?;
        tx.conn.execute("DELETE FROM sync WHERE id <= (SELECT max(id) FROM sync) - ?1", [SYNCS])?;
        Ok(())
    }
}
