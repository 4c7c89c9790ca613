//! `otrelay alerts`, `tickets`, `queue`: what is in the store, and what a person decides about deliveries.

use std::io::{BufRead as _, IsTerminal as _, Write};
use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::Asker;
use super::devices::period;
use super::human::{JsonList, Listing, json, time, width};
use super::{CliError, Exit, Outcome, Terminal, clock};
use crate::control::Question;
use crate::model::ticket::BY_HAND_TABLES;
use crate::model::{
    Alert, DeliveryId, DeliveryState, DestinationName, Engine, Protocol, Severity, TableName, TicketState,
    Timestamp,
};
use crate::store::op::by_hand::{ByHand, Ordered};
use crate::store::op::dead::Judged;
use crate::store::{AlertRow, DeliveryRow, FilteredRow, Last, ListFilter, RejectRow, TicketRow};

/// What every list understands.
#[derive(Args, Clone, Debug)]
pub struct ListArgs {
    /// At most so many rows; 0: all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub limit: u32,
    /// This level and every higher one: warning, minor, major, critical
    #[arg(long, value_name = "SEVERITY", value_parser = severity)]
    pub min_severity: Option<Severity>,
    /// Only with this text in the title
    #[arg(long, value_name = "TEXT")]
    pub grep: Option<String>,
    /// Only with this protocol
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,
    /// Only of this engine: protocol-violation, policy-violation, malware, anomaly, operational
    #[arg(long, value_name = "ENGINE", value_parser = engine)]
    pub engine: Option<Engine>,
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Only what was last seen, or made, within this time: 90m, 24h, 7d
    #[arg(long, value_name = "TIME", value_parser = period)]
    pub since: Option<Duration>,
    /// Only with this address, or one of this network (10.1.0.0/16), at an end
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    pub address: Option<IpNet>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl ListArgs {
    fn filter(&self) -> ListFilter {
        ListFilter {
            limit: self.limit,
            min_severity: self.min_severity,
            text: self.grep.clone(),
            protocol: self.protocol.clone(),
            engine: self.engine,
            source: self.source.clone(),
            since: self.since.map(|time| clock().now().before(time)),
            address: self.address,
            ..ListFilter::default()
        }
    }
}

fn engine(text: &str) -> Result<Engine, String> {
    let words = || Engine::ALL.map(Engine::as_str).join(", ");
    Engine::parse(text).ok_or_else(|| format!("expected one of {}", words()))
}

fn network(text: &str) -> Result<IpNet, String> {
    let one = text.parse::<IpAddr>().map(IpNet::from);
    one.or_else(|_| text.parse())
        .map_err(|_| "expected an address or a network, such as 10.1.0.0/16".to_owned())
}

pub(super) fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| "expected warning, minor, major or critical".to_owned())
}

/// Arguments of `otrelay alerts`.
#[derive(Args, Clone, Debug)]
pub struct AlertsArgs {
    /// Recent alerts that were not forwarded, and why
    #[arg(long)]
    pub filtered: bool,
    /// Recent input that was not understood, and why
    #[arg(long, conflicts_with = "filtered")]
    pub rejected: bool,
    /// What is listed
    #[command(flatten)]
    pub list: ListArgs,
}

/// Arguments of `otrelay tickets`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TicketsArgs {
    /// Another thing to do than to list them
    #[command(subcommand)]
    pub command: Option<TicketsCommand>,
    /// Only in this state: opening, open, resolved, closed, deleted, folded, withdrawn
    #[arg(long, value_name = "STATE", value_parser = ticket_state)]
    pub state: Option<String>,
    /// Only the ticket of this number
    #[arg(long, value_name = "NUMBER")]
    pub number: Option<String>,
    /// What is listed
    #[command(flatten)]
    pub list: ListArgs,
}

/// `otrelay tickets …`
#[derive(Subcommand, Clone, Debug)]
pub enum TicketsCommand {
    /// One more ticket for a finding, whatever the rules say; linked with the one that is there
    Create(CreateArgs),
}

/// Arguments of `otrelay tickets create`.
#[derive(Args, Clone, Debug)]
pub struct CreateArgs {
    /// The finding: its `id` in `otrelay alerts --json`
    #[arg(long, value_name = "ID")]
    pub alert: i64,
    /// What kind of ticket
    #[arg(long = "type", value_name = "TYPE", value_enum)]
    pub kind: TicketType,
    /// To which destination; may be left out when there is one
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What a person may want.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketType {
    /// An incident
    Incident,
    /// A problem
    Problem,
    /// A change request
    Change,
}

impl TicketType {
    fn table(self) -> &'static str {
        match self {
            Self::Incident => BY_HAND_TABLES[0],
            Self::Problem => BY_HAND_TABLES[1],
            Self::Change => BY_HAND_TABLES[2],
        }
    }
}

fn ticket_state(text: &str) -> Result<String, String> {
    TicketState::parse(text)
        .map(|s| s.as_str().to_owned())
        .ok_or_else(|| "expected opening, open, resolved, closed, deleted, folded or withdrawn".to_owned())
}

/// `otrelay queue …`
#[derive(Subcommand, Clone, Debug)]
pub enum QueueCommand {
    /// Deliveries that wait, in the order in which they will be sent; or dead letters
    List(QueueListArgs),
    /// One delivery: its alert, its attempts, the other side's words
    Show {
        /// Its id
        id: i64,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Send these again at the next sync
    Retry(IdsArgs),
    /// Give these up; they stay counted, and later sightings make no new ones
    Drop(DropArgs),
}

/// Arguments of `otrelay queue list`.
#[derive(Args, Clone, Debug)]
pub struct QueueListArgs {
    /// Dead letters: deliveries that cannot succeed without a person
    #[arg(long)]
    pub dead: bool,
    /// Only in this state: pending, claimed, delivered, dead, dropped, withdrawn
    #[arg(long, value_name = "STATE", conflicts_with = "dead", value_parser = delivery_state)]
    pub state: Option<DeliveryState>,
    /// What is listed
    #[command(flatten)]
    pub list: ListArgs,
}

fn delivery_state(text: &str) -> Result<DeliveryState, String> {
    DeliveryState::parse(text)
        .ok_or_else(|| "expected pending, claimed, delivered, dead, dropped or withdrawn".to_owned())
}

/// Arguments of `otrelay queue retry` and `drop`.
#[derive(Args, Clone, Debug)]
pub struct IdsArgs {
    /// Ids from `otrelay queue list`
    #[arg(required_unless_present = "all_dead", value_name = "ID")]
    pub ids: Vec<i64>,
    /// Every dead letter
    #[arg(long, conflicts_with = "ids")]
    pub all_dead: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `otrelay queue drop`.
#[derive(Args, Clone, Debug)]
pub struct DropArgs {
    /// Which
    #[command(flatten)]
    pub which: IdsArgs,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

/// A list: its columns, and what a row of it is for people, for programs and for the next page.
struct List<T> {
    header: &'static [&'static str],
    /// Columns that a narrow terminal does without.
    dispensable: &'static [&'static str],
    cells: fn(&T) -> Vec<String>,
    /// One row as JSON.
    write: fn(&mut JsonList, &mut dyn Write, &T) -> Result<(), CliError>,
    /// Where the next page begins; `None`: there is one page.
    last: fn(&T) -> Option<Last>,
    nouns: [&'static str; 2],
    what: String,
}

/// Asks page by page, so that neither an answer nor this process ever holds all of a long list.
fn list<T: DeserializeOwned>(
    asker: &Asker,
    args: &ListArgs,
    mut filter: ListFilter,
    question: impl Fn(ListFilter) -> Question,
    list: &List<T>,
    terminal: &mut Terminal<'_>,
) -> Outcome {
    let width = width(terminal);
    let (mut shown, mut texts) = (0, JsonList::default());
    loop {
        filter.limit = args.limit.saturating_sub(shown);
        let rows: Vec<T> = asker.ask(&question(filter.clone()))?;
        if args.json {
            rows.iter().try_for_each(|row| (list.write)(&mut texts, terminal.out, row))?;
        } else if !rows.is_empty() {
            let mut listing = Listing::fitting(width, list.header, list.dispensable);
            for row in &rows {
                let cells = (list.cells)(row);
                listing.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
            }
            listing.print_on(terminal.out, shown > 0)?;
        }
        shown = shown.saturating_add(rows.len() as u32);
        filter.after = rows.last().and_then(list.last);
        if filter.after.is_none() || args.limit > 0 && shown >= args.limit {
            break;
        }
    }
    if args.json {
        texts.end(terminal.out)?;
        return Ok(Exit::Fine);
    }
    // An empty list is not taken for a failure.
    let more = if args.limit > 0 && shown >= args.limit { " (more with --limit)" } else { "" };
    let noun = list.nouns[usize::from(shown != 1)];
    writeln!(terminal.err, "{shown} {noun}{}{more}", list.what)?;
    Ok(Exit::Fine)
}

fn plain<T: Serialize>(texts: &mut JsonList, out: &mut dyn Write, row: &T) -> Result<(), CliError> {
    texts.row(out, row)
}

/// A finding as programs read it: what everybody asks for stands at the top.
#[derive(Serialize)]
struct Finding<'a> {
    id: i64,
    title: &'a str,
    severity: Option<Severity>,
    engine: Option<Engine>,
    protocols: &'a [Protocol],
    occurrences: i64,
    first_seen_at: Timestamp,
    last_seen_at: Timestamp,
    source: &'a str,
    fingerprint: &'a str,
    /// `null` when the row is damaged.
    alert: Option<&'a Alert>,
}

impl<'a> From<&'a AlertRow> for Finding<'a> {
    fn from(row: &'a AlertRow) -> Self {
        let alert = row.alert.as_ref();
        Self {
            id: row.id,
            title: alert.map_or("", |alert| alert.title.as_str()),
            severity: alert.map(|alert| alert.severity),
            engine: alert.map(|alert| alert.engine),
            protocols: alert.map_or(&[], |alert| alert.protocols.as_slice()),
            occurrences: row.occurrences,
            first_seen_at: row.first_seen_at,
            last_seen_at: row.last_seen_at,
            source: &row.source,
            fingerprint: &row.fingerprint,
            alert,
        }
    }
}

pub(super) fn alerts(args: &AlertsArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let filter = args.list.filter();
    if args.filtered {
        return list(&asker, &args.list, filter, Question::Filtered, &filtered(), terminal);
    }
    if args.rejected {
        return list(&asker, &args.list, filter, Question::Rejected, &rejected(), terminal);
    }
    let findings = List {
        header: &["last seen (utc)", "severity", "engine", "protocol", "title", "from → to", "seen"],
        dispensable: &["engine", "protocol"],
        cells: |row: &AlertRow| {
            let (at, seen) = (time(row.last_seen_at), row.occurrences.to_string());
            let Some(alert) = &row.alert else {
                let (none, damaged) = (String::new, "(this row is damaged)".to_owned());
                return vec![at, "?".to_owned(), none(), none(), damaged, none(), seen];
            };
            vec![
                at,
                alert.severity.to_string(),
                alert.engine.to_string(),
                alert.protocols.first().map_or("", Protocol::as_str).to_owned(),
                alert.title.clone(),
                alert.parties(),
                seen,
            ]
        },
        write: |texts, out, row| texts.row(out, &Finding::from(row)),
        last: |row| Some(Last { severity: Severity::Warning, turn: 0, id: row.id }),
        nouns: ["finding", "findings"],
        what: String::new(),
    };
    list(&asker, &args.list, filter, Question::Alerts, &findings, terminal)
}

fn filtered() -> List<FilteredRow> {
    List {
        header: &["time (utc)", "severity", "engine", "protocol", "title", "from → to", "why not"],
        dispensable: &["engine", "protocol", "from → to"],
        cells: |r| {
            vec![
                time(r.at),
                r.severity.to_string(),
                r.engine.clone(),
                r.protocol.clone(),
                r.title.clone(),
                r.parties.clone(),
                r.reason.clone(),
            ]
        },
        write: plain,
        last: |_| None,
        nouns: ["sample", "samples"],
        what: " of alerts that were not forwarded; `status` counts all".to_owned(),
    }
}

fn rejected() -> List<RejectRow> {
    List {
        header: &["time (utc)", "source", "why", "where and what", "sample"],
        dispensable: &["sample"],
        cells: |r| {
            let sample: String = r.sample.chars().take(60).collect();
            vec![time(r.at), r.source.clone(), r.reason.clone(), r.detail.clone(), sample]
        },
        write: plain,
        last: |_| None,
        nouns: ["sample", "samples"],
        what: " of input that was not understood; `status` counts all".to_owned(),
    }
}

pub(super) fn tickets(args: &TicketsArgs, terminal: &mut Terminal<'_>) -> Outcome {
    if let Some(TicketsCommand::Create(create)) = &args.command {
        return order(create, terminal);
    }
    let asker = Asker::new(terminal)?;
    let filter = ListFilter { state: args.state.clone(), number: args.number.clone(), ..args.list.filter() };
    let tickets = List {
        header: &[
            "number",
            "state",
            "severity",
            "title",
            "from → to",
            "seen",
            "destination",
            "table",
            "assigned to",
            "rule",
        ],
        dispensable: &["from → to", "destination", "table", "rule"],
        cells: |r: &TicketRow| {
            let or_dash = |text: &str| if text.is_empty() { "-" } else { text }.to_owned();
            vec![
                or_dash(&r.number),
                if r.not_closed.is_empty() { r.state.clone() } else { format!("{}, not closed", r.state) },
                r.severity.to_string(),
                r.title.clone(),
                r.parties.clone(),
                r.occurrences.to_string(),
                r.destination.clone(),
                r.table.clone(),
                or_dash(&r.assigned_to),
                r.rule.clone(),
            ]
        },
        write: plain,
        last: |row| Some(Last { severity: row.severity, turn: 0, id: row.id.0 }),
        nouns: ["ticket", "tickets"],
        what: String::new(),
    };
    list(&asker, &args.list, filter, Question::Tickets, &tickets, terminal)
}

fn order(args: &CreateArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let names: Vec<&DestinationName> = asker.config()?.destinations.iter().map(|to| &to.name).collect();
    let destination = match (&args.destination, names.as_slice()) {
        (Some(name), names) => names.iter().find(|known| known.as_str() == name),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    let Some(destination) = destination else {
        let all: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        return Err(CliError::Words(format!("say which --destination: {}", all.join(", "))));
    };
    let table = TableName::new(args.kind.table()).map_err(|e| CliError::Words(e.to_string()))?;
    let wanted = ByHand { alert: args.alert, destination: (*destination).clone(), table };
    let ordered: Ordered = asker.ask(&Question::OrderTicket(wanted.clone()))?;
    let ByHand { alert, destination, table } = wanted;
    if args.json {
        json(terminal.out, &ordered)?;
    } else if ordered.done {
        let beside = if ordered.note.is_empty() { String::new() } else { format!(", {}", ordered.note) };
        writeln!(
            terminal.out,
            "finding {alert}: a record of {table} goes to {destination} with the next sync{beside}; `otrelay sync` sends \
             it now"
        )?;
    } else {
        writeln!(terminal.err, "no ticket was ordered: {}", ordered.note)?;
    }
    Ok(if ordered.done { Exit::Fine } else { Exit::Failure })
}

pub(super) fn queue(command: QueueCommand, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    match command {
        QueueCommand::List(args) => queue_list(&asker, &args, terminal),
        QueueCommand::Show { id, json } => queue_show(&asker, DeliveryId(id), json, terminal),
        QueueCommand::Retry(args) => {
            let ids = ids(&asker, &args)?;
            judge(&asker, &Question::Retry { ids }, args.json, terminal)
        }
        QueueCommand::Drop(DropArgs { which, yes }) => {
            let ids = ids(&asker, &which)?;
            if !yes && !ids.is_empty() && !is_meant(ids.len(), terminal)? {
                return Ok(Exit::Failure);
            }
            judge(&asker, &Question::Drop { ids }, which.json, terminal)
        }
    }
}

/// Whether a person says yes; where there is none to ask, `--yes` has to say it.
fn is_meant(count: usize, terminal: &mut Terminal<'_>) -> Result<bool, CliError> {
    let what = if count == 1 { "this delivery" } else { "these deliveries" };
    if !std::io::stdin().is_terminal() {
        return Err(CliError::Words(format!(
            "{count} to be given up: nobody is there to be asked whether {what} will never be sent; say --yes"
        )));
    }
    write!(terminal.err, "{count} to be given up: {what} will never be sent. Go on? [y/N] ")?;
    terminal.err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn queue_list(asker: &Asker, args: &QueueListArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let state = args.state.unwrap_or(if args.dead { DeliveryState::Dead } else { DeliveryState::Pending });
    let question = |filter| Question::Queue { state, filter };
    list(asker, &args.list, args.list.filter(), question, &deliveries(state), terminal)
}

fn deliveries(state: DeliveryState) -> List<DeliveryRow> {
    List {
        header: &["id", "kind", "severity", "title", "destination", "table", "tries", "due (utc)", "reason"],
        dispensable: &["destination", "table", "tries"],
        cells: |r| {
            vec![
                r.id.to_string(),
                r.kind.clone(),
                r.severity.to_string(),
                r.title.clone(),
                r.destination.clone(),
                r.table.clone(),
                r.attempts.to_string(),
                time(r.due_at),
                r.reason.clone().unwrap_or_default(),
            ]
        },
        write: plain,
        last: |row| Some(Last { severity: row.severity, turn: row.turn, id: row.id.0 }),
        nouns: ["delivery", "deliveries"],
        what: format!(", {}", state.as_str()),
    }
}

fn queue_show(asker: &Asker, id: DeliveryId, as_json: bool, terminal: &mut Terminal<'_>) -> Outcome {
    let row: Option<DeliveryRow> = asker.ask(&Question::Delivery { id })?;
    let Some(r) = row else { return Err(CliError::Words(format!("there is no delivery {id}"))) };
    if as_json {
        return json(terminal.out, &r);
    }
    let out = &mut *terminal.out;
    writeln!(out, "delivery {id}: {}, {} → {} table {}", r.state, r.kind, r.destination, r.table)?;
    writeln!(out, "  alert     [{}] {}", r.severity, r.title)?;
    writeln!(out, "  rule      {}", r.rule)?;
    writeln!(out, "  made      {} UTC, due {} UTC", time(r.created_at), time(r.due_at))?;
    if r.doubtful {
        writeln!(
            out,
            "  doubtful  an attempt may have reached the other side; it is looked up before it is sent again"
        )?;
    }
    if let Some(reason) = &r.reason {
        writeln!(out, "  reason    {}", crate::model::text::one_line(reason))?;
    }
    for a in &r.history {
        let status = a.status.map_or(String::new(), |s| format!(" HTTP {s}"));
        let message = a.message.as_deref().unwrap_or("");
        let message = crate::model::text::one_line(message);
        writeln!(
            out,
            "  try {:<3}   {} UTC, {} ms: {}{status} {message}",
            a.n,
            time(a.started_at),
            a.duration_ms,
            a.outcome
        )?;
    }
    if let Some(alert) = &r.alert {
        writeln!(out, "  from → to {}", alert.parties())?;
        for line in alert.message.lines() {
            writeln!(out, "  | {line}")?;
        }
    }
    Ok(Exit::Fine)
}

fn ids(asker: &Asker, args: &IdsArgs) -> Result<Vec<DeliveryId>, CliError> {
    if !args.all_dead {
        return Ok(args.ids.iter().copied().map(DeliveryId).collect());
    }
    let (mut ids, mut filter) = (Vec::new(), ListFilter::default());
    loop {
        let question = Question::Queue { state: DeliveryState::Dead, filter: filter.clone() };
        let rows: Vec<DeliveryRow> = asker.ask(&question)?;
        filter.after = rows.last().map(|row| Last { severity: row.severity, turn: row.turn, id: row.id.0 });
        ids.extend(rows.into_iter().map(|row| row.id));
        if filter.after.is_none() {
            return Ok(ids);
        }
    }
}

fn judge(asker: &Asker, question: &Question, as_json: bool, terminal: &mut Terminal<'_>) -> Outcome {
    let judged: Vec<Judged> = asker.ask(question)?;
    if as_json {
        json(terminal.out, &judged)?;
    } else {
        for j in &judged {
            let word = if j.done { "now" } else { "not changed:" };
            writeln!(terminal.out, "delivery {} {word} {}", j.id, j.note)?;
        }
    }
    Ok(if judged.iter().all(|j| j.done) { Exit::Fine } else { Exit::Failure })
}
