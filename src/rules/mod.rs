//! 2 — decide. Pure: the same alert gives the same decision, always with a reason.
//!
//! [`Rules`] is built once from the checked settings and then only read. [`Rules::decide`] is for every alert,
//! [`Rules::explain`] says the same in words for one, [`Rules::fields`] fills the templates when a ticket is made.
//! No rule is remembered between alerts: repeats are the store's, time (`backfill`) is the intake's.

mod digest;

pub mod exclude;

mod explain;

mod matcher;

pub mod pattern;

mod reason;

pub mod redact;

pub mod template;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::gather::Gather as _;
use crate::model::life::{Life, Lives};
use crate::model::ticket::{BY_HAND, BY_HAND_TABLES};
use crate::model::{Alert, AlertKind, DeliveryKind, DestinationName, Engine, RuleName, Severity, TableName};

pub use explain::{Condition, Failure, Verdict};
pub use reason::{Decision, Reason, Route, RuleSet};
pub use template::{TicketContext, VARIABLES, check_template};

use matcher::Matcher;
use template::{FieldTemplate, Templates};

/// A forwarding rule, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSettings {
    /// Its name, unique.
    pub name: RuleName,
    /// A disabled rule takes no part.
    pub enabled: bool,
    /// This level and every higher one. Default `warning`.
    pub min_severity: Severity,
    /// Folded protocol names ([`crate::model::protocol::fold`]); `None`: any.
    pub protocols: Option<BTreeSet<String>>,
    /// `None`: any.
    pub engines: Option<BTreeSet<Engine>>,
    /// Whether it takes alerts about the plant. Default true.
    pub report_alerts: bool,
    /// Whether it takes system notifications. Default false.
    pub report_system_notifications: bool,
    /// Where matching alerts go. May be empty only in a disabled rule.
    pub actions: Vec<ActionSettings>,
}

/// What a matching rule does, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSettings {
    /// To which destination.
    pub destination: DestinationName,
    /// Into which table.
    pub table: TableName,
    /// What the alert becomes there.
    pub kind: DeliveryKind,
    /// Field to template: the operator's own, laid over the table's defaults.
    pub fields: BTreeMap<String, String>,
    /// Of a row: our name to the column that has it, where that is another one.
    pub columns: BTreeMap<String, String>,
    /// What becomes of its tickets later.
    pub life: Life,
    /// Templates of `close_code` and `close_notes`, as far as they are given.
    pub closing: BTreeMap<String, String>,
}

impl RuleSettings {
    fn takes_kind(&self, kind: AlertKind) -> bool {
        match kind {
            AlertKind::Alert => self.report_alerts,
            AlertKind::SystemNotification => self.report_system_notifications,
        }
    }

    fn takes_severity(&self, severity: Severity) -> bool {
        severity >= self.min_severity
    }

    fn takes_engine(&self, engine: Engine) -> bool {
        self.engines.as_ref().is_none_or(|taken| taken.contains(&engine))
    }
}

/// Most rules in a config.
pub const RULES_MAX: usize = 4096;
/// Most different protocol names in all rules together.
pub const PROTOCOLS_MAX: usize = 4096;

/// Why the rules cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// More rules than [`RULES_MAX`].
    #[error("{0} rules, at most {RULES_MAX} are possible")]
    TooManyRules(usize),
    /// More protocol names than [`PROTOCOLS_MAX`].
    #[error("the rules name {0} different protocols, at most {PROTOCOLS_MAX} are possible")]
    TooManyProtocols(usize),
    /// Two rules with one name.
    #[error("two rules are called `{0}`")]
    DuplicateName(RuleName),
    /// An enabled rule that would send nothing.
    #[error("rule `{0}` is enabled and has no action")]
    NoAction(RuleName),
    /// A field template that does not work.
    #[error("rule `{rule}`, table {table}: {problem}")]
    Template {
        /// Which rule.
        rule: RuleName,
        /// The action's table.
        table: TableName,
        /// Field, line and what is wrong.
        problem: String,
    },
    /// A default template that does not work: a fault of this program, not of the config.
    #[error("default fields of table {table}: {problem}")]
    DefaultTemplate {
        /// The table.
        table: TableName,
        /// Field, line and what is wrong.
        problem: String,
    },
}

/// Why a ticket's fields cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The rules changed since the alert was decided.
    #[error("rule `{rule}` is no longer in the config")]
    UnknownRule {
        /// Its name.
        rule: String,
    },
    /// The rules changed since the alert was decided.
    #[error("rule `{rule}` has no action for table {table} of `{destination}` any more")]
    NoAction {
        /// Its name.
        rule: String,
        /// The destination asked for.
        destination: DestinationName,
        /// The table asked for.
        table: TableName,
    },
    /// A template fails on this alert.
    #[error("rule `{rule}`, table {table}: {problem}")]
    Field {
        /// The rule's name.
        rule: String,
        /// The action's table.
        table: TableName,
        /// Field, line and what is wrong.
        problem: String,
    },
}

/// The defaults of tables in which a person may want a ticket, beside those of the rules.
fn by_hand(
    templates: &mut Templates,
    defaults: &mut HashMap<TableName, Defaults>,
    default_fields: impl Fn(DeliveryKind, &TableName, &BTreeMap<String, String>) -> BTreeMap<String, String>,
) -> Result<(), RulesError> {
    for table in BY_HAND_TABLES.into_iter().filter_map(|name| TableName::new(name).ok()) {
        if defaults.contains_key(&table) {
            continue;
        }
        let fields = default_fields(DeliveryKind::OpenTicket, &table, &BTreeMap::new());
        let broken = |problem| RulesError::DefaultTemplate { table: table.clone(), problem };
        let compiled = templates.compile_all(&fields).map_err(broken)?;
        defaults.insert(table, compiled);
    }
    Ok(())
}

type Defaults = BTreeMap<String, FieldTemplate>;

/// All rules, ready to decide.
#[derive(Debug)]
pub struct Rules {
    settings: Vec<RuleSettings>,
    matcher: Matcher,
    /// Every different destination and table of the rules.
    targets: Vec<(DestinationName, TableName)>,
    /// By rule, in the order of its actions: places in `targets`.
    rule_targets: Vec<Vec<usize>>,
    /// By rule and action: the operator's own fields; of a row all.
    own_fields: Vec<Vec<BTreeMap<String, FieldTemplate>>>,
    /// The same for what its tickets are closed with.
    closing: Vec<Vec<BTreeMap<String, FieldTemplate>>>,
    lives: Arc<Lives>,
    defaults: HashMap<TableName, Defaults>,
    templates: Templates,
    by_name: HashMap<RuleName, usize>,
    digest: [u8; 32],
}

impl Rules {
    /// Compiles rules whose fields are only what the operator wrote.
    pub fn compile(rules: &[RuleSettings]) -> Result<Self, RulesError> {
        Self::compile_over(rules, |_, _, _| BTreeMap::new())
    }

    /// Compiles rules whose fields are laid over the default fields of their action: those of its table, or of a row.
    pub fn compile_over(
        rules: &[RuleSettings],
        default_fields: impl Fn(DeliveryKind, &TableName, &BTreeMap<String, String>) -> BTreeMap<String, String>,
    ) -> Result<Self, RulesError> {
        check(rules)?;
        let mut templates = Templates::new();
        let mut targets: Vec<(DestinationName, TableName)> = Vec::new();
        let mut places: HashMap<(DestinationName, TableName), usize> = HashMap::new();
        let mut defaults: HashMap<TableName, Defaults> = HashMap::new();
        let mut rule_targets = Vec::with_capacity(rules.len());
        let mut own_fields = Vec::with_capacity(rules.len());
        let mut closing = Vec::with_capacity(rules.len());
        let mut lives = Lives::default();

        for rule in rules {
            let mut of_rule = Vec::with_capacity(rule.actions.len());
            let mut fields_of_rule = Vec::with_capacity(rule.actions.len());
            let mut closing_of_rule = Vec::with_capacity(rule.actions.len());
            for action in &rule.actions {
                let ActionSettings { destination, table, fields, life, closing, .. } = action;
                lives.set(&rule.name, destination, table, *life);
                let target = (destination.clone(), table.clone());
                of_rule.push(*places.entry(target).or_insert_with_key(|target| {
                    targets.push(target.clone());
                    targets.len() - 1
                }));
                closing_of_rule.push(templates.compile_all(closing).map_err(|problem| {
                    RulesError::Template { rule: rule.name.clone(), table: table.clone(), problem }
                })?);
                let mut own = templates.compile_all(fields).map_err(|problem| RulesError::Template {
                    rule: rule.name.clone(),
                    table: table.clone(),
                    problem,
                })?;
                let broken = |problem| RulesError::DefaultTemplate { table: table.clone(), problem };
                if action.kind == DeliveryKind::PutRow {
                    let mut all = templates
                        .compile_row(&default_fields(action.kind, table, &action.columns))
                        .map_err(broken)?;
                    all.append(&mut own);
                    own = all;
                } else if !defaults.contains_key(table) {
                    let compiled = templates
                        .compile_all(&default_fields(action.kind, table, &action.columns))
                        .map_err(broken)?;
                    defaults.insert(table.clone(), compiled);
                }
                fields_of_rule.push(own);
            }
            rule_targets.push(of_rule);
            own_fields.push(fields_of_rule);
            closing.push(closing_of_rule);
        }

        by_hand(&mut templates, &mut defaults, default_fields)?;
        Ok(Self {
            matcher: Matcher::compile(rules),
            targets,
            rule_targets,
            own_fields,
            closing,
            lives: Arc::new(lives),
            defaults,
            templates,
            by_name: rules.iter().enumerate().map(|(at, r)| (r.name.clone(), at)).collect(),
            digest: digest::of(rules),
            settings: rules.to_vec(),
        })
    }

    /// Where this alert goes and why. Two matching rules with the same destination and table give one route.
    pub fn decide(&self, alert: &Alert) -> Decision<'_> {
        let (reason, matched) = self.matcher.matching(alert);
        let mut routes = Vec::new();
        if reason == Reason::Matched {
            let mut seen = vec![0u64; self.targets.len().div_ceil(64)];
            'rules: for rule in matched.iter() {
                for (&target, action) in self.rule_targets[rule].iter().zip(&self.settings[rule].actions) {
                    let (word, bit) = (target / 64, 1 << (target % 64));
                    if seen[word] & bit != 0 {
                        continue;
                    }
                    seen[word] |= bit;
                    let (destination, table) = &self.targets[target];
                    let (kind, rule_name) = (action.kind, &self.settings[rule].name);
                    routes.push(Route { destination, table, kind, rule, rule_name });
                    if routes.len() == self.targets.len() {
                        break 'rules;
                    }
                }
            }
        }
        Decision { routes, reason, matched }
    }

    /// What each rule says to this alert, in file order, disabled ones too.
    pub fn explain(&self, alert: &Alert) -> Vec<Verdict<'_>> {
        self.settings
            .iter()
            .enumerate()
            .map(|(index, rule)| Verdict { index, rule: &rule.name, failure: explain::failure(rule, alert) })
            .collect()
    }

    /// The fields of a ticket by the rule `context.rule`: the table's defaults, the rule's own laid over them. A field
    /// that comes out empty is left out: an absent fact is absent.
    pub fn fields(&self, context: &TicketContext<'_>) -> Result<BTreeMap<String, String>, TemplateError> {
        if context.rule == BY_HAND {
            return self.render(self.defaults.get(context.table).into_iter().flatten(), context);
        }
        let (rule, action) = self.action(context)?;
        let own = &self.own_fields[rule][action];
        let is_row = self.settings[rule].actions[action].kind == DeliveryKind::PutRow;
        let defaults = self.defaults.get(context.table).filter(|_| !is_row).into_iter().flatten();
        self.render(defaults.filter(|(name, _)| !own.contains_key(*name)).chain(own), context)
    }

    /// `close_code` and `close_notes` by the rule `context.rule`, as far as its action has them; none when the action is
    /// no longer in the config: the ticket is to be closed all the same.
    pub fn closing(&self, context: &TicketContext<'_>) -> Result<BTreeMap<String, String>, TemplateError> {
        match self.action(context) {
            Ok((rule, action)) => self.render(&self.closing[rule][action], context),
            Err(_) => Ok(BTreeMap::new()),
        }
    }

    /// The places of a rule and its action.
    fn action(&self, context: &TicketContext<'_>) -> Result<(usize, usize), TemplateError> {
        let (destination, table) = (context.destination, context.table);
        let Some(rule) = self.index_of(context.rule) else {
            return Err(TemplateError::UnknownRule { rule: context.rule.to_owned() });
        };
        let mut actions = self.settings[rule].actions.iter();
        let wanted = actions.position(|a| a.destination == *destination && a.table == *table);
        let action = wanted.ok_or_else(|| TemplateError::NoAction {
            rule: context.rule.to_owned(),
            destination: destination.clone(),
            table: table.clone(),
        })?;
        Ok((rule, action))
    }

    fn render<'a>(
        &self,
        templates: impl IntoIterator<Item = (&'a String, &'a FieldTemplate)>,
        context: &TicketContext<'_>,
    ) -> Result<BTreeMap<String, String>, TemplateError> {
        let values = context.values();
        let mut fields = BTreeMap::new();
        for (name, template) in templates {
            let value = self.templates.render(template, &values).map_err(|fault| TemplateError::Field {
                rule: context.rule.to_owned(),
                table: context.table.clone(),
                problem: fault.in_field(name),
            })?;
            if !value.is_empty() {
                fields.insert(name.clone(), value);
            }
        }
        Ok(fields)
    }

    /// What the rules want of tickets that are there.
    pub fn lives(&self) -> &Arc<Lives> {
        &self.lives
    }

    /// Place in the file of the rule with this name.
    pub fn index_of(&self, rule: &str) -> Option<usize> {
        RuleName::new(rule).ok().and_then(|name| self.by_name.get(&name).copied())
    }

    /// SHA-256 over what can change a decision or a ticket: the same rules give the same digest on every machine.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

/// What types cannot say.
fn check(rules: &[RuleSettings]) -> Result<(), RulesError> {
    if rules.len() > RULES_MAX {
        return Err(RulesError::TooManyRules(rules.len()));
    }
    let protocols: BTreeSet<_> = rules.iter().flat_map(|r| r.protocols.iter().flatten()).into_set();
    if protocols.len() > PROTOCOLS_MAX {
        return Err(RulesError::TooManyProtocols(protocols.len()));
    }
    let mut names = BTreeSet::new();
    for rule in rules {
        if !names.insert(&rule.name) {
            return Err(RulesError::DuplicateName(rule.name.clone()));
        }
        if rule.enabled && rule.actions.is_empty() {
            return Err(RulesError::NoAction(rule.name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
