//! `otrelay help`: of a command, of a number that stands beside a message, of all of these.

use std::io::Write;

use clap::Args;

use super::{CliError, Exit, Outcome};
use crate::model::codes::{CODES, Code};
use crate::model::text::one_line;

/// Arguments of `otrelay help`.
#[derive(Args, Clone, Debug)]
pub struct HelpArgs {
    /// A command, a number beside a message (E101), its words (disk-full), or `errors`: all numbers
    #[arg(value_name = "COMMAND|CODE")]
    pub about: Vec<String>,
    /// The numbers as the page of the book
    #[arg(long, hide = true)]
    pub page: bool,
}

pub(super) fn run(args: &HelpArgs, command: clap::Command, out: &mut dyn Write) -> Outcome {
    if args.page {
        out.write_all(page().as_bytes())?;
        return Ok(Exit::Fine);
    }
    let words: Vec<&str> = args.about.iter().map(String::as_str).collect();
    if let [one] = words[..] {
        if one == "errors" {
            list(out)?;
            return Ok(Exit::Fine);
        }
        if let Some(code) = Code::of(one) {
            tell(code, out)?;
            return Ok(Exit::Fine);
        }
    }
    let mut command = command;
    // Names and the version as where the command is run itself.
    command.build();
    for word in &words {
        let Some(found) = command.find_subcommand(word) else {
            return Err(CliError::Words(format!(
                "there is no command and no code `{}`; otrelay help lists the commands, otrelay help errors the codes",
                one_line(word)
            )));
        };
        command = found.clone();
    }
    write!(out, "{}", command.render_long_help())?;
    Ok(Exit::Fine)
}

fn tell(code: &Code, out: &mut dyn Write) -> std::io::Result<()> {
    let plain = |text: &str| text.replace('`', "");
    writeln!(out, "{} {}", code.number, code.name)?;
    for (head, text) in [("means", code.means), ("comes from", code.comes), ("remedy", code.remedy)] {
        writeln!(out, "{head:11} {}", plain(text))?;
    }
    Ok(())
}

fn list(out: &mut dyn Write) -> std::io::Result<()> {
    CODES.iter().try_for_each(|code| {
        writeln!(out, "{} {:22} {}", code.number, code.name, code.means.replace('`', ""))
    })
}

/// `docs/errors.md`, made by `otrelay help --page`.
pub fn page() -> String {
    use std::fmt::Write as _;

    let mut page = String::from(
        "# Errors and their remedies\n\nThe number stands beside the message; `otrelay help E101` says the same on the box. \
         What is in `status --json` under `code` are the words behind the number.\n",
    );
    for (first, title) in [("E1", "What needs a person"), ("E2", "The config"), ("E3", "A command failed")] {
        // Writing to a string does not fail.
        let _ = writeln!(page, "\n## {title}");
        for code in CODES.iter().filter(|code| code.number.starts_with(first)) {
            let Code { number, name, means, comes, remedy } = code;
            let _ = writeln!(
                page,
                "\n### {number} {name}\n\n{means}\n\n- Comes from: {comes}\n- Remedy: {remedy}"
            );
        }
    }
    page
}
