//! Which sources can be read again, and what of their memory has to go for it. Values only.

use super::Input;
use super::transport::defender;
use super::transport::poll::told::ORDER_MARK;
use super::transport::tail;
use crate::model::Timestamp;
use crate::model::cursor::Mark;

/// Why a listener cannot: who sent has nothing left to send.
const LISTENS: &str = "records are sent to it, and nothing of them is left to be read again; have the sender send \
     again, or feed a recorded file through a source of kind json-lines, suricata-eve or zeek";

/// Why the machine's own facts cannot.
const HOST: &str = "it tells how this machine is now; there is nothing older to read";

/// What is forgotten, as beginnings of marks' names, and what is set; or why it cannot be read again.
///
/// # Errors
/// The reason, in words that follow the source's name.
pub fn begins_anew(
    input: &Input,
    now: Timestamp,
) -> Result<(&'static [&'static str], Option<Mark>), &'static str> {
    match input {
        // Packed files too, those that are there now.
        Input::Files { .. } => {
            let packed = Mark { name: tail::PACKED.to_owned(), value: now.as_secs().to_string() };
            Ok((&[], Some(packed)))
        }
        Input::Defender { .. } => {
            let order = Mark { name: ORDER_MARK.to_owned(), value: now.as_micros().to_string() };
            Ok((defender::FORGOTTEN, Some(order)))
        }
        Input::Http { .. } | Input::Syslog(_) | Input::Unix(_) => Err(LISTENS),
        Input::Host(_) => Err(HOST),
    }
}
