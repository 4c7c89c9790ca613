//! Where an answer comes from: the running service when there is one, else the store itself.

use std::path::PathBuf;

use serde::de::DeserializeOwned;

use super::{CliError, Terminal, clock, runtime};
use crate::app;
use crate::config::{self, Config, ConfigError, Purpose};
use crate::control::client::{AskError, ask};
use crate::control::{self, Question};
use crate::rules::template::check_template;
use crate::store::{Reader, Store};

/// What a question needs.
pub(super) struct Asker {
    /// The config; its error when it cannot be used, which is no reason not to ask a running service.
    config: Result<Config, ConfigError>,
    /// The state directory.
    pub(super) dir: PathBuf,
    pub(super) socket: PathBuf,
    /// Whether an agent holds the state directory.
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
        let running = Store::is_running(&dir);
        let config = if running { config } else { Ok(config?) };
        let socket = app::socket(&dir, runtime_dir(terminal).as_deref());
        Ok(Self { config, dir, socket, running })
    }

    /// The config, for what cannot be asked.
    pub(super) fn config(&self) -> Result<&Config, CliError> {
        self.config.as_ref().map_err(|e| e.clone().into())
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
            let judged = runtime()?.block_on(app::with_store(self.config()?, clock(), work))?;
            return Ok(serde_json::to_value(judged)?);
        }
        let reader = Reader::open(&self.dir)?;
        control::answer(&reader, question)?
            .ok_or_else(|| CliError::Words("this needs the running service".to_owned()))
    }
}

/// `$RUNTIME_DIRECTORY`, where systemd made one for the service.
pub(super) fn runtime_dir(terminal: &Terminal<'_>) -> Option<PathBuf> {
    (terminal.environment.variables)("RUNTIME_DIRECTORY").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}
