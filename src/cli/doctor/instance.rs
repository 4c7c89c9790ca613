//! The destinations: the way there, the log-in, the tables with what the rules put into them, and limits.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::sources::without_secrets;
use super::{Scene, now};
use crate::app::{self, Composer};
use crate::cli::clock;
use crate::destination::{Admission, Compose, Destination as _, Order, Remark, SendError, TicketFacts};
use crate::model::gather::Gather as _;
use crate::model::ticket::TicketKeys;
use crate::model::{
    Alert, DeliveryKind, Endpoint, Finding, Fingerprint, Generation, HoldScope, Severity, TableName,
    Timestamp,
};
use crate::net::probe;
use crate::rules::{ActionSettings, RuleSettings, Rules};
use crate::servicenow::cmdb::Other;
use crate::servicenow::{Auth, ServiceNow, Settings};

/// A clock that is further off than this misdates tickets, and signed log-ins are refused.
const SKEW_MAX: Duration = Duration::from_mins(5);
/// What a report may cost: one kind of trouble in many rules is told that often.
const SAME_MAX: usize = 50;

pub(super) async fn all(scene: &Scene<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rules = match app::compile(scene.config) {
        Ok(rules) => Arc::new(rules),
        Err(e) => return vec![Finding::fail("rules", e.to_string(), "correct the rule")],
    };
    for settings in &scene.config.destinations {
        let mut own = Vec::new();
        let patient = Patient { scene, settings, rules: &rules };
        if let Err(last) = patient.examine(&mut own).await {
            own.push(last);
        }
        findings.extend(own.into_iter().map(|finding| finding.of(settings.name.as_str())));
    }
    findings
}

/// One destination.
struct Patient<'a> {
    scene: &'a Scene<'a>,
    settings: &'a Settings,
    rules: &'a Arc<Rules>,
}

/// Refused, with the remedy of whoever judged the answer.
fn refused(name: impl Into<String>, e: SendError) -> Finding {
    let wait = "it may pass by itself; if not, ask who runs the instance";
    let remedy = if e.remedy.is_empty() { wait.to_owned() } else { e.remedy };
    Finding::fail(name, e.message, remedy)
}

impl Patient<'_> {
    /// One check after the other; an error is the finding behind which nothing can be looked at.
    async fn examine(&self, findings: &mut Vec<Finding>) -> Result<(), Finding> {
        let Settings { instance, tls, proxy, .. } = self.settings;
        findings.extend(probe::way(instance, tls, proxy.as_ref(), now()).await);
        if findings.last().is_some_and(Finding::fails) {
            return Ok(());
        }
        if !self.scene.secrets {
            findings.push(Finding::skipped("log-in", without_secrets(instance.as_str())));
            return Ok(());
        }
        let to = ServiceNow::new(self.settings.clone(), clock())
            .map_err(|e| Finding::fail("log-in", e.to_string(), "correct [servicenow.NAME]"))?
            .checking();
        to.log_in().await.map_err(|e| refused("log-in", e))?;
        findings.push(Finding::ok("log-in", grant(&self.settings.auth)));
        if let Some(concern) = to.concern() {
            findings.push(Finding::warn("log-in", concern.text, concern.remedy));
        }
        self.tables(&to, findings).await?;
        self.devices(&to, findings).await?;
        if let Some(table) = self.scene.probe {
            findings.push(keys(&to, table).await);
        }
        findings.push(self.limits(&to));
        Ok(())
    }

    fn actions(&self) -> impl Iterator<Item = (&RuleSettings, &ActionSettings)> {
        let enabled = self.scene.config.rules.iter().filter(|rule| rule.enabled);
        let all = enabled.flat_map(|rule| rule.actions.iter().map(move |action| (rule, action)));
        all.filter(|(_, action)| action.destination == self.settings.name)
    }

    /// Each table that rules name: is it there, may it be read, does it take what the rules put into it.
    async fn tables(&self, to: &ServiceNow, findings: &mut Vec<Finding>) -> Result<(), Finding> {
        let tickets: BTreeSet<&TableName> = self
            .actions()
            .filter(|(_, action)| action.kind == DeliveryKind::OpenTicket)
            .map(|(_, action)| &action.table)
            .into_set();
        let mut shut = BTreeSet::new();
        let mut server_now = None;
        for table in tickets {
            match to.can_read(table).await {
                Ok(at) => {
                    server_now = server_now.max(at);
                    findings.push(Finding::ok(format!("table {table}"), "it is there and may be read"));
                }
                Err(e) if e.hold == HoldScope::Destination => return Err(refused("instance", e)),
                Err(e) => {
                    shut.insert(table);
                    findings.push(refused(format!("table {table}"), absent(table, e)));
                }
            }
        }
        findings.extend(server_now.and_then(|at| skew(at, now(), &self.settings.auth)));
        let mut told = BTreeSet::new();
        for (rule, action) in self.actions().filter(|(_, action)| !shut.contains(&action.table)) {
            for finding in self.mapping(to, rule, action).await? {
                if told.len() < SAME_MAX && told.insert((finding.name.clone(), finding.text.clone())) {
                    findings.push(finding);
                }
            }
        }
        Ok(())
    }

    /// What a rule puts into a table, against what the table takes.
    async fn mapping(
        &self,
        to: &ServiceNow,
        rule: &RuleSettings,
        action: &ActionSettings,
    ) -> Result<Vec<Finding>, Finding> {
        let name = format!("mapping to {}", action.table);
        if !matches!(action.kind, DeliveryKind::OpenTicket | DeliveryKind::PutRow) {
            return Ok(vec![Finding::skipped(name, "only putting an event shows whether it is taken")]);
        }
        let mut findings = Vec::new();
        for severity in Severity::ALL.into_iter().filter(|severity| *severity >= rule.min_severity) {
            let order = match self.order(rule, action, severity) {
                Ok(order) => order,
                Err(why) => {
                    let remedy = "correct the template in [rule.action.fields]";
                    return Ok(vec![Finding::fail(name, format!("rule \"{}\": {why}", rule.name), remedy)]);
                }
            };
            match to.admit(&order, &|| true).await {
                Ok(Admission::Fits(remarks)) => {
                    findings.extend(remarks.into_iter().map(|r| remark(&name, r)));
                }
                Ok(Admission::Waits) => {}
                Err(e) if e.hold == HoldScope::Destination => return Err(refused("instance", e)),
                Err(e) => findings.push(refused(name.clone(), e)),
            }
        }
        if findings.is_empty() {
            findings.push(Finding::ok(name, "the table takes what the rules put into it"));
        }
        Ok(findings)
    }

    fn order(
        &self,
        rule: &RuleSettings,
        action: &ActionSettings,
        severity: Severity,
    ) -> Result<Order, String> {
        let alert = example(severity, &self.scene.config.agent);
        let fingerprint = Fingerprint::from_bytes([0; 32]);
        let (destination, table) = (&action.destination, &action.table);
        let keys = TicketKeys::derive(&fingerprint, destination, table, Generation::default());
        let composer = Composer::of(self.scene.config, Arc::clone(self.rules));
        let fields = composer.compose(&TicketFacts {
            alert: &composer.redact(alert.clone()),
            occurrences: 1,
            last_seen_at: alert.time,
            destination,
            table,
            generation: Generation::default(),
            rule: rule.name.as_str(),
            correlation_id: keys.correlation_id.clone(),
        })?;
        Ok(Order {
            kind: action.kind,
            table: table.clone(),
            keys,
            fields,
            attachment: None,
            affected: Vec::new(),
        })
    }

    /// The data source of devices has to be known there.
    async fn devices(&self, to: &ServiceNow, findings: &mut Vec<Finding>) -> Result<(), Finding> {
        let Some(devices) = &self.settings.devices else { return Ok(()) };
        let source = &devices.data_source;
        let known =
            to.is_choice("cmdb_ci", "discovery_source", source).await.map_err(|e| refused("devices", e))?;
        findings.push(match known {
            Some(true) => Finding::ok("data source", format!("`{source}` is a choice of cmdb_ci.discovery_source")),
            Some(false) => Finding::fail(
                "data source",
                format!("`{source}` is no choice of cmdb_ci.discovery_source: no device would be taken"),
                format!(
                    "add the choice `{source}` to the field discovery_source of cmdb_ci there (System Definition > Choice \
                     Lists), or name one that is there in `data_source` of [devices]"
                ),
            ),
            None => Finding::skipped("data source", "choices (sys_choice) may not be read"),
        });
        findings.extend(self.others(to, source).await?);
        Ok(())
    }

    /// Whether another integration tells the CMDB of the same devices.
    async fn others(&self, to: &ServiceNow, own: &str) -> Result<Vec<Finding>, Finding> {
        const NAME: &str = "other integrations";
        Ok(match to.other_sources().await {
            Ok(None) => vec![Finding::skipped(NAME, "no CI there is from otrelay yet")],
            Ok(Some(others)) if others.is_empty() => {
                vec![Finding::ok(NAME, "no other data source has the CIs of otrelay that were looked at")]
            }
            Ok(Some(others)) => {
                let place = self.settings.instance.as_str().trim_end_matches('/');
                let warn = |other: Other| Finding::warn(NAME, other.text(place), other.remedy(own));
                others.into_iter().map(warn).collect()
            }
            Err(e) if e.hold == HoldScope::Destination => return Err(refused(NAME, e)),
            Err(_) => vec![Finding::skipped(NAME, "sources of CIs (sys_object_source) may not be read")],
        })
    }

    /// The instance's limit beside our own.
    fn limits(&self, to: &ServiceNow) -> Finding {
        let limits =
            self.scene.config.relay.destinations.get(&self.settings.name).copied().unwrap_or_default();
        let own = limits.requests_per_hour;
        match to.rate_limit().limit {
            Some(theirs) if theirs < own => Finding::warn(
                "limits",
                format!(
                    "the instance allows {theirs} requests an hour, and `requests_per_hour = {own}`: theirs counts"
                ),
                format!(
                    "set `requests_per_hour` below {theirs}, or have the rule raised (sys_rate_limit_rules)"
                ),
            ),
            Some(theirs) => {
                Finding::ok("limits", format!("{own} of {theirs} requests an hour are used at most"))
            }
            None => {
                Finding::ok("limits", format!("{own} requests an hour at most; the instance names no limit"))
            }
        }
    }
}

/// The way of logging in, once it worked.
fn grant(auth: &Auth) -> &'static str {
    match auth {
        Auth::Password(_) => "the password grant gives a token",
        Auth::ClientCredentials(_) => "the client credentials grant gives a token",
        Auth::RefreshToken(_) => "the refresh token gives a token",
        Auth::JwtBearer(_) => "the JWT bearer grant gives a token",
        Auth::ApiKey(_) => "an API key goes with each request",
        Auth::ClientCertificate => "the client certificate logs in",
        Auth::Basic(_) => "user and password go with each request",
    }
}

/// What a table that is not there comes with.
fn absent(table: &TableName, e: SendError) -> SendError {
    let comes_with = match table.as_str() {
        "sn_si_incident" => "Security Incident Response",
        "sn_ot_incident" => "Operational Technology Incident Management",
        "em_event" => "Event Management",
        _ => return e,
    };
    let is_absent = e.status == Some(400) || e.status == Some(404);
    let remedy =
        format!("activate the plugin of {comes_with} there, or name another table in [[rule.action]]");
    if is_absent { SendError { remedy, ..e } } else { e }
}

fn remark(name: &str, remark: Remark) -> Finding {
    // What may not be read is judged by nothing; what is dropped there is lost.
    if remark.field.is_empty() {
        Finding::warn(name, remark.text, remark.remedy)
    } else {
        Finding::fail(name, remark.text, remark.remedy)
    }
}

/// How far this machine's clock is from the instance's, where that is too far.
fn skew(theirs: Timestamp, own: Timestamp, auth: &Auth) -> Option<Finding> {
    let off = theirs.since(own).max(own.since(theirs));
    if off <= SKEW_MAX {
        return None;
    }
    let text = format!(
        "this machine's clock says {} UTC, the instance's {} UTC",
        own.servicenow(),
        theirs.servicenow()
    );
    let remedy = "set the clock (timedatectl set-ntp true, or a time server of the plant)";
    Some(match auth {
        Auth::JwtBearer(_) => Finding::fail("clock", text, remedy),
        _ => Finding::warn("clock", text, remedy),
    })
}

/// Whether both keys of a ticket are kept.
async fn keys(to: &ServiceNow, table: &TableName) -> Finding {
    let name = format!("keys in {table}");
    let mut seed = [0; 32];
    // Only to be another one than the last time: nothing secret is made of it.
    seed.fill_with(|| fastrand::u8(..));
    let tried = match to.try_keys(table, seed).await {
        Ok(tried) => tried,
        Err(e) => return refused(name, e),
    };
    if let Some((record, why)) = tried.left {
        let text = format!("the record {record} that was made for this could not be deleted: {why}");
        return Finding::warn(name, text, format!("delete {record} in {table} there"));
    }
    let right =
        format!("give the integration user the right to write `correlation_id` in {table} (field ACL)");
    match (tried.kept.sys_id, tried.kept.correlation_id) {
        (true, true) => Finding::ok(name, "sys_id and correlation_id are both kept"),
        (false, true) => Finding::warn(
            name,
            "sys_id is not kept: after a lost answer only the look-up by correlation_id keeps twins away",
            "nothing has to be done; a business rule or an ACL on sys_id may be the reason",
        ),
        (true, false) => {
            Finding::fail(name, "correlation_id is not kept: a ticket could not be found again by it", right)
        }
        (false, false) => Finding::fail(
            name,
            "neither sys_id nor correlation_id is kept: after a lost answer there could be twins, so nothing is sent there",
            right,
        ),
    }
}

/// An alert such as a sensor may tell, to fill the templates with.
fn example(severity: Severity, agent: &crate::config::Agent) -> Alert {
    let end = |ip: [u8; 4]| Endpoint { ip: Some(std::net::IpAddr::from(ip)), ..Endpoint::default() };
    Alert {
        title: "otrelay doctor: an example".to_owned(),
        severity,
        protocols: vec![crate::model::Protocol::named("modbus")],
        source: end([192, 0, 2, 1]),
        destination: end([192, 0, 2, 2]),
        site: agent.site.clone(),
        zone: agent.zone.clone(),
        ..Alert::of(&agent.name, now())
    }
}
