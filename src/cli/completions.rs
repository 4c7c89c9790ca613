//! `otrelay completions SHELL`: what a shell completes, generated from the arguments as they are parsed. Knows no
//! command by name, so that it cannot fall behind.

use std::io::Write;

use clap::Command;
use clap_complete::Shell;

use super::{Exit, Outcome};

/// Arguments of `otrelay completions`.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// For which shell: bash, elvish, fish, powershell or zsh.
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut command: Command, out: &mut dyn Write) -> Outcome {
    // The generator panics when a write fails, and `otrelay completions bash | head` is no reason to; so it writes to
    // memory.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "otrelay", &mut text);
    out.write_all(&text)?;
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, ValueEnum as _};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in Shell::value_variants() {
            let mut out = Vec::new();
            run(&CompletionsArgs { shell: *shell }, Cli::command(), &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell}: no {}", command.get_name());
            }
        }
    }

    #[test]
    fn the_help_names_every_shell() {
        let command = Cli::command();
        let help =
            command.find_subcommand("completions").unwrap().get_positionals().next().unwrap().get_help();
        let help = help.unwrap().to_string();
        for shell in Shell::value_variants() {
            assert!(help.contains(&shell.to_string()), "{shell} is not in `{help}`");
        }
    }

    #[test]
    fn nobody_who_listens_is_an_error_and_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let args = CompletionsArgs { shell: Shell::Bash };
        assert!(run(&args, Cli::command(), &mut Closed).is_err());
    }
}
