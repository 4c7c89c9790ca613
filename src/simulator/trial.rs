//! For this room's unit tests: an instance without sockets, on a clock that stands still.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, body::Bytes};
use serde_json::Value;

use super::Options;
use super::call::{Answer, Call};
use super::instance::{Instance, Tweaks};
use crate::clock::ManualClock;
use crate::model::Timestamp;

/// An instance and its clock.
pub(super) struct Trial {
    pub(super) instance: Instance,
    clock: Arc<ManualClock>,
    pub(super) tweaks: Tweaks,
}

/// 2026-11-21 08:15:00.
const START: i64 = 1_795_248_900;

impl Trial {
    /// As delivered.
    pub(super) fn new() -> Self {
        Self::with(Options::default())
    }

    /// With options; the clock is the trial's.
    pub(super) fn with(options: Options) -> Self {
        let clock = ManualClock::at(Timestamp::from_secs(START));
        let options = Options { clock: clock.clone(), ..options };
        let instance = Instance::new(options, "http://sim".to_owned());
        Self { instance, clock, tweaks: Tweaks::default() }
    }

    pub(super) fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(super) fn clock_secs(&self) -> i64 {
        self.instance.clock.now().as_secs()
    }

    /// Any call with those headers.
    pub(super) fn raw(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let call = Call::new(method, target, map, Bytes::copy_from_slice(body.as_bytes()));
        self.instance.answer(&call, &self.tweaks)
    }

    /// A JSON call as `admin` by basic authentication: status and body.
    pub(super) fn call(&mut self, method: &str, target: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.answer(method, target, &body);
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// The same, with everything of the answer.
    pub(super) fn answer(&mut self, method: &str, target: &str, body: &str) -> Answer {
        let login = format!("Basic {}", STANDARD.encode("admin:admin"));
        let json = "application/json";
        let headers = [("authorization", login.as_str()), ("accept", json), ("content-type", json)];
        self.raw(method, target, &headers, body)
    }

    /// Creates a record, which has to work: its `result`.
    pub(super) fn make(&mut self, table: &str, body: &Value) -> Value {
        let (status, mut answer) = self.call("POST", &format!("/api/now/table/{table}"), body);
        assert_eq!(status, 201, "{answer}");
        answer["result"].take()
    }

    /// Lists with an encoded query: values of one field.
    pub(super) fn list(&mut self, table: &str, query: &str, field: &str) -> Vec<String> {
        let query: String = url::form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let (status, answer) =
            self.call("GET", &format!("/api/now/table/{table}?sysparm_query={query}"), &Value::Null);
        assert_eq!(status, 200, "{answer}");
        let rows = answer["result"].as_array().unwrap();
        rows.iter().map(|row| row[field].as_str().unwrap().to_owned()).collect()
    }
}

pub(super) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
}
