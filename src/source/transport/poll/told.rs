//! What a polled source has told already: each alert once, each change of it once, however often the other side answers
//! with it.
//!
//! Bits, a time and the severity for each alert, in chunks of consecutive numbers; a chunk that changed becomes a mark of some hundred
//! bytes that is committed in the batch with the alerts it speaks of. So nothing depends on clocks, on the order of answers
//! or on how far the watermark is: that only saves work. A sensor that was set up again begins to number anew: a number with
//! another time is another alert, in the next chunk of the same numbers, and both stay known. Memory is bounded: numbers
//! that the other side has not mentioned for longest are forgotten, and an alert of them that comes once more is one more
//! occurrence of its finding.
//!
//! An order to read again forgets nothing of it: what was told before the order is told once more and known as such, and
//! what was never told is news, however old it is.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::model::cursor::{Mark, Remembered};
use crate::model::{AlertState, Cursor, Severity};

/// Alerts in a chunk.
const CHUNK: u64 = 128;
/// Bytes of one of its bitmaps.
const BYTES: usize = CHUNK as usize / 8;
/// Bytes of the severities of one.
const LEVELS: usize = CHUNK as usize / 4;
/// Most chunks; some 600 bytes each.
const CHUNKS_MAX: usize = 16_384;
/// How often a number may mean another alert. One that does so more often replaces the last.
const USES_MAX: usize = 4;
/// Chunks that one of version 0.3.0 is read as: it had 2048 alerts, and one time for all of them.
const PIECES: usize = 16;
/// Most conditions that are open at a time.
const OPEN_MAX: usize = 4_096;
/// First part of a chunk's mark.
pub const CHUNK_MARK: &str = "told/";
/// First part of an open condition's mark.
const OPEN_MARK: &str = "open/";
/// The mark of the last order to read again: a number that no other order had.
pub const ORDER_MARK: &str = "ordered";

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

/// What is to be told of an alert, and which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// What is to be told.
    pub step: Step,
    /// Whether it was told before the order to read again.
    pub second: bool,
    /// Where its number meant another alert before: what of its time tells it from that one.
    pub anew: Option<u32>,
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
    /// How bad it is; where that rises, it is told once more.
    pub severity: Severity,
    /// Its time in milliseconds; `None` where it says none.
    pub time: Option<i64>,
    /// Whether it is older than the first connection: handled then, it is not told as raised first.
    pub backlog: bool,
}

#[derive(Clone, Debug)]
struct Chunk {
    told: [u8; BYTES],
    cleared: [u8; BYTES],
    /// Told since `order`.
    again: [u8; BYTES],
    /// How bad each was when it was last seen, two bits each; the worst where that is not known, so that nothing is told
    /// for the sake of it.
    levels: [u8; LEVELS],
    /// When each began, by [`short`]; 0: not known.
    times: [u32; CHUNK as usize],
    /// Latest time of those whose own is not known, in milliseconds.
    newest: i64,
    /// The order to read again that `again` speaks of.
    order: Option<i64>,
    changed: bool,
}

impl Chunk {
    const EMPTY: Self = Self {
        told: [0; BYTES],
        cleared: [0; BYTES],
        again: [0; BYTES],
        levels: [u8::MAX; LEVELS],
        times: [0; CHUNK as usize],
        newest: i64::MIN,
        order: None,
        changed: false,
    };

    /// At most some 850 bytes. What is at its end older versions do not read.
    fn value(&self) -> String {
        let packed = |bytes: &[u8]| -> String {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            STANDARD_NO_PAD.encode(&bytes[..end])
        };
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let times: Vec<u8> = self.times.iter().flat_map(|time| time.to_le_bytes()).collect();
        format!(
            "2:{}:{}:{}:{}:{}:{}:{}",
            number(self.order),
            number(Some(self.newest).filter(|newest| *newest > i64::MIN)),
            packed(&self.told),
            packed(&self.cleared),
            packed(&self.again),
            packed(&times),
            packed(&self.levels),
        )
    }

    fn read(value: &str) -> Option<Self> {
        let mut parts = value.strip_prefix("2:")?.split(':');
        let mut number = || match parts.next()? {
            "-" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (order, newest) = (number()?, number()?.unwrap_or(i64::MIN));
        let (told, cleared, again) =
            (unpacked(parts.next()?)?, unpacked(parts.next()?)?, unpacked(parts.next()?)?);
        let bytes: [u8; 4 * CHUNK as usize] = unpacked(parts.next()?)?;
        let mut times = [0; CHUNK as usize];
        for (time, bytes) in times.iter_mut().zip(bytes.chunks_exact(4)) {
            *time = bytes.iter().rev().fold(0, |time, byte| time << 8 | u32::from(*byte));
        }
        let levels = parts.next().map_or(Some([u8::MAX; LEVELS]), unpacked)?;
        Some(Self { told, cleared, again, levels, times, newest, order, changed: false })
    }

    /// Whether this is the alert of that time that was told.
    fn has(&self, at: usize, time: Option<i64>) -> bool {
        bit(&self.told, at)
            && time.is_none_or(|time| match self.times[at] {
                0 => self.newest == i64::MIN || time <= self.newest,
                known => known == short(time),
            })
    }

    fn step(&mut self, at: usize, seen: &Seen<'_>, order: Option<i64>) -> (Step, bool) {
        if self.order != order {
            (self.order, self.again) = (order, [0; BYTES]);
        }
        let told = self.has(at, seen.time);
        let second = told && order.is_some() && !bit(&self.again, at);
        let cleared = bit(&self.cleared, at) && !second;
        let level = seen.severity as u8;
        let step = match seen.state {
            AlertState::Raised if !told || second || (!cleared && self.level(at) < level) => Step::Raise,
            AlertState::Raised => Step::Nothing,
            AlertState::Cleared if told && cleared => Step::Nothing,
            AlertState::Cleared if told || seen.backlog => Step::Clear,
            AlertState::Cleared => Step::RaiseAndClear,
        };
        if step != Step::Nothing {
            put(&mut self.told, at, true);
            put(&mut self.cleared, at, step != Step::Raise);
            put(&mut self.again, at, order.is_some());
            self.changed = true;
        }
        if self.level(at) != level {
            let (byte, shift) = (&mut self.levels[at / 4], at % 4 * 2);
            *byte = *byte & !(3 << shift) | level << shift;
            self.changed = true;
        }
        // One that was told without its time, or by a version that kept none, has it from now on.
        if let Some(time) = seen.time.map(short).filter(|time| *time != self.times[at]) {
            self.times[at] = time;
            self.changed = true;
        }
        (step, second)
    }

    /// How bad an alert was when it was last seen: the place of its severity.
    fn level(&self, at: usize) -> u8 {
        self.levels[at / 4] >> (at % 4 * 2) & 3
    }

    /// Takes over what another says was told.
    fn merge(&mut self, other: &Self) {
        for at in (0..CHUNK as usize).filter(|at| bit(&other.told, *at)) {
            put(&mut self.told, at, true);
            put(&mut self.cleared, at, bit(&other.cleared, at));
        }
        self.newest = self.newest.max(other.newest);
        self.changed = true;
    }
}

/// What tells the times of two uses of a number apart, never 0: milliseconds, of which 49 days differ.
fn short(time: i64) -> u32 {
    (time.rem_euclid(1 << 32) as u32).max(1)
}

fn unpacked<const N: usize>(text: &str) -> Option<[u8; N]> {
    let read = STANDARD_NO_PAD.decode(text).ok()?;
    let mut bytes = [0; N];
    bytes.get_mut(..read.len())?.copy_from_slice(&read);
    Some(bytes)
}

/// A mark of version 0.3.0, as chunks.
fn read_old(value: &str) -> Option<Vec<Chunk>> {
    let mut parts = value.split(':');
    let newest = parts.next()?.parse().ok()?;
    let told: [u8; PIECES * BYTES] = unpacked(parts.next()?)?;
    let cleared: [u8; PIECES * BYTES] = unpacked(parts.next()?)?;
    let pieces = told.chunks_exact(BYTES).zip(cleared.chunks_exact(BYTES));
    let chunk = |(told, cleared): (&[u8], &[u8])| {
        Some(Chunk { told: told.try_into().ok()?, cleared: cleared.try_into().ok()?, newest, ..Chunk::EMPTY })
    };
    pieces.map(chunk).collect()
}

/// Chunks of the same numbers of a sensor: what each meant first, then, and so on.
#[derive(Debug, Default)]
struct Uses {
    chunks: Vec<Chunk>,
    /// When they were last mentioned, in questions.
    touched: u64,
}

impl Uses {
    /// In which chunk an alert is, or has its place.
    fn place(&self, at: usize, time: Option<i64>) -> usize {
        let Some(last) = self.chunks.iter().rposition(|chunk| bit(&chunk.told, at)) else { return 0 };
        if time.is_none() {
            return last;
        }
        let known = self.chunks.iter().position(|chunk| chunk.has(at, time));
        known.unwrap_or((last + 1).min(USES_MAX - 1))
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
    uses: HashMap<(Box<str>, u64), Uses>,
    chunks: usize,
    /// The order to read again, where there was one.
    order: Option<i64>,
    /// Conditions that stand, with the order by which they were told; `1`: by none.
    open: BTreeMap<String, String>,
    set: Vec<Mark>,
    forgotten: Vec<Mark>,
    questions: u64,
}

impl Told {
    /// From what is remembered; a mark that cannot be read is as if absent.
    pub fn load(remembered: &Remembered) -> Self {
        let order = remembered.mark(ORDER_MARK).and_then(|order| order.parse().ok());
        let mut told = Self { order: order.filter(|_| remembered.again().is_some()), ..Self::default() };
        let mut old = Vec::new();
        for mark in remembered.marks() {
            if let Some(id) = mark.name.strip_prefix(OPEN_MARK) {
                told.open.insert(id.to_owned(), mark.value.clone());
            } else if let Some((sensor, place)) =
                mark.name.strip_prefix(CHUNK_MARK).and_then(|rest| rest.rsplit_once('/'))
            {
                match place.split_once('.') {
                    Some((number, at)) => told.load_chunk(sensor, number, at, &mark.value),
                    None => old.push((sensor, place, mark)),
                }
            }
        }
        // What 0.3.0 wrote becomes marks of this version in the first batch, which forgets the old ones: both or none.
        for (sensor, place, mark) in old {
            let number = place.parse::<u64>().ok().and_then(|number| number.checked_mul(PIECES as u64));
            let (Some(number), Some(pieces)) = (number, read_old(&mark.value)) else { continue };
            for (at, piece) in pieces.iter().enumerate().filter(|(_, piece)| piece.told != [0; BYTES]) {
                told.chunk(sensor, number + at as u64, 0).merge(piece);
            }
            told.forgotten.push(mark.clone());
        }
        told
    }

    fn load_chunk(&mut self, sensor: &str, number: &str, at: &str, value: &str) {
        if let (Ok(number), Ok(at), Some(chunk)) = (number.parse(), at.parse(), Chunk::read(value))
            && at < USES_MAX
        {
            *self.chunk(sensor, number, at) = chunk;
        }
    }

    fn chunk(&mut self, sensor: &str, number: u64, at: usize) -> &mut Chunk {
        let uses = self.uses.entry((sensor.into(), number)).or_default();
        while uses.chunks.len() <= at {
            uses.chunks.push(Chunk::EMPTY);
            self.chunks += 1;
        }
        &mut uses.chunks[at]
    }

    /// Before each question: what is mentioned in its answer is what the other side still has.
    pub fn next_question(&mut self) {
        self.questions += 1;
    }

    /// What is to be told of an alert; from now on it is taken as told.
    pub fn step(&mut self, seen: &Seen<'_>) -> News {
        let key = (Box::from(seen.sensor), seen.number / CHUNK);
        let at = (seen.number % CHUNK) as usize;
        let (place, chunks) =
            self.uses.get(&key).map_or((0, 0), |uses| (uses.place(at, seen.time), uses.chunks.len()));
        if place >= chunks && self.chunks >= CHUNKS_MAX {
            self.forget_oldest(&key);
        }
        let (order, number) = (self.order, key.1);
        let chunk = self.chunk(seen.sensor, number, place);
        let (step, second) = chunk.step(at, seen, order);
        let anew = (place > 0).then_some(chunk.times[at]);
        if let Some(uses) = self.uses.get_mut(&key) {
            uses.touched = self.questions;
        }
        News { step, second, anew }
    }

    /// What is to be told of a condition that may come and go (a sensor that is away).
    pub fn condition(&mut self, id: &str, state: AlertState) -> Step {
        let value = self.order.map_or_else(|| "1".to_owned(), |order| order.to_string());
        let mark = Mark { name: format!("{OPEN_MARK}{id}"), value };
        let told = self.open.get(id);
        // One that stood when it was ordered to be read again is told once more, and is over in any case when it is over.
        let is_told = told.is_some_and(|told| self.order.is_none() || *told == mark.value);
        match state {
            AlertState::Raised if !is_told && (told.is_some() || self.open.len() < OPEN_MAX) => {
                self.open.insert(id.to_owned(), mark.value.clone());
                self.forgotten.retain(|other| other.name != mark.name);
                self.set.retain(|other| other.name != mark.name);
                self.set.push(mark);
                Step::Raise
            }
            AlertState::Cleared if self.open.remove(id).is_some() => {
                self.set.retain(|other| other.name != mark.name);
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
        for ((sensor, number), uses) in &mut self.uses {
            for (at, chunk) in uses.chunks.iter_mut().enumerate().filter(|(_, chunk)| chunk.changed) {
                chunk.changed = false;
                set.push(Mark { name: chunk_name(sensor, *number, at), value: chunk.value() });
            }
        }
        let forgotten = std::mem::take(&mut self.forgotten);
        let cursors = |marks: Vec<Mark>| marks.into_iter().map(Cursor::Mark).collect();
        (cursors(set), cursors(forgotten))
    }

    /// Whether [`changes`](Self::changes) would say anything.
    pub fn has_changes(&self) -> bool {
        let mut chunks = self.uses.values().flat_map(|uses| &uses.chunks);
        !self.set.is_empty() || !self.forgotten.is_empty() || chunks.any(|chunk| chunk.changed)
    }

    /// Makes room for a chunk of these numbers, which stay.
    fn forget_oldest(&mut self, kept: &(Box<str>, u64)) {
        let others = self.uses.iter().filter(|(key, _)| *key != kept);
        let oldest = others.min_by_key(|(key, uses)| (uses.touched, key.1)).map(|(key, _)| key.clone());
        let Some((key, uses)) = oldest.and_then(|key| self.uses.remove_entry(&key)) else { return };
        self.chunks -= uses.chunks.len();
        let names = (0..uses.chunks.len()).map(|at| chunk_name(&key.0, key.1, at));
        self.forgotten.extend(names.map(|name| Mark { name, value: String::new() }));
    }
}

fn chunk_name(sensor: &str, number: u64, at: usize) -> String {
    format!("{CHUNK_MARK}{sensor}/{number}.{at}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::cursor::{Again, MARK_MAX};

    fn seen(number: u64, state: AlertState, time: i64) -> Seen<'static> {
        Seen { sensor: "4", number, state, severity: Severity::Minor, time: Some(time), backlog: false }
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
            assert_eq!(told.step(&what).step, expected, "{what:?}");
        }
    }

    #[test]
    fn an_alert_that_gets_worse_is_told_once_more() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        for (what, severity, expected) in [
            (seen(1, Raised, 10), Severity::Minor, Step::Raise),
            (seen(2, Raised, 10), Severity::Critical, Step::Raise),
            (seen(1, Raised, 10), Severity::Minor, Step::Nothing),
            (seen(1, Raised, 10), Severity::Major, Step::Raise),
            (seen(1, Raised, 10), Severity::Major, Step::Nothing),
            (seen(1, Raised, 10), Severity::Warning, Step::Nothing),
            (seen(1, Raised, 10), Severity::Minor, Step::Raise),
            (seen(2, Raised, 10), Severity::Critical, Step::Nothing),
            (seen(1, Cleared, 10), Severity::Critical, Step::Clear),
            // An answer that was late.
            (seen(1, Raised, 10), Severity::Critical, Step::Nothing),
        ] {
            assert_eq!(told.step(&Seen { severity, ..what }).step, expected, "{what:?} {severity:?}");
            keep(&mut stored, &mut told);
            told = load(&stored);
        }
    }

    #[test]
    fn how_bad_an_alert_was_an_older_version_did_not_keep() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        told.step(&seen(1, Raised, 10));
        keep(&mut stored, &mut told);
        for mark in stored.values_mut() {
            mark.value.truncate(mark.value.rfind(':').unwrap());
        }
        let mut told = load(&stored);
        assert_eq!(told.step(&seen(1, Raised, 10)).step, Step::Nothing);
        assert_eq!(told.step(&Seen { severity: Severity::Major, ..seen(1, Raised, 10) }).step, Step::Raise);
    }

    #[test]
    fn a_number_that_is_used_anew_is_told_anew() {
        let mut told = Told::default();
        for (what, expected, anew) in [
            (seen(1, Raised, 10), Step::Raise, false),
            (seen(1, Cleared, 10), Step::Clear, false),
            (seen(1, Raised, 5_000), Step::Raise, true),
            (seen(1, Raised, 5_000), Step::Nothing, true),
            (seen(1, Cleared, 5_000), Step::Clear, true),
            (seen(1, Cleared, 9_000), Step::RaiseAndClear, true),
            // A clock that went back, and an answer that still has all of them.
            (seen(1, Raised, 7), Step::Raise, true),
            (seen(1, Cleared, 10), Step::Nothing, false),
            (seen(1, Cleared, 5_000), Step::Nothing, true),
            (Seen { time: None, ..seen(1, Cleared, 0) }, Step::Clear, true),
            (seen(1, Cleared, 7), Step::Nothing, true),
        ] {
            let news = told.step(&what);
            assert_eq!((news.step, news.anew.is_some()), (expected, anew), "{what:?}");
        }
    }

    #[test]
    fn a_sensor_that_was_set_up_again_loses_no_alert() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        let first = (1..=5).map(|number| seen(number, Raised, number as i64));
        // Newest first, and all of the same millisecond.
        let second = (1..=5).rev().map(|number| seen(number, Raised, 100 + number as i64));
        let third = (1..=5).map(|number| seen(number, Raised, 200));
        let all: Vec<_> = first.chain(second).chain(third).collect();
        let mut ids = BTreeSet::new();
        for what in &all {
            let news = told.step(what);
            assert_eq!(news.step, Step::Raise, "{what:?}");
            assert!(ids.insert((what.number, news.anew)), "{what:?} is another finding");
            keep(&mut stored, &mut told);
            told = load(&stored);
        }
        // Whichever of them an answer still has: none is news, and each keeps the finding that it is.
        for what in &all {
            let news = told.step(what);
            assert_eq!(news.step, Step::Nothing, "{what:?}");
            assert!(ids.contains(&(what.number, news.anew)), "{what:?}");
            assert_eq!(told.step(&Seen { state: Cleared, ..*what }), News { step: Step::Clear, ..news });
        }
        // More often than is kept: told all the same.
        for time in 300..310 {
            assert_eq!(told.step(&seen(3, Raised, time)).step, Step::Raise);
        }
        assert_eq!(told.step(&seen(3, Cleared, 3)).step, Step::Nothing);
    }

    #[test]
    fn what_an_older_version_remembers_is_read() {
        // Numbers 1 and 200 of chunk 0 were told, 200 as cleared, the newer of them at 500.
        let mut bits = [[0_u8; PIECES * BYTES]; 2];
        (bits[0][0], bits[0][25], bits[1][25]) = (2, 1, 1);
        let [raised, cleared] = bits.map(|bits| STANDARD_NO_PAD.encode(&bits[..26]));
        let name = format!("{CHUNK_MARK}4/0");
        let mark = Mark { name: name.clone(), value: format!("500:{raised}:{cleared}") };
        let mut stored = HashMap::from([(name.clone(), mark)]);
        let mut told = load(&stored);
        assert!(told.has_changes());
        keep(&mut stored, &mut told);
        assert!(!stored.contains_key(&name) && stored.len() == 2, "{stored:?}");
        let mut told = load(&stored);
        for (what, expected) in [
            (seen(1, Raised, 400), Step::Nothing),
            (seen(1, Cleared, 400), Step::Clear),
            (seen(200, Cleared, 500), Step::Nothing),
            (seen(2, Raised, 300), Step::Raise),
            // Its time is known by now, so that an older one is another alert.
            (seen(200, Raised, 450), Step::Raise),
            (seen(1, Raised, 501), Step::Raise),
        ] {
            assert_eq!(told.step(&what).step, expected, "{what:?}");
        }
    }

    #[test]
    fn an_order_to_read_again_tells_once_more_what_was_told_and_as_such() {
        let mut stored = HashMap::new();
        let mut told = Told::default();
        for what in [seen(1, Raised, 10), seen(2, Raised, 11), seen(2, Cleared, 11), seen(1, Raised, 90)] {
            told.step(&what);
        }
        keep(&mut stored, &mut told);
        for order in ["77", "78"] {
            ordered(&mut stored, order);
            told = load(&stored);
            for (what, step, second) in [
                (seen(1, Raised, 10), Step::Raise, true),
                (seen(2, Cleared, 11), Step::Clear, true),
                (seen(1, Raised, 90), Step::Raise, true),
            ] {
                let news = told.step(&what);
                assert_eq!((news.step, news.second), (step, second), "{order}: {what:?}");
            }
            keep(&mut stored, &mut told);
            told = load(&stored);
            for number in [1, 2] {
                assert_eq!(
                    told.step(&seen(number, Raised, 9 + number as i64)).step,
                    Step::Nothing,
                    "{order}"
                );
            }
        }
        // What was never told before the order is news.
        let late = told.step(&seen(3, Raised, 1));
        assert_eq!(late, News { step: Step::Raise, second: false, anew: None });
        assert_eq!(told.step(&seen(3, Raised, 1)).step, Step::Nothing);
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

    #[test]
    fn what_stands_when_it_is_read_again_is_told_once_more_and_over_when_it_is_over() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        for id in ["stays", "returns"] {
            assert_eq!(told.condition(id, Raised), Step::Raise);
        }
        keep(&mut stored, &mut told);
        ordered(&mut stored, "77");
        let mut told = load(&stored);
        assert_eq!(told.condition("stays", Raised), Step::Raise);
        assert_eq!(told.condition("stays", Raised), Step::Nothing);
        assert_eq!(told.condition("returns", Cleared), Step::Clear, "it was told before the order");
        keep(&mut stored, &mut told);
        let mut told = load(&stored);
        assert_eq!(told.condition("stays", Raised), Step::Nothing);
        assert_eq!(told.condition("stays", Cleared), Step::Clear);
        assert_eq!(told.condition("returns", Cleared), Step::Nothing);
    }

    fn load(stored: &HashMap<String, Mark>) -> Told {
        let cursors = stored.values().cloned().map(Cursor::Mark).collect();
        Told::load(&Remembered { cursors, read_before: true })
    }

    /// It is ordered to be read again.
    fn ordered(stored: &mut HashMap<String, Mark>, order: &str) {
        let again = Again { since: None, known_to: 9, before: None };
        for mark in [again.mark(), Mark { name: ORDER_MARK.to_owned(), value: order.to_owned() }] {
            stored.insert(mark.name.clone(), mark);
        }
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
        assert_eq!((told.chunks, told.uses.len(), stored.len()), (CHUNKS_MAX, CHUNKS_MAX, CHUNKS_MAX));
        assert_eq!(told.step(&seen(0, Raised, 1)).step, Step::Nothing, "it is mentioned all the time");
        assert_eq!(told.step(&seen(CHUNK + 5, Raised, 1)).step, Step::Raise, "forgotten, so told once more");
    }

    #[test]
    fn a_full_chunk_fits_into_its_mark() {
        let (mut told, mut stored) = (Told::default(), HashMap::new());
        for number in 0..CHUNK {
            told.step(&seen(number, Cleared, i64::MIN + number as i64));
        }
        told.chunk("4", 0, 0).order = Some(i64::MIN);
        told.chunk("4", 0, 0).newest = i64::MAX;
        told.chunk("4", 0, 0).again = [255; BYTES];
        keep(&mut stored, &mut told);
        let value = stored.values().next().map_or(0, |mark| mark.value.len());
        assert!((700..MARK_MAX).contains(&value), "{value}");
    }

    proptest! {
        #[test]
        fn what_was_told_outlives_a_restart(
            steps in prop::collection::vec((0_u64..500, 0_i64..3, any::<bool>(), any::<bool>()), 1..200)
        ) {
            let (mut kept, mut fresh) = (Told::default(), Told::default());
            let mut stored = HashMap::new();
            for (number, time, handled, restart) in steps {
                if restart {
                    fresh = load(&stored);
                }
                let state = if handled { Cleared } else { Raised };
                let what = seen(number, state, number as i64 + time);
                prop_assert_eq!(kept.step(&what), fresh.step(&what));
                keep(&mut stored, &mut fresh);
            }
        }

        #[test]
        fn any_mark_is_read_without_panic(name in "\\PC{0,30}", value in "\\PC{0,60}") {
            for end in ["7", "7.0", "7.3", "7.4", "1152921504606846975", "18446744073709551615"] {
                for start in ["", "2:", "2:-:-:", "5:////:"] {
                    let mark = Mark { name: format!("{CHUNK_MARK}{name}/{end}"), value: format!("{start}{value}") };
                    load(&HashMap::from([(mark.name.clone(), mark)]));
                }
            }
        }
    }
}
