//! `[devices]`: where devices go, how often, and as which classes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Agent;
use super::check::{Check, MIN_INTERVAL};
use super::file::Devices;
use super::problem::At;
use super::read::Field;
use super::show::Origin;
use super::values::{DeviceMethod, OnDeleted};
use crate::model::{DestinationName, TableName};
use crate::relay;
use crate::servicenow::cmdb;

/// What both sides of the wire need to know of devices.
pub(super) struct Checked {
    pub(super) relay: relay::Devices,
    pub(super) wire: cmdb::Settings,
}

/// Checks the table; `None`: devices are not pushed, or there was an error.
pub(super) fn check(
    field: &Field<Devices>,
    agent: Option<&Agent>,
    destinations: &[&str],
    c: &mut Check<'_>,
) -> Option<Checked> {
    let (devices, at) = field.get()?;
    c.effective.begin("[devices]", "devices");
    let enabled = c.value("enabled", &devices.enabled, true, |v| *v);
    let servicenow = servicenow(devices, at, destinations, c);
    let method = c.value("method", &devices.method, DeviceMethod::IdentifyReconcile, |m| m.as_str());
    if let (Some(DeviceMethod::ImportSet), Some(at)) = (method, devices.method.at()) {
        c.not_yet(at, "method = \"import-set\"", "use \"identify-reconcile\", or set enabled = false");
    }
    let data_source = if devices.data_source.is_present() {
        c.line("data_source", &devices.data_source, 40)
    } else {
        c.effective.note("data_source", "otrelay", Origin::Default);
        Some("otrelay".to_owned())
    };
    let interval = c.duration("interval", &devices.interval, "60m", MIN_INTERVAL);
    let on_deleted = c.value("on_deleted", &devices.on_deleted, OnDeleted::Note, |w| w.as_str());
    let class_map = class_map(devices, c);
    if enabled != Some(true) {
        return None;
    }
    let agent = agent?;
    let destination = DestinationName::new(&servicenow?).ok()?;
    Some(Checked {
        relay: relay::Devices { destination, table: TableName::new(cmdb::TABLE).ok()?, interval: interval? },
        wire: cmdb::Settings {
            agent: agent.id.clone(),
            sensor: agent.name.clone(),
            data_source: data_source?,
            class_map: class_map?,
            on_deleted: match on_deleted? {
                OnDeleted::Retire => cmdb::OnDeleted::Retire,
                OnDeleted::Note => cmdb::OnDeleted::Note,
                OnDeleted::None => cmdb::OnDeleted::None,
            },
        },
    })
}

/// The destination; it may be left out when there is one.
fn servicenow(devices: &Devices, at: &At, destinations: &[&str], c: &mut Check<'_>) -> Option<String> {
    match (devices.servicenow.get(), destinations) {
        (Some((name, place)), all) => {
            c.effective.note("servicenow", name.clone(), place.into());
            if !c.complete || all.contains(&name.as_str()) {
                return Some(name.clone());
            }
            c.problems.error(place, "there is no destination with this name", |p| {
                let known: Vec<String> = all.iter().map(|name| format!("\"{name}\"")).collect();
                let p = p.found(format!("\"{name}\""));
                if known.is_empty() {
                    p.hint("add [servicenow.NAME]")
                } else {
                    p.expected(known.join(" or "))
                }
            });
            None
        }
        (None, [only]) if !devices.servicenow.is_present() => {
            c.effective.note_field("servicenow", *only, &devices.servicenow);
            Some((*only).to_owned())
        }
        (None, [_, _, ..]) if !devices.servicenow.is_present() => {
            c.problems.error(&at.child("servicenow"), "missing: there is more than one destination", |p| {
                p.hint("say to which one devices go")
            });
            None
        }
        _ => None,
    }
}

/// Type to class; an empty class means that the type gets no CI.
fn class_map(devices: &Devices, c: &mut Check<'_>) -> Option<BTreeMap<String, String>> {
    let Some((named, _)) = devices.class_map.get() else {
        return (!devices.class_map.is_present()).then(BTreeMap::new);
    };
    let (mut all, mut shown, mut fine) = (BTreeMap::new(), serde_json::Map::new(), true);
    for (kind, class, at) in &named.0 {
        if !class.is_empty() && TableName::new(class).is_err() {
            c.problems.error(at, "this is no name of a class", |p| {
                p.found(format!("\"{class}\"")).expected("a table of the CMDB such as \"cmdb_ci_ot_plc\"")
            });
            fine = false;
        }
        shown.insert(kind.clone(), Value::String(class.clone()));
        all.insert(kind.clone(), class.clone());
    }
    c.effective.note_field("class_map", Value::Object(shown), &devices.class_map);
    fine.then_some(all)
}
