//! What was changed there since: polled by `sys_updated_on`, by the server's clock, a page at a time.

use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::query::{Query, url_value};
use super::ticket::{DETAIL_FIELDS, DISPLAY, VALUES, remote};
use super::wire;
use crate::destination::{Changed, SendError};
use crate::model::{TableName, Timestamp};
use crate::net::Method;

/// Records in one page.
const PAGE: usize = 200;

impl ServiceNow {
    /// What the displays of our tickets begin with: our identity with it, where that can be asked for.
    fn display_prefix(&self) -> &str {
        let prefix = self.display.split(" (").next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b' ' | b'-' | b'_' | b'.');
        if prefix.bytes().all(plain) { prefix } else { DISPLAY }
    }

    /// Our records of a table that were changed since then.
    pub(super) async fn changed_tickets(
        &self,
        table: &TableName,
        since: Timestamp,
        page: usize,
    ) -> Result<Changed, SendError> {
        let attempt = self.attempt(What::LookUp, table);
        let query = Query::default()
            .starts_with("correlation_display", self.display_prefix())
            .and_then(|q| q.at_least("sys_updated_on", &since.servicenow()))
            .and_then(|q| q.order_by("sys_updated_on"))
            .and_then(|q| q.order_by("sys_id"))
            .map_err(|e| attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it"))?;
        let offset = page.saturating_mul(PAGE);
        let call = Call {
            what: What::LookUp,
            table,
            method: Method::Get,
            path: Path::Records(table),
            query: format!(
                "sysparm_query={}&sysparm_fields={}&{VALUES}&sysparm_limit={PAGE}&sysparm_offset={offset}",
                query.encoded(),
                url_value(DETAIL_FIELDS)
            ),
            body: None,
        };
        let listed = self.list(&call, &attempt, "a look for changes").await?;
        let rows = &listed.rows;
        // A condition that the instance ignored lets the records of others in: they are none of ours, and the next
        // page would only hold more of them.
        let ours = rows.iter().filter(|row| wire::field(row, "correlation_id").starts_with("otrelay-"));
        let records: Vec<_> = ours.filter_map(|row| remote(table, row)).collect();
        let is_last = match listed.total {
            Some(total) => total <= offset.saturating_add(PAGE),
            None => rows.is_empty(),
        };
        let more = !is_last && !records.is_empty();
        Ok(Changed { records, more, server_now: listed.server_now })
    }
}
