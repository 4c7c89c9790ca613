//! The agent as an operator has it: a config, two secret files, EVE files, a state directory, and the real binary.
//!
//! Each one lives in a temporary directory and starts with an empty environment. A [`Service`] is killed when dropped.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use otrelay::app;
use otrelay::clock::{Clock as _, ManualClock, SharedClock, SystemClock};
use otrelay::config::{self, Config, Environment, Purpose};
use otrelay::relay::Report;
use otrelay::rules::template::check_template;
use otrelay::simulator::Running;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::until;

/// An instance that was not asked for so long is not asked any more.
const RESTS: Duration = Duration::from_millis(700);

/// `[agent] name`.
pub(crate) const NAME: &str = "cell-7";

/// Everything that is critical goes to the table `incident`, everything else is filtered.
pub(crate) const CRITICAL: &str = r#"
[[rule]]
name = "Critical"
min_severity = "critical"
[[rule.action]]
servicenow = "prod"
"#;

/// The log-in of [`Agent::login`] where nothing else is said.
const PASSWORD: &str = r#"auth = "password"
client_id = "otrelay"
client_secret = { file = "DIR/client-secret" }
username = "admin"
password = { file = "DIR/password" }"#;

/// An installed agent.
pub(crate) struct Agent {
    dir: TempDir,
    url: String,
    sync: String,
    buffer: String,
    requests: u32,
    login: String,
    destination: String,
    pattern: String,
    rules: String,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// It ended so.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Its output has these words.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.out.contains(words) || self.err.contains(words), "no `{words}` in {self:#?}");
        self
    }

    /// Its standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

impl Agent {
    /// One that reports to this simulator, with the rule [`CRITICAL`].
    pub(crate) fn new(simulator: &Running) -> Self {
        Self::at(simulator.url())
    }

    /// One that reports to this address.
    pub(crate) fn at(url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("it-").tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let agent = Self {
            url: url.to_owned(),
            sync: String::new(),
            buffer: String::new(),
            requests: 100_000,
            login: PASSWORD.to_owned(),
            destination: String::new(),
            pattern: "eve*.json".to_owned(),
            rules: CRITICAL.to_owned(),
            dir,
        };
        agent.secrets("otrelay", "admin");
        agent.write_config();
        agent
    }

    /// Other rules.
    pub(crate) fn rules(mut self, text: &str) -> Self {
        self.set_rules(text);
        self
    }

    /// Other rules from the next command on.
    pub(crate) fn set_rules(&mut self, text: &str) {
        text.clone_into(&mut self.rules);
        self.write_config();
    }

    /// More lines of `[sync]`.
    pub(crate) fn set_sync(&mut self, text: &str) {
        text.clone_into(&mut self.sync);
        self.write_config();
    }

    /// More lines of `[servicenow.prod]`.
    pub(crate) fn destination(mut self, text: &str) -> Self {
        text.clone_into(&mut self.destination);
        self.write_config();
        self
    }

    /// Another way to log in than with user and password; `DIR` is the directory of the agent.
    pub(crate) fn login(mut self, text: &str) -> Self {
        text.clone_into(&mut self.login);
        self.write_config();
        self
    }

    /// `[servicenow.prod] requests_per_hour` instead of very many.
    pub(crate) fn requests_per_hour(mut self, number: u32) -> Self {
        self.requests = number;
        self.write_config();
        self
    }

    /// Lines of `[buffer]`.
    pub(crate) fn buffer(mut self, text: &str) -> Self {
        text.clone_into(&mut self.buffer);
        self.write_config();
        self
    }

    /// Other EVE files than `eve*.json`.
    pub(crate) fn pattern(mut self, pattern: &str) -> Self {
        pattern.clone_into(&mut self.pattern);
        self.write_config();
        self
    }

    /// Writes both secrets, as an operator does: mode 0600.
    pub(crate) fn secrets(&self, client_secret: &str, password: &str) {
        for (name, text) in [("client-secret", client_secret), ("password", password)] {
            private(&self.dir.path().join(name), text);
        }
    }

    fn write_config(&self) {
        let dir = self.dir.path().display();
        let Self { url, sync, buffer, requests, destination, pattern, rules, .. } = self;
        let login = self.login.replace("DIR", &dir.to_string());
        let text = format!(
            r#"[agent]
name = "{NAME}"
id = "{NAME}-id"
site = "Test plant"
state_dir = "{dir}/state"

[sync]
backfill = "all"
interval = "5m"
{sync}

[buffer]
{buffer}

[servicenow.prod]
instance = "{url}"
{login}
requests_per_hour = {requests}
{destination}

[[source]]
name = "eve"
kind = "suricata-eve"
path = "{dir}/log/{pattern}"

{rules}"#
        );
        private(&self.config_path(), &text);
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("otrelay.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A file among those that the sensor writes.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join("log").join(name)
    }

    /// Appends to `eve.json`.
    pub(crate) fn feed(&self, text: impl AsRef<[u8]>) {
        self.feed_to("eve.json", text);
    }

    /// Appends to a file.
    pub(crate) fn feed_to(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.log(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    /// The disk with the state is replaced by an empty one.
    pub(crate) fn lose_state(&self) {
        fs::remove_dir_all(self.state()).unwrap();
    }

    /// The binary with the config and these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_otrelay"));
        command.env_clear().current_dir(self.dir.path()).stdin(Stdio::null());
        command.arg("--config").arg(self.config_path()).args(args);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(self.command(args))
    }

    /// `run --once`.
    pub(crate) fn once(&self) -> Said {
        self.run(&["run", "--once"])
    }

    /// The JSON of a command that succeeds.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.run(&[args, &["--json"]].concat()).ends(0).json()
    }

    /// `status --json`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        // On a machine that is busy with much else the client's patience may run out: it is asked again.
        let answer =
            || Some(self.run(&["status", "--json"])).filter(|said| !said.err.contains("did not answer"));
        until("the service answers", answer).ends(0).json()
    }

    /// What `status` says of a source, by its name: in which order they come first to the store is chance.
    #[track_caller]
    pub(crate) fn source(&self, name: &str) -> Value {
        let status = self.status();
        let found = status["sources"].as_array().unwrap().iter().find(|source| source["name"] == name);
        found.cloned().unwrap_or_default()
    }

    /// Starts the service and waits until it answers.
    pub(crate) fn start(&self) -> Service {
        self.start_with(&[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(&self, args: &[&str]) -> Service {
        self.start_command(self.command(&[&["run"], args].concat()))
    }

    /// The same with a command of one's own, made by [`Self::command`].
    pub(crate) fn start_command(&self, mut command: Command) -> Service {
        let log = |name: &str| {
            fs::OpenOptions::new().append(true).create(true).open(self.dir.path().join(name)).unwrap()
        };
        command.stdout(log("service.out")).stderr(log("service.err"));
        let mut service = Service { child: command.spawn().unwrap() };
        let socket = self.state().join("otrelay.sock");
        until("the service answers", || {
            if let Some(status) = service.child.try_wait().unwrap() {
                let said = fs::read_to_string(self.dir.path().join("service.err")).unwrap();
                panic!("the service ended with {status}: {said}");
            }
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        service
    }

    /// Waits until `status --json` is so.
    pub(crate) fn until_status(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        until(what, || Some(self.status()).filter(&is))
    }

    /// So many deliveries wait. No when nothing was kept so far.
    pub(crate) fn has_backlog(&self, count: u64) -> bool {
        let said = self.run(&["status", "--json"]);
        serde_json::from_str::<Value>(&said.out).is_ok_and(|status| status["backlog"] == count)
    }

    /// What the service has logged so far.
    pub(crate) fn logged(&self) -> String {
        fs::read_to_string(self.dir.path().join("service.err")).unwrap()
    }

    /// The same, of a service that may not have begun.
    pub(crate) fn said_so_far(&self) -> String {
        fs::read_to_string(self.dir.path().join("service.err")).unwrap_or_default()
    }

    /// More text at the end of the config, until it is written again.
    pub(crate) fn append_config(&self, text: &str) {
        let mut file = fs::OpenOptions::new().append(true).open(self.config_path()).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// The config as it was before [`Self::append_config`].
    pub(crate) fn restore_config(&self) {
        self.write_config();
    }

    /// The config, with little patience after doubtful answers: the simulator's look-ups do not lag unasked.
    pub(crate) fn config(&self, doubt_wait: Duration) -> Config {
        let environment = Environment::new(|_| None).with_config(Some(self.config_path()));
        let mut config = config::load(&environment, Purpose::Run, check_template).unwrap().config;
        config.relay.doubt_wait = doubt_wait;
        config
    }

    /// `run --once` in this process, with a short wait after doubtful answers.
    pub(crate) fn once_here(&self, doubt_wait: Duration) -> Report {
        self.once_by(Arc::new(SystemClock), doubt_wait)
    }

    /// The same by another clock.
    pub(crate) fn once_by(&self, clock: SharedClock, doubt_wait: Duration) -> Report {
        self.once_at(clock, doubt_wait, Duration::from_mins(2), || true)
    }

    /// `run --once` that is told to stop when the instance has not been asked for a while: what is left then waits for a
    /// time of its own, or the machine is slow and the next run goes on with it.
    pub(crate) fn once_briefly(
        &self,
        simulator: &Running,
        clock: SharedClock,
        doubt_wait: Duration,
    ) -> Report {
        let last = Cell::new((simulator.requests(), Instant::now()));
        let rests = || {
            let asked = simulator.requests();
            if asked != last.get().0 || asked == 0 {
                last.set((asked, Instant::now()));
            }
            last.get().1.elapsed() > RESTS
        };
        self.once_at(clock, doubt_wait, Duration::ZERO, rests)
    }

    /// The same again and again, an hour later each time, until nothing is owed: nobody waits for the pause after a failure.
    pub(crate) fn once_by_hours(&self, simulator: &Running, doubt_wait: Duration) -> Report {
        let clock = ManualClock::at(SystemClock.now());
        let mut total = Report::default();
        for _ in 0..48 {
            let one = self.once_briefly(simulator, clock.clone(), doubt_wait);
            let owed = one.cut || one.next_at.is_some();
            (total.again, total.next_at, total.cut) = (0, None, false);
            total.waiting.clear();
            total.failures.clear();
            total.add(one);
            if !owed {
                break;
            }
            clock.advance(Duration::from_hours(1));
        }
        total
    }

    /// The same, told to stop `more` after there was `enough`, however long that takes.
    pub(crate) fn once_at(
        &self,
        clock: SharedClock,
        doubt_wait: Duration,
        more: Duration,
        enough: impl Fn() -> bool,
    ) -> Report {
        let (config, stop) = (self.config(doubt_wait), CancellationToken::new());
        let stopped = stop.clone();
        std::thread::scope(|scope| {
            // A test that fails does not wait for it.
            let _stop = stop.clone().drop_guard();
            let once = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(app::once(config, clock, drop, stopped)).unwrap().report
            });
            until("there was enough", || (once.is_finished() || enough()).then_some(()));
            let end = Instant::now() + more;
            while !once.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
            stop.cancel();
            once.join().unwrap()
        })
    }
}

/// A running service.
pub(crate) struct Service {
    child: Child,
}

impl Service {
    /// As a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// As systemd would; its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        terminate(&self.child);
        self.child.wait().unwrap().code().unwrap()
    }

    /// The exit code with which it ends by itself.
    pub(crate) fn ended(mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap()
    }

    /// Most memory that it ever had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGHUP, as `systemctl reload` does.
    pub(crate) fn hang_up(&self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGTERM.
pub(crate) fn terminate(child: &Child) {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
}

/// Runs a command to its end.
pub(crate) fn said(mut command: Command) -> Said {
    let output = command.output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Writes a file as an operator writes a secret: mode 0600.
pub(crate) fn private(path: &Path, text: &str) {
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
