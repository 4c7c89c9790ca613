//! One ticket, event or row by what people know it by.

use super::{Reader, Result, key, text, ticket, tickets_from};
use crate::model::{Alert, Fingerprint, Generation};
use crate::store::pack::body::Bodies;
use crate::store::rows::TicketRow;

/// An event or a row, in the columns of a ticket.
const RECORD: &str =
    "SELECT c.id, k.name, r.table_name, '', '', c.state, 0, c.rule, NULL, a.severity, a.occurrences, a.fingerprint, a.id,
       '', '', '', ''
     FROM record c JOIN route r ON r.id = c.route_id JOIN destination k ON k.id = r.destination_id
     JOIN alert a ON a.id = c.alert_id";

/// How keys begin.
const KEY_PREFIX: &str = "otrelay-";

impl Reader {
    /// The newest ticket of this number, `sys_id` or key, or the event or row of this key, with its finding; none of the
    /// two where nothing is known of it.
    ///
    /// # Errors
    /// [`crate::store::StoreError`].
    pub fn ticket(&self, name: &str) -> Result<Option<(TicketRow, Option<Alert>)>> {
        let _one_moment = self.conn.unchecked_transaction()?;
        let is_key = name.starts_with(KEY_PREFIX);
        let found = if is_key && let Some(id) = self.keyed(name)? {
            self.one_ticket(&format!("{} WHERE t.id = ?1", tickets_from()), id)?
        } else if is_key {
            return self.one_ticket(&format!("{RECORD} WHERE c.key = ?1 LIMIT 1"), name);
        } else {
            let named = "WHERE t.number = ?1 OR t.sys_id = ?1 ORDER BY t.id DESC LIMIT 1";
            self.one_ticket(&format!("{} {named}", tickets_from()), name)?
        };
        let Some((mut ticket, alert)) = found else { return Ok(None) };
        ticket.folded = self
            .conn
            .prepare("SELECT count(*) FROM ticket WHERE parent_id = ?1")?
            .query_row([ticket.id.0], |r| r.get::<_, i64>(0))?
            .unsigned_abs();
        Ok(Some((ticket, alert)))
    }

    fn one_ticket(&self, sql: &str, of: impl rusqlite::ToSql) -> Result<Option<(TicketRow, Option<Alert>)>> {
        let mut select = self.conn.prepare(sql)?;
        let mut rows = select.query([of])?;
        let Some(r) = rows.next()? else { return Ok(None) };
        let alert = Bodies::of(&self.conn).get(r.get(12)?)?;
        Ok(Some((ticket(r, alert.as_ref())?, alert)))
    }

    /// The ticket of this key. Keys are derived and not kept, so each ticket is looked at: a person asks for one.
    fn keyed(&self, name: &str) -> Result<Option<i64>> {
        let mut select = self.conn.prepare(
            "SELECT t.id, a.fingerprint, k.name, r.table_name, t.generation FROM ticket t
             JOIN alert a ON a.id = t.alert_id JOIN route r ON r.id = t.route_id
             JOIN destination k ON k.id = r.destination_id",
        )?;
        let mut rows = select.query([])?;
        while let Some(r) = rows.next()? {
            let (destination, table) = (text(r, 2)?, text(r, 3)?);
            if key(&Fingerprint::from_bytes(r.get(1)?), &destination, &table, Generation(r.get(4)?)) == name {
                return Ok(Some(r.get(0)?));
            }
        }
        Ok(None)
    }
}
