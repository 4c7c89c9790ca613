//! `otrelay alerts`, `tickets`, `queue`: what is in the store, and what a person decides about deliveries.

use clap::{Args, Subcommand, ValueEnum};

use super::ask::Asker;
use super::human::{Listing, json, time};
use super::{CliError, Exit, Outcome, Terminal};
use crate::control::Question;
use crate::model::ticket::BY_HAND_TABLES;
use crate::model::{DeliveryId, DeliveryState, DestinationName, Protocol, Severity, TableName, TicketState};
use crate::store::op::by_hand::{ByHand, Ordered};
use crate::store::op::dead::Judged;
use crate::store::{AlertRow, DeliveryRow, FilteredRow, ListFilter, RejectRow, TicketRow};

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
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

impl ListArgs {
    fn filter(&self, state: Option<String>) -> ListFilter {
        ListFilter { limit: self.limit, min_severity: self.min_severity, text: self.grep.clone(), state }
    }
}

fn severity(text: &str) -> Result<Severity, String> {
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
    Drop(IdsArgs),
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

pub(super) fn alerts(args: &AlertsArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let asker = Asker::new(terminal)?;
    let filter = args.list.filter(None);
    if args.filtered {
        return filtered(&asker.ask::<Vec<FilteredRow>>(&Question::Filtered(filter))?, &args.list, terminal);
    }
    if args.rejected {
        return rejected(&asker.ask::<Vec<RejectRow>>(&Question::Rejected(filter))?, &args.list, terminal);
    }
    let rows: Vec<AlertRow> = asker.ask(&Question::Alerts(filter))?;
    if args.list.json {
        json(terminal.out, &rows)?;
        return Ok(Exit::Fine);
    }
    let mut listing =
        Listing::new(&["last seen (utc)", "severity", "engine", "protocol", "title", "from → to", "seen"]);
    for row in &rows {
        let seen = row.occurrences.to_string();
        let Some(alert) = &row.alert else {
            listing.row(&[&time(row.last_seen_at), "?", "", "", "(this row is damaged)", "", &seen]);
            continue;
        };
        listing.row(&[
            &time(row.last_seen_at),
            alert.severity.as_str(),
            alert.engine.as_str(),
            alert.protocols.first().map_or("", Protocol::as_str),
            &alert.title,
            &alert.parties(),
            &seen,
        ]);
    }
    end(&listing, rows.len(), &args.list, ["finding", "findings"], "", terminal)
}

fn filtered(rows: &[FilteredRow], args: &ListArgs, terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        json(terminal.out, &rows)?;
        return Ok(Exit::Fine);
    }
    let mut listing =
        Listing::new(&["time (utc)", "severity", "engine", "protocol", "title", "from → to", "why not"]);
    for r in rows {
        listing.row(&[
            &time(r.at),
            r.severity.as_str(),
            &r.engine,
            &r.protocol,
            &r.title,
            &r.parties,
            &r.reason,
        ]);
    }
    end(
        &listing,
        rows.len(),
        args,
        ["sample", "samples"],
        " of alerts that were not forwarded; `status` counts all",
        terminal,
    )
}

fn rejected(rows: &[RejectRow], args: &ListArgs, terminal: &mut Terminal<'_>) -> Outcome {
    if args.json {
        json(terminal.out, &rows)?;
        return Ok(Exit::Fine);
    }
    let mut listing = Listing::new(&["time (utc)", "source", "why", "where and what", "sample"]);
    for r in rows {
        let sample: String = r.sample.chars().take(60).collect();
        listing.row(&[&time(r.at), &r.source, &r.reason, &r.detail, &sample]);
    }
    let what = " of input that was not understood; `status` counts all";
    end(&listing, rows.len(), args, ["sample", "samples"], what, terminal)
}

pub(super) fn tickets(args: &TicketsArgs, terminal: &mut Terminal<'_>) -> Outcome {
    if let Some(TicketsCommand::Create(create)) = &args.command {
        return order(create, terminal);
    }
    let asker = Asker::new(terminal)?;
    let rows: Vec<TicketRow> = asker.ask(&Question::Tickets(args.list.filter(args.state.clone())))?;
    if args.list.json {
        json(terminal.out, &rows)?;
        return Ok(Exit::Fine);
    }
    let mut listing = Listing::new(&[
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
    ]);
    for r in &rows {
        let assigned_to = if r.assigned_to.is_empty() { "-" } else { &r.assigned_to };
        let number = if r.number.is_empty() { "-" } else { &r.number };
        let seen = r.occurrences.to_string();
        listing.row(&[
            number,
            &r.state,
            r.severity.as_str(),
            &r.title,
            &r.parties,
            &seen,
            &r.destination,
            &r.table,
            assigned_to,
            &r.rule,
        ]);
    }
    end(&listing, rows.len(), &args.list, ["ticket", "tickets"], "", terminal)
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
        QueueCommand::Drop(args) => {
            let ids = ids(&asker, &args)?;
            judge(&asker, &Question::Drop { ids }, args.json, terminal)
        }
    }
}

fn queue_list(asker: &Asker, args: &QueueListArgs, terminal: &mut Terminal<'_>) -> Outcome {
    let state = args.state.unwrap_or(if args.dead { DeliveryState::Dead } else { DeliveryState::Pending });
    let rows: Vec<DeliveryRow> = asker.ask(&Question::Queue { state, filter: args.list.filter(None) })?;
    if args.list.json {
        json(terminal.out, &rows)?;
        return Ok(Exit::Fine);
    }
    let mut listing =
        Listing::new(&["id", "severity", "title", "destination", "table", "tries", "due (utc)", "reason"]);
    for r in &rows {
        let (id, tries) = (r.id.to_string(), r.attempts.to_string());
        let reason = r.reason.as_deref().unwrap_or("");
        listing.row(&[
            &id,
            r.severity.as_str(),
            &r.title,
            &r.destination,
            &r.table,
            &tries,
            &time(r.due_at),
            reason,
        ]);
    }
    let what = format!(", {}", state.as_str());
    end(&listing, rows.len(), &args.list, ["delivery", "deliveries"], &what, terminal)
}

fn queue_show(asker: &Asker, id: DeliveryId, as_json: bool, terminal: &mut Terminal<'_>) -> Outcome {
    let row: Option<DeliveryRow> = asker.ask(&Question::Delivery { id })?;
    let Some(r) = row else { return Err(CliError::Words(format!("there is no delivery {id}"))) };
    if as_json {
        json(terminal.out, &r)?;
        return Ok(Exit::Fine);
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
    let question = Question::Queue { state: DeliveryState::Dead, filter: ListFilter::default() };
    let rows: Vec<DeliveryRow> = asker.ask(&question)?;
    Ok(rows.into_iter().map(|r| r.id).collect())
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

/// Prints a list; on stderr how many there are, so that an empty list is not taken for a failure.
fn end(
    listing: &Listing,
    rows: usize,
    args: &ListArgs,
    [one, many]: [&str; 2],
    what: &str,
    terminal: &mut Terminal<'_>,
) -> Outcome {
    if rows > 0 {
        listing.print(terminal.out)?;
    }
    let more = if args.limit > 0 && rows as u32 == args.limit { " (more with --limit)" } else { "" };
    let noun = if rows == 1 { one } else { many };
    writeln!(terminal.err, "{rows} {noun}{what}{more}")?;
    Ok(Exit::Fine)
}
