//! The list of records that a look is answered with: read in one place, so that no look takes another thing for "none".
//!
//! None is a list without records, or 404 with the words that old releases and some gateways have for it. An answer without a
//! list says nothing, and the look is made again.

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::classify::{self, Attempt, What};
use super::query::{Query, url_value};
use super::ticket::VALUES;
use crate::destination::SendError;
use crate::model::{TableName, Timestamp};

#[derive(Default)]
pub(super) struct Listed {
    pub(super) rows: Vec<Value>,
    /// HTTP status of the answer.
    pub(super) status: Option<u16>,
    /// What the server's clock said.
    pub(super) server_now: Option<Timestamp>,
    /// How many there are on all pages, where it was told.
    pub(super) total: Option<usize>,
}

impl ServiceNow {
    /// Rows of a table; whoever asks has to look whether they are what was asked for.
    pub(super) async fn records_of(
        &self,
        attempt: &Attempt<'_>,
        from: &TableName,
        query: &Query,
        fields: &str,
        limit: usize,
    ) -> Result<Vec<Value>, SendError> {
        Ok(self.look(attempt, (from, fields), query, limit, "a look-up").await?.rows)
    }

    /// Some records with these fields; `what` is what the look is called in messages.
    pub(super) async fn look(
        &self,
        attempt: &Attempt<'_>,
        (from, fields): (&TableName, &str),
        query: &Query,
        limit: usize,
        what: &str,
    ) -> Result<Listed, SendError> {
        let call = Call::get(
            What::LookUp,
            attempt.table,
            Path::Records(from),
            format!(
                "sysparm_query={}&sysparm_fields={}&{VALUES}&sysparm_limit={limit}",
                query.encoded(),
                url_value(fields)
            ),
        );
        self.list(&call, attempt, what).await
    }

    /// Makes a look; `what` is what it is called in messages.
    pub(super) async fn list(
        &self,
        call: &Call<'_>,
        attempt: &Attempt<'_>,
        what: &str,
    ) -> Result<Listed, SendError> {
        let (mut value, answer) = match self.call(call).await {
            Ok(called) => called,
            Err(e) if classify::is_no_record(&e) => {
                return Ok(Listed { status: e.status, ..Listed::default() });
            }
            Err(e) => return Err(e),
        };
        let Some(Value::Array(rows)) = value.get_mut("result").map(Value::take) else {
            let cause = format!("the answer to {what} has no list of records");
            return Err(attempt.retry(&cause).answered(answer.status));
        };
        Ok(Listed {
            rows,
            status: Some(answer.status),
            server_now: classify::server_date(&answer),
            total: answer.header("x-total-count").and_then(|v| v.trim().parse().ok()),
        })
    }
}
