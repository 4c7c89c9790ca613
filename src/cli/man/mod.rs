//! `otrelay man DIR`: the manual pages, written for the package and for whoever installs without one.
//!
//! Section 1 comes from the arguments as they are parsed, section 5 from the schema of the config, so neither can fall
//! behind the program. Section 8, the service, is prose: `packaging/man/otrelay.8`, where only the version and the date
//! are put in. The date is the release date and not today's: the same program writes the same pages.

mod config_page;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::{CliError, Exit, Outcome};
use crate::clock::RELEASED_AT;

const SERVICE_PAGE: &str = include_str!("../../../packaging/man/otrelay.8");
/// The exit codes that any command may end with.
const EXIT_CODES: [(&str, &str); 6] = [
    ("0", "All is well."),
    ("1", "It did not work; what and why is on stderr."),
    ("2", "The command line could not be understood."),
    ("74", "The disk failed; the service is started again and looks at what is there."),
    ("75", "Try again later: the state directory is in use, or something still waits."),
    ("78", "The config, or a state directory of a newer version. The service is not restarted on it."),
];

/// Arguments of `otrelay man`.
#[derive(Clone, Debug, clap::Args)]
pub struct ManArgs {
    /// Where the pages are written; it is made when it is not there, and pages in it are replaced.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// A manual page: file name and text.
struct Page {
    name: String,
    text: Vec<u8>,
}

/// Writes all pages of `command` and names each file on `out`.
pub(super) fn run(args: &ManArgs, command: Command, out: &mut dyn Write) -> Outcome {
    let dir = &args.directory;
    fs::create_dir_all(dir).map_err(|e| unwritable(dir, &e))?;
    for page in pages(command)? {
        let path = dir.join(page.name);
        fs::write(&path, page.text).map_err(|e| unwritable(&path, &e))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(Exit::Fine)
}

fn unwritable(path: &Path, e: &io::Error) -> CliError {
    let path = path.display();
    CliError::Words(format!("cannot write {path}: {e}; give a directory that this user may write to"))
}

/// Every page, in the order of their names within a section.
fn pages(command: Command) -> io::Result<Vec<Page>> {
    let mut all = Vec::new();
    // A page about the help of each command says nothing that the command's own page does not.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    command_pages(&command, &mut all)?;
    all.push(Page { name: "otrelay.toml.5".into(), text: config_page::render(&crate::config::schema())? });
    all.push(Page { name: "otrelay.8".into(), text: service_page().into_bytes() });
    Ok(all)
}

fn command_pages(command: &Command, all: &mut Vec<Page>) -> io::Result<()> {
    all.push(command_page(command)?);
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        command_pages(sub, all)?;
    }
    Ok(())
}

fn command_page(command: &Command) -> io::Result<Page> {
    let man = Man::new(command.clone()).date(release_date()).source(source()).manual(MANUAL);
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let mut rest = Roff::new();
    rest.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_CODES {
        rest.control("TP", []);
        rest.text([bold(code)]);
        rest.text([roman(meaning)]);
    }
    rest.control("SH", ["SEE ALSO"]);
    rest.text(see_also(name));
    rest.to_writer(&mut text)?;
    Ok(Page { name: man.get_filename(), text: tidied(&text) })
}

/// What formatters warn about: the generator ends the synopsis with a space, and breaks the line twice, with an empty one
/// between, before the values of an option.
fn tidied(text: &[u8]) -> Vec<u8> {
    let lines: String =
        String::from_utf8_lossy(text).lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
    lines.replace("\n.br\n\n.br\n", "\n.br\n").into_bytes()
}

fn see_also(name: &str) -> Vec<Inline> {
    let mut inlines = Vec::new();
    for (page, section) in [("otrelay", "(1)"), ("otrelay.toml", "(5)"), ("otrelay", "(8)")] {
        if page == name && section == "(1)" {
            continue;
        }
        if !inlines.is_empty() {
            inlines.push(roman(", "));
        }
        inlines.extend([bold(page), roman(section)]);
    }
    inlines
}

fn service_page() -> String {
    SERVICE_PAGE.replace("@DATE@", &release_date()).replace("@VERSION@", env!("CARGO_PKG_VERSION"))
}

const MANUAL: &str = "otrelay";

fn source() -> String {
    format!("otrelay {}", env!("CARGO_PKG_VERSION"))
}

/// The release date, `YYYY-MM-DD`.
fn release_date() -> String {
    let text = RELEASED_AT.to_string();
    text.get(..10).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn all() -> Vec<Page> {
        pages(Cli::command()).unwrap()
    }

    fn text(name: &str) -> String {
        let page = all().into_iter().find(|page| page.name == name);
        String::from_utf8(page.unwrap_or_else(|| panic!("no page {name}")).text).unwrap()
    }

    #[test]
    fn every_command_has_a_page_and_no_page_is_there_twice() {
        let names: Vec<String> = all().into_iter().map(|page| page.name).collect();
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        for command in Cli::command().get_subcommands() {
            let name = format!("otrelay-{}.1", command.get_name());
            assert!(distinct.contains(&name), "{name} is not in {names:?}");
        }
        for name in ["otrelay.1", "otrelay-queue-list.1", "otrelay.toml.5", "otrelay.8"] {
            assert!(distinct.contains(&name.to_owned()), "{name} is not in {names:?}");
        }
        assert!(
            !names
                .iter()
                .any(|name| name.contains("help-") || name.contains("-help.1") && name != "otrelay-help.1"),
            "{names:?}"
        );
    }

    #[test]
    fn every_page_names_itself_its_section_its_version_and_its_date() {
        for page in all() {
            let text = String::from_utf8(page.text).unwrap();
            let (title, section) = page.name.rsplit_once('.').unwrap();
            let head =
                format!(".TH {title} {section} {} \"otrelay {}\"", release_date(), env!("CARGO_PKG_VERSION"));
            // The first lines are the writer's own set-up.
            assert!(
                text.lines().any(|line| line.starts_with(&head)),
                "{}: no `{head}` in\n{text}",
                page.name
            );
            assert!(!text.contains('@'), "{}: a mark was left", page.name);
        }
    }

    #[test]
    fn the_pages_name_every_exit_code() {
        let service = text("otrelay.8");
        for exit in [Exit::Fine, Exit::Failure, Exit::Disk, Exit::Later, Exit::Config] {
            let code = (exit as u8).to_string();
            assert!(EXIT_CODES.iter().any(|(known, _)| *known == code), "{code}");
            assert!(service.contains(&format!("\n.B {code}\n")), "{code} is not in otrelay.8");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named_with_the_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = ManArgs { directory: file.path().join("pages") };
        let error = run(&args, Cli::command(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()) && error.contains("directory"), "{error}");
    }

    #[test]
    fn pages_that_are_there_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join("otrelay.8");
        fs::write(&stale, "old").unwrap();
        let mut out = Vec::new();
        run(&ManArgs { directory: dir.path().into() }, Cli::command(), &mut out).unwrap();
        assert!(fs::read_to_string(&stale).unwrap().contains(".SH NAME"));
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), all().len());
    }
}
