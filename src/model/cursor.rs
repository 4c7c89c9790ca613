//! How far a file was read. Committed in the same transaction as the alerts it produced, so after a power cut the
//! file is read on from exactly where the store ends: nothing twice, nothing missed.

use serde::{Deserialize, Serialize};

/// How many bytes at the start of a file identify it beside device and inode (inodes are reused).
pub const HEAD_LEN: usize = 256;

/// How far one file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}
