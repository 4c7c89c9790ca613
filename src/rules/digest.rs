//! A digest of the rules, so that the store can tell whether they changed since an alert was decided.
//!
//! Only what can change a decision or a ticket is in it: enabled rules in file order, sets sorted, protocols folded.
//! A release that changes the default fields of a table does not change it.

use ring::digest::{Context, SHA256};

use super::RuleSettings;
use crate::model::DeliveryKind;

/// SHA-256; every part is length-prefixed, so that no two settings give the same bytes.
pub(super) fn of(rules: &[RuleSettings]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    let mut part = |text: &str| {
        hash.update(&(text.len() as u32).to_be_bytes());
        hash.update(text.as_bytes());
    };
    part("otrelay rules 1");
    for rule in rules.iter().filter(|r| r.enabled) {
        part("rule");
        part(rule.name.as_str());
        part(rule.min_severity.as_str());
        part(if rule.report_alerts { "alerts" } else { "" });
        part(if rule.report_system_notifications { "notifications" } else { "" });
        match &rule.protocols {
            None => part("any protocol"),
            Some(names) => {
                part("protocols");
                part(&names.len().to_string());
                for name in names {
                    part(name);
                }
            }
        }
        match &rule.engines {
            None => part("any engine"),
            Some(engines) => {
                part("engines");
                part(&engines.len().to_string());
                for engine in engines {
                    part(engine.as_str());
                }
            }
        }
        for action in &rule.actions {
            part("action");
            part(action.destination.as_str());
            part(action.table.as_str());
            if action.kind == DeliveryKind::PutRow {
                part(action.kind.as_str());
                for (ours, column) in &action.columns {
                    part(ours);
                    part(column);
                }
            }
            part(&action.fields.len().to_string());
            for (field, template) in &action.fields {
                part(field);
                part(template);
            }
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}
