//! Values of the config file that are more than a text or a number: words, durations, sizes, `any` or a list, and
//! where a secret is. How each is read, and what the JSON Schema says of it.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::problem::At;
use super::read::{List, Node, Read, Reader, inline_schema, quoted, word};
use super::{duration, size};
use crate::model::SecretString;

word! {
    /// What this machine is.
    Role {
        /// A sensor.
        Sensor = "sensor",
        /// A management console. Not supported yet.
        (later) Console = "console",
    }

    /// What happens when the buffer is full.
    WhenFull {
        /// The oldest of the lowest severity goes first, counted.
        ShedLowest = "shed-lowest",
        /// Nothing more is taken in until there is room.
        Refuse = "refuse",
    }

    /// What is done with a table that keeps neither of our keys.
    OnUnprotected {
        /// Its deliveries wait.
        Hold = "hold",
        /// They go on; a lost answer may make a twin.
        Accept = "accept",
    }

    /// What becomes of a ticket whose finding has ended.
    OnCleared {
        /// It is resolved there.
        Resolve = "resolve",
        /// It gets a work note.
        Note = "note",
        /// Nothing.
        None = "none",
    }

    /// What a redacted value becomes.
    RedactAs {
        /// Another value, always the same one for it.
        Pseudonym = "pseudonym",
        /// Nothing.
        Remove = "remove",
        /// What it shares with its neighbours.
        Mask = "mask",
    }

    /// What is done when a finding is seen whose ticket was closed there.
    OnSeenAgain {
        /// It gets a new ticket.
        New = "new",
        /// The old one is opened again; a new one where the instance refuses that.
        Reopen = "reopen",
    }

    /// What is attached to a ticket.
    AttachWord {
        /// The record as the sensor wrote it.
        Raw = "raw",
        /// The packet of an alert that has one.
        Pcap = "pcap",
    }

    /// How otrelay logs in.
    AuthKind {
        /// OAuth password grant with refresh token.
        Password = "password",
        /// OAuth client credentials.
        ClientCredentials = "client-credentials",
        /// OAuth refresh token, the config's or what `otrelay login` kept.
        RefreshToken = "refresh-token",
        /// OAuth JWT bearer.
        JwtBearer = "jwt-bearer",
        /// REST API key.
        ApiKey = "api-key",
        /// TLS client certificate.
        ClientCertificate = "client-certificate",
        /// Basic authentication.
        Basic = "basic",
    }

    /// What is reported.
    ReportType {
        /// Tickets.
        Incidents = "incidents",
        /// The whole alert, as a row of a staging table.
        Application = "application",
    }

    /// What a console is told of an alert whose ticket was closed.
    WriteBack {
        /// Nothing.
        None = "none",
        /// That it is handled.
        Handle = "handle",
    }

    /// How devices are pushed.
    DeviceMethod {
        /// Identification and Reconciliation API.
        IdentifyReconcile = "identify-reconcile",
        /// Import Set API: rows of the staging tables in `tables`.
        ImportSet = "import-set",
    }

    /// What is done with a device that its source no longer has.
    OnDeleted {
        /// The CI is retired.
        Retire = "retire",
        /// The CI gets a comment.
        Note = "note",
        /// Nothing.
        None = "none",
    }
}

/// A severity, by its word.
#[derive(Clone, Copy, Debug)]
pub(super) struct SeverityWord(pub(super) crate::model::Severity);

/// An engine, by its words.
#[derive(Clone, Copy, Debug)]
pub(super) struct EngineWord(pub(super) crate::model::Engine);

macro_rules! model_word {
    ($type:ident, $model:ty, $what:literal) => {
        impl Read for $type {
            fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
                let words = <$model>::ALL.map(<$model>::as_str);
                let expected = format!("one of {}", quoted(&words));
                let Some(text) = node.get_ref().as_str() else {
                    reader.wrong_type(at, node, &expected);
                    return None;
                };
                let value = <$model>::parse(text).map(Self);
                if value.is_none() {
                    reader.problems.error(at, concat!("unknown ", $what), |p| {
                        p.quoted(text).expected(expected).near(text, words)
                    });
                }
                value
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($model).rsplit("::").next().unwrap_or($what).trim().to_owned().into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "enum": <$model>::ALL.map(<$model>::as_str) })
            }
        }
    };
}

model_word!(SeverityWord, crate::model::Severity, "severity");
model_word!(EngineWord, crate::model::Engine, "engine");

/// A duration with the text it was written as.
#[derive(Clone, Debug)]
pub(super) struct Period {
    pub(super) text: String,
    pub(super) value: Duration,
}

/// A size in bytes with the text it was written as.
#[derive(Clone, Debug)]
pub(super) struct Size {
    pub(super) text: String,
    pub(super) value: u64,
}

/// Which alerts are forwarded when a source is first read.
#[derive(Clone, Debug)]
pub(super) enum Backfill {
    All,
    Within(Period),
}

/// Text that `parse` understands.
fn parsed<T>(
    node: &Node<'_>,
    at: &At,
    reader: &mut Reader<'_>,
    expected: &str,
    parse: fn(&str) -> Result<T, &'static str>,
) -> Option<(String, T)> {
    let Some(text) = node.get_ref().as_str() else {
        reader.wrong_type(at, node, expected);
        return None;
    };
    match parse(text) {
        Ok(value) => Some((text.to_owned(), value)),
        Err(why) => {
            reader.problems.error(at, why, |p| p.quoted(text).expected(expected));
            None
        }
    }
}

impl Read for Period {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, value) = parsed(node, at, reader, duration::EXPECTED, duration::parse)?;
        Some(Self { text, value })
    }
}

impl Read for Size {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let (text, value) = parsed(node, at, reader, size::EXPECTED, size::parse)?;
        Some(Self { text, value })
    }
}

impl Read for Backfill {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.get_ref().as_str() == Some("all") {
            return Some(Self::All);
        }
        let expected = format!("\"all\" or {}", duration::EXPECTED);
        let (text, value) = parsed(node, at, reader, &expected, duration::parse)?;
        Some(Self::Within(Period { text, value }))
    }
}

fn like(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": pattern })
}

inline_schema!(Period: "Period", like(r"^\s*([0-9]+\s*(d|h|m|s|ms)\s*)+$"));
inline_schema!(Backfill: "Backfill", like(r"^(all|\s*([0-9]+\s*(d|h|m|s|ms)\s*)+)$"));
inline_schema!(Size: "Size", like(r"^\s*[0-9]+\s*([kKMmGg][iI]?)?[bB]\s*$"));

/// `"any"`, or a list.
#[derive(Clone, Debug)]
pub(super) enum AnyOr<T> {
    Any,
    These(List<T>),
}

impl<T: Read> Read for AnyOr<T> {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match node.get_ref().as_str() {
            Some("any") => Some(Self::Any),
            Some(text) => {
                let hint = match text.to_ascii_lowercase().as_str() {
                    "any" | "all" | "*" | "" => "write \"any\"".to_owned(),
                    _ => format!("write [\"{}\"]", super::problem::quote(text)),
                };
                reader.problems.error(at, "text where a list belongs", |p| {
                    p.quoted(text).expected("\"any\" or a list in [ ]").hint(hint)
                });
                None
            }
            None if node.get_ref().is_array() => List::read(node, at, reader).map(Self::These),
            None => {
                reader.wrong_type(at, node, "\"any\" or a list in [ ]");
                None
            }
        }
    }
}

inline_schema!(<T> AnyOr<T>: format!("Any_or_{}", T::schema_name()), |of| {
    let item = of.subschema_for::<T>();
    json_schema!({ "anyOf": [{ "const": "any" }, { "type": "array", "items": item }] })
});

/// One value, or a list of them.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore<T>(pub(super) List<T>);

impl<T: Read> Read for OneOrMore<T> {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.get_ref().is_array() {
            return List::read(node, at, reader).map(Self);
        }
        let one = T::read(node, at, reader)?;
        Some(Self(List { items: vec![(one, at.clone())], written: 1 }))
    }
}

inline_schema!(<T> OneOrMore<T>: format!("One_or_more_{}", T::schema_name()), |of| {
    let item = of.subschema_for::<T>();
    json_schema!({ "anyOf": [item, { "type": "array", "items": item }] })
});

/// A time as text, or as TOML writes one.
#[derive(Clone, Debug)]
pub(super) struct Moment(pub(super) String);

impl Read for Moment {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some(time) = node.get_ref().as_datetime() {
            return Some(Self(time.to_string()));
        }
        String::read(node, at, reader).map(Self)
    }
}

inline_schema!(Moment: "Moment", json_schema!({ "type": "string" }));

/// Where a secret is.
#[derive(Clone, Debug)]
pub(super) enum SecretRef {
    /// `{ credential = "NAME" }`: a systemd credential.
    Credential(String),
    /// `{ file = "/…" }`.
    File(String),
    /// `{ env = "NAME" }`.
    Env(String),
    /// The secret itself.
    Bare(SecretString),
}

const SECRET_KEYS: [&str; 3] = ["credential", "file", "env"];
const SECRET_EXPECTED: &str = "{ credential = \"NAME\" }, { file = \"/PATH\" } or { env = \"NAME\" }";

impl Read for SecretRef {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if let Some(text) = node.get_ref().as_str() {
            reader.secret.get_or_insert_with(|| at.clone());
            return Some(Self::Bare(SecretString::from(text)));
        }
        let Some(table) = node.get_ref().as_table() else {
            reader.wrong_type(at, node, SECRET_EXPECTED);
            return None;
        };
        let mut found = Vec::new();
        let mut wrong = false;
        super::read::entries(table, at, &SECRET_KEYS, &[], reader, |key, node, at, reader| {
            let make = match key {
                "credential" => Self::Credential,
                "file" => Self::File,
                "env" => Self::Env,
                _ => {
                    wrong = true;
                    return false;
                }
            };
            // The value may be a secret that was put in the wrong place: only its type is ever repeated.
            match String::read(node, &at, reader) {
                Some(text) => found.push(make(text)),
                None => wrong = true,
            }
            true
        });
        match (found.pop(), found.is_empty(), wrong) {
            (Some(one), true, false) => Some(one),
            (_, _, true) => None,
            _ => {
                reader.problems.error(at, "it is not clear where the secret is", |p| {
                    p.expected(format!("exactly one of {SECRET_EXPECTED}"))
                });
                None
            }
        }
    }
}

impl JsonSchema for SecretRef {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let by = |key: &str, what: &str| {
            json_schema!({
                "type": "object",
                "description": what,
                "properties": { (key): { "type": "string" } },
                "required": [key],
                "additionalProperties": false,
            })
        };
        json_schema!({
            "description": "Where a secret is. A bare string works and is warned about.",
            "anyOf": [
                by("credential", "A systemd credential."),
                by("file", "A file that only root, the service and its group may read."),
                by("env", "An environment variable."),
                { "type": "string" },
            ],
        })
    }
}
