//! A ServiceNow instance in memory: `otrelay simulate`, `otrelay demo`, and the other side of the tests. The agent
//! never knows which it talks to.
//!
//! **Path of a request.** `serve` reads it whole, asks `fault` what is to go wrong, hands it to the `instance`
//! through `router` (authentication in `oauth`), writes it into the `ledger` and sends what is left of the
//! answer. `admin` has the addresses below `/simulator`.
//!
//! **Invariants.** A call is one transaction: what the ledger says was created is there, whatever the client heard.
//! Everything is bounded: bodies, connections, records, tokens, the ledger. Plain HTTP on loopback only.
//!
//! **Not here.** Business rules beyond the state models (`stages`), roles and field ACLs beyond what faults simulate, time zones other than GMT, XML,
//! relative dates and scripts in queries. A reference given by name is
//! resolved when some record has that name (see `write`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::clock::{SharedClock, SystemClock};
use crate::model::Secret;

mod admin;
mod batch;
mod call;
mod change;
pub mod console;
mod cut;
mod dictionary;
mod fault;
mod import;
mod instance;
mod ire;
mod ledger;
mod limit;
mod oauth;
mod page;
mod query;
mod router;
mod schema;
mod serve;
mod stages;
mod table_api;
mod tls;
#[cfg(test)]
mod trial;
mod values;
mod write;

pub use fault::{Fault, FaultError, HELP as FAULT_HELP, Kind as FaultKind};
pub use import::ImportMap;
pub use ledger::{Entry, MAX_ENTRIES};
pub use limit::RateRule;

/// What a simulator is started with. [`Options::default`] is `admin`/`admin` with the client `otrelay`/`otrelay` on a
/// free port of 127.0.0.1.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Options {
    /// Where to listen; port 0 takes a free one. Not loopback: only with `tls`.
    pub listen: SocketAddr,
    /// HTTPS with a certificate of the simulator's own CA.
    pub tls: bool,
    /// Names in that certificate, besides `localhost` and the address. The first one stands in links when it listens
    /// on all addresses.
    pub tls_names: Vec<String>,
    /// User that may log in.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// OAuth clients: id and secret.
    pub clients: Vec<(String, Secret)>,
    /// API key of the user, if there is one.
    pub api_key: Option<Secret>,
    /// Public keys, PEM, of which one has to have signed an assertion; with none, a signature is not looked at.
    pub jwt_keys: Vec<String>,
    /// CA, PEM, whose client certificates log the user in; only with `tls`.
    pub client_ca: Option<String>,
    /// Whether a refresh gives a new refresh token and ends the old one.
    pub rotate_refresh: bool,
    /// How long an access token lives.
    pub token_lifetime: Duration,
    /// Tables besides those that are known; they take any field.
    pub tables: Vec<String>,
    /// Whether the Change Management API is there.
    pub change_api: bool,
    /// Whether the Batch API is there.
    pub batch_api: bool,
    /// Staging tables of the Import Set API.
    pub imports: Vec<ImportMap>,
    /// Rows of `sys_properties` besides, or instead of, those that are known.
    pub properties: Vec<(String, String)>,
    /// Tickets on hold are resolved by the instance itself after so long, when they are next read.
    pub resolve_on_hold: Option<Duration>,
    /// Whether security incidents may go from any state to any other (the process *NIST Open*); else only to the next.
    pub nist_open: bool,
    /// A limit of requests per window, if there is a rule.
    pub rate_limit: Option<RateRule>,
    /// Requests worked on at a time, if that is limited; others get 429 at once.
    pub semaphore: Option<usize>,
    /// How long each item of a batch is taken to run; a batch ends after 30 s of that.
    pub batch_item_cost: Duration,
    /// Faults from the start.
    pub faults: Vec<Fault>,
    /// Draws the chances of faults, and every `sys_id`.
    pub seed: u64,
    /// Most records in all tables together.
    pub max_records: usize,
    /// Dates records and ends tokens.
    pub clock: SharedClock,
}

impl Default for Options {
    fn default() -> Self {
        let own = |text: &str| Secret::new("simulator default", text);
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: false,
            tls_names: Vec::new(),
            user: "admin".to_owned(),
            password: own("admin"),
            clients: vec![("otrelay".to_owned(), own("otrelay"))],
            api_key: None,
            jwt_keys: Vec::new(),
            client_ca: None,
            rotate_refresh: false,
            token_lifetime: Duration::from_secs(1799),
            tables: Vec::new(),
            change_api: true,
            batch_api: true,
            imports: Vec::new(),
            properties: Vec::new(),
            resolve_on_hold: None,
            nist_open: false,
            rate_limit: None,
            semaphore: None,
            batch_item_cost: Duration::ZERO,
            faults: Vec::new(),
            seed: 1,
            max_records: 1_000_000,
            clock: Arc::new(SystemClock),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("listen", &self.listen)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// Plain HTTP was to leave the machine.
    #[error(
        "{0} is not a loopback address: plain HTTP would show passwords; add --tls, or listen on 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}; is something else listening there?")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificate could not be made.
    #[error("cannot make the simulator's certificate: {0}")]
    Tls(String),
    /// The thread for [`Simulator::start_on_thread`] could not be started.
    #[error("cannot start the simulator's thread")]
    Thread(#[source] std::io::Error),
}

/// A record as it is in the simulator: the fields that are not empty, as database values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its table.
    pub table: String,
    /// Field to value.
    pub fields: BTreeMap<String, String>,
}

impl Record {
    /// A field's value; empty when it has none.
    pub fn get(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }
}

/// Starts simulators.
#[derive(Debug)]
pub struct Simulator;

impl Simulator {
    /// Starts one as a task of the caller's runtime.
    pub async fn start(options: Options) -> Result<Running, SimError> {
        let (mut running, listener, tls) = bind(options).await?;
        running.tasks.spawn(serve::accept(listener, tls, running.shared.clone(), running.stop.clone()));
        Ok(running)
    }

    /// Starts one on a thread with a runtime of its own, for callers without a runtime and for tests that block.
    pub fn start_on_thread(options: Options) -> Result<Running, SimError> {
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => return drop(tell.send(Err(SimError::Thread(e)))),
            };
            runtime.block_on(async move {
                match bind(options).await {
                    Err(e) => drop(tell.send(Err(e))),
                    Ok((running, listener, tls)) => {
                        let (shared, stop) = (running.shared.clone(), running.stop.clone());
                        drop(tell.send(Ok(running)));
                        serve::accept(listener, tls, shared, stop).await;
                    }
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("simulator".to_owned()).spawn(run).map_err(SimError::Thread)?;
        let ended = || SimError::Thread(std::io::Error::other("it ended before it said anything"));
        let mut running = told.recv().map_err(|_| ended())??;
        running.thread = Some(thread);
        Ok(running)
    }
}

/// Takes the port: a simulator that nobody lets answer yet.
async fn bind(options: Options) -> Result<(Running, TcpListener, Option<TlsAcceptor>), SimError> {
    let listen = options.listen;
    if !options.tls && !listen.ip().is_loopback() {
        return Err(SimError::NotLoopback(listen));
    }
    let failed = |source| SimError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (tls, ca_pem) = if options.tls {
        let (acceptor, pem) = tls::acceptor(address.ip(), &options.tls_names, options.client_ca.as_deref())?;
        (Some(acceptor), Some(pem))
    } else {
        (None, None)
    };
    let url = if options.tls && address.ip().is_unspecified() {
        // Links and `Location` need a host that a caller can reach.
        let host = options.tls_names.first().map_or("localhost", String::as_str);
        format!("https://{host}:{}", address.port())
    } else {
        format!("{}://{address}", if options.tls { "https" } else { "http" })
    };
    let shared = serve::Shared::new(serve::State::new(options, url.clone()));
    let (stop, tasks) = (CancellationToken::new(), JoinSet::new());
    Ok((Running { shared, url, ca_pem, stop, tasks, thread: None }, listener, tls))
}

/// A simulator that listens. Dropping it stops it.
pub struct Running {
    shared: serve::Shared,
    url: String,
    ca_pem: Option<String>,
    stop: CancellationToken,
    /// The accept loop, where it is a task; else it has a thread.
    tasks: JoinSet<()>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Its base address: `http://127.0.0.1:41327`, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA certificate to trust, with TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca_pem.as_deref()
    }

    /// One more fault, after those that are there.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// No more faults.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.rules.clear();
    }

    /// How often any fault fired.
    pub fn faults_fired(&self) -> u64 {
        self.shared.lock().faults.rules.iter().map(|r| r.fired).sum()
    }

    /// All records of a table and of those that extend it, in the order of their creation; none when there is no
    /// such table.
    pub fn records(&self, table: &str) -> Vec<Record> {
        self.shared.lock().instance.records(table)
    }

    /// Records that share a `correlation_id` with another: id to how many. Empty is what exactly-once looks like.
    pub fn twins(&self) -> BTreeMap<String, usize> {
        self.shared.lock().instance.twins()
    }

    /// Changes a record as a person at the instance would; false when it is refused or not there.
    pub fn edit(&self, table: &str, sys_id: &str, fields: &[(&str, &str)]) -> bool {
        let mut state = self.shared.lock();
        let wanted = fields.iter().map(|(n, v)| ((*n).to_owned(), serde_json::Value::from(*v))).collect();
        let tweaks = instance::Tweaks::default();
        let Some(user) = state.instance.user("abel.tuter") else { return false };
        let ctx = instance::Context { user: &user, tweaks: &tweaks };
        state.instance.update(ctx, table, sys_id, &wanted, false).is_ok()
    }

    /// Puts a record in that somebody else made: a decoy, a twin. Any field may be given, also who made it and when; its
    /// `sys_id` comes back, or `None` when there is no such table.
    pub fn plant(&self, table: &str, fields: &[(&str, &str)]) -> Option<String> {
        self.shared.lock().instance.plant(table, fields)
    }

    /// Deletes a record as an administrator would; false when it is not there.
    pub fn delete(&self, table: &str, sys_id: &str) -> bool {
        self.shared.lock().instance.delete_record(table, sys_id)
    }

    /// The instance is cloned over by another: no ticket of it is left, nor what was noted in them.
    pub fn clone_over(&self) {
        self.shared.lock().instance.lose_tickets();
    }

    /// Texts of the journal entries of a record, oldest first.
    pub fn journal(&self, sys_id: &str) -> Vec<String> {
        let entries = self.records("sys_journal_field");
        let ours = entries.iter().filter(|entry| entry.get("element_id") == sys_id);
        ours.map(|entry| entry.get("value").to_owned()).collect()
    }

    /// What is in an attached file; none when there is no such attachment.
    pub fn file(&self, sys_id: &str) -> Option<Vec<u8>> {
        self.shared.lock().instance.files.get(sys_id).cloned()
    }

    /// The last requests, oldest first, at most [`MAX_ENTRIES`].
    pub fn ledger(&self) -> Vec<Entry> {
        self.shared.lock().ledger.entries()
    }

    /// Requests so far, those to `/simulator` not counted.
    pub fn requests(&self) -> u64 {
        self.shared.lock().ledger.requests()
    }

    /// Takes all access tokens back.
    pub fn revoke_tokens(&self) {
        self.shared.lock().instance.tokens.revoke_access();
    }

    /// Takes all refresh tokens back, as a person at the instance would.
    pub fn revoke_refresh_tokens(&self) {
        self.shared.lock().instance.tokens.revoke_refresh();
    }

    /// Forgets records, tokens and the ledger; faults stay.
    pub fn reset(&self) {
        self.shared.lock().reset();
    }

    /// Stops listening, ends every connection and waits until that is done.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Running {
    /// A task of this runtime is aborted with its set; a thread is waited for, it has nothing left that could block.
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("url", &self.url).finish_non_exhaustive()
    }
}
