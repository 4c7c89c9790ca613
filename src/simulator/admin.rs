//! The simulator's own addresses, outside the name space of an instance, for loopback callers only:
//!
//! - `GET /simulator/faults` the rules and how often each fired; `POST` adds the rules in the body, one a line;
//!   `DELETE` removes all.
//! - `GET /simulator/ledger[?last=N]` counters, records by table, correlation ids that more than one record has.
//! - `POST /simulator/records/TABLE` with a JSON object of fields: a record that somebody else made, as `mallory` unless
//!   it says who (`sys_created_by`); a decoy or a twin has one of our keys.
//! - `POST /simulator/clone` every ticket and journal entry is gone, as after a clone of another instance.
//! - `POST /simulator/reset` the instance as it was at the start: no records, no tokens, an empty ledger. Faults stay.
//!
//! - `GET /simulator` a page for people (`page.rs`).
//!
//! A request that a browser made for another site (it has `Origin`) is refused.

use std::collections::BTreeMap;
use std::str::FromStr;

use hyper::Method;
use serde_json::json;

use super::call::{Answer, Call};
use super::fault::Fault;
use super::page;
use super::serve::State;

const RECORDS: &str = "/simulator/records/";

pub(super) fn answer(state: &mut State, call: &Call, loopback: bool) -> Answer {
    if loopback && let Some(answer) = page::answer(state, call) {
        return answer;
    }
    if !loopback || call.header("origin").is_some() {
        return Answer::error(403, "Forbidden", Some("/simulator answers callers on this machine only"));
    }
    match (&call.method, call.path.as_str()) {
        (&Method::GET, "/simulator/faults") => faults(state),
        (&Method::POST, "/simulator/faults") => {
            let text = String::from_utf8_lossy(&call.body);
            let lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
            match lines.map(Fault::from_str).collect::<Result<Vec<_>, _>>() {
                Ok(list) => {
                    for fault in list {
                        state.faults.add(fault);
                    }
                    faults(state)
                }
                Err(e) => Answer::error(400, "Not a fault", Some(&e.to_string())),
            }
        }
        (&Method::DELETE, "/simulator/faults") => {
            state.faults.rules.clear();
            faults(state)
        }
        (&Method::GET, "/simulator/ledger") => {
            let mut book = state.ledger.show(call.params.number("last", 100));
            book["records"] = json!(state.instance.counts());
            book["twins"] = json!(state.instance.twins());
            book["tokens"] = json!(state.instance.tokens.count());
            Answer::json(200, &book)
        }
        (&Method::POST, path) if path.starts_with(RECORDS) => {
            plant(state, &path[RECORDS.len()..], &call.body)
        }
        (&Method::POST, "/simulator/clone") => {
            state.instance.lose_tickets();
            Answer::json(200, &json!({"cloned": true}))
        }
        (&Method::POST, "/simulator/reset") => {
            state.reset();
            Answer::json(200, &json!({"reset": true}))
        }
        _ => Answer::no_path(),
    }
}

fn plant(state: &mut State, table: &str, body: &[u8]) -> Answer {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, String>>(body) else {
        return Answer::error(400, "Not a record", Some("expected a JSON object of field to text"));
    };
    let fields: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    match state.instance.plant(table, &fields) {
        Some(sys_id) => Answer::json(200, &json!({"sys_id": sys_id})),
        None => Answer::no_table(table),
    }
}

fn faults(state: &State) -> Answer {
    let rules = state
        .faults
        .rules
        .iter()
        .map(|r| json!({"fault": r.fault.to_string(), "matched": r.seen, "fired": r.fired}));
    Answer::json(200, &json!({"faults": rules.collect::<Vec<_>>()}))
}
