//! Nouns that every room shares. No I/O, no async, no clock: a value that exists is valid.

pub mod alert;

pub mod codes;

pub mod cursor;

pub mod delivery;

pub mod der;

pub mod device;

pub mod evidence;

pub mod finding;

pub mod gather;

pub mod health;

pub mod life;

pub mod markup;

pub mod names;

pub mod protocol;

pub mod scrub;

pub mod secret;

pub mod seen;

pub mod text;

pub mod ticket;

pub mod time;

pub mod trouble;

pub(crate) mod words;

pub use alert::{Alert, AlertKind, AlertState, Endpoint, Engine, Fingerprint, Identity, Severity};
pub use cursor::{Cursor, FileCursor, Mark};
pub use delivery::{Class, DeliveryId, DeliveryKind, DeliveryState, HoldScope};
pub use device::Device;
pub use finding::Finding;
pub use health::HealthIssue;
pub use names::{DestinationName, RuleName, SourceName, TableName};
pub use protocol::Protocol;
pub use scrub::Scrubber;
pub use secret::{Secret, SecretString};
pub use ticket::{CorrelationId, Generation, SysId, TicketId, TicketState};
pub use time::Timestamp;
