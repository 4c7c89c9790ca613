//! Encoded queries: text to conditions, and conditions against a record. As on an instance, what is not understood
//! (unknown field, unknown operator, a script other than the caller's own id and name and `gs.dateGenerate`) drops
//! *that condition*, and the rows come back unfiltered; a client that trusts the filter finds strangers' records.
//!
//! Comparison of text ignores case, as the usual database collation does; numbers compare as numbers.

use std::borrow::Cow;
use std::cmp::Ordering;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
    Like,
    NotLike,
    StartsWith,
    EndsWith,
    IsEmpty,
    IsNotEmpty,
    Anything,
    Between,
    SameAs,
    NotSameAs,
    InstanceOf,
}

/// Longest first where one is the beginning of another.
const OPS: &[(&str, Op)] = &[
    ("DOES NOT CONTAIN", Op::NotLike),
    ("NOT LIKE", Op::NotLike),
    ("NOT IN", Op::NotIn),
    ("NOTLIKE", Op::NotLike),
    ("STARTSWITH", Op::StartsWith),
    ("ENDSWITH", Op::EndsWith),
    ("ISNOTEMPTY", Op::IsNotEmpty),
    ("ISEMPTY", Op::IsEmpty),
    ("INSTANCEOF", Op::InstanceOf),
    ("EMPTYSTRING", Op::IsEmpty),
    ("ANYTHING", Op::Anything),
    ("BETWEEN", Op::Between),
    ("NSAMEAS", Op::NotSameAs),
    ("SAMEAS", Op::SameAs),
    ("CONTAINS", Op::Like),
    ("LIKE", Op::Like),
    ("IN", Op::In),
    ("!=", Op::Ne),
    ("<=", Op::Le),
    (">=", Op::Ge),
    ("=", Op::Eq),
    ("<", Op::Lt),
    (">", Op::Gt),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) field: String,
    pub(super) op: Op,
    pub(super) value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) field: String,
    pub(super) descending: bool,
}

/// A parsed query: any of the groups, all of a group's clauses, any of a clause's conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) groups: Vec<Vec<Vec<Condition>>>,
    pub(super) order: Vec<Order>,
    pub(super) dropped: bool,
}

/// Who asks, for `javascript:gs.getUserID()` and `gs.getUserName()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) sys_id: &'a str,
    pub(super) name: &'a str,
}

/// What a condition looks at.
pub(super) trait Fields {
    /// The value of a field, dot-walked; empty when there is none.
    fn value(&self, field: &str) -> Cow<'_, str>;
    fn is_a(&self, class: &str) -> bool;
}

impl Query {
    /// Reads an encoded query. `known` says whether the table has the field.
    pub(super) fn parse(text: &str, caller: Caller<'_>, known: impl Fn(&str) -> bool) -> Self {
        let mut query = Self::default();
        let mut group: Vec<Vec<Condition>> = Vec::new();
        for term in split(text) {
            if let Some(rest) = term.strip_prefix("NQ") {
                query.groups.push(std::mem::take(&mut group));
                query.condition(&mut group, rest, false, caller, &known);
            } else if let Some(field) = term.strip_prefix("ORDERBYDESC") {
                query.order_by(field, true, &known);
            } else if let Some(field) = term.strip_prefix("ORDERBY") {
                query.order_by(field, false, &known);
            } else if let Some(rest) = term.strip_prefix("OR") {
                query.condition(&mut group, rest, true, caller, &known);
            } else if term != "EQ" && !term.is_empty() {
                query.condition(&mut group, &term, false, caller, &known);
            }
        }
        query.groups.push(group);
        query
    }

    fn order_by(&mut self, field: &str, descending: bool, known: &impl Fn(&str) -> bool) {
        if known(field) {
            self.order.push(Order { field: field.to_owned(), descending });
        }
    }

    fn condition(
        &mut self,
        group: &mut Vec<Vec<Condition>>,
        term: &str,
        or: bool,
        caller: Caller<'_>,
        known: &impl Fn(&str) -> bool,
    ) {
        let parsed = read(term, caller).filter(|c| known(&c.field));
        let Some(condition) = parsed else {
            self.dropped = true;
            return;
        };
        match group.last_mut() {
            Some(clause) if or => clause.push(condition),
            _ => group.push(vec![condition]),
        }
    }

    pub(super) fn matches(&self, fields: &impl Fields) -> bool {
        self.groups.iter().any(|group| group.iter().all(|clause| clause.iter().any(|c| c.holds(fields))))
    }

    /// The values one of which this field must have, if the query says so: what an index can answer.
    pub(super) fn pinned(&self, field: &str) -> Option<Vec<&str>> {
        let [group] = self.groups.as_slice() else { return None };
        group.iter().find_map(|clause| match clause.as_slice() {
            [c] if c.field == field && c.op == Op::Eq && !c.value.is_empty() => Some(vec![c.value.as_str()]),
            [c] if c.field == field && c.op == Op::In => Some(c.value.split(',').map(str::trim).collect()),
            _ => None,
        })
    }
}

/// Cuts at single carets; a doubled one is a caret of the value.
fn split(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '^' {
            terms.last_mut().expect("never empty").push(c);
        } else if chars.next_if_eq(&'^').is_some() {
            terms.last_mut().expect("never empty").push('^');
        } else {
            terms.push(String::new());
        }
    }
    terms
}

fn read(term: &str, caller: Caller<'_>) -> Option<Condition> {
    let end = term.find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.'))?;
    let (field, rest) = term.split_at(end);
    let (op, value) = OPS.iter().find_map(|(name, op)| rest.strip_prefix(name).map(|v| (*op, v)))?;
    let value = match value.split_once('@') {
        Some((low, high)) if op == Op::Between => {
            format!("{}@{}", evaluate(low, caller)?, evaluate(high, caller)?)
        }
        _ => evaluate(value, caller)?,
    };
    (!field.is_empty()).then(|| Condition { field: field.to_owned(), op, value })
}

/// The value itself, or what its script gives; nothing for a script that is not known here.
fn evaluate(value: &str, caller: Caller<'_>) -> Option<String> {
    let Some(script) = value.strip_prefix("javascript:") else { return Some(value.to_owned()) };
    match script.trim().trim_end_matches(';') {
        "gs.getUserID()" => Some(caller.sys_id.to_owned()),
        "gs.getUserName()" => Some(caller.name.to_owned()),
        other => {
            // `gs.dateGenerate('2026-11-02','08:00:00')`, in the caller's zone, which is GMT.
            let list = other.strip_prefix("gs.dateGenerate(")?.strip_suffix(')')?;
            let parts: Vec<_> = list.split(',').map(|p| p.trim().trim_matches(['\'', '"'])).collect();
            let when = parts.join(" ").parse::<jiff::civil::DateTime>().ok()?;
            Some(when.strftime("%F %T").to_string())
        }
    }
}

impl Condition {
    fn holds(&self, fields: &impl Fields) -> bool {
        let have = fields.value(&self.field);
        let want = self.value.as_str();
        match self.op {
            Op::Eq => same(&have, want),
            Op::Ne => !same(&have, want),
            Op::Lt => !have.is_empty() && order(&have, want) == Ordering::Less,
            Op::Le => !have.is_empty() && order(&have, want) != Ordering::Greater,
            Op::Gt => order(&have, want) == Ordering::Greater,
            Op::Ge => order(&have, want) != Ordering::Less,
            Op::In => want.split(',').any(|w| same(&have, w.trim())),
            Op::NotIn => !want.split(',').any(|w| same(&have, w.trim())),
            Op::Like => lower(&have).contains(&lower(want)),
            Op::NotLike => !lower(&have).contains(&lower(want)),
            Op::StartsWith => lower(&have).starts_with(&lower(want)),
            Op::EndsWith => lower(&have).ends_with(&lower(want)),
            Op::IsEmpty => have.is_empty(),
            Op::IsNotEmpty => !have.is_empty(),
            Op::Anything => true,
            Op::Between => want.split_once('@').is_some_and(|(low, high)| {
                !have.is_empty()
                    && order(&have, low) != Ordering::Less
                    && order(&have, high) != Ordering::Greater
            }),
            Op::SameAs => same(&have, &fields.value(want)),
            Op::NotSameAs => !same(&have, &fields.value(want)),
            Op::InstanceOf => fields.is_a(want),
        }
    }
}

fn lower(text: &str) -> String {
    text.to_lowercase()
}

fn same(a: &str, b: &str) -> bool {
    a == b || (!a.is_ascii() || !b.is_ascii()) && lower(a) == lower(b) || a.eq_ignore_ascii_case(b)
}

/// Numbers as numbers, everything else as text without case.
pub(super) fn order(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.total_cmp(&b),
        _ => lower(a).cmp(&lower(b)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const CALLER: Caller<'static> = Caller { sys_id: "76bb", name: "admin" };

    struct Row(BTreeMap<&'static str, &'static str>);

    impl Fields for Row {
        fn value(&self, field: &str) -> Cow<'_, str> {
            Cow::Borrowed(self.0.get(field).copied().unwrap_or_default())
        }
        fn is_a(&self, class: &str) -> bool {
            class == "cmdb_ci"
        }
    }

    fn known(field: &str) -> bool {
        ["name", "state", "at", "by", "sys_id", "other"].contains(&field)
    }

    fn row() -> Row {
        let fields = [("name", "PLC-Line3"), ("state", "2"), ("at", "2026-11-02 09:15:00"), ("by", "admin")];
        Row(fields.into())
    }

    fn check(query: &str, expected: bool) {
        let parsed = Query::parse(query, CALLER, known);
        assert_eq!(parsed.matches(&row()), expected, "{query}: {parsed:?}");
    }

    #[test]
    fn operators() {
        check("name=plc-line3", true);
        check("name!=plc-line3", false);
        check("state<10", true);
        check("state>10", false);
        check("state>=2^state<=2", true);
        check("stateIN1,2,3", true);
        check("stateNOT IN1,2,3", false);
        check("nameLIKEline", true);
        check("nameNOT LIKEline", false);
        check("nameSTARTSWITHplc", true);
        check("nameENDSWITHline", false);
        check("otherISEMPTY", true);
        check("nameISEMPTY", false);
        check("nameISNOTEMPTY", true);
        check("stateBETWEEN1@3", true);
        check("atBETWEEN2026-11-02 09:00:00@2026-11-02 09:14:59", false);
        check("at>=2026-11-02 09:15:00", true);
        check("at>javascript:gs.dateGenerate('2026-11-02','09:15:01')", false);
        check("by=javascript:gs.getUserName()", true);
        check("sys_idINSTANCEOFcmdb_ci", true);
        check("nameSAMEASname", true);
        check("nameANYTHING", true);
    }

    #[test]
    fn joins() {
        check("state=1^ORstate=2", true);
        // `^OR` binds only to the condition before it.
        check("name=x^state=1^ORstate=2", false);
        check("name=x^NQstate=2", true);
        check("name=x^NQstate=3", false);
        check("", true);
        check("state=2^EQ", true);
    }

    #[test]
    fn what_is_not_understood_is_dropped() {
        for query in ["nosuch=1", "atFOOBAR7", "by=javascript:gs.exit()", "nosuch=1^state=2", "=x", "name"] {
            check(query, true);
            assert!(Query::parse(query, CALLER, known).dropped, "{query}");
        }
        check("nosuch=1^state=3", false);
        check("state=3^ORnosuch=1", false);
    }

    #[test]
    fn order_is_kept() {
        let query = Query::parse("ORDERBYname^ORDERBYDESCat^ORDERBYnosuch^state=2", CALLER, known);
        let order: Vec<_> = query.order.iter().map(|o| (o.field.as_str(), o.descending)).collect();
        assert_eq!(order, [("name", false), ("at", true)]);
        assert!(query.matches(&row()));
    }

    #[test]
    fn an_index_is_used_only_where_it_decides() {
        let pinned = |q: &str| {
            let query = Query::parse(q, CALLER, known);
            query.pinned("name").map(|v| v.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(pinned("name=a^state=1"), Some(vec!["a".to_owned()]));
        assert_eq!(pinned("nameINa,b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(pinned("name=a^ORstate=1"), None);
        assert_eq!(pinned("name=a^NQstate=1"), None);
        assert_eq!(pinned("name!=a"), None);
    }

    proptest! {
        /// A value whose carets are doubled stays one condition with that value, whatever it says.
        #[test]
        fn an_escaped_value_never_changes_the_conditions(value in "[\\^=ORNQa-z@,!<>javscript:]{0,40}|\\PC{0,30}") {
            prop_assume!(!value.starts_with("javascript:"));
            let escaped = value.replace('^', "^^");
            let query = Query::parse(&format!("state=2^name={escaped}^ORDERBYat"), CALLER, known);
            let condition = |field: &str, value: &str| {
                vec![Condition { field: field.to_owned(), op: Op::Eq, value: value.to_owned() }]
            };
            prop_assert_eq!(query.groups, vec![vec![condition("state", "2"), condition("name", &value)]]);
            prop_assert_eq!(query.order.len(), 1);
            prop_assert!(!query.dropped);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            Query::parse(&text, CALLER, |_| true).matches(&row());
        }
    }
}
