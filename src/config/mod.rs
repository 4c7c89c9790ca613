//! Text to Settings. `/etc/otrelay/otrelay.toml` and `conf.d/*.toml` are read, merged and checked as a whole; every
//! room then gets its own `Settings` and reads no file and no environment itself.
//!
//! The way of a file: `load` reads it, `read` walks the TOML tree into the raw tables of `file` with the place of every
//! value, `check` makes Settings of them (`agent`, `destination`, `source`, `rule`), `secret` fetches what is only named there.
//! All problems are collected, not only the first: an operator who edits over a serial line gets one list.
//!
//! Invariants: nothing starts half-configured ([`Config`] exists only when there was no error); an unknown key is an
//! error; no [`Problem`] holds the text of a secret. Not here: anything that needs the network (`otrelay doctor`).

mod case;
mod check;
mod destination;
mod devices;
mod draft;
mod duration;
mod example;
mod exclude;
mod file;
mod load;
mod machine;
mod own;
mod problem;
mod read;
mod redact;
mod rule;
mod secret;
mod service;
mod show;
mod size;
mod source;
#[cfg(test)]
mod tests;
mod values;

use std::path::PathBuf;
use std::sync::Arc;

use crate::{intake, relay, rules, servicenow, status, store};

pub use case::{Case, Expect};
pub use draft::{Answers, Kept, LogIn, Secrets, rehearse};
pub use example::example;

pub use load::{DEFAULT_PATH, load, parse_str, whereabouts};
pub use machine::{Found, SHOWN, SOCKET, found, look_around, unfit_socket};
pub use problem::{Level, Place, Problem};
pub use service::{Barred, Rights, Service};
pub use show::{Effective, Entry, Origin, Section};
pub use source::default_source;

/// Looks a variable up.
pub type Variables = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the config depends on beside its files. `cli` makes it from the process; tests from what they need.
#[derive(Clone)]
pub struct Environment {
    /// `--config`, else `$OTRELAY_CONFIG`; `None`: [`DEFAULT_PATH`].
    pub config_path: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts credentials.
    pub credentials_dir: Option<PathBuf>,
    /// `$STATE_DIRECTORY`, the first one where there are several.
    pub state_dir: Option<PathBuf>,
    /// The machine's id, of which the agent's identity is made.
    pub machine_id: Option<[u8; 16]>,
    /// For secrets of the form `{ env = "NAME" }`.
    pub variables: Variables,
    /// The service of this machine, where its unit is installed.
    pub service: Option<Arc<Service>>,
}

impl Environment {
    /// Reads the well-known variables through `variables`.
    pub fn new(variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let path = |name: &str| variables(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let state_dir = variables("STATE_DIRECTORY")
            .and_then(|dirs| dirs.split(':').next().filter(|dir| !dir.is_empty()).map(PathBuf::from));
        Self {
            config_path: path("OTRELAY_CONFIG"),
            credentials_dir: path("CREDENTIALS_DIRECTORY"),
            state_dir,
            machine_id: None,
            variables: Arc::new(variables),
            service: None,
        }
    }

    /// On a machine with this service.
    #[must_use]
    pub fn beside(mut self, service: Option<Service>) -> Self {
        self.service = service.map(Arc::new);
        self
    }

    /// The service, when this is its config.
    pub fn judged(&self) -> Option<&Service> {
        self.service.as_deref().filter(|service| service.runs_with(self.config_path.as_deref()))
    }

    /// On a machine that has an id.
    #[must_use]
    pub fn on_machine(mut self, id: Option<[u8; 16]>) -> Self {
        self.machine_id = id;
        self
    }

    /// With another config file: `--config FILE`.
    #[must_use]
    pub fn with_config(mut self, path: Option<PathBuf>) -> Self {
        self.config_path = path.or(self.config_path);
        self
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment")
            .field("config_path", &self.config_path)
            .field("credentials_dir", &self.credentials_dir)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

/// What the config is loaded for: how much of the machine takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To work with it: every secret has to be there.
    Run,
    /// To check it: as `Run`, but credentials that only systemd can hand over are a warning outside of a unit.
    Check,
    /// To log in: as `Check`, and inside of a unit as well, as one made for that has only what a log-in needs.
    LogIn,
    /// To show it: no secret and no other file is read; the secrets of such a [`Config`] are empty.
    Show,
}

/// Checks one field template: name of the field, text of the template; the error says what is wrong with it.
pub type TemplateCheck = fn(&str, &str) -> Result<(), String>;

/// Everything the rooms need to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// This sensor.
    pub agent: Agent,
    /// For `store`.
    pub store: store::Settings,
    /// For `relay`.
    pub relay: relay::Settings,
    /// For `intake`.
    pub intake: intake::Settings,
    /// Destinations, in the order of the files.
    pub destinations: Vec<servicenow::Settings>,
    /// Sources, in the order of the files.
    pub sources: Vec<crate::source::Settings>,
    /// Rules, in the order of the files: the main file's first.
    pub rules: Vec<rules::RuleSettings>,
    /// Files that no source reads.
    pub own: crate::source::Own,
    /// For the status page.
    pub status: status::Settings,
    /// Cases of `otrelay test`, in the order of the files.
    pub tests: Vec<Case>,
    /// What of an alert may not leave this machine.
    pub redaction: rules::redact::Redaction,
}

/// This sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// 1 to 64 characters, one line. Shown.
    pub name: String,
    /// 1 to 64 characters, one line. Part of every fingerprint.
    pub id: String,
    /// Where the identity is from.
    pub id_from: IdFrom,
    /// What this machine is.
    pub role: Role,
    /// Where it is.
    pub site: Option<String>,
    /// Which part of the site.
    pub zone: Option<String>,
}

/// Where the agent's identity is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdFrom {
    /// `[agent] id`.
    Config,
    /// Derived from the machine id.
    Machine,
    /// There is no machine id: it is the name, which two agents may share and a person may change.
    Name,
}

/// What this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A sensor.
    Sensor,
}

/// A config that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For the rooms.
    pub config: Config,
    /// What is odd but works.
    pub warnings: Vec<Problem>,
    /// The files that were read, main file first.
    pub files: Vec<PathBuf>,
    /// Every value with its origin, secrets masked: `otrelay config show`.
    pub effective: Effective,
}

/// A config that cannot be used. `Display` is all problems, one a line, errors and warnings.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// All of them, in the order of files and lines; at least one is an error.
    pub problems: Vec<Problem>,
}

/// The JSON Schema of the config file, for editors.
pub fn schema() -> serde_json::Value {
    file::schema().to_value()
}
