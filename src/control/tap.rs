//! One who watches what is decided: alert by alert, until it leaves or the service stops.
//!
//! The intake never waits for this: it writes into a ring (`intake::Tap`), and whoever reads too slowly is told how many
//! alerts it missed, in their place. What was decided before the stop is told before the end is.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::CancellationToken;

use crate::intake::Tap;
use crate::model::seen::{Seen, Told, Watched};

/// One who takes nothing for so long gives its place back.
const PATIENCE: Duration = Duration::from_secs(60);
/// Text that is written at once, in bytes, about.
const AT_ONCE: usize = 32 * 1024;

/// As an [`super::Answer`] that is fine, of a part of the answer.
#[derive(Serialize)]
struct Part<'a> {
    ok: &'a Told,
}

/// Tells until the caller leaves or `stop`.
pub(super) async fn tell(
    tap: &Tap,
    watched: &Watched,
    caller: &mut (impl AsyncRead + Unpin),
    out: &mut (impl AsyncWrite + Unpin),
    stop: &CancellationToken,
) {
    let mut decided = tap.watch();
    let mut text = Vec::new();
    put(&mut text, &Told::Begin);
    let mut said = [0; 64];
    loop {
        if !matches!(tokio::time::timeout(PATIENCE, out.write_all(&text)).await, Ok(Ok(()))) {
            return;
        }
        text.clear();
        tokio::select! {
            biased;
            one = decided.recv() => match one {
                Ok(seen) => put_wanted(&mut text, watched, &seen),
                Err(RecvError::Lagged(missed)) => put(&mut text, &Told::LeftOut(missed)),
                Err(RecvError::Closed) => return,
            },
            () = stop.cancelled() => break,
            read = caller.read(&mut said) => match read {
                // Whatever it says, it is there.
                Ok(bytes) if bytes > 0 => {}
                _ => return,
            },
        }
        take(&mut text, watched, &mut decided);
    }
    // Bounded by the ring: the intake has stopped.
    while take(&mut text, watched, &mut decided) {}
    put(&mut text, &Told::End("the service stops".to_owned()));
    let _ = tokio::time::timeout(PATIENCE / 6, out.write_all(&text)).await;
}

/// What is there already. Whether there may be more.
fn take(text: &mut Vec<u8>, watched: &Watched, decided: &mut Receiver<Arc<Seen>>) -> bool {
    let full = text.len() + AT_ONCE;
    while text.len() < full {
        match decided.try_recv() {
            Ok(seen) => put_wanted(text, watched, &seen),
            Err(TryRecvError::Lagged(missed)) => put(text, &Told::LeftOut(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return false,
        }
    }
    true
}

fn put_wanted(text: &mut Vec<u8>, watched: &Watched, seen: &Seen) {
    if watched.takes(seen) {
        put(text, &Told::Alert(seen.clone()));
    }
}

fn put(text: &mut Vec<u8>, told: &Told) {
    // Names and numbers: nothing in it cannot be written.
    let _ = serde_json::to_writer(&mut *text, &Part { ok: told });
    text.push(b'\n');
}
