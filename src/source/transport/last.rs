//! What a connection gives after the order to stop: what had come before it, and no more than that. A sender that goes on
//! sending, or an intake that takes nothing, holds up no stop.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest time for it.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of it: more than the kernel keeps for a connection.
const BYTES: usize = 1 << 20;
/// Nothing more is there after so long without anything.
const SILENCE: Duration = Duration::from_millis(20);

/// How far that is.
#[derive(Default)]
pub(super) struct Last {
    until: Option<Instant>,
    bytes: usize,
}

impl Last {
    /// Whether it is to end here.
    pub(super) fn is_over(&mut self, stop: &CancellationToken) -> bool {
        let now = Instant::now();
        stop.is_cancelled() && (self.bytes >= BYTES || *self.until.get_or_insert(now + TIME) <= now)
    }

    /// So much was read.
    pub(super) fn read(&mut self, stop: &CancellationToken, bytes: usize) {
        if stop.is_cancelled() {
            self.bytes += bytes;
        }
    }
}

/// After the order to stop, what is there is read at once; this is for the time behind it.
pub(super) async fn nothing_more(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(SILENCE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_ends_with_what_had_come_or_with_its_time() {
        let stop = CancellationToken::new();
        let mut last = Last::default();
        last.read(&stop, 2 * BYTES);
        assert!(!last.is_over(&stop), "nobody said stop");
        stop.cancel();
        assert!(!last.is_over(&stop));
        last.read(&stop, BYTES);
        assert!(last.is_over(&stop));
        let mut last = Last::default();
        assert!(!last.is_over(&stop));
        tokio::time::advance(TIME).await;
        assert!(last.is_over(&stop));
    }
}
