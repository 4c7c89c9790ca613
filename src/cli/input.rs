//! Files that people hand to a command: packed ones are unpacked within bounds, and what they are is found out.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::CliError;
use crate::config::{self, Agent};
use crate::source::Settings;
use crate::source::format::guess;

/// Most bytes that a packed file may become.
const UNPACKED_MAX: u64 = 1 << 30;
/// Longest line that is read.
const LINE_MAX: u64 = 16 << 20;
/// How much of a file is looked at to find out what it is.
const HEAD: usize = 64 * 1024;

pub(super) struct Input {
    /// Its name without directories and without `.gz`.
    pub(super) name: String,
    /// What it holds, unpacked.
    pub(super) bytes: Box<dyn BufRead>,
    kind: Option<&'static str>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let wrong = |source| CliError::Input { path: path.to_owned(), source };
        let raw: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).map_err(wrong)?)
        };
        let mut raw = BufReader::with_capacity(HEAD, raw);
        let packed = raw.fill_buf().map_err(wrong)?.starts_with(&[0x1f, 0x8b]);
        let mut bytes: Box<dyn BufRead> = if packed {
            // One byte more than is allowed tells that there is more.
            let unpacked = Bounded { left: UNPACKED_MAX, inner: MultiGzDecoder::new(raw) };
            Box::new(BufReader::with_capacity(HEAD, unpacked))
        } else {
            Box::new(raw)
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gz").filter(|_| packed).unwrap_or(&name).to_owned();
        let kind = guess(&name, bytes.fill_buf().map_err(wrong)?);
        Ok(Self { name, bytes, kind })
    }

    /// Which kind of source it seems to be of.
    pub(super) fn kind(&self) -> Option<&'static str> {
        self.kind
    }
}

/// A line without its end; longer than the limit ends the command, a file of such lines is none of records.
pub(super) fn next_line(lines: &mut dyn BufRead, path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    let input = |source| CliError::Input { path: path.to_owned(), source };
    let mut line = Vec::new();
    let read = lines.take(LINE_MAX).read_until(b'\n', &mut line).map_err(input)?;
    if read as u64 == LINE_MAX && line.last() != Some(&b'\n') {
        return Err(CliError::Words(format!("a line of {} is longer than 16 MiB", path.display())));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok((read > 0).then_some(line))
}

/// Ends with an error where a packed file becomes larger than it may.
struct Bounded<R> {
    left: u64,
    inner: R,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| std::io::Error::other("it unpacks to more than 1 GiB; give a part of it"))?;
        Ok(read)
    }
}

pub(super) fn default_source(kind: &str, agent: &Agent) -> Result<Settings, CliError> {
    config::default_source(kind, agent).map_err(CliError::Words)
}
