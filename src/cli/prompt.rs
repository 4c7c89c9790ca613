//! Asking a person, and taking a secret without a person: from the terminal without echo, from a descriptor that the caller
//! has opened, or from a file. Never from arguments or the environment, which others can read.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use super::CliError;

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 4096;

/// The first line of a file: a secret that a tool has laid there.
pub(super) fn of_file(path: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::Input { path: path.to_owned(), source };
    first_line(File::open(path).map_err(failed)?).map_err(failed)
}

/// The first line of a descriptor that the caller has opened.
pub(super) fn of_descriptor(number: u32) -> Result<String, CliError> {
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let failed = |source| CliError::Input { path: path.clone(), source };
    if number == 0 { first_line(io::stdin()) } else { File::open(&path).and_then(first_line) }.map_err(failed)
}

/// Without what an editor of Windows puts around it.
fn first_line(file: impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(file.take(LINE_MAX)).read_line(&mut line)?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    let line = line.strip_suffix('\r').unwrap_or(line);
    Ok(line.strip_prefix('\u{feff}').unwrap_or(line).to_owned())
}

/// The terminal of the process, whatever its standard streams are. As it was before, when this is dropped.
pub(super) struct Prompt {
    file: File,
    before: Termios,
}

impl Prompt {
    /// Key by key, without echo, and with Ctrl-C read as a key: so that no way out leaves the terminal mute.
    /// `instead` says what does without one.
    pub(super) fn open(instead: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty").map_err(|e| {
            io::Error::new(e.kind(), format!("there is no terminal to ask at ({e}); use {instead}"))
        })?;
        Self::on(file)
    }

    pub(super) fn on(file: File) -> io::Result<Self> {
        let before = tcgetattr(&file)?;
        let mut keys = before.clone();
        keys.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        keys.special_codes[SpecialCodeIndex::VMIN] = 1;
        keys.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&file, OptionalActions::Flush, &keys)?;
        Ok(Self { file, before })
    }

    pub(super) fn line(&mut self, question: &str, echo: bool) -> io::Result<String> {
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
