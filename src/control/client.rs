//! Asking the running service.

use std::io::{BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Question};
use crate::model::seen::{Told, Watched};

/// Why the service could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No service listens there.
    #[error("no otrelay service answers at {}", .0.display())]
    NotRunning(PathBuf),
    /// It did not answer as it should.
    #[error("the service at {} did not answer", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended before it answered.
    #[error("the service stopped before it answered")]
    Stopped,
    /// It answered something that is no answer; most likely another version.
    #[error("the service's answer was not understood; is it another version of otrelay?")]
    Strange(#[source] serde_json::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
    /// It does not have what was asked for.
    #[error("{0}")]
    No(String),
}

/// Longest answer in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// Whether somebody listens there.
pub fn is_there(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks; blocks until the answer is there. A sync may take as long as its sends, so that wait is long.
///
/// # Errors
/// [`AskError`].
pub fn ask(socket: &Path, question: &Question) -> Result<serde_json::Value, AskError> {
    let io = |source| AskError::Io { path: socket.to_owned(), source };
    let patience = if matches!(question, Question::Sync) { 3_600 } else { 60 };
    let stream = put(socket, question, Some(Duration::from_secs(patience)))?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer).map_err(io)?;
    if answer.is_empty() {
        return Err(AskError::Stopped);
    }
    match serde_json::from_str(&answer).map_err(AskError::Strange)? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(why) => Err(AskError::Refused(why)),
        Answer::No(why) => Err(AskError::No(why)),
    }
}

/// Connects and asks; an answer is waited for as long as `patience` says.
fn put(socket: &Path, question: &Question, patience: Option<Duration>) -> Result<UnixStream, AskError> {
    let io = |source| AskError::Io { path: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(socket.to_owned())
        }
        _ => io(source),
    })?;
    stream.set_read_timeout(patience).map_err(io)?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(io)?;
    let mut line = serde_json::to_vec(question).map_err(AskError::Strange)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    Ok(stream)
}

/// Longest line that a watcher is told, in bytes: a title and some names.
const TOLD_MAX: u64 = 64 * 1024;

/// Watches what is decided: `each` is given what comes, until it breaks or the service says that it ends. However long
/// nothing is decided, it waits.
///
/// # Errors
/// [`AskError`]; [`AskError::Stopped`] where the service went without a word.
pub fn watch<E: From<AskError>>(
    socket: &Path,
    watched: Watched,
    mut each: impl FnMut(Told) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    let io = |source| AskError::Io { path: socket.to_owned(), source };
    let mut reader = BufReader::new(put(socket, &Question::Tap(watched), None)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(TOLD_MAX).read_until(b'\n', &mut line).map_err(io)?;
        if line.is_empty() {
            return Err(AskError::Stopped.into());
        }
        let told = match serde_json::from_slice(&line).map_err(AskError::Strange)? {
            Part::Ok(told) => told,
            Part::Error(why) => return Err(AskError::Refused(why).into()),
        };
        let is_end = matches!(told, Told::End(_));
        if each(told)?.is_break() || is_end {
            return Ok(());
        }
    }
}

/// A part of an answer: as an [`Answer`], of a watcher's.
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    Ok(Told),
    Error(String),
}
