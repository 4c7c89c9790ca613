//! `otrelay backup` and `otrelay restore`: the whole store as one file, out and in again.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::human::json;
use super::{Exit, Outcome, Terminal, clock, load_to_look, owner};
use crate::model::text::one_line;
use crate::store::backup::{self, Copy};
use crate::store::restore::{Given, restore};

/// Arguments of `otrelay backup`.
#[derive(Args, Clone, Debug)]
pub struct BackupArgs {
    /// Where to; it is written beside and renamed, so a file with this name is always whole
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Size, SHA-256 and schema as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `otrelay restore`.
#[derive(Args, Clone, Debug)]
pub struct RestoreArgs {
    /// A file that `otrelay backup` made, or `queue.db.v1` that an upgrade left in the state directory
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// What was restored, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was copied, for people and as JSON.
#[derive(Serialize)]
struct Shown<'a> {
    file: String,
    bytes: u64,
    sha256: &'a str,
    schema: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_as: Option<String>,
}

impl<'a> Shown<'a> {
    fn new(file: &std::path::Path, copy: &'a Copy, kept_as: Option<&PathBuf>) -> Self {
        Self {
            file: file.display().to_string(),
            bytes: copy.bytes,
            sha256: &copy.sha256,
            schema: copy.schema,
            kept_as: kept_as.map(|path| path.display().to_string()),
        }
    }
}

pub(super) fn run_backup(args: &BackupArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load_to_look(terminal)?;
    let dir = &config.store.dir;
    let place = backup::parent(&args.file);
    let copy = if owner::is_root_among_others(dir) || owner::is_root_among_others(place) {
        let export = owner::as_owner(dir, || backup::export(dir))??;
        owner::as_owner(place, || backup::keep(export, dir, &args.file, args.force))??
    } else {
        backup::backup(dir, &args.file, args.force)?
    };
    let shown = Shown::new(&args.file, &copy, None);
    if args.json {
        return json(terminal.out, &shown);
    }
    writeln!(terminal.out, "{}: {} bytes, SHA-256 {}", shown.file, shown.bytes, shown.sha256)?;
    Ok(Exit::Fine)
}

pub(super) fn run_restore(args: &RestoreArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load_to_look(terminal)?;
    // The file may be for root alone.
    let given = Given::open(&args.file)?;
    owner::become_owner(&config.store.dir)?;
    let restored = restore(&config.store, given, clock().now())?;
    let shown = Shown::new(&args.file, &restored.copy, restored.kept_as.as_ref());
    if args.json {
        return json(terminal.out, &shown);
    }
    writeln!(terminal.out, "{} is restored: {} bytes, SHA-256 {}", shown.file, shown.bytes, shown.sha256)?;
    for part in &restored.left_out {
        writeln!(terminal.err, "left out, as it is none of otrelay's: {}", one_line(part))?;
    }
    if let Some(kept) = &shown.kept_as {
        writeln!(terminal.err, "what was there before is kept as {kept}")?;
    }
    writeln!(
        terminal.err,
        "what waits in it is looked up before it is sent; the files are read on from its cursors"
    )?;
    Ok(Exit::Fine)
}
