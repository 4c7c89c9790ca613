//! What `otrelay doctor` asks of an instance, beside `schema`: the log-in, whether a table may be read, whether a
//! value is a choice, and a record that shows what becomes of our keys. Only [`ServiceNow::try_keys`] writes, and takes
//! away what it wrote.

use serde_json::Value;

use super::call::{Call, Path, ServiceNow};
use super::classify::{self, What};
use super::query::{Query, url_value};
use super::wire;
use crate::destination::{Destination as _, Fields, Order, SendError};
use crate::model::ticket::{KeysKept, TicketKeys};
use crate::model::{DeliveryKind, Fingerprint, Generation, SysId, TableName, Timestamp};
use crate::net::Method;

/// What a record that was made for a look showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysTried {
    /// What became of our keys.
    pub kept: KeysKept,
    /// The record, where it could not be taken away again, and why.
    pub left: Option<(String, String)>,
}

impl ServiceNow {
    /// Logs in, where that takes a request of its own.
    ///
    /// # Errors
    /// [`SendError`], with the remedy.
    pub async fn log_in(&self) -> Result<(), SendError> {
        self.authorization().await.map(drop)
    }

    /// Reads a row of a table; what the instance's clock says.
    ///
    /// # Errors
    /// [`SendError`]: no such table, no right, or nothing gets through.
    pub async fn can_read(&self, table: &TableName) -> Result<Option<Timestamp>, SendError> {
        let (_, answer) = self.rows_of(table, String::new(), "sys_id").await?;
        Ok(classify::server_date(&answer))
    }

    /// Whether a value is a choice of a column; `None` where choices may not be read.
    ///
    /// # Errors
    /// [`SendError`]: nothing gets through.
    pub async fn is_choice(&self, table: &str, column: &str, value: &str) -> Result<Option<bool>, SendError> {
        let Ok(choices) = TableName::new("sys_choice") else { return Ok(None) };
        let query = Query::default().is("name", table).and_then(|q| q.is("element", column));
        // A value that cannot be put into a query safely is none of theirs.
        let Ok(query) = query.and_then(|q| q.is("value", value)) else { return Ok(Some(false)) };
        match self.rows_of(&choices, query.encoded(), "name,element,value").await {
            Ok((mut answer, _)) => {
                let rows = answer.get_mut("result").map(Value::take).unwrap_or_default();
                let is_it =
                    |row: &Value| wire::field(row, "element") == column && wire::field(row, "value") == value;
                Ok(Some(rows.as_array().is_some_and(|rows| rows.iter().any(is_it))))
            }
            Err(e) if matches!(e.status, Some(400 | 401 | 403 | 404)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn rows_of(
        &self,
        table: &TableName,
        query: String,
        fields: &str,
    ) -> Result<(Value, crate::net::Answer), SendError> {
        let query = if query.is_empty() { query } else { format!("sysparm_query={query}&") };
        let call = Call::get(
            What::LookUp,
            table,
            Path::Records(table),
            format!(
                "{query}sysparm_fields={}&sysparm_exclude_reference_link=true&sysparm_no_count=true&sysparm_limit=1",
                url_value(fields)
            ),
        );
        self.call(&call).await
    }

    /// Makes one record in a table, looks what became of our two keys, and takes the record away again. `seed` has to be
    /// new each time.
    ///
    /// # Errors
    /// [`SendError`]: it could not be made.
    pub async fn try_keys(&self, table: &TableName, seed: [u8; 32]) -> Result<KeysTried, SendError> {
        let keys =
            TicketKeys::derive(&Fingerprint::from_bytes(seed), &self.name, table, Generation::default());
        let title = "otrelay doctor: this record is taken away at once; delete it if it is still here";
        let fields = Fields::from([("short_description".to_owned(), title.to_owned())]);
        let kind = DeliveryKind::OpenTicket;
        let order =
            Order { kind, table: table.clone(), keys, fields, attachment: None, affected: Vec::new() };
        let sent = self.send(&order).await?;
        let kept = sent.kept.unwrap_or(KeysKept { sys_id: false, correlation_id: false });
        let Some(remote) = sent.remote else {
            let why = "the answer does not name it".to_owned();
            return Ok(KeysTried { kept, left: Some((order.keys.correlation_id.to_string(), why)) });
        };
        let left = self.take_away(table, &remote.sys_id).await.err();
        let name = if remote.number.is_empty() { remote.sys_id.to_string() } else { remote.number };
        Ok(KeysTried { kept, left: left.map(|e| (name, e.message)) })
    }

    async fn take_away(&self, table: &TableName, sys_id: &SysId) -> Result<(), SendError> {
        let call = Call {
            what: What::Change,
            table,
            method: Method::Delete,
            path: Path::Record(table, sys_id),
            query: String::new(),
            body: None,
        };
        match self.call(&call).await {
            // A deletion is answered without a body.
            Err(e) if e.status == Some(204) => Ok(()),
            other => other.map(drop),
        }
    }
}
