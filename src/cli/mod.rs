//! Commands: a file each.

pub mod check;
pub mod config;

use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
