//! The config file as the operator writes it: every key that otrelay knows, with the text that documents it.
//!
//! The doc comments become the descriptions of `otrelay config schema`. Keys whose work comes later are here as well,
//! so that they are refused by name and not as unknown; what may stand where is decided by `check`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::problem::{At, Problems};
use super::read::{
    Field, List, Merge, Named, Node, Read, Reader, Table, append, merge_table, once, quoted, table, word,
};
use super::{duration, size};
use crate::model::SecretString;

table! {
    /// The configuration of otrelay.
    File {
        /// This sensor.
        agent: Agent,
        /// When and what is pushed.
        sync: Sync,
        /// What is kept on disk.
        buffer: Buffer,
        /// Destinations by name.
        servicenow: Named<Desk>,
        /// What is read.
        source: List<Source>,
        /// Forwarding rules, in order.
        rule: List<Rule>,
        /// Device attributes.
        devices: Devices,
        /// Status page and metrics. Not supported yet.
        (later) status: Status,
        /// Cases for `otrelay test`. Not supported yet.
        (later) test: List<Case>,
    }

    /// This sensor.
    Agent {
        /// Its name, 1 to 64 characters. Part of every fingerprint. Default: the host name.
        name: String,
        /// What this machine is.
        role: Role,
        /// Where it is; goes into tickets.
        site: String,
        /// Which part of the site; goes into tickets.
        zone: String,
        /// Where the buffer is. Default: `$STATE_DIRECTORY`, else `/var/lib/otrelay`.
        state_dir: String,
    }

    /// When and what is pushed.
    Sync {
        /// `false`: take in and keep, push nothing. Default true.
        enabled: bool,
        /// Time between two pushes, at least 5m. Default 60m.
        interval: Period,
        /// How often ticket states are read back, at least 5m. Not supported yet.
        (later) tickets_interval: Period,
        /// Alerts up to this old are forwarded when a source is first read; `0s`: only new ones; `all`. Default 7d.
        backfill: Backfill,
    }

    /// What is kept on disk.
    Buffer {
        /// Size of the whole state directory, at least 8MiB. Default 256MiB.
        max_size: Size,
        /// How long delivered alerts are kept. Default 30d.
        keep_delivered: Period,
        /// What happens when `max_size` is reached. Default `shed-lowest`.
        when_full: WhenFull,
    }

    /// A ServiceNow instance.
    #[schemars(extend("required" = ["instance", "auth"]))]
    Desk {
        /// Its address, `https://NAME.service-now.com`.
        instance: String,
        /// How otrelay logs in.
        auth: AuthKind,
        /// Client id of the OAuth registry record.
        client_id: String,
        /// Its secret.
        client_secret: SecretRef,
        /// The integration user.
        username: String,
        /// Its password.
        password: SecretRef,
        /// With `auth = "refresh-token"`. Not supported yet.
        (later) refresh_token: SecretRef,
        /// With `auth = "jwt-bearer"`. Not supported yet.
        (later) private_key: SecretRef,
        /// With `auth = "jwt-bearer"`: the user to act as. Not supported yet.
        (later) subject: String,
        /// With `auth = "jwt-bearer"`: which key signs. Not supported yet.
        (later) key_id: String,
        /// With `auth = "api-key"`. Not supported yet.
        (later) api_key: SecretRef,
        /// The proxy on the way there.
        proxy: Proxy,
        /// What is trusted.
        tls: Tls,
        /// Own ceiling of requests, at least 1. Default 1000.
        requests_per_hour: i64,
        /// Requests at the same time, 1 to 16. Default 2.
        max_in_flight: i64,
    }

    /// An HTTP proxy that is asked with CONNECT.
    #[schemars(extend("required" = ["url"]))]
    Proxy {
        /// `http://host:port`.
        url: String,
        /// If it wants a login.
        username: String,
        /// If it wants a login.
        password: SecretRef,
    }

    /// Certificates. Which keys may be used depends on the table it stands in.
    Tls {
        /// PEM file with certificates that are trusted beside the system's.
        ca_file: String,
        /// `sha256:` and the fingerprint of the one certificate that is trusted.
        pin: String,
        /// The client's certificate, PEM. Not supported yet.
        (later) client_cert_file: String,
        /// Its key, PEM. Not supported yet.
        (later) client_key_file: String,
        /// The listener's certificate, PEM. Not supported yet.
        (later) cert_file: String,
        /// Its key, PEM. Not supported yet.
        (later) key_file: String,
        /// PEM file with the certificates that senders have to show. Not supported yet.
        (later) client_ca_file: String,
    }

    /// What is read.
    #[schemars(extend("required" = ["name", "kind"]))]
    Source {
        /// Its name, 1 to 64 of A-Z a-z 0-9 _ - . (part of every fingerprint).
        name: String,
        /// What it is.
        kind: SourceKind,
        /// Files by glob: an absolute path that may have `*`, `?`, `[…]`.
        path: String,
        /// Rule priority to severity, laid over 1 = critical, 2 = major, 3 = minor, else warning.
        severity_map: Named<SeverityWord>,
        /// Category text to engine, laid over the built-in table.
        engine_map: Named<EngineWord>,
        /// Whether `alert.metadata.signature_severity` overrides the priority. Default true.
        signature_severity: bool,
        /// Zone of timestamps without an offset: an IANA name or `+hh:mm`. Default UTC.
        time_zone: String,
        /// Where a listener waits. Not supported yet.
        (later) listen: OneOrMore,
        /// Networks that may send. Not supported yet.
        (later) allow: List<String>,
        /// What syslog messages hold. Not supported yet.
        (later) format: SyslogFormat,
        /// Where a polled console is. Not supported yet.
        (later) url: String,
        /// The token that is shown, or asked for. Not supported yet.
        (later) token: SecretRef,
        /// Certificates of the listener, or what a poll trusts. Not supported yet.
        (later) tls: Tls,
        /// Time between two polls, at least 5s. Not supported yet.
        (later) poll_interval: Period,
    }

    /// A forwarding rule.
    #[schemars(extend("required" = ["name"]))]
    Rule {
        /// Its name, one line.
        name: String,
        /// Default true.
        enabled: bool,
        /// This level and every higher one. Default `warning`.
        min_severity: SeverityWord,
        /// Protocol names, or `any` (default).
        protocols: AnyOr<String>,
        /// Engines, or `any` (default).
        engines: AnyOr<EngineWord>,
        /// Whether it takes alerts about the plant. Default true.
        report_alerts: bool,
        /// Whether it takes notifications about the sensor itself. Default false.
        report_system_notifications: bool,
        /// What is done with a matching alert.
        action: List<Action>,
    }

    /// What a matching rule does.
    Action {
        /// To which destination; may be left out when there is one.
        servicenow: String,
        /// What is reported. Default `incidents`.
        report_type: ReportType,
        /// The table of the ticket. Default `incident`.
        table: String,
        /// Field to template over the alert, laid over the table's defaults.
        fields: Named<String>,
    }

    /// Device attributes.
    Devices {
        /// Whether devices are pushed.
        enabled: bool,
        /// To which destination.
        servicenow: String,
        /// By which API.
        method: DeviceMethod,
        /// A choice of cmdb_ci.discovery_source there.
        data_source: String,
    }

    /// Status page and metrics.
    Status {
        /// Where it listens.
        listen: String,
    }
}

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

    /// How otrelay logs in.
    AuthKind {
        /// OAuth password grant with refresh token.
        Password = "password",
        /// OAuth client credentials.
        ClientCredentials = "client-credentials",
        /// OAuth refresh token. Not supported yet.
        (later) RefreshToken = "refresh-token",
        /// OAuth JWT bearer. Not supported yet.
        (later) JwtBearer = "jwt-bearer",
        /// REST API key. Not supported yet.
        (later) ApiKey = "api-key",
        /// TLS client certificate. Not supported yet.
        (later) ClientCertificate = "client-certificate",
        /// Basic authentication.
        Basic = "basic",
    }

    /// Kind of a source.
    SourceKind {
        /// EVE JSON files.
        SuricataEve = "suricata-eve",
        /// Zeek logs. Not supported yet.
        (later) Zeek = "zeek",
        /// CEF or LEEF over syslog. Not supported yet.
        (later) Syslog = "syslog",
        /// The API of a Defender for IoT sensor. Not supported yet.
        (later) DefenderSensor = "defender-sensor",
        /// The API of a Defender for IoT console. Not supported yet.
        (later) DefenderConsole = "defender-console",
        /// Plain JSON lines. Not supported yet.
        (later) JsonLines = "json-lines",
        /// JSON over HTTP. Not supported yet.
        (later) Http = "http",
        /// This machine. Not supported yet.
        (later) Host = "host",
    }

    /// What syslog messages hold.
    SyslogFormat {
        /// Found out from each message.
        Auto = "auto",
        /// ArcSight CEF.
        Cef = "cef",
        /// QRadar LEEF.
        Leef = "leef",
        /// The text of Defender for IoT.
        DefenderText = "defender-text",
        /// Anything.
        Plain = "plain",
    }

    /// What is reported.
    ReportType {
        /// Tickets.
        Incidents = "incidents",
        /// Records of the ServiceNow application. Not supported yet.
        (later) Application = "application",
    }

    /// How devices are pushed.
    DeviceMethod {
        /// Identification and Reconciliation API.
        IdentifyReconcile = "identify-reconcile",
        /// Import set.
        ImportSet = "import-set",
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
                        p.found(format!("\"{text}\"")).expected(expected).near(text, words)
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
            reader.problems.error(at, why, |p| p.found(format!("\"{text}\"")).expected(expected));
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

macro_rules! text_schema {
    ($($type:ident: $pattern:literal),* $(,)?) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}
text_schema! {
    Period: r"^\s*([0-9]+\s*(d|h|m|s|ms)\s*)+$",
    Backfill: r"^(all|\s*([0-9]+\s*(d|h|m|s|ms)\s*)+)$",
    Size: r"^\s*[0-9]+\s*([kKMmGg][iI]?)?[bB]\s*$",
}

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
                    p.found(format!("\"{text}\"")).expected("\"any\" or a list in [ ]").hint(hint)
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

impl<T: JsonSchema> JsonSchema for AnyOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Any_or_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "const": "any" }, { "type": "array", "items": item }] })
    }
}

/// A text or a list of texts. Only sources that are not supported yet have it, so its content is not kept.
#[derive(Clone, Debug)]
pub(super) struct OneOrMore;

impl Read for OneOrMore {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.get_ref().is_str() {
            return Some(Self);
        }
        List::<String>::read(node, at, reader).map(|_| Self)
    }
}

impl JsonSchema for OneOrMore {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "OneOrMore".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// A `[[test]]` case. Its keys are not laid down yet; any table stands.
#[derive(Clone, Debug)]
pub(super) struct Case;

impl Read for Case {
    fn read(node: &Node<'_>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        if node.get_ref().is_table() {
            return Some(Self);
        }
        reader.wrong_type(at, node, "a table");
        None
    }
}

impl JsonSchema for Case {
    fn schema_name() -> Cow<'static, str> {
        "Case".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "description": "A case for `otrelay test`." })
    }
}

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

once!(
    Role,
    WhenFull,
    AuthKind,
    SourceKind,
    SyslogFormat,
    ReportType,
    DeviceMethod,
    SeverityWord,
    SecretRef,
    OneOrMore,
    Period,
    Size,
    Backfill,
    Desk,
    Proxy,
    Tls,
    Source,
    Rule,
    Action,
    Named<String>,
    Named<SeverityWord>,
    Named<EngineWord>,
    AnyOr<String>,
    AnyOr<EngineWord>,
    List<String>,
    List<Action>,
);

macro_rules! shared {
    ($($type:ty),*) => {$(
        impl Merge for $type {
            fn merge(first: &mut Field<Self>, second: Field<Self>, problems: &mut Problems) {
                merge_table(first, second, problems);
            }
        }
    )*};
}
shared!(Agent, Sync, Buffer, Devices, Status);

macro_rules! appended {
    ($($type:ty),*) => {$(
        impl Merge for List<$type> {
            fn merge(first: &mut Field<Self>, second: Field<Self>, _: &mut Problems) {
                append(first, second);
            }
        }
    )*};
}
appended!(Source, Rule, Case);

impl Merge for Named<Desk> {
    fn merge(first: &mut Field<Self>, second: Field<Self>, problems: &mut Problems) {
        let Some((others, _)) = second.get() else {
            // A wrong one is remembered, so that it is not said to be missing as well.
            first.mark(second.at());
            return;
        };
        let mut all = first.get().map(|(named, _)| named.0.clone()).unwrap_or_default();
        for (name, desk, at) in &others.0 {
            match all.iter().find(|(known, ..)| known == name) {
                Some((_, _, place)) => {
                    let message = format!("destination defined twice, first at {}", place.line());
                    problems.error(at, message, |p| p.hint("keep one, or give it another name"));
                }
                None => all.push((name.clone(), desk.clone(), at.clone())),
            }
        }
        first.set(Self(all), second);
    }
}

/// In which table a key is at home, for keys that stand in the wrong one.
pub(super) fn home_of(key: &str) -> Option<&'static str> {
    let homes: [(&str, &[&str]); 10] = [
        ("[agent]", Agent::KEYS),
        ("[sync]", Sync::KEYS),
        ("[buffer]", Buffer::KEYS),
        ("[servicenow.NAME]", Desk::KEYS),
        ("[[source]]", Source::KEYS),
        ("[[rule]]", Rule::KEYS),
        ("[[rule.action]]", Action::KEYS),
        ("[devices]", Devices::KEYS),
        ("[status]", Status::KEYS),
        ("the main level of the file", File::KEYS),
    ];
    homes.iter().find(|(_, keys)| keys.contains(&key)).map(|(home, _)| *home)
}

/// The JSON Schema of the file.
pub(super) fn schema() -> Schema {
    schemars::schema_for!(File)
}
