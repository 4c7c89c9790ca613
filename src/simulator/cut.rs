//! A connection that can be cut: after a set number of bytes its writes fail, and the listener drops it, so that TCP
//! itself ends there (under TLS without a close notice). Never more than that is sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Tells a connection how many more bytes it may send.
#[derive(Clone, Debug)]
pub(super) struct Scissors(Arc<AtomicU64>);

impl Scissors {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    /// Ends the connection after so many more bytes.
    pub(super) fn cut_after(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }
}

pub(super) struct Cuttable<S> {
    inner: S,
    left: Scissors,
}

impl<S> Cuttable<S> {
    /// A stream under those scissors.
    pub(super) fn new(inner: S, left: Scissors) -> Self {
        Self { inner, left }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cuttable<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cuttable<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let left = self.left.0.load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "cut by a fault")));
        }
        let some = &buf[..buf.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        let done = Pin::new(&mut self.inner).poll_write(cx, some);
        if let Poll::Ready(Ok(n)) = &done
            && left != u64::MAX
        {
            self.left.cut_after(left - *n as u64);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
