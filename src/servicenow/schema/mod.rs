//! What the tables of an instance take: read before the first alert goes to a table, kept for a day, and asked again
//! when something is held for it.
//!
//! `sys_db_object` says what a table extends, `sys_dictionary` its columns, `sys_choice` the values of those that are
//! lists, `sys_data_policy_rule` what has to be filled; a reference that is given by its name is looked up once. An
//! instance drops what it does not know without a word, so that is left out here, and told. What cannot be read, for whatever
//! reason, is told as well, judged by nothing, and left alone for an hour: only without a token or a connection nothing goes
//! on. Nothing here writes. `table` decides.
//!
//! Upgrades change defaults, so all of it is forgotten when the instance's build is another one; that is asked once an
//! hour, where it may be read.

mod table;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use self::table::{Fitted, LeftOut, Named, Resolved, TableSchema};
use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::query::{Query, QueryError, url_value};
use super::row::is_optional;
use super::{fields, wire};
use crate::destination::{Admission, Fields, MayAsk, Order, Remark, SendError};
use crate::model::{Class, DeliveryKind, HoldScope, SysId, TableName, Timestamp, text};

/// How long what was read is believed.
const BELIEVED: Duration = Duration::from_hours(24);
/// The same of what could not be read: somebody may give the right.
const UNREAD: Duration = Duration::from_hours(1);
/// How often the build of the instance is asked for.
const BUILD: Duration = Duration::from_hours(1);
const BUILD_NAME: &str = "glide.buildname";
/// Where it stands.
const BUILD_TABLE: &str = "sys_properties";
/// The same of what makes a delivery wait: somebody may have mended it.
const HELD: Duration = Duration::from_secs(30);
/// Rows of one request.
const PAGE: usize = 500;
/// Requests for the rows of one question.
const PAGES: usize = 6;
/// Names that are remembered; then it begins anew.
const NAMES: usize = 2_000;
/// Tables that are remembered.
const TABLES: usize = 200;
/// Rows of a name that is looked up: two are too many already.
const SAME_NAME: usize = 5;

#[derive(Debug, Default)]
pub(super) struct Known {
    tables: Mutex<BTreeMap<TableName, (Timestamp, Arc<TableSchema>)>>,
    names: Mutex<HashMap<(String, String), (Timestamp, Resolved)>>,
    /// The build of the instance, and when that was asked; empty: it may not be read.
    build: Mutex<Option<(Timestamp, String)>>,
    /// Why a system table could not be read last.
    why: Mutex<BTreeMap<&'static str, Why>>,
}

impl Known {
    fn tables(&self) -> MutexGuard<'_, BTreeMap<TableName, (Timestamp, Arc<TableSchema>)>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<(String, String), (Timestamp, Resolved)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self) -> MutexGuard<'_, Option<(Timestamp, String)>> {
        self.build.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn why(&self) -> MutexGuard<'_, BTreeMap<&'static str, Why>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, named: &Named) -> Option<(Timestamp, Resolved)> {
        self.names().get(&(named.target.clone(), named.name.clone())).cloned()
    }

    fn fit(&self, schema: &TableSchema, fields: &Fields) -> Fitted {
        schema.fit(fields, |named| self.name(named).map(|(_, resolved)| resolved))
    }
}

/// Why reading ended early.
enum Stop {
    /// No more requests for now.
    Wait,
    Failed(Box<SendError>),
}

impl From<SendError> for Stop {
    fn from(error: SendError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// Why a system table could not be read.
#[derive(Debug)]
struct Why {
    words: String,
    /// It was refused, and not only for now.
    is_refused: bool,
}

impl Why {
    fn of(e: &SendError) -> Self {
        Self { words: e.message.clone(), is_refused: matches!(e.status, Some(400..=404)) }
    }
}

/// One order on its way through.
struct Reading<'a> {
    order: &'a Order,
    may_ask: MayAsk<'a>,
    now: Timestamp,
    /// What was answered holds for all that is read here: what a table takes is asked for no further.
    is_over: AtomicBool,
}

impl ServiceNow {
    /// The same, checking each table and record before it is sent.
    #[must_use]
    pub fn checking(mut self) -> Self {
        self.schema = Some(Known::default());
        self
    }

    /// Whether an order can go out as it is; reads what has to be known for it.
    pub(super) async fn admit_order(
        &self,
        order: &Order,
        may_ask: MayAsk<'_>,
    ) -> Result<Admission, SendError> {
        let (Some(known), DeliveryKind::OpenTicket | DeliveryKind::PutRow) = (&self.schema, order.kind)
        else {
            return Ok(Admission::Fits(Vec::new()));
        };
        // What cannot go out at all is told when it is sent.
        let Ok(fields) = fields::outgoing(&order.fields) else { return Ok(Admission::Fits(Vec::new())) };
        let reading = Reading { order, may_ask, now: self.now(), is_over: AtomicBool::new(false) };
        match self.admitted(known, &reading, &fields).await {
            Ok(remarks) => Ok(Admission::Fits(remarks)),
            Err(Stop::Wait) => Ok(Admission::Waits),
            Err(Stop::Failed(error)) => Err(*error),
        }
    }

    /// Whether a table has a column, as far as is known: of one that nobody has read yet, whether such tables have it.
    pub(super) fn has_column(&self, table: &TableName, column: &str) -> bool {
        let Some(known) = &self.schema else { return false };
        let schema = known.tables().get(table).map(|(_, schema)| Arc::clone(schema));
        match schema {
            Some(schema) if !schema.columns.is_empty() => schema.columns.contains_key(column),
            _ => is_task(table.as_str()),
        }
    }

    /// The fields as this table takes them; as they are where nothing is known of it.
    pub(super) fn fitting(&self, table: &TableName, fields: Fields) -> Fields {
        let Some(known) = &self.schema else { return fields };
        let schema = known.tables().get(table).map(|(_, schema)| Arc::clone(schema));
        match schema {
            Some(schema) => known.fit(&schema, &fields).fields,
            None => fields,
        }
    }

    async fn admitted(
        &self,
        known: &Known,
        reading: &Reading<'_>,
        fields: &Fields,
    ) -> Result<Vec<Remark>, Stop> {
        self.look_at_build(known, reading).await?;
        for again in [false, true] {
            let schema = self.schema_of(known, reading, fields, again).await?;
            for named in schema.named(fields) {
                self.resolve(known, reading, &named).await?;
            }
            let fitted = known.fit(&schema, fields);
            let Some((cause, remedy)) = trouble(&fitted, reading.order) else {
                let is_row = reading.order.kind == DeliveryKind::PutRow;
                return Ok(remarks(&schema, &fitted, &known.why(), is_row));
            };
            let read_at = known.tables().get(&reading.order.table).map(|(at, _)| *at);
            let is_fresh = read_at.is_some_and(|at| reading.now < at.after(HELD));
            if again || is_fresh || fitted.empty.is_empty() && fitted.left_out.is_empty() {
                let what = if reading.order.kind == DeliveryKind::PutRow { What::Row } else { What::Create };
                let attempt = self.attempt(what, &reading.order.table);
                return Err(attempt.error(Class::Hold, HoldScope::Action, &cause, &remedy).into());
            }
        }
        Ok(Vec::new())
    }

    /// Forgets everything when the instance was upgraded.
    async fn look_at_build(&self, known: &Known, reading: &Reading<'_>) -> Result<(), Stop> {
        let held = known.build().clone();
        let is_believed = |(at, build): &(Timestamp, String)| {
            let most = if build.is_empty() { BELIEVED } else { BUILD };
            *at <= reading.now && reading.now < at.after(most)
        };
        if held.as_ref().is_some_and(is_believed) {
            return Ok(());
        }
        let query = self.query(reading, |query| query.is("name", BUILD_NAME))?;
        let rows = self.page(reading, BUILD_TABLE, &query, "name,value", 0, 1).await?;
        known.why().remove(BUILD_TABLE);
        if let Err(e) = &rows
            && e.is_general
        {
            reading.is_over.store(true, Ordering::Relaxed);
            known.why().insert(BUILD_TABLE, Why::of(e));
        }
        let Ok(rows) = rows else {
            // That says nothing of another build.
            let before = held.map(|(_, before)| before).unwrap_or_default();
            *known.build() = Some((reading.now, before));
            return Ok(());
        };
        let row = rows.iter().find(|row| wire::field(row, "name") == BUILD_NAME);
        let build = row.map(|row| wire::field(row, "value")).unwrap_or_default();
        if let Some((_, before)) = held.filter(|(_, before)| !before.is_empty() && *before != build) {
            let (before, build) = (text::one_line(&before), text::one_line(&build));
            tracing::info!(
                "{} went from build {before} to {build}: what its tables take is read again",
                self.place
            );
            known.tables().clear();
            known.names().clear();
            for absent in self.absent() {
                absent.1.forget();
            }
        }
        *known.build() = Some((reading.now, build));
        Ok(())
    }

    /// What is known of the order's table, with the choices of its fields.
    async fn schema_of(
        &self,
        known: &Known,
        reading: &Reading<'_>,
        fields: &Fields,
        again: bool,
    ) -> Result<Arc<TableSchema>, Stop> {
        let table = &reading.order.table;
        let held = known.tables().get(table).cloned();
        let is_believed = |(at, schema): &(Timestamp, Arc<TableSchema>)| {
            let most = if schema.unread.is_empty() { BELIEVED } else { UNREAD };
            !again && *at <= reading.now && reading.now < at.after(most)
        };
        let (read_at, mut schema) = match held.filter(is_believed) {
            Some((at, schema)) => (at, schema),
            None => (reading.now, Arc::new(self.read_table(known, reading).await?)),
        };
        let unasked = schema.unasked(fields);
        if !unasked.is_empty() && !schema.unread.contains("sys_choice") {
            let mut more = TableSchema::clone(&schema);
            let family = more.family.clone();
            let query = self.query(reading, |query| {
                query
                    .one_of("name", family.iter().map(String::as_str))?
                    .one_of("element", unasked.iter().map(String::as_str))
            })?;
            match self.rows(known, reading, "sys_choice", &query, "name,element,value,label,inactive").await?
            {
                Some(rows) => more.take_choices(&unasked, &rows),
                None => drop(more.unread.insert("sys_choice")),
            }
            schema = Arc::new(more);
        }
        let mut tables = known.tables();
        if tables.len() >= TABLES && !tables.contains_key(table) {
            tables.clear();
        }
        tables.insert(table.clone(), (read_at, Arc::clone(&schema)));
        Ok(schema)
    }

    async fn read_table(&self, known: &Known, reading: &Reading<'_>) -> Result<TableSchema, Stop> {
        let table = reading.order.table.as_str();
        let mut schema = TableSchema::default();
        let parents =
            "name,super_class.name,super_class.super_class.name,super_class.super_class.super_class.name";
        let query = self.query(reading, |query| query.one_of("name", [table]))?;
        let rows = self.rows(known, reading, "sys_db_object", &query, parents).await?;
        let row = rows.iter().flatten().find(|row| wire::field(row, "name") == table);
        schema.family = match row {
            Some(row) => {
                parents.split(',').map(|path| wire::field(row, path)).filter(|n| !n.is_empty()).collect()
            }
            None if is_task(table) => vec![table.to_owned(), "task".to_owned()],
            None => vec![table.to_owned()],
        };
        if rows.is_none() {
            schema.unread.insert("sys_db_object");
        }
        // Without knowing what it extends, half of the columns would seem unknown.
        if row.is_none() && !is_task(table) {
            schema.unread.insert("sys_dictionary");
        } else {
            let family = schema.family.clone();
            let query =
                self.query(reading, |query| query.one_of("name", family.iter().map(String::as_str)))?;
            let columns =
                "name,element,internal_type,max_length,reference,mandatory,default_value,choice,active";
            match self.rows(known, reading, "sys_dictionary", &query, columns).await? {
                Some(rows) if rows.len() < PAGE * PAGES => schema.take_columns(&rows),
                _ => drop(schema.unread.insert("sys_dictionary")),
            }
            // A dictionary without the table's own parents is seen only in part.
            if is_task(table) && !schema.columns.contains_key("short_description") {
                schema.columns.clear();
            }
            if schema.columns.is_empty() {
                schema.unread.insert("sys_dictionary");
            }
        }
        let family = schema.family.clone();
        let query = self.query(reading, |query| {
            query.one_of("sys_data_policy.model_table", family.iter().map(String::as_str))
        })?;
        let columns = "field,mandatory,disabled,sys_data_policy.conditions,sys_data_policy.active,\
                       sys_data_policy.model_table";
        match self.rows(known, reading, "sys_data_policy_rule", &query, columns).await? {
            Some(rows) => schema.take_policies(&rows),
            None => drop(schema.unread.insert("sys_data_policy_rule")),
        }
        Ok(schema)
    }

    /// Looks a name up, unless that was done lately.
    async fn resolve(&self, known: &Known, reading: &Reading<'_>, named: &Named) -> Result<(), Stop> {
        if let Some((at, resolved)) = known.name(named) {
            let most = match resolved {
                Resolved::To(_) => BELIEVED,
                Resolved::Unread => UNREAD,
                Resolved::Nothing | Resolved::Several(_) | Resolved::Failing { .. } => HELD,
            };
            if at <= reading.now && reading.now < at.after(most) {
                return resolved.failing().map_or(Ok(()), Err);
            }
        }
        let mut resolved = self.ask_name(reading, named).await?;
        if let Resolved::Failing { since, .. } = &mut resolved {
            if let Some((_, Resolved::Failing { since: before, .. })) = known.name(named) {
                *since = before.min(*since);
            }
            if reading.now >= since.after(UNREAD) {
                // It does not pass: an alert must not wait for ever for the name of a group.
                resolved = Resolved::Unread;
            }
        }
        let failing = resolved.failing();
        let mut memory = known.names();
        if memory.len() >= NAMES {
            memory.clear();
        }
        memory.insert((named.target.clone(), named.name.clone()), (reading.now, resolved));
        failing.map_or(Ok(()), Err)
    }

    async fn ask_name(&self, reading: &Reading<'_>, named: &Named) -> Result<Resolved, Stop> {
        let mut found: BTreeSet<SysId> = BTreeSet::new();
        for column in name_columns(&named.target) {
            // A name that cannot be put into a query safely is none.
            let Ok(query) = Query::default().is(column, &named.name) else { return Ok(Resolved::Nothing) };
            let fields = format!("sys_id,{column}");
            let rows = match self.page(reading, &named.target, &query, &fields, 0, SAME_NAME).await? {
                Ok(rows) => rows,
                Err(e) if matches!(e.class, Class::Retry | Class::RetryAt) => {
                    let name = text::clip(&text::one_line(&named.name), 80).into_owned();
                    let words = format!("`{name}` could not be looked up in {}: {}", named.target, e.message);
                    return Ok(Resolved::Failing { since: reading.now, words });
                }
                Err(_) => return Ok(Resolved::Unread),
            };
            // A condition that is dropped there brings strangers.
            let is_it = |row: &&Value| wire::field(row, column).eq_ignore_ascii_case(&named.name);
            found.extend(
                rows.iter().filter(is_it).filter_map(|row| SysId::new(&wire::field(row, "sys_id")).ok()),
            );
            match found.len() {
                0 => {}
                1 => return Ok(found.pop_first().map_or(Resolved::Nothing, Resolved::To)),
                many => return Ok(Resolved::Several(many)),
            }
        }
        Ok(Resolved::Nothing)
    }

    fn query(
        &self,
        reading: &Reading<'_>,
        build: impl FnOnce(Query) -> Result<Query, QueryError>,
    ) -> Result<Query, Stop> {
        build(Query::default()).map_err(|e| {
            let attempt = self.attempt(What::Schema, &reading.order.table);
            attempt.hold_table(&e.to_string(), "this is a fault of otrelay; report it").into()
        })
    }

    /// All rows of a system table; `None`: it cannot be read.
    async fn rows(
        &self,
        known: &Known,
        reading: &Reading<'_>,
        table: &'static str,
        query: &Query,
        fields: &str,
    ) -> Result<Option<Vec<Value>>, Stop> {
        let mut all = Vec::new();
        if reading.is_over.load(Ordering::Relaxed) {
            return Ok(None);
        }
        for page in 0..PAGES {
            let rows = match self.page(reading, table, query, fields, page * PAGE, PAGE).await? {
                Ok(rows) => rows,
                Err(e) => {
                    reading.is_over.fetch_or(e.is_general, Ordering::Relaxed);
                    known.why().insert(table, Why::of(&e));
                    return Ok(None);
                }
            };
            let is_last = rows.len() < PAGE;
            all.extend(rows);
            if is_last {
                break;
            }
        }
        known.why().remove(table);
        Ok(Some(all))
    }

    /// Some rows, or why they cannot be read.
    async fn page(
        &self,
        reading: &Reading<'_>,
        table: &str,
        query: &Query,
        fields: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Result<Vec<Value>, SendError>, Stop> {
        let unread = |cause: &str| self.attempt(What::Schema, &reading.order.table).hold_table(cause, "");
        let Ok(table) = TableName::new(table) else { return Ok(Err(unread("its name is no table's"))) };
        if !(reading.may_ask)() {
            return Err(Stop::Wait);
        }
        let called = self
            .call(&Call::get(What::Schema, &table, Path::Records(&table), format!(
                    "sysparm_query={}&sysparm_fields={}&sysparm_display_value=false&sysparm_exclude_reference_link=true\
                     &sysparm_no_count=true&sysparm_limit={limit}&sysparm_offset={offset}",
                    query.encoded(),
                    url_value(fields)
                )))
            .await;
        match called {
            Ok((mut value, _)) => match value.get_mut("result").map(Value::take) {
                // It may answer with more than it was asked for.
                Some(Value::Array(mut rows)) => {
                    rows.truncate(limit);
                    Ok(Ok(rows))
                }
                _ => Ok(Err(unread("the answer has no list of records"))),
            },
            // No token, or no connection.
            Err(e) if e.hold == HoldScope::Destination => Err(e.into()),
            // It is there or not, readable or not: the write will say what is wrong with everything.
            Err(e) => Ok(Err(e)),
        }
    }
}

impl Resolved {
    /// A record waits for its next turn: a name in it could not be looked up now, and will be.
    fn failing(&self) -> Option<Stop> {
        let Self::Failing { words, .. } = self else { return None };
        Some(SendError::new(Class::Retry, HoldScope::Action, words.clone(), "").into())
    }
}

fn is_task(table: &str) -> bool {
    matches!(
        table,
        "incident" | "problem" | "change_request" | "sn_si_incident" | "sn_ot_incident" | "sc_task" | "task"
    )
}

/// The columns that a record of that table is named by.
fn name_columns(table: &str) -> &'static [&'static str] {
    match table {
        "sys_user" => &["user_name", "name", "email"],
        table if is_task(table) => &["number"],
        _ => &["name"],
    }
}

/// Why a record has to wait, and what to do.
fn trouble(fitted: &Fitted, order: &Order) -> Option<(String, String)> {
    let table = &order.table;
    if let Some((named, why)) = fitted.lost.first() {
        let name = fields::clip_chars(&text::one_line(&named.name), 80);
        let Named { column, target, .. } = named;
        let cause = match why {
            Resolved::Several(many) => {
                format!("`{column}` is to be `{name}`, and {many} or more records of {target} have that name")
            }
            _ => format!(
                "`{column}` is to be `{name}`, and no record of {target} that otrelay may see has that name"
            ),
        };
        let remedy = format!(
            "create it in ServiceNow, let the integration user read {target}, or correct `{column}` in \
             [rule.action.fields] (a sys_id is taken as it is); the deliveries of this action wait meanwhile"
        );
        return Some((cause, remedy));
    }
    if let Some((column, by_policy)) = fitted.empty.first_key_value() {
        let who = if *by_policy { "a data policy" } else { "the dictionary" };
        let others: Vec<String> =
            fitted.empty.keys().skip(1).take(5).map(|name| format!("`{name}`")).collect();
        let others =
            if others.is_empty() { String::new() } else { format!(" (so are {})", others.join(", ")) };
        let cause = format!("`{column}` is mandatory in {table}, says {who}, and it has no value{others}");
        let remedy = format!(
            "give `{column}` a value in [rule.action.fields]; the deliveries of this action wait meanwhile"
        );
        return Some((cause, remedy));
    }
    let key = order.keys.correlation_id.as_str();
    let is_key = |name: &&String| order.fields.get(*name).is_some_and(|value| value == key);
    let column = fitted.left_out.keys().find(is_key).filter(|_| order.kind == DeliveryKind::PutRow)?;
    let cause =
        format!("{table} has no column `{column}`, so its transform map could not tell a record again");
    let remedy = "add the column and make it the coalesce field of the transform map, or name the right one in \
                  [rule.action.columns]";
    Some((cause, remedy.to_owned()))
}

/// What a person should know of a table and of what was left out.
fn remarks(
    schema: &TableSchema,
    fitted: &Fitted,
    why: &BTreeMap<&'static str, Why>,
    is_row: bool,
) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let table = schema.family.first().map_or("", String::as_str);
    // That a staging table is of the older kind needs nobody.
    let needs_nobody =
        |field: &str, why: &LeftOut| is_row && matches!(why, LeftOut::NoColumn) && is_optional(field);
    for (field, why) in fitted.left_out.iter().filter(|(field, why)| !needs_nobody(field, why)) {
        let (code, text, remedy) = match why {
            LeftOut::NoColumn => (
                "unknown-column",
                format!("{table} has no column `{field}`: it is left out of what is sent there"),
                format!(
                    "correct the name in [rule.action.fields] (the name, not the label), or add the column to {table}"
                ),
            ),
            LeftOut::NoChoice(value, choices) => (
                "not-a-choice",
                format!(
                    "`{value}` is no choice of `{field}` in {table}: it is left out of what is sent there"
                ),
                format!("use one of {choices}, or add the choice in ServiceNow"),
            ),
        };
        remarks.push(Remark { code, field: field.clone(), text, remedy });
    }
    if !schema.unread.is_empty() {
        let reason = schema.unread.iter().find_map(|table| why.get(table)).or_else(|| why.get(BUILD_TABLE));
        let passes = reason.is_some_and(|why| !why.is_refused);
        let reason = reason.map(|why| format!(" ({})", why.words)).unwrap_or_default();
        let unread: Vec<&str> = schema.unread.iter().copied().collect();
        let unread = unread.join(", ");
        let remedy = if passes {
            "they are read again within the hour".to_owned()
        } else {
            format!("check that {table} is there and let the integration user read {unread}")
        };
        remarks.push(Remark {
            code: "schema-unread",
            field: String::new(),
            text: format!(
                "what {table} takes is known only in part: {unread} shows otrelay nothing of it{reason}"
            ),
            remedy: format!("{remedy}; until then ServiceNow may drop fields in silence"),
        });
    }
    remarks
}
