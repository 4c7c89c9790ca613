//! Who may send, and how much: networks, messages a second, connections. Reads no clock: it is told the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::net::places::Bounds;

/// Of one source. A sender writes to a closed connection once before it notices, so one that was silent for less than a
/// minute is not closed for another.
pub(super) const CONNECTIONS: Bounds = Bounds { most: 64, of_one: 32, silent_min: Duration::from_mins(1) };
/// Most senders whose rate is known; beyond them those that are silent are forgotten.
const SENDERS_MAX: usize = 4096;
/// What a sender may send at once, as time of its rate.
const BURST: Duration = Duration::from_secs(1);

/// Whether a sender may send. Without a list everybody may: `check` allows that to loopback listeners and to client
/// certificates only.
pub(super) fn is_allowed(allow: &[IpNet], sender: IpAddr) -> bool {
    allow.is_empty() || allow.iter().any(|network| network.contains(&sender))
}

/// Messages a second of each sender.
#[derive(Debug)]
pub(super) struct Rates {
    /// Time of one message.
    each: Duration,
    /// Until when what a sender has sent is paid for.
    paid: Mutex<HashMap<IpAddr, Instant>>,
}

impl Rates {
    /// So many messages a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), paid: Mutex::default() }
    }

    /// Counts so many messages of a sender that cannot be kept from sending; false: too many, and not counted.
    pub(super) fn admit(&self, sender: IpAddr, now: Instant) -> bool {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Self::of(&mut paid, sender, now);
        let late = until.saturating_duration_since(now) > BURST;
        if !late {
            *until += self.each;
        }
        !late
    }

    /// Counts so many messages of a sender that waits when it is not read; how long it should not be.
    pub(super) fn charge(&self, sender: IpAddr, messages: u32, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Self::of(&mut paid, sender, now);
        *until += self.each * messages;
        until.saturating_duration_since(now).saturating_sub(BURST)
    }

    fn of(paid: &mut HashMap<IpAddr, Instant>, sender: IpAddr, now: Instant) -> &mut Instant {
        if paid.len() >= SENDERS_MAX && !paid.contains_key(&sender) {
            paid.retain(|_, until| *until > now);
            if paid.len() >= SENDERS_MAX {
                paid.clear();
            }
        }
        let until = paid.entry(sender).or_insert(now);
        *until = (*until).max(now);
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks() {
        let allow = ["10.20.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        assert!(is_allowed(&allow, ip("10.20.3.4")) && is_allowed(&allow, ip("fd00::1")));
        assert!(!is_allowed(&allow, ip("10.21.0.1")) && !is_allowed(&allow, ip("127.0.0.1")));
        assert!(is_allowed(&[], ip("10.21.0.1")));
    }

    #[test]
    fn a_sender_has_its_own_rate() {
        let rates = Rates::new(10);
        let now = Instant::now();
        let admitted = |now| (0..100).filter(|_| rates.admit(ip("10.0.0.1"), now)).count();
        assert_eq!(admitted(now), 11, "a second's worth at once");
        assert_eq!(admitted(now + Duration::from_millis(500)), 5);
        assert!(rates.admit(ip("10.0.0.2"), now));
        assert_eq!(rates.charge(ip("10.0.0.3"), 10, now), Duration::ZERO);
        assert_eq!(rates.charge(ip("10.0.0.3"), 10, now), Duration::from_secs(1));
    }

    #[test]
    fn forged_senders_do_not_fill_the_memory() {
        let rates = Rates::new(1);
        let now = Instant::now();
        for number in 0..20_000_u32 {
            assert!(rates.admit(IpAddr::V4(number.into()), now));
        }
        assert!(rates.paid.lock().unwrap().len() <= SENDERS_MAX);
    }
}
