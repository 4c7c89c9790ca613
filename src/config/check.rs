//! Raw tables to Settings: the order of the checks, `[agent]`, `[sync]`, `[buffer]`, and what stands across tables.
//!
//! A check never stops the next one. A part that could not be made is `None` and has its reason among the problems.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::file::{self, File};
use super::problem::{At, Level, Problem, Problems};
use super::read::{Field, List};
use super::show::{Effective, Origin};
use super::values::{self, Period, Role, Size};
use super::{Agent, Config, Environment, IdFrom, Purpose, TemplateCheck, duration, size};
use crate::intake::{self, Backfill};
use crate::model::gather::Gather as _;
use crate::model::names::NameError;
use crate::relay;
use crate::rules::exclude::Exclusions;
use crate::source::{Own, host};
use crate::status;
use crate::store::{self, WhenFull};

pub(super) const MIN_INTERVAL: Duration = Duration::from_mins(5);
const MIN_BUFFER: u64 = 8 << 20;
pub(super) const DEFAULT_STATE_DIR: &str = "/var/lib/otrelay";

/// What the checks have at hand, and where they write what they find.
pub(super) struct Check<'a> {
    pub(super) environment: &'a Environment,
    pub(super) purpose: Purpose,
    pub(super) templates: TemplateCheck,
    /// False when a file could not be read, so that what is missing may stand in there.
    pub(super) complete: bool,
    pub(super) problems: &'a mut Problems,
    pub(super) effective: Effective,
}

/// Checks all of it; `None` when there was an error.
pub(super) fn check(file: &File, root: &At, c: &mut Check<'_>) -> Option<Config> {
    let agent = agent(&file.agent.get_or_default(), c);
    let state_dir = state_dir(&file.agent.get_or_default(), c);
    let (enabled, interval, tickets_interval, backfill) = sync(&file.sync.get_or_default(), c);
    let store = buffer(&file.buffer.get_or_default(), state_dir.clone(), c);
    let mut destinations = super::destination::check(&file.servicenow, state_dir.as_deref(), c);
    let sources = super::source::check(&file.source, agent.as_ref(), c);
    let names: Vec<&str> = file.servicenow.get().map_or(Vec::new(), |(destinations, _)| {
        destinations.0.iter().map(|(name, ..)| name.as_str()).collect()
    });
    let rules = super::rule::check(&file.rule, &names, c);
    super::rule::captures(&file.rule, &sources, c);
    let status = status(&file.status.get_or_default(), c);
    let exclusions = super::exclude::check(&file.exclude, c);
    let redaction = super::redact::check(&file.redact, &file.rule, c);
    let tests = super::case::check(&file.test, c);
    let devices = super::devices::check(&file.devices, agent.as_ref(), &names, c);
    let devices = devices.map(|super::devices::Checked { relay, wire }| {
        let own = destinations.iter_mut().find(|(settings, _)| settings.name == relay.destination);
        if let Some((settings, _)) = own {
            settings.devices = Some(wire);
        }
        relay
    });
    if devices.is_some()
        && redaction.as_ref().is_some_and(|r| r.fields().keys().any(|field| field.is_of_an_end()))
    {
        let at = file.redact.at().cloned().unwrap_or_else(|| root.child("redact"));
        let message = "[devices] tells the CMDB addresses and names as they are, and a ticket names the CI of its device";
        c.problems.warn(&at, message, |p| p.hint("without [devices] they stay on this machine"));
    }
    if c.complete {
        whole(file, root, enabled, c);
    }
    if c.problems.has_errors() {
        return None;
    }
    let limits = destinations.iter().map(|(settings, limits)| (settings.name.clone(), *limits)).into_map();
    let agent = agent?;
    Some(Config {
        own: Own::default(),
        store: store?,
        relay: relay::Settings {
            enabled,
            interval: interval?,
            doubt_wait: relay::DOUBT_WAIT,
            destinations: limits,
            devices,
            sync: crate::sync::Settings { interval: tickets_interval?, ..crate::sync::Settings::default() },
        },
        intake: intake::Settings {
            backfill: backfill?,
            agent: agent.name.clone(),
            exclusions: Exclusions::new(exclusions?),
            silences: sources.iter().filter_map(|s| Some((s.name.clone(), s.silent_after?))).collect(),
        },
        agent,
        destinations: destinations.into_iter().map(|(settings, _)| settings).collect(),
        sources,
        rules,
        status,
        tests: tests?,
        redaction: redaction?,
    })
}

impl Check<'_> {
    /// The value of a key that may be left out; notes it for `config show`. `None`: it is there and wrong.
    pub(super) fn value<T: Clone, V: Into<Value>>(
        &mut self,
        name: &str,
        field: &Field<T>,
        default: T,
        shown: impl FnOnce(&T) -> V,
    ) -> Option<T> {
        let value = match (field.get(), field.is_present()) {
            (Some((value, _)), _) => value.clone(),
            (None, true) => return None,
            (None, false) => default,
        };
        let shown = shown(&value);
        self.effective.note_field(name, shown, field);
        Some(value)
    }

    /// The value of a key that has to be there.
    pub(super) fn required<'f, T>(
        &mut self,
        name: &str,
        field: &'f Field<T>,
        table: &At,
        expected: &str,
    ) -> Option<(&'f T, &'f At)> {
        if !field.is_present() {
            self.problems.error(&table.child(name), "missing", |p| p.expected(expected));
        }
        field.get()
    }

    /// The name of a table, which has to be there.
    pub(super) fn named<N>(
        &mut self,
        field: &Field<String>,
        table: &At,
        expected: &str,
        new: fn(&str) -> Result<N, NameError>,
    ) -> Option<N> {
        let (text, place) = self.required("name", field, table, expected)?;
        let name = new(text);
        if let Err(NameError { expected, .. }) = &name {
            self.problems.error(place, "this name cannot be used", |p| p.quoted(text).expected(*expected));
        }
        self.effective.note_field("name", text.clone(), field);
        name.ok()
    }

    /// A duration, at least `min`; the default is text as well, so that it is shown as people write it.
    pub(super) fn duration(
        &mut self,
        name: &str,
        field: &Field<Period>,
        default: &str,
        min: Duration,
    ) -> Option<Duration> {
        let value = duration::parse(default).unwrap_or_default();
        let default = Period { text: default.to_owned(), value };
        let period = self.value(name, field, default, |period| period.text.clone())?;
        if let (true, Some(at)) = (period.value < min, field.at()) {
            let least = duration::format(min);
            self.problems
                .error(at, "too short", |p| p.quoted(&period.text).expected(format!("at least \"{least}\"")));
            return None;
        }
        Some(period.value)
    }

    /// One line of at most `max` characters.
    pub(super) fn line(&mut self, name: &str, field: &Field<String>, max: usize) -> Option<String> {
        let (text, at) = field.get()?;
        let fits =
            !text.trim().is_empty() && text.chars().count() <= max && !text.chars().any(char::is_control);
        if !fits {
            self.problems.error(at, "this cannot be used", |p| {
                p.quoted(text).expected(format!("one line of 1 to {max} characters"))
            });
            return None;
        }
        self.effective.note_field(name, text.clone(), field);
        Some(text.clone())
    }

    /// Shows a list by the words of what is in it.
    pub(super) fn note_list<L, T>(
        &mut self,
        name: &str,
        field: &Field<L>,
        list: &List<T>,
        word: impl Fn(&T) -> &str,
    ) {
        let shown: Vec<&str> = list.items.iter().map(|(item, _)| word(item)).collect();
        self.effective.note_field(name, Value::from(shown), field);
    }

    /// No two tables of a kind have one name; `names` are those before it.
    pub(super) fn name_once<'n>(
        &mut self,
        names: &mut BTreeMap<&'n str, &'n At>,
        kind: &str,
        name: &'n Field<String>,
    ) {
        let Some((name, place)) = name.get() else { return };
        let first = *names.entry(name).or_insert(place);
        if !std::ptr::eq(first, place) {
            let message = format!("two {kind} have this name, the first at {}", first.line());
            self.problems.error(place, message, |p| p.quoted(name).hint("rename one of them"));
        }
    }

    /// Says so when the service cannot read this file.
    pub(super) fn service_reads(&mut self, path: &Path, at: &At) {
        super::service::look(path, at, self.environment, self.purpose, self.problems);
    }

    pub(super) fn not_yet(&mut self, at: &At, what: &str, hint: &str) {
        self.problems.error(at, format!("{what} is not supported yet"), |p| p.hint(hint));
    }
}

fn agent(agent: &file::Agent, c: &mut Check<'_>) -> Option<Agent> {
    c.effective.begin("[agent]", "agent");
    let name = if agent.name.is_present() {
        c.line("name", &agent.name, 64)
    } else {
        let host = host::name();
        let clean: String = host.chars().filter(|c| !c.is_control()).take(64).collect();
        c.effective.note("name", clean.clone(), Origin::Default);
        Some(clean)
    };
    let id = identity(agent, name.as_deref(), c);
    let role = c.value("role", &agent.role, Role::Sensor, |role| role.as_str());
    if let (Some(Role::Console), Some(at)) = (role, agent.role.at()) {
        c.not_yet(at, "role = \"console\"", "remove it");
    }
    let site = c.line("site", &agent.site, 200);
    let zone = c.line("zone", &agent.zone, 200);
    role?;
    let (id, id_from) = id?;
    Some(Agent { name: name?, id, id_from, role: super::Role::Sensor, site, zone })
}

/// `[agent] id`, else what the machine is known by, else the name.
fn identity(agent: &file::Agent, name: Option<&str>, c: &mut Check<'_>) -> Option<(String, IdFrom)> {
    if agent.id.is_present() {
        return Some((c.line("id", &agent.id, 64)?, IdFrom::Config));
    }
    let machine = c.environment.machine_id.map(|id| (host::agent_id(&id), IdFrom::Machine));
    let (id, from) = machine.or_else(|| Some((name?.to_owned(), IdFrom::Name)))?;
    c.effective.note("id", id.clone(), Origin::Default);
    Some((id, from))
}

fn state_dir(agent: &file::Agent, c: &mut Check<'_>) -> Option<PathBuf> {
    let (dir, origin) = match (agent.state_dir.get(), agent.state_dir.is_present(), &c.environment.state_dir)
    {
        (Some((dir, at)), ..) => (PathBuf::from(dir), Origin::from(at)),
        (None, true, _) => return None,
        (None, false, Some(dir)) => (dir.clone(), Origin::Environment("STATE_DIRECTORY")),
        (None, false, None) => (PathBuf::from(DEFAULT_STATE_DIR), Origin::Default),
    };
    c.effective.note("state_dir", dir.to_string_lossy(), origin);
    if dir.is_absolute() {
        return Some(dir);
    }
    let problem = Problem::new(Level::Error, "agent.state_dir", "the path has to be absolute");
    let problem = problem.quoted(dir.display());
    c.problems.push(agent.state_dir.at().map_or(problem.clone(), |at| problem.at(at)));
    None
}

/// Enabled, interval, interval of the tickets, backfill.
type SyncSettings = (bool, Option<Duration>, Option<Duration>, Option<Backfill>);

fn sync(sync: &file::Sync, c: &mut Check<'_>) -> SyncSettings {
    c.effective.begin("[sync]", "sync");
    let enabled = c.value("enabled", &sync.enabled, true, |v| *v).unwrap_or(true);
    let interval = c.duration("interval", &sync.interval, "60m", MIN_INTERVAL);
    let tickets_interval = c.duration("tickets_interval", &sync.tickets_interval, "24h", MIN_INTERVAL);
    let week =
        values::Backfill::Within(Period { text: "7d".to_owned(), value: Duration::from_hours(7 * 24) });
    let backfill = c.value("backfill", &sync.backfill, week, |backfill| match backfill {
        values::Backfill::All => "all".to_owned(),
        values::Backfill::Within(period) => period.text.clone(),
    });
    let backfill = backfill.map(|backfill| match backfill {
        values::Backfill::All => Backfill::All,
        values::Backfill::Within(period) => Backfill::Within(period.value),
    });
    (enabled, interval, tickets_interval, backfill)
}

fn buffer(buffer: &file::Buffer, dir: Option<PathBuf>, c: &mut Check<'_>) -> Option<store::Settings> {
    c.effective.begin("[buffer]", "buffer");
    let default = Size { text: "256MiB".to_owned(), value: 256 << 20 };
    let max_size = c.value("max_size", &buffer.max_size, default, |size| size.text.clone());
    let max_size = max_size.map(|max_size| {
        if let (true, Some(at)) = (max_size.value < MIN_BUFFER, buffer.max_size.at()) {
            let least = size::format(MIN_BUFFER);
            c.problems.error(at, "too small", |p| {
                p.quoted(&max_size.text).expected(format!("at least \"{least}\""))
            });
        }
        max_size.value
    });
    let keep_delivered = c.duration("keep_delivered", &buffer.keep_delivered, "30d", Duration::ZERO);
    let when_full = c.value("when_full", &buffer.when_full, values::WhenFull::ShedLowest, |w| w.as_str());
    let when_full = match when_full? {
        values::WhenFull::ShedLowest => WhenFull::ShedLowest,
        values::WhenFull::Refuse => WhenFull::Refuse,
    };
    Some(store::Settings { dir: dir?, max_size: max_size?, keep_delivered: keep_delivered?, when_full })
}

fn status(status: &file::Status, c: &mut Check<'_>) -> status::Settings {
    c.effective.begin("[status]", "status");
    let listen = c.line("listen", &status.listen, 100).and_then(|text| {
        let at = status.listen.at()?;
        let address = text.parse::<SocketAddr>();
        let (message, hint) = match &address {
            Ok(address) if address.ip().is_loopback() => return Some(*address),
            Ok(_) => (
                "the status page can only be on an address of this machine alone",
                "use 127.0.0.1, and from elsewhere an SSH tunnel: ssh -L 9464:127.0.0.1:9464 SENSOR",
            ),
            Err(_) => ("this is no address", "write address and port: \"127.0.0.1:9464\""),
        };
        c.problems.error(at, message, |p| p.quoted(text).hint(hint));
        None
    });
    let textfile = c.line("textfile", &status.textfile, 4_096).and_then(|text| {
        let path = PathBuf::from(&text);
        if path.is_absolute()
            && path.extension().is_some_and(|end| end == "prom")
            && path.file_stem().is_some()
        {
            return Some(path);
        }
        c.problems.error(status.textfile.at()?, "this cannot be used", |p| {
            p.quoted(text).expected("an absolute path whose name ends in .prom")
        });
        None
    });
    status::Settings { listen, textfile }
}

/// What stands across tables and files.
fn whole(file: &File, root: &At, enabled: bool, c: &mut Check<'_>) {
    let first = |at: Option<&At>| at.cloned().unwrap_or_else(|| root.clone());
    let sources = file.source.get().map_or(0, |(list, _)| list.written);
    if sources == 0 && !file.source.is_wrong() {
        c.problems.error(&root.child("source"), "nothing to read: there is no [[source]]", |p| {
            p.hint("add one with name, kind = \"suricata-eve\" and path")
        });
    }
    let rules = file.rule.get().map_or(0, |(list, _)| list.written);
    if rules == 0 && !file.rule.is_wrong() {
        c.problems.warn(&root.child("rule"), "there is no [[rule]]: nothing will be forwarded", |p| p);
    }
    let destinations = file.servicenow.get().map_or(0, |(named, _)| named.0.len());
    if destinations == 0 && !file.servicenow.is_wrong() {
        let message = "there is no destination";
        let hint = "add [servicenow.NAME] with instance and auth";
        if enabled && rules > 0 {
            c.problems.error(&first(file.rule.at()), message, |p| {
                Problem { key: "servicenow".into(), ..p }.hint(hint)
            });
        } else {
            c.problems.warn(&root.child("servicenow"), message, |p| p.hint(hint));
        }
    }
}
