//! Asking the running service.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Answer, Question};

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
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning(socket.to_owned())
        }
        _ => AskError::Io { path: socket.to_owned(), source },
    })?;
    let patience = if matches!(question, Question::Sync) { 3_600 } else { 60 };
    stream.set_read_timeout(Some(Duration::from_secs(patience))).map_err(io)?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).map_err(io)?;
    let mut line = serde_json::to_vec(question).map_err(AskError::Strange)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(io)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut answer).map_err(io)?;
    if answer.is_empty() {
        return Err(AskError::Stopped);
    }
    match serde_json::from_str(&answer).map_err(AskError::Strange)? {
        Answer::Ok(value) => Ok(value),
        Answer::Error(why) => Err(AskError::Refused(why)),
    }
}
