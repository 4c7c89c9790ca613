//! Who we are there. Keys of tickets can be computed by anybody who knows what they are made of, so a record that is
//! found by our key may be somebody else's: whose it is shows in `sys_created_by`.
//!
//! Our own name is what a record shows that we made, else the one that we log in with, else what the instance says when
//! it is asked once. Where none of them is known, nobody is called a stranger.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::auth::Auth;
use super::call::{Call, Path, ServiceNow};
use super::classify::What;
use super::query::url_value;
use super::ticket::{DISPLAY, VALUES};
use super::wire;
use crate::destination::{Remote, Sent};
use crate::model::TableName;

/// Of a condition that the instance works out; it names whoever asks.
const ME: &str = "sys_id=javascript:gs.getUserID()";

/// What is known of our own user.
#[derive(Debug, Default)]
pub(super) struct User(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    name: Option<String>,
    asked: bool,
}

impl User {
    pub(super) fn of(auth: &Auth) -> Self {
        Self(Mutex::new(Known { name: auth.user().map(str::to_owned), asked: false }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServiceNow {
    /// Learns our name from a record that this made.
    pub(super) fn learn_user(&self, sent: &Sent) {
        let is_ours = sent.created && sent.kept.is_some_and(|kept| kept.sys_id && kept.correlation_id);
        let by = sent.remote.as_ref().map(|remote| &remote.detail.created_by);
        if let Some(by) = by.filter(|by| is_ours && !by.is_empty()) {
            self.user.known().name = Some(by.clone());
        }
    }

    /// Marks the records that somebody else made, and forgets of which agent those are that are ours.
    pub(super) async fn mark_strangers(&self, remotes: impl Iterator<Item = &mut Remote>) {
        let mut of_somebody: Vec<&mut Remote> = Vec::new();
        for remote in remotes {
            let agent = &mut remote.detail.agent;
            // Those of the first version did not say.
            if *agent == self.display || *agent == DISPLAY {
                agent.clear();
            }
            if !remote.detail.created_by.is_empty() {
                of_somebody.push(remote);
            }
        }
        if of_somebody.is_empty() {
            return;
        }
        if let Some(us) = self.our_name().await {
            for remote in &mut of_somebody {
                remote.detail.is_strangers = !remote.detail.created_by.eq_ignore_ascii_case(&us);
            }
        }
    }

    async fn our_name(&self) -> Option<String> {
        {
            let mut known = self.user.known();
            if known.name.is_some() || std::mem::replace(&mut known.asked, true) {
                return known.name.clone();
            }
        }
        let name = self.ask_who_we_are().await;
        self.user.known().name.clone_from(&name);
        name
    }

    /// An instance that drops the condition answers with everybody, which is no answer.
    async fn ask_who_we_are(&self) -> Option<String> {
        let table = TableName::new("sys_user").ok()?;
        let query =
            format!("sysparm_query={}&sysparm_fields=user_name&{VALUES}&sysparm_limit=2", url_value(ME));
        let called = self.call(&Call::get(What::LookUp, &table, Path::Records(&table), query)).await;
        let rows = match &called {
            Ok((value, _)) => value.get("result").and_then(Value::as_array)?.as_slice(),
            Err(e) => {
                tracing::debug!("{} does not say who we are: {e}", self.place);
                return None;
            }
        };
        let [row] = rows else { return None };
        Some(wire::field(row, "user_name")).filter(|name| !name.is_empty())
    }
}
