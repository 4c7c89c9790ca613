//! Ground: signs of life. Each loop has a [`Heartbeat`] and says when it works and when it rests; `status` looks at all of
//! them before it tells systemd that the service is alive.
//!
//! A loop rests while it waits for events, or for something outside that is nobody's fault here (room on a disk); it
//! works while it owes a result. Only one that works without a beat for longer than its allowance can be stuck.
//! Costs two atomic stores; no lock is taken and nothing is woken by a beat.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;

/// One loop's signs of life.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<Signs>);

#[derive(Debug, Default)]
struct Signs {
    name: String,
    allowance: Duration,
    beats: AtomicU64,
    busy: AtomicBool,
    begun: AtomicBool,
    /// Bytes that are there and not read; [`UNTOLD`] where that is no question.
    behind: AtomicU64,
    first: Notify,
    news: Arc<Notify>,
}

/// Nothing was told.
const UNTOLD: u64 = u64::MAX;

/// A loop at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Which loop.
    pub name: String,
    /// How often it has beaten.
    pub beats: u64,
    /// Whether it owes a result.
    pub busy: bool,
    /// How long one piece of its work may take.
    pub allowance: Duration,
}

impl Heartbeat {
    /// Says that a piece of work begins, or that another part of it is done.
    pub fn busy(&self) {
        self.0.busy.store(true, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that there is nothing to do, or nothing that can be done before something outside happens.
    pub fn idle(&self) {
        self.0.busy.store(false, Ordering::Relaxed);
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        if !self.0.begun.swap(true, Ordering::Relaxed) {
            self.0.first.notify_one();
        }
    }

    /// Says how many bytes are there that it has not read.
    pub fn behind(&self, bytes: u64) {
        self.0.behind.store(bytes.min(UNTOLD - 1), Ordering::Relaxed);
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

/// Knows the heartbeats of all loops that live.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats {
    all: Arc<Mutex<Vec<Weak<Signs>>>>,
    news: Arc<Notify>,
}

impl Heartbeats {
    /// A heartbeat for a loop; it is known for as long as the loop keeps it.
    pub fn of(&self, name: &str, allowance: Duration) -> Heartbeat {
        let news = Arc::clone(&self.news);
        let heartbeat = Heartbeat(Arc::new(Signs {
            name: name.to_owned(),
            allowance,
            news,
            behind: UNTOLD.into(),
            ..Signs::default()
        }));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&heartbeat.0));
        heartbeat
    }

    /// Ends when a loop has told something since this was last asked. For one who waits.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// How far those are behind that have told it, by their names.
    pub fn behind(&self) -> BTreeMap<String, u64> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |signs: Arc<Signs>| (signs.name.clone(), signs.behind.load(Ordering::Relaxed));
        all.iter().filter_map(Weak::upgrade).map(told).filter(|(_, bytes)| *bytes != UNTOLD).collect()
    }

    /// All loops as they are now.
    pub fn look(&self) -> Vec<Look> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |signs: Arc<Signs>| Look {
            name: signs.name.clone(),
            beats: signs.beats.load(Ordering::Relaxed),
            busy: signs.busy.load(Ordering::Relaxed),
            allowance: signs.allowance,
        };
        all.iter().filter_map(Weak::upgrade).map(look).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_told_how_far_it_is_behind_is_listed() {
        let heartbeats = Heartbeats::default();
        let (source, _relay) =
            (heartbeats.of("source eve", Duration::ZERO), heartbeats.of("relay", Duration::ZERO));
        assert_eq!(heartbeats.behind(), BTreeMap::new());
        source.behind(12);
        source.behind(7);
        assert_eq!(heartbeats.behind(), BTreeMap::from([("source eve".to_owned(), 7)]));
    }

    #[test]
    fn a_loop_is_known_for_as_long_as_it_lives() {
        let heartbeats = Heartbeats::default();
        let (a, b) = (heartbeats.of("a", Duration::ZERO), heartbeats.of("b", Duration::ZERO));
        a.busy();
        a.clone().busy();
        b.idle();
        let all = heartbeats.look();
        assert_eq!((all[0].beats, all[0].busy), (2, true));
        assert_eq!((all[1].beats, all[1].busy), (1, false));
        drop(a);
        assert_eq!(heartbeats.look().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_has_begun_when_it_first_rests() {
        let heartbeat = Heartbeats::default().of("a", Duration::ZERO);
        heartbeat.busy();
        let early = tokio::time::timeout(Duration::from_secs(9), heartbeat.has_begun()).await;
        assert!(early.is_err());
        tokio::join!(async { heartbeat.idle() }, heartbeat.has_begun());
        // Whoever asks later is told at once, busy or not by then.
        heartbeat.idle();
        heartbeat.has_begun().await;
    }
}
