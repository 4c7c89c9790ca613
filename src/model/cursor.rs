//! How far a source was read. Committed in the same transaction as the alerts it produced, so after a power cut it is
//! read on from exactly where the store ends: nothing twice, nothing missed.

use serde::{Deserialize, Serialize};

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
    /// The path it had when last seen. For people only: identity is device, inode and head.
    pub path: String,
    /// What the decoder has learnt from the file up to `offset` (the header of a Zeek log).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
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
    /// The value of the mark of this name.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.cursors.iter().find_map(|cursor| match cursor {
            Cursor::Mark(mark) if mark.name == name => Some(mark.value.as_str()),
            _ => None,
        })
    }
}
