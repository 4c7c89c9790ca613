//! Commands: a file each.

#[cfg(feature = "simulator")]
pub mod simulate;

use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
