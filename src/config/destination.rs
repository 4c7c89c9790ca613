//! `[servicenow.NAME]` to the Settings of a destination: address, log-in, proxy, trust, ceilings.

mod auth;
pub(super) mod network;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use url::{Host, Url};

use super::Purpose;
use super::check::Check;
use super::example;
use super::file::Destination;
use super::problem::At;
use super::read::{Field, Named};
use super::secret;
use super::values::{self, SecretRef};
use crate::model::{DestinationName, Secret};
use crate::relay::{Limits, OnUnprotected};
use crate::servicenow::{Settings, kept_login};

/// Checks all destinations; those with an error are left out. Kept log-ins are in `state_dir`.
pub(super) fn check(
    destinations: &Field<Named<Destination>>,
    state_dir: Option<&Path>,
    c: &mut Check<'_>,
) -> Vec<(Settings, Limits)> {
    let Some((destinations, _)) = destinations.get() else { return Vec::new() };
    // Not `filter_map` over a lazy chain of `?`: every destination is looked at to its end.
    let mut seen: BTreeMap<String, &At> = BTreeMap::new();
    let mut checked = Vec::new();
    for (name, destination, at) in &destinations.0 {
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), at) {
            let message = format!("two destinations differ only in case, the other at {}", other.line());
            c.problems.warn(at, message, |p| p);
        }
        checked.extend(one(name, destination, state_dir, at, c));
    }
    checked
}

fn one(
    name: &str,
    destination: &Destination,
    state_dir: Option<&Path>,
    at: &At,
    c: &mut Check<'_>,
) -> Option<(Settings, Limits)> {
    let header =
        if name.contains('.') { format!("[servicenow.\"{name}\"]") } else { format!("[servicenow.{name}]") };
    c.effective.begin(header, at.key.to_string());
    let name = match DestinationName::new(name) {
        Ok(name) => Some(name),
        Err(error) => {
            c.problems.error(at, "this name cannot be used", |p| p.expected(error.expected));
            None
        }
    };
    let instance = c
        .required("instance", &destination.instance, at, "\"https://NAME.service-now.com\"")
        .and_then(|(text, place)| {
            let url = instance(text, destination.headers.is_present(), place, c)?;
            c.effective.note_field("instance", text.clone(), &destination.instance);
            Some(url)
        });
    let kept = name.as_ref().zip(state_dir).map(|(name, dir)| kept_login(dir, name));
    let auth = auth::check(destination, kept, at, c);
    let proxy = network::proxy_of(&destination.proxy, instance.as_ref(), c);
    let tls = network::tls_of(&destination.tls, proxy.as_ref().ok().and_then(Option::as_ref), c);
    let headers = network::headers(destination, c);
    let requests_per_hour =
        number("requests_per_hour", &destination.requests_per_hour, 1000, 1..=1_000_000, c);
    let max_in_flight = number("max_in_flight", &destination.max_in_flight, 2, 1..=16, c);
    let on_unprotected =
        c.value("on_unprotected", &destination.on_unprotected, values::OnUnprotected::Hold, |w| w.as_str());
    let limits = Limits {
        requests_per_hour: u32::try_from(requests_per_hour?).ok()?,
        max_in_flight: usize::try_from(max_in_flight?).ok()?,
        on_unprotected: match on_unprotected? {
            values::OnUnprotected::Hold => OnUnprotected::Hold,
            values::OnUnprotected::Accept => OnUnprotected::Accept,
        },
    };
    let settings = Settings {
        name: name?,
        instance: instance?,
        auth: auth?,
        proxy: proxy.ok()?,
        tls: tls?,
        headers: headers?,
        devices: None,
    };
    Some((settings, limits))
}

/// A number within bounds.
pub(super) fn number(
    name: &str,
    field: &Field<i64>,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
    c: &mut Check<'_>,
) -> Option<i64> {
    let value = c.value(name, field, default, |n| *n)?;
    if let (false, Some(at)) = (range.contains(&value), field.at()) {
        let (low, high) = range.into_inner();
        c.problems
            .error(at, "out of range", |p| p.found(value.to_string()).expected(format!("{low} to {high}")));
        return None;
    }
    Some(value)
}

/// The base address. Found text is repeated only when it cannot hold a password.
fn instance(text: &str, gateway: bool, at: &At, c: &mut Check<'_>) -> Option<Url> {
    const EXPECTED: &str = "\"https://NAME.service-now.com\"";
    let url = match Url::parse(text.trim()) {
        Ok(url) if !url.cannot_be_a_base() => url,
        _ => {
            let hint = if text.contains("://") { None } else { Some("begin with https://") };
            c.problems.error(at, "this is not an address", |p| {
                let p = if text.contains('@') { p } else { p.quoted(text) }.expected(EXPECTED);
                hint.map_or(p.clone(), |hint| p.hint(hint))
            });
            return None;
        }
    };
    let mut wrong = false;
    let purpose = c.purpose;
    let mut error = |message: &str, hint: &str| {
        c.problems.error(at, message, |p| p.expected(EXPECTED).hint(hint));
        wrong = true;
    };
    if !url.username().is_empty() || url.password().is_some() {
        error("a log-in must not stand in the address", "use the keys username and password");
    }
    if purpose != Purpose::Show && url.host_str() == Some(example::HOST) {
        error(
            "this is still the address of the example",
            "put your instance here; `otrelay init` asks for all that is needed",
        );
    }
    let has_path = !matches!(url.path(), "" | "/");
    if has_path && !gateway || url.query().is_some() || url.fragment().is_some() {
        error(
            "only the base address belongs here, without a path",
            "take away what follows the host name; an API gateway with a path wants its key in `headers`",
        );
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => {
            error("alerts must not leave unencrypted: http is for loopback addresses only", "use https");
        }
        _ => error("the scheme is neither https nor http", "use https"),
    }
    if wrong {
        return None;
    }
    let host = url.host_str().unwrap_or_default();
    if url.scheme() == "https" && !host.ends_with(".service-now.com") && !is_loopback(&url) {
        let message = format!("{host} is not a host of .service-now.com");
        c.problems.warn(at, message, |p| {
            p.hint("right for a custom address or an on-prem instance; else check it")
        });
    }
    Some(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The secret, wherever it is; notes where.
pub(super) fn fetch(name: &str, field: &Field<SecretRef>, c: &mut Check<'_>) -> Option<Secret> {
    let (reference, at) = field.get()?;
    c.effective.note_field(name, format!("({})", secret::origin(reference)), field);
    secret::fetch(reference, at, c.environment, c.purpose, c.problems)
}
