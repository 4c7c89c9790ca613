//! Tests of the whole room: decisions against a rule-by-rule evaluation, routes, fields, digest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::model::{AlertState, Endpoint, Generation, Protocol, Timestamp, protocol};

fn destination(name: &str) -> DestinationName {
    DestinationName::new(name).unwrap()
}

fn table(name: &str) -> TableName {
    TableName::new(name).unwrap()
}

fn action(to: &str, into: &str, fields: &[(&str, &str)]) -> ActionSettings {
    let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let table = table(into);
    ActionSettings {
        destination: destination(to),
        kind: DeliveryKind::of_table(&table),
        table,
        fields,
        columns: BTreeMap::new(),
        life: Life::default(),
        closing: BTreeMap::new(),
    }
}

/// A rule that takes every alert about the plant.
fn rule(name: &str) -> RuleSettings {
    RuleSettings {
        name: RuleName::new(name).unwrap(),
        enabled: true,
        min_severity: Severity::Warning,
        protocols: None,
        engines: None,
        report_alerts: true,
        report_system_notifications: false,
        actions: vec![action("prod", "incident", &[])],
    }
}

fn alert() -> Alert {
    Alert {
        id: None,
        time: Timestamp::from_secs(1_795_248_900),
        received_at: Timestamp::from_secs(1_795_248_901),
        title: "Unexpected write".to_owned(),
        message: String::new(),
        severity: Severity::Major,
        engine: Engine::PolicyViolation,
        protocols: vec![Protocol::named("modbus")],
        category: None,
        source: Endpoint::default(),
        destination: Endpoint::default(),
        sensor: "s1".to_owned(),
        site: None,
        zone: None,
        state: AlertState::Raised,
        kind: AlertKind::Alert,
        references: Vec::new(),
        raw: String::new(),
    }
}

fn folded(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| protocol::fold(n)).collect()
}

fn check_reason(rules: &[RuleSettings], alert: &Alert, reason: Reason) {
    let rules = Rules::compile(rules).unwrap();
    assert_eq!(rules.decide(alert).reason, reason);
    assert_eq!(rules.decide(alert).routes.is_empty(), reason != Reason::Matched);
}

#[test]
fn the_reason_is_the_furthest_that_any_rule_came() {
    let severe = RuleSettings { min_severity: Severity::Critical, ..rule("severe") };
    let dnp3 = RuleSettings { protocols: Some(folded(&["DNP3"])), ..rule("dnp3") };
    let malware = RuleSettings { engines: Some([Engine::Malware].into()), ..rule("malware") };
    let notices = RuleSettings { report_alerts: false, report_system_notifications: true, ..rule("notices") };
    let off = RuleSettings { enabled: false, ..rule("off") };

    check_reason(&[], &alert(), Reason::NoRules);
    check_reason(std::slice::from_ref(&off), &alert(), Reason::NoRules);
    check_reason(&[notices.clone(), off.clone()], &alert(), Reason::Kind);
    check_reason(&[notices.clone(), severe.clone()], &alert(), Reason::Severity);
    check_reason(&[dnp3.clone(), notices.clone()], &alert(), Reason::Protocol);
    check_reason(&[malware.clone(), dnp3.clone()], &alert(), Reason::Engine);
    // Of rules that lack one thing each, the severity is what a person asks for.
    check_reason(&[severe.clone(), dnp3.clone(), notices.clone()], &alert(), Reason::Severity);
    check_reason(&[malware.clone(), severe, dnp3], &alert(), Reason::Severity);
    let severe_malware = RuleSettings {
        min_severity: Severity::Critical,
        engines: Some([Engine::Malware].into()),
        ..rule("severe malware")
    };
    check_reason(&[severe_malware, malware.clone()], &alert(), Reason::Engine);
    check_reason(&[malware, rule("all"), notices], &alert(), Reason::Matched);
}

#[test]
fn an_alert_without_protocols_matches_only_any() {
    let bare = Alert { protocols: Vec::new(), ..alert() };
    let modbus = RuleSettings { protocols: Some(folded(&["Modbus"])), ..rule("modbus") };
    check_reason(std::slice::from_ref(&modbus), &bare, Reason::Protocol);
    check_reason(&[modbus, rule("any")], &bare, Reason::Matched);
}

#[test]
fn one_of_several_protocols_is_enough_and_unknown_names_are_folded() {
    let several = Alert { protocols: vec![Protocol::named("tcp"), Protocol::named("Acme-Bus")], ..alert() };
    for name in ["ACME bus", "TCP"] {
        let one = RuleSettings { protocols: Some(folded(&[name])), ..rule("one") };
        check_reason(&[one], &several, Reason::Matched);
    }
    // As it comes from a file that somebody wrote: not canonical.
    let written: Protocol = serde_json::from_str("\"s7comm\"").unwrap();
    let by_hand = Alert { protocols: vec![written], ..alert() };
    let s7 = RuleSettings { protocols: Some(folded(&["Siemens S7"])), ..rule("s7") };
    check_reason(&[s7], &by_hand, Reason::Matched);
}

#[test]
fn two_rules_make_one_ticket_and_the_first_gives_its_fields() {
    let first = RuleSettings {
        actions: vec![action("prod", "incident", &[("urgency", "1")]), action("dr", "incident", &[])],
        ..rule("first")
    };
    let second = RuleSettings {
        actions: vec![
            action("prod", "incident", &[("urgency", "3")]),
            action("prod", "problem", &[("urgency", "2")]),
        ],
        ..rule("second")
    };
    let rules = Rules::compile(&[RuleSettings { enabled: false, ..rule("off") }, first, second]).unwrap();
    let decision = rules.decide(&alert());
    let routes: Vec<_> =
        decision.routes.iter().map(|r| (r.destination.as_str(), r.table.as_str(), r.rule)).collect();
    assert_eq!(routes, [("prod", "incident", 1), ("dr", "incident", 1), ("prod", "problem", 2)]);
    assert_eq!(decision.matched.iter().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fields(&rules, "first", "incident").unwrap()["urgency"], "1");
    assert_eq!(fields(&rules, "second", "problem").unwrap()["urgency"], "2");
}

fn fields(rules: &Rules, rule: &str, into: &str) -> Result<BTreeMap<String, String>, TemplateError> {
    let (destination, table) = (destination("prod"), table(into));
    let at = Timestamp::from_secs(1_795_248_900);
    rules.fields(&TicketContext {
        alert: &alert(),
        occurrences: 3,
        first_seen: at,
        last_seen: at,
        generation: Generation(0),
        agent: "line4",
        rule,
        destination: &destination,
        table: &table,
        correlation_id: "otrelay-1",
    })
}

#[test]
fn own_fields_lie_over_the_defaults_and_empty_ones_are_left_out() {
    let own = RuleSettings {
        actions: vec![action(
            "prod",
            "incident",
            &[("short_description", "{{ rule }}: {{ title }}"), ("impact", ""), ("location", "{{ site }}")],
        )],
        ..rule("own")
    };
    let rules = Rules::compile_over(&[own], |_, table, _| {
        let category = ("category", table.as_str());
        let defaults = [("short_description", "{{ title }}"), ("impact", "1"), category];
        defaults.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    })
    .unwrap();
    let wanted = [("category", "incident"), ("short_description", "own: Unexpected write")];
    let wanted = wanted.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<BTreeMap<_, _>>();
    assert_eq!(fields(&rules, "own", "incident").unwrap(), wanted);
}

#[test]
fn what_the_rules_no_longer_have_is_said() {
    let rules = Rules::compile(&[rule("a")]).unwrap();
    assert_eq!(fields(&rules, "b", "incident"), Err(TemplateError::UnknownRule { rule: "b".to_owned() }));
    let error = fields(&rules, "a", "problem").unwrap_err();
    assert_eq!(error.to_string(), "rule `a` has no action for table problem of `prod` any more");
}

fn check_refused(rules: &[RuleSettings], message: &str) {
    let error = Rules::compile(rules).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
}

#[test]
fn rules_that_cannot_work_are_refused() {
    check_refused(&[rule("a"), rule("a")], "two rules are called `a`");
    check_refused(&[RuleSettings { actions: Vec::new(), ..rule("a") }], "has no action");
    let misspelt = action("prod", "incident", &[("urgency", "{{ titel }}")]);
    check_refused(
        &[RuleSettings { actions: vec![misspelt], ..rule("a") }],
        "rule `a`, table incident: field `urgency`, line 1: there is no variable `titel`, the nearest is `title`",
    );
    let many: Vec<_> = (0..=RULES_MAX).map(|n| rule(&n.to_string())).collect();
    check_refused(&many, "4097 rules, at most 4096");
    let names = Some((0..=PROTOCOLS_MAX).map(|n| n.to_string()).collect());
    check_refused(&[RuleSettings { protocols: names, ..rule("a") }], "4097 different protocols");
    let off = RuleSettings { enabled: false, actions: Vec::new(), ..rule("off") };
    assert!(Rules::compile(&[off]).is_ok());
}

#[test]
fn explanations_name_found_and_wanted() {
    let check = |rule: RuleSettings, alert: &Alert, words: &str| {
        let rules = Rules::compile(&[rule]).unwrap();
        assert_eq!(rules.explain(alert)[0].to_string(), words);
    };
    check(rule("a"), &alert(), "matches");
    check(RuleSettings { enabled: false, ..rule("a") }, &alert(), "disabled");
    check(
        RuleSettings { report_alerts: false, report_system_notifications: true, ..rule("a") },
        &alert(),
        "kind is alert, the rule takes system notification",
    );
    check(
        RuleSettings { min_severity: Severity::Critical, ..rule("a") },
        &alert(),
        "severity is major, the rule takes critical and higher",
    );
    check(
        RuleSettings { protocols: Some(folded(&["DNP3", "enip"])), ..rule("a") },
        &alert(),
        "protocol is Modbus, the rule takes DNP3 or EtherNet/IP",
    );
    check(
        RuleSettings { protocols: Some(folded(&["DNP3"])), ..rule("a") },
        &Alert { protocols: Vec::new(), ..alert() },
        "protocol is not known, the rule takes DNP3",
    );
    check(
        RuleSettings { engines: Some([Engine::Malware, Engine::Anomaly].into()), ..rule("a") },
        &alert(),
        "engine is policy violation, the rule takes malware or anomaly",
    );
}

#[test]
fn the_digest_follows_what_decides() {
    let digest = |rules: &[RuleSettings]| Rules::compile(rules).unwrap().digest();
    let base = digest(&[rule("a"), rule("b")]);
    assert_eq!(base, digest(&[rule("a"), rule("b")]));
    assert_eq!(base, digest(&[rule("a"), RuleSettings { enabled: false, ..rule("c") }, rule("b")]));
    let others = [
        vec![rule("b"), rule("a")],
        vec![rule("a")],
        vec![rule("a"), rule("c")],
        vec![rule("a"), RuleSettings { min_severity: Severity::Minor, ..rule("b") }],
        vec![rule("a"), RuleSettings { protocols: Some(folded(&[])), ..rule("b") }],
        vec![rule("a"), RuleSettings { protocols: Some(folded(&["modbus"])), ..rule("b") }],
        vec![rule("a"), RuleSettings { engines: Some([Engine::Malware].into()), ..rule("b") }],
        vec![rule("a"), RuleSettings { report_alerts: false, ..rule("b") }],
        vec![rule("a"), RuleSettings { report_system_notifications: true, ..rule("b") }],
        vec![rule("a"), RuleSettings { actions: vec![action("dr", "incident", &[])], ..rule("b") }],
        vec![
            rule("a"),
            RuleSettings { actions: vec![action("prod", "incident", &[("x", "y")])], ..rule("b") },
        ],
    ];
    let mut seen = BTreeSet::from([base]);
    for rules in &others {
        assert!(seen.insert(digest(rules)), "{rules:?}");
    }
}

/// Few values, so that rules and alerts meet: known, aliased and unknown names.
const NAMES: [&str; 6] = ["Modbus", "s7comm", "DNP3", "Acme Bus", "x-1", "EtherNet/IP"];

fn any_name() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&NAMES[..])
}

fn any_engine() -> impl Strategy<Value = Engine> {
    proptest::sample::select(&Engine::ALL[..])
}

fn any_severity() -> impl Strategy<Value = Severity> {
    proptest::sample::select(&Severity::ALL[..])
}

prop_compose! {
    fn any_rule()(
        enabled in proptest::bool::weighted(0.9),
        min_severity in any_severity(),
        names in proptest::option::weighted(0.6, btree_set(any_name(), 0..3)),
        engines in proptest::option::weighted(0.6, btree_set(any_engine(), 0..3)),
        report_alerts in proptest::bool::weighted(0.8),
        report_system_notifications: bool,
        targets in vec((0..3, 0..3), 1..3),
    ) -> RuleSettings {
        RuleSettings {
            enabled,
            min_severity,
            protocols: names.map(|names| names.into_iter().map(protocol::fold).collect()),
            engines,
            report_alerts,
            report_system_notifications,
            actions: targets.iter().map(|(d, t)| action(&format!("d{d}"), &format!("t{t}"), &[])).collect(),
            ..rule("unnamed")
        }
    }
}

fn any_rules() -> impl Strategy<Value = Vec<RuleSettings>> {
    // Around the word size, and often so few that nothing matches.
    prop_oneof![vec(any_rule(), 0..4), vec(any_rule(), 60..70), vec(any_rule(), 0..140)].prop_map(
        |mut rules| {
            for (at, rule) in rules.iter_mut().enumerate() {
                rule.name = RuleName::new(&format!("rule {at}")).unwrap();
            }
            rules
        },
    )
}

prop_compose! {
    fn any_alert()(
        severity in any_severity(),
        engine in any_engine(),
        names in vec(any_name(), 0..3),
        notification: bool,
    ) -> Alert {
        let kind = if notification { AlertKind::SystemNotification } else { AlertKind::Alert };
        Alert { severity, engine, protocols: names.into_iter().map(Protocol::named).collect(), kind, ..alert() }
    }
}

/// The reason by looking at every rule.
fn linear_reason(rules: &[RuleSettings], alert: &Alert, verdicts: &[Verdict<'_>]) -> Reason {
    let furthest = verdicts.iter().map(|v| v.failure.as_ref().map(|f| f.condition));
    if verdicts.iter().any(Verdict::matches) {
        return Reason::Matched;
    }
    let but_for_severity = |rule: &RuleSettings| {
        explain::failure(&RuleSettings { min_severity: Severity::Warning, ..rule.clone() }, alert).is_none()
    };
    if rules.iter().any(but_for_severity) {
        return Reason::Severity;
    }
    match furthest.flatten().max() {
        None | Some(Condition::Enabled) => Reason::NoRules,
        Some(Condition::Kind) => Reason::Kind,
        Some(Condition::Severity) => Reason::Severity,
        Some(Condition::Protocol) => Reason::Protocol,
        Some(Condition::Engine) => Reason::Engine,
    }
}

proptest! {
    #[test]
    fn bit_sets_decide_as_one_rule_after_the_other(rules in any_rules(), alerts in vec(any_alert(), 1..20)) {
        let compiled = Rules::compile(&rules).unwrap();
        let again = Rules::compile(&rules).unwrap();
        for alert in &alerts {
            let decision = compiled.decide(alert);
            let verdicts = compiled.explain(alert);
            let matching: Vec<_> = verdicts.iter().filter(|v| v.matches()).map(|v| v.index).collect();

            let mut routes: Vec<(&DestinationName, &TableName, usize)> = Vec::new();
            for &index in &matching {
                for action in &rules[index].actions {
                    if !routes.iter().any(|(d, t, _)| **d == action.destination && **t == action.table) {
                        routes.push((&action.destination, &action.table, index));
                    }
                }
            }
            let decided: Vec<_> = decision.routes.iter().map(|r| (r.destination, r.table, r.rule)).collect();
            prop_assert_eq!(decided, routes);
            prop_assert_eq!(decision.matched.iter().collect::<Vec<_>>(), matching);
            prop_assert_eq!(decision.reason, linear_reason(&rules, alert, &verdicts));
            prop_assert_eq!(&decision, &again.decide(alert));
        }
    }
}
