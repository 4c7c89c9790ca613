//! Where an answer comes from: the running service when there is one, else the store itself.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::owner::become_owner;
use super::{CliError, Terminal, clock, wait};
use crate::app;
use crate::config::{self, Config, ConfigError, Purpose};
use crate::control::client::{AskError, ask, is_there};
use crate::control::{self, Question};
use crate::rules::template::check_template;
use crate::store::{Reader, Store};

/// State and runtime directory of the packaged unit (systemd/otrelay.service).
const SERVICE: (&str, &str) = ("/var/lib/otrelay", "/run/otrelay");

/// What a question needs.
pub(super) struct Asker {
    /// The config; its error when it cannot be used, which is no reason not to ask a running service.
    config: Result<Config, ConfigError>,
    /// The state directory.
    pub(super) dir: PathBuf,
    pub(super) socket: PathBuf,
    /// Whether an agent holds the state directory, or listens.
    pub(super) running: bool,
}

impl Asker {
    pub(super) fn new(terminal: &Terminal<'_>) -> Result<Self, CliError> {
        let config =
            config::load(&terminal.environment, Purpose::Show, check_template).map(|loaded| loaded.config);
        let dir = match &config {
            Ok(config) => config.store.dir.clone(),
            // Somebody edits it: the service runs on with the old one, and knows what is wrong with the new.
            Err(_) => config::whereabouts(&terminal.environment),
        };
        become_owner(&dir)?;
        let socket = find_socket(&dir, runtime_dir(terminal).as_deref(), SERVICE);
        // In a state directory that could never be written there is no lock, but maybe an ear.
        let running = Store::is_running(&dir) || is_there(&socket);
        let config = if running { config } else { Ok(config?) };
        Ok(Self { config, dir, socket, running })
    }

    /// The config, for what cannot be asked.
    pub(super) fn config(&self) -> Result<&Config, CliError> {
        self.config.as_ref().map_err(|e| e.clone().into())
    }

    pub(super) fn ask<T: DeserializeOwned>(&self, question: &Question) -> Result<T, CliError> {
        let value = self.value(question)?;
        serde_json::from_value(value).map_err(|e| AskError::Strange(e).into())
    }

    fn value(&self, question: &Question) -> Result<serde_json::Value, CliError> {
        if self.running {
            match ask(&self.socket, question) {
                // A `run --once` has no ear; reading beside it works all the same.
                Err(AskError::NotRunning(_)) => {}
                result => return Ok(result?),
            }
        }
        if let Some((ids, verdict)) = question.verdict() {
            let ids = ids.to_vec();
            let work = |store: Store| async move { store.judge(ids, verdict).await };
            let judged = wait(app::with_store(self.config()?, clock(), work))??;
            return Ok(serde_json::to_value(judged)?);
        }
        if let Question::OrderTicket(wanted) = question {
            let wanted = wanted.clone();
            let work = |store: Store| async move { store.order_ticket(wanted).await };
            let ordered = wait(app::with_store(self.config()?, clock(), work))??;
            return Ok(serde_json::to_value(ordered)?);
        }
        if let Question::Rewind(wanted) = question {
            let rewound = wait(app::rewind(self.config()?, clock(), wanted.clone()))??;
            return Ok(serde_json::to_value(rewound)?);
        }
        if matches!(question, Question::ResyncDevices) {
            let work = |store: Store| async move { store.resync_devices().await };
            let devices = wait(app::with_store(self.config()?, clock(), work))??;
            return Ok(serde_json::to_value(devices)?);
        }
        let reader = Reader::open(&self.dir)?;
        control::answer(&reader, question)?
            .ok_or_else(|| CliError::Words("this needs the running service".to_owned()))
    }
}

/// Where the socket of the running service is, as seen by somebody who may have another environment than the service:
/// root at a terminal has no `$RUNTIME_DIRECTORY`, yet the packaged unit's service, the one on the default state directory,
/// has its socket in one.
fn find_socket(state_dir: &Path, runtime_dir: Option<&Path>, service: (&str, &str)) -> PathBuf {
    let own = app::socket(state_dir, runtime_dir);
    let of_service = app::socket(state_dir, Some(Path::new(service.1)));
    if state_dir == Path::new(service.0) && !own.exists() && of_service.exists() { of_service } else { own }
}

/// `$RUNTIME_DIRECTORY`, where systemd made one for the service.
pub(super) fn runtime_dir(terminal: &Terminal<'_>) -> Option<PathBuf> {
    (terminal.environment.variables)("RUNTIME_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_of_the_packaged_service_is_found_without_its_environment() {
        let dir = tempfile::tempdir().unwrap();
        let (state, other, run) =
            (dir.path().join("state"), dir.path().join("other"), dir.path().join("run"));
        for made in [&state, &other, &run] {
            std::fs::create_dir(made).unwrap();
        }
        let service = (state.to_str().unwrap(), run.to_str().unwrap());
        let of = |dir: &Path| dir.join(control::SOCKET);
        // Nobody listens anywhere: the place where one would be.
        assert_eq!(find_socket(&state, None, service), of(&state));
        std::fs::write(of(&run), "").unwrap();
        assert_eq!(find_socket(&state, None, service), of(&run));
        // Another state directory is another agent's, whoever listens there.
        assert_eq!(find_socket(&other, None, service), of(&other));
        // A service that was told its directory, and one that is started by hand.
        assert_eq!(find_socket(&state, Some(&run), service), of(&run));
        std::fs::write(of(&state), "").unwrap();
        assert_eq!(find_socket(&state, None, service), of(&state));
    }
}
