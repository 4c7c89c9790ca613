//! What the token endpoint answers. Nothing of it is ever quoted: a block page there may repeat the form, secrets and
//! all. Of an error only codes that are known are named.

use serde_json::Value;

use super::super::classify::{self, Body};
use super::super::tree;
use super::super::wire::TokenAnswer;
use crate::destination::SendError;
use crate::model::{Class, HoldScope, Timestamp};
use crate::net::{Answer, TransportError};

/// The codes that may be named: RFC 6749, and the two of an instance.
const CODES: [&str; 9] = [
    "server_error",
    "access_denied",
    "invalid_grant",
    "invalid_client",
    "invalid_request",
    "invalid_scope",
    "unauthorized_client",
    "unsupported_grant_type",
    "temporarily_unavailable",
];

pub(super) const ODD: &str = "oauth_token.do of an instance answers with JSON and an access_token: check `instance`; a hibernating \
    instance, a log-in page or a proxy answers like this";

/// Whose endpoint it is, and what a refusal of the grant can mean.
pub(super) struct Endpoint<'a> {
    /// `https://acme.service-now.com`.
    pub(super) place: &'a str,
    pub(super) causes: &'static str,
}

impl Endpoint<'_> {
    pub(super) fn read(&self, answer: &Answer, now: Timestamp) -> Result<TokenAnswer, SendError> {
        let status = answer.status;
        let parsed = body(answer);
        if let Body::Page { hibernating, .. } = &parsed
            && !(500..=599).contains(&status)
        {
            let (cause, remedy) = classify::page_words(status, "", *hibernating);
            return Err(self.hold(status, &cause, remedy));
        }
        match (status, parsed) {
            (200 | 201, Body::Json(value)) => match serde_json::from_value::<TokenAnswer>(value) {
                Ok(token) if token.error.is_none() => Ok(token),
                Ok(_) => Err(self.hold(status, "it answered with an error in place of a token", self.causes)),
                Err(_) => Err(self.hold(status, "its answer is not that of a token endpoint", ODD)),
            },
            (200 | 201, Body::Damaged) => Err(self.retry(status, "its answer is cut or damaged")),
            (429, _) => {
                let wait = classify::wait(answer, now);
                let remedy = "the instance limits its token endpoint too; waits as long as it said";
                let cause = "it refuses more requests for now (429)";
                Err(SendError { wait, ..self.error(Class::RetryAt, Some(status), cause, remedy) })
            }
            (202 | 408 | 500..=599, _) => Err(self.retry(status, &format!("it answered {status}"))),
            (300..=399, _) => Err(self.hold(
                status,
                &format!("it answered {status} and sends us on to another page; redirects are not followed"),
                "put the address of the instance itself into `instance`",
            )),
            (400 | 401 | 403, parsed) => {
                let code = codes(&parsed).map(|c| format!(" ({c})")).unwrap_or_default();
                Err(self.hold(status, &format!("it refused (status {status}{code})"), self.causes))
            }
            (_, Body::Json(_)) => Err(self.hold(status, &format!("it answered {status}"), self.causes)),
            _ => Err(self.hold(status, &format!("it answered {status} without a token"), ODD)),
        }
    }

    pub(super) fn no_answer(&self, error: &TransportError) -> SendError {
        self.error(classify::transport_class(error), None, &error.to_string(), &error.remedy())
    }

    pub(super) fn hold(&self, status: impl Into<Option<u16>>, cause: &str, remedy: &str) -> SendError {
        self.error(Class::Hold, status.into(), cause, remedy)
    }

    fn retry(&self, status: u16, cause: &str) -> SendError {
        self.error(Class::Retry, Some(status), cause, "")
    }

    /// Never doubtful: without a token the call itself was not made.
    fn error(&self, class: Class, status: Option<u16>, cause: &str, remedy: &str) -> SendError {
        let message = format!("could not get a token from {}: {cause}", self.place);
        SendError { status, ..SendError::new(class, HoldScope::Destination, message, remedy) }
    }
}

/// Some gateways hand the endpoint's JSON on as `text/plain`; it is taken for what it is.
fn body(answer: &Answer) -> Body {
    let plain = answer.content_type.as_deref().is_none_or(|t| t.starts_with("text/plain"));
    if plain && answer.body.trim_ascii_start().starts_with(b"{") {
        return tree::parse(&answer.body).map_or(Body::Damaged, Body::Json);
    }
    classify::body(answer)
}

fn codes(parsed: &Body) -> Option<String> {
    let Body::Json(value) = parsed else { return None };
    let code =
        |name: &str| CODES.into_iter().find(|code| value.get(name).and_then(Value::as_str) == Some(code));
    let found: Vec<&str> = [code("error"), code("error_description")].into_iter().flatten().collect();
    (!found.is_empty()).then(|| found.join(", "))
}
