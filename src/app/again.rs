//! A source that is to be read again: the way from who orders it to the source, which stands still meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::{AppError, with_store};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::control::server::Rewind;
use crate::source::{self, Input, Order, begins_anew};
use crate::store::op::again::{Rewound, Steps, Wanted};
use crate::store::{Store, StoreError};

/// Orders that a source lets wait.
const ORDERS: usize = 4;
/// What is said when it stops before it is done.
const STOPPING: &str = "the service is stopping or reloads its config; order it again";

/// The running sources, by name. A reload shuts all and opens those of the new config.
#[derive(Clone, Default)]
pub(super) struct Doors(Arc<Mutex<BTreeMap<String, Door>>>);

#[derive(Clone)]
struct Door {
    orders: mpsc::Sender<Order>,
    input: Input,
}

impl Doors {
    pub(super) fn shut(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The other end of a source's way.
    pub(super) fn open(&self, settings: &source::Settings) -> mpsc::Receiver<Order> {
        let (orders, receive) = mpsc::channel(ORDERS);
        let door = Door { orders, input: settings.input.clone() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(settings.name.to_string(), door);
        receive
    }

    /// What the control socket calls.
    pub(super) fn rewinds(&self, store: &Store, clock: &SharedClock) -> Rewind {
        let (doors, store, clock) = (self.clone(), store.clone(), Arc::clone(clock));
        Arc::new(move |wanted| {
            let (doors, store, clock) = (doors.clone(), store.clone(), Arc::clone(&clock));
            Box::pin(async move { doors.rewind(wanted, store, &clock).await })
        })
    }

    async fn rewind(&self, wanted: Wanted, store: Store, clock: &SharedClock) -> Result<Rewound, String> {
        let name = wanted.source.to_string();
        let door = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        let door = door.ok_or_else(|| unknown(&name))?;
        let steps = steps(&name, &door.input, clock)?;
        if wanted.dry_run {
            return store.rewind(wanted, steps).await.map_err(|e| e.to_string());
        }
        let (answer, answered) = oneshot::channel();
        let order: Order = Box::pin(async move {
            // Who has gone does not want it any more; who goes now will see it in the list of sources.
            if !answer.is_closed() {
                let _ = answer.send(store.rewind(wanted, steps).await.map_err(|e| e.to_string()));
            }
        });
        door.orders.send(order).await.map_err(|_| STOPPING.to_owned())?;
        answered.await.map_err(|_| STOPPING.to_owned())?
    }
}

fn unknown(name: &str) -> String {
    format!("there is no source {name} in the config; `otrelay sources` lists them")
}

fn steps(name: &str, input: &Input, clock: &SharedClock) -> Result<Steps, String> {
    let (forget, put) = begins_anew(input, clock.now())
        .map_err(|why| format!("source {name} cannot be read again: {why}"))?;
    Ok(Steps { forget, put })
}

/// Sets a source back where no service runs: the next start reads it again.
///
/// # Errors
/// [`AppError`]; in the store's words where it cannot be done.
pub async fn rewind(config: &Config, clock: SharedClock, wanted: Wanted) -> Result<Rewound, AppError> {
    let refused = |words: String| AppError::Store(StoreError::Refused(words));
    let name = wanted.source.to_string();
    let source = config.sources.iter().find(|source| source.name == wanted.source);
    let source = source.ok_or_else(|| refused(unknown(&name)))?;
    let steps = steps(&name, &source.input, &clock).map_err(refused)?;
    with_store(config, clock, |store| async move { store.rewind(wanted, steps).await }).await
}
