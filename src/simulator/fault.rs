//! Faults: what goes wrong, on which requests, how often. Rules stand in order; of those that end a request the first
//! that fires does, and the others are not used up by it.
//!
//! A rule is written `KIND[=VALUE][:key=value[,key=value…]]`. See [`HELP`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::instance::Tweaks;

/// The notation, for `--help` and for errors.
pub const HELP: &str = "\
KIND[=VALUE][:KEY=VALUE[,KEY=VALUE...]]

Kinds, not carried out:   drop-before  status=CODE  202  hibernate  html-login  rate-limit[=SECONDS]  semaphore
                          replay  unscoped  waf=TEXT   (a request with that text in its body: a firewall's page, 403)
Kinds, carried out first: commit-drop  commit-cut=BYTES  commit-500  commit-202  truncated-json  delay=MS
Kinds that change it:     revoke-token  index-lag=MS  drop-field=NAME  hide-field=NAME
                          hide-table=NAME
                          other-domain=TEXT   (a record with that text: in a domain we do not see)
                          throws=TEXT  refuses=TEXT   (a new record with that text in a field: 500, or 403 by an ACL)

Keys: rate=0..1 (chance, by --seed)  count=N (only the first N that match)  after=N (not the first N that match)
      method=POST  path=/prefix.  Without rate and count: each request that matches.

Examples: commit-drop:rate=0.3,method=POST,path=/api/now/table/incident
          status=503:count=5      delay=1500:method=GET      revoke-token:count=1,path=/api";

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The connection is closed before anything is done.
    DropBefore,
    /// That status instead of any work.
    Status(u16),
    /// 202 without body; nothing is done.
    Accepted,
    /// The page of a hibernating instance, with 200; nothing is done.
    Hibernate,
    /// A log-in page, with 200; nothing is done.
    HtmlLogin,
    /// 429 with `Retry-After` of so many seconds; nothing is done.
    RateLimit(u64),
    /// 429 of a full semaphore: plain text, no `Retry-After`; nothing is done.
    Semaphore,
    /// A 201 with somebody else's record, as a proxy replays it; nothing is done.
    Replay,
    /// 403 as a token of a registry record that is securely scoped gets it; nothing is done.
    Unscoped,
    /// A firewall's page, with 403, for a request with this text in its body; nothing is done.
    Waf(String),
    /// Carried out, then the connection is closed without an answer.
    CommitDrop,
    /// Carried out, then the answer is cut after so many bytes.
    CommitCut(u64),
    /// Carried out, then 500.
    Commit500,
    /// Carried out, then 202 without body.
    CommitAccepted,
    /// Carried out, then an answer that breaks off inside and ends in an error object.
    TruncatedJson,
    /// Carried out, then the answer waits.
    Delay(Duration),
    /// All access tokens are taken back first.
    RevokeToken,
    /// A record made now is not visible to list queries for that long.
    IndexLag(Duration),
    /// The field is dropped in silence.
    DropField(String),
    /// An ACL hides the field: it is in no answer, a condition on it is dropped, and what is written to it as well.
    HideField(String),
    /// The table answers 403.
    HideTable(String),
    /// Records with this text in a field are in a domain that the user does not see: made, and then not there.
    OtherDomain(String),
    /// A business rule throws on each new record that has this text in a field: 500, nothing is done.
    Throws(String),
    /// An ACL refuses each new record that has this text in a field.
    Refuses(String),
}

/// A kind, on which requests, how often.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: Kind,
    /// Only this method; none: all.
    pub method: Option<String>,
    /// Only paths that begin so; empty: all.
    pub path: String,
    /// The chance of each request that matches, 0 to 1.
    pub rate: f64,
    /// At most so many times; none: without end.
    pub count: Option<u64>,
    /// So many requests that match are left alone first.
    pub after: u64,
}

impl Fault {
    /// On every request, without end.
    pub fn new(kind: Kind) -> Self {
        Self { kind, method: None, path: String::new(), rate: 1.0, count: None, after: 0 }
    }

    /// The next `count` times.
    #[must_use]
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }

    /// With that chance.
    #[must_use]
    pub fn rate(mut self, rate: f64) -> Self {
        self.rate = rate;
        self
    }

    /// Not on the first `after` requests that match.
    #[must_use]
    pub fn after(mut self, after: u64) -> Self {
        self.after = after;
        self
    }

    /// Only on this method and paths that begin so.
    #[must_use]
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = (!method.is_empty()).then(|| method.to_ascii_uppercase());
        path.clone_into(&mut self.path);
        self
    }
}

/// Why a fault was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault `{text}`: {why}")]
pub struct FaultError {
    text: String,
    why: String,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let fail = |why: &str| FaultError { text: text.chars().take(200).collect(), why: why.to_owned() };
        let (what, keys) = text.trim().split_once(':').unwrap_or((text.trim(), ""));
        let mut fault = Self::new(kind(what).map_err(|why| fail(&why))?);
        for pair in keys.split(',').filter(|p| !p.trim().is_empty()) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| fail("expected KEY=VALUE after the colon"))?;
            let number = || value.parse::<u64>().map_err(|_| fail(&format!("{key} needs a whole number")));
            match key.trim() {
                "count" => fault.count = Some(number()?),
                "after" => fault.after = number()?,
                "rate" => {
                    let rate = value.parse().ok().filter(|r| (0.0..=1.0).contains(r));
                    fault.rate = rate.ok_or_else(|| fail("rate needs a number from 0 to 1"))?;
                }
                "method" => fault.method = Some(value.to_ascii_uppercase()),
                "path" => value.clone_into(&mut fault.path),
                _ => return Err(fail("known keys are rate, count, after, method, path")),
            }
        }
        Ok(fault)
    }
}

fn kind(what: &str) -> Result<Kind, String> {
    let (name, value) = match what.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (what, None),
    };
    let number = |need: &str| {
        let value = value.and_then(|v| v.parse::<u64>().ok());
        value.ok_or_else(|| format!("{name} needs a value: {name}={need}"))
    };
    let word = || {
        let value = value.filter(|v| !v.is_empty()).map(str::to_owned);
        value.ok_or_else(|| format!("{name} needs a value: {name}=NAME"))
    };
    Ok(match name {
        "drop-before" => Kind::DropBefore,
        "status" => match number("CODE")? {
            code @ 200..=599 => Kind::Status(code as u16),
            _ => return Err("status needs a code from 200 to 599".to_owned()),
        },
        "202" => Kind::Accepted,
        "hibernate" => Kind::Hibernate,
        "html-login" => Kind::HtmlLogin,
        "rate-limit" if value.is_none() => Kind::RateLimit(1),
        "rate-limit" => Kind::RateLimit(number("SECONDS")?),
        "semaphore" => Kind::Semaphore,
        "replay" => Kind::Replay,
        "unscoped" => Kind::Unscoped,
        "waf" => Kind::Waf(word()?),
        "commit-drop" => Kind::CommitDrop,
        "commit-cut" => Kind::CommitCut(number("BYTES")?),
        "commit-500" => Kind::Commit500,
        "commit-202" => Kind::CommitAccepted,
        "truncated-json" => Kind::TruncatedJson,
        "delay" => Kind::Delay(Duration::from_millis(number("MS")?)),
        "revoke-token" => Kind::RevokeToken,
        "index-lag" => Kind::IndexLag(Duration::from_millis(number("MS")?)),
        "drop-field" => Kind::DropField(word()?),
        "hide-field" => Kind::HideField(word()?),
        "hide-table" => Kind::HideTable(word()?),
        "other-domain" => Kind::OtherDomain(word()?),
        "throws" => Kind::Throws(word()?),
        "refuses" => Kind::Refuses(word()?),
        _ => return Err(format!("unknown kind; the notation is {HELP}")),
    })
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DropBefore => f.write_str("drop-before"),
            Self::Status(code) => write!(f, "status={code}"),
            Self::Accepted => f.write_str("202"),
            Self::Hibernate => f.write_str("hibernate"),
            Self::HtmlLogin => f.write_str("html-login"),
            Self::RateLimit(seconds) => write!(f, "rate-limit={seconds}"),
            Self::Semaphore => f.write_str("semaphore"),
            Self::Replay => f.write_str("replay"),
            Self::Unscoped => f.write_str("unscoped"),
            Self::Waf(text) => write!(f, "waf={text}"),
            Self::CommitDrop => f.write_str("commit-drop"),
            Self::CommitCut(bytes) => write!(f, "commit-cut={bytes}"),
            Self::Commit500 => f.write_str("commit-500"),
            Self::CommitAccepted => f.write_str("commit-202"),
            Self::TruncatedJson => f.write_str("truncated-json"),
            Self::Delay(by) => write!(f, "delay={}", by.as_millis()),
            Self::RevokeToken => f.write_str("revoke-token"),
            Self::IndexLag(by) => write!(f, "index-lag={}", by.as_millis()),
            Self::DropField(name) => write!(f, "drop-field={name}"),
            Self::HideField(name) => write!(f, "hide-field={name}"),
            Self::HideTable(name) => write!(f, "hide-table={name}"),
            Self::OtherDomain(text) => write!(f, "other-domain={text}"),
            Self::Throws(text) => write!(f, "throws={text}"),
            Self::Refuses(text) => write!(f, "refuses={text}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        let mut keys = Vec::new();
        if self.rate < 1.0 {
            keys.push(format!("rate={}", self.rate));
        }
        keys.extend(self.count.map(|n| format!("count={n}")));
        if self.after > 0 {
            keys.push(format!("after={}", self.after));
        }
        keys.extend(self.method.as_ref().map(|m| format!("method={m}")));
        if !self.path.is_empty() {
            keys.push(format!("path={}", self.path));
        }
        if keys.is_empty() { Ok(()) } else { write!(f, ":{}", keys.join(",")) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) fault: Fault,
    pub(super) seen: u64,
    pub(super) fired: u64,
}

pub(super) struct Faults {
    pub(super) rules: Vec<Rule>,
    rng: fastrand::Rng,
}

/// What the rules say about one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub(super) tweaks: Tweaks,
    pub(super) revoke: bool,
    pub(super) delay: Duration,
    pub(super) end: Option<Kind>,
}

impl Faults {
    /// Those rules, with chances drawn from the seed.
    pub(super) fn new(faults: Vec<Fault>, seed: u64) -> Self {
        let mut new = Self { rules: Vec::new(), rng: fastrand::Rng::with_seed(seed) };
        for fault in faults {
            new.add(fault);
        }
        new
    }

    /// One more rule, after the others.
    pub(super) fn add(&mut self, fault: Fault) {
        self.rules.push(Rule { fault, seen: 0, fired: 0 });
    }

    pub(super) fn judge(&mut self, method: &str, path: &str, body: &[u8]) -> Verdict {
        let mut verdict = Verdict::default();
        for rule in &mut self.rules {
            let fault = &rule.fault;
            let says = |text: &str| String::from_utf8_lossy(body).contains(text);
            let matches = fault.method.as_deref().is_none_or(|m| m == method)
                && path.starts_with(&fault.path)
                && !matches!(&fault.kind, Kind::Waf(text) if !says(text));
            let ends = !matches!(
                fault.kind,
                Kind::RevokeToken
                    | Kind::IndexLag(_)
                    | Kind::DropField(_)
                    | Kind::HideField(_)
                    | Kind::HideTable(_)
                    | Kind::OtherDomain(_)
                    | Kind::Throws(_)
                    | Kind::Refuses(_)
                    | Kind::Delay(_)
            );
            if !matches || ends && verdict.end.is_some() {
                continue;
            }
            rule.seen += 1;
            let spent = fault.count.is_some_and(|n| rule.fired >= n);
            if rule.seen <= fault.after || spent || fault.rate < 1.0 && self.rng.f64() >= fault.rate {
                continue;
            }
            rule.fired += 1;
            match fault.kind.clone() {
                Kind::RevokeToken => verdict.revoke = true,
                Kind::IndexLag(by) => verdict.tweaks.index_lag = Some(by),
                Kind::DropField(name) => verdict.tweaks.drop_fields.push(name),
                Kind::HideField(name) => verdict.tweaks.hidden_fields.push(name),
                Kind::HideTable(name) => verdict.tweaks.hidden.push(name),
                Kind::OtherDomain(text) => verdict.tweaks.other_domain.push(text),
                Kind::Throws(text) => verdict.tweaks.throws.push(text),
                Kind::Refuses(text) => verdict.tweaks.refuses.push(text),
                Kind::Delay(by) => verdict.delay = by,
                other => verdict.end = Some(other),
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads and writes a rule.
    fn check(text: &str, written: &str) {
        assert_eq!(text.parse::<Fault>().unwrap().to_string(), written);
    }

    #[test]
    fn the_notation() {
        check(
            "commit-drop:rate=0.3,method=post,path=/api/now",
            "commit-drop:rate=0.3,method=POST,path=/api/now",
        );
        check("status=503:count=5", "status=503:count=5");
        check(" 202 ", "202");
        check("rate-limit", "rate-limit=1");
        check("delay=1500:after=2,count=1", "delay=1500:count=1,after=2");
        for kind in [
            "drop-before",
            "hibernate",
            "html-login",
            "semaphore",
            "replay",
            "commit-drop",
            "commit-cut=20",
            "commit-500",
            "commit-202",
            "truncated-json",
            "revoke-token",
            "index-lag=50",
            "drop-field=a",
            "hide-table=b",
            "throws=c",
            "refuses=d",
            "waf=e",
        ] {
            check(kind, kind);
        }
    }

    #[test]
    fn errors_say_what_was_expected() {
        for (text, words) in [
            ("nothing", "unknown kind"),
            ("status", "status=CODE"),
            ("status=99", "from 200 to 599"),
            ("drop-field", "drop-field=NAME"),
            ("202:often", "KEY=VALUE"),
            ("202:rate=2", "from 0 to 1"),
            ("202:count=x", "count needs a whole number"),
            ("202:colour=red", "known keys"),
        ] {
            let error = text.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    fn ends(faults: &mut Faults, method: &str, path: &str, times: usize) -> Vec<Option<Kind>> {
        (0..times).map(|_| faults.judge(method, path, b"").end).collect()
    }

    #[test]
    fn the_first_that_fires_ends_it_and_the_others_are_not_used_up() {
        let rules = ["status=503:count=1,after=1,method=POST", "hibernate:count=1,path=/api"];
        let mut faults = Faults::new(rules.map(|r| r.parse().unwrap()).into(), 1);
        assert_eq!(ends(&mut faults, "GET", "/oauth_token.do", 1), [None]);
        let expected = [Some(Kind::Hibernate), Some(Kind::Status(503)), None];
        assert_eq!(ends(&mut faults, "POST", "/api/now", 3), expected);
        let mut faults =
            Faults::new(["status=500:count=1", "202:count=1"].map(|r| r.parse().unwrap()).into(), 1);
        assert_eq!(ends(&mut faults, "GET", "/", 3), [Some(Kind::Status(500)), Some(Kind::Accepted), None]);
    }

    #[test]
    fn chances_depend_on_the_seed_alone() {
        let fired = |seed| {
            let mut faults = Faults::new(vec![Fault::new(Kind::CommitDrop).rate(0.3)], seed);
            ends(&mut faults, "POST", "/", 1000).iter().filter(|e| e.is_some()).count()
        };
        assert_eq!(fired(1), fired(1));
        assert!((200..400).contains(&fired(1)), "{}", fired(1));
    }

    #[test]
    fn what_only_changes_a_request_adds_up() {
        let rules =
            ["delay=5", "drop-field=a", "drop-field=b", "hide-table=c", "index-lag=9", "revoke-token", "202"];
        let verdict = Faults::new(rules.map(|r| r.parse().unwrap()).into(), 1).judge("GET", "/", b"");
        assert_eq!((verdict.delay, verdict.revoke), (Duration::from_millis(5), true));
        assert_eq!(verdict.tweaks.drop_fields, ["a", "b"]);
        assert_eq!(verdict.tweaks.hidden, ["c"]);
        assert_eq!(verdict.tweaks.index_lag, Some(Duration::from_millis(9)));
        assert_eq!(verdict.end, Some(Kind::Accepted));
    }
}
