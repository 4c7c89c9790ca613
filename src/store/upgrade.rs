//! Before an upgrade: a copy of the older version's database. And how any copy of an open database is written.

use std::path::Path;

use rusqlite::Connection;

use super::disk::files::{self, failed, is_there, seal, sync_dir, with};
use super::{DATABASE, OpenError, Settings, schema};
use crate::model::Timestamp;

/// Writes a copy of an open database to `to`, and syncs it.
pub(super) fn copy(from: &Connection, to: &Path) -> Result<(), OpenError> {
    // SQLite writes into an empty file; so it is never readable to others, whatever the umask.
    if is_there(to) {
        std::fs::remove_file(to).map_err(failed(to))?;
    }
    files::create_ours(to).map_err(failed(to))?;
    vacuum(from, to)?;
    seal(to)
}

/// Writes a copy of an open database into an empty file.
pub(super) fn vacuum(from: &Connection, to: &Path) -> Result<(), OpenError> {
    let name = to.to_str().ok_or_else(|| {
        failed(to)(std::io::Error::new(std::io::ErrorKind::InvalidFilename, "the path is not UTF-8"))
    })?;
    from.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

/// Before an upgrade the database of the older version is copied beside it, where there is room: a downgrade needs it.
/// Without room the upgrade goes on all the same, and says so: it is one transaction, and alerts have to be taken in.
pub(super) fn before_upgrade(settings: &Settings, version: i64, now: Timestamp) -> Result<(), OpenError> {
    let dir = &settings.dir;
    let (path, name) = (dir.join(DATABASE), files::name_older(version));
    let size = files::SIDES.iter().filter_map(|side| std::fs::metadata(with(&path, side)).ok());
    let size: u64 = size.map(|m| m.len()).sum();
    let kept = dir.join(&name);
    let told = |why: &str| {
        tracing::warn!(
            "the store goes from schema {version} to {} without a copy of the old one: {why}",
            schema::version()
        );
    };
    files::bound(dir, settings.max_size.saturating_sub(2 * size), now);
    if size > settings.max_size / 2 {
        told("it would not fit into [buffer] max_size");
        return Ok(());
    }
    let temporary = with(&kept, ".tmp");
    let conn = schema::open_beside(&path)?;
    let made = copy(&conn, &temporary);
    drop(conn);
    match made {
        Ok(()) => {
            std::fs::rename(&temporary, &kept).map_err(failed(&kept))?;
            sync_dir(dir)?;
            tracing::info!(copy = %kept.display(), "the store is upgraded from schema {version} to {}", schema::version());
            Ok(())
        }
        Err(e) => {
            drop(std::fs::remove_file(&temporary));
            let is_full = matches!(&e, OpenError::Sqlite(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
            if is_full {
                told("the disk is full");
                return Ok(());
            }
            Err(e)
        }
    }
}
