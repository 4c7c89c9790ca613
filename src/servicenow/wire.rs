//! ServiceNow's shapes, as they are on the wire. Every member is optional and of any type: what is absent or odd is
//! decided by the caller, not by the parser.

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    #[serde(default)]
    pub(super) access_token: Option<String>,
    #[serde(default)]
    pub(super) refresh_token: Option<String>,
    /// Seconds; a number, in some answers a string.
    #[serde(default)]
    pub(super) expires_in: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<Value>,
}

impl TokenAnswer {
    /// Lifetime in seconds, if it is stated in a way that can be read.
    pub(super) fn expires_in_secs(&self) -> Option<u64> {
        match self.expires_in.as_ref()? {
            Value::Number(n) => n.as_u64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

/// `{"error":{"message":"…","detail":"…"},"status":"failure"}`: what the instance says when it refuses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) message: String,
    pub(super) detail: String,
}

impl Words {
    /// Out of the value of the member `error`: an object, or a bare string as the token endpoint writes it.
    pub(super) fn of(error: &Value) -> Self {
        match error {
            Value::Object(members) => {
                let text = |name: &str| members.get(name).map(text_of).unwrap_or_default();
                Self { message: text("message"), detail: text("detail") }
            }
            other => Self { message: text_of(other), detail: String::new() },
        }
    }
}

/// A field's value as text: plain, `{"link","value"}`, `{"display_value","value"}`, a number where someone's script
/// returns one. Absent and null are empty, as `""` is.
pub(super) fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(n) => n.to_string(),
        Value::Bool(b) => b.to_string(),
        Value::Object(members) => {
            members.get("value").or_else(|| members.get("display_value")).map(text_of).unwrap_or_default()
        }
        Value::Null | Value::Array(_) => String::new(),
    }
}

/// A field of a record as text; empty when absent.
pub(super) fn field(record: &Value, name: &str) -> String {
    record.get(name).map(text_of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_every_shape_are_text() {
        let check = |value: Value, expected: &str| assert_eq!(text_of(&value), expected, "{value}");
        check(json!("4"), "4");
        check(json!(4), "4");
        check(json!(true), "true");
        check(json!(null), "");
        check(json!({"link": "https://x/api", "value": "abc"}), "abc");
        check(json!({"display_value": "4 - Low", "value": "4"}), "4");
        check(json!({"display_value": "Abel Tuter", "link": "https://x"}), "Abel Tuter");
        check(json!({"value": {"value": {"value": null}}}), "");
        check(json!(["x"]), "");
    }

    #[test]
    fn lifetimes_are_read_from_numbers_and_strings() {
        let check = |text: &str, expected: Option<u64>| {
            let answer: TokenAnswer = serde_json::from_str(text).unwrap();
            assert_eq!(answer.expires_in_secs(), expected, "{text}");
        };
        check(r#"{"expires_in":1799}"#, Some(1799));
        check(r#"{"expires_in":"1799"}"#, Some(1799));
        check(r#"{"expires_in":-1}"#, None);
        check(r#"{"expires_in":[1]}"#, None);
        check("{}", None);
    }
}
