//! `otrelay login`: user and password once, for a refresh token that is kept. The password is used for that one request
//! and is not saved, not printed and not taken from arguments or the environment.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::PathBuf;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::{CliError, Exit, Outcome, Terminal, begin, clock, load_as_caller, runtime};
use crate::config::Purpose;
use crate::model::{DestinationName, Secret, text};
use crate::servicenow::{self, Auth, ServiceNow, Settings};

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 4096;

/// Arguments of `otrelay login`.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER_HELP)]
pub struct LoginArgs {
    /// The destination, `[servicenow.NAME]`; may be left out when there is one with auth = "refresh-token"
    #[arg(value_name = "DESTINATION")]
    pub destination: Option<String>,

    /// The user, instead of being asked for it
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// Read the password's line from this open file descriptor instead of the terminal; 0 is standard input
    #[arg(long, value_name = "N")]
    pub password_fd: Option<u32>,
}

const AFTER_HELP: &str = "The destination has auth = \"refresh-token\", client_id and client_secret. The refresh token that is obtained \
    is kept in the state directory, mode 0600, and used from then on; the password is not kept. It ends after 100 days by \
    default: otrelay status says so from day 80 on.";

pub(super) fn run(args: &LoginArgs, terminal: &mut Terminal<'_>) -> Outcome {
    // What is read from a descriptor of root's may be for root alone.
    let loaded = load_as_caller(terminal, Purpose::Run)?;
    let (settings, kept) = destination(&loaded.config.destinations, args.destination.as_deref())?;
    let (settings, kept) = (settings.clone(), kept.clone());
    let words = |e: io::Error| CliError::Words(e.to_string());
    let username = match &args.username {
        Some(name) => name.clone(),
        None if args.password_fd.is_some() => {
            return Err(CliError::Words("--password-fd needs --username".to_owned()));
        }
        None => Prompt::open().and_then(|mut prompt| prompt.line("User: ", true)).map_err(words)?,
    };
    let password = if let Some(number) = args.password_fd {
        of_descriptor(number)?
    } else {
        let question =
            format!("Password of {} at {} (not shown): ", text::one_line(&username), settings.instance);
        Prompt::open().and_then(|mut prompt| prompt.line(&question, false)).map_err(words)?
    };
    if username.is_empty() || password.is_empty() {
        return Err(CliError::Words("nothing was kept: no user, or no password".to_owned()));
    }
    begin(loaded, terminal)?;
    let clock = clock();
    let destination = ServiceNow::new(settings.clone(), clock.clone()).map_err(crate::app::AppError::from)?;
    let password = Secret::new("terminal", password);
    let token = runtime()?.block_on(destination.obtain_refresh_token(&username, &password)).map_err(|e| {
        let remedy = if e.remedy.is_empty() { String::new() } else { format!("; {}", e.remedy) };
        CliError::Words(format!("{e}{remedy}"))
    })?;
    servicenow::keep_login(&settings, &token, clock.now()).map_err(|e| {
        CliError::Words(format!("the refresh token could not be kept in {}: {e}", kept.display()))
    })?;
    let name = &settings.name;
    let shown = kept.display();
    writeln!(
        terminal.out,
        "logged in to {} as {}; the refresh token is kept in {shown}, the password is not kept\n\
         a running service uses it from its next log-in on; otrelay sync tries at once\n\
         as a systemd credential instead (then remove the file):\n  \
         systemd-creds encrypt --name=refresh-token-{name} {shown} /etc/credstore.encrypted/refresh-token-{name}\n  \
         LoadCredentialEncrypted=refresh-token-{name} in the unit, and in [servicenow.{name}]:\n  \
         refresh_token = {{ credential = \"refresh-token-{name}\" }}",
        settings.instance,
        text::one_line(&username),
    )?;
    Ok(Exit::Fine)
}

/// The destination that is meant, and where its token is kept.
fn destination<'a>(all: &'a [Settings], name: Option<&str>) -> Result<(&'a Settings, PathBuf), CliError> {
    let kept = |settings: &Settings| match &settings.auth {
        Auth::RefreshToken(own) => Some(own.kept.clone()),
        _ => None,
    };
    let mut with = all.iter().filter_map(|settings| Some((settings, kept(settings)?)));
    let Some(name) = name else {
        return match (with.next(), with.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(CliError::Words(
                "no destination has auth = \"refresh-token\"; the others need no log-in of this kind"
                    .to_owned(),
            )),
            _ => {
                Err(CliError::Words("name the destination: several have auth = \"refresh-token\"".to_owned()))
            }
        };
    };
    let known =
        DestinationName::new(name).ok().and_then(|name| all.iter().find(|settings| settings.name == name));
    let Some(settings) = known else {
        let names: Vec<&str> = all.iter().map(|settings| settings.name.as_str()).collect();
        return Err(CliError::Words(format!(
            "there is no destination `{}`; known: {}",
            text::clip(&text::one_line(name), 64),
            names.join(", ")
        )));
    };
    let kept = kept(settings).ok_or_else(|| {
        CliError::Words(format!(
            "destination {name} needs no such log-in: set auth = \"refresh-token\" for it"
        ))
    })?;
    Ok((settings, kept))
}

/// The first line of a descriptor that the caller has opened.
fn of_descriptor(number: u32) -> Result<String, CliError> {
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let failed = |source| CliError::Input { path: path.clone(), source };
    let mut line = String::new();
    let file: Box<dyn Read> =
        if number == 0 { Box::new(io::stdin()) } else { Box::new(File::open(&path).map_err(failed)?) };
    BufReader::new(file.take(LINE_MAX)).read_line(&mut line).map_err(failed)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// The terminal of the process, whatever its standard streams are. As it was before, when this is dropped.
struct Prompt {
    file: File,
    before: Termios,
}

impl Prompt {
    /// Key by key, without echo, and with Ctrl-C read as a key: so that no way out leaves the terminal mute.
    fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty").map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("there is no terminal to ask at ({e}); use --username and --password-fd"),
            )
        })?;
        let before = tcgetattr(&file)?;
        let mut keys = before.clone();
        keys.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&file, OptionalActions::Flush, &keys)?;
        Ok(Self { file, before })
    }

    fn line(&mut self, question: &str, echo: bool) -> io::Result<String> {
        self.file.write_all(question.as_bytes())?;
        let mut line = Line::default();
        loop {
            let mut key = [0];
            self.file.read_exact(&mut key)?;
            let step = line.key(key[0]);
            if echo && matches!(step, Step::Added) {
                self.file.write_all(&key)?;
            }
            if echo && matches!(step, Step::Removed) {
                self.file.write_all(b"\x08 \x08")?;
            }
            match step {
                Step::Done => break,
                Step::Given => return Err(io::Error::other("given up; nothing was kept")),
                _ => {}
            }
        }
        self.file.write_all(b"\n")?;
        String::from_utf8(line.0).map_err(|_| io::Error::other("what was typed is not text in UTF-8"))
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        // There is nobody left to tell.
        let _ = tcsetattr(&self.file, OptionalActions::Flush, &self.before);
    }
}

/// A line as it is typed.
#[derive(Default)]
struct Line(Vec<u8>);

/// What a key did.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Added,
    Removed,
    Nothing,
    Done,
    Given,
}

impl Line {
    fn key(&mut self, key: u8) -> Step {
        match key {
            b'\n' | b'\r' | 0x04 => Step::Done,
            // Ctrl-C, Ctrl-\
            0x03 | 0x1c => Step::Given,
            // Backspace takes a whole character.
            0x08 | 0x7f => {
                let end = self.0.iter().rposition(|byte| byte & 0xc0 != 0x80);
                self.0.truncate(end.unwrap_or(0));
                if end.is_some() { Step::Removed } else { Step::Nothing }
            }
            // Ctrl-U
            0x15 => {
                self.0.clear();
                Step::Nothing
            }
            0..=0x1f => Step::Nothing,
            _ if self.0.len() as u64 >= LINE_MAX => Step::Nothing,
            key => {
                self.0.push(key);
                Step::Added
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line() {
        let check = |keys: &str, expected: &str, end: Step| {
            let mut line = Line::default();
            let last = keys.bytes().map(|key| line.key(key)).last();
            assert_eq!(
                (String::from_utf8(line.0).unwrap().as_str(), last),
                (expected, Some(end)),
                "{keys:?}"
            );
        };
        check("ab\n", "ab", Step::Done);
        check("ab\r", "ab", Step::Done);
        check("ab\x7fé\x7fc\n", "ac", Step::Done);
        check("\x7f", "", Step::Nothing);
        check("ab\x15c\x04", "c", Step::Done);
        check("ab\x1b[A\x03", "ab[A", Step::Given);
        check(&"x".repeat(5000), &"x".repeat(4096), Step::Nothing);
    }
}
