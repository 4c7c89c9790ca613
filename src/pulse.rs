//! Ground: signs of life. Each loop has a [`Pulse`] and says when it works and when it rests; `status` looks at all of
//! them before it tells systemd that the service is alive.
//!
//! A loop rests while it waits for events, or for something outside that is nobody's fault here (room on a disk); it
//! works while it owes a result. Only one that works without a beat for longer than its allowance can be stuck.
//! Costs two atomic stores; no lock is taken and nothing is woken by a beat.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

/// One loop's signs of life.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Signs>);

#[derive(Debug, Default)]
struct Signs {
    name: String,
    allowance: Duration,
    beats: AtomicU64,
    working: AtomicBool,
    begun: AtomicBool,
    first: Notify,
    news: Arc<Notify>,
}

/// A loop at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which loop.
    pub name: String,
    /// How often it has beaten.
    pub beats: u64,
    /// Whether it owes a result.
    pub working: bool,
    /// How long one piece of its work may take.
    pub allowance: Duration,
}

impl Pulse {
    /// Says that a piece of work begins, or that another part of it is done.
    pub fn works(&self) {
        self.0.working.store(true, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that there is nothing to do, or nothing that can be done before something outside happens.
    pub fn rests(&self) {
        self.0.working.store(false, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        if !self.0.begun.swap(true, Ordering::Relaxed) {
            self.0.first.notify_one();
        }
    }

    /// Says that something changed which people may want to see.
    pub fn tells(&self) {
        self.0.news.notify_one();
    }

    /// Ends when the loop has rested for the first time: it has come to the end of its work once. For one who waits.
    pub async fn has_begun(&self) {
        while !self.0.begun.load(Ordering::Relaxed) {
            self.0.first.notified().await;
        }
    }
}

/// Knows the pulses of all loops that live.
#[derive(Clone, Debug, Default)]
pub struct Pulses {
    all: Arc<Mutex<Vec<Weak<Signs>>>>,
    news: Arc<Notify>,
}

impl Pulses {
    /// A pulse for a loop; it is known for as long as the loop keeps it.
    pub fn of(&self, name: &str, allowance: Duration) -> Pulse {
        let news = Arc::clone(&self.news);
        let pulse = Pulse(Arc::new(Signs { name: name.to_owned(), allowance, news, ..Signs::default() }));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&pulse.0));
        pulse
    }

    /// Ends when a loop has told something since this was last asked. For one who waits.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// All loops as they are now.
    pub fn look(&self) -> Vec<Look> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |signs: Arc<Signs>| Look {
            name: signs.name.clone(),
            beats: signs.beats.load(Ordering::Relaxed),
            working: signs.working.load(Ordering::Relaxed),
            allowance: signs.allowance,
        };
        all.iter().filter_map(Weak::upgrade).map(look).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_known_for_as_long_as_it_lives() {
        let pulses = Pulses::default();
        let (a, b) = (pulses.of("a", Duration::ZERO), pulses.of("b", Duration::ZERO));
        a.works();
        a.clone().works();
        b.rests();
        let all = pulses.look();
        assert_eq!((all[0].beats, all[0].working), (2, true));
        assert_eq!((all[1].beats, all[1].working), (1, false));
        drop(a);
        assert_eq!(pulses.look().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_has_begun_when_it_first_rests() {
        let pulse = Pulses::default().of("a", Duration::ZERO);
        pulse.works();
        let early = tokio::time::timeout(Duration::from_secs(9), pulse.has_begun()).await;
        assert!(early.is_err());
        tokio::join!(async { pulse.rests() }, pulse.has_begun());
        // Whoever asks later is told at once, working or not by then.
        pulse.rests();
        pulse.has_begun().await;
    }
}
