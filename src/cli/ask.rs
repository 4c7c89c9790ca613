//! Where an answer comes from: the running service when there is one, else the store itself.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::{CliError, Terminal, clock, load_to_look, runtime};
use crate::app;
use crate::config::Config;
use crate::control::client::{AskError, ask, is_there};
use crate::control::{self, Question};
use crate::store::{Reader, Store};

/// What a question needs.
pub(super) struct Asker {
    pub(super) config: Config,
    pub(super) socket: PathBuf,
    /// Whether an agent holds the state directory, or listens.
    pub(super) running: bool,
}

impl Asker {
    pub(super) fn new(terminal: &Terminal<'_>) -> Result<Self, CliError> {
        let config = load_to_look(terminal)?;
        let socket = app::socket(&config.store.dir, runtime_dir(terminal).as_deref());
        // In a state directory that could never be written there is no lock, but maybe an ear.
        let running = Store::is_running(&config.store.dir) || is_there(&socket);
        Ok(Self { config, socket, running })
    }

    /// Asks.
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
            let judged = runtime()?.block_on(app::with_store(&self.config, clock(), work))?;
            return Ok(serde_json::to_value(judged)?);
        }
        let reader = Reader::open(&self.config.store.dir)?;
        control::answer(&reader, question)?
            .ok_or_else(|| CliError::Words("this needs the running service".to_owned()))
    }
}

/// `$RUNTIME_DIRECTORY`, where systemd made one for the service.
pub(super) fn runtime_dir(terminal: &Terminal<'_>) -> Option<PathBuf> {
    (terminal.environment.variables)("RUNTIME_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}
