//! `[[test]]` to cases: what `otrelay test` runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::Check;
use super::file::{self, CaseExpect, CaseInput};
use super::problem::At;
use super::read::{Field, List};
use crate::model::gather::Gather as _;
use crate::model::{Engine, Severity};

/// A case: a record of a sensor, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The source whose settings are used; `None`: the first one of the kind, else one with all defaults.
    pub source: Option<String>,
    /// The kind of source.
    pub kind: String,
    /// Name of the file that the record is of, for formats that are told apart by it.
    pub file: String,
    /// The record; several lines where it needs a header.
    pub line: String,
    /// What is expected.
    pub expect: Expect,
}

/// What is expected; `None` is not looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// Exactly these rules match; none: it is not forwarded.
    pub rules: Option<BTreeSet<String>>,
    /// The severity.
    pub severity: Option<Severity>,
    /// The engine.
    pub engine: Option<Engine>,
    /// Exactly these protocols, in any order, by their folded names.
    pub protocols: Option<BTreeSet<String>>,
    /// Fields of the first ticket; an empty text: the field is not there.
    pub fields: BTreeMap<String, String>,
}

/// Checks all cases; `None` when one has an error.
pub(super) fn check(cases: &Field<List<file::Case>>, c: &mut Check<'_>) -> Option<Vec<Case>> {
    let Some((cases, _)) = cases.get() else { return Some(Vec::new()) };
    let checked: Vec<_> = cases.items.iter().map(|(case, at)| one(case, at, c)).collect();
    checked.into_iter().collect()
}

fn one(case: &file::Case, at: &At, c: &mut Check<'_>) -> Option<Case> {
    c.effective.begin("[[test]]", at.key.to_string());
    let named = c.required("name", &case.name, at, "a name for this case");
    let name = named.and_then(|_| c.line("name", &case.name, 200));
    let input = c.required("input", &case.input, at, "{ kind = \"suricata-eve\", line = '…' }");
    let input = input.and_then(|(input, at)| self::input(input, at, c));
    let expect = c.required("expect", &case.expect, at, "{ rules = [\"NAME\"], severity = \"critical\" }");
    let expect = expect.and_then(|(expect, at)| self::expect(expect, at, c));
    let case = input?;
    Some(Case { name: name?, expect: expect?, ..case })
}

fn input(input: &CaseInput, at: &At, c: &mut Check<'_>) -> Option<Case> {
    let kind = c.required("kind", &input.kind, at, "a kind of source, e.g. \"suricata-eve\"");
    let line = c.required("line", &input.line, at, "a record as the sensor writes it, in '…' or '''…'''");
    let kind = kind.and_then(|(kind, at)| {
        c.effective.note_field("input.kind", kind.clone(), &input.kind);
        if super::source::is_built(kind) {
            return Some(kind.clone());
        }
        c.problems.error(at, "there is no such kind of source", |p| {
            p.quoted(kind).expected(super::source::words())
        });
        None
    });
    let text = |field: &Field<String>| field.get().map(|(text, _)| text.clone());
    let (kind, (line, _)) = (kind?, line?);
    Some(Case {
        name: String::new(),
        source: text(&input.source),
        kind,
        file: text(&input.file).unwrap_or_default(),
        line: line.clone(),
        expect: Expect::default(),
    })
}

fn expect(expect: &CaseExpect, at: &At, c: &mut Check<'_>) -> Option<Expect> {
    if expect.rules.is_wrong()
        || expect.severity.is_wrong()
        || expect.engine.is_wrong()
        || expect.protocols.is_wrong()
        || expect.fields.is_wrong()
    {
        return None;
    }
    let names = |field: &Field<List<String>>| -> Option<Vec<String>> {
        field.get().map(|(names, _)| names.items.iter().map(|(name, _)| name.clone()).collect())
    };
    let rules = names(&expect.rules);
    if let Some(rules) = &rules {
        c.effective.note_field("expect.rules", Value::from(rules.clone()), &expect.rules);
    }
    let fields = expect.fields.get().map_or_else(BTreeMap::new, |(named, _)| {
        named.0.iter().map(|(name, value, _)| (name.clone(), value.clone())).into_map()
    });
    let expected = Expect {
        rules: rules.map(BTreeSet::from_iter),
        severity: expect.severity.get().map(|(word, _)| word.0),
        engine: expect.engine.get().map(|(word, _)| word.0),
        protocols: names(&expect.protocols)
            .map(|names| names.iter().map(|name| crate::model::protocol::fold(name)).collect()),
        fields,
    };
    if expected == Expect::default() {
        c.problems.error(at, "a case that expects nothing always holds", |p| {
            p.expected("at least one of rules, severity, engine, protocols, fields")
        });
        return None;
    }
    Some(expected)
}
