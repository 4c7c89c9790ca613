//! The wall clock behind a trait. Intervals run on tokio's monotonic time; this clock only dates things, and it may
//! jump: the appliance has no RTC, and NTP steps it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;

/// A clock before this cannot be right (2026-11-01): certificates would fail and tickets would be misdated. Moved with
/// each release; a constant, so that two builds of one release are the same.
pub const RELEASED_AT: Timestamp = Timestamp::from_secs(1_793_491_200);

/// Tells the wall time.
pub trait Clock: Send + Sync + 'static {
    /// Now, as far as this machine knows.
    fn now(&self) -> Timestamp;
}

/// A clock that can be handed to every room.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.after(since)
    }
}

/// A clock that stands still until it is moved: for tests of every room.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now.as_micros())))
    }

    /// Sets it, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.as_micros(), Ordering::SeqCst);
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        self.set(self.now().after(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}
