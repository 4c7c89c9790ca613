//! `otrelay completions SHELL`: what a shell completes, generated from the arguments as they are parsed. Knows no
//! command by name, so that it cannot fall behind.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

use super::{Exit, Outcome};

/// Arguments of `otrelay completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Writes the completions of `command` to `out`.
pub(super) fn run(args: &CompletionsArgs, mut command: Command, out: &mut dyn Write) -> Outcome {
    // The generator panics when a write fails, and `otrelay completions bash | head` is no reason to; so it writes to
    // memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "otrelay", &mut text);
    out.write_all(&text)?;
    Ok(Exit::Fine)
}
