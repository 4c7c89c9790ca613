//! One request and one answer, free of sockets: what the listener hands to the instance, and what comes back. A batch
//! item is the same kind of call. Error envelopes of the instance are made here, so that each text stands once.

use hyper::body::Bytes;
use hyper::{HeaderMap, Method};
use serde_json::{Value, json};

/// A request, complete and bounded.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) params: Params,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Whether the connection showed a client certificate that was in order.
    pub(super) certified: bool,
}

impl Call {
    /// A call from its parts; `X-http-method-override` on a POST has taken effect.
    pub(super) fn new(method: Method, target: &str, headers: HeaderMap, body: Bytes) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut call = Self {
            method,
            path: path.to_owned(),
            params: Params::parse(query),
            headers,
            body,
            certified: false,
        };
        if call.method == Method::POST
            && let Some(other) = call.header("x-http-method-override")
            && let Ok(other) = Method::from_bytes(other.trim().to_ascii_uppercase().as_bytes())
        {
            call.method = other;
        }
        call
    }

    /// A header that is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The media type of the body, without parameters, lower case.
    pub(super) fn content_type(&self) -> Option<String> {
        let text = self.header("content-type")?;
        Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// What is posted; a refusal of any other verb.
    pub(super) fn posted(&self) -> Result<serde_json::Map<String, Value>, Answer> {
        if self.method == Method::POST { self.object() } else { Err(Answer::no_verb(&self.method)) }
    }

    /// The body as a JSON object; of an array only the first element counts, as on an instance.
    pub(super) fn object(&self) -> Result<serde_json::Map<String, Value>, Answer> {
        let bad =
            || Answer::error(400, "Exception while reading request", Some("The payload is not valid JSON."));
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(serde_json::Map::new());
        }
        let value = serde_json::from_slice(&self.body).map_err(|_| bad())?;
        let first = match value {
            Value::Array(list) => list.into_iter().next().unwrap_or_else(|| json!({})),
            other => other,
        };
        match first {
            Value::Object(map) => Ok(map),
            _ => Err(bad()),
        }
    }
}

/// Decoded query or form parameters, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Decodes `a=b&c=d`.
    pub(super) fn parse(raw: &str) -> Self {
        Self(url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether it says true, in any case: pysnow sends Python's `True`.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.eq_ignore_ascii_case("true"))
    }

    /// A number that is not negative, or the default.
    pub(super) fn number(&self, name: &str, default: usize) -> usize {
        self.get(name).and_then(|v| v.trim().parse().ok()).unwrap_or(default)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) table: String,
    pub(super) sys_id: String,
}

/// An answer. `body` is empty for 204 and HEAD.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) made: Vec<Made>,
}

const JSON: &str = "application/json;charset=UTF-8";

impl Answer {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        let mut answer = Self::empty(status);
        answer.headers.push(("content-type", JSON.to_owned()));
        answer.body = body.to_string().into_bytes();
        answer
    }

    /// `{"result": …}`.
    pub(super) fn result(status: u16, result: &Value) -> Self {
        Self::json(status, &json!({ "result": result }))
    }

    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), made: Vec::new() }
    }

    pub(super) fn html(status: u16, body: &str) -> Self {
        let mut answer = Self::empty(status);
        answer.headers.push(("content-type", "text/html;charset=UTF-8".to_owned()));
        answer.body = body.as_bytes().to_vec();
        answer
    }

    /// The envelope of every refusal of the REST APIs.
    pub(super) fn error(status: u16, message: &str, detail: Option<&str>) -> Self {
        Self::json(status, &json!({"error": {"message": message, "detail": detail}, "status": "failure"}))
    }

    /// The answer to missing or wrong credentials.
    pub(super) fn unauthenticated() -> Self {
        let mut answer =
            Self::error(401, "User Not Authenticated", Some("Required to provide Auth information"));
        answer.headers.push(("www-authenticate", "BASIC realm=\"Service-now\"".to_owned()));
        answer
    }

    pub(super) fn no_table(table: &str) -> Self {
        Self::error(400, &format!("Invalid table {table}"), None)
    }

    /// The answer to a record that does not exist or is hidden.
    pub(super) fn no_record() -> Self {
        Self::error(
            404,
            "No Record found",
            Some("Record doesn't exist or ACL restricts the record retrieval"),
        )
    }

    /// The answer to a path that leads nowhere.
    pub(super) fn no_path() -> Self {
        Self::error(400, "Requested URI does not represent any resource", None)
    }

    /// The answer to a verb that the path does not know.
    pub(super) fn no_verb(method: &Method) -> Self {
        Self::error(405, "Method not Supported", Some(&format!("{method} is not supported here")))
    }

    pub(super) fn refused(detail: &str) -> Self {
        Self::error(403, "Operation Failed", Some(detail))
    }

    /// A data policy that wants these fields filled.
    pub(super) fn mandatory(missing: &[impl AsRef<str>]) -> Result<(), Self> {
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        Err(Self::refused(&format!("Data Policy Exception: The following fields are mandatory: {list}")))
    }

    /// The answer after the instance ran out of time.
    pub(super) fn cancelled() -> Self {
        Self::error(
            500,
            "Transaction cancelled: maximum execution time exceeded",
            Some("Transaction cancelled: maximum execution time exceeded Check logs for error trace."),
        )
    }

    /// The same answer with one more header.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
