//! The book of requests: what tests judge by. The last requests one by one, all of them in counters. No body, no
//! token and no password is written down.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use serde_json::{Value, json};

use super::call::Made;
use crate::model::Timestamp;

/// Most requests that are kept one by one.
pub const MAX_ENTRIES: usize = 10_000;

/// Parameters whose value is not written down.
const SECRETS: &[&str] = &["x-sn-apikey", "token", "password", "client_secret", "refresh_token", "assertion"];

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When its head and body were there.
    pub at: Timestamp,
    /// `POST`.
    pub method: String,
    /// `/api/now/table/incident`.
    pub path: String,
    /// What followed the question mark; secrets are `***`.
    pub query: String,
    /// The status that was sent; none: the connection was cut without one, or inside the answer.
    pub status: Option<u16>,
    /// The fault that ended it, in the notation of [`super::Fault`].
    pub fault: Option<String>,
    /// Records that it made, as `table/sys_id`: they are there, whatever the status says.
    pub created: Vec<String>,
    /// Whether it carried a cookie: a good client does not.
    pub cookie: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: VecDeque<Entry>,
    requests: u64,
    cut: u64,
    created: u64,
    by_method: BTreeMap<String, u64>,
    by_table: BTreeMap<String, BTreeMap<String, u64>>,
    by_status: BTreeMap<u16, u64>,
}

impl Ledger {
    pub(super) fn write(&mut self, mut entry: Entry, made: &[Made]) {
        entry.created = made.iter().map(|m| format!("{}/{}", m.table, m.sys_id)).collect();
        self.requests += 1;
        self.created += made.len() as u64;
        *self.by_method.entry(entry.method.clone()).or_default() += 1;
        match entry.status {
            Some(status) => *self.by_status.entry(status).or_default() += 1,
            None => self.cut += 1,
        }
        if let Some(table) = table_of(&entry.path)
            && (self.by_table.len() < 1000 || self.by_table.contains_key(table))
        {
            let methods = self.by_table.entry(table.to_owned()).or_default();
            *methods.entry(entry.method.clone()).or_default() += 1;
        }
        if self.entries.len() >= MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// The last requests, oldest first.
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }

    pub(super) fn show(&self, last: usize) -> Value {
        let skip = self.entries.len().saturating_sub(last);
        json!({
            "requests": self.requests,
            "cut": self.cut,
            "created": self.created,
            "by_method": self.by_method,
            "by_table": self.by_table,
            "by_status": self.by_status,
            "entries": self.entries.iter().skip(skip).collect::<Vec<_>>(),
        })
    }
}

/// The table that a path of the Table API is about.
fn table_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/api/now/")?;
    let rest = rest.strip_prefix("v1/").or_else(|| rest.strip_prefix("v2/")).unwrap_or(rest);
    rest.strip_prefix("table/")?.split('/').next().filter(|t| !t.is_empty() && t.len() <= 80)
}

/// A query string without the values of secrets, of a bounded length.
pub(super) fn redact(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if SECRETS.contains(&name.to_ascii_lowercase().as_str()) => format!("{name}=***"),
        _ => pair.to_owned(),
    });
    let text = pairs.collect::<Vec<_>>().join("&");
    crate::model::text::clip(&text, 4000).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, status: Option<u16>) -> Entry {
        Entry {
            at: Timestamp::EPOCH,
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            status,
            fault: None,
            created: Vec::new(),
            cookie: false,
        }
    }

    #[test]
    fn counters_go_on_where_entries_end() {
        let mut ledger = Ledger::default();
        for number in 0..MAX_ENTRIES + 5 {
            let made = [Made { table: "incident".to_owned(), sys_id: number.to_string() }];
            ledger.write(entry("/api/now/v2/table/incident/1", (number % 2 == 0).then_some(201)), &made);
        }
        assert_eq!(ledger.entries().len(), MAX_ENTRIES);
        assert_eq!(ledger.entries()[0].created, ["incident/5"]);
        let book = ledger.show(1);
        assert_eq!(book["requests"], json!(MAX_ENTRIES + 5));
        assert_eq!(book["by_table"]["incident"]["POST"], json!(MAX_ENTRIES + 5));
        assert_eq!((&book["cut"], &book["by_status"]["201"]), (&json!(5002), &json!(5003)));
        assert_eq!(book["entries"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn secrets_are_not_written_down() {
        let text = redact("a=1&X-SN-APIKEY=canary&token=canary&sysparm_query=x^y");
        assert_eq!(text, "a=1&X-SN-APIKEY=***&token=***&sysparm_query=x^y");
    }
}
