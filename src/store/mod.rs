//! 4 — keep. SQLite, one writer.
//!
//! What was answered survives a power cut: operations join a transaction (group commit), and their answers leave only
//! after it was synced. One live ticket per alert, destination and table; states move along the arrows of
//! [`crate::model::DeliveryState`]; rows carry a checksum, because SQLite's pages do not.
//!
//! [`Store`] has one async method per operation (`op/`, one file each); [`Reader`] is for lists and status, beside a
//! running writer or without one. Nothing else in otrelay knows SQL.

mod backing;
pub mod backup;
mod catalog;
mod disk;
mod fallback;
mod gathered;
mod handle;
mod health;
mod held;
mod history;
pub mod op;
mod pack;
mod read;
mod repair;
pub mod restore;
mod rows;
mod schema;
mod session;
mod storms;
mod turns;
mod upgrade;
mod vendors;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use crate::model::codes::Code;

pub use handle::Store;
pub use read::Reader;
pub use rows::{
    AlertRow, AttemptRow, COUNTED, Counts, DeliveryRow, DestinationRow, DeviceCounts, DeviceFilter,
    DeviceRow, DeviceWord, FilteredRow, HistoryPoint, HoldRow, IssueRow, Last, ListFilter, Overview,
    ReadFile, ReadingRow, RejectRow, RepairCount, RepairCounts, RepairRow, Ring, SourceRow, Spent, SyncRow,
    TicketRow, WaitingRow,
};
pub use writer::Writer;

/// Name of the database in the state directory.
pub const DATABASE: &str = "queue.db";

/// `[buffer] when_full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest of the lowest severity goes first, counted.
    ShedLowest,
    /// Nothing more is taken in until there is room.
    Refuse,
}

/// What the store needs to know, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[agent] state_dir`.
    pub dir: PathBuf,
    /// `[buffer] max_size` in bytes, at least 8 MiB.
    pub max_size: u64,
    /// `[buffer] keep_delivered`.
    pub keep_delivered: Duration,
    /// `[buffer] when_full`.
    pub when_full: WhenFull,
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another agent runs on this state directory.
    #[error("the state directory {} is in use by another otrelay{}", dir.display(), by(pid))]
    Locked {
        /// Which directory.
        dir: PathBuf,
        /// Its process, if it said so.
        pid: String,
    },
    /// Written by a newer otrelay. The file is untouched.
    #[error(
        "{} has schema {found}, this otrelay knows up to {known}: it was written by a newer version; install that \
         version again, or restore the backup it made",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// There is no database yet.
    #[error("there is no store at {} yet: otrelay has not run with this state directory", .0.display())]
    Absent(PathBuf),
    /// SQLite is too old to be trusted with a WAL.
    #[error("this otrelay was built with SQLite {0}, which can corrupt a WAL (fixed in 3.51.3)")]
    OldSqlite(String),
    /// A setting did not take.
    #[error("SQLite did not accept {name}: wanted {wanted}, it has {found}")]
    Setting {
        /// Which pragma.
        name: &'static str,
        /// What was asked.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The directory or a file in it could not be used.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A damaged database could not be made anew.
    #[error("the damaged store could not be made anew")]
    Repair(#[source] StoreError),
    /// A schema step failed. All steps are one transaction, so the file is as the older version left it.
    #[error(
        "cannot bring the store to this version's schema; it is as it was, and the version that wrote it can still use it"
    )]
    Migration(#[source] Box<rusqlite_migration::Error>),
    /// SQLite refused.
    #[error("cannot open the store")]
    Sqlite(#[from] rusqlite::Error),
}

impl OpenError {
    /// Whether the disk failed, rather than that something is in the way.
    pub fn is_disk(&self) -> bool {
        let sqlite = match self {
            Self::Io { source, .. } => {
                return source.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
            }
            Self::Sqlite(e) => e,
            Self::Migration(e) => match e.as_ref() {
                rusqlite_migration::Error::RusqliteError { err, .. } => err,
                _ => return false,
            },
            _ => return false,
        };
        sqlite.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
    }
}

fn by(pid: &str) -> String {
    if pid.is_empty() { String::new() } else { format!(" (pid {pid})") }
}

/// An operation did not happen. Nothing of it is in the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No room: `[buffer] max_size`.
    #[error("the store is full ({0})")]
    Full(String),
    /// No room on the disk.
    #[error("the disk is full ({0})")]
    DiskFull(String),
    /// The state directory cannot be written any more; memory takes over.
    #[error("the state directory is read-only ({0})")]
    ReadOnly(String),
    /// Somebody else holds the database: a person with another program, a backup.
    #[error("the store is in use by another program ({0})")]
    Busy(String),
    /// The disk failed. After a failed sync nobody knows what is on it: the process has to start again.
    #[error("the disk failed under the store ({0})")]
    Disk(String),
    /// The database is damaged. The process has to start again: that repairs it.
    #[error("the store is damaged ({0}); the next start repairs it")]
    Damaged(String),
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// Anything else; a fault of ours.
    #[error("the store refused ({0})")]
    Refused(String),
}

impl StoreError {
    /// Its words in the table of codes; empty: the message says all there is.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full(_) => "buffer-full",
            Self::DiskFull(_) => "disk-full",
            Self::Disk(_) | Self::Damaged(_) => "store-failed",
            _ => "",
        }
    }

    /// What goes behind the message: the number of its code, and for what passes what a person can do.
    pub fn behind(&self) -> String {
        let code = Code::of(self.code()).filter(|_| self.is_passing());
        code.map_or_else(|| Code::behind(self.code()), |code| format!(" ({}): {}", code.number, code.remedy))
    }

    /// Whether trying the same again later can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Full(_) | Self::DiskFull(_) | Self::ReadOnly(_) | Self::Busy(_))
    }
}

/// In the text of a [`StoreError::Disk`] after a failed sync.
const NOT_SYNCED: &str = "a sync failed";

/// Whether it was a sync that failed: nobody knows then what is on the disk.
fn is_failed_sync(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};
    e.sqlite_error().is_some_and(|e| [SQLITE_IOERR_FSYNC, SQLITE_IOERR_DIR_FSYNC].contains(&e.extended_code))
}

/// Whether a statement, each of which is tried by a test, does not fit the tables: a name in the schema is not what was
/// written. SQLite takes such a schema, and only who asks for the name finds out.
fn is_of_the_schema(e: &rusqlite::Error) -> bool {
    use rusqlite::Error::{SqlInputError, SqliteFailure};
    match e {
        SqlInputError { error, .. } => error.extended_code == rusqlite::ffi::SQLITE_ERROR,
        SqliteFailure(error, Some(text)) => {
            error.extended_code == rusqlite::ffi::SQLITE_ERROR
                && ["no such ", "has no column named ", "unsupported file format"]
                    .iter()
                    .any(|words| text.contains(words))
        }
        _ => false,
    }
}

impl StoreError {
    /// What an error of SQLite means.
    fn of(e: &rusqlite::Error) -> Self {
        use rusqlite::{Error as Lib, ErrorCode as Code};
        let text = e.to_string();
        // An error of preparing is `None` here.
        match e.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full(text),
            Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy(text),
            Some(Code::SystemIoFailure | Code::CannotOpen | Code::ReadOnly | Code::NoLargeFileSupport) => {
                Self::Disk(if is_failed_sync(e) { format!("{text}; {NOT_SYNCED}") } else { text })
            }
            // Nothing here breaks a constraint on purpose: a row is not what was written, or its index is not.
            Some(
                Code::DatabaseCorrupt | Code::NotADatabase | Code::ConstraintViolation | Code::TypeMismatch,
            ) => Self::Damaged(text),
            _ if is_of_the_schema(e) => Self::Damaged(text),
            Some(_) => Self::Refused(text),
            None => match e {
                Lib::FromSqlConversionFailure(..)
                | Lib::IntegralValueOutOfRange(..)
                | Lib::InvalidColumnType(..)
                | Lib::Utf8Error(..)
                | Lib::QueryReturnedNoRows => Self::Damaged(text),
                _ => Self::Refused(text),
            },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        Self::of(&e)
    }
}

#[cfg(test)]
mod tests;
