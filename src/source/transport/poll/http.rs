//! One question to an HTTP API with a token, its answer in records as they arrive, and what is wrong in words.
//!
//! Nothing is held but one record. Words of the other side are quoted only from its own error field, short, and not at
//! all where they hold our token in any form it could come back in.

use std::borrow::Cow;
use std::time::Duration;

use url::Url;

use super::{Trouble, Why};
use crate::model::Secret;
use crate::model::scrub::Scrubber;
use crate::model::text::{clip, one_line};
use crate::net::{
    self, Deadlines, HttpClient, Incoming, Method, ProxySettings, Request, TlsSettings, TransportError,
};
use crate::source::format::defender::split::{Broken, Piece, Splitter};

/// How long until the head of an answer, and how long between two pieces of it.
const QUIET: Duration = Duration::from_secs(60);
/// How long a whole answer may take.
const WHOLE: Duration = Duration::from_mins(10);
/// Longest answer, in bytes. It is read in pieces: this bounds time, not memory.
const ANSWER_MAX: usize = 512 * 1024 * 1024;
/// How much is given at once: what arrives may be more than a batch should hold.
const PART: usize = 32 * 1024;
/// How much of an error's body is looked at, in bytes.
const ERROR_MAX: usize = 4 * 1024;
/// Longest words of the other side that are quoted, in bytes.
const WORDS_MAX: usize = 160;

/// Where to ask, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://host`, perhaps with a path that goes before every other.
    pub url: Url,
    /// Goes into the header `Authorization`, as it is.
    pub token: Secret,
    /// What is trusted.
    pub tls: TlsSettings,
    /// A proxy to ask through.
    pub proxy: Option<ProxySettings>,
}

/// Asks one API.
#[derive(Debug)]
pub struct Caller {
    settings: Settings,
    client: HttpClient,
    /// Takes our secrets out of what the other side, or a proxy, says.
    scrubber: Scrubber,
}

impl Caller {
    /// Reads the trust files.
    ///
    /// # Errors
    /// They cannot be read, or the proxy's address is none.
    pub fn new(settings: &Settings) -> Result<Self, Trouble> {
        let deadlines = Deadlines { whole: WHOLE, ..Deadlines::default() };
        let client = net::client_with(&settings.tls, settings.proxy.as_ref(), deadlines)
            .map_err(|error| trouble(error.to_string(), "", Why::Other))?;
        let login = settings.proxy.as_ref().and_then(|proxy| proxy.login.as_ref());
        let secrets = [Some(&settings.token), login.map(|(_, password)| password)];
        let scrubber = Scrubber::new(secrets.into_iter().flatten().map(Secret::expose));
        Ok(Self { settings: settings.clone(), client, scrubber })
    }

    /// Asks for what stands at a path. The answer is a page of records.
    ///
    /// # Errors
    /// No answer, or one that says no.
    pub async fn ask(&self, path: &str, query: &[(&str, String)]) -> Result<Page<'_>, Trouble> {
        let request = Request {
            method: Method::Get,
            url: self.address(path, query),
            headers: self.headers(),
            body: None,
            answer_max: ANSWER_MAX,
        };
        let incoming = in_time(self.client.open(request)).await?.map_err(|error| self.unanswered(&error))?;
        if incoming.status != 200 {
            return Err(self.refusal(path, incoming).await);
        }
        if let Some(encoding) = incoming.header("content-encoding").filter(|name| *name != "identity") {
            let encoding = clip(&one_line(encoding), 40).into_owned();
            let text = format!("{path}: the answer is packed ({encoding}), which nobody asked for");
            return Err(trouble(
                text,
                "have whatever stands in between leave answers as they are",
                Why::Other,
            ));
        }
        if incoming.content_type.as_deref() == Some("text/html") {
            return Err(no_json(path));
        }
        Ok(Page {
            caller: self,
            incoming,
            splitter: Splitter::new(),
            path: path.to_owned(),
            arrived: Vec::new(),
            at: 0,
        })
    }

    /// Sets what stands at a path; the status of the answer.
    ///
    /// # Errors
    /// No answer.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> Result<(), Trouble> {
        let mut headers = self.headers();
        headers.push(("content-type", "application/json".to_owned()));
        let request = Request {
            method: Method::Put,
            url: self.address(path, &[]),
            headers,
            body: Some(body),
            answer_max: ANSWER_MAX,
        };
        let incoming = in_time(self.client.open(request)).await?.map_err(|error| self.unanswered(&error))?;
        if incoming.status == 200 { Ok(()) } else { Err(self.refusal(path, incoming).await) }
    }

    fn address(&self, path: &str, query: &[(&str, String)]) -> Url {
        let mut url = self.settings.url.clone();
        let before = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{before}{path}"));
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        vec![
            ("authorization", self.settings.token.expose().to_owned()),
            ("accept", "application/json".to_owned()),
        ]
    }

    async fn refusal(&self, path: &str, mut incoming: Incoming<'_>) -> Trouble {
        let mut body = Vec::new();
        while body.len() < ERROR_MAX
            && let Ok(Ok(Some(chunk))) = in_time(incoming.chunk()).await
        {
            body.extend_from_slice(&chunk);
        }
        let retry_after = incoming.header("retry-after").and_then(|value| value.trim().parse().ok());
        let mut trouble = refused(path, incoming.status, &self.quoted(&body));
        trouble.retry_after = retry_after.map(Duration::from_secs);
        trouble
    }

    fn unanswered(&self, error: &TransportError) -> Trouble {
        let trouble = unanswered(error);
        Trouble { text: self.scrubber.text(&trouble.text).into_owned(), ..trouble }
    }

    /// The words of an error's body, if it has any for people.
    fn quoted(&self, body: &[u8]) -> String {
        let error = serde_json::from_slice::<Refusal>(&body[..body.len().min(ERROR_MAX)]);
        error.ok().and_then(|refusal| refusal.error).map_or_else(String::new, |words| self.said(&words))
    }

    /// What is quoted of the other side's words.
    fn said(&self, words: &str) -> String {
        // Who quotes us has nothing to say to people.
        if words.trim().is_empty() || matches!(self.scrubber.text(words), Cow::Owned(_)) {
            return String::new();
        }
        format!(": {}", clip(one_line(words).trim(), WORDS_MAX))
    }
}

/// `{"error": "…"}`.
#[derive(serde::Deserialize)]
struct Refusal {
    error: Option<String>,
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Trouble> {
    tokio::time::timeout(QUIET, work).await.map_err(|_| {
        let text = format!("no answer within {} s", QUIET.as_secs());
        trouble(text, "", Why::TooMuch)
    })
}

/// An answer that is arriving.
#[derive(Debug)]
pub struct Page<'c> {
    caller: &'c Caller,
    incoming: Incoming<'c>,
    splitter: Splitter,
    path: String,
    /// What has arrived, and how much of it was given.
    arrived: Vec<u8>,
    at: usize,
}

impl Page<'_> {
    /// Reads on and gives some of the parts that have arrived; false at the end of a complete page.
    ///
    /// # Errors
    /// The answer broke off, or is no page of records.
    pub async fn read(&mut self, take: impl FnMut(Piece<'_>)) -> Result<bool, Trouble> {
        if self.at == self.arrived.len() {
            let chunk = in_time(self.incoming.chunk()).await?.map_err(|error| unanswered(&error))?;
            let Some(chunk) = chunk else {
                return self.splitter.finish().map(|()| false).map_err(|broken| self.broken(broken));
            };
            (self.arrived, self.at) = (chunk, 0);
        }
        let end = self.arrived.len().min(self.at + PART);
        let fed = self.splitter.feed(&self.arrived[self.at..end], take);
        self.at = end;
        fed.map(|()| true).map_err(|broken| self.broken(broken))
    }

    /// When the other side made the answer, by its own clock.
    pub fn date(&self) -> Option<crate::model::Timestamp> {
        let zoned = jiff::fmt::rfc2822::parse(self.incoming.header("date")?).ok()?;
        Some(crate::model::Timestamp::from_micros(zoned.timestamp().as_microsecond()))
    }

    fn broken(&self, broken: Broken) -> Trouble {
        match broken {
            Broken::NotJson => no_json(&self.path),
            Broken::CutShort => trouble(format!("{}: {broken}", self.path), "", Why::TooMuch),
            Broken::NoList => {
                let said = self.caller.said(&self.splitter.error());
                let remedy = "look whether sensor or console are well and licensed, and whether the token is still valid";
                trouble(format!("{}: the answer has no list in it{said}", self.path), remedy, Why::Other)
            }
            Broken::Trailing => trouble(format!("{}: {broken}", self.path), "", Why::Other),
        }
    }
}

fn trouble(text: String, remedy: &str, why: Why) -> Trouble {
    Trouble { text, remedy: remedy.to_owned(), why, retry_after: None }
}

fn no_json(path: &str) -> Trouble {
    trouble(
        format!("{path}: the answer is a web page or something else, and no JSON"),
        "check that `url` leads to the sensor or console itself, and not to a proxy, a portal or a log-in page",
        Why::Other,
    )
}

fn unanswered(error: &TransportError) -> Trouble {
    let why = match error {
        TransportError::Timeout { .. } | TransportError::TooLarge { .. } => Why::TooMuch,
        TransportError::Cut { .. } => Why::Other,
        _ => Why::Away,
    };
    trouble(error.to_string(), &error.remedy(), why)
}

/// What a status other than 200 means. `words` begin with `: ` or are empty.
fn refused(path: &str, status: u16, words: &str) -> Trouble {
    const TOKEN: &str =
        "make a new one there (System settings > Integrations > Access tokens) and put it into `token`";
    let text = |what: &str| format!("{path}: {what} ({status}){words}");
    let (what, remedy, why) = match status {
        401 => ("the token is refused", TOKEN, Why::Away),
        // Perhaps for this address only.
        403 => ("the token is refused", TOKEN, Why::Other),
        300..=399 => (
            "it sends us to another address",
            "check that `url` leads to the sensor or console itself, and not to a log-in page; redirections are not \
             followed, so that the token goes nowhere else",
            Why::Other,
        ),
        404 | 405 | 501 => (
            "there is no such address",
            "check `kind`: a sensor is \"defender-sensor\", a management console \"defender-console\"",
            Why::Absent,
        ),
        407 => ("the proxy asks for a login", "check `proxy.username` and `proxy.password`", Why::Away),
        413 | 500 | 504 => ("it failed", "", Why::TooMuch),
        429 => ("it asks us to wait", "", Why::Away),
        502 | 503 => ("it is not available", "", Why::Other),
        _ => ("it does not do what was asked", "", Why::Other),
    };
    trouble(text(what), remedy, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(url: &str) -> Caller {
        let settings = Settings {
            url: Url::parse(url).unwrap(),
            token: Secret::new("test", "canary-1f"),
            tls: TlsSettings::default(),
            proxy: None,
        };
        Caller::new(&settings).unwrap()
    }

    #[test]
    fn addresses_are_made_of_parts_that_cannot_break_out() {
        let caller = caller("https://gate.example/ot/?x=1");
        let url = caller.address("/api/v2/alerts", &[("state", "a&b=c".to_owned())]);
        assert_eq!(url.as_str(), "https://gate.example/ot/api/v2/alerts?state=a%26b%3Dc");
        assert_eq!(caller.address("/x", &[]).as_str(), "https://gate.example/ot/x");
    }

    #[test]
    fn words_of_the_other_side_are_short_and_never_hold_our_token() {
        let caller = caller("https://console.example");
        assert_eq!(caller.quoted(b"<html>canary-1f</html>"), "");
        assert_eq!(caller.quoted(br#"{"error":"no\n such alert"}"#), ": no  such alert");
        for leak in [
            "canary-1f",
            "for CANARY-1F!",
            "canary%2D1f",
            "Y2FuYXJ5LTFm",
            "eGNhbmFyeS0xZg",
            "dTpjYW5hcnktMWY",
        ] {
            assert_eq!(caller.quoted(format!("{{\"error\":\"no: {leak}\"}}").as_bytes()), "", "{leak}");
        }
        let long = format!("{{\"error\":\"{}\"}}", "x".repeat(2_000));
        assert!(caller.quoted(long.as_bytes()).len() <= WORDS_MAX + 2);
        assert!(!format!("{caller:?}").contains("canary"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (status, why, words) in [
            (401, Why::Away, "Access tokens"),
            (403, Why::Other, "Access tokens"),
            (302, Why::Other, "`url`"),
            (404, Why::Absent, "`kind`"),
            (407, Why::Away, "`proxy.username`"),
            (413, Why::TooMuch, "it failed"),
            (500, Why::TooMuch, "it failed"),
            (429, Why::Away, "wait"),
            (503, Why::Other, "not available"),
            (418, Why::Other, "does not do"),
        ] {
            let trouble = refused("/api/v2/alerts", status, ": reason");
            assert_eq!(trouble.why, why, "{status}");
            let text = trouble.words(false);
            assert!(
                text.contains(words) && text.contains(&status.to_string()) && text.contains("reason"),
                "{text}"
            );
        }
    }
}
