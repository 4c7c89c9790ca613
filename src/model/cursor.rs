//! How far a source was read. Committed in the same transaction as the alerts it produced, so after a power cut it is
//! read on from exactly where the store ends: nothing twice, nothing missed.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// How many bytes at the start of a file identify it beside device and inode (inodes are reused).
pub const HEAD_LEN: usize = 256;
/// Longest name or value of a [`Mark`], in bytes.
pub const MARK_MAX: usize = 1024;

/// A place in what a source gives, whatever shape it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cursor {
    /// In a file.
    File(FileCursor),
    /// Any other place.
    Mark(Mark),
}

/// A watermark, a sequence number or an opaque position, by a name of the source's own (`alerts`, `devices`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Which one of the source, at most [`MARK_MAX`] bytes.
    pub name: String,
    /// Where, at most [`MARK_MAX`] bytes; what it means is the source's.
    pub value: String,
}

/// Most proofs of one cursor.
pub const PROOFS_MAX: usize = 8;
/// How many bytes before a place prove it, at most.
pub const PROOF_LEN: usize = 256;

/// What stood before a place in a file when it was read: without it, a log that a power cut made shorter and that was
/// written on since looks like one that only grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Where: the start of a line.
    pub offset: u64,
    /// How many bytes before it are covered, at most [`PROOF_LEN`].
    pub len: u32,
    /// Their hash.
    pub hash: u64,
}

impl Proof {
    /// As it is stored: `offset:len:hash` in hex, separated by blanks.
    pub fn encode(proofs: &[Self]) -> String {
        let one = |p: &Self| format!("{:x}:{:x}:{:x}", p.offset, p.len, p.hash);
        proofs.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Reads what [`encode`](Self::encode) wrote; what is none is left out.
    pub fn decode(text: &str) -> Vec<Self> {
        let one = |word: &str| {
            let mut parts = word.split(':').map(|part| u64::from_str_radix(part, 16).ok());
            let (offset, len, hash) = (parts.next()??, parts.next()??, parts.next()??);
            let len = u32::try_from(len).ok().filter(|len| *len as usize <= PROOF_LEN)?;
            (u64::from(len) <= offset).then_some(Self { offset, len, hash })
        };
        text.split(' ').take(PROOFS_MAX).filter_map(one).collect()
    }

    /// Adds the newest. Of many, those stay that lie closer together the nearer they are to it, so that going back to
    /// the last good one reads little again.
    pub fn add(proofs: &mut Vec<Self>, newest: Self) {
        proofs.retain(|proof| proof.offset < newest.offset);
        proofs.push(newest);
        while proofs.len() > PROOFS_MAX {
            let spare = |at: usize| {
                let room = proofs[at + 1].offset - proofs[at - 1].offset;
                let back = (newest.offset - proofs[at].offset).max(1);
                room as f64 / back as f64
            };
            let least = (1..proofs.len() - 1).min_by(|a, b| spare(*a).total_cmp(&spare(*b)));
            proofs.remove(least.unwrap_or(0));
        }
    }
}

/// How far one file was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCursor {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Hash of the first `head_len` bytes, so that a reused inode is not taken for the old file.
    pub head_hash: u64,
    /// How many bytes `head_hash` covers; less than [`HEAD_LEN`] only while the file was shorter than that.
    pub head_len: u32,
    /// The next byte to read: always the start of a line.
    pub offset: u64,
    /// Where the file ended when the *source* was first read; alerts before it are subject to `backfill`. 0 otherwise.
    pub backlog_end: u64,
    /// Whether it was rotated and read to its end: then it may go without a word. Kept as long as the file is there, so
    /// that it is told from a generation that nobody has read.
    #[serde(default)]
    pub complete: bool,
    /// The path it had when last seen. For people only: identity is device, inode and head.
    pub path: String,
    /// What the decoder has learnt from the file up to `offset` (the header of a Zeek log).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What proves that the file is as it was read, oldest first; the last one is at `offset`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proofs: Vec<Proof>,
}

impl FileCursor {
    /// Whether both are places in the same file.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.device, self.inode, self.head_hash) == (other.device, other.inode, other.head_hash)
    }
}

/// Before every time.
const ALWAYS: Timestamp = Timestamp::from_micros(i64::MIN);

/// Name of the mark of an [`Again`].
pub const AGAIN: &str = "again";

/// A second reading that a person ordered, by which its sightings are told from those that were counted before. It stays
/// until the next order: what is read again is what lies before a file's `backlog_end`, or what a poll had told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// Nothing older is taken in; `None`: all.
    pub since: Option<Timestamp>,
    /// The newest finding that was there when it was ordered: sightings of these were counted as they came.
    pub known_to: i64,
    /// What is younger was read again by an earlier order, and counted by that.
    pub before: Option<Timestamp>,
}

impl Again {
    /// As it is kept.
    pub fn mark(&self) -> Mark {
        let time = |time: Option<Timestamp>| time.map_or("-".to_owned(), |time| time.as_micros().to_string());
        let value = format!("{} {} {}", time(self.since), self.known_to, time(self.before));
        Mark { name: AGAIN.to_owned(), value }
    }

    /// Reads what [`mark`](Self::mark) wrote; `None`: not that.
    pub fn parse(value: &str) -> Option<Self> {
        let mut words = value.split(' ');
        let time = |word: &str| match word {
            "-" => Some(None),
            micros => micros.parse().ok().map(|micros| Some(Timestamp::from_micros(micros))),
        };
        let (since, known_to) = (time(words.next()?)?, words.next()?.parse().ok()?);
        Some(Self { since, known_to, before: time(words.next()?)? })
    }

    /// How far back it reached, for the order after it: nothing before `None`.
    pub fn reached(&self) -> Timestamp {
        let since = self.since.unwrap_or(ALWAYS);
        self.before.map_or(since, |before| before.min(since))
    }

    /// The same, for people: `None` where it and those before it left nothing out.
    pub fn reaches_since(&self) -> Option<Timestamp> {
        Some(self.reached()).filter(|reached| *reached > ALWAYS)
    }
}

/// What is remembered of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// How far it was read.
    pub cursors: Vec<Cursor>,
    /// Whether it was ever read, even if no place is remembered.
    pub read_before: bool,
}

impl Remembered {
    /// All marks.
    pub fn marks(&self) -> impl Iterator<Item = &Mark> + Clone {
        self.cursors.iter().filter_map(|cursor| match cursor {
            Cursor::Mark(mark) => Some(mark),
            Cursor::File(_) => None,
        })
    }

    /// The value of the mark of this name.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.marks().find(|mark| mark.name == name).map(|mark| mark.value.as_str())
    }

    /// The order to read it again, if there was one.
    pub fn again(&self) -> Option<Again> {
        self.mark(AGAIN).and_then(Again::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_are_few_reach_far_back_and_are_read_as_they_were_written() {
        let mut proofs = Vec::new();
        for n in 1..=10_000_u64 {
            Proof::add(&mut proofs, Proof { offset: n * 300, len: 256, hash: n });
        }
        assert_eq!(proofs.len(), PROOFS_MAX);
        let back: Vec<u64> = proofs.iter().map(|proof| 10_000 - proof.hash).collect();
        assert!(back[7] == 0 && back[6] <= 2 && back[5] <= 20 && back[0] == 9_999, "{back:?}");
        assert_eq!(Proof::decode(&Proof::encode(&proofs)), proofs);
    }

    #[test]
    fn an_order_to_read_again_is_read_as_it_was_written() {
        let at = Timestamp::from_secs;
        for (since, before) in [(None, None), (Some(at(-5)), Some(at(7))), (Some(at(9)), None)] {
            let again = Again { since, known_to: 42, before };
            assert_eq!(Again::parse(&again.mark().value), Some(again));
        }
        assert_eq!(["", "-", "- x -", "1 2", "a 1 -"].map(Again::parse), [None; 5]);
        let reached = |since, before| Again { since, known_to: 0, before }.reached();
        assert_eq!(reached(Some(at(9)), Some(at(7))), at(7));
        assert_eq!(reached(Some(at(3)), Some(at(7))), at(3));
        assert!(reached(None, Some(at(7))) < at(-1_000_000_000));
        let since = |since, before| Again { since, known_to: 0, before }.reaches_since();
        assert_eq!(since(Some(at(9)), Some(at(7))), Some(at(7)));
        assert_eq!((since(None, Some(at(7))), since(Some(at(9)), Some(ALWAYS))), (None, None));
    }

    #[test]
    fn what_is_no_proof_is_left_out() {
        for bad in ["", "x", "1:2", "10:ffff:1", "1:5:1", "1:1:g", "::"] {
            assert_eq!(Proof::decode(bad), [], "{bad}");
        }
    }
}
