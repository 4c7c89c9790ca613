//! The `otrelay` program: arguments in, exit code out. Everything else is in the library.

use std::process::ExitCode;

/// The static programs bring their allocator: musl's takes a lock and a search for each small piece.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    otrelay::cli::main()
}
