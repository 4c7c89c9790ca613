//! `[[redact]]` to Settings.

use std::collections::BTreeMap;

use super::check::Check;
use super::file::{Redact, Rule};
use super::problem::At;
use super::read::{Field, List};
use super::values::{OneOrMore, RedactAs};
use crate::rules::redact::{Field as Part, How, REDACT_MAX, Redaction};
use crate::source::host;

/// Checks all of them, and that no rule wants evidence of what is redacted; `None` when one has an error.
pub(super) fn check(
    tables: &Field<List<Redact>>,
    rules: &Field<List<Rule>>,
    c: &mut Check<'_>,
) -> Option<Redaction> {
    let Some((tables, place)) = tables.get() else { return Some(Redaction::default()) };
    let actions = rules.get().into_iter().flat_map(|(rules, _)| &rules.items);
    let actions = actions.filter_map(|(rule, _)| rule.action.get()).flat_map(|(actions, _)| &actions.items);
    for at in actions.filter_map(|(action, _)| action.attach.at()) {
        c.problems.error(
            at,
            "what is redacted is in the record and in its packet, so nothing is attached",
            |p| p.hint("remove `attach`, or [[redact]]"),
        );
    }
    if tables.items.len() > REDACT_MAX {
        c.problems.error(place, "too many [[redact]] tables", |p| {
            p.found(tables.items.len().to_string()).expected(format!("at most {REDACT_MAX}"))
        });
        return None;
    }
    let (mut all, mut fine) = (BTreeMap::new(), true);
    for (table, at) in &tables.items {
        fine &= one(table, at, &mut all, c).is_some();
    }
    let key = c.environment.machine_id.map(|id| host::redaction_key(&id));
    if key.is_none() && all.values().any(|how| *how == How::Pseudonym) {
        c.problems.error(
            place,
            "a pseudonym is made with the machine's id, and this machine has none",
            |p| p.hint("make one with `systemd-machine-id-setup`, or write as = \"mask\" or \"remove\""),
        );
        return None;
    }
    fine.then(|| Redaction::new(all, &key.unwrap_or_default()))
}

fn one(table: &Redact, at: &At, all: &mut BTreeMap<Part, How>, c: &mut Check<'_>) -> Option<()> {
    c.effective.begin("[[redact]]", at.key.to_string());
    let how = c.value("as", &table.r#as, RedactAs::Pseudonym, |how| how.as_str());
    let (OneOrMore(names), _) =
        c.required("fields", &table.fields, at, "what is redacted, e.g. [\"source.ip\"]")?;
    c.note_list("fields", &table.fields, names, |name| name.as_str());
    let how = match how? {
        RedactAs::Pseudonym => How::Pseudonym,
        RedactAs::Remove => How::Remove,
        RedactAs::Mask => How::Mask,
    };
    let mut fine = names.items.len() == names.written;
    for (name, place) in &names.items {
        fine &= part(name, place, how, all, c).is_some();
    }
    fine.then_some(())
}

fn part(name: &str, place: &At, how: How, all: &mut BTreeMap<Part, How>, c: &mut Check<'_>) -> Option<()> {
    let Some(part) = Part::parse(name) else {
        let known: Vec<&str> = Part::ALL.iter().map(|part| part.as_str()).collect();
        c.problems.error(place, "an alert has no such field that can be redacted", |p| {
            p.quoted(name).expected(format!("one of {}", known.join(", "))).near(name, known)
        });
        return None;
    };
    if part.is_free_text() && how != How::Remove {
        c.problems
            .error(place, "free text can only be removed", |p| p.quoted(name).expected("as = \"remove\""));
        return None;
    }
    if all.insert(part, how).is_some() {
        c.problems
            .error(place, "this field is redacted twice", |p| p.quoted(name).hint("keep one of the two"));
        return None;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Purpose, load};

    fn redaction(machine: Option<[u8; 16]>, tables: &str) -> Result<Redaction, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otrelay.toml");
        let text = format!(
            "[sync]\nenabled = false\n[agent]\nname = \"a\"\nid = \"a\"\n{tables}\n\
             [[source]]\nname = \"s\"\nkind = \"suricata-eve\"\npath = \"/x\"\n"
        );
        std::fs::write(&path, text).unwrap();
        let environment = Environment::new(|_| None).with_config(Some(path)).on_machine(machine);
        let loaded = load(&environment, Purpose::Show, |_, _| Ok(())).map_err(|error| error.to_string())?;
        Ok(loaded.config.redaction)
    }

    #[test]
    fn what_is_redacted_and_how() {
        let tables = "[[redact]]\nfields = [\"source.ip\", \"sensor\"]\n[[redact]]\nfields = \"message\"\nas = \"remove\"";
        let read = redaction(Some([7; 16]), tables).unwrap();
        let expected =
            [(Part::SourceIp, How::Pseudonym), (Part::Sensor, How::Pseudonym), (Part::Message, How::Remove)];
        assert_eq!(read.fields(), &BTreeMap::from(expected));
        assert!(redaction(None, "").unwrap().fields().is_empty());
    }

    #[test]
    fn every_mistake_is_named_with_its_remedy() {
        for (tables, words) in [
            ("[[redact]]\nfields = [\"source.ipp\"]", "did you mean `source.ip`?"),
            ("[[redact]]\nfields = [\"message\"]", "free text can only be removed"),
            ("[[redact]]\nas = \"remove\"", "fields: missing"),
            ("[[redact]]\nfields = [\"site\"]\n[[redact]]\nfields = [\"site\"]", "redacted twice"),
            ("[[redact]]\nfields = [\"site\"]\nas = \"hash\"", "pseudonym"),
            (
                "[[redact]]\nfields = [\"site\"]\n[[rule]]\nname = \"r\"\n[[rule.action]]\nattach = [\"raw\"]",
                "remove `attach`, or [[redact]]",
            ),
        ] {
            let error = redaction(Some([7; 16]), tables).unwrap_err();
            assert!(error.contains(words), "{tables}: {error}");
        }
        let error = redaction(None, "[[redact]]\nfields = [\"site\"]").unwrap_err();
        assert!(error.contains("systemd-machine-id-setup"), "{error}");
        assert!(redaction(None, "[[redact]]\nfields = [\"site\"]\nas = \"mask\"").is_ok());
    }
}
