//! The instance's state: tables with rows, choices, who may log in. Everything is in memory, in one place, behind one
//! lock of the listener; each call runs to its end before the next one starts, as its own transaction.
//!
//! Rows hold only what differs from the table's defaults, so that a soak test may make a million of them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::call::Answer;
use super::import::Transform;
use super::oauth::Tokens;
use super::query::{Caller, Fields};
use super::schema::{self, Kind, Schema};
use super::{Options, Record};
use crate::clock::SharedClock;
use crate::model::Timestamp;
use crate::model::gather::Gather as _;

/// Fields that a list query finds without reading every row.
const INDEXED: &[&str] = &[
    "sys_id",
    "correlation_id",
    "element_id",
    "user_name",
    "message_key",
    // What identification looks for.
    "name",
    "serial_number",
    "mac_address",
    "id",
    "cmdb_ci",
    "child",
    "ot_device",
];

/// Who made what is planted.
const STRANGER: &str = "mallory";

/// One record: position of the field and its value, ordered by position.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    values: Vec<(u16, Box<str>)>,
    /// Until then list queries do not see it: an index that lags.
    pub(super) visible_at: Timestamp,
}

/// A table and its rows, in the order of their insertion.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) parent: String,
    prefix: String,
    next_number: u64,
    pub(super) schema: Schema,
    rows: BTreeMap<u64, Row>,
    index: HashMap<&'static str, HashMap<Box<str>, Vec<u64>>>,
}

impl Table {
    fn new(plan: schema::Plan) -> Self {
        let indexed = INDEXED.iter().filter(|f| plan.schema.position(f).is_some());
        Self {
            index: indexed.map(|f| (*f, HashMap::new())).collect(),
            name: plan.name,
            parent: plan.parent,
            prefix: plan.prefix,
            next_number: 10_001,
            schema: plan.schema,
            rows: BTreeMap::new(),
        }
    }

    /// A field's value; the default when the row says nothing.
    pub(super) fn value<'a>(&'a self, row: &'a Row, field: &str) -> &'a str {
        let Some(at) = self.schema.position(field) else { return "" };
        match row.values.binary_search_by_key(&at, |(f, _)| *f) {
            Ok(found) => &row.values[found].1,
            Err(_) => &self.schema.fields[usize::from(at)].default,
        }
    }

    /// Sets a value in a row that is not in the table (yet, or while it is replaced).
    pub(super) fn set(&self, row: &mut Row, field: &str, value: &str) {
        let Some(at) = self.schema.position(field) else { return };
        let same = self.schema.fields[usize::from(at)].default == value;
        match row.values.binary_search_by_key(&at, |(f, _)| *f) {
            Ok(found) if same => drop(row.values.remove(found)),
            Ok(found) => row.values[found].1 = value.into(),
            Err(_) if same => {}
            Err(gap) => row.values.insert(gap, (at, value.into())),
        }
    }

    /// The next number, for tables that have them.
    pub(super) fn take_number(&mut self) -> Option<String> {
        if self.prefix.is_empty() {
            return None;
        }
        let number = format!("{}{:07}", self.prefix, self.next_number);
        self.next_number += 1;
        Some(number)
    }

    /// Puts a row in under that sequence number.
    pub(super) fn put(&mut self, seq: u64, mut row: Row) {
        self.remove(seq);
        row.values.shrink_to_fit();
        for field in INDEXED {
            let key: Box<str> = self.value(&row, field).into();
            if let Some(index) = self.index.get_mut(field).filter(|_| !key.is_empty()) {
                index.entry(key).or_default().push(seq);
            }
        }
        self.rows.insert(seq, row);
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<Row> {
        let row = self.rows.remove(&seq)?;
        for field in INDEXED {
            let key: Box<str> = self.value(&row, field).into();
            if let Some(index) = self.index.get_mut(field)
                && let Some(list) = index.get_mut(&key)
            {
                list.retain(|s| *s != seq);
                if list.is_empty() {
                    index.remove(&key);
                }
            }
        }
        Some(row)
    }

    pub(super) fn row(&self, seq: u64) -> Option<&Row> {
        self.rows.get(&seq)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = (u64, &Row)> {
        self.rows.iter().map(|(seq, row)| (*seq, row))
    }

    /// Rows whose indexed field has one of the values, in order of insertion; nothing when the field has no index.
    pub(super) fn with_key(&self, field: &str, values: &[&str]) -> Option<Vec<u64>> {
        let index = self.index.get(field)?;
        let mut found: Vec<u64> = values.iter().filter_map(|v| index.get(*v)).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The newest records, at most so many, with their places in the order of insertion.
    pub(super) fn last(&self, most: usize) -> Vec<(u64, Record)> {
        self.rows.iter().rev().take(most).map(|(seq, row)| (*seq, self.record(row))).collect()
    }

    /// A row as tests see it: the fields that are not empty.
    fn record(&self, row: &Row) -> Record {
        let filled = |f: &schema::Field| {
            let value = self.value(row, &f.name);
            (!value.is_empty()).then(|| (f.name.clone(), value.to_owned()))
        };
        Record { table: self.name.clone(), fields: self.schema.fields.iter().filter_map(filled).into_map() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) sys_id: String,
}

impl User {
    /// The same, for queries.
    pub(super) fn caller(&self) -> Caller<'_> {
        Caller { sys_id: &self.sys_id, name: &self.name }
    }
}

/// What faults change in the treatment of one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Tweaks {
    /// How long a new record stays invisible to list queries.
    pub(super) index_lag: Option<Duration>,
    /// Fields that are dropped when written.
    pub(super) drop_fields: Vec<String>,
    /// Fields that are neither shown, nor asked by, nor written.
    pub(super) hidden_fields: Vec<String>,
    /// Tables that answer 403.
    pub(super) hidden: Vec<String>,
    /// Texts of records that are in a domain which is not seen.
    pub(super) other_domain: Vec<String>,
    /// Texts on which a business rule throws, in a new record.
    pub(super) throws: Vec<String>,
    /// Texts for which an ACL refuses a new record.
    pub(super) refuses: Vec<String>,
}

impl Tweaks {
    pub(super) fn sees(&self, row: &Row) -> bool {
        !self
            .other_domain
            .iter()
            .any(|text| row.values.iter().any(|(_, value)| value.contains(text.as_str())))
    }

    /// Takes out of an answer what is hidden.
    pub(super) fn veil(&self, mut shown: serde_json::Value) -> serde_json::Value {
        if let Some(fields) = shown.as_object_mut() {
            for hidden in &self.hidden_fields {
                fields.remove(hidden);
            }
        }
        shown
    }
}

/// A call's circumstances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) user: &'a User,
    pub(super) tweaks: &'a Tweaks,
}

pub(super) struct Instance {
    pub(super) options: Options,
    pub(super) base: String,
    pub(super) clock: SharedClock,
    pub(super) rng: fastrand::Rng,
    pub(super) tokens: Tokens,
    pub(super) tables: BTreeMap<String, Table>,
    /// (table, element) to (value, label); made again when `sys_choice` changes.
    choices: HashMap<(String, String), Vec<(String, String)>>,
    /// A table to itself and all that extend it; tables do not change after the start.
    families: HashMap<String, Vec<String>>,
    pub(super) tiny: BTreeMap<String, String>,
    pub(super) imports: BTreeMap<String, serde_json::Value>,
    /// Rows of import sets that are still to be transformed.
    pub(super) transforms: Vec<Transform>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    next_seq: u64,
    records: usize,
}

impl Instance {
    /// An instance as it was delivered: users, groups, choices, properties.
    pub(super) fn new(options: Options, base: String) -> Self {
        let mut instance = Self {
            base,
            clock: options.clock.clone(),
            rng: fastrand::Rng::with_seed(options.seed),
            tokens: Tokens::default(),
            tables: BTreeMap::new(),
            choices: HashMap::new(),
            families: HashMap::new(),
            tiny: BTreeMap::new(),
            imports: BTreeMap::new(),
            transforms: Vec::new(),
            files: BTreeMap::new(),
            next_seq: 0,
            records: 0,
            options,
        };
        for plan in schema::tables(&instance.options.tables) {
            instance.tables.insert(plan.name.clone(), Table::new(plan));
        }
        for name in instance.tables.keys() {
            let mine = instance.tables.keys().filter(|t| instance.is_a(t, name)).cloned().collect();
            instance.families.insert(name.clone(), mine);
        }
        instance.seed();
        instance
    }

    fn seed(&mut self) {
        for (table, element, value, label) in schema::choices() {
            let row = [("name", table), ("element", element), ("value", value), ("label", label)];
            self.seed_row("sys_choice", &row);
        }
        let user = self.options.user.clone();
        self.seed_row(
            "sys_user",
            &[("user_name", &user), ("name", "Integration User"), ("time_zone", "GMT")],
        );
        let abel = [
            ("user_name", "abel.tuter"),
            ("name", "Abel Tuter"),
            ("first_name", "Abel"),
            ("last_name", "Tuter"),
            ("email", "abel.tuter@example.com"),
        ];
        self.seed_row("sys_user", &abel);
        for group in ["OT SOC", "Network", "Service Destination", "Hardware"] {
            self.seed_row("sys_user_group", &[("name", group)]);
        }
        self.seed_row("core_company", &[("name", "Siemens"), ("manufacturer", "true"), ("vendor", "true")]);
        let mut properties: BTreeMap<String, String> = [
            ("glide.oauth.inbound.client.credential.grant_type.enabled", "true"),
            ("glide.oauth.inbound.ropc.grant_type.disabled", "false"),
            ("glide.authenticate.basic_auth.restriction.enforce", "false"),
            ("glide.invalid_query.returns_no_rows", "false"),
            ("glide.buildname", "Australia"),
            ("instance_name", "simulator"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
        properties.extend(self.options.properties.iter().cloned());
        for (name, value) in &properties {
            self.seed_row("sys_properties", &[("name", name), ("value", value)]);
        }
        self.refresh_choices();
        self.seed_dictionary();
    }

    /// The id of a delivered row depends only on what it is: a rehearsed config works again after a restart.
    pub(super) fn seed_row(&mut self, table: &str, fields: &[(&str, &str)]) -> String {
        let mut what = table.to_owned();
        for (_, value) in fields.iter().take(3) {
            what.push('\n');
            what.push_str(value);
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, what.as_bytes());
        let sys_id = crate::model::alert::hex(&digest.as_ref()[..16]);
        let now = self.clock.now();
        let Some(target) = self.tables.get(table) else { return sys_id };
        let mut row = Row::default();
        let system =
            [("sys_id", sys_id.as_str()), ("sys_created_by", "system"), ("sys_updated_by", "system")];
        stamp(target, &mut row, now);
        for (field, value) in system.iter().chain(fields) {
            target.set(&mut row, field, value);
        }
        self.push(table, row);
        sys_id
    }

    /// Puts a record in as if somebody else had made it, with any field of it; `None`: there is no such table, or no room.
    pub(super) fn plant(&mut self, table: &str, fields: &[(&str, &str)]) -> Option<String> {
        if !self.has_room() {
            return None;
        }
        let number = self.tables.get_mut(table)?.take_number().unwrap_or_default();
        let by = [("number", number.as_str()), ("sys_created_by", STRANGER), ("sys_updated_by", STRANGER)];
        let fields: Vec<(&str, &str)> = by.iter().chain(fields).copied().collect();
        let digest = self.seed_row(table, &fields);
        let asked = fields.iter().rev().find(|(name, _)| *name == "sys_id");
        Some(asked.map_or(digest, |(_, sys_id)| (*sys_id).to_owned()))
    }

    /// Adds a row; its place in the order of insertion comes back.
    pub(super) fn push(&mut self, table: &str, row: Row) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Some(target) = self.tables.get_mut(table) {
            target.put(seq, row);
            self.records += 1;
        }
        seq
    }

    /// Removes a record; false when it is not there.
    pub(super) fn delete_record(&mut self, table: &str, sys_id: &str) -> bool {
        let Some((name, seq)) = self.find(table, sys_id).map(|(table, seq, _)| (table.name.clone(), seq))
        else {
            return false;
        };
        self.drop_row(&name, seq);
        true
    }

    /// Removes every ticket and every journal entry, as a clone of another instance does.
    pub(super) fn lose_tickets(&mut self) {
        let mut gone: Vec<(String, u64)> = Vec::new();
        let journal = self.tables.get("sys_journal_field").into_iter();
        for table in self.family("task").chain(journal) {
            gone.extend(table.rows().map(|(seq, _)| (table.name.clone(), seq)));
        }
        for (table, seq) in gone {
            self.drop_row(&table, seq);
        }
    }

    pub(super) fn drop_row(&mut self, table: &str, seq: u64) {
        if self.tables.get_mut(table).and_then(|t| t.remove(seq)).is_some() {
            self.records -= 1;
        }
        if table == "sys_choice" {
            self.refresh_choices();
        }
    }

    /// Whether another record fits.
    pub(super) fn has_room(&self) -> bool {
        self.records < self.options.max_records
    }

    pub(super) fn new_id(&mut self) -> String {
        format!("{:032x}", self.rng.u128(..))
    }

    /// The table, unless it does not exist or is hidden from the caller.
    pub(super) fn table(&self, name: &str, tweaks: &Tweaks) -> Result<&Table, Answer> {
        let table = self.tables.get(name).ok_or_else(|| Answer::no_table(name))?;
        if tweaks.hidden.iter().any(|h| h == name) {
            let detail = format!("User is unauthorized to access table: {name}");
            return Err(Answer::error(403, "User Not Authorized", Some(&detail)));
        }
        Ok(table)
    }

    /// The table and all that extend it.
    pub(super) fn family<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Table> + use<'a> {
        let names = self.families.get(name).map_or(&[] as &[String], Vec::as_slice);
        names.iter().filter_map(|n| self.tables.get(n))
    }

    /// Whether `table` is `class` or extends it.
    pub(super) fn is_a(&self, table: &str, class: &str) -> bool {
        let mut at = table;
        for _ in 0..10 {
            if at == class {
                return true;
            }
            match self.tables.get(at) {
                Some(t) if !t.parent.is_empty() => at = &t.parent,
                _ => return false,
            }
        }
        false
    }

    /// A record of the table or of one that extends it.
    pub(super) fn find(&self, table: &str, sys_id: &str) -> Option<(&Table, u64, &Row)> {
        self.family(table).find_map(|t| {
            let seq = *t.with_key("sys_id", &[sys_id])?.first()?;
            Some((t, seq, t.row(seq)?))
        })
    }

    /// What a reference to the record shows.
    pub(super) fn display<'a>(&'a self, table: &str, sys_id: &str) -> Option<&'a str> {
        let (table, _, row) = self.find(table, sys_id)?;
        let shown = ["name", "number", "user_name", "label"].iter().map(|f| table.value(row, f));
        Some(shown.into_iter().find(|v| !v.is_empty()).unwrap_or_default())
    }

    /// The `sys_id` of the record with that display value or user name.
    pub(super) fn resolve(&self, table: &str, shown: &str) -> Option<String> {
        self.family(table).find_map(|t| {
            let (_, row) = t.rows().find(|(_, row)| {
                ["name", "number", "user_name"].iter().any(|f| t.value(row, f).eq_ignore_ascii_case(shown))
            })?;
            Some(t.value(row, "sys_id").to_owned())
        })
    }

    /// The choices of a field; none means that any value is fine.
    pub(super) fn choices(&self, table: &str, element: &str) -> &[(String, String)] {
        self.choices.get(&(table.to_owned(), element.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Reads `sys_choice` again.
    pub(super) fn refresh_choices(&mut self) {
        self.choices.clear();
        let Some(table) = self.tables.get("sys_choice") else { return };
        for (_, row) in table.rows().filter(|(_, row)| table.value(row, "inactive") != "true") {
            let get = |field| table.value(row, field).to_owned();
            self.choices.entry((get("name"), get("element"))).or_default().push((get("value"), get("label")));
        }
    }

    pub(super) fn property(&self, name: &str) -> Option<&str> {
        let table = self.tables.get("sys_properties")?;
        let (_, row) = table.rows().find(|(_, row)| table.value(row, "name") == name)?;
        Some(table.value(row, "value"))
    }

    /// Whether the table has a field, dot-walked through references.
    pub(super) fn knows(&self, table: &str, path: &str) -> bool {
        let Some(own) = self.tables.get(table) else { return false };
        match path.split_once('.') {
            None => own.schema.field(path).is_some(),
            Some((first, rest)) => match own.schema.field(first).map(|f| &f.kind) {
                Some(Kind::Reference(target)) => self.knows(target, rest),
                _ => false,
            },
        }
    }

    /// A field's value, dot-walked through references.
    pub(super) fn walk<'a>(&'a self, table: &'a Table, row: &'a Row, path: &str) -> &'a str {
        let Some((first, rest)) = path.split_once('.') else { return table.value(row, path) };
        let Some(Kind::Reference(target)) = table.schema.field(first).map(|f| &f.kind) else { return "" };
        match self.find(target, table.value(row, first)) {
            Some((table, _, row)) => self.walk(table, row, rest),
            None => "",
        }
    }

    /// All records of a table and of those that extend it, as tests see them.
    pub(super) fn records(&self, table: &str) -> Vec<Record> {
        self.family(table).flat_map(|t| t.rows().map(|(_, row)| t.record(row))).collect()
    }

    /// How many records each table has.
    pub(super) fn counts(&self) -> BTreeMap<String, usize> {
        self.tables.values().filter(|t| t.len() > 0).map(|t| (t.name.clone(), t.len())).into_map()
    }

    /// Every `correlation_id` that more than one record has, and how many.
    pub(super) fn twins(&self) -> BTreeMap<String, usize> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for table in self.tables.values() {
            for (key, rows) in table.index.get("correlation_id").into_iter().flatten() {
                *seen.entry(key.to_string()).or_default() += rows.len();
            }
        }
        seen.retain(|_, n| *n > 1);
        seen
    }

    /// The user of that name, if active.
    pub(super) fn user(&self, name: &str) -> Option<User> {
        let table = self.tables.get("sys_user")?;
        let seq = *table.with_key("user_name", &[name])?.first()?;
        let row = table.row(seq)?;
        let usable = table.value(row, "active") != "false" && table.value(row, "locked_out") != "true";
        usable.then(|| User { name: name.to_owned(), sys_id: table.value(row, "sys_id").to_owned() })
    }
}

/// Dates of a new row.
pub(super) fn stamp(table: &Table, row: &mut Row, now: Timestamp) {
    let now = now.servicenow();
    for field in ["sys_created_on", "sys_updated_on"] {
        table.set(row, field, &now);
    }
}

/// A row as a query sees it.
pub(super) struct Seen<'a> {
    pub(super) instance: &'a Instance,
    pub(super) table: &'a Table,
    pub(super) row: &'a Row,
}

impl Fields for Seen<'_> {
    fn value(&self, field: &str) -> Cow<'_, str> {
        Cow::Borrowed(self.instance.walk(self.table, self.row, field))
    }

    fn is_a(&self, class: &str) -> bool {
        self.instance.is_a(&self.table.name, class)
    }
}
