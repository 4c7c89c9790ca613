//! The way from the sources to the intake: a short lane for each, taken in turns, so that a source that has much to
//! give waits for its own turn and never keeps another from having one.

use std::task::Poll;

use tokio::sync::mpsc;

use crate::source::Batch;

/// Batches that may wait over all lanes, as far as each has at least one. Each may hold a mebibyte of text, so few.
const BATCHES: usize = 2;

/// The receiving ends.
#[derive(Debug)]
pub struct Lanes {
    open: Vec<mpsc::Receiver<Batch>>,
    turn: usize,
}

/// A lane for each of so many sources, and all of their ends.
pub fn lanes(sources: usize) -> (Vec<mpsc::Sender<Batch>>, Lanes) {
    let (send, open) = (0..sources).map(|_| mpsc::channel((BATCHES / sources).max(1))).unzip();
    (send, Lanes { open, turn: 0 })
}

impl Lanes {
    /// At least one batch, at most `limit`; waits for the first. Empty: all sources are gone.
    pub(super) async fn next(&mut self, limit: usize) -> Vec<Batch> {
        std::future::poll_fn(|cx| {
            let mut taken = Vec::with_capacity(limit);
            // One from each lane in its turn; more than one of the same only where no other has any.
            let mut silent = 0;
            while taken.len() < limit && silent < self.open.len() {
                let at = self.turn % self.open.len();
                match self.open[at].poll_recv(cx) {
                    Poll::Ready(Some(batch)) => {
                        taken.push(batch);
                        silent = 0;
                        self.turn = at + 1;
                    }
                    Poll::Ready(None) => drop(self.open.remove(at)),
                    Poll::Pending => {
                        silent += 1;
                        self.turn = at + 1;
                    }
                }
            }
            if taken.is_empty() && !self.open.is_empty() { Poll::Pending } else { Poll::Ready(taken) }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SourceName;

    fn batch(name: &str) -> Batch {
        Batch::new(SourceName::new(name).unwrap(), "")
    }

    fn names(batches: &[Batch]) -> Vec<&str> {
        batches.iter().map(|batch| batch.source.as_str()).collect()
    }

    #[tokio::test]
    async fn a_noisy_source_waits_for_its_turn() {
        let (send, mut lanes) = lanes(3);
        let (noisy, quiet) = (send[0].clone(), send[2].clone());
        drop(send);
        noisy.send(batch("noisy")).await.unwrap();
        assert_eq!(names(&lanes.next(2).await), ["noisy"]);
        // It has filled its lane again and waits with more; the other comes next all the same.
        noisy.send(batch("noisy")).await.unwrap();
        assert!(noisy.try_send(batch("noisy")).is_err(), "its lane is full");
        quiet.send(batch("quiet")).await.unwrap();
        assert_eq!(names(&lanes.next(1).await), ["quiet"]);
        assert_eq!(names(&lanes.next(1).await), ["noisy"]);
    }

    #[tokio::test]
    async fn turns_go_round_while_all_are_noisy() {
        let (send, mut lanes) = lanes(3);
        let mut order = String::new();
        for _ in 0..9 {
            for (sender, name) in send.iter().zip(["a", "b", "c"]) {
                let _full = sender.try_send(batch(name));
            }
            order += names(&lanes.next(1).await)[0];
        }
        assert_eq!(order, "abcabcabc");
        drop(send);
        assert_eq!(lanes.next(8).await.len(), 2, "what is left is taken");
        assert!(lanes.next(8).await.is_empty(), "all are gone");
    }
}
