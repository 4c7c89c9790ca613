//! What a polled source has told already: each alert once, each change of it once, however often the other side answers
//! with it.
//!
//! Two bits for each alert, in chunks of consecutive numbers; a chunk that changed becomes a mark of a few hundred bytes
//! that is committed in the batch with the alerts it speaks of. So nothing depends on clocks, on the order of answers or
//! on how far the watermark is: that only saves work. Memory is bounded: chunks that the other side has not mentioned
//! for longest are forgotten, and an alert in one of them that comes once more is one more occurrence of its finding.

use std::collections::{BTreeSet, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::model::cursor::Mark;
use crate::model::{AlertState, Cursor};

/// Alerts in a chunk.
const CHUNK: u64 = 2_048;
/// Bytes of one of its two bitmaps.
const BYTES: usize = CHUNK as usize / 8;
/// Most chunks; half a KiB each.
const CHUNKS_MAX: usize = 4_096;
/// Most conditions that are open at a time.
const OPEN_MAX: usize = 4_096;
/// First part of a chunk's mark.
pub const CHUNK_MARK: &str = "told/";
/// First part of an open condition's mark.
pub const OPEN_MARK: &str = "open/";

/// What is to be told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is known.
    Nothing,
    /// That it stands.
    Raise,
    /// That it is over.
    Clear,
    /// Both, one after the other: it came and went between two questions.
    RaiseAndClear,
}

/// An alert as an answer has it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whose alert it is; empty where there is one sensor only.
    pub sensor: &'a str,
    /// Its number there.
    pub number: u64,
    /// Whether it stands.
    pub state: AlertState,
    /// Its time in milliseconds; `None` where it says none.
    pub time: Option<i64>,
    /// Whether it is older than the first connection: handled then, it is not told as raised first.
    pub backlog: bool,
}

#[derive(Debug)]
struct Chunk {
    told: [u8; BYTES],
    cleared: [u8; BYTES],
    /// Latest time of its alerts, in milliseconds.
    newest: i64,
    changed: bool,
    /// When it was last mentioned, in questions.
    touched: u64,
}

impl Chunk {
    fn new() -> Self {
        Self { told: [0; BYTES], cleared: [0; BYTES], newest: i64::MIN, changed: false, touched: 0 }
    }

    fn value(&self) -> String {
        let packed = |bits: &[u8; BYTES]| {
            let end = bits.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            STANDARD_NO_PAD.encode(&bits[..end])
        };
        format!("{}:{}:{}", self.newest, packed(&self.told), packed(&self.cleared))
    }

    fn read(value: &str) -> Option<Self> {
        let mut parts = value.split(':');
        let newest = parts.next()?.parse().ok()?;
        let mut bits = || {
            let bytes = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
            let mut bits = [0; BYTES];
            bits.get_mut(..bytes.len())?.copy_from_slice(&bytes);
            Some(bits)
        };
        Some(Self { told: bits()?, cleared: bits()?, newest, ..Self::new() })
    }
}

fn bit(bits: &[u8; BYTES], at: usize) -> bool {
    bits[at / 8] & (1 << (at % 8)) != 0
}

fn put(bits: &mut [u8; BYTES], at: usize, on: bool) {
    let mask = 1 << (at % 8);
    if on {
        bits[at / 8] |= mask;
    } else {
        bits[at / 8] &= !mask;
    }
}

/// What was told of one source.
#[derive(Debug, Default)]
pub struct Told {
    /// By sensor and number of the chunk.
    chunks: HashMap<(Box<str>, u64), Chunk>,
    /// Conditions that stand.
    open: BTreeSet<String>,
    set: Vec<Mark>,
    forgotten: Vec<Mark>,
    questions: u64,
}

impl Told {
    /// From the marks that are remembered; one that cannot be read is as if absent.
    pub fn load<'a>(marks: impl Iterator<Item = &'a Mark>) -> Self {
        let mut told = Self::default();
        for mark in marks {
            if let Some(id) = mark.name.strip_prefix(OPEN_MARK) {
                told.open.insert(id.to_owned());
            } else if let Some((sensor, number)) =
                mark.name.strip_prefix(CHUNK_MARK).and_then(|rest| rest.rsplit_once('/'))
                && let (Ok(number), Some(chunk)) = (number.parse(), Chunk::read(&mark.value))
            {
                told.chunks.insert((sensor.into(), number), chunk);
            }
        }
        told
    }

    /// Before each question: what is mentioned in its answer is what the other side still has.
    pub fn next_question(&mut self) {
        self.questions += 1;
    }

    /// What is to be told of an alert; from now on it is taken as told.
    pub fn step(&mut self, seen: &Seen<'_>) -> Step {
        let number = seen.number / CHUNK;
        let key = (Box::from(seen.sensor), number);
        if self.chunks.len() >= CHUNKS_MAX && !self.chunks.contains_key(&key) {
            self.forget_oldest();
        }
        let chunk = self.chunks.entry(key).or_insert_with(Chunk::new);
        chunk.touched = self.questions;
        let at = (seen.number % CHUNK) as usize;
        let (told, cleared) = (bit(&chunk.told, at), bit(&chunk.cleared, at));
        // A number that is used anew (a sensor was set up again), or a finding that was updated in its place.
        let again = told && chunk.newest > i64::MIN && seen.time.is_some_and(|time| time > chunk.newest);
        let step = match seen.state {
            AlertState::Raised if !told || again => Step::Raise,
            AlertState::Raised => Step::Nothing,
            AlertState::Cleared if told && !cleared => Step::Clear,
            AlertState::Cleared if cleared && !again => Step::Nothing,
            AlertState::Cleared if seen.backlog => Step::Clear,
            AlertState::Cleared => Step::RaiseAndClear,
        };
        if step != Step::Nothing {
            put(&mut chunk.told, at, true);
            put(&mut chunk.cleared, at, step != Step::Raise);
            chunk.newest = chunk.newest.max(seen.time.unwrap_or(i64::MIN));
            chunk.changed = true;
        }
        step
    }

    /// What is to be told of a condition that may come and go (a sensor that is away).
    pub fn condition(&mut self, id: &str, state: AlertState) -> Step {
        let name = format!("{OPEN_MARK}{id}");
        let mark = Mark { name, value: "1".to_owned() };
        match state {
            AlertState::Raised if self.open.len() < OPEN_MAX && self.open.insert(id.to_owned()) => {
                self.forgotten.retain(|other| *other != mark);
                self.set.push(mark);
                Step::Raise
            }
            AlertState::Cleared if self.open.remove(id) => {
                self.set.retain(|other| *other != mark);
                self.forgotten.push(mark);
                Step::Clear
            }
            _ => Step::Nothing,
        }
    }

    /// What changed since this was last asked: marks to be stored, and marks to be forgotten. They belong into the
    /// batch with what [`step`](Self::step) said is to be told.
    pub fn changes(&mut self) -> (Vec<Cursor>, Vec<Cursor>) {
        let mut set = std::mem::take(&mut self.set);
        for ((sensor, number), chunk) in self.chunks.iter_mut().filter(|(_, chunk)| chunk.changed) {
            chunk.changed = false;
            set.push(Mark { name: format!("{CHUNK_MARK}{sensor}/{number}"), value: chunk.value() });
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        let cursors = |marks: Vec<Mark>| marks.into_iter().map(Cursor::Mark).collect();
        (cursors(set), cursors(forgotten))
    }

    /// Whether [`changes`](Self::changes) would say anything.
    pub fn has_changes(&self) -> bool {
        !self.set.is_empty() || !self.forgotten.is_empty() || self.chunks.values().any(|chunk| chunk.changed)
    }

    fn forget_oldest(&mut self) {
        let oldest = self.chunks.iter().min_by_key(|(key, chunk)| (chunk.touched, key.1));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
        self.chunks.remove(&key);
        let (sensor, number) = key;
        self.forgotten.push(Mark { name: format!("{CHUNK_MARK}{sensor}/{number}"), value: String::new() });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::cursor::MARK_MAX;

    fn seen(number: u64, state: AlertState, time: i64) -> Seen<'static> {
        Seen { sensor: "4", number, state, time: Some(time), backlog: false }
    }

    use AlertState::{Cleared, Raised};

    #[test]
    fn each_alert_and_each_change_is_told_once() {
        let mut told = Told::default();
        for (what, expected) in [
            (seen(1, Raised, 10), Step::Raise),
            (seen(1, Raised, 10), Step::Nothing),
            (seen(2, Raised, 9), Step::Raise),
            (seen(1, Cleared, 10), Step::Clear),
            (seen(1, Cleared, 10), Step::Nothing),
            // An answer that was late.
            (seen(1, Raised, 10), Step::Nothing),
            (seen(3, Cleared, 8), Step::RaiseAndClear),
            (seen(3, Cleared, 8), Step::Nothing),
            (Seen { backlog: true, ..seen(4, Cleared, 7) }, Step::Clear),
            (Seen { sensor: "5", ..seen(1, Raised, 10) }, Step::Raise),
            (Seen { time: None, ..seen(2, Raised, 0) }, Step::Nothing),
        ] {
            assert_eq!(told.step(&what), expected, "{what:?}");
        }
    }

    #[test]
    fn a_number_that_is_used_anew_is_told_anew() {
        let mut told = Told::default();
        told.step(&seen(1, Raised, 10));
        told.step(&seen(1, Cleared, 10));
        assert_eq!(told.step(&seen(1, Raised, 5_000)), Step::Raise);
        assert_eq!(told.step(&seen(1, Raised, 5_000)), Step::Nothing);
        assert_eq!(told.step(&seen(1, Cleared, 5_000)), Step::Clear);
        assert_eq!(told.step(&seen(1, Cleared, 9_000)), Step::RaiseAndClear);
    }

    #[test]
    fn conditions_come_and_go() {
        let mut told = Told::default();
        assert_eq!(told.condition("s", Cleared), Step::Nothing);
        assert_eq!(told.condition("s", Raised), Step::Raise);
        assert_eq!(told.condition("s", Raised), Step::Nothing);
        let (set, forgotten) = told.changes();
        assert_eq!((set.len(), forgotten.len()), (1, 0));
        assert_eq!(told.condition("s", Cleared), Step::Clear);
        let (set, forgotten) = told.changes();
        assert_eq!((set.len(), forgotten.len(), told.has_changes()), (0, 1, false));
    }

    /// Stored marks, as the store keeps them.
    fn keep(stored: &mut HashMap<String, Mark>, told: &mut Told) {
        let (set, forgotten) = told.changes();
        for cursor in forgotten {
            let Cursor::Mark(mark) = cursor else { panic!("a file") };
            stored.remove(&mark.name);
        }
        for cursor in set {
            let Cursor::Mark(mark) = cursor else { panic!("a file") };
            assert!(mark.name.len() <= MARK_MAX && mark.value.len() <= MARK_MAX);
            stored.insert(mark.name.clone(), mark);
        }
    }

    #[test]
    fn memory_is_bounded_and_the_longest_unmentioned_goes_first() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        for chunk in 0..CHUNKS_MAX as u64 + 10 {
            told.next_question();
            told.step(&seen(0, Raised, 1));
            told.step(&seen(chunk * CHUNK + 5, Raised, 1));
        }
        keep(&mut stored, &mut told);
        assert_eq!((told.chunks.len(), stored.len()), (CHUNKS_MAX, CHUNKS_MAX));
        assert_eq!(told.step(&seen(0, Raised, 1)), Step::Nothing, "it is mentioned all the time");
        assert_eq!(told.step(&seen(CHUNK + 5, Raised, 1)), Step::Raise, "forgotten, so told once more");
    }

    proptest! {
        #[test]
        fn what_was_told_outlives_a_restart(
            steps in prop::collection::vec((0_u64..5_000, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let (mut kept, mut fresh) = (Told::default(), Told::default());
            let mut stored = HashMap::new();
            for (number, handled, restart) in steps {
                if restart {
                    fresh = Told::load(stored.values());
                }
                let state = if handled { Cleared } else { Raised };
                let what = seen(number, state, number as i64);
                prop_assert_eq!(kept.step(&what), fresh.step(&what));
                keep(&mut stored, &mut fresh);
            }
        }

        #[test]
        fn any_mark_is_read_without_panic(name in "\\PC{0,30}", value in "\\PC{0,60}") {
            let mark = Mark { name: format!("{CHUNK_MARK}{name}/7"), value };
            Told::load([&mark].into_iter());
        }
    }
}
