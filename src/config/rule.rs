//! `[[rule]]` and `[[rule.action]]` to Settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::check::Check;
use super::file::{Action, Rule};
use super::problem::{At, list, nearest};
use super::read::{Field, List, Named};
use super::values::{
    AnyOr, AttachWord, EngineWord, OnCleared, OnSeenAgain, Period, ReportType, SeverityWord,
};
use crate::model::gather::Gather as _;
use crate::model::life::{self, Attach, Life};
use crate::model::names::is_field;
use crate::model::{
    DeliveryKind, DestinationName, Engine, Protocol, RuleName, Severity, TableName, protocol,
};
use crate::rules::{ActionSettings, RULES_MAX, RuleSettings};
use crate::servicenow::{ROW_COLUMNS, can_reopen, can_resolve, refuses_to_close};

/// Fields that otrelay has to fill itself, and why.
const OWN_FIELDS: [(&str, &str); 4] = [
    ("correlation_id", "otrelay finds its ticket again by it"),
    ("correlation_display", "otrelay marks its tickets with it"),
    ("sys_id", "otrelay derives it, so that a lost answer makes no second ticket"),
    ("number", "ServiceNow gives it"),
];

/// Folding walks the alias table; a config with thousands of rules names the same few protocols.
#[derive(Default)]
struct Folds {
    known: BTreeSet<String>,
    folded: BTreeMap<String, String>,
}

impl Folds {
    fn new() -> Self {
        Self { known: Protocol::known().map(protocol::fold).collect(), folded: BTreeMap::new() }
    }

    fn fold(&mut self, name: &str) -> String {
        if let Some(folded) = self.folded.get(name) {
            return folded.clone();
        }
        let folded = protocol::fold(name);
        self.folded.insert(name.to_owned(), folded.clone());
        folded
    }
}

/// Checks all rules; those with an error are left out.
pub(super) fn check(
    rules: &Field<List<Rule>>,
    destinations: &[&str],
    c: &mut Check<'_>,
) -> Vec<RuleSettings> {
    let Some((rules, place)) = rules.get() else { return Vec::new() };
    if rules.items.len() > RULES_MAX {
        c.problems.error(place, "too many rules", |p| {
            p.found(rules.items.len().to_string()).expected(format!("at most {RULES_MAX}"))
        });
        return Vec::new();
    }
    let mut names = BTreeMap::new();
    let mut folds = Folds::new();
    let mut checked = Vec::new();
    for (rule, at) in &rules.items {
        c.name_once(&mut names, "rules", &rule.name);
        checked.extend(one(rule, at, destinations, &mut folds, c));
    }
    checked
}

fn one(
    rule: &Rule,
    at: &At,
    destinations: &[&str],
    folds: &mut Folds,
    c: &mut Check<'_>,
) -> Option<RuleSettings> {
    c.effective.begin("[[rule]]", at.key.to_string());
    let name = c.named(&rule.name, at, "a name for this rule", RuleName::new);
    let enabled = c.value("enabled", &rule.enabled, true, |v| *v);
    let default = SeverityWord(Severity::Warning);
    let min_severity = c.value("min_severity", &rule.min_severity, default, |s| s.0.as_str());
    let protocols = protocols(&rule.protocols, folds, c);
    let engines = engines(&rule.engines, c);
    let report_alerts = c.value("report_alerts", &rule.report_alerts, true, |v| *v);
    let report_system =
        c.value("report_system_notifications", &rule.report_system_notifications, false, |v| *v);
    if let (Some(false), Some(false), Some(at)) = (report_alerts, report_system, rule.report_alerts.at()) {
        c.problems.warn(at, "this rule takes neither alerts nor system notifications", |p| {
            p.hint("set enabled = false to switch it off")
        });
    }
    let most = most_tickets(&rule.max_tickets_per_hour, c);
    let (actions, written) = match rule.action.get() {
        Some((actions, _)) => (actions.items.as_slice(), actions.written),
        None => ([].as_slice(), usize::from(rule.action.is_present())),
    };
    if written == 0 && enabled == Some(true) {
        c.problems.error(&at.child("action"), "an enabled rule without an action", |p| {
            p.hint("add [[rule.action]] below it, or set enabled = false")
        });
    }
    let mut checked = Vec::with_capacity(actions.len());
    let mut targets = BTreeSet::new();
    for (action, at) in actions {
        let action = self::action(action, at, destinations, c);
        if let Some(action) = &action
            && !targets.insert((action.destination.clone(), action.table.clone()))
        {
            let message =
                format!("this rule has two actions for table {} of {}", action.table, action.destination);
            c.problems.warn(at, message, |p| p.hint("they make one ticket, with the fields of the first"));
        }
        checked.push(action);
    }
    Some(RuleSettings {
        name: name?,
        enabled: enabled?,
        min_severity: min_severity?.0,
        protocols: protocols?,
        engines: engines?,
        report_alerts: report_alerts?,
        report_system_notifications: report_system?,
        actions: with_limit(
            checked.into_iter().collect::<Option<_>>()?,
            most?,
            &rule.max_tickets_per_hour,
            c,
        ),
    })
}

/// Outer `None`: wrong. Inner `None`: any.
#[expect(clippy::option_option, reason = "wrong, any, and these are three answers, and `?` takes the first")]
fn protocols(
    field: &Field<AnyOr<String>>,
    folds: &mut Folds,
    c: &mut Check<'_>,
) -> Option<Option<BTreeSet<String>>> {
    let these = match c.value("protocols", field, AnyOr::Any, |value| any_or(value, |name| name.as_str()))? {
        AnyOr::Any => return Some(None),
        AnyOr::These(these) => these,
    };
    let mut folded = BTreeSet::new();
    for (name, at) in &these.items {
        let form = folds.fold(name);
        if form == "any" || form == "all" {
            c.problems
                .error(at, "this word stands alone, not in a list", |p| p.hint("write \"any\" without [ ]"));
            continue;
        }
        if form.is_empty() {
            c.problems.error(at, "this is not the name of a protocol", |p| {
                p.quoted(name).expected("a name with letters or digits")
            });
            continue;
        }
        if !folds.known.contains(&form) {
            c.problems.warn(at, "otrelay does not know this protocol", |p| {
                let p = p.quoted(name);
                match nearest(name, Protocol::known()) {
                    Some(near) => p.hint(format!("did you mean `{near}`? Else it is compared as written")),
                    None => p.hint("it is compared as written"),
                }
            });
        }
        folded.insert(form);
    }
    nothing_listed(field, these.written == 0, c)?;
    Some(Some(folded))
}

#[expect(clippy::option_option, reason = "as for protocols")]
fn engines(field: &Field<AnyOr<EngineWord>>, c: &mut Check<'_>) -> Option<Option<BTreeSet<Engine>>> {
    let these =
        match c.value("engines", field, AnyOr::Any, |value| any_or(value, |engine| engine.0.as_str()))? {
            AnyOr::Any => return Some(None),
            AnyOr::These(these) => these,
        };
    nothing_listed(field, these.written == 0, c)?;
    Some(Some(these.items.iter().map(|(engine, _)| engine.0).into_set()))
}

fn any_or<T>(value: &AnyOr<T>, word: impl Fn(&T) -> &str) -> Value {
    match value {
        AnyOr::Any => "any".into(),
        AnyOr::These(these) => these.items.iter().map(|(item, _)| Value::from(word(item))).collect(),
    }
}

fn nothing_listed<T>(field: &Field<T>, empty: bool, c: &mut Check<'_>) -> Option<()> {
    if let (true, Some(at)) = (empty, field.at()) {
        c.problems.error(at, "an empty list matches nothing", |p| {
            p.expected("\"any\" or at least one").hint("remove the key to match any")
        });
        return None;
    }
    Some(())
}

fn action(action: &Action, at: &At, destinations: &[&str], c: &mut Check<'_>) -> Option<ActionSettings> {
    c.effective.begin("[[rule.action]]", at.key.to_string());
    let destination = destination(action, at, destinations, c);
    let report_type =
        c.value("report_type", &action.report_type, ReportType::Incidents, |kind| kind.as_str());
    let is_row = matches!(report_type, Some(ReportType::Application));
    if is_row && !action.table.is_present() {
        c.problems.error(&at.child("table"), "missing: the whole alert goes into a staging table", |p| {
            p.expected("the name of an import set table").hint(
                "its transform map has to coalesce on correlation_id, or a lost answer makes a second record",
            )
        });
        return None;
    }
    let table = c.value("table", &action.table, "incident".to_owned(), Clone::clone);
    let table = table.and_then(|text| match TableName::new(&text) {
        Ok(table) => Some(table),
        Err(error) => {
            let place = action.table.at()?;
            c.problems.error(place, "this is not the name of a table", |p| {
                p.quoted(text).expected(error.expected).hint("the name, not the label: `incident`")
            });
            None
        }
    });
    let fields = match action.fields.get() {
        Some((fields, _)) => self::fields("fields", fields, c),
        None => (!action.fields.is_present()).then(BTreeMap::new),
    };
    let mut columns = BTreeMap::new();
    if let Some((named, place)) = action.columns.get() {
        if is_row {
            columns = self::columns(named, c)?;
        } else {
            c.problems.error(place, "only report_type = \"application\" has columns", |p| {
                p.hint("set report_type = \"application\", or write [rule.action.fields]")
            });
            return None;
        }
    }
    let (table, mut fields) = (table?, fields?);
    if is_row {
        // Ours and theirs: both names of a column are understood.
        fields = fields.into_iter().map(|(n, text)| (columns.get(&n).cloned().unwrap_or(n), text)).into_map();
    }
    let kind = if is_row { DeliveryKind::PutRow } else { DeliveryKind::of_table(&table) };
    let (life, closing) = life(action, (&table, kind), c)?;
    if let (false, Some(at)) = (kind == DeliveryKind::OpenTicket, action.attach.at()) {
        c.problems.warn(at, "nothing can be attached to an event or a row", |p| p.hint("remove this"));
    }
    Some(ActionSettings { destination: destination?, table, kind, fields, columns, life, closing })
}

/// Our names of the columns of a row, and what the staging table calls them.
fn columns(columns: &Named<String>, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let mut checked = BTreeMap::new();
    let mut wrong = false;
    for (name, column, at) in &columns.0 {
        c.effective.note(&format!("columns.{name}"), column.clone(), at.into());
        let known = ROW_COLUMNS.map(|(known, _)| known);
        if !known.contains(&name.as_str()) {
            wrong = true;
            c.problems.error(at, "a row has no such column", |p| {
                p.quoted(name).expected(format!("one of {}", list(known))).near(name, known)
            });
        } else if !is_field(column) {
            wrong = true;
            c.problems.error(at, "this is not the name of a column", |p| {
                p.quoted(column)
                    .expected("a-z 0-9 _, a letter first")
                    .hint("the name, not the label: `u_title`")
            });
        } else if checked.values().any(|taken| taken == column) {
            wrong = true;
            c.problems.error(at, "two of ours go into one column", |p| p.quoted(column));
        }
        checked.insert(name.clone(), column.clone());
    }
    (!wrong).then_some(checked)
}

/// What becomes of its tickets later, and what they are closed with.
fn life(
    action: &Action,
    (table, kind): (&TableName, DeliveryKind),
    c: &mut Check<'_>,
) -> Option<(Life, BTreeMap<String, String>)> {
    let on_cleared = c.value("on_cleared", &action.on_cleared, OnCleared::Note, |word| word.as_str());
    let on_seen_again =
        c.value("on_seen_again", &action.on_seen_again, OnSeenAgain::New, |word| word.as_str());
    let update_interval = update_interval(&action.update_interval, c);
    let attach = attach(&action.attach, c);
    let is_resolved = matches!(on_cleared, Some(OnCleared::Resolve));
    let closes = !matches!(on_cleared, Some(OnCleared::Note | OnCleared::None));
    let closing = closing(action, closes, c);
    let mut wrong = closing.is_none();
    let is_ticket = kind == DeliveryKind::OpenTicket;
    if !is_ticket {
        no_ticket(action, kind, c);
    }
    if let (true, Some(at)) = (is_resolved && is_ticket, action.on_cleared.at()) {
        let has_state = closing.as_ref().is_some_and(|fields| fields.contains_key("state"));
        if !can_resolve(table) && !has_state {
            wrong = true;
            c.problems.error(at, format!("otrelay does not know how a record of {table} is resolved"), |p| {
                p.found("\"resolve\"")
                    .expected("\"note\" or \"none\" for this table, or `state` in [rule.action.resolve]")
            });
        } else if let Some(why) = refuses_to_close(table).filter(|_| !has_state) {
            c.problems.warn(at, format!("tickets of {table} may stay open: {why}"), |p| {
                p.hint("set on_cleared = \"note\"; where closing is refused, the end is told as a work note anyway")
            });
        }
    }
    if let (Some(OnSeenAgain::Reopen), Some(at)) = (on_seen_again, action.on_seen_again.at())
        && is_ticket
        && !can_reopen(table)
    {
        c.problems.warn(at, format!("otrelay does not know how a record of {table} is opened again"), |p| {
            p.hint("a new one is made; remove the key")
        });
    }
    let life = Life {
        on_cleared: match on_cleared? {
            OnCleared::Resolve => life::OnCleared::Resolve,
            OnCleared::Note => life::OnCleared::Note,
            OnCleared::None => life::OnCleared::None,
        },
        on_seen_again: match on_seen_again? {
            OnSeenAgain::New => life::OnSeenAgain::New,
            OnSeenAgain::Reopen => life::OnSeenAgain::Reopen,
        },
        update_interval: update_interval?,
        max_tickets_per_hour: None,
        attach: attach?,
    };
    closing.filter(|_| !wrong).map(|closing| (life, closing))
}

/// Says which keys do nothing where no ticket is made.
fn no_ticket(action: &Action, kind: DeliveryKind, c: &mut Check<'_>) {
    let is_event = kind.goes_on();
    let (what, hint) = if is_event {
        ("an event is raised and closed under its own key: this does nothing", "remove the key")
    } else {
        (
            "a row is told once, when its finding is first seen: this does nothing",
            "remove the key; where repeats and ends have to be told, add an action that makes a ticket or an event",
        )
    };
    let of_tickets =
        [action.on_seen_again.at(), action.close_code.at(), action.close_notes.at(), action.resolve.at()];
    let of_both = [action.on_cleared.at(), action.update_interval.at()];
    for at in of_tickets.into_iter().chain(of_both.into_iter().filter(|_| !is_event)).flatten() {
        c.problems.warn(at, what, |p| p.hint(hint));
    }
}

/// What a ticket is closed with.
fn closing(action: &Action, closes: bool, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let mut closing = match action.resolve.get() {
        Some((given, at)) => {
            if !closes {
                nothing_closes(at, c);
            }
            fields("resolve", given, c)?
        }
        None if action.resolve.is_present() => return None,
        None => BTreeMap::new(),
    };
    let mut wrong = false;
    for (name, field) in [("close_code", &action.close_code), ("close_notes", &action.close_notes)] {
        let Some((template, at)) = field.get() else {
            wrong |= field.is_present();
            continue;
        };
        c.effective.note_field(name, template.clone(), field);
        if let Err(why) = (c.templates)(name, template) {
            wrong = true;
            let why = super::problem::quote(&why);
            c.problems.error(at, format!("the template does not work: {why}"), |p| p);
        }
        if !closes {
            nothing_closes(at, c);
        }
        if closing.insert(name.to_owned(), template.clone()).is_some() {
            wrong = true;
            c.problems.error(at, format!("`{name}` also stands in [rule.action.resolve]"), |p| {
                p.hint("remove one of the two")
            });
        }
    }
    (!wrong).then_some(closing)
}

fn nothing_closes(at: &At, c: &mut Check<'_>) {
    c.problems.warn(at, "nothing is closed without on_cleared = \"resolve\"", |p| {
        p.hint("set on_cleared, or remove this")
    });
}

/// Kinds of sources whose alerts never have a packet with them: what they hand over, or what otrelay reads of it, is none.
const NO_CAPTURE: [&str; 4] = ["defender-sensor", "defender-console", "zeek", "syslog"];
/// Names of sources that are shown.
const SHOWN: usize = 5;

/// Says of which sources nothing is attached where packets are wanted: rules take the alerts of all of them.
pub(super) fn captures(rules: &Field<List<Rule>>, sources: &[crate::source::Settings], c: &mut Check<'_>) {
    let without: Vec<String> = sources
        .iter()
        .filter(|source| NO_CAPTURE.contains(&source.kind))
        .map(|source| format!("`{}` ({})", source.name, source.kind))
        .collect();
    let rules = rules.get().map_or(&[] as &[_], |(rules, _)| rules.items.as_slice());
    let actions = rules
        .iter()
        .filter(|(rule, _)| rule.enabled.get().is_none_or(|(enabled, _)| *enabled))
        .filter_map(|(rule, _)| rule.action.get())
        .flat_map(|(actions, _)| &actions.items);
    for (action, _) in actions {
        let Some((words, at)) = action.attach.get() else { continue };
        if without.is_empty() || !words.items.iter().any(|(word, _)| *word == AttachWord::Pcap) {
            continue;
        }
        let more = if without.len() > SHOWN { ", and others" } else { "" };
        let names = without.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        c.problems.warn(at, format!("no `pcap` is attached for alerts of {names}{more}"), |p| {
            p.hint(if without.len() == sources.len() {
                "only EVE alerts have their packet with them; \"raw\" attaches the record of any source"
            } else {
                "their alerts have no packet with them; \"raw\" attaches the record of any source"
            })
        });
    }
}

/// What goes with a ticket.
fn attach(field: &Field<List<AttachWord>>, c: &mut Check<'_>) -> Option<Attach> {
    let Some((words, _)) = field.get() else {
        return (!field.is_present()).then(Attach::default);
    };
    c.note_list("attach", field, words, |word| word.as_str());
    let has = |wanted: AttachWord| words.items.iter().any(|(word, _)| *word == wanted);
    let attach = Attach { raw: has(AttachWord::Raw), pcap: has(AttachWord::Pcap) };
    (words.items.len() == words.written).then_some(attach)
}

/// Zero, or at least a second.
fn update_interval(field: &Field<Period>, c: &mut Check<'_>) -> Option<Duration> {
    if field.get().is_some_and(|(period, _)| period.value.is_zero()) {
        let default = Period { text: "24h".to_owned(), value: life::UPDATE_INTERVAL };
        return c.value("update_interval", field, default, |p| p.text.clone()).map(|p| p.value);
    }
    c.duration("update_interval", field, "24h", Duration::from_secs(1))
}

/// Outer `None`: wrong. Inner `None`: no limit.
#[expect(clippy::option_option, reason = "as for protocols")]
fn most_tickets(field: &Field<i64>, c: &mut Check<'_>) -> Option<Option<u32>> {
    let Some((number, at)) = field.get() else { return (!field.is_present()).then_some(None) };
    c.effective.note_field("max_tickets_per_hour", *number, field);
    match u32::try_from(*number) {
        Ok(most) if most > 0 => Some(Some(most)),
        _ => {
            c.problems.error(at, "not a number of tickets", |p| {
                p.found(number.to_string())
                    .expected(format!("1 to {}", u32::MAX))
                    .hint("remove the key for no limit; enabled = false switches the rule off")
            });
            None
        }
    }
}

/// The limit is of tickets: what a rule sends of events and rows has none.
fn with_limit(
    mut actions: Vec<ActionSettings>,
    most: Option<u32>,
    field: &Field<i64>,
    c: &mut Check<'_>,
) -> Vec<ActionSettings> {
    let unlimited = actions.iter().find(|action| action.kind != DeliveryKind::OpenTicket);
    if let (Some(action), Some(at), Some(_)) = (unlimited, field.at(), most) {
        let what = format!("it limits tickets; what goes to {} is not limited", action.table);
        c.problems.warn(at, what, |p| p.hint("events and rows need no limit: give them a rule of their own"));
    }
    for action in &mut actions {
        action.life.max_tickets_per_hour = most;
    }
    actions
}

fn destination(
    action: &Action,
    at: &At,
    destinations: &[&str],
    c: &mut Check<'_>,
) -> Option<DestinationName> {
    let name = match (action.servicenow.get(), destinations) {
        (Some((name, place)), _) if destinations.contains(&name.as_str()) => {
            c.effective.note("servicenow", name.clone(), place.into());
            name.as_str()
        }
        // That there is no destination at all is said once, for the whole config.
        (Some(_), []) => return None,
        (Some((name, place)), _) => {
            if c.complete {
                c.problems.error(place, "there is no such destination", |p| {
                    p.quoted(name)
                        .expected(format!("one of {}", list(destinations.iter().copied())))
                        .near(name, destinations.iter().copied())
                });
            }
            return None;
        }
        (None, [only]) if !action.servicenow.is_present() => {
            c.effective.note_field("servicenow", *only, &action.servicenow);
            only
        }
        (None, [_, _, ..]) if !action.servicenow.is_present() => {
            c.problems.error(&at.child("servicenow"), "missing: there is more than one destination", |p| {
                p.expected(format!("one of {}", list(destinations.iter().copied())))
            });
            return None;
        }
        (None, _) => return None,
    };
    DestinationName::new(name).ok()
}

fn fields(key: &str, fields: &Named<String>, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let mut checked = BTreeMap::new();
    let mut wrong = false;
    for (name, template, at) in &fields.0 {
        c.effective.note(&format!("{key}.{name}"), template.clone(), at.into());
        if !is_field(name) {
            wrong = true;
            c.problems.error(at, "this is not the name of a field", |p| {
                p.expected("a-z 0-9 _, a letter first").hint("the name, not the label: `short_description`")
            });
        } else if let Some((_, why)) = OWN_FIELDS.iter().find(|(own, _)| own == name) {
            wrong = true;
            c.problems.error(at, format!("this field cannot be set: {why}"), |p| p.hint("remove it"));
        } else if let Err(why) = (c.templates)(name, template) {
            wrong = true;
            c.problems.error(
                at,
                format!("the template does not work: {}", super::problem::quote(&why)),
                |p| p,
            );
        }
        checked.insert(name.clone(), template.clone());
    }
    (!wrong).then_some(checked)
}
