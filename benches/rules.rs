//! How long a decision takes: goal 1 000 rules, one alert, at most 500 ns; and how long rules take to compile: at
//! most 50 ms. `cargo bench --bench rules`.

use std::collections::BTreeMap;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

use otrelay::model::{
    Alert, AlertKind, AlertState, DestinationName, Endpoint, Engine, Protocol, RuleName, Severity, TableName,
    Timestamp, protocol,
};
use otrelay::rules::{ActionSettings, RuleSettings, Rules};

const SIZES: [usize; 3] = [10, 100, 1_000];

fn main() {
    divan::main();
}

/// Of a thousand rules 80 to 150 take an alert: every severity, a quarter any protocol, a third any engine.
fn settings(count: usize) -> Vec<RuleSettings> {
    let known: Vec<_> = Protocol::known().map(protocol::fold).collect();
    let mut random = fastrand::Rng::with_seed(7);
    (0..count)
        .map(|n| {
            let names = (0..random.usize(1..6)).map(|_| random.choice(&known).expect("not empty").clone());
            let protocols = names.collect();
            let engines = (0..random.usize(1..3)).map(|_| Engine::ALL[random.usize(0..5)]).collect();
            let destination =
                DestinationName::new(if random.bool() { "prod" } else { "dr" }).expect("a plain name");
            let table = ["incident", "sn_si_incident", "problem"][random.usize(0..3)];
            RuleSettings {
                name: RuleName::new(&format!("rule {n}")).expect("one line"),
                enabled: true,
                min_severity: Severity::ALL[random.usize(0..4)],
                protocols: (random.u8(0..4) != 0).then_some(protocols),
                engines: (random.u8(0..3) != 0).then_some(engines),
                report_alerts: true,
                report_system_notifications: random.bool(),
                actions: vec![ActionSettings {
                    life: otrelay::model::life::Life::default(),
                    closing: BTreeMap::new(),
                    destination,
                    table: TableName::new(table).expect("a plain name"),
                    kind: otrelay::model::DeliveryKind::OpenTicket,
                    columns: BTreeMap::new(),
                    fields: BTreeMap::from([
                        ("assignment_group".to_owned(), "OT SOC".to_owned()),
                        (
                            "short_description".to_owned(),
                            format!("[{{{{ severity }}}}] {{{{ title }}}} ({n})"),
                        ),
                    ]),
                }],
            }
        })
        .collect()
}

fn alert(severity: Severity, protocols: &[&str]) -> Alert {
    let at = Timestamp::from_secs(1_795_248_900);
    Alert {
        id: None,
        time: at,
        received_at: at,
        title: "Unexpected write".to_owned(),
        message: String::new(),
        severity,
        engine: Engine::PolicyViolation,
        protocols: protocols.iter().map(|name| Protocol::named(name)).collect(),
        category: None,
        source: Endpoint::default(),
        destination: Endpoint::default(),
        sensor: "sensor".to_owned(),
        site: None,
        zone: None,
        state: AlertState::Raised,
        kind: AlertKind::Alert,
        references: Vec::new(),
        raw: String::new(),
    }
}

fn decide(bencher: Bencher<'_, '_>, rules: &[RuleSettings], alert: &Alert) {
    let rules = Rules::compile(rules).expect("these rules are fine");
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| rules.decide(black_box(alert)).routes.len());
}

#[divan::bench(args = SIZES)]
fn one_protocol(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, &settings(count), &alert(Severity::Major, &["modbus"]));
}

#[divan::bench(args = SIZES)]
fn two_protocols(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, &settings(count), &alert(Severity::Critical, &["s7comm", "tcp"]));
}

/// The most that a decision can have to do: every rule takes the alert, and each asks for a ticket of its own.
#[divan::bench(args = SIZES)]
fn every_rule_a_ticket(bencher: Bencher<'_, '_>, count: usize) {
    let mut rules = settings(count);
    for (n, rule) in rules.iter_mut().enumerate() {
        rule.min_severity = Severity::Warning;
        rule.protocols = None;
        rule.engines = None;
        rule.actions[0].table = TableName::new(&format!("u_table_{n}")).expect("a plain name");
    }
    decide(bencher, &rules, &alert(Severity::Major, &["modbus"]));
}

#[divan::bench(args = SIZES)]
fn unknown_protocol(bencher: Bencher<'_, '_>, count: usize) {
    decide(bencher, &settings(count), &alert(Severity::Major, &["Acme Bus"]));
}

#[divan::bench(args = SIZES)]
fn filtered_by_severity(bencher: Bencher<'_, '_>, count: usize) {
    let mut rules = settings(count);
    for rule in &mut rules {
        rule.min_severity = Severity::Critical;
    }
    decide(bencher, &rules, &alert(Severity::Minor, &["modbus"]));
}

#[divan::bench(args = SIZES)]
fn compile(bencher: Bencher<'_, '_>, count: usize) {
    let rules = settings(count);
    bencher.bench_local(|| Rules::compile(black_box(&rules)).expect("these rules are fine"));
}
