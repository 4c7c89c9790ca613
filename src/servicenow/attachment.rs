//! Evidence of a finding at its ticket: the Attachment API.
//!
//! A file is known by its name and its record. It is looked for before it is sent, so that one that is there, after a
//! lost answer or a lost database, is not sent again. A record that is gone is no failure.

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::classify::{self, What};
use super::query::{Query, QueryError, url_value};
use super::wire;
use crate::destination::{Asked, Attachment, Detail, Found, LookedUp, Order, Remote, SendError, Sent};
use crate::model::{SysId, TableName};

/// Files of one name that a record may seem to have.
const SAME_NAME: usize = 4;

impl ServiceNow {
    /// Which of these files are there; `mark` is the name of each.
    pub(super) async fn find_files(&self, table: &TableName, asked: &[Asked]) -> Result<LookedUp, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let query = query(asked)
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let (wanted, limit) = ((table, "sys_id,table_sys_id,file_name"), asked.len() * SAME_NAME);
        let listed = self.look(&attempt, wanted, &query, limit, "a look for files").await?;
        let rows = &listed.rows;
        let is_it = |row: &&Value, one: &Asked| {
            wire::field(row, "file_name") == one.mark
                && wire::field(row, "table_sys_id") == one.keys.sys_id.as_str()
        };
        let is_foreign = |row: &Value| !asked.iter().any(|one| is_it(&row, one));
        let found: Vec<Found> = asked
            .iter()
            .filter_map(|one| {
                let row = rows.iter().find(|row| is_it(row, one))?;
                let remote = file(SysId::new(&wire::field(row, "sys_id")).ok()?, &one.mark);
                Some(Found { correlation_id: one.keys.correlation_id.clone(), remote, twins: 0 })
            })
            .collect();
        // What was asked for among strangers may be on another page.
        if found.len() < asked.len() && rows.iter().any(is_foreign) {
            return Err(attempt.hold_table(
                "the instance ignored our look for files: it answered with files that we did not ask for",
                "give the integration user the right to read file_name and table_sys_id of sys_attachment; until then \
                 nothing is attached",
            ));
        }
        Ok(LookedUp { found, status: listed.status, server_now: None })
    }

    pub(super) async fn attach(&self, order: &Order) -> Result<Sent, SendError> {
        let attempt = self.attempt(What::Attach, &order.table);
        let Some(Attachment { table, name, content_type, bytes }) = &order.attachment else {
            return Err(attempt.reject("there is nothing to attach", "this is a fault of otrelay; report it"));
        };
        let called = self
            .call(&Call::post(
                What::Attach,
                &order.table,
                Path::Attachment(content_type),
                format!(
                    "table_name={table}&table_sys_id={}&file_name={}",
                    order.keys.sys_id,
                    url_value(name)
                ),
                bytes.clone(),
            ))
            .await;
        let (value, answer) = match called {
            Ok((value, answer)) => (value, answer),
            Err(e) if classify::is_no_record(&e) => {
                let status = e.status.unwrap_or_default();
                return Ok(Sent {
                    created: false,
                    remote: None,
                    dropped: Vec::new(),
                    kept: None,
                    not_closed: None,
                    status,
                });
            }
            Err(e) => return Err(e),
        };
        let record = value.get("result").unwrap_or(&Value::Null);
        let sys_id = SysId::new(&wire::field(record, "sys_id")).ok();
        let is_ours = wire::field(record, "table_sys_id") == order.keys.sys_id.as_str();
        let Some(sys_id) = sys_id.filter(|_| is_ours) else {
            let cause = "the answer shows another file than the one that was sent";
            return Err(attempt.retry(cause).answered(answer.status));
        };
        let remote = Some(file(sys_id, name));
        Ok(Sent {
            created: true,
            remote,
            dropped: Vec::new(),
            kept: None,
            not_closed: None,
            status: answer.status,
        })
    }
}

fn query(asked: &[Asked]) -> Result<Query, QueryError> {
    Query::default()
        .one_of("table_sys_id", asked.iter().map(|one| one.keys.sys_id.as_str()))?
        .one_of("file_name", asked.iter().map(|one| one.mark.as_str()))
}

fn file(sys_id: SysId, name: &str) -> Remote {
    Remote { sys_id, number: name.to_owned(), active: true, state: String::new(), detail: Detail::default() }
}
