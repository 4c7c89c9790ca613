//! Devices as rows of staging tables (`[devices] method = "import-set"`): a row a request, several in a batch, or all of a
//! table at once.
//!
//! A single row's answer says what its transform did. Many at once are transformed later, so what became of each is read
//! from the import set until all are through. Every row carries a key that the transform map coalesces on: after a lost
//! answer the rows are sent again and make nothing twice. An import set that is not through in time is looked at again first
//! (`sets`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::super::call::{Call, Path, ServiceNow};
use super::super::classify::{Attempt, What};
use super::super::query::Query;
use super::super::{fields, row, wire};
use super::rows::{self, Row};
use super::sets::{LOOKS_MAX, Open, ROWS_MAX};
use super::{BYTES_MAX, Import, Settings};
use crate::destination::{
    Destination, DeviceOrder, DevicePut, DeviceRefusal, DevicesSent, Fields, Item, SendError, Sent,
};
use crate::model::gather::Gather as _;
use crate::model::text::{clip, one_line};
use crate::model::{Class, SysId, TableName};

/// Devices of one call where each row is a request or an item of a batch.
const ROWS_FEW: usize = 60;
/// The table that rows of all import sets are in.
const IMPORT_ROWS: &str = "sys_import_set_row";
/// Longest words of a transform that are repeated, in bytes.
const WORDS_MAX: usize = 300;

/// What became of one row.
type Done = Result<Sent, SendError>;

/// What would be sent for one device, as JSON.
pub(super) fn shown(settings: &Settings, import: &Import, order: &DeviceOrder) -> Option<Value> {
    let mut tables = Map::new();
    for row in rows::rows(settings, import, order)? {
        let fields = fields::outgoing(&row.fields).unwrap_or_default();
        let all = tables.entry(row.table.to_string()).or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(json!(rows::named(import, &fields)));
        }
    }
    Some(Value::Object(tables))
}

impl ServiceNow {
    /// Puts the rows of as many of these devices as fit, into requests and into what is left of the hour.
    pub(super) async fn import(
        &self,
        settings: &Settings,
        import: &Import,
        orders: &[DeviceOrder],
        requests: u32,
    ) -> Result<DevicesSent, SendError> {
        let most = if import.insert_multiple { self.sets.most() } else { ROWS_FEW };
        let (mut all, mut spans, mut bytes): (Vec<Row>, Vec<usize>, usize) = (Vec::new(), Vec::new(), 0);
        for order in orders {
            let mut own = rows::rows(settings, import, order).unwrap_or_default();
            for row in &mut own {
                let attempt = self.attempt(What::Row, &row.table);
                row.fields =
                    fields::outgoing(&row.fields).map_err(|e| attempt.reject(&e.to_string(), "report it"))?;
            }
            let size =
                own.iter().flat_map(|row| &row.fields).map(|(n, v)| n.len() + v.len() + 8).sum::<usize>();
            if !spans.is_empty() && (all.len() + own.len() > most || bytes + size > BYTES_MAX) {
                break;
            }
            let before = all.len();
            all.extend(own);
            if self.requests_for(import, &all) > requests as usize {
                all.truncate(before);
                break;
            }
            bytes += size;
            spans.push(all.len() - before);
        }
        if spans.is_empty() {
            return Ok(DevicesSent { beyond: true, ..DevicesSent::default() });
        }
        let done = if import.insert_multiple {
            self.insert_many(import, &all).await
        } else {
            self.insert_each(import, &all, requests).await
        };
        outcomes(&spans, &all, done)
    }

    /// How many requests these rows take at most, with a new log-in.
    fn requests_for(&self, import: &Import, rows: &[Row]) -> usize {
        if import.insert_multiple {
            let tables: BTreeSet<&TableName> = rows.iter().map(|row| &row.table).into_set();
            return 1 + tables.len() * (1 + LOOKS_MAX);
        }
        let (mut at, mut requests) = (0, 1);
        while at < rows.len() {
            at += self.next_together(&rows[at..]);
            requests += 1;
        }
        requests
    }

    /// How many of these rows, from the first on, go into one request.
    fn next_together(&self, rows: &[Row]) -> usize {
        // A batch is for one table, so that its holds are that table's.
        let alike = rows.iter().take_while(|row| row.table == rows[0].table).count();
        self.rows_together(rows.len()).min(alike)
    }

    /// A row a request, or some in a batch where the instance takes batches. What failed for a reason that concerns them
    /// all ends it, and so does the allowance, which an instance that takes no batches any more uses up sooner.
    async fn insert_each(&self, import: &Import, rows: &[Row], requests: u32) -> Vec<Done> {
        let mut done: Vec<Done> = Vec::with_capacity(rows.len());
        let began = Destination::requests(self);
        while let Some(next) = rows.get(done.len()) {
            if Destination::requests(self).saturating_sub(began) >= u64::from(requests) {
                break;
            }
            let rest = &rows[done.len()..];
            let n = self.next_together(rest);
            let named: Vec<Fields> = rest[..n].iter().map(|row| rows::named(import, &row.fields)).collect();
            let before = done.len();
            if n == 1 {
                done.push(self.insert_row(&next.table, &named[0]).await);
            } else {
                let singles = named.iter().map(|fields| self.single_row(&next.table, fields)).collect();
                match self.send_singles(&next.table, singles, &[]).await {
                    Ok(items) => {
                        let until = items.iter().position(|item| matches!(item, Item::NotDone));
                        let items = items.into_iter().take(until.unwrap_or(n));
                        done.extend(items.filter_map(|item| match item {
                            Item::Done(done) => Some(*done),
                            Item::NotDone => None,
                        }));
                    }
                    Err(e) => done.push(Err(e)),
                }
            }
            // A batch that got to none of them is not asked for again at once.
            let stuck = done.len() == before && n > 1 && self.rows_together(rest.len()) > 1;
            if stuck || done[before..].iter().any(|one| matches!(one, Err(e) if e.class != Class::Reject)) {
                break;
            }
        }
        done
    }

    async fn insert_row(&self, table: &TableName, fields: &Fields) -> Done {
        let single = self.single_row(table, fields)?;
        let (value, answer) = self.call(&single.call).await?;
        (single.read)(&value, answer.status)
    }

    /// All rows of a table in one request, and what became of each.
    async fn insert_many(&self, import: &Import, rows: &[Row]) -> Vec<Done> {
        let mut done: Vec<Option<Done>> = rows.iter().map(|_| None).collect();
        let tables = [Some(&import.device), import.connection.as_ref(), import.firmware.as_ref()];
        for table in tables.into_iter().flatten() {
            let of: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].table == *table).collect();
            if of.is_empty() {
                continue;
            }
            let records: Vec<Fields> = of.iter().map(|at| rows::named(import, &rows[*at].fields)).collect();
            match self.import_set(table, &records).await {
                Ok(each) => of.iter().zip(each).for_each(|(at, one)| done[*at] = Some(one)),
                Err(e) => {
                    for at in &of {
                        done[*at] = Some(Err(e.clone()));
                    }
                    break;
                }
            }
        }
        done.into_iter().map_while(|one| one).collect()
    }

    /// What became of these rows: by the sets that they are in already, and of the rest by one more.
    async fn import_set(&self, table: &TableName, records: &[Fields]) -> Result<Vec<Done>, SendError> {
        let attempt = self.attempt(What::Rows, table);
        let mut done: Vec<Option<Done>> = records.iter().map(|_| None).collect();
        for open in self.sets.of(table) {
            self.read_set(&attempt, &open, records, &mut done).await?;
        }
        let left: Vec<usize> = (0..records.len()).filter(|at| done[*at].is_none()).collect();
        if !left.is_empty() {
            let rows: Vec<Fields> = left.iter().map(|at| records[*at].clone()).collect();
            let each = self.new_set(&attempt, &rows).await?;
            left.iter().zip(each).for_each(|(at, one)| done[*at] = Some(one));
        }
        Ok(done.into_iter().flatten().collect())
    }

    /// The same of those that are in a set that was not through in time. Nothing of it is sent again before it was looked at
    /// often.
    async fn read_set(
        &self,
        attempt: &Attempt<'_>,
        open: &Open,
        records: &[Fields],
        done: &mut [Option<Done>],
    ) -> Result<(), SendError> {
        let places = open.places();
        let unknown = (0..records.len()).filter(|at| done[*at].is_none());
        let here: Vec<(usize, usize)> =
            unknown.filter_map(|at| Some((at, *places.get(&records[at])?))).collect();
        if here.is_empty() {
            return Ok(());
        }
        let rows = self.rows_of_set(attempt, &open.set).await?;
        let states = states(&rows, open.len());
        if here.iter().any(|(_, place)| states[*place].is_none_or(is_waiting)) {
            return if self.sets.again(&open.set) { Err(not_through(attempt, open)) } else { Ok(()) };
        }
        for (at, place) in &here {
            done[*at] = states[*place].map(|row| outcome(row, attempt));
        }
        self.sets.taken(&open.set, here.into_iter().map(|(_, place)| place));
        Ok(())
    }

    async fn new_set(&self, attempt: &Attempt<'_>, records: &[Fields]) -> Result<Vec<Done>, SendError> {
        let table = attempt.table;
        let body = serde_json::to_vec(&json!({ "records": records }))
            .map_err(|_| attempt.reject("the rows cannot be written as JSON", "report it"))?;
        let (value, answer) =
            self.call(&Call::post(What::Rows, table, Path::ImportMany(table), String::new(), body)).await?;
        let inner = value.get("result").filter(|inner| inner.is_object()).unwrap_or(&value);
        let set = SysId::new(&wire::field(inner, "import_set_id"))
            .map_err(|_| attempt.retry("the answer names no import set").answered(answer.status))?;
        for wait in self.sets.looks() {
            tokio::time::sleep(wait).await;
            let rows = match self.rows_of_set(attempt, &set).await {
                Ok(rows) => rows,
                Err(e) => {
                    self.sets.keep(Open::new(table, set, records));
                    return Err(e);
                }
            };
            let states = states(&rows, records.len());
            if states.iter().all(|row| row.is_some_and(|row| !is_waiting(row))) {
                return Ok(states.into_iter().flatten().map(|row| outcome(row, attempt)).collect());
            }
        }
        let open = Open::new(table, set, records);
        let failure = not_through(attempt, &open);
        self.sets.slow(open.len());
        self.sets.keep(open);
        Err(failure)
    }

    async fn rows_of_set(&self, attempt: &Attempt<'_>, set: &SysId) -> Result<Vec<Value>, SendError> {
        let own_fault = |words: String| attempt.hold_table(&words, "this is a fault of otrelay; report it");
        let query =
            Query::default().is("sys_import_set", set.as_str()).and_then(|q| q.order_by("sys_import_row"));
        let query = query.map_err(|e| own_fault(e.to_string()))?;
        let from = TableName::new(IMPORT_ROWS).map_err(|e| own_fault(e.expected.to_owned()))?;
        let fields = "sys_import_set,sys_import_row,sys_import_state,sys_import_state_comment,sys_target_sys_id,\
                      sys_target_table";
        let mut rows = self.records_of(attempt, &from, &query, fields, ROWS_MAX).await?;
        // A condition that the instance does not know is dropped there, and strangers come.
        rows.retain(|row| wire::field(row, "sys_import_set") == set.as_str());
        Ok(rows)
    }
}

fn not_through(attempt: &Attempt<'_>, open: &Open) -> SendError {
    attempt.retry(&format!("the import set {} of {} rows is not through yet", open.set, open.len()))
}

/// The rows by their places, from 0; where they are not numbered, in their order.
fn states(rows: &[Value], count: usize) -> Vec<Option<&Value>> {
    let mut all = vec![None; count];
    for (at, row) in rows.iter().enumerate() {
        let place = wire::field(row, "sys_import_row").trim().parse().unwrap_or(at);
        if let Some(slot) = all.get_mut(place) {
            *slot = Some(row);
        }
    }
    all
}

fn is_waiting(row: &Value) -> bool {
    matches!(wire::field(row, "sys_import_state").to_ascii_lowercase().as_str(), "" | "pending")
}

/// A row of an import set, told as the answer to a single one would tell it.
fn outcome(row: &Value, attempt: &Attempt<'_>) -> Done {
    let result = json!({"result": [{
        "status": wire::field(row, "sys_import_state"),
        "error_message": wire::field(row, "sys_import_state_comment"),
        "sys_id": wire::field(row, "sys_target_sys_id"),
        "table": wire::field(row, "sys_target_table"),
    }]});
    row::transformed(&result, attempt, 201)
}

/// What became of each device: of those whose rows were all told, or of none with the reason.
fn outcomes(spans: &[usize], rows: &[Row], done: Vec<Done>) -> Result<DevicesSent, SendError> {
    let mut outcomes = Vec::new();
    let (mut done, mut rows) = (done.into_iter(), rows.iter());
    for span in spans {
        let mut put = DevicePut::default();
        let mut refused = None;
        for at in 0..*span {
            let table = rows.next().map(|row| row.table.to_string()).unwrap_or_default();
            match done.next() {
                Some(Ok(sent)) if at == 0 => put = put_of(&sent),
                Some(Ok(_)) => {}
                Some(Err(e)) if e.class == Class::Reject => {
                    refused = refused.or_else(|| Some(refusal(&table, &e)));
                }
                // What concerns them all: what was told before it stands.
                Some(Err(e)) if outcomes.is_empty() => return Err(e),
                Some(Err(_)) | None => return Ok(told(outcomes)),
            }
        }
        outcomes.push(refused.map_or(Ok(put), Err));
    }
    Ok(told(outcomes))
}

fn told(outcomes: Vec<Result<DevicePut, DeviceRefusal>>) -> DevicesSent {
    DevicesSent { outcomes, status: Some(201), ..DevicesSent::default() }
}

/// An incident may point only at what the transform put into the CMDB.
fn put_of(sent: &Sent) -> DevicePut {
    let remote = sent.remote.as_ref();
    let class = remote.map(|remote| remote.detail.table.clone()).unwrap_or_default();
    let sys_id = remote.filter(|_| class.starts_with("cmdb_ci")).map(|remote| remote.sys_id.clone());
    DevicePut { created: sent.created, sys_id, class }
}

fn refusal(table: &str, e: &SendError) -> DeviceRefusal {
    DeviceRefusal {
        message: clip(&one_line(&format!("{table}: {}", e.message)), WORDS_MAX).into_owned(),
        remedy:
            "correct the transform map of the staging table, or [devices.columns]; then `otrelay queue retry`"
                .to_owned(),
        ..DeviceRefusal::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_an_import_set_are_in_their_places() {
        let row = |at: &str, state: &str| json!({"sys_import_row": at, "sys_import_state": state});
        let rows = [row("1", "updated"), row("0", "pending"), row("9", "inserted")];
        let all = states(&rows, 3);
        assert!(is_waiting(all[0].unwrap()) && !is_waiting(all[1].unwrap()) && all[2].is_none());
        let plain = [row("", "inserted"), row("", "error")];
        assert_eq!(states(&plain, 2), [Some(&plain[0]), Some(&plain[1])]);
    }

    #[test]
    fn what_concerns_all_ends_it_and_what_was_told_before_stands() {
        let table = TableName::new("u_stage").unwrap();
        let attempt = Attempt {
            what: What::Row,
            table: &table,
            place: "https://x",
            now: crate::model::Timestamp::EPOCH,
        };
        let ok = || {
            outcome(
                &json!({"sys_import_state": "inserted", "sys_target_table": "cmdb_ci_ot",
            "sys_target_sys_id": "a".repeat(32)}),
                &attempt,
            )
        };
        let rows: Vec<Row> = (0..4).map(|_| Row { table: table.clone(), fields: Fields::new() }).collect();
        let bad =
            || outcome(&json!({"sys_import_state": "error", "sys_import_state_comment": "no"}), &attempt);
        let late = || Err(attempt.retry("slow"));
        let sent = outcomes(&[2, 1, 1], &rows, vec![ok(), bad(), ok(), late()]).unwrap();
        assert_eq!(sent.outcomes.len(), 2, "the third is told later");
        assert!(sent.outcomes[0].as_ref().unwrap_err().message.contains("u_stage: "));
        let put = sent.outcomes[1].as_ref().unwrap();
        assert!(put.created && put.sys_id.is_some() && put.class == "cmdb_ci_ot");
        assert!(outcomes(&[2, 1, 1], &rows, vec![ok(), late()]).is_err(), "none is told whole");
        let other = json!({"sys_import_state": "updated", "sys_target_table": "u_devices",
            "sys_target_sys_id": "a".repeat(32)});
        let put = put_of(&outcome(&other, &attempt).unwrap());
        assert!(put.sys_id.is_none() && put.class == "u_devices", "no incident points at what is no CI");
    }
}
