//! `otrelay explain FILE`: how the alerts of a file are normalised, which rules match or why not, and the request that
//! would be sent. `otrelay explain TICKET`: the same of the finding that a ticket tells of, and what is known of the
//! ticket. Nothing is stored, nothing is sent.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::ask::Asker;
use super::human::{fields_or_error, json};
use super::input::{self, Input, next_line};
use super::verdict::facts;
use super::{CliError, Exit, Outcome, Terminal, clock, load_to_look};
use crate::app;
use crate::config::Config;
use crate::control::Question;
use crate::destination::{Compose, Fields, TicketFacts};
use crate::model::ticket::{NOT_FOUND, TicketKeys};
use crate::model::{Alert, DeliveryKind, Fingerprint, Generation, SourceName, TicketState, Timestamp};
use crate::rules::{Route, Rules};
use crate::source::Settings;
use crate::source::format::{self, Stream};
use crate::store::{OpenError, TicketRow};

/// Arguments of `otrelay explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A file as a sensor writes it, also packed with gzip; `-` for standard input; or the number, `sys_id` or key
    /// (`otrelay-…`) of a ticket
    #[arg(value_name = "FILE|TICKET")]
    pub file: PathBuf,
    /// The source whose settings are used; by default the one that fits the file
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// The kind of source that the file is of, as in the config; by default found out from the file
    #[arg(long, value_name = "KIND", conflicts_with = "source")]
    pub kind: Option<String>,
    /// Only this alert of the file, counted from 1
    #[arg(long, value_name = "N")]
    pub nth: Option<usize>,
    /// At most so many alerts
    #[arg(long, short = 'n', value_name = "N", default_value_t = 1)]
    pub limit: usize,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What is said of one alert.
#[derive(Serialize)]
struct Explained {
    /// Line of the file, from 1; 0: it is the finding of a ticket.
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ticket: Option<TicketRow>,
    fingerprint: String,
    alert: Alert,
    /// Whether a ticket is wanted, and why or why not.
    forwarded: bool,
    reason: String,
    /// What else may keep it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    rules: Vec<Said>,
    /// What is redacted of it, and how: `source.ip: pseudonym`.
    redacted: Vec<String>,
    requests: Vec<Asked>,
}

impl Explained {
    /// Adds what is decided before any rule is asked.
    fn before_rules(mut self, config: &Config, source: &SourceName, now: Timestamp) -> Self {
        if let Some(name) = config.intake.exclusions.taking(source, &self.alert) {
            (self.forwarded, self.reason) = (false, format!("excluded: {name}"));
            self.requests.clear();
        }
        let backfill = config.intake.backfill;
        self.note = (self.forwarded && backfill.is_too_old(self.alert.time, now)).then(|| {
            format!(
                "it is older than `backfill = \"{backfill}\"`: if it is there when its source is first read, it is \
                 counted and not forwarded; `backfill` in [sync] changes that"
            )
        });
        self
    }
}

#[derive(Serialize)]
struct Said {
    rule: String,
    matches: bool,
    because: Option<String>,
}

/// A request that would be sent.
#[derive(Serialize)]
struct Asked {
    destination: String,
    table: String,
    rule: String,
    method: &'static str,
    path: String,
    /// Fields, or why they cannot be made.
    #[serde(flatten, serialize_with = "fields_or_error")]
    fields: Result<Fields, String>,
}

struct Context {
    rules: std::sync::Arc<Rules>,
    composer: app::Composer,
    /// `correlation_display` of what this agent makes.
    display: String,
}

pub(super) fn run(args: &ExplainArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let config = load_to_look(terminal)?;
    let rules = std::sync::Arc::new(app::compile(&config).map_err(app::AppError::from)?);
    let composer = app::Composer::of(&config, std::sync::Arc::clone(&rules));
    let display = crate::servicenow::display(&config.agent.id, &config.agent.name);
    let context = Context { rules, composer, display };
    if let Some(found) = of_ticket(&args.file, &context, terminal)? {
        if args.json {
            json(terminal.out, &[found])?;
        } else {
            print(&found, terminal.out)?;
        }
        return Ok(Exit::Fine);
    }
    let mut input = Input::open(&args.file)?;
    let settings = source(&config, args, &input)?;
    let stream = Stream { name: &input.name, ..Stream::default() };
    let mut decoder = settings.format.0.decoder(&stream);
    let now = clock().now();

    let (mut found, mut seen, mut number) = (Vec::new(), 0, 0);
    while let Some(line) = next_line(&mut input.bytes, &args.file)? {
        number += 1;
        match decoder.decode(&line, now).outcome {
            format::Outcome::Alert(finding) => {
                seen += 1;
                if args.nth.is_none_or(|n| n == seen) {
                    let explained = explain(number, finding.alert, &finding.fingerprint, None, &context);
                    found.push(explained.before_rules(&config, &settings.name, now));
                }
            }
            format::Outcome::Ignored(_) | format::Outcome::Blank => {}
            format::Outcome::Reject(reason, detail) => {
                writeln!(terminal.err, "line {number}: {}: {detail}", reason.as_str())?;
            }
        }
        if found.len() >= args.limit.max(1) {
            break;
        }
    }
    if args.json {
        json(terminal.out, &found)?;
    } else {
        found.iter().try_for_each(|e| print(e, terminal.out))?;
    }
    if found.is_empty() {
        return Err(CliError::Words(format!("{number} lines of {} hold no such alert", args.file.display())));
    }
    Ok(Exit::Fine)
}

/// The finding of a ticket, where this is the name of one and of no file.
fn of_ticket(name: &Path, context: &Context, terminal: &Terminal<'_>) -> Result<Option<Explained>, CliError> {
    let Some(text) = name.to_str().filter(|text| *text != "-" && !text.contains('/') && !name.exists())
    else {
        return Ok(None);
    };
    // Where nothing was ever stored, the file that is missing is what there is to tell.
    let Ok(asker) = Asker::new(terminal) else { return Ok(None) };
    let question = Question::Ticket { name: text.to_owned() };
    let found: Option<(TicketRow, Option<Alert>)> = match asker.ask(&question) {
        Err(CliError::Open(OpenError::Absent(_))) => return Ok(None),
        other => other?,
    };
    let Some((ticket, alert)) = found else {
        return Err(CliError::Words(format!(
            "there is no file {text}, and no ticket of that number, sys_id or key; `otrelay tickets` lists those that are known"
        )));
    };
    let damaged = || CliError::Words(format!("the stored finding of {text} is damaged"));
    let fingerprint = Fingerprint::parse(&ticket.fingerprint).ok_or_else(damaged)?;
    Ok(Some(explain(0, alert.ok_or_else(damaged)?, &fingerprint, Some(ticket), context)))
}

/// The source by its name, by its kind, or the one that fits what the file looks like; where the config has none, one
/// that has all defaults.
fn source(config: &Config, args: &ExplainArgs, input: &Input) -> Result<Settings, CliError> {
    let all = || config.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(name) = &args.source {
        let named = config.sources.iter().find(|s| s.name.as_str() == name);
        let none = || CliError::Words(format!("there is no such source; the config has {}", all()));
        return named.cloned().ok_or_else(none);
    }
    let kind = args.kind.as_deref().or_else(|| input.kind());
    let mut fitting = config.sources.iter().filter(|s| kind.is_none_or(|kind| s.kind == kind));
    match (fitting.next(), fitting.next(), kind) {
        (Some(one), None, _) => Ok(one.clone()),
        (Some(_), Some(_), _) => Err(CliError::Words(format!("say which --source: {}", all()))),
        (None, _, Some(kind)) => input::default_source(kind, &config.agent),
        (None, _, None) => Err(CliError::Words("say which --kind of source the file is of".to_owned())),
    }
}

fn explain(
    line: usize,
    alert: Alert,
    fingerprint: &Fingerprint,
    ticket: Option<TicketRow>,
    context: &Context,
) -> Explained {
    let Context { rules, composer, .. } = context;
    let decision = rules.decide(&alert);
    let said = rules
        .explain(&alert)
        .iter()
        .map(|v| Said {
            rule: v.rule.to_string(),
            matches: v.matches(),
            because: v.failure.as_ref().map(ToString::to_string),
        })
        .collect();
    let mut shown = composer.redact(alert.clone());
    if let Some(ticket) = &ticket {
        // The text is of the first sighting, the ticket of the worst before it was made.
        shown.severity = ticket.severity;
    }
    let request = |route| request(route, fingerprint, &shown, ticket.as_ref(), context);
    let requests = decision.routes.iter().map(request).collect();
    Explained {
        line,
        ticket,
        fingerprint: fingerprint.to_string(),
        forwarded: decision.is_forwarded(),
        reason: decision.reason.as_str().to_owned(),
        note: None,
        rules: said,
        redacted: composer
            .redaction
            .fields()
            .iter()
            .map(|(field, how)| format!("{}: {how}", field.as_str()))
            .collect(),
        requests,
        alert,
    }
}

/// The request that opens a ticket on this route: of the ticket that is explained its own, which may be a later one of its
/// finding.
fn request(
    route: &Route<'_>,
    fingerprint: &Fingerprint,
    shown: &Alert,
    ticket: Option<&TicketRow>,
    context: &Context,
) -> Asked {
    let is_own =
        |t: &&TicketRow| t.destination == route.destination.as_str() && t.table == route.table.as_str();
    let own = ticket.filter(is_own);
    let generation = own.map_or_else(Generation::default, |own| Generation(own.generation));
    let keys = TicketKeys::derive(fingerprint, route.destination, route.table, generation);
    let occurrences = ticket.map_or(1, |ticket| ticket.occurrences.max(1) as u64);
    let facts = TicketFacts { occurrences, generation, ..facts(shown, route, &keys) };
    let fields = context.composer.compose(&facts).and_then(|fields| crate::servicenow::as_sent(&fields));
    let fields = fields.map(|mut fields| {
        match route.kind {
            DeliveryKind::PutEvent => {
                fields.insert("message_key".to_owned(), keys.correlation_id.to_string());
                return fields;
            }
            DeliveryKind::PutRow => return fields,
            _ => {}
        }
        fields.insert("correlation_id".to_owned(), keys.correlation_id.to_string());
        fields.insert("correlation_display".to_owned(), context.display.clone());
        fields.insert("sys_id".to_owned(), keys.sys_id.to_string());
        fields
    });
    Asked {
        destination: route.destination.to_string(),
        table: route.table.to_string(),
        rule: route.rule_name.to_string(),
        method: "POST",
        path: crate::servicenow::address(route.kind, route.table),
        fields,
    }
}

fn print(e: &Explained, out: &mut dyn Write) -> std::io::Result<()> {
    let a = &e.alert;
    match &e.ticket {
        Some(ticket) => print_ticket(ticket, out)?,
        None => writeln!(out, "line {}: {}", e.line, a.title)?,
    }
    let protocols: Vec<&str> = a.protocols.iter().map(crate::model::Protocol::as_str).collect();
    for (name, value) in [
        ("severity", a.severity.to_string()),
        ("engine", a.engine.to_string()),
        ("protocol", protocols.join(", ")),
        ("category", a.category.clone().unwrap_or_default()),
        ("source", endpoint(&a.source)),
        ("destination", endpoint(&a.destination)),
        ("time", format!("{}", a.time)),
        ("sensor", a.sensor.clone()),
        ("site", a.site.clone().unwrap_or_default()),
        ("zone", a.zone.clone().unwrap_or_default()),
        ("references", a.references.join(", ")),
        ("fingerprint", e.fingerprint.clone()),
    ] {
        if !value.is_empty() {
            field(out, name, &value)?;
        }
    }
    let verdict = if e.forwarded { "forwarded" } else { "not forwarded" };
    writeln!(out, "{verdict}: {}", e.reason)?;
    if let Some(note) = &e.note {
        writeln!(out, "  {note}")?;
    }
    for r in &e.rules {
        match &r.because {
            None => writeln!(out, "  rule \"{}\" matches", r.rule)?,
            Some(why) => writeln!(out, "  rule \"{}\" does not: {why}", r.rule)?,
        }
    }
    if !e.redacted.is_empty() {
        writeln!(out, "redacted before it leaves: {}", e.redacted.join(", "))?;
    }
    for r in &e.requests {
        writeln!(out, "{} {} to {} (rule \"{}\")", r.method, r.path, r.destination, r.rule)?;
        match &r.fields {
            Ok(fields) => fields.iter().try_for_each(|(name, value)| field(out, name, value))?,
            Err(why) => writeln!(out, "  cannot be made: {why}")?,
        }
    }
    writeln!(out)
}

fn print_ticket(ticket: &TicketRow, out: &mut dyn Write) -> std::io::Result<()> {
    let names = [&ticket.number, &ticket.sys_id, &ticket.correlation_id];
    let name = names.into_iter().find(|name| !name.is_empty()).map_or("", String::as_str);
    writeln!(out, "ticket {name}: {}", ticket.title)?;
    let stands_for = match ticket.folded {
        0 => String::new(),
        n => format!("{n} findings of a storm, beyond its rule's max_tickets_per_hour"),
    };
    let opened = ticket.opened_at.map_or_else(String::new, |at| format!("{at}"));
    for (name, value) in [
        ("state", ticket.state.clone()),
        ("not found", if ticket.state == TicketState::Deleted.as_str() { NOT_FOUND } else { "" }.to_owned()),
        ("in", format!("{}, table {}", ticket.destination, ticket.table)),
        ("confirmed there", opened),
        ("adopted", ticket.adopted.clone()),
        ("not closed", ticket.not_closed.clone()),
        ("assigned to", ticket.assigned_to.clone()),
        ("close notes", ticket.close_notes.clone()),
        ("stands for", stands_for),
        ("seen", format!("{} times", ticket.occurrences)),
        ("rule", ticket.rule.clone()),
    ] {
        if !value.is_empty() {
            field(out, name, &value)?;
        }
    }
    Ok(())
}

fn endpoint(end: &crate::model::Endpoint) -> String {
    let mut parts = Vec::new();
    parts.extend(end.name.clone());
    parts.extend(end.ip.map(|ip| ip.to_string()));
    parts.extend(end.mac.clone());
    parts.extend(end.port.map(|port| format!("port {port}")));
    parts.join(", ")
}

/// `  name   value`, further lines of the value indented below.
pub(super) fn field(out: &mut dyn Write, name: &str, value: &str) -> std::io::Result<()> {
    let text = crate::model::text::lines(value);
    let mut lines = text.lines();
    writeln!(out, "  {name:<20} {}", lines.next().unwrap_or_default())?;
    for line in lines {
        let line = format!("  {:<20} {line}", "");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
