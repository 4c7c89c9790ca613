//! An hourly limit in small: so many requests per window, counted from full windows of the wall clock.

use std::str::FromStr;
use std::time::Duration;

use super::call::Answer;
use crate::model::Timestamp;

/// A rule of `sys_rate_limit_rules`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Requests per window.
    pub limit: u32,
    /// The window; an hour on an instance.
    pub window: Duration,
}

impl FromStr for RateRule {
    type Err = String;

    /// `100/3600`: requests per seconds.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').unwrap_or((text, "3600"));
        match (parts.0.trim().parse(), parts.1.trim().parse()) {
            (Ok(limit), Ok(seconds @ 1..=86_400)) => Ok(Self { limit, window: Duration::from_secs(seconds) }),
            _ => Err(format!("`{text}` is not REQUESTS/SECONDS, for example 100/3600 (1 to 86400 seconds)")),
        }
    }
}

/// The `sys_id` that the headers name.
const RULE_ID: &str = "f7c2a1d0e4b94c6a8d3e5f1027b6c9d8";

#[derive(Debug, Default)]
pub(super) struct Limiter {
    window: i64,
    used: u32,
}

/// The state after a request was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    rule: RateRule,
    reset_at: i64,
    wait: u64,
    pub(super) exceeded: bool,
}

impl Limiter {
    pub(super) fn count(&mut self, rule: RateRule, now: Timestamp) -> Count {
        let length = rule.window.as_secs().max(1) as i64;
        let window = now.as_secs().div_euclid(length);
        if window != self.window {
            *self = Self { window, used: 0 };
        }
        self.used = self.used.saturating_add(1);
        let reset_at = (window + 1) * length;
        let wait = reset_at.saturating_sub(now.as_secs()).max(1) as u64;
        Count { rule, reset_at, wait, exceeded: self.used > rule.limit }
    }
}

impl Count {
    pub(super) fn head(self, answer: Answer) -> Answer {
        answer
            .with("x-ratelimit-limit", self.rule.limit.to_string())
            .with("x-ratelimit-reset", self.reset_at.to_string())
            .with("x-ratelimit-rule", RULE_ID)
    }

    pub(super) fn refusal(self) -> Answer {
        self.head(denied(self.rule.limit, self.wait))
    }
}

pub(super) fn denied(limit: u32, wait: u64) -> Answer {
    let detail = format!("Rate limit of {limit} requests per hour for Table API exceeded");
    Answer::error(429, "Rate limit exceeded", Some(&detail)).with("retry-after", wait.to_string())
}

/// The 429 of a full pool of workers: plain text, and nothing that says how long to wait.
pub(super) fn no_worker() -> Answer {
    let mut answer = Answer::empty(429).with("content-type", "text/plain");
    answer.body = b"Too Many Requests".to_vec();
    answer
}

#[cfg(test)]
mod tests {
    use super::super::trial::header;
    use super::*;

    #[test]
    fn windows_are_full_ones_of_the_clock() {
        let rule: RateRule = "2/60".parse().unwrap();
        let mut limiter = Limiter::default();
        let mut count = |second: i64| limiter.count(rule, Timestamp::from_secs(6000 + second));
        assert!(!count(10).exceeded && !count(20).exceeded);
        let third = count(45);
        assert!(third.exceeded);
        let refusal = third.refusal();
        assert_eq!((refusal.status, header(&refusal, "retry-after")), (429, Some("15")));
        assert_eq!(header(&refusal, "x-ratelimit-limit"), Some("2"));
        assert_eq!(header(&refusal, "x-ratelimit-reset"), Some("6060"));
        assert!(header(&refusal, "x-ratelimit-rule").is_some());
        assert!(!count(60).exceeded);
    }

    #[test]
    fn rules_are_read() {
        assert_eq!("5".parse(), Ok(RateRule { limit: 5, window: Duration::from_hours(1) }));
        for bad in ["", "x/1", "1/0", "1/90000"] {
            assert!(bad.parse::<RateRule>().is_err(), "{bad}");
        }
    }
}
