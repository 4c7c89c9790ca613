//! Sources that fail: a record, a reader, and what the others notice of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::ManualClock;
use crate::model::{Alert, Fingerprint, Identity, Severity, Timestamp};
use crate::source::Taken;
use crate::source::format::{Decoded, Decoder, Finding, Outcome, Stream};

const NOW: Timestamp = Timestamp::from_secs(1_795_248_900);

/// Each line is an alert by its text; the header names what comes; `boom` fails.
struct Headed {
    /// So many decoders cannot even be made.
    broken: AtomicUsize,
}

struct Lines {
    header: Option<String>,
}

impl Format for Headed {
    fn decoder(&self, stream: &Stream<'_>) -> Box<dyn Decoder> {
        let broken = self.broken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        assert!(broken.is_err(), "made to fail");
        Box::new(Lines { header: stream.state.map(str::to_owned) })
    }
}

impl Decoder for Lines {
    fn decode(&mut self, record: &[u8], _: Timestamp) -> Decoded {
        let text = String::from_utf8_lossy(record);
        if let Some(header) = text.strip_prefix('#') {
            self.header = Some(header.to_owned());
            return Outcome::Blank.into();
        }
        assert!(text != "boom", "it does not like {text}");
        let title = format!("{}: {text}", self.header.as_deref().unwrap_or("no header"));
        let source = SourceName::new("x").unwrap();
        let fingerprint = Fingerprint::derive("a", &source, &Identity::Own(&title));
        let alert = Alert::sample(&title, Severity::Major, NOW);
        Outcome::Alert(Box::new(Finding { alert, fingerprint })).into()
    }

    fn state(&self) -> Option<String> {
        self.header.clone()
    }
}

/// A source over a directory, with a store that only remembers.
struct Bench {
    dir: tempfile::TempDir,
    stored: Arc<std::sync::Mutex<Remembered>>,
    broken: usize,
}

impl Bench {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.log"), text).unwrap();
        Self { dir, stored: Arc::default(), broken: 0 }
    }

    /// Runs it until `enough` has seen a batch that it wanted. Titles, details of rejects, and troubles.
    async fn until(
        &self,
        reading: Reading,
        enough: impl Fn(&Batch) -> bool,
    ) -> (Seen, Result<(), SourceError>) {
        let (out, mut batches) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let stored = Arc::clone(&self.stored);
        let context = Context {
            reading,
            clock: ManualClock::at(NOW),
            heartbeat: Heartbeat::default(),
            own: Arc::default(),
            closed: None,
            remember: Arc::new(move |_| {
                let now = stored.lock().unwrap().clone();
                Box::pin(async move { Ok(now) })
            }),
            kept: Kept::default(),
            out,
            stop: stop.clone(),
        };
        let settings = Settings {
            name: SourceName::new("x").unwrap(),
            kind: "zeek",
            input: Input::Files { pattern: format!("{}/*.log", self.dir.path().display()) },
            format: Reads::new(Headed { broken: AtomicUsize::new(self.broken) }),
            silent_after: None,
        };
        let mut seen = Seen::default();
        let intake = async {
            while let Some(batch) = batches.recv().await {
                if enough(&batch) {
                    stop.cancel();
                }
                seen.titles.extend(batch.sightings.iter().map(|s| s.alert.title.clone()));
                seen.rejects.extend(batch.rejects.iter().map(|r| (r.detail.clone(), r.sample.clone())));
                seen.troubles.extend(batch.trouble.clone());
                let mut stored = self.stored.lock().unwrap();
                stored.read_before = true;
                if !batch.cursors.is_empty() {
                    stored.cursors.clone_from(&batch.cursors);
                }
                drop(stored);
                if let Some(acknowledge) = batch.acknowledge {
                    acknowledge.tell(Taken::default());
                }
            }
        };
        let (ended, ()) = tokio::join!(run(settings, context, mpsc::channel(1).1), intake);
        (seen, ended)
    }
}

#[derive(Debug, Default)]
struct Seen {
    titles: Vec<String>,
    rejects: Vec<(String, String)>,
    troubles: Vec<String>,
}

#[tokio::test]
async fn a_record_that_a_decoder_fails_on_is_one_reject() {
    let bench = Bench::new("#h\none\nboom\ntwo\n");
    let (seen, ended) = bench.until(Reading::Once, |_| false).await;
    ended.unwrap();
    assert_eq!(seen.titles, ["h: one", "h: two"], "the next decoder knows the header");
    let [(detail, sample)] = seen.rejects.as_slice() else { panic!("{seen:?}") };
    assert!(detail.contains("byte 7: the decoder failed"), "{detail}");
    assert_eq!(sample, "boom");
}

#[tokio::test]
async fn what_a_decoder_has_learnt_outlives_a_restart() {
    let bench = Bench::new("#h\none\n");
    bench.until(Reading::Once, |_| false).await.1.unwrap();
    let path = bench.dir.path().join("x.log");
    std::fs::write(&path, "#h\none\ntwo\n").unwrap();
    let (seen, _) = bench.until(Reading::Once, |_| false).await;
    assert_eq!(seen.titles, ["h: two"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_fails_begins_again_and_says_so() {
    let mut bench = Bench::new("#h\none\n");
    bench.broken = 2;
    let (seen, ended) = bench.until(Reading::Follow, |batch| !batch.sightings.is_empty()).await;
    ended.unwrap();
    assert_eq!(seen.titles, ["h: one"], "once");
    assert_eq!(seen.troubles.len(), 2);
    assert!(seen.troubles[0].contains("its reader failed (made to fail"), "{seen:?}");
}

#[tokio::test]
async fn a_reader_that_fails_where_nothing_begins_again_is_an_error() {
    let mut bench = Bench::new("#h\none\n");
    bench.broken = 1;
    let (_, ended) = bench.until(Reading::Once, |_| false).await;
    assert!(matches!(ended, Err(SourceError::Failed(..))), "{ended:?}");
}
