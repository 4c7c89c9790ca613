//! 2 — decide. Pure: the same alert gives the same decision, always with a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DeskName, Engine, RuleName, Severity, TableName};

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
    pub desk: DeskName,
    /// Into which table.
    pub table: TableName,
    /// Field to template: the operator's own, laid over the table's defaults.
    pub fields: BTreeMap<String, String>,
}
